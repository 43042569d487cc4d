"""Units whose options are ranked by their likelihoods: from prompts to trees, from scores to predictions."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import metrics, styles, templates, ways
from flan_jax.data import trimming
from flan_jax.data.builder import Example
from flan_jax.data.examples import UnusableError
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import NotFiniteError
from flan_jax.evaluation.units import InvalidError, Left, Predictions, Unit
from flan_jax.scoring.scorer import OptionScores, Scorer
from flan_jax.scoring.trees import Tree, UnscorableError, build_tree, share_prefix

CANNOT_ASK = (UnusableError, trimming.TooLongError, UnscorableError, styles.NotShownError)
_BESIDE = 3  # most tokens besides a prompt and what is scored: BOS, the joint and EOS


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A unit that is ready to be scored.

    Attributes:
      unit: the unit.
      lines: its predictions, without scores.
      trees: a tree for each line.
      further: the trees of each reading (`flan_jax.ways`) by its key: for each line, trees with branches in the
        options' order.
      left: examples that cannot be asked; they have no line and no trees.
    """

    unit: Unit
    lines: list[dict[str, Any]]
    trees: list[Tree]
    further: dict[str, list[list[Tree]]]
    left: tuple[Left, ...] = ()

    @property
    def of_readings(self) -> list[Tree]:
        """The trees of all readings, each once."""
        return list(dict.fromkeys(t for lines in self.further.values() for trees in lines for t in trees))


def render(
    tokenizer: Tokenizer, unit: Unit, joint: str, max_length: int, readings: Sequence[ways.Reading] = ()
) -> Rendered:
    """Renders the prompts of a unit and builds their trees.

    Args:
      tokenizer: the model's vocabulary.
      unit: a unit of a dataset with options.
      joint: what stands between prompt and option.
      max_length: most tokens of a prompt with its longest option that the scorer takes.
      readings: what is scored besides prompts and options.
    """
    lines: list[Any] = []
    trees: list[Any] = []
    left: list[Any] = []
    by_prefix: dict[Any, list[Any]] = collections.defaultdict(list)
    further: dict[str, list[list[Tree]]] = {reading.key: [] for reading in readings}
    asked = unit.builder.protocol
    kept = ("references", *metrics.needs(asked.record.metrics))
    for row in unit.rows:
        try:
            prompt, example = unit.prompt(tokenizer, row)
            options, answer = list(example.fields[templates.OPTIONS]), example.fields["answer"]
            scored = asked.scored(example.fields)
            tree = _tree(tokenizer, prompt.inputs, scored, joint, max_length)
            own = _further_trees(tokenizer, unit, row, example, joint, max_length, readings)
        except CANNOT_ASK as error:
            left.append(Left(row["id"], unit.number, str(error)))
            continue
        trees.append(tree)
        for key, found in own.items():
            further[key].append(found)
        line = unit.line(row, prompt.inputs, example.shots, prompt.cut_tokens)
        line |= {"options": list(scored), "answer": options.index(answer)}
        if asked.style.words == styles.GPT3:  # metrics use the dataset's own words, in the same order
            line["words"] = list(row["fields"][templates.OPTIONS])
        elif asked.style.lettered_options:
            line["words"] = options
        line |= {name: row["fields"][name] for name in kept if name in row["fields"]}
        by_prefix[example.prefix].append(len(lines))
        lines.append(line)
    if unit.builder.style.shared:
        for numbers in by_prefix.values():
            for i, tree in zip(numbers, share_prefix([trees[i] for i in numbers]), strict=True):
                trees[i] = tree
            for of_lines in further.values():
                shared = iter(share_prefix([tree for i in numbers for tree in of_lines[i]]))
                for i in numbers:
                    of_lines[i] = [next(shared) for _ in of_lines[i]]
    return Rendered(unit, lines, trees, further, tuple(left))


def _tree(tokenizer: Tokenizer, prompt: str, texts: Sequence[str], joint: str, max_length: int) -> Tree:
    tree = build_tree(tokenizer, prompt, texts, joint=joint)
    if tree.longest > max_length:
        raise UnscorableError(f"prompt and longest option take {tree.longest} tokens; there is room for {max_length}.")
    return tree


