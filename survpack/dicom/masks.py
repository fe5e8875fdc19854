"""The tumour's mask on the grid of an image, from RTSTRUCT (contours) and DICOM SEG (voxels): which file, which regions.

Files
- Those that name the series count, else those in its frame of reference. Of several that hold a tumour there, the newest
  is taken if all agree (Dice 0.9 or more with it); if they differ there is no mask, and the sentence says how to choose.
  With `--structures` those that fit are united.

Regions
- Without `--tumour`, names of tumour (`TUMOUR`) are taken but for what they show to be something else (`_OTHERWISE`), in
  several languages: a planning volume or margin, lymph nodes, an organ without its tumour, what surgery left, what is
  spared, surroundings, a marker or control. "Liver-GTV" is the organ without it, "liver-lesion" a lesion of it. A pattern
  that was given is taken as it is. Of those taken, one that holds or largely overlaps another is told.
- Only closed contours enclose something; how they become voxels is told in `outlines`. Where they lie across the slices
  of an image, they are drawn on the series that the file names and counted on the image by their share; where that was
  not read either, the image has no mask, and that is told.

SEG
- A voxel of a FRACTIONAL segment belongs to the region from half of `MaximumFractionalValue` on (so that a half is a half
  whatever that is) where the fraction is a PROBABILITY. Where it is an OCCUPANCY, and where voxels lie on another grid
  than the image's, they count by their share and the volume is kept, as with outlines.
- A frame is as thick as the spacing of slices says, else the thickness; frames that were left out are empty.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from operator import itemgetter
from pathlib import Path

import numpy as np

from survpack.dicom.outlines import KEPT, TRACE, along, chosen, filled, levels
from survpack.dicom.series import Series, header, numbers_of, ordered
from survpack.errors import BadInput

TUMOUR = r"GTV|tumou?r|tumeur|neoplasm|lesion|(?<![a-z])mass(es)?(?![a-z])|(?<![a-z])mets?(?![a-z])|metasta"
AGREE = 0.9  # Dice
TENFOLD = 10
HOLDS, OVERLAPS = 0.95, 0.5  # of the smaller region
_LESION = r"(gtv|tumou?r|tumeur|neoplasm|lesion|mass|mets?(?![a-z])|metasta(?!ti))"
_WITHOUT = (
    r"(minus|without|w/o|ohne|sans|senza|zonder|(?<![a-z])(less|ex|excl\w*|except|no|non|not|sin|sem|utan|uden|abz\w*))"
)
_LESS = r"(outside|ausser\w*|moins|menos?|subtr\w*|crop\w*([\W_]*(by|from))?|(?<![a-z])(sub|min|cut|out|hors))"
_THE = r"([\W_]*(?<![a-z])(the|any|das|die|den|de|la|le|el|il|het))?[\W_]*"
_MANY = r"(lungs|lungen|poumons|pulmones|polmoni|pulmoes|longen|kidneys|nieren|reins|((?<![a-z][\W_])|(?<=whole[\W_]))body|external|koe?rper|corps|cuerpo)"
_ORGAN = (
    rf"({_MANY}|lunge?|poumon|pulmon|polmone|pulmao|liver|leber|foie|higado|fegato|lever|figado|brain([\W_]*stem)?|hirn\w*|"
    r"gehirn|cerveau|encephale|cerebro|cervello|hersenen|kidney|niere|rein|rinon|heart|spleen|milz|pancreas|pankreas|"
    r"stomach|bowel|bladder|prostate|prostata|rectum|rektum|o?esophagus|parotids?|thyroid|breasts?|mamma|larynx|pharynx|"
    r"oral[\W_]*cavity|mandible|(spinal[\W_]*)?cord|skin|tissue)"
)
_SIDE = r"([\W_]*(?<![a-z])(l|r|lt|rt|left|right|li|re|both|total|whole|ipsi\w*|contra\w*))?"
_OTHERWISE = {
    "a planning volume or margin": r"[pci]tv|(?<![a-z])[ip][\W_]*gtv|prv|gtv[\W_]*\+|\+\s*\d|plus[\W_]*\d|marg(in|e)|saum|shell|"
    r"\d\s*[mc]m(?![a-z])(?![\W_]*(slice|schicht|coupe|thick))|exp(and\w*|ansion)?(?![a-z])|(?<![a-z])(grow[ns]?|ext)(?![a-z])|"
    r"enlarge|erweiter|(?<!spa)ring(?![a-z])(?![\W_]*enhanc)|dilat|eros|eroded|buffer|isodos|(?<![a-z])dos(e|is)",
    "nodes": r"gtv[\W_]*\d*[\W_]*(n|nd|nod|ln|lk|rpn|gg|adp|adeno)(?![a-z])|(?<![a-z])n\d?[\W_]*gtv|nod(e|es|al|us|i)(?![a-z])|"
    r"(?<![a-z])(lns?|lks?)(?![a-z])|lymph(?!oma)|(?<![a-z0-9])n[1-3][a-c]?(?![a-z0-9])|adenopath|adenomegal|linfon|klier|"
    r"(?<!basal[\W_])gangli(o|os|ons?|onn\w*|onar\w*)(?![a-z])|\+\s*n(?![a-z])",
    "tissue without the tumour": rf"({_WITHOUT}|{_LESS}){_THE}{_LESION}|{_LESION}e?[\W_]*(free|frei|vrij|libre|libero|negativ)|"
    rf"(?<![a-z]){_MANY}[\W_]*(min|m|x|less)?[\W_]*gtv|(?<![a-z]){_ORGAN}min[\W_]*gtv|"
    rf"(?<![a-z]){_ORGAN}{_SIDE}[ _]*[-–—][\W_]*gtv|(?<![a-z]){_MANY}[ _]*[-–—][\W_]*tumou?r",
    "what surgery left": r"(?<![a-z])(bed|bett|lit|lecho|loge|letto)(?![a-z])|(tumor|tumour)(bed|bett)|cavit|kavit|hoe?hle|holte|"
    r"(?<!un)(?<!pre)(?<!pre[\W_])resect(?!able)|lumpectom|serom",
    "what is to be spared": r"avoid|spar(e|ing)|(?<![a-z])opti?(?![a-z])|dummy",
    "surroundings": rf"peri[\W_]*{_LESION}|o?edema|odem(?![a-z])|(?<!ab)normal(?!i)|healthy|gesund|contralateral|background|"
    r"benign|halo",
    "a marker, a control or no tumour": r"(?<![a-z])(clips?|markers?|fiducials?|seeds?|bolus|b?box|bounding|isocent\w*|sham|"
    r"mirror(ed)?|controls?|mimics?|blood[\W_]*pool)(?![a-z])|biops(y|ie)(?![a-z])(?![\W_]*prove)|pseudo[\W_]*(tumou?r|lesion|mass)|"
    r"(muscle|lean|fat|body|ventric\w*|myocard\w*)[\W_]*mass",
}
_PLANNED = ("PTV", "CTV", "TREATED_VOLUME", "IRRAD_VOLUME", "AVOIDANCE")  # RT ROI Interpreted Type


class Across(BadInput):
    """Contours lie across the slices of an image, and of the series that the file names, if it was read."""


@dataclass
class Region:
    """One region on the grid of an image, and what is to be said of it."""

    name: str
    mask: np.ndarray
    notes: list[str] = field(default_factory=list)


@dataclass
class Drawing:
    """The tumour as one file draws it."""

    path: Path
    head: object
    regions: list[Region]

    @property
    def mask(self) -> np.ndarray:
        return np.any([one.mask for one in self.regions], axis=0)


def tumour_of(
    series: Series,
    annotations: list,
    tumour: str,
    structures: str,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    read: list[Series] = (),
) -> tuple[np.ndarray | None, list[str]]:
    """The mask of the tumour on an image, by the rules above.

    Parameters
    ----------
    series : Series
    annotations : list of (Path, header)
    tumour, structures : str
        Patterns of regions, and of the path (last three parts) or label of structure sets ("" for any).
    affine : ndarray, shape (4, 4)
        From (column, row, slice) to mm, DICOM axes.
    shape : tuple of 3 ints
    read : list of Series, optional
        All of the patient's, among which may be those that the files name.

    Returns
    -------
    ndarray of bool, of `shape`, or None
    list of str
        What it was made of, in one phrase, then what else there is to say; with names, so for the terminal alone.
    """
    files = annotations_of(series, annotations, structures)
    if not files:
        return None, ["no mask: no RTSTRUCT or SEG is of it"]
    left = {name: why for _, head in files for name, why in others(head, tumour).items()}
    taken = [(path, head, found) for path, head in files if (found := regions(head, tumour))]
    try:
        drawings = [
            Drawing(path, head, drawn(path, head, found, affine, shape, _grids(head, read)))
            for path, head, found in taken
        ]
    except Across as error:
        return None, [f"no mask: {error}"]
    if not drawings:
        return None, [f"no mask: no region matches --tumour ({' + '.join(map(_told, left.items()))})"]
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    drawings, told = _agreed(drawings, structures, affine, voxel)
    if not drawings:
        return None, told
    taken = [region for one in drawings for region in one.regions]
    mask = np.any([one.mask for one in taken], axis=0)
    names = " + ".join(dict.fromkeys(one.name for one in taken))
    volumes = [(one.mask.sum() * voxel, one.name) for one in taken]
    told = [f"mask from {names}" if mask.any() else f"EMPTY mask: nothing of {names} lies in the image", *told]
    told += [f"taken: {', '.join(f'{name} ({volume:.3g} mL)' for volume, name in volumes)}"]
    told += [f"not taken: {', '.join(map(_told, left.items()))}"] if left else []
    told += [f"{one.name}: {note}" for one in taken for note in one.notes]
    small, large = min(filter(itemgetter(0), volumes), default=(0, "")), max(volumes)
    if large[0] > TENFOLD * small[0] > 0:
        times = f"{large[1]} is {large[0] / small[0]:.0f} times as large as {small[1]}"
        told.append(f"{times}; see that both are tumour, or choose by --tumour")
    return mask, told + [line for one in drawings for line in _overlaps(one.regions)]


def annotations_of(series: Series, annotations: list, structures: str = "") -> list[tuple[Path, object]]:
    """The RTSTRUCT and SEG files of a series that fit: those that name it, else those in its frame of reference."""
    fit = re.compile(structures, re.IGNORECASE)
    mine = [
        (path, head)
        for path, head in annotations
        if head.get("PatientID") == series.head.PatientID
        and any(
            fit.search(str(text or ""))
            for text in (_name(path), head.get("StructureSetLabel"), head.get("ContentLabel"))
        )
    ]
    named = [(path, head) for path, head in mine if series.head.SeriesInstanceUID in _referenced(head)]
    frame = series.head.get("FrameOfReferenceUID")
    return named or [(path, head) for path, head in mine if frame and frame in _frames(head)]


def regions(head, pattern: str) -> dict[int, str]:
    """Number and name of the regions that are the tumour by `pattern`, whatever its case."""
    return {number: name for number, name in _named(head).items() if _why_not(head, number, name, pattern) is None}


def others(head, pattern: str) -> dict[str, str]:
    """Name of each region that is not taken, and why, "" where its name does not match."""
    found = {name: _why_not(head, number, name, pattern) for number, name in _named(head).items()}
    return {name: why for name, why in found.items() if why is not None}


def drawn(
    path: Path,
    head,
    names: dict[int, str],
    affine: np.ndarray,
    shape: tuple[int, int, int],
    grids: list[tuple[np.ndarray, tuple[int, int, int]]] = (),
) -> list[Region]:
    """Regions of an RTSTRUCT or SEG on a grid.

    Parameters
    ----------
    path, head
        Of the file.
    names : dict
        Number and name of each region.
    affine, shape
        As in `tumour_of`.
    grids : list of (affine, shape), optional
        Of the series that the file names.

    Raises
    ------
    BadInput
        Where the file is spoilt; `Across`, where contours lie across the slices of every grid.
    """
    if head.Modality == "SEG":
        return _segmented(path, names, affine, shape)
    contours: dict[int, list[tuple[str, np.ndarray, float]]] = {}
    try:
        for roi in header(path, whole=True).get("ROIContourSequence") or []:
            contours.setdefault(int(roi.ReferencedROINumber), []).extend(map(_points, roi.get("ContourSequence") or []))
    except (AttributeError, TypeError, ValueError) as error:  # a contour that is lost unseen would be a wrong mask
        raise BadInput(f"{path}: the structure set cannot be read ({error}); export it again.") from None
    made = []
    for number, name in names.items():
        own = contours.get(number, [])
        closed = [points for kind, points, _ in own if kind.startswith("CLOSED")]
        region = Region(name, np.zeros(shape, dtype=bool))
        if own and not closed:
            region.notes.append("only points and open lines, which enclose nothing")
        elif not own:
            region.notes.append("no contour")
        slabs = [slab for *_, slab in own if slab > 0]
        rest = [
            points for other, many in contours.items() if other != number for kind, points, _ in many if kind[0] == "C"
        ]
        onto = (affine, shape)
        if not along(closed, affine):
            onto = next((grid for grid in grids if along(closed, grid[0])), None)
        if onto is None:
            raise Across(
                f"contours lie across the slices in {_name(path)}, expected along them or along those of the series that it "
                "names; add that series to the folder"
            )
        implied = float(np.median(slabs)) if slabs else _distance(rest, onto[0])
        step = next((float(np.linalg.norm(grid[:3, 2])) for grid, _ in grids if along(closed, grid)), None)
        if not grids and _referenced(head):  # drawn on another series than this, which was not read
            step = implied
        region.mask = filled(closed, *onto, path, implied, region.notes, step)
        if onto[0] is not affine:
            region.mask = _resampled(region.mask, onto[0], affine, shape, region.notes)
        made.append(region)
    return made


def _grids(head, read: list[Series]) -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """Affine and shape of those series that an RTSTRUCT or SEG names, where they have an even grid."""
    named, grids = _referenced(head), []
    for series in read:
        if series.head.SeriesInstanceUID in named:
            with suppress(BadInput):  # which is told where the series itself is converted
                files, affine = ordered(series)
                grids.append((affine, (int(series.head.Columns), int(series.head.Rows), len(files))))
    return grids


def _resampled(
    mask: np.ndarray, drawn_on: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int], notes: list[str]
) -> np.ndarray:
    """A mask on another grid, by the share of each voxel; what lies outside is noted."""
    onto = np.linalg.inv(drawn_on) @ affine
    cover = _shared(mask.astype(np.float32), onto, shape)
    notes += _outside(cover, mask.sum() / abs(np.linalg.det(onto[:3, :3])))
    return chosen(cover, np.linalg.norm(affine[:3, :3], axis=0))


def _outside(cover: np.ndarray, whole: float) -> list[str]:
    share = 1 - cover.sum(dtype=float) / max(whole, TRACE)
    return [f"{share:.0%} of its volume lies outside the image"] if whole and share > KEPT else []


def onto_grid(mask: np.ndarray, indices: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A mask on another grid by nearest neighbour; `indices` (4, 4) leads from the new grid's indices to the mask's."""
    return _nearest(mask.astype(np.uint8), indices, shape).astype(bool)


