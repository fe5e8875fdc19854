"""Brain metastases on MRI: a synthetic cohort of several sites whose hazard is known.

Each patient has an ellipsoid, skull-stripped brain with one to six lesions: an enhancing rim with a planted
irregularity, a necrotic core where the lesion is large, and a halo of oedema. The hazard has four
parts: the chart, the enhancing volume and the ratio of oedema to tumour as measured on the mask, and the
unevenness of the rim, which only the contrast-enhanced image shows. Nothing here is drawn from patients;
sizes and effects are of the order that the literature on brain metastases reports.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from survpack.adapters import bids
from survpack.errors import BadInput
from survpack.paths import written_whole
from survpack.phantom import stamp

TITLE = "Brain metastases, phantom"
DEFAULTS = {"patients": 148, "sites": 3, "spacing_mm": 2.0, "seed": 2025}
LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
NECROSIS, OEDEMA, ENHANCING = LABELS
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
PRIMARIES = {"lung": 0.45, "breast": 0.20, "melanoma": 0.13, "kidney": 0.07, "gi": 0.06, "other": 0.09}
TREATMENTS = ["radiosurgery", "surgery_and_radiosurgery", "whole_brain"]
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

# The hazard: S(t) = exp(-(t / SCALE_DAYS)^SHAPE exp(linear predictor)).
SHAPE, SCALE_DAYS = 1.2, 560.0
COEFFICIENTS = {  # of the columns that `terms` makes
    "age": 0.25,
    "karnofsky": 0.40,
    "extracranial_disease": 0.60,
    "breast": -0.50,
    "melanoma": 0.20,
    "kidney": -0.15,
    "gi": 0.45,
    "volume": 0.65,
    "oedema": 1.05,
    "rim": 1.00,
}
ACCRUAL_DAYS, STUDY_DAYS, DROPOUT_DAYS = 1100, 2000, 7000  # administrative and random censoring

EXTENT_MM = np.array([160.0, 192.0, 160.0])
BRAIN_MM = np.array([66.0, 82.0, 64.0])  # semi-axes
OUTSIDE, CSF, GREY, WHITE = range(4)
INTENSITY = {  # of outside, CSF, grey, white; then necrosis, oedema, enhancing
    "t1n": ([0, 40, 115, 150], [70, 95, 110]),
    "t1c": ([0, 40, 120, 155], [65, 98, 235]),
    "t2w": ([0, 250, 135, 100], [205, 190, 150]),
    "t2f": ([0, 30, 125, 100], [85, 215, 160]),
}


def generate(folder: Path, truth_path: Path, *, patients: int, sites: int, spacing_mm: float, seed: int, n_jobs=-1):
    """Write the cohort as a BIDS folder, and its truth beside it; each whole or not at all.

    Parameters
    ----------
    folder, truth_path : Path
    patients, sites : int
    spacing_mm : float
        Of the isotropic voxels; 2 mm makes images of 80 x 96 x 80.
    seed : int
        Same seed, same bytes, whatever `n_jobs` is.
    n_jobs : int
        Processes; -1 is one a core.

    Raises
    ------
    BadInput
        For a size that makes no cohort.
    """
    whole = all(isinstance(number, int) for number in (patients, sites, seed)) and seed >= 0
    if not (whole and 1 <= sites <= patients and isinstance(spacing_mm, int | float) and 1 <= spacing_mm <= 8):
        raise BadInput(
            f"params.yaml: a phantom of {patients} patients, {sites} sites, {spacing_mm} mm and seed {seed} cannot be "
            "made; give whole numbers, no more sites than patients, and a spacing_mm from 1 to 8."
        )
    chart_seed, site_seed, outcome_seed, *own = np.random.SeedSequence(seed).spawn(patients + 3)
    chart = charts(np.random.default_rng(chart_seed), patients, sites)
    looks = scanners(np.random.default_rng(site_seed), sites)
    with written_whole(folder) as part:
        part.mkdir()
        tasks = (
            delayed(_patient)(part, row.patient_id, row.lesion_count, looks[row.site], spacing_mm, own[k])
            for k, row in enumerate(chart.itertuples())
        )
        measured = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
        bar = tqdm(measured, total=patients, desc="phantom mets: patients", mininterval=2, disable=patients < 20)
        biomarkers = pd.DataFrame(list(bar))
        participants, truth = _followed(np.random.default_rng(outcome_seed), chart, biomarkers)
        choices = {"patients": patients, "sites": sites, "spacing_mm": spacing_mm, "seed": seed}
        bids.write_tables(part, participants, DICTIONARY, LABELS, stamp(__name__, __file__, choices))
        with written_whole(truth_path) as truth_part:
            truth.to_parquet(truth_part)


def charts(rng: np.random.Generator, patients: int, sites: int) -> pd.DataFrame:
    """`patient_id`, `site` and the covariates of `DICTIONARY`, nothing missing; shape (patients, 9)."""
    shares = np.linspace(1.5, 0.5, sites)
    site = np.searchsorted(np.cumsum(shares) / shares.sum(), (np.arange(patients) + 0.5) / patients)
    lesions = rng.choice(np.arange(1, 7), patients, p=[0.38, 0.22, 0.16, 0.11, 0.08, 0.05])
    many = lesions + rng.normal(0, 1.5, patients)
    return pd.DataFrame({
        "patient_id": [f"sub-{k + 1:03d}" for k in range(patients)],
        "site": [f"site-{k + 1}" for k in rng.permutation(site)],
        "age": rng.normal(61, 11, patients).clip(25, 90).round(),
        "sex": rng.choice(["female", "male"], patients),
        "karnofsky": rng.choice(np.arange(50.0, 101, 10), patients, p=[0.04, 0.08, 0.17, 0.26, 0.30, 0.15]),
        "primary": rng.choice(list(PRIMARIES), patients, p=list(PRIMARIES.values())),
        "extracranial_disease": rng.choice(["absent", "present"], patients, p=[0.42, 0.58]),
        "lesion_count": lesions,
        "treatment": np.select([many > 4, many < 1.5], [TREATMENTS[2], TREATMENTS[1]], TREATMENTS[0]),
    })  # fmt: skip


def with_missing(rng: np.random.Generator, chart: pd.DataFrame) -> pd.DataFrame:
    """The chart with 4 % of `karnofsky` and 3 % of `extracranial_disease` missing at random."""
    gaps = {"karnofsky": 0.04, "extracranial_disease": 0.03}
    return chart.assign(**{name: chart[name].mask(rng.random(len(chart)) < share) for name, share in gaps.items()})


def terms(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of the hazard, one a coefficient, centred and scaled by constants.

    Parameters
    ----------
    table : DataFrame
        `age`, `karnofsky`, `extracranial_disease`, `primary`; and as measured `enhancing_ml`, `oedema_ratio`,
        `rim_variation`.
    """
    primaries = {name: (table["primary"] == name).astype(float) for name in ("breast", "melanoma", "kidney", "gi")}
    return pd.DataFrame({
        "age": (table["age"] - 61) / 10,
        "karnofsky": (80 - table["karnofsky"]) / 10,
        "extracranial_disease": (table["extracranial_disease"] == "present").astype(float),
        **primaries,
        "volume": np.log(table["enhancing_ml"] / 6),
        "oedema": np.log(table["oedema_ratio"].clip(0.05) / 2) / 0.7,
        "rim": (table["rim_variation"] - 0.22) / 0.1,
    })  # fmt: skip


