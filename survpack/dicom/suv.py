"""Standardised uptake value by body weight, from what the header of a PET says.

After the vendor-neutral pseudo-code of the RSNA's Quantitative Imaging Biomarkers Alliance
(https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)); extended to dose corrected to administration.

Rules
- Date and time of the injection are used as they are, offsets from UTC applied. Where the injection alone has an offset,
  Start Time has the scan's clock: it counts where the offset is 0 (without it, nobody knows the scan's), or lies whole
  hours off. An uptake below 0 is refused, but down to -2 minutes it counts as 0, as a dynamic scan begins before the
  injection. The longest is three half-lives (5.5 h of F-18: nobody waits till an eighth is left, and what seems to is a
  wrong time); of a nuclide with a half-life over six hours, six.
- Midnight to the second is no time but the lack of one: of a scan always, of an injection unless its date says that the
  scan began within two hours. So is an injection in the very second of the scan and its first slice, but of a nuclide
  that is gone in minutes.
- A time without a date has that of its study or series. Where there is no date, the time of day is enough for a nuclide
  with a half-life up to six hours. The day before is meant only by a scan past midnight, 15 minutes to six hours after
  the injection.
- A date after the scan, or over a week before it, was shifted apart from the scan's when names were removed: then, too,
  the time of day counts, for an uptake up to two half-lives.
- Dose and weight must be possible in Bq and kg, and the half-life be that of the nuclide that is named (which gives it
  where there is none); where none is, no half-life may be one of CID 4020 in another unit than s.
- The scan begins at Series Time; where that is after the first slice (a later reconstruction), at the first slice. Where
  there is a decay factor, it tells which is meant, and must fit; else a Series Time over half a half-life before the first
  slice counts only where one of the two uptakes cannot be.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo

import numpy as np

from survpack.dicom.series import Series, numbers_of
from survpack.errors import BadInput

_PHILIPS = 0x7053, "Philips PET Private Group"
_GE = 0x0009, "GEMS_PETD_01"

DOSE_BQ, DOSE_UNITS = (1e6, 2e10), {1e-3: "kBq", 1e-6: "MBq", 1e-9: "GBq"}
WEIGHT_KG, WEIGHT_UNITS = (1.0, 400.0), {1e3: "g"}
TIME_UNITS = {60: "minutes", 3600: "hours", 86400: "days", 1e-3: "milliseconds"}
NAMED, ANY = 0.05, 0.15  # relative error of a half-life where the nuclide is named, and where any of them may be meant
GONE, BRIEF = 6 * 3600, 600  # seconds; the half-life of what is gone the next day, and in minutes
LONGEST, LASTING, SHIFTED = 3, 6, 2  # half-lives of uptake; of what is not gone; where the date cannot be meant
HOUR, DAY, WEEK, EARLY = timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(minutes=2)
FIT = 0.07  # half-lives, 5 % of the SUV: how far a decay factor may be off
PAST_MIDNIGHT = timedelta(minutes=15), timedelta(hours=6)
NEVER = 1900  # the year of a scan without a date
AIR, COLD, HOT = 0.1, 0.2, 20.0  # SUV

# Seconds, of CID 4020 as pydicom names it; after NuDat 3 (https://www.nndc.bnl.gov/nudat3).
HALF_LIVES = {
    "_11Carbon": 1221.8, "_13Nitrogen": 597.9, "_14Oxygen": 70.6, "_15Oxygen": 122.2, "_18Fluorine": 6586.2,
    "_38Potassium": 458, "_43Scandium": 14008, "_44Scandium": 14552, "_45Titanium": 11088, "_51Manganese": 2772,
    "_52Manganese": 483062, "_52mManganese": 1266, "_52Iron": 29790, "_60Copper": 1422, "_61Copper": 12020,
    "_62Copper": 580, "_64Copper": 45723, "_62Zinc": 33094, "_66Gallium": 34164, "_68Gallium": 4063, "_70Arsenic": 3156,
    "_72Arsenic": 93600, "_73Selenium": 25740, "_75Bromine": 5802, "_76Bromine": 58320, "_77Bromine": 205344,
    "_82Rubidium": 75.5, "_86Yttrium": 53064, "_90Yttrium": 230400, "_89Zirconium": 282276, "_90Niobium": 52560,
    "_94mTechnetium": 3120, "_124Iodine": 360806, "_152Terbium": 63000,
}  # fmt: skip
_TERMS = {
    "Units": ("CM2", "CM2ML", "PCNT", "CPS", "MGMINML", "UMOLMINML", "MLMING", "MLG", "1CM", "UMOLML", "PROPCNTS",
              "PROPCPS", "MLMINML", "MLML", "STDDEV"),
    "SUV Type": ("LBM", "LBMJAMES128", "LBMJANMA", "BSA", "IBW"),
    "Decay Correction": ("NONE",),
}  # fmt: skip


def suv_factor(series: Series) -> tuple[float, str]:
    """What to multiply the rescaled values with to get g/mL, and how that was found.

    Raises
    ------
    BadInput
        Where weight, dose, half-life or times are missing or impossible, or the values are not corrected for decay.
    """
    head = series.head
    units, kind = str(head.get("Units") or "").upper().replace("/", ""), str(head.get("SUVType") or "BW")
    if units == "GML":
        return (1.0, "stored as SUV") if kind == "BW" else _unknown(series, "SUV Type", kind, "body weight (BW)")
    if units == "CNTS":
        direct, activity = _private(head, *_PHILIPS, 0x00), _private(head, *_PHILIPS, 0x09)
        if direct:
            return direct, "Philips SUV scale factor"
        if not activity:
            _refuse(series, "counts without a Philips scale factor", "Units BQML, GML, or (7053,1000)")
        factor, how = _from_activity(series)
        return activity * factor, f"Philips activity factor, {how}"
    return _from_activity(series) if units == "BQML" else _unknown(series, "Units", units, "BQML, GML or CNTS")


def odd(voxels: np.ndarray) -> tuple[str, str]:
    """What is odd about voxels if they are SUV: "warning" or "error", and in words; ("", "") where nothing is.

    The mean SUV of a body is about 1 by definition: of what is above air it is at most 20 (in a crop of the bladder), and the
    hottest hundredth of a region with tissue in it takes up over 0.2 (as blood does). Ten times beyond either, nothing is
    SUV: becquerel and counts lie there, and a dose or weight in another unit.

    Parameters
    ----------
    voxels : ndarray
        Of a whole image, a crop, or a tumour.
    """
    sample = np.ravel(voxels)[:: max(1, np.size(voxels) // 200_000)]
    warm = sample[sample > AIR]
    mean, high = warm.mean() if warm.size else 0.0, np.percentile(sample, 99) if sample.size else COLD
    if mean > HOT:
        return "error" if mean > 10 * HOT else "warning", f"a mean of {mean:.3g} above air, where a body has about 1"
    if high < COLD:
        told = f"{high:.3g} in the hottest hundredth, where blood has over {COLD:g}"
        return "error" if high < COLD / 10 else "warning", told
    return "", ""


def _from_activity(series: Series) -> tuple[float, str]:
    """1000 g/kg × weight over the dose left at the time to which the voxels are corrected, and how that was found."""
    head = series.head
    corrected = set(map(str, np.atleast_1d(head.get("CorrectedImage") or [])))
    if "ATTN" not in corrected or not {"DECY", "DECAY"} & corrected:
        lacking = "ATTN" if "ATTN" not in corrected else "DECY"
        _refuse(series, f"Corrected Image without {lacking}", "ATTN and DECY")
    drug = _injected(series)
    weight = _within(series, head, "PatientWeight", "kg", WEIGHT_KG, WEIGHT_UNITS)
    dose = _within(series, drug, "RadionuclideTotalDose", "Bq", DOSE_BQ, DOSE_UNITS)
    half_life, source = _half_life(series, drug)
    correction = str(head.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return 1000 * weight / dose, "weight and dose"
    if correction != "START":
        _unknown(series, "Decay Correction", correction, "START or ADMIN")
    waited, how = _uptake(series, drug, half_life)
    left = dose * 2 ** (-waited.total_seconds() / half_life)
    return 1000 * weight / left, f"weight, dose and decay over {waited.total_seconds() / 60:.0f} min{source}{how}"


def _injected(series: Series):
    """The one injection; the same one told twice is one."""
    drugs = list(series.head.get("RadiopharmaceuticalInformationSequence") or [])
    told = "RadionuclideTotalDose", "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"
    if len({tuple(str(one.get(name)) for name in told) for one in drugs}) > 1:
        _refuse(series, f"{len(drugs)} injections", "one")
    return drugs[0] if drugs else None


def _within(series: Series, where, keyword: str, unit: str, limits: tuple[float, float], others: dict) -> float:
    """A number that is possible in its unit; else the sentence names the unit in which it would be."""
    value = _positive(series, where, keyword, unit)
    if not limits[0] <= value <= limits[1]:
        usual = np.sqrt(limits[0] * limits[1])
        likely = min(others, key=lambda scale: abs(np.log(value / scale / usual)))
        told = f", likely {others[likely]}" if limits[0] <= value / likely <= limits[1] else ""
        _refuse(series, f"{_words(keyword)} {value:g}{told}", f"{limits[0]:g} to {limits[1]:g} {unit}")
    return value


def _half_life(series: Series, drug) -> tuple[float, str]:
    """Seconds, as the header tells them and the nuclide has them; and where they are from, if not from the header."""
    nuclide = _nuclide(drug)
    if nuclide and not (numbers_of(drug, "RadionuclideHalfLife") or [0])[0]:
        return HALF_LIVES[nuclide], ", the half-life by the nuclide's name"
    value = _positive(series, drug, "RadionuclideHalfLife", "s")
    known = np.array([HALF_LIVES[nuclide]] if nuclide else list(HALF_LIVES.values()))
    off = {unit: np.abs(value * scale / known - 1).min() for scale, unit in TIME_UNITS.items()}
    likely, own = min(off, key=off.get), np.abs(value / known - 1).min()
    other = likely if off[likely] <= NAMED else ""
    usual = known[known <= GONE]
    mistaken = not nuclide and other and any(np.abs(value * scale / usual - 1).min() < own / 10 for scale in (60, 3600))
    if mistaken or (own > (NAMED if nuclide else ANY) and (nuclide or other)):
        expected = f"{known[0]:g} s, that of its nuclide" if nuclide else "that of a nuclide for PET, in s"
        _refuse(series, f"{_words('RadionuclideHalfLife')} {value:g}{other and f', likely {other}'}", expected)
    return value, ""


def _nuclide(drug) -> str | None:
    """The nuclide's name among `HALF_LIVES`, by its code or the code's meaning (18F, F-18, ^18^Fluorine)."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    for item in drug.get("RadionuclideCodeSequence") or []:
        scheme = re.sub("^(SNM3|99SDM)$", "SRT", str(item.get("CodingSchemeDesignator") or ""))
        given, meaning = Code(str(item.get("CodeValue") or ""), scheme, ""), str(item.get("CodeMeaning") or "").lower()
        spelt = f"_{''.join(re.findall('[0-9]', meaning))}{''.join(re.findall('[a-z]', meaning))[:1]}"
        for name, code in codes.cid4020.concepts.items():
            if name in HALF_LIVES and (given == code or (len(spelt) > 2 and name.lower().startswith(spelt))):
                return name
    return None


