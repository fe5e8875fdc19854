"""`Found`: what one check of the gate says."""

from __future__ import annotations

from dataclasses import dataclass

PASSED, FAILED = "passed", "failed"
UNTESTED = "not tested"  # for want of images, columns or events: it stops nothing, and has shown nothing


@dataclass(frozen=True)
class Found:
    """One check: its verdict, what was found, and of whom."""

    check: str
    verdict: str  # PASSED, FAILED or UNTESTED
    found: str
    patients: tuple[str, ...] = ()
    expected: str = ""
    fix: str = ""


def passed(check: str, found: str) -> Found:
    return Found(check, PASSED, found)


def untested(check: str, found: str) -> Found:
    return Found(check, UNTESTED, found)


def judged(check: str, wrong: list[str], patients, fine: str, expected: str, fix: str) -> Found:
    """Failed where `wrong` says anything, else passed with what is `fine`; each patient is named once."""
    if not wrong:
        return passed(check, fine)
    more = f" and {len(wrong) - 3} more like it" if wrong[3:] else ""
    who = tuple(dict.fromkeys(str(one) for one in patients))
    return Found(check, FAILED, "; ".join(wrong[:3]) + more, who, expected, fix)
