"""Biomarkers against closed forms, planted lesions and the tables that pyradiomics publishes."""

import os
from pathlib import Path

import joblib
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack.biomarkers import RADIOMIC, extract, lesion_count, lesion_volumes, radiomics
from survpack.cohort import IMAGES, Cohort
from survpack.params import Biomarkers

LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
NECROSIS, OEDEMA, ENHANCING = LABELS
SHAPE = (48, 44, 40)
STAIRS = 0.9  # a mesh over binary voxels has up to a tenth more area than the smooth body


def choices(spacing: float = 1.0) -> Biomarkers:
    return Biomarkers(spacing_mm={"other": spacing}, bin_count=16)


def ellipsoid(centre, radii, spacing=(1.0, 1.0, 1.0), shape=SHAPE) -> np.ndarray:
    """Voxels whose centre lies in an ellipsoid; centre and radii in mm from the first voxel."""
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1


def binary(mask: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.astype(np.uint8).transpose(2, 1, 0))
    image.SetSpacing(spacing)
    return image


def cohort(folder: Path, masks: dict, labels: dict, spacing=(1.0, 1.0, 1.0), seed=0, images=True) -> Cohort:
    """Masks (patient to array) as NIfTI, each with a noisy image."""
    rng, rows = np.random.default_rng(seed), []
    affine = np.diag([*spacing, 1.0])
    for patient, mask in masks.items():
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / f"{patient}_dseg.nii.gz")
        noise = (100 + 10 * rng.standard_normal(mask.shape) + 30 * mask).astype(np.float32)
        nib.save(nib.Nifti1Image(noise, affine), folder / f"{patient}_t1c.nii.gz")
        image = str(folder / f"{patient}_t1c.nii.gz") if images else ""
        modality = "t1c" if images else "mask"
        rows.append([patient, "baseline", 0.0, modality, image, str(folder / f"{patient}_dseg.nii.gz")])
    outcome = {"patient_id": list(masks), "site": "a", "time_days": 1.0, "event": True}
    return Cohort("trial", pd.DataFrame(outcome), pd.DataFrame(rows, columns=IMAGES), {}, labels)


def extracted(folder: Path, masks: dict, labels: dict, **more) -> pd.DataFrame:
    with joblib.parallel_config(backend="sequential"):
        return extract(cohort(folder, masks, labels, **more), choices())


# --- volumes and ratios


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (1.5, 0.7, 1.0)])
def test_volume_of_an_ellipsoid_is_four_thirds_pi_abc_whatever_the_voxels(tmp_path, spacing):
    shape = tuple(int(40 / s) for s in spacing)
    mask = ellipsoid((20, 19, 18), (14, 11, 9), spacing, shape)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.diag([*spacing, 1.0])), tmp_path / "mask.nii.gz")
    table = extracted(tmp_path, {"p": mask}, {1: "tumour"}, spacing=spacing)
    assert table.loc["p", "tumour_ml"] == pytest.approx(4 / 3 * np.pi * 14 * 11 * 9 / 1000, rel=0.02)


def test_shells_give_the_ratios_of_their_volumes():
    core, tumour, halo = (ellipsoid((22, 22, 20), [r] * 3) for r in (6, 10, 15))
    mask = np.where(core, NECROSIS, np.where(tumour, ENHANCING, np.where(halo, OEDEMA, 0)))
    found = lesion_volumes(mask, 0.001, LABELS)
    assert found["necrosis_fraction"] == pytest.approx(6**3 / 10**3, rel=0.03)
    assert found["oedema_to_tumour"] == pytest.approx((15**3 - 10**3) / 10**3, rel=0.03)
    assert found["tumour_ml"] == pytest.approx(found["necrosis_ml"] + found["enhancing_ml"])


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
    found = lesion_volumes(np.ones((2, 2, 2)), 1.0, {1: "tumour"})
    assert found == {"tumour_ml": 8.0}


# --- lesions


