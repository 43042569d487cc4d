import dataclasses

import pytest

from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.scoring import trees

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
    tree = trees.build_tree(BYTES, "Q: ", ["yes", "no"], joint="joined")
    assert tree == trees.Tree(_ids("Q:"), (_ids(" yes"), _ids(" no")), (0, 0), (3, 2))


def test_newline_stays_in_the_context():
    tree = trees.build_tree(BYTES, "Q", ["yes", "é"], joint="newline")
    assert tree == trees.Tree(_ids("Q\n"), (_ids("yes"), _ids("é")), (0, 0), (3, 2))


def test_space_belongs_to_the_option():
    tree = trees.build_tree(BYTES, "A:", ["yes", "no"], joint="space")
    assert tree == trees.Tree(_ids("A:"), (_ids(" yes"), _ids(" no")), (0, 0), (3, 2))


@pytest.mark.parametrize("bos", [None, 7])
def test_eos_as_in_tuning(bos):
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = bos
    start = () if bos is None else (7,)
    tree = trees.build_tree(tokenizer, "Q", ["it is", "it is not"], joint="eos")
    assert tree.trunk == (*start, *_ids("Q"), 1)
    assert tree.branches == ((*_ids("it is"), 1), (*_ids("it is not"), 1))
    assert trees.build_tree(tokenizer, "Q", ["a"], joint="eos", score_eos=False).branches == (_ids("a"),)


def test_tokens_across_the_boundary_go_unscored_or_are_never_empty():
    tree = trees.build_tree(MergingTokenizer(), "xa", ["b", "c", "bcd"], joint="joined")
    # "xa"+"b" -> x ab: one token spans both; the split is after len(encode("xa")) = 2 tokens, which would leave none.
    assert tree.trunk == _ids("x")
    assert tree.branches == ((260,), _ids("ac"), (260, *_ids("cd")))
    assert tree.unscored == (0, 1, 1)
    assert tree.tokens == (1, 1, 2)


def test_eos_stands_before_a_first_token_that_is_scored():
    assert trees.build_tree(BYTES, "", ["a", "b"], joint="joined").trunk == (BYTES.eos_id,)
    assert trees.build_tree(BYTES, " ", ["a"], joint="joined").branches == (_ids(" a"),)


def test_prompt_is_cut_from_the_left_and_counted():
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = 9
    tree = trees.build_tree(tokenizer, "0123456789", ["ab", "c"], joint="eos", max_length=8)
    assert tree.trunk == (9, *_ids("789"), 1)
    assert tree.cut_tokens == 7 and tree.longest == 8
    with pytest.raises(FlanError, match="no room for a prompt"):
        trees.build_tree(tokenizer, "01", ["a" * 20], joint="eos", max_length=8)
    with pytest.raises(FlanError, match="no tokens of its own"):
        trees.build_tree(tokenizer, "01", [""], joint="joined")
    with pytest.raises(FlanError, match="joint is 'tab'"):
        trees.build_tree(tokenizer, "01", ["a"], joint="tab")


def test_what_cannot_be_scored_is_told_apart():
    found = trees.try_trees(BYTES, ["a", "b", "c"], [["x"], ["x", ""], ["y" * 90]], joint="newline", max_length=40)
    assert isinstance(found[0], trees.Tree) and found[0].branches == (_ids("x"),)
    assert [type(one) for one in found[1:]] == [trees.UnscorableError] * 2
    assert "option '' has no tokens" in str(found[1]) and "no room for a prompt" in str(found[2])
    with pytest.raises(trees.UnscorableError, match="option '' has no tokens"):
        trees.build_trees(BYTES, ["a", "b"], [["x"], [""]], joint="space")
    assert trees.build_tree(BYTES, "b", ["x", ""], joint="eos").branches == ((*_ids("x"), 1), (1,))


class DroppingTokenizer(ByteTokenizer):
    """White space at the end of a text has no tokens."""

    def encode(self, texts):
        return super().encode([text.rstrip() for text in texts])


def test_an_option_that_leaves_no_trace_is_never_scored_by_the_prompts_tokens():
    with pytest.raises(trees.UnscorableError, match="has no tokens"):
        trees.build_tree(DroppingTokenizer(), "ab", ["c", " "], joint="joined")


def test_a_tree_must_be_predictable():
    tree = trees.Tree((3,), ((4, 5),), (0,), (2,))
    for wrong in ({"trunk": ()}, {"unscored": (2,)}, {"num_bytes": ()}):
        with pytest.raises(ValueError):
            dataclasses.replace(tree, **wrong)
