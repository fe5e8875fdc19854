"""How far the features hold: under small disturbances, on another scanner, and against features of nothing."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from survpack.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    PLAIN,
    SERIES,
    STYLE,
    WIDTH,
    beside,
    family,
    head,
    label,
    name_rows,
    tidy,
)
from survpack.numbers import amount, interval_text

PERTURBATIONS = {
    "shrink": "Mask shrunk",
    "grow": "Mask grown",
    "contour": "Contour redrawn",
    "noise": "Noise added",
    "resample": "Voxels resampled",
}
DESCRIBED = ("feature", "family", "sequence", "icc", "low", "high", "patients")


@mpl.rc_context(STYLE)
def icc_chart(table: pd.DataFrame, at_least: float) -> Figure:
    """How well each feature keeps its value when nothing that matters changes, by family and by perturbation.

    Parameters
    ----------
    table : DataFrame, one row a feature
        `feature`, `family`, `sequence`, `icc` (over all perturbations), `low`, `high`, perhaps `patients`, and a
        column of ICC for each perturbation. A feature without an ICC counts as not robust.
    at_least : float
        The ICC from which a feature is robust: a dashed line.
    """
    families = dict(list(table.groupby("family", sort=False)))
    perturbations = [name for name in table if name not in DESCRIBED]
    heights = [0.32 * len(families) + 0.1, 0.25 * len(perturbations) + 0.1]
    panels = 2 if perturbations else 1
    figure = Figure(figsize=(WIDTH, sum(heights[:panels]) + 0.75 * panels + 0.2))
    upper, *lower = figure.subplots(panels, height_ratios=heights[:panels], squeeze=False).ravel()
    lowest = min(0.0, np.nanmin([0.0, table["icc"].min()]))
    upper.set(xlim=(lowest - 0.02, 1.02), ylim=(len(families) - 0.4, -0.6), xlabel="Intraclass correlation")
    rng = np.random.default_rng(0)
    for row, one in enumerate(families.values()):
        values = one["icc"].dropna().to_numpy(float)
        spread = row + rng.uniform(-0.3, 0.3, len(values))
        upper.plot(values, spread, ".", color="#8fa5b8", ms=2, mew=0, rasterized=True, label="features",
                   antialiased=False)  # fmt: skip
        _box(upper, values, row, 0.28, INK, None)
        beside(upper, row, _share(one["icc"], at_least))
    upper.axvline(at_least, color=SERIES[0][0], lw=1.2, ls=(0, (4, 3)), label="threshold")
    head(upper, f"at least {at_least:g}")
    name_rows(upper, [tidy(name) for name in families])
    for axes in lower:
        shares = [100 * (table[name] >= at_least).mean() for name in perturbations]
        axes.barh(range(len(shares)), shares, height=0.55, color=PLAIN)
        axes.set(xlim=(0, 100), ylim=(len(shares) - 0.4, -0.6))
        axes.set_xlabel(f"Features with an ICC of at least {at_least:g}, %")
        for row, share in enumerate(shares):
            beside(axes, row, f"{share:.0f} %")
        name_rows(axes, [PERTURBATIONS.get(name, tidy(name)) for name in perturbations])
    return figure


@mpl.rc_context(STYLE)
def control_forest(rows: pd.DataFrame) -> Figure:
    """Concordance of a model on real radiomics beside the same model on features of nothing, with intervals.

    Parameters
    ----------
    rows : DataFrame
        `control` (a model), `estimate`, `low`, `high`; drawn in this order. The dashed line at 0.5 is a coin toss;
        hollow marks are controls.
    """
    figure = Figure(figsize=(WIDTH, 0.32 * len(rows) + 0.9))
    axes = figure.add_subplot(ylim=(len(rows) - 0.4, -0.6))
    axes.axvline(0.5, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=0, label="chance")
    for row, one in enumerate(rows.to_dict("records")):
        kind, filled = family(one["control"]), not one["control"].startswith("control-")
        colour = COLOURS[kind]
        axes.plot([one["low"], one["high"]], [row, row], color=colour, lw=1.4, solid_capstyle="butt")
        axes.plot(one["estimate"], row, MARKERS[kind], color=colour, mfc=colour if filled else "white", mew=1.3, ms=6,
                  label=one["control"])  # fmt: skip
        beside(axes, row, interval_text(one) or "not estimable")
    name_rows(axes, [label(model) for model in rows["control"]])
    axes.set_xlabel("Harrell's C, with interval")
    return figure


@mpl.rc_context(STYLE)
def scanner_chart(table: pd.DataFrame) -> Figure:
    """Share of each feature's variance that is the scanner's, before and after ComBat, by family.

    Boxes hold half of the features, whiskers nine tenths; at the right the medians.

    Parameters
    ----------
    table : DataFrame, one row a feature
        `feature`, `family`, `before`, `after`: shares of variance, 0 to 1.
    """
    families = dict(list(table.groupby("family", sort=False)))
    figure = Figure(figsize=(WIDTH, 0.46 * len(families) + 1.15))
    axes = figure.add_subplot(ylim=(len(families) - 0.4, -0.6))
    looks = {"before": (SERIES[0][0], SERIES[0][0], -0.18), "after": (PLAIN, "white", 0.18)}
    for row, one in enumerate(families.values()):
        medians = []
        for when, (colour, face, shift) in looks.items():
            values = 100 * one[when].dropna().to_numpy(float)
            _box(axes, values, row + shift, 0.26, colour, face, when)
            medians.append(f"{np.median(values):.0f}" if len(values) else "–")
        beside(axes, row, f"{' → '.join(medians)} %")
    head(axes, "median")
    name_rows(axes, [f"{tidy(name)} ({len(one)})" for name, one in families.items()])
    axes.set(xlabel="Variance explained by the scanner", xlim=(0, None))
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    handles = [Patch(ec=colour, fc=face) for colour, face, _ in looks.values()]
    figure.legend(handles, ["Before ComBat", "After ComBat"], loc="outside upper left", ncols=2)
    return figure


def _box(axes, values: np.ndarray, row: float, height: float, colour: str, face: str | None, name: str = "") -> None:
    """Quartiles as a box, the 5th and 95th percentile as whiskers, the median as a line."""
    if not len(values):
        return
    middle = "white" if face == colour else colour
    axes.bxp(
        [{"med": np.median(values), "q1": np.percentile(values, 25), "q3": np.percentile(values, 75),
          "whislo": np.percentile(values, 5), "whishi": np.percentile(values, 95), "label": name}],
        positions=[row], widths=height, orientation="horizontal", showfliers=False, showcaps=False, manage_ticks=False,
        patch_artist=True, boxprops={"ec": colour, "fc": face or "none", "lw": 1.1, "label": name},
        whiskerprops={"color": colour, "lw": 1.1}, medianprops={"color": middle, "lw": 1.6, "solid_capstyle": "butt"},
    )  # fmt: skip


def _share(icc: pd.Series, at_least: float) -> str:
    return f"{100 * (icc >= at_least).mean():.0f} % of {amount(len(icc))}"
