"""Survival from follow-up visits, told at landmarks and scored there.

Visits happen only to the living: whoever has a fourth visit has lived to it (immortal time). So the clock starts at a
landmark. At landmark t only patients at risk then count (`time_days > t`), only visits on day t or before are looked
at, and survival counts from t. One model learns from the landmarks of all training patients stacked (van Houwelingen
2007, doi:10.1111/j.1467-9469.2006.00529.x); it is scored on patients who had no part in it.
"""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack import few, growth
from survpack.cohort import VISITS, listed
from survpack.errors import BadInput
from survpack.figures.longitudinal import model_name
from survpack.inference import bootstrap, family, shown
from survpack.metrics import concordance
from survpack.numbers import interval_text
from survpack.params import Scores, per_cohort
from survpack.study import TEST_FOLD, Study

PREDICTIONS = ["cohort", "model", "landmark_days", "fold", "split", "patient_id", "time_days", "event", "risk"]
BASELINE = "baseline-cox"  # what every model is held against
POOLED = "pooled"
DIFFERENCE = {"estimate": "difference", "low": "difference_low", "high": "difference_high", "p": "difference_p"}
ENDS = ("estimate", "low", "high")
SCORES = ["split", "model", "landmark_days", "patients", "events", "estimate", "low", "high", "difference",
          "difference_low", "difference_high", "difference_p"]  # fmt: skip
WORK = "follow-up"  # finished folds, until all are
CODE = ("longitudinal.py", "visit_models.py", "visit_networks.py", "visit_images.py", "encoders.py", "networks.py",
        "convolution.py", "objectives.py", "augmentation.py", "training.py", "nifti.py", "preprocess.py", "normalise.py", "grids.py", "growth.py",
        "models/columns.py")  # fmt: skip


class Stack(NamedTuple):
    """What is known at landmarks: one row a patient and landmark.

    Attributes
    ----------
    rows : DataFrame
        `patient_id`, `landmark_days`, `time_days` (from the landmark), `event`.
    known : list of ndarray of int
        Of each row, where its visits are in the table of visits, in time; never one after the landmark.
    """

    rows: pd.DataFrame
    known: list[np.ndarray]

    def of(self, patients) -> Stack:
        """The rows of some patients."""
        at = np.flatnonzero(self.rows["patient_id"].isin(patients))
        return Stack(self.rows.iloc[at].reset_index(drop=True), [self.known[k] for k in at])


def seen_again(study: Study) -> bool:
    """Whether anyone has more than one visit; reads no image."""
    from survpack.visit_images import seen_twice

    measured = study.cohort.visits
    return bool(measured["patient_id"].duplicated().any()) if len(measured) else seen_twice(study.cohort.images)


def visits_of(study: Study) -> pd.DataFrame:
    """What was measured at each visit.

    As the source tells it (`Cohort.visits`), else the sizes that the masks show (`growth.visits`).

    Returns
    -------
    DataFrame
        In time: `patient_id`, `session`, `day` (from baseline), then numbers, NaN where missing. Without visits of
        unknown day; no row where nobody was seen twice.
    """
    if not seen_again(study):
        return pd.DataFrame(columns=VISITS)
    table = study.cohort.visits if len(study.cohort.visits) else growth.visits(study.cohort)
    numeric = table.drop(columns=VISITS).select_dtypes("number").replace([np.inf, -np.inf], np.nan)
    table = table[VISITS].assign(day=pd.to_numeric(table["day"]).astype(float)).join(numeric)
    return table.dropna(subset="day").sort_values(["patient_id", "day", "session"], ignore_index=True)


