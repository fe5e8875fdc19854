"""From a cohort's scans to its table of biomarkers: every region of every image, remembered by content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import delayed
from tqdm import tqdm

from survpack import content, grids, lesions, normalise, preprocess, radiomics, settings
from survpack.cohort import TUMOUR, Cohort
from survpack.errors import BadInput
from survpack.params import Params, per_cohort
from survpack.paths import CohortPaths, written_whole
from survpack.processes import workers
from survpack.radiomics import GIVEN, RADIOMIC
from survpack.robustness import ORIGINAL, PERTURBATIONS, applicable, rng_of

CONTROLS = ("shuffled", "noise")
CONTROLLED = "tumour"  # the region whose controls are measured: noise in every compartment would know all their volumes
NOISE = {"mr": (0.0, 1.0), "ct": (40.0, 100.0), "pt": (5.0, 2.0)}  # mean and spread, the same for every patient
NOTES = ["patient_id", "region", "sequence", "reason"]
CODE = (
    "biomarkers.py",
    "lesions.py",
    "radiomics.py",
    "ibsi_names.csv",
    "nifti.py",
    "preprocess.py",
    "normalise.py",
    "grids.py",
    "robustness.py",
)
MARGIN_MM = 20  # around the regions, in which they are perturbed; more for a filter that looks as far
SMALLEST_LESION = 27  # voxels of a lesion that is measured by itself


@dataclass(frozen=True)
class Biomarkers:
    """What stage 02 measures of a cohort.

    Attributes
    ----------
    features : DataFrame, one row a patient, indexed by `patient_id`
        Lesion biomarkers, then `rad_<region>_<sequence>_<tag>`. NaN is explained in `notes`.
    shuffled, noise : DataFrame
        Intensity and texture of the tumour again, from voxels shuffled within it, and from noise in their place.
    perturbed : DataFrame, indexed by (`patient_id`, `perturbation`)
        Some development patients, `original` and under each perturbation.
    notes : DataFrame
        `patient_id`, `region`, `sequence`, `reason`: why a value is missing or what was taken out.
    """

    features: pd.DataFrame
    shuffled: pd.DataFrame
    noise: pd.DataFrame
    perturbed: pd.DataFrame
    notes: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Four parquet files and a CSV, whole or not at all."""
        with written_whole(folder) as part:
            part.mkdir(parents=True)
            for name in ("features", "shuffled", "noise", "perturbed"):
                getattr(self, name).to_parquet(part / f"{name}.parquet")
            self.notes.to_csv(part / "notes.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> Biomarkers:
        tables = {
            name: pd.read_parquet(folder / f"{name}.parquet") for name in ("features", "shuffled", "noise", "perturbed")
        }
        return cls(**tables, notes=pd.read_csv(folder / "notes.csv", keep_default_na=False))


def extract(cohort: Cohort, params: Params, development: list[str]) -> Biomarkers:
    """Measure every patient of a cohort, and some of the development set again under perturbations.

    What was measured elsewhere (`Cohort.features`) stands beside it as `rad_given_<name>`.

    Lesion biomarkers and shape come from the first mask of a patient at baseline, on its native and on the isotropic
    grid; intensity and texture from each image with its own mask. What was measured before of the same files with
    the same choices and code is read from `data/derived/<cohort>/remembered`.

    Parameters
    ----------
    development : list of str
        Patients among whom those for the robustness are drawn.
    """
    params = settings.settled(params, cohort, development, ["biomarkers.spacing_mm"])
    images = dict(tuple(preprocess.at_baseline(cohort.images).groupby("patient_id", sort=False)))
    patients = cohort.participants["patient_id"].tolist()
    nothing = cohort.images.iloc[:0]
    some = _drawn([patient for patient in development if patient in images], params)
    changes = applicable(params.robustness.perturbations, (cohort.images["path"] != "").any())
    tasks = [(patient, "") for patient in patients] + [(patient, how) for patient in some for how in changes]
    bar = tqdm(tasks, desc=f"{cohort.name}: biomarkers", mininterval=2)
    measure = partial(measure_patient, labels=cohort.labels, params=params, name=cohort.name)
    found = workers(-1 if images else 1)(
        delayed(measure)(images.get(patient, nothing), change=how) for patient, how in bar
    )
    real = dict(zip(tasks, found, strict=True))
    index = pd.Index(patients, name="patient_id")
    tables = {
        which: pd.DataFrame([real[patient, ""][which] for patient in patients], index).astype(float)
        for which in ("features", *CONTROLS)
    }
    given = cohort.features.set_index("patient_id").reindex(index).add_prefix(GIVEN).dropna(axis=1, how="all")
    tables["features"] = tables["features"].join(given)
    unmeasured = tables["features"].columns[tables["features"].isna().all()]
    tables = {which: table.drop(columns=unmeasured, errors="ignore") for which, table in tables.items()}
    rng = np.random.default_rng(params.biomarkers.seed)  # a control alike in shape, and in nothing else
    tables["noise"] = tables["noise"].join(pd.DataFrame(rng.normal(size=given.shape), index, given.columns))
    regions = regions_of(cohort.labels, params.biomarkers.regions).values()
    organs = {meaning for number, meaning in cohort.labels.items() if not any(number in own for own in regions)}
    told = _absent(images)
    notes = [(patient, *note) for patient in patients for note in [*told.get(patient, []), *real[patient, ""]["notes"]]]
    return Biomarkers(
        **tables,
        perturbed=_perturbed(real, some, changes, tables["features"].columns, organs),
        notes=pd.DataFrame(notes, columns=NOTES).drop_duplicates(ignore_index=True),
    )


def measure_patient(
    rows: pd.DataFrame, labels: dict[int, str], params: Params, name: str, change: str = "", controls: bool = True
) -> dict:
    """`features`, `shuffled`, `noise` (dicts) and `notes` of one patient's images.

    Parameters
    ----------
    rows : DataFrame
        The patient's rows of a cohort's `images`; none of a patient who was not imaged.
    change : str
        A perturbation of the robustness study, or none.
    controls : bool
        Whether the two negative controls are measured too; never of a perturbed patient.
    """
    if rows.empty:
        return {"features": {}, **{which: {} for which in CONTROLS}, "notes": [("", "", "no image and no mask")]}
    remember = partial(_remembered, CohortPaths(name).remembered)
    spacing = per_cohort(params.biomarkers.spacing_mm, name)
    reach = radiomics.reach(params.biomarkers.filters, spacing)
    common = {"labels": labels, "spacing": spacing, "regions": params.biomarkers.regions, "change": change}
    common |= {"orientation": params.preprocess.orientation, "resample": params.preprocess.resample.model_dump()}
    common |= {"seed": params.robustness.seed if change else None, "patient": rows["patient_id"].iloc[0]}
    common |= {"margin": max(MARGIN_MM, reach + 10) if change else None}
    parts = [remember(_shape, rows, common | {"shape": "morphology" in params.biomarkers.families})]
    for place in np.flatnonzero(rows["path"] != ""):
        row = rows.iloc[[place]]
        kind = kind_of(row["modality"].iloc[0])
        own = common | {"choice": getattr(params.preprocess, kind).model_dump(), "kind": kind}
        own |= {"bins": params.biomarkers.bins[kind].model_dump()}
        own |= {"controls": params.biomarkers.seed if controls and not change else None}
        own |= {key: getattr(params.biomarkers, key) for key in ("families", "filters", "lesions")} | {"reach": reach}
        parts.append(remember(_sequence, row, own))
    whole = {which: {} for which in ("features", *CONTROLS)}
    for part in parts:
        for which, values in whole.items():
            values.update(part.get(which, {}))
    return whole | {"notes": [note for part in parts for note in part["notes"]]}


def regions_of(labels: dict[int, str], wanted: list[str]) -> dict[str, list[int]]:
    """The numbers of a mask that make each region; without one that a cohort lacks or that is another by name."""
    tumour = [number for number, meaning in labels.items() if meaning in TUMOUR]
    parts = {part: [number for number, meaning in labels.items() if meaning == part] for part in set(labels.values())}
    every = parts | {"tumour": tumour, "whole": tumour + parts.get("oedema", [])}
    found: dict[str, list[int]] = {}
    for region in wanted:
        if every.get(region) and sorted(every[region]) not in map(sorted, found.values()):
            found[region] = every[region]
    return found


def kind_of(modality: str) -> str:
    """`ct`, `pt` or `mr`: whose units the grey values are in."""
    return modality if modality in ("ct", "pt") else "mr"


def _absent(images: dict[str, pd.DataFrame]) -> dict[str, list[tuple]]:
    """Of each patient, the sequences that others have at baseline."""
    seen = {patient: set(rows.loc[rows["path"] != "", "modality"]) for patient, rows in images.items()}
    every = set().union(*seen.values())
    return {patient: [("", one, "no such image") for one in sorted(every - own)] for patient, own in seen.items()}


def _shape(rows: pd.DataFrame, choice: dict) -> dict:
    """Lesion biomarkers and shape features of the patient's first mask."""
    first, regions = rows.iloc[0], regions_of(choice["labels"], choice["regions"])
    mask, rounded = preprocess.read_mask(first["mask_path"])
    scans = {} if choice["change"] else on_grid_of(mask, rows)
    if choice["change"]:
        image = preprocess.read_image(first["path"], sitk.sitkFloat32) if first["path"] else None
        mask = _changed(image, mask, first["modality"], choice)[1]
    found, reasons = lesions.measure(mask, choice["labels"], scans)
    notes = [("lesion", "", reason) for reason in [rounded, *reasons] if reason]
    if not scans and not choice["change"] and "mr" in rows.loc[rows["path"] != "", "modality"].map(kind_of).tolist():
        notes.append(("lesion", "", "surface_mm, ventricle_mm: no MR image on the grid of the mask"))
    if choice["shape"]:
        wanted = _only(mask, choice["labels"], regions)
        _, grid, told = grids.on_one_grid(None, wanted, choice["spacing"], choice["resample"], choice["orientation"])
        notes += [("", "", told)] if told else []
        numbers = sitk.GetArrayFromImage(grid).transpose(2, 1, 0)
        for region, members in regions.items():
            values, reason = radiomics.morphology(np.isin(numbers, members), grid.GetSpacing())
            found |= {f"{RADIOMIC}{region}_{tag}": value for tag, value in values.items()}
            notes += [(region, "", reason)] if reason else []
    return {"features": found, "notes": notes}


def _sequence(row: pd.DataFrame, choice: dict) -> dict:
    """Intensity and texture of every region in one image, and in its two controls."""
    one, kind = row.iloc[0], choice["kind"]
    image, mask, notes = _prepared(one, choice)
    values, numbers = (sitk.GetArrayFromImage(volume).transpose(2, 1, 0) for volume in (image, mask))
    low, high = choice["choice"].get({"ct": "range_hu", "pt": "range_suv"}.get(kind, ""), (None, None))
    bins = radiomics.Bins(**choice["bins"], low=low if choice["bins"]["width"] else None)
    families = [family for family in choice["families"] if family != "morphology"]
    result = {which: {} for which in ("features", *CONTROLS)}
    filtered = radiomics.filtered(values, mask.GetSpacing(), choice["filters"]) if choice["filters"] else {}
    for region, members in regions_of(choice["labels"], choice["regions"]).items():
        inside = np.isin(numbers, members)
        if low is not None:
            beyond = inside & ((values < low) | (values > high))  # what is not a number stays, to be told of
            if beyond.any():
                why = f"{beyond.sum()} of {inside.sum()} voxels outside {low:g} to {high:g}, left out"
                notes.append((region, one.modality, why))
            inside &= ~beyond
        seen = {"features": values}
        if choice["controls"] is not None and region == CONTROLLED:
            seed = [choice["controls"], *f"{one.patient_id} {one.modality} {region}".encode()]
            seen |= _controls(values, inside, NOISE[kind], np.random.default_rng(seed))
        told = ""
        for which, volume in seen.items():
            measured, reason = _over_lesions(volume, inside, mask.GetSpacing(), bins, families, choice["lesions"])
            start = f"{RADIOMIC}{region}_{one.modality}"
            result[which] |= {f"{start}_{tag}": value for tag, value in measured.items()}
            told = reason if which == "features" else told
        notes += [(region, one.modality, told)] if told else []
        for filtering, volume in filtered.items():
            own = radiomics.Bins(number=choice["bins"]["number"] or 32)  # a filter's output is in no unit
            measured, reason = _over_lesions(volume, inside, mask.GetSpacing(), own, families, choice["lesions"])
            start = f"{RADIOMIC}{region}_{one.modality}-{filtering}"
            notes += [(region, f"{one.modality}-{filtering}", reason)] if reason not in ("", told) else []
            result["features"] |= {f"{start}_{tag}": value for tag, value in measured.items()}
    return result | {"notes": notes}


def _prepared(one, choice: dict) -> tuple[sitk.Image, sitk.Image, list]:
    """Image and mask on one isotropic grid, grey values in their unit."""
    mask, _ = preprocess.read_mask(one.mask_path)
    image = preprocess.read_image(one.path, sitk.sitkFloat32)
    notes = []
    if choice["kind"] == "mr":
        image, told = normalise.normalised(image, one.modality, choice["choice"])
        notes.append(told)
    if choice["change"]:
        image, mask = _changed(image, mask, one.modality, choice)
    wanted = _only(mask, choice["labels"], regions_of(choice["labels"], choice["regions"]))
    grid = (choice["spacing"], choice["resample"], choice["orientation"], max(10, choice["reach"]))
    image, mask, told = grids.on_one_grid(image, wanted, *grid)
    return image, mask, [("", one.modality, note) for note in [*notes, told] if note]


def _changed(image: sitk.Image | None, mask: sitk.Image, modality: str, choice: dict) -> tuple:
    """One perturbation: noise of its own for every image, but one new contour, turn and shift for all."""
    own = f"{choice['change']} {modality}" if choice["change"] == "noise" else choice["change"]
    rng = rng_of(choice["seed"], choice["patient"], own)
    if image is not None and not grids.same_grid(image, mask):
        mask, _ = grids.mask_onto(mask, image)
    mask = _only(mask, choice["labels"], regions_of(choice["labels"], choice["regions"]))
    image, mask = _near(image, mask, choice["margin"])
    return PERTURBATIONS[choice["change"]](image, mask, choice["labels"], rng)


def _only(mask: sitk.Image, labels: dict[int, str], regions: dict[str, list[int]]) -> sitk.Image:
    """The mask without labels that are of no region: a kidney is large, and not of the tumour."""
    wanted = {number for members in regions.values() for number in members}
    if wanted == set(labels):
        return mask
    numbers = sitk.GetArrayFromImage(mask)
    for number in set(labels) - wanted:
        numbers[numbers == number] = 0
    return grids.like(numbers, mask)


def _near(image: sitk.Image | None, mask: sitk.Image, margin_mm: float) -> tuple[sitk.Image | None, sitk.Image]:
    """Image and mask cut to the regions and what lies around them."""
    box = grids.region(mask)
    if box is None:
        return image, mask
    margin = [int(np.ceil(margin_mm / spacing)) for spacing in mask.GetSpacing()]
    start = [max(first - more, 0) for (first, _), more in zip(box, margin, strict=True)]
    stop = [min(last + more + 1, n) for (_, last), more, n in zip(box, margin, mask.GetSize(), strict=True)]
    size = [b - a for a, b in zip(start, stop, strict=True)]
    return image and sitk.RegionOfInterest(image, size, start), sitk.RegionOfInterest(mask, size, start)


def _controls(values: np.ndarray, inside: np.ndarray, noise: tuple, rng: np.random.Generator) -> dict:
    """The region with its voxels in random order, and with noise in their place that is alike for everyone."""
    shuffled, replaced = values.copy(), values.copy()
    shuffled[inside] = rng.permutation(values[inside])
    replaced[inside] = rng.normal(*noise, inside.sum())
    return {"shuffled": shuffled, "noise": replaced}


def _over_lesions(volume, inside, spacing, bins, families, rule: str) -> tuple[dict[str, float], str]:
    """Features of a region of several lesions: of all voxels at once, the largest lesion, or the mean by volume."""
    if rule == "pooled" or not inside.any():
        return radiomics.features(volume, inside, spacing, bins, families)
    parts, sizes = lesions.components(inside)
    if rule == "largest" or sizes.max() < SMALLEST_LESION:
        return radiomics.features(volume, parts == 1 + sizes.argmax(), spacing, bins, families)
    own = [k for k in range(len(sizes)) if sizes[k] >= SMALLEST_LESION]
    each = [radiomics.features(volume, parts == k + 1, spacing, bins, families) for k in own]
    table, weights = pd.DataFrame([values for values, _ in each]), sizes[own]
    present = table.notna().to_numpy() * weights[:, None]
    with np.errstate(invalid="ignore"):
        means = np.nansum(table.to_numpy() * weights[:, None], axis=0) / present.sum(axis=0)
    return dict(zip(table, means.astype(float), strict=True)), "; ".join(sorted({told for _, told in each if told}))


def on_grid_of(mask: sitk.Image, rows: pd.DataFrame) -> dict[str, sitk.Image]:
    """The patient's MR images that lie on the grid of the mask."""
    scans = {}
    for row in rows[rows["path"] != ""].itertuples():
        if kind_of(row.modality) == "mr":
            image = preprocess.read_image(row.path, sitk.sitkFloat32)
            if grids.same_grid(image, mask):
                scans[row.modality] = image
    return scans


def _drawn(development: list[str], params: Params) -> list[str]:
    rng = np.random.default_rng(params.robustness.seed)
    return sorted(rng.permutation(sorted(development))[: params.robustness.patients].tolist())


def _perturbed(real: dict, some: list[str], changes: list[str], columns: pd.Index, organs) -> pd.DataFrame:
    keys = [(patient, how) for patient in some for how in ("", *changes)]
    index = pd.MultiIndex.from_tuples(
        [(patient, how or ORIGINAL) for patient, how in keys], names=["patient_id", "perturbation"]
    )
    table = pd.DataFrame([real[key]["features"] for key in keys], index).reindex(columns=columns).astype(float)
    changed = table[table.index.get_level_values("perturbation") != ORIGINAL]
    lost = changed.columns[changed.isna().all() & bool(len(changed))]  # distances to a brain that is no longer whole
    return table.drop(columns={*lost, *(f"{organ}_ml" for organ in organs if f"{organ}_ml" in table)})


def _remembered(folder: Path, measure, rows: pd.DataFrame, choice: dict) -> dict:
    """`measure(rows, choice)`, or what it gave for the same files, choices and code."""
    paths = [path for path in [*rows["path"], *rows["mask_path"]] if path]
    if gone := [path for path in paths if not Path(path).is_file()]:
        raise BadInput(
            f"{gone[0]}: file not found, expected it where stage 01 saw it; put it back, or run stage 01 again."
        )
    files = [content.digest(path) for path in paths]
    told = json.dumps([_code(), files, rows["modality"].tolist(), choice], sort_keys=True, default=str)
    path = folder / f"{hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}.json"
    found = _recalled(path)
    if found is None:
        found = measure(rows, choice)
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as own:  # of this process: another may be writing the same
            Path(own, path.name).write_text(json.dumps(found))
            Path(own, path.name).replace(path)
    return found


def _recalled(path: Path) -> dict | None:
    """What a file of `remembered` holds; None where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "notes" in found else None


@lru_cache(maxsize=1)
def _code() -> list[str]:
    return [version("z-rad")] + [content.digest(Path(__file__).with_name(name)) for name in CODE]
