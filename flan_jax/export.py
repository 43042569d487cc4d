"""Writes the text of a task or a mixture as JSON lines.

python -m flan_jax.export --name=flan_without_nli --to=flan_without_nli.jsonl
python -m flan_jax.export --name=rte_no_template --split=test --data=tfds --to=-

A line is {"inputs", "targets", "dataset", "cluster", "template", "options", "record_id"}. Only examples with options
have "options". In the train split, an example gets the template that training takes in epoch 0, then epoch 1, and so
on. In validation (dev) and test it gets a forward template, as in the SeqIO tasks. The datasets of a mixture are
written one after another.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

from rich import progress
from rich.console import Console

from flan_jax import catalog, options, styles, templates, values
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import user_path, whole_file
from flan_jax.json_lines import to_json
from flan_jax.lazy import lazy_imports
from flan_jax.quiet import quiet_loggers
from flan_jax.wording import counted

with lazy_imports():  # so that a wrong command line is reported at once
    import tensorflow as tf

    from flan_jax.data import builder as builders
    from flan_jax.data import sources, tasks


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a name stands for.

    Attributes:
      datasets: the datasets, in order.
      style: how their records become text.
      template: the number of one template for all examples; None chooses one for each.
    """

    datasets: tuple[catalog.Dataset, ...]
    style: styles.TextStyle
    template: int | None


def wanted(name: str) -> Wanted:
    """Reads a name: a dataset or a mixture, with or without a style at its end, or `flan_<dataset>_t<k>`.

    Raises:
      FlanError: an unknown name, with near matches.
    """
    base, style = styles.split_name(name)
    numbered = re.fullmatch(r"(.+)_t(\d)", base)
    if numbered and numbered[1].removeprefix("flan_") in {d.name for d in catalog.datasets()}:
        return Wanted(catalog.mixture(numbered[1]), style, int(numbered[2]))
    return Wanted(catalog.mixture(base), style, None)


