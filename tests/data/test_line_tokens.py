"""Tokens of lines against tokens of whole texts, by the libraries themselves."""

import itertools
import random

import pytest
from tokenizers_by_kind import CUT, EOS, WHOLE

from flan_jax.data import vocabularies
from flan_jax.data.line_tokens import LineTokenizer, cuts_after_line_breaks

# What makes tokenizers look left or right of a line break: white space of all kinds, digits, marks that join the letter
# before them, control tokens, bytes that are written out, and what a vocabulary knows as a word.
PIECES = [
    "\n",
    "\n",
    "\n",
    "\n\n",
    " ",
    "  ",
    "\t",
    "\r",
    "\r\n",
    "a",
    "The",
    "'ll",
    "'s",
    "-",
    "- yes",
    "5",
    "12",
    "é",
]
PIECES += [
    "\u0301",
    "\u00a0",
    "\u2028",
    "\u0085",
    "\u3000",
    "\x0b",
    "\x00",
    "\ufeff",
    "\u200d",
    "日本",
    "🦊",
    "ＡＢ",
    "＜",
]
PIECES += [
    "▁",
    "<0x0A>",
    EOS,
    "<|x|>",
    "</s>",
    "<unk>",
    "OPTIONS:",
    "...",
    "\n\n\n- no",
    "Q:",
    "fi",
    "<",
    "[",
    "A",
    "B",
]


def hostile(seed, count):
    draw = random.Random(seed)
    return ["".join(draw.choices(PIECES, k=draw.randint(0, 24))) for _ in range(count)]


def assert_same(tokenizer, texts):
    by_lines = LineTokenizer(tokenizer)
    for start in range(0, len(texts), 50):
        some = texts[start : start + 50]
        for text, found, wanted in zip(some, by_lines.encode(some), tokenizer.encode(some), strict=True):
            assert found == wanted, repr(text)
    return by_lines


@pytest.mark.parametrize("kind", CUT)
def test_lines_have_the_tokens_of_the_whole_text(kind):
    tokenizer = CUT[kind]()
    assert LineTokenizer(tokenizer).by_lines
    assert_same(tokenizer, hostile(0, 3_000))
    # All short texts around a break: what two characters do on either side.
    around = ["\n", " ", "\r", "5", "a", "-", "'", "\u0301", "\u00a0", EOS]
    assert_same(tokenizer, ["".join(some) for some in itertools.product(around, repeat=4)])


@pytest.mark.parametrize("kind", WHOLE)
def test_other_vocabularies_are_asked_for_whole_texts(kind):
    tokenizer = WHOLE[kind]()
    assert not cuts_after_line_breaks(tokenizer)
    by_lines = LineTokenizer(tokenizer)
    assert not by_lines.by_lines
    if kind != "dropout":
        assert_same(tokenizer, hostile(1, 300))


def test_kept_lines_are_not_tokenized_again(monkeypatch):
    tokenizer = CUT["gpt2_digits"]()
    by_lines = LineTokenizer(tokenizer)
    given = []
    monkeypatch.setattr(
        tokenizer, "encode", lambda texts: given.extend(texts) or type(tokenizer).encode(tokenizer, texts)
    )
    exemplars = "".join(f"Q: line {letter}?\nno\n\n" for letter in "abcde")
    by_lines.encode([exemplars + "Q: first?\n- yes"])
    first = list(given)
    by_lines.encode([exemplars + "Q: second?\n- yes"])
    assert len(first) == 8 and given[len(first) :] == ["\nQ: second?\nA"]


def test_what_is_given_out_can_be_changed():
    by_lines = LineTokenizer(vocabularies.ByteTokenizer())
    by_lines.encode(["a"])[0].append(7)
    assert by_lines.encode(["a", "a"]) == [[100], [100]]


def test_memory_is_bounded_and_exact_while_it_forgets():
    tokenizer = CUT["gpt2"]()
    by_lines = LineTokenizer(tokenizer, at_most=200)
    texts = hostile(2, 400)
    assert by_lines.encode(texts + texts) == tokenizer.encode(texts + texts)
    for text in texts:
        assert by_lines.encode([text, texts[0]]) == tokenizer.encode([text, texts[0]])
        kept = [line for lines in (*by_lines._young, *by_lines._old) for line in lines.values()]
        assert sum(map(len, kept)) <= 200 + max(len(ids) for ids in tokenizer.encode(texts))


def test_a_rule_that_the_library_refutes_is_not_used(monkeypatch):
    """The settings say that it holds, and the library does something else."""
    tokenizer = CUT["gpt2"]()
    plain = type(tokenizer).encode

    def joins(texts):
        return [[len(text), *ids] for text, ids in zip(texts, plain(tokenizer, texts), strict=True)]

    monkeypatch.setattr(tokenizer, "encode", joins)
    by_lines = LineTokenizer(tokenizer)
    assert cuts_after_line_breaks(tokenizer) and not by_lines.by_lines
    assert by_lines.encode(["a\nb"]) == joins(["a\nb"])


def test_the_rest_is_the_vocabularys_own():
    tokenizer = CUT["gpt2"]()
    by_lines = LineTokenizer(tokenizer)
    assert (by_lines.eos_id, by_lines.fingerprint) == (tokenizer.eos_id, tokenizer.fingerprint)
    ids = by_lines.encode(["The fox\njumps"])[0]
    assert by_lines.decode(ids) == tokenizer.decode(ids)
