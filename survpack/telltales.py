"""What in a text or a column looks like an identifier: names, dates, addresses, long numbers, UIDs.

A date is one from 1900 to today. Eight digits without a sign between may be anything: they are dates where nearly all of
their column (or all texts written alike) read as dates, or where the column is called one. Hashes, versions, references,
measures, and UIDs that a public archive made are nobody's. An id is someone's where it is two words of letters, and perhaps
where it is one, or letters and a day or year of birth (of many written alike, nearly all must read so).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from datetime import date

import pandas as pd

NEARLY = 0.9  # of a column: what it holds
FEW = 5  # numbers of eight digits: too few to say that they are no dates

_OF_DATES = re.compile(
    r"(^|_)(dates?|datum|datetime|timestamp|dob|(geburts|birth)\w*|born)(_|$)"
)  # what a column is called
_OF_IDS = re.compile(r"(^|_)(id|ids|mrn|nr|no|(?<!voxel_)(?<!volume_)num|number|record|accession)(_|$)")
_OF_PATIENTS = re.compile(
    r"(\w+_)?((patient|participant|subject|person|pat|pt)s?(_?(id|no|nr|number|code|key))?|case_?id)|ids?|pid|mrn"
)
OF_THINGS = re.compile(
    r"(^|_)(versions?|software|release|build|commit|revision|check_?sum|hash|digest|md5|sha\d*|crc\d*|uuid|doi|url|uri)(_|$)"
)

_MONTHS = "jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
_DATES = (
    (re.compile(r"(?<!\d)(\d{4})([-/._])(\d{1,2})\2(\d{1,2})(?!\d)"), (1, 3, 4)),
    (re.compile(r"(?<!\d)(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?!\d)"), (4, 3, 1)),
    (re.compile(r"(?<!\d)(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?!\d)"), (4, 1, 3)),  # the month first
)
_DIGITS = re.compile(r"(?<!\d)(?<!\d\.)(\d{4})(\d{2})(\d{2})(?:\d{6})?(?!\d|\.\d{2})"), (1, 2, 3)
_NAMED_MONTH = re.compile(  # a month first takes a comma, else the date of a program's build would be one
    rf"(?<!\d)\d{{1,2}}[-/ ._]{{0,2}}(?:{_MONTHS})[a-zä]*[-/ ._,]*(?:19|20)\d\d(?!\d)|"
    rf"(?<![a-z])(?:{_MONTHS})[a-zä]*\.? \d{{1,2}}(?:st|nd|rd|th)?, ?(?:19|20)\d\d(?!\d)",
    re.IGNORECASE,
)
_SHORT_DATE = re.compile(r"(0?[1-9]|[12]\d|3[01])([-/.])(0?[1-9]|[12]\d|3[01])\2\d\d")
_TELLTALES = (
    ("error", "a name as DICOM writes it", re.compile(r"[^\W\d_]{2,}\^+[^\W\d_]+")),
    ("error", "an e-mail address", re.compile(r"[\w.+-]+@[\w-]+\.[A-Za-z]{2,}")),
    ("error", "a DICOM UID", re.compile(r"(?<![\d.])[0-2](?:\.\d+){6,}(?![\d.])")),
    ("warning", "a long number, as a hospital gives patients", re.compile(r"(?<!\d)(?<!\d\.)\d{7,}(?!\d|\.\d)")),
)
_NOBODYS = re.compile(
    r"https?://\S+|\bdoi:\S+|\b10\.\d{4,9}/\S+|\bNCT\d{8}\b|\bPMID:? ?\d+|\bISRCTN\d{8}\b|"  # references
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|"  # a UUID
    r"(?<![\d.])(?:1\.3\.6\.1\.4\.1\.(?:14519\.5\.2\.1|9328\.50)|1\.2\.840\.113654\.2\.55)(?:\.\d+){2,}|"  # of TCIA, NLST
    r"(?<![\w.])\d+(?:\.\d+)? ?(?:[mcµu]?m(?:\^?[23]|[²³])|[mµu]?l|voxels?|bytes?|[kMG]?Bq)\b",  # a measure
    re.IGNORECASE,
)
_HEX = re.compile(r"[0-9a-fA-F]{7,}")
_WORD = r"[^\W\d_]{2,}(?:['’][^\W\d_]+)?"
_TWO_WORDS = re.compile(rf"{_WORD}\d?(?:(?:[\s_,;.^=-]+|(?<=[a-z])(?=[A-Z]))(?:{_WORD}\d?|[^\W\d_]\.?))+", re.UNICODE)
_WITH_BIRTH = re.compile(r"([^\W\d_]{2,})[-_. ]?(\d{4}|\d{6}|\d{8})|(\d{4}|\d{6}|\d{8})[-_. ]?([^\W\d_]{2,})")
_NO_NAMES = re.compile(  # words of which ids are made that name nobody
    r"sub|subj|subject|pat|patient|pt|case|id|no|nr|study|site|center|centre|hospital|group|arm|cohort|train(ing)?|test|val"
    r"|phantom|water|control|healthy|volunteer|anon(ym\w*)?|unknown|none|na|missing|pilot|demo|example|sample|data|scan"
)


def telltales(text: str, digits: bool = True) -> list[tuple[str, str]]:
    """What in a text looks like an identifier: (severity, what it looks like) pairs.

    `digits` says whether eight digits without a sign between may be a date.
    """
    text = re.sub(r"[0-9A-Za-z]{16,}", lambda part: " " if _is_hash(part[0]) else part[0], _NOBODYS.sub(" ", text))
    found = [(severity, f"{what} ('{hit[0]}')") for severity, what, rule in _TELLTALES if (hit := rule.search(text))]
    day = date_in(text, digits)
    if day:  # a date is a long number too: told once, as what it is
        found = [one for one in found if day not in one[1]] + [("error", f"a date ('{day}')")]
    return found


def column_telltales(column: pd.Series, name: str) -> list[tuple[int, str, str]]:
    """What in the filled cells of a column looks like an identifier: the first row of each kind, severity, what.

    Parameters
    ----------
    column : Series of str
        Its index is told as the row.
    name : str
        What the column is called.
    """
    called, column = snake(name), column.astype(str).str.strip()
    if OF_THINGS.search(called) or _are_hashes(column):
        return []
    numbers = pd.to_numeric(column, errors="coerce")
    dates = bool(_OF_DATES.search(called))
    found = _in_numbers(numbers.dropna(), dates, bool(_OF_IDS.search(called)))
    texts = column[numbers.isna()].drop_duplicates()
    strange = no_dates(texts) if not dates else set()
    for row, cell in texts.items():
        told = telltales(cell, shape(cell) not in strange)
        if dates and not told and _SHORT_DATE.fullmatch(cell):
            told = [("error", f"a date ('{cell}')")]
        found += [(row, *one) for one in told]
    found += _short_dates(texts) if not dates else []
    found += _persons(column) if _OF_PATIENTS.fullmatch(called) else []
    first = {}
    for row, severity, what in found:
        first.setdefault((severity, what.split(" (")[0]), (row, severity, what))
    return list(first.values())


def _in_numbers(numbers: pd.Series, dates: bool, ids: bool) -> list[tuple[int, str, str]]:
    """Dates among the numbers of a column, judged together; else long numbers, where it is one of ids."""
    if not dates and not (numbers.abs() >= 1e6).any():
        return []
    whole = numbers[(numbers % 1 == 0) & (numbers.abs() < 1e15)].astype("int64").astype(str)
    days = whole[whole.map(lambda text: bool(date_in(text))).astype(bool)]
    if len(days) and (dates or len(days) >= NEARLY * len(numbers)):
        sure = dates or days.nunique() > 1
        row, what = days.index[0], f"('{days.iloc[0]}')"
        return [(row, "error", f"a date {what}") if sure else (row, "warning", f"a number that may be a date {what}")]
    today = (date.today() - date(1899, 12, 30)).days
    if dates and len(numbers) and numbers.between(7000, today).mean() >= NEARLY:  # 1919 and later
        return [(numbers.index[0], "warning", "numbers that may be dates of Excel")]
    long = whole[whole.str.fullmatch(r"\d{7,}")] if ids else whole[:0]
    return [(long.index[0], "warning", f"{_TELLTALES[-1][1]} ('{long.iloc[0]}')")] if len(long) else []


def _short_dates(texts: pd.Series) -> list[tuple[int, str, str]]:
    """Days such as 13.4.19, where nearly all texts of a column are, and one has a day that is no month."""
    short = texts[texts.str.fullmatch(_SHORT_DATE)]
    later = short[short.map(lambda text: max(map(int, re.split(r"[-/.]", text)[:2])) > 12).astype(bool)]
    few = len(short) < NEARLY * len(texts)
    return [] if few or not len(later) else [(later.index[0], "warning", f"what may be a date ('{later.iloc[0]}')")]


def _persons(ids: pd.Series) -> list[tuple[int, str, str]]:
    """Ids that are a person's name, or may hold a day or year of birth."""
    ids = ids.drop_duplicates()
    found = [(row, "error", f"a name ('{one}')") for row, one in ids.items() if _is_name(one)]
    words = ids[ids.str.fullmatch(r"[^\W\d_]{4,}") & ~ids.str.lower().str.fullmatch(_NO_NAMES)]
    found += [(row, "warning", f"a word that may be a name ('{one}')") for row, one in words.iloc[:1].items()]
    for _, group in ids.groupby(ids.map(lambda one: re.sub(r"[^\W\d_]+", "a", shape(one)))):
        births = group[group.map(_holds_birth).astype(bool)]
        if len(births) and (len(group) < FEW or len(births) >= NEARLY * len(group)):
            what = f"letters and what may be a day or year of birth ('{births.iloc[0]}')"
            found.append((births.index[0], "warning", what))
    return found


