"""Thousands of hostile records go through every template of every dataset, from JSON lines to text and tokens.

`FLAN_JAX_HOSTILE_RECORDS=10000 pytest tests/data/test_hostile_records.py` makes more of them.
"""

import dataclasses
import json
import os
import re
import types

import numpy as np
import pytest
import tensorflow as tf

from flan_jax import catalog, templates
from flan_jax.data import sources, tasks, usable, vocabularies

pytestmark = pytest.mark.slow

RECORDS = int(os.environ.get("FLAN_JAX_HOSTILE_RECORDS", "2000"))
BYTES = vocabularies.ByteTokenizer()
EACH = -(-RECORDS // len(catalog.datasets()))
HUGE = {"rte", "squad_v1", "copa", "cnn_dailymail", "wmt14_enfr", "e2e_nlg"}  # where two strings have a megabyte

FRAGMENTS = (
    "",
    " ",
    "\t\r\n \u00a0\u2003",
    "\x00",
    "\x01\x07\x1b[31m\x7f\x9f",
    "{premise} {options} {answer} {} {{x}} }{",
    "%s %(x)s $1 \\1 \\E \\Q( [a-z]+ ^$ .* \\",
    "OPTIONS:\n- yes\n- no",
    "🏳️‍🌈👩‍👩‍👧‍👦🇨🇭👍🏽",
    "e\u0301\u0327 Z̸̢͝a̷͠lgo",
    "مرحبا \u202eevil\u202c שלום",
    "\ufeff\ufffd\uffff\U0010ffff",
    "\u2028\u2029\u0085",
    "a\ud800b",
    "\udfff\udbff",
    "\ud83d\ude00",
    "</s><eos><pad>[MASK]",
    "<script>alert('x')</script>&amp;",
    "'\"`´“”,;:.!?…",
    "x" * 3_000,
)

# Texts that say what the record is, and not what it says; each has few values in the true data.
STRUCTURE = {
    "copa": {"question"},
    "arc": {"answerKey", "label"},
    "record": {"entities", "answers"},
    "definite_pronoun_resolution": {"pronoun"},
    "wsc": {"span2_text"},
    "math_dataset": {"question"},
}


def hostile(rng, text):
    """A text around, instead of, or without the given one."""
    before, after = (FRAGMENTS[i] for i in rng.integers(len(FRAGMENTS), size=2))
    kind = rng.random()
    if kind < 0.65:
        return before + text + after
    return before + after if kind < 0.85 else ("" if kind < 0.95 else text)


def mutated(rng, value, kept=frozenset(), name=""):
    """A JSON value with hostile texts in the place of its own."""
    if isinstance(value, str):
        return value if name in kept else hostile(rng, value)
    if isinstance(value, list):
        return [mutated(rng, v, kept, name) for v in value]
    if isinstance(value, dict):
        return {k: mutated(rng, v, kept, k) for k, v in value.items()}
    return value


def rows_of(record, rng):
    """Hostile rows of a dataset, made from its samples, so that their structure is true."""
    folder = sources.samples_folder() / record.folder
    good = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().split(b"\n")[:-1]]
    kept = STRUCTURE.get(record.paper_dataset, set())
    rows = [mutated(rng, good[i], kept) for i in rng.integers(len(good), size=EACH)]
    if record.name in HUGE:
        for row in rows[:2]:
            name = next(n for n, v in row.items() if isinstance(v, str) and n not in kept)
            row[name] = ("🦣 {options} word " * 80_000)[:1_000_000]
    return rows


def naive(pattern, fields):
    """A pattern filled in one pass, however the fields look."""

    def text(match):
        value = fields[match[1]]
        return value if isinstance(value, str) else "\n".join(["OPTIONS:"] + ["- " + option for option in value])

    return re.sub(r"\{(\w+)\}", text, pattern)


def with_renderings(record, rows):
    """The same rows with what TensorFlow makes of them by all ten templates, `_inputs` and `_targets`."""

    def rendered(row):
        fields = {name: value for name, value in row.items() if name != "record_id"}
        inputs, targets = tf.map_fn(
            lambda number: templates.render_tensors(record.templates, fields, number),
            tf.range(len(record.templates), dtype=tf.int64),
            fn_output_signature=(tf.string, tf.string),
        )
        return {**row, "_inputs": inputs, "_targets": targets}

    return rows.map(tf.autograph.experimental.do_not_convert(rendered))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAN_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_nothing_is_lost_or_mangled(record, tmp_path):
    rng = np.random.default_rng([len(record.name), *record.name.encode()])
    rows = rows_of(record, rng)
    split = record.splits.train or record.splits.test
    folder = tmp_path / record.folder
    folder.mkdir()
    # ASCII, so that lone surrogates travel as the escapes in which JSON can hold them.
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    source = sources.open_source(record, tmp_path)
    assert source.builder.info.splits[split].num_examples + len(source.bad_rows) == len(rows) >= EACH
    for bad in source.bad_rows:
        assert bad.path == f"{record.folder}/{split}.jsonl" and 1 <= bad.line <= len(rows) and bad.problem
    for bad in source.bad_rows:  # only what has nothing to show is left out; a hostile text is a text
        assert re.search("no text|answer|option|label|reference", bad.problem), bad

    whole = types.SimpleNamespace(tfds="+".join(part.tfds for part in source.splits.values()))  # read at once
    read = dataclasses.replace(source, splits={"every": whole}).read
    kept = list(tasks.text_records(with_renderings(record, usable.usable(record, read("every")))))
    dropped = 0
    if record.keep is not None:
        dropped = sum(1 for _ in read("every").filter(lambda row: ~tf.cast(record.keep(row), tf.bool)))
    assert len(kept) + dropped == sum(part.size for part in source.splits.values())
    assert len({identity for identity, _ in kept}) == len(kept)
    for _, fields in kept:
        by_tensorflow = list(zip(fields.pop("_inputs"), fields.pop("_targets"), strict=True))
        assert len(by_tensorflow) == len(record.templates)
        for number, template in enumerate(record.templates):
            inputs, targets = templates.render(template, fields)
            assert inputs == naive(template.input, fields)
            assert targets == naive(template.target, fields)
            assert (inputs, targets) == by_tensorflow[number]
        texts = [*fields.values()] if record.name not in HUGE else [fields["answer"]]
        for text in texts:
            for one in [text] if isinstance(text, str) else text:
                assert BYTES.decode(BYTES.encode([one])[0]) == one
    assert len(kept) >= 0.1 * len(rows), "hardly any record reaches the templates"
