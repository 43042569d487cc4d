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

RANKED = "_score_eval"  # at the end of a rank task's name, as in T5 and T0


def _text(value: Any) -> str:
    return records.decoded(value) if isinstance(value, bytes) else str(value)


def _texts(example: Mapping[str, Any], name: str) -> list[str]:
    return [_text(value) for value in example[name]] if name in example else []


def _own_word(answer: str, example: Mapping[str, Any]) -> str:
    """An answer in the dataset's own words, which its metrics use, if the style has others."""
    words = dict(zip(_texts(example, "options"), _texts(example, "words"), strict=False))
    return words.get(answer.strip(), answer)


def target(answer: str, example: Mapping[str, Any], needs: Sequence[str] = ()) -> Any:
    """The target of an example, in the form that the dataset's metrics take.

    Args:
      answer: the target's text. For an inverted template it is the only reference, because the template does not ask
        for the record's answer.
      example: the example, with `references` if there are several.
      needs: further fields that the metrics need.
    """
    is_forward = bool(example.get("is_forward", True))
    references = _texts(example, "references") if is_forward else []
    references = references or [_own_word(answer, example)]
    if needs:
        return {"references": references, **{name: _text(example[name]) for name in needs}}
    return references


def needed(record: catalog.Dataset) -> list[str]:
    """The fields that a dataset's metrics need besides the references."""
    return sorted({field for name in record.metrics for field in metrics.metric(name).needs})


def postprocess(
    output: str,
    is_target: bool = False,
    example: Mapping[str, Any] | None = None,
    *,
    record: catalog.Dataset,
    **_: Any,
) -> Any:
    """SeqIO's post-processor for a task whose answers are generated."""
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
    """SeqIO's post-processor for a rank task: the target of an option that `ranked` takes."""
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
    """A metric in SeqIO's form (targets, scores) over the options that a model scores highest.

    Args:
      name: a metric of `flan_jax.metrics`, which compares the best options with the answers.
    """
    return functools.partial(_rank_classification, name=metrics.metric(name).name)  # tasks are pickled


def _rank_classification(
    targets: Sequence[Mapping[str, Any]], scores: Sequence[float], name: str = "accuracy"
) -> dict[str, float]:
    """A metric's values. Of equal scores, the first option counts.

    Args:
      targets: for each option, the result of `postprocess_option`; an example's options stand together.
      scores: the log-likelihood of each option.
      name: the metric's name.

    Raises:
      FlanError: a score is not finite, or their number differs from that of the options.
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