def _further_trees(
    tokenizer: Tokenizer,
    unit: Unit,
    row: Mapping[str, Any],
    example: Example,
    joint: str,
    max_length: int,
    readings: Sequence[ways.Reading],
) -> dict[str, list[Tree]]:
    """The trees of a record's further readings, by the reading's key."""
    if not readings:
        return {}
    asked, has_bos = unit.builder.protocol, tokenizer.bos_id is not None

    def cut(pattern: str, prompts: Sequence[str]) -> str:
        longest = max(map(len, tokenizer.encode(list(prompts))))
        room = min(asked.input_room(has_bos), max_length - longest - _BESIDE)
        template = dataclasses.replace(asked.templates[unit.number], input=pattern)
        return trimming.fit(template, example.fields, "", tokenizer, room, asked.trim).inputs

    inputs = example.inputs.removeprefix(example.prefix)
    record = ways.Record(
        protocol=asked,
        number=unit.number,
        fields=example.fields,
        scored=asked.scored(example.fields),
        exemplars=unit.builder.exemplars(row["id"], unit.number, inputs, example.fields),
        cut=cut,
    )
    return {
        reading.key: [_tree(tokenizer, one.prompt, one.texts, joint, max_length) for one in reading.asked(record)]
        for reading in readings
    }


Known = dict[bytes, tuple[float, ...] | None]  # log-likelihoods of readings' trees, by the trees' digests


def rank(scorer: Scorer, waiting: Sequence[Rendered], known: Known | None = None) -> list[Predictions | InvalidError]:
    """Scores several units together, so that batches are full, and writes their predictions.

    Args:
      scorer: the scorer.
      waiting: the units; those of a dataset stand together.
      known: scores of readings' trees, which recur from template to template. The call adds its own and drops those
        that do not belong to the last unit's dataset.

    Returns:
      For each unit its predictions, or an error if a score is NaN or infinite. Nothing is written for such a unit.
    """
    every = iter(_scored(scorer, [tree for rendered in waiting for tree in rendered.trees]))
    known = {} if known is None else known
    digests = {tree: _digest(tree) for rendered in waiting for tree in rendered.of_readings}
    unknown = {digest: tree for tree, digest in digests.items() if digest not in known}
    for digest, score in zip(unknown, _scored(scorer, list(unknown.values())) if unknown else (), strict=True):
        known[digest] = None if score is None else score.loglikelihood
    found: list[Predictions | InvalidError] = []
    for rendered in waiting:
        scores = [next(every) for _ in rendered.lines]
        further = {
            key: [[known[digests[tree]] for tree in trees] for trees in lines]
            for key, lines in rendered.further.items()
        }
        bad = [i for i, score in enumerate(scores) if score is None]
        bad += [i for of_lines in further.values() for i, several in enumerate(of_lines) if None in several]
        if bad:
            found.append(InvalidError(rendered.unit, rendered.lines[min(bad)]["id"], "scores"))
            continue
        lines = [line | _scores(line, score) for line, score in zip(rendered.lines, scores, strict=True)]
        for key, of_lines in further.items():
            for line, several in zip(lines, of_lines, strict=True):
                line[key] = [value for one in several for value in one]
        predictions = Predictions(lines, rendered.left)
        rendered.unit.write(predictions)
        found.append(predictions)
    last = waiting[-1].unit.name[0] if waiting else ""
    needed = {digests[t] for rendered in waiting if rendered.unit.name[0] == last for t in rendered.of_readings}
    for digest in known.keys() - needed:
        del known[digest]
    return found


def _digest(tree: Tree) -> bytes:
    """Identifies a tree by everything that its scores depend on."""
    tokens = (tree.prefix + tree.trunk, tree.branches, tree.unscored)
    return hashlib.blake2b(repr(tokens).encode(), digest_size=16).digest()


def _scored(scorer: Scorer, trees: Sequence[Tree]) -> Sequence[OptionScores | None]:
    try:
        return scorer.score(trees)
    except NotFiniteError as error:
        return error.found


def _scores(line: Mapping[str, Any], score: OptionScores) -> dict[str, list[float]]:
    return {
        "loglikelihood": list(score.loglikelihood),
        "tokens": list(score.tokens),
        "bytes": list(score.num_bytes),
        "characters": [len(option) for option in line["options"]],  # code points, as in lm-evaluation-harness
    }
