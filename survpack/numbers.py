"""How a number reads: one formatter for tables, figures and prose."""

from __future__ import annotations

import math

DIGITS = dict.fromkeys(("brier", "ibs", "ici"), 3) | dict.fromkeys(
    ("mae_days", "mae_hinge", "mae_ipcw", "mae_pseudo", "rmst_difference"), 0
)  # of a score; two for all others


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def without_nan(tree):
    """The same lists and dictionaries with None where a number is none: JSON has no NaN."""
    if isinstance(tree, dict):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def amount(value: float, digits: int = 0) -> str:
    """A true minus, no −0, thousands apart by a thin space."""
    text = f"{round(value, digits) + 0.0:,.{digits}f}".replace(",", "\u202f")
    return text.replace("-", "−")


def p_text(p: float | None) -> str:
    """`0.23`, `0.051`, `< 0.001`: three digits where they decide; a dash where there is none."""
    return "–" if not known(p) else "< 0.001" if p < 0.001 else amount(p, 2 if p >= 0.1 else 3)


def interval_text(interval: dict | None, digits: int = 2, *, without: str = "") -> str | None:
    """`0.63 (0.57 to 0.69)`; None where there is no estimate.

    Parameters
    ----------
    interval : dict or None
        `{"estimate", "low", "high"}`; a bound may be None.
    digits : int
    without : str
        Said after an estimate that has no interval.
    """
    if not interval or not known(interval.get("estimate")):
        return None
    estimate = amount(interval["estimate"], digits)
    if not (known(interval.get("low")) and known(interval.get("high"))):
        return estimate + without
    return f"{estimate} ({amount(interval['low'], digits)} to {amount(interval['high'], digits)})"
