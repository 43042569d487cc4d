import importlib
import shlex

import gin
import pytest

from flan_jax import configuration, own_data
from flan_jax.errors import FlanError


@pytest.fixture(autouse=True)
def fresh_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.gin"
    path.write_text('MODEL_DIR = %gin.REQUIRED\nTRAIN_STEPS = 3\nTASK_FEATURE_LENGTHS = {"inputs": 1024}\n')
    return str(path)


def test_command_line_overrides_the_file(run_file):
    configuration.parse([run_file], ["MODEL_DIR = 'here'", "TRAIN_STEPS = 4"])
    assert configuration.macro("MODEL_DIR") == "here"
    assert configuration.macro("TRAIN_STEPS") == 4


def test_misspelt_macro_names_the_near_one(run_file):
    with pytest.raises(FlanError, match="unknown macro 'TRAIN_STEP': did you mean 'TRAIN_STEPS'"):
        configuration.parse([run_file], ["TRAIN_STEP = 4"])


def test_required_macro_without_value(run_file):
    with pytest.raises(FlanError, match=r"macro MODEL_DIR has no value: add --gin.MODEL_DIR=") as caught:
        configuration.parse([run_file], [])
    assert str(caught.value).endswith("""--gin.MODEL_DIR="'...'", or a --gin_file=FILE that sets it.""")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("runs/tune.gin", "macros MODEL_DIR, PREPARED_DIR have no value: add "),
        ("runs/eval.gin", "macros CHECKPOINT_PATH, EVAL_OUTPUT_DIR, PREPARED_DIR have no value: add "),
    ],
)
def test_several_macros_without_a_value(file, said):
    from flan_jax import eval as _  # noqa: F401 - what the file configures
    from flan_jax.training import configurables  # noqa: F401

    with pytest.raises(FlanError, match=said) as caught:
        configuration.parse([file], [])
    message = str(caught.value)
    assert ("MODEL_DIR" in message) == (file == "runs/tune.gin") and message.count("'...'") == message.count("--gin.")
    assert message.endswith(", or a --gin_file=FILE that sets them.")


@pytest.mark.parametrize("binary", ["train", "eval"])
def test_the_examples_of_a_help_give_all_that_has_to_be_given(binary):
    from flan_jax.training import configurables  # noqa: F401 - what a run file configures

    text = importlib.import_module(f"flan_jax.{binary}").__doc__.replace("\\\n", " ")
    examples = [shlex.split(line)[3:] for line in text.splitlines() if line.startswith(f"python -m flan_jax.{binary} ")]
    examples = [one for one in examples if any(argument.startswith("--gin_file") for argument in one)]
    assert examples
    for arguments in examples:
        gin.clear_config()
        files, bindings, rest = configuration.split_arguments(arguments)
        configuration.parse(files, bindings)
        assert not rest


def test_missing_file_names_the_shipped_ones():
    with pytest.raises(FlanError, match="did you mean 'runs/flan_without_nli.gin'"):
        configuration.parse(["runs/flan_without_nil.gin"], [])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/nope.gin", "there are: runs/eval.gin, runs/flan_without_nli.gin, runs/held_out.gin, runs/tune.gin."),
        ("eval.gin", "did you mean 'runs/eval.gin'?"),
        ("runs/tunes", "did you mean 'runs/tune.gin'?"),
        ("no/such/xyzzy.gin", "models/tiny_t5.gin, runs/eval.gin, runs/flan_without_nli.gin"),
    ],
)
def test_a_missing_file_has_near_ones_or_all(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlanError, match="no gin file") as caught:
        configuration.parse([name], [])
    assert said in str(caught.value)


@pytest.mark.parametrize("binding", ["TRAIN_STEPS = four", "MODEL_DIR = runs/first"])
def test_value_that_is_no_literal(run_file, binding):
    with pytest.raises(FlanError, match="needs its own quotes"):
        configuration.parse([run_file], [binding])


def test_broken_file(tmp_path):
    path = tmp_path / "broken.gin"
    (tmp_path / "fine.gin").write_text("BATCH_SIZE = 2\n\n")
    path.write_text(f"include '{tmp_path}/fine.gin'\n\nTRAIN_STEPS = = 3\n")
    with pytest.raises(FlanError, match="broken.gin line 3"):
        configuration.parse([str(path)], [])


