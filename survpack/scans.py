"""What can be wrong with images and masks; each file is read once, and hashed as it is read."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from survpack import overlap
from survpack.checks import check_overlap, ordered
from survpack.cohort import TUMOUR, Finding, listed

LARGEST_VOXEL_MM = 10


def check_images(images: pd.DataFrame, participants: pd.DataFrame, labels: dict, where: str) -> list[Finding]:
    """Findings about the images and masks of `participants`, each of whom needs one."""
    return ordered(examine(images, participants["patient_id"], participants, labels, where)[0])


def examine(
    images: pd.DataFrame, needed: pd.Series, participants: pd.DataFrame, labels: dict[int, str], where: str
) -> tuple[list[Finding], pd.DataFrame]:
    """Read every image and mask of the participants, each once, a thread a core.

    Parameters
    ----------
    images, participants : DataFrame
        As `Cohort` has them.
    needed : Series of str
        Patients who must have an image.
    labels : dict
    where : str
        The cohort's name, for the progress bar and for what is not about one file.

    Returns
    -------
    list of Finding, DataFrame
        The hashes have the columns `overlap.HASHES`.
    """
    findings = _without_image(images, needed, where)
    rows = images[images["patient_id"].isin(participants["patient_id"])]
    findings += _about_days(rows, participants, where)
    groups = [list(group.itertuples()) for _, group in rows.groupby(["patient_id", "session", "mask_path"], sort=False)]
    bar = tqdm(groups, desc=f"{where}: reading images and masks", mininterval=2, disable=len(groups) < 20)
    read = Parallel(n_jobs=-1, prefer="threads")(delayed(_examine_group)(group, labels) for group in bar)
    hashes = pd.DataFrame([each for _, told in read for each in told], columns=overlap.HASHES)
    findings += [finding for found, _ in read for finding in found]
    return findings + check_overlap(hashes, where), hashes


def _without_image(images: pd.DataFrame, needed: pd.Series, where: str) -> list[Finding]:
    bare = needed[~needed.isin(images["patient_id"])].dropna()
    return [
        Finding("error", where, "no image", "at least one image or mask", "add it, or remove the patient from the table",
                (str(patient),))
        for patient in bare
    ]  # fmt: skip


def _about_days(rows: pd.DataFrame, participants: pd.DataFrame, where: str) -> list[Finding]:
    """Whoever is first scanned late has lived until then, which a model would learn."""
    from survpack.preprocess import BASELINE_DAYS

    day = pd.to_numeric(rows["day"], errors="coerce")
    last = rows["patient_id"].map(participants.drop_duplicates("patient_id").set_index("patient_id")["time_days"])
    last = pd.to_numeric(last, errors="coerce")
    late = ~rows["patient_id"].isin(rows.loc[day <= BASELINE_DAYS, "patient_id"])
    told = [
        (late, f"no scan known to be before day {BASELINE_DAYS}", "a scan at baseline each",
         "correct its day, or exclude the patient: a scan taken later tells who lived until then"),
        ((day > last) & (last > 0), "a scan after the end of follow-up", "scans up to `time_days`",
         "correct the day or the time"),
    ]  # fmt: skip
    return [
        Finding("warning", where, found, expected, fix, tuple(rows.loc[bad, "patient_id"].astype(str).unique()))
        for bad, found, expected, fix in told
        if bad.any()
    ]


def _examine_group(rows: list, labels: dict[int, str]) -> tuple[list[Finding], list]:
    """The images that share a mask, and the mask."""
    findings, hashes, path = [], [], rows[0].mask_path
    mask, values, wrong = _read(path) if path else (None, None, [])
    findings += wrong
    if values is not None:
        drawn = overlap.filled(values)
        findings += _about_mask(path, drawn[1], labels)
    for row in rows:
        if not row.path:
            if values is not None:
                hashes.append(_hash(row, mask, values, drawn))
            continue
        image, voxels, wrong = _read(row.path)
        findings += wrong
        if voxels is not None:
            findings += _about_image(row, image, voxels)
            hashes.append(_hash(row, image, voxels))
        if not path:
            findings.append(Finding("error", row.path, "no mask beside this image", "a segmentation on the same grid",
                                    "add the mask (*_dseg.nii.gz), or remove the image"))  # fmt: skip
        elif voxels is not None and values is not None:
            findings += _about_grids(path, mask, image)
    patient = (str(rows[0].patient_id),)
    return [replace(finding, patients=patient) for finding in findings], hashes


def _hash(row, image, values: np.ndarray, drawn: tuple | None = None) -> list:
    return [row.patient_id, row.session, row.modality, *overlap.fingerprint(values, image.affine, drawn)]


def _read(path: str) -> tuple:
    """Header, voxels and findings; the first two None where there is nothing to read."""
    if not Path(path).exists():
        return None, None, [Finding("error", path, "file not found", "a NIfTI file",
                                    "put it there, or correct the table of images")]  # fmt: skip
    try:
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        if values.dtype.kind not in "buif":
            raise ValueError(f"voxels are {image.get_data_dtype()}, not numbers")
        return image, values, _about_header(path, image)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        return None, None, [Finding("error", path, f"unreadable ({' '.join(str(error).split())[:200]})",
                                    "a whole NIfTI file", "fetch or convert it again, as .nii.gz")]  # fmt: skip


def _about_header(path: str, image) -> list[Finding]:
    findings = []
    if len(image.shape) != 3:
        findings.append(Finding("error", path, f"{len(image.shape)}-D image (shape {image.shape})", "a 3-D volume",
                                "save the one volume that is meant"))  # fmt: skip
    size = np.asarray(image.header.get_zooms()[:3], dtype=float)
    if not np.isfinite(size).all() or (size <= 0).any() or (size > LARGEST_VOXEL_MM).any():
        findings.append(
            Finding("warning", path, f"voxels of an odd size ({' x '.join(f'{each:.3g}' for each in size)} mm)",
                    f"above 0 and up to {LARGEST_VOXEL_MM} mm", "convert it again from the DICOM")
        )  # fmt: skip
    codes = [int(image.header[key]) for key in ("qform_code", "sform_code") if key in image.header]
    if codes == [0, 0]:
        findings.append(
            Finding("warning", path, "no qform and no sform: left and right are not told", "one of the two",
                    "convert it again from the DICOM")
        )  # fmt: skip
    return findings


def _about_mask(path: str, drawn: np.ndarray, labels: dict[int, str]) -> list[Finding]:
    present = set(pd.unique(drawn).tolist())
    tumour = {number for number, meaning in labels.items() if meaning in TUMOUR}
    if any(number != int(number) for number in present if np.isfinite(number)) or not np.isfinite(list(present)).all():
        return [Finding("error", path, "mask values that are no whole numbers", "one number a label",
                        "save the labels as integers; resample with nearest neighbour")]  # fmt: skip
    if not present & tumour:
        return [Finding("error", path, "empty mask (no voxel of the tumour)",
                        f"at least one voxel labelled {listed(sorted(tumour))}",
                        "draw the lesion, or exclude the patient")]  # fmt: skip
    strange = sorted(int(number) for number in present - set(labels))
    if strange:
        return [Finding("error", path, f"unknown labels {listed(strange)}",
                        listed([f"{number} {meaning}" for number, meaning in labels.items()]),
                        "relabel the mask, or name the label in dseg.tsv")]  # fmt: skip
    return []


def _about_image(row, image, voxels: np.ndarray) -> list[Finding]:
    low, high = (voxels.min(), voxels.max()) if voxels.size else (0, 0)
    if not np.isfinite([low, high]).all():
        return [Finding("error", row.path, "voxels that are not a number (NaN or infinite)", "numbers",
                        "replace them by the background's value")]  # fmt: skip
    if low == high:
        return [Finding("error", row.path, f"every voxel has the same value ({low:g})", "a scan", "fetch it again")]
    if row.modality == "ct" and low >= 0:
        return [Finding("warning", row.path, f"CT that is not in HU (lowest value {low:g})", "air near -1000 HU",
                        "convert it again, with the rescale intercept")]  # fmt: skip
    return []


def _about_grids(mask_path: str, mask, image) -> list[Finding]:
    placed = np.allclose(image.affine, mask.affine, atol=1e-3)
    if len(image.shape) != 3 or (image.shape == mask.shape and placed):  # of a 4-D image its shape is told
        return []
    how = "in another place or size" if image.shape == mask.shape else f"shape {mask.shape}; the image's {image.shape}"
    return [Finding("error", mask_path, f"mask on another grid than its image ({how.replace('(', '').replace(')', '')})",
                    "the same shape and affine", "resample the mask onto the image (nearest neighbour)")]  # fmt: skip
