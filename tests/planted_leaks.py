"""A small clean cohort, and each leak planted into it alone: what the gate must find, and of whom."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from survpack.biomarkers import NOTES, Biomarkers
from survpack.cohort import Cohort
from survpack.params import load
from survpack.preprocess import CropSet
from survpack.prognosis import time_grid
from survpack.splits import make_splits

PATIENTS, SIDE = 80, 32
CHOICE = SimpleNamespace(permutations=3, level=0.99, seed=53)
MODALITIES = ["t1c", "t2f"]
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age at baseline"},
    "marker": {"kind": "numeric", "unit": "ng/mL"},
    "sex": {"kind": "categorical", "levels": ["female", "male"]},
    "grade": {"kind": "ordered", "levels": ["low", "middle", "high"]},
}
FIRST_ORDER = ["rad_tumour_t1c_stat_mean", "rad_tumour_t1c_ih_mean"]
TEXTURE = ["rad_tumour_t1c_cm_joint_max", "rad_tumour_t1c_rlm_sre", "rad_tumour_t1c_ngl_lde"]
LEAKS: dict[str, tuple] = {}  # name to (what plants it, the check that must fail, what it must name)


def clean(seed: int = 0) -> dict:
    """What `gate.check` takes, of patients whose hazard rises with log volume and age, and nothing wrong with them."""
    rng = np.random.default_rng(seed)
    ids = [f"P{number:03d}" for number in range(PATIENTS)]
    age, volume = rng.normal(60, 10, PATIENTS).round(), rng.normal(1, 1, PATIENTS)
    death = rng.exponential(500 * np.exp(-0.7 * (volume - 1) - 0.03 * (age - 60))) + 5
    end = rng.uniform(100, 2500, PATIENTS)
    people = pd.DataFrame({
        "patient_id": ids, "site": rng.choice(["north", "south"], PATIENTS),
        "time_days": np.minimum(death, end).round(1), "event": death <= end,
        "age": age, "marker": rng.normal(5, 1, PATIENTS),
        "sex": rng.choice(["female", "male"], PATIENTS), "grade": rng.choice(["low", "middle", "high"], PATIENTS),
    })  # fmt: skip
    people.loc[rng.choice(PATIENTS, 8, replace=False), "marker"] = np.nan
    index = pd.Index(ids, name="patient_id")
    features = pd.DataFrame({"tumour_ml": np.exp(volume), "surface_mm": rng.exponential(5, PATIENTS),
                             "sphericity": rng.uniform(0.3, 0.9, PATIENTS)}, index)  # fmt: skip
    radiomic = {name: rng.normal(size=PATIENTS) + 0.5 * volume for name in FIRST_ORDER + TEXTURE}
    controls = [
        pd.DataFrame({name: rng.normal(size=PATIENTS) + 0.5 * volume for name in radiomic}, index) for _ in "sn"
    ]
    features = features.join(pd.DataFrame(radiomic, index))
    measured = Biomarkers(features, *controls, pd.DataFrame(), pd.DataFrame(columns=NOTES))
    images = gaussian_filter(rng.normal(size=(PATIENTS, 2, *[SIDE] * 3)), (0, 0, 1, 1, 1)).astype(np.float16)
    masks = np.zeros((PATIENTS, 1, *[SIDE] * 3), np.float16)
    masks[:, :, 12:20, 12:20, 12:20] = 1
    rows = [(one, "s0", 0, modality, f"{one}.nii", "") for one in ids for modality in MODALITIES]
    scans = pd.DataFrame(rows, columns=["patient_id", "session", "day", "modality", "path", "mask_path"])
    visits = pd.DataFrame([(one, f"v{k}", 90 * k, rng.normal(20, 5)) for one in ids for k in (0, 1)],
                          columns=["patient_id", "session", "day", "diameter"])  # fmt: skip
    return {
        "cohort": Cohort("toy", people, scans, DICTIONARY, {1: "enhancing"}, visits=visits),
        "splits": make_splits(people, folds=4, test_fraction=0.2, seed=1),
        "measured": measured,
        "crops": CropSet(ids, images, masks, MODALITIES, ["enhancing"], 2.0),
        "choice": CHOICE,
        "grid": lambda cohort: time_grid(load().curves, [365]),
    }


def leak(check: str, *named: str):
    """Register what plants a leak, by the function's name; it changes the parts in place and may return more names."""

    def registered(plant):
        LEAKS[plant.__name__] = (plant, check, named)
        return plant

    return registered


