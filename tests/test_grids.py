"""Grids against closed forms and SimpleITK's own interpolation: nothing moves, nothing is made up."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from survpack.grids import finite, mask_onto, on_one_grid, oriented, resampled, resampled_mask, same_grid
from survpack.params import Resample

SPLINE = Resample(image="spline", mask="nearest")
LINEAR = Resample(image="linear", mask="half")
OBLIQUE = tuple(np.round([np.cos(0.3), -np.sin(0.3), 0, np.sin(0.3), np.cos(0.3), 0, 0, 0, 1], 12))


def image_of(values, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None) -> sitk.Image:
    """Of an array (x, y, z)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(values).transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction:
        image.SetDirection(direction)
    return image


def array_of(image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def places(image) -> np.ndarray:
    """Where each voxel's centre lies, mm; shape (x, y, z, 3)."""
    index = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"), -1)
    turned = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    return index @ turned.T + image.GetOrigin()


def ball(shape, spacing, radius, centre=None) -> sitk.Image:
    empty = image_of(np.zeros(shape, np.uint8), spacing)
    where = places(empty)
    centre = where.reshape(-1, 3).mean(axis=0) if centre is None else centre
    return image_of((np.linalg.norm(where - centre, axis=-1) < radius).astype(np.uint8), spacing)


# --- orientation


@pytest.mark.parametrize("direction", [None, OBLIQUE, (0.0, 0, 1, 1, 0, 0, 0, -1, 0)])
@pytest.mark.parametrize("choice", ["LPS", "RAS"])
def test_turning_an_image_moves_no_voxel_in_the_patient(direction, choice):
    values = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    image = image_of(values, (1.0, 2.0, 3.0), (-7.0, 11.0, 5.0), direction)
    turned = oriented(image, choice)
    before = dict(zip(array_of(image).ravel().tolist(), places(image).reshape(-1, 3), strict=True))
    after = dict(zip(array_of(turned).ravel().tolist(), places(turned).reshape(-1, 3), strict=True))
    np.testing.assert_allclose([after[value] for value in before], list(before.values()), atol=1e-6)
    sign = {"LPS": 1, "RAS": -1}[choice]
    axes = np.array(turned.GetDirection()).reshape(3, 3)
    assert (np.diag(axes) * [sign, sign, 1] > 0.9).all()


def test_oblique_axes_stay_oblique_instead_of_being_interpolated():
    image = image_of(np.zeros((4, 4, 4), np.float32), direction=OBLIQUE)
    np.testing.assert_allclose(oriented(image, "LPS").GetDirection(), OBLIQUE)


# --- resampling


@pytest.mark.parametrize("how", ["spline", "linear"])
@pytest.mark.parametrize("spacing", [0.7, 1.0, 2.0, 2.7])
@pytest.mark.parametrize("direction", [None, OBLIQUE])
def test_a_ramp_survives_and_stays_in_its_place(how, spacing, direction):
    image = image_of(np.zeros((28, 26, 20)), (1.0, 1.3, 5.0), (-20.0, 3.0, 8.0), direction)
    slope = np.array([2.0, -1.0, 0.5])
    ramp = sitk.GetImageFromArray((places(image) @ slope).astype(np.float32).transpose(2, 1, 0))
    ramp.CopyInformation(image)
    found = resampled(ramp, spacing, how)
    np.testing.assert_allclose(found.GetSpacing(), [spacing] * 3)
    turned = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    index = (places(found) - image.GetOrigin()) @ np.linalg.inv(turned).T
    edge = 8 if how == "spline" else 0  # a spline mirrored at its border bends a ramp there
    inner = ((index >= edge) & (index <= np.subtract(ramp.GetSize(), edge + 1))).all(axis=-1)
    assert inner.sum() > 20
    np.testing.assert_allclose(array_of(found)[inner], (places(found) @ slope)[inner], atol=1e-3)


@pytest.mark.parametrize("how, itk", [("spline", sitk.sitkBSpline3), ("linear", sitk.sitkLinear)])
def test_interpolation_is_that_of_simpleitk(how, itk):
    values = np.random.default_rng(0).normal(0, 1, (20, 24, 14)).astype(np.float32)
    image = image_of(values, (1.0, 0.9, 2.5), direction=OBLIQUE)
    found = resampled(image, 1.4, how)
    expected = array_of(sitk.Resample(image, found, sitk.Transform(), itk, 0.0, sitk.sitkFloat32))
    expected = expected.clip(values.min(), values.max())
    np.testing.assert_allclose(array_of(found)[2:-2, 2:-2, 2:-2], expected[2:-2, 2:-2, 2:-2], atol=1e-4)


@given(st.integers(1, 30), st.floats(0.3, 6.0), st.floats(0.3, 6.0))
def test_centres_are_aligned_and_no_new_voxel_lies_outside_the_image(size, own, spacing):
    image = image_of(np.zeros((size, 3, 3), np.uint8), (own, 1.0, 1.0), (5.0, 0.0, 0.0))
    x = places(resampled_mask(image, spacing, "nearest"))[:, 0, 0, 0]
    assert (x[0] + x[-1]) / 2 == pytest.approx(5 + own * (size - 1) / 2, abs=1e-6)
    assert x[0] >= 5 - own / 2 - 1e-3 * spacing and len(x) * spacing >= (size * own) - 2e-3 * spacing


@pytest.mark.parametrize("off", [0.0, 9e-4])
def test_what_has_the_spacing_already_stays_bit_for_bit(off):
    rng = np.random.default_rng(1)
    image = image_of(rng.integers(-1000, 400, (9, 8, 7)).astype(np.int16), (2.0 + off, 2.0, 2.0 - off))
    mask = image_of(rng.integers(0, 3, (9, 8, 7)).astype(np.uint8), (2.0 + off, 2.0, 2.0 - off))
    for choice in (SPLINE, LINEAR):
        again, same, reason = on_one_grid(image, mask, 2.0, choice)
        np.testing.assert_array_equal(array_of(again), array_of(image))
        np.testing.assert_array_equal(array_of(same), array_of(mask))
        assert reason == "" and again.GetPixelID() == image.GetPixelID()
    assert resampled(image, 2.0, "spline") is image


def test_a_spline_never_leaves_the_range_of_the_image():
    values = np.full((20, 20, 20), -1000.0, np.float32)
    values[10:] = 1500
    found = array_of(resampled(image_of(values, (1.0, 1.0, 2.5)), 0.6, "spline"))
    free = sitk.Resample(image_of(values), image_of(np.zeros((30, 20, 20)), (0.6, 1, 1)), sitk.Transform(),
                         sitk.sitkBSpline3, 0.0)  # fmt: skip
    assert array_of(free).min() < -1100  # it would
    assert found.min() == -1000 and found.max() == 1500


@pytest.mark.parametrize("how", ["nearest", "half"])
@pytest.mark.parametrize(
    "spacing, target, within",
    [((1.0, 1.0, 1.0), 2.0, 0.02), ((0.8, 0.8, 1.5), 1.0, 0.02), ((1.0, 1.0, 5.0), 2.0, 0.03)],  # thick slices
)
def test_volume_of_a_ball_survives(how, spacing, target, within):
    mask = ball([int(50 / step) for step in spacing], spacing, 16.0)
    found = resampled_mask(mask, target, how)
    before = array_of(mask).sum() * np.prod(spacing)
    assert array_of(found).sum() * target**3 == pytest.approx(before, rel=within)
    where = [places(each)[array_of(each) > 0].mean(axis=0) for each in (mask, found)]
    np.testing.assert_allclose(*where, atol=0.6 if how == "nearest" else 0.1)  # nearest: midway goes to the higher


def test_half_gives_each_voxel_to_the_largest_label_and_leaves_no_gap_between_two():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:6, 2:10, 2:10], labels[6:10, 2:10, 2:10] = 3, 1
    found = array_of(resampled_mask(image_of(labels, (1.0, 1.0, 1.0)), 3.0, "half"))  # the middle voxel spans both
    assert set(np.unique(found)) == {0, 1, 3}
    row = found[:, 1, 1]
    inside = np.flatnonzero(row)
    assert (np.diff(inside) == 1).all() and len(inside) == 2 and row[inside].tolist() == [3, 1]
    odd = np.zeros((6, 6, 6), np.uint8)
    odd[:3], odd[3:, :, :5] = 7, 2  # 7 has more voxels; midway between both it wins
    assert (array_of(resampled_mask(image_of(odd, (2.0, 2.0, 2.0)), 12.0, "half")) == 7).all()


