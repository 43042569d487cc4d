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
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flan_jax import own_data
from flan_jax.errors import FlanError, unknown_name
from flan_jax.splits import Splits
from flan_jax.templates import OPTIONS, Gpt3Prompt, Template, placeholders

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

# Of a dataset whose owner cannot say what it has in common with others: with it, nothing is held out for sure.
UNKNOWN_CLUSTER = Cluster("unknown", "Cluster not known")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One dataset, or one variant of a dataset, of the paper.

    Attributes:
      name: for example "rte"; a variant has its own, for example "mnli_matched".
      cluster: the name of its cluster.
      source: TFDS name, config and version, for example "super_glue/rte:1.0.2".
      fields: maps a record of tensors in the true TFDS schema to string tensors: scalars for the templates; for
        classification also `options` (1-D) and `answer` (one of them); for generation `answer` and, where there are
        several, `references` (1-D).
      templates: exactly ten; of a user's own data one.
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
      nested: maps a row of local JSONL in another form of the data, such as a whole dialogue, to rows of the TFDS
        schema; a row that is in this schema comes back alone.
    """

    name: str
    cluster: str
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

    def __post_init__(self) -> None:
        if self.cluster not in {c.name for c in (*_CLUSTERS, UNKNOWN_CLUSTER)}:
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


@functools.cache
def _prepared(definitions: str) -> dict[str, Dataset]:
    """A user's own datasets, of `own_data.named`: their records are text already, so that one template shows it."""
    return {
        one.name: Dataset(
            name=one.name,
            cluster=one.cluster,
            source=one.origin,
            fields=dict,
            templates=(Template("{inputs}"),),
            kind=one.kind,
            metrics=one.metrics,
            gpt3_prompt=Gpt3Prompt("{inputs}"),
            in_flan=False,
        )
        for one in own_data.definitions(definitions)
    }


def _loaded() -> dict[str, Dataset]:
    """All datasets, those of the PREPARED_DIR in use last."""
    own = own_data.named()
    return {**_papers(), **_prepared(own)} if own else _papers()


def refuse_name(name: str) -> None:
    """Refuses a name that a dataset of a user's own cannot have.

    Raises:
      FlanError: it has other letters, or means something else already.
    """
    if not _NAME.fullmatch(name):
        raise FlanError(
            f"{name!r} is no name of a dataset: small letters, digits and _, with a letter first; give --name=my_data."
        )
    if name in _papers() or any(name == paper.paper_dataset for paper in _papers().values()):
        raise FlanError(f"{name!r} is a dataset of the catalog: give yours another name.")
    if name in {c.name for c in (*_CLUSTERS, UNKNOWN_CLUSTER)}:
        raise FlanError(f"{name!r} is a cluster: give your dataset another name.")
    if _MIXTURE.fullmatch(name) or name.startswith("flan_"):
        raise FlanError(f"{name!r} begins as mixtures do: give your dataset another name.")


def clusters() -> tuple[Cluster, ...]:
    """All clusters, in the paper's order."""
    return _CLUSTERS


def cluster(name: str) -> Cluster:
    """The cluster of that name.

    Raises:
      FlanError: there is none; the message has near matches.
    """
    for candidate in (*clusters(), UNKNOWN_CLUSTER):
        if candidate.name == name:
            return candidate
    raise unknown_name("cluster", name, (c.name for c in _CLUSTERS))


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
    names = [c.name for c in _CLUSTERS]
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
    return _known_with(own_data.named())


@functools.cache
def _known_with(definitions: str) -> dict[str, Dataset]:
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
    return _kin_of(whole(name), own_data.named())


@functools.cache
def _kin_of(name: str, definitions: str) -> dict[str, str]:
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
    """The clusters that leave the tuning mixture when `cluster_name` is evaluated, itself included."""
    return frozenset({cluster_name, *cluster(cluster_name).held_out_with})


def shares_cluster(record: Dataset, trained_clusters: Collection[str]) -> bool:
    """Whether a cluster that the hold-out rule counts with `record` is among those, as far as clusters are known."""
    return bool(held_out_together(record.cluster) & set(trained_clusters) - {UNKNOWN_CLUSTER.name})


def is_held_out(record: Dataset, trained_clusters: Collection[str]) -> bool:
    """Whether `record` is unseen by a model tuned on `trained_clusters` (paper, section 2.2 and appendix).

    Where its own cluster is not known, or one of theirs, nobody can say so: that is no.
    """
    unknown = UNKNOWN_CLUSTER.name in (record.cluster, *trained_clusters)
    return not unknown and not shares_cluster(record, trained_clusters)


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


def mixing_rate(num_examples: int) -> int:
    """Examples-proportional rate with the paper's cap: min(n, 3000), n counted after the cap of 30,000."""
    return min(num_examples, RATE_CAP)