def hazard(table: pd.DataFrame) -> pd.DataFrame:
    """The truth of each patient: the linear predictor, its four parts, and the median it means.

    Parameters
    ----------
    table : DataFrame
        As for `terms`.

    Returns
    -------
    DataFrame
        `linear_predictor` and its parts `clinical`, `volume`, `oedema`, `rim`; `weibull_shape`,
        `weibull_scale_days`; `true_median_days`.
    """
    each = terms(table) * pd.Series(COEFFICIENTS)
    parts = each[["volume", "oedema", "rim"]]
    parts.insert(0, "clinical", each.drop(columns=parts.columns).sum(axis=1))
    total = parts.sum(axis=1)
    return parts.assign(
        linear_predictor=total,
        weibull_shape=SHAPE,
        weibull_scale_days=SCALE_DAYS,
        true_median_days=SCALE_DAYS * (np.log(2) / np.exp(total)) ** (1 / SHAPE),
    )


def simulate(rng: np.random.Generator, linear_predictor: pd.Series) -> pd.DataFrame:
    """`time_days` (whole days, 1 or more) and `event`, drawn from the hazard and the censoring.

    Death by inverting the Weibull survival curve (Bender 2005, Stat Med 24:1713); censoring by
    accrual over three years to a closing date, and by random drop-out.
    """
    patients = len(linear_predictor)
    death = SCALE_DAYS * (rng.exponential(size=patients) / np.exp(linear_predictor)) ** (1 / SHAPE)
    closing = STUDY_DAYS - rng.uniform(0, ACCRUAL_DAYS, patients)
    last_seen = np.minimum(closing, rng.exponential(DROPOUT_DAYS, patients))
    time = np.ceil(np.minimum(death, last_seen)).clip(1)
    return pd.DataFrame({"time_days": time, "event": (death <= last_seen).to_numpy()})


