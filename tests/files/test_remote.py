"""Paths of object storage, against a real server and in memory."""

import os
import pickle
import re
import sys
from pathlib import Path

import pytest

from flan_jax import files
from flan_jax.errors import FlanError, StorageError


@pytest.fixture(params=["gs", "memory"])
def folder(request):
    """A folder of each kind of storage that can be had here."""
    if request.param == "memory":
        yield files.user_path(f"memory://tests/{request.node.name.replace('[', '_').replace(']', '')}")
    else:
        yield files.user_path(request.getfixturevalue("bucket"))


@pytest.mark.parametrize(
    ("given", "as_text"),
    [
        ("gs://bucket/runs/first", "gs://bucket/runs/first"),
        ("gs://bucket/runs/first/", "gs://bucket/runs/first"),
        ("gs://bucket//runs///first", "gs://bucket/runs/first"),
        ("gs://bucket/./runs/first", "gs://bucket/runs/first"),
        ("gcs://bucket/runs/first", "gs://bucket/runs/first"),
        ("GS://bucket/runs/first", "gs://bucket/runs/first"),
        (" gs://bucket/runs/first ", "gs://bucket/runs/first"),
        ("gs://bucket/ein Lauf/ü+&=~", "gs://bucket/ein Lauf/ü+&=~"),
        ("memory://runs", "memory://runs"),
    ],
)
def test_urls(given, as_text):
    path = files.user_path(given)
    assert str(path) == as_text and files.is_remote(path)
    assert files.user_path(path) is path and files.user_path(str(path)) == path
    assert pickle.loads(pickle.dumps(path)) == path


def test_names():
    path = files.user_path("gs://bucket/runs/first.v2.json")
    assert (path.name, path.stem, path.suffix) == ("first.v2.json", "first.v2", ".json")
    assert path.suffixes == [".v2", ".json"] and (path.parent / ".lock").suffixes == []
    assert str(path.parent) == "gs://bucket/runs"
    assert [str(above) for above in path.parents] == ["gs://bucket/runs", "gs://bucket"]
    assert str(path.with_name("a")) == "gs://bucket/runs/a"
    assert str(path.with_suffix(".md")) == "gs://bucket/runs/first.v2.md"
    assert path.relative_to(path.parent) == "first.v2.json"
    assert path.absolute() == path.resolve() == path.expanduser() == path
    assert sorted([path, path.parent / "a"]) == [path.parent / "a", path]
    with pytest.raises(ValueError, match="is not below"):
        path.relative_to(files.user_path("gs://bucket/run"))


@pytest.mark.parametrize("take", [Path, open, os.listdir, os.makedirs, os.fspath, os.path.exists])
def test_nothing_takes_it_for_a_path_of_this_machine(take, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError):
        take(files.user_path("gs://bucket/runs"))
    assert not list(tmp_path.iterdir())


def test_files_are_written_and_read(folder):
    file = folder / "deep" / "er" / "file.txt"
    assert not file.exists() and not folder.exists() and not folder.is_dir()
    with pytest.raises(FileNotFoundError):
        file.read_text()
    files.write_atomic(file, "ü\n1")
    assert file.read_text() == "ü\n1" and file.read_bytes() == "ü\n1".encode()
    assert file.is_file() and not file.is_dir() and file.parent.is_dir() and folder.exists()
    assert file.stat().st_size == 4
    with file.open() as opened:
        assert list(opened) == ["ü\n", "1"]
    with file.open("rb") as opened:
        assert opened.read(2) == "ü".encode()
    with files.whole_file(folder / "other.bin", "wb") as opened:
        opened.write(b"12")
    assert [path.name for path in folder.iterdir()] == ["deep", "other.bin"]
    assert list(folder.glob("*/*/*.txt")) == [file] == list(folder.rglob("*.txt"))
    assert set(folder.all_files()) == {"deep/er/file.txt", "other.bin"}
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()
    files.remove_folder(folder)
    files.remove_folder(folder)
    assert not folder.exists()


def test_what_fails_leaves_what_was_there(folder):
    files.write_atomic(folder / "file", "old")
    with pytest.raises(KeyError), files.whole_file(folder / "file") as file:
        file.write("half")
        raise KeyError
    assert (folder / "file").read_text() == "old"
    with pytest.raises(KeyError), files.whole_folder(folder / "data") as building:
        (building / "info.json").write_text("{}")
        raise KeyError
    assert set(folder.all_files()) == {"file"}


def test_folders_are_replaced_and_their_mark_comes_last(bucket, server):
    folder = files.user_path(bucket) / "data"
    for names in (("a", "b/c", "info.json"), ("a", "d", "info.json")):
        before = len(server.requests())
        with files.whole_folder(folder) as building:
            for name in names:
                (building / name).parent.mkdir(exist_ok=True)
                (building / name).write_text("|".join(names))
        assert set(folder.all_files()) == set(names)
        assert (folder / "a").read_text() == "|".join(names)
        changing = [line for line in server.requests()[before:] if not line.startswith("GET")]
        assert changing[0].startswith("DELETE") and "info.json" in changing[0]
        assert changing[-1].startswith("POST")


