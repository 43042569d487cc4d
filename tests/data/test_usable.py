"""One bad record costs itself: it is left out, counted and named, on every path alike."""

import contextlib
import dataclasses
import gzip
import inspect
import io
import json
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from flan_jax import catalog, export, prepare
from flan_jax.data import examples, parallel, preparation, sources, tasks, token_store, usable, vocabularies
from flan_jax.inspection import examples as shown

pytestmark = pytest.mark.slow

BYTES = vocabularies.ByteTokenizer()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))


def samples_of(record, count=4):
    """Rows of the first sample file that are used as they are."""
    split = record.splits.train or record.splits.test
    file = next(
        path
        for name in (split, split.split("_")[0], "train")
        if (path := sources.samples_folder() / record.folder / f"{name}.jsonl").exists()
    )
    rows = [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
    return split, [row for row in rows if row.get("label") != -1][:count]


def opened(record, rows, split, tmp_path, prefix=b""):
    folder = tmp_path / "data" / record.folder
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / f"{split}.jsonl").write_bytes(prefix + b"\n".join(lines) + b"\n")
    return sources.open_source(record, tmp_path / "data")


def fields_of(record, source):
    return [f for split in source.splits for _, f in tasks.text_records(usable.usable(record, source.read(split)))]


NO_LABEL = "it has no usable label"

BAD = [
    ("openbookqa", {"answerKey": -1}, f"{NO_LABEL} (answerKey is -1)"),
    *[(name, {"label": -1}, f"{NO_LABEL} (label is -1)") for name in ("imdb_reviews", "anli_r1", "anli_r3")],
    *[(name, {"label": -1}, f"{NO_LABEL} (label is -1)") for name in ("paws_wiki", "ag_news_subset")],
    *[(name, {"label": -1}, NO_LABEL) for name in ("yelp_polarity_reviews", "definite_pronoun_resolution")],
    ("trec", {"label-coarse": -1}, f"{NO_LABEL} (label-coarse is -1)"),
    ("hellaswag", {"label": 4}, f"{NO_LABEL} (label is 4)"),
    ("hellaswag", {"label": -2}, f"{NO_LABEL} (label is -2)"),
    ("hellaswag", {"endings": ["a", "", "c", "d"]}, "an option is empty"),
    ("hellaswag", {"endings": ["a"], "label": 0}, "it has fewer than two options"),
    ("hellaswag", {"endings": []}, "it has fewer than two options"),
    ("arc_easy", {"answerKey": "E"}, NO_LABEL),
    ("arc_easy", {"answerKey": "F"}, "field 'answerKey' does not fit the schema ('F' is not 0 to 4 or one of 'A',"),
    ("sentiment140", {"polarity": 3}, f"{NO_LABEL} (polarity is 3)"),
    ("sentiment140", {"polarity": -1}, f"{NO_LABEL} (polarity is -1)"),
    ("sentiment140", {"polarity": 8}, f"{NO_LABEL} (polarity is 8)"),
    ("story_cloze", {"label": 3}, f"{NO_LABEL} (label is 3)"),
    ("story_cloze", {"label": 0}, f"{NO_LABEL} (label is 0)"),
    ("stsb", {"label": 5.4}, f"{NO_LABEL} (label is 5.4)"),
    ("stsb", {"label": -0.4}, f"{NO_LABEL} (label is -0.4)"),
    ("stsb", {"label": 10**400}, "field 'label' does not fit the schema (1000"),
    ("stsb", {"label": -(10**39)}, "field 'label' does not fit the schema (-1000"),
    ("stsb", {"label": True}, "field 'label' does not fit the schema (true is not a number)"),
    ("wsc273", {"label": 2}, f"{NO_LABEL} (label is 2)"),
    ("copa", {"question": "why"}, "there is no text for 'relation'"),
    ("copa", {"choice1": "It rained.", "choice2": " It  rained."}, "two of its options are its answer"),
    ("piqa", {"label": "sol1"}, "field 'label' does not fit the schema ('sol1' is not 0 to 1"),
    *[
        ("bool_q", {"answer": bad}, "field 'answer' does not fit the schema")
        for bad in (None, 2, 1, 0.5, "yes", [True])
    ],
    *[
        ("mnli_matched", {"label": bad}, "field 'label' does not fit the schema")
        for bad in (1.7, 1.0, True, None, "1", "Neutral", 2**40, 3, -2, [1], {"label": 1})
    ],
    ("natural_questions", {"answer": []}, "its answer is empty"),
    ("natural_questions", {"answer": ["", " \u00a0"]}, "its answer is empty"),
    ("natural_questions", {"answer": ["a", None]}, "field 'answer' is NoneType, not text"),
    ("natural_questions", {"answer": "a"}, "field 'answer' is text, not a list"),
    ("natural_questions", {"question": " ?? "}, "there is no text for 'question'"),
    ("squad_v1", {"answers": {"text": [], "answer_start": []}}, "its answer is empty"),
    (
        "squad_v1",
        {"answers": {"text": ["a", "b"], "answer_start": [1]}},
        "field 'answers' has lists of unequal lengths",
    ),
    ("squad_v2", {"answers": {"text": ["", " "], "answer_start": [0, 0]}}, "its answer is empty"),
    ("bool_q", {"question": "?"}, "there is no text for 'question'"),
    ("rte", {"premise": " \t\u2003"}, "there is no text for 'premise'"),
    ("rte", {"hypothesis": "\u200b\ufeff\x00"}, "there is no text for 'hypothesis'"),
    ("rte", {"idx": 2**40}, "field 'idx' does not fit the schema (1099511627776 is not a whole number of 32 bits)"),
    ("gigaword", {"summary": ""}, "its answer is empty"),
    ("math_dataset", {"answer": ""}, "its answer is empty"),
    ("math_dataset", {"question": " "}, "there is no text in 'question'"),
    ("fix_punct", {"en": " \n"}, "there is no text in 'en'"),
    ("wmt14_enfr", {"fr": "\u00a0"}, "there is no text for"),
    ("multi_news", {"document": " ||||| "}, "there is no text for"),
    ("quac", {"orig_answer": {"text": " ", "answer_start": 0}, "answers": {"text": [], "answer_start": []}}, "answer"),
]


