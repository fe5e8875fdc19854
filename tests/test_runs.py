"""Runs: one at a time, with choices of their own, killed at any moment; what is broken is told in one sentence."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dvc.utils.serialize import load_yaml
from toy_study import Toy, command

from survpack import faults, paths, pipeline, processes, repro
from survpack.errors import BadInput

KILLS = int(os.environ.get("SURVPACK_KILLS", "2"))  # `SURVPACK_KILLS=20 pytest -k killed_at -s` shows each
CTRL_C = "all, by Ctrl-C"
LINKS = {
    "make": "make report",
    "report": "-m survpack report",
    "DVC": "-m survpack.repro",
    "stage": "-m survpack run",
    "kernel": "ipykernel_launcher",
    "worker": "popen_loky_posix",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("finished") / "study")
    assert toy.report().returncode == 0
    return toy


@pytest.fixture
def toy(finished, tmp_path) -> Toy:
    """A study of one's own that has been run."""
    return finished.copy(tmp_path / "study")


# --- one run at a time, and whose params.yaml is whose


def test_a_second_run_is_told_who_is_at_work_and_the_first_is_unharmed_even_by_an_edit(tmp_path):
    """What is edited while a run is at work is for the next: else a stage would be run with one value and written down
    with another."""
    toy = Toy(tmp_path / "study", seconds=1)
    choices = toy.root / "params.yaml"
    first = toy.start(sys.executable, "-m", "survpack", "report", "--profile", "smoke")
    toy.wait_for(LINKS["stage"])
    second = toy.report("--cohorts", "chest", "--profile", "full")
    assert second.returncode == 2 and second.stdout == ""
    told = second.stderr
    assert told.startswith("survpack: another run is at work in this folder (process ") and told.count("\n") == 1
    assert f"process {first.pid}, since " in told and told.endswith("run this again.\n")
    edited = choices.read_text().replace("splits: {folds: 2}", "splits: {folds: 3}")
    choices.write_text(edited)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0 and "profile: smoke" in out, err
    assert json.loads(toy.written()["reports/mets.json"]) == {"squares": [0, 1, 4, 9], "folds": 2}
    assert choices.read_text() == edited
    assert not (toy.root / "reports" / "chest.json").exists()
    assert "profiles" in toy.dvc("status").stdout


def test_a_choice_repeats_no_stage_by_which_way_it_is_given_and_leaves_the_file_to_its_owner(toy):
    """`make report PROFILE=…`, the same in params.yaml, and `dvc repro` by hand are one and the same to DVC."""
    choices = toy.root / "params.yaml"
    own, before = choices.read_text(), load_yaml(toy.root / "dvc.lock")
    assert toy.report("--profile", "smoke").returncode == 0
    assert json.loads(toy.written()["reports/mets.json"])["folds"] == 2
    locked = (toy.root / "dvc.lock").read_bytes()
    choices.write_text(own.replace("profile: default ", "profile: smoke "))
    again = toy.dvc("repro")
    assert again.returncode == 0 and "up to date" in again.stdout and "Running stage" not in again.stdout
    assert (toy.root / "dvc.lock").read_bytes() == locked

    choices.write_text(own)  # which says `default`: another choice, whose results are in the cache
    back = toy.dvc("repro")
    assert back.returncode == 0 and "Running stage" not in back.stdout
    assert json.loads(toy.written()["reports/mets.json"])["folds"] == 5
    assert load_yaml(toy.root / "dvc.lock") == before and choices.read_text() == own


