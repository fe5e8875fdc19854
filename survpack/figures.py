"""One function a figure, and the house style.

Each takes plain tables, never a model, and gives a matplotlib Figure; `save` writes it beside the
CSV it was drawn from. Colours mean one thing throughout: the family of a model. Families, groups
and splits also differ in marker, line or lightness, so that a print in grey loses nothing.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator, NullFormatter

from survpack.errors import BadInput
from survpack.paths import written_whole

INK, MUTED, PALE = "#222222", "#5f5f5f", "#cccccc"
PLAIN = "#47617c"  # of what belongs to no model
WIDTH = 6.5  # inches: the text width of a page; 9 points in it stay legible on a phone
# Told apart under deuteranopia and protanopia too: at least 31 CIELAB units between any two (Machado et al., 2009).
COLOURS = {
    "baseline": "#808080",
    "clinical": "#0b4f94",
    "radiomics": "#4aa3df",
    "hybrid": "#c2410c",
    "other": "#222222",
}
MARKERS = {"baseline": "o", "clinical": "s", "radiomics": "D", "hybrid": "^", "other": "v"}
SECTIONS = {
    "Baseline": ("baseline",),
    "Classical": ("clinical", "radiomics"),
    "Hybrid deep": ("hybrid",),
    "Other": ("other",),
}
LABELS = {
    "age": "Age alone",
    "volume": "Tumour volume alone",
    "clinical-cox": "Clinical, Cox",
    "radiomics-coxnet": "Radiomics, elastic net",
    "clinical-radiomics-rsf": "Clinical + radiomics, forest",
    "hybrid-efficientnet-mse": "Hybrid EfficientNet, MSE",
    "hybrid-resnet50-mse": "Hybrid ResNet-50, MSE",
    "hybrid-efficientnet-cox": "Hybrid EfficientNet, Cox",
}
WORDS = {  # of column names, as the report prints them
    "ml": "(mL)", "mm": "(mm)", "kps": "KPS", "gpa": "GPA", "suv": "SUV", "ct": "CT", "pt": "PET", "t1n": "T1",
    "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR", "glcm": "GLCM", "glrlm": "GLRLM", "glszm": "GLSZM", "gldm": "GLDM",
    "ngtdm": "NGTDM", "bmi": "BMI", "egfr": "eGFR", "mskcc": "MSKCC", "firstorder": "first-order", "rad": "",
}  # fmt: skip
SPLITS = {"cv": "Cross-validation", "development": "Development (cross-validation)", "test": "Held-out test"}
# Of groups of patients: dark and solid against light and dashed, none of them a family's colour.
SERIES = [("#882255", "-"), ("#3a9e8d", (0, (4, 1.5))), ("#c9a227", (0, (1, 1))), ("#444444", (0, (6, 1, 1, 1)))]
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same outlines on every machine
    "font.size": 9,
    "figure.labelsize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    "svg.hashsalt": "survpack",
}


class Unit(NamedTuple):
    """A unit of time for an axis: its name, its length in days, the step between ticks."""

    name: str
    days: float
    step: float


def save(figure: Figure, folder: Path, name: str, table, *, kind: str = "svg") -> Path:
    """Write `name`.svg (or .png) and `name`.csv into `folder`, both or neither, and let the figure go.

    Parameters
    ----------
    figure : Figure
    folder : path, made if absent
    name : str, without suffix
    table : DataFrame, or dict of model to DataFrame
        What the figure was drawn from. An index of names is written, a plain count is not.
    kind : {"svg", "png"}
        PNG, at 150 dots an inch, is for overlays on images.

    Returns
    -------
    Path
        Of the figure. The same figure gives the same bytes.

    Raises
    ------
    BadInput
        For another kind.
    """
    if kind not in ("svg", "png"):
        raise BadInput(f"figure '{name}': kind is '{kind}', expected svg or png; pass kind='svg' or kind='png'.")
    if isinstance(table, dict):
        table = pd.concat(table, names=["model"]).reset_index(level=0).reset_index(drop=True)
    target = Path(folder) / f"{name}.{kind}"
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    named = not pd.api.types.is_integer_dtype(table.index)
    with written_whole(target) as drawn, written_whole(target.with_suffix(".csv")) as data, mpl.rc_context(STYLE):
        figure.savefig(drawn, format=kind, metadata=metadata, dpi=200 if kind == "svg" else 150)
        if kind == "svg":  # hundredths of a point are enough, and a third smaller; glyph scales stay exact
            drawn.write_text(
                re.sub(r"scale\([^)]*\)|(\d+\.\d\d)\d+", lambda found: found[1] or found[0], drawn.read_text())
            )
        table.to_csv(data, index=named, lineterminator="\n")
    figure.clear()
    return target


def family(model: str) -> str:
    """Family of a model, which is its colour: baseline, clinical, radiomics, hybrid or other."""
    if model in ("age", "volume"):
        return "baseline"
    found = [name for name in ("hybrid", "radiomics", "clinical") if name in model.split("-")]
    return found[0] if found else "other"


def label(model: str) -> str:
    """A model's name as the report prints it; a name we do not know is tidied."""
    return LABELS.get(model, tidy(model))


