"""Lesion biomarkers against closed forms, other libraries, the phantom's own anatomy and real masks."""

import os
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes

from survpack.lesions import (
    FEATURES,
    axial_axis,
    callipers,
    lesion_volumes,
    measure,
    not_a_brain,
    outline,
    surface_area,
)

LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
NECROSIS, OEDEMA, ENHANCING = LABELS
SHAPE = (48, 44, 40)
ISOTROPIC, THICK = (1.0, 1.0, 1.0), (0.5, 0.5, 5.0)
OBLIQUE = (0.36, 0.48, -0.8, -0.8, 0.60, 0.0, 0.48, 0.64, 0.60)


def ellipsoid(centre, radii, spacing=ISOTROPIC, shape=SHAPE) -> np.ndarray:
    """Voxels whose centre lies in an ellipsoid; centre and radii in mm from the first voxel."""
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1


def ball(radius: float, spacing=ISOTROPIC) -> np.ndarray:
    """A ball off the lattice, two voxels of air around it."""
    shape = [int(2 * radius / s) + 6 for s in spacing]
    middle = [(n - 1) / 2 * s + 0.13 * s for n, s in zip(shape, spacing, strict=True)]
    return ellipsoid(middle, [radius] * 3, spacing, shape)


def image(array: np.ndarray, spacing=ISOTROPIC, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)) -> sitk.Image:
    array = array.astype(np.uint8) if array.dtype == bool else array
    made = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    made.SetSpacing(spacing)
    made.SetDirection(direction)
    made.SetOrigin((-11.0, 7.0, 3.5))
    return made


def of(array: np.ndarray, spacing=ISOTROPIC, labels=None, **more) -> dict[str, float]:
    return measure(image(array, spacing, **more), labels or {1: "tumour"})[0]


def shells(core: float, tumour: float, halo: float, spacing=ISOTROPIC) -> np.ndarray:
    """Concentric balls: necrosis, enhancing, oedema."""
    shape = [int(2 * halo / s) + 5 for s in spacing]
    middle = [(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)]
    rings = [ellipsoid(middle, [r] * 3, spacing, shape) for r in (core, tumour, halo)]
    return np.select(rings, [NECROSIS, ENHANCING, OEDEMA], 0).astype(np.uint8)


# --- volumes and ratios


@pytest.mark.parametrize("spacing", [ISOTROPIC, (0.8, 0.8, 2.5), (1.5, 0.7, 1.0), THICK])
def test_volume_of_an_ellipsoid_is_four_thirds_pi_abc_whatever_the_voxels(spacing):
    shape = tuple(int(40 / s) for s in spacing)
    mask = ellipsoid((20, 19, 18), (14, 11, 9), spacing, shape)
    found = of(mask, spacing)
    assert found["tumour_ml"] == pytest.approx(4 / 3 * np.pi * 14 * 11 * 9 / 1000, rel=0.02)
    assert found["largest_ml"] == pytest.approx(found["tumour_ml"])


def test_shells_give_the_ratios_of_their_volumes():
    found = lesion_volumes(shells(6, 10, 15), 0.001, LABELS)
    assert found["necrosis_fraction"] == pytest.approx(6**3 / 10**3, rel=0.03)
    assert found["oedema_to_tumour"] == pytest.approx((15**3 - 10**3) / 10**3, rel=0.03)
    assert found["tumour_ml"] == pytest.approx(found["necrosis_ml"] + found["enhancing_ml"])
    assert found["whole_ml"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.02)


@given(
    counts=st.tuples(*[st.integers(0, 40)] * 3),
    voxel_ml=st.floats(1e-4, 0.1),
    organ=st.sampled_from(["liver", "kidney"]),
)
def test_only_tumour_labels_make_up_the_tumour_and_a_ratio_is_never_infinite(counts, voxel_ml, organ):
    labels = {**LABELS, 4: organ}
    mask = np.repeat([1, 2, 3, 4, 0], [*counts, 7, 9]).reshape(-1, 1, 1)
    found = lesion_volumes(mask, voxel_ml, labels)
    tumour = counts[0] + counts[2]
    assert found["tumour_ml"] == pytest.approx(tumour * voxel_ml)
    assert found[f"{organ}_ml"] == pytest.approx(7 * voxel_ml)
    for name, part in (("oedema_to_tumour", counts[1]), ("necrosis_fraction", counts[0])):
        assert np.isnan(found[name]) if tumour == 0 else found[name] == pytest.approx(part / tumour)


