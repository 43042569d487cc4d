import collections
import json
import logging
import re
import time

import numpy as np
import pytest
import seqio
import tensorflow as tf
from scipy import stats

from flan_jax import catalog, styles, templates
from flan_jax.data import sources, tasks, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.errors import FlanError

pytestmark = pytest.mark.slow

RTE, SQUAD, AESLC = (catalog.dataset(name) for name in ("rte", "squad_v1", "aeslc"))
LENGTHS = {"inputs": 2048, "targets": 512}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAN_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        tasks.register()
        yield


def read(name, split="train", **more):
    dataset = seqio.get_mixture_or_task(name).get_dataset(LENGTHS, split, **{"shuffle": False, "seed": 0} | more)
    return list(dataset.as_numpy_iterator())


def text(value):
    return value.decode() if isinstance(value, bytes) else [v.decode() for v in value]


def fields_by_id(record, split):
    rows = tasks.records(record, sources.open_source(record, "samples"), split).as_numpy_iterator()
    return {row["record_id"]: {k: text(v) for k, v in row.items() if k != "record_id"} for row in rows}


# ----------------------------------------------------------------------------------------------------- registering


def flan_names():
    return {n for r in (seqio.TaskRegistry, seqio.MixtureRegistry) for n in r.names() if n.startswith("flan")}


def test_registering_opens_nothing(monkeypatch):
    def opened(*_):
        raise AssertionError("a source was opened")

    with monkeypatch.context() as patch:
        patch.setattr(sources, "open_source", opened)
        start = time.process_time()
        tasks.register()
        assert time.process_time() - start < 1
        ranked = [d for d in catalog.datasets() if d.kind == catalog.CLASSIFICATION]
        variants = [one.name for d in catalog.datasets() if d.variants for one in catalog.variants(d)]
        named = [*(d.name for d in catalog.datasets()), *(re.sub("[/-]", "_", name) for name in variants)]
        assert flan_names() == {
            *catalog.mixture_names(),
            *(f"flan_{name}" for name in named),
            *(f"flan_{name}_t{k}" for name in named for k in range(10)),
            *(f"flan_{d.name}_score_eval" for d in ranked),
            *(f"flan_{d.name}_t{k}_score_eval" for d in ranked for k in d.forward_templates),
        }
        for name in flan_names():
            assert seqio.get_mixture_or_task(name).name == name
    with pytest.raises(ValueError, match="flan_rtee"):
        seqio.get_mixture_or_task("flan_rtee")


def test_a_task_is_stock_seqio():
    task = seqio.TaskRegistry.get("flan_rte")
    assert isinstance(task, seqio.Task)
    assert set(task.output_features) == {"inputs", "targets"}
    assert set(task.splits) == {"train", "validation", "test"}
    assert task.num_input_examples("train") == sources.open_source(RTE, "samples").splits["train"].size
    rows = read("flan_rte", "test")
    (score,) = (fn([text(row["targets_pretokenized"]) for row in rows], ["yes"] * len(rows)) for fn in task.metric_fns)
    assert score == {"accuracy": pytest.approx(100 * np.mean([row["answer"] == b"yes" for row in rows]))}


# -------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("record", [RTE, SQUAD], ids=lambda r: r.name)
@pytest.mark.parametrize("split", ["train", "test"])
def test_examples(record, split):
    rows = read(f"flan_{record.name}", split)
    fields = fields_by_id(record, split)
    assert collections.Counter(row["record_id"] for row in rows) == dict.fromkeys(fields, 1)
    vocabulary = vocabularies.ByteTokenizer()
    for row in rows:
        assert row["dataset"] == record.name.encode()
        template = record.templates[row["template"]]
        assert split == "train" or template.is_forward
        rendered = templates.render(template, fields[row["record_id"]])
        for name, expected in zip(("inputs", "targets"), rendered, strict=True):
            assert text(row[f"{name}_pretokenized"]) == expected
            limit = LENGTHS[name] - 1
            assert row[name].tolist() == [*vocabulary.encode([expected])[0][:limit], vocabulary.eos_id]
        for name in ("answer", "options", "references"):
            assert (name in row) == (name in fields[row["record_id"]])
            assert name not in row or text(row[name]) == fields[row["record_id"]][name]


def test_one_template():
    rows = read("flan_rte_t3")
    assert {int(row["template"]) for row in rows} == {3}
    fields = fields_by_id(RTE, "train")
    for row in rows:
        assert text(row["inputs_pretokenized"]) == templates.fill(RTE.templates[3].input, fields[row["record_id"]])


def test_later_passes_show_other_templates():
    shown = collections.defaultdict(list)
    for row in read("flan_rte", num_epochs=10):
        shown[row["record_id"]].append(int(row["template"]))
    assert {len(chosen) for chosen in shown.values()} == {10}
    assert min(len(set(chosen)) for chosen in shown.values()) > 1


