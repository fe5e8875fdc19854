"""Is a model as good for some patients as for the others: scores by sex, age, site, chart and lesion size.

Out of fold, on development patients. A group too small to be scored (`scores.small_cell` of params.yaml) is counted
and never scored. A group is set against all other patients, both scored on the same resamples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack import few
from survpack.cohort import listed
from survpack.inference import MOST_PARTS, difference, folds_of, holm, interval, resamples
from survpack.metrics import Sample, brier, concordance, survival_at, valid_times
from survpack.metrics.groups import observed_over_expected
from survpack.numbers import interval_text, known
from survpack.strata import strata
from survpack.study import Study

METRICS = {"harrell_c": "Harrell's C", "brier": "Brier", "observed_expected": "Observed / expected"}
COLUMNS = ["variable", "group", "model", "patients", "events", "metric", "estimate", "low", "high",
           "difference", "difference_low", "difference_high", "p", "p_adjusted", "scored"]  # fmt: skip
ALL, TOO_FEW = "all patients", "too few to score"


def by_subgroup(study: Study, prognoses: dict) -> pd.DataFrame:
    """Harrell's C, Brier score and observed over expected deaths at the horizon, by group of patients.

    Pairs of patients are compared within folds. Censoring weights are those of the development patients. A group
    may score otherwise because the model is, or because its patients are: alike patients are harder to rank, and a
    Brier score is highest where half die. Observed over expected has no such excuse.

    Parameters
    ----------
    study : Study
    prognoses : dict of model to Prognosis
        Their out-of-fold rows are scored.

    Returns
    -------
    DataFrame
        `variable, group, model, patients, events, metric, estimate, low, high`; `difference, difference_low,
        difference_high`: the group's score less that of all other patients; `p` (`inference.difference`),
        and `p_adjusted` over the groups and metrics of one model (Holm); `scored`, False for a group too small. The
        first group is `all patients`. NaN where a score is not defined.
    """
    groups = strata(study)
    outcome, rules = study.cohort.outcome, study.params.scores
    rows = []
    for model, prognosis in prognoses.items():
        sample = Sample.of(prognosis.of("cv"), outcome)
        if not len(sample.patients):
            continue
        score = _scorer(sample, outcome[outcome["patient_id"].isin(study.development)], study.horizon_days)
        counts = _counts(len(sample.patients), rules, folds_of(sample.prognosis))
        everyone = score(np.ones(len(sample.patients), bool), counts["sample"])
        told = {"confidence": rules.confidence, "inflation": rules.inflation.at(everyone["harrell_c"])}
        event = outcome.set_index("patient_id").loc[sample.patients, "event"].to_numpy(bool)
        for variable, group, inside in _listed(groups.loc[sample.patients]):
            counted = {"variable": variable, "group": group, "model": model, "patients": inside.sum(),
                       "events": (inside & event).sum()}  # fmt: skip
            apart = few.enough(event[~inside], rules.small_cell)  # from all other patients
            scored = few.enough(event[inside], rules.small_cell)
            rows += _scored(counted, inside, score, counts, told, apart) if scored else [
                {**counted, "metric": metric, "scored": False} for metric in METRICS
            ]  # fmt: skip
    return _adjusted(pd.DataFrame(rows, columns=COLUMNS))


def text(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """One model's scores as the report prints them, a row a group; `*` where a difference from all others is shown."""
    from survpack.figures import in_words, tidy

    rows, before = [], ""
    for (variable, group), scores in table[table["model"] == model].groupby(["variable", "group"], sort=False):
        one = scores.iloc[0]
        row = {"Variable": "" if variable in (ALL, before) else tidy(variable), "Group": in_words(group),
               "Patients": one["patients"], "Events": one["events"]}  # fmt: skip
        for score in scores.to_dict("records"):
            row[METRICS[score["metric"]]] = _said(score) + (" *" if shown(score) else "")
            if score["metric"] == "harrell_c":
                row["C less the others'"] = interval_text(_difference(score), 2, without=" (no interval)") or "–"
        rows.append(row)
        before = variable
    return pd.DataFrame(rows)


def reading(table: pd.DataFrame, model: str, metric: str = "harrell_c") -> str:
    """What the table says of one model, in a sentence or two: the differences shown, and the groups not scored."""
    from survpack.figures import in_words, tidy

    own = table[(table["model"] == model) & (table["metric"] == metric) & (table["variable"] != ALL)]
    own = [{**one, "name": f"{tidy(one['variable'])}: {in_words(one['group'])}"} for one in own.to_dict("records")]
    compared = sum(known(one["difference"]) for one in own)
    told = [f"{one['name']} {interval_text(_difference(one))}" for one in own if shown(one)]
    short = [f"{one['name']} ({_of(one, 'patient')}, {_of(one, 'event')})" for one in own if not one["scored"]]
    said = f"{METRICS[metric]} cannot be compared between groups of patients."
    if compared:
        which = listed(told, len(told)) if told else "none of them"
        said = f"{METRICS[metric]} in {compared} groups, each against all other patients: a difference is shown for {which}."
    return said + (f" Too few to score: {listed(short)}." if short else "")