def _agreed(
    drawings: list[Drawing], structures: str, affine: np.ndarray, voxel: float
) -> tuple[list[Drawing], list[str]]:
    """The drawings to unite, and what there is to say of them; none, where they differ and nobody chose."""
    if len(drawings) == 1 or structures:
        told = f"{len(drawings)} structure sets, united as --structures fits them"
        return drawings, [told] if len(drawings) > 1 else []
    masks = [one.mask for one in drawings]
    some = [number for number, mask in enumerate(masks) if mask.any()]
    if len(some) < 2:
        kept = [drawings[number] for number in some] or drawings[:1]
        return kept, [f"{len(drawings) - 1} more structure sets draw no tumour in the image"]
    newest = max(some, key=lambda number: _made_on(drawings[number].head))  # the first, of equally new ones
    alike = {number: _dice(masks[newest], masks[number]) for number in some}
    if min(alike.values()) >= AGREE:
        told = f"{len(some)} structure sets agree (Dice {min(alike.values()):.2f} or more), taken is {_name(drawings[newest].path)}"
        return [drawings[newest]], [told]
    centres = [affine[:3, :3] @ np.argwhere(masks[number]).mean(axis=0) for number in some]
    apart = max(float(np.linalg.norm(one - other)) for one in centres for other in centres)
    each = ", ".join(f"{_name(drawings[number].path)} {masks[number].sum() * voxel:.3g} mL" for number in some)
    return [], [
        f"no mask: {len(some)} structure sets draw different tumours ({each}; up to {apart:.0f} mm apart, Dice "
        f"{min(alike.values()):.2f}), expected one; choose by --structures or --tumour, or move the others away"
    ]


