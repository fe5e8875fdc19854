#!/usr/bin/env bash
# SimpleITK takes the qform of a NIfTI file, NiBabel the sform, where both are there and the sform's code is 2.
#
# Behaviour (SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.4.6): a file with sform_code 2 (aligned) and qform_code 1 (scanner) is
# valid NIfTI-1. NiBabel's `affine` is the sform, SimpleITK's origin and direction are the qform. With sform_code 1 both
# take the sform. So an image and a mask that was saved with the image's `affine` (NiBabel then writes a sform alone) lie
# apart in SimpleITK, without a warning of either.
# Seen: origin of the file with code 2: NiBabel 30, SimpleITK 0 mm; with code 1: 30 and 30.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env && env/bin/pip install --quiet --disable-pip-version-check simpleitk==2.5.7 nibabel==5.4.2 numpy==2.4.6
env/bin/python - <<'PY'
import nibabel as nib
import numpy as np
import SimpleITK as sitk

moved = np.diag([1.0, 1.0, 1.0, 1.0])
moved[2, 3] = 30
found = {}
for code in (1, 2):
    image = nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), None)
    image.set_qform(np.eye(4), 1)
    image.set_sform(moved, code)
    nib.save(image, "image.nii")
    found[code] = nib.load("image.nii").affine[2, 3], sitk.ReadImage("image.nii").GetOrigin()[2]
    print(f"sform code {code}: third coordinate of the first voxel: NiBabel {found[code][0]:g}, SimpleITK {found[code][1]:g} mm")
assert found == {1: (30, 30), 2: (30, 0)}, "the behaviour has changed"
PY