def shown(row) -> bool:
    """Is the difference from all others shown: its interval excludes 0, and Holm's adjusted p is below 0.05."""
    low, high = row["difference_low"], row["difference_high"]
    return bool((low > 0 or high < 0) and row["p_adjusted"] < 0.05)


def _scorer(sample: Sample, train_outcome, horizon):
    """From rows and counts of patients, shape (..., patients), to the scores of those rows."""
    alive = survival_at(sample.prognosis, [horizon])
    reached = len(valid_times([horizon], sample.time_days, train_outcome, sample.event)) > 0

    def score(inside, counts) -> dict:
        at = np.flatnonzero(inside[sample.patient])
        rows = np.asarray(counts, float)[..., sample.patient[at]]
        time, event, groups = sample.time_days[at], sample.event[at], sample.groups[at]
        told = (rows @ (time >= horizon) > 0) | (rows @ (~event & (time < horizon)) == 0)  # else all were lost before
        squared = brier(time, event, alive[at], [horizon], train_outcome, counts=rows)[..., 0]
        return {
            "harrell_c": concordance(time, event, sample.risk[at], groups=groups, counts=rows),
            "brier": np.where(told & reached, squared, np.nan),
            "observed_expected": observed_over_expected(time, event, 1 - alive[at, 0], horizon, counts=rows),
        }

    return score


def _counts(patients: int, rules, strata) -> dict:
    """How often each patient counts: in the sample, in its resamples, and with each (or each of many parts) left out."""
    parts = np.arange(min(patients, MOST_PARTS))[:, None]
    return {
        "sample": np.ones(patients),
        "drawn": resamples(patients, repeats=rules.bootstrap, seed=rules.seed, strata=strata),
        "left_out": (np.arange(patients) % MOST_PARTS != parts).astype(float),
    }


def _scored(counted: dict, inside, score, counts: dict, told: dict, apart: bool) -> list[dict]:
    """A row a metric of one group: its scores, and if `apart` their difference from those of all others."""
    own = {name: score(inside, some) for name, some in counts.items()}
    others = {name: score(~inside, some) for name, some in counts.items()} if apart else {}
    rows = []
    for metric in METRICS:
        parts = [own[name][metric] for name in counts]
        row = {
            **counted,
            "metric": metric,
            "scored": True,
            **interval(own["sample"][metric], own["drawn"][metric], left_out=own["left_out"][metric], **told),
        }
        if apart and known(row["low"]):
            estimate, drawn, _ = (part - others[name][metric] for name, part in zip(counts, parts, strict=True))
            found = difference(estimate, drawn, **told)
            row |= {"difference": found["estimate"], "difference_low": found["low"], "difference_high": found["high"]}
            row["p"] = found["p"]
        rows.append(row)
    return rows


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """`p_adjusted`: Holm over all that is told of one model; two groups of one variable are one comparison."""
    numbers = ["estimate", "low", "high", "difference", "difference_low", "difference_high", "p", "p_adjusted"]
    table = table.astype(dict.fromkeys(numbers, float) | {"patients": int, "events": int, "scored": bool})
    twofold = table.groupby("variable")["group"].nunique() == 2
    for _, rows in table[table["p"].notna()].groupby("model", sort=False):
        # two groups are set against each other: one comparison, named for the variable alone
        names = [
            (one, "" if twofold[one] else group, metric)
            for one, group, metric in zip(rows["variable"], rows["group"], rows["metric"], strict=True)
        ]
        adjusted = holm(dict(zip(names, rows["p"], strict=True)))
        table.loc[rows.index, "p_adjusted"] = [adjusted[name] for name in names]
    return table


def _listed(groups: pd.DataFrame):
    """`variable, group, inside` of every group, all patients first."""
    yield ALL, ALL, np.ones(len(groups), bool)
    for variable in groups:
        for group in groups[variable].cat.categories:
            inside = (groups[variable] == group).to_numpy()
            if inside.any():
                yield variable, group, inside


def _of(row: dict, what: str) -> str:
    number = row[f"{what}s"]
    return f"{number} {what}{'s' * (number != 1)}"


def _said(score: dict) -> str:
    if not score["scored"]:
        return TOO_FEW
    return interval_text(score, 2, without=" (no interval)") or "not defined"


def _difference(row) -> dict:
    return {"estimate": row["difference"], "low": row["difference_low"], "high": row["difference_high"]}
