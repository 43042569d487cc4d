"""Plain items, one JSON line each: a prompt with options in, their log-likelihoods out. No template, no catalog."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flan_jax import distributed
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, NotFiniteError
from flan_jax.files import to_json
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import JOINED, build_trees


@dataclasses.dataclass(frozen=True)
class Item:
    """A line of the input.

    Attributes:
      id: any JSON value; given back as it came.
      prompt: the context.
      options: continuations, with a leading space of their own where one is wanted.
    """

    id: Any
    prompt: str
    options: tuple[str, ...]


def read_items(path: str | Path) -> list[Item]:
    """Reads JSON lines of {"id", "prompt", "options"}; blank lines are passed over, further fields ignored.

    Raises:
      FlanError: the file cannot be read, or a line is broken; it names file, line and field.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise FlanError(f"cannot read items from {path}: {error.strerror}.") from error
    items = [_item(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise FlanError(f'{path} holds no items; give one JSON line of {{"id", "prompt", "options"}} each.')
    return items


def _item(line: bytes, where: str) -> Item:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FlanError(f"{where} is not JSON in UTF-8: {error}.") from error
    if not isinstance(values, dict):
        raise FlanError(f'{where} is no JSON object; it needs the fields "id", "prompt" and "options".')
    for name in ("id", "prompt", "options"):
        if name not in values:
            raise FlanError(f"{where}: field {name!r} is missing.")
    prompt, options = values["prompt"], values["options"]
    if not isinstance(prompt, str):
        raise FlanError(f"{where}: field 'prompt' must be a string.")
    if not isinstance(options, list) or not options or not all(isinstance(o, str) and o for o in options):
        raise FlanError(f"{where}: field 'options' must be a list of one or more strings, none of them empty.")
    return Item(values["id"], prompt, tuple(options))


def score_items(
    items_path: str | Path,
    output_path: str | Path,
    scorer: Scorer,
    tokenizer: Tokenizer,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = print,
) -> int:
    """Scores a file of items; prompt and option are joined as they are and tokenized together.

    Writes a line {"id", "loglikelihood", "tokens", "bytes", "is_greedy"} for each item, in their order, the last four
    being lists over options. A prompt that had to lose its left end also has "cut_tokens". The output appears whole or
    not at all.

    Args:
      items_path: see `read_items`.
      output_path: JSON lines to write.
      scorer: the scoring engine.
      tokenizer: the model's vocabulary.
      progress: called with (options done, options in all).
      warn: called with a line if prompts were cut.

    Returns:
      The number of items.

    Raises:
      FlanError: bad input, found before scoring starts; scores that are not finite; an output that cannot be written.
    """
    items = read_items(items_path)
    output = Path(output_path)
    if output.is_dir():
        raise FlanError(f"cannot write scores to {output}: it is a folder; give a file name.")
    trees = build_trees(
        tokenizer,
        [item.prompt for item in items],
        [item.options for item in items],
        separator=JOINED,
        max_length=scorer.max_length,
    )
    cut = sum(tree.cut_tokens > 0 for tree in trees)
    if cut and distributed.is_primary():
        warn(f"{cut} of {len(items)} prompts are longer than {scorer.max_length} tokens and lose their left end.")
    try:
        every = scorer.score(trees, progress)
    except NotFiniteError as error:
        raise FlanError(f"item {items[error.number].id!r} of {items_path}: {error}") from error
    if not distributed.is_primary():
        return len(items)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            for item, tree, scores in zip(items, trees, every, strict=True):
                line = {"id": item.id} | dataclasses.asdict(scores)
                line["bytes"] = line.pop("num_bytes")
                if tree.cut_tokens:
                    line["cut_tokens"] = tree.cut_tokens
                file.write(to_json(line, ascii_only=False, what=f"item {item.id!r}") + "\n")
        temporary.replace(output)
    except OSError as error:
        raise FlanError(f"cannot write scores to {output}: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(items)
