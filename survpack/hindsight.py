"""What is known only after baseline: predictors, scans and visits that know the outcome, by name, day and value.

Days count from baseline. A scan or visit is after the end where its day is over `time_days` by more than that is rounded:
half a step, where all times are whole weeks, months or years, or decimals of them; else a day.

A predictor is known later where
- its name says so (`named_later`): an outcome, a time to something after baseline, the day of a scan, what treatment and
  its course tell, or a later time (`volume_6m`). A name that says `prior`, `history` or the like is left in peace.
- its values say so (`tells_outcome`): nothing known at baseline is there for the dead alone, is the event in other
  words, ranks survival above 0.95, is the time of the event for three in ten (four times what chance gives), or comes
  never after each patient's own end, where chance would have it so for ten patients or more, and passes day 30.
- it is a time in days, weeks or months that passes day 30 for one in ten (`past_baseline`), unless it counts back.

What counts in another unit (`pet_uptake_time` in min, `mri_time_s`), by the dictionary or its name's end, is no day.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
from scipy.stats import binom, rankdata

from survpack.cohort import DAYS
from survpack.telltales import snake

MANY = 10  # patients without whom nothing is said about all
UNITS = r"days?|weeks?|wks?|months?|mos?|years?|yrs?"
SPANS = rf"{UNITS}|time|interval|duration|lag"
COUNTED = (
    r"(operations?|surger(y|ies)|procedures?|resections?|craniotom(y|ies)|cycles?|courses?|fractions?|lines?(_of_\w+)?"
    r"|(re_?)?(treatments?|therap(y|ies)|operations?|admissions?|hospitali[sz]ations?)|transfusions?|visits?|scans?|mris?"
    r"|follow_?ups?|relapses|recurrences|progressions)"
)
LATER = re.compile(  # names of outcomes, and of times to what comes after baseline
    r"(^|_)(death|dead|died|deceased|alive|survival|relapsed?|recurrence|recurred|progression|progressed"
    r"|response|responder|follow_?up|last_(contact|seen|visit|scan|imaging|mri|ct|known)|cause|censor(ed|ing)?|outcome"
    r"|vital_status)(_|$)|^status$"
    r"|(^|_)(os|pfs|dfs|rfs|fu)_?(\d\w*|days?|weeks?|months?|years?|time|event|status|censor\w*|updated)?$"
    rf"|(^|_)({SPANS})(_\w+)?_(to|til|till|until)_(?!(\w+_)?(baseline|enrol\w*|inclusion|registration|randomi[sz]ation"
    r"|diagnosis|presentation|admission|referral|birth|symptoms?|onset|mets?|metasta\w+|bm|peak|max\w*|echo)(_|$))"
    rf"|^(ttp|ttr|ttf|ttnt)(_({UNITS}))?$|(^|_)(time|{UNITS})_on_(treatment|therapy|study|trial)(_|$)"
)
ENDPOINT = re.compile(  # what oncology counts as an outcome, in short and in other languages
    r"(^|_)(os|pfs|dfs|rfs|fu|dss|css|cssm|efs|ffs|mfs|d?dmfs|drfs|idfs|lrfs|lfs|bfs|bcrfs|ipfs|icpfs|lpfs|lrc|ttlp)"
    rf"(_?(\d\w*|{UNITS}|time|event|status|censor\w*)|_[mdy])?$|^(orr|bor|dcr)$|^(lc|lcr)_(time|event|status|days|months)$"
    r"|(^|_)(mortality|vital_?(status|state)|dead_?stat(us)?(_event)?|survived|dod|lifespan|days_followed|recur)(_|$)"
    r"|(^|_)surv(ival)?_?(time|event|status|days|months|years)(_|$)|(^|_)observation_(time|period|days|months)(_|$)"
    r"|(^|_)((loco_?)?regional|local|distant|marginal|nodal|intra_?cranial|cns|in_?field|out_?field|biochemical|treatment)"
    r"_(control|failure)(_|$)"
    rf"|(^|_)(distant_(mets?|metasta\w+)_(time|date|{UNITS})$|to_distant_)|(^|_)new_(\w+_)?(lesions?|mets?|metasta\w+)(_|$)"
    r"|(^|_)(exitus|tod|todes\w+|verstorben|gestorben|sterbe\w+|\w*u(e)?berleben\w*|rezidiv\w*|nachsorge|deces|decede\w*"
    r"|survie|recidiv\w*|fallec\w*|muerte|supervivencia|decesso|sopravvivenza|overled\w*|overleving)(_|$)"
    r"|死亡|生存|复发|再発"
)
COMPLICATION = re.compile(  # and what treatment was really given
    r"(^|_)((?<!diabetic_)complications?|adverse_events?|ctcae|radio_?necrosis|pseudo_?progression|icu_admission"
    r"|(radiation|radiotherapy|rt)_(\w+_)?(necrosis|injury|\w+itis)|(actual|final|delivered|received)_dose"
    r"|(treatment|therapy|chemo\w*|radio\w*)_(discontinued|ended|finished)|re_?treat\w*"
    r"|(repeat|completed|final)_(\w+_)?(srs|rt|w?brt|surg\w*|resection|chemo\w*|radio\w*|treatment|therapy|cycles)"
    r"|additional_treatment|days_in_(hospital|icu)|dose_reductions?)(_|$)"
    r"|^(?!.*(plan|menstr|prescri|cell_cycle))(\w+_)?(cycles|courses)(_\w+)?$"
)
SPECIMEN = re.compile(  # of pathology after treatment; pCR is p_cr
    r"(^|_)(p_cr|ypcr|y_?p_?cr|yp_?[tnms]\w{0,3}|yp_[tnm]_\w+|trg|tumou?r_regression|regression_grade|dworak|mandard|rcb"
    r"|residual_cancer_burden)(_|$)|^pcr$"
)
_LONG = r"(months?|mos?|m|weeks?|wks?|w|years?|yrs?|y)"
TIMEPOINT = re.compile(  # measured at a later time: volume_6m, kps_at_3_months, edema_week_12
    rf"(^|_)\d+_?{_LONG}$|(^|_)(30|60|90|180|365)_?d(ays?)?$|^\d+_?{_LONG}_"
    r"|(^|_)(months?|mos?|weeks?|wks?|years?|yrs?)_?0*[1-9]\d?(_|$)"
    r"|(^|_)day_?0*([2-9]|[1-9]\d+)(_|$)"
)
NO_TIMEPOINT = re.compile(  # spans that end at baseline, ages, tests and forecasts
    r"(^|_)(loss|last|within|in|ago|past|age[ds]?|gest\w*|pregn\w*|smok\w*|symptoms?|duration|walk\w*|gait|run|distance|risk"
    r"|predict\w*|prob\w*|half_life|history|gain)(_|$)"
)
AFTER = re.compile(  # names of what treatment and its course tell
    r"(^|_)(post_?op(erative)?|adjuvant|salvage|residual|toxicity|recist|eor|extent_of_resection"
    r"|(resection|surgical)_margins?|patholog(y|ic|ical)_([tnm]_)?(stage|size)"
    r"|hospice|palliat\w+|end_of_life|autopsy|necropsy|post_?mortem|second_look|clavien\w*|(?<!nipple_)discharged?"
    r"|length_of_(\w+_)?stay|(hospital|icu)_(stay|days)"
    r"|re_?(operat|resect|irradiat|admi(ssion|t)|hospitali[sz]|intervention|challenge)\w*"
    r"|(second|third|2nd|3rd|subsequent|further|later|next)_(line|surger|operation|resection|treatment|therap|chemo"
    r"|radio|scan|mri|ct)\w*"
    r"|(treatment|therapy|chemo\w*|cycles|courses|dose)_(completed|received|delivered|stopped|duration)"
    r"|duration_of_(treatment|therapy|chemo\w*)"
    rf"|(n|no|nr|num|number|count|total)(_of)?_((?!(on|in|at|by|per|from)_)[^_]+_)*{COUNTED}"
    rf"|{COUNTED}_(count|number|total|n))(_|$)"
    r"|(^|_)los(_days?)?$|^(operations|surgeries|cycles|courses|readmissions|hospitali[sz]ations|transfusions)$"
)
BEFORE = re.compile(  # names of what comes before baseline
    r"^(pre|neo|baseline|family)_|(^|_)(history|neo_?adjuvant|pre_?(op|operative|treatment|surgical)"
    r"|(prior|previous(ly)?|past)(?!_to(_|$)))(_|$)|_(at_(baseline|diagnosis|presentation)|before(_baseline)?)$"
    r"|(echo|repetition|inversion|relaxation|exposure)_time"
    r"|(death|survival|recurrence|progression|response)_(receptor|ligand|domain|gene|signature|protein)s?(_|$)"  # assays
    r"|(^|_)(oncotype|cell_cycle_progression|(recurrence|progression)_(risk_)?score|recurrence_risk|dead_space"
    r"|(from_)?injection_to)(_|$)"
)
_SCAN, _DAY = r"(mri?|ct|pet|scan|imaging|image|study|series)\d*", r"(days?|dates?|time|interval|weeks?|months?)\d*"
_FINE = r"(m?s|m?secs?|(milli)?seconds?|mins?|minutes?|h|hrs?|hours?|[mcn]m|m?l|m?g|kg|gy|hu|pct|percent)"
_PHYSICAL = r"um|mm_?hg|k?pa|diopt(er|re)s?|db|hz|k?cal|cells?|mm_?[23]|cm_?[23]"
_HOURS = r"h|hrs?|hours?"
_COUNTS = re.compile(  # a time by its name, which another unit belies
    rf"_?(({SPANS})_(\w+_)?(to|til|till|until|on)_|os$)"
)
_HOW = r"(^|_)(uptake|injection|acquisition_time|bed|slice|rotation|dwell|frame|scan_duration)(_|$)"  # a scan was made
SCAN_DAY = re.compile(  # day or date of a scan
    rf"^(?!.*_{_FINE}$)(?!.*{_HOW}).*((^|_){_DAY}(_\w+)?_{_SCAN}(_|$)|(^|_){_SCAN}(_\w+)?_?{_DAY}(_|$))"
)
ELSEWHEN = re.compile(  # names of times that do not count from baseline on
    r"(^|_)(since|from|ago|before|between|interval|symptoms?|disease_free|dfi|doubling|smok\w*|pack|age|onset|latency"
    r"|history)(_|$)|_to_(\w+_)?(baseline|diagnosis|birth)(_|$)"
    r"|(^|_)(diagnosis|primary)_to_(\w+_)?(bms?|mets?|metasta\w+)(_|$)"
)


def named_later(name: str, entry: dict | None = None) -> str:
    """What a name says that is known only after baseline, in words; "" where it says nothing of the kind.

    A name of a time (`pet_time`, `time_to_enhancement`, `iop_os`) is none where its entry in the dictionary counts it in
    minutes or less, or in mm, mL, mmHg and the like; a scan's also in hours. What names an outcome besides stays one.
    """
    plain, unit = snake(name), snake(((entry or {}).get("unit") or "").replace("µ", "u").replace("μ", "u"))
    if BEFORE.search(plain):
        return ""
    no_days = bool(re.fullmatch(rf"{_FINE}|{_PHYSICAL}", unit))
    kinds = {"the day of a scan": not no_days and SCAN_DAY.search(plain),
             "an outcome or the time to one": _outcome(plain, no_days and not re.fullmatch(_HOURS, unit)),
             "what follows treatment": any(one.search(plain) for one in (AFTER, COMPLICATION, SPECIMEN)),
             "what is measured at a later time": not NO_TIMEPOINT.search(plain) and TIMEPOINT.search(plain)}  # fmt: skip
    return next((kind for kind, like in kinds.items() if like), "")


def _outcome(plain: str, no_time: bool = False) -> bool:
    """Whether a name is an outcome's; of what is no time by its unit, whether it is by more than the name of a time."""
    for match in (match for like in (LATER, ENDPOINT) for match in like.finditer(plain)):
        if not (no_time and _COUNTS.match(match[0])) or _outcome(plain[match.end() - 1 :]):
            return True
    return False


