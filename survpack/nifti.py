"""NIfTI files: one reader of voxels and one rule of where they lie, for the study, its checks and its prognoses.

A header has room for two places, sform (any matrix) and qform (a rotation); one counts where its code is above 0.

- One counts: it is taken. Both, and they agree to a tenth of a voxel or to what a qform can hold: the sform. (Nearly half a
  turn, as scans from DICOM have it, a qform's float32 tells to a thousandth: half a mm at the far end of a head.)
- Both, and one is the other turned or moved as a whole: the sform, as NiBabel, FSL and SPM read it (ITK and its viewers
  take the qform). A mask that lies where the *other* is, is refused: which of the two it was drawn on is not known.
- Both, and voxel sizes, handedness or angles differ: refused, for one of them has a wrong volume.
- None: the voxel sizes alone. Volumes hold; left and right, front and back are not told.

A voxel is as large as the place that is taken says, in mm, whatever unit the header counts in. Axes are to be at right
angles; what rounding took off them is given back, what a registration sheared is refused.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import polar

from survpack.cohort import Finding
from survpack.errors import BadInput

NAMED = re.compile(r"\.(nii(\.gz)?|hdr|img(\.gz)?)$", re.IGNORECASE)
SAME = 0.1  # voxels that two places of one grid may differ by: the nearest neighbour stays the same
TURN = 2e-3  # of a direction: what float32 leaves of a qform near half a turn
EXACT = 1e-3  # below it a qform is the sform with axes at right angles to the last digit
SKEW = 0.1  # voxels at the far corner that axes may be off a right angle: rounding; a shear is more
VOXEL_MM = (0.05, 20.0)  # a side of a voxel; beyond it another unit, or a broken header
LARGEST_MM = 10  # of a side; above it a scan is odd
UNITS = {1: 1000.0, 3: 0.001}  # metres and micrometres, in mm
FORMS = ("sform", "qform")
ROUNDED = 0.01  # that a label may be off a whole number: what a slope, or eight bits of a share, leave of it


class Refused(BadInput):
    """What cannot be read right; `finding` has the sentence in its parts."""

    def __init__(self, finding: Finding):
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True)
class Place:
    """Where the voxels of an image lie.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        From index to mm, to the patient's right, front and head; axes at right angles.
    form : str
        "sform", "qform", or "" where the header has neither.
    other : ndarray, shape (4, 4), or None
        The place that was not taken, where it is another.
    notes : tuple of (found, expected, fix)
        What the header leaves open or tells twice, and how it was read.
    """

    affine: np.ndarray
    form: str
    other: np.ndarray | None = None
    notes: tuple[tuple[str, str, str], ...] = ()

    @property
    def spacing(self) -> np.ndarray:
        """Sides of a voxel, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def read(path: str | Path) -> tuple[np.ndarray, Place]:
    """Voxels, scaled as the header says, and their place.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ndarray, shape (x, y, z)
        In Fortran order, of the type on disk where the header does not scale it; NaN and infinite values stay.
    Place

    Raises
    ------
    Refused
        For what is no NIfTI file, damaged, no single volume of numbers, or in a place that cannot be settled.
    """
    import nibabel as nib

    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair):
            kind = "an Analyze file" if isinstance(image, nib.AnalyzeImage) else "another kind of image"
            _refuse(path, kind, "NIfTI, which tells left from right", "convert it, from the DICOM if need be")
        sides = image.shape
        if len(sides) < 3 or max(sides[3:], default=1) > 1 or min(sides) < 1:
            found = f"{len(sides)}-D image (shape {sides})"
            _refuse(path, found, "a 3-D volume", "save the one volume that is meant")
        place = place_of(image.header, sides[:3], path)
        values = np.asarray(image.dataobj)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, EOFError, ValueError,
            zlib.error) as error:  # fmt: skip
        told = " ".join(str(error).split())[:200] or type(error).__name__
        _refuse(path, f"unreadable ({told})", "a whole NIfTI file", "fetch or convert it again, as .nii.gz")
    if values.dtype.kind not in "buif":
        _refuse(path, "voxels that are complex or colours", "one number each", "convert it to grey values")
    return values.reshape(sides[:3], order="F"), place