def examples(
    record: catalog.Dataset,
    source: sources.OpenSource,
    split: str,
    style: styles.TextStyle = styles.PAPER,
    *,
    template: int | None = None,
    epochs: int = 1,
    seed: int = 0,
    tokenizer: vocabularies.Tokenizer | None = None,
    left_out: collections.Counter[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the lines of a dataset, epoch after epoch. Only one record is in memory at a time.

    Args:
      record: the dataset.
      source: its open source.
      split: "train", "validation" or "test".
      style: how records become text.
      template: the number of one template for all; None chooses by hash.
      epochs: how many times to go through the split.
      seed: the seed of templates, exemplars and shuffled options.
      tokenizer: counts how many exemplars fit; None counts bytes.
      left_out: counts the examples of each dataset that the style cannot show; they get no line.
    """
    left_out = collections.Counter() if left_out is None else left_out
    pool = tasks.exemplar_pool(record, source, split) if style.shots else ()
    tokenizer = tokenizer or vocabularies.ByteTokenizer()
    builder = builders.ExampleBuilder(record, style, pool=pool, tokenizer=tokenizer, seed=seed)
    for epoch in range(epochs):

        def choose(row: dict[str, Any], epoch: int = epoch) -> dict[str, Any]:
            number = tf.constant(template, tf.int64) if template is not None else None
            if number is None:
                forward = split != "train"
                number = tasks.choose_template(record, row["record_id"], epoch, seed, forward, style)
            return {**row, "template": number}

        for identity, fields in tasks.text_records(tasks.records(record, source, split).map(choose)):
            try:
                example = builder.build(identity, fields, fields.pop("template"))
            except styles.NotShownError:  # the token store leaves these records out too
                left_out[record.name] += 1
                continue
            ranked = templates.OPTIONS in example.fields
            line = {
                "inputs": example.inputs,
                "targets": example.targets,
                "dataset": record.name,
                "cluster": record.cluster,
                "template": example.template,
                "options": list(builder.protocol.scored(example.fields)) if ranked else [],
                "record_id": identity,
            }
            yield {key: value for key, value in line.items() if key != "options" or value}


def export(
    name: str,
    to: str,
    *,
    split: str = "train",
    data: str = "samples",
    epochs: int = 1,
    count: int | None = None,
    seed: int = 0,
    tokenizer: vocabularies.Tokenizer | None = None,
) -> dict[str, Any]:
    """Writes a task or a mixture. A source that fails is skipped, and the result names it.

    Args:
      name: see `wanted`.
      to: a file, which appears whole or not at all, or "-" for standard output.
      split: "train", "validation" or "test".
      data: "samples", "tfds" or a folder.
      epochs: how many times to go through each dataset.
      count: at most so many lines of each dataset; None for all.
      seed: the seed of templates, exemplars and shuffled options.
      tokenizer: counts how many exemplars fit; None counts bytes.

    Returns:
      {"lines": lines by dataset, "skipped": [{dataset, reason, remedy}], "left_out": [what no split takes, and why]}.

    Raises:
      FlanError: an unknown name, no usable source, or a file that cannot be written.
    """
    asked = wanted(name)
    values.checked("epochs", values.Whole(1), epochs)
    values.checked("count", values.or_none(values.Whole(1), "all"), count)
    values.checked("seed", values.Whole(0, values.SEEDS), seed)
    lines: dict[str, int] = {}
    skipped: list[sources.Skipped] = []
    left_out: collections.Counter[str] = collections.Counter()
    unused: dict[str, None] = {}  # a dict keeps each line once: variants may share a file
    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        console=Console(file=sys.stderr, markup=False, emoji=False),
    )
    with _whole(to) as file, bar:
        task = bar.add_task("opening sources", total=len(asked.datasets))
        for record, source in sources.open_all(asked.datasets, data):
            bar.update(task, description=record.name)
            unused |= dict.fromkeys(getattr(source, "left_out", ()))
            if isinstance(source, sources.Skipped):
                skipped.append(source)
            elif split not in source.splits:
                has = ", ".join(source.splits)
                skipped.append(sources.Skipped(record.name, f"it has no {split} split", f"it has {has}"))
            else:
                try:
                    found = examples(
                        record,
                        source,
                        split,
                        asked.style,
                        template=asked.template,
                        epochs=epochs,
                        seed=seed,
                        tokenizer=tokenizer,
                        left_out=left_out,
                    )
                    lines[record.name] = 0
                    for line in found:
                        if lines[record.name] == count:
                            break
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                        lines[record.name] += 1
                except tf.errors.OpError as error:
                    reason = f"its records cannot be read after line {lines.pop(record.name)} ({type(error).__name__})"
                    skipped.append(sources.Skipped(record.name, reason, "get its data again"))
            bar.advance(task)
        if not lines:
            first = f"{skipped[0].reason}; {skipped[0].remedy}"
            raise FlanError(f"nothing to export: no source of {len(skipped)} could be read (first: {first}).")
    unused |= {
        f"{number} of {name}, which style {asked.style.name} cannot show, as they speak of options that it does not "
        "show or have more than there are letters": None
        for name, number in left_out.items()
    }
    return {"lines": lines, "skipped": [dataclasses.asdict(s) for s in skipped], "left_out": list(unused)}


@contextlib.contextmanager
def _whole(to: str) -> Iterator[IO[str]]:
    """A text file that replaces `to` when everything is written; standard output for "-"."""
    if to == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):  # JSON lines are UTF-8, whatever a terminal has
            sys.stdout.reconfigure(encoding="utf-8", errors="strict")
        yield sys.stdout
        return
    with whole_file(user_path(to, "--to")) as file:
        yield file


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the lines."""
    parser = options.Parser(
        prog="python -m flan_jax.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="a dataset, flan_<dataset>_t<k> or a mixture; a style may follow")
    parser.add_argument("--to", required=True, type=options.path, help="file to write, or - for standard output")
    parser.add_argument("--split", default="train", choices=("train", "validation", "test"), help="validation is dev")
    parser.add_argument("--data", default="samples", type=options.data, help="samples, tfds, or a folder of data")
    parser.add_argument("--epochs", type=options.count, default=1, help="how many times to go through each dataset")
    parser.add_argument("--count", type=options.count, help="most lines of each dataset")
    parser.add_argument(
        "--seed", type=options.seed, default=0, help="seed of templates, exemplars and shuffled options"
    )
    parser.add_argument("--vocabulary", default="bytes", type=options.vocabulary, help="counts how many exemplars fit")
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object, last line")
    quiet_loggers()
    with one_line_errors():
        arguments = parser.parse_args(argv)
        result = export(
            arguments.name,
            arguments.to,
            split=arguments.split,
            data=arguments.data,
            epochs=arguments.epochs,
            count=arguments.count,
            seed=arguments.seed,
            tokenizer=vocabularies.load(arguments.vocabulary),
        )
        total = sum(result["lines"].values())
        print(
            f"{counted(total, 'lines')} of {counted(len(result['lines']), 'datasets')} in {arguments.to}",
            file=sys.stderr,
        )
        for line in result["left_out"]:
            print(f"left out: {line}", file=sys.stderr)
        for s in result["skipped"]:
            print(f"skipped {s['dataset']}: {s['reason']}. To do: {s['remedy']}.", file=sys.stderr)
        if arguments.json:
            print(to_json(result))


if __name__ == "__main__":
    main()
