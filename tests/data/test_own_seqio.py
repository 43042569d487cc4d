"""SeqIO tasks and mixtures of a user's own, good and hostile, read as text."""

import pytest
import seqio
import tensorflow as tf

from flan_jax import own_data, prepare
from flan_jax.data.own import seqio_tasks
from flan_jax.errors import FlanError

VOCABULARY = seqio.ByteVocabulary()
FEATURES = dict.fromkeys(("inputs", "targets"), seqio.Feature(VOCABULARY))
AS_TEXT = dict.fromkeys(FEATURES, seqio.Feature(seqio.PassThroughVocabulary(10), dtype=tf.string, rank=0))
AS_FLOATS = dict.fromkeys(FEATURES, seqio.Feature(seqio.PassThroughVocabulary(10), dtype=tf.float32, rank=0))
TEXTS = {"inputs": [f"ask {n}" for n in range(10)], "targets": [f"say {n}" for n in range(10)]}


def source(columns=None, endless=False, counted=True):
    def dataset(split, shuffle_files=False, seed=None):
        made = tf.data.Dataset.from_tensor_slices(columns or TEXTS)
        made = made.repeat() if endless else made
        return made if counted else made.filter(lambda row: True)

    return seqio.FunctionDataSource(dataset, splits=["train"])


def only(dataset, *names):
    return dataset.map(lambda row: {name: row[name] for name in names})


def packed(dataset):
    return seqio.utils.trim_and_pack_dataset(only(dataset, "inputs", "targets"), {"inputs": 32, "targets": 32})


def failing(dataset):
    def broken(row):
        raise RuntimeError("a bug of mine")

    return dataset.map(broken)


