"""What a bundle says of the patients it was trained on: aggregates, never a patient's own row or day.

The exact days of deaths are in a bundle all the same where its curve is Breslow's (`rebuilt.Curve`), without who died.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from survpack.deploy.columns import Columns
from survpack.params import per_cohort

GROUPS = ("low", "middle", "high")  # thirds of predicted risk
LEVELS = [1, *range(5, 100, 5), 99]  # percentiles that are kept
DIGITS = 9  # of an embedding: float32 has no more


def cohort(study, source=None) -> dict:
    """Where the patients come from, as the report says it.

    Parameters
    ----------
    study : Study
    source : adapters.Source, optional
        That of `study.name` where not given.
    """
    from survpack import adapters, tables

    facts = tables.facts(study, study.cohort, study.splits, source or adapters.source(study.name))
    same = {name: facts[name] for name in ("title", "source", "licence", "outcome")}
    return {
        "name": study.name, **same, "simulated": facts["phantom"], "patients": facts["n"], "events": facts["events"],
        "sites": len(facts["sites"]), "modalities": study.patients.modalities,
    }  # fmt: skip


def schema(model, train, labels: dict[int, str]) -> dict:
    """What a patient's chart, scans and masks must look like.

    Parameters
    ----------
    model : models.Deep
        Fitted to `train`.
    train : models.Patients
    labels : dict of int to str
        Number in a mask to its meaning.

    Returns
    -------
    dict
        `fusion` of the network; `chart` (column to kind, unit, description, levels, low, high, typical, missing_share), `modalities`,
        `labels`, `measured` (the lesion biomarkers seen), `measured_typical`, `measured_low`, `measured_high`. Low and
        high are the first and the 99th percentile, typical is the median, the middle or the commonest level: what
        stands for a missing value.
    """
    frame = model.frame(train)
    fills = Columns.learned(model.prepare).fills if model.prepare else {}
    columns = {name: _column(frame[name], train.dictionary.get(name, {"kind": "numeric"})) for name in frame}
    columns = {name: one | {"typical": fills.get(name, one["typical"])} for name, one in columns.items()}
    measured = [name for name in model.named if name in frame]
    chart = {name: one for name, one in columns.items() if name not in measured}
    lesions = {name: columns[name] for name in measured}
    return {
        "fusion": model.fusion,
        "chart": chart,
        "modalities": train.modalities,
        "labels": {str(number): meaning for number, meaning in labels.items()},
        "measured": measured,
        **{
            f"measured_{which}": {name: one[which] for name, one in lesions.items()}
            for which in ("typical", "low", "high")
        },
    }


def typical(told: dict, columns: list[str]) -> dict:
    """The typical patient's frame: column to value, of a bundle's `schema`."""
    known = {name: one["typical"] for name, one in told["chart"].items()} | told["measured_typical"]
    return {name: known[name] for name in columns}


def embedding(model, train) -> list:
    """The mean of what the networks keep of each image, shape (1, members, …).

    Of fusion "gated", a modality's mean is over the patients who have it, and it counts as there.
    """
    found = model.embed(train).astype(float)
    mean = found.mean(axis=0, keepdims=True)
    if model.fusion == "gated":
        there = found[..., -1:].sum(axis=0, keepdims=True)
        mean = np.divide(found.sum(axis=0, keepdims=True), there, out=np.zeros_like(mean), where=there > 0)
    return _rounded(mean)


def groups(prognosis, outcome: pd.DataFrame, horizon: float, confidence: float, coverage: float) -> dict:
    """Thirds of the development patients by predicted risk at the horizon, and what became of them.

    Parameters
    ----------
    prognosis : Prognosis
        Out of fold.
    outcome : DataFrame, indexed by patient_id
        `time_days`, `event`.
    horizon : float, days
    confidence : float
        Of the bands around the curves, and of the coverage counted.
    coverage : float
        Of the lower bounds.

    Returns
    -------
    dict
        `horizon_days`; `groups` (the two predicted risks that part low, middle and high); `curves` (each group that is not empty, to
        `patients`, and Kaplan–Meier's `times`, `survival`, `low`, `high` on the study's grid, as far as anyone is
        followed; how many died is not told, for it may be one or two); `percentiles` (`levels`, and the predicted risk at each);
        `bounds` (`coverage`; `days`, a lower bound a group, 0 where there is none; `why` there is none; `said`, what
        they promise).
    """
    from survpack import conformal

    by_patient = pd.Series(conformal.risk_at(prognosis, horizon), prognosis.table["patient_id"])
    risk = by_patient.groupby(level=0, sort=False).mean()  # of several rounds, where there are
    cuts = np.quantile(risk, conformal.THIRDS)
    member, known = conformal.third(risk, cuts), outcome.loc[risk.index]
    everyone = outcome.rename_axis("patient_id").reset_index()
    out_of_fold = conformal.lower_bounds(prognosis, everyone, coverage, horizon)
    seen = conformal.observed(out_of_fold, everyone, everyone, confidence)
    return {
        "horizon_days": float(horizon),
        "groups": cuts.tolist(),
        "curves": {
            name: _kaplan_meier(known[member == k], np.r_[0.0, prognosis.times], confidence)
            for k, name in enumerate(GROUPS)
            if (member == k).any()  # a model that says one risk of everyone makes one group
        },
        "percentiles": {"levels": LEVELS, "risk": np.percentile(risk, LEVELS).tolist()},
        "bounds": {
            "coverage": coverage,
            "days": dict(zip(GROUPS, conformal.of_thirds(known, member, coverage).tolist(), strict=True)),
            "why": conformal.unsaid(known, coverage),
            "said": conformal.words(coverage, seen),
        },
    }


def scores(study, model: str, prognosis) -> dict:
    """`{"cv": {metric: interval}}`, and "test" where these very predictions of the test set were read before."""
    from survpack import inference, metrics, readings

    outcome = study.cohort.outcome
    train, horizon = outcome[outcome["patient_id"].isin(study.development)], study.horizon_days
    known = json.loads(study.paths.metrics.read_text()) if study.paths.metrics.exists() else {}
    found = {split: known.get(split, {}).get(model) for split in ("cv", "test")}
    now = metrics.scores(prognosis.of("cv"), outcome, train, horizon, metrics=["harrell_c"])["harrell_c"]
    if not found["cv"] or abs(found["cv"]["harrell_c"]["estimate"] - now) > 1e-9:  # a file of other predictions
        participants = study.cohort.participants
        again = inference.evaluate(
            {model: prognosis.of("cv")}, participants, study.development, study.params.scores, study.name
        )
        return {"cv": again["cv"][model], "test": None}
    read = found["test"] and readings.was_read(study.name, prognosis, outcome)
    return {"cv": found["cv"], "test": found["test"] if read else None}


def explanation(study, model: str, method: str = "gradcam") -> dict:
    """`method`, `verdict` and `said`: what `reports/metrics/faithfulness-<cohort>.json` says of this model's maps."""
    file = study.paths.facts("faithfulness")
    known = json.loads(file.read_text())["methods"] if file.exists() else {}
    found = known.get(model, {}).get(method)
    if not found:
        return {"method": method, "verdict": "not tested", "said": "This explanation was not tested."}
    words = found["verdict"].replace("may not:", "may not be trusted:")
    return {"method": method, "verdict": found["verdict"], "said": f"Such maps {words}."}


