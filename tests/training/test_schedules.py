"""Learning rates by name, beside their formulas written out, and those of T5X and optax."""

import math

import numpy as np
import optax
import pytest

from flan_jax.errors import FlanError
from flan_jax.training import optimizers
from flan_jax.training.optimizers import schedules

PEAK, WARMUP, STEPS = 0.5, 10, 110


def _linear(done):
    return 1 - 0.8 * done  # to 0.2


FORMULAS = {
    "constant": lambda n: 1.0,
    "linear(end=0.2)": lambda n: _linear(n / 100),
    "cosine(end=0.2)": lambda n: 0.2 + 0.8 * (0.5 + 0.5 * math.cos(math.pi * n / 100)),
    "cosine": lambda n: 0.5 + 0.5 * math.cos(math.pi * n / 100),
    "rsqrt": lambda n: math.sqrt(10 / (n + 10)),  # T5X: sqrt(warm-up) / sqrt(step)
    "rsqrt(timescale=40)": lambda n: math.sqrt(40 / (n + 40)),
    "stable_decay(decay=0.2, end=0.2)": lambda n: 1.0 if n < 78 else _linear((n - 78) / 22),
    "stable_decay(decay=0.5, shape='sqrt')": lambda n: 1.0 if n < 45 else 1 - math.sqrt((n - 45) / 55),
    "stable_decay(decay=1e-9, shape='cosine')": lambda n: 1.0,  # falls in the last step of all, which begins at 1
}


@pytest.mark.parametrize("name", FORMULAS)
def test_schedules_are_their_formulas(name):
    rate = optimizers.schedule(PEAK, WARMUP, name, STEPS)
    for step in (0, 1, 5, 9):
        assert float(rate(step)) == pytest.approx(PEAK / 10 + (PEAK - PEAK / 10) * step / 10)
    for step in (10, 11, 50, 87, 88, 89, 100, 109):
        assert float(rate(step)) == pytest.approx(PEAK * FORMULAS[name](step - 10), rel=1e-5, abs=1e-7)
    assert all(0 <= float(rate(step)) <= PEAK for step in (110, 10**6))


def test_without_a_warm_up_they_begin_at_the_highest():
    for name in schedules.NAMES:
        assert float(optimizers.schedule(PEAK, 0, name, STEPS)(0)) == pytest.approx(PEAK)


def test_cosine_is_that_of_optax():
    theirs = optax.warmup_cosine_decay_schedule(PEAK / WARMUP, PEAK, WARMUP, STEPS, end_value=0.1 * PEAK)
    ours = optimizers.schedule(PEAK, WARMUP, "cosine(end=0.1)", STEPS)
    np.testing.assert_allclose([ours(s) for s in range(STEPS)], [theirs(s) for s in range(STEPS)], rtol=1e-5)


def test_what_run_json_has_of_them():
    assert schedules.described(0.1, 5) == {"learning_rate": 0.1, "warmup_steps": 5}
    assert schedules.described(0.1, 0, "constant", 10) == {"learning_rate": 0.1, "warmup_steps": 0}
    found = schedules.described(0.1, 0, "stable_decay", 10)["schedule"]
    assert found == {"name": "stable_decay", "decay": 0.1, "end": 0.0, "shape": "linear", "steps": 10}
    # One that does not end with the run is the same with more steps, so that the run may go on.
    assert schedules.described(0.1, 5, "rsqrt", 10) == schedules.described(0.1, 5, "rsqrt", 20)


def test_a_rate_is_told_where_it_is_known():
    assert optimizers.rate(optimizers.lion(0.2, 4), 0) == pytest.approx(0.05)
    assert optimizers.rate(optax.sgd(0.1), 0) is None
    assert optimizers.rate(optimizers.factory("optax:sgd(learning_rate=0.1)"), 0) == pytest.approx(0.1)
    assert optimizers.rate(optimizers.factory("optax:identity"), 0) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((0.1, 0, "linear", None), "'linear' has to know the steps of the whole run"),
        ((0.1, 10, "linear", 10), "leaves none of 10 to fall in; give a warm-up of at most 9"),
        ((0.1, 5, "stable_decay(decay=0.9)", 10), "a decay of 9 steps (decay=0.9) are more than all 10 steps"),
        ((0.1, 0, "stable_decay(decay=0)", 10), "decay is 0; it has to be a number above 0 and of at most 1"),
        ((0.1, 0, "rsqrt(timescale=0)", 10), "timescale is 0; it has to be a whole number"),
        ((0.1, 0, "cosine(end='x')", 10), "end is 'x'"),
        ((0.1, 0, "cosine(0.1)", 10), "named arguments"),
        ((0.1, 0, "cosine(", 10), "cannot be read"),
        ((0.1, 0, "", 10), "cannot be read"),
        ((0.1, 0, "wsd", 10), "unknown schedule 'wsd'"),
    ],
)
def test_schedules_that_are_none(given, says):
    with pytest.raises(FlanError) as caught:
        optimizers.schedule(*given)
    assert says in str(caught.value) and "\n" not in str(caught.value)
