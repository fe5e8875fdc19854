"""Perturbations against what they promise of volumes and noise; the ICC against published and planted values."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack.errors import BadInput
from survpack.robustness import PERTURBATIONS, applicable, by_perturbation, icc, noise_level, rng_of, robust

LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
NECROSIS, OEDEMA, ENHANCING = LABELS
SPACINGS = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 5.0), (4.0, 4.0, 4.0)]
MASKS = ["shrink", "grow", "contour", "resample"]


def volume(array, spacing=(1.0, 1.0, 1.0), pixel=np.uint8) -> sitk.Image:
    """From an array (z, y, x); not at the origin and not along the axes of the patient."""
    image = sitk.GetImageFromArray(np.asarray(array, pixel))
    image.SetSpacing(spacing)
    image.SetOrigin((-30.0, 12.0, 7.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def lesion(spacing=(1.0, 1.0, 1.0), size_mm=64) -> np.ndarray:
    """Core, rim and halo, and a second small lesion without either; (z, y, x)."""
    step = np.array(spacing[::-1])
    grid = np.indices((size_mm / step).astype(int)) * step[:, None, None, None]
    away = {c: np.sqrt(((grid - np.reshape(c, (3, 1, 1, 1))) ** 2).sum(axis=0)) for c in ((30, 30, 30), (50, 50, 50))}
    first, second = away.values()
    mask = np.where(first < 20, OEDEMA, 0)
    mask[first < 12], mask[first < 7], mask[second < 6] = ENHANCING, NECROSIS, ENHANCING
    return mask


def textured(mask: np.ndarray, seed=0) -> np.ndarray:
    """A masked brain about the lesion: 0 outside of it."""
    rng = np.random.default_rng(seed)
    values = 100 + 20 * (mask == ENHANCING) + rng.normal(0, 5, mask.shape)
    values[:, :, : mask.shape[2] // 8] = 0
    return values.astype(np.float32)


def count(mask: sitk.Image, *numbers) -> int:
    return int(np.isin(sitk.GetArrayViewFromImage(mask), numbers).sum())


def dice(one: sitk.Image, other: sitk.Image, *numbers) -> float:
    a, b = (np.isin(sitk.GetArrayViewFromImage(mask), numbers) for mask in (one, other))
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def done(name, mask, image=None, labels=LABELS, seed=1):
    return PERTURBATIONS[name](image, mask, labels, rng_of(seed, "p", name))


# --- masks


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name, share", [("shrink", 0.85), ("grow", 1.15)])
def test_tumour_loses_or_gains_fifteen_percent_of_its_volume_whatever_the_voxels(name, share, spacing):
    mask = volume(lesion(spacing), spacing)
    _, changed = done(name, mask)
    tumour = count(mask, NECROSIS, ENHANCING)
    assert count(changed, NECROSIS, ENHANCING) == pytest.approx(share * tumour, abs=2)  # two lesions, each rounded


def test_shrink_takes_from_outside_and_grow_adds_there():
    mask = volume(lesion())
    first, smaller, larger = (sitk.GetArrayFromImage(m) for m in (mask, done("shrink", mask)[1], done("grow", mask)[1]))
    tumour = [np.isin(one, [NECROSIS, ENHANCING]) for one in (smaller, first, larger)]
    assert (tumour[0] <= tumour[1]).all() and (tumour[1] <= tumour[2]).all()
    whole = [one > 0 for one in (smaller, first, larger)]
    assert (whole[0] <= whole[1]).all() and (whole[1] <= whole[2]).all()
    lost = np.argwhere(first != smaller)
    shells = [
        np.abs(np.linalg.norm(lost - c, axis=1) - r) for c, radii in ((30, (7, 12, 20)), (50, (6,))) for r in radii
    ]
    assert np.min(shells, axis=0).max() < 1.8  # within a voxel's diagonal of a contour


def test_what_a_tighter_contour_gives_up_becomes_what_lies_beside_it():
    mask = volume(lesion())
    before, after = (sitk.GetArrayFromImage(one) for one in (mask, done("shrink", mask)[1]))
    near = np.indices(before.shape).sum(axis=0) < 120  # the lesion with oedema; the other has none
    lost = np.isin(before, [NECROSIS, ENHANCING]) & ~np.isin(after, [NECROSIS, ENHANCING])
    assert set(after[lost & near]) == {OEDEMA}
    assert set(after[lost & ~near]) == {0}


def test_organ_beside_a_tumour_takes_and_gives_voxels():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[2:18, 2:18, 2:18], mask[6:14, 6:14, 6:14] = 1, 2
    labels = {1: "kidney", 2: "tumour"}
    _, smaller = done("shrink", volume(mask), labels=labels)
    assert count(smaller, 1) + count(smaller, 2) == 16**3
    assert count(smaller, 2) == round(512 * 0.85)


def test_each_lesion_changes_by_its_own_volume():
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[5:25, 5:25, 5:25], mask[32:36, 32:36, 32:36] = ENHANCING, ENHANCING
    for name, share in (("shrink", 0.85), ("grow", 1.15)):
        changed = sitk.GetArrayFromImage(done(name, volume(mask))[1])
        assert (changed[30:, 30:, 30:] > 0).sum() == pytest.approx(64 * share, abs=1)


def test_corners_go_before_flats():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:15, 5:15, 5:15] = ENHANCING
    lost = (mask > 0) & (sitk.GetArrayFromImage(done("shrink", volume(mask))[1]) == 0)
    inner = np.zeros_like(mask, bool)
    inner[6:14, 6:14, 6:14] = True
    edges = sum(((np.indices(mask.shape) == 5) | (np.indices(mask.shape) == 14)).astype(int)) >= 2
    assert not (lost & inner).any()
    assert lost[edges & (mask > 0)].all()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from(MASKS), spacing=st.sampled_from(SPACINGS))
def test_no_perturbation_ever_empties_a_compartment_or_makes_one(data, name, spacing):
    seed, filled = data.draw(st.integers(0, 999)), data.draw(st.floats(0.001, 0.9))
    rng = np.random.default_rng(seed)
    shape = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    mask = rng.integers(0, 4, shape) * (rng.random(shape) < filled)
    _, changed = done(name, volume(mask, spacing), seed=seed)
    assert set(np.unique(sitk.GetArrayFromImage(changed))) - {0} == set(np.unique(mask)) - {0}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("fill", [0, ENHANCING])
def test_empty_and_full_masks_come_back_as_they_are(name, fill):
    mask = volume(np.full((6, 6, 6), fill))
    image, changed = done(name, mask, volume(np.zeros((6, 6, 6)), pixel=np.float32))
    if name != "resample" or not fill:  # a full grid turned in itself loses its corners
        assert count(changed, fill) == 216
    assert np.isfinite(sitk.GetArrayFromImage(image)).all()


@pytest.mark.parametrize("name", MASKS)
def test_a_lesion_of_one_voxel_survives(name):
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[4, 4, 4] = ENHANCING
    assert count(done(name, volume(mask))[1], ENHANCING) == 1


@pytest.mark.parametrize("name", MASKS)
def test_several_numbers_of_one_meaning_keep_their_own(name):
    mask = lesion()
    mask[40:, 40:, 40:][mask[40:, 40:, 40:] == ENHANCING] = 13
    _, changed = done(name, volume(mask), labels={**LABELS, 13: "enhancing"})
    array = sitk.GetArrayFromImage(changed)
    assert (array[40:, 40:, 40:] == 13).sum() > 0.6 * (mask == 13).sum()
    assert not (array[:40] == 13).any()


@pytest.mark.parametrize("spacing", SPACINGS[:3])
def test_contour_moves_about_half_a_voxel_and_keeps_the_volume_on_average(spacing):
    mask = volume(lesion(spacing), spacing)
    found = [done("contour", mask, seed=seed)[1] for seed in range(12)]
    agreement = [dice(mask, one, NECROSIS, ENHANCING) for one in found]
    # half a voxel all over a ball of radius 12 mm: 1 - Dice is about half of 3 * mean |displacement| / radius
    edge = max(np.prod(spacing) ** (1 / 3) / 2, 0.5)
    assert 1 - np.mean(agreement) == pytest.approx(1.5 * np.sqrt(2 / np.pi) * edge / 11, rel=0.5)
    volumes = [count(one, NECROSIS, ENHANCING) / count(mask, NECROSIS, ENHANCING) for one in found]
    assert np.mean(volumes) == pytest.approx(1, abs=0.04)
    assert np.std(volumes) > 0


# --- images


@pytest.mark.parametrize("sigma", [0.5, 5.0, 20.0])
def test_noise_level_is_that_planted_on_a_smooth_image_with_masked_background(sigma):
    rng = np.random.default_rng(2)
    z, y, x = np.indices((12, 60, 60))
    values = 300 + 40 * np.sin(x / 9) + 2 * z + rng.normal(0, sigma, x.shape)
    values[(y - 30) ** 2 + (x - 30) ** 2 > 26**2] = 0
    assert noise_level(values) == pytest.approx(sigma, rel=0.05)
    values[5, 20:24, 20:24] = np.nan
    assert noise_level(values) == pytest.approx(sigma, rel=0.05)


def test_noise_doubles_the_noise_variance_and_spares_background_nan_and_mask():
    rng = np.random.default_rng(3)
    values = (100 + rng.normal(0, 4, (20, 40, 40))).astype(np.float32)
    values[:, :, :8], values[10, 10, 10], values[12, 12, 12] = 0, np.nan, 0  # one lone zero is no background
    mask = volume(np.ones(values.shape))
    image, same = done("noise", mask, volume(values, pixel=np.float32))
    after = sitk.GetArrayFromImage(image)
    assert (after[:, :, :8] == 0).all()
    assert np.isnan(after[10, 10, 10]) and np.isnan(after).sum() == 1
    assert after[12, 12, 12] != 0
    assert np.nanstd((after - values)[:, :, 8:]) == pytest.approx(4, rel=0.06)
    assert same is mask


def test_constant_image_has_no_noise_and_gets_none():
    image = volume(np.full((8, 8, 8), 7.0), pixel=np.float32)
    assert (sitk.GetArrayFromImage(done("noise", volume(np.ones((8, 8, 8))), image)[0]) == 7).all()


@pytest.mark.parametrize("spacing", SPACINGS[:3])
def test_resample_moves_image_and_mask_together(spacing):
    mask = lesion(spacing)
    image, changed = done("resample", volume(mask, spacing), volume(50.0 * mask, spacing, np.float32))
    array, values = sitk.GetArrayFromImage(changed), sitk.GetArrayFromImage(image)
    assert not np.array_equal(array, mask)
    for number in LABELS:  # of an image that is the mask: partial volume, no more
        assert np.median(values[array == number]) == pytest.approx(50 * number, abs=10)
        assert (array == number).sum() == pytest.approx((mask == number).sum(), rel=0.05)
    assert values.min() >= 0 and values.max() <= 150  # no overshoot of the spline


def test_resample_keeps_background_zero_and_nan_where_they_were():
    values = textured(lesion())
    values[30, 30, 30] = np.nan
    image, _ = done("resample", volume(lesion()), volume(values, pixel=np.float32))
    after = sitk.GetArrayFromImage(image)
    assert 1 <= np.isnan(after).sum() <= 2
    inside = after[np.isfinite(after) & (after != 0)]
    assert inside.min() > 25  # no ringing outside; at the border up to half is background
    assert (after[:, 20:44, 2:4] == 0).all() and (after[:, 20:44, 20:44] != 0).all()


def test_thick_slices_are_not_mixed_by_the_turn():
    mask = np.zeros((9, 40, 40), np.uint8)
    mask[4, 10:30, 16:24] = ENHANCING
    _, changed = done("resample", volume(mask, (1.0, 1.0, 5.0)))
    assert set(np.nonzero(sitk.GetArrayFromImage(changed))[0]) == {4}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_nothing_is_changed_in_place_and_the_grid_stays(name):
    mask, image = volume(lesion()), volume(textured(lesion()), pixel=np.float32)
    before = sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image)
    found = done(name, mask, image)
    assert np.array_equal(before[0], sitk.GetArrayFromImage(mask))
    assert np.array_equal(before[1], sitk.GetArrayFromImage(image))
    for one in found:
        for fact in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(one, fact)() == getattr(mask, fact)()
    assert any(not np.array_equal(a, sitk.GetArrayFromImage(b)) for a, b in zip(before, found[::-1], strict=True))


# --- of one patient


def test_a_perturbation_depends_on_seed_patient_and_name_and_on_nothing_else():
    drawn = {key: rng_of(*key).random() for key in [(1, "p", "a"), (2, "p", "a"), (1, "q", "a"), (1, "p", "b")]}
    assert len(set(drawn.values())) == 4
    assert rng_of(1, "p", "a").random() == drawn[1, "p", "a"]


def test_a_mask_alone_is_perturbed_by_all_but_noise(params):
    names = params.robustness.perturbations
    assert set(names) == set(PERTURBATIONS)
    assert applicable(names, has_image=True) == names
    assert applicable(names, has_image=False) == MASKS
    assert applicable([*names, *names], has_image=True) == names


# --- agreement

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def long(rated, name="feature") -> pd.DataFrame:
    """(patients, perturbations) or (patients, perturbations, features) as the long table."""
    rated = np.asarray(rated, float)
    rated = rated[..., None] if rated.ndim == 2 else rated
    n, k, p = rated.shape
    levels = ["original", *(f"change-{number}" for number in range(1, k))]
    index = pd.MultiIndex.from_product([[f"P{i:03d}" for i in range(n)], levels], names=["patient_id", "perturbation"])
    return pd.DataFrame(rated.reshape(n * k, p), index, [f"{name}_{j}" for j in range(p)])


def anova(x: np.ndarray) -> float:
    """ICC(2,1) from sums of squares, cell by cell."""
    n, k = x.shape
    total = ((x - x.mean()) ** 2).sum()
    rows = sum(k * (row.mean() - x.mean()) ** 2 for row in x)
    columns = sum(n * (column.mean() - x.mean()) ** 2 for column in x.T)
    msr, msc, mse = rows / (n - 1), columns / (k - 1), (total - rows - columns) / ((n - 1) * (k - 1))
    return (msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / n)


def test_icc_of_the_ratings_of_shrout_and_fleiss_is_the_published_one():
    found = icc(long(SHROUT_FLEISS)).iloc[0]
    assert found["estimate"] == pytest.approx(0.290, abs=5e-4)
    assert (found["low"], found["high"]) == pytest.approx((0.019, 0.761), abs=5e-4)  # R: psych 2.4.3, ICC2
    assert found["patients"] == 6


def test_interval_agrees_with_pingouin_on_other_ratings():
    rng = np.random.default_rng(3)  # pingouin 0.6.1, ICC(A,1), to the two digits it prints
    expected = [(5, 2, 1.0, -0.13, 0.74), (12, 6, 2.0, 0.29, 0.79), (30, 3, 0.2, -0.10, 0.26), (40, 6, 5.0, 0.92, 0.97)]
    for n, k, spread, low, high in expected:
        rated = rng.normal(size=(n, 1)) * spread + rng.normal(size=(1, k)) + rng.normal(size=(n, k))
        found = icc(long(rated)).iloc[0]
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.0051)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 9), st.integers(2, 6), st.integers(0, 10**6), st.floats(1e-6, 1e9), st.floats(-1e3, 1e3))
def test_icc_is_that_of_sums_of_squares_and_knows_no_unit(n, k, seed, scale, shift):
    rng = np.random.default_rng(seed)
    rated = rng.normal(size=(n, k)) + rng.normal(size=(n, 1)) + rng.normal(size=(1, k))
    found = icc(long(np.stack([rated, scale * (rated + shift)], axis=2)))["estimate"]
    assert found.to_numpy() == pytest.approx([anova(rated)] * 2, abs=1e-6)


def test_icc_finds_the_planted_share_of_variance_and_its_interval_covers_it():
    rng = np.random.default_rng(8)
    patients, offsets, noise = 1.0, 0.3, 0.5
    shape = (40, 6, 600)
    rated = rng.normal(0, patients, (40, 1, 600)) + rng.normal(0, offsets, (1, 6, 600)) + rng.normal(0, noise, shape)
    found, truth = icc(long(rated)), patients**2 / (patients**2 + offsets**2 + noise**2)
    assert found["estimate"].mean() == pytest.approx(truth, abs=0.02)
    assert ((found["low"] < truth) & (truth < found["high"])).mean() == pytest.approx(0.95, abs=0.03)


def test_a_shift_of_all_patients_alike_lowers_the_agreement():
    rng = np.random.default_rng(1)
    one = rng.normal(size=20)
    alike, shifted = (icc(long(np.c_[one, one + by]))["estimate"].iloc[0] for by in (0, 2))
    assert alike == pytest.approx(1)
    assert shifted < 0.5


def test_perfect_agreement_has_no_width_and_a_constant_is_not_known():
    rng = np.random.default_rng(0)
    perfect = np.repeat(rng.normal(size=(9, 1)), 3, axis=1)
    found = icc(long(np.stack([perfect, np.full((9, 3), 0.1), np.zeros((9, 3))], axis=2)))
    assert found.iloc[0][["estimate", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert found.iloc[1:][["estimate", "low", "high"]].isna().all(axis=None)
    assert robust(found, 0.0) == ["feature_0"]


def test_only_patients_measured_under_every_perturbation_count():
    rng = np.random.default_rng(4)
    rated = rng.normal(size=(9, 1)) + 0.3 * rng.normal(size=(9, 4))
    table = long(np.stack([rated, rated, rated], axis=2))
    table.iloc[1, 0], table.iloc[6, 0] = np.nan, np.inf  # patients 0 and 1
    table.iloc[:20:4, 1] = np.nan  # five of nine
    table = table.drop(index=("P008", "change-2"))
    found = icc(table.sample(frac=1, random_state=1))
    assert found["patients"].tolist() == [6, 3, 8]
    assert found["estimate"].iloc[0] == pytest.approx(anova(rated[2:8]))
    assert np.isnan(found["estimate"].iloc[1])
    assert found["estimate"].iloc[2] == pytest.approx(anova(rated[:8]))


def test_robust_are_those_at_or_above_the_threshold():
    found = pd.DataFrame({"estimate": [0.75, 0.7499, np.nan, 0.9]}, index=list("abcd"))
    assert robust(found, 0.75) == ["a", "d"]


def test_by_perturbation_names_the_one_that_hurts():
    rng = np.random.default_rng(6)
    rated = np.repeat(rng.normal(size=(20, 1)), 3, axis=1)
    rated[:, 2] = rng.normal(size=20)
    found = by_perturbation(long(rated))
    assert found.columns.tolist() == ["change-1", "change-2"]
    assert found.loc["feature_0", "change-1"] == pytest.approx(1)
    assert found.loc["feature_0", "change-2"] == pytest.approx(anova(rated[:, [0, 2]]))


def test_replicates_without_the_original_are_refused():
    table = long(SHROUT_FLEISS).drop("original", level="perturbation")
    with pytest.raises(BadInput, match="without 'original'"):
        by_perturbation(table)


def test_by_perturbation_of_nobody_has_no_column():
    found = by_perturbation(long(SHROUT_FLEISS).iloc[:0])
    assert found.shape == (1, 0) and found.index.tolist() == ["feature_0"]


def test_a_table_of_the_original_alone_or_of_nobody_has_no_icc():
    alone = long(SHROUT_FLEISS).xs("original", level="perturbation", drop_level=False)
    for table in (alone, alone.iloc[:0]):
        found = icc(table)
        assert found["estimate"].isna().all() and found["patients"].tolist() == [0]
