"""What is verified: a checkpoint, and examples of a prepared folder."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from flan_jax import catalog, models, partitioning, parts, styles, templates
from flan_jax.checkpoint import arrays, choosing
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples
from flan_jax.data.builder import Example, ExampleBuilder
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.stream import Segment, Stream
from flan_jax.errors import FlanError
from flan_jax.files import user_path
from flan_jax.models.attention_switch import PLATFORMS
from flan_jax.training.loss import CROSS_ENTROPY
from flan_jax.training.run import Run
from flan_jax.values import PER_EXAMPLE
from flan_jax.verification.findings import Place
from flan_jax.verification.plain import Plain
from flan_jax.verification.request import Request

_SPLITS = ("test", "dev", "exemplars")  # in this order; a dataset may have only some
_FEW = 50  # records of a file from which examples are chosen


class Drawn(NamedTuple):
    """An example of the stream, alone.

    Attributes:
      segment: what it is, and its place in its row.
      prompt: what comes before the targets in a decoder's sequence, or what the encoder reads.
      answer: the targets and EOS.
      place: its name.
    """

    segment: Segment
    prompt: list[int]
    answer: list[int]
    place: Place


class Question(NamedTuple):
    """A record that was not tokenized before, rendered.

    Attributes:
      example: its text.
      place: its name.
    """

    example: Example
    place: Place


class Subject:
    """A checkpoint in memory, with what belongs to it.

    Attributes:
      request: what to verify.
      step: the checkpoint's step.
      manifest: its manifest.
      tokenizer: its vocabulary.
      model: the model as it trains and scores, in float32.
      params: its parameters.
      plain: the model run plainly.
      objective: what its run minimises, without dropout; the mean cross entropy if it has no run.json.
    """

    def __init__(self, request: Request) -> None:
        """Loads the checkpoint onto one device.

        Raises:
          FlanError: there is none, it is damaged, or nothing is prepared for it.
        """
        self.request = request
        self.manifest = Manifest.load(request.checkpoint)
        self.step = choosing.latest_step(request.checkpoint) if request.step is None else request.step
        self.mesh = partitioning.make_mesh(devices=jax.devices()[:1])
        own = models.DecoderConfig.from_dict(self.manifest.model).attention
        platform = self.mesh.devices.flat[0].platform
        runs = own != "cudnn" and PLATFORMS.get(own, platform) == platform  # cuDNN's kernel takes no float32
        attention = request.attention or (own if runs else "xla")
        self.model, self.params, self.tokenizer, _ = arrays.load_model(
            request.checkpoint, self.step, self.mesh, {"dtype": "float32", "attention": attention}
        )
        run = Run.load(user_path(request.checkpoint))
        objective = dataclasses.replace(run.program.objective if run else CROSS_ENTROPY, dropout_rate=0.0)
        if request.loss_averaging:
            objective = dataclasses.replace(objective, loss_averaging=request.loss_averaging)
        self.objective = objective
        self.plain = Plain(self.model.config, self.params, objective.z_loss, objective.label_smoothing)
        self.stream  # noqa: B018 (says what is wrong with the data before anything is computed)

    @property
    def mixture(self) -> parts.Mixture:
        """The mixture of the rows."""
        tuned = [entry for entry in self.manifest.history if "tuned on" in entry]
        return parts.of(self.request.mixture or (parts.recorded(tuned[-1]) if tuned else "flan"))

    @functools.cached_property
    def stream(self) -> Stream:
        """The training stream of the mixture, with one row in each microbatch."""
        return self.fresh_stream(self.request.microbatches)

    def fresh_stream(self, rows_per_batch: int) -> Stream:
        """The same stream, as another process would open it."""
        return open_mixture(
            self.mixture,
            self.request.prepared,
            self.tokenizer,
            seed=self.request.seed,
            rows_per_batch=rows_per_batch,
            lengths=self.request.lengths,
            encoder_decoder=self.plain.has_encoder,
            loss_averaging=self.objective.loss_averaging,
            loss_on_inputs=self.objective.loss_on_inputs,
            datasets=self.request.datasets,
        )[1]

    def weight(self, one: Drawn) -> float:
        """The weight of each target of an example in a step's mean."""
        by_part = self.stream.loss_weight(one.segment.part)
        return by_part / len(one.answer) if self.objective.loss_averaging == PER_EXAMPLE else by_part

    def learned(self, step: int, row: int) -> list[Drawn]:
        """Like `drawn`; but if inputs have a loss too, all of an example except its first token is its answer."""
        found = self.drawn(step, row)
        if not self.objective.loss_on_inputs:
            return found
        return [one._replace(prompt=one.prompt[:1], answer=[*one.prompt[1:], *one.answer]) for one in found]

    def drawn(self, step: int, row: int) -> list[Drawn]:
        """The examples of a row, in order, each alone: [BOS] inputs EOS (or another joint), then targets EOS."""
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        end = [self.tokenizer.eos_id]
        found = []
        for segment in self.stream.segments(step, row):
            inputs, targets = (ids.tolist() for ids in self.stream.tokens(segment))
            between = [self.stream.separator(segment.part)]
            place = {"dataset": segment.dataset, "record": segment.record, "template": segment.template}
            place |= {"step": step, "row": row}
            found.append(Drawn(segment, [*start, *inputs, *between], [*targets, *end], place))
        return found

    def some_drawn(self) -> list[Drawn]:
        """As many examples from the start of the stream as are asked for."""
        rows = ((step, row) for step in itertools.count() for row in range(self.stream.rows_per_batch))
        every = itertools.chain.from_iterable(self.drawn(*place) for place in rows)
        return list(itertools.islice(every, self.request.examples))

    def questions(self, *, with_options: bool) -> Iterator[Question]:
        """Records of the parts in turn, by forward templates, in their styles. No record comes twice.

        Args:
          with_options: whether to take only those whose answers are chosen from options.
        """
        rng = np.random.default_rng(self.request.seed)
        drawn_from = [part for part in self.mixture.parts if part.name in self.stream.parts]
        by_part = [self._questions(part.dataset, part.text_style, rng) for part in drawn_from]
        for round_ in itertools.zip_longest(*by_part):
            for question in filter(None, round_):
                if not with_options or templates.OPTIONS in question.example.fields:
                    yield question

    def _questions(self, name: str, style: styles.TextStyle, rng: np.random.Generator) -> Iterator[Question]:
        record = catalog.dataset(name)
        folder = user_path(self.request.prepared) / "examples" / name
        there = [split for split in _SPLITS if (folder / f"{split}.jsonl").is_file()]
        read = ((split, examples.read(self.request.prepared, name, split, _FEW)) for split in there)
        split, rows = next(((split, rows) for split, rows in read if rows), ("", []))
        pool: list[Any] = []
        if style.shots:
            pool = [(row["id"], row["fields"]) for row in examples.read(self.request.prepared, name, "exemplars")]
        builder = ExampleBuilder(record, style, pool=pool, tokenizer=self.tokenizer)
        if not (forward := styles.forward_templates(record, style)):
            return
        for number in rng.permutation(len(rows)):
            row, template = rows[number], int(rng.choice(forward))
            place = {"dataset": name, "split": split, "record": row["id"], "template": template}
            try:
                yield Question(builder.build(row["id"], row["fields"], template), place)
            except styles.NotShownError:  # an evaluation leaves it out too
                continue
            except FlanError as error:
                where = f"{folder / split}.jsonl, record {row['id']!r}"
                raise FlanError(
                    f"{where}: {str(error).rstrip('.')}; prepare {name!r} again with --overwrite."
                ) from error