def stacked(visits: pd.DataFrame, outcome: pd.DataFrame, landmarks) -> Stack:
    """Patients at risk and seen by then, at each landmark.

    Parameters
    ----------
    visits : DataFrame
        In time, its index counting from 0: `patient_id`, `day`.
    outcome : DataFrame, indexed by `patient_id`
        `time_days`, `event`.
    landmarks : sequence of float, days from baseline
    """
    parts, known = [], []
    for day in sorted(landmarks):
        at_risk = outcome[outcome["time_days"] > day]
        seen = visits[(visits["day"] <= day) & visits["patient_id"].isin(at_risk.index)]
        by_patient = seen.groupby("patient_id", sort=True).indices
        ids = list(by_patient)
        known += [seen.index.to_numpy()[by_patient[one]] for one in ids]
        rows = pd.DataFrame({"patient_id": ids, "landmark_days": float(day)}).astype({"patient_id": str})
        left = at_risk.loc[ids]
        parts.append(rows.assign(time_days=left["time_days"].to_numpy(float) - day, event=left["event"].to_numpy(bool)))
    return Stack(pd.concat(parts, ignore_index=True), known)


def landmark_predictions(study: Study) -> pd.DataFrame:
    """Every model's risk at every landmark, of patients it did not learn from.

    A finished fold is a file named for all it depends on, so a run that was killed goes on from there.

    Returns
    -------
    DataFrame
        `PREDICTIONS`: `time_days` is counted from the landmark, `split` is "cv" or "test"; no row where nobody was
        seen twice.

    Raises
    ------
    BadInput
        Where no training patient of a fold dies after a landmark.
    """
    if not seen_again(study):
        return pd.DataFrame(columns=PREDICTIONS)
    visits = visits_of(study)
    outcome = study.cohort.outcome.set_index("patient_id")
    landmarks = per_cohort(study.params.longitudinal.landmarks_days, study.name)
    stack, digest = stacked(visits, outcome, landmarks), _digest(study)
    scans, parts = _scans(study, visits), []
    for fold in [*sorted(set(study.splits["fold"]) - {TEST_FOLD}), TEST_FOLD]:
        path = study.paths.fits(WORK) / f"{fold}-{digest}.parquet"
        if path.exists():
            print(f"{study.name} {WORK}, fold {fold} was finished before", file=sys.stderr)
        else:
            study.save_table(path, _predict_fold(study, visits, stack, scans, fold))
        parts.append(pd.read_parquet(path))
    rmtree(study.paths.fits(WORK))
    return pd.concat(parts, ignore_index=True)[PREDICTIONS]


def _scans(study: Study, visits: pd.DataFrame):
    from survpack.visit_images import VisitScans

    return VisitScans.of(study, visits)


def _predict_fold(study: Study, visits: pd.DataFrame, stack: Stack, scans, fold: int) -> pd.DataFrame:
    from survpack.visit_models import METHODS, Known, build

    train_ids, held_ids = study.fold(fold)
    train, held = stack.of(train_ids), stack.of(held_ids)
    if held.rows.empty:
        return pd.DataFrame(columns=PREDICTIONS)
    _require_deaths(study, train, fold)
    label = f"{study.name} {WORK}, {'test' if fold == TEST_FOLD else f'fold {fold}'}"
    columns = {"": visits.drop(columns=VISITS)}
    if scans is not None:
        embedding = scans.embed(study, train_ids, label)
        columns |= {"-images": embedding, "-both": columns[""].join(embedding)}
    parts = []
    for source, values in columns.items():
        known = Known(visits["day"].to_numpy(float), values, study.cohort.covariates, study.cohort.dictionary)
        known.fit(train)
        seen, unseen = known.of(train), known.of(held)
        for method in METHODS if not source else ("baseline-cox", "delta-cox", "gru"):
            model = build(method, study.params).fit(seen, f"{label}, {method}{source}")
            parts.append(held.rows.assign(model=method + source, risk=model.predict(unseen)))
    split = "test" if fold == TEST_FOLD else "cv"
    return pd.concat(parts).assign(cohort=study.name, fold=fold, split=split)