@mpl.rc_context(STYLE)
def flow(steps: list[dict], splits: dict[str, dict]) -> Figure:
    """Who is in the study: patients in the source, exclusions step by step, the splits and their events.

    Parameters
    ----------
    steps : list of {"step", "excluded", "remaining"}
        As `Cohort.flow`: the first is the source; a step names what a patient must meet.
    splits : dict of str to {"n", "events"}
    """
    excluded = [step for step in steps[1:] if step["excluded"]]
    last = 1 + len(excluded)
    rows = 1 + last + bool(splits)
    figure = Figure(figsize=(WIDTH, 0.92 * rows))
    axes = figure.add_subplot(xlim=(0, 10), ylim=(-rows + 0.55, 0.45))
    axes.axis("off")
    centre = 3.2 if excluded else 5.0
    _arrow(axes, (centre, 0), (centre, 0.33 - last))
    _box(axes, centre, 0, f"{_count(steps[0]['remaining'])}\n{steps[0]['step']}", 3.6)
    for row, step in enumerate(excluded, start=1):
        _arrow(axes, (centre, -row), (5.1, -row))
        _box(axes, 7.5, -row, f"{_count(step['excluded'])} excluded\ndid not meet: {step['step']}", 4.8)
    _box(axes, centre, -last, f"{_count(steps[-1]['remaining'])}\nin the study", 3.6)
    width = min(3.2, 10 / max(len(splits), 1))
    left = np.clip(centre - width * len(splits) / 2, 0, 10 - width * len(splits))
    for place, (name, facts) in enumerate(splits.items()):
        x = left + width * (place + 0.5)
        axes.plot([centre, centre, x], [-last - 0.33, -last - 0.5, -last - 0.5], color=MUTED, lw=1, zorder=0)
        _arrow(axes, (x, -last - 0.5), (x, -last - 0.67))
        share = f" ({facts['events'] / facts['n']:.0%})" if facts["n"] else ""
        title = {"development": "Development"}.get(name, SPLITS.get(name, tidy(name)))
        _box(axes, x, -last - 1, f"{title}\n{_count(facts['n'])}\n{facts['events']} events{share}", width - 0.25)
    return figure


@mpl.rc_context(STYLE)
def kaplan_meier(outcome: pd.DataFrame, by: str | None = None) -> Figure:
    """Survival of the cohort (by the levels of a column) with 95 % bands, censoring ticks and numbers at risk.

    Parameters
    ----------
    outcome : DataFrame
        `time_days`, `event`, and the column `by`; patients without a level are left out.
    """
    groups = {"All patients": outcome}
    if by is not None:
        groups = {str(level): rows for level, rows in outcome.groupby(by, observed=True)}
    below_height = 0.25 + 0.2 * len(groups)
    figure = Figure(figsize=(WIDTH, 3.7 + 1.9 * below_height))
    axes, below = figure.subplots(2, height_ratios=[2.9, below_height])
    _survival(axes, below, groups)
    handles = [Line2D([], [], color=colour, ls=dash) for colour, dash in _series(len(groups))]
    names = [f"{name}: {_events(rows)} events" for name, rows in groups.items()]
    title = f"{tidy(by)} ({_log_rank(groups)})" if by is not None else None
    figure.legend(handles, names, loc="outside upper left", title=title, alignment="left")
    axes.set_ylabel("Survival probability")
    axes.set_xlabel(f"{_unit(outcome['time_days'].max()).name} from baseline")
    return figure


@mpl.rc_context(STYLE)
def risk_groups(tables: dict[str, pd.DataFrame]) -> Figure:
    """Survival of the patients each model calls high and low risk, a panel a model.

    Above each panel: the events of both groups, the log-rank p (lifelines) and, where it can be
    estimated, the Cox hazard ratio of high over low.

    Parameters
    ----------
    tables : dict of model to DataFrame
        `time_days`, `event`, `high_risk` (bool).
    """
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(WIDTH, 2.95 * rows + 0.6))
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.75, 0.5] * rows)
    pairs = [(grid[2 * row, column], grid[2 * row + 1, column]) for row in range(rows) for column in range(columns)]
    for model, (axes, below) in zip(tables, pairs, strict=False):
        table = tables[model]
        high = table["high_risk"].astype(bool)
        groups = {"High": table[high], "Low": table[~high]}
        _survival(axes, below, groups)
        counts = f"Events: high {_events(groups['High'])}, low {_events(groups['Low'])}"
        tests = "; ".join(filter(None, [_log_rank(groups), _hazard_ratio(table)]))
        axes.set_title(label(model), pad=32)
        axes.annotate(f"{counts}\n{tests}", (0, 1), (0, 6), "axes fraction", "offset points", linespacing=1.25)
    for spare in [axes for pair in pairs[len(tables) :] for axes in pair]:
        spare.remove()
    handles = [Line2D([], [], color=colour, ls=dash) for colour, dash in _series(2)]
    figure.legend(handles, ["High predicted risk", "Low predicted risk"], loc="outside upper left", ncols=2)
    figure.supylabel("Survival probability")
    figure.supxlabel(f"{_unit(max(table['time_days'].max() for table in tables.values())).name} from baseline")
    return figure


