"""Where a scan lies, and what is in it: against NiBabel's matrices, ITK's reading of plain files, and planted lesions."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from survpack import nifti, scans
from survpack.cohort import IMAGES
from survpack.deploy import intake
from survpack.errors import BadInput
from survpack.lesions import measure
from survpack.preprocess import read_image, read_mask

SHAPE = (24, 20, 16)
TURNED = Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix()


def lesion(shape=SHAPE, value=500.0):
    """Air and a ball of soft tissue of `value`, and its mask; off the middle, so that no turn hides."""
    far = np.linalg.norm(np.argwhere(np.ones(shape)) - [8, 7, 6], axis=1).reshape(shape)
    return np.where(far < 4, value, -1000).astype(np.float32), (far < 4).astype(np.uint8)


def affine_of(sides=(1.0, 1.0, 1.0), origin=(-20.0, 30.0, 10.0), axes=None):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (np.eye(3) if axes is None else axes) * sides, origin
    return affine


def saved(path, values, sform=None, qform=None, codes=(None, None), pixdim=None, units=None):
    """A file with the two places, each as it is given: a matrix and its code, or none."""
    image = nib.Nifti1Image(values, None)
    image.header.set_sform(sform, (2 if sform is not None else 0) if codes[0] is None else codes[0])
    image.header.set_qform(qform, (1 if qform is not None else 0) if codes[1] is None else codes[1])
    if qform is None and pixdim is None and sform is not None:
        pixdim = np.linalg.norm(sform[:3, :3], axis=0)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    if units:
        image.header.set_xyzt_units(units)
    header = image.header.copy()
    with nib.openers.ImageOpener(str(path), "wb") as file:  # `nib.save` would set the header straight
        header["vox_offset"], header["magic"] = 352, b"n+1"
        file.write(header.binaryblock + bytes(4) + np.asarray(values).tobytes(order="F"))
    return str(path)


def findings(image, mask, modality="ct"):
    rows = pd.DataFrame([["p", "baseline", 0.0, modality, image, mask]], columns=IMAGES)
    patient = pd.DataFrame({"patient_id": ["p"], "time_days": [100.0]})
    return scans.check_images(rows, patient, {1: "tumour"}, "trial")


def mean_in(image, mask):
    """Mean of a scan in a mask, both where they lie."""
    scan, drawn = read_image(image, sitk.sitkFloat32), read_mask(mask)[0]
    moved = sitk.Resample(drawn, scan, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayFromImage(scan)[sitk.GetArrayFromImage(moved) > 0].mean())


def millilitres(mask):
    return measure(read_mask(mask)[0], {1: "tumour"})[0]["tumour_ml"]


# --- one place


@pytest.mark.parametrize("codes", [(2, 1), (1, 1), (4, 2), (2, 2)])
def test_a_mask_on_nibabels_affine_lies_on_a_lesion_whose_qform_says_otherwise(tmp_path, codes):
    values, mask = lesion()
    turned = affine_of(origin=(3.0, -8.0, 25.0), axes=TURNED)
    image = saved(tmp_path / "ct.nii", values, turned, affine_of(), codes)
    drawn = str(tmp_path / "mask.nii")
    nib.save(nib.Nifti1Image(mask, nib.load(image).affine), drawn)
    assert mean_in(image, drawn) == 500
    (told,) = findings(image, drawn)
    assert told.severity == "warning" and "the sform is read" in told.found and told.found.count("1 x 1 x 1 mm") == 2


def test_a_mask_on_the_place_that_is_not_read_is_refused_with_both_named(tmp_path):
    values, mask = lesion()
    moved = affine_of(origin=(3.0, -8.0, 25.0), axes=TURNED)
    image, drawn = saved(tmp_path / "ct.nii", values, moved, affine_of()), tmp_path / "mask.nii.gz"
    itk = sitk.ReadImage(image)  # which takes the qform
    out = sitk.GetImageFromArray(mask.T)
    out.CopyInformation(itk)
    sitk.WriteImage(out, str(drawn))
    error = next(each for each in findings(image, str(drawn)) if each.severity == "error")
    assert "sform" in error.found and "qform" in error.found and "3.0, -8.0, 25.0" in error.found
    labels = {"labels": {"1": "tumour"}, "modalities": ["ct"], "chart": {}, "measured": [], "measured_typical": {}}
    from survpack import params

    with pytest.raises(BadInput, match="the mask lies where its image's qform is"):
        intake.read(labels, params.load(), "mets", scans={"ct": image}, masks=drawn)


@pytest.mark.parametrize(
    "other",
    [
        affine_of((2.0, 2.0, 2.0)),  # a scan put on a template: its voxels are the template's
        affine_of((-1.0, 1.0, 1.0)),  # left for right
        affine_of((1.0, 1.0, 1.3)),
        affine_of() + np.pad(np.diag([0.2, 0.0], 1), ((0, 1), (0, 1))),  # sheared
    ],
)
def test_two_places_of_other_volume_hand_or_angles_are_refused_with_both_named(tmp_path, other):
    path = saved(tmp_path / "ct.nii", lesion()[0], other, affine_of())
    with pytest.raises(BadInput, match=r"sform .* mm, from .* against qform .* mm, from .*, expected .*; set both"):
        read_image(path)
    assert [each.severity for each in findings(path, path)] == ["error"]


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("pixdim", [(1, 1, 1), (2, 2, 2), (4, 2, 2)])
def test_a_voxel_is_as_large_as_its_place_says(tmp_path, form, pixdim):
    values, mask = lesion()
    affine = affine_of((2.0, 2.0, 2.0), axes=TURNED)
    path = saved(tmp_path / "m.nii", mask, **{form: affine}, pixdim=pixdim)
    voxel = 8 if form == "sform" else np.prod(pixdim)  # a qform has no other voxels than pixdim
    assert millilitres(path) == pytest.approx(mask.sum() * voxel / 1000)
    told = [each.found for each in findings("", path, "mask")]
    assert bool(told) == (form == "sform" and pixdim != (2, 2, 2)) and all(
        "by pixdim; the sform is read" in one for one in told
    )


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("form", ["sform", "qform", "none"])
def test_metres_and_micrometres_are_read_in_millimetres(tmp_path, units, factor, form):
    mask, affine = lesion()[1], affine_of((2.0, 2.0, 3.0))
    affine[:3] /= factor
    place = {} if form == "none" else {form: affine}
    path = saved(tmp_path / "m.nii", mask, **place, pixdim=np.array([2, 2, 3]) / factor, units=units)
    assert millilitres(path) == pytest.approx(mask.sum() * 12 / 1000)
    if form != "none":
        np.testing.assert_allclose(read_image(path).GetOrigin(), [20, -30, 10], atol=1e-3)


def test_where_no_place_is_told_volumes_hold_and_it_is_said(tmp_path):
    mask = lesion()[1]
    path = saved(tmp_path / "m.nii", mask, pixdim=(1.0, 1.0, 2.0))
    assert millilitres(path) == pytest.approx(mask.sum() * 2 / 1000)
    (told,) = findings("", path, "mask")
    assert "left and right are not told" in told.found


@pytest.mark.parametrize("degrees", [0.01, 0.05, 0.2, 3])
def test_a_qform_near_half_a_turn_is_no_other_place_and_the_sform_is_read(tmp_path, degrees):
    axes = Rotation.from_euler("z", degrees, degrees=True).as_matrix() * [-1, -1, 1]
    affine, shape = affine_of(axes=axes, origin=(120.0, 120.0, -80.0)), (256, 256, 8)
    path = saved(tmp_path / "a.nii", np.zeros(shape, np.uint8), affine, affine, (1, 1))
    _, place = nifti.read(path)
    assert place.notes == () and place.other is None
    np.testing.assert_allclose(place.affine @ [255, 255, 7, 1], affine @ [255, 255, 7, 1], atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.sampled_from([0.4, 0.9219, 1.0, 3.27, 6.0])] * 3),
    st.tuples(*[st.floats(-900, 900)] * 3), st.booleans(), st.sampled_from(["sform", "qform", "both"]),
)  # fmt: skip
def test_every_voxel_lies_where_nibabel_has_it(tmp_path_factory, angles, sides, origin, flip, forms):
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * ([-1, 1, 1] if flip else [1, 1, 1])
    affine = affine_of(sides, origin, axes)
    places = {form: affine for form in ("sform", "qform") if forms in (form, "both")}
    path = saved(tmp_path_factory.mktemp("any") / "a.nii", lesion()[1], **places)
    image, last = read_image(path), np.array(SHAPE) - 1
    for index in np.array([*np.ndindex(2, 2, 2)]) * last:
        there = np.array(image.TransformIndexToPhysicalPoint(index.tolist())) * [-1, -1, 1]
        np.testing.assert_allclose(there, (nib.load(path).affine @ [*index, 1])[:3], atol=2e-3)
    np.testing.assert_allclose(image.GetSpacing(), sides, rtol=1e-4)
    assert nifti.read(path)[1].notes == ()


@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_a_matrix_that_was_rounded_is_given_its_right_angles_back(tmp_path, decimals):
    affine = affine_of((0.9, 0.9, 3.0), axes=TURNED)
    rounded = affine.copy()
    rounded[:3, :3] = np.round(affine[:3, :3], decimals)
    image = read_image(saved(tmp_path / "a.nii", lesion()[1], rounded))
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)
    far = np.array(image.TransformIndexToPhysicalPoint([23, 19, 15])) * [-1, -1, 1]
    np.testing.assert_allclose(far, (affine @ [23, 19, 15, 1])[:3], atol=0.6 * 10 ** (1 - decimals) * 6)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (dict(sform=np.diag([0.0, 1, 1, 1])), "a sform that is no place"),
        (dict(sform=affine_of() * [[np.nan]] * 1), "a sform that is no place"),
        (dict(sform=affine_of((0.001, 0.001, 0.001))), "voxels of 0.001"),
        (dict(sform=affine_of((300.0, 1.0, 1.0))), "voxels of 300"),
        (dict(sform=affine_of() + np.diag([0.5, 0, 0], 1)), "right angles"),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_one_sentence(tmp_path, made, found):
    path = saved(tmp_path / "a.nii", lesion()[1], **made, pixdim=(1, 1, 1))
    with pytest.raises(BadInput) as told:
        read_image(path)
    assert str(told.value).startswith(f"{path}: ") and found in str(told.value) and ", expected " in str(told.value)
    assert [each.severity for each in findings("", path, "mask")] == ["error"]


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIR", "ASL"])
def test_a_mask_stored_in_another_order_is_on_the_grid_of_its_image(tmp_path, codes):
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    values, mask = lesion()
    affine = affine_of((0.9, 1.1, 3.0), axes=TURNED)
    image = saved(tmp_path / "ct.nii", values, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    nib.save(nib.Nifti1Image(mask, affine).as_reoriented(turn), tmp_path / "mask.nii")
    assert findings(image, str(tmp_path / "mask.nii")) == [] and mean_in(image, str(tmp_path / "mask.nii")) == 500
    shifted = affine.copy()
    shifted[0, 3] += 0.5
    nib.save(nib.Nifti1Image(mask, shifted).as_reoriented(turn), tmp_path / "off.nii")
    assert [each.severity for each in findings(image, str(tmp_path / "off.nii"))] == ["error"]


def test_a_mask_of_0_and_255_is_told_by_its_label(tmp_path):
    path = saved(tmp_path / "m.nii", lesion()[1] * np.uint8(255), affine_of())
    (told,) = findings("", path, "mask")
    assert told.severity == "error" and "unknown labels 255" in told.found


# --- what is in it


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, "big"])
def test_numbers_of_every_type_and_container_are_read_as_they_are(tmp_path, kind, make):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100
    if make == "big":
        image = nib.Nifti1Image(values.astype(kind), affine_of(), nib.Nifti1Header(endianness=">"), dtype=kind)
    else:
        image = make(values.astype(kind), affine_of(), dtype=kind)
    path = tmp_path / ("a.img" if make is nib.Nifti1Pair else "a.nii.gz")
    nib.save(image, path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(str(path))).T, values)


def test_slope_and_intercept_count_for_scans_and_masks(tmp_path):
    values, mask = lesion()
    image = nib.Nifti1Image(np.round(values / 2.5 + 410).astype(np.uint16), affine_of())
    image.header.set_slope_inter(2.5, -1025)
    nib.save(image, tmp_path / "ct.nii.gz")
    assert mean_in(str(tmp_path / "ct.nii.gz"), saved(tmp_path / "m.nii", mask, affine_of())) == 500


@pytest.mark.parametrize(
    ("labels", "notice"),
    [
        (np.array([0, 1], np.float32), False),
        (np.array([0, 1.00001526], np.float32), True),
        (np.array([0, 0.99998], np.float64), True),
        (np.array([0, 254 / 255], np.float32), True),
        (np.array([-0.0, 1.0]), False),
    ],
)
def test_labels_that_rounding_left_are_the_labels_they_were(tmp_path, labels, notice):
    mask = lesion()[1]
    path, plain = saved(tmp_path / "m.nii", labels[mask], affine_of()), saved(tmp_path / "p.nii", mask, affine_of())
    read, note = read_mask(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, mask)
    assert (note != "") == notice and millilitres(path) == millilitres(plain)
    assert [each.severity for each in findings("", path, "mask")] == ["warning"] * notice


@pytest.mark.parametrize("value", [0.5, 1.2, 1.02, np.nan, np.inf])
def test_what_is_no_label_is_refused_in_words(tmp_path, value):
    values = lesion()[1].astype(np.float32)
    values[8, 7, 6] = value
    path = saved(tmp_path / "m.nii", values, affine_of())
    with pytest.raises(BadInput, match="no whole numbers.*expected one number a label; save"):
        read_mask(path)
    assert [each.severity for each in findings("", path, "mask")] == ["error"]


def test_an_analyze_file_is_refused_for_it_does_not_tell_left_from_right(tmp_path):
    nib.save(nib.AnalyzeImage(lesion()[1].astype(np.int16), affine_of()), tmp_path / "a.img")
    with pytest.raises(BadInput, match="an Analyze file, expected NIfTI"):
        read_image(str(tmp_path / "a.img"))
