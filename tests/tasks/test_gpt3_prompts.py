"""Prompts in GPT-3's manner, on the samples of every dataset."""

import contextlib
import dataclasses
import functools
import re
import types

import pytest

from flan_jax import catalog, protocol, styles, templates
from flan_jax.data import sources, tasks
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.decoding.completion import cut

GPT3 = styles.parse("gpt3")
EVERY = pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
NO_ANSWERS = ("no answer", "unanswerable", "unknown")  # what datasets have for the lack of an answer


class CountsWords(ByteTokenizer):
    """Takes a word for a token, so that exemplars fit as with a vocabulary of words."""

    def encode(self, texts):
        return [[0] * len(text.split()) for text in texts]


@functools.cache
def examples(record):
    source = sources.open_source(record, sources.SAMPLES)
    builder = ExampleBuilder(record, GPT3)
    every = types.SimpleNamespace(tfds="+".join(part.tfds for part in source.splits.values()))  # read at once
    rows = tasks.records(record, dataclasses.replace(source, splits={"test": every}), "test")
    found = []
    for identity, fields in tasks.text_records(rows):
        with contextlib.suppress(styles.NeedsOptionsError):  # of CosmosQA
            found.append((fields, builder.build(identity, fields, 0)))
    return found


@EVERY
def test_prompts_read_well(record):
    """No sentence ends twice where a field and the prompt's own words meet."""
    for _, example in examples(record):
        assert example.inputs == example.inputs.rstrip() and example.inputs
        assert example.targets == example.targets.strip()
        before = ""
        for literal, field in templates.pieces(record.gpt3_prompt.input):
            assert not (before.endswith((".", "!", "?")) and literal.startswith((".", "!", "?"))), example.inputs
            before = example.fields[field] if field else ""


@EVERY
def test_an_answer_ends_at_its_stops(record):
    """B1: all answers were cut at "Q:" or a blank line, whatever their prompt looks like."""
    asked = protocol.of(record, GPT3)
    if asked.ranked:
        return
    stops = asked.stops(asked.joint(None, False))
    for _, example in examples(record):
        # The paper's rule, where nothing was shown before: a blank line, or a next question.
        for more in ("\n\nMore text.", "\nQ: More?\nA: Yes."):
            assert cut(f" {example.targets}{more}", stops).strip() == example.targets
        # The next field's label ends the answer too.
        label = re.match(r"^[A-Z][A-Za-z ]*:", asked.templates[0].input)
        if label and "\n\n" not in asked.templates[0].input:
            assert cut(f" {example.targets}\n{label.group()} more", stops).strip() == example.targets


@EVERY
@pytest.mark.parametrize("words", ["gpt3_2_shots", "2_shots"])
def test_an_answer_ends_where_the_next_exemplar_would_begin(record, words):
    """What a model says that goes on as its prompt does: the answer, what ends an exemplar, and the next exemplar."""
    asked = protocol.of(record, styles.parse(words))
    if asked.ranked:
        return
    rows = [fields for fields, _ in examples(record)]
    pool = [(f"train {number}", fields) for number, fields in enumerate(rows)]
    builder = ExampleBuilder(record, asked.style, asked=asked, pool=pool, tokenizer=CountsWords())
    stops = asked.stops(asked.joint(None, False))
    shown = 0
    for number, fields in enumerate(rows[-6:]):
        example = builder.build(f"test {number}", fields, asked.forward[0])
        shown += example.shots
        following = example.prefix or example.inputs  # the prefix begins with an exemplar's input
        assert cut(example.targets + asked.exemplar_end + following, stops) == example.targets
        if example.shots:  # and as it stands in the prompt
            answered = following.rstrip()
            assert cut(following[len(answered) - 1 :], stops) == answered[-1]
    assert shown > 0


@EVERY
def test_words_are_announced(record):
    """A label word that no prompt names is one that an untuned model has no reason to say."""
    asked = protocol.of(record, GPT3)
    if not record.labels:
        return
    for word in record.gpt3_prompt.words or record.label_words:
        assert re.search(rf"\b{re.escape(word)}\b", asked.templates[0].input, re.IGNORECASE) or record.name == "stsb"


@EVERY
def test_the_lack_of_an_answer_is_announced(record):
    """B6: QuAC's prompt never said what to answer where the text does not tell."""
    if protocol.of(record, GPT3).ranked:
        return
    instructed = " ".join(record.templates[n].input for n in record.forward_templates).lower()
    for word in NO_ANSWERS:
        if f'"{word}"' in instructed:
            assert word in record.gpt3_prompt.input


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("Her socks got wet.", "her socks got wet."),
        ("I was late.", "I was late."),
        ("I'm late.", "I'm late."),
        ("It\u2019s late.", "it\u2019s late."),
        ("He's late.", "he's late."),
        ("Mary was late.", "Mary was late."),
        ("The TV was on.", "the TV was on."),
        ("TV was on.", "TV was on."),
        ("A I was built.", "a I was built."),
        ("IT was late.", "IT was late."),
        ("May was warm.", "May was warm."),
        ("their dog barked.", "their dog barked."),
        ("", ""),
        ("\u00c9milie left.", "\u00c9milie left."),
    ],
)
def test_options_in_the_middle_of_a_sentence(option, shown):
    assert styles.in_mid_sentence(option) == shown


def test_copa_goes_on_with_because_or_so():
    """B5: the prompt asked "What was the cause of this?"."""
    record = catalog.dataset("copa")
    seen = set()
    for fields, example in examples(record):
        link = {"cause": "because", "effect": "so"}[fields["relation"]]
        assert example.inputs == f"{fields['premise'].rstrip('.!?')} {link}" and example.fields["link"] == link
        assert example.fields["options"] == [styles.in_mid_sentence(option) for option in fields["options"]]
        assert example.targets in example.fields["options"] and example.targets[0].islower()
        seen.add(link)
    assert seen == {"because", "so"}
    assert protocol.of(record, GPT3).premise(0) == "{link}"


def test_quac_says_what_to_answer():
    shown = [example for fields, example in examples(catalog.dataset("quac")) if fields["answer"] == "no answer"]
    assert shown and all("no answer" in example.inputs for example in shown)
