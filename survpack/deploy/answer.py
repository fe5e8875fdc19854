"""One patient's answer: what a bundle says of what was handed in, or why it says nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from survpack.deploy.reference import GROUPS
from survpack.deploy.writing import is_there, require_writable, whole
from survpack.errors import BadInput
from survpack.numbers import amount, without_nan
from survpack.params import per_cohort

RESEARCH_ONLY = "For research only. This is no medical device: it must not decide how anyone is treated."
SHOWN = 5  # drivers on the card
LEAST = 0.02  # of all that was added and taken away: a driver below it is not told
NEAR = 0.1  # two horizons closer than this share of the later one are told as one
LONGEST_LABEL = 60
METHOD = "gradcam"
THIRDS = (100 / 3, 200 / 3)  # per cent


@dataclass(frozen=True)
class Answer:
    """What is said of one patient.

    Attributes
    ----------
    patient : str
        A label that the caller gave; never read from the files.
    refused : str or None
        Why there is no prognosis; all that would be one is then None or empty.
    curve : dict or None
        `days`, `survival`, `low`, `high` (recalibrated, with its band) and `own` (the model's own), lists.
    median_days : dict or None
        `estimate`, `low`, `high`; None for what lies beyond the last predicted day.
    probabilities : list of dict
        `days`, `estimate`, `low`, `high`: of being alive (or free of the event) then.
    bound : dict or None
        `days`, the lower bound of this patient's `group`, or None and `why`; `coverage` of all patients together;
        `said`, what it promises and what it does not.
    group : dict or None
        `name` (low, middle, high), `horizon_days`, `percentile`: share of the cohort at lower risk, in per cent.
    drivers : list of dict
        `feature`, `name`, `value`, `typical`, `contribution` (to the network's risk), `share`, `words`; strongest first.
    attribution : dict or None
        `overlays.native`'s panel.
    missing : dict of str to list
        What was not handed in: `chart`, `modalities`, `measured`.
    imputed : dict
        What stands for it, by column.
    likeness : dict
        `score`, `limit`, `percentile`, `refused`, `group`, `why`: how unlike the training patients.
    facts : dict
        Of the scan: `spacing`, `size`, `lesion_ml` and more.
    notes : list of str
    bundle : dict
        `id`, `model`, `about`, `cohort`, `title`, `version`, `outcome`, `simulated`.
    intended_use, research_only : str
    """

    patient: str
    refused: str | None
    curve: dict | None
    median_days: dict | None
    probabilities: list[dict]
    bound: dict | None
    group: dict | None
    drivers: list[dict]
    attribution: dict | None
    missing: dict
    imputed: dict
    likeness: dict
    facts: dict
    notes: list[str]
    bundle: dict
    intended_use: str
    research_only: str = RESEARCH_ONLY

    def as_json(self) -> dict:
        """Everything but the pixels, ready for `json.dumps`."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        panel = found["attribution"]
        if panel is not None:
            found["attribution"] = {key: panel.get(key) for key in ("method", "level_mm", "mass_share", "said")}
        return without_nan(_plain(found))


def answer(bundle, intake, *, label: str = "patient", explained: bool = True) -> Answer:
    """What `bundle` says of `intake`: a prognosis, or why there is none.

    Parameters
    ----------
    bundle : bundle.Bundle
    intake : intake.Intake
    label : str
        What the patient is called on the card.
    explained : bool
        Whether drivers and the map are made too, which takes most of the time.

    Raises
    ------
    BadInput
        For a label that no card can bear.
    """
    about, notes, label = bundle.about, [*intake.notes], _label(label)
    likeness = bundle.likeness.judge(bundle.model, intake.patients)[0]
    said = {
        "patient": label, "missing": intake.missing, "imputed": intake.imputed, "likeness": likeness,
        "facts": intake.facts, "notes": notes, "bundle": identity(about), "intended_use": intended_use(about),
    }  # fmt: skip
    nothing = {"curve": None, "median_days": None, "probabilities": [], "bound": None, "group": None, "drivers": [],
               "attribution": None}  # fmt: skip
    if likeness["refused"]:
        return Answer(refused=_declined(likeness), **nothing, **said)
    days = horizons(about, bundle.times)
    if _asked(about)[-1:] > days[-1:]:
        notes.append(f"No probability is given beyond day {amount(bundle.times[-1])}.")
    output = bundle.model.outputs(intake.patients)
    curve, at_days = _curves(bundle, output, days)
    group = _group(about, bundle.model, output)
    prognosis = nothing | {
        "curve": curve, "median_days": _median(curve), "probabilities": at_days, "group": group,
        "bound": _bound(about["reference"]["bounds"], group["name"]),
    }  # fmt: skip
    if explained:
        prognosis |= {"drivers": _drivers(bundle, intake), "attribution": _attribution(bundle, intake, notes)}
    return Answer(refused=None, **prognosis, **said)


def run(
    model: Path,
    scans: list[str],
    masks: list[str],
    chart: Path | None,
    out: Path,
    as_json: bool = False,
    label: str = "patient",
    expect: str = "",
) -> Path:
    """`python -m survpack predict`: files in, a page at `out`, which is returned.

    Parameters
    ----------
    model : Path
        A bundle's folder.
    scans, masks : list of str
        `t1c=path` each; or one path, of a folder of scans, of one mask for all of them.
    chart : Path, optional
        A JSON object, or a table of one row.
    out : Path
        The page to write; in a folder that is there, `card.html`.
    as_json : bool
        Whether the answer is written as JSON too, beside the page.
    label : str
    expect : str
        The bundle's id, if any other is to be refused.

    Raises
    ------
    BadInput
        For whatever is wrong with the bundle, the files or the chart, and where the page cannot be written.
    """
    from survpack.deploy import bundle, intake, quick_imports
    from survpack.deploy.card import page

    quick_imports()
    _label(label)
    out = _page_at(Path(out))
    for path in [out, *([out.with_suffix(".json")] if as_json else [])]:
        require_writable(path)
    chosen = bundle.load(Path(model), expect)
    given = {"scans": paths_of(scans, "--scan"), "masks": paths_of(masks, "--mask")}
    said = answer(chosen, intake.read_for(chosen, chart=chart, **given), label=label)
    texts = {out: page(said, chosen)}
    if as_json:
        texts[out.with_suffix(".json")] = json.dumps(said.as_json(), indent=2, ensure_ascii=False) + "\n"
    for path, text in texts.items():
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
    return out


def _page_at(out: Path) -> Path:
    out = out / "card.html" if is_there(out, Path.is_dir) else out
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out: found {out.name}, expected the name of a page; end it in .html.")
    return out


def paths_of(given: list[str], option: str) -> dict[str, Path] | Path | None:
    """`["t1c=a", "t2f=b"]` by name, `["a"]` as the one path, nothing as None.

    Raises
    ------
    BadInput
        For several paths without names, and for a name that comes twice.
    """
    if not given:
        return None
    if len(given) == 1 and ("=" not in given[0] or is_there(Path(given[0]))):
        return Path(given[0])
    pairs = [one.partition("=") for one in given]
    names = [name for name, _, _ in pairs]
    if not all(name and path for name, _, path in pairs) or len(set(names)) < len(names):
        raise BadInput(
            f"{option}: found {', '.join(given)}, expected one path, or `NAME=PATH` for each with every name once; give "
            f"them as `{option} t1c=scan.nii.gz`."
        )
    return {name: Path(path) for name, _, path in pairs}


def identity(about: dict) -> dict:
    """Which model speaks, as the card and the service say it."""
    cohort = about["cohort"]
    return {
        "id": about["id"], "model": about["model"], "about": about["about"], "version": about["survpack"],
        "cohort": cohort["name"], "title": cohort["title"], "outcome": cohort["outcome"],
        "patients": about["training"]["patients"], "events": about["training"]["events"],
        "simulated": cohort["simulated"],
    }  # fmt: skip


def intended_use(about: dict) -> str:
    """What a bundle is for, and what it is not for."""
    cohort = about["cohort"]
    return (
        f"Research on {cohort['outcome']} of patients like those of “{cohort['title']}”, scanned and charted at baseline. "
        "Not for other diseases, other scans or later visits, and not for choosing between treatments."
    )


def horizons(about: dict, times: np.ndarray) -> list[float]:
    """Days at which the card gives a probability: those asked for, as far as the model predicts."""
    return [day for day in _asked(about) if day <= times[-1]]


def _asked(about: dict) -> list[float]:
    """The horizons of `prognosis`, and the cohort's own where none is near."""
    chosen = [float(day) for day in about["params"]["prognosis"]["horizons_days"]]
    for day in per_cohort(about["params"]["scores"]["horizons_days"], about["cohort"]["name"]):
        if all(abs(day - one) > NEAR * max(day, one) for one in chosen):
            chosen.append(float(day))
    return sorted(chosen)


def _label(label: str) -> str:
    label = label.strip()
    if not label or len(label) > LONGEST_LABEL or not label.isprintable():
        raise BadInput(
            f"patient label: found {len(label)} characters, expected 1 to {LONGEST_LABEL} that can be printed; give a study "
            "number, not a name."
        )
    return label


def _declined(likeness: dict) -> str:
    return f"No prognosis is given: this patient is too unlike those the model was trained on. {_sentence(likeness['why'])}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _curves(bundle, output: np.ndarray, horizons: list[float]) -> tuple[dict, list[dict]]:
    """The curve from day 0, recalibrated and as the model has it; and its values at the horizons."""
    days = np.unique(np.r_[0.0, bundle.times, horizons])
    own = bundle.model.forecast(output, days[1:]).survival
    if not np.isfinite(own).all():
        raise BadInput("prediction: the network says no number for this patient; look at the scans' intensities.")
    own = np.minimum.accumulate(np.column_stack([[1.0], np.clip(own, 0, 1)]), axis=1)
    middle, low, high = (np.asarray(part)[0] for part in bundle.recalibration.apply(own, days))
    middle, low, high = (np.r_[1.0, part[1:]] for part in (middle, low, high))  # everyone is alive on day 0
    at = np.searchsorted(days, horizons)
    curve = {"days": days, "survival": middle, "low": low, "high": high, "own": own[0]}
    told = [
        {"days": day, "estimate": float(middle[k]), "low": float(low[k]), "high": float(high[k])}
        for day, k in zip(horizons, at, strict=True)
    ]
    return {key: values.tolist() for key, values in curve.items()}, told


def _median(curve: dict) -> dict:
    """Where the curve and the ends of its band fall to one half; None where that is beyond what is predicted."""
    from survpack.prognosis import day_at

    found = day_at([curve["survival"], curve["low"], curve["high"]], curve["days"], 0.5)
    return {name: float(day) if np.isfinite(day) else None
            for name, day in zip(("estimate", "low", "high"), found, strict=True)}  # fmt: skip


def _bound(bounds: dict, group: str) -> dict:
    """The conformal lower bound of the patient's third of risk, with what it promises; or why there is none."""
    days = bounds["days"][group]
    if days > 0:
        return {"coverage": bounds["coverage"], "days": days, "group": group, "said": bounds["said"]}
    why = bounds["why"] or "No lower bound is given: too few patients are followed long enough."
    return {"coverage": bounds["coverage"], "days": None, "why": why}


def _group(about: dict, model, output: np.ndarray) -> dict:
    """Where the predicted risk at the cohort's horizon lies among the predictions for its development patients.

    The percentile is of those strictly below; the groups part at its thirds.
    """
    reference = about["reference"]
    day, ranks = float(reference["horizon_days"]), reference["percentiles"]
    risk = 1 - float(model.forecast(output, np.array([day])).survival[0, 0])
    known = sorted(zip([*ranks["levels"], *THIRDS], [*ranks["risk"], *reference["groups"]], strict=True))
    levels, risks = np.array(known).T
    first = int(np.searchsorted(risks, risk, side="left"))
    tied = first < len(risks) and risks[first] == risk
    percentile = float(levels[first] if tied else np.interp(risk, risks, levels))
    return {"name": GROUPS[int(np.searchsorted(THIRDS, percentile))], "horizon_days": day, "percentile": percentile}


def _drivers(bundle, intake) -> list[dict]:
    """The few things that set this patient apart from a typical one, and which way."""
    from survpack.explain.contributions import drivers

    about, choice = bundle.about, bundle.about["params"]["prognosis"]
    typical = about["reference"]["frame"]
    table = drivers(
        bundle.model, bundle.reference_frame, bundle.reference_embedding, intake.patients,
        drawn=choice["drawn"], seed=choice["seed"],
    )  # fmt: skip
    total = float(table["contribution"].abs().sum())
    found = []
    for one in table.reindex(
        table["contribution"].abs().sort_values(ascending=False, kind="stable").index
    ).itertuples():
        share = abs(one.contribution) / total if total else 0.0
        if share >= LEAST and len(found) < SHOWN:
            missing = one.feature in intake.imputed
            found.append(_driver(about, one.feature, None if missing else one.value, typical, one.contribution, share))
    return found


def _driver(about: dict, feature: str, value, typical: dict, contribution: float, share: float) -> dict:
    name, unit = named(about, feature)
    usual = typical.get(feature)
    if feature == "image":
        words = f"What the network sees in the {_seen(about)}"
    elif value is None or value != value:
        words, value = f"{name}: not given", None
    else:
        same = value == usual or _value(value) == _value(usual)
        words = f"{name}: {_value(value)}{unit} ({'as is typical' if same else f'typically {_value(usual)}{unit}'})"
    return {"feature": feature, "name": name, "value": value, "typical": usual, "contribution": float(contribution),
            "share": float(share), "words": words}  # fmt: skip


def named(about: dict, feature: str) -> tuple[str, str]:
    """A column in words, and its unit with a space before it."""
    from survpack.figures.style import biomarker_words, tidy

    if feature == "image":
        return _seen(about).capitalize(), ""
    entry = about["schema"]["chart"].get(feature)
    name, unit = (tidy(feature), entry.get("unit") or "") if entry else biomarker_words(feature)
    return name, f" {unit}" if unit and unit != "count" else ""


def _seen(about: dict) -> str:
    """What a network sees that looks at images: without a modality, the masks alone."""
    return "scan" if about["schema"]["modalities"] else "outline"


def _value(value) -> str:
    """A value as it is read out: two or three digits are enough."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.integer | np.floating):
        from survpack.figures.style import in_words

        return "none" if value is None else in_words(value)
    if not np.isfinite(value):
        return "not known"
    return amount(value, 0 if float(value).is_integer() or abs(value) >= 100 else 1 if abs(value) >= 1 else 2)


def _attribution(bundle, intake, notes: list[str]) -> dict | None:
    """The map on the slice of the native scan that has most of it; None, and a note why, where there is none.

    The scan is the first one: its mask is the intake's, and others may lie elsewhere.
    """
    from survpack.cohort import TUMOUR
    from survpack.explain.attribution import attribute
    from survpack.explain.overlays import native

    model, about = bundle.model, bundle.about
    if model.fusion == "chart":
        notes.append("This model reads the chart alone: there is no map of the scan.")
        return None
    shown = next(iter(intake.images), None)
    if shown is None or intake.mask is None:
        notes.append("There is no map: there is no scan to show it on.")
        return None
    try:
        found = attribute(model, intake.patients, METHOD)[0]
    except BadInput:
        notes.append("There is no map of the scan: this kind of network has no layer for Grad-CAM.")
        return None
    if not np.isfinite(found).any():
        notes.append("There is no map of the scan: nothing in it raises this patient's predicted risk.")
        return None
    numbers = [int(number) for number, meaning in about["schema"]["labels"].items() if meaning in TUMOUR]
    windows = about["params"]["crops"]["ct_window_hu"]
    window = {"window": per_cohort(windows, about["cohort"]["name"])} if shown == "ct" else {}
    panel = native(intake.images[shown], intake.mask, numbers, found, intake.grid, **window)
    verdict = about.get("explanation") or {}
    return panel | {
        "method": METHOD,
        "modality": shown,
        "said": verdict.get("said", "This explanation was not tested."),
    }


def _plain(tree):
    """NumPy's numbers and arrays as Python's."""
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return tree.tolist() if isinstance(tree, np.ndarray | np.generic) else tree
