"""Proves what can be proved of a dataset's templates: a linter, run by the tests and by `browse --lint`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flan_jax.catalog import Dataset, own_samples
from flan_jax.errors import FlanError
from flan_jax.templates import (
    FORWARD,
    INVERTED,
    OPTIONS,
    PLACEHOLDER,
    TEMPLATES_PER_DATASET,
    Fields,
    Template,
    placeholders,
    render,
)

MIN_FORWARD = 7  # of the templates of a dataset


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
    is_own = own_samples(dataset.name) is not None  # which may have fewer, and need one to be evaluated
    if len(templates) != TEMPLATES_PER_DATASET and not is_own:
        found.append(f"{dataset.name}: has {len(templates)} templates, not {TEMPLATES_PER_DATASET}")
    forward = sum(t.is_forward for t in templates)
    if forward < (fewest := 1 if is_own else MIN_FORWARD):
        found.append(f"{dataset.name}: has {forward} forward templates, fewer than {fewest}")
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
        if re.search(r"[{}]", PLACEHOLDER.sub("", pattern)):
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
        spoken = _SPEAKS_OF_OPTIONS.search(PLACEHOLDER.sub("", template.input))
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
