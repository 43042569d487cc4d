"""Instruction templates: parse, render and lint.

A template is a pair of patterns over a dataset's fields (paper, section 2.1 and appendix G). `{field}` stands for
a scalar field, `{options}` for the block of answer choices: the word `OPTIONS:` and one choice a line after `- `.
A forward template asks for the answer; an inverted one turns the task around and is never evaluated.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epy

from flan_jax.errors import FlanError

with epy.lazy_imports():  # rendering in Python, linting and training need no TensorFlow
    import tensorflow as tf

if TYPE_CHECKING:
    from flan_jax.catalog import Dataset

FORWARD = "forward"
INVERTED = "inverted"
OPTIONS = "options"
TEMPLATES_PER_DATASET = 10
MIN_FORWARD = 7

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Fields = Mapping[str, "str | Sequence[str]"]


@dataclasses.dataclass(frozen=True)
class Template:
    """An input pattern and a target pattern.

    Attributes:
      input: the prompt, with `{field}` placeholders and, for classification, `{options}`.
      target: what the model should say; `{answer}` in every forward template.
      direction: "forward" or "inverted".
      open_input: the prompt's wording where the options are not shown, for a template that speaks of them ("which of
        the choices ..."); empty where `input` without its block does.
    """

    input: str
    target: str = "{answer}"
    direction: str = FORWARD
    open_input: str = ""

    @property
    def is_forward(self) -> bool:
        """Whether the template asks for the answer (only these are evaluated)."""
        return self.direction == FORWARD

    @property
    def without_options(self) -> Template:
        """The same template with the options not shown: its `open_input`, or its input less the block."""
        bare = re.sub(r"\n*\{options\}\n*", "\n\n", self.input).strip()
        return dataclasses.replace(self, input=self.open_input or bare, open_input="")


@dataclasses.dataclass(frozen=True)
class Gpt3Prompt:
    """How a model that was never tuned is asked, in GPT-3's manner: the answer is how the text goes on.

    Attributes:
      input: the prompt; it has no `{options}` and does not end in white space. The continuation follows after a space.
      words: for classification with label words, what stands for each of them as a continuation, in label order; empty
        where the options themselves continue the prompt.
      stop: where a generated continuation ends.
    """

    input: str
    words: tuple[str, ...] = ()
    stop: tuple[str, ...] = ("\n\n", "\nQ:")


def placeholders(pattern: str) -> list[str]:
    """The field names of a pattern, in order, with repeats."""
    return _PLACEHOLDER.findall(pattern)


@functools.cache
def pieces(pattern: str) -> tuple[tuple[str, str | None], ...]:
    """Splits a pattern into (literal, field) pairs; the last field is None."""
    parts = _PLACEHOLDER.split(pattern)
    fields: list[str | None] = [*parts[1::2], None]
    return tuple(zip(parts[0::2], fields, strict=True))


def options_block(options: Sequence[str]) -> str:
    """The answer choices as the prompt shows them (paper, section 2.3)."""
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
    """Renders one pattern in Python.

    Raises:
      FlanError: a placeholder names no field, or a list other than `options`.
    """
    return "".join(
        literal + ("" if name is None else _text(fields, name, pattern)) for literal, name in pieces(pattern)
    )


def render(template: Template, fields: Fields) -> tuple[str, str]:
    """Renders a template in Python: (inputs, targets).

    Args:
      template: the template.
      fields: scalar fields as str; `options` as a list of str.

    Raises:
      FlanError: a placeholder names no field.
    """
    return fill(template.input, fields), fill(template.target, fields)


def render_tensors(templates: Sequence[Template], fields: Mapping[str, Any], template_index: Any) -> tuple[Any, Any]:
    """Renders the chosen template in TensorFlow string operations: (inputs, targets), scalar string tensors.

    All templates become one table of literals and field numbers, so the graph has no branch per template: it gathers
    a row of the table, gathers the fields that the row names, and joins.

    Args:
      templates: the dataset's templates.
      fields: scalar string tensors, and `options` as a 1-D string tensor.
      template_index: scalar integer tensor.

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
    """Renders row `template_index` of the piece table of `patterns` from the values of F fields and ""."""
    number = {name: i for i, name in enumerate(names)}
    rows = [pieces(pattern) for pattern in patterns]
    width = max(len(row) for row in rows)
    literals, numbers = [], []
    for pattern, row in zip(patterns, rows, strict=True):
        for _, name in row:
            if name is not None and name not in number:
                _text({n: "" for n in names}, name, pattern)  # raises, naming the placeholder
        padded = [*row, *[("", None)] * (width - len(row))]
        literals.append([literal for literal, _ in padded])
        numbers.append([len(names) if name is None else number[name] for _, name in padded])
    literal_P = tf.gather(tf.constant(literals), template_index)
    value_P = tf.gather(values_F1, tf.gather(tf.constant(numbers), template_index))
    return tf.strings.reduce_join(tf.strings.join([literal_P, value_P]))