def test_ratios_exist_only_where_their_labels_do():
    assert lesion_volumes(np.ones((2, 2, 2)), 1.0, {1: "tumour"}) == {"tumour_ml": 8.0}
    assert not {"rim_mm", "oedema_reach_mm", "surface_mm", "ventricle_mm"} & set(of(ball(5)))


def test_numbers_that_mean_the_same_are_one_compartment():
    mask = np.array([[[11, 21, 21, 12, 22, 0]]])
    found = lesion_volumes(mask, 1.0, {11: "enhancing", 12: "necrosis", 21: "enhancing", 22: "necrosis"})
    assert found == {"enhancing_ml": 3, "necrosis_ml": 2, "tumour_ml": 5, "necrosis_fraction": 0.4}


# --- lesions


@settings(max_examples=20)
@given(places=st.sets(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_separate_lesions_are_counted_one_by_one(places):
    mask = np.zeros((40, 40, 40), bool)
    for i, j, k in places:
        mask[8 * i + 1 : 8 * i + 4, 8 * j + 1 : 8 * j + 4, 8 * k + 1 : 8 * k + 4] = 1
    assert of(mask)["lesions_found"] == len(places)


@pytest.mark.parametrize(
    "shift, count", [((4, 0, 0), 1), ((4, 4, 0), 1), ((4, 4, 4), 1), ((5, 0, 0), 2), ((5, 4, 4), 2)]
)
def test_lesions_that_touch_by_face_edge_or_corner_are_one(shift, count):
    mask = np.zeros((20, 20, 20), bool)
    mask[2:6, 2:6, 2:6] = 1
    mask[tuple(slice(2 + s, 6 + s) for s in shift)] = 1
    assert of(mask)["lesions_found"] == count


def test_a_speck_below_a_hundredth_of_a_millilitre_is_no_lesion_and_its_size_is_physical():
    mask = np.zeros((20, 20, 20), bool)
    mask[2:8, 2:8, 2:8] = 1
    mask[14:16, 14:16, 14:16] = 1  # eight voxels: 0.008 mL at 1 mm, 0.027 mL at 1.5 mm
    assert of(mask)["lesions_found"] == 1
    assert of(mask, (1.5, 1.5, 1.5))["lesions_found"] == 2


def test_a_second_lesion_far_away_changes_the_volume_but_not_the_largest():
    large = ellipsoid((14, 14, 14), (10, 8, 9))
    one, two = of(large), of(large | ellipsoid((42, 38, 34), (4, 4, 4)))
    changed = {name for name in one if one[name] != pytest.approx(two[name])}
    assert changed == {"tumour_ml", "lesions_found"}  # the second is below 10 mm


# --- diameters and shape


@pytest.mark.parametrize("spacing", [ISOTROPIC, (2.0, 2.0, 2.0), (0.7, 1.1, 2.5), THICK])
def test_a_ball_has_its_diameter_each_way_and_a_sphericity_of_one(spacing):
    found = of(ball(14, spacing), spacing)
    in_plane = max(spacing[:2])
    assert found["diameter_mm"] == pytest.approx(28, abs=max(spacing))
    assert found["axial_diameter_mm"] == pytest.approx(28, abs=in_plane)
    assert found["rano_product_mm2"] == pytest.approx(28**2, abs=2 * 28 * in_plane)
    assert found["rano_sum_mm"] == found["axial_diameter_mm"]
    assert found["sphericity"] == pytest.approx(1, abs=0.02)


def test_a_spheroid_has_the_sphericity_of_the_formula():
    a, c = 20 / 3, 22.5
    e = np.sqrt(1 - (a / c) ** 2)
    area = 2 * np.pi * a**2 * (1 + c / (a * e) * np.arcsin(e))
    expected = np.pi ** (1 / 3) * (6 * 4 / 3 * np.pi * a * a * c) ** (2 / 3) / area
    found = of(ellipsoid((23, 22, 20), (c, a, a)))
    assert found["sphericity"] == pytest.approx(expected, rel=0.03)
    assert found["diameter_mm"] == pytest.approx(2 * c, abs=1)
    assert found["rano_product_mm2"] == pytest.approx(4 * a * c, abs=2 * c + 2 * a)


def rounded(volume: float, area: float) -> float:
    """Sphericity by its formula."""
    return np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area


@pytest.mark.parametrize(
    "voxels, spacing, sphericity",
    [
        ((4, 4, 4), (1.0, 1.0, 3.0), 0.719),  # 1.108 by SimpleITK's roundness
        ((10, 10, 10), (1.0, 1.0, 5.0), 0.643),  # 1.076
        ((10, 10, 10), ISOTROPIC, 0.806),
        ((3, 3, 3), ISOTROPIC, 0.806),
        ((20, 20, 20), THICK, 0.534),
        ((2, 10, 10), ISOTROPIC, 0.591),
        ((12, 12, 3), (1.0, 1.0, 3.0), 0.798),
        ((5, 7, 9), (3.0, 0.4, 1.7), None),
    ],
)
def test_a_box_along_the_axes_has_its_own_surface_whatever_the_voxels(voxels, spacing, sphericity):
    a, b, c = np.array(voxels) * spacing
    area = 2 * (a * b + b * c + c * a)
    assert surface_area(np.ones(voxels, bool), spacing) == pytest.approx(area)
    assert of(np.pad(np.ones(voxels, bool), 1), spacing)["sphericity"] == pytest.approx(rounded(a * b * c, area))
    assert sphericity is None or rounded(a * b * c, area) == pytest.approx(sphericity, abs=5e-4)


SPACINGS = [ISOTROPIC, (1.0, 1.0, 3.0), (0.8, 0.8, 2.5), (1.0, 1.0, 5.0), THICK]


def rotation(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]


def placed(holds, half: float, spacing, seed: int, turn: bool) -> np.ndarray:
    """Voxels of a shape `holds(x, y, z)`, turned and moved at random by up to half a voxel."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(-int(half / s) - 2, int(half / s) + 3) * s + rng.uniform(-0.5, 0.5) * s for s in spacing]
    grid = np.array(np.meshgrid(*axes, indexing="ij"))
    return holds(*(np.tensordot(rotation(seed), grid, 1) if turn else grid))


def within_box(x, y, z):
    return (abs(x) <= 10) & (abs(y) <= 8) & (abs(z) <= 15)


def within_tube(x, y, z):
    return (np.hypot(x, y) <= 9) & (abs(z) <= 14)


def within_ring(x, y, z):
    return (np.hypot(x, y) - 16) ** 2 + z**2 <= 49


TUBE = rounded(np.pi * 81 * 28, 2 * np.pi * 81 + 2 * np.pi * 9 * 28)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "holds, half, turn, sphericity",
    [
        (within_box, 20, True, rounded(20 * 16 * 30, 2 * (20 * 16 + 20 * 30 + 16 * 30))),
        (within_tube, 17, False, TUBE),
        (within_tube, 17, True, TUBE),
        (within_ring, 23, True, rounded(2 * np.pi**2 * 16 * 49, 4 * np.pi**2 * 16 * 7)),
        (lambda x, y, z: x**2 + y**2 + z**2 <= 225, 15, False, 1),
        (lambda x, y, z: (x**2 + y**2) / 100 + z**2 / 625 <= 1, 25, True, 0.8851),  # half axes of 10 and 25 mm
    ],
)
def test_shapes_that_are_no_box_are_within_a_few_per_cent_of_their_formula(holds, half, turn, sphericity, spacing):
    found = [of(placed(holds, half, spacing, seed, turn), spacing)["sphericity"] for seed in range(4)]
    assert found == pytest.approx([sphericity] * 4, rel=0.05 if max(spacing) < 4 else 0.08)  # the module's table


def test_the_surface_of_a_ball_with_a_hole_is_that_of_both():
    for spacing in SPACINGS[:3]:
        shell = placed(lambda x, y, z: abs(np.sqrt(x**2 + y**2 + z**2) - 10) <= 4, 15, spacing, 3, False)
        assert surface_area(shell, spacing) == pytest.approx(4 * np.pi * (14**2 + 6**2), rel=0.03)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    smooth=st.sampled_from([0, 0.6, 1.2, 2]),
    share=st.floats(0.1, 0.9),
)
def test_no_lesion_is_rounder_than_a_ball_and_none_has_more_surface_than_its_voxel_faces(seed, spacing, smooth, share):
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((7, 9, 8)), smooth)
    blob = field > np.quantile(field, share)
    found = of(np.pad(blob, 1), spacing).get("sphericity")
    assert np.isnan(found) or 0 < found <= 1
    steps = [np.count_nonzero(np.diff(np.pad(blob, 1).astype(int), axis=axis)) for axis in range(3)]
    faces = sum(count * np.prod(spacing) / size for count, size in zip(steps, spacing, strict=True))
    ball = np.cbrt(36 * np.pi * (blob.sum() * np.prod(spacing)) ** 2)
    assert ball * (1 - 1e-9) <= surface_area(blob, spacing) <= faces * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.5, 5.0])] * 3),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
    scale=st.sampled_from([0.1, 0.7, 3.0]),
)
def test_a_surface_is_the_same_in_any_order_and_direction_of_the_axes(seed, spacing, order, flips, scale):
    blob = gaussian_filter(np.random.default_rng(seed).standard_normal((9, 11, 10)), 1.3) > 0.02
    turned = np.flip(blob, [axis for axis in range(3) if flips[axis]]).transpose(order)
    sides = [spacing[axis] * scale for axis in order]
    assert surface_area(turned, sides) == pytest.approx(surface_area(blob, spacing) * scale**2, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), spacing=st.tuples(*[st.floats(0.4, 5)] * 3))
def test_the_largest_diameter_is_that_of_the_mesh_of_another_library(seed, spacing):
    blob = gaussian_filter(np.random.default_rng(seed).standard_normal((9, 10, 8)), 1.2) > 0.05
    vertices = marching_cubes(np.pad(blob, 1).astype(float), 0.5, spacing=spacing)[0]
    points = outline(blob, spacing)
    assert pdist(points).max() == pytest.approx(pdist(vertices).max(), rel=1e-5)


@pytest.mark.parametrize("spacing", [ISOTROPIC, (0.5, 3.0, 2.0)])
def test_a_box_has_the_diagonal_between_its_faces(spacing):
    mask, sides = np.zeros((20, 16, 12), bool), np.array([10, 6, 4]) * spacing
    mask[3:13, 4:10, 5:9] = 1  # the hull's vertices are the centres of the outermost faces
    full = [np.linalg.norm(np.where(np.arange(3) == k, sides, sides - spacing)) for k in range(3)]
    found = of(mask, spacing)
    assert found["diameter_mm"] == pytest.approx(max(full))
    assert found["axial_diameter_mm"] == pytest.approx(
        max(np.hypot(sides[0], sides[1] - spacing[1]), np.hypot(sides[0] - spacing[0], sides[1]))
    )


@pytest.mark.parametrize("angle", [0, 20, 45, 77])
def test_callipers_take_both_axes_of_a_turned_ellipse(angle):
    x, y = np.meshgrid(np.arange(0, 60, 0.5), np.arange(0, 60, 0.25), indexing="ij")
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    u, v = c * (x - 30) + s * (y - 30), c * (y - 30) - s * (x - 30)
    assert callipers((u / 24) ** 2 + (v / 9) ** 2 <= 1, (0.5, 0.25)) == pytest.approx((48, 18), abs=0.9)


def test_the_second_axis_is_across_the_longest_not_the_second_longest():
    x, y = np.meshgrid(np.arange(100) * 0.5, np.arange(100) * 0.5, indexing="ij")
    flat = (x >= 2) & (y >= 2) & ((x - 2) / 40 + (y - 2) / 30 <= 1)  # sides of 30, 40 and 50 mm
    assert callipers(flat, (0.5, 0.5)) == pytest.approx((50, 24), abs=0.8)  # 24 is the height; 40 the second side


def test_the_sum_is_of_the_five_longest_of_ten_millimetres_or_more():
    mask = np.zeros((150, 24, 24), bool)
    for k, radius in enumerate([9, 8, 7, 6.5, 6, 5.5, 3]):
        mask |= ellipsoid((12 + 20 * k, 12, 12), [radius] * 3, shape=mask.shape)
    found = of(mask)
    assert found["lesions_found"] == 7
    assert found["rano_sum_mm"] == pytest.approx(2 * (9 + 8 + 7 + 6.5 + 6), abs=5)


def test_a_wide_lesion_on_one_slice_is_not_measurable_and_two_slices_are():
    mask = np.zeros((30, 30, 8), bool)
    mask[5:25, 5:25, 3] = 1
    assert (of(mask)["rano_sum_mm"], of(mask)["axial_diameter_mm"]) == (0, pytest.approx(np.hypot(20, 19)))
    mask[5:25, 5:25, 4] = 1
    assert of(mask)["rano_sum_mm"] == pytest.approx(np.hypot(20, 19))


def test_of_two_lesions_of_one_volume_the_longer_is_described():
    mask = np.zeros((40, 30, 20), bool)
    mask[2:10, 2:10, 2:10] = mask[2:34, 15:19, 4:8] = 1  # both 512 voxels
    for turned in (mask, mask[::-1], mask[:, ::-1]):
        assert of(turned)["axial_diameter_mm"] == pytest.approx(np.hypot(32, 3))


# --- rim and oedema


@pytest.mark.parametrize(
    "spacing, near",
    [
        (ISOTROPIC, 0.25),
        ((0.5, 0.5, 0.5), 0.15),
        ((2.0, 2.0, 2.0), 0.3),
        ((1.0, 3.0, 1.0), 0.4),
        ((0.8, 0.8, 2.5), 0.4),
        (THICK, 0.75),
    ],
)
def test_shells_have_the_thickness_that_was_drawn(spacing, near):
    found = of(shells(10, 15, 23, spacing), spacing, LABELS)
    assert found["rim_mm"] == pytest.approx(5, abs=near)
    assert found["oedema_reach_mm"] == pytest.approx(8, abs=near)
    assert found["oedema_reach_mm"] <= found["oedema_reach_p95_mm"] <= 8 + max(spacing)


@pytest.mark.parametrize("spacing", [ISOTROPIC, (0.8, 0.8, 2.5), THICK])
def test_the_rim_of_an_ellipsoid_is_what_its_axes_differ_by(spacing):
    shape = [int(60 / s) for s in spacing]
    rings = [ellipsoid((30, 30, 30), radii, spacing, shape) for radii in ((16, 8, 10), (20, 12, 14))]
    found = of(np.select(rings, [NECROSIS, ENHANCING], 0).astype(np.uint8), spacing, LABELS)
    assert found["rim_mm"] == pytest.approx(4, rel=0.06)


def test_a_solid_lesion_beside_one_with_a_core_does_not_thicken_the_rim():
    mask = np.zeros((60, 40, 40), np.uint8)
    one = shells(6, 10, 10.5)
    mask[tuple(slice(2, 2 + n) for n in one.shape)] = np.where(one == OEDEMA, 0, one)
    alone = of(mask, labels=LABELS)["rim_mm"]
    mask[40:52, 10:20, 10:20] = ENHANCING
    assert of(mask, labels=LABELS)["rim_mm"] == pytest.approx(alone)


def test_a_bare_core_has_a_rim_of_nothing():
    assert of(shells(6, 6, 6), labels=LABELS)["rim_mm"] == 0


def test_oedema_on_one_side_reaches_as_far_as_it_does():
    mask = np.zeros((60, 20, 20), np.uint8)
    mask[5:15, 5:15, 5:15] = ENHANCING
    mask[15:45, 5:15, 5:15] = OEDEMA
    found = of(mask, labels=LABELS)
    assert found["oedema_reach_p95_mm"] == pytest.approx(30, abs=1)
    sides, end = 4 * 10 * sum(np.arange(30) + 0.5), 100 * 30
    assert found["oedema_reach_mm"] == pytest.approx((sides + end) / (4 * 300 + 100), rel=0.03)


# --- what cannot be measured


@pytest.mark.parametrize("value", [0, OEDEMA])
def test_without_tumour_volumes_are_zero_and_the_rest_is_explained(value):
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:20, 10:20, 10:20] = value
    found, reasons = measure(image(mask), LABELS)
    assert found["tumour_ml"] == found["largest_ml"] == found["lesions_found"] == found["rano_sum_mm"] == 0
    assert found["whole_ml"] == (1.0 if value else 0.0)
    missing = {name for name, number in found.items() if np.isnan(number)}
    assert missing == set(reasons[0].partition(":")[0].split(", "))
    assert {"oedema_to_tumour", "diameter_mm", "rim_mm", "oedema_reach_mm"} <= missing


def test_one_voxel_has_its_own_size_and_no_shape():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = 1
    found, reasons = measure(image(mask, (1.0, 2.0, 3.0)), {1: "tumour"})
    assert found["tumour_ml"] == pytest.approx(0.006)
    assert (found["diameter_mm"], found["axial_diameter_mm"], found["rano_product_mm2"]) == pytest.approx((3, 2, 2))
    assert np.isnan(found["sphericity"]) and reasons == ["sphericity: the largest lesion is one voxel thick"]


@pytest.mark.parametrize(
    "voxels, shape", [((3, 3, 3), True), ((2, 2, 6), False), ((2, 3, 4), False), ((2, 2, 7), True)]
)
def test_a_shape_takes_twenty_seven_voxels(voxels, shape):
    found, reasons = measure(image(np.pad(np.ones(voxels, bool), 1)), {1: "tumour"})
    assert np.isnan(found["sphericity"]) != shape
    assert reasons == ([] if shape else ["sphericity: the largest lesion has fewer than 27 voxels"])


def test_a_mask_of_one_slice_is_measured_and_explained():
    mask = ellipsoid((20, 20, 0), (8, 6, 1), shape=(44, 44, 1))
    found, reasons = measure(image(mask, THICK), {1: "tumour"})
    assert found["axial_diameter_mm"] == pytest.approx(8, abs=1)
    assert np.isnan(found["sphericity"]) and len(reasons) == 2


def test_a_tumour_at_the_border_is_measured_as_if_air_were_beyond_and_said():
    mask = ball(8)
    box = mask[2:-2, 2:-2, 2:-2]
    cut = box[next(k for k, plane in enumerate(box) if plane.any()) :]
    found, reasons = measure(image(cut), {1: "tumour"})
    assert found == pytest.approx(of(mask))
    assert len(reasons) == 1 and reasons[0].endswith("reaches the border of the mask")


def test_no_core_and_no_oedema_are_explained():
    found, reasons = measure(image(ball(8).astype(np.uint8) * ENHANCING), LABELS)
    assert (found["necrosis_fraction"], found["oedema_to_tumour"]) == (0, 0)
    assert np.isnan([found["rim_mm"], found["oedema_reach_mm"], found["oedema_reach_p95_mm"]]).all()
    assert reasons == ["rim_mm: no necrotic core", "oedema_reach_mm, oedema_reach_p95_mm: no oedema"]


def test_every_column_can_be_printed():
    found, _ = measure(image(shells(4, 8, 12)), LABELS, {"t1n": image(shells(4, 8, 12))})
    assert set(found) <= set(FEATURES)
    units = {"mm": "mm", "ml": "mL", "mm2": "mm²"}
    assert all(FEATURES[name][1] == units.get(name.rpartition("_")[2], FEATURES[name][1]) for name in found)


# --- properties


@lru_cache(maxsize=32)
def lumps(seed: int) -> np.ndarray:
    """Random lesions with cores and oedema."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((22, 20, 18)), 2)
    noise /= noise.std()
    return np.select([noise > 2, noise > 1.2, noise > 0.7], [NECROSIS, ENHANCING, OEDEMA], 0).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 20),
    flips=st.tuples(*[st.booleans()] * 3),
    order=st.permutations(range(3)),
    mirrored=st.booleans(),
    oblique=st.booleans(),
)
def test_the_order_and_sense_of_the_axes_change_nothing(seed, flips, order, mirrored, oblique):
    # the third axis of the oblique image is nearest to the head, by little: 0.48, 0.64 and 0.60 are not
    direction = (1, 0, 0, 0, 0.8, -0.6, 0, 0.6, 0.8) if oblique else (1, 0, 0, 0, 1, 0, 0, 0, 1)
    array = lumps(seed)
    first = image(array, (0.9, 1.1, 2.0), direction)
    other = image(array[::-1] if mirrored else array, (0.9, 1.1, 2.0), direction)
    other = sitk.PermuteAxes(sitk.Flip(other, flips), order)
    assert measure(other, LABELS)[0] == pytest.approx(measure(first, LABELS)[0], rel=1e-6, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 20), factor=st.floats(0.5, 3))
