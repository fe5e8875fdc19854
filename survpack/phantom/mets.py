"""Brain metastases on MRI: a synthetic cohort of several sites whose hazard is known.

Each patient's brain is the MNI152 template bent into a head of its own (`anatomy`), with one to ten
metastases at the grey-white junction: an enhancing rim of uneven thickness, a necrotic core where the lesion
is large, oedema that follows the white matter. Four sequences are seen through the scanner of the patient's
site. The hazard has four parts: the chart; the enhancing volume and the ratio of oedema to tumour as
measured on the mask; and the unevenness of the enhancement, which only the contrast-enhanced image shows.
No patient is in it. Counts and sizes follow published series; effects are of the order that the literature
on brain metastases reports; grey values are tuned to look like one public scan (BraTS-MET-00110, in the
example data of AURORA, Apache-2.0).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import binary_propagation, gaussian_filter

from survpack.adapters import bids
from survpack.paths import written_whole
from survpack.phantom import anatomy, stamp
from survpack.phantom.shared import (
    FollowUp,
    Hazard,
    Weibull,
    followed,
    one_by_one,
    require_possible,
    rician,
    smooth_noise,
    write_volume,
)

TITLE = "Brain metastases, phantom"
PARTS = ("clinical", "volume", "oedema", "rim")
DEFAULTS = {
    "patients": 148,
    "sites": 3,
    "spacing_mm": 2.0,
    "seed": 2025,
    "survival_noise": 1.0,
    "strength": dict.fromkeys(PARTS, 1.0),
    "site_hazard": 0.0,
}
LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
NECROSIS, OEDEMA, ENHANCING = LABELS
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
# Share; then of women, of metastases outside the brain, and years by which patients are older than the mean.
PRIMARIES = {
    "lung": (0.47, 0.45, 0.52, 1),
    "breast": (0.18, 0.99, 0.66, -5),
    "melanoma": (0.13, 0.38, 0.62, -2),
    "kidney": (0.07, 0.30, 0.68, 2),
    "gi": (0.06, 0.42, 0.66, 3),
    "other": (0.09, 0.50, 0.55, 1),
}
TREATMENTS = ["radiosurgery", "surgery_and_radiosurgery", "whole_brain"]
# One: 41 %, two to four: 41 %, five to ten: 18 %, between JLGK0901 (455, 531 and 208 of 1194; Yamamoto 2014,
# Lancet Oncol 15:387) and a single centre (78, 67 and 31 of 176; Radiat Oncol 2022, 10.1186/s13014-022-02185-1).
COUNTS = (0.41, 0.19, 0.13, 0.09, 0.06, 0.045, 0.03, 0.02, 0.015, 0.01)
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at the scan"},
    "sex": {"kind": "categorical", "levels": ["female", "male"], "description": "Sex"},
    "karnofsky": {"kind": "numeric", "unit": "points", "description": "Karnofsky performance status, 50 to 100"},
    "primary": {"kind": "categorical", "levels": list(PRIMARIES), "description": "Primary tumour"},
    "extracranial_disease": {
        "kind": "categorical",
        "levels": ["absent", "present"],
        "description": "Metastases outside the brain",
    },
    "lesion_count": {"kind": "numeric", "unit": "count", "description": "Brain metastases"},
    "treatment": {"kind": "categorical", "levels": TREATMENTS, "description": "Treatment planned at the scan"},
}

COEFFICIENTS = {  # log hazard ratios of the columns that `terms` makes
    "age": 0.22,
    "karnofsky": 0.38,
    "extracranial_disease": 0.55,
    "lesion_count": 0.25,
    "breast": -0.50,
    "melanoma_or_gi": 0.35,
    "volume": 0.75,
    "oedema": 0.90,
    "rim": 0.90,
}
HAZARD = Hazard(
    survival=Weibull(shape=1.2, scale_days=430.0),
    follow_up=FollowUp(accrual_days=1100, study_days=2200, dropout_days=8000),
    coefficients=COEFFICIENTS,
    parts={"clinical": [name for name in COEFFICIENTS if name not in PARTS]} | {name: [name] for name in PARTS[1:]},
)

INDEX_ML, OTHERS_ML = (4.0, 1.15), (0.35, 1.1)  # median and log standard deviation: the largest lesion, the others
# Grey value of CSF, grey and white matter; of necrosis, oedema, enhancing tumour.
INTENSITY = {
    "t1n": ([370, 480, 520], [400, 465, 455]),
    "t1c": ([130, 268, 315], [140, 262, 640]),
    "t2w": ([2050, 705, 440], [1800, 900, 640]),
    "t2f": ([165, 395, 352], [340, 590, 420]),
}
# A scanner draws each of these from the range, for each sequence: brightness, contrast (an exponent), noise (share
# of white matter), and blur (mm, as a standard deviation) in the slice and between slices.
SCANNER = {
    "gain": (0.7, 1.4),
    "contrast": (0.9, 1.12),
    "noise": (0.01, 0.035),
    "blur": (0.5, 0.9),
    "slice": (0.6, 1.6),
}


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
    """Write the cohort as a BIDS folder, and its truth (parquet, and JSON of that name) beside it, each whole.

    Parameters
    ----------
    folder, truth_path : Path
    patients, sites : int
    spacing_mm : float
        Of the isotropic voxels; 2 mm makes images of 80 x 98 x 84.
    seed : int
        Same seed, same bytes, whatever `n_jobs` is.
    survival_noise : float
        Spread of log survival time around its expectation: 1 is the Weibull of `HAZARD`, less makes survival
        easier to predict (at 0 it would follow from the covariates alone), more makes it harder; the expected
        log time stays. It divides the coefficients and the shape.
    strength : dict
        Factor on each of `PARTS`; 1 where not given.
    site_hazard : float
        Log hazard of the last site minus that of the first; the sites between are spread evenly.
    n_jobs : int
        Processes; -1 is one a core.

    Raises
    ------
    BadInput
        For choices that make no cohort.
    """
    choices = {"patients": patients, "sites": sites, "spacing_mm": spacing_mm, "seed": seed,
               "survival_noise": survival_noise, "strength": dict.fromkeys(PARTS, 1.0) | (strength or {}),
               "site_hazard": site_hazard}  # fmt: skip
    require_possible("mets", choices, PARTS, (1, 8))
    chart, looks, own, rng = drawn(patients, sites, seed)
    with written_whole(folder) as part:
        part.mkdir()
        tasks = (
            (part, row.patient_id, row.lesion_count, looks[row.site], spacing_mm, own[row.patient_id])
            for row in chart.itertuples()
        )
        biomarkers = one_by_one(_patient, tasks, patients, "phantom mets: patients", n_jobs)
        truth, facts = hazard(chart.join(biomarkers), survival_noise, choices["strength"], site_hazard)
        outcome, seen = followed(rng, truth["linear_predictor"], facts), with_missing(rng, chart)
        participants = pd.concat([seen[["patient_id", "site"]], outcome, seen[list(DICTIONARY)]], axis=1)
        bids.write_tables(part, participants, DICTIONARY, LABELS, stamp(__name__, choices))
        with written_whole(truth_path) as truth_part, written_whole(truth_path.with_suffix(".json")) as facts_part:
            pd.concat([chart[["patient_id"]], biomarkers, truth], axis=1).to_parquet(truth_part)
            facts_part.write_text(json.dumps({**facts, "choices": choices}, indent=2) + "\n")


def drawn(patients: int, sites: int, seed: int) -> tuple[pd.DataFrame, dict, dict, np.random.Generator]:
    """What the seed decides before any image: `charts`, `scanners`, each patient's own seed, the draws of the outcome."""
    chart_seed, site_seed, outcome_seed, *own = np.random.SeedSequence(seed).spawn(patients + 3)
    chart = charts(np.random.default_rng(chart_seed), patients, sites)
    looks = scanners(np.random.default_rng(site_seed), sites)
    return chart, looks, dict(zip(chart["patient_id"], own, strict=True)), np.random.default_rng(outcome_seed)


