"""Records rendered as prompts for scoring, shortened where they must be, and never in their instruction or options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from flan_jax import styles, templates
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError
from flan_jax.scoring.trees import EOS, NEWLINE, SPACE, Tree, build_tree

AUTO = "auto"
SEPARATORS = (AUTO, EOS, NEWLINE, SPACE)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A rendered record.

    Attributes:
      inputs: the prompt's text.
      target: the answer's text.
      cut_tokens: tokens that its fields lost to make it fit.
    """

    inputs: str
    target: str
    cut_tokens: int = 0


def resolve_separator(setting: str, trained: str | None, style: styles.TextStyle = styles.PAPER) -> str:
    """What stands between prompt and option: "eos", "newline" or "space".

    A prompt in GPT-3's manner goes on after a space. Otherwise a tuned model gets what tuning put there; a pretrained
    model reads EOS as the end of a document, so it gets a line break.

    Args:
      setting: "auto", or one of the three to force it.
      trained: the manifest's separator: "eos", or None for a model never tuned here.
      style: of the prompts.

    Raises:
      FlanError: another setting.
    """
    if setting not in SEPARATORS:
        raise FlanError(f"separator is {setting!r}; it can be {', '.join(map(repr, SEPARATORS))}.")
    if setting != AUTO:
        return setting
    if style.words == styles.GPT3:
        return SPACE
    return EOS if trained == EOS else NEWLINE


def scoring_tree(
    tokenizer: Tokenizer, inputs: str, options: Sequence[str], separator: str, *, score_eos: bool = True
) -> Tree:
    """The tree of a rendered prompt and its options; see `flan_jax.scoring.trees` for the separators."""
    return build_tree(tokenizer, inputs, options, separator=separator, score_eos=score_eos)


def fit_prompt(
    tokenizer: Tokenizer,
    template: templates.Template,
    fields: Mapping[str, str | Sequence[str]],
    max_length: int,
    *,
    prefix: str = "",
    separator: str = EOS,
) -> Prompt:
    """Renders a record so that the prompt with its longest option, if it has any, takes at most `max_length` tokens.

    The longest text field loses words at its left end until all fits; exemplars, instruction and options stay whole.

    Args:
      tokenizer: the model's vocabulary.
      template: a forward template.
      fields: the record's fields; the answer is generated where they have no `options`.
      max_length: in tokens, with BOS and the separator.
      prefix: exemplars, which stand in front of the input.
      separator: "eos", which takes the most tokens, or "newline" or "space".

    Raises:
      FlanError: instruction and options alone are too long, or the template does not fit the fields.
    """
    fields = dict(fields)
    # One character, which is a token or more, stands for an answer that is still to be generated.
    options = fields.get(templates.OPTIONS, ("-",))
    shown = [n for n in dict.fromkeys(templates.placeholders(template.input)) if isinstance(fields.get(n), str)]
    shown = [name for name in shown if name != templates.OPTIONS]
    full: int | None = None
    while True:
        inputs, target = templates.render(template, fields)
        inputs = prefix + inputs
        length = scoring_tree(tokenizer, inputs, options, separator=separator).longest
        full = length if full is None else full
        if length <= max_length:
            return Prompt(inputs, target, full - length)
        counts = dict(zip(shown, map(len, tokenizer.encode([fields[name] for name in shown])), strict=True))
        name = max(counts, key=counts.get, default=None)
        if name is None or not fields[name]:
            raise FlanError(
                f"exemplars, instruction and options take {length} tokens without any field's text, "
                f"in {template.input[:50]!r}; the limit is {max_length}: raise max_length."
            )
        fields[name] = _without_left(fields[name], (length - max_length) / max(counts[name], 1))


def _without_left(text: str, share: float) -> str:
    """`text` without about that share of it at the left, from the start of a word on; always shorter than before."""
    start = max(1, int(len(text) * min(share, 1.0)))
    if not text[start - 1].isspace():
        words = text[start:].split(maxsplit=1)
        mid_word = not text[start : start + 1].isspace()
        rest = words[1] if mid_word and len(words) > 1 else text[start:]
        return rest.lstrip()
    return text[start:].lstrip()
