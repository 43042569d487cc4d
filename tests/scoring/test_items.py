import gzip
import json

import jax
import numpy as np
import pytest

from flan_jax import configuration, models
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.scoring import items
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree, build_tree


@pytest.fixture(scope="module")
def scorer():
    model = models.build(configuration.model_config("tiny"))
    return Scorer(model, jax.jit(model.init)(jax.random.key(0)), row_lengths=(64,), tokens_per_batch=256)


class NeverScores:
    max_length = 64

    def score(self, trees, progress):
        raise AssertionError("scoring started")


GOOD = {"id": 1, "prompt": "A dog", "options": [" runs", " is a naïve cat"]}


def _write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_scores_items_in_order(tmp_path, scorer):
    rows = [GOOD, {"id": "x", "prompt": "", "options": ["b"], "label": 0}, GOOD | {"id": "1"}]
    path = _write(tmp_path / "in.jsonl", rows[0], "", rows[1], rows[2])
    output = tmp_path / "new" / "out.jsonl"
    assert items.score_items(path, output, scorer, ByteTokenizer(), "joined") == items.Done(3, 0)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, "x", "1"]
    for line, row in zip(lines, rows, strict=True):
        assert set(line) == {"id", "loglikelihood", "tokens", "bytes", "is_greedy"}
        assert line["tokens"] == line["bytes"] == [len(option.encode()) for option in row["options"]]
        (expected,) = scorer.score([build_tree(ByteTokenizer(), row["prompt"], row["options"], joint="joined")])
        np.testing.assert_allclose(line["loglikelihood"], expected.loglikelihood, atol=1e-4)
    assert list(output.parent.iterdir()) == [output]


def test_a_cut_prompt_is_counted(tmp_path, scorer):
    path = _write(tmp_path / "in.jsonl", GOOD, GOOD | {"id": 2, "prompt": "z" * 100})
    warnings = []
    items.score_items(path, tmp_path / "out.jsonl", scorer, ByteTokenizer(), "joined", warn=warnings.append)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "cut_tokens" not in lines[0] and lines[1]["cut_tokens"] == 100 + 16 - 64
    assert warnings == ["1 of 2 prompts are longer than 64 tokens and lose their left end."]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1,', "line 2 is not JSON"),
        ("[1]", "line 2 is no JSON object"),
        ({"prompt": "a", "options": ["b"]}, "line 2: field 'id' is missing"),
        ({"id": 1, "options": ["b"]}, "line 2: field 'prompt' is missing"),
        ({"id": 1, "prompt": "a"}, "line 2: field 'options' is missing"),
        ({"id": 1, "prompt": 3, "options": ["b"]}, "line 2: field 'prompt'"),
        ({"id": 1, "prompt": "a", "options": []}, "line 2: field 'options'"),
        ({"id": 2, "prompt": "a", "options": ["b", None]}, "line 2: field 'options'"),
        ({"id": None, "prompt": "a", "options": ["b"]}, "line 2: the id is null"),
        ({"id": 1, "prompt": "a", "options": ["b"]}, "lines 1 and 2 have the same id 1; give each its own"),
        ({"id": 1, "prompt": "a", "options": "b"}, "line 2: field 'options'"),
    ],
)
def test_a_broken_line_is_named_before_anything_is_scored(tmp_path, line, message):
    path = _write(tmp_path / "in.jsonl", GOOD, line)
    with pytest.raises(FlanError, match=message) as caught:
        items.score_items(path, tmp_path / "out.jsonl", NeverScores(), ByteTokenizer(), "joined")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(FlanError, match="cannot read items"):
        items.read_items(tmp_path / "none.jsonl")
    with pytest.raises(FlanError, match="holds no items"):
        items.read_items(_write(tmp_path / "empty.jsonl", "", ""))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(FlanError, match="line 1 is not JSON in UTF-8"):
        items.read_items(tmp_path / "latin.jsonl")
    path = _write(tmp_path / "in.jsonl", GOOD)
    with pytest.raises(FlanError, match="it is a folder"):
        items.score_items(path, tmp_path, NeverScores(), ByteTokenizer(), "joined")


