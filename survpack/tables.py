"""Every table of the study, and the few facts about a cohort that the report cites."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from survpack.adapters import Source
from survpack.cohort import Cohort
from survpack.figures import tidy
from survpack.inference import bootstrap
from survpack.metrics import METRICS, concordance
from survpack.paths import written_whole
from survpack.study import Study

DIGITS = {"mae_days": 0, "ibs": 3, "ici": 3}
HEADINGS = {
    "harrell_c": "Harrell's C",
    "uno_c": "Uno's C",
    "auc": "AUC over time",
    "ibs": "Integrated Brier",
    "ici": "ICI",
    "mae_days": "MAE, days",
    "r2": "R²",
}


def save(table: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write folder/name.md (a pipe table for the report) and folder/name.csv."""
    with written_whole(Path(folder) / f"{name}.csv") as part:
        table.to_csv(part, index=False)
    with written_whole(Path(folder) / f"{name}.md") as part:
        part.write_text(table.to_markdown(index=False, disable_numparse=True) + "\n")
    return Path(folder) / f"{name}.md"


def interval_text(interval: dict, digits: int = 2) -> str:
    """`0.68 (0.55 to 0.79)`; a dash where the score is not defined."""
    known = [interval.get(key) for key in ("estimate", "low", "high")]
    if known[0] is None:
        return "–"
    text = [f"{value:.{digits}f}".replace("-", "−") for value in known if value is not None]
    return f"{text[0]} ({text[1]} to {text[2]})" if len(text) == 3 else text[0]


def characteristics(cohort: Cohort, splits: pd.DataFrame) -> pd.DataFrame:
    """Patients at baseline, all and by side of the split (tableone)."""
    from tableone import TableOne

    table = cohort.participants.merge(splits[["patient_id", "split"]], on="patient_id")
    table["split"] = table["split"].map({"dev": "Development", "test": "Held out"})
    kinds = {name: entry["kind"] for name, entry in cohort.dictionary.items()}
    columns = ["time_days", "event", *(["site"] if table["site"].nunique() > 1 else []), *kinds]
    categorical = [
        name for name in columns if kinds.get(name, "categorical" if name != "time_days" else "") != "numeric"
    ]
    categorical.remove("time_days")
    units = {name: f"{tidy(name)}, {entry['unit']}" for name, entry in cohort.dictionary.items() if entry.get("unit")}
    made = TableOne(
        table,
        columns=columns,
        categorical=categorical,
        continuous=[name for name in columns if name not in categorical],
        nonnormal=[name for name in columns if name not in categorical],
        groupby="split",
        order={name: list(entry["levels"]) for name, entry in cohort.dictionary.items() if "levels" in entry},
        rename={name: tidy(name) for name in columns} | units | {"time_days": "follow-up, days"},
    )
    flat = made.tableone.copy()
    flat.columns = [str(column[-1]) for column in flat.columns]
    flat = flat.reset_index()
    first, second = flat.columns[:2]
    flat = flat[(flat[first] != f"{tidy('event')}, n (%)") | (flat[second] != "False")]
    level = flat[second].map({"None": "missing", "True": ""}).fillna(flat[second])
    names = flat[first].str.removesuffix(", n (%)") + level.where(level == "", ": " + level)
    return flat.drop(columns=[first, second]).set_axis(names.rename("")).rename_axis(" ").reset_index()


