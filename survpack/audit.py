"""The audit of a too-good result: one network, the same patients, and protocols that differ in what they leak.

The paper in question reports R² 0.970 and a mean absolute error of 3.05 days for EfficientNet-B0 on MRI and dense layers
on the chart, trained by mean squared error, of 148 patients with brain metastases. The same network is trained here on
development patients, leak by leak. The kinds of leak are those of Kapoor, Narayanan 2023 (Patterns 4:100804); slices of
one patient on both sides of a split: Yagis et al. 2021 (Sci Rep 11:22544).
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from survpack import training
from survpack.augmentation import augment
from survpack.encoders import ENCODERS
from survpack.errors import BadInput
from survpack.inference import bootstrap
from survpack.metrics import concordance
from survpack.metrics.days import mae_days, mae_ipcw, r2, r2_ipcw
from survpack.models import Patients, beside, prepare_table
from survpack.models.columns import clinical, lesion
from survpack.numbers import amount, interval_text
from survpack.objectives import OBJECTIVES
from survpack.parallel import in_parallel
from survpack.phantom.ceiling import ceiling
from survpack.study import Study, fit_digest
from survpack.training import Samples

CLAIM = {"r2": 0.970, "mae_days": 3.05}  # as published, on the paper's own patients
METRICS = {"r2": "R²", "mae_days": "MAE, days", "harrell_c": "Harrell's C"}
CHOSEN = 10  # radiomics, by their correlation with the days of death
WIDTH = 64  # of the dense layers
INNER = 0.2  # of the training units, by whose loss a fit ends
COLUMNS = ["fit", "fold", "patient_id", "days", "days_best"]


class Fit(NamedTuple):
    """How samples are made and split, and what is learnt of whom.

    Attributes
    ----------
    unit : str
        What is on one side of the split as a whole: `patient`, `copy` (all slices of an augmented copy) or `slice`.
    copies : bool
        Augmented copies are made before the split.
    everything : bool
        Imputation, scaling and the choice of radiomics are learnt of the held-out too.
    objective : str
        `mse` is trained on deaths alone; `mse-censored` also on the censored.
    watched : bool
        The held-out are predicted after every epoch.

    A fit ends by the loss of an inner part of its training units, split as the fit splits.
    """

    unit: str = "patient"
    copies: bool = False
    everything: bool = False
    objective: str = "mse"
    watched: bool = False


class Protocol(NamedTuple):
    """What is reported: of which fit, at which epoch, of whom."""

    label: str
    says: str
    fit: str
    best_epoch: bool = False
    censored: bool = False


FITS = {
    "censored": Fit(objective="mse-censored"),
    "patients": Fit(watched=True),
    "everything": Fit(everything=True),
    "copies": Fit("copy", copies=True),
    "slices": Fit("slice"),
    "leaky": Fit("slice", copies=True, everything=True, watched=True),
}
PROTOCOLS = {
    "clean": Protocol(
        "Clean", "split by patient, all learnt inside the training fold, the censored trained on and scored", "censored",
        censored=True,
    ),
    "deaths-only": Protocol("Censored dropped", "clean, but of the dead alone, in training and in the score", "patients"),
    "best-epoch": Protocol("Best epoch reported", "and the epoch chosen on the fold it is reported of", "patients", True),
    "fitted-on-all": Protocol(
        "Fitted on everyone", "deaths only; imputation, scaling and radiomics chosen before the split", "everything"
    ),
    "augmented": Protocol("Augmented before the split", "deaths only; a patient's copies on both sides", "copies"),
    "slices": Protocol("Slices split at random", "deaths only; a patient's slices on both sides", "slices"),
    "all": Protocol("All leaks together", "slices of copies, fitted on everyone, best epoch, deaths only", "leaky", True),
}  # fmt: skip


class SliceNet(nn.Module):
    """EfficientNet-B0 on a slice, dense layers on the table, and dense layers on both: one number."""

    def __init__(self, channels: int, columns: int):
        super().__init__()
        planes = ENCODERS["efficientnet-2d"](channels, 0)
        self.net, self.width = planes.net.to(memory_format=torch.channels_last), planes.width  # a third faster
        self.image = nn.Sequential(nn.Linear(self.width, WIDTH), nn.ReLU())
        self.table = nn.Sequential(nn.Linear(columns, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Slices (n, channels, x, y) and tables (n, columns) to standardised days (n, 1)."""
        maps = self.net(image.float().contiguous(memory_format=torch.channels_last))
        seen = self.image(maps.unflatten(1, (self.width, -1)).mean(2))
        return self.head(torch.cat([seen, self.table(table)], dim=1))


