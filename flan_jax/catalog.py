"""What exists: clusters, datasets and mixtures, and the hold-out rule. No TensorFlow, no JAX.

A dataset is one record in its cluster's module under `tasks/`; adding one changes nothing else. Training takes one
example of each of its records. Evaluation asks all that a record gives (`Dataset.expand`): every turn of a
conversation, a translation in both directions. Directions are scored apart, so `evaluated` has a record for each, such
as `wmt14_enfr/fr-en`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import own_tasks
from flan_jax.errors import FlanError, unknown_name
from flan_jax.splits import Splits
from flan_jax.templates import OPTIONS, TEMPLATES_PER_DATASET, Gpt3Prompt, Template, placeholders

RATE_CAP = 3_000  # examples-proportional mixing stops growing here (paper, section 2.4)

CLASSIFICATION = "classification"
GENERATION = "generation"

VARIANT = "variant"  # the field of an example that says which variant of its dataset it belongs to
_OF = "/"  # between a dataset's name and its variant's
_USUAL = Splits()  # of datasets whose labelled test data are not public
PART = "#"  # between a record's id and which of its examples is meant: "12#3" is a third turn, "12#fr-en" a direction


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A group of datasets of one task type (paper, figure 3).

    Attributes:
      name: for example "nli".
      title: for tables and plots.
      held_out_with: clusters that also leave the tuning mixture when this one is evaluated (paper, appendix).
    """

    name: str
    title: str
    held_out_with: tuple[str, ...] = ()


