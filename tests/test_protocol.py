import dataclasses
import json

import pytest

from flan_jax import catalog, protocol, styles, templates
from flan_jax.errors import FlanError
from flan_jax.protocol import AUTO, EOS, JOINED, NEWLINE, SPACE

RTE, NQ, COPA = (catalog.dataset(name) for name in ("rte", "natural_questions", "copa"))
GPT3 = styles.parse("gpt3")
EVERY = catalog.datasets()
STYLES = ("instructions", "gpt3", "5_shots", "gpt3_5_shared_shots", "no_template", "4_templates", "without_options")


@pytest.mark.parametrize("style", STYLES)
def test_every_dataset_has_one(style):
    style = styles.parse(style)
    found = [protocol.of(record, style) for record in EVERY]
    assert len({one.digest for one in found}) == len(found)
    assert all(
        one.forward and one.numbers[0] == one.forward[0] and set(one.forward) <= set(one.numbers) for one in found
    )
    assert all(one.ranked == (one.record.kind == catalog.CLASSIFICATION) for one in found)
    assert all(one.headline == one.record.metrics[0] and one.max_new_tokens in (32, 64, 256) for one in found)
    assert all(one.templates[n].is_forward for one in found for n in one.forward)


@pytest.mark.parametrize(
    ("trained", "has_encoder", "setting", "in_instructions", "in_gpt3", "of_plain_text"),
    [
        (None, False, AUTO, NEWLINE, SPACE, JOINED),
        ("eos", False, AUTO, EOS, SPACE, EOS),
        (None, True, AUTO, EOS, EOS, EOS),  # imported or tuned here, T5 was trained with EOS
        ("eos", True, AUTO, EOS, EOS, EOS),
        (None, True, EOS, EOS, EOS, EOS),
        ("eos", False, SPACE, SPACE, SPACE, SPACE),
        ("eos", False, JOINED, JOINED, JOINED, JOINED),
        (None, False, EOS, EOS, EOS, EOS),
    ],
)
def test_joint(trained, has_encoder, setting, in_instructions, in_gpt3, of_plain_text):
    assert protocol.of(RTE).joint(trained, has_encoder, setting) == in_instructions
    assert protocol.of(RTE, GPT3).joint(trained, has_encoder, setting) == in_gpt3
    assert protocol.joint(trained, has_encoder, setting, otherwise=JOINED) == of_plain_text


@pytest.mark.parametrize("setting", ["", "EOS", "none", "new line", None, 1])
def test_no_such_joint(setting):
    with pytest.raises(FlanError, match="'auto', 'joined', 'eos', 'newline', 'space'"):
        protocol.joint(None, False, setting)


@pytest.mark.parametrize("setting", [JOINED, NEWLINE, SPACE])
def test_an_encoder_has_eos_and_nothing_else(setting):
    with pytest.raises(FlanError, match="has an encoder"):
        protocol.of(RTE).joint(None, True, setting)


def test_stops():
    assert protocol.of(NQ, GPT3).stops(SPACE) == ("\n",)
    assert protocol.of(catalog.dataset("multi_news"), GPT3).stops(SPACE) == ("\n\n", "\nQ:")
    assert protocol.of(NQ).stops(NEWLINE) == ("\n\n", "\nQ:")
    for style in (styles.PAPER, GPT3):
        assert protocol.of(NQ, style).stops(EOS) == ()


def test_joints_of_exemplars():
    assert protocol.of(RTE, GPT3).exemplar_joint == " "
    for style in ("instructions", "5_shots", "no_template", "dataset_name"):
        assert protocol.of(RTE, styles.parse(style)).exemplar_joint == "\n"


@pytest.mark.parametrize(
    ("name", "premise"),
    [
        ("bool_q", "Answer (yes or no):"),
        ("cosmos_qa", "A:"),
        ("arc_easy", "Answer:"),
        ("multirc", "Yes or no:"),
        ("wic", "Answer (yes or no):"),  # not the rest of the line with the word in it
        ("definite_pronoun_resolution", "refers to"),
        ("rte", "Is the statement true or false?\nAnswer:"),
        ("hellaswag", ""),
        ("openbookqa", ""),
    ],
)
def test_premise_is_the_end_of_the_prompt(name, premise):
    assert protocol.of(catalog.dataset(name), GPT3).premise(0) == premise


def test_premise_with_instructions():
    shows_text_last = protocol.of(catalog.dataset("cosmos_qa"))
    assert all(
        shows_text_last.premise(n) == ""
        for n in shows_text_last.forward
        if shows_text_last.templates[n].input.endswith("{options}")
    )
    record = dataclasses.replace(
        RTE, templates=(templates.Template("{premise} {hypothesis}\n{options}\n\nAnswer:"), *RTE.templates[1:])
    )
    assert protocol.of(record).premise(0) == "Answer:"


