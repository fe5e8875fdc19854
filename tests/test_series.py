"""Series in: where every voxel lies, and what every stored number means, against planted truths."""

import tempfile
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scipy.spatial.transform import Rotation
from test_dicom import AXIAL, FRAME, circle, make_series, make_structures, pet, spoil, values_of

from survpack.dicom import convert, lattice
from survpack.dicom.series import find, ordered
from survpack.dicom.values import read, volume
from survpack.errors import BadInput
from survpack.preprocess import read_image

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
SLOPES = np.array([0.7, -0.4, 1.3])  # of a planted field: what a voxel holds tells where it is


def field(places):
    return np.asarray(places) @ SLOPES


def stack(count=12, step=4.0, direction=AXIAL, along=None, shape=(20, 16), spacing=(2.0, 3.0), start=(10, -20, 30)):
    """Positions, cosines (each of every slice) and the planted volume; `along` is where the slices step to."""
    direction = np.array(direction, dtype=float)
    along = np.cross(direction[:3], direction[3:]) if along is None else np.asarray(along)
    positions = np.array(start) + step * np.arange(count)[:, None] * along
    rows, columns = np.meshgrid(np.arange(shape[0]) * spacing[0], np.arange(shape[1]) * spacing[1], indexing="ij")
    plane = rows[..., None] * direction[:3] + columns[..., None] * direction[3:]
    return positions, np.tile(direction, (count, 1)), np.stack([field(place + plane) for place in positions], axis=2)


def written(folder, positions, directions, planted, modality="CT", change=None, **tags):
    """A series whose slices hold `planted` in hundredths, and lie where they are told to."""
    tags = {"SeriesDescription": "T1"} | tags
    scaled = np.round(planted * 100) if np.abs(planted).max() < 300 else planted
    scaled -= scaled.min() if modality == "MR" else 0
    made = make_series(folder, modality, volume=scaled, **tags)
    for number, path in enumerate(made):
        ds = pydicom.dcmread(path)
        ds.ImagePositionPatient = [f"{value:.10g}"[:16] for value in positions[number]]
        ds.ImageOrientationPatient = [f"{value:.10g}"[:16] for value in directions[number]]
        ds.RescaleSlope, ds.RescaleIntercept = (0.01 if np.abs(planted).max() < 300 else 1), 0
        if change:
            change(number, ds)
        ds.save_as(path)
    return made


def taken(folder):
    """What `volume` makes of the one series, and that both NIfTI readers take what is written of it."""
    values, affine, facts = volume(find(folder).series[0])
    path = str(Path(folder) / "written.nii.gz")
    nib.save(nib.Nifti1Image(values, np.diag([-1, -1, 1, 1]) @ affine), path)
    image = read_image(path)
    assert sitk.ReadImage(path).GetSize() == image.GetSize()
    for voxel in [(0, 0, 0), (3, 2, 1)]:
        expected = affine @ [*voxel, 1]
        assert image.TransformIndexToPhysicalPoint(voxel) == pytest.approx(expected[:3], abs=1e-3)
    return values, affine, facts


def places(affine, shape):
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


# Where a slice lies


def test_two_of_twelve_slices_shifted_sideways_are_refused_with_their_numbers_and_how_far(tmp_path):
    """The starred case."""
    positions, directions, planted = stack()
    positions[[5, 6], 0] += 10
    written(tmp_path, positions, directions, planted)
    with pytest.raises(
        BadInput, match=r"2 of 12 slices off the line of the others \(slice 6 by 10.0 mm, slice 7 by 10.0 mm\)"
    ):
        ordered(find(tmp_path).series[0])


def moved(change):
    """Positions, cosines and what else of a stack, after a change to it."""
    positions, directions, planted = stack()
    change(positions, directions)
    return positions, directions, planted


def turned(directions, number, degrees, axis):
    directions[number] = (
        Rotation.from_rotvec(np.radians(degrees) * np.array(axis)).apply(directions[number].reshape(2, 3)).ravel()
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p, d: p[6:].__iadd__(np.outer(np.arange(6), [0.6, 0, 0])), "off the line"),
        (lambda p, d: p[6:].__iadd__([0, 0, 0.9]), "4.00 to 4.90 mm apart .oddly between slices 6 and 7"),
        (lambda p, d: p[::2].__iadd__([0, 7, 0]), "off the line"),
        (lambda p, d: p[3].__iadd__([0, -1.5, 0]), "1 of 12 slices .* .slice 4 by 1.5 mm"),
        (lambda p, d: p[11].__iadd__([2, 2, 0]), "slice 12 by 2.8 mm"),
        (lambda p, d: p[0].__iadd__([0, 0.5, 0]), "slice 1 by 0.5 mm"),
        (lambda p, d: p[7].__iadd__([0, 0, 1.0]), "3.00 to 5.00 mm apart"),
        (lambda p, d: p[6:].__iadd__(np.outer(np.arange(6), [0, 0, 1])), "4.00 to 5.00 mm apart"),
        (lambda p, d: p[4:].__iadd__([0, 0, 4]), "4.00 to 8.00 mm apart .oddly between slices 4 and 5"),
        (lambda p, d: p[4].__setitem__(slice(None), p[3]), "two slices at one place"),
        (lambda p, d: p[1::2].__isub__([0, 0, 2.5]), "apart"),
        (lambda p, d: turned(d, 5, 3, [0, 0, 1]), "several directions"),
        (lambda p, d: turned(d, 5, 2, [1, 0, 0]), "several directions"),
        (lambda p, d: d[2].__setitem__(slice(None), [0, 1, 0, 0, 0, -1]), "several directions"),
        (lambda p, d: d.__imul__([1, 1, 1, 1, 0.4, 1]), "no right angle"),
    ],
)  # fmt: skip
def test_a_stack_that_is_no_even_lattice_is_refused(tmp_path, change, told):
    written(tmp_path, *moved(change))
    with pytest.raises(BadInput, match=told):
        ordered(find(tmp_path).series[0])


