"""How the training went."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from survpack.figures.style import COLOURS, INK, MUTED, STYLE, family, label, label_axes, panel_grid


@mpl.rc_context(STYLE)
def learning_curves(table: pd.DataFrame) -> Figure:
    """Training loss by epoch: a thin line a fold, a thick one their mean; a panel a model if there are several.

    Parameters
    ----------
    table : DataFrame
        `fold`, `epoch`, `loss`, and `model` where there are several.
    """
    models = dict(list(table.groupby("model", sort=False))) if "model" in table else {"": table}
    figure, panels = panel_grid(len(models), 2, 2.2)
    for (model, rows), axes in zip(models.items(), panels, strict=True):
        colour = COLOURS[family(model)] if model else INK
        for fold, line in rows.sort_values("epoch").groupby("fold"):
            axes.plot(line["epoch"], line["loss"], color=MUTED, alpha=0.6, lw=0.8, label=f"fold {fold}")
        mean = rows.groupby("epoch")["loss"].mean()
        axes.plot(mean.index, mean, color=colour, lw=2.2, label="mean", marker="o" if len(mean) == 1 else None)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_title(label(model) if model else "")
    handles = [Line2D([], [], color=INK, lw=2.2), Line2D([], [], color=MUTED, lw=0.8)]
    figure.legend(handles, ["Mean of the folds", "One fold"], loc="outside upper left", ncols=2)
    label_axes(figure, panels, "Epoch", "Training loss")
    return figure
