"""A study of two stages that takes seconds, in a folder of its own, run as `make report` runs the real one."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
DVC_YAML = f"""\
vars: [{{python: {sys.executable} -m survpack}}]
stages:
  squares:
    matrix: {{cohort: "${{cohorts}}"}}
    cmd: ${{python}} run 01-toy --cohort ${{item.cohort}}
    deps: [notebooks/01-toy.ipynb]
    params: [splits, profile, profiles]
    outs: ["data/derived/${{item.cohort}}/source", "reports/notebooks/${{item.cohort}}/01-toy.ipynb"]
  sum:
    matrix: {{cohort: "${{cohorts}}"}}
    cmd: cp data/derived/${{item.cohort}}/source/squares.json reports/${{item.cohort}}.json
    deps: ["data/derived/${{item.cohort}}/source"]
    params: [cohorts]
    outs: ["reports/${{item.cohort}}.json"]
"""
WORK = """\
import json
from joblib import delayed
from survpack import params, paths
from survpack.processes import workers

def square(number):
    import time
    time.sleep({seconds})
    return number**2

found = {{"squares": workers(2)(delayed(square)(number) for number in range(4)), "folds": params.load().splits.folds}}
with paths.written_whole(paths.DERIVED / cohort / "source") as part:
    part.mkdir()
    (part / "squares.json").write_text(json.dumps(found))
    (part / "source.json").write_text(json.dumps({{"cohort": cohort, "fingerprint": ""}}))
"""


class Toy:
    """`squares` on two workers of a notebook's kernel, and a copy of what it wrote."""

    def __init__(self, root: Path, seconds: float = 0.1):
        self.root = root
        (root / "notebooks").mkdir(parents=True)
        (root / "reports").mkdir()
        shutil.copy(REPOSITORY / "params.yaml", root)
        (root / ".dvc").mkdir()
        shutil.copy(REPOSITORY / ".dvc" / "config", root / ".dvc")
        (root / "Makefile").write_text((REPOSITORY / "Makefile").read_text().replace("report: $(READY)", "report:"))
        (root / ".venv").symlink_to(sys.prefix)
        (root / "dvc.yaml").write_text(DVC_YAML)
        first = nbformat.v4.new_code_cell('cohort = "none"', metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(WORK.format(seconds=seconds))])
        notebook.metadata["kernelspec"] = KERNEL
        nbformat.write(notebook, root / "notebooks" / "01-toy.ipynb")
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)

    def copy(self, root: Path) -> "Toy":
        """The same study, as it is now, in another folder."""
        shutil.copytree(self.root, root, symlinks=True)
        made = object.__new__(Toy)
        made.root = root
        return made

    def environment(self, **more: str) -> dict[str, str]:
        """As a user's: nothing of `make test`, of a stage, or of this process's own study."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SURVPACK_", "DVC_", "MAKE"))}
        return {**own, "SURVPACK_ROOT": str(self.root), "PYTHONPATH": str(REPOSITORY), **more}

    def start(self, *command: str, **options) -> subprocess.Popen:
        """A command that is left to itself, in a group of its own."""
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), text=True, start_new_session=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        )  # fmt: skip

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, timeout=300
        )

    def report(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "survpack", "report", *arguments)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def processes(self) -> list[psutil.Process]:
        """Whoever works for this study, found by the environment that all of them inherit."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SURVPACK_ROOT") == str(self.root) and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def wait_for(self, words: str, seconds: float = 60) -> psutil.Process:
        """The process of this study whose command line has these words, once it is there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for process in self.processes():
                if words in command(process):
                    return process
            time.sleep(0.1)
        raise TimeoutError(words)

    def written(self) -> dict[str, bytes]:
        places = [self.root / "data" / "derived", self.root / "reports"]
        found = [path for place in places for path in place.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found if path.name != ".gitignore"}


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""
