"""What augmentation may change it changes, and nothing else: against scipy, against the drawn numbers' own limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from survpack.augmentation import _sampled, augment
from survpack.params import Augment
from survpack.training import Samples

NOTHING = dict(rotate_deg=0, scale=0, shift=0, intensity=0, noise=0, cutout=0, modality_dropout=0)
EVERYTHING = Augment(rotate_deg=20, scale=0.2, shift=0.1, intensity=0.1, noise=0.05, cutout=0.3, modality_dropout=0.4)
SIDE = 16


def only(**changed) -> Augment:
    return Augment(**NOTHING | changed)


def samples(count=64, modalities=3, labels=2, seed=0) -> Samples:
    """Noise inside a ball, zero around it; two small boxes as masks; the last modality absent in every third patient."""
    draw = torch.Generator().manual_seed(seed)
    along = torch.arange(SIDE) - (SIDE - 1) / 2
    ball = along[:, None, None] ** 2 + along[:, None] ** 2 + along**2 < 7**2
    images = (1 + torch.rand(count, modalities, SIDE, SIDE, SIDE, generator=draw)) * ball
    present = torch.ones(count, modalities, dtype=torch.bool)
    if modalities > 1:
        present[::3, -1] = False
    masks = torch.zeros(count, labels, SIDE, SIDE, SIDE)
    masks[:, :1, 4:9, 6:11, 6:11] = 1
    masks[:, 1:, 9:13, 5:10, 4:9] = 1
    return Samples(images * present[:, :, None, None, None], masks, present, torch.rand(count, 4), torch.rand(count, 1))


def seen(batch: Samples, choice: Augment, mirror=False, seed=0) -> Samples:
    torch.manual_seed(seed)
    return augment(batch, choice, mirror)


def same(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of each patient, whether nothing differs."""
    return (one == other).flatten(1).all(1)


def test_no_change_asked_for_is_no_change():
    batch = samples()
    for before, after in zip(batch, seen(batch, only()), strict=True):
        assert torch.equal(before, after)


def test_what_is_given_stays_as_it_was_and_the_seed_says_what_comes_out():
    batch = samples()
    before = [each.clone() for each in batch]
    first, again, other = (seen(batch, EVERYTHING, True, seed) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(before, batch, strict=True))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not same(first.images, other.images).any()
    assert torch.equal(first.table, batch.table) and torch.equal(first.target, batch.target)


def test_left_and_right_are_exchanged_in_half_of_the_patients_images_with_masks_and_no_other_axis():
    batch = samples()
    after = seen(batch, only(), mirror=True)
    flipped = same(after.images, batch.images.flip(2))
    assert torch.equal(flipped, same(after.masks, batch.masks.flip(2)))
    assert torch.equal(~flipped, same(after.images, batch.images)) and 16 < flipped.sum() < 48


def test_no_patient_is_mirrored_where_anatomy_does_not_allow_it():
    batch = samples(8)
    assert all(same(seen(batch, only(), False, seed).images, batch.images).all() for seed in range(10))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_volume_is_sampled_as_by_scipy_whatever_the_axis_it_is_turned_about(axis, mode):
    volume = ndimage.gaussian_filter(np.random.default_rng(axis).normal(size=(SIDE,) * 3), 2)
    angle, size, shift = 0.3, 1.1, np.array([1.5, -2.0])  # voxels
    turn = size * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    theta = torch.tensor(np.c_[turn, shift * 2 / SIDE], dtype=torch.float32)[None]
    grid = torch.nn.functional.affine_grid(theta, [1, 1, SIDE, SIDE], align_corners=False)
    ours = _sampled(torch.tensor(volume, dtype=torch.float32)[None, None], grid, axis, mode)[0, 0].numpy()

    plane = [each for each in range(3) if each != axis]
    matrix, middle = np.eye(3), np.full(3, (SIDE - 1) / 2)
    matrix[np.ix_(plane, plane)] = turn[::-1, ::-1]  # grid_sample names the last axis first
    offset = middle - matrix @ middle
    offset[plane] += shift[::-1]
    order = 1 if mode == "bilinear" else 0
    theirs = ndimage.affine_transform(volume, matrix, offset, order=order, mode="constant")
    inside = ndimage.binary_erosion(
        ndimage.affine_transform(np.ones_like(volume), matrix, offset, order=1, mode="constant") == 1
    )
    alike = np.isclose(ours, theirs, atol=1e-5)[inside]
    assert inside.sum() > 1000 and alike.mean() > (0.999 if mode == "bilinear" else 0.98)  # nearest: ties of rounding


@given(st.integers(0, 2**31))
def test_image_and_masks_move_together_and_masks_stay_masks(seed):
    batch = samples(6, modalities=2)
    batch = batch._replace(images=10 * batch.masks)
    after = seen(batch, only(rotate_deg=30, scale=0.2, shift=0.1), False, seed)
    assert set(after.masks.unique().tolist()) <= {0.0, 1.0}
    overlap = ((after.images > 5) & (after.masks == 1)).flatten(2).sum(2)
    both = (after.images > 5).flatten(2).sum(2) + (after.masks == 1).flatten(2).sum(2)
    assert (2 * overlap / both).min() > 0.8  # of regions of 100 voxels: all but the edge


