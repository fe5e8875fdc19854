"""DICOM in: on small series made here, with the traps of real ones, and on two real patients where they are."""

import gzip
import os
import shutil
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from survpack import deface, privacy
from survpack.adapters import bids
from survpack.dicom import convert, masks, tree
from survpack.dicom.series import find, ordered, suffix
from survpack.dicom.suv import suv_factor
from survpack.errors import BadInput

STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
AXIAL = [1, 0, 0, 0, 1, 0]
OBLIQUE = [0.8, 0.6, 0, 0, 0, -1]
FRAME = generate_uid(entropy_srcs=["frame"])


def dataset(modality, uid, storage, patient="P1", **tags):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.PatientID = storage, uid, modality, patient
    ds.StudyDate, ds.StudyTime = "20190412", "101500"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["study", patient]), FRAME
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = storage, uid
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def saved(ds, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def make_series(folder, modality="CT", name="a", volume=None, direction=AXIAL, positions=None, slopes=None, **tags):
    """Slices of `volume` (column, row, slice), 2 × 3 mm in the plane and 4 mm apart; files in scrambled order."""
    volume = np.arange(6 * 5 * 4).reshape(6, 5, 4) if volume is None else volume
    normal = np.cross(direction[:3], direction[3:])
    positions = np.arange(volume.shape[2]) * 4.0 if positions is None else positions
    made = []
    for number, (place, slice_) in enumerate(zip(positions, np.moveaxis(volume, 2, 0), strict=True)):
        uid = generate_uid(entropy_srcs=[str(folder), name, str(number), modality])
        ds = dataset(modality, uid, STORAGE[modality], **tags)
        ds.SeriesInstanceUID = generate_uid(entropy_srcs=[str(folder), name, modality])
        ds.ImageOrientationPatient = direction
        ds.ImagePositionPatient = (np.array([10.0, -20.0, 30.0]) + place * normal).tolist()
        ds.PixelSpacing, ds.Rows, ds.Columns = [3.0, 2.0], volume.shape[1], volume.shape[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = (slopes[number] if slopes else 1), (-1024 if modality == "CT" else 0)
        ds.PixelData = np.ascontiguousarray(slice_.T.astype(np.int16)).tobytes()
        made.append(saved(ds, folder / f"{name}{modality}" / f"{(number * 7) % 11}x" / f"IM{number}"))
    return made


def make_structures(folder, image_files, regions, frame_only=False, patient="P1"):
    """An RTSTRUCT on a series; `regions` maps names to contours (points in mm)."""
    first = pydicom.dcmread(image_files[0])
    ds = dataset("RTSTRUCT", generate_uid(), STRUCTURES, patient, SeriesInstanceUID=generate_uid())
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID, series.SeriesInstanceUID = FRAME, first.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [] if frame_only else [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, FRAME
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            one = Dataset()
            one.ContourGeometricType, one.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            one.ContourData = [f"{value:.3f}" for value in np.ravel(points)]
            drawn.ContourSequence.append(one)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    return saved(ds, folder / "structures" / f"RS{len(regions)}.dcm")


def spoil(path, change):
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)


def setattr_raw(ds, keyword, written):
    """Bytes as a careless program writes them; None takes the field out."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    ds.pop(tag, None)
    if written is not None:
        kind = pydicom.datadict.dictionary_VR(tag)
        ds[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(written), written, 0, False, True)


def square(low, high, z):
    """A square in mm around the voxel centres of AXIAL series from `low` to `high`."""
    x, y = 10 + 2 * np.array([low - 0.4, high + 0.4]), -20 + 3 * np.array([low - 0.4, high + 0.4])
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def circle(radius, z, centre=(30.0, 30.0)):
    turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn), np.full(400, z)], axis=1)


def pet(folder, **changed):
    """A PET in Bq/mL, an hour after 200 MBq of a tracer of 6000 s; `changed` may drop (None) or set any tag."""
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife, drug.RadiopharmaceuticalStartTime = 2e8, 6000, "101500"
    tags = {
        "PatientWeight": 80, "Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["ATTN", "DECY"],
        "SeriesDate": "20190412", "SeriesTime": "111500", "AcquisitionDate": "20190412", "AcquisitionTime": "111500",
    }  # fmt: skip
    for name, value in changed.items():
        setattr(drug, name, value) if name.startswith("Radio") else tags.update({name: value})
    tags["RadiopharmaceuticalInformationSequence"] = [drug]
    make_series(folder, "PT", **{name: value for name, value in tags.items() if value is not None})
    return find(folder).series[0]


def values_of(path):
    return np.asarray(nib.load(path).dataobj)


def everything_in(folder):
    """Names and bytes of all files, those of .gz unpacked."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            content = path.read_bytes()
            yield content + (gzip.decompress(content) if path.suffix == ".gz" else b"")


# The grid and the values


@pytest.mark.parametrize("direction", [AXIAL, OBLIQUE])
def test_every_voxel_lies_where_simpleitk_says_and_has_its_hounsfield_units(tmp_path, direction):
    files = make_series(tmp_path / "in", direction=direction)
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    image = nib.load(tmp_path / "out/sub-P1/anat/sub-P1_ct.nii.gz")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    peer = reader.Execute()
    assert np.array_equal(np.asarray(image.dataobj), sitk.GetArrayFromImage(peer).T)
    assert values_of(image.get_filename()).min() == -1024 and image.get_data_dtype() == np.int16
    for voxel in [(0, 0, 0), (5, 0, 0), (0, 4, 0), (2, 3, 3)]:
        left, back, up = peer.TransformIndexToPhysicalPoint(voxel)
        assert nib.affines.apply_affine(image.affine, voxel) == pytest.approx([-left, -back, up], abs=1e-3)


def test_junk_directories_and_copies_are_counted_and_harm_nothing(tmp_path):
    files = make_series(tmp_path / "in")
    shutil.copy(files[0], tmp_path / "in" / "copy.dcm")
    (tmp_path / "in" / "Thumbs.db").write_bytes(b"\0" * 300)
    (tmp_path / "in" / "cut.dcm").write_bytes(files[0].read_bytes()[:90])
    saved(dataset("", "1.2.3", "1.2.840.10008.1.3.10"), tmp_path / "in" / "DICOMDIR")
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert "left out: 1 files the same instance twice" in told
    assert "left out: 1 files DICOMDIR" in told and "left out: 2 files not DICOM" in told
    assert nib.load(tmp_path / "out/sub-P1/anat/sub-P1_ct.nii.gz").shape == (6, 5, 4)


@pytest.mark.parametrize(
    ("positions", "found"),
    [([0, 4, 12, 16], "4.00 to 8.00 mm apart"), ([0, 4, 4, 8], "two slices at one place"), ([0, 4, 8, 13.5], "apart")],
)
def test_gaps_and_doubled_slices_are_refused_in_a_sentence_that_names_the_series(tmp_path, positions, found):
    make_series(tmp_path, positions=np.array(positions), SeriesDescription="thorax")
    with pytest.raises(BadInput, match=r"series CT \(4 slices\) in") as told:
        ordered(find(tmp_path).series[0])
    assert found in str(told.value)


def test_a_bad_series_is_left_out_and_the_good_one_beside_it_kept(tmp_path):
    make_series(tmp_path / "in", name="bad", positions=np.array([0, 4, 12, 16]))
    make_series(tmp_path / "in", "MR", SeriesDescription="Ax T1 post")
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("left out series CT" in line and "apart" in line for line in told)
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-P1_ce-gd_T1w.nii.gz"]


@pytest.mark.parametrize(
    ("keyword", "written"),
    [
        ("ImagePositionPatient", b"1\\2 "), ("ImagePositionPatient", b"a\\b\\c "), ("ImageOrientationPatient", b"1\\0\\0 "),
        ("PixelSpacing", b"2 "), ("PixelSpacing", b"x\\y "), ("PixelSpacing", b"0\\0 "), ("PixelSpacing", None),
        ("Rows", b"\1\2\3"),
    ],
)  # fmt: skip
def test_a_series_without_a_place_in_numbers_is_left_out_and_the_good_one_kept(tmp_path, keyword, written):
    make_series(tmp_path / "in", "MR", SeriesDescription="T1")
    for path in make_series(tmp_path / "in", SeriesDescription="bad"):
        spoil(path, lambda ds: setattr_raw(ds, keyword, written))
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("left out series CT (4 slices)" in line and "without position" in line for line in told)
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-P1_T1w.nii.gz"]


def test_a_field_of_odd_length_harms_no_other(tmp_path):
    for path in make_series(tmp_path / "in"):
        spoil(path, lambda ds: setattr_raw(ds, "AcquisitionMatrix", b"\1\2\3"))
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert (tmp_path / "out/sub-P1/anat/sub-P1_ct.nii.gz").exists()


def test_a_picture_in_colours_is_no_scan(tmp_path):
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    for path in make_series(tmp_path / "in"):
        spoil(path, lambda ds: ds.update(colours | bits | {"PixelData": bytes(range(90))}))
    with pytest.raises(BadInput, match="pixels with colours"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)


def test_a_slice_that_cannot_be_read_is_no_junk(tmp_path, monkeypatch):
    files = make_series(tmp_path / "in")
    files[-1].unlink()
    files[-1].symlink_to(tmp_path / "nowhere")  # of an archive whose file was never fetched: the scan would end early
    with pytest.raises(BadInput, match=f"{files[-1].name}: no such file"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    files[-1].unlink()

    def forbidden(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(path)))
        yield path, [], []

    monkeypatch.setattr(os, "walk", forbidden)
    with pytest.raises(BadInput, match="permission denied"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("description", "agent", "expected"),
    [
        ("AX T1 SE", None, "T1w"), ("AX T1 SE", "Gadavist", "ce-gd_T1w"), ("t1_mprage_sag_pre", "Gadavist", "T1w"),
        ("AX T1 +C", None, "ce-gd_T1w"), ("T1 w/o contrast", None, "T1w"), ("T1Gd", None, "ce-gd_T1w"),
        ("AX T2 FLAIR", "Gadavist", "FLAIR"), ("SAG T1 FLAIR", None, "T1w"), ("t2_tse_tra", None, "T2w"),
        ("T2* GRE", None, None), ("ep2d_diff ADC", None, None), ("MPRAGE", "NONE", "T1w"), ("Head", None, None),
        ("dark-fluid", None, "FLAIR"), ("T1 T2 map", None, None), ("IBSI_1_STS_002_MR_T1_image", None, "T1w"),
    ],
)  # fmt: skip
def test_mr_is_named_by_what_its_description_says_or_not_at_all(description, agent, expected):
    head = Dataset()
    head.Modality, head.SeriesDescription, head.ContrastBolusAgent = "MR", description, agent
    assert suffix(head) == expected


# PET


def test_a_tracer_spread_evenly_has_an_suv_of_one(tmp_path):
    factor, _ = suv_factor(pet(tmp_path))
    left = 2e8 * 2 ** (-3600 / 6000)  # Bq in the body when the scan began
    assert factor * left / 80_000 == pytest.approx(1)


def test_the_slope_of_each_slice_counts(tmp_path):
    tags = {"Units": "GML", "PatientWeight": 80}
    make_series(tmp_path / "in", "PT", volume=np.full((6, 5, 3), 100), slopes=[0.01, 0.02, 0.05], **tags)
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    found = values_of(tmp_path / "out/sub-P1/anat/sub-P1_pet.nii.gz")
    assert found.mean(axis=(0, 1)) == pytest.approx([1, 2, 5], rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"DecayCorrection": "ADMIN"}, 80_000 / 2e8),
        ({"Units": "GML"}, 1),
        ({"SeriesTime": "130000"}, 80_000 / (2e8 * 2 ** (-3600 / 6000))),  # post-processed: the acquisition counts
        ({"RadiopharmaceuticalStartDateTime": "20190412104500"}, 80_000 / (2e8 * 2 ** (-1800 / 6000))),
        ({"RadiopharmaceuticalStartTime": "231500", "SeriesTime": "001500"}, 80_000 / (2e8 * 2 ** (-3600 / 6000))),
    ],
)
def test_suv_factor_for_each_way_a_scanner_tells_it(tmp_path, changed, expected):
    assert suv_factor(pet(tmp_path, **changed))[0] == pytest.approx(expected)


