"""The records that describe clusters and datasets, and the paper's clusters."""

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

VARIANT = "variant"  # the field of an example that names the variant of its dataset
_USUAL = Splits()  # for datasets whose labelled test data are not public
NAME = re.compile(r"[a-z][a-z0-9_]*")  # names of a user's own datasets and clusters
MIXTURE = re.compile(  # the name of a mixture
    r"flan(?:_without_(?P<without>\w+?)|_first_(?P<first>\d+)_clusters)?(?:_(?P<datasets>\d+)_datasets)?"
)
PART = "#"  # in an example's id, after the record's id: "12#3" is a third turn, "12#fr-en" a direction


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A group of datasets of one task type (paper, figure 3).

    Attributes:
      name: for example "nli".
      title: its name in tables and plots.
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


# For a dataset whose owner cannot say what it shares with others. Once a model is tuned on it, nothing counts as held
# out.
UNKNOWN_CLUSTER = Cluster("unknown", "Cluster not known")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset, or a variant of a dataset, of the paper or of a user.

    Attributes:
      name: for example "rte"; a variant has its own, for example "mnli_matched".
      cluster: the name of its cluster, or a `Cluster` that is the user's own.
      source: TFDS name, config and version, for example "super_glue/rte:1.0.2".
      fields: maps a record of tensors in the TFDS schema to string tensors. Templates use the scalars. Classification
        also has `options` (1-D) and `answer` (one of them). Generation has `answer` and, if there are several,
        `references` (1-D).
      templates: ten templates; a user's own dataset may have fewer.
      kind: "classification" (options are ranked) or "generation".
      metrics: names of `flan_jax.metrics`, the headline metric first.
      splits: the split rules.
      keep: maps a record to a boolean tensor; records with False are dropped. None keeps all.
      labels: (TFDS label name, label word) in TFDS's label order; empty if every example has its own options.
      spellings: (spelling of a label in copies of the data, TFDS's label), for local JSONL. TFDS's label is a name or a
        number; -1 means no label.
      paper_dataset: the dataset's name in the paper; variants share it.
      folder: its folder's name in a folder of local JSONL data and under `tasks/samples`; by default `name`.
      manual: how to get the data, if TFDS cannot download them.
      in_flan: whether it is one of the paper's 62. The optional extras are not.
      bare: the input without any instruction: its fields, one on each line. By default the fields of the first
        template.
      gpt3_prompt: the prompt for a model that was never tuned; by default the bare input between "Q:" and "A:".
      kin: (another dataset, how the two share text by their making). The other dataset is named as here, as in the
        paper, or, if it is not here, by its usual name. One of the two records is enough; see `kin_of`.
      expand: maps a record, as `fields` does, to all its examples that evaluation asks: the same fields, each with a
        first axis over the examples. `fields` gives one usable example of them, if there is any. None if evaluation
        asks the same one example that training takes.
      variants: names for the examples that `expand` gives, for example the directions of a translation. Each is then
        scored separately, and the field `variant` of every example says which it is. Without names, all examples count
        alike.
      variant: which variant this record is. Only records that `variants` makes have it.
      passage: the field whose text several examples may share, such as the turns of a conversation, or the questions on
        a passage. Such examples are not independent, so intervals and tests draw them together. Empty if there is none.
      needs_options: (a text field, a regular expression) for records that speak of their options, in any case: "Which
        of these ...?", "None of the above". Where the text matches, a style that does not show the options leaves the
        record out (`styles.unanswerable`). The expression must mean the same to Python and to RE2.
      schema: the fields of a row of local JSONL, if TFDS has no such dataset: "text", "texts" (several), "int",
        "float", or the names of a label in order.
      own_cluster: the record of its cluster, if the cluster is not one of the paper's.
      written: for conversations that a chat template wrote, the fingerprint of the vocabulary. Inputs are then
        tokenized as they are written, with BOS and control tokens in them, and the answer follows at once.
      nested: maps a row of local JSONL in another form of the data, such as a whole dialogue, to rows of the TFDS
        schema. A row that already has this schema is returned alone.
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
    gpt3_prompt: Gpt3Prompt = None  # type: ignore[assignment]  # set below if none is given
    kin: tuple[tuple[str, str], ...] = ()
    expand: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    variants: tuple[str, ...] = ()
    variant: str = ""
    passage: str = ""
    needs_options: tuple[tuple[str, str], ...] = ()
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
        if isinstance(self.schema, Mapping):  # a record must be hashable
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
        """Pickles a record of the catalog as its name. Its functions are code, which pickle may refuse."""
        from flan_jax import catalog  # which imports this module

        is_known = catalog.exists(self.name) and catalog.dataset(self.name) is self
        return (catalog.dataset, (self.name,)) if is_known else super().__reduce_ex__(version)

    @property
    def is_averaged(self) -> bool:
        """Whether its scores are part of its cluster's mean: it is one of the paper's, or in a user's own cluster."""
        return self.in_flan or self.own_cluster is not None

    @property
    def label_words(self) -> tuple[str, ...]:
        """The label words in TFDS's label order."""
        return tuple(word for _, word in self.labels)

    @property
    def forward_templates(self) -> tuple[int, ...]:
        """The numbers of the forward templates. Only these are evaluated."""
        return tuple(i for i, t in enumerate(self.templates) if t.is_forward)

    @property
    def tfds_name(self) -> str:
        """The source without its version."""
        return self.source.partition(":")[0]

    @property
    def tfds_version(self) -> str:
        """The source's version."""
        return self.source.partition(":")[2]
