"""Instruction templates: parsing and rendering.

A template is a pair of patterns over a dataset's fields (paper, section 2.1 and appendix G). `{field}` stands for a
text field. `{options}` stands for the block of answer options: the line `OPTIONS:`, then one option on each line, after
`- `. A forward template asks for the answer. An inverted one turns the task around and is never evaluated.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.lazy import lazy_imports

with lazy_imports():  # only rendering in TensorFlow needs it
    import tensorflow as tf

FORWARD = "forward"
INVERTED = "inverted"
OPTIONS = "options"
LETTERED, LETTER = "lettered_options", "letter"  # fields of a style that letters the options
LETTERED_HEADING = "OPTIONS (answer with the letter):"  # whatever a template asks for, the letter is the answer
TEMPLATES_PER_DATASET = 10

PLACEHOLDER = re.compile(r"\{(\w+)\}")

Fields = Mapping[str, Any]  # of a record: texts, and under `options` a sequence of them


@dataclasses.dataclass(frozen=True)
class Template:
    """An input pattern and a target pattern.

    Attributes:
      input: the prompt, with `{field}` placeholders and, for classification, `{options}`.
      target: what the model should say; `{answer}` in every forward template.
      direction: "forward" or "inverted".
      open_input: the prompt for use without options, if `input` speaks of them ("which of the choices ..."). If it is
        empty, `input` without its block is used.
    """

    input: str
    target: str = "{answer}"
    direction: str = FORWARD
    open_input: str = ""

    @property
    def is_forward(self) -> bool:
        """Whether the template asks for the answer. Only forward templates are evaluated."""
        return self.direction == FORWARD

    @property
    def without_options(self) -> Template:
        r"""The same template with the options not shown: its `open_input`, or its input without the block.

        Example:
          >>> Template("{review}\n\n{options}\n\nGood or bad?").without_options.input
          '{review}\n\nGood or bad?'
        """
        bare = re.sub(r"\n*\{options\}\n*", "\n\n", self.input).strip()
        return dataclasses.replace(self, input=self.open_input or bare, open_input="")

    @property
    def lettered(self) -> Template:
        r"""The same template with lettered options and the letter as the answer. An inverted template stays as it is.

        The block's heading says that the letter is wanted, since the template's own words may ask for a text.

        Example:
          >>> Template("{review}\n\nGood or bad?\n{options}").lettered.input
          '{review}\n\nGood or bad?\nOPTIONS (answer with the letter):\n{lettered_options}'
        """
        if not self.is_forward or "{options}" not in self.input:
            return self
        shown = self.input.replace("{options}", f"{LETTERED_HEADING}\n{{{LETTERED}}}")
        return dataclasses.replace(self, input=shown, target=self.target.replace("{answer}", f"{{{LETTER}}}"))


@dataclasses.dataclass(frozen=True)
class Gpt3Prompt:
    """A prompt in GPT-3's manner, for a model that was never tuned: the answer continues the text.

    Attributes:
      input: the prompt. It has no `{options}` and does not end in white space; the answer follows after a space.
      words: for classification, the text that continues the prompt for each label, in label order. Empty if the options
        themselves continue it.
      stop: the texts that end a generated answer: a blank line, as in the paper, or the next "Q:". The blank line also
        stands before the next exemplar. If a dataset's answers are one line, a line break ends them.
      premise: the text before an option when its likelihood without the prompt is scored (PMI). By default the end of
        the prompt after its last field.
      mid_sentence: whether the options continue a sentence of the prompt. They then begin in lower case where English
        wants it.
    """

    input: str
    words: tuple[str, ...] = ()
    stop: tuple[str, ...] = ("\n\n", "\nQ:")
    premise: str = ""
    mid_sentence: bool = False

    @property
    def lettered(self) -> Template:
        r"""The prompt as a template with lettered options. They stand before "Answer:", and the letter follows it.

        Where the prompt ends in its options in brackets, those are dropped, as the block shows them.

        Example:
          >>> Gpt3Prompt("{tweet}\nSentiment (negative or positive):").lettered.input
          '{tweet}\nSentiment:\n{lettered_options}\nAnswer:'
        """
        question = re.sub(r"\n(Answer\b[^\n{}]*|Yes or no|A):$", "", self.input)
        question = re.sub(r" \([^(){}]* or [^(){}]*\):$", ":", question)
        return Template(f"{question}\n{{{LETTERED}}}\nAnswer:", f"{{{LETTER}}}")


def placeholders(pattern: str) -> list[str]:
    """The field names in a pattern, in order, with repeats.

    Example:
      >>> placeholders("{premise} So {premise}? {options}")
      ['premise', 'premise', 'options']
    """
    return PLACEHOLDER.findall(pattern)


@functools.cache
def pieces(pattern: str) -> tuple[tuple[str, str | None], ...]:
    """Splits a pattern into pairs of a literal text and the field after it; the last field is None.

    Example:
      >>> pieces("Review: {review} Good?")
      (('Review: ', 'review'), (' Good?', None))
    """
    parts = PLACEHOLDER.split(pattern)
    fields: list[str | None] = [*parts[1::2], None]
    return tuple(zip(parts[0::2], fields, strict=True))


def options_block(options: Sequence[str]) -> str:
    r"""The answer options as the prompt shows them (paper, section 2.3).

    Example:
      >>> options_block(["yes", "no"])
      'OPTIONS:\n- yes\n- no'
    """
    return "\n".join(["OPTIONS:", *(f"- {option}" for option in options)])


def _text(fields: Fields, name: str, pattern: str) -> str:
    if name not in fields:
        raise FlanError(
            f"template placeholder {{{name}}} in {pattern[:60]!r} names no field; "
            f"the fields are: {', '.join(sorted(fields))}."
        )
    value = fields[name]
    if name == OPTIONS and not isinstance(value, str):
        return options_block(value)
    if not isinstance(value, str):
        raise FlanError(f"template placeholder {{{name}}} in {pattern[:60]!r} names a list, not a text field.")
    return value


def fill(pattern: str, fields: Fields) -> str:
    r"""Fills a pattern with a record's fields, in Python.

    Raises:
      FlanError: a placeholder names no field, or a list other than `options`.

    Example:
      >>> fill("{premise}\n\n{options}", {"premise": "It rains.", "options": ["yes", "no"]})
      'It rains.\n\nOPTIONS:\n- yes\n- no'
    """
    return "".join(
        literal + ("" if name is None else _text(fields, name, pattern)) for literal, name in pieces(pattern)
    )


def render(template: Template, fields: Fields) -> tuple[str, str]:
    r"""Renders a template in Python.

    Args:
      template: the template.
      fields: text fields as str; `options` as a list of str.

    Returns:
      (inputs, targets).

    Raises:
      FlanError: a placeholder names no field.

    Example:
      >>> template = Template("Is this film good?\n\n{review}\n\n{options}")
      >>> inputs, targets = render(template, {"review": "Dull.", "options": ["yes", "no"], "answer": "no"})
      >>> print(inputs)
      Is this film good?
      <BLANKLINE>
      Dull.
      <BLANKLINE>
      OPTIONS:
      - yes
      - no
      >>> targets
      'no'
    """
    return fill(template.input, fields), fill(template.target, fields)


def render_tensors(templates: Sequence[Template], fields: Mapping[str, Any], template_index: Any) -> tuple[Any, Any]:
    """Renders the chosen template in TensorFlow.

    All templates become one table of literals and field numbers, so the graph has no branch for each template. It
    gathers a row of the table and the fields that the row names, and joins them.

    Args:
      templates: the dataset's templates.
      fields: scalar string tensors, and `options` as a 1-D string tensor.
      template_index: scalar integer tensor.

    Returns:
      (inputs, targets), scalar string tensors.

    Raises:
      FlanError: a placeholder names no field.
    """
    texts = {name: value for name, value in fields.items() if value.shape.rank == 0}
    if OPTIONS in fields:
        lines = tf.concat([["OPTIONS:"], tf.strings.join(["- ", fields[OPTIONS]])], axis=0)
        texts[OPTIONS] = tf.strings.reduce_join(lines, separator="\n")
    names = sorted(texts)
    values_F1 = tf.stack([texts[name] for name in names] + [tf.constant("")])
    return tuple(
        _render_column([getattr(t, column) for t in templates], names, values_F1, template_index)
        for column in ("input", "target")
    )


def _render_column(patterns: Sequence[str], names: list[str], values_F1: Any, template_index: Any) -> Any:
    """Renders row `template_index` of the table of `patterns`; `values_F1` holds the F fields and ""."""
    number = {name: i for i, name in enumerate(names)}
    rows = [pieces(pattern) for pattern in patterns]
    width = max(len(row) for row in rows)
    literals, numbers = [], []
    for pattern, row in zip(patterns, rows, strict=True):
        for _, name in row:
            if name is not None and name not in number:
                _text({n: "" for n in names}, name, pattern)  # raises, and names the placeholder
        padded = [*row, *[("", None)] * (width - len(row))]
        literals.append([literal for literal, _ in padded])
        numbers.append([len(names) if name is None else number[name] for _, name in padded])
    literal_P = tf.gather(tf.constant(literals), template_index)
    value_P = tf.gather(values_F1, tf.gather(tf.constant(numbers), template_index))
    return tf.strings.reduce_join(tf.strings.join([literal_P, value_P]))


def digest(templates: Iterable[Template]) -> str:
    """A digest of the templates' text. What was rendered with them keeps it."""
    text = "\x1e".join(f"{t.direction}\x1f{t.input}\x1f{t.target}" for t in templates)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
