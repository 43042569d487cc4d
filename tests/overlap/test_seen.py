"""What is found, against a naive search."""

import numpy as np
import pytest

from flan_jax import content
from flan_jax.overlap import seen
from flan_jax.overlap.seen import Evaluated, Finder, Record, Search

WORDS = [f"w{i}" for i in range(6)]


def _set(records, name="set"):
    return Evaluated(name, lambda: iter(records))


def _search(finder, documents):
    """Searches documents, each a list of texts."""
    search = Search(finder)
    for number, texts in enumerate(documents):
        for text in texts:
            search.words([*content.normalized_words(text), ""])
        keys = list(content.text_keys(texts))
        search.texts(np.full(len(keys), number), np.array(keys, np.uint64))
    return search.found()


def naive(records, documents, n):
    """(identical, text, ngram) of each record."""
    split = [[t.split() for t in texts] for texts in documents]
    grams = {tuple(t[i : i + m]) for d in split for t in d for m in range(1, 60) for i in range(len(t) - m + 1)}
    whole = [set(map(tuple, d)) | {tuple(w for t in d for w in t)} for d in split]
    found = []
    for record in records:
        texts = [(tuple(t.split()), 3) for t in record.texts] + [(tuple(t.split()), 8) for t in record.listed]
        texts = [(t, fewest) for t, fewest in texts if t and sum(len(t) for t, _ in texts) >= 3]
        tells = {t for t, fewest in texts if len(t) >= fewest} or {tuple(w for t, _ in texts for w in t)} - {()}
        identical = any(all(t in d for t, _ in texts) for d in whole) and bool(texts)
        text = any(t in d for t in tells for d in whole) or any(8 <= len(t) < n and t in grams for t, _ in texts)
        ngram = any(t[i : i + n] in grams for t, _ in texts for i in range(len(t) - n + 1))
        found.append((identical, text, ngram))
    return np.array(found, bool).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("n", [5, 13])
def test_finds_what_a_naive_search_finds(seed, n):
    rng = np.random.default_rng([seed, n])

    def text():
        return " ".join(rng.choice(WORDS, rng.choice([0, 1, 2, 4, 9, 14, 20])))

    pool = [text() for _ in range(12)]

    def some(most):
        return tuple(str(rng.choice(pool)) for _ in range(rng.integers(0, most)))

    records = [Record(f"{i:016x}", some(4), some(3)) for i in range(60)]
    documents = [[*some(5), text() + " " + str(rng.choice(pool))] for _ in range(15)]
    finder = Finder([_set(records[:25], "a"), _set(records[25:], "b")], n)
    found = _search(finder, documents)
    expected = naive(records, documents, n)
    for column, way in enumerate(seen.WAYS):
        np.testing.assert_array_equal(getattr(found, way), expected[:, column], err_msg=way)
    assert finder.places == {"a": slice(0, 25), "b": slice(25, 60)}
    lengths = [max((len(t.split()) for t in (*r.texts, *r.listed)), default=0) for r in records]
    assert finder.short.tolist() == [size < n for size in lengths]
    totals = [sum(len(t.split()) for t in (*r.texts, *r.listed)) for r in records]
    assert finder.tiny.tolist() == [total < 3 for total in totals]


def test_equal_content_is_identical_whatever_its_texts():
    finder = Finder([_set([Record("a" * 16, ()), Record("b" * 16, ("x",))])], 13)
    search = Search(finder)
    search.hashes(np.array(["a" * 16, "c" * 16], "S16"))
    assert search.found().identical.tolist() == [True, False] and search.found().seen.tolist() == [True, False]


def test_part_of_a_record_is_not_the_record():
    premise = "a man plays the guitar in the street"
    records = [Record("1", (premise, "He plays.")), Record("2", (premise, "He sings."))]
    found = _search(Finder([_set(records)], 13), [[premise, "he plays", "entailment"]])
    assert found.identical.tolist() == [True, False] and found.text.tolist() == [True, True]


def test_short_texts_alone_are_no_evidence():
    records = [Record("1", ("Who sang it?",), ("Ann", "all of the above")), Record("2", ("New York",))]
    finder = Finder([_set(records)], 13)
    assert not _search(finder, [["all of the above"], ["in New York"], ["Ann"]]).seen.any()
    assert not _search(finder, [["new york"]]).seen.any()
    assert finder.tiny.tolist() == [False, True]
    names = Finder([_set([Record("1", ("New York", "in winter"))])], 13)
    assert not _search(names, [["New York"], ["in winter"]]).seen.any()
    assert _search(names, [["in winter", "maybe", "new york"]]).identical.all()
    assert _search(names, [["New York in winter"]]).text.all()  # all that it says


def test_wording_that_most_records_share_tells_nothing(monkeypatch):
    monkeypatch.setattr(seen, "COMMON", 4)
    wording = "is it true or is it false"
    records = [Record(str(i), (wording, f"claim number {i} of all")) for i in range(5)]
    finder = Finder([_set(records)], 13)
    assert not _search(finder, [[wording]]).text.any()
    found = _search(finder, [[wording, "claim number 3 of all"]])
    assert found.text.tolist() == found.identical.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("records", [[], [Record("1", ())], [Record("1", ("", "…"))]])
def test_nothing_to_look_for(records):
    finder = Finder([_set(records)], 13)
    search = Search(finder)
    search.words(["a", "b"])
    search.texts(np.array([0, 0]), np.array([1, 2], np.uint64))
    search.hashes(np.array([], "S16"))
    assert not search.found().seen.any() and search.longest >= 1 and finder.tiny.all()
