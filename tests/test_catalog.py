import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from flan_jax import catalog
from flan_jax.catalog import known
from flan_jax.errors import FlanError
from flan_jax.splits import Splits, resolve_splits
from flan_jax.templates import placeholders

# The paper's exclusions (flan_facts.md, section 1): what leaves the mixture when a cluster is evaluated.
ALSO_OUT = {
    "nli": {"paraphrase"},
    "paraphrase": {"nli"},
    "reading_comprehension_with_commonsense": {"reading_comprehension", "commonsense"},
    "reading_comprehension": {"reading_comprehension_with_commonsense"},
    "commonsense": {"reading_comprehension_with_commonsense"},
}
CLUSTERS = [c.name for c in catalog.clusters()]

each_cluster = pytest.mark.parametrize("cluster", CLUSTERS)


# ------------------------------------------------------------------------------------------------------- variants


def test_a_dataset_is_replaced_by_its_variants_where_it_is_evaluated():
    for cluster in CLUSTERS:
        names = [d.name for d in catalog.evaluated(cluster)]
        assert len(names) == len(set(names)) == len(catalog.datasets(cluster)) * (2 if cluster == "translation" else 1)
        assert {catalog.whole(name) for name in names} == {d.name for d in catalog.datasets(cluster)}
    assert catalog.evaluated() == tuple(d for c in CLUSTERS for d in catalog.evaluated(c))
    assert all(catalog.dataset(d.name) is d and not d.variants for d in catalog.evaluated())
    assert not {d.name for d in catalog.mixture("flan")} - {d.name for d in catalog.datasets()}


def test_a_variant_is_its_dataset_but_for_its_name_and_fields():
    whole = catalog.dataset("wmt14_enfr")
    for one in catalog.variants(whole):
        same = dataclasses.replace(one, name=whole.name, fields=whole.fields, expand=whole.expand, variant="")
        assert dataclasses.replace(same, variants=whole.variants) == whole
        assert catalog.named(one.name) == (one,) and catalog.exists(one.name)
        assert catalog.kin_of(one.name) == catalog.kin_of(whole.name)
    assert catalog.variants(catalog.dataset("coqa")) == (catalog.dataset("coqa"),)


@pytest.mark.parametrize("name", ["wmt14_enfr/", "wmt14_enfr/de-en", "/fr-en", "rte/fr-en", "wmt14_enfr/fr-en/x"])
def test_what_is_no_variant(name):
    assert not catalog.exists(name) and catalog.whole(name) == name
    with pytest.raises(FlanError, match="unknown dataset"):
        catalog.dataset(name)
    with pytest.raises(FlanError, match="unknown dataset or cluster"):
        catalog.named(name)


def test_ids_of_examples_name_their_records():
    ids = ["a/b.tfrecord-00000-of-00001__12#3", "a/b.tfrecord-00000-of-00001__12#fr-en", "12", "", "12#"]
    assert [catalog.record_id(one) for one in ids] == ["a/b.tfrecord-00000-of-00001__12"] * 2 + ["12", "", "12"]


# ------------------------------------------------------------------------------------------------------- hold-out


def test_there_are_the_papers_twelve_clusters():
    assert len(CLUSTERS) == len(set(CLUSTERS)) == 12


@each_cluster
def test_held_out_together(cluster):
    assert catalog.held_out_together(cluster) == {cluster} | ALSO_OUT.get(cluster, set())


@each_cluster
def test_is_held_out(cluster):
    record = dataclasses.replace(catalog.dataset("rte"), cluster=cluster)
    out = {cluster} | ALSO_OUT.get(cluster, set())
    assert catalog.is_held_out(record, [])
    assert catalog.is_held_out(record, [c for c in CLUSTERS if c not in out])
    for trained in CLUSTERS:
        assert catalog.is_held_out(record, [trained]) == (trained not in out)
    assert not catalog.is_held_out(record, CLUSTERS)


@each_cluster
def test_mixture_without_a_cluster(cluster):
    out = {cluster} | ALSO_OUT.get(cluster, set())
    mixture = catalog.mixture(f"flan_without_{cluster}")
    assert mixture == tuple(d for d in catalog.mixture("flan") if d.cluster not in out)
    trained = {d.cluster for d in mixture}
    assert all(catalog.is_held_out(d, trained) for d in catalog.datasets(cluster))


def test_mixture_flan_has_every_dataset_that_trains():
    assert catalog.mixture("flan") == tuple(d for d in catalog.datasets() if d.in_flan and d.splits.train is not None)
    assert len(catalog.mixture("flan")) > 10


