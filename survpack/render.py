"""The report: from metrics, figures and tables to one page, by Quarto where it is, else by Pandoc."""

from __future__ import annotations

import json
import math
import platform
import re
import shutil
import subprocess
from base64 import b64decode
from importlib import metadata
from pathlib import Path
from string import Template
from urllib.parse import quote

import pandas as pd
import yaml

from survpack import __version__, params, paths, realism, self_audit
from survpack.errors import BadInput
from survpack.numbers import DIGITS, amount, interval_text, known
from survpack.paths import CohortPaths, written_whole

VAR = re.compile(r"\{\{<\s*var\s+(\S+?)\s*>\}\}")
INCLUDE = re.compile(r"^\{\{<\s*include\s+(\S+?)\s*>\}\}[ \t]*$", re.MULTILINE)
BLOCK = re.compile(r"^<!-- (if|unless) (figure|table|var) (\S+) -->\n(.*?)^<!-- end -->\n?", re.MULTILINE | re.DOTALL)
EMBEDDED = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")
SOFTWARE = ("torch", "monai", "torchsurv", "scikit-survival", "lifelines", "z-rad", "combatlearn", "shap")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
FEW_EVENTS = 50  # below which a section says that its intervals are wide
FAMILIES = {"morphology": "shape", "intensity": "grey values", "histogram": "histogram"}
NORMALISED = {
    "zscore": "a z-score over the brain",
    "nyul": "the landmarks of Nyúl and Udupa on a fixed scale",
    "whitestripe": "WhiteStripe",
    "none": "not at all",
}
LATER = (
    "designs",
    "audit",
    "reliability",
    "faithfulness",
    "prognosis",
    "networks",
    "longitudinal",
    "transfer",
)  # of `_read`: what a page can do without
CLAIM = {"r2": 0.970, "mae": 3.05}  # Diagnostics 2025 15:1242


def render(cohorts: list[str]) -> Path:
    """Write `_variables.yml`, `reports/sections/` and `reports/paper.html`.

    Parameters
    ----------
    cohorts : list of str
        In the order in which the paper reports them.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    BadInput
        For a cohort without results, or a source that cites a number, file or reference that is not there.
    """
    quarto = quarto_command()
    found = variables(cohorts, engine_of(quarto))
    with written_whole(paths.ROOT / "_variables.yml") as part:
        part.write_text(yaml.safe_dump(found, allow_unicode=True, sort_keys=False, width=1000), encoding="utf-8")
    write_sections(cohorts, found)
    source = expand(paths.REPORTS / "paper.qmd", found)  # by Quarto too, whose page would only show a question mark
    page = paths.REPORTS / "paper.html"
    print(f"Rendering {page.name} by {found['study']['engine']}.")
    with written_whole(page) as part:
        whole = by_quarto(quarto) if quarto else by_pandoc(source)
        part.write_text(EMBEDDED.sub(_lighter, whole), encoding="utf-8")
    with written_whole(paths.REPORTS / "overview.svg") as part:  # for the README
        shutil.copyfile(CohortPaths(cohorts[0]).figures("evaluation") / "forest.svg", part)
    return page


# --- the numbers of the prose ------------------------------------------------------------------------------------


def variables(cohorts: list[str], engine: str) -> dict:
    """Every number the prose cites, formatted: a dictionary `study` and one a cohort."""
    results = {name: _read(name) for name in cohorts}
    others = {name: [other for other in cohorts if other != name] for name in cohorts}
    each = {name: _cohort(**found) | _overlap(name, others[name]) for name, found in results.items()}
    return {"study": _study(results, engine), **each}


def score(found: dict | None, metric: str) -> str | None:
    """An interval as the prose prints it, "0.63 (0.57 to 0.69)"; None where there is no estimate."""
    return interval_text(found, DIGITS.get(metric, 2), without=" (no interval)")


