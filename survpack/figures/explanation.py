"""What the models use."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from survpack.figures.style import MUTED, PALE, PLAIN, STYLE, WIDTH, axis_name, name_rows, shorten, tidy, wrap

METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}  # whose words `tidy` does not know
OUTLINE = "#5ce1e6"
GROUND = 0.45  # mid-grey, as most of a scan


@mpl.rc_context(STYLE)
def importance(table: pd.DataFrame, *, axis_label: str = "Loss of concordance when shuffled", most: int = 15) -> Figure:
    """Importance of features, greatest first, with intervals; right of zero the model relies on it.

    Parameters
    ----------
    table : DataFrame
        `feature`, `importance`, `low`, `high`; the `most` greatest are shown.
    axis_label : str
        What importance is.
    """
    top = table.sort_values("importance", ascending=False, kind="stable").head(most).reset_index(drop=True)
    figure = Figure(figsize=(WIDTH, 0.27 * len(top) + 0.9))
    axes = figure.add_subplot(ylim=(len(top) - 0.4, -0.6))
    axes.axvline(0, color=MUTED, lw=0.8, zorder=0)
    axes.hlines(top.index, *top[["low", "high"]].astype(float).to_numpy().T, color=PLAIN, lw=1.4)
    axes.plot(top["importance"], top.index, "o", color=PLAIN, ms=5, label="importance")
    name_rows(axes, [axis_name(name) for name in top["feature"]])
    axes.set_xlabel(axis_label)
    return figure


@mpl.rc_context(STYLE)
def shap_summary(
    values: pd.DataFrame,
    features: pd.DataFrame,
    *,
    axis_label: str = "SHAP value: contribution to risk",
    most: int = 10,
) -> Figure:
    """What each feature contributes to each patient's prediction, coloured by the feature's own value.

    Parameters
    ----------
    values : DataFrame, shape (patients, features)
        SHAP values; right is worse. The `most` features of greatest mean size are shown.
    features : DataFrame, shape (patients, features)
        The features themselves; text is coloured by its sorted levels, missing is pale grey.
    """
    order = values.abs().mean().sort_values(ascending=False, kind="stable").index[:most]
    figure = Figure(figsize=(WIDTH, max(2.4, 0.36 * len(order) + 1.0)))
    axes = figure.add_subplot(ylim=(len(order) - 0.45, -0.55))
    axes.axvline(0, color=MUTED, lw=0.8, zorder=0)
    span = float(np.ptp(values[order].to_numpy())) or 1.0
    colours = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, 256))).with_extremes(bad=PALE)
    for row, name in enumerate(order):
        shap = values[name].to_numpy(float)
        axes.scatter(shap, row + _swarm(shap, span), c=_ranks(features[name]), cmap=colours,
                     vmin=0, vmax=1, s=9, lw=0, label=name, plotnonfinite=True,
                     rasterized=len(values) * len(order) > 400)  # fmt: skip
    name_rows(axes, [axis_name(name) for name in order])
    axes.set_xlabel(axis_label)
    bar = figure.colorbar(ScalarMappable(cmap=colours), ax=axes, aspect=35, pad=0.02, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"])
    bar.ax.tick_params(length=0)
    bar.set_label("Feature value", labelpad=-12)
    bar.outline.set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def gradcam(panels: list[dict], *, bar_label: str = "Attribution, relative to the greatest in its panel") -> Figure:
    """Where a network looked: a slice in grey, its attribution over it, the outline of the tumour.

    Parameters
    ----------
    panels : list of dict
        `image`, `attribution` (float) and `mask` (int; nonzero is outlined), 2-D arrays of one
        shape, already oriented as they are to be seen (first row on top); `title`; `spacing`, mm
        of a row and of a column; `left_label` and `right_label`, the patient's sides ("R" and "L"
        in radiological convention); `window`, intensities that are black and white, where not
        the panel's own; `cube` (bool), what the network sees of the slice. A map without any
        attribution says so.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, rows * (WIDTH / max(columns, 2) + 0.35) + 0.7))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, axes in zip(panels, grid, strict=False):
        _overlay(axes, panel, characters=int(76 / columns))
    for spare in grid[len(panels) :]:
        spare.remove()
    cube = "; dotted: what the network sees" if any("cube" in panel for panel in panels) else ""
    _heat_bar(figure, list(grid[: len(panels)]), f"{bar_label}\n(cyan outline: tumour{cube}; white bar: 20 mm)")
    return figure


