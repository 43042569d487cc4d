"""Values of macros and arguments: those that are no such value end in one line, the others are as they are to be used.

The same values go through gin, where macros have names, and into the functions, where arguments have.
"""

import inspect
from pathlib import Path

import gin
import numpy as np
import pytest

from flan_jax import configuration, eval, macro_checks, macros
from flan_jax.errors import FlanError
from flan_jax.evaluation import during_training
from flan_jax.training import configurables, loop, optimizers  # noqa: F401 - what a run file configures

RUNS = {
    "runs/tune.gin": {"MODEL_DIR": "m", "PREPARED_DIR": "p"},
    "runs/eval.gin": {"CHECKPOINT_PATH": "c", "EVAL_OUTPUT_DIR": "o", "PREPARED_DIR": "p"},
}
FUNCTIONS = {"train": loop.train, "evaluate": eval.evaluate, "adafactor": optimizers.adafactor}
FUNCTIONS["evaluating"] = during_training.evaluating
NAN = float("nan")
NO_WHOLE = [1.5, True, False, "8", "", NAN, float("inf"), -float("inf"), -1, -0.5, None, (3,), [8], {}, 2**40, 10**400]
NO_PATH = [
    "a\nb",
    "a\tb",
    "\x1b[31m",
    "",
    "  ",
    5,
    True,
    ["a"],
    {"a": 1},
    "gs:/bucket/run",
    "gs://b",
    "a\0b",
    "~nobody_here/run",
]
NO_NUMBER = [0, -1, NAN, float("inf"), "3e-5", None, True, 1e9, (1,)]

