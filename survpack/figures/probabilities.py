"""Are the probabilities right, and would it do good to act on them."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from survpack.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    PALE,
    STYLE,
    family,
    label,
    label_axes,
    panel_grid,
    two_lines,
    unit_of_time,
)
from survpack.metrics.decision import TREAT_ALL, TREAT_NONE


@mpl.rc_context(STYLE)
def calibration(
    bands: dict[str, pd.DataFrame], groups: dict[str, pd.DataFrame], horizon_days: float, texts: dict | None = None
) -> Figure:
    """Observed against predicted risk at the horizon, a panel a model: smooth with its band, and in groups.

    Parameters
    ----------
    bands : dict of model to DataFrame
        See `survpack.metrics.calibration_band`.
    groups : dict of model to DataFrame
        See `survpack.metrics.calibration_curve`; a model may be absent.
    horizon_days : float
    texts : dict of model to str, optional
        At the lower right of the panel: intercept and slope, each a line; its interval goes onto a line of its own.
    """
    figure, panels = panel_grid(len(bands), 3, 2.15, sharex=True, sharey=True)
    for (model, band), axes in zip(bands.items(), panels, strict=True):
        colour = COLOURS[family(model)]
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=0)
        axes.fill_between(band["predicted"], band["low"], band["high"], color=colour, alpha=0.18, lw=0)
        axes.plot(band["predicted"], band["observed"], color=colour, label=model)
        if model in groups:
            group = groups[model]
            axes.vlines(group["predicted"], group["low"], group["high"], color=INK, lw=0.8)
            marks = {"color": colour, "mec": "white", "mew": 0.6, "clip_on": False}  # 0 and 1 lie on the frame
            axes.plot(group["predicted"], group["observed"], MARKERS[family(model)], **marks)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        text = (texts or {}).get(model, "").replace(" (", "\n(")  # a panel is too narrow for a number and its interval
        axes.text(1, 0.02, text, ha="right", fontsize=7.5, linespacing=1.1, color=INK)
        axes.set_title(two_lines(label(model)))
    when = _when(horizon_days)
    label_axes(figure, panels, f"Predicted event probability at {when}", "Observed event probability")
    return figure


@mpl.rc_context(STYLE)
def decision_curves(table: pd.DataFrame, horizon_days: float) -> Figure:
    """Net benefit over thresholds, a panel a model with its band, beside treating all and treating none.

    Parameters
    ----------
    table : DataFrame
        See `survpack.metrics.decision_curve`.
    horizon_days : float
    """
    curves = {model: rows.sort_values("threshold") for model, rows in table.groupby("model", sort=False)}
    every, _ = curves.pop(TREAT_ALL), curves.pop(TREAT_NONE)
    highest = table["net_benefit"].max()
    highest = highest if highest > 0 else 1.0  # nothing known, or of no use
    figure, panels = panel_grid(len(curves), 3, 1.75, sharex=True, sharey=True)
    for (model, rows), axes in zip(curves.items(), panels, strict=True):
        colour = COLOURS[family(model)]
        for other in curves.values():
            axes.plot(other["threshold"], other["net_benefit"], color=PALE, lw=0.9, zorder=1)
        axes.axhline(0, color=MUTED, lw=0.8, zorder=1)
        axes.plot(every["threshold"], every["net_benefit"], color=MUTED, lw=1.1, ls=(0, (4, 2)), zorder=2)
        axes.fill_between(rows["threshold"], rows["low"], rows["high"], color=colour, alpha=0.18, lw=0, zorder=2)
        axes.plot(rows["threshold"], rows["net_benefit"], color=colour, label=model, zorder=3)
        axes.set(xlim=(0, 1), ylim=(-0.35 * highest, 1.25 * highest), xticks=[0, 0.5, 1])
        axes.set_title(two_lines(label(model)))
    handles = [Line2D([], [], color=MUTED, lw=1.1, ls=(0, (4, 2))), Line2D([], [], color=MUTED, lw=0.8)]
    handles.append(Line2D([], [], color=PALE, lw=0.9))
    figure.legend(handles, ["Treat all", "Treat none", "Other models"], loc="outside upper left", ncols=3)
    label_axes(figure, panels, f"Risk of an event by {_when(horizon_days)} from which to treat", "Net benefit")
    return figure


def _when(horizon_days: float) -> str:
    unit = unit_of_time(horizon_days)
    return f"{horizon_days / unit.days:.3g} {unit.name.lower()}"
