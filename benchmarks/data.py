"""Rendered and tokenized examples a second: FLAN-JAX's preparation beside a plain SeqIO pipeline, in one run.

python benchmarks/data.py --data=FOLDER --datasets=cosmos_qa,hellaswag --records=2000
python benchmarks/data.py --data=samples --vocabulary=models/gemma3-270m/vocabulary

The SeqIO side is what T5-style code does: one `seqio.Task` for each template (a Python function on tensors, a parse of
the record, SeqIO's own tokenization), mixed at equal rates, and packed by SeqIO's `trim_and_pack_dataset` into rows of
1,280. Ours reads the same records, renders, tokenizes and writes the token store, with as many processes as SeqIO's
tf.data has threads, one a core; then packs by the stream. Both sides have the same vocabulary: by default a
SentencePiece model trained on these records, which SeqIO runs natively in TensorFlow; any other goes through the
wrapper. Both are warmed up: each counts from its first example on, and reads the same number of examples.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import multiprocessing

import numpy as np
import sentencepiece
import seqio
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from flan_jax import catalog, templates
from flan_jax.data import parallel, preparation, sources, tasks, token_store, training_records, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.seqio_vocabulary import SeqioVocabulary
from flan_jax.data.stream import Stream
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.json_lines import to_json

INPUT_LENGTH, TARGET_LENGTH = 1024, 256


@dataclasses.dataclass(frozen=True)
class Measured:
    """One side of the comparison.

    Attributes:
      examples: rendered and tokenized.
      tokens: of inputs and targets.
      seconds: for them, after the first.
      start: seconds until the first example.
      fill: share of the packed rows' slots that hold tokens.
    """

    examples: int
    tokens: int
    seconds: float
    start: float
    fill: float

    @property
    def rate(self) -> float:
        """Examples a second, after the first."""
        return self.examples / self.seconds


# ----------------------------------------------------------------------------------------------------------- SeqIO


def _plain_task(record: catalog.Dataset, number: int, data: str, limit: int, vocabulary: seqio.Vocabulary) -> str:
    """One task of one template, as the released code has them: a function that joins strings."""
    template = record.templates[number]

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        source = sources.open_source(record, data)
        rows = source.read("train", shuffle_files, seed)
        return (rows.filter(record.keep) if record.keep else rows).take(limit)

    def to_text(row: dict[str, Any]) -> dict[str, Any]:
        fields = record.fields(row)

        def filled(pattern: str) -> Any:
            parts = []
            for literal, name in templates.pieces(pattern):
                parts.append(literal)
                if name == templates.OPTIONS:
                    lines = tf.strings.reduce_join(tf.strings.join(["- ", fields[name]]), separator="\n")
                    parts.append(tf.strings.join(["OPTIONS:\n", lines]))
                elif name is not None:
                    parts.append(fields[name])
            return tf.strings.join(parts)

        return {"inputs": filled(template.input), "targets": filled(template.target)}

    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)

    name = f"plain_{record.name}_t{number}"
    features = {f: seqio.Feature(vocabulary, add_eos=True) for f in ("inputs", "targets")}
    seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset_fn, splits=("train",)),
        preprocessors=[preprocess, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=features,
    )
    return name


def measure_seqio(
    chosen: Sequence[catalog.Dataset], data: str, limit: int, count: int, vocabulary: seqio.Vocabulary
) -> Measured:
    """Reads `count` examples of an equal mixture of all templates of the datasets, then packs as many."""
    names = [_plain_task(d, n, data, limit, vocabulary) for d in chosen for n in range(len(d.templates))]
    seqio.MixtureRegistry.remove("plain")
    seqio.MixtureRegistry.add("plain", [(name, 1.0) for name in names])
    mixture = seqio.MixtureRegistry.get("plain")
    lengths = {"inputs": INPUT_LENGTH, "targets": TARGET_LENGTH}
    began = time.perf_counter()
    rows = iter(mixture.get_dataset(lengths, "train", shuffle=False, num_epochs=None).prefetch(tf.data.AUTOTUNE))
    next(rows)
    first = time.perf_counter()
    found = []
    for _ in range(count):
        row = next(rows)
        found.append((row["inputs"].numpy(), row["targets"].numpy()))
    seconds = time.perf_counter() - first
    return Measured(count, sum(map(len, sum(found, ()))), seconds, first - began, _seqio_fill(found))


def _seqio_fill(examples: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """How full SeqIO's own packing leaves rows of the same length, input and target joined as a decoder reads them."""

    def joined() -> Any:
        for inputs, targets in examples:
            yield {"targets": np.concatenate([inputs, targets])[: INPUT_LENGTH + TARGET_LENGTH].astype(np.int32)}

    signature = {"targets": tf.TensorSpec([None], tf.int32)}
    dataset = tf.data.Dataset.from_generator(joined, output_signature=signature)
    length = INPUT_LENGTH + TARGET_LENGTH
    packed = seqio.trim_and_pack_dataset(dataset, {"targets": length}, use_custom_ops=False)
    filled = [float((row["targets_segment_ids"].numpy() > 0).mean()) for row in packed]
    return float(np.mean(filled[:-1] or filled))


# ------------------------------------------------------------------------------------------------------------ ours


