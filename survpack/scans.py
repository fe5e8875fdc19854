"""What can be wrong with images and masks; each file is read once, and hashed as it is read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from survpack import nifti, overlap
from survpack.checks import check_overlap, ordered
from survpack.cohort import TUMOUR, Finding, listed
from survpack.dicom.suv import odd

SIZE = re.compile(r"(size|diameter|extent)(_(cm|mm))?$", re.IGNORECASE)  # names of a tumour's size on the chart
TIMES = 3  # a long tumour is twice its ball; more is another tumour or another unit


def check_images(images: pd.DataFrame, participants: pd.DataFrame, labels: dict, where: str) -> list[Finding]:
    """Findings about the images and masks of `participants`, each of whom needs one."""
    return ordered(examine(images, participants["patient_id"], participants, labels, where)[0])


def examine(
    images: pd.DataFrame,
    needed: pd.Series,
    participants: pd.DataFrame,
    labels: dict[int, str],
    where: str,
    dictionary: dict | None = None,
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
    dictionary : dict, optional
        As `Cohort` has it: a size of the tumour on the chart is held against the mask's.

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
    hashes = pd.DataFrame([each for _, told, _ in read for each in told], columns=overlap.HASHES)
    findings += [finding for found, _, _ in read for finding in found]
    findings += _about_sizes({group[0].patient_id: size for group, (_, _, size) in zip(groups, read, strict=True)},
                             participants, dictionary or {}, where)  # fmt: skip
    return findings + check_overlap(hashes, where), hashes


def _without_image(images: pd.DataFrame, needed: pd.Series, where: str) -> list[Finding]:
    bare = needed[~needed.isin(images["patient_id"])].dropna()
    return [
        Finding("error", where, "no image", "at least one image or mask", "add it, or remove the patient from the table",
                (str(patient),))
        for patient in bare
    ]  # fmt: skip


def _about_days(rows: pd.DataFrame, participants: pd.DataFrame, where: str) -> list[Finding]:
    """Whoever is first scanned late has lived until then, which a model would learn; nobody is scanned after the end."""
    from survpack.hindsight import after_the_end
    from survpack.preprocess import BASELINE_DAYS, at_baseline

    day, patient = pd.to_numeric(rows["day"], errors="coerce"), rows["patient_id"]
    pair, used = patient.astype(str) + " " + rows["modality"], at_baseline(rows.assign(day=day)).index
    late = ~patient.isin(patient[day <= BASELINE_DAYS])
    told = [
        ("error", after_the_end(patient, day, participants), "a scan after the end of follow-up",
         "scans up to `time_days`", "correct the day or the time"),
        ("warning", late, f"no scan known to be before day {BASELINE_DAYS}", "a scan at baseline each",
         "correct its day, or exclude the patient: a scan taken later tells who lived until then"),
        ("warning", ~pair.isin(pair[used]), "a modality of a later session alone, which is left out",
         f"each modality within {BASELINE_DAYS} days of the first", "correct its day, or leave it so if it is follow-up"),
    ]  # fmt: skip
    return [
        Finding(severity, where, found, expected, fix, tuple(patient[bad].astype(str).unique()))
        for severity, bad, found, expected, fix in told
        if bad.any()
    ]


def _about_sizes(volumes: dict[str, float], participants: pd.DataFrame, dictionary: dict, where: str) -> list[Finding]:
    """A tumour whose size on the chart is another than its mask's: of somebody else, or in another unit."""
    findings, drawn = [], participants["patient_id"].map(volumes)
    for name, entry in dictionary.items():
        unit = {"mm": 1.0, "cm": 10.0}.get(entry.get("unit", ""), 0) if SIZE.search(name) else 0
        if not unit or entry["kind"] != "numeric":
            continue
        ball = 2 * (0.75 * drawn / np.pi) ** (1 / 3)  # mm: the diameter of a ball of the mask's volume
        ratio = pd.to_numeric(participants[name], errors="coerce") * unit / ball
        bad = ((ratio > TIMES) | (ratio < 1 / TIMES)) & np.isfinite(ratio) & (ratio > 0)
        if bad.any():
            first = bad.idxmax()
            told = f"`{name}` is {participants.loc[first, name]:g} {entry['unit']} where the mask holds {drawn[first] / 1000:.0f} mL"
            findings.append(Finding("warning", where, told, "sizes that agree", "find out which is wrong: the mask, the unit, or "
                                    "the patient", tuple(participants.loc[bad, "patient_id"].astype(str))))  # fmt: skip
    return findings


