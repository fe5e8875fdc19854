"""Predictions of others: published figures are met, our own folds give our own numbers, and every reading is logged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from survpack import inference, metrics, outside, paths, readings, scoring
from survpack.__main__ import main
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.metrics import CALIBRATION, DAYS, RANKING, brier_at
from survpack.prognosis import Prognosis, day_at
from survpack.study import Study

HORIZON = 365


@pytest.fixture
def study(study_of, patients, params, tmp_path, monkeypatch):
    """A study of 40 patients in a root of its own, which the command finds under any name."""
    reports = tmp_path / "reports"
    reports.mkdir()
    for name in ("survpack.lua", "paper.css"):
        shutil.copy(paths.REPORTS / name, reports)
    made = study_of(tmp_path / "toy", patients, scores=params.scores.model_copy(update={"bootstrap": 40}))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REPORTS", reports)
    monkeypatch.setattr(scoring, "_study", lambda cohort: made)
    return made


@pytest.fixture
def ours(study, patients) -> Prognosis:
    """Predictions as the study makes them: a risk with ties, curves and days."""
    table = study.splits.assign(cohort="toy", model="ours", seed=3, repeat=0).rename(columns={"split": "side"})
    table["split"] = table.pop("side").map({"dev": "cv", "test": "test"})
    risk = np.log(patients.biomarkers["tumour_ml"]).loc[table["patient_id"]].round(1).to_numpy()
    survival = np.exp(-np.asarray(study.times) / 500 * np.exp(risk - 1)[:, None])
    table = table.assign(risk=risk, days=day_at(survival, study.times, 0.5))
    return Prognosis(table.join(pd.DataFrame(survival).add_prefix("s_")), study.times)


@pytest.fixture
def file(ours, tmp_path):
    """`file(columns, name)`: theirs as a CSV; the columns are those of `whole`."""
    curves = ours.table[ours.columns].set_axis([f"s_{float(day)}" for day in ours.times], axis=1)
    whole = ours.table[["patient_id", "risk", "days"]].join(curves)

    def written(*names, name="theirs.csv", change=lambda table: table):
        curves = [column for column in whole if column.startswith("s_")]
        wanted = [column for one in names for column in (curves if one == "curves" else [one])]
        change(whole[["patient_id", *wanted]].copy()).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return written


def scored(path, folds=True, **options) -> dict:
    """What a report says, without its page; within the study's folds unless told otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_figures", lambda *_: [])
        patch.setattr(scoring, "by_pandoc", str)
        return _scored(path, folds=folds, **options)


def _scored(path, **options) -> dict:
    return json.loads((scoring.report(path, "toy", **options).parent / "scores.json").read_text())


def same(found: dict, expected: dict) -> bool:
    return all(
        (found[name][part] is None) == (expected[name][part] is None)
        and (found[name][part] is None or abs(found[name][part] - expected[name][part]) < 1e-9)
        for name in found
        for part in ("estimate", "low", "high")
    )


def evaluated(study, ours) -> dict:
    found = inference.evaluate({"ours": ours}, study.cohort.participants, study.development, study.params.scores, "toy")
    return {split: models["ours"] for split, models in found.items()}


# --- the numbers


def test_our_own_predictions_in_a_file_have_the_scores_and_intervals_of_the_study(study, ours, file):
    found = scored(file("risk", "days", "curves"), test=True)["scores"]
    expected = evaluated(study, ours)
    for split in ("cv", "test"):
        assert set(found[split]) == set(expected[split]) - {"hazard_ratio", "rmst_difference"}
        assert same(found[split], expected[split])


def test_the_study_s_own_parquet_is_read_by_its_days_not_by_its_numbers(study, ours, file, tmp_path):
    ours.save(tmp_path / "own.parquet")
    assert same(scored(tmp_path / "own.parquet")["scores"]["cv"], evaluated(study, ours)["cv"])


def test_harrell_of_one_fold_is_that_of_lifelines(study, file):
    from lifelines.utils import concordance_index

    one_fold = study.splits.loc[study.splits["fold"] == 0, "patient_id"]
    path = file("risk", change=lambda table: table[table["patient_id"].isin(one_fold)].sample(frac=1, random_state=0))
    table = pd.read_csv(path)
    outcome = study.outcome(table["patient_id"])
    expected = concordance_index(outcome["time_days"], -table["risk"], outcome["event"])
    assert scored(path)["scores"]["cv"]["harrell_c"]["estimate"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("columns", "absent"),
    [
        (["risk"], {"brier", "ibs", *CALIBRATION, *DAYS}),
        (["days"], {"brier", "ibs", *CALIBRATION}),
        (["curves"], {*DAYS}),
    ],
)
def test_only_what_the_columns_allow_is_scored_and_the_page_says_what_is_not(study, ours, file, columns, absent):
    path = file(*columns)
    found, expected = scored(path)["scores"]["cv"], evaluated(study, ours)["cv"]
    assert set(RANKING) <= set(found) and not absent & set(found)
    if columns == ["risk"]:  # of one risk at all times, which is what these curves are
        assert same(found, expected)
    else:  # a day or an area for a risk may part or tie a pair
        assert found["harrell_c"]["estimate"] == pytest.approx(expected["harrell_c"]["estimate"], abs=0.05)
    assert "Not scored: " in (paths.REPORTS / "scored/toy/theirs/scores.md").read_text()


