"""F1 averaged over the answers, as in SuperGLUE for CB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flan_jax.lazy import lazy_imports
from flan_jax.metrics import Metric, library, references

with lazy_imports():
    from sklearn import metrics as sklearn_metrics


def mean_multiclass_f1(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
    """F1 of each answer among the targets, averaged, in percent."""
    wanted, given = [references(t)[0].strip() for t in targets], [p.strip() for p in predictions]
    f1 = sklearn_metrics.f1_score(wanted, given, labels=sorted(set(wanted)), average="macro", zero_division=0)
    return {"mean_f1": 100.0 * float(f1)}


METRIC = Metric(
    name="mean_multiclass_f1",
    version=f"{library('scikit-learn')}, macro F1 over the targets' labels",
    headline="mean_f1",
    compute=mean_multiclass_f1,
)