def _people(parts, **columns) -> None:
    parts["cohort"] = replace(parts["cohort"], participants=parts["cohort"].participants.assign(**columns))


def _covariate(parts, name: str, values, **entry) -> None:
    _people(parts, **{name: values})
    parts["cohort"] = replace(parts["cohort"], dictionary=DICTIONARY | {name: {"kind": "numeric"} | entry})


def _feature(parts, name: str, values, which: str = "features") -> None:
    table = getattr(parts["measured"], which).assign(**{name: np.asarray(values)})
    parts["measured"] = replace(parts["measured"], **{which: table})


def _image(parts, change) -> None:
    images = parts["crops"].images.copy()
    change(images)
    parts["crops"] = replace(parts["crops"], images=images)


def _outcome(parts) -> tuple[np.ndarray, np.ndarray]:
    people = parts["cohort"].participants
    return people["time_days"].to_numpy(), people["event"].to_numpy()


# --- one patient in two places


@leak("one side a patient")
def patient_in_two_folds(parts):
    first = parts["splits"].query("fold == 0").iloc[[0]]
    parts["splits"] = pd.concat([parts["splits"], first.assign(fold=1)], ignore_index=True)
    return first["patient_id"].tolist()


@leak("one side a patient")
def test_patient_in_development(parts):
    held = parts["splits"].query("split == 'test'").iloc[[2]]
    parts["splits"] = pd.concat([parts["splits"], held.assign(split="dev", fold=2)], ignore_index=True)
    return held["patient_id"].tolist()


@leak("one spelling a patient", "P003a", "P003b")
def two_lesions_as_patients(parts):
    names = {"P003": "P003a", "P004": "P003b"}
    parts["splits"] = parts["splits"].replace(names)
    parts["splits"].loc[parts["splits"]["patient_id"].isin(names.values()), ["split", "fold"]] = "dev", 0
    parts["splits"].loc[parts["splits"]["patient_id"].eq("P003b"), "fold"] = 1
    _people(parts, patient_id=parts["cohort"].participants["patient_id"].replace(names))


@leak("one row a patient", "P010", "P020")
def chart_under_two_ids(parts):
    people = parts["cohort"].participants.copy()
    people.iloc[20, 1:] = people.iloc[10, 1:]
    parts["cohort"] = replace(parts["cohort"], participants=people)


@leak("one row a patient", "P011", "P031")
def lesion_under_two_ids(parts):
    features = parts["measured"].features.copy()
    features.iloc[31, :3] = features.iloc[11, :3]
    parts["measured"] = replace(parts["measured"], features=features)


# --- one scan in two places


@leak("one scan a patient", "P005", "P050")
def scan_under_two_ids(parts):
    _image(parts, lambda images: images.__setitem__(50, images[5]))


@leak("no near copy of a scan", "P006", "P060")
def scan_flipped_rescaled_noisy(parts):
    noise = np.random.default_rng(1).normal(0, 0.01, (2, *[SIDE] * 3))
    _image(parts, lambda images: images.__setitem__(60, np.flip(images[6], 1) * 1.7 + 3 + noise))


@leak("no near copy of a scan", "P007", "P070")
def scan_shifted(parts):
    _image(parts, lambda images: images.__setitem__(70, np.roll(images[7], (2, -1, 3), (1, 2, 3))))


# --- later than baseline


@leak("images at baseline", "P012", "P040")
def follow_up_scan_as_baseline(parts):
    images = parts["cohort"].images.copy()
    images.loc[images["patient_id"].isin(["P012", "P040"]), "day"] = 140
    parts["cohort"] = replace(parts["cohort"], images=images)


@leak("no predictor from a later visit", "diameter_mm")
def measured_at_a_later_visit(parts):
    visits = parts["cohort"].visits
    _feature(parts, "diameter_mm", visits.loc[visits["day"] > 0, "diameter"])