def test_folder_of_the_same_name_does_not_hide_an_include(tmp_path, monkeypatch):
    """A user's `runs/` looks like a Python package to gin."""
    import flan_jax.training.configurables  # noqa: F401

    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    configuration.parse(["runs/flan_without_nli.gin"], ["PREPARED_DIR = 'x'", "MODEL_DIR = 'y'"])
    assert configuration.macro("MIXTURE_OR_TASK_NAME") == "flan_without_nli"
    assert configuration.macro("TRAIN_STEPS") == 30_000


def test_an_include_lies_beside_its_file(tmp_path, monkeypatch):
    """Whatever folder one starts from, and whatever lies there under that name."""
    for folder in ("here", "mine/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine/base.gin").write_text("TRAIN_STEPS = 5\n")
    (tmp_path / "here/base.gin").write_text("TRAIN_STEPS = 6\n")
    (tmp_path / "mine/run.gin").write_text("include 'base.gin'\nMODEL_DIR = 'm'\n")
    (tmp_path / "mine/deep/run.gin").write_text("include '../run.gin'\n")
    (tmp_path / "mine/deep/base.gin").write_text("include '../base.gin'\nMODEL_DIR = 'm'\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("../mine/run.gin", str(tmp_path / "mine/deep/run.gin"), "~/mine/run.gin", "../mine/deep/base.gin"):
        configuration.parse([name], [])
        assert configuration.macro("TRAIN_STEPS") == 5
    with pytest.raises(FlanError, match=r"line 1: no gin file 'bas.gin' beside it, .*did you mean 'base.gin'"):
        (tmp_path / "mine/run.gin").write_text("include 'bas.gin'\n")
        configuration.parse(["../mine/run.gin"], [])


def test_a_file_that_counts_already_is_refused(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text('include "runs/tune.gin"\nMODEL_DIR = "m"\nPREPARED_DIR = "p"\n')
    configuration.parse(["runs/tune.gin", str(path)], [])
    with pytest.raises(FlanError, match=r"--gin_file=runs/tune.gin counts already, as one that .*mine.gin has read"):
        configuration.parse([str(path), "runs/tune.gin"], [])


def test_what_is_set_is_what_runs(tmp_path):
    """A macro that an argument's own binding overrules, or that nothing reads, is not passed over."""
    import flan_jax.training.configurables  # noqa: F401

    parsed_here(tmp_path, 'include "runs/tune.gin"\nMODEL_DIR = "m"\nPREPARED_DIR = "p"\ntrain.train_steps = 5\n')
    with pytest.raises(FlanError, match="TRAIN_STEPS does not count, since train.train_steps is bound to 5: write"):
        configuration.parse([str(tmp_path / "run.gin")], ["TRAIN_STEPS = 7"])
    configuration.parse([str(tmp_path / "run.gin")], ["TRAIN_STEPS = 5"])
    with pytest.raises(
        FlanError, match=r"^TRAIN_STEPS is set, and nothing reads it: .* train.train_steps = %TRAIN_STE"
    ):
        parsed_here(tmp_path, 'train.model_dir = "m"\nTRAIN_STEPS = 5\n')
    with pytest.raises(FlanError, match=r"macro.value is of no macro"):
        parsed_here(tmp_path, "macro.value = 5\n")


def test_include_of_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.gin").write_text("include 'b.gin'\n")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(FlanError, match="a.gin -> b.gin -> a.gin"):
        configuration.parse(["a.gin"], [])


def test_arguments_are_split():
    files, bindings, rest = configuration.split_arguments(
        ["--gin_file=a.gin", "--gin_file", "b.gin", "--gin.X=1", "--gin.train.batch_size=2", "--json"]
    )
    assert files == ["a.gin", "b.gin"]
    assert bindings == ["X = 1", "train.batch_size = 2"]
    assert rest == ["--json"]
    with pytest.raises(FlanError, match="--gin.X=VALUE"):
        configuration.split_arguments(["--gin.X"])


@pytest.mark.parametrize("name", ["runs/tune.gin", "runs/flan_without_nli.gin", "runs/eval.gin"])
def test_shipped_files_parse(name):
    import flan_jax.eval
    import flan_jax.training.configurables  # noqa: F401  (registers what the files configure)

    configuration.parse([name], [f"{m} = 'x'" for m in ("PREPARED_DIR",)] + _required(name))
    assert configuration.macro("PREPARED_DIR") == "x"


def _required(name):
    names = ("CHECKPOINT_PATH", "EVAL_OUTPUT_DIR") if "eval" in name else ("MODEL_DIR",)
    return [f"{n} = '{n}'" for n in names]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"TRAIN_STEPS = = 3\n", "run.gin line 1"),
        (b"TRAIN_STEPS = 3\n\tBATCH_SIZE = 2\nMESH 8\n", "run.gin line 3"),
        (b"TRAIN_STEPS = (3,\n", "run.gin"),
        (b"TRAIN_STEPS = 'three\n", "run.gin line 1"),
        (b"TRAIN_STEPS = 3\nBATCH_SIZE = 2\nTRAIN_STEPS = 4\n", "line 3: TRAIN_STEPS is set in line 1 already"),
        (b"TRAIN_STEP = 3\n", "unknown macro 'TRAIN_STEP': did you mean 'TRAIN_STEPS' or"),
        (b"TRAIN_STEPS = %NONE\n", "TRAIN_STEPS is %NONE, and no file sets a macro NONE"),
        (b"import no_such_module\n", "No module named 'no_such_module'"),
        (b"import json.no_such\n", "no_such"),
        (b"from json import nothing\n", "nothing"),
        (b"import broken_here\n", "1 / 0 went wrong"),
        (b"\xff\xfeT\x00", "not UTF-8"),
        (b"TRAIN_STEPS = '\xe4'\n", "not UTF-8"),
        (b"TRAIN_STEPS = 3\x00\n", "run.gin"),
        (b"TRAIN_STEPS = {[1]: 2}\n", "unhashable"),
        (b"include 'no/such.gin'\n", "no gin file 'no/such.gin'"),
        (b"include no/such.gin\n", "run.gin line 1"),
        (b"  include 'other.gin'\n", "an include stands on a line of its own"),
        (b"include 'run.gin'\n", "includes itself"),
        (b"no.such.thing = 3\n", "nothing here is called 'no.such'"),
        (b"nothing: \n  a = 3\n", "nothing here is called 'nothing'"),
        (b"TRAIN_STEPS = nan\n", "run.gin line 1"),
        (b"<html>\n", "run.gin line 1"),
        (b"TRAIN_STEPS: 3\n", "run.gin"),
        (b"a/TRAIN_STEPS = 3\n", "a/TRAIN_STEPS is set in a scope 'a', which nothing enters: write TRAIN_STEPS."),
        (b'{"TRAIN_STEPS": 3}\n', "run.gin line 1"),
        (b"include 'no/such.gin'\n", "gin file run.gin line 1: no gin file 'no/such.gin' beside it, here or among"),
        (b"MODEL = tiny\n", "run.gin line 1 (MODEL = tiny): tiny is no value: it has to be a Python literal"),
        (b"\nLOSS_ON_INPUTS = true\n", "run.gin line 2 (LOSS_ON_INPUTS = true): true is no value"),
        (b'MODEL = f"tiny"\n', "it has to be a Python literal"),
        (b'MODEL = "tiny\n', "there is no value that can be read"),
        ("MODEL = \u201ctiny\u201d\n".encode(), "there is no value that can be read"),
        (b"TRAIN_STEPS = 2 * 3\n", "line 1 (TRAIN_STEPS = 2 * 3): something follows where the line should end"),
        (b"TRAIN_STEPS = 3; BATCH_SIZE = 2\n", "something follows where the line should end"),
        (b"MESH = {'data': 1\n", "run.gin: a bracket, or a text in three quotes, is opened and never closed"),
        (b"TRAIN_STEPS = " + b"9" * 5000 + b"\n", "a number has too many digits"),
        (b"OPTIMIZER = @adafactorr()\n", "nothing here is called 'adafactorr': did you mean 'adafactor' or 'factory'?"),
        (b"hello\n", "line 1 (hello): this is no line of a gin file: write NAME = VALUE"),
        (b"include('other.gin')\n", "write include 'FILE', the file in quotes"),
        (b"include '~/no_such.gin'\n", "no gin file '~/no_such.gin'"),
        (b"include 'gs://bucket/run.gin'\n", "line 1: gin files are read from this machine: copy gs://bucket/run.gin"),
    ],
)
def test_hostile_files(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_here.py").write_text("raise RuntimeError('1 / 0 went wrong')\n")
    (tmp_path / "other.gin").write_text("BATCH_SIZE = 2\n")
    (tmp_path / "run.gin").write_bytes(content)
    with pytest.raises(FlanError) as caught:
        configuration.parse(["run.gin"], [])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfTRAIN_STEPS = 7\r\n", b"\n\n# nothing\nTRAIN_STEPS = 7", b"TRAIN_STEPS =\t7\n"]
)
def test_files_of_other_editors(tmp_path, content):
    path = tmp_path / "run.gin"
    path.write_bytes(content)
    configuration.parse([str(path)], [])
    assert configuration.macro("TRAIN_STEPS") == 7


