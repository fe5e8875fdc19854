"""Does another cohort's encoder help? Learning curves of networks from scratch, frozen and fine-tuned.

Every fit is cross-validated on the study's folds: of a fold's training patients the first n of one order, so that the
larger set contains the smaller. Held-out patients of a fold are seen by nothing that predicts them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from survpack import pretraining, training
from survpack.inference import bootstrap, family, shown
from survpack.metrics import concordance
from survpack.models import build, prepare_table
from survpack.networks import HybridNet
from survpack.numbers import interval_text
from survpack.objectives import Cox
from survpack.parallel import in_parallel
from survpack.params import Training
from survpack.pretraining import load_encoder, mirrored, new_encoder, places, samples_of, sources_of
from survpack.study import TEST_FOLD, Study, fit_digest
from survpack.training import Samples

COMPONENTS = 8  # of a frozen encoder's vectors, that a Cox model reads
QUICK = 5.0  # times faster than the image's weights the line learns: it starts at nothing, and there are few steps
RATE = 0.004  # highest learning rate: steps are few
RANDOM = "random"  # a source that has learnt nothing: the control of a frozen encoder
ENDS = {"estimate": "", "low": "_low", "high": "_high"}  # of an interval, and how its columns end
COLUMNS = ["cohort", "way", "source", "chart", "size", "patients", "fold", "patient_id", "risk"]


class Arm(NamedTuple):
    """One way to learn from few patients."""

    way: str  # scratch, frozen, fine-tuned; "chart" without an image; "multi-task" with all cohorts
    source: str = ""  # the cohort that the encoder comes from


class Both(nn.Module):
    """A network on the travelling encoder that says two risks: of the image alone, and with a line on the chart.

    The line starts flat (wide and deep, Cheng 2016). Trained together the two cost half of what two networks do.
    """

    def __init__(self, modalities: int, columns: int, dropout: float):
        super().__init__()
        self.image = HybridNet(pretraining.ENCODER, "gated", modalities, pretraining.LABELS, 1, 1, dropout)
        self.line = nn.Linear(columns, 1, bias=False)
        nn.init.zeros_(self.line.weight)

    def forward(self, image, mask, table, present) -> torch.Tensor:
        """Risks (n, 2)."""
        risk = self.image(image, mask, table.new_zeros(len(table), 1), present)  # a chart that is the same for everyone
        return torch.cat([risk, risk + self.line(QUICK * table)], dim=1)


class BothCox(Cox):
    """The sum of the two heads' Cox losses."""

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return sum(super(BothCox, self).loss(output[:, [head]], target) for head in range(2))


# --- learning curves ---------------------------------------------------------------------------------------------


def learning_curves(study: Study) -> pd.DataFrame:
    """Out-of-fold risks of every way to learn, from the first n of each fold's training patients.

    A finished fold is a file named for all that it depends on; a run that was killed goes on after it.

    Returns
    -------
    DataFrame
        `COLUMNS`. `size` is the number asked for, `patients` that which the fold has; an asked number is left out
        where a smaller one already takes everyone.
    """
    samples, parts = samples_of(study), []
    name = f"{digest([study])}.parquet"
    for fold in folds(study):
        place = study.paths.fits("transfer") / f"fold-{fold}-{name}"
        if not place.exists():
            study.save_table(place, _fold_curves(study, samples, fold))
        parts.append(pd.read_parquet(place))
    rmtree(study.paths.fits("transfer"))
    return pd.concat(parts, ignore_index=True)


