"""A network whose cause is known, so that a bad explanation can be told from a model that did not learn.

A bright ball is put into one sequence of every crop, off the middle and beside the lesion; how bright it is, is what
the network learns, and no outcome is read. Held-out patients show how well it did. Of them the explanations are scored:
all that moves the answer is the ball, so a map that lies elsewhere is wrong. The same idea on photographs: BAM (Yang and
Kim 2019, arXiv:1907.09701) and spurious markers (Adebayo 2022, arXiv:2212.04629).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.explain.attribution import METHODS, attribute
from survpack.explain.marks import CONTROLS, iou, pointing, share_over_chance
from survpack.models import Deep, Patients, build
from survpack.params import Explain, Params, per_cohort
from survpack.preprocess import CropSet
from survpack.study import TEST_FOLD, Study, fit_digest

RADIUS = 5  # voxels: 515 of them, 1.6 % of a cube of 32, about what a metastasis takes
OFF = 10  # voxels at least from the middle, where every crop has its lesion
BRIGHT = 10.0  # of the brightest, in standard deviations of the sequence: nothing in a scan is like it
LEAST = 0.5  # R2 on held-out crops below which the network has not learnt its cause, and nothing is scored
SHOWN = 0.5  # brightness at least of the balls that explanations are to find
MIDDLE, SPAN = 1000.0, 500.0  # days said of no ball, and taken off for the brightest: a bright one is a high risk
COPIES = 3  # of each development crop, with another ball: the place must not tell the brightness
EPOCHS = 4  # at most: fewer where a profile trains for fewer
BATCH = 8
DRAWS = 200  # places tried for a ball that touches no lesion


class Marked(NamedTuple):
    """Patients with a ball each, where it is, and how bright it is (0 to 1)."""

    patients: Patients
    ball: np.ndarray
    bright: np.ndarray


def score(study: Study, encoder: str, choice: Explain, *, confidence: float | None = None) -> pd.DataFrame:
    """Do the explanations of a network find the one thing it learnt? A row a method and control.

    Parameters
    ----------
    study : Study
        Its crops are used, and nothing else of its patients.
    encoder : str
        A key of `encoders.ENCODERS`, or a model of the study, whose encoder is meant.
    choice : Explain

    Returns
    -------
    DataFrame
        `method`, and `marker_in` (share of attribution in the ball over chance), `marker_pointing`, `marker_iou`, each
        with `_low`, `_high` and `_n`, and `marker_shown`; of patients who have the marked sequence. All NaN where the
        network did not learn its cause, or could not be trained. Attribute `marker_r2`, then NaN in the latter case.
    """
    from survpack.explain.faithfulness import intervals

    if encoder in study.params.models:
        encoder = build(encoder, study.params).encoder
    nothing = dict.fromkeys(("marker_in", "marker_pointing", "marker_iou", "shown"), [np.nan])
    each = {method: pd.DataFrame(nothing) for method in [*METHODS, *CONTROLS]}
    try:
        pen = pen_of(study.patients.take(study.development))
        held = study.patients.take(study.fold(TEST_FOLD)[1])
        held = held.take(held.outcome.index[held.present[:, pen.sequence]][: choice.scored])
        if held.outcome.empty:
            raise BadInput(f"{study.name}: no test patient has the sequence that most have, expected some.")
        network = learnt(study, encoder, choice)
        r2 = found_again(network, marked(held, choice.seed + 1, COPIES, pen=pen))
        if r2 >= LEAST:
            seen = marked(held, choice.seed + 2, least=SHOWN, pen=pen)
            each = scored(network, seen.patients, seen.ball, CropSet.load(study.paths.crops).labels, choice)
    except BadInput:  # no sequence, no room, nobody to learn from: what was not tried is not held against a method
        r2 = np.nan
    table = intervals(
        each,
        repeats=study.params.scores.bootstrap,
        confidence=confidence or study.params.scores.confidence,
        seed=choice.seed,
    )
    table = table.drop(columns="kind").rename(columns={"shown": "marker_shown"})
    if not r2 >= LEAST:
        table[[name for name in table if name != "method"]] = np.nan
    table.attrs["marker_r2"] = r2
    return table


def scored(
    network: Deep, patients: Patients, ball: np.ndarray, labels: list[str], choice: Explain, methods=None
) -> dict[str, pd.DataFrame]:
    """Each method's and control's scores against the ball, a row a patient; `methods` as in `faithfulness.scored`."""

    def of(method):
        return lambda model, seen: attribute(model, seen, method, steps=choice.steps, window=choice.window)

    explainers = {method: of(method) for method in METHODS} if methods is None else methods
    maps = {method: explain(network, patients) for method, explain in explainers.items()}
    maps |= {control: draw(patients, labels, 0) for control, draw in CONTROLS.items()}
    return {
        method: pd.DataFrame({
            "marker_in": share_over_chance(own, ball),
            "marker_pointing": pointing(own, ball),
            "marker_iou": iou(own, ball),
            "shown": np.isfinite(own).all(axis=(1, 2, 3)).astype(float),
        }, index=patients.outcome.index)
        for method, own in maps.items()
    }  # fmt: skip


class Pen(NamedTuple):
    """Where a ball is drawn, and how bright: the same for those who are learnt from and those who are held out."""

    sequence: int
    brightest: float


def pen_of(patients: Patients) -> Pen:
    """The sequence that most of the training patients have, and `BRIGHT` of its standard deviations.

    Raises
    ------
    BadInput
        Where nobody has an image.
    """
    if not patients.present.any():
        raise BadInput(
            f"{patients.name}: no sequence to put a marker into, expected an image; explain a cohort of scans."
        )
    sequence = int(patients.present.mean(axis=0).argmax())
    seen = patients.images[patients.present[:, sequence], sequence]
    return Pen(sequence, BRIGHT * float(seen.astype(np.float32).std()))


def marked(patients: Patients, seed: int, copies: int = 1, least: float = 0.0, *, pen: Pen | None = None) -> Marked:
    """Each patient, several times over, with a ball of random place and brightness, from `least` to 1; only images and masks are kept.

    Parameters
    ----------
    patients : Patients
    seed, copies, least
    pen : Pen, optional
        `pen_of` the training patients; of `patients` where not given.

    Raises
    ------
    BadInput
        Where nobody has an image, and for cubes too small for a ball off the middle.
    """
    pen = pen or pen_of(patients)
    side = min(patients.images.shape[2:])
    if side < 2 * RADIUS + 2 or np.sqrt(3) * (side / 2 - RADIUS) < OFF:
        raise BadInput(
            f"{patients.name}: crops of {side} voxels a side have no room for a marker, expected 32 or more."
        )
    rng = np.random.default_rng(seed)
    ids = (
        [f"{one}/{k}" for k in range(copies) for one in patients.outcome.index]
        if copies > 1
        else patients.outcome.index
    )
    patients = patients.take([*patients.outcome.index] * copies)
    images, has = patients.images.copy(), patients.present[:, pen.sequence]
    bright = np.where(has, rng.uniform(least, 1.0, len(images)), 0.0)
    ball = np.stack([_ball(rng, mask.max(axis=0) > 0) for mask in patients.masks])
    for image, own, value in zip(images[:, pen.sequence], ball, bright, strict=True):
        image[own] = pen.brightest * value  # the darkest is zeros, which is nothing
    ids = pd.Index(ids, name="patient_id")
    outcome = pd.DataFrame({"site": "", "time_days": MIDDLE - SPAN * bright, "event": True}, index=ids)
    empty = dict.fromkeys(("clinical", "biomarkers", "shuffled", "noise"), pd.DataFrame(index=ids))
    nobody = patients.perturbed.iloc[:0]
    return Marked(replace(patients, images=images, outcome=outcome, perturbed=nobody, **empty), ball, bright)


def learnt(study: Study, encoder: str, choice: Explain) -> Deep:
    """A network of the image alone, trained on marked development crops; its weights are kept in `remembered`."""
    train = marked(study.patients.take(study.development), choice.seed, COPIES).patients
    digest = hashlib.sha256(Path(__file__).read_bytes() + f"{choice.seed}{encoder}".encode())
    digest.update(fit_digest(study, encoder).encode())
    file = study.paths.remembered / "explained" / f"marker-{encoder}-{digest.hexdigest()[:12]}.safetensors"
    network = bare(encoder, study.params)
    if file.exists():
        return network.fit(train, weights=file)
    network.fit(train, label=f"{study.name} {encoder}, a marker")
    network.save(file)
    return network


def bare(encoder: str, params: Params) -> Deep:
    """The network before it is trained: image alone, days by squared error, nothing that would hide the ball."""
    network = Deep(encoder, "image", "mse", params, measured=False, members=1)
    still = dict.fromkeys(type(network.choice.augment).model_fields, 0.0)
    changed = {
        "epochs": {"other": min(EPOCHS, per_cohort(params.training.epochs, encoder.removesuffix("-2d")))},
        "batch_size": BATCH,
        "dropout": 0.0,
        "weight_decay": 0.0,
        "inner_fraction": 0.0,
        "mirror": {"other": False},
        "published": {},
        "augment": network.choice.augment.model_copy(update=still),
    }
    network.choice = network.choice.model_copy(update=changed)
    return network


def found_again(network: Deep, held: Marked) -> float:
    """R2 of the ball's brightness, of patients whom the network was not trained on."""
    said = (MIDDLE - network.objective.days(network.outputs(held.patients))) / SPAN
    return float(1 - ((said - held.bright) ** 2).sum() / ((held.bright - held.bright.mean()) ** 2).sum())


def _ball(rng: np.random.Generator, lesion: np.ndarray) -> np.ndarray:
    """A ball off the middle; of the places tried, the first that touches no lesion, else that which touches it least."""
    grid, best, least = np.indices(lesion.shape), None, np.inf
    for _ in range(DRAWS):
        middle = np.array([rng.integers(RADIUS, size - RADIUS) for size in lesion.shape])
        if np.linalg.norm(middle - np.array(lesion.shape) / 2) < OFF:
            continue
        ball = ((grid - middle[:, None, None, None]) ** 2).sum(axis=0) <= RADIUS**2
        touched = (ball & lesion).sum()
        if touched < least:
            best, least = ball, touched
        if not least:
            break
    return best
