"""Scores of the same models under other splits, and where their spread comes from; sets too small have none (`few`).

Apart from `designs`, so that another way to score refits nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack import few, inference
from survpack.designs import BY_SITE, REPEATED
from survpack.inference import bootstrap, corrected_resampled_test, family, spreads
from survpack.metrics import scores
from survpack.numbers import interval_text
from survpack.prognosis import Prognosis
from survpack.study import Study

METRICS = ("harrell_c", "uno_c", "ibs")
REFERENCE = "clinical-cox"  # what the other models are tested against
ENDS = ("estimate", "low", "high")


def usual(predictions: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Predictions of the first seed, harmonised as the study is."""
    return predictions[(predictions["seed"] == 0) & (predictions["harmonised"] == study.params.selection.harmonise)]


def score(predictions: pd.DataFrame, study: Study, by=("design", "source", "model")) -> pd.DataFrame:
    """Scores with bootstrap intervals over patients: a patient drawn twice counts twice in every repeat.

    Parameters
    ----------
    predictions : DataFrame
        Of `designs.fit_designs`, or a part of them such as `usual`.
    study : Study
    by : sequence of str
        Columns whose every combination is scored; `("left_out", "model")` scores each site.

    Returns
    -------
    DataFrame
        `by`, `metric` (`METRICS`), `estimate`, `low`, `high`, `patients`, `events`. No estimate of a set too small to be
        scored.
    """
    found = []
    for keys, rows in predictions.groupby(list(by), sort=False):
        outcome = study.outcome(rows["patient_id"].unique())
        about = {"patients": len(outcome), "events": int(outcome["event"].sum())}
        if few.enough(outcome["event"], study.params.scores.small_cell):
            scored = _intervals(study, lambda counts, rows=rows: _scores(study, rows, counts), rows)
        else:
            scored = {metric: dict.fromkeys(ENDS) for metric in METRICS}
        for metric, interval in scored.items():
            found.append({**dict(zip(by, keys, strict=True)), "metric": metric, **interval, **about})
    return pd.DataFrame(found, columns=[*by, "metric", *ENDS, "patients", "events"])


