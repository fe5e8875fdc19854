"""Synthetic cohorts whose hazard is known, so that a model can be held against the truth."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from survpack.errors import BadInput

PHANTOMS = ("mets",)
CHOICES = ("patients", "sites", "spacing_mm", "seed")


def ensure(name: str, choices: dict, folder: Path, truth: Path) -> None:
    """Generate the phantom unless `folder` and `truth` are there, made by this code with these choices.

    Parameters
    ----------
    name : str
        One of `PHANTOMS`.
    choices : dict
        `patients`, `sites`, `spacing_mm`, `seed`; each has a default.
    folder, truth : Path
        The BIDS folder and the truth file to write.
    """
    unknown = set(choices) - set(CHOICES)
    if unknown:
        raise BadInput(
            f"params.yaml: cohort.{name} has {', '.join(sorted(unknown))}, but a phantom takes {', '.join(CHOICES)}, "
            "outcome and selection."
        )
    module = import_module(f"survpack.phantom.{name}")
    choices = {**module.DEFAULTS, **choices}
    if not (truth.exists() and _made_by(folder) == stamp(module.__name__, module.__file__, choices)):
        module.generate(folder, truth, **choices)


def stamp(name: str, file: str, choices: dict) -> dict:
    """What made a phantom (BIDS `GeneratedBy`): another choice or another line of code, another stamp."""
    code = sha256(Path(file).read_bytes()).hexdigest()[:12]
    return {"Name": name, "Version": code, "Choices": choices}


def _made_by(folder: Path) -> dict | None:
    path = folder / "dataset_description.json"
    return json.loads(path.read_text())["GeneratedBy"][0] if path.exists() else None