def test_a_curve_that_ends_before_the_horizon_is_not_scored_there(study, file):
    def short(table):
        return table[["patient_id"]].assign(s_90=0.9, s_180=np.linspace(0.2, 0.8, len(table)))

    assert not {"brier", "ici"} & set(scored(file(change=short))["scores"]["cv"])
    reaching = file(change=lambda table: short(table).assign(**{f"s_{HORIZON}": 0.2}))
    assert {"brier", "ici"} <= set(scored(reaching)["scores"]["cv"])


# --- the risk of a curve


def test_the_risk_of_curves_is_the_share_of_days_above_them_by_trapezoids(study, file):
    levels = np.linspace(0.1, 0.9, len(study.splits))
    path = file(change=lambda table: table[["patient_id"]].assign(s_100=0.9, s_300=levels, s_600=0.05))
    curves = np.column_stack([np.ones((40, 1)), np.tile([0.9], (40, 1)), levels, np.full(40, 0.05)])
    lost = 600 - np.trapezoid(curves, [0, 100, 300, 600], axis=1)
    risk = outside.read(path, study).prognosis.table["risk"].to_numpy()
    assert risk / risk[0] == pytest.approx(lost / lost[0])


def test_the_risk_of_a_single_column_is_one_less_what_it_says(study, file):
    levels = np.linspace(0.1, 0.9, len(study.splits))
    path = file(change=lambda table: table[["patient_id"]].assign(s_365=levels))
    assert outside.read(path, study).prognosis.table["risk"].to_numpy() == pytest.approx(1 - levels)


COLUMNS = {
    "one": [365],
    "one beyond follow-up": [9000],
    "two": [180, 365],
    "two, the first on day 0": [0, 365],
    "unequally spaced": [1, 2, 400, 401, 3000],
    "as many as a study's": np.linspace(5, 2000, 40).round(1).tolist(),
    "beyond follow-up": [365, 9000],
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("days", COLUMNS.values(), ids=COLUMNS)
def test_harrell_of_curves_is_harrell_of_the_risk_they_were_made_of(study, file, days, together):
    """Under proportional hazards, with ties: every column counts, wherever it lies."""
    risk = np.random.default_rng(1).normal(size=len(study.splits)).round(1)
    curves = {f"s_{day}": np.exp(-day / 2000 * np.exp(risk)) for day in days}
    by_curve = file(name="curves.csv", change=lambda table: table[["patient_id"]].assign(**curves))
    by_risk = file(name="risk.csv", change=lambda table: table[["patient_id"]].assign(risk=risk))
    asked = {"folds": not together}
    found, expected = (next(iter(scored(path, **asked)["scores"].values())) for path in (by_curve, by_risk))
    assert found["harrell_c"] == pytest.approx(expected["harrell_c"], abs=1e-12)
    assert found["uno_c"] == pytest.approx(expected["uno_c"], abs=1e-12)


def test_a_curve_that_stays_at_1_until_its_last_column_ranks_by_that_column(study, file):
    outcome = study.outcome(study.splits["patient_id"])
    last = outcome["time_days"].rank(pct=True).to_numpy()
    path = file(change=lambda table: table[["patient_id"]].assign(s_90=1, s_180=1, s_365=last))
    assert scored(path, folds=False)["scores"]["everyone"]["harrell_c"]["estimate"] == 1


def test_equal_curves_have_equal_risks_to_the_last_digit(study, file):
    days = np.linspace(1, 2000, 37).round(1)
    path = file(change=lambda table: table[["patient_id"]].assign(**{f"s_{day}": np.exp(-day / 777) for day in days}))
    found = outside.read(path, study)
    assert found.prognosis.table["risk"].nunique() == 1
    assert any("nothing is ranked" in note for note in found.notes)
    assert scored(path, folds=False)["scores"]["everyone"]["harrell_c"]["estimate"] == 0.5


def test_curves_at_1_for_everyone_rank_nobody_and_it_is_said(study, file):
    found = scored(file(change=lambda table: table[["patient_id"]].assign(s_180=1, s_365=1)), folds=False)
    assert found["scores"]["everyone"]["harrell_c"]["estimate"] == 0.5
    assert any("nothing is ranked" in note for note in found["notes"])


def test_a_curve_of_day_0_alone_is_not_used(study, file):
    found = outside.read(file("risk", change=lambda table: table.assign(s_0=1)), study, together=True)
    assert found.given == () and any("Columns not used: `s_0`" in note for note in found.notes)


def test_a_risk_against_its_own_curves_is_told(study, file):
    path = file("risk", "curves", change=lambda table: table.assign(risk=-table["risk"]))
    assert any("against each other" in note for note in outside.read(path, study).notes)
    assert not any("against each other" in note for note in outside.read(file("risk", "curves"), study).notes)


# --- everyone together


def arrays(study, ids=None):
    known = study.outcome(study.splits["patient_id"] if ids is None else ids)
    return known["time_days"].to_numpy(), known["event"].to_numpy(bool)


def test_a_model_of_others_is_scored_on_everyone_and_every_pair_counts(study, ours, file):
    from lifelines.utils import concordance_index
    from sksurv.metrics import concordance_index_ipcw
    from sksurv.util import Surv

    found = scored(file("risk"), folds=False)
    assert [*found["scores"]] == ["everyone"]
    (time, event), risk = arrays(study), ours.table["risk"].to_numpy()
    one = found["scores"]["everyone"]
    assert one["harrell_c"]["estimate"] == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)
    known = Surv.from_arrays(event, time)
    tau = metrics.censoring_reach(study.cohort.outcome)
    assert one["uno_c"]["estimate"] == pytest.approx(concordance_index_ipcw(known, known, risk, tau=tau)[0], abs=1e-9)
    assert any("one group" in note for note in found["notes"])


