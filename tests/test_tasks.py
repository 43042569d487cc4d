"""What holds for every dataset of the catalog: its templates, its samples and its fields, read as TFDS would."""

import collections
import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import flan_jax.tasks
from flan_jax import catalog, metrics, template_lint, templates
from flan_jax.json_lines import read_json_lines
from flan_jax.splits import resolve_splits

SAMPLES = Path(flan_jax.tasks.__path__[0]) / "samples"
DATASETS = catalog.datasets()
MIN_TRAIN, MIN_OTHER = 12, 6
# Their TFDS label is a boolean or a number, which has no names to compare.
WITHOUT_LABEL_NAMES = {"bool_q", "sentiment140", "stsb"}

each_dataset = pytest.mark.parametrize("dataset", DATASETS, ids=lambda d: d.name)
each_classification = pytest.mark.parametrize(
    "dataset", [d for d in DATASETS if d.kind == catalog.CLASSIFICATION], ids=lambda d: d.name
)
each_labelled = pytest.mark.parametrize("dataset", [d for d in DATASETS if d.labels], ids=lambda d: d.name)
each_paper_dataset = pytest.mark.parametrize(
    "variants",
    [[d for d in DATASETS if d.paper_dataset == name] for name in dict.fromkeys(d.paper_dataset for d in DATASETS)],
    ids=lambda variants: variants[0].paper_dataset,
)


def sample_rows(dataset):
    """{split: rows} of the dataset's bundled samples."""
    return {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in sorted((SAMPLES / dataset.folder).glob("*.jsonl"))
    }


@functools.cache
def tfds_info(dataset):
    """The TFDS builder's info; nothing is downloaded."""
    from flan_jax.data import sources

    return sources.builder_of(dataset, Path("nothing_is_here")).info


@functools.cache
def sample_fields(dataset):
    """{split: fields of its usable rows}, through TFDS's serialization and the graph of a tf.data map."""
    import tensorflow as tf

    from flan_jax.data import usable

    features, as_it_is = tfds_info(dataset).features, tf.autograph.experimental.do_not_convert
    every = [(split, row) for split, rows in sample_rows(dataset).items() for row in rows]
    serialized = [features.serialize_example(features.encode_example(row)) for _, row in every]
    data = tf.data.Dataset.from_tensor_slices((serialized, [split for split, _ in every]))
    data = data.map(as_it_is(lambda row, split: {**features.deserialize_example(row), "tfds_id": split}))
    out = {split: [] for split, _ in every}
    for row in usable.usable(dataset, data).as_numpy_iterator():
        fields = {name: _text(value) for name, value in row.items()}
        out[fields.pop("record_id")].append(fields)
    return out


def _text(value):
    return [v.decode() for v in value] if isinstance(value, np.ndarray) else value.decode()


def labelled(dataset, rows):
    """The rows that carry a label, where the schema has one that can be missing."""
    return [row for row in rows if row.get("label") != -1] if dataset.labels else rows


# ------------------------------------------------------------------------------------------------ without TensorFlow


@each_dataset
def test_samples_are_there(dataset):
    rows = sample_rows(dataset)
    sizes = {split: len(r) for split, r in rows.items()}
    resolved = resolve_splits(dataset, sizes)
    assert "test" in resolved
    if dataset.splits.train:
        assert sizes[resolved["train"].split] >= MIN_TRAIN
        assert resolved["train"].size > 0
    for split, size in sizes.items():
        assert size >= MIN_OTHER, split
    test = resolved["test"]
    assert len(labelled(dataset, rows[test.split][test.start : test.stop])) >= min(MIN_OTHER, test.size)


@each_dataset
def test_sample_rows_are_unique(dataset):
    everything = [
        json.dumps({k: v for k, v in row.items() if k not in ("idx", "id")}, sort_keys=True)
        for rows in sample_rows(dataset).values()
        for row in rows
    ]
    assert [row for row, n in collections.Counter(everything).items() if n > 1] == []


@each_paper_dataset
def test_templates_differ_between_datasets(variants):
    """Variants may share templates; datasets may not, since each is to add instructions of its own."""
    own = {t.input for d in variants for t in d.templates}
    others = {t.input: d.name for d in DATASETS if d.paper_dataset != variants[0].paper_dataset for t in d.templates}
    shared_inputs = {text: others[text] for text in own & set(others) if re.sub(r"\{\w+\}", "", text).strip()}
    assert shared_inputs == {}


