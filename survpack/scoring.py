"""Scores of someone else's predictions: the same scores as ours, on the same patients, folds and resamples."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack import adapters, figures, inference, metrics, outside, paths, readings, tables
from survpack.outside import Outside, refuse
from survpack.prognosis import Prognosis
from survpack.render import by_pandoc
from survpack.study import Study

BESIDE = ("age", "volume", "clinical-cox")  # of ours, where they were fitted: what any model has to beat
SIDES = {"cv": ("dev", "Development patients"), "test": ("test", "Held-out test set")}
UNSEEN = (
    "Whether the model has seen these patients in training, the file does not tell: only if it has not are these scores "
    "what new patients would give. Concordance and AUC compare patients of one fold of the study, as for its own models."
)


def report(path: Path, cohort: str, *, test: bool = False) -> Path:
    """Write the scores of a file of predictions, and a page that shows them, to `reports/scored/<cohort>/<file>/`.

    Parameters
    ----------
    path : Path
        See `read`.
    cohort : str
    test : bool
        Score the patients of the locked test set too: a reading that is logged.

    Returns
    -------
    Path
        Of the page; beside it `scores.json`, `scores.md` and the figures with what they were drawn from.

    Raises
    ------
    BadInput
        As `read`; for a cohort that has not been read, too few events, or a part of the test set.
    """
    study = _study(cohort)
    theirs = outside.read(path, study)
    sides = _sides(path, study, theirs.prognosis, test)
    told = [UNSEEN, *_test_set(study, theirs.prognosis, test)]  # logged before anything is scored
    found = _scored(study, theirs, test)
    for split, one in found.items():
        if one["harrell_c"]["high"] is not None and one["harrell_c"]["high"] < 0.5:
            told.append(f"{SIDES[split][1]}: the risk ranks backwards; check that higher is worse.")
    beside = _differences(study, sides["cv"]) if "cv" in sides else []
    notes = [*told, *theirs.notes]
    text = _text(study, sides, found, beside, notes)
    folder = paths.REPORTS / "scored" / cohort / theirs.prognosis.model
    with paths.written_whole(folder) as part:  # the whole folder: nothing of an earlier file stays
        study.save_json(part / "scores.json", {"scores": found, "beside": beside, "notes": notes})
        (part / "scores.md").write_text(text, encoding="utf-8")
        page = f'---\ntitle: "{figures.label(folder.name)} on {cohort}"\nlang: en-GB\n---\n\n{text}\n# Figures\n\n'
        split, one = next(iter(sides.items()))
        page += f"{SIDES[split][1]}.\n\n" + "\n\n".join(_figures(study, theirs, one, part))
        (part / "report.html").write_text(by_pandoc(page), encoding="utf-8")
    return folder / "report.html"


def _study(cohort: str) -> Study:
    study = Study.open(cohort)
    if not (study.paths.cohort / "splits.parquet").exists():
        adapters.preflight(cohort)  # which says so if there is no such cohort
        remedy = f'run `make report COHORTS="{cohort}"` first'
        refuse(study.paths.cohort, "no patients there", f"those of cohort '{cohort}'", remedy)
    return study


def _sides(path: Path, study: Study, prognosis: Prognosis, test: bool) -> dict[str, Prognosis]:
    """What is to be scored, by split; the test set whole or not at all, since half a reading is a reading."""
    rows, held = prognosis.table["split"].value_counts(), (study.splits["split"] == "test").sum()
    if test and rows.get("test", 0) < held:
        found = f"{rows.get('test', 0)} of the {held} patients of the test set are predicted"
        refuse(path, found, "all of them for `--test`", "predict the others too, or leave `--test` out")
    sides = {split: prognosis.of(split) for split in SIDES if rows.get(split) and (test or split == "cv")}
    events = [study.outcome(one.table["patient_id"])["event"].sum() for one in sides.values()]
    if max(events, default=0) < 2:
        found = f"{sum(events)} events among the {rows.get('cv', 0)} development patients predicted"
        more = (
            "predict more" if test or not rows.get("test") else "predict more, or add `--test`, which logs the reading"
        )
        refuse(path, found, "two at least", more)
    return sides


def _test_set(study: Study, one: Prognosis, test: bool) -> list[str]:
    """What is said of it; with `test` the reading is logged."""
    left = int((one.table["split"] == "test").sum())
    if not test:
        told = f"{left} patients of the locked test set are left out; `--test` scores them, and logs the reading."
        return [told] if left else []
    sentence = readings.unlock(study.name, {one.model: one}, study.cohort.outcome, "again", by="outside").sentence
    return [f"{sentence} The log is `data/readings/{study.name}.jsonl`, in which this reading is `{one.model}`."]


def _scored(study: Study, theirs: Outside, test: bool) -> dict:
    """`{split: {metric: interval}}` as the study scores its own, without what the columns do not allow."""
    one, chosen = theirs.prognosis if test else theirs.prognosis.of("cv"), study.params.scores
    found = inference.evaluate({"theirs": one}, study.cohort.participants, study.development, chosen, study.name)
    return {
        split: {name: models["theirs"][name] for name in theirs.metrics} for split, models in found.items() if models
    }


def _again(study: Study) -> dict:
    chosen = study.params.scores
    return {"repeats": chosen.bootstrap, "confidence": chosen.confidence, "seed": chosen.seed}


def _development(study: Study) -> pd.DataFrame:
    return study.cohort.outcome[study.cohort.outcome["patient_id"].isin(study.development)]


def _differences(study: Study, theirs: Prognosis) -> list[str]:
    """A line for each of ours that is fitted: the plain ones and those shown, paired on the patients both predict."""
    found, how = {}, {"train_outcome": _development(study), "horizon": study.horizon_days, **_again(study)}
    for name in dict.fromkeys([*BESIDE, *study.params.scores.shown]):
        if not study.paths.predictions(name).exists():
            continue
        ours = Prognosis.load(study.paths.predictions(name)).of("cv")
        pair = [_among(theirs, ours), _among(ours, theirs)]
        if len(pair[0].table):
            found[name] = inference.paired_difference(*pair, study.cohort.outcome, "harrell_c", **how)
    adjusted = inference.holm({name: one["p"] for name, one in found.items()})
    count = sum(p is not None for p in adjusted.values())
    told = {name: {**one, "p_adjusted": adjusted[name], "comparisons": count} for name, one in found.items()}
    name_theirs, level = figures.label(theirs.model), how["confidence"]
    return [inference.reading(one, name_theirs, figures.label(name), confidence=level) for name, one in told.items()]


def _among(one: Prognosis, other: Prognosis) -> Prognosis:
    both = one.table["patient_id"].isin(other.table["patient_id"])
    return Prognosis(one.table[both].reset_index(drop=True), one.times)


def _figures(study: Study, theirs: Outside, one: Prognosis, folder: Path) -> list[str]:
    """Save the figures that the columns allow, and give their markdown."""
    outcome, horizon, drawn = study.cohort.outcome, study.horizon_days, {}
    over = metrics.auc_over_time(one, outcome, _development(study)).assign(model=one.model)
    if over["auc"].notna().sum() > 1:
        drawn["Time-dependent AUC"] = ("roc", figures.roc_over_time(over), over)
    if "ici" in theirs.metrics:
        bands = {one.model: metrics.calibration_band(one, outcome, horizon, **_again(study))}
        groups = {one.model: metrics.calibration_curve(one, outcome, horizon)}
        told = f"Predicted against observed risk at {horizon:g} days"
        drawn[told] = ("calibration", figures.calibration(bands, groups, horizon), bands)
        decisions = metrics.decision_curve({one.model: one}, outcome, horizon, **_again(study))
        told = f"Net benefit of acting on the risk by {horizon:g} days"
        drawn[told] = ("decision", figures.decision_curves(decisions, horizon), decisions)
    if "mae_days" in theirs.metrics:
        days = metrics.Sample.of(one, outcome).frame()
        drawn["Observed against predicted days"] = ("days", figures.predicted_vs_observed(days), days)
    for name, figure, table in drawn.values():
        figures.save(figure, folder, name, table)
    place = folder.relative_to(paths.REPORTS)
    return [f"![{told}.]({place}/{name}.svg)" for told, (name, *_) in drawn.items()]


def _text(study: Study, sides: dict, found: dict, beside: list[str], notes: list[str]) -> str:
    """Scores, differences and notes as markdown."""
    lines, chosen = [], study.params.scores
    for split, scores in found.items():
        side, heading = SIDES[split]
        ids, whole = sides[split].table["patient_id"], (study.splits["split"] == side).sum()
        lines += [f"# {heading}", f"{len(ids)} of {whole} patients, {study.outcome(ids)['event'].sum()} events."]
        shown = {
            tables.HEADINGS[name]: tables.interval_text(one, tables.DIGITS.get(name, 2)) for name, one in scores.items()
        }
        shown = pd.DataFrame(shown.items(), columns=["Score", figures.label(sides[split].model)])
        lines.append(shown.to_markdown(index=False, disable_numparse=True))
    lines.append(f"Intervals are {100 * chosen.confidence:g} % over {chosen.bootstrap} resamples of patients.")
    if beside:
        told = "Differences in Harrell's C, on the development patients that both predict:"
        lines += ["# Beside the models of the study", told, "\n".join(f"- {line}" for line in beside)]
    return "\n\n".join([*lines, "# How to read this", "\n".join(f"- {note}" for note in notes)]) + "\n"