def digest(templates: Iterable[Template]) -> str:
    """A fingerprint of the templates' text, for whatever was rendered with them."""
    text = "\x1e".join(f"{t.direction}\x1f{t.input}\x1f{t.target}" for t in templates)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------- lint


def lint(dataset: Dataset, examples: Sequence[Fields]) -> list[str]:
    """Proves what can be proved of a dataset's templates; returns the findings, one line each.

    Args:
      dataset: the record whose templates are checked.
      examples: fields of a few records of the dataset, at least one.
    """
    found = _lint_set(dataset)
    for number, template in enumerate(dataset.templates):
        where = f"{dataset.name} template {number}"
        found += [f"{where}: {finding}" for finding in _lint_template(dataset, template)]
        for example in examples:
            findings = _lint_rendered(template, example)
            found += [f"{where}: {finding}" for finding in findings]
            if findings:
                break
    for example in examples:
        found += [f"{dataset.name}: {finding}" for finding in _lint_fields(dataset, example)]
    return list(dict.fromkeys(found))


def _lint_set(dataset: Dataset) -> list[str]:
    found = []
    templates = dataset.templates
    if len(templates) != TEMPLATES_PER_DATASET:
        found.append(f"{dataset.name}: has {len(templates)} templates, not {TEMPLATES_PER_DATASET}")
    forward = sum(t.is_forward for t in templates)
    if forward < MIN_FORWARD:
        found.append(f"{dataset.name}: has {forward} forward templates, fewer than {MIN_FORWARD}")
    seen: dict[str, int] = {}
    for number, template in enumerate(templates):
        bare = re.sub(r"[\W_]+", " ", f"{template.input} | {template.target}".lower()).strip()
        if bare in seen:
            found.append(f"{dataset.name} template {number}: the same as template {seen[bare]}")
        seen.setdefault(bare, number)
    return found


_STRAY = (
    (re.compile(r"[^\S\n]{2,}"), "two spaces in a row"),
    (re.compile(r"[ \t]\n|[ \t]$|^\s|\n$"), "white space at an edge or before a line break"),
    (re.compile(r"\n{3,}"), "more than one blank line in a row"),
    (re.compile(r" [,.;:!?](?=\s|$)"), "a space before punctuation"),
    (re.compile(r"\}\w|[^\W_]\{"), "a letter or digit glued to a placeholder"),
    (re.compile(r"[^\x20-\x7e\n\u00a0-\uffff]"), "a control character"),
    (re.compile(r"([,;:!?])\1|(?<!\.)\.\.(?!\.)"), "doubled punctuation"),
)