def test_mixture_leaves_out_extras_and_test_only_datasets(monkeypatch):
    rte = catalog.dataset("rte")
    records = [
        rte,
        dataclasses.replace(rte, name="extra", in_flan=False),
        dataclasses.replace(rte, name="test_only", splits=Splits(train=None, dev=None, test="test")),
    ]
    monkeypatch.setattr(known, "loaded", lambda: {r.name: r for r in records})
    assert catalog.mixture("flan") == (rte,)
    assert catalog.mixture("extra") == (records[1],)


@pytest.mark.parametrize("name", ["rte", "flan_rte"])
def test_mixture_of_one_dataset(name):
    assert catalog.mixture(name) == (catalog.dataset("rte"),)


def test_every_mixture_name_is_a_mixture():
    names = catalog.mixture_names()
    study = [f"flan_first_{n}_clusters" for n in range(1, 8)]
    assert names == ("flan", *(f"flan_without_{c}" for c in CLUSTERS), *study)
    for name in names:
        assert set(catalog.mixture(name)) <= set(catalog.mixture("flan"))


def test_clusters_join_the_study_largest_first():
    # flan_facts.md, section 4, study 1.
    order = ["summarization", "translation", "reading_comprehension", "sentiment", "structure_to_text", "coreference"]
    for n in range(1, 7):
        members = catalog.mixture(f"flan_first_{n}_clusters")
        assert members == tuple(d for d in catalog.mixture("flan") if d.cluster in order[:n])
    last = set(catalog.mixture("flan_first_7_clusters")) - set(catalog.mixture("flan_first_6_clusters"))
    assert {d.name for d in last} == {"coqa", "quac"}


def test_the_study_never_trains_on_what_it_holds_out():
    trained = {d.cluster for d in catalog.mixture("flan_first_7_clusters")}
    for held_out in ("nli", "closed_book_qa", "commonsense"):
        assert not catalog.held_out_together(held_out) & trained


