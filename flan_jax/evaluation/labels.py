"""What a score is called: zero-shot or few-shot, of a dataset that was held out, seen, or neither for sure.

One label, of the style that asked and the status that the checkpoint's manifest gives, stands in tables, pages, JSON
and plots: "zero-shot, held out", "few-shot (5), held out", "zero-shot, seen", "few-shot (5), unknown".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flan_jax import catalog, styles
from flan_jax.checkpoint.manifest import Manifest

HELD_OUT = "held out"
SEEN = "seen"
UNKNOWN = "unknown"
MIXED = "mixed"  # of several scores that differ

_STATUSES = (HELD_OUT, SEEN, UNKNOWN, MIXED)
_EARLIER = {"zero-shot, held out": HELD_OUT}  # said of every style


def status(record: catalog.Dataset, manifest: Manifest) -> str:
    """Whether a checkpoint was tuned on a dataset's clusters, by the paper's rule: "held out", "seen" or "unknown".

    Where the dataset's cluster is not known, or one of those it was tuned on, or not all of what it was tuned on, only
    "seen" can be said for sure: of the dataset itself, and of a cluster that was seen anyway.
    """
    trained = manifest.trained_clusters
    if trained is not None and catalog.is_held_out(record, trained):
        return HELD_OUT
    known = manifest.tuning["clusters"] if trained is None else trained
    if catalog.shares_cluster(record, known) or catalog.whole(record.name) in manifest.tuning["datasets"]:
        return SEEN
    return UNKNOWN


def shots(style: styles.TextStyle) -> str:
    """ "zero-shot", or "few-shot (5)" for up to five exemplars."""
    return f"few-shot ({style.shots})" if style.shots else "zero-shot"


def label(style: styles.TextStyle, found: str) -> str:
    """The label of a score.

    Args:
      style: how records became prompts.
      found: "held out", "seen", "unknown" or "mixed".
    """
    return f"{shots(style)}, {found}"


def of_figures(figures: Mapping[str, Any], style: styles.TextStyle) -> str:
    """The label of a dataset's figures, those of earlier versions too, whose status said "zero-shot" of few-shot runs.

    Args:
      figures: of a dataset or a cluster, as results.json has them.
      style: of the run.
    """
    found = figures.get("status")
    found = _EARLIER.get(found, found)
    return figures.get("label") or label(style, found if found in _STATUSES else UNKNOWN)


def joint(labels: Iterable[str]) -> str:
    """The label of a mean: theirs where all are the same; otherwise "mixed" in what differs."""
    parts = [one.rpartition(", ") for one in labels]
    asked, found = {head for head, _, _ in parts}, {tail for _, _, tail in parts}
    heads = asked.pop() if len(asked) == 1 else MIXED
    tails = found.pop() if len(found) == 1 else MIXED
    return heads if heads == tails else f"{heads}, {tails}"


def status_of(words: str) -> str:
    """The status in a label: "held out", "seen", "unknown" or "mixed"; empty where the text is no label."""
    tail = words.rpartition(", ")[2]
    return tail if tail in _STATUSES and (tail != words or words == MIXED) else ""
