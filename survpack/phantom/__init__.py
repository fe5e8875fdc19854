"""Synthetic cohorts whose hazard is known, so that a model can be held against the truth."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from survpack.errors import BadInput

PHANTOMS = ("mets", "chest")


def ensure(name: str, choices: dict, folder: Path, truth: Path) -> None:
    """Generate the phantom unless `folder` and `truth` are there, made by this code with these choices.

    Parameters
    ----------
    name : str
        One of `PHANTOMS`.
    choices : dict
        Some of the phantom's `DEFAULTS`; a nested choice may be given in part.
    folder, truth : Path
        The BIDS folder and the truth (parquet, and JSON of that name) to write.
    """
    module = import_module(f"survpack.phantom.{name}")
    choices = _completed(choices, module.DEFAULTS, f"cohort.{name}")
    if not (
        truth.exists() and truth.with_suffix(".json").exists() and _made_by(folder) == stamp(module.__name__, choices)
    ):
        module.generate(folder, truth, **choices)


def stamp(name: str, choices: dict) -> dict:
    """What made a phantom (BIDS `GeneratedBy`): another choice or another line of code, another stamp."""
    code = sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
    return {"Name": name, "Version": code.hexdigest()[:12], "Choices": choices}


def _completed(choices: dict, defaults: dict, where: str) -> dict:
    """The choices with every default filled in."""
    if not isinstance(choices, dict):
        raise BadInput(f"params.yaml: {where} is {choices!r}, but takes {', '.join(defaults)}, each with its value.")
    unknown = set(choices) - set(defaults)
    if unknown:
        raise BadInput(
            f"params.yaml: {where} has {', '.join(sorted(unknown))}, but takes {', '.join(defaults)}"
            f"{', outcome and selection' if where.count('.') == 1 else ''}."
        )
    nested = {key: _completed(choices.get(key) or {}, value, f"{where}.{key}")
              for key, value in defaults.items() if isinstance(value, dict)}  # fmt: skip
    return {**defaults, **choices, **nested}


def _made_by(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "dataset_description.json").read_text())["GeneratedBy"][0]
    except (OSError, ValueError, LookupError, TypeError):  # not there, or cut off: made again
        return None
