"""ReCoRD: F1 and exact match of the entity (Zhang et al. 2018).

An option is an entity with the rest of the sentence. The rest is the same in all options, so it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flan_jax.metrics import Metric, percentage, references
from flan_jax.metrics.squad import best_exact, best_f1, normalize_answer

_Score = Callable[[Any, str, Callable[[str], str]], float]


def _of_entity(score: _Score, target: Mapping[str, Any], prediction: str) -> float:
    def entity(text: str) -> str:
        return text.strip().removesuffix(target["rest"].strip())

    return score([entity(r) for r in references(target)], entity(prediction), normalize_answer)


def record(targets: Sequence[Mapping[str, Any]], predictions: Sequence[str]) -> dict[str, float]:
    """F1 and exact match of the entities as in SQuAD, in percent.

    Args:
      targets: {"references", "rest"} of each example; `rest` is what follows the entity in references and options.
      predictions: an entity each, with or without the rest.
    """
    pairs = list(zip(targets, predictions, strict=True))
    return {
        "f1": percentage([_of_entity(best_f1, t, p) for t, p in pairs]),
        "em": percentage([_of_entity(best_exact, t, p) for t, p in pairs]),
    }


METRIC = Metric(
    name="record",
    version="flan_jax 1, SQuAD's normalization of the entity",
    headline="f1",
    secondary=("em",),
    compute=record,
    example=lambda target, prediction: _of_entity(best_f1, target, prediction),
    needs=("rest",),
)