def _lint_template(dataset: Dataset, template: Template) -> list[str]:
    found = []
    for pattern in (template.input, template.target):
        found += [f"{what} in {pattern[:50]!r}" for regex, what in _STRAY if regex.search(pattern)]
        if re.search(r"[{}]", _PLACEHOLDER.sub("", pattern)):
            found.append(f"a stray brace in {pattern[:50]!r}")
        for opening, closing in ("()", "[]"):
            if pattern.count(opening) != pattern.count(closing):
                found.append(f"an unbalanced {opening} in {pattern[:50]!r}")
        if pattern.count('"') % 2:
            found.append(f"an unbalanced quotation mark in {pattern[:50]!r}")
    has_options = OPTIONS in placeholders(template.input)
    if template.direction not in (FORWARD, INVERTED):
        found.append(f"direction {template.direction!r} is neither forward nor inverted")
    if template.is_forward:
        if template.target != "{answer}":
            found.append("a forward template's target is not {answer}")
        if "answer" in placeholders(template.input):
            found.append("a forward template shows the answer")
        if has_options != (dataset.kind == "classification"):
            found.append("{options} belongs in every forward classification template and in no other")
    elif has_options:
        found.append("an inverted template shows options")
    return found + _lint_open_input(template)


_SPEAKS_OF_OPTIONS = re.compile(
    r"\b(options?|choices?|choose|pick|select|tick|listed|possibilities|on offer|have been proposed"
    r"|(one|which|both|either) of (my |the |these )?(two|four|following)|(two|four) (things|texts|ideas)"
    r"|which (reply|ending|entry|answer)|only one of these)\b",
    re.IGNORECASE,
)


def _lint_open_input(template: Template) -> list[str]:
    """Whether the template still makes sense where its options are not shown."""
    found = []
    if template.open_input and OPTIONS not in placeholders(template.input):
        found.append("open_input is for templates that show options")
    if OPTIONS in placeholders(template.open_input):
        found.append("open_input shows the options")
    if template.open_input and sorted(set(placeholders(template.open_input))) != sorted(
        set(placeholders(template.input)) - {OPTIONS}
    ):
        found.append("open_input has other fields than input")
    if OPTIONS in placeholders(template.input) and not template.open_input:
        spoken = _SPEAKS_OF_OPTIONS.search(_PLACEHOLDER.sub("", template.input))
        if spoken:
            found.append(f"speaks of options ({spoken.group()!r}) and has no open_input")
    return found


def _lint_rendered(template: Template, example: Fields) -> list[str]:
    try:
        inputs, targets = render(template, example)
    except FlanError as error:
        return [str(error)]
    found = [
        f"empty {what} after rendering" for what, text in (("inputs", inputs), ("targets", targets)) if not text.strip()
    ]
    if targets.strip() and not template.is_forward and targets.strip() in inputs and len(targets) > 20:
        found.append("an inverted template's input contains its target")
    for name in {*placeholders(template.input), *placeholders(template.target)}:
        value = example[name]
        if not (value.strip() if isinstance(value, str) else value):
            found.append(f"field {name!r} is empty")
    return found


def _lint_fields(dataset: Dataset, example: Fields) -> list[str]:
    found = []
    if "answer" not in example:
        return ["fields lack 'answer'"]
    if dataset.kind == "classification":
        options = example.get(OPTIONS)
        if options is None or isinstance(options, str):
            return ["fields lack the list 'options'"]
        if example["answer"] not in options:
            found.append(f"the answer {example['answer']!r} is not one of the options {list(options)}")
        if len(set(options)) != len(options):
            found.append(f"two options are the same: {list(options)}")
        if dataset.labels and tuple(options) != dataset.label_words:
            found.append(f"the options {list(options)} are not the label words {list(dataset.label_words)}")
    return found


def lint_labels(dataset: Dataset, tfds_names: Sequence[str]) -> list[str]:
    """Compares a dataset's labels with the ClassLabel names of its TFDS builder, in order."""
    declared = [name for name, _ in dataset.labels]
    if declared != list(tfds_names):
        return [f"{dataset.name}: labels are declared as {declared}, but TFDS has {list(tfds_names)}"]
    return []
