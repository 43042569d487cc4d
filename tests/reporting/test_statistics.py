"""Against scipy, scikit-learn, textbook loops, and simulations."""

import itertools
import time

import numpy as np
import pytest
import sacrebleu
from scipy import stats

from flan_jax.metrics import metric
from flan_jax.reporting import statistics
from flan_jax.reporting.samples import Sample

# -------------------------------------------------------------------------------------------------------- bootstrap


@pytest.mark.parametrize(("size", "replicates"), [(1, 3), (7, 50), (300, 40)])
def test_resamples_are_the_naive_loops(size, replicates):
    rng = np.random.default_rng(1)
    naive = np.zeros((replicates, size))
    for r, drawn in enumerate(rng.integers(0, size, (replicates, size))):
        for i in drawn:
            naive[r, i] += 1
    np.testing.assert_array_equal(statistics.counts_of_resamples(size, replicates, np.random.default_rng(1)), naive)


@pytest.mark.parametrize("shape", [(1, 1), (40, 1), (40, 7), (1, 5)])
@pytest.mark.parametrize("over_templates", [False, True])
def test_bootstrap_is_the_naive_loop(shape, over_templates):
    examples, templates = shape
    values = np.random.default_rng(2).random(shape)
    rng = np.random.default_rng(3)
    drawn_E = rng.integers(0, examples, (30, examples))
    drawn_T = rng.integers(0, templates, (30, templates)) if over_templates else [range(templates)] * 30
    naive = [np.mean([[values[e, t] for t in of_t] for e in of_e]) for of_e, of_t in zip(drawn_E, drawn_T, strict=True)]
    found = statistics.bootstrap(values, np.random.default_rng(3), 30, over_templates=over_templates)
    np.testing.assert_allclose(found, naive, rtol=1e-5)


def test_bootstrap_in_blocks_has_the_same_mean_and_spread(monkeypatch):
    values = np.random.default_rng(4).random((60, 3))
    whole = statistics.bootstrap(values, np.random.default_rng(5), 4000)
    monkeypatch.setattr(statistics, "_AT_ONCE", 1000)
    blocks = statistics.bootstrap(values, np.random.default_rng(5), 4000)
    assert len(blocks) == len(whole) == 4000
    np.testing.assert_allclose([blocks.mean(), blocks.std()], [whole.mean(), whole.std()], rtol=0.05)


def test_the_interval_is_scipys():
    values = np.random.default_rng(6).random(80)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(7))
    ours = statistics.Interval(values.mean(), statistics.bootstrap(values[:, None], np.random.default_rng(8), 9999))
    np.testing.assert_allclose(ours.bounds, theirs.confidence_interval, atol=0.003)
    assert ours.stderr == pytest.approx(theirs.standard_error, rel=0.03)
    assert ours.stderr == pytest.approx(values.std(ddof=1) / np.sqrt(80), rel=0.04)


@pytest.mark.parametrize("alike", [True, False])
def test_a_difference_over_templates_is_the_naive_loop(alike):
    rng = np.random.default_rng(9)
    first, other = rng.random((20, 4)), rng.random((20, 4 if alike else 6))
    again = np.random.default_rng(10)
    drawn_E = again.integers(0, 20, (25, 20))
    drawn_T = again.integers(0, 4, (25, 4))
    drawn_U = drawn_T if alike else again.integers(0, 6, (25, 6))
    naive = [
        other[np.ix_(e, u)].mean() - first[np.ix_(e, t)].mean()
        for e, t, u in zip(drawn_E, drawn_T, drawn_U, strict=True)
    ]
    found = statistics.differences(
        first, other, np.random.default_rng(10), 25, over_templates=True, same_templates=alike
    )
    np.testing.assert_allclose(found, naive, atol=1e-6)


@pytest.mark.parametrize("chance", [0.5, 0.9])
def test_intervals_over_examples_cover_the_truth_about_95_times_in_100(chance):
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        values = (rng.random((100, 1)) < chance).astype(float)
        low, high = statistics.Interval(0.0, statistics.bootstrap(values, rng, 400)).bounds
        covered += low <= chance <= high
    assert 0.91 < covered / 400 < 0.98


