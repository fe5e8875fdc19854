"""What a DICOM header tells of someone, and whether a text repeats it, however it is spelt.

Texts are compared folded: without case, accents and punctuation; ä, ae and a are one letter, as are ß and ss. The parts of
a name count alone and joined, in either order. A part of two or three letters ("Li") counts as a word of its own only,
a longer one wherever it stands. Of what was typed freely into fields that tell someone, every word counts but those of the
trade (`terms`), else no scanner of Philips could be told; of the patient's own name, those too.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import permutations

import numpy as np

from survpack import privacy
from survpack.dicom.terms import COMMON, MAKERS, MODALITIES, TERMS, WORDS

_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h"})
_KANA = {one: one - 0x60 for one in range(0x30A1, 0x30F7)}  # katakana as hiragana
_BETWEEN = re.compile(r"[\s^=\\,;:/()\[\]{}<>|_+*&@\"#]+")
_TEXT = ("PN", "DA", "DT", "UI", "AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT")
_NUMBERED = re.compile(r".*(IDs?|Number|StationName)")  # what is a person's or a device's own number
_TITLES = {"mr", "mrs", "ms", "dr", "prof", "phd", "md", "jr", "sr", "ct", "pet"}
_NOBODY = re.compile("anon(ym(ous|ized|ised)?)?|unknown|none|patient|subject|phantom|test|case|no|name|noname|removed")
OMITTED = "…"


def folded(text: str) -> str:
    """A text as it is compared: `Müller`, `MUELLER` and `Muller` are one."""
    plain = unicodedata.normalize("NFKD", str(text).casefold().translate(_LETTERS))
    plain = "".join(one for one in plain if unicodedata.category(one) not in ("Mn", "Cf")).translate(_KANA)
    return re.sub("(?<=[aou])e|(?<=a)a", "", plain)


_KNOWN = frozenset(map(folded, WORDS))
ORDINARY = _KNOWN | {folded(one) for one in [*COMMON, *(term for terms in TERMS.values() for term in terms)]}
_MAKERS = frozenset(map(folded, MAKERS))


def of_the_trade(text: str) -> bool:
    """Whether a text is nothing but words of the trade, single letters, and codes such as B30f: it cannot be a name."""
    tokens = re.split(r"[\W_]+", str(text))
    for token in tokens:
        short = 2 if re.search(r"\d", token) else 1
        runs = re.findall(r"[^\W\d_]+", token)
        if re.search(r"\d{7}", token) or not all(
            (len(run) <= short and run.isascii()) or _is_known(run) for run in runs
        ):
            return False
    return sum(len(token) == 1 and token.isalpha() for token in tokens) < 4  # S. M. I. T. H.


def secrets_of(*heads) -> set[str]:
    """Folded words and numbers of all that tells someone in headers, their nested sequences and private tags included."""
    told = (found for head in heads for found in _texts(head))
    return {one for element, text in told if privacy.denies(element) for one in _of_text(element, text)}


def names_of(*heads, patient: bool = False) -> set[str]:
    """Folded parts of the names of persons, or of the `patient` alone; none of a pseudonym."""
    told = (found for head in heads for found in _texts(head))
    names = (text for element, text in told if (_is_patients_name(element) if patient else element.VR == "PN"))
    return {one for text in names if _is_person(text) for one in _of_name(text)}


def births_of(*heads) -> set[str]:
    """The patient's dates of birth, in all orders of day, month and year."""
    told = (found for head in heads for found in _texts(head))
    return {
        one for element, text in told if element.keyword == "PatientBirthDate" for one in _of_date(text, short=True)
    }


def repeats(text: str, secrets: set[str]) -> bool:
    """Whether a text holds one of the secrets."""
    words, whole = _words(text), _squeezed(text)
    return any(
        one in words or (_is_long(one) and any(one in word for word in words)) or (len(one) > 4 and one in whole)
        for one in secrets
    )


def without(text: str, secrets: set[str]) -> str:
    """A text with an ellipsis for each word, or part of a path, that repeats a secret."""
    return re.sub(r"[^\s/]+", lambda part: OMITTED if repeats(part[0], secrets) else part[0], str(text))


