"""The model card of a bundle and the data sheet of a cohort: written by the study, no number typed."""

from __future__ import annotations

import json

from survpack.numbers import DIGITS, amount, known

SCORED = ("harrell_c", "uno_c", "auc", "ibs", "calibration_slope", "ici", "mae_hinge", "r2_ipcw")
SPLITS = {"cv": "Out of fold, development patients", "test": "Held-out test patients, read once"}
LEAST_TOLD = 5  # patients: fewer are not told of in a data sheet


def model_card(bundle) -> str:
    """What a bundle is, for whom, how well it does and where it must not be trusted (Mitchell et al. 2019).

    Parameters
    ----------
    bundle : bundle.Bundle

    Returns
    -------
    str
        Markdown.
    """
    about = bundle.about
    parts = {
        "Model details": _details(about), "Intended use": _use(about), "Factors": _factors(about),
        "Metrics": _metrics(about), "Evaluation data": _evaluation(about), "Training data": _training(about),
        "Quantitative analyses": _by_group(about), "Ethical considerations": _ethics(about),
        "Caveats and recommendations": _caveats(bundle),
    }  # fmt: skip
    return _page(f"Model card: {_name(about['model'])}, {about['cohort']['title']}", parts)


def data_sheet(study) -> str:
    """Where a cohort comes from and what it holds (Gebru et al. 2021); small counts are left out.

    Parameters
    ----------
    study : Study

    Returns
    -------
    str
        Markdown.
    """
    from survpack import adapters, tables

    source = adapters.source(study.name)
    facts = tables.facts(study, study.cohort, study.splits, source)
    least = max(study.params.tables.suppress_below, LEAST_TOLD)
    parts = {
        "Motivation": _why(facts), "Composition": _composition(study, facts, least),
        "Collection": _collection(facts, source), "Preprocessing": _preprocessing(study), "Uses": _uses(facts),
        "Distribution and maintenance": _distribution(facts, source),
    }  # fmt: skip
    return _page(f"Data sheet: {facts['title']}", parts)


def _page(title: str, parts: dict[str, list[str]]) -> str:
    sections = [f"## {heading}\n\n" + "\n\n".join(lines) for heading, lines in parts.items()]
    return "\n\n".join([f"# {title}", *sections]) + "\n"


def _name(model: str) -> str:
    from survpack.figures.style import label

    return label(model)


def _simulated(cohort: dict) -> str:
    return "**The cohort is simulated: its patients do not exist, and nothing here is evidence about real ones.**"


def _details(about: dict) -> list[str]:
    network, trained = about["network"], about["training"]
    lines = [
        f"- Model: `{about['model']}`, {about['about'].replace('`', '')}.",
        f"- Bundle: `{about['id']}`, made by survpack {about['survpack']}; weights in safetensors, all else in JSON.",
        f"- Networks: {network['members']}; encoder {network['encoder']}, fusion {network['fusion']}; seed {trained['seed']}, "
        f"profile {trained['profile']}, fit `{trained['fit_digest']}`.",
        "- Licence of the code: GPL-3.0-or-later; of the data: " + about["cohort"]["licence"] + ".",
    ]
    return ["\n".join(lines)]


def _use(about: dict) -> list[str]:
    from survpack.deploy.answer import RESEARCH_ONLY, intended_use

    return [intended_use(about), f"**{RESEARCH_ONLY}**"]


def _factors(about: dict) -> list[str]:
    from survpack.deploy.answer import named

    schema = about["schema"]
    rows = []
    for column, told in schema["chart"].items():
        name, unit = named(about, column)
        if told["levels"]:
            spread = ", ".join(str(level).replace("_", " ") for level in told["levels"])
        else:
            spread = f"{_digits(told['low'])} to {_digits(told['high'])}{unit}" if known(told["low"]) else "–"
        rows.append((name, spread, f"{amount(100 * told['missing_share'])} %"))
    scans = ", ".join(schema["modalities"]) or "none"
    labels = ", ".join(schema["labels"].values()) or "none"
    return [
        f"Scans: {scans}. Mask: {labels}. Measured on the mask: {', '.join(schema['measured']) or 'nothing'}. What is "
        "missing is imputed, and the card says so.",
        _table(("Chart", "Seen in training (1st to 99th percentile, or levels)", "Missing in training"), rows),
    ]


