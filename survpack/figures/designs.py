"""What each way to split makes of the same models, and where the spread of a score comes from."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import COLOURS, INK, MARKERS, MUTED, SERIES, STYLE, WIDTH, family, label, name_rows
from survpack.numbers import known

DESIGNS = {
    "repeated": "Repeated\ncross-validation",
    "by-site": "One site\nleft out",
    "temporal": "Latest quarter\nleft out",
    "external": "Trained\nelsewhere",
}
SPREADS = {  # column: words, colour, mark
    "interval": ("Patients (half of the interval, over 1.96)", INK, "o"),
    "split_sd": ("Splits (s.d. of repeats)", SERIES[0][0], "s"),
    "seed_sd": ("Seeds of the network (s.d.)", SERIES[2][0], "^"),
    "fold_sd": ("Folds (s.d.)", SERIES[1][0], "D"),
}


@mpl.rc_context(STYLE)
def by_design(table: pd.DataFrame, metric: str = "harrell_c", chance: float | None = 0.5) -> Figure:
    """A score of each model (rows) under each design (columns), with its interval.

    Parameters
    ----------
    table : DataFrame
        Of `designs_scores.score`.
    metric : str
    chance : float, optional
        Of a model that knows nothing; a dashed line.
    """
    rows = table[table["metric"] == metric]
    columns = list(dict.fromkeys(zip(rows["design"], rows["source"], strict=True)))
    models = list(dict.fromkeys(rows["model"]))
    figure = Figure(figsize=(WIDTH, 0.3 * len(models) + 1.4))
    panels = figure.subplots(1, max(len(columns), 1), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (design, source) in zip(panels, columns, strict=False):
        shown = rows[(rows["design"] == design) & (rows["source"] == source)].to_dict("records")
        for row in shown:
            kind, at = family(row["model"]), models.index(row["model"])
            axes.plot([_number(row["low"]), _number(row["high"])], [at, at], color=COLOURS[kind], lw=1.4)
            axes.plot(_number(row["estimate"]), at, MARKERS[kind], color=COLOURS[kind], ms=5)
        if chance is not None:
            axes.axvline(chance, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        axes.set_title(design_name(design, source, lines=True))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_ylim(len(models) - 0.4, -0.6)
    name_rows(panels[0], [model_name(model) for model in models])
    figure.supxlabel(
        {"harrell_c": "Harrell's C", "uno_c": "Uno's C", "ibs": "Integrated Brier score"}.get(metric, metric)
    )
    return figure


@mpl.rc_context(STYLE)
def spread(table: pd.DataFrame, metric_label: str = "Harrell's C") -> Figure:
    """Where a score's spread comes from, all as standard deviations: patients, splits, seeds, folds.

    Parameters
    ----------
    table : DataFrame
        Of `designs_scores.spread`: `model`, `low`, `high`, `fold_sd`, `split_sd`, `seed_sd`.
    """
    figure = Figure(figsize=(WIDTH, 0.42 * len(table) + 1.5))
    axes = figure.add_subplot(ylim=(len(table) - 0.4, -0.6))
    for at, row in enumerate(table.to_dict("records")):
        row["interval"] = (_number(row["high"]) - _number(row["low"])) / (2 * 1.96)
        for lane, (name, (_, colour, mark)) in zip((-0.24, -0.08, 0.08, 0.24), SPREADS.items(), strict=True):
            value = _number(row.get(name))
            axes.plot([0, value], [at + lane] * 2, color=colour, lw=1.2)
            axes.plot(value, at + lane, mark, color=colour, ms=4.5)
    for words, colour, mark in SPREADS.values():
        axes.plot([], [], mark, color=colour, ls="-", ms=4.5, lw=1.2, label=words)
    axes.set_xlim(0, None)
    axes.set_xlabel(f"Spread of {metric_label}, as a standard deviation")
    name_rows(axes, [model_name(model) for model in table["model"]])
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def design_name(design: str, source: str = "", lines: bool = False) -> str:
    """`One site left out`, `Trained on sts`; over two lines for a column's head."""
    name = f"Trained\non {source}" if source else DESIGNS.get(design, design)
    return name if lines else name.replace("\n", " ")


def model_name(model: str) -> str:
    return "Shared variables, Cox" if model == "shared-cox" else label(model)


def _number(value) -> float:
    return float(value) if known(value) else np.nan