_CLUSTERS = (
    Cluster("nli", "Natural language inference", ("paraphrase",)),
    Cluster("commonsense", "Commonsense", ("reading_comprehension_with_commonsense",)),
    Cluster("sentiment", "Sentiment"),
    Cluster("paraphrase", "Paraphrase", ("nli",)),
    Cluster("closed_book_qa", "Closed-book QA"),
    Cluster("reading_comprehension", "Reading comprehension", ("reading_comprehension_with_commonsense",)),
    Cluster(
        "reading_comprehension_with_commonsense",
        "Reading comprehension with commonsense",
        ("reading_comprehension", "commonsense"),
    ),
    Cluster("coreference", "Coreference"),
    Cluster("miscellaneous", "Miscellaneous"),
    Cluster("translation", "Translation"),
    Cluster("summarization", "Summarization"),
    Cluster("structure_to_text", "Structure to text"),
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One dataset, or one variant of a dataset, of the paper.

    Attributes:
      name: for example "rte"; a variant has its own, for example "mnli_matched".
      cluster: the name of its cluster; a `Cluster` makes one of one's own.
      source: TFDS name, config and version, for example "super_glue/rte:1.0.2".
      fields: maps a record of tensors in the true TFDS schema to string tensors: scalars for the templates; for
        classification also `options` (1-D) and `answer` (one of them); for generation `answer` and, where there are
        several, `references` (1-D).
      templates: exactly ten.
      kind: "classification" (scored by rank) or "generation".
      metrics: names of `flan_jax.metrics`.
      splits: the split rules.
      keep: maps a record to a boolean tensor; records where it is false are dropped. None keeps all.
      labels: (TFDS label name, label word) in TFDS's label order; empty where every example has its own options.
      spellings: (how copies of the data write a label, what TFDS has for it: a name, or a number, -1 for no label), for
        local JSONL.
      paper_dataset: the dataset's name in the paper; variants share it.
      folder: name of its folder in a folder of local JSONL data, and under `tasks/samples`; default `name`.
      manual: how to get the data, where TFDS cannot download it.
      in_flan: whether it is one of the paper's 62 (the optional extras are not).
      bare: the input without any instruction: its fields, a line each; default the fields of the first template.
      gpt3_prompt: how a model that was never tuned is asked; default the bare input between "Q:" and "A:".
      kin: (another dataset, how the two share text by their making), by its name here, its name in the paper, or the
        name of a dataset that is not here; said once of two, see `kin_of`.
      expand: maps a record, as `fields` does, to all examples of it that evaluation asks: the same fields, each with a
        first axis over the examples. `fields` gives one of them that can be used, if there is any. None where a record
        gives evaluation the one example that it gives training.
      variants: names for the examples that `expand` gives, as for the directions of a translation. Each is then scored
        by itself, and the field `variant` of every example says which it is. Without names, the examples of a record
        count as any others of their dataset.
      variant: which of them this record is; only of the records that `variants` makes.
      passage: the field whose text several examples may share, as the turns of a conversation do, or the questions on a
        passage: such examples are not independent, and intervals and tests draw them together. Empty where examples
        have nothing in common.
      schema: the fields of a row of local JSONL, where TFDS has no such dataset: "text", "texts" (several), "int",
        "float", or the names of a label, in order.
      own_cluster: the record of its cluster, where that is none of the paper's.
      nested: maps a row of local JSONL in another form of the data, such as a whole dialogue, to rows of the TFDS
        schema; a row that is in this schema comes back alone.
    """

    name: str
    cluster: str | Cluster
    source: str
    fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    templates: tuple[Template, ...]
    kind: str
    metrics: tuple[str, ...]
    splits: Splits = _USUAL
    keep: Callable[[Mapping[str, Any]], Any] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    spellings: tuple[tuple[str | bool, str | int], ...] = ()
    paper_dataset: str = ""
    folder: str = ""
    manual: str = ""
    in_flan: bool = True
    bare: str = ""
    gpt3_prompt: Gpt3Prompt | None = None
    kin: tuple[tuple[str, str], ...] = ()
    expand: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    variants: tuple[str, ...] = ()
    variant: str = ""
    passage: str = ""
    nested: Callable[[Mapping[str, Any]], list[Any]] | None = None
    schema: tuple[tuple[str, str | tuple[str, ...]], ...] = ()
    own_cluster: Cluster | None = None

    def __post_init__(self) -> None:
        if isinstance(self.cluster, Cluster):
            object.__setattr__(self, "own_cluster", self.cluster)
            object.__setattr__(self, "cluster", self.cluster.name)
        if not self.templates:
            raise FlanError(f"dataset {self.name!r} has no template: give 1 to {TEMPLATES_PER_DATASET}.")
        if isinstance(self.schema, Mapping):  # a record is hashed
            object.__setattr__(self, "schema", tuple(self.schema.items()))
        own = self.own_cluster is not None and self.own_cluster.name == self.cluster
        if not own and self.cluster not in {c.name for c in _CLUSTERS}:
            raise unknown_name("cluster", self.cluster, (c.name for c in _CLUSTERS), f"(dataset {self.name})")
        object.__setattr__(self, "paper_dataset", self.paper_dataset or self.name)
        object.__setattr__(self, "folder", self.folder or self.name)
        shown = dict.fromkeys(f for f in placeholders(self.templates[0].input) if f != OPTIONS)
        object.__setattr__(self, "bare", self.bare or "\n".join(f"{{{field}}}" for field in shown))
        if self.gpt3_prompt is None:
            object.__setattr__(self, "gpt3_prompt", Gpt3Prompt(f"Q: {self.bare}\nA:"))

    def __reduce_ex__(self, version: int) -> Any:
        """A record of the catalog is pickled as its name: what it is made of is code, which pickle may refuse."""
        return (dataset, (self.name,)) if _known().get(self.name) is self else super().__reduce_ex__(version)

    @property
    def is_averaged(self) -> bool:
        """Whether its scores are in its cluster's mean: one of the paper's, or in a cluster of one's own."""
        return self.in_flan or self.own_cluster is not None

    @property
    def label_words(self) -> tuple[str, ...]:
        """The label words in TFDS's label order."""
        return tuple(word for _, word in self.labels)

    @property
    def forward_templates(self) -> tuple[int, ...]:
        """Numbers of the forward templates, the ones that are evaluated."""
        return tuple(i for i, t in enumerate(self.templates) if t.is_forward)

    @property
    def tfds_name(self) -> str:
        """The source without its version."""
        return self.source.partition(":")[0]

    @property
    def tfds_version(self) -> str:
        """The source's version."""
        return self.source.partition(":")[2]


# ------------------------------------------------------------------------------------------------------- lookups


@functools.cache
def _papers() -> dict[str, Dataset]:
    """The datasets of this package."""
    found: dict[str, Dataset] = {}
    for module in _CLUSTERS:
        try:
            records = importlib.import_module(f"flan_jax.tasks.{module.name}").DATASETS
        except ModuleNotFoundError as error:
            if error.name != f"flan_jax.tasks.{module.name}":
                raise
            continue
        for record in records:
            if record.name in found:
                raise ValueError(f"dataset {record.name!r} is declared twice in tasks/")
            found[record.name] = record
    return found


@dataclasses.dataclass(frozen=True)
class _Own:
    """What modules outside this package add: datasets, their clusters, and the folder of each one's samples."""

    datasets: Mapping[str, Dataset]
    clusters: tuple[Cluster, ...]
    samples: Mapping[str, Path]


@functools.cache
def _own(names: str) -> _Own:
    """What the modules of these names add. None of their datasets is one of the paper's, whatever it says."""
    datasets: dict[str, Dataset] = {}
    clusters: dict[str, Cluster] = {}
    samples: dict[str, Path] = {}
    for module in own_tasks.modules(names):
        records = getattr(module, "DATASETS", None)
        if not isinstance(records, Sequence) or not all(isinstance(one, Dataset) for one in records):
            raise FlanError(f"tasks {module.__name__}: it needs DATASETS, a list of flan_jax.catalog.Dataset.")
        for record in records:
            where = f"tasks {module.__name__}: dataset {record.name!r}"
            if not _NAME.fullmatch(record.name):
                raise FlanError(f"{where}: a name has small letters, digits and _, and begins with a letter.")
            if record.name in _papers() or record.name in datasets or record.name in {c.name for c in _CLUSTERS}:
                raise FlanError(f"{where}: there is one of that name already; give it another.")
            if _MIXTURE.fullmatch(record.name) or record.name.startswith("flan_"):
                raise FlanError(f"{where}: names of mixtures begin so; give it another.")
            if not 1 <= len(record.templates) <= TEMPLATES_PER_DATASET:
                raise FlanError(f"{where} has {len(record.templates)} templates; give 1 to {TEMPLATES_PER_DATASET}.")
            cluster = record.own_cluster
            if cluster is not None:
                if cluster.name in {c.name for c in _CLUSTERS} or clusters.setdefault(cluster.name, cluster) != cluster:
                    raise FlanError(f"{where}: there is another cluster {cluster.name!r}; give yours another name.")
                if not _NAME.fullmatch(cluster.name):
                    raise FlanError(f"{where}: cluster {cluster.name!r} is no name of small letters, digits and _.")
            datasets[record.name] = dataclasses.replace(record, in_flan=False)
            samples[record.name] = own_tasks.samples_of(module)
    for cluster in clusters.values():
        for other in cluster.held_out_with:
            if other not in clusters and other not in {c.name for c in _CLUSTERS}:
                known = (*clusters, *(c.name for c in _CLUSTERS))
                raise unknown_name("cluster", other, known, f"(held out with cluster {cluster.name})")
    return _Own(datasets, tuple(clusters.values()), samples)


def _loaded() -> dict[str, Dataset]:
    """All datasets, those of modules outside this package last."""
    names = own_tasks.named()
    return {**_papers(), **_own(names).datasets} if names else _papers()


def own_samples(name: str) -> Path | None:
    """The folder of the samples of a dataset that a module outside this package adds; None for any other."""
    return _own(own_tasks.named()).samples.get(whole(name))


def clusters() -> tuple[Cluster, ...]:
    """All clusters, in the paper's order, and then those of one's own."""
    return (*_CLUSTERS, *_own(own_tasks.named()).clusters)


def cluster(name: str) -> Cluster:
    """The cluster of that name.

    Raises:
      FlanError: there is none; the message has near matches.
    """
    for candidate in clusters():
        if candidate.name == name:
            return candidate
    raise unknown_name("cluster", name, (c.name for c in clusters()))


def datasets(cluster_name: str | None = None) -> tuple[Dataset, ...]:
    """All datasets, or those of one cluster, in the catalog's order.

    Raises:
      FlanError: the cluster does not exist.
    """
    if cluster_name is None:
        return tuple(_loaded().values())
    wanted = cluster(cluster_name).name
    return tuple(d for d in _loaded().values() if d.cluster == wanted)


def dataset(name: str) -> Dataset:
    """The dataset of that name, or the variant: "wmt14_enfr", "wmt14_enfr/fr-en".

    Raises:
      FlanError: there is none; the message has near matches.
    """
    known = _known()
    if name not in known:
        raise unknown_name("dataset", name, known if _OF in name else _loaded())
    return known[name]


def named(name: str) -> tuple[Dataset, ...]:
    """The dataset or variant of that name, or the datasets of the cluster of that name.

    Raises:
      FlanError: there is neither; the message has near matches.
    """
    names = [c.name for c in clusters()]
    if name in names:
        return datasets(name)
    known = _known()
    if name not in known:
        raise unknown_name("dataset or cluster", name, [*(known if _OF in name else _loaded()), *names])
    return (known[name],)


def exists(name: str) -> bool:
    """Whether there is a dataset or a variant of that name."""
    return name in _known()


# ------------------------------------------------------------------------------------------------------- variants


def _known() -> dict[str, Dataset]:
    """Datasets and variants by name."""
    return _known_with(own_tasks.named())


@functools.cache
def _known_with(names: str) -> dict[str, Dataset]:
    found = dict(_loaded())
    for record in _loaded().values():
        found |= {one.name: one for one in variants(record)}
    return found


@functools.cache
def variants(record: Dataset) -> tuple[Dataset, ...]:
    """The records that evaluation asks and scores apart: those of a dataset's variants, or the dataset itself."""
    if not record.variants:
        return (record,)
    return tuple(_variant(record, number) for number in range(len(record.variants)))


def _variant(record: Dataset, number: int) -> Dataset:
    def fields(row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value[number] for name, value in record.expand(row).items()}

    name = record.variants[number]
    own = f"{record.name}{_OF}{name}"
    return dataclasses.replace(record, name=own, variant=name, fields=fields, expand=None, variants=())


def evaluated(cluster_name: str | None = None) -> tuple[Dataset, ...]:
    """What can be evaluated, of all clusters or of one: every dataset, or its variants in its place.

    Raises:
      FlanError: the cluster does not exist.
    """
    return tuple(one for record in datasets(cluster_name) for one in variants(record))


def whole(name: str) -> str:
    """The name of the dataset that a variant belongs to; any other name as it is."""
    base, _, variant = name.partition(_OF)
    return base if base in _loaded() and variant in _loaded()[base].variants else name


def record_id(example_id: str) -> str:
    """The id of the record that an example is of."""
    return example_id.partition(PART)[0]


def kin_of(name: str) -> dict[str, str]:
    """The datasets that share text with one by their making, whichever of the two says so, and how they are related.

    Kin outside the catalog, such as xquad, has its own name; variants of a dataset are not their own kin.
    """
    return _kin_of(whole(name), own_tasks.named())


@functools.cache
def _kin_of(name: str, names: str) -> dict[str, str]:
    own = {name, _loaded()[name].paper_dataset} if name in _loaded() else {name}
    found: dict[str, str] = {}
    for record in _loaded().values():
        for other, how in record.kin:
            others = [d.name for d in _loaded().values() if other in (d.name, d.paper_dataset)] or [other]
            if record.name in own:
                found |= dict.fromkeys(others, how)
            elif own & {other, *others}:
                found[record.name] = how
    return found


# -------------------------------------------------------------------------------------------- hold-out and mixtures


def held_out_together(cluster_name: str) -> frozenset[str]:
    """The clusters that leave the tuning mixture when `cluster_name` is evaluated, itself included.

    The paper's say so of each other; of a cluster of one's own it is enough that it names the other.
    """
    naming = (other.name for other in clusters() if cluster_name in other.held_out_with)
    return frozenset({cluster_name, *cluster(cluster_name).held_out_with, *naming})


def is_held_out(record: Dataset, trained_clusters: Collection[str]) -> bool:
    """Whether `record` is unseen by a model tuned on `trained_clusters` (paper, section 2.2 and appendix).

    Raises:
      FlanError: a cluster of somebody's own, which is not known here: nobody can tell what it holds out.
    """
    if unknown := sorted(set(trained_clusters) - {c.name for c in clusters()}):
        raise FlanError(
            f"whether {record.name} is held out cannot be told: the model was tuned on cluster {unknown[0]!r}, which "
            "is not known here; give --tasks=MODULE (or the macro TASKS) with it."
        )
    return not held_out_together(record.cluster) & set(trained_clusters)


# The study of how many clusters it takes (paper, section 4.1): NLI, closed-book QA and commonsense are held out, and
# others join, largest first. The seventh is a part of a cluster of ours; what is too close to the three never joins.
_STUDY_CLUSTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("summarization", ()),
    ("translation", ()),
    ("reading_comprehension", ()),
    ("sentiment", ()),
    ("structure_to_text", ()),
    ("coreference", ()),
    ("miscellaneous", ("coqa", "quac")),
)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MIXTURE = re.compile(
    r"flan(?:_without_(?P<without>\w+?)|_first_(?P<first>\d+)_clusters)?(?:_(?P<datasets>\d+)_datasets)?"
)


