"""Outlines to masks: volumes against the polygons' own area, masks against those that were traced, files against intent."""

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from scipy.ndimage import gaussian_filter
from skimage.measure import find_contours
from test_dicom import AXIAL, circle, everything_in, make_series, make_structures, spoil, values_of

from survpack.dicom import convert, masks
from survpack.dicom.outlines import filled
from survpack.dicom.series import find
from survpack.dicom.values import volume
from survpack.errors import BadInput

GRID = np.diag([1.0, 1.0, 3.0, 1.0])  # mm; slices of 3 mm
SHAPE = (64, 64, 16)
HEADER = {"PatientName": "", "StudyID": "", "AccessionNumber": "", "PatientBirthDate": "", "PatientSex": "",
          "SliceThickness": 4, "SeriesNumber": 1, "InstanceNumber": 1}  # fmt: skip


def area(points):
    x, y = points[:, 0], points[:, 1]
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def box(low, high, z):
    return np.array([[low, low, z], [high, low, z], [high, high, z], [low, high, z]], dtype=float)


def ball(radius, centre, distance, sign=1, form="ball"):
    """Contours `distance` mm apart of a ball or a cylinder about `centre` (mm), and the volume that they enclose."""
    along = np.arange(-40, 41) * distance
    along = along[np.abs(along) < radius]
    sizes = np.sqrt(radius**2 - along**2) if form == "ball" else np.full(len(along), radius)
    drawn = [circle(size, centre[2] + z, centre[:2])[::8] for z, size in zip(along, sizes, strict=True) if size > 1]
    return drawn, sign * distance * sum(map(area, drawn))


def noise(seed, shape=(24, 20, 4), smooth=1.5):
    """A mask of blobs with holes, islands, lines and single voxels."""
    field = gaussian_filter(np.random.default_rng(seed).random(shape), (smooth, smooth, 0))
    return field > np.quantile(field, 0.65)


def on_slice(points, number):
    return np.column_stack([points, np.full(len(points), number)])


def edges_of(mask):
    """Outlines along the edges of voxels."""
    turns, outlines = {}, []
    padded = np.pad(mask, 1)
    for x, y in np.argwhere(mask):
        for (dx, dy), start, end in [
            ((1, 0), (0.5, -0.5), (0.5, 0.5)), ((-1, 0), (-0.5, 0.5), (-0.5, -0.5)),
            ((0, 1), (0.5, 0.5), (-0.5, 0.5)), ((0, -1), (-0.5, -0.5), (0.5, -0.5)),
        ]:  # fmt: skip
            if not padded[x + 1 + dx, y + 1 + dy]:
                turns.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    while any(turns.values()):
        first = next(point for point, left in turns.items() if left)
        outline, here = [first], turns[first].pop()
        while here != first:
            outline.append(here)
            here = turns[here].pop()
        outlines.append(np.array(outline))
    return outlines


# In the plane


@pytest.mark.parametrize("way", [1, -1])
def test_an_outline_through_voxel_centres_is_the_mask_that_was_traced(way):
    count = lambda outlines: filled([one[::way] for one in outlines], GRID, SHAPE).sum(axis=(0, 1))[1]  # noqa: E731
    assert count([box(10, 19, 3)]) == 100
    assert count([box(10, 11, 3)]) == 4
    assert count([box(10, 33, 3), box(17, 26, 3)]) == 512  # the hole's outline runs on the region
    assert count([np.array([[10.0, 10, 3]])]) == 1 and count([np.array([[10.0, 10, 3], [14, 10, 3]])]) == 5
    assert count([box(10, 33, 3), box(17, 26, 3), box(20, 21, 3)]) == 516


@pytest.mark.parametrize("way", ["CHAIN_APPROX_SIMPLE", "CHAIN_APPROX_NONE"])
@pytest.mark.parametrize("smooth", [0.4, 1.5])
def test_masks_that_opencv_traced_come_back_voxel_by_voxel(way, smooth):
    cv2 = pytest.importorskip("cv2", reason="opencv, which rt-utils traces with, is not installed")
    for seed in range(5):
        mask = noise(seed, smooth=smooth)
        outlines = [
            on_slice(points[:, 0, ::-1], number)
            for number in range(mask.shape[2])
            for points in cv2.findContours(mask[:, :, number].astype(np.uint8), cv2.RETR_TREE, getattr(cv2, way))[0]
        ]
        jitter = np.random.default_rng(seed)  # a file keeps some decimals of millimetres
        outlines = [points + jitter.uniform(-0.004, 0.004, points.shape) for points in outlines]
        assert np.array_equal(filled(outlines, np.eye(4), mask.shape), mask)


@pytest.mark.parametrize("connected", ["low", "high"])
def test_masks_that_marching_squares_or_voxel_edges_traced_come_back(connected):
    for seed in range(5):
        mask = noise(seed, smooth=0.4 + 0.3 * seed)
        slices = range(mask.shape[2])
        between = [
            on_slice(points[:-1] - 1, number)
            for number in slices
            for points in find_contours(np.pad(mask[:, :, number], 1).astype(float), 0.5, fully_connected=connected)
        ]
        along = [on_slice(points, number) for number in slices for points in edges_of(mask[:, :, number])]
        assert np.array_equal(filled(between, np.eye(4), mask.shape), mask)
        assert np.array_equal(filled(along, np.eye(4), mask.shape), mask)


