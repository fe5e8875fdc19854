"""One patient in: a chart, scans and a mask become what the networks see, or one sentence says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import SimpleITK as sitk

from survpack import preprocess
from survpack.cohort import IMAGES, OUTCOME, TUMOUR, Cohort
from survpack.deploy.chart import CHART_BYTES, read_chart
from survpack.deploy.folders import found_in
from survpack.deploy.limits import Budget
from survpack.deploy.volumes import (
    File,
    check_mask,
    check_place,
    check_scan,
    check_together,
    image_of,
    mask_of,
    unpacked,
)
from survpack.errors import BadInput
from survpack.grids import same_grid
from survpack.lesions import MR, lesion_volumes, measure
from survpack.models.patients import Patients
from survpack.params import Params, per_cohort

ALL = ""  # among masks: the one for every scan that has none of its own
NOBODY = "patient"  # the only id a patient has in here


@dataclass(frozen=True)
class Limits:
    """What one patient may bring at most."""

    file_bytes: int = 512 * 2**20  # of one file as it was sent
    unpacked_bytes: int = 4 * 2**30  # of all files together, decompressed; of a folder
    voxels: int = 2**27  # of one scan: 512 x 512 x 512
    files: int = 5000  # in a folder
    series: int = 40  # of DICOM
    chart_bytes: int = CHART_BYTES


LIMITS = Limits()


@dataclass(frozen=True)
class Intake:
    """What was given of one patient, checked and brought onto the study's grid.

    Attributes
    ----------
    patients : models.Patients
        Of one; the outcome is NaN. `clinical` has the columns of the schema's chart, `biomarkers` those of `measured`.
    images : dict of str to sitk.Image
        Modality to the native scan, float32.
    mask : sitk.Image or None
        Native, that of the first scan; None where the model looks at no image.
    grid : sitk.Image or None
        The cube of the crops, in the frame of `mask`.
    notes : list of str
        What could not be done as asked or is to be read with care, in sentences.
    missing : dict of str to list of str
        Under `chart`, `modalities` and `measured`: what of the schema was not there.
    imputed : dict
        Column that was not there to what the model takes instead.
    facts : dict
        `modality`, `spacing` (mm) and `size` of the mask's scan, `lesion_ml`.
    """

    patients: Patients
    images: dict[str, sitk.Image]
    mask: sitk.Image | None
    grid: sitk.Image | None
    notes: list[str]
    missing: dict[str, list[str]]
    imputed: dict
    facts: dict


@dataclass(frozen=True)
class _Volume:
    """A scan of one modality (none where only masks are looked at) and its mask."""

    kind: str
    scan: File | None
    mask: File


def read(
    schema: Mapping,
    params: Params,
    cohort: str,
    *,
    chart: Mapping | Path | str | None = None,
    scans: Mapping[str, Path] | Path | None = None,
    masks: Mapping[str, Path] | Path | None = None,
    limits: Limits = LIMITS,
    budget: Budget | None = None,
) -> Intake:
    """One patient, prepared as the study prepares its own: the same crops and biomarkers, bit for bit.

    Parameters
    ----------
    schema : mapping
        `schema` of a bundle: `chart`, `modalities`, `labels`, `measured`, `measured_typical`; and `fusion`, where it is
        known: a network of the "chart" alone needs no scan and no mask, which are measured if they are there.
    params : Params
        Those of the bundle.
    cohort : str
        Whose spacing the crops have.
    chart : mapping, Path, str or None
        As `chart.read_chart` takes it: a str is the chart's text, never a path.
    scans : mapping of str to Path, or Path
        Modality to a NIfTI file; or a folder of one patient, NIfTI named as in BIDS or DICOM.
    masks : Path, or mapping of str to Path
        One for all scans, or modality to its own ("" for all others); those in the folder of scans where not given.
    limits : Limits
    budget : limits.Budget, optional
        What may still be unpacked; what `limits` allow where it is not given.

    Raises
    ------
    BadInput
        One sentence; it repeats names of files and numbers, but no text of a chart or of DICOM.
    """
    budget = budget or Budget(limits.unpacked_bytes, limits.files)
    looked = schema.get("fusion") != "chart"
    ignored = bool(chart) and not schema["chart"]
    values, absent, notes = read_chart(None if ignored else chart, schema["chart"], limits.chart_bytes)
    notes += ["The chart was not read: this model looks at images alone."] * ignored
    labels = {int(number): meaning for number, meaning in schema["labels"].items()}
    with TemporaryDirectory(prefix="survpack-") as folder:
        volumes, told = _given(schema, labels, scans, masks, Path(folder), limits, budget)
        images, outlines, checked = _checked(volumes, labels)
        notes += [*told, *checked]
        crops, more = _crops(volumes, labels, schema["modalities"], params, cohort)
    mask = outlines[0] if outlines else None
    measured, reasons = _measured(mask, images, labels, schema["measured"])
    notes += [_sentence(note) for note in [*more, *reasons]]
    patients = _patients(values, measured, crops, schema, cohort)
    missing = {
        "chart": absent,
        "modalities": [name for name in schema["modalities"] if looked and name not in images],
        "measured": [name for name, value in measured.items() if value != value],
    }
    typical = {name: entry.get("typical") for name, entry in schema["chart"].items()} | dict(schema["measured_typical"])
    imputed = {name: typical.get(name) for name in [*absent, *missing["measured"]]}
    grid, facts = (
        (None, {}) if mask is None else (_grid(mask, labels, params, cohort), _facts(volumes[0], mask, labels))
    )
    return Intake(patients, images, mask, grid, notes, missing, imputed, facts)


def read_for(bundle, **given) -> Intake:
    """`read` as a bundle asks for it."""
    return read(bundle.about["schema"], bundle.params, bundle.about["cohort"]["name"], **given)


def _given(
    schema, labels, scans, masks, place: Path, limits: Limits, budget: Budget
) -> tuple[list[_Volume], list[str]]:
    """What was handed in, unpacked in `place`, in the schema's order of modalities."""
    notes, known, needed = [], schema["modalities"], schema.get("fusion") != "chart"
    if isinstance(scans, str | Path):
        scans, masks, notes = _of_folder(Path(scans), masks, known, labels, place, limits, budget)
    scans, masks = dict(scans or {}), dict(masks) if isinstance(masks, Mapping) else {ALL: masks} if masks else {}
    for what, given in (("scans", scans), ("mask", masks)):
        if not set(given) <= {*known, *([ALL] if what == "mask" else [])}:
            raise BadInput(f"{what}: a modality that this model does not look at, expected {_some(known)}; name it so.")
    if known and not scans and needed:
        raise BadInput(f"scans: none given, expected some of {_some(known)}; give one at least.")
    if not labels:
        return [], notes
    found, opened = [], {}
    for kind in [name for name in known if name in scans] or ["mask"]:
        if kind not in masks and ALL not in masks:
            if not needed:
                notes += [f"Left out {kind}: this model looks at no image, and without a mask nothing is measured."] * (
                    kind in scans
                )
                continue
            what = f"mask of {kind}" if kind in scans else "mask"
            raise BadInput(f"{what}: none given, expected the tumour's outline on the scan; give one, or draw it.")
        path = Path(masks.get(kind) or masks[ALL])
        if path not in opened:
            opened[path] = unpacked(path, f"mask of {kind}" if masks.get(kind) else "mask", place, limits, budget)
        scan = unpacked(Path(scans[kind]), f"scan {kind}", place, limits, budget) if kind in scans else None
        found.append(_Volume(kind, scan, opened[path]))
    _all_different([volume.scan for volume in found if volume.scan])
    return found, notes