def test_nothing_moves_further_than_it_may():
    batch = samples(200, modalities=1)
    centre = torch.stack(torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float32)] * 3, indexing="ij"))

    def middle(masks):
        weight = masks[:, None, 0]
        return (centre * weight).flatten(2).sum(2) / weight.flatten(2).sum(2)

    after = seen(batch, only(shift=0.125))
    moved = (middle(after.masks) - middle(batch.masks)).abs()
    assert moved.max() <= 0.125 * SIDE + 0.5 and moved.max() > 1.5
    assert 60 < (moved.amax(1) > 0).sum() < 120  # of half of them, a few by less than half a voxel


def test_over_epochs_a_patient_is_turned_about_every_axis():
    batch = samples(8, modalities=1)
    batch = batch._replace(images=torch.rand(8, 1, SIDE, SIDE, SIDE) + 1)
    untouched = set()
    for seed in range(20):
        change = seen(batch, only(rotate_deg=30), False, seed).images - batch.images
        moved = change.flatten(1).abs().sum(1) > 0
        means = batch.images[moved].sum((0, 1)) - (batch.images + change)[moved].sum((0, 1))
        totals = [means.sum(tuple({0, 1, 2} - {axis})).abs().max().item() for axis in range(3)]
        untouched.add(int(np.argmin(totals)))  # a slice across the axis keeps its voxels, but for the corners
    assert untouched == {0, 1, 2}


def test_padding_and_absent_modalities_stay_zero_under_every_change_of_grey_values():
    batch = samples()
    after = seen(batch, only(intensity=0.5, noise=0.5))
    assert (after.images[batch.images == 0] == 0).all()
    assert (after.images[batch.images != 0] != batch.images[batch.images != 0]).float().mean() > 0.999


def test_grey_values_are_scaled_and_shifted_for_each_modality_and_no_more_than_asked():
    batch = samples(40, modalities=2)
    after, lines = seen(batch, only(intensity=0.1)), []
    for before, new in zip(batch.images.flatten(0, 1).numpy(), after.images.flatten(0, 1).numpy(), strict=True):
        if before.any():
            slope, shift = np.polyfit(before[before != 0], new[before != 0], 1)
            np.testing.assert_allclose(new[before != 0], slope * before[before != 0] + shift, atol=1e-4)
            lines.append((slope - 1, shift / before.std(ddof=1)))
    lines = np.abs(lines)
    assert lines.max() <= 0.1 + 1e-4 and (lines.max(0) > 0.08).all() and len(np.unique(lines.round(5))) > 100


def test_noise_has_the_size_asked_for_and_is_of_each_patient_and_modality_its_own():
    batch = samples(12, modalities=2)
    spreads = torch.linspace(0.1, 3, 24).view(12, 2, 1, 1, 1)  # z-scored MR and CT differ so
    batch = batch._replace(images=10 + spreads * torch.randn_like(batch.images))
    noise = (seen(batch, only(noise=0.2)).images - batch.images) / spreads
    noise = noise.flatten(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(noise.std(1), 0.2, rtol=0.1)
    np.testing.assert_allclose(noise.mean(1), 0, atol=0.02)
    apart = np.corrcoef(noise)[~np.eye(len(noise), dtype=bool)]
    assert np.abs(apart).max() < 0.08  # 4096 voxels: 5 standard errors


@given(st.integers(0, 2**31), st.floats(0.1, 1.0))
def test_what_is_cut_out_is_a_box_and_never_a_voxel_of_a_mask(seed, side):
    batch = samples(6)
    batch = batch._replace(images=torch.ones_like(batch.images))
    gone = seen(batch, only(cutout=side), False, seed).images == 0
    assert not (gone & (batch.masks != 0).any(1, keepdim=True)).any()
    assert (gone == gone[:, :1]).all()  # in all modalities alike
    width = round(side * SIDE)
    for patient, masked in zip(gone[:, 0].numpy(), batch.masks.any(1).numpy(), strict=True):
        if patient.any():
            (box,) = ndimage.find_objects(patient.astype(int))
            extent = [part.stop - part.start for part in box]
            assert max(extent) <= width
            assert patient[box].sum() + masked[box].sum() == np.prod(extent)


def test_half_of_the_patients_are_cut():
    batch = samples(200, modalities=1)
    after = seen(batch, only(cutout=0.5))
    assert 70 < (~same(after.images, batch.images)).sum() < 130


@given(st.integers(0, 2**31), st.floats(0.01, 0.99), st.integers(1, 4))
def test_the_last_modality_of_a_patient_is_never_taken_and_what_is_taken_is_zero(seed, share, modalities):
    batch = samples(9, modalities=modalities)
    after = seen(batch, only(modality_dropout=share), False, seed)
    assert (after.present.any(1) == batch.present.any(1)).all() and not (after.present & ~batch.present).any()
    kept = after.present[:, :, None, None, None]
    assert torch.equal(after.images, batch.images * kept)


def test_modalities_are_taken_as_often_as_asked():
    present = torch.ones(4000, 3, dtype=torch.bool)
    images = torch.ones(4000, 3, 1, 1, 1)
    batch = Samples(images, images[:, :1], present, images, images)
    taken = 1 - seen(batch, only(modality_dropout=0.3)).present.float().mean().item()
    assert taken == pytest.approx(0.3 - 0.3**3 / 3, abs=0.02)  # but for the one that stays of three


@pytest.mark.parametrize(("modalities", "labels"), [(0, 2), (2, 0)])
def test_a_cohort_without_images_and_one_without_masks_are_augmented_too(modalities, labels):
    batch = samples(8, modalities, labels)
    after = seen(batch, EVERYTHING, True)
    assert after.images.shape == batch.images.shape and after.masks.shape == batch.masks.shape
    changed = after.images if modalities else after.masks
    assert not torch.equal(changed, batch.images if modalities else batch.masks)
