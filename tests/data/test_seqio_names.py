"""How SeqIO finds our tasks: modules that T5X imports, settings, names of styles, vocabularies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import seqio
import tensorflow as tf

from flan_jax.data import tasks
from flan_jax.errors import FlanError

pytestmark = pytest.mark.slow

LENGTHS = {"inputs": 512, "targets": 64}


@pytest.fixture(scope="module", autouse=True)
def registered():
    tasks.register()
    yield
    tasks.register()


def read(name):
    return list(seqio.get_mixture_or_task(name).get_dataset(LENGTHS, shuffle=False).as_numpy_iterator())


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("module", ["flan_jax.mixtures", "flan_jax.data.tasks"])
def test_t5x_finds_a_mixture_by_importing_its_module(module):
    code = f"""
import importlib, time
import seqio
from flan_jax.data import sources
def opened(*_):
    raise AssertionError("a source was opened")
sources.open_source = opened
start = time.process_time()
importlib.import_module({module!r})
took = time.process_time() - start
assert took < 1, took
assert "flan_without_nli" in seqio.MixtureRegistry.names()
names = "flan flan_without_nli flan_rte flan_rte_no_template flan_without_nli_5_shots flan_rte_t3_score_eval"
for name in names.split():
    print(type(seqio.get_mixture_or_task(name)).__name__)
"""
    assert run(code).split() == ["OpenMixture", "OpenMixture", "Task", "Task", "OpenMixture", "Task"]


def test_settings_of_gin_and_the_environment(tmp_path):
    """Gin first, also where it is parsed after the import; then the environment."""
    code = """
import gin, seqio
import flan_jax.mixtures
gin.parse_config("flan_jax.mixtures.settings.seed = 7")
task = seqio.get_mixture_or_task("flan_rte")
listed = "flan_rte_no_template" in list(seqio.TaskRegistry.names())
print(task.preprocessors[1].keywords["seed"], task.source._data, listed)
"""
    environment = {"FLAN_JAX_SEQIO_DATA": str(tmp_path), "FLAN_JAX_SEQIO_SEED": "3"}
    found = run(code, **environment, FLAN_JAX_SEQIO_NAMES="flan_rte_no_template")
    assert found.split() == ["7", str(tmp_path), "True"]


def test_settings_of_a_gin_file_with_dynamic_registration():
    """As T5X's gin files are written; a vocabulary may be configured there too."""
    code = """
import gin, seqio
gin.parse_config('''
from __gin__ import dynamic_registration
import seqio
from flan_jax import mixtures
seqio.ByteVocabulary.extra_ids = 5
mixtures.settings.vocabulary = @seqio.ByteVocabulary()
mixtures.settings.seed = 9
''')
task = seqio.get_mixture_or_task("flan_rte")
vocabulary = task.output_features["inputs"].vocabulary
print(task.preprocessors[1].keywords["seed"], type(vocabulary).__name__, vocabulary.extra_ids)
"""
    assert run(code).split() == ["9", "ByteVocabulary", "5"]


def test_the_modules_do_not_undo_what_a_program_registered(tmp_path):
    code = """
import seqio
from flan_jax.data import tasks
tasks.register(seed=5)
import flan_jax.mixtures
print(seqio.get_mixture_or_task("flan_rte").preprocessors[1].keywords["seed"])
"""
    assert run(code).split() == ["5"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("flan_rtee", "'flan_rte'"),
        ("flan_without_nlii_no_template", "'flan_without_nli_no_template'"),
        ("flan_rte_5_shots_no_template", "'flan_rte_no_template_5_shots'"),
        ("flan_rte_t11", "'flan_rte_t1'"),
        ("flan_rte_t9_score_eval", "'flan_rte_t7_score_eval'"),
    ],
)
def test_near_names_are_in_the_error(name, near):
    with pytest.raises(FlanError, match="unknown task or mixture") as error:
        seqio.get_mixture_or_task(name)
    assert near in str(error.value) and "\n" not in str(error.value)
    assert name not in seqio.TaskRegistry.names()
    with pytest.raises(ValueError, match="not registered"):
        seqio.TaskRegistry.get(name)


