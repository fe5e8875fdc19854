"""Which explanation of an image may be trusted: scores against a known cause, and checks that must fail a bad one.

A method is scored on two networks. On the one to be explained: is the map about what was learnt (`weights`, `labels`),
is it about the disease more than about one training (`seeds`), does the output hang on what it marks (`deletion`).
What that network looks at is not known, so where its maps lie (`in_tumour`, `pointing`, `iou`) is shown and decides
nothing: a network may read the tumour, or the brain around it. Whether a map finds a cause is decided on a second
network whose cause is known (`planted`), columns `marker_…`.

What all maps of a method share (a centre, a rim of the brain) counts against it wherever it could count for it:
`weights` and `labels` are the plain rank correlation, and `seeds` must be above that of two unrelated patients.

What this cannot tell: an image with holes is like none that the network was trained on, so that `deletion` holds
some of that shock (Hooker 2019, arXiv:1806.10758), and scores of one method differ between images and baselines
(Tomsett 2020, arXiv:1912.01451). Hence orders are compared on the same blocks, and never by one score alone.
"""

from __future__ import annotations

from copy import copy, deepcopy
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.explain import planted
from survpack.explain.attribution import METHODS, attribute
from survpack.explain.folds import Variant, refitted
from survpack.explain.marks import CONTROLS, iou, pointing, share_over_chance
from survpack.explain.perturbation import effect, orders_scored
from survpack.inference import bootstrap
from survpack.models import Deep, Patients
from survpack.numbers import interval_text, known
from survpack.params import Explain
from survpack.preprocess import CropSet
from survpack.study import TEST_FOLD, Study, fitted

CAUSE = {"mets": ("enhancing", "oedema")}  # labels in whose voxels a phantom's image-only cause is planted


class Rule(NamedTuple):
    """A line that a score's interval must lie beyond; decided before any result was seen.

    Attributes
    ----------
    score : str
    above : bool
        Whether the lower bound must lie above `limit`; else the upper one below it.
    limit : float
    fails : str
        What is said of a method that fails.
    why : str
        Reason and source.
    """

    score: str
    above: bool
    limit: float
    fails: str
    why: str


RULES = (
    Rule("effect", True, 0.1, "to have something to explain",
         "A map is scaled to its greatest value however little the image does, and what a blank image changes for all"
         " alike tells no patient from another. A tenth of the risks' spread is half of what is called a small effect"
         " (Cohen 1988)."),
    Rule("marker_pointing", True, 0.5, "to find a known cause",
         "Where one blob alone moves the answer, the greatest attribution lies on it more often than not"
         " (pointing game, Zhang 2018, doi:10.1007/s11263-017-1059-x)."),
    Rule("weights", False, 0.5, "random weights",
         "A network that learnt nothing must give another map: of one, half of the rank order is no longer there"
         " (Adebayo 2018, arXiv:1810.03292)."),
    Rule("labels", False, 0.5, "shuffled outcomes",
         "A network that learnt other patients' outcomes must give another map (Adebayo 2018, arXiv:1810.03292)."),
    Rule("deletion", True, 0.0, "to beat a random order",
         "What is marked moves the answer more than as many blocks taken at random"
         " (Samek 2017, doi:10.1109/TNNLS.2016.2599820; Petsiuk 2018, arXiv:1806.07421)."),
    Rule("over_unrelated", True, 0.0, "other seeds",
         "Two networks that differ in nothing but the seed agree on a patient more than on two unrelated patients"
         " (repeatability, Arun 2021, doi:10.1148/ryai.2021200267)."),
)  # fmt: skip