def test_nothing_is_left_when_scoring_fails(tmp_path):
    path = _write(tmp_path / "in.jsonl", GOOD)
    with pytest.raises(AssertionError):
        items.score_items(path, tmp_path / "out.jsonl", NeverScores(), ByteTokenizer(), "joined")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("break_", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_mark_and_lone_surrogates_are_read(tmp_path, scorer, break_):
    lines = [{"id": "\ud800", "prompt": "a\udfff", "options": ["b\ud800", "b\ufffd"]}, GOOD]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + break_.join(json.dumps(line).encode() for line in lines))
    output = tmp_path / "out.jsonl"
    assert items.score_items(path, output, scorer, ByteTokenizer(), "joined") == items.Done(2, 0)
    first = json.loads(output.read_text("utf-8").split("\n")[0])
    assert first["id"] == "\ufffd" and first["bytes"] == [4, 4]
    assert first["loglikelihood"][0] == pytest.approx(first["loglikelihood"][1], rel=1e-5)  # both are U+FFFD


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(GOOD).encode("utf-16"), "is text in UTF-16"),
        (gzip.compress(json.dumps(GOOD).encode(), mtime=0), "is compressed by gzip"),
        (b'{"id": NaN, "prompt": "a", "options": ["b"]}', "line 1 is not JSON"),
        (b'{"id": 1, "id": 2, "prompt": "a", "options": ["b"]}', "the key 'id' stands twice"),
        (b'{"id": 1' + b"0" * 5_000 + b', "prompt": "a", "options": ["b"]}', "too many digits"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=["utf16", "gzip", "nan", "twice", "digits", "deep"],
)
def test_hostile_files_are_one_line(tmp_path, content, message):
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(FlanError, match=message) as caught:
        items.read_items(tmp_path / "in.jsonl")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("joint", "bad"),
    [
        ("joined", [{"options": ["b", ""]}, {"options": ["c" * 64]}, {"options": ["b", "c" * 70]}]),
        ("newline", [{"options": [""]}, {"options": [" "]}]),
        ("space", [{"options": ["b", ""]}]),
        ("eos", [{"options": ["c" * 63]}]),
    ],
)
def test_one_bad_item_costs_no_other(tmp_path, scorer, joint, bad):
    """E5: an option without tokens, or one that leaves no room, ended the whole job."""
    rows = [GOOD, *({"id": f"bad {n}", "prompt": "a"} | row for n, row in enumerate(bad)), GOOD | {"id": 2}]
    path = _write(tmp_path / "in.jsonl", *rows)
    done = items.score_items(path, tmp_path / "out.jsonl", scorer, ByteTokenizer(), joint)
    assert done == items.Done(len(rows), len(bad))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    for line in lines[1:-1]:
        assert set(line) == {"id", "error"} and "\n" not in line["error"]
    items.score_items(_write(tmp_path / "good.jsonl", GOOD), tmp_path / "alone.jsonl", scorer, ByteTokenizer(), joint)
    alone = json.loads((tmp_path / "alone.jsonl").read_text())
    for line in (lines[0], lines[-1]):
        np.testing.assert_allclose(line["loglikelihood"], alone["loglikelihood"], atol=1e-4)


def test_with_eos_prompt_and_options_are_as_in_tuning(tmp_path, scorer):
    """E9: a model that was tuned with EOS got "- noyes"."""
    path = _write(tmp_path / "in.jsonl", {"id": 1, "prompt": "Is it so? ", "options": [" yes", "no", ""]})
    items.score_items(path, tmp_path / "out.jsonl", scorer, ByteTokenizer(), "eos")
    line = json.loads((tmp_path / "out.jsonl").read_text())
    tokens = {text: tuple(ByteTokenizer().encode([text])[0]) for text in ("Is it so?", "yes", "no")}
    tree = Tree((*tokens["Is it so?"], 1), ((*tokens["yes"], 1), (*tokens["no"], 1), (1,)), (0, 0, 0), (3, 2, 0))
    (expected,) = scorer.score([tree])
    np.testing.assert_allclose(line["loglikelihood"], expected.loglikelihood, atol=1e-4)
    assert line["tokens"] == [4, 3, 1] and line["bytes"] == [3, 2, 0]


@pytest.mark.parametrize("identity", [1, "a", [1, {"b": 2}], {"b": 1, "a": 2}, True, 1.5])
def test_two_of_the_same_id_are_refused(tmp_path, identity):
    other = {"a": 2, "b": 1} if isinstance(identity, dict) else identity
    rows = [{"id": identity, "prompt": "a", "options": ["b"]}, "", {"id": other, "prompt": "c", "options": ["b"]}]
    with pytest.raises(FlanError, match="lines 1 and 3 have the same id") as caught:
        items.read_items(_write(tmp_path / "in.jsonl", *rows))
    assert "\n" not in str(caught.value)


def test_ids_that_only_look_alike(tmp_path):
    rows = [{"id": i, "prompt": "a", "options": ["b"]} for i in (1, "1", True, "true", [1], "", 0, False)]
    assert len(items.read_items(_write(tmp_path / "in.jsonl", *rows))) == len(rows)