def place_of(header, shape, path: str | Path) -> Place:
    """The place that the rule above gives.

    Parameters
    ----------
    header : nibabel Nifti1Header or Nifti2Header
    shape : 3 ints
    path : str or Path
        Named in the sentence.

    Raises
    ------
    Refused
    """
    unit = UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    scale, notes = np.diag([unit, unit, unit, 1.0]), []
    found = {form: _form(header, form, path) for form in FORMS if int(header[f"{form}_code"]) > 0}
    found = {form: scale @ affine for form, affine in found.items()}
    if not found:
        notes.append(
            ("no qform and no sform: left and right are not told", "one of the two", "convert it again from the DICOM")
        )
    form = next(iter(found), "")
    affine, other = found.get("sform", found.get("qform", scale @ header.get_base_affine())), None
    if len(found) == 2:
        far = apart(found["sform"], found["qform"], shape)
        if far <= EXACT:
            form, affine = "qform", found["qform"]
        elif far > SAME and not _same_turn(found["sform"], found["qform"]):
            other = found["qform"]
            if _skew(affine, shape) > SKEW or not _rigid(affine, other, shape):
                _refuse(path, f"{_told(affine, 'sform')} against {_told(other, 'qform')}", "one place, or two that differ by a turn or a shift",
                        "set both alike, to the one that is right")  # fmt: skip
            notes.append((f"sform and qform in two places ({_told(affine, 'sform')} against {_told(other, 'qform')}); the sform is read",
                          "one place", "set both alike, to the one that is right"))  # fmt: skip
    return Place(_square(affine, shape, header, unit, form, path, notes), form, other, tuple(notes))


def elsewhere(place: Place, mask: Place, shape) -> str:
    """How a mask lies in the place of its image that was not taken, as a part of a sentence; else "".

    Parameters
    ----------
    place, mask : Place
        Of the image and of its mask.
    shape : 3 ints
        Of both.
    """
    if (
        place.other is None
        or apart(place.other, mask.affine, shape) > SAME
        or apart(place.affine, mask.affine, shape) <= SAME
    ):
        return ""
    return (
        f"the mask lies where its image's qform is, and the image is read by its sform ({_told(place.other, 'qform')}, "
        f"{_told(place.affine, 'sform')})"
    )


def apart(one: np.ndarray, other: np.ndarray, shape) -> float:
    """How far the corners of a grid lie apart in two places, in its smallest sides."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    moved = corners @ (one - other)[:3, :3].T + (one - other)[:3, 3]
    return float(np.linalg.norm(moved, axis=1).max() / np.linalg.norm(one[:3, :3], axis=0).min())


def same_voxels(one: Place, shape, other: Place, other_shape) -> bool:
    """Whether two grids have the same voxels in the same places, whatever the order in which their files store them."""
    (first, size), (second, other_size) = _turned(one.affine, shape), _turned(other.affine, other_shape)
    return size == other_size and apart(first, second, size) <= SAME


def _turned(affine: np.ndarray, shape) -> tuple[np.ndarray, tuple[int, ...]]:
    """A grid with its axes in the order right, front, head."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    order = io_orientation(affine)
    sides = dict(zip(order[:, 0].astype(int).tolist(), shape, strict=True))
    return affine @ inv_ornt_aff(order, shape), tuple(sides[axis] for axis in range(3))


def labels(values: np.ndarray) -> tuple[np.ndarray, float]:
    """The whole numbers nearest to the values of a mask, and how far the farthest value is from its own.

    Parameters
    ----------
    values : ndarray
        What scaling left (1.00001526) is taken for the label it was; the caller says how far is too far (`ROUNDED`).

    Returns
    -------
    ndarray of int
        `values` itself where it is of integers.
    float
        0 for integers, infinite where a value is no finite number.
    """
    if values.dtype.kind in "bui":
        return values, 0.0
    if not np.isfinite(values.sum(dtype=np.float64)):
        return values, np.inf
    whole = np.rint(values)
    off = float(np.abs(values - whole).max(initial=0))
    fits = np.int64 if whole.min(initial=0) < 0 else np.min_scalar_type(int(whole.max(initial=0)))
    return whole.astype(fits), off