@pytest.mark.parametrize(("name", "change", "problem"), BAD, ids=lambda v: v if isinstance(v, str) else None)
def test_a_bad_row_is_named_and_the_others_go_on(name, change, problem, tmp_path):
    record = catalog.dataset(name)
    split, rows = samples_of(record)
    source = opened(record, [*rows[:2], {**rows[0], **change}, *rows[2:]], split, tmp_path)
    (bad,) = source.bad_rows
    assert (bad.path, bad.line) == (f"{record.folder}/{split}.jsonl", 3)
    assert bad.problem.startswith(problem) or (name == "quac" and problem in bad.problem)
    assert "\n" not in str(bad)
    assert len(fields_of(record, source)) == len(rows)


def test_a_broken_conversation_is_left_out(tmp_path):
    record = catalog.dataset("coqa")
    split, rows = samples_of(record, 3)

    def with_answers(texts):
        answers = rows[0]["answers"]
        answers = answers if isinstance(answers, dict) else {k: [a[k] for a in answers] for k in answers[0]}
        return {**rows[0], "answers": {k: v[: len(texts)] for k, v in answers.items()} | {"input_text": texts}}

    count = len(rows[0]["questions"])
    bad = [with_answers([""] * count), with_answers(["", *["a"] * (count - 1)]), with_answers(["a"] * (count - 1))]
    source = opened(record, [*rows, *bad, {**rows[0], "questions": []}], split, tmp_path)
    assert [row.line for row in source.bad_rows] == [4, 5, 6]
    assert len(fields_of(record, source)) == 3


