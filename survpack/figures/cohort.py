"""Who is in the study, what happened to them, what is not known of them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from survpack.figures.style import (
    MUTED,
    PALE,
    PLAIN,
    SERIES,
    SPLITS,
    STYLE,
    WIDTH,
    axis_name,
    beside,
    group_styles,
    head,
    name_rows,
    shorten,
    tidy,
    unit_of_time,
    wrap,
)
from survpack.figures.survival import draw_survival, events_of, log_rank

SITE_MARKERS = "osD^v<>"


@mpl.rc_context(STYLE)
def flow(steps: list[dict], splits: dict[str, dict]) -> Figure:
    """Who is in the study: patients in the source, exclusions step by step, the splits and their events.

    Parameters
    ----------
    steps : list of {"step", "excluded", "remaining"}
        As `Cohort.flow`: the first is the source; a step names what a patient must meet.
    splits : dict of str to {"n", "events"}
    """
    excluded = [step for step in steps[1:] if step["excluded"]]
    last = 1 + len(excluded)
    rows = 1 + last + bool(splits)
    texts = [f"{_count(step['excluded'])} excluded\ndid not meet: {step['step']}" for step in excluded]
    lines = max([3, *(1 + _wrapped(text, 4.8).count("\n") for text in texts)])  # as high as the longest step needs
    figure = Figure(figsize=(WIDTH, 0.92 * rows * (lines / 3)))
    axes = figure.add_subplot(xlim=(0, 10), ylim=(-rows + 0.55, 0.45))
    axes.axis("off")
    centre = 3.2 if excluded else 5.0
    _arrow(axes, (centre, 0), (centre, 0.33 - last))
    _box(axes, centre, 0, f"{_count(steps[0]['remaining'])}\n{steps[0]['step']}", 3.6)
    for row, text in enumerate(texts, start=1):
        _arrow(axes, (centre, -row), (5.1, -row))
        _box(axes, 7.5, -row, text, 4.8)
    _box(axes, centre, -last, f"{_count(steps[-1]['remaining'])}\nin the study", 3.6)
    width = min(3.2, 10 / max(len(splits), 1))
    left = np.clip(centre - width * len(splits) / 2, 0, 10 - width * len(splits))
    for place, (name, facts) in enumerate(splits.items()):
        x = left + width * (place + 0.5)
        axes.plot([centre, centre, x], [-last - 0.33, -last - 0.5, -last - 0.5], color=MUTED, lw=1, zorder=0)
        _arrow(axes, (x, -last - 0.5), (x, -last - 0.67))
        share = f" ({facts['events'] / facts['n']:.0%})" if facts["n"] else ""
        events = _count(facts["events"], "event") + share
        title = {"development": "Development"}.get(name, SPLITS.get(name, tidy(name)))
        _box(axes, x, -last - 1, f"{title}\n{_count(facts['n'])}\n{events}", width - 0.25)
    return figure


@mpl.rc_context(STYLE)
def kaplan_meier(outcome: pd.DataFrame, by: str | None = None) -> Figure:
    """Survival of the cohort (by the levels of a column) with 95 % bands, censoring ticks and numbers at risk.

    Parameters
    ----------
    outcome : DataFrame
        `time_days`, `event`, and the column `by`; patients without a level are left out.
    """
    groups = {"All patients": outcome}
    if by is not None:
        groups = {str(level): rows for level, rows in outcome.groupby(by, observed=True)}
    below_height = 0.25 + 0.2 * len(groups)
    figure = Figure(figsize=(WIDTH, 3.7 + 1.9 * below_height))
    axes, below = figure.subplots(2, height_ratios=[2.9, below_height])
    draw_survival(axes, below, groups)
    handles = [Line2D([], [], color=colour, ls=dash) for colour, dash in group_styles(len(groups))]
    names = [f"{shorten(name, 60)}: {events_of(rows)} events" for name, rows in groups.items()]
    title = f"{tidy(by)} ({log_rank(groups)})" if by is not None else None
    figure.legend(handles, names, loc="outside upper left", title=title, alignment="left")
    axes.set_ylabel("Survival probability")
    axes.set_xlabel(f"{unit_of_time(outcome['time_days'].max()).name} from baseline")
    return figure


@mpl.rc_context(STYLE)
def follow_up(outcome: pd.DataFrame) -> Figure:
    """How long patients were followed: reverse Kaplan-Meier, in which the event ends follow-up as censoring would.

    Parameters
    ----------
    outcome : DataFrame
        `time_days`, `event`.

    Notes
    -----
    Schemper and Smith 1996, Control Clin Trials 17:343.
    """
    from lifelines import KaplanMeierFitter

    reverse = outcome.assign(event=~outcome["event"].astype(bool))
    figure = Figure(figsize=(WIDTH, 3.6))
    axes, below = figure.subplots(2, height_ratios=[2.9, 0.45])
    draw_survival(axes, below, {"All patients": reverse})
    unit = unit_of_time(outcome["time_days"].max())
    median = KaplanMeierFitter().fit(reverse["time_days"], reverse["event"]).median_survival_time_ / unit.days
    if np.isfinite(median):
        axes.plot([0, median, median], [0.5, 0.5, 0], color=MUTED, lw=0.9, ls=(0, (4, 3)), label="median")
        text = f" median {median:.{0 if unit.days == 1 else 1}f} {unit.name.lower()}"
        late = median > 0.6 * outcome["time_days"].max() / unit.days
        axes.text(median, 0.04, f"{text.strip()} " if late else text, ha="right" if late else "left")
    axes.set_ylabel("Still followed")
    axes.set_xlabel(f"{unit.name} from baseline")
    return figure


@mpl.rc_context(STYLE)
def missingness(table: pd.DataFrame) -> Figure:
    """Share of patients without each covariate or image, at every site and over all.

    Parameters
    ----------
    table : DataFrame
        `what`, `site` ("" for all), `patients`, `missing`; as `tables.missing`.
    """
    names = table["what"].unique().tolist()
    sites = [site for site in table["site"].unique() if site]
    shown = ["All patients", *(shorten(site, 30) for site in sites)]
    columns = min(5, len(shown), max(1, 75 // (6 + max(map(len, shown)))))
    figure = Figure(figsize=(WIDTH, 0.3 * len(names) + 1.1 + 0.2 * ((len(shown) - 1) // columns)))
    axes = figure.add_subplot(ylim=(len(names) - 0.45, -0.55))
    table = table.assign(share=100 * table["missing"] / table["patients"])
    whole = table[table["site"] == ""].set_index("what").loc[names]
    axes.barh(range(len(names)), whole["share"], height=0.5, color=PALE, label="all", zorder=1)
    handles = [Rectangle((0, 0), 1, 1, color=PALE)]
    for place, (site, (colour, _)) in enumerate(zip(sites, group_styles(len(sites)), strict=True)):
        share = table[table["site"] == site].set_index("what")["share"].reindex(names)
        marker = SITE_MARKERS[place % len(SITE_MARKERS)]
        axes.plot(share, range(len(names)), marker, color=colour, mfc="none", ms=5, mew=1.2, label=site, clip_on=False)
        handles.append(Line2D([], [], color=colour, mfc="none", marker=marker, ls=""))
    for row, one in enumerate(whole.itertuples()):
        beside(axes, row, f"{one.missing} of {one.patients}")
    name_rows(axes, [axis_name(name) for name in names])
    axes.set(xlim=(0, max(5, 1.08 * table["share"].max())), xlabel="Missing, % of patients")
    figure.legend(handles, shown, loc="outside upper left", ncols=columns)
    return figure


@mpl.rc_context(STYLE)
def recovery(table: pd.DataFrame) -> Figure:
    """Planted coefficients, and what Cox regression on the true features finds of them.

    Parameters
    ----------
    table : DataFrame
        `term`, `true`, `estimate`, `low`, `high`, `coverage` (share of intervals over simulated cohorts that
        hold the truth).
    """
    figure = Figure(figsize=(WIDTH, 0.3 * len(table) + 1.1))
    axes = figure.add_subplot(ylim=(len(table) - 0.4, -0.6))
    axes.axvline(0, color=MUTED, lw=0.8, zorder=0)
    rows = np.arange(len(table))
    axes.vlines(table["true"], rows - 0.3, rows + 0.3, color=SERIES[0][0], lw=2.2, label="true", zorder=3)
    axes.hlines(rows, table["low"], table["high"], color=PLAIN, lw=1.4)
    axes.plot(table["estimate"], rows, "o", color=PLAIN, ms=5, label="estimate")
    for row, coverage in zip(rows, table["coverage"], strict=True):
        beside(axes, row, f"{100 * coverage:.1f} %")
    head(axes, "covered")
    name_rows(axes, [axis_name(name) for name in table["term"]])
    axes.set_xlabel("Log hazard ratio a unit of the term (95% interval)")
    handles = [Line2D([], [], color=SERIES[0][0], lw=2.2), Line2D([], [], color=PLAIN, marker="o", lw=1.4)]
    figure.legend(handles, ["Planted", "Found in this cohort"], loc="outside upper left", ncols=2)
    return figure


def _box(axes, x: float, y: float, text: str, width: float) -> None:
    axes.add_patch(Rectangle((x - width / 2, y - 0.33), width, 0.66, fc="white", ec=MUTED, lw=0.9))
    axes.text(x, y, _wrapped(text, width), ha="center", va="center", linespacing=1.25)


def _wrapped(text: str, width: float) -> str:
    return "\n".join(wrap(line, int(width * 8.2)) for line in text.split("\n"))


def _arrow(axes, start: tuple, end: tuple) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1, "shrinkA": 0, "shrinkB": 0},
                  zorder=0)  # fmt: skip


def _count(number: int, what: str = "patient") -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
