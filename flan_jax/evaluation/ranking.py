"""Units whose options are ranked by their likelihoods: prompts to trees, scores to predictions."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from flan_jax import styles, templates
from flan_jax.data import trimming
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import NotFiniteError
from flan_jax.evaluation.units import InvalidError, Left, Predictions, Unit
from flan_jax.scoring.scorer import OptionScores, Scorer
from flan_jax.scoring.trees import Tree, UnscorableError, build_tree, share_prefix


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A unit that waits to be scored.

    Attributes:
      unit: the unit.
      lines: its predictions, without their scores.
      trees: a tree for each.
      bare: the tree of each line's options without its prompt; empty where that is not asked for.
      left: examples that cannot be asked, which have none of these.
    """

    unit: Unit
    lines: list[dict[str, Any]]
    trees: list[Tree]
    bare: list[Tree]
    left: tuple[Left, ...] = ()


def render(tokenizer: Tokenizer, unit: Unit, joint: str, max_length: int, pmi: bool = False) -> Rendered:
    """Renders the prompts of a unit and builds their trees.

    Args:
      tokenizer: the model's vocabulary.
      unit: of a dataset with options.
      joint: what stands between prompt and option.
      max_length: longest prompt with its longest option that the scorer takes, in tokens.
      pmi: whether options are scored without their prompts too.
    """
    lines, trees, bare, left, by_prefix = [], [], [], [], collections.defaultdict(list)
    asked = unit.builder.protocol
    for row in unit.rows:
        try:
            prompt, example = unit.prompt(tokenizer, row)
            options, answer = list(example.fields[templates.OPTIONS]), example.fields["answer"]
            tree = build_tree(tokenizer, prompt.inputs, options, joint=joint)
            if tree.longest > max_length:
                raise UnscorableError(
                    f"prompt and longest option take {tree.longest} tokens; there is room for {max_length}."
                )
            premise = templates.fill(asked.premise(unit.number), example.fields) if pmi else ""
            alone = build_tree(tokenizer, premise, options, joint=joint) if pmi else None
        except (trimming.TooLongError, UnscorableError) as error:
            left.append(Left(row["id"], unit.number, str(error)))
            continue
        trees.append(tree)
        if alone is not None:
            bare.append(alone)
        line = unit.line(row, prompt.inputs, example.shots, prompt.cut_tokens)
        line |= {"options": options, "answer": options.index(answer)}
        if asked.style.words == styles.GPT3:  # the metrics know the dataset's own words, which stand in the same order
            line["words"] = list(row["fields"][templates.OPTIONS])
        line |= {name: row["fields"][name] for name in ("references", "question_id") if name in row["fields"]}
        by_prefix[example.prefix].append(len(lines))
        lines.append(line)
    if unit.builder.style.shared:
        for numbers in by_prefix.values():
            for i, tree in zip(numbers, share_prefix([trees[i] for i in numbers]), strict=True):
                trees[i] = tree
    return Rendered(unit, lines, trees, bare, tuple(left))


def rank(scorer: Scorer, waiting: Sequence[Rendered]) -> list[Predictions | InvalidError]:
    """Scores units together, so that batches are full, and writes their predictions.

    Returns:
      The predictions of each unit; or, where a score is NaN or infinite, which, and then nothing is written of it.
    """
    every = iter(_scored(scorer, [tree for rendered in waiting for tree in rendered.trees]))
    distinct = list(dict.fromkeys(tree for rendered in waiting for tree in rendered.bare))
    unconditional = dict(zip(distinct, _scored(scorer, distinct), strict=True)) if distinct else {}
    found: list[Predictions | InvalidError] = []
    for rendered in waiting:
        scores = [next(every) for _ in rendered.lines]
        alone = [unconditional[tree] for tree in rendered.bare]
        bad = [i for i, score in enumerate(scores) if score is None]
        bad += [i for i, score in enumerate(alone) if score is None]
        if bad:
            found.append(InvalidError(rendered.unit, rendered.lines[min(bad)]["id"], "scores"))
            continue
        lines = [line | _scores(score) for line, score in zip(rendered.lines, scores, strict=True)]
        for line, score in zip(lines, alone, strict=False):
            line["unconditional"] = list(score.loglikelihood)
        predictions = Predictions(lines, rendered.left)
        rendered.unit.write(predictions)
        found.append(predictions)
    return found


def _scored(scorer: Scorer, trees: Sequence[Tree]) -> Sequence[OptionScores | None]:
    try:
        return scorer.score(trees)
    except NotFiniteError as error:
        return error.found


def _scores(score: OptionScores) -> dict[str, list[float]]:
    return {
        "loglikelihood": list(score.loglikelihood),
        "tokens": list(score.tokens),
        "bytes": list(score.num_bytes),
    }