def test_philips_counts_are_scaled_by_its_private_factor_and_refused_without(tmp_path):
    series = pet(tmp_path, Units="CNTS")
    with pytest.raises(BadInput, match="counts without a Philips scale factor"):
        suv_factor(series)
    series.head.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.00025")
    assert suv_factor(series)[0] == pytest.approx(0.00025)


def test_a_weight_that_is_no_number_is_a_weight_that_is_not_there(tmp_path):
    series = pet(tmp_path)
    setattr_raw(series.head, "PatientWeight", b"heavy ")
    with pytest.raises(BadInput, match="no SUV without Patient Weight"):
        suv_factor(series)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"PatientWeight": None}, "Patient Weight"), ({"RadionuclideTotalDose": None}, "Radionuclide Total Dose"),
        ({"RadionuclideHalfLife": 0}, "Radionuclide Half Life"), ({"CorrectedImage": ["ATTN"]}, "Corrected Image"),
        ({"RadiopharmaceuticalStartTime": None}, "Radiopharmaceutical Start Time"), ({"Units": "PROPCPS"}, "PROPCPS"),
        ({"DecayCorrection": "NONE"}, "Decay Correction"), ({"Units": "GML", "SUVType": "LBM"}, "LBM"),
    ],
)  # fmt: skip
def test_without_what_an_suv_needs_the_sentence_names_it(tmp_path, changed, named):
    with pytest.raises(BadInput, match=named):
        suv_factor(pet(tmp_path, **changed))


