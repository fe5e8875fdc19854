"""Stages as files: a rerun changes no byte, a mistake leaves nothing behind, and the whole study runs."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill import PapermillExecutionError

from survpack import machine, paths, pipeline
from survpack.errors import BadInput
from survpack.phantom import mets

REPOSITORY = Path(__file__).resolve().parent.parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
FEW = ["age", "clinical-cox", "texture-coxnet", "hybrid-efficientnet-mse", "hybrid-gated-cox", "late-fusion",
       "control-noise-voxels"]  # fmt: skip
TIMED = (
    "evaluation/models.",
    "/curves.csv",
    "04-cross-validation.ipynb",
    "paper.html",
    "dvc.lock",
)  # these tell seconds
SCORES = {"harrell_c", "uno_c", "auc", "ibs", "ici", "mae_days", "r2"}


# --- one notebook


@pytest.fixture
def study_root(tmp_path, monkeypatch):
    """A root of its own for `run_notebook`, within this process."""
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def write_notebook(root: Path, name: str, *cells: str) -> None:
    first = nbformat.v4.new_code_cell('cohort = "none"\nmodel = "none"', metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = KERNEL
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def timing(notebook) -> list[str]:
    places = [notebook.metadata, *(cell.metadata for cell in notebook.cells)]
    found = [key for place in places for key in ("papermill", "execution") if key in place]
    return found + [output.name for cell in notebook.cells for output in cell.get("outputs", []) if "name" in output]


def test_a_notebook_run_twice_is_the_same_file_with_its_parameters_and_without_its_timing(study_root, capfd):
    progress = "import sys, time\nprint('started', time.time(), file=sys.stderr)\nprint(cohort, model)"
    write_notebook(study_root, "01-toy", progress, "import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    target = pipeline.run_notebook("01-toy", "mets", "age")
    first = target.read_bytes()
    assert target == study_root / "reports" / "notebooks" / "mets" / "01-toy-age.ipynb"
    assert "started" in capfd.readouterr().err  # whoever waits sees it; the kept notebook does not
    assert pipeline.run_notebook("01-toy", "mets", "age").read_bytes() == first
    kept = nbformat.reads(first.decode(), 4)
    nbformat.validate(kept)
    assert timing(kept) == ["stdout"]
    assert kept.cells[2].outputs[0].text == "mets age\n"
    assert [path.name for path in target.parent.iterdir()] == ["01-toy-age.ipynb"]


def test_a_model_that_draws_nothing_leaves_the_folder_that_its_stage_promises(study_root):
    """DVC ends where an output is missing; a model that a cohort of masks cannot have has no figure."""
    write_notebook(study_root, "03-toy", "print('nothing to draw')")
    pipeline.run_notebook("03-toy", "kits", "texture-coxnet")
    assert (study_root / "reports" / "figures" / "kits" / "training-texture-coxnet").is_dir()


def test_a_mistake_found_in_a_notebook_is_the_sentence_alone_and_leaves_no_file(study_root):
    sentence = "scan.nii.gz, patient p1: no mask, expected one; draw it."
    write_notebook(study_root, "01-toy", f"from survpack.errors import BadInput\nraise BadInput({sentence!r})")
    with pytest.raises(BadInput) as error:
        pipeline.run_notebook("01-toy", "mets")
    assert str(error.value) == sentence
    assert not [path for path in (study_root / "reports").rglob("*") if path.is_file()]


def test_a_full_disk_in_a_notebook_is_a_sentence_and_a_mistake_in_its_code_keeps_its_traceback(study_root):
    write_notebook(study_root, "01-toy", "raise OSError(28, 'No space left on device', '/somewhere/crops.npy')")
    with pytest.raises(BadInput, match="^/somewhere/crops.npy: no room left on the disk"):
        pipeline.run_notebook("01-toy", "mets")
    write_notebook(study_root, "01-toy", "None.no_such_thing")
    with pytest.raises(PapermillExecutionError, match="no_such_thing"):
        pipeline.run_notebook("01-toy", "mets")


def test_a_notebook_that_is_not_there_is_refused_with_those_that_are(study_root):
    write_notebook(study_root, "01-toy")
    with pytest.raises(BadInput, match="99-none.*01-toy"):
        pipeline.run_notebook("99-none", "mets")


def test_without_timing_takes_out_what_differs_and_keeps_what_was_found():
    output = {"output_type": "stream", "name": "stdout", "text": "0.68"}
    progress = {"output_type": "stream", "name": "stderr", "text": "50 %"}
    cell = nbformat.v4.new_code_cell(
        "score()",
        metadata={"papermill": {"duration": 1.5}, "execution": {"iopub.status.busy": "now"}, "tags": ["parameters"]},
        outputs=[nbformat.from_dict(output), nbformat.from_dict(progress)],
        execution_count=3,
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), cell])
    notebook.metadata = nbformat.from_dict({"papermill": {"start_time": "now"}, "widgets": {}, "kernelspec": KERNEL})
    found = pipeline.without_timing(notebook)
    nbformat.validate(found)
    assert found.metadata == {"kernelspec": KERNEL}
    assert found.cells[1].metadata == {"tags": ["parameters"]}
    assert found.cells[1].outputs == [output] and found.cells[1].execution_count == 3
    assert [one.source for one in found.cells] == ["# Title", "score()"]
    assert len({one.id for one in found.cells}) == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


BAR = "\rfits:  50%|##  | 1/2\rfits: 100%|####| 2/2\n[IPKernelApp] WARNING | no encryption\ndone\n"


def test_off_a_terminal_a_progress_bar_is_a_line_an_update():
    stream = io.StringIO()
    lines = pipeline._Lines(stream)
    lines.write(BAR)
    lines.write("\r")
    lines.flush()
    assert stream.getvalue() == "fits:  50%|##  | 1/2\nfits: 100%|####| 2/2\ndone\n"


def test_on_a_terminal_a_progress_bar_is_left_alone():
    stream = Terminal()
    pipeline._Lines(stream).write(BAR)
    assert stream.getvalue() == BAR


# --- the whole study, in a copy of the repository


class Copy:
    """The repository's files in a folder of their own, under git, run by their own code."""

    def __init__(self, root: Path):
        self.root = root
        for name in git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
            source = REPOSITORY / name
            if source.is_file() and not made_by_the_study(name):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, root / name)
        git(root, "init", "--quiet")

    def run(self, *command: str, timeout: float = 3600) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(self.root), machine.KERNELS: "own"}  # threads as the suite has
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        for name in ("SURVPACK_ROOT", "SURVPACK_DATA", pipeline.TOLD):
            environment.pop(name, None)
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=timeout)

    def survpack(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "survpack", *arguments)

    def written(self) -> dict[str, bytes]:
        """What a reader of the study may open."""
        found = [self.root / "dvc.lock", self.root / "_variables.yml", *(self.root / "reports").rglob("*")]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found if path.is_file()}


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def made_by_the_study(name: str) -> bool:
    return name in ("dvc.lock", "reports/paper.html", "reports/overview.svg") or name.startswith("reports/metrics/")