def _require_deaths(study: Study, train: Stack, fold: int) -> None:
    events = train.rows.groupby("landmark_days")["event"].sum()
    landmarks = per_cohort(study.params.longitudinal.landmarks_days, study.name)
    without = [f"{day:g}" for day in landmarks if not events.get(float(day), 0)]
    if without:
        raise BadInput(
            f"{study.name}, fold {fold}: no training patient seen by day {listed(without)} dies after it, expected some "
            f"at each landmark; choose earlier days in longitudinal.landmarks_days of params.yaml (now {landmarks})."
        )


def _digest(study: Study) -> str:
    """Twelve hexadecimal digits of all that a fold depends on: data, choices and code."""
    from survpack.visit_images import stamps

    digest = hashlib.sha256()
    for path in sorted(study.paths.cohort.iterdir()):
        digest.update(path.read_bytes())
    digest.update("\n".join(stamps(study.cohort.images)).encode())
    for part in ("longitudinal", "training", "crops", "preprocess"):
        digest.update(getattr(study.params, part).model_dump_json().encode())
    for module in CODE:
        digest.update((Path(__file__).parent / module).read_bytes())
    return digest.hexdigest()[:12]


# --- scoring ------------------------------------------------------------------------------------------------------


def score(predictions: pd.DataFrame, choice: Scores, against: str = BASELINE, split: str = "cv") -> pd.DataFrame:
    """Harrell's C of every model, at each landmark and pooled over them, with intervals over patients.

    Only risks of one fold at one landmark are compared. A patient is resampled with all landmarks at once; the same
    resamples serve every model, so the differences are paired.

    Parameters
    ----------
    predictions : DataFrame
        As `landmark_predictions`.
    choice : Scores
        The `scores` of params.yaml.
    against : str
        The model that is subtracted in `difference`.
    split : {"cv", "test"}

    Returns
    -------
    DataFrame
        `SCORES`: one row a model and landmark, `landmark_days` a number or "pooled"; `patients` and `events` count
        patients once, pooled. Numbers that are not defined are NaN, and those of a landmark with too few to be scored.

    Raises
    ------
    BadInput
        If a model did not predict the same patients at the same landmarks as the others.
    """
    table = predictions[predictions["split"] == split]
    if table.empty:
        return pd.DataFrame(columns=SCORES)
    risks = _risks(table)
    if against not in risks:
        raise BadInput(f"follow-up: no predictions of model '{against}'; choose one of {listed(risks, 20)}.")
    rows = risks.index.to_frame(index=False)
    patients, who = np.unique(rows["patient_id"].to_numpy(str), return_inverse=True)
    concordances = partial(_concordances, risks, rows, who, against)
    plain = concordances(np.ones(len(patients)))
    reached = np.mean([plain[model, POOLED, False] for model in risks])
    found = bootstrap(concordances, len(patients), paired=lambda name: name[-1], **choice.resampling(reached))
    landmarks = [*sorted(rows["landmark_days"].unique()), POOLED]
    told = []
    for day in landmarks:
        here = (rows if day == POOLED else rows[rows["landmark_days"] == day]).drop_duplicates("patient_id")
        of = {"split": split, "landmark_days": day, "patients": len(here), "events": int(here["event"].sum())}
        large = few.enough(here["event"], choice.small_cell)
        for model in risks:
            own, ahead = (found[model, day, minus] if large else dict.fromkeys(DIFFERENCE) for minus in (False, True))
            told.append(
                {
                    **of,
                    "model": model,
                    **{end: own[end] for end in ENDS},
                    **{name: ahead[key] for key, name in DIFFERENCE.items()},
                }
            )
    order = {model: place for place, model in enumerate(risks)}
    return pd.DataFrame(told, columns=SCORES).sort_values("model", key=lambda column: column.map(order), kind="stable",
                                                          ignore_index=True)  # fmt: skip


