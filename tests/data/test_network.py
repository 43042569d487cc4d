"""Hosts that cannot be reached are found out in seconds, and each is asked once."""

import http.server
import socket
import threading
import time

import pytest

from flan_jax import prepare
from flan_jax.data import network


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch):
    monkeypatch.setattr(network, "_answers", {})
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def port():
    """Of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_host_that_takes_a_connection(port):
    assert network.is_reachable(f"http://127.0.0.1:{port}/any")
    assert not network.is_reachable("http://127.0.0.1:9/any")


@pytest.mark.parametrize(
    "url", ["", "data/file.zip", "file:///data/file.zip", "gs://bucket/data", "http://[::1", "x://y:z"]
)
def test_what_has_no_host_passes(url):
    assert network.is_reachable(url)


@pytest.mark.parametrize("url", ["http://no such host/", "http://" + "a" * 300 + "/", "http://no-such-host.invalid/"])
def test_names_that_are_none(url):
    assert not network.is_reachable(url)


def test_without_a_network_two_hosts_are_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(network, "_connects", lambda place: asked.append(place) or False)
    assert not any(network.is_reachable(f"https://host{number}.org/a") for number in range(60))
    assert asked == [("host0.org", 443), ("host1.org", 443)]


def test_with_a_network_each_host_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(network, "_connects", lambda place: asked.append(place) or place[0] == "host0.org")
    found = [network.is_reachable(f"http://host{number % 5}.org/{number}") for number in range(20)]
    assert found == [number % 5 == 0 for number in range(20)]
    assert asked == [(f"host{number}.org", 80) for number in range(5)]


def test_a_proxy_is_asked_in_the_hosts_place(monkeypatch, port):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    assert network.is_reachable("http://no-such-host.invalid/")
    monkeypatch.setenv("no_proxy", "no-such-host.invalid")
    assert not network.is_reachable("http://no-such-host.invalid/")


def test_a_host_that_never_answers(monkeypatch):
    monkeypatch.setattr(network, "_SECONDS", 0.05)
    released = threading.Event()  # so that no thread outlives the test

    def silent(*_, **__):
        released.wait(30)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", silent)
    began = time.monotonic()
    assert not network.is_reachable("http://10.255.255.1/")
    assert time.monotonic() - began < 10
    released.set()


def test_prepare_without_a_network_ends_in_one_line(tmp_path, monkeypatch, capsys):
    import tensorflow_datasets as tfds

    def refused(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    names = "rte,sst2,trec,natural_questions,squad_v1"
    with pytest.raises(SystemExit) as stopped:
        prepare.main(["--data=tfds", f"--datasets={names}", f"--to={tmp_path / 'prepared'}", "--workers=1"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1, said
    assert "nothing prepared: no source of 5 could be opened with --data=tfds" in said
    assert "cannot be reached; check the network, or give --data=FOLDER of TFDS data or JSONL" in said
    assert "--data=samples" in said and not (tmp_path / "prepared").exists()
