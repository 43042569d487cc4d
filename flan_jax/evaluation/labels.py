"""Labels of scores: zero-shot or few-shot, and held out, seen or unknown.

The style gives the first part, the checkpoint's manifest the second. Tables, pages, JSON and plots show the same label:
"zero-shot, held out", "few-shot (5), held out", "zero-shot, seen", "few-shot (5), unknown".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flan_jax import catalog, styles
from flan_jax.checkpoint.manifest import trained_clusters

HELD_OUT = "held out"
SEEN = "seen"
UNKNOWN = "unknown"
MIXED = "mixed"  # the label of several scores that differ

STATUSES = (HELD_OUT, SEEN, UNKNOWN, MIXED)
_EARLIER = {"zero-shot, held out": HELD_OUT}  # earlier versions used these words for every style


def status(record: catalog.Dataset, tuning: Mapping[str, Any]) -> str:
    """Whether a checkpoint was tuned on a dataset's cluster, by the paper's rule: "held out", "seen" or "unknown".

    It is "unknown" if the dataset's cluster or part of what the model was tuned on is unknown, unless the dataset or
    its cluster was certainly seen.

    Args:
      record: the dataset.
      tuning: `tuning` of the checkpoint's manifest.
    """
    trained = trained_clusters(tuning)
    if trained is not None and catalog.is_held_out(record, trained):
        return HELD_OUT
    known = tuning["clusters"] if trained is None else trained
    if catalog.shares_cluster(record, known) or catalog.whole(record.name) in tuning["datasets"]:
        return SEEN
    return UNKNOWN


def shots(style: styles.TextStyle) -> str:
    """ "zero-shot", or for example "few-shot (5)" for up to five exemplars."""
    return f"few-shot ({style.shots})" if style.shots else "zero-shot"


def label(style: styles.TextStyle, found: str) -> str:
    """The label of a score.

    Args:
      style: how records became prompts.
      found: "held out", "seen", "unknown" or "mixed".
    """
    return f"{shots(style)}, {found}"


def of_figures(figures: Mapping[str, Any], style: styles.TextStyle) -> str:
    """The label of a dataset's figures. Earlier versions wrote "zero-shot" for few-shot runs too; that is corrected.

    Args:
      figures: the figures of a dataset or a cluster in results.json.
      style: the run's style.
    """
    found = figures.get("status")
    found = _EARLIER.get(found, found)
    return figures.get("label") or label(style, found if found in STATUSES else UNKNOWN)


def joint(labels: Iterable[str]) -> str:
    """The label of a mean: the common label, with "mixed" in each part that differs."""
    parts = [one.rpartition(", ") for one in labels]
    asked, found = {head for head, _, _ in parts}, {tail for _, _, tail in parts}
    heads = asked.pop() if len(asked) == 1 else MIXED
    tails = found.pop() if len(found) == 1 else MIXED
    return heads if heads == tails else f"{heads}, {tails}"


def status_of(words: str) -> str:
    """The status in a label: "held out", "seen", "unknown" or "mixed"; empty if the text is no label."""
    tail = words.rpartition(", ")[2]
    return tail if tail in STATUSES and (tail != words or words == MIXED) else ""
