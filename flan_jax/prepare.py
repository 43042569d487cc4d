"""Renders and tokenizes datasets for training, and writes their dev and test examples for evaluation.

python -m flan_jax.prepare --data=samples --vocabulary=models/gemma3-270m/vocabulary --to=prepared
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tensorflow_datasets as tfds
from rich import progress
from rich.console import Console
from rich.table import Table

from flan_jax import catalog, templates
from flan_jax.data import sources, tasks, token_store, vocabularies
from flan_jax.data.stream import Stream
from flan_jax.errors import FlanError, one_line_errors, unknown_name
from flan_jax.tasks import fields as shared_fields

_BATCH = 512  # examples tokenized at once


@dataclasses.dataclass
class _Counts:
    """What happened to training examples that were too long."""

    trimmed: int = 0
    overlong: int = 0


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples are rendered and tokenized.

    Attributes:
      seed: of the choice of templates.
      max_input_length: tokens of an input (paper: 1,024); longer ones lose the end of their longest text field.
      max_target_length: tokens of a target with its EOS (paper: 256); longer ones are left out.
    """

    seed: int = 0
    max_input_length: int = 1024
    max_target_length: int = 256


def python_fields(row: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """A row of string arrays as Python text, `record_id` and other non-text left out."""

    def text(value: Any) -> str:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    return {
        name: [text(v) for v in value] if getattr(value, "ndim", 0) else text(value)
        for name, value in row.items()
        if name not in ("record_id", "templates")
    }


def tokenized_examples(
    record: catalog.Dataset,
    rows: Sequence[tuple[dict[str, Any], Sequence[int]]],
    tokenizer: vocabularies.Tokenizer,
    options: Options,
    counts: _Counts,
) -> Iterator[token_store.TokenizedExample]:
    """Renders and tokenizes the kept records of a training set, rendering after rendering.

    Args:
      record: the dataset.
      rows: (fields, template of each rendering) of every record.
      tokenizer: the vocabulary.
      options: limits.
      counts: is added to.
    """
    room = options.max_input_length - 1 - (tokenizer.bos_id is not None)
    numbered = [
        (i, fields, chosen[epoch])
        for epoch in range(len(rows[0][1]) if rows else 0)
        for i, (fields, chosen) in enumerate(rows)
    ]
    for start in range(0, len(numbered), _BATCH):
        part = numbered[start : start + _BATCH]
        texts = [templates.render(record.templates[t], fields) for _, fields, t in part]
        inputs, targets = (tokenizer.encode(column) for column in zip(*texts, strict=True))
        for (i, fields, t), ids, target in zip(part, inputs, targets, strict=True):
            fits = len(target) < options.max_target_length
            if fits and len(ids) > room:
                ids = _trimmed(record.templates[t], fields, tokenizer, room)
                fits = ids is not None
                counts.trimmed += fits
            if not fits:
                counts.overlong += 1
                continue
            yield token_store.TokenizedExample(ids, target, t, i)


def _trimmed(
    template: templates.Template, fields: Mapping[str, Any], tokenizer: vocabularies.Tokenizer, room: int
) -> list[int] | None:
    """The input with the end of its longest text field cut off until it fits; None where that cannot be."""
    names = [n for n in templates.placeholders(template.input) if n != templates.OPTIONS]
    left = dict(fields)
    for _ in range(12):
        ids = tokenizer.encode([templates.fill(template.input, left)])[0]
        if len(ids) <= room:
            return ids
        name = max(names, key=lambda n: len(left[n]), default=None)
        if name is None or not left[name]:
            return None
        per_token = max(1.0, len(left[name]) / max(1, len(tokenizer.encode([left[name]])[0])))
        left[name] = left[name][: max(0, len(left[name]) - int((len(ids) - room) * per_token) - 1)].rstrip()
    return None


def _read(record: catalog.Dataset, source: sources.OpenSource, split: str, count: int, seed: int) -> Iterator[Any]:
    """(fields, record id, template of each rendering) of every kept record."""
    epochs = tf.range(count, dtype=tf.int64)

    def with_templates(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "templates": tasks.choose_template(record, row["record_id"], epochs, seed)}

    for row in tfds.as_numpy(tasks.records(record, source, split).map(with_templates)):
        yield python_fields(row), row["record_id"].decode("utf-8"), [int(t) for t in row["templates"]]


def prepare_dataset(
    record: catalog.Dataset,
    source: sources.OpenSource,
    tokenizer: vocabularies.Tokenizer,
    to: Path,
    options: Options,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepares one dataset: its tokens, and its dev and test examples. What is there and current stays.

    Returns:
      Figures for the summary.
    """
    key = {
        "dataset": record.name,
        "source": record.source,
        "data": str(source.builder.data_dir),
        "templates": templates.digest(record.templates),
        "fields": _fields_digest(record),
        "vocabulary": tokenizer.fingerprint,
        **dataclasses.asdict(options),
    }
    folder = token_store.folder_of(to, tokenizer.fingerprint) / record.name
    info = token_store.read_info(folder)
    fresh = "train" in source.splits and (overwrite or info is None or any(info.get(k) != v for k, v in key.items()))
    if fresh:
        renderings = tasks.num_renderings(source.splits["train"].size)
        rows = [(fields, chosen) for fields, _, chosen in _read(record, source, "train", renderings, options.seed)]
        if not rows:
            raise sources.SourceError(record.name, "no training record is left after filtering", "look at its source")
        counts = _Counts()
        # The counts are full only after the last example, so they are read when info is written.
        about = {**key, "num_records": len(rows), "renderings": renderings, "vocab_size": tokenizer.vocab_size}
        examples = tokenized_examples(record, rows, tokenizer, options, counts)
        info = token_store.write_dataset(folder, about, examples, lambda: dataclasses.asdict(counts))
    sizes = _write_examples(record, source, to / "examples" / record.name, overwrite)
    figures = info or {}
    return {
        "dataset": record.name,
        "cluster": record.cluster,
        "origin": source.origin,
        "kept": not fresh,
        "train": figures.get("num_records", 0),
        **{
            k: figures.get(k, 0)
            for k in ("renderings", "num_tokens", "mean_input_length", "mean_target_length", "trimmed", "overlong")
        },
        **sizes,
        "bad_rows": len(source.bad_rows),
    }


def _fields_digest(record: catalog.Dataset) -> str:
    """A fingerprint of the code behind the dataset's `fields` and `keep`: its edits are prepared again."""
    code = [Path(inspect.getfile(part)).read_bytes() for part in (record.fields, shared_fields)]
    return hashlib.sha256(b"\0".join(code)).hexdigest()[:16]


def _write_examples(
    record: catalog.Dataset, source: sources.OpenSource, folder: Path, overwrite: bool
) -> dict[str, int]:
    """Writes dev.jsonl and test.jsonl with the fields of every record, whole or not at all."""
    info = folder / "info.json"
    key = {"data": str(source.builder.data_dir), "splits": {n: s.tfds for n, s in source.splits.items()}}
    key |= {"source": record.source, "fields": _fields_digest(record)}
    if not overwrite and (found := token_store.read_info(folder)) and found.get("key") == key:
        return found["sizes"]
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)  # of a killed process with the same number
    building.mkdir(parents=True)
    sizes = {}
    try:
        for name, split in (("dev", "validation"), ("test", "test")):
            if split not in source.splits:
                continue
            with (building / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                sizes[name] = 0
                for fields, identity, _ in _read(record, source, split, 1, 0):
                    file.write(json.dumps({"id": identity, "fields": fields}, ensure_ascii=False) + "\n")
                    sizes[name] += 1
        (building / info.name).write_text(json.dumps({"key": key, "sizes": sizes}, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return sizes


def chosen_datasets(names: str, mixture: str) -> tuple[catalog.Dataset, ...]:
    """The datasets of --datasets (names of datasets and clusters, with commas) and --mixture; all by default.

    Raises:
      FlanError: an unknown name, with near matches.
    """
    if not names and not mixture:
        return catalog.datasets()
    clusters = {c.name for c in catalog.clusters()}
    known = {d.name: d for d in catalog.datasets()}
    chosen = list(catalog.mixture(mixture)) if mixture else []
    for name in filter(None, (n.strip() for n in names.split(","))):
        if name in known:
            chosen.append(known[name])
        elif name in clusters:
            chosen += catalog.datasets(name)
        else:
            raise unknown_name("dataset or cluster", name, [*known, *clusters])
    return tuple(dict.fromkeys(chosen))


def prepare(
    chosen: Sequence[catalog.Dataset],
    data: str,
    tokenizer: vocabularies.Tokenizer,
    to: Path,
    options: Options,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepares datasets one after another; a source that fails is skipped and named.

    Returns:
      {"datasets": figures of each, "skipped": [{dataset, reason, remedy}], "bad_rows": [text]}.

    Raises:
      FlanError: not one dataset could be prepared.
    """
    if not chosen:
        raise FlanError("no dataset is chosen: give --datasets or --mixture, or neither for all.")
    done, skipped, bad_rows = [], [], []
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        console=Console(file=sys.stdout),  # this very stream, since TFDS writes with another in its place
    )
    with bar:
        task = bar.add_task("opening sources", total=len(chosen))
        for record, source in sources.open_all(chosen, data):
            bar.update(task, description=f"preparing {record.name}")
            try:
                if isinstance(source, sources.Skipped):
                    skipped.append(source)
                else:
                    bad_rows += [str(row) for row in source.bad_rows]
                    done.append(prepare_dataset(record, source, tokenizer, to, options, overwrite))
            except sources.SourceError as error:
                skipped.append(error.skipped)
            except tf.errors.OpError as error:
                reason = f"its records cannot be read ({type(error).__name__}: {error.message.splitlines()[0][:160]})"
                skipped.append(sources.Skipped(record.name, reason, "get its data again"))
            bar.advance(task)
            if not bar.console.is_terminal:
                print(f"[{len(done) + len(skipped)}/{len(chosen)}] {record.name}", flush=True)
    if not done:
        raise FlanError(
            f"nothing prepared: none of {len(chosen)} sources could be opened with --data={data} "
            f"(first: {skipped[0].reason}; {skipped[0].remedy})."
        )
    return {"datasets": done, "skipped": [dataclasses.asdict(s) for s in skipped], "bad_rows": bad_rows}


def _show(result: Mapping[str, Any]) -> None:
    console = Console(width=180)
    table = Table(box=None, header_style="bold")
    heads = ("dataset", "cluster", "train", "renderings", "tokens", "input", "target", "trimmed", "too long")
    for head in (*heads, "dev", "test", "from"):
        table.add_column(head, justify="left" if head in ("dataset", "cluster", "from") else "right")
    for d in result["datasets"]:
        lengths = (f"{d['mean_input_length']:.0f}", f"{d['mean_target_length']:.1f}")
        counts = (f"{d['trimmed']:,}", f"{d['overlong']:,}", f"{d.get('dev', 0):,}", f"{d.get('test', 0):,}")
        start = (d["dataset"], d["cluster"], f"{d['train']:,}", str(d["renderings"]), f"{d['num_tokens']:,}")
        table.add_row(*start, *lengths, *counts, d["origin"] + (" (kept)" if d["kept"] else ""))
    console.print(table)
    for row in result["bad_rows"][:20]:
        print(f"left out: {row}")
    if len(result["bad_rows"]) > 20:
        print(f"left out: {len(result['bad_rows']) - 20} more rows")
    for s in result["skipped"]:
        print(f"skipped {s['dataset']}: {s['reason']}. To do: {s['remedy']}.")
    if "packing" in result:
        packing = result["packing"]
        print(f"rows of 1,280 slots are filled to {packing['fill']:.4f}; {packing['dropped']} draws had no room.")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and prepares."""
    parser = argparse.ArgumentParser(
        prog="python -m flan_jax.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=sources.SAMPLES, help="samples, tfds, or a folder of JSONL or TFDS data")
    parser.add_argument("--datasets", default="", help="datasets and clusters, with commas; all by default")
    parser.add_argument("--mixture", default="", help="the datasets of a mixture; its packing is reported")
    parser.add_argument("--vocabulary", default="bytes", help="bytes, a vocabulary folder, .model or tokenizer.json")
    parser.add_argument("--to", required=True, help="PREPARED_DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of templates")
    parser.add_argument("--max_input_length", type=int, default=1024, help="tokens of an input")
    parser.add_argument("--max_target_length", type=int, default=256, help="tokens of a target, EOS included")
    parser.add_argument("--overwrite", action="store_true", help="prepare again what is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    arguments = parser.parse_args(argv)
    for library in ("absl", "tensorflow"):  # what TFDS and TensorFlow warn of at every import is not the user's to mend
        logging.getLogger(library).setLevel(logging.ERROR)
    with one_line_errors():
        chosen = chosen_datasets(arguments.datasets, arguments.mixture)
        tokenizer = vocabularies.load(arguments.vocabulary)
        options = Options(arguments.seed, arguments.max_input_length, arguments.max_target_length)
        to = Path(arguments.to)
        result = prepare(chosen, arguments.data, tokenizer, to, options, arguments.overwrite)
        if arguments.mixture:
            result["packing"] = packing_report(arguments.mixture, to, tokenizer, options)
        _show(result)
    if arguments.json:
        print(json.dumps(result))


def packing_report(mixture: str, to: Path, tokenizer: vocabularies.Tokenizer, options: Options) -> dict[str, Any]:
    """How full the rows of a mixture are; see `Stream.report`."""
    store = token_store.TokenStore.open(to, tokenizer.fingerprint)
    there = set(store.names)
    rates = {
        d.name: float(catalog.mixing_rate(store[d.name].num_records))
        for d in catalog.mixture(mixture)
        if d.name in there
    }
    stream = Stream(
        store,
        rates,
        seed=0,
        row_length=options.max_input_length + options.max_target_length,
        target_length=options.max_target_length,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    )
    return stream.report()


if __name__ == "__main__":
    main()