def _metrics(about: dict) -> list[str]:
    told = [split for split in SPLITS if about["metrics"].get(split)]
    if not told:
        return ["No score was stored with this bundle."]
    confidence = amount(100 * about["params"]["scores"]["confidence"])
    names = [one for one in SCORED if any(one in about["metrics"][split] for split in told)]
    rows = [(_heading(one), *(_score(about["metrics"][split].get(one), one) for split in told)) for one in names]
    lines = [f"Estimate and {confidence} % interval.", _table(("Score", *(SPLITS[split] for split in told)), rows)]
    if "test" not in told:
        lines.append("The held-out test set has not been read for this model.")
    return lines


def _evaluation(about: dict) -> list[str]:
    cohort, trained = about["cohort"], about["training"]
    rest = cohort["patients"] - trained["patients"]
    return [
        f"Cross-validation within the {trained['patients']} development patients, split by patient; {rest} patients of the "
        "same cohort were held out. No other institution's patients were scored: how it does elsewhere is not known."
    ]


def _training(about: dict) -> list[str]:
    cohort, trained = about["cohort"], about["training"]
    lines = [
        f"{cohort['title']} ({cohort['source']}; licence: {cohort['licence']}): {trained['patients']} patients with "
        f"{trained['events']} events, {cohort['sites']} sites; outcome: {cohort['outcome']}."
    ]
    return [*lines, _simulated(cohort)] if cohort["simulated"] else lines


def _by_group(about: dict) -> list[str]:
    """Scores by group of patients, where stage 12 wrote them of these predictions, the last of `scores.shown`."""
    from survpack.paths import CohortPaths

    paths, shown = CohortPaths(about["cohort"]["name"]), about["params"]["scores"]["shown"]
    table, facts = paths.tables("reliability") / "subgroups.md", paths.facts("reliability")
    there = table.is_file() and facts.is_file() and _same_predictions(about, paths.metrics)
    if shown[-1:] != [about["model"]] or not there:
        return ["Scores by group of patients were not there when this card was made."]
    found = json.loads(facts.read_text())
    lines = ["Out of fold, by group of patients.", table.read_text().strip(), found.get("subgroups", "")]
    return [line for line in lines if line]


def _same_predictions(about: dict, scored) -> bool:
    """Whether the cohort's file of scores is of the predictions that this bundle was made with."""
    if not scored.is_file():
        return False
    of_file = json.loads(scored.read_text()).get("cv", {}).get(about["model"], {})
    found, own = ((one or {}).get("harrell_c") for one in (of_file, about["metrics"].get("cv")))
    return bool(found and own) and abs(found["estimate"] - own["estimate"]) <= 1e-9


def _ethics(about: dict) -> list[str]:
    cohort = about["cohort"]
    lines = [
        "A prognosis can do harm: it may be believed more than it deserves, or withhold treatment. The card gives a band "
        "with every number, and declines where a patient is unlike those it learnt from.",
        "The bundle holds aggregates: no patient's row or scan, and no calendar date. The lower bound of a group of risk is a "
        "day on which someone in training died or was last seen, without who.",
    ]
    if about.get("curve"):
        lines.append(
            f"Its survival curve (Breslow) falls on the exact days, counted from baseline, of all {about['training']['events']} "
            "deaths or other events in training, without who they were: whoever knows a patient's day finds it there."
        )
    return [*lines, _simulated(cohort)] if cohort["simulated"] else lines


def _caveats(bundle) -> list[str]:
    about, found = bundle.about, bundle.about["explanation"]
    patients = about["training"]["patients"]
    band = about["recalibration"]
    bounds = about["reference"]["bounds"]
    lines = [
        f"- Map of the scan ({found['method']}): {found['verdict']}. {found['said']}",
        f"- It declines beyond a distance of {_digits(about['likeness']['limit'])} from the training patients; of patients "
        f"like them it declines at most about one in {patients + 1}. Within the limit it may still be wrong.",
        f"- The band holds with {amount(100 * band['confidence'])} % confidence for patients taken together, not for every "
        f"group of them. {bundle.recalibration.told()}",
    ]
    lines.append(f"- Lower bound on survival, a day a third of risk. {bounds['why'] or bounds['said']}")
    lines.append("- A driver is a cause of the model's answer, not of the disease.")
    return ["\n".join(lines)]