def _of_folder(
    folder: Path, masks, known: list[str], labels: dict, place: Path, limits: Limits, budget: Budget
) -> tuple:
    """Scans and masks of a folder, and what was left out of it."""
    if not folder.is_dir():
        raise BadInput(
            f"scans ({folder.name}): no such folder, expected one of NIfTI or DICOM; name a file `t1c=FILE`."
        )
    table, notes, dicom = found_in(folder, place, limits, budget)
    notes += [f"Left out {name}: this model does not look at it." for name in table["modality"] if name not in known]
    table = table[table["modality"].isin(known)]
    if not masks:
        masks = {kind: path for kind, path in zip(table["modality"], table["mask_path"], strict=True) if path}
        if dicom and masks and (labels.get(1) != "tumour" or len(set(labels.values())) > 1):
            raise BadInput(
                f"mask: DICOM tells the tumour as a whole, expected {_some(labels.values())}; give the mask as NIfTI beside it."
            )
        if len(set(masks.values())) == 1 and len(masks) == len(table):
            masks = {ALL: next(iter(masks.values()))}
    return dict(zip(table["modality"], table["path"], strict=True)), masks, notes


def _all_different(scans: list[File]) -> None:
    seen = {}
    for scan in scans:
        if scan.digest in seen:
            raise BadInput(f"{scan.name}: the same image as {seen[scan.digest]}, expected a scan each; leave one out.")
        seen[scan.digest] = scan.name


