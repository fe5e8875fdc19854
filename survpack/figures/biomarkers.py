"""What is measured on the scans, and what a network sees of them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from survpack.figures.style import (
    INK,
    PALE,
    PLAIN,
    STYLE,
    WIDTH,
    feature_name,
    in_words,
    panel_grid,
    shorten,
    tidy,
    wrap,
)
from survpack.numbers import amount


@mpl.rc_context(STYLE)
def biomarker_heatmap(correlation: pd.DataFrame) -> Figure:
    """Correlation of the biomarkers, ordered so that those alike lie together.

    Parameters
    ----------
    correlation : DataFrame, square
        NaN (a constant biomarker) is left grey. Correlations are printed for up to 10 biomarkers,
        names for up to 45; beyond that both are in the CSV only.
    """
    order = _alike(correlation.to_numpy(float))
    ordered = correlation.iloc[order, order]
    values, count = ordered.to_numpy(float), len(order)
    figure = Figure(figsize=(WIDTH, max(2.6, 0.17 * count + 1.4) if count <= 45 else 5.6))
    axes = figure.add_subplot()
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad=PALE)
    mesh = axes.imshow(values, cmap=colours, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    if count <= 45:
        names = [feature_name(name) if count <= 20 else shorten(tidy(name), 32) for name in ordered.index]
        axes.set_yticks(range(count), [f"{name}  {place}" for place, name in enumerate(names, start=1)])
        axes.set_xticks(range(0, count, 1 + count // 25), range(1, count + 1, 1 + count // 25))
    else:
        axes.set(xticks=[], yticks=[], ylabel=f"{count} biomarkers in clustered order")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(np.isfinite(values)) if count <= 10 else []:
        value = values[row, column]
        axes.text(column, row, amount(value, 1), ha="center", va="center", color="white" if abs(value) > 0.6 else INK)
    bar = figure.colorbar(mesh, ax=axes, shrink=min(1, 2.2 / figure.get_figheight()), aspect=18, ticks=[-1, 0, 1])
    bar.set_label("Correlation", labelpad=-4)
    bar.outline.set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def biomarker_distributions(table: pd.DataFrame, columns: list[str], units: dict[str, str] | None = None) -> Figure:
    """How each biomarker is distributed: counts of patients, the median, how many are missing.

    Parameters
    ----------
    table : DataFrame, one row a patient
    columns : list of str
        Numbers are drawn as histograms (on a log axis where positive and skewed), levels as bars,
        the six most frequent of them.
    units : dict of column to unit, optional
    """
    figure, panels = panel_grid(len(columns), 3, 1.8)
    for name, axes in zip(columns, panels, strict=True):
        column = table[name]
        unit = f" {units[name]}" if units and units.get(name) else ""
        missing = f"; {column.isna().sum()} missing" if column.isna().any() else ""
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            axes.set_xlabel(f"{_histogram(axes, column.dropna().to_numpy(float))}{unit}{missing}")
        else:
            axes.set_xlabel(f"{_levels(axes, column.dropna().astype(str))}{missing}")
        axes.set_title(wrap(tidy(name), 18))
    figure.supylabel("Patients")
    return figure


@mpl.rc_context(STYLE)
def crops(crop_set, at: int) -> Figure:
    """What a network sees of one patient: the middle axial slice of every channel."""
    channels = [*crop_set.images[at], *crop_set.masks[at]]
    names = [*map(feature_name, crop_set.modalities), *crop_set.labels]
    figure, panels = panel_grid(len(channels), min(len(channels), 4), 1.7)
    for axes, channel, name in zip(panels, channels, names, strict=False):
        axes.imshow(channel[:, :, channel.shape[2] // 2].T.astype(float), cmap="gray")
        axes.set_title(name)
        axes.set_axis_off()
    return figure


def _histogram(axes, values: np.ndarray) -> str:
    """A histogram, on a log axis where the values are positive and skewed; gives the median as text."""
    from scipy.stats import skew

    if not len(values):
        return "no value"
    distinct = np.unique(values)
    logarithmic = values.min() > 0 and len(distinct) > 12 and skew(values) > 1.5
    if len(distinct) <= 12:  # counts and scores: one bar a value
        step = np.diff(distinct).min() if len(distinct) > 1 else 1.0
        edges = np.concatenate([distinct - 0.4 * step, distinct + 0.4 * step])
        edges.sort()
    else:
        edges = np.histogram_bin_edges(np.log10(values) if logarithmic else values, bins=16)
        edges = 10**edges if logarithmic else edges
    edges[-1] = max(edges[-1], values.max())  # 10**log10(x) may fall short of x
    axes.hist(values, bins=edges, color=PLAIN, edgecolor="white", lw=0.3)
    axes.axvline(np.median(values), color=INK, lw=1, ls=(0, (3, 2)))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=bool((values % 1 == 0).all())))
    return f"median {np.median(values):.3g}"


def _levels(axes, column: pd.Series) -> str:
    """Bars of the most frequent levels, each under its name; says how many are not shown."""
    counts = column.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    shown = counts.head(6)
    axes.barh(range(len(shown)), shown, height=0.3, color=PLAIN)
    for row, (level, count) in enumerate(shown.items()):
        axes.text(0, row - 0.25, f" {shorten(in_words(level), 16)}, {count}", va="bottom")
    axes.set(ylim=(len(shown) - 0.6, -0.85), xlim=(0, None), yticks=[], xticks=[])
    axes.spines["bottom"].set_visible(False)
    return f"{len(counts) - len(shown)} rarer levels" if len(counts) > len(shown) else ""


def _alike(correlation: np.ndarray) -> np.ndarray:
    """Order of the leaves of an average-linkage tree over 1 − |r|."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(correlation) < 3:
        return np.arange(len(correlation))
    distance = 1 - np.abs(np.nan_to_num(correlation))
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform((distance + distance.T) / 2), "average", optimal_ordering=True))
