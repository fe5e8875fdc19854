"""The typed view of params.yaml, with the profile's changes applied."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from survpack.errors import BadInput
from survpack.paths import PARAMS, written_whole

Positive = Annotated[float, Field(gt=0)]


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("expected the lower end first")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Splits(_Section):
    folds: int = Field(ge=2)
    test_fraction: float = Field(gt=0, lt=0.5)
    seed: int
    given: dict[str, str] = {}


class Tables(_Section):
    suppress_below: int = Field(ge=0)


class Resample(_Section):
    image: Literal["spline", "linear"]
    mask: Literal["nearest", "half"]


class MR(_Section):
    normalise: Literal["zscore", "nyul", "whitestripe", "none"]
    n4: bool


class CT(_Section):
    range_hu: Range


class PT(_Section):
    range_suv: Range


class Preprocess(_Section):
    orientation: Literal["LPS", "RAS"]
    resample: Resample
    mr: MR
    ct: CT
    pt: PT


class Bins(_Section):
    """Grey levels of textures: a fixed number of them, or a fixed width."""

    number: int | None = Field(default=None, ge=2)
    width: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Bins:
        if (self.number is None) == (self.width is None):
            raise ValueError("needs either `number` or `width`")
        return self


class Biomarkers(_Section):
    spacing_mm: dict[str, Positive]
    bins: dict[Literal["mr", "ct", "pt"], Bins]
    regions: list[Literal["tumour", "enhancing", "necrosis", "oedema", "whole"]] = Field(min_length=1)
    families: list[Literal["morphology", "intensity", "histogram", "glcm", "glrlm", "glszm", "ngldm", "ngtdm"]]
    filters: list[str]
    lesions: Literal["pooled", "largest", "volume-weighted"]
    seed: int


class Robustness(_Section):
    patients: int = Field(ge=3)
    perturbations: list[Literal["shrink", "grow", "contour", "noise", "resample"]] = Field(min_length=1)
    seed: int


class Selection(_Section):
    measured: float = Field(ge=0, le=1)
    icc: float = Field(ge=0, le=1)
    correlation: float = Field(gt=0, le=1)
    harmonise: bool


class Crops(_Section):
    size: int = Field(ge=32, multiple_of=32)  # the encoders halve it five times
    spacing_mm: dict[str, Positive]
    ct_window_hu: Range
    suv_max: float = Field(gt=0)


class Augment(_Section):
    rotate_deg: float = Field(ge=0, le=180)
    scale: float = Field(ge=0, lt=1)
    shift: float = Field(ge=0, lt=0.5)
    intensity: float = Field(ge=0)
    noise: float = Field(ge=0)
    cutout: float = Field(ge=0, le=1)
    modality_dropout: float = Field(ge=0, lt=1)


class Training(_Section):
    epochs: dict[str, Annotated[int, Field(ge=1)]]
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)
    members: int = Field(ge=1)
    inner_fraction: float = Field(ge=0, lt=0.5)
    patience: int = Field(ge=1)
    precision: Literal["auto", "float32", "bfloat16"]
    augment: Augment
    mirror: dict[str, bool]
    published: dict[str, str]
    seed: int


class Classical(_Section):
    lesion: list[str] = Field(min_length=1)
    ridge: float = Field(ge=0)
    l1_ratio: float = Field(gt=0, le=1)
    inner_folds: int = Field(ge=2)
    trees: int = Field(ge=1)
    min_leaf: int = Field(ge=1)
    budget: int = Field(ge=1)
    seed: int


class Longitudinal(_Section):
    landmarks_days: dict[str, Annotated[list[Positive], Field(min_length=1)]]
    epochs: int = Field(ge=1)
    width: int = Field(ge=1)
    ridge: float = Field(gt=0)
    seed: int


class Transfer(_Section):
    sources: dict[str, list[str]]
    sizes: list[Annotated[int, Field(ge=4)]] = Field(min_length=1)
    epochs: int = Field(ge=1)
    pretrain_epochs: int = Field(ge=1)
    seed: int


class SmallCell(_Section):
    patients: int = Field(ge=1)
    events: int = Field(ge=1)


class Scores(_Section):
    bootstrap: int = Field(ge=10)
    confidence: float = Field(gt=0.5, lt=1)
    seed: int
    horizon_days: dict[str, Positive]
    horizons_days: dict[str, Annotated[list[Positive], Field(min_length=1)]]
    small_cell: SmallCell
    coverage: float = Field(gt=0.5, lt=1)
    test_reading: Literal["once", "again"]
    shown: list[str]
    compare: list[tuple[str, str]]


class Gate(_Section):
    permutations: int = Field(ge=1)
    level: float = Field(gt=0.5, lt=1)
    seed: int


class Designs(_Section):
    models: list[str] = Field(min_length=1)
    external: list[str] | Literal["all"] = "all"
    repeats: int = Field(ge=1)
    network_repeats: int = Field(ge=1)
    folds: int = Field(ge=2)
    seeds: int = Field(ge=1)
    harmonised: str
    date: str
    seed: int


class Audit(_Section):
    slices: int = Field(ge=2)
    folds: int = Field(ge=2)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    augmentations: int = Field(ge=1)
    claim: float = Field(gt=0, lt=1)
    seed: int


class Explain(_Section):
    model: str
    beside: list[str]
    shap_model: str
    repeats: int = Field(ge=1)
    patients: int = Field(ge=1)
    scored: int = Field(ge=2)
    steps: int = Field(ge=2)
    window: int = Field(ge=2)
    seeds: int = Field(ge=1)
    seed: int


class Deployed(_Section):
    """What is given to others: `prognosis` in params.yaml."""

    model: str
    horizons_days: list[Positive] = Field(min_length=1)
    drawn: int = Field(ge=1)
    seed: int


class Params(_Section):
    """Every choice of the study; see the comments in params.yaml for the meaning of each."""

    cohorts: list[str] = Field(min_length=1)
    profile: str
    models: list[str] = Field(min_length=1)
    cohort: dict[str, dict[str, Any]]
    splits: Splits
    tables: Tables
    preprocess: Preprocess
    biomarkers: Biomarkers
    robustness: Robustness
    selection: Selection
    crops: Crops
    training: Training
    classical: Classical
    longitudinal: Longitudinal
    transfer: Transfer
    scores: Scores
    gate: Gate
    designs: Designs
    audit: Audit
    explain: Explain
    prognosis: Deployed


def load(path: Path = PARAMS) -> Params:
    """Read params.yaml and apply its chosen profile.

    Raises
    ------
    BadInput
        For an unknown profile, an unknown key, or a value out of its range.
    """
    return _parsed(_text(path), path)


def _parsed(text: str, path: Path) -> Params:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not readable as YAML ({' '.join(str(error).split())}); correct it there.") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: no choices found; restore it (git checkout params.yaml).")
    profiles = raw.pop("profiles", {})
    if raw.get("profile") not in profiles:
        raise BadInput(
            f"{path}: profile '{raw.get('profile')}' is not one of {', '.join(profiles)}; "
            "choose one of these in params.yaml or with PROFILE=…."
        )
    try:
        return Params.model_validate(_merge(raw, profiles[raw["profile"]] or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"{path}: `{where}` is {first.get('input')!r}, but {first['msg'].lower()}; correct it there."
        ) from None


def per_cohort(table: dict[str, float], cohort: str) -> float:
    """The number for `cohort`, or that of `other`.

    Raises
    ------
    BadInput
        Where there is neither.
    """
    if cohort not in table and "other" not in table:
        raise BadInput(f"params.yaml: no number for cohort '{cohort}' among {table}; add `{cohort}` or `other` there.")
    return table.get(cohort, table.get("other"))


def choose(path: Path = PARAMS, *, cohorts: list[str] | None, profile: str | None) -> None:
    """Write the cohorts and the profile of this run into params.yaml, keeping all else as it is.

    What stood there before is remembered in a comment on the line, and comes back on the next
    run that does not ask for something else: `make report` always means the file's own choice.

    Raises
    ------
    BadInput
        As `load`; the file is then left as it was.
    """
    text = _text(path)
    chosen = _set_line(text, "cohorts", cohorts and f"[{', '.join(cohorts)}]")
    chosen = _set_line(chosen, "profile", profile)
    _parsed(chosen, path)
    if chosen != text:
        with written_whole(Path(path)) as part:
            part.write_bytes(chosen.encode())


def _text(path: Path) -> str:
    return Path(path).read_bytes().decode()  # line ends as they are


_MEMORY = "  # this run only; otherwise: "


def _set_line(text: str, key: str, value: str | None) -> str:
    found = re.search(rf"^{key}: .*$", text, re.MULTILINE)
    if not found and value is None:
        return text
    if not found:
        raise BadInput(f"params.yaml: no line `{key}: …`; write it on one line, such as `cohorts: [mets]`.")
    line = found.group()
    own = f"{key}: {line.split(_MEMORY)[1]}" if _MEMORY in line else line
    own_value = own.split("#")[0].removeprefix(f"{key}:").strip()
    changed = own if value in (None, own_value) else f"{key}: {value}{_MEMORY}{own.removeprefix(key + ': ')}"
    return text[: found.start()] + changed + text[found.end() :]


def _merge(base: dict, changes: dict) -> dict:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
