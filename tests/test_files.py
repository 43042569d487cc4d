"""Paths of users, and writes that happen whole or not at all, on disks that are full, closed or of another kind."""

import json
import os
from pathlib import Path

import pytest

from flan_jax import files
from flan_jax.errors import FlanError
from flan_jax.files import write_atomic


def test_atomic_write_leaves_no_temporary(tmp_path):
    write_atomic(tmp_path / "deep" / "file.json", json.dumps({"a": 1}))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.json"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "the path is empty"),
        ("  ", "the path is empty"),
        (5, "5 is no path"),
        (None, "None is no path"),
        (b"runs", "b'runs' is no path"),
        ("a\0b", "zero byte"),
        ("https://example.com/x", "is an address of the web, which is no storage: download what is there"),
        ("HTTP://example.com/x", "is an address of the web"),
        ("gs:/bucket/runs", "has one slash: write gs://bucket/runs."),
        (Path("gs://bucket/runs"), "has one slash: write gs://bucket/runs."),
        ("gs://", "names no bucket: write gs://BUCKET/FOLDER."),
        ("gs:///runs", "names no bucket|is a whole bucket"),
        ("gs://./x", "names no bucket"),
        ("gs://bucket", "gs://bucket is a whole bucket: give a folder in it, for example gs://bucket/runs."),
        ("gs://bucket/", "is a whole bucket"),
        ("gs://bucket//./", "is a whole bucket"),
        ("gs://bucket/a/../b", "has a part '..'"),
        ("gs://bucket/run*", "has a '*', which has a meaning of its own in a URL: give a name without"),
        ("gs://bucket/run[1]", "has a '['"),
        ("gs://bucket/run?", "has a '?'"),
        ("gs://bucket/a%20b", "has a '%'"),
        ("gs://bucket/run#1", "has a '#'"),
        ("gs://bucket/a\nb", "is no plain URL"),
        ("gs://bucket/a::file://b", "is no plain URL"),
        ("gs://bucket/" + "x" * 1100, "is too long for object storage"),
        ("gz://bucket/x", "unknown scheme 'gz://': did you mean 'gs://'"),
        ("bucket://x/y", "unknown scheme 'bucket://'"),
        ("s3://bucket/x", "s3:// needs s3fs, which is not installed: pip install s3fs."),
        ("file://tmp/x", "has no full path: write file:///"),
        (
            "C:/data/rte",
            "C:/data/rte is a path of Windows: give it as this machine has it, for example /mnt/c/data/rte",
        ),
        ("d:\\runs\\first", "for example /mnt/d/runs/first."),
        (Path("C:/"), "is a path of Windows"),
        ("c://x", "is a path of Windows"),
        ("~nobody_here/x", "home folder of nobody"),
    ],
)
def test_no_path(given, says):
    with pytest.raises(FlanError, match="MODEL_DIR: ") as caught:
        files.user_path(given, "MODEL_DIR")
    assert any(part in str(caught.value) for part in says.split("|"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("runs/a", "runs/a"),
        ("~/runs", "/home/me/runs"),
        ("a b/ü", "a b/ü"),
        ("a:b/c", "a:b/c"),
        (Path("x"), "x"),
        ("file:///tmp/x", "/tmp/x"),
        ("FILE:///tmp/x", "/tmp/x"),
    ],
)
def test_paths(given, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.user_path(given) == Path(path)


def _content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_full_disk_keeps_the_old_file(small_disk):
    write_atomic(small_disk / "file", "old")
    with pytest.raises(FlanError, match=r"cannot write .*/file: no space left on device; make room"):
        write_atomic(small_disk / "file", "x" * 1_000_000)
    assert _content(small_disk) == {"file": "old"}
    write_atomic(small_disk / "file", "new")  # with room again, the same call goes on
    assert _content(small_disk) == {"file": "new"}


def test_full_disk_keeps_the_old_folder(small_disk):
    def fill(text):
        with files.whole_folder(small_disk / "data") as folder:
            (folder / "one").write_text("1")
            (folder / "two").write_text(text)

    fill("old")
    with pytest.raises(FlanError, match=r"cannot write .*/data: no space left on device"):
        fill("x" * 1_000_000)
    assert _content(small_disk) == {"data/one": "1", "data/two": "old"}
    fill("new")
    assert _content(small_disk) == {"data/one": "1", "data/two": "new"}


def test_read_only_disk(read_only_disk):
    for write in (
        lambda path: write_atomic(path / "file", "x"),
        lambda path: files.make_folder(path / "folder"),
        files.writable,
    ):
        with pytest.raises(FlanError, match="read-only file system; choose a place that can be written to"):
            write(read_only_disk)


@pytest.mark.parametrize("path", ["file", "no/such/folders/file"])
def test_what_is_asked_beforehand_is_named_as_it_was_given(read_only_disk, path):
    with pytest.raises(FlanError, match=f"^cannot write {read_only_disk / path}: read-only file system; "):
        files.ready(read_only_disk / path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a_file/below", "a_file is no folder; choose another path"),
        ("a_file/below/it", "a_file is no folder; choose another path"),
        ("a_folder", "a_folder: it is a folder; give a file name"),
        ("n" * 300, "file name too long; choose a shorter one"),
        ("m" * 300 + "/below", "file name too long; choose a shorter one"),
        ("link/below", "link is no folder"),
        ("/proc/below", "no such file or directory|permission denied|operation not permitted"),
        ("/dev/null/below", "/dev/null is no folder"),
        (".", "it is a folder"),
        ("/", "it is a folder"),
    ],
)
def test_place_that_takes_no_file(tmp_path, monkeypatch, path, reason):
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("mine")
    Path("a_folder").mkdir()
    Path("link").symlink_to("link")
    before = sorted(os.listdir())
    with pytest.raises(FlanError, match=f"cannot write .*({reason})") as caught:
        write_atomic(Path(path), "x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert sorted(os.listdir()) == before
    assert Path("a_file").read_text() == "mine"


def test_longest_name_that_is_allowed(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomic(path, "x")
    assert _content(tmp_path) == {path.name: "x"}


def test_devices_pipes_and_links_stay_what_they_are(tmp_path):
    with pytest.raises(FlanError, match="cannot write /dev/full: no space left on device"):
        write_atomic(Path("/dev/full"), "x")
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()
    write_atomic(Path("/dev/null"), "x")
    assert Path("/dev/null").is_char_device()
    pipe, target, link = tmp_path / "pipe", tmp_path / "folder" / "target", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "through")
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)
    link.symlink_to(target)
    for text in ("one", "two"):
        write_atomic(link, text)
        assert link.is_symlink() and target.read_text() == text
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_other_errors_pass(tmp_path):
    with pytest.raises(KeyError), files.whole_file(tmp_path / "file") as file:
        file.write("half")
        raise KeyError("x")
    assert not list(tmp_path.iterdir())


def test_error_of_another_file_names_it(tmp_path):
    (tmp_path / "out").mkdir()
    says = pytest.raises(FlanError, match="cannot read or write /proc/none: no such file")
    with says, files.whole_file(tmp_path / "out" / "file") as file:
        file.write(Path("/proc/none").read_text())


@pytest.mark.parametrize("read", ["in.jsonl", "./in.jsonl", "*.jsonl", "**/*.jsonl", "link.jsonl", "in*"])
def test_what_is_read_is_not_written_to(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text("mine")
    Path("link.jsonl").symlink_to("in.jsonl")
    with pytest.raises(FlanError, match="it is read here, and what it holds would be lost; give another name"):
        files.ready(Path("in.jsonl"), [read])
    assert files.ready(Path("out.jsonl"), [read]) == Path("out.jsonl") and not Path("out.jsonl").exists()
    assert files.ready(Path("in.jsonl"), ["none", "other*", tmp_path]) == Path("in.jsonl")