# Masks


def test_a_voxel_is_in_a_circle_if_its_centre_is_and_a_circle_within_is_a_hole():
    shape, affine = (60, 60, 3), np.diag([1.0, 1.0, 2.0, 1.0])
    mask = masks.filled([circle(20.3, 2.0), circle(7.7, 2.0)], affine, shape)
    x, y = np.mgrid[:60, :60]
    distance = np.hypot(x - 30, y - 30)
    assert np.array_equal(mask[:, :, 1], (distance < 20.3) & (distance > 7.7))
    assert not mask[:, :, [0, 2]].any()


def test_contours_drawn_on_thinner_slices_do_not_cancel_and_on_thicker_ones_leave_no_gap():
    shape, affine = (60, 60, 10), np.diag([1.0, 1.0, 2.0, 1.0])
    thin = masks.filled([circle(10, z) for z in np.arange(4, 12.1, 1.0)], affine, shape)
    thick = masks.filled([circle(10, z) for z in (4.0, 8.0, 12.0)], affine, shape)
    assert np.flatnonzero(thin.any(axis=(0, 1))).tolist() == [2, 3, 4, 5, 6]
    assert np.flatnonzero(thick.any(axis=(0, 1))).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.array_equal(thin[:, :, 3], thick[:, :, 3])


