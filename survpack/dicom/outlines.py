"""The contours of one region as a mask on the grid of an image: which voxels, and in which slices.

In the plane
- Contours of one plane count by even and odd, whatever their direction: a contour within another is a hole, one within
  the hole an island; a keyhole leaves its hole, a loop that crosses itself what it winds round an odd number of times.
  Contours that overlap only partly are united, which is told. Contours are of one plane if they lie less than a tenth of
  a slice apart. One stored twice, whichever way round and from whichever point on, counts once.
- Outlines traced along voxels of this very grid give back the mask that was traced. Where all points of a plane are
  voxel centres (OpenCV, rt-utils), a voxel is of the region that is enclosed or touched. Where they lie on edges of
  voxels or midway between centres (marching squares), one whose centre is enclosed.

Along the slices
- A contour stands for the slab that reaches half way to the next contours above and below which it overlaps; the last
  one reaches as far out as in. A plane where the region was drawn but not this part of it is an end, unless the part was
  left out of every other plane. A lone one is as thick as the region's others are apart, or else the region's planes if
  they are even, or else the structure set's, or else a slice.
- Contours further apart than 2.25 times the region's usual distance are not joined: one plane may be missing between,
  not two. With fewer than four planes no more than three slices (of the series they were drawn on) or 5 mm are bridged,
  unless the planes are even or as far apart as the structure set's; where that keeps planes apart, it is told.
- Outlines traced along voxels stand for their slices alone, unless every second (or third …) slice was traced.

The voxels
- Each voxel has the share of it that the slabs cover. Volume is kept to 1 % and one voxel, by each island for itself.
- Where that keeps it, a slice counts as a whole or not, by the half; else by its share.
- Where that keeps it, a voxel is taken from the half on, which is nearly the rule of the centre. Else each slice takes as
  many as keep it: the fullest, of equally full ones the innermost; what was rounded is carried on.
- What lies outside the image is left out. That is told, and where contours lie at uneven distances.
"""

from __future__ import annotations

import numpy as np

from survpack.errors import BadInput

FLAT = 0.1  # slices that a contour may be tilted over, and that contours of one plane may lie apart
TRACED = 0.05  # voxels that a traced point may lie off its place
POKES = 0.05  # of its area that a contour within another may lie outside
JOINED = 2.25  # usual distances that are bridged
FEW, FEW_SLICES, FEW_MM = 4, 3.0, 5.0  # with fewer planes, no more is bridged
UNEVEN = 1.5  # times as far apart as others
KEPT = 0.01  # of the volume, beside one voxel
FINE = 8  # lines in a voxel, beside those of the outline's own corners
FARTHEST = 5000  # voxels; a region that is larger is in other units
TRACE = 1e-4  # of a voxel
_ROUND = 0.02  # slices that a slab's face may lie off a slice's by rounding


