"""A folder in: a patient's NIfTI files known by their names, or DICOM by its headers, as scans and masks by modality.

Files are looked at through links under names of our own, so that no name in the folder becomes a path or a sentence.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import pandas as pd

from survpack.deploy.limits import Budget
from survpack.errors import BadInput

PATIENT = "sub-patient"
NIFTI = (".nii", ".nii.gz")
ALIASES = {"mask": "dseg", "seg": "dseg", "dseg": "dseg"}  # of files that are called by what they are
UNUSUAL = r"[^A-Za-z0-9_+-]"  # in a name
DEFLATED = b"1.2.840.10008.1.2.1.99"  # may unpack to any size before anything can be asked of it
TABLE = 2**16  # bytes of a table of sessions
PIXEL = 2  # bytes of a voxel as DICOM has it
META = 4096  # bytes in which a DICOM file tells how it is packed


def found_in(folder: Path, place: Path, limits, budget: Budget) -> tuple[pd.DataFrame, list[str], bool]:
    """The images of one patient's folder, at baseline.

    Parameters
    ----------
    folder : Path
        With NIfTI files named as `adapters.bids` has it (or `t1c.nii.gz`, `mask.nii.gz`), else with DICOM in any order.
    place : Path
        A temporary folder of the caller's.
    limits : intake.Limits
    budget : limits.Budget
        Of all files of the patient together.

    Returns
    -------
    DataFrame
        As `Cohort.images`; `mask_path` is "" where there is none.
    list of str
        What was left out and why, without a name of the folder's.
    bool
        Whether it was DICOM, whose masks are of the tumour alone.

    Raises
    ------
    BadInput
        For a folder that holds nothing to read, a link that leads out of it, more than one patient, or too much.
    """
    from survpack.adapters import bids
    from survpack.preprocess import at_baseline

    try:
        files = _files(Path(folder), limits)
        nifti = [path for path in files if path.name.lower().endswith(NIFTI)]
        root, notes = (_named(nifti, files, place), []) if nifti else _converted(files, place, limits, budget)
        images = bids.discover(root)
    except BadInput as error:
        raise BadInput(_unnamed(str(error), place)) from None
    except OSError:
        raise BadInput("scans: a file in the folder cannot be read, expected all of them to be; mend that.") from None
    if images.empty:
        raise BadInput(f"scans: no CT, PET or MR known by its name among {len(files)} files in the folder, expected names "
                       "such as sub-01_ce-gd_T1w.nii.gz; rename them, or name each scan.")  # fmt: skip
    kept = at_baseline(images)
    left = sorted(set(images["modality"]) - set(kept["modality"]))
    notes += [f"Left out {name}: taken long after the first scan." for name in left]
    return kept, notes, not nifti


def _files(folder: Path, limits) -> list[Path]:
    """Plain files of a folder; a hidden one is none of ours."""
    found, root = [], folder.resolve()
    for place, inside, names in os.walk(folder):
        for name in [*inside, *names]:
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise BadInput(
                    "scans: the folder holds a link that leads out of it, expected plain files; copy them there."
                )
        found += [path for name in names if not name.startswith(".") and (path := Path(place, name)).is_file()]
        if len(found) > limits.files:
            raise BadInput(f"scans: over {limits.files} files in the folder, expected one patient's; give fewer.")
    total = sum(path.stat().st_size for path in found)
    if not found:
        raise BadInput("scans: no file in the folder, expected NIfTI or DICOM; give the folder of the patient's scans.")
    if total > limits.unpacked_bytes:
        raise BadInput(f"scans: {total / 2**20:.0f} MB in the folder, expected {limits.unpacked_bytes // 2**20} MB at most; "
                       "give the series that are needed.")  # fmt: skip
    return sorted(found)


def _named(nifti: list[Path], files: list[Path], place: Path) -> Path:
    """A BIDS folder of links to the files, in the name of one patient."""
    from survpack.adapters.bids import NAMES

    anat = place / "named" / PATIENT / "anat"
    anat.mkdir(parents=True)
    subjects = {match.group() for path in nifti if (match := re.match(r"sub-[^_.]+", path.name))}
    if len(subjects) > 1:
        raise BadInput(f"scans: {len(subjects)} patients in the folder, expected one; give the folder of one patient.")
    if len({path.parent for path in nifti}) > 1 and not all(path.name.startswith("sub-") for path in nifti):
        raise BadInput(
            "scans: NIfTI files in several folders, which may be of several patients, expected one folder or names such as "
            "sub-01_T1w.nii.gz; give the folder of one patient, or name each scan."
        )
    for path in nifti:
        ending = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
        stem = re.sub(r"^sub-[^_.]+_", "", path.name[: -len(ending)])
        stem = NAMES.get(stem.lower()) or ALIASES.get(stem.lower()) or stem
        link = anat / f"{PATIENT}_{re.sub(UNUSUAL, '-', stem)}{ending}"
        if link.is_symlink():
            raise BadInput(f"scans: two files are both `{link.name}`, expected one; keep one.")
        link.symlink_to(path.resolve())
    tables = [path for path in files if path.name.endswith("_sessions.tsv") and path.stat().st_size < TABLE]
    if tables:
        (anat.parent / f"{PATIENT}_sessions.tsv").symlink_to(tables[0].resolve())
    return place / "named"


def _converted(files: list[Path], place: Path, limits, budget: Budget) -> tuple[Path, list[str]]:
    """A BIDS folder of what the DICOM files show, and what was left out."""
    from survpack.dicom import convert

    linked, root = place / "dicom", place / "converted"
    linked.mkdir()
    for number, path in enumerate(files):
        with path.open("rb") as stream:
            if DEFLATED in stream.read(META):
                raise BadInput(
                    "scans: a DICOM file is packed by deflate, expected plain or JPEG; export it uncompressed."
                )
        (linked / f"{number:05d}{path.suffix if path.suffix.lower() in ('.dcm', '.ima') else ''}").symlink_to(
            path.resolve()
        )
    _allowed(linked, limits, budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = convert(linked, root, key=place / "key.tsv")
    return root, [_unnamed(line, place) for line in lines if "left out" in line or "no mask" in line]


def _allowed(folder: Path, limits, budget: Budget) -> None:
    """Refuse, by the headers alone, several patients, too many series, and pixels beyond what may be unpacked."""
    from survpack.dicom.series import find

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find(folder)
    patients = {series.head.PatientID for series in found.series}
    if len(patients) > 1:
        raise BadInput(f"scans: DICOM of {len(patients)} patients, expected one; give the folder of one patient.")
    if not patients:
        held = ", ".join(f"{number} {what}" for what, number in sorted(found.counted.items()))
        raise BadInput(
            f"scans: no CT, MR or PET in NIfTI or DICOM ({held}), expected some; give the folder of the scans."
        )
    if len(found.series) > limits.series:
        raise BadInput(
            f"scans: {len(found.series)} series, expected {limits.series} at most; give those that are needed."
        )
    for series in found.series:
        sizes = [size for *_, size in series.slices]
        voxels = sum(size[0] * size[1] for size in sizes if size)
        if voxels > limits.voxels:
            raise BadInput(
                f"scans: a {series.head.Modality} series of over {limits.voxels / 1e6:.0f} million voxels; resample it."
            )
        if not budget.take(voxels * PIXEL):
            raise BadInput("scans: the DICOM series together unpack to more than may be; give those that are needed.")


def _unnamed(text: str, place: Path) -> str:
    """A sentence without paths, ids and descriptions."""
    text = re.sub(r"series (\w{2}) (?:\d+ )?\((\d+) slices\) in [^:]*", r"a series of \1 (\2 slices)", text)
    text = re.sub(rf"{re.escape(str(place))}[^\s:,;)]*/", "", text)
    text = re.sub(r"(^|; |: )sub-\w+: ", r"\1", text)
    return text[:1].upper() + text[1:] if text.startswith("left out") else text
