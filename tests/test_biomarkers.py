"""The table of biomarkers: what each column is measured on, its controls, what is remembered, what is explained."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import joblib
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack import biomarkers, params, paths, radiomics
from survpack.biomarkers import Biomarkers, extract, measure_patient, regions_of
from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput

LABELS = {1: "necrosis", 2: "oedema", 3: "enhancing"}
NECROSIS, OEDEMA, ENHANCING = LABELS
SHAPE = (44, 40, 36)


@pytest.fixture(autouse=True)
def derived(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DERIVED", tmp_path / "derived")
    return tmp_path / "derived"


@pytest.fixture
def choices():
    """The study's own choices at 1 mm, three patients perturbed; `choices(**changed)` of the section biomarkers."""

    def made(robust: dict | None = None, **changed):
        loaded = params.load()
        own = {"spacing_mm": {"other": 1.0}, "families": ["morphology", "intensity", "histogram", "glcm"]} | changed
        few = {"patients": 3, "perturbations": ["shrink", "noise"]} | (robust or {})
        return loaded.model_copy(
            update={
                "biomarkers": loaded.biomarkers.model_copy(update=own),
                "robustness": loaded.robustness.model_copy(update=few),
            }
        )

    return made


def ball(centre, radius: float) -> np.ndarray:
    grid = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def metastasis(radius: float = 9, centre=(20, 20, 18)) -> np.ndarray:
    mask = np.where(ball(centre, radius + 4), OEDEMA, 0)
    mask[ball(centre, radius)] = ENHANCING
    mask[ball(centre, radius / 2)] = NECROSIS
    return mask


def cohort(
    folder: Path, masks: dict, labels: dict = LABELS, modalities=("t1c",), spacing=(1.0, 1.0, 1.0), scale=1.0, seed=0
) -> Cohort:
    """Masks (patient to array) as NIfTI, each with noisy images, brighter where the mask is higher; a name."""
    rng, rows, affine = np.random.default_rng(seed), [], np.diag([*spacing, 1.0])
    folder.mkdir(parents=True, exist_ok=True)
    for patient, mask in masks.items():
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / f"{patient}_dseg.nii.gz")
        own = str(folder / f"{patient}_dseg.nii.gz")
        for modality in modalities:
            path = "" if modality == "mask" else str(folder / f"{patient}_{modality}.nii.gz")
            values = scale * (100 + 10 * rng.standard_normal(mask.shape) + 30 * mask)
            if path:
                nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
            rows.append([patient, "baseline", 0.0, modality, path, own])
    outcome = {"patient_id": list(masks), "site": "a", "time_days": 1.0, "event": True}
    return Cohort("trial", pd.DataFrame(outcome), pd.DataFrame(rows, columns=IMAGES), {}, labels)


def extracted(one: Cohort, choice, development=None) -> Biomarkers:
    with joblib.parallel_config(backend="sequential"):
        return extract(one, choice, list(one.participants["patient_id"]) if development is None else development)


# --- what the columns are


def test_every_region_of_every_sequence_has_its_columns_and_shape_is_measured_once_a_region(tmp_path, choices):
    found = extracted(cohort(tmp_path, {"p": metastasis()}, modalities=("t1c", "t2f")), choices()).features
    assert {f"rad_{region}_t1c_stat_mean" for region in choices().biomarkers.regions} <= set(found)
    assert {f"rad_{region}_t2f_cm_contrast" for region in choices().biomarkers.regions} <= set(found)
    assert {f"rad_{region}_morph_sphericity" for region in choices().biomarkers.regions} <= set(found)
    assert not [name for name in found if "t1c_morph" in name]


@pytest.mark.parametrize(
    "labels, regions",
    [
        (LABELS, {"tumour": {1, 3}, "enhancing": {3}, "necrosis": {1}, "oedema": {2}, "whole": {1, 2, 3}}),
        ({1: "tumour"}, {"tumour": {1}}),
        ({1: "kidney", 2: "tumour"}, {"tumour": {2}}),
        ({1: "enhancing", 2: "oedema"}, {"tumour": {1}, "oedema": {2}, "whole": {1, 2}}),
        ({11: "enhancing", 21: "enhancing", 12: "necrosis"}, {"tumour": {11, 21, 12}, "enhancing": {11, 21}, "necrosis": {12}}),
    ],
)  # fmt: skip
def test_regions_are_those_the_labels_make_and_none_twice(labels, regions, choices):
    found = regions_of(labels, choices().biomarkers.regions)
    assert {region: set(members) for region, members in found.items()} == regions


