"""The configuration reference: the page in docs is what the code says, and every knob is on it."""

import ast
import inspect
import json
from pathlib import Path

import pytest

from flan_jax import browse, macros
from flan_jax.inspection import settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
OPTIMIZERS = ("adafactor", "adamw", "lion", "sgd", "factory")

# What issue 16 asks for, by hand: the loss, what trains, and where it starts.
KNOBS = {"LOSS_AVERAGING", "Z_LOSS", "LABEL_SMOOTHING", "DROPOUT_RATE", "LOSS_ON_INPUTS", "MICROBATCHES", "COMPUTATION"}
KNOBS |= {
    "OPTIMIZER",
    "LEARNING_RATE",
    "WARMUP_STEPS",
    "SCHEDULE",
    "WEIGHT_DECAY",
    "NO_DECAY",
    "CLIP_NORM",
    "EMA_DECAY",
}
KNOBS |= {"FROZEN", "LORA", "PROMPT_LENGTH", "INITIAL_CHECKPOINT_PATH", "INITIAL_STEP", "INITIAL_OPTIMIZER_STATE"}
KNOBS |= {"INITIAL_MAP", "MESH"}
KEYS = {
    "LORA": {"rank", "alpha", "targets"},
    "MESH": {"data", "fsdp", "tensor"},
    "RATES": {"cap", "examples", "temperature"},
}
SCHEDULES = {"constant", "linear", "cosine", "rsqrt", "stable_decay"}


@pytest.fixture(scope="module")
def found():
    return browse.configuration()


def test_the_page_is_what_the_code_says(found):
    said = settings.page(found)
    assert PAGE.read_text(encoding="utf-8") == said, f"docs are stale: run {settings.COMMAND}"


def test_every_macro_stands_in_it_once_a_run_file(found):
    for file, members in found.files.items():
        names = [macro.name for macro in members]
        assert len(set(names)) == len(names), file
        assert all(macro.section for macro in members), file
    assert {macro.name for members in found.files.values() for macro in members} == set(macros.BY_MACRO)


def test_every_knob_of_loss_and_optimizers_stands_in_it(found):
    training = {macro.name: macro for macro in found.files[settings.TRAINING]}
    assert set(training) >= KNOBS
    assert {name: set(training[name].keys) for name in KEYS} == KEYS
    functions = {one.name: {argument.name for argument in one.arguments} for one in found.functions}
    for name in OPTIMIZERS:
        from flan_jax.training import optimizers

        made = getattr(optimizers, name)
        assert functions[name] == set(inspect.signature(made).parameters)
    assert {one.name.removeprefix(settings.SCHEDULE) for one in found.schedules} == SCHEDULES


def test_every_argument_says_what_it_is_for(found):
    silent = [
        f"{function.name}.{argument.name}"
        for function in (*found.functions, *found.schedules, found.shape)
        for argument in function.arguments
        if not argument.meaning
    ]
    assert not silent
    assert not [function.name for function in found.functions if not function.meaning]


# A run file says more than the function: what a first run is tuned on, and from which model it starts.
OF_THE_FILE = {"mixture.mixture", "train.vocabulary", "model_config.name", "evaluate.datasets"}


def test_defaults_of_run_files_are_those_of_the_functions(found):
    """So that a run from Python is the run of the file."""
    own = {f"{f.name}.{a.name}": a.default for f in found.functions for a in f.arguments}
    differ = {}
    for members in found.files.values():
        for macro in members:
            for argument in macro.arguments:
                theirs, ours = own.get(argument), macro.default
                if theirs is None or settings.REQUIRED in (theirs, ours) or argument in OF_THE_FILE:
                    continue
                theirs, ours = ast.literal_eval(theirs), ast.literal_eval(ours)
                empty = {"train.mesh_shape", "evaluate.mesh_shape", "train.feature_lengths"}
                if theirs != ours and (theirs or ours) and argument not in empty:
                    differ[argument] = (theirs, ours)
    assert not differ


def test_one_macro_or_function_is_shown(capsys):
    browse.main(["--macros=LORA", "--json"])
    said = capsys.readouterr().out
    assert set(json.loads(said.splitlines()[-1])["keys"]) == KEYS["LORA"]
    assert "train.lora" in said and "rank" in said
    browse.main(["--macros=adamw"])
    assert "Loshchilov" in capsys.readouterr().out
    browse.main(["--macros", "--json"])
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"files", "functions", "schedules", "shape"} == set(whole)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--macros=LORAA"], "did you mean 'LORA'"),
        (["--macros="], None),
        (["--markdown=x.md"], "give --macros with it"),
        (["--macros=LORA", "--markdown=x.md"], "without a name"),
        (["--macros", "--html=x.html"], "leave --macros out"),
        (["--macros", "--markdown="], "--markdown"),
    ],
)
def test_what_does_not_go_together(given, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if says is None:
        browse.main(given)
        assert "TRAIN_STEPS" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        browse.main(given)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