def test_intervals_over_templates_cover_what_intervals_over_examples_do_not():
    """Templates that differ: the truth is the mean over all templates that might have been written."""
    rng = np.random.default_rng(12)
    narrow = wide = 0
    for _ in range(300):
        chances_T = np.clip(rng.normal(0.5, 0.1, 8), 0, 1)
        values = (rng.random((150, 8)) < chances_T).astype(float)
        over_examples = statistics.Interval(0.0, statistics.bootstrap(values, rng, 300)).bounds
        over_both = statistics.Interval(0.0, statistics.bootstrap(values, rng, 300, over_templates=True)).bounds
        narrow += over_examples[0] <= 0.5 <= over_examples[1]
        wide += over_both[0] <= 0.5 <= over_both[1]
    assert narrow / 300 < 0.6 and 0.86 < wide / 300 <= 0.98


# ------------------------------------------------------------------------------- examples that are drawn together


def conversations(rng, groups=40, skill=0.5, spread=0.3):
    """(values [E, 1], groups [E]) of conversations, some of which are easy and some hard."""
    sizes = rng.integers(1, 16, groups)
    chances = np.clip(rng.normal(skill, spread, groups), 0, 1)
    groups_E = np.repeat(np.arange(groups), sizes)
    return (rng.random(len(groups_E)) < chances[groups_E]).astype(float)[:, None], groups_E


@pytest.mark.parametrize("over_templates", [False, True])
def test_groups_are_drawn_whole(over_templates):
    rng = np.random.default_rng(20)
    values_ExT, groups_E = rng.random((30, 3)), rng.integers(0, 8, 30)
    groups_E = np.unique(groups_E, return_inverse=True)[1]
    count = groups_E.max() + 1
    again = np.random.default_rng(21)
    drawn_G, drawn_T = again.integers(0, count, (25, count)), again.integers(0, 3, (25, 3))
    naive = []
    for groups, templates in zip(drawn_G, drawn_T, strict=True):
        rows = np.concatenate([values_ExT[groups_E == g] for g in groups])
        naive.append(rows[:, templates if over_templates else slice(None)].mean())
    sample = Sample.of_values(values_ExT, groups_E)
    found = statistics.bootstrap(sample, np.random.default_rng(21), 25, over_templates=over_templates)
    np.testing.assert_allclose(found, naive, atol=1e-12)
    assert sample.value == pytest.approx(values_ExT.mean())


def test_turns_of_a_conversation_are_not_independent():
    """Of intervals that take them so, far fewer than 95 in 100 hold the truth; nor does a test err once in twenty."""
    rng = np.random.default_rng(22)
    alone = together = wrong_alone = wrong_together = 0
    for _ in range(200):
        values, groups_E = conversations(rng)
        for grouped in (False, True):
            sample = Sample.of_values(values, groups_E if grouped else None)
            low, high = statistics.Interval(0.0, statistics.bootstrap(sample, rng, 300)).bounds
            other = Sample.of_values(np.full_like(values, 0.5), groups_E if grouped else None)
            pseudo = sample.pseudo_values() - other.pseudo_values()
            p = statistics.p_value(pseudo.mean(), statistics.permuted_means(pseudo, rng, 300))
            together, alone = together + grouped * (low <= 0.5 <= high), alone + (not grouped) * (low <= 0.5 <= high)
            wrong_together, wrong_alone = (
                wrong_together + grouped * (p < 0.05),
                wrong_alone + (not grouped) * (p < 0.05),
            )
    assert alone / 200 < 0.8 and 0.88 < together / 200 < 0.99
    assert wrong_alone / 200 > 0.2 and wrong_together / 200 < 0.11


def test_pseudo_values_of_a_mean_are_the_values():
    values = np.random.default_rng(23).random((50, 4))
    np.testing.assert_allclose(Sample.of_values(values).pseudo_values(), values.mean(1), atol=1e-10)
    assert Sample.of_values(values[:1]).pseudo_values().tolist() == [pytest.approx(values[0].mean())]


# ------------------------------------------------------------------------------------------ metrics of a whole set


def texts(rng, count, right):
    words = [f"w{i}" for i in range(30)]
    wanted = [" ".join(rng.choice(words, rng.integers(5, 12))) for _ in range(count)]
    said = [" ".join(w if rng.random() < right else str(rng.choice(words)) for w in text.split()) for text in wanted]
    return [[text] for text in wanted], said


