"""Whom a model serves as well as the others."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    STYLE,
    WIDTH,
    family,
    in_words,
    label,
    shorten,
    tidy,
    wrap,
)
from survpack.numbers import known

ALL = "all patients"
PANELS = {"harrell_c": ("Harrell's C", 0.0, 1.0), "brier": ("Brier score", 0.0, 0.6),
          "observed_expected": ("Observed / expected", 0.0, 3.0)}  # fmt: skip
# of each panel: its label and the range beyond which an interval is cut short, with an arrow


@mpl.rc_context(STYLE)
def subgroups(table: pd.DataFrame, model: str) -> Figure:
    """One model's scores in every group of patients with their intervals, a panel a score.

    The dashed line is the score of all patients. An open mark differs from all other patients after adjustment
    for the number of groups. Groups too small are named with their size, and have no mark.

    Parameters
    ----------
    table : DataFrame
        Of `survpack.subgroups.by_subgroup`.
    model : str
    """
    own = table[table["model"] == model]
    places, names, headings = _rows(own)
    lowest = max(places.values(), default=0)
    figure = Figure(figsize=(WIDTH, 0.2 * lowest + 1.1))
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for (metric, (title, least, most)), axes in zip(PANELS.items(), panels, strict=True):
        rows = own[own["metric"] == metric].to_dict("records")
        ends = [row[key] for row in rows for key in ("estimate", "low", "high") if known(row[key])]
        span = max(least, min(ends, default=least)), min(most, max(ends, default=most))
        margin = 0.06 * (span[1] - span[0])
        axes.set(xlim=(span[0] - margin, span[1] + margin), ylim=(lowest + 0.7, -0.7), xlabel=title)
        for row in rows:
            _mark(axes, places[row["variable"], row["group"]], row, model, span, told=metric == "harrell_c")
        whole = next((row["estimate"] for row in rows if row["variable"] == ALL), np.nan)
        axes.axvline(whole, color=INK, lw=0.8, ls=(0, (4, 3)), zorder=0, label="all patients")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(list(names), list(names.values()))
    for tick, y in zip(panels[0].get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if y in headings else "normal")
    panels[0].annotate("patients, events", (0, 1), (-6, 2), "axes fraction", "offset points", ha="right", color=MUTED)
    figure.suptitle(label(model), x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure


def _rows(table: pd.DataFrame) -> tuple[dict, dict, set]:
    """Where each (variable, group) stands, the name of every row by its place, and which of them are headings."""
    places, names, headings, y, before = {}, {}, set(), 0.0, ALL
    for row in table.drop_duplicates(["variable", "group"]).to_dict("records"):
        if row["variable"] != before:
            y += 0.35
            names[y] = wrap(tidy(row["variable"]), 30)
            headings.add(y)
            y, before = y + 1, row["variable"]
        places[row["variable"], row["group"]] = y
        names[y] = f"{shorten(in_words(row['group']), 30)} ({row['patients']}, {row['events']})"
        y += 1
    return places, names, headings


def _mark(axes, y: float, row: dict, model: str, span: tuple[float, float], *, told: bool) -> None:
    """An estimate with its interval; an arrow where that leaves the panel, words where the group is too small."""
    kind = family(model)
    if not known(row["estimate"]):
        if told or row["scored"]:
            words = "not defined" if row["scored"] else "too few to score"
            axes.text(0.02, y, words, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=8,
                      bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5})  # fmt: skip
        return
    if known(row["low"]) and known(row["high"]):
        axes.plot(np.clip([row["low"], row["high"]], *span), [y, y], color=COLOURS[kind], lw=1.4, solid_capstyle="butt",
                  label="interval")  # fmt: skip
        if row["high"] > span[1]:
            axes.plot(span[1], y, ">", color=COLOURS[kind], ms=4, mew=0)
    low, high = row["difference_low"], row["difference_high"]
    differs = (low > 0 or high < 0) and row["p_adjusted"] < 0.05
    if row["estimate"] <= span[1]:
        axes.plot(row["estimate"], y, MARKERS[kind], color=COLOURS[kind], mfc="white" if differs else COLOURS[kind],
                  mew=1.2, ms=5, label=f"{row['variable']} {row['group']}")  # fmt: skip
