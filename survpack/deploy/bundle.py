"""A bundle: a trained network as a folder that can be given to others.

Two files: the weights (safetensors) and `bundle.json`, with all that is needed around them and all that is known of
them. No pickle. Of the patients it holds aggregates (medians among them), and where the curve is Breslow's the exact
days of all deaths in training, without who died, as a published survival curve shows them. The bundle's id is the
digest of all of it, and whatever was changed since is refused. Against someone who changes a bundle and its id there is
`expect`: the id as the giver said it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from survpack.deploy import quick_imports
from survpack.deploy.writing import is_there, require_writable, whole
from survpack.errors import BadInput
from survpack.numbers import without_nan

if TYPE_CHECKING:
    import pandas as pd

    from survpack.deploy.likeness import Likeness
    from survpack.models import Deep
    from survpack.params import Params
    from survpack.recalibration import Recalibration

FORMAT = 2
FACTS, WEIGHTS = "bundle.json", "weights.safetensors"
LARGEST = {FACTS: 100_000_000, WEIGHTS: 4_000_000_000}  # bytes; more is read by no one
KEYS = {
    "format": "of this file; another is refused",
    "survpack": "the version that made it",
    "id": "sha256 of all else here",
    "model": "its name in the study",
    "about": "in words",
    "weights": "sha256 of the weights' file",
    "cohort": "where the patients come from, and whether they are simulated",
    "schema": "what chart, scans and masks must look like",
    "params": "every choice of the study, preprocessing among them",
    "network": "its shape",
    "columns": "imputation and scaling of the chart and the lesion biomarkers",
    "objective": "what it was trained on, and the numbers learnt with it",
    "curve": "from risk to survival, where the objective gives none: Breslow's, on the exact days of deaths",
    "usual_risk": "the median among the training patients",
    "times": "days of survival curves, of params.yaml, to the last event of development",
    "recalibration": "of the curve, with its band",
    "likeness": "how unlike the training patients one may be",
    "reference": "the cohort's risk groups with their bounds on survival time, its typical patient and the mean of its images",
    "explanation": "how far the maps can be believed",
    "metrics": "scores out of fold, and of the test set where it was read",
    "training": "digest of data, choices and code, size, seed, profile",
    "probe": "what the network says of made-up input",
}
SAME = 1e-3  # of the risks' spread: weights and predictions of one fit agree to this


@dataclass(frozen=True)
class Bundle:
    """A model with all that a prognosis needs.

    Attributes
    ----------
    folder : Path
    about : dict
        `bundle.json`; `KEYS` tells what each key holds.
    model : Deep
        Ready to predict.
    recalibration : Recalibration
    likeness : Likeness
    times : ndarray, shape (k,), days
        Days of survival curves, as far as they were learnt.
    """

    folder: Path
    about: dict
    model: Deep
    recalibration: Recalibration
    likeness: Likeness
    times: np.ndarray

    @property
    def id(self) -> str:
        """`sha256:…` of all that is in it."""
        return self.about["id"]

    @cached_property
    def params(self) -> Params:
        """Every choice of the study."""
        from survpack.params import Params

        return Params.model_validate(self.about["params"])

    @cached_property
    def reference_frame(self) -> pd.DataFrame:
        """The typical patient's chart and biomarkers, one row."""
        import pandas as pd

        frame = pd.DataFrame([self.about["reference"]["frame"]])
        numeric = {name for name in frame if isinstance(frame[name][0], (int, float))}
        return frame.astype({name: float if name in numeric else object for name in frame})

    @cached_property
    def reference_embedding(self) -> np.ndarray:
        """The mean embedding of the training images, shape (1, members, …), float32."""
        return np.array(self.about["reference"]["embedding"], dtype=np.float32)


