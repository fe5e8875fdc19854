"""What the stored values of slices mean: Hounsfield units, activity or grey, whichever way they are stored.

Rules, by the attributes of the standard that change the meaning of a stored value
- MONOCHROME1 is an order to the display, as are VOI LUT and presentation LUT: values are never inverted. Colours and
  palettes are refused.
- Each slice has its own rescale slope and intercept, or a modality LUT in their place. Half of them, a slope of 0, what is
  no number, both at once, or only in some slices is refused; none at all is slope 1 and intercept 0, in PET refused, and
  in CT where nothing lies below 0. Slopes of Philips MR that differ are undone by its private scale slope.
- A CT whose rescale type or LUT type is not Hounsfield's (nor empty) is refused: it is an iodine or density map. One that
  is unspecified (US) is HU where a hundredth of the voxels is air at -1000 and a hundredth is tissue near 0; this is told.
- Bits beside the stored ones (overlays, rubbish) are dropped, whatever the high bit.
- Padding becomes air: -1024 HU; in PET and MR 0. It is what Pixel Padding Value and its range name, and in CT also a lowest
  value under -1500 HU that a hundredth of all voxels share. Where it is a value that tissue has, the series is refused.
- A real-world value mapping is not asked: where it is the only meaning, PET is refused, MR is grey.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from survpack.dicom import lattice
from survpack.dicom.series import Series, header, numbers_of, ordered
from survpack.errors import BadInput

NOTED = ("Resampled", "Padding", "Stored", "Unspecified")  # facts of a volume that are told
HOUNSFIELD = ("", "HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS")
UNSPECIFIED = "US"
AIRY, TISSUES = (-1050.0, -900.0), (-200.0, 200.0)  # HU
AIR = {"CT": -1024.0}  # else 0
TISSUE = {"CT": -900.0}  # the lowest value that tissue has; else 0
VOID, SHARED = -1500.0, 0.01  # HU and share of the voxels; noise in air goes not so low, and is not one value
_PHILIPS = 0x2005, "Philips MR Imaging DD 001", 0x0E  # MR Scale Slope
_KEPT = "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"


def volume(series: Series) -> tuple[np.ndarray, np.ndarray, dict]:
    """A series as one volume on a grid with axes at right angles.

    Returns
    -------
    ndarray of float32, shape (column, row, slice)
        As `read` gives them; of a tilted gantry, shifted upright by `lattice.upright`.
    ndarray of float, shape (4, 4)
        From (column, row, slice) to mm in DICOM's axes (left, posterior, superior).
    dict
        What was done to the values, for the sidecar; what `NOTED` names is worth telling.

    Raises
    ------
    BadInput
        Where the grid is uneven, or the values cannot be read.
    """
    files, affine = ordered(series)
    try:
        voxels, facts = read(files)
    except BadInput as error:
        raise BadInput(f"{series.name}: {error}") from None
    if tilt := lattice.lean_of(affine)[1]:
        facts["Resampled"] = f"gantry tilt of {tilt:.1f} degrees removed"
    return *lattice.upright(voxels, affine, voxels.min()), facts


def read(files: list[Path]) -> tuple[np.ndarray, dict]:
    """Voxels of ordered slices, each by its own header.

    Parameters
    ----------
    files : list of Path
        Slices of one size.

    Returns
    -------
    ndarray of float32, shape (column, row, slice)
        In CT in Hounsfield units, of PET and MR as the scanner scaled them.
    dict
        What a reader should know of how they were stored.

    Raises
    ------
    BadInput
        Where a file is cut off or coded in a way that nothing here reads, or its values have no meaning that can be told.
    """
    values, kinds, scales, notes = None, set(), [], {}
    for number, path in enumerate(files):
        where = f"slice {number + 1} of {len(files)}"
        try:
            head = header(path, whole=True)
            stored = _stored(head, where)
        except BadInput:
            raise
        except Exception as error:  # a decoder fails in as many ways as there are broken files
            told = (str(error).strip().splitlines() or [type(error).__name__])[-1][-150:]
            raise BadInput(f"{where}: pixels unreadable ({told}); export the series uncompressed.") from None
        if values is None:
            values = np.empty((*stored.T.shape, len(files)), dtype=np.float32)
        kind, meant = _meant(head, stored, where, notes)
        kinds.add(kind)
        scales.append(_philips_scale(head, where))
        values[:, :, number] = _padded(head, stored, meant.astype(np.float32), where, notes).T
        if head.get("PhotometricInterpretation") == "MONOCHROME1":
            notes["Stored"] = "stored as MONOCHROME1, an order to the display: values are not inverted"
        if str(head.get("LossyImageCompression") or "") == "01":
            notes["LossyImageCompression"] = "01"
    where, modality = "the stored values", head.Modality
    if len(kinds) > 1:
        raise _bad(where, "slices that are scaled in several ways, or some not at all", "one way")
    if kinds.pop()[0] == "bare" and (modality == "PT" or (modality == "CT" and values.min() >= 0)):
        raise _bad(where, "no Rescale Slope and Intercept", "both, as the stored numbers have no unit")
    lowest = values.min()
    if modality == "CT" and lowest < VOID and (lost := values == lowest).mean() > SHARED:
        values = _aired(values, lost, modality, notes)
    if "Unspecified" in notes and not all(
        ((values > low) & (values < high)).mean() > SHARED for low, high in (AIRY, TISSUES)
    ):
        raise _other_unit(where)
    return _undone(values, scales, where), notes


def _stored(head, where: str) -> np.ndarray:
    """The numbers as they were stored, of shape (rows, columns); no LUT, no inversion, no bit beside them."""
    kind = str(head.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    if kind not in ("MONOCHROME1", "MONOCHROME2") or head.get("SamplesPerPixel", 1) != 1:
        raise _bad(where, "pixels with colours", "one grey value", "leave the series out")
    if head.get("NumberOfFrames", 1) not in (1, None):
        raise _bad(where, "many frames in one file", "one file a slice", "convert it to classic DICOM")
    if "PixelData" not in head:
        raise _bad(where, "no Pixel Data of whole numbers", "one stored number a voxel")
    head.PhotometricInterpretation, head.SamplesPerPixel = "MONOCHROME2", 1
    top, stored = int(head.get("HighBit", head.BitsStored - 1)), int(head.BitsStored)
    if not stored <= top + 1 <= head.BitsAllocated:
        raise _bad(where, f"{stored} bits stored below bit {top}", "a high bit that leaves room for them")
    syntax = head.file_meta.get("TransferSyntaxUID")
    try:
        if syntax is not None and syntax.is_compressed:
            return _by_gdcm(head)
        if syntax is None:  # a file without preamble
            head.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" + ("" if head.original_encoding[0] else ".1")
        head.BitsStored = top + 1  # pydicom drops what is above, and does not ask for the high bit
        return head.pixel_array >> (top + 1 - stored)
    finally:
        head.PhotometricInterpretation, head.BitsStored = kind, stored


def _by_gdcm(head) -> np.ndarray:
    """Compressed pixels by SimpleITK, which has every decoder, from a header in which nothing asks for a change."""
    import SimpleITK as sitk
    from pydicom.dataset import Dataset

    bare = Dataset()
    for keyword in _KEPT:
        bare[keyword] = head[keyword]
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    bare.SOPClassUID, bare.SOPInstanceUID, bare.file_meta = head.SOPClassUID, head.SOPInstanceUID, head.file_meta
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with TemporaryDirectory() as place:
            bare.save_as(Path(place) / "slice.dcm", enforce_file_format=True)
            read = sitk.GetArrayFromImage(sitk.ReadImage(str(Path(place) / "slice.dcm"), imageIO="GDCMImageIO"))
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    return read.reshape(head.Rows, head.Columns)


def _meant(head, stored: np.ndarray, where: str, notes: dict) -> tuple[tuple, np.ndarray]:
    """How the stored numbers get their meaning, and the meaning."""
    has = {name for name in ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept") if head.get(name) is not None}
    if not has:
        mapped = head.get("RealWorldValueMappingSequence") or []
        return ("bare", *(str(one.get("RealWorldValueSlope")) for one in mapped)), stored
    kind = (
        head.ModalityLUTSequence[0].get("ModalityLUTType") if "ModalityLUTSequence" in has else head.get("RescaleType")
    )
    kind = str(kind or "").strip().upper()
    if head.Modality == "CT" and kind == UNSPECIFIED:
        notes["Unspecified"] = (
            "unit unspecified (rescale type US): read as HU, as there is air at -1000 and tissue near 0"
        )
    elif head.Modality == "CT" and kind not in HOUNSFIELD:
        raise _other_unit(where)
    if has == {"ModalityLUTSequence"}:
        return ("LUT",), _looked_up(head, stored, where)
    slope, intercept = numbers_of(head, "RescaleSlope"), numbers_of(head, "RescaleIntercept")
    if "ModalityLUTSequence" in has:
        raise _bad(where, "a modality LUT beside a rescale slope", "one of them")
    if slope is None or intercept is None or slope[0] == 0:
        raise _bad(where, "a rescale slope or intercept that is absent, 0 or no number", "two numbers")
    return ("rescale",), stored * slope[0] + intercept[0]


def _looked_up(head, stored: np.ndarray, where: str) -> np.ndarray:
    """Stored numbers by the modality LUT; pydicom's own refuses a table with numbers below 0, and wraps a long one."""
    item = head.ModalityLUTSequence[0]
    try:
        length, first, _ = item.LUTDescriptor
        order = "<" if head.file_meta.TransferSyntaxUID.is_little_endian else ">"
        table = np.frombuffer(item.LUTData, f"{order}u2") if isinstance(item.LUTData, bytes) else item.LUTData
        table = np.array(table, dtype=np.int64)
    except (AttributeError, TypeError, ValueError):
        table, length, first = np.zeros(0), 1, 0
    if len(table) != (length or 2**16):
        raise _bad(where, "a modality LUT that cannot be read", "as many numbers as its descriptor tells")
    if head.PixelRepresentation == 1 and first >= 2**15:  # below 0, written without a sign
        first -= 2**16
    if head.Modality == "CT":  # likewise: no HU is so high
        table = np.where(table >= 2**15, table - 2**16, table)
    return table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]