def _fold_curves(study: Study, samples: Samples, fold: int) -> pd.DataFrame:
    train, held = study.fold(fold)
    ordered = [train[at] for at in nested(study.outcome(train)["event"], study.params.transfer.seed)]
    sizes = sizes_of(study)
    sources = sources_of(study)
    encoders = {source: load_encoder(source, fold if source == study.name else TEST_FOLD) for source in sources}
    vectors = {source: vectors_of(one, samples) for source, one in encoders.items()}
    vectors[RANDOM] = vectors_of(_seeded_encoder(study), samples)
    found, jobs = [], []
    for size in sizes:
        few = ordered[:size]
        found.append((Arm("chart"), True, size, _chart_alone(study, few, held)))
        for source, own in vectors.items():
            for chart in (False, True):
                found.append((Arm("frozen", source), chart, size, _frozen(study, own, few, held, chart)))
        jobs += [(Arm("scratch"), None, size), *((Arm("fine-tuned", name), encoders[name], size) for name in sources)]
    risks = in_parallel(
        [(_trained, (ready(study, samples, ordered[:size]), places(study, ordered[:size]), places(study, held),
                     encoder, study.params.training, _length(study, size, len(train)), mirrored(study),
                     study.params.transfer.seed)) for _, encoder, size in jobs],
        f"{study.name}: learning curves, fold {fold}",
    )  # fmt: skip
    for (arm, _, size), risk in zip(jobs, risks, strict=True):
        found += [(arm, bool(chart), size, risk[:, chart]) for chart in range(2)]
    keys = {"cohort": study.name, "fold": fold}
    return pd.concat([rows(arm, chart, size, min(size, len(train)), held, risk, keys)
                      for arm, chart, size, risk in found], ignore_index=True)  # fmt: skip


def nested(event, seed: int) -> np.ndarray:
    """An order of patients of which every beginning has nearly the share of events of the whole.

    Parameters
    ----------
    event : array of bool, shape (n,)

    Returns
    -------
    ndarray of int, shape (n,)
        The first k hold the share of events of all n, to within one patient.
    """
    event, rng = np.asarray(event, bool), np.random.default_rng(seed)
    place = np.empty(len(event))
    for kind in (False, True):
        those = rng.permutation(np.flatnonzero(event == kind))
        place[those] = (np.arange(len(those)) + 0.5) / max(len(those), 1)
    return np.argsort(place, kind="stable")


def sizes_of(study: Study) -> list[int]:
    """Asked numbers of training patients, without those that add nobody to a smaller one in any fold."""
    most = max(len(study.fold(fold)[0]) for fold in folds(study))
    asked = sorted(set(study.params.transfer.sizes))
    return [size for at, size in enumerate(asked) if at == 0 or asked[at - 1] < most]