WRONG = {
    "TRAIN_STEPS": [*NO_WHOLE, 0],
    "BATCH_SIZE": [*NO_WHOLE, 0, 10**7],
    "MICROBATCHES": [*NO_WHOLE, 0],
    "LOSS_AVERAGING": ["", "per_tokens", "PER_TOKEN", "mean", 1, None, True, ("per_token",)],
    "LOSS_ON_INPUTS": [1, 0, "True", None, "no", ()],
    "Z_LOSS": [-1, -1e-9, 1.5, NAN, float("inf"), "1e-4", None, True, (1e-4,)],
    "LABEL_SMOOTHING": [1, 1.0, -0.1, 10, NAN, float("inf"), "0.1", None, True, [0.1]],
    "DROPOUT_RATE": [1, 1.0, -0.1, 10, NAN, -float("inf"), "0.1", None, False, (0.1,)],
    "CHECKPOINT_PERIOD": [*NO_WHOLE, 0],
    "LOG_PERIOD": [*NO_WHOLE, 0],
    "EVAL_PERIOD": [*(x for x in NO_WHOLE if x is not None), 0],
    "KEEP_CHECKPOINTS": [*NO_WHOLE, 0],
    "KEEP_EVERY": [*(x for x in NO_WHOLE if x is not None), 0],
    "KEEP_BEST": [
        *("loss", 3, True, ("loss", 2), {}, {"figure": ""}, {"figure": 3}, {"best": "lowest"}),
        *({"figure": "loss", "best": "least"}, {"figure": "loss", "count": 0}, {"figure": "loss", "n": 2}),
    ],
    "ON_NAN": [*NO_WHOLE, 0, "x", "Stop", "skip", "3"],
    "GRACE_SECONDS": [-1, NAN, float("inf"), "25", None, True, (25,), 1e6],
    "NO_STEP_SECONDS": [0, -5, 0.5, NAN, "1800", True, (60,), 1e9],
    "WARMUP_STEPS": NO_WHOLE,
    "RANDOM_SEED": [*NO_WHOLE, 2**32],  # which is the same as 0 to JAX
    "LEARNING_RATE": NO_NUMBER,
    "MODEL_DIR": [*NO_PATH, None],
    "PREPARED_DIR": [*NO_PATH, None],
    "INITIAL_CHECKPOINT_PATH": NO_PATH,
    "VOCABULARY": NO_PATH,
    "MODEL": [5, None, "", ["tiny"]],
    "MIXTURE_OR_TASK_NAME": ["flan_without_nil", "flann", "", 5, None, ("flan",)],
    "TASK_FEATURE_LENGTHS": [1024, (1024, 256), "x", {"input": 8}, {"inputs": 0}, {"targets": 1}, {"inputs": "8"}],
    "MESH": [8, "data", ("data", 1), {"model": 1}, {"data": 0}, {"data": -2}, {"data": "2"}, {"data": True}, {1: 2}],
    "COMPUTATION": [
        *("bfloat16", 16, {"dtyp": "bfloat16"}, {"dtype": "bf16"}, {"dtype": ["bfloat16"]}, {"attention_block": 0}),
        *({"unroll": 1}, {"remat": None}, {"vocab_size": 5}, {"head_chunk": 1.5}, {"attention": "cudn"}),
    ],
    "HOOKS": [
        *(5, None, True, "", "my_hooks", "a:b:c", "../a:B", "a:B(", "a b:C", {"a": 1}, {"a:B"}, ("a:B", "a:B")),
        *(("a:B", 5), ("a:B", None), (("a:B",),), b"a:B"),
    ],
    "PROFILE": [5, "1", "12", (10,), (12, 10), (0, 3), (1, 2, 3), {1: 2}, (1.5, 3), True, (1, "2"), (1, None)],
    "LOSS_SPIKE": [0, -1, NAN, float("inf"), "8", True, (8,), 1e9],
    "WANDB": [
        "flan",
        True,
        {},
        {"project": ""},
        {"name": "x"},
        {"project": "x", "mode": "of"},
        {"project": "x", "tag": 1},
    ],
    "ON_DAMAGE": ["go on", "", None, True, "Stop", 5, ("stop",)],
    "CHECKPOINT_PATH": [
        *(path for path in NO_PATH if path != ["a"]),
        None,
        {},
        (),
        {"nli": 3},
        {"nly": "x"},
        {"nli": ""},
        ("a", "a"),
        ("a", 5),
    ],
    "STEP": ["last", "", -1, True, 1.5, "5", (1, 2), NAN],
    "EVAL_OUTPUT_DIR": [*NO_PATH, None],
    "DATASETS": ["snl", ("s", "n"), (), "", False, 5, ("nli", "nly"), ("rte", "rte"), {"nli": 1}, "nli,rte", (5,)],
    "RUN_NAME": ["", 5, "two\nlines", "a\x1b[2J", "a\u2028b"],
    "BASELINE_DIR": NO_PATH,
    "BASELINE_NAME": ["", None, 5],
    "MAX_EXAMPLES": [0, -1, 1.5, True, "5", NAN],
    "MAX_DEV_EXAMPLES": [-1, None, 1.5, True, "5"],
    "MAX_NEW_TOKENS": [0, -1, 1.5, True, "5", 2**30],
    "STYLE": [5, None, "", (), "gpt4", "5_shot", "99_shots", ("gpt3", 5), ("gpt3", "gpt3"), "instructions, gpt3"],
    "WAYS": ["", "PMI", "chanel", True, (), ("pmi", "pmi"), ("pmi", 1), {"pmi": True}],
    "GENERATE": [1, "no", None],
    "CONTAMINATION": NO_PATH,
}
RIGHT = [
    ("TRAIN_STEPS", 1e3, 1000),
    ("TRAIN_STEPS", 8, 8),
    ("BATCH_SIZE", 2.0, 2),
    ("BATCH_SIZE", np.int64(4), 4),
    ("RANDOM_SEED", 2**32 - 1, 2**32 - 1),
    ("HOOKS", (), ()),
    ("HOOKS", "a:B", ("a:B",)),
    ("HOOKS", ["a.b:C(d=1, e='x')", "f:g"], ("a.b:C(d=1, e='x')", "f:g")),
    ("PROFILE", [10.0, 12], (10, 12)),
    ("PROFILE", None, None),
    ("LOSS_SPIKE", None, None),
    ("WANDB", {"project": "flan"}, {"project": "flan"}),
    ("LOSS_SPIKE", 5, 5.0),
    ("LEARNING_RATE", 1, 1.0),
    ("LOSS_AVERAGING", "per_example", "per_example"),
    ("Z_LOSS", 0, 0.0),
    ("LABEL_SMOOTHING", 0.99, 0.99),
    ("DROPOUT_RATE", 0, 0.0),
    ("KEEP_EVERY", 2e3, 2000),
    ("KEEP_BEST", {"figure": "loss", "count": 2.0}, {"figure": "loss", "count": 2}),
    ("ON_NAN", "stop", "stop"),
    ("EVAL_PERIOD", None, None),
    ("EVAL_PERIOD", 1e3, 1000),
    ("DATASETS", None, None),
    ("ON_NAN", 3.0, 3),
    ("GRACE_SECONDS", 0, 0.0),
    ("NO_STEP_SECONDS", None, None),
    ("MESH", {"data": 2.0, "fsdp": -1}, {"data": 2, "fsdp": -1}),
    ("MESH", None, None),
    ("MODEL_DIR", "~/run", "/home/me/run"),
    ("MODEL_DIR", Path("run"), "run"),
    ("INITIAL_CHECKPOINT_PATH", None, None),
    ("VOCABULARY", "bytes", "bytes"),
    ("COMPUTATION", {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    ("TASK_FEATURE_LENGTHS", {"inputs": 64.0}, {"inputs": 64}),
    ("DATASETS", ("snli"), ("snli",)),
    ("DATASETS", ["nli", "rte"], ("nli", "rte")),
    ("STYLE", "gpt3", ("gpt3",)),
    ("WAYS", "channel", ("channel",)),
    ("WAYS", ["sum", "pmi"], ("sum", "pmi")),
    ("WAYS", None, None),
    ("STEP", 100.0, 100),
    ("STEP", "all", "all"),
    ("CHECKPOINT_PATH", "~/run", ("/home/me/run",)),
    ("CHECKPOINT_PATH", {"nli": "~/run"}, {"nli": "/home/me/run"}),
    ("MAX_EXAMPLES", None, None),
    ("MAX_EXAMPLES", 5.0, 5),
]


@pytest.fixture(autouse=True)
def fresh_gin(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    gin.clear_config()
    yield
    gin.clear_config()


def _file_of(macro):
    (argument, *_) = macros.BY_MACRO[macro].arguments
    return "runs/eval.gin" if argument.startswith("evaluate") else "runs/tune.gin"


def _parse(macro, text, file=None):
    file = file or _file_of(macro)
    values = {name: repr(value) for name, value in RUNS[file].items()} | {macro: text}
    configuration.parse([file], [f"{name} = {value}" for name, value in values.items()])
    return configuration.macro(macro)


def _refused(error):
    line = str(error.value).strip()
    assert "\n" not in line and len(line) < 600
    return line


@pytest.mark.parametrize(
    ("macro", "value"), [(m, v) for m, values in WRONG.items() for v in values], ids=lambda x: repr(x)[:30]
)
def test_no_such_value(macro, value):
    setting = macros.BY_MACRO[macro]
    try:
        text = repr(value)
    except ValueError:  # of too many digits
        text = "x"
    with pytest.raises(FlanError, match=macro) as caught:
        _parse(macro, text)
    _refused(caught)
    for argument in setting.arguments:
        function, _, name = argument.partition(".")
        if function not in FUNCTIONS:
            continue
        with pytest.raises(FlanError, match=f"^{argument} is ") as caught:
            FUNCTIONS[function](**_needed(function) | {name: value})
        assert setting.meaning in _refused(caught)


def _needed(function):
    needed = {"train": {"model_dir": "m", "prepared_dir": "p", "mixture": "flan"}, "adafactor": {}}
    needed["evaluate"] = {"checkpoint_path": "c", "output_dir": "o", "prepared_dir": "p", "datasets": ("nli",)}
    needed["evaluating"] = {"period": 1, "prepared_dir": "p"}
    return needed[function]


@pytest.mark.parametrize(("macro", "value", "used"), RIGHT, ids=lambda x: repr(x)[:30])
def test_value_as_it_is_used(macro, value, used):
    argument = macros.BY_MACRO[macro].arguments[0]
    found = macro_checks.check(argument, value)
    assert found == used and type(found) is type(used)
    if isinstance(value, int | float | str | dict | None | list) and not isinstance(value, np.number):
        found = _parse(macro, repr(value))
        assert found == used and type(found) is type(used)


def test_the_table_is_complete():
    """Every argument that gin can bind has a row, and every macro of the shipped files."""
    for name, function in FUNCTIONS.items():
        arguments = {f"{name}.{argument}" for argument in inspect.signature(function).parameters}
        assert arguments - {"train.config_text", "train.evaluation"} == {
            a for a in macros.BY_ARGUMENT if a.startswith(f"{name}.")
        }
    for file, needed in RUNS.items():
        gin.clear_config()
        configuration.parse([file], [f"{name} = {value!r}" for name, value in needed.items()])
        assert configuration.declared_macros() <= set(macros.BY_MACRO)
    for setting in macros.SETTINGS:
        assert setting.meaning and setting.kind.wanted and "\n" not in setting.meaning + setting.kind.wanted


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        ("LEARNING_RATE = %FOO", "LEARNING_RATE is %FOO, and no file sets a macro FOO"),
        ("LEARNING_RATE = %LEARNING_RAT", "did you mean 'LEARNING_RATE'?"),
        ("BATCH_SIZE = %BATCH_SIZE", "is set to itself"),
        ("BATCH_SIZE = @adafactor", "BATCH_SIZE is @adafactor: it has to be a whole number"),
        ("BATCH_SIZE = @adafactor()", "BATCH_SIZE is @adafactor(): it has to be a whole number"),
        ("MESH = {'data': %FOO}", "no file sets a macro FOO"),
        ("train.batch_size = None", "train.batch_size is None: it has to be a whole number"),
        ("train.batch_size = %FOO", "no file sets a macro FOO"),
        ("train.batch_sise = 3", "train has no argument 'batch_sise': did you mean 'batch_size'"),
        ("trian.batch_size = 3", "nothing here is called 'trian': did you mean 'train'?"),
        ("train.model = 'tiny'", "it has to be a DecoderConfig, as @model_config() makes it"),
        ("train.model = @model_config", "it has to be a DecoderConfig, as @model_config() makes it"),
        ("train.optimizer = 'adam'", "it has to be an optimizer, as @adafactor() makes it"),
        ("train.optimizer = @adafactr()", "nothing here is called 'adafactr': did you mean 'adafactor' or 'factory'?"),
        ("train.keep_checkpoints = 0", "train.keep_checkpoints is 0: it has to be a whole number of at least 1"),
        ("KEEP_EVERY = 1500", "KEEP_EVERY 1500 is no multiple of CHECKPOINT_PERIOD 1000"),
        ("adafactor.parameter_scale = 1", "it has to be True or False"),
        ("MICROBATCHES = 3", "BATCH_SIZE 8 is no multiple of MICROBATCHES 3"),
        ("WARMUP_STEPS = 30001", "WARMUP_STEPS 30001 is more than TRAIN_STEPS 30000"),
        ("PROFILE = (30001, 30002)", "PROFILE (30001, 30002) begins after TRAIN_STEPS 30000"),
        ("HOOKS = (@adafactor(),)", "HOOKS is (@adafactor(),): a reference of gin cannot be a hook"),
        ("HOOKS = @adafactor", "HOOKS is @adafactor"),
        ("MESH = {'data': -1, 'fsdp': -1}", "only one axis can take what is left"),
        ("BATCH_SIZE = 8 TRAIN_STEPS = 3", "the value is no Python literal"),
        ("BATCH_SIZE = 8\nTRAIN_STEPS = 3", "the value is no Python literal"),
        ("BATCH_SIZE = (8", "the value is no Python literal"),
        ("BATCH_SIZE = 'a", "the value is no Python literal"),
        ("BATCH_SIZE = \0", "the value is no Python literal"),
        ("BATCH_SIZE = {[1]: 2}", "unhashable"),
        ("TRAIN_STEPS = 10**3", "TRAIN_STEPS has to be a whole number of at least 1"),
        ("LEARNING_RATE = nan", "LEARNING_RATE has to be a number above 0"),
        ("BATCH_SIZE = " + "[" * 300 + "8" + "]" * 300, "BATCH_SIZE"),
        ("train/BATCH_SIZE.value = 3", "nothing here is called 'BATCH_SIZE'"),
        ("a b = 3", "unknown macro 'a b'"),
    ],
)
def test_gin_s_own_tricks(binding, says):
    name, _, text = binding.partition(" = ")
    with pytest.raises(FlanError) as caught:
        _parse(name, text, "runs/tune.gin")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"datasets": ()}, "evaluate.datasets is (): name one or more"),
        ({"step": "follow", "checkpoint_path": ("a", "b")}, "'follow' follows one training run"),
        ({"step": 3, "checkpoint_path": {"nli": "a"}}, "a checkpoint for each cluster is evaluated at its last step"),
        ({"baseline_dir": "b", "run_name": "untuned"}, "are both 'untuned'"),
        ({"joint": "tab"}, "evaluate.joint is 'tab'"),
        ({"contamination": "no/such"}, "no file no/such: CONTAMINATION is what"),
        ({"output_dir": "a", "checkpoint_path": "./a/"}, "evaluate.checkpoint_path are one folder"),
        ({"output_dir": "gs://a/b", "prepared_dir": "gs://a/b/"}, "evaluate.prepared_dir are one folder"),
        ({"max_input_tokens": 1}, "evaluate.max_input_tokens is 1"),
    ],
)
def test_evaluation_refuses_before_it_opens_anything(given, says):
    with pytest.raises(FlanError) as caught:
        eval.evaluate(**_needed("evaluate") | given)
    assert says in _refused(caught)