def _examine_group(rows: list, labels: dict[int, str]) -> tuple[list[Finding], list, float]:
    """The images that share a mask, and the mask; findings, hashes, and the tumour's mm³ (NaN without a mask)."""
    findings, hashes, path, size = [], [], rows[0].mask_path, np.nan
    mask, values, wrong = _read(path) if path else (None, None, [])
    findings += wrong
    if values is not None:
        drawn = overlap.filled(values)
        tumour = [number for number, meaning in labels.items() if meaning in TUMOUR]
        size = float(np.isin(nifti.labels(drawn[1])[0], tumour).sum() * np.prod(mask.spacing))
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
            findings += _about_grids(path, mask, values.shape, image, voxels.shape)
    patient = (str(rows[0].patient_id),)
    return [replace(finding, patients=patient) for finding in findings], hashes, size


def _hash(row, image, values: np.ndarray, drawn: tuple | None = None) -> list:
    return [row.patient_id, row.session, row.modality, *overlap.fingerprint(values, image.affine, drawn)]


def _read(path: str) -> tuple:
    """Place, voxels and findings; the first two None where there is nothing to read."""
    if not Path(path).exists():
        return None, None, [Finding("error", path, "file not found", "a NIfTI file",
                                    "put it there, or correct the table of images")]  # fmt: skip
    try:
        values, place = nifti.read(path)
    except nifti.Refused as refused:
        return None, None, [refused.finding]
    return place, values, [Finding("warning", path, *note) for note in place.notes]


def _about_mask(path: str, drawn: np.ndarray, labels: dict[int, str]) -> list[Finding]:
    whole, off = nifti.labels(pd.unique(drawn))
    present, findings = set(whole.tolist()), []
    tumour = {number for number, meaning in labels.items() if meaning in TUMOUR}
    if off > nifti.ROUNDED:
        return [Finding("error", path, "mask values that are no whole numbers", "one number a label",
                        "save the labels as integers; resample with nearest neighbour")]  # fmt: skip
    if off:
        findings = [Finding("warning", path, f"labels that are rounded (up to {off:.2g} off a whole number)", "integers",
                            "save the labels as integers, without a slope")]  # fmt: skip
    strange = sorted(int(number) for number in present - set(labels))
    if strange:
        return [Finding("error", path, f"unknown labels {listed(strange)}",
                        listed([f"{number} {meaning}" for number, meaning in labels.items()]),
                        "relabel the mask, or name the label in dseg.tsv")]  # fmt: skip
    if not present & tumour:
        return [Finding("error", path, "empty mask (no voxel of the tumour)",
                        f"at least one voxel labelled {listed(sorted(tumour))}",
                        "draw the lesion, or exclude the patient")]  # fmt: skip
    return findings


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
    severity, found = odd(voxels) if row.modality == "pt" else ("", "")
    if severity:
        return [Finding(severity, row.path, f"PET that is no SUV ({found})", "g/mL: the mean of a body is 1",
                        "convert it again from the DICOM, with weight, dose and times")]  # fmt: skip
    return []


def _about_grids(path: str, mask: nifti.Place, mask_shape, image: nifti.Place, shape) -> list[Finding]:
    if nifti.same_voxels(mask, mask_shape, image, shape):
        return []
    if mask_shape == shape and (how := nifti.elsewhere(image, mask, shape)):
        return [Finding("error", path, how, "both in one place", "save the image with the place on which the mask was drawn as "
                        "its sform and its qform")]  # fmt: skip
    how = "in another place or size" if mask_shape == shape else f"shape {mask_shape}; the image's {shape}"
    return [Finding("error", path, f"mask on another grid than its image ({how.replace('(', '').replace(')', '')})",
                    "the same shape and affine", "resample the mask onto the image (nearest neighbour)")]  # fmt: skip
