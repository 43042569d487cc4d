"""What a generator is asked for, prompts and limits, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from flan_jax.errors import FlanError, PromptError


def checked(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    max_prompt: int,
    most_new: int,
    vocab_size: int,
) -> tuple[list[list[int]], list[int]]:
    """Prompts as lists of Python's own numbers, and a limit of new tokens for each.

    Args:
      prompts: token ids of each.
      max_new_tokens: a limit for all, or one for each.
      max_prompt: longest prompt, in tokens.
      most_new: largest limit.
      vocab_size: the number of token ids.

    Raises:
      FlanError: as many limits as prompts are needed.
      PromptError: the first prompt that is empty or too long, or has what is no token of the model, or such a limit.

    Example:
      >>> checked([[5, 3], [7]], 4, max_prompt=8, most_new=16, vocab_size=10)
      ([[5, 3], [7]], [4, 4])
    """
    found = [_whole_numbers(prompt) for prompt in prompts]
    limits: list[Any] = [max_new_tokens] * len(found) if np.ndim(max_new_tokens) == 0 else list(max_new_tokens)  # type: ignore[arg-type]
    if len(limits) != len(found):
        raise FlanError(f"max_new_tokens has {len(limits)} limits for {len(found)} prompts: give one for each.")
    for i, (prompt, limit) in enumerate(zip(found, limits, strict=True)):
        if not 1 <= len(prompt) <= max_prompt:
            remedy = "shorten it" if prompt else "give it some text"
            raise PromptError(i, f"has {len(prompt)} tokens; it can have 1 to {max_prompt}: {remedy}.")
        stray = next((one for one in prompt if not _is_whole(one) or not 0 <= one < vocab_size), None)
        if stray is not None:
            raise PromptError(
                i, f"has {stray!r}, which is no token of the model: give whole numbers below {vocab_size}."
            )
        if not _is_whole(limit) or not 1 <= limit <= most_new:
            raise PromptError(i, f"asks for {limit} new tokens; it can be 1 to {most_new}.")
    return found, limits


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _whole_numbers(prompt: Sequence[int]) -> list[Any]:
    """A prompt's tokens as Python's own numbers, where they come as those of an array."""
    return (
        np.asarray(prompt).tolist()
        if isinstance(prompt, np.ndarray)
        else [one.item() if isinstance(one, np.generic) else one for one in prompt]
    )