def test_a_frame_with_other_pixels_is_refused_and_one_with_the_rounded_same_is_not(tmp_path):
    def other(spacing):
        return lambda number, ds: setattr(ds, "PixelSpacing", spacing if number == 4 else [3.0, 2.0])

    written(tmp_path / "other", *stack(), change=other([3.0, 2.5]))
    with pytest.raises(BadInput, match="pixels of several sizes"):
        ordered(find(tmp_path / "other").series[0])
    written(tmp_path / "same", *stack(), change=other([3.0001, 2.0]))
    values, affine, _ = taken(tmp_path / "same")
    assert values == pytest.approx(field(places(affine, values.shape)), abs=0.01)


def test_slices_whose_location_and_position_order_them_differently_are_refused(tmp_path):
    positions, directions, planted = stack()
    swapped = positions.copy()
    swapped[[4, 5]] = positions[[5, 4]]
    told = {"change": lambda number, ds: setattr(ds, "SliceLocation", 30 - 4.0 * number)}
    written(tmp_path / "swapped", swapped, directions, planted, **told)
    with pytest.raises(BadInput, match="slices 5 and 6 in one order by position, in another by Slice Location"):
        ordered(find(tmp_path / "swapped").series[0])
    written(tmp_path / "right", positions, directions, planted, **told)
    assert volume(find(tmp_path / "right").series[0])[0].shape == planted.shape
    noise = {"change": lambda number, ds: setattr(ds, "SliceLocation", (number * 5) % 7)}
    written(tmp_path / "noise", positions, directions, planted, **noise)  # a location that orders nothing
    assert volume(find(tmp_path / "noise").series[0])[0].shape == planted.shape


