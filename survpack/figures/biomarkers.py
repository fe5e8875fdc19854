"""What is measured on the scans, and what a network sees of them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from survpack.figures.style import (
    INK,
    MUTED,
    PALE,
    PLAIN,
    SERIES,
    STYLE,
    WIDTH,
    axis_name,
    beside,
    feature_name,
    head,
    in_words,
    name_rows,
    panel_grid,
    shorten,
    unit_of_time,
    wrap,
)
from survpack.numbers import amount

NAMED = 45  # biomarkers that a heat map names each
KEYED = 18  # clusters that are numbered and named in a large one
CELLS = 150  # a side: more would not be seen, and would make a large file
FALSE_DISCOVERIES = 0.05  # the rate at which features are called found
WIDEST = 1000  # times; a hazard ratio whose interval is wider has no maximum of its likelihood to speak of
RESPONSES = {  # best first: colour, dash, words
    "CR": (SERIES[1][0], "-", "Complete response"),
    "PR": ("#0b4f94", (0, (4, 1.5)), "Partial response"),
    "SD": ("#8a8a8a", (0, (1, 1)), "Stable disease"),
    "PD": (SERIES[0][0], "-", "Progression"),
}


@mpl.rc_context(STYLE)
def biomarker_heatmap(correlation: pd.DataFrame, clusters: pd.DataFrame | None = None) -> Figure:
    """Correlation of the biomarkers, ordered so that those alike lie together; the clusters, where given, outlined.

    Parameters
    ----------
    correlation : DataFrame, square
        NaN (a constant biomarker) is left grey. Correlations are printed for up to 10 biomarkers,
        names for up to 45; of more than 150, neighbours are averaged into 150 cells a side.
    clusters : DataFrame, optional
        `column`, `cluster`, `kept` (True for its representative): only these columns are drawn, cluster by cluster.
        Representatives of several are bold; of many biomarkers, those of the 18 largest clusters are named below.
    """
    if clusters is None:
        order, blocks = correlation.index[_alike(correlation.to_numpy(float))], None
    else:
        blocks = _blocks(correlation, clusters)
        order = pd.Index([name for block in blocks for name in block])
    ordered, count = correlation.loc[order, order], len(order)
    keyed = [block for block in blocks or [] if len(block) > 1] if count > NAMED else []
    keyed = sorted(sorted(keyed, key=len, reverse=True)[:KEYED], key=lambda block: order.get_loc(block[0]))
    names = [wrap(f"{feature_name(block[0])} (+{len(block) - 1})", 46) for block in keyed]
    key_height = (0.27 if any("\n" in name for name in names) else 0.165) * -(-len(keyed) // 2) + 0.1
    height = max(2.6, 0.17 * count + 1.4) if count <= NAMED else 5.0
    figure = Figure(figsize=(WIDTH, height + key_height if keyed else height))
    upper, lower = figure.subfigures(2, height_ratios=[height, key_height]) if keyed else (figure, None)
    axes = upper.add_subplot()
    mesh = _mesh(axes, ordered.to_numpy(float))
    _outlines(axes, blocks or [], most=KEYED if keyed else count)
    if count <= NAMED:
        _named_rows(axes, order, blocks or [])
    else:
        grouped = f" in {len(blocks)} clusters" if blocks else " in clustered order"
        axes.set(xticks=[], yticks=[], xlabel=f"{amount(count)} biomarkers{grouped}")
    if keyed:
        middles = [order.get_loc(block[0]) + (len(block) - 1) / 2 for block in keyed]
        _key(axes, lower.add_subplot(), names, middles, count)
    bar = upper.colorbar(mesh, ax=axes, shrink=min(1, 2.2 / height), aspect=18, ticks=[-1, 0, 1])
    bar.set_label("Correlation", labelpad=-4)
    bar.outline.set_visible(False)
    return figure


def _mesh(axes, values: np.ndarray):
    """The correlations as an image; of many, the means of neighbours, so that the file stays small."""
    count = len(values)
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad=PALE)
    drawn = values if count <= CELLS else np.round(_averaged(values, CELLS), 1)
    mesh = axes.imshow(drawn, cmap=colours, vmin=-1, vmax=1, interpolation="nearest" if count <= CELLS else "none",
                       aspect="auto" if count <= NAMED else "equal",
                       extent=(-0.5, count - 0.5, count - 0.5, -0.5))  # fmt: skip
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(np.isfinite(values)) if count <= 10 else []:
        value = values[row, column]
        axes.text(column, row, amount(value, 1), ha="center", va="center", color="white" if abs(value) > 0.6 else INK)
    return mesh


def _averaged(values: np.ndarray, cells: int) -> np.ndarray:
    """Means of square patches, without what is missing."""
    starts = np.linspace(0, len(values), cells, endpoint=False).astype(int)

    def patches(one: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(one, starts, axis=0), starts, axis=1)

    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return patches(np.where(known, values, 0)) / patches(known.astype(float))


def _blocks(correlation: pd.DataFrame, clusters: pd.DataFrame) -> list[list[str]]:
    """The clusters, those alike side by side; in each the representative first, then from its likes to its opposites."""
    blocks = []
    for _, rows in clusters[clusters["column"].isin(correlation.index)].groupby("cluster", sort=True):
        first = rows.loc[rows["kept"].astype(bool), "column"].tolist()[:1] or rows["column"].tolist()[:1]
        near = correlation.loc[first[0], rows["column"]].drop(first).sort_values(ascending=False, kind="stable")
        blocks.append([*first, *near.index])
    heads = [block[0] for block in blocks]
    return [blocks[place] for place in _alike(correlation.loc[heads, heads].to_numpy(float))]


def _outlines(axes, blocks: list[list[str]], most: int) -> None:
    """A thin square about each of the largest clusters."""
    ends = np.cumsum([len(block) for block in blocks])
    largest = sorted((len(block), end) for block, end in zip(blocks, ends, strict=True) if len(block) > 1)[-most:]
    for size, end in largest if most else []:
        axes.add_patch(Rectangle((end - size - 0.5,) * 2, size, size, fill=False, ec=INK, lw=1.6 if ends[-1] <= NAMED else 0.8, label="cluster",
                                 clip_on=False))  # fmt: skip


def _named_rows(axes, order: pd.Index, blocks: list[list[str]]) -> None:
    """Names and numbers; the representatives of several bold, those that they stand for in grey."""
    count = len(order)
    kept = {block[0] for block in blocks if len(block) > 1}
    stood_for = {name for block in blocks for name in block[1:]}
    names = [axis_name(name) if count <= 20 else feature_name(name, 32) for name in order]
    axes.set_yticks(range(count), [f"{name}  {place}" for place, name in enumerate(names, start=1)])
    axes.set_xticks(range(0, count, 1 + count // 25), range(1, count + 1, 1 + count // 25))
    for text, name in zip(axes.get_yticklabels(), order, strict=True):
        text.set(fontweight="bold" if name in kept else "normal", color=MUTED if name in stood_for else INK)


def _key(axes, below, names: list[str], middles: list[float], count: int) -> None:
    """A number beside each block, and below what it stands for, in two columns."""
    places = _apart(middles, 0.036 * count, count)
    for number, (middle, place) in enumerate(zip(middles, places, strict=True), start=1):
        axes.plot([-0.005, -0.03], [middle, place], color=MUTED, lw=0.7, clip_on=False,
                  transform=axes.get_yaxis_transform())  # fmt: skip
        axes.text(-0.035, place, number, ha="right", va="center", size=8, transform=axes.get_yaxis_transform())
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    rows = -(-len(names) // 2)
    below.set(xlim=(0, 2), ylim=(rows - 0.5, -0.5))
    below.set_axis_off()
    for place, name in enumerate(names):
        x, y = place // rows, place % rows
        below.text(x + 0.07, y, place + 1, ha="right", va="center", size=8)
        below.text(x + 0.1, y, name, va="center", size=8, linespacing=1.1)


def _apart(places: list[float], gap: float, count: int) -> list[float]:
    """The places moved as little as it takes to lie `gap` apart, within the axes."""
    moved = np.array(places, float)
    for _ in range(500):
        short = gap - np.diff(moved)
        if len(moved) < 2 or short.max() < 1e-3 * gap:
            break
        push = np.clip(short, 0, None) / 2
        moved[:-1] -= push
        moved[1:] += push
        moved = np.clip(moved, 0, count - 1)
    return moved.tolist()


@mpl.rc_context(STYLE)
def univariate_forest(table: pd.DataFrame, most: int = 20) -> Figure:
    """Each biomarker alone: hazard ratio a standard deviation with its interval, and Harrell's C; smallest p first.

    Parameters
    ----------
    table : DataFrame
        `biomarker`, `hazard_ratio`, `low`, `high`, `p`, `q`, `concordance`, as `tables.univariate`. Filled where
        q < 0.05. What is not estimable is said so, and never among the first.
    most : int
        Rows that are shown.
    """
    shown = table.sort_values("p", kind="stable").head(most).reset_index(drop=True)
    told, names = estimable(shown), [wrap(feature_name(name), 34) for name in shown["biomarker"]]
    step = 0.34 if any("\n" in name for name in names) else 0.26
    figure = Figure(figsize=(WIDTH, step * max(len(shown), 2) + 1.15))
    axes = figure.add_subplot(ylim=(len(shown) - 0.4, -0.6), xscale="log")
    axes.axvline(1, color=MUTED, lw=0.8, zorder=0)
    for row, one in shown[told].iterrows():
        axes.plot([one["low"], one["high"]], [row, row], color=PLAIN, lw=1.4, solid_capstyle="butt")
    found = told & (shown["q"] < FALSE_DISCOVERIES)
    for kept, face, name in ((found, PLAIN, "q < 0.05"), (told & ~found, "white", "q ≥ 0.05")):
        axes.plot(shown.loc[kept, "hazard_ratio"], shown.index[kept], "o", color=PLAIN, mfc=face, mew=1.3, ms=5.5,
                  label=name)  # fmt: skip
    for row, one in shown.iterrows():
        score = "–" if pd.isna(one["concordance"]) else amount(one["concordance"], 2)
        text = score if told[row] else f"{score}, ratio not estimable"
        beside(axes, row, text)
    head(axes, "Harrell's C")
    name_rows(axes, names)
    _ratio_axis(axes, shown[told])
    tested = int(table["q"].notna().sum())
    axes.set_xlabel("Hazard ratio a standard deviation, with interval")
    handles = [Line2D([], [], color=PLAIN, mfc=face, mew=1.3, marker="o", ls="") for face in (PLAIN, "white")]
    below = int((table["q"] < FALSE_DISCOVERIES).sum())
    words = [f"q < 0.05: {amount(below)} of {amount(tested)} tested", f"q ≥ 0.05: {amount(tested - below)}"]
    figure.legend(handles, words, loc="outside upper left", ncols=2, handletextpad=0.2)
    return figure


def estimable(table: pd.DataFrame) -> pd.Series:
    """Which hazard ratios have an interval with two ends: a wider one than 1000 times has no maximum to speak of."""
    ratios = table[["hazard_ratio", "low", "high"]].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.isfinite(ratios).all(axis=1) & (ratios["low"] > 0) & (ratios["high"] / ratios["low"] < WIDEST)


def _ratio_axis(axes, shown: pd.DataFrame) -> None:
    """Up to eight ticks at round ratios, 1 among them."""
    low, high = (shown["low"].min(), shown["high"].max()) if len(shown) else (0.5, 2.0)
    low, high = min(low, 0.78) / 1.03, max(high, 1.28) * 1.03
    ticks: list[float] = []
    for tick in (1, 0.5, 2, 0.25, 4, 0.1, 10, 0.01, 100, 0.7, 1.5, 3, 0.8, 1.2, 0.9, 1.1):  # the roundest first
        if low <= tick <= high and all(abs(np.log(tick / other)) > np.log(high / low) / 8 for other in ticks):
            ticks.append(tick)
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


@mpl.rc_context(STYLE)
def response_spider(table: pd.DataFrame, limits: tuple[float, float] = (-65.7, 72.8)) -> Figure:
    """Change of volume over visits, a line a patient, in the style of the response at the last visit.

    Parameters
    ----------
    table : DataFrame, one row a visit
        As `growth.changes`: `patient_id`, `day`, `change_pct`, `response` (of the visit, such as PR; may be missing).
    limits : tuple of 2 floats, percent
        Of partial response and of progression, drawn as dashed lines. A sphere whose diameter shrinks by 30 % or
        grows by 20 % (RECIST 1.1: Eisenhauer 2009, Eur J Cancer 45:228) loses 65.7 % or gains 72.8 % of its volume.
    """
    kept = table[np.isfinite(table[["day", "change_pct"]].astype(float)).all(axis=1)]
    kept = kept.sort_values(["patient_id", "day"], kind="stable")
    unit = unit_of_time(max(kept["day"].max(), 1) if len(kept) else 1)
    figure = Figure(figsize=(WIDTH, 3.9))
    axes = figure.add_subplot()
    handles = {}
    patients = [rows for _, rows in kept.groupby("patient_id", sort=False)]
    last = [_response(rows["response"]) for rows in patients]
    for response in [name for name in [*RESPONSES, ""] if name in last]:
        colour, dash, words = RESPONSES.get(response, (INK, "-", "Not evaluated"))
        lines = [_from_baseline(rows) for rows, found in zip(patients, last, strict=True) if found == response]
        days, change = np.concatenate(lines, axis=1)  # one path for all, with gaps: a third of the file
        axes.plot(days / unit.days, change, color=colour, ls=dash, lw=0.9, label=response or "none",
                  zorder=1.5 if response == "SD" else 2)  # fmt: skip
        ends = np.array([line[:, -2] for line in lines])
        axes.plot(ends[:, 0] / unit.days, ends[:, 1], "o", color=colour, ms=2.5, mew=0, label=f"end {response}")
        handles[f"{words}: {len(lines)}"] = Line2D([], [], color=colour, ls=dash, lw=1.4)
    axes.axhline(0, color=MUTED, lw=0.8, zorder=0)
    _change_axis(axes, kept["change_pct"], limits)
    axes.set(xlabel=f"{unit.name} from baseline", ylabel="Change of volume, %", xlim=(0, None))
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=2, title="Response at the last visit: patients",
                  alignment="left")  # fmt: skip
    return figure


def _response(responses: pd.Series) -> str:
    """The last of a patient's responses; baseline itself has none."""
    known = responses.dropna().astype(str).str.upper()
    return known.iloc[-1] if len(known) and known.iloc[-1] in RESPONSES else ""


