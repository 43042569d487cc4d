"""Stock SeqIO from end to end on our tasks: converters, packing, Evaluator, offline cache, T5X's way to find them."""

import collections
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf

from flan_jax import catalog, templates
from flan_jax.data import sources, tasks, usable
from flan_jax.errors import FlanError

pytestmark = pytest.mark.slow

LENGTHS = {"inputs": 512, "targets": 64}


@pytest.fixture(scope="module", autouse=True)
def registered():
    tasks.register()
    yield
    tasks.register()


def text(value):
    return value.decode() if isinstance(value, bytes) else [v.decode() for v in value]


def read(name, split="train", lengths=LENGTHS, **more):
    dataset = seqio.get_mixture_or_task(name).get_dataset(lengths, split, **{"shuffle": False} | more)
    return list(dataset.as_numpy_iterator())


def key(row):
    return row["record_id"], int(row["template"])


# --------------------------------------------------------------------------------------------------------- converters


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("converter", [seqio.EncDecFeatureConverter, seqio.DecoderFeatureConverter])
def test_feature_converters(converter, pack):
    """Every example of a task reaches the model's features, whole."""
    is_decoder = converter is seqio.DecoderFeatureConverter
    lengths = {"inputs": 1000, "targets": 200}
    dataset = seqio.get_dataset("flan_rte", lengths, converter(pack=pack), "train", seed=0)
    rows = list(dataset.as_numpy_iterator())
    examples = read("flan_rte", lengths=lengths)
    pieces = [np.concatenate([e["inputs"], e["targets"]]) if is_decoder else e["targets"] for e in examples]
    want = collections.Counter(map(bytes, (p.astype(np.int32) for p in pieces)))
    found = collections.Counter()
    for row in rows:
        ids = row["decoder_target_tokens"]
        segments = row["decoder_segment_ids"] if pack else (ids != 0).astype(int)
        for segment in range(1, segments.max() + 1):
            found[bytes(ids[segments == segment].astype(np.int32))] += 1
    assert found == want
    assert not pack or len(rows) < len(examples)


# ------------------------------------------------------------------------------------------------------ epochs, shards


def test_one_pass_an_epoch_and_other_templates_in_the_next():
    records = {row["record_id"] for row in read("flan_rte")}
    assert len(read("flan_rte", num_epochs=1)) == len(records)
    rows = read("flan_rte", num_epochs=6)
    shown = collections.defaultdict(list)
    for row in rows:
        shown[row["record_id"]].append(int(row["template"]))
    assert {len(chosen) for chosen in shown.values()} == {6}
    for identity, chosen in shown.items():
        expected = tasks.choose_template(catalog.dataset("rte"), identity, tf.range(6, dtype=tf.int64), seed=0)
        assert chosen == expected.numpy().tolist()  # the token store's choice for its rendering of that number
    endless = seqio.get_mixture_or_task("flan_rte").get_dataset(LENGTHS, shuffle=False, num_epochs=None)
    first = list(endless.take(len(rows)).as_numpy_iterator())
    assert [key(row) for row in first] == [key(row) for row in rows]


@pytest.mark.parametrize("count", [3, 18])
def test_shards_divide_every_epoch(count):
    """Also into more shards than there are records."""
    whole = collections.Counter(key(row) for row in read("flan_rte", num_epochs=2))
    parts = [read("flan_rte", num_epochs=2, shard_info=seqio.ShardInfo(i, count)) for i in range(count)]
    assert collections.Counter(key(row) for part in parts for row in part) == whole
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 2