def make(study, model: str, folder: Path, *, explanation: dict | None = None) -> Bundle:
    """Write the network that `study` trained on its development patients as a bundle, and read it back.

    Parameters
    ----------
    study : Study
        Its stage 03 is done.
    model : str
        A key of `models.MODELS` that is a network.
    folder : Path
        Two files are written into it; others there stay.
    explanation : dict, optional
        `method`, `verdict`, `said`: what the tests of explanations found; read from the study where not given.

    Raises
    ------
    BadInput
        For a model that is no network or was not trained, where the weights say other than the predictions, and for a
        folder that cannot be written.
    """
    from survpack.models import Deep, build
    from survpack.study import fitted

    weights = study.paths.model(model) / WEIGHTS
    if not isinstance(build(model, study.params), Deep):
        raise BadInput(f"params.yaml: `{model}` is no network, and a bundle holds one; name a network.")
    if not weights.exists():
        raise BadInput(
            f"{weights}: not there, expected the weights of `{model}` trained on {study.name}; run the study first "
            f'(`make report COHORTS="{study.name}"`).'
        )
    folder = Path(folder)
    for name in (WEIGHTS, FACTS):
        require_writable(folder / name)
    network, tensors = fitted(study, model), weights.read_bytes()
    _require_own(study, model, network)
    content = _content(study, model, network, tensors, explanation)
    content["id"] = identity(content)
    for name, text in ((WEIGHTS, tensors), (FACTS, as_text(content).encode())):
        with whole(folder / name) as part:
            part.write_bytes(text)
    return load(folder)


def load(folder: Path, expect: str = "") -> Bundle:
    """Read a bundle, or refuse it.

    Parameters
    ----------
    folder : Path
    expect : str
        The id that it must have, where the caller knows it.

    Raises
    ------
    BadInput
        For what is no bundle, one of another format, one that was changed, another than expected, and one that does
        not say what it said when it was made.
    """
    quick_imports()
    folder = Path(folder)
    content, weights = read(folder, expect)
    try:
        return _built(folder, content, weights)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        raise BadInput(
            f"{folder / FACTS}: not the content of a bundle ({type(error).__name__}: {' '.join(str(error).split())[:200]}), "
            "expected what `python -m survpack bundle` writes; make it again."
        ) from None


def read(folder: Path, expect: str = "") -> tuple[dict, bytes]:
    """The content of `bundle.json` and the weights, once both are as they were written; see `load`."""
    folder = Path(folder)
    if not is_there(folder, Path.is_dir):
        raise BadInput(
            f"{folder}: no folder, expected a bundle ({FACTS} and {WEIGHTS}); `python -m survpack bundle COHORT` makes one."
        )
    text, weights = (_bytes(folder / name) for name in (FACTS, WEIGHTS))
    content = _parsed(folder / FACTS, text)
    if content.get("format") != FORMAT:
        raise BadInput(
            f"{folder / FACTS}: format {str(content.get('format'))[:20]}, expected {FORMAT}; use the version of survpack "
            "that made it, or make it again."
        )
    if not _unchanged(content, text):
        raise BadInput(f"{folder / FACTS}: changed since it was made, its id is another; take an unchanged copy.")
    if digest(weights) != content["weights"]:
        raise BadInput(f"{folder / WEIGHTS}: not the weights that {FACTS} names; take an unchanged copy of both.")
    if expect and expect != content["id"]:
        raise BadInput(
            f"{folder}: the bundle {content['id'][:19]}… of {content['model']}, expected {expect[:19]}…; give the one that "
            "is meant, or correct what is expected."
        )
    return content, weights


def _unchanged(content: dict, text: bytes) -> bool:
    """Whether this is what `make` wrote, to the byte."""
    try:
        return set(content) == set(KEYS) and as_text(content).encode() == text and content["id"] == identity(content)
    except (ValueError, RecursionError):  # what JSON has no form for: an infinite number, half a letter
        return False


def identity(content: dict) -> str:
    """The id of a bundle: a digest of all else in its JSON, the digest of its weights among it."""
    return digest(_canonical({key: value for key, value in content.items() if key != "id"}).encode())