@pytest.mark.parametrize("kind", ["probability", "yes or no", "binary risk"])
def test_a_published_auc_and_accuracy_are_met_to_the_last_digit(study, file, kind):
    """Nobody leaves before the horizon, most on it; on half of the patients, as a published table may be."""
    rng = np.random.default_rng(2)
    participants = study.cohort.participants
    death = rng.exponential(600, len(participants)).round() + 1
    participants["time_days"], participants["event"] = np.minimum(death, HORIZON), death < HORIZON
    ids = participants["patient_id"].iloc[::2]
    time, event = arrays(study, ids)
    told = np.clip(rng.normal(0.4, 0.3, len(ids)) + 0.2 * event, 0.01, 0.99).round(2)
    told = told if kind == "probability" else (told > 0.5).astype(float)
    column = {"risk": told} if kind == "binary risk" else {f"s_{HORIZON}": 1 - told}
    path = file(change=lambda table: pd.DataFrame({"patient_id": ids.to_numpy(), **column}))
    found = scored(path, folds=False)
    day = next(row for row in found["days"]["everyone"] if row["day"] == HORIZON)
    expected = roc_auc_score(event, told)
    assert day["auc"]["estimate"] == pytest.approx(expected, abs=1e-12)
    assert day["auc_known"]["estimate"] == pytest.approx(expected, abs=1e-12)
    assert day["accuracy"]["estimate"] == pytest.approx(accuracy_score(event, told > 0.499))
    assert day["sensitivity"]["estimate"] == pytest.approx(recall_score(event, told > 0.499))
    assert day["specificity"]["estimate"] == pytest.approx(recall_score(~event, told < 0.499))
    assert (day["dead"], day["alive"], day["lost"]) == (event.sum(), (~event).sum(), 0)
    if kind != "binary risk":
        assert found["scores"]["everyone"]["auc"]["estimate"] == pytest.approx(expected, abs=1e-12)
        assert found["scores"]["everyone"]["brier"]["estimate"] == pytest.approx(((event - told) ** 2).mean())
    in_folds = scored(path)["days"]["cv"]
    assert next(row for row in in_folds if row["day"] == HORIZON)["auc_known"]["estimate"] != pytest.approx(expected)


def test_a_published_auc_of_those_whose_fate_is_known_is_met_under_censoring(study, ours, file):
    found = scored(file("risk"), folds=False)
    (time, event), risk = arrays(study), ours.table["risk"].to_numpy()
    for row in found["days"]["everyone"]:
        dead = event & (time <= row["day"])
        known = dead | (time >= row["day"])
        assert row["lost"] == (~known).sum()
        assert row["auc_known"]["estimate"] == pytest.approx(roc_auc_score(dead[known], risk[known]), abs=1e-12)
    assert {row["day"] for row in found["days"]["everyone"]} >= {HORIZON}
    assert "accuracy" not in found["days"]["everyone"][0]  # a risk that is no probability calls nobody


def test_the_days_of_few_columns_are_scored_one_by_one_and_a_fine_curve_on_the_days_of_the_study(study, ours, file):
    few = file(change=lambda table: table[["patient_id"]].assign(s_100=0.9, s_300=0.5, s_900=0.1))
    assert [row["day"] for row in scored(few, folds=False)["days"]["everyone"]] == [100, 300, 900]
    fine = scored(file("curves"), folds=False)["days"]["everyone"]
    assert [row["day"] for row in fine] == [180, 365, 730]


def test_past_the_last_day_of_follow_up_no_accuracy_is_told(study, file):
    path = file(change=lambda table: table[["patient_id"]].assign(s_90000=0.1))
    (row,) = scored(path, folds=False)["days"]["everyone"]
    assert all(row[name]["estimate"] is None for name in ("auc", "auc_known", "accuracy", "sensitivity", "specificity"))