def _padded(head, stored: np.ndarray, values: np.ndarray, where: str, notes: dict) -> np.ndarray:
    """Values with air where there is padding."""
    declared = numbers_of(head, "PixelPaddingValue")
    if declared is None:
        return values
    ends = [*declared, *(numbers_of(head, "PixelPaddingRangeLimit") or declared)]
    wrap = 2**head.BitsAllocated  # of a number written as of the other sign
    low = 0 if head.PixelRepresentation == 0 else -wrap // 2
    ends = sorted((end - low) % wrap + low for end in ends)
    found = (stored >= ends[0]) & (stored <= ends[1])
    if found.any() and (worst := values[found].max()) > TISSUE.get(head.Modality, 0.0):
        raise _bad(where, f"padding of {worst:.4g}, a value that tissue has", "padding below it")
    return _aired(values, found, head.Modality, notes)


def _aired(values: np.ndarray, padding: np.ndarray, modality: str, notes: dict) -> np.ndarray:
    air = AIR.get(modality, 0.0)
    padding &= values < air
    if padding.any():
        notes["Padding"] = f"padding outside the field of view set to {air:g}"
        values[padding] = air
    return values


def _philips_scale(head, where: str) -> float | None:
    """Rescale slope times scale slope of a Philips MR: what its numbers are divided by to be comparable."""
    group, creator, element = _PHILIPS
    slope = numbers_of(head, "RescaleSlope")
    try:
        scale = float(head.private_block(group, creator)[element].value)
    except (KeyError, TypeError, ValueError):
        return None
    return slope[0] * scale if head.Modality == "MR" and slope and scale > 0 else None


def _undone(values: np.ndarray, scales: list, where: str) -> np.ndarray:
    """Slices of Philips MR on the scale of the first, where their scales differ."""
    if len(set(scales)) == 1:
        return values
    if None in scales:
        raise _bad(where, "the Philips scale slope in some slices only", "in all or none")
    return values * np.float32(scales[0] / np.array(scales))


def _other_unit(where: str) -> BadInput:
    return _bad(where, "a CT in another unit than HU by its rescale type", "HU", "leave the series out")


def _bad(where: str, found: str, expected: str, fix: str = "export the series again") -> BadInput:
    return BadInput(f"{where}: {found}, expected {expected}; {fix}.")
