"""Series in a folder of DICOM: found, named by what they show, checked for a regular grid, read as one volume."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from survpack.errors import BadInput

IMAGES = {"CT": "ct", "PT": "pet", "MR": "mr"}
ANNOTATIONS = ("RTSTRUCT", "SEG")
DICOMDIR = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage
FEWEST = 3  # slices; less is a scout view, not a volume
EVENLY = 0.01  # how far a slice may lie off its place, in slice distances

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
    """

    head: object
    slices: list = field(default_factory=list)
    acquired: list = field(default_factory=list)

    @property
    def name(self) -> str:
        """How it is called in messages: modality, description, and the folder of its first file."""
        description = str(self.head.get("SeriesDescription", "") or "no description")
        return f"series {self.head.Modality} '{description}' in {self.slices[0][0].parent}"


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
            counted[f"of another modality ({head.get('Modality') or 'none'})"] += 1
        elif "LOCALIZER" in (head.get("ImageType") or []):
            counted["localizers"] += 1
        elif head.get("BurnedInAnnotation") == "YES":
            counted["with text burnt into the pixels"] += 1
        else:
            one = series.setdefault((head.PatientID, head.SeriesInstanceUID), Series(head))
            one.slices.append((path, *_place(head)))
            one.acquired.append((head.get("AcquisitionDate", ""), head.get("AcquisitionTime", "")))
        seen.add(head.get("SOPInstanceUID") if head else None)
        seen.discard(None)
    return Found(list(series.values()), annotations, counted)


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
        From (column, row, slice) to mm in DICOM's axes (left, posterior, superior).

    Raises
    ------
    BadInput
        Where slices are missing, lie twice at one place, unevenly, or differ in size or direction.
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
    if len(set(sizes)) > 1 or not np.allclose(directions, directions[0], atol=1e-4):
        _refuse(series, "slices of several sizes or directions", "one grid", "separate what was put together")
    rows, columns = np.array(directions[0]).reshape(2, 3)
    along = np.array(positions) @ np.cross(rows, columns)
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    step = float(np.median(gaps))
    if step < 1e-3 or gaps.min() < EVENLY * step:
        _refuse(series, "two slices at one place", "one", "separate the phases or echoes, or delete the copy")
    if not np.allclose(gaps, step, atol=max(EVENLY * step, 2e-3)):
        found = f"slices {gaps.min():.2f} to {gaps.max():.2f} mm apart"
        _refuse(series, found, "an even distance", "export the series again, with every slice")
    first, last = np.array(positions[order[0]]), np.array(positions[order[-1]])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * sizes[0][3], columns * sizes[0][2]
    affine[:3, 2], affine[:3, 3] = (last - first) / (len(order) - 1), first
    return [series.slices[number][0] for number in order], affine


def read(files: list[Path]) -> np.ndarray:
    """Voxels of ordered slices, each by its own rescale slope and intercept; shape (column, row, slice), float32.

    Raises
    ------
    BadInput
        Where a file is cut off or coded in a way that GDCM cannot read.
    """
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    reader.SetOutputPixelType(sitk.sitkFloat32)  # the slope of a PET differs from slice to slice
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        values = sitk.GetArrayFromImage(reader.Execute()).T
    except RuntimeError as error:
        told = str(error).strip().splitlines()[-1][-150:]
        raise BadInput(f"{files[0].parent}: pixels unreadable ({told}); export the series uncompressed.") from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    return values


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


def _raised(error: OSError):
    raise error


def _refuse(series: Series, found: str, expected: str, fix: str):
    raise BadInput(f"{series.name}: {found}, expected {expected}; {fix}.")
