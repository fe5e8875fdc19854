"""How right the models are."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    PALE,
    SPLITS,
    STYLE,
    WIDTH,
    beside,
    by_section,
    digits_of,
    family,
    group_styles,
    label,
    label_axes,
    panel_grid,
    two_lines,
    unit_of_time,
    wrap,
)
from survpack.figures.survival import draw_survival, events_of, log_rank
from survpack.numbers import amount, interval_text, known

FEW = 14  # models of a forest plot that have a row for each of their splits; of more, both splits share a row
BESIDE_SPLITS = {"cv": "Cross-validation", "test": "Held-out test"}


@mpl.rc_context(STYLE)
def risk_groups(tables: dict[str, pd.DataFrame], told: dict[str, str] | None = None) -> Figure:
    """Survival of the patients each model calls high and low risk, a panel a model.

    Above each panel: the events of both groups, and what is told of their difference; else the log-rank p.

    Parameters
    ----------
    tables : dict of model to DataFrame
        `time_days`, `event`, `high_risk` (bool).
    told : dict of model to str, optional
        The scores of these groups as the tables print them (`tables.group_words`): a figure makes none of its own.
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
        draw_survival(axes, below, groups)
        counts = f"Events: high {events_of(groups['High'])}, low {events_of(groups['Low'])}"
        tests = told[model] if told else log_rank(groups)
        axes.set_title(label(model), pad=32)
        axes.annotate(f"{counts}\n{tests}", (0, 1), (0, 6), "axes fraction", "offset points", linespacing=1.25)
    for spare in [axes for pair in pairs[len(tables) :] for axes in pair]:
        spare.remove()
    handles = [Line2D([], [], color=colour, ls=dash) for colour, dash in group_styles(2)]
    figure.legend(handles, ["High predicted risk", "Low predicted risk"], loc="outside upper left", ncols=2)
    figure.supylabel("Survival probability")
    figure.supxlabel(f"{unit_of_time(max(table['time_days'].max() for table in tables.values())).name} from baseline")
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
    digits = digits_of([line["estimate"] for line in lines])
    for line in lines:
        _forest_line(axes, line, digits)
    for column, split in {line["column"]: line["split"] for line in lines if line["column"] is not None}.items():
        _in_column(axes, column, 0, BESIDE_SPLITS[split], color=MUTED)
    if null is not None:
        axes.axvline(null, color=MUTED, lw=0.8, zorder=0)
    if known(reference):
        axes.axvline(reference, color=INK, lw=1, ls=(0, (4, 3)), zorder=0, label="reference")
        text = f"{reference_label} {amount(reference, digits)}"
        axes.text(reference, 1, text, transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    names = {line["name_y"]: label(line["model"]) for line in lines} | headings
    _left_labels(axes, names, bold=set(headings))
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(f"{metric_label}, with interval")
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
def roc_over_time(table: pd.DataFrame, shown: list[str] | None = None) -> Figure:
    """Time-dependent AUC, a panel a model with its band; the other models in pale grey behind it.

    Parameters
    ----------
    table : DataFrame
        `model`, `time_days`, `auc`, and `low`, `high` where there are intervals.
    shown : list of str, optional
        The models that have a panel, where not all of them do; none of these in the table: all.
    """
    models = {model: rows.sort_values("time_days") for model, rows in table.groupby("model", sort=False)}
    chosen = {model: rows for model, rows in models.items() if model in (shown or models)} or models
    unit = unit_of_time(table["time_days"].max())
    figure, panels = panel_grid(len(chosen), 2, 1.75, sharex=True, sharey=True)
    for (model, rows), axes in zip(chosen.items(), panels, strict=True):
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
    label_axes(figure, panels, f"{unit.name} from baseline", "Time-dependent AUC")
    return figure


@mpl.rc_context(STYLE)
def predicted_vs_observed(table: pd.DataFrame) -> Figure:
    """Observed against predicted survival, a panel a model; censored patients are open arrows: at least so long.

    Parameters
    ----------
    table : DataFrame
        `model`, `days_predicted`, `time_days`, `event`; a prediction that is no day (infinite) has no mark.
    """
    table = table[np.isfinite(table["days_predicted"])]
    longest = table[["days_predicted", "time_days"]].max().max()
    unit = unit_of_time(longest)
    step, end = 2 * unit.step, longest / unit.days + 1e-9
    ticks = np.arange(0, end, step) if end < 7 * step else MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(0, end)
    ticks = ticks[ticks <= end]
    models = dict(list(table.groupby("model", sort=False)))
    figure, panels = panel_grid(len(models), 3, 2.15, sharex=True, sharey=True)
    for (model, rows), axes in zip(models.items(), panels, strict=True):
        colour = COLOURS[family(model)]
        event = rows["event"].astype(bool)
        x, y = rows["days_predicted"] / unit.days, rows["time_days"] / unit.days
        axes.plot([0, longest / unit.days], [0, longest / unit.days], color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        axes.plot(x[event], y[event], "o", color=colour, ms=3.5, mew=0, alpha=0.75, label="event")
        axes.plot(x[~event], y[~event], "^", mfc="none", mec=colour, ms=5, mew=0.9, label="censored")
        axes.set(xticks=ticks, yticks=ticks, aspect="equal")
        axes.set_title(two_lines(label(model)))
    handles = [Line2D([], [], color=MUTED, marker="o", ls=""), Line2D([], [], mec=MUTED, mfc="none", marker="^", ls="")]
    names = ["Event", "Censored: event-free at least this long"]
    figure.legend(handles, names, loc="outside upper left", ncols=2, handletextpad=0.2)
    label_axes(figure, panels, f"Predicted survival, {unit.name.lower()}", f"Observed survival, {unit.name.lower()}")
    return figure


def _forest_lines(scores: dict) -> tuple[list[dict], dict[float, str]]:
    """One line a model and split, with its place `y` and the `column` of its numbers; and each heading's place."""
    present = [split for split in SPLITS if scores.get(split)]
    models = list(dict.fromkeys(model for split in present for model in scores[split]))
    dense = len(models) > FEW
    step = 0.4 if dense else 1.0
    lines, headings, y = [], {}, 0.0
    for heading, members in by_section(models).items():
        headings[y] = heading
        y += 1.15
        for model in members:
            own = [split for split in present if model in scores[split]]
            middle = y + (0.2 if dense else (len(own) - 1) / 2)
            for place, split in enumerate(own):
                interval = {key: scores[split][model].get(key) for key in ("estimate", "low", "high")}
                column = present.index(split) if dense else None
                where = {"y": y + step * place, "name_y": middle, "column": column}
                lines.append({"model": model, "split": split} | where | interval)
            y += 1.2 if dense else len(own) + 0.35
        y += 0.25
    return lines, headings


def _forest_line(axes, line: dict, digits: int) -> None:
    """One marker with its interval, and the numbers at the right."""
    kind, dense = family(line["model"]), line["column"] is not None
    colour, y = COLOURS[kind], line["y"]
    if known(line["estimate"]):
        if known(line["low"]) and known(line["high"]):
            axes.plot([line["low"], line["high"]], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
        axes.plot(line["estimate"], y, MARKERS[kind], color=colour, mfc=colour if line["split"] == "cv" else "white",
                  mew=1.1 if dense else 1.3, ms=5 if dense else 6, label=f"{line['split']} {line['model']}")  # fmt: skip
    text = interval_text(line, digits) or "not estimable"
    if dense:
        _in_column(axes, line["column"], line["name_y"], text)
    else:
        beside(axes, y, text)


def _in_column(axes, column: int, row: float, text: str, **looks) -> None:
    """Small numbers at the right of a row, in one of two columns."""
    place = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "va": "center_baseline",
        "fontsize": 8,
    }
    axes.annotate(text, (1.02, row), (84 * column, 0), **place | looks)


def _left_labels(axes, names: dict[float, str], bold: set[float]) -> None:
    """Tick labels that begin on one line at the left, as in a table."""
    size = mpl.rcParams["ytick.labelsize"]
    names = {y: wrap(name, 30) for y, name in names.items()}
    widths = [
        TextPath((0, 0), line, size=size).get_extents().width for name in names.values() for line in name.split("\n")
    ]
    axes.set_yticks(list(names), list(names.values()), ha="left")
    axes.tick_params(axis="y", length=0, pad=max(widths, default=0) + 8)
    for text, y in zip(axes.get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if y in bold else "normal")