def test_limits():
    one = protocol.of(NQ)
    assert (one.max_input_tokens, one.max_target_tokens, one.exemplar_budget) == (1024, 256, 960)
    assert (one.trim, protocol.of(NQ, GPT3).trim) == ("end", "start")
    other = one.limited(max_input_tokens=512, max_new_tokens=8)
    assert (other.max_input_tokens, other.max_target_tokens, other.max_new_tokens) == (512, 256, 8)
    assert one.limited(max_new_tokens=10_000).max_new_tokens == one.max_new_tokens
    assert one.limited() == one
    for limits in (
        {"max_input_tokens": 0},
        {"max_target_tokens": -1},
        {"max_new_tokens": 0},
        {"max_input_tokens": 1.5},
    ):
        with pytest.raises(FlanError, match=next(iter(limits))):
            one.limited(**limits)


def _changed(record, **changes):
    prompt = {k: changes.pop(k) for k in ("stop", "words", "premise", "input") if k in changes}
    return dataclasses.replace(record, gpt3_prompt=dataclasses.replace(record.gpt3_prompt, **prompt), **changes)


@pytest.mark.parametrize(
    ("style", "change", "text_too"),
    [
        ("gpt3", lambda p: protocol.of(_changed(p.record, stop=("\n", "\nQ:")), p.style), False),
        ("gpt3", lambda p: protocol.of(_changed(p.record, premise="So:"), p.style), False),
        ("gpt3", lambda p: protocol.of(_changed(p.record, input="{question} ="), p.style), True),
        ("gpt3", lambda p: protocol.of(_changed(p.record, words=("a", "b")), p.style), True),
        ("instructions", lambda p: protocol.of(_changed(p.record, metrics=("squad",)), p.style), False),
        ("instructions", lambda p: protocol.of(_changed(p.record, passage="question"), p.style), False),
        ("instructions", lambda p: p.limited(max_new_tokens=5), False),
        ("instructions", lambda p: p.limited(max_input_tokens=1000), True),
        ("instructions", lambda p: p.limited(max_target_tokens=100), True),
        ("instructions", lambda p: dataclasses.replace(p, version=p.version + 1), True),
        ("instructions", lambda p: dataclasses.replace(p, untuned_stops=("\n",)), False),
        ("instructions", lambda p: dataclasses.replace(p, untuned_joint=SPACE), False),
        ("5_shots", lambda p: dataclasses.replace(p, exemplar_joint=" "), True),
        ("5_shots", lambda p: dataclasses.replace(p, exemplar_budget=10), True),
        ("5_shots", lambda p: dataclasses.replace(p, trim="start"), True),
        ("5_shots", lambda p: protocol.of(p.record, styles.parse("4_shots")), True),
    ],
)
def test_the_digest_holds_all_that_decides(style, change, text_too):
    before = protocol.of(NQ, styles.parse(style))
    after = change(before)
    assert after.digest != before.digest
    assert (after.text_digest != before.text_digest) == text_too


def test_the_digest_is_stable():
    one = protocol.of(NQ, GPT3)
    assert one.digest == dataclasses.replace(one).digest
    assert len(one.digest) == 16 and json.loads(json.dumps(one.digest)) == one.digest


def test_an_empty_stop_is_refused():
    with pytest.raises(FlanError, match="natural_questions: a stop is empty"):
        protocol.of(_changed(NQ, stop=("",)), GPT3)


@pytest.mark.parametrize("record", [d for d in EVERY if len(d.forward_templates) < 10], ids=lambda d: d.name)
def test_inverted_templates_are_spread_evenly(record):
    """B8: they stood last, so that 1, 2, 4 and 7 templates had none and 10 had three."""
    share = 1 - len(record.forward_templates) / 10
    seen = ()
    for count in range(1, 11):
        one = protocol.of(record, styles.TextStyle(num_templates=count))
        assert len(one.numbers) == len(set(one.numbers)) == count
        assert set(seen) <= set(one.numbers)  # each is the one before with a template more
        inverted = [n for n in one.numbers if not record.templates[n].is_forward]
        assert abs(len(inverted) - count * share) < 0.51
        assert record.templates[one.numbers[0]].is_forward
        # A number names the same template as in the catalog, and as in flan_<dataset>_t<k>.
        assert all(one.templates[n] == record.templates[n] for n in one.numbers)
        seen = one.numbers
