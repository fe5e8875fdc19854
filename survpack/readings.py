"""The locked test set: its outcomes are read once, and every reading is logged.

The log lies beside the raw data, outside the pipeline: no stage removes it, `make clean` leaves it, and no repository
carries it, since another machine's predictions differ in their last digits.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from survpack import paths
from survpack.prognosis import Prognosis

FIRST, AGAIN, REFUSED = "first", "again", "refused"


class Unlocked(NamedTuple):
    """What may be scored.

    Attributes
    ----------
    prognoses : dict of str to Prognosis
        Those given; of a model whose test predictions stay locked, without them.
    withheld : list of str
        These models.
    sentence : str
    """

    prognoses: dict[str, Prognosis]
    withheld: list[str]
    sentence: str


def unlock(
    cohort: str, prognoses: dict[str, Prognosis], outcome: pd.DataFrame, choice: str, log: Path | None = None
) -> Unlocked:
    """Predictions with those of the test set, if these are the ones that were read first.

    The same predictions may be read as often as wanted: that tells nothing new. Others (a new model, another seed,
    a changed choice) would be a second look at the same patients: they are withheld unless `choice` is "again".

    Parameters
    ----------
    cohort : str
    prognoses : dict of str to Prognosis
    outcome : DataFrame
        `patient_id`, `time_days`, `event`. Another test set, or another outcome of the same patients, has a log of
        its own.
    choice : {"once", "again"}
        `scores.test_reading` of params.yaml.
    log : Path, optional
        `data/readings/<cohort>.jsonl` where not given.
    """
    log = log or paths.ROOT / "data" / "readings" / f"{cohort}.jsonl"
    tests = {model: one.of("test") for model, one in prognoses.items()}
    tests = {model: one for model, one in tests.items() if len(one.table)}
    if not tests:
        return Unlocked(prognoses, [], "There are no predictions of a test set.")
    patients = sorted({name for one in tests.values() for name in one.table["patient_id"]})
    locked = _digest(outcome.set_index("patient_id").loc[patients, ["time_days", "event"]])
    now = {model: _digest(one.table.drop(columns=["model", "cohort"])) for model, one in tests.items()}
    before = [entry for entry in entries(log) if entry["test_set"] == locked]
    read = {pair for entry in before if entry["verdict"] != REFUSED for pair in entry["models"].items()}
    fresh = {model: digest for model, digest in now.items() if (model, digest) not in read}
    verdict = FIRST if not read else AGAIN if choice == "again" else REFUSED
    entry = {"test_set": locked, "patients": len(patients), "verdict": verdict, "models": fresh}
    if fresh and not any({**entry, "when": old["when"]} == old for old in before):
        _append(log, entry)
    withheld = sorted(fresh) if verdict == REFUSED else []
    kept = {model: one.of("cv") if model in withheld else one for model, one in prognoses.items()}
    looks = sum(one["verdict"] != REFUSED for one in before) + bool(fresh and verdict != REFUSED)
    return Unlocked(kept, withheld, _sentence(len(patients), looks, withheld))


def entries(log: Path) -> list[dict]:
    """The log, oldest first."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _append(log: Path, entry: dict) -> None:
    whole = [*entries(log), {"when": datetime.now(UTC).isoformat(timespec="seconds"), **entry}]
    with paths.written_whole(log) as part:
        part.write_text("".join(f"{json.dumps(one)}\n" for one in whole))


def _digest(table: pd.DataFrame) -> str:
    ordered = table.reset_index().sort_values("patient_id", ignore_index=True)
    return hashlib.sha256(ordered.to_csv(index=False).encode()).hexdigest()[:12]


def _sentence(patients: int, looks: int, withheld: list[str]) -> str:
    told = f"The test set, {patients} patients, has been read once." if looks == 1 else (
        f"The test set, {patients} patients, has been read {looks} times, each time with other predictions: what it "
        "says of the later ones is too good."
    )  # fmt: skip
    if not withheld:
        return told
    return (
        f"{told} It stays locked for {len(withheld)} whose predictions are new or have changed since "
        f"({', '.join(withheld)}); `scores.test_reading: again` in params.yaml scores them, and logs it."
    )
