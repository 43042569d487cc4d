"""What a step's line says of its rows, its devices and its learning rate."""

import json
import types

import numpy as np
import optax
import pytest
import rich.progress
import small_training

from flan_jax import chips
from flan_jax.models import work
from flan_jax.training import figures, optimizers
from flan_jax.training.hooks.learning_rate import LearningRate
from flan_jax.training.hooks.progress import Progress, TimeLeft


def _rows(rng, rows, length):
    """Segments 1, 2, ... of random lengths, the rest padding."""
    found = np.zeros((rows, length), np.int32)
    for row in found:
        ends = np.sort(rng.choice(length, rng.integers(1, 5), replace=False))
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
            row[start:end] = number
    return found


@pytest.mark.parametrize("both_sides", [False, True])
def test_the_work_of_a_batch_is_that_of_its_segments(both_sides):
    """Beside a count of pairs of slots, one by one."""
    rng = np.random.default_rng(0)
    segments, ahead = _rows(rng, 3, 24), _rows(rng, 3, 17)
    weights = (rng.random(segments.shape) > 0.5) * 0.25  # of examples, say
    found = work.of_batch(
        {"segments": segments, "weights": weights} | ({"encoder_segments": ahead} if both_sides else {})
    )
    same = lambda a, b: [x == y > 0 for one, two in zip(a, b, strict=True) for x in one for y in two]  # noqa: E731
    later = [
        x == row[j] > 0 for row in segments for i, x in enumerate(row) for j in range(i + 1)
    ]  # a slot and those up to itself
    assert (found.slots, found.head_slots) == ((segments > 0).sum(), (weights > 0).sum())
    assert found.pairs == sum(later)
    if both_sides:
        assert found.encoder_slots == (ahead > 0).sum()
        assert found.encoder_pairs == sum(same(ahead, ahead))
        assert found.cross_pairs == sum(same(segments, ahead))


class _Device(types.SimpleNamespace):
    def memory_stats(self):
        return self.memory


def _machine(kind, dtype, *memory):
    devices = np.array([_Device(device_kind=kind, memory=one) for one in memory])
    return figures.Machine(types.SimpleNamespace(devices=devices, local_devices=devices, size=devices.size), dtype)


def test_a_share_of_the_peak_is_said_where_it_is_known():
    bytes_held = [{"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 7}]
    found = _machine("TPU v5 lite", "bfloat16", *bytes_held).figures(197e12, 2.0)
    assert found == {"flops_per_second": 98.5e12, "mfu": pytest.approx(0.25), "memory_peak_bytes": 7}
    assert set(_machine("TPU v5 lite", "float32", {}).figures(1e12, 1.0)) == {"flops_per_second"}
    assert set(_machine("cpu", "bfloat16", None, None).figures(1e12, 1.0)) == {"flops_per_second"}
    assert _machine("cpu", "bfloat16", None).figures(None, 1.0) == {}
    assert chips.peak_flops("TPU v3") == chips.chip("v3").peak_flops / 2, "a chip is two devices of JAX"


def _rates(optimizer, lines):
    hook, found = LearningRate(optimizer), []
    for step, values in lines:
        context = types.SimpleNamespace(values=dict(values))
        hook.after_step(context, step, values)
        found.append(context.values.get("learning_rate"))
    return found


def test_skipped_batches_do_not_move_the_learning_rate():
    lines = [(1, {}), (2, {"skipped": 1, "skipped_not_finite": 1}), (3, {"skipped": 0, "skipped_not_finite": 1})]
    assert _rates(optimizers.adafactor(8.0, warmup_steps=4), lines) == pytest.approx([2.0, 3.5, 3.5])
    assert _rates(optimizers.adafactor(8.0), lines) == [8.0, 8.0, 8.0]
    assert _rates(optax.sgd(0.1), lines) == [None, None, None], "it does not say"


def test_a_learning_rate_is_not_asked_for_step_by_step():
    calls = []
    optimizer = types.SimpleNamespace(rate=lambda count: calls.append(count) or 1.0 / (1 + count))
    steps = [1, 2, 1024, 1025, 5000, 4]
    assert _rates(optimizer, [(step, {}) for step in steps]) == pytest.approx([1 / step for step in steps])
    assert len(calls) == 4


def test_what_is_left_is_known_after_two_steps(capsys):
    values = {"loss": 1.0, "accuracy": 0.5, "tokens_per_second": 1e3, "slots_filled": 0.9}
    context = types.SimpleNamespace(primary=True, run=types.SimpleNamespace(train_steps=2**40), first_step=7)
    hook = Progress(1)
    hook.start(context)
    for step in range(8, 12):
        hook.after_step(context, step, values)
    hook.end(context)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.endswith(" left") for line in printed] == [False, False, False, True]


def test_a_bar_shows_no_time_before_two_steps_were_timed():
    task = rich.progress.Task(rich.progress.TaskID(0), "", 100, 7, lambda: 0.0, fields={"first": 7})
    shown = []
    for task.completed in range(7, 12):
        shown.append(str(TimeLeft().render(task)))
        task._progress.append(rich.progress.ProgressSample(float(task.completed), 1.0))
        task.start_time = 0.0
    assert shown[:3] == ["-:--:--"] * 3 and shown[4] == "0:01:29"


def test_the_first_step_and_the_last_are_always_shown(capsys):
    values = {"loss": 1.0, "accuracy": 0.5, "tokens_per_second": 1e3, "slots_filled": 0.9}
    context = types.SimpleNamespace(primary=True, run=types.SimpleNamespace(train_steps=11), first_step=7)
    hook = Progress(100)
    hook.start(context)
    for step in range(8, 12):
        hook.after_step(context, step, values)
    hook.end(context)
    printed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert printed == ["8/11", "11/11"]


def test_every_line_has_them(tmp_path, prepared, capsys):
    optimizer = optimizers.adafactor(1e-2, warmup_steps=2)
    small_training.train(tmp_path, prepared, 3, optimizer=optimizer, log_period=1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines] == pytest.approx([5e-3, 7.5e-3, 1e-2])
    for line in lines:
        assert 0 <= line["input_wait"] < 60 and line["flops_per_second"] * line["seconds"] > 1e5
        assert "mfu" not in line and line["cluster_loss"].keys() == {"sentiment"}
    assert "tokens/s" in (printed := capsys.readouterr().out) and "step 3/3" in printed