def test_millimetres_scale_with_the_voxel_and_volumes_with_its_cube(seed, factor):
    spacing = np.array([0.9, 1.1, 2.0])
    one, scaled = of(lumps(seed), spacing, LABELS), of(lumps(seed), factor * spacing, LABELS)
    power = {"_mm": 1, "_mm2": 2, "_ml": 3}
    for name in set(one) - {"lesions_found", "rano_sum_mm"}:  # which have a least size in them
        expected = one[name] * factor ** power.get("_" + name.rpartition("_")[2], 0)
        assert scaled[name] == pytest.approx(expected, rel=1e-6, nan_ok=True), name


def test_the_axial_slices_are_those_across_the_head_whatever_the_storage():
    long = ellipsoid((20, 20, 20), (6, 9, 17))
    assert of(long)["axial_diameter_mm"] == pytest.approx(18, abs=1)
    coronal = (1, 0, 0, 0, 0, 1, 0, -1, 0)  # columns: where the axes run; the second one to the feet
    assert axial_axis(image(long, direction=coronal)) == 1
    assert of(long, direction=coronal)["axial_diameter_mm"] == pytest.approx(34, abs=1)


def test_an_oblique_image_gives_the_lengths_of_the_straight_one():
    mask = shells(5, 9, 13)
    straight, oblique = of(mask, labels=LABELS), of(mask, labels=LABELS, direction=OBLIQUE)
    assert oblique == pytest.approx(straight, rel=1e-6)  # a ball is the same from every side


