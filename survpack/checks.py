"""What can be wrong with a table of patients: outcome, ids, covariates, days, and predictors that know the outcome.

A rule about the whole cohort needs `MANY` patients, so that a handful of them is not called odd.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from survpack.cohort import KINDS, OUTCOME, VISITS, Cohort, Finding, listed
from survpack.hindsight import DAYS, MANY, SCAN_DAY, after_the_end, named_later, past_baseline, scan_day, tells_outcome
from survpack.hindsight import snake as _snake

USUAL_DAYS = (60, 3000)  # where the median time of a survival cohort lies
CENTURY = 36525  # days
MOSTLY = 0.7  # of the patients should have a covariate: what is filled in for more is no measurement
ADULT = 18  # years; the median of a cohort in which nobody is 0
SENTINELS = (-9999, -999, -99, -9, -1, 77, 88, 99, 777, 888, 998, 999, 7777, 8888, 9998, 9999, 99999)
RANGES = {  # name of a covariate to lowest, highest and unit; what lies outside is another unit or a slip
    r"age": (0, 120, "years"),
    r"karnofsky|kps": (0, 100, "points"),
    r"ecog|who_ps": (0, 5, "points"),
    r"bmi|body_mass_index": (10, 80, "kg/m²"),
    r"weight": (1, 400, "kg"),
    r"height": (30, 250, "cm"),
}
CHANGE = re.compile(r"_(loss|gain|change|delta)(_|$)")  # of a weight, say, has no such range
MAYBE = {  # what may be another patient, by `shared.pairs`
    "the same id": "the same id with another outcome",
    "the same chart and outcome": "the same chart and outcome, as many as chance gives",
}
EXAMPLE = r"(?:sub-)?example-?\d+"  # the patients of `python -m survpack new`


def ordered(findings: list[Finding]) -> list[Finding]:
    """Errors first; findings that differ only in the patient (or in a detail in brackets) are one."""
    groups: dict[tuple, list[Finding]] = {}
    for one in findings:
        plain = re.sub(r" ?\([^()]*\)", "", one.found)
        groups.setdefault((one.severity, plain, one.expected, one.fix, bool(one.patients)), []).append(one)
    merged = []
    for same in groups.values():
        patients = tuple(dict.fromkeys(patient for one in same for patient in one.patients))
        places = list(dict.fromkeys(one.where for one in same))
        more = f" and {len(places) - 1} more files" if places[1:] and not patients else ""
        merged.append(replace(same[0], where=places[0] + more, patients=patients))
    return sorted(merged, key=lambda finding: finding.severity)


def check_participants(table: pd.DataFrame, dictionary: dict, where: str) -> list[Finding]:
    """Findings about ids, outcome and covariates; every one names the patients it concerns.

    Parameters
    ----------
    table : DataFrame
        As `Cohort.participants`, perhaps with anything wrong with it.
    dictionary : dict
        As `Cohort.dictionary`.
    where : str
        The file that the table came from.
    """
    absent = [column for column in [*OUTCOME, *dictionary] if column not in table]
    if absent:
        return [
            Finding("error", where, f"no column {listed(absent)}", f"{listed([*OUTCOME, *dictionary])}",
                    f"add or rename it (columns found: {', '.join(map(str, table.columns))})")
        ]  # fmt: skip
    if table.empty:
        return [Finding("error", where, "no patient", "one row a patient", "fill it in, or relax the selection")]
    findings = _about_ids(table, where) + _about_outcome(table, where)
    for name, entry in dictionary.items():
        if entry.get("kind") not in KINDS:
            findings.append(
                Finding("error", where, f"covariate `{name}` is of kind {entry.get('kind')!r}",
                        f"one of {', '.join(KINDS)}", "correct the dictionary (participants.json)")
            )  # fmt: skip
        elif entry["kind"] == "numeric":
            findings += _about_number(table, name, entry, where)
        else:
            findings += _about_levels(table, name, entry, where)
        findings += _about_spread(table, name, where) + _about_leak(table, name, entry, where)
    return findings


def check_features(features: pd.DataFrame, participants: pd.DataFrame, where: str) -> list[Finding]:
    """Features measured elsewhere that tell the outcome, by the rules for covariates; one finding for all alike.

    Parameters
    ----------
    features, participants : DataFrame
        As of `Cohort`.
    where : str
    """
    names, entry = [name for name in features if name != "patient_id"], {"kind": "numeric"}
    outcome = participants.drop_duplicates("patient_id").set_index("patient_id")[["time_days", "event"]]
    known = features[features["patient_id"].isin(outcome.index)]
    outcome = outcome.loc[known["patient_id"]].reset_index(drop=True)
    alike: dict[tuple[str, str], list[str]] = {}
    for name in names:
        table = outcome.assign(**{name: known[name].to_numpy()})
        if how := tells_outcome(table, name, entry, len(names)):
            alike.setdefault(("error", how), []).append(name)
        elif like := named_later(name):
            alike.setdefault(("warning", f"is named like {like}"), []).append(name)
        elif days := past_baseline(table, name, entry):
            alike.setdefault(("warning", f"is a time that reaches {days:.0f} days"), []).append(name)
    return [
        Finding(severity, where, f"of the features, {listed(f'`{name}`' for name in same)}: each {how}"
                if same[1:] else f"feature `{same[0]}` {how}", "features known at baseline",
                f"if known only after baseline, leave {'them' if same[1:] else 'it'} out of `features`")
        for (severity, how), same in alike.items()
    ]  # fmt: skip


def check_flow(flow: list[dict], where: str, imaged: bool = True) -> list[Finding]:
    """Whom a rule leaves out of a cohort of one's own; an error where fewer are left, for that is rarely meant."""
    expected, fix = (
        ("an image with its mask of each patient, or features of it", "add the mask or the image, correct its name")
        if imaged
        else ("features of each patient", "add its row of features, write its id as the table does")
    )
    return [
        Finding("error" if step["excluded"] > step["remaining"] else "warning", where,
                f"excluded by the rule `{step['step']}` ({step['excluded']} of {step['excluded'] + step['remaining']})",
                expected, f"{fix}, or leave the patient out", tuple(step["patients"]))
        for step in flow
        if step.get("own") and step["excluded"]
    ]  # fmt: skip


