"""Predictions of others: the same numbers as for our own, one sentence for a bad file, and a test set that stays shut."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from survpack import inference, outside, paths, readings, scoring
from survpack.__main__ import main
from survpack.errors import BadInput
from survpack.metrics import CALIBRATION, DAYS, RANKING
from survpack.prognosis import Prognosis, median_days

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
    table = table.assign(risk=risk, days=median_days(survival, study.times))
    return Prognosis(table.assign(**{f"s_{k}": column for k, column in enumerate(survival.T)}), np.asarray(study.times))


@pytest.fixture
def file(ours, tmp_path):
    """`file(columns, name)`: theirs as a CSV; the columns are those of `whole`."""
    whole = ours.table[["patient_id", "risk", "days"]].assign(
        **{f"s_{float(day)}": ours.table[f"s_{k}"] for k, day in enumerate(ours.times)}
    )

    def written(*names, name="theirs.csv", change=lambda table: table):
        curves = [column for column in whole if column.startswith("s_")]
        wanted = [column for one in names for column in (curves if one == "curves" else [one])]
        change(whole[["patient_id", *wanted]].copy()).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return written


def scored(path, **options) -> dict:
    """What a report says, without its page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_figures", lambda *_: [])
        patch.setattr(scoring, "by_pandoc", str)
        return _scored(path, **options)


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
    assert same(
        scored(tmp_path / "own.parquet")["scores"]["cv"], scored(file("risk", "days", "curves"))["scores"]["cv"]
    )


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


def test_the_risk_of_curves_is_the_area_under_them(study, file):
    levels = np.linspace(0.1, 0.9, len(study.splits))
    path = file(change=lambda table: table[["patient_id"]].assign(s_100=0.9, s_300=levels, s_600=0.05))
    # 100 days at 1, 200 at 0.9, then 300 at the level of the patient
    assert outside.read(path, study).prognosis.table["risk"].to_numpy() == pytest.approx(-(100 + 180 + 300 * levels))


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
    assert "0.00 (0.00 to 0.00): not shown" in scored(file("risk"))["beside"][0]


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


def test_nothing_of_an_earlier_file_of_that_name_stays(study, file):
    page = scoring.report(file("risk", "days", "curves"), "toy")
    assert {path.stem for path in page.parent.glob("*.svg")} == {"roc", "calibration", "decision", "days"}
    page = scoring.report(file("risk"), "toy")
    assert {path.stem for path in page.parent.glob("*.svg")} == {"roc"}
    assert "<svg" in page.read_text() or "image/svg" in page.read_text()


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
    "rising curve": (lambda t: t.assign(s_100=0.2, s_1000=0.4), ["P000", "rises", "1 - S(t)"]),
    "percent": (lambda t: t.assign(s_100=90, s_1000=40), ["`s_100`", "'90'", "from 0 to 1"]),
    "numbered curves": (lambda t: t.assign(s_0=0.9, s_1=0.4), ["`s_0`", "day 0", "`s_180`"]),
    "one day twice": (lambda t: t.assign(**{"s_100": 0.5, "s_100.0": 0.4}), ["`s_100.0`", "twice"]),
    "column twice": (lambda t: pd.concat([t, t[["risk"]]], axis=1), ["`risk`", "twice"]),
    "nothing predicted": (lambda t: t[["patient_id"]], ["`s_180`"]),
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


def refused(path, named, capsys):
    assert main(["score", str(path), "toy"]) == 2
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