def test_other_numbers_and_a_large_empty_frame_change_nothing():
    mask = shells(5, 9, 13)
    framed = np.pad(mask, ((30, 9), (4, 55), (12, 3)))
    assert of(framed, labels=LABELS) == pytest.approx(of(mask, labels=LABELS))
    framed[2, 2, 2] = 9  # not in the labels
    assert of(framed, labels=LABELS) == pytest.approx(of(mask, labels=LABELS))


# --- brain


def egg(spacing=(2.0, 2.0, 2.0), sides=(140, 176, 144), shape=(80, 98, 84)) -> np.ndarray:
    middle = [(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)]
    return ellipsoid(middle, np.array(sides) / 2, spacing, shape)


@pytest.mark.parametrize("depth", [0, 10, 30])
def test_distance_to_the_surface_is_that_along_the_axis(depth):
    brain, spacing = egg(), (2.0, 2.0, 2.0)
    tumour = ellipsoid((79 - 70 + 8 + depth, 97, 83), [8] * 3, spacing, brain.shape)  # 8 mm of radius
    found, _ = measure(image(tumour, spacing), {1: "tumour"}, {"t1c": image(brain.astype(np.int16) * 100, spacing)})
    assert found["surface_mm"] == pytest.approx(depth, abs=1.5)