TOKENIZED = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
NUMBERS = {"inputs": [[1, 2]], "targets": [[3]]}
TASKS = {
    "text": {"source": source(), "preprocessors": [], "output_features": AS_TEXT},
    "tokens_and_text": {"preprocessors": TOKENIZED},
    "tokens": {"preprocessors": [*TOKENIZED, lambda dataset: only(dataset, "inputs", "targets")]},
    "endless": {"source": source(endless=True), "preprocessors": TOKENIZED},
    "endless_uncounted": {"source": source(endless=True, counted=False), "preprocessors": TOKENIZED},
    "with_options": {
        "source": source(TEXTS | {"options": [[f"say {n}", "no"] for n in range(10)]}),
        "preprocessors": [],
        "output_features": AS_TEXT,
    },
    "some_empty": {
        "source": source(TEXTS | {"targets": ["", *TEXTS["targets"][1:]]}),
        "preprocessors": [],
        "output_features": AS_TEXT,
    },
    "not_utf8": {
        "source": source({"inputs": [b"\xff", b"a"], "targets": [b"b", b"c"]}),
        "preprocessors": [],
        "output_features": AS_TEXT,
    },
    "nothing": {
        "source": source({name: tf.constant([], tf.string) for name in ("inputs", "targets")}),
        "preprocessors": [],
        "output_features": AS_TEXT,
    },
    "no_targets": {"preprocessors": [], "output_features": {"inputs": FEATURES["inputs"]}},
    "targets_alone": {"preprocessors": [], "output_features": {"targets": FEATURES["targets"]}},
    "gives_no_targets": {"preprocessors": [lambda d: only(d, "inputs")]},
    "numbers": {
        "source": source(NUMBERS),
        "preprocessors": [],
        "output_features": dict.fromkeys(FEATURES, seqio.Feature(seqio.PassThroughVocabulary(10), dtype=tf.int32)),
    },
    "floats": {
        "source": source({"inputs": [0.5], "targets": [0.5]}),
        "preprocessors": [],
        "output_features": AS_FLOATS,
    },
    "packed": {"preprocessors": [*TOKENIZED, packed]},
    "failing": {"preprocessors": [failing]},
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    for name, how in TASKS.items():
        seqio.TaskRegistry.add(
            f"hostile_{name}", **({"source": source(), "output_features": FEATURES, "metric_fns": []} | how)
        )
    seqio.MixtureRegistry.add("hostile_mixture", [("hostile_text", 3.0), ("hostile_with_options", 0.0)])
    seqio.MixtureRegistry.add("hostile_rates", [("hostile_text", 3.0), ("hostile_some_empty", 1.0)])
    seqio.MixtureRegistry.add("hostile_ends", [("hostile_text", 1.0), ("hostile_nothing", 1.0)])
    yield
    for name in TASKS:
        seqio.TaskRegistry.remove(f"hostile_{name}")
    for name in ("hostile_mixture", "hostile_rates", "hostile_ends"):
        seqio.MixtureRegistry.remove(name)


@pytest.mark.parametrize("name", ["text", "tokens_and_text", "tokens", "with_options"])
def test_text_is_the_same_whether_it_was_tokenized_or_not(name):
    found = seqio_tasks.read(f"hostile_{name}")
    assert [(r.fields["inputs"], r.fields["answer"]) for r in found.records] == list(zip(*TEXTS.values(), strict=True))
    assert [record.identity for record in found.records] == [str(n) for n in range(10)]
    assert bool(found.notes) == (name == "tokens")  # it is said that they were decoded
    assert ("options" in found.records[0].fields) == (name == "with_options")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hostile_no_targets", "has no feature 'targets', only inputs"),
        ("hostile_targets_alone", "has no feature 'inputs'"),
        ("hostile_gives_no_targets", "targets"),
        ("hostile_numbers", "numbers of no vocabulary"),
        ("hostile_floats", "float32 of rank 0"),
        ("hostile_packed", "packed already"),
        ("hostile_failing", "a bug of mine"),
        ("hostile_endless", "has no end"),
        ("hostile_rates", "drawn by its rates without end"),
        ("hostile_txet", "hostile_text"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name, words):
    with pytest.raises(FlanError) as error:
        seqio_tasks.read(name)
    assert name in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_what_has_no_end_is_bounded(monkeypatch):
    for name in ("endless", "endless_uncounted", "text"):
        assert len(seqio_tasks.read(f"hostile_{name}", max_examples=7).records) == 7
    monkeypatch.setattr(seqio_tasks, "MAX_RECORDS", 20)
    with pytest.raises(FlanError, match="more than 20 records, or no end"):
        seqio_tasks.read("hostile_endless_uncounted")


def test_a_mixture_is_drawn_by_its_rates_and_the_same_again():
    read = [seqio_tasks.read("hostile_rates", max_examples=40) for _ in range(2)]
    assert [one.fields for one in read[0].records] == [one.fields for one in read[1].records]
    assert len(read[0].records) + len(read[0].bad) == 40


def test_a_mixture_that_ends_early_says_so():
    found = seqio_tasks.read("hostile_ends", max_examples=40)
    assert len(found.records) < 40 and any("the mixture ends after" in note for note in found.notes)


def test_tasks_of_the_catalog_get_no_other_cluster():
    from flan_jax.data import tasks

    tasks.register()
    seqio.MixtureRegistry.add("hostile_and_ours", [("flan_cb", 1), ("flan_rte", 1)])
    for name, line in (
        ("flan_rte", "flan_rte is of the catalog"),
        ("hostile_and_ours", "draws from flan_cb, which is of"),
    ):
        with pytest.raises(FlanError, match=line):
            seqio_tasks.read(name, max_examples=5)
    seqio.MixtureRegistry.remove("hostile_and_ours")


@pytest.mark.parametrize(("name", "bad"), [("some_empty", '"targets" is empty'), ("not_utf8", '"inputs" is no UTF-8')])
def test_records_that_are_no_text_are_named(name, bad):
    found = seqio_tasks.read(f"hostile_{name}")
    assert found.bad == [("train record 0", bad)]
    with pytest.raises(FlanError, match="train record 0"):
        found.check(name, leave_out=False)
    found.check(name, leave_out=True)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('a bug\\nof mine')", "importing it fails (RuntimeError: a bug of mine)"),
        ("def broken(:", "SyntaxError"),
        ("import not_installed_here", "needs 'not_installed_here'"),
        ("import sys; sys.exit(3)", "SystemExit"),
        (None, "there is no such module"),
        ("", "unknown SeqIO task or mixture 'nothing_here'"),
    ],
)
def test_a_module_that_fails_is_named(code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(own_data.VARIABLE, "")
    monkeypatch.syspath_prepend(tmp_path)
    name = f"their_tasks_{abs(hash(code))}"
    if code is not None:
        (tmp_path / f"{name}.py").write_text(code)
    with pytest.raises(SystemExit) as ended:
        prepare.main(["--seqio=nothing_here", f"--module={name}", f"--to={tmp_path / 'to'}"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words in said and said.count("\n") == 1 and not (tmp_path / "to").exists()