def mixture_names() -> tuple[str, ...]:
    """The names of the mixtures: `flan`, `flan_without_<cluster>`, and `flan_first_<n>_clusters` of the study.

    Each may end in `_<n>_datasets`, for the first n datasets of each of its clusters.
    """
    study = (f"flan_first_{n}_clusters" for n in range(1, len(_STUDY_CLUSTERS) + 1))
    return ("flan", *(f"flan_without_{c.name}" for c in _CLUSTERS), *study)


def mixture(name: str) -> tuple[Dataset, ...]:
    """The datasets of a mixture that can be trained on.

    Args:
      name: "flan"; "flan_without_<cluster>", less what the hold-out rule takes out; "flan_first_<n>_clusters", the
        paper's study of the number of clusters (section 4.1); any of these with "_<n>_datasets" at its end, for the
        first n datasets of each cluster, in the catalog's order and with all their variants (paper, appendix B.1);
        "flan_<dataset>" or "<dataset>". A style at the end of the name is for `styles.split_name` to take off.

    Raises:
      FlanError: nothing has that name; the message has near matches.
    """
    known = _loaded()
    for candidate in (name, name.removeprefix("flan_")):
        if candidate in known:
            return (known[candidate],)
    found = _MIXTURE.fullmatch(name)
    if found is None:
        raise unknown_name("mixture", name, [*mixture_names(), *(f"flan_{d}" for d in known)])
    members = tuple(d for d in datasets() if d.in_flan and d.splits.train)
    if found["without"]:
        out = held_out_together(found["without"])
        members = tuple(d for d in members if d.cluster not in out)
    elif found["first"]:
        members = _first_clusters(int(found["first"]), members)
    return _first_datasets(int(found["datasets"]), members) if found["datasets"] else members