def test_a_tumour_that_sticks_out_of_the_brain_touches_its_surface():
    brain, spacing = egg(), (2.0, 2.0, 2.0)
    tumour = ellipsoid((11, 97, 83), [8] * 3, spacing, brain.shape)
    found, _ = measure(image(tumour, spacing), {1: "tumour"}, {"t1c": image(brain.astype(np.int16), spacing)})
    assert found["surface_mm"] == 0


@pytest.mark.parametrize(
    "scan, says",
    [
        (egg(sides=(156, 192, 164)), "mL of it are not zero"),  # as large as a head
        (np.pad(np.ones((50, 50, 50)), 15), "% of the box"),  # a thigh cut by its box
        (egg() * np.nan, "0 mL"),
        (np.ones((80, 98, 84)), "mL of it"),  # noise in the air
    ],
)
def test_a_scan_that_is_no_stripped_brain_has_no_distances_and_a_reason(scan, says):
    tumour = np.zeros(scan.shape, bool)
    tumour[38:44, 38:44, 38:44] = 1
    spacing = (2.2, 2.2, 2.2)
    found, reasons = measure(image(tumour, spacing), {1: "tumour"}, {"t1n": image(scan.astype(np.float32), spacing)})
    assert np.isnan([found["surface_mm"], found["ventricle_mm"]]).all()
    assert len(reasons) == 1 and "not skull-stripped" in reasons[0] and says in reasons[0]


