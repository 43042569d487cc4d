"""Exemplars: examples from train in front of an input, as many as fit (paper, section 4.4). No TensorFlow.

instruct(x1) + y1 + ... + instruct(xk) + yk + instruct(x), all through one template. Which exemplars an example gets is
a hash of (seed, dataset, record id): the same in training, in evaluation and in SeqIO, in any order and process. Shared
exemplars are a hash of (seed, dataset, template), so that a scorer computes them once for all examples. Where a dataset
has variants, such as the directions of a translation, exemplars are of the example's own.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import random
from collections.abc import Sequence

from flan_jax import catalog
from flan_jax.catalog import VARIANT
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.templates import Fields, Template, render

_ROOM = 0.9  # share of inputs that fit beside shared exemplars


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
    ) -> None:
        """Args.

        dataset: its name, part of the hash.
        templates: in the style of the examples.
        pool: (record id, fields in that style) of training records, in a fixed order.
        tokenizer: counts tokens.
        shots: most exemplars of an example.
        shared: whether all examples of a template have the same.
        budget: most tokens of exemplars and input together.
        joint: between an exemplar's input and its target.
        end: after an exemplar.
        seed: of the draws.
        """
        self._dataset, self._templates, self._pool = dataset, tuple(templates), list(pool)
        self._tokenizer, self._shots, self._budget, self._seed = tokenizer, shots, budget, seed
        self._shared, self._joint, self._end = shared, joint, end
        self._of_variant: dict[str, list[int]] = collections.defaultdict(list)
        for number, (_, fields) in enumerate(self._pool):
            self._of_variant[fields.get(VARIANT, "")].append(number)
        self._rendered = functools.cache(self._render)
        self._room = functools.cache(self._room_for_inputs)

    def _render(self, number: int, template: int) -> tuple[str, str, int]:
        """(input, input with its target, tokens) of an exemplar."""
        inputs, targets = render(self._templates[template], self._pool[number][1])
        # A space goes with the answer's first word, as where the answer is scored; none stands before it as well.
        start = inputs.rstrip() if self._joint == " " else inputs
        text = start + self._joint + targets + self._end
        return inputs, text, len(self._tokenizer.encode([text])[0])

    def _candidates(self, name: str, variant: str) -> list[int]:
        """Numbers of records in the order in which they are tried."""
        key = hashlib.sha256(f"{self._seed}\x1f{self._dataset}\x1f{name}".encode("utf-8", "surrogatepass")).digest()
        if not variant and self._pool and variant not in self._of_variant:
            raise ValueError(f"exemplars of {self._dataset} are of its variants: say of which the example is")
        numbers = self._of_variant.get(variant, [])
        return random.Random(key).sample(numbers, min(len(numbers), 4 * self._shots + 2))

    def _room_for_inputs(self, template: int, variant: str) -> int:
        """Tokens that most inputs of a template need, by the candidates for its shared exemplars."""
        inputs = [self._rendered(number, template)[0] for number in self._candidates(f"template {template}", variant)]
        lengths = sorted(map(len, self._tokenizer.encode(inputs)))
        return lengths[int(_ROOM * (len(lengths) - 1))] if lengths else 0

    def prefix(self, record_id: str, template: int, inputs: str, variant: str = "") -> tuple[str, int]:
        """What stands in front of an input.

        The record itself is never drawn, nor a training record whose input reads the same. An exemplar that does not
        fit is passed over for the next one drawn. Shared exemplars leave room for nine of ten inputs, whatever this one
        takes; an example that is among them gets the next one instead.

        Args:
          record_id: of the example.
          template: its template's number, which all exemplars take.
          inputs: its rendered input.
          variant: which variant of the dataset it is of, as the field of that name has it; "" where there are none.

        Returns:
          (text, number of exemplars); ("", 0) where not one fits.

        Raises:
          ValueError: the pool is of variants, and the example of none.
        """
        texts = [self._rendered(n, template)[1] for n in self._drawn(record_id, template, inputs, variant)]
        return "".join(texts), len(texts)

    def chosen(self, record_id: str, template: int, inputs: str, variant: str = "") -> tuple[Fields, ...]:
        """The fields of the exemplars that `prefix` shows, in their order."""
        return tuple(self._pool[number][1] for number in self._drawn(record_id, template, inputs, variant))

    def _drawn(self, record_id: str, template: int, inputs: str, variant: str) -> list[int]:
        """Numbers of the records that stand in front of an input."""
        tried = self._candidates(f"template {template}" if self._shared else record_id, variant)
        needed = self._room(template, variant) if self._shared else len(self._tokenizer.encode([inputs])[0])
        left, own = self._budget - needed, catalog.record_id(record_id)
        drawn: list[int] = []
        for number in tried:
            if len(drawn) == self._shots:
                break
            if catalog.record_id(self._pool[number][0]) == own:
                continue
            same, _, tokens = self._rendered(number, template)
            if same != inputs and tokens <= left:
                drawn.append(number)
                left -= tokens
        return drawn
