"""Contributions add up, and are those of the definition, of a closed form, and of SHAP's own library."""

from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack.errors import BadInput
from survpack.explain import contributions
from survpack.explain.inputs import inputs, made_of, prepared, risk_of, survival_of
from survpack.explain.shapley import coalitions, shapley, weights
from survpack.figures.parts import partial_dependence as dependence_figure
from survpack.figures.parts import survshap as survshap_figure
from survpack.models import Deep, build

TIMES = np.array([30.0, 100, 300, 900])


def by_definition(game, players: int) -> np.ndarray:
    """What each adds, in every order in which they can come."""
    added, orders = np.zeros(players), list(permutations(range(players)))
    for order in orders:
        inside = np.zeros(players, bool)
        before = game(inside[None])[0]
        for player in order:
            inside[player] = True
            after = game(inside[None])[0]
            added[player] += after - before
            before = after
    return added / len(orders)


def some_game(players: int, seed: int):
    """Any number for any coalition."""
    values = np.random.default_rng(seed).normal(size=2**players)
    return lambda inside: values[inside @ (1 << np.arange(players))]


@pytest.fixture
def hybrid(make_patients, params, tiny_encoder):
    """A network of chart and image after one epoch, with weights that make it far from linear."""

    def made(objective: str = "cox", fusion: str = "concat", encoder: str = "tiny", count: int = 40) -> tuple:
        cohort = make_patients(count, 5, voxels=8)
        named = params.classical.model_copy(update={"lesion": ["tumour_ml"]})
        model = Deep(encoder, fusion, objective, params.model_copy(update={"classical": named}))
        torch.manual_seed(0)
        model.fit(cohort)
        with torch.no_grad():
            model.nets[0].fusion.head.weight.normal_(0, 2.0)
        return model, cohort

    return made


# --- Shapley values


@pytest.mark.parametrize("players", [1, 2, 5])
def test_exact_values_are_the_mean_over_every_order_in_which_players_come(players):
    game = some_game(players, seed=players)
    np.testing.assert_allclose(shapley(game, players, drawn=1, seed=0), by_definition(game, players), atol=1e-12)
    np.testing.assert_allclose(weights(players) @ game(coalitions(players)), by_definition(game, players), atol=1e-12)


@settings(max_examples=30)
@given(players=st.integers(0, 7), drawn=st.integers(1, 4), seed=st.integers(0, 99), few=st.integers(0, 8))
def test_however_they_are_found_they_sum_to_the_value_of_all_less_that_of_none(players, drawn, seed, few):
    game = some_game(players, seed)
    found = shapley(game, players, drawn=drawn, seed=seed, few=few)
    whole = game(np.array([[True] * players, [False] * players], bool).reshape(2, players))
    assert found.shape == (players,)
    assert found.sum() == pytest.approx(whole[0] - whole[1] if players else 0.0)


def test_drawn_orders_come_close_to_the_exact_and_are_the_same_for_the_same_seed():
    game = some_game(9, seed=2)
    exact = shapley(game, 9, drawn=1, seed=0, few=9)
    drawn = [shapley(game, 9, drawn=15, seed=seed, few=0) for seed in range(40)]
    error = np.std(drawn, axis=0) / np.sqrt(40)
    assert (np.abs(np.mean(drawn, axis=0) - exact) < 4 * error).all() and error.min() > 0
    np.testing.assert_array_equal(shapley(game, 9, drawn=15, seed=3, few=0), drawn[3])


def test_pairs_that_work_together_only_are_found_exactly_by_an_order_and_its_reverse():
    """A game of players alone and in pairs: each order, and the same backwards, give every pair's gain half and half."""
    rng = np.random.default_rng(0)
    alone, pairs = rng.normal(size=12), np.triu(rng.normal(size=(12, 12)), 1)
    found = shapley(lambda s: s @ alone + ((s @ pairs) * s).sum(axis=1), 12, drawn=2, seed=0, few=0)
    np.testing.assert_allclose(found, alone + (pairs + pairs.T).sum(axis=1) / 2, atol=1e-12)


# --- the model as a function of what it reads


def test_every_prepared_column_is_made_by_the_one_column_that_it_is_named_after(make_patients, params):
    cohort = make_patients(80, voxels=1)
    model = build("clinical-lesion-coxnet", params).fit(cohort)
    made = made_of(model, model.read(cohort))
    assert (made.sum(axis=0) == 1).all()
    outputs = model.prepare.get_feature_names_out()
    for name, own in zip(model.read(cohort), made, strict=True):
        assert list(outputs[own]) == [one for one in outputs if one == name or one.startswith(f"{name}_")]