def _read(cohort: str) -> dict:
    """What the pipeline wrote of one cohort: facts, predictors alone, scores, comparisons."""
    from survpack import adapters

    adapters.require_name(cohort)
    own = CohortPaths(cohort)
    about = {"facts": "cohort", "alone": "univariate", "radiomics": "radiomics", "compared": "comparisons"}
    files = {key: own.facts(name) for key, name in about.items()} | {"scores": own.metrics}
    for file in files.values():
        if not file.exists():
            raise BadInput(
                f"{file}: not found, expected the results of cohort '{cohort}'; run `make report`, which makes them."
            )
    found = {key: json.loads(file.read_text(encoding="utf-8")) for key, file in files.items()}
    for key in LATER:
        file = own.facts(key)
        found[key] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found | {"own": own}


def _study(results: dict[str, dict], engine: str) -> dict:
    from survpack.conformal import guaranteed
    from survpack.gate.predictors import LATEST

    facts = [found["facts"] for found in results.values()]
    chosen = params.load(paths.PARAMS, facts[0]["profile"])  # the one with which the files were made
    models = {model for found in results.values() for split in found["scores"].values() for model in split}
    models |= {
        model for found in results.values() for model in found["compared"].get("models", [])
    }  # fitted, not scored
    readings = [line for found in results.values() for line in found["compared"]["readings"]]
    titles = [one["title"] for one in facts]
    return {
        "cohorts_phrase": _count(len(titles), "cohort"),
        "cohort_titles": _plain("; ".join(titles)),  # titles have commas of their own
        "models_phrase": _count(len(models), "model"),
        "models_range": _range(models),
        "unfitted": _unfitted(results),
        "none_missing": _none_missing(chosen.tables.suppress_below),
        "patients": amount(sum(one["n"] for one in facts)),
        "events": amount(sum(one["events"] for one in facts)),
        "profile": _plain(_listed(sorted({one["profile"] for one in facts}))),
        "comparisons": amount(len(readings)),
        "not_shown": amount(sum("not shown" in line or line.endswith("not defined") for line in readings)),
        "folds": _span([one["splits"]["development"].get("folds", chosen.splits.folds) for one in facts], _word),
        "test_percent": f"{_span([100 * one['splits']['test']['n'] / one['n'] for one in facts], amount)} %",
        **_features(chosen),
        "conformance": _conformance(),
        "speed": _speed(),
        "crop_size": amount(chosen.crops.size),
        "training": _training(chosen.training),
        "collapsed": _collapsed(results),
        "training_speed": _training_speed(),
        "prognosis_speed": _prognosis_speed(),
        "budget": _word(chosen.classical.budget),
        "inner_folds": _word(chosen.classical.inner_folds),
        "bootstrap": amount(chosen.scores.bootstrap),
        "coverage": _coverage(),
        "inflation": f"{chosen.scores.inflation.at_chance:g}",
        "inflation_none": f"{chosen.scores.inflation.none_from:g}",
        "inflation_repeats": f"{chosen.scores.inflation.repeats:g}",
        "coverage_wanted": f"{amount(100 * chosen.scores.coverage)} %",
        "coverage_guaranteed": f"{amount(100 * guaranteed(chosen.scores.coverage))} %",
        "coverage_missed": f"{amount(100 * (1 - chosen.scores.coverage))} %",
        "conformal": _conformal(),
        "workup_days": amount(LATEST),
        "curve_days": amount(chosen.curves.days),
        "curve_last": amount(chosen.curves.last_day),
        "small_cell": f"{_count(chosen.scores.small_cell.patients, 'patient')} or "
        f"{_count(chosen.scores.small_cell.events, 'event')}",
        "confidence": f"{amount(100 * chosen.scores.confidence)} %",
        "implied_spread": amount(CLAIM["mae"] * math.sqrt(math.pi / 2) / math.sqrt(1 - CLAIM["r2"])),
        "implied_c": amount(0.5 + math.asin(math.sqrt(CLAIM["r2"])) / math.pi, 2),
        "engine": engine,
        "version": __version__,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in SOFTWARE},
    }


def _range(models: set[str]) -> str:
    """From what to what the models of this run reach."""
    if any(name.startswith(("hybrid", "image")) for name in models):
        return "The models range from age alone to networks that fuse images with clinical data."
    return "No model of this run reads an image: they see charts and measured features."