def by_fold(predictions: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Scores fold by fold, of every seed: `model, design, repeat, seed, fold, metric, value, n, n_train`.

    The value of a fold too small to be scored is NaN: it is in no spread and in no test.
    """
    rows = predictions[predictions["harmonised"] == study.params.selection.harmonise]
    keys, found = ["model", "design", "source", "repeat", "seed", "fold"], []
    for names, fold in rows.groupby(keys, sort=False):
        about = {"n": len(fold), "n_train": int(fold["train"].iloc[0])}
        large = few.enough(study.outcome(fold["patient_id"])["event"], study.params.scores.small_cell)
        for metric, value in (_scores(study, fold, None) if large else dict.fromkeys(METRICS, np.nan)).items():
            found.append({**dict(zip(keys, names, strict=True)), "metric": metric, "value": value, **about})
    return pd.DataFrame(found, columns=[*keys, "metric", "value", "n", "n_train"])


def against_reference(folds: pd.DataFrame, confidence: float = 0.95, inflation: float = 1.0) -> pd.DataFrame:
    """Harrell's C of each model minus that of `REFERENCE` over repeated folds: Nadeau and Bengio's corrected test.

    Folds share training patients, so the plain t-test over them is far too sure (Nadeau, Bengio 2003,
    doi:10.1023/A:1024068626366), and the corrected one a little too sure still: `inflation`, as in
    `inference.interval`. P values are adjusted by Holm over the models.

    Returns
    -------
    DataFrame
        `model`, `folds`, `estimate`, `low`, `high`, `p`, `p_adjusted`; no row without the reference.
    """
    rows = folds[(folds["design"] == REPEATED) & (folds["seed"] == 0) & (folds["metric"] == "harrell_c")]
    wide = rows.pivot(index=["repeat", "fold"], columns="model", values="value")
    size = rows.groupby(["repeat", "fold"])[["n_train", "n"]].first()
    found = {}
    for model in [name for name in dict.fromkeys(rows["model"]) if REFERENCE in wide and name != REFERENCE]:
        difference = (wide[model] - wide[REFERENCE]).dropna()
        if len(difference) > 1:
            n_train, n_test = size.loc[difference.index].mean()
            tested = corrected_resampled_test(
                difference.to_numpy(), n_train, n_test, confidence=confidence, inflation=inflation
            )
            found[model] = {"model": model, "folds": len(difference), **tested}
    table = pd.DataFrame(list(family(found).values()))
    return table.reindex(columns=["model", "folds", *ENDS, "p", "p_adjusted"])


def harmonisation(predictions: pd.DataFrame, study: Study) -> dict:
    """What ComBat changes in `designs.harmonised` where a site is left out, on the same resamples.

    Returns
    -------
    dict
        `{"combat": {metric: interval}, "none": {…}, "difference": {…}}`, the difference combat minus none; empty
        without such fits.
    """
    rows = predictions[(predictions["design"] == BY_SITE) & (predictions["model"] == study.params.designs.harmonised)]
    if rows["harmonised"].nunique() < 2:
        return {}

    def both(counts):
        combat, none = (_scores(study, rows[rows["harmonised"] == how], counts) for how in (True, False))
        difference = {metric: combat[metric] - none[metric] for metric in METRICS}
        parts = {"combat": combat, "none": none, "difference": difference}
        return {(part, metric): value for part, each in parts.items() for metric, value in each.items()}

    found = _intervals(study, both, rows)
    return {part: {metric: found[part, metric] for metric in METRICS} for part in ("combat", "none", "difference")}


def spread(folds: pd.DataFrame, scored: pd.DataFrame, metric: str = "harrell_c") -> pd.DataFrame:
    """Four spreads of a score apart: the interval over patients, and standard deviations over folds, splits and seeds.

    Returns
    -------
    DataFrame
        `model`, `estimate`, `low`, `high`, `fold_sd`, `split_sd`, `seed_sd` (NaN where there is one split, or seed).
    """
    folds, scored = (table[(table["design"] == REPEATED) & (table["metric"] == metric)] for table in (folds, scored))
    return spreads(folds, scored)[["model", *ENDS, "fold_sd", "split_sd", "seed_sd"]]


def as_json(scored, tested, levelled: dict, spreading, missing: dict[str, str], sites) -> dict:
    """What the pipeline keeps: designs to models to metrics to intervals, and the tests beside them."""
    found: dict = {"designs": {}, "sites": {}, "absent": missing, "harmonisation": levelled}
    for row in scored.to_dict("records"):
        design = row["design"] + (f" {row['source']}" if row["source"] else "")
        _put(found["designs"].setdefault(design, {}).setdefault(row["model"], {}), row)
    for row in sites.to_dict("records"):
        _put(found["sites"].setdefault(row["left_out"], {}).setdefault(row["model"], {}), row)
    found["against"] = {"reference": REFERENCE, "models": _records(tested)}
    found["spread"] = _records(spreading)
    return found


def _put(place: dict, row: dict) -> None:
    place[row["metric"]] = {end: _plain(row[end]) for end in ENDS}
    place["patients"], place["events"] = row["patients"], row["events"]


def _records(table: pd.DataFrame) -> dict:
    return {row.pop("model"): {name: _plain(value) for name, value in row.items()} for row in table.to_dict("records")}


def _plain(value):
    """None for what is not defined: JSON has no NaN."""
    return None if value is None or pd.isna(value) else value


def _intervals(study: Study, score_of, rows: pd.DataFrame) -> dict:
    patients, crossed = rows["patient_id"].nunique(), rows["fold"].nunique() > 1  # else nobody scored taught a model
    plain = score_of(np.ones(patients))
    reached = plain.get("harrell_c", plain.get(("none", "harrell_c")))
    again = study.params.scores.resampling(reached, fitted=crossed)
    return bootstrap(score_of, patients, paired=lambda name: name[0] == "difference", **again)


def _scores(study: Study, rows: pd.DataFrame, counts) -> dict:
    """`METRICS` of one model's predictions; `counts` are of its patients in order of id."""
    ids = rows["patient_id"].unique()
    table = rows.assign(cohort=study.name, split="cv").reset_index(drop=True)
    prognosis = Prognosis(table, np.asarray(study.times))
    known, train = study.outcome(ids).reset_index(), study.outcome(study.development).reset_index()
    return scores(prognosis, known, train, study.horizon_days, counts=counts, metrics=METRICS)


# --- what the reader sees ------------------------------------------------------------------------------------------


def table(scored: pd.DataFrame, metric: str = "harrell_c") -> pd.DataFrame:
    """A row a model, a column a design: the score with its interval."""
    from survpack.figures.designs import design_name, model_name

    rows = scored[scored["metric"] == metric]
    cells = {}
    for row in rows.to_dict("records"):
        column = design_name(row["design"], row["source"])
        cells.setdefault(row["model"], {})[column] = interval_text(row) or "–"
    columns = dict.fromkeys(design_name(row["design"], row["source"]) for row in rows.to_dict("records"))
    shown = [{"Model": model_name(model), **{name: each.get(name, "–") for name in columns}}
             for model, each in cells.items()]  # fmt: skip
    return pd.DataFrame(shown, columns=["Model", *columns])


def harmonisation_table(found: dict) -> pd.DataFrame:
    """What ComBat changes, a row a score; empty where there is nothing of the kind."""
    heads = {"combat": "ComBat", "none": "None", "difference": "ComBat minus none"}
    words = {"harrell_c": "Harrell's C", "uno_c": "Uno's C", "ibs": "Integrated Brier score"}
    rows = []
    for metric in METRICS if found else ():
        told = {head: interval_text(found[part][metric], 3) or "–" for part, head in heads.items()}
        rows.append({"Score": words[metric]} | told)
    return pd.DataFrame(rows, columns=["Score", *heads.values()])


def site_table(sites: pd.DataFrame, metric: str = "harrell_c") -> pd.DataFrame:
    """A row a site left out, a column a model; `sites` is `score` by `left_out` and `model`."""
    from survpack.figures.designs import model_name

    heads, found = ["Site", "Patients", "Events"], {}
    for row in sites[sites["metric"] == metric].to_dict("records"):
        about = [row["left_out"], row["patients"], row["events"]]
        line = found.setdefault(row["left_out"], dict(zip(heads, about, strict=True)))
        line[model_name(row["model"])] = interval_text(row) or "–"
    return pd.DataFrame(list(found.values()), columns=None if found else heads)


def reading(tested: pd.DataFrame, confidence: float = 0.95) -> str:
    """Each test as a line; see `inference.verdict`."""
    from survpack.figures.designs import model_name

    lines = []
    for row in tested.to_dict("records"):
        difference = {name: _plain(value) for name, value in row.items()} | {"comparisons": tested["p"].count()}
        told = inference.reading(difference, model_name(row["model"]), model_name(REFERENCE), confidence=confidence)
        lines.append(f"{told} ({row['folds']} folds)")
    return "\n".join(lines) or (
        f"Nothing is compared with {model_name(REFERENCE)} over repeated folds: it was not fitted, or fewer than two folds are "
        "large enough to be scored."
    )