# --- image and mask together


@pytest.mark.parametrize("choice", [SPLINE, LINEAR])
def test_what_is_cut_first_is_a_part_of_the_whole(choice):
    rng = np.random.default_rng(3)
    spacing = (1.1, 0.8, 3.0)
    image = image_of(rng.normal(0, 100, (70, 80, 40)).astype(np.float32), spacing, (3.0, -40.0, 7.0), OBLIQUE)
    drawn = np.zeros((70, 80, 40), np.uint8)
    drawn[30:38, 40:52, 18:22], drawn[38:40, 40:52, 18:22] = 1, 2
    mask = image_of(drawn, spacing, (3.0, -40.0, 7.0), OBLIQUE)
    cut, region, reason = on_one_grid(image, mask, 2.0, choice, margin_mm=6)
    whole, every = resampled(image, 2.0, choice.image), resampled_mask(mask, 2.0, choice.mask)
    assert reason == "" and same_grid(cut, region)
    start = whole.TransformPhysicalPointToIndex(cut.GetOrigin())
    box = tuple(slice(a, a + n) for a, n in zip(start, cut.GetSize(), strict=True))
    np.testing.assert_allclose(places(whole)[box], places(cut), atol=1e-4)
    np.testing.assert_allclose(array_of(cut), array_of(whole)[box], atol=1e-3)
    np.testing.assert_array_equal(array_of(region), array_of(every)[box])
    assert array_of(region).astype(bool).sum() == array_of(every).astype(bool).sum()
    alone = on_one_grid(None, mask, 2.0, choice, margin_mm=6)
    assert alone[0] is None and same_grid(alone[1], region)


