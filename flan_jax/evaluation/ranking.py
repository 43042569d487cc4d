"""Units whose options are ranked by their likelihoods: prompts to trees, scores to predictions."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from flan_jax import metrics, styles, templates
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import NotFiniteError
from flan_jax.evaluation import prompts
from flan_jax.evaluation.units import InvalidError, Unit
from flan_jax.scoring.scorer import OptionScores, Scorer
from flan_jax.scoring.trees import Tree, share_prefix

_PREMISE = {styles.GPT3: "A:"}  # what stands before an option without its prompt, by the words of the style


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A unit that waits to be scored.

    Attributes:
      unit: the unit.
      lines: its predictions, without their scores.
      trees: a tree for each.
      bare: the tree of each line's options without its prompt; empty where that is not asked for.
    """

    unit: Unit
    lines: list[dict[str, Any]]
    trees: list[Tree]
    bare: list[Tree]


def render(tokenizer: Tokenizer, unit: Unit, max_length: int, separator: str, pmi: bool = False) -> Rendered:
    """Renders the prompts of a unit and builds their trees.

    Args:
      tokenizer: the model's vocabulary.
      unit: of a dataset with options.
      max_length: longest prompt with its longest option, in tokens.
      separator: "eos", "newline" or "space".
      pmi: whether options are scored without their prompts too.

    Raises:
      FlanError: instruction and options alone exceed `max_length`.
    """
    lines, trees, bare, by_prefix = [], [], [], collections.defaultdict(list)
    template = unit.builder.templates[unit.number]
    words = unit.builder.style.words
    kept = ("references", *metrics.needs(unit.builder.record.metrics))
    for row in unit.rows:
        example = unit.builder.build(row["id"], row["fields"], unit.number)
        options, answer = list(example.fields[templates.OPTIONS]), example.fields["answer"]
        prompt = prompts.fit_prompt(
            tokenizer, template, example.fields, max_length, prefix=example.prefix, separator=separator
        )
        trees.append(prompts.scoring_tree(tokenizer, prompt.inputs, options, separator))
        if pmi:
            bare.append(prompts.scoring_tree(tokenizer, _PREMISE.get(words, ""), options, separator))
        line = unit.line(row, prompt.inputs, example.shots, prompt.cut_tokens)
        line |= {"options": options, "answer": options.index(answer)}
        if words == styles.GPT3:  # the metrics know the dataset's own words, which stand in the same order
            line["words"] = list(row["fields"][templates.OPTIONS])
        line |= {name: row["fields"][name] for name in kept if name in row["fields"]}
        by_prefix[example.prefix].append(len(lines))
        lines.append(line)
    if unit.builder.style.shared:
        for numbers in by_prefix.values():
            for i, tree in zip(numbers, share_prefix([trees[i] for i in numbers]), strict=True):
                trees[i] = tree
    return Rendered(unit, lines, trees, bare)


def rank(scorer: Scorer, waiting: Sequence[Rendered]) -> list[list[dict[str, Any]] | InvalidError]:
    """Scores units together, so that batches are full, and writes their predictions.

    Returns:
      The predictions of each unit; or, where a score is NaN or infinite, which, and then nothing is written of it.
    """
    every = iter(_scored(scorer, [tree for rendered in waiting for tree in rendered.trees]))
    distinct = list(dict.fromkeys(tree for rendered in waiting for tree in rendered.bare))
    unconditional = dict(zip(distinct, _scored(scorer, distinct), strict=True)) if distinct else {}
    found: list[list[dict[str, Any]] | InvalidError] = []
    for rendered in waiting:
        scores = [next(every) for _ in rendered.lines]
        alone = [unconditional[tree] for tree in rendered.bare]
        bad = [i for i, score in enumerate(scores) if score is None]
        bad += [i for i, score in enumerate(alone) if score is None]
        if bad:
            found.append(InvalidError(rendered.unit, rendered.lines[min(bad)]["id"], "scores"))
            continue
        predictions = [line | _scores(score) for line, score in zip(rendered.lines, scores, strict=True)]
        for line, score in zip(predictions, alone, strict=False):
            line["unconditional"] = list(score.loglikelihood)
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
