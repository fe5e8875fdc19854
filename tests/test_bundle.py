"""A bundle says what the study's network says, holds no patient, and is refused once anything in it is another."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack import paths, readings
from survpack import study as study_module
from survpack.deploy import bundle, rebuilt, reference
from survpack.deploy.columns import Columns
from survpack.errors import BadInput
from survpack.models import Deep, prepare_table
from survpack.prognosis import Prognosis

TIMES = np.array([0.5, 20, 100, 300, 301.5, 5000])
LEVELS = {"grade": ["I", "II", "III"], "sex": ["female", "male"], "primary": ["lung", "breast", "other"]}
DICTIONARY = {"age": {"kind": "numeric"}, "grade": {"kind": "ordered", "levels": LEVELS["grade"]}} | {
    name: {"kind": "categorical", "levels": LEVELS[name]} for name in ("sex", "primary")
}
NUMBER = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6, width=32))
POSITIVE = st.one_of(st.just(np.nan), st.floats(0, 1e6, width=32))
ROW = st.fixed_dictionaries(
    {"age": NUMBER, "tumour_ml": POSITIVE, "oedema_to_tumour": POSITIVE, "sphericity": NUMBER}
    | {name: st.sampled_from([*levels, None, np.nan, "unheard of"]) for name, levels in LEVELS.items()}
)
FRAMES = st.lists(ROW, min_size=1, max_size=12).map(
    lambda rows: pd.DataFrame(rows).astype(dict.fromkeys(LEVELS, object))
)


# --- imputation and scaling -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@settings(max_examples=30)
@given(train=FRAMES, new=FRAMES, order=st.randoms())
def test_columns_give_what_the_scikit_learn_pipeline_gives_on_any_frame(train, new, order):
    shared = sorted(train)
    order.shuffle(shared)
    train = train[shared]
    try:
        pipeline = prepare_table(train, DICTIONARY).fit(train)
    except ValueError:  # nothing varies among the training patients: the study refuses them
        return
    columns = Columns.from_json(json.loads(json.dumps(Columns.learned(pipeline).as_json(), allow_nan=False)))
    for frame in (train, new, new[sorted(new)]):
        np.testing.assert_allclose(columns.transform(frame), pipeline.transform(frame[shared]), rtol=1e-12, atol=1e-12)


def test_columns_name_what_stands_for_a_missing_value():
    train = pd.DataFrame({
        "age": [50.0, 60, np.nan, 90], "grade": ["I", "III", None, "II"], "primary": ["lung", None, "other", "other"],
        "tumour_ml": [1.0, 2, 4, np.nan],
    })  # fmt: skip
    columns = Columns.learned(prepare_table(train, DICTIONARY).fit(train))
    assert columns.fills == {"tumour_ml": 2.0, "age": 60.0, "grade": "II", "primary": "other"}
    empty = pd.DataFrame([dict.fromkeys(train)]).astype(object)
    filled = pd.DataFrame([columns.fills])
    np.testing.assert_array_equal(columns.transform(empty), columns.transform(filled))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": ["sixty"]}, "column age holds what is no number"),
        ({"age": [np.inf]}, "column age holds an infinite value"),
        ({"tumour_ml": None}, "no column tumour_ml"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_its_column(change, said):
    train = pd.DataFrame({"age": [50.0, 60], "tumour_ml": [1.0, 3]})
    columns = Columns.learned(prepare_table(train, {}).fit(train))
    frame = pd.DataFrame({"age": [1.0], "tumour_ml": [1.0]}).drop(columns=[k for k, v in change.items() if v is None])
    with pytest.raises(BadInput, match=said):
        columns.transform(frame.assign(**{name: values for name, values in change.items() if values is not None}))


# --- networks from their numbers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(make_patients):
    return make_patients(30, voxels=8)


def _again(model: Deep, few, params) -> Deep:
    """Through JSON and weights, as a bundle goes; nothing of the patients but their schema."""
    schema = reference.schema(model, few, {1: "enhancing", 2: "oedema"})
    content = json.loads(json.dumps(rebuilt.numbers(model, few) | {"schema": schema}))
    state = {f"{k}.{name}": value for k, net in enumerate(model.nets) for name, value in net.state_dict().items()}
    return rebuilt.network(content, params, {name: value.clone() for name, value in state.items()})


@pytest.mark.parametrize(
    ("fusion", "objective", "members"),
    [("concat", each, 1) for each in ("mse", "mse-censored", "cox", "cox-rank", "hazard")]
    + [(each, "cox", 1) for each in ("chart", "image", "film", "gated", "cross", "additive")]
    + [("additive", "cox", 3), ("concat", "hazard", 2)],
)
def test_a_network_from_its_numbers_predicts_what_the_fitted_one_does(
    fusion, objective, members, few, params, tiny_encoder
):
    model = Deep(tiny_encoder, fusion, objective, params, members=members).fit(few)
    again = _again(model, few, params)
    for before, after in zip(model.predict(few, TIMES), again.predict(few, TIMES), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)
    assert (again.about, again.usual_risk) == (model.about, model.usual_risk)
    if fusion != "chart":
        np.testing.assert_array_equal(again.embed(few), model.embed(few))
    shown = model.frame(few).iloc[::-1]
    np.testing.assert_allclose(again.fuse(model.embed(few), shown), model.fuse(model.embed(few), shown), rtol=1e-6)


def test_a_network_without_masks_or_biomarkers_is_rebuilt_without_them(few, params, tiny_encoder):
    model = Deep(tiny_encoder, "concat", "cox", params, masks=False, measured=False).fit(few)
    again = _again(model, few, params)
    blank = replace(few, masks=np.zeros_like(few.masks), biomarkers=few.biomarkers[[]])
    np.testing.assert_array_equal(again.predict(blank, TIMES).risk, model.predict(few, TIMES).risk)


def test_typical_is_what_stands_for_a_missing_value_where_two_levels_are_as_common(few, params, tiny_encoder):
    halves = np.where(np.arange(len(few.outcome)) % 2, "lung", "breast")  # of which imputation takes the first by name
    tied = replace(few, clinical=few.clinical.assign(primary=pd.Series(halves, few.outcome.index, dtype=object)))
    model = Deep(tiny_encoder, "concat", "cox", params).fit(tied)
    chart = reference.schema(model, tied, {1: "enhancing", 2: "oedema"})["chart"]
    assert chart["primary"]["levels"][0] == "lung" and chart["primary"]["typical"] == "breast"
    assert {name: one["typical"] for name, one in chart.items()}.items() <= Columns.learned(model.prepare).fills.items()


def test_rebuilding_a_network_leaves_the_callers_random_numbers_alone(few, params, tiny_encoder):
    import torch

    model = Deep(tiny_encoder, "concat", "cox", params).fit(few)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _again(model, few, params)
    assert torch.equal(torch.rand(3), expected)


def test_the_mean_embedding_of_gated_fusion_is_over_the_patients_who_have_the_modality(few, params, tiny_encoder):
    gone = few.images.copy()
    gone[:10] = 0
    some = replace(few, images=gone, present=np.r_[np.zeros((10, 1), bool), np.ones((20, 1), bool)])
    model = Deep(tiny_encoder, "gated", "cox", params).fit(few)
    mean = np.array(reference.embedding(model, some))
    have = model.embed(some.take(some.outcome.index[10:]))
    np.testing.assert_allclose(mean[0], have.mean(axis=0), rtol=1e-5, atol=1e-7)
    assert mean[..., -1].tolist() == [[[1.0]]]


# --- a whole bundle ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """Where the trained study and its bundle are kept for the next test."""
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def study(study_of, patients, params, tiny_encoder, once, tmp_path, monkeypatch):
    """A small study whose network is trained; no scores of it, and no reading of its test set."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "METRICS", tmp_path / "metrics")
    scores = params.scores.model_copy(update={"bootstrap": 10})
    made = study_of(tmp_path / "derived", patients, scores=scores, models=["hybrid-tiny-cox"])
    if not (once / "models").exists():
        study_module.fit_all(made, "hybrid-tiny-cox")
        copytree(made.paths.derived, once, dirs_exist_ok=True)
    for part in ("models", "predictions"):
        copytree(once / part, made.paths.derived / part, dirs_exist_ok=True)
    return made