def test_empty_columns_without_a_name_and_empty_rows_of_a_spreadsheet_are_no_predictions(study, file):
    path = file("risk")
    expected = outside.read(path, study).prognosis.table["risk"].tolist()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*(line + ", ," for line in lines), ",,,", " ,,,"]) + "\n")
    assert outside.read(path, study).prognosis.table["risk"].tolist() == expected


def test_one_column_of_another_day_is_scored_on_its_own_day_and_an_option_asks_for_any(study, ours, file):
    path = file(change=lambda table: table[["patient_id"]].assign(s_200=ours.table["s_20"]))
    found = scored(path, folds=False)
    assert found["horizon_days"] == 200 and "brier" in found["scores"]["everyone"]
    assert scored(path)["horizon_days"] == HORIZON  # in the folds of the study, as the study's own
    assert scored(file("curves"), folds=False, horizon=100)["horizon_days"] == 100
    (time, event), one = arrays(study), ours
    survival = metrics.survival_at(one, [100])[:, 0]
    expected = brier_at(time, event, survival, 100, study.cohort.outcome)
    found = scored(file("curves"), folds=False, horizon=100)["scores"]["everyone"]["brier"]["estimate"]
    assert found == pytest.approx(expected)


def test_a_day_between_two_columns_is_read_straight_and_said_to_be(study, file):
    path = file(change=lambda table: table[["patient_id"]].assign(s_340=0.6, s_440=0.2))
    found = scored(path)
    (time, event), alive = arrays(study, study.development), 0.6 - 0.4 * (HORIZON - 340) / 100
    train = study.outcome(study.development).reset_index()
    expected = brier_at(time, event, np.full(len(time), alive), HORIZON, train)
    assert found["scores"]["cv"]["brier"]["estimate"] == pytest.approx(expected)
    assert any("straight between the columns of 340 and 440 days" in note for note in found["notes"])


def test_a_threshold_calls_who_just_meets_it(study, file):
    path = file(change=lambda table: table[["patient_id"]].assign(s_365=0.8))
    (row,) = scored(path, folds=False, threshold=0.2)["days"]["everyone"]
    assert (row["sensitivity"]["estimate"], row["specificity"]["estimate"]) == (1, 0)


def test_risks_of_several_models_in_a_column_fold_are_not_compared(study, ours, file, tmp_path):
    fold = np.arange(40) % 4
    shifted = file("risk", change=lambda table: table.assign(risk=table["risk"] + 100 * fold, fold=fold), name="a.csv")
    plain = file("risk", change=lambda table: table.assign(fold=fold), name="b.csv")
    found, expected = (scored(path, folds=False) for path in (shifted, plain))
    assert same(found["scores"]["everyone"], expected["scores"]["everyone"])
    assert any("4 models" in note for note in found["notes"])
    ours.save(tmp_path / "own.parquet")  # the study's own say whose fold each patient is of
    assert any("3 models" in note for note in scored(tmp_path / "own.parquet", folds=False)["notes"])


def test_differences_from_our_own_models_are_the_same_either_way(study, ours, file):
    Prognosis(ours.table.assign(model="age", risk=np.arange(len(ours.table)) % 7), ours.times).save(
        study.paths.predictions("age")
    )
    together, apart = (scored(file("risk"), folds=folds)["beside"] for folds in (False, True))
    assert together == apart and len(together) == 1
    assert together[0].endswith(
        f"({len(study.development)} patients, {arrays(study, study.development)[1].sum()} events)"
    )
    assert "only patients of one fold of the study" in (paths.REPORTS / "scored/toy/theirs/scores.md").read_text()


# --- cohorts that were only read


def test_stage_01_is_enough_and_so_is_a_cohort_without_folds_or_images(study, file, monkeypatch):
    for folder in (study.paths.biomarkers, study.paths.crops):
        shutil.rmtree(folder)
    expected = scored(file("risk", "days", "curves"), folds=False)
    cohort = study.cohort
    bare = Study("toy", study.params, study.paths)
    monkeypatch.setattr(scoring, "_study", lambda cohort: bare)
    Cohort("toy", cohort.participants, cohort.images.iloc[:0], cohort.dictionary, cohort.labels).save(
        study.paths.cohort
    )
    assert not (study.paths.cohort / "splits.parquet").exists()  # saved anew
    found = scored(file("risk", "days", "curves"), folds=False)
    assert found["scores"] == expected["scores"] and found["days"] == expected["days"] and found["beside"] == []
    with pytest.raises(BadInput, match="`--folds`, but cohort toy has no folds"):
        scored(file("risk"))
    assert {*scored(file("risk"), folds=False)["scores"]["everyone"]} == {*RANKING}


@pytest.fixture
def own(raw, monkeypatch, tmp_path):
    """A folder of one's own in data/raw, which no stage has read; its patients, and a file of their risks."""
    from broken import sound

    sound(raw / "mine")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    table = pd.read_csv(raw / "mine" / "participants.tsv", sep="\t", dtype={"participant_id": str})
    table["patient_id"] = table["participant_id"]
    table["risk"] = np.random.default_rng(0).normal(size=len(table))
    table[["patient_id", "risk"]].to_csv(tmp_path / "theirs.csv", index=False)
    return table


