"""The overlap that an evaluation states, from the stores that a manifest names."""

import json
import re
import shutil

import pytest

from flan_jax import catalog, styles
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.overlap import evaluated, seen

BYTES = ByteTokenizer()
QUESTIONS = [
    "What weather do they want information about?",
    "Who ruled there in 1850?",
    "Which of the two teams that had won the most games in the years before lost the last one of them?",
]
PASSAGE = "The castle that stood on the hill above the river was taken down in the year of the great flood by monks."


def _store(folder, name, rows, texts=None, style=styles.PAPER):
    """A token store of records; `texts` are what the tokens say of them."""
    examples = [
        token_store.TokenizedExample(*BYTES.encode([text, "x"]), 0, number)
        for number, text in enumerate(texts or [" ".join(row.values()) for row in rows])
    ]
    info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
    place = token_store.folder_of(folder, BYTES.fingerprint, style) / name
    records = Identities.of((str(number), row) for number, row in enumerate(rows))
    found = token_store.write_dataset(place, info, examples, records=records)
    about = {"dataset": name, "style": style.name, "vocabulary": BYTES.fingerprint, "records": len(rows)}
    return about | {key: found[key] for key in ("digest", "records_digest")}


def _rows(*fields):
    return [{"id": str(i), "hash": f"{i:016x}", "fields": one} for i, one in enumerate(fields)]


def _tuning(*text, **more):
    names = [entry["dataset"] for entry in text]
    clusters = sorted({catalog.dataset(name).cluster for name in names})
    return {"status": "tuned", "datasets": names, "clusters": clusters, "text": list(text)} | more


SQUAD = _rows(*({"context": PASSAGE, "title": "Castle", "question": q, "answer": "no"} for q in QUESTIONS))


@pytest.fixture
def world(tmp_path):
    """Translations of the evaluated questions, under the name of a translation dataset (XQuAD's case)."""
    pairs = [{"source": question, "target": "?" * 40, "language": "German"} for question in QUESTIONS]
    return tmp_path, _store(tmp_path, "wmt16_translate_deen", pairs)


def _check(folder, tuning, rows=SQUAD, name="squad_v1", **more):
    return evaluated.check(tuning, BYTES, folder, {catalog.dataset(name): rows}, **more)[name]


def test_text_under_another_name_is_found(world):
    folder, entry = world
    found = _check(folder, _tuning(entry))
    assert catalog.is_held_out(catalog.dataset("squad_v1"), ["translation"])
    assert (found["checked"], found["reason"], found["of"], found["n"]) == (True, "", 3, 13)
    assert (found["identical"], found["text"], found["ngram"], found["seen"]) == (0, 3, 1, 3)
    assert found["with"] == {"wmt16_translate_deen": 3} and found["kin"] == {}
    assert (found["short"], found["tiny"]) == (0, 0)  # the passage has 13 words


def test_what_is_in_the_tokens_alone_is_found_too(tmp_path):
    entry = _store(tmp_path, "cnn_dailymail", [{"article": "other"}], [f"Summarize: ...{PASSAGE.upper()} And so on."])
    found = _check(tmp_path, _tuning(entry))
    assert (found["ngram"], found["text"], found["identical"]) == (3, 0, 0)


def test_nothing_shared_is_checked_and_zero(tmp_path):
    entry = _store(tmp_path, "sst2", [{"sentence": "a fine film that nobody has to see twice in a long life of films"}])
    found = _check(tmp_path, _tuning(entry))
    assert found["checked"] and [found[way] for way in (*seen.WAYS, "seen")] == [0, 0, 0, 0] and found["with"] == {}


def test_kin_of_the_tuning_is_named(tmp_path):
    entry = _store(tmp_path, "qnli", [{"question": QUESTIONS[1], "sentence": "The monks ruled there."}])
    found = _check(tmp_path, _tuning(entry))
    assert found["kin"] == {"qnli": "QNLI has SQuAD's questions and sentences"} and found["text"] == 1
    declared = {"status": "declared", "datasets": [], "clusters": ["nli"], "text": []}
    assert "qnli" in _check(tmp_path, declared)["kin"]


def test_the_same_records_in_another_style_will_do(world, tmp_path):
    folder, entry = world
    shots = styles.parse("no_template")
    pairs = [{"source": question, "target": "?" * 40, "language": "German"} for question in QUESTIONS]
    shutil.rmtree(folder / "tokens")
    other = _store(folder, "wmt16_translate_deen", pairs, [q + "!" for q in QUESTIONS], shots)
    assert other["digest"] != entry["digest"] and other["records_digest"] == entry["records_digest"]
    assert _check(folder, _tuning(entry))["seen"] == 3


