"""`Study`: one cohort's files and choices in one place, and the fits that go on where they stopped."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import copyfile, rmtree
from time import perf_counter

import numpy as np
import pandas as pd

from survpack import params as params_module
from survpack import settings
from survpack.biomarkers import Biomarkers
from survpack.cohort import Cohort
from survpack.image_effect import image_effect
from survpack.models import Deep, Forecast, Patients, Stack, build, lacking
from survpack.parallel import in_parallel
from survpack.params import Params
from survpack.paths import ROOT, CohortPaths, written_whole
from survpack.preprocess import CropSet
from survpack.prognosis import Prognosis, time_grid

TEST_FOLD = -1  # the fit on all development patients, read on the held-out test set
CURVE = ["fold", "member", "epoch", "loss", "inner_loss"]
MISSING = ["cohort", "model", "fold", "split", "patient_id", "risk", "without"]  # `without`: names, joined by +
LACKING = "lacking.txt"  # why a model was not fitted, where its weights would be
CODE = (
    "selection.py",
    "harmonise.py",
    "networks.py",
    "encoders.py",
    "convolution.py",
    "clinical.py",
    "augmentation.py",
    "objectives.py",
    "parallel.py",
    "training.py",
    "study.py",
    "prognosis.py",
    "robustness.py",
    "cohort.py",
)


@dataclass(frozen=True)
class Study:
    """A cohort with the study's choices about it; everything it holds was read from files.

    Where params.yaml says `auto`, the choices have what stage 01 found, unless the study is `unsettled`: that stage's own.
    """

    name: str
    params: Params
    paths: CohortPaths
    unsettled: bool = False

    def __post_init__(self):
        if not self.unsettled:
            own = settings.applied(self.params, self.name, settings.load(self.paths.settings))
            object.__setattr__(self, "params", own)

    @classmethod
    def open(cls, cohort: str, *, anew: bool = False) -> Study:
        """A cohort with the choices of params.yaml, and of them the profile with which its files were made.

        `make report PROFILE=smoke` leaves files of that profile and params.yaml as it is: who then works on them by
        hand goes on with it.

        Parameters
        ----------
        cohort : str
        anew : bool
            For the stage that reads the cohort: the profile of params.yaml.
        """
        paths = CohortPaths(cohort)
        note = paths.source / "source.json"
        made = {} if anew or not note.exists() else json.loads(note.read_text())
        return cls(cohort, params_module.load(params_module.PARAMS, made.get("profile")), paths, unsettled=anew)

    def settled(self, found: dict[str, dict]) -> Study:
        """The study with what `settings.resolve` found, which is written for the stages to come."""
        settings.save(found, self.paths.settings)
        return Study(self.name, self.params, self.paths)

    @cached_property
    def cohort(self) -> Cohort:
        return Cohort.load(self.paths.cohort)

    @cached_property
    def splits(self) -> pd.DataFrame:
        """`patient_id`, `split` ("dev" or "test"), `fold` (-1 for test)."""
        return pd.read_parquet(self.paths.cohort / "splits.parquet")

    @cached_property
    def biomarkers(self) -> Biomarkers:
        return Biomarkers.load(self.paths.biomarkers)

    @cached_property
    def patients(self) -> Patients:
        return Patients.of(self.cohort, self.biomarkers, CropSet.load(self.paths.crops))

    @property
    def development(self) -> list[str]:
        return self.splits.loc[self.splits["split"] == "dev", "patient_id"].tolist()

    @property
    def horizon_days(self) -> float:
        """The day of calibration."""
        given = self.params.scores.horizon_days
        return params_module.per_cohort(given, self.name, lambda: settings.horizon(self.followed)[0])

    @property
    def horizons_days(self) -> list[float]:
        """Days at which decisions are judged: the listed ones, and that of calibration."""
        given = self.params.scores.horizons_days
        listed = params_module.per_cohort(given, self.name, lambda: settings.horizons(self.followed)[0])
        return sorted({*listed, self.horizon_days})

    @property
    def followed(self) -> pd.DataFrame:
        """Outcome of the development patients; of everybody where nobody is held out."""
        split = (self.paths.cohort / "splits.parquet").exists()
        return self.outcome(self.development) if split else self.cohort.outcome

    def outcome(self, ids) -> pd.DataFrame:
        """Outcome of the patients named, indexed by `patient_id`."""
        return self.cohort.outcome.set_index("patient_id").loc[list(ids)]

    def prognosis(self, model: str) -> Prognosis:
        """One model's predictions."""
        return Prognosis.load(self.paths.predictions(model))

    def prognoses(self) -> dict[str, Prognosis]:
        """Every model's predictions, in the order of params.yaml; without the models that this cohort cannot have."""
        found = {model: self.prognosis(model) for model in self.params.models}
        return {model: prognosis for model, prognosis in found.items() if len(prognosis.table)}

    def left_out(self) -> list[dict]:
        """The models that this cohort cannot have: `{"models": […], "why": "needs …"}`, a reason each."""
        found: dict[str, list[str]] = {}
        for model in self.params.models:
            if (path := self.paths.model(model) / LACKING).exists():
                found.setdefault(path.read_text(encoding="utf-8").removeprefix(f"{model} "), []).append(model)
        return [{"models": some, "why": why} for why, some in found.items()]

    @property
    def sites(self) -> pd.Series:
        """Site of each patient, indexed by `patient_id`."""
        return self.cohort.outcome.set_index("patient_id")["site"]

    @cached_property
    def times(self) -> np.ndarray:
        """The days of survival curves, of params.yaml alone; every horizon is one of them."""
        return time_grid(self.params.curves, [*self.horizons_days, *self.params.prognosis.horizons_days])

    def times_of(self, cohort: Cohort) -> np.ndarray:
        """What `times` would be, were the cohort another: the gate asks with other outcomes."""
        other = Study(self.name, self.params, self.paths)
        vars(other)["cohort"] = cohort
        return other.times

    @property
    def followed_times(self) -> np.ndarray:
        """Those of `times` up to the last event of development, beyond which curves are level: what is shown of them."""
        last = self.followed.query("event")["time_days"].max()
        return self.times[: max(np.searchsorted(self.times, last, side="right"), 1)]

    def fold(self, fold: int) -> tuple[list[str], list[str]]:
        """Training and evaluation patients; for `TEST_FOLD` the development and the test set."""
        held = self.splits["fold"] == fold
        train = self.splits["split"].eq("dev") & ~held
        return self.splits.loc[train, "patient_id"].tolist(), self.splits.loc[held, "patient_id"].tolist()

    @property
    def facts(self) -> dict:
        """What stage 01 found: `reports/metrics/cohort-<name>.json`."""
        return json.loads(self.paths.facts("cohort").read_text())

    def learning_curves(self, model: str) -> pd.DataFrame:
        """A row a fit, network and epoch: `CURVE`, and what `training.optimise` measured; empty for a classical model."""
        return pd.read_csv(self.paths.model(model) / "curves.csv")

    def costs(self) -> pd.DataFrame:
        """What each model's fits took, a row a model: `parameters` (NaN where they are not counted), `seconds_a_fit`,
        `samples_per_second`, `peak_memory_mb`."""
        found = {model: self.paths.model(model) / "costs.json" for model in self.prognoses()}
        return pd.DataFrame({model: json.loads(path.read_text()) for model, path in found.items()}).T.astype(float)

    def image_effect(self, model: str) -> dict | None:
        """How far the image moves a network's risk, as `image_effect` has it; None of a model that sees no image."""
        path = self.paths.model(model) / "image.json"
        return json.loads(path.read_text()) if path.exists() else None

    def image_effects(self) -> dict[str, dict]:
        """`image_effect` of every network that sees an image."""
        found = {model: self.image_effect(model) for model in self.prognoses()}
        return {model: one for model, one in found.items() if one}

    def without_modalities(self) -> pd.DataFrame:
        """Risks of the image models when modalities are taken away: `MISSING`; no row where a cohort has but one."""
        found = [self.paths.model(model) / "missing.parquet" for model in self.prognoses()]
        tables = [pd.read_parquet(path) for path in found if path.exists()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MISSING)

    def save_table(self, path: Path, table: pd.DataFrame) -> None:
        with written_whole(path) as part:
            table.to_parquet(part)

    def written(self, *places: Path) -> pd.DataFrame:
        """The files in `places`, for the last cell of a notebook."""
        files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
        listed = [str(file.relative_to(ROOT)) for file in files if file.is_file()]
        return pd.DataFrame({"file": listed[:12] + ([f"… and {len(listed) - 12} more"] if listed[12:] else [])})

    def save_json(self, path: Path, content: dict) -> None:
        with written_whole(path) as part:
            part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def fit_all(study: Study, model: str) -> Prognosis:
    """Fit `model` on every fold and on the development set; predict whoever was left out.

    A finished fit is a folder named for all that it depends on (data, choices, code), so a run
    that was killed goes on from there and a changed choice never meets a stale fit. When the
    last one is done, predictions, weights and learning curves move to where the pipeline reads.
    A model that this cohort cannot have (`models.lacking`) gives predictions without rows.
    """
    if reason := lacking(model, study.patients):
        return _without_fit(study, model, reason)
    folds = [*sorted(set(study.splits["fold"]) - {TEST_FOLD}), TEST_FOLD]
    digest = fit_digest(study, model)
    folders = [study.paths.fits(model) / fit_name(fold, digest) for fold in folds]
    bare = Study(study.name, study.params, study.paths)  # a process reads the patients itself
    jobs = []
    for fold, folder in zip(folds, folders, strict=True):
        if folder.exists():
            print(f"{folder.name} of {model} was finished before", file=sys.stderr)
        else:
            jobs.append((_fit_one, (bare, model, fold, folder)))
    chosen = build(model, study.params)
    if isinstance(chosen, (Deep, Stack)):
        in_parallel(jobs, f"{study.name} {model}", small=getattr(chosen, "fusion", "") == "chart")
    else:  # done before another process has started
        for fit, (_, *rest) in jobs:
            fit(study, *rest)
    parts = [Prognosis.load(folder / "prognosis.parquet") for folder in folders]
    prognosis = Prognosis(pd.concat([part.table for part in parts], ignore_index=True), parts[0].times)
    with written_whole(study.paths.model(model)) as part:
        part.mkdir()
        curves = [pd.read_csv(path) for path in (folder / "curve.csv" for folder in folders) if path.exists()]
        (pd.concat(curves) if curves else pd.DataFrame(columns=CURVE)).to_csv(part / "curves.csv", index=False)
        costs = pd.DataFrame([json.loads((folder / "costs.json").read_text()) for folder in folders])
        (part / "costs.json").write_text(json.dumps(costs.mean().to_dict(), indent=2) + "\n")
        exchanged = [folder / "exchanged.parquet" for folder in folders if (folder / "exchanged.parquet").exists()]
        if exchanged:
            (part / "image.json").write_text(json.dumps(_checked(exchanged, model), indent=2) + "\n")
        missing = [folder / "missing.parquet" for folder in folders if (folder / "missing.parquet").exists()]
        if missing:
            pd.concat([pd.read_parquet(path) for path in missing], ignore_index=True).to_parquet(
                part / "missing.parquet"
            )
        if (folders[-1] / "weights.safetensors").exists():
            copyfile(folders[-1] / "weights.safetensors", part / "weights.safetensors")
    prognosis.save(study.paths.predictions(model))
    rmtree(study.paths.fits(model))
    return prognosis


