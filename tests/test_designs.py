"""Nobody is on both sides of any plan, what is learnt stays inside it, and its scores are those of other libraries."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack import designs, shared
from survpack import designs_scores as scores
from survpack.designs import BY_SITE, EXTERNAL, REPEATED, TEMPORAL
from survpack.figures.designs import by_design, spread
from survpack.study import Study

CHART = {
    "models": ["volume", "clinical-cox"],
    "external": [],
    "repeats": 1,
    "network_repeats": 1,
    "folds": 2,
    "seeds": 2,
}


@pytest.fixture
def choice(params):
    asked = params.designs.model_copy(update=CHART)
    few = params.scores.model_copy(update={"bootstrap": 40})
    return params.model_copy(update={"designs": asked, "scores": few, "cohorts": ["toy"]})


@pytest.fixture
def study(tmp_path, study_of, make_patients, choice) -> Study:
    return replace(study_of(tmp_path / "toy", make_patients(90, voxels=8)), params=choice)


@pytest.fixture
def other(tmp_path, study_of, make_patients, choice) -> Study:
    made = study_of(tmp_path / "other", make_patients(120, seed=5, voxels=8))
    return replace(made, name="elsewhere", params=choice)


def changed(study: Study, edit, dictionary=None) -> Study:
    """The same study after `edit` of its participants table, read again."""
    splits, table = study.splits, edit(study.cohort.participants.copy())
    known = study.cohort.dictionary if dictionary is None else dictionary
    replace(study.cohort, participants=table, dictionary=known).save(study.paths.cohort)
    splits.to_parquet(study.paths.cohort / "splits.parquet")
    return Study(study.name, study.params, study.paths)


def asking(study: Study, **update) -> Study:
    params = study.params
    return replace(study, params=params.model_copy(update={"designs": params.designs.model_copy(update=update)}))


def exchanged(study: Study, ids) -> Study:
    """The outcomes of `ids` turned over among them."""

    def edit(table):
        table = table.set_index("patient_id")
        for column in ("time_days", "event"):
            table.loc[ids, column] = table.loc[ids[::-1], column].to_numpy()
        return table.reset_index()

    return changed(study, edit)


def with_dates(table):
    """A later scan with every row of the table."""
    return table.assign(baseline_date=pd.date_range("2010-01-01", periods=len(table), freq="30D").strftime("%Y-%m-%d"))


def rows_of(predictions, design, model):
    return predictions[(predictions["design"] == design) & (predictions["model"] == model)]


# --- plans -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), folds=st.integers(2, 6))
@settings(max_examples=15)
def test_a_repeat_holds_each_development_patient_once_and_the_test_set_never(make_study, seed, folds):
    choice = make_study.params.designs.model_copy(update={"seed": seed, "folds": folds})
    plans = designs.repeated(make_study, choice)
    for repeat in range(choice.repeats):
        held = [one for plan in plans if plan.repeat == repeat for one in plan.held]
        assert sorted(held) == sorted(make_study.development)
    for plan in plans:
        assert not set(plan.train) & set(plan.held)
        assert set(plan.train) | set(plan.held) == set(make_study.development)
    events = [int(make_study.outcome(plan.held)["event"].sum()) for plan in plans]
    assert max(events) - min(events) <= 1


@pytest.fixture(scope="module")
def make_study(tmp_path_factory, make_patients, params):
    """Only its outcome and splits are looked at: it is shared by all examples."""
    from survpack.splits import make_splits

    class Outcomes:
        def __init__(self, table, choice):
            self.table, self.params = table.set_index("patient_id"), choice
            split = make_splits(table, folds=3, test_fraction=0.2, seed=1)
            self.development = split.loc[split["split"] == "dev", "patient_id"].tolist()

        def outcome(self, ids):
            return self.table.loc[list(ids)]

    asked = params.designs.model_copy(update={"repeats": 2})
    return Outcomes(make_patients(70, voxels=8).outcome.reset_index(), params.model_copy(update={"designs": asked}))


def test_repeats_are_other_splits(study):
    study = asking(study, repeats=2)
    first, second = (
        {frozenset(plan.held) for plan in designs.repeated(study, study.params.designs) if plan.repeat == repeat}
        for repeat in range(2)
    )
    assert not first & second


def test_a_site_left_out_is_whole_and_teaches_nothing(study):
    plans = designs.by_site(study)
    assert [plan.left_out for plan in plans] == ["0", "1"]
    for plan in plans:
        assert set(study.sites.loc[list(plan.held)]) == {plan.left_out}
        assert plan.left_out not in set(study.sites.loc[list(plan.train)])
        assert set(plan.held) | set(plan.train) == set(study.development)


def test_one_site_gives_no_plan_but_a_sentence(study):
    alone = changed(study, lambda table: table.assign(site="Montreal"))
    assert designs.by_site(alone) == []
    assert "one site (Montreal)" in designs.absent(alone)[BY_SITE]


def test_a_small_site_is_learnt_from_and_never_left_out(study):
    few = study.development[:4]
    moved = changed(study, lambda table: table.assign(site=table["site"].where(~table["patient_id"].isin(few), "tiny")))
    plans = designs.by_site(moved)
    assert [plan.left_out for plan in plans] == ["0", "1"]
    assert all(set(few) <= set(plan.train) for plan in plans)


def test_the_latest_quarter_comes_after_all_that_teach(study):
    dated = changed(study, with_dates)
    (plan,) = designs.temporal(dated)
    date = dated.cohort.participants.set_index("patient_id")["baseline_date"]
    assert date.loc[list(plan.train)].max() < date.loc[list(plan.held)].min()
    assert len(plan.held) == pytest.approx(len(study.development) / 4, abs=1)
    assert set(plan.held) | set(plan.train) == set(study.development)


def test_years_as_numbers_are_dates_too(study):
    dated = changed(study, lambda table: table.assign(baseline_date=np.arange(len(table)) // 9 + 2010.0))
    (plan,) = designs.temporal(dated)
    year = dated.cohort.participants.set_index("patient_id")["baseline_date"]
    assert year.loc[list(plan.train)].max() < year.loc[list(plan.held)].min()


@pytest.mark.parametrize("column", [None, "not a day"])
def test_without_dates_there_is_no_temporal_plan_but_a_sentence(study, column):
    undated = study if column is None else changed(study, lambda table: table.assign(baseline_date=column))
    assert designs.temporal(undated) == []
    assert "baseline_date" in designs.absent(undated)[TEMPORAL]


def test_cohorts_share_what_has_one_meaning_and_nothing_else(study, other):
    dictionary = {
        "age": {"kind": "numeric", "unit": "months"},
        "fitness": {"kind": "ordered", "levels": ["good", "fair", "poor"]},
        "sex": {"kind": "categorical", "levels": ["male", "female"]},
        "primary": {"kind": "categorical", "levels": ["lung", "other"]},
    }
    unlike = changed(other, lambda table: table, dictionary)
    choice = study.params.classical
    assert set(designs.shared_columns(designs.in_common(study, unlike)[0], choice)) == {
        "sex", "tumour_ml", "oedema_to_tumour", "sphericity"
    }  # fmt: skip
    assert {"age", "fitness", "sex", "primary"} <= set(
        designs.shared_columns(designs.in_common(study, other)[0], choice)
    )


# --- patients of two cohorts -------------------------------------------------------------------------------------


def renamed(study: Study, names: dict) -> Study:
    """The same study with other ids, in all its files."""
    import json

    splits = study.splits.replace({"patient_id": names})
    changed(study, lambda table: table.replace({"patient_id": names}))
    splits.to_parquet(study.paths.cohort / "splits.parquet")
    found = study.biomarkers
    tables = {name: getattr(found, name).rename(index=names) for name in ("features", "shuffled", "noise", "perturbed")}
    replace(found, **tables).save(study.paths.biomarkers)
    facts = json.loads((study.paths.crops / "crops.json").read_text())
    facts["patient_ids"] = [names.get(one, one) for one in facts["patient_ids"]]
    (study.paths.crops / "crops.json").write_text(json.dumps(facts))
    return Study(study.name, study.params, study.paths)


def with_outcomes_of(study: Study, other: Study, pairs: dict) -> Study:
    """Patients of `study` who have the row of a patient of `other`: one person, under the id of here."""

    def edit(table):
        table = table.set_index("patient_id")
        theirs = other.cohort.participants.set_index("patient_id")
        for here, there in pairs.items():
            table.loc[here] = theirs.loc[there]
        return table.reset_index()

    return changed(study, edit)


def test_a_patient_of_two_cohorts_is_known_by_chart_and_outcome_and_teaches_nobody(study, other):
    here, there = study.development[:4] + study.fold(-1)[1][:3], other.development[:7]
    study = with_outcomes_of(study, other, dict(zip(here, there, strict=True)))
    found = shared.pairs(study, other)
    assert set(zip(found["patient_id"], found["other_patient_id"], strict=True)) == set(zip(here, there, strict=True))
    (plan,) = designs.external(study, [other])
    assert not set(plan.train) & set(there) and set(plan.train) == set(other.development) - set(there)
    assert shared.taken_out(study, [other])[["patients", "in the test set here"]].sum().tolist() == [7, 3]


def test_another_export_of_the_same_patients_in_months_teaches_none_of_them(study, other):
    here = list(study.sites.index)
    other = with_outcomes_of(other, study, dict(zip(here, here, strict=True)))
    months = changed(other, lambda table: table.assign(time_days=(table["time_days"] / 30.4375).round(2) * 30.4375))
    months = replace(months, name="elsewhere")
    (plan,) = designs.external(study, [months])
    assert plan.train and not set(plan.train) & set(here) and set(plan.train) < set(months.development)


def test_an_id_that_counts_is_one_patient_only_with_the_same_outcome_or_where_sources_say_so(study, other, monkeypatch):
    from survpack import adapters
    from survpack.adapters import Source

    assert set(study.sites.index) & set(other.sites.index)  # P001 is in both, and somebody else
    assert shared.pairs(study, other).empty and shared.unknown(study, other) == ""
    said = {"toy": Source("", "", "", "", 0, "", overlaps=("elsewhere",)), "elsewhere": Source("", "", "", "", 0, "")}
    monkeypatch.setattr(adapters, "source", said.__getitem__)
    assert set(shared.pairs(study, other)["how"]) == {"the same id"}
    assert len(shared.pairs(study, other)) == 90  # later outcomes make nobody another patient
    moved = renamed(other, {one: f"X-{k}-anonymous" for k, one in enumerate(other.sites.index)})
    moved = replace(moved, name="elsewhere")
    assert "share patients" in shared.unknown(study, moved)
    assert designs.external(study, [moved]) == [] and "share patients" in designs.absent(study, [moved])[EXTERNAL]


def test_a_telling_id_is_one_patient_whatever_the_outcome(study, other):
    names = {one: f"UPENN-{k:03d}x" for k, one in enumerate(study.sites.index)}
    theirs = {one: f"upenn_{k}X" for k, one in enumerate(list(other.sites.index)[:5])}
    found = shared.pairs(renamed(study, names), replace(renamed(other, theirs), name="elsewhere"))
    assert len(found) == 5 and set(found["how"]) == {"the same id"}


def test_one_scan_under_two_names_is_one_patient(study, other, tmp_path, monkeypatch):
    from survpack import paths
    from survpack.overlap import HASHES

    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    other, rng = replace(other, paths=replace(other.paths, name="elsewhere")), np.random.default_rng(0)

    def hashes(of: Study, ids, shas):
        rows = [[one, "baseline", "ct", sha, rng.bytes(512).hex()] for one, sha in zip(ids, shas, strict=True)]
        of.paths.tables("cohort").mkdir(parents=True)
        pd.DataFrame(rows, columns=HASHES).to_csv(of.paths.tables("cohort") / "hashes.csv", index=False)

    hashes(study, study.development[:3], ["a", "b", "c"])
    hashes(other, other.development[:3], ["c", "x", "y"])
    found = shared.pairs(study, other)
    assert found.values.tolist() == [[study.development[2], other.development[0], "the same scan"]]


def test_another_cohort_teaches_every_model_that_both_can_have(study, other, tiny_encoder):
    asked = ["clinical-radiomics-boosting", "radiomics-coxnet", "hybrid-tiny-cox", "gpa"]
    study = asking(study, models=["volume"], external=asked)
    rows = designs.fit_designs(study, [other])
    rows = rows[rows["design"] == EXTERNAL]
    assert set(rows["model"]) == {"age", "volume", designs.SHARED, *asked} - {"gpa"}  # whose items no chart here has
    assert rows.groupby("model")["patient_id"].apply(lambda ids: sorted(ids) == sorted(study.development)).all()


def test_networks_do_not_go_where_voxels_have_another_size(study, other, tiny_encoder):
    crops = study.params.crops.model_copy(update={"spacing_mm": {"toy": 2.0, "elsewhere": 3.0, "other": 2.0}})
    other = replace(other, params=other.params.model_copy(update={"crops": crops}))
    rows = designs.fit_designs(asking(study, models=["volume"], external=["hybrid-tiny-cox"]), [other])
    assert "hybrid-tiny-cox" not in set(rows.loc[rows["design"] == EXTERNAL, "model"])
    (told,) = designs.unlike(study, [other])
    assert "no networks" in told and "crops.spacing_mm is 3, and 2 here; write one value for both" in told


def test_networks_do_not_go_where_ct_has_another_window(study, other):
    def of_ct(one: Study, window) -> Study:
        splits = one.splits
        replace(one.cohort, images=one.cohort.images.assign(modality="ct")).save(one.paths.cohort)
        splits.to_parquet(one.paths.cohort / "splits.parquet")
        facts = json.loads((one.paths.crops / "crops.json").read_text())
        (one.paths.crops / "crops.json").write_text(json.dumps(facts | {"modalities": ["ct"]}))
        crops = one.params.crops.model_copy(update={"ct_window_hu": {"other": window}})
        return Study(one.name, one.params.model_copy(update={"crops": crops}), one.paths)

    study, same = of_ct(study, (-160.0, 240.0)), of_ct(other, (-160.0, 240.0))
    assert designs.in_common(study, same)[0].modalities == ["ct"] and designs.unlike(study, [same]) == []
    wide = of_ct(other, (-930.0, 370.0))
    assert designs.in_common(study, wide)[0].modalities == []
    assert "ct_window_hu is -930 to 370, and -160 to 240 here" in designs.unlike(study, [wide])[0]


def test_textures_of_cubes_of_another_size_are_not_shared_and_shape_and_given_features_are(study, other):
    from survpack.radiomics import GIVEN

    names = ["rad_tumour_t1c_cm_joint_max", "rad_tumour_morph_volume", f"{GIVEN}x", "tumour_ml"]
    for one in (study, other):
        table = one.biomarkers.features
        for name in names:
            table[name] = np.arange(len(table)) * 1.0
        one.biomarkers.save(one.paths.biomarkers)
    study, other = (replace(Study(one.name, one.params, one.paths), name=one.name) for one in (study, other))
    assert set(names) <= set(designs.in_common(study, other)[0].biomarkers)
    sizes = study.params.biomarkers.model_copy(update={"spacing_mm": {"toy": 2.0, "elsewhere": 1.0, "other": 2.0}})
    other = replace(other, params=other.params.model_copy(update={"biomarkers": sizes}))
    learnt, read = designs.in_common(study, other)
    assert {*names} - {*learnt.biomarkers} == {*names} - {*read.biomarkers} == {names[0]}
    assert "no grey levels and textures" in designs.unlike(study, [other])[0]


def test_labels_that_both_have_are_the_channels_of_a_shared_network_whatever_their_numbers(study, other):
    """kits marks kidney and tumour, kits23 cysts too."""
    more = replace(other.cohort, labels={5: "cyst", 2: "enhancing", 1: "oedema"})
    splits, masks = other.splits, np.load(other.paths.crops / "masks.npy")
    more.save(other.paths.cohort)
    splits.to_parquet(other.paths.cohort / "splits.parquet")
    np.save(other.paths.crops / "masks.npy", np.stack([masks[:, 0] * 0, masks[:, 0], masks[:, 1]], axis=1))
    learnt, read = designs.in_common(study, replace(Study(other.name, other.params, other.paths)))
    np.testing.assert_array_equal(learnt.masks, masks)
    np.testing.assert_array_equal(read.masks, study.patients.masks)


# --- fits --------------------------------------------------------------------------------------------------------


def test_outcomes_of_the_site_left_out_change_no_prediction_of_it(study):
    plan = designs.by_site(study)[0]
    before = designs.fit_designs(study)
    after = designs.fit_designs(exchanged(study, list(plan.held)))
    for model in study.params.designs.models:
        one, two = (
            rows_of(table, BY_SITE, model)[lambda rows: rows["left_out"] == "0"]["risk"].to_numpy()
            for table in (before, after)
        )
        np.testing.assert_array_equal(one, two)


def test_a_finished_fit_is_not_fitted_again_and_a_killed_run_goes_on(study, monkeypatch):
    done, real = [], designs._fit_one

    def killed(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        real(*arguments)
        done.append(arguments[2])

    monkeypatch.setattr(designs, "_fit_one", killed)
    with pytest.raises(KeyboardInterrupt):
        designs.fit_designs(study)
    again = []
    monkeypatch.setattr(designs, "_fit_one", lambda *arguments: (again.append(arguments[2]), real(*arguments)))
    first = designs.fit_designs(study)
    assert len(again) == len(designs.fits(study, designs.plans(study))) - 3
    assert not set(again) & set(done)
    again.clear()
    pd.testing.assert_frame_equal(designs.fit_designs(study), first)
    assert again == []


def test_another_choice_of_the_models_meets_no_stale_fit(study):
    stiff = study.params.classical.model_copy(update={"ridge": 1000.0})
    before = designs.fit_designs(study)
    after = designs.fit_designs(replace(study, params=study.params.model_copy(update={"classical": stiff})))
    risk = [rows_of(table, REPEATED, "clinical-cox")["risk"].std() for table in (before, after)]
    assert risk[1] < 0.5 * risk[0]


def test_networks_have_fewer_repeats_and_more_seeds_and_the_seeds_differ(study, tiny_encoder):
    study = asking(study, models=["volume", "hybrid-tiny-cox"], repeats=2)
    predictions = designs.fit_designs(study)
    network, plain = (rows_of(predictions, REPEATED, model) for model in ("hybrid-tiny-cox", "volume"))
    assert sorted(zip(network["repeat"], network["seed"], strict=True))[0] == (0, 0)
    assert set(zip(network["repeat"], network["seed"], strict=True)) == {(0, 0), (0, 1)}
    assert set(zip(plain["repeat"], plain["seed"], strict=True)) == {(0, 0), (1, 0)}
    by_seed = network.pivot(index="patient_id", columns="seed", values="risk")
    assert (by_seed[0] - by_seed[1]).abs().max() > 1e-6
    assert not rows_of(predictions, BY_SITE, "hybrid-tiny-cox")["seed"].any()


def test_a_date_is_no_predictor(study):
    dictionary = study.cohort.dictionary | {"baseline_date": {"kind": "numeric"}}
    plain = designs.fit_designs(study)
    year = np.random.default_rng(0).integers(2000, 2020, len(study.cohort.participants)).astype(float)
    dated = designs.fit_designs(changed(study, lambda table: table.assign(baseline_date=year), dictionary))
    one, two = (rows_of(table, REPEATED, "clinical-cox")["risk"].to_numpy() for table in (plain, dated))
    np.testing.assert_array_equal(one, two)


def test_combat_has_nothing_to_level_where_one_site_is_left_to_learn_from(study):
    study = asking(study, models=["radiomics-coxnet"])
    found = scores.harmonisation(designs.fit_designs(study), study)
    assert found["difference"]["harrell_c"] == {"estimate": 0.0, "low": None, "high": None, "p": None}


def test_combat_reaches_the_fits_where_two_sites_teach(study):
    study = changed(study, lambda table: table.assign(site=(np.arange(len(table)) % 3).astype(str)))
    study = asking(study, models=["radiomics-coxnet"])
    features = study.biomarkers.features.drop(columns="tumour_ml")  # which would stand in for the shifted one
    shifted = features.assign(rad_planted=features["rad_planted"] + 6.0 * (study.sites == "1"))
    replace(study.biomarkers, features=shifted).save(study.paths.biomarkers)
    study = Study(study.name, study.params, study.paths)
    predictions = designs.fit_designs(study)
    site = predictions[(predictions["design"] == BY_SITE) & (predictions["left_out"] == "0")]
    levelled, raw = (site[site["harmonised"] == how]["risk"].to_numpy() for how in (True, False))
    assert np.abs(levelled - raw).max() > 1e-3


def test_what_another_cohort_teaches_is_the_ridge_cox_of_the_shared_columns(study, other):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    only = {name: {"kind": "categorical", "levels": [name]} for name in ("fitness", "sex", "primary")}
    unlike = changed(other, lambda table: table, other.cohort.dictionary | only)
    for one in (study, unlike):  # two numbers are shared, and age is
        kept = one.biomarkers.features.drop(columns=["oedema_to_tumour", "sphericity"])
        replace(one.biomarkers, features=kept).save(one.paths.biomarkers)
    study, unlike = (Study(one.name, one.params, one.paths) for one in (study, unlike))
    assert designs.shared_columns(designs.in_common(study, unlike)[0], study.params.classical) == ["age", "tumour_ml"]

    def numbers(patients):
        return np.column_stack([patients.clinical["age"], np.log(patients.biomarkers["tumour_ml"])]).astype(float)

    train, held = unlike.patients.take(sorted(unlike.development)), study.patients.take(sorted(study.development))
    middle = np.nanmedian(numbers(train), axis=0)
    seen, unseen = (np.where(np.isnan(each), middle, each) for each in (numbers(train), numbers(held)))
    scale = seen.mean(axis=0), seen.std(axis=0)
    cox = CoxPHSurvivalAnalysis(alpha=study.params.classical.ridge).fit((seen - scale[0]) / scale[1], train.target)
    found = rows_of(designs.fit_designs(study, [unlike]), EXTERNAL, designs.SHARED)
    assert found["patient_id"].tolist() == sorted(study.development)
    np.testing.assert_allclose(found["risk"], cox.predict((unseen - scale[0]) / scale[1]), rtol=1e-8)


def test_nothing_is_scored_where_two_cohorts_do_not_share_it(study, other):
    months = other.cohort.dictionary | {"age": {"kind": "numeric", "unit": "months"}}
    unlike = changed(other, lambda table: table, months)
    predictions = designs.fit_designs(study, [unlike])
    assert set(predictions.loc[predictions["design"] == EXTERNAL, "model"]) == {"volume", designs.SHARED}


# --- scores ------------------------------------------------------------------------------------------------------


def test_one_plan_scores_as_lifelines_does(study, other):
    from lifelines.utils import concordance_index

    predictions = designs.fit_designs(study, [other])
    scored = scores.score(scores.usual(predictions, study), study).set_index(["design", "model", "metric"])
    rows = rows_of(predictions, EXTERNAL, designs.SHARED)
    outcome = study.outcome(rows["patient_id"])
    expected = concordance_index(outcome["time_days"], -rows["risk"], outcome["event"])
    found = scored.loc[(EXTERNAL, designs.SHARED, "harrell_c")]
    assert found["estimate"] == pytest.approx(expected, abs=1e-12)
    assert found["low"] < expected < found["high"]
    assert found["patients"] == len(rows)


def test_telling_the_same_twice_makes_nobody_surer(study):
    """A patient is resampled with all that was said of him: repeats are no new patients."""
    once = scores.usual(designs.fit_designs(asking(study, models=["volume"])), study)
    once = once[once["design"] == REPEATED]
    twice = pd.concat([once, once.assign(repeat=1)], ignore_index=True)
    one, two = (scores.score(table, study)[["estimate", "low", "high"]].to_numpy(float) for table in (once, twice))
    np.testing.assert_allclose(one, two, atol=1e-10)


def test_scores_fold_by_fold_are_of_the_fold_alone(study):
    from lifelines.utils import concordance_index

    study = asking(study, repeats=2, models=["clinical-cox"])
    predictions = designs.fit_designs(study)
    folds = scores.by_fold(predictions, study)
    rows = rows_of(predictions, REPEATED, "clinical-cox").query("repeat == 1 and fold == 1")
    outcome = study.outcome(rows["patient_id"])
    found = rows_of(folds, REPEATED, "clinical-cox").query("repeat == 1 and fold == 1 and metric == 'harrell_c'")
    assert found["value"].item() == pytest.approx(
        concordance_index(outcome["time_days"], -rows["risk"], outcome["event"]), abs=1e-12
    )
    assert (found["n"].item(), found["n_train"].item()) == (len(rows), len(study.development) - len(rows))


def fold_table(gain: float, noise: float) -> pd.DataFrame:
    """25 folds of the reference and of a model that is better by `gain`."""
    rng = np.random.default_rng(0)
    rows = []
    for repeat in range(5):
        for fold in range(5):
            value = rng.normal(0.6, 0.05)
            for model, own in (("clinical-cox", value), ("volume", value + gain + rng.normal(0, noise))):
                rows.append({"model": model, "design": REPEATED, "source": "", "repeat": repeat, "seed": 0,
                             "fold": fold, "metric": "harrell_c", "value": own, "n": 24, "n_train": 95})  # fmt: skip
    return pd.DataFrame(rows)


def test_the_corrected_test_is_less_sure_than_a_t_test_over_folds():
    """Its interval is wider by the square root of 1 + folds * n_test / n_train: the closed form of the correction."""
    from scipy.stats import ttest_1samp

    folds = fold_table(0.03, 0.05)
    wide = folds.pivot(index=["repeat", "fold"], columns="model", values="value")
    plain = ttest_1samp(wide["volume"] - wide["clinical-cox"], 0).confidence_interval()
    (row,) = scores.against_reference(folds).to_dict("records")
    assert row["model"] == "volume"
    assert row["folds"] == 25
    assert row["estimate"] == pytest.approx((wide["volume"] - wide["clinical-cox"]).mean())
    wider = (row["high"] - row["low"]) / (plain.high - plain.low)
    assert wider == pytest.approx(np.sqrt(1 + 25 * 24 / 95), rel=0.02)


def test_a_difference_is_shown_only_where_it_is_sure():
    assert scores.reading(scores.against_reference(fold_table(0.10, 0.02))).endswith(": shown (25 folds)")
    assert scores.reading(scores.against_reference(fold_table(0.01, 0.05))).endswith("not shown (25 folds)")
    nothing = fold_table(0.1, 0.02).query("model == 'volume'")
    assert scores.reading(scores.against_reference(nothing)).startswith("Nothing is compared")


def test_the_spreads_are_of_folds_splits_and_seeds(study):
    """Planted: splits differ by 0.04, seeds by 0.02, folds by 0.1."""
    rows = []
    for repeat, seed in ((0, 0), (0, 1), (1, 0)):
        for fold in range(2):
            value = 0.6 + 0.04 * repeat + 0.02 * seed + 0.1 * fold
            rows.append({"model": "hybrid", "design": REPEATED, "source": "", "repeat": repeat, "seed": seed,
                         "fold": fold, "metric": "harrell_c", "value": value, "n": 10, "n_train": 10})  # fmt: skip
    interval = {"estimate": 0.66, "low": 0.5, "high": 0.8, "patients": 20, "events": 9}
    scored = pd.DataFrame([{"design": REPEATED, "source": "", "model": "hybrid", "metric": "harrell_c", **interval}])
    (row,) = scores.spread(pd.DataFrame(rows), scored).to_dict("records")
    assert (row["low"], row["high"]) == (0.5, 0.8)
    assert row["split_sd"] == pytest.approx(0.04 / np.sqrt(2))
    assert row["seed_sd"] == pytest.approx(0.02 / np.sqrt(2))
    assert row["fold_sd"] == pytest.approx(0.1 / np.sqrt(2))


def test_what_is_kept_is_json_and_every_design_is_in_it_or_said_to_be_absent(study, other):
    predictions = designs.fit_designs(study, [other])
    usual, folds = scores.usual(predictions, study), scores.by_fold(predictions, study)
    scored = scores.score(usual, study)
    sites = scores.score(usual[usual["design"] == BY_SITE], study, by=("left_out", "model"))
    missing = designs.absent(study, [other])
    kept = scores.as_json(
        scored, scores.against_reference(folds), {}, scores.spread(folds, scored), missing, sites
    )  # fmt: skip
    kept = json.loads(json.dumps(kept, allow_nan=False))
    assert set(kept["designs"]) == {REPEATED, BY_SITE, "external elsewhere"}
    assert set(kept["absent"]) == {TEMPORAL}
    assert set(kept["sites"]) == {"0", "1"}
    assert kept["spread"]["clinical-cox"]["seed_sd"] is None
    shown = scores.table(scored)
    assert list(shown.columns) == ["Model", "Repeated cross-validation", "One site left out", "Trained on elsewhere"]
    assert [axes.get_title(loc="left").replace("\n", " ") for axes in by_design(scored).axes] == list(shown.columns[1:])
    drawn = spread(scores.spread(folds, scored)).axes[0]
    assert [one.get_text() for one in drawn.get_yticklabels()] == ["Tumour volume alone", "Clinical, Cox"]
