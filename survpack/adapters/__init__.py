"""Public data sets, and folders of one's own, read into a `Cohort`.

An adapter is a module of facts about what is on disk: `NAME FOLDERS SOURCE SITE LABELS DICTIONARY
OUTCOMES`, `clinical(root)` and `discover(root)`. What the study does with the facts is in params.yaml.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pandas as pd

from survpack import content, paths, phantom
from survpack.adapters.reading import read_table
from survpack.checks import check_scan_days, spelled_alike
from survpack.cohort import OUTCOME, VISITS, Cohort, listed, select
from survpack.errors import BadInput
from survpack.params import Params

ADAPTERS = (
    "sts", "kits", "lumiere",
    "pretreat-mets", "openbtai", "proteas",
    "brats2020", "upenn-gbm", "ucsf-pdgm", "rhuh-gbm",
    "nsclc-radiomics", "nsclc-radiogenomics", "hecktor2022", "hecktor2025", "radcure", "hn1", "kits23",
    "colorectal-liver",
)  # fmt: skip


OWN = {"table": "cohort.yaml", "bids": "participants.tsv"}  # what a folder of one's own must hold, by its adapter


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, how it gets here, and with which others it shares patients."""

    title: str
    url: str
    licence: str
    size: str
    patients: int
    instructions: str
    overlaps: tuple[str, ...] = ()


def names() -> list[str]:
    """Cohorts this study knows by name; a BIDS folder in data/raw is known by its folder's name."""
    return [*phantom.PHANTOMS, *ADAPTERS]


def require_name(name: str) -> None:
    """Raise BadInput for what cannot name a cohort: it is part of commands, of folders and of the page's links."""
    if not paths.NAME.fullmatch(name):
        raise BadInput(
            f"'{_short(name)}' cannot name a cohort, expected up to 64 letters (a to z), digits, - and _, begun by a letter or digit, and "
            "not `study`, such as my-cohort; choose another name, or rename its folder."
        )


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:60]}…"


def find_raw(name: str) -> Path:
    """The folder (or link) that holds the raw data of `name`: in data/raw, else in $SURVPACK_DATA.

    Raises
    ------
    BadInput
        Where there is none, saying what to fetch from where; for a name nobody knows, which there are.
    """
    if name in phantom.PHANTOMS:
        raise BadInput(f"Cohort '{name}' is a phantom and has no raw data: it is made by running the study.")
    adapter = _adapter(name)
    folders = adapter.FOLDERS or (name,)
    if found := _present(folders):
        return found
    source = adapter.SOURCE
    raise BadInput(
        f"No data for cohort '{name}': fetch {source.title} ({source.patients} patients, {source.size}, "
        f"{source.licence}) from {source.url} ({source.instructions}) and put the folder, or a link to it, "
        f"at {paths.RAW / folders[0]}."
    )