# In the table's order: what a score is called, and whether more is better (None: it decides nothing).
SCORES = {
    "effect": ("Effect of the image (SD of risk)", True),
    "in_tumour": ("Share in the lesion over chance", None),
    "pointing": ("Greatest in the planted labels", None),
    "iou": ("Overlap with the planted labels", None),
    "deletion": ("Deletion over random order", True),
    "insertion": ("Insertion over random order", None),
    "weights": ("Alike with random weights", False),
    "labels": ("Alike with shuffled outcomes", False),
    "seeds": ("Alike with other seeds", None),
    "unrelated": ("Alike of unrelated patients", None),
    "over_unrelated": ("Other seeds over unrelated patients", True),
    "marker_in": ("Share in the marker over chance", None),
    "marker_pointing": ("Finds the marker", True),
    "marker_iou": ("Overlap with the marker", None),
}
TRUSTED, NOT = "may be trusted", "may not"
CONTROL = "control"
EVERYBODY = 0.9  # share of patients at least who have a map: what is shown of a few, a bad method can show too
FEWEST = 8  # patients with a score: of fewer, an interval says little, and the score is not tested
COMPARED = 15  # patients whose maps are made of every network: four networks more are what all of this costs


def table(study: Study, model: str, confidence: float | None = None) -> pd.DataFrame:
    """Every method on a network of the study and on one whose cause is known, with the verdict.

    Parameters
    ----------
    study : Study
        Test patients' images are explained; their outcomes are not read.
    model : str
        A network that sees images.
    confidence : float, optional
        `scores.confidence` where not given.

    Returns
    -------
    DataFrame
        A row a method, then the controls: `method`, `kind` ("method" or "control"), each of `SCORES` with `_low`, `_high`
        and `_n` (patients who have it), `shown` and `marker_shown` (share of patients who have a map), `verdict`.
        Attribute `marker_r2`: how well the second network learnt; NaN where it could not be trained.

    Raises
    ------
    BadInput
        As `score`.
    """
    choice, confidence = study.params.explain, confidence or study.params.scores.confidence
    mine = score(study, model, choice=choice, confidence=confidence)
    marker = planted.score(study, model, choice, confidence=confidence)
    both = mine.merge(marker, on="method", how="left")
    both["verdict"] = [verdict(row) for _, row in both.iterrows()]
    both.attrs |= marker.attrs
    return both


def score(study: Study, model: str, *, choice: Explain, confidence: float) -> pd.DataFrame:
    """All scores but those of the marker, a row a method.

    Raises
    ------
    BadInput
        For a model that is no network, or sees no image.
    """
    real = fitted(study, model)
    # an ensemble's members have seeds in a row: the next ensemble starts where they end
    seeds = [Variant(TEST_FOLD, (k + 1) * real.members) for k in range(choice.seeds)]
    variants = [Variant(TEST_FOLD, 0, shuffled=True), *seeds]
    others = refitted(study, model, variants)
    random = randomised(real, choice.seed).settle(study.patients.take(study.development))
    networks = Networks(real, random, others[variants[0]], [others[one] for one in variants[1:]])
    held = study.fold(TEST_FOLD)[1][: choice.scored]
    labels = CropSet.load(study.paths.crops).labels
    patients = study.patients.take(held)
    repeats = study.params.scores.bootstrap
    each = scored(networks, patients, labels, choice, cause=CAUSE.get(study.name))
    return intervals(each, repeats=repeats, confidence=confidence, seed=choice.seed)


class Networks(NamedTuple):
    """A network, and those it is set beside."""

    real: Deep
    random: Deep
    shuffled: Deep
    seeds: list[Deep]


def randomised(model: Deep, seed: int) -> Deep:
    """A network whose weights are dealt out anew within each tensor: the same scales, and nothing of what was learnt.

    All layers at once, the end of Adebayo's cascade (2018). Fresh initial weights would differ in scale too, and the
    first outputs of these networks are near zero by design.
    """
    import torch

    mixed, draw = copy(model), torch.Generator().manual_seed(seed)
    mixed.nets = [deepcopy(net) for net in model.nets]
    with torch.no_grad():
        for weight in (one for net in mixed.nets for one in net.parameters()):
            order = torch.randperm(weight.numel(), generator=draw)
            weight.copy_(weight.detach().cpu().flatten()[order].view(weight.shape))
    return mixed


