"""Lower bounds on survival: whether they hold, and how much they say."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from survpack.conformal import guaranteed
from survpack.figures.style import COLOURS, INK, MARKERS, MUTED, SPLITS, STYLE, WIDTH, by_section, family, label

OFFSET = {"cv": -0.17, "test": 0.17}
FACES = {"cv": None, "test": "white"}
DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
RISKIEST = {"color": MUTED, "marker": "D", "ms": 2.5, "ls": "", "mfc": "white", "zorder": 2}


@mpl.rc_context(STYLE)
def bounds(table: pd.DataFrame, coverage: float) -> Figure:
    """Marginal coverage of each model's bounds, that of its riskiest quarter, and the median bound; longer says more.

    Parameters
    ----------
    table : DataFrame
        `conformal.table`.
    coverage : float
        Aimed at, a dashed line; `conformal.guaranteed` of it is a dotted one.
    """
    headings = by_section(table["model"].unique())
    names = [(name, name in headings) for heading, models in headings.items() for name in (heading, *models)]
    row = {name: place for place, (name, heading) in enumerate(names) if not heading}
    figure = Figure(figsize=(WIDTH, 0.2 * len(names) + 1.2))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
    for one in table.itertuples():
        _covered(left, one, row[one.model] + OFFSET[one.split])
        right.plot(one.median_bound_days, row[one.model] + OFFSET[one.split], **_looks(one))
    for share, dash in ((coverage, DASHED), (guaranteed(coverage), DOTTED)):
        left.axvline(share, color=INK, lw=1, ls=dash, zorder=0)
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set_yticks(range(len(names)), [name if heading else label(name) for name, heading in names])
    for text, (_, heading) in zip(left.get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if heading else "normal")
    left.set(ylim=(len(names) - 0.4, -0.6), xlabel="Share of patients that outlive their bound")
    right.set(xlim=(0, None), xlabel="Median bound (days)")
    right.xaxis.set_major_locator(MaxNLocator(4))
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    figure.legend(*_legend(table, coverage), loc="outside upper left", ncols=2)
    return figure


def _looks(one) -> dict:
    kind = family(one.model)
    face = FACES[one.split] or COLOURS[kind]
    return {"color": COLOURS[kind], "marker": MARKERS[kind], "ms": 4, "ls": "", "mfc": face}


def _covered(axes, one, height: float) -> None:
    below = height + 0.13
    if pd.notna(one.riskiest):
        axes.plot([one.riskiest_low, one.riskiest_high], [below, below], color=MUTED, lw=0.7, zorder=1)
        axes.plot(one.riskiest, below, **RISKIEST)
    if pd.notna(one.low):
        axes.plot([one.low, one.high], [height, height], color=COLOURS[family(one.model)], lw=1, zorder=1)
    if pd.notna(one.observed):
        axes.plot(one.observed, height, **_looks(one))
    if pd.notna(one.true):
        axes.plot(one.true, height, color=INK, marker="|", ms=6, mew=1.4, ls="", zorder=4)


def _legend(table: pd.DataFrame, coverage: float) -> tuple[list, list]:
    found = {SPLITS[split]: Line2D([], [], color=MUTED, marker="o", ms=4, mfc=FACES[split] or MUTED)
             for split in FACES if split in set(table["split"])}  # fmt: skip
    if table["riskiest"].notna().any():
        found["Of the quarter at highest predicted risk"] = Line2D([], [], **RISKIEST)
    found[f"Aimed at: {coverage:.0%} of all together"] = Line2D([], [], color=INK, lw=1, ls=DASHED)
    found[f"Guaranteed: {guaranteed(coverage):.0%}"] = Line2D([], [], color=INK, lw=1, ls=DOTTED)
    if table["true"].notna().any():
        found["True coverage, of the known hazard"] = Line2D([], [], color=INK, marker="|", ms=6, mew=1.4, ls="")
    return list(found.values()), list(found)