def _unfitted(results: dict[str, dict]) -> str:
    alone = {name for found in results.values() for name in found["alone"]["all_patients"]}
    said = {"age": "age alone", "volume": "tumour volume alone, as it is measured on the mask,"}
    told = _listed([said[name] for name in said if name in alone])
    verb = "are" if len(alone) > 1 else "is"
    return f"{_capital(told)} {verb} not fitted and {verb} scored on all patients at once; " if told else ""


def _none_missing(below: int) -> str:
    fewer = f" for {amount(below)} patients or more; of fewer, tables do not tell" if below else ""
    return f"No covariate is missing{fewer}."


def _overlap(cohort: str, others: list[str]) -> dict:
    """A sentence on the images that a cohort shares with others, from the hashes of stage 01."""
    import pandas as pd

    from survpack import overlap

    def hashes(name: str) -> pd.DataFrame:
        return pd.read_csv(CohortPaths(name).tables("cohort") / "hashes.csv", dtype=str, keep_default_na=False)

    if not others:
        return {}
    own = hashes(cohort)
    pairs = {other: len(overlap.shared(own, hashes(other))) for other in others}
    found = [f"{_plain(other)} ({_count(count, 'image')})" for other, count in pairs.items() if count]
    same = f"It shares images with {_listed(found)}." if found else "It shares no image with the other cohorts."
    return {"overlap": same}


def _features(chosen: params.Params) -> dict:
    """The choices behind the features, in words."""
    steps, bins = chosen.preprocess, chosen.biomarkers.bins
    kinds = {"mr": ("MR", ""), "ct": ("CT", " HU"), "pt": ("PET", " SUV")}
    told = [
        f"{amount(one.number)} in {kinds[kind][0]}"
        if one.number
        else f"{one.width:g}{kinds[kind][1]} wide in {kinds[kind][0]}"
        for kind, one in bins.items()
    ]
    return {
        "families": _listed([FAMILIES.get(family, family.upper()) for family in chosen.biomarkers.families]),
        "mr_normalise": NORMALISED[steps.mr.normalise],
        "resample_image": {"spline": "cubic spline", "linear": "linear"}[steps.resample.image],
        "resample_mask": {"nearest": "nearest neighbour", "half": "linear interpolation, cut at one half"}[
            steps.resample.mask
        ],
        "bins": _listed(told),
        "perturbed": amount(chosen.robustness.patients),
        "correlation": f"{chosen.selection.correlation:g}",
    }


def _training(choice: params.Training) -> str:
    """How networks are trained, in words."""
    names = {"efficientnet": "EfficientNet-B0", "resnet50": "ResNet-50", "other": "the others"}
    epochs = _listed([f"{_count(count, 'epoch')} ({names.get(name, name)})" for name, count in choice.epochs.items()])
    members = f", {_word(choice.members)} of each, whose outputs are averaged" if choice.members > 1 else ""
    others = (
        f" ({_listed(sorted(choice.published))}: from published ones, where the file is)" if choice.published else ""
    )
    start = f"Networks start from random weights{others}{members} and learn with AdamW, in smaller steps where a unit has many inputs [@yang2022], and a cosine schedule for"
    if choice.inner_fraction:
        held = f"{amount(100 * choice.inner_fraction)} % of the training patients"
        return f"{start} at most {epochs}; they keep the weights of the epoch with the lowest loss on {held}."
    return f"{start} {epochs}; the number is fixed beforehand and not chosen on any patient's outcome."


def _conformance() -> str:
    """How many of the benchmarked features are within tolerance, in which configurations."""
    file = paths.METRICS / "conformance.json"
    if not file.exists():
        raise BadInput(f"{file}: not found, expected the IBSI conformance; run `make report`, which makes it.")
    found = json.loads(file.read_text(encoding="utf-8"))
    every = [one for features in found.values() for one in features.values()]
    within = sum(one["within"] for one in every)
    told = f"{amount(within)} of {amount(len(every))} benchmarked values lie within tolerance, on the digital phantom"
    scans = [name for name in found if len(name) == 1]  # the IBSI's letters
    if not scans:
        return f"{told}. The CT phantom of the benchmark was not at hand in this run."
    return f"{told} and in configurations {_listed(scans)} of the CT phantom."