@settings(max_examples=80, deadline=None)
@given(
    radii=st.lists(st.floats(4, 20), min_size=3, max_size=40),
    offset=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    turn=st.floats(0, 6.3),
    slices=st.integers(1, 4),
)
@example(radii=[20.0] * 4, offset=(0.25, 0.75), turn=np.pi / 4, slices=3)
@example(radii=[6.0] * 40, offset=(0.0, 0.0), turn=0.0, slices=4)
def test_any_polygon_keeps_its_area_whichever_way_it_is_drawn(radii, offset, turn, slices):
    angles = turn + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    points = np.column_stack([np.cos(angles), np.sin(angles)]) * np.array(radii)[:, None] + 32 + np.array(offset)
    outlines = [on_slice(points, 3 * (number + 2)) for number in range(slices)]
    mask = filled(outlines, GRID, SHAPE)
    assert abs(mask.sum() - slices * area(points)) <= 1.5 + 0.01 * slices * area(points)
    assert np.array_equal(filled([one[::-1] for one in outlines], GRID, SHAPE), mask)


def test_small_outlines_have_no_bias_over_offsets():
    for radius in (2.5, 4, 7):
        found = [
            filled([circle(radius, 9.0, (30 + x, 30 + y))], GRID, SHAPE).sum()
            for x in np.arange(10) / 10
            for y in np.arange(4) / 4
        ]
        assert np.mean(found) == pytest.approx(np.pi * radius**2, rel=0.01)


def test_holes_islands_keyholes_and_loops_count_by_even_and_odd():
    ring = [circle(20, 9.0), circle(12, 9.0)]
    keyhole = np.vstack([ring[0], ring[0][:1], ring[1][:1], ring[1][::-1]])
    two = np.pi * (20**2 - 12**2)
    assert filled(ring, GRID, SHAPE).sum() == pytest.approx(two, rel=0.01)
    assert np.array_equal(filled([keyhole], GRID, SHAPE), filled(ring, GRID, SHAPE))
    island = filled([*ring, circle(6, 9.0)], GRID, SHAPE)
    assert island.sum() == pytest.approx(two + np.pi * 36, rel=0.01) and island[30, 30, 3] and not island[30, 40, 3]
    eight = np.vstack([circle(10, 9.0, (20, 30)), circle(10, 9.0, (40, 30))[200:], circle(10, 9.0, (40, 30))[:200]])
    assert filled([eight], GRID, SHAPE).sum() == pytest.approx(200 * np.pi, rel=0.01)
    twice = np.vstack([circle(20, 9.0), circle(12, 9.0)])  # a curl winds twice round the middle
    assert filled([twice], GRID, SHAPE).sum() == pytest.approx(two, rel=0.03)


