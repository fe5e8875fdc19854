"""Scores of someone else's predictions: everyone together, or on the folds and the locked test set of the study.

A model that was not trained here knows nothing of our folds: all its patients are one group, every comparable pair
counts, and G is estimated on those scored. That is how a published figure is met; `outside.read` says what a column
means, `metrics.day` which figure is which. On request (`folds`) the patients, pairs and resamples are those of our own
models, and differences from these are always so. Whatever reads the test set's outcomes is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack import adapters, few, figures, inference, metrics, outside, paths, phantom, readings, tables
from survpack.cohort import Cohort
from survpack.metrics.day import CALLED
from survpack.metrics.outcome import table_of
from survpack.numbers import known
from survpack.outside import Outside, refuse
from survpack.prognosis import Prognosis
from survpack.render import by_pandoc
from survpack.study import Study

BESIDE = ("age", "volume", "clinical-cox")  # of ours, where they were fitted: what any model has to beat
HEADINGS = {"cv": "Development patients", "test": "Held-out test set", "everyone": "Everyone"}  # of each side
UNSEEN = (
    "Whether the model has seen these patients in training, the file does not tell: only if it has not are these scores "
    "what new patients would give."
)
TOGETHER = (
    "The patients are one group: every comparable pair counts, censoring weights are estimated on those scored, and skill "
    "is over their own Kaplan–Meier curve. "
    "`--folds` scores them as our own models are, in the folds of the study and without its test set."
)
WITHIN = (
    "Concordance and AUC compare patients of one fold of the study, as for its own models; censoring weights are those "
    "of the development patients."
)
MOST_DAYS = 12  # of a curve's columns that are scored one by one; of a finer curve the study's days are
AT_DAY = {"auc": "AUC", "auc_known": "AUC, fate known", "accuracy": "Accuracy", "sensitivity": "Sensitivity",
            "specificity": "Specificity"}  # fmt: skip
PUBLISHED = (
    "In papers: a C-index is mostly Harrell's C; the AUC of a day is mostly that of patients whose fate is known then, "
    "and accuracy, sensitivity and specificity are of the same patients. The other AUC weighs deaths for those lost."
)


class Side(NamedTuple):
    """What is scored at once.

    Attributes
    ----------
    heading : str
    prognosis : Prognosis
    known : DataFrame
        `patient_id`, `time_days`, `event` of those predicted.
    trained : DataFrame
        The same of those on whom censoring weights are estimated.
    size : int
        Patients that might have been predicted.
    """

    heading: str
    prognosis: Prognosis
    known: pd.DataFrame
    trained: pd.DataFrame
    size: int


def report(
    path: Path, cohort: str, *, test: bool = False, folds: bool = False, horizon: float | None = None,
    threshold: float = 0.5,
) -> Path:  # fmt: skip
    """Write the scores of a file of predictions, and a page that shows them, to `reports/scored/<cohort>/<file>/`.

    Parameters
    ----------
    path : Path
        See `outside.read`.
    cohort : str
        Read by stage 01, or one of real patients that is there to be read.
    test : bool
        The patients of the locked test set too, apart; implies `folds`.
    folds : bool
        Score the development patients within the folds of the study, instead of everyone together.
    horizon : float, optional
        Day of Brier score and calibration; see `outside.read`.
    threshold : float
        Predicted risk from which on a patient is called: of accuracy, sensitivity and specificity.

    Returns
    -------
    Path
        Of the page; beside it `scores.json`, `scores.md` and the figures with what they were drawn from.

    Raises
    ------
    BadInput
        As `outside.read`; for a cohort that has not been read, too few events, or a part of the test set.
    """
    for option, given, most in (("--horizon", horizon, np.inf), ("--threshold", threshold, 1)):
        if given is not None and not 0 < given < most:
            expected = "days above 0" if option == "--horizon" else "a risk between 0 and 1"
            refuse(path, f"`{option} {given:g}`", expected, "correct it")
    place = paths.below(paths.REPORTS / "scored", cohort)
    study, folds = _study(cohort), folds or test
    if folds and _splits(study) is None:
        refuse(path, f"`--{'test' if test else 'folds'}`, but cohort {cohort} has no folds", "those of stage 01",
               f'leave it out, or run `make report COHORTS="{cohort}"` first')  # fmt: skip
    theirs = outside.read(path, study, together=not folds, horizon=horizon)
    as_ours = theirs if folds or _splits(study) is None else outside.read(path, study, horizon=horizon)
    sides = _sides(path, study, theirs, test)
    folder = paths.below(place, theirs.prognosis.model)
    record, told = _reading(study, theirs.prognosis, as_ours.prognosis, test)
    found = {name: _scored(study, theirs, side) for name, side in sides.items()}
    days = {name: _by_day(study, theirs, side, threshold) for name, side in sides.items()}
    backwards = [
        f"{sides[name].heading}: the risk ranks backwards; check that higher is worse."
        for name, one in found.items()
        if one["harrell_c"]["estimate"] == 0 or (known(one["harrell_c"]["high"]) and one["harrell_c"]["high"] < 0.5)
    ]
    least = study.params.scores.small_cell
    small = [_few(side, least) for side in sides.values() if not few.enough(side.known["event"], least)]
    undated = [
        f"{side.heading}: not scored in days, since the curves of {some} of {of} patients do not fall to one half."
        for side in sides.values()
        for some, of in [metrics.without_day(side.prognosis)]
        if some and "mae_days" in theirs.metrics
    ]
    ended = [told for name, side in sides.items() for told in _ended(study, theirs, side, found[name])]
    beside = _differences(study, as_ours.prognosis.of("cv")) if _splits(study) is not None else []
    warnings = [*small, *undated, *ended, *backwards]
    notes = [UNSEEN, WITHIN if folds else TOGETHER, *told, *warnings, *theirs.notes, PUBLISHED]
    text = _text(study, theirs, sides, found, days, beside, notes, threshold)
    with _written(folder) as part:  # the whole folder: nothing of an earlier file stays
        content = {"scores": found, "days": days, "horizon_days": theirs.horizon, "beside": beside, "notes": notes}
        study.save_json(part / "scores.json", content)
        (part / "scores.md").write_text(text, encoding="utf-8")
        page = f'---\ntitle: "{figures.label(folder.name)} on {cohort}"\nlang: en-GB\n---\n\n{text}\n# Figures\n\n'
        side = next(iter(sides.values()))
        page += f"{side.heading}.\n\n" + "\n\n".join(_figures(study, theirs, side, part))
        (part / "report.html").write_text(by_pandoc(page), encoding="utf-8")
        record()  # last: what could not be written has not been seen by anyone
    return folder / "report.html"


@contextmanager
def _written(folder: Path):
    try:
        with paths.written_whole(folder) as part:
            yield part
    except OSError as error:
        found = f"cannot be written ({error.strerror or error})"
        refuse(folder, found, "room for the scores", "free some space, or mend the folder's rights")


def _study(cohort: str) -> Study:
    """The study of a cohort that stage 01 has read; of one of real patients that is only there, its table."""
    study = Study.open(cohort)
    if not (study.paths.cohort / "cohort.json").exists():
        if cohort in phantom.PHANTOMS:  # which would first have to be made
            remedy = f'run `make report COHORTS="{cohort}"` first'
            refuse(study.paths.cohort, "no patients there", f"those of cohort '{cohort}'", remedy)
        found = adapters.load(cohort, study.params)
        replace(found, images=found.images.iloc[:0], imaged=False).validated()  # as stage 01, which reads the scans too
        vars(study)["cohort"] = found  # in place of what stage 01 would have written
        return study
    try:
        vars(study)["cohort"] = Cohort.load(study.paths.cohort)
        _splits(study)
    except (ValueError, OSError, KeyError) as error:  # what pandas, pyarrow and json raise for what they cannot read
        found = f"not readable ({' '.join(str(error).split())[:120]})"
        remedy = f'remove the folder and run `make report COHORTS="{cohort}"`'
        refuse(study.paths.cohort, found, "what stage 01 has written", remedy)
    return study


def _splits(study: Study) -> pd.DataFrame | None:
    return study.splits if (study.paths.cohort / "splits.parquet").exists() else None


def _sides(path: Path, study: Study, theirs: Outside, test: bool) -> dict[str, Side]:
    """What is to be scored, by split; the test set whole or not at all, since half a reading is a reading."""
    rows = theirs.prognosis.table["split"].value_counts()
    sizes = {"everyone": len(study.cohort.outcome)} if _splits(study) is None else (
        study.splits["split"].map({"dev": "cv"}).fillna("test").value_counts().to_dict() | {"everyone": len(study.splits)}
    )  # fmt: skip
    if test and rows.get("test", 0) < sizes["test"]:
        found = f"{rows.get('test', 0)} of the {sizes['test']} patients of the test set are predicted"
        refuse(path, found, "all of them for `--test`", "predict the others too, or leave `--test` out")
    sides = {}
    for name, heading in HEADINGS.items():
        if rows.get(name) and (test or name != "test"):
            one = theirs.prognosis.of(name)
            known = _known(study, one.table["patient_id"])
            trained = known if name == "everyone" else _known(study, study.development)
            sides[name] = Side(heading, one, known, trained, sizes[name])
    events = [int(side.known["event"].sum()) for side in sides.values()]
    if max(events, default=0) < 2:
        found = f"{sum(events)} events among the {sum(len(side.known) for side in sides.values())} patients predicted"
        remedy = (
            "predict more, or add `--test`, which logs the reading" if rows.get("test") and not test else "predict more"
        )
        total = int(study.cohort.outcome["event"].sum())
        if total < 2:  # more predictions would not help
            remedy = f"{total or 'nobody'} of the whole cohort had the event: check `event`, or wait for more follow-up"
        refuse(path, found, "two at least", remedy)
    return sides


def _known(study: Study, ids) -> pd.DataFrame:
    """`patient_id`, `time_days`, `event` of the patients named."""
    outcome = study.cohort.outcome
    return table_of(outcome[outcome["patient_id"].isin(ids)], f"cohort {study.name}").reset_index()


def _reading(study: Study, theirs: Prognosis, as_ours: Prognosis, test: bool) -> tuple[Callable, list[str]]:
    """What logs that locked outcomes were read, and what is said of it.

    Where there is no test set yet everyone is logged: one drawn later will have been scored.
    """
    splits, log = (
        _splits(study),
        f"The log is `data/readings/{study.name}.jsonl`, in which this reading is `{theirs.model}`.",
    )
    one = Prognosis(theirs.table.assign(split="test"), theirs.times) if splits is None else as_ours
    read = one.table.loc[one.table["split"] == "test", "patient_id"]
    together = (theirs.table["split"] == "everyone").all()
    if read.empty or not (together or test):
        left = f"{len(read)} patients of the locked test set are left out; `--test` scores them, and logs the reading."
        return (lambda: None), [] if read.empty else [left]
    outcome = _known(study, theirs.table["patient_id"])
    unlock = partial(readings.unlock, study.name, {one.model: one}, outcome, "again", by="outside")
    if splits is None:
        told = "No test set is set aside yet: all patients are logged as read, for one that is drawn later."
        return unlock, [f"{told} {log}"]
    held = (splits["split"] == "test").sum()
    told = [f"{len(read)} of the {held} patients of the locked test set are among them, a reading that is logged."]
    looks = [unlock(record=False).sentence] if len(read) == held else []  # which speaks of the whole test set
    return unlock, [" ".join([*(told if together else []), *looks, log])]


def _scored(study: Study, theirs: Outside, side: Side) -> dict:
    """`{metric: interval}` of what the columns allow, as the study scores its own."""
    score = partial(metrics.scores, side.prognosis, side.known, side.trained, theirs.horizon, metrics=theirs.metrics)
    crossed = side.prognosis.table["split"].eq("cv").all()  # as asked, in the study's folds: these taught it in turn
    return inference.of_patients(
        lambda counts: score(counts=counts), side.prognosis, study.params.scores, fitted=crossed
    )


def _few(side: Side, least) -> str:
    """A warning: what the study itself would not score."""
    told = few.not_scored(len(side.known), int(side.known["event"].sum()), least)
    return f"{side.heading}: scored because it was asked; in the study such a set is {told}."


def _ended(study: Study, theirs: Outside, side: Side, found: dict) -> list[str]:
    """Why scores that the columns allow are not there: their day is after follow-up, or after the reach of the weights."""
    last, reach = side.known["time_days"].max(), metrics.censoring_reach(side.trained)
    asked = {*_days(study, theirs), *([theirs.horizon] if "brier" in found else [])}
    late, far = ([f"{day:g}" for day in sorted(asked) if day > end] for end in (last, reach))
    told = []
    if late:
        told.append(
            f"no Brier score, calibration or AUC of {', '.join(late)} days, since follow-up ends on day {last:g}"
        )
    elif far:
        told.append(f"no Brier score or AUC of {', '.join(far)} days, since too few are uncensored after day {reach:g}")
    if "ibs" in found and found["ibs"]["estimate"] is None:
        told.append("no integrated scores, which need two days of the curves within follow-up")
    return [f"{side.heading}: {one}." for one in told]


def _by_day(study: Study, theirs: Outside, side: Side, threshold: float) -> list[dict]:
    """What papers tell of a day, a row a day: who had died, and `metrics.day_scores` with their intervals."""
    sample, risks = metrics.Sample.of(side.prognosis, side.known), theirs.prognosis.table["risk"]
    rows = []
    for day in _days(study, theirs):
        if theirs.given:
            risk = 1 - metrics.survival_at(side.prognosis, [day])[:, 0]
            called = risk > threshold - 1e-9  # 1 - 0.8 is a little less than 0.2
        else:
            risk, called = sample.risk, sample.risk == risks.max() if risks.nunique() == 2 else None
        score = partial(metrics.day_scores, sample, day, side.trained, risk=risk, called=called)
        found = inference.of_patients(
            lambda counts, of=score: of(counts=counts), side.prognosis, study.params.scores, fitted=False
        )
        dead, alive = (int(fate.sum()) for fate in metrics.fates(sample, day))
        rows.append({"day": day, "dead": dead, "alive": alive, "lost": len(sample.risk) - dead - alive, **found})
    return rows


def _days(study: Study, theirs: Outside) -> list[float]:
    """Days that are scored one by one: the curve's own if these are few, else the study's that it speaks of."""
    asked = {theirs.horizon, *(theirs.given if 0 < len(theirs.given) <= MOST_DAYS else study.horizons_days)}
    return sorted(day for day in asked if not theirs.given or theirs.speaks_of(day))


def _differences(study: Study, theirs: Prognosis) -> list[str]:
    """A line for each of ours that is fitted: the plain ones and those shown, paired on the patients both predict."""
    about = {"train_outcome": _known(study, study.development), "horizon": study.horizon_days}
    found, counted, chosen = {}, {}, study.params.scores
    for name in dict.fromkeys([*BESIDE, *study.params.scores.shown]):
        if not study.paths.predictions(name).exists():
            continue
        ours = Prognosis.load(study.paths.predictions(name)).of("cv")
        pair = [_among(theirs, ours), _among(ours, theirs)]
        if len(pair[0].table):
            how = about | chosen.resampling(inference.concordance_of(pair[1], study.cohort.outcome))
            found[name] = inference.paired_difference(*pair, study.cohort.outcome, "harrell_c", **how)
            known = _known(study, pair[0].table["patient_id"])
            counted[name] = f"{len(known)} patients, {known['event'].sum()} events"
    reading = partial(inference.reading, label_a=figures.label(theirs.model), confidence=chosen.confidence)
    return [
        f"{reading(one, label_b=figures.label(name))} ({counted[name]})"
        for name, one in inference.family(found).items()
    ]


def _among(one: Prognosis, other: Prognosis) -> Prognosis:
    both = one.table["patient_id"].isin(other.table["patient_id"])
    return Prognosis(one.table[both].reset_index(drop=True), one.times)


def _figures(study: Study, theirs: Outside, side: Side, folder: Path) -> list[str]:
    """Save the figures that the columns allow, and give their markdown."""
    one, outcome, horizon, drawn = side.prognosis, side.known, theirs.horizon, {}
    over = metrics.auc_over_time(one, outcome, side.trained).assign(model=one.model)
    if over["auc"].notna().sum() > 1:
        drawn["Time-dependent AUC"] = ("roc", figures.roc_over_time(over), over)
    again = study.params.scores.resampling(fitted=False)
    if "ici" in theirs.metrics:
        bands = {one.model: metrics.calibration_band(one, outcome, horizon, **again)}
        groups = {one.model: metrics.calibration_curve(one, outcome, horizon)}
        told = f"Predicted against observed risk at {horizon:g} days"
        drawn[told] = ("calibration", figures.calibration(bands, groups, horizon), bands)
        decisions = metrics.decision_curve({one.model: one}, outcome, horizon, **again)
        told = f"Net benefit of acting on the risk by {horizon:g} days"
        drawn[told] = ("decision", figures.decision_curves(decisions, horizon), decisions)
    if "mae_days" in theirs.metrics and not metrics.without_day(one)[0]:
        days = metrics.Sample.of(one, outcome).frame()
        drawn["Observed against predicted days"] = ("days", figures.predicted_vs_observed(days), days)
    for name, figure, table in drawn.values():
        figures.save(figure, folder, name, table)
    place = folder.relative_to(paths.REPORTS)
    return [f"![{told}.]({place}/{name}.svg)" for told, (name, *_) in drawn.items()]


def _text(
    study: Study, theirs: Outside, sides: dict[str, Side], found: dict, days: dict, beside: list[str], notes: list[str],
    threshold: float,
) -> str:  # fmt: skip
    """Scores, differences and notes as markdown."""
    lines, chosen = [], study.params.scores
    headings = tables.HEADINGS | ({"auc": f"AUC at {theirs.given[0]:g} days"} if len(theirs.given) == 1 else {})
    for name, side in sides.items():
        shown = {
            headings[key]: tables.interval_text(one, tables.DIGITS.get(key, 2)) for key, one in found[name].items()
        }
        shown = pd.DataFrame(shown.items(), columns=["Score", figures.label(theirs.prognosis.model)])
        lines += [
            f"# {side.heading}",
            f"{len(side.known)} of {side.size} patients, {side.known['event'].sum()} events.",
            shown.to_markdown(index=False, disable_numparse=True),
            *_days_text(days[name], threshold),
        ]
    lines.append(f"Intervals are {100 * chosen.confidence:g} % over {chosen.bootstrap} resamples of patients.")
    if beside:
        told = (
            "Differences in Harrell's C, paired on the development patients that both predict; only patients of one fold "
            "of the study are compared, so that both scores may differ from those above:"
        )
        lines += ["# Beside the models of the study", told, "\n".join(f"- {line}" for line in beside)]
    return "\n\n".join([*lines, "# How to read this", "\n".join(f"- {note}" for note in notes)]) + "\n"


def _days_text(rows: list[dict], threshold: float) -> list[str]:
    """The scores of single days: what they are, and a table."""
    if not rows:
        return []
    counts = {"Day": "day", "Dead": "dead", "Alive": "alive", "Lost before": "lost"}
    shown = pd.DataFrame([
        {heading: f"{row[key]:g}" for heading, key in counts.items()}
        | {heading: tables.interval_text(row[key], 2) for key, heading in AT_DAY.items() if key in row}
        for row in rows
    ])  # fmt: skip
    called = (
        f" Called dead is whose predicted risk by the day is {threshold:g} or more, or the higher of only two risks."
    )
    told = f"Dead or alive by a day.{called if CALLED[0] in rows[0] else ''}"
    return [told, shown.to_markdown(index=False, disable_numparse=True)]