def after_the_end(patients: pd.Series, day: pd.Series, participants: pd.DataFrame) -> pd.Series:
    """Whether each day is after that patient's `time_days`, by more than that is rounded.

    Parameters
    ----------
    patients, day : Series, one value a scan or visit
    participants : DataFrame
        As `Cohort.participants`.
    """
    people = participants.drop_duplicates("patient_id").set_index("patient_id")
    time = pd.to_numeric(people["time_days"], errors="coerce")
    last = patients.map(time)
    return (day > last + _rounding(time[time > 0])) & (last > 0)


def _rounding(time: pd.Series) -> float:
    steps = [(DAYS["months"], 1), (DAYS["weeks"], 3), (DAYS["months"] / 10, 1)]  # days, and patients that it takes
    steps += [(DAYS["years"] / part, MANY) for part in (1, 10, 100)]  # 12, 24 and 36 months of three are no years
    for step, least in sorted(steps, reverse=True):
        if len(time) >= least and np.allclose(time / step, (time / step).round(), rtol=0, atol=1e-6):
            return max(step / 2, 1.0)
    return 1.0


def scan_day(table: pd.DataFrame, name: str, entry: dict) -> pd.Series | None:
    """A column that is named like the day of a scan, as days from baseline; None where it is not, or counts elsewhence."""
    if not SCAN_DAY.search(snake(name)) or ELSEWHEN.search(snake(name)) or BEFORE.search(snake(name)):
        return None
    unit = _unit(name, entry)
    return None if unit == "" else pd.to_numeric(table[name], errors="coerce") * DAYS[unit or "days"]