def test_a_cohort_that_is_only_there_is_scored_by_its_table(own, tmp_path, capsys):
    from lifelines.utils import concordance_index

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "by_pandoc", str)
        assert main(["score", str(tmp_path / "theirs.csv"), "mine", "--horizon", "730"]) == 0
    assert "| 730 " in capsys.readouterr().out
    told = json.loads((paths.REPORTS / "scored" / "mine" / "theirs" / "scores.json").read_text())
    found = told["scores"]["everyone"]["harrell_c"]["estimate"]
    expected = concordance_index(own["time_days"], -own["risk"], own["event"])
    assert found == pytest.approx(expected, abs=1e-12)
    log = readings.entries(tmp_path / "data" / "readings" / "mine.jsonl")
    assert [len(entry["patients"]) for entry in log] == [len(own)]  # a test set that is drawn later has been scored
    assert not (paths.DERIVED / "mine").exists()


# --- the numbers within the study's folds


def test_risks_of_one_fold_do_not_depend_on_patients_elsewhere(study, file):
    held = study.splits.loc[study.splits["split"] == "test", "patient_id"]
    all_of_them = outside.read(file("risk"), study).prognosis.of("test").table
    alone = outside.read(file("risk", change=lambda table: table[table["patient_id"].isin(held)]), study).prognosis
    pd.testing.assert_frame_equal(alone.table, all_of_them)


def test_a_backward_risk_is_told(study, file):
    path = file(
        "risk", change=lambda table: table.assign(risk=-study.outcome(table["patient_id"])["time_days"].to_numpy())
    )
    assert not any("backwards" in note for note in scored(path)["notes"])
    path = file(
        "risk", change=lambda table: table.assign(risk=study.outcome(table["patient_id"])["time_days"].to_numpy())
    )
    assert any("backwards" in note for note in scored(path)["notes"])


def test_ours_stand_beside_theirs_on_the_patients_both_predict_and_are_adjusted_for_their_number(study, ours, file):
    for name in ("age", "volume"):
        Prognosis(ours.table.assign(model=name, risk=np.arange(len(ours.table)) % 7), ours.times).save(
            study.paths.predictions(name)
        )
    told = scored(file("risk", change=lambda table: table[::2]))["beside"]
    assert len(told) == 2 and all(line.startswith("Theirs minus ") for line in told)
    Prognosis(ours.table, ours.times).save(study.paths.predictions("age"))
    assert "0.00 (no interval): not shown" in scored(file("risk"))["beside"][0]


# --- the test set


def test_without_the_flag_no_test_patient_is_scored_no_reading_is_logged_and_the_page_says_so(study, file):
    held = (study.splits["split"] == "test").sum()
    found = scored(file("risk"))
    assert set(found["scores"]) == {"cv"}
    assert any(f"{held} patients of the locked test set are left out" in note for note in found["notes"])
    assert not (paths.ROOT / "data" / "readings").exists()


def test_with_the_flag_the_reading_is_logged_once_under_their_name(study, ours, file):
    readings.unlock("toy", {"age": ours}, study.cohort.outcome, "once")
    for _ in range(2):
        found = scored(file("risk"), test=True)
        assert set(found["scores"]) == {"cv", "test"}
        assert any("predictions of others were scored on it once" in note for note in found["notes"])
    log = readings.entries(paths.ROOT / "data" / "readings" / "toy.jsonl")
    assert [(entry["by"], [*entry["models"]]) for entry in log] == [("study", ["age"]), ("outside", ["theirs"])]


def test_their_reading_does_not_lock_the_study_out_of_its_first(study, ours, file):
    scored(file("risk"), test=True)
    assert not readings.unlock("toy", {"age": ours}, study.cohort.outcome, "once").withheld


def test_a_part_of_the_test_set_is_not_read(study, file):
    path = file("risk", change=lambda table: table[::2])
    with pytest.raises(BadInput, match="expected all of them"):
        scoring.report(path, "toy", test=True)
    assert not (paths.ROOT / "data").exists()


def test_scoring_everyone_is_a_reading_of_the_test_set_that_is_logged_once_and_told(study, ours, file):
    readings.unlock("toy", {"age": ours}, study.cohort.outcome, "once")
    held = (study.splits["split"] == "test").sum()
    for _ in range(2):
        found = scored(file("risk"), folds=False)
        told = " ".join(found["notes"])
        assert f"{held} of the {held} patients of the locked test set are among them" in told
        assert (
            f"The test set, {held} patients, has been read once by the study; predictions of others were scored on it once"
            in told
        )
    scored(file("risk"), test=True)  # the very same predictions, asked for in the other way
    log = readings.entries(paths.ROOT / "data" / "readings" / "toy.jsonl")
    assert [(entry["by"], [*entry["models"]]) for entry in log] == [("study", ["age"]), ("outside", ["theirs"])]
    assert not readings.unlock("toy", {"age": ours}, study.cohort.outcome, "once").withheld


