"""Renders records of the catalog for looking at them, and tells the record's text from the template's own words."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flan_jax import catalog, styles, template_lint, templates
from flan_jax.data import examples as example_files
from flan_jax.data import vocabularies
from flan_jax.data.builder import Example, ExampleBuilder
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath
from flan_jax.lazy import lazy_imports

with lazy_imports():  # looking at the catalog needs no TensorFlow
    from flan_jax.data import sources, tasks


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of a rendered text.

    Attributes:
      text: the part.
      field: the field that it comes from; None for the template's own words.
    """

    text: str
    field: str | None


@dataclasses.dataclass(frozen=True)
class Shown:
    """A rendered example.

    Attributes:
      dataset: the dataset's name.
      record_id: the record's id.
      template: the template's number.
      direction: "forward" or "inverted".
      prefix: the exemplars in front of the input.
      inputs: the input's spans.
      targets: the target's spans.
      options: the answer options; empty for generation.
      input_tokens: number of tokens of the input with its exemplars.
      target_tokens: number of tokens of the target.
    """

    dataset: str
    record_id: str
    template: int
    direction: str
    prefix: str
    inputs: tuple[Span, ...]
    targets: tuple[Span, ...]
    options: tuple[str, ...]
    input_tokens: int
    target_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """The example as values that JSON can hold, with spans joined."""
        return dataclasses.asdict(self) | {
            "inputs": self.prefix + "".join(s.text for s in self.inputs),
            "targets": "".join(s.text for s in self.targets),
        }


def spans(pattern: str, fields: Mapping[str, Any]) -> tuple[Span, ...]:
    """A rendered pattern in parts."""
    found = []
    for literal, field in templates.pieces(pattern):
        found.append(Span(literal, None))
        if field is not None:
            found.append(Span(templates.fill(f"{{{field}}}", fields), field))
    return tuple(span for span in found if span.text)


@functools.lru_cache(maxsize=8)
def _open(name: str, data: str) -> sources.OpenSource:
    return sources.open_source(catalog.dataset(name), data)


def left_out(name: str, data: str) -> tuple[str, ...]:
    """What a dataset's source has but does not use, one line each; see `sources.OpenSource`."""
    return _open(catalog.dataset(styles.split_name(name)[0].removeprefix("flan_")).name, data).left_out


def records(name: str, split: str, data: str = "samples") -> Iterator[tuple[str, dict[str, Any]]]:
    """(record id, fields as text) of a dataset's kept records, in reading order.

    Raises:
      FlanError: an unknown dataset or split, or a source that cannot be opened.
    """
    source = _open(name, data)
    if split not in source.splits:
        raise FlanError(f"dataset {name} has no {split} split in its source; it has {', '.join(source.splits)}.")
    return tasks.text_records(tasks.records(catalog.dataset(name), source, split))


def builder_of(
    name: str, style: styles.TextStyle, tokenizer: vocabularies.Tokenizer, data: str = "samples", split: str = "train"
) -> ExampleBuilder:
    """The builder for the examples of a dataset's split in a style."""
    record = catalog.dataset(name)
    pool = tasks.exemplar_pool(record, _open(name, data), split) if style.shots else ()
    return ExampleBuilder(record, style, pool=pool, tokenizer=tokenizer)


def rendered(builder: ExampleBuilder, record_id: str, example: Example, tokenizer: vocabularies.Tokenizer) -> Shown:
    """An example in the form for looking at it."""
    template = builder.templates[example.template]
    return Shown(
        builder.record.name,
        record_id,
        example.template,
        template.direction,
        example.prefix,
        spans(template.input, example.fields),
        spans(template.target, example.fields),
        tuple(example.fields.get(templates.OPTIONS, ())),
        len(tokenizer.encode([example.inputs])[0]),
        len(tokenizer.encode([example.targets])[0]),
    )