def _uptake(series: Series, drug, half_life: float) -> tuple[timedelta, str]:
    """From the injection to the time to which the voxels are corrected, and what was put right in it."""
    zone = _zone(series.head)
    acquired, scans = _scan_times(series, half_life, zone)
    injected = [_injection(series, drug, scan, half_life, zone) for scan in scans]
    spans = [scan - moment for scan, (moment, _) in zip(scans, injected, strict=True)]
    same = [scan for scan, span in zip(scans, spans, strict=True) if not span % DAY and acquired in (None, scan)]
    if any(half_life > BRIEF and (half_life <= GONE or not scan.minute + scan.second) for scan in same):
        _refuse(series, "an injection in the very second of the scan", "the times as they were, not set to one")
    tried = (_possible(span, half_life, dated) for span, (_, dated) in zip(spans, injected, strict=True))
    possible = list(filter(None, tried))
    if not possible:
        expected = f"0 to {_told(_longest(half_life))} for a half-life of {half_life:g} s"
        _refuse(series, f"a scan {_told(spans[0])} after the injection", expected)
    if len(possible) > 1:
        found = f"a Series Time {_told(scans[1] - scans[0])} before the first slice"
        _refuse(series, found, "the time when the scan began")
    return possible[0]


def _injection(series: Series, drug, scan: datetime, half_life: float, zone: tzinfo | None) -> tuple[datetime, bool]:
    """When the dose was given, and whether the header tells the day."""
    text = str(drug.get("RadiopharmaceuticalStartDateTime") or "").strip()
    full, offset = _moment(text, zone), re.search(r"[+-](\d{4})$", text)
    clock = _joined(f"{scan:%Y%m%d}", drug.get("RadiopharmaceuticalStartTime"), zone)
    clock = None if clock and _midnight(clock) else clock
    dated = full is not None and scan.year > NEVER
    if full and clock and offset and not zone:
        zones = (clock - full + DAY / 2) % DAY - DAY / 2  # from the injection's clock to the scan's
        whole = abs(zones - round(zones / HOUR) * HOUR) < EARLY
        full += zones if whole or offset[1] == "0000" else timedelta(0)
    elif full and offset and offset[1] == "0000" and not zone:
        _refuse(series, "an injection in UTC and a scan without an offset from it", "Timezone Offset From UTC")
    elif full and clock and _midnight(full):
        full = datetime.combine(full, clock.timetz())
    if full and _midnight(full) and not (dated and timedelta(0) < scan - full <= 2 * HOUR):
        full = None
    moment = full if dated and full else clock or (full and _joined(f"{scan:%Y%m%d}", f"{full:%H%M%S}", zone))
    if not moment:
        _lacks(series, "Radiopharmaceutical Start Time", "when the dose was given, and not at midnight to the second")
    dated &= full is not None
    if not dated and half_life > GONE:
        found = "the date of the injection, or of the scan, of a nuclide that lasts for days"
        _lacks(series, found, "Radiopharmaceutical Start DateTime")
    return moment, dated


