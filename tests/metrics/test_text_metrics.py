"""ROUGE, BLEU and the distance in words against the libraries called directly and naive implementations."""

import collections
import re

import numpy as np
import pytest
import sacrebleu
from nltk.translate import bleu_score
from rouge_score import rouge_scorer
from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International

from flan_jax.metrics import metric

KINDS = ("rouge1", "rouge2", "rougeLsum")


def columns(pairs):
    return [r for r, _ in pairs], [p for _, p in pairs]


# --------------------------------------------------------------------------------------------------------------- ROUGE


def naive_words(text):
    return [w for w in re.sub(r"[^a-z0-9]+", " ", text.lower()).split(" ") if w]


def f_measure(same, wanted, given):
    return 2 * same / (wanted + given) if same else 0.0


def naive_ngrams(reference, prediction, n):
    """ROUGE-n without a stemmer (Lin 2004)."""
    counts = [
        collections.Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        for words in (naive_words(reference), naive_words(prediction))
    ]
    return f_measure(sum((counts[0] & counts[1]).values()), *(sum(c.values()) for c in counts))


def common_places(wanted, given):
    """Places in `wanted` of one longest common subsequence."""
    length = np.zeros((len(wanted) + 1, len(given) + 1), int)
    for i, j in np.ndindex(len(wanted), len(given)):
        same = wanted[i] == given[j]
        length[i + 1, j + 1] = length[i, j] + 1 if same else max(length[i, j + 1], length[i + 1, j])
    i, j, places = len(wanted), len(given), set()
    while i and j:
        if wanted[i - 1] == given[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif length[i, j - 1] > length[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return places


def naive_lsum(reference, prediction):
    """ROUGE-Lsum: each sentence of the reference against all of the prediction, sentences split at " . " and lines."""
    split = [[s for s in re.split(r"\n", t.replace(" . ", " .\n"))] for t in (reference, prediction)]
    wanted, given = ([naive_words(s) for s in sentences if s] for sentences in split)
    there = [collections.Counter(w for s in sentences for w in s) for sentences in (wanted, given)]
    total, same = [sum(c.values()) for c in there], 0
    if not all(total):
        return 0.0
    for sentence in wanted:
        for place in sorted(set().union(*(common_places(sentence, g) for g in given))):
            if there[0][sentence[place]] > 0 and there[1][sentence[place]] > 0:
                same += 1
                there[0][sentence[place]] -= 1
                there[1][sentence[place]] -= 1
    return f_measure(same, *total)


def test_rouge_is_that_of_the_definition(hostile_texts):
    for references, prediction in hostile_texts:
        found = metric("rouge")([references], [prediction])
        assert found["rouge1"] == pytest.approx(100 * max(naive_ngrams(r, prediction, 1) for r in references))
        assert found["rouge2"] == pytest.approx(100 * max(naive_ngrams(r, prediction, 2) for r in references))
        expected = 100 * max(naive_lsum(r, prediction) for r in references)
        assert found["rougeLsum"] == pytest.approx(expected, abs=1e-9), (references, prediction)


@pytest.mark.parametrize(("name", "stemmer", "suffix"), [("rouge", False, ""), ("rouge_stemmed", True, "_stemmed")])
def test_rouge_is_that_of_rouge_score(name, stemmer, suffix, hostile_texts):
    scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=stemmer)
    split = (lambda text: text) if stemmer else (lambda text: text.replace(" . ", " .\n"))
    scores = []
    for references, prediction in hostile_texts:
        by_reference = [scorer.score(split(reference), split(prediction)) for reference in references]
        scores.append([max(s[kind].fmeasure for s in by_reference) for kind in KINDS])
    expected = {f"{kind}{suffix}": v for kind, v in zip(KINDS, 100 * np.mean(scores, axis=0), strict=True)}
    assert metric(name)(*columns(hostile_texts)) == pytest.approx(expected)
    assert min(expected.values()) > 5


def test_the_papers_rouge_and_the_later_one_differ():
    target = "The cats were running home . A dog barked at them ."
    said = "A dog barks at the running cat . It was home ."
    paper, later = metric("rouge")([target], [said]), metric("rouge_stemmed")([target], [said])
    # Of ten words each, "the", "running", "home", "a", "dog" and "at" are common; by their stems cats and barked too.
    assert paper["rouge1"] == pytest.approx(60.0) and later["rouge1_stemmed"] == pytest.approx(80.0)
    # "a dog at" and then "the running home": in two sentences, six words; in one, four ("a dog bark at").
    assert paper["rougeLsum"] == pytest.approx(60.0) and later["rougeLsum_stemmed"] == pytest.approx(40.0)


def test_sentences_are_split_where_the_paper_splits_them():
    first, second = "red foxes sleep all day .", "brown dogs bark at night ."
    swapped, target = f"{second} {first}", f"{first} {second}"
    found = metric("rouge")([target], [swapped])
    assert found["rougeLsum"] == pytest.approx(100.0)  # the order of sentences is free
    assert metric("rouge_stemmed")([target], [swapped])["rougeLsum_stemmed"] == pytest.approx(50.0)


# ---------------------------------------------------------------------------------------------------------------- BLEU


@pytest.mark.parametrize(("name", "tokenizer"), [("bleu", "intl"), ("bleu_13a", "13a")])
def test_bleu_is_that_of_sacrebleu(name, tokenizer, hostile_texts):
    targets, predictions = columns(hostile_texts)
    scorer = sacrebleu.BLEU(tokenize=tokenizer, smooth_method="exp", lowercase=False)
    first = [[references[0] for references in targets]]
    expected = scorer.corpus_score(predictions, first).score
    assert metric(name)([references[0] for references in targets], predictions) == {name: pytest.approx(expected)}
    # As many references for each text: the last one repeated where there are less, which changes nothing in BLEU.
    filled = [[*references, *[references[-1]] * (3 - len(references))] for references in targets]
    several = scorer.corpus_score(predictions, [list(column) for column in zip(*filled, strict=True)]).score
    assert metric(name)(targets, predictions) == {name: pytest.approx(several)}
    assert several > expected > 5


@pytest.mark.parametrize("name", ["bleu", "bleu_13a"])
def test_bleu_of_equal_texts_is_a_share(name):
    texts = [f"the quick brown fox number {i} jumps over it" for i in range(60)]
    assert sacrebleu.corpus_bleu(texts, [texts]).score > 100  # by rounding
    found = metric(name)
    assert found.share(found(texts, texts)) == 1
    counts_ExK = found.statistics(texts, texts)
    assert (found.of_sums(np.cumsum(counts_ExK, axis=0)) <= 1).all()


def test_bleu_is_that_of_the_formula():
    rng = np.random.default_rng(7)
    text = "Das Haus, das kleine; Haus! am See: kostet 3.500 € – „viel“ mehr (als 1,5) erwartet 東京 ¿sí?"
    targets = [" ".join(rng.choice(text.split(), 20)) for _ in range(60)]
    predictions = [" ".join(w if rng.random() < 0.85 else "x" for w in t.split()) for t in targets]
    cut = TokenizerV14International()
    by_nltk = bleu_score.corpus_bleu([[cut(t).split()] for t in targets], [cut(p).split() for p in predictions])
    assert metric("bleu")(targets, predictions)["bleu"] == pytest.approx(100 * by_nltk)


@pytest.mark.parametrize(
    "target", ["Preis: 5€ – „sehr billig“…", "¡Hola! ¿Qué tal? «Muy bien»", "L’homme n’a rien dit d’autre"]
)
def test_the_papers_bleu_and_sacrebleus_own_differ(target):
    said = target.replace("€", " Euro").replace("«", '"').replace("’", "' ")
    found = {name: metric(name)([target] * 3, [said] * 3)[name] for name in ("bleu", "bleu_13a")}
    for name, tokenizer in (("bleu", "intl"), ("bleu_13a", "13a")):
        expected = sacrebleu.corpus_bleu([said] * 3, [[target] * 3], tokenize=tokenizer).score
        assert found[name] == pytest.approx(expected)
    assert found["bleu"] > found["bleu_13a"] + 3


def test_case_counts_in_bleu():
    assert metric("bleu")(["The Old House by the Lake"], ["the old house by the lake"])["bleu"] < 50


# ------------------------------------------------------------------------------------------------------------ distance


def naive_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(before + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def test_the_distance_in_words_is_levenshteins(hostile_texts):
    distances = [min(naive_distance(r.split(), p.split()) for r in references) for references, p in hostile_texts]
    expected = {"exact": 100 * np.mean([d == 0 for d in distances]), "edit_distance": np.mean(distances)}
    assert metric("edit_distance")(*columns(hostile_texts)) == pytest.approx(expected)
    assert expected["exact"] > 0


def test_the_edit_distance_of_t5_is_that_of_its_definition(hostile_texts):
    def words(text):
        return re.split("[^\\w]", text.lower())

    found = metric("edit_distance_t5")(*columns(hostile_texts[:60]))
    distances = [min(naive_distance(words(r), words(p)) for r in references) for references, p in hostile_texts[:60]]
    assert found == pytest.approx({"mean_edit": np.mean(distances), "median_edit": np.median(distances)})


@pytest.mark.parametrize(
    ("prediction", "t5", "exact"), [("Oh, yes. no!", 0, 0), ("Oh yes. No!", 1, 0), ("Oh, yes. No!", 0, 1)]
)
def test_what_the_edit_distance_of_t5_does_not_see(prediction, t5, exact):
    """Case, and single signs: the headline sees both."""
    assert metric("edit_distance_t5")(["Oh, yes. No!"], [prediction])["mean_edit"] == t5
    assert metric("edit_distance")(["Oh, yes. No!"], [prediction])["exact"] == 100 * exact