def examples(
    name: str,
    *,
    split: str = "train",
    count: int = 3,
    template: int | None = None,
    data: str = "samples",
    tokenizer: vocabularies.Tokenizer | None = None,
) -> list[Shown]:
    """The first examples of a dataset.

    Args:
      name: a dataset, with or without a style at its end.
      split: "train", "validation" (dev) or "test".
      count: number of records.
      template: the number of a template; None takes what the first epoch of training shows (in dev and test, a forward
        one).
      data: "samples", "tfds" or a folder.
      tokenizer: counts tokens; None counts bytes.

    Raises:
      FlanError: an unknown name, split or template, or a source that cannot be opened.
    """
    base, style = styles.split_name(name)
    record = catalog.dataset(base.removeprefix("flan_"))
    tokenizer = tokenizer or vocabularies.ByteTokenizer()
    builder = builder_of(record.name, style, tokenizer, data, split)
    if template is not None and not 0 <= template < len(builder.templates):
        raise FlanError(f"dataset {name} has templates 0 to {len(builder.templates) - 1}, not {template}.")
    found: list[Any] = []
    for record_id, fields in records(record.name, split, data):
        if len(found) == count:
            break
        number = template
        if number is None:
            number = int(tasks.choose_template(record, record_id, 0, 0, forward_only=split != "train", style=style))
        with contextlib.suppress(styles.NotShownError):  # no prompt of this style has the record either
            found.append(rendered(builder, record_id, builder.build(record_id, fields, number), tokenizer))
    return found


def prepared_examples(
    name: str,
    prepared_dir: str | AnyPath,
    *,
    split: str = "train",
    count: int = 3,
    template: int | None = None,
    tokenizer: vocabularies.Tokenizer | None = None,
) -> list[Shown]:
    """The first examples of a dataset in a PREPARED_DIR, also of a user's own data; see `examples`.

    Raises:
      FlanError: an unknown name, split or template, or nothing is prepared there.
    """
    rows, builder = _prepared(name, prepared_dir, split, count, tokenizer)
    numbers = builder.protocol.numbers if split == "train" else builder.protocol.forward
    number = numbers[0] if template is None else template
    if not 0 <= number < len(builder.templates):
        raise FlanError(f"dataset {name} has templates 0 to {len(builder.templates) - 1}, not {template}.")
    return [_rendered_row(builder, row, number, tokenizer) for row in rows]


def prepared_templates(
    name: str, prepared_dir: str | AnyPath, *, split: str = "train", tokenizer: vocabularies.Tokenizer | None = None
) -> list[Shown]:
    """The first record of a dataset in a PREPARED_DIR, also of a user's own data, through each of its templates.

    Raises:
      FlanError: see `prepared_examples`.
    """
    rows, builder = _prepared(name, prepared_dir, split, 1, tokenizer)
    return [_rendered_row(builder, row, number, tokenizer) for row in rows for number in builder.protocol.numbers]


def _prepared(
    name: str, prepared_dir: str | AnyPath, split: str, count: int, tokenizer: vocabularies.Tokenizer | None
) -> tuple[list[dict[str, Any]], ExampleBuilder]:
    base, style = styles.split_name(name)
    record = catalog.dataset(base.removeprefix("flan_"))
    tokenizer = tokenizer or vocabularies.ByteTokenizer()
    file = next(file for file, of in example_files.SPLITS.items() if of == split)
    rows = example_files.read(prepared_dir, record.name, file)
    pool = example_files.read(prepared_dir, record.name, example_files.EXEMPLARS) if style.shots else ()
    drawn = [(row["id"], row["fields"]) for row in pool]
    builder = ExampleBuilder(record, style, pool=drawn, tokenizer=tokenizer)
    shown = (row for row in rows if _is_shown(builder, row["id"], row["fields"]))
    return list(itertools.islice(shown, count)), builder


def _rendered_row(
    builder: ExampleBuilder, row: Mapping[str, Any], number: int, tokenizer: vocabularies.Tokenizer | None
) -> Shown:
    example = builder.build(row["id"], row["fields"], number)
    return rendered(builder, row["id"], example, tokenizer or vocabularies.ByteTokenizer())