def test_a_later_file_does_not_take_back_what_an_earlier_one_set(tmp_path):
    """Both include the same file."""
    import flan_jax.training.configurables  # noqa: F401

    path = tmp_path / "mine.gin"
    path.write_text('include "runs/tune.gin"\nBATCH_SIZE = 2\nMODEL_DIR = "m"\nPREPARED_DIR = "p"\n')
    configuration.parse(["runs/flan_without_nli.gin", str(path)], [])
    assert configuration.macro("MIXTURE_OR_TASK_NAME") == "flan_without_nli"
    assert configuration.macro("BATCH_SIZE") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gin_file"], "--gin_file needs a file"),
        (["--gin_file="], "--gin_file needs a file"),
        (["--gin_file", "--gin.X=1"], "--gin_file needs a file"),
        (["--gin_file=a.gin", "--gin_file=a.gin"], "--gin_file=a.gin is given twice"),
        (["--gin_bindings=X=1"], "write --gin.NAME=VALUE for each value"),
        (["--gin_files=a.gin"], "--gin_file=FILE for a file"),
        (["--gin.X="], "--gin.X=VALUE"),
        (["--gin.X"], "--gin.X=VALUE"),
    ],
)
def test_hostile_arguments(arguments, says):
    with pytest.raises(FlanError) as caught:
        configuration.split_arguments(arguments)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("vocab_size = 2.5", "DecoderConfig.vocab_size is 2.5: it has to be a whole number of at least 1"),
        ("num_layers = 0", "DecoderConfig.num_layers is 0"),
        ("embed_dim = '8'", "DecoderConfig.embed_dim is '8'"),
        ("rope_theta = -1.0", "DecoderConfig.rope_theta is -1.0: it has to be a number above 0"),
        ("qk_norm = 1", "DecoderConfig.qk_norm is 1: it has to be True or False"),
        ("norm_epsilon = None", "DecoderConfig.norm_epsilon is None"),
        ("global_every = -2", "DecoderConfig.global_every is -2: it has to be a whole number of at least -1"),
        ("logits_softcap = -1.0", "DecoderConfig.logits_softcap is -1.0: it has to be a number of at least 0"),
        ("attention_softcap = -1.0", "DecoderConfig.attention_softcap is -1.0"),
        ("attention_block = 0", "DecoderConfig.attention_block is 0"),
        ("activation = 'relu'", "DecoderConfig.activation is 'relu'"),
        ("activation = ['gelu']", "DecoderConfig.activation is ['gelu']"),
        ("layers = 3", "layers"),
        ("num_layers = = 3", "line 2"),
        ("num_layers = (3", "mine.gin"),
        ("num_layers = %X", "write the value itself"),
    ],
)
def test_hostile_models(tmp_path, content, says):
    path = tmp_path / "mine.gin"
    shape = ["vocab_size", "num_layers", "embed_dim", "num_heads", "num_kv_heads", "head_dim", "mlp_dim"]
    lines = [f"    {name} = 8" for name in shape if not content.startswith(name)]
    path.write_text("\n".join(["DecoderConfig:", f"    {content}", *lines]) + "\n")
    with pytest.raises(FlanError) as caught:
        configuration.model_config(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).strip()


