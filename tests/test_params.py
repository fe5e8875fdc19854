"""Choices: merged as told, refused by name, and a run's own choice leaves no trace; files whole or not at all."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack import params
from survpack.errors import BadInput
from survpack.paths import PARAMS, written_whole

TEXT = """\
# profile: smoke and cohorts: [sts] are only talked about here
cohorts: [mets]      # mets · sts · kits
profile: default     # default · smoke
models: [age, volume]
cohort: {mets: {patients: 148, sites: 3}}
splits: {folds: 5, test_fraction: 0.2, seed: 7}
tables: {suppress_below: 0}
preprocess:
  orientation: LPS
  resample: {image: spline, mask: nearest}
  mr: {normalise: zscore, n4: false}
  ct: {range_hu: [-1000, 400]}
  pt: {range_suv: [0, 100]}
biomarkers:
  spacing_mm: {mets: 2.0, other: 1.0}
  bins: {mr: {number: 32}, ct: {width: 25}, pt: {width: 0.5}}
  regions: [tumour]
  families: [glcm]
  filters: []
  lesions: pooled
  seed: 1
robustness: {patients: 40, perturbations: [shrink], seed: 29}
selection: {measured: 0.8, icc: 0.75, correlation: 0.9, harmonise: true}
crops: {size: 32, spacing_mm: {other: 2.0}, ct_window_hu: [-160, 240], suv_max: 20}
training:
  {epochs: {other: 12}, batch_size: 16, learning_rate: 0.001, weight_decay: 0.01, dropout: 0.2, members: 1,
   inner_fraction: 0, patience: 6, precision: auto, mirror: {other: false}, published: {}, seed: 11,
   augment: {rotate_deg: 10, scale: 0.1, shift: 0, intensity: 0.1, noise: 0.05, cutout: 0, modality_dropout: 0.2}}
classical: {lesion: [tumour_ml], ridge: 1.0, l1_ratio: 0.5, inner_folds: 3, trees: 300, min_leaf: 6, budget: 8, seed: 13}
longitudinal: {landmarks_days: {other: [180]}, epochs: 30, width: 16, ridge: 10, seed: 37}
transfer: {sources: {mets: [chest], other: []}, sizes: [25], epochs: 16, pretrain_epochs: 6, seed: 41}
scores:
  {bootstrap: 500, confidence: 0.95, seed: 17, horizon_days: {other: 365}, horizons_days: {other: [365]},
   small_cell: {patients: 10, events: 5}, coverage: 0.9, test_reading: once, shown: [age], compare: [[age, volume]]}
gate: {permutations: 5, level: 0.99, seed: 53}
designs:
  {models: [age], repeats: 2, network_repeats: 1, folds: 5, seeds: 2, harmonised: age, date: baseline_date, seed: 43}
audit:
  {slices: 8, folds: 3, epochs: 20, batch_size: 32, learning_rate: 0.003, augmentations: 2, claim: 0.97, seed: 47}
explain: {model: age, beside: [], shap_model: age, repeats: 30, patients: 4, scored: 30, steps: 16, window: 8, seeds: 2, seed: 19}
prognosis: {model: age, horizons_days: [365], drawn: 20, seed: 1}
profiles:
  default:
  smoke:
    splits: {folds: 2}
    cohort: {mets: {patients: 60}}
    models: [age]
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def changed(file: Path, **sections) -> Path:
    """The file with some of its keys replaced; a value of None removes the key."""
    raw = yaml.safe_load(TEXT)
    for section, values in sections.items():
        if isinstance(values, dict):
            raw.setdefault(section, {})
            raw[section] = {key: value for key, value in {**raw[section], **values}.items() if value is not None}
        else:
            raw[section] = values
    file.write_text(yaml.safe_dump(raw))
    return file


# --- reading