def test_first_order_statistics_are_those_of_numpy_over_the_region(tmp_path, choices):
    mask = metastasis()
    plain = choices()
    own = plain.preprocess.model_copy(update={"mr": plain.preprocess.mr.model_copy(update={"normalise": "none"})})
    row = extracted(cohort(tmp_path, {"p": mask}), plain.model_copy(update={"preprocess": own})).features.loc["p"]
    image = nib.load(tmp_path / "p_t1c.nii.gz").get_fdata()
    for region, members in {"tumour": [1, 3], "oedema": [2], "whole": [1, 2, 3]}.items():
        values = image[np.isin(mask, members)]
        for tag, value in {
            "mean": values.mean(),
            "median": np.median(values),
            "max": values.max(),
            "var": values.var(),
        }.items():
            assert row[f"rad_{region}_t1c_stat_{tag}"] == pytest.approx(value, rel=1e-5)


def test_ct_voxels_outside_the_stated_range_are_not_of_the_region(tmp_path, choices):
    mask = metastasis().clip(0, 1)
    one = cohort(tmp_path, {"p": mask}, {1: "tumour"}, modalities=("ct",))
    image = nib.load(one.images["path"][0])
    values = image.get_fdata().astype(np.float32)
    values[20, 20, 18] = 3000  # a clip of metal
    nib.save(nib.Nifti1Image(values, image.affine), one.images["path"][0])
    row = extracted(one, choices()).features.loc["p"]
    assert row["rad_tumour_ct_stat_max"] == pytest.approx(values[(mask == 1) & (values < 400)].max(), rel=1e-5)


def test_of_several_visits_the_one_nearest_to_baseline_is_measured(tmp_path, choices):
    first = cohort(tmp_path / "1", {"p": metastasis()}, seed=1)
    later = cohort(tmp_path / "2", {"p": metastasis(12)}, seed=2)
    follow_up = later.images.assign(session="ses-2", day=90.0)
    alone = extracted(first, choices()).features
    for images in (pd.concat([first.images, follow_up]), pd.concat([follow_up, first.images])):
        both = Cohort("trial", first.participants, images.reset_index(drop=True), {}, LABELS)
        pd.testing.assert_frame_equal(extracted(both, choices()).features, alone)


def test_a_scanner_s_gain_leaves_every_radiomic_feature_of_mr(tmp_path, choices):
    once, thrice = (
        extracted(cohort(tmp_path / str(k), {"p": metastasis()}, scale=k), choices()).features.loc["p"] for k in (1, 3)
    )
    pd.testing.assert_series_equal(once, thrice, rtol=1e-3, atol=1e-4)


# --- several lesions


def two_lesions() -> np.ndarray:
    large, small = ball((14, 14, 14), 8), ball((34, 30, 28), 5)
    return np.where(large | small, 1, 0)


def test_largest_is_the_largest_lesion_alone(tmp_path, choices):
    both = cohort(tmp_path / "both", {"p": two_lesions()}, {1: "tumour"})
    one = Cohort("trial", both.participants, both.images.copy(), {}, {1: "tumour"})
    found = extracted(both, choices(lesions="largest", families=["intensity", "glcm"])).features
    alone = nib.load(both.images["mask_path"][0])
    nib.save(nib.Nifti1Image(ball((14, 14, 14), 8).astype(np.uint8), alone.affine), tmp_path / "alone.nii.gz")
    one.images["mask_path"] = str(tmp_path / "alone.nii.gz")
    expected = extracted(one, choices(lesions="pooled", families=["intensity", "glcm"])).features
    texture = found.filter(regex="_(stat|cm)_").columns
    pd.testing.assert_frame_equal(found[texture], expected[texture])


def test_volume_weighted_is_the_mean_over_lesions_weighted_by_their_voxels(tmp_path, choices):
    one = cohort(tmp_path, {"p": two_lesions()}, {1: "tumour"})
    found = extracted(one, choices(lesions="volume-weighted", families=["intensity"])).features.loc["p"]
    pooled = extracted(one, choices(lesions="pooled", families=["intensity"])).features.loc["p"]
    assert found["rad_tumour_t1c_stat_mean"] == pytest.approx(pooled["rad_tumour_t1c_stat_mean"])
    assert found["rad_tumour_t1c_stat_max"] < pooled["rad_tumour_t1c_stat_max"] + 1e-9
    assert found["rad_tumour_t1c_stat_max"] != pytest.approx(pooled["rad_tumour_t1c_stat_max"])


