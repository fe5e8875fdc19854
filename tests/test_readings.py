"""The test set is read once: the same predictions again, others only when asked for, and all of it in a log."""

import numpy as np
import pandas as pd
import pytest

from survpack.errors import BadInput
from survpack.inference import evaluate
from survpack.params import load
from survpack.prognosis import Prognosis
from survpack.readings import entries, unlock, was_read

OUTCOME = pd.DataFrame({"patient_id": list("abcdef"), "time_days": [5.0, 9, 2, 7, 4, 8], "event": [1, 0, 1, 1, 0, 1]})


def predictions(model: str = "m", shift: float = 0.0) -> Prognosis:
    table = pd.DataFrame({
        "cohort": "toy", "model": model, "seed": 1, "repeat": 0, "fold": [0, 0, 1, 1, -1, -1],
        "split": ["cv"] * 4 + ["test"] * 2, "patient_id": list("abcdef"), "risk": np.arange(6.0) + shift,
        "days": 100.0, "s_0": 0.5,
    })  # fmt: skip
    return Prognosis(table, np.array([3.0]))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "readings" / "toy.jsonl"


def reads(log, models: dict, choice: str = "once", outcome=OUTCOME):
    return unlock("toy", models, outcome, choice, log=log)


def scored(found) -> set[str]:
    return {model for model, one in found.prognoses.items() if (one.table["split"] == "test").any()}


def test_the_first_reading_is_scored_and_logged(log):
    found = reads(log, {"m": predictions()})
    assert scored(found) == {"m"} and not found.withheld
    assert [one["verdict"] for one in entries(log)] == ["first"]
    assert "read once" in found.sentence


def test_the_same_predictions_may_be_read_again_and_the_log_does_not_grow(log):
    reads(log, {"m": predictions(), "n": predictions("n")})
    before = log.read_bytes()
    assert scored(reads(log, {"m": predictions()})) == {"m"}
    assert log.read_bytes() == before


@pytest.mark.parametrize("second", [{"m": predictions(shift=0.5)}, {"m": predictions(), "new": predictions("new")}])
def test_changed_and_new_predictions_stay_locked_and_the_refusal_is_logged_once(log, second):
    reads(log, {"m": predictions()})
    for _ in range(2):
        found = reads(log, second)
        (withheld,) = found.withheld
        assert withheld in found.sentence and "test_reading" in found.sentence
        assert withheld not in scored(found)
        assert len(found.prognoses[withheld].table) == 4  # cross-validation is not touched
    assert [one["verdict"] for one in entries(log)] == ["first", "refused"]


def test_a_flag_reads_again_and_the_sentence_counts_it(log):
    reads(log, {"m": predictions()})
    found = reads(log, {"m": predictions(shift=0.5)}, "again")
    assert scored(found) == {"m"} and "2 times" in found.sentence
    assert [one["verdict"] for one in entries(log)] == ["first", "again"]
    assert scored(reads(log, {"m": predictions(shift=0.5)})) == {"m"}  # that has been seen now


def test_patients_with_other_outcomes_are_another_test_set(log):
    reads(log, {"m": predictions()})
    other = OUTCOME.assign(time_days=OUTCOME["time_days"] + 1)
    assert scored(reads(log, {"m": predictions(shift=0.5)}, outcome=other)) == {"m"}


def test_a_new_split_that_shares_a_patient_stays_locked(log):
    reads(log, {"m": predictions()})
    moved = predictions(shift=0.5)
    moved.table.loc[moved.table["patient_id"] == "e", ["split", "fold"]] = ["cv", 0]
    assert reads(log, {"m": moved}).withheld == ["m"]


def test_the_order_of_rows_and_who_trained_them_change_no_reading(log):
    reads(log, {"m": predictions()})
    turned = predictions().table.iloc[::-1].reset_index(drop=True).assign(seed=9)
    assert not reads(log, {"m": Prognosis(turned, np.array([3.0]))}).withheld


def test_an_outside_model_neither_locks_the_study_out_nor_lets_it_in(log):
    unlock("toy", {"theirs": predictions("theirs")}, OUTCOME, "again", by="outside", log=log)
    assert scored(reads(log, {"m": predictions()})) == {"m"}
    assert reads(log, {"m": predictions(), "theirs": predictions("theirs")}).withheld == ["theirs"]


@pytest.mark.parametrize("line", ["{", "7", '{"patients": 29, "verdict": "first"}'])
def test_a_log_that_cannot_be_read_unlocks_nothing(log, line):
    log.parent.mkdir()
    log.write_text(f"{line}\n")
    with pytest.raises(BadInput, match="no reading of the test set"):
        reads(log, {"m": predictions()})


def test_asking_what_was_read_is_no_reading(log):
    assert not was_read("toy", predictions(), OUTCOME, log) and not log.exists()
    reads(log, {"m": predictions()})
    assert was_read("toy", predictions(), OUTCOME, log)
    assert not was_read("toy", predictions(shift=0.5), OUTCOME, log)


def test_what_is_left_unlocked_can_be_scored(log):
    reads(log, {"m": predictions()})
    left = reads(log, {"m": predictions(), "new": predictions("new")}).prognoses
    few = load().scores.model_copy(update={"bootstrap": 10})
    found = evaluate(left, OUTCOME, list("abcd"), few, "toy")
    assert set(found["cv"]) == {"m", "new"} and set(found["test"]) == {"m"}


def test_predictions_without_a_test_set_leave_no_log(log):
    assert not reads(log, {"m": predictions().of("cv")}).withheld
    assert not log.exists()