def test_of_a_part_of_the_test_set_only_that_part_is_logged_and_nothing_is_said_of_the_whole(study, file):
    held = study.splits.loc[study.splits["split"] == "test", "patient_id"]
    path = file("risk", change=lambda table: table[~table["patient_id"].isin(held[1:])])
    told = " ".join(scored(path, folds=False)["notes"])
    assert f"1 of the {len(held)} patients of the locked test set are among them" in told
    assert "The test set," not in told
    (entry,) = readings.entries(paths.ROOT / "data" / "readings" / "toy.jsonl")
    assert len(entry["patients"]) == 1


def test_without_a_patient_of_the_test_set_nothing_is_logged(study, file):
    held = study.splits.loc[study.splits["split"] == "test", "patient_id"]
    path = file("risk", change=lambda table: table[~table["patient_id"].isin(held)])
    assert "test set are" not in " ".join(scored(path, folds=False)["notes"])
    assert not (paths.ROOT / "data" / "readings").exists()


def test_the_study_is_told_that_others_were_scored_before_there_were_folds(study, ours, file):
    splits = study.paths.cohort / "splits.parquet"
    kept = splits.read_bytes()
    splits.unlink()
    assert any("No test set is set aside yet" in note for note in scored(file("risk"), folds=False)["notes"])
    splits.write_bytes(kept)
    sentence = readings.unlock("toy", {"age": ours}, study.cohort.outcome, "once").sentence
    assert "predictions of others were scored on it once" in sentence