@pytest.mark.parametrize(
    "begin", [[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2], [0, 1, 2, 3, 4, 5] * 2, [100, 101, 102, *range(9)]]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_slice_location_that_begins_again_contradicts_no_position(tmp_path, begin, sign):
    again = {"change": lambda number, ds: setattr(ds, "SliceLocation", sign * 4.0 * begin[number])}
    positions, directions, planted = stack()
    written(tmp_path, positions, directions, planted, **again)
    values, affine, _ = taken(tmp_path)
    assert values == pytest.approx(field(places(affine, values.shape)), abs=0.01)


@pytest.mark.parametrize(
    "order", [[*range(6, 12), *range(6)], [0, 1, 2, 5, 4, 3, *range(6, 12)], [*range(10), 11, 10], [1, 0, *range(2, 12)], [0, 1, 2, 3, 5, 4, 6, 7, 8, 0, 1, 2]]
)  # fmt: skip
def test_a_slice_location_that_orders_the_same_places_otherwise_is_refused(tmp_path, order):
    other = {"change": lambda number, ds: setattr(ds, "SliceLocation", 4.0 * order[number])}
    written(tmp_path, *stack(), **other)
    with pytest.raises(BadInput, match="in another by Slice Location"):
        ordered(find(tmp_path).series[0])


SCOUT = [1, 0, 0, 0, 0, -1]


def with_strays(folder, *changes, **stacked):
    """A stack, and a copy of its first slice for each change, as of the same series; the strays come first by name."""
    made = written(folder, *stack(**stacked))
    for number, change in enumerate(changes):
        ds = pydicom.dcmread(made[0])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        change(ds)
        ds.save_as(folder / f"0{number}.dcm")


def larger(ds):
    ds.Rows, ds.Columns, ds.PixelData = 10, 10, bytes(200)


def unplaced(ds):
    del ds.ImagePositionPatient, ds.ImageOrientationPatient


def across(ds):
    ds.ImageOrientationPatient = SCOUT


@pytest.mark.parametrize("changes", [[across], [unplaced], [larger], [across, across, unplaced]])
def test_scouts_and_screenshots_within_a_series_are_left_out_and_told(tmp_path, changes):
    with_strays(tmp_path / "in", *changes)
    found = find(tmp_path / "in")
    assert found.counted["scout views or screenshots within a series"] == len(changes)
    assert "ImagePositionPatient" in found.series[0].head and found.series[0].head.Rows == 16
    values, affine, _ = taken(tmp_path / "in")
    assert values.shape == (20, 16, 12)
    assert values == pytest.approx(field(places(affine, values.shape)), abs=0.01)
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert f"left out: {len(changes)} files scout views or screenshots within a series" in told


def next_one(ds):
    across(ds)
    ds.ImagePositionPatient = [10, -20, 30 + 48]


def turned_a_little(ds):
    turned(cosines := np.array([ds.ImageOrientationPatient], dtype=float), 0, 3, [0, 0, 1])
    ds.ImageOrientationPatient, ds.ImagePositionPatient = cosines[0].round(6).tolist(), [10, -20, 30 + 48]


@pytest.mark.parametrize("changes", [[next_one], [turned_a_little], [across] * 4, [lambda ds: ds.pop("PixelSpacing")]])
def test_what_may_be_a_slice_with_a_spoilt_header_is_no_scout(tmp_path, changes):
    with_strays(tmp_path, *changes)
    with pytest.raises(BadInput, match="several directions|two slices at one place|without position"):
        ordered(find(tmp_path).series[0])


def test_few_slices_and_a_scout_are_refused(tmp_path):
    with_strays(tmp_path, across, count=8)
    with pytest.raises(BadInput, match="several directions"):
        ordered(find(tmp_path).series[0])


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize(
    "direction",
    [AXIAL, [-1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [0, 0, 1, 0, 1, 0], [0.8, 0.6, 0, 0, 0, -1]],
)  # fmt: skip
def test_a_voxel_holds_what_lies_at_its_place_whatever_the_order_and_direction(tmp_path, modality, direction):
    positions, directions, planted = stack(direction=direction)
    order = np.random.default_rng(0).permutation(12)

    def contradiction(number, ds):
        ds.update({"SpacingBetweenSlices": 9, "SliceThickness": 1, "ImagerPixelSpacing": [1, 1]})

    written(tmp_path, positions[order], directions[order], planted[:, :, order], modality, contradiction)
    values, affine, facts = taken(tmp_path)
    lost = np.round(planted * 100).min() / 100 if modality == "MR" else 0
    assert values + lost == pytest.approx(field(places(affine, values.shape)), abs=0.01)
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx([2, 3, 4])
    assert facts == {}


@pytest.mark.parametrize("noise", [1e-4, 1e-5])
def test_tiny_differences_of_cosines_and_positions_are_one_lattice(tmp_path, noise):
    positions, directions, planted = stack(
        direction=Rotation.from_euler("xyz", [9, 20, 30], True).as_matrix()[:2].ravel()
    )
    rng = np.random.default_rng(1)
    written(
        tmp_path,
        positions + rng.normal(0, noise, positions.shape),
        directions + rng.normal(0, noise, directions.shape),
        planted,
    )
    values, affine, _ = taken(tmp_path)
    assert values == pytest.approx(field(places(affine, values.shape)), abs=0.03)


# A tilted gantry


def tilted(degrees, count=24, step=2.5, **more):
    """CT slices that are tilted by an angle and step along the table."""
    turn = np.radians(degrees)
    return stack(
        count, step, [1, 0, 0, 0, np.cos(turn), np.sin(turn)], [0, 0, 1], shape=(24, 30), spacing=(2.0, 3.0), **more
    )


@pytest.mark.parametrize("degrees", [0.3, 1, 5, 12, 18, -7, -18])
def test_a_tilted_gantry_is_set_upright_and_every_voxel_holds_what_lies_at_its_place(tmp_path, degrees):
    """The starred case: 0.3 to 18 degrees."""
    positions, directions, planted = tilted(degrees)
    written(tmp_path, positions, directions, planted)
    values, affine, facts = taken(tmp_path)
    if abs(degrees) < 0.4:  # 0.3 mm over the stack; 0.2 is a tenth of a voxel
        assert abs(values.shape[1] - 30) <= 1
    assert facts["Resampled"] == f"gantry tilt of {abs(degrees):.1f} degrees removed"
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.norm(affine[:3, 2]) == pytest.approx(2.5 * np.cos(np.radians(degrees)))
    found, truth = values, field(places(affine, values.shape))
    outside = found == found.min()
    for number in range(24):  # a slice keeps its whole width, and the plane it was in
        inside = ~outside[:, :, number]
        assert inside[3].sum() >= 29
        assert (
            np.abs(found - truth)[:, :, number][:, 1:-1][inside[:, 1:-1] & inside[:, :-2] & inside[:, 2:]].max() < 0.02
        )


@pytest.mark.parametrize(("degrees", "count"), [(0.05, 24), (0.3, 12)])
def test_a_tilt_of_a_tenth_of_a_voxel_over_the_stack_is_none(tmp_path, degrees, count):
    positions, directions, planted = tilted(degrees, count)
    written(tmp_path, positions, directions, planted)
    values, affine, facts = taken(tmp_path)
    assert "Resampled" not in facts and values.shape == planted.shape
    assert places(affine, values.shape)[0, 0] == pytest.approx(positions, abs=0.1)


def test_what_is_drawn_on_tilted_slices_fits_after_they_are_upright(tmp_path):
    turn, count, step = np.radians(15), 24, 2.5
    positions, directions, _ = tilted(15)
    plane = np.indices((24, 30)).transpose(1, 2, 0) @ np.array([[2, 0, 0], [0, 3 * np.cos(turn), 3 * np.sin(turn)]])
    centre = positions[12] + plane[12, 15]
    ball = np.stack([np.linalg.norm(place + plane - centre, axis=-1) < 15 for place in positions], axis=2)
    files = written(tmp_path / "in", positions, directions, np.where(ball, 40.0, -1000.0))
    contours, normal = [], np.array([0, -np.sin(turn), np.cos(turn)])
    for place in positions:
        height = (centre - place) @ normal
        if abs(height) < 15:
            ring = circle(np.sqrt(15**2 - height**2), 0, (0, 0))
            middle = centre - height * normal
            contours.append(middle + ring[:, :1] * [1, 0, 0] + ring[:, 1:2] * [0, np.cos(turn), np.sin(turn)])
    make_structures(tmp_path / "in", files, {"GTV": contours})
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert "sub-P1_ct: gantry tilt of 15.0 degrees removed" in told
    image, mask = (nib.load(next((tmp_path / "out").rglob(name))) for name in ("*_ct.nii.gz", "*_dseg.nii.gz"))
    inside, values = np.asarray(mask.dataobj) > 0, np.asarray(image.dataobj)
    size = abs(np.linalg.det(image.affine))
    assert size == pytest.approx(2 * 3 * step * np.cos(turn), rel=1e-5)
    assert inside.sum() * size == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.02)
    assert (values[inside] > -480).mean() > 0.93 and (values[~inside] > -480).sum() < 0.07 * inside.sum()
    middle = nib.affines.apply_affine(image.affine, np.argwhere(inside).mean(axis=0)) * [-1, -1, 1]
    assert middle == pytest.approx(centre, abs=0.3) and count == image.shape[2]


def test_a_sheared_mr_is_refused_and_a_ct_that_leans_too_far(tmp_path):
    positions, directions, planted = tilted(5)
    written(tmp_path / "mr", positions, directions, planted, "MR")
    with pytest.raises(BadInput, match="slices that step 5.0 degrees off their normal, expected along it"):
        ordered(find(tmp_path / "mr").series[0])
    written(tmp_path / "ct", *tilted(40))
    with pytest.raises(BadInput, match="40.0 degrees off their normal, .* 35 at most"):
        ordered(find(tmp_path / "ct").series[0])


@given(st.floats(-18, 18), st.integers(3, 60), st.floats(0.5, 5))
def test_upright_is_the_identity_without_a_tilt_and_never_loses_a_slice(degrees, count, step):
    positions, directions, _ = tilted(degrees, count, step)
    order, affine = lattice.fitted(positions, directions, [(30, 24, 3.0, 2.0)] * count, tilts=True)
    values = np.ones((24, 30, count), dtype=np.float32)
    upright, straight = lattice.upright(values, affine, 0.0)
    assert order.tolist() == list(range(count))
    assert upright.sum(axis=(0, 1)) == pytest.approx(24 * 30, rel=0.04)  # half a voxel of the border is extended
    assert (straight @ [0, 0, 1, 0])[:3] @ straight[:3, 1] == pytest.approx(0, abs=1e-6)
    if lattice.lean_of(affine)[1] == 0:
        assert np.array_equal(upright, values) and np.array_equal(straight, affine)


# Rounded headers


def rounded(positions, directions, decimals_of_positions, decimals_of_cosines):
    return np.round(positions, decimals_of_positions), np.round(directions, decimals_of_cosines)


@pytest.mark.parametrize("decimals", [(1, 9), (2, 9), (3, 9), (9, 1), (9, 2), (9, 3), (1, 1), (2, 2), (3, 3), (1, 3)])
@pytest.mark.parametrize("angles", [(12, 25, -8), (0, 0, 33), (3, 0, 0), (80, 10, 40)])
def test_an_oblique_mr_with_a_rounded_header_lies_within_half_a_voxel_of_the_truth(tmp_path, decimals, angles):
    """The starred case: positions or cosines of 1 to 3 decimals."""
    true = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:2].ravel()
    shape = (6, 5) if decimals[1] == 1 else (20, 16)
    positions, directions, planted = stack(10, 3.3, true, shape=shape)
    made = rounded(positions, directions, *decimals)
    written(tmp_path, *made, planted, "MR")
    try:
        values, affine, _ = taken(tmp_path)
    except BadInput as error:  # near an axis one decimal hides the turn; the positions show it
        assert "off their normal" in str(error) and decimals[1] == 1 and angles in ((3, 0, 0), (0, 0, 33))
        return
    truth = np.eye(4)
    truth[:3, :3] = np.array([*true.reshape(2, 3), np.cross(true[:3], true[3:])]).T * [2, 3, 3.3]
    truth[:3, 3] = positions[0]
    off = np.linalg.norm(places(affine, values.shape) - places(truth, values.shape), axis=-1)
    assert off.max() < (1.0 if decimals[1] < 3 else 0.2)
    assert np.linalg.norm(places(affine, values.shape)[0, 0] - made[0], axis=-1).max() <= 0.2


