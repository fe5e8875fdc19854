"""How near single numbers come to the outcome, and how near is nearer than anything known at baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd

CONCORDANCE = 0.85  # of pairs that differ; clean cohorts at most: mets 0.75, chest 0.71, kits 0.72
AUC = 0.95  # of the event, whenever; a lesion's volume alone reaches 0.86 in mets, whose follow-up is long
RHO = 0.85  # rank correlation with days among those with the event; kits 0.54
SPREADS = 5  # standard errors that the best of a few thousand columns stays under; one more of ranks, of few deaths
FEWEST = 10  # patients with the event, and without, below which nothing is said
PAIRS = 200_000  # at most; beyond it a seeded draw
TOO_FEW = "too few to tell"


def closest(columns: pd.DataFrame, outcome: pd.DataFrame, auc: float = AUC) -> tuple[list[str], str]:
    """Columns that tell the outcome, and a sentence on the nearest.

    Parameters
    ----------
    columns : DataFrame of float, rows as in `outcome`
    outcome : DataFrame
        `time_days`, `event`.
    auc : float
        Limit of the AUC; the others are of this module.

    Returns
    -------
    list of str, str
        What is wrong, by column; and what was found at most.
    """
    if outcome["event"].sum() < FEWEST or not columns.shape[1]:
        return [], f"{int(outcome['event'].sum())} events and {columns.shape[1]} columns: {TOO_FEW}"
    columns = columns.astype(float).replace([np.inf, -np.inf], np.nan)
    found = nearness(columns, outcome)
    limits = {"concordance": CONCORDANCE, "auc": auc, "rho": RHO}
    wrong = []
    for name, row in found[(found > pd.Series(limits)).any(axis=1)].iterrows():
        least = by_chance(columns[name], outcome)
        over = {how: row[how] for how, limit in limits.items() if row[how] > max(limit, least[how])}
        if over:
            told = ", ".join(f"{TOLD[how]} {value:.2f}" for how, value in over.items())
            wrong.append(f"`{name}` is as near to the outcome as nothing known at baseline ({told})")
    enough = found[found["auc"].notna()]
    nearest = f"; AUC of the event at most {enough['auc'].max():.2f}" if len(enough) else ""
    return wrong, f"{columns.shape[1]} columns, none tells the outcome{nearest}"


TOLD = {"concordance": "C of pairs that differ", "auc": "AUC of the event", "rho": "rank correlation with days to it"}


def nearness(columns: pd.DataFrame, outcome: pd.DataFrame) -> pd.DataFrame:
    """`concordance`, `auc` and `rho` of each column, each turned so that 0.5, 0.5 and 0 are nothing.

    Concordance is of comparable pairs that differ in the column, so that a yes or no counts in full.
    """
    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    ranks = columns.rank()
    known = columns.notna().to_numpy()
    dead, alive = known[event].sum(axis=0), known[~event].sum(axis=0)
    dead_only = columns[event].rank()
    with np.errstate(all="ignore"):
        auc = (ranks[event].sum().to_numpy() - dead * (dead + 1) / 2) / (dead * alive)
        rho = dead_only.corrwith(pd.Series(time[event], dead_only.index).rank()).abs().to_numpy()
    c = _concordances(columns.to_numpy(np.float32), time, event)
    turned = {"concordance": np.maximum(c, 1 - c), "auc": np.maximum(auc, 1 - auc), "rho": rho}
    return pd.DataFrame(turned, index=columns.columns)


def by_chance(column: pd.Series, outcome: pd.DataFrame) -> dict[str, float]:
    """The most that a column of such a size, with so many patients who differ from the rest, reaches by chance.

    Standard errors of Kendall's tau and of Mann and Whitney's U, the larger of the two; the latter as if only as many
    of either group counted as have the event.
    """
    event = outcome["event"].to_numpy(bool)[column.notna()]
    n, dead = len(event), int(event.sum())
    differ = min(n - column.value_counts().max(), n // 2) if n else 0
    if min(dead, differ) < 3:
        return {"concordance": np.inf, "auc": np.inf, "rho": np.inf}
    kendall = np.sqrt((2 * dead + 5) / (18 * dead * (dead - 1)))
    whitney = np.sqrt(n * (n + 1) / (12 * differ * (n - differ) * dead))  # only those with the event open a pair
    split = np.sqrt((n + 1) / (12 * dead * (n - dead))) if n > dead else np.inf
    rho = np.tanh((SPREADS + 1) / np.sqrt(dead - 3)) if dead > 3 else np.inf
    return {"concordance": 0.5 + SPREADS * max(kendall, whitney), "auc": 0.5 + SPREADS * split, "rho": rho}


def _concordances(values: np.ndarray, time: np.ndarray, event: np.ndarray) -> np.ndarray:
    first, later = np.nonzero(event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event)))
    if len(first) > PAIRS:
        drawn = np.random.default_rng(0).choice(len(first), PAIRS, replace=False)
        first, later = first[drawn], later[drawn]
    won = np.empty(values.shape[1])
    for start in range(0, values.shape[1], 100):
        block = values[:, start : start + 100]
        above, below = ((sign * block[first] > sign * block[later]).sum(axis=0) for sign in (1, -1))
        won[start : start + 100] = np.where(above + below > 0, above / np.maximum(above + below, 1), 0.5)
    return won