# ------------------------------------------------------------------------------------------- two parses in one process


def parsed_here(tmp_path, text, *bindings):
    path = tmp_path / "run.gin"
    path.write_text(text)
    configuration.parse([str(path)], [*bindings])


@gin.configurable
def of_the_user(size=1, name=""):
    return size, name


def test_nothing_of_an_earlier_parse_counts(tmp_path):
    """As in a notebook, where a cell with another run file is started next."""
    import flan_jax.training.configurables  # noqa: F401

    parsed_here(
        tmp_path,
        "EMA_DECAY = 0.9\ntrain.ema_decay = %EMA_DECAY\nadafactor.momentum = 0.5\n",
        "train.log_period = 7",
    )
    assert configuration.arguments("train") == {"ema_decay": 0.9, "log_period": 7}
    parsed_here(tmp_path, "TRAIN_STEPS = 4\ntrain.train_steps = %TRAIN_STEPS\n")
    assert configuration.declared_macros() == {"TRAIN_STEPS"}
    assert configuration.arguments("train") == {"train_steps": 4}
    assert configuration.arguments("adafactor") == {}
    assert "EMA_DECAY" not in gin.config_str()


def test_nor_of_one_that_failed(tmp_path):
    with pytest.raises(FlanError, match="KEEP_CHECKPOINTS"):
        parsed_here(tmp_path, "EMA_DECAY = 0.9\nKEEP_CHECKPOINTS = 0\n")
    with pytest.raises(FlanError, match="unknown macro 'EMA_DECAY'"):
        parsed_here(tmp_path, "TRAIN_STEPS = 4\n", "EMA_DECAY = 0.9")