def _without_fit(study: Study, model: str, reason: str) -> Prognosis:
    nobody = Forecast(np.empty(0), np.empty(0), np.empty((0, len(study.times))))
    prognosis = Prognosis(_as_prognosis(study, model, TEST_FOLD, [], nobody, 0.0).table, study.times)
    with written_whole(study.paths.model(model)) as part:
        part.mkdir(parents=True)
        pd.DataFrame(columns=CURVE).to_csv(part / "curves.csv", index=False)
        (part / "costs.json").write_text("{}\n")
        (part / LACKING).write_text(reason, encoding="utf-8")
    prognosis.save(study.paths.predictions(model))
    return prognosis


def fitted(study: Study, model: str):
    """The model of the development set again: a network from its weights, a classical one by fitting anew."""
    train = study.patients.take(study.development)
    weights = study.paths.model(model) / "weights.safetensors"
    known = {"weights": weights} if weights.exists() else {}
    return build(model, study.params).fit(train, **known)


def fit_digest(study: Study, model: str) -> str:
    """Twelve hexadecimal digits of all that a fit depends on but the fold: data, choices and code."""
    digest = hashlib.sha256()
    for folder in (study.paths.cohort, study.paths.biomarkers, study.paths.crops):
        for path in sorted(folder.iterdir()):
            digest.update(path.read_bytes())
    for published in study.params.training.published.values():
        if (ROOT / published).is_file():
            digest.update((ROOT / published).read_bytes())
    for part in ("training", "classical", "selection"):
        digest.update(getattr(study.params, part).model_dump_json().encode())
    here = Path(__file__).parent
    for path in [*sorted((here / "models").glob("*.py")), *(here / module for module in CODE)]:
        digest.update(path.read_bytes())
    digest.update(study.times.tobytes() + model.encode())
    return digest.hexdigest()[:12]


