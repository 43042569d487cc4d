import contextlib
import dataclasses
import http.server
import io
import json
import threading

import pytest
from rich.console import Console

from flan_jax import catalog, prepare
from flan_jax.data import network, source_check, sources

pytestmark = pytest.mark.slow

RTE, STORY, NEWS = (catalog.dataset(name) for name in ("rte", "story_cloze", "ag_news_subset"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(network, "_answers", {})
    monkeypatch.setattr(sources.tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def server():
    """A server that has /there, and none of the rest."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response({"/there": 200, "/shy": 405}.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_states_are_shown_as_they_are():
    """A source may hold what rich would take for markup."""
    state = source_check.SourceState("[red]mine", "[/]", source_check.READY, "see [bold]here[/bold] :smile:")
    console = Console(width=120, file=io.StringIO())
    console.print(source_check.table([state]))
    assert all(part in console.file.getvalue() for part in ("[red]mine", "[/]", "ready", "[bold]here[/bold] :smile:"))


def test_what_an_address_answers(server):
    assert source_check.answer(f"{server}/there") == ""
    assert source_check.answer(f"{server}/shy") == ""
    assert source_check.answer(f"{server}/gone").startswith("answers 404")
    assert source_check.answer("http://127.0.0.1:9/there") == source_check.NO_NETWORK


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        ("", "downloadable"),
        (source_check.NO_NETWORK, "downloadable, not checked"),
        ("answers 404 Not Found", "dead"),
    ],
)
def test_tfds_sources(reply, state):
    asked = []
    found = source_check.check(RTE, "tfds", lambda url: asked.append(url) or reply)
    assert found.state == state and asked[0] in found.detail
    assert "RTE" in asked[0]  # of the addresses of SuperGLUE, its own


def test_manual_and_missing_versions():
    assert source_check.check(STORY, "tfds", None).state == "manual"
    assert source_check.check(STORY, "tfds", None).detail == STORY.manual
    dead = source_check.check(dataclasses.replace(RTE, source="super_glue/rte:99.0.0"), "tfds", None)
    assert dead.state == "dead" and "TFDS has no super_glue/rte:99.0.0" in dead.detail


def test_samples_and_folders(tmp_path):
    found = source_check.check(RTE, "samples", None)
    assert found.state == "ready" and "train" in found.detail and "test" in found.detail
    (tmp_path / "data").mkdir()
    found = source_check.check(RTE, tmp_path / "data", None)
    assert found.state == "dead" and "add rte/train.jsonl" in found.detail


def run(*arguments):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        prepare.main(["--check", *arguments, "--json"])
    return json.loads(printed.getvalue().splitlines()[-1]), printed.getvalue()


def test_the_command_reports_every_source(monkeypatch):
    monkeypatch.setattr(source_check, "answer", lambda _: source_check.NO_NETWORK)
    report, printed = run("--data=tfds")
    states = {s["dataset"]: s["state"] for s in report["sources"]}
    assert states.keys() == {d.name for d in catalog.datasets()}
    assert {name for name, state in states.items() if state == "manual"} == {
        d.name for d in catalog.datasets() if d.manual
    }
    assert "dead" not in states.values()  # every name and version is one that this TFDS has
    assert all(name in printed for name in states)


def test_nothing_that_can_be_used_is_an_error(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit) as status:
        prepare.main(["--check", "--datasets=rte", f"--data={tmp_path / 'data'}"])
    assert status.value.code == 2
    assert "no source can be used" in capsys.readouterr().err