def test_a_contour_across_the_slices_is_refused():
    points = circle(10, 0.0)[:, [0, 2, 1]]
    with pytest.raises(BadInput, match="across the slices"):
        masks.filled([points], np.eye(4), (60, 60, 60))


def test_regions_that_match_are_united_and_named_and_others_left(tmp_path):
    files = make_series(tmp_path / "in")
    regions = {"GTV-1": [square(1, 2, 30)], "gtv_2": [square(3, 4, 34)], "gtv_node": [square(0, 1, 34)]}
    regions["Heart"] = [square(0, 4, 38)]
    make_structures(tmp_path / "in", files, regions)
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    mask = values_of(tmp_path / "out/sub-P1/anat/sub-P1_ct_dseg.nii.gz")
    expected = np.zeros((6, 5, 4))
    expected[1:3, 1:3, 0] = expected[3:5, 3:5, 1] = 1
    assert np.array_equal(mask, expected)
    assert any("mask from GTV-1 + gtv_2" in line for line in told)


def test_without_a_matching_region_the_image_comes_alone_and_the_summary_says_so(tmp_path):
    make_structures(tmp_path / "in", make_series(tmp_path / "in"), {"Heart": [square(1, 2, 30)]})
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("no mask" in line for line in told)
    assert not list((tmp_path / "out").rglob("*dseg.nii.gz"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda ds: delattr(ds.ROIContourSequence[0], "ReferencedROINumber"),
        lambda ds: delattr(ds.ROIContourSequence[0].ContourSequence[0], "ContourData"),
        lambda ds: delattr(ds.ROIContourSequence[0].ContourSequence[0], "ContourGeometricType"),
        lambda ds: setattr(ds.ROIContourSequence[0].ContourSequence[0], "ContourData", [1.0] * 10),
    ],
)
def test_a_structure_set_that_lost_a_contour_is_refused_with_its_series(tmp_path, damage):
    files = make_series(tmp_path / "in", SeriesDescription="thorax")
    spoil(make_structures(tmp_path / "in", files, {"GTV": [square(1, 2, 30)]}), damage)
    with pytest.raises(
        BadInput, match=r"left out series CT \(4 slices\) in .*RS1.dcm: the structure set cannot be read"
    ):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert not (tmp_path / "out").exists()


def test_where_there_is_no_mask_the_summary_says_what_could_have_been_one(tmp_path):
    files = make_series(tmp_path / "in")
    bare = convert(tmp_path / "in", tmp_path / "bare", keep_ids=True)
    assert any("no RTSTRUCT or SEG is of it" in line for line in bare)
    path = make_structures(tmp_path / "in", files, {"Heart": [square(1, 2, 30)], "Lung": [square(1, 2, 30)]})
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("no region matches --tumour (Heart + Lung)" in line for line in told)
    spoil(path, lambda ds: delattr(ds.StructureSetROISequence[0], "ROINumber"))
    spoil(path, lambda ds: setattr(ds.ROIContourSequence[1].ContourSequence[0], "ContourGeometricType", "POINT"))
    told = convert(tmp_path / "in", tmp_path / "points", keep_ids=True, tumour="lung")
    assert any("EMPTY mask: nothing of Lung lies in the image" in line for line in told)


