"""Features against z-rad's own matrices, pyradiomics' published tables, closed forms and regions that break things."""

import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from survpack import radiomics
from survpack.errors import BadInput
from survpack.radiomics import FAMILIES, Bins, features, filtered, morphology, names, parsed, tags

CUBES = (2.0, 2.0, 2.0)
TEXTURES = [family for family in FAMILIES if family not in ("morphology", "intensity", "histogram")]
SHARED = os.environ.get("SURVPACK_DATA")


def smooth(shape=(14, 12, 13), seed=0) -> np.ndarray:
    return 100 + 50 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.8)


def ball(shape=(14, 12, 13), radius=5.0) -> np.ndarray:
    centre = (np.array(shape) - 1) / 2
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


def block(*sizes, shape=(8, 8, 8), start=2) -> np.ndarray:
    inside = np.zeros(shape, bool)
    inside[tuple(slice(start, start + size) for size in sizes)] = True
    return inside


def undefined(measured: dict) -> set:
    return {tag for tag, value in measured.items() if np.isnan(value)}


# --- names


def test_every_feature_has_one_name_and_every_family_is_measured():
    table = names()
    assert table.index.is_unique and set(table["family"]) == set(FAMILIES)
    assert (table["feature"] != "").all()
    measured = features(smooth(), ball(), CUBES, Bins(number=16))[0] | morphology(ball(), CUBES)[0]
    assert set(measured) == set(table.index) and not undefined(measured)


def test_a_family_is_measured_alone_as_with_the_others():
    every = features(smooth(), ball(), CUBES, Bins(number=16))[0]
    for family in FAMILIES[1:]:
        alone = features(smooth(), ball(), CUBES, Bins(number=16), [family])[0]
        assert list(alone) == tags(family) and alone == {tag: every[tag] for tag in alone}


# --- peers


@pytest.mark.parametrize(("number", "holes"), [(4, 0.0), (32, 0.0), (8, 0.3), (3, 0.85)])
def test_statistics_and_textures_are_those_of_z_rad(number, holes):
    from zrad.radiomics.glcm import GLCM
    from zrad.radiomics.glrlm import GLRLM
    from zrad.radiomics.glszm import GLSZM
    from zrad.radiomics.intensity import IntensityHistogramFeatures, IntensityStatisticsFeatures
    from zrad.radiomics.ngldm import NGLDM
    from zrad.radiomics.ngtdm import NGTDM

    values, inside = smooth(), ball() & (np.random.default_rng(1).random((14, 12, 13)) >= holes)
    least, most = values[inside].min(), values[inside].max()
    levels = np.minimum(np.floor(number * (values - least) / (most - least)) + 1, number)
    levels = np.where(inside, levels, np.nan)
    expected = IntensityStatisticsFeatures().calculate_features(values[inside])
    matrices = (GLCM("3D", "MERG"), GLRLM("3D", "MERG"), GLSZM("3D"), NGLDM("3D"), NGTDM("3D"))
    for peer in (IntensityHistogramFeatures(), *matrices):
        expected |= peer.calculate_features(levels)
    measured, reason = features(values, inside, CUBES, Bins(number=number))
    assert reason == "" and measured == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.fixture(scope="module", params=["brain1", "brain2"])
def published(request):
    """A brain scan of 6.5 mm slices, its region, and what pyradiomics publishes of it (bins of 25, shift of 2000)."""
    import SimpleITK as sitk

    if not SHARED:
        pytest.skip("SURVPACK_DATA is not set: pyradiomics' published tables are not here")
    folder = Path(SHARED) / "pyradiomics"
    image, label = (sitk.ReadImage(str(folder / f"{request.param}_{what}.nrrd")) for what in ("image", "label"))
    values, inside = (sitk.GetArrayFromImage(volume).transpose(2, 1, 0) for volume in (image, label))
    tables = [pd.read_csv(folder / f"baseline_{family}.csv", index_col=0)[request.param] for family in PUBLISHED]
    return values.astype(float), inside == 1, image.GetSpacing(), pd.concat(tables)


PUBLISHED = ("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")


def expected_of(published: pd.Series, measured: dict) -> dict:
    """Pyradiomics' values under our tags, of those it publishes."""
    theirs = names()["pyradiomics"]
    return {tag: float(published[theirs[tag]]) for tag in measured if theirs[tag] in published.index}