def test_rounding_that_leaves_the_corner_unsure_is_refused(tmp_path):
    true = Rotation.from_euler("xyz", [12, 25, -8], degrees=True).as_matrix()[:2].ravel()
    positions = np.array([10.0, -20, 30]) + 3 * np.arange(20)[:, None] * np.cross(true[:3], true[3:])
    for decimals, passes in ((1, False), (2, False), (3, True), (6, True)):
        made = np.tile(np.round(true, decimals), (20, 1))
        sizes = [(256, 256, 1.0, 1.0)] * 20
        if passes:
            _, affine = lattice.fitted(positions, made, sizes, tilts=False)
            corner = affine @ [255, 255, 19, 1]
            assert corner[:3] == pytest.approx(positions[19] + 255 * (true[:3] + true[3:]), abs=0.5)
        else:
            with pytest.raises(BadInput, match="direction cosines so coarse .* half a voxel .0.50 mm. at most"):
                lattice.fitted(positions, made, sizes, tilts=False)


@settings(max_examples=60)
@given(st.floats(0, 360), st.floats(0, 90), st.floats(0, 360), st.integers(2, 6), st.integers(1, 6), st.integers(3, 40))
def test_whatever_is_accepted_of_a_rounded_header_is_upright_and_near_the_truth(a, b, c, cosines, place, count):
    true = Rotation.from_euler("zxz", [a, b, c], degrees=True).as_matrix()[:2].ravel()
    positions = np.array([-117.31, 84.77, 12.49]) + 3.3 * np.arange(count)[:, None] * np.cross(true[:3], true[3:])
    made = np.round(positions, place), np.tile(np.round(true, cosines), (count, 1))
    try:
        _, affine = lattice.fitted(*made, [(64, 96, 1.1, 0.9)] * count, tilts=False)
    except BadInput as error:
        assert cosines == 2 and "coarse" in str(error) or cosines < 4 and "off their normal" in str(error)
        return
    size = np.linalg.norm(affine[:3, :3], axis=0)
    assert (affine[:3, :3] / size).T @ (affine[:3, :3] / size) == pytest.approx(np.eye(3), abs=1e-9)
    corner = affine @ [95, 63, count - 1, 1]
    expected = positions[-1] + 95 * 0.9 * true[:3] + 63 * 1.1 * true[3:]
    assert np.linalg.norm(corner[:3] - expected) < 0.9  # the bound is half of a voxel of 0.9, for one axis


