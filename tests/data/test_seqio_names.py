"""How SeqIO finds our tasks: modules that T5X imports, settings, names of styles, vocabularies."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
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


OF_T5X = """
import importlib, time
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
OF_GIN = """
import gin
os.environ |= {"FLAN_JAX_SEQIO_DATA": folder, "FLAN_JAX_SEQIO_SEED": "3"}
os.environ["FLAN_JAX_SEQIO_NAMES"] = "flan_rte_no_template"
import flan_jax.mixtures
gin.parse_config("flan_jax.mixtures.settings.seed = 7")
task = seqio.get_mixture_or_task("flan_rte")
listed = "flan_rte_no_template" in list(seqio.TaskRegistry.names())
print(task.preprocessors[1].keywords["seed"], task.source._data, listed)
"""
OF_A_GIN_FILE = """
import gin
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
OF_REGISTER = """
from flan_jax.data import tasks
tasks.register(seed=5)
import flan_jax.mixtures
print(seqio.get_mixture_or_task("flan_rte").preprocessors[1].keywords["seed"])
"""
PROGRAMS = {
    "flan_jax.mixtures": OF_T5X.format(module="flan_jax.mixtures"),
    "flan_jax.data.tasks": OF_T5X.format(module="flan_jax.data.tasks"),
    "gin": OF_GIN,
    "gin file": OF_A_GIN_FILE,
    "register": OF_REGISTER,
}
# Each program has a process that has not imported ours; SeqIO and TensorFlow, which take longer, are imported once.
PARENT = """
import json, os, sys, traceback
import seqio
folder, programs = sys.argv[1], json.loads(sys.argv[2])
for number, code in enumerate(programs):
    assert not [name for name in sys.modules if name.startswith("flan_jax")]
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, code
        continue
    status = 1
    try:
        sys.stdout = open(f"{folder}/{number}.txt", "w")
        exec(code, {"seqio": seqio, "os": os, "folder": folder})
        sys.stdout.close()
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each program printed; and the folder of data that one of them was given."""
    folder = tmp_path_factory.mktemp("printed")
    command = [sys.executable, "-c", PARENT, str(folder), json.dumps(list(PROGRAMS.values()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (folder / f"{number}.txt").read_text().split() for number, name in enumerate(PROGRAMS)}, folder


@pytest.mark.parametrize("module", ["flan_jax.mixtures", "flan_jax.data.tasks"])
def test_t5x_finds_a_mixture_by_importing_its_module(printed, module):
    of_task, of_mixture = "CatalogTask", "OpenMixture"
    assert printed[0][module] == [of_mixture, of_mixture, of_task, of_task, of_mixture, of_task]


def test_settings_of_gin_and_the_environment(printed):
    """Gin first, also where it is parsed after the import; then the environment."""
    assert printed[0]["gin"] == ["7", str(printed[1]), "True"]


def test_settings_of_a_gin_file_with_dynamic_registration(printed):
    """As T5X's gin files are written; a vocabulary may be configured there too."""
    assert printed[0]["gin file"] == ["9", "ByteVocabulary", "5"]


def test_the_modules_do_not_undo_what_a_program_registered(printed):
    assert printed[0]["register"] == ["5"]


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


@pytest.mark.parametrize("registry", [seqio.TaskRegistry, seqio.MixtureRegistry])
def test_after_a_reset_the_error_says_how_to_register_again(registry):
    name = "flan_rte" if registry is seqio.TaskRegistry else "flan_without_nli"
    registry.reset()
    try:
        with pytest.raises(FlanError, match=re.escape(f"{name!r} is no longer in SeqIO's registry")) as error:
            seqio.get_mixture_or_task(name)
        assert "flan_jax.data.tasks.register()" in str(error.value)
    finally:
        tasks.register()
    assert seqio.get_mixture_or_task(name).name == name


def test_capitals_are_no_reason_for_no_near_names():
    with pytest.raises(FlanError, match="did you mean 'flan_rte'"):
        seqio.get_mixture_or_task("FLAN_RTE")