def test_shape_agrees_with_pyradiomics_published_tables(published):
    _, inside, spacing, table = published
    measured = morphology(inside, spacing)[0]
    n = inside.sum()
    for axis in ("maj", "min", "least"):
        measured[f"morph_pca_{axis}_axis"] *= math.sqrt((n - 1) / n)  # the note in `names`
    expected = expected_of(table, measured)
    assert len(expected) >= 10
    for tag, value in expected.items():  # two marching cubes close an ambiguous corner each in its way
        rel = 0.005 if tag in ("morph_area_mesh", "morph_av", "morph_sphericity", "morph_volume") else 1e-5
        assert measured[tag] == pytest.approx(value, rel=rel), tag


def test_intensities_and_textures_agree_with_pyradiomics_published_tables(published):
    values, inside, spacing, table = published
    bins = Bins(width=25, low=25 * float(values[inside].min() // 25))
    families = ("intensity", "histogram", "glszm", "ngldm", "ngtdm")
    measured = features(values, inside, spacing, bins, families)[0]
    measured["stat_kurt"] += 3
    shifted = features(values + 2000, inside, spacing, Bins(number=8), ["intensity"])[0]
    measured |= {tag: shifted[tag] for tag in ("stat_energy", "stat_rms")}
    expected = expected_of(table, measured)
    assert len(expected) >= 50 and {tag: measured[tag] for tag in expected} == pytest.approx(expected, rel=1e-6)


def test_the_mean_over_single_directions_is_pyradiomics_published(published, monkeypatch):
    values, inside, spacing, table = published
    bins = Bins(width=25, low=25 * float(values[inside].min() // 25))
    single = []
    for step in radiomics.AHEAD:
        monkeypatch.setattr(radiomics, "AHEAD", [step])
        single.append(features(values, inside, spacing, bins, ("glcm", "glrlm"))[0])
    measured = pd.DataFrame(single).mean().to_dict()
    expected = expected_of(table, measured)
    assert len(expected) >= 39 and {tag: measured[tag] for tag in expected} == pytest.approx(expected, rel=1e-6)


# --- grey levels


def test_fixed_bin_number_does_not_know_unit_or_offset():
    bins = Bins(number=16)
    one = features(smooth(), ball(), CUBES, bins, TEXTURES)[0]
    other = features(1024 * smooth() - 4096, ball(), CUBES, bins, TEXTURES)[0]
    assert one == pytest.approx(other, rel=1e-9)


def test_a_value_on_the_edge_of_a_bin_begins_the_next_whatever_the_rounding():
    ladder = np.arange(101.0).reshape(101, 1, 1)  # 100 bins of one, the last of two; 100 x 0.29 is 28.999…
    measured = features(ladder, np.ones_like(ladder, bool), CUBES, Bins(number=100), ["histogram"])[0]
    assert measured["ih_mode"] == 100 and measured["ih_uniformity"] == pytest.approx((99 + 2**2) / 101**2)


def test_fixed_width_counts_from_its_anchor():
    values = smooth().round()
    measured = features(values, ball(), CUBES, Bins(width=25, low=-1000), ["histogram"])[0]
    levels = (values[ball()] + 1000) // 25 + 1
    assert measured["ih_mean"] == pytest.approx(levels.mean()) and measured["ih_max"] == levels.max()


def test_voxels_below_the_anchor_are_not_of_the_region():
    values, inside = smooth(), ball()
    bins = Bins(width=5, low=90)
    measured, reason = features(values, inside, CUBES, bins)
    assert measured == features(values, inside & (values >= 90), CUBES, bins)[0]
    below = int((inside & (values < 90)).sum())
    assert below and reason == f"{below} of {inside.sum()} voxels below 90, left out"


@pytest.mark.parametrize("bins", [Bins(width=1e-6, low=0), Bins(width=1e-300), Bins(number=10**6)])
def test_absurdly_many_bins_are_refused_before_memory_is_asked_for(bins):
    measured, reason = features(smooth(), ball(), CUBES, bins)
    assert not undefined({tag: measured[tag] for tag in tags("intensity")})
    assert undefined(measured) == {tag for family in FAMILIES[2:] for tag in tags(family)}
    assert "grey levels, over 1000" in reason


@pytest.mark.parametrize("given", [{}, {"number": 8, "width": 1.0}, {"number": 0}, {"width": -1.0}])
def test_bins_are_either_a_number_or_a_width(given):
    with pytest.raises(BadInput, match="expected one of them"):
        Bins(**given)


# --- regions that break things


def test_an_empty_region_is_explained():
    measured, reason = features(smooth(), np.zeros((14, 12, 13), bool), CUBES, Bins(number=8))
    assert undefined(measured) == set(measured) and reason == "no voxel in the region"
    assert morphology(np.zeros((3, 3, 3), bool), CUBES)[1] == "no voxel in the region"


def test_one_voxel_has_an_intensity_one_run_a_direction_and_no_neighbour():
    values = np.full((5, 5, 5), 7.0)
    measured, reason = features(values, block(1, 1, 1, shape=(5, 5, 5)), CUBES, Bins(number=8))
    assert measured["stat_mean"] == measured["stat_median"] == 7 and measured["stat_var"] == 0
    assert measured["rlm_sre"] == measured["rlm_r_perc"] == measured["szm_sze"] == measured["ngl_lde"] == 1
    assert undefined(measured) >= {*tags("glcm"), *tags("ngtdm")} and "1 voxel of one value, none beside" in reason
    shape, reason = morphology(block(1, 1, 1), CUBES)
    assert shape["morph_vol_approx"] == 8 and shape["morph_volume"] == pytest.approx(8 / 6)  # an octahedron
    assert "morph_pca_maj_axis" in undefined(shape) and "1 voxel in a box of 1 x 1 x 1" in reason


def test_one_slice_is_flat_and_all_else_is_measured():
    shape, reason = morphology(block(5, 4, 1), (1.0, 1.0, 5.0))
    assert shape["morph_pca_flatness"] == 0 and shape["morph_pca_least_axis"] == 0
    assert shape["morph_pca_elongation"] == pytest.approx(math.sqrt((4**2 - 1) / (5**2 - 1)))
    assert undefined(shape) == {"morph_vol_dens_aee"} and "20 voxels in a box of 5 x 4 x 1" in reason
    measured, reason = features(smooth((8, 8, 8)), block(5, 4, 1), CUBES, Bins(number=4))
    assert not undefined(measured) and reason == ""


@pytest.mark.parametrize("value", [0.1, 1e-30, -5.0, 3e7])
def test_a_constant_region_has_no_variation_and_says_what_is_not_defined(value):
    measured, reason = features(np.full((8, 8, 8), value), block(5, 5, 5), CUBES, Bins(number=32))
    nothing = ("stat_var", "stat_skew", "stat_kurt", "stat_range", "ih_entropy", "cm_joint_entr", "cm_contrast")
    assert [measured[tag] for tag in (*nothing, "ngt_contrast", "cm_info_corr1")] == [0] * 9
    assert measured["cm_corr"] == measured["cm_energy"] == measured["szm_z_perc"] * 125 == 1
    assert measured["stat_energy"] == pytest.approx(125 * value**2)
    assert undefined(measured) == {f"ih_{end}_grad{g}" for end in ("max", "min") for g in ("", "_g")} | {
        "ngt_coarseness"
    }
    assert "of one value" in reason


def test_a_division_by_zero_is_no_million():
    measured, reason = features(np.zeros((8, 8, 8)), block(4, 4, 4), CUBES, Bins(number=32))
    assert {"stat_cov", "stat_qcod", "ngt_coarseness"} <= undefined(measured) and max(
        value for value in measured.values() if not np.isnan(value)
    ) < 1e5


def test_voxels_without_a_number_are_left_out_and_named():
    values, inside = smooth(), ball()
    values[6, 6, 6], values[7, 6, 6] = np.nan, -np.inf
    measured, reason = features(values, inside, CUBES, Bins(number=16))
    assert reason == f"2 of {inside.sum()} voxels not finite, left out"
    assert measured == features(np.nan_to_num(values), inside & np.isfinite(values), CUBES, Bins(number=16))[0]


def test_a_region_at_the_border_is_as_in_the_middle():
    values, inside = smooth((6, 7, 5)), np.ones((6, 7, 5), bool)
    within = np.pad(values, 3, constant_values=1e4), np.pad(inside, 3)
    assert features(values, inside, CUBES, Bins(number=8)) == features(*within, CUBES, Bins(number=8))
    assert morphology(inside, CUBES)[0] == pytest.approx(morphology(within[1], CUBES)[0])


def test_two_grids_are_named():
    measured, reason = features(smooth(), np.ones((3, 3, 3), bool), CUBES, Bins(number=8))
    assert undefined(measured) == set(measured) and "(14, 12, 13)" in reason and "(3, 3, 3)" in reason


ANY = st.floats(allow_nan=True, allow_infinity=True)
ROUGH = st.one_of(st.sampled_from([0.0, 1.0, -1.0, np.nan, np.inf, 1e308, -1e308, 1e-300]), ANY)


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(float, (3, 4, 3), elements=ROUGH),
    inside=arrays(bool, (3, 4, 3)),
    bins=st.sampled_from([Bins(number=1), Bins(number=32), Bins(width=25, low=-1000), Bins(width=0.5)]),
)
def test_whatever_comes_is_measured_or_explained_and_never_raises(values, inside, bins):
    for measured, reason in (features(values, inside, CUBES, bins), morphology(inside, (1.0, 1.0, 5.0))):
        assert not np.isinf(list(measured.values())).any()
        assert reason or not undefined(measured)


@settings(max_examples=20, deadline=None)
@given(axes=st.permutations([0, 1, 2]), seed=st.integers(0, 99))
def test_turning_the_patient_changes_nothing(axes, seed):
    values, inside = smooth((9, 8, 7), seed), ball((9, 8, 7), 3.6)
    turned = [np.flip(array.transpose(axes), axis=0) for array in (values, inside)]
    assert features(values, inside, CUBES, Bins(number=8))[0] == pytest.approx(
        features(*turned, CUBES, Bins(number=8))[0], rel=1e-9
    )


def test_a_large_nearly_constant_region_stays_small_in_memory():
    values, inside = np.full((58, 58, 58), 5.0), np.ones((58, 58, 58), bool)  # 1.5 L of cubes of 2 mm
    values[30, 30, 30] = 100.0  # spreads 32 levels over nothing: one zone of 195,111 voxels
    features(values[:3, :3, :3], inside[:3, :3, :3], CUBES, Bins(number=32))  # imports are not counted
    tracemalloc.start()
    measured, reason = features(values, inside, CUBES, Bins(number=32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert measured["szm_lze"] == pytest.approx(((58**3 - 1) ** 2 + 1) / 2) and reason == ""
    assert peak < 250e6


# --- shape in closed form


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_an_ellipsoid_has_its_axes_volume_and_the_densities_of_z_rad(spacing):
    from zrad.radiomics.morphology import MorphologicalFeatures

    radii = np.array([18.0, 14.0, 10.0])
    grid = np.meshgrid(*(np.arange(-r - s, r + s, s) for r, s in zip(radii, spacing, strict=True)), indexing="ij")
    shape = morphology(sum((g / r) ** 2 for g, r in zip(grid, radii, strict=True)) <= 1, spacing)[0]
    axes = [shape[f"morph_pca_{axis}_axis"] for axis in ("maj", "min", "least")]
    assert axes == pytest.approx((4 / math.sqrt(5) * radii).tolist(), rel=0.02)  # 4 standard deviations of a solid
    assert shape["morph_volume"] == pytest.approx(4 / 3 * math.pi * radii.prod(), rel=0.02)
    area, volume = shape["morph_area_mesh"], shape["morph_volume"]
    area_density = MorphologicalFeatures._calc_area_density_aee(area, *axes)  # by scipy's Legendre polynomials
    assert shape["morph_area_dens_aee"] == pytest.approx(area_density, rel=1e-9)
    assert shape["morph_vol_dens_aee"] == pytest.approx(volume / (math.pi / 6 * math.prod(axes)))


def test_a_cube_whose_axes_are_equal_has_the_area_of_a_sphere():
    shape, reason = morphology(block(4, 4, 4), CUBES)
    sphere = math.pi * shape["morph_pca_maj_axis"] ** 2
    assert reason == "" and shape["morph_area_mesh"] / shape["morph_area_dens_aee"] == pytest.approx(sphere)


def test_millimetres_are_those_of_5_mm_slices():
    shape = morphology(block(3, 3, 3), (1.0, 1.0, 5.0))[0]
    assert shape["morph_vol_approx"] == 27 * 5
    assert shape["morph_pca_maj_axis"] / shape["morph_pca_least_axis"] == pytest.approx(5)


# --- filters


def test_laplacian_of_gaussian_of_a_blob_is_its_closed_form():
    spacing, blob, sigma = 1.5, 6.0, 3.0
    squares = sum((spacing * (axis - 20)) ** 2 for axis in np.indices((41, 41, 41)))
    found = filtered(np.exp(-squares / (2 * blob**2)), (spacing,) * 3, ["log3"])["log3"]
    both = blob**2 + sigma**2
    amplitude = (blob**2 / both) ** 1.5 * np.exp(-squares / (2 * both))
    expected = amplitude * (squares / both**2 - 3 / both) * spacing**2  # z-rad's is per voxel, not per mm
    core = (slice(8, 33),) * 3
    assert found[core] == pytest.approx(expected[core], abs=0.002 * abs(expected).max())


def test_sub_bands_name_the_axis_along_which_an_image_changes():
    along_z = np.broadcast_to(np.random.default_rng(0).normal(size=24), (20, 22, 24))
    found = filtered(along_z, CUBES, ["wavelet"])
    assert sorted(found) == sorted(f"wav{band}" for band in radiomics.SUB_BANDS)
    spread = {name: float(np.std(image)) for name, image in found.items()}
    assert {name for name, value in spread.items() if value > 1e-6} == {"wavLLL", "wavLLH"}


def test_a_hole_in_the_image_stays_a_hole_and_does_not_spread():
    values = smooth()
    values[3, 4, 5] = np.nan
    for image in filtered(values, CUBES, ["log2", "wavelet"]).values():
        assert np.argwhere(np.isnan(image)).tolist() == [[3, 4, 5]]


@pytest.mark.parametrize("name", ["gabor", "log", "log0", "log-2", "wavelets"])
def test_a_filter_of_another_name_is_refused_with_those_there_are(name):
    with pytest.raises(BadInput, match=f"'{name}' is no filter, expected wavelet, or log"):
        filtered(smooth(), CUBES, [name])


def test_a_laplacian_on_long_voxels_is_refused():
    with pytest.raises(BadInput, match="1 x 1 x 5 mm, expected cubes"):
        filtered(smooth(), (1.0, 1.0, 5.0), ["log2"])


def test_a_family_of_another_name_is_refused():
    with pytest.raises(BadInput, match="'glmc' is no family"):
        features(smooth(), ball(), CUBES, Bins(number=8), ["glmc"])


@pytest.mark.parametrize("spacing", [5.0, 8.0])
def test_a_laplacian_narrower_than_half_a_voxel_is_refused(spacing):
    with pytest.raises(BadInput, match="a sigma of half a voxel or more"):
        radiomics.filtered(np.zeros((8, 8, 8)), (spacing,) * 3, ["log2"])


@pytest.mark.parametrize("name", ["log1", "log2.5", "wavelet"])
def test_beyond_its_reach_a_filter_sees_nothing_and_within_it_something(name):
    """A bright voxel beside the middle, ever further away."""
    seen, middle, spacing = [], 20, 1.5
    still = {
        band: values[middle, 3, 3]
        for band, values in radiomics.filtered(np.zeros((41, 7, 7)), (spacing,) * 3, [name]).items()
    }
    for away in range(1, 20):
        values = np.zeros((41, 7, 7))
        values[middle + away, 3, 3] = 1e6
        bands = radiomics.filtered(values, (spacing,) * 3, [name])
        if any(abs(bands[band][middle, 3, 3] - still[band]) > 1e-9 for band in bands):
            seen.append(away * spacing)
    assert 0 < max(seen) <= radiomics.reach([name], spacing) + spacing / 2
    assert radiomics.reach([], spacing) == 0


# --- the table's columns


def test_a_column_is_taken_apart_into_region_sequence_filter_and_tag():
    columns = ["rad_whole_morph_volume", "rad_tumour_t1c_stat_mean", "rad_oedema_t2f-log1.5_cm_contrast",
               "rad_tumour_ct-wavLLH_szm_sze", "rad_tumour_t1c_beauty", "oedema_to_tumour"]  # fmt: skip
    assert parsed(columns).to_numpy().tolist() == [
        [columns[0], "whole", "", "", "morph_volume", "morphology"],
        [columns[1], "tumour", "t1c", "", "stat_mean", "intensity"],
        [columns[2], "oedema", "t2f", "log1.5", "cm_contrast", "glcm"],
        [columns[3], "tumour", "ct", "wavLLH", "szm_sze", "glszm"],
        [columns[4], "", "", "", "", "lesion"],
        [columns[5], "", "", "", "", "lesion"],
    ]
    assert parsed([]).empty