@pytest.mark.parametrize(
    ("name", "change", "answer"),
    [
        ("natural_questions", {"answer": ["", "B"]}, "B"),
        ("squad_v1", {"answers": {"text": [" ", "1869"], "answer_start": [0, 7]}}, "1869"),
        ("squad_v2", {"answers": {"text": [], "answer_start": []}}, "unanswerable"),
        ("quac", {"orig_answer": {"text": "", "answer_start": 0}, "answers": [{"text": "b", "answer_start": 0}]}, "b"),
        ("hellaswag", {"endings": ["a", "b", "c", "d"], "label": "2"}, "c"),
        ("wic", {"label": True}, "the same meaning"),
        ("wic", {"label": "False"}, "different meanings"),
        ("multirc", {"label": False}, "no"),
        ("mnli_matched", {"label": "contradiction"}, "no"),
        ("yelp_polarity_reviews", {"label": "1"}, "negative"),
        ("stsb", {"label": 4}, "4"),
        ("arc_easy", {"answerKey": "3", "choices": {"text": list("abcd"), "label": list("1234")}}, "c"),
        ("arc_easy", {"answerKey": "1", "choices": [{"text": f"t{n}", "label": n} for n in "1234"]}, "t1"),
        ("arc_challenge", {"answerKey": "B", "choices": {"text": list("abcd"), "label": list("ABCD")}}, "b"),
        ("rte", {"premise": "a\ud800b", "label": 0}, "yes"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_other_spellings_are_read_as_what_they_mean(name, change, answer, tmp_path):
    record = catalog.dataset(name)
    split, rows = samples_of(record, 4)
    source = opened(record, [{**row, **change} for row in rows], split, tmp_path)
    assert source.bad_rows == ()
    assert {fields["answer"] for fields in fields_of(record, source)} == {answer}


def test_rows_without_a_label_are_counted_and_said(tmp_path, capsys):
    record = catalog.dataset("rte")
    _, rows = samples_of(record, 10)
    opened(record, rows, "train", tmp_path)
    opened(record, [{**row, "label": -1} for row in rows[:3]], "validation", tmp_path)
    (tmp_path / "data" / "rte" / "test.jsonl").write_bytes(b"\n")
    source = sources.open_source(record, tmp_path / "data")
    assert source.bad_rows == ()
    assert source.notes == (
        "rte/test.jsonl, which is empty",
        "3 rows of rte/validation.jsonl without a label (first: line 1)",
    )
    arguments = [f"--data={tmp_path / 'data'}", "--datasets=rte", f"--to={tmp_path / 'to'}", "--workers=1"]
    prepare.main(arguments)
    printed = capsys.readouterr().out
    assert all(f"left out: {note}" in printed for note in source.notes)


def test_a_file_of_another_format_is_named_and_costs_its_dataset_alone(tmp_path):
    for name in ("rte", "sst2"):
        split, rows = samples_of(catalog.dataset(name))
        opened(catalog.dataset(name), rows, split, tmp_path, prefix=b"\xef\xbb\xbf")
    file = tmp_path / "data" / "rte" / "validation.jsonl"
    file.write_bytes(json.dumps(rows[0]).encode("utf-16"))
    found = list(sources.open_all([catalog.dataset("rte"), catalog.dataset("sst2")], tmp_path / "data"))
    assert "rte/validation.jsonl is text in UTF-16" in found[0][1].reason
    assert len(fields_of(*found[1])) == 4 and found[1][1].bad_rows == ()  # a byte order mark costs no row


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.mkdir(), "cannot read rte/validation.jsonl: Is a directory"),
        (lambda path: path.symlink_to("nowhere"), "cannot read rte/validation.jsonl: No such file"),
        (lambda path: path.symlink_to(path.name), "cannot read rte/validation.jsonl: Too many levels"),
        (lambda path: path.write_bytes(gzip.compress(b"{}\n")), "rte/validation.jsonl is compressed by gzip"),
        (lambda path: path.write_bytes(b"\xff\xfe{\0"), "rte/validation.jsonl is text in UTF-16"),
    ],
    ids=["folder", "dangling", "loop", "gzip", "utf16"],
)
def test_a_file_that_cannot_be_read_skips_its_dataset(spoil, reason, tmp_path):
    split, rows = samples_of(catalog.dataset("rte"))
    opened(catalog.dataset("rte"), rows, split, tmp_path)
    spoil(tmp_path / "data" / "rte" / "validation.jsonl")
    ((_, found),) = sources.open_all([catalog.dataset("rte")], tmp_path / "data")
    assert found.reason.startswith(reason)


