"""DROP's numbers and spans against a naive second implementation, and against lm-evaluation-harness's."""

import itertools
import re
import string

import numpy as np
import pytest

from flan_jax.metrics import metric
from flan_jax.metrics.drop import spans_scores


def number(word):
    try:
        return float(word)
    except ValueError:
        return None


def bag(span):
    """The set of words of a span: numbers by their value, other words without punctuation and articles."""
    found = set()
    for piece in span.replace("-", " ").split(" "):
        piece = piece.lower()
        if number(piece) is None:
            piece = "".join(c for c in piece if c not in string.punctuation)
        if number(piece) is not None:
            piece = str(number(piece))
        found |= set(re.sub(r"\b(?:a|an|the)\b", " ", piece).split())
    return found


def bag_f1(wanted, given):
    numbers = {word for word in wanted if number(word) is not None}
    if numbers and not numbers & given:
        return 0.0
    if wanted == given == set():
        return 1.0
    return 2 * len(wanted & given) / (len(wanted) + len(given))


def naive_f1(wanted, given):
    """The best of all one-to-one pairings, tried one by one."""
    few, many = sorted(([bag(s) for s in wanted], [bag(s) for s in given]), key=len)
    swapped = len(wanted) > len(given)
    score = (lambda f, m: bag_f1(m, f)) if swapped else bag_f1
    best = max(sum(map(score, few, chosen)) for chosen in itertools.permutations(many, len(few)))
    return best / len(many)


def spans(seed, count=300):
    """(spans wanted, spans given): one to four of each."""
    rng = np.random.default_rng(seed)
    pool = (
        "5 yards|7 yards|5|five|the Rams|Rams|St. Louis Rams|1,000|1000|1e3|21 October 1805|October|a|the|...||12-yard"
    )
    pool = [*(pool + "|12 yard|nan|٣|3|東京|Rosemary’s|5%|$5|-5|5.0|1_000|Mr. Smith|smith\nmr|U.S.|inf").split("|")]
    for _ in range(count):
        yield [rng.choice(pool, int(rng.integers(1, 5))).tolist() for _ in range(2)]


@pytest.mark.parametrize("seed", range(3))
def test_spans_are_paired_for_the_largest_sum(seed):
    for wanted, given in spans(seed):
        assert spans_scores(wanted, given)[1] == pytest.approx(naive_f1(wanted, given), abs=0.00501), (wanted, given)


@pytest.mark.parametrize("seed", range(3, 6))
def test_drop_is_that_of_lm_evaluation_harness(seed):
    other = pytest.importorskip("lm_eval.tasks.drop.utils")
    for wanted, given in spans(seed):
        assert spans_scores(wanted, given) == other.get_metrics(tuple(given), tuple(wanted)), (wanted, given)


def test_drop_of_hostile_pairs_is_that_of_lm_evaluation_harness(hostile_pairs):
    other = pytest.importorskip("lm_eval.tasks.drop.utils")
    expected = []
    for references, prediction in hostile_pairs:
        found = [other.get_metrics(prediction, (reference,)) for reference in references]
        expected.append([max(column) for column in zip(*found, strict=True)])
        one = metric("drop")([references], [prediction])
        assert one == pytest.approx({"drop_em": 100 * expected[-1][0], "drop_f1": 100 * expected[-1][1]})
    found = metric("drop")([r for r, _ in hostile_pairs], [p for _, p in hostile_pairs])
    em, f1 = 100 * np.mean(expected, axis=0)
    assert found == pytest.approx({"drop_em": em, "drop_f1": f1})


@pytest.mark.parametrize(
    ("references", "said", "em", "f1"),
    [
        (["1000"], "1,000", 100, 100),
        (["5.0"], "5", 100, 100),
        (["5 yards"], "7 yards", 0, 0),  # another number is nothing, whatever else is right
        (["5 yards"], "5", 0, 67),
        (["yards"], "7 yards", 0, 67),  # a number too many is a word too many
        (["12-yard"], "12 yard", 100, 100),
        (["21 October 1805"], "October 21, 1805", 0, 100),  # words are a set
        (["the Rams"], "Rams Rams", 0, 100),
        (["six", "7"], "7.", 100, 100),
        ([["Rams", "Bears"]], "Rams", 0, 50),  # an answer of two spans, of which one is given
        ([["Rams", "Bears"], "Rams"], "the rams", 100, 100),
    ],
)
def test_drop_by_hand(references, said, em, f1):
    assert metric("drop")([references], [said]) == pytest.approx({"drop_em": em, "drop_f1": f1})
