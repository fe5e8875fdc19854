"""Running the study, and a notebook as a stage: papermill under DVC, one sentence for what is no fault of the code.

One run at a time in a folder: it holds a lock that the system takes back when the run ends, however it ends. What a
run was asked for is in a copy of params.yaml, which DVC and the stages read in its place; so an edit of the file while
a run is at work is for the next run. A run that is killed leaves no process, and nothing that stops the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from shutil import rmtree

from survpack import faults, params, paths, repro
from survpack.errors import BadInput
from survpack.paths import NOTEBOOKS, ROOT, CohortPaths, written_whole
from survpack.processes import OWNER

OURS = ROOT / ".dvc" / "tmp"  # what a run keeps for itself lies beside what DVC keeps
TOLD = "SURVPACK_TOLD"  # names a file in which a stage leaves its sentence for whoever started the pipeline
KERNEL = "from survpack.processes import end_with; end_with({})"
TRAINING = "03-training"

# jsonschema, which nbformat imports, builds a grammar of internet addresses for a second where it finds this
sys.modules.setdefault("rfc3987_syntax", None)


def run_notebook(name: str, cohort: str, model: str | None = None) -> Path:
    """Execute notebooks/<name>.ipynb for a cohort (and a model), keep it under reports/notebooks/.

    Timing and progress output are taken out of the kept notebook, so that a rerun without
    changes changes nothing.

    Raises
    ------
    BadInput
        As raised inside the notebook, or for a fault that is not the notebook's: the sentence, without the traceback.
    """
    source = NOTEBOOKS / f"{name}.ipynb"
    if not source.exists():
        raise BadInput(
            f"{source}: no such notebook; choose from {', '.join(sorted(p.stem for p in NOTEBOOKS.glob('*.ipynb')))}."
        )
    given = {"cohort": cohort} | ({"model": model} if model else {})
    target = CohortPaths(cohort).executed / f"{name}{'-' + model if model else ''}.ipynb"
    if name == TRAINING and without_fit(cohort, model):
        return target
    import papermill

    try:
        notebook = papermill.execute_notebook(
            source,
            None,
            parameters=given,
            cwd=ROOT,
            progress_bar=False,
            stderr_file=_Lines(sys.stderr),
            extra_arguments=["--log-level=ERROR", f"--IPKernelApp.exec_lines={KERNEL.format(os.getpid())}"],
        )
    except papermill.PapermillExecutionError as error:
        if sentence := faults.sentence(error.ename, error.evalue):
            raise BadInput(sentence) from None
        raise
    if model:  # one that the cohort cannot have draws nothing, and DVC asks for the folder all the same
        CohortPaths(cohort).figures(f"training-{model}").mkdir(parents=True, exist_ok=True)
    return _kept(notebook, target)


def without_fit(cohort: str, model: str) -> bool:
    """Whether a model cannot be fitted; all that its stage promises is then written, and no kernel is needed.

    Asked of cohorts without images only, which can have few of the models: it takes as long as a small fit.
    """
    own = CohortPaths(cohort)
    crops = own.crops / "crops.json"
    if not crops.exists() or json.loads(crops.read_text())["modalities"]:
        return False
    import nbformat

    from survpack.models import lacking
    from survpack.study import Study, fit_all

    study = Study.open(cohort)
    reason = lacking(model, study.patients)
    if reason:
        fit_all(study, model)
        own.figures(f"training-{model}").mkdir(parents=True, exist_ok=True)
        said = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"Not fitted: {reason}.")])
        _kept(said, own.executed / f"{TRAINING}-{model}.ipynb")
    return bool(reason)


def _kept(notebook, target: Path) -> Path:
    import nbformat

    with written_whole(target) as part:
        nbformat.write(without_timing(notebook), part)
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

    Parameters
    ----------
    cohorts, profile
        Of this run; those of params.yaml where they are not given.

    Raises
    ------
    BadInput
        Where another run is at work in this folder; the sentence of the stage that could not go on.
    """
    from survpack import adapters, models

    with only_run() as lock:
        told, choices = OURS / "survpack.told", OURS / "survpack.params.yaml"
        chosen = params.for_one_run(choices, cohorts=cohorts, profile=profile)
        models.require_known(chosen)
        for cohort in chosen.cohorts:
            adapters.preflight(cohort)
            _forget_changed(cohort, adapters.fingerprint(cohort))
        print(
            f"cohorts: {', '.join(chosen.cohorts)} · profile: {chosen.profile} · models: {len(chosen.models)}",
            flush=True,
        )
        told.unlink(missing_ok=True)
        repro.require_whole(ROOT / "dvc.lock")
        repro.forget_dead(OURS / "rwlock")
        code = subprocess.run(
            [sys.executable, "-m", "survpack.repro"],
            cwd=ROOT,
            env={**os.environ, TOLD: str(told), paths.CHOSEN: str(choices), OWNER: str(os.getpid())},
            pass_fds=[lock],  # held until DVC has ended too
        ).returncode
        if told.exists():
            sentence = told.read_text(encoding="utf-8")
            told.unlink()
            raise BadInput(sentence)
        if code:
            raise SystemExit(code)
        for cohort in chosen.cohorts:
            facts = CohortPaths(cohort).facts("comparisons")
            told = json.loads(facts.read_text(encoding="utf-8")).get("left_out") if facts.exists() else None
            if told:
                print(f"{cohort}: {models.left_out_text(told)}")
        print(f"report: {(ROOT / 'reports' / 'paper.html').relative_to(ROOT)}")


@contextmanager
def only_run():
    """Hold the lock of this folder, of which a file descriptor is given.

    Raises
    ------
    BadInput
        Where another run holds it: which process, and since when.
    """
    OURS.mkdir(parents=True, exist_ok=True)
    with open(OURS / "survpack.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BadInput(
                f"another run is at work in this folder ({file.read() or 'it has just begun'}), expected one at a time; "
                "wait until it has ended, or stop it, and run this again."
            ) from None
        except OSError:
            pass  # a file system without locks
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {datetime.now():%H:%M on %d %B}")
        file.flush()
        yield file.fileno()


def _forget_changed(cohort: str, fingerprint: str) -> None:
    """Make DVC read a cohort again whose raw folder is not what it was: it lies outside the pipeline."""
    note = CohortPaths(cohort).source / "source.json"
    try:
        if json.loads(note.read_text())["fingerprint"] == fingerprint:
            return
        why = "the raw data have changed since they were read"
    except FileNotFoundError:
        return
    except (OSError, ValueError, LookupError, TypeError):
        why = f"{note.name}, which tells when they were read, is damaged"
        faults.distrust(note)
    print(f"{cohort}: {why}; reading them again", flush=True)
    rmtree(note.parent)


def tell(sentence: str) -> None:
    """Print what is wrong; a stage leaves it to `report`, whose last line it is then."""
    try:
        with written_whole(Path(os.environ[TOLD])) as part:
            part.write_text(sentence, encoding="utf-8")
    except (KeyError, OSError):  # nobody waits for it, or there is no room for it
        print(f"survpack: {sentence}", file=sys.stderr)


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
