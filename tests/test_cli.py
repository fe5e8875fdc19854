"""The command line on bad input: one sentence, exit code 2, nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack import adapters
from survpack.adapters import bids
from survpack.paths import PARAMS
from survpack.phantom import mets

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A BIDS folder of four patients in which nothing is wrong (too few images for a progress bar)."""
    folder = tmp_path_factory.mktemp("sound")
    mets.generate(folder / "mine", folder / "truth", patients=4, sites=2, spacing_mm=8, seed=1, n_jobs=1)
    return folder / "mine"


@pytest.fixture
def root(tmp_path, sound) -> Path:
    """A root with the choices and one cohort of one's own, `mine`."""
    shutil.copy(PARAMS, tmp_path)
    shutil.copytree(sound, tmp_path / "data" / "raw" / "mine")
    return tmp_path


def survpack(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "SURVPACK_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("SURVPACK_DATA", None)
    return subprocess.run(
        [sys.executable, "-m", "survpack", *arguments], env=environment, cwd=root, capture_output=True, text=True
    )


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if "raw" not in path.parts}


# --- what can be wrong with a cohort; each spoils the folder and returns what the sentence must name


def time_zero(mine: Path) -> list[str]:
    table = read(mine)
    table.loc[2, "time_days"] = "0"
    write(mine, table)
    return ["participants", "sub-003", "time_days", "days > 0", "correct it"]


def missing_column(mine: Path) -> list[str]:
    write(mine, read(mine).drop(columns="event"))
    return [str(mine / "participants.tsv"), "event", "add or rename it"]


def undescribed_covariate(mine: Path) -> list[str]:
    write(mine, read(mine).rename(columns={"karnofsky": "kps"}))
    return [str(mine / "participants.tsv"), "karnofsky", "add or rename it", "kps"]


def event_not_coded(mine: Path) -> list[str]:
    table = read(mine)
    table.loc[1, "event"] = "dead"
    write(mine, table)
    return ["participants", "sub-002", "event", "code it so"]


def patient_twice(mine: Path) -> list[str]:
    table = read(mine)
    write(mine, pd.concat([table, table.iloc[[3]]]))
    return ["participants", "sub-004", "more than once", "one row a patient"]


def mask_on_another_grid(mine: Path) -> list[str]:
    path = bids.image_path(mine, "sub-004", "mask")
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj)[:-1], mask.affine), path)
    return [str(path), "sub-004", "another grid", "resample"]


def mask_shifted(mine: Path) -> list[str]:
    path = bids.image_path(mine, "sub-004", "mask")
    mask = nib.load(path)
    affine = mask.affine.copy()
    affine[0, 3] += 20
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), affine), path)
    return [str(path), "sub-004", "another grid", "resample"]


def empty_mask(mine: Path) -> list[str]:
    path = bids.image_path(mine, "sub-001", "mask")
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(mask.shape, dtype=np.uint8), mask.affine), path)
    return [str(path), "sub-001", "empty mask", "exclude the patient"]


def not_an_image(mine: Path) -> list[str]:
    path = bids.image_path(mine, "sub-001", "mask")
    path.write_bytes(b"no image")
    return [str(path), "sub-001", "convert it"]


def truncated_image(mine: Path) -> list[str]:
    path = bids.image_path(mine, "sub-001", "mask")
    path.write_bytes(path.read_bytes()[:-200])
    return [str(path), "sub-001", "unreadable"]


def read(mine: Path) -> pd.DataFrame:
    return pd.read_csv(mine / "participants.tsv", sep="\t", dtype=str, keep_default_na=False)


def write(mine: Path, table: pd.DataFrame) -> None:
    table.to_csv(mine / "participants.tsv", sep="\t", index=False)


FAULTS = [
    time_zero, missing_column, undescribed_covariate, event_not_coded, patient_twice,
    mask_on_another_grid, mask_shifted, empty_mask, not_an_image, truncated_image,
]  # fmt: skip


def test_a_sound_cohort_passes_and_nothing_is_written(root):
    before = files(root)
    done = survpack(root, "check", "mine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine: 0 errors, 0 warnings\n", "")
    assert files(root) == before


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_check_tells_what_is_wrong_in_one_sentence_with_place_and_remedy(root, fault):
    named = fault(root / "data" / "raw" / "mine")
    before = files(root)
    done = survpack(root, "check", "mine")
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.endswith("warnings")]
    assert len(lines) == 1, lines
    assert lines[0].startswith(("error: ", "survpack: ")) and lines[0].endswith(".")
    for word in named:
        assert word in lines[0], f"{word!r} is not in: {lines[0]}"
    assert files(root) == before


def test_check_takes_a_folder_anywhere_and_names_the_file_there(root, sound, tmp_path):
    elsewhere = tmp_path / "my scans"
    shutil.copytree(sound, elsewhere)
    named = missing_column(elsewhere)
    done = survpack(root, "check", str(elsewhere))
    assert done.returncode == 2 and all(word in done.stderr for word in named)
    assert "Traceback" not in done.stderr


def test_an_unknown_cohort_is_refused_with_those_there_are(root):
    done = survpack(root, "check", "mime")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    for word in ("mime", "mets", "sts", "kits", "mine", str(root / "data" / "raw")):
        assert word in done.stderr


@pytest.mark.parametrize("content", [None, "profil\xe9: smoke".encode("latin-1"), b"x: " + b"[" * 5000])
def test_choices_that_cannot_be_read_are_one_sentence(root, content):
    choices = root / "params.yaml"
    choices.unlink() if content is None else choices.write_bytes(content)
    done = survpack(root, "check", "mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"survpack: {choices}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["run", "99-nothing", "--cohort", "mine"], ["render"]])
def test_what_is_not_there_is_one_sentence(root, arguments):
    (root / "notebooks").mkdir()
    before = files(root)
    done = survpack(root, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("survpack: ") and done.stderr.count("\n") == 1
    assert files(root) == before


def blocks(text: str) -> dict[str, str]:
    """What `fetch` prints of each data set, on one line."""
    return {block.split()[0]: " ".join(block.split()) for block in text.split("\n\n")}


def test_fetch_lists_every_cohort_with_its_source_and_whether_it_is_here(root):
    absent = blocks(survpack(root, "fetch").stdout)
    assert set(adapters.names()) <= set(absent)
    assert "nothing to fetch" in absent["mets"]
    for name in ("sts", "kits", "pretreat-mets", "hecktor2025"):
        assert f"absent: put it at data/raw/{name}" in absent[name] and "https://" in absent[name]
    (root / "data" / "raw" / "sts").mkdir()
    present = blocks(survpack(root, "fetch").stdout)
    assert "present: data/raw/sts" in present["sts"]
    assert present["kits"] == absent["kits"]


def test_no_command_and_a_wrong_command_show_the_commands(root):
    for arguments in ([], ["reprot"]):
        done = survpack(root, *arguments)
        assert done.returncode == 2 and "usage: python -m survpack" in done.stderr and "Traceback" not in done.stderr
    shown = survpack(root, "--help").stdout
    assert all(command in shown for command in ("report", "run", "render", "check", "new", "dicom", "fetch"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_its_targets_and_does_nothing_else():
    command = ["make", "--no-print-directory"]  # which a make within `make test` would print
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    text = (REPOSITORY / "Makefile").read_text()
    targets = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert [line.split()[1] for line in shown.splitlines()] == targets
    assert all(len(line.split()) > 3 for line in shown.splitlines())  # each says what it does
