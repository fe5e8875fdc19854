"""A trained network as numbers, and a network that predicts from them: nothing is learnt again, no patient is needed."""

from __future__ import annotations

import numpy as np

from survpack.deploy.columns import Columns
from survpack.errors import BadInput

LEARNED = ("mean", "sd", "cuts", "baseline", "outputs")  # numbers of an `objectives.Objective`; never a patient's
SAME = 1e-4  # how far what a network says may lie from what it said when it was bundled, of its size
MOST = {"members": 100, "modalities": 100, "labels": 1000, "columns": 10_000, "outputs": 1000}
LARGEST_CUBE = 512  # voxels a side
PROBED = 2  # charts that are probed: the typical patient's, and an empty one


class Curve:
    """`models.RiskCurve` from its numbers, without scikit-survival.

    Parameters
    ----------
    numbers : dict
        Of `of`: `mean`, `sd`, `slope`, and Breslow's baseline: `times`, the exact days of all deaths in training, and
        `baseline` survival.
    """

    def __init__(self, numbers: dict):
        self.numbers = {name: numbers[name] for name in ("mean", "sd", "slope", "times", "baseline")}
        self._times, self._baseline = (np.array(numbers[name], float) for name in ("times", "baseline"))

    @classmethod
    def of(cls, curve) -> Curve:
        """From a fitted RiskCurve; days on which nobody died, where its curve is flat, are left out."""
        known = curve.breslow.baseline_survival_
        steps = np.diff(known.y, prepend=1.0) < 0
        numbers = {"mean": curve.mean, "sd": curve.sd, "slope": curve.slope}
        return cls(numbers | {"times": known.x[steps].tolist(), "baseline": known.y[steps].tolist()})

    def survival(self, risk: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Event-free probability, shape (n, times)."""
        scaled = (np.asarray(risk, float) - self.numbers["mean"]) / self.numbers["sd"]
        baseline = np.r_[1.0, self._baseline][np.searchsorted(self._times, times, side="right")]
        return baseline ** np.exp(self.numbers["slope"] * scaled)[:, None]


def numbers(model, train) -> dict:
    """`network`, `columns`, `objective`, `curve` and `usual_risk` of a fitted `models.Deep`, ready for JSON.

    Parameters
    ----------
    model : models.Deep
    train : models.Patients
        Whom it was fitted to; only the number of their modalities and labels is read.
    """
    columns = Columns.learned(model.prepare) if model.prepare else None
    known = vars(model.objective) | {"outputs": model.objective.outputs}
    learned = {name: np.asarray(known[name]).tolist() for name in LEARNED if name in known}
    return {
        "network": {
            "encoder": model.encoder, "fusion": model.fusion,
            "modalities": len(train.modalities), "labels": int(train.masks.shape[1]),
            "columns": len(columns.kept) if columns else 0, "outputs": int(model.objective.outputs),
            "members": model.members, "masks": model.masks,
        },
        "columns": columns and columns.as_json(),
        "objective": {"name": model.objective_name, "numbers": learned},
        "curve": model.curve and Curve.of(model.curve).numbers,
        "usual_risk": model.usual_risk,
    }  # fmt: skip


def network(content: dict, params, state: dict):
    """A `models.Deep` that predicts, from a bundle's JSON and its weights.

    Parameters
    ----------
    content : dict
        Of `numbers`, with the bundle's `schema`.
    params : Params
    state : dict of str to Tensor
        `<member>.<parameter>`.

    Raises
    ------
    BadInput
        For an encoder, a fusion or an objective that there is not, and for weights of another network.
    """
    from survpack.models.deep import Deep

    told = content["network"]
    for name, most in MOST.items():  # before memory is asked for
        if not (isinstance(told[name], int) and 0 <= told[name] <= most):
            raise BadInput(f"bundle: network.{name} is {told[name]!r}, expected 0 to {most}; make the bundle again.")
    model = Deep(
        told["encoder"],
        told["fusion"],
        content["objective"]["name"],
        params,
        masks=told["masks"],
        members=told["members"],
    )
    model.named = list(content["schema"]["measured"])
    model.prepare = Columns.from_json(content["columns"]) if content["columns"] else None
    model.objective = _objective(content["objective"], told["outputs"])
    model.curve = Curve(content["curve"]) if content["curve"] else None
    model.usual_risk = content["usual_risk"]
    model.nets = _nets(told, params.training.dropout, state)
    return model


def probe(model, told: dict, frame: dict, size: int) -> dict:
    """What a network and its table say of made-up input: waves for scan and mask, the typical and an empty chart.

    Parameters
    ----------
    model : models.Deep
    told : dict
        The bundle's `network`.
    frame : dict
        The typical patient's column to value.
    size : int
        Voxels a side of the cube.
    """
    import pandas as pd

    from survpack.training import Samples, predict

    if not 0 < size <= LARGEST_CUBE:
        raise BadInput(
            f"bundle: a cube of {size} voxels a side, expected {LARGEST_CUBE} at most; make the bundle again."
        )
    away = told["fusion"] == "chart"
    shape = (
        [(PROBED, 0, 1, 1, 1)] * 2 if away else [(PROBED, told[one], *[size] * 3) for one in ("modalities", "labels")]
    )
    images, masks = _wave(shape[0]), (_wave(shape[1]) > 0.5).astype(np.float16)
    present = np.ones(shape[0][:2], bool)
    table = _wave((PROBED, told["columns"])).astype(np.float32)
    said = [predict(net, Samples(images, masks, present, table, table[:, :0])) for net in model.nets]
    charts = pd.DataFrame([frame, dict.fromkeys(frame)]).astype({name: object for name in frame})
    prepared = model.prepare.transform(charts) if model.prepare else np.zeros((PROBED, 0))
    return {"size": size, "network": np.mean(said, axis=0).astype(float).tolist(), "table": prepared.tolist()}


def require_same(told: dict, now: dict) -> None:
    """Raise BadInput where a probe says other than it did."""
    for part in ("network", "table"):
        before, after = (np.array(one[part], float) for one in (told, now))
        off = np.inf if before.shape != after.shape else np.abs(before - after).max(initial=0)
        if not off <= SAME * max(np.abs(before).max(initial=0), 1.0):
            raise BadInput(
                f"bundle: its {part} says {off:.1g} other than when it was made, expected the same to {SAME:g}; it was "
                "made by another version of survpack or its libraries: install that one, or make the bundle again."
            )


def _nets(told: dict, dropout: float, state: dict) -> list:
    """Networks with their weights; what random numbers their making draws, the caller does not notice."""
    import torch

    from survpack.networks import HybridNet

    given = [told[name] for name in ("encoder", "fusion", "modalities", "labels", "columns", "outputs")]
    with torch.random.fork_rng(devices=[]):
        nets = torch.nn.ModuleList(HybridNet(*given, dropout, masks=told["masks"]) for _ in range(told["members"]))
    expected = {name: value.shape for name, value in nets.state_dict().items()}
    if expected != {name: value.shape for name, value in state.items()}:
        raise BadInput("bundle: the weights are not of the network that bundle.json tells of; make the bundle again.")
    nets.load_state_dict(state)
    return list(nets.eval())


def _objective(told: dict, outputs: int):
    from survpack.objectives import OBJECTIVES

    if told["name"] not in OBJECTIVES:
        raise BadInput(
            f"bundle: there is no objective `{told['name']}`, expected one of {', '.join(OBJECTIVES)}; it was made by "
            "another version of survpack: install that one."
        )
    made = object.__new__(OBJECTIVES[told["name"]])  # what it learns of patients is given
    made.uses = np.zeros(0, bool)
    for name in set(told["numbers"]) & set(LEARNED):
        number = told["numbers"][name]
        setattr(made, name, np.array(number, float) if isinstance(number, list) else number)
    made.outputs = outputs
    return made


def _wave(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between -1 and 1 that depend on nothing but their place."""
    return np.sin(np.arange(np.prod(shape)) * 0.37 + 0.1).reshape(shape).astype(np.float16)
