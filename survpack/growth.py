"""Change over visits, for patients scanned more than once: growth, doubling time, a RECIST-like response.

None of this is a baseline predictor. A change is known only at the later visit, and visits happen only to the living:
the number of visits, and whatever was measured after baseline, tells who lived (immortal time). A model may look at it
from a landmark only: choose a day, take `landmark(visits, day)`, keep the patients still at risk then
(`time_days > day`), and count their survival from that day.

The response follows RECIST 1.1 (Eisenhauer 2009, Eur J Cancer 45:228) on the diameters that the mask shows. It is like
RECIST, not RECIST: whatever is segmented is a target (no five lesions, no short axis of nodes), new lesions count by
their diameter alone, and a response is not confirmed by a second scan.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import delayed
from scipy.ndimage import find_objects
from tqdm import tqdm

from survpack import lesions
from survpack.cohort import TUMOUR, Cohort, listed
from survpack.errors import BadInput
from survpack.preprocess import read_mask
from survpack.processes import workers

VISIT = ["patient_id", "session", "day"]
SIZE = ["tumour_ml", "diameter_sum_mm"]
FEATURES = {  # what `changes` adds, with units; "baseline" is the patient's first visit, "nadir" the least before this one
    "days_since_baseline": "days",
    "change_pct": "% of the baseline volume",
    "change_nadir_pct": "% of the nadir volume",
    "diameter_change_pct": "% of the baseline diameters",
    "diameter_change_nadir_pct": "% of the nadir diameters",
    "diameter_change_nadir_mm": "mm",
    "growth_ml": "mL per 30 days, all visits so far, least squares",
    "growth_log": "log volume per 30 days, all visits so far, least squares",
    "growth_pct": "% per 30 days, all visits so far, exponential",
    "last_growth_ml": "mL per 30 days, since the visit before",
    "last_growth_pct": "% per 30 days, since the visit before, exponential",
    "doubling_days": "days, all visits so far; NaN where the volume does not grow",
    "response": "CR, PR, SD or PD",
    "best_response": "CR, PR, SD or PD, the best until the first PD",
}
RESPONSES = ("CR", "PR", "SD", "PD")  # best first
ROUNDING = 1e-9  # a diameter of exactly 70 % is a partial response, however it is stored


def visits(cohort: Cohort) -> pd.DataFrame:
    """Size of the tumour at every visit that has a mask.

    Where a visit has several masks (CT, PET), it is the one of the modality whose name comes first.

    Parameters
    ----------
    cohort : Cohort

    Returns
    -------
    DataFrame
        One row a patient and session, in time: `patient_id`, `session`, `day` (NaN where not known), `tumour_ml`, the
        other volumes that the labels make (`<label>_ml`), `diameter_sum_mm` (`diameter_sum`).

    Raises
    ------
    BadInput
        For a mask that cannot be read.
    """
    masked = cohort.images[cohort.images["mask_path"] != ""].sort_values("modality", kind="stable")
    rows = masked.drop_duplicates(["patient_id", "session"]).sort_values(["patient_id", "day", "session"])
    bar = tqdm(rows["mask_path"], desc=f"{cohort.name}: visits", mininterval=2, disable=len(rows) < 20)
    sizes = workers()(delayed(_size)(path, cohort.labels) for path in bar)
    table = pd.DataFrame(sizes, index=rows.index, columns=None if sizes else SIZE).astype(float)
    return rows[VISIT].assign(day=pd.to_numeric(rows["day"]).astype(float)).join(table).reset_index(drop=True)


def changes(visits: pd.DataFrame) -> pd.DataFrame:
    """The visits with `FEATURES` beside them; each row uses that visit and earlier ones only.

    A visit of unknown day or volume is kept, without changes. Of two visits on one day the session first by name
    comes first, and no rate is told between them. A visit without tumour has no logarithm: exponential growth counts
    the visits since the tumour was back.

    Parameters
    ----------
    visits : DataFrame
        As `visits` gives it, in any order: `patient_id`, `session`, `day`, `tumour_ml`, and `diameter_sum_mm` for
        the response.

    Returns
    -------
    DataFrame
        By patient and in time, unknown days last; `note` says why a value is NaN.

    Raises
    ------
    BadInput
        For a column that is absent and a visit listed twice.
    """
    table = _checked(visits)
    parts = [_of_patient(rows) for _, rows in table.groupby("patient_id", sort=False)]
    added = pd.concat(parts) if parts else pd.DataFrame(columns=[*FEATURES, "note"])
    return table.join(added)


def landmark(visits: pd.DataFrame, day: float) -> pd.DataFrame:
    """What was known of each patient by `day`: the last visit until then, and its changes.

    No later visit is looked at. For a model of survival after `day`, of patients still at risk then.

    Parameters
    ----------
    visits : DataFrame
        As for `changes`.
    day : float
        From baseline. A visit on this day counts; one of unknown day, or without a measured volume, does not.

    Returns
    -------
    DataFrame
        One row a patient, indexed by `patient_id`: the sizes and `FEATURES` at the last visit, `visits_so_far`,
        `days_since_visit`. NaN for a patient not seen by then.
    """
    table = _checked(visits)
    patients = pd.Index(table["patient_id"].unique(), name="patient_id")
    known = changes(table[(table["day"] <= day) & table["tumour_ml"].notna()])
    last = known.drop_duplicates("patient_id", keep="last").set_index("patient_id").reindex(patients)
    so_far = known["patient_id"].value_counts().reindex(patients, fill_value=0)
    return last.drop(columns="note").assign(visits_so_far=so_far, days_since_visit=day - last["day"].astype(float))


def recist(baseline_mm: float, nadir_mm: float, now_mm: float) -> str | None:
    """CR, PR, SD or PD by sums of diameters (RECIST 1.1); None where there was nothing to measure at baseline.

    Parameters
    ----------
    baseline_mm, nadir_mm, now_mm : float
        At the first visit, the least at any visit before this one (the first among them), and at this one.
        Progression is 20 % and 5 mm over the nadir, and wins over a partial response (30 % under baseline).
    """
    if not baseline_mm > 0 or not nadir_mm >= 0 or not now_mm >= 0:
        return None
    if now_mm == 0:
        return "CR"
    if 5 * now_mm >= 6 * nadir_mm - ROUNDING and now_mm - nadir_mm >= 5 - ROUNDING:
        return "PD"
    return "PR" if now_mm <= 0.7 * baseline_mm * (1 + ROUNDING) else "SD"


def slope(days: np.ndarray, values: np.ndarray) -> float:
    """Least-squares slope, a day; NaN for fewer than two days."""
    days = np.asarray(days, dtype=float)
    if len(days) < 2 or np.ptp(days) == 0:
        return np.nan
    centred = days - days.mean()
    return float((centred * np.asarray(values, dtype=float)).sum() / (centred**2).sum())


def diameter_sum(mask: sitk.Image, tumour_labels: list[int]) -> float:
    """Longest axial diameter of each lesion, summed, mm; 0 only where there is no tumour.

    Lesions are connected parts of the tumour; a speck (`lesions.SMALLEST_ML`) counts only where it is all there is. A
    lesion that shrinks under 10 mm still counts by its diameter, as a RECIST target does.

    Parameters
    ----------
    mask : Image of numbers, three axes
    tumour_labels : list of int
    """
    axial, spacing = lesions.axial_axis(mask), np.array(mask.GetSpacing())
    numbered, voxels = lesions.components(np.isin(sitk.GetArrayViewFromImage(mask).T, tumour_labels))
    volumes, boxes = voxels * spacing.prod() / 1000, find_objects(numbered)
    counted = np.flatnonzero(volumes >= min(lesions.SMALLEST_ML, volumes.max(initial=0)))
    parts = (numbered[boxes[k]] == k + 1 for k in counted)
    return float(sum(lesions.axial_callipers(part, spacing, axial)[0] for part in parts))


def _size(path: str, labels: dict[int, str]) -> dict[str, float]:
    mask, _ = read_mask(path)
    voxel_ml = float(np.prod(mask.GetSpacing())) / 1000
    found = lesions.lesion_volumes(sitk.GetArrayViewFromImage(mask), voxel_ml, labels)
    tumour = [number for number, meaning in labels.items() if meaning in TUMOUR]
    volumes = {name: volume for name, volume in found.items() if name.endswith("_ml")}
    return {"tumour_ml": found["tumour_ml"], "diameter_sum_mm": diameter_sum(mask, tumour)} | volumes


def _checked(visits: pd.DataFrame) -> pd.DataFrame:
    """The visits in time, without what an earlier call of `changes` added."""
    absent = [name for name in (*VISIT, "tumour_ml") if name not in visits]
    if absent:
        raise BadInput(
            f"Table of visits without {listed(absent)}, expected {', '.join([*VISIT, *SIZE])}; add or rename the column "
            f"(columns found: {', '.join(map(str, visits))})."
        )
    twice = visits[visits.duplicated(["patient_id", "session"])]
    if len(twice):
        who = f"patient {twice['patient_id'].iloc[0]}, session {twice['session'].iloc[0]}"
        raise BadInput(f"Table of visits: {who} is listed twice, expected one row a visit; keep one of them.")
    table = visits.drop(columns=[*FEATURES, "note"], errors="ignore")
    table = table.assign(day=pd.to_numeric(table["day"], errors="coerce"))
    if "diameter_sum_mm" not in table:
        table["diameter_sum_mm"] = np.nan
    return table.sort_values(["patient_id", "day", "session"], ignore_index=True)


def _of_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """`FEATURES` and `note` of one patient's visits, which are in time."""
    known = rows[rows["day"].notna() & rows["tumour_ml"].notna()]
    day, volume, diameter = known[["day", *SIZE]].to_numpy(dtype=float).T
    found = {"days_since_baseline": day - day[:1]}
    found |= _against(volume, "change") | _against(diameter, "diameter_change")
    found |= {"diameter_change_nadir_mm": diameter - _nadir(diameter)} | _rates(day, volume) | _responses(diameter)
    found["note"] = _notes(day, volume, found["growth_log"])
    table = pd.DataFrame(found, index=known.index)[[*FEATURES, "note"]].reindex(rows.index)
    return table.fillna({"note": rows["day"].isna().map({True: "day unknown", False: "volume not measured"})})