def scored(
    networks: Networks, patients: Patients, labels: list[str], choice: Explain, *, cause=None, methods=None
) -> dict[str, pd.DataFrame]:
    """Each method's scores, a row a patient; NaN where a patient has no map, or a score is not defined.

    Parameters
    ----------
    networks : Networks
    patients : Patients
        None of whom the networks were trained on.
    labels : list of str
        Of the channels of `patients.masks`.
    choice : Explain
        `steps`, `window`, `seed` are read.
    cause : sequence of str, optional
        Labels in whose voxels the cause lies; without it, `pointing` and `iou` are NaN.
    methods : dict of str to callable, optional
        `(model, patients)` to maps; `attribution.METHODS` where not given.

    Returns
    -------
    dict of method to DataFrame
        Attribute `kind` of each: "method" or "control".
    """
    lesion, causal = patients.masks.max(axis=1) > 0, _of_labels(patients.masks, labels, cause)
    explainers = _explainers(choice) if methods is None else methods
    alike_each, maps = {}, {}
    for method, explain in explainers.items():
        maps[method], alike_each[method] = _explained(
            networks, patients, lambda model, seen, _, how=explain: how(model, seen)
        )
    for control, draw in CONTROLS.items():
        maps[control], alike_each[control] = _explained(
            networks, patients, lambda _, seen, k, how=draw: how(seen, labels, k)
        )
    orders = orders_scored(networks.real, patients, maps, choice.seed)
    found = {}
    for method, own in maps.items():
        near = {} if causal is None else {"pointing": pointing(own, causal), "iou": iou(own, causal)}
        columns = {"in_tumour": share_over_chance(own, lesion)} | near | orders[method] | alike_each[method]
        found[method] = pd.DataFrame(columns, index=patients.outcome.index)
        found[method]["shown"] = np.isfinite(own).all(axis=(1, 2, 3)).astype(float)
        found[method].attrs["kind"] = CONTROL if method in CONTROLS else "method"
    return found