@pytest.mark.parametrize("base", ["flan", "flan_without_nli", "flan_first_7_clusters"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_first_datasets_of_each_cluster(base, count):
    whole = catalog.mixture(base)
    members = catalog.mixture(f"{base}_{count}_datasets")
    assert {d.cluster for d in members} == {d.cluster for d in whole}
    for cluster in {d.cluster for d in whole}:
        there = list(dict.fromkeys(d.paper_dataset for d in whole if d.cluster == cluster))
        assert list(dict.fromkeys(d.paper_dataset for d in members if d.cluster == cluster)) == there[:count]
    # A dataset comes with all its variants.
    names = {d.paper_dataset for d in members}
    assert members == tuple(d for d in whole if d.paper_dataset in names)


@pytest.mark.parametrize(
    ("name", "message"),
    [("flan_first_8_clusters", "1 to 7 clusters"), ("flan_first_0_clusters", "1 to 7"), ("flan_0_datasets", "not 0")],
)
def test_numbers_that_no_mixture_has(name, message):
    with pytest.raises(FlanError, match=message):
        catalog.mixture(name)


@pytest.mark.parametrize(
    ("lookup", "name", "near"),
    [
        (catalog.dataset, "rtee", "'rte'"),
        (catalog.dataset, "arc_chalenge", "'arc_challenge'"),
        (catalog.cluster, "nil", "'nli'"),
        (catalog.datasets, "commonsens", "'commonsense'"),
        (catalog.held_out_together, "summarisation", "'summarization'"),
        (catalog.mixture, "flan_withuot_nli", "'flan_without_nli'"),
        (catalog.mixture, "flan_without_nil", "'nli'"),
        (catalog.mixture, "flan_rtt", "'flan_rte'"),
    ],
)
def test_unknown_name(lookup, name, near):
    with pytest.raises(FlanError, match=f"did you mean .*{near}") as error:
        lookup(name)
    assert len(str(error.value).splitlines()) == 1


def test_unknown_name_without_a_near_match_says_what_there_is():
    with pytest.raises(FlanError, match="there are: .*nli"):
        catalog.cluster("zzzzzz")
    with pytest.raises(FlanError, match=r"there are \d+, for example"):
        catalog.mixture("zzzzzz")


def test_record_of_an_unknown_cluster():
    with pytest.raises(FlanError, match=r"unknown cluster 'nlii'.*'nli'.*dataset rte"):
        dataclasses.replace(catalog.dataset("rte"), cluster="nlii")


# --------------------------------------------------------------------------------------------------- mixing rates


@pytest.mark.parametrize(
    ("num_examples", "rate"),
    [(0, 0), (1, 1), (250, 250), (2999, 2999), (3000, 3000), (3001, 3000), (30_000, 3000)],
)
def test_mixing_rate(num_examples, rate):
    assert catalog.mixing_rate(num_examples) == rate


def test_shares_of_three_datasets():
    rates = np.array([catalog.mixing_rate(n) for n in (200, 2290, 30_000)])
    np.testing.assert_allclose(rates / rates.sum(), [200 / 5490, 2290 / 5490, 3000 / 5490])


# ------------------------------------------------------------------------------------- the datasets that are there


def test_names_are_plain_and_unique():
    names = [d.name for d in catalog.datasets()]
    assert len(names) == len(set(names))
    for name in names:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert name not in CLUSTERS
        assert f"flan_{name}" not in catalog.mixture_names()
    assert [catalog.dataset(name).name for name in names] == names


def test_datasets_of_a_cluster():
    parts = [catalog.datasets(c) for c in CLUSTERS]
    assert tuple(d for part in parts for d in part) == catalog.datasets()
    for name, part in zip(CLUSTERS, parts, strict=True):
        assert {d.cluster for d in part} <= {name}


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_record(record):
    assert re.fullmatch(r"[\w/.-]+:\d+\.\d+\.\d+", record.source)
    assert f"{record.tfds_name}:{record.tfds_version}" == record.source
    assert record.kind in (catalog.CLASSIFICATION, catalog.GENERATION)
    assert len(record.label_words) == len(set(record.label_words))
    assert bool(record.labels) <= (record.kind == catalog.CLASSIFICATION)
    assert record.forward_templates == tuple(i for i, t in enumerate(record.templates) if t.direction == "forward")
    assert record.metrics


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_record_agrees_with_the_papers_table(record, shared):
    table = {row["task"]: row for row in json.loads((shared / "datasets.json").read_text("utf-8"))}
    row = table[record.name]
    assert record.kind == row["kind"]
    assert record.in_flan == bool(row["cluster"])
    assert row["cluster"] in (record.cluster, None)
    assert record.source == f"{row['tfds']}:{row['tfds_version_in_4_9_10'] or record.tfds_version}"
    parts = {"train": "train", "dev": "validation", "test": "test"}
    parts = {part: name for part, name in parts.items() if row[part]}
    sizes = dict.fromkeys((re.match(r"\w+", row[part])[0] for part in parts), 1_000_000)
    slices = resolve_splits(record, sizes)
    assert set(slices) == set(parts.values())
    for part, name in parts.items():
        split, bounds = re.fullmatch(r"(\w+)(?:\[(.*)\])?(?: \(native\))?", row[part]).groups()
        start, _, stop = (bounds or ":").partition(":")
        size = len(range(sizes[split])[int(start) if start else None : int(stop) if stop else None])
        size = min(size, 30_000) if part == "train" else size
        assert (slices[name].split, slices[name].size) == (split, size), part


def test_catalog_imports_neither_tensorflow_nor_jax():
    code = (
        "import sys; from flan_jax import catalog; "
        "assert len(catalog.datasets()) > 10; [t for d in catalog.datasets() for t in d.templates]; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'tensorflow', 'jax', 'flax', 'seqio', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_texts_that_examples_share_are_passages(shared):
    """What stands in many records of a test set makes their answers alike, whoever declares it."""
    missed = []
    for record in catalog.datasets():
        files = [shared / "data" / record.folder / f"{split}.jsonl" for split in (record.splits.test, "validation")]
        if record.passage or record.expand or not (there := [file for file in files if file.is_file()]):
            continue
        rows = [json.loads(line) for line in there[0].read_text().split("\n")[:1000] if line]
        for name in rows[0]:
            texts = [text for row in rows if isinstance(text := row.get(name), str) and len(text) > 40]
            if len(texts) > len(rows) / 2 and len(set(texts)) < 0.95 * len(texts):
                missed.append((record.name, name, len(set(texts)), len(texts)))
    assert not missed


def test_the_passage_of_a_dataset_is_a_field_that_its_prompts_show():
    """Intervals draw examples of one passage together; of an unknown field all would be alone, without a word."""
    having = {record.name: record for record in catalog.datasets() if record.passage}
    assert {"coqa", "quac", "squad_v1", "drop", "multirc", "qnli", "wsc"} <= set(having)
    for record in having.values():
        shown = {name for t in record.templates for name in placeholders(t.input)}
        assert record.passage in shown and all(one.passage == record.passage for one in catalog.variants(record))
