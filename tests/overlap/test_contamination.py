import gzip
import json
import string
import unicodedata

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax import contamination as binary
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.overlap import contamination
from flan_jax.overlap.ngrams import NgramIndex, normalized_words, passages

# ------------------------------------------------------------------------------------------- a naive implementation


def naive_words(text):
    text = unicodedata.normalize("NFKC", text)
    kept = (c for c in text.lower() if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return "".join(kept).split()


def naive_ngrams(texts, n):
    words = [naive_words(t) for t in texts]
    grams = {tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)}
    if grams:
        return grams
    longest = max(words, key=len, default=[])
    if len(longest) >= 8:
        return {tuple(longest)}
    joined = [x for w in words for x in w]
    return {tuple(joined[i : i + min(n, len(joined))]) for i in range(max(len(joined) - n, 0) + 1)} - {()}


def naive_documents(path, field="text"):
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    if ".jsonl" not in path.name:
        return [naive_words(text)]
    return [naive_words(json.loads(line)[field]) for line in text.split("\n") if line.strip()]


def naive_counts(grams, files):
    """{n-gram: number of documents} by scanning every window of every document."""
    found = dict.fromkeys(grams, 0)
    lengths = {len(g) for g in grams}
    for path in files:
        for words in naive_documents(path):
            here = {tuple(words[i : i + m]) for m in lengths for i in range(len(words) - m + 1)}
            for gram in here & grams:
                found[gram] += 1
    return found


# --------------------------------------------------------------------------------------------------------- the parts

MARKS = ["", "", "", ",", ".", "…", " - ", "’s", "\u00a0", "\u3000", "\n", "\n\n", "\r\n", "\t"]


def _text(rng, count, vocabulary=("ab", "Ba", "é", "ÉTÉ", "d'un", "x-y", "Straße", "ﬁn", "q")):
    return "".join(str(rng.choice(vocabulary)) + str(rng.choice(MARKS)) + " " for _ in range(count))


def test_words_are_those_of_the_naive_rule():
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = _text(rng, 30)
        assert normalized_words(text) == naive_words(text)
    assert normalized_words("State-of-the-art — “it’s” 3.5%!") == ["stateoftheart", "its", "35"]


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [((20, 3, 14), [13, 13]), ((12, 9), [12]), ((5, 4, 6), [13]), ((2, 1), [3]), ((0, 0), [])],
)
def test_what_is_looked_for(sizes, lengths):
    texts = [" ".join(f"w{i}" for i in range(size)) for size in sizes]
    found = passages(texts, 13)
    assert [length for length, _ in found] == lengths
    windows = {tuple(w[i : i + m]) for m, w in found for i in range(len(w) - m + 1)}
    assert windows == naive_ngrams(texts, 13)


def test_only_what_prompts_show_is_looked_for():
    fields = {
        "premise": "p",
        "hypothesis": "h",
        "relation": "not shown forward",
        "options": ["yes", "no"],
        "answer": "yes",
    }
    assert contamination.shown_texts(catalog.dataset("rte"), fields) == ["p", "h"]
    copa = {"premise": "p", "question": "cause", "options": ["a", "b"], "answer": "a"}
    assert {"p", "a", "b"} <= set(contamination.shown_texts(catalog.dataset("copa"), copa))


def test_the_index_finds_every_window_and_no_other():
    rng = np.random.default_rng(1)
    examples = [_text(rng, 30) for _ in range(20)]
    index = NgramIndex.build([[p for text in examples for p in passages([text], 4)]])
    grams = set().union(*(naive_ngrams([text], 4) for text in examples))
    assert len(index.keys) == len(grams)
    words = naive_words(_text(rng, 3000) + " never seen words")
    starts, numbers = index.find(words)
    assert set(starts) == {i for i in range(len(words) - 3) if tuple(words[i : i + 4]) in grams}
    by_number = {}
    for start, number in zip(starts, numbers, strict=True):
        assert by_number.setdefault(number, words[start : start + 4]) == words[start : start + 4]


