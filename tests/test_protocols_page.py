"""docs/protocols.md and its tables: our own columns say what the code does."""

import functools
import json
import re
from pathlib import Path

import pytest

from flan_jax import catalog, metrics, protocol, styles, ways
from flan_jax.splits import resolve_splits

DOCS = Path(__file__).parents[1] / "docs"
PAGE, DATASETS, PROMPTS = (DOCS / f"{name}.md" for name in ("protocols", "protocols_datasets", "protocols_prompts"))
GPT3 = styles.parse("gpt3")
NAMES = [record.name for record in catalog.datasets()]
RECORDS = 100_000  # of every split, for what the split rules say


@functools.cache
def _rows(page, head, tables=1):
    """The cells of a page's tables whose first lines begin with these cells, without their heads."""
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(head)]
    assert len(starts) == tables, f"{page.name} must have {tables} tables that begin with {head!r}, not {len(starts)}"
    rows = []
    for start in starts:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def _codes(cell):
    return re.findall(r"`([^`]+)`", cell)


def _code(text):
    return "`" + text.replace("\n", "\\n") + "`"


def _range(part, test):
    if part is None:
        return "none"
    if part.size == RECORDS:
        return f"`{part.split}`"
    if part.stop == RECORDS:
        return f"last {part.size:,} of `{part.split}`"
    if part.split == test.split and part.stop == test.start:
        return f"{part.size:,} of `{part.split}` before them"
    assert part.start == 0
    return f"first {part.size:,} of `{part.split}`"


def own_cells(record):
    """Our cells of a dataset in the table of test sets: test, dev, headline, what ends an answer in GPT-3's manner."""
    rules = record.splits
    splits = {rules.train} | (set() if rules.test_size else {rules.dev, rules.test})
    found = resolve_splits(record, dict.fromkeys(splits - {None}, RECORDS))
    asked = protocol.of(record, GPT3)
    ends = "ranked" if asked.ranked else " ".join(map(_code, asked.stops(protocol.SPACE)))
    headline = metrics.metric(asked.headline).headline
    return (
        _range(found["test"], found["test"]),
        _range(found.get("validation"), found["test"]),
        f"`{headline}`",
        ends,
    )


def prompt_cell(record):
    """Our cell of a dataset in the table of prompts: the prompt, and the words that stand for its labels."""
    (template,) = protocol.of(record, GPT3).templates
    words = record.gpt3_prompt.words or record.label_words
    return " ".join(map(_code, (template.input, *words)))


def _named(rows):
    return {name: row for row in rows for name in _codes(row[0])}


def test_every_dataset_has_one_row():
    rows = _rows(DATASETS, "| dataset | our test set |")
    assert sorted(name for row in rows for name in _codes(row[0])) == sorted(NAMES)
    assert {len(row) for row in rows} == {9}


@pytest.mark.parametrize("name", NAMES)
def test_our_test_sets_metrics_and_stops(name):
    assert tuple(_named(_rows(DATASETS, "| dataset | our test set |"))[name][1:5]) == own_cells(catalog.dataset(name))


def test_our_prompts():
    rows = _rows(PROMPTS, "| dataset | ours | released code |")
    assert {len(row) for row in rows} == {5}
    found = _named(rows)
    only_ours = re.search(r"^Only we have a prompt .*$", PROMPTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted([*found, *_codes(only_ours.group())]) == sorted(NAMES)
    assert {name: row[1] for name, row in found.items()} == {name: prompt_cell(catalog.dataset(name)) for name in found}


def _every(style=styles.PAPER):
    return [protocol.of(record, style) for record in catalog.datasets()]


def _one(values):
    (value,) = set(values)
    return value


def _settings(name):
    """A metric's version, without that of its library."""
    return re.sub(r" [\d.]+(?=,)", "", metrics.metric(name).version)


def _in_general():
    """The words in code type of our cells in the table of what holds for all datasets."""
    text, in_gpt3 = _every(), _every(GPT3)
    forward = [len(asked.forward) for asked in text]
    limits = {asked.max_new_tokens for asked in text}
    names = [way.name for way in ways.ALL]
    return {
        "wordings": [min(forward), max(forward)],
        "between prompt and answer": [
            _one(asked.joint("eos", False) for asked in text),
            _one(asked.joint(None, False) for asked in text),
            _one(asked.joint("eos", False) for asked in in_gpt3),
        ],
        "score of an option": names[:1],
        "scores beside it": names[1:],
        "a generated answer ends at": map(json.dumps, _one(asked.stops(protocol.NEWLINE) for asked in text)),
        "new tokens": sorted(limits),
        "longest input": [_one(asked.max_input_tokens for asked in text + in_gpt3)],
        "longest target": [_one(asked.max_target_tokens for asked in text + in_gpt3)],
        "what is cut": [_one(asked.trim for asked in text), _one(asked.trim for asked in in_gpt3)],
        "number of exemplars": [styles.MAX_SHOTS, _one(asked.exemplar_budget for asked in text + in_gpt3)],
        "exemplars are from": [protocol.EXEMPLAR_POOL],
        "around exemplars": [
            *map(
                json.dumps, (_one(asked.exemplar_joint for asked in text), _one(asked.exemplar_end for asked in text))
            ),
            json.dumps(_one(asked.exemplar_joint for asked in in_gpt3)),
        ],
        "BLEU": [_settings("bleu"), _settings("bleu_13a")],
        "ROUGE": [_settings("rouge"), _settings("rouge_stemmed")],
    }


def test_what_holds_for_all_datasets():
    rows = _rows(PAGE, "| what | ours | paper |", tables=7)
    assert {len(cells) for cells in rows} == {6}
    expected = {row: list(map(str, codes)) for row, codes in _in_general().items()}
    assert {cells[0]: _codes(cells[1]) for cells in rows if cells[0] in expected} == expected


def test_what_is_asked_of_a_record():
    """The page says what evaluation asks of a translation and a conversation; mend it when a record gives several."""
    text = PAGE.read_text(encoding="utf-8")
    for name, says in [
        ("wmt14_enfr", "We ask each record in one of its directions"),
        ("coqa", "We ask one turn of each of CoQA's conversations"),
    ]:
        asks_all = getattr(catalog.dataset(name), "expand", None) is not None
        assert (says in text) != asks_all, f"{PAGE.name}: {says!r}"


@pytest.mark.parametrize(
    ("name", "part"),
    [("openbookqa", "{fact}"), ("squad_v2", "unanswerable"), ("quac", "no answer"), ("multirc", "{response}")],
)
def test_what_every_prompt_shows(name, part):
    for style in (styles.PAPER, GPT3):
        asked = protocol.of(catalog.dataset(name), style)
        assert all(part in asked.templates[number].input for number in asked.forward)