COPIES = {
    "as it is": lambda points: points,
    "reversed": lambda points: points[::-1],
    "from another point on": lambda points: np.roll(points, 7, axis=0),
    "with its closing point": lambda points: np.vstack([points, points[:1]]),
    "a little off its plane": lambda points: points + [0, 0, 0.001],
    "rounded": lambda points: np.round(points, 2),
    "with fewer points": lambda points: points[::4],
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_contour_stored_twice_counts_once(copy):
    again = COPIES[copy]
    for offset in (0.0, 0.3335):  # which rounds either way
        once = [circle(10, 9.0 + offset, (30 + offset, 30))]
        assert np.array_equal(filled([*once, again(once[0])], GRID, SHAPE), filled(once, GRID, SHAPE))
    ring = [circle(20, 9.0), circle(12, 9.0)]
    for more in (ring[:1], ring[1:], ring):
        mask = filled([*ring, *map(again, more)], GRID, SHAPE)
        assert mask.sum() == pytest.approx(np.pi * (20**2 - 12**2), rel=0.01) and not mask[30, 30, 3]
    traced = [box(10, 33, 3), box(17, 26, 3)]
    assert filled([*traced, *map(again, traced)], GRID, SHAPE).sum() == 512


def test_contours_that_overlap_partly_are_united_and_that_is_told():
    lens = 2 * 100 * np.arccos(0.6) - 6 * np.sqrt(400 - 144)  # of two circles of 10 whose middles are 12 apart
    pair, told = [circle(10, 9.0, (24.3, 30)), circle(10, 9.0, (36.3, 30))], []
    both = filled(pair, GRID, SHAPE, told=told)
    assert both.sum() == pytest.approx(200 * np.pi - lens, rel=0.01)
    assert told == ["contours of one plane overlap partly, taken together; see that none of them is a hole"]
    assert np.array_equal(filled([pair[1][::-1], pair[0], pair[0]], GRID, SHAPE), both)
    hole, island = circle(3, 9.0, (21, 30)), circle(5, 9.0, (55, 55))
    mask = filled([hole, *pair, island], GRID, SHAPE)
    assert mask.sum() == pytest.approx(200 * np.pi - lens - 9 * np.pi + 25 * np.pi, rel=0.01) and not mask[21, 30, 3]
    row = [circle(6, 9.0, (12 + 8 * number, 30)) for number in range(5)]
    lens = 2 * 36 * np.arccos(4 / 6) - 4 * np.sqrt(144 - 64)
    assert filled(row, GRID, SHAPE).sum() == pytest.approx(180 * np.pi - 4 * lens, rel=0.01)
    told.clear()
    touching = [circle(10, 9.0, (20, 30)), circle(10, 9.0, (40, 30)), circle(4, 9.0, (14.0, 30))]
    assert filled(touching, GRID, SHAPE, told=told).sum() == pytest.approx(184 * np.pi, rel=0.01) and not told
    hole = circle(5, 9.0, (25.1, 30))  # touches the border, and crosses it by 0.1 mm
    assert filled([touching[0], hole], GRID, SHAPE, told=told).sum() == pytest.approx(75 * np.pi, rel=0.02) and not told


def test_thin_walls_and_touching_islands_keep_their_volume():
    wall = [circle(12.3, 9.0, (30.2, 30.4)), circle(11.7, 9.0, (30.2, 30.4))]
    assert filled(wall, GRID, SHAPE).sum() == pytest.approx(np.pi * (12.3**2 - 11.7**2), abs=1.5)
    halves = [np.array([[x, 10, 9], [x + 7.3, 10, 9], [x + 7.3, 30.6, 9], [x, 30.6, 9]]) for x in (10.2, 17.5)]
    assert filled(halves, GRID, SHAPE).sum() == pytest.approx(14.6 * 20.6, rel=0.01)


# Along the slices


@pytest.mark.parametrize(("form", "shape"), [(form, shape) for form in ("ball", "cylinder") for shape in range(3)])
def test_volume_holds_over_offsets_distances_and_directions(form, shape):
    errors = []
    for distance in 3 * np.array([0.5, 0.75, 1, 1.5, 2]):
        for offset in np.arange(40) / 40:
            centre = np.array([24 + offset, 24.4 + 1.7 * offset, 21 + 3 * offset])
            parts = [ball(13, centre, distance, form=form)]
            if shape == 1:
                parts.append(ball(7, centre + [1, -2, 0], distance, -1, form))
            if shape == 2:
                parts.append(ball(9, centre + [25, 22, 0], distance, form=form))
            outlines = [one for drawn, _ in parts for one in drawn]
            mask = filled(outlines, GRID, SHAPE)
            errors.append(3 * mask.sum() / sum(truth for _, truth in parts) - 1)
            if offset in (0, 0.5, 0.8):
                assert np.array_equal(filled([one[::-1] for one in outlines[::-1]], GRID, SHAPE), mask)
    assert np.abs(errors).max() < 0.02 and abs(np.mean(errors)) < 0.005


def test_contours_midway_between_slices_are_of_as_many_slices():
    for first in (4, 5):
        mask = filled([circle(10, 3 * (number + 0.5)) for number in range(first, first + 4)], GRID, SHAPE)
        assert mask.sum() == pytest.approx(400 * np.pi, rel=0.01)
        assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == list(range(first, first + 4))
    lone = filled([circle(10, 3 * 4.5)], GRID, SHAPE)
    assert lone.sum() == pytest.approx(100 * np.pi, rel=0.01) and lone.any(axis=(0, 1)).sum() == 1


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize("offset", [0, 0.3, 0.5])
def test_a_lesion_drawn_on_every_second_or_third_slice_is_filled_between(every, offset):
    told = []
    mask = filled([circle(10, 3 * (3 + offset + every * number)) for number in range(3)], GRID, SHAPE, told=told)
    assert mask.sum() == pytest.approx(3 * every * 100 * np.pi, rel=0.01)
    assert mask[30, 30, 3 : 4 + 2 * every].all() and not told


def test_thin_contours_do_not_swell_a_short_cylinder_on_thick_slices():
    grid, volumes = np.diag([1.0, 1.0, 5.0, 1.0]), []
    for offset in np.arange(0, 5, 0.25):
        volumes.append(5 * filled([circle(10, 20 + offset + z) for z in range(12)], grid, SHAPE).sum())
    assert volumes == pytest.approx(np.full(20, 1200 * np.pi), rel=0.02)
    assert np.mean(volumes) == pytest.approx(1200 * np.pi, rel=0.005)


@pytest.mark.parametrize("off", [0, 0.002, -0.002, 0.05, 0.25])
def test_a_hole_or_an_island_a_little_off_its_plane_is_of_it(off):
    heights = 3.0 * np.arange(3, 12)
    hole = filled([one for z in heights for one in (circle(14, z), circle(6, z + off))], GRID, SHAPE)
    island = filled(
        [one for z in heights for one in (circle(9, z, (14, 14)), circle(9, z + off, (45, 45)))], GRID, SHAPE
    )
    assert 3 * hole.sum() == pytest.approx(27 * np.pi * (14**2 - 6**2), rel=0.01)
    assert 3 * island.sum() == pytest.approx(27 * np.pi * 2 * 81, rel=0.01)


def test_lesions_far_apart_are_not_joined_and_one_missing_plane_is():
    far = filled([circle(10, 3 * number) for number in (2, 3, 4, 11, 12)], GRID, SHAPE)
    assert np.flatnonzero(far.any(axis=(0, 1))).tolist() == [2, 3, 4, 11, 12]
    assert np.flatnonzero(filled([circle(10, 6), circle(10, 36)], GRID, SHAPE).any(axis=(0, 1))).tolist() == [2, 12]
    told = []
    missed = filled([circle(10, 3 * number) for number in (2, 3, 4, 6, 7)], GRID, SHAPE, told=told)
    assert missed.sum() == pytest.approx(600 * np.pi, rel=0.01) and missed[30, 30, 5]
    assert told == [
        "contours 3.0 to 6.0 mm apart, each taken half way to the next; see that none is missing or off its plane"
    ]


@pytest.mark.parametrize("distance", [5.5, 6.0, 8.0, 12.0])
def test_few_planes_of_thick_slices_keep_their_volume_on_thin_ones(distance):
    fine, told = np.diag([1.0, 1.0, 1.0, 1.0]), []
    volume = lambda count, **known: filled(  # noqa: E731
        [circle(10, 20.3 + distance * number) for number in range(count)], fine, (64, 64, 80), told=told, **known
    ).sum() / (100 * np.pi * distance)  # fmt: skip
    assert volume(3) == pytest.approx(3, rel=0.01)  # even planes
    assert volume(2, implied=distance) == pytest.approx(2, rel=0.01)  # as far apart as other regions'
    assert volume(2, step=distance) == pytest.approx(2, rel=0.01)  # as the slices they were drawn on
    assert volume(1, step=distance) == pytest.approx(1, rel=0.02)
    assert volume(1, step=distance, implied=2 * distance) == pytest.approx(2, rel=0.02)
    assert not told
    assert volume(2) == pytest.approx(2 / distance, rel=0.01)
    assert told == [
        f"contours {distance:.1f} mm apart are not joined, as nothing shows that none is missing between them"
    ]


@pytest.mark.parametrize("way", [9.5, -9.5, 20])
def test_a_thin_oblique_region_whose_planes_do_not_overlap_is_as_thick_as_they_are_apart(way):
    grid, told = np.diag([1.0, 1.0, 1.25, 1.0]), []
    outlines = [circle(4, 5.0 * number, (100 + way * (number - 7), 30)) for number in range(4, 11)]
    mask = filled(outlines, grid, (200, 64, 60), told=told)
    assert mask.sum() * 1.25 == pytest.approx(7 * 5 * np.pi * 16, rel=0.01)
    assert told == ["contours that overlap no other, each taken as 5.0 mm thick, as planes are apart"]
    apart = [circle(4, 1.25 * number, (20 + number, 30)) for number in (4, 13, 31, 52)]  # four lesions, one slice each
    assert filled(apart, grid, (200, 64, 60)).any(axis=(0, 1)).sum() == 4


def test_lesions_of_one_region_keep_their_volume_whichever_slices_each_was_drawn_on():
    one = [circle(8, 3 * number, (15, 15)) for number in (2, 4, 6, 8)]
    other = [circle(8, 3 * number, (45, 45)) for number in (3, 5, 7, 9)]
    every = [circle(8, 3 * number, (45, 45)) for number in range(2, 9)]
    assert filled(one + other, GRID, SHAPE).sum() == pytest.approx(16 * np.pi * 64, rel=0.01)
    assert filled(one + every, GRID, SHAPE).sum() == pytest.approx(15 * np.pi * 64, rel=0.01)


def test_a_small_island_is_not_lost_beside_a_large_one():
    large = [circle(20, 3 * number, (22, 30)) for number in range(2, 12)]
    small = [np.array([[54.5, 30.5], [55.5, 30.5], [55.5, 31.5], [54.5, 31.5]]) - 0.5]
    mask = filled(large + [on_slice(small[0], 15.0)], GRID, SHAPE)
    assert mask[50:].sum() == 1


def test_what_lies_outside_the_image_is_left_out_and_told():
    told = []
    mask = filled([circle(10, 3 * number, (0, 30)) for number in range(-2, 2)], GRID, SHAPE, told=told)
    assert mask.sum() == pytest.approx(2 * np.pi * 100 * 0.53, rel=0.02)
    assert told == ["73% of its volume lies outside the image"]
    for beside in (circle(10, -90.0), circle(10, 9.0, (-90, 30)), circle(10, 9.0, (30, 900))):
        assert not filled([beside], GRID, SHAPE, told=told).any() and told[-1].startswith("100%")


def test_a_region_in_other_units_is_refused():
    with pytest.raises(BadInput, match="expected points in mm"):
        filled([circle(10, 9.0) * [1000, 1000, 1]], GRID, SHAPE)


# Which files, which regions


def taken_of(name, kind=""):
    head, roi, seen = Dataset(), Dataset(), Dataset()
    head.Modality, roi.ROINumber, roi.ROIName = "RTSTRUCT", 1, name
    seen.ReferencedROINumber, seen.RTROIInterpretedType = 1, kind
    head.StructureSetROISequence, head.RTROIObservationsSequence = [roi], [seen]
    return bool(masks.regions(head, masks.TUMOUR)), masks.others(head, masks.TUMOUR).get(name)


@pytest.mark.parametrize(
    "name",
    ["GTV", "GTV-1", "GTV_Mass", "GTVp", "GTVp1", "GTV T", "GTVnx", "Tumor", "Tumour 1", "PrimaryTumor", "lesion2", "mass",
     "Neoplasm, Primary", "Left-GTV", "PET-GTV", "1-GTV", "GTV No 1", "lymphoma lesion", "ring enhancing lesion",
     "abnormal mass", "unresectable tumour", "GTV_70", "Liver-Lesion", "Lung-Lesion-1", "brain-tumor", "RUL-GTV", "FDG-GTV",
     "Reader1-tumor", "Tonsil-GTV", "Smith-GTV", "Lung_GTV", "GTV lung R", "resectable tumor", "Tumor without edema",
     "Tumour w/o necrosis", "Tumor ohne Ödem", "GTV no nodes", "non-metastatic lesion", "GTV_3mm_slices", "GTV 2 mm slice",
     "Met_1", "brain met", "Metastasis", "mets", "Brain-Mets", "BrainMet", "Lebermetastase", "métastase 2", "Tumeur",
     "vertebral body GTV", "carotid body tumour", "basal ganglia tumour", "ganglioglioma lesion", "tumor nodule",
     "lesion normalised", "biopsied lesion", "biopsy-proven lesion", "GTV without LK"],
)  # fmt: skip
def test_names_of_tumour_are_taken(name):
    assert taken_of(name) == (True, None)


@pytest.mark.parametrize(
    ("why", "names"),
    [
        ("", ["Masseter_L", "biomass", "PTV", "CTV_60", "lymph node", "Heart", "metal", "metabolic", "helmet"]),
        ("a planning volume or margin", ["GTV_PTV", "HR-CTV tumour", "iGTV", "GTV+5mm", "GTV_5mm", "GTV_exp", "GTV ring",
                                         "GTV-PRV", "GTV + 1 cm", "gtvexp", "GTV margin", "GTV_plus5", "GTV plus 5",
                                         "GTV_marge", "GTV_Saum", "GTV Sicherheitssaum", "GTV grown", "GTV_isodose95",
                                         "GTV_ext5", "enlarged GTV", "GTV_exp5mm", "Met_PTV"]),
        ("nodes", ["GTVn", "GTV-N", "GTV N1", "GTVnd", "gtv_node", "GTV_LN", "N-GTV", "lymph node lesion", "GTVp+N",
                   "GTV_LK", "GTVlk", "Lymphknoten GTV", "GTV ganglion", "GTV ganglions", "GTV linfonodo", "GTV_klier", "N2 GTV",
                   "GTV2N", "GTV1_N2", "GTVnod", "GTV_adp", "GTVn1a", "lesion N2b", "metastatic lymph nodes", "nodal mets"]),
        ("tissue without the tumour", ["Lungs-GTV", "Lung_L - GTV-1", "Brain-GTV", "Liver minus GTV", "BrainMinusGTV",
                                       "no tumour", "NonTumor", "Lungs w/o GTV", "Total lung–GTV", "Liver-GTV",
                                       "Lunge ohne GTV", "Lungen_ohne_Tumor", "Leber ohne Metastasen", "Poumons sans GTV",
                                       "Poumon sans la tumeur", "Pulmón sin GTV", "Polmone senza GTV", "Longen zonder GTV",
                                       "Körper ohne Tumor", "Lungs_min_GTV", "LungsminGTV", "Lungs outside GTV",
                                       "Lungs crop GTV", "Lung cropped by GTV", "Lungs_GTV", "Lungs (GTV)", "Lungs/GTV",
                                       "tumor-free lung", "lesion_free_liver", "Tumorfreie Leber", "BODY-GTV", "Leber-GTV",
                                       "Right-Lung-GTV", "Liver minus mets", "Brainstem-GTV", "GTV_negative"]),
        ("what surgery left", ["tumour bed", "TumourBed", "GTV cavity", "tumor resection", "Tumorbett", "Lit tumoral",
                                    "lecho tumoral", "Loge tumorale", "Tumorhöhle", "Tumorhoehle", "tumorbed"]),
        ("what is to be spared", ["Lesion_avoid", "tumour sparing", "GTV_opt"]),
        ("surroundings", ["perilesional", "tumour oedema", "benign lesion", "peri-tumoral", "Tumorödem"]),
        ("a marker, a control or no tumour", ["Muscle mass", "lean mass", "Control lesion", "lesion control", "Tumor bbox",
                                              "Lesion ROI box", "tumor clip", "Fiducial tumor", "tumor_marker",
                                              "lesion biopsy", "pseudotumor", "Mirror lesion", "Tumor_bolus"]),
    ],
)  # fmt: skip
def test_what_a_name_shows_to_be_no_tumour_is_left_and_said_why(why, names):
    assert {name: taken_of(name) for name in names} == {name: (False, why) for name in names}


def test_a_planning_target_by_its_type_is_left_whatever_its_name():
    assert taken_of("Tumour boost", "PTV") == (False, "a planning volume or margin")
    assert taken_of("Tumour boost", "ORGAN") == (True, None)  # what many programs write for everything


def make_lesions(folder, regions=None, **tags):
    """A CT of 64 × 48 voxels of 2 × 3 × 4 mm and an RTSTRUCT of regions, each of (radius in mm, place)."""
    files = make_series(folder, volume=np.zeros((64, 48, 12)), **HEADER, **tags)
    draw = lambda radius, x: ball(radius, (x, 50.0, 54.0), 4.0)[0]  # noqa: E731
    regions = {"GTV-1": (8, 50)} if regions is None else regions
    return files, {name: draw(*each) for name, each in regions.items()}


def converted(folder, **asked):
    told = convert(folder / "in", folder / "out", keep_ids=True, **asked)
    path = folder / "out/sub-P1/anat/sub-P1_ct_dseg.nii.gz"
    return told, values_of(path) > 0 if path.exists() else None


def test_an_organ_without_its_tumour_is_left_and_a_given_pattern_is_taken_as_it_is(tmp_path):
    files, regions = make_lesions(tmp_path / "in", {"GTV-1": (7, 40), "Lungs-GTV": (20, 100), "Masseter_L": (9, 70)})
    make_structures(tmp_path / "in", files, regions)
    told, mask = converted(tmp_path)
    assert mask.sum() * 0.024 == pytest.approx(4 * sum(map(area, regions["GTV-1"])) / 1000, rel=0.02)
    assert "sub-P1_ct: taken: GTV-1 (1.44 mL)" in told
    assert "sub-P1_ct: not taken: Lungs-GTV (tissue without the tumour), Masseter_L" in told
    for content in everything_in(tmp_path / "out"):
        assert b"Lungs-" not in content and b"Masseter" not in content and b"GTV-1" not in content
    told = convert(tmp_path / "in", tmp_path / "own", keep_ids=True, tumour="gtv")
    assert any("mask from GTV-1 + Lungs-GTV" in line for line in told)
    assert any("Lungs-GTV is 23 times as large as GTV-1; see that both are tumour" in line for line in told)


def test_regions_taken_that_hold_or_overlap_another_are_told(tmp_path):
    regions = {"GTV": (7, 40), "GTV large": (12, 40), "GTV left": (7, 44), "GTV far": (7, 100), "GTV copy": (7, 40)}
    files, drawn = make_lesions(tmp_path / "in", regions)
    make_structures(tmp_path / "in", files, drawn)
    told = [line.removeprefix("sub-P1_ct: ").split(";")[0] for line in converted(tmp_path)[0]]
    assert [line for line in told if " holds " in line] == [
        f"GTV large holds {name}" for name in ("GTV", "GTV left", "GTV copy")
    ]
    lens = [line.replace("% of", "").split(" overlaps ") for line in told if " overlaps " in line]
    assert [(one, other[3:]) for one, other in lens] == [("GTV", "GTV left"), ("GTV left", "GTV copy")]
    assert int(lens[0][1][:2]) == pytest.approx(58, abs=4)  # of balls of 7 mm whose middles are 4 mm apart


def test_structure_sets_that_differ_are_not_guessed_between_and_a_pattern_chooses(tmp_path):
    files, regions = make_lesions(tmp_path / "in", {"GTV": (8, 40), "GTV-2": (8, 110)})
    paths = [
        make_structures(tmp_path / "in" / name, files, {region: regions[region]})
        for name, region in (("a", "GTV"), ("b", "GTV-2"))
    ]
    for path, label in zip(paths, ("first reader", "second reader"), strict=True):
        spoil(path, lambda ds, label=label: setattr(ds, "StructureSetLabel", label))
    told, mask = converted(tmp_path)
    line = next(line for line in told if "no mask" in line)
    assert mask is None and "2 structure sets draw different tumours" in line and "70 mm apart, Dice 0.00" in line
    assert "a/structures/RS1.dcm 2.02 mL" in line and "choose by --structures or --tumour" in line
    assert "reader" not in line  # a label is free text of the header
    chosen = {}
    for name, asked in [
        ("one", {"structures": "SECOND"}),
        ("two", {"tumour": "GTV-2"}),
        ("both", {"structures": "reader"}),
    ]:
        convert(tmp_path / "in", tmp_path / name, keep_ids=True, **asked)
        chosen[name] = values_of(tmp_path / name / "sub-P1/anat/sub-P1_ct_dseg.nii.gz") > 0
    assert np.array_equal(chosen["one"], chosen["two"]) and chosen["both"].sum() == 2 * chosen["one"].sum()
    assert np.argwhere(chosen["one"])[:, 0].mean() == pytest.approx(50, abs=0.5)
    with pytest.raises(BadInput, match=r"--structures '\(' is no pattern"):
        convert(tmp_path / "in", tmp_path / "none", keep_ids=True, structures="(")


@pytest.mark.parametrize("newest", [0, 1])
def test_of_structure_sets_that_agree_the_newest_is_taken_and_an_empty_one_is_none(tmp_path, newest):
    files, regions = make_lesions(tmp_path / "in", {"GTV": (12, 50), "GTV ": (12.3, 50.3), "GTV  ": (9, 2000)})
    for number, (name, each) in enumerate(regions.items()):
        path = make_structures(tmp_path / "in" / str(number), files, {name: each})
        spoil(path, lambda ds, day=20200101 + (number == newest): setattr(ds, "StructureSetDate", str(day)))
    told, mask = converted(tmp_path)
    truth = 4 * sum(map(area, list(regions.values())[newest])) / 1000
    assert mask.sum() * 0.024 == pytest.approx(truth, rel=0.01)
    assert any(
        "2 structure sets agree (Dice 0.9" in line and f"taken is {newest}/structures/RS1.dcm" in line for line in told
    )


def test_lesions_of_one_structure_set_are_united(tmp_path):
    files, regions = make_lesions(tmp_path / "in", {"GTV-1": (8, 40), "GTV-2": (9, 110)})
    make_structures(tmp_path / "in", files, regions)
    told, mask = converted(tmp_path)
    assert mask.sum() * 0.024 == pytest.approx(
        4 * sum(area(one) for each in regions.values() for one in each) / 1000, rel=0.02
    )
    assert any("mask from GTV-1 + GTV-2" in line for line in told)


def test_points_and_open_lines_enclose_nothing_and_that_is_told(tmp_path):
    files, regions = make_lesions(tmp_path / "in")
    path = make_structures(tmp_path / "in", files, regions)
    spoil(path, lambda ds: [setattr(one, "ContourGeometricType", "OPEN_PLANAR")
                            for one in ds.ROIContourSequence[0].ContourSequence])  # fmt: skip
    told, mask = converted(tmp_path)
    assert not mask.any() and any("GTV-1: only points and open lines, which enclose nothing" in line for line in told)


def test_a_lone_contour_is_as_thick_as_the_structure_set_or_a_slice(tmp_path):
    files, _ = make_lesions(tmp_path / "in")
    lone, body = [circle(10, 54.0, (50, 50))], [circle(40, 34.0 + 8 * number, (60, 50)) for number in range(5)]
    far = [circle(3, 34.0 + 20 * number, (60, 50)) for number in range(3)]
    cases = [({"GTV": lone}, 1), ({"GTV": lone, "Body": body}, 2), ({"GTV": lone, "Body": far, "Heart": []}, 1)]
    for number, (regions, slices) in enumerate(cases):
        path = make_structures(tmp_path / str(number), files, regions)
        head = pydicom.dcmread(path)
        affine = volume(find(tmp_path / "in").series[0])[1]
        mask = masks.drawn(path, head, {1: "GTV"}, affine, (64, 48, 12), [(affine, (64, 48, 12))])[0].mask
        assert mask.sum() * 6 == pytest.approx(slices * 100 * np.pi, rel=0.02)


def make_mr(folder, name, kind, volume, direction, first, step):
    """An MR series whose first slice begins at `first` (mm), each further one `step` (mm) on."""
    files = make_series(folder, "MR", name, volume, direction, **HEADER, SeriesDescription=kind)
    for number, path in enumerate(files):
        spoil(path, lambda ds, at=number: setattr(ds, "ImagePositionPatient", (first + at * np.array(step)).tolist()))
    return files


@pytest.mark.parametrize("turned", [None, 2, 5, 30])
def test_contours_across_the_slices_of_another_series_are_drawn_on_their_own_and_counted_there(tmp_path, turned):
    first = np.array([10.0, -20.0, 30.0])
    own = make_mr(tmp_path / "in", "a", "FLAIR", np.zeros((64, 48, 12)), AXIAL, first, (0, 0, 4))
    if turned is None:  # sagittal
        first, step, direction, shape = first + [96, 0, 60], (-4.0, 0, 0), [0, 1, 0, 0, 0, -1], (72, 24, 25)
    else:
        cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
        direction, step, shape = [1, 0, 0, 0, cos, sin], (0, -4 * sin, 4 * cos), (64, 48, 30)
        first = first + [0, 0, -30]
    make_mr(tmp_path / "in", "b", "T2", np.zeros(shape), direction, first, step)
    drawn, truth = ball(14, (50.0, 50.0, 54.0), 4.0)
    make_structures(tmp_path / "in", own, {"GTV": drawn})
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    masks_of = {path.name: values_of(path) > 0 for path in (tmp_path / "out").rglob("*_dseg.nii.gz")}
    assert sorted(masks_of) == ["sub-P1_FLAIR_dseg.nii.gz", "sub-P1_T2w_dseg.nii.gz"]
    for name, mask in masks_of.items():
        assert mask.sum() * 24 == pytest.approx(truth, rel=0.02)
        affine = nib.load(tmp_path / "out/sub-P1/anat" / name).affine
        centre = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
        assert centre == pytest.approx([-50, -50, 54], abs=0.5)
    for path in own:  # and without that series the image is kept, with no mask
        path.unlink()
    told = convert(tmp_path / "in", tmp_path / "alone", keep_ids=True)
    assert [path.name for path in (tmp_path / "alone").rglob("*.nii.gz")] == ["sub-P1_T2w.nii.gz"]
    assert any(
        "no mask: contours lie across the slices in in/structures/RS1.dcm, expected along" in line for line in told
    )


@pytest.mark.parametrize("count", [1, 2])
def test_a_region_drawn_on_one_or_two_thick_slices_keeps_its_volume_on_thin_ones(tmp_path, count):
    first = np.array([10.0, -20, 30])
    thick = make_mr(tmp_path / "in", "a", "FLAIR", np.zeros((64, 48, 10)), AXIAL, first, (0, 0, 8))
    make_mr(tmp_path / "in", "b", "T1", np.zeros((64, 48, 80)), AXIAL, first, (0, 0, 1))
    drawn = {"GTV": [circle(10, z, (50, 50)) for z in (62, 70)[:count]]}

    def check(out, names):
        convert(tmp_path / "in", tmp_path / out, keep_ids=True)
        for name in names:
            mask = values_of(tmp_path / out / f"sub-P1/anat/sub-P1_{name}_dseg.nii.gz") > 0
            assert mask.sum() * (48 if name == "FLAIR" else 6) == pytest.approx(count * 800 * np.pi, rel=0.02)

    path = make_structures(tmp_path / "in", thick, drawn)
    check("both", ["FLAIR", "T1w"])
    make_structures(tmp_path / "in", thick, drawn | {"Brain": [circle(40, z, (60, 50)) for z in range(30, 110, 8)]})
    for each in (path, *thick):  # now other regions alone tell how thick the slices were
        each.unlink()
    check("one", ["T1w"])


# SEG


def make_seg(folder, files, values, kind="BINARY", labels=("Tumor",), **more):
    """A SEG of `values` (column, row, slice, and segment where there are several)."""
    described = [
        highdicom.seg.SegmentDescription(
            number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "MANUAL"
        )
        for number, label in enumerate(labels, 1)
    ]
    made = highdicom.seg.Segmentation(
        [pydicom.dcmread(path) for path in files], np.moveaxis(values, 2, 0).swapaxes(1, 2), kind, described,
        generate_uid(), 2, generate_uid(), 1, "x", "x", "1", "1", **more,
    )  # fmt: skip
    made.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def sphere(x, y, z, radius=11.0, centre=(52.3, 45.1, 52.2)):
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2


def shares(many=7):
    """The share of each voxel of `make_lesions` that lies in the sphere."""
    axes = [start + step * ((np.arange(size * many) + 0.5) / many - 0.5)
            for start, step, size in zip((10, -20, 30), (2, 3, 4), (64, 48, 12), strict=True)]  # fmt: skip
    inside = sphere(*np.meshgrid(*axes, indexing="ij"))
    return inside.reshape(64, many, 48, many, 12, many).mean(axis=(1, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("highest", [255, 254, 200, 100, 2])
def test_half_of_a_probability_belongs_whatever_the_highest_value(tmp_path, highest):
    files, _ = make_lesions(tmp_path / "in")
    values = np.zeros((64, 48, 12), dtype=np.float32)
    values[3:6, 4, 2:5], values[3:6, 5, 2:5], values[3:6, 6, 2:5] = 0.5, 1.0, 0.2
    make_seg(tmp_path / "in", files, values, "FRACTIONAL", max_fractional_value=highest)
    assert np.array_equal(converted(tmp_path)[1], values >= 0.5)


@pytest.mark.parametrize("highest", [255, 100])
def test_an_occupancy_keeps_its_volume(tmp_path, highest):
    files, _ = make_lesions(tmp_path / "in")
    make_seg(tmp_path / "in", files, shares(), "FRACTIONAL", max_fractional_value=highest, fractional_type="OCCUPANCY")
    assert converted(tmp_path)[1].sum() * 24 == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.015)
    half = np.zeros((64, 48, 12), dtype=np.float32)
    half[10:20, 10:20, 2:6] = 0.5
    make_seg(tmp_path / "in", files, half, "FRACTIONAL", max_fractional_value=highest, fractional_type="OCCUPANCY")
    convert(tmp_path / "in", tmp_path / "half", keep_ids=True)
    mask = values_of(tmp_path / "half/sub-P1/anat/sub-P1_ct_dseg.nii.gz") > 0
    assert mask.sum() == pytest.approx(200, abs=2)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_that_overlap_or_share_a_map_are_told_apart(tmp_path, kind):
    files, _ = make_lesions(tmp_path / "in")
    values = np.zeros((64, 48, 12, 2), dtype=np.uint8)
    values[4:9, 4:9, 2:6, 0] = values[(7 if kind == "BINARY" else 9) : 14, 4:9, 4:8, 1] = 1
    map_ = values[..., 0] + 2 * values[..., 1]
    make_seg(tmp_path / "in", files, values if kind == "BINARY" else map_, kind, ("GTV", "Tumour bed"))
    told, mask = converted(tmp_path)
    assert np.array_equal(mask, values[..., 0])
    assert any("not taken: " in line and "Tumour bed Neoplasm (what surgery left)" in line for line in told)
    convert(tmp_path / "in", tmp_path / "all", keep_ids=True, tumour=".*")  # which is no background
    mask = values_of(tmp_path / "all/sub-P1/anat/sub-P1_ct_dseg.nii.gz") > 0
    assert np.array_equal(mask, values.any(axis=3))


@pytest.mark.parametrize(("pixel", "step"), [(1.0, 1.0), (4.0, 8.0), (2.5, 3.0)])
def test_a_seg_on_another_grid_keeps_its_volume(tmp_path, pixel, step):
    files, _ = make_lesions(tmp_path / "in")
    size = [int(110 / pixel), int(110 / pixel), int(44 / step)]
    other = make_series(
        tmp_path / "other", name="b", volume=np.zeros(size), positions=np.arange(size[2]) * step, **HEADER
    )
    for path in other:
        spoil(path, lambda ds: setattr(ds, "PixelSpacing", [pixel, pixel]))
        spoil(path, lambda ds: setattr(ds, "SliceThickness", step))
    x, y, z = np.indices(size)
    drawn = sphere(10 + x * pixel, -20 + y * pixel, 30 + z * step)
    path = make_seg(tmp_path / "other", other, drawn.astype(np.uint8))
    affine = volume(find(tmp_path / "in").series[0])[1]
    mask = masks.drawn(path, pydicom.dcmread(path), {1: "Tumor"}, affine, (64, 48, 12))[0].mask
    assert mask.sum() * 24 == pytest.approx(drawn.sum() * pixel**2 * step, rel=0.02)
    affine[2, 3] += 52.2 - 28  # the image now begins in the middle of the sphere
    half = masks.drawn(path, pydicom.dcmread(path), {1: "Tumor"}, affine, (64, 48, 12))[0]
    assert 0.4 < 1 - half.mask.sum() / mask.sum() < 0.6 and half.notes[0].endswith(
        "of its volume lies outside the image"
    )


@pytest.mark.parametrize("dropped", [[], ["SpacingBetweenSlices"], ["SpacingBetweenSlices", "SliceThickness"]])
@pytest.mark.parametrize("frames", [(2, 5, 8), (2, 5, 9), (4,)])
def test_frames_that_a_seg_leaves_out_are_empty(tmp_path, dropped, frames):
    files, _ = make_lesions(tmp_path / "in")
    values = np.zeros((64, 48, 12), dtype=np.uint8)
    values[5:9, 5:9, list(frames)] = 1
    path = make_seg(tmp_path / "in", files, values)
    measures = lambda ds: ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]  # noqa: E731
    spoil(path, lambda ds: [delattr(measures(ds), keyword) for keyword in dropped])
    assert np.array_equal(converted(tmp_path)[1], values)
