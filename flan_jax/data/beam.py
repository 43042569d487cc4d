"""Renders and tokenizes as an Apache Beam pipeline, for corpora too large for one machine (extra `beam`).

python -m flan_jax.prepare --data=tfds --vocabulary=gs://BUCKET/vocabulary --to=prepared --shards=gs://BUCKET/shards \
  --beam_pipeline_options=runner=DataflowRunner,project=PROJECT,region=REGION,temp_location=gs://BUCKET/temp,\
setup_file=./setup.py,sdk_container_image=IMAGE

Each element is a part of a dataset's training split. A worker opens the source, renders and tokenizes its part, and
writes a shard. On the machine that started the pipeline, `join` then joins a dataset's shards into the same token store
that `prepare` writes on one machine, byte for byte. An existing shard is not made again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from flan_jax import catalog
from flan_jax.data import parallel, preparation, sources, tasks, token_store, training_records, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.identity import Identities
from flan_jax.files import AnyPath, written

PART_SIZE = 2_000  # records of a shard


@dataclasses.dataclass(frozen=True)
class Part:
    """Records start to stop of a dataset's training split, and the shard that is made from them."""

    dataset: str
    start: int
    stop: int
    shard: str


def parts_of(record: catalog.Dataset, source: sources.OpenSource, folder: epath.Path, size: int) -> list[Part]:
    """The parts of a dataset's training split, in order."""
    whole = source.splits["train"].size
    return [
        Part(record.name, start, min(start + size, whole), str(folder / f"{start:08d}.npz"))
        for start in range(0, whole, size)
    ]


class TokenizePart(beam.DoFn):
    """Writes the shard of a part, unless it exists; yields (dataset, number of records)."""

    def __init__(self, data: str, vocabulary: str, options: preparation.Options) -> None:
        self._data, self._vocabulary, self._options = data, vocabulary, options

    def setup(self) -> None:
        """Loads the vocabulary, once for each worker."""
        self._tokenizer = vocabularies.load(self._vocabulary)
        self._builders: dict[str, tuple[sources.OpenSource, ExampleBuilder]] = {}

    def _opened(self, name: str) -> tuple[sources.OpenSource, ExampleBuilder]:
        if name not in self._builders:
            record, options = catalog.dataset(name), self._options
            source = sources.open_source(record, self._data)
            pool = tasks.exemplar_pool(record, source) if options.style.shots else ()
            builder = ExampleBuilder(
                record,
                options.style,
                asked=options.protocol_of(record),
                pool=pool,
                tokenizer=self._tokenizer,
                seed=options.seed,
            )
            self._builders[name] = source, builder
        return self._builders[name]

    def process(self, part: Part) -> Iterator[tuple[str, int]]:
        """Renders and tokenizes one part."""
        path = epath.Path(part.shard)
        if not path.exists():
            source, builder = self._opened(part.dataset)
            _write_shard(path, source, builder, part, self._tokenizer, self._options)
        yield part.dataset, part.stop - part.start


def _write_shard(
    path: epath.Path,
    source: sources.OpenSource,
    builder: ExampleBuilder,
    part: Part,
    tokenizer: vocabularies.Tokenizer,
    options: preparation.Options,
) -> None:
    counts = preparation.Counts()
    part_of_train = slice(part.start, part.stop)
    rows = list(training_records.training_records(builder.record, source, options, part_of_train, counts))
    tokens: list[np.ndarray] = []
    index: list[tuple[int, ...]] = []
    for rendering in range(len(rows[0].chosen) if rows else 0):
        ordered = [(row, rendering) for row in rows]
        for example in preparation.tokenized_examples(builder, ordered, tokenizer, counts):
            tokens.append(np.array([*example.inputs, *example.targets], np.uint32))
            index.append((rendering, len(example.inputs), len(example.targets), example.template, example.record))
    identities = preparation.identities(rows)
    about = {"records": len(rows), "renderings": len(rows[0].chosen) if rows else 0, **dataclasses.asdict(counts)}
    building = path.with_name(f".{path.name}.building")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with building.open("wb") as file:
            np.savez(
                file,
                tokens=np.concatenate(tokens) if tokens else np.zeros(0, np.uint32),
                index=np.array(index, np.int32).reshape(-1, 5),
                **{name: getattr(identities, name) for name in ("hashes", "ids", "texts")},
                about=np.array(json.dumps(about)),
            )
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)  # if there was not enough room for it