class Bank(NamedTuple):
    """Slices of patients and of their copies.

    Attributes
    ----------
    images : Tensor of float16, shape (n, channels, x, y)
        Modalities and masks.
    patient, copy, slice : ndarray of int, shape (n,)
    """

    images: torch.Tensor
    patient: np.ndarray
    copy: np.ndarray
    slice: np.ndarray

    def units(self, unit: str) -> np.ndarray:
        """A number for whatever goes to one side of a split as a whole, shape (n,)."""
        keys = {"patient": [self.patient], "copy": [self.patient, self.copy],
                "slice": [self.patient, self.copy, self.slice]}[unit]  # fmt: skip
        return np.unique(np.column_stack(keys), axis=0, return_inverse=True)[1].ravel()


def impossible(study: Study) -> str:
    """Why this cohort cannot be audited; empty where it can."""
    choice, patients = study.params.audit, study.patients
    deaths = int(study.outcome(study.development)["event"].sum())
    if not patients.images.shape[1] or not patients.present.any():
        return f"Nobody of {study.name} was imaged: there is no slice to split."
    if deaths < 2 * choice.folds:
        return f"{study.name} has {deaths} deaths among its development patients, too few for {choice.folds} folds."
    return ""


def predictions(study: Study) -> pd.DataFrame:
    """Days of death that every fit predicts of whom its fold holds out; the locked test set is not touched.

    A finished fit is a file named for all that it depends on: a run that was killed goes on after it.

    Returns
    -------
    DataFrame
        `COLUMNS`: `days` at the epoch that an inner split chose, `days_best` at that of the least error on these very
        patients; means over a patient's samples in the fold.

    Raises
    ------
    BadInput
        For a cohort that cannot be audited.
    """
    if reason := impossible(study):
        raise BadInput(f"audit: {reason}")
    folder, known = study.paths.fits("audit"), digest(study)
    places = {(name, fold): folder / f"{name}-{fold}-{known}.parquet"
              for name in FITS for fold in range(study.params.audit.folds)}  # fmt: skip
    bare = Study(study.name, study.params, study.paths)  # a process reads the patients itself
    in_parallel(
        [(_fit, (bare, *key, place)) for key, place in places.items() if not place.exists()],
        f"{study.name}: audit",
    )
    found = pd.concat([pd.read_parquet(place) for place in places.values()], ignore_index=True)
    rmtree(folder)
    return found


