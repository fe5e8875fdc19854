"""Figures of the audit: what each leak makes of R² and MAE, and the noise of survival that a claim needs."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from survpack.figures.style import COLOURS, INK, MUTED, PALE, STYLE, WIDTH, name_rows

LOWEST_R2 = -0.6  # what is further down is an arrow at the edge
LINES = {"published": (COLOURS["hybrid"], (0, (4, 2))), "ceiling": (INK, "-")}


@mpl.rc_context(STYLE)
def audit(scores: pd.DataFrame, labels: dict[str, str], claim: dict[str, float]) -> Figure:
    """R² and MAE of every protocol, a row each, with the best that any model could have and the published claim.

    Parameters
    ----------
    scores : DataFrame
        Of `survpack.audit.score`.
    labels : dict of str to str
        Protocol to its name, in the order of rows.
    claim : dict of str to float
        `r2`, `mae_days` as published.
    """
    figure = Figure(figsize=(WIDTH, 0.34 * len(labels) + 1.2))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, metric in ((left, "r2"), (right, "mae_days")):
        own = scores[scores["metric"] == metric].set_index("protocol").loc[list(labels)]
        for row, one in enumerate(own.to_dict("records")):
            clean = row == 0
            colour = COLOURS["clinical"] if clean else MUTED
            low, high = (np.nan_to_num(one[end], nan=one["estimate"]) for end in ("low", "high"))
            axes.plot([low, high], [row, row], color=colour, lw=1.6)
            outside = metric == "r2" and one["estimate"] < LOWEST_R2
            mark = "<" if outside else "s" if clean else "o"
            axes.plot(LOWEST_R2 if outside else one["estimate"], row, mark, color=colour, ms=5, clip_on=False)
            if np.isfinite(one["ceiling"]):
                axes.fill_betweenx([row - 0.36, row + 0.36], one["ceiling_low"], one["ceiling_high"], color=PALE, alpha=0.35,
                                   lw=0, zorder=0)  # fmt: skip
                axes.plot([one["ceiling"]] * 2, [row - 0.36, row + 0.36], color=INK, lw=1.6, zorder=1)
        colour, dash = LINES["published"]
        axes.axvline(claim[metric], color=colour, ls=dash, lw=1.1, zorder=0)
    left.set(xlabel="R² of days", xlim=(LOWEST_R2, 1.05), ylim=(len(labels) - 0.5, -0.5))
    right.set(xlabel="MAE, days", xscale="log")
    right.tick_params(axis="y", length=0)
    right.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    name_rows(left, list(labels.values()))
    _legend(figure, known=bool(np.isfinite(scores["ceiling"]).any()))
    return figure


def _legend(figure: Figure, *, known: bool) -> None:
    colour, dash = LINES["published"]
    named = [(Line2D([], [], color=colour, ls=dash, lw=1.1), "Published, on other patients")]
    if known:
        named.append((Line2D([], [], color=INK, lw=1.6), "The best a model can expect, give or take chance"))
    figure.legend(*zip(*named, strict=True), loc="outside upper left", ncols=2)


@mpl.rc_context(STYLE)
def ceiling_by_noise(table: pd.DataFrame, actual: float, claim: dict[str, float], needed: float | None) -> Figure:
    """Best R² and MAE of the dead against the noise of survival.

    Parameters
    ----------
    table : DataFrame
        Of `survpack.phantom.ceiling.by_noise`.
    actual : float
        The phantom's own noise.
    claim : dict of str to float
        `r2`, `mae_days` as published.
    needed : float or None
        The noise at which the best R² would be the claim's.
    """
    figure = Figure(figsize=(WIDTH, 2.5))
    panels = figure.subplots(1, 2)
    colour, dash = LINES["published"]
    for axes, metric, words in zip(panels, ("r2", "mae_days"), ("Best R² of days", "Best MAE, days"), strict=True):
        axes.plot(table["survival_noise"], table[metric], color=INK)
        axes.axhline(claim[metric], color=colour, ls=dash, lw=1.1)
        axes.axvline(actual, color=MUTED, lw=1, ls=(0, (1, 2)))
        if needed:
            axes.axvline(needed, color=colour, lw=1, ls=(0, (1, 2)))
        axes.set(xlabel="Noise of log survival time", ylabel=words, ylim=(0, None))
    named = {
        "Published": (colour, dash),
        "Noise it would need": (colour, (0, (1, 2))),
        "Noise here": (MUTED, (0, (1, 2))),
    }
    lines = [Line2D([], [], color=one, ls=style, lw=1.1) for one, style in named.values()]
    figure.legend(lines, named, loc="outside upper left", ncols=3)
    return figure
