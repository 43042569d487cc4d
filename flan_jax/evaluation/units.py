"""One unit of evaluation, (dataset, split, template): its prompts, and the file of its predictions.

The file is JSON lines, written whole or not at all. Its first line binds it by a digest to the checkpoint, the
template's text, the vocabulary, the examples and the settings, so that an interrupted job goes on where it stopped and
a stale file never answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import distributed, templates
from flan_jax.data.builder import ExampleBuilder
from flan_jax.errors import FlanError
from flan_jax.files import write_atomic
from flan_jax.json_lines import read_lines, to_json


class InvalidError(FlanError):
    """The model's numbers for a unit are not finite: nothing of its dataset is a result.

    Attributes:
      entry: {"dataset", "split", "template", "example", "reason"}, for the results.
    """

    def __init__(self, unit: Unit, identity: str, what: str) -> None:
        dataset, split, number = unit.name
        reason = f"invalid: {what} of {split} example {identity!r} with template {number} are not finite"
        super().__init__(f"{dataset}: {reason}")
        self.entry = {"dataset": dataset, "split": split, "template": number, "example": identity, "reason": reason}


@dataclasses.dataclass(frozen=True)
class Unit:
    """A (dataset, split, template).

    Attributes:
      builder: makes the examples of its dataset.
      split: "test" or "dev".
      number: of the template.
      rows: the records, as `data.examples.read` gives them.
      key: digest of all that the predictions depend on.
      path: the file of the predictions.
    """

    builder: ExampleBuilder
    split: str
    number: int
    rows: Sequence[Mapping[str, Any]]
    key: str
    path: Path

    @classmethod
    def create(
        cls,
        builder: ExampleBuilder,
        split: str,
        number: int,
        rows: Sequence[Mapping[str, Any]],
        output_dir: Path,
        bound: Sequence[Any],
    ) -> Unit:
        """A unit with its key; `bound` is what predictions depend on besides the dataset's texts, such as settings."""
        digest = [*bound, templates.digest([builder.templates[number]]), builder.digest, rows]
        key = hashlib.sha256(json.dumps(digest, sort_keys=True).encode()).hexdigest()
        path = output_dir / "predictions" / builder.record.name / f"{split}_t{number}.jsonl"
        return cls(builder, split, number, rows, key, path)

    @property
    def name(self) -> tuple[str, str, int]:
        """Dataset, split and template."""
        return self.builder.record.name, self.split, self.number

    def kept(self) -> list[dict[str, Any]] | None:
        """The predictions of an earlier job, where they are whole, finite and bound to the same key."""
        if not self.path.exists():
            return None
        try:
            header, *lines = read_lines(self.path)
        except ValueError:  # no JSON, no UTF-8, empty, or with NaN
            return None
        return lines if header.get("key") == self.key and len(lines) == len(self.rows) else None

    def write(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Writes the predictions, in one process."""
        if distributed.is_primary():
            header = {"key": self.key, "examples": len(predictions)}
            lines = [to_json(line, ascii_only=False, what=str(self.path)) for line in (header, *predictions)]
            write_atomic(self.path, "\n".join(lines) + "\n")

    def line(self, row: Mapping[str, Any], prompt: str, shots: int, cut_tokens: int) -> dict[str, Any]:
        """What every prediction of the unit says, whatever was done with the prompt."""
        return {
            "id": row["id"],
            "hash": row["hash"],
            "dataset": self.builder.record.name,
            "split": self.split,
            "template": self.number,
            "prompt": prompt,
            "shots": shots,
            "cut_tokens": cut_tokens,
        }
