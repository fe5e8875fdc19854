"""The grid of a stack of slices: even in three dimensions, its axes at right angles.

Rules, in this order
- The positions of the slices decide; thickness and spacing between slices are not asked.
- Each slice lies within a tenth of a voxel's shortest side of a straight line of even steps, or within what rounding of
  the positions explains (of one decimal, 0.13 mm); else the series is refused, and the slices named.
- Direction cosines that rounding left unequal to right angles are set upright; where the positions tell the normal more
  exactly, it is theirs. Rounding that moves the corner of a slice by over half a voxel is refused.
- Slices that step off their normal by less than a tenth of a voxel over the whole stack, or than rounding explains, are
  taken as along it. Beyond that it is a tilted gantry, of CT alone: `upright` shifts each slice within its own plane.
"""

from __future__ import annotations

import numpy as np

from survpack.errors import BadInput

TENTH, HALF = 0.1, 0.5  # of a voxel
EXACT = 1e-6  # cosines and millimetres that differ by less are equal
STEEPEST = 35.0  # degrees; gantries tilt up to 30
NAMED = 5  # slices in a sentence


def fitted(positions, directions, sizes, tilts: bool) -> tuple[np.ndarray, np.ndarray]:
    """The order of slices along their normal, and the affine of their grid.

    Parameters
    ----------
    positions : sequence of 3 floats, mm
        Of the first voxel of each slice.
    directions : sequence of 6 floats
        Cosines of the rows and the columns.
    sizes : sequence of (rows, columns, distance of rows, distance of columns)
    tilts : bool
        Whether slices may lean: of CT they may.

    Returns
    -------
    ndarray of int, shape (slices,)
    ndarray of float, shape (4, 4)
        From (column, row, slice) to mm in DICOM's axes (left, posterior, superior). Rows, columns and normal are at right
        angles; the third column is off the normal only where the gantry was tilted.

    Raises
    ------
    BadInput
        With what was found, what was expected, and how to mend it.
    """
    positions, directions, sizes = (np.array(each, dtype=float) for each in (positions, directions, sizes))
    (rows, columns, *_), pixel = sizes[0], np.median(sizes[:, [3, 2]], axis=0)
    corner = np.hypot(rows * pixel[1], columns * pixel[0])  # mm from the first voxel of a slice to the last
    _alike(directions, sizes, pixel, corner)
    axes, normal, unsure = _axes(np.median(directions, axis=0))
    order = np.argsort(positions @ normal, kind="stable")
    step, middle, blur = _line(positions[order], normal, pixel.min())
    count = len(order)
    loose = np.sqrt(6) * unsure + EXACT  # how far the normal may be off, in radians
    vague = 2 * blur / ((count - 1) * np.linalg.norm(step)) + EXACT  # and the line of the positions
    lean = step - (step @ normal) * normal
    angle = np.arctan2(np.linalg.norm(lean), step @ normal)
    if np.linalg.norm(lean) * (count - 1) <= TENTH * pixel.min() or angle <= loose + vague:
        if vague < loose:
            axes, normal = _upright(np.array([*axes, step / np.linalg.norm(step)]))
        step = (step @ normal) * normal
    elif not tilts or np.degrees(angle) > STEEPEST:
        expected = f"along it{f', or a gantry tilted by {STEEPEST:.0f} at most' if tilts else ''}"
        raise _bad(f"slices that step {np.degrees(angle):.1f} degrees off their normal", expected)
    if unsure * corner > HALF * pixel.min():
        found = f"direction cosines so coarse that the corner of a slice is unsure by {unsure * corner:.1f} mm"
        raise _bad(found, f"half a voxel ({HALF * pixel.min():.2f} mm) at most")
    affine = np.eye(4)
    affine[:3, :2] = axes.T * pixel
    affine[:3, 2], affine[:3, 3] = step, middle - step * (count - 1) / 2
    return order, affine


def lean_of(affine: np.ndarray) -> tuple[np.ndarray, float]:
    """How far a slice lies off the one before, in its own plane.

    Returns
    -------
    ndarray of float, shape (2,)
        mm along rows and columns.
    float
        The tilt of the gantry, in degrees; 0 without one.
    """
    axes = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    lean = affine[:3, 2] @ axes
    angle = np.degrees(np.arcsin(min(1.0, np.linalg.norm(lean) / np.linalg.norm(affine[:3, 2]))))
    return (lean, float(angle)) if angle > 1e-4 else (np.zeros(2), 0.0)