def past_baseline(table: pd.DataFrame, name: str, entry: dict) -> float:
    """The greatest day of a covariate that is a time and passes baseline for one in ten; else 0."""
    from survpack.preprocess import BASELINE_DAYS

    unit, plain = _unit(name, entry), snake(name)
    if entry["kind"] != "numeric" or unit in (None, "", "years") or ELSEWHEN.search(plain) or BEFORE.search(plain):
        return 0.0
    day = (pd.to_numeric(table[name], errors="coerce") * DAYS[unit]).dropna()
    return day.max() if (day > BASELINE_DAYS).sum() >= max(3, 0.1 * len(day)) else 0.0


def _unit(name: str, entry: dict) -> str | None:
    """In what a covariate counts time (a key of `DAYS`), by its unit, else its name; "" in what is no day, None unknown."""
    given, plain = snake(entry.get("unit") or ""), snake(name)
    told = re.match(rf"({UNITS}|d|y)(_|$)", given) if given else re.search(rf"(?<!per)(?:^|_)({UNITS})(_|$)", plain)
    if told:
        return next(unit for unit in DAYS if unit[0] == told[1][0])
    return "" if given or re.search(rf"_({_FINE}|per_\w+)$", plain) else None


def tells_outcome(table: pd.DataFrame, name: str, entry: dict, among: int = 1) -> str:
    """How the values of a covariate give the outcome away, "" if they do not.

    Of the best of `among` columns more is asked, since one of thousands comes near by chance.
    """
    time, value = pd.to_numeric(table["time_days"], errors="coerce").to_numpy(float), table[name]
    sound = (time > 0) & table["event"].isin([0, 1]).to_numpy()
    event, present = table["event"].eq(1).to_numpy() & sound, value.notna().to_numpy()
    least = MANY + math.ceil(math.log2(among))

    def by_chance(whom: np.ndarray, levels: int) -> bool:
        """Whether one of `among` columns of so many levels may well part those with the event from the others."""
        return among > 1 and among * 2**levels > 0.01 * math.comb(int(whom.sum()), int(event[whom].sum()))

    if min(event.sum(), (~event & sound).sum()) >= MANY:
        apart = (present == event)[sound].all() or (present != event)[sound].all()
        if apart and not by_chance(sound, 1):
            return "is there exactly for those with (or without) the event"
        told = sound & present
        level, levels = pd.factorize(value[told])
        both = min(event[told].sum(), (~event[told]).sum()) >= MANY / 2
        if both and 2 <= len(levels) <= max(2, told.sum() // 5):  # levels, so that chance makes none of them pure
            share = np.bincount(level, event[told]) / np.bincount(level)
            if np.isin(share, (0, 1)).all() and not by_chance(told, len(levels)):
                return "is `event` in other words"
    if entry["kind"] == "categorical":
        return ""
    places = {level: k for k, level in enumerate(entry.get("levels", []))}
    number = (value.map(places) if places else pd.to_numeric(value, errors="coerce")).to_numpy(float)
    use = sound & ~np.isnan(number)
    time, number, event = time[use], number[use], event[use]
    if event.sum() < least or number.min() == number.max():
        return ""
    dead, late = rankdata(number[event]), rankdata(time[event])
    ranked = abs(np.corrcoef(dead, late)[0, 1]) if np.ptp(dead) and np.ptp(late) else 0.0
    near = abs(_concordance_of_some(time, number, event) - 0.5)
    if ranked > 0.95 or near > 0.4:
        from lifelines.utils import concordance_index

        concordance = concordance_index(time, number, event)
        if max(concordance, 1 - concordance, ranked) > 0.95:
            return f"ranks survival almost perfectly (Harrell C {max(concordance, 1 - concordance):.2f})"
    return _counts_own_days(time, number, event, DAYS[_unit(name, entry) or "days"], among)


def _concordance_of_some(time: np.ndarray, number: np.ndarray, event: np.ndarray, most: int = 100) -> float:
    """Harrell's C of at most so many who died, against all: quick, where thousands of columns are to be looked through."""
    died = np.flatnonzero(event)
    died = died[np.linspace(0, len(died) - 1, min(most, len(died))).astype(int)]
    pairs = time[died, None] < time
    larger, same = number > number[died, None], number == number[died, None]
    return (larger[pairs].sum() + same[pairs].sum() / 2) / max(pairs.sum(), 1) if pairs.any() else 0.5


def _counts_own_days(time: np.ndarray, number: np.ndarray, event: np.ndarray, unit: float, among: int) -> str:
    """How a number (in `unit` days, or perhaps others) is bound to the patient's own follow-up; "" if it is not."""
    from survpack.preprocess import BASELINE_DAYS

    if len(np.unique(number)) < MANY:
        return ""
    ends, deaths, day = np.sort(time), np.sort(time[event]), number * unit
    chance = np.searchsorted(ends, day - unit).mean()  # patients whose day is after another's end
    if (
        chance >= max(MANY, math.log(100 * among))
        and day.max() > BASELINE_DAYS
        and (day > time + unit).sum() <= 0.02 * chance
    ):
        return f"is never after the patient's own end of follow-up (chance would make it so for {chance:.0f})"
    for unit in DAYS.values():
        day, near = number[event] * unit, max(1.0, unit / 2)
        low, high = (np.searchsorted(deaths, day + k * near, side) for k, side in ((-1, "left"), (1, "right")))
        same, chance = (abs(day - time[event]) <= near).mean(), (high - low).mean() / len(deaths)
        if same >= max(0.3, 4 * chance) and (
            among == 1 or among * binom.sf(round(same * len(deaths)) - 1, len(deaths), chance) < 0.001
        ):
            return f"is the time of the event for {same:.0%} of those who have it"
    return ""
