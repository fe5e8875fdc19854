"""Every table of the study, and the few facts about a cohort that the report cites."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd

from survpack import few
from survpack.adapters import ADAPTERS, Source
from survpack.cohort import Cohort
from survpack.figures import (
    FALSE_DISCOVERIES,
    biomarker_words,
    estimable,
    feature_name,
    in_words,
    label,
    tag_words,
    tidy,
)
from survpack.figures.survival import log_rank_words
from survpack.inference import bootstrap
from survpack.metrics import METRICS, concordance
from survpack.numbers import DIGITS, amount, known, p_text
from survpack.numbers import interval_text as _interval_text
from survpack.paths import written_whole
from survpack.phantom import PHANTOMS
from survpack.radiomics import GIVEN, RADIOMIC
from survpack.study import Study

RARE = "rare levels"
SIDES = {"dev": "Development", "test": "Held out"}
RISKS = {  # of `risks`, as the report names them
    "oracle": "The risk that generated the outcomes",
    "oracle_baseline": "The same without growth: all that baseline can tell",
    "gpa": "Graded prognostic assessment",
    "true_volume": "The true volume, by which the hazard was made",
}
HEADINGS = {
    "harrell_c": "Harrell's C",
    "uno_c": "Uno's C",
    "auc": "AUC over time",
    "brier": "Brier",
    "ibs": "Integrated Brier",
    "ibs_skill": "Skill",
    "calibration_intercept": "Intercept",
    "calibration_slope": "Slope",
    "ici": "ICI",
    "mae_days": "MAE, deaths",
    "mae_hinge": "MAE, hinge",
    "mae_ipcw": "MAE, weighted",
    "mae_pseudo": "MAE, pseudo",
    "r2": "R², deaths",
    "r2_ipcw": "R², weighted",
    "hazard_ratio": "Hazard ratio",
    "rmst_difference": "Days gained",
}


def save(table: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write folder/name.csv and folder/name.md, a pipe table for the report.

    The report prints a table where there is its .md. Of one that says nothing there is none (`says_nothing`).
    """
    save_csv(table, folder, name)
    return save_md(table, table, folder, name)