@pytest.mark.parametrize("name", ["clinical-cox", "clinical-lesion-coxnet", "clinical-radiomics-rsf"])
def test_risk_and_curves_of_a_classical_model_are_those_it_predicts(name, make_patients, params):
    cohort = make_patients(60, voxels=1)
    model = build(name, params).fit(cohort)
    seen, forecast = inputs(model, cohort), model.predict(cohort, TIMES)
    np.testing.assert_allclose(risk_of(model)(seen.embedding, seen.table), forecast.risk, atol=1e-9)
    np.testing.assert_allclose(survival_of(model, TIMES)(seen.embedding, seen.table), forecast.survival, atol=1e-9)


@pytest.mark.parametrize("objective", ["mse", "cox", "hazard"])
def test_risk_and_curves_of_a_network_are_those_it_predicts(objective, hybrid):
    model, cohort = hybrid(objective)
    seen, forecast = inputs(model, cohort), model.predict(cohort, TIMES)
    np.testing.assert_allclose(risk_of(model)(seen.embedding, seen.table), forecast.risk, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(survival_of(model, TIMES)(seen.embedding, seen.table), forecast.survival, atol=1e-5)


# --- SHAP of the chart


def test_shap_of_the_chart_is_that_of_the_library_and_sums_to_the_risk_above_the_mean(hybrid):
    """Six columns with missing values, text among them, and a network that is not linear: every coalition is asked."""
    shap = pytest.importorskip("shap")
    model, cohort = hybrid("cox")
    train, held = cohort.take(cohort.outcome.index[:8]), cohort.take(cohort.outcome.index[9:13])
    values, features = contributions.shap_chart(model, train, held, 1)
    pd.testing.assert_frame_equal(features, model.frame(held))
    charts, embedding = model.frame(train), model.embed(held)

    for at in range(2):

        def game(inside, at=at):
            said = []
            for some in np.asarray(inside, bool):
                mixed = charts.assign(**{name: features[name].iloc[at] for name in features.columns[some]})
                said.append(model.fuse(np.repeat(embedding[at : at + 1], len(charts), axis=0), mixed).mean())
            return np.array(said)

        players = features.shape[1]
        explainer = shap.explainers.Exact(game, np.zeros((1, players)))
        expected = explainer(np.ones((1, players))).values[0]
        np.testing.assert_allclose(values.iloc[at], expected, atol=2e-5)
        whole = game([[True] * players, [False] * players])
        assert values.iloc[at].sum() == pytest.approx(whole[0] - whole[1], abs=1e-5)
    assert values.abs().to_numpy().max() > 0.1


def test_shap_of_a_line_on_the_chart_is_its_slope_times_the_way_from_the_mean(hybrid):
    model, cohort = hybrid("cox", fusion="additive")
    with torch.no_grad():
        model.nets[0].fusion.line.weight.normal_()
    values, features = contributions.shap_chart(model, cohort, cohort, 3, drawn=1)
    table = prepared(model, features)
    terms = (table - table.mean(axis=0)) * model.nets[0].fusion.line.weight.detach().numpy()
    expected = np.stack([terms[:, own].sum(axis=1) for own in made_of(model, features)], axis=1)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_shap_of_the_chart_needs_a_chart(hybrid):
    model, cohort = hybrid("cox", fusion="image")
    with pytest.raises(BadInput, match="sees the image alone"):
        contributions.shap_chart(model, cohort, cohort, 1)


# --- SHAP over time


def test_survshap_sums_to_the_curve_less_the_mean_curve_at_every_day(hybrid, make_patients, params):
    classical_cohort = make_patients(60, 2, voxels=1)
    classical = build("clinical-lesion-coxnet", params).fit(classical_cohort)
    for model, cohort in [hybrid("hazard"), hybrid("mse"), (classical, classical_cohort)]:
        ids = cohort.outcome.index
        train, held = cohort.take(ids[:30]), cohort.take(ids[30:34])
        table = contributions.survshap(model, train, held, TIMES, drawn=2, seed=1)
        assert list(table) == ["patient_id", "feature", "day", "value"]
        sums = table.pivot_table("value", "patient_id", "day", aggfunc="sum").loc[held.outcome.index]
        curves = [model.predict(some, TIMES).survival for some in (held, train)]
        np.testing.assert_allclose(sums, curves[0] - curves[1].mean(axis=0), atol=1e-5)
        assert ("image" in set(table["feature"])) == isinstance(model, Deep)


def test_survshap_of_one_column_alone_is_the_whole_difference_of_the_curves(make_patients, params):
    """Only age differs between the patient and everybody else, so only age is given anything."""
    cohort = make_patients(40, voxels=1)
    model = build("clinical-cox", params).fit(cohort)
    one = cohort.take(cohort.outcome.index[:1])
    others = cohort.take([cohort.outcome.index[0]] * 10)
    others = SimpleNamespace(**vars(others))
    others.clinical = others.clinical.assign(age=np.linspace(40, 80, 10))
    table = contributions.survshap(model, others, one, TIMES, drawn=1)
    curve, mean = model.predict(one, TIMES).survival[0], model.predict(others, TIMES).survival.mean(axis=0)
    np.testing.assert_allclose(table.loc[table["feature"] == "age", "value"], curve - mean, atol=1e-12)
    assert (table.loc[table["feature"] != "age", "value"] == 0).all()


# --- partial dependence


def test_partial_dependence_of_a_linear_model_is_its_line_and_has_no_width(make_patients, params):
    cohort = make_patients(60, voxels=1)
    model = build("clinical-cox", params).fit(cohort)
    table = contributions.partial_dependence(model, cohort, ["age", "primary"], repeats=50)
    line = table[table["feature"] == "age"]
    seen = cohort.clinical["age"].dropna()
    slope = model.estimator.coef_[list(model.prepare.get_feature_names_out()).index("age")]
    filled = cohort.clinical["age"].fillna(seen.median())
    risk = model.predict(cohort, TIMES).risk.mean()
    expected = risk + slope * (line["value"].astype(float) - filled.mean()) / filled.std(ddof=0)
    np.testing.assert_allclose(line["risk"], expected, atol=1e-9)
    np.testing.assert_allclose(table[["low", "high"]], np.stack([table["risk"]] * 2, axis=1), atol=1e-9)
    assert set(line["value"]) <= set(seen)
    levels = table[table["feature"] == "primary"].set_index("value")["risk"]
    names = list(model.prepare.get_feature_names_out())
    hazard = {level: model.estimator.coef_[names.index(f"primary_{level}")] for level in ("lung", "breast", "other")}
    for level in ("breast", "other"):
        assert levels[level] - levels["lung"] == pytest.approx(hazard[level] - hazard["lung"])


def test_partial_dependence_has_width_where_a_column_acts_otherwise_in_other_patients(hybrid):
    model, cohort = hybrid("cox")
    table = contributions.partial_dependence(model, cohort, ["tumour_ml", "age", "sex"], repeats=200, seed=1)
    assert (table["low"] <= table["risk"] + 1e-9).all() and (table["risk"] <= table["high"] + 1e-9).all()
    assert (table["high"] - table["low"]).max() > 1e-3
    assert np.ptp(table["risk"]) > 0.1
    with pytest.raises(BadInput, match="sees no column `height`"):
        contributions.partial_dependence(model, cohort, ["height"])


# --- drivers of one patient's card


def typical(model, cohort) -> tuple[pd.DataFrame, np.ndarray]:
    frame = model.frame(cohort)
    row = {
        name: frame[name].median() if frame[name].dtype.kind == "f" else frame[name].mode()[0] for name in frame.columns
    }
    return pd.DataFrame([row]), model.embed(cohort).mean(axis=0, keepdims=True)


@pytest.mark.parametrize(
    ("fusion", "encoder"), [("concat", "tiny"), ("additive", "tiny"), ("film", "compact"), ("gated", "compact"), ("cross", "compact")]
)  # fmt: skip
def test_drivers_sum_to_the_patient_s_risk_less_the_reference_s(fusion, encoder, hybrid):
    model, cohort = hybrid("cox", fusion, encoder)
    frame, embedding = typical(model, cohort)
    for at in (0, 11):
        one = cohort.take([cohort.outcome.index[at]])
        found = contributions.drivers(model, frame, embedding, one, drawn=2, seed=1)
        expected = model.predict(one, TIMES).risk[0] - model.fuse(embedding, frame)[0]
        assert found["contribution"].sum() == pytest.approx(expected, abs=1e-4)
        assert set(found["feature"]) == {"image", *model.frame(cohort)}
        assert found["contribution"].abs().is_monotonic_decreasing


def test_drivers_are_shapley_values_by_the_definition(hybrid):
    """Five columns and the image: 720 orders, each coalition asked of the network itself."""
    model, cohort = hybrid("mse")
    reference, embedding = typical(model, cohort)
    one = cohort.take([cohort.outcome.index[4]])
    own, image, names = model.frame(one), model.embed(one), list(model.frame(one))
    known = {}

    def game(inside):
        key = tuple(inside[0])
        if key not in known:
            mixed = reference.assign(
                **{name: own[name].iloc[0] for name, there in zip(names, key, strict=False) if there}
            )
            known[key] = model.fuse(image if key[-1] else embedding, mixed)
        return known[key]

    expected = dict(zip([*names, "image"], by_definition(game, len(names) + 1), strict=True))
    found = contributions.drivers(model, reference, embedding, one, drawn=1, seed=1).set_index("feature")
    assert found["contribution"].to_dict() == pytest.approx(expected, abs=1e-3 * found["contribution"].abs().max())
    assert found.loc["age", "value"] == own["age"].iloc[0] and found.loc["image", "value"] is None


def test_a_reference_between_two_whole_numbers_is_not_rounded_to_the_patient_s(hybrid):
    model, cohort = hybrid("cox")
    frame, embedding = typical(model, cohort)
    one = cohort.take([cohort.outcome.index[0]])
    one = replace(one, clinical=one.clinical.assign(age=np.array([60])))
    frame["age"] = 60.5
    found = contributions.drivers(model, frame, embedding, one, drawn=1, seed=1).set_index("feature")
    assert found.loc["age", "contribution"] != 0
    expected = model.predict(one, TIMES).risk[0] - model.fuse(embedding, frame)[0]
    assert found["contribution"].sum() == pytest.approx(expected, abs=1e-4)


def test_what_is_missing_and_imputed_as_in_the_reference_drives_nothing(hybrid):
    model, cohort = hybrid("cox")
    frame, embedding = typical(model, cohort)
    one = cohort.take([cohort.outcome.index[1]])
    assert one.clinical["age"].isna().all()
    found = contributions.drivers(model, frame, embedding, one, drawn=5, seed=1).set_index("feature")
    assert found.loc["age", "contribution"] == 0 and np.isnan(found.loc["age", "value"])
    both = cohort.take(cohort.outcome.index[:2])
    with pytest.raises(BadInput, match="2 patients and 1 reference"):
        contributions.drivers(model, frame, embedding, both, drawn=5, seed=1)


def test_drivers_do_not_import_the_slow_library():
    import subprocess
    import sys

    asked = "import sys, survpack.explain.contributions; sys.exit('shap' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


# --- figures


def test_the_curve_of_one_patient_has_its_sign_and_of_several_its_size():
    index = pd.MultiIndex.from_product([["P1", "P2"], ["age", "t1c_ml"], [10.0, 400.0]])
    table = pd.Series([-0.1, -0.3, 0.0, 0.1, 0.1, 0.1, 0.0, 0.0], index).rename_axis(["patient_id", "feature", "day"])
    table = table.rename("value").reset_index()
    lines = {line.get_label(): line.get_ydata() for line in survshap_figure(table).axes[0].lines}
    np.testing.assert_allclose(lines["Age"], [0.1, 0.2])
    one = survshap_figure(table[table["patient_id"] == "P1"])
    lines = {line.get_label(): line.get_ydata() for line in one.axes[0].lines}
    np.testing.assert_allclose(lines["Age"], [-0.1, -0.3])


def test_partial_dependence_is_drawn_in_order_of_how_far_the_risk_moves():
    rows = [("age", 40.0, 0.0), ("age", 80.0, 0.2), ("sex", "female", 0.0), ("sex", "male", 0.9)]
    table = pd.DataFrame([(*row, row[2] - 0.1, row[2] + 0.1) for row in rows], columns=contributions.DEPENDENCE)
    figure = dependence_figure(table)
    assert [axes.get_title("left") for axes in figure.axes] == ["Sex", "Age"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["female", "male"]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.0, 0.2])
    assert len(dependence_figure(table, most=1).axes) == 1
