"""The plain predictors: what each says, what it may learn from, and its parts against other libraries."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, NelsonAalenFitter
from sksurv.util import Surv

from survpack import models
from survpack.errors import BadInput
from survpack.models import MODELS, ElasticNet, OneNumber, Patients, RiskCurve, Stack, build, prepare_table
from survpack.models.deep import Deep
from survpack.preprocess import CropSet

TIMES = np.array([0.0, 5, 50, 200, 700, 1500, 9000])


def changed(patients: Patients, at: np.ndarray) -> Patients:
    """The same patients, with all that is known of those at `at` made something else."""
    rng = np.random.default_rng(99)
    outcome, clinical, biomarkers = patients.outcome.copy(), patients.clinical.copy(), patients.biomarkers.copy()
    outcome.iloc[at, 1], outcome.iloc[at, 2] = rng.uniform(1, 9000, len(at)), ~outcome["event"].to_numpy()[at]
    clinical.iloc[at] = [[rng.normal(500, 99), "good", "male", "other"] for _ in at]
    biomarkers.iloc[at] = rng.exponential(1000, (len(at), biomarkers.shape[1]))
    images = patients.images.copy()
    images[at] = 7
    return replace(patients, outcome=outcome, clinical=clinical, biomarkers=biomarkers, images=images)


@pytest.fixture(scope="module")
def params(params):
    """Three settings are enough to choose from."""
    return params.model_copy(update={"classical": params.classical.model_copy(update={"budget": 3, "trees": 10})})


PLAIN = [
    name
    for name, made in MODELS.items()
    if not name.startswith(("gpa", "late-"))
    and getattr(made, "func", None) is not Deep  # theirs: test_peers, test_deep
]


def fresh(name: str, params):
    """A model by name; `stack` is a late fusion of three plain ones."""
    if name != "stack":
        return build(name, params)
    members = ("volume", "clinical-cox", "radiomics-coxnet")
    return Stack([(member, lambda member=member: build(member, params)) for member in members], params.classical)


@pytest.fixture(scope="module", params=[*PLAIN, "stack"])
def twice(request, patients, params):
    """A model fitted on the same patients twice; the second time, other patients beside them are different."""
    ids = patients.outcome.index
    train = ids[:30]
    others = changed(patients, np.arange(32, 40))
    fits = [fresh(request.param, params).fit(cohort.take(train)) for cohort in (patients, others)]
    return fits, train


def test_every_model_gives_each_patient_a_risk_days_and_a_falling_curve(twice, patients):
    forecast = twice[0][0].predict(patients.take(patients.outcome.index[30:]), TIMES)
    assert forecast.risk.shape == forecast.days.shape == (10,) and forecast.survival.shape == (10, len(TIMES))
    assert all(np.isfinite(part).all() for part in forecast)
    assert (forecast.survival[:, 0] == 1).all() and (forecast.survival >= 0).all()
    assert (np.diff(forecast.survival, axis=1) <= 1e-12).all()
    assert (forecast.days > 0).all() and np.ptp(forecast.risk) > 0


def test_the_same_seed_gives_the_same_model_whatever_befell_the_patients_held_out(twice, patients):
    (one, other), train = twice
    for ids in (train, patients.outcome.index[30:32]):
        for ours, theirs in zip(*(fit.predict(patients.take(ids), TIMES) for fit in (one, other)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_patient_s_prediction_depends_on_no_patient_predicted_beside_them(twice, patients):
    model, ids = twice[0][0], patients.outcome.index
    beside = changed(patients, np.arange(32, 40)).take(ids[31:])
    alone, together = (model.predict(group, TIMES) for group in (patients.take(ids[31:32]), beside))
    for ours, theirs in zip(alone, together, strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-6)  # float32 sums differ with the batch


def test_predictions_do_not_depend_on_the_order_of_the_columns(twice, patients):
    held = patients.take(patients.outcome.index[30:])
    turned = replace(held, clinical=held.clinical.iloc[:, ::-1], biomarkers=held.biomarkers.iloc[:, ::-1])
    np.testing.assert_array_equal(*(twice[0][0].predict(group, TIMES).risk for group in (held, turned)))


def test_an_unknown_model_is_told_with_those_there_are(params):
    with pytest.raises(BadInput, match="'cox-deluxe' does not exist; choose from age, volume"):
        build("cox-deluxe", params)


def test_every_model_of_params_yaml_exists_and_describes_itself(params):
    assert all(models.describe(name, params).startswith(name) for name in params.models)


# --- patients -----------------------------------------------------------------------------------------------------


def test_patients_come_in_the_order_asked_for_with_all_that_is_theirs(patients):
    two = patients.take(["P007", "P003"])
    assert list(two.outcome.index) == list(two.clinical.index) == list(two.biomarkers.index) == ["P007", "P003"]
    np.testing.assert_array_equal(two.images, patients.images[[7, 3]])


def test_a_patient_who_is_not_there_is_not_replaced_by_another(patients):
    with pytest.raises(KeyError):
        patients.take(["P001", "nobody"])


def test_tables_and_crops_of_other_patients_are_refused(patients, study_of, tmp_path):
    study = study_of(tmp_path / "study", patients.take(patients.outcome.index[:12]))
    crops = CropSet.load(study.paths.crops)
    with pytest.raises(BadInput, match="toy: participants, biomarkers and crops list other patients"):
        turned = replace(study.biomarkers, features=study.biomarkers.features.iloc[::-1])
        Patients.of(study.cohort, turned, crops)
    with pytest.raises(BadInput, match="dvc repro"):
        Patients.of(study.cohort, study.biomarkers, replace(crops, patient_ids=crops.patient_ids[1:]))


# --- the table a model sees ---------------------------------------------------------------------------------------

KINDS = {
    "grade": {"kind": "ordered", "levels": ["low", "middle", "high"]},  # not the alphabet's order
    "sex": {"kind": "categorical", "levels": ["female", "male"]},
    "primary": {"kind": "categorical", "levels": ["lung", "breast", "other"]},
}


def table(**changes) -> pd.DataFrame:
    columns = {
        "age": [40.0, 50, np.nan, 90, 60],
        "tumour_ml": [1.0, np.e, np.nan, np.e**2, 0.0],
        "grade": ["low", "high", "middle", None, "high"],
        "sex": ["male", "female", "male", None, "male"],
        "primary": ["breast", "breast", "lung", None, "breast"],
    }
    return pd.DataFrame(columns | changes)


def transformed(train: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare = prepare_table(train, KINDS).fit(train)
        return pd.DataFrame(prepare.transform(seen), columns=prepare.get_feature_names_out())


def test_numbers_are_imputed_with_the_training_median_and_standardised_there():
    seen = transformed(table(), table(age=[np.nan, 1000.0, 1000, 1000, 1000]))["age"]
    filled = np.array([40, 50, 55, 90, 60.0])  # the median of 40, 50, 90, 60 is 55
    assert seen[0] == pytest.approx((55 - filled.mean()) / filled.std())
    assert seen[1] == pytest.approx((1000 - filled.mean()) / filled.std())


def test_volumes_and_ratios_are_seen_as_logarithms_and_no_other_number_is():
    logs = np.log([1, np.e, (1 + np.e) / 2, np.e**2, 0.01])  # nothing is taken for a hundredth
    assert transformed(table(), table())["tumour_ml"].to_numpy() == pytest.approx((logs - logs.mean()) / logs.std())
    for name, skewed in (("oedema_to_tumour", True), ("diameter_mm", False)):
        train = pd.DataFrame({name: [1.0, 10, 100]})
        steps = np.diff(prepare_table(train, {}).fit_transform(train)[:, 0])
        assert (steps[0] == pytest.approx(steps[1])) == skewed


def test_ordered_levels_rank_as_the_dictionary_lists_them_and_missing_ones_are_the_median():
    grade = transformed(table(), table())["grade"]
    assert grade[0] < grade[2] < grade[1]
    assert grade[1] - grade[2] == pytest.approx(grade[2] - grade[0])
    ranks = np.array([0, 2, 1, 1.5, 2])
    assert grade[3] == pytest.approx((1.5 - ranks.mean()) / ranks.std())


@pytest.mark.parametrize("missing", [None, np.nan, "a level of no dictionary"])
def test_a_missing_category_is_the_most_frequent_of_training_however_it_is_written(missing):
    train = table(
        sex=["male", "female", "male", missing, "male"], primary=["breast", "breast", "lung", missing, "other"]
    )
    seen = transformed(train, train)
    assert seen.loc[3, ["sex_male", "primary_breast", "primary_lung"]].tolist() == [1, 1, 0]


def test_a_missing_category_stays_missing_through_files_and_is_imputed(patients, study_of, tmp_path):
    few = patients.take(patients.outcome.index[:20])
    study = study_of(tmp_path / "study", few)
    assert few.clinical["sex"].isna().sum() == study.patients.clinical["sex"].isna().sum() > 0
    filled = few.clinical["sex"].fillna(few.clinical["sex"].mode()[0])
    frame = study.patients.clinical
    prepare = prepare_table(frame, few.dictionary)
    seen = pd.DataFrame(prepare.fit_transform(frame), columns=prepare.get_feature_names_out())
    assert seen["sex_male"].tolist() == (filled == "male").astype(float).tolist()


def test_a_level_not_seen_in_training_changes_nothing_but_its_own_absence():
    train = table(primary=["breast", "breast", "lung", "lung", "breast"])
    seen = transformed(train, table(primary=["other"] * 5))
    assert (seen[["primary_breast", "primary_lung"]] == 0).all(axis=None) and "primary_other" not in seen


def test_columns_that_do_not_vary_in_training_are_dropped():
    train = table(age=[50.0] * 5, sex=["male"] * 5, grade=["low"] * 5, empty=[np.nan] * 5)
    assert set(transformed(train, train)) == {"tumour_ml", "primary_lung", "primary_breast"}


def test_a_chart_column_named_as_a_biomarker_is_told(patients):
    double = replace(patients, clinical=patients.clinical.assign(sphericity=1.0))
    with pytest.raises(BadInput, match="column sphericity has the name of a biomarker.*rename"):
        models.chart_and_lesion(double)


# --- survival curves from a risk ----------------------------------------------------------------------------------


def simulated(count: int, slope: float, seed: int = 3):
    rng = np.random.default_rng(seed)
    score = (np.arange(count) % 2).astype(float)
    death, censored = rng.exponential(300 * np.exp(-slope * score)), rng.uniform(100, 1500, count)
    return score, Surv.from_arrays(death <= censored, np.minimum(death, censored))


def test_curves_of_one_binary_score_are_those_of_lifelines():
    score, target = simulated(300, slope=0.8)
    times = np.sort(target["time"])[::10]  # observed ones: between them lifelines draws lines, where we step
    frame = pd.DataFrame({"score": score, "time": target["time"], "event": target["event"]})
    peer = CoxPHFitter().fit(frame, "time", "event").predict_survival_function(frame.iloc[:2], times).T
    # ours shrinks the slope by a ridge of 0.1 against about 200 events: a thousandth
    np.testing.assert_allclose(RiskCurve().fit(score, target).survival(score[:2], times), peer, atol=2e-3)


@pytest.mark.parametrize("risk", ["constant", "pointing the wrong way"])
def test_a_risk_that_tells_nothing_gives_everyone_the_nelson_aalen_curve(risk):
    score, target = simulated(200, slope=1.0)
    score = np.full(200, 3.3) if risk == "constant" else -score
    times = np.quantile(target["time"], np.linspace(0, 1, 30))
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(target["time"], target["event"])
    expected = np.exp(-hazard.cumulative_hazard_at_times(times).to_numpy())
    curves = RiskCurve().fit(score, target).survival(np.r_[score[:2], -9, 9], times)
    np.testing.assert_allclose(curves, np.tile(expected, (4, 1)), atol=1e-6)


@pytest.mark.parametrize("slope", [-2.0, 0.0, 0.3, 2.0])
def test_a_higher_risk_never_has_the_higher_curve(slope):
    score, target = simulated(80, slope)
    curves = RiskCurve().fit(score, target).survival(np.linspace(-3, 3, 13), TIMES)
    assert (np.diff(curves, axis=0) <= 1e-12).all()


# --- one number ---------------------------------------------------------------------------------------------------


def test_the_risk_of_one_number_is_the_number_and_where_missing_the_training_median(patients, params):
    train, held = patients.take(patients.outcome.index[:20]), patients.take(patients.outcome.index[20:])
    risk = build("age", params).fit(train).predict(held, TIMES).risk
    expected = held.clinical["age"].fillna(train.clinical["age"].median())
    assert held.clinical["age"].isna().any()
    np.testing.assert_array_equal(risk, expected)
    volume = build("volume", params).fit(train).predict(held, TIMES).risk
    np.testing.assert_allclose(volume, np.log(held.biomarkers["tumour_ml"]))


def test_a_chart_without_age_is_told_with_the_remedy(patients):
    without = replace(patients, clinical=patients.clinical.drop(columns="age"))
    with pytest.raises(BadInput, match="no column `age`; add it, or drop the model in params.yaml"):
        OneNumber(models.age).fit(without)


# --- elastic net --------------------------------------------------------------------------------------------------


def net() -> ElasticNet:
    return ElasticNet(models.radiomic, SimpleNamespace(l1_ratio=0.9, inner_folds=3, seed=5, budget=8))


def test_the_elastic_net_finds_the_planted_feature_and_beats_chance_on_others(make_patients):
    from survpack.metrics import concordance

    train, held = (make_patients(150, seed, voxels=1) for seed in (1, 2))
    noise = np.random.default_rng(0).normal(size=(2, 150, 30))
    columns = [f"rad_more_{number}" for number in range(30)]
    train, held = (
        replace(each, biomarkers=each.biomarkers.drop(columns="tumour_ml").join(pd.DataFrame(more, each.outcome.index, columns)))
        for each, more in zip((train, held), noise, strict=True)
    )  # fmt: skip
    model = net().fit(train)
    size = pd.Series(np.abs(model.estimator.coef_[:, 0]), model.prepare.get_feature_names_out())
    assert size.idxmax() == "rad_planted" and size["rad_planted"] > 3 * size.drop("rad_planted").max()
    risk = model.predict(held, TIMES).risk
    assert concordance(held.outcome["time_days"].to_numpy(), held.outcome["event"].to_numpy(), risk) > 0.65


def test_inner_folds_learn_imputation_and_scale_without_their_held_patients(patients, monkeypatch):
    from sklearn.compose import ColumnTransformer

    learnt, shown = [], []
    fit, transform = ColumnTransformer.fit_transform, ColumnTransformer.transform
    monkeypatch.setattr(
        ColumnTransformer, "fit_transform", lambda self, x, *more: learnt.append({*x.index}) or fit(self, x, *more)
    )
    monkeypatch.setattr(ColumnTransformer, "transform", lambda self, x: shown.append({*x.index}) or transform(self, x))
    net().fit(patients)
    everyone = set(patients.outcome.index)
    assert learnt[0] == everyone and len(learnt) == 4 and len(shown) == 3
    for fitted, held in zip(learnt[1:], shown, strict=True):
        assert fitted | held == everyone and not fitted & held
    assert set.union(*shown) == everyone


def test_a_penalty_without_a_solution_is_passed_over(patients, monkeypatch):
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    fit, refused = CoxnetSurvivalAnalysis.fit, []

    def unsolved(self, table, target):
        if self.alphas is not None and len(table) < 40 and self.alphas[0] < threshold:
            refused.append(self.alphas[0])
            raise ArithmeticError("coefficients are not finite")
        return fit(self, table, target)

    threshold = 0.0
    chosen = net().fit(patients).estimator.alphas_[0]
    threshold = chosen * 1.001
    monkeypatch.setattr(CoxnetSurvivalAnalysis, "fit", unsolved)
    assert net().fit(patients).estimator.alphas_[0] > chosen and refused


def test_an_inner_fold_whose_one_event_comes_last_of_all_does_not_stop_the_fit(make_patients):
    few = make_patients(24, 1, voxels=1)
    late = few.outcome["time_days"].rank() > 21  # one event an inner fold, each the last there
    few = replace(few, outcome=few.outcome.assign(event=late))
    assert np.isfinite(net().fit(few).predict(few, TIMES).survival).all()


@pytest.mark.parametrize("seed", range(6))
def test_few_events_and_many_features_still_give_a_model(seed, make_patients):
    few = make_patients(24, seed, voxels=1)
    event = np.zeros(24, bool)
    event[np.argsort(few.outcome["time_days"].to_numpy())[:7]] = True
    features = pd.DataFrame(np.random.default_rng(seed).normal(size=(24, 300)), few.outcome.index).add_prefix("rad_")
    few = replace(few, outcome=few.outcome.assign(event=event), biomarkers=features)
    assert np.isfinite(net().fit(few).predict(few, TIMES).survival).all()


def test_a_model_that_does_not_exist_is_named_before_anything_runs(params):
    models.require_known(params)
    for section, change, said in (
        ("scores", {"compare": [("age", "vloume")]}, "model 'vloume' does not exist"),
        ("explain", {"model": "hybrid-efficientnet-cocks"}, "model 'hybrid-efficientnet-cocks' does not exist"),
    ):
        wrong = params.model_copy(update={section: getattr(params, section).model_copy(update=change)})
        with pytest.raises(BadInput, match=said):
            models.require_known(wrong)
    with pytest.raises(BadInput, match="explain.model is 'hybrid-efficientnet-mse', which is not among"):
        models.require_known(params.model_copy(update={"models": ["age", "clinical-cox"]}))


# --- radiomics: chosen in the fold, and the negative controls -------------------------------------------------------


def test_texture_is_what_the_controls_have_and_no_volume_or_shape(patients):
    grey = replace(patients, shuffled=patients.shuffled[["rad_noise_1", "rad_planted"]])
    assert list(models.texture(grey)) == ["rad_noise_1", "rad_planted"]


@pytest.mark.parametrize("name", ["lesion-cox", "radiomics-coxnet", "texture-coxnet", "clinical-radiomics-rsf"])
def test_what_is_chosen_depends_on_the_training_patients_alone(name, patients, params):
    ids = list(patients.outcome.index)
    train, held = patients.take(ids[:-12]), patients.take(ids[-12:])
    rng = np.random.default_rng(0)
    spoilt = replace(held, biomarkers=held.biomarkers * rng.uniform(0.1, 9, held.biomarkers.shape))
    first, again = (models.build(name, params).fit(train) for _ in range(2))
    before = first.read.selection.columns
    first.predict(held, TIMES), again.predict(spoilt, TIMES)
    assert before == first.read.selection.columns == again.read.selection.columns


def test_lesion_cox_takes_the_biomarkers_named_in_their_order_and_passes_over_what_a_cohort_lacks(patients):
    found = models.lesion(patients, ["oedema_to_tumour", "rim_mm", "tumour_ml"])
    assert list(found) == ["oedema_to_tumour", "tumour_ml"]


def test_shuffled_labels_leave_every_input_and_give_each_fold_another_order(patients, params):
    seen = []

    class Watched:
        usual_risk = 0.0

        def fit(self, given, label=""):
            seen.append(given)

    for label in ("mets control-shuffled-labels fold-0", "mets control-shuffled-labels fold-1"):
        models.ShuffledLabels(Watched(), seed=3).fit(patients, label)
    times = [one.outcome["time_days"].to_numpy() for one in seen]
    assert not np.array_equal(times[0], times[1]) and not np.array_equal(times[0], patients.outcome["time_days"])
    for one in seen:
        pairs = set(zip(one.outcome["time_days"], one.outcome["event"], strict=True))
        assert pairs == set(zip(patients.outcome["time_days"], patients.outcome["event"], strict=True))
        assert one.biomarkers is patients.biomarkers and (one.outcome["site"] == patients.outcome["site"]).all()


def test_a_control_of_shuffled_labels_ranks_nobody(make_patients, params):
    from survpack.metrics import concordance

    train, held = (make_patients(150, seed, voxels=1) for seed in (1, 2))
    outcome, score = (held.outcome["time_days"].to_numpy(), held.outcome["event"].to_numpy()), {}
    for name in ("texture-coxnet", "control-shuffled-labels"):
        risks = [models.build(name, params).fit(train, f"fold-{k}").predict(held, TIMES).risk for k in range(4)]
        score[name] = np.mean([concordance(*outcome, risk) for risk in risks])
    assert score["texture-coxnet"] > 0.65 and abs(score["control-shuffled-labels"] - 0.5) < 0.1


def test_a_cohort_of_masks_only_has_no_control_of_grey_values_and_says_why(patients):
    without = replace(patients, shuffled=patients.shuffled.iloc[:, :0], noise=patients.noise.iloc[:, :0])
    for name in (*models.NEEDS_VOXELS, *models.NEEDS_CONTROL):
        assert "needs grey values" in models.lacking(name, without) and models.lacking(name, patients) == ""
    assert models.lacking("radiomics-coxnet", without) == ""


def test_a_selection_that_leaves_nothing_is_told_with_what_each_step_took(patients, params):
    hard = params.model_copy(update={"selection": params.selection.model_copy(update={"icc": 1.0})})
    with pytest.raises(BadInput, match="none of 6 columns is left to learn from .*ICC of 1.*selection"):
        models.build("texture-coxnet", hard).fit(patients)