def check_visits(visits: pd.DataFrame, participants: pd.DataFrame, where: str) -> list[Finding]:
    """Findings about the long table of visits; an empty one is in order."""
    absent = [column for column in VISITS if column not in visits]
    if absent:
        return [Finding("error", where, f"visits without column {listed(absent)}", listed(VISITS), "add it")]
    day = pd.to_numeric(visits["day"], errors="coerce")
    return [
        *_told(visits, ~visits["patient_id"].isin(participants["patient_id"]), where, "a visit of somebody else",
               "patients of the table", "add the patient, or write the ids alike"),
        *_told(visits, day.isna(), where, "a visit has no `day`", "days from baseline", "give it"),
        *_told(visits, visits.duplicated(["patient_id", "session"], keep=False), where, "a visit is listed twice",
               "one row a session", "keep one"),
        *_told(visits, after_the_end(visits["patient_id"], day, participants), where,
               "a visit after the end of follow-up", "visits up to `time_days`", "correct the day or the time"),
    ]  # fmt: skip


def check_scan_days(table: pd.DataFrame, dictionary: dict, images: pd.DataFrame, where: str) -> list[Finding]:
    """Findings about columns that look like the day or date of a scan and are not that of any image.

    Parameters
    ----------
    table : DataFrame
        All columns of the source, one row a patient.
    dictionary : dict
        The covariates, of which `check_participants` speaks.
    images : DataFrame
        As `Cohort.images`.
    where : str
    """
    findings, strange = [], []
    covariates = [pd.to_numeric(table[name], errors="coerce") for name in dictionary if name in table]
    for name in table.columns.drop([*OUTCOME, *dictionary], errors="ignore"):
        number = pd.to_numeric(table[name], errors="coerce")
        if number.notna().any() and any(number.equals(each) for each in covariates):
            continue  # the source's column of a covariate, which is told of there
        if SCAN_DAY.search(_snake(str(name))) and table[name].notna().any() and not _is_known(table, name, images):
            strange.append(f"`{name}`")
            findings += _about_scan_day(table, name, {}, where)
    if strange:
        several = len(strange) > 1
        findings.append(
            Finding("warning", where, f"column{'s' * several} {listed(strange, 10)} named like the day of a scan, which no "
                    "image has", "the day of each scan, counted from baseline",
                    "give it as `day` (of an image in cohort.yaml, of a session in sessions.tsv), or leave it out")
        )  # fmt: skip
    return findings