# What a stored number means


@pytest.fixture
def grey():
    """Stored numbers of a CT with intercept -1024: air, water, 40 HU, bone."""
    volume = np.random.default_rng(0).integers(0, 3000, (18, 14, 4))
    volume[0, 0], volume[1, 0], volume[2, 0] = 0, 1024, 1064
    return volume


def changed(files, change):
    for number, path in enumerate(files):
        ds = pydicom.dcmread(path)
        change(number, ds)
        ds.save_as(path)
    return files


def test_a_ct_stored_as_monochrome1_is_not_inverted(tmp_path):
    """The starred case: air of -1024 read 3071, and 40 HU 2007."""
    grey = np.random.default_rng(0).integers(0, 4096, (6, 5, 4))
    grey[0, 0], grey[1, 0] = 0, 1064
    unsigned = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    files = make_series(tmp_path / "in", volume=grey)
    changed(files, lambda number, ds: ds.update(unsigned | {"PhotometricInterpretation": "MONOCHROME1"}))
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    found = values_of(tmp_path / "out/sub-P1/anat/sub-P1_ct.nii.gz")
    assert (found[0, 0] == -1024).all() and (found[1, 0] == 40).all()
    assert np.array_equal(found, grey - 1024)
    assert "MONOCHROME1" in (tmp_path / "out/sub-P1/anat/sub-P1_ct.json").read_text()


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("some", [False, True])
def test_monochrome1_changes_no_value_of_any_modality_or_sign(tmp_path, grey, modality, signed, some):
    files = make_series(tmp_path, modality, volume=grey)
    changed(files, lambda number, ds: setattr(ds, "PixelRepresentation", signed))
    expected, _ = read(files)
    changed(
        files,
        lambda number, ds: setattr(ds, "PhotometricInterpretation", f"MONOCHROME{1 if number or not some else 2}"),
    )
    found, facts = read(files)
    assert np.array_equal(found, expected) and "Stored" in facts
    assert np.array_equal(found, grey - (1024.0 if modality == "CT" else 0))


def lossless(stored):
    """JPEG lossless as GDCM writes it."""
    with tempfile.TemporaryDirectory() as place:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(f"{place}/a.dcm")
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(stored[None]))
        ds = pydicom.dcmread(f"{place}/a.dcm")
    assert ds.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return ds["PixelData"]


def packed(ds, syntax):
    """The slice in another transfer syntax."""
    stored = ds.pixel_array
    if syntax in (RLELossless, JPEGLSLossless):
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax == JPEGLosslessSV1:
        ds["PixelData"] = lossless(stored)
    elif syntax == JPEG2000Lossless:
        code = BytesIO()
        Image.fromarray(stored.astype(np.uint16)).save(code, "JPEG2000", no_jp2=True)
        ds.PixelData = encapsulate([code.getvalue()])
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = stored.byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        again = Dataset(ds)
        again.file_meta = ds.file_meta
        return again
    return ds


SYNTAXES = [RLELossless, JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless, DeflatedExplicitVRLittleEndian,
            ExplicitVRBigEndian, ImplicitVRLittleEndian]  # fmt: skip


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name[:24])
def test_values_are_the_same_in_every_transfer_syntax(tmp_path, grey, syntax, signed, kind):
    grey = grey - 400 * signed
    files = make_series(tmp_path, volume=grey, PatientName="")
    for path in files[1:]:  # the first slice stays as it was: a series may be of several syntaxes
        ds = pydicom.dcmread(path)
        ds.PixelRepresentation = signed
        ds = packed(ds, syntax)
        ds.PhotometricInterpretation = kind
        ds.save_as(path, enforce_file_format=True)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read(files)[0], grey - 1024.0)


def with_table(ds, table, first, kind="HU", raw=False, bits=16):
    for name in ("RescaleSlope", "RescaleIntercept"):
        del ds[name]
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if ds.PixelRepresentation else "US", [len(table) % 2**16, first, bits])
    table = np.asarray(table)
    item.ModalityLUTType = kind
    if raw:
        item.add_new("LUTData", "OW", table.astype("<u2" if table.min() >= 0 else "<i2").tobytes())
    else:
        item.add_new("LUTData", "SS" if table.min() < 0 else "US", table.tolist())
    ds.ModalityLUTSequence = [item]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("offset", [0, 1024])