def test_the_margin_is_there_on_all_sides_unless_the_image_ends():
    mask = image_of(np.zeros((60, 60, 60), np.uint8))
    mask[30, 30, 0] = 1
    image = image_of(np.zeros((60, 60, 60), np.float32))
    _, region, _ = on_one_grid(image, mask, 1.0, SPLINE, margin_mm=10)
    np.testing.assert_array_equal(np.argwhere(array_of(region)), [[10, 10, 0]])
    assert region.GetSize() == (21, 21, 11)


def test_a_mask_on_another_grid_is_brought_onto_the_images_and_this_is_told():
    image = image_of(np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32))
    shifted = ball((30, 30, 30), (1.5, 1.5, 1.5), 9.0)
    shifted.SetOrigin((-2.0, 1.0, 0.5))
    assert not same_grid(image, shifted)
    found, region, reason = on_one_grid(image, shifted, 1.0, SPLINE)
    assert "another grid than its image" in reason and "2.29 mm away" in reason
    assert same_grid(found, region)
    centre = [places(each)[array_of(each) > 0].mean(axis=0) for each in (shifted, region)]
    np.testing.assert_allclose(*centre, atol=0.3)
    assert array_of(region).sum() == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.05)


def test_of_a_mask_that_reaches_beyond_its_image_the_lost_share_is_told():
    mask = ball((40, 40, 40), (1.0, 1.0, 1.0), 10.0)
    half = image_of(np.zeros((20, 40, 40), np.float32))
    moved, reason = mask_onto(mask, half)
    assert array_of(moved).sum() == array_of(mask)[:20].sum()
    assert "-50.0 % of volume" in reason


def test_grids_are_the_same_despite_the_rounding_of_headers_and_not_after_a_real_shift():
    one, other = (image_of(np.zeros((50, 50, 50), np.uint8), origin=(120.0, -70.0, 33.0)) for _ in range(2))
    other.SetOrigin(tuple(float(np.float32(x + 1e-4)) for x in one.GetOrigin()))
    assert same_grid(one, other)
    other.SetOrigin((120.1, -70.0, 33.0))
    assert not same_grid(one, other)
    other = image_of(np.zeros((50, 50, 50), np.uint8), origin=(120.0, -70.0, 33.0), direction=OBLIQUE)
    assert not same_grid(one, other)