def _checked(volumes: list[_Volume], labels: dict[int, str]) -> tuple[dict, list, list[str]]:
    """Scans by modality, a mask a volume, and what is to be known of them."""
    images, masks, notes = {}, {}, []
    for volume in volumes:
        if volume.mask.name not in masks:
            masks[volume.mask.name], told = mask_of(volume.mask)
            notes += told
            check_mask(masks[volume.mask.name], labels, _tumour(labels), volume.mask.name)
        if volume.scan:
            notes += check_place(volume.scan, volume.mask, masks[volume.mask.name].GetSize())
            image = images[volume.kind] = image_of(volume.scan, sitk.sitkFloat32)
            check_scan(image, volume.kind, volume.scan.name)
            notes += check_together(image, masks[volume.mask.name], _tumour(labels), volume.mask.name, volume.scan.name)
    return images, [masks[volume.mask.name] for volume in volumes], notes


def _crops(volumes: list[_Volume], labels: dict, modalities: list[str], params: Params, cohort: str) -> tuple:
    """Images and masks as the study crops them, shape (channels, x, y, z), and notes."""
    table = [
        [NOBODY, "baseline", 0.0, one.kind, str(one.scan.plain) if one.scan else "", str(one.mask.plain)]
        for one in volumes
    ]
    rows = pd.DataFrame(table, columns=IMAGES)
    shell = Cohort(cohort, pd.DataFrame(columns=OUTCOME), rows, {}, labels)
    spacing = per_cohort(params.crops.spacing_mm, cohort)
    crops = params.crops.model_copy(update={"ct_window_hu": per_cohort(params.crops.ct_window_hu, cohort)})
    images, masks, aligned, note = preprocess.crop_patient(
        rows, list(modalities), shell, crops, params.preprocess, spacing
    )
    notes = note.split("; ") if volumes and note else []
    for one in volumes:
        notes = [text.replace(str(one.scan.plain), one.scan.name) for text in notes] if one.scan else notes
        if one.scan and not images[list(modalities).index(one.kind)].any():
            notes.append(f"{one.kind}: nothing but zeros around the lesion, so it counts as missing")
    if not aligned:
        notes.append("the masks do not lie over each other, so each scan is centred on its own")
    return (images.astype(np.float16), masks.astype(np.float16)), notes


def _measured(mask: sitk.Image | None, images: dict, labels: dict, wanted: list[str]) -> tuple[dict, list[str]]:
    """The lesion biomarkers that the model sees, and why some are missing."""
    if mask is None or not wanted:
        return {name: np.nan for name in wanted}, []
    deep = {"surface_mm", "ventricle_mm"} & set(wanted)  # what takes long, and needs the brain
    beside = {kind: image for kind, image in images.items() if deep and kind in MR and same_grid(image, mask)}
    found, reasons = measure(mask, labels, beside)
    told = [reason for reason in reasons if set(reason.split(":")[0].split(", ")) & set(wanted)]
    return {name: found.get(name, np.nan) for name in wanted}, told


def _patients(chart: dict, measured: dict, crops: tuple, schema: Mapping, cohort: str) -> Patients:
    index = pd.Index([NOBODY], name="patient_id")
    levelled = {name: object for name, entry in schema["chart"].items() if entry["kind"] != "numeric"}
    images, masks = (array[None] for array in crops)
    return Patients(
        outcome=pd.DataFrame({"site": [np.nan], "time_days": [np.nan], "event": [np.nan]}, index),
        clinical=pd.DataFrame([chart], index, columns=list(schema["chart"])).astype(levelled),
        biomarkers=pd.DataFrame([measured], index, columns=list(schema["measured"])).astype(float),
        shuffled=pd.DataFrame(index=index),
        noise=pd.DataFrame(index=index),
        perturbed=pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["patient_id", "perturbation"])),
        images=images,
        masks=masks[:, : len(set(schema["labels"].values()))],
        present=images.any(axis=(2, 3, 4)),
        modalities=list(schema["modalities"]),
        dictionary=dict(schema["chart"]),
        name=cohort,
    )


def _grid(mask: sitk.Image, labels: dict, params: Params, cohort: str) -> sitk.Image:
    from survpack.explain.overlays import grid_of

    spacing = per_cohort(params.crops.spacing_mm, cohort)
    return grid_of(mask, _tumour(labels), params.crops, spacing, params.preprocess.orientation)


def _facts(volume: _Volume, mask: sitk.Image, labels: dict) -> dict:
    voxel = prod(mask.GetSpacing()) / 1000
    return {
        "modality": volume.kind,
        "spacing": [round(side, 4) for side in mask.GetSpacing()],
        "size": list(mask.GetSize()),
        "lesion_ml": lesion_volumes(sitk.GetArrayViewFromImage(mask), voxel, labels)["tumour_ml"],
    }


def _tumour(labels: dict[int, str]) -> list[int]:
    return [number for number, meaning in labels.items() if meaning in TUMOUR]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _some(names) -> str:
    return ", ".join(dict.fromkeys(map(str, names))) or "none"
