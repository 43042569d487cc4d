"""Texts continued: prompts to tokens, tokens to text, cut where it is to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flan_jax.data.vocabularies import Tokenizer
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.generator import Generator
from flan_jax.decoding.sampling import Sampling
from flan_jax.errors import FlanError
from flan_jax.files import as_unicode
from flan_jax.scoring.trees import EOS, NEWLINE, SPACE

ENDED, STOPPED, LIMIT = "eos", "stop", "length"


@dataclasses.dataclass(frozen=True)
class Completion:
    """What a model said to a prompt.

    Attributes:
      text: up to the first stop string, or all of it.
      finish: why it ends there: "eos", "stop" or "length".
      num_tokens: tokens that were generated, without the end of sequence.
      score: see `decoding.Generation`.
    """

    text: str
    finish: str
    num_tokens: int
    score: float | None = None


def prompt_tokens(tokenizer: Tokenizer, prompts: Sequence[str], separator: str, *, encoder: bool) -> list[list[int]]:
    """Token ids of prompts as a model is to continue them.

    Args:
      tokenizer: the model's vocabulary.
      prompts: N texts.
      separator: what ends a prompt: "eos", as in tuning; "newline"; "space" leaves it as it is, without white space
        at its end, since that is the first token's.
      encoder: whether an encoder takes them; it has EOS at the end whatever the separator.
    """
    if separator not in (EOS, NEWLINE, SPACE):
        raise FlanError(f"separator is {separator!r}; it can be 'eos', 'newline' or 'space'.")
    prompts = [as_unicode(prompt) for prompt in prompts]  # an argument that is no UTF-8 reaches Python as surrogates
    if separator == NEWLINE and not encoder:
        prompts = [prompt + "\n" for prompt in prompts]
    elif separator == SPACE:
        prompts = [prompt.rstrip() for prompt in prompts]
    start = [] if tokenizer.bos_id is None or encoder else [tokenizer.bos_id]
    end = [tokenizer.eos_id] if separator == EOS or encoder else []
    return [[*start, *ids, *end] for ids in tokenizer.encode(prompts)]


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first place where any of the stop strings starts."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def complete(
    generator: Generator,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    separator: str,
    max_new_tokens: int | Sequence[int],
    choose: Sampling | Beams = Sampling(),  # noqa: B008 (frozen)
    stops: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Completion]:
    """Continues texts.

    Args:
      generator: the model.
      tokenizer: its vocabulary.
      prompts: N texts.
      separator: see `prompt_tokens`.
      max_new_tokens: a limit for all, or one for each.
      choose: how tokens are chosen.
      stops: a text ends before any of these. They are looked for in the text of all generated tokens, so it does not
        matter how they fall into tokens. A beam search is cut only when it is done.
      progress: called with (prompts done, prompts in all).

    Returns:
      A completion for each prompt.

    Raises:
      FlanError: an empty stop string, or what `Generator.generate` refuses.
    """
    ids = prompt_tokens(tokenizer, prompts, separator, encoder=generator.has_encoder)
    return complete_tokens(
        generator, tokenizer, ids, max_new_tokens=max_new_tokens, choose=choose, stops=stops, progress=progress
    )


def complete_tokens(
    generator: Generator,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    choose: Sampling | Beams = Sampling(),  # noqa: B008 (frozen)
    stops: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Completion]:
    """As `complete`, of prompts that are token ids."""
    if not all(stops):
        raise FlanError("a stop string is empty: give one or more characters.")

    def is_complete(ids: tuple[int, ...]) -> bool:
        text = tokenizer.decode(ids)
        return any(stop in text for stop in stops)

    found = generator.generate(
        prompts, max_new_tokens, choose=choose, is_complete=is_complete if stops else None, progress=progress
    )
    completions = []
    for generation in found:
        whole = tokenizer.decode(generation.tokens)
        text = cut(whole, stops)
        finish = STOPPED if text != whole else ENDED if generation.ended else LIMIT
        completions.append(Completion(text, finish, len(generation.tokens), generation.score))
    return completions