def _overlaps(regions: list[Region]) -> list[str]:
    """What to look at where regions that are united lie in one another; those that agree are one drawn twice."""
    lines = []
    for one, other in combinations(sorted(regions, key=lambda region: -int(region.mask.sum())), 2):
        shared = (one.mask & other.mask).sum() / max(int(other.mask.sum()), 1)
        if shared >= OVERLAPS and _dice(one.mask, other.mask) < AGREE:
            held = "holds" if shared >= HOLDS else f"overlaps {shared:.0%} of"
            lines.append(f"{one.name} {held} {other.name}; see that both are tumour, or choose by --tumour")
    return lines


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def _name(path: Path) -> str:
    return "/".join(path.parts[-3:])  # file names are often alike


def _made_on(head) -> tuple[str, str]:
    return next(
        (
            (str(head.get(f"{what}Date")), str(head.get(f"{what}Time") or ""))
            for what in ("StructureSet", "Content", "InstanceCreation")
            if head.get(f"{what}Date")
        ),
        ("", ""),
    )


def _named(head) -> dict[int, str]:
    if head.Modality == "RTSTRUCT":
        rois = head.get("StructureSetROISequence") or []
        return {int(roi.ROINumber): str(roi.get("ROIName") or "") for roi in rois if "ROINumber" in roi}
    segments = head.get("SegmentSequence") or []
    return {int(one.SegmentNumber): _segment_name(one) for one in segments if one.get("SegmentNumber")}  # 0: background