def test_a_required_macro_is_asked_for_again(run_file):
    configuration.parse([run_file], ["MODEL_DIR = 'here'"])
    with pytest.raises(FlanError, match="macro MODEL_DIR has no value"):
        configuration.parse([run_file], [])


def test_modules_of_an_earlier_run_are_gone(tmp_path, monkeypatch):
    from flan_jax import own_tasks

    monkeypatch.setenv(own_tasks.VARIABLE, "json")  # as --tasks leaves it
    parsed_here(tmp_path, "TASKS = 'string'\n")
    assert own_tasks.named() == "json,string"
    parsed_here(tmp_path, "TASKS = None\n")
    assert own_tasks.named() == "json"


@pytest.mark.parametrize("locked", [False, True])
def test_what_a_user_binds_for_functions_of_his_own_stays(tmp_path, locked):
    gin.parse_config("SIZE = 5\nof_the_user.size = %SIZE")
    gin.bind_parameter("scope/of_the_user.name", "mine")
    if locked:
        gin.finalize()
    for steps in (3, 4):
        parsed_here(tmp_path, f"TRAIN_STEPS = {steps}\n")
        assert configuration.macro("TRAIN_STEPS") == steps
        assert of_the_user() == (5, "")
        with gin.config_scope("scope"):
            assert of_the_user() == (5, "mine")
    assert gin.config_is_locked() == locked
    parsed_here(tmp_path, "TRAIN_STEPS = %SIZE\n", "SIZE = 6")
    assert configuration.macro("TRAIN_STEPS") == 6 and of_the_user() == (6, "")


@pytest.mark.parametrize(
    ("bound", "called"),
    [
        ("train.batch_size = 4", "train.batch_size"),
        ("BATCH_SIZE = 4", "BATCH_SIZE"),
        ("adafactor.momentum = 0.9", "adafactor.momentum"),
        ("other/train.batch_size = 4", "train.batch_size"),
        ("model_config.overrides = {}", "model_config.overrides"),
    ],
)
def test_what_a_user_binds_of_a_run_is_not_lost_in_silence(tmp_path, bound, called):
    """The run's files would overrule it, or it would be there for one run and gone for the next."""
    import flan_jax.training.configurables  # noqa: F401

    for _ in range(2):
        gin.parse_config(bound)
        with pytest.raises(FlanError, match=rf"^{called} has a value in gin already.*--gin.{called}=VALUE, or call"):
            parsed_here(tmp_path, "TRAIN_STEPS = 3\n")
        gin.clear_config()
        parsed_here(tmp_path, "TRAIN_STEPS = 3\n")  # and then another between two runs