def test_a_structure_set_masks_the_series_it_names_and_by_frame_only_where_none_is_named(tmp_path):
    files = make_series(tmp_path / "in")
    make_series(tmp_path / "in", "MR", SeriesDescription="T1")
    make_structures(tmp_path / "in", files, {"GTV": [square(1, 2, 30)]})
    found = find(tmp_path / "in")
    by = {one.head.Modality: masks.annotations_of(one, found.annotations) for one in found.series}
    assert len(by["CT"]) == 1 and len(by["MR"]) == 1  # the MR shares the frame and has none of its own
    other = dataset("RTSTRUCT", "1.2.9", STRUCTURES, patient="P2")
    assert masks.annotations_of(found.series[0], [(Path("x"), other)]) == []


def test_a_dicom_seg_comes_back_as_the_mask_it_was_written_from(tmp_path):
    files = make_series(tmp_path / "in", direction=OBLIQUE, PatientName="", StudyID="", AccessionNumber="",
                        PatientBirthDate="", PatientSex="", SliceThickness=4, SeriesNumber=1, InstanceNumber=1)  # fmt: skip
    mask = np.random.default_rng(0).random((6, 5, 4)) > 0.7
    mask[:, :, 3] = False  # empty frames are not stored
    segment = highdicom.seg.SegmentDescription(
        1, "Tumor", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, "MANUAL"
    )
    seg = highdicom.seg.Segmentation(
        [pydicom.dcmread(path) for path in files], np.moveaxis(mask, 2, 0).swapaxes(1, 2).astype(np.uint8), "BINARY",
        [segment], generate_uid(), 2, generate_uid(), 1, "x", "x", "1", "1",
    )  # fmt: skip
    seg.save_as(tmp_path / "in" / "seg.dcm")
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert np.array_equal(values_of(tmp_path / "out/sub-P1/anat/sub-P1_ct_dseg.nii.gz"), mask)


# The tree


def test_two_studies_become_sessions_with_their_days_and_the_bids_adapter_reads_them(tmp_path):
    for name, day in [("a", "20190412"), ("b", "20190522")]:
        files = make_series(tmp_path / "in", name=name, StudyDate=day, StudyInstanceUID=generate_uid())
        make_structures(tmp_path / "in" / name, files, {"GTV": [square(1, 2, 30)]})
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    images = bids.discover(tmp_path / "out")
    assert images[["session", "day", "modality"]].to_numpy().tolist() == [["ses-1", 0, "ct"], ["ses-2", 40, "ct"]]
    assert images["mask_path"].str.endswith("_ct_dseg.nii.gz").all()
    assert bids.clinical(tmp_path / "out")["patient_id"].tolist() == ["sub-P1"]
    assert not privacy.folder_findings(tmp_path / "out")


def test_of_two_series_of_a_kind_the_one_with_a_tumour_drawn_is_kept(tmp_path):
    make_series(tmp_path / "in", name="long", volume=np.zeros((6, 5, 9)))
    files = make_series(tmp_path / "in", name="drawn")
    path = make_structures(tmp_path / "in", files, {"GTV": [square(1, 2, 30)]})
    ds = pydicom.dcmread(path)
    ds.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"
    ds.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    ds.FrameOfReferenceUID = "1.2.3"
    ds.save_as(path)
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert nib.load(tmp_path / "out/sub-P1/anat/sub-P1_ct.nii.gz").shape[2] == 4
    assert any("a second ct of the session" in line for line in told)


def test_age_is_capped_and_sex_spelt_out_in_the_skeleton_of_the_table(tmp_path):
    make_series(tmp_path / "in", patient="old", PatientAge="094Y", PatientSex="F")
    make_series(tmp_path / "in", name="b", patient="born", PatientBirthDate="19480413", PatientSex="M")
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    table = pd.read_csv(tmp_path / "out/participants.tsv", sep="\t").set_index("participant_id")
    assert table.loc["sub-old", ["age", "sex"]].tolist() == [90, "female"]
    assert table.loc["sub-born", ["age", "sex"]].tolist() == [70, "male"]  # a day before the 71st birthday
    assert table[["time_days", "event"]].isna().all(axis=None)


def test_an_age_before_birth_is_none(tmp_path):
    make_series(tmp_path / "in", PatientBirthDate="20300101")
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert pd.read_csv(tmp_path / "out/participants.tsv", sep="\t")["age"].isna().all()


