"""Series in a folder of DICOM: found, named by what they show, put in order on a regular grid (`lattice`).

Up to three scout views or screenshots within a series are left out and told, where the rest is one even grid of many.
Slice Location may begin again, but not put the same places in another order than the positions do.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from survpack.dicom import lattice
from survpack.dicom.personal import modality_of, says_yes, secrets_of, without
from survpack.errors import BadInput

IMAGES = {"CT": "ct", "PT": "pet", "MR": "mr"}
ANNOTATIONS = ("RTSTRUCT", "SEG")
DICOMDIR = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage
FEWEST = 3  # slices; less is a scout view, not a volume
MANY, FEW = 10, 3  # slices at least that are of one grid, and at most that are none of it
ACROSS, HALF = 0.5, 0.5  # cosine of the angle to the slices of the grid; voxels
ORDERLY = 0.7  # share of slices that Slice Location orders as the positions do, where it orders slices at all
EVEN = 0.5  # of a step of Slice Location: how far another may be off

_T1 = re.compile(r"(?<![a-z0-9])(t1|mp-?rage|f?spgr|bravo|vibe|tfl3d)")
_T2 = re.compile(r"(?<![a-z0-9])t2(?!\*|[ _-]?star|[ _-]?\*)")
_FLAIR = re.compile(r"flair|dark[ _-]?fluid|tirm")
_NEITHER = re.compile(
    r"t2[ _-]?(\*|star)|swi|swan|dwi|diff|adc|dti|perf|dsc|dce|asl|bold|fmri|mra|tof|angio|mrs|svs|press|subtract|"
    r"(?<![a-z])(sub|mip|map|loc|scout|survey|localizer)(?![a-z])"
)
_AFTER = re.compile(r"(?<![a-z])(post|gd|gad[a-z]*|ce|c\+|\+c|\+gd|contrast|km|enhanced)(?![a-z])|t1(c|ce|gd|\+|post)")
_BEFORE = re.compile(r"(?<![a-z])(pre|without|w/o|wo|non|no|un-?enhanced|native)(?![a-z])|unenhanced|noncontrast")


@dataclass
class Series:
    """The slices of one series, and the header of the first.

    Attributes
    ----------
    head : pydicom Dataset
        Without pixels.
    slices : list of (Path, position, orientation, size)
        Position in mm, orientation six cosines, size rows, columns and in-plane spacing; None where the header has none.
    acquired : list of (date, time)
        Of every slice, as text.
    decays : list
        Decay Factor of every slice; None where the header has none.
    locations : list
        Slice Location in mm; None where the header has none.
    """

    head: object
    slices: list = field(default_factory=list)
    acquired: list = field(default_factory=list)
    decays: list = field(default_factory=list)
    locations: list = field(default_factory=list)

    @property
    def name(self) -> str:
        """How it is called in messages: by no text of the header, and by its folder but for what repeats one."""
        number = numbers_of(self.head, "SeriesNumber")
        called = f"{number[0]:.0f} " if number and 0 <= number[0] < 1e5 else ""
        place = without(self.slices[0][0].parent, secrets_of(self.head))
        return f"series {self.head.Modality} {called}({len(self.slices)} slices) in {place}"


@dataclass
class Found:
    """What a folder holds: series of images, annotations (file, header), and how many files are what."""

    series: list[Series]
    annotations: list[tuple[Path, object]]
    counted: Counter


def find(folder: Path) -> Found:
    """Walk a folder of DICOM in any order and depth; what is no image, RTSTRUCT or SEG is counted."""
    series, annotations, counted, seen = {}, [], Counter(), set()
    paths = sorted(Path(place) / name for place, _, names in os.walk(folder, onerror=_raised) for name in names)
    for path in tqdm(paths, desc="reading headers", mininterval=2, disable=len(paths) < 500):
        head = header(path)
        if head is None:
            counted["not DICOM"] += 1
        elif head.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR:
            counted["DICOMDIR"] += 1
        elif not head.get("PatientID") or not head.get("SeriesInstanceUID"):
            counted["without PatientID or SeriesInstanceUID"] += 1
        elif head.get("SOPInstanceUID") in seen:
            counted["the same instance twice"] += 1
        elif head.get("Modality") in ANNOTATIONS:
            head.pop("ROIContourSequence", None)  # long; read again when it is drawn
            annotations.append((path, head))
        elif head.get("Modality") not in IMAGES:
            counted[f"of another modality ({modality_of(head)})"] += 1
        elif "LOCALIZER" in (head.get("ImageType") or []):
            counted["localizers"] += 1
        elif says_yes(head.get("BurnedInAnnotation")):
            counted["with text burnt into the pixels"] += 1
        else:
            one = series.setdefault((head.PatientID, head.SeriesInstanceUID), Series(head))
            one.slices.append((path, *_place(head)))
            one.acquired.append(_acquired(head))
            one.decays.append((numbers_of(head, "DecayFactor") or [None])[0])
            one.locations.append(numbers_of(head, "SliceLocation"))
        seen.add(head.get("SOPInstanceUID") if head else None)
        seen.discard(None)
    for one in series.values():
        if strays := _strays(one):
            counted["scout views or screenshots within a series"] += len(strays)
            _drop(one, strays)
    return Found(list(series.values()), annotations, counted)


def _strays(series: Series) -> list[int]:
    """The few slices of a series that are no part of it: without any place, of another size, or across the others.

    None of them where the rest is no even grid of many slices, or one of them lies where its next slice would: it may be the
    end of the scan, with a spoilt header.
    """
    sizes = [size and size[:2] for *_, size in series.slices]
    usual = Counter(sizes).most_common(1)[0][0]
    turns = np.array([turn or [np.nan] * 6 for _, _, turn, _ in series.slices])
    normals = np.cross(turns[:, :3], turns[:, 3:])
    ordinary = [normal for normal, size in zip(normals, sizes, strict=True) if size == usual]
    if usual is None or np.isnan(ordinary).all():
        return []
    across = np.abs(normals @ np.nanmedian(ordinary, axis=0)) < ACROSS
    bare = [place is None and turn is None for _, place, turn, _ in series.slices]
    odd = [number for number, size in enumerate(sizes) if bare[number] or across[number] or size not in (usual, None)]
    rest = [one for number, one in enumerate(series.slices) if number not in set(odd)]
    if not odd or len(odd) > FEW or len(rest) < MANY or any(None in one for one in rest):
        return []
    try:
        _, affine = lattice.fitted(*list(zip(*rest, strict=True))[1:], tilts=series.head.Modality == "CT")
    except BadInput:
        return []
    placed = [place for number, (_, place, *_) in enumerate(series.slices) if number in odd and place]
    cells = [np.linalg.solve(affine, [*place, 1])[:3] for place in placed]
    ends = np.array([[0, 0, -1], [0, 0, len(rest)]])
    return [] if any(np.abs(cell - end).max() < HALF for cell in cells for end in ends) else odd


def _drop(series: Series, strays: list[int]) -> None:
    keep = [number for number in range(len(series.slices)) if number not in set(strays)]
    for name in ("slices", "acquired", "decays", "locations"):
        setattr(series, name, [getattr(series, name)[number] for number in keep])
    if 0 in strays:
        series.head = header(series.slices[0][0])


def header(path: Path, whole: bool = False):
    """A DICOM file without its pixels (or `whole`), None where it is none; a .dcm file may lack its preamble."""
    import pydicom

    pydicom.config.convert_wrong_length_to_UN = True  # else a field of odd length is a traceback wherever it is read
    forced = path.suffix.lower() in (".dcm", ".ima")
    try:
        head = pydicom.dcmread(path, stop_before_pixels=not whole, force=forced)
        return head if head.get("SOPClassUID") or head.file_meta.get("MediaStorageSOPClassUID") else None
    except (PermissionError, FileNotFoundError):  # a slice that may not be read, or a link to nowhere, is no junk
        raise
    except Exception:  # junk fails in as many ways as there is junk
        return None


def suffix(head) -> str | None:
    """The BIDS suffix of an image: ct, pet, T1w, ce-gd_T1w, T2w, FLAIR; None where the header does not tell.

    For MR the description and protocol name decide: FLAIR before T2, T1 before FLAIR (a "T1 FLAIR" is T1-weighted),
    neither where both T1 and T2 are named, or a diffusion, perfusion, susceptibility, angiographic or derived image.
    A T1 is contrast-enhanced where its name says so, or the contrast agent is given and the name does not say "pre".
    Echo and repetition times are not guessed from.
    """
    if head.Modality != "MR":
        return IMAGES.get(head.Modality)
    text = " ".join(str(head.get(key) or "") for key in ("SeriesDescription", "ProtocolName")).lower()
    t1, t2, flair = bool(_T1.search(text)), bool(_T2.search(text)), bool(_FLAIR.search(text))
    if _NEITHER.search(text) or (t1 and t2):
        return None
    if not t1:
        return "FLAIR" if flair else "T2w" if t2 else None
    agent = str(head.get("ContrastBolusAgent") or "").strip().lower() not in ("", "no", "none", "n/a")
    enhanced = not _BEFORE.search(text) and (agent or bool(_AFTER.search(text)))
    return "ce-gd_T1w" if enhanced else "T1w"


def ordered(series: Series) -> tuple[list[Path], np.ndarray]:
    """The files of a series from one end to the other, and the affine of its grid.

    Returns
    -------
    list of Path
    ndarray of float, shape (4, 4)
        From (column, row, slice) to mm in DICOM's axes; the third column leans where the gantry was tilted.

    Raises
    ------
    BadInput
        Where slices are missing, lie twice at one place, off the line of the others, or differ in size or direction.
    """
    _, positions, directions, sizes = zip(*series.slices, strict=True)
    if series.head.get("NumberOfFrames", 1) not in (1, None):
        _refuse(series, "many frames in one file", "one file a slice", "convert it to classic DICOM")
    if numbers_of(series.head, "SamplesPerPixel") not in ((1,), None):  # the reader would turn them to grey
        _refuse(series, "pixels with colours", "one grey value", "leave the series out")
    if None in positions or None in directions or None in sizes:
        found = "a slice without position, orientation or pixel spacing"
        _refuse(series, found, "all in every slice", "export the series again")
    if len(positions) < FEWEST:
        _refuse(series, f"{len(positions)} slices", f"at least {FEWEST}", "leave the scout view out")
    try:
        order, affine = lattice.fitted(positions, directions, sizes, tilts=series.head.Modality == "CT")
    except BadInput as error:
        raise BadInput(f"{series.name}: {error}.") from None
    _agreed(series, order)
    return [series.slices[number][0] for number in order], affine


def _agreed(series: Series, order: np.ndarray) -> None:
    """Refuse a slice that Slice Location puts in another place among the others than its position does.

    One that only begins again, and counts on in the same steps to places that it had before, contradicts nothing.
    """
    if None in series.locations:
        return
    locations = np.array(series.locations)[order, 0]
    steps = np.diff(locations)
    usual = np.sign(np.sign(steps).sum())
    against = np.sign(steps) != usual
    if usual and np.mean(~against) > ORDERLY and against.any():
        step = np.median(steps[~against])
        again = np.array_equal(np.abs(steps / step - 1) > EVEN, against)
        if again and np.abs(np.diff(np.sort(locations)) / step * usual - 1).max() > EVEN:
            return
        after = int(against.argmax()) + 1
        found = f"slices {after} and {after + 1} in one order by position, in another by Slice Location"
        _refuse(series, found, "one order", "export the series again")


def numbers_of(head, keyword: str, count: int = 1) -> tuple[float, ...] | None:
    """The numbers in a field; None where it is absent or holds anything but `count` numbers."""
    try:
        numbers = tuple(map(float, np.atleast_1d(head.get(keyword))))
    except Exception:  # a spoilt field, too, fails in many ways
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _place(head) -> tuple:
    rows, columns, spacing = numbers_of(head, "Rows"), numbers_of(head, "Columns"), numbers_of(head, "PixelSpacing", 2)
    size = (*rows, *columns, *spacing) if rows and columns and spacing and min(spacing) > 0 else None
    return numbers_of(head, "ImagePositionPatient", 3), numbers_of(head, "ImageOrientationPatient", 6), size


def _acquired(head) -> tuple:
    """Date and time of a slice, as text."""
    both = str(head.get("AcquisitionDateTime") or "")
    return head.get("AcquisitionDate") or both[:8], head.get("AcquisitionTime") or both[8:]


def _raised(error: OSError):
    raise error


def _refuse(series: Series, found: str, expected: str, fix: str):
    raise BadInput(f"{series.name}: {found}, expected {expected}; {fix}.")