@each_paper_dataset
def test_wording(variants):
    for dataset in variants:
        assert template_lint.lint_wording(dataset) == {}


def test_samples_are_not_copies(shared):
    """No text of a sample row of some length stands in the real data, where there are some."""

    def texts(row):
        return {v.strip().lower() for v in row.values() if isinstance(v, str) and len(v.split()) >= 7}

    compared = 0
    for dataset in DATASETS:
        real = {
            text
            for path in (shared / "data" / dataset.folder).glob("*.jsonl")
            for line in read_json_lines(path)
            for text in texts(line.value)
        }
        samples = {text for rows in sample_rows(dataset).values() for row in rows for text in texts(row)}
        assert samples & real == set(), dataset.name
        compared += bool(real)
    assert compared > 10


# --------------------------------------------------------------------------------------------------- with TensorFlow


@pytest.mark.slow
@each_dataset
def test_lint_finds_nothing(dataset):
    every = [f for fields in sample_fields(dataset).values() for f in fields]
    assert template_lint.lint(dataset, every) == []
    assert template_lint.lint_wording(dataset, every) == {}


@pytest.mark.slow
@each_dataset
def test_fields(dataset):
    for split, examples in sample_fields(dataset).items():
        for fields in examples:
            assert "answer" in fields, split
            assert ("options" in fields) == (dataset.kind == catalog.CLASSIFICATION)
            for name, value in fields.items():
                for text in [value] if isinstance(value, str) else value:
                    assert text == text.strip(), (split, name, text)
            if dataset.kind == catalog.CLASSIFICATION:
                assert fields["answer"] in fields["options"]
            elif "references" in fields:
                assert fields["references"], split


@pytest.mark.slow
@each_dataset
def test_every_field_is_used(dataset):
    patterns = [p for t in dataset.templates for p in (t.input, t.target)]
    patterns += [dataset.gpt3_prompt.input, dataset.gpt3_prompt.premise]
    used = {name for p in patterns for name in templates.placeholders(p)} | set(metrics.needs(dataset.metrics))
    examples = [f for fields in sample_fields(dataset).values() for f in fields]
    # Metrics may read fields that no template shows, but those are lists or ids.
    unused = {name for name in examples[0] if name not in used and isinstance(examples[0][name], str)}
    assert {name for name in unused if not name.endswith("id")} <= {"answer", catalog.VARIANT}


@pytest.mark.slow
@each_classification
def test_labels_are_balanced(dataset):
    """No answer is far more frequent than another in the training samples, nor missing."""
    for split, examples in sample_fields(dataset).items():
        if len(examples) < MIN_OTHER:
            continue
        if dataset.labels:
            counts = collections.Counter(f["answer"] for f in examples)
            assert set(counts) == set(dataset.label_words) or len(examples) < 2 * len(dataset.labels), split
        else:
            counts = collections.Counter(f["options"].index(f["answer"]) for f in examples)
            assert len(counts) > 1, split
        assert max(counts.values()) <= np.ceil(0.67 * len(examples)), (split, counts)


@pytest.mark.slow
@each_labelled
def test_label_order_is_that_of_tfds(dataset):
    import tensorflow_datasets as tfds

    features = [f for f in tfds_info(dataset).features.values() if isinstance(f, tfds.features.ClassLabel)]
    assert bool(features) != (dataset.name in WITHOUT_LABEL_NAMES)
    assert not features or any(template_lint.lint_labels(dataset, feature.names) == [] for feature in features)


@pytest.mark.slow
@each_dataset
def test_keep_drops_what_has_no_label(dataset):
    for split, rows in sample_rows(dataset).items():
        kept = len(sample_fields(dataset)[split])
        if dataset.keep is None and dataset.name != "drop":  # whose samples have an empty answer
            assert kept == len(rows)
        assert kept <= len(labelled(dataset, rows))


@pytest.mark.slow
@each_dataset
def test_templates_render_alike_in_tensorflow(dataset):
    import tensorflow as tf

    fields = next(f for examples in sample_fields(dataset).values() for f in examples)
    tensors = {name: tf.constant(value) for name, value in fields.items()}
    for number, template in enumerate(dataset.templates):
        got = templates.render_tensors(dataset.templates, tensors, number)
        assert tuple(t.numpy().decode() for t in got) == templates.render(template, fields)
