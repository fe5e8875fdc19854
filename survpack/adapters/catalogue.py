"""What can be studied: the data sets as `python -m survpack fetch` lists them and as data/README.md tabulates them.

`python -m survpack.adapters.catalogue` writes the table into data/README.md, between its two markers.
"""

from __future__ import annotations

import re
from importlib import import_module
from textwrap import wrap

from survpack import adapters, paths, phantom
from survpack.errors import BadInput

WIDTH = 100  # of a terminal
BEGIN, END = "<!-- adapters: begin -->", "<!-- adapters: end -->"
_NAMES, _INDENT = 20, 4  # columns


def catalogue() -> list[str]:
    """Lines for a terminal: a block a data set, with what it is, and where it is or is to be had."""
    blocks = [_phantom(name) for name in phantom.PHANTOMS]
    here = {name: _present(name) for name in adapters.ADAPTERS}
    blocks += [_data_set(name, place) for name, place in here.items()]
    count = sum(place != "" for place in here.values())
    lines = [line for block in blocks for line in [*block, ""]]
    return [*lines, f"{len(here)} public data sets, {count} of them present, and {len(phantom.PHANTOMS)} phantoms."]


def markdown() -> str:
    """The table of data/README.md: one row a cohort, in the order of the catalogue."""
    rows = ["| cohort | what | patients | put it at | from, and how | licence |", "|---|---|---|---|---|---|"]
    for name in phantom.PHANTOMS:
        title = adapters.source(name).title
        rows.append(f"| `{name}` | {title} | as many as asked for | nothing to fetch: generated when needed | – | – |")
    for name in adapters.ADAPTERS:
        source = adapters.source(name)
        shared = f"; shares patients with {_listed(source.overlaps)}" if source.overlaps else ""
        rows.append(
            f"| `{name}` | {source.title}{shared} | {source.patients} | `data/raw/{_folder(name)}` "
            f"| [{source.size}]({source.url}): {source.instructions} | {source.licence} |"
        )
    return "\n".join([*rows, "| your own | see below | | `data/raw/NAME` | | yours |"])


def refreshed(readme: str) -> str:
    """The text of data/README.md with its table as `markdown` gives it now.

    Raises
    ------
    BadInput
        Where the two markers are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BadInput(f"data/README.md: no table between {BEGIN} and {END}; put the two lines back.")
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def _phantom(name: str) -> list[str]:
    return [f"{name:<{_NAMES}}{adapters.source(name).title}", *_block("generated when needed: nothing to fetch")]


def _data_set(name: str, place: str) -> list[str]:
    source = adapters.source(name)
    shared = f", shares patients with {', '.join(source.overlaps)}" if source.overlaps else ""
    lines = wrap(f"{name:<{_NAMES}}{source.title}", WIDTH, subsequent_indent=" " * _NAMES)
    lines += _block(f"{source.patients} patients, {source.size}, {source.licence}{shared}")
    if place:
        return lines + _block(f"present: {place}")
    lines += _block(f"absent: put it at data/raw/{_folder(name)}, from {source.url}")
    return lines + _block(f"take {source.instructions}")


def _block(text: str) -> list[str]:
    """Indented lines; a path, an address or a `command` is never broken, so that it can be copied."""
    margin, kept = " " * _INDENT, re.sub(r"`[^`]+`", lambda command: command[0].replace(" ", "\xa0"), text)
    lines = wrap(kept, WIDTH, initial_indent=margin, subsequent_indent=margin, break_long_words=False,
                 break_on_hyphens=False)  # fmt: skip
    return [line.replace("\xa0", " ") for line in lines]


def _present(name: str) -> str:
    """Where the raw data are, as short as it can be said; "" where they are not."""
    try:
        place = adapters.find_raw(name)
    except BadInput:
        return ""
    return str(place.relative_to(paths.ROOT) if place.is_relative_to(paths.ROOT) else place)


def _folder(name: str) -> str:
    return import_module(f"survpack.adapters.{name.replace('-', '_')}").FOLDERS[0]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    with paths.written_whole(paths.ROOT / "data" / "README.md") as part:
        part.write_text(refreshed((paths.ROOT / "data" / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