def test_an_interval_of_bleu_is_sacrebleus():
    rng = np.random.default_rng(24)
    targets, said = texts(rng, 80, 0.8)
    bleu = metric("bleu")
    sample = Sample.of_statistics([bleu.statistics(targets, said)[:, None]], bleu.of_sums)
    theirs = sacrebleu.BLEU(tokenize="intl").corpus_score(said, [[t[0] for t in targets]], n_bootstrap=1000)
    assert sample.value == pytest.approx(theirs.score / 100)
    ours = statistics.Interval(sample.value, statistics.bootstrap(sample, rng, 1000))
    low, high = ours.bounds
    assert (low + high) / 2 == pytest.approx(theirs._mean / 100, abs=0.01)
    assert (high - low) / 2 == pytest.approx(theirs._ci / 100, rel=0.12)


@pytest.mark.parametrize("name", ["matthews", "pearson_spearman", "bleu"])
def test_resamples_of_a_metric_are_the_metric_of_the_resamples(name):
    rng = np.random.default_rng(25)
    found = metric(name)
    if name == "bleu":
        targets, said = texts(rng, 30, 0.7)
    else:
        labels = ("0", "2.5", "5") if name == "pearson_spearman" else ("yes", "no")
        targets = [[str(label)] for label in rng.choice(labels, 30)]
        said = [t[0] if rng.random() < 0.6 else str(rng.choice(labels)) for t in targets]
    sample = Sample.of_statistics([found.statistics(targets, said)[:, None]], found.of_sums)
    drawn = np.random.default_rng(26).integers(0, 30, (40, 30))
    naive = [found.share(found([targets[i] for i in of], [said[i] for i in of])) for of in drawn]
    np.testing.assert_allclose(statistics.bootstrap(sample, np.random.default_rng(26), 40), naive, atol=1e-9)


def test_a_test_of_matthews_errs_once_in_twenty_and_sees_a_difference():
    rng = np.random.default_rng(27)
    found = metric("matthews")

    def sample(targets, skill):
        said = ["yes" if (rng.random() < skill) == (t == ["yes"]) else "no" for t in targets]
        return Sample.of_statistics([found.statistics(targets, said)[:, None]], found.of_sums)

    wrong = seen = 0
    for _ in range(150):
        targets = [["yes"] if rng.random() < 0.7 else ["no"] for _ in range(120)]
        for skill in (0.65, 0.85):
            first, other = sample(targets, 0.65), sample(targets, skill)
            pseudo = other.pseudo_values() - first.pseudo_values()
            assert pseudo.mean() == pytest.approx(other.value - first.value, abs=0.02)
            p = statistics.p_value(other.value - first.value, statistics.permuted_means(pseudo, rng, 300))
            wrong, seen = wrong + (skill == 0.65) * (p < 0.05), seen + (skill == 0.85) * (p < 0.05)
    assert wrong / 150 < 0.1 and seen / 150 > 0.8


# ------------------------------------------------------------------------------------------------------------ tests


@pytest.mark.parametrize("seed", range(4))
def test_the_permutation_test_is_scipys(seed):
    rng = np.random.default_rng(seed)
    differences = rng.normal(0.15 * seed, 1, 60)
    theirs = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    null = statistics.permuted_means(differences, np.random.default_rng(2))
    assert statistics.p_value(differences.mean(), null) == pytest.approx(theirs.pvalue, abs=0.015)


def test_all_permutations_of_a_small_sample():
    differences = np.array([0.5, -0.25, 1.0, 0.75, 0.0, -0.5, 1.0, 0.25])
    every = [np.mean(differences * signs) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.abs(every) >= abs(differences.mean()) - 1e-12)
    null = statistics.permuted_means(differences, np.random.default_rng(3), 40_000)
    assert statistics.p_value(differences.mean(), null) == pytest.approx(exact, abs=0.01)


def test_with_right_and_wrong_alone_it_is_mcnemars_exact_test():
    for only_first, only_other in ((5, 17), (10, 12), (0, 9)):
        differences = np.array([-1.0] * only_first + [1.0] * only_other + [0.0] * 70)
        exact = stats.binomtest(only_other, only_first + only_other).pvalue
        null = statistics.permuted_means(differences, np.random.default_rng(4), 40_000)
        assert statistics.p_value(differences.mean(), null) == pytest.approx(exact, abs=0.008)