def _speed() -> str:
    """What the paired benchmark against pyradiomics found, where it was run."""
    file = paths.METRICS / "benchmarks.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    paired = {name: one for name, one in found.items() if name.startswith("radiomics") and one.get("ratio")}
    if not paired:
        return "The speed of extraction was not measured for this page."
    cases = [name.removeprefix("radiomics").strip(" -_:") for name in paired]
    told = [f"{one['ratio']:.1f} ({_plain(case)})" for case, one in zip(cases, paired.values(), strict=True)]
    return (
        "Given the same cases, families and cores, extraction here has these times the throughput of PyRadiomics: "
        f"{_listed(told)}."
    )


def _training_speed() -> str:
    """What the paired benchmark of a fit against the loops of tutorials found, where it was run."""
    file = paths.METRICS / "benchmarks.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    names = {"compact": "compact", "efficientnet": "EfficientNet-B0", "resnet50": "ResNet-50"}

    def ratios(ending: str) -> str:
        known_ones = {told: found.get(f"training-{name}-{ending}") for name, told in names.items()}
        return _listed([f"{one['ratio']:.1f} ({told})" for told, one in known_ones.items() if one])

    if not ratios("fit"):
        return "The speed of training was not measured for this page."
    return (
        "Given the same network, patients, epochs and cores, a fit with its preparation here has these times the "
        "throughput of the loop of MONAI's tutorials, which reads and prepares every scan anew in every epoch: "
        f"{ratios('fit')}; with that loop's images kept in memory: {ratios('fit-cached')}."
    )


def _prognosis_speed() -> str:
    """Seconds from files to card, and of the service, where they were measured."""
    file = paths.METRICS / "benchmarks.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    model = "hybrid-efficientnet-mse"
    wanted = [f"card-warm-{model}", f"card-cold-{model}", "gradcam-all", "service-errors", "service-median", "service-p99",
              "service-memory-peak"]  # fmt: skip
    if not set(wanted) <= set(found):
        return "How long a card takes was not measured for this page."
    warm, cold, maps, errors, median, late, memory = (found[name]["ours"] for name in wanted)
    asked = re.search(r"\d+ requests from \d+ clients at once", found["service-errors"]["unit"])[0]
    failed = "none failed" if not errors else f"{_count(int(errors), 'request')} failed"
    return (
        f"From NIfTI, outlines and chart to the card, EfficientNet-B0 takes {warm:.1f} seconds warm and {cold:.1f} from the "
        f"start of the command, Grad-CAM of all patients of the phantom {maps:.0f} seconds. Of {asked}, "
        f"{failed}; the median answer took {median:.1f} seconds, the 99th percentile {late:.1f}, and memory peaked at "
        f"{amount(memory)} MB."
    )


def _coverage() -> str:
    """How often such intervals hold the true value, in the simulation of benchmarks/coverage.py."""
    file = paths.METRICS / "coverage.json"
    if not file.exists():
        return "How often such intervals hold the true value was not simulated for this page."
    found = json.loads(file.read_text(encoding="utf-8"))

    def span(setting: str) -> str:
        shares = [100 * one["estimate"] for one in found["settings"][setting].values()]
        return f"{min(shares):.1f} to {max(shares):.1f} %"

    return (
        f"In {amount(found['cohorts'])} simulated cohorts of {amount(found['patients'])} patients, intervals of concordance, "
        f"AUC and Brier scores hold the true value in {span('cross-validated')} out of fold and in {span('held out')} on "
        f"patients held out; with half of the patients censored, in {span('cross-validated, half censored')} and "
        f"{span('held out, half censored')}, because the censoring weights' own error is not in them."
    )