def modality_of(head) -> str:
    """The modality of a header, if it is one of the standard."""
    told = str(head.get("Modality") or "none")
    return told if told in (*MODALITIES, "none") else "not of the standard"


def says_yes(value) -> bool:
    """Whether a field is YES, however it is written."""
    return any(str(one).strip().upper()[:1] in ("Y", "T", "1") for one in np.atleast_1d(value))


def _of_text(element, text: str) -> set[str]:
    if element.VR == "PN":
        if _is_patients_name(element):
            return _of_name(text)
        return set() if _of_makers(text) else _of_name(text) - _MAKERS  # Siemens serves its scanners itself
    if element.keyword in ("PatientID", "OtherPatientIDs"):
        return _of_name(text)
    if element.VR in ("DA", "DT"):
        return _of_date(text)
    whole = _squeezed(text)
    found = {word for word in _words(text) if _is_long(word) and word.isalpha()}
    numbered = _NUMBERED.fullmatch(element.keyword) and len(whole) > 3 and " " not in text and not _of_makers(text)
    if element.VR == "UI" or numbered:
        found.add(whole)
    return found - ORDINARY


def _of_makers(text: str) -> bool:
    """Whether a text names nothing but a maker or a scanner."""
    return of_the_trade(text) and bool(re.search(r"[^\W\d_]{3}", text))


def _of_name(text: str) -> set[str]:
    """The parts of a name, alone and joined; a pseudonym (`LUNG1-001`) is one word."""
    if not _is_person(text):
        return {whole} if len(whole := _squeezed(text)) > (3 if whole.isdigit() else 1) else set()
    words = {word for word in _words(text) if (len(word) > 1 or word > "\u2e80") and not word.isdigit()} - _TITLES
    if all(map(_NOBODY.fullmatch, words)):
        return set()
    return words | {first + last for first, last in permutations(sorted(words)[:12], 2)}


def _is_person(text: str) -> bool:
    """Whether a name is a person's: it has no digit, or two words with at most one each (`Smith2^John`)."""
    words = [word for word in re.split(r"[\s^=,]+", text) if re.fullmatch(r"[^\W\d_]{2,}\d?", word)]
    return len(words) > 1 or not re.search(r"\d", text)


def _of_date(value: str, short: bool = False) -> set[str]:
    digits = re.sub(r"\D", "", value)[:8]
    if len(digits) < 8 or digits == "00000000":
        return set()
    year, month, day = digits[:4], digits[4:6], digits[6:]
    years = [year, year[2:]] if short else [year]
    return {"".join(parts) for year in years for parts in [(year, month, day), (day, month, year), (month, day, year)]}


def _words(text: str) -> set[str]:
    """Folded parts between blanks and signs, and their runs of letters; `O'Brien` is obrien, o and brien."""
    chunks = [chunk for chunk in _BETWEEN.split(folded(text)) if chunk]
    runs = re.findall(r"[^\W\d_]+", f"{folded(text)} {folded(_spaced(text))}")
    return {_squeezed(chunk) for chunk in chunks} | set(runs)


def _is_known(word: str) -> bool:
    parts = _spaced(word).split()
    return folded(word) in _KNOWN or (len(parts) > 1 and all(len(one) == 1 or folded(one) in _KNOWN for one in parts))


def _spaced(text: str) -> str:
    """JohnSmith as John Smith."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(text))


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]", "", folded(text))


def _is_long(word: str) -> bool:
    if word.isdigit():
        return len(word) > 5
    return len(word) > 3 or (len(word) > 1 and min(word) > "\u2e80")  # two ideographs are a name


def _is_patients_name(element) -> bool:
    return element.VR == "PN" and "Patient" in element.keyword


def _texts(head):
    """Every text in a header with its element, at any depth; what is too spoilt to be read is left."""
    for tag in list(head.keys()):
        try:
            element = head[tag]
            inner = list(element.value or []) if element.VR == "SQ" else []
            many = (element.value if element.VM > 1 else [element.value]) if element.VR in _TEXT else []
            texts = [one.decode("latin-1") if isinstance(one, bytes) else str(one or "") for one in many]
        except Exception:  # a spoilt field fails in many ways
            continue
        yield from ((element, text) for text in texts if text)
        for item in inner:
            yield from _texts(item)
