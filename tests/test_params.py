"""Choices: merged as told, read as DVC reads them, refused by name, never written; files whole or not at all."""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.utils.serialize import load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack import params
from survpack.errors import BadInput
from survpack.params_file import read
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
curves: {last_day: 7300, days: 180}
scores:
  {bootstrap: 500, confidence: 0.95, seed: 17, horizon_days: {other: 365}, horizons_days: {other: [365]},
   inflation: {at_chance: 1.35, none_from: 0.7, repeats: 1.1}, small_cell: {patients: 10, events: 5}, coverage: 0.9, test_reading: once, shown: [age], compare: [[age, volume]]}
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


AUTO = {"crops.spacing_mm": 2.0, "biomarkers.spacing_mm": 2.0, "scores.horizon_days": 365.0, "scores.horizons_days": [365.0],
        "longitudinal.landmarks_days": [90.0], "crops.ct_window_hu": [-100.0, 200.0]}  # fmt: skip


@pytest.mark.parametrize("place", AUTO)
def test_auto_or_a_value_may_stand_for_each_cohort_and_both_are_written_as_they_were(file, place):
    section, key = place.split(".")
    chosen = params.load(changed(file, **{section: {key: {"mine": AUTO[place], "other": "auto"}}}))
    told = getattr(getattr(chosen, section), key)
    assert told["other"] == "auto" and list(np.atleast_1d(told["mine"])) == list(np.atleast_1d(AUTO[place]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert params.Params.model_validate(json.loads(chosen.model_dump_json())) == chosen


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
    assert params.per_cohort((-160.0, 240.0), "mine") == (-160, 240)  # of every cohort
    assert params.per_cohort({"mine": "auto"}, "mine", lambda: 7) == 7
    with pytest.raises(BadInput, match="cohort 'mine'.*`auto`.*run 01-cohort --cohort mine"):
        params.per_cohort({"mets": 2.0, "other": "auto"}, "mine")
    with pytest.raises(BadInput, match="mine.*other"):
        params.per_cohort({"mets": 2.0}, "mine")


# --- choosing for one run


wishes = st.tuples(
    st.none()
    | st.lists(st.sampled_from(["mets", "sts", "kits", "no", "010", "1e3"]), min_size=1, max_size=3, unique=True),
    st.none() | st.sampled_from(["default", "smoke"]),
)


@settings(deadline=None, max_examples=30)
@given(wishes, st.sampled_from(["\n", "\r\n"]))
def test_what_one_run_is_asked_for_is_in_its_copy_and_the_file_is_left_alone(tmp_path_factory, wish, line_end):
    (cohorts, profile), folder = wish, tmp_path_factory.mktemp("choices")
    file, copy = folder / "params.yaml", folder / "tmp" / "copy.yaml"
    file.write_bytes(TEXT.replace("\n", line_end).encode())
    before = file.read_bytes()
    chosen = params.for_one_run(copy, cohorts=cohorts, profile=profile, path=file)
    assert chosen == params.load(copy) == from_text(cohorts or ["mets"], profile or "default", folder)
    assert file.read_bytes() == before
    assert {**load_yaml(copy), "cohorts": 0, "profile": 0} == {**load_yaml(file), "cohorts": 0, "profile": 0}


def from_text(cohorts: list[str], profile: str, folder: Path) -> params.Params:
    """What the file would say had its owner written it so, names that look like numbers in quotes."""
    owned = TEXT.replace("cohorts: [mets] ", f"cohorts: {cohorts!r} ").replace(
        "profile: default ", f"profile: {profile} "
    )
    (folder / "owned.yaml").write_text(owned, encoding="utf-8")
    return params.load(folder / "owned.yaml")


def test_a_choice_that_is_refused_is_not_written(file):
    before = file.read_bytes()
    with pytest.raises(BadInput, match="fast"):
        params.for_one_run(file.parent / "copy.yaml", cohorts=["sts"], profile="fast", path=file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["params.yaml"]


def test_a_profile_that_is_asked_for_goes_before_that_of_the_file(file):
    assert params.load(file, profile="smoke").splits.folds == 2 and params.load(file).splits.folds == 5


# --- one parser with DVC


SCALARS = [
    "7", "010", "0777", "08", "-010", "0o10", "0o9", "0x1F", "0b11", "1_000", "12:30", "1:2:3", "1:30:00.5", "99:99", "no", "No", "NO",
    "yes", "on", "off", "y", "n", "true", "True", "tRue", "1e3", "1E3", "1.e3", "1e-3", "+012e03", "1e400", ".5", "5.", "+1", "-0",
    "~", "null", "Null", "", "2020-01-01", "2020-01-01 10:00:00", "'7'", '"010"', "1,000", "1 000", "0.1.2", "1.0.0",
    "!!int 7", "!!str 7", "!!float 7", "|\n  text", "&a 5", "[1, 010]", "{a: no}", "٣", "0x", "1e", "é", "-.inf",
]  # fmt: skip


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_reads_as_dvc_reads_it(tmp_path, scalar):
    file = tmp_path / "params.yaml"
    file.write_text(f"key: {scalar}\n", encoding="utf-8")
    ours, dvcs = read(file), load_yaml(file)
    assert repr(ours) == repr(dvcs)  # 1, 1.0 and true are equal, and not the same


@pytest.mark.parametrize(
    "written, meant",
    [("010", 10), ("0o10", 8), ("0x1F", 31), ("1_000", 1000), ("+7", 7), ("12:30", None), ("no", None), ("yes", None),
     ("1e3", None), ("5.0", None), ("'7'", None), ("true", None), ("~", None), ("2020-01-01", None), (".nan", None),
     ("-1", None), ("99999999999", None)],
)  # fmt: skip
def test_a_seed_is_the_number_that_dvc_writes_down_or_it_is_refused(file, written, meant):
    file.write_text(TEXT.replace("test_fraction: 0.2, seed: 7", f"test_fraction: 0.2, seed: {written}"))
    if meant is None:
        with pytest.raises(BadInput, match="`splits.seed` is .*expected .*; correct it there"):
            params.load(file)
    else:
        assert params.load(file).splits.seed == meant == load_yaml(file)["splits"]["seed"]


@pytest.mark.parametrize(
    "written, meant",
    [("1e-3", 0.001), (".5", 0.5), ("1", 1.0), ("5.", 5.0), ("1_0.5", 10.5), ("'0.1'", None), ("0,1", None), ("10%", None),
     (".inf", None), (".nan", None), ("1e400", None), ("true", None)],
)  # fmt: skip
def test_a_number_with_a_point_is_what_dvc_writes_down_or_it_is_refused(file, written, meant):
    file.write_text(TEXT.replace("learning_rate: 0.001", f"learning_rate: {written}", 1))
    if meant is None:
        with pytest.raises(
            BadInput, match="`training.(learning_rate`|1` is no choice of this study .a number is written with a point)"
        ):
            params.load(file)
    else:
        assert params.load(file).training.learning_rate == meant == load_yaml(file)["training"]["learning_rate"]


# --- a file that cannot be read, and the sentence about a mistake


def nested(depth: int) -> bytes:
    return TEXT.encode() + b"deep: " + b"[" * depth + b"]" * depth


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]\n" for before, one in zip("abcdefgh", "bcdefghi", strict=True)
)
BROKEN = {
    "not UTF-8": ("models: [âge]".encode("latin-1"), ["line 1", "UTF-8"]),
    "not UTF-8 further down": (TEXT.encode() + "# Größe".encode("latin-1"), ["UTF-8"]),
    "UTF-16": (TEXT.encode("utf-16"), ["UTF-8"]),
    "empty": (b"", ["no choices"]),
    "spaces": (b" \n \n", ["no choices"]),
    "a list": (b"- mets\n", ["no choices"]),
    "a word": (b"mets\n", ["no choices"]),
    "nested 5,000 deep": (nested(5000), ["nested too deeply"]),
    "nested 500 deep": (nested(500), []),
    "a tab": (TEXT.replace("splits: {folds: 5,", "splits:\n\tfolds: 5\nx: {").encode(), ["line", "\\t"]),
    "a key twice": (TEXT.encode() + b"gate: {permutations: 5}\n", ["line", '"gate"', "once"]),
    "a key twice in a section": (
        TEXT.replace("folds: 5,", "folds: 5, folds: 4,").encode(),
        ["line", '"folds"', "once"],
    ),
    "a tag of Python": (TEXT.encode() + b"x: !!python/object/apply:os.system ['true']\n", ["line", "os.system"]),
    "an unknown tag": (TEXT.encode() + b"x: !mine 3\n", ["line", "!mine"]),
    "aliases that say millions": (TEXT.encode() + BOMB.encode(), ["more than 20,000 values"]),
    "an alias of itself": (TEXT.encode() + b"x: &x [*x]\n", ["more than 20,000 values"]),
    "two documents": (TEXT.encode() + b"---\na: 1\n", ["line", "another document"]),
    "a bracket left open": (b"cohorts: [mets\nprofile: default\n", ["line 2"]),
    "a NUL": (TEXT.encode() + b"x: \x00\n", ["character"]),
    "a date that is none": (TEXT.encode() + b"x: 2020-13-45\n", ["month"]),
    "a number of 5,000 digits": (TEXT.encode() + b"x: " + b"9" * 5000 + b"\n", []),
    "a key that is a list": (TEXT.encode() + b"? [a, b]\n: 1\n", []),
    "a key that is a number": (TEXT.encode() + b"12: 1\n", []),
    "conflict of two versions": (TEXT.encode() + b"<<<<<<< HEAD\ngate: 1\n=======\n", ["line"]),
}


@pytest.mark.parametrize("content, named", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_one_sentence_that_says_where(file, content, named):
    file.write_bytes(content)
    said = refusal(file)
    assert all(word in said for word in named), said


def test_a_file_that_is_absent_or_a_folder_is_one_sentence(tmp_path):
    assert "No such file" in refusal(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").mkdir()
    assert "Is a directory" in refusal(tmp_path / "params.yaml")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_done_to_the_file_it_is_read_or_refused_in_one_sentence(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "params.yaml"
    lines = TEXT.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    junk = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
        [*SCALARS, "x:", "- x", "{", "]", "*a", "&a", "!x", "%y"]
    )
    cut = data.draw(st.integers(0, len(lines[at])))
    lines[at] = lines[at][:cut] + data.draw(junk) + lines[at][cut + data.draw(st.integers(0, 5)) :]
    file.write_bytes("\n".join(lines).encode())
    try:
        params.load(file)
    except BadInput as error:
        assert str(file) in str(error) and str(error).endswith(".")


def refusal(file: Path) -> str:
    with pytest.raises(BadInput) as error:
        params.load(file)
    said = str(error.value)
    assert str(file) in said and "\n" not in said and len(said) < 700
    return said


MISTAKES = {  # what is written in place of what, and what the sentence says of it
    ("folds: 5", "fold: 5"): "`splits.fold` is no choice of this study; `splits.folds` may be meant",
    ("splits: {", "split: {"): "`split` is no choice of this study; `splits` may be meant",
    ("explain: {", "Explain: {"): "`explain` may be meant",
    ("suppress_below: 0", "suppress_below: 0, folds: 3"): "`tables.folds` is no choice of this study; take it out, or choose from suppress_below",
    ("batch_size: 16, ", ""): "`training.batch_size` is missing; add it",
    ("gate: {permutations: 5, level: 0.99, seed: 53}\n", ""): "`gate` is missing; add it",
    ("profile: default", "profil: default"): "profile 'none' is not one of default, smoke",
    ("profile: default", "profile: fast"): "profile 'fast' is not one of default, smoke",
    ("folds: 5", "folds: 5.5"): "`splits.folds` is 5.5, expected a whole number",
    ("folds: 5", "folds: five"): '`splits.folds` is "five", expected a whole number',
    ("folds: 5", "folds: [5]"): "`splits.folds` is [5], expected a whole number",
    ("folds: 5", "folds: 1"): "`splits.folds` is 1, expected 2 or more",
    ("folds: 5", "folds: true"): "`splits.folds` is true, expected a whole number",
    ("folds: 5", "folds: ~"): "`splits.folds` is empty, expected a whole number",
    ("test_fraction: 0.2", "test_fraction: 20"): "`splits.test_fraction` is 20, expected less than 0.5",
    ("test_fraction: 0.2", "test_fraction: 0"): "`splits.test_fraction` is 0, expected more than 0",
    ("seed: 41}", "seed: forty-one}"): '`transfer.seed` is "forty-one", expected a whole number',
    ("learning_rate: 0.001", "learning_rate: 0,001"): "`training.1` is no choice of this study",
    ("horizon_days: {other: 365}", "horizon_days: {other: 365, 2: 3}"): "`scores.horizon_days",
    ("last_day: 7300", "last_day: 0"): "`curves.last_day` is 0, expected more than 0",
    ("last_day: 7300, days: 180", "last_day: 7300, days: 2"): "`curves.days` is 2, expected 10 or more",
    ("orientation: LPS", "orientation: lps"): "`preprocess.orientation` is \"lps\", expected 'LPS' or 'RAS'",
    ("regions: [tumour]", "regions: [tumour, Oedema]"): '`biomarkers.regions[2]` is "Oedema", expected \'tumour\'',
    ("bins: {mr:", "bins: {MR:"): "`biomarkers.bins.MR` is not known, expected 'mr', 'ct' or 'pt'",
    ("{number: 32}", "{number: 32, width: 5}"): "expected either `number` or `width`",
    ("cohorts: [mets]", "cohorts: mets"): '`cohorts` is "mets", expected a list',
    ("cohorts: [mets]", "cohorts: [101]"): "`cohorts[1]` is 101, expected a name, in quotes",
    ("cohorts: [mets]", "cohorts: [my scans]"): '`cohorts[1]` is "my scans", expected a name of letters',
    ("cohorts: [mets]", "cohorts: [mets, mets]"): "expected each name once (`mets` is there twice)",
    ("models: [age, volume]", "models:"): "`models` is empty, expected a list",
    ("ct_window_hu: [-160, 240]", "ct_window_hu: [240, -160]"): "`crops.ct_window_hu` is [240, -160], expected the lower end",
    ("ct_window_hu: [-160, 240]", "ct_window_hu: [240]"): "`crops.ct_window_hu[2]` is [240], expected an entry more",
    ("ct_window_hu: [-160, 240]", "ct_window_hu: 240"): "`crops.ct_window_hu` is 240, expected two values in brackets",
    ("ct_window_hu: [-160, 240]", "ct_window_hu: {mets: [240, -160]}"): "`crops.ct_window_hu.mets` is [240, -160], expected the lower end",
    ("ct_window_hu: [-160, 240]", "ct_window_hu: {mets: wide}"): '`crops.ct_window_hu.mets` is "wide", expected two values in brackets',
    ("ct_window_hu: [-160, 240]", "ct_window_hu: {2: auto}"): "`crops.ct_window_hu",
    ("crops: {size: 32, spacing_mm: {other: 2.0}", "crops: {size: 32, spacing_mm: {other: Auto}"): '`crops.spacing_mm.other` is "Auto", expected a number',
    ("landmarks_days: {other: [180]}", "landmarks_days: {other: [auto]}"): '`longitudinal.landmarks_days.other[1]` is "auto", expected a number',
    ("landmarks_days: {other: [180]}", "landmarks_days: {other: 180}"): "`longitudinal.landmarks_days.other` is 180, expected a list",
    ("crops: {size: 32, spacing_mm: {other: 2.0}", "crops: {size: auto, spacing_mm: {other: 2.0}"): '`crops.size` is "auto", expected a whole number',
    ("compare: [[age, volume]]", "compare: [age, volume]"): '`scores.compare[1]` is "age", expected two values in brackets',
    ("size: 32", "size: 48"): "`crops.size` is 48, expected a multiple of 32",
    ("harmonise: true", "harmonise: ja"): '`selection.harmonise` is "ja", expected true or false',
    ("harmonise: true", "harmonise: yes"): '`selection.harmonise` is "yes", expected true or false',
    ("mr: {normalise: zscore, n4: false}", "mr: zscore"): '`preprocess.mr` is "zscore", expected a section',
    ("cohort: {mets: {patients: 148, sites: 3}}", "cohort: {mets: 148}"): "`cohort.mets` is 148, expected a section",
    ("sites: 3}", "selection: [time_days > 0]}"): "expected steps with a rule each under `selection`",
}  # fmt: skip


@pytest.mark.parametrize(
    "written, said", [(pair, said) for pair, said in MISTAKES.items()], ids=lambda one: str(one)[-40:]
)
def test_the_sentence_about_a_mistake_says_where_what_and_what_instead(file, written, said):
    old, new = written
    assert TEXT.count(old)
    file.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    told = refusal(file)
    assert said in told, told
    assert len(told) < len(str(file)) + 300  # no section is printed for the sake of one key


def test_a_mistake_in_a_profile_is_looked_for_there(file):
    file.write_text(
        TEXT.replace("profile: default ", "profile: smoke ").replace("splits: {folds: 2}", "splits: {folds: 1}")
    )
    assert "`splits.folds` of profile `smoke` is 1" in refusal(file)


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


def test_the_choices_of_one_run_keep_their_order_which_the_page_tells(tmp_path):
    def order(section):
        return [(key, order(value)) for key, value in section.items()] if isinstance(section, dict) else None

    params.for_one_run(tmp_path / "copy.yaml", cohorts=["mets"], profile="smoke")
    ours, one_run = (read(path) for path in (PARAMS, tmp_path / "copy.yaml"))
    assert order({key: value for key, value in ours.items() if key not in ("cohorts", "profile")}) == order(
        {key: value for key, value in one_run.items() if key not in ("cohorts", "profile")}
    )


@pytest.mark.parametrize(
    ("section", "key", "value", "most"),
    [
        ("scores", "bootstrap", 10**23, "1000000"),
        ("crops", "size", 320_000_000, "512"),
        ("classical", "trees", 10**9, "1000000"),
    ],
)
def test_a_number_that_no_machine_can_do_is_refused_by_name(tmp_path, section, key, value, most):
    raw = read(PARAMS)
    raw[section][key] = value
    with pytest.raises(BadInput, match=rf"`{section}\.{key}`.*expected .*or less") as told:
        params.load(_written(tmp_path, raw))
    assert most in f"{told.value}".replace(",", "").replace("1e+06", "1000000")


def test_a_voxel_has_a_side_that_a_scanner_could_have(tmp_path):
    raw = read(PARAMS)
    raw["crops"]["spacing_mm"]["mets"] = 1e-300
    with pytest.raises(BadInput, match=r"crops\.spacing_mm.*0\.05 or more"):
        params.load(_written(tmp_path, raw))


@pytest.mark.parametrize("key", [2024, 7])
def test_a_key_that_is_no_word_is_told_as_it_is_written(tmp_path, key):
    raw = read(PARAMS)
    raw["scores"]["horizon_days"][key] = 100
    with pytest.raises(BadInput) as told:
        params.load(_written(tmp_path, raw))
    assert f"horizon_days.{key}`" in str(told.value)


def _written(folder, raw):
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    return folder / "params.yaml"
