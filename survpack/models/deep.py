"""`Deep`: the hybrid networks behind `fit` and `predict`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.models.columns import beside, clinical, learn_columns, lesion, prepare_table
from survpack.models.curves import RiskCurve
from survpack.models.patients import Forecast, Patients
from survpack.params import Params, per_cohort
from survpack.paths import ROOT
from survpack.prognosis import day_at

HISTORY = ["member", "epoch", "loss", "inner_loss"]
EXCHANGES = 30  # images of others that a patient is given to see how far the image moves the risk


class Deep:
    """A network, or an average of several from seeds in a row.

    Parameters
    ----------
    encoder : str
        A key of `encoders.ENCODERS`.
    fusion : str
        One of `networks.FUSIONS`.
    objective : str
        A key of `objectives.OBJECTIVES`; what it cannot train on (deaths only, for days) it leaves out.
    params : Params
    masks : bool
        Whether the masks are seen beside the images.
    measured : bool
        Whether the lesion biomarkers of `classical.lesion` are seen beside the chart.
    members : int, optional
        `training.members` where not given.
    """

    def __init__(
        self,
        encoder: str,
        fusion: str,
        objective: str,
        params: Params,
        *,
        masks: bool = True,
        measured: bool = True,
        members: int | None = None,
    ):
        self.encoder, self.fusion, self.objective_name, self.masks = encoder, fusion, objective, masks
        self.choice, self.named = params.training, params.classical.lesion if measured else []
        self.ridge = params.classical.ridge
        self.members = members or self.choice.members
        self.nets: list = []
        self.history = pd.DataFrame(columns=HISTORY)

    @property
    def about(self) -> str:
        seen = {"chart": "dense layers on the chart", "image": f"{self.encoder} on the image alone"}
        network = seen.get(self.fusion, f"{self.encoder} and the chart, fused by `{self.fusion}`")
        several = f", {self.members} of them" if self.members > 1 else ""
        return f"{network}{several}; trained on {self.objective_name}{'' if self.masks else ', without masks'}"

    def fit(
        self, patients: Patients, label: str = "", weights: Path | None = None, checkpoints: Path | None = None
    ) -> Deep:
        """Train; or, given `weights`, load them and relearn only what is around the networks.

        With `checkpoints`, a folder, a fit that was killed goes on from its last epoch.
        """
        from survpack.objectives import OBJECTIVES

        frame = self.frame(patients) if self.fusion == "image" else learn_columns(self.frame, patients, label)
        self.prepare = prepare_table(frame, patients.dictionary).fit(frame) if frame.shape[1] else None
        time, event = patients.outcome["time_days"].to_numpy(float), patients.outcome["event"].to_numpy(bool)
        self.objective = OBJECTIVES[self.objective_name].learn(time, event)
        self.nets = [self._network(patients, member) for member in range(self.members)]
        if weights is None:
            self._train(patients, self.objective.target(time, event), label, checkpoints)
        else:
            self._load(weights)
        output = self.outputs(patients)
        risk = self.objective.risk(output)
        self.usual_risk = float(np.median(risk))
        self.curve = RiskCurve().fit(risk, patients.target) if self._needs_curve(output) else None
        return self

    def predict(self, patients: Patients, times: np.ndarray, without: tuple[str, ...] = ()) -> Forecast:
        """`without`: modalities that are taken away first, as if they had not been scanned."""
        return self.forecast(self.outputs(patients, without), times)

    def forecast(self, output: np.ndarray, times: np.ndarray) -> Forecast:
        """Risk, days and curves from what the networks say, shape (n, outputs)."""
        risk = self.objective.risk(output)
        survival = self.curve.survival(risk, times) if self.curve else self.objective.survival(output, times)
        days = self.objective.days(output)
        return Forecast(risk, day_at(survival, times, 0.5) if days is None else days, survival)

    def outputs(self, patients: Patients, without: tuple[str, ...] = ()) -> np.ndarray:
        """The networks' mean output, shape (n, outputs)."""
        from survpack.training import predict

        samples = self.samples(patients, without)
        return np.mean([predict(net, samples) for net in self.nets], axis=0)

    def frame(self, patients: Patients) -> pd.DataFrame:
        """Chart and lesion biomarkers, before imputation; no column for a network of the image alone."""
        if self.fusion == "image":
            return patients.clinical[[]]
        return beside(clinical(patients), lesion(patients, self.named))

    def samples(self, patients: Patients, without: tuple[str, ...] = ()):
        """`training.Samples`; the target is zeros until a fit sets it."""
        from survpack.training import Samples

        away = np.isin(patients.modalities, without)
        unknown = set(without) - set(patients.modalities)
        if unknown:
            raise BadInput(
                f"{patients.name}: no modality {', '.join(sorted(unknown))} to leave out; choose from "
                f"{', '.join(patients.modalities) or 'none'}."
            )
        target, table = np.zeros((len(patients.outcome), 1), np.float32), self._table(self.frame(patients))
        if self.fusion == "chart":  # no image is augmented that no one looks at
            nothing = np.zeros((len(table), 0, 1, 1, 1), np.float16)
            return Samples(nothing, nothing, patients.present[:, :0], table, target)
        finite = np.isfinite(patients.images).all(axis=(1, 2, 3, 4))
        if not finite.all():
            raise BadInput(
                f"{patients.name}, patient {patients.outcome.index[int(np.argmin(finite))]}: a voxel of the crop is not a "
                "finite number, expected numbers throughout; run stage 02 again, or exclude the patient."
            )
        images = patients.images.copy() if away.any() else patients.images
        images[:, away] = 0
        return Samples(images, patients.masks, patients.present & ~away, table, target)

    def embed(self, patients: Patients) -> np.ndarray:
        """What the networks keep of each image, shape (n, members, …)."""
        from survpack.training import embed

        samples = self.samples(patients)
        return np.stack([embed(net, samples) for net in self.nets], axis=1)

    def fuse(self, embedding: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
        """The risk from image embeddings and the columns of `frame`."""
        return self.objective.risk(self._fused(embedding, frame))

    def exchanged(self, patients: Patients) -> pd.DataFrame:
        """What the networks say of each patient with the own image, and with those of others; outcomes are not read.

        Returns
        -------
        DataFrame
            `patient_id`, `image_of` (whose image and masks were seen), `risk`, and `output`, the mean of the networks'
            numbers. The own image, and those of up to `EXCHANGES` others.
        """
        embedding, frame = self.embed(patients), self.frame(patients)
        ids = frame.index.to_numpy()
        parts = []
        for step in range(min(len(ids), EXCHANGES + 1)):
            output = self._fused(np.roll(embedding, step, axis=0), frame)
            said = {"risk": self.objective.risk(output), "output": output.mean(axis=1)}
            parts.append(pd.DataFrame({"patient_id": ids, "image_of": np.roll(ids, step), **said}))
        return pd.concat(parts, ignore_index=True)

    @property
    def costs(self) -> dict:
        """What the fit took; seconds and speed are of the last training, not of a network that was loaded."""
        parameters = sum(weight.numel() for net in self.nets for weight in net.parameters())
        if self.history.empty:
            return {"parameters": parameters}
        return {
            "parameters": parameters,
            "seconds_a_fit": float(self.history["seconds"].sum()),
            "samples_per_second": float(self.history["samples_per_second"].median()),
            "peak_memory_mb": float(self.history["peak_memory_mb"].max()),
        }

    def save(self, path: Path) -> None:
        from survpack.training import save_weights

        states = {f"{k}.{name}": value for k, net in enumerate(self.nets) for name, value in net.state_dict().items()}
        save_weights(states, path)

    def _load(self, path: Path) -> None:
        from torch import nn

        from survpack.training import load_weights

        load_weights(nn.ModuleList(self.nets), path)

    def _table(self, frame: pd.DataFrame) -> np.ndarray:
        if self.prepare is None:
            return np.zeros((len(frame), 0), np.float32)
        return self.prepare.transform(frame).astype(np.float32)

    def settle(self, patients: Patients) -> Deep:
        """Learn anew what batch norms say, of networks whose weights no training has left; outcomes are not read."""
        from survpack.training import settle_on

        samples = self.samples(patients)
        for net in self.nets:
            settle_on(net, samples, self.choice)
        return self

    def _fused(self, embedding: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
        """The networks' mean output, shape (n, outputs), from image embeddings and the columns of `frame`."""
        from survpack.training import fuse

        table = self._table(frame)
        return np.mean([fuse(net, embedding[:, k], table) for k, net in enumerate(self.nets)], axis=0)

    def _network(self, patients: Patients, member: int):
        from survpack.encoders import load_published
        from survpack.networks import HybridNet
        from survpack.training import seed_everything

        seed_everything(self.choice.seed + member)
        columns = self._table(self.frame(patients)).shape[1]
        shape = (len(patients.modalities), patients.masks.shape[1], columns)
        net = HybridNet(
            self.encoder, self.fusion, *shape, self.objective.outputs, self.choice.dropout, masks=self.masks
        )
        published = self.choice.published.get(self.encoder)
        if published and (ROOT / published).exists():
            load_published(net.encoder, ROOT / published)
        elif published:
            print(f"{published}: not found, so {self.encoder} starts from random weights", file=sys.stderr)
        return net

    def _train(self, patients: Patients, target: np.ndarray, label: str, checkpoints: Path | None) -> None:
        from survpack.training import inner_split, train

        used = self.objective.uses
        samples = self.samples(patients)._replace(target=target).take(np.flatnonzero(used))
        parts = []
        for member, net in enumerate(self.nets):
            if self.fusion == "additive" and self.objective_name.startswith("cox"):
                outer = inner_split(samples.target[:, -1] > 0.5, self.choice.inner_fraction, self.choice.seed + member)[
                    1
                ]
                self._start_line(net, samples.table[outer], patients.target[used][outer])
            history = train(
                net,
                samples,
                self.objective,
                self.choice,
                epochs=per_cohort(self.choice.epochs, self.encoder.removesuffix("-2d")),
                seed=self.choice.seed + member,
                label=f"{label} {member + 1}/{self.members}" if self.members > 1 else label,
                mirror=per_cohort(self.choice.mirror, patients.name),
                checkpoint=checkpoints / f"member-{member}.safetensors" if checkpoints else None,
            )
            parts.append(history.assign(member=member, epoch=history["epoch"] + 1))  # people count from one
        self.history = pd.concat(parts, ignore_index=True)

    def _start_line(self, net, table: np.ndarray, target: np.ndarray) -> None:
        """Start the line on the chart at the ridge Cox: a few hundred steps would not take it there."""
        import torch
        from sksurv.linear_model import CoxPHSurvivalAnalysis

        found = CoxPHSurvivalAnalysis(alpha=self.ridge).fit(table, target).coef_
        with torch.no_grad():
            net.fusion.line.weight.copy_(torch.as_tensor(found)[None])

    def _needs_curve(self, output: np.ndarray) -> bool:
        return self.objective.survival(output[:1], np.array([1.0])) is None