# --- controls


def test_shuffled_voxels_keep_the_histogram_and_lose_the_texture(tmp_path, choices):
    smooth = np.cumsum(np.ones(SHAPE), axis=0) * 5
    one = cohort(tmp_path, {"p": metastasis()})
    nib.save(nib.Nifti1Image(smooth.astype(np.float32), np.eye(4)), one.images["path"][0])
    found = extracted(one, choices())
    real, shuffled = found.features.loc["p"], found.shuffled.loc["p"]
    same = [name for name in shuffled.index if "_stat_" in name or "_ih_" in name]
    pd.testing.assert_series_equal(real[same], shuffled[same], rtol=1e-9)
    assert shuffled["rad_tumour_t1c_cm_contrast"] > 5 * real["rad_tumour_t1c_cm_contrast"]


def test_noise_in_place_of_voxels_knows_nothing_of_the_image(tmp_path, choices):
    """Two images of one mask, one of them smooth: the same noise, the same features."""
    one, other = (cohort(tmp_path / str(k), {"p": metastasis()}, seed=k) for k in (1, 2))
    nib.save(nib.Nifti1Image(np.cumsum(np.ones(SHAPE), 0).astype(np.float32), np.eye(4)), other.images["path"][0])
    first, second = (extracted(each, choices()).noise for each in (one, other))
    pd.testing.assert_frame_equal(first, second)


def test_controls_have_the_intensity_and_texture_of_the_tumour_and_no_shape(tmp_path, choices):
    """Noise in every compartment would know the volume of each, and so their ratios."""
    found = extracted(cohort(tmp_path, {"p": metastasis()}), choices())
    grey = [name for name in found.features if name.startswith("rad_tumour_") and "_morph_" not in name]
    assert list(found.shuffled) == list(found.noise) == grey


def test_a_cohort_of_masks_only_has_shape_no_grey_values_and_no_controls(tmp_path, choices):
    one = cohort(tmp_path, {"p": metastasis(), "q": metastasis(7)}, modalities=("mask",))
    found = extracted(one, choices())
    assert found.features.filter(like="_morph_").shape[1] > 10
    assert not [name for name in found.features if "_stat_" in name or "_cm_" in name]
    assert found.shuffled.shape == found.noise.shape == (2, 0)
    assert set(found.perturbed.index.get_level_values("perturbation")) == {"original", "shrink"}


def test_a_patient_without_a_scan_has_a_row_of_gaps_that_is_explained_and_is_not_perturbed(tmp_path, choices):
    one = cohort(tmp_path, {"seen": metastasis(), "unseen": metastasis(7)})
    lacking = Cohort("trial", one.participants, one.images.query("patient_id == 'seen'"), {}, LABELS)
    found, alone = extracted(lacking, choices()), extracted(cohort(tmp_path, {"seen": metastasis()}), choices())
    assert found.features.loc["unseen"].isna().all() and found.shuffled.loc["unseen"].isna().all()
    pd.testing.assert_frame_equal(found.features.loc[["seen"]], alone.features)
    assert found.notes.query("patient_id == 'unseen'")["reason"].tolist() == ["no image and no mask"]
    assert set(found.perturbed.index.get_level_values("patient_id")) == {"seen"}


def test_of_a_cohort_in_which_nobody_was_scanned_there_are_rows_and_no_column_and_they_are_read_back(tmp_path, choices):
    one = cohort(tmp_path, {"p": metastasis(), "q": metastasis(7)})
    found = extracted(Cohort("trial", one.participants, one.images.iloc[:0], {}, LABELS), choices())
    found.save(tmp_path / "out")
    back = Biomarkers.load(tmp_path / "out")
    for table in (found, back):
        assert table.features.shape == table.shuffled.shape == table.noise.shape == (2, 0)
        assert table.perturbed.empty and list(table.features.index) == ["p", "q"]


# --- robustness


def test_the_perturbed_are_drawn_from_the_development_set_and_hold_the_original_beside(tmp_path, choices):
    one = cohort(tmp_path, {f"p{k}": metastasis(7 + k / 2) for k in range(5)})
    found = extracted(one, choices(), development=["p1", "p3", "p4"])
    patients = found.perturbed.index.get_level_values("patient_id")
    assert set(patients) == {"p1", "p3", "p4"}
    assert found.perturbed.groupby("patient_id").size().eq(3).all()  # original, shrink, noise
    original = found.perturbed.xs("original", level="perturbation")
    pd.testing.assert_frame_equal(original, found.features.loc[original.index], check_names=False)