def _is_name(text: str) -> bool:
    """Whether an id is two words of letters or more, such as `Mueller_Juergen` or `DOE JOHN`."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())
    words = [word for word in words if not _NO_NAMES.fullmatch(word)]
    return bool(_TWO_WORDS.fullmatch(text)) and len(words) > 1 and len(max(words, key=len)) > 1


def _holds_birth(text: str) -> bool:
    """Whether an id is letters and what reads as a day or year from 1900 to today."""
    hit = _WITH_BIRTH.fullmatch(text)
    if not hit or _NO_NAMES.fullmatch((hit[1] or hit[4]).lower()):
        return False
    digits = hit[2] or hit[3]
    forms = {4: ["%Y"], 6: ["%y%m%d", "%d%m%y"], 8: ["%Y%m%d", "%d%m%Y"]}[len(digits)]
    days = (pd.to_datetime(digits, format=form, errors="coerce") for form in forms)
    return any(pd.notna(day) and day.year >= 1900 and (len(digits) == 6 or day <= pd.Timestamp.now()) for day in days)


def no_dates(texts) -> set[str]:
    """The shapes of texts whose eight digits are no dates: of several written alike, too few read as one."""
    runs = defaultdict(set)
    for text in texts:
        runs[shape(text)] |= {hit[0] for hit in _DIGITS[0].finditer(text)}
    return {
        shape
        for shape, found in runs.items()
        if len(found) >= FEW and sum(date_in(one) is not None for one in found) < NEARLY * len(found)
    }


def shape(text: str) -> str:
    return re.sub(r"\d+", "#", text)


def _is_hash(token: str) -> bool:
    """Whether letters and digits are mixed as in no name or number."""
    turns = len(re.findall(r"(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=\d)", token))
    return turns >= (2 if _HEX.fullmatch(token) else 6)


def _are_hashes(column: pd.Series) -> bool:
    """Whether a column is of hexadecimal numbers of one length, most with a letter."""
    if not len(column) or not _HEX.fullmatch(column.iloc[0]):
        return False
    alike = column.str.len().nunique() == 1 and column.str.fullmatch(_HEX).all()
    return bool(alike and column.str.contains("[a-fA-F]").mean() > 0.5)


def snake(name: str) -> str:
    """`AgeAtMRI` and `Age.at.MRI` are `age_at_mri`, `Décès (Tage)` is `deces_tage`; letters of any script stay."""
    plain = "".join(one for one in unicodedata.normalize("NFD", str(name)) if not unicodedata.combining(one))
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain).casefold()).strip("_")


def date_in(text: str, digits: bool = True) -> str | None:
    """The first stretch of a text that is a date a patient may have lived."""
    for rule, (year, month, day) in (*_DATES, *((_DIGITS,) if digits else ())):
        for hit in rule.finditer(text):
            try:
                found = date(int(hit[year]), int(hit[month]), int(hit[day]))
            except ValueError:
                continue
            if date(1900, 1, 1) <= found <= date.today():
                return hit[0]
    hit = _NAMED_MONTH.search(text)
    return hit[0] if hit else None