@mpl.rc_context(STYLE)
def forest(
    scores: dict, reference: float | None = None, *, metric_label: str, null: float | None = 0.5,
    reference_label: str = "Oracle",
) -> Figure:  # fmt: skip
    """A score of every model with its interval: filled where cross-validated, open on the test set.

    Parameters
    ----------
    scores : {"cv": {model: interval}, "test": {model: interval}}
        An interval is `{"estimate", "low", "high"}`; any of them may be None or NaN.
    reference : float, optional
        Drawn as a dashed line with `reference_label`: the score of the true hazard.
    metric_label : str
    null : float, optional
        Drawn as a line: the score of a model that knows nothing.
    """
    lines, headings = _forest_lines(scores)
    height = max(line["y"] for line in lines) if lines else 1
    figure = Figure(figsize=(WIDTH, 0.215 * height + 1.0))
    axes = figure.add_subplot(ylim=(height + 0.7, -0.3))
    digits = _digits([line["estimate"] for line in lines])
    for line in lines:
        _forest_line(axes, line, digits)
    if null is not None:
        axes.axvline(null, color=MUTED, lw=0.8, zorder=0)
    if _known(reference):
        axes.axvline(reference, color=INK, lw=1, ls=(0, (4, 3)), zorder=0, label="reference")
        text = f"{reference_label} {_number(reference, digits)}"
        axes.text(reference, 1, text, transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    names = {line["name_y"]: label(line["model"]) for line in lines} | headings
    _left_labels(axes, names, bold=set(headings))
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(f"{metric_label} (95% interval)")
    present = [split for split in SPLITS if scores.get(split)]
    faces = {"cv": MUTED, "test": "white"}
    handles = [Line2D([], [], color=MUTED, marker="o", mfc=faces.get(split, MUTED)) for split in present]
    if handles:
        figure.legend(handles, [SPLITS[split] for split in present], loc="outside upper left", ncols=2)
    return figure


def forest_table(scores: dict) -> pd.DataFrame:
    """The scores of a forest plot as rows: `split, model, estimate, low, high`."""
    rows = [
        {"split": split, "model": model, **{key: interval.get(key) for key in ("estimate", "low", "high")}}
        for split, models in scores.items()
        for model, interval in models.items()
    ]
    return pd.DataFrame(rows, columns=["split", "model", "estimate", "low", "high"])


@mpl.rc_context(STYLE)
def calibration(
    curves: dict[str, pd.DataFrame], horizon_days: float, all_predicted: dict | None = None, *,
    quantity: str = "event probability",
) -> Figure:  # fmt: skip
    """Observed against predicted probability at the horizon, a panel a model; on the diagonal is right.

    Parameters
    ----------
    curves : dict of model to DataFrame
        `predicted`, `observed`, `low`, `high`: probabilities, one row a group of patients.
    horizon_days : float
    all_predicted : dict of model to array, optional
        Every patient's prediction, drawn as a histogram along the bottom.
    quantity : str
        What the probabilities are of.
    """
    figure, panels = _panels(len(curves), 3, 2.15, sharex=True, sharey=True)
    for (model, curve), axes in zip(curves.items(), panels, strict=True):
        colour = COLOURS[family(model)]
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        if all_predicted and model in all_predicted:
            counts, edges = np.histogram(np.asarray(all_predicted[model], float), bins=25, range=(0, 1))
            axes.bar(
                edges[:-1], 0.15 * counts / max(counts.max(), 1), np.diff(edges), align="edge", color=PALE, zorder=0
            )
        curve = curve.sort_values("predicted")
        axes.vlines(curve["predicted"], curve["low"], curve["high"], color=colour, lw=1.2)
        axes.plot(curve["predicted"], curve["observed"], marker=MARKERS[family(model)], ms=5, lw=0.8, color=colour)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_title(_two_lines(label(model)))
    unit = _unit(horizon_days)
    when = f"at {horizon_days / unit.days:.3g} {unit.name.lower()}"
    _label_axes(figure, panels, f"Predicted {quantity} {when}", f"Observed {quantity}")
    return figure


@mpl.rc_context(STYLE)
def roc_over_time(table: pd.DataFrame) -> Figure:
    """Time-dependent AUC, a panel a model with its band; the other models in pale grey behind it.

    Parameters
    ----------
    table : DataFrame
        `model`, `time_days`, `auc`, and `low`, `high` where there are intervals.
    """
    models = {model: rows.sort_values("time_days") for model, rows in table.groupby("model", sort=False)}
    unit = _unit(table["time_days"].max())
    figure, panels = _panels(len(models), 2, 1.75, sharex=True, sharey=True)
    for (model, rows), axes in zip(models.items(), panels, strict=True):
        colour = COLOURS[family(model)]
        axes.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        for other in models.values():
            axes.plot(other["time_days"] / unit.days, other["auc"], color=PALE, lw=0.9, zorder=1)
        if {"low", "high"} <= set(rows):
            axes.fill_between(rows["time_days"] / unit.days, *rows[["low", "high"]].astype(float).to_numpy().T,
                              color=colour, alpha=0.18, lw=0)  # fmt: skip
        marker = MARKERS[family(model)]
        axes.plot(rows["time_days"] / unit.days, rows["auc"], color=colour, marker=marker, ms=4, label=model)
        axes.set_title(label(model))
        axes.set_xticks(np.arange(0, table["time_days"].max() / unit.days + 1e-9, unit.step))
    _label_axes(figure, panels, f"{unit.name} from baseline", "Time-dependent AUC")
    return figure


@mpl.rc_context(STYLE)
def importance(table: pd.DataFrame, *, axis_label: str = "Loss of concordance when shuffled", most: int = 15) -> Figure:
    """Importance of features, greatest first, with intervals; right of zero the model relies on it.

    Parameters
    ----------
    table : DataFrame
        `feature`, `importance`, `low`, `high`; the `most` greatest are shown.
    axis_label : str
        What importance is.
    """
    top = table.sort_values("importance", ascending=False, kind="stable").head(most).reset_index(drop=True)
    figure = Figure(figsize=(WIDTH, 0.27 * len(top) + 0.9))
    axes = figure.add_subplot(ylim=(len(top) - 0.4, -0.6))
    axes.axvline(0, color=MUTED, lw=0.8, zorder=0)
    axes.hlines(top.index, *top[["low", "high"]].astype(float).to_numpy().T, color=PLAIN, lw=1.4)
    axes.plot(top["importance"], top.index, "o", color=PLAIN, ms=5, label="importance")
    axes.set_yticks(top.index, [_feature(name) for name in top["feature"]])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(axis_label)
    return figure


@mpl.rc_context(STYLE)
def shap_summary(
    values: pd.DataFrame,
    features: pd.DataFrame,
    *,
    axis_label: str = "SHAP value: contribution to risk",
    most: int = 10,
) -> Figure:
    """What each feature contributes to each patient's prediction, coloured by the feature's own value.

    Parameters
    ----------
    values : DataFrame, shape (patients, features)
        SHAP values; right is worse. The `most` features of greatest mean size are shown.
    features : DataFrame, shape (patients, features)
        The features themselves; text is coloured by its sorted levels, missing is pale grey.
    """
    order = values.abs().mean().sort_values(ascending=False, kind="stable").index[:most]
    figure = Figure(figsize=(WIDTH, max(2.4, 0.36 * len(order) + 1.0)))
    axes = figure.add_subplot(ylim=(len(order) - 0.45, -0.55))
    axes.axvline(0, color=MUTED, lw=0.8, zorder=0)
    span = float(np.ptp(values[order].to_numpy())) or 1.0
    colours = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256))).with_extremes(bad=PALE)
    for row, name in enumerate(order):
        shap = values[name].to_numpy(float)
        axes.scatter(shap, row + _swarm(shap, span), c=_ranks(features[name]), cmap=colours,
                     vmin=0, vmax=1, s=9, lw=0, label=name, plotnonfinite=True,
                     rasterized=len(values) * len(order) > 400)  # fmt: skip
    axes.set_yticks(range(len(order)), [_feature(name) for name in order])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(axis_label)
    bar = figure.colorbar(ScalarMappable(cmap=colours), ax=axes, aspect=35, pad=0.02, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"])
    bar.ax.tick_params(length=0)
    bar.set_label("Feature value", labelpad=-12)
    bar.outline.set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def gradcam(panels: list[dict], *, bar_label: str = "Attribution, relative to the greatest in its panel") -> Figure:
    """Where a network looked: a slice in grey, its attribution over it, the outline of the tumour.

    Parameters
    ----------
    panels : list of dict
        `image`, `attribution` (float) and `mask` (int; nonzero is outlined), 2-D arrays of one
        shape, already oriented as they are to be seen (first row on top); `title`; `spacing`, mm
        of a row and of a column; `left_label` and `right_label`, the patient's sides ("R" and "L"
        in radiological convention). A map without any attribution says so.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, rows * (WIDTH / max(columns, 2) + 0.35) + 0.7))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, axes in zip(panels, grid, strict=False):
        _overlay(axes, panel, characters=int(76 / columns))
    for spare in grid[len(panels) :]:
        spare.remove()
    level = np.linspace(0, 1, 256)
    seen = _heat(level)[:, :3] * _heat(level)[:, 3:] + 0.45 * (
        1 - _heat(level)[:, 3:]
    )  # over mid-grey, as in the panels
    bar = figure.colorbar(ScalarMappable(cmap=ListedColormap(seen)), ax=list(grid[: len(panels)]), location="bottom",
                          shrink=0.55, aspect=40, pad=0.03, ticks=[0, 0.5, 1])  # fmt: skip
    bar.set_label(f"{bar_label}\n(cyan outline: tumour; white bar: 20 mm)", linespacing=1.3)
    bar.outline.set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def crops(crop_set, at: int) -> Figure:
    """What a network sees of one patient: the middle axial slice of every channel."""
    channels = [*crop_set.images[at], *crop_set.masks[at]]
    names = [*map(_feature, crop_set.modalities), *crop_set.labels]
    figure, panels = _panels(len(channels), min(len(channels), 4), 1.7)
    for axes, channel, name in zip(panels, channels, names, strict=False):
        axes.imshow(channel[:, :, channel.shape[2] // 2].T.astype(float), cmap="gray")
        axes.set_title(name)
        axes.set_axis_off()
    return figure


@mpl.rc_context(STYLE)
def biomarker_heatmap(correlation: pd.DataFrame) -> Figure:
    """Correlation of the biomarkers, ordered so that those alike lie together.

    Parameters
    ----------
    correlation : DataFrame, square
        NaN (a constant biomarker) is left grey. Correlations are printed for up to 10 biomarkers,
        names for up to 45; beyond that both are in the CSV only.
    """
    order = _alike(correlation.to_numpy(float))
    ordered = correlation.iloc[order, order]
    values, count = ordered.to_numpy(float), len(order)
    figure = Figure(figsize=(WIDTH, max(2.6, 0.17 * count + 1.4) if count <= 45 else 5.6))
    axes = figure.add_subplot()
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad=PALE)
    mesh = axes.imshow(values, cmap=colours, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    if count <= 45:
        names = [_feature(name) if count <= 20 else _shortened(tidy(name), 32) for name in ordered.index]
        axes.set_yticks(range(count), [f"{name}  {place}" for place, name in enumerate(names, start=1)])
        axes.set_xticks(range(0, count, 1 + count // 25), range(1, count + 1, 1 + count // 25))
    else:
        axes.set(xticks=[], yticks=[], ylabel=f"{count} biomarkers in clustered order")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(np.isfinite(values)) if count <= 10 else []:
        value = values[row, column]
        axes.text(column, row, _number(value, 1), ha="center", va="center", color="white" if abs(value) > 0.6 else INK)
    bar = figure.colorbar(mesh, ax=axes, shrink=min(1, 2.2 / figure.get_figheight()), aspect=18, ticks=[-1, 0, 1])
    bar.set_label("Correlation", labelpad=-4)
    bar.outline.set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def biomarker_distributions(table: pd.DataFrame, columns: list[str], units: dict[str, str] | None = None) -> Figure:
    """How each biomarker is distributed: counts of patients, the median, how many are missing.

    Parameters
    ----------
    table : DataFrame, one row a patient
    columns : list of str
        Numbers are drawn as histograms (on a log axis where positive and skewed), levels as bars,
        the six most frequent of them.
    units : dict of column to unit, optional
    """
    figure, panels = _panels(len(columns), 3, 1.8)
    for name, axes in zip(columns, panels, strict=True):
        column = table[name]
        unit = f" {units[name]}" if units and units.get(name) else ""
        missing = f"; {column.isna().sum()} missing" if column.isna().any() else ""
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            axes.set_xlabel(f"{_histogram(axes, column.dropna().to_numpy(float))}{unit}{missing}")
        else:
            axes.set_xlabel(f"{_levels(axes, column.dropna().astype(str))}{missing}")
        axes.set_title(_wrapped(tidy(name), 18))
    figure.supylabel("Patients")
    return figure


@mpl.rc_context(STYLE)
def learning_curves(table: pd.DataFrame) -> Figure:
    """Training loss by epoch: a thin line a fold, a thick one their mean; a panel a model if there are several.

    Parameters
    ----------
    table : DataFrame
        `fold`, `epoch`, `loss`, and `model` where there are several.
    """
    models = dict(list(table.groupby("model", sort=False))) if "model" in table else {"": table}
    figure, panels = _panels(len(models), 2, 2.2)
    for (model, rows), axes in zip(models.items(), panels, strict=True):
        colour = COLOURS[family(model)] if model else INK
        for fold, line in rows.sort_values("epoch").groupby("fold"):
            axes.plot(line["epoch"], line["loss"], color=MUTED, alpha=0.6, lw=0.8, label=f"fold {fold}")
        mean = rows.groupby("epoch")["loss"].mean()
        axes.plot(mean.index, mean, color=colour, lw=2.2, label="mean", marker="o" if len(mean) == 1 else None)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_title(label(model) if model else "")
    handles = [Line2D([], [], color=INK, lw=2.2), Line2D([], [], color=MUTED, lw=0.8)]
    figure.legend(handles, ["Mean of the folds", "One fold"], loc="outside upper left", ncols=2)
    _label_axes(figure, panels, "Epoch", "Training loss")
    return figure


@mpl.rc_context(STYLE)
def predicted_vs_observed(table: pd.DataFrame) -> Figure:
    """Observed against predicted survival, a panel a model; censored patients are open arrows: at least so long.

    Parameters
    ----------
    table : DataFrame
        `model`, `days_predicted`, `time_days`, `event`.
    """
    longest = table[["days_predicted", "time_days"]].max().max()
    unit = _unit(longest)
    models = dict(list(table.groupby("model", sort=False)))
    figure, panels = _panels(len(models), 3, 2.15, sharex=True, sharey=True)
    for (model, rows), axes in zip(models.items(), panels, strict=True):
        colour = COLOURS[family(model)]
        event = rows["event"].astype(bool)
        x, y = rows["days_predicted"] / unit.days, rows["time_days"] / unit.days
        axes.plot([0, longest / unit.days], [0, longest / unit.days], color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        axes.plot(x[event], y[event], "o", color=colour, ms=3.5, mew=0, alpha=0.75, label="event")
        axes.plot(x[~event], y[~event], "^", mfc="none", mec=colour, ms=5, mew=0.9, label="censored")
        ticks = np.arange(0, longest / unit.days + 1e-9, 2 * unit.step)
        axes.set(xticks=ticks, yticks=ticks, aspect="equal")
        axes.set_title(_two_lines(label(model)))
    handles = [Line2D([], [], color=MUTED, marker="o", ls=""), Line2D([], [], mec=MUTED, mfc="none", marker="^", ls="")]
    names = ["Event", "Censored: event-free at least this long"]
    figure.legend(handles, names, loc="outside upper left", ncols=2, handletextpad=0.2)
    _label_axes(figure, panels, f"Predicted survival, {unit.name.lower()}", f"Observed survival, {unit.name.lower()}")
    return figure


def _panels(count: int, columns: int, height: float, **shared) -> tuple[Figure, list]:
    """A grid of `count` panels; inner axes keep their ticks where the panel below is missing."""
    if columns == 3 and count == 4:  # two wider ones a row rather than one left over
        columns, height = 2, 1.45 * height
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, max(height * rows + 0.6, 3.2 if columns == 1 else 0)))
    grid = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for spare in grid[count:]:
        spare.remove()
    for axes in grid[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    return figure, list(grid[:count])


def _label_axes(figure: Figure, panels: list, x: str, y: str) -> None:
    """One label for all panels; beside its axes where there is only one."""
    if len(panels) == 1:
        panels[0].set(xlabel=x, ylabel=y)
    else:
        figure.supxlabel(x)
        figure.supylabel(y)


def _unit(longest_days: float) -> Unit:
    """Days, months or years, with at most seven ticks."""
    units = [("Days", 1, 90, (1, 2, 5, 10, 15)), ("Months", 365.25 / 12, 5 * 365.25, (1, 2, 3, 6, 12)),
             ("Years", 365.25, np.inf, (1, 2, 5, 10, 20))]  # fmt: skip
    name, days, _, steps = next(unit for unit in units if longest_days <= unit[2])
    return Unit(name, days, next((step for step in steps if longest_days / days / step <= 6.5), steps[-1]))


def _series(count: int) -> list:
    if count == 1:
        return [(PLAIN, "-")]
    many = len(SERIES)  # past the fourth group the colours return with another dash
    return [(SERIES[k % many][0], SERIES[(k + k // many) % many][1]) for k in range(count)]


def _survival(axes, below, groups: dict[str, pd.DataFrame]) -> None:
    """Kaplan-Meier curves into `axes`, the numbers at risk into `below`."""
    from lifelines import KaplanMeierFitter

    longest = max((rows["time_days"].max() for rows in groups.values() if len(rows)), default=1.0)
    unit = _unit(longest)
    ticks = np.arange(0, longest / unit.days + 1e-9, unit.step)
    for row, ((name, rows), (colour, dash)) in enumerate(zip(groups.items(), _series(len(groups)), strict=True)):
        days, event = rows["time_days"].to_numpy(float), rows["event"].to_numpy(bool)
        for tick in ticks:
            below.text(tick, row, int((days >= tick * unit.days).sum()), ha="center", va="center")
        if not len(rows):
            continue
        fit = KaplanMeierFitter().fit(days, event)
        time = fit.survival_function_.index.to_numpy() / unit.days
        axes.step(time, fit.survival_function_.iloc[:, 0], where="post", color=colour, ls=dash, label=name)
        axes.fill_between(time, *fit.confidence_interval_.to_numpy().T, step="post", color=colour, alpha=0.13, lw=0)
        axes.plot(days[~event] / unit.days, fit.predict(days[~event]), "|", color=colour, ms=5, mew=0.8)
    edge = (-0.03 * longest / unit.days, 1.03 * longest / unit.days)
    axes.set(xlim=edge, ylim=(0, 1.03), xticks=ticks, yticks=[0, 0.25, 0.5, 0.75, 1])
    below.set(xlim=edge, ylim=(len(groups) - 0.4, -0.6), xticks=[])
    below.set_yticks(range(len(groups)), [_shortened(name, 18) for name in groups])
    for text, (colour, _) in zip(below.get_yticklabels(), _series(len(groups)), strict=True):
        text.set_color(colour)
    below.spines[:].set_visible(False)
    below.tick_params(length=0, pad=9)
    below.set_title("Number at risk", fontweight="normal", fontsize=9, pad=2)


def _events(rows: pd.DataFrame) -> str:
    return f"{int(rows['event'].sum())} of {len(rows)}"


def _log_rank(groups: dict[str, pd.DataFrame]) -> str:
    """Log-rank p over the groups, as text; says so where there is nothing to test."""
    from lifelines.statistics import multivariate_logrank_test

    if len(groups) < 2:
        return ""
    rows = pd.concat(groups, names=["group"]).reset_index(level=0)
    if rows["group"].nunique() < 2 or not rows["event"].any():
        return "log-rank not estimable"
    p = multivariate_logrank_test(rows["time_days"], rows["group"], rows["event"]).p_value
    return "log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.{3 if p < 0.01 else 2}f}"


def _hazard_ratio(table: pd.DataFrame) -> str:
    """Cox hazard ratio of high over low risk, as text; empty where the likelihood has no maximum."""
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    table = table[["time_days", "event", "high_risk"]].astype(float)
    if table.groupby("high_risk")["event"].sum().gt(0).sum() < 2:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # separation shows in the width of the interval, tested below
            row = CoxPHFitter().fit(table, "time_days", "event").summary.iloc[0]
    except ConvergenceError:
        return ""
    estimate, low, high = (row[f"exp(coef){part}"] for part in ("", " lower 95%", " upper 95%"))
    return f"HR {estimate:.1f} ({low:.1f} to {high:.1f})" if np.isfinite(high) and high < 1000 else ""


def _forest_lines(scores: dict) -> tuple[list[dict], dict[float, str]]:
    """One line a model and split, with its place `y`; and the place of each section's heading."""
    present = [split for split in SPLITS if scores.get(split)]
    models = list(dict.fromkeys(model for split in present for model in scores[split]))
    lines, headings, y = [], {}, 0.0
    for section, families in SECTIONS.items():
        members = [model for name in families for model in models if family(model) == name]
        if members:
            headings[y] = section
            y += 1.15
        for model in members:
            own = [split for split in present if model in scores[split]]
            for place, split in enumerate(own):
                interval = {key: scores[split][model].get(key) for key in ("estimate", "low", "high")}
                lines.append(
                    {"model": model, "split": split, "y": y + place, "name_y": y + (len(own) - 1) / 2} | interval
                )
            y += len(own) + 0.35
        y += 0.25 if members else 0
    return lines, headings


def _forest_line(axes, line: dict, digits: int) -> None:
    """One marker with its interval, and the numbers at the right."""
    kind = family(line["model"])
    colour, y = COLOURS[kind], line["y"]
    text = "not estimable"
    if _known(line["estimate"]):
        text = _number(line["estimate"], digits)
        if _known(line["low"]) and _known(line["high"]):
            axes.plot([line["low"], line["high"]], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            text += f" ({_number(line['low'], digits)} to {_number(line['high'], digits)})"
        axes.plot(line["estimate"], y, MARKERS[kind], color=colour, mfc=colour if line["split"] == "cv" else "white",
                  mew=1.3, ms=6, label=f"{line['split']} {line['model']}")  # fmt: skip
    axes.text(1.03, y, text, transform=axes.get_yaxis_transform(), va="center")


def _left_labels(axes, names: dict[float, str], bold: set[float]) -> None:
    """Tick labels that begin on one line at the left, as in a table."""
    size = mpl.rcParams["ytick.labelsize"]
    names = {y: _wrapped(name, 30) for y, name in names.items()}
    widths = [
        TextPath((0, 0), line, size=size).get_extents().width for name in names.values() for line in name.split("\n")
    ]
    axes.set_yticks(list(names), list(names.values()), ha="left")
    axes.tick_params(axis="y", length=0, pad=max(widths, default=0) + 8)
    for text, y in zip(axes.get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if y in bold else "normal")


def _overlay(axes, panel: dict, characters: int) -> None:
    """One slice with attribution, outline, sides and a bar of 20 mm."""
    image = np.asarray(panel["image"], float)
    height, width = panel.get("spacing", (1.0, 1.0))
    extent = (0, image.shape[1] * width, image.shape[0] * height, 0)
    low, high = np.nanpercentile(image, [0.5, 99.5])
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), extent=extent)
    share = np.clip(np.nan_to_num(np.asarray(panel["attribution"], float)), 0, None)
    if share.max() > 0:
        share = share / share.max()
        axes.imshow(_heat(share), extent=extent)
    else:
        axes.text(0.5, 0.1, "no attribution", color="white", transform=axes.transAxes, ha="center")
    tumour = np.asarray(panel["mask"]) > 0
    if tumour.any() and not tumour.all():
        rows, columns = (
            (np.arange(size) + 0.5) * step for size, step in zip(tumour.shape, (height, width), strict=True)
        )
        axes.contour(columns, rows, tumour, levels=[0.5], colors="#5ce1e6", linewidths=1.1)
    for side, x in (("left_label", 0.03), ("right_label", 0.97)):
        axes.text(x, 0.97, panel.get(side, ""), color="white", transform=axes.transAxes, va="top",
                  ha="left" if x < 0.5 else "right", fontweight="bold")  # fmt: skip
    axes.add_patch(Rectangle((extent[1] * 0.04, extent[2] * 0.95), 20, extent[2] * 0.012, color="white", lw=0))
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    axes.axis("off")
    axes.set_title(_wrapped(panel.get("title", ""), characters), fontweight="normal", fontsize=9)


