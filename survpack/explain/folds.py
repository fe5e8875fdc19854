"""Networks for explanations: those of the folds again, and their like from other seeds or other outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from survpack.errors import BadInput
from survpack.models import Deep, Patients, build
from survpack.parallel import in_parallel
from survpack.study import TEST_FOLD, Study, fit_digest, fit_name

SAME = 1e-3  # of the risks' spread: two fits of one fold agree to this, and on one machine to the last bit
_KNOWN: dict[tuple, list] = {}  # the pairs of `out_of_fold`: several tables of one notebook ask for them


class Variant(NamedTuple):
    """One more fit of a model.

    Attributes
    ----------
    fold : int
        Whose training patients; `TEST_FOLD` is all of development.
    seed : int
        Added to `training.seed`.
    shuffled : bool
        Whether the outcomes are dealt out anew among the training patients, so that there is nothing to learn.
    """

    fold: int = TEST_FOLD
    seed: int = 0
    shuffled: bool = False


def refitted(study: Study, model: str, variants: Iterable[Variant]) -> dict[Variant, Deep]:
    """Fit a network again, side by side; weights are kept in `remembered`, by all that they depend on.

    Raises
    ------
    BadInput
        For a model that is no network.
    """
    if not isinstance(build(model, study.params), Deep):
        raise BadInput(f"params.yaml: `{model}` is no network; explain and prognosis ask for networks.")
    digest, variants = fit_digest(study, model), list(dict.fromkeys(variants))
    files = {
        one: study.paths.remembered
        / "explained"
        / model
        / f"{_name(one, digest, study.params.explain.seed)}.safetensors"
        for one in variants
    }
    bare = Study(study.name, study.params, study.paths)  # a process reads the patients itself
    jobs = [(_fit, (bare, model, one, file)) for one, file in files.items() if not file.exists()]
    if jobs:
        in_parallel(jobs, f"{study.name} {model}, to explain")
    return {one: _built(study, model, one, weights=file) for one, file in files.items()}


def out_of_fold(study: Study, model: str) -> list[tuple[Deep, Patients]]:
    """Each fold's network, and the patients it left out.

    Raises
    ------
    BadInput
        Where a network does not say again what it said in stage 03.
    """
    key = (str(study.paths.derived), model, fit_digest(study, model))
    if key not in _KNOWN:
        _KNOWN[key] = _checked(study, model)
    return _KNOWN[key]


def _checked(study: Study, model: str) -> list[tuple[Deep, Patients]]:
    folds = sorted(set(study.splits["fold"]) - {TEST_FOLD})
    found = refitted(study, model, [Variant(fold) for fold in folds])
    said = study.prognoses()[model].of("cv").table.set_index("patient_id")["risk"]
    pairs = [(network, study.patients.take(study.fold(one.fold)[1])) for one, network in found.items()]
    for network, held in pairs:
        risk, before = network.predict(held, study.times).risk, said.loc[held.outcome.index].to_numpy()
        if np.abs(risk - before).max() > SAME * max(before.std(), 1e-9):
            raise BadInput(
                f"{study.name}: `{model}` fitted again says other risks than its predictions in data/derived; the two "
                "come of other code or another machine: run `dvc repro` to remake the predictions."
            )
    return pairs


def _fit(study: Study, model: str, one: Variant, file: Path) -> None:
    _built(study, model, one).save(file)


def _built(study: Study, model: str, one: Variant, **known) -> Deep:
    train = study.patients.take(study.fold(one.fold)[0])
    if one.shuffled:
        order = np.random.default_rng([study.params.explain.seed, one.seed]).permutation(len(train.outcome))
        dealt = train.outcome.iloc[order].set_axis(train.outcome.index).assign(site=train.outcome["site"])
        train = replace(train, outcome=dealt)
    chosen = build(model, study.params)
    chosen.choice = chosen.choice.model_copy(update={"seed": chosen.choice.seed + one.seed})
    return chosen.fit(train, **known)


def _name(one: Variant, digest: str, dealt: int) -> str:
    shuffled = f"-shuffled-{one.seed}-{dealt}" if one.shuffled else ""
    return f"{fit_name(one.fold, digest)}-seed-{one.seed}{shuffled}"
