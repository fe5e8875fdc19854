"""A network's life: what it is made of, what it sees, how it learnt, and how near to the oracle it came."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from survpack.figures.scans import OUTLINES, SPARE
from survpack.figures.style import (
    COLOURS,
    INK,
    MUTED,
    PALE,
    PLAIN,
    STYLE,
    WIDTH,
    beside,
    family,
    head,
    label,
    label_axes,
    name_rows,
    panel_grid,
    shorten,
    tidy,
    wrap,
)
from survpack.numbers import amount, interval_text

BOX, GAP, LINE = 1.11, 0.22, 0.137  # inches: a box's width, between two, a line of text
LANES = {"image": 0, "encoder": 0, "tokens": 0, "chart": 1, "columns": 1}  # the others lie between the two
PLACES = {"image": 0, "encoder": 1, "tokens": 2, "chart": 0, "columns": 2, "fusion": 3, "output": 4}
PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}
ABREAST = 8  # panels a row up to which a patient's two versions stand side by side
PARTS = {"all": "Whole hazard", "image": "Image alone, beyond volume", "clinical": "Chart", "site": "Site"}


@mpl.rc_context(STYLE)
def architecture(parts: pd.DataFrame, *, copies: int = 1) -> Figure:
    """A network as boxes, the number of trained weights in each.

    Parameters
    ----------
    parts : DataFrame
        As `anatomy.parts`.
    copies : int
        Networks of an ensemble, whose outputs are averaged.
    """
    rows = parts.set_index("part")
    both = {"image", "chart"} <= set(rows.index)
    texts = {part: _box_text(row) for part, row in rows.iterrows()}
    lanes = {part: LANES.get(part, 0.5) if both else 0 for part in rows.index}
    heights = {lane: LINE * max(texts[part].count("\n") + 1 for part in rows.index if lanes[part] == lane) + 0.3
               for lane in set(lanes.values())}  # fmt: skip
    upper, lower = 0.3 + heights[0] / 2, 0.3 + heights[0] + 0.2 + heights.get(1, 0) / 2
    levels = {0: upper, 1: lower, 0.5: (upper + lower) / 2}
    bottom = max(levels[lane] + height / 2 for lane, height in heights.items())
    figure = Figure(figsize=(WIDTH, bottom + 0.05), layout="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(bottom + 0.05, 0))
    axes.axis("off")
    middles = {}
    for number, (part, text) in enumerate(texts.items()):
        x = (PLACES[part] if both else number) * (BOX + GAP) + BOX / 2 + 0.03
        middles[part] = x, levels[lanes[part]]
        colour = COLOURS[{0: "deep", 1: "clinical"}.get(LANES.get(part), "hybrid")]
        _box(axes, *middles[part], heights[lanes[part]], text, colour)
    for first, second in _arrows(list(rows.index)):
        _arrow(axes, middles[first], middles[second])
    total = f"{amount(rows['weights'].sum())} trained weights"
    axes.text(0.03, 0.15, f"{copies} networks of {total} each, averaged" if copies > 1 else total, va="center")
    return figure


@mpl.rc_context(STYLE)
def batch(
    before, after, patients: list[str], modalities: list[str], labels: list[str], *, planes: Sequence[int] = (2,)
) -> Figure:
    """Patients as they are stored and as one epoch shows them to the network: middle slices, masks outlined.

    Parameters
    ----------
    before, after : Samples
        `images` (n, modalities, x, y, z), `masks` (n, labels, x, y, z), `present` (n, modalities), of the same patients
        in the same order; axes to the patient's left, back and head.
    patients, modalities, labels : list of str
    planes : sequence of int
        Axes across which slices are shown: 2 is axial; a 2-D encoder sees all three. Where there are many panels, the
        augmented twin of a patient is below him, else beside him.
    """
    columns = [(at, plane) for at in range(max(len(modalities), 1)) for plane in planes]
    abreast = 2 * len(columns) <= ABREAST
    grid = _grid(len(patients) * (1 if abreast else 2), len(columns) * (2 if abreast else 1))
    windows = [_window(before, at) for at in range(len(modalities))]
    colours = _mask_colours(labels)
    for number, patient in enumerate(patients):
        for version, (name, samples) in enumerate((("stored", before), ("augmented", after))):
            row, first = (number, version * len(columns)) if abreast else (2 * number + version, 0)
            for place, (at, plane) in enumerate(columns):
                axes = grid[row, first + place]
                if not modalities or samples.present[number][at]:
                    _panel(axes, samples, number, at, plane, windows, colours)
                else:
                    _empty(axes, "dropped" if before.present[number][at] else "not scanned")
                if row == 0:
                    axes.set_title(_heading(modalities, at, plane, planes, name if abreast else ""), loc="center",
                                   fontsize=7.5, fontweight="normal", pad=2)  # fmt: skip
            if first == 0:
                said = shorten(patient, 12) if version == 0 else "twin"
                grid[row, 0].set_ylabel(said, fontsize=7.5)
    _outline_legend(grid[0, 0].figure, colours)
    return grid[0, 0].figure


@mpl.rc_context(STYLE)
def learning_curves(table: pd.DataFrame) -> Figure:
    """Loss by epoch: a thin line a fit, a thick one their mean, a broken one the mean on inner patients.

    Parameters
    ----------
    table : DataFrame
        `fold`, `epoch`, `loss`; `member` of an ensemble, `inner_loss` where patients were held for early stopping,
        and `model` where there are several, which makes a panel of each.
    """
    models = dict(list(table.groupby("model", sort=False))) if "model" in table else {"": table}
    inner = "inner_loss" in table and table["inner_loss"].notna().any()
    figure, panels = panel_grid(len(models), 2, 2.2)
    for (model, rows), axes in zip(models.items(), panels, strict=True):
        colour = COLOURS[family(model)] if model else INK
        for fit, line in rows.sort_values("epoch").groupby([name for name in ("fold", "member") if name in rows]):
            axes.plot(line["epoch"], line["loss"], color=MUTED, alpha=0.6, lw=0.8, label=f"fold {fit[0]}")
        mean = rows.groupby("epoch")["loss"].mean()
        axes.plot(mean.index, mean, color=colour, lw=2.2, label="mean", marker="o" if len(mean) == 1 else None)
        if inner:
            held = rows.groupby("epoch")["inner_loss"].mean()
            axes.plot(held.index, held, color=colour, lw=1.6, ls=(0, (4, 1.5)), label="inner")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_title(label(model) if model else "")
    handles = [Line2D([], [], color=INK, lw=2.2), Line2D([], [], color=MUTED, lw=0.8)]
    names = ["Mean of the fits", "One fit"]
    if inner:
        handles.append(Line2D([], [], color=INK, lw=1.6, ls=(0, (4, 1.5))))
        names.append("Inner patients, mean")
    figure.legend(handles, names, loc="outside upper left", ncols=3)
    label_axes(figure, panels, "Epoch", "Loss" if inner else "Training loss")
    return figure


@mpl.rc_context(STYLE)
def against_oracle(patients: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """A phantom's patients by predicted and by generating risk, and how much of each part of the hazard was found.

    Parameters
    ----------
    patients : DataFrame
        `generating`, `predicted` (both in standard deviations), `event`.
    agreement : DataFrame
        `part`, `estimate`, `low`, `high` (rank correlations) and `oracle`, what the hazard itself reaches; as
        `phantom.oracle.compared`.
    """
    figure = Figure(figsize=(WIDTH, 2.9))
    left, right = figure.subplots(1, 2, width_ratios=[1, 0.85])
    event = patients["event"].astype(bool)
    left.plot([-3, 3], [-3, 3], color=PALE, lw=0.8, ls=(0, (4, 3)), zorder=0)
    for chosen, face, said in ((event, PLAIN, "Event"), (~event, "none", "Censored")):
        rows = patients[chosen]
        left.plot(rows["generating"], rows["predicted"], "o", ms=3.8, mec=PLAIN, mfc=face, mew=0.9, alpha=0.8,
                  label=said)  # fmt: skip
    left.set(xlabel="Risk that generated the outcomes, SD", ylabel="Predicted risk, SD of its fold")
    left.legend(loc="upper left", handletextpad=0.1, borderaxespad=0.1)
    for row, one in enumerate(agreement.to_dict("records")):
        right.plot([one["low"], one["high"]], [row, row], color=PLAIN, lw=1.4, solid_capstyle="butt")
        right.plot(one["estimate"], row, "o", color=PLAIN, ms=6, label=one["part"])
        right.plot(one["oracle"], row, "D", mec=INK, mfc="white", ms=5, zorder=3)
        beside(right, row, interval_text(one) or "–", fontsize=8)
    right.axvline(0, color=MUTED, lw=0.8, zorder=0)
    right.set_ylim(len(agreement) - 0.4, -0.6)
    name_rows(right, [wrap(PARTS.get(part, tidy(part)), 16) for part in agreement["part"]])
    right.set_xlabel("Rank correlation")
    head(right, "with interval")
    handles = [Line2D([], [], color=PLAIN, marker="o"), Line2D([], [], mec=INK, mfc="white", marker="D", ls="")]
    figure.legend(handles, ["Predictions, out of fold", "The oracle itself"], loc="outside upper right", ncols=2)
    return figure


def _box_text(row: pd.Series) -> str:
    detail = "\n".join(wrap(line, 18) for line in row["detail"].split("; ") if line)
    weights = f"{amount(row['weights'])} weights" if row["weights"] else ""
    return "\n".join(filter(None, [row["title"], detail, weights]))


def _box(axes, x: float, y: float, height: float, text: str, colour: str) -> None:
    corner = (x - BOX / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, BOX, height, "round,pad=0,rounding_size=0.06", fc="white", ec=colour, lw=1.2))
    title, *lines = text.split("\n")
    axes.text(x, y - height / 2 + 0.14, title, ha="center", va="center", fontsize=8, fontweight="bold", color=colour)
    axes.text(x, y + 0.1, "\n".join(lines), ha="center", va="center", fontsize=7.5, linespacing=1.2)


def _arrows(parts: list[str]) -> list[tuple[str, str]]:
    """Which part hands on to which."""
    end = "fusion" if "fusion" in parts else "output"
    image = [part for part in ("image", "encoder", "tokens") if part in parts]
    chart = [part for part in ("chart", "columns") if part in parts]
    chains = [[*chain, end] for chain in (image, chart) if chain] + ([["fusion", "output"]] if end == "fusion" else [])
    return [pair for chain in chains for pair in zip(chain, chain[1:], strict=False)]


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    (x, y), (to, level) = (start[0] + BOX / 2, start[1]), (end[0] - BOX / 2, end[1])
    place = level + 0.25 * np.sign(y - level)  # two that meet at one box arrive apart
    looks = {"arrowstyle": "-|>", "color": MUTED, "lw": 1, "shrinkA": 1, "shrinkB": 1}
    axes.annotate("", (to, place), (x, y), arrowprops=looks)


def _window(samples, at: int) -> tuple[float, float]:
    """Grey values from the first to the ninety-ninth percentile of what is not padding, over the patients shown."""
    values = np.asarray(samples.images, np.float32)[:, at]
    values = values[values != 0]
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-3))


def _grid(rows: int, columns: int):
    """Square axes with hardly a gap, as large as the page lets them be."""
    size = min(1.05, (WIDTH - 0.3) / columns)
    figure = Figure(figsize=(max(size * columns + 0.3, 2.6), size * rows + 0.7))
    figure.get_layout_engine().set(w_pad=0.012, h_pad=0.012, wspace=0, hspace=0)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return grid


def _heading(modalities: list[str], at: int, plane: int, planes: Sequence[int], version: str) -> str:
    """Modality, plane where there are several, and which version it is."""
    name = tidy(modalities[at]) if modalities else "Masks"
    return "\n".join(filter(None, [name, PLANES[plane] if len(planes) > 1 else "", version]))


def _panel(axes, samples, patient: int, at: int, plane: int, windows: list, colours: dict[str, str]) -> None:
    """One middle slice and the outlines of the masks; of a cohort of masks these are the image."""
    masks = np.asarray(samples.masks[patient], np.float32)
    image = np.asarray(samples.images[patient][at], np.float32) if windows else masks.max(axis=0, initial=0)
    low, high = windows[at] if windows else (0.0, 2.0)
    axes.imshow(_slice(image, plane), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    for mask, colour in zip(masks, colours.values(), strict=True):
        drawn = _slice(mask, plane) > 0.5
        if drawn.any() and not drawn.all():
            axes.contour(drawn, levels=[0.5], colors=[colour], linewidths=0.7)


def _empty(axes, why: str) -> None:
    axes.set(facecolor="#eeeeee", aspect="equal")
    axes.text(0.5, 0.5, why.replace(" ", "\n"), ha="center", va="center", color=MUTED, fontsize=7)


def _slice(volume: np.ndarray, plane: int) -> np.ndarray:
    """The middle slice as radiologists look at it: the patient's right on the left, front or head at the top."""
    middle = volume.take(volume.shape[plane] // 2, axis=plane).T
    return middle if plane == 2 else middle[::-1]


def _mask_colours(labels: list[str]) -> dict[str, str]:
    spare = iter(SPARE * (1 + len(labels) // len(SPARE)))
    return {name: OUTLINES.get(name) or next(spare) for name in labels}


def _outline_legend(figure: Figure, colours: dict[str, str]) -> None:
    handles = [Line2D([], [], color=colour, lw=2) for colour in colours.values()]
    if handles:
        figure.legend(handles, [name.capitalize() for name in colours], loc="outside lower left", ncols=min(4, figure.get_figwidth() // 1.2),
                      frameon=True, facecolor="#444444", edgecolor="none", labelcolor="white", fontsize=8,
                      borderpad=0.3)  # fmt: skip