def upright(values: np.ndarray, affine: np.ndarray, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """Slices that lean, each shifted within its own plane (linear) onto a larger grid with axes at right angles.

    Parameters
    ----------
    values : ndarray of float, shape (columns, rows, slices)
    affine : ndarray, shape (4, 4)
        As `fitted` gives it.
    fill : float
        What lies outside the slices.

    Returns
    -------
    ndarray of float32, ndarray of shape (4, 4)
        No slice leaves its plane, so that what was drawn on it still fits.
    """
    import SimpleITK as sitk

    lean, angle = lean_of(affine)
    if not angle:
        return values, affine
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    spacing = np.array([*np.linalg.norm(affine[:3, :2], axis=0), affine[:3, 2] @ normal])
    image = sitk.GetImageFromArray(values.astype(np.float32).T)
    image.SetSpacing(spacing.tolist())
    shift = sitk.AffineTransform(3)
    shift.SetMatrix([1, 0, -lean[0] / spacing[2], 0, 1, -lean[1] / spacing[2], 0, 0, 1])
    reach = lean * (values.shape[2] - 1)
    start = np.floor(np.minimum(reach, 0) / spacing[:2] + EXACT)  # whole voxels, so that the first slice stays as it is
    size = np.array(values.shape[:2]) + np.ceil(np.abs(reach) / spacing[:2] - EXACT)
    grid = [int(each) for each in (*size, values.shape[2])]
    origin = [*(start * spacing[:2]), 0.0]
    moved = sitk.Resample(
        image, grid, shift, sitk.sitkLinear, origin, image.GetSpacing(), np.eye(3).ravel(), float(fill)
    )
    straight = affine.copy()
    straight[:3, 2] = normal * spacing[2]
    straight[:3, 3] += affine[:3, :2] @ start
    return sitk.GetArrayFromImage(moved).T, straight


def _alike(directions: np.ndarray, sizes: np.ndarray, pixel: np.ndarray, corner: float) -> None:
    """Refuse slices of another size, spacing or direction than the others have."""
    if len({(rows, columns) for rows, columns, *_ in sizes.tolist()}) > 1:
        raise _bad("slices of several sizes", "one grid", "separate what was put together")
    extents = sizes[:, :2] * sizes[:, 2:]
    if np.ptp(extents, axis=0).max() > TENTH * pixel.min():
        spacings = np.unique(sizes[:, 2])
        found = f"pixels of several sizes ({spacings[0]:.4g} to {spacings[-1]:.4g} mm)"
        raise _bad(found, "one grid", "separate what was put together")
    usual = np.median(directions, axis=0)
    turned = np.abs(directions - usual).max(axis=1)
    if turned.max() * corner > TENTH * pixel.min():
        found = f"slices of several directions (cosines differ by {turned.max():.4f})"
        raise _bad(found, "one grid", "separate what was put together")


def _axes(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows and columns at right angles, their normal, and how unsure each cosine is (0 where they are exact)."""
    given = cosines.reshape(2, 3)
    wrong = np.abs(given @ given.T - np.eye(2)).max()
    if wrong > 0.2:
        raise _bad("direction cosines that are at no right angle", "two unit vectors")
    axes, normal = _upright(np.array([*given, np.cross(*given)]))
    return axes, normal, max(_rounding(cosines), wrong / 4) if wrong > EXACT else 0.0


def _upright(axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows and columns at right angles to each other and to the third axis, which stays."""
    normal = axes[2] / np.linalg.norm(axes[2])
    left, _, right = np.linalg.svd(axes[:2] - np.outer(axes[:2] @ normal, normal), full_matrices=False)
    return left @ right, normal


def _rounding(numbers: np.ndarray) -> float:
    """Half of the last decimal that numbers were written with, one at least."""
    wide = [digits for digits in range(1, 7) if np.abs(numbers - np.round(numbers, digits)).max() < EXACT]
    return 0.5 * 10.0 ** -min(wide, default=7)


def _line(positions: np.ndarray, normal: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The even step of ordered positions, their middle, and how far rounding may move one; or a refusal."""
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if usual < 1e-3 or gaps.min() < TENTH * usual:
        raise _bad("two slices at one place", "one", "separate the phases or echoes, or delete the copy")
    number = np.arange(len(positions)) - (len(positions) - 1) / 2
    middle = positions.mean(axis=0)
    step = number @ positions / (number @ number)
    shortest = min(pixel, usual)
    blur = min(np.sqrt(3) * _rounding(positions), shortest / 4)
    off = np.linalg.norm(positions - middle - np.outer(number, step), axis=1)
    jumps = np.diff(positions, axis=0)
    jumps = np.linalg.norm(jumps - np.median(jumps, axis=0), axis=1)
    allowed = max(TENTH * shortest, 2 * blur) + EXACT
    if (
        off.max() > max(TENTH * shortest, 1.5 * blur) or jumps.max() > allowed
    ):  # as much as rounding was found to make of it
        raise _uneven(positions, gaps, usual, allowed)
    return step, middle, blur


def _uneven(positions: np.ndarray, gaps: np.ndarray, usual: float, allowed: float) -> BadInput:
    """Which slices lie where they should not, judged by a line that a few of them cannot move."""
    if np.abs(gaps - usual).max() > allowed:
        after = int(np.abs(gaps - usual).argmax()) + 1
        found = f"slices {gaps.min():.2f} to {gaps.max():.2f} mm apart (oddly between slices {after} and {after + 1})"
        return _bad(found, f"an even distance of about {usual:.2f} mm", "export the series again, with every slice")
    from scipy.stats import theilslopes

    number = np.arange(len(positions))
    lines = [theilslopes(each, number) for each in positions.T]
    off = np.linalg.norm(positions - np.array([line[1] + line[0] * number for line in lines]).T, axis=1)
    wrong = np.flatnonzero(off > min(allowed, off.max() / 2))
    told = ", ".join(f"slice {one + 1} by {off[one]:.1f} mm" for one in wrong[:NAMED])
    found = f"{len(wrong)} of {len(off)} slices off the line of the others ({told}{' …' if len(wrong) > NAMED else ''})"
    return _bad(found, "one straight stack", "separate what was put together, or export the series again")


def _bad(found: str, expected: str, fix: str = "export the series again") -> BadInput:
    return BadInput(f"{found}, expected {expected}; {fix}")
