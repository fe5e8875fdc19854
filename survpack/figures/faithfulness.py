"""Which explanation may be trusted, at a glance."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from survpack.figures.explanation import METHODS
from survpack.figures.style import MUTED, PALE, PLAIN, STYLE, WIDTH, name_rows, tidy, wrap

FAILS = "#882255"


@mpl.rc_context(STYLE)
def faithfulness(table: pd.DataFrame, rules, words: dict[str, str], *, columns: int = 3) -> Figure:
    """One panel a rule of the verdict: each method's score, its interval, and the side on which it must lie.

    Parameters
    ----------
    table : DataFrame
        `method`, `kind`, `verdict`, and for each rule `score` with `_low` and `_high`. Methods that fail the rule are
        hollow; controls, which explain nothing, are squares.
    rules : sequence of (score, above, limit, fails, …)
        As `explain.faithfulness.RULES`.
    words : dict of score to str
        Heading of its panel.
    """
    columns = min(columns, len(rules))
    rows = -(-len(rules) // columns)
    figure = Figure(figsize=(WIDTH, rows * (0.26 * len(table) + 0.85)))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for spare in grid[len(rules) :]:
        spare.remove()
    for axes, rule in zip(grid, rules, strict=False):
        _panel(axes, table, *rule[:3])
        axes.set_title(wrap(words[rule[0]], 24), fontweight="normal", fontsize=9)
    grid[0].set_ylim(len(table) - 0.4, -0.6)
    for axes in grid[: len(rules) : columns]:
        name_rows(axes, [METHODS.get(method, tidy(method)) for method in table["method"]])
    figure.supxlabel("shaded: where the whole interval must lie · hollow: fails · square: a control", fontsize=9)
    return figure


def _panel(axes, table: pd.DataFrame, score: str, above: bool, limit: float) -> None:
    low, high = table[f"{score}_low"].to_numpy(float), table[f"{score}_high"].to_numpy(float)
    seen = np.r_[low, high, limit]
    least, most = np.nanmin(seen), np.nanmax(seen)
    room = 0.08 * max(most - least, 1e-9)
    least, most = least - room, most + room
    axes.axvspan(*((limit, most) if above else (least, limit)), color=PALE, alpha=0.35, lw=0, zorder=0)
    axes.axvline(limit, color=MUTED, lw=0.8, zorder=1)
    for row, (_, method) in enumerate(table.iterrows()):
        holds = low[row] > limit if above else high[row] < limit
        colour = PLAIN if holds else FAILS
        if np.isfinite(low[row]) and np.isfinite(high[row]):
            axes.plot([low[row], high[row]], [row, row], color=colour, lw=1.4)
        axes.plot(method[score], row, "s" if method["kind"] == "control" else "o", color=colour, ms=5,
                  mfc=colour if holds else "white")  # fmt: skip
    axes.set_xlim(least, most)