def _tokenized(name: str, data: str, limit: int, renderings: int, to: str, model: bytes | str) -> tuple[int, int]:
    """Prepares renderings of the first records of a dataset; returns examples and tokens."""
    tokenizer = _tokenizer(model)
    record = catalog.dataset(name)
    options = preparation.Options()
    source = sources.open_source(record, data)
    rows = []
    for row in training_records.training_records(record, source, options):
        if len(rows) == limit:
            break
        rows.append(row)
    chosen = [dataclasses.replace(row, chosen=list(range(10))) for row in rows]  # each template once, as SeqIO's side
    ordered = [(row, epoch) for epoch in range(renderings) for row in chosen]
    builder = ExampleBuilder(record, options.style)
    counts = preparation.Counts()
    about = {"num_records": len(rows), "renderings": renderings, "vocab_size": tokenizer.vocab_size}
    examples = preparation.tokenized_examples(builder, ordered, tokenizer, counts)
    folder = token_store.folder_of(to, tokenizer.fingerprint) / name
    info = token_store.write_dataset(folder, about, examples, records=preparation.identities(rows))
    return info["num_examples"], info["num_tokens"]


def _tokenizer(model: bytes | str) -> vocabularies.Tokenizer:
    return vocabularies.SentencePieceTokenizer(model) if isinstance(model, bytes) else vocabularies.load(model)


def _warm(name: str, data: str, model: bytes | str) -> None:
    """Imports, traces and tokenizes a little, so that what follows is at speed."""
    with tempfile.TemporaryDirectory() as folder:
        _tokenized(name, data, 2, 1, folder, model)


def measure_ours(
    chosen: Sequence[catalog.Dataset], data: str, limit: int, workers: int, model: bytes | str, to: str
) -> Measured:
    """Prepares the first records of each dataset through all ten templates, then packs them."""
    context = multiprocessing.get_context("spawn")
    with parallel.environment(parallel.threads_of_a_worker(workers)):
        pool = futures.ProcessPoolExecutor(workers, context)
        began = time.perf_counter()
        with pool:
            warm = [pool.submit(_warm, d.name, data, model) for d in (chosen * workers)[: max(workers, len(chosen))]]
            futures.wait(warm)
            [w.result() for w in warm]
            first = time.perf_counter()
            jobs = [pool.submit(_tokenized, d.name, data, limit, 10, to, model) for d in chosen]
            done = [job.result() for job in jobs]
            seconds = time.perf_counter() - first
    tokenizer = _tokenizer(model)
    store = token_store.TokenStore.open(to, tokenizer.fingerprint)
    rates = {name: float(store[name].num_records) for name in store.names}
    stream = Stream(store, rates, seed=0, bos_id=None, eos_id=tokenizer.eos_id)
    examples, tokens = (sum(column) for column in zip(*done, strict=True))
    return Measured(examples, tokens, seconds, first - began, stream.report()["fill"])


# ------------------------------------------------------------------------------------------------------------- main


def trained_sentencepiece(chosen: Sequence[catalog.Dataset], data: str, limit: int, size: int = 8_000) -> bytes:
    """A SentencePiece model of the text of these records."""

    def texts() -> Any:
        for record in chosen:
            rows = tasks.records(record, sources.open_source(record, data), "train").take(limit)
            for _, fields in tasks.text_records(rows):
                yield from (value for value in fields.values() if isinstance(value, str))

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts(),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def benchmark(
    names: Sequence[str], data: str, limit: int, workers: int, vocabulary: str, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measures both sides and returns their figures and the ratio."""
    chosen = [catalog.dataset(name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        if vocabulary:
            model: bytes | str = vocabulary
            of_seqio: seqio.Vocabulary = SeqioVocabulary(vocabularies.load(vocabulary))
        else:
            say("training a SentencePiece model on these records")
            model = trained_sentencepiece(chosen, data, limit)
            path = Path(folder) / "sentencepiece.model"
            path.write_bytes(model)
            of_seqio = seqio.SentencePieceVocabulary(str(path))
        say("ours")
        ours = measure_ours(chosen, data, limit, workers, model, folder)
        say("SeqIO")
        theirs = measure_seqio(chosen, data, limit, ours.examples, of_seqio)
    sides = {
        name: dataclasses.asdict(side) | {"examples_per_second": side.rate}
        for name, side in (("ours", ours), ("seqio", theirs))
    }
    return sides | {
        "ratio": ours.rate / theirs.rate,
        "datasets": list(names),
        "records": limit,
        "workers": workers,
        "vocabulary": vocabulary or "SentencePiece, native in SeqIO",
        "load_average": os.getloadavg()[0],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="samples", help="samples, tfds, or a folder of data")
    parser.add_argument("--datasets", default="rte,cosmos_qa,squad_v1,common_gen", help="with commas")
    parser.add_argument("--records", type=int, default=2_000, help="training records of each dataset")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="our processes")
    parser.add_argument("--vocabulary", default="", help="as prepare takes it; by default a SentencePiece model")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    arguments = parser.parse_args(argv)
    for library in ("absl", "tensorflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with one_line_errors():
        names = [name for name in arguments.datasets.split(",") if name]
        if not names:
            raise FlanError("no dataset is chosen: give --datasets.")
        result = benchmark(names, arguments.data, arguments.records, arguments.workers, arguments.vocabulary)
    table = Table(box=None, header_style="bold")
    for head in ("", "examples", "seconds", "examples a second", "tokens a second", "first after", "rows filled"):
        table.add_column(head, justify="right" if head else "left")
    for name in ("ours", "seqio"):
        side = result[name]
        figures = (f"{side['examples']:,}", f"{side['seconds']:.1f}", f"{side['examples_per_second']:,.0f}")
        rest = (f"{side['tokens'] / side['seconds']:,.0f}", f"{side['start']:.1f} s", f"{side['fill']:.3f}")
        table.add_row(name, *figures, *rest)
    Console(width=120).print(table)
    print(f"ours / SeqIO: {result['ratio']:.1f}  (load average {result['load_average']:.1f})")
    if arguments.json:
        print(to_json(result))


if __name__ == "__main__":
    main()
