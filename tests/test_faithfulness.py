"""Which explanation may be trusted: on a network whose cause is known, and score by score against a closed form."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from survpack.errors import BadInput
from survpack.explain import faithfulness, folds, planted
from survpack.explain.faithfulness import RULES, TRUSTED, Networks, alike, intervals, scored, verdict
from survpack.explain.marks import CONTROLS, iou, pointing, reach, share_over_chance
from survpack.explain.perturbation import effect, orders_scored
from survpack.figures.faithfulness import faithfulness as figure_of
from survpack.models import Deep
from survpack.phantom.importance import importance_against_planted, planted_strength

SIDE, COUNT = 16, 14
LABELS = ["enhancing", "oedema"]


class Weighing:
    """A network by hand: the risk is the image, weighed voxel by voxel; so the weights are the whole explanation."""

    fusion, objective = "image", SimpleNamespace(risk=lambda output: output[:, 0])

    def __init__(self, weights):
        self.weights = weights

    def outputs(self, patients):
        return (self.weights * patients.images[:, 0].astype(float)).sum(axis=(1, 2, 3))[:, None]


@pytest.fixture(scope="module")
def cohort(make_patients):
    """A bright box off the middle in each image, which alone is the cause."""
    rng, patients = np.random.default_rng(3), make_patients(COUNT, voxels=SIDE)
    masks = np.zeros((COUNT, 2, SIDE, SIDE, SIDE), np.float16)
    images = rng.normal(0, 0.3, (COUNT, 1, SIDE, SIDE, SIDE))
    for number, corner in enumerate(rng.choice([0, 11], (COUNT, 3))):
        box = tuple(slice(start, start + 5) for start in corner)
        masks[(number, 0, *box)] = 1
        images[(number, 0, *box)] += 2 + 2 * rng.random()
    return replace(patients, images=images.astype(np.float16), masks=masks)


@pytest.fixture(scope="module")
def networks(cohort):
    rng, cause = np.random.default_rng(5), cohort.masks[:, 0].astype(float)
    other = [rng.random(cause.shape) for _ in range(4)]
    seeds = [Weighing(cause + 0.02 * noise) for noise in other[2:]]
    return Networks(Weighing(cause + 0.02 * rng.random(cause.shape)), Weighing(other[0]), Weighing(other[1]), seeds)


def ideal(model, patients):
    return model.weights.astype(np.float32)


def times_input(model, patients):
    return (model.weights * np.abs(patients.images[:, 0].astype(float))).astype(np.float32)


@pytest.fixture(scope="module")
def choice(params):
    return params.explain.model_copy(update={"seed": 19})


@pytest.fixture(scope="module")
def table(networks, cohort, choice):
    methods = {"ideal": ideal}
    each = scored(networks, cohort, LABELS, choice, cause=["enhancing"], methods=methods)
    ball = cohort.masks[:, 0] > 0
    marker = planted.scored(networks.real, cohort, ball, LABELS, choice, methods)
    found = intervals(each, repeats=200, confidence=0.95, seed=1)
    known = intervals(marker, repeats=200, confidence=0.95, seed=1).drop(columns="kind")
    known = known.rename(columns={"shown": "marker_shown"})
    found = found.merge(known, on="method")
    return found.assign(verdict=[verdict(row) for _, row in found.iterrows()])


def test_the_right_explanation_of_a_known_network_passes_everything(table):
    assert table.set_index("method").loc["ideal", "verdict"] == TRUSTED


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("noise", ["to find a known cause", "to beat a random order", "other seeds"]),
        ("edges", ["random weights", "shuffled outcomes"]),
        ("tumour mask", ["random weights"]),
        ("centre", ["random weights", "to find a known cause", "other seeds"]),
    ],
)
def test_no_control_is_trusted_and_each_fails_where_it_must(table, control, words):
    said = table.set_index("method").loc[control, "verdict"]
    assert said.startswith("may not: fails ") and all(word in said for word in words)
    if control == "noise":
        assert "random weights" not in said


def test_what_is_multiplied_by_the_image_looks_alike_whatever_the_network(networks, cohort, choice):
    """Adebayo 2018 found it of gradient times input: the image is in every map."""
    each = scored(networks, cohort, LABELS, choice, methods={"weights": ideal, "times": times_input})
    found = intervals(each, repeats=50, confidence=0.95, seed=1).set_index("method")["weights"]
    assert abs(found["weights"]) < 0.1 and found["times"] > 0.4


def test_a_network_that_ignores_the_image_has_nothing_to_explain(networks, cohort, choice):
    rng = np.random.default_rng(0)
    deaf = Weighing(np.zeros(cohort.masks[:, 0].shape))
    deaf.outputs = lambda patients: np.arange(COUNT, dtype=float)[:, None]
    each = scored(networks._replace(real=deaf), cohort, LABELS, choice,
                  methods={"any": lambda model, seen: rng.random(model.weights.shape)})  # fmt: skip
    row = intervals(each, repeats=50, confidence=0.95, seed=1).iloc[0]
    assert row["effect"] == 0 and "something to explain" in verdict(row)
    assert np.isnan(row["deletion"]) and "not tested" in verdict(row)


def test_outcomes_dealt_out_by_another_seed_are_kept_apart():
    names = [
        folds._name(folds.Variant(shuffled=shuffled), "digest", seed) for shuffled in (True, False) for seed in (1, 2)
    ]
    assert len(set(names)) == 3 and names[2] == names[3]  # who is not shuffled knows of no such seed


def test_what_a_blank_image_shifts_for_all_alike_is_no_effect(networks, cohort, choice):
    """A network that was trained on no blank image may say anything of one, the same for everybody."""
    shifted = Weighing(np.zeros(cohort.masks[:, 0].shape))
    shifted.outputs = lambda patients: (np.arange(COUNT) + 50.0 * patients.images.any(axis=(1, 2, 3, 4)))[:, None]
    each = scored(networks._replace(real=shifted), cohort, LABELS, choice, methods={"ideal": ideal_of(networks)})
    row = intervals(each, repeats=50, confidence=0.95, seed=1).iloc[0]
    assert row["effect"] == pytest.approx(0, abs=1e-9) and "something to explain" in verdict(row)


def ideal_of(networks):
    return lambda model, seen: networks.real.weights[: len(seen.outcome)].astype(np.float32)


def test_the_effect_is_the_spread_of_the_change_over_that_of_the_risks_in_every_resample():
    rng = np.random.default_rng(0)
    risk, change = 700 + rng.normal(0, 3, 20), rng.normal(5, 1, 20)
    counts = rng.integers(0, 3, (4, 20))
    drawn = [np.repeat(np.arange(20), own) for own in counts]
    expected = [change[own].std() / risk[own].std() for own in drawn]
    np.testing.assert_allclose(effect(risk, risk - change, counts), expected, rtol=1e-9)
    assert effect(risk, risk - change) == pytest.approx(change.std() / risk.std())
    assert np.isnan(effect(np.full(20, 700.0), np.full(20, 700.0) - change))


@pytest.mark.parametrize("column", ["shown", "marker_shown"])
def test_maps_of_too_few_patients_are_not_trusted(table, column):
    row = table.set_index("method").loc["ideal"].copy()
    row[column] = 0.8
    assert verdict(row).startswith("may not: fails to show a map")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.score)
def test_a_score_of_fewer_than_eight_patients_is_not_tested(table, rule):
    row = table.set_index("method").loc["ideal"].copy()
    row[f"{rule.score}_n"] = 7
    assert verdict(row).startswith("may not: not tested (")


def test_how_many_patients_have_each_score_is_counted(networks, cohort, choice):
    few = np.where(np.arange(COUNT)[:, None, None, None] < 3, networks.real.weights, np.nan).astype(np.float32)
    each = scored(networks, cohort, LABELS, choice, methods={"few": lambda model, seen: few[: len(seen.outcome)]})
    row = intervals(each, repeats=50, confidence=0.95, seed=1).iloc[0]
    assert (row["effect_n"], row["deletion_n"], row["in_tumour_n"]) == (COUNT, 3, 3)
    assert row["shown"] == pytest.approx(3 / COUNT)
    assert "to show a map" in verdict(row) and "deletion" in verdict(row).split("not tested")[1]


def test_a_method_that_shows_nothing_is_not_trusted(networks, cohort, choice):
    nothing = {"nothing": lambda model, seen: np.full(model.weights.shape, np.nan, np.float32)}
    each = scored(networks, cohort, LABELS, choice, cause=["enhancing"], methods=nothing)
    row = intervals(each, repeats=50, confidence=0.95, seed=1).set_index("method").loc["nothing"]
    assert row["shown"] == 0 and np.isnan(row[["in_tumour", "pointing", "weights", "deletion"]].astype(float)).all()
    assert verdict(row) != TRUSTED and "not tested" in verdict(row)


def test_scores_are_the_same_twice(networks, cohort, choice, table):
    each = scored(networks, cohort, LABELS, choice, cause=["enhancing"], methods={"ideal": ideal})
    again = intervals(each, repeats=200, confidence=0.95, seed=1)
    pd.testing.assert_frame_equal(again, table[list(again)])


def test_alikeness_is_spearmans_and_does_not_count_voxels_that_no_map_can_mark():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 3, 6, 6, 6))
    other = 0.5 * one + other
    other[1] = 0.2  # flat: there is no rank order to compare
    found = alike(one, other)
    np.testing.assert_allclose(found[0], spearmanr(one[0].ravel(), other[0].ravel()).statistic, atol=1e-6)
    assert np.isnan(found[1])
    one[2] = np.nan
    assert np.isnan(alike(one, other)[2])
    support = np.zeros((6, 6, 6), bool)
    support[3] = True
    two = rng.random((2, 1, 6, 6, 6)) * support
    assert alike(two[0], two[1]).item() > 0.5 > abs(alike(two[0], two[1], support).item())
    assert np.isnan(alike(two[0], two[1], np.zeros_like(support)).item())


def test_pointing_at_random_hits_as_often_as_chance_says():
    rng, region = np.random.default_rng(0), np.zeros((400, 12, 12, 12), bool)
    region[:, 3:7, 3:7, 3:7] = True
    hits, chance = pointing(rng.random(region.shape), region).mean(), reach(region[:1]).mean()
    assert abs(hits - chance) < 3 * np.sqrt(chance * (1 - chance) / 400)


def test_a_window_points_at_its_middle_and_a_near_miss_counts():
    maps, region = np.zeros((3, 16, 16, 16)), np.zeros((3, 16, 16, 16), bool)
    maps[:, 8:, 8:, 8:] = 1  # its first voxel is (8, 8, 8)
    region[0, 10:13, 10:13, 10:13] = True
    region[1, 8, 8, 8] = True
    assert pointing(maps, region)[:2].tolist() == [1, 0] and np.isnan(pointing(maps, region)[2])


def test_overlap_and_share_have_their_closed_forms():
    region = np.zeros((3, 4, 4, 4), bool)
    region[:, :2] = True  # half of the cube
    maps = np.stack([region[0], ~region[0], np.ones((4, 4, 4))]).astype(float)
    np.testing.assert_allclose(iou(maps, region)[:2], [1, 0])
    np.testing.assert_allclose(share_over_chance(maps, region), [2, 0, 1])
    np.testing.assert_allclose(iou(np.roll(maps, 1, axis=1), region)[0], 1 / 3)  # half of it shared


def test_the_order_of_the_weights_deletes_fastest_and_the_reverse_order_slowest(networks, cohort):
    right = ideal(networks.real, cohort)
    flat = np.ones_like(right)
    found = orders_scored(networks.real, cohort, {"right": right, "reverse": 1 - right / right.max(), "flat": flat}, 3)
    mean = {method: np.mean(own["deletion"]) for method, own in found.items()}
    assert mean["right"] > 0.3 and mean["reverse"] < 0 and abs(mean["flat"]) < 0.15
    assert np.mean(found["right"]["insertion"]) > 0.3 > np.mean(found["flat"]["insertion"])


def test_intervals_hold_their_mean_and_leave_out_who_has_no_score():
    values = np.r_[np.random.default_rng(0).normal(size=40), np.nan]
    each = {"one": pd.DataFrame({"deletion": values, "shown": 1.0})}
    row = intervals(each, repeats=300, confidence=0.9, seed=1).iloc[0]
    assert (
        row["deletion"] == pytest.approx(np.nanmean(values))
        and row["deletion_low"] < row["deletion"] < row["deletion_high"]
    )
    wider = intervals(each, repeats=300, confidence=0.99, seed=1).iloc[0]
    assert wider["deletion_low"] < row["deletion_low"] and wider["deletion_high"] > row["deletion_high"]


def test_random_weights_keep_their_scale_and_nothing_else():
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 1))
    before = [weight.detach().clone() for weight in net.parameters()]
    mixed, again = (faithfulness.randomised(SimpleNamespace(nets=[net]), 7).nets[0] for _ in range(2))
    for was, now, new, same in zip(before, net.parameters(), mixed.parameters(), again.parameters(), strict=True):
        assert torch.equal(was, now) and torch.equal(new, same)
        assert torch.equal(was.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(mixed[0].weight, net[0].weight)


def test_a_network_of_random_weights_is_settled_on_patients_so_that_it_still_tells_them_apart(make_patients, params):
    """Batch norms that speak of the weights that were learnt would make of the control a network that says nothing."""
    patients = make_patients(12, voxels=32)
    model = Deep("efficientnet-2d", "image", "cox", params, measured=False).fit(patients)
    mixed = faithfulness.randomised(model, 7)
    before = {name: value.clone() for name, value in mixed.nets[0].state_dict().items()}
    settled = mixed.settle(patients).nets[0].state_dict()
    changed = {name for name, value in settled.items() if not torch.equal(value.cpu(), before[name].cpu())}
    assert changed and all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
    assert model.nets[0].state_dict()["encoder.net._bn1.running_mean"].equal(before["encoder.net._bn1.running_mean"])


def test_every_rule_has_its_reason_and_its_source_and_is_about_a_score():
    for rule in RULES:
        assert rule.score in faithfulness.SCORES
        assert any(mark in rule.why for mark in ("doi:", "arXiv:", "Cohen 1988"))
    assert len(faithfulness.rules()) == len(RULES) + 1  # and that nearly everybody has a map


def test_a_marker_lies_beside_the_lesion_off_the_middle_and_knows_nothing_of_outcomes(make_patients):
    patients = make_patients(8, voxels=32)
    found = planted.marked(patients, 5, copies=2)
    other = replace(patients, outcome=patients.outcome.assign(time_days=1.0, event=False))
    np.testing.assert_array_equal(planted.marked(other, 5, copies=2).patients.images, found.patients.images)
    assert found.patients.outcome.index.is_unique and len(found.ball) == 16
    middle = np.array([np.argwhere(ball).mean(axis=0) for ball in found.ball])
    assert (np.linalg.norm(middle - 16, axis=1) >= planted.OFF).all()
    assert not (found.ball & (found.patients.masks.max(axis=1) > 0)).any()
    changed = (found.patients.images != np.tile(patients.images, (2, 1, 1, 1, 1)))[:, 0]
    assert (changed & ~found.ball).sum() == 0 and changed[found.ball].mean() > 0.99
    days = found.patients.outcome["time_days"].to_numpy()
    np.testing.assert_allclose(days, planted.MIDDLE - planted.SPAN * found.bright)
    assert planted.marked(patients, 5, least=0.5).bright.min() >= 0.5


def test_held_out_markers_are_as_bright_as_those_learnt_from_and_in_the_same_sequence(make_patients):
    patients = make_patients(8, voxels=32)
    two = replace(patients, images=np.repeat(patients.images, 2, axis=1), present=np.tile([False, True], (8, 1)),
                  modalities=["t1c", "t2f"])  # fmt: skip
    found = planted.marked(replace(two, present=~two.present), 5, pen=planted.Pen(1, 30.0))
    assert (found.bright == 0).all()  # nobody has the sequence
    found = planted.marked(two, 5, pen=planted.Pen(1, 30.0))
    brightest = [image[1][ball].max() for image, ball in zip(found.patients.images, found.ball, strict=True)]
    np.testing.assert_allclose(brightest, 30 * found.bright, rtol=2e-3)


def marker_study(patients, params, **changed):
    ids = list(patients.outcome.index)
    given = {"name": "mets", "params": params, "patients": patients, "paths": SimpleNamespace(crops=None),
             "development": ids, "fold": lambda fold: ([], ids)}  # fmt: skip
    return SimpleNamespace(**given | changed)


@pytest.mark.parametrize("lacking", ["sequences", "room"])
def test_where_no_marker_can_be_planted_nothing_is_trained_and_it_is_not_tested(
    lacking, monkeypatch, make_patients, params, choice, table
):
    patients = make_patients(6, voxels=32 if lacking == "sequences" else 8)
    if lacking == "sequences":
        patients = replace(patients, images=patients.images[:, :0], present=patients.present[:, :0], modalities=[])
    monkeypatch.setattr(planted.Deep, "fit", lambda *_, **__: pytest.fail("trained"))
    study = marker_study(patients, params)
    found = planted.score(study, "compact", choice)
    assert np.isnan(found.attrs["marker_r2"]) and found.drop(columns="method").isna().all().all()
    assert set(found["method"]) == {*planted.METHODS, *CONTROLS}
    row = table.set_index("method").loc["ideal"].drop([name for name in table if name.startswith("marker")])
    assert verdict(pd.concat([row, found.iloc[0].drop("method")])) == "may not: not tested (finds the marker)"
    said = table.assign(**{name: np.nan for name in found if name != "method"})
    said.attrs["marker_r2"] = np.nan
    assert "No network could be trained" in faithfulness.effect_text(said)


def test_explanations_of_the_marker_are_scored_of_those_who_have_its_sequence(
    monkeypatch, make_patients, params, choice
):
    patients, seen = make_patients(12, voxels=32), []
    patients = replace(patients, present=np.arange(12)[:, None] >= 3)
    monkeypatch.setattr(planted, "learnt", lambda *_: None)
    monkeypatch.setattr(planted, "found_again", lambda _, held: seen.append(held.bright) or 0.9)
    monkeypatch.setattr(planted, "attribute", lambda model, held, *_, **__: held.images[:, 0].astype(np.float32))
    monkeypatch.setattr(planted.CropSet, "load", lambda _: SimpleNamespace(labels=LABELS))
    found = planted.score(marker_study(patients, params), "tiny", choice)
    assert (seen[0] > 0).all() and len(seen[0]) == 9 * planted.COPIES
    assert (found["marker_pointing_n"] == 9).all()


def test_ensembles_of_other_seeds_share_no_member(monkeypatch, params):
    asked = []

    def refitted(study, model, variants):
        asked.extend(variants)
        raise BadInput("enough")

    monkeypatch.setattr(faithfulness, "refitted", refitted)
    monkeypatch.setattr(faithfulness, "fitted", lambda *_: SimpleNamespace(members=3))
    with pytest.raises(BadInput, match="enough"):
        faithfulness.score(SimpleNamespace(), "any", choice=params.explain, confidence=0.95)
    own = [range(one.seed, one.seed + 3) for one in asked if not one.shuffled] + [range(3)]
    assert len({seed for each in own for seed in each}) == 3 * len(own)


def test_a_network_that_did_not_learn_the_marker_is_not_scored(monkeypatch, make_patients, params, choice):
    patients = make_patients(6, voxels=32)
    constant = Weighing(np.zeros((1, 32, 32, 32)))
    constant.objective = SimpleNamespace(risk=lambda output: output[:, 0], days=lambda output: 700 + 0 * output[:, 0])
    study = marker_study(patients, params)
    monkeypatch.setattr(planted, "learnt", lambda *_: constant)
    monkeypatch.setattr(planted, "attribute", lambda model, seen, *_, **__: seen.images[:, 0].astype(np.float32))
    monkeypatch.setattr(planted.CropSet, "load", lambda _: SimpleNamespace(labels=LABELS))
    found = planted.score(study, "tiny", choice)
    assert found.attrs["marker_r2"] < planted.LEAST and found.drop(columns="method").isna().all().all()


def test_importance_in_the_planted_order_correlates_fully_and_chance_does_not(tmp_path, params):
    rng = np.random.default_rng(0)
    truth = pd.DataFrame(
        {f"term_{name}": rng.normal(size=200) for name in ("age", "breast", "melanoma_or_gi", "volume")}
    )
    truth.to_parquet(tmp_path / "truth.parquet")
    coefficients = {"age": 0.2, "breast": -0.5, "melanoma_or_gi": 0.3, "volume": 1.0}
    (tmp_path / "truth.json").write_text(json.dumps({"coefficients": coefficients}))
    study = SimpleNamespace(name="mets", params=params, paths=SimpleNamespace(truth=tmp_path / "truth.parquet"))
    strength = planted_strength(study)
    np.testing.assert_allclose(
        strength["primary"], (-0.5 * truth["term_breast"] + 0.3 * truth["term_melanoma_or_gi"]).std()
    )
    assert list(strength.sort_values().index) == ["age", "primary", "enhancing_ml"]
    columns = [*strength.index, "sex", "sphericity", "image"]
    right = pd.DataFrame({"feature": columns, "importance": [*strength, 0.0, 0.0, 9.0]})
    wrong = right.assign(importance=-right["importance"])
    found = importance_against_planted(study, {"right": right, "wrong": wrong}, repeats=200)
    assert found["columns"].tolist() == [5, 5]
    np.testing.assert_allclose(found["spearman"], [1, -1])
    assert found["p"][0] < 0.1 < 0.9 < found["p"][1] and found["kendall"].round(6).tolist() == [1, -1]
    same, one = right.assign(importance=2.0), right.iloc[[0]]
    unknown, two = right.assign(importance=[np.nan, *right["importance"][1:]]), right.iloc[:2]
    found = importance_against_planted(study, {"same": same, "one": one, "unknown": unknown, "two": two}, repeats=9)
    assert found.drop(columns=["method", "columns"]).isna().all().all() and found["columns"].tolist() == [5, 1, 5, 2]
    assert importance_against_planted(replace_paths(study, tmp_path / "none.parquet"), {"right": right}) is None


def replace_paths(study, truth):
    return SimpleNamespace(**{**vars(study), "paths": SimpleNamespace(truth=truth)})


def test_the_table_reads_as_a_page_and_as_json(table):
    page, tree = faithfulness.text(table), json.loads(json.dumps(faithfulness.as_json(table)))
    assert list(page["Method"])[1:] == [
        "Edges (control)",
        "Centre (control)",
        "Noise (control)",
        "Tumour mask (control)",
    ]
    assert tree["ideal"]["verdict"] == TRUSTED and set(tree) == {"ideal", *CONTROLS}
    assert tree["edges"]["weights"]["estimate"] == pytest.approx(1)
    assert all(
        set(tree[method][name]) == {"estimate", "low", "high"} for method in tree for name in faithfulness.SCORES
    )


def test_the_figure_has_a_panel_a_rule_and_a_row_a_method(table):
    words = {name: said for name, (said, _) in faithfulness.SCORES.items()}
    drawn = figure_of(table, RULES, words)
    assert len(drawn.axes) == len(RULES)
    names = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert [name.lower() for name in names] == list(table["method"])