def _possible(waited: timedelta, half_life: float, dated: bool) -> tuple[timedelta, str] | None:
    """An uptake that can be, and what was put right in it; `dated`: not by the time of day alone."""
    longest = _longest(half_life)
    if timedelta(0) <= waited <= longest:
        return waited, ""
    if -EARLY <= waited < timedelta(0):
        return timedelta(0), ", the injection stamped after the scan began"
    if half_life > GONE:
        return None
    if not dated and PAST_MIDNIGHT[0] <= waited + DAY <= min(PAST_MIDNIGHT[1], longest):
        return waited + DAY, ", past midnight"
    if dated and not -DAY / 2 < waited < WEEK and waited % DAY <= timedelta(seconds=SHIFTED * half_life):
        return waited % DAY, ", by the time of day alone as the date is shifted"
    return None


def _longest(half_life: float) -> timedelta:
    return timedelta(seconds=(LONGEST if half_life <= GONE else LASTING) * half_life)


def _scan_times(series: Series, half_life: float, zone: tzinfo | None) -> tuple[datetime | None, list[datetime]]:
    """The first slice, and when the scan began, as far as decay is corrected to; two times where that is left open."""
    head = series.head
    study, day = head.get("StudyDate"), head.get("SeriesDate")
    if half_life > GONE and study and day and study != day and not all(date for date, _ in series.acquired):
        _lacks(series, "Acquisition Date of a nuclide that lasts for days", "the day of the scan")
    other = next((date for date, _ in series.acquired if date), study)  # of a reconstruction, the series' is later
    stamps = [_joined(date or study or day or f"{NEVER}0101", clock, zone) for date, clock in series.acquired]
    stamps = [None if stamp and _midnight(stamp) else stamp for stamp in stamps]
    acquired = min(filter(None, stamps), default=None)
    started = _joined(day or other or f"{NEVER}0101", head.get("SeriesTime"), zone)
    started = None if started and _midnight(started) else started
    begun = _moment(_private_value(head, *_GE, 0x0D), zone) or acquired
    later = not started or (acquired and started > acquired)
    if later and not begun:
        _lacks(series, "Series Time and Acquisition Time", "when the scan began, and not at midnight to the second")
    times = sorted({started, acquired}) if acquired and not later else [begun if later else started]
    factors = series.decays or [(numbers_of(head, "DecayFactor") or [None])[0]] * len(stamps)
    told = [(factor, stamp) for factor, stamp in zip(factors, stamps, strict=True) if factor and factor >= 1 and stamp]
    if any(factor > 1 for factor, _ in told):
        factor, own = min(told)
        latest = own - timedelta(seconds=half_life * float(np.log2(factor)))
        frame = timedelta(milliseconds=(numbers_of(head, "ActualFrameDuration") or [0])[0] / 2)  # mean of its decay

        def off(time: datetime) -> timedelta:
            return max(latest - time, time - latest - frame, timedelta(0))

        meant = min(times, key=off)
        if off(meant) > timedelta(seconds=2 + FIT * half_life):
            _refuse(series, "a Decay Factor that fits neither Series Time nor the first slice", "one that does")
        return acquired, [meant]
    near = not acquired or later or acquired - started <= timedelta(seconds=half_life / 2)
    return acquired, times[:1] if near else times