@settings(max_examples=20)
@given(places=st.sets(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_separate_lesions_are_counted_one_by_one(places):
    mask = np.zeros((40, 40, 40))
    for i, j, k in places:
        mask[8 * i + 1 : 8 * i + 4, 8 * j + 1 : 8 * j + 4, 8 * k + 1 : 8 * k + 4] = 1
    assert lesion_count(binary(mask)) == len(places)


@pytest.mark.parametrize(
    "shift, count", [((4, 0, 0), 1), ((4, 4, 0), 1), ((4, 4, 4), 1), ((5, 0, 0), 2), ((5, 4, 4), 2)]
)
def test_lesions_that_touch_by_face_edge_or_corner_are_one(shift, count):
    mask = np.zeros((20, 20, 20))
    mask[2:6, 2:6, 2:6] = 1
    mask[tuple(slice(2 + s, 6 + s) for s in shift)] = 1
    assert lesion_count(binary(mask)) == count


def test_a_speck_below_a_hundredth_of_a_millilitre_is_no_lesion_and_its_size_is_physical():
    mask = np.zeros((20, 20, 20))
    mask[2:8, 2:8, 2:8] = 1
    mask[14:16, 14:16, 14:16] = 1  # eight voxels: 0.008 mL at 1 mm, 0.027 mL at 1.5 mm
    assert lesion_count(binary(mask)) == 1
    assert lesion_count(binary(mask, (1.5, 1.5, 1.5))) == 2


def test_diameter_and_sphericity_of_a_ball_are_those_of_geometry(tmp_path):
    row = extracted(tmp_path, {"p": ellipsoid((23, 22, 20), (14, 14, 14))}, {1: "tumour"}).loc["p"]
    assert row["diameter_mm"] == pytest.approx(28, abs=1.5)
    assert STAIRS < row["sphericity"] <= 1


def test_a_longer_lesion_of_the_same_volume_is_less_spherical_and_wider(tmp_path):
    ball, cigar = ellipsoid((23, 22, 20), (10, 10, 10)), ellipsoid((23, 22, 20), (22.5, 20 / 3, 20 / 3))
    table = extracted(tmp_path, {"ball": ball, "cigar": cigar}, {1: "tumour"})
    assert table.loc["cigar", "tumour_ml"] == pytest.approx(table.loc["ball", "tumour_ml"], rel=0.02)
    assert table.loc["cigar", "diameter_mm"] == pytest.approx(45, abs=1.5)
    # a prolate spheroid's area: 2 pi a^2 (1 + c / (a e) asin e)
    a, c = 20 / 3, 22.5
    e = np.sqrt(1 - (a / c) ** 2)
    area = 2 * np.pi * a**2 * (1 + c / (a * e) * np.arcsin(e))
    expected = np.pi ** (1 / 3) * (6 * 4 / 3 * np.pi * a * a * c) ** (2 / 3) / area
    assert table.loc["cigar", "sphericity"] == pytest.approx(expected * (1 + STAIRS) / 2, rel=0.05)


def test_a_second_lesion_far_away_changes_the_volume_but_not_the_shape(tmp_path):
    large = ellipsoid((14, 14, 14), (10, 8, 9))
    both = large | ellipsoid((42, 38, 34), (4, 4, 4))
    table = extracted(tmp_path, {"one": large, "two": both}, {1: "tumour"})
    shapes = ["diameter_mm", "sphericity", *table.filter(like=f"{RADIOMIC}shape_").columns]
    pd.testing.assert_series_equal(table.loc["one", shapes], table.loc["two", shapes], check_names=False)
    assert table["lesions_found"].tolist() == [1, 2]
    assert table.loc["two", "tumour_ml"] > table.loc["one", "tumour_ml"]


# --- the table


def test_a_cohort_of_masks_only_has_shape_and_no_intensity(tmp_path):
    table = extracted(tmp_path, {"p": ellipsoid((20, 20, 20), (8, 8, 8))}, {1: "tumour"}, images=False)
    assert table.filter(like="shape_").shape[1] > 10
    assert not any("firstorder" in name or "glcm" in name for name in table)


def test_a_lesion_of_one_voxel_has_a_volume_and_no_texture(tmp_path):
    speck = np.zeros(SHAPE)
    speck[20, 20, 20] = 1
    table = extracted(tmp_path, {"ball": ellipsoid((20, 20, 20), (8, 8, 8)), "speck": speck}, {1: "tumour"})
    assert table.loc["speck", "tumour_ml"] == pytest.approx(0.001)
    assert table.loc["speck", ["diameter_mm", "sphericity"]].isna().all()
    assert table.loc["speck"].filter(like=RADIOMIC).isna().all()
    assert np.isfinite(table.loc["ball", ["diameter_mm", "sphericity"]]).all()


def test_first_order_statistics_are_those_of_numpy_over_the_tumour(tmp_path):
    mask = ellipsoid((20, 20, 20), (9, 7, 8))
    table = extracted(tmp_path, {"p": mask}, {1: "tumour"}, seed=3)
    values = nib.load(tmp_path / "p_t1c.nii.gz").get_fdata()[mask]
    expected = {"Mean": values.mean(), "Median": np.median(values), "Maximum": values.max(), "Variance": values.var()}
    for name, value in expected.items():
        assert table.loc["p", f"{RADIOMIC}t1c_firstorder_{name}"] == pytest.approx(value, rel=1e-5)


def test_of_several_visits_the_one_nearest_to_baseline_is_measured(tmp_path):
    mask = ellipsoid((20, 20, 20), (9, 7, 8))
    (tmp_path / "later").mkdir()
    first = cohort(tmp_path, {"p": mask}, {1: "tumour"}, seed=1)
    later = cohort(tmp_path / "later", {"p": ellipsoid((20, 20, 20), (12, 12, 12))}, {1: "tumour"}, seed=2)
    follow_up = later.images.assign(session="ses-2", day=90.0)
    for images in (pd.concat([first.images, follow_up]), pd.concat([follow_up, first.images])):
        both = Cohort("trial", first.participants, images.reset_index(drop=True), {}, {1: "tumour"})
        with joblib.parallel_config(backend="sequential"):
            pd.testing.assert_frame_equal(extract(both, choices()), extract(first, choices()))


def test_one_process_and_two_extract_the_same(tmp_path):
    masks = {f"p{k}": ellipsoid((20, 20, 20), (5 + k, 7, 8)) for k in range(4)}
    one = cohort(tmp_path, masks, {1: "tumour"})
    with joblib.parallel_config(backend="sequential"):
        alone = extract(one, choices(1.5))
    with joblib.parallel_config(backend="loky", n_jobs=2):
        pd.testing.assert_frame_equal(extract(one, choices(1.5)), alone, check_exact=True)


def test_nothing_is_left_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    extracted(tmp_path / "data", {"p": ellipsoid((20, 20, 20), (8, 8, 8))}, {1: "tumour"})
    assert list((tmp_path / "here").iterdir()) == []
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"p_dseg.nii.gz", "p_t1c.nii.gz"}


# --- pyradiomics' published tables

TABLES = Path(os.environ.get("SURVPACK_DATA", "/nonexistent")) / "pyradiomics"
published = pytest.mark.skipif(not TABLES.is_dir(), reason="SURVPACK_DATA has no folder pyradiomics")


def baseline(family: str, case: str) -> pd.Series:
    column = pd.read_csv(TABLES / f"baseline_{family}.csv", index_col="featureName")[case]
    return (
        column[column.index.str.startswith("original_")]
        .rename(lambda name: name.removeprefix("original_"))
        .astype(float)
    )


def case(name: str) -> tuple[sitk.Image, sitk.Image]:
    return sitk.ReadImage(TABLES / f"{name}_image.nrrd"), sitk.ReadImage(TABLES / f"{name}_label.nrrd")


def differing(found: dict, expected: pd.Series, tolerance: float = 1e-6) -> set[str]:
    assert set(expected.index) <= set(found)
    return {name for name, value in expected.items() if found[name] != pytest.approx(value, rel=tolerance)}


@published
@pytest.mark.parametrize("name", ["brain1", "brain2"])
def test_shape_is_pyradiomics_on_isotropic_voxels(name):
    assert differing(radiomics(*case(name), 2.0, 32, ["shape"]), baseline("shape", f"{name}_resampling"), 1e-5) == set()


@published
@pytest.mark.parametrize("name", ["brain1", "brain2"])
def test_first_order_is_pyradiomics_on_isotropic_voxels_but_for_excess_kurtosis_and_its_bins(name):
    found, expected = radiomics(*case(name), 2.0, 32, ["firstorder"]), baseline("firstorder", f"{name}_resampling")
    binned = {
        "firstorder_Entropy",
        "firstorder_Uniformity",
    }  # the table has bins of width 25, the study a number of bins
    assert differing(found, expected.drop(list(binned))) == {"firstorder_Kurtosis"}
    assert found["firstorder_Kurtosis"] + 3 == pytest.approx(expected["firstorder_Kurtosis"])


@published
@pytest.mark.parametrize("name, known", [("brain1", set()), ("brain2", {"glcm_MCC"})])
def test_texture_is_pyradiomics_with_a_fixed_number_of_bins(name, known):
    found, expected = radiomics(*case(name), 0, 64, ["glcm"]), baseline("glcm", f"{name}_FBN")  # 0 keeps the voxels
    assert differing(found, expected) == known
    assert all(found[feature] == pytest.approx(expected[feature], rel=2e-3) for feature in known)


def test_numbers_that_mean_the_same_are_one_compartment():
    mask = np.array([[[11, 21, 21, 12, 22, 0]]])
    found = lesion_volumes(mask, 1.0, {11: "enhancing", 12: "necrosis", 21: "enhancing", 22: "necrosis"})
    assert found == {"enhancing_ml": 3, "necrosis_ml": 2, "tumour_ml": 5, "necrosis_fraction": 0.4}
