"""A scan and a mask in: what the header promises is checked before anything is unpacked, and no file is read twice.

A file is known by its content, not by its name. It is unpacked into a folder of the caller's, as a plain NIfTI file.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from survpack.deploy.limits import Budget
from survpack.errors import BadInput
from survpack.grids import same_grid
from survpack.nifti import Place, elsewhere, place_of
from survpack.preprocess import read_image, read_mask, tumour_of

GZIP, HEADER = b"\x1f\x8b", {348: "Nifti1Header", 540: "Nifti2Header"}
PIECE, SURPLUS = 2**20, 2**16  # bytes that are copied at a time; that may follow the last voxel
FEWEST = 3  # slices of a volume
SUV = 500.0  # no tissue takes up as much; becquerel and counts run into thousands
AIR_HU, AIR_SHARE = -500.0, 0.01  # of no unit but Hounsfield's a hundredth lies below
SAMPLE, FEW_LEVELS = 200_000, 10  # voxels that are looked at; fewer different values are a mask
LABELS = 20  # numbers of a mask; more are a scan
WHOLE = 0.9  # share of all voxels; the mask is then of the image, not of a lesion
INSIDE = 0.5  # of the tumour must lie within the image
BACKGROUND = 0.9  # of the tumour with the image's lowest value: it lies in the air


@dataclass(frozen=True)
class File:
    """A file that was handed in, as it is called in sentences, where it lies unpacked, and where its voxels lie."""

    name: str
    plain: Path
    digest: str
    place: Place


def unpacked(path: Path, name: str, into: Path, limits, budget: Budget) -> File:
    """A NIfTI file, gzip or not, as a plain one in `into`.

    Parameters
    ----------
    path : Path
    name : str
        "scan t1c" or "mask": what the file is, for sentences.
    into : Path
    limits : intake.Limits
    budget : limits.Budget
        Of all files of the patient together.

    Raises
    ------
    BadInput
        For a file that is absent, empty, too large, no NIfTI, cut off, damaged, or that unpacks to more than its header
        tells; and for a header of no volume, of colours, of too many voxels, or of no possible spacing.
    """
    path = Path(path)
    told = f"{name} ({path.name})"
    if not path.is_file():
        found, fix = ("a folder", "give the file in it") if path.is_dir() else ("no such file", "correct the path")
        raise BadInput(f"{told}: {found}, expected a NIfTI file (.nii or .nii.gz); {fix}.")
    size = path.stat().st_size
    if not 0 < size <= limits.file_bytes:
        found = f"{size / 2**20:.0f} MB" if size else "an empty file"
        raise BadInput(
            f"{told}: {found}, expected a NIfTI file of up to {limits.file_bytes // 2**20} MB; fetch it again."
        )
    plain = into / f"{name.replace(' ', '-')}.nii"
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == GZIP else raw
            head = stream.read(540)
            expected, where = _promised(head, told, limits, budget)
            return File(told, plain, _copied(head, stream, plain, expected, told), where)
    except (OSError, EOFError, zlib.error):
        raise BadInput(f"{told}: damaged or cut off, expected a whole NIfTI file; fetch or convert it again.") from None


def _copied(head: bytes, stream, target: Path, expected: int, told: str) -> str:
    """The digest of what was written: `expected` bytes, and none of what may follow them."""
    from hashlib import blake2b

    digest, count, piece = blake2b(digest_size=16), 0, head
    with target.open("xb") as out:
        while piece:
            count += len(piece)
            if count > expected + SURPLUS:
                raise BadInput(
                    f"{told}: unpacks to more than its header tells, expected {expected} bytes; convert it again."
                )
            digest.update(piece)
            out.write(piece)
            piece = stream.read(PIECE)  # to the end, where gzip keeps its check sum
    if count < expected:
        raise BadInput(f"{told}: cut off after {count} of {expected} bytes; fetch or convert it again.")
    return digest.hexdigest()


def _promised(head: bytes, told: str, limits, budget: Budget) -> tuple[int, Place]:
    """Bytes that the header promises, header included, which are taken from the budget; and where the voxels lie."""
    import nibabel as nib

    kind = HEADER.get(int.from_bytes(head[:4], "little")) or HEADER.get(int.from_bytes(head[:4], "big"))
    if kind is None or len(head) < 348 or (kind == "Nifti2Header" and len(head) < 540):
        what = "a DICOM file" if head[128:132] == b"DICM" else "no image"
        fix = "give the folder of the series" if what == "a DICOM file" else "convert it to .nii.gz"
        raise BadInput(f"{told}: {what}, expected NIfTI; {fix}.")
    try:
        header = getattr(nib, kind)(head[: 348 if kind == "Nifti1Header" else 540], check=False)
        voxel, offset = header.get_data_dtype(), float(header["vox_offset"])
        magic, dims = bytes(header["magic"].tobytes())[:2], [int(n) for n in header["dim"]]
    except (nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError, ValueError, KeyError):
        raise BadInput(f"{told}: a header that is no NIfTI, expected a whole file; convert it again.") from None
    if magic != b"n+" or not 0 <= offset <= 2**24 or not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        raise BadInput(f"{told}: a damaged header, expected one volume in one NIfTI file; convert it again.")
    _is_volume(dims[1 : dims[0] + 1], voxel, told, limits)
    place = place_of(header, dims[1:4], told)
    voxels = prod(dims[1 : dims[0] + 1])
    expected = (int(offset) or 352) + voxels * voxel.itemsize
    if not budget.take(expected, voxels=voxels):
        raise BadInput(
            f"{told}: {expected / 2**20:.0f} MB unpacked ({voxels / 1e6:.0f} million voxels), beyond what all scans and masks "
            "of a patient may have together; crop or resample them, or leave one out."
        )
    return expected, place


def _is_volume(sides: list[int], voxel: np.dtype, told: str, limits) -> None:
    more = [side for side in sides[3:] if side > 1]
    size = " x ".join(map(str, sides))
    if len(sides) < 3 or min(sides[:3]) < FEWEST:
        raise BadInput(f"{told}: a 2-D image ({size}), expected a volume of {FEWEST} slices or more; give all slices.")
    if more:
        raise BadInput(f"{told}: a {len(sides)}-D image ({size}), expected one 3-D volume; save the one that is meant.")
    if voxel.kind not in "iuf":
        raise BadInput(
            f"{told}: voxels that are complex or colours, expected one number each; convert it to grey values."
        )
    if prod(sides) > limits.voxels or prod(sides) * voxel.itemsize > limits.unpacked_bytes:
        raise BadInput(
            f"{told}: {size} voxels, expected {limits.voxels / 1e6:.0f} million at most; resample it, or mend its header."
        )


def image_of(file: File, pixel: int = sitk.sitkUnknown) -> sitk.Image:
    """The volume of an unpacked file, as the study reads it; BadInput calls the file by its name."""
    try:
        return read_image(str(file.plain), pixel)
    except BadInput as error:
        raise BadInput(str(error).replace(str(file.plain), file.name)) from None


def mask_of(file: File) -> tuple[sitk.Image, list[str]]:
    """The whole numbers of an unpacked mask, and what is to be known of them; BadInput calls the file by its name."""
    try:
        mask, note = read_mask(str(file.plain))
    except BadInput as error:
        raise BadInput(str(error).replace(str(file.plain), file.name)) from None
    return mask, [f"The {file.name}: {note}."] if note else []


def check_place(scan: File, mask: File, shape) -> list[str]:
    """What is to be known of where a scan lies; `shape` is that of its mask.

    Raises
    ------
    BadInput
        Where the mask lies in the place of the scan that was not taken.
    """
    if how := elsewhere(scan.place, mask.place, shape):
        raise BadInput(
            f"{mask.name}: {how}, expected both in one place; save the scan with the place on which it was drawn."
        )
    return [f"The {scan.name}: {found}." for found, _, _ in scan.place.notes]


def check_scan(image: sitk.Image, modality: str, told: str) -> None:
    """Refuse what is no scan of `modality`, as far as its grey values tell.

    Raises
    ------
    BadInput
        For values that are all alike or none at all, a mask, CT without negative Hounsfield units, PET not in SUV, CT
        in place of MR or PET.
    """
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if not (isfinite(low) and isfinite(high)):
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not values.size or low == high:
        what = f"every voxel is {low:g}" if values.size else "no voxel is a number (NaN or infinite)"
        raise BadInput(f"{told}: {what}, expected a scan; fetch or convert it again.")
    flat = values.reshape(-1)
    some = flat[:: max(flat.size // SAMPLE, 1)]
    if len(np.unique(some[some != low])) < FEW_LEVELS and len(np.unique(flat)) <= FEW_LEVELS:
        raise BadInput(
            f"{told}: {len(np.unique(flat))} different values, as a mask has; give the scan, and this as the mask."
        )
    if modality == "ct" and low >= 0:
        raise BadInput(
            f"{told}: lowest value {low:g}, expected air near -1000 HU; convert it again with the rescale intercept, or give "
            "the CT if this is another."
        )
    if modality != "ct" and np.count_nonzero(some < AIR_HU) > AIR_SHARE * some.size:
        raise BadInput(f"{told}: values down to {low:g}, as CT has; give the {modality}, or call this one ct.")
    if modality == "pt" and high > SUV:
        raise BadInput(
            f"{told}: values up to {high:.4g}, expected SUV (below {SUV:g}); divide by dose over body weight."
        )


def check_mask(mask: sitk.Image, labels: dict[int, str], tumour: list[int], told: str) -> None:
    """Refuse what does not outline a tumour in the numbers of `labels`.

    Raises
    ------
    BadInput
        For numbers without a meaning, a scan, no voxel of the tumour, or a tumour all over.
    """
    import pandas as pd

    meant = ", ".join(f"{number} {meaning}" for number, meaning in labels.items())
    values = sitk.GetArrayViewFromImage(mask)
    found = pd.unique(values.reshape(-1))
    strange = sorted({int(number) for number in found} - {0, *labels})
    if len(strange) > LABELS:
        raise BadInput(
            f"{told}: {len(found)} different numbers, as a scan has, expected a mask of 0, {meant}; give the mask."
        )
    if strange:
        which = ", ".join(map(str, strange[:5]))
        raise BadInput(f"{told}: unknown label {which}, expected 0, {meant}; give its regions these numbers.")
    inside = np.isin(values, tumour)
    if not inside.any():
        which = ", ".join(f"{number} {labels[number]}" for number in tumour)
        raise BadInput(f"{told}: no voxel of the tumour, expected some of {which}; draw the lesion.")
    if np.count_nonzero(inside) > WHOLE * inside.size:
        raise BadInput(f"{told}: the tumour fills the whole image, expected a lesion in it; draw the lesion.")


def check_together(image: sitk.Image, mask: sitk.Image, tumour: list[int], told: str, of: str) -> list[str]:
    """What is to be known of a mask that lies otherwise than its scan.

    Raises
    ------
    BadInput
        Where most of the tumour lies beyond the scan, or in its background.
    """
    notes, lesion = [], tumour_of(mask, tumour)
    volume = np.count_nonzero(sitk.GetArrayViewFromImage(lesion)) * prod(lesion.GetSpacing())
    near = _part(image, lesion)
    moved = (
        near and sitk.GetArrayFromImage(sitk.Resample(lesion, near, sitk.Transform(), sitk.sitkNearestNeighbor, 0)) > 0
    )
    held = np.count_nonzero(moved) * prod(image.GetSpacing()) / volume if near else 0.0
    if held < INSIDE:
        raise BadInput(
            f"{of}: {100 * min(held, 1):.0f} % of the tumour of the {told.split(' (')[0]} lies within it, expected the scan on which it was "
            "drawn; give that scan, or resample the mask onto it."
        )
    if not same_grid(image, mask):
        notes.append(f"The {told} is on another grid than the {of}; it was resampled by nearest neighbour.")
    lowest = sitk.GetArrayViewFromImage(image).min()
    if np.mean(sitk.GetArrayViewFromImage(near)[moved] == lowest) > BACKGROUND:
        raise BadInput(
            f"{told}: the tumour lies in the background of the {of}, expected it in tissue; check their places."
        )
    return notes


def _part(image: sitk.Image, lesion: sitk.Image) -> sitk.Image | None:
    """The scan around a lesion; None where they do not meet."""
    from itertools import product

    corners = product(*[(-0.5, size - 0.5) for size in lesion.GetSize()])
    places = [
        image.TransformPhysicalPointToContinuousIndex(lesion.TransformContinuousIndexToPhysicalPoint(c))
        for c in corners
    ]
    start = np.floor(np.min(places, axis=0)).clip(0, None).astype(int)
    stop = np.minimum(np.ceil(np.max(places, axis=0)).astype(int) + 1, image.GetSize())
    if (stop <= start).any():
        return None
    return sitk.RegionOfInterest(image, (stop - start).tolist(), start.tolist())