def digest(study: Study) -> str:
    """Twelve hexadecimal digits of all that the fits depend on: data, choices and code."""
    choice = study.params.audit.model_dump_json(exclude={"claim"})
    parts = [fit_digest(study, "audit").encode(), choice.encode(), Path(__file__).read_bytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _fit(study: Study, name: str, fold: int, place: Path) -> None:
    fit, patients = FITS[name], study.patients.take(study.development)
    bank = slices(patients, study, copies=fit.copies)
    event = patients.outcome["event"].to_numpy(bool)
    held = folds_of(bank.units(fit.unit), event[bank.patient], study.params.audit) == fold
    last, each = _trained(study, patients, bank, fit, held, f"{study.name} audit {name} {fold}")
    time, dead = patients.outcome["time_days"].to_numpy()[bank.patient[held]], event[bank.patient[held]]
    best = min(each or [last], key=lambda days: np.mean((days - time)[dead] ** 2))
    samples = pd.DataFrame({
        "patient_id": patients.outcome.index[bank.patient[held]],
        "days": last,
        "days_best": best,
    })  # fmt: skip
    means = samples.groupby("patient_id", as_index=False).mean()
    study.save_table(place, means.assign(fit=name, fold=fold)[COLUMNS])


def slices(patients: Patients, study: Study, *, copies: bool) -> Bank:
    """Axial slices through the middle of each crop, which is that of the largest lesion.

    Parameters
    ----------
    copies : bool
        With `audit.augmentations` augmented copies of each patient beside the original.
    """
    choice, volumes = study.params.audit, [(patients.images, patients.masks)]
    mild = study.params.training.augment.model_copy(update={"cutout": 0.0, "modality_dropout": 0.0})
    given = (torch.as_tensor(one).float() for one in (patients.images, patients.masks))
    batch = Samples(*given, torch.as_tensor(patients.present), None, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(choice.seed)
        for _ in range(choice.augmentations if copies else 0):
            made = augment(batch, mild, mirror=False)
            volumes.append((made.images.numpy(), made.masks.numpy()))
    depth = patients.images.shape[-1]
    count = min(choice.slices, depth)
    middle = slice((depth - count) // 2, (depth - count) // 2 + count)
    cut = [np.concatenate([one[..., middle] for one in pair], axis=1, dtype=np.float16) for pair in volumes]
    images = np.moveaxis(np.stack(cut, axis=1), -1, 2)  # patients, copies, slices, channels, x, y
    numbers = (one.ravel() for one in np.indices(images.shape[:3]))
    return Bank(torch.as_tensor(images.reshape(-1, *images.shape[3:])), *numbers)


def folds_of(units: np.ndarray, event: np.ndarray, choice) -> np.ndarray:
    """Fold of each sample, shape (n,): units at random, with the same share of deaths in each."""
    from sklearn.model_selection import StratifiedKFold

    distinct, first = np.unique(units, return_index=True)
    split = StratifiedKFold(choice.folds, shuffle=True, random_state=choice.seed).split(distinct, event[first])
    fold = np.empty(len(distinct), int)
    for number, (_, held) in enumerate(split):
        fold[held] = number
    return fold[units]


def _trained(study: Study, patients: Patients, bank: Bank, fit: Fit, held: np.ndarray, label: str):
    """Days predicted of the samples held out, as the fit ends and, where it is watched, after every epoch."""
    choice = study.params.audit
    time, event = patients.outcome["time_days"].to_numpy(float), patients.outcome["event"].to_numpy(bool)
    known = np.unique(bank.patient if fit.everything else bank.patient[~held])
    objective = OBJECTIVES[fit.objective].learn(time[known], event[known])
    target = torch.as_tensor(objective.target(time, event))
    table = torch.as_tensor(_table(study, patients, known[event[known]]))
    usable = np.flatnonzero(~held & np.isin(bank.patient, known[objective.uses]))
    inner, train = _inner(bank.units(fit.unit)[usable], event[bank.patient[usable]], choice.seed)
    inner, train, unseen = usable[inner], usable[train], np.flatnonzero(held)
    training.seed_everything(choice.seed)
    net = SliceNet(bank.images.shape[1], table.shape[1])
    steps, watched = max(len(train) // choice.batch_size, 1), []

    def taken(index):
        return bank.images[index], table[bank.patient[index]], target[bank.patient[index]]

    def batches(epoch: int, rng: np.random.Generator):
        return [_Lazy(taken, index) for index in np.array_split(rng.permutation(train), steps)]

    def validate() -> float:
        if fit.watched:
            watched.append(objective.days(_outputs(net, taken, unseen)))
        return objective.loss(torch.as_tensor(_outputs(net, taken, inner)), taken(inner)[2]).item()

    # an epoch of copies has as many more steps: fits have the same number of steps, unless they end before
    epochs = max(round(choice.epochs / (1 + choice.augmentations * fit.copies)), 1)
    training.optimise(
        net, batches, lambda module, batch: objective.loss(module(*batch[:2]), batch[2]),
        study.params.training.model_copy(update={"precision": "float32"}), epochs=epochs, seed=choice.seed, label=label,
        learning_rate=choice.learning_rate, validate=validate if len(inner) else None,
    )  # fmt: skip
    net.eval()
    return objective.days(_outputs(net, taken, unseen)), watched


def _inner(units: np.ndarray, event: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the samples by whose loss a fit ends, and of those trained on; a unit is on one side."""
    distinct, first = np.unique(units, return_index=True)
    inner, _ = training.inner_split(event[first], INNER, seed)
    chosen = np.isin(units, distinct[inner])
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


class _Lazy(NamedTuple):
    """A batch that is put together only when its turn comes."""

    taken: object
    index: np.ndarray

    def to(self, where: torch.device) -> tuple:
        return tuple(each.to(where) for each in self.taken(self.index))


@torch.no_grad()
def _outputs(net: SliceNet, taken, index: np.ndarray) -> np.ndarray:
    where = training.device()
    parts = (taken(some)[:2] for some in np.array_split(index, max(len(index) // 64, 1)))
    return torch.cat([net(*(each.to(where) for each in part)) for part in parts]).cpu().numpy()


def _table(study: Study, patients: Patients, known: np.ndarray) -> np.ndarray:
    """Chart, lesion biomarkers and ten radiomics chosen by outcome, all learnt of patients number `known`, who died."""
    from sklearn.feature_selection import SelectKBest, f_regression

    chart = beside(clinical(patients), lesion(patients, study.params.classical.lesion))
    radiomics = patients.biomarkers[patients.biomarkers.columns.difference(patients.lesion.columns, sort=False)]
    radiomics = radiomics.loc[:, radiomics.iloc[known].nunique() > 1]
    table = [prepare_table(chart, patients.dictionary).fit(chart.iloc[known]).transform(chart)]
    if radiomics.shape[1]:
        numbers = prepare_table(radiomics, {}).fit(radiomics.iloc[known]).transform(radiomics)
        best = SelectKBest(f_regression, k=min(CHOSEN, numbers.shape[1]))
        table.append(best.fit(numbers[known], patients.outcome["time_days"].iloc[known]).transform(numbers))
    return np.hstack(table).astype(np.float32)


# --- scores ------------------------------------------------------------------------------------------------------


def score(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """R², MAE and Harrell's C of every protocol, on shared resamples of patients, beside what could be reached.

    Of the dead alone the scores are the naive ones; of everyone R² and MAE are weighted by the inverse probability of
    being uncensored.

    Parameters
    ----------
    table : DataFrame
        Of `predictions`.

    Returns
    -------
    DataFrame
        `protocol`, `metric` (of `METRICS`), `estimate`, `low`, `high`, and `ceiling`, `ceiling_low`, `ceiling_high`,
        of `phantom.ceiling`; NaN where the hazard is not known.
    """
    development, choice, best = study.outcome(study.development), study.params.scores, ceiling(study)
    rows = []
    for name, protocol in PROTOCOLS.items():
        own = table[table["fit"] == protocol.fit]
        scored = partial(_scores, own, development, protocol)
        again = choice.resampling(scored(np.ones(len(development)))["harrell_c"])
        found = bootstrap(scored, len(development), **again)
        reach = (best or {}).get("everyone" if protocol.censored else "deaths", {})
        for metric, each in found.items():
            top = reach.get(metric, {})
            beside = {"ceiling": "estimate", "ceiling_low": "low", "ceiling_high": "high"}
            rows.append({"protocol": name, "metric": metric, **each} | {to: top.get(end) for to, end in beside.items()})
    numbers = ["estimate", "low", "high", "ceiling", "ceiling_low", "ceiling_high"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def _scores(own: pd.DataFrame, development: pd.DataFrame, protocol: Protocol, counts) -> dict:
    at = development.index.get_indexer(own["patient_id"])
    time, event = (development[name].to_numpy()[at] for name in ("time_days", "event"))
    days = own["days_best" if protocol.best_epoch else "days"].to_numpy()
    rows = np.asarray(counts)[..., at]
    if protocol.censored:
        explained = r2_ipcw(time, event, days, development, counts=rows)
        error = mae_ipcw(time, event, days, development, counts=rows)
    else:
        rows = rows * event
        explained, error = (score(time, event, days, counts=rows) for score in (r2, mae_days))
    ranked = concordance(time, event, -days, groups=own["fold"].to_numpy(), counts=rows)
    return {"r2": explained, "mae_days": error, "harrell_c": ranked}


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores as the report prints them, a row a protocol; the ceiling of each where the hazard is known."""
    found = []
    for name, protocol in PROTOCOLS.items():
        own = scores[scores["protocol"] == name].set_index("metric")
        row = {"Protocol": protocol.label, "What leaks": protocol.says}
        for metric, words in METRICS.items():
            one, digits = own.loc[metric], 1 if metric == "mae_days" else 2
            digits += metric == "r2" and one["estimate"] > 0.9  # or it would read 1.00
            row[words] = interval_text(one[["estimate", "low", "high"]].to_dict(), digits) or "–"
            if np.isfinite(own["ceiling"]).any():
                row[f"{words}: ceiling"] = amount(one["ceiling"], 0 if metric == "mae_days" else 2)
        found.append(row)
    return pd.DataFrame(found)


def reading(scores: pd.DataFrame) -> str:
    """What the audit found, in lines whose numbers are read from the scores."""
    wide = scores.pivot(index="protocol", columns="metric", values="estimate")
    honest, best = wide.loc["deaths-only"], wide["r2"].idxmax()
    dead = scores.set_index(["protocol", "metric"]).loc[("deaths-only", "r2")]
    top = dead["ceiling_high"]  # what the true hazard itself reaches by luck in one of forty cohorts
    lines = [
        f"{PROTOCOLS[best].label}: R² {amount(wide.loc[best, 'r2'], 3)}, MAE {amount(wide.loc[best, 'mae_days'], 1)} days."
        f" The same patients, split by patient: R² {amount(honest['r2'], 2)}, MAE {amount(honest['mae_days'])} days."
    ]
    if np.isfinite(top):
        above = [PROTOCOLS[name].label for name in wide.index[wide["r2"] > top]]
        lines.append(
            f"The true hazard itself can expect an R² of {amount(dead['ceiling'], 2)} of the dead, and by luck {amount(top, 2)};"
            f" above that: {', '.join(above) or 'none'}."
        )
    spread = implied_spread(**CLAIM)
    lines.append(
        f"R² {CLAIM['r2']} beside an MAE of {CLAIM['mae_days']} days means survival times that vary by {amount(spread)} days"
        " (standard deviation) in all, if errors are about normal."
    )
    return "\n".join(lines)


def needed_reading(needed: dict, claim: float) -> str:
    """What `phantom.ceiling.noise_for` found, as a line."""
    if needed["survival_noise"] is None:
        return f"No noise of survival, however small, would let the best R² be {claim}."
    share = amount(100 * needed["survival_noise"] / needed["actual"])
    return (
        f"For an honest R² of {claim} the noise of log survival time would have to be {share} % of what it is here; the best"
        f" MAE would then be {amount(needed['mae_days'])} days, not {CLAIM['mae_days']}."
    )


def implied_spread(r2: float, mae_days: float) -> float:
    """Standard deviation of survival times in days with which R² and MAE go together, if errors are normal.

    The mean absolute value of a normal error is sqrt(2 / pi) of its standard deviation, and that squared is 1 - R² of
    the variance. It is never less than sqrt(2 / pi) of this, whatever the errors: a mean never exceeds a root mean
    square.
    """
    return float(mae_days / np.sqrt(2 / np.pi) / np.sqrt(1 - r2))


def as_json(scores: pd.DataFrame, needed: dict | None = None) -> dict:
    """Protocol, then metric, then interval; `ceiling` of the dead, `ceiling-censored` of everyone, where known; `needed` noise."""

    def intervals(rows: pd.DataFrame, names: dict) -> dict:
        return {row["metric"]: {end: None if np.isnan(row[name]) else row[name] for end, name in names.items()}
                for row in rows.to_dict("records")}  # fmt: skip

    ends = {end: end for end in ("estimate", "low", "high")}
    found = {name: intervals(rows, ends) for name, rows in scores.groupby("protocol", sort=False)}
    for name, of in {"ceiling": "deaths-only", "ceiling-censored": "clean"}.items():
        rows = scores[scores["protocol"] == of]
        if np.isfinite(rows["ceiling"]).all():
            found[name] = intervals(rows, {"estimate": "ceiling", "low": "ceiling_low", "high": "ceiling_high"})
    return found | {"published": CLAIM} | ({"needed": needed} if needed else {})