def as_text(content: dict) -> str:
    """The one way in which a bundle's JSON is written: a line a key, in the order of `KEYS`."""
    lines = (f"{json.dumps(key)}: {_canonical(content[key])}" for key in KEYS)
    return "{\n" + ",\n".join(lines) + "\n}\n"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _canonical(tree) -> str:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _content(study, model: str, network, weights: bytes, explanation: dict | None) -> dict:
    """All of bundle.json but the id."""
    from survpack.deploy import rebuilt, reference
    from survpack.deploy.likeness import Likeness
    from survpack.recalibration import Recalibration

    train, scores = study.patients.take(study.development), study.params.scores
    prognosis, outcome = study.prognosis(model), study.outcome(study.development)
    own = prognosis.of("cv")
    parts = rebuilt.numbers(network, train)
    schema = reference.schema(network, train, study.cohort.labels)
    frame = reference.typical(schema, list(network.frame(train)))
    content = {
        "format": FORMAT,
        "survpack": version("survpack"),
        "model": model,
        "about": network.about,
        "weights": digest(weights),
        "cohort": reference.cohort(study),
        "schema": schema,
        "params": study.params.model_dump(mode="json"),
        **parts,
        "times": study.followed_times.tolist(),
        "recalibration": Recalibration.learn(own, outcome.reset_index(), scores.confidence).as_json(),
        "likeness": Likeness.learn(network, train).as_json(),
        "reference": reference.groups(own, outcome, study.horizon_days, scores.confidence, scores.coverage)
        | {"frame": frame, "embedding": reference.embedding(network, train)},
        "explanation": explanation or reference.explanation(study, model),
        "metrics": reference.scores(study, model, prognosis),
        "training": reference.training(study, model, train),
        "probe": rebuilt.probe(network, parts["network"], frame, study.params.crops.size),
    }
    return json.loads(json.dumps(without_nan(content), allow_nan=False))  # as it will be read


def _built(folder: Path, content: dict, weights: bytes) -> Bundle:
    from pydantic import ValidationError
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors

    from survpack.deploy import rebuilt
    from survpack.deploy.likeness import Likeness
    from survpack.params import Params
    from survpack.recalibration import Recalibration

    try:
        params, state = Params.model_validate(content["params"]), tensors(weights)
    except (ValidationError, SafetensorError) as error:
        raise BadInput(
            f"{folder}: its choices or weights are not readable ({str(error).splitlines()[0]}), expected those of this "
            f"version of survpack; use version {str(content['survpack'])[:20]}, or make the bundle again."
        ) from None
    model = rebuilt.network(content, params, state)
    now = rebuilt.probe(model, content["network"], content["reference"]["frame"], content["probe"]["size"])
    rebuilt.require_same(content["probe"], now)
    learned = Recalibration.from_json(content["recalibration"]), Likeness.from_json(content["likeness"])
    times = np.array(content["times"], float)
    if times.ndim != 1 or not len(times) or not (np.diff(times, prepend=0.0) > 0).all():
        raise ValueError("times that do not rise")
    return Bundle(folder, content, model, *learned, times)


def _require_own(study, model: str, network) -> None:
    """The weights must say of the held-out patients what stage 03 said; their outcomes are not read."""
    said = study.prognosis(model).of("test").table.set_index("patient_id")["risk"]
    if said.empty:
        return
    risk = network.predict(study.patients.take(said.index), study.times).risk
    if np.abs(risk - said.to_numpy()).max() > SAME * max(float(said.std(ddof=0)), 1e-9):
        raise BadInput(
            f"{study.name}: the weights of `{model}` say other risks than its predictions in data/derived; the two come "
            "of other code or another machine: run `dvc repro` to remake them."
        )


def _bytes(path: Path) -> bytes:
    """A file whole, if it is one and not too large."""
    try:
        size = path.stat().st_size if path.is_file() else -1
        if 0 <= size <= LARGEST[path.name]:
            return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: not readable ({error.strerror}), expected a bundle's file; mend its rights.") from None
    found = "not there" if size < 0 else f"{size / 1e6:.0f} MB"
    expected = "a bundle's file" if size < 0 else f"{LARGEST[path.name] / 1e6:.0f} MB at most"
    raise BadInput(f"{path}: {found}, expected {expected}; `python -m survpack bundle COHORT` makes a bundle.")


def _parsed(path: Path, text: bytes) -> dict:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise BadInput(
            f"{path}: no JSON object, expected what `python -m survpack bundle` writes; take an unchanged copy."
        )
    return content
