"""Crops against planted anatomy: where a thing lies in the patient, not how its file stores it."""

import itertools
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput
from survpack.params import Crops, Preprocess
from survpack.preprocess import (
    CropSet,
    at_baseline,
    for_network,
    largest_lesion_centre,
    make_crops,
    read_image,
    share_frame,
    tumour_of,
)

SIZE = 32
MIDDLE = (SIZE - 1) / 2


def choices(spacing: float = 1.0) -> Crops:
    return Crops(size=SIZE, spacing_mm={"other": spacing}, ct_window_hu=(-160, 240), suv_max=20)


def steps(orientation: str = "LPS", mr: str = "zscore") -> Preprocess:
    return Preprocess(
        orientation=orientation, resample={"image": "spline", "mask": "nearest"}, mr={"normalise": mr, "n4": False},
        ct={"range_hu": (-1000, 400)}, pt={"range_suv": (0, 100)},
    )  # fmt: skip


def normalise(image, modality):
    return for_network(image, modality, choices(), steps())[0]


def cohort(rows: list[list], labels=None) -> Cohort:
    """Rows of patient, modality, image ("" for none), mask."""
    images = pd.DataFrame([[p, "baseline", 0.0, m, str(i), str(k)] for p, m, i, k in rows], columns=IMAGES)
    outcome = {"patient_id": images["patient_id"].unique(), "site": "a", "time_days": 1.0, "event": True}
    return Cohort("trial", pd.DataFrame(outcome), images, {}, labels or {1: "tumour"})