def test_shuffling_is_reproducible_by_its_seed():
    orders = [[key(r) for r in read("flan_rte", shuffle=True, seed=s, num_epochs=2)] for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(key(r) for r in read("flan_rte", num_epochs=2))


def test_a_mixture_is_each_record_once_an_epoch():
    name = "flan_first_1_clusters_2_datasets"
    members = seqio.get_mixture_or_task(name).tasks
    for shuffle in (False, True):
        rows = read(name, num_epochs=1, shuffle=shuffle, seed=0, passthrough_features=["record_id", "dataset"])
        found = collections.Counter((row["dataset"], row["record_id"]) for row in rows)
        assert set(found.values()) == {1}
        assert len(found) == sum(len(read(member.name)) for member in members)


# ----------------------------------------------------------------------------------------------------------- trimming


@pytest.mark.parametrize("name", ["flan_rte", "flan_squad_v1", "flan_cnn_dailymail", "flan_rte_score_eval"])
@pytest.mark.parametrize("length", [150, 200])
def test_fields_are_cut_and_never_instruction_or_options(name, length):
    dataset = seqio.get_mixture_or_task(name).source._record
    rows = read(name, "test", {"inputs": length, "targets": 8})
    assert rows
    for row in rows:
        assert len(row["inputs"]) <= length and row["inputs"][-1] == 1
        assert len(row["targets"]) <= 8 and row["targets"][-1] == 1
        shown = text(row["inputs_pretokenized"])
        pattern = dataset.templates[int(row["template"])].input
        block = templates.options_block(text(row["options"])) if "options" in row else ""
        literals = [part.strip() for part in templates.PLACEHOLDER.split(pattern)[0::2]]
        for part in (*filter(None, literals), block):
            assert part in shown
    assert any(row["cut_tokens"] for row in rows)


def test_lengths_that_nothing_fits_are_refused_at_once():
    with pytest.raises(FlanError, match="dataset rte: its shortest instruction takes 49 tokens, and inputs of 30"):
        read("flan_rte", lengths={"inputs": 30, "targets": 2})
    with pytest.raises(FlanError, match="dataset rte: length of targets is 1: it has to be"):
        read("flan_rte", lengths={"inputs": 300, "targets": 1})


def test_an_example_that_cannot_fit_is_left_out_and_logged(caplog):
    """HellaSwag's options take most of the room; without a length nothing is left out."""
    every = read("flan_hellaswag", "test", None)
    rows = read("flan_hellaswag", "test", {"inputs": 340, "targets": 64})
    assert 0 < len(rows) < len(every)
    assert "dataset hellaswag: example 1 left out" in caplog.text


# ---------------------------------------------------------------------------------------------------------- Evaluator


def evaluator(name, converter=seqio.EncDecFeatureConverter, split="test", **more):
    return seqio.Evaluator(
        name, feature_converter=converter(pack=False), eval_split=split, sequence_length=LENGTHS, **more
    )


def metrics_of(found):
    return found[0].result()


BOTH = (seqio.EncDecFeatureConverter, seqio.DecoderFeatureConverter)


@pytest.mark.parametrize(
    ("name", "converter"),
    [
        *(("flan_squad_v1", c) for c in BOTH),
        ("flan_multirc", BOTH[0]),
        ("flan_samsum", BOTH[1]),
        ("flan_rte_gpt3", BOTH[0]),
    ],
)
def test_evaluator_generates(name, converter):
    """A model that says the first reference gets full marks, and one that says nothing does not."""
    run = evaluator(name, converter)
    vocabulary = seqio.get_mixture_or_task(name).output_features["targets"].vocabulary
    examples = list(run.cached_task_datasets[name].as_numpy_iterator())

    def says(answer):
        ids = [[*vocabulary.encode(answer(example)), 1] for example in examples]
        width = max(map(len, ids))
        padded = [row + [0] * (width - len(row)) for row in ids]
        return lambda dataset, *_: [(int(i), padded[int(i)]) for i, _ in dataset.as_numpy_iterator()]

    right = metrics_of(run.evaluate(compute_metrics=True, predict_fn=says(lambda e: text(e["targets_pretokenized"]))))
    wrong = metrics_of(run.evaluate(compute_metrics=True, predict_fn=says(lambda e: "qwx")))
    assert set(right) == {name} and set(right[name].values()) == {100.0}
    assert max(wrong[name].values()) < 100


@pytest.mark.parametrize(
    ("name", "converter"),
    [
        *(("flan_rte_score_eval", c) for c in BOTH),
        ("flan_multirc_t1_score_eval", BOTH[0]),
        ("flan_cb_gpt3_score_eval", BOTH[1]),
        ("flan_piqa_lettered_options_score_eval", BOTH[0]),
        ("flan_cb_gpt3_lettered_options_score_eval", BOTH[1]),
    ],
)
def test_evaluator_ranks(name, converter):
    """Scores by the model's features alone: the tokens of a right option are recognized in what the converter made."""
    run = evaluator(name, converter)
    examples = list(run.cached_task_datasets[name].as_numpy_iterator())

    def scores(sign):
        def score(dataset, *_):
            found = []
            for i, features in dataset.as_numpy_iterator():
                example = examples[int(i)]
                ids = features["decoder_target_tokens"]
                weighted = ids[features["decoder_loss_weights"] > 0]
                assert weighted.tolist() == example["targets"].tolist()  # the option, and nothing else, is scored
                found.append((int(i), sign * float(example["is_correct"])))
            return found

        return score

    right = metrics_of(run.evaluate(compute_metrics=True, score_fn=scores(1)))
    wrong = metrics_of(run.evaluate(compute_metrics=True, score_fn=scores(-1)))
    assert set(right[name].values()) == {100.0}
    assert max(wrong[name].values()) < 100
    with pytest.raises(ValueError, match="the score of an option is nan; no option is the highest"):
        metrics_of(run.evaluate(compute_metrics=True, score_fn=scores(float("nan"))))


def test_every_classification_dataset_has_rank_tasks():
    """An example for each option, all with one input; the right one is the record's answer."""
    for record in catalog.datasets():
        name = f"flan_{record.name}_score_eval"
        assert (name in seqio.TaskRegistry.names()) == (record.kind == catalog.CLASSIFICATION)
        for number, template in enumerate(record.templates):
            ranked = template.is_forward and record.kind == catalog.CLASSIFICATION
            assert (f"flan_{record.name}_t{number}_score_eval" in seqio.TaskRegistry.names()) == ranked
    rows = read("flan_hellaswag_t2_score_eval", "test")
    by_example = collections.defaultdict(list)
    for row in rows:
        by_example[int(row["idx"][0])].append(row)
    assert list(by_example) == list(range(len(by_example)))
    for options in by_example.values():
        assert len({text(row["inputs_pretokenized"]) for row in options}) == 1
        assert [text(row["targets_pretokenized"]) for row in options] == text(options[0]["options"])
        assert [int(row["idx"][1]) for row in options] == list(range(len(options)))
        assert [text(row["targets_pretokenized"]) for row in options if row["is_correct"]] == [
            text(options[0]["answer"])
        ]


def test_an_inverted_template_has_its_own_target_and_no_metric():
    """Also where the record has references: they answer the forward templates."""
    record = catalog.dataset("natural_questions")
    (number,) = [i for i, t in enumerate(record.templates) if not t.is_forward][:1]
    task = seqio.get_mixture_or_task(f"flan_{record.name}_t{number}")
    assert not task.metric_fns
    for row in read(task.name, "test"):
        target = text(row["targets_pretokenized"])
        assert task.postprocess_fn(target, example=row, is_target=True) == [target]
        assert target not in text(row["references"])
    assert not seqio.evaluation.get_valid_eval_tasks([task], "test")  # SeqIO's Evaluator passes over it


def test_metrics_of_a_task_have_different_keys():
    """SeqIO's Evaluator refuses a key that two metrics of a task have."""
    for record in catalog.datasets():
        found = [m for m in seqio.get_mixture_or_task(f"flan_{record.name}").metric_fns]
        keys = [k for metric in found for k in metric.keys]
        assert found and len(keys) == len(set(keys)), record.name


# -------------------------------------------------------------------------------------------------------------- rates


def test_rates_count_after_the_filter_and_open_no_more_than_they_must(tmp_path, monkeypatch):
    """As in training: `keep` of the dataset drops half of these rows, and the count is kept for the next time."""
    (tmp_path / "rte").mkdir()
    rows = [{"premise": f"P {i}", "hypothesis": "H", "label": i % 4 - 1, "idx": i} for i in range(400)]
    rows = [{**row, "label": row["label"] if row["label"] < 2 else -1} for row in rows]
    (tmp_path / "rte" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks.register(data=tmp_path)
    try:
        task = seqio.get_mixture_or_task("flan_rte")
        usable = len(read("flan_rte"))
        mixture = seqio.get_mixture_or_task("flan")
        assert usable < task.num_input_examples("train")
        assert {t.name: mixture.get_rate(t) for t in mixture.tasks} == {"flan_rte": usable}
        tasks.register(data=tmp_path)
        monkeypatch.setattr(sources.OpenSource, "read", None)  # a second count would fail
        assert seqio.get_mixture_or_task("flan_rte").source.rate == usable
    finally:
        tasks.register()


def test_every_variant_has_tasks():
    records = [record for record in catalog.datasets() if record.variants]
    assert len(records) == 8
    for record in records:
        for one in catalog.variants(record):
            name = f"flan_{one.name}".replace("/", "_").replace("-", "_")
            every = [name, *(f"{name}_t{number}" for number in range(10))]
            assert set(every) <= set(seqio.TaskRegistry.names()) and f"{name}_t10" not in seqio.TaskRegistry.names()
            assert seqio.get_mixture_or_task(name).metric_fns
    with pytest.raises(FlanError, match="did you mean 'flan_wmt14_enfr_fr_en'"):
        seqio.get_mixture_or_task("flan_wmt14_enfr_fr_es")


@pytest.mark.parametrize("style", ["_t0", "_2_shots_t0"])
def test_a_direction_is_asked_as_the_evaluation_asks_it(style):
    """The task of the dataset has both directions in dev and test, the tasks of its variants one each, in train too."""
    lengths = {"inputs": 1024, "targets": 256}
    both = read(f"flan_wmt16_translate_deen{style}", "test", lengths)
    for variant in ("en-de", "de-en"):
        rows = read(f"flan_wmt16_translate_deen_{variant.replace('-', '_')}{style}", "test", lengths)
        asked = {row["record_id"]: row for row in both if row["record_id"].decode().endswith(f"#{variant}")}
        assert len(asked) == len(rows) == len(both) / 2
        for row in rows:
            assert text(row["dataset"]) == f"wmt16_translate_deen/{variant}" and text(row["variant"]) == variant
            for name in ("inputs_pretokenized", "targets_pretokenized"):
                assert row[name] == asked[row["record_id"]][name]
        train = read(f"flan_wmt16_translate_deen_{variant.replace('-', '_')}{style}", lengths=lengths)
        assert {text(row["variant"]) for row in train} == {variant}
        assert len(train) == len(read("flan_wmt16_translate_deen", lengths=lengths))


# -------------------------------------------------------------------------------------- cache, time, docs


CACHE = """
import sys
from absl import app
from seqio.scripts import cache_tasks_main
app.run(cache_tasks_main.main)
"""


def check_the_cache_alone(folder, cached):
    """Where the records are not, as on the machines that train: mixtures and the Evaluator take what is cached."""
    rates = {name: seqio.get_mixture_or_task(name).rate for name in cached}
    folder.mkdir()
    tasks.register(data=folder)
    mixture = seqio.get_mixture_or_task("flan")
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == rates
    for use_cached in (True, False):
        rows = mixture.get_dataset(LENGTHS, num_epochs=1, use_cached=use_cached, passthrough_features=["dataset"])
        assert {f"flan_{text(row['dataset'])}" for row in rows.as_numpy_iterator()} == cached
    converter = seqio.EncDecFeatureConverter(pack=False)
    evaluator = seqio.Evaluator("flan", converter, eval_split="validation", use_cached=True)
    assert {task.name for task in evaluator.eval_tasks} == cached
    with pytest.raises(FlanError, match="dataset cb: no folder cb/"):
        seqio.get_mixture_or_task("flan_cb").get_dataset(LENGTHS)


def check_a_cache_of_something_else(folder, monkeypatch):
    """A cache of other data, or by other code, is refused; the same data elsewhere are the same."""
    samples = sources.samples_folder() / "rte"
    lines = (samples / "train.jsonl").read_text().splitlines()
    for name, kept in (("same", lines), ("other", lines[1:])):
        shutil.copytree(samples, folder / name / "rte")
        (folder / name / "rte" / "train.jsonl").write_text("\n".join(kept) + "\n")
        tasks.register(data=folder / name)
        if name == "same":
            assert read("flan_rte", use_cached=True)
    says = "SeqIO task flan_rte: the cache .*/flan_rte is of other data or another version of FLAN-JAX; make it again"
    with pytest.raises(FlanError, match=says):
        read("flan_rte", use_cached=True)
    with pytest.raises(FlanError, match=says):
        read("flan_rte", "test", use_cached=True)  # nor is a split that did not change: the source is another
    for data in ("samples", folder):
        tasks.register(data=data)
        with monkeypatch.context() as patched, pytest.raises(FlanError, match=says):
            patched.setattr(usable, "code_digest", lambda record: "0" * 16)
            read("flan_rte", use_cached=True)


def test_offline_cache(tmp_path, monkeypatch):
    """`seqio_cache_tasks` writes fields, and a cached task gives the same examples, in other templates each epoch."""
    pytest.importorskip("apache_beam")
    if not any(map(importlib.util.find_spec, ("google_crc32c", "crcmod", "snappy"))):
        pytest.skip("Beam writes TFRecords with apache-beam[tfrecord] only")
    names = ["flan_rte", "flan_squad_v1", "flan_rte_no_template"]
    command = [sys.executable, "-c", CACHE, f"--tasks={','.join(names)}", f"--output_cache_dir={tmp_path}"]
    command += ["--module_import=flan_jax.mixtures", "--min_shards=2"]
    environment = {**os.environ, "FLAN_JAX_SEQIO_NAMES": "flan_rte_no_template"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    before = seqio.get_global_cache_dirs()
    seqio.set_global_cache_dirs([str(tmp_path)])
    try:
        tasks.register()
        for name in names:
            task = seqio.get_mixture_or_task(name)
            assert task.supports_caching and task.cache_dir == str(tmp_path / name)
            for split in task.splits:
                direct = read(name, split, num_epochs=2)
                cached = read(name, split, num_epochs=2, use_cached=True)
                assert len(cached) == 2 * task.get_cached_stats(split)["examples"]

                def content(row):
                    return sorted((k, np.asarray(v).tolist()) for k, v in row.items())

                assert sorted(map(content, cached)) == sorted(map(content, direct))
        converter = seqio.EncDecFeatureConverter(pack=True)
        assert list(seqio.get_dataset("flan_squad_v1", LENGTHS, converter, use_cached=True).as_numpy_iterator())
        check_a_cache_of_something_else(tmp_path / "data", monkeypatch)
        check_the_cache_alone(tmp_path / "nothing", {"flan_rte", "flan_squad_v1"})
    finally:
        seqio.set_global_cache_dirs(before)
        tasks.register()


PAGE = Path(__file__).parents[2] / "docs" / "seqio.md"


def test_the_code_of_the_docs_runs():
    """The first asks a mixture of many tasks for a row.

    Calls of Python functions are counted: seconds depend on what else runs here. They were 52 million at first.
    """
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2 and "flan_without_nli" in blocks[0]
    code = f"""
import cProfile, pstats
import seqio, flan_jax.mixtures
assert len(seqio.get_mixture_or_task("flan_without_nli").tasks) > 40  # opened: the import of the samples does not count
with cProfile.Profile() as profile:
    exec({blocks[0]!r}, dict())
print("calls", pstats.Stats(profile).total_calls)
exec({blocks[1]!r}, dict())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, calls, second = re.fullmatch(r"(.*)^calls (\d+)$(.*)", done.stdout, re.DOTALL | re.MULTILINE).groups()
    assert first.strip() and second.strip() and int(calls) < 30e6
