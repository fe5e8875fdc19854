"""Whether one scan lies under two ids, also rescaled, flipped, shifted or noisy; and whether scans tell the outcome.

Pairs are compared as the networks see them: crops, band-passed, so that anatomy that all share counts for little.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from survpack.gate.closeness import closest
from survpack.gate.found import Found, judged, untested
from survpack.gate.identity import sides

MASK = "mask"
SIDE = 32  # voxels a side at which crops are compared
# Different patients at most: sts 0.82, mets 0.88, and 0.91 where a crop of mets spans the head, on one template.
# A copy: with noise of a third 0.92, turned by 5 degrees 0.88, moved by half a voxel 0.90, by whole ones 0.99.
NEAR = 0.9  # correlation once aligned, in most modalities
ALONE = 0.95  # in one of them, or in the only one
MASKS = 0.98  # of masks alone: two round tumours of KiTS19 reach 0.93
DRAWN = 300  # voxels of a mask, below which it is like many others
FILLED = 0.9  # share of the cube, above which it is too: a tumour larger than the cube has no outline in it
CANDIDATES = 40  # pairs of a modality that are looked at in full, after a coarse look at all
FAINT = 0.4  # coarse correlation below which a pair is not looked at in full
BAND = (0.7, 2.5)  # voxels: finer is noise, coarser is anatomy
VOXEL = 0.8  # correlation of one voxel with the outcome; clean cohorts at most: mets 0.39, sts 0.64, kits 0.42
SPREADS = 7  # standard errors that the best of a hundred thousand voxels stays under
FLIPS = [axes for many in range(4) for axes in combinations((1, 2, 3), many)]
OF_THEIR_OWN = ("a scan of its own each", "find out whose it is, and remove the other or the patient listed twice")


def identity_checks(crops, splits: pd.DataFrame, hashes: pd.DataFrame | None) -> list[Found]:
    """`one scan a patient`, exactly; and `no near copy of a scan`."""
    volumes = volumes_of(crops)
    same = _same_voxels(crops.patient_ids, volumes)
    near = {} if len(crops.patient_ids) < 2 else near_copies(crops.patient_ids, volumes)
    if hashes is not None and len(hashes):
        from survpack.overlap import duplicates

        for row in duplicates(hashes).itertuples():
            kind = same if row.how == "same voxels" else near
            kind.setdefault((row.patient_id, row.other_patient_id), f"{row.modality}, the whole scan")
    near = {pair: what for pair, what in near.items() if pair not in same}
    seen = f"{len(crops.patient_ids)} patients"
    if not volumes and not same and not near:
        return [untested(name, "nobody was imaged") for name in ("one scan a patient", "no near copy of a scan")]
    return [
        judged("one scan a patient", _told(same, splits), _both(same), f"{seen}, no scan twice", *OF_THEIR_OWN),
        judged("no near copy of a scan", _told(near, splits), _both(near), f"{seen}, no two alike", *OF_THEIR_OWN),
    ]


def outcome_check(crops, outcome: pd.DataFrame) -> Found:
    """No voxel, and no plain number of an image such as its corner or its brightest voxel, tells the outcome."""
    name, expected = "no outcome in the scans", "images that know nothing of what came after"
    fix = "look at these voxels: burnt-in text, a mark of the archive, or another scanner for the dead; mask it"
    rows = [crops.patient_ids.index(one) for one in outcome.index if one in crops.patient_ids]
    outcome = outcome[outcome.index.isin(crops.patient_ids)]
    images = crops.images[rows].astype(np.float32)
    if not images.shape[1] or len(outcome) < 10:
        return untested(name, "no images, or too few patients, to tell")
    wrong, most = [], 0.0
    for modality, values in zip(crops.modalities, images.swapaxes(0, 1), strict=True):
        place, found = _loudest_voxel(values, outcome)
        most = max(most, found)
        if found > _most_by_chance(len(outcome)):
            wrong.append(f"{modality}, voxel {place} follows the outcome (correlation {found:.2f})")
    numbers = {f"{modality}, {what}": value for k, modality in enumerate(crops.modalities)
               for what, value in _plain_numbers(images[:, k], crops.masks[rows]).items()}  # fmt: skip
    wrong += closest(pd.DataFrame(numbers, index=outcome.index), outcome)[0]
    return judged(name, wrong, (), f"no voxel correlates above {most:.2f} with time or event", expected, fix)


def volumes_of(crops) -> dict[str, np.ndarray]:
    """Crops by modality; where nothing but masks was read, those with an outline to tell. Shape (patients, x, y, z)."""
    if crops.modalities:
        return {name: crops.images[:, k].astype(np.float32) for k, name in enumerate(crops.modalities)}
    if not crops.masks.shape[1]:
        return {}
    masks = crops.masks.sum(axis=1, dtype=np.float32)
    drawn = (masks > 0).sum(axis=(1, 2, 3))
    telling = (drawn >= DRAWN) & (drawn <= FILLED * masks[0].size)
    return {MASK: masks * telling[:, None, None, None]}


def near_copies(ids: list[str], volumes: dict[str, np.ndarray]) -> dict[tuple[str, str], str]:
    """Pairs of patients whose scans are alike in most of their modalities, or very much so in one."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for modality, values in volumes.items():
        kept = np.flatnonzero(np.ptp(values.reshape(len(values), -1), axis=1) > 0)
        for one, other, correlation in aligned(_bands(values[kept]), CANDIDATES):
            if correlation >= (MASKS if modality == MASK else NEAR):
                found.setdefault((ids[kept[one]], ids[kept[other]]), {})[modality] = correlation
    return {
        pair: ", ".join(f"{modality} {value:.2f}" for modality, value in alike.items()) + " once aligned"
        for pair, alike in found.items()
        if len(alike) >= max(2, len(volumes) // 2 + 1) or max(alike.values()) >= ALONE
    }


def aligned(bands: np.ndarray, candidates: int) -> list[tuple[int, int, float]]:
    """Pairs whose coarse volumes are most alike over flips and shifts, and their correlation in full once aligned."""
    n = len(bands)
    if n < 2:
        return []
    coarse = bands.reshape(n, 16, 2, 16, 2, 16, 2).mean(axis=(2, 4, 6))
    core = _unit(coarse[:, 2:-2, 2:-2, 2:-2])
    best, how = np.full((n, n), -1.0, np.float32), np.zeros((n, n), int)
    moves = list(product(FLIPS, product((-1, 0, 1), repeat=3)))
    for number, (flip, shift) in enumerate(moves):
        alike = core @ _unit(_moved(np.flip(coarse, flip), shift, 2)).T
        better = alike > best
        best[better], how[better] = alike[better], number
    one, other = np.triu_indices(n, 1)
    order = np.argsort(-best[one, other], kind="stable")[:candidates]
    pairs = [(one[k], other[k]) for k in order if best[one[k], other[k]] > FAINT]
    return [(a, b, _in_full(bands[a], bands[b], *moves[how[a, b]])) for a, b in pairs]


def _in_full(one: np.ndarray, other: np.ndarray, flip: tuple, shift: tuple) -> float:
    """Best correlation of two volumes, the second flipped and moved by twice the coarse shift, give or take two."""
    margin = 5
    core = _unit(one[None, margin:-margin, margin:-margin, margin:-margin])
    flipped = np.flip(other[None], flip)
    moves = product(*[range(max(2 * k - 2, -margin), min(2 * k + 2, margin) + 1) for k in shift])
    return max(float(core[0] @ _unit(_moved(flipped, move, margin))[0]) for move in moves)


def _moved(volumes: np.ndarray, shift: tuple, margin: int) -> np.ndarray:
    size = volumes.shape[1]
    return volumes[(slice(None), *(slice(margin + k, size - margin + k) for k in shift))]


def _bands(values: np.ndarray) -> np.ndarray:
    """Between the two widths of BAND, at SIDE voxels a side."""
    step = values.shape[1] // SIDE
    small = values.reshape(len(values), SIDE, step, SIDE, step, SIDE, step).mean(axis=(2, 4, 6))
    fine, wide = (gaussian_filter(small, (0, width, width, width), mode="nearest") for width in BAND)
    return fine - wide


def _unit(volumes: np.ndarray) -> np.ndarray:
    """Each as a row of mean 0 and length 1."""
    rows = volumes.reshape(len(volumes), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)


def _same_voxels(ids: list[str], volumes: dict[str, np.ndarray]) -> dict[tuple[str, str], str]:
    found = {}
    for modality, values in volumes.items():
        digests: dict[bytes, str] = {}
        for patient, volume in zip(ids, values, strict=True):
            if np.ptp(volume) > 0:
                first = digests.setdefault(sha256(volume.tobytes()).digest(), patient)
                if first != patient:
                    found.setdefault((first, patient), f"{modality}, voxel for voxel")
    return found


def _told(pairs: dict, splits: pd.DataFrame) -> list[str]:
    side = sides(splits).groupby(level=0).first()
    return [
        f"{one} ({side.get(one, 'no split')}) and {other} ({side.get(other, 'no split')}) are one scan ({what})"
        for (one, other), what in pairs.items()
    ]


def _both(pairs: dict) -> list[str]:
    return [one for pair in pairs for one in pair]


def _loudest_voxel(values: np.ndarray, outcome: pd.DataFrame) -> tuple[tuple, float]:
    """The voxel that correlates most with time, its logarithm, its rank, or the event; and how much."""
    time = outcome["time_days"].to_numpy(float)
    targets = np.stack([time, np.log(time.clip(1)), rankdata(time), outcome["event"].to_numpy(float)])
    found = np.abs(_unit(targets) @ _unit(values.reshape(len(values), -1).T).T).max(axis=0)
    place = np.unravel_index(int(found.argmax()), values.shape[1:])
    return tuple(int(k) for k in place), float(found.max())


def _most_by_chance(patients: int) -> float:
    return max(VOXEL, float(np.tanh(SPREADS / np.sqrt(patients - 3))))


def _plain_numbers(values: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of each image that no biology is behind: its least, its most, its corners, and what is outside labels."""
    ends = (slice(0, 3), slice(-3, None))
    corners = {f"corner {''.join('-+'[k] for k in where)}": values[(slice(None), *(ends[k] for k in where))]
               for where in product((0, 1), repeat=3)}  # fmt: skip
    numbers = {name: corner.mean(axis=(1, 2, 3)) for name, corner in corners.items()}
    outside = np.ma.array(values, mask=masks.any(axis=1)).mean(axis=(1, 2, 3)).filled(np.nan)
    return {"least": values.min(axis=(1, 2, 3)), "most": values.max(axis=(1, 2, 3)), **numbers, "outside": outside}