def vectors_of(encoder: nn.Module, samples: Samples) -> np.ndarray:
    """What an encoder that learns no more says of each patient, shape (n, modalities x pooled); zeros where absent."""
    encoder.eval()
    found = np.zeros((*samples.present.shape, encoder.pooled), np.float32)
    for modality in range(samples.present.shape[1]):
        for some in np.array_split(np.flatnonzero(samples.present[:, modality]), max(len(found) // 32, 1)):
            images, masks = samples.images[some, modality : modality + 1], samples.masks[some]
            with torch.no_grad():
                found[some, modality] = pretraining.pooled(
                    encoder, torch.as_tensor(images).float(), torch.as_tensor(masks).float()
                ).numpy()
    return found.reshape(len(found), -1)


def _frozen(study: Study, vectors: np.ndarray, few: list[str], held: list[str], chart: bool) -> np.ndarray:
    """Ridge Cox on the main directions of a frozen encoder's vectors, which are learnt of `few`; risks of `held`."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    patients = study.patients.take(few)
    if not patients.outcome["event"].any():
        return np.zeros(len(held))
    project = make_pipeline(StandardScaler(), PCA(min(COMPONENTS, len(few) // 4), whiten=True, random_state=0))
    seen = [project.fit_transform(vectors[places(study, few)]), project.transform(vectors[places(study, held)])]
    if chart:
        seen = [np.hstack(pair) for pair in zip(seen, _tables(study, few, held), strict=True)]
    cox = CoxPHSurvivalAnalysis(alpha=study.params.classical.ridge).fit(seen[0], patients.target)
    return cox.predict(seen[1])


def _chart_alone(study: Study, few: list[str], held: list[str]) -> np.ndarray:
    patients = study.patients
    if not patients.take(few).outcome["event"].any():
        return np.zeros(len(held))
    model = build("clinical-cox", study.params).fit(patients.take(few))
    return model.predict(patients.take(held), study.times).risk


def _trained(samples, train, held, encoder, choice: Training, epochs: int, mirror: bool, seed: int) -> np.ndarray:
    """Risks of `held`, (n, 2), by a network trained on `train` from random weights or from those of `encoder`."""
    few = samples.take(train)
    if not few.target[:, 1].any():
        return np.zeros((len(held), 2))
    training.seed_everything(seed)
    net = Both(samples.present.shape[1], samples.table.shape[1], choice.dropout)
    if encoder is not None:
        net.image.encoder.load_state_dict(encoder.state_dict())
    objective = BothCox.learn(few.target[:, 0], few.target[:, 1])
    batch = max(min(choice.batch_size, len(train) // 2), 2)
    choice = choice.model_copy(update={"batch_size": batch, "learning_rate": RATE})
    training.train(net, few, objective, choice, epochs=epochs, seed=seed, label="", mirror=mirror)
    return training.predict(net, samples.take(held))


def _length(study: Study, size: int, whole: int) -> int:
    """Epochs: more for a smaller set, or it would have too few steps to learn anything in."""
    return round(study.params.transfer.epochs * np.sqrt(whole / min(size, whole)))


# --- scores ------------------------------------------------------------------------------------------------------


def score(predictions: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Harrell's C of every arm and size, and its difference to the network from scratch on the same resamples.

    Parameters
    ----------
    predictions : DataFrame
        Of `learning_curves` and `multitask`, of one cohort.

    Returns
    -------
    DataFrame
        `way`, `source`, `chart`, `size`, `patients` (mean over folds), `estimate`, `low`, `high`, and
        `minus_scratch`, `minus_scratch_low`, `minus_scratch_high`, `minus_scratch_p`.
    """
    choice, found = study.params.scores, []
    for size, table in predictions.groupby("size"):
        risks = table.pivot(index=["patient_id", "fold"], columns=["way", "source", "chart"], values="risk")
        outcome = study.outcome(risks.index.get_level_values("patient_id"))

        def compared(counts, risks=risks, outcome=outcome):
            each = {arm: concordance(outcome["time_days"], outcome["event"], risks[arm],
                                      groups=risks.index.get_level_values("fold"), counts=counts)
                     for arm in risks}  # fmt: skip
            return each | {(*arm, "minus scratch"): one - each["scratch", "", arm[2]] for arm, one in each.items()}

        plain = compared(np.ones(len(risks)))
        again = choice.resampling(np.mean([plain[arm] for arm in risks]))
        with_interval = bootstrap(compared, len(risks), paired=lambda name: name[-1] == "minus scratch", **again)
        patients = table.groupby(["way", "source", "chart"])["patients"].mean()
        for arm in risks:
            difference = with_interval[(*arm, "minus scratch")]
            beside = {f"minus_scratch{name}": difference[end] for end, name in (ENDS | {"p": "_p"}).items()}
            named = dict(zip(("way", "source", "chart"), arm, strict=True))
            found.append({**named, "size": size, "patients": patients[arm], **with_interval[arm], **beside})
    return pd.DataFrame(found)


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores as the report prints them: a row a way to learn, C and the difference to scratch at each size."""
    from survpack.figures.transfer import INPUTS, line_name

    found = []
    for row in scores.to_dict("records"):
        difference = {end: row[f"minus_scratch{name}"] for end, name in ENDS.items()}
        told = interval_text(row, 2) or "–"
        compared = interval_text(difference, 2) or "–"
        found.append({"Learnt": line_name(row["way"], row["source"]), "Sees": "Chart" if row["way"] == "chart" else
                      INPUTS[row["chart"]], "Patients": f"{row['patients']:.0f}", "Harrell's C": told,
                      "Minus scratch": "–" if row["way"] == "scratch" else compared})  # fmt: skip
    return pd.DataFrame(found)


def reading(scores: pd.DataFrame, confidence: float = 0.95) -> str:
    """The differences to scratch that are shown, all of them one family, and how many of how many they are."""
    from survpack.figures.transfer import line_name

    compared = scores[~scores["way"].isin(["scratch", "chart"])].to_dict("records")
    ends = ENDS | {"p": "_p"}
    ahead = family({
        at: {end: row[f"minus_scratch{name}"] for end, name in ends.items()}
        for at, row in enumerate(compared)
    })  # fmt: skip
    told = {at: difference for at, difference in ahead.items() if shown(difference, confidence)}
    lines = [f"{len(compared)} comparisons with scratch, one family; {len(told)} are shown."]
    for at, difference in told.items():
        row, inputs = compared[at], " with chart" if compared[at]["chart"] else " without chart"
        lines.append(
            f"{line_name(row['way'], row['source'])},{inputs}, n = {row['patients']:.0f}: {interval_text(difference)}"
        )
    return "\n".join(lines)


def as_json(scores: pd.DataFrame, sizes: list[int]) -> dict:
    """The scores as the pipeline keeps them: arm, then size, then intervals; `sizes` says what was asked for."""
    found: dict = {"asked": sizes, "arms": {}}
    for row in scores.to_dict("records"):
        difference = {end: row[f"minus_scratch{name}"] for end, name in ENDS.items()}
        entry = {"patients": round(row["patients"], 1), "harrell_c": {end: row[end] for end in ENDS}}
        found["arms"].setdefault(arm_name(row), {})[str(row["size"])] = entry | {"minus_scratch": difference}
    return found


def arm_name(row: dict) -> str:
    """`fine-tuned mets + chart`."""
    inputs = " + chart" if row["chart"] and row["way"] != "chart" else ""
    return f"{row['way']} {row['source']}".strip() + inputs


# --- shared ------------------------------------------------------------------------------------------------------


def digest(studies: list[Study]) -> str:
    """Twelve hexadecimal digits of all that the fits depend on: data, choices, encoders and code."""
    found = hashlib.sha256()
    for study in studies:
        found.update(fit_digest(study, "transfer").encode())
        found.update(study.params.transfer.model_dump_json().encode())
        for source in sources_of(study):
            for path in sorted(pretraining.folder(source).glob("*.safetensors")):
                found.update(path.read_bytes())
    for module in ("pretraining.py", "transfer.py", "multitask.py"):
        found.update(Path(__file__).with_name(module).read_bytes())
    return found.hexdigest()[:12]


def ready(study: Study, samples: Samples, train: list[str]) -> Samples:
    """Samples with the chart as learnt of `train`, and the outcome."""
    ids = study.patients.outcome.index
    outcome = study.patients.outcome
    table = _tables(study, train, list(ids))[1]
    target = Cox(outcome["time_days"].to_numpy(), outcome["event"].to_numpy(bool)).target(
        outcome["time_days"], outcome["event"]
    )
    return samples._replace(table=table.astype(np.float32), target=target)


def _tables(study: Study, train: list[str], held: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The chart in numbers, imputed and scaled as `train` is."""
    chart = study.patients.clinical
    prepare = prepare_table(chart.loc[train], study.patients.dictionary)
    return prepare.fit_transform(chart.loc[train]), prepare.transform(chart.loc[held])


def _seeded_encoder(study: Study) -> nn.Module:
    training.seed_everything(study.params.transfer.seed)
    return new_encoder()


def folds(study: Study) -> list[int]:
    """Of cross-validation."""
    return sorted(set(study.splits["fold"]) - {TEST_FOLD})


def rows(arm: Arm, chart: bool, size: int, patients: int, held: list[str], risk, keys: dict) -> pd.DataFrame:
    """Predictions as `COLUMNS` has them."""
    named = {**keys, **arm._asdict(), "chart": chart, "size": size, "patients": patients}
    return pd.DataFrame({**named, "patient_id": held, "risk": np.asarray(risk, float)})[COLUMNS]
