"""Scans as they are to be looked at, and a phantom beside a real one."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from survpack.figures.style import MUTED, SERIES, STYLE, WIDTH, panel_grid, shorten, tidy

WINDOWS = {"ct": (-160, 240), "lung": (-1350, 150), "pt": (0, 10)}  # HU, HU, SUV; any other is MR
OUTLINES = {"necrosis": "#56b4e9", "oedema": "#f0e442", "enhancing": "#ff5a4d", "tumour": "#5ce1e6"}
SPARE = ("#c792ea", "#7bd88f", "#ffb05c", "#ffffff")  # of labels that have no colour of their own


@mpl.rc_context(STYLE)
def contact_sheet(columns: list[list[dict | None]], labels: dict[int, str], *, lung: bool | None = None) -> Figure:
    """A column a patient, a row a modality: the slice through the largest lesion with the outline of each label.

    Parameters
    ----------
    columns : list of list of dict or None
        As `slices.contact` gives them; None is an image that is not there. All columns have the same rows.
    labels : dict of int to str
        What the numbers in the masks mean.
    lung : bool, optional
        Whether CT is shown in a lung window; by default where most lesions lie in the lung.
    """
    rows = list(zip(*columns, strict=True))
    if lung is None:
        lung = in_lung(columns)
    side = (WIDTH - 0.25) / max(len(columns), 5)
    figure = Figure(figsize=(side * len(columns) + 0.25, side * len(rows) + 0.55))
    grid = _close(figure, len(rows), len(columns))
    for line, row in zip(grid, rows, strict=True):
        extent = max((max(_size(one)) for one in row if one), default=1.0)
        for axes, one in zip(line, row, strict=True):
            _scan(axes, one, extent, labels, lung)
        line[0].set_ylabel(tidy(next((one["modality"] for one in row if one), "")), fontsize=9)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(shorten(next((one["title"] for one in column if one), ""), 14), fontsize=8, fontweight="normal",
                       loc="center")  # fmt: skip
    _outline_legend(figure, labels, [one for column in columns for one in column if one])
    return figure


@mpl.rc_context(STYLE)
def visits(rows: list[list[dict]], labels: dict[int, str]) -> Figure:
    """A row a patient, a column a visit: the lesion on its day, and its volume.

    Parameters
    ----------
    rows : list of list of dict
        As `slices.visits` gives them.
    labels : dict of int to str
    """
    most = max(map(len, rows))
    side = (WIDTH - 0.25) / max(most, 5)
    figure = Figure(figsize=(side * most + 0.25, (side + 0.17) * len(rows) + 0.4))
    grid = _close(figure, len(rows), most)
    extent, lung = max(max(_size(one)) for row in rows for one in row), in_lung(rows)
    for line, row in zip(grid, rows, strict=True):
        for axes, one in zip(line, row, strict=False):
            _scan(axes, one, extent, labels, lung)
            axes.set_title(one["title"], fontsize=8, fontweight="normal", loc="center", pad=2)
        for axes in line[len(row) :]:
            axes.axis("off")
        line[0].set_ylabel(shorten(row[0]["patient_id"], 14), fontsize=8)
    _outline_legend(figure, labels, [one for row in rows for one in row])
    return figure


@mpl.rc_context(STYLE)
def intensities(table: pd.DataFrame) -> Figure:
    """How often each intensity occurs, a panel a modality: the real scan against each phantom patient.

    Parameters
    ----------
    table : DataFrame
        `who` ("real" or a patient), `modality`, `value`, `density`, as `realism.intensities`.
    """
    groups = dict(list(table.groupby("modality", sort=False)))
    figure, panels = panel_grid(len(groups), 2, 1.8)
    colours = {True: SERIES[0][0], False: SERIES[1][0]}
    for (modality, rows), axes in zip(groups.items(), panels, strict=True):
        for who, line in rows.groupby("who", sort=False):
            real = who == "real"
            axes.plot(line["value"], line["density"], color=colours[real], lw=1.8 if real else 0.8,
                      alpha=1 if real else 0.6, zorder=3 if real else 2, label=who)  # fmt: skip
        axes.set(ylim=(0, None), yticks=[], title=tidy(modality))
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("HU" if modality == "ct" else "intensity over the brain's median")
        axes.margins(x=0)
    handles = [Line2D([], [], color=colours[True], lw=1.8), Line2D([], [], color=colours[False], lw=0.8)]
    figure.legend(handles, ["Real scan", "Phantom, one line a patient"], loc="outside upper left", ncols=2)
    figure.supylabel("Share of voxels")
    return figure


def windowed(one: dict, *, lung: bool = False) -> np.ndarray:
    """The panel's image from 0 to 1: CT and PET by `WINDOWS`, MR by its own percentiles."""
    image, modality = one["image"], one["modality"]
    if modality == "mask":
        return image
    if modality in WINDOWS:
        low, high = WINDOWS["lung" if lung and modality == "ct" else modality]
    else:
        low, high = one["window"]
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def in_lung(panels: list[list[dict | None]]) -> bool:
    """Whether most of the CT lesions shown lie in air."""
    airy = [one["airy"] for line in panels for one in line if one and one["modality"] == "ct"]
    return bool(airy) and float(np.mean(airy)) > 0.5


def _close(figure: Figure, rows: int, columns: int):
    """A grid of axes with hardly a gap."""
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    return figure.subplots(rows, columns, squeeze=False)


def _size(one: dict) -> tuple[float, float]:
    return tuple(count * step for count, step in zip(one["image"].shape, one["spacing"], strict=True))


def _scan(axes, one: dict | None, extent: float, labels: dict[int, str], lung: bool) -> None:
    """One slice in the middle of a black square of `extent` mm; says so where there is none."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if one is None:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, color=MUTED, fontsize=8)
        return
    height, width = _size(one)
    axes.set_facecolor("black")
    axes.imshow(windowed(one, lung=lung), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    rows, columns = ((np.arange(n) + 0.5) * s for n, s in zip(one["labels"].shape, one["spacing"], strict=True))
    for number, colour in _colours(labels).items():
        drawn = one["labels"] == number
        if drawn.any() and not drawn.all():
            axes.contour(columns, rows, drawn, levels=[0.5], colors=[colour], linewidths=0.7)
    middle = width / 2, height / 2
    axes.set(
        xlim=(middle[0] - extent / 2, middle[0] + extent / 2), ylim=(middle[1] + extent / 2, middle[1] - extent / 2)
    )
    axes.set_aspect("equal")


def _colours(labels: dict[int, str]) -> dict[int, str]:
    spare = iter(SPARE * (1 + len(labels) // len(SPARE)))
    return {number: OUTLINES.get(meaning) or next(spare) for number, meaning in labels.items()}


def _outline_legend(figure: Figure, labels: dict[int, str], shown: list[dict]) -> None:
    seen = set().union(*(np.unique(one["labels"]).tolist() for one in shown)) if shown else set()
    colours = {number: colour for number, colour in _colours(labels).items() if number in seen}
    handles = [Line2D([], [], color=colour, lw=2) for colour in colours.values()]
    if handles:
        figure.legend(handles, [labels[number].capitalize() for number in colours], loc="outside lower left",
                               ncols=6, frameon=True, facecolor="#444444", edgecolor="none", labelcolor="white",
                               fontsize=8, borderpad=0.3)  # fmt: skip
