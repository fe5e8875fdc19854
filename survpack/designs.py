"""Other ways to split the patients, and the fits of the same models on each; `designs_scores` scores them.

Only development patients are dealt anew: the test set stays locked in every design. All that a model learns
(selection, scale, ComBat, penalties) it learns inside the training patients of a plan, as in stage 03.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack import few, shared, splits
from survpack.cohort import TUMOUR
from survpack.models import CONTROL, Classical, Deep, Patients, Stack, build, lacking
from survpack.parallel import in_parallel
from survpack.params import AUTO, Designs, per_cohort
from survpack.radiomics import COLUMN
from survpack.study import Study, fit_digest

REPEATED, BY_SITE, TEMPORAL, EXTERNAL = "repeated", "by-site", "temporal", "external"
CROPS, WINDOW, CUBES = "crops.spacing_mm", "crops.ct_window_hu", "biomarkers.spacing_mm"  # alike, or not shared
SHARED = "shared-cox"  # ridge Cox on what two cohorts both know
ELSEWHERE = ("age", "volume", SHARED)  # first of the external design; then every model that both cohorts can have
HELD_SHARE = 0.25  # of patients, the latest, in the temporal design
KEYS = ["model", "design", "source", "repeat", "seed", "fold", "left_out", "harmonised", "train", "patient_id"]


class Plan(NamedTuple):
    """Who is learnt from and who is predicted."""

    design: str
    repeat: int
    fold: int
    train: tuple[str, ...]
    held: tuple[str, ...]
    source: str = ""  # the cohort of `train`, where it is another
    left_out: str = ""  # the site, or the dates


class Fit(NamedTuple):
    """One model on one plan."""

    plan: Plan
    model: str
    seed: int  # added to `training.seed`
    harmonised: bool  # `selection.harmonise`


# --- plans ---------------------------------------------------------------------------------------------------------


def repeated(study: Study, choice: Designs) -> list[Plan]:
    """Cross-validation on `choice.repeats` other splits, stratified by event, time and site as far as numbers allow."""
    table = study.outcome(sorted(study.development)).reset_index()
    table["event"] = table["event"].astype(bool)
    folds = min(choice.folds, int(table["event"].sum()))
    plans = []
    for repeat in range(choice.repeats if folds > 1 else 0):
        dealt = splits._folds(table, folds, choice.seed + repeat)
        for fold in range(folds):
            plans.append(_plan(REPEATED, repeat, fold, dealt.index[dealt != fold], dealt.index[dealt == fold]))
    return plans


def by_site(study: Study) -> list[Plan]:
    """Each site is left out once; nothing where there is one, or where what is left could teach nothing.

    A site below `scores.small_cell` is learnt from and never left out. A patient whose site is not told is in no plan.
    """
    site = study.sites.loc[sorted(study.development)].dropna()
    plans = []
    for fold, name in enumerate(sorted(site.unique())):
        train, held = site.index[site != name], site.index[site == name]
        if _enough(study, train) and _enough(study, held):
            plans.append(_plan(BY_SITE, 0, fold, train, held, left_out=str(name)))
    return plans


def temporal(study: Study) -> list[Plan]:
    """The latest quarter of patients is left out, by the column `designs.date`; nothing where there is no such column.

    Training patients are followed beyond that date, so this tests a change of patients and care, not of follow-up.
    """
    found = _dates(study)
    if found.empty:
        return []
    border = found.quantile(1 - HELD_SHARE, interpolation="lower")
    train, held = found.index[found <= border], found.index[found > border]
    if not (_enough(study, train) and _enough(study, held)):
        return []
    return [_plan(TEMPORAL, 0, 0, train, held, left_out=f"after {border:%Y-%m-%d}")]


def external(study: Study, others: list[Study]) -> list[Plan]:
    """Learnt from another cohort's development patients, read on this one's.

    Who is a patient of both is not learnt from, whether held out here or locked away in the test set. None where too few
    deaths are left to learn from, and where it cannot be told who is in both (`shared.unknown`).
    """
    held, found = sorted(study.development), []
    for number, other in enumerate(others):
        if other.name == study.name or shared.unknown(study, other):
            continue
        here = set(shared.pairs(study, other)["other_patient_id"])
        train = [patient for patient in sorted(other.development) if patient not in here]
        if _enough(other, train):
            found.append(_plan(EXTERNAL, 0, number, train, held, source=other.name, left_out=study.name))
    return found


def plans(study: Study, others: list[Study] = ()) -> list[Plan]:
    """All of them."""
    return [*repeated(study, study.params.designs), *by_site(study), *temporal(study), *external(study, list(others))]


def absent(study: Study, others: list[Study] = ()) -> dict[str, str]:
    """Why a design has no plan here: design to sentence; empty where all have one."""
    least, told = study.params.scores.small_cell, study.sites.loc[study.development].dropna().unique()
    few = f"{least.patients} patients and {least.events} events"
    why = {
        REPEATED: "there is no death in two folds.",
        BY_SITE: "the site of no development patient is told."
        if not len(told)
        else f"the development patients come from one site ({told[0]})."
        if len(told) < 2
        else f"none of {len(told)} sites has {few} both inside it and outside it.",
        TEMPORAL: f"the chart has no dates in a column `{study.params.designs.date}`."
        if _dates(study).empty
        else f"the latest quarter, or what comes before it, has fewer than {few}.",
        EXTERNAL: next(
            filter(None, (shared.unknown(study, other) for other in others)),
            "the study has no other cohort with enough deaths; add one to `cohorts` in params.yaml.",
        ),
    }
    made = {plan.design for plan in plans(study, others)}
    return {design: sentence for design, sentence in why.items() if design not in made}


def in_common(study: Study, source: Study) -> tuple[Patients, Patients]:
    """Patients of the source and of the study as models that both can have see them.

    Chart variables of one name, kind, unit and levels; biomarkers of one name, of which grey levels and textures only where
    both were measured in cubes of one size; images, and masks of the labels that both have, where both have the same modalities
    and kinds of tumour in voxels of one size, and CT in one window, else none.
    """
    ours, theirs = study.cohort.dictionary, source.cohort.dictionary
    chart = [name for name in theirs if name in ours and _meaning(ours[name]) == _meaning(theirs[name])]
    both, labels = (source.patients, study.patients), [_labels(source), _labels(study)]
    alike = both[0].modalities == both[1].modalities and _same(source, study, CROPS)
    alike &= "ct" not in both[0].modalities or _same(source, study, WINDOW)
    alike &= all(one.masks.shape[1] == len(own) for one, own in zip(both, labels, strict=True))
    alike &= {*labels[0]} & {*TUMOUR} == {*labels[1]} & {*TUMOUR}
    places = [[own.index(name) for name in labels[0] if name in labels[1]] for own in labels]
    tables = {
        name: getattr(both[0], name).columns.intersection(getattr(both[1], name).columns, sort=False)
        for name in ("biomarkers", "shuffled", "noise", "perturbed")
    }
    if not _same(source, study, CUBES):
        tables = {name: [each for each in columns if not _of_cubes(each)] for name, columns in tables.items()}
    found = [
        replace(
            one, clinical=one.clinical[chart], dictionary={name: theirs[name] for name in chart},
            images=one.images if alike else one.images[:, :0], masks=one.masks[:, seen] if alike else one.masks[:, :0],
            present=one.present if alike else one.present[:, :0], modalities=one.modalities if alike else [],
            **{name: getattr(one, name)[columns] for name, columns in tables.items()},
        )
        for one, seen in zip(both, places, strict=True)
    ]  # fmt: skip
    return found[0], found[1]


def unlike(study: Study, others: list[Study]) -> list[str]:
    """Of each other cohort that was measured otherwise: which models it then cannot teach, and how to mend that."""
    kept = {CROPS: "networks", WINDOW: "networks", CUBES: "grey levels and textures"}
    return [
        f"{other.name}: no {what} are learnt there, since {place} is {_shown(other, place)}, and {_shown(study, place)} here; "
        "write one value for both in params.yaml if they are meant to."
        for other in others
        for place, what in kept.items()
        if other.name != study.name
        and not _same(other, study, place)
        and (place != WINDOW or "ct" in {*other.cohort.modalities} & {*study.cohort.modalities})
    ]


def _labels(study: Study) -> list[str]:
    return list(dict.fromkeys(study.cohort.labels.values()))


def _same(source: Study, study: Study, place: str) -> bool:
    return _setting(source, place) == _setting(study, place)


def _setting(study: Study, place: str):
    section, key = place.split(".")
    return per_cohort(getattr(getattr(study.params, section), key), study.name, lambda: AUTO)


def _shown(study: Study, place: str) -> str:
    value = _setting(study, place)
    return " to ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else f"{value:g}"


def _of_cubes(name: str) -> bool:
    """Whether a biomarker is of grey values that were resampled; shape hardly depends on it, and what is given does not."""
    match = COLUMN.match(name)
    return bool(match and match["sequence"])


def shared_columns(source: Patients, choice) -> list[str]:
    """What `SHARED` is learnt from: the chart of `in_common`, then lesion biomarkers of params.yaml."""
    return [*source.clinical, *(name for name in choice.lesion if name in source.lesion)]


def _meaning(entry: dict) -> tuple:
    levels = entry.get("levels") or []
    return entry["kind"], entry.get("unit"), tuple(levels if entry["kind"] == "ordered" else sorted(levels))


def _plan(design, repeat, fold, train, held, **more) -> Plan:
    return Plan(design, repeat, fold, tuple(train), tuple(held), **more)


def _enough(study: Study, ids) -> bool:
    return few.enough(study.outcome(ids)["event"], study.params.scores.small_cell)


def _dates(study: Study) -> pd.Series:
    """Date of each development patient who has one, by `patient_id`; a plain number is a year."""
    table, column = study.cohort.participants.set_index("patient_id"), study.params.designs.date
    if column not in table:
        return pd.Series(dtype="datetime64[ns]")
    told = table.loc[sorted(study.development), column]
    if pd.api.types.is_numeric_dtype(told):
        told = pd.to_datetime(told.round().astype("Int64").astype("string"), format="%Y", errors="coerce")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a column that is no date: it is then NaT throughout
        return pd.to_datetime(told, errors="coerce").dropna()


# --- fits ----------------------------------------------------------------------------------------------------------


def fit_designs(study: Study, others: list[Study] = ()) -> pd.DataFrame:
    """Fit `designs.models` on every plan and predict whoever it leaves out.

    A finished fit is a file named for all that it depends on, under `remembered`: a run that was killed goes on after
    it, and another way to score refits nothing.

    Parameters
    ----------
    study : Study
    others : list of Study
        Cohorts of the external design.

    Returns
    -------
    DataFrame
        `KEYS`, `risk`, `days`, and curves `s_0 …` on `study.times`. `train` is the number of training patients,
        `source` another cohort that was learnt from, `left_out` the site, the dates or the cohort predicted.
    """
    near = {one.name: Study(one.name, one.params, one.paths) for one in [study, *others]}  # a process reads patients
    digests = {name: _digest(one) for name, one in near.items()}
    folder, jobs, places = study.paths.remembered / "designs", [], []
    for fit in fits(study, plans(study, others)):
        known = f"{digests[study.name]} {digests.get(fit.plan.source)} {fit}"
        places.append(folder / f"{fit.plan.design}-{hashlib.sha256(known.encode()).hexdigest()[:16]}.parquet")
        if not places[-1].exists():
            jobs.append((_fit_one, (near[study.name], near.get(fit.plan.source), fit, places[-1])))
    slow = {model: _is_slow(study, model) for model in study.params.designs.models}
    networks = any(_is_slow(study, name) for name in {job[1][2].model for job in jobs} - {SHARED})
    in_parallel(
        sorted(jobs, key=lambda job: not slow.get(job[1][2].model)), f"{study.name}: designs", networks=networks
    )
    for old in {*folder.glob("*.parquet")} - {*places}:
        old.unlink()
    parts = [part for part in map(pd.read_parquet, places) if len(part)]
    columns = [*KEYS, "risk", "days", *(f"s_{k}" for k in range(len(study.times)))]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def fits(study: Study, made: list[Plan]) -> list[Fit]:
    """What is fitted on which plan: networks on fewer repeats, and from more seeds on the first."""
    choice, usual = study.params.designs, study.params.selection.harmonise
    found = []
    for model in [model for model in choice.models if not lacking(model, study.patients)]:
        slow = _is_slow(study, model)
        for plan in (plan for plan in made if plan.design != EXTERNAL):
            if slow and plan.repeat >= choice.network_repeats:
                continue
            seeds = choice.seeds if slow and plan.design == REPEATED and plan.repeat == 0 else 1
            both = plan.design == BY_SITE and model == choice.harmonised
            found += [Fit(plan, model, seed, usual) for seed in range(seeds)]
            found += [Fit(plan, model, 0, not usual)] if both else []
    asked = study.params.models if choice.external == "all" else choice.external
    elsewhere = [*dict.fromkeys([*ELSEWHERE, *(name for name in asked if not name.startswith(CONTROL))])]
    return found + [Fit(plan, model, 0, usual) for plan in made if plan.design == EXTERNAL for model in elsewhere]


def _is_slow(study: Study, model: str) -> bool:
    return isinstance(build(model, study.params), (Deep, Stack))


def _fit_one(study: Study, source: Study | None, fit: Fit, place: Path) -> None:
    """One fit into its file; without rows where the two cohorts do not share what the model needs."""
    plan = fit.plan
    learnt, read = in_common(study, source) if source else (study.patients, study.patients)
    chosen = _elsewhere(study, learnt, fit) if source else build(fit.model, _choices(study, fit))
    held = list(plan.held) if chosen else []
    told = {name: value for name, value in (fit._asdict() | plan._asdict()).items() if name in KEYS}
    table = pd.DataFrame({**told, "train": len(plan.train), "patient_id": held})[KEYS].assign(risk=0.0, days=0.0)
    curves = np.zeros((len(held), len(study.times)))
    if chosen:
        label = f"{study.name}, {plan.design}, fold {plan.fold}: {fit.model}"
        chosen.fit(_ready(study, learnt.take(plan.train)), label=label)
        table["risk"], table["days"], curves = chosen.predict(_ready(study, read.take(held)), study.times)
    curves = pd.DataFrame(curves, columns=[f"s_{k}" for k in range(len(study.times))])
    study.save_table(place, pd.concat([table, curves], axis=1))


def _choices(study: Study, fit: Fit):
    params = study.params
    training = params.training.model_copy(update={"seed": params.training.seed + fit.seed})
    selection = params.selection.model_copy(update={"harmonise": fit.harmonised})
    return params.model_copy(update={"training": training, "selection": selection})


def _ready(study: Study, patients: Patients) -> Patients:
    """The patients, without the date of their scan: a later one is never among those learnt."""
    return replace(patients, clinical=patients.clinical.drop(columns=study.params.designs.date, errors="ignore"))


def _elsewhere(study: Study, source: Patients, fit: Fit):
    """A model of what both cohorts know; None where they do not share what it needs."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    if fit.model != SHARED:
        return None if lacking(fit.model, source) else build(fit.model, _choices(study, fit))
    names = shared_columns(source, study.params.classical)
    estimator = CoxPHSurvivalAnalysis(alpha=study.params.classical.ridge)
    return Classical(partial(_columns, names=names), estimator) if names else None


def _columns(patients: Patients, names: list[str]) -> pd.DataFrame:
    chart, measured = patients.clinical, patients.biomarkers
    return pd.DataFrame({name: chart[name] if name in chart else measured[name] for name in names})


def _digest(study: Study) -> str:
    """Data, choices and code of a cohort's fits; the choice of designs is in each fit itself."""
    named = f"{study.params.designs.date} {fit_digest(study, 'designs')}"
    return hashlib.sha256(Path(__file__).read_bytes() + named.encode()).hexdigest()[:12]