def _segment_name(segment) -> str:
    kind = [one.get("CodeMeaning", "") for one in segment.get("SegmentedPropertyTypeCodeSequence") or []]
    return " ".join(map(str, [segment.get("SegmentLabel", ""), *kind])).strip()


def _why_not(head, number: int, name: str, pattern: str) -> str | None:
    """Why a region is not taken as the tumour; None where it is, "" where its name does not match."""
    if pattern != TUMOUR:
        return None if re.search(pattern, name, re.IGNORECASE) else ""
    name = _plain(name)
    if not re.search(TUMOUR, name, re.IGNORECASE):
        return ""
    observed = head.get("RTROIObservationsSequence") or []
    kinds = [one.get("RTROIInterpretedType") for one in observed if one.get("ReferencedROINumber") == number]
    if set(kinds) & set(_PLANNED):
        return next(iter(_OTHERWISE))
    name = re.sub(rf"{_WITHOUT}(?!{_THE}{_LESION})[\W_]+[a-z]+", "", name)  # "tumour without oedema" shows no oedema
    return next((why for why, sign in _OTHERWISE.items() if re.search(sign, name)), None)


def _plain(name: str) -> str:
    """A name in lower case, without accents, a space where words were joined by a capital."""
    parts = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return "".join(letter for letter in parts if not unicodedata.combining(letter)).lower()