def _is_shown(builder: ExampleBuilder, record_id: str, fields: Mapping[str, Any]) -> bool:
    try:
        builder.fields(record_id, fields)
    except styles.NotShownError:
        return False
    return True


def all_templates(name: str, *, split: str = "train", skip: int = 0, data: str = "samples") -> list[Shown]:
    """One record of a dataset through each of its templates.

    Args:
      name: a dataset, with or without a style at its end.
      split: "train", "validation" or "test"; if the dataset lacks it, another one is used.
      skip: how many of the records that the style can show to skip.
      data: "samples", "tfds" or a folder.

    Raises:
      FlanError: the split has fewer records.
    """
    base, style = styles.split_name(name)
    record = catalog.dataset(base.removeprefix("flan_"))
    tokenizer = vocabularies.ByteTokenizer()
    there = _open(record.name, data).splits
    split = split if split in there else next(iter(there))
    builder = builder_of(record.name, style, tokenizer, data, split)
    shown = (row for row in records(record.name, split, data) if _is_shown(builder, *row))
    row = next(itertools.islice(shown, skip, None), None)
    if row is None:
        raise FlanError(f"{record.name} has no {split} record {skip}, counted from 0: give a smaller number.")
    record_id, fields = row
    return [
        rendered(builder, record_id, builder.build(record_id, fields, number), tokenizer)
        for number in builder.protocol.numbers
    ]


# ------------------------------------------------------------------------------------------------- the whole catalog


def summary() -> dict[str, Any]:
    """What the catalog holds: a line for each variant, and totals.

    The totals count the paper's datasets, and a dataset's templates once for all its variants.
    """
    lines: list[dict[str, Any]] = [
        {
            "cluster": record.cluster,
            "dataset": record.paper_dataset,
            "variant": record.name,
            "source": record.source,
            "kind": record.kind,
            "forward": len(record.forward_templates),
            "inverted": len(record.templates) - len(record.forward_templates),
            "metrics": list(record.metrics),
            "in_flan": record.in_flan,
        }
        for record in catalog.datasets()
    ]
    flan = [line for line in lines if line["in_flan"]]
    first = list({line["dataset"]: line for line in reversed(flan)}.values())
    return {
        "variants": lines,
        "totals": {
            "clusters": len({line["cluster"] for line in flan}),
            "datasets": len(first),
            "variants": len(flan),
            "extras": len(lines) - len(flan),
            "templates": sum(line["forward"] + line["inverted"] for line in first),
            "forward": sum(line["forward"] for line in first),
            "inverted": sum(line["inverted"] for line in first),
        },
    }


def lint(names: Sequence[str] = ()) -> list[str]:
    """The linter's findings about the templates of datasets (by default all) on their bundled samples."""
    return [line for record, fields in _sampled(names) for line in _or_why(record, fields)]


def lint_wording(names: Sequence[str] = ()) -> list[str]:
    """What a reader may stumble over in templates of datasets, by default all; see `template_lint.lint_wording`."""
    found = []
    for record, fields in _sampled(names):
        if not isinstance(fields, str):
            for number, lines in template_lint.lint_wording(record, fields).items():
                place = record.name if number is None else f"{record.name} template {number}"
                found += [f"{place}: {line}" for line in lines]
    return found


def _or_why(record: catalog.Dataset, fields: list[templates.Fields] | str) -> list[str]:
    return [fields] if isinstance(fields, str) else template_lint.lint(record, fields)


def _sampled(names: Sequence[str]) -> Iterator[tuple[catalog.Dataset, list[templates.Fields] | str]]:
    """Datasets with the fields of their samples, or the reason why there are none."""
    for record in [catalog.dataset(name) for name in names] or catalog.datasets():
        try:
            splits = _open(record.name, sources.SAMPLES).splits
        except sources.SourceError as error:
            yield record, str(error)
            continue
        yield record, [f for split in splits for _, f in records(record.name, split)]
