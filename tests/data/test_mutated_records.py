"""Whatever is done to a record of any dataset, nothing but that record is lost, and nothing empty reaches a template.

Hypothesis mutates the bundled samples, and real rows where they lie beside the checkout, at the true TFDS schema. The
same fixed examples every time; TensorFlow traces each dataset once. `FLAN_JAX_MUTATED_RECORDS=60` makes more of them.
"""

import copy
import functools
import json
import os
import unicodedata

import hypothesis
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import strategies as st

from flan_jax import catalog, json_lines, templates
from flan_jax.data import schema, sources, tasks, usable

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FLAN_JAX_MUTATED_RECORDS", "20"))  # of each dataset
FIXED = hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)

# ----------------------------------------------------------------------------------------------------------- mutation

BLANKS = ("", " ", "\t\r\n \u00a0\u2003", "\u200b\ufeff", "\x00\x01", "\u3164", "\u0301", "\u2028")
TEXTS = (
    "\x1b[31m\x7f\x9f",
    "{premise} {options} {answer} {} {{x}} }{",
    "%s $1 \\1 \\E \\Q( [a-z]+ ^$ .* \\",
    "OPTIONS:\n- yes\n- no",
    "a\ud800b",
    "\udfff\udbff",
    "🏳️‍🌈 مرحبا \u202eevil\u202c",
    "</s><eos><pad>[MASK]",
    "<script>alert('x')</script>&amp;",
    "@placeholder @placeholder",
    "_ _ ___ | || |||||",
    "a | b",
    "-1",
    "nan",
    "x" * 3_000,
)
NUMBERS = (-(2**63) - 1, -(2**31), -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 2**31 - 1, 2**31, 2**40, 2**63, 10**30)
TEXT = st.sampled_from(BLANKS + TEXTS) | st.text(max_size=20)
SCALARS = (
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from((0.5, 1.0, 1.7, -1.0, 5.4, 1e300)) | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


def places(value, path=()):
    """Every place in a JSON value, the outermost apart."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw, rows, needed):
    """A good row, changed at one or two places, mostly among the fields that are read."""
    row = copy.deepcopy(draw(st.sampled_from(rows)))
    for _ in range(draw(st.integers(1, 2))):
        at = [path for path in places(row) if path[0] in needed or draw(st.integers(0, 9)) == 0]
        if not at:
            continue
        *way, last = draw(st.sampled_from(at))
        inside = functools.reduce(lambda value, key: value[key], way, row)
        old = inside[last]
        kinds = [VALUES, st.just(None), st.sampled_from(BLANKS), st.sampled_from(NUMBERS)]
        if isinstance(old, str):
            kinds += [TEXT.map(lambda text, old=old: text + old), TEXT.map(lambda text, old=old: old + text)]
        if isinstance(old, list):
            kinds += [st.just([]), st.just(old[:1] * len(old)), st.just(old * 3), st.just([old]), st.just(old[:1])]
            kinds += [st.just(list(old[:-1])), TEXT.map(lambda text, old=old: [text, *old])]
        if draw(st.integers(0, 7)) == 0:
            del inside[last]
        else:
            inside[last] = draw(st.one_of(kinds))
    return row


# ----------------------------------------------------------------------------------------------------------- datasets


@functools.cache
def features_of(record):
    return sources.builder_of(record, sources.Path("nothing_is_here")).info.features


@functools.cache
def needed_by(record):
    return sources.read_fields(record, features_of(record))


@functools.cache
def judged(record):
    """(serialized record) -> (verdict, fields), traced once; fields of what is not used are empty."""
    features = features_of(record)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def judge(serialized):
        row = features.deserialize_example(serialized)
        number = usable.verdict(record, row)
        kept = record.keep(row) if record.keep else tf.constant(True)
        empty = {name: tf.zeros([0] * s.shape.rank, s.dtype) for name, s in shapes(record, features).items()}
        return number, tf.cond(kept, lambda: record.fields(row), lambda: empty)

    return judge


def shapes(record, features):
    spec = tf.data.DatasetSpec(features.get_tensor_spec()).element_spec
    concrete = tf.function(record.fields, autograph=False).get_concrete_function(spec)
    return {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in concrete.structured_outputs.items()}


def good_rows(record, shared_data):
    """Rows that are used as they are: of the samples, and real ones."""
    folders = [sources.samples_folder() / record.folder, shared_data / record.folder]
    rows = []
    for folder in folders:
        for file in sorted(folder.glob("*.jsonl")):
            rows += [line.value for line, _ in zip(json_lines.read_json_lines(file), range(30), strict=False)]
    fitted = [schema.row_of(record, row, features_of(record), needed_by(record)) for row in rows]
    examples = [features_of(record).serialize_example(row) for row in fitted]
    numbers = usable.verdicts(record, features_of(record), examples)
    return [row for row, number in zip(rows, numbers, strict=True) if number == 0]


def is_shown(text):
    """Whether a text has a character that can be seen, by Python's tables."""
    unseen = "\u115f\u1160\u2800\u3164\uffa0"
    return any(
        c not in unseen and unicodedata.category(c)[0] not in "ZM" and unicodedata.category(c) not in ("Cc", "Cf")
        for c in text
    )


def as_text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else [v.decode("utf-8") for v in value]


def check_fields(record, fields):
    """What must be true of the fields of a record that is used."""
    for template in record.templates:
        for pattern in (template.input, template.target, template.open_input, record.bare):
            for name in templates.placeholders(pattern):
                for text in [fields[name]] if isinstance(fields[name], str) else fields[name]:
                    assert is_shown(text), (name, fields)
    assert is_shown(fields["answer"])
    if record.kind == catalog.CLASSIFICATION:
        assert len(fields["options"]) >= 2
        assert fields["options"].count(fields["answer"]) == 1
    assert all(map(is_shown, fields.get("references", ["x"]))) and fields.get("references", ["x"])


def check_label(record, row, fields):
    """The label that was read is the one that was meant: an integer in range, one of its names, or a known spelling."""
    for name, feature in features_of(record).items():
        if not isinstance(feature, tfds.features.ClassLabel) or name not in needed_by(record):
            continue
        given = row[name]
        spelt = [meant for spelling, meant in record.spellings if type(spelling) is type(given) and spelling == given]
        given = spelt[0] if spelt else given
        number = feature.names.index(given) if isinstance(given, str) else given
        assert type(number) is int and 0 <= number < feature.num_classes
        if record.labels and len(record.labels) == feature.num_classes:
            assert fields["answer"] == record.labels[number][1]


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory):
    folder = sources.Path(__file__).parents[3] / "shared" / "data"
    return folder if folder.is_dir() else tmp_path_factory.mktemp("none")


