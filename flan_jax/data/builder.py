"""Builds the text of examples: a record's fields, a style and a template give inputs and targets. No TensorFlow.

All code that needs text uses this: the token store, export, browsing and the evaluator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence

from flan_jax import catalog, protocol, styles, templates
from flan_jax.catalog import VARIANT, Dataset
from flan_jax.data import few_shot
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.templates import Fields


@dataclasses.dataclass(frozen=True)
class Example:
    """One record rendered through one template.

    Attributes:
      inputs: the prompt, with its exemplars.
      targets: what the model should say.
      template: the number of the template.
      prefix: the exemplars' part of `inputs`.
      shots: the number of exemplars.
      fields: the rendered fields in the style; `options` and `answer` are as the prompt shows them.
    """

    inputs: str
    targets: str
    template: int
    prefix: str
    shots: int
    fields: Fields


class ExampleBuilder:
    """Builds a dataset's examples in one style.

    Attributes:
      record: the dataset.
      style: the style.
      seed: the seed of exemplars and shuffled options.
      protocol: the dataset's protocol in this style.
      templates: the dataset's templates in the style, by their numbers.
      digest: identifies what the text depends on besides the records.
    """

    def __init__(
        self,
        record: Dataset,
        style: styles.TextStyle = styles.PAPER,
        *,
        asked: protocol.Protocol | None = None,
        pool: Sequence[tuple[str, Fields]] = (),
        tokenizer: Tokenizer | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the dataset and the style.

        Args:
          record: the dataset.
          style: the style.
          asked: their protocol, if it has other limits than the dataset's own.
          pool: (record id, fields) of training records, for a style with shots.
          tokenizer: counts the tokens of exemplars.
          seed: the seed of exemplars and shuffled options.

        Raises:
          ValueError: a style with shots but no tokenizer.
        """
        self.record, self.style, self.seed = record, style, seed
        self.protocol = asked or protocol.of(record, style)
        self.templates = self.protocol.templates
        self._exemplars = None
        self._pool = list(pool) if style.shots else None
        self.digest = self._digest(self.protocol)
        if style.shots:
            if tokenizer is None:
                raise ValueError("a style with shots needs a tokenizer, which counts what fits")
            styled = list(self._styled(pool))
            self._exemplars = few_shot.Exemplars(
                catalog.whole(record.name),
                self.templates,
                styled,
                tokenizer,
                shots=style.shots,
                shared=style.shared,
                budget=self.protocol.exemplar_room,
                joint=self.protocol.exemplar_joint,
                end=self.protocol.exemplar_end,
                seed=seed,
                passage=record.passage,
            )

    def digest_of(self, number: int) -> str:
        """What the text with one forward template depends on besides the records."""
        return self._digest(self.protocol.of_template(number))

    def _digest(self, asked: protocol.Protocol) -> str:
        bound = [asked.text_digest, self.seed, self._pool]
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()

    def fields(self, record_id: str, fields: Fields) -> Fields:
        """A record's fields, with options and answer as the style shows them.

        Raises:
          NotShownError: the style shows no options, and the record speaks of them; or the style letters them, and there
            are more options than letters.
        """
        styles.check_answerable(self.record, self.style, fields)
        if templates.OPTIONS not in fields or not self.style.restyles_options:
            return fields
        options, answer = styles.restyled_options(
            self.record, self.style, record_id, fields[templates.OPTIONS], fields["answer"], self.seed
        )
        found = {**fields, templates.OPTIONS: options, "answer": answer}
        return found | styles.lettered(self.style, options, answer) if self.style.lettered_options else found

    def _styled(self, pool: Sequence[tuple[str, Fields]]) -> Iterator[tuple[str, Fields]]:
        """The records of a pool in the style, without those that it cannot show."""
        for identity, fields in pool:
            with contextlib.suppress(styles.NotShownError):
                yield identity, self.fields(identity, fields)

    def exemplars(self, record_id: str, template: int, inputs: str, fields: Fields) -> tuple[Fields, ...]:
        """The fields of the exemplars in front of a rendered input, in order.

        Args:
          record_id: the record's id.
          template: the number of the template.
          inputs: the rendered input.
          fields: the record's fields; only its variant and its passage count.
        """
        return self._exemplars.chosen(*self._asked_for(record_id, template, inputs, fields)) if self._exemplars else ()

    def prefix(self, record_id: str, template: int, inputs: str, fields: Fields) -> tuple[str, int]:
        """The text of the exemplars in front of a rendered input, and their number; see `exemplars`."""
        if self._exemplars is None:
            return "", 0
        return self._exemplars.prefix(*self._asked_for(record_id, template, inputs, fields))

    def _asked_for(self, record_id: str, template: int, inputs: str, fields: Fields) -> tuple[str, int, str, str, str]:
        passage = few_shot.passage_text(fields, self.record.passage)
        return record_id, template, inputs, fields.get(VARIANT, ""), passage

    def build(self, record_id: str, fields: Fields, template: int) -> Example:
        """Builds one example.

        Args:
          record_id: the record's id.
          fields: the record's fields as text, from the dataset's `fields`.
          template: the number of the template.

        Raises:
          FlanError: the template does not fit the fields.
          NotShownError: see `fields`.
        """
        fields = self.fields(record_id, fields)
        inputs, targets = templates.render(self.templates[template], fields)
        prefix, shots = self.prefix(record_id, template, inputs, fields)
        return Example(prefix + inputs, targets, template, prefix, shots, fields)