def test_a_shrunk_tumour_is_smaller_and_noise_leaves_every_volume(tmp_path, choices):
    found = extracted(cohort(tmp_path, {"p": metastasis(10)}), choices()).perturbed["tumour_ml"].loc["p"]
    assert 0.7 < found["shrink"] / found["original"] < 0.97
    assert found["noise"] == found["original"]


# --- what cannot be measured


@pytest.mark.parametrize("case", ["one voxel", "one slice", "constant", "not a number", "border", "empty region"])
def test_one_difficult_patient_costs_no_one_else_anything_and_is_explained(case, tmp_path, choices):
    mask, broken = metastasis(), metastasis()
    if case == "one voxel":
        broken = np.zeros(SHAPE, int)
        broken[20, 20, 18] = ENHANCING
    elif case == "one slice":
        broken[:, :, [k for k in range(SHAPE[2]) if k != 18]] = 0
    elif case == "border":
        broken = metastasis(9, (2, 20, 34))
    elif case == "empty region":
        broken[broken == NECROSIS] = ENHANCING
    one = cohort(tmp_path, {"well": mask, "ill": broken})
    path = one.images.set_index("patient_id").loc["ill", "path"]
    image = nib.load(path).get_fdata()
    if case == "constant":
        image[broken > 0] = 130.0
    elif case == "not a number":
        image[20, 20, 18], image[21, 20, 18] = np.nan, np.inf
    nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), path)
    found = extracted(one, choices())
    alone = extracted(cohort(tmp_path / "alone", {"well": mask}), choices())
    pd.testing.assert_series_equal(found.features.loc["well", list(alone.features)], alone.features.loc["well"])
    row = found.features.loc["ill"]
    assert not np.isinf(row.to_numpy(float)).any()
    told = set(found.notes.loc[found.notes["patient_id"] == "ill", "region"])
    grey = row.filter(regex="^rad_")
    if case != "border":
        assert told, "nothing is said of what could not be measured"
    else:
        assert np.isfinite(grey).all()
    if case == "not a number":
        assert np.isfinite(row["rad_tumour_t1c_stat_mean"])
    for region in ("tumour", "enhancing", "necrosis", "oedema", "whole"):
        if grey.filter(regex=f"^rad_{region}_").isna().any():
            assert region in told or "" in told or "lesion" in told


def test_two_grids_of_one_patient_meet(tmp_path, choices):
    """The mask on half the grid of the image: the same region, so about the same mean."""
    mask = metastasis(10)
    one = cohort(tmp_path, {"p": mask})
    expected = extracted(one, choices()).features.loc["p"]
    nib.save(nib.Nifti1Image(mask[4:, 3:, 2:].astype(np.uint8), np.array([[1, 0, 0, 4], [0, 1, 0, 3], [0, 0, 1, 2], [0, 0, 0, 1.0]])), tmp_path / "moved.nii.gz")  # fmt: skip
    one.images["mask_path"] = str(tmp_path / "moved.nii.gz")
    found = extracted(one, choices()).features.loc["p"]
    pd.testing.assert_series_equal(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["log4", "wavelet"])
def test_a_filter_sees_what_lies_about_the_region_as_in_the_whole_image(name, tmp_path, choices):
    mask = ball((8, 8, 8), 4).astype(int)
    one = cohort(tmp_path, {"p": mask}, {1: "tumour"}, spacing=(3.0,) * 3 if name == "wavelet" else (1.0,) * 3)
    spacing = 3.0 if name == "wavelet" else 1.0
    values = nib.load(one.images["path"][0]).get_fdata().astype(np.float32)
    values[24:], values[:, 13:] = 900, 700  # edges that a margin of 10 mm would not show
    nib.save(nib.Nifti1Image(values, np.diag([spacing] * 3 + [1])), one.images["path"][0])
    plain = choices(filters=[name], families=["intensity"], spacing_mm={"other": spacing})
    own = plain.preprocess.model_copy(update={"mr": plain.preprocess.mr.model_copy(update={"normalise": "none"})})
    row = extracted(one, plain.model_copy(update={"preprocess": own})).features.loc["p"]
    for band, seen in radiomics.filtered(values[::-1, ::-1], (spacing,) * 3, [name]).items():  # to the left and back
        assert row[f"rad_tumour_t1c-{band}_stat_max"] == pytest.approx(seen[::-1, ::-1][mask == 1].max(), rel=1e-4)


