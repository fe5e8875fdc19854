"""Settings that a cohort gets from itself: what `auto` in params.yaml stands for.

Found once, in stage 01, from the development patients and their scans at baseline alone; kept beside the cohort, read by
`Study`, and carried as numbers by a bundle. A number in params.yaml always holds. The rules:

- `crops.spacing_mm`: the smallest cube of voxels, in steps of 0.5 mm and no finer than the median scan's finest side, in
  which the largest lesion, seen from its centroid with a tenth more, fits for 95 % of patients; but no coarser than a
  quarter of the median lesion's diameter (of a ball of its volume), so that a usual lesion is still four voxels across.
- `crops.ct_window_hu`: the medians over patients of percentiles 1 and 99 of CT in the box around the tumour and 10 mm
  about it, outward to 10 HU.
- `biomarkers.spacing_mm`: the cube that holds as much as the median native voxel of the masks, to 0.5 mm, at least 1 mm.
- `scores.horizon_days`: the latest of `DAYS` by which ten patients (or half of those who ever have it) had the event,
  which a fifth outlived or were followed beyond, and after which somebody still has the event; else the last of `EARLY`
  and `DAYS` by the median time of an event. A day of nobody's: curves are kept on it (`prognosis.time_grid`).
- `scores.horizons_days`: that one and the two of `DAYS` before it by which anybody had the event.
- `longitudinal.landmarks_days`: the first three of `LANDMARKS` by which a tenth of the patients, and ten (or all who ever
  were), had been seen again while at risk, and after which ten (or half) of the events come.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import Parallel, delayed

from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.params import AUTO, Params
from survpack.paths import written_whole
from survpack.preprocess import at_baseline, read_image, read_mask, tumour_of

STEP_MM = 0.5
FITS = 0.95  # of patients, whose largest lesion lies whole in the cube
MARGIN = 0.1  # of the lesion's reach from its centroid
ACROSS = 4  # voxels of a usual lesion
FINEST_MM = 1.0  # of radiomics
WINDOWED = 40  # patients whose CT is read for the window, spread evenly over the table
AROUND_MM, STEP_HU = 10, 10
EARLY = (1, 2, 3, 5, 7, 10, 14, 21)  # days for those who are not followed to any of the others
DAYS = (30, 60, 90, 180, 365, 730, 1095, 1460, 1825, 2555, 3650)
LANDMARKS = (30, 60, 90, 180, 270, 365, 540, 730, 1095)
EVENTS, AT_RISK, SEEN_AGAIN = 10, 0.2, 0.1
UNIT = {"mm": "mm", "hu": "HU", "days": "days"}
PLACES = (
    "crops.spacing_mm",
    "crops.ct_window_hu",
    "biomarkers.spacing_mm",
    "scores.horizon_days",
    "scores.horizons_days",
    "longitudinal.landmarks_days",
)


def resolve(cohort: Cohort, development: list[str], params: Params, places=PLACES) -> dict[str, dict]:
    """`{place: {"value", "from"}}` of each setting of this cohort that is `auto`; `from` is a sentence with its numbers.

    Parameters
    ----------
    cohort : Cohort
    development : list of str
        Nobody else's outcome, scan or mask is looked at.
    params : Params
        As params.yaml has it.
    places : collection of str
        Of `PLACES`, those to find.
    """
    asked = [place for place in places if _written(params, place, cohort.name) == AUTO]
    images = at_baseline(cohort.images[cohort.images["patient_id"].isin(development)])
    outcome = cohort.outcome[cohort.outcome["patient_id"].isin(development)]
    sizes = _lesions(images, cohort.tumour_labels) if {"crops.spacing_mm", "biomarkers.spacing_mm"} & {*asked} else None
    rules = {
        "crops.spacing_mm": lambda: crop_spacing(sizes, params.crops.size),
        "crops.ct_window_hu": lambda: ct_window(images[images["modality"] == "ct"], cohort.tumour_labels),
        "biomarkers.spacing_mm": lambda: voxel(sizes),
        "scores.horizon_days": lambda: horizon(outcome),
        "scores.horizons_days": lambda: horizons(outcome),
        "longitudinal.landmarks_days": lambda: landmarks(cohort, outcome),
    }
    return {place: dict(zip(("value", "from"), rules[place](), strict=True)) for place in asked}


def crop_spacing(sizes: pd.DataFrame, voxels: int) -> tuple[float, str]:
    """Side of a crop's voxels, mm, and where it comes from.

    Parameters
    ----------
    sizes : DataFrame, a row a patient
        `reach_mm` of the largest lesion from its centroid along the patient's axes, its `diameter_mm`, and of the native
        voxel `finest_mm`.
    voxels : int
        A side of the cube.
    """
    if sizes.empty:
        return 2.0, "nobody was imaged, so it is not used"
    reach = float(np.quantile(sizes["reach_mm"], FITS, method="inverted_cdf"))
    native, diameter = float(sizes["finest_mm"].median()), float(sizes["diameter_mm"].median())
    fitting = _up(max(2 * reach * (1 + MARGIN) / voxels, native))
    cap = max(np.floor(diameter / ACROSS / STEP_MM + 1e-6) * STEP_MM, _up(native))
    spacing = float(min(fitting, cap))
    whole = float((2 * sizes["reach_mm"] <= voxels * spacing).mean())
    told = (
        f"{len(sizes)} development patients: the largest lesion reaches {reach:.0f} mm from its centroid or less in "
        f"{FITS:.0%}, the native voxel is {native:.2g} mm, a cube of {voxels} voxels a side"
    )
    if fitting > cap:
        told += (
            f"; {fitting:g} mm would hold them, but the median lesion of {diameter:.0f} mm would be under {ACROSS} voxels "
            f"across: capped, so that {1 - whole:.0%} of them are cut"
        )
    return spacing, told


def voxel(sizes: pd.DataFrame) -> tuple[float, str]:
    """Side of the cubes in which radiomics are measured, mm; `sizes` as for `crop_spacing`, with `cube_mm`."""
    if sizes.empty:
        return 2.0, "nobody was imaged, so it is not used"
    native = float(sizes["cube_mm"].median())
    told = f"{len(sizes)} development patients: the median native voxel holds as much as a cube of {native:.2f} mm"
    return float(max(np.round(native / STEP_MM) * STEP_MM, FINEST_MM)), told


def ct_window(images: pd.DataFrame, tumour: list[int]) -> tuple[list[float], str]:
    """Lower and upper end, HU."""
    images = images[(images["path"] != "") & (images["mask_path"] != "")]
    if images.empty:
        return [-160.0, 240.0], "there is no CT, so it is not used"
    some = images.iloc[np.unique(np.linspace(0, len(images) - 1, WINDOWED).astype(int))]
    found = np.nanmedian(_each(_levels, some.itertuples(), tumour), axis=0)
    low, high = float(np.floor(found[0] / STEP_HU) * STEP_HU), float(np.ceil(found[1] / STEP_HU) * STEP_HU)
    told = f"{len(some)} development patients: percentiles 1 and 99 around the tumour are {found[0]:.0f} and {found[1]:.0f} HU"
    return [low, max(high, low + STEP_HU)], told


def horizon(outcome: pd.DataFrame) -> tuple[float, str]:
    """The day of calibration; `outcome` of development patients: `time_days`, `event`."""
    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    least = min(EVENTS, -(-int(event.sum()) // 2)) if event.any() else 1
    good = [
        day for day in DAYS
        if (event & (time <= day)).sum() >= least and (time > day).mean() >= AT_RISK and (event & (time > day)).any()
    ]  # fmt: skip
    if not good:
        middle = np.median(time[event] if event.any() else time)
        day = float(max((day for day in (*EARLY, *DAYS) if day <= middle), default=1))
        told = f"{len(time)} development patients: by the median time of an event, as no usual day has enough of them"
        return day, told
    day = good[-1]
    told = f"{len(time)} development patients: by then {(event & (time <= day)).sum()} had the event, {(time > day).sum()} were at risk"
    return float(day), told


def horizons(outcome: pd.DataFrame) -> tuple[list[float], str]:
    """The days of decision curves."""
    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    main, told = horizon(outcome)
    before = [float(day) for day in DAYS if day < main and (event & (time <= day)).any()]
    return [*before[-2:], main], f"{told.partition(':')[0]}: the horizon of calibration and usual days before it"


def landmarks(cohort: Cohort, outcome: pd.DataFrame) -> tuple[list[float], str]:
    """Days at which models of visits are read."""
    table = cohort.visits.assign(modality="") if len(cohort.visits) else cohort.images
    seen = table.assign(day=pd.to_numeric(table["day"], errors="coerce")).dropna(subset="day").sort_values("day")
    seen = seen[seen["patient_id"].isin(outcome["patient_id"])].drop_duplicates(["patient_id", "modality", "session"])
    again = (
        seen[seen.duplicated(["patient_id", "modality"])].groupby("patient_id")["day"].first()
    )  # PET after CT is no visit
    if again.empty:
        return [180.0], "nobody was seen twice, so it is not used"
    left = outcome.set_index("patient_id")
    event, least = left["event"].astype(bool), min(EVENTS, -(-int(left["event"].sum()) // 2))
    again = again.reindex(left.index)
    good = [
        float(day) for day in LANDMARKS
        if ((again <= day) & (left["time_days"] > day)).sum() >= max(SEEN_AGAIN * len(left), min(EVENTS, again.count()))
        and (event & (left["time_days"] > day)).sum() >= max(least, 1)
    ]  # fmt: skip
    who = f"{again.count()} of {len(left)} development patients were seen again"
    if not good:
        return [max(float(again.median()), 1.0)], f"{who}: the median day of it, as no usual day has enough of them"
    return good[:3], f"{who}: the first days by which enough of them had been, with events to come"


# --- kept, read and shown ------------------------------------------------------------------------------------------


def save(found: dict[str, dict], path: Path) -> None:
    """Write what `resolve` found."""
    with written_whole(path) as part:
        part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, dict]:
    """What `save` wrote; empty where stage 01 has not run."""
    try:
        return {
            place: {"value": one["value"], "from": one["from"]}
            for place, one in json.loads(Path(path).read_text()).items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, LookupError, AttributeError):
        raise BadInput(f"{path}: damaged, expected what stage 01 found; run stage 01 again.") from None


def applied(params: Params, name: str, found: dict[str, dict]) -> Params:
    """`params` with the values found for cohort `name` under its own name, wherever params.yaml says `auto`."""
    for place, one in found.items():
        section, key = place.split(".")
        if place in PLACES and _written(params, place, name) == AUTO:
            part = getattr(params, section)
            value = tuple(one["value"]) if key == "ct_window_hu" else one["value"]
            part = part.model_copy(update={key: {**getattr(part, key), name: value}})
            params = params.model_copy(update={section: part})
    return params


def settled(params: Params, cohort: Cohort, development: list[str], places=PLACES) -> Params:
    """`params` with what `resolve` finds now, where no stage 01 has left it: the same rules, the same patients."""
    return applied(params, cohort.name, resolve(cohort, development, params, places))


def table(params: Params, name: str, found: dict[str, dict]) -> pd.DataFrame:
    """Every setting that may differ between cohorts: `Setting`, `Value`, `From`; `params` as params.yaml has them."""
    rows = []
    for place in PLACES:
        part, unit = getattr(params, place.split(".")[0]), UNIT[place.rsplit("_", 1)[-1]]
        told, value = getattr(part, place.split(".")[1]), _written(params, place, name)
        where = "params.yaml" + (f", `{name if name in told else 'other'}`" if isinstance(told, dict) else "")
        if value == AUTO:
            value, where = found[place]["value"], found[place]["from"]
        values = value if isinstance(value, (list, tuple)) else [value]
        rows.append((f"`{place}`", f"{', '.join(f'{one:g}' for one in values)} {unit}", where))
    return pd.DataFrame(rows, columns=["Setting", "Value", "From"])


def _written(params: Params, place: str, name: str):
    section, key = place.split(".")
    told = getattr(getattr(params, section), key)
    return told.get(name, told.get("other")) if isinstance(told, dict) else told


# --- what is measured ----------------------------------------------------------------------------------------------


def _up(length: float) -> float:
    return float(np.ceil(length / STEP_MM - 1e-6) * STEP_MM)


def _each(measure, items, *given) -> list:
    return Parallel(n_jobs=-1, prefer="threads")(delayed(measure)(one, *given) for one in items)


def _lesions(images: pd.DataFrame, tumour: list[int]) -> pd.DataFrame:
    """A row a patient with a mask: of several masks, the largest reach and the first one's voxel."""
    rows = images[images["mask_path"] != ""].drop_duplicates(["patient_id", "mask_path"])
    columns = ["reach_mm", "diameter_mm", "finest_mm", "cube_mm"]
    found = pd.DataFrame(_each(_lesion, rows["mask_path"], tumour), rows["patient_id"], columns)
    first = found.groupby(level=0, sort=False).first()
    return first.assign(reach_mm=found.groupby(level=0)["reach_mm"].max())


def _lesion(path: str, tumour: list[int]) -> tuple[float, float, float, float]:
    mask = tumour_of(read_mask(path)[0], tumour)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask, True))
    inside = np.argwhere(sitk.GetArrayViewFromImage(parts) == 1)[:, ::-1].astype(np.float32)
    side, turn = np.array(mask.GetSpacing()), np.array(mask.GetDirection()).reshape(3, 3)
    places = inside * side @ turn.T
    reach = np.abs(places - places.mean(axis=0)).max(axis=0) + np.abs(turn) @ side / 2
    volume = len(inside) * side.prod()
    return reach.max(), 2 * (0.75 * volume / np.pi) ** (1 / 3), side.min(), side.prod() ** (1 / 3)


def _levels(row, tumour: list[int]) -> np.ndarray:
    near, image = tumour_of(read_mask(row.mask_path)[0], tumour), read_image(row.path, sitk.sitkFloat32)
    pad = [int(np.ceil(AROUND_MM / side)) for side in near.GetSpacing()]
    grid = sitk.ConstantPad(near, pad, pad, 0)
    values = sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, np.nan))
    return np.nanpercentile(values, [1, 99])
