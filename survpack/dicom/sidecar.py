"""What of a DICOM header may be written: how the image was made, the patient's sex and capped age; days, not dates.

Of `privacy.ALLOWED`, coded fields may hold their defined terms, numbers a number, and texts words of the trade (`terms`);
and none of them what repeats a name, id or date of the same header. The rest is left out.
"""

from __future__ import annotations

import re

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue

from survpack import privacy
from survpack.dicom.personal import of_the_trade, repeats, says_yes, secrets_of
from survpack.dicom.series import numbers_of
from survpack.dicom.terms import TERMS
from survpack.errors import BadInput

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage, and its multi-frame kin


def facts_of(head, known: dict) -> dict:
    """`known`, and what may be written of the fields that `privacy.ALLOWED` names."""
    secrets, facts = secrets_of(head), dict(known)
    for keyword in privacy.ALLOWED:
        values = _values(head, keyword)
        if not values or keyword in known:
            continue
        written = [one for value in values if (one := _written(keyword, value, secrets)) is not None]
        if keyword in TERMS or len(written) == len(values):
            facts |= {keyword: written[0] if len(values) == 1 else written} if written else {}
    drug = (head.get("RadiopharmaceuticalInformationSequence") or [{}])[0]
    if half_life := numbers_of(drug, "RadionuclideHalfLife"):
        facts["RadionuclideHalfLife"] = half_life[0]
    return facts


def notices(heads: list, deface: str = "none") -> list[str]:
    """What the headers say of pixels that may tell who it is, a sentence each."""
    face = any(says_yes(head.get("RecognizableVisualFeatures")) for head in heads)
    shot = any(str(head.get("SOPClassUID") or "").startswith(_CAPTURE) for head in heads)
    return [
        *["the face can be recognised, as the header says: use --deface skull for MR"] * (face and deface == "none"),
        *["a secondary capture, which may have text in its pixels: look at it before it is shared"] * shot,
    ]


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


def _values(head, keyword: str) -> list:
    try:
        value = head.get(keyword)
    except Exception:  # a spoilt field fails in many ways
        return []
    return [one for one in (value if isinstance(value, MultiValue) else [value]) if one not in (None, "")]


def _written(keyword: str, value, secrets: set[str]) -> str | int | float | None:
    """What of a value of a field may be written; None for nothing."""
    text = str(value).strip()
    if keyword in TERMS:
        return code if (code := text.upper()) in TERMS[keyword] and not repeats(code, secrets) else None
    if dictionary_VR(tag_for_keyword(keyword)) in ("DS", "IS"):
        return _number(text, secrets)
    return text if of_the_trade(text) and not privacy.telltales(text) and not repeats(text, secrets) else None


def _number(text: str, secrets: set[str]) -> int | float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not np.isfinite(number) or not number.is_integer():
        return number if np.isfinite(number) else None
    digits = str(int(number))
    tells = len(digits) > 5 and (
        digits in secrets or any(severity == "error" for severity, _ in privacy.telltales(digits))
    )
    return None if tells else int(number)