@pytest.mark.parametrize("choice", [SPLINE, LINEAR])
@pytest.mark.parametrize("shape", [(30, 28, 1), (1, 1, 1), (2, 20, 3)])
def test_an_image_of_one_slice_is_measured_like_any_other(choice, shape):
    values = np.random.default_rng(2).normal(50, 5, shape).astype(np.float32)
    image, mask = image_of(values, (1.0, 1.0, 5.0)), image_of(np.ones(shape, np.uint8), (1.0, 1.0, 5.0))
    found, region, reason = on_one_grid(image, mask, 2.0, choice)
    assert np.isfinite(array_of(found)).all() and array_of(region).all() and reason == ""
    if shape[2] == 1:
        assert found.GetSize()[2] == 3  # five mm in voxels of two
        np.testing.assert_allclose(array_of(found), array_of(found)[:, :, :1] + np.zeros((1, 1, 3)), atol=1e-4)


@pytest.mark.parametrize("corner", [0, -1])
def test_a_lesion_at_the_border_keeps_its_volume(corner):
    labels = np.zeros((30, 30, 12), np.uint8)
    side = slice(0, 8) if corner == 0 else slice(-8, None)
    labels[side, side, side] = 1
    mask = image_of(labels, (1.0, 1.0, 2.0))
    _, region, _ = on_one_grid(image_of(labels.astype(np.float32), (1.0, 1.0, 2.0)), mask, 2.0, SPLINE)
    assert array_of(region).sum() * 8 == pytest.approx(labels.sum() * 2, rel=0.01)


def test_an_empty_mask_and_a_label_too_small_for_the_grid_are_told():
    image = image_of(np.zeros((20, 20, 20), np.float32))
    mask = image_of(np.zeros((20, 20, 20), np.uint8))
    assert on_one_grid(image, mask, 2.0, SPLINE)[2] == "the mask is empty"
    mask[2, 2, 2], mask[10, 10, 10] = 1, 4
    for each in range(5, 9):
        mask[each, 5, 5] = mask[each, 6, 5] = mask[each, 5, 6] = mask[each, 6, 6] = 2
    found = on_one_grid(image, mask, 6.0, LINEAR)
    assert found[2] == "label 1, 2, 4 is lost on voxels of 6 mm"


# --- what is not a number


@pytest.mark.parametrize("choice", [SPLINE, LINEAR])
def test_one_nan_stays_one_nan_and_is_told(choice):
    values = np.random.default_rng(4).normal(0, 1, (20, 20, 20)).astype(np.float32)
    mask = ball((20, 20, 20), (1.0, 1.0, 1.0), 6.0)
    clean = array_of(on_one_grid(image_of(values), mask, 0.5, choice)[0])
    values[10, 10, 10], values[11, 3, 4] = np.nan, np.inf
    found, _, reason = on_one_grid(image_of(values), mask, 0.5, choice)
    bad = ~np.isfinite(array_of(found))
    assert bad.sum() == 16 and reason == "16 voxels in and around the region are not finite"  # two voxels, halved
    far = np.linalg.norm(places(found) - 10, axis=-1) > 7
    far &= np.linalg.norm(places(found) - [11, 3, 4], axis=-1) > 7
    assert far.any()
    np.testing.assert_allclose(array_of(found)[far], clean[far], atol=1e-3)


def test_what_is_not_finite_takes_the_nearest_value_in_mm():
    values = np.zeros((5, 5, 5), np.float32)
    values[2, 2, 2], values[2, 2, 1], values[1, 2, 2] = np.nan, 7, 3
    values[3, 2, 2] = values[2, 1, 2] = values[2, 3, 2] = 3
    found, reason = finite(image_of(values, (1.0, 1.0, 0.5)), "scan.nii.gz")  # the slices are nearer
    assert array_of(found)[2, 2, 2] in (7, 0) and reason.startswith("scan.nii.gz: 1 of 125 voxels are not finite")
    assert finite(image_of(np.full((2, 2, 2), np.nan, np.float32)))[0][0, 0, 0] == 0
    clean = image_of(np.ones((2, 2, 2), np.float32))
    assert finite(clean) == (clean, "")