def test_an_empty_index_finds_nothing():
    index = NgramIndex.build([[]])
    assert len(index.find(["a", "b"])[0]) == 0


# ------------------------------------------------------------------------------------------------- the whole search


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Examples of two datasets, and a corpus of every form of file that holds some of their texts."""
    folder = tmp_path_factory.mktemp("contamination")
    rng = np.random.default_rng(2)
    texts = {}
    for name in ("rte", "sst2"):
        found = {}
        for split in ("dev", "test"):
            rows = []
            for i in range(30):
                size = int(rng.choice([3, 9, 20, 40]))
                words = [f"{rng.choice(['wa', 'wb', 'wc'])}{rng.integers(8)}" for _ in range(size)]
                fields = {"sentence": " ".join(words)}
                if name == "rte":
                    fields = {"premise": " ".join(words), "hypothesis": "it is so"}
                rows.append((f"{split}-{i}", fields | {"options": ["yes", "no"], "answer": "no"}))
                texts[name, split, f"{split}-{i}"] = list(fields.values())
            found[split] = rows
        example_files.write_folder(folder / "prepared" / "examples" / name, found)
    corpus = folder / "corpus" / "deep"
    corpus.mkdir(parents=True)
    pool = [t[0] for t in texts.values()]

    def document():
        parts = [_text(rng, int(rng.integers(1, 30)))]
        for _ in range(int(rng.integers(0, 3))):
            source = str(rng.choice(pool)).upper().split(" ")
            parts += [str(rng.choice(["\n", " ", ", ", " — "])).join(source), _text(rng, 5)]
        return " ".join(parts)

    (corpus / "a.txt").write_text(document() + document() + document(), encoding="utf-8", newline="")
    with gzip.open(corpus / "b.txt.gz", "wt", encoding="utf-8", newline="") as file:
        file.write(document() + document())
    lines = "".join(json.dumps({"text": document()}, ensure_ascii=bool(i % 2)) + "\n" for i in range(12))
    (corpus / "c.jsonl").write_text(lines + "\n" + json.dumps({"text": document()}), encoding="utf-8")
    with gzip.open(corpus / "d.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": document()}) + "\n" for _ in range(8))
    return folder, texts


def _check(folder, **more):
    datasets = contamination.prepared_datasets(folder / "prepared")
    return contamination.check(datasets, folder / "prepared", [str(folder / "corpus" / "**" / "*")], **more)


@pytest.mark.parametrize(
    ("n", "block_bytes", "ignore_above"),
    [(5, 1, None), (5, 11, 1), (13, 37, None), (13, 4096, 2), (2, 1 << 20, 3)],
)
def test_the_search_is_that_of_the_naive_one(world, n, block_bytes, ignore_above):
    folder, texts = world
    results = _check(folder, n=n, block_bytes=block_bytes, ignore_above=ignore_above)
    files = [folder / "corpus" / "deep" / name for name in ("a.txt", "b.txt.gz", "c.jsonl", "d.jsonl.gz")]
    grams = {key: naive_ngrams(values, n) for key, values in texts.items()}
    counts = naive_counts(set().union(*grams.values()), files)
    limit = np.inf if ignore_above is None else ignore_above
    dirty = 0
    for name, splits in results["datasets"].items():
        for split, part in splits.items():
            assert len(part["clean"]) + len(part["dirty"]) == 30
            expected = {
                identity: {g for g in found if 0 < counts[g] <= limit}
                for (dataset, s, identity), found in grams.items()
                if (dataset, s) == (name, split)
            }
            assert {one["id"] for one in part["clean"]} == {
                identity for identity, found in expected.items() if not found
            }
            for entry in part["dirty"]:
                gram = tuple(entry["ngram"].split())
                assert gram in expected[entry["id"]]
                assert entry["documents"] == counts[gram]
                assert entry["matched"] == len(expected[entry["id"]])
                assert entry["ngrams"] == len(grams[name, split, entry["id"]])
                where = next(str(f) for f in files if naive_counts({gram}, [f])[gram])
                assert entry["file"] == where
                dirty += 1
    assert 0 < dirty < 120
    assert results["corpus"]["documents"] == 1 + 1 + 13 + 8
    assert results["corpus"]["words"] == sum(len(d) for f in files for d in naive_documents(f))
    assert results["corpus"]["broken_lines"] == 0


def test_processes_find_the_same(world):
    folder, _ = world
    assert _check(folder, workers=2, block_bytes=600) == _check(folder, block_bytes=1 << 20)


def test_broken_lines_are_counted_and_left_out(world, tmp_path):
    folder, _ = world
    premise = json.loads((folder / "prepared/examples/rte/test.jsonl").read_text().split("\n")[0])["fields"]["premise"]
    lines = ["{", json.dumps({"text": 3}), json.dumps(["text"]), '{"text": "\xff"'.encode("latin1").decode("latin1")]
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join([*lines, json.dumps({"text": f"so {premise} then"})]))
    datasets = [catalog.dataset("rte")]
    results = contamination.check(datasets, folder / "prepared", [str(path)])
    assert results["corpus"]["broken_lines"] == 4
    assert "test-0" in {d["id"] for d in results["datasets"]["rte"]["test"]["dirty"]}


def test_the_binary_writes_what_it_found(world, tmp_path, capsys):
    folder, _ = world
    to = tmp_path / "deep" / "found.json"
    arguments = [f"--prepared={folder / 'prepared'}", f"--to={to}", "--workers=1", "--datasets=rte", "--ngram=5"]
    binary.main([*arguments, "--json", "--corpus", str(folder / "corpus/deep/*.txt"), str(folder / "corpus/**/*.gz")])
    summary = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    results = json.loads(to.read_text())
    assert set(results["datasets"]) == {"rte"} == set(summary["datasets"])
    assert len(results["corpus"]["files"]) == 3 == summary["corpus"]["files"]
    assert summary["datasets"]["rte"]["test"] == {
        "examples": 30,
        "dirty": len(results["datasets"]["rte"]["test"]["dirty"]),
    }
    assert [p.name for p in to.parent.iterdir()] == ["found.json"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--corpus=nowhere/*"], "no corpus file matches 'nowhere/*'"),
        (["--corpus={corpus}/*.jsonl", "--field=body"], "text field 'body'; name it with --field"),
        (["--corpus={corpus}/*", "--ngram=0"], "argument --ngram: 0: "),
        (["--corpus={corpus}/*", "--datasets=rtee"], "did you mean 'rte'"),
        (["--corpus={corpus}/*", "--prepared=nowhere"], "no test examples in nowhere"),
        (["--corpus={bad}"], "bad.txt.gz cannot be read"),
    ],
)
def test_errors_are_one_line(world, tmp_path, capsys, more, message):
    folder, _ = world
    bad = tmp_path / "bad.txt.gz"
    bad.write_bytes(gzip.compress(b"some words " * 100)[:-30])
    arguments = [a.format(corpus=folder / "corpus" / "deep", bad=bad) for a in more]
    with pytest.raises(SystemExit) as caught:
        binary.main([f"--prepared={folder / 'prepared'}", f"--to={tmp_path / 'x.json'}", "--workers=1", *arguments])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().split("\n")[-1:]
    assert message in line and line.startswith("flan_jax: ")
    assert not (tmp_path / "x.json").exists()


def test_the_corpus_is_not_overwritten(world, tmp_path, capsys):
    folder, _ = world
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "one two three"}\n')
    with pytest.raises(SystemExit):
        binary.main([f"--prepared={folder / 'prepared'}", f"--to={path}", "--corpus", f"{tmp_path}/*.jsonl"])
    assert "would be lost" in capsys.readouterr().err and path.read_text().startswith('{"text"')


def test_missing_examples(tmp_path):
    with pytest.raises(FlanError, match="no test examples in"):
        contamination.prepared_datasets(tmp_path)