def _form(header, form: str, path) -> np.ndarray:
    affine = header.get_sform() if form == "sform" else header.get_qform()
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or sides.min() == 0 or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-3:
        _refuse(path, f"a {form} that is no place (its axes have no length, or lie in a plane)", "three axes at right angles",
                "convert it again from the DICOM")  # fmt: skip
    return affine.astype(float)


def _square(affine, shape, header, unit, form, path, notes) -> np.ndarray:
    """`affine` with axes at right angles and possible voxels; what differs from `pixdim` goes to `notes`."""
    sides, written = np.linalg.norm(affine[:3, :3], axis=0), np.abs(np.asarray(header["pixdim"][1:4], float)) * unit
    if not ((sides >= VOXEL_MM[0]) & (sides <= VOXEL_MM[1])).all():
        _refuse(
            path,
            f"voxels of {_by(sides)} mm",
            f"{VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm a side",
            "convert it again from the DICOM, in mm",
        )
    if sides.max() > LARGEST_MM:
        notes.append(
            (f"voxels of an odd size ({_by(sides)} mm)", f"up to {LARGEST_MM} mm", "convert it again from the DICOM")
        )
    if _skew(affine, shape) > SKEW:
        _refuse(path, "axes that are not at right angles", "a grid that is orthonormal", "resample it onto such a grid")
    if np.allclose(sides, written, rtol=1e-4, atol=0):
        sides = written  # the same number, without the rounding of a matrix
    elif form and not np.allclose(sides, written, rtol=1e-3, atol=0):
        notes.append((f"voxels of {_by(sides)} mm by the {form} and of {_by(written)} mm by pixdim; the {form} is read",
                      "one size", "mend the header"))  # fmt: skip
    out = affine.copy()
    out[:3, :3] = polar(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))[0] * sides
    return out


def _skew(affine: np.ndarray, shape) -> float:
    """How far the last voxel's centre lies from where right angles would put it, in its smallest sides."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / sides
    return float(np.linalg.norm((axes - polar(axes)[0]) * sides * (np.array(shape) - 1), axis=0).max() / sides.min())


def _same_turn(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two places begin in one point and differ by no more than the rounding of a qform."""
    sides = [np.linalg.norm(each[:3, :3], axis=0) for each in (one, other)]
    begun = np.linalg.norm(one[:3, 3] - other[:3, 3]) <= SAME * sides[0].min()
    turned = np.abs(one[:3, :3] / sides[0] - other[:3, :3] / sides[1]).max()
    return bool(begun and turned <= TURN and np.allclose(*sides, rtol=1e-4))


def _rigid(one: np.ndarray, other: np.ndarray, shape) -> bool:
    """Whether one place is the other turned or moved as a whole: the same voxels, and the same hand."""
    sides = [np.linalg.norm(each[:3, :3], axis=0) for each in (one, other)]
    grown = np.abs(sides[0] - sides[1]) * (np.array(shape) - 1) / np.minimum(*sides)
    return bool(np.linalg.det(one[:3, :3]) * np.linalg.det(other[:3, :3]) > 0 and grown.max() <= SKEW)


def _told(affine: np.ndarray, form: str) -> str:
    """A place in a few words: its axes, its voxels, where it begins."""
    from nibabel import aff2axcodes

    begins = ", ".join(f"{each:.1f}" for each in affine[:3, 3])
    sides = _by(np.linalg.norm(affine[:3, :3], axis=0))
    return f"{form} {''.join(aff2axcodes(affine))}, {sides} mm, from {begins} mm"


def _by(sides) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)


def _refuse(path, found: str, expected: str, fix: str):
    raise Refused(Finding("error", str(path), found, expected, fix))