def test_a_modality_lut_in_place_of_a_rescale_is_applied(tmp_path, grey, raw, implicit, offset):
    """The starred case."""
    table = np.arange(3000) * 2 - offset
    files = make_series(tmp_path, volume=grey)
    for path in files:
        ds = pydicom.dcmread(path)
        with_table(ds, table, 0, raw=raw)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ds.file_meta.TransferSyntaxUID
        ds.save_as(path, implicit_vr=implicit, little_endian=True)
    assert np.array_equal(read(files)[0], grey * 2.0 - offset)


def test_a_modality_lut_holds_its_ends_and_may_begin_below_zero(tmp_path):
    stored = np.arange(6 * 5 * 4).reshape(6, 5, 4) - 60
    files = make_series(tmp_path, "MR", volume=stored)
    changed(files, lambda number, ds: with_table(ds, np.arange(50) + 7, -20))
    assert np.array_equal(read(files)[0], np.clip(stored + 20, 0, 49) + 7.0)


@pytest.mark.parametrize("kind", ["MGML", "Z_EFF", "ED", "HU_MOD", "OD", "PCT"])
def test_a_ct_in_another_unit_than_hounsfields_is_left_out(tmp_path, grey, kind):
    files = make_series(tmp_path / "in", volume=grey, RescaleType=kind)
    make_series(tmp_path / "in", "MR", volume=grey, RescaleType=kind, SeriesDescription="T1")
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("left out series CT" in line and "another unit than HU" in line for line in told)
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-P1_T1w.nii.gz"]
    changed(files, lambda number, ds: with_table(ds, np.arange(3000), 0, kind))
    with pytest.raises(BadInput, match="another unit than HU"):
        read(files)


@pytest.mark.parametrize("lut", [False, True])
def test_a_ct_in_an_unspecified_unit_is_hu_where_air_and_tissue_say_so(tmp_path, grey, lut):
    def told(number, ds):
        if lut:
            with_table(ds, np.arange(3000) - 1024, 0, "US")
            ds.pop("RescaleSlope", None), ds.pop("RescaleIntercept", None)

    files = changed(make_series(tmp_path / "in", volume=grey, RescaleType="US"), told)
    values, facts = read(files)
    assert np.array_equal(values, grey - 1024.0) and "read as HU" in facts["Unspecified"]
    assert any("read as HU" in line for line in convert(tmp_path / "in", tmp_path / "out", keep_ids=True))
    rng = np.random.default_rng(0)
    for name, other in {
        "iodine": rng.integers(1024, 1100, grey.shape),  # mg/mL above 0
        "density": rng.integers(1024, 2300, grey.shape),  # 0 to 1.3, in thousandths
        "background": np.where(grey > 2900, 0, 2000),  # air, and nothing that is tissue
        "atomic": rng.integers(1030, 1040, grey.shape),
    }.items():
        with pytest.raises(BadInput, match="another unit than HU"):
            read(changed(make_series(tmp_path / name, volume=other, RescaleType="US"), told))


@pytest.mark.parametrize("kind", ["HU", "", None, "hu "])
def test_a_ct_in_hounsfield_units_says_so_or_nothing(tmp_path, grey, kind):
    assert np.array_equal(read(make_series(tmp_path, volume=grey, RescaleType=kind))[0], grey - 1024.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda n, ds: setattr(ds, "RescaleSlope", 0), "absent, 0 or no number"),
        (lambda n, ds: setattr(ds, "RescaleSlope", None), "absent, 0 or no number"),
        (lambda n, ds: delattr(ds, "RescaleIntercept"), "absent, 0 or no number"),
        (lambda n, ds: ds.update({"RescaleSlope": [1, 2]}), "absent, 0 or no number"),
        (lambda n, ds: n == 2 and [ds.pop("RescaleSlope"), ds.pop("RescaleIntercept")], "scaled in several ways"),
        (lambda n, ds: [ds.pop("RescaleSlope"), ds.pop("RescaleIntercept")], "no Rescale Slope and Intercept"),
        (lambda n, ds: n == 2 and with_table(ds, np.arange(3000), 0), "scaled in several ways"),
        (lambda n, ds: [with_table(ds, np.arange(3000), 0), ds.update({"RescaleSlope": 1, "RescaleIntercept": 5})], "beside a rescale"),
        (lambda n, ds: [with_table(ds, np.arange(3000), 0), ds.ModalityLUTSequence[0].pop("LUTData")], "cannot be read"),
        (lambda n, ds: ds.update({"BitsStored": 14, "HighBit": 11}), "14 bits stored below bit 11"),
        (lambda n, ds: n == 1 and ds.update({"PhotometricInterpretation": "PALETTE COLOR"}), "slice 2 of 4: pixels with colours"),
        (lambda n, ds: ds.update({"PhotometricInterpretation": "YBR_FULL"}), "pixels with colours"),
        (lambda n, ds: n == 3 and ds.update({"NumberOfFrames": 2}), "slice 4 of 4: many frames"),
        (lambda n, ds: n == 3 and ds.update({"PixelData": ds.PixelData[:90]}), "slice 4 of 4: pixels unreadable"),
        (lambda n, ds: [ds.pop("PixelData"), ds.update({"FloatPixelData": np.zeros(252, "<f4").tobytes()})], "no Pixel Data"),
    ],
)  # fmt: skip
def test_a_ct_whose_numbers_have_no_meaning_is_refused_in_a_sentence(tmp_path, grey, change, told):
    files = changed(make_series(tmp_path, volume=grey), change)
    with pytest.raises(BadInput, match=told) as raised:
        volume(find(tmp_path).series[0])
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
    assert len(files) == 4


