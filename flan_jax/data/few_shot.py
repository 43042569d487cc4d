"""Exemplars: examples from train in front of an input, as many as fit (paper, section 4.4). No TensorFlow.

instruct(x1) + y1 + ... + instruct(xk) + yk + instruct(x), all through one template. A hash of (seed, dataset, record
id) chooses the exemplars of an example: the same ones in training, in evaluation and in SeqIO, in any order and
process. Shared exemplars come from a hash of (seed, dataset, template), so that a scorer computes them once for all
examples. If a dataset has variants, such as the directions of a translation, exemplars have the example's own variant.

No exemplar gives the answer away: none is the record itself, has the same input, or shares the example's passage. What
is said of one half of a Winograd schema decides the other half, and a question may be answered by the one before it.
Two passages count as one if at least half of the different words in them are in both. In WNLI, WSC and Winogrande the
halves of a schema share 0.5 or more, texts of different schemas at most 0.45. A stranger that is left out with them
costs nothing, as the next record drawn takes its place.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import random
import re
from collections.abc import Sequence

from flan_jax import catalog
from flan_jax.catalog import VARIANT
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.protocol import EXEMPLAR_OVERLAP
from flan_jax.templates import Fields, Template, render

_ROOM = 0.9  # share of inputs that must fit beside shared exemplars


def passage_text(fields: Fields, name: str) -> str:
    """The text of an example's passage: the field `name`, its lines if it is a list; "" if there is none."""
    value = fields.get(name, "")
    return value if isinstance(value, str) else "\n".join(value)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


class Exemplars:
    """Draws exemplars for the examples of one dataset."""

    def __init__(
        self,
        dataset: str,
        templates: Sequence[Template],
        pool: Sequence[tuple[str, Fields]],
        tokenizer: Tokenizer,
        *,
        shots: int,
        shared: bool,
        budget: int,
        joint: str,
        end: str,
        seed: int = 0,
        passage: str = "",
    ) -> None:
        """Prepares the pool.

        Args:
          dataset: the dataset's name, a part of the hash.
          templates: the templates in the style of the examples.
          pool: (record id, fields in that style) of training records, in a fixed order.
          tokenizer: counts tokens.
          shots: most exemplars of an example.
          shared: whether all examples of a template have the same exemplars.
          budget: most tokens of exemplars and input together.
          joint: what stands between an exemplar's input and its target.
          end: what stands after an exemplar.
          seed: the seed of the draws.
          passage: the field that several records may share (`Dataset.passage`); "" if there is none.
        """
        self._dataset, self._templates, self._pool = dataset, tuple(templates), list(pool)
        self._tokenizer, self._shots, self._budget, self._seed = tokenizer, shots, budget, seed
        self._shared, self._joint, self._end, self._passage = shared, joint, end, passage
        self._of_variant: dict[str, list[int]] = collections.defaultdict(list)
        for number, (_, fields) in enumerate(self._pool):
            self._of_variant[fields.get(VARIANT, "")].append(number)
        self._rendered = functools.cache(self._render)
        self._room = functools.cache(self._room_for_inputs)
        self._passage_words = functools.cache(self._words_of_passage)

    def _render(self, number: int, template: int) -> tuple[str, str, int]:
        """(input, input with its target, number of tokens) of an exemplar."""
        inputs, targets = render(self._templates[template], self._pool[number][1])
        # A space belongs to the answer's first word, as it does where the answer is scored; there is no second one
        # before it.
        start = inputs.rstrip() if self._joint == " " else inputs
        text = start + self._joint + targets + self._end
        return inputs, text, len(self._tokenizer.encode([text])[0])

    def _words_of_passage(self, number: int) -> frozenset[str]:
        return _words(passage_text(self._pool[number][1], self._passage))

    def _shares(self, number: int, words: frozenset[str]) -> bool:
        """Whether a record of the pool has the passage with these words."""
        own = self._passage_words(number)
        return bool(words) and len(own & words) >= EXEMPLAR_OVERLAP * len(own | words)

    def _candidates(self, name: str, variant: str) -> list[int]:
        """The numbers of the pool's records in the order in which they are tried."""
        key = hashlib.sha256(f"{self._seed}\x1f{self._dataset}\x1f{name}".encode("utf-8", "surrogatepass")).digest()
        if not variant and self._pool and variant not in self._of_variant:
            raise ValueError(f"exemplars of {self._dataset} are of its variants: say of which the example is")
        numbers = self._of_variant.get(variant, [])
        return random.Random(key).sample(numbers, min(len(numbers), 4 * self._shots + 2))

    def _room_for_inputs(self, template: int, variant: str) -> int:
        """How many tokens most inputs of a template need, estimated from the candidates for its shared exemplars."""
        inputs = [self._rendered(number, template)[0] for number in self._candidates(f"template {template}", variant)]
        lengths = sorted(map(len, self._tokenizer.encode(inputs)))
        return lengths[int(_ROOM * (len(lengths) - 1))] if lengths else 0

    def prefix(
        self, record_id: str, template: int, inputs: str, variant: str = "", passage: str = ""
    ) -> tuple[str, int]:
        """The exemplars in front of an input, as text.

        The record itself is never drawn, nor a training record with the same input text or the same passage. If an
        exemplar does not fit, the next one drawn is tried. Shared exemplars leave room for nine of ten inputs, whatever
        this one needs. An example that is itself a shared exemplar, or shares its passage, gets the next one instead.

        Args:
          record_id: the example's record id.
          template: the number of its template, which all exemplars use.
          inputs: its rendered input.
          variant: the example's variant, from the field of that name; "" if the dataset has none.
          passage: the example's `passage_text`; "" if the dataset has none.

        Returns:
          (text, number of exemplars); ("", 0) if none fits.

        Raises:
          ValueError: the pool has variants, but the example has none.
        """
        texts = [self._rendered(n, template)[1] for n in self._drawn(record_id, template, inputs, variant, passage)]
        return "".join(texts), len(texts)

    def chosen(
        self, record_id: str, template: int, inputs: str, variant: str = "", passage: str = ""
    ) -> tuple[Fields, ...]:
        """The fields of the exemplars that `prefix` shows, in order."""
        return tuple(self._pool[number][1] for number in self._drawn(record_id, template, inputs, variant, passage))

    def _drawn(self, record_id: str, template: int, inputs: str, variant: str, passage: str) -> list[int]:
        """The numbers of the records that stand in front of an input."""
        tried = self._candidates(f"template {template}" if self._shared else record_id, variant)
        needed = self._room(template, variant) if self._shared else len(self._tokenizer.encode([inputs])[0])
        left, own, words = self._budget - needed, catalog.record_id(record_id), _words(passage)
        drawn: list[int] = []
        for number in tried:
            if len(drawn) == self._shots:
                break
            if catalog.record_id(self._pool[number][0]) == own or self._shares(number, words):
                continue
            same, _, tokens = self._rendered(number, template)
            if same != inputs and tokens <= left:
                drawn.append(number)
                left -= tokens
        return drawn