def test_a_profile_changes_what_it_names_and_nothing_else(file):
    default = params.load(file)
    file.write_text(TEXT.replace("profile: default ", "profile: smoke "), encoding="utf-8")
    smoke = params.load(file)
    assert smoke.splits.folds == 2 and smoke.cohort["mets"] == {"patients": 60, "sites": 3} and smoke.models == ["age"]
    back = {"profile": "default", "models": default.models, "cohort": default.cohort, "splits": default.splits}
    assert smoke.model_copy(update=back) == default


trees = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=3),
    lambda children: st.dictionaries(st.sampled_from("abc"), children, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
def test_merging_takes_every_changed_leaf_keeps_all_others_and_touches_neither(base, changes):
    before = copy.deepcopy((base, changes))
    merged = params._merge(base, changes)
    assert (base, changes) == before
    assert params._merge(merged, changes) == merged
    for path, value in leaves(changes):
        assert at(merged, path) == value
    for path, value in leaves(base):
        if not any(path[: len(other)] == other or other[: len(path)] == path for other, _ in leaves(changes)):
            assert at(merged, path) == value


def leaves(tree, path=()):
    if isinstance(tree, dict) and tree:
        return [leaf for key, below in tree.items() for leaf in leaves(below, (*path, key))]
    return [(path, tree)] if path else []


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


@pytest.mark.parametrize("profile", ["default", "smoke", "full"])
def test_every_profile_of_the_repository_is_valid(tmp_path, profile):
    raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw | {"profile": profile}))
    chosen = params.load(tmp_path / "params.yaml")
    assert chosen.profile == profile
    named = {chosen.explain.model, *chosen.explain.beside, chosen.explain.shap_model, chosen.prognosis.model}
    assert named | {*chosen.scores.shown} <= set(chosen.models)
    assert {model for pair in chosen.scores.compare for model in pair} <= set(chosen.models)


