"""Texts continued: prompts to tokens, tokens to text, cut where it is to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flan_jax.data.chat import Conversation
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.decoding.beam import Beams
from flan_jax.decoding.generator import Generator
from flan_jax.decoding.sampling import Sampling
from flan_jax.errors import FlanError
from flan_jax.json_lines import as_unicode
from flan_jax.protocol import EOS, JOINED, NEWLINE, SPACE

_HALF = "\ufffd"  # what the bytes of half a character are decoded to
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


def prompt_tokens(tokenizer: Tokenizer, prompts: Sequence[str], joint: str, *, encoder: bool) -> list[list[int]]:
    """Token ids of prompts as a model is to continue them.

    Args:
      tokenizer: the model's vocabulary.
      prompts: N texts.
      joint: what stands between a prompt and its answer (`flan_jax.protocol`): "eos"; "newline"; "space" and "joined"
        leave the prompt as it is, "space" without white space at its end, since that is the first token's.
      encoder: whether an encoder takes them; it has EOS at the end.

    Raises:
      FlanError: another joint.

    >>> from flan_jax.data.vocabularies import ByteTokenizer
    >>> with_newline = prompt_tokens(ByteTokenizer(), ["Is it so?"], "newline", encoder=False)[0]
    >>> ByteTokenizer().decode(with_newline)
    'Is it so?\\n'
    """
    if joint not in (EOS, NEWLINE, SPACE, JOINED):
        raise FlanError(f"joint is {joint!r}; it can be 'eos', 'newline', 'space' or 'joined'.")
    prompts = [as_unicode(prompt) for prompt in prompts]  # an argument that is no UTF-8 reaches Python as surrogates
    if joint == NEWLINE and not encoder:
        prompts = [prompt + "\n" for prompt in prompts]
    elif joint == SPACE:
        prompts = [prompt.rstrip() for prompt in prompts]
    start = [] if tokenizer.bos_id is None or encoder else [tokenizer.bos_id]
    end = [tokenizer.eos_id] if joint == EOS or encoder else []
    return [[*start, *ids, *end] for ids in tokenizer.encode(prompts)]


def chat_tokens(
    tokenizer: Tokenizer, conversations: Sequence[Conversation], template: str | None = None, *, encoder: bool
) -> list[list[int]]:
    """Token ids of conversations, as the model's chat template writes them for an answer.

    What the template does not write is not there: BOS is in it or is not added.

    Args:
      tokenizer: the model's vocabulary.
      conversations: N of them.
      template: its name; None takes the default.
      encoder: whether an encoder takes them; it has EOS at the end.

    Raises:
      FlanError: the model has no chat template, or it refuses the messages.
    """
    if tokenizer.chat is None:
        raise FlanError("this model has no chat template: leave --chat out, or import it again with its template.")
    texts = [as_unicode(tokenizer.chat.render(one.messages, template, **one.settings)) for one in conversations]
    if not all(texts):
        raise FlanError(
            "the chat template writes nothing for these messages: give the text as a prompt without --chat."
        )
    end = [tokenizer.eos_id] if encoder else []
    return [ids if end == ids[-1:] else ids + end for ids in tokenizer.encode_written(texts)]


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first place where any of the stop strings starts.

    >>> cut("A dog runs. Q: And the cat?", ["Q:", "And"])
    'A dog runs. '
    """
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def complete(
    generator: Generator,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    joint: str,
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
      joint: see `prompt_tokens`.
      max_new_tokens: a limit for all, or one for each.
      choose: how tokens are chosen.
      stops: a text ends before any of these. They are looked for in the text of all generated tokens, so it does not
        matter how they fall into tokens; a special token that one names or holds counts too, though it is no text.
        A beam search is cut only when it is done, but for a stop that is one special token.
      progress: called with (prompts done, prompts in all).

    Returns:
      A completion for each prompt.

    Raises:
      FlanError: an empty stop string, or what `Generator.generate` refuses.
    """
    ids = prompt_tokens(tokenizer, prompts, joint, encoder=generator.has_encoder)
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

    ends = {number for stop in stops if (number := tokenizer.control_ids.get(stop)) is not None}
    texts = [stop for stop in stops if stop not in tokenizer.control_ids]
    # Special tokens vanish from a text: a stop that holds one is looked for where they are written out.
    written = [stop for stop in texts if any(control in stop for control in tokenizer.control_ids)]

    def is_complete(ids: tuple[int, ...]) -> bool:
        text = tokenizer.decode(ids).rstrip(_HALF)
        return any(stop in text for stop in texts) or _before(tokenizer, ids, written) is not None

    found = generator.generate(
        prompts,
        max_new_tokens,
        choose=choose,
        is_complete=is_complete if texts else None,
        more_ends=sorted(ends),
        progress=progress,
    )
    completions = []
    for generation in found:
        kept = _before(tokenizer, generation.tokens, written)
        whole = tokenizer.decode(generation.tokens)
        text = cut(whole if kept is None else kept, texts)
        is_stop = text != whole or kept is not None or generation.end in ends - set(tokenizer.stop_ids)
        finish = STOPPED if is_stop else ENDED if generation.ended else LIMIT
        completions.append(Completion(text, finish, len(generation.tokens), generation.score))
    return completions


def _before(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> str | None:
    """The text before the first of the stops that hold special tokens; None where there is none."""
    text = tokenizer.decode_written(ids) if stops else ""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    if not places:
        return None
    count = len(ids)  # the tokens before that place, and what stands between the last of them and it
    while count and len(tokenizer.decode_written(ids[:count])) > min(places):
        count -= 1
    return tokenizer.decode(ids[:count]) + text[len(tokenizer.decode_written(ids[:count])) : min(places)]
