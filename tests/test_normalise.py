"""Intensities: what a scanner's gain may not change, closed forms of each scale, and what happens when there is none."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from survpack.normalise import PERCENTILES, foreground, normalised, without_bias
from survpack.params import MR

METHODS = ("zscore", "whitestripe", "nyul")


def image_of(values) -> sitk.Image:
    return sitk.GetImageFromArray(np.asarray(values, dtype=np.float32))


def array_of(image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def brain(seed=0, side=26) -> np.ndarray:
    """Grey (300) and white matter (420) and fluid (120) in a ball, 0 around."""
    rng = np.random.default_rng(seed)
    far = np.linalg.norm(np.indices((side,) * 3) - (side - 1) / 2, axis=0)
    tissue = np.select([far < side * 0.12, far < side * 0.33], [120.0, 420.0], 300.0)
    return np.where(far < side * 0.42, tissue + rng.normal(0, 15, far.shape), 0).astype(np.float32)


def scaled(values, method="zscore", modality="t1c", **more) -> tuple[np.ndarray, str]:
    image, reason = normalised(image_of(values), modality, MR(normalise=method, n4=False, **more))
    return array_of(image), reason


# --- where the scale is taken from


def test_the_brain_of_a_skull_stripped_scan_is_what_is_not_its_background():
    values = brain()
    inside, how = foreground(image_of(values))
    assert how == "marked"
    np.testing.assert_array_equal(inside, values != 0)
    shifted, how = foreground(image_of(values - 500))  # the background is the lowest value, though not 0
    assert how == "marked"
    np.testing.assert_array_equal(shifted, inside)
    centred = np.where(values > 0, values - 350, 0)  # normalised elsewhere: the background lies within the range
    np.testing.assert_array_equal(foreground(image_of(centred))[0], inside)


def test_the_body_in_a_scan_with_air_is_both_dark_tissue_and_fat():
    values = np.random.default_rng(0).normal(20, 6, (24, 24, 24)).clip(0.1)
    values[4:20, 4:20, 4:20] += 150
    values[6:10, 6:10, 6:10] += 400
    inside, how = foreground(image_of(values))
    assert how == "otsu" and inside[4:20, 4:20, 4:20].all()
    assert inside.sum() == 16**3


def test_of_the_real_thighs_the_body_is_found_in_mr_as_it_is_in_ct():
    root = Path(os.environ.get("SURVPACK_DATA", "absent")) / "sts"
    if not root.exists():
        pytest.skip("SURVPACK_DATA has no sts")
    agree = []
    for patient in sorted(root.glob("STS_00?")):
        mr = sitk.ReadImage(str(patient / "MR_T1_image.nii.gz"), sitk.sitkFloat32)
        ct = sitk.Resample(
            sitk.ReadImage(str(patient / "CT_image.nii.gz")), mr, sitk.Transform(), sitk.sitkLinear, -1000
        )
        body, inside = array_of(ct) > -300, foreground(mr)[0]
        agree.append(2 * (body & inside).sum() / (body.sum() + inside.sum()))
    assert np.median(agree) > 0.9


# --- what may not change


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 50), st.floats(-300, 300), st.sampled_from(METHODS), st.sampled_from(["t1c", "t2w", "t2f"]))
def test_gain_and_offset_of_a_scanner_leave_no_trace(gain, offset, method, modality):
    values = brain()
    one, reason = scaled(values, method, modality)
    other, _ = scaled(values * gain + offset, method, modality)
    assert reason == ""
    np.testing.assert_allclose(other, one, atol=0.02 * max(1, np.abs(one).max() / 10))


def test_a_scale_needs_nobody_else():
    alone = scaled(brain(3), "nyul")[0]
    scaled(brain(4) * 9, "nyul")
    np.testing.assert_array_equal(scaled(brain(3), "nyul")[0], alone)


@pytest.mark.parametrize("modality", ["ct", "pt"])
@pytest.mark.parametrize("method", METHODS)
def test_units_of_ct_and_pet_stay(modality, method):
    values = np.random.default_rng(0).normal(0, 300, (6, 6, 6)).astype(np.float32)
    found, reason = scaled(values, method, modality)
    np.testing.assert_array_equal(found, values)
    assert reason == ""


# --- closed forms


def test_a_z_score_has_mean_0_and_deviation_1_in_the_brain():
    found = scaled(brain())[0][brain() != 0]
    assert found.mean() == pytest.approx(0, abs=1e-4) and found.std() == pytest.approx(1, abs=1e-4)


def test_percentiles_of_the_brain_land_on_those_of_a_normal_distribution():
    found = scaled(brain(), "nyul")[0][brain() != 0]
    np.testing.assert_allclose(np.percentile(found, PERCENTILES), norm.ppf(np.divide(PERCENTILES, 100)), atol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_nyul_keeps_the_order_of_voxels_even_where_percentiles_coincide(seed, levels):
    values = np.random.default_rng(seed).integers(1, 1 + levels, (8, 8, 8)).astype(float)
    values[:4] = 0
    found = scaled(values, "nyul")[0].ravel()[np.argsort(values.ravel(), kind="stable")]
    assert np.isfinite(found).all() and (np.diff(found) >= -1e-5).all()


@pytest.mark.parametrize("modality", ["t1n", "t1c", "t2w", "t2f"])
def test_white_stripe_sets_the_planted_white_matter_to_0(modality):
    values = brain(side=34)
    if modality in ("t2w", "t2f"):  # the largest class is white matter there
        values = np.where(values > 0, 800 - values, 0)
    white = np.abs(values - (420 if modality in ("t1n", "t1c") else 380)) < 5
    grey = np.abs(values - (300 if modality in ("t1n", "t1c") else 500)) < 5
    found, reason = scaled(values, "whitestripe", modality)
    if modality in ("t2w", "t2f"):
        nearest = min((white, grey), key=lambda tissue: abs(found[tissue].mean()))
        largest = max((white, grey), key=lambda tissue: tissue.sum())
        assert nearest is largest
    else:
        assert abs(found[white].mean()) < 0.2 * abs(found[grey].mean())
    assert reason == ""


def test_without_a_normalisation_values_stay():
    np.testing.assert_array_equal(scaled(brain(), "none")[0], brain())


# --- what cannot be done as asked


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_image_and_a_constant_brain_give_numbers_and_a_reason(method):
    half = np.zeros((8, 8, 8))
    half[:4] = 100
    for values in (np.full((8, 8, 8), 7.0), np.zeros((8, 8, 8)), half):
        found, reason = scaled(values, method)
        assert np.isfinite(found).all() and np.abs(found).max() <= 100
        assert "same value" in reason


def test_without_a_stripe_the_z_score_is_taken_and_this_is_told():
    values = brain()
    values[values != 0] = 100  # nearly all voxels are one value: the stripe has none
    values[13, 13, 13:16] = 101, 102, 900
    found, reason = scaled(values, "whitestripe")
    assert "no white stripe found" in reason and "z-score instead" in reason
    np.testing.assert_allclose(found, scaled(values, "zscore")[0])


@pytest.mark.parametrize("method", [*METHODS, "none"])
def test_voxels_that_are_not_finite_stay_out_of_the_scale_and_come_out_as_nan(method):
    values = brain()
    clean = scaled(values, method)[0]
    values[13, 13, 13], values[0, 0, 0] = np.inf, np.nan
    found = scaled(values, method)[0]
    bad = ~np.isfinite(values)
    assert np.isnan(found[bad]).all() and np.isfinite(found[~bad]).all()
    np.testing.assert_allclose(found[~bad], clean[~bad], atol=0.02 * np.abs(clean).max())


# --- bias field


def test_n4_takes_out_most_of_a_planted_field_and_does_so_twice_alike():
    side = 48
    values = brain(side=side)
    field = np.exp(0.5 * np.linspace(-1, 1, side))[:, None, None] * np.ones(values.shape)
    white = np.abs(values - 420) < 60
    biased = image_of(values * field)
    found, reason = without_bias(biased, values > 0)
    assert reason == ""

    def unevenness(array):
        return array[white].std() / array[white].mean()

    assert unevenness(array_of(found)) < 0.6 * unevenness(values * field)
    np.testing.assert_array_equal(array_of(without_bias(biased, values > 0)[0]), array_of(found))


def test_n4_of_one_slice_is_left_out_or_done_but_never_a_crash():
    values = brain()[13:14]
    image, reason = normalised(image_of(values), "t1c", {"normalise": "zscore", "n4": True})
    assert np.isfinite(array_of(image)).all()
    assert reason == "" or reason.startswith("N4 not applied")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gain", [1e-30, 1e25])
def test_the_largest_and_smallest_floats_have_a_scale(gain, method):
    values = brain()
    values[13, 13, 13] = 0 if gain < 1 else values[13, 13, 13]
    found, reason = scaled(values * np.float32(gain), method)
    inside = found[values != 0]
    assert np.isfinite(found).all() and "same value" not in reason
    assert inside.std() > 0.5
    if method == "zscore":
        np.testing.assert_allclose(found, scaled(values)[0], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.1, 130.1, -7.3])
def test_a_brain_of_one_value_is_0_and_said_to_be_whatever_the_rounding(value, method):
    values = np.where(brain() != 0, np.float32(value), 0)
    found, reason = scaled(values, method)
    assert "same value" in reason
    assert (found[values != 0] == 0).all() and np.abs(found).max() == pytest.approx(abs(value), rel=1e-6)