def test_others_can_take_our_names_and_theirs_stay():
    task = seqio.get_mixture_or_task("flan_rte")
    seqio.TaskRegistry.add_provider("flan_of_mine", task)
    try:
        with pytest.raises(ValueError, match="duplicate"):
            seqio.TaskRegistry.add_provider("flan_rte_2_shots", task)
        seqio.TaskRegistry.remove("flan_rte_2_shots")
        seqio.TaskRegistry.add_provider("flan_rte_2_shots", task)
        assert seqio.get_mixture_or_task("flan_rte_2_shots") is task
        tasks.register()
        assert seqio.get_mixture_or_task("flan_of_mine") is task
        mine = seqio.Mixture("mine", ["flan_rte_no_template", "flan_cb_5_shots"], default_rate=1)
        assert [t.name for t in mine.tasks] == ["flan_cb_5_shots", "flan_rte_no_template"]
    finally:
        seqio.TaskRegistry.remove("flan_of_mine")
        seqio.TaskRegistry.remove("flan_rte_2_shots")
        tasks.register()


def sentencepiece_model(folder: Path) -> Path:
    import sentencepiece

    lines = [row["inputs_pretokenized"].decode().replace("\n", " ") for row in read("flan_rte")]
    prefix = folder / "spm"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(prefix), vocab_size=200, hard_vocab_limit=False, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    return prefix.with_suffix(".model")


def test_stock_vocabularies(tmp_path):
    ours = [row["inputs"].tolist() for row in read("flan_rte")]
    stock = sentencepiece_model(tmp_path)
    try:
        tasks.register(vocabulary=seqio.ByteVocabulary())
        assert [row["inputs"].tolist() for row in read("flan_rte")] == ours
        tasks.register(vocabulary=seqio.SentencePieceVocabulary(str(stock)))
        pieces = [row["inputs"].tolist() for row in read("flan_rte")]
        few = [row["inputs"].tolist() for row in read("flan_rte_2_shots")]
        tasks.register(vocabulary=stock)  # ours, of the same file
        assert [row["inputs"].tolist() for row in read("flan_rte")] == pieces
        assert [row["inputs"].tolist() for row in read("flan_rte_2_shots")] == few
        assert sum(map(len, few)) > sum(map(len, pieces)) > 0
    finally:
        tasks.register()


@pytest.mark.parametrize(
    ("vocabulary", "problem"),
    [
        (lambda: seqio.PassThroughVocabulary(100), "PassThroughVocabulary gives text no ids"),
        (lambda: seqio.UnigramVocabulary(["a"]), "UnigramVocabulary"),
        (lambda: seqio.SentencePieceVocabulary("/no/such.model"), "SentencePieceVocabulary cannot be used"),
        (lambda: seqio.ByteVocabulary, "ByteVocabulary: make one of it"),
        (lambda: "/no/such.model", "no vocabulary at '/no/such.model'"),
        (lambda: 3, "vocabulary int"),
        (lambda: {"inputs": seqio.ByteVocabulary()}, "vocabulary dict"),
    ],
    ids=["pass_through", "unigram", "no_file", "a_class", "no_path", "number", "dict"],
)
def test_a_vocabulary_that_cannot_be_used_is_refused_at_once(vocabulary, problem):
    with pytest.raises(FlanError, match=problem) as error:
        tasks.register(vocabulary=vocabulary())
    assert "\n" not in str(error.value)


def test_text_that_is_no_utf_8_has_the_same_ids_in_tensorflow():
    vocabulary = seqio.get_mixture_or_task("flan_rte").output_features["inputs"].vocabulary
    for value in (b"", b"abc", "naïve \U0001f600".encode(), b"\xff", b"a\xc3", b"\xe2\x82 x"):
        expected = vocabulary.tokenizer.encode([value.decode("utf-8", "replace")])[0]
        assert vocabulary.encode_tf(tf.constant(value)).numpy().tolist() == expected
    both = vocabulary.encode_tf(tf.constant([b"ab", b"", "é".encode()]))
    assert both.to_list() == vocabulary.tokenizer.encode(["ab", "", "é"])
