"""What each part and each input of a network adds: to its concordance, over time, and value by value."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import (
    COLOURS,
    INK,
    MUTED,
    PALE,
    PLAIN,
    STYLE,
    WIDTH,
    axis_name,
    beside,
    group_styles,
    head,
    in_words,
    label_axes,
    name_rows,
    panel_grid,
    tidy,
    unit_of_time,
    wrap,
)
from survpack.numbers import amount

PARTS = {"chart": "Chart", "volumes": "Lesion biomarkers", "outlines": "Outlines", "image": "Image"}
KINDS = {"alone": ("Alone", "o", "white"), "without": ("Without it", "D", COLOURS["hybrid"])}


@mpl.rc_context(STYLE)
def parts(table: pd.DataFrame, ablated: pd.DataFrame | None = None) -> Figure:
    """What each part adds to the concordance, with its interval; beside it, the concordance without it and of it alone.

    Parameters
    ----------
    table : DataFrame
        `part`, `value`, `low`, `high`: `explain.parts.shapley`. They sum to the concordance less 0.5.
    ablated : DataFrame, optional
        `explain.parts.ablation` of the same parts.
    """
    figure = Figure(figsize=(WIDTH, 0.3 * len(table) + 1.2))
    axes = figure.subplots(1, 1 if ablated is None else 2, sharey=True, squeeze=False)[0]
    rows = np.arange(len(table))
    axes[0].axvline(0, color=MUTED, lw=0.8, zorder=0)
    axes[0].barh(rows, table["value"], height=0.55, color=PALE)
    _bars(axes[0], table, rows, color=PLAIN)
    axes[0].plot(table["value"], rows, "o", color=PLAIN, ms=5)
    axes[0].set(xlabel="Shapley value in concordance", ylim=(len(table) - 0.4, -0.6))
    name_rows(axes[0], [PARTS.get(part) or tidy(part) for part in table["part"]])
    if ablated is None:
        head(axes[0], "Value")
        for row, value in enumerate(table["value"]):
            beside(axes[0], row, amount(value, 2))
    else:
        axes[1].tick_params(axis="y", length=0)
        axes[1].spines["left"].set_visible(False)
        _ablated(axes[1], ablated, list(table["part"]))
        figure.legend(*_legend(), loc="outside upper right", ncols=3)
    return figure


def _ablated(axes, ablated: pd.DataFrame, order: list[str]) -> None:
    whole = ablated.loc[ablated["kind"] == "all", "concordance"].iloc[0]
    axes.axvline(whole, color=INK, lw=1, ls=(0, (4, 3)), zorder=0)
    axes.axvline(0.5, color=PALE, lw=0.8, zorder=0)
    for (kind, (_, marker, face)), offset in zip(KINDS.items(), (-0.14, 0.14), strict=True):
        some = ablated[ablated["kind"] == kind].set_index("part").loc[order].reset_index()
        rows = np.arange(len(some)) + offset
        _bars(axes, some, rows, color=COLOURS["hybrid"])
        axes.plot(some["concordance"], rows, marker, color=COLOURS["hybrid"], mfc=face, ms=4.5)
    axes.set_xlabel("Concordance")


def _bars(axes, table: pd.DataFrame, rows, **looks) -> None:
    """Intervals, where there are any."""
    axes.hlines(rows, *table[["low", "high"]].astype(float).to_numpy().T, lw=1.4, **looks)


def _legend() -> tuple[list, list]:
    colour = COLOURS["hybrid"]
    found = {name: Line2D([], [], color=colour, marker=marker, mfc=face, ms=4.5, ls="")
             for name, marker, face in KINDS.values()}  # fmt: skip
    found["With all"] = Line2D([], [], color=INK, lw=1, ls=(0, (4, 3)))
    return list(found.values()), list(found)


@mpl.rc_context(STYLE)
def survshap(table: pd.DataFrame, *, most: int = 6) -> Figure:
    """What inputs add to the probability of being event-free, day by day: signed of one patient, mean size of several.

    Parameters
    ----------
    table : DataFrame
        `patient_id`, `feature`, `day`, `value`: `explain.contributions.survshap`.
    most : int
        Inputs shown, those of greatest mean size over patients and days.
    """
    one = table["patient_id"].nunique() == 1
    size = table.assign(size=table["value"].abs())
    order = size.groupby("feature", sort=False)["size"].mean().sort_values(ascending=False, kind="stable").index[:most]
    shown = size.groupby(["feature", "day"])["value" if one else "size"].mean()
    unit = unit_of_time(table["day"].max())
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.add_subplot()
    axes.axhline(0, color=MUTED, lw=0.8, zorder=0)
    for (colour, dash), name in zip(group_styles(len(order)), order, strict=True):
        curve = shown.loc[name].sort_index()
        axes.plot(curve.index / unit.days, curve, color=colour, ls=dash, label=axis_name(name, 26))
    what = "Added to event-free probability" if one else "Mean size of what is added to\nevent-free probability"
    axes.set(xlabel=f"{unit.name} from baseline", ylabel=what, xlim=(0, None))
    axes.set_xticks(np.arange(0, table["day"].max() / unit.days + 1e-9, unit.step))
    figure.legend(loc="outside right center", handlelength=2.4)
    return figure


@mpl.rc_context(STYLE)
def partial_dependence(table: pd.DataFrame, *, most: int = 6) -> Figure:
    """Mean risk were everybody's value the same, a panel a column, the risk on one axis.

    Parameters
    ----------
    table : DataFrame
        `feature`, `value`, `risk`, `low`, `high`: `explain.contributions.partial_dependence`.
    most : int
        Columns shown, those over which the risk moves most.
    """
    reach = table.groupby("feature", sort=False)["risk"].agg(lambda risk: risk.max() - risk.min())
    order = reach.sort_values(ascending=False, kind="stable").index[:most]
    figure, panels = panel_grid(len(order), 3, 2.0, sharey=True)
    for axes, name in zip(panels, order, strict=True):
        some = table[table["feature"] == name]
        numbers = pd.to_numeric(some["value"], errors="coerce")
        if numbers.notna().all():
            axes.fill_between(numbers, some["low"], some["high"], color=PALE, lw=0)
            axes.plot(numbers, some["risk"], "-" if len(some) > 1 else "o", color=PLAIN)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        else:
            _levels(axes, some)
        axes.set_title(axis_name(name, 24), fontsize=9, fontweight="normal")
    label_axes(figure, panels, "Value", "Mean risk (higher is worse)")
    return figure


def _levels(axes, some: pd.DataFrame) -> None:
    place = np.arange(len(some))
    axes.vlines(place, some["low"], some["high"], color=PLAIN, lw=1.4)
    axes.plot(place, some["risk"], "o", color=PLAIN, ms=4.5)
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(some) > 2 else {}
    axes.set_xticks(place, [wrap(in_words(level), 18) for level in some["value"]], **turned)
    axes.set_xlim(-0.5, len(some) - 0.5)