UNCHECKED = {
    "gone": "has no wmt16_translate_deen for this vocabulary",
    "other data": "wmt16_translate_deen in .* is of other data",
    "earlier version": "wmt16_translate_deen in .* is of other data or of an earlier version",
    "damaged": "is corrupt",
    "old manifest": "the text of wmt16_translate_deen is not recorded",
    "unknown": "nobody knows what it was tuned on",
    "declared": "of paraphrase only the cluster is declared",
    "untuned": "it was never tuned, so its manifest says",
}


@pytest.mark.parametrize("what", UNCHECKED)
def test_what_cannot_be_compared_is_never_clean(world, what):
    folder, entry = world
    store = next(folder.glob("tokens/*/*"))
    tuning = _tuning(entry)
    if what == "gone":
        shutil.rmtree(folder / "tokens")
    elif what == "other data":
        shutil.rmtree(store)
        _store(folder, "wmt16_translate_deen", [{"source": "a", "target": "b"}])
    elif what == "earlier version":
        info = json.loads((store / "info.json").read_text())
        for key in ("version", "digest", "records_digest"):
            del info[key]
        (store / "info.json").write_text(json.dumps(info))
    elif what == "damaged":
        (store / "texts.npy").write_bytes((store / "texts.npy").read_bytes()[:-8])
    elif what == "old manifest":
        del tuning["text"]
    elif what == "unknown":
        tuning |= {"status": "unknown"}
    elif what == "declared":
        tuning["clusters"].append("paraphrase")
    elif what == "untuned":
        tuning = {"status": "declared untuned", "datasets": [], "clusters": [], "text": []}
    found = _check(folder, tuning)
    assert not found["checked"] and found["reason"].startswith("not checked: ")
    assert re.search(UNCHECKED[what], found["reason"])
    partly = what in ("unknown", "declared")  # what is recorded is compared all the same
    assert found["seen"] == (3 if partly else None)


def test_what_was_compared_is_not_compared_again(world, monkeypatch):
    folder, entry = world
    first = _check(folder, _tuning(entry))
    assert len(list((folder / "overlap").glob("*.json"))) == 1

    def never(*_):
        raise AssertionError("searched again")

    with monkeypatch.context() as patched:
        patched.setattr(evaluated, "search_store", never)
        assert _check(folder, _tuning(entry)) == first
        with pytest.raises(AssertionError, match="searched again"):
            _check(folder, _tuning(entry), SQUAD[:2])  # other records
        with pytest.raises(AssertionError, match="searched again"):
            _check(folder, _tuning(entry), n=12)
    for path in (folder / "overlap").glob("*.json"):
        path.write_text('{"of": 3, "identical": [7], "text": [], "ngram": []}')  # damaged
    assert _check(folder, _tuning(entry)) == first


def test_a_folder_that_cannot_be_written_to_costs_no_result(world):
    folder, entry = world
    (folder / "overlap").write_text("a file")
    assert _check(folder, _tuning(entry))["seen"] == 3


def test_labels_are_no_text(tmp_path):
    rows = _rows({"sentence": "It was a fine film.", "options": ["quite positive or so", "no"], "answer": "no"})
    entry = _store(tmp_path, "rte", [{"premise": "quite positive or so", "answer": "quite positive or so"}])
    assert _check(tmp_path, _tuning(entry), rows, "sst2")["seen"] == 0


def test_empty_and_short_records_are_counted_apart(tmp_path):
    rows = _rows({"sentence": ""}, {"sentence": "Fine film, really."}, {"sentence": PASSAGE})
    entry = _store(tmp_path, "rte", [{"premise": "fine film really", "hypothesis": ""}])
    found = _check(tmp_path, _tuning(entry), rows, "sst2")
    assert (found["of"], found["short"], found["tiny"], found["text"]) == (3, 2, 1, 1)


def test_a_store_that_does_not_say_what_it_holds_is_not_compared(tmp_path):
    info = {"num_records": 1, "renderings": 1, "vocab_size": BYTES.vocab_size}
    place = token_store.folder_of(tmp_path, BYTES.fingerprint) / "rte"
    written = token_store.write_dataset(place, info, [token_store.TokenizedExample([3], [4], 0, 0)])
    entry = {"dataset": "rte", "records_digest": None, "digest": written["digest"]}
    found = _check(tmp_path, _tuning(entry))
    assert not found["checked"] and found["seen"] is None


def test_a_store_of_an_earlier_version_is_refused_by_name(world):
    folder, _ = world
    path = next(folder.glob("tokens/*/*")) / "info.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "version"}))
    store = token_store.TokenStore.open(folder, BYTES.fingerprint)
    with pytest.raises(FlanError, match=r"'wmt16_translate_deen' .* earlier version .*--overwrite"):
        store["wmt16_translate_deen"]
