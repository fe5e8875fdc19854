"""Standardised uptake value by body weight, from what the header of a PET says.

After the vendor-neutral pseudo-code of the RSNA's Quantitative Imaging Biomarkers Alliance
(https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)); extended to dose corrected to administration.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from survpack.dicom.series import Series, numbers_of
from survpack.errors import BadInput

_PHILIPS = 0x7053, "Philips PET Private Group"
_GE = 0x0009, "GEMS_PETD_01"


def suv_factor(series: Series) -> tuple[float, str]:
    """What to multiply the rescaled values with to get g/mL, and how that was found.

    Raises
    ------
    BadInput
        Where weight, dose, half-life or times are missing, or the values are not corrected for decay.
    """
    head = series.head
    units, kind = str(head.get("Units") or ""), str(head.get("SUVType") or "BW")
    if units == "GML":
        if kind != "BW":
            _refuse(series, f"SUV by {kind}", "SUV by body weight (BW)")
        return 1.0, "stored as SUV"
    if units == "CNTS":
        direct, activity = _private(head, *_PHILIPS, 0x00), _private(head, *_PHILIPS, 0x09)
        if direct:
            return direct, "Philips SUV scale factor"
        if not activity:
            _refuse(series, "counts without a Philips scale factor", "Units BQML, GML, or (7053,1000)")
        return activity * _from_activity(series), "Philips activity factor, weight and dose"
    if units != "BQML":
        _refuse(series, f"Units '{units}'", "BQML, GML or CNTS")
    return _from_activity(series), "weight, dose and decay"


def _from_activity(series: Series) -> float:
    """1000 g/kg × weight over the dose left at the time to which the voxels are corrected."""
    head = series.head
    corrected = [str(one) for one in (head.get("CorrectedImage") or [])]
    if "ATTN" not in corrected or not {"DECY", "DECAY"} & set(corrected):
        _refuse(series, f"Corrected Image {'/'.join(corrected) or 'empty'}", "ATTN and DECY")
    drug = (head.get("RadiopharmaceuticalInformationSequence") or [None])[0]
    weight = _positive(series, head, "PatientWeight", "kg")
    dose = _positive(series, drug, "RadionuclideTotalDose", "Bq")
    half_life = _positive(series, drug, "RadionuclideHalfLife", "s")
    correction = str(head.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return 1000 * weight / dose
    if correction != "START":
        _refuse(series, f"Decay Correction '{correction}'", "START or ADMIN")
    scan = _scan_time(series)
    waited = (scan - _injection(series, drug, scan)).total_seconds()
    if not 0 <= waited < 24 * 3600:
        _refuse(series, f"the scan {waited / 3600:.1f} h after the injection", "0 to 24 h")
    return 1000 * weight / (dose * 2 ** (-waited / half_life))


def _scan_time(series: Series) -> datetime:
    """The series' time; where that is after the acquisition (post-processed), GE's own or the first acquisition."""
    head = series.head
    stamps = [_when(*stamp) for stamp in series.acquired]
    acquired = min((stamp for stamp in stamps if stamp), default=None)
    started = _when(head.get("SeriesDate"), head.get("SeriesTime"))
    if started and (acquired is None or started <= acquired):
        return started
    scan = _when_text(_private_value(head, *_GE, 0x0D)) or acquired
    return scan or _refuse(series, "no Series Time and no Acquisition Time", "when the scan began")


def _injection(series: Series, drug, scan: datetime) -> datetime:
    full = _when_text(drug.get("RadiopharmaceuticalStartDateTime"))
    clock = _when(f"{scan:%Y%m%d}", drug.get("RadiopharmaceuticalStartTime"))
    if full and abs(scan - full) < timedelta(hours=24):
        return full
    if not clock:  # a date shifted apart from the scan's still has the time of day
        clock = full and scan.replace(hour=full.hour, minute=full.minute, second=full.second, microsecond=0)
    if not clock:
        _refuse(series, "no Radiopharmaceutical Start Time", "when the dose was given")
    return clock - timedelta(days=1) if clock > scan else clock  # a scan past midnight


def _positive(series: Series, where, keyword: str, unit: str) -> float:
    value = numbers_of(where, keyword) if where is not None else None
    if not value or value[0] <= 0:
        _refuse(series, f"no {keyword}", f"a number of {unit}")
    return value[0]


def _private(head, group: int, creator: str, element: int) -> float | None:
    value = _private_value(head, group, creator, element)
    return float(value) if value not in (None, "") and float(value) > 0 else None


def _private_value(head, group: int, creator: str, element: int):
    try:
        value = head.private_block(group, creator)[element].value
    except KeyError:
        return None
    return value.decode("ascii", "ignore").strip("\0 ") if isinstance(value, bytes) else value


def _when(day, clock) -> datetime | None:
    return _when_text(f"{day}{clock}") if day and clock else None


def _when_text(text) -> datetime | None:
    text = str(text or "").split("+")[0].split(".")[0]
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S" if len(text) > 12 else "%Y%m%d%H%M")
    except ValueError:
        return None


def _refuse(series: Series, found: str, expected: str):
    raise BadInput(f"{series.name}: no SUV from {found}, expected {expected}; ask for the full header.")
