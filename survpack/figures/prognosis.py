"""One patient's curve, as a card shows it.

Any thread may draw; matplotlib's settings are the process's, so it is one at a time.
"""

from __future__ import annotations

import io
from textwrap import fill
from threading import RLock

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from survpack.figures.style import INK, MUTED, PALE, PLAIN, STYLE
from survpack.prognosis import curve_at

MONTH = 365.25 / 12
STEPS = (1, 2, 3, 6, 12, 24)  # months between ticks
SIZE = (5.6, 3.1)  # inches: half a card, and 9 points stay legible in it
TOP = 1.18  # of the axis of probabilities: a label has room above 100 %
WITHIN, LABEL = np.array([340, 115]), np.array([30, 10])  # points: the axes, and a percentage in bold, about
DASHES = [(0, (1, 1.2)), (0, (4, 1.5)), (0, (6, 1.2, 1, 1.2))]
OWN = "#c2410c"
DRAWING = RLock()  # held while the house style is set


def survival_card(times, middle, low, high, own=None, groups=None, horizons=(), bound=None, *, alive="alive") -> Figure:
    """Survival of one patient with its band, over the cohort's groups of risk.

    Without pyplot; `as_svg` writes it.

    Parameters
    ----------
    times : array, shape (k,), days
    middle, low, high : array, shape (k,)
        The recalibrated curve and its band; on day 0, which is added where `times` starts later, all are 1.
    own : array, shape (k,), optional
        The model's own curve, before recalibration.
    groups : dict of str to dict, optional
        Name to `times` and `survival`: Kaplan–Meier of the cohort, low risk first.
    horizons : sequence of float, days
        A dot and its percentage each, where they lie within `times`.
    bound : float, days, optional
        The conformal lower bound; none is drawn where it is None or 0.
    alive : str
        What it is not to have had the event.
    """
    with DRAWING, mpl.rc_context(STYLE):
        return _card(times, middle, low, high, own, groups, horizons, bound, alive)


def recalibration(said: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray, day: float) -> Figure:
    """What a survival predicted to a day has been worth: recalibrated against predicted, with its band.

    Parameters
    ----------
    said : array, shape (k,)
        Predicted survival, rising from 0 to 1.
    middle, low, high : array, shape (k,)
    day : float
    """
    with DRAWING, mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.8))
        axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 2)), label="As predicted")
        axes.fill_between(said, low, high, color=PLAIN, alpha=0.22, lw=0, label="Band")
        axes.plot(said, middle, color=PLAIN, lw=2, label="Recalibrated")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlabel=f"Survival to day {day:.0f}, predicted", ylabel="Recalibrated on those predicted out of fold")
        axes.legend(loc="upper left", fontsize=8)
        return figure


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG in the house style; the same figure gives the same bytes."""
    drawn = io.BytesIO()
    with DRAWING, mpl.rc_context(STYLE):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _card(times, middle, low, high, own, groups, horizons, bound, alive) -> Figure:
    days, curves = _from_day_0(times, middle, low, high, middle if own is None else own)
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    for dash, (name, group) in zip(DASHES, (groups or {}).items(), strict=False):
        line = np.r_[0, group["times"]], np.r_[1, group["survival"]]
        axes.step(*line, where="post", color=MUTED, lw=0.9, ls=dash, label=f"Cohort, {name} risk", zorder=1)
    axes.fill_between(days, curves[1], curves[2], color=PLAIN, alpha=0.22, lw=0, label="Band", zorder=2)
    if own is not None:
        axes.plot(days, curves[3], color=OWN, lw=0.9, ls=(0, (2, 1.5)), label="Before recalibration", zorder=3)
    axes.plot(days, curves[0], color=PLAIN, lw=2.2, label="This patient", zorder=4)
    _dots(axes, days, curves[0], horizons)
    if bound:
        axes.axvline(bound, ymax=0.1, color=INK, lw=2, label=f"Lower bound, day {bound:.0f}")
    _scales(figure, axes, days[-1], alive)
    return figure


def _from_day_0(times, *curves) -> tuple[np.ndarray, list[np.ndarray]]:
    times = np.asarray(times, float)
    later = times > 0
    return np.r_[0.0, times[later]], [np.r_[1.0, np.asarray(one, float)[later]] for one in curves]


def _dots(axes, days: np.ndarray, middle: np.ndarray, horizons) -> None:
    told = [day for day in sorted(horizons) if day <= days[-1]]
    chances = curve_at([middle], days, told)[0]
    scale = np.array([WITHIN[0] / days[-1], WITHIN[1] / TOP])
    for day, chance, shift in zip(told, chances, _shifts(np.c_[told, chances] * scale), strict=True):
        axes.plot(day, chance, "o", color=PLAIN, mec="white", ms=6, zorder=5)
        axes.annotate(f"{chance:.0%}", (day, chance), shift, textcoords="offset points", weight="bold", zorder=6)


def _shifts(dots: np.ndarray) -> list[tuple[float, float]]:
    """From each dot to its label, in points: above it, else below or further above, where no other label is."""
    taken, found = [], []
    for dot in dots:
        steps = LABEL[1] * np.arange(8)
        ways = [
            (4.0, float(up)) for up in np.r_[5, -15 - steps, 15 + steps] if 0 <= dot[1] + up <= WITHIN[1] - LABEL[1]
        ]
        free = (way for way in ways if all((np.abs(dot + way - one) >= LABEL).any() for one in taken))
        found.append(next(free, (4.0, 5.0)))
        taken.append(dot + found[-1])
    return found


def _scales(figure: Figure, axes, last: float, alive: str) -> None:
    """Days below, months above."""
    step = next((step for step in STEPS if last / MONTH / step <= 8), STEPS[-1])
    words = fill(f"Probability of being {alive}", 28)
    axes.set(xlim=(0, last), ylim=(0, TOP), xlabel="Days", ylabel=words)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y", color=PALE, lw=0.5)
    axes.set_axisbelow(True)
    months = axes.secondary_xaxis("top", functions=(lambda days: days / MONTH, lambda months: months * MONTH))
    months.set_xticks(np.arange(0, last / MONTH + 1e-9, step))
    months.set_xlabel("Months")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3, fontsize=8)
