"""Follow-up: who was seen when, and how well survival is told from a landmark on."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import COLOURS, INK, MUTED, PALE, PLAIN, STYLE, WIDTH, name_rows, tidy, unit_of_time
from survpack.numbers import known

MOST_PATIENTS = 60  # lines that a page holds
INPUTS = {"baseline": "First visit", "last": "Last visit", "delta": "Last visit and change", "gru": "All visits, GRU"}
LEARNERS = {"cox": "Cox", "dense": "network"}
SOURCES = {"images": "scans", "both": "measured + scans"}
ORACLES = {
    "oracle": "The risk that generated the outcomes",
    "oracle-baseline": "The same, all that baseline can tell",
}
LOOKS = {"cox": ("s", "clinical"), "dense": ("o", "baseline"), "gru": ("^", "hybrid")}


def model_name(model: str) -> str:
    """A model of visits in words: `delta-cox-images` is "Last visit and change, Cox (scans)"."""
    if model in ORACLES:
        return ORACLES[model]
    first, *rest = model.split("-")
    if first not in INPUTS:
        return tidy(model)
    words = [INPUTS[first], *(LEARNERS[part] for part in rest if part in LEARNERS)]
    return ", ".join(words) + "".join(f" ({SOURCES[part]})" for part in rest if part in SOURCES)


@mpl.rc_context(STYLE)
def swimmers(visits: pd.DataFrame, outcome: pd.DataFrame, landmarks) -> Figure:
    """A line a patient from baseline to the end of follow-up, a dot a visit, and the landmarks across.

    Parameters
    ----------
    visits : DataFrame
        `patient_id`, `day`.
    outcome : DataFrame, indexed by `patient_id`
        `time_days`, `event`. Of many patients every so manieth is drawn, in the order of their follow-up.
    landmarks : sequence of float, days
    """
    ordered = outcome.sort_values("time_days", kind="stable")
    at = np.unique(np.linspace(0, len(ordered) - 1, min(MOST_PATIENTS, len(ordered))).round().astype(int))
    drawn = ordered.iloc[at]
    unit = unit_of_time(float(drawn["time_days"].max()))
    figure = Figure(figsize=(WIDTH, 0.055 * len(drawn) + 1.3))
    axes = figure.add_subplot()
    row = pd.Series(np.arange(len(drawn)), drawn.index)
    end, dead = drawn["time_days"].to_numpy() / unit.days, drawn["event"].to_numpy(bool)
    axes.hlines(row, 0, end, color=PALE, lw=1.2)
    seen = visits[visits["patient_id"].isin(drawn.index)]
    axes.plot(seen["day"] / unit.days, row.loc[seen["patient_id"]], "o", color=PLAIN, ms=2.8, mew=0, label="visits")
    axes.plot(end[dead], row[dead], "x", color=INK, ms=3.5, mew=0.9, label="deaths")
    for day in landmarks:
        axes.axvline(day / unit.days, color=COLOURS["hybrid"], lw=1, ls=(0, (4, 3)), label="landmark")
    axes.set(xlabel=f"{unit.name} from baseline", yticks=[], ylim=(-1, len(drawn)))
    axes.set_ylabel(f"{len(drawn)} of {len(outcome)} patients" if len(drawn) < len(outcome) else "Patients")
    axes.spines["left"].set_visible(False)
    handles = [
        Line2D([], [], color=PLAIN, marker="o", ms=4, ls=""),
        Line2D([], [], color=INK, marker="x", ms=4, ls=""),
        Line2D([], [], color=COLOURS["hybrid"], lw=1, ls=(0, (4, 3))),
    ]
    figure.legend(handles, ["Visit", "Death", "Landmark"], loc="outside upper left", ncols=3)
    return figure


@mpl.rc_context(STYLE)
def landmark_chart(scores: pd.DataFrame) -> Figure:
    """Harrell's C of every model with its interval, a panel a landmark and one for all of them together.

    Parameters
    ----------
    scores : DataFrame
        As `longitudinal.score`. The oracles are drawn as dashed lines (all that is known; what baseline can tell).
    """
    models = [model for model in scores["model"].unique() if model not in ORACLES]
    days = list(scores["landmark_days"].unique())
    figure = Figure(figsize=(WIDTH, 0.21 * len(models) + 1.0))
    panels = figure.subplots(1, len(days), sharey=True, sharex=True, squeeze=False).ravel()
    for day, axes in zip(days, panels, strict=True):
        rows = scores[scores["landmark_days"] == day].set_index("model")
        for row, model in enumerate(models):
            _interval(axes, row, rows.loc[model], model)
        for oracle, dash in zip(ORACLES, ((0, (4, 3)), (0, (1, 1.5))), strict=True):
            if oracle in rows.index and known(rows.loc[oracle, "estimate"]):
                axes.axvline(rows.loc[oracle, "estimate"], color=INK, lw=1, ls=dash, zorder=0, label=oracle)
        axes.axvline(0.5, color=MUTED, lw=0.8, zorder=0)
        axes.set_title("All landmarks" if isinstance(day, str) else f"Day {day:g}")
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    name_rows(panels[0], [model_name(model) for model in models])
    panels[0].set_ylim(len(models) - 0.4, -0.6)
    figure.supxlabel("Harrell's C from the landmark on, with interval")
    return figure


def _interval(axes, row: int, score: pd.Series, model: str) -> None:
    marker, colour = next((look for part, look in LOOKS.items() if part in model.split("-")), ("v", "other"))
    if known(score["estimate"]):
        axes.plot(score["estimate"], row, marker, color=COLOURS[colour], ms=4, label=model)
    if known(score["low"]) and known(score["high"]):
        axes.hlines(row, score["low"], score["high"], color=COLOURS[colour], lw=1.2)