def saved(path, values, affine=None):
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def planted(shape=(60, 70, 50), spacing=(1.0, 1.0, 1.0), centre=(20.0, 45.0, 15.0)):
    """Intensity and mask with nothing symmetric: a ball, and three bright marks of different weight beside it."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"), -1)
    far = np.linalg.norm(grid - centre, axis=-1)
    values = np.where(far < 5, 100.0, 10.0)
    for axis, weight in enumerate((200.0, 400.0, 800.0)):
        mark = np.array(centre, dtype=float)
        mark[axis] += 9
        values[np.linalg.norm(grid - mark, axis=-1) < 2.5] = weight
    return values.astype(np.float32), (far < 5).astype(np.uint8)


def crop_of(folder, values, mask, affine, modality="t1c", spacing=1.0, name="p") -> CropSet:
    row = [name, modality, saved(folder / f"{name}.nii.gz", values, affine),
           saved(folder / f"{name}_dseg.nii.gz", mask, affine)]  # fmt: skip
    return make_crops(cohort([row]), choices(spacing), steps())


# --- where


def test_a_planted_lesion_ends_in_the_centre_of_the_cube(tmp_path):
    values, mask = planted()
    crops = crop_of(tmp_path, values, mask, np.eye(4))
    where = np.argwhere(crops.masks[0, 0] > 0)
    np.testing.assert_allclose(where.mean(axis=0), MIDDLE, atol=0.51)  # the cube's middle lies between voxels
    assert crops.masks[0, 0].sum() == pytest.approx(mask.sum(), rel=0.1)


def test_axes_run_to_the_left_the_back_and_the_head(tmp_path):
    values, mask = planted()  # stored with axes to the right, the front and the head (RAS)
    for label, mark in enumerate((200, 400, 800), start=2):  # nine mm to the right, the front and the head
        mask[values == mark] = label
    row = ["p", "t1c", saved(tmp_path / "p.nii.gz", values), saved(tmp_path / "m.nii.gz", mask)]
    crops = make_crops(cohort([row], {1: "tumour", 2: "right", 3: "front", 4: "head"}), choices(), steps())
    away = [np.argwhere(channel > 0).mean(axis=0) - MIDDLE for channel in crops.masks[0, 1:]]
    np.testing.assert_allclose(away, np.diag([-9, -9, 9]), atol=0.6)


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL", "ILA", "ARS", "RIP"])
def test_the_same_anatomy_stored_another_way_gives_the_same_crop(tmp_path, codes):
    affine = np.diag([1.2, 0.9, 2.0, 1.0])
    affine[:3, 3] = [-30, 12, 55]
    values, mask = planted((50, 70, 30), (1.2, 0.9, 2.0), (24.0, 36.0, 26.0))
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    (tmp_path / "stored").mkdir()
    image = nib.Nifti1Image(values, affine).as_reoriented(turn)
    turned = nib.Nifti1Image(mask, affine).as_reoriented(turn)
    assert "".join(nib.aff2axcodes(image.affine)) == codes
    as_is = crop_of(tmp_path, values, mask, affine)
    again = crop_of(tmp_path / "stored", np.asarray(image.dataobj), np.asarray(turned.dataobj), image.affine)
    np.testing.assert_allclose(again.images.astype(float), as_is.images.astype(float), atol=2e-2)
    np.testing.assert_array_equal(again.masks, as_is.masks)


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_voxels_of_the_crop_have_the_spacing_asked_for(tmp_path, spacing):
    values, mask = planted((60, 70, 25), (1.0, 1.0, 2.0), (30.0, 35.0, 26.0))
    crops = crop_of(tmp_path, values, mask, np.diag([1, 1, 2, 1.0]), spacing=spacing)
    ball = 4 / 3 * np.pi * 5**3
    assert crops.masks[0, 0].sum() * spacing**3 == pytest.approx(ball, rel=0.15)
    extent = np.ptp(np.argwhere(crops.masks[0, 0] > 0), axis=0) + 1
    np.testing.assert_allclose(extent * spacing, 10, atol=max(spacing, 2))


def test_the_largest_lesion_is_at_the_centre_not_the_mean_of_all(tmp_path):
    mask = np.zeros((60, 40, 40), dtype=np.uint8)
    mask[10:18, 10:18, 10:18] = 1
    mask[50:54, 30:34, 30:34] = 1
    image = sitk.GetImageFromArray(mask.transpose(2, 1, 0))
    np.testing.assert_allclose(largest_lesion_centre(image, [1]), [13.5] * 3)


def test_lesions_touching_at_a_corner_are_one_here_as_in_the_biomarkers():
    mask = np.zeros((30, 30, 30), dtype=np.uint8)
    mask[2:6, 2:6, 2:6] = mask[6:10, 6:10, 6:10] = 1  # two of 64 voxels, joined by a corner
    mask[20:25, 20:24, 20:24] = 1  # one of 80
    image = sitk.GetImageFromArray(mask.transpose(2, 1, 0))
    np.testing.assert_allclose(largest_lesion_centre(image, [1]), [5.5] * 3)


def test_each_modality_is_centred_on_its_own_mask(tmp_path):
    rows = []
    for modality, centre in (("t1n", (20.0, 45.0, 18.0)), ("t2w", (35.0, 20.0, 30.0))):
        values, mask = planted(centre=centre)
        rows.append(["p", modality, saved(tmp_path / f"{modality}.nii.gz", values),
                     saved(tmp_path / f"{modality}_dseg.nii.gz", mask)])  # fmt: skip
    crops = make_crops(cohort(rows), choices(), steps())
    one, other = (part[4:-4, 4:-4, 4:-4].astype(float) for part in crops.images[0])
    assert crops.modalities == ["t1n", "t2w"] and crops.aligned == {"p": False}
    np.testing.assert_allclose(one, other, atol=1e-2)  # the same ball and marks in the middle of both


def ball(folder, name, spacing, centre, radius=8.0, extent=60.0, shift=0.0):
    """Image and mask of a ball at `centre` mm, seen by a scanner whose frame is `shift` mm off."""
    shape = [int(extent / step) for step in spacing]
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"), -1)
    inside = np.linalg.norm(grid - centre, axis=-1) < radius
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = shift
    image = saved(folder / f"{name}.nii.gz", np.where(inside, 10.0, 1.0).astype(np.float32), affine)
    return [image, saved(folder / f"{name}_m.nii.gz", inside.astype(np.uint8), affine)]


@pytest.mark.parametrize("shift, same", [(0.0, True), (3.0, False), (200.0, False)])
def test_ct_and_pet_of_one_frame_share_one_cube_and_others_are_centred_each(tmp_path, shift, same):
    centre = np.array([30.0, 28.0, 31.0])
    rows = [["p", "ct", *ball(tmp_path, "ct", (1.0, 1.0, 3.0), centre)],
            ["p", "pt", *ball(tmp_path, "pt", (4.0, 4.0, 4.0), centre + [2, 0, 0], shift=shift)]]  # fmt: skip
    crops = make_crops(cohort(rows), choices(2.0), steps())
    assert crops.aligned == {"p": same}
    values = crops.images[0, 1].astype(float)
    found = np.argwhere(values > (values.max() + values.min()) / 2).mean(axis=0) - MIDDLE
    off = [-1, 0, 0] if same else [0, 0, 0]  # two mm to the right is one voxel of two mm against the left
    np.testing.assert_allclose(found, off, atol=0.6)


def test_one_mask_for_all_is_one_frame_whatever_the_grids(tmp_path):
    image, mask = ball(tmp_path, "ct", (1.0, 1.0, 3.0), (30.0, 28.0, 31.0))
    pet, _ = ball(tmp_path, "pt", (4.0, 4.0, 4.0), (30.0, 28.0, 31.0))
    crops = make_crops(cohort([["p", "ct", image, mask], ["p", "pt", pet, mask]]), choices(), steps())
    assert crops.aligned == {"p": True}


@pytest.mark.parametrize("apart, expected", [(1.0, True), (4.0, False)])
def test_frames_are_told_by_the_dice_coefficient_of_two_balls(tmp_path, apart, expected):
    lesions = [tumour_of(read_image(str(ball(tmp_path, f"{x}", (1.0, 1.0, 1.0), (25.0 + x, 30, 30))[1])), [1])
               for x in (0.0, apart)]  # fmt: skip
    share = apart / 16  # of two balls of radius r, d apart: 1 - 1.5 d/2r + 0.5 (d/2r)^3
    assert (1 - 1.5 * share + 0.5 * share**3 >= 0.8) == expected
    assert share_frame(lesions) == share_frame(lesions[::-1]) == expected


def test_of_the_real_sarcomas_all_but_one_share_a_frame():
    from pathlib import Path

    from survpack.adapters import sts

    root = Path(os.environ.get("SURVPACK_DATA", "absent")) / "sts"
    if not root.exists():
        pytest.skip("SURVPACK_DATA has no sts")
    images = sts.discover(root)
    apart = [
        patient
        for patient, rows in images[images["patient_id"] > "STS_012"].groupby("patient_id")
        if patient < "STS_022" and not share_frame([tumour_of(read_image(path), [1]) for path in rows["mask_path"]])
    ]
    assert apart == ["STS_019"]


def test_axes_of_the_cube_run_as_params_say(tmp_path):
    values, mask = planted()
    row = ["p", "t1c", saved(tmp_path / "p.nii.gz", values), saved(tmp_path / "m.nii.gz", mask)]
    lps, ras = (make_crops(cohort([row]), choices(), steps(axes)) for axes in ("LPS", "RAS"))
    np.testing.assert_allclose(ras.images.astype(float), lps.images[:, :, ::-1, ::-1].astype(float), atol=1e-2)
    np.testing.assert_array_equal(ras.masks, lps.masks[:, :, ::-1, ::-1])


def test_a_lesion_at_the_border_is_centred_and_what_is_beyond_is_background(tmp_path):
    values, mask = planted(centre=(3.0, 45.0, 15.0))
    crops = crop_of(tmp_path, values, mask, np.eye(4))
    np.testing.assert_allclose(np.argwhere(crops.masks[0, 0] > 0).mean(axis=0), MIDDLE, atol=0.51)
    assert crops.masks.sum() == mask.sum()
    assert (crops.images[0, 0, -8:] == crops.images.min()).all()  # beyond the patient's right, as stored


def test_smoothing_near_the_lesion_is_smoothing_of_all(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    values, mask = planted((90, 80, 70), centre=(40.0, 45.0, 30.0))
    noisy = (values + rng.normal(0, 20, values.shape)).astype(np.float32)
    near = crop_of(tmp_path, noisy, mask, np.eye(4), spacing=1.6).images.astype(float)
    monkeypatch.setattr("survpack.preprocess._near", lambda image, grid, margin_mm: image)
    whole = crop_of(tmp_path, noisy, mask, np.eye(4), spacing=1.6).images.astype(float)
    np.testing.assert_allclose(near, whole, atol=2e-3)


# --- what


def test_ct_is_windowed_and_pet_capped_to_between_0_and_1():
    image = sitk.GetImageFromArray(np.array([[[-1000.0, -160, 40, 240, 3000]]], dtype=np.float32))
    np.testing.assert_allclose(sitk.GetArrayFromImage(normalise(image, "ct")).ravel(), [0, 0, 0.5, 1, 1])
    image = sitk.GetImageFromArray(np.array([[[-1.0, 0, 5, 20, 60]]], dtype=np.float32))
    np.testing.assert_allclose(sitk.GetArrayFromImage(normalise(image, "pt")).ravel(), [0, 0, 0.25, 1, 1])


def test_mr_is_a_z_score_over_the_voxels_above_zero():
    values = np.random.default_rng(0).normal(300, 40, (20, 20, 20)).astype(np.float32)
    values[:10] = 0
    found = sitk.GetArrayFromImage(normalise(sitk.GetImageFromArray(values), "t1c"))
    assert found[10:].mean() == pytest.approx(0, abs=1e-4)
    assert found[10:].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found[:10], -values[10:].mean() / values[10:].std(), rtol=1e-4)


def test_mr_units_do_not_matter():
    values = np.random.default_rng(1).gamma(3, 50, (12, 12, 12)).astype(np.float32)
    one, other = (normalise(sitk.GetImageFromArray(v), "t2w") for v in (values, values * 7))
    np.testing.assert_allclose(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other), atol=1e-4)


@pytest.mark.parametrize("modality, inside, background", [("ct", 1000.0, 0.0), ("pt", 10.0, 0.0), ("t1c", 50.0, None)])
def test_outside_the_field_of_view_is_background(tmp_path, modality, inside, background):
    values = np.full((16, 16, 16), inside, dtype=np.float32)
    values[:8] = {"ct": -1000.0}.get(modality, 0.0)
    values[:, :, 8:] += np.float32(modality == "t1c")  # some spread for the z-score
    mask = np.zeros(values.shape, dtype=np.uint8)
    mask[10:14, 6:10, 6:10] = 1
    crop = crop_of(tmp_path, values, mask, np.eye(4), modality).images[0, 0].astype(float)
    background = crop.min() if background is None else background
    corners = [crop[corner] for corner in itertools.product((0, -1), repeat=3)]
    np.testing.assert_allclose(corners, background, atol=1e-3)
    assert crop.min() == pytest.approx(background, abs=1e-3)


@pytest.mark.parametrize("spacing", [0.7, 1.0, 1.9])
def test_mask_values_stay_0_or_1_and_labels_never_overlap(tmp_path, spacing):
    values, mask = planted()
    mask[values == 200] = 2
    mask[values == 400] = 4
    labels = {1: "enhancing", 2: "oedema", 4: "necrosis"}
    row = ["p", "t1c", saved(tmp_path / "p.nii.gz", values), saved(tmp_path / "m.nii.gz", mask)]
    crops = make_crops(cohort([row], labels), choices(spacing), steps())
    assert crops.labels == ["enhancing", "oedema", "necrosis"]
    assert set(np.unique(crops.masks)) == {0, 1}
    assert crops.masks.sum(axis=1).max() == 1
    assert (crops.masks.sum(axis=(0, 2, 3, 4)) > 0).all()


def test_a_coarser_grid_averages_instead_of_picking(tmp_path):
    values, mask = planted()
    noisy = (values + 50 * np.random.default_rng(0).standard_normal(values.shape)).clip(1).astype(np.float32)
    crop = crop_of(tmp_path, noisy, mask, np.eye(4), spacing=3.0).images[0, 0]
    picked = sitk.GetArrayFromImage(normalise(sitk.GetImageFromArray(noisy), "t1c"))[::3, ::3, ::3]
    assert crop[:5].std() < 0.7 * picked[-5:].std()


# --- what cannot be read


def sheared(path):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    return saved(path, planted()[1], affine)


def not_an_image(path):
    path.write_bytes(b"no image")
    return path


def two_volumes(path):
    return saved(path, np.stack([planted()[1]] * 2, axis=-1))


def one_slice(path):
    return saved(path, planted()[1][:, :, 15])


@pytest.mark.parametrize("spoilt", [sheared, not_an_image, two_volumes, one_slice])
def test_an_image_that_cannot_be_used_is_refused_by_name_in_one_sentence(tmp_path, spoilt):
    path = spoilt(tmp_path / "p.nii.gz")
    with pytest.raises(BadInput) as error:
        read_image(str(path))
    assert str(error.value).startswith(f"{path}: ") and "expected" in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_is_read_as_nan_and_the_place_is_that_of_itks_own_reader(tmp_path):
    values = planted()[0].astype(np.float32)
    values[3, 4, 5], values[6, 7, 8] = np.nan, -np.inf
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = 5, -7, 11
    path = str(saved(tmp_path / "nan.nii.gz", values, affine))
    for pixel in (sitk.sitkUnknown, sitk.sitkFloat32):
        image, plain = read_image(path, pixel), sitk.ReadImage(path)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), values)
        assert np.isfinite(sitk.GetArrayFromImage(plain)).all()  # why this is not left to ITK
        for about in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(image, about)(), getattr(plain, about)())


def test_one_volume_stored_with_four_axes_is_that_volume(tmp_path):
    mask = planted()[1]
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    four = read_image(str(saved(tmp_path / "four.nii.gz", mask[..., None], affine)))
    three = read_image(str(saved(tmp_path / "three.nii.gz", mask, affine)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(four), sitk.GetArrayFromImage(three))
    for about in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(four, about)(), getattr(three, about)())


def test_voxels_that_are_not_finite_are_filled_and_the_note_names_the_file_and_their_number(tmp_path):
    values, mask = planted()
    clean = crop_of(tmp_path, values, mask, np.eye(4)).images.astype(float)
    values[0, 0, :3], values[55, 60, 40] = np.nan, np.inf  # in the background, so nothing else changes
    broken = crop_of(tmp_path, values, mask, np.eye(4), name="q")
    assert np.isfinite(broken.images).all()
    np.testing.assert_allclose(broken.images.astype(float), clean, atol=2e-3)
    assert list(broken.notes) == ["q"] and "q.nii.gz: 4 of 210000 voxels" in broken.notes["q"]


def test_an_empty_mask_is_refused_by_name(tmp_path):
    values, mask = planted()
    with pytest.raises(BadInput, match=r"p_dseg.nii.gz: empty mask, expected a voxel of label 1"):
        crop_of(tmp_path, values, mask * 0, np.eye(4))


# --- the set


def test_a_modality_that_one_patient_lacks_is_zeros_for_that_patient_alone(tmp_path):
    rows = []
    for patient, modalities in (("p1", ["ct", "pt"]), ("p2", ["pt"])):
        for modality in modalities:
            values, mask = planted()
            rows.append([patient, modality, saved(tmp_path / f"{patient}{modality}.nii.gz", values / 50),
                         saved(tmp_path / f"{patient}{modality}_m.nii.gz", mask)])  # fmt: skip
    crops = make_crops(cohort(rows), choices(), steps())
    assert (crops.patient_ids, crops.modalities) == (["p1", "p2"], ["ct", "pt"])
    assert (crops.images[1, 0] == 0).all()
    assert (crops.images[0] != 0).any(axis=(1, 2, 3)).all() and (crops.images[1, 1] != 0).any()


def test_a_cohort_of_masks_only_has_no_image_channel(tmp_path):
    crops = make_crops(cohort([["p", "mask", "", saved(tmp_path / "m.nii.gz", planted()[1])]]), choices(), steps())
    assert crops.images.shape == (1, 0, SIZE, SIZE, SIZE)
    assert crops.masks.shape == (1, 1, SIZE, SIZE, SIZE) and crops.masks.any()
    assert crops.modalities == []


def test_a_patient_without_a_scan_is_zeros_and_said_to_be_and_with_nobody_scanned_there_is_no_channel(tmp_path):
    one = cohort([["p", "ct", saved(tmp_path / "i.nii.gz", planted()[0]), saved(tmp_path / "m.nii.gz", planted()[1])]])
    both = pd.concat([one.participants, one.participants.assign(patient_id="q")], ignore_index=True)
    some = make_crops(replace(one, participants=both), choices(), steps())
    assert some.images.shape[:2] == some.masks.shape[:2] == (2, 1) and some.notes["q"] == "no image and no mask"
    assert some.images[0].any() and not some.images[1].any() and not some.masks[1].any()
    nobody = make_crops(replace(one, participants=both, images=one.images.iloc[:0]), choices(), steps())
    assert nobody.images.shape == nobody.masks.shape == (2, 0, SIZE, SIZE, SIZE) and nobody.labels == []
    nobody.save(tmp_path / "crops")
    assert CropSet.load(tmp_path / "crops").images.shape == nobody.images.shape


def test_of_several_visits_the_nearest_to_baseline_is_cropped_and_an_unknown_day_comes_last():
    days = {"a": [90.0, -3.0, np.nan], "b": [np.nan, 30.0, 5.0]}
    images = pd.DataFrame([(p, "ct", k, day) for p in days for k, day in enumerate(days[p])],
                          columns=["patient_id", "modality", "session", "day"])  # fmt: skip
    late, work_up = ("a", "pt", 0, 90.0), ("b", "pt", 2, 45.0)
    images = pd.concat([images, pd.DataFrame([late, work_up], columns=images.columns)], ignore_index=True)
    chosen = at_baseline(images)
    assert chosen[["patient_id", "modality", "session"]].values.tolist() == [
        ["a", "ct", 1],
        ["b", "ct", 2],
        ["b", "pt", 2],  # forty days after the CT, but of the same session
    ]  # the PET of day 90 is of another: "a" has none


def test_what_is_saved_is_read_back_without_pickle(tmp_path):
    crops = crop_of(tmp_path, *planted(), np.eye(4))
    crops.save(tmp_path / "crops")
    again = CropSet.load(tmp_path / "crops")
    for name in ("images", "masks"):
        np.testing.assert_array_equal(getattr(again, name), getattr(crops, name))
        np.load(tmp_path / "crops" / f"{name}.npy", allow_pickle=False)
    for name in ("patient_ids", "modalities", "labels", "spacing_mm", "aligned", "notes"):
        assert getattr(again, name) == getattr(crops, name)
    assert {path.suffix for path in (tmp_path / "crops").iterdir()} == {".npy", ".json"}


def test_crops_do_not_depend_on_the_other_patients(tmp_path):
    rows = []
    for patient, centre in (("p1", (20.0, 45.0, 15.0)), ("p2", (35.0, 20.0, 30.0))):
        values, mask = planted(centre=centre)
        rows.append([patient, "t1c", saved(tmp_path / f"{patient}.nii.gz", values),
                     saved(tmp_path / f"{patient}_m.nii.gz", mask)])  # fmt: skip
    both, alone = make_crops(cohort(rows), choices(), steps()), make_crops(cohort(rows[1:]), choices(), steps())
    np.testing.assert_array_equal(both.images[1], alone.images[0])


def test_what_half_precision_cannot_hold_is_cut_off_and_told(tmp_path):
    values, mask = planted()
    image, drawn = saved(tmp_path / "i.nii.gz", values * 1e4), saved(tmp_path / "m.nii.gz", mask)
    made = make_crops(cohort([["p", "t1c", image, drawn]]), choices(), steps(mr="none"))
    assert np.isfinite(made.images).all() and made.images.max() == np.finfo(np.float16).max
    assert "cut off at 65504" in made.notes["p"]
