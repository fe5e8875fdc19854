"""What the repository promises about itself: versions, licence, notebooks, pipeline."""

import ast
import configparser
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    found = (PIN.fullmatch(line.strip()) for line in lines if line.strip() and not line.startswith("#"))
    return {canonical(match[1]): match[2] for match in found}


DECLARED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
LOCKED = pins((ROOT / "requirements.lock").read_text().splitlines())


# --- versions


@pytest.mark.parametrize("requirement", DECLARED)
def test_every_requirement_is_an_exact_version_and_the_lock_has_that_version(requirement):
    match = PIN.fullmatch(requirement)
    assert match, f"{requirement} is not an exact version"
    assert LOCKED[canonical(match[1])] == match[2]


def test_the_lock_names_every_package_once():
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert all(PIN.fullmatch(line) for line in lines)
    assert len(lines) == len(LOCKED)


def test_the_lock_is_closed_under_what_its_packages_require():
    from packaging.requirements import Requirement

    for name in LOCKED:
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # not installed on this machine (another platform)
        for requirement in map(Requirement, wanted):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                if canonical(requirement.name).startswith(("nvidia", "triton", "cuda")):
                    continue  # torch's wheel differs between machines
                assert canonical(requirement.name) in LOCKED, f"{name} wants {requirement}"
                assert requirement.specifier.contains(LOCKED[canonical(requirement.name)], prereleases=True), name


def test_what_survpack_and_its_notebooks_import_is_declared():
    sources = [path.read_text() for path in (ROOT / "survpack").rglob("*.py")]
    cells = (cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    sources += [re.sub(r"^[%!].*$", "", cell, flags=re.MULTILINE) for cell in cells]
    imported = {name for source in sources for name in imports(source)} - sys.stdlib_module_names - {"survpack"}
    owners = metadata.packages_distributions()
    declared = {canonical(PIN.fullmatch(line)[1]) for line in PROJECT["dependencies"]}
    # a part of what is declared, at the version it wants
    brought = {"nbformat": "nbconvert", "pillow": "matplotlib", "ipython": "ipykernel", "starlette": "fastapi"}
    optional = {"deepbet"}  # its sentence says how to install it
    for name in sorted(imported - optional):
        own = {canonical(owner) for owner in owners[name]}
        assert own & declared or any(brought.get(one) in declared for one in own), f"{name} ({own}) is not declared"


def imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_conda_installs_the_lock_on_an_allowed_python():
    from packaging.specifiers import SpecifierSet

    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip[0] == "-r requirements.lock"
    python = next(
        re.fullmatch(r"python=+([\d.]+)", entry)[1] for entry in dependencies if str(entry).startswith("python")
    )
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)


def test_every_module_of_survpack_is_in_the_installed_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "survpack").rglob("__init__.py")}
    assert set(listed) == there
    assert metadata.version("survpack") == PROJECT["version"]


# --- the repository


def test_the_licence_is_gpl_3_wherever_it_is_named():
    text = (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in text[:200] and "Version 3, 29 June 2007" in text[:200]
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "GPL-3.0-or-later" and PROJECT["license-files"] == ["LICENSE"]


def test_dvc_sends_nothing_and_asks_nothing():
    config = configparser.ConfigParser()
    config.read_string("\n".join(map(str.strip, (ROOT / ".dvc" / "config").read_text().splitlines())))
    assert config["core"]["analytics"] == "false" and config["core"]["check_update"] == "false"


def test_the_readme_is_short_and_all_it_points_to_is_there():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    made = {"reports/paper.html", "reports/overview.svg"}  # by the study
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert target in made or (ROOT / target).exists(), target
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)\b", text)) <= set(targets)


def test_no_tracked_file_names_a_path_of_one_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    places = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt)/\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.exists() and path.suffix not in (".png", ".html") and path != Path(__file__):
            assert not places.search(path.read_text(encoding="utf-8")), name


# --- notebooks


@cache
def notebook(path: Path):
    return nbformat.read(path, nbformat.NO_CONVERT)


def code(path: Path) -> list:
    return [cell for cell in notebook(path).cells if cell.cell_type == "code"]


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_a_notebook_is_valid_and_committed_without_outputs(path):
    nbformat.validate(notebook(path))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(path))
    assert "papermill" not in notebook(path).metadata


@each_notebook
def test_the_first_code_cell_is_the_parameters_and_holds_nothing_else(path):
    first, *others = code(path)
    assert first.metadata.get("tags") == ["parameters"]
    assert not any("parameters" in cell.metadata.get("tags", []) for cell in others)
    assigned = [node.targets[0].id for node in ast.parse(first.source).body]
    assert assigned == (["cohort", "model"] if path.stem == "03-training" else ["cohort"])


@each_notebook
def test_a_notebook_is_prose_with_short_cells_and_no_function_longer_than_a_plot(path):
    assert len(code(path)) <= 16
    assert notebook(path).cells[0].cell_type == "markdown" and notebook(path).cells[0].source.startswith("# ")
    for cell in code(path):
        lines = cell.source.splitlines()
        assert 0 < len(lines) <= 40
        tree = ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in lines))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 20, node.name
            assert not isinstance(node, ast.ClassDef)


# --- the pipeline


@cache
def stages() -> dict[str, dict]:
    """Every stage for the first cohort and model of params.yaml, its paths written out."""
    found = {}
    for name, stage in STAGES.items():
        text = yaml.safe_dump(stage).replace("${item.cohort}", PARAMS["cohorts"][0])
        found[name] = yaml.safe_load(text.replace("${item.model}", PARAMS["models"][0]))
    return found


def outs(stage: dict) -> list[str]:
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_every_notebook_has_its_stage_and_every_stage_its_notebook():
    run = [re.search(r" run (\S+)", stage["cmd"]) for stage in STAGES.values()]
    assert sorted(match[1] for match in run if match) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("name", STAGES)
def test_every_dependency_is_a_file_here_or_made_by_another_stage(name):
    made = [path for other, stage in stages().items() if other != name for path in outs(stage)]
    for dependency in stages()[name]["deps"]:
        by_a_stage = any(out == dependency or out.startswith(f"{dependency}/") for out in made)
        assert by_a_stage or (ROOT / dependency).exists(), dependency


def test_no_two_stages_write_the_same_place():
    paths = [path for stage in stages().values() for path in outs(stage)]
    assert len(paths) == len(set(paths))
    assert not any(a != b and a.startswith(f"{b}/") for a in paths for b in paths)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_rerun_when_its_notebook_or_the_profile_changes(name):
    stage = stages()[name]
    run = re.search(r" run (\S+)", stage["cmd"])
    if run:
        assert f"notebooks/{run[1]}.ipynb" in stage["deps"]
    if name != "conformance":  # its choices are the benchmark's
        assert {"profile", "profiles"} <= set(stage["params"])
    for param in stage.get("params", []):
        found = PARAMS
        for key in param.split("."):
            found = found[key]


def test_a_stage_that_loops_over_models_is_waited_for_by_those_who_read_all_of_them():
    per_model = {str(Path(path).parent) for path in outs(stages()["train"])}
    assert set(stages()["evaluate"]["deps"]) & per_model and set(stages()["explain"]["deps"]) & per_model


def test_what_python_compiles_is_no_part_of_a_stage():
    """A module imported late would else make every stage that depends on its folder run again."""
    assert "__pycache__" in (ROOT / ".dvcignore").read_text().split()
