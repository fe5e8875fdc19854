"""Whether predictors were known at baseline: by their day, their name, and how near they come to the outcome."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from survpack.gate.closeness import TOO_FEW, closest
from survpack.gate.found import Found, judged, untested
from survpack.hindsight import named_later
from survpack.preprocess import BASELINE_DAYS, at_baseline
from survpack.radiomics import RADIOMIC

LATEST = 60  # days after baseline that a work-up may take, and still be called baseline; sts at most 36
PATTERN_AUC = 0.85  # of what no biology is behind: missing or not, the site, the order of rows; clean at most 0.69
ALIKE, MANY = 0.5, 10  # share of patients whose predictor is a later visit's, and patients it takes to say so
SAID = re.compile(
    r"(after|post)[- ](baseline|treatment|surgery|operation)|post-?operative|at (death|progression|relapse)"
)
EARLY = "what was known at baseline"
TAKE_OUT = "take it out of the predictors (it may still select patients)"


def checks(cohort, measured, crops, outcome: pd.DataFrame) -> list[Found]:
    """All of this module; `outcome` is of development patients."""
    chart, features = chart_numbers(cohort).reindex(outcome.index), measured.features.reindex(outcome.index)
    gaps = missing(cohort, measured, crops).reindex(outcome.index)
    return [
        images_at_baseline(cohort),
        no_later_visit(cohort, measured.features),
        names_at_baseline(cohort, measured.features),
        _near("no chart column near the outcome", chart, outcome),
        _near("no biomarker near the outcome", features, outcome),
        _near("nothing missing by outcome", gaps, outcome, PATTERN_AUC),
        _near("no order or site by outcome", places(cohort, outcome), outcome, PATTERN_AUC),
    ]  # fmt: skip


def images_at_baseline(cohort) -> Found:
    """The image used of each patient was taken by `LATEST` days after baseline, and before the end of follow-up.

    So baseline is a work-up, not a day, and what is found says how late the latest image is and may be.
    """
    name = "images at baseline"
    if cohort.images.empty:
        return untested(name, "nobody was imaged")
    used = at_baseline(cohort.images)
    end = cohort.participants.drop_duplicates("patient_id").set_index("patient_id")["time_days"]
    day = pd.to_numeric(used["day"], errors="coerce")
    late = used[(day > LATEST) | ((day > 0) & (day >= used["patient_id"].map(end)))]
    wrong = [f"{row.modality} of {row.patient_id} was taken on day {row.day:g}" for row in late.itertuples()]
    latest = (
        f"the latest on day {day.max():g}, of {LATEST} days that a work-up may take"
        if day.notna().any()
        else "on days not told"
    )
    return judged(
        name,
        wrong,
        late["patient_id"],
        f"{len(used)} images used, {latest}",
        f"images by day {LATEST}, within follow-up",
        "give the baseline scan, or exclude the patient",
    )


def no_later_visit(cohort, features: pd.DataFrame) -> Found:
    """No predictor is what a later visit measured, nor how many visits there were, nor the day of the last."""
    name = "no predictor from a later visit"
    predictors = chart_numbers(cohort).join(features.select_dtypes("number"), rsuffix=" (measured)")
    wrong = _followed(cohort, predictors) + _measured_later(cohort.visits, predictors)
    seen = "no visits" if cohort.visits.empty else f"{len(cohort.visits)} visits"
    return judged(name, wrong, (), f"{seen}, no predictor repeats what came later", EARLY, TAKE_OUT)


def names_at_baseline(cohort, features: pd.DataFrame) -> Found:
    """No name or description that speaks of what came later; `"known": "baseline"` in the dictionary overrules it."""
    wrong = []
    for name in [*cohort.dictionary, *(each for each in features if not each.startswith(RADIOMIC))]:
        entry = cohort.dictionary.get(name, {})
        known = str(entry.get("known", "")).casefold()
        if known not in ("", "baseline") or (not known and SAID.search(str(entry.get("description", "")).casefold())):
            wrong.append(f"`{name}` is described as known later ({entry.get('known') or entry['description']})")
        elif (like := named_later(name, entry)) and known != "baseline":
            wrong.append(f"`{name}` is named like {like}")
    fix = f'{TAKE_OUT}, or say `"known": "baseline"` in its entry of the dictionary'
    return judged("names known at baseline", wrong, (), "no name or description of what came later", EARLY, fix)


def chart_numbers(cohort) -> pd.DataFrame:
    """The chart as numbers, indexed by `patient_id`: levels by their rank, a column a category."""
    table = cohort.participants.drop_duplicates("patient_id").set_index("patient_id")
    columns = {}
    for name, entry in cohort.dictionary.items():
        if entry["kind"] == "categorical":
            columns |= {
                f"{name} = {level}": table[name].eq(level).where(table[name].notna()) for level in entry["levels"]
            }
        elif entry["kind"] == "ordered":
            columns[name] = table[name].map({level: k for k, level in enumerate(entry["levels"])})
        else:
            columns[name] = pd.to_numeric(table[name], errors="coerce")
    return pd.DataFrame(columns, index=table.index).astype(float)


def missing(cohort, measured, crops) -> pd.DataFrame:
    """What is missing of each patient: 0 or 1 a column, patterns that recur once, and how many columns."""
    chart = cohort.covariates[~cohort.covariates.index.duplicated()]
    gaps = chart.isna().add_prefix("missing ").join(measured.features.isna().add_prefix("missing "))
    if crops.modalities:
        lacking = ~crops.images.any(axis=(2, 3, 4))
        gaps = gaps.join(pd.DataFrame(lacking, crops.patient_ids, [f"missing {each}" for each in crops.modalities]))
    gaps = gaps.fillna(True).astype(float)
    varying = gaps.loc[:, gaps.max() > gaps.min()].T.drop_duplicates().T
    return varying.assign(**{"number of missing columns": gaps.sum(axis=1)})


def places(cohort, outcome: pd.DataFrame) -> pd.DataFrame:
    """The row in the table, the number in the id, each site, and what the other patients of a site had."""
    table = cohort.participants.drop_duplicates("patient_id").reset_index(drop=True)
    rows = pd.Series(table.index, table["patient_id"])
    number = table.set_index("patient_id").index.to_series().str.extract(r"(\d+)\D*$")[0]
    columns = pd.DataFrame({"row of the table": rows, "number in the id": pd.to_numeric(number)}).reindex(outcome.index)
    site = table.set_index("patient_id")["site"].astype(str).reindex(outcome.index)
    if site.nunique() > 1:
        columns = columns.join(pd.get_dummies(site, prefix="site", prefix_sep=" = ", dtype=float))
        columns["events at the site"] = _others(outcome["event"].astype(float), site)
    return columns.astype(float)


def _others(values: pd.Series, group: pd.Series) -> pd.Series:
    """Mean of the others in the group, turned at the mean of all: a group that says nothing must not rank its own."""
    sums, sizes = values.groupby(group).transform("sum"), values.groupby(group).transform("size")
    return ((sums - values) / (sizes - 1).replace(0, np.nan)).where(sizes >= MANY).round(1)


def _near(name: str, columns: pd.DataFrame, outcome: pd.DataFrame, *auc: float) -> Found:
    wrong, fine = closest(columns, outcome, *auc)
    if fine.endswith(TOO_FEW):
        return untested(name, fine)
    return judged(name, wrong, (), fine, EARLY, f"find out when and from what it was made, and {TAKE_OUT}")


def _followed(cohort, predictors: pd.DataFrame) -> list[str]:
    """Predictors equal to the number of a patient's sessions, or to the day of the last."""
    both = [table[["patient_id", "session", "day"]] for table in (cohort.visits, cohort.images) if len(table)]
    if not both:
        return []
    groups = pd.concat(both).groupby("patient_id")
    counted = {
        "how many visits there were": groups["session"].nunique(),
        "the day of the last visit": groups["day"].max(),
    }
    wrong = []
    for what, values in counted.items():
        values = pd.to_numeric(values, errors="coerce").reindex(predictors.index)
        if values.nunique() > 2:
            same = np.isclose(predictors, values.to_numpy()[:, None]).sum(axis=0) >= 0.9 * values.notna().sum()
            wrong += [f"`{name}` is {what}" for name in predictors.columns[same]]
    return wrong


def _measured_later(visits: pd.DataFrame, predictors: pd.DataFrame) -> list[str]:
    """Predictors that repeat a measurement of a later visit, which the first visit did not show."""
    if visits.empty:
        return []
    visits = visits[visits["patient_id"].isin(predictors.index)].sort_values("day", kind="stable")
    first = visits.groupby("patient_id")["day"].transform("min")
    later = visits[visits["day"] > first + BASELINE_DAYS]
    values = predictors.loc[later["patient_id"]].to_numpy(float)
    wrong = []
    for name in visits.drop(columns=["patient_id", "session", "day"]).select_dtypes("number"):
        if visits[name].nunique() <= MANY or later["patient_id"].nunique() < MANY:
            continue
        before = later["patient_id"].map(visits.groupby("patient_id")[name].first()).to_numpy(float)[:, None]
        same = np.isclose(values, later[[name]].to_numpy(float)) & ~np.isclose(values, before)
        share = pd.DataFrame(same).groupby(later["patient_id"].to_numpy()).any().mean().to_numpy()
        wrong += [f"`{each}` is `{name}` of a later visit" for each in predictors.columns[share >= ALIKE]]
    return wrong