class _Shard:
    """A shard in memory."""

    def __init__(self, path: str) -> None:
        with epath.Path(path).open("rb") as file, np.load(file) as arrays:
            self.tokens, self.index = arrays["tokens"], arrays["index"]
            self.about = json.loads(str(arrays["about"]))
            self.identities = Identities(arrays["hashes"], arrays["ids"], arrays["texts"])
        self.offsets = np.concatenate([[0], np.cumsum(self.index[:, 1] + self.index[:, 2])])

    def examples(self, rendering: int, first_record: int) -> Iterator[token_store.TokenizedExample]:
        """The examples of one rendering, with records numbered from `first_record`."""
        for number in np.flatnonzero(self.index[:, 0] == rendering):
            _, inputs, targets, template, record = self.index[number]
            start = self.offsets[number]
            middle = start + inputs
            yield token_store.TokenizedExample(
                self.tokens[start:middle].tolist(),
                self.tokens[middle : middle + targets].tolist(),
                int(template),
                first_record + int(record),
            )


def join(
    parts: Sequence[Part], folder: AnyPath, key: dict[str, Any], tokenizer: vocabularies.Tokenizer, data: str
) -> dict[str, Any]:
    """Joins the shards of a dataset into its folder of the token store, and returns its info; `data` is --data.

    Renderings come one after another. So each shard is read once for each rendering, and one shard is in memory at a
    time.
    """
    opened = [(shard.about, shard.identities) for shard in (_Shard(part.shard) for part in parts)]
    abouts, identities = [about for about, _ in opened], [identity for _, identity in opened]
    first = np.cumsum([0] + [about["records"] for about in abouts])
    renderings = max(about["renderings"] for about in abouts)

    def examples() -> Iterator[token_store.TokenizedExample]:
        for rendering in range(renderings):
            for part, start in zip(parts, first, strict=False):
                yield from _Shard(part.shard).examples(rendering, int(start))

    counts = preparation.Counts()
    for about in abouts:
        counts.add(preparation.Counts(**{name: about[name] for name in dataclasses.asdict(counts) if name in about}))
    return preparation.write_tokens(
        folder, key, Identities.joined(identities), renderings, tokenizer, examples(), counts, data
    )


def prepare(
    chosen: Sequence[catalog.Dataset],
    data: str,
    vocabulary: str,
    to: AnyPath,
    options: preparation.Options,
    shards: str,
    pipeline_options: str = "",
    overwrite: bool = False,
    part_size: int = PART_SIZE,
) -> list[parallel.Outcome]:
    """Prepares datasets with a Beam pipeline. A source that cannot be opened is skipped, and the result names it.

    Args:
      chosen: the datasets.
      data: "samples", "tfds" or a folder that every worker can read.
      vocabulary: see `vocabularies.load`; every worker must be able to read it.
      to: PREPARED_DIR, on this machine.
      options: how examples are rendered and tokenized.
      shards: a folder that every worker and this machine can access, such as gs://BUCKET/shards.
      pipeline_options: Beam's options, as "runner=DirectRunner,direct_num_workers=2".
      overwrite: whether to prepare again what exists.
      part_size: records of a shard.

    Returns:
      The outcome of each dataset, in the order of `chosen`.
    """
    tokenizer = vocabularies.load(vocabulary)
    store = token_store.folder_of(to, tokenizer.fingerprint, options.style)
    outcomes: dict[str, parallel.Outcome] = {}
    work: dict[str, tuple[sources.OpenSource, dict[str, Any], list[Part]]] = {}
    for record, source in sources.open_all(chosen, data):
        if isinstance(source, sources.Skipped):
            outcomes[record.name] = parallel.Outcome(record.name, skipped=source)
            continue
        key = preparation.token_key(record, source, tokenizer, options)
        there = None if overwrite else preparation.current_info(store / record.name, key)
        if there or "train" not in source.splits:
            examples = preparation.prepare_examples(record, source, to, overwrite)
            line = preparation.summary_line(record, source, {options.style.name: (True, there or {})}, examples)
            outcomes[record.name] = parallel.outcome(source, line)
            continue
        # So shards of other templates, fields, vocabularies or limits are never used for these.
        folder = epath.Path(shards) / record.name / preparation.digest_of(key)
        if overwrite and folder.exists():
            folder.rmtree()
        work[record.name] = source, key, parts_of(record, source, folder, part_size)
    parts = [part for _, _, found in work.values() for part in found]
    if parts:
        arguments = [f"--{option}" for option in pipeline_options.split(",") if option]
        with written(shards), beam.Pipeline(options=PipelineOptions(arguments)) as pipeline:
            _ = (
                pipeline
                | beam.Create(parts)
                | beam.Reshuffle()  # otherwise all parts would stay on the worker that made them
                | beam.ParDo(TokenizePart(data, vocabulary, options))
            )
    for name, (source, key, found) in work.items():
        record = catalog.dataset(name)
        try:
            with preparation.locked(store / name):
                info = join(found, store / name, key, tokenizer, source.data)
        except sources.SourceError as error:
            outcomes[name] = parallel.Outcome(name, skipped=error.skipped)
            continue
        examples = preparation.prepare_examples(record, source, to, overwrite)
        line = preparation.summary_line(record, source, {options.style.name: (False, info)}, examples)
        outcomes[name] = parallel.outcome(source, line)
    return [outcomes[record.name] for record in chosen]