def fit_name(fold: int, digest: str) -> str:
    """`fold-2-1f3a…`."""
    return f"{'test' if fold == TEST_FOLD else f'fold-{fold}'}-{digest}"


def _fit_one(study: Study, model: str, fold: int, folder: Path) -> None:
    """One fit into its folder; a network that was interrupted goes on from its last epoch, in a folder beside."""
    train_ids, held_ids = study.fold(fold)
    train, held = study.patients.take(train_ids), study.patients.take(held_ids)
    chosen, going = build(model, study.params), folder.with_name(f"{folder.name}.going")
    resumed = {"checkpoints": going} if isinstance(chosen, Deep) else {}
    began = perf_counter()
    chosen.fit(train, label=f"{study.name} {model} {folder.name.rsplit('-', 1)[0]}", **resumed)
    seconds = perf_counter() - began
    forecast = chosen.predict(held, study.times)
    with written_whole(folder) as part:
        part.mkdir(parents=True)
        _as_prognosis(study, model, fold, held_ids, forecast, chosen.usual_risk).save(part / "prognosis.parquet")
        costs = {"seconds_a_fit": seconds} | getattr(chosen, "costs", {})
        (part / "costs.json").write_text(json.dumps(costs))
        if isinstance(chosen, Deep):
            chosen.history.assign(fold=fold).to_csv(part / "curve.csv", index=False)
            _without_modalities(study, chosen, model, fold, held).to_parquet(part / "missing.parquet")
            if chosen.fusion != "chart":
                chosen.exchanged(held).assign(fold=fold).to_parquet(part / "exchanged.parquet")
            if fold == TEST_FOLD:
                chosen.save(part / "weights.safetensors")
    rmtree(going, ignore_errors=True)


