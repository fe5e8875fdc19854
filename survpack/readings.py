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
from survpack.errors import BadInput
from survpack.prognosis import Prognosis

FIRST, AGAIN, REFUSED = "first", "again", "refused"
KEYS = {"when", "by", "verdict", "models", "patients"}


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
    cohort: str, prognoses: dict[str, Prognosis], outcome: pd.DataFrame, choice: str, *,
    by: str = "study", log: Path | None = None, record: bool = True,
) -> Unlocked:  # fmt: skip
    """Predictions with those of the test set, if these are the ones that were read first.

    The same predictions may be read as often as wanted: that tells nothing new. Others (a new model, another seed,
    a changed choice) would be a second look at the same patients: they are withheld unless `choice` is "again".
    A test set that shares a patient with one that was read has been read: a new split does not unlock it.

    Parameters
    ----------
    cohort : str
    prognoses : dict of str to Prognosis
    outcome : DataFrame
        `patient_id`, `time_days`, `event`.
    choice : {"once", "again"}
        `scores.test_reading` of params.yaml.
    by : {"study", "outside"}
        Who reads; an outside model's reading does not lock out the study's own first one.
    log : Path, optional
        `data/readings/<cohort>.jsonl` where not given.
    record : bool
        False only asks what would be said: nothing may be scored by it.
    """
    log = log or _log(cohort)
    now = _digests(prognoses)
    if not now:
        return Unlocked(prognoses, [], "There are no predictions of a test set.")
    patients = _patients(prognoses, outcome)
    before = [entry for entry in entries(log) if set(entry["patients"]) & set(patients)]
    read = _read(before, by)
    fresh = {model: digest for model, digest in now.items() if (model, digest) not in read}
    verdict = FIRST if not read else AGAIN if choice == "again" else REFUSED
    entry = {"by": by, "verdict": verdict, "models": fresh, "patients": patients}
    if record and fresh and not any({**entry, "when": old["when"]} == old for old in before):
        _append(log, entry)
    withheld = sorted(fresh) if verdict == REFUSED else []
    kept = {model: one.of("cv") if model in withheld else one for model, one in prognoses.items()}
    looks = [one["by"] for one in [*before, *([entry] if fresh else [])] if one["verdict"] != REFUSED]
    return Unlocked(kept, withheld, _sentence(len(patients), looks, withheld))


def was_read(cohort: str, prognosis: Prognosis, outcome: pd.DataFrame, log: Path | None = None) -> bool:
    """Were these very predictions of the test set read before? Asking is no reading."""
    now, patients = _digests({prognosis.model: prognosis}), _patients({prognosis.model: prognosis}, outcome)
    before = [entry for entry in entries(log or _log(cohort)) if set(entry["patients"]) & set(patients)]
    return set(now.items()) <= _read(before, "study") if now else False


def _log(cohort: str) -> Path:
    return paths.ROOT / "data" / "readings" / f"{cohort}.jsonl"


def _read(before: list[dict], by: str) -> set[tuple[str, str]]:
    """Models and digests that were read."""
    read = (entry for entry in before if entry["verdict"] != REFUSED and entry["by"] == by)
    return {pair for entry in read for pair in entry["models"].items()}


def _digests(prognoses: dict[str, Prognosis]) -> dict[str, str]:
    """What each model says of the test set, in twelve digits; nothing of a model that says nothing."""
    tests = {model: one.of("test") for model, one in prognoses.items()}
    return {
        model: _digest(one.table[["patient_id", "risk", "days", *one.columns]])
        for model, one in tests.items()
        if len(one.table)
    }


def _patients(prognoses: dict[str, Prognosis], outcome: pd.DataFrame) -> list[str]:
    """Patients of the test set by id and outcome, unreadable: phantoms of other sizes have the same ids."""
    ids = sorted({name for one in prognoses.values() for name in one.of("test").table["patient_id"]})
    known = outcome.set_index("patient_id").loc[ids]
    return [
        hashlib.sha256(f"{name}|{time:.0f}|{bool(event)}".encode()).hexdigest()[:12]
        for name, time, event in zip(ids, known["time_days"], known["event"], strict=True)
    ]


def entries(log: Path) -> list[dict]:
    """The log, oldest first.

    Raises
    ------
    BadInput
        For a line that is no entry: a log that cannot be read must not unlock anything.
    """
    try:
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        whole = all(isinstance(one, dict) and set(one) >= KEYS and isinstance(one["patients"], list) for one in found)
    except ValueError:
        whole = False
    if not whole:
        raise BadInput(
            f"{log}: a line is no reading of the test set, expected {', '.join(sorted(KEYS))} in each; restore the file, or "
            "move it away if this test set was never read."
        )
    return found


def _append(log: Path, entry: dict) -> None:
    whole = [*entries(log), {"when": datetime.now(UTC).isoformat(timespec="seconds"), **entry}]
    with paths.written_whole(log) as part:
        part.write_text("".join(f"{json.dumps(one)}\n" for one in whole))


def _digest(table: pd.DataFrame) -> str:
    ordered = table.sort_values("patient_id", ignore_index=True)
    return hashlib.sha256(ordered.to_csv(index=False).encode()).hexdigest()[:12]


def _sentence(patients: int, looks: list[str], withheld: list[str]) -> str:
    own, others = looks.count("study"), len(looks) - looks.count("study")
    told = f"The test set, {patients} patients, has {_times('been read', own)} by the study"
    if own > 1:
        told += ", each time with other predictions: what it says of the later ones is too good"
    if others:
        told += f"; predictions of others were {_times('scored on it', others)}"
    if not withheld:
        return f"{told}."
    return (
        f"{told}. It stays locked for {len(withheld)} whose predictions are new or have changed since "
        f"({', '.join(withheld)}); `scores.test_reading: again` in params.yaml scores them, and logs it."
    )


def _times(done: str, count: int) -> str:
    return f"not {done}" if not count else f"{done} once" if count == 1 else f"{done} {count} times"
