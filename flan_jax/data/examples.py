"""Dev and test examples as prepared for the evaluator: one JSON line a record, its fields before any template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flan_jax.errors import FlanError


def read(prepared_dir: str | Path, dataset: str, split: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads PREPARED_DIR/examples/<dataset>/<split>.jsonl.

    Args:
      prepared_dir: what `flan_jax.prepare` wrote.
      dataset: a dataset's name.
      split: "dev" or "test".
      limit: the first so many; None for all.

    Returns:
      {"id": str, "fields": {name: str or list of str}} each.

    Raises:
      FlanError: the file is missing or broken. A missing dev file is an empty list: a source may have test data only.
    """
    folder = Path(prepared_dir) / "examples" / dataset
    path = folder / f"{split}.jsonl"
    if not path.exists():
        if split == "dev" and folder.exists():
            return []
        raise FlanError(
            f"no {'exemplars' if split == 'exemplars' else f'{split} examples'} of {dataset!r} in {prepared_dir}: "
            f"run python -m flan_jax.prepare --datasets={dataset} --to={prepared_dir}."
        )
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if limit is not None and len(rows) >= limit:
                break
            try:
                row = json.loads(line)
                rows.append({"id": row["id"], "fields": row["fields"]})
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise FlanError(
                    f"{path} line {number} is broken; prepare {dataset!r} again with --overwrite."
                ) from error
    return rows