def test_without_any_rescale_mr_is_grey_and_ct_is_hu_where_air_says_so_and_pet_nothing(tmp_path, grey):
    bare = lambda number, ds: [ds.pop("RescaleSlope"), ds.pop("RescaleIntercept")]  # noqa: E731
    for name, modality, stored in [("a", "MR", grey), ("b", "CT", grey - 1024)]:
        assert np.array_equal(read(changed(make_series(tmp_path, modality, name, stored), bare))[0], stored)
    with pytest.raises(BadInput, match="no Rescale Slope"):
        read(changed(make_series(tmp_path, "PT", "c", grey), bare))


def test_mr_whose_only_scale_is_a_real_world_value_that_differs_is_refused(tmp_path, grey):
    def mapped(slope):
        def change(number, ds):
            item = Dataset()
            item.RealWorldValueSlope, item.RealWorldValueIntercept = slope(number), 0.0
            ds.RealWorldValueMappingSequence = [item]
            ds.pop("RescaleSlope"), ds.pop("RescaleIntercept")

        return change

    assert np.array_equal(read(changed(make_series(tmp_path, "MR", "a", grey), mapped(lambda number: 2.0)))[0], grey)
    with pytest.raises(BadInput, match="scaled in several ways"):
        read(changed(make_series(tmp_path, "MR", "b", grey), mapped(float)))


def test_display_orders_change_no_value(tmp_path, grey):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [3, 0, 16])
    table.add_new("LUTData", "US", [9, 8, 7])
    orders = {"PresentationLUTShape": "INVERSE", "WindowCenter": 40, "WindowWidth": 400, "VOILUTSequence": [table]}

    def ordered_so(number, ds):
        ds.update(orders | {"PixelAspectRatio": [3, 2]})
        ds.add_new("SmallestImagePixelValue", "US", 5)  # of another sign than the pixels

    files = changed(make_series(tmp_path, volume=grey), ordered_so)
    assert np.array_equal(read(files)[0], grey - 1024.0)


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_and_below_the_stored_ones_are_dropped(tmp_path, grey, signed):
    stored = grey - 1500 * signed
    rubbish = np.random.default_rng(1).integers(0, 16, grey.shape)

    def overlaid(number, ds):
        ds.update({"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed})
        ds.add_new(0x60000102, "US", 12)  # Overlay Bit Position
        ds.PixelData = (((stored & 0xFFF) | (rubbish << 12))[:, :, number].T).astype("<u2").tobytes()

    def high(number, ds):
        ds.update({"BitsStored": 12, "HighBit": 15})
        ds.PixelData = ((((stored & 0xFFF) << 4) | rubbish)[:, :, number].T).astype("<u2").tobytes()

    files = changed(make_series(tmp_path, volume=grey, RescaleType="HU"), overlaid)
    assert np.array_equal(read(files)[0], stored - 1024.0)
    assert np.array_equal(read(changed(files, high))[0], stored - 1024.0)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": 63536},
        {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990},
    ],
)
def test_padding_of_a_ct_becomes_air(tmp_path, grey, told):
    stored = grey.copy()
    stored[:3] = (
        -2000
        if "PixelPaddingRangeLimit" not in told
        else np.linspace(-2000, -1990, stored[:3].size).reshape(stored[:3].shape)
    )

    def tell(number, ds):
        for name, value in told.items():
            ds.add_new(name, "US" if value > 0 else "SS", value)

    found, facts = read(changed(make_series(tmp_path, volume=stored), tell))
    assert (found[:3] == -1024).all() and np.array_equal(found[3:], grey[3:] - 1024.0)
    assert facts["Padding"] == "padding outside the field of view set to -1024"


def test_what_is_low_but_no_padding_stays_and_padding_that_tissue_could_be_is_refused(tmp_path, grey):
    stored = grey.copy()
    stored[5, 5, 1], stored[0] = -900, -30  # a streak, and noise in air below -1024 HU
    assert np.array_equal(read(make_series(tmp_path / "a", volume=stored))[0], stored - 1024.0)
    air = make_series(tmp_path / "b", volume=grey, PixelPaddingValue=0)  # padding that is air already
    assert np.array_equal(read(air)[0], grey - 1024.0)
    with pytest.raises(BadInput, match="padding of 40, a value that tissue has"):
        read(make_series(tmp_path / "c", volume=grey, PixelPaddingValue=1064))


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_padding_of_pet_and_mr_becomes_nothing(tmp_path, grey, modality):
    stored = grey.copy()
    stored[:3] = -32768
    found, _ = read(make_series(tmp_path, modality, volume=stored, PixelPaddingValue=-32768))
    assert (found[:3] == 0).all() and np.array_equal(found[3:], grey[3:])


def test_slices_of_ct_and_pet_keep_their_own_slope(tmp_path, grey):
    slopes = [1, 2, 0.5, -1]
    assert np.array_equal(read(make_series(tmp_path, volume=grey, slopes=slopes))[0], grey * np.array(slopes) - 1024.0)
    slopes = [0.0137, 0.91, 1e-5, 33.3]
    found, _ = read(make_series(tmp_path, "PT", volume=grey, slopes=slopes))
    assert found == pytest.approx(grey * np.array(slopes), rel=1e-6)