def _heat(share: np.ndarray) -> np.ndarray:
    """Colours of an attribution from 0 to 1, the fainter the smaller; shape (…, 4)."""
    colours = mpl.colormaps["inferno"](share)
    colours[..., 3] = 0.75 * share
    return colours


def _histogram(axes, values: np.ndarray) -> str:
    """A histogram, on a log axis where the values are positive and skewed; gives the median as text."""
    from scipy.stats import skew

    if not len(values):
        return "no value"
    distinct = np.unique(values)
    logarithmic = values.min() > 0 and len(distinct) > 12 and skew(values) > 1.5
    if len(distinct) <= 12:  # counts and scores: one bar a value
        step = np.diff(distinct).min() if len(distinct) > 1 else 1.0
        edges = np.concatenate([distinct - 0.4 * step, distinct + 0.4 * step])
        edges.sort()
    else:
        edges = np.histogram_bin_edges(np.log10(values) if logarithmic else values, bins=16)
        edges = 10**edges if logarithmic else edges
    edges[-1] = max(edges[-1], values.max())  # 10**log10(x) may fall short of x
    axes.hist(values, bins=edges, color=PLAIN, edgecolor="white", lw=0.3)
    axes.axvline(np.median(values), color=INK, lw=1, ls=(0, (3, 2)))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=bool((values % 1 == 0).all())))
    return f"median {np.median(values):.3g}"