def test_a_null_among_answers_ends_nothing(tmp_path, capsys):
    """E6: TFDS' TypeError ended the preparation of all datasets."""
    for name, change in (("natural_questions", {"answer": ["a", None]}), ("rte", None)):
        split, rows = samples_of(catalog.dataset(name))
        opened(catalog.dataset(name), [*rows, *([{**rows[0], **change}] if change else [])], split, tmp_path)
    names = ["natural_questions", "rte"]
    prepare.main([f"--data={tmp_path / 'data'}", f"--datasets={','.join(names)}", f"--to={tmp_path / 'to'}", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["dataset"] for one in result["datasets"]] == names and result["skipped"] == []
    assert result["bad_rows"] == [
        "natural_questions_open/train.jsonl line 5: field 'answer' is NoneType, not text",
    ]


def test_many_bad_rows_of_one_file_do_not_hide_those_of_another(tmp_path, capsys):
    for name, bad in (("rte", 30), ("sst2", 1)):
        split, rows = samples_of(catalog.dataset(name))
        opened(catalog.dataset(name), [*rows, *[{"label": 0}] * bad], split, tmp_path)
    prepare.main([f"--data={tmp_path / 'data'}", "--datasets=rte,sst2", f"--to={tmp_path / 'to'}", "--json"])
    printed, result = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert "left out: rte/train.jsonl line 9: field 'premise' is missing" in printed
    assert "left out: 25 more rows of rte/train.jsonl" in printed
    assert "left out: sst2/train.jsonl line 5: field 'sentence' is missing" in printed
    assert len(json.loads(result)["bad_rows"]) == 31


# --------------------------------------------------------------------------------------- records that TFDS itself has


def as_stored(feature):
    """A feature as TFDS stores it, without its checks: a download may hold what the schema does not allow."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return tfds.features.FeaturesDict({name: as_stored(inner) for name, inner in feature.items()})
    return tfds.features.Scalar(np.int64) if isinstance(feature, tfds.features.ClassLabel) else feature


def stored_by_tfds(record, rows, folder):
    """A TFDS data folder that holds rows as they are."""
    builder = sources.builder_of(record, folder)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=builder.name,
        version=str(builder.version),
        features=as_stored(builder.info.features),
        split_datasets={split: list(enumerate(found)) for split, found in rows.items()},
        config=builder.builder_config.name if builder.builder_config else None,
        data_dir=str(folder),
    )
    metadata = sources.builder_of(record, folder).data_path / "features.json"
    metadata.unlink()  # the schema is the builder's own
    return folder


def imdb_rows(count, start=0):
    return [{"text": f"Film {n} is fine.", "label": n % 2} for n in range(start, start + count)]


@pytest.fixture
def downloaded(tmp_path):
    """IMDB with labels out of range and texts without text, in train and in test."""
    bad = [{"text": "Label.", "label": 7}, {"text": " \u00a0", "label": 1}, {"text": "None.", "label": -1}]
    rows = {"train": imdb_rows(6) + bad + imdb_rows(6, 6), "test": [*imdb_rows(5), {"text": "Far.", "label": 2**40}]}
    return stored_by_tfds(catalog.dataset("imdb_reviews"), rows, tmp_path / "downloaded")


def prepared(data, to, *arguments):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        prepare.main([f"--data={data}", "--datasets=imdb_reviews", f"--to={to}", "--json", *arguments])
    return json.loads(printed.getvalue().splitlines()[-1]), printed.getvalue()


def test_all_paths_drop_the_same_records_of_a_download(downloaded, tmp_path):
    record = catalog.dataset("imdb_reviews")
    source = sources.open_source(record, downloaded)
    assert (source.origin, source.splits["train"].size + source.splits["validation"].size) == ("tfds", 15)

    def ids(split):
        return [identity for identity, _ in tasks.text_records(usable.usable(record, source.read(split)))]

    left = {split: source.splits[split].size - len(ids(split)) for split in source.splits}
    assert left["train"] + left["validation"] == 3 and left["test"] == 1

    report, printed = prepared(downloaded, tmp_path / "to", "--workers=1")
    (figures,) = report["datasets"]
    assert figures["train"] == len(ids("train")) and figures["unusable"] == 4
    assert (figures["dev"], figures["test"]) == (len(ids("validation")), len(ids("test")))
    assert len(report["bad_rows"]) == 4 and all("imdb_reviews record imdb" in row for row in report["bad_rows"])
    assert sum("it has no usable label" in row for row in report["bad_rows"]) == 3
    assert sum("there is no text for 'review'" in row for row in report["bad_rows"]) == 1
    assert printed.count("left out: imdb_reviews record") == 4
    again, printed = prepared(downloaded, tmp_path / "to", "--workers=1")  # from what is stored
    assert again["datasets"][0]["kept"] and again["bad_rows"] == report["bad_rows"]

    stored = token_store.TokenStore.open(tmp_path / "to", BYTES.fingerprint)["imdb_reviews"]
    assert stored.num_records == len(ids("train"))
    assert [row["id"] for row in examples.read(tmp_path / "to", "imdb_reviews", "test")] == ids("test")
    assert [row["id"] for row in examples.read(tmp_path / "to", "imdb_reviews", "exemplars")] == ids("train")
    assert [identity for identity, _ in tasks.exemplar_pool(record, source)] == ids("train")

    lines = list(export.examples(record, source, "test"))
    assert [line["record_id"] for line in lines] == ids("test")
    seen = shown.examples("imdb_reviews", split="test", count=99, data=str(downloaded))
    assert [one.record_id for one in seen] == ids("test")

    tasks.register(data=downloaded)
    task = seqio.get_mixture_or_task("flan_imdb_reviews")
    found = task.get_dataset({"inputs": 999, "targets": 99}, "test", shuffle=False).as_numpy_iterator()
    assert [row["record_id"].decode() for row in found] == ids("test")


def test_beam_drops_and_counts_the_same(downloaded, tmp_path):
    pytest.importorskip("apache_beam")
    one, _ = prepared(downloaded, tmp_path / "one", "--workers=1")
    beam, _ = prepared(
        downloaded, tmp_path / "two", f"--shards={tmp_path / 'shards'}", "--beam_pipeline_options=runner=DirectRunner"
    )
    assert one["datasets"] == beam["datasets"] and one["bad_rows"] == beam["bad_rows"]
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.suffix in (".npy", ".bin")]
    assert files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_an_exception_of_one_source_skips_it(tmp_path):
    """Whatever a dataset's own code raises, in Python or in TensorFlow, the others go on."""
    rte = catalog.dataset("rte")

    def in_python(row):
        raise KeyError("no such field")

    def in_tensorflow(row):
        fields = rte.fields(row)
        return {**fields, "answer": fields["options"][tf.strings.length(row["premise"]) % 50]}

    options = preparation.Options()
    outcome = parallel.attempt(dataclasses.replace(rte, fields=in_python), "samples", BYTES, tmp_path, options)
    assert outcome.figures is None and "KeyError" in outcome.skipped.reason
    record = dataclasses.replace(rte, fields=in_tensorflow)
    source = sources.open_source(record, "samples")
    assert {row.problem.partition(" (")[0] for row in source.bad_rows} == {"its fields cannot be made"}
    outcome = parallel.attempt(record, "samples", BYTES, tmp_path, options)
    assert outcome.figures is not None or outcome.skipped.reason


def test_the_check_agrees_with_the_templates():
    """Every field that a template shows is one that must not be blank."""
    for record in catalog.datasets():
        assert usable.shown_fields(record)[0] == "answer"
        texts = [usable.problem_text(record, number + 1) for number in range(5 + len(usable.shown_fields(record)))]
        assert len(set(texts)) == len(texts)


def test_the_code_of_a_dataset_is_all_that_its_fields_use():
    """ANLI's stories are put together by a function of the paraphrases."""
    nli = Path(inspect.getfile(catalog.dataset("anli_r1").fields))
    assert {"nli.py", "fields.py", "paraphrase.py"} <= {file.name for file in usable._with_what_it_imports(nli)}