def _nadir(sizes: np.ndarray) -> np.ndarray:
    """The least at any visit before; NaN at the first."""
    return np.r_[np.nan, np.fmin.accumulate(sizes)][:-1]


def _against(sizes: np.ndarray, name: str) -> dict[str, np.ndarray]:
    first = np.where(np.arange(len(sizes)) > 0, sizes[:1], np.nan)
    before = {f"{name}_pct": first, f"{name}_nadir_pct": _nadir(sizes)}
    return {key: 100 * (sizes / np.where(size > 0, size, np.nan) - 1) for key, size in before.items()}


def _rates(day: np.ndarray, volume: np.ndarray) -> dict[str, np.ndarray]:
    """Growth in 30 days, over all visits up to each one and since the one before."""
    log = np.log(np.where(volume > 0, volume, np.nan))
    gap = np.diff(day, prepend=np.nan) / 30
    gap[gap <= 0] = np.nan
    linear, exponential = np.empty((2, len(day)))
    for k in range(len(day)):
        gone = np.flatnonzero(np.isnan(log[: k + 1]))
        since = slice(gone[-1] + 1 if len(gone) else 0, k + 1)
        linear[k] = 30 * slope(day[: k + 1], volume[: k + 1])
        exponential[k] = 30 * slope(day[since], log[since])
    return {
        "growth_ml": linear,
        "growth_log": exponential,
        "growth_pct": _percent(exponential),
        "last_growth_ml": np.diff(volume, prepend=np.nan) / gap,
        "last_growth_pct": _percent(np.diff(log, prepend=np.nan) / gap),
        "doubling_days": 30 * np.log(2) / np.where(exponential > ROUNDING, exponential, np.nan),
    }