def test_scopes_are_entered_by_references_alone(tmp_path):
    import flan_jax.training.configurables  # noqa: F401

    scoped = "fast/adafactor.momentum = 0.5\n"
    parsed_here(tmp_path, f"{scoped}train.optimizer = @fast/adafactor()\n")
    assert configuration.arguments("train")["optimizer"].description["momentum"] == 0.5
    with pytest.raises(FlanError, match="fast/adafactor.momentum is set in a scope 'fast', which nothing enters"):
        parsed_here(tmp_path, f"{scoped}train.optimizer = @adafactor()\n")


def test_a_run_file_of_another_program(tmp_path):
    """Such as tune.gin given to `flan_jax.eval`, which has not made training known."""
    import subprocess
    import sys

    code = "from flan_jax import configuration; configuration.parse(['runs/tune.gin'], [\"MODEL_DIR = 'm'\"])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert "this program does not call 'train': the file is one for python -m flan_jax.train." in done.stderr


# --------------------------------------------------------------------------------------- a PREPARED_DIR that is not it


@pytest.fixture
def with_own(tmp_path, monkeypatch):
    """A PREPARED_DIR that has a dataset of one's own, my_chat."""
    monkeypatch.setenv(own_data.VARIABLE, "")
    folder = tmp_path / "prepared"
    (folder / "tokens").mkdir(parents=True)
    own_data.write(folder, own_data.Definition("my_chat", "unknown", "generation", ("rouge",), "jsonl:my.jsonl"))
    own_data.leave()
    return folder


def parse_training(folder, *bindings):
    given = ["MODEL_DIR = 'runs/any'", f"PREPARED_DIR = {str(folder)!r}", *bindings]
    configuration.parse(["runs/tune.gin"], given)


OF_OWN = [
    ["MIXTURE_OR_TASK_NAME = 'my_chat'"],
    ["MIXTURE_OR_TASK_NAME = {'parts': [{'of': 'my_chat'}]}"],
    ["WEIGHTS = {'my_chat': 2}", "MIXTURE_OR_TASK_NAME = {'parts': [{'of': 'my_chat'}, {'of': 'rte'}]}"],
    ["LOSS_WEIGHTS = {'my_chat': 2}", "MIXTURE_OR_TASK_NAME = 'my_chat'"],
    ["JOINTS = {'my_chat': 'newline'}", "MIXTURE_OR_TASK_NAME = 'my_chat'"],
    ["DATASETS = ('my_chat',)", "EVAL_PERIOD = 5"],
]


@pytest.mark.parametrize("bindings", OF_OWN)
def test_all_macros_know_own_datasets(with_own, bindings):
    from flan_jax.training import configurables  # noqa: F401 - what a run file configures

    parse_training(with_own, *bindings)


@pytest.mark.parametrize("bindings", OF_OWN)
@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("preparde", "A dataset of your own would be in PREPARED_DIR {}, and there is no such folder."),
        ("prepared/own", "A dataset of your own would be in PREPARED_DIR {}, which holds nothing prepared."),
        ("other", "PREPARED_DIR {} has no datasets of your own."),
    ],
)
def test_another_folder_is_named_where_an_own_dataset_is_not_known(with_own, bindings, folder, said):
    from flan_jax.training import configurables  # noqa: F401 - what a run file configures

    (with_own.parent / "other" / "examples").mkdir(parents=True)
    with pytest.raises(FlanError) as refused:
        parse_training(with_own.parent / folder, *bindings)
    line = str(refused.value)
    assert "\n" not in line and "'my_chat'" in line and line.endswith(said.format(with_own.parent / folder)), line


def test_a_misspelt_name_of_the_catalog_is_told_alone(with_own, tmp_path):
    from flan_jax.training import configurables  # noqa: F401 - what a run file configures

    (tmp_path / "other" / "examples").mkdir(parents=True)
    with pytest.raises(FlanError) as refused:
        parse_training(tmp_path / "other", "MIXTURE_OR_TASK_NAME = 'flan_without_nil'")
    assert "PREPARED_DIR" not in str(refused.value) and "did you mean 'nli'" in str(refused.value)