def test_a_sequence_on_another_grid_is_left_out_and_named():
    brain, spacing = egg().astype(np.int16), (2.0, 2.0, 2.0)
    tumour = ellipsoid((60, 97, 83), [8] * 3, spacing, brain.shape)
    images = {"t1c": image(brain, spacing), "t2w": image(brain[:-1], spacing)}
    found, reasons = measure(image(tumour, spacing), {1: "tumour"}, images)
    assert found["surface_mm"] > 0 and np.isnan(found["ventricle_mm"])
    assert reasons[0] == "surface_mm, ventricle_mm: t2w is not on the grid of the mask" and "ventricle_mm" in reasons[1]


def test_ct_and_pet_have_no_distance_to_a_brain():
    tumour = image(ball(6))
    assert "surface_mm" not in measure(tumour, {1: "tumour"}, {"ct": tumour, "pt": tumour})[0]


@lru_cache(maxsize=1)
def template_ventricles() -> np.ndarray:
    """Places of the template (its voxels) within 4 mm of its lateral ventricles."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    t1, grey, white = (np.asarray(load(resolution=1).dataobj, dtype=np.float32) for load in loaders)
    numbered, _ = label((t1 > 0) - grey - white > 0.5)
    near = np.zeros(t1.shape, bool)
    box = np.s_[40:160, 60:180, 50:120]
    near[box] = distance_transform_edt(numbered[box] != numbered[116, 99, 87]) <= 4
    return near


def true_distance(brain, mask: np.ndarray) -> float:
    """From tumour to the fluid that the phantom drew where its template has the lateral ventricles."""
    voxel = np.round(brain.mni_mm + np.array([98, 134, 72]).reshape(3, 1, 1, 1)).astype(int)
    voxel = np.clip(voxel.reshape(3, -1).T, 0, np.array(template_ventricles().shape) - 1)
    fluid = template_ventricles()[tuple(voxel.T)].reshape(mask.shape) & (brain.csf > 0.5)
    centres = [np.argwhere(part) * brain.spacing_mm for part in (fluid, np.isin(mask, [NECROSIS, ENHANCING]))]
    return cKDTree(centres[0]).query(centres[1])[0].min() - brain.spacing_mm  # between faces


def test_the_ventricles_of_the_phantom_are_found_where_they_were_drawn():
    from survpack.phantom import mets

    chart, looks, own, _ = mets.drawn(12, 2, 5)
    errors = []
    for row in chart.iloc[:3].itertuples():
        rng, brain, mask, rim = mets.body(own[row.patient_id], row.lesion_count, 2.0)
        scans = mets.images(rng, brain, mask, rim, looks[row.site])
        images = {name: image(scan, (2.0, 2.0, 2.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1)) for name, scan in scans.items()}
        on_grid = image(mask, (2.0, 2.0, 2.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
        errors.append(measure(on_grid, LABELS, images)[0]["ventricle_mm"] - max(true_distance(brain, mask), 0))
    assert np.abs(errors).max() < 6 and np.abs(errors).mean() < 2


# --- real data

DATA = Path(os.environ.get("SURVPACK_DATA", "/nonexistent"))


def real(folder: str):
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"SURVPACK_DATA has no folder {folder}")


def counted(path: Path, number: int) -> float:
    """Millilitres of a label by nibabel: voxels times the determinant of the affine."""
    read = nib.load(path)
    return np.count_nonzero(np.asarray(read.dataobj) == number) * abs(np.linalg.det(read.affine[:3, :3])) / 1000


@real("kits19")
def test_volumes_of_kidney_tumours_are_those_of_an_independent_count():
    paths = sorted((DATA / "kits19").glob("case_*/segmentation.nii.gz"))[::70]
    assert len(paths) >= 3
    for path in paths:
        found, _ = measure(sitk.ReadImage(path), {1: "kidney", 2: "tumour"})
        assert found["tumour_ml"] == pytest.approx(counted(path, 2), rel=1e-3)
        assert found["kidney_ml"] == pytest.approx(counted(path, 1), rel=1e-3)
        assert found["axial_diameter_mm"] <= found["diameter_mm"] + 1e-6


@real("sts")
def test_volumes_of_sarcomas_are_those_of_an_independent_count_and_no_thigh_is_a_brain():
    from survpack.adapters import sts

    rows = sts.discover(DATA / "sts")
    for row in rows[rows["patient_id"].isin(["STS_002", "STS_020", "STS_036", "STS_047"])].itertuples():
        found, _ = measure(sitk.ReadImage(row.mask_path), {1: "tumour"})
        assert found["tumour_ml"] == pytest.approx(counted(row.mask_path, 1), rel=1e-3)
    for row in rows[rows["patient_id"].isin(["STS_004", "STS_036", "STS_039", "STS_047"])].itertuples():
        scan = sitk.ReadImage(row.path)  # of these, a sixth or more of the MR is zero
        assert not_a_brain(sitk.GetArrayViewFromImage(scan).T != 0, scan.GetSpacing()), row.patient_id


@real("brats-met")
def test_a_real_brain_is_taken_as_one_and_its_ventricles_lie_at_its_middle():
    scans = {
        name: sitk.ReadImage(next((DATA / "brats-met").rglob(f"*{name}.nii.gz"))) for name in ("t1n", "t2w", "t2f")
    }
    shape, brain = scans["t1n"].GetSize(), sitk.GetArrayViewFromImage(scans["t2w"]).T != 0
    edge = outline(brain, (1, 1, 1))
    middle = (edge.min(0) + edge.max(0)) / 2
    distances = {}
    for name, shift in {"middle": (0, 0, 0), "right": (-45, 0, 0), "left": (45, 0, 0)}.items():
        mask = image(ellipsoid(middle + shift, [6] * 3, shape=shape).astype(np.uint8) * ENHANCING)
        mask.CopyInformation(scans["t1n"])
        found, reasons = measure(mask, LABELS, scans)
        assert not [reason for reason in reasons if "surface" in reason or "ventricle" in reason]
        distances[name] = found["ventricle_mm"]
    assert distances["middle"] < 10 < min(distances["left"], distances["right"])
