import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration
from flan_jax.training import loss


class LinearModel:
    """A stand-in with the model's interface, so that the loss is checked against numpy alone."""

    def __init__(self, head_chunk=64):
        self.config = configuration.model_config("tiny", {"head_chunk": head_chunk})  # for how loops are compiled

    def hidden(self, params, tokens, positions, segments, branches=None):
        del positions, segments, branches
        return params["embedding"][tokens]

    def head(self, params):
        return params

    def logits(self, params, hidden):
        return hidden @ params["embedding"].T


def _batch(rng, rows, length, slots, vocab, datasets, used):
    weights = np.zeros((rows, slots), np.float32)
    weights[:, :used] = 1
    return {
        "tokens": rng.integers(vocab, size=(rows, length), dtype=np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "segments": np.ones((rows, length), np.int32),
        "target_positions": rng.integers(length, size=(rows, slots), dtype=np.int32),
        "targets": rng.integers(vocab, size=(rows, slots), dtype=np.int32),
        "weights": weights,
        "dataset_ids": rng.integers(datasets, size=(rows, slots), dtype=np.int32),
    }


@pytest.mark.parametrize("head_chunk", [64, 256])
@pytest.mark.parametrize(("slots", "used"), [(256, 100), (100, 100), (32, 5), (64, 0)])
def test_loss_matches_naive_reference(slots, used, head_chunk):
    model = LinearModel(head_chunk)
    rng = np.random.default_rng(slots + used)
    batch = _batch(rng, 3, 40, slots, 17, 4, used)
    params = {"embedding": rng.normal(size=(17, 8)).astype(np.float32)}
    total, metrics = jax.jit(lambda p, b: loss.target_loss(model, p, b, 4))(params, batch)

    embedding = params["embedding"].astype(np.float64)
    expected, correct = 0.0, 0
    by_dataset = np.zeros(4)
    for b in range(3):
        for t in range(used):
            logits = embedding @ embedding[batch["tokens"][b, batch["target_positions"][b, t]]]
            nll = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[batch["targets"][b, t]]
            expected += nll
            by_dataset[batch["dataset_ids"][b, t]] += nll
            correct += logits.argmax() == batch["targets"][b, t]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["dataset_loss"], by_dataset, rtol=1e-4, atol=1e-4)
    assert metrics["correct"] == correct
    assert metrics["weight"] == 3 * used


@pytest.mark.parametrize("head_chunk", [64, 150])
def test_gradient_matches_autodiff_of_the_whole(head_chunk):
    rng = np.random.default_rng(1)
    batch = _batch(rng, 2, 30, 150, 11, 2, 70)
    params = {"embedding": rng.normal(size=(11, 6)).astype(np.float32)}

    def whole(params):
        hidden = params["embedding"][batch["tokens"]]
        hidden = jnp.take_along_axis(hidden, batch["target_positions"][..., None], axis=1)
        log_probs = jax.nn.log_softmax(hidden @ params["embedding"].T)
        picked = jnp.take_along_axis(log_probs, batch["targets"][..., None], axis=-1)[..., 0]
        return -(picked * batch["weights"]).sum()

    ours = jax.grad(lambda p: loss.target_loss(LinearModel(head_chunk), p, batch, 2)[0])(params)
    np.testing.assert_allclose(ours["embedding"], jax.grad(whole)(params)["embedding"], rtol=1e-4, atol=1e-5)