def test_what_cannot_be_written_is_one_sentence_and_no_reading(study, file, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scoring.figures, "save", full)
    assert main(["score", str(file("risk")), "toy"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "No space left" in told.err and "expected" in told.err
    assert not (paths.ROOT / "data" / "readings").exists() and not any(paths.REPORTS.rglob("*.part"))


def test_nothing_of_an_earlier_file_of_that_name_stays(study, file):
    page = scoring.report(file("risk", "days", "curves"), "toy")
    assert {path.stem for path in page.parent.glob("*.svg")} == {"roc", "calibration", "decision", "days"}
    page = scoring.report(file("risk"), "toy")
    assert {path.stem for path in page.parent.glob("*.svg")} == {"roc"}
    assert "<svg" in page.read_text() or "image/svg" in page.read_text()


@pytest.mark.parametrize("name", ["...csv", "..csv", "-.csv", "___.csv"])
def test_a_file_name_without_a_letter_or_digit_is_refused_and_nothing_is_removed(study, file, name, capsys):
    other = paths.REPORTS / "scored" / "other" / "x" / "report.html"
    other.parent.mkdir(parents=True)
    other.write_text("kept")
    assert main(["score", str(file("risk", name=name)), "toy"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "a name with a letter or digit" in told and "rename the file" in told
    assert [path for path in (paths.REPORTS / "scored").rglob("*") if path.is_file()] == [other]


@pytest.mark.parametrize("cohort", ["..", ".", "", "../toy", "/tmp"])
def test_a_cohort_whose_folder_would_lie_elsewhere_is_refused(study, file, cohort, capsys):
    assert main(["score", str(file("risk")), cohort]) == 2
    assert "cannot be called" in capsys.readouterr().err and not (paths.REPORTS / "scored").exists()


def test_names_in_other_scripts_are_kept_apart(study, file):
    names = {name: outside.read(file("risk", name=f"{name}.csv"), study).prognosis.model
             for name in ("модель", "прогноз", "模型 2", "रिमा", "cafe\u0301", "a|b `c`")}  # fmt: skip
    assert list(names.values()) == ["модель", "прогноз", "模型-2", "रिमा", "café", "a-b-c-"]
    page = scoring.report(file("risk", name="модель.csv"), "toy")
    assert page.parent.name == "модель" and "image/svg" in page.read_text(encoding="utf-8")


def test_a_patient_without_time_at_risk_is_refused_in_a_cohort_that_no_stage_has_read(own, raw, tmp_path, capsys):
    table = pd.read_csv(raw / "mine" / "participants.tsv", sep="\t")
    table.loc[3, ["time_days", "event"]] = [0, True]
    table.to_csv(raw / "mine" / "participants.tsv", sep="\t", index=False)
    assert main(["score", str(tmp_path / "theirs.csv"), "mine"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "sub-004" in told.err and "time_days" in told.err


PARQUET = {
    "durations": ({"days": pd.to_timedelta(np.arange(40) + 1, "D")}, "`days` of patient P000"),
    "dates": ({"risk": pd.Timestamp("2020-01-01")}, "`risk` of patient P000"),
    "days without time": ({"risk": pd.Timestamp("2020-01-01").date()}, "`risk` of patient P000"),
}


@pytest.mark.parametrize("fault", PARQUET)
def test_dates_and_durations_are_no_numbers(study, tmp_path, capsys, fault):
    columns, named = PARQUET[fault]
    study.splits[["patient_id"]].assign(**columns).to_parquet(tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", [named, "(40 in all)", "number"], capsys)


@pytest.mark.parametrize("times", ["null", '"x"', "[[1]]", "[1,", "[1, 2]", "[NaN]", "{}"])
def test_a_parquet_whose_days_are_not_those_of_its_columns_is_one_sentence(study, tmp_path, capsys, times):
    table = pa.Table.from_pandas(study.splits[["patient_id"]].assign(risk=1.0, s_0=1.0))
    metadata = {**table.schema.metadata, b"times": times.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", ["`times` in its metadata", "`s_180`"], capsys)


def test_a_cohort_without_events_is_told_so_instead_of_being_asked_for_more_predictions(study, file, capsys):
    participants = study.cohort.participants.assign(event=False)
    vars(study)["cohort"] = replace(study.cohort, participants=participants)
    refused(file("risk"), ["0 events among the 40", "nobody of the whole cohort had the event"], capsys)


def test_a_horizon_after_follow_up_has_no_scores_and_the_page_says_why(study, file):
    found = scored(file(change=lambda t: t[["patient_id"]].assign(s_9000=np.linspace(0.1, 0.9, len(t)))), folds=False)
    last = study.cohort.outcome["time_days"].max()
    assert found["scores"]["everyone"]["brier"]["estimate"] is None
    assert any(f"AUC of 9000 days, since follow-up ends on day {last:g}." in note for note in found["notes"])
    two = scored(
        file(change=lambda t: t[["patient_id"]].assign(s_300=np.linspace(0.1, 0.9, 40), s_9000=0.1)), folds=False
    )
    assert two["scores"]["everyone"]["ibs"]["estimate"] is None
    assert any("no integrated scores, which need two days" in note for note in two["notes"])
    assert not any(
        "follow-up ends" in note or "integrated scores, which" in note for note in scored(file("curves"))["notes"]
    )


def test_curves_that_are_the_same_for_all_patients_are_told(study, file):
    def told(**columns):
        path = file("risk", change=lambda table: table.assign(**columns))
        return any("have one curve" in note for note in outside.read(path, study, together=True).notes)

    levels = np.linspace(0.6, 0.1, 40)
    assert told(s_100=0.7, s_365=0.4) and not told(s_100=0.7, s_365=levels)
    assert not told(s_365=levels) and not told(s_100=levels, s_365=0.1)
    assert told(fold=["a", "b"] * 20, s_365=[0.4, 0.3] * 20) and not told(fold=np.arange(40), s_365=levels)


def test_curves_that_end_early_in_follow_up_may_be_named_by_months(study, file):
    def curve(*days):
        columns = {f"s_{day}": np.linspace(0.1, 0.9, 40) / (k + 1) for k, day in enumerate(days)}
        path = file(change=lambda table: table[["patient_id"]].assign(**columns))
        return " ".join(outside.read(path, study, together=True).notes)

    assert "named by days, not by months" in curve(3, 6) and "not by months" not in curve(3, 365)


# --- bad files: what is done to a good table, and what the sentence must name


def first(table, **values):
    for name, value in values.items():
        table[name] = table[name].astype(object)
        table.loc[0, name] = value
    return table


BAD = {
    "unknown patient": (lambda t: first(t, patient_id="P999"), ["P999", "P000"]),
    "lost zeros": (lambda t: t.assign(patient_id=t["patient_id"].str[2:]), ["'00'", "'P000'", "zeros"]),
    "repeated": (lambda t: pd.concat([t, t.iloc[[2]]]), ["P002", "several rows"]),
    "no id": (lambda t: t.rename(columns={"patient_id": "id"}), ["`patient_id`", "id, risk"]),
    "NaN risk": (lambda t: first(t, risk=np.nan), ["`risk`", "P000", "finite"]),
    "text risk": (lambda t: first(t, risk="high"), ["`risk`", "'high'"]),
    "infinite risk": (lambda t: first(t, risk=np.inf), ["`risk`", "'inf'"]),
    "decimal comma": (lambda t: first(t, risk="0,5"), ["`risk`", "'0,5'"]),
    "negative days": (lambda t: first(t, days=-3), ["`days`", "'-3'", "0 or more"]),
    "fold with gaps": (lambda t: t.assign(fold=["a", ""] * 20), ["`fold`", "P001 (20 of 40)", "empty", "drop"]),
    "rising curve": (lambda t: t.assign(s_100=0.2, s_1000=0.4), ["P000", "rises", "1 - S(t)"]),
    "percent": (lambda t: t.assign(s_100=90, s_1000=40), ["`s_100`", "'90'", "from 0 to 1"]),
    "numbered curves": (lambda t: t.assign(s_0=0.9, s_1=0.4), ["`s_0`", "day 0", "`s_180`"]),
    "one day twice": (lambda t: t.assign(**{"s_100": 0.5, "s_100.0": 0.4}), ["`s_100.0`", "twice"]),
    "column twice": (lambda t: pd.concat([t, t[["risk"]]], axis=1), ["`risk`", "twice"]),
    "nothing predicted": (lambda t: t[["patient_id"]], ["`s_180`"]),
    "nothing but day 0": (lambda t: t[["patient_id"]].assign(s_0=1), ["patient_id, s_0", "`s_180`"]),
    "no row": (lambda t: t.iloc[:0], ["0 events"]),
    "one patient": (lambda t: t.iloc[[0]], ["events", "two at least"]),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_table_is_one_sentence_with_place_and_remedy(study, file, capsys, fault):
    change, named = BAD[fault]
    path = file("risk", "days", change=change)
    refused(path, named, capsys)


BYTES = {
    "empty": ("x.csv", b"", ["not readable"]),
    "pdf": ("x.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\n", ["not readable"]),
    "plain pdf": ("x.csv", b"%PDF-1.0\n1 0 obj <</Type/Catalog>>\n", ["`patient_id`"]),
    "semicolons": ("x.csv", b"patient_id;risk\nP000;1\n", ["separated by commas"]),
    "ragged": ("x.csv", b"patient_id,risk\nP000,1,\nP001,2,\n", ["not readable", "2 fields"]),
    "no parquet": ("x.parquet", b"patient_id,risk\nP000,1\n", ["not readable"]),
    "our name": ("volume.csv", b"patient_id,risk\nP000,1\n", ["'volume'", "rename"]),
}


@pytest.mark.parametrize("fault", BYTES)
def test_a_file_that_is_no_table_is_one_sentence(study, tmp_path, capsys, fault):
    name, content, named = BYTES[fault]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, named, capsys)


def test_a_missing_file_is_one_sentence(study, tmp_path, capsys):
    refused(tmp_path / "absent.csv", ["no such file"], capsys)


@pytest.mark.parametrize("option", [["--horizon", "0"], ["--horizon", "nan"], ["--threshold", "1.5"],
                                    ["--threshold", "50"]])  # fmt: skip
def test_an_option_that_cannot_be_is_one_sentence(study, file, capsys, option):
    refused(file("risk"), [option[0]], capsys, *option)


@pytest.mark.parametrize("name", ["participants.parquet", "splits.parquet", "cohort.json"])
def test_a_damaged_cohort_is_one_sentence(raw, patients, study_of, tmp_path, monkeypatch, capsys, name):
    made = study_of(paths.DERIVED / "mine", patients)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    whole = (made.paths.cohort / name).read_bytes()
    (made.paths.cohort / name).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x.csv").write_text("patient_id,risk\nP000,1\n")
    assert main(["score", str(tmp_path / "x.csv"), "mine"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "not readable" in told and "expected" in told and "make report" in told


def refused(path, named, capsys, *options):
    assert main(["score", str(path), "toy", *options]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith(f"survpack: {path}: ") and told.err.endswith(".\n")
    for word in [*named, "expected", "; "]:
        assert word in told.err, f"{word!r} is not in: {told.err}"
    assert not (paths.REPORTS / "scored").exists()


def test_an_unknown_cohort_is_one_sentence_and_a_known_one_that_was_not_run_another(tmp_path, raw, capsys):
    for cohort, word in (("mime", "not known"), ("mets", "make report")):
        assert main(["score", str(tmp_path / "x.csv"), cohort]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and word in told and f"'{cohort}'" in told


def test_a_file_of_few_patients_is_scored_as_asked_with_a_warning(file):
    found = scored(file("risk", change=lambda table: table.head(9)), folds=False)
    assert found["scores"]["everyone"]["harrell_c"]["estimate"] is not None
    (told,) = [note for note in found["notes"] if "scored because it was asked" in note]
    assert "not scored: 9 patients, " in told and "at least 10 patients and 10 events are needed" in told
    assert not any("because it was asked" in note for note in scored(file("risk"), folds=False)["notes"])


def test_days_of_the_study_s_own_file_that_a_curve_does_not_have_are_not_scored(study, ours, tmp_path):
    table = ours.table.copy()
    table.loc[table.index[:3], ours.columns] = 0.9
    table["days"] = day_at(table[ours.columns], ours.times, 0.5)
    cut = int((table[ours.columns[-1]] > 0.5).sum())
    Prognosis(table, ours.times).save(tmp_path / "theirs.parquet")
    found = scored(tmp_path / "theirs.parquet", folds=False)
    assert found["scores"]["everyone"]["r2"]["estimate"] is None
    assert any(f"the curves of {cut} of 40 patients do not fall" in note for note in found["notes"])


def test_days_of_an_outside_file_are_its_own_also_on_the_last_day_of_a_curve_above_one_half(study, file):
    days = np.linspace(100, 900, 40).round()
    days[30] = 365

    def change(table):
        return table.assign(days=days, s_365=np.linspace(0.2, 0.9, 40))

    found = scored(file(change=change), folds=False)
    outcome = study.outcome(study.splits["patient_id"])
    event = outcome["event"].to_numpy(bool)
    expected = np.abs(days - outcome["time_days"].to_numpy())[event].mean()
    assert found["scores"]["everyone"]["mae_days"]["estimate"] == pytest.approx(expected)
    assert not any("not scored in days" in note for note in found["notes"])