@mpl.rc_context(STYLE)
def attribution_methods(panels_by_method: dict[str, list[dict]]) -> Figure:
    """Methods beside each other: a row a patient, a column a method.

    Parameters
    ----------
    panels_by_method : dict of str to list of dict
        Panels as `gradcam` has them, the same patients and slices for each method (`explain.overlays_by_method`).
    """
    rows, columns = len(next(iter(panels_by_method.values()))), len(panels_by_method)
    side = (WIDTH - 0.2) / max(columns, 3)
    figure = Figure(figsize=(side * columns + 0.2, side * rows + 1.15))
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.03, wspace=0, hspace=0, rect=(0, 0, 1, 0.98))
    grid = figure.subplots(rows, columns, squeeze=False)
    for (method, panels), line in zip(panels_by_method.items(), grid.T, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            _overlay(axes, panel | {"title": ""}, characters=20)
        line[0].set_title(METHODS.get(method, tidy(method)), loc="center")
    for axes, panel in zip(grid[:, 0], next(iter(panels_by_method.values())), strict=True):
        axes.text(
            -0.04, 0.5, shorten(panel["title"], 20), transform=axes.transAxes, rotation=90, ha="right", va="center"
        )
    _heat_bar(figure, list(grid.ravel()), "Attribution, relative to the greatest in its panel\n(cyan outline: tumour; "
              "white bar: 20 mm)")  # fmt: skip
    return figure


@mpl.rc_context(STYLE)
def average_maps(averages: dict[str, dict], *, spacing_mm: float) -> Figure:
    """Where a network looks on average: a row a group of patients, means along each axis of the cube.

    Parameters
    ----------
    averages : dict of str to dict
        As `explain.averaged` gives them.
    spacing_mm : float
        Of a voxel.
    """
    figure = Figure(figsize=(WIDTH, 1.85 * len(averages) + 0.85))
    grid = figure.subplots(len(averages), 3, squeeze=False)
    for (name, average), line in zip(averages.items(), grid, strict=True):
        for axes, panel in zip(line, _projections(average), strict=True):
            _overlay(axes, panel | {"spacing": (spacing_mm, spacing_mm)}, characters=20)
        line[0].text(-0.08, 0.5, f"{name}\n(n = {average['patients']})", transform=line[0].transAxes, va="center",
                     ha="right")  # fmt: skip
    _heat_bar(figure, list(grid.ravel()), "Mean attribution along the line of sight, relative to the panel's greatest\n"
              "(cyan outline: where half of the patients have tumour; white bar: 20 mm)")  # fmt: skip
    return figure


def _projections(average: dict) -> list[dict]:
    """Panels of a cube (axes to the left, back, head): its mean along each axis, and the outline of its tumours."""
    panels = []
    for view, axis, sides in (("Axial", 2, "RL"), ("Coronal", 1, "RL"), ("Sagittal", 0, "AP")):
        heat, tumour = average["attribution"].mean(axis=axis).T, average["tumour"].max(axis=axis).T
        if axis < 2:
            heat, tumour = heat[::-1], tumour[::-1]  # rows run downwards, slices to the head
        panel = {"image": np.full(heat.shape, GROUND), "window": (0, 1), "attribution": heat, "mask": tumour >= 0.5}
        panels.append(panel | {"title": view, "left_label": sides[0], "right_label": sides[1]})
    return panels


def _heat_bar(figure: Figure, panels: list, label: str) -> None:
    """The colours of attribution as they look over mid-grey."""
    level = np.linspace(0, 1, 256)
    seen = _heat(level)[:, :3] * _heat(level)[:, 3:] + GROUND * (1 - _heat(level)[:, 3:])
    bar = figure.colorbar(ScalarMappable(cmap=ListedColormap(seen)), ax=panels, location="bottom", shrink=0.55,
                          aspect=40, pad=0.03, ticks=[0, 0.5, 1])  # fmt: skip
    bar.set_label(label, linespacing=1.3)
    bar.outline.set_visible(False)


def _overlay(axes, panel: dict, characters: int) -> None:
    """One slice with attribution, outline, sides and a bar of 20 mm."""
    image = np.asarray(panel["image"], float)
    height, width = panel.get("spacing", (1.0, 1.0))
    extent = (0, image.shape[1] * width, image.shape[0] * height, 0)
    low, high = panel.get("window") or np.nanpercentile(image, [0.5, 99.5])
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), extent=extent)
    share = np.clip(np.nan_to_num(np.asarray(panel["attribution"], float)), 0, None)
    if share.max() > 0:
        share = share / share.max()
        axes.imshow(_heat(share), extent=extent)
    else:
        axes.text(0.5, 0.1, "no attribution", color="white", transform=axes.transAxes, ha="center")
    rows, columns = ((np.arange(size) + 0.5) * step for size, step in zip(image.shape, (height, width), strict=True))
    lines = {"mask": {"colors": OUTLINE, "linewidths": 1.1},
             "cube": {"colors": "white", "linewidths": 0.8, "linestyles": "dotted"}}  # fmt: skip
    for name, looks in lines.items():
        inside = np.asarray(panel.get(name, False)) > 0
        if inside.any() and not inside.all():
            axes.contour(columns, rows, inside, levels=[0.5], **looks)
    for side, x in (("left_label", 0.03), ("right_label", 0.97)):
        axes.text(x, 0.97, panel.get(side, ""), color="white", transform=axes.transAxes, va="top",
                  ha="left" if x < 0.5 else "right", fontweight="bold")  # fmt: skip
    axes.add_patch(Rectangle((extent[1] * 0.04, extent[2] * 0.95), 20, extent[2] * 0.012, color="white", lw=0))
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    axes.axis("off")
    axes.set_title(wrap(panel.get("title", ""), characters), fontweight="normal", fontsize=9)


def _heat(share: np.ndarray) -> np.ndarray:
    """Colours of an attribution from 0 to 1, the fainter the smaller; shape (…, 4)."""
    colours = mpl.colormaps["inferno"](share)
    colours[..., 3] = 0.75 * share
    return colours


def _swarm(values: np.ndarray, span: float) -> np.ndarray:
    """Offsets that spread points of like value about their row: stacked by turns above and below."""
    bins = np.floor(values / span * 80)
    place = pd.Series(values).groupby(bins).cumcount().to_numpy() % 17  # a taller pile begins again
    return 0.38 * np.ceil(place / 2) / 8 * np.where(place % 2, 1, -1)


def _ranks(column: pd.Series) -> np.ndarray:
    """Rank from 0 to 1; text by its sorted levels, one level only in the middle, missing as NaN."""
    number = pd.to_numeric(column, errors="coerce")
    if number.isna().all():
        codes, _ = pd.factorize(column, sort=True)
        number = pd.Series(codes).where(codes >= 0)
    rank = number.rank(method="average")
    spread = rank.max() - rank.min()
    return ((rank - rank.min()) / spread if spread else rank * 0 + 0.5).to_numpy(float)
