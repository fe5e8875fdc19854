"""Running a notebook as a stage: papermill, one sentence for a user's mistake, nothing that changes by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import rmtree

from survpack import params
from survpack.errors import BadInput
from survpack.paths import NOTEBOOKS, ROOT, CohortPaths, written_whole

TOLD = "SURVPACK_TOLD"  # names a file in which a stage leaves its sentence for whoever started the pipeline


def run_notebook(name: str, cohort: str, model: str | None = None) -> Path:
    """Execute notebooks/<name>.ipynb for a cohort (and a model), keep it under reports/notebooks/.

    Timing and progress output are taken out of the kept notebook, so that a rerun without
    changes changes nothing.

    Raises
    ------
    BadInput
        As raised inside the notebook: the sentence, without the traceback.
    """
    import nbformat
    import papermill

    source = NOTEBOOKS / f"{name}.ipynb"
    if not source.exists():
        raise BadInput(
            f"{source}: no such notebook; choose from {', '.join(sorted(p.stem for p in NOTEBOOKS.glob('*.ipynb')))}."
        )
    given = {"cohort": cohort} | ({"model": model} if model else {})
    target = CohortPaths(cohort).executed / f"{name}{'-' + model if model else ''}.ipynb"
    try:
        notebook = papermill.execute_notebook(
            source,
            None,
            parameters=given,
            cwd=ROOT,
            progress_bar=False,
            stderr_file=_Lines(sys.stderr),
            extra_arguments=["--log-level=ERROR"],
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == BadInput.__name__:
            raise BadInput(error.evalue) from None
        raise
    with written_whole(target) as part:
        nbformat.write(without_timing(notebook), part)
    if model:  # a model that the cohort cannot have draws nothing, and DVC asks for the folder all the same
        CohortPaths(cohort).figures(f"training-{model}").mkdir(parents=True, exist_ok=True)
    return target


def without_timing(notebook):
    """Take out what differs from run to run: timing metadata, progress bars, temporary paths."""
    for about in [notebook.metadata, *(cell.metadata for cell in notebook.cells)]:
        about.pop("papermill", None)
        about.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def report(cohorts: list[str] | None, profile: str | None) -> None:
    """The whole study: choose, check that the cohorts are there, run what has changed, say where the page is.

    Raises
    ------
    BadInput
        The sentence of the stage that could not go on.
    """
    from survpack import adapters, models

    for cohort in cohorts or []:
        adapters.preflight(cohort)  # before the choice is written down
    params.choose(cohorts=cohorts, profile=profile)
    chosen = params.load()
    models.require_known(chosen)
    for model in [*chosen.designs.models, chosen.designs.harmonised]:
        models.build(model, chosen)  # refuses a name that does not exist
    for key, named in (("explain.beside", chosen.explain.beside), ("prognosis.model", [chosen.prognosis.model])):
        for model in set(named) - set(chosen.models):
            raise BadInput(
                f"params.yaml: {key} names '{model}', which is not among `models`; add it there, or name one of "
                f"{', '.join(chosen.models)}."
            )
    for cohort in chosen.cohorts:
        adapters.preflight(cohort)
        _forget_changed(cohort, adapters.fingerprint(cohort))
    print(
        f"cohorts: {', '.join(chosen.cohorts)} · profile: {chosen.profile} · models: {len(chosen.models)}", flush=True
    )
    told = ROOT / "data" / "derived" / ".told"
    told.parent.mkdir(parents=True, exist_ok=True)
    told.unlink(missing_ok=True)
    code = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=ROOT, env={**os.environ, TOLD: str(told)}
    ).returncode
    if told.exists():
        sentence = told.read_text(encoding="utf-8")
        told.unlink()
        raise BadInput(sentence)
    if code:
        raise SystemExit(code)
    print(f"report: {(ROOT / 'reports' / 'paper.html').relative_to(ROOT)}")


def _forget_changed(cohort: str, fingerprint: str) -> None:
    """Make DVC read a cohort again whose raw folder is not what it was: it lies outside the pipeline."""
    note = CohortPaths(cohort).source / "source.json"
    if note.exists() and json.loads(note.read_text())["fingerprint"] != fingerprint:
        print(f"{cohort}: the raw data have changed since they were read; reading them again", flush=True)
        rmtree(note.parent)


def tell(error: BadInput) -> None:
    """Print a user's mistake as one sentence; a stage leaves it to `report`, whose last line it is then."""
    if os.environ.get(TOLD):
        Path(os.environ[TOLD]).write_text(str(error), encoding="utf-8")
    else:
        print(f"survpack: {error}", file=sys.stderr)


class _Lines:
    """A stream on which progress bars stay readable in a log: a line an update unless on a terminal."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> None:
        if not self.stream.isatty():
            lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
            text = "".join(f"{line}\n" for line in lines if not line.startswith("[IPKernelApp]"))
        self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()