@pytest.mark.parametrize("mode", ["w", "a", "wb", "r+", "x"])
def test_nothing_is_written_in_parts(folder, mode):
    with pytest.raises(ValueError, match=r"object storage takes whole objects; use files\.whole_file"):
        (folder / "file").open(mode)


def test_one_of_many_creates(folder):
    assert files.create(folder / "lock", "1")
    assert not files.create(folder / "lock", "2")
    assert (folder / "lock").read_text() == "1"
    version = (folder / "lock").version()
    files.write_atomic(folder / "lock", "other")
    assert not (folder / "lock").remove_version(version)
    assert (folder / "lock").read_text() == "other"
    assert (folder / "lock").remove_version((folder / "lock").version())
    assert not (folder / "lock").exists()
    assert not (folder / "lock").remove_version(version)


def test_place_is_asked_before_the_work(bucket, server):
    place = files.user_path(bucket)
    assert files.writable(place) == place and files.ready(place / "file") == place / "file"
    assert not place.all_files()
    with pytest.raises(FlanError, match="it is read here, and what it holds would be lost"):
        files.ready(place / "file", [str(place / "file")])


# ------------------------------------------------------------------------------------------------------ what fails


@pytest.mark.parametrize(
    "use",
    [
        lambda path: files.write_atomic(path, "x"),
        lambda path: files.writable(path),
        lambda path: files.create(path, "x"),
        lambda path: path.write_bytes(b"x" * 6_000_000),
    ],
)
def test_no_bucket(server, use):
    with pytest.raises(
        StorageError, match="there is no bucket gs://no-such-bucket; make it, or check its name"
    ) as error:
        use(files.user_path("gs://no-such-bucket/runs/x"))
    assert "\n" not in str(error.value)


def test_nothing_is_there_where_there_is_no_bucket(server):
    path = files.user_path("gs://no-such-bucket/runs/x")
    assert not path.exists() and not path.is_dir() and not path.is_file()


class _Raising:
    """A storage of which each request fails."""

    def __init__(self, error):
        self._error = error

    def __getattr__(self, name):
        def fail(*_, **__):
            raise self._error

        return fail


def _gcs(code, message=""):
    from gcsfs.retry import HttpError

    return HttpError({"code": code, "message": message})


def _no_credentials():
    from google.auth.exceptions import DefaultCredentialsError

    return DefaultCredentialsError("Your default credentials were not found.")


def _no_connection():
    import aiohttp

    return aiohttp.ServerDisconnectedError()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            lambda: _gcs(401, "Anonymous caller does not have storage.objects.get access"),
            "gcloud auth application-defa",
        ),
        (_no_credentials, "it takes none of the credentials here; for gs:// run gcloud auth application-default login"),
        (lambda: OSError("Forbidden: https://storage/b\nx@y does not have access"), "permission is denied; let this"),
        (lambda: _gcs(403, "denied"), "permission is denied"),
        (lambda: PermissionError("Access Denied"), "permission is denied"),
        (_no_connection, "the storage cannot be reached; check the network"),
        (lambda: TimeoutError(), "the storage cannot be reached"),
        (lambda: ConnectionRefusedError(111, "Connection refused"), "the storage cannot be reached"),
        (lambda: _gcs(503, "Backend Error"), "the storage is overloaded or failing; run the same command again later"),
        (lambda: _gcs(429, "slow down"), "the storage is overloaded or failing"),
        (lambda: ValueError("Bad Request: b\ninvalid bucket name"), "no bucket can have that name"),
        (lambda: RuntimeError("odd\nin lines"), "the storage says: RuntimeError odd in lines"),
        (lambda: ImportError("Please install gcsfs"), "install it, for gs:// by pip install 'flan-jax[gcs]'"),
    ],
)
@pytest.mark.parametrize("use", ["exists", "read_bytes", "iterdir", "write", "unlink", "info", "open"])
def test_errors_are_one_line(monkeypatch, error, says, use):
    path = files.user_path("gs://bucket/runs/x")
    monkeypatch.setattr("flan_jax.files.remote._client", lambda scheme: _Raising(error()))
    with pytest.raises(StorageError) as caught:
        files.write_atomic(path, "x") if use == "write" else getattr(path, use)()
    said = str(caught.value)
    assert re.match(r"cannot [a-z ]+ gs://bucket/runs/x: ", said) and says in said and "\n" not in said
    assert said.endswith(".") and not said.endswith("..")


def test_client_that_is_not_installed(monkeypatch):
    known = sys.modules["fsspec.registry"]._registry  # `fsspec.registry` is a view of it
    monkeypatch.delitem(known, "gs", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FlanError, match=r"gs:// needs gcsfs, which is not installed: pip install 'flan-jax\[gcs\]'\."):
        files.user_path("gs://bucket/runs")


def test_checkpoints_lie_where_tensorstore_reads():
    assert files.kvstore(files.user_path("gs://b/x/y")) == "gs://b/x/y/"
    assert str(files.orbax_folder(files.user_path("gs://b/x y"))) == "gs://b/x y"
    for use in (files.kvstore, files.orbax_folder):
        with pytest.raises(FlanError, match="memory://x/y cannot hold a checkpoint: .* give a folder there"):
            use(files.user_path("memory://x/y"))
