"""What the study found about itself, for the methods of the page: from what `benchmarks` left in reports/metrics, where it is."""

from __future__ import annotations

import json
import re

import pandas as pd

from survpack import paths, tables


def type_one() -> str:
    """How often a test at 5 % rejects what is so, or a 95 % interval misses, in the simulation of benchmarks/type_one.py."""
    if (found := _left("type-one")) is None:
        return "How often such tests err was not simulated for this page.\n"
    rows: dict[str, dict] = {}
    for name, models in found.items():
        test, how, about = re.fullmatch(r"(.+), ([^,(]+) \((.+)\)", name).groups()
        shares = [100 * one["found"] for sizes in models.values() for one in sizes.values()]
        told = rows.setdefault(f"{test} ({about})", {"Test or interval": f"{test} ({about})", "Nominal": "5 %"})
        told[how[0].upper() + how[1:]] = f"{min(shares):.1f} to {max(shares):.1f} %"
        told["Models and sizes"] = str(len(shares))
    return _table(
        "type-one",
        rows,
        "counts, on other draws, how often such tests err.",
        "**How easily we would say too much.** Cohorts drawn from a known population, the study's own models fitted anew on "
        "each: the share of cohorts in which a test rejects what is so or an interval misses it, from the least to the most "
        "over models and numbers of patients; `reports/metrics/type-one.json` has each with its interval.",
    )


def machines() -> str:
    """How far results move when this machine plays others, of benchmarks/machines.py."""
    if (found := _left("machines")) is None:
        return "How far results move on another machine was not measured for this page.\n"
    rows = {}
    for model, settings in found.items():
        for which in ("free", "held"):
            moved = [one for name, one in settings.items() if name.startswith("held") == (which == "held")]
            ahead = [one["ahead"]["shown"] for one in moved if "ahead" in one]
            rows[model, which] = {
                "Model": f"`{model}`",
                "Kernels": which,
                "Settings": str(len(moved)),
                "C out of fold": f"{max(abs(one['cv_c']) for one in moved):.4f}",
                "C on the test set": f"{max(abs(one['test_c']) for one in moved):.4f}",
                "Days": f"{max(one['days'] for one in moved):.1f}",
                "Curves": f"{max(one['curves'] for one in moved):.4f}",
                "Shown ahead of the first": f"{sum(ahead)} of {len(ahead)}" if ahead else "–",
            }
    return _table(
        "machines",
        rows,
        "tells how far results move when one machine plays several.",
        "**The same study on other machines.** Models fitted anew on the study's folds under other instruction sets and numbers "
        "of threads, with kernels free to follow them and with kernels held (`survpack/machine.py`): the largest difference "
        "from what this machine chooses; `reports/metrics/machines.json` has each setting.",
    )


def _left(name: str) -> dict | None:
    file = paths.METRICS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _table(name: str, rows: dict, told: str, caption: str) -> str:
    table = tables.pipe_table(pd.DataFrame(list(rows.values())).fillna("–"))
    return f"@tbl-{name} {told}\n\n::: {{#tbl-{name}}}\n\n{table}\n\n{caption}\n\n:::\n"
