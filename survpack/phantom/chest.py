"""Lung cancer on CT with follow-up scans: a synthetic cohort whose hazard is known and depends on growth.

Each patient has a thorax (`thorax.py`) with one lesion and one to four visits, six to twelve weeks apart, some of
them missed; the lesion grows or responds between them. The hazard has four parts: the chart, the baseline volume as
measured on the mask, growth, and what only the image shows (unevenness inside, spikes at the edge). Growth is drawn
independently of everything known at baseline, so a model over visits can beat any model of the baseline;
`linear_predictor_baseline` is the best of the latter.

Visits happen only while a patient is alive and followed. Their number therefore tells of survival (immortal time):
who has a fourth visit has lived half a year. An analysis that uses follow-up scans must start its clock at a landmark
and use only what was known by then, of those still at risk.

Nothing here is drawn from patients. Volumes are log-normal around 35 mL, of the order of the gross tumour volumes in
stage III that Koo 2014 split at 50 mL (Radiat Oncol 9:283). Doubling times are log-normal (Usuda 1994, Cancer 74:2239)
around 150 days, between the 98 of Henschke 2012 (Radiology 263:578) and the 207 of Jennings 2006
(doi 10.1148/radiol.2412051185); about a third of the lesions respond and shrink. Pack-years, in the chart, do nothing by themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from survpack.adapters import bids
from survpack.paths import written_whole
from survpack.phantom import stamp
from survpack.phantom.shared import FollowUp, Hazard, Weibull, followed, one_by_one, require_possible, write_volume
from survpack.phantom.thorax import FIELD_MM, Scanner, lesion, lesion_place, scan, thorax

TITLE = "Lung cancer on CT with follow-up, phantom"
DEFAULTS = {
    "patients": 148,
    "sites": 2,
    "spacing_mm": 2.5,
    "seed": 2026,
    "survival_noise": 1.0,
    "strength": {"clinical": 1.0, "volume": 1.0, "growth": 1.0, "texture": 1.0},
    "site_hazard": 0.0,
}
LABELS = {1: "tumour"}
HISTOLOGIES = {"adenocarcinoma": 0.45, "squamous_cell": 0.32, "large_cell": 0.15, "other": 0.08}
STAGES = ["II", "IIIA", "IIIB", "IV"]
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at the first scan"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "pack_years": {"kind": "numeric", "unit": "pack-years", "description": "Smoking before the first scan"},
    "ecog": {"kind": "ordered", "levels": ["0", "1", "2"], "description": "ECOG performance status"},
    "stage": {"kind": "ordered", "levels": STAGES, "description": "Clinical stage"},
    "histology": {"kind": "categorical", "levels": list(HISTOLOGIES), "description": "Histology"},
}
MISSING = {"pack_years": 0.08, "ecog": 0.05, "histology": 0.04}  # at random

COEFFICIENTS = {  # of the columns that `terms` makes
    "age": 0.20,
    "male": 0.20,
    "ecog": 0.40,
    "stage": 0.30,
    "squamous": 0.20,
    "volume": 0.55,
    "growth": 0.95,
    "heterogeneity": 0.45,
    "spiculation": 0.35,
}
HAZARD = Hazard(
    survival=Weibull(shape=1.3, scale_days=570.0),
    follow_up=FollowUp(accrual_days=720, study_days=1260, dropout_days=4000),
    coefficients=COEFFICIENTS,
    parts={
        "clinical": ["age", "male", "ecog", "stage", "squamous"],
        "volume": ["volume"],
        "growth": ["growth"],
        "texture": ["heterogeneity", "spiculation"],
    },
)
PLANTED = ["planted_ml", "growth_per_30_days", "heterogeneity_hu", "spiculation"]
MEASURED = ["volume_ml", "visits", "growth_measured"]  # on the masks as written
VISITS, GAP_DAYS, MISSED = 4, (42, 84), 0.15
SMALLEST_ML, LARGEST_ML = 0.25, 400.0


def generate(
    folder: Path,
    truth_path: Path,
    *,
    patients: int,
    sites: int,
    spacing_mm: float,
    seed: int,
    survival_noise: float = 1.0,
    strength: dict[str, float] | None = None,
    site_hazard: float = 0.0,
    n_jobs: int = -1,
) -> None:
    """Write the cohort as a BIDS folder and its truth (parquet, and JSON beside it); each whole or not at all.

    Parameters
    ----------
    folder, truth_path : Path
    patients, sites : int
        Sites have, in turn, a scanner with a sharp kernel and thin slices and one with a smooth kernel and thick.
    spacing_mm : float
        Of the voxels in the plane, and of thin slices; thick ones are twice that. 2.5 makes 140 x 102 x 72 or 36.
    seed : int
        Same seed, same bytes, whatever `n_jobs` is.
    survival_noise : float
        Spread of log survival time around its expectation, 1 as published cohorts have it; towards 0 time is certain.
    strength : dict
        Factor of each part of the hazard: clinical, volume, growth, texture; 0 takes it out.
    site_hazard : float
        Log hazard of the last site minus that of the first; sites between them evenly.
    n_jobs : int
        Processes; -1 is one a core.

    Raises
    ------
    BadInput
        For a choice that makes no cohort.
    """
    choices = {"patients": patients, "sites": sites, "spacing_mm": spacing_mm, "seed": seed,
               "survival_noise": survival_noise, "strength": DEFAULTS["strength"] | (strength or {}),
               "site_hazard": site_hazard}  # fmt: skip
    require_possible("chest", choices, HAZARD.parts, (1.5, 6))
    known = facts(choices)
    chart_seed, site_seed, gap_seed, *own = np.random.SeedSequence(seed).spawn(patients + 3)
    chart = charts(np.random.default_rng(chart_seed), patients, sites)
    looks = scanners(np.random.default_rng(site_seed), sites)
    with written_whole(folder) as part, written_whole(truth_path) as truth_part:
        part.mkdir()
        rows = chart.to_dict("records")
        tasks = ((part, row, looks[row["site"]], spacing_mm, known, own[k]) for k, row in enumerate(rows))
        seen = one_by_one(_patient, tasks, patients, "phantom chest: patients", n_jobs)
        participants = pd.concat([chart, seen], axis=1)[["patient_id", "site", "time_days", "event", *DICTIONARY]]
        participants = with_missing(np.random.default_rng(gap_seed), participants)
        bids.write_tables(part, participants, DICTIONARY, LABELS, stamp(__name__, choices))
        truth = hazard(pd.concat([chart, seen], axis=1), known)
        pd.concat([chart[["patient_id", *PLANTED]], seen[MEASURED], truth], axis=1).to_parquet(truth_part)
        with written_whole(Path(truth_path).with_suffix(".json")) as facts_part:
            facts_part.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def facts(choices: dict) -> dict:
    """The hazard as used with these choices, and the follow-up: what truth.json holds."""
    site_hazard = choices["site_hazard"] if choices["sites"] > 1 else None
    return {**HAZARD.facts(choices["survival_noise"], choices["strength"], site_hazard), "choices": choices}


def charts(rng: np.random.Generator, patients: int, sites: int) -> pd.DataFrame:
    """Covariates of `DICTIONARY`, nothing missing, and what is planted in each lesion.

    Returns
    -------
    DataFrame
        One row a patient: `patient_id`, `site`, `site_position` (-0.5 to 0.5), the covariates; `planted_ml`,
        `growth_per_30_days` (of log volume), `heterogeneity_hu` (5 to 45), `spiculation` (0 to 1).
    """
    site = rng.permutation(np.arange(patients) % sites)
    sex = rng.choice(["female", "male"], patients, p=[0.38, 0.62])
    age = rng.normal(67, 9, patients).clip(38, 90).round()
    histology = rng.choice(list(HISTOLOGIES), patients, p=list(HISTOLOGIES.values()))
    never = rng.random(patients) < np.where(histology == "adenocarcinoma", 0.18, 0.04)
    smoked = rng.lognormal(np.log(np.where(sex == "male", 42, 33)), 0.45, patients).clip(1, 150)
    stage = rng.choice(4, patients, p=[0.18, 0.34, 0.32, 0.16])
    frailty = 0.035 * (age - 67) + 0.25 * (stage - 1.5) + rng.normal(0, 1, patients)
    return pd.DataFrame({
        "patient_id": [f"sub-{k + 1:03d}" for k in range(patients)],
        "site": [f"site-{k + 1}" for k in site],
        "site_position": site / max(sites - 1, 1) - 0.5 * (sites > 1),
        "age": age,
        "sex": sex,
        "pack_years": np.where(never, 0, smoked).round(),
        "ecog": np.array(["0", "1", "2"])[np.digitize(frailty, [-0.3, 1.1])],
        "stage": np.array(STAGES)[stage],
        "histology": histology,
        "planted_ml": rng.lognormal(np.log(35) + 0.25 * (stage - 1.46), 0.8).clip(3, 150),
        "growth_per_30_days": growth(rng, patients),
        "heterogeneity_hu": 5 + 40 * rng.beta(1.4, 1.4, patients),
        "spiculation": rng.beta(1.2, 1.2, patients),
    })  # fmt: skip


def growth(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Change of log volume in 30 days: most lesions double in about 150 days, a third halve in about 110."""
    doubling = rng.lognormal(np.log(150), 0.6, patients)
    halving = rng.lognormal(np.log(110), 0.6, patients)
    responds = rng.random(patients) < 0.35
    return (30 * np.log(2) * np.where(responds, -1 / halving, 1 / doubling)).clip(-0.35, 0.28)