@pytest.mark.parametrize(
    "sections, key",
    [
        ({"training": {"epoch": 3}}, "training.epoch"),
        ({"classifier": {"depth": 3}}, "classifier"),
        ({"splits": {"folds": 1}}, "splits.folds"),
        ({"splits": {"test_fraction": 0.5}}, "splits.test_fraction"),
        ({"crops": {"size": 48}}, "crops.size"),
        ({"crops": {"ct_window_hu": [240, -160]}}, "crops.ct_window_hu"),
        ({"preprocess": {"ct": {"range_hu": [400, 400]}}}, "preprocess.ct.range_hu"),
        ({"biomarkers": {"bins": {"mr": {"number": 32, "width": 1.0}}}}, "biomarkers.bins.mr"),
        ({"crops": {"spacing_mm": {"other": -1}}}, "crops.spacing_mm.other"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate"),
        ({"scores": {"confidence": 95}}, "scores.confidence"),
        ({"scores": {"horizon_days": {"other": 0}}}, "scores.horizon_days.other"),
        ({"training": {"epochs": None}}, "training.epochs"),
        ({"models": []}, "models"),
        ({"cohorts": []}, "cohorts"),
        ({"profiles": {"default": {"explain": {"repeats": 0}}}}, "explain.repeats"),
    ],
)
def test_an_unknown_missing_or_impossible_choice_is_refused_and_named(file, sections, key):
    with pytest.raises(BadInput) as error:
        params.load(changed(file, **sections))
    assert f"`{key}`" in str(error.value) and str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_profile_is_refused_with_those_there_are(file):
    with pytest.raises(BadInput, match="'fast' is not one of default, smoke"):
        params.load(changed(file, profile="fast"))


@pytest.mark.parametrize("text", ["", "cohorts: [mets\nprofile: default\n", "- mets\n"])
def test_a_file_that_is_no_choices_is_one_sentence(file, text):
    file.write_text(text)
    with pytest.raises(BadInput) as error:
        params.load(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_cohort_without_a_number_of_its_own_takes_that_of_other():
    assert params.per_cohort({"mets": 2.0, "other": 1.0}, "mets") == 2.0
    assert params.per_cohort({"mets": 2.0, "other": 1.0}, "mine") == 1.0
    assert params.per_cohort({"mine": 3.0}, "mine") == 3.0
    with pytest.raises(BadInput, match="mine.*other"):
        params.per_cohort({"mets": 2.0}, "mine")


# --- choosing for one run


cohort_lists = st.lists(st.sampled_from(["mets", "sts", "kits"]), min_size=1, max_size=3, unique=True)
wishes = st.tuples(st.none() | cohort_lists, st.none() | st.sampled_from(["default", "smoke"]))


@settings(deadline=None, max_examples=60)
@given(st.lists(wishes, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_after_any_choices_the_file_is_again_what_it_was_to_the_byte(tmp_path_factory, sequence, line_end):
    file = tmp_path_factory.mktemp("choices") / "params.yaml"
    original = TEXT.replace("\n", line_end).encode()
    file.write_bytes(original)
    for cohorts, profile in sequence:
        params.choose(file, cohorts=cohorts, profile=profile)
        chosen = params.load(file)
        assert chosen.cohorts == (cohorts or ["mets"]) and chosen.profile == (profile or "default")
        rest = [line for line in file.read_bytes().splitlines() if not line.startswith((b"cohorts:", b"profile:"))]
        assert rest == [line for line in original.splitlines() if not line.startswith((b"cohorts:", b"profile:"))]
    params.choose(file, cohorts=None, profile=None)
    assert file.read_bytes() == original


def test_the_repositorys_own_file_comes_back_to_the_byte(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_bytes(PARAMS.read_bytes())
    params.choose(file, cohorts=None, profile=None)
    own = file.read_bytes()
    params.choose(file, cohorts=["kits", "sts"], profile="full")
    assert params.load(file).cohorts == ["kits", "sts"]
    params.choose(file, cohorts=None, profile=None)
    assert file.read_bytes() == own


def test_a_choice_that_is_refused_is_not_written(file):
    before = file.read_bytes()
    with pytest.raises(BadInput, match="fast"):
        params.choose(file, cohorts=["sts"], profile="fast")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["params.yaml"]


def test_a_list_written_over_several_lines_is_kept_and_cannot_be_chosen_over(file):
    file.write_text(TEXT.replace("cohorts: [mets] ", "cohorts:\n  - mets\n#"), encoding="utf-8")
    before = file.read_bytes()
    params.choose(file, cohorts=None, profile=None)
    assert file.read_bytes() == before and params.load(file).cohorts == ["mets"]
    with pytest.raises(BadInput, match="cohorts"):
        params.choose(file, cohorts=["sts"], profile=None)


# --- files, whole or not at all


class Interrupted(BaseException):
    """As a keyboard interrupt is: no Exception."""


@pytest.mark.parametrize("failure", [ValueError, Interrupted])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_neither_target_nor_part(tmp_path, failure, kind):
    with pytest.raises(failure), written_whole(tmp_path / "deep" / "target") as part:
        begun(part, kind)
        raise failure
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_there_survives_a_failure_and_gives_way_to_success(tmp_path, kind):
    target = tmp_path / "target"
    with written_whole(target) as part:
        begun(part, kind, "old")
    with pytest.raises(ValueError), written_whole(target) as part:
        begun(part, kind, "new")
        raise ValueError
    assert content(target) == "old"
    with written_whole(target) as part:
        begun(part, kind, "new")
        assert content(target) == "old"  # until the block has ended
    assert content(target) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    begun(tmp_path / "target.part", "folder", "stale")
    with written_whole(tmp_path / "target") as part:
        assert not part.exists()
        part.write_text("new")
    assert (tmp_path / "target").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def begun(part: Path, kind: str, text: str = "half") -> None:
    if kind == "folder":
        part.mkdir()
        (part / text).write_text(text)
    else:
        part.write_text(text)


def content(target: Path) -> str:
    return ",".join(path.name for path in target.iterdir()) if target.is_dir() else target.read_text()