@leak("no predictor from a later visit", "scans_read")
def number_of_visits(parts):
    time, _ = _outcome(parts)
    count = np.clip(time // 200, 1, 6).astype(int)
    rows = [(one, f"s{k}", 90 * k, 1.0) for one, many in zip(parts["crops"].patient_ids, count, strict=True)
            for k in range(many)]  # fmt: skip
    visits = pd.DataFrame(rows, columns=["patient_id", "session", "day", "diameter"])
    images = parts["cohort"].images.assign(session="s0")
    parts["cohort"] = replace(parts["cohort"], visits=visits, images=images)
    _covariate(parts, "scans_read", count)


@leak("names known at baseline", "recurrence_status")
def named_after_an_outcome(parts):
    _covariate(parts, "recurrence_status", np.random.default_rng(2).integers(0, 2, PATIENTS))


@leak("names known at baseline", "stay")
def described_as_later(parts):
    _covariate(
        parts, "stay", np.random.default_rng(2).normal(9, 2, PATIENTS), description="Days in hospital after surgery"
    )


# --- too near to the outcome


@leak("no chart column near the outcome", "score")
def chart_made_from_the_time(parts):
    time, _ = _outcome(parts)
    _covariate(parts, "score", -np.log(time) + np.random.default_rng(3).normal(0, 0.25, PATIENTS))


@leak("no biomarker near the outcome", "rad_tumour_t1c_cm_contrast")
def biomarker_made_from_the_time(parts):
    time, _ = _outcome(parts)
    _feature(parts, "rad_tumour_t1c_cm_contrast", np.log(time) + np.random.default_rng(3).normal(0, 0.25, PATIENTS))


@leak("nothing missing by outcome", "missing marker")
def missing_for_the_dead(parts):
    _, event = _outcome(parts)
    missing = event ^ (np.arange(PATIENTS) % 20 == 0)  # but for one in twenty
    _people(parts, marker=np.where(missing, np.nan, 5 + np.arange(PATIENTS) % 7))


@leak("nothing missing by outcome", "missing marker")
def missing_for_those_who_died_early(parts):
    time, _ = _outcome(parts)
    _people(parts, marker=np.where(time < 300, np.nan, 5 + np.arange(PATIENTS) % 7))


@leak("no order or site by outcome", "row of the table")
def table_sorted_by_time(parts):
    people = parts["cohort"].participants.sort_values("time_days", ignore_index=True)
    parts["cohort"] = replace(parts["cohort"], participants=people)


@leak("no order or site by outcome", "site")
def site_of_the_dead(parts):
    _, event = _outcome(parts)
    _people(parts, site=np.where(event, "hospice", "clinic"))


@leak("no outcome in the scans", "t1c, voxel")
def outcome_in_a_voxel(parts):
    time, _ = _outcome(parts)
    _image(parts, lambda images: images.__setitem__((slice(None), 0, 3, 4, 5), np.log(time)))


@leak("no outcome in the scans", "t2f, most")
def outcome_as_the_brightest_voxel_anywhere(parts):
    time, _ = _outcome(parts)
    place = np.random.default_rng(4).integers(0, SIDE, (PATIENTS, 3))

    def mark(images):
        images[np.arange(PATIENTS), 1, *place.T] = 3 + np.log(time)

    _image(parts, mark)


# --- curves that know how those end of whom they speak


def days_of_events(time, event, size: int = 40) -> np.ndarray:
    """The days of curves as they once were: quantiles of all days of events, ended by the last death of all."""
    return np.unique(np.quantile(np.asarray(time)[event], np.linspace(0, 1, size)))


@leak("no curve by one's own outcome")
def curves_on_the_days_of_all_events(parts):
    held = parts["splits"].query("split == 'test'")["patient_id"]

    def grid(cohort):
        people = cohort.participants[~cohort.participants["patient_id"].isin(held)]
        return days_of_events(people["time_days"], people["event"])

    parts["grid"] = grid
    people = parts["cohort"].participants[lambda table: ~table["patient_id"].isin(held) & table["event"]]
    return people.loc[people["time_days"].isin(grid(parts["cohort"])), "patient_id"].tolist()


@leak("no curve by one's own outcome", "fold -1, which is held out")
def curves_on_days_that_the_test_set_made(parts):
    held = parts["splits"].query("split == 'test'")["patient_id"]

    def grid(cohort):
        people = cohort.participants
        return np.linspace(0.03, 3, 40) * people.loc[people["patient_id"].isin(held), "time_days"].median()

    parts["grid"] = grid


# --- controls that are none


@leak("shuffled voxels", "texture of shuffled voxels")
def control_that_knows_the_outcome(parts):
    time, _ = _outcome(parts)
    _feature(parts, TEXTURE[0], -np.log(time) + np.random.default_rng(5).normal(0, 0.5, PATIENTS), "shuffled")