def test_a_sequence_that_a_patient_lacks_is_said_to_be_absent(tmp_path, choices):
    one = cohort(tmp_path, {"well": metastasis(), "ill": metastasis(7)}, modalities=("t1c", "t2f"))
    lacking = one.images.query("patient_id == 'well' or modality == 't1c'").reset_index(drop=True)
    found = extracted(Cohort("trial", one.participants, lacking, {}, LABELS), choices())
    assert found.features.loc["ill"].filter(regex="_t2f_").isna().all()
    told = found.notes[found.notes["sequence"] == "t2f"]
    assert told[["patient_id", "reason"]].to_numpy().tolist() == [["ill", "no such image"]]


def test_a_mask_on_no_grid_of_an_mr_says_why_its_depth_is_not_known(tmp_path, choices):
    one = cohort(tmp_path, {"p": metastasis()})
    nib.save(nib.Nifti1Image(metastasis()[2:].astype(np.uint8), np.eye(4)), one.images["mask_path"][0])
    notes = extracted(one, choices()).notes
    assert notes["reason"].str.startswith("surface_mm, ventricle_mm: no MR image on the grid").any()


def test_voxels_out_of_range_are_counted_in_the_notes(tmp_path, choices):
    mask = metastasis().clip(0, 1)
    one = cohort(tmp_path, {"p": mask}, {1: "tumour"}, modalities=("ct",))
    values = nib.load(one.images["path"][0]).get_fdata().astype(np.float32)
    values[20, 20, 16:19] = 30000
    nib.save(nib.Nifti1Image(values, np.eye(4)), one.images["path"][0])
    reasons = extracted(one, choices()).notes.query("region == 'tumour'")["reason"].tolist()
    assert reasons == [f"3 of {mask.sum()} voxels outside -1000 to 400, left out"]


def test_what_a_filter_leaves_undefined_is_explained(tmp_path, choices, monkeypatch):
    """An image of noise has a coefficient of variation; a filter that makes 0 of it leaves none."""
    monkeypatch.setattr(radiomics, "filtered", lambda values, *_: {"log2": np.zeros_like(values)})
    one = cohort(tmp_path, {"p": ball((20, 20, 18), 3).astype(int)}, {1: "tumour"}, modalities=("ct",))
    found = extracted(one, choices(filters=["log2"], families=["intensity"]))
    assert np.isfinite(found.features.loc["p", "rad_tumour_ct_stat_cov"])
    assert "rad_tumour_ct-log2_stat_cov" not in found.features
    told = found.notes.query("sequence == 'ct-log2'")["reason"].tolist()
    assert len(told) == 1 and told[0].startswith("stat_cov, stat_qcod not defined")


def test_scans_that_are_gone_are_one_sentence(tmp_path, choices):
    one = cohort(tmp_path, {"p": metastasis()})
    Path(one.images["path"][0]).unlink()
    with pytest.raises(BadInput, match="p_t1c.nii.gz: file not found, .* put it back"):
        extracted(one, choices())


def test_a_patient_held_out_changes_nothing_of_the_others(tmp_path, choices):
    one = cohort(tmp_path, {f"p{k}": metastasis(6 + k) for k in range(4)})
    before = extracted(one, choices(), development=["p0", "p1", "p2"])
    for column in ("path", "mask_path"):
        file = one.images.set_index("patient_id").loc["p3", column]
        nib.save(
            nib.Nifti1Image((metastasis(3) * (1 if column == "mask_path" else 77)).astype(np.uint8), np.eye(4)), file
        )
    after = extracted(one, choices(), development=["p0", "p1", "p2"])
    for name in ("features", "shuffled", "noise"):
        pd.testing.assert_frame_equal(getattr(after, name).iloc[:3], getattr(before, name).iloc[:3], check_exact=True)
    pd.testing.assert_frame_equal(after.perturbed, before.perturbed, check_exact=True)
    assert not after.features.loc["p3"].equals(before.features.loc["p3"])


# --- what is remembered


@pytest.fixture
def counted(monkeypatch):
    """How often a region is measured, by sequence kind."""
    calls = []
    real = radiomics.features

    def counting(values, inside, spacing, bins, *rest):
        calls.append("mr" if bins.number else "ct")
        return real(values, inside, spacing, bins, *rest)

    monkeypatch.setattr(radiomics, "features", counting)
    return calls