def _conformal() -> str:
    """How often the bounds are outlived where models are fitted anew, in the simulation of benchmarks/conformal.py."""
    file = paths.METRICS / "conformal-coverage.json"
    if not file.exists():
        return "How often they are outlived where models are fitted anew was not simulated for this page."
    found = json.loads(file.read_text(encoding="utf-8"))

    def span(form: str, of: str) -> str:
        low, high = (found["summary"][form][of][end]["estimate"] for end in ("lowest", "highest"))
        return f"{100 * low:.1f} to {100 * high:.1f} %"

    return (
        f"In {amount(found['cohorts'])} simulated cohorts of each of {amount(len(found['settings']))} settings (columns, "
        f"shrinkage, patients, censoring), each with models fitted anew and {amount(100 * found['coverage'])} % aimed at, "
        f"{span('thirds', 'marginal')} of new patients outlive such bounds, {span('thirds', 'riskiest')} of the quarter at "
        f"highest predicted risk and {span('thirds', 'truly_riskiest')} of that at highest true risk. A level of the final "
        f"model's own curve, calibrated on models of folds, reaches {span('level', 'marginal')}; CV+ "
        f"{span('cv_plus', 'marginal')}, and a set held back for calibration {span('split', 'marginal')}."
    )


def _radiomics(found: dict) -> dict:
    """The numbers of stage 02, formatted."""

    def share(part: str, whole: str) -> str | None:
        if not found.get(whole):
            return None
        return f"{amount(found[part])} of {amount(found[whole])} ({amount(100 * found[part] / found[whole])} %)"

    told = {"features": amount(found["features"]), "icc": f"{found['icc_threshold']:g}"}
    told |= {"robust": share("robust", "with_icc")}
    if found.get("volume_like") is not None:  # a volume was measured
        told["volume"] = share("volume_like", "features")
    told |= {"correlation": f"{found['volume_threshold']:g}"}
    if found.get("clustered"):
        told["clusters"] = (
            f"{amount(found['clustered'])} features come so far, {amount(found['kept_anyway'])} of them lesion biomarkers "
            f"that stay without being shown robust, and make {amount(found['clusters'])} clusters."
            if found["with_icc"]
            else f"{amount(found['clustered'])} features make {amount(found['clusters'])} clusters."
        )
    if found.get("tested"):
        kept, rest = _count(found["discoveries"], "feature"), "remains" if found["discoveries"] == 1 else "remain"
        told["discoveries"] = f"{_capital(kept)} of {amount(found['tested'])} {rest} below 5 %."
        untested = found.get("clusters", found["tested"]) - found["tested"]
        if untested:
            told["discoveries"] += (
                f" {_capital(_count(untested, 'cluster'))} cannot be tested, for want of variation or of a hazard ratio."
            )
    if found.get("crops"):
        from survpack import cut

        told["crops"] = _if_said(cut.said(found["crops"]))
    return told


def _collapsed(results: dict[str, dict]) -> str:
    """Of each cohort with networks, whose image branches have collapsed."""
    from survpack.tables_models import collapsed

    told = {found["facts"]["title"]: collapsed(found["networks"]) for found in results.values()}
    said = [f"{_plain(title)}: {_if_said(text)}" for title, text in told.items() if text]
    return " ".join(said) or "No network was asked in this run."


