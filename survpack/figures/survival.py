"""Kaplan-Meier curves with numbers at risk, and the log-rank test printed above them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.figures.style import group_styles, shorten, unit_of_time
from survpack.numbers import known, p_text


def draw_survival(axes, below, groups: dict[str, pd.DataFrame]) -> None:
    """Kaplan-Meier curves into `axes`, the numbers at risk into `below`."""
    from lifelines import KaplanMeierFitter

    longest = max((rows["time_days"].max() for rows in groups.values() if len(rows)), default=1.0)
    unit = unit_of_time(longest)
    ticks = np.arange(0, longest / unit.days + 1e-9, unit.step)
    for row, ((name, rows), (colour, dash)) in enumerate(zip(groups.items(), group_styles(len(groups)), strict=True)):
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
    below.set_yticks(range(len(groups)), [shorten(name, 18) for name in groups])
    for text, (colour, _) in zip(below.get_yticklabels(), group_styles(len(groups)), strict=True):
        text.set_color(colour)
    below.spines[:].set_visible(False)
    below.tick_params(length=0, pad=9)
    below.set_title("Number at risk", fontweight="normal", fontsize=9, pad=2)


def events_of(rows: pd.DataFrame) -> str:
    return f"{int(rows['event'].sum())} of {len(rows)}"


def log_rank(groups: dict[str, pd.DataFrame]) -> str:
    """Log-rank p over the groups, as text; says so where there is nothing to test."""
    from lifelines.statistics import multivariate_logrank_test

    if len(groups) < 2:
        return ""
    rows = pd.concat(groups, names=["group"]).reset_index(level=0)
    if rows["group"].nunique() < 2 or not rows["event"].any():
        return "log-rank not estimable"
    return log_rank_words(multivariate_logrank_test(rows["time_days"], rows["group"], rows["event"]).p_value)


def log_rank_words(p: float | None) -> str:
    """`log-rank p = 0.051`, as tables print a p."""
    if not known(p):
        return "log-rank not estimable"
    told = p_text(p)
    return f"log-rank p {told if told.startswith('<') else f'= {told}'}"
