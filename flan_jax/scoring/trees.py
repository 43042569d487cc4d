"""A prompt and its answer options as one tree of tokens.

The trunk is what all options share; each option is a branch. There are four joints (`flan_jax.protocol`):

- "joined": context and option are tokenized together, and split after as many tokens as the context alone has, as in
  lm-evaluation-harness. White space at the end of the prompt belongs to the option.
- "newline": the same, with a line break at the end of the prompt. It belongs to the context, so it is neither scored
  nor counted, and tokenizers see the option where it stands, at the start of a line.
- "space": the same, with a space between them that belongs to the option, as in GPT-3's prompts.
- "eos": as in tuning (paper, section 2.4), [BOS] prompt EOS option EOS; prompt and option are tokenized separately. The
  last EOS is scored too, because it says that the answer ends. Without it, "it is" would always beat "it is not".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError
from flan_jax.protocol import EOS, JOINED, NEWLINE, SPACE


class UnscorableError(FlanError):
    """The options of a prompt cannot be scored: one has no tokens, or they leave no room for the prompt."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """The tokens of a prompt and its K options.

    Attributes:
      trunk: the tokens that all options start from. Its last token predicts the first token of every branch.
      branches: the tokens of the K branches.
      unscored: for each branch, how many of its first tokens carry no score. They belong to the prompt: a token that
        spans prompt and option can make the prompt's own tokens depend on the option.
      num_bytes: for each option, the length of its text in UTF-8.
      cut_tokens: how many tokens the prompt lost at its left end.
      prefix: tokens in front of the trunk. They are computed once for all trees with the same prefix.
    """

    trunk: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    unscored: tuple[int, ...]
    num_bytes: tuple[int, ...]
    cut_tokens: int = 0
    prefix: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.branches) == len(self.unscored) == len(self.num_bytes):
            raise ValueError(
                f"{len(self.branches)} branches, {len(self.unscored)} unscored, {len(self.num_bytes)} bytes"
            )
        for branch, unscored in zip(self.branches, self.unscored, strict=True):
            if not 0 <= unscored < len(branch):
                raise ValueError(f"a branch of {len(branch)} tokens cannot leave {unscored} of them unscored")
            if not self.trunk and not unscored:
                raise ValueError("nothing stands before the first scored token of a branch")

    @property
    def longest(self) -> int:
        """The number of tokens of the prompt with its longest option, without the prefix."""
        return len(self.trunk) + max(map(len, self.branches), default=0)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The number of scored tokens of each option."""
        return tuple(len(b) - u for b, u in zip(self.branches, self.unscored, strict=True))


def build_tree(
    tokenizer: Tokenizer,
    prompt: str,
    options: Sequence[str],
    *,
    joint: str,
    max_length: int | None = None,
    score_eos: bool = True,
) -> Tree:
    """Makes the tree of one prompt; see `build_trees`."""
    return build_trees(tokenizer, [prompt], [options], joint=joint, max_length=max_length, score_eos=score_eos)[0]


def build_trees(
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    joint: str,
    max_length: int | None = None,
    score_eos: bool = True,
) -> list[Tree]:
    """Makes the trees of many prompts, tokenized in one call; see `try_trees`.

    Raises:
      UnscorableError: an option has no tokens, or options alone are longer than `max_length`.
      FlanError: an unknown joint.
    """
    found = try_trees(tokenizer, prompts, options, joint=joint, max_length=max_length, score_eos=score_eos)
    for one in found:
        if isinstance(one, UnscorableError):
            raise one
    return found


def try_trees(
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    joint: str,
    max_length: int | None = None,
    score_eos: bool = True,
) -> list[Tree | UnscorableError]:
    """Makes the trees of many prompts, tokenized in one call. For a prompt that cannot be scored, it returns the error.

    Args:
      tokenizer: the model's vocabulary.
      prompts: N prompts.
      options: the options of each prompt.
      joint: "joined", "newline", "space" or "eos"; the module explains them.
      max_length: most tokens of a prompt with its longest option; None sets no limit. Longer prompts lose their left
        end, and `cut_tokens` says how much.
      score_eos: with "eos", whether each option ends with an EOS that is scored.

    Raises:
      FlanError: an unknown joint.
    """
    if joint not in (JOINED, NEWLINE, SPACE, EOS):
        raise FlanError(f"joint is {joint!r}; it can be 'eos', 'newline', 'space' or 'joined'.")
    texts: list[str] = []
    for prompt, choices in zip(prompts, options, strict=True):
        if joint == EOS:
            texts += [prompt, *choices]
        else:
            context = prompt + "\n" if joint == NEWLINE else prompt.rstrip()
            moved = {NEWLINE: "", SPACE: " "}.get(joint, prompt[len(context) :])
            texts += [context, *(context + moved + choice for choice in choices)]
    encoded = iter(tokenizer.encode(texts))
    trees: list[Tree | UnscorableError] = []
    for prompt, choices in zip(prompts, options, strict=True):
        head = next(encoded)
        tails = [next(encoded) for _ in choices]
        try:
            if joint == EOS:
                tree, fixed = _separated(tokenizer, head, tails, choices, score_eos)
            else:
                tree, fixed = _joined(tokenizer, head, tails, choices)
            trees.append(_fit(tree, fixed, max_length, prompt))
        except UnscorableError as error:
            trees.append(error)
    return trees


