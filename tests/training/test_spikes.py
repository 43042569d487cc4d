"""Steps whose loss is far above the others: found whatever their scale, and their batch is said as it was."""

import json
import types

import numpy as np
import pytest
import small_training

from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.training.figures import Figures
from flan_jax.training.hooks.spikes import DEVIATIONS, Spikes

NAN = float("nan")


@pytest.fixture(scope="module")
def stream(prepared):
    return open_mixture("sst2", prepared, ByteTokenizer(), rows_per_batch=4, lengths=small_training.LENGTHS)[1]


def _run(folder, stream, losses, first_step=0, deviations=DEVIATIONS, primary=True):
    """Steps after `first_step`; the log that the next start finds is written beside them."""
    context = types.SimpleNamespace(folder=folder, stream=stream, first_step=first_step, primary=primary)
    hook = Spikes(deviations)
    hook.start(context)
    log = folder / "metrics.jsonl"
    before = log.read_text().splitlines()[:first_step] if log.exists() else []
    for step, loss in enumerate(losses, first_step + 1):
        hook.after_step(context, step, {"loss": loss, "dataset_loss": {"sst2": loss}})
        before.append(json.dumps({"step": step, "loss": loss}))
    log.write_text("\n".join(before) + "\n")
    path = folder / "spikes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e20])
def test_far_is_a_matter_of_the_losses_before(tmp_path, stream, scale):
    rng = np.random.default_rng(0)
    losses = scale * (2.0 + 0.1 * rng.standard_normal(60))
    assert _run(tmp_path, stream, losses.tolist()) == []
    losses[40] = scale * 4.0
    (found,) = _run(tmp_path, stream, losses.tolist())
    assert found["step"] == 41 and found["loss"] == losses[40] == found["dataset_loss"]["sst2"]
    assert found["median"] == pytest.approx(np.median(losses[:40]))
    assert found["deviation"] == pytest.approx(1.4826 * np.median(np.abs(losses[:40] - found["median"])))


@pytest.mark.parametrize("losses", [[5.0] * 30 + [5.01] * 5, np.geomspace(9, 1, 60).tolist(), [1.0, 100.0, 1.0]])
def test_what_is_usual_is_no_spike(tmp_path, stream, losses):
    """Losses that hardly differ, fall fast, or are too few."""
    assert _run(tmp_path, stream, losses) == []


def test_the_batch_is_what_the_step_has_seen(tmp_path, stream):
    (found,) = _run(tmp_path, stream, [1.0] * 30 + [9.0])
    wanted = [
        {"record": str(segment.record), "template": segment.template, "row": row}
        for row in range(4)
        for segment in stream.segments(30, row)
    ]
    assert found["batch"] == {"sst2": wanted}
    # Beside the batch itself: a row has as many segments as are listed of it.
    assert stream.batch(30)["segments"].max(axis=1).tolist() == np.bincount([one["row"] for one in wanted]).tolist()


def test_a_loss_that_is_not_finite_is_one_from_the_first_step_on(tmp_path, stream, capsys):
    found = _run(tmp_path, stream, [NAN, 1.0, float("inf")])
    assert [(one["step"], one["loss"], one["median"]) for one in found] == [(1, None, None), (3, None, None)]
    assert "step 1: the loss is nan; what was in its batch is in" in capsys.readouterr().out


def test_a_start_goes_on_where_the_last_one_was(tmp_path, stream):
    """Steps that are taken again are looked at again, with what was usual before them."""
    losses = [1.0, 1.1, 1.2] * 10 + [9.0] + [1.0, 1.1] * 5 + [8.0]
    whole = _run(tmp_path, stream, losses)
    assert [one["step"] for one in whole] == [31, 42]
    text = (tmp_path / "spikes.jsonl").read_bytes()
    with (tmp_path / "spikes.jsonl").open("a") as file:
        file.write('{"step": 44, "lo')
    for first_step in (30, 35, 42):
        assert _run(tmp_path, stream, losses[first_step:], first_step) == whole
        assert (tmp_path / "spikes.jsonl").read_bytes() == text
    assert _run(tmp_path, stream, losses[:5], 0) == []


def test_there_is_an_end_to_it(tmp_path, stream, capsys):
    found = _run(tmp_path, stream, [NAN] * 130)
    assert len(found) == 100 and "last of 100" in capsys.readouterr().out


def test_one_process_writes(tmp_path, stream):
    assert _run(tmp_path, stream, [NAN], primary=False) == []


def test_the_batch_that_ended_a_run_is_there(tmp_path, prepared, monkeypatch):
    """The hook comes before the one that ends the run."""
    sound = Figures.fetched
    broken = lambda *given: (sound(*given)[0] | {"loss": NAN}, {})  # noqa: E731
    monkeypatch.setattr(Figures, "fetched", broken)
    with pytest.raises(FlanError, match="step 1 is not finite"):
        small_training.train(tmp_path, prepared, 3)
    (found,) = [json.loads(line) for line in (tmp_path / "spikes.jsonl").read_text().splitlines()]
    assert (found["step"], found["loss"]) == (1, None) and len(found["batch"]["sst2"]) >= 8