def test_nothing_is_measured_twice_and_what_is_remembered_is_the_same(tmp_path, choices, counted):
    one = cohort(tmp_path, {"p": metastasis(), "q": metastasis(7)})
    first = extracted(one, choices())
    seen = len(counted)
    second = extracted(one, choices())
    assert seen and len(counted) == seen
    for name in ("features", "shuffled", "noise", "perturbed", "notes"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


def test_a_changed_choice_recomputes_only_what_it_touches(tmp_path, choices, counted):
    one = cohort(tmp_path, {"p": metastasis()}, modalities=("ct", "t1c"))
    extracted(one, choices())
    counted.clear()
    bins = choices().biomarkers.bins
    extracted(one, choices(bins=bins | {"ct": bins["ct"].model_copy(update={"width": 10.0})}))
    assert set(counted) == {"ct"}


@pytest.mark.parametrize("content", [b"", b'{"features": {"tumour_ml": 1', b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_memory_is_measured_anew(content, tmp_path, choices, derived):
    one = cohort(tmp_path, {"p": metastasis()})
    first = extracted(one, choices())
    files = sorted((derived / "trial" / "remembered").iterdir())
    for file in files:
        file.write_bytes(content)
    pd.testing.assert_frame_equal(extracted(one, choices()).features, first.features)
    assert [file for file in files if file.read_bytes() == content] == []


def test_two_may_remember_the_same_at_the_same_time(tmp_path, choices):
    rows = cohort(tmp_path, {"p": metastasis()}).images
    together = Barrier(4)

    def slow(rows, choice):
        together.wait()
        return {"features": {"x": 1.0}, "notes": []}

    def both(number):
        return biomarkers._remembered(tmp_path / "remembered", slow, rows, {"number": number})

    with ThreadPoolExecutor(4) as pool:
        for number in range(50):
            assert [found["features"] for found in pool.map(both, [number] * 4)] == [{"x": 1.0}] * 4
    assert len(list((tmp_path / "remembered").iterdir())) == 50


def test_a_changed_mask_is_measured_anew(tmp_path, choices):
    one = cohort(tmp_path, {"p": metastasis()})
    before = extracted(one, choices()).features.loc["p", "tumour_ml"]
    nib.save(nib.Nifti1Image(metastasis(11).astype(np.uint8), np.eye(4)), one.images["mask_path"][0])
    assert extracted(one, choices()).features.loc["p", "tumour_ml"] > before


def test_what_is_saved_is_read_back(tmp_path, choices):
    found = extracted(
        cohort(tmp_path / "in", {"p": metastasis(), "q": np.where(ball((20, 20, 18), 1), 3, 0)}), choices()
    )
    found.save(tmp_path / "out")
    read = Biomarkers.load(tmp_path / "out")
    for name in ("features", "shuffled", "noise", "perturbed", "notes"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(found, name))


def test_one_process_and_two_extract_the_same(tmp_path, choices, monkeypatch):
    one = cohort(tmp_path, {f"p{k}": metastasis(6 + k) for k in range(3)})
    alone = extracted(one, choices())
    with joblib.parallel_config(backend="threading", n_jobs=2):
        monkeypatch.setattr(paths, "DERIVED", tmp_path / "again")
        both = extract(one, choices(), list(one.participants["patient_id"]))
    pd.testing.assert_frame_equal(both.features, alone.features, check_exact=True)
    pd.testing.assert_frame_equal(both.shuffled, alone.shuffled, check_exact=True)


def test_one_patient_alone_is_measured_as_among_others(tmp_path, choices):
    one = cohort(tmp_path, {"p": metastasis(), "q": metastasis(7)})
    rows = one.images[one.images["patient_id"] == "q"]
    alone = measure_patient(rows, LABELS, choices(), "trial")
    together = extracted(one, choices()).features.loc["q"]
    pd.testing.assert_series_equal(pd.Series(alone["features"])[together.index], together, check_names=False)


def test_names_begin_with_rad_for_radiomics_only(tmp_path, choices):
    found = extracted(cohort(tmp_path, {"p": metastasis()}), choices()).features
    plain = [name for name in found if not name.startswith(biomarkers.RADIOMIC)]
    assert {"tumour_ml", "oedema_to_tumour", "necrosis_fraction", "enhancing_ml"} <= set(plain)