def _checked(exchanged: list[Path], model: str) -> dict:
    """Whether the image branch is alive, on the patients held out of the folds; a collapsed one is told of at once."""
    table = pd.concat([pd.read_parquet(path) for path in exchanged], ignore_index=True)
    found = image_effect(table[table["fold"] != TEST_FOLD])
    if found["collapsed"]:
        print(
            f"{model}: the image branch has collapsed; images of other patients leave its risks as they are",
            file=sys.stderr,
        )
    return found


def _without_modalities(study: Study, chosen: Deep, model: str, fold: int, held: Patients) -> pd.DataFrame:
    """Risks of patients held out with all, with each modality taken away, and with each alone."""
    names = held.modalities if chosen.fusion != "chart" and len(held.modalities) > 1 else []
    away = [(), *((name,) for name in names)] if names else []
    if len(names) > 2:
        away += [tuple(other for other in names if other != name) for name in names]
    keys = {"cohort": study.name, "model": model, "fold": fold, "split": "test" if fold == TEST_FOLD else "cv"}
    tables = [
        pd.DataFrame({**keys, "patient_id": held.outcome.index, "risk": chosen.predict(held, study.times, gone).risk})
        .assign(without="+".join(gone))
        for gone in away
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MISSING)


def _as_prognosis(study: Study, model: str, fold: int, ids: list[str], forecast: Forecast, usual: float) -> Prognosis:
    keys = {"cohort": study.name, "model": model, "seed": study.params.training.seed, "repeat": 0, "fold": fold}
    table = pd.DataFrame({**keys, "split": "test" if fold == TEST_FOLD else "cv", "patient_id": ids})
    table["risk"], table["days"] = forecast.risk, forecast.days
    table["high_risk"] = table["risk"] > usual  # the training fold's median, never the evaluated patients'
    curves = pd.DataFrame(forecast.survival, columns=[f"s_{k}" for k in range(len(study.times))])
    return Prognosis(pd.concat([table, curves], axis=1), study.times)
