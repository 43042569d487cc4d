"""Dev and test examples as prepared for the evaluator: one JSON line a record, its fields before any template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flan_jax.errors import FlanError
from flan_jax.json_lines import read_json_lines


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
    for line in read_json_lines(path):
        if limit is not None and len(rows) >= limit:
            break
        row = line.value
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not isinstance(row.get("fields"), dict):
            raise FlanError(f"{path} line {line.number} is broken; prepare {dataset!r} again with --overwrite.")
        rows.append({"id": row["id"], "fields": row["fields"]})
    return rows