def _cohort(
    facts: dict, alone: dict, radiomics: dict, scores: dict, compared: dict, own: CohortPaths, *,
    designs: dict, audit: dict, reliability: dict, faithfulness: dict, prognosis: dict, networks: dict,
    longitudinal: dict, transfer: dict,
) -> dict:  # fmt: skip
    from survpack import tables, tables_models
    from survpack.figures import label
    from survpack.models import left_out_text

    found = {key: _plain(facts[key]) for key in ("title", "source", "licence", "outcome", "profile")}
    found |= {
        "n": amount(facts["n"]),
        "events": amount(facts["events"]),
        "events_percent": f"{amount(100 * facts['events'] / facts['n'])} %",
        "sites_phrase": _count(len(facts["sites"]), "site"),
        "followup": _if_known(facts["median_followup_days"], 0),
        "horizon": amount(facts["horizon_days"]),
        "development": {key: amount(value) for key, value in facts["splits"]["development"].items()},
        "test_set": {key: amount(value) for key, value in facts["splits"]["test"].items()},
        "median_survival": _if_known(facts["median_survival_days"], 0),
        "null_ibs": _if_known(compared.get("null_ibs"), 3),
        "few_events": "yes" if facts["events"] < FEW_EVENTS else None,
        "smoke": "yes" if facts["profile"] == "smoke" else None,
        "explained": "yes" if any(own.figures("explanation").glob("*.*g")) else None,
        "readings": "yes" if compared["readings"] else None,
        "all_patients": {name: _scores(one) for name, one in alone["all_patients"].items()},
        "oracle": _scores(facts.get("oracle") or {}),
        "phantom": "yes" if "oracle" in facts else None,  # also where there are too few to score it
        "real": realism.CREDIT.get(facts["cohort"]),
        "censored": f"{amount(100 * facts['censored'])} %",
        "duplicates": (
            "No two patients share an image."
            if not facts["duplicates"]
            else f"{_count(facts['duplicates'], 'pair')} of images of different patients are the same."
        ),
        "visits": {key: amount(value) for key, value in (facts.get("visits") or {}).items()},
        "best": _best(scores),
        "radiomics": _radiomics(radiomics),
        "reading": _if_said(compared.get("test_reading")),
        "headline": _if_said(compared.get("headline")),
        "least_shown": {split: _if_known(least, 2) for split, least in compared.get("least_shown", {}).items()},
        "left_out": _if_said(left_out_text(compared.get("left_out", []), lambda model: f'"{label(model)}"')),
        "parts": _if_said(reliability.get("subgroups")),
        "designs": _if_said(designs.get("reading")),
        "audit": _if_said(audit.get("reading")),
        "leaky": interval_text((audit.get("all") or {}).get("r2"), 3),  # two digits would read 1.00
        "honest": score((audit.get("deaths-only") or {}).get("r2"), "r2"),
        "needed": _if_said(audit.get("needed_reading")),
        "faithful": {model: _plain(text) for model, text in faithfulness.get("said", {}).items()},
        "bundle": _bundle(prognosis, facts["cohort"]),
        "collapsed": _if_said(tables_models.collapsed(networks)),
        "not_scored": _if_said(
            _capital(f"the development patients are {compared['unscored']['cv']}; no model is compared")
        )
        if compared.get("unscored", {}).get("cv")
        else None,
        "days": _if_said(tables.without_day_words(reliability.get("without_day", {}))),
        "not_here": _not_here(designs, longitudinal, audit, prognosis, transfer),
    }
    for split in ("cv", "test"):
        found[split] = {model: _scores(one) for model, one in scores.get(split, {}).items()}
    return _pruned(found)


def _not_here(designs: dict, longitudinal: dict, audit: dict, prognosis: dict, transfer: dict) -> str | None:
    """Why a figure or table that other cohorts have is not here, a sentence each: an empty one is never shown."""
    from survpack.figures.designs import design_name

    why = [f"{design_name(design)}: {sentence}" for design, sentence in designs.get("absent", {}).items()]
    if designs and not designs.get("harmonisation") and "by-site" not in designs.get("absent", {}):
        why.append("ComBat at a new site: the model with and without it was not fitted.")
    why += [longitudinal.get("reading", ""), audit.get("reason", ""), transfer.get("reason", "")]
    why.append(f"No card: {prognosis['reason']}." if prognosis.get("reason") else "")
    why.append("" if transfer or not longitudinal else "No encoder is learnt from other images: nobody was imaged.")
    return " ".join(filter(None, map(_if_said, why))) or None


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _bundle(told: dict, cohort: str) -> dict:
    """What is given to others; nothing where the cohort has no such model."""
    from survpack.figures import label

    if not told.get("bundle"):
        return {}
    declined = [name for name, one in told["cards"].items() if one["declined"]]
    wrong = ", not even the one whose scan is noise" if any(name.endswith("-noise") for name in told["cards"]) else ""
    cards = f"{_count(len(told['cards']), 'card')} of test patients {'are' if len(told['cards']) > 1 else 'is'} in `reports/cards/{cohort}/`"
    said = [
        f"{cards[0].upper()}{cards[1:]}; {f'declined: {_listed(declined)}' if declined else f'none is declined{wrong}'}.",
        f"As ONNX the network differs by {told['onnx_difference']:.0e} at most."
        if known(told.get("onnx_difference"))
        else "It could not be exported as ONNX.",
    ]
    said += [told["recalibration"]] if told.get("recalibration") else []
    return {"model": label(told["model"]), "cards": " ".join(said)}


