"""The records of clusters and datasets, and the paper's clusters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

from flan_jax.errors import FlanError, unknown_name
from flan_jax.splits import Splits
from flan_jax.templates import OPTIONS, TEMPLATES_PER_DATASET, Gpt3Prompt, Template, placeholders

CLASSIFICATION = "classification"
GENERATION = "generation"

VARIANT = "variant"  # the field of an example that says which variant of its dataset it belongs to
_USUAL = Splits()  # of datasets whose labelled test data are not public
NAME = re.compile(r"[a-z][a-z0-9_]*")  # of a dataset or a cluster of one's own
MIXTURE = re.compile(  # the name of one
    r"flan(?:_without_(?P<without>\w+?)|_first_(?P<first>\d+)_clusters)?(?:_(?P<datasets>\d+)_datasets)?"
)
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


PAPER_CLUSTERS = (
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
      written: of conversations that a chat template wrote, the fingerprint of its vocabulary. Inputs are then tokens as
        they are written, BOS and control tokens too, and the answer follows at once.
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
    gpt3_prompt: Gpt3Prompt = None  # type: ignore[assignment]  # made below where none is given
    kin: tuple[tuple[str, str], ...] = ()
    expand: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    variants: tuple[str, ...] = ()
    variant: str = ""
    passage: str = ""
    nested: Callable[[Mapping[str, Any]], list[Any]] | None = None
    schema: tuple[tuple[str, str | tuple[str, ...]], ...] = ()
    own_cluster: Cluster | None = None
    written: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.cluster, Cluster):
            object.__setattr__(self, "own_cluster", self.cluster)
            object.__setattr__(self, "cluster", self.cluster.name)
        if not self.templates:
            raise FlanError(f"dataset {self.name!r} has no template: give 1 to {TEMPLATES_PER_DATASET}.")
        if isinstance(self.schema, Mapping):  # a record is hashed
            object.__setattr__(self, "schema", tuple(self.schema.items()))
        own = self.own_cluster is not None and self.own_cluster.name == self.cluster
        if not own and self.cluster not in {c.name for c in (*PAPER_CLUSTERS, UNKNOWN_CLUSTER)}:
            raise unknown_name("cluster", self.cluster, (c.name for c in PAPER_CLUSTERS), f"(dataset {self.name})")
        object.__setattr__(self, "paper_dataset", self.paper_dataset or self.name)
        object.__setattr__(self, "folder", self.folder or self.name)
        shown = dict.fromkeys(f for f in placeholders(self.templates[0].input) if f != OPTIONS)
        object.__setattr__(self, "bare", self.bare or "\n".join(f"{{{field}}}" for field in shown))
        if self.gpt3_prompt is None:
            object.__setattr__(self, "gpt3_prompt", Gpt3Prompt(f"Q: {self.bare}\nA:"))

    def __reduce_ex__(self, version: SupportsIndex) -> Any:
        """A record of the catalog is pickled as its name: what it is made of is code, which pickle may refuse."""
        from flan_jax import catalog  # which is made of these

        is_known = catalog.exists(self.name) and catalog.dataset(self.name) is self
        return (catalog.dataset, (self.name,)) if is_known else super().__reduce_ex__(version)

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