def test_mixtures_of_others_that_keep_earlier_tasks_are_named(caplog):
    seqio.MixtureRegistry.add("of_mine", [("flan_rte", 1), ("flan_without_nli", 1)])
    seqio.MixtureRegistry.add("of_tasks_of_mine_alone", [("flan_cb_2_shots", 1)])
    try:
        seqio.get_mixture_or_task("flan_cb")
        tasks.register(seed=1)
        warned = [record.getMessage() for record in caplog.records]
        assert "mixture of_mine keeps flan_rte, flan_without_nli as registered before; make it again." in warned
        assert len([w for w in warned if "registered before" in w]) == 2
    finally:
        for name in ("of_mine", "of_tasks_of_mine_alone"):
            seqio.MixtureRegistry.remove(name)
        tasks.register()


@pytest.mark.parametrize("data", ["", 5, None, "/no/such/folder", "a\0b"])
@pytest.mark.parametrize("through", ["register", "module"])
def test_data_that_cannot_be_are_refused_in_one_line(data, through):
    try:
        with pytest.raises(FlanError, match="path|no folder") as error:
            if through == "register":
                tasks.register(data=data)
            else:
                tasks._offer(lambda: tasks.Settings(data=data))
                seqio.get_mixture_or_task("flan_rte")
        assert "\n" not in str(error.value)
    finally:
        tasks.register()


@pytest.mark.parametrize(
    "name", ["flan_rte_score_eval", "flan_rte", "flan_squad_v1_2_shots", "flan_wmt16_translate_deen", "flan_multirc"]
)
def test_tasks_go_through_pickle(name):
    task = seqio.get_mixture_or_task(name)
    copy = pickle.loads(pickle.dumps(task))
    again = [list(t.get_dataset(LENGTHS, "train", shuffle=False).as_numpy_iterator()) for t in (task, copy)]
    assert [e["inputs_pretokenized"] for e in again[0]] == [e["inputs_pretokenized"] for e in again[1]]
    assert len(copy.metric_fns) == len(task.metric_fns) > 0


def test_a_dead_source_ends_nothing_but_itself(tmp_path, caplog):
    """A mixture of someone else's, the Evaluator and SeqIO's caching go on; who asks for its records gets the error."""
    rows = [{"premise": f"{n} cats", "hypothesis": "cats", "label": n % 2, "idx": n} for n in range(4)]
    for split in ("train", "validation"):
        file = tmp_path / "rte" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks.register(data=tmp_path)
    seqio.MixtureRegistry.add("of_mine", ["flan_rte", "flan_qnli", "flan_cb_t1"], seqio.mixing_rate_num_examples)
    try:
        mixture = seqio.get_mixture_or_task("of_mine")
        assert len(list(mixture.get_dataset(LENGTHS, "train", num_epochs=1))) == 3  # dev takes the fourth
        evaluator = seqio.Evaluator("of_mine", seqio.EncDecFeatureConverter(pack=False), eval_split="test")
        assert [task.name for task in evaluator.eval_tasks] == ["flan_rte"]
        warned = [record.getMessage() for record in caplog.records if "goes on without" in record.getMessage()]
        assert len(warned) == 2 and "dataset qnli: no folder qnli/" in "".join(warned)
        assert seqio.get_mixture_or_task("flan_qnli").splits == ()
        with pytest.raises(FlanError, match="dataset qnli: no folder qnli/"):
            seqio.get_mixture_or_task("flan_qnli").get_dataset(LENGTHS, "train")
    finally:
        seqio.MixtureRegistry.remove("of_mine")
        tasks.register()


@pytest.mark.parametrize("wrong", [1, 0, -5, True, "400", 300.5, 2**40, float("nan"), np.int64(400), 400.0])
def test_lengths_that_are_none_are_refused_with_what_to_give(wrong):
    with pytest.raises(FlanError, match="dataset rte: length of inputs is") as error:
        seqio.get_mixture_or_task("flan_rte").get_dataset({"inputs": wrong, "targets": 8})
    assert ("give 400" if wrong == 400 else "it") in str(error.value)


def test_splits_and_shards_that_are_not_there_are_named_with_those_that_are():
    task = seqio.get_mixture_or_task("flan_rte")
    for split in ("dev", "train[:2]", None):
        with pytest.raises(FlanError, match="it has train, validation, test"):
            task.get_dataset(LENGTHS, split)
        with pytest.raises(FlanError, match="it has train, validation, test"):
            task.num_input_examples(split)
    assert seqio.get_mixture_or_task("flan_wsc273").num_input_examples("train") == 0
    for index in (-1, 5):
        with pytest.raises(FlanError, match=f"dataset rte: there is no shard {index} of 5"):
            task.get_dataset(LENGTHS, shard_info=seqio.ShardInfo(index, 5))


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
