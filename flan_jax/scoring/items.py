"""Scores plain items in JSON lines: a prompt with options in, log-likelihoods out. No template, no catalog."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flan_jax import distributed
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, NotFiniteError
from flan_jax.files import AnyPath, ready, user_path, whole_file
from flan_jax.json_lines import JsonLine, read_json_lines, refuse_same_ids, to_json
from flan_jax.protocol import JOINED
from flan_jax.scoring.scorer import Scorer
from flan_jax.scoring.trees import Tree, try_trees


@dataclasses.dataclass(frozen=True)
class Item:
    """A line of the input.

    Attributes:
      id: any JSON value; the output repeats it.
      prompt: the context.
      options: the continuations. With the joint "joined", an option that needs a leading space has it itself.
    """

    id: Any
    prompt: str
    options: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Done:
    """How many items there were, and how many of them could not be scored."""

    items: int
    errors: int


def read_items(path: str | AnyPath) -> list[Item]:
    """Reads JSON lines of {"id", "prompt", "options"}. Blank lines and further fields are ignored.

    Raises:
      FlanError: the file cannot be read, a line is wrong, or two lines have the same id. The message names file, line
        and field.
    """
    try:
        with user_path(path).open("rb") as file:
            read = read_json_lines(file, str(path))
            numbered = [(line.number, _item(line, f"{path} line {line.number}")) for line in read]
    except OSError as error:
        raise FlanError(f"cannot read items from {path}: {error.strerror}.") from error
    refuse_same_ids(((number, item.id) for number, item in numbered), str(path))
    items = [item for _, item in numbered]
    if not items:
        raise FlanError(f'{path} holds no items; give one JSON line of {{"id", "prompt", "options"}} each.')
    return items


def _item(line: JsonLine, where: str) -> Item:
    if line.problem:
        raise FlanError(f"{where} is not JSON in UTF-8 that can be read: {line.problem}.")
    values = line.value
    if not isinstance(values, dict):
        raise FlanError(f'{where} is no JSON object; it needs the fields "id", "prompt" and "options".')
    for name in ("id", "prompt", "options"):
        if name not in values:
            raise FlanError(f"{where}: field {name!r} is missing.")
    prompt, options = values["prompt"], values["options"]
    if not isinstance(prompt, str):
        raise FlanError(f"{where}: field 'prompt' must be a string.")
    if not isinstance(options, list) or not options or not all(isinstance(o, str) for o in options):
        raise FlanError(f"{where}: field 'options' must be a list of one or more strings.")
    return Item(values["id"], prompt, tuple(options))


def score_items(
    items_path: str | AnyPath,
    output_path: str | AnyPath,
    scorer: Scorer,
    tokenizer: Tokenizer,
    joint: str,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = print,
) -> Done:
    """Scores a file of items.

    With the joint "joined", prompt and option are one text as they are, and are tokenized together. Any other joint
    replaces the white space between them.

    For each item, in order, a line {"id", "loglikelihood", "tokens", "bytes", "is_greedy"} is written; the last four
    are lists over the options. If a prompt had to lose its left end, the line also has "cut_tokens". If an item cannot
    be scored because an option has no tokens or leaves no room for the prompt, its line is {"id", "error"}. The output
    appears whole or not at all.

    Args:
      items_path: see `read_items`.
      output_path: the JSON lines to write.
      scorer: the scorer.
      tokenizer: the model's vocabulary.
      joint: what stands between prompt and option: "joined", "eos", "newline" or "space" (`flan_jax.protocol`).
      progress: called with (options done, options in all).
      warn: called with a line if prompts were cut.

    Returns:
      How many items there are, and how many of them have an error.

    Raises:
      FlanError: bad input, found before scoring starts; scores that are not finite; or an output that cannot be
        written.
    """
    items = read_items(items_path)
    output = ready(user_path(output_path, "the output"), [items_path])
    texts = [_apart(item, joint) for item in items]
    trees = try_trees(
        tokenizer,
        [prompt for prompt, _ in texts],
        [options for _, options in texts],
        joint=joint,
        max_length=scorer.max_length,
    )
    good = [number for number, tree in enumerate(trees) if isinstance(tree, Tree)]
    cut = sum(trees[number].cut_tokens > 0 for number in good)
    if cut and distributed.is_primary():
        warn(f"{cut} of {len(items)} prompts are longer than {scorer.max_length} tokens and lose their left end.")
    try:
        every = dict(zip(good, scorer.score([trees[number] for number in good], progress), strict=True))
    except NotFiniteError as error:
        raise FlanError(f"item {items[good[error.number]].id!r} of {items_path}: {error}") from error
    done = Done(len(items), len(items) - len(good))
    if not distributed.is_primary():
        return done
    with whole_file(output) as file:
        for number, (item, tree) in enumerate(zip(items, trees, strict=True)):
            line: dict[str, Any] = {"id": item.id}
            if number not in every:
                line["error"] = str(tree)
            else:
                line |= dataclasses.asdict(every[number])
                line["bytes"] = line.pop("num_bytes")
                if tree.cut_tokens:
                    line["cut_tokens"] = tree.cut_tokens
            file.write(to_json(line, ascii_only=False, what=f"item {item.id!r}") + "\n")
    return done


def _apart(item: Item, joint: str) -> tuple[str, tuple[str, ...]]:
    """Prompt and options without the white space between them, which the joint replaces."""
    if joint == JOINED:
        return item.prompt, item.options
    return item.prompt.rstrip(), tuple(option.lstrip() for option in item.options)
