"""Mixtures by name, as sets of datasets: what is tuned on, with clusters held out, and at which rates."""

from __future__ import annotations

from flan_jax.catalog import known
from flan_jax.catalog.known import clusters, datasets, held_out_together
from flan_jax.catalog.records import MIXTURE, PAPER_CLUSTERS, Dataset
from flan_jax.errors import FlanError, unknown_name

RATE_CAP = 3_000  # examples-proportional mixing caps its rates here (paper, section 2.4)

# The study of the number of clusters (paper, section 4.1). NLI, closed-book QA and commonsense are held out; the others
# join, largest first. The seventh is a part of one of our clusters. What is too close to the three never joins.
_STUDY_CLUSTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("summarization", ()),
    ("translation", ()),
    ("reading_comprehension", ()),
    ("sentiment", ()),
    ("structure_to_text", ()),
    ("coreference", ()),
    ("miscellaneous", ("coqa", "quac")),
)


def mixture_names() -> tuple[str, ...]:
    """The names of the mixtures: `flan`, `flan_without_<cluster>`, and `flan_first_<n>_clusters` of the study.

    Each name may end in `_<n>_datasets`, for the first n datasets of each of its clusters.
    """
    study = (f"flan_first_{n}_clusters" for n in range(1, len(_STUDY_CLUSTERS) + 1))
    return ("flan", *(f"flan_without_{c.name}" for c in PAPER_CLUSTERS), *study)


def mixture(name: str) -> tuple[Dataset, ...]:
    """The datasets of a mixture that can be trained on.

    Args:
      name: one of the names below, without a style at its end, which `styles.split_name` takes off.

    The names:

    - "flan": all datasets.
    - "flan_without_<cluster>": all but those that the hold-out rule takes out.
    - "flan_first_<n>_clusters": the paper's study of the number of clusters (section 4.1).
    - Any of these with "_<n>_datasets" at its end: the first n datasets of each cluster in the catalog's order, with
      all their variants (paper, appendix B.1).
    - "flan_<dataset>" or "<dataset>": one dataset.

    Raises:
      FlanError: nothing has that name; the message has near matches.

    Example:
      >>> "rte" in {record.name for record in mixture("flan_without_nli")}
      False
    """
    there = known.loaded()
    for candidate in (name, name.removeprefix("flan_")):
        if candidate in there:
            return (there[candidate],)
    found = MIXTURE.fullmatch(name)
    if found is None:
        if name in {c.name for c in clusters()}:
            raise FlanError(f"{name!r} is a cluster; the mixture of its datasets is {{'parts': [{{'of': {name!r}}}]}}.")
        raise unknown_name(
            "mixture", name, [*mixture_names(), *(f"flan_{d}" if name.startswith("flan_") else d for d in there)]
        )
    members = tuple(d for d in datasets() if d.in_flan and d.splits.train)
    if found["without"]:
        out = held_out_together(found["without"])
        members = tuple(d for d in members if d.cluster not in out)
    elif found["first"]:
        members = _first_clusters(int(found["first"]), members)
    return first_datasets(int(found["datasets"]), members) if found["datasets"] else members


def _first_clusters(count: int, members: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
    if not 1 <= count <= len(_STUDY_CLUSTERS):
        raise FlanError(f"mixture flan_first_{count}_clusters: the study has 1 to {len(_STUDY_CLUSTERS)} clusters.")
    wanted = dict(_STUDY_CLUSTERS[:count])
    return tuple(d for d in members if d.cluster in wanted and (not wanted[d.cluster] or d.name in wanted[d.cluster]))


def first_datasets(count: int, members: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
    """The first `count` datasets of each cluster among `members`, with all their variants.

    Raises:
      FlanError: the count is 0.
    """
    if not count:
        raise FlanError("a mixture needs 1 or more datasets a cluster, not 0.")
    taken: dict[str, dict[str, None]] = {}
    for d in members:
        names = taken.setdefault(d.cluster, {})
        if len(names) < count:
            names[d.paper_dataset] = None
    return tuple(d for d in members if d.paper_dataset in taken[d.cluster])


def mixing_rate(num_examples: int, cap: int | None = RATE_CAP, temperature: float = 1.0) -> int | float:
    """The examples-proportional mixing rate: min(n, cap) ** (1 / temperature) (paper, section 2.4).

    Args:
      num_examples: n, the number of training examples; at most 30,000.
      cap: the paper's is 3,000. With 1, all datasets have the same rate; None sets no cap.
      temperature: the paper's is 1.

    Example:
      >>> mixing_rate(250), mixing_rate(30_000), mixing_rate(30_000, cap=None, temperature=2.0)
      (250, 3000, 173.20508075688772)
    """
    rate = num_examples if cap is None else min(num_examples, cap)
    return rate if temperature == 1 else rate ** (1 / temperature)
