"""Steps that are not finite: the run stops, or the batch is skipped, up to a budget."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_training import SMALL, train

from flan_jax.checkpoint import arrays, choosing
from flan_jax.errors import FlanError
from flan_jax.training import loss as loss_lib


def _metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _params(folder):
    return jax.tree.leaves(arrays.load_model(folder)[1])


def _sum(tokens):
    """Of the tokens, each times its place, so that two batches hardly have the same."""
    flat = tokens.reshape(-1).astype(jnp.uint32)
    return jnp.sum(flat * (1 + jnp.arange(flat.size, dtype=jnp.uint32)), dtype=jnp.uint32)


class Batches:
    """Sums over the tokens of a run's first steps, by which a step's loss knows its batch."""

    def start(self, context):
        self.sums = [int(_sum(jnp.asarray(context.stream.batch(step)["tokens"]))) for step in range(8)]
        assert len(set(self.sums)) == 8


class NotTaken:
    """Takes no update of some steps."""

    def __init__(self, *steps):
        self.steps = jnp.array(steps)

    def accept(self, taken):
        return ~jnp.any(taken.step + 1 == self.steps)


@pytest.fixture(scope="module")
def sums(prepared, tmp_path_factory):
    hook = Batches()
    train(tmp_path_factory.mktemp("sums"), prepared, 1, hooks=[hook])
    return hook.sums


@pytest.fixture
def break_steps(monkeypatch, sums):
    """Makes the loss of some steps, or only its gradient, a NaN: (steps, loss=True)."""
    sound = loss_lib.target_loss

    def of(*steps, loss=True):
        bad = jnp.array([sums[step - 1] for step in steps], jnp.uint32)

        def target_loss(model, params, batch, num_datasets):
            total, metrics = sound(model, params, batch, num_datasets)
            is_bad = jnp.any(_sum(batch["tokens"]) == bad)
            if loss:
                total = total * jnp.where(is_bad, jnp.nan, 1.0)
                return total, metrics | {"loss": total}
            # The root's slope at 0 is infinite, and 0 times that is a NaN.
            return total + 0.0 * jnp.sqrt(jnp.where(is_bad, 0.0 * total, 1.0)), metrics

        monkeypatch.setattr(loss_lib, "target_loss", target_loss)

    return of


@pytest.mark.parametrize("loss", [True, False])
def test_a_skipped_batch_is_as_if_it_had_not_been_taken(prepared, tmp_path, break_steps, capsys, loss):
    train(tmp_path / "sound", prepared, 5, hooks=[NotTaken(1, 3)])
    break_steps(1, 3, loss=loss)
    result = train(tmp_path / "skips", prepared, 5, on_nan=2)
    for one, other in zip(_params(tmp_path / "skips"), _params(tmp_path / "sound"), strict=True):
        np.testing.assert_array_equal(one, other)
    lines = _metrics(tmp_path / "skips")
    assert [line["skipped"] for line in lines] == [1, 0, 1, 0, 0]
    assert [line["skipped_not_finite"] for line in lines] == [1, 1, 2, 2, 2]
    assert [line["loss"] is None for line in lines] == [loss, False, loss, False, False]
    assert lines[0]["gradient_norm"] is None and lines[0]["parameter_norm"] > 0
    assert result.metrics["skipped_not_finite"] == 2
    said = capsys.readouterr().out
    assert "step 1 is not finite" in said and "batch skipped; 1 more may be." in said
    assert "2 batches were skipped, as a number was not finite (ON_NAN 2)." in said


def test_the_count_goes_on_after_a_start(prepared, tmp_path, break_steps):
    break_steps(2, 4)
    train(tmp_path, prepared, 3, on_nan=1)
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 4, "skipped_not_finite": 99}\n{"step": 5, "ski')  # of a killed start
    with pytest.raises(FlanError, match=r"step 4 is not finite .*; ON_NAN is 1, and as many .* of step 3") as caught:
        train(tmp_path, prepared, 5, on_nan=1)
    assert "\n" not in str(caught.value)
    train(tmp_path, prepared, 5, on_nan=2)  # which may change
    assert [line.get("skipped_not_finite") for line in _metrics(tmp_path)] == [0, 1, 1, 2, 2]
    train(tmp_path, prepared, 6, on_nan="stop")  # a start that skips none does not forget those
    train(tmp_path, prepared, 7, on_nan=3)
    assert [line.get("skipped_not_finite") for line in _metrics(tmp_path)][5:] == [2, 2]


def test_by_default_a_gradient_stops_it(prepared, tmp_path, break_steps):
    break_steps(1, loss=False)
    with pytest.raises(FlanError, match="^step 1 is not finite .* holds no checkpoint; lower the learning rate"):
        train(tmp_path, prepared, 3)
    assert _metrics(tmp_path) == [] and choosing.steps(tmp_path) == []


def test_an_update_that_is_not_finite(prepared, tmp_path, capsys):
    """Loss and gradient are sound. The optimizer's count stays, so that it is infinite again."""
    breaking = optax.sgd(lambda count: jnp.where(count < 2, 1e-2, jnp.inf))
    with pytest.raises(FlanError, match=r"^step 5 is not finite \(loss \d.*update_norm (inf|nan)\); ON_NAN is 2"):
        train(tmp_path, prepared, 8, optimizer=breaking, on_nan=2, checkpoint_period=1)
    assert choosing.latest_step(tmp_path) == 4 and "step 3 is not finite" in capsys.readouterr().out
    assert all(np.isfinite(leaf).all() for leaf in _params(tmp_path))


def test_a_batch_that_another_hook_refuses_is_not_counted(prepared, tmp_path):
    train(tmp_path, prepared, 3, hooks=[NotTaken(2)], on_nan=1)
    lines = _metrics(tmp_path)
    assert [(line["skipped"], line["skipped_not_finite"]) for line in lines] == [(0, 0), (1, 0), (0, 0)]
    assert lines[1]["loss"] > 0 and SMALL.num_layers == 2