# --- runs that are killed


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_no_worker_and_the_next_ends_in_the_same_bytes(finished, tmp_path):
    drawn = random.Random(16)
    for number in range(KILLS):
        toy = Toy(tmp_path / str(number) / "study")
        run = toy.start("make", "report", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        link, how = drawn.choice([*LINKS, CTRL_C]), drawn.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        victim = toy.wait_for(LINKS.get(link, LINKS["kernel"]))
        time.sleep(drawn.uniform(0, 3))
        try:
            victim.send_signal(how) if link in LINKS else os.killpg(run.pid, signal.SIGINT)
        except (psutil.NoSuchProcess, ProcessLookupError):  # it has done its work
            run.kill()
        began = time.monotonic()
        while workers(toy) and time.monotonic() - began < 20:
            time.sleep(0.02)
        took = time.monotonic() - began
        print(f"{number + 1}: {link} {how.name}, workers gone after {took:.2f} s")
        assert took < 2, [command(one) for one in workers(toy)]
        run.wait(60)
        done = toy.run("make", "report")
        assert done.returncode == 0, done.stderr
        assert toy.written() == finished.written()


def workers(toy: Toy) -> list[psutil.Process]:
    """Kernels and what they have started."""
    return [one for one in toy.processes() if any(word in command(one) for word in ("ipykernel", "joblib"))]


def test_ctrl_c_is_one_sentence(tmp_path):
    toy = Toy(tmp_path / "study", seconds=20)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # tests in the background inherit that it is ignored
    run = toy.start(sys.executable, "-m", "survpack", "report")
    signal.signal(signal.SIGINT, before)
    toy.wait_for(LINKS["kernel"])
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and err.splitlines()[-1].startswith("survpack: stopped; what is finished is kept")
    assert "Traceback" not in err.splitlines()[-1]


def test_a_process_that_may_not_ask_linux_ends_with_its_owner_all_the_same(tmp_path):
    """As on macOS, or where a shell stands between the two."""
    code = (
        "import sys, time; from survpack import processes; "
        "processes._killed_by_linux_with_parent = lambda: False; processes.end_with({}); print('on', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{code.format("$$")}"; true'], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert owner.stdout.readline() == "on\n"
    (child,) = psutil.Process(owner.pid).children()
    owner.kill()
    child.wait(timeout=2)


def test_an_owner_that_has_ended_before_it_is_watched_is_not_missed():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = f"import time; from survpack.processes import end_with; end_with({gone.pid}); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=10).returncode == -signal.SIGKILL


def test_a_command_that_nobody_owns_outlives_who_started_it(tmp_path):
    """`nohup python -m survpack report &` goes on when the terminal is closed."""
    code = "import time; from survpack.processes import end_with_owner; end_with_owner(); print('on', flush=True); time.sleep(60)"
    environment = {key: value for key, value in os.environ.items() if key not in (processes.OWNER, "DVC_STAGE")}
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{code}"; true'], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert shell.stdout.readline() == "on\n"
    (child,) = psutil.Process(shell.pid).children()
    shell.kill()
    time.sleep(1)
    assert child.is_running()
    child.kill()


@pytest.mark.parametrize("asked", ["two", "0", "", "1.5", "--2"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, asked):
    monkeypatch.setenv(processes.JOBS, asked)
    with pytest.raises(BadInput, match=f"SURVPACK_JOBS is '{asked}', expected a number"):
        processes.workers()


# --- what a kill leaves of DVC's own files


def test_half_of_dvcs_lock_file_is_told_with_its_remedy_which_works(toy):
    lock = toy.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: len(whole) // 2].rstrip() + "\n  x: [")
    done = toy.report()
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert str(lock) in done.stderr and "delete it" in done.stderr
    lock.unlink()
    done = toy.report()
    assert done.returncode == 0 and "Running stage" not in done.stdout  # taken from the cache
    assert lock.read_text() == whole


@pytest.mark.parametrize("name", ["train@mets-age", "paper", "new@sts-a_b"])
def test_a_stage_is_put_into_dvcs_lock_file_as_dvc_itself_would_write_it(tmp_path, monkeypatch, name):
    from dvc.stage import serialize
    from dvc.utils.serialize import dump_yaml

    def stage(size):
        return {"cmd": 'PATH="$PWD/.venv/bin:$PATH" python -m survpack run 03-training --cohort mets --model a-long-name',
                "deps": [{"path": "data: x", "hash": "md5", "md5": "0123e45", "size": size}], "params": {"params.yaml": {"a": 1e-6}}}  # fmt: skip

    lock, expected = tmp_path / "dvc.lock", tmp_path / "expected"
    before = {"cohort@mets": stage(1), "train@mets-age": stage(2), "paper": {"cmd": "old"}}
    monkeypatch.setattr(serialize, "to_lockfile", lambda one: {one: stage(7)})
    assert not repro._put_in(lock, [name])  # DVC begins the file
    dump_yaml(lock, {"schema": "2.0", "stages": before})
    dump_yaml(expected, {"schema": "2.0", "stages": before | {name: stage(7)}})
    assert repro._put_in(lock, [name])
    assert lock.read_text() == expected.read_text()


@pytest.mark.parametrize(
    "text", ["schema: '2.0'\ndatasets: []\nstages:\n  a:\n    cmd: b\n", "schema: '2.0'\n", "{}", "stages:\n"]
)
def test_a_lock_file_of_another_form_is_left_to_dvc(tmp_path, text):
    lock = tmp_path / "dvc.lock"
    lock.write_text(text)
    assert not repro._put_in(lock, [])
    assert lock.read_text() == text


@pytest.mark.parametrize(
    "left", ["", '{"write": {', "[]", "null", '{"write": {"a": {"pid": %d, "cmd": "dvc repro"}}, "read": {}}']
)
def test_what_a_killed_dvc_held_blocks_nobody(tmp_path, left):
    """Half a list, or the number of a process that is another program's by now: this one's."""
    locks = tmp_path / "rwlock"
    locks.write_text(left % os.getpid() if "%d" in left else left)
    repro.forget_dead(locks)
    assert not locks.exists()
    repro.forget_dead(locks)


def test_what_a_dvc_at_work_holds_is_left_to_it(tmp_path):
    at_work = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc", "repro"])
    locks = tmp_path / "rwlock"
    while "dvc" not in repro._command(at_work.pid):  # begun, and not yet what it is to be
        time.sleep(0.05)
    locks.write_text(json.dumps({"write": {}, "read": {"a": [{"pid": at_work.pid, "cmd": "dvc repro"}]}}))
    repro.forget_dead(locks)
    at_work.kill()
    assert locks.exists()


# --- files that were cut off


@pytest.mark.parametrize("content", ['{"cohort": "mets", "finger', "", "[]", "null", '{"cohort": "mets"}', "\\xff"])
def test_a_note_on_the_raw_data_that_was_cut_off_makes_them_be_read_again(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setattr(paths, "DERIVED", tmp_path)
    note = paths.CohortPaths("sts").source / "source.json"
    note.parent.mkdir(parents=True)
    note.write_bytes(content.encode("latin-1"))
    pipeline._forget_changed("sts", "as read")
    assert not note.parent.exists() and "sts: source.json" in capsys.readouterr().out


def test_a_file_of_the_study_that_was_cut_off_is_made_again_even_where_dvcs_own_copy_is_the_same_file(toy):
    """What DVC takes from its cache is a hard link to it: cut off here is cut off there, and DVC looks at neither."""
    good, note = toy.written(), toy.root / "data" / "derived" / "mets" / "source" / "source.json"
    note.unlink()
    assert toy.dvc("checkout").returncode == 0  # from the cache
    assert note.stat().st_nlink > 1
    note.chmod(0o644)  # who is not root cannot, but a disk can
    note.write_text('{"cohort": "me')
    note.chmod(0o444)
    done = toy.report()
    assert done.returncode == 0 and "Running stage 'squares@mets'" in done.stdout, done.stdout + done.stderr
    assert toy.written() == good


@pytest.fixture
def derived(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(paths, "DERIVED", tmp_path / "derived")
    monkeypatch.setattr(paths, "METRICS", tmp_path / "metrics")
    (tmp_path / "derived").mkdir()
    return tmp_path / "derived"


def save(file: Path) -> None:
    import numpy as np
    import pandas as pd
    import torch
    from safetensors.torch import save_file

    {".json": lambda: file.write_text(json.dumps({"patient_ids": ["a"] * 50})),
     ".parquet": lambda: pd.DataFrame({"risk": range(50)}).to_parquet(file),
     ".npy": lambda: np.save(file, np.ones((4, 4))),
     ".safetensors": lambda: save_file({"w": torch.ones(50)}, file)}[file.suffix]()  # fmt: skip


@pytest.mark.parametrize("kept", [0, 3, 60, -20])
@pytest.mark.parametrize("name", ["crops.json", "splits.parquet", "images.npy", "weights.safetensors"])
def test_once_something_has_failed_the_file_that_was_cut_off_is_named_with_the_remedy(derived, name, kept):
    file = derived / name
    save(file)
    save(derived / f"whole-{name}")
    assert faults.sentence("ValueError", "anything") is None
    file.write_bytes(file.read_bytes()[:kept])
    file.chmod(0o444)
    told = faults.sentence("ValueError", "anything")
    assert told.startswith(f"{file}: cut off or damaged, expected") and "make report" in told
    assert file.stat().st_mode & 0o200  # DVC looks at its copy again


@pytest.mark.parametrize(
    "kind, text, words",
    [
        ("OSError", "[Errno 28] No space left on device: '/a/b.parquet'", ["/a/b.parquet", "no room"]),
        ("OSError", "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device", ["no room"]),
        ("SafetensorError", "I/O error: No space left on device (os error 28)", ["no room"]),
        ("OSError", "[Errno 122] Disk quota exceeded: '/a/b'", ["/a/b", "no room"]),
        ("OSError", "[Errno 30] Read-only file system: '/a/b'", ["/a/b", "no right"]),
        ("PermissionError", "[Errno 13] Permission denied: '/a/b'", ["/a/b", "no right"]),
        ("MemoryError", "", ["not enough memory"]),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", ["memory"]),
        (
            "TerminatedWorkerError",
            "A worker process managed by the executor was unexpectedly",
            ["killed", "SURVPACK_JOBS=1"],
        ),
        ("BadInput", "as it was.", ["as it was."]),
    ],
)
def test_what_is_no_fault_of_the_code_is_one_sentence(derived, kind, text, words):
    told = faults.sentence(kind, text)
    assert all(word in told for word in words) and "\n" not in told and told.endswith(".")


def test_what_an_earlier_stage_has_not_written_is_named_and_a_mistake_of_the_code_is_not_hidden(derived):
    absent = f"[Errno 2] No such file or directory: '{derived}/mets/cohort/splits.parquet'"
    assert "splits.parquet: not there" in faults.sentence("FileNotFoundError", absent)
    assert faults.sentence("FileNotFoundError", "[Errno 2] No such file or directory: '/etc/none'") is None
    assert faults.sentence("AttributeError", "'NoneType' object has no attribute 'x'") is None