def filled(
    contours: list[np.ndarray],
    affine: np.ndarray,
    shape: tuple[int, int, int],
    where="contours",
    implied: float | None = None,
    told: list[str] | None = None,
    step: float | None = None,
) -> np.ndarray:
    """Contours of one region as a mask on a grid, by the rules above.

    Parameters
    ----------
    contours : list of ndarray, shape (points, 3)
        Closed, in mm, DICOM axes.
    affine : ndarray, shape (4, 4)
        From (column, row, slice) to mm, DICOM axes.
    shape : tuple of 3 ints
    where : str or Path
        What a refusal names.
    implied : float, optional
        Thickness in mm of a contour that stands alone; not believed beyond three slices or 5 mm.
    told : list of str, optional
        Takes what there is to say: contours that overlap, or at uneven distances, parts outside the image.
    step : float, optional
        Distance in mm of the slices they were drawn on; else of the grid's.

    Returns
    -------
    ndarray of bool, of `shape`

    Raises
    ------
    BadInput
        Where contours are not parallel to the slices, or no places within metres.
    """
    mask, backward = np.zeros(shape, dtype=bool), np.linalg.inv(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    outlines = [points @ backward[:3, :3].T + backward[:3, 3] for points in contours if len(points)]
    if not outlines:
        return mask
    if not along(contours, affine):
        raise BadInput(f"{where}: a contour lies across the slices, expected along them; draw it on this series.")
    ends = np.array([[points.min(axis=0), points.max(axis=0)] for points in outlines])
    low, high = np.floor(ends[:, 0].min(axis=0)).astype(int) - 1, np.ceil(ends[:, 1].max(axis=0)).astype(int) + 2
    if (high - low).max() > FARTHEST:
        raise BadInput(
            f"{where}: a region over {FARTHEST} voxels, expected points in mm; export the structure set again."
        )
    heights, planes = _planes(outlines)
    traced = [_traced(points, height) for points, height in zip(planes, heights, strict=True)]
    groups = [_groups(points) for points in planes]
    drawn = zip(groups, traced, strict=True)
    stack = [_voxels(each, kind, low[:2], (high - low)[:2]) for each, kind in drawn]
    step = (step or spacing[2]) / spacing[2]
    few = max(FEW_SLICES * step, FEW_MM / spacing[2]) + FLAT
    along_own = all(traced) and abs(step - 1) < FLAT
    implied = implied / spacing[2] if implied and not along_own else 0.0
    limit = _limit(heights, few, along_own, implied)
    lone = implied if 0 < implied <= few else step
    own = _own(heights, limit, few)
    slabs, gaps = _slabs(heights, stack, limit, own or lone)
    cover, depth, total = _cover(stack, slabs, low, shape)
    told = [] if told is None else told
    if any(len(group) > 1 for each in groups for group in each):
        told.append("contours of one plane overlap partly, taken together; see that none of them is a hole")
    if own and not gaps and own > UNEVEN * step:
        told.append(
            f"contours that overlap no other, each taken as {own * spacing[2]:.1f} mm thick, as planes are apart"
        )
    if few <= limit < np.diff(heights).max(initial=0) and len(heights) < FEW:
        apart = np.diff(heights).max() * spacing[2]
        told.append(f"contours {apart:.1f} mm apart are not joined, as nothing shows that none is missing between them")
    if gaps and max(gaps) > UNEVEN * min(gaps):
        apart = f"{min(gaps) * spacing[2]:.1f} to {max(gaps) * spacing[2]:.1f} mm apart"
        told.append(f"contours {apart}, each taken half way to the next; see that none is missing or off its plane")
    outside = 1 - cover.sum(dtype=float) / max(total, TRACE)
    if outside > KEPT:
        told.append(f"{outside:.0%} of its volume lies outside the image")
    start = np.clip(low[:2], 0, shape[:2])
    mask[start[0] : start[0] + cover.shape[0], start[1] : start[1] + cover.shape[1]] = chosen(cover, spacing, depth)
    return mask


def chosen(cover: np.ndarray, spacing: np.ndarray, depth: np.ndarray | None = None) -> np.ndarray:
    """The voxels that stand for a region, by the share of each that it covers.

    Parameters
    ----------
    cover : ndarray of float, shape (columns, rows, slices)
        0 to 1.
    spacing : ndarray, shape (3,), mm
    depth : ndarray of float, like `cover`, optional
        The share of each voxel's extent across the slices that the region's slabs reach over.

    Returns
    -------
    ndarray of bool
    """
    from scipy.ndimage import find_objects, label

    mask = np.zeros(cover.shape, dtype=bool)
    if not cover.size:  # all of it lies beside the image
        return mask
    whole = cover if depth is None else np.where(depth >= 0.5, cover / np.maximum(depth, 0.5), 0)
    islands, _ = label(cover > TRACE, np.ones((3, 3, 3)))
    for number, box in enumerate(find_objects(islands), 1):
        own = islands[box] == number
        mask[box] |= _kept(cover[box] * own, whole[box] * own, spacing)
    return mask


def levels(heights: np.ndarray) -> np.ndarray:
    """The number of the plane that each height (in slices) belongs to, from the lowest on.

    Contours drawn closer than a tenth of a slice are told from those that are off their plane by being many and even.
    """
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    real = gaps[gaps > FLAT / 5]
    usual = np.quantile(real, 0.9, method="lower") if len(real) > 2 else 1.0
    number = np.empty(len(heights), dtype=int)
    number[order] = np.cumsum([0, *(gaps > np.clip(0.15 * usual, FLAT / 5, FLAT))])
    return number


def along(contours: list[np.ndarray], affine: np.ndarray) -> bool:
    """Whether contours in mm lie along the slices of a grid."""
    across = np.linalg.inv(affine)[2, :3]
    return all(np.ptp(points @ across) <= FLAT for points in contours if len(points))


def _groups(outlines: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Outlines of one plane without those stored twice, which would cancel each other; those that overlap partly together."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    if len(outlines) < 2:
        return [outlines]
    low = np.array([np.floor(points.min(axis=0)).astype(int) - 1 for points in outlines])
    high = np.array([np.ceil(points.max(axis=0)).astype(int) + 2 for points in outlines])
    inside = [_voxels([[points]], None, *box) for points, *box in zip(outlines, low, high - low, strict=True)]
    areas = [share.sum(dtype=float) for share in inside]
    sides = [np.linalg.norm(np.diff(one, axis=0, append=one[:1]), axis=1).sum() for one in outlines]
    kept, partly = [], np.zeros((len(outlines), len(outlines)), dtype=bool)
    for number in range(len(outlines)):
        kept.append(number)
        for one in kept[:-1]:
            start, stop = np.maximum(low[one], low[number]), np.minimum(high[one], high[number])
            if (start >= stop).any():
                continue
            cuts = ((inside[each], *(start - low[each]), *(stop - low[each])) for each in (one, number))
            both = np.minimum(*(share[left:right, top:bottom] for share, left, top, right, bottom in cuts)).sum()
            loose = TRACED * min(sides[one], sides[number])  # area that rounding explains
            beyond = np.array([areas[one], areas[number]]) - both
            if beyond.max() <= loose < both:
                kept.remove(number)
                break
            within = (beyond <= POKES * np.array([areas[one], areas[number]])).any()
            partly[number, one] = not within and min(*beyond, both) > loose
    count, label = connected_components(csr_array(partly[np.ix_(kept, kept)]), directed=False)
    return [[outlines[kept[at]] for at in np.flatnonzero(label == one)] for one in range(count)]


def _planes(outlines: list[np.ndarray]) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Heights of the planes, in slices, and the outlines in each, shape (points, 2)."""
    means = np.array([points[:, 2].mean() for points in outlines])
    number = levels(means)
    heights = np.array([means[number == one].mean() for one in range(number.max() + 1)])
    midway = np.abs(heights % 1 - 0.5) < _ROUND
    heights[midway] = np.floor(heights[midway]) + 0.5 - _ROUND / 2
    return heights, [
        [points[:, :2] for points, at in zip(outlines, number, strict=True) if at == one] for one in range(len(heights))
    ]


def _traced(outlines: list[np.ndarray], height: float) -> str | None:
    """Whether outlines were traced along this grid: through "centres", along "edges", or None."""
    points = np.concatenate(outlines)
    if abs(height - np.rint(height)) > TRACED or np.abs(points * 2 - np.rint(points * 2)).max() > 2 * TRACED:
        return None
    whole = np.abs(points - np.rint(points)).max(axis=1) < TRACED
    steps = np.abs(np.concatenate([np.diff(one, axis=0, append=one[:1]) for one in outlines]))
    straight = (steps.min(axis=1) < 2 * TRACED) | (np.ptp(steps, axis=1) < 2 * TRACED)
    return "centres" if whole.all() else "edges" if straight.all() and not whole.any() else None


def _voxels(groups: list[list[np.ndarray]], traced: str | None, low: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The share of each voxel of a plane that groups of outlines enclose; shape `size`, from voxel `low` on."""
    if traced is None:
        corners = np.concatenate([points for group in groups for points in group])[:, 1]
        even = np.arange(size[1] * FINE + 1) / FINE + low[1] - 0.5
        cuts = np.unique(np.concatenate([corners, even]))  # between two of them every edge is straight
        lines, thickness = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    else:
        groups = [[np.rint(points * 2) / 2 for points in group] for group in groups]
        lines, thickness = low[1] + np.arange(size[1], dtype=float), np.ones(size[1])
    line, across, sign = _crossings(groups, lines)
    row, amount = np.rint(lines[line]).astype(int) - low[1], sign * thickness[line]
    column = (np.floor(across + 0.5) if traced is None else np.ceil(across)).astype(int)
    share = column + 0.5 - across if traced is None else np.ones(len(column))  # of that voxel, beyond the crossing
    begun = np.zeros(size + [1, 0])
    np.add.at(begun, (column - low[0], row), amount * share)
    np.add.at(begun, (column - low[0] + 1, row), amount * (1 - share))
    inside = np.clip(begun.cumsum(axis=0)[:-1], 0, 1).astype(np.float32)
    if traced == "centres":
        touched = np.concatenate([_touched(points) for group in groups for points in group]) - low
        inside[touched[:, 0], touched[:, 1]] = 1
    return inside


def _crossings(groups: list[list[np.ndarray]], lines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where groups of outlines cross lines of constant second coordinate: united in a group, by even and odd among them.

    Returns
    -------
    ndarray of int
        Number of the line, of each crossing.
    ndarray of float
        The first coordinate.
    ndarray of int
        1 where the inside begins, -1 where it ends.
    """
    alone = [group[0] for group in groups if len(group) == 1]
    parts = [_even_odd(*_crossed(alone, lines))[:2]] if alone else []
    for group in groups:
        if len(group) > 1:
            each = [_even_odd(*_crossed([points], lines)) for points in group]
            line, across, sign = (np.concatenate(values) for values in zip(*each, strict=True))
            order = np.lexsort((-sign, across, line))
            line, across, sign = line[order], across[order], sign[order]
            within = sign.cumsum()
            border = np.where(sign > 0, within == 1, within == 0)
            parts.append((line[border], across[border]))
    return _even_odd(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _even_odd(line: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crossings in order, and their signs."""
    order = np.lexsort((across, line))
    line = line[order]
    return line, across[order], 1 - 2 * ((np.arange(len(line)) - np.searchsorted(line, line)) % 2)


def _crossed(outlines: list[np.ndarray], lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the line and first coordinate of each crossing."""
    start = np.concatenate(outlines)
    end = np.concatenate([np.roll(points, -1, axis=0) for points in outlines])
    first = np.searchsorted(lines, np.minimum(start[:, 1], end[:, 1]))
    count = np.searchsorted(lines, np.maximum(start[:, 1], end[:, 1])) - first  # a corner on a line counts once
    edge = np.repeat(np.arange(len(start)), count)
    line = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + first[edge]
    part = (lines[line] - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    return line, start[edge, 0] + part * (end[edge, 0] - start[edge, 0])


def _touched(points: np.ndarray) -> np.ndarray:
    """The voxel centres on an outline whose corners are such; one or two points are an outline, too."""
    points = np.rint(points).astype(int)
    step = np.roll(points, -1, axis=0) - points
    count = np.maximum(np.gcd(*step.T), 1)
    edge = np.repeat(np.arange(len(points)), count)
    number = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return points[edge] + step[edge] // count[edge, None] * number[:, None]


def _limit(heights: np.ndarray, few: float, traced: bool, implied: float) -> float:
    """The distance, in slices, beyond which contours are not joined; `few` where few planes leave it open."""
    gaps = np.diff(heights)
    if not len(gaps):
        return 0.0
    usual = np.quantile(gaps, 0.5, method="lower")
    if traced:
        every = len(gaps) > 1 and usual > 1.5 and np.ptp(gaps) < 2 * TRACED
        return 1.1 * usual if every else 0.0
    sure = len(heights) >= FEW or _even(gaps) or abs(usual - implied) <= FLAT * usual
    return JOINED * usual if sure else min(JOINED * usual, few)


def _even(gaps: np.ndarray) -> bool:
    return len(gaps) > 1 and np.ptp(gaps) <= FLAT * gaps.min()


def _own(heights: np.ndarray, limit: float, few: float) -> float | None:
    """The distance, in slices, of even planes; None where they are uneven, or so few and far that chance may be at work."""
    gaps = np.diff(heights)
    if not _even(gaps) or gaps.max() > limit or (len(heights) < FEW and gaps.max() > few):
        return None
    return float(gaps.mean())


def _slabs(heights: np.ndarray, stack: list[np.ndarray], limit: float, lone: float) -> tuple[list, list[float]]:
    """What each connected part of a plane stands for: (plane, box, part, lower face, upper face); distances joined over."""
    from scipy.ndimage import find_objects, label

    numbered, parts = [], []
    for plane, inside in enumerate(stack):
        labels, count = label(inside > TRACE, np.ones((3, 3)))
        numbered.append(np.where(labels, labels + len(parts), 0))  # from 1 on, through all planes
        parts += [(plane, box, labels[box] == one) for one, box in enumerate(find_objects(labels), 1)]

    def meets(number: int, other: int) -> set[int]:
        plane, box, part = parts[number - 1]
        near = 0 <= other < len(heights) and abs(heights[other] - heights[plane]) <= limit
        return set(np.unique(numbered[other][box][part])) - {0} if near else set()

    def gap(number: int, way: int) -> float | None:
        plane = parts[number - 1][0]
        if meets(number, plane + way):
            return abs(heights[plane + way] - heights[plane])
        further = range(plane + 2 * way, len(heights) if way > 0 else -1, way) if number in alone else ()
        return next((abs(heights[other] - heights[plane]) for other in further if meets(number, other) & alone), None)

    every = range(1, len(parts) + 1)
    alone = {one for one in every if not (meets(one, parts[one - 1][0] - 1) or meets(one, parts[one - 1][0] + 1))}
    gaps = [(gap(one, -1), gap(one, 1)) for one in every]
    joined = [above for _, above in gaps if above]
    usual = float(np.quantile(joined, 0.5, method="lower")) if joined else lone
    slabs = [
        (*part, *_faces(heights[part[0]], below or above or usual, above or below or usual))
        for part, (below, above) in zip(parts, gaps, strict=True)
    ]
    return slabs, joined


def _faces(height: float, below: float, above: float) -> np.ndarray:
    """Where a slab begins and ends; on the face of a slice, where it is off it by no more than rounding."""
    faces = height + np.array([-below, above]) / 2
    near = np.rint(faces - 0.5) + 0.5
    return np.where(np.abs(faces - near) < _ROUND, near, faces)


def _cover(stack: list, slabs: list, low: np.ndarray, shape: tuple) -> tuple[np.ndarray, np.ndarray, float]:
    """The share of each voxel that slabs cover, and of its depth, where they meet the image; and their volume in voxels."""
    start = np.clip(low[:2], 0, shape[:2])
    stop = np.clip(low[:2] + stack[0].shape, start, shape[:2])
    cut = tuple(slice(*pair) for pair in zip(start - low[:2], stop - low[:2], strict=True))
    cover, depth = np.zeros((2, *(stop - start), shape[2]), dtype=np.float32)
    total = 0.0
    for plane, box, part, lower, upper in slabs:
        own = np.zeros_like(stack[plane])
        own[box] = stack[plane][box] * part
        total += own.sum(dtype=float) * (upper - lower)
        for number in range(max(0, int(np.floor(lower + 0.5))), min(shape[2], int(np.ceil(upper + 0.5)))):
            reach = max(0.0, min(upper, number + 0.5) - max(lower, number - 0.5))
            cover[:, :, number] += own[cut] * reach
            depth[:, :, number] += (own[cut] > 0) * reach
    return np.minimum(cover, 1), np.minimum(depth, 1), total


def _kept(cover: np.ndarray, whole: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The voxels of one island; `whole` is its cover by slices that count as a whole or not at all."""
    volume = cover.sum(dtype=float)

    def holds(amount: float) -> bool:
        return amount > 0 and abs(amount - volume) <= 1 + KEPT * volume

    cover = whole if holds(whole.sum(dtype=float)) else cover
    half = cover >= 0.5 - TRACE
    if holds(half.sum()):
        return half
    counts = np.diff(np.rint(cover.sum(axis=(0, 1), dtype=float).cumsum()).astype(int), prepend=0)
    return np.stack([_fullest(cover[:, :, k], count, spacing) for k, count in enumerate(counts)], axis=2)


def _fullest(cover: np.ndarray, count: int, spacing: np.ndarray) -> np.ndarray:
    """The `count` fullest voxels, of equally full ones the innermost."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(cover > TRACE, 1), sampling=spacing[: cover.ndim])
    depth = depth[(slice(1, -1),) * cover.ndim]
    order = np.lexsort((-depth.ravel(), -cover.ravel().round(3)))
    mask = np.zeros(cover.size, dtype=bool)
    mask[order[: max(0, min(count, int((cover > TRACE).sum())))]] = True
    return mask.reshape(cover.shape)