def test_no_difference_has_p_1():
    null = statistics.permuted_means(np.zeros(60), np.random.default_rng(5))
    assert statistics.p_value(0.0, null) == 1.0
    tied = np.array([1.0, -1.0] * 40)
    assert statistics.p_value(0.0, statistics.permuted_means(tied, np.random.default_rng(5))) == 1.0


def test_of_alike_runs_one_in_twenty_is_told_apart():
    rng = np.random.default_rng(6)
    found = []
    for _ in range(1200):
        skill = rng.random(80)  # examples are easy or hard for both
        a, b = (rng.random(80) < skill).astype(float), (rng.random(80) < skill).astype(float)
        null = statistics.permuted_means(b - a, rng, 500)
        found.append(statistics.p_value((b - a).mean(), null))
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.075


def _textbook_holm(p_values):
    """Step by step: the smallest is rejected at alpha / m, the next at alpha / (m - 1), until one is not."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])

    def rejected(alpha):
        out = set()
        for step, i in enumerate(order):
            if p_values[i] > alpha / (len(p_values) - step):
                break
            out.add(i)
        return out

    return rejected


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_textbook_does(seed):
    rng = np.random.default_rng(seed)
    p_values = rng.random(12) ** 4
    p_values[3] = p_values[4]  # a tie
    corrected = statistics.holm(dict(enumerate(p_values)))
    for alpha in (0.001, 0.01, 0.05, 0.2, 0.9):
        assert {i for i, p in corrected.items() if p <= alpha} == _textbook_holm(p_values)(alpha)
    assert all(p <= corrected[i] <= 1 for i, p in enumerate(p_values))


def test_holm_of_none_and_of_one():
    assert statistics.holm({}) == {}
    assert statistics.holm({"a": 0.03}) == {"a": 0.03}
    assert statistics.holm({"a": 0.01, "b": 0.02, "c": 0.9}) == {"a": 0.03, "b": 0.04, "c": 0.9}


# ---------------------------------------------------------------------------------------------------------- answers


def test_quartiles_are_numpys_and_of_one_value_itself():
    values = [0.3, 0.1, 0.9, 0.4]
    assert statistics.quartiles(values) == pytest.approx(tuple(np.quantile(values, (0.5, 0.25, 0.75))))
    assert statistics.quartiles([0.5]) == (0.5, 0.5, 0.5)


# ------------------------------------------------------------------------------------------------------ calibration


def test_calibration_error_is_the_naive_one():
    rng = np.random.default_rng(6)
    confidences = np.concatenate([rng.random(500), [0.1, 0.2, 1.0, 0.30000000000000004]])
    right = rng.random(504) < confidences**2
    naive = 0.0
    for b in range(10):
        here = [i for i, c in enumerate(confidences) if b / 10 < c <= (b + 1) / 10 or (b == 0 and c == 0)]
        if here:
            gap = np.mean([right[i] for i in here]) - np.mean([confidences[i] for i in here])
            naive += len(here) / 504 * abs(gap)
    whole = statistics.Calibration.of(confidences, right)
    np.testing.assert_allclose(whole.error, naive, atol=0.002)  # a border may round to either side
    halves = (statistics.Calibration.of(confidences[i::2], right[i::2]) for i in (0, 1))
    np.testing.assert_allclose(sum(halves, statistics.Calibration.of(confidences[:0], right[:0])).error, whole.error)
    assert sum(b["count"] for b in whole.to_list()) == 504


def test_option_probabilities_are_a_softmax():
    found = statistics.option_probabilities(np.array([-1000.0, -1000.0 + np.log(3)]))
    np.testing.assert_allclose(found, [0.25, 0.75])


# ------------------------------------------------------------------------------------------------------------- time


def test_a_dataset_of_ten_thousand_examples_takes_seconds():
    values = (np.random.default_rng(7).random((10_000, 10)) < 0.5).astype(float)
    start = time.process_time()
    statistics.bootstrap(values, np.random.default_rng(8), over_templates=True)
    statistics.permuted_means(values.mean(1) - 0.5, np.random.default_rng(9))
    assert time.process_time() - start < 20  # about 2 on a quiet core