@pytest.mark.parametrize(
    ("slopes", "scales"),
    [([2, 2, 4, 4], [0.1, 0.1, 0.1, 0.1]), ([2, 2, 2, 2], [0.1, 0.2, 0.1, 0.3]), ([2, 2, 2, 2], [0.1] * 4)],
)
def test_slices_of_a_philips_mr_are_comparable_whatever_their_scale(tmp_path, slopes, scales):
    truth = np.random.default_rng(0).integers(100, 2000, (6, 5, 4)) * 12.0  # Philips' floating point value
    stored = np.round(truth * np.array(scales))

    def private(number, ds):
        ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", scales[number])

    files = changed(make_series(tmp_path, "MR", volume=stored, slopes=slopes), private)
    found, _ = read(files)
    assert found == pytest.approx(truth * slopes[0] * scales[0], abs=slopes[0] * scales[0] / min(scales))
    if len(set(scales)) == len(set(slopes)) == 1:
        assert np.array_equal(found, stored * 2)
    spoil(files[1], lambda ds: ds.private_block(0x2005, "Philips MR Imaging DD 001").__delitem__(0x0E))
    if len(set(scales)) > 1:
        with pytest.raises(BadInput, match="Philips scale slope in some slices only"):
            read(files)


def test_a_file_without_preamble_is_read_as_it_is_written(tmp_path, grey):
    for implicit in (False, True):
        files = []
        for path in make_series(tmp_path / str(implicit), volume=grey):
            ds = pydicom.dcmread(path)
            del ds.file_meta
            files.append(path.with_suffix(".dcm"))
            pydicom.dcmwrite(files[-1], ds, implicit_vr=implicit, little_endian=True)
        assert np.array_equal(read(files)[0], grey - 1024.0)


def test_lossy_compression_is_told(tmp_path, grey):
    assert read(make_series(tmp_path, volume=grey, LossyImageCompression="01"))[1] == {"LossyImageCompression": "01"}


def test_a_pet_stored_as_monochrome1_has_the_suv_of_its_activity(tmp_path):
    pet(tmp_path / "in", PhotometricInterpretation="MONOCHROME1", FrameOfReferenceUID=FRAME)
    for path in (tmp_path / "in").rglob("IM*"):
        spoil(path, lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"))
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    found = values_of(tmp_path / "out/sub-P1/anat/sub-P1_pet.nii.gz")
    assert found == pytest.approx(np.arange(120).reshape(6, 5, 4) * 80_000 / (2e8 * 2 ** (-3600 / 6000)), rel=1e-5)


# Whole patients


def test_a_pet_that_is_a_body_is_told_by_its_uptake_alone_and_one_that_is_none_in_words(tmp_path):
    for number, slope in enumerate((1000, 1e5)):
        rng = np.random.default_rng(0)
        folder, tags = tmp_path / str(number), {"RescaleSlope": slope, "RadionuclideHalfLife": 6586.2}
        pet(folder / "in", volume=rng.integers(1, 9, (6, 5, 4)), slopes=[slope] * 4, **tags)
        told = [line for line in convert(folder / "in", folder / "out", keep_ids=True) if "SUV" in line]
        assert told[0] == "sub-P1_pet: SUV: weight, dose and decay over 60 min"
        assert [("a mean of" in line and "where a body has about 1" in line) for line in told[1:]] == [True] * number


def test_a_patient_without_dates_has_one_session_if_it_is_of_one_study(tmp_path):
    bare = {"StudyDate": "", "SeriesDescription": "T1"}
    make_series(tmp_path / "one", **bare)
    make_series(tmp_path / "one", "MR", **bare)
    told = convert(tmp_path / "one", tmp_path / "a", keep_ids=True)
    assert "sub-P1: no Study Date, so its one study is day 0" in told
    assert sorted(path.name for path in (tmp_path / "a").rglob("*.nii.gz")) == ["sub-P1_T1w.nii.gz", "sub-P1_ct.nii.gz"]
    make_series(tmp_path / "two", **bare, StudyInstanceUID="1.2.3")
    make_series(tmp_path / "two", "MR", **bare)
    with pytest.raises(BadInput, match="no Study Date in its study, of 2, expected one in each, .*; ask for the days"):
        convert(tmp_path / "two", tmp_path / "b", keep_ids=True)


def test_a_series_without_a_date_is_of_the_day_that_its_study_has(tmp_path):
    make_series(tmp_path / "in", StudyDate="", StudyInstanceUID="1.2.3")
    make_series(tmp_path / "in", "MR", SeriesDescription="T1", StudyDate="20190412", StudyInstanceUID="1.2.3")
    make_series(tmp_path / "in", "MR", "b", SeriesDescription="T1", StudyDate="20190512", StudyInstanceUID="1.2.4")
    make_series(tmp_path / "in", "MR", "c", SeriesDescription="T2", StudyDate="", StudyInstanceUID="1.2.5")
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("no Study Date in its study, of 3" in line for line in told)
    names = ["sub-P1_ses-1_T1w.nii.gz", "sub-P1_ses-1_ct.nii.gz", "sub-P1_ses-2_T1w.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.nii.gz")) == names
