"""What lies on object storage, staged on this machine's disk."""

import os
import subprocess
import sys

import pytest

from flan_jax import files
from flan_jax.errors import FlanError, StorageError


@pytest.fixture
def folder(bucket):
    return files.user_path(bucket)


def _downloads(server):
    return sum(line.startswith("GET /download") for line in server.requests())


def test_a_path_of_this_machine_is_itself(tmp_path):
    assert files.local(str(tmp_path)) == tmp_path


def test_a_file_is_staged_once_and_again_when_it_changes(folder, server):
    file = folder / "model.gguf"
    for content in ("one", "two"):
        files.write_atomic(file, content)
        before = _downloads(server)
        staged = [files.local(file) for _ in range(3)]
        assert {path.read_text() for path in staged} == {content} and {path.name for path in staged} == {file.name}
        assert _downloads(server) == before + 1
    assert len([path for path in files.staging_home().rglob("*") if path.name == "model.gguf"]) == 1
    files.remove_folder(files.staging_home())  # which gives the room back
    assert files.local(file).read_text() == "two"


def test_a_folder_is_staged_with_all_below(folder):
    for name in ("config.json", "deep/er/x.bin"):
        files.write_atomic(folder / "model" / name, name)
    files.write_atomic(folder / "models" / "other", "not below")
    staged = files.local(f"{folder}/model/")
    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert found == {"config.json", "deep/er/x.bin"} and staged.name == "model"
    (folder / "model" / "config.json").unlink()
    staged = files.local(folder / "model")
    assert not (staged / "config.json").exists()


def test_what_was_staged_in_part_is_never_used(folder, monkeypatch):
    file = folder / "model.gguf"
    files.write_atomic(file, "content")

    def broken(path, to, size):
        to.write_text("con")

    with monkeypatch.context() as patched:
        patched.setattr(files.RemotePath, "download", broken)
        with pytest.raises(StorageError, match=rf"{file} did not come whole: run the same command again"):
            files.local(file)
    assert not [path for path in files.staging_home().rglob("*") if path.name == "model.gguf"]

    def other(path, to, size):
        to.write_text("CONTENT")  # as long as what was sent

    with monkeypatch.context() as patched:
        patched.setattr(files.RemotePath, "download", other)
        with pytest.raises(StorageError, match="did not come whole"):
            files.local(file)
    # A killed process leaves a half-filled folder aside.
    aside = next(files.staging_home().iterdir()) / "building" / folder.name
    aside.mkdir(parents=True)
    (aside / file.name).write_text("con")
    assert files.local(file).read_text() == "content"


def test_objects_that_would_be_written_elsewhere(folder):
    files.write_atomic(folder / "model" / "config.json", "{}")
    folder.fs.pipe_file(f"{folder.key}/model/../../../evil", b"x")
    with pytest.raises(FlanError, match=r"holds an object '.*evil', which cannot be a file here: rename it"):
        files.local(folder / "model")
    assert not list(files.home().rglob("evil"))


def test_folders_of_a_console_are_no_files(folder):
    folder.fs.pipe_file(f"{folder.key}/model/sub/", b"")
    files.write_atomic(folder / "model" / "sub" / "x", "x")
    assert set((folder / "model").all_files()) == {"sub/x"}
    assert (files.local(folder / "model") / "sub" / "x").read_text() == "x"


def test_no_room(folder, monkeypatch):
    files.write_atomic(folder / "x", "content")
    usage = type("Usage", (), {"free": 3})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(
        FlanError, match=r"cannot stage gs://.* in .*; make room, or set FLAN_JAX_HOME to a larger disk"
    ):
        files.local(folder / "x")


def test_missing(folder):
    with pytest.raises(FileNotFoundError) as caught:
        files.local(folder / "nothing")
    assert caught.value.filename == str(folder / "nothing")


@pytest.mark.slow
def test_two_processes_of_a_host_stage_once(folder, server):
    for number in range(3):
        files.write_atomic(folder / "data" / str(number), "x" * 1000)
    code = "import sys; from flan_jax import files; print(len(list(files.local(sys.argv[1]).iterdir())))"
    before = _downloads(server)
    command = [sys.executable, "-c", code, str(folder / "data")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in started] == ["3\n", "3\n"]
    assert _downloads(server) == before + 3