def test_numbers_replace_ids_and_only_the_key_outside_knows_them(tmp_path):
    for patient in ("SMITH-1", "MRN777"):
        make_series(tmp_path / "in", name=patient, patient=patient)
    key = tmp_path / "key.tsv"
    convert(tmp_path / "in", tmp_path / "out", key=key)
    table = pd.read_csv(key, sep="\t")
    assert set(table["patient_id"]) == {"SMITH-1", "MRN777"} and set(table["participant_id"]) == {"sub-001", "sub-002"}
    assert key.stat().st_mode & 0o077 == 0
    assert not any(b"SMITH" in one or b"MRN777" in one for one in everything_in(tmp_path / "out"))


def test_keys_folders_and_ids_that_would_tell_are_refused(tmp_path):
    make_series(tmp_path / "in", patient="19480413")
    out = tmp_path / "out"
    with pytest.raises(BadInput, match="no --key FILE"):
        convert(tmp_path / "in", out)
    with pytest.raises(BadInput, match="the key lies inside"):
        convert(tmp_path / "in", out, key=out / "key.tsv")
    with pytest.raises(BadInput, match="a PatientID has a date"):
        convert(tmp_path / "in", out, keep_ids=True)
    with pytest.raises(BadInput, match="outside the download"):
        convert(tmp_path / "in", tmp_path / "in" / "out", keep_ids=True)
    with pytest.raises(BadInput, match="is no pattern"):
        convert(tmp_path / "in", out, keep_ids=True, tumour="(")
    assert not out.exists()
    out.mkdir()
    (out / "thesis.doc").touch()
    with pytest.raises(BadInput, match="not empty"):
        convert(tmp_path / "in", out, keep_ids=True)


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", b"\x80\xff", "patient_id\tparticipant_id\nP0\tsub-alpha\n",
     "patient_id\tparticipant_id\nP0\tsub-001\nP1\tsub-001\n"],
)  # fmt: skip
def test_a_key_that_was_spoilt_is_left_as_it_is_and_nothing_is_written(tmp_path, content):
    make_series(tmp_path / "in")
    key = tmp_path / "key.tsv"
    content = content if isinstance(content, bytes) else content.encode()
    key.write_bytes(content)
    with pytest.raises(BadInput, match="is no key of this command"):
        convert(tmp_path / "in", tmp_path / "out", key=key)
    assert key.read_bytes() == content and not (tmp_path / "out").exists()


def test_places_that_cannot_be_written_are_told_in_a_sentence(tmp_path):
    make_series(tmp_path / "in")
    (tmp_path / "file").touch()
    for places in ({"key": tmp_path}, {"key": tmp_path / "file" / "key.tsv"}):
        with pytest.raises(BadInput, match="a place to read or write"):
            convert(tmp_path / "in", tmp_path / "out", **places)
    with pytest.raises(BadInput, match="a place to read or write"):
        convert(tmp_path / "in", tmp_path / "file" / "out", keep_ids=True)
    with pytest.raises(BadInput, match="give one of the two"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True, key=tmp_path / "key.tsv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]


def test_where_no_series_can_be_converted_nothing_is_left_behind(tmp_path):
    make_series(tmp_path / "in", positions=np.array([0, 4, 12, 16]))
    (tmp_path / "empty").mkdir()
    for out in ("new", "empty"):
        with pytest.raises(BadInput, match="no series could be converted"):
            convert(tmp_path / "in", tmp_path / out, key=tmp_path / "key.tsv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in"]
    assert not any((tmp_path / "empty").iterdir())


def test_a_table_filled_in_since_is_kept_and_told_whom_it_lacks(tmp_path):
    for patient in ("A", "B"):
        make_series(tmp_path / "in", name=patient, patient=patient)
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    table = tmp_path / "out/participants.tsv"
    table.write_text("participant_id\ttime_days\tevent\nA\t10\t1\n")  # sub- may be left out, as `check` allows
    assert convert(tmp_path / "in", tmp_path / "out", keep_ids=True)[-1].endswith("add sub-B")
    table.write_text("ID\ttime_days\n")
    with pytest.raises(BadInput, match="no column participant_id"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)


def test_a_folder_without_images_is_told_with_what_it_holds(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match=r"no CT, MR or PET image in DICOM \(1 not DICOM\)"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)


def test_a_stopped_run_leaves_whole_patients_and_the_next_run_does_the_rest(tmp_path, monkeypatch):
    for patient in ("A", "B"):
        make_series(tmp_path / "in", name=patient, patient=patient)
    out, save, calls = tmp_path / "out", tree._save, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(tree, "_save", stopped)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "in", out, keep_ids=True)
    assert [path.name for path in out.glob("*") if path.is_dir()] == ["sub-A"]
    before = (out / "sub-A/anat/sub-A_ct.nii.gz").stat().st_mtime_ns
    monkeypatch.setattr(tree, "_save", save)
    with pytest.raises(BadInput, match="begun with other choices"):
        convert(tmp_path / "in", out, key=tmp_path / "key.tsv")
    told = convert(tmp_path / "in", out, keep_ids=True)
    assert "sub-A: converted before, left as it is" in told
    assert (out / "sub-A/anat/sub-A_ct.nii.gz").stat().st_mtime_ns == before
    assert (out / "sub-B/anat/sub-B_ct.nii.gz").exists()
    assert pd.read_csv(out / "participants.tsv", sep="\t")["participant_id"].tolist() == ["sub-A", "sub-B"]


