"""How SeqIO's Evaluator scores our tasks: targets for the metrics, and metrics of ranked options."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax import catalog, metrics
from flan_jax.data import records
from flan_jax.errors import FlanError
from flan_jax.wording import counted

RANKED = "_score_eval"  # at the end of a rank task's name, as in T5's and T0's


def _text(value: Any) -> str:
    return records.decoded(value) if isinstance(value, bytes) else str(value)


def _texts(example: Mapping[str, Any], name: str) -> list[str]:
    return [_text(value) for value in example[name]] if name in example else []


def _own_word(answer: str, example: Mapping[str, Any]) -> str:
    """An answer in the dataset's own words, which its metrics know, where the style has others."""
    words = dict(zip(_texts(example, "options"), _texts(example, "words"), strict=False))
    return words.get(answer.strip(), answer)


def target(answer: str, example: Mapping[str, Any], needs: Sequence[str] = ()) -> Any:
    """What the metrics of a dataset take as an example's target.

    Args:
      answer: the target's text. Of an inverted template it is the only reference: it asks for something else than the
        record's answer.
      example: with `references` where there are several.
      needs: fields that the metrics take besides.
    """
    is_forward = bool(example.get("is_forward", True))
    references = _texts(example, "references") if is_forward else []
    references = references or [_own_word(answer, example)]
    if needs:
        return {"references": references, **{name: _text(example[name]) for name in needs}}
    return references


def needed(record: catalog.Dataset) -> list[str]:
    """The fields that any metric of a dataset takes beside the references."""
    return sorted({field for name in record.metrics for field in metrics.metric(name).needs})


def postprocess(
    output: str,
    is_target: bool = False,
    example: Mapping[str, Any] | None = None,
    *,
    record: catalog.Dataset,
    **_: Any,
) -> Any:
    """SeqIO's post-processor of a task whose answers are generated."""
    if example is None:
        return output
    return target(output, example, needed(record)) if is_target else _own_word(output, example)


def postprocess_option(
    output: Any,
    is_target: bool = False,
    example: Mapping[str, Any] | None = None,
    *,
    record: catalog.Dataset,
    **_: Any,
) -> Any:
    """SeqIO's post-processor of a rank task: what `ranked` takes as the target of an option."""
    if not is_target or example is None:
        return output
    number, option = (int(i) for i in example["idx"])
    return {
        "example": number,
        "option": option,
        "text": _own_word(_text(output), example),
        "is_correct": bool(example["is_correct"]),
        "target": target(_text(example["answer"]), example, needed(record)),
    }


def ranked(name: str) -> Callable[..., dict[str, float]]:
    """A metric over the options that a model scores highest, as SeqIO wants it: (targets, scores).

    Args:
      name: of a metric in `flan_jax.metrics`, which compares the best options with the answers.
    """
    return functools.partial(_rank_classification, name=metrics.metric(name).name)  # tasks go through pickle


def _rank_classification(
    targets: Sequence[Mapping[str, Any]], scores: Sequence[float], name: str = "accuracy"
) -> dict[str, float]:
    """A metric's values; of equal scores the first option counts.

    Args:
      targets: of each option, as `postprocess_option` makes them; an example's options stand together.
      scores: log-likelihood of each option.
      name: of the metric.

    Raises:
      FlanError: a score that is not finite, or not one for each option.
    """
    if len(targets) != len(scores):
        raise FlanError(
            f"metric {name} of {counted(len(targets), 'options')} and {counted(len(scores), 'scores')}: give one for "
            "each."
        )
    wanted, given = [], []
    pairs = zip(targets, map(float, scores), strict=True)
    for number, options in itertools.groupby(pairs, key=lambda pair: pair[0]["example"]):
        found = list(options)
        if bad := [score for _, score in found if not math.isfinite(score)]:
            raise FlanError(f"example {number}: the score of an option is {bad[0]}; no option is the highest.")
        best, _ = max(found, key=lambda pair: pair[1])
        wanted.append(best["target"])
        given.append(best["text"])
    return metrics.metric(name)(wanted, given)