def with_missing(rng: np.random.Generator, chart: pd.DataFrame) -> pd.DataFrame:
    """The chart with some of `MISSING` gone, at random."""
    gaps = {name: chart[name].mask(rng.random(len(chart)) < share) for name, share in MISSING.items()}
    return chart.assign(**gaps)


def terms(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of the hazard, centred and scaled by constants.

    Parameters
    ----------
    table : DataFrame
        The columns of `charts`, and `volume_ml` as measured on the baseline mask.
    """
    return pd.DataFrame({
        "age": (table["age"] - 67) / 10,
        "male": (table["sex"] == "male").astype(float) - 0.62,
        "ecog": table["ecog"].astype(float) - 0.8,
        "stage": table["stage"].map({stage: code for code, stage in enumerate(STAGES)}).astype(float) - 1.46,
        "squamous": (table["histology"] == "squamous_cell").astype(float) - 0.32,
        "volume": np.log(table["volume_ml"] / 35),
        "growth": (table["growth_per_30_days"] - 0.03) / 0.17,
        "heterogeneity": (table["heterogeneity_hu"] - 25) / 10,
        "spiculation": (table["spiculation"] - 0.5) / 0.27,
        "site": table["site_position"],
    })  # fmt: skip


def hazard(table: pd.DataFrame, known: dict) -> pd.DataFrame:
    """The truth of each patient: S(t) = exp(-(t / scale)^shape exp(linear predictor)).

    Parameters
    ----------
    table : DataFrame
        As for `terms`.
    known : dict
        As `facts` gives it.

    Returns
    -------
    DataFrame
        `term_<name>` for each coefficient; the parts `clinical`, `volume`, `growth`, `texture`, `site`;
        `linear_predictor`, and `linear_predictor_baseline` without growth; `weibull_shape`,
        `weibull_scale_days`, `true_median_days`.
    """
    truth = HAZARD.truth(terms(table), known)
    return truth.assign(linear_predictor_baseline=truth["linear_predictor"] - truth["growth"])


def visit_days(rng: np.random.Generator, time_days: float) -> np.ndarray:
    """Days of the scans that took place: the first on day 0, none on or after `time_days`, some missed."""
    planned = np.r_[0, np.cumsum(rng.integers(GAP_DAYS[0], GAP_DAYS[1] + 1, VISITS - 1))]
    came = np.r_[True, rng.random(VISITS - 1) >= MISSED]
    return planned[came & (planned < time_days)]


def scanners(rng: np.random.Generator, sites: int) -> dict[str, Scanner]:
    """A scanner a site: sharp with thin slices, smooth with thick ones, and so on in turn, each a little its own."""
    looks = {}
    for k in range(sites):
        own = rng.uniform(0.9, 1.1, 4)
        kind = Scanner(1, 0.8, 0.6, 20, 0.0, 0, 150) if k % 2 == 0 else Scanner(2, 1.2, 0.0, 14, 1.5, 0, 125)
        looks[f"site-{k + 1}"] = Scanner(
            kind.slices, kind.blur_mm * own[0], kind.sharpening * own[1], kind.noise_hu * own[2], kind.grain_mm,
            rng.normal(0, 3), kind.contrast_hu * own[3],
        )  # fmt: skip
    return looks


def measured_growth(days, volumes_ml) -> float:
    """Slope of log volume over the visits by least squares, in 30 days; NaN for a single visit."""
    if len(days) < 2:
        return float("nan")
    centred = np.asarray(days, dtype=float) - np.mean(days)
    return float(30 * (centred * np.log(volumes_ml)).sum() / (centred**2).sum())


def _patient(folder: Path, row: dict, scanner: Scanner, spacing_mm: float, known: dict, seed) -> dict:
    """Make and write one patient's scans; what was measured on them, and the outcome."""
    drawn, lived, scanned = (np.random.default_rng(child) for child in seed.spawn(3))
    body = thorax(drawn, spacing_mm)
    radius = float(np.cbrt(3000 * row["planted_ml"] / (4 * np.pi)))
    place = lesion_place(drawn, body, radius, spacing_mm)
    tumour = lesion(drawn, body, place, radius, row["spiculation"], spacing_mm)

    def visit(number: int, volume_ml: float) -> float:
        volume_ml = np.clip(volume_ml, SMALLEST_ML, LARGEST_ML)
        image, mask = scan(scanned, body, tumour, volume_ml, row["heterogeneity_hu"], scanner, spacing_mm)
        return _write(folder, row["patient_id"], number, image, mask, spacing_mm * np.array([1, 1, scanner.slices]))

    volumes = [visit(1, row["planted_ml"])]
    truth = hazard(pd.DataFrame([{**row, "volume_ml": volumes[0]}]), known)
    outcome = followed(lived, truth["linear_predictor"], known).iloc[0].to_dict()
    days = visit_days(lived, outcome["time_days"])
    for number, day in enumerate(days[1:], start=2):
        drift = row["growth_per_30_days"] * day / 30 + lived.normal(0, 0.04)
        volumes.append(visit(number, row["planted_ml"] * np.exp(drift)))
    sessions = pd.DataFrame({"session_id": [f"ses-{k + 1}" for k in range(len(days))], "day": days})
    table = folder / row["patient_id"] / f"{row['patient_id']}_sessions.tsv"
    sessions.to_csv(table, sep="\t", index=False, lineterminator="\n")
    measured = {"volume_ml": volumes[0], "visits": len(days), "growth_measured": measured_growth(days, volumes)}
    return {**outcome, **measured}


def _write(folder: Path, patient: str, number: int, image, mask, voxel_mm: np.ndarray) -> float:
    """Write one visit; the volume of its mask in mL."""
    affine = np.diag([*voxel_mm.tolist(), 1.0])
    affine[:3, 3] = (voxel_mm - np.array(FIELD_MM)) / 2
    start = folder / patient / f"ses-{number}" / "anat" / f"{patient}_ses-{number}"
    write_volume(start.with_name(f"{start.name}_ct.nii.gz"), image, affine)
    write_volume(start.with_name(f"{start.name}_dseg.nii.gz"), mask, affine)
    return float(mask.sum() * voxel_mm.prod() / 1000)
