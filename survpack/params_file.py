"""params.yaml as a file: read by the parser that DVC uses, and what is wrong with it in one sentence.

YAML 1.2, as DVC reads it: `010` is 10, `12:30` and `no` are words, a key stands once. A value that a stage read
otherwise than DVC would be written down by DVC as another one than the stage was run with.
"""

from __future__ import annotations

import json
import math
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from ruamel.yaml import YAML, YAMLError

from survpack.errors import BadInput
from survpack.paths import written_whole

LARGEST = 20_000  # values, once aliases are written out: a few lines of them can say millions


def read(path: Path, *, as_text: bool = False) -> dict:
    """The file as DVC reads it; or every value as the text that is written (`no`, `012`, `1e3`), of a file that is not DVC's.

    Raises
    ------
    BadInput
        For what cannot be read, is no YAML, or holds no sections.
    """
    mend = "correct it there" if as_text else "correct it there, or restore it (`git checkout params.yaml`)"
    what = "a map of columns (data/README.md shows one)" if as_text else "sections such as `splits:`"
    try:
        text = path.read_text(encoding="utf-8-sig" if as_text else "utf-8")
        raw = YAML(typ="base" if as_text else "safe", pure=as_text).load(text)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadInput(f"{path}, line {line}: not UTF-8, expected a text file in UTF-8; save it so.") from None
    except OSError as error:
        raise BadInput(f"{path}: not readable ({error.strerror}), expected a file of text; {mend}.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        found = getattr(error, "problem", None) or "a character that YAML does not allow"
        found = found.partition(" with value ")[0]  # of a key that is there twice
        raise BadInput(
            f"{path}{line}: not readable ({found}), expected lines of `key: value`, each key once, indented by spaces; "
            f"look at that line and the one before it, and {mend}."
        ) from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply to be read, expected {what}; {mend}.") from None
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise BadInput(f"{path}: a value that cannot be read ({error}), expected YAML; {mend}.") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: no {'`key: value` in it' if as_text else 'choices found'}, expected {what}; {mend}.")
    if _size(raw, {}) > LARGEST:
        raise BadInput(f"{path}: more than {LARGEST:,} values once its aliases are written out; {mend}.")
    return raw


def write(path: Path, content: dict) -> None:
    """Write what `read` gave, so that it reads the same again."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False  # in braces it folds long keys, which it then cannot read
    yaml.sort_base_mapping_type_on_output = False  # the page tells some of them in their order
    with written_whole(path) as part:
        yaml.dump(content, part)


def _size(value, known: dict[int, float]) -> float:
    """How many values these are with every alias written out; infinite where one holds itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        known[id(value)] = 1 + sum(_size(one, known) for one in (value.values() if isinstance(value, dict) else value))
    return known[id(value)]


EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a section, its keys on the lines below or in braces",
    "finite_number": "a finite number",
    "float_type": "a number, without quotes",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_from_float": "a whole number in digits alone",
    "int_type": "a whole number in digits alone",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "list_type": "a list, such as [a, b]",
    "literal_error": "{expected}",
    "missing": "an entry more",
    "model_type": "a section, its keys on the lines below or in braces",
    "multiple_of": "a multiple of {multiple_of:g}",
    "string_pattern_mismatch": "a name of letters, digits, - and _ only",
    "string_type": "a name, in quotes where it looks like a number",
    "too_long": "no more than {max_length} of them",
    "too_short": "{min_length} of them at least",
    "tuple_type": "two values in brackets",
    "value_error": "{error}",
}  # how a sentence goes on after "expected", by what pydantic has found


def sentence(errors: list[dict], schema, profile: str, changes: dict) -> str:
    """The first thing that is wrong: where, what is there, what belongs there. A key that is misspelt comes first."""
    strange = ("extra_forbidden", "invalid_key")  # a word, a number
    error = next((one for one in errors if one["type"] in strange), errors[0])
    place, kind = tuple(part for part in error["loc"] if part != "[key]"), error["type"]
    if kind in strange or "[key]" in error["loc"]:
        place = (*place[:-1], str(place[-1]))
    where = _dotted(place) + (f" of profile `{profile}`" if _holds(changes, place) else "")
    if kind in strange:
        absent = {one["loc"][-1]: one["loc"] for one in errors if one["type"] == "missing"}
        here = {key: (*place[:-1], key) for key in _keys(schema, place[:-1])}
        if meant := get_close_matches(place[-1], here | absent, n=1):
            return f"{where} is no choice of this study; {_dotted((here | absent)[meant[0]])} may be meant."
        why = " (a number is written with a point: a comma makes such a key)" if kind == "invalid_key" else ""
        return f"{where} is no choice of this study{why}; take it out, or choose from {', '.join(here)}."
    if kind == "missing" and isinstance(place[-1], str):
        return f"{where} is missing; add it (`git show HEAD:params.yaml` shows the file as it came)."
    expected = EXPECTED.get(kind, error["msg"]).format(**error.get("ctx", {}))
    if "[key]" in error["loc"]:
        return f"{where} is not known, expected {expected}; correct it there."
    return f"{where} is {shown(error['input'])}, expected {expected}; correct it there."


def _holds(changes, place: tuple) -> bool:
    """Whether it is the profile that says what is found at `place`."""
    for part in place:
        if not isinstance(changes, dict):
            return True
        if part not in changes:
            return False
        changes = changes[part]
    return True


def _dotted(place: tuple) -> str:
    """`` `scores.compare[1]` ``: entries are counted from one."""
    told = "".join(f"[{part + 1}]" if type(part) is int else f".{part}" for part in place)
    return f"`{told.removeprefix('.')}`"


def _keys(section, place: tuple) -> list[str]:
    """What may stand in the section of a schema that is at `place`."""
    for part in place:
        section = section.model_fields[part].annotation if hasattr(section, "model_fields") else get_args(section)[-1]
    return list(section.model_fields)


def shown(value) -> str:
    """A value as one would write it, cut where it is long."""
    text = "empty" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:80]}…"