# Faces


def test_stripping_keeps_brain_and_tumour_and_follows_the_t1_into_other_sequences(tmp_path, monkeypatch):
    volume = np.full((6, 5, 4), 7)
    files = make_series(tmp_path / "in", "MR", name="one", volume=volume, SeriesDescription="T1 post")
    make_series(tmp_path / "in", "MR", name="two", volume=volume, SeriesDescription="FLAIR")
    make_series(tmp_path / "in", "CT", volume=volume, FrameOfReferenceUID="1.2.3")
    make_structures(tmp_path / "in", files, {"lesion": [square(4, 4, 30)]})
    brain = np.zeros((6, 5, 4), dtype=bool)
    brain[1:3, 1:3] = True
    monkeypatch.setattr(deface, "brain_mask", lambda values, affine: brain)
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True, deface="skull")
    kept = values_of(tmp_path / "out/sub-P1/anat/sub-P1_ce-gd_T1w.nii.gz") > 0
    lesion = np.zeros_like(brain)
    lesion[4, 4, 0] = True
    assert np.array_equal(kept, brain | lesion)
    assert np.array_equal(values_of(tmp_path / "out/sub-P1/anat/sub-P1_FLAIR.nii.gz") > 0, brain | lesion)
    assert not list((tmp_path / "out").rglob("*ct.nii.gz"))
    assert any("left out series CT" in line and "no T1" in line for line in told)


def test_deepbet_finds_the_brain_of_the_mni_template():
    pytest.importorskip("deepbet", reason="deepbet, an optional dependency, is not installed")
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template

    head, grey = load_mni152_template(resolution=2), load_mni152_gm_template(resolution=2).get_fdata() > 0.5
    brain = deface.brain_mask(head.get_fdata(), head.affine)
    assert (brain & grey).sum() / grey.sum() > 0.98
    assert 1200 < brain.sum() * 0.008 < 2200  # mL


def test_without_deepbet_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepbet", None)
    monkeypatch.setitem(sys.modules, "deepbet.bet", None)
    with pytest.raises(BadInput, match="pip install --no-deps deepbet"):
        deface.brain_mask(np.zeros((4, 4, 4)), np.eye(4))


# What must not come out

PLANTED = {
    "PatientName": "Quixote^Alonso", "PatientBirthDate": "19310317", "InstitutionName": "Toboso Infirmary",
    "InstitutionAddress": "3 Windmill Lane", "ReferringPhysicianName": "Panza^Sancho", "OtherPatientIDs": "ZX88123Q",
    "AccessionNumber": "ACC55512", "PatientComments": "rides Rocinante", "StationName": "MAMBRINO",
    "SeriesDate": "20180704", "AcquisitionDate": "20180705", "ContentDate": "20180706", "OperatorsName": "Dulcinea",
    "DeviceSerialNumber": "SN-440871", "StudyDescription": "T1 for Alonso Quixote", "ManufacturerModelName": "Quixote 3T",
    "ImageComments": "call 555-0199", "PatientAddress": "Argamasilla", "RequestingPhysician": "Carrasco^Samson",
}  # fmt: skip
GONE = ["Quixote", "Alonso", "19310317", "Toboso", "Windmill", "Panza", "Sancho", "ZX88123Q", "ACC55512", "Rocinante",
        "MAMBRINO", "20180704", "20180705", "20180706", "Dulcinea", "SN-440871", "555-0199", "Argamasilla", "Carrasco",
        "Clavileno", "Barataria", "STS_002", "STS002", "20060128", "20190412", "2019-04-12", "TRIFALDI"]  # fmt: skip