def _risks(table: pd.DataFrame) -> pd.DataFrame:
    """A column a model, a row a patient and landmark."""
    keys = ["fold", "landmark_days", "patient_id", "time_days", "event"]
    risks = table.pivot(index=keys, columns="model", values="risk")[table["model"].unique()]
    if risks.isna().any(axis=None):
        model = risks.columns[risks.isna().any()][0]
        patient = risks.index[risks[model].isna()][0][2]
        raise BadInput(
            f"follow-up predictions of {model}: none for patient {patient}, whom another model predicted, expected the "
            "same patients of every model, or their scores cannot be compared; run notebook 07 again."
        )
    return risks


def _concordances(risks: pd.DataFrame, rows: pd.DataFrame, who: np.ndarray, against: str, counts) -> dict:
    """`(model, landmark, False)` to C, and `(model, landmark, True)` to its difference from `against`."""
    groups = rows.groupby(["fold", "landmark_days"]).ngroup().to_numpy()
    drawn, found = np.asarray(counts, float)[..., who], {}
    for day in [*rows["landmark_days"].unique(), POOLED]:
        at = np.flatnonzero(rows["landmark_days"] == day) if day != POOLED else np.arange(len(rows))
        time, event = rows["time_days"].to_numpy()[at], rows["event"].to_numpy()[at]
        for model in risks:
            risk = risks[model].to_numpy()[at]
            found[model, day, False] = concordance(time, event, risk, groups=groups[at], counts=drawn[..., at])
        for model in risks:
            found[model, day, True] = found[model, day, False] - found[against, day, False]
    return found


def facts(scores: pd.DataFrame) -> dict:
    """Scores as `reports/metrics/longitudinal-<cohort>.json` holds them.

    Returns
    -------
    dict
        `{model: {landmark or "pooled": {"harrell_c": interval, "minus_baseline": interval}}}`.
    """
    found: dict = {}
    for row in scores.to_dict("records"):
        day = row["landmark_days"] if row["landmark_days"] == POOLED else f"{row['landmark_days']:g}"
        found.setdefault(row["model"], {})[day] = {
            "harrell_c": {key: _defined(row[key]) for key in ENDS},
            "minus_baseline": {key: _defined(row[name]) for key, name in DIFFERENCE.items()},
        }
    return found


def reading(scores: pd.DataFrame, least) -> str:
    """Why there is nothing of later visits, or which landmarks are not scored; empty where all are.

    Parameters
    ----------
    scores : DataFrame
        As `score`.
    least : params.SmallCell
    """
    if scores.empty:
        return "Nobody was seen again after baseline, so there is nothing to say of later visits."
    rows = scores[scores["landmark_days"] != POOLED].drop_duplicates("landmark_days").to_dict("records")
    small = [row for row in rows if row["patients"] < least.patients or row["events"] < least.events]
    told = [f"{row['landmark_days']:g} ({few.not_scored(row['patients'], row['events'], least)})" for row in small]
    return f"Landmarks that are too late for these patients: day {listed(told, len(told))}." if told else ""


def _defined(value: float | None) -> float | None:
    return None if pd.isna(value) else float(value)


def scores_text(scores: pd.DataFrame, against: str = BASELINE, confidence: float = 0.95) -> pd.DataFrame:
    """`score` as the report prints it: a row a model, a column a landmark, and the difference pooled over them.

    The pooled differences are one family; `*` where one is shown.
    """
    rows, pooled = [], scores[scores["landmark_days"] == POOLED].set_index("model")
    ahead = family({
        model: {key: row[name] for key, name in DIFFERENCE.items()} for model, row in pooled.iterrows()
    })  # fmt: skip
    for model, own in scores.groupby("model", sort=False):
        told = {"Model": model_name(str(model))}
        for row in own.to_dict("records"):
            day = row["landmark_days"]
            told["All landmarks" if day == POOLED else f"Day {day:g}"] = interval_text(row, without=" (no interval)")
        star = " \\*" if shown(ahead[model], confidence) else ""
        told[f"minus {model_name(against)}"] = "" if model == against else interval_text(ahead[model]) + star
        rows.append(told)
    return pd.DataFrame(rows).fillna("–")