def test_a_run_and_its_data_lie_apart(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(FlanError, match=r"train\.model_dir and train\.prepared_dir are one folder"):
        loop.train(model_dir=str(tmp_path / "run"), prepared_dir=str(tmp_path / "link"), mixture="flan")


def test_missing_argument():
    with pytest.raises(FlanError, match=r"train needs mixture \(MIXTURE_OR_TASK_NAME: what is tuned on\)"):
        loop.train(model_dir="m", prepared_dir="p")
    with pytest.raises(TypeError, match="batchsize"):
        loop.train(batchsize=3)


def test_values_that_gin_gives_are_those_of_the_table():
    configuration.parse(
        ["runs/tune.gin"], ["MODEL_DIR = '~/run'", "PREPARED_DIR = 'p'", "TRAIN_STEPS = 1e3", "BATCH_SIZE = 2.0"]
    )
    text = gin.config_str()
    assert "TRAIN_STEPS = 1000\n" in text and "BATCH_SIZE = 2\n" in text and "MODEL_DIR = '/home/me/run'" in text


def test_a_number_in_quotes_is_told_of_all_that_fits():
    """A word of one kind must not hide that a number of another is wanted."""
    with pytest.raises(FlanError, match=r"^STEP is '3': it has to be a whole number of at least 0, 'all' or 'follow'"):
        macro_checks.check("evaluate.step", "3", "STEP")
    with pytest.raises(FlanError, match=r"^STEP is 'folow': did you mean 'follow'"):
        macro_checks.check("evaluate.step", "folow", "STEP")


@pytest.mark.parametrize("given", ["NLI", "Nli", "RTE"])
def test_a_name_in_other_letters_is_near(given):
    with pytest.raises(FlanError, match=f"did you mean '{given.lower()}'"):
        macro_checks.check("evaluate.datasets", (given,))