@pytest.mark.parametrize("record", catalog.datasets(), ids=lambda d: d.name)
def test_a_mutated_record_is_used_whole_or_left_out_with_a_reason(record, shared_data):
    features, rows, seen = features_of(record), good_rows(record, shared_data), []

    @FIXED
    @hypothesis.given(mutated(rows, needed_by(record)))
    @hypothesis.example(rows[0])  # as it is: with few fields, chance may spoil all the others
    def check(row):
        line = json_lines.parse_json(json.dumps(row).encode())
        try:
            fitted = schema.row_of(record, line, features, needed_by(record))
        except schema.Misfit as misfit:
            assert str(misfit) and "\n" not in str(misfit) and len(str(misfit)) < 300
            seen.append("misfit")
            return
        number, fields = judged(record)(features.serialize_example(fitted))
        seen.append(int(number))
        if number > 0:
            assert usable.problem_text(record, int(number))
        elif number == 0:
            fields = {name: as_text(value.numpy()) for name, value in fields.items() if value.dtype == tf.string}
            check_fields(record, fields)
            check_label(record, line, fields)

    check()
    assert len(seen) >= EXAMPLES / 2 and "misfit" in seen and 0 in seen  # the mutations are of every kind


@pytest.mark.parametrize("record", catalog.datasets()[::5], ids=lambda d: d.name)
def test_the_neighbours_of_mutated_records_stay_as_they_are(record, shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))
    split = record.splits.train or record.splits.test
    rows = good_rows(record, shared_data)[:20]

    def fields_of(name, lines):
        folder = tmp_path / name / record.folder
        folder.mkdir(parents=True)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        source = sources.open_source(record, tmp_path / name)
        found = [f for part in source.splits for _, f in tasks.text_records(usable.usable(record, source.read(part)))]
        return source, sorted(json.dumps(f, sort_keys=True) for f in found)

    _, before = fields_of("clean", rows)
    assert len(before) == len(rows)

    @hypothesis.settings(FIXED, max_examples=1)
    @hypothesis.given(st.lists(mutated(rows, needed_by(record)), min_size=20, max_size=40), st.randoms())
    def check(bad, random):
        lines = [(False, row) for row in rows] + [(True, row) for row in bad]
        random.shuffle(lines)
        source, after = fields_of("dirty", [row for _, row in lines])
        is_bad = {number: flag for number, (flag, _) in enumerate(lines, 1)}
        assert all(is_bad[row.line] and row.problem for row in source.bad_rows)
        assert {row.path for row in source.bad_rows} <= {f"{record.folder}/{split}.jsonl"}
        written = sum(info.num_examples for info in source.builder.info.splits.values())
        assert written + len(source.bad_rows) == len(lines)
        for fields in set(before):
            assert after.count(fields) >= before.count(fields)
        for fields in after:
            check_fields(record, json.loads(fields))

    check()