def _levels(axes, column: pd.Series) -> str:
    """Bars of the most frequent levels, each under its name; says how many are not shown."""
    counts = column.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    shown = counts.head(6)
    axes.barh(range(len(shown)), shown, height=0.3, color=PLAIN)
    for row, (level, count) in enumerate(shown.items()):
        axes.text(0, row - 0.25, f" {_shortened(level, 16)}, {count}", va="bottom")
    axes.set(ylim=(len(shown) - 0.6, -0.85), xlim=(0, None), yticks=[], xticks=[])
    axes.spines["bottom"].set_visible(False)
    return f"{len(counts) - len(shown)} rarer levels" if len(counts) > len(shown) else ""


def _swarm(values: np.ndarray, span: float) -> np.ndarray:
    """Offsets that spread points of like value about their row: stacked by turns above and below."""
    bins = np.floor(values / span * 80)
    place = pd.Series(values).groupby(bins).cumcount().to_numpy() % 17  # a taller pile begins again
    return 0.38 * np.ceil(place / 2) / 8 * np.where(place % 2, 1, -1)


def _ranks(column: pd.Series) -> np.ndarray:
    """Rank from 0 to 1; text by its sorted levels, one level only in the middle, missing as NaN."""
    number = pd.to_numeric(column, errors="coerce")
    if number.isna().all():
        codes, _ = pd.factorize(column, sort=True)
        number = pd.Series(codes).where(codes >= 0)
    rank = number.rank(method="average")
    spread = rank.max() - rank.min()
    return ((rank - rank.min()) / spread if spread else rank * 0 + 0.5).to_numpy(float)