def alike(one: np.ndarray, other: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
    """Spearman's correlation of two maps of each patient, over voxels, shape (n,); NaN where a map is none or flat.

    Parameters
    ----------
    one, other : ndarray, shape (n, x, y, z)
    support : ndarray of bool, shape (x, y, z), optional
        Voxels to compare; a method that can mark three slices only would else be alike on all other voxels.
    """
    where = np.ones(one.shape[1:], bool) if support is None else support
    if not where.any():
        return np.full(len(one), np.nan)
    return (_standing(one[:, where]) * _standing(other[:, where])).sum(axis=1)


def _explained(networks: Networks, patients: Patients, explain) -> tuple[np.ndarray, dict]:
    """Maps of the real network, and how alike those of the others are to them; `explain(model, patients, number)`."""
    some = patients.take(patients.outcome.index[:COMPARED])
    everyone, others = explain(networks.real, patients, 0), [*networks[1:3], *networks.seeds]
    own, others = everyone[:COMPARED], [explain(model, some, k + 1) for k, model in enumerate(others)]
    support = np.any([np.nan_to_num(maps).max(axis=0) > 0 for maps in (own, *others)], axis=0)
    weights, labels, *seeds = (alike(own, maps, support) for maps in others)
    seeds, unrelated = np.mean(seeds, axis=0), alike(own, np.roll(own, 1, axis=0), support)
    similar = {"weights": weights, "labels": labels, "seeds": seeds, "unrelated": unrelated}
    similar |= {"over_unrelated": seeds - unrelated}
    rest = np.full(len(everyone) - len(own), np.nan)
    return everyone, {name: np.r_[each, rest] for name, each in similar.items()}


def _standing(values: np.ndarray) -> np.ndarray:
    """Ranks of each row, centred and of length one; NaN for a row without a map, or with one value only."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=1, nan_policy="propagate").astype(np.float32)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    return ranks / np.where(length > 0, length, np.nan)


def intervals(each: dict[str, pd.DataFrame], *, repeats: int, confidence: float, seed: int, names=None) -> pd.DataFrame:
    """Means over patients with their intervals (BCa, resampling patients), a row a method.

    Parameters
    ----------
    each : dict of method to DataFrame
        As `scored` gives it; of `risk` and `without` their `effect` is made.
    repeats, confidence, seed
        As in `inference.bootstrap`.

    Returns
    -------
    DataFrame
        `method`, `kind`, `shown`, and each column with `_low`, `_high` and `_n` (patients who have the score); NaN
        where none has it.
    """
    rows = []
    for method, frame in each.items():
        shown, columns = float(frame["shown"].mean()), frame.drop(columns="shown")
        kind = frame.attrs.get("kind", "method")
        found = bootstrap(_means(columns), len(frame), repeats=repeats, confidence=confidence, seed=seed, sure=True)
        flat = {f"{name}{end}": one[key] for name, one in found.items() for end, key in _ENDS.items()}
        having = columns.rename(columns={"risk": "effect"}).count()
        flat |= {f"{name}_n": having[name] for name in found}
        rows.append({"method": method, "kind": kind, "shown": shown} | flat)
    return pd.DataFrame(rows).astype({name: float for name in rows[0] if name not in ("method", "kind")})


def verdict(row: pd.Series) -> str:
    """`may be trusted`, or `may not: fails random weights, …`; what could not be tested is not trusted.

    A score that fewer than `FEWEST` patients have is not tested; maps of fewer than `EVERYBODY` fail.

    Parameters
    ----------
    row : Series
        Of `table`: the scores that `RULES` name, with `_low`, `_high` and `_n`, `shown` and `marker_shown`.
    """
    held = {rule: _holds(rule, row) for rule in RULES}
    shown = [row[name] for name in ("shown", "marker_shown") if known(row.get(name))]
    failed = [_TO_SHOW] * any(share < EVERYBODY for share in shown)
    failed += [rule.fails for rule, holds in held.items() if holds is False]
    untested = [SCORES[rule.score][0].lower() for rule, holds in held.items() if holds is None]
    said = [f"fails {', '.join(failed)}"] * bool(failed) + [f"not tested ({', '.join(untested)})"] * bool(untested)
    return TRUSTED if not said else f"{NOT}: {'; '.join(said)}"


def text(found: pd.DataFrame, *, decides: bool = True) -> pd.DataFrame:
    """`table` for a page: a row a method, a column a score, `0.63 (0.57 to 0.69)`.

    Parameters
    ----------
    found : DataFrame
    decides : bool
        The scores of `RULES` and the verdict; else the others, which are shown and decide nothing. The effect of the
        image is one number for all methods, and in neither: `effect_text`.
    """
    ruling = [rule.score for rule in RULES]
    said = {"Method": [_named(row) for _, row in found.iterrows()]}
    for name, (words, _) in SCORES.items():
        if name != "effect" and (name in ruling) == decides and name in found and found[name].notna().any():
            said[words] = [interval_text(_triple(row, name)) or "none" for _, row in found.iterrows()]
    return pd.DataFrame(said | ({"Verdict": found["verdict"].tolist()} if decides else {}))


def effect_text(found: pd.DataFrame) -> str:
    """How far the images set risks apart at all, and how well the second network learnt its marker."""
    first, r2 = found.iloc[0], found.attrs.get("marker_r2")
    holds, change = _holds(RULES[0], first), interval_text(_triple(first, "effect"), 3)
    limit = f"{RULES[0].limit:g}"
    nothing = f", below {limit}: there is nothing to explain"
    perhaps = f", not surely above {limit}: there may be nothing to explain"
    small = "" if holds is not False else nothing if first["effect_high"] < RULES[0].limit else perhaps
    few = ", of too few patients to decide" if holds is None else ""
    moved = (
        f"Without their images, patients' risks change by {change} standard deviations, apart from what all share"
        f"{small}{few}."
        if change
        else "What the images change in patients' risks could not be measured."
    )
    if not known(r2):
        return f"{moved} No network could be trained to find a planted marker."
    learnt = f"learnt it with an R² of {r2:.2f}" if r2 >= planted.LEAST else "did not, so it was not asked"
    return f"{moved} The network that was to learn a planted marker {learnt}."


def rules() -> pd.DataFrame:
    """The rules of the verdict for a page: what must hold, what a method is said to fail, and why."""
    said = [
        {
            "Score": SCORES[rule.score][0],
            "Must be": f"{'above' if rule.above else 'below'} {rule.limit:g}, with its interval",
            "Else": rule.fails,
            "Why": rule.why,
        }
        for rule in RULES
    ]
    everybody = {"Score": "Share of patients with a map", "Must be": f"at least {EVERYBODY:g}", "Else": _TO_SHOW,
                 "Why": "A method that shows a map where it suits and none elsewhere is judged by the rest."}  # fmt: skip
    return pd.DataFrame([everybody, *said])


def as_json(found: pd.DataFrame) -> dict:
    """`{method: {score: {"estimate", "low", "high"}, …, "kind", "verdict"}}`, None where there is no number."""
    return {
        row["method"]: {name: _triple(row, name) for name in SCORES if name in found}
        | {"kind": row["kind"], "verdict": row["verdict"]}
        for _, row in found.iterrows()
    }


_ENDS = {"": "estimate", "_low": "low", "_high": "high"}
_TO_SHOW = "to show a map of nearly everybody"


def _explainers(choice: Explain) -> dict:
    def of(method):
        return lambda model, patients: attribute(model, patients, method, steps=choice.steps, window=choice.window)

    return {method: of(method) for method in METHODS}


def _of_labels(masks: np.ndarray, labels: list[str], cause) -> np.ndarray | None:
    """Voxels of the labels named, shape (n, x, y, z); None where nothing is known to be a cause."""
    channels = [labels.index(name) for name in cause or () if name in labels]
    return masks[:, channels].max(axis=1) > 0 if channels else None


def _means(frame: pd.DataFrame):
    """What `inference.bootstrap` asks for: means of columns under counts of patients, over those with a value.

    `risk` and `without` become their `effect`, which is no mean.
    """
    names = [name for name in frame if name not in ("risk", "without")]
    values = frame[names].to_numpy(float)
    known_, filled = np.isfinite(values).astype(float), np.nan_to_num(values)

    def means(counts: np.ndarray) -> dict:
        weight = counts @ known_
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(weight > 0, counts @ filled / weight, np.nan)
        apart = {"effect": effect(frame["risk"], frame["without"], counts)} if "risk" in frame else {}
        return apart | {name: mean[..., k] for k, name in enumerate(names)}

    return means


def _holds(rule: Rule, row: pd.Series) -> bool | None:
    """None where the score has no interval, or too few patients have it."""
    bound, having = row.get(f"{rule.score}_{'low' if rule.above else 'high'}"), row.get(f"{rule.score}_n")
    if not known(bound) or not known(having) or having < FEWEST:
        return None
    return bool(bound > rule.limit if rule.above else bound < rule.limit)


def _triple(row: pd.Series, name: str) -> dict:
    values = {key: row.get(f"{name}{end}") for end, key in _ENDS.items()}
    return {key: float(value) if known(value) else None for key, value in values.items()}


def _named(row: pd.Series) -> str:
    return f"{WORDS.get(row['method'], row['method'].replace('-', ' ').capitalize())}{' (control)' if row['kind'] == CONTROL else ''}"


WORDS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}
