"""A file is what it holds: copies with other times are the same, changes in place are not, whatever size and time say."""

import json
import os
import shutil
import time

import pandas as pd
import pytest

from survpack import adapters, content, paths, pipeline
from survpack.visit_images import stamps


@pytest.fixture
def old(monkeypatch):
    """Files are taken for old at once: what a digest rests on is then the stamp alone."""
    monkeypatch.setattr(content, "SETTLED_S", -60)


def folder(root):
    (root / "sub").mkdir(parents=True)
    (root / "participants.tsv").write_text("participant_id\tage\nsub-1\t60\n")
    (root / "sub" / "scan.nii.gz").write_bytes(b"A" * 5000)
    return root


def in_place(path, text: bytes):
    """Other content of the same size, on the same inode, with the old time of change."""
    facts = path.stat()
    assert len(text) == facts.st_size
    time.sleep(0.02)  # the clock of files ticks some 250 times a second
    with open(path, "r+b") as file:
        file.write(text)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    now = path.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (facts.st_ino, facts.st_size, facts.st_mtime_ns)


@pytest.mark.parametrize("how", ["copied", "touched", "linked"])
def test_the_same_content_with_another_time_is_the_same(tmp_path, old, how):
    root, memory = folder(tmp_path / "raw"), tmp_path / "files.json"
    before = content.of_folder(root, memory)
    scan = root / "sub" / "scan.nii.gz"
    if how == "copied":
        shutil.copyfile(scan, tmp_path / "copy")
        scan.unlink()
        shutil.move(tmp_path / "copy", scan)
    elif how == "linked":
        shutil.move(scan, tmp_path / "elsewhere")
        scan.symlink_to(tmp_path / "elsewhere")
    os.utime(scan, (1e9, 1e9))
    assert content.of_folder(root, memory) == before == content.of_folder(root, tmp_path / "none.json")


@pytest.mark.parametrize("settled", [-60, 2])
def test_a_change_in_place_is_seen_though_size_and_time_are_as_before(tmp_path, monkeypatch, settled):
    monkeypatch.setattr(content, "SETTLED_S", settled)
    root, memory = folder(tmp_path / "raw"), tmp_path / "files.json"
    before = content.of_folder(root, memory)
    in_place(root / "sub" / "scan.nii.gz", b"B" * 5000)
    assert content.of_folder(root, memory) != before


def test_names_count_and_files_that_come_and_go(tmp_path, old):
    root, memory = folder(tmp_path / "raw"), tmp_path / "files.json"
    found = [content.of_folder(root, memory)]
    (root / "sub" / "scan.nii.gz").rename(root / "sub" / "other.nii.gz")
    found.append(content.of_folder(root, memory))
    (root / "more.txt").write_text("x")
    found.append(content.of_folder(root, memory))
    assert len(set(found)) == 3
    (root / "more.txt").unlink()
    assert content.of_folder(root, memory) == found[1]


def test_what_is_old_is_read_once_and_what_is_new_each_time(tmp_path, monkeypatch):
    reads, real = [], content.hashlib.file_digest
    monkeypatch.setattr(content.hashlib, "file_digest", lambda file, how: reads.append(file.name) or real(file, how))
    root, memory = folder(tmp_path / "raw"), tmp_path / "files.json"
    for settled, expected in ((2, [2, 2]), (-60, [2, 0])):
        monkeypatch.setattr(content, "SETTLED_S", settled)
        for count in expected:
            reads.clear()
            content.of_folder(root, memory)
            assert len(reads) == count


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "\udcff"])
def test_a_damaged_memory_is_as_none(tmp_path, old, text):
    root, memory = folder(tmp_path / "raw"), tmp_path / "files.json"
    before = content.of_folder(root, memory)
    memory.write_bytes(text.encode(errors="surrogateescape"))
    assert content.of_folder(root, memory) == before
    assert len(json.loads(memory.read_text())) == 2


def test_what_is_no_file_to_read_stops_nothing(tmp_path, old):
    root = folder(tmp_path / "raw")
    before = content.of_folder(root, tmp_path / "files.json")
    (root / "dead").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe")
    assert content.of_folder(root, tmp_path / "files.json") != before
    (tmp_path / "file").touch()
    assert content.of_folder(root, tmp_path / "file" / "unwritable.json") == content.of_folder(
        root, tmp_path / "files.json"
    )


def test_a_re_copied_cohort_is_not_read_again_and_one_changed_in_place_is(raw, capsys, old):
    folder(raw / "mine")
    note = paths.CohortPaths("mine").source / "source.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"fingerprint": adapters.fingerprint("mine")}))
    shutil.copytree(raw / "mine", raw / "new", copy_function=shutil.copyfile)
    shutil.rmtree(raw / "mine")
    (raw / "new").rename(raw / "mine")
    pipeline._forget_changed("mine", adapters.fingerprint("mine"))
    assert note.exists() and capsys.readouterr().out == ""
    in_place(raw / "mine" / "sub" / "scan.nii.gz", b"C" * 5000)
    pipeline._forget_changed("mine", adapters.fingerprint("mine"))
    assert not note.exists() and "have changed" in capsys.readouterr().out


def test_scans_of_visits_are_known_by_content_too(tmp_path, old):
    scan = folder(tmp_path / "raw") / "sub" / "scan.nii.gz"
    images = pd.DataFrame({"path": [str(scan), ""], "mask_path": [str(scan), str(tmp_path / "gone")]})
    before = stamps(images)
    assert len(before) == 2
    os.utime(scan, (1e9, 1e9))
    assert stamps(images) == before
    in_place(scan, b"D" * 5000)
    assert stamps(images) != before


def test_another_file_at_the_same_place_is_another(tmp_path, old):
    scan = tmp_path / "scan"
    scan.write_bytes(b"A" * 10)
    before = content.digest(scan)
    other = tmp_path / "other"
    other.write_bytes(b"B" * 10)
    os.utime(other, ns=(scan.stat().st_atime_ns, scan.stat().st_mtime_ns))
    other.replace(scan)
    assert content.digest(scan) != before