def test_reading_is_deterministic():
    first, again, shuffled = (read("flan_rte", shuffle=s, seed=1) for s in (False, False, True))
    key = [(row["record_id"], int(row["template"])) for row in first]
    assert key == [(row["record_id"], int(row["template"])) for row in again]
    other = [(row["record_id"], int(row["template"])) for row in shuffled]
    assert key != other and sorted(key) == sorted(other)


def test_references_reach_the_metrics():
    task = seqio.TaskRegistry.get("flan_squad_v1")
    targets, predictions = [], []
    for row in read("flan_squad_v1", "test"):
        targets.append(task.postprocess_fn(text(row["targets_pretokenized"]), example=row, is_target=True))
        predictions.append(task.postprocess_fn(text(row["references"])[-1], example=row, is_target=False))
        assert targets[-1] == text(row["references"])
    scores = {name: value for fn in task.metric_fns for name, value in fn(targets, predictions).items()}
    assert scores and set(scores.values()) == {100.0}


# ---------------------------------------------------------------------------------------------- choice of templates


def chosen(record, ids, epochs, seed, **more):
    return np.array([tasks.choose_template(record, i, tf.constant(epochs), seed, **more).numpy() for i in ids])


def test_choice_of_template():
    """Chosen evenly, again the same, and otherwise for another epoch, seed or dataset."""

    ids = tf.data.Dataset.from_tensor_slices([f"rte-train.tfrecord-00000-of-00001__{i}" for i in range(3000)])

    def choices(record, epoch, seed):
        chosen = ids.map(lambda i: tasks.choose_template(record, i, tf.constant(epoch), seed))
        return np.array(list(chosen.as_numpy_iterator()))

    first = choices(RTE, 0, 0)
    np.testing.assert_array_equal(choices(RTE, 0, 0), first)
    assert stats.chisquare(np.bincount(first, minlength=10)).pvalue > 1e-3
    for other in (choices(RTE, 1, 0), choices(RTE, 0, 1), choices(SQUAD, 0, 0)):
        assert stats.chisquare(np.bincount(other, minlength=10)).pvalue > 1e-3
        assert 0.07 < (other == first).mean() < 0.13  # independent choices among ten agree one time in ten


def test_choice_for_several_epochs_at_once():
    ids = [f"id{i}" for i in range(20)]
    together = chosen(RTE, ids, np.arange(5), 0)
    assert together.shape == (20, 5)
    for epoch in range(5):
        np.testing.assert_array_equal(together[:, epoch], chosen(RTE, ids, epoch, 0))
    forward = chosen(RTE, ids, np.arange(5), 0, forward_only=True)
    assert set(forward.ravel()) <= set(RTE.forward_templates)
    assert len(set(forward.ravel())) > 4


@pytest.mark.parametrize(
    ("records", "renderings"), [(0, 10), (1, 10), (3000, 10), (3001, 9), (15_000, 2), (15_001, 1), (30_000, 1)]
)
def test_renderings(records, renderings):
    assert tasks.num_renderings(records) == renderings


# -------------------------------------------------------------------------------------------------------- mixtures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Local JSONL of three datasets in different sizes; 3,200 rows, more than the cap of the rates, in one of them."""
    folder = tmp_path_factory.mktemp("data")
    labels = ["entailment", "not_entailment"]
    rte = [{"premise": f"zyxw {i}", "hypothesis": "H", "label": labels[i % 2], "idx": i} for i in range(300)]
    sst2 = [{"sentence": f"Film {i}", "label": ["negative", "positive"][i % 2], "idx": i} for i in range(3300)]
    qnli = [{"question": f"Q {i}?", "sentence": "S.", "label": labels[i % 2], "idx": i} for i in range(40)]
    for name, rows in (("rte", rte), ("sst2", sst2), ("qnli", qnli)):
        (folder / name).mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "train.jsonl").write_text(lines)
    return folder


@pytest.fixture
def registered(folder):
    tasks.register(data=folder)
    yield
    tasks.register()


def test_mixture(registered, caplog):
    """Rates are the paper's, and members whose source is missing are named and left out."""
    mixture = seqio.get_mixture_or_task("flan")
    with caplog.at_level(logging.WARNING):
        rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert rates == {"flan_rte": 225, "flan_sst2": 3000, "flan_qnli": 30}
    assert mixture.total_rate == 3255
    assert any("SeqIO goes on without task flan_snli: " in r.getMessage() for r in caplog.records)


def test_mixture_shares(registered):
    mixture = seqio.get_mixture_or_task("flan_without_sentiment")
    assert {task.name for task in mixture.tasks} == {"flan_rte", "flan_qnli"}
    dataset = mixture.get_dataset(LENGTHS, "train", seed=0, num_epochs=None)
    decode = vocabularies.ByteTokenizer().decode
    rte = sum(
        "zyxw" in decode(row["inputs"]) + decode(row["targets"]) for row in dataset.take(1500).as_numpy_iterator()
    )
    p = 225 / 255
    assert abs(rte - 1500 * p) < 5 * np.sqrt(1500 * p * (1 - p))