def load(name: str, params: Params) -> Cohort:
    """The cohort as the study uses it, not yet validated.

    A phantom is generated first where it is absent or was made with other choices.

    Parameters
    ----------
    name : str
    params : Params
        `cohort[name]` may hold `outcome`, `selection` (step to rule) and a phantom's own choices;
        `cohort["public"]` the selection of public data sets that have none of their own, `cohort["own"]` of folders of
        one's own. A rule may ask
        for any column of the source's table, and for `segmented`: whether all scans have a mask
        (or were measured elsewhere, visit by visit).

    Raises
    ------
    BadInput
        For an unknown name, outcome, choice or rule, for absent data, and for an unreadable table.
    """
    choices = dict(params.cohort.get(name, {}))
    outcome, rules = choices.pop("outcome", None), choices.pop("selection", None)
    own = name not in ADAPTERS and name not in phantom.PHANTOMS
    if rules is None and name not in phantom.PHANTOMS:
        rules = params.cohort.get("own" if own else "public", {}).get("selection")
    adapter = _adapter(name)
    if name in phantom.PHANTOMS:
        root = paths.CohortPaths(name).bids
        phantom.ensure(name, choices, root, paths.CohortPaths(name).truth)
    elif choices:
        raise BadInput(f"params.yaml: cohort.{name} has {', '.join(choices)}, but takes only outcome and selection.")
    else:
        root = find_raw(name)
    images = adapter.discover(root)
    table = _with_outcome(adapter.clinical(root), adapter.OUTCOMES, outcome, name)
    _require_rows(images, table, root)
    visits = adapter.visits(root) if hasattr(adapter, "visits") else pd.DataFrame(columns=VISITS)
    given = _given_split(table, params.splits.given.get(name), root)
    features = adapter.features(root) if hasattr(adapter, "features") else pd.DataFrame(columns=["patient_id"])
    measured = table["patient_id"].isin({*visits["patient_id"], *features["patient_id"]})
    if "segmented" in table:
        raise BadInput(f"{root / adapter.TABLE}: a column is named `segmented`, which this study fills in; rename it.")
    segmented = (
        _segmented(table["patient_id"], images) | measured | table["patient_id"].isna()
    )  # who has no id is told so
    table = table.assign(segmented=segmented)  # for selection only
    if features.empty and not _imaged(adapter, root):
        table["segmented"] = True  # a cohort of charts alone asks for no scan
    chosen, flow = select(table, rules or {}, f"cohort {name}")
    flow = [step | {"own": own} for step in flow]
    if chosen["event"].isin([0, 1]).all():  # where some were unknown, the column was of objects
        chosen["event"] = chosen["event"].astype(bool)
    dictionary, labels = _described(adapter, root)
    overlaps, no_overlap = _shared_with(adapter, root)
    return Cohort(
        name=name,
        participants=chosen[[*OUTCOME, *dictionary]],
        images=images[images["patient_id"].isin(chosen["patient_id"])].reset_index(drop=True),
        dictionary=dictionary,
        labels=labels,
        flow=flow,
        table=str(root / adapter.TABLE),
        notices=check_scan_days(chosen, dictionary, images, str(root / adapter.TABLE)),
        visits=visits[visits["patient_id"].isin(chosen["patient_id"])].reset_index(drop=True),
        features=features[features["patient_id"].isin(chosen["patient_id"])].reset_index(drop=True),
        split=given[given["patient_id"].isin(chosen["patient_id"])].reset_index(drop=True),
        imaged=_imaged(adapter, root),
        overlaps=overlaps,
        no_overlap=no_overlap,
    )


def source(name: str) -> Source:
    """Where a cohort comes from, as the report says it."""
    if name in phantom.PHANTOMS:
        title = import_module(f"survpack.phantom.{name}").TITLE
        return Source(title, f"generated by this study (survpack/phantom/{name}.py)", "as this study", "", 0, "")
    if name in ADAPTERS:
        return _adapter(name).SOURCE
    return Source(f"cohort {name}", f"a folder of one's own, data/raw/{name}", "its owner's", "", 0, "")


def preflight(name: str) -> None:
    """Raise BadInput if `name` is unknown, its data absent, its table unreadable, or nobody measured; reads no image.

    What was measured elsewhere, visit by visit, stands in for the scans.
    """
    require_name(name)
    adapter = _adapter(name)
    if name not in phantom.PHANTOMS:
        root = find_raw(name)
        images = adapter.discover(root)
        adapter.clinical(root)
        _described(adapter, root)
        if images.empty and not hasattr(adapter, "visits") and _imaged(adapter, root):
            raise BadInput(
                f"{root}: no scan of cohort '{name}' found, expected the images its table names; add them "
                f"(`python -m survpack fetch` says how they lie), or look at its table alone: "
                f"`python -m survpack run 01-cohort --cohort {name}`."
            )


def fingerprint(name: str) -> str:
    """SHA-256 of the raw folder (path and content of each file, `content`); "" for a phantom."""
    if name in phantom.PHANTOMS:
        return ""
    return content.of_folder(find_raw(name), paths.CohortPaths(name).remembered / "files.json")


def _adapter(name: str) -> ModuleType:
    if name in ADAPTERS:
        return import_module(f"survpack.adapters.{name.replace('-', '_')}")
    bids = import_module("survpack.adapters.bids")
    if name in phantom.PHANTOMS:
        return bids
    folder = _present([name]) if len(name) < 256 or os.sep in name else None  # a longer one is no file's
    if folder is None:
        own = sorted({path.parent.name for kind in OWN for path in paths.RAW.glob(f"*/{OWN[kind]}")})
        raise BadInput(
            f"Cohort '{_short(name)}' is not known: choose one of {', '.join(names())}, or a folder of your own in "
            f"{paths.RAW} (there now: {', '.join(own) or 'none'}), as data/README.md describes."
        )
    for kind, table in OWN.items():
        if (folder / table).exists():
            return import_module(f"survpack.adapters.{kind}")
    raise BadInput(
        f"{folder}: neither {' nor '.join(OWN.values())} is there, expected a BIDS folder or a table with its column "
        "map; `python -m survpack new NAME` writes an example of either (data/README.md describes both)."
    )


