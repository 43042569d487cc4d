import json
import math

import pytest

from flan_jax.verification.findings import FAILS, HOLDS, Tally


def _tally(*seen, count=1):
    tally = Tally()
    for difference, allowed, place in seen:
        tally.see(difference, allowed, {"record": place})
    if count:
        tally.count(examples=count)
    return tally.finding("rows", "rows are right")


def test_the_worst_is_measured_in_what_is_allowed():
    found = _tally((0.5, 1.0, "a"), (0.09, 0.1, "b"), (3.0, 100.0, "c"), count=3)
    assert (found.status, found.difference, found.allowed, found.place) == (HOLDS, 0.09, 0.1, {"record": "b"})
    assert found.line().startswith("ok      rows: rows are right; largest difference 0.09 (allowed 0.1) at record b; ")
    assert "compared: 3 examples" in found.line()


def test_one_is_said_of_one():
    tally = Tally()
    tally.see(0.0, 1.0, {"record": "a"})
    tally.count(ways=1, target_tokens=2, batches=1)
    assert "compared: 1 way, 2 target tokens, 1 batch" in tally.finding("gradient", "it is right").line()


@pytest.mark.parametrize("difference", [1.0001, math.nan, math.inf])
def test_what_is_above_or_no_number_fails(difference):
    found = _tally((0.1, 1.0, "a"), (difference, 1.0, "b"), (0.1, 1.0, "c"))
    assert found.status == FAILS and found.place == {"record": "b"}
    assert found.line().startswith("FAILED")
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["difference"] == (difference if math.isfinite(difference) else None)


def test_nan_is_not_allowed_to_be_the_measure():
    assert _tally((0.0, math.nan, "a")).status == FAILS


def test_the_first_of_equally_bad_places_is_kept():
    assert _tally((math.nan, 1.0, "a"), (math.inf, 1.0, "b")).place == {"record": "a"}


@pytest.mark.parametrize("seen", [(), ((0.0, 0.0, "a"),)])
def test_nothing_compared_does_not_hold(seen):
    found = _tally(*seen, count=0)
    assert found.status == FAILS
    assert seen or "nothing was compared" in found.line()


def test_what_has_to_be_equal_is_shown():
    tally = Tally()
    tally.count(tokens=2)
    assert tally.same([1, 2], [1, 2], {"token": 0})
    assert not tally.same("</s>", "<eos>", {"token": 1})
    found = tally.finding("rows", "rows are right")
    assert found.status == FAILS
    assert "not the same at token 1, found </s>, expected <eos>" in found.line()
    assert found.to_dict()["place"] == {"token": 1, "found": "</s>", "expected": "<eos>"}


def test_what_is_allowed_has_an_end():
    found = _tally((0.0, 1.0, "a"), (math.inf, math.inf, "b"))
    assert found.status == FAILS and found.place == {"record": "b"}


def test_a_fault_that_nothing_would_notice_does_not_hold():
    tally = Tally()
    tally.count(examples=1)
    tally.see(0.0, 0.0, {"record": "a"})
    tally.control("a leak")
    tally.control("a leak", 0.1, 0.1)
    tally.control("a leak", math.nan, 0.1)
    assert tally.could_miss("a leak")
    found = tally.finding("rows", "rows are right")
    assert found.status == FAILS
    assert "it could not notice a leak; no difference at all" in found.line()
    tally.control("a leak", 0.2, 0.1)
    tally.control("a leak", 0.0, 0.1)
    assert tally.finding("rows", "rows are right").status == HOLDS