in_a_copy = pytest.mark.skipif(
    shutil.which("git") is None or not (REPOSITORY / ".git").exists(), reason="git, or its repository, is not here"
)


def halves(root: Path) -> list[Path]:
    """Files and folders that were begun and not finished, or that a failed stage must not leave."""
    begun = [path for path in root.rglob("*.part") if "site-packages" not in path.parts]
    begun += [path for path in (root / "reports" / "metrics").rglob("*") if path.is_file()]
    return begun + list((root / "data" / "derived").glob("*/cohort"))


@pytest.fixture
def copy(tmp_path) -> Copy:
    """The repository with a small cohort of one's own, `mine`."""
    made = Copy(tmp_path / "study")
    mine = made.root / "data" / "raw" / "mine"
    mets.generate(mine, tmp_path / "truth", patients=4, sites=2, spacing_mm=8, seed=1, n_jobs=1)
    return made


@in_a_copy
def test_report_refuses_what_it_can_before_it_starts_and_leaves_the_choices_alone(copy):
    before = (copy.root / "params.yaml").read_bytes()
    table = copy.root / "data" / "raw" / "mine" / "participants.tsv"
    table.write_text(table.read_text().replace("\tevent\t", "\tdied\t"))
    wishes = {
        ("--cohorts", "mime"): ["'mime'", "mets, chest, sts, kits", "mine"],
        ("--profile", "fast"): ["'fast'", "default, smoke, full", "params.yaml"],
        ("--cohorts", "mets mine"): [str(table), "no column event", "died"],
    }
    for arguments, named in wishes.items():
        done = copy.survpack("report", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("survpack: ") and done.stderr.count("\n") == 1
        assert all(word in done.stderr for word in named), done.stderr
        assert (copy.root / "params.yaml").read_bytes() == before
        assert not halves(copy.root)


@in_a_copy
@pytest.mark.slow
def test_report_ends_a_stage_that_cannot_go_on_with_the_sentence_last_and_nothing_half_written(copy):
    table = copy.root / "data" / "raw" / "mine" / "participants.tsv"
    lines = table.read_text().splitlines()
    cells = lines[2].split("\t")
    cells[2] = "0"
    table.write_text("\n".join([*lines[:2], "\t".join(cells), *lines[3:], ""]))
    done = copy.survpack("report", "--cohorts", "mine", "--profile", "smoke")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("survpack: ") and last.endswith(".")
    for word in ("participants", "sub-002", "`time_days` is 0", "days > 0", "correct it"):
        assert word in last, last
    assert done.stderr.count("time_days") == 2  # the sentence is told once; it names the column and the rule
    assert "Traceback" not in done.stderr + done.stdout
    assert not halves(copy.root)
    assert not (copy.root / "data" / "derived" / ".told").exists()


@in_a_copy
@pytest.mark.slow("first")
def test_the_whole_study_runs_from_an_empty_folder_and_again_without_changing_a_byte(tmp_path):
    copy = Copy(tmp_path / "study")
    where = copy.run(sys.executable, "-c", "import survpack.paths; print(survpack.__file__, survpack.paths.ROOT)")
    assert where.stdout.split() == [str(copy.root / "survpack" / "__init__.py"), str(copy.root)]

    choices = copy.root / "params.yaml"
    listed = re.sub(r"(?<=\nmodels:\n)(  - .*\n)+", "".join(f"  - {name}\n" for name in FEW), choices.read_text())
    listed = re.sub(
        r"hybrid-additive-cox(?=\]? +# (networks that|a network$))", "hybrid-gated-cox", listed, flags=re.MULTILINE
    )
    listed = re.sub(r"(?<=\nexplain:\n  model: )\S+", "hybrid-gated-cox", listed)
    listed = re.sub(r"(?<=\n  beside: )\[.*?\]", "[]", listed)
    listed = listed.replace("\nprofile: default ", "\nprofile: smoke ")  # what `report` is asked for, and `dvc` is not
    choices.write_text(listed)  # a stage a model: all of them would take CI's twenty minutes
    done = copy.survpack("report", "--cohorts", "mets", "--profile", "smoke")
    assert choices.read_text() == listed
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    first = copy.written()
    models = yaml.safe_load(choices.read_text())["models"]
    assert models == FEW
    check_page(copy.root / "reports" / "paper.html")
    check_scores(json.loads(first["reports/metrics/mets.json"]), models)
    check_notebooks(copy.root, models)
    assert not list(copy.root.rglob("*.part")) and not list((copy.root / "data" / "derived").glob("*/fits/*"))

    start = time.monotonic()
    again = copy.run(sys.executable, "-m", "dvc", "repro")
    assert time.monotonic() - start < 10
    assert again.returncode == 0 and "up to date" in again.stdout and "Running stage" not in again.stdout
    assert copy.survpack("report", "--cohorts", "mets", "--profile", "smoke").returncode == 0
    same(copy.written(), first)

    # made anew, not only left alone: the predictions of one network, the scores, the page
    stages = ["train@mets-hybrid-gated-cox", "train@mets-late-fusion", "evaluate@mets", "paper"]
    forced = copy.run(sys.executable, "-m", "dvc", "repro", "--force", "--single-item", *stages)
    assert forced.returncode == 0, forced.stderr[-3000:]
    assert forced.stdout.count("Running stage") == len(stages)
    same(untimed(copy.written()), untimed(first))


def untimed(written: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in written.items() if not any(part in name for part in TIMED)}


def same(now: dict[str, bytes], before: dict[str, bytes]) -> None:
    assert set(now) == set(before)
    assert [name for name in now if now[name] != before[name]] == []


def check_page(page: Path) -> None:
    """One file that works without a network: what it shows is inside it."""
    html = page.read_text(encoding="utf-8")
    assert "<h1" in html and "mets" in html
    assert "<figure" in html and "data:image/" in html
    loaded = re.findall(r"<(?:img|script|iframe|source)\b[^>]*\bsrc=[\"']([^\"']{1,60})", html)
    loaded += re.findall(r"<link\b[^>]*\bhref=[\"']([^\"']{1,60})", html)
    assert loaded and all(source.startswith("data:") for source in loaded)
    assert not re.findall(r"@import|url\((?![\"']?(?:data:|#|%23))", html)
    assert "{{<" not in html and not re.search(r"\bnan\b", re.sub(r"<[^>]*>", " ", html), re.IGNORECASE)


def check_scores(found: dict, models: list[str]) -> None:
    assert set(found) == {"cv", "test"}
    for split in found.values():
        assert list(split) == models
        for one in split.values():
            assert set(one) >= SCORES
            assert all({"estimate", "low", "high"} <= set(interval) for interval in one.values())
            assert 0 <= one["harrell_c"]["estimate"] <= 1


def check_notebooks(root: Path, models: list[str]) -> None:
    executed = sorted((root / "reports" / "notebooks" / "mets").glob("*.ipynb"))
    stages = [path.stem for path in (root / "notebooks").glob("*.ipynb") if path.stem != "03-training"]
    assert {path.stem for path in executed} == {*stages, *(f"03-training-{model}" for model in models)}
    for path in executed:
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert set(timing(notebook)) <= {"stdout"}
        assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
        assert str(root) not in path.read_text(encoding="utf-8"), f"{path.name} names a folder of this machine"


# --- raw data that change


def test_a_cohort_is_read_again_where_its_raw_folder_changed_and_only_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "DERIVED", tmp_path)
    note = paths.CohortPaths("sts").source / "source.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"cohort": "sts", "fingerprint": "as read"}))

    pipeline._forget_changed("sts", "as read")
    assert note.exists() and not capsys.readouterr().out

    pipeline._forget_changed("sts", "another")
    assert not note.exists() and "sts: the raw data have changed" in capsys.readouterr().out
