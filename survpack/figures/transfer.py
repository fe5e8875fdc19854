"""What pre-training learnt, and what other cohorts' images are worth at each number of patients."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import (
    COLOURS,
    INK,
    MUTED,
    PALE,
    SERIES,
    STYLE,
    WIDTH,
    beside,
    head,
    label_axes,
    name_rows,
    panel_grid,
)
from survpack.numbers import interval_text

WAYS = {  # colour, line, mark
    "scratch": (COLOURS["hybrid"], "-", "^"),
    "frozen": (SERIES[1][0], (0, (4, 1.5)), "o"),
    "fine-tuned": (SERIES[0][0], "-", "s"),
    "multi-task": (SERIES[3][0], "-", "D"),
    "chart": (COLOURS["clinical"], (0, (1, 1)), "v"),
}
INPUTS = {False: "Image alone", True: "Image and chart"}


@mpl.rc_context(STYLE)
def contrast_curve(table: pd.DataFrame, chance: float) -> Figure:
    """Contrastive loss by epoch, a line a fit; the dashed line is an encoder that tells no patient from another.

    Parameters
    ----------
    table : DataFrame
        `fold` (-1: all development patients), `epoch` (from 0), `loss`.
    chance : float
    """
    figure = Figure(figsize=(WIDTH, 2.6))
    axes = figure.add_subplot(xlabel="Epoch", ylabel="Contrastive loss")
    for fold, line in table.sort_values("epoch").groupby("fold"):
        whole = fold < 0
        axes.plot(line["epoch"] + 1, line["loss"], color=INK if whole else MUTED, lw=2.2 if whole else 0.8,
                  marker="o" if len(line) == 1 else None,
                  label="All development patients" if whole else "Training patients of one fold")  # fmt: skip
    axes.axhline(chance, color=MUTED, lw=1, ls=(0, (4, 3)), label="Nothing learnt")
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    named = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named, loc="outside upper left", ncols=3)
    return figure


@mpl.rc_context(STYLE)
def learning_curves_by_size(scores: pd.DataFrame, oracle: float | None = None) -> Figure:
    """Harrell's C by number of training patients, image alone and with the chart; the band is scratch's interval.

    Parameters
    ----------
    scores : DataFrame
        Of `transfer.score`.
    oracle : float, optional
        C of the risk that made a phantom's outcomes: a dotted line.
    """
    figure, panels = panel_grid(2, 2, 2.6, sharey=True)
    for (chart, title), axes in zip(INPUTS.items(), panels, strict=True):
        shown = scores[(scores["chart"] == chart) | (scores["way"] == "chart")]
        for (way, source), line in shown.sort_values("size").groupby(["way", "source"], sort=False):
            colour, dash, mark = WAYS[way]
            nothing = source == "random"
            axes.plot(line["patients"], line["estimate"], color=PALE if nothing else colour, ls=dash, marker=mark, ms=4.5,
                      lw=1.4, label=line_name(way, source), zorder=1 if nothing else 3)  # fmt: skip
            if way == "scratch":
                bounds = line[["low", "high"]].astype(float)
                axes.fill_between(line["patients"], bounds["low"], bounds["high"], color=colour, alpha=0.12, lw=0)
        axes.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        if oracle is not None:
            axes.axhline(oracle, color=INK, lw=0.8, ls=(0, (1, 2)), zorder=0, label="Oracle")
        axes.set_title(title)
        axes.set_xticks(sorted(scores["patients"].round().unique()))
    named = {name: one for axes in panels for one, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside upper left", ncols=3)
    label_axes(figure, panels, "Training patients", "Harrell's C, out of fold")
    return figure


@mpl.rc_context(STYLE)
def gain_over_scratch(scores: pd.DataFrame) -> Figure:
    """Paired difference in Harrell's C to the network from scratch, a row a way and number of patients.

    Parameters
    ----------
    scores : DataFrame
        Of `transfer.score`.
    """
    rows = scores[~scores["way"].isin(["scratch", "chart"])].sort_values(["chart", "size", "way", "source"])
    figure = Figure(figsize=(WIDTH, 0.24 * len(rows) + 0.9))
    axes = figure.add_subplot(ylim=(len(rows) - 0.4, -0.6))
    axes.axvline(0, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=0)
    names = []
    for row, one in enumerate(rows.to_dict("records")):
        colour, _, mark = WAYS[one["way"]]
        difference = {end: one[f"minus_scratch{name}"] for end, name in
                      (("estimate", ""), ("low", "_low"), ("high", "_high"))}  # fmt: skip
        axes.plot([_number(difference[end]) for end in ("low", "high")], [row, row], color=colour, lw=1.4)
        axes.plot(_number(difference["estimate"]), row, mark, color=colour, ms=5)
        beside(axes, row, interval_text(difference) or "not estimable")
        inputs = ", with chart" if one["chart"] else ""
        names.append(f"{line_name(one['way'], one['source'])}{inputs}, n = {one['patients']:.0f}")
    head(axes, "difference")
    name_rows(axes, names)
    axes.set_xlabel("Harrell's C minus that of the network from scratch")
    return figure


def line_name(way: str, source: str) -> str:
    """`Fine-tuned, from chest`."""
    named = {"all": ", all cohorts", "random": ", random weights", "": ""}
    words = {"scratch": "From scratch", "chart": "Chart alone, Cox"}.get(way, way.capitalize())
    return words + named.get(source, f", from {source}")


def _number(value) -> float:
    return np.nan if value is None else float(value)