def test_mixture_without_any_source(registered):
    mixture = seqio.MixtureRegistry.get("flan_without_nli")
    assert [task.name for task in mixture.tasks] == ["flan_sst2"]
    tasks.register(data=sources.samples_folder() / "rte")  # a folder without any dataset
    with pytest.raises(FlanError, match="mixture flan_without_nli: none of its sources can be opened"):
        _ = seqio.MixtureRegistry.get("flan_without_nli").tasks


def test_missing_split(registered):
    """The local rows have no test split, and the small ones none for dev either."""
    assert set(seqio.TaskRegistry.get("flan_rte").splits) == {"train", "validation"}
    with pytest.raises(FlanError, match="dataset rte has no split 'test' in its source; it has train, validation"):
        read("flan_rte", "test")
    with pytest.raises(FlanError, match="dataset snli: no folder snli/"):
        read("flan_snli", "test")


def test_another_vocabulary(tmp_path):
    """A vocabulary without extra ids, and a seed of its own."""

    class Upper(vocabularies.ByteTokenizer):
        def encode(self, texts):
            return super().encode([t.upper() for t in texts])

    first = [int(row["template"]) for row in read("flan_rte")]
    tasks.register(vocabulary=Upper(), seed=1)
    try:
        rows = read("flan_rte")
        assert [int(row["template"]) for row in rows] != first
        expected = text(rows[0]["inputs_pretokenized"]).upper().encode()
        assert bytes(i - 3 for i in rows[0]["inputs"][:-1]) == expected
    finally:
        tasks.register()


# ---------------------------------------------------------------------------------------------------------- styles


@pytest.fixture(scope="module")
def styled(home):
    names = [f"flan_rte_{style}" for style in STYLES]
    tasks.register(names=[*names, "flan_squad_v1_no_template", "flan_first_1_clusters_1_datasets_no_template"])
    yield
    tasks.register()


STYLES = (
    "no_template",
    "dataset_name",
    "without_options",
    "gpt3",
    "3_templates",
    "shuffled_options",
    "lettered_options",
    "gpt3_lettered_options_2_shots",
    "2_shots",
    "no_template_4_shots",
)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_style_is_a_choice_of_the_same_builder(styled, name, split):
    style = styles.parse(name)
    fields = fields_by_id(RTE, split)
    pool = [(identity.decode(), f) for identity, f in fields_by_id(RTE, "train").items()]
    builder = ExampleBuilder(RTE, style, pool=pool, tokenizer=vocabularies.ByteTokenizer())
    rows = read(f"flan_rte_{name}", split)
    assert collections.Counter(row["record_id"] for row in rows) == dict.fromkeys(fields, 1)
    for row in rows:
        example = builder.build(row["record_id"].decode(), fields[row["record_id"]], int(row["template"]))
        assert text(row["inputs_pretokenized"]) == example.inputs
        assert text(row["targets_pretokenized"]) == example.targets
        assert text(row["options"]) == list(builder.protocol.scored(example.fields))
        assert split == "train" or int(row["template"]) in styles.forward_templates(RTE, style)


@pytest.mark.parametrize(
    "name",
    [
        "arc_easy_without_options",
        "cosmos_qa_gpt3",
        "cosmos_qa_no_template_2_shots",
        "wnli_2_shots",
        "definite_pronoun_resolution_shuffled_options_3_shots",
        "definite_pronoun_resolution_gpt3_2_shared_shots",
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_is_left_out_and_what_is_no_exemplar_is_the_same_in_seqio(home, name, split):
    base, style = styles.split_name(name)
    record = catalog.dataset(base)
    fields = fields_by_id(record, split)
    pool = [(identity.decode(), f) for identity, f in fields_by_id(record, "train").items()]
    builder = ExampleBuilder(record, style, pool=pool, tokenizer=vocabularies.ByteTokenizer())
    built = {}
    tasks.register(names=[f"flan_{name}"])
    try:
        rows = read(f"flan_{name}", split)
    finally:
        tasks.register()
    for row in rows:
        built[row["record_id"]] = builder.build(
            row["record_id"].decode(), fields[row["record_id"]], int(row["template"])
        )
        assert text(row["inputs_pretokenized"]) == built[row["record_id"]].inputs
    left = fields.keys() - built.keys()
    for identity in left:
        with pytest.raises(styles.NeedsOptionsError):
            builder.build(identity.decode(), fields[identity], 0)
    assert split != "train" or bool(left) == bool(record.needs_options)


def test_a_mixture_in_a_style(styled):
    name = "flan_first_1_clusters_1_datasets_no_template"
    mixture = seqio.MixtureRegistry.get(name)
    assert [t.name for t in mixture.tasks] == ["flan_aeslc_no_template"]
    row = next(mixture.get_dataset(LENGTHS, "train", shuffle=False, copy_pretokenized=True).as_numpy_iterator())
    assert text(row["inputs_pretokenized"]) in {f["body"] for f in fields_by_id(AESLC, "train").values()}


def test_an_unknown_name_to_register():
    with pytest.raises(FlanError, match="did you mean 'flan_rte_no_template'"):
        tasks.register(names=["flan_rtte_no_template"])