def plant(ds):
    """Identifiers in public, nested and private tags."""
    for name, value in PLANTED.items():
        setattr(ds, name, value)
    block = ds.private_block(0x0099, "TRIFALDI", create=True)
    block.add_new(0x01, "LO", "Clavileno")
    nested = Dataset()
    nested.RequestedProcedureDescription, nested.PatientName = "Barataria", "Quixote^Alonso"
    ds.RequestAttributesSequence = [nested]
    return ds


def assert_clean(download, out):
    uids = {ds.SOPInstanceUID for ds in map(pydicom.dcmread, download)}
    uids |= {ds.SeriesInstanceUID for ds in map(pydicom.dcmread, download)}
    secrets = [text.lower().encode() for text in [*GONE, *uids]]
    for content in everything_in(out):
        told = [secret for secret in secrets if secret in content.lower()]
        assert not told, f"{told} in {content[:60]}"
    assert not privacy.folder_findings(out)


def test_nothing_planted_in_a_header_or_a_file_name_comes_out(tmp_path):
    files = make_series(tmp_path / "in" / "Quixote_Alonso_19310317", "MR", SeriesDescription="T1 Toboso",
                        patient="STS_002", ConvolutionKernel="Panza soft", EchoTime=12.5)  # fmt: skip
    for path in files:
        plant(pydicom.dcmread(path)).save_as(path)
    structures = make_structures(tmp_path / "in", files, {"GTV Quixote": [square(1, 2, 30)]}, patient="STS_002")
    out = tmp_path / "out"
    convert(tmp_path / "in", out, key=tmp_path / "key.tsv")
    assert_clean([*files, structures], out)
    assert '"EchoTime": 12.5' in (out / "sub-001/anat/sub-001_T1w.json").read_text()
    assert (out / "sub-001/anat/sub-001_T1w_dseg.nii.gz").exists()


# Real patients


@pytest.fixture(scope="module")
def real():
    folder = Path(os.environ.get("SURVPACK_DATA", "/nowhere"))
    if not (folder / "sts-dicom").is_dir() or not (folder / "sts").is_dir():
        pytest.skip("SURVPACK_DATA does not hold sts and sts-dicom")
    return folder


def test_real_structure_sets_give_the_published_masks_and_images(real, tmp_path):
    convert(real / "sts-dicom", tmp_path / "out", keep_ids=True)
    for patient in ("STS_002", "STS_003"):
        for series, kind in [("CT", "ct"), ("MR_T1", "T1w"), ("PET", "pet")]:
            ours = tmp_path / "out" / f"sub-{patient.replace('_', '')}" / "anat"
            image, truth = nib.load(next(ours.glob(f"*_{kind}.nii.gz"))), real / "sts" / patient
            crop = nib.load(truth / f"{series}_image.nii.gz")  # the published one is cut to the tumour and 20 mm
            onto = np.linalg.inv(image.affine) @ crop.affine
            assert onto[:3, :3] == pytest.approx(np.eye(3), abs=1e-4)
            start = np.rint(onto[:3, 3]).astype(int)
            assert onto[:3, 3] == pytest.approx(start, abs=0.02)
            cut = tuple(slice(low, low + size) for low, size in zip(start, crop.shape, strict=True))
            drawn = values_of(next(ours.glob(f"*_{kind}_dseg.nii.gz")))
            published = values_of(truth / f"{series}_mask.nii.gz") > 0
            assert drawn.sum() == drawn[cut].sum()
            dice = 2 * (drawn[cut] & published).sum() / (drawn.sum() + published.sum())
            assert dice > 0.98 if series == "PET" else dice == 1.0  # where voxels are coarse, ours keep the volume
            assert np.asarray(image.dataobj)[cut] == pytest.approx(np.asarray(crop.dataobj), abs=1e-4)


@pytest.mark.parametrize("series", ["MR_T1", "PET"])
def test_nothing_planted_in_real_headers_comes_out(real, tmp_path, series):
    files = []
    for path in sorted((real / "sts-dicom" / "STS_002" / series).rglob("*.dcm")):
        target = tmp_path / "in" / "Quixote_Alonso_2019-04-12" / path.relative_to(real / "sts-dicom")
        target.parent.mkdir(parents=True, exist_ok=True)
        ds = pydicom.dcmread(path)
        description = ds.get("SeriesDescription")
        plant(ds).SeriesDescription = description
        ds.save_as(target)
        files.append(target)
    convert(tmp_path / "in", tmp_path / "out", key=tmp_path / "key.tsv")
    assert_clean(files, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2
