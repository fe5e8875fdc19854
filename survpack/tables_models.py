"""Tables of many models: by kind, with what each costs, and what a missing scan takes from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from survpack import tables
from survpack.figures import by_section, label, tidy
from survpack.inference import bootstrap, family, shown
from survpack.metrics import concordance
from survpack.numbers import amount, interval_text, known
from survpack.params import Scores
from survpack.paths import written_whole

COSTS = {  # of `Study.costs`, as the report heads them, and their digits
    "parameters": ("Weights", 0),
    "seconds_a_fit": ("Seconds a fit", 1),
    "samples_per_second": ("Samples a second", 0),
    "peak_memory_mb": ("Peak memory, MB", 0),
}
NBSP = "\u00a0"  # headings do not wrap, which gives the names below them room
DIFFERENCE = {"estimate": "difference", "low": "difference_low", "high": "difference_high", "p": "difference_p"}


def by_kind(table: pd.DataFrame, models) -> pd.DataFrame:
    """Rows in the order of the report's headings, which become the first column, `Kind`.

    Parameters
    ----------
    table : DataFrame
        A row a model.
    models : iterable of str
        The models of the rows, in the same order; one may come again (of another cohort).
    """
    models = list(models)
    place = {model: (heading, number) for number, (heading, model) in enumerate(
        (heading, model) for heading, members in by_section(models).items() for model in members)}  # fmt: skip
    order = sorted(range(len(models)), key=lambda row: place[models[row]][1])
    ordered = table.iloc[order].reset_index(drop=True)
    ordered.insert(0, "Kind", [place[models[row]][0] for row in order])
    return ordered


def save(table: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write folder/name.csv, and folder/name.md in which the first column has become headings between the rows."""
    folder = Path(folder)
    with written_whole(folder / f"{name}.csv") as part:
        table.to_csv(part, index=False)
    return tables.save_md(table.drop(columns=table.columns[0]), headed(table), folder, name)


def headed(table: pd.DataFrame) -> pd.DataFrame:
    """The first column as bold headings, each in a row of its own before the rows it holds for."""
    first, *others = table.columns
    rows = []
    for heading, members in table.groupby(first, sort=False):
        rows.append([f"**{heading.replace(' ', NBSP)}**", *[""] * (len(others) - 1)])
        rows += members[others].to_numpy(dtype=object).tolist()
    return pd.DataFrame(rows, columns=others)