@pytest.fixture
def made(study, once, tmp_path) -> bundle.Bundle:
    if not (once / "bundle").exists():
        bundle.make(study, "hybrid-tiny-cox", once / "bundle")
    return bundle.load(copytree(once / "bundle", tmp_path / "bundle"))


def test_a_bundle_predicts_what_the_study_predicts_and_is_the_same_bytes_twice(made, study, tmp_path):
    fitted = study_module.fitted(study, "hybrid-tiny-cox")
    for before, after in zip(
        fitted.predict(study.patients, TIMES), made.model.predict(study.patients, TIMES), strict=True
    ):
        np.testing.assert_allclose(after, before, rtol=1e-6)
    said = Prognosis.load(study.paths.predictions("hybrid-tiny-cox")).of("test")
    held = study.patients.take(said.table["patient_id"])
    np.testing.assert_allclose(made.model.predict(held, said.times).survival, said.survival, rtol=1e-6)
    np.testing.assert_array_equal(made.times, study.followed_times)  # a card shows no curve where nobody was followed
    assert list(made.reference_frame) == list(fitted.frame(study.patients))
    assert made.reference_embedding.shape == (1, *fitted.embed(study.patients).shape[1:])
    again = bundle.make(study, "hybrid-tiny-cox", tmp_path / "again")
    for name in (bundle.FACTS, bundle.WEIGHTS):
        assert (made.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert sorted(path.name for path in made.folder.iterdir()) == sorted([bundle.FACTS, bundle.WEIGHTS])


def test_the_id_is_the_digest_of_all_else_and_names_the_weights(made):
    content = json.loads((made.folder / bundle.FACTS).read_text())
    named = content.pop("id")
    plain = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    assert named == "sha256:" + hashlib.sha256(plain.encode()).hexdigest() == made.id
    assert content["weights"] == "sha256:" + hashlib.sha256((made.folder / bundle.WEIGHTS).read_bytes()).hexdigest()
    assert bundle.load(made.folder, expect=named).about == content | {"id": named}


def test_a_byte_that_is_another_is_refused_in_either_file(made, tmp_path):
    copy, rng = copytree(made.folder, tmp_path / "copy"), np.random.default_rng(0)
    for name in (bundle.FACTS, bundle.WEIGHTS):
        whole = (copy / name).read_bytes()
        places = {*range(60), *range(len(whole) - 60, len(whole)), *rng.integers(0, len(whole), 200).tolist()}
        for place in sorted(places):
            other = bytearray(whole)
            other[place] ^= int(rng.integers(1, 256))
            (copy / name).write_bytes(bytes(other))
            with pytest.raises(BadInput):
                bundle.read(copy)
        for other in (whole[:-1], whole + b"\n", b""):
            (copy / name).write_bytes(other)
            with pytest.raises(BadInput):
                bundle.load(copy)
        (copy / name).write_bytes(whole)
    assert bundle.load(copy).id == made.id


def test_no_patient_is_in_a_bundle(made, study):
    text = (made.folder / bundle.FACTS).read_text()
    assert not [one for one in study.patients.outcome.index if one in text]
    train = study.patients.take(study.development)
    content = json.loads(text)
    for step in (step for steps in content["columns"]["steps"].values() for step in steps):
        step.pop("fill")  # the median of an odd number of patients is one's own value
    for name in ("measured_typical", "chart"):
        content["schema"].pop(name)
    content["reference"].pop("frame")
    content["probe"].pop("table")  # what the network sees of these medians
    held = np.unique(list(_numbers(content)))
    own = np.c_[
        made.model.embed(train).reshape(len(train.outcome), -1), made.model.frame(train)[["tumour_ml", "sphericity"]]
    ]
    own = np.c_[own, made.model._table(made.model.frame(train))[:, :3], train.images.reshape(len(own), -1)[:, ::997]]
    own = own[np.isfinite(own) & (np.abs(own - own.round(3)) > 1e-6)]  # round numbers are anyone's
    near = held[np.searchsorted(held, own).clip(0, len(held) - 1)], held[(np.searchsorted(held, own) - 1).clip(0)]
    assert len(own) > 1000 and min(np.abs(each / own - 1).min() for each in near) > 1e-7


def _numbers(tree):
    if isinstance(tree, (dict, list)):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _numbers(each)
    elif isinstance(tree, (int, float)) and not isinstance(tree, bool):
        yield float(tree)


def _rewritten(folder: Path, **changed) -> None:
    """As someone would who knows how the id is made."""
    content = json.loads((folder / bundle.FACTS).read_text()) | changed
    content["id"] = bundle.identity(content)
    (folder / bundle.FACTS).write_text(bundle.as_text(content))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda at: (at / "weights.safetensors").unlink(), "weights.safetensors: not there, expected a bundle's file"),
        (lambda at: (at / "bundle.json").unlink(), "bundle.json: not there"),
        (lambda at: (at / "bundle.json").write_text("{"), "no JSON object"),
        (lambda at: (at / "bundle.json").write_text("[" * 100_000), "no JSON object"),
        (lambda at: (at / "bundle.json").write_text("[1]"), "no JSON object"),
        (lambda at: (at / "bundle.json").write_text("{}"), "format None, expected 2"),
        (lambda at: (at / "bundle.json").write_text('{"format": 2}'), "changed since it was made"),
        (lambda at: (at / "bundle.json").open("r+b").truncate(100_000_001), "100 MB, expected 100 MB at most"),
        (lambda at: _rewritten(at, format=1), "format 1, expected 2"),
        (lambda at: _rewritten(at, weights="sha256:0"), "not the weights that bundle.json names"),
        (lambda at: _rewritten(at, params={}), "choices or weights are not readable"),
        (lambda at: _rewritten(at, times=None), "not the content of a bundle"),
        (lambda at: _rewritten(at, columns={"steps": {}, "kept": []}), "not the imputation and scaling"),
        (lambda at: _rewritten(at, objective={"name": "guess", "numbers": {}}), "no objective `guess`"),
        (lambda at: _network(at, encoder="unknown"), "no encoder `unknown`"),
        (lambda at: _network(at, fusion="unknown"), "no fusion `unknown`"),
        (lambda at: _network(at, modalities=10**9), "network.modalities is 1000000000"),
        (lambda at: _network(at, columns=3), "weights are not of the network"),
        (lambda at: _network(at, members=0), "weights are not of the network"),
        (
            lambda at: _rewritten(at, probe={"size": 10**6, "network": [], "table": []}),
            "a cube of 1000000 voxels a side",
        ),
        (lambda at: _probed(at, "network"), "its network says .* other than when it was made"),
        (lambda at: _probed(at, "table"), "its table says .* other than when it was made"),
    ],
)
def test_what_is_no_bundle_of_ours_is_refused_in_one_sentence(harm, said, made, tmp_path):
    copy = copytree(made.folder, tmp_path / "copy")
    harm(copy)
    with pytest.raises(BadInput, match=said) as refused:
        bundle.load(copy)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def _network(at: Path, **changed) -> None:
    _rewritten(at, network=json.loads((at / "bundle.json").read_text())["network"] | changed)


