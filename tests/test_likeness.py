"""Who is unlike the training patients is declined, and who is like them hardly ever."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from survpack.deploy import likeness
from survpack.deploy.descriptors import descriptors
from survpack.deploy.likeness import CHART, IMAGE, NETWORK, Group, Likeness
from survpack.deploy.shifts import SHIFTS
from survpack.errors import BadInput
from survpack.models import Deep
from survpack.study import fitted


def brains(make_patients, count: int, seed: int):
    """Two sequences of a head: a bright lesion in the first, its surroundings in the second, smooth."""
    from scipy.ndimage import gaussian_filter

    made, rng = make_patients(count, seed, 16), np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(count, 2, 16, 16, 16)), (0, 0, 1, 1, 1))
    lesion, around = made.masks[:, 0].astype(float), made.masks[:, 1].astype(float)
    bright = rng.normal(3, 0.3, (count, 1, 1, 1))
    images = smooth + np.stack([bright * lesion + 0.5 * around, 2 * around - lesion], axis=1) + 1
    return replace(made, images=images.astype(np.float16), present=np.ones((count, 2), bool), modalities=["t1c", "t2f"])


@pytest.fixture(scope="module")
def train(make_patients):
    return brains(make_patients, 60, 0)


@pytest.fixture(scope="module")
def new(make_patients):
    return brains(make_patients, 40, 1)


@pytest.fixture(scope="module")
def once() -> dict:
    """What is fitted once, though the tiny encoder lives for a test."""
    return {}


@pytest.fixture
def model(tiny_encoder, params, train, once):
    if "model" not in once:
        once["model"] = Deep(tiny_encoder, "concat", "cox", params).fit(train)
    return once["model"]


@pytest.fixture
def known(model, train, once):
    if "known" not in once:
        once["known"] = Likeness.learn(model, train)
    return once["known"]


def test_of_new_patients_alike_hardly_one_is_refused_and_half_lie_below_the_median(model, known, new):
    said = known.judge(model, new)
    assert sum(one["refused"] for one in said) <= 3  # 40 / 61 expected
    assert 20 < np.median([one["percentile"] for one in said]) < 80
    assert len({one["group"] for one in said}) > 1


CAUGHT = ["sequences swapped", "CT for MR", "noise", "intensities inverted", "three times as bright",
          "mask moved off the lesion", "noise for an image"]  # fmt: skip


@pytest.mark.parametrize("shift", CAUGHT)
def test_a_planted_shift_of_the_image_is_refused_and_blamed_on_the_image(model, known, new, shift):
    said = known.judge(model, SHIFTS[shift](new))
    assert np.mean([one["refused"] for one in said]) > 0.9
    assert {one["group"] for one in said} <= {IMAGE, NETWORK}
    assert all("none of those 60 differed more than " in one["why"] for one in said if one["refused"])


def test_a_single_number_far_out_is_refused_and_named(model, known, new):
    said = known.judge(model, replace(new, clinical=new.clinical.assign(age=new.clinical["age"] + 300)))
    there = new.clinical["age"].notna().to_numpy()
    assert all(one["refused"] and one["group"] == CHART and "age (" in one["why"] for one in np.array(said)[there])


def test_every_shift_changes_something_and_leaves_what_it_was_given(train):
    images, masks = train.images.copy(), train.masks.copy()
    for name, spoil in SHIFTS.items():
        spoilt = spoil(train)
        same = [np.array_equal(one, other) for one, other in (
            (spoilt.images, images), (spoilt.masks, masks))]  # fmt: skip
        same += [spoilt.clinical.equals(train.clinical), spoilt.biomarkers.equals(train.biomarkers)]
        assert not all(same), name
    assert np.array_equal(train.images, images) and np.array_equal(train.masks, masks)


def test_noise_is_another_for_each_patient_and_sequence_and_needs_an_image(train):
    two = train.take(train.outcome.index[:2])
    blank = replace(two, images=np.zeros_like(two.images))
    made = SHIFTS["CT for MR"](blank).images.reshape(4, -1).astype(float)
    assert np.abs(np.corrcoef(made) - np.eye(4)).max() < 0.1
    added = (SHIFTS["noise"](two).images - two.images).reshape(4, -1).astype(float)
    assert np.abs(np.corrcoef(added) - np.eye(4)).max() < 0.1
    bare = replace(two, images=two.images[:, :0], present=two.present[:, :0], modalities=[])
    of_image = ["sequences swapped", "CT for MR", "noise", "blur", "intensities inverted", "three times as bright",
                "noise for an image"]  # fmt: skip
    assert [SHIFTS[name](bare) for name in of_image] == [None] * len(of_image)


def test_twice_as_large_is_eight_times_the_voxels(train):
    inner = np.zeros_like(train.masks)
    inner[:, :, 6:10, 6:10, 6:10] = 1
    large = SHIFTS["twice as large"](replace(train, masks=inner)).masks
    assert large.sum(dtype=float) == 8 * inner.sum(dtype=float)


def test_what_is_missing_is_not_compared(model, known, new):
    """A patient without a sequence that all training patients had is no stranger for that, nor is one without a chart."""
    images = new.images.copy()
    images[:, 1] = 0
    present = new.present.copy()
    present[:, 1] = False
    without = replace(
        new, images=images, present=present, clinical=new.clinical.assign(age=np.nan, sex=None, primary=None)
    )
    said = known.judge(model, without)
    assert sum(one["refused"] for one in said) <= 3
    assert all(one["group"] != NETWORK for one in said)


def test_where_nothing_can_be_compared_it_declines(model, known, new):
    bare = Likeness({CHART: known.groups[CHART]}, known.limit, known.quantiles, known.outputs, known.scanned, 60)
    nothing = replace(
        new, clinical=new.clinical.astype(object).mask(new.clinical.notna(), None).astype({"age": float}),
        biomarkers=new.biomarkers * np.nan,
    )  # fmt: skip
    (one,) = bare.judge(model, nothing.take(nothing.outcome.index[:1]))
    assert one["refused"] and one["score"] is None and "nothing of this patient" in one["why"]


def test_outcomes_are_not_looked_at(model, known, train, new):
    other = train.outcome.assign(time_days=1.0, event=False)
    assert Likeness.learn(model, replace(train, outcome=other)).as_json() == known.as_json()
    unknown = replace(new, outcome=new.outcome.assign(time_days=np.nan))
    assert known.judge(model, unknown) == known.judge(model, new)


def test_json_gives_the_same_judgement_and_holds_no_patients_row(model, known, train, new):
    text = json.dumps(known.as_json(), allow_nan=False)
    assert Likeness.from_json(json.loads(text)).judge(model, new) == known.judge(model, new)
    assert not any(patient in text for patient in train.outcome.index)
    assert len(text) < 100_000


@pytest.mark.parametrize("amiss", [{"limit": "far"}, {"groups": {"image": {}}}, {"groups": None}, {"quantiles": "x"}])
def test_what_was_not_stored_by_it_is_refused_in_a_sentence(known, amiss):
    with pytest.raises(BadInput, match="make the bundle anew"):
        Likeness.from_json(known.as_json() | amiss)


def test_too_few_training_patients_are_refused(model, train):
    with pytest.raises(BadInput, match="2 training patients, expected three at least"):
        Likeness.learn(model, train.take(train.outcome.index[:2]))


@pytest.mark.parametrize("fusion, groups", [("chart", {CHART}), ("image", {IMAGE, NETWORK}), ("gated", None)])
def test_only_what_the_network_sees_is_compared(tiny_encoder, params, train, new, fusion, groups):
    model = Deep(tiny_encoder, fusion, "cox", params).fit(train)
    known = Likeness.learn(model, train)
    assert set(known.groups) == (groups or {CHART, IMAGE, NETWORK})
    assert len(known.judge(model, new)) == 40


def test_distances_are_those_of_scikit_learn_and_of_a_regression_on_the_others():
    from sklearn.covariance import LedoitWolf

    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), columns=list("abcd"))
    scaled = (values - values.mean()) / values.std(ddof=0)
    peer = LedoitWolf(assume_centered=True).fit(scaled)
    found = Group.learn(values).distances(values)
    assert_allclose(found[:, 0], np.sqrt(peer.mahalanobis(scaled) / 4), rtol=1e-6)
    others = np.linalg.solve(peer.covariance_[1:, 1:], peer.covariance_[1:, 0])
    left = scaled["a"] - scaled[list("bcd")] @ others
    spread = np.sqrt(peer.covariance_[0, 0] - peer.covariance_[0, 1:] @ others)
    assert (np.abs(left / spread) <= found[:, 1] + 1e-9).all()
    gone = Group.learn(values).distances(values.assign(a=np.nan))[:, 0]
    marginal = np.linalg.inv(peer.covariance_[1:, 1:])
    rest = scaled[list("bcd")].to_numpy()
    assert_allclose(gone, np.sqrt(np.einsum("ij,jk,ik->i", rest, marginal, rest) / 3), rtol=1e-6)


def test_a_column_that_one_patient_alone_differs_in_does_not_set_the_limit(model, train):
    odd = train.biomarkers["sphericity"] * 0 + np.r_[1e-3 * np.arange(59) % 2e-3, 1e6]
    changed = replace(train, biomarkers=train.biomarkers.assign(sphericity=odd))
    assert Likeness.learn(model, changed).limit < 5


def test_wide_embeddings_are_kept_as_their_principal_components():
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 200)))
    values.columns = values.columns.astype(str)
    group = Group.learn(values, 10)
    assert group.axes.shape == (10, 200) and group.covariance.shape == (10, 10)
    assert_allclose(Group.from_json(group.as_json()).distances(values), group.distances(values), rtol=1e-3)


def test_descriptors_are_finite_and_name_what_they_measure(train):
    found = descriptors(train)
    assert np.isfinite(found.to_numpy()).all() and found.index.equals(train.outcome.index)
    inside = [
        image[0][mask.any(axis=0)].astype(float) for image, mask in zip(train.images, train.masks > 0, strict=True)
    ]
    assert_allclose(found["t1c: median inside the lesion"], [np.median(one) for one in inside], rtol=1e-3)
    assert_allclose(found["mask: size of label 1"], np.log1p(train.masks[:, 0].astype(float).sum(axis=(1, 2, 3))))
    masks = train.masks.copy()
    masks[0] = 0
    empty = descriptors(replace(train, masks=masks))
    assert empty["t1c: median inside the lesion"].isna().tolist() == [True] + [False] * 59
    assert empty["t1c: median outside the lesion"].notna().all()


def test_the_table_has_each_shift_beside_the_patients_as_they_are(study_of, tiny_encoder, make_patients, tmp_path):
    study = study_of(tmp_path, make_patients(40, 2, 16))
    network, held = fitted(study, "hybrid-tiny-cox"), study.patients.take(study.fold(-1)[1])
    learnt = Likeness.learn(network, study.patients.take(study.development))
    found = likeness.table(learnt, network, held).set_index("shift")
    assert found.index[0] == "none" and np.isnan(found.loc["none", "auroc"])
    assert "sequences swapped" not in found.index  # one sequence alone
    assert found.loc["three times as bright", "auroc"] > 0.95
    assert found["patients"].eq(len(study.fold(-1)[1])).all() and found["refused"].between(0, 1).all()