def _first_clusters(count: int, members: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
    if not 1 <= count <= len(_STUDY_CLUSTERS):
        raise FlanError(f"mixture flan_first_{count}_clusters: the study has 1 to {len(_STUDY_CLUSTERS)} clusters.")
    wanted = dict(_STUDY_CLUSTERS[:count])
    return tuple(d for d in members if d.cluster in wanted and (not wanted[d.cluster] or d.name in wanted[d.cluster]))


def _first_datasets(count: int, members: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
    if not count:
        raise FlanError("a mixture needs 1 or more datasets a cluster, not 0.")
    taken: dict[str, dict[str, None]] = {}
    for d in members:
        names = taken.setdefault(d.cluster, {})
        if len(names) < count:
            names[d.paper_dataset] = None
    return tuple(d for d in members if d.paper_dataset in taken[d.cluster])


def mixing_rate(num_examples: int, cap: int | None = RATE_CAP, temperature: float = 1.0) -> int | float:
    """Examples-proportional rate: min(n, cap) ** (1 / temperature), n counted after the cap of 30,000.

    The paper's cap is 3,000, and its temperature 1; a cap of 1 mixes all datasets evenly, None proportionally.
    """
    rate = num_examples if cap is None else min(num_examples, cap)
    return rate if temperature == 1 else rate ** (1 / temperature)