def charts(rng: np.random.Generator, patients: int, sites: int) -> pd.DataFrame:
    """`patient_id`, `site` and the covariates of `DICTIONARY`, nothing missing; shape (patients, 9).

    Sex, age and disease elsewhere go with the primary; Karnofsky falls with age and disease elsewhere;
    treatment follows from lesion count and Karnofsky.
    """
    shares = np.linspace(1.5, 0.5, sites)
    site = np.searchsorted(np.cumsum(shares) / shares.sum(), (np.arange(patients) + 0.5) / patients)
    share, women, elsewhere, older = np.array(list(PRIMARIES.values())).T
    primary = rng.choice(len(PRIMARIES), patients, p=share)
    age = (rng.normal(61, 10.5, patients) + older[primary]).clip(25, 90).round()
    extracranial = rng.random(patients) < elsewhere[primary]
    count = 1 + np.searchsorted(np.cumsum(COUNTS)[:-1], rng.random(patients) ** np.where(extracranial, 0.85, 1.2))
    fitness = rng.normal(85, 12, patients) - 0.25 * (age - 61) - 4 * extracranial
    plan = count + rng.normal(0, 1.5, patients) + 2.0 * (fitness < 70)
    return pd.DataFrame({
        "patient_id": [f"sub-{k + 1:03d}" for k in range(patients)],
        "site": [f"site-{k + 1}" for k in rng.permutation(site)],
        "age": age,
        "sex": np.where(rng.random(patients) < women[primary], "female", "male"),
        "karnofsky": (10 * np.round(fitness / 10)).clip(50, 100),
        "primary": np.array(list(PRIMARIES))[primary],
        "extracranial_disease": np.where(extracranial, "present", "absent"),
        "lesion_count": count,
        "treatment": np.select([plan > 5, plan < 1.2], [TREATMENTS[2], TREATMENTS[1]], TREATMENTS[0]),
    })  # fmt: skip


