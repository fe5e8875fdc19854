#!/usr/bin/env bash
# SimpleITK turns the grey values of a MONOCHROME1 CT round before it applies the rescale, so that they are no Hounsfield units.
#
# Behaviour (SimpleITK 2.5.7, pydicom 3.0.2, numpy 2.4.6): PhotometricInterpretation tells how a picture is shown (PS3.3
# C.7.6.3.1.2), not what a stored value means: the modality LUT applies to the stored value. SimpleITK's reader gives
# (lowest + highest possible value - stored) * slope + intercept; pydicom's `apply_rescale` gives stored * slope + intercept.
# Seen: water stored as 1024 of 12 bits with intercept -1024: pydicom 0 HU, SimpleITK 2047.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env && env/bin/pip install --quiet --disable-pip-version-check simpleitk==2.5.7 pydicom==3.0.2 numpy==2.4.6
env/bin/python - <<'PY'
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

found = {}
for kind in ("MONOCHROME2", "MONOCHROME1"):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, kind, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = np.full((8, 8), 1024, np.uint16).tobytes()
    ds.save_as("ct.dcm", enforce_file_format=True)
    read = pydicom.dcmread("ct.dcm")
    ours = apply_rescale(read.pixel_array, read)
    found[kind] = float(ours[0, 0]), float(sitk.GetArrayFromImage(sitk.ReadImage("ct.dcm")).flat[0])
    print(f"{kind}: water is {found[kind][0]:g} HU by pydicom, {found[kind][1]:g} by SimpleITK")
assert found == {"MONOCHROME2": (0, 0), "MONOCHROME1": (0, 2047)}, "the behaviour has changed"
PY