def _why(facts: dict) -> list[str]:
    if facts["phantom"]:
        return [
            "Made by this study so that there is a cohort whose hazard is known: models and explanations can be marked right "
            "or wrong.",
            _simulated(facts),
        ]
    return [
        f"Used by this study to predict {facts['outcome']}. Why it was collected is told by its source, {facts['source']}."
    ]


def _composition(study, facts: dict, least: int) -> list[str]:
    from survpack import tables

    follow = facts["median_followup_days"]
    lines = [
        f"{facts['n']} patients, {facts['events']} with the event ({facts['outcome']}); median follow-up "
        f"{amount(follow) if known(follow) else 'not estimable'} days; {len(facts['sites'])} sites; scans: "
        f"{', '.join(study.cohort.modalities) or 'none'}; mask labels: {', '.join(study.cohort.labels.values()) or 'none'}.",
        f"{facts['splits']['development']['n']} patients are for development, {facts['splits']['test']['n']} are held out.",
        tables.characteristics(study.cohort, study.splits, suppress_below=least).to_markdown(
            index=False, disable_numparse=True
        ),
        f"Counts below {least} are not told.",
    ]
    absent = tables.missing_text(tables.missing(study.cohort, suppress_below=least))
    told = absent[["What", "Missing"]].to_markdown(index=False, disable_numparse=True)
    lines.append(f"Missing:\n\n{told}" if len(absent) else f"Nothing is missing of {least} patients or more.")
    return [*lines, "Dictionary:", _dictionary(study.cohort.dictionary)]


def _dictionary(dictionary: dict) -> str:
    rows = [
        (
            name,
            told.get("description", ""),
            told["kind"],
            told.get("unit") or ", ".join(map(str, told.get("levels", []))),
        )
        for name, told in dictionary.items()
    ]
    return _table(("Column", "Meaning", "Kind", "Unit or levels"), rows)


def _collection(facts: dict, source) -> list[str]:
    before, steps = None, []
    for one in facts["flow"]:
        steps.append((one["step"], str(one["excluded"]) if before is not None else "–", str(one["remaining"])))
        before = one["remaining"]
    return [f"Source: {facts['source']}.", _table(("Step", "Excluded", "Remaining"), steps)]


def _preprocessing(study) -> list[str]:
    from survpack import settings
    from survpack.params import per_cohort

    development = study.splits.loc[study.splits["split"] == "dev", "patient_id"].tolist()
    params = settings.settled(study.params, study.cohort, development, ["crops.spacing_mm"])
    choice, crops = params.preprocess, params.crops
    return [
        f"Images are turned to {choice.orientation} and resampled ({choice.resample.image}; masks: {choice.resample.mask}); MR "
        f"is normalised by {choice.mr.normalise}. Networks see a cube of {crops.size} voxels of "
        f"{_digits(per_cohort(crops.spacing_mm, study.name))} mm a side about the lesion. The raw data are kept as they are."
    ]


def _uses(facts: dict) -> list[str]:
    return [
        "To compare models of survival, and to see how far their scores, bands and explanations can be believed. Not to decide "
        "how anyone is treated."
    ]


def _distribution(facts: dict, source) -> list[str]:
    shared = ", ".join(source.overlaps)
    lines = [f"Licence: {facts['licence']}. Where: {facts['source']}. Size: {source.size or 'made anew at every run'}."]
    return [*lines, f"Shares patients with: {shared}."] if shared else lines


def _heading(score: str) -> str:
    from survpack.tables import HEADINGS

    return HEADINGS.get(score, score)


def _score(interval: dict | None, name: str) -> str:
    from survpack.numbers import interval_text

    return interval_text(interval, DIGITS.get(name, 2)) or "–"


def _digits(value: float) -> str:
    return amount(value, 0 if float(value).is_integer() or abs(value) >= 10 else 1)


def _table(head: tuple, rows: list[tuple]) -> str:
    """A pipe table; a bar in a cell does not end it."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
