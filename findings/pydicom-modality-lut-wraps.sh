#!/usr/bin/env bash
# pydicom's `apply_modality_lut` wraps stored values of 16 bits that are signed, where the table begins below 0.
#
# Behaviour (pydicom 3.0.2, numpy 2.4.6): the second number of LUT Descriptor is the stored value of the first entry
# (PS3.3 C.11.1.1.1), and may be negative. It is taken from the stored values in their own type: with int16 values and a table
# of 65,536 entries that begins at -32768, the difference does not fit and wraps, without a warning; values end up clipped to
# the first entry. Stored values of another type (int64) are looked up rightly.
# Seen: an identity table gives 0, 0, 0 for stored 0, 1, 1000; right is 32768, 32769, 33768.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env && env/bin/pip install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
env/bin/python - <<'PY'
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

table, ds = Dataset(), Dataset()
table.add_new("LUTDescriptor", "SS", [0, -32768, 16])
table.add_new("LUTData", "OW", np.arange(65536, dtype=np.uint16).tobytes())
ds.ModalityLUTSequence, ds.PixelRepresentation = [table], 1
ds.set_original_encoding(False, True)
stored = np.array([0, 1, 1000], dtype=np.int16)
narrow, wide = (apply_modality_lut(each, ds).tolist() for each in (stored, stored.astype(np.int64)))
print("int16 stored values give", narrow, "and the same as int64", wide)
assert (narrow, wide) == ([0, 0, 0], [32768, 32769, 33768]), "the behaviour has changed"
PY