def _probed(at: Path, part: str) -> None:
    probe = json.loads((at / "bundle.json").read_text())["probe"]
    probe[part][0][0] += 0.01
    _rewritten(at, probe=probe)


def test_another_bundle_than_the_expected_one_and_no_folder_are_refused(made, tmp_path):
    with pytest.raises(BadInput, match="expected sha256:123"):
        bundle.load(made.folder, expect="sha256:123")
    for path in (tmp_path / "nowhere", made.folder / bundle.FACTS):
        with pytest.raises(BadInput, match="no folder, expected a bundle"):
            bundle.load(path)
    _rewritten(made.folder, model="another")  # a forger makes the id fit; whoever was told the id is not deceived
    assert bundle.load(made.folder).about["model"] == "another"
    with pytest.raises(BadInput, match="the bundle .* of another, expected"):
        bundle.load(made.folder, expect=made.id)


def test_only_a_network_that_was_trained_and_says_what_it_said_is_bundled(study, tmp_path):
    with pytest.raises(BadInput, match="`age` is no network"):
        bundle.make(study, "age", tmp_path / "none")
    with pytest.raises(BadInput, match="expected the weights of `hybrid-tiny-mse`"):
        bundle.make(study, "hybrid-tiny-mse", tmp_path / "none")
    kept = study.paths.predictions("hybrid-tiny-cox")
    other = Prognosis.load(kept)
    Prognosis(other.table.assign(risk=other.table["risk"][::-1].to_numpy()), other.times).save(kept)
    with pytest.raises(BadInput, match="say other risks than its predictions"):
        bundle.make(study, "hybrid-tiny-cox", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_bundle_needs_no_other_models_predictions(study, tmp_path):
    every = study.params.model_copy(update={"models": ["gpa", "hybrid-tiny-cox"]})  # of which one was deleted
    made = bundle.make(study_module.Study(study.name, every, study.paths), "hybrid-tiny-cox", tmp_path / "bundle")
    assert made.about["model"] == "hybrid-tiny-cox"


def test_a_bundle_carries_the_numbers_that_stage_01_found_and_finds_none_anew(study, tmp_path):
    from survpack import settings as found

    told = {
        "crops.spacing_mm": {"value": 2.5, "from": "here"},
        "crops.ct_window_hu": {"value": [-930, 370], "from": "here"},
    }
    found.save(told, study.paths.settings)
    crops = study.params.crops.model_copy(update={"spacing_mm": {"other": "auto"}, "ct_window_hu": {"other": "auto"}})
    asked = study_module.Study(study.name, study.params.model_copy(update={"crops": crops}), study.paths)
    bundle.make(asked, "hybrid-tiny-cox", tmp_path / "bundle")
    found.save({place: one | {"value": [9, 10]} for place, one in told.items()}, study.paths.settings)
    kept = bundle.load(tmp_path / "bundle").about["params"]["crops"]
    assert kept["spacing_mm"]["toy"] == 2.5 and kept["ct_window_hu"]["toy"] == [-930, 370]


def test_a_place_that_takes_no_bundle_is_refused_before_the_network_is_read(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "fitted", None)
    (tmp_path / "file").touch()
    for place, said in (("file", "is a file, not a folder"), ("file/in", "is a file"), ("x" * 300, "too long")):
        with pytest.raises(BadInput, match=said):
            bundle.make(study, "hybrid-tiny-cox", tmp_path / place)
    with pytest.raises(BadInput, match="no folder, expected a bundle"):
        bundle.load(tmp_path / ("x" * 300))


def test_scores_are_out_of_fold_and_of_the_test_set_only_once_it_was_read(made, study, tmp_path):
    prognosis, name = study.prognoses()["hybrid-tiny-cox"], "hybrid-tiny-cox"
    assert made.about["metrics"]["test"] is None
    own = made.about["metrics"]["cv"]
    paths.METRICS.mkdir()
    both = {"cv": {name: own}, "test": {name: {"harrell_c": {"estimate": 0.5, "low": 0.4, "high": 0.6}}}}
    study.paths.metrics.write_text(json.dumps(both))
    assert reference.scores(study, name, prognosis)["test"] is None
    readings.unlock(study.name, {name: prognosis}, study.cohort.outcome, "once")
    assert reference.scores(study, name, prognosis) == {split: models[name] for split, models in both.items()}
    stale = {"cv": {name: {"harrell_c": {"estimate": 0.99}}}, "test": both["test"]}
    study.paths.metrics.write_text(json.dumps(stale))
    assert reference.scores(study, name, prognosis) == {"cv": own, "test": None}


def test_a_verdict_on_its_maps_goes_with_the_bundle_and_silence_is_called_untested(made, study):
    assert made.about["explanation"]["verdict"] == "not tested"
    paths.METRICS.mkdir()
    found = {"methods": {"hybrid-tiny-cox": {"gradcam": {"verdict": "may not: fails random weights"}}, "other": {}}}
    study.paths.facts("faithfulness").write_text(json.dumps(found))
    told = reference.explanation(study, "hybrid-tiny-cox")
    assert told["verdict"] == "may not: fails random weights"
    assert told["said"] == "Such maps may not be trusted: fails random weights."
    assert reference.explanation(study, "other")["verdict"] == "not tested"


def test_the_schema_tells_kinds_ranges_and_what_is_missing_of_training_patients_alone(made, study):
    train = study.patients.take(study.development)
    schema, chart = made.about["schema"], train.clinical
    assert list(schema["chart"]) == list(chart) == ["age", "fitness", "sex", "primary"]
    age, primary = schema["chart"]["age"], schema["chart"]["primary"]
    assert age["unit"] == "years" and age["missing_share"] == chart["age"].isna().mean()
    found = [age[name] for name in ("low", "typical", "high")]
    np.testing.assert_allclose(found, chart["age"].quantile([0.01, 0.5, 0.99]))
    assert primary["typical"] == chart["primary"].mode()[0] and primary["levels"] == ["lung", "breast", "other"]
    assert schema["measured"] == ["tumour_ml", "oedema_to_tumour", "sphericity"]
    assert schema["measured_typical"]["sphericity"] == train.biomarkers["sphericity"].median()
    assert (schema["modalities"], schema["labels"]) == (["t1c"], {"1": "enhancing", "2": "oedema"})
    assert made.about["training"]["patients"] == len(train.outcome) < made.about["cohort"]["patients"]
    assert made.about["training"]["events"] == train.outcome["event"].sum()
    assert made.about["cohort"]["simulated"] is False
    fills = Columns.from_json(made.about["columns"]).fills
    assert {name: made.about["reference"]["frame"][name] for name in ("age", "sex", "tumour_ml")} == {
        name: fills[name] for name in ("age", "sex", "tumour_ml")
    }


def test_risk_groups_are_thirds_and_their_curves_are_those_of_lifelines():
    from lifelines import KaplanMeierFitter

    rng, n, times = np.random.default_rng(1), 90, np.array([50.0, 200, 400, 800])
    rate = rng.uniform(0.5, 3, n) / 500
    survival = np.exp(-rate[:, None] * times)
    death, censored = rng.exponential(1 / rate), rng.uniform(20, 1500, n)
    ids = [f"P{k:03d}" for k in range(n)]
    outcome = pd.DataFrame({"time_days": np.minimum(death, censored), "event": death <= censored}, index=ids)
    table = pd.DataFrame({"cohort": "toy", "model": "m", "seed": 0, "repeat": 0, "fold": 0, "split": "cv"}, range(n))
    table = table.assign(patient_id=ids, risk=rate, days=1 / rate, **{f"s_{k}": survival[:, k] for k in range(4)})
    found = reference.groups(Prognosis(table, times), outcome, 400.0, 0.95, 0.9)
    risk = 1 - survival[:, 2]
    np.testing.assert_allclose(found["groups"], np.quantile(risk, [1 / 3, 2 / 3]))
    order = np.argsort(risk)
    for k, name in enumerate(reference.GROUPS):
        curve, known = found["curves"][name], outcome.iloc[order[30 * k : 30 * (k + 1)]]
        fitted = KaplanMeierFitter(alpha=0.05).fit(known["time_days"], known["event"])
        np.testing.assert_allclose(curve["survival"], fitted.survival_function_at_times(curve["times"]), rtol=1e-9)
        band = fitted.confidence_interval_.reindex(curve["times"], method="ffill").to_numpy()
        np.testing.assert_allclose(np.c_[curve["low"], curve["high"]], band, atol=2e-3)
        assert curve["patients"] == 30 and "events" not in curve  # which may be one or two
    days = list(found["bounds"]["days"].values())
    assert np.isin(days, outcome["time_days"]).all() and days[0] > days[2] > 0 and "marginal" in found["bounds"]["said"]
    ranks = found["percentiles"]
    np.testing.assert_allclose(np.interp(np.median(risk), ranks["risk"], ranks["levels"]), 50)
