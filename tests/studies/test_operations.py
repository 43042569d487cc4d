"""Times of trainings before anything was timed."""

import numpy as np
import pytest

from flan_jax import configuration, study
from flan_jax.models.costs import parameters
from flan_jax.studies import estimates, operations, records
from flan_jax.studies.commands import EVAL, TRAIN, Step


def step(slots, head_slots, model="gemma3-270m", job=TRAIN):
    return Step("a", job, (), "/o", "done", slots=slots, head_slots=head_slots, model=model)


def test_a_training_that_was_not_timed_takes_its_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(operations, "rate", lambda: 1e9)
    shape = configuration.model_config("gemma3_270m")
    found = estimates.of(tmp_path, [step(1000, 1000)])["a"]
    assert found.of == 0 and found.seconds == pytest.approx(6 * parameters(shape) * 1000 / 1e9, rel=0.01)
    # The vocabulary, more than half of it, is multiplied where targets stand alone.
    fewer = estimates.of(tmp_path, [step(1000, 250)])["a"].seconds
    assert fewer == pytest.approx(found.seconds - 6 * 0.75 * shape.vocab_size * shape.embed_dim * 1000 / 1e9)
    assert estimates.of(tmp_path, [step(1000, 250, job=EVAL)])["a"].seconds is None
    assert estimates.of(tmp_path, [step(1000, 250, model=str(tmp_path))])["a"].seconds is None


def test_what_was_timed_counts_more(tmp_path):
    records.keep(tmp_path, step(1000, 250), 50.0)
    found = estimates.of(tmp_path, [step(2000, 500)])["a"]
    assert (found.seconds, found.of) == (pytest.approx(100), 1)


def test_the_rate_is_that_of_a_product():
    assert 1e8 < operations.rate() < 1e14 and operations.rate() == operations.rate()


def test_all_packaged_models_have_a_shape():
    for model in operations._SHAPES:
        assert operations.shape_of(model).num_layers > 0
    encoder = configuration.model_config("t5_1_1_small")
    assert np.isfinite(operations.seconds(encoder, 1000, 200)) and operations.seconds(encoder, 1000, 200) > 0


@pytest.mark.parametrize(
    "times, told",
    [
        ([(60, 1), (60, 2)], "2 steps, 0 done, 2 to do, about 2 min"),
        ([(None, 0)], "1 step, 0 done, 1 to do: 1 of a kind that was not timed here yet"),
        (
            [(60, 1), (None, 0), (30, 0)],
            "3 steps, 0 done, 3 to do: 1 in about 60 s, 1 in more than 30 s (by operations, at 2 GFLOP/s of this "
            "machine's processor; in less on an accelerator), 1 of a kind that was not timed here yet",
        ),
        ([], "1 step, 1 done, 0 to do"),
    ],
)
def test_what_is_not_known_is_in_no_sum(times, told, monkeypatch):
    monkeypatch.setattr(operations, "rate", lambda: 2e9)
    plan = [{"done": False, "seconds": seconds, "from": of} for seconds, of in times]
    assert study._summary(plan or [{"done": True, "seconds": None, "from": 0}]) == told