def univariate(table: pd.DataFrame, outcome: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Each column alone in a Cox model: hazard ratio a standard deviation, and Harrell's C.

    Parameters
    ----------
    table : DataFrame, indexed by patient_id
        Volumes and ratios are taken as logarithms.
    outcome : DataFrame, indexed by patient_id

    Returns
    -------
    DataFrame
        `biomarker`, `hazard_ratio`, `low`, `high`, `p`, `concordance`; strongest first. Columns without
        variation are left out.
    """
    from lifelines import CoxPHFitter

    rows = []
    for name in table:
        values = table[name].loc[outcome.index]
        values = np.log(values.clip(lower=1e-2)) if name.endswith(("_ml", "_to_tumour")) else values
        values = values.fillna(values.median())
        if not values.std() > 1e-9:  # nor where every value is missing
            continue
        frame = outcome[["time_days", "event"]].assign(x=(values - values.mean()) / values.std())
        fit = CoxPHFitter(alpha=1 - confidence).fit(frame, "time_days", "event")
        low, high = np.exp(fit.confidence_intervals_.loc["x"])
        score = concordance(outcome["time_days"], outcome["event"], fit.params_["x"] * frame["x"])
        rows.append((name, np.exp(fit.params_["x"]), low, high, fit.summary.loc["x", "p"], float(score)))
    columns = ["biomarker", "hazard_ratio", "low", "high", "p", "concordance"]
    return pd.DataFrame(rows, columns=columns).sort_values("p", ignore_index=True)


def univariate_text(table: pd.DataFrame) -> pd.DataFrame:
    """`univariate` as the report prints it."""
    low, high = table["low"], table["high"]
    ratios = zip(table["hazard_ratio"], low, high, strict=True)
    return pd.DataFrame(
        {
            "Biomarker": table["biomarker"].map(tidy),
            "Hazard ratio a standard deviation": [f"{a:.2f} ({b:.2f} to {c:.2f})" for a, b, c in ratios],
            "p": [f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in table["p"]],
            "Harrell's C": table["concordance"].map("{:.2f}".format),
        }
    )


def scores(found: dict[str, dict], labels: dict[str, str]) -> pd.DataFrame:
    """One row a model, every score with its interval as text."""
    rows = [
        {"Model": labels[model]} | {HEADINGS[key]: interval_text(one[key], DIGITS.get(key, 2)) for key in METRICS}
        for model, one in found.items()
    ]
    return pd.DataFrame(rows)


def facts(study: Study, cohort: Cohort, splits: pd.DataFrame, source: Source) -> dict:
    """What the report says of a cohort before any model: size, follow-up, selection, splits."""
    from lifelines import KaplanMeierFitter

    time, event = cohort.participants["time_days"], cohort.participants["event"].astype(bool)
    curve, reverse = KaplanMeierFitter().fit(time, event), KaplanMeierFitter().fit(time, ~event)
    sides = {"development": splits["split"] == "dev", "test": splits["split"] == "test"}
    by_id = cohort.outcome.set_index("patient_id")["event"].astype(bool)
    return {
        "cohort": study.name,
        "title": source.title,
        "source": source.url,
        "licence": source.licence,
        "profile": study.params.profile,
        "outcome": study.params.cohort.get(study.name, {}).get("outcome", "overall-survival").replace("-", " "),
        "n": len(cohort.participants),
        "events": int(event.sum()),
        "median_followup_days": _finite(reverse.median_survival_time_),
        "median_survival_days": _finite(curve.median_survival_time_),
        "horizon_days": study.horizon_days,
        "sites": cohort.participants["site"].value_counts().sort_index().to_dict(),
        "flow": cohort.flow,
        "splits": {
            side: {"n": int(mask.sum()), "events": int(by_id.loc[splits.loc[mask, "patient_id"]].sum())}
            for side, mask in sides.items()
        },
    }


def ranking(outcome: pd.DataFrame, risk, study: Study) -> dict:
    """Harrell's C of one number that nothing was fitted to, over all patients given, with its interval."""
    values = np.nan_to_num(np.asarray(risk, dtype=float), nan=float(np.nanmedian(risk)))
    choice = study.params.scores

    def score(counts):
        return {"harrell_c": concordance(outcome["time_days"], outcome["event"], values, counts=counts)}

    return bootstrap(score, len(outcome), repeats=choice.bootstrap, confidence=choice.confidence, seed=choice.seed)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
