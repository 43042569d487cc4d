import dataclasses

import pytest

from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import prompts
from flan_jax.scoring import trees
from flan_jax.styles import TextStyle
from flan_jax.templates import Template

BYTES = ByteTokenizer()


class MergingTokenizer(ByteTokenizer):
    """Bytes, but "ab" and "bc" are one token each, so that tokens can span prompt and option."""

    def encode(self, texts):
        found = []
        for text in texts:
            ids, i = [], 0
            while i < len(text):
                merged = {"ab": 260, "bc": 261}.get(text[i : i + 2])
                ids.append(merged or ord(text[i]) + 3)
                i += 2 if merged else 1
            found.append(ids)
        return found


def _ids(text):
    return tuple(BYTES.encode([text])[0])


def test_joined_moves_white_space_and_splits_by_the_context():
    tree = trees.build_tree(BYTES, "Q: ", ["yes", "no"], separator=None)
    assert tree == trees.Tree(_ids("Q:"), (_ids(" yes"), _ids(" no")), (0, 0), (3, 2))


def test_newline_stays_in_the_context():
    tree = trees.build_tree(BYTES, "Q", ["yes", "é"], separator="newline")
    assert tree == trees.Tree(_ids("Q\n"), (_ids("yes"), _ids("é")), (0, 0), (3, 2))


def test_space_belongs_to_the_option():
    tree = trees.build_tree(BYTES, "A:", ["yes", "no"], separator="space")
    assert tree == trees.Tree(_ids("A:"), (_ids(" yes"), _ids(" no")), (0, 0), (3, 2))


@pytest.mark.parametrize("bos", [None, 7])
def test_eos_as_in_tuning(bos):
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = bos
    start = () if bos is None else (7,)
    tree = trees.build_tree(tokenizer, "Q", ["it is", "it is not"], separator="eos")
    assert tree.trunk == (*start, *_ids("Q"), 1)
    assert tree.branches == ((*_ids("it is"), 1), (*_ids("it is not"), 1))
    assert trees.build_tree(tokenizer, "Q", ["a"], separator="eos", score_eos=False).branches == (_ids("a"),)


def test_tokens_across_the_boundary_go_unscored_or_are_never_empty():
    tree = trees.build_tree(MergingTokenizer(), "xa", ["b", "c", "bcd"], separator=None)
    # "xa"+"b" -> x ab: one token spans both; the split is after len(encode("xa")) = 2 tokens, which would leave none.
    assert tree.trunk == _ids("x")
    assert tree.branches == ((260,), _ids("ac"), (260, *_ids("cd")))
    assert tree.unscored == (0, 1, 1)
    assert tree.tokens == (1, 1, 2)


def test_eos_stands_before_a_first_token_that_is_scored():
    assert trees.build_tree(BYTES, "", ["a", "b"], separator=None).trunk == (BYTES.eos_id,)
    assert trees.build_tree(BYTES, " ", ["a"], separator=None).branches == (_ids(" a"),)


def test_prompt_is_cut_from_the_left_and_counted():
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = 9
    tree = trees.build_tree(tokenizer, "0123456789", ["ab", "c"], separator="eos", max_length=8)
    assert tree.trunk == (9, *_ids("789"), 1)
    assert tree.cut_tokens == 7 and tree.longest == 8
    with pytest.raises(FlanError, match="no room for a prompt"):
        trees.build_tree(tokenizer, "01", ["a" * 20], separator="eos", max_length=8)
    with pytest.raises(FlanError, match="no tokens of its own"):
        trees.build_tree(tokenizer, "01", [""], separator=None)
    with pytest.raises(FlanError, match="separator is 'tab'"):
        trees.build_tree(tokenizer, "01", ["a"], separator="tab")


TEMPLATE = Template("Read: {passage}\nAsk: {question}\n{options}")
FIELDS = {"passage": "one two three four five six seven", "question": "is it?", "options": ["yes", "no"]}


def test_fit_prompt_leaves_what_fits():
    prompt = prompts.fit_prompt(BYTES, TEMPLATE, FIELDS | {"answer": "yes"}, 500, separator="eos")
    assert prompt.cut_tokens == 0 and prompt.target == "yes" and prompt.inputs.startswith("Read: one two")


@pytest.mark.parametrize("separator", ["eos", "newline", "space"])
@pytest.mark.parametrize("limit", range(48, 90, 5))
def test_fit_prompt_shortens_the_longest_field_only(separator, limit):
    fields = FIELDS | {"answer": "yes"}
    prompt = prompts.fit_prompt(BYTES, TEMPLATE, fields, limit, separator=separator)
    tree = prompts.scoring_tree(BYTES, prompt.inputs, fields["options"], separator)
    assert tree.longest <= limit
    whole = prompts.fit_prompt(BYTES, TEMPLATE, fields, 10_000, separator=separator).inputs
    assert prompt.cut_tokens == len(whole) - len(prompt.inputs)
    assert prompt.inputs.endswith("Ask: is it?\nOPTIONS:\n- yes\n- no")
    passage = prompt.inputs.removeprefix("Read: ").split("\nAsk")[0]
    assert fields["passage"].endswith(passage)


def test_fit_prompt_keeps_the_exemplars_whole():
    prefix = "Read: a\nAsk: b\nno\n\n"
    prompt = prompts.fit_prompt(BYTES, TEMPLATE, FIELDS | {"answer": "yes"}, 85, prefix=prefix, separator="eos")
    assert prompt.inputs.startswith(prefix + "Read: ") and prompt.cut_tokens > 0
    assert len(prompt.inputs) + len("yes") + 2 <= 85


def test_fit_prompt_never_cuts_instruction_or_options():
    with pytest.raises(FlanError, match="without any field's text"):
        prompts.fit_prompt(BYTES, TEMPLATE, FIELDS | {"answer": "yes"}, 30, separator="eos")


def test_resolve_separator():
    assert prompts.resolve_separator("auto", None) == "newline"
    assert prompts.resolve_separator("auto", "eos") == "eos"
    assert prompts.resolve_separator("newline", "eos") == "newline"
    assert prompts.resolve_separator("auto", "eos", TextStyle("gpt3")) == "space"
    assert prompts.resolve_separator("eos", None, TextStyle("gpt3")) == "eos"
    with pytest.raises(FlanError, match="'auto', 'eos', 'newline', 'space'"):
        prompts.resolve_separator("tab", None)


def test_a_tree_must_be_predictable():
    tree = trees.Tree((3,), ((4, 5),), (0,), (2,))
    for wrong in ({"trunk": ()}, {"unscored": (2,)}, {"num_bytes": ()}):
        with pytest.raises(ValueError):
            dataclasses.replace(tree, **wrong)