def models_table(found: dict[str, dict], costs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a cohort and model: its scores out of fold and what its fits took.

    Parameters
    ----------
    found : dict of cohort to {"cv": {model: {metric: interval}}}
        As `inference.evaluate`, and as `reports/metrics/<cohort>.json` holds.
    costs : dict of cohort to DataFrame
        As `Study.costs`: a row a model; a model without one has no costs.

    Returns
    -------
    DataFrame
        `cohort`, `model`, Harrell's C as `harrell_c`, `low`, `high`, `mae_days`, then `COSTS`; NaN where not known.
    """
    rows = []
    for cohort, splits in found.items():
        for model, scores in splits["cv"].items():
            ranked = scores["harrell_c"]
            row = {"cohort": cohort, "model": model, "harrell_c": ranked["estimate"], "low": ranked.get("low"),
                   "high": ranked.get("high"), "mae_days": scores["mae_days"]["estimate"]}  # fmt: skip
            paid = costs.get(cohort, pd.DataFrame())
            rows.append(row | (paid.loc[model].to_dict() if model in paid.index else {}))
    table = pd.DataFrame(rows).reindex(columns=["cohort", "model", "harrell_c", "low", "high", "mae_days", *COSTS])
    numbers = table.columns[2:]
    return table.astype(dict.fromkeys(numbers, float))


def models_text(table: pd.DataFrame) -> pd.DataFrame:
    """`models_table` as the report prints it, by kind; cohorts have a column where there are several."""
    scores = [{"estimate": row.harrell_c, "low": row.low, "high": row.high} for row in table.itertuples()]
    told = pd.DataFrame({
        "Model": table["model"].map(label),
        "Harrell's C": [interval_text(one) or "–" for one in scores],
        "MAE, days": [_number(value, 0) for value in table["mae_days"]],
    })  # fmt: skip
    for name, (heading, digits) in COSTS.items():
        told[heading] = [_number(value, digits) for value in table[name]]
    if table["cohort"].nunique() > 1:
        told.insert(1, "Cohort", table["cohort"])
    return by_kind(told, table["model"])


def missing_modalities(risks: pd.DataFrame, outcome: pd.DataFrame, choice: Scores) -> pd.DataFrame:
    """Harrell's C out of fold when scans are taken away, and its paired difference from all scans.

    Parameters
    ----------
    risks : DataFrame
        `model`, `fold`, `split`, `patient_id`, `risk`, and `without`: the modalities taken away, joined by "+"; ""
        where none was. As `Study.without_modalities`.
    outcome : DataFrame
        `patient_id`, `time_days`, `event`.
    choice : Scores
        Resamples and confidence.

    Returns
    -------
    DataFrame
        `model`, `without`, `estimate`, `low`, `high`, and `difference`, `difference_low`, `difference_high`,
        `difference_p` (below zero: worse than with all; NaN where nothing was taken away).
    """
    rows = []
    for model, own in risks[risks["split"] == "cv"].groupby("model", sort=False):
        wide = own.pivot(index=["patient_id", "fold"], columns="without", values="risk")
        wide = wide[list(dict.fromkeys(own["without"]))]
        found = _with_and_without(wide, outcome, choice)
        for without in wide:
            ahead = found.get(("difference", without), dict.fromkeys(DIFFERENCE))
            rows.append({"model": model, "without": without, **found["c", without]}
                        | {name: ahead[key] for key, name in DIFFERENCE.items()})  # fmt: skip
    columns = ["model", "without", "estimate", "low", "high", *DIFFERENCE.values()]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys(columns[2:], float))


def missing_modalities_text(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """`missing_modalities` as the report prints it: its differences are one family, those shown have an asterisk."""
    ahead = family({
        at: {key: one[name] for key, name in DIFFERENCE.items()}
        for at, one in enumerate(table.to_dict("records"))
    })  # fmt: skip
    names = [name for name in dict.fromkeys(table["without"]) if name and "+" not in name]
    rows = []
    for at, one in enumerate(table.to_dict("records")):
        found = shown(ahead[at], confidence)
        near = found and min(abs(ahead[at]["low"]), abs(ahead[at]["high"])) < 0.005  # what is not 0 is not printed as 0
        told = (interval_text(ahead[at], 4 if near else 2) or "–") + (" \\*" if found else "")
        rows.append((label(one["model"]), _scans(one["without"], names), interval_text(one) or "–", told))
    return pd.DataFrame(rows, columns=["Model", "Scans", "Harrell's C", "Difference from all"])


def image_effects(effects: dict[str, dict]) -> pd.DataFrame:
    """How far the image moves each network's risk, as the report prints it, by kind.

    Parameters
    ----------
    effects : dict of str to dict
        As `Study.image_effects`.
    """
    alive = {True: "**collapsed**", False: "tells patients apart", None: "not known: too few patients"}
    table = pd.DataFrame(
        [(label(model), interval_text(one["image_effect"]) or "–", alive[one["collapsed"]]) for model, one in effects.items()],
        columns=["Model", "Image's effect", "Image branch"],
    )  # fmt: skip
    return by_kind(table, effects)


def collapsed(effects: dict[str, dict]) -> str:
    """One sentence: which networks' image branches have collapsed; "" where no network sees an image."""
    gone = [label(model) for model, one in effects.items() if one["collapsed"]]
    if not effects:
        return ""
    if not gone:
        known_of = sum(one["collapsed"] is False for one in effects.values())
        return f"No image branch has collapsed, of {known_of} networks that see an image."
    several = len(gone) > 1
    return (
        f"The image branch{'es' * several} of {', '.join(gone)} {'have' if several else 'has'} collapsed: another patient's "
        "image leaves the risk as it is. Such a network's scores are those of its chart, and say nothing of the architecture."
    )


def near_truth(compared: dict) -> pd.DataFrame:
    """How near each model comes to a phantom's hazard, by kind; no row where the cohort is none.

    Parameters
    ----------
    compared : dict of str to phantom.oracle.Compared or None
        Model to its predictions out of fold beside the truth.
    """
    rows = []
    for model, one in compared.items():
        if one:
            part = one.agreement.set_index("part")
            image = (interval_text(part.loc["image"].to_dict()) if "image" in part.index else None) or "–"
            told = {"Model": label(model), "Recovered": interval_text(one.scores["recovered"]) or "–",
                    "With the hazard": interval_text(part.loc["all"].to_dict()) or "–", "Beyond volume": image}  # fmt: skip
            rows.append({"model": model} | told)
    table = pd.DataFrame(rows, columns=["model", "Model", "Recovered", "With the hazard", "Beyond volume"])
    return by_kind(table.drop(columns="model"), table["model"])


def _with_and_without(wide: pd.DataFrame, outcome: pd.DataFrame, choice: Scores) -> dict:
    """`("c", without)` and `("difference", without)` to intervals, all on the same resamples."""
    fold = wide.index.get_level_values("fold").to_numpy()
    known_of = outcome.set_index("patient_id").loc[wide.index.get_level_values("patient_id")]
    time, event = known_of["time_days"].to_numpy(float), known_of["event"].to_numpy(bool)

    def score(counts) -> dict:
        c = {name: concordance(time, event, wide[name].to_numpy(float), groups=fold, counts=counts) for name in wide}
        ahead = {("difference", name): c[name] - c[""] for name in wide if name and "" in wide}
        return {("c", name): value for name, value in c.items()} | ahead

    again = choice.resampling(score(np.ones(len(wide))).get(("c", "")))
    return bootstrap(score, len(wide), strata=fold, paired=lambda name: name[0] == "difference", **again)


def _scans(without: str, names: list[str]) -> str:
    """`all`, `without T1c`, or `T1c alone`."""
    if not without:
        return "all"
    away = without.split("+")
    left = [name for name in names if name not in away]
    return f"{tidy(left[0])} alone" if len(left) == 1 else f"without {', '.join(map(tidy, away))}"


def _number(value: float, digits: int) -> str:
    return amount(value, digits) if known(value) else "–"
