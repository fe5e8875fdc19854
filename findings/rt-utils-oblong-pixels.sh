#!/usr/bin/env bash
# rt-utils writes contours in the wrong place where pixels are not square: it takes the two spacings for each other.
#
# Behaviour (rt-utils 1.2.7, pydicom 3.0.2, numpy 2.4.6, opencv-python 5.0.0.93): PixelSpacing is the distance of rows, then
# that of columns (PS3.3 10.7.1.3). The column index runs along the first three cosines, in steps of the distance of columns.
# rt-utils multiplies that direction by the distance of rows. Square pixels hide it.
# Seen: a mask on pixels of 3 x 2 mm, x from 40 to 50 and y from 15 to 30 mm, is written at x 60 to 75 and y 10 to 20 mm.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env && env/bin/pip install --quiet --disable-pip-version-check \
  rt-utils==1.2.7 pydicom==3.0.2 numpy==2.4.6 opencv-python==5.0.0.93
env/bin/python - <<'PY'
from pathlib import Path
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from rt_utils import RTStructBuilder

folder = Path("series")
folder.mkdir()
series, study, frame = generate_uid(), generate_uid(), generate_uid()
for number in range(3):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
    ds.Modality, ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "CT", "1", "", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "100000", "", ""
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 4.0 * number]
    ds.PixelSpacing, ds.Rows, ds.Columns = [3.0, 2.0], 20, 30
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = bytes(2 * 20 * 30)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
mask = np.zeros((20, 30, 3), dtype=bool)  # row, column, slice
mask[5:11, 20:26, 1] = True
made = RTStructBuilder.create_new(dicom_series_path=str(folder))
made.add_roi(mask=mask, name="GTV")
points = np.array(made.ds.ROIContourSequence[0].ContourSequence[0].ContourData).reshape(-1, 3)
found = [points[:, axis].min() for axis in (0, 1)] + [points[:, axis].max() for axis in (0, 1)]
print("expected x 40 to 50, y 15 to 30 mm; found x", found[0], "to", found[2], "and y", found[1], "to", found[3])
assert found == [60, 10, 75, 20], "the behaviour has changed"
PY
