"""A chart in: the columns a model was trained on, each of its kind and within what its unit allows.

What was found is repeated where it is a number; text never is, as it may name someone.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from survpack.errors import BadInput

CHART_BYTES = 64 * 2**10
MISSING = ("", "n/a", "na", "nan", "none", "null", "--", "unknown", "not available")
LONGEST_NAME = 60  # characters of a column's name that is repeated
SLIPS = (  # what the number is multiplied by to be as usual, the units it may happen in, and the question
    (1 / 12, ("years",), "in months?"),
    (1 / 365.25, ("years",), "in days?"),
    (100, (), "as a fraction?"),
    (10, (), "a digit short?"),
    (0.1, (), "a decimal point lost?"),
    (0.01, ("points",), "a decimal point lost?"),
    (0.4536, ("kg",), "in pounds?"),
    (2.54, ("cm",), "in inches?"),
    (100, ("cm",), "in metres?"),
    (0.001, (), "in a unit a thousand times smaller?"),
    (1000, (), "in a unit a thousand times larger?"),
)


def read_chart(
    given: Mapping | Path | str | None, schema: Mapping[str, Mapping], limit: int = CHART_BYTES
) -> tuple[dict, list[str], list[str]]:
    """One patient's chart as a model's table has it.

    Parameters
    ----------
    given : mapping, Path, str or None
        Column to value; a file with a JSON object, or with a header and one row (commas, semicolons or tabs); or the
        text of such a file. None is an empty chart.
    schema : mapping
        Column to `kind`, `unit`, `levels`, `low`, `high` (1st and 99th percentile of the training patients).
    limit : int
        Bytes of a file.

    Returns
    -------
    dict
        Every column of `schema`: a float, a level, or NaN where it is missing.
    list of str
        The columns that are missing.
    list of str
        What is to be read with care.

    Raises
    ------
    BadInput
        For what cannot be read, a column or level that is not known, a number out of range, an outcome, nothing at all.
    """
    row = _row(given, limit)
    _known(row, schema)
    notes, values = [], {}
    for name, entry in schema.items():
        value = row.get(name)
        levels = {_plain(level) for level in entry.get("levels") or ()}  # a level may be called `none`
        if isinstance(value, str) and value.strip().casefold() in MISSING and _plain(value) not in levels:
            value = None
        read = _number if entry["kind"] == "numeric" else _level
        values[name] = math.nan if value is None else read(name, value, entry, notes)
    missing = [name for name, value in values.items() if value != value]
    if schema and len(missing) == len(schema):
        raise BadInput(f"chart: no value at all, expected some of {', '.join(schema)}; fill in what is known.")
    return values, missing, notes


def _row(given, limit: int) -> Mapping:
    if given is None or isinstance(given, Mapping):
        return given or {}
    if isinstance(given, Path):
        given = _file(given, limit)
    given = given.removeprefix("\ufeff") if isinstance(given, str) else given
    if not isinstance(given, str):
        raise BadInput(f"chart: {type(given).__name__}, expected an object of columns and values; give one.")
    if len(given) > limit:
        raise BadInput(f"chart: over {limit // 1024} KB, expected one patient's; leave the others out.")
    return _object(given) if given.lstrip()[:1] in ("{", "[", '"') else _table(given)


def _file(path: Path, limit: int) -> str:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "not found"
        raise BadInput(f"chart {path.name}: {what}, expected a file of JSON, CSV or TSV; give its path.")
    if path.stat().st_size > limit:
        raise BadInput(f"chart {path.name}: over {limit // 1024} KB, expected one patient's; leave the others out.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise BadInput(f"chart {path.name}: no text in UTF-8, expected JSON, CSV or TSV; save it as such.") from None


def _object(text: str) -> dict:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except BadInput:
        raise
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise BadInput(f'chart: not JSON{where}, expected an object such as {{"age": 63}}; correct it there.') from None
    if not isinstance(found, dict):
        many = isinstance(found, list) and len(found) > 1
        what = f"a list of {len(found)}" if many else "JSON, but no object"
        raise BadInput(f'chart: {what}, expected one patient\'s object such as {{"age": 63}}; give one patient.')
    return found


def _once(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadInput("chart: a column is there twice, expected each once; leave one of the two out.")
    return found


def _table(text: str) -> dict:
    header = text.lstrip().split("\n", 1)[0]
    mark = max("\t;,", key=header.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text.strip("\r\n")), delimiter=mark) if any(map(str.strip, row))]
    except csv.Error:
        rows = []
    if len(rows) != 2:
        raise BadInput(
            f"chart: {max(len(rows) - 1, 0)} patients, expected a JSON object, or a table with a header and one row; "
            "give one patient."
        )
    if len(rows[0]) != len(rows[1]):
        raise BadInput(
            f"chart: {len(rows[0])} columns but {len(rows[1])} values, expected as many; quote a value that has a separator in it."
        )
    return _once([(name.strip(), value.strip()) for name, value in zip(*rows, strict=True)])


def _known(row: Mapping, schema: Mapping) -> None:
    """Refuse what the model was not trained on; an outcome, by its name, with the reason."""
    from survpack.cohort import OUTCOME

    for place, name in enumerate(row, 1):
        name = str(name)
        if name in schema:
            continue
        near = get_close_matches(name.casefold(), schema, n=1, cutoff=0.7)
        if near:
            raise BadInput(f"chart: unknown column `{_short(name)}`, expected `{near[0]}`; rename it.")
        if name in OUTCOME[2:] or _like_an_outcome(name):
            raise BadInput(
                f"chart: an outcome (the {_th(place)} column), expected only what is known at baseline, as this is a "
                "prognosis; leave it out."
            )
        raise BadInput(
            f"chart: the {_th(place)} column is unknown to this model, expected some of {', '.join(schema) or 'none'}; "
            "leave it out, or rename it."
        )


def _like_an_outcome(name: str) -> bool:
    from survpack.hindsight import LATER

    return bool(LATER.search(re.sub(r"[^a-z0-9]+", "_", name.casefold())))


def _number(name: str, value, entry: Mapping, notes: list[str]) -> float:
    unit = f" {entry['unit']}" if entry.get("unit") else ""
    usual = f"{entry['low']:g} to {entry['high']:g}{unit}" if entry.get("low") is not None else f"a number{unit}"
    if isinstance(value, bool):
        raise BadInput(f"chart: `{name}` is true or false, expected a number ({usual} is usual); correct it.")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        comma = isinstance(value, str) and re.fullmatch(r"\s*-?\d+,\d+\s*", value)
        fix = "write the decimal point as a point" if comma else "correct it, or leave it out"
        raise BadInput(f"chart: `{name}` is not a number, expected one ({usual} is usual); {fix}.") from None
    if not math.isfinite(number):
        raise BadInput(f"chart: `{name}` is NaN or infinite, expected a number or nothing; leave it out if unknown.")
    if entry.get("low") is None or entry["low"] <= number <= entry["high"]:
        return number
    low, high = plausible(name, entry)
    if not low <= number <= high:
        raise BadInput(
            f"chart: `{name}` is {number:g}, expected {low:g} to {high:g}{unit} ({usual} is usual); "
            f"{_slip(number, entry)}correct it, or leave it out if unknown."
        )
    notes.append(f"`{name}` is {number:g}{unit}, where 98 % of the training patients have {usual}.")
    return number


def plausible(name: str, entry: Mapping) -> tuple[float, float]:
    """Lowest and highest number that is taken: half the usual spread below, and twice the usual highest.

    What a unit cannot exceed (`checks.RANGES`: an age of 120 years) is cut off. Beyond it there is a slip, or a patient
    of whom the training patients tell nothing.
    """
    from survpack.checks import RANGES

    low, high = float(entry["low"]), float(entry["high"])
    width = max(high - low, 0.1 * abs(high), 1e-9)
    ends = max(low - width / 2, 0) if low >= 0 else low - width / 2, high + max(width / 2, high)
    for pattern, (least, most, unit) in RANGES.items():
        if re.search(rf"(^|_)({pattern})(_|$)", name.casefold()) and entry.get("unit") in (unit, None):
            ends = max(ends[0], least), min(ends[1], most)
    return ends


def _slip(number: float, entry: Mapping) -> str:
    for factor, units, question in SLIPS:
        if (not units or entry.get("unit") in units) and entry["low"] <= number * factor <= entry["high"]:
            return f"{question} "
    return ""


def _level(name: str, value, entry: Mapping, notes: list[str]) -> str:
    levels = {_plain(level): level for level in entry["levels"]}
    found = "" if isinstance(value, bool) else _plain(value)
    if found in levels:
        return levels[found]
    near = get_close_matches(found, levels, n=1, cutoff=0.6)
    fix = f"write `{levels[near[0]]}` if that is meant" if near else "choose one of these, or leave it out if unknown"
    raise BadInput(f"chart: `{name}` has an unknown level, expected one of {', '.join(entry['levels'])}; {fix}.")


def _plain(value) -> str:
    return " ".join(str(value).casefold().replace("_", " ").split())


def _short(name: str) -> str:
    return re.sub(r"[^\w .-]", "?", name)[:LONGEST_NAME]


def _th(place: int) -> str:
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