def _told(region: tuple[str, str]) -> str:
    name, why = region
    return f"{name} ({why})" if why else name


def _points(contour) -> tuple[str, np.ndarray, float]:
    """Kind, points in mm, thickness in mm (0 where none is given)."""
    points = np.array(contour.ContourData if contour.ContourData is not None else [], dtype=float).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise ValueError("a point that is no number")
    slab = numbers_of(contour, "ContourSlabThickness")
    return str(contour.ContourGeometricType), points, slab[0] if slab else 0.0


def _distance(contours: list[np.ndarray], affine: np.ndarray) -> float | None:
    """The usual distance in mm of planes of contours along the slices; None where there are fewer than three planes."""
    if not contours:
        return None
    along = np.linalg.inv(affine)[2]
    heights = np.array([points.mean(axis=0) @ along[:3] + along[3] for points in contours if len(points)])
    number = levels(heights)
    gaps = np.diff([heights[number == one].mean() for one in range(number.max() + 1)])
    return float(np.median(gaps) * np.linalg.norm(affine[:3, 2])) if len(gaps) > 1 else None


def _segmented(path: Path, names: dict[int, str], affine: np.ndarray, shape: tuple[int, int, int]) -> list[Region]:
    import highdicom
    import pydicom

    first, step = None, float(np.linalg.norm(affine[:3, 2]))
    for spacing in ("thickness", None, step):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file = highdicom.seg.Segmentation.from_dataset(
                    _spaced(pydicom.dcmread(path), spacing, step), copy=False
                )
                volumes = [file.get_volume(segment_numbers=[number], rescale_fractional=False) for number in names]
            named = zip(names.values(), volumes, strict=True)
            return [_on_image(name, file, volume, affine, shape) for name, volume in named]
        except (ValueError, RuntimeError, AttributeError, KeyError) as error:
            first = first or error
    told = " ".join(str(first).split())[:200]
    raise BadInput(f"{path}: the segmentation cannot be read ({told}); export it again as DICOM SEG.") from None