def training(study, model: str, train) -> dict:
    """What the weights were learnt from."""
    from survpack.study import fit_digest

    return {
        "fit_digest": fit_digest(study, model),
        "patients": len(train.outcome),
        "events": int(train.outcome["event"].sum()),
        "seed": study.params.training.seed,
        "epochs": int(per_cohort(study.params.training.epochs, _encoder(study, model))),
        "profile": study.params.profile,
    }


def _encoder(study, model: str) -> str:
    from survpack.models import build

    return build(model, study.params).encoder.removesuffix("-2d")


def _column(column: pd.Series, told: dict) -> dict:
    kind, levels = told["kind"], told.get("levels")
    facts = {"kind": kind, "unit": told.get("unit", ""), "description": told.get("description", ""), "levels": levels}
    if kind == "numeric":
        values = column.to_numpy(dtype=float, na_value=np.nan)
        low, middle, high = np.nanpercentile(values, [1, 50, 99]) if np.isfinite(values).any() else [np.nan] * 3
        range_of = {"low": _finite(low), "high": _finite(high), "typical": _finite(middle)}
        missing = np.isnan(values)
    else:
        missing = ~column.isin(levels).to_numpy()
        range_of = {"low": None, "high": None, "typical": _typical_level(column[~missing], kind, levels)}
    return facts | range_of | {"missing_share": float(np.mean(missing))}


def _typical_level(column: pd.Series, kind: str, levels: list):
    """The middle one of ordered levels, the commonest of categories (of equals, the first), None where nobody has any."""
    if column.empty:
        return None
    place = np.array([levels.index(value) for value in column])
    return levels[int(np.median(place)) if kind == "ordered" else int(np.bincount(place).argmax())]


def _kaplan_meier(outcome: pd.DataFrame, grid: np.ndarray, confidence: float) -> dict:
    """On the study's grid, so that these steps are no patient's own day; as long as somebody is at risk."""
    from sksurv.nonparametric import kaplan_meier_estimator

    event, time = outcome["event"].to_numpy(bool), outcome["time_days"].to_numpy(float)
    days, left, band = kaplan_meier_estimator(event, time, conf_level=confidence, conf_type="log-log")
    times = grid[grid <= time.max(initial=0)]
    at = np.searchsorted(days, times, side="right")
    low, survival, high = (np.r_[1.0, one][at].tolist() for one in (band[0], left, band[1]))
    return {"patients": len(outcome), "times": times.tolist(), "survival": survival, "low": low, "high": high}


def _rounded(values: np.ndarray) -> list:
    flat = [float(f"{value:.{DIGITS}g}") for value in np.asarray(values, np.float32).ravel()]
    return np.reshape(np.array(flat), values.shape).tolist()


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
