"""What of a DICOM header may be written: how the image was made, the patient's sex and capped age; days, not dates."""

from __future__ import annotations

import re

import numpy as np

from survpack import privacy
from survpack.dicom.series import numbers_of
from survpack.errors import BadInput

_WORDS = ("PN", "DA", "DT", "LO", "SH", "UI", "AE", "CS")  # values short enough to be an identifier


def facts_of(head, known: dict) -> dict:
    """`known` and what `privacy.ALLOWED` names, but no text that repeats or looks like what tells the patient."""
    secrets, facts = _secrets(head), dict(known)
    for keyword in privacy.ALLOWED:
        value = head.get(keyword)
        if value in (None, "") or keyword in known:
            continue
        many = [_plain(one) for one in value] if _is_multi(value) else _plain(value)
        text = " ".join(one for one in (many if isinstance(many, list) else [many]) if isinstance(one, str)).casefold()
        if not privacy.telltales(text) and not _repeats(text, secrets):
            facts[keyword] = many
    drug = (head.get("RadiopharmaceuticalInformationSequence") or [{}])[0]
    if half_life := numbers_of(drug, "RadionuclideHalfLife"):
        facts["RadionuclideHalfLife"] = half_life[0]
    return facts


def about(heads: list) -> dict:
    """Age at the first study and sex of a patient, as far as the headers of the series tell; else NaN."""
    heads = sorted(heads, key=lambda head: study_day(head) or "9")
    ages = [age for head in heads if (age := _age(head)) is not None]
    sexes = {str(head.get("PatientSex") or "") for head in heads} & {"F", "M"}
    sex = {"F": "female", "M": "male"}[sexes.pop()] if len(sexes) == 1 else np.nan
    return {"age": privacy.capped_age(ages[0]) if ages else np.nan, "sex": sex}


def study_day(head) -> str | None:
    """The study's date as eight digits; the series' where the study has none."""
    days = (_day(head.get(keyword)) for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate"))
    return next(filter(None, days), None)


def _day(value) -> str | None:
    """A date as eight digits; None where it is none, such as 00000000."""
    text = re.sub(r"\D", "", str(value or ""))
    try:
        privacy.days_between(text, text)
    except BadInput:
        return None
    return text


def _age(head) -> float | None:
    told = re.fullmatch(r"(\d{3})([DWMY])", str(head.get("PatientAge") or ""))
    if told:
        return int(told[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[told[2]]
    born, seen = _day(head.get("PatientBirthDate")), study_day(head)
    years = (int(seen) - int(born)) // 10000 if born and seen else -1  # as 20190412 less 19480413 tells
    return years if years >= 0 else None


def _secrets(head) -> set[str]:
    """Words of the values in a header that tell someone for certain, its nested sequences included."""
    words = set()
    for element in head.iterall():
        if element.VR in _WORDS and privacy.certain(element.keyword):
            words |= {word for word in re.split(r"[\s^=,;/\\]+", str(element.value).casefold()) if len(word) > 1}
    return words


def _repeats(text: str, secrets: set[str]) -> bool:
    """Whether a text holds a secret: a short one ("Li") only as a word, else Philips were a patient."""
    words = set(re.split(r"\W+|_", text))
    return any(secret in words or (len(secret) > 3 and secret in text) for secret in secrets)


def _is_multi(value) -> bool:
    from pydicom.multival import MultiValue

    return isinstance(value, MultiValue)


def _plain(value):
    """A number as a number, text as text."""
    if isinstance(value, (int, float)):
        return int(value) if float(value).is_integer() else float(value)
    return str(value)