def _best(scores: dict) -> dict:
    """The highest concordance out of fold, with the same model's on the test set: without this it is not named."""
    from survpack.figures import label

    ranked = {
        model: one.get("harrell_c") or {}
        for model, one in scores.get("cv", {}).items()
        if not model.startswith("control-")
    }
    ranked = {model: one for model, one in ranked.items() if known(one.get("estimate"))}
    best = max(ranked, key=lambda model: ranked[model]["estimate"], default=None)
    again = score(scores.get("test", {}).get(best, {}).get("harrell_c"), "harrell_c")
    if again is None:
        return {}
    return {
        "label": _plain(label(best)),
        "harrell_c": score(ranked[best], "harrell_c"),
        "among": _word(len(ranked)),
        "test": again,
    }


def _scores(found: dict) -> dict:
    return {metric: score(one, metric) for metric, one in found.items()}


def _pruned(tree: dict) -> dict:
    """Without what is None or empty, so that a template can ask whether a number is there."""
    kept = {key: _pruned(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in kept.items() if value not in (None, {})}


def _if_known(value: float | None, digits: int) -> str | None:
    return amount(value, digits) if known(value) else None


def _if_said(text: str | None) -> str | None:
    """Lines as sentences of one paragraph."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return " ".join(_plain(line if line.endswith((".", ":")) else f"{line}.") for line in lines) or None


def _span(values: list, words) -> str:
    """One value in words, or "two to five" where the cohorts differ."""
    return " to ".join(dict.fromkeys(words(value) for value in (min(values), max(values))))


def _word(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else amount(count)


def _count(count: int, noun: str) -> str:
    return f"{_word(count)} {noun}" + ("" if count == 1 else "s")


def _listed(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _plain(text: str) -> str:
    """Text as markdown that reads as itself."""
    return re.sub(r"([\\`*{}\[\]<>$@^~|])", r"\\\1", str(text))


def _version(package: str) -> str:
    try:
        return metadata.version(package).partition("+")[0]  # the build differs between machines, the code does not
    except metadata.PackageNotFoundError:
        return "(not installed)"


# --- the sections ------------------------------------------------------------------------------------------------


def write_sections(cohorts: list[str], found: dict) -> None:
    """Fill the templates once a cohort, into `reports/sections/`."""
    with written_whole(paths.REPORTS / "sections") as part:
        part.mkdir()
        for cohort in cohorts:
            (part / f"{cohort}.qmd").write_text(section("_cohort.qmd", cohort, found), encoding="utf-8")
        includes = (f"{{{{< include /reports/sections/{cohort}.qmd >}}}}\n" for cohort in cohorts)
        (part / "all.qmd").write_text("\n".join(includes), encoding="utf-8")
        summaries = (section("_summary.qmd", cohort, found) for cohort in cohorts)
        (part / "summary.qmd").write_text("\n".join(summaries), encoding="utf-8")
        for name, told in {"type-one": self_audit.type_one, "machines": self_audit.machines}.items():
            (part / f"{name}.qmd").write_text(told(), encoding="utf-8")


def section(template: str, cohort: str, found: dict) -> str:
    """One template for one cohort, without the blocks whose figure, table or number is not there.

    A block stands between `<!-- if figure PATH -->` (or `table PATH`, `var NAME`; `unless` for the
    opposite) and `<!-- end -->`. `$cohort`, `$title`, `$outcome` and `$readings` are filled in.
    """
    path, own = paths.REPORTS / template, CohortPaths(cohort)

    def keep(match: re.Match) -> str:
        sense, kind, name, text = match.groups()
        if kind == "var":
            there = _look_up(found[cohort], name) is not None
        else:
            stage, file = name.split("/")
            there = ({"figure": own.figures, "table": own.tables}[kind](stage) / file).exists()
        return text if there == (sense == "if") else ""

    text = BLOCK.sub(keep, path.read_text(encoding="utf-8"))
    compared = json.loads(own.facts("comparisons").read_text(encoding="utf-8"))
    values = {key: found[cohort][key] for key in ("title", "outcome")}
    readings = "\n".join(f"- {_plain(line)}" for line in compared["readings"])
    try:
        return Template(text).substitute(values, cohort=cohort, readings=readings)
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"{path}: placeholder {error} is unknown, expected $cohort, $title, $outcome or $readings; correct it."
        ) from None


def expand(path: Path, found: dict) -> str:
    """A source with its `include` and `var` shortcodes filled in, as Quarto would.

    Raises
    ------
    BadInput
        Naming the variable or the file that is not there, and the source that asks for it.
    """

    def value(match: re.Match) -> str:
        text = _look_up(found, match[1])
        if not isinstance(text, str):
            raise BadInput(
                f"{path}: variable '{match[1]}' is not in _variables.yml, expected one of those there; "
                "correct its name, or put it inside a block `<!-- if var … -->`."
            )
        return text

    def included(match: re.Match) -> str:
        target = paths.ROOT / match[1].lstrip("/") if match[1].startswith("/") else path.parent / match[1]
        if not target.exists():
            raise BadInput(f"{path}: included file {target} not found, expected it there; run `make report`.")
        return expand(target, found)

    return INCLUDE.sub(included, VAR.sub(value, path.read_text(encoding="utf-8")))


def _look_up(tree: dict, name: str):
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


# --- the page ----------------------------------------------------------------------------------------------------


def quarto_command() -> str | None:
    """Where Quarto is, if it is installed."""
    return shutil.which("quarto")


def engine_of(quarto: str | None) -> str:
    """Name and version of what renders."""
    if quarto:
        return "Quarto " + subprocess.run([quarto, "--version"], capture_output=True, text=True).stdout.strip()
    import pypandoc

    return f"Pandoc {pypandoc.get_pandoc_version()} (Quarto is not installed here; the sources are the same)"


def by_pandoc(source: str) -> str:
    """One self-contained page; `reports/survpack.lua` stands in for Quarto's own filters."""
    import pypandoc

    options = [
        "--standalone", "--embed-resources", "--wrap=none", "--mathml", "--toc", "--toc-depth=3", "--fail-if-warnings",
        f"--lua-filter={paths.REPORTS / 'survpack.lua'}", "--citeproc", f"--css={paths.REPORTS / 'paper.css'}",
        f"--resource-path={paths.REPORTS}", "--variable=toc-title:Contents",
        '--variable=include-before:<div class="page">', "--variable=include-after:</div>",
    ]  # fmt: skip
    try:
        return pypandoc.convert_text(source, "html5", "markdown", extra_args=options, cworkdir=str(paths.REPORTS))
    except RuntimeError as error:
        raise BadInput(
            f"{paths.REPORTS / 'paper.qmd'}: Pandoc stopped ({' '.join(str(error).split())}); correct the source it names."
        ) from None


def by_quarto(quarto: str) -> str:
    """One self-contained page from the site's sources; the rest of the site is `quarto render`."""
    command = [quarto, "render", "reports/paper.qmd", "--to", "html", "-M", "embed-resources:true"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    page = paths.REPORTS / "site" / "reports" / "paper.html"
    if done.returncode or not page.exists():
        raise BadInput(
            f"{paths.REPORTS / 'paper.qmd'}: Quarto stopped ({' '.join(done.stderr.split())[-500:]}); "
            "correct the source it names."
        )
    return page.read_text(encoding="utf-8")


def _lighter(match: re.Match) -> str:
    """An embedded SVG as text instead of base64, which is a third longer; the drawing is the same."""
    drawing = b64decode(match[1]).decode("utf-8")
    drawing = re.sub(r"<\?xml.*?\?>|<!DOCTYPE[^>]*>|<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"\s*\n\s*", " ", drawing).strip()
    if "'" not in drawing:
        drawing = drawing.replace('"', "'")
    return "data:image/svg+xml," + quote(drawing, safe=" '()*+,-./:;=?@_~!$&[]|^{}")