def save_md(table: pd.DataFrame, printed: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write `printed` as folder/name.md, unless `table` says nothing; none is left of an earlier run either."""
    place = Path(folder) / f"{name}.md"
    if says_nothing(table):
        place.unlink(missing_ok=True)
    else:
        with written_whole(place) as part:
            part.write_text(pipe_table(printed))
    return place


def says_nothing(table: pd.DataFrame) -> bool:
    """Whether a table has no row, or but names and dashes: no cell beyond the first column has a letter or a digit."""
    cells = table.iloc[:, min(1, table.shape[1] - 1) :].fillna("").astype(str).to_numpy().ravel()
    return not any(character.isalnum() for cell in cells for character in cell)


def pipe_table(table: pd.DataFrame) -> str:
    """A table in markdown; no bar, line break, dollar or @ in somebody's names or levels is read as markdown."""
    told = table.rename(columns=_as_text).map(_as_text)
    return told.to_markdown(index=False, disable_numparse=True) + "\n"


def _as_text(cell):
    return re.sub(r"(?<!\\)([|$@])", r"\\\1", " ".join(cell.split("\n"))) if isinstance(cell, str) else cell


def save_csv(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write folder/name.csv: a table for reading on, which the report does not print."""
    with written_whole(Path(folder) / f"{name}.csv") as part:
        table.to_csv(part, index=False)


def interval_text(interval: dict, digits: int = 2) -> str:
    """`0.68 (0.55 to 0.79)`; a dash where the score is not defined."""
    return _interval_text(interval, digits) or "–"


def characteristics(
    cohort: Cohort, splits: pd.DataFrame, *, by: str = "split", suppress_below: int = 0
) -> pd.DataFrame:
    """Patients at baseline, all and by side of the split or by site (tableone).

    Parameters
    ----------
    cohort : Cohort
    splits : DataFrame
        `patient_id`, `split` ("dev" or "test").
    by : {"split", "site"}
    suppress_below : int
        Smaller counts are not told, nor those from which they could be reckoned (`privacy.suppressed`), nor quantiles
        of fewer patients, which may be their very values; 0 tells all.
    """
    table = cohort.participants.merge(splits[["patient_id", "split"]], on="patient_id")
    table["split"] = table["split"].map(SIDES)
    kinds = {name: entry["kind"] for name, entry in cohort.dictionary.items()}
    shown = ["time_days", "event", *(["site"] if by != "site" and table["site"].nunique() > 1 else []), *kinds]
    numeric = [name for name in shown if kinds.get(name) == "numeric" or name == "time_days"]
    levelled = [name for name in shown if name not in numeric]
    gaps = table[shown].isna().sum().rename(lambda name: _title(name, cohort.dictionary))
    for name in [*levelled, *({by} - set(levelled))]:
        table[name] = table[name].map(in_words, na_action="ignore")
        if suppress_below and name not in ("event", "split"):
            table[name] = _pooled(table[name], suppress_below)
    flat = _table_one(table, shown, numeric, by, cohort.dictionary)
    if suppress_below:
        titles = {name: _title(name, cohort.dictionary) for name in shown}
        few = gaps[gaps.between(1, suppress_below - 1)].index
        flat = _without_small(flat, table, titles, numeric, few, by, suppress_below)
    return flat


def _table_one(table: pd.DataFrame, shown: list, numeric: list, by: str, dictionary: dict) -> pd.DataFrame:
    """tableone's table with one row a covariate or level, each named in full."""
    from tableone import TableOne

    levels = {name: [*map(in_words, entry["levels"])] for name, entry in dictionary.items() if "levels" in entry}
    pooled = {name: sorted(set(table[name].dropna()) - set(order)) for name, order in levels.items()}
    order = {
        name: [one for one in [*given, *pooled[name]] if table[name].eq(one).any()] for name, given in levels.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a column or a group without any value, which is a dash below
        made = TableOne(
            table,
            columns=shown,
            categorical=[name for name in shown if name not in numeric],
            continuous=numeric,
            nonnormal=numeric,
            groupby=by,
            order=order,
            rename={name: _title(name, dictionary) for name in shown},
        )
    flat = made.tableone.copy()
    flat.columns = [str(column[-1]) for column in flat.columns]
    flat = flat.reset_index()
    first, second = flat.columns[:2]
    flat = flat[(flat[first] != f"{tidy('event')}, n (%)") | (flat[second] != "False")]
    level = flat[second].map({"None": "missing", "True": ""}).fillna(flat[second])
    names = flat[first].str.removesuffix(", n (%)") + level.where(level == "", ": " + level)
    told = flat.drop(columns=[first, second]).set_axis(names.rename("")).rename_axis(" ").reset_index()
    told = told.replace(r"\[([^,\]]+),(?! )", r"[\1, ", regex=True)  # [51.0, 68.0] may break at its comma
    return told.replace("nan [nan, nan]", "–")


def _title(name: str, dictionary: dict) -> str:
    unit = "days" if name == "time_days" else dictionary.get(name, {}).get("unit")
    return ("Follow-up" if name == "time_days" else tidy(name)) + (f", {unit}" if unit and unit != "count" else "")


def _pooled(levels: pd.Series, below: int) -> pd.Series:
    """The rarest levels (and what is missing) made one, until none is of fewer than `below` patients."""
    filled = levels.fillna("missing")
    rare, total = [], 0
    for level, count in sorted(filled.value_counts().items(), key=lambda one: (one[1], one[0])):
        if count >= below and (not rare or total >= below):
            break
        rare, total = [*rare, level], total + count
    return levels.mask(filled.isin(rare), " or ".join(rare) if len(rare) < 4 else RARE)


def _without_small(
    flat: pd.DataFrame, table: pd.DataFrame, titles: dict[str, str], numeric: list, few_missing, by: str, below: int
) -> pd.DataFrame:
    """Small counts made unreadable; the totals of rows and columns stay, none of which is small any more."""
    from survpack.privacy import suppressed

    flat = flat.astype(object).set_index(" ")
    for name, title in titles.items():
        if name in numeric:
            known = table.groupby(by)[name].count().to_dict() | {"Overall": table[name].count()}
            few = [group for group, count in known.items() if 0 < count < below]
            flat.loc[f"{title}, median [Q1, Q3]", few] = "*"
            continue
        levels = table[name].map(str, na_action="ignore").fillna("missing")
        hidden = suppressed(pd.crosstab(levels, table[by]), below)
        for level, row in hidden.iterrows():
            place = title if name == "event" else f"{title}: {level}"
            for group, text in row.items():
                if place in flat.index and not text.isdigit():
                    flat.loc[place, group] = text
    for title in few_missing:
        rows = [row for row in flat.index if row == title or row.startswith((f"{title}, ", f"{title}: "))]
        flat.loc[rows[0], "Missing"] = f"<{below}"
    return flat.reset_index()


def missing(cohort: Cohort, *, suppress_below: int = 0) -> pd.DataFrame:
    """Which covariates and images patients lack, at every site and over all.

    Parameters
    ----------
    cohort : Cohort
    suppress_below : int
        What fewer patients lack, or do not lack, is left out, and no site is told apart; 0 tells all.

    Returns
    -------
    DataFrame
        `what`, `site` ("" for all), `patients`, `missing`, and of the rows over all `event_missing` and
        `event_known`, the share of patients with the event among those who lack it and those who do not. What
        nobody lacks is left out.
    """
    table = cohort.participants
    gaps = {name: table[name].isna() for name in cohort.dictionary}
    for modality in cohort.modalities if len(cohort.images) else []:
        there = cohort.images.loc[cohort.images["modality"] == modality, "patient_id"]
        gaps[f"{modality} scan" if modality != "mask" else "mask"] = ~table["patient_id"].isin(there)
    event, rows = table["event"].astype(bool), []
    for what, gap in gaps.items():
        if not gap.any() or min(gap.sum(), (~gap).sum()) < suppress_below:
            continue
        shares = {"event_missing": event[gap].mean(), "event_known": event[~gap].mean()}
        rows.append({"what": what, "site": "", "patients": len(table), "missing": int(gap.sum())} | shares)
        if table["site"].nunique() > 1 and not suppress_below:
            for site, own in gap.groupby(table["site"]):
                rows.append({"what": what, "site": str(site), "patients": len(own), "missing": int(own.sum())})
    columns = ["what", "site", "patients", "missing", "event_missing", "event_known"]
    return pd.DataFrame(rows, columns=columns)


def missing_text(table: pd.DataFrame) -> pd.DataFrame:
    """`missing` over all sites, as the report prints it."""
    rows = table[table["site"] == ""]
    counts = zip(rows["missing"], rows["patients"], strict=True)
    return pd.DataFrame({
        "What": rows["what"].map(tidy),
        "Missing": [f"{few} of {all_} ({_percent(few, all_)})" for few, all_ in counts],
        "Event, where missing": [*map(_percent, rows["event_missing"])],
        "Event, where known": [*map(_percent, rows["event_known"])],
    })  # fmt: skip


def univariate(table: pd.DataFrame, outcome: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Each column alone in a Cox model: hazard ratio a standard deviation, and Harrell's C.

    Parameters
    ----------
    table : DataFrame, indexed by patient_id
        Volumes and ratios are taken as logarithms; what is missing or infinite as the median.
    outcome : DataFrame, indexed by patient_id
        `time_days`, `event`.
    confidence : float

    Returns
    -------
    DataFrame
        `biomarker`, `hazard_ratio`, `low`, `high`, `p` (Wald), `q` (p adjusted for the false discovery rate over all
        columns tested, Benjamini and Hochberg 1995), `concordance`; strongest first. Columns without variation are
        left out; NaN where the likelihood has no maximum.
    """
    from scipy.stats import false_discovery_control, norm

    values = table.loc[outcome.index].astype(float).replace([np.inf, -np.inf], np.nan)
    logged = [name for name in values if name.endswith(("_ml", "_to_tumour")) and not name.startswith(GIVEN)]
    values[logged] = np.log(values[logged].clip(lower=1e-2))
    values = values.fillna(values.median())
    values = values.loc[:, values.std() > 1e-9 * values.abs().max()]  # nor where every value is missing
    standard = ((values - values.mean()) / values.std()).to_numpy()
    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    slope, error, side = _cox_of_each(standard, time, event)
    margin = norm.ppf((1 + confidence) / 2) * error
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp([slope, slope - margin, slope + margin])
    p = 2 * norm.sf(np.abs(slope / error))
    found = pd.DataFrame({"biomarker": values.columns, "hazard_ratio": ratio, "low": low, "high": high, "p": p})
    tested = found["p"].notna()
    found["q"] = np.nan
    found.loc[tested, "q"] = false_discovery_control(found.loc[tested, "p"]) if tested.any() else np.nan
    found["concordance"] = [float(concordance(time, event, risk)) for risk in (side * standard).T]
    return found.sort_values("p", ignore_index=True, kind="stable")


def _cox_of_each(x: np.ndarray, time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cox regression on each of many columns alone: all at once, where lifelines takes 16 ms a column.

    Newton's steps on Efron's partial likelihood (1977, J Am Stat Assoc 72:557), which lifelines has too, kept between
    the slopes that are known to be too low and too high.

    Parameters
    ----------
    x : array, shape (patients, columns), of mean 0 and standard deviation 1
    time, event : array, shape (patients,)

    Returns
    -------
    slope, error, side : arrays, shape (columns,)
        Log hazard ratio and its standard error, NaN where the likelihood has no maximum; and 1 where a higher value
        is worse, -1 where it is better.
    """
    sums = _risk_sums(time, event)
    side = np.sign(_score_and_information(x, np.zeros(x.shape[1]), event, sums)[0])
    slope, low, high = (np.full(x.shape[1], start) for start in (0.0, -np.inf, np.inf))
    for _ in range(30):  # a step is at most 1: beyond 30 standard errors there is no maximum to find
        score, information = _score_and_information(x, slope, event, sums)
        low, high = np.where(score > 0, slope, low), np.where(score < 0, slope, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            step, between = np.clip(score / information, -1, 1), (low + high) / 2
        best = (np.abs(step) < 1e-9) & (information > 1e-6)
        if best.all():
            break
        ahead = slope + step
        outside = (ahead < low) | (ahead > high)
        slope = np.where(best, slope, np.where(outside, between, ahead))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(best, slope, np.nan), np.where(best, information**-0.5, np.nan), side


def _risk_sums(time: np.ndarray, event: np.ndarray):
    """Sums over those at risk at each death; of the k deaths of one day, the i-th no longer counts i / k of them all."""
    order = np.argsort(-time, kind="stable")  # those at risk are then the first rows
    deaths = order[event[order]]
    last = np.searchsorted(-time[order], -time[deaths], side="right") - 1
    _, first, day, tied = np.unique(-time[deaths], return_index=True, return_inverse=True, return_counts=True)
    gone = ((np.arange(len(deaths)) - first[day]) / tied[day])[:, None]
    return lambda values: values[order].cumsum(axis=0)[last] - gone * np.add.reduceat(values[deaths], first)[day]


def _score_and_information(x: np.ndarray, slope: np.ndarray, event: np.ndarray, sums) -> tuple[np.ndarray, np.ndarray]:
    """First derivative of the partial likelihood of each column, and minus the second."""
    line = x * slope
    weight = np.exp(line - line.max(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        total, mean, square = sums(weight), sums(weight * x), sums(weight * x * x)
        mean, square = mean / total, square / total
    return (x[event].sum(axis=0) - mean.sum(axis=0)), (square - mean**2).sum(axis=0)


def univariate_text(table: pd.DataFrame) -> pd.DataFrame:
    """`univariate` as the report prints it: an interval without an end is not estimable, and neither is its p."""
    told = estimable(table)
    ratios = zip(table["hazard_ratio"], table["low"], table["high"], strict=True)
    known = [f"{a:.2f} ({b:.2f} to {c:.2f})" for a, b, c in ratios]

    def tests(values: pd.Series) -> list[str]:
        return [p_text(value) if one else "–" for one, value in zip(told, values, strict=True)]

    return pd.DataFrame({
        "Biomarker": table["biomarker"].map(feature_name),
        "Hazard ratio a standard deviation": [
            text if one else "not estimable" for one, text in zip(told, known, strict=True)
        ],
        "p": tests(table["p"]),
        "q": tests(table["q"]),
        "Harrell's C": ["–" if pd.isna(score) else f"{score:.2f}" for score in table["concordance"]],
    })  # fmt: skip


def feature_counts(described: pd.DataFrame) -> pd.DataFrame:
    """How many features there are: a row a family, a column an image.

    Parameters
    ----------
    described : DataFrame
        As `radiomics.parsed`: `family`, `sequence`, `filter`.
    """
    image = described["sequence"].where(described["filter"] == "", described["sequence"] + ", filtered")
    image = image.map(lambda name: tidy(name) if name else "Mask alone")
    image = image.mask(described["family"] == "given", "Measured elsewhere")
    counts = pd.crosstab(described["family"].map(tidy), image)
    counts = counts.reindex(index=described["family"].map(tidy).unique(), columns=image.unique())
    counts = counts.assign(All=counts.sum(axis=1))
    return pd.concat([counts, counts.sum().rename("All").to_frame().T]).rename_axis("Family").reset_index()


def biomarker_text(table: pd.DataFrame) -> pd.DataFrame:
    """What the lesion biomarkers are: their words and units, median with quartiles, how many patients lack them.

    Parameters
    ----------
    table : DataFrame, one row a patient
        Radiomics, which have no units, are left out.
    """
    rows = []
    for name in table.columns[~table.columns.str.startswith(RADIOMIC)]:
        words, unit = biomarker_words(name)
        values = table[name].astype(float).dropna()
        quartiles = values.quantile([0.25, 0.5, 0.75])
        digits = 0 if (quartiles % 1 == 0).all() or quartiles[0.5] >= 100 else 1 if quartiles[0.5] >= 10 else 2
        low, median, high = (amount(value, digits) for value in quartiles)
        told = f"{median} ({low} to {high})" if len(values) else "–"
        rows.append((words, unit or "–", told, f"{table[name].isna().sum()} of {len(table)}"))
    return pd.DataFrame(rows, columns=["Biomarker", "Unit", "Median (quartiles)", "Missing"])


def conformance_text(found: dict[str, dict[str, dict]]) -> pd.DataFrame:
    """How many benchmarked features lie within the tolerance of IBSI's reference, and the names of those that do not.

    Parameters
    ----------
    found : dict of configuration to dict of tag to {"feature", "value", "reference", "tolerance", "within"}
        As `conformance.run`.
    """
    rows = []
    for configuration, features in found.items():
        outside = [tag_words(tag) for tag, one in features.items() if not one["within"]]
        kept, count = len(features) - len(outside), len(features)
        share = _percent(kept, count, 0 if kept == count else 1)
        rows.append((tidy(configuration), str(count), str(kept), share, "; ".join(outside) or "none"))
    return pd.DataFrame(rows, columns=["Configuration", "Benchmarked", "Within tolerance", "Share", "Not within"])


def scanner_text(table: pd.DataFrame) -> pd.DataFrame:
    """Median share of the features' variance that is scanner, before and after ComBat, by family.

    Parameters
    ----------
    table : DataFrame, one row a feature
        `family`, `before`, `after`: shares of variance.
    """
    families = [*table.groupby("family", sort=False), ("all", table)]
    rows = [
        (tidy(family), str(len(one)), *(_percent(one[when].median(), digits=1) for when in ("before", "after")))
        for family, one in families
    ]
    return pd.DataFrame(rows, columns=["Family", "Features", "Scanner, before", "Scanner, after"])


def scores(found: dict[str, dict], labels: dict[str, str], metrics=METRICS) -> pd.DataFrame:
    """One row a model, every score asked for with its interval as text."""
    rows = [
        {"Model": labels[model]} | {HEADINGS[key]: interval_text(one[key], DIGITS.get(key, 2)) for key in metrics}
        for model, one in found.items()
    ]
    return pd.DataFrame(rows, columns=["Model", *(HEADINGS[key] for key in metrics)])


def group_words(found: dict[str, dict], p: float | None) -> str:
    """Log-rank p and hazard ratio of one model's risk groups, as the table beside the figure prints them."""
    ratio = _interval_text(found["hazard_ratio"])
    return "; ".join([log_rank_words(p), *([f"HR {ratio}"] if ratio else [])])


def calibration_words(found: dict[str, dict]) -> str:
    """Intercept and slope of one model, for a corner of its panel."""
    names = {"calibration_intercept": "intercept", "calibration_slope": "slope"}
    return "\n".join(f"{word} {interval_text(found[key])}" for key, word in names.items())


def without_day_words(found: dict[str, dict]) -> str:
    """Which models are not scored in days, since they have none for some patients.

    Parameters
    ----------
    found : dict of model to {"patients", "of"}
        As `metrics.without_day`.
    """
    lacking = [f"{label(name)} ({one['patients']} of {one['of']})" for name, one in found.items() if one["patients"]]
    if not lacking:
        return "Every model here has a day for every patient." if found else ""
    return (
        f"{len(lacking)} of {len(found)} models are not scored in days, since the curves of some patients do not fall to one "
        f"half within follow-up and have no median (patients without one): {'; '.join(lacking)}."
    )


def bounds(table: pd.DataFrame) -> pd.DataFrame:
    """`conformal.table` as the report prints it; the true coverage where it is known."""

    def text(one, name: str, prefix: str) -> str:
        return (
            interval_text(
                {
                    "estimate": getattr(one, name),
                    "low": getattr(one, f"{prefix}low"),
                    "high": getattr(one, f"{prefix}high"),
                }
            )
            or "–"
        )

    split = {"cv": "out of fold", "test": "test set"}
    told = pd.DataFrame({
        "Model": table["model"].map(label),
        "Patients": [f"{amount(one.patients)}, {split[one.split]}" for one in table.itertuples()],
        "Coverage": [text(one, "observed", "") for one in table.itertuples()],
        "Of the riskiest quarter": [text(one, "riskiest", "riskiest_") for one in table.itertuples()],
        "True": [amount(one, 2) if known(one) else "–" for one in table["true"]],
        "True, of those at highest true risk": [amount(one, 2) if known(one) else "–" for one in table["true_worst"]],
        "Median bound, days": [amount(one) if one else "–" for one in table["median_bound_days"]],
    })  # fmt: skip
    return (
        told if table["true"].notna().any() else told.drop(columns=[name for name in told if name.startswith("True")])
    )


def without_bound_words(table: pd.DataFrame) -> str:
    """Which models of `conformal.table` have patients without a bound, and why; empty where none has."""
    lacking = [
        f"{label(one.model)} ({one.without_bound} of {one.patients})" for one in table.itertuples() if one.without_bound
    ]
    if not lacking:
        return ""
    return (
        "Some patients have no lower bound: those who calibrate it are too few, are followed too short, or have events on "
        f"fewer than two days (patients without one): {'; '.join(lacking)}."
    )


def facts(study: Study, cohort: Cohort, splits: pd.DataFrame, source: Source) -> dict:
    """What the report says of a cohort before any model: size, follow-up, selection, splits."""
    from lifelines import KaplanMeierFitter

    time, event = cohort.participants["time_days"], cohort.participants["event"].astype(bool)
    curve, reverse = KaplanMeierFitter().fit(time, event), KaplanMeierFitter().fit(time, ~event)
    sides = {"development": splits["split"] == "dev", "test": splits["split"] == "test"}
    by_id = cohort.outcome.set_index("patient_id")["event"].astype(bool)
    told = {
        "cohort": study.name,
        "title": source.title,
        "phantom": study.name in PHANTOMS,
        "source": source.url,
        "licence": source.licence,
        "profile": study.params.profile,
        "outcome": _outcome(study),
        "n": len(cohort.participants),
        "events": int(event.sum()),
        "censored": float(1 - event.mean()),
        "median_followup_days": _finite(reverse.median_survival_time_),
        "median_survival_days": _finite(curve.median_survival_time_),
        "horizon_days": study.horizon_days,
        "visits": visit_counts(cohort),
        "sites": cohort.participants["site"].value_counts().sort_index().to_dict(),
        "flow": cohort.flow,
        "splits": {
            side: {"n": int(mask.sum()), "events": int(by_id.loc[splits.loc[mask, "patient_id"]].sum())}
            for side, mask in sides.items()
        },
    }
    told["splits"]["development"]["folds"] = int(splits.loc[sides["development"], "fold"].nunique())
    return told


def _outcome(study: Study) -> str:
    """The outcome in words: the chosen one, else the first of those that the source tells."""
    told = ["overall-survival" if study.name in PHANTOMS else "survival"]  # of a folder of one's own nothing more
    if study.name in ADAPTERS:
        told = list(import_module(f"survpack.adapters.{study.name.replace('-', '_')}").OUTCOMES)
    return study.params.cohort.get(study.name, {}).get("outcome", told[0]).replace("-survival", " survival")


def ranking(outcome: pd.DataFrame, risk, study: Study) -> dict:
    """Harrell's C of one number that nothing was fitted to, over all patients given, with its interval; empty where too few."""
    if not few.enough(outcome["event"], study.params.scores.small_cell):
        return {}
    values = np.nan_to_num(np.asarray(risk, dtype=float), nan=float(np.nanmedian(risk)))
    choice = study.params.scores

    def score(counts):
        return {"harrell_c": concordance(outcome["time_days"], outcome["event"], values, counts=counts)}

    return bootstrap(score, len(outcome), **choice.resampling(fitted=False))


def radiomic_facts(study: Study, icc: pd.DataFrame, chosen, volume: pd.Series, alone: pd.DataFrame, shift) -> dict:
    """What stage 02 found, for `reports/metrics/radiomics-<cohort>.json`: one name a count, from one source each.

    `features` are measured, `with_icc` of them measured again, `robust` of these at or above the threshold. `clustered`
    come to the last step of the selection, `kept_anyway` of them without being shown robust (lesion biomarkers are), and
    make `clusters`; one member of each is looked at alone, and `tested` of them have a hazard ratio.

    Parameters
    ----------
    icc : DataFrame
        `feature`, `icc`: of the features measured under perturbation.
    chosen : Selection
        Learnt on the development patients.
    volume : Series
        Each feature's absolute rank correlation with tumour volume.
    alone : DataFrame
        As `univariate`.
    shift : None, or the two tables of `scanner.experiment`
    """
    choice = study.params.selection
    found = {
        "features": len(volume),
        "with_icc": int(icc["icc"].notna().sum()),
        "robust": int((icc["icc"] >= choice.icc).sum()),
        "icc_threshold": choice.icc,
        "volume_like": int((volume > choice.correlation).sum()) if volume.notna().any() else None,
        "volume_threshold": choice.correlation,
        "steps": chosen.steps,
        "clustered": len(chosen.clusters),
        "kept_anyway": int((~(chosen.clusters["icc"] >= choice.icc)).sum()),
        "clusters": len(chosen.columns),
        "tested": int(alone["q"].notna().sum()),
        "discoveries": int((alone["q"] < FALSE_DISCOVERIES).sum()),
    }
    if shift is not None:
        found["scanner"] = shift[1].round(4).to_dict("index")
    return found


def visit_counts(cohort: Cohort) -> dict:
    """`patients` seen more than once, `visits` in all, and `most` of one patient; empty where nobody is."""
    seen = [table[["patient_id", "session"]] for table in (cohort.images, cohort.visits) if len(table)]
    if not seen:
        return {}
    counts = pd.concat(seen).drop_duplicates().groupby("patient_id").size()
    if counts.max() < 2:
        return {}
    return {"patients": int((counts > 1).sum()), "visits": int(counts.sum()), "most": int(counts.max())}


def ceiling(outcome: pd.DataFrame, risks: dict[str, pd.Series], study: Study) -> dict[str, dict]:
    """Harrell's C of each risk (`phantom.recovery.risks`) over all patients, with its interval."""
    return {name: ranking(outcome, risk, study) for name, risk in risks.items()}


def ceiling_text(found: dict[str, dict]) -> pd.DataFrame:
    """`ceiling` as the report prints it."""
    rows = [(RISKS[name], interval_text(one["harrell_c"])) for name, one in found.items() if one]
    return pd.DataFrame(rows, columns=["Ranking, fitted to nothing", "Harrell's C"])


def recovery_text(table: pd.DataFrame) -> pd.DataFrame:
    """What `phantom.recovery.recovered` found, as the report prints it."""
    found = table[["estimate", "low", "high"]].to_dict("records")
    return pd.DataFrame({
        "Term": table["term"].map(tidy),
        "Planted": [amount(value, 2) for value in table["true"]],
        "Found in this cohort": [interval_text(one) for one in found],
        "Intervals that hold it": [_percent(value, digits=1) for value in table["coverage"]],
    })  # fmt: skip


def duplicates_text(pairs: pd.DataFrame) -> str:
    """One sentence on images that two patients share (`overlap.duplicates`)."""
    if pairs.empty:
        return "No two patients share an image."
    first = pairs.iloc[0]
    names = f"{first['patient_id']} and {first['other_patient_id']}"
    return f"{len(pairs)} pairs of images are the same, the first of {names}."


def _percent(part: float, whole: float = 1, digits: int = 0) -> str:
    return f"{amount(100 * part / whole, digits)} %" if whole and part == part else "–"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