def _positive(series: Series, where, keyword: str, unit: str) -> float:
    value = numbers_of(where, keyword) if where is not None else None
    if not value or value[0] <= 0:
        _lacks(series, _words(keyword), f"a number of {unit}")
    return value[0]


def _private(head, group: int, creator: str, element: int) -> float | None:
    try:
        value = float(_private_value(head, group, creator, element))
    except (TypeError, ValueError):
        return None
    return value if 0 < value < np.inf else None


def _private_value(head, group: int, creator: str, element: int):
    try:
        value = head.private_block(group, creator)[element].value
    except KeyError:
        return None
    return value.decode("ascii", "ignore").strip("\0 ") if isinstance(value, bytes) else value


def _zone(head) -> tzinfo | None:
    try:
        return datetime.strptime(str(head.get("TimezoneOffsetFromUTC") or "").strip(), "%z").tzinfo
    except ValueError:
        return None


def _joined(day, clock, zone: tzinfo | None) -> datetime | None:
    """A date (19990131 or 1999.01.31) and a time (235959.9, 2359 or 23:59:59)."""
    return _moment(re.sub(r"\D", "", str(day)) + str(clock).replace(":", "").strip(), zone) if day and clock else None


def _moment(text, zone: tzinfo | None) -> datetime | None:
    """A date with a time to the hour at least, in `zone`; without one, an offset of its own is not asked."""
    found = re.fullmatch(r"(\d{8}(?:\d\d){1,3})(?:\.\d*)?([+-]\d{4})?", str(text or "").strip())
    try:
        moment = datetime.strptime(found[1], "%Y%m%d%H%M%S"[: len(found[1]) - 2])
        own = datetime.strptime(found[2], "%z").tzinfo if found[2] and zone else zone
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=own).astimezone(zone) if zone else moment


def _midnight(moment: datetime) -> bool:
    """Whether a time is what is written for want of one."""
    return not (moment.hour or moment.minute or moment.second)


def _words(keyword: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", keyword)


def _told(span: timedelta) -> str:
    """A span of time in words."""
    hours = span.total_seconds() / 3600
    return (
        f"{hours * 60:.0f} min" if abs(hours) < 1 else f"{hours:.1f} h" if abs(hours) < 48 else f"{hours / 24:.1f} days"
    )


def _unknown(series: Series, name: str, value: str, expected: str):
    """Refuse a term; only those of the standard are repeated, as anything may be written there."""
    _refuse(series, f"{name} '{value}'" if value in _TERMS[name] else f"another {name} than is known", expected)


def _lacks(series: Series, what: str, expected: str):
    _refuse(series, what, expected, "without")


def _refuse(series: Series, found: str, expected: str, how: str = "from"):
    raise BadInput(f"{series.name}: no SUV {how} {found}, expected {expected}; ask for the full header.")