def _from_baseline(rows: pd.DataFrame) -> np.ndarray:
    """Days and change of one patient, from 0 at baseline, with a gap at the end; shape (2, visits)."""
    line = rows[["day", "change_pct"]].to_numpy(float).T
    start = np.zeros((2, 1)) if line[0, 0] > 0 and line[1, 0] else np.empty((2, 0))
    return np.hstack([start, line, np.full((2, 1), np.nan)])


def _change_axis(axes, change: pd.Series, limits: tuple[float, float]) -> None:
    """Percent, linear to 100 and logarithmic beyond where some lesions grow many times over; the limits by name."""
    highest = max(change.max() if len(change) else 0, limits[1])
    ticks = [-100, -50, 0, 50, 100, 200, 300]
    if highest > 350:
        axes.set_yscale("symlog", linthresh=100, linscale=1)
        ticks = [-100, -50, 0, 50, 100, *(m * 10**k for k in range(2, 7) for m in (3, 10))]
    ticks = [tick for tick in ticks if tick <= 1.1 * highest]
    axes.set_yticks(ticks, [amount(tick) for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-108, 1.15 * highest)
    for value, name in zip(limits, ("partial\nresponse", "progression"), strict=True):
        axes.axhline(value, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=3, label=name.replace("\n", " "))
        beside(axes, value, name)


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
        axes.set_title(wrap(feature_name(name), 20))
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
    few = len(correlation) <= 300  # the best order of the leaves takes minutes for thousands
    return leaves_list(linkage(squareform((distance + distance.T) / 2), "average", optimal_ordering=few))