def share_prefix(trees: Sequence[Tree], at_least: int = 32) -> list[Tree]:
    """The same trees, with the common start of all trunks as their prefix. At least one token of each trunk stays.

    Prompts were tokenized as a whole before, so the scores are those of the original trees.

    Args:
      trees: trees without prefixes.
      at_least: the least number of tokens that is worth a prefix. If less is common, the trees are returned as they
        are.
    """
    if len(trees) < 2:
        return list(trees)
    depth = len(_common_prefix([list(tree.trunk) for tree in trees]))
    depth = min(depth, min(len(tree.trunk) for tree in trees) - 1)
    if depth < at_least:
        return list(trees)
    return [dataclasses.replace(tree, trunk=tree.trunk[depth:], prefix=tree.trunk[:depth]) for tree in trees]


def _no_tokens(option: str) -> UnscorableError:
    return UnscorableError(f"option {option!r} has no tokens of its own; give every option some text.")


def _separated(
    tokenizer: Tokenizer, prompt: list[int], tails: list[list[int]], options: Sequence[str], score_eos: bool
) -> tuple[Tree, int]:
    """[BOS] prompt EOS | option [EOS]. Returns the tree and how many of its first tokens must stay."""
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    end = [tokenizer.eos_id] if score_eos else []
    for option, tail in zip(options, tails, strict=True):
        if not tail + end:
            raise _no_tokens(option)
    branches = tuple(tuple(tail + end) for tail in tails)
    return Tree((*start, *prompt, tokenizer.eos_id), branches, (0,) * len(tails), _bytes(options)), len(start)


def _joined(
    tokenizer: Tokenizer, context: list[int], wholes: list[list[int]], options: Sequence[str]
) -> tuple[Tree, int]:
    """[BOS] common tokens | the rest of the context, option.

    Returns the tree and how many of its first tokens must stay.
    """
    for option, whole in zip(options, wholes, strict=True):
        if not whole or not option or whole == context:  # a tokenizer may drop white space
            raise _no_tokens(option)
    splits = [min(len(context), len(whole) - 1) for whole in wholes]
    trunk = _common_prefix([whole[:split] for whole, split in zip(wholes, splits, strict=True)])
    unscored = tuple(split - len(trunk) for split in splits)
    branches = tuple(tuple(whole[len(trunk) :]) for whole in wholes)
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if not start and not trunk and 0 in unscored:
        # Something must predict the first token; in pretraining, EOS stands before a document.
        start = [tokenizer.eos_id]
    return Tree((*start, *trunk), branches, unscored, _bytes(options)), len(start)


def _common_prefix(sequences: Sequence[list[int]]) -> list[int]:
    first, last = min(sequences), max(sequences)  # what the first and last of them in order share, all share
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _bytes(options: Sequence[str]) -> tuple[int, ...]:
    return tuple(len(option.encode("utf-8")) for option in options)


def _fit(tree: Tree, fixed: int, max_length: int | None, prompt: str) -> Tree:
    """Cuts the trunk after its first `fixed` tokens, from the left. At least one of the other tokens stays."""
    over = 0 if max_length is None else tree.longest - max_length
    if over <= 0:
        return tree
    rest = tree.trunk[fixed:]
    if over >= len(rest):
        raise UnscorableError(
            f"the prompt {prompt[:60]!r} has an option of {max(map(len, tree.branches))} tokens, "
            f"which leaves no room for a prompt in {max_length}; raise the length or shorten the option."
        )
    return dataclasses.replace(tree, trunk=(*tree.trunk[:fixed], *rest[over:]), cut_tokens=over)