def _percent(log: np.ndarray) -> np.ndarray:
    """Per cent of a change in logarithm; NaN where no number holds it (a day apart, a thousandfold)."""
    return 100 * np.expm1(np.where(log < 700, log, np.nan))


def _responses(diameter: np.ndarray) -> dict[str, list]:
    """The response at each visit after the first, and the best so far; after progression it stays what it was."""
    now, best = [], []
    for size, nadir in zip(diameter, _nadir(diameter), strict=True):
        now.append(recist(diameter[0], nadir, size))
        counted = [each for each in now[: now.index("PD") + 1 if "PD" in now else None] if each]
        best.append(min(counted, key=RESPONSES.index, default=None))
    return {"response": np.array(now, dtype=object), "best_response": np.array(best, dtype=object)}


def _notes(day: np.ndarray, volume: np.ndarray, growth: np.ndarray) -> list[str]:
    """Why there is no number, a visit each."""
    reasons = {
        "first visit": np.arange(len(day)) == 0,
        "no tumour at the first visit": (np.arange(len(day)) > 0) & (volume[:1] == 0),
        "no tumour left": volume == 0,
        "no tumour at the visit before": (volume > 0) & (np.r_[np.nan, volume][:-1] == 0),
        "on the day of the visit before": np.diff(day, prepend=np.nan) == 0,
        "not growing, no doubling time": growth <= ROUNDING,
    }
    return ["; ".join(reason for reason, holds in reasons.items() if holds[k]) for k in range(len(day))]