def _is_known(table: pd.DataFrame, name: str, images: pd.DataFrame) -> bool:
    """Whether each of a column's numbers is, in some unit, the day of an image of its patient."""
    given = table[["patient_id"]].assign(number=pd.to_numeric(table[name], errors="coerce")).dropna()
    pairs = given.reset_index().merge(images[["patient_id", "day"]], on="patient_id")
    near = [set(pairs.loc[abs(pairs["number"] * unit - pairs["day"]) <= 1, "index"]) for unit in DAYS.values()]
    return table[name].notna().sum() == len(given) and any(set(given.index) == same for same in near)


def check_overlap(hashes: pd.DataFrame, where: str) -> list[Finding]:
    """Findings about one scan under the names of two patients of a cohort."""
    from survpack.overlap import duplicates

    return [
        Finding("error" if row.how == "same voxels" else "warning", where,
                f"{row.modality} and {row.other_modality} are one scan ({row.how})", "a scan of its own each",
                "find out whose it is, and remove the other or the patient listed twice",
                (row.patient_id, row.other_patient_id))
        for row in duplicates(hashes).itertuples()
    ]  # fmt: skip


def check_together(one: Cohort, other: Cohort, one_hashes: pd.DataFrame, other_hashes: pd.DataFrame) -> list[Finding]:
    """Findings about patients who are in both cohorts, those that `shared.pairs` takes out of a design."""
    from survpack import overlap, shared

    where, fix = (
        f"{one.name} and {other.name}",
        "keep the patient in one of them: never train on one, test on the other",
    )
    scans = overlap.shared(one_hashes, other_hashes)
    findings = [
        Finding("error" if row.how == "same voxels" else "warning", where,
                f"{row.patient_id} and {row.other_patient_id} are one scan ({row.modality}, {row.how})",
                "patients of its own each", fix, (row.patient_id,))
        for row in scans.itertuples()
    ]  # fmt: skip
    both = shared.found((one.name, other.name), (one, other), (one_hashes, other_hashes))
    for (how, sure), some in both.table.groupby(["how", "sure"], sort=False):
        some = some[["patient_id", "other_patient_id"]].astype(str)
        renamed = some["patient_id"] != some["other_patient_id"]
        who = some["patient_id"].where(~renamed, some["patient_id"] + " (" + some["other_patient_id"] + " there)")
        if how != "the same scan":
            findings.append(
                Finding("error", where, f"one patient by {how}", "patients of its own each", fix, tuple(who))
                if sure
                else Finding("warning", where, MAYBE[how], "ids and charts of its own each",
                             f"if it is one patient, {fix}; if not, rename or leave it so", tuple(who))
            )  # fmt: skip
    if both.unknown:
        findings.append(Finding("warning", where, "who is in both cannot be told", "patients of its own each",
                                both.unknown.rstrip(".")))  # fmt: skip
    return ordered(findings)


def spelled_alike(strangers, known) -> str:
    """A hint where ids differ only in case, zeros or separators: `sub-001 is sub-0001 there`; else "".

    Parameters
    ----------
    strangers, known : iterable of str
        Ids found in folders, and ids of the table.
    """
    for spelt in (plain_id, _bare):
        plain = {spelt(name): name for name in known}
        for name in strangers:
            if spelt(name) in plain:
                return f"{name} is {plain[spelt(name)]} in the table"
    return ""