def scanners(rng: np.random.Generator, sites: int) -> dict[str, dict]:
    """How each site's images look: gain of each sequence, noise (grey values), smoothing (mm)."""
    return {
        f"site-{k + 1}": {
            "gain": rng.uniform(0.75, 1.25, len(SEQUENCES)),
            "noise": rng.uniform(2.5, 6.0),
            "smoothing_mm": rng.uniform(0.7, 1.4),
        }
        for k in range(sites)
    }


def anatomy(rng: np.random.Generator, spacing_mm: float) -> np.ndarray:
    """Tissue of each voxel: outside, CSF, grey or white matter; uint8."""
    x, y, z = coordinates(spacing_mm)
    a, b, c = BRAIN_MM * rng.uniform(0.95, 1.04, 3)
    shape = (len(x), y.shape[1], z.shape[2])
    folds = noise(rng, shape, 3 / spacing_mm)
    depth = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + 0.015 * noise(rng, shape, 14 / spacing_mm)
    tissue = np.where(depth < 1, GREY, OUTSIDE).astype(np.uint8)
    tissue[depth + 0.06 * folds < 0.84] = WHITE
    side = np.abs(x)
    tissue[((side - 24) / 9) ** 2 + ((y + 2) / 17) ** 2 + (z / 11) ** 2 < 1] = GREY  # deep nuclei
    tissue[((side - 9) / 6) ** 2 + ((y + 6) / 26) ** 2 + ((z - 10) / 8) ** 2 < 1] = CSF  # ventricles
    tissue[(depth < 1) & (depth > 0.84) & (folds > 1.2)] = CSF  # sulci
    tissue[(depth < 1) & (side < 1.5) & (depth > 0.6) & (z > 0)] = CSF  # between the hemispheres
    return tissue


def lesions(
    rng: np.random.Generator, tissue: np.ndarray, count: int, irregularity: float, spacing_mm: float
) -> np.ndarray:
    """A mask of `count` lesions in the brain, numbered as `LABELS`; uint8, the shape of `tissue`.

    Parameters
    ----------
    irregularity : float
        0 makes smooth lesions, 1 ragged ones.
    """
    mask = np.zeros_like(tissue)
    swelling = rng.lognormal(np.log(0.42), 0.42)  # width of the halo over the radius of the lesion
    taken: list[tuple[np.ndarray, float]] = []
    for _ in range(count):
        radius = (3 / (4 * np.pi) * 1000 * rng.lognormal(np.log(3.0), 0.95)) ** (1 / 3)
        centre = _free_place(rng, tissue, taken, radius, spacing_mm)
        taken.append((centre, radius))
        _add_lesion(rng, mask, tissue, centre, radius, irregularity, swelling, spacing_mm)
    return mask


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
    enhancement = rim[mask == ENHANCING]
    return {
        "enhancing_ml": voxels[ENHANCING] * spacing_mm**3 / 1000,
        "oedema_ratio": voxels[OEDEMA] / (voxels[ENHANCING] + voxels[NECROSIS]),
        "rim_variation": float(enhancement.std() / enhancement.mean()),
    }


def rim_texture(rng: np.random.Generator, shape: tuple, irregularity: float, spacing_mm: float) -> np.ndarray:
    """Enhancement relative to its mean: blotches of about 4 mm, the stronger the more irregular."""
    return (1 + (0.06 + 0.34 * irregularity) * noise(rng, shape, 2.2 / spacing_mm)).clip(0.15, 1.9)


def images(rng: np.random.Generator, tissue, mask, rim, scanner: dict, spacing_mm: float) -> dict[str, np.ndarray]:
    """One int16 image a sequence, as that site's scanner shows it; 0 outside the brain."""
    bias = np.exp(0.06 * noise(rng, tissue.shape, 30 / spacing_mm))
    scans = {}
    for sequence, gain in zip(SEQUENCES, scanner["gain"], strict=True):
        healthy, lesion = INTENSITY[sequence]
        clean = np.take(np.asarray(healthy, dtype=np.float32), tissue)
        clean = np.where(mask > 0, np.take(np.asarray([0, *lesion], dtype=np.float32), mask), clean)
        if sequence == "t1c":
            clean[mask == ENHANCING] *= rim[mask == ENHANCING]
        seen = gaussian_filter(clean, scanner["smoothing_mm"] / spacing_mm) * bias
        seen += scanner["noise"] * rng.standard_normal(tissue.shape, dtype=np.float32)
        scans[sequence] = np.where(tissue > 0, (gain * seen).clip(1), 0).round().astype(np.int16)
    return scans


