"""Figures on Weights & Biases, offline: the library's own file has every step, and a start without it is one line."""

import json
import sys
import types

import pytest

from flan_jax.errors import FlanError
from flan_jax.training.hooks.wandb_log import WandbLog


class Context(types.SimpleNamespace):
    """A start of a run after some steps."""

    def __init__(self, folder, first_step=0, primary=True):
        folder.mkdir(exist_ok=True)
        run = types.SimpleNamespace(to_dict=lambda: {"mixture": "flan_without_nli", "seed": 7})
        super().__init__(folder=folder, run=run, first_step=first_step, primary=primary, error=None)


def _run(context, steps, **settings):
    hook = WandbLog({"project": "flan", "mode": "offline"} | settings)
    hook.start(context)
    for step in steps:
        values = {"loss": 1.0 / step, "skipped": 0, "dataset_loss": {"rte": 2.0 * step}, "accuracy": None}
        hook.after_step(context, step, values | ({"loss": float("nan")} if step == 2 else {}))
    hook.end(context)


def _records(path):
    """What the library wrote: a header of seven bytes, and records in blocks as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no room for a record's head
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a record that is whole, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_every_step_is_sent_and_a_later_start_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "run"
    _run(Context(folder), [1, 2, 3])
    _run(Context(folder, first_step=2), [3], name="other")
    ids, histories, names = [], [], []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        lines = []
        for record in _records(path):
            if record.HasField("run"):
                ids.append(record.run.run_id)
                names.append(record.run.display_name)
                assert record.run.project == "flan"
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                assert config["mixture"] == "flan_without_nli"
            if record.HasField("history"):
                items = {"/".join(x.nested_key) or x.key: json.loads(x.value_json) for x in record.history.item}
                lines.append({key: x for key, x in items.items() if not key.startswith("_")})
        histories.append(lines)
    assert len(set(ids)) == 1 and (names[0], names[-1]) == ("run", "other")
    assert histories == [
        [
            {"step": 1, "loss": 1.0, "skipped": 0, "dataset_loss/rte": 2.0},
            {"step": 2, "skipped": 0, "dataset_loss/rte": 4.0},
            {"step": 3, "loss": pytest.approx(1 / 3), "skipped": 0, "dataset_loss/rte": 6.0},
        ],
        [{"step": 3, "loss": pytest.approx(1 / 3), "skipped": 0, "dataset_loss/rte": 6.0}],
    ]


def test_without_the_library_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(FlanError, match=r"WANDB needs the library wandb: pip install -e '\.\[wandb\]'"):
        WandbLog({"project": "flan"})


def _library(**methods):
    """A library whose service fails; the real one would wait for a network."""
    run = types.SimpleNamespace(define_metric=lambda *a, **k: None, log=lambda numbers: None, finish=lambda **k: None)
    vars(run).update(methods)
    init = methods.get("init", lambda **arguments: run)
    return types.SimpleNamespace(init=init, Settings=lambda **settings: settings)


def _raise(*arguments, **named):
    raise RuntimeError("no API key\nconfigured.")


@pytest.mark.parametrize("method", ["init", "define_metric", "finish"])
def test_a_service_that_fails_is_one_line(tmp_path, monkeypatch, method):
    monkeypatch.setitem(sys.modules, "wandb", _library(**{method: _raise}))
    with pytest.raises(FlanError, match="failed .RuntimeError: no API key configured.; run `wandb login`"):
        _run(Context(tmp_path / "run"), [1])


def test_a_figure_that_is_refused_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", _library(log=_raise))
    _run(Context(tmp_path / "run"), [1, 2])
    assert capsys.readouterr().out == (
        "step 1: WANDB: RuntimeError: no API key configured; nothing more is sent there, the run goes on.\n"
    )
    monkeypatch.setitem(sys.modules, "wandb", _library(init=_raise))
    _run(Context(tmp_path / "run", primary=False), [1])