def _spaced(whole, spacing: float | str | None, step: float):
    """A SEG with another distance of frames: their "thickness" where none was told, none (as they lie), or a number."""
    groups = [
        *(whole.get("SharedFunctionalGroupsSequence") or []),
        *(whole.get("PerFrameFunctionalGroupsSequence") or []),
    ]
    for measures in (one for group in groups for one in group.get("PixelMeasuresSequence") or []):
        thickness = numbers_of(measures, "SliceThickness") or (step,)
        measures.SliceThickness = thickness[0]
        if spacing is None:
            measures.pop("SpacingBetweenSlices", None)
        elif spacing != "thickness":
            measures.SpacingBetweenSlices = spacing
        elif numbers_of(measures, "SpacingBetweenSlices") is None:
            measures.SpacingBetweenSlices = thickness[0]
    return whole


def _on_image(name: str, file, volume, affine: np.ndarray, shape: tuple[int, int, int]) -> Region:
    """One segment on the grid of an image; outside its frames is background."""
    values, spacing = volume.array[..., 0], np.linalg.norm(affine[:3, :3], axis=0)
    occupied = file.get("SegmentationFractionalType") == "OCCUPANCY"
    if file.SegmentationType == "FRACTIONAL":
        highest = int(file.MaximumFractionalValue)
        values = np.minimum(values / np.float32(highest), 1) if occupied else 2 * values.astype(int) >= highest
    onto = np.linalg.inv(volume.affine) @ affine
    corners = np.array([[*at, 1] for at in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    same = np.abs((corners @ onto.T) - corners @ np.rint(onto).T).max() < 0.1
    values = values.astype(np.float32)
    cover = _nearest(values, np.rint(onto), shape) if same else _shared(values, onto, shape)
    notes = _outside(cover, values.sum(dtype=float) / abs(np.linalg.det(onto[:3, :3])))
    return Region(name, chosen(cover, spacing) if occupied or not same else cover > 0, notes)


def _shared(values: np.ndarray, onto: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The mean of `values` within each voxel of another grid, by at least two points along each side of theirs."""
    many = 2 * np.clip(np.ceil(np.linalg.norm(onto[:3, :3], axis=0)), 2, 6).astype(int)
    found = np.argwhere(values > 0)
    cover = np.zeros(shape, dtype=np.float32)
    if not len(found):
        return cover
    box = np.array([[*at, 1] for at in np.ndindex(2, 2, 2)]) * [*(np.ptp(found, axis=0) + 1), 1]
    box[:, :3] += found.min(axis=0)
    ends = ((box - [0.5, 0.5, 0.5, 0]) @ np.linalg.inv(onto).T)[:, :3]
    low = np.clip(np.floor(ends.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(ends.max(axis=0)).astype(int) + 1, low, shape)
    for number in range(low[2], high[2]):  # a slice at a time, for memory
        finer = np.diag([*(1 / many), 1.0])
        finer[:3, 3] = np.array([*low[:2], number]) + 0.5 / many - 0.5 + 1e-4  # so that none lies on a border
        size = [*(high[:2] - low[:2]), 1] * many
        points = _nearest(values, onto @ finer, tuple(size))
        parts = points.reshape(size[0] // many[0], many[0], size[1] // many[1], many[1], many[2])
        cover[low[0] : high[0], low[1] : high[1], number] = parts.mean(axis=(1, 3, 4))
    return cover


def _nearest(values: np.ndarray, indices: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    from scipy.ndimage import affine_transform

    # "constant" would lose a border voxel whose index comes out as -1e-16
    return affine_transform(values, indices[:3, :3], indices[:3, 3], output_shape=shape, order=0, mode="grid-constant")


def _referenced(head) -> set[str]:
    """UIDs of the series an RTSTRUCT or SEG names."""
    series = [one.get("SeriesInstanceUID") for one in head.get("ReferencedSeriesSequence") or []]
    for frame in head.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            series += [one.get("SeriesInstanceUID") for one in study.get("RTReferencedSeriesSequence") or []]
    return set(filter(None, series))


def _frames(head) -> set[str]:
    frames = [one.get("FrameOfReferenceUID") for one in head.get("ReferencedFrameOfReferenceSequence") or []]
    frames += [roi.get("ReferencedFrameOfReferenceUID") for roi in head.get("StructureSetROISequence") or []]
    return set(filter(None, [*frames, head.get("FrameOfReferenceUID")]))