def coordinates(spacing_mm: float) -> list[np.ndarray]:
    """Voxel centres in mm from the middle of the image: three arrays that broadcast to its shape."""
    axes = [(np.arange(n) - (n - 1) / 2) * spacing_mm for n in np.round(EXTENT_MM / spacing_mm).astype(int)]
    return [axis.astype(np.float32) for axis in np.meshgrid(*axes, indexing="ij", sparse=True)]


def noise(rng: np.random.Generator, shape: tuple, sigma_voxels: float) -> np.ndarray:
    """Smooth Gaussian noise of mean 0 and standard deviation 1; float32."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_voxels, mode="wrap", truncate=3)
    return (field - field.mean()) / field.std().clip(1e-6)


def _followed(rng: np.random.Generator, chart: pd.DataFrame, biomarkers: pd.DataFrame) -> tuple:
    """What is seen of the patients, gaps and all; and the truth."""
    truth = hazard(pd.concat([chart, biomarkers], axis=1))
    outcome = simulate(rng, truth["linear_predictor"])
    seen = with_missing(rng, chart)
    participants = pd.concat([seen[["patient_id", "site"]], outcome, seen[list(DICTIONARY)]], axis=1)
    return participants, pd.concat([chart[["patient_id"]], biomarkers, truth], axis=1)


def _patient(folder: Path, patient: str, count: int, scanner: dict, spacing_mm: float, seed) -> dict[str, float]:
    """Make and write one patient's images; the measured biomarkers."""
    rng = np.random.default_rng(seed)
    irregularity = rng.beta(1.3, 1.3)
    tissue = anatomy(rng, spacing_mm)
    mask = lesions(rng, tissue, count, irregularity, spacing_mm)
    rim = rim_texture(rng, mask.shape, irregularity, spacing_mm)
    volumes = {**images(rng, tissue, mask, rim, scanner, spacing_mm), "mask": mask}
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = [float(axis.min()) for axis in coordinates(spacing_mm)]
    for modality, volume in volumes.items():
        path = bids.image_path(folder, patient, modality)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume, affine), path)  # nibabel compresses at level 1, with no date inside
    return measure(mask, rim, spacing_mm)


def _free_place(rng, tissue, taken, radius: float, spacing_mm: float) -> np.ndarray:
    """A voxel of white matter as far from the other lesions as 40 draws find."""
    candidates = np.argwhere(tissue == WHITE)
    draws = candidates[rng.integers(len(candidates), size=40)]
    gaps = [min((np.linalg.norm(d - c) * spacing_mm - r - radius for c, r in taken), default=np.inf) for d in draws]
    clear = [place for place, gap in zip(draws, gaps, strict=True) if gap > 6]
    return clear[0] if clear else draws[int(np.argmax(gaps))]


def _add_lesion(rng, mask, tissue, centre, radius, irregularity, swelling, spacing_mm) -> None:
    """Draw one lesion into `mask`, inside the brain; tumour goes over oedema, never the reverse."""
    reach = int(np.ceil(radius * (1 + 2.2 * swelling) * 1.5 / spacing_mm)) + 1
    box = tuple(slice(max(c - reach, 0), c + reach + 1) for c in centre)
    axes = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, mask.shape, strict=True))]
    distance = spacing_mm * np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
    edge = 1 + (0.03 + 0.17 * irregularity) * noise(rng, distance.shape, 0.45 * radius / spacing_mm)
    halo = 1 + swelling * (1 + 0.45 * noise(rng, distance.shape, 0.9 * radius / spacing_mm)).clip(0.1)
    depth = distance / radius / edge
    inside, part = tissue[box] > OUTSIDE, mask[box]
    part[inside & (tissue[box] != CSF) & (depth < halo) & (part == 0)] = OEDEMA
    part[inside & (depth < 1)] = ENHANCING
    if radius > 8:
        core = rng.uniform(0.5, 0.75)
        part[inside & (depth < core) & (part == ENHANCING)] = NECROSIS
    mask[tuple(centre)] = mask[tuple(centre)] if radius > 8 else ENHANCING
