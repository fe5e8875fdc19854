"""Where things lie. Every path of the study is made here, relative to the repository root."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from survpack.errors import BadInput

ROOT = Path(os.environ.get("SURVPACK_ROOT", Path(__file__).resolve().parent.parent))
RAW = ROOT / "data" / "raw"
DERIVED = ROOT / "data" / "derived"
REPORTS = ROOT / "reports"
METRICS = REPORTS / "metrics"
NOTEBOOKS = ROOT / "notebooks"
CHOSEN = "SURVPACK_PARAMS"  # names the copy of params.yaml that a run and its stages read in its place
PARAMS = Path(os.environ.get(CHOSEN, ROOT / "params.yaml"))
NAME = re.compile(r"(?!study$)[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of a cohort: in commands, folders, links of the page


@dataclass(frozen=True)
class CohortPaths:
    """What the pipeline writes for one cohort."""

    name: str

    @property
    def derived(self) -> Path:
        return DERIVED / self.name

    @property
    def source(self) -> Path:
        """Where the cohort came from; for a phantom, the cohort itself and its truth."""
        return self.derived / "source"

    @property
    def bids(self) -> Path:
        """The phantom's BIDS folder, read back like a user's own."""
        return self.source / "bids"

    @property
    def truth(self) -> Path:
        """The phantom's hazard; no model may read it."""
        return self.source / "truth.parquet"

    @property
    def cohort(self) -> Path:
        return self.derived / "cohort"

    @property
    def settings(self) -> Path:
        """What `auto` in params.yaml stands for in this cohort."""
        return self.derived / "settings.json"

    @property
    def biomarkers(self) -> Path:
        """A folder: what is measured on the scans, its controls and its robustness."""
        return self.derived / "biomarkers"

    @property
    def remembered(self) -> Path:
        """What was measured before, by content; may be deleted at any time."""
        return self.derived / "remembered"

    @property
    def crops(self) -> Path:
        return self.derived / "crops"

    @property
    def executed(self) -> Path:
        return REPORTS / "notebooks" / self.name

    def figures(self, stage: str) -> Path:
        return REPORTS / "figures" / self.name / stage

    def tables(self, stage: str) -> Path:
        return REPORTS / "tables" / self.name / stage

    @property
    def metrics(self) -> Path:
        return METRICS / f"{self.name}.json"

    def facts(self, about: str) -> Path:
        """`cohort-`, `univariate-` or `comparisons-<name>.json`."""
        return METRICS / f"{about}-{self.name}.json"

    def predictions(self, model: str) -> Path:
        return self.derived / "predictions" / f"{model}.parquet"

    def model(self, model: str) -> Path:
        """Weights and learning curves of a finished model."""
        return self.derived / "models" / model

    @property
    def bundle(self) -> Path:
        """What is given to others: weights and all that is needed around them."""
        return self.derived / "bundle"

    @property
    def cards(self) -> Path:
        """A page a patient."""
        return REPORTS / "cards" / self.name

    def fits(self, model: str) -> Path:
        """Finished fits of a model that is still being trained; gone when it is done."""
        return self.derived / "fits" / model


def below(parent: Path, *names: str) -> Path:
    """The path of `names` in `parent`, each a folder further down.

    Raises
    ------
    BadInput
        For a name that stays in its parent folder or leaves it: what is written whole would replace what lies there.
    """
    for name in names:
        place = Path(os.path.normpath(parent / name))
        if Path(os.path.normpath(parent)) not in place.parents:
            raise BadInput(
                f"{parent}: a folder there cannot be called '{name}', expected a name that stays within; choose another."
            )
        parent = place
    return parent


@contextmanager
def written_whole(target: Path):
    """Give a temporary path beside `target`; rename it into place only if the block succeeds."""
    target = Path(target)
    if target.name in ("", ".."):  # a parent folder, whose content would go
        raise BadInput(
            f"{target}: not the name of a file or folder, expected one that can be replaced; choose another."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _remove(part)
    try:
        yield part
    except BaseException:
        _remove(part)
        raise
    if part.is_dir():  # a folder cannot be renamed onto a folder that has content
        _remove(target)
    part.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)
