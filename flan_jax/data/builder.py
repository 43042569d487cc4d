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
from flan_jax.data.few_shot import Exemplars
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
            self._exemplars = Exemplars(
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
          TooManyOptionsError: the style letters options, and there are more options than letters.
        """
        if templates.OPTIONS not in fields or not self.style.restyles_options:
            return fields
        options, answer = styles.restyled_options(
            self.record, self.style, record_id, fields[templates.OPTIONS], fields["answer"], self.seed
        )
        found = {**fields, templates.OPTIONS: options, "answer": answer}
        return found | styles.lettered(self.style, options, answer) if self.style.lettered_options else found

    def _styled(self, pool: Sequence[tuple[str, Fields]]) -> Iterator[tuple[str, Fields]]:
        """The records of a pool in the style, without those that have more options than letters."""
        for identity, fields in pool:
            with contextlib.suppress(styles.TooManyOptionsError):
                yield identity, self.fields(identity, fields)

    def exemplars(self, record_id: str, template: int, inputs: str, variant: str = "") -> tuple[Fields, ...]:
        """The fields of the exemplars in front of a rendered input, in order."""
        return self._exemplars.chosen(record_id, template, inputs, variant) if self._exemplars else ()

    def prefix(self, record_id: str, template: int, inputs: str, variant: str = "") -> tuple[str, int]:
        """The text of the exemplars in front of a rendered input, and their number; see `Exemplars.prefix`."""
        return self._exemplars.prefix(record_id, template, inputs, variant) if self._exemplars else ("", 0)

    def build(self, record_id: str, fields: Fields, template: int) -> Example:
        """Builds one example.

        Args:
          record_id: the record's id.
          fields: the record's fields as text, from the dataset's `fields`.
          template: the number of the template.

        Raises:
          FlanError: the template does not fit the fields.
          TooManyOptionsError: see `fields`.
        """
        fields = self.fields(record_id, fields)
        inputs, targets = templates.render(self.templates[template], fields)
        prefix, shots = self.prefix(record_id, template, inputs, fields.get(VARIANT, ""))
        return Example(prefix + inputs, targets, template, prefix, shots, fields)