def plain_id(name: str) -> str:
    """An id without prefix, case, separators and leading zeros; two numbers stay two, and `1.0` is `1`."""
    text = str(name).strip().casefold().removeprefix("sub-")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)  # a whole number that a spreadsheet wrote
    text = re.sub(r"(?<=\d)[-_ .]+(?=\d)", ".", text)
    text = re.sub(r"[-_ ]|(?<!\d)\.|\.(?!\d)", "", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _bare(name: str) -> str:
    """An id without prefix, case and separators, as a folder of BIDS has it; no proof that two are one."""
    return re.sub(r"[-_ .]", "", str(name).casefold().removeprefix("sub-"))


def _told(table, bad, where, found, expected, fix, severity="error") -> list[Finding]:
    """One finding about the patients whose row is bad, or none."""
    bad = pd.Series(bad).to_numpy(dtype=bool)
    patients = tuple(dict.fromkeys(table.loc[bad, "patient_id"].astype(str)))
    return [Finding(severity, where, found, expected, fix, patients)] if bad.any() else []


def _about_ids(table: pd.DataFrame, where: str) -> list[Finding]:
    ids = table["patient_id"].astype(str)
    unlike = ids.drop_duplicates()
    sites = table["site"].astype(object).map(str, na_action="ignore")
    unlike_sites = sites.dropna().drop_duplicates()
    plain_sites = unlike_sites.str.casefold().str.split().str.join(" ")
    plain = unlike.map(plain_id)
    stem = unlike.str.replace(r"(?<=\d)[a-zA-Z]$", "", regex=True)
    suffixed = (stem != unlike) & (stem.duplicated(keep=False))
    return [
        *_told(table, table["patient_id"].isna() | (ids.str.strip() == ""), where, "no id", "an id each", "give it"),
        *_told(table, table["patient_id"].duplicated(keep=False), where, "patient listed more than once",
               "one row a patient", "keep the baseline row; follow-up scans are sessions, not patients"),
        *_told(table, ids.isin(unlike[plain.duplicated(keep=False)]), where, "ids that differ only in zeros or case",
               "one id a patient", "if they are one patient, keep one row; if not, rename", "warning"),
        *_told(table, ids.isin(unlike[suffixed]), where, "ids that differ only in a last letter", "one row a patient",
               "if they are lesions or scans of one patient, keep one row; if not, rename", "warning"),
        *_told(table, table["site"].isna(), where, "no `site`", "a site each, or no such column",
               "give it: without one a patient is in no design by site and is not harmonised", "warning"),
        *_told(table, sites.isin(unlike_sites[plain_sites.duplicated(keep=False)]), where,
               "sites that differ only in case or spaces", "one spelling a site", "write them alike", "warning"),
        *_told(table, ids.str.fullmatch(EXAMPLE), where, "an example of the template", "patients of yours",
               "replace its row and its folder", "warning"),
    ]  # fmt: skip


def _about_outcome(table: pd.DataFrame, where: str) -> list[Finding]:
    time, event = pd.to_numeric(table["time_days"], errors="coerce"), table["event"]
    code = np.isinf(time) | _sentinel(time.where(time > 0))
    findings = [
        *_told(table, time.isna(), where, "`time_days` is missing or not a number", "days > 0",
               "give the days from baseline to death or last contact, or exclude the patient"),
        *_told(table, time <= 0, where, "`time_days` is 0 or negative", "days > 0",
               "correct it, or exclude the patient with a selection rule `time_days > 0` in params.yaml"),
        *_told(table, ~event.isin([0, 1]), where, "`event` is neither 0 nor 1", "1 for the event, 0 for censored",
               "code it so; unknown status means the patient is excluded, not censored"),
        *_told(table, code, where, "`time_days` is a code for missing",
               "days > 0", "leave it empty (n/a in BIDS); a missing time is no long survival"),
        *_told(table, ~code & (time > CENTURY), where, "`time_days` is over a century, so a date or another unit",
               "days from baseline", "give the days from baseline to death or last contact"),
    ]  # fmt: skip
    followed = time[time > 0]
    if not findings and len(followed) >= MANY:
        findings += _about_unit(followed, where) + _about_direction(followed, event.astype(bool), where)
    return findings


def _about_unit(time: pd.Series, where: str) -> list[Finding]:
    """A cohort in years ends within 15 of them; in days, nobody would be seen after two weeks."""
    middle, longest = time.median(), time.max()
    if longest <= 15:
        return [Finding("error", where, f"all `time_days` are at most {longest:g}, so years or months", "days",
                        "multiply years by 365.25 and months by 30.4375")]  # fmt: skip
    if USUAL_DAYS[0] <= middle <= USUAL_DAYS[1]:
        return []
    unit = "weeks or months" if middle < USUAL_DAYS[0] else "hours"
    return [Finding("warning", where, f"the median of `time_days` is {middle:g}, which would fit {unit}",
                    f"a median from {USUAL_DAYS[0]} to {USUAL_DAYS[1]} days",
                    "check the unit (a month is 30.4375 days, a week 7)")]  # fmt: skip


def _about_direction(time: pd.Series, event: pd.Series, where: str) -> list[Finding]:
    """Those who die are seen for a shorter time than those who live; the reverse beyond chance is a flipped column.

    P(dead seen longer) is 0.02 to 0.53 in ten cohorts (sts, kits, lumiere, mets, GBSG2, WHAS500 and others), and 0.62
    or more where any of them with ten censored is flipped: 0.6 is between.
    """
    dead, alive = time[event], time[~event]
    if dead.empty:
        return [Finding("warning", where, "no event", "some events", "check the coding: 1 is the event, 0 is censored")]
    if alive.empty:
        return [Finding("warning", where, "the event for everybody", "some censored", "if those without the event were "
                        "left out, add them: survival is underestimated; if not, check the coding")]  # fmt: skip
    if min(len(dead), len(alive)) < MANY:
        return []
    above = rankdata(time)[event].sum() - len(dead) * (len(dead) + 1) / 2  # ties count half
    longer = above / len(dead) / len(alive)
    chance = np.sqrt((len(time) + 1) / 12 / len(dead) / len(alive))  # standard error, Mann and Whitney 1947
    if longer < max(0.6, 0.5 + 1.96 * chance):
        return []
    return [Finding("warning", where, f"`event` looks flipped ({event.mean():.0%} events, seen for a median of "
                    f"{dead.median():g} days, the censored for {alive.median():g})", "1 for the event, 0 for censored",
                    "look up the coding in the source, and turn it round if it is flipped")]  # fmt: skip


def _about_number(table: pd.DataFrame, name: str, entry: dict, where: str) -> list[Finding]:
    number = pd.to_numeric(table[name], errors="coerce")
    code = _sentinel(number)
    findings = _told(table, number.isna() & table[name].notna(), where, f"`{name}` is not a number",
                     "a number or nothing", "leave missing values empty (n/a in BIDS)")  # fmt: skip
    findings += _told(table, np.isinf(number), where, f"`{name}` is infinite", "a number or nothing", "correct it")
    if code.any():
        values = listed(f"{value:g}" for value in sorted(set(number[code])))
        repeated = number[code].duplicated().any() or (number[code] < 0).any()  # a true extreme stands alone
        findings += _told(table, code, where, f"`{name}` is {values}, far from all other values", "no codes for missing",
                          "leave missing values empty (n/a in BIDS)", "error" if repeated else "warning")  # fmt: skip
    snake = _snake(name)
    if re.search(r"(^|_)age(_|$)", snake) and entry.get("unit", "years") == "years" and number.median() > ADULT:
        findings += _told(table, number.between(0, 1, inclusive="left"), where, f"`{name}` below 1 among adults", "years",
                          "leave missing values empty (n/a in BIDS), or correct it", "warning")  # fmt: skip
    for pattern, (low, high, unit) in RANGES.items():
        named = re.search(rf"(^|_)({pattern})(_|$)", snake) and not CHANGE.search(snake)
        if named and entry.get("unit", unit) == unit:
            slip = number.mask(code).median() > high
            hint = f"; all of it seems to be in another unit than {unit}" if slip and len(table) >= MANY else ""
            findings += _told(table, ~code & ((number < low) | (number > high)), where, f"`{name}` out of range",
                              f"{low} to {high} {unit}", f"correct it, or its unit{hint}", "warning")  # fmt: skip
    return findings


def _sentinel(number: pd.Series) -> pd.Series:
    """Codes for missing (999, -1) that lie outside the other values by more than their whole width."""
    plain = number[~number.isin(SENTINELS)].dropna()
    if len(plain) < 3:
        return pd.Series(False, index=number.index)
    low, high = plain.min(), plain.max()
    width = max(high - low, 1)
    negative = (number < 0) & (low >= 0)
    return number.isin(SENTINELS) & ((number > high + width) | (number < low - width) | negative)


def _about_levels(table: pd.DataFrame, name: str, entry: dict, where: str) -> list[Finding]:
    levels = entry["levels"]
    findings = _told(table, ~table[name].isin(levels) & table[name].notna(), where, f"`{name}` has an unknown level",
                     listed(levels), "correct the value, or add the level to the dictionary")  # fmt: skip
    plain = pd.Series(levels, dtype=object).astype(str).str.casefold().str.split().str.join(" ")
    if plain.duplicated().any():
        alike = [repr(level) for level, again in zip(levels, plain.duplicated(keep=False), strict=True) if again]
        findings.append(
            Finding("warning", where, f"`{name}` has levels {listed(alike)} that differ only in case or spaces",
                    "one spelling a level", "write them alike")
        )  # fmt: skip
    values = table[name].dropna()
    if len(values) >= MANY and values.is_unique:
        findings.append(
            Finding("warning", where, f"`{name}` is another for each patient", "a covariate that patients share",
                    "take it out of the covariates: it is an identifier")
        )  # fmt: skip
    return findings


def _about_spread(table: pd.DataFrame, name: str, where: str) -> list[Finding]:
    values = table[name].dropna()
    if len(table) < MANY:
        return []
    if len(values) < MOSTLY * len(table):
        return [Finding("warning", where, f"`{name}` is missing in {len(table) - len(values)} of {len(table)}",
                        "values for most", "fill it in, or take it out of the covariates")]  # fmt: skip
    if values.astype(str).nunique() == 1:
        return [Finding("warning", where, f"`{name}` is {values.iloc[0]} for everybody", "values that differ",
                        "take it out of the covariates")]  # fmt: skip
    return []


def _about_leak(table: pd.DataFrame, name: str, entry: dict, where: str) -> list[Finding]:
    """A covariate that tells the outcome, by its values or by its name."""
    fix = "if it is known only after baseline, take it out of the covariates (it may still select patients)"
    found, expected = _about_scan_day(table, name, entry, where), "covariates known at baseline"
    if how := tells_outcome(table, name, entry):
        return [*found, Finding("error", where, f"`{name}` {how}", expected, fix)]
    if like := named_later(name, entry):
        return [*found, Finding("warning", where, f"`{name}` is named like {like}", expected, fix)]
    if days := past_baseline(table, name, entry):
        return [Finding("warning", where, f"`{name}` is a time that reaches {days:.0f} days", expected, fix)]
    return []


def _about_scan_day(table: pd.DataFrame, name: str, entry: dict, where: str) -> list[Finding]:
    """Patients whose scan, by a column that is named like its day, was after the end of follow-up."""
    day = scan_day(table, name, entry)
    late = day is not None and after_the_end(table["patient_id"], day, table)
    return _told(table, late, where, f"a scan after the end of follow-up, by `{name}`", "scans up to `time_days`",
                 "correct the day or the time") if day is not None else []  # fmt: skip