def _present(folders) -> Path | None:
    """The first of `folders` that is there."""
    return next((place / folder for place in places() for folder in folders if (place / folder).is_dir()), None)


def places() -> list[Path]:
    """Folders in which raw data are looked for: data/raw, then $SURVPACK_DATA."""
    elsewhere = os.environ.get("SURVPACK_DATA")
    return [paths.RAW, *([Path(elsewhere)] if elsewhere else [])]


def _described(adapter: ModuleType, root: Path) -> tuple[dict, dict]:
    if hasattr(adapter, "dictionary"):  # a folder of one's own brings its dictionary
        return adapter.dictionary(root), adapter.labels(root)
    return adapter.DICTIONARY, adapter.LABELS


def _shared_with(adapter: ModuleType, root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cohorts that a folder of one's own names as having some of its patients, and none of them."""
    if not hasattr(adapter, "overlaps"):
        return (), ()
    some, none = adapter.overlaps(root)
    if both := sorted(set(some) & set(none)):
        raise BadInput(
            f"{root}: {both[0]} is among those that share patients and those that share none; take it out of one."
        )
    strange = [name for name in (*some, *none) if name not in names() and _present([name]) is None]
    if strange:
        raise BadInput(
            f"{root}: it is said to share patients, or none, with '{strange[0]}', expected the name of a cohort (of your "
            "own, of its folder in data/raw); correct it, or take it out."
        )
    return tuple(some), tuple(none)


def _given_split(table: pd.DataFrame, named: str | None, root: Path) -> pd.DataFrame:
    """Who is in the test set, by the column or the file that `splits.given` names; no row where it names none."""
    from survpack.splits import read_given

    if not named:
        return pd.DataFrame(columns=["patient_id", "split", "fold"])
    if named in table:
        return read_given(table[named], None, table["patient_id"], f"column `{named}`")
    path = root / named
    if not path.is_file():
        raise BadInput(
            f"params.yaml: splits.given names `{named}`, neither a column of the table nor a file in {root}; correct it there "
            f"(columns found: {listed(table.columns, 20)})."
        )
    told = read_table(path, required=["patient_id", "split"])
    twice = told["patient_id"][told["patient_id"].duplicated()]
    if len(twice):
        raise BadInput(f"{path}: patient {twice.iloc[0]} is listed twice, expected one row a patient; keep one.")
    told = table[["patient_id"]].merge(told, on="patient_id", how="left")
    return read_given(told["split"], told.get("fold"), told["patient_id"], str(path))


def _imaged(adapter: ModuleType, root: Path) -> bool:
    """Whether a cohort is to have images; a table of features or of charts alone says that it has none."""
    return adapter.imaged(root) if hasattr(adapter, "imaged") else True


def _with_outcome(table: pd.DataFrame, outcomes: dict, wanted: str | None, name: str) -> pd.DataFrame:
    wanted = wanted or next(iter(outcomes))
    if wanted not in outcomes:
        raise BadInput(f"params.yaml: cohort.{name}.outcome is '{wanted}', but must be one of {', '.join(outcomes)}.")
    time, event = outcomes[wanted]
    return table.assign(time_days=table[time], event=table[event])


def _segmented(patients: pd.Series, images: pd.DataFrame) -> pd.Series:
    """Whether each patient's images all have a mask (False without an image)."""
    has_mask = (images["mask_path"] != "").groupby(images["patient_id"]).all()
    return patients.isin(has_mask.index[has_mask])


def _require_rows(images: pd.DataFrame, table: pd.DataFrame, root: Path) -> None:
    """A scan without a row would vanish uncounted; more often the ids are written in two ways."""
    strangers = images["patient_id"][~images["patient_id"].isin(table["patient_id"])].unique()
    if len(strangers):
        hint = (
            spelled_alike(strangers, table["patient_id"]) or f"ids there are like {', '.join(table['patient_id'][:1])}"
        )
        raise BadInput(
            f"{root}: images of {', '.join(strangers[:5])}, but no such row in the table of patients ({hint}); "
            "write the ids alike, or add the row (n/a where unknown)."
        )