def with_missing(rng: np.random.Generator, chart: pd.DataFrame) -> pd.DataFrame:
    """The chart with gaps: about 5 % of `karnofsky`, twice as often in the first site, 3 % of extracranial disease."""
    first = chart["site"] == chart["site"].min()
    gaps = {"karnofsky": np.where(first, 0.06, 0.03), "extracranial_disease": 0.03}
    return chart.assign(**{name: chart[name].mask(rng.random(len(chart)) < share) for name, share in gaps.items()})


def terms(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of the hazard, one a coefficient, centred and scaled by constants.

    Parameters
    ----------
    table : DataFrame
        `age`, `karnofsky`, `extracranial_disease`, `lesion_count`, `primary`; and as measured `enhancing_ml`,
        `oedema_ratio`, `rim_variation`.
    """
    return pd.DataFrame({
        "age": (table["age"] - 61) / 10,
        "karnofsky": (80 - table["karnofsky"]) / 10,
        "extracranial_disease": (table["extracranial_disease"] == "present") - 0.58,
        "lesion_count": np.log(table["lesion_count"] / 2),
        "breast": (table["primary"] == "breast").astype(float),
        "melanoma_or_gi": table["primary"].isin(["melanoma", "gi"]).astype(float),
        "volume": np.log(table["enhancing_ml"] / 4),
        "oedema": np.log(table["oedema_ratio"].clip(0.1) / 2) / 0.7,
        "rim": (table["rim_variation"] - 0.25) / 0.1,
    })  # fmt: skip


def hazard(
    table: pd.DataFrame, survival_noise: float = 1.0, strength: dict[str, float] | None = None, site_hazard: float = 0.0
) -> tuple[pd.DataFrame, dict]:
    """The truth of each patient, and the coefficients as used.

    Parameters
    ----------
    table : DataFrame
        As for `terms`, and `site`.
    survival_noise, strength, site_hazard
        As for `generate`.

    Returns
    -------
    DataFrame
        `term_<name>` for each coefficient; `linear_predictor` and its parts (`PARTS` and `site`);
        `weibull_shape`, `weibull_scale_days`, `true_median_days`.
    dict
        `coefficients`, `weibull_shape`, `weibull_scale_days`, `follow_up`.
    """
    columns, several = terms(table), table["site"].nunique() > 1
    if several:
        rank = table["site"].str.rpartition("-")[2].astype(float)
        columns["site"] = (rank - 1) / (rank.max() - 1) - 0.5
    strength = dict.fromkeys(PARTS, 1.0) | (strength or {})
    facts = HAZARD.facts(survival_noise, strength, site_hazard if several else None)
    return HAZARD.truth(columns, facts), facts


def scanners(rng: np.random.Generator, sites: int) -> dict[str, dict]:
    """How each site's images look: for each of `SCANNER`, a value a sequence."""
    return {
        f"site-{k + 1}": {name: rng.uniform(*span, len(SEQUENCES)) for name, span in SCANNER.items()}
        for k in range(sites)
    }


def body(seed, count: int, spacing_mm: float) -> tuple[np.random.Generator, anatomy.Brain, np.ndarray, np.ndarray]:
    """One patient as no scanner has yet seen them: the draws that `images` goes on with, brain, mask, enhancement."""
    rng = np.random.default_rng(seed)
    variation = rng.uniform(0.08, 0.42)
    brain = anatomy.brain(rng, spacing_mm)
    mask = lesions(rng, brain, count)
    return rng, brain, mask, enhancement(rng, mask, variation, spacing_mm)


def write(folder: Path, patient: str, volumes: dict[str, np.ndarray], affine: np.ndarray) -> None:
    """One patient's images and `mask` into a BIDS folder."""
    for modality, volume in volumes.items():
        write_volume(bids.image_path(folder, patient, modality), volume, affine)


def lesions(rng: np.random.Generator, brain: anatomy.Brain, count: int) -> np.ndarray:
    """A mask of `count` lesions in the brain, numbered as `LABELS`; uint8, the shape of the brain.

    The median diameter is 1.2 cm over all lesions, as among 601 metastases of 67 patients (Furutani 2019,
    J Radiat Res 60:134), the largest of a patient about 2 cm. Every lesion has an enhancing voxel.
    """
    mask = np.zeros(brain.grey.shape, dtype=np.uint8)
    swelling = rng.lognormal(np.log(0.75), 0.45)  # width of the oedema over the radius of the lesion
    sizes = np.r_[_sizes(rng, INDEX_ML, 1), _sizes(rng, OTHERS_ML, count - 1)]
    taken: list[tuple[np.ndarray, float]] = []
    for radius in -np.sort(-sizes):
        centre = _free_place(rng, brain, mask, taken, radius)
        taken.append((centre, radius))
        _add_lesion(rng, mask, brain, centre, radius, swelling)
    return mask


def enhancement(rng: np.random.Generator, mask: np.ndarray, variation: float, spacing_mm: float) -> np.ndarray:
    """Uptake of contrast relative to its mean: blotches of about 5 mm; 1 outside the enhancing tumour.

    Parameters
    ----------
    variation : float
        Coefficient of variation over the patient's enhancing voxels, so that it tells nothing of the volume.
    """
    blotches = smooth_noise(rng, mask.shape, 2.2 / spacing_mm)[mask == ENHANCING]
    blotches = (blotches - blotches.mean()) / blotches.std().clip(1e-6)
    rim = np.ones(mask.shape, dtype=np.float32)
    rim[mask == ENHANCING] = (1 + variation * blotches).clip(0.15)
    return rim


def measure(mask: np.ndarray, rim: np.ndarray, spacing_mm: float) -> dict[str, float]:
    """The biomarkers that the hazard uses, measured on the mask as made.

    Parameters
    ----------
    mask : ndarray of int
    rim : ndarray
        Contrast enhancement as planted, before the scanner; only its variation is used.

    Returns
    -------
    dict
        `enhancing_ml`; `oedema_ratio`, oedema over enhancing tumour and necrosis; `rim_variation`, the
        coefficient of variation of the enhancement.
    """
    voxels = np.bincount(mask.ravel(), minlength=4)
    uptake = rim[mask == ENHANCING].astype(float)
    return {
        "enhancing_ml": voxels[ENHANCING] * spacing_mm**3 / 1000,
        "oedema_ratio": voxels[OEDEMA] / (voxels[ENHANCING] + voxels[NECROSIS]),
        "rim_variation": float(uptake.std() / uptake.mean()),
    }


def images(rng: np.random.Generator, brain: anatomy.Brain, mask, rim, scanner: dict) -> dict[str, np.ndarray]:
    """One int16 image a sequence, as that site's scanner shows it; 0 outside the brain, 1 or more in it."""
    spacing, inside = brain.spacing_mm, brain.inside
    bias = np.exp(0.07 * _slow_noise(rng, mask.shape, spacing))
    texture = smooth_noise(rng, mask.shape, 1.5 / spacing)
    edge = gaussian_filter((mask == OEDEMA).astype(np.float32), 1.0 / spacing, truncate=3)
    wet = edge * (0.8 + 0.12 * texture) * (1 - brain.csf)  # how far oedema has replaced what was there
    scans = {}
    for k, sequence in enumerate(SEQUENCES):
        clean = _clean(rng, sequence, brain, mask, rim, wet, texture)
        look = {name: values[k] for name, values in scanner.items()}
        seen = gaussian_filter(clean, np.array([look["blur"], look["blur"], look["slice"]]) / spacing, truncate=2.5)
        white = INTENSITY[sequence][0][2]
        seen = look["gain"] * white * (seen * bias / white).clip(0) ** look["contrast"]
        seen = rician(rng, seen, look["noise"] * look["gain"] * white)
        scans[sequence] = np.where(inside, seen.clip(1, 32767), 0).round().astype(np.int16)
    return scans


def _clean(rng, sequence: str, brain: anatomy.Brain, mask, rim, wet, texture) -> np.ndarray:
    """The signal of one sequence before the scanner: tissues by their share, then what is ill."""
    healthy, (necrosis, oedema, enhancing) = INTENSITY[sequence]
    csf, grey, white = healthy * (1 + 0.02 * rng.standard_normal(3))
    heavier = 1.0 if sequence.startswith("t1") else -1.0  # what is bright on T1 is dark on T2
    clean = brain.csf * csf + (brain.grey * grey + brain.white * white) * (1 + heavier * brain.detail + 0.012 * texture)
    clean = clean + wet * (oedema - clean)
    clean = np.where(mask == NECROSIS, necrosis * (1 + 0.05 * texture), clean)
    brighter = rim if sequence == "t1c" else 1 + 0.04 * texture
    return np.where(mask == ENHANCING, enhancing * brighter, clean).astype(np.float32)


def _slow_noise(rng: np.random.Generator, shape: tuple, spacing_mm: float) -> np.ndarray:
    """Smooth noise over about 5 cm: the product of waves along each axis, cheaper than a wide filter."""
    total = np.zeros(shape, dtype=np.float32)
    for _ in range(4):
        waves = [
            np.cos(np.arange(n) * spacing_mm / 50 * rng.uniform(0.3, 1.2) + rng.uniform(0, 2 * np.pi)) for n in shape
        ]
        total += np.multiply.outer(np.multiply.outer(*waves[:2]), waves[2]).astype(np.float32)
    return total


def _patient(folder: Path, patient: str, count: int, scanner: dict, spacing_mm: float, seed) -> dict[str, float]:
    """Make and write one patient's images; the measured biomarkers."""
    rng, brain, mask, rim = body(seed, count, spacing_mm)
    write(folder, patient, {**images(rng, brain, mask, rim, scanner), "mask": mask}, brain.affine)
    return measure(mask, rim, spacing_mm)


def _sizes(rng: np.random.Generator, median_and_spread: tuple[float, float], lesions: int) -> np.ndarray:
    """Radii in mm of spheres whose volume (ml) is log-normal; none is above 4.6 cm across."""
    median, spread = median_and_spread
    return np.cbrt(3 / (4 * np.pi) * 1000 * rng.lognormal(np.log(median), spread, lesions)).clip(1, 23)


def _free_place(rng, brain: anatomy.Brain, mask, taken, radius: float) -> np.ndarray:
    """A voxel of the grey-white junction, clear of the other lesions by 4 mm or as far as 60 draws find."""
    junction = brain.grey * brain.white * (mask == 0)
    below = anatomy.cerebellum(brain.mni_mm)
    region = below if rng.random() < 0.13 else ~below
    weight = np.where(region, junction * anatomy.lesion_weight(brain.mni_mm), 0).ravel()
    ladder = np.cumsum(weight, dtype=float)
    draws = np.searchsorted(ladder, rng.random(60) * ladder[-1], side="right").clip(0, len(ladder) - 1)
    places = np.stack(np.unravel_index(draws, mask.shape), axis=1)
    gaps = [min((np.linalg.norm(p - c) * brain.spacing_mm - r - radius for c, r in taken), default=np.inf)
            for p in places]  # fmt: skip
    clear = [place for place, gap in zip(places, gaps, strict=True) if gap > 4]
    return clear[0] if clear else places[int(np.argmax(gaps))]


def _add_lesion(rng, mask, brain: anatomy.Brain, centre, radius, swelling) -> None:
    """Draw one lesion into `mask`; tumour goes over oedema, never the reverse, nor over another tumour."""
    spacing = brain.spacing_mm
    halo = 0.0 if rng.random() < (0.55 if radius < 4 else 0.04) else swelling * (radius + 1.5) * rng.uniform(0.7, 1.3)
    reach = int(np.ceil((1.35 * radius + 1.3 * halo) / spacing)) + 1
    box = tuple(slice(max(c - reach, 0), c + reach + 1) for c in centre)
    axes = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, mask.shape, strict=True))]
    distance = spacing * np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
    edge = 1 + rng.uniform(0.05, 0.16) * smooth_noise(rng, distance.shape, 0.5 * radius / spacing)
    beyond = distance - radius * edge  # mm outside the surface, negative within
    part, csf, white = mask[box], brain.csf[box], brain.white[box]
    x = brain.mni_mm[0]
    across = (x[box] * x[tuple(centre)] < 0) & (white < 0.6)  # the falx lets through what the callosum carries
    tissue = brain.inside[box] & (csf < 0.6) & ~across
    middle = distance == 0
    here = binary_propagation(middle, mask=middle | ((beyond < 0) & tissue & ((part == 0) | (part == OEDEMA))))
    part[here] = ENHANCING
    if radius > 6:
        rim = rng.uniform(0.18, 0.5) * radius * (1 + 0.4 * smooth_noise(rng, distance.shape, 0.6 * radius / spacing))
        core = here & (beyond < -rim.clip(0.6 * spacing))
        part[core if not core[here].all() else np.zeros_like(here)] = NECROSIS
    width = halo * (0.15 + 0.95 * white + 0.2 * smooth_noise(rng, distance.shape, 3 / spacing))
    wet = binary_propagation(here, mask=here | ((beyond < width) & tissue & (csf < 0.35)))  # no leap over a sulcus
    part[wet & (part == 0)] = OEDEMA
