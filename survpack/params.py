"""The typed view of params.yaml, with the profile's changes applied.

A number is a number: neither a quoted one nor `true` stands for it. The file is its owner's: what `make report` was
asked for goes into a copy, which that run and its stages read, and nothing is ever written into params.yaml itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)

from survpack.errors import BadInput
from survpack.numbers import known
from survpack.params_file import read, sentence, shown, write
from survpack.paths import PARAMS

MOST = 1_000_000  # of what is counted: more is a slip of the hand
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[float, Field(ge=0.05, le=100)]  # of a voxel, mm
AUTO = "auto"  # a cohort's own, which stage 01 finds (`settings`)


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("the lower end first")
    return ends


def _once(names: list[str]) -> list[str]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"each name once (`{twice[0]}` is there twice)")
    return names


def _known_to_cohorts(choices: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(choices.get("outcome") or "", str):
        raise ValueError("the name of an outcome under `outcome`")
    rules = choices.get("selection") or {}
    if not isinstance(rules, dict) or not all(isinstance(rule, str) for rule in rules.values()):
        raise ValueError("steps with a rule each under `selection`, such as `follow-up recorded: time_days > 0`")
    return choices


Range = Annotated[tuple[float, float], Strict(False), AfterValidator(_ordered)]
Pair = Annotated[tuple[str, str], Strict(False)]
Word = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # it is part of a command and of a path
Names = Annotated[list[Word], Field(min_length=1), AfterValidator(_once)]
Days = Annotated[list[Positive], Field(min_length=1)]
_Auto = WrapValidator(
    lambda value, check: AUTO if value == AUTO else check(value)
)  # no union: its errors name a branch
_AsIs = PlainSerializer(lambda value: value)
AutoPositive, AutoSide, AutoDays, AutoRange = (Annotated[kind, _Auto, _AsIs] for kind in (Positive, Side, Days, Range))


def _one_or_by_cohort(value: Any, check) -> Any:
    return _RANGES.validate_python(value) if isinstance(value, dict) else check(value)


_RANGES = TypeAdapter(dict[str, AutoRange], config=ConfigDict(strict=True, allow_inf_nan=False))
Seed = Annotated[int, Field(ge=0, le=4_000_000_000)]  # what NumPy, scikit-learn and PyTorch all take


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Splits(_Section):
    folds: int = Field(ge=2)
    test_fraction: float = Field(gt=0, lt=0.5)
    seed: Seed
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
            raise ValueError("either `number` or `width`")
        return self


class Biomarkers(_Section):
    spacing_mm: dict[str, AutoSide]
    bins: dict[Literal["mr", "ct", "pt"], Bins]
    regions: list[Literal["tumour", "enhancing", "necrosis", "oedema", "whole"]] = Field(min_length=1)
    families: list[Literal["morphology", "intensity", "histogram", "glcm", "glrlm", "glszm", "ngldm", "ngtdm"]]
    filters: list[str]
    lesions: Literal["pooled", "largest", "volume-weighted"]
    seed: Seed


class Robustness(_Section):
    patients: int = Field(ge=3)
    perturbations: list[Literal["shrink", "grow", "contour", "noise", "resample"]] = Field(min_length=1)
    seed: Seed


class Selection(_Section):
    measured: float = Field(ge=0, le=1)
    icc: float = Field(ge=0, le=1)
    correlation: float = Field(gt=0, le=1)
    harmonise: bool


class Crops(_Section):
    size: int = Field(ge=32, le=512, multiple_of=32)  # the encoders halve it five times
    spacing_mm: dict[str, AutoSide]
    ct_window_hu: Annotated[Range, WrapValidator(_one_or_by_cohort), _AsIs]  # or a dict of them, by cohort
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
    epochs: dict[str, Annotated[int, Field(ge=1, le=MOST)]]
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)
    members: int = Field(ge=1, le=MOST)
    inner_fraction: float = Field(ge=0, lt=0.5)
    patience: int = Field(ge=1, le=MOST)
    precision: Literal["auto", "float32", "bfloat16"]
    augment: Augment
    mirror: dict[str, bool]
    published: dict[str, str]
    seed: Seed


class Classical(_Section):
    lesion: list[str] = Field(min_length=1)
    ridge: float = Field(ge=0)
    l1_ratio: float = Field(gt=0, le=1)
    inner_folds: int = Field(ge=2)
    trees: int = Field(ge=1, le=MOST)
    min_leaf: int = Field(ge=1, le=MOST)
    budget: int = Field(ge=1, le=MOST)
    seed: Seed


class Longitudinal(_Section):
    landmarks_days: dict[str, AutoDays]
    epochs: int = Field(ge=1, le=MOST)
    width: int = Field(ge=1, le=MOST)
    ridge: float = Field(gt=0)
    seed: Seed


class Transfer(_Section):
    sources: dict[str, list[str]]
    sizes: list[Annotated[int, Field(ge=4)]] = Field(min_length=1)
    epochs: int = Field(ge=1, le=MOST)
    pretrain_epochs: int = Field(ge=1, le=MOST)
    seed: Seed


class SmallCell(_Section):
    patients: int = Field(ge=1, le=MOST)
    events: int = Field(ge=1, le=MOST)


class Inflation(_Section):
    at_chance: float = Field(ge=1, le=10)
    none_from: float = Field(gt=0.5, le=1)
    repeats: float = Field(ge=1, le=10)

    def at(self, concordance: float | None) -> float:
        """Of a model of this concordance: straight from `at_chance` at 0.5 and below to 1 at `none_from`."""
        left = (self.none_from - concordance) / (self.none_from - 0.5) if known(concordance) else 1.0
        return 1 + (self.at_chance - 1) * min(max(left, 0.0), 1.0)


class Scores(_Section):
    bootstrap: int = Field(ge=10, le=MOST)
    confidence: float = Field(gt=0.5, lt=1)
    inflation: Inflation
    seed: Seed
    horizon_days: dict[str, AutoPositive]
    horizons_days: dict[str, AutoDays]
    small_cell: SmallCell
    coverage: float = Field(gt=0.5, lt=1)
    test_reading: Literal["once", "again"]
    shown: list[str]
    compare: list[Pair]

    def resampling(self, concordance: float | None = None, *, fitted: bool = True) -> dict:
        """How `inference.bootstrap` resamples patients.

        Parameters
        ----------
        concordance : float, optional
            Of the model, or the mean of those that are compared; not known counts as chance.
        fitted : bool
            Whether the folds of these patients taught the models that predict them.
        """
        drawn = {"repeats": self.bootstrap, "confidence": self.confidence, "seed": self.seed}
        return {**drawn, "inflation": self.inflation.at(concordance) if fitted else 1.0}


class Curves(_Section):
    """The days of survival curves: `prognosis.time_grid`."""

    last_day: float = Field(gt=0, le=40_000)  # more than a century is a slip of the hand
    days: int = Field(ge=10, le=1000)


class Gate(_Section):
    permutations: int = Field(ge=1, le=MOST)
    level: float = Field(gt=0.5, lt=1)
    seed: Seed


class Designs(_Section):
    models: list[str] = Field(min_length=1)
    external: list[str] | Literal["all"] = "all"
    repeats: int = Field(ge=1, le=MOST)
    network_repeats: int = Field(ge=1, le=MOST)
    folds: int = Field(ge=2)
    seeds: int = Field(ge=1, le=MOST)
    harmonised: str
    date: str
    seed: Seed


class Audit(_Section):
    slices: int = Field(ge=2)
    folds: int = Field(ge=2)
    epochs: int = Field(ge=1, le=MOST)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    augmentations: int = Field(ge=1, le=MOST)
    claim: float = Field(gt=0, lt=1)
    seed: Seed


class Explain(_Section):
    model: str
    beside: list[str]
    shap_model: str
    repeats: int = Field(ge=1, le=MOST)
    patients: int = Field(ge=1, le=MOST)
    scored: int = Field(ge=2)
    steps: int = Field(ge=2)
    window: int = Field(ge=2)
    seeds: int = Field(ge=1, le=MOST)
    seed: Seed


class Deployed(_Section):
    """What is given to others: `prognosis` in params.yaml."""

    model: str
    horizons_days: list[Positive] = Field(min_length=1)
    drawn: int = Field(ge=1, le=MOST)
    seed: Seed


class Params(_Section):
    """Every choice of the study; see the comments in params.yaml for the meaning of each."""

    cohorts: Names
    profile: str
    models: Names
    cohort: dict[str, Annotated[dict[str, Any], AfterValidator(_known_to_cohorts)]]
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
    curves: Curves
    scores: Scores
    gate: Gate
    designs: Designs
    audit: Audit
    explain: Explain
    prognosis: Deployed


def load(path: Path = PARAMS, profile: str | None = None) -> Params:
    """Read params.yaml and apply a profile: the one given, else the one it chooses.

    Raises
    ------
    BadInput
        For a file that is no YAML, an unknown profile, a key that is unknown or missing, or a value out of its range.
    """
    path = Path(path)
    raw = read(path)
    return _validated(raw if profile is None else {**raw, "profile": profile}, path)


def for_one_run(copy: Path, *, cohorts: list[str] | None, profile: str | None, path: Path = PARAMS) -> Params:
    """Write params.yaml to `copy`, with the cohorts and the profile that were asked for in the place of its own.

    Raises
    ------
    BadInput
        As `load`; nothing is then written.
    """
    path = Path(path)
    asked = {key: value for key, value in (("cohorts", cohorts), ("profile", profile)) if value}
    raw = {**read(path), **asked}
    chosen = _validated(raw, path)
    write(copy, raw)
    return chosen


def _validated(raw: dict, path: Path) -> Params:
    raw = dict(raw)
    profiles = raw.pop("profiles", None)
    if not isinstance(profiles, dict):
        raise BadInput(
            f"{path}: `profiles` is {shown(profiles)}, expected a section with a line a profile; "
            "write `profiles: {default: {}}` at least."
        )
    chosen = raw.get("profile")
    if not isinstance(chosen, str) or chosen not in profiles:
        raise BadInput(
            f"{path}: profile '{chosen or 'none'}' is not one of {', '.join(map(str, profiles))}; "
            "choose one of these in params.yaml or with PROFILE=…."
        )
    changes = profiles[chosen] or {}
    if not isinstance(changes, dict):
        raise BadInput(
            f"{path}: `profiles.{chosen}` is {shown(changes)}, expected the choices that it changes; "
            f"write `{chosen}: {{}}` if there is none."
        )
    try:
        return Params.model_validate(_merge(raw, changes))
    except ValidationError as error:
        raise BadInput(f"{path}: {sentence(error.errors(), Params, chosen, changes)}") from None


def per_cohort(table: dict[str, Any] | Any, cohort: str, find: Callable[[], Any] | None = None) -> Any:
    """What a table says of `cohort`, or else of `other`; what is no table is for every cohort.

    Parameters
    ----------
    find : callable, optional
        Gives what `auto` stands for, where the caller can tell.

    Raises
    ------
    BadInput
        Where there is neither, or where it is `auto` and stage 01 has not found it yet.
    """
    if not isinstance(table, dict):
        return table
    if cohort not in table and "other" not in table:
        raise BadInput(f"params.yaml: no number for cohort '{cohort}' among {table}; add `{cohort}` or `other` there.")
    found = table.get(cohort, table.get("other"))
    if found == AUTO and find:
        return find()
    if found == AUTO:
        raise BadInput(
            f"cohort '{cohort}': a setting is `auto` in params.yaml, expected its value beside the cohort, where stage 01 puts "
            f"it; run it again (`python -m survpack run 01-cohort --cohort {cohort}`), or write a number for `{cohort}`."
        )
    return found


def _merge(base: dict, changes: dict) -> dict:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