def _alike(correlation: np.ndarray) -> np.ndarray:
    """Order of the leaves of an average-linkage tree over 1 − |r|."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(correlation) < 3:
        return np.arange(len(correlation))
    distance = 1 - np.abs(np.nan_to_num(correlation))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform((distance + distance.T) / 2), "average", optimal_ordering=True))


def _box(axes, x: float, y: float, text: str, width: float) -> None:
    axes.add_patch(Rectangle((x - width / 2, y - 0.33), width, 0.66, fc="white", ec=MUTED, lw=0.9))
    wrapped = "\n".join(_wrapped(line, int(width * 8.2)) for line in text.split("\n"))
    axes.text(x, y, wrapped, ha="center", va="center", linespacing=1.25)


def _arrow(axes, start: tuple, end: tuple) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1, "shrinkA": 0, "shrinkB": 0},
                  zorder=0)  # fmt: skip


def _count(number: int) -> str:
    return f"{number} patient{'' if number == 1 else 's'}"


def _known(value) -> bool:
    return value is not None and bool(np.isfinite(value))


def _digits(values: list) -> int:
    """Two decimals for scores about one, none for days."""
    return 0 if max((abs(value) for value in values if _known(value)), default=0) >= 20 else 2


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def tidy(name: str) -> str:
    """A column's name in words: `rad_t1c_glcm_JointEntropy` is "T1c GLCM joint entropy"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", str(name)).replace("-", " ").replace("_", " ").split()
    words = [word.lower() if word[1:].islower() and word[0].isupper() else word for word in words]
    text = " ".join(filter(None, (WORDS.get(word, word) for word in words)))
    return text[:1].upper() + text[1:]


def _feature(name: str) -> str:
    return _wrapped(_shortened(tidy(name), 60), 32)


def _wrapped(text: str, characters: int) -> str:
    return "\n".join(textwrap.wrap(text, characters)) or text


def _two_lines(text: str) -> str:
    """The text, broken at its comma where it is wider than a third of the page."""
    return _wrapped(text, 22) if "," not in text or len(text) <= 20 else text.replace(", ", ",\n")


def _shortened(text: str, characters: int) -> str:
    """The text, its middle left out where it is too long: radiomics names differ at their ends."""
    if len(text) <= characters:
        return text
    half = (characters - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
