import gin
import pytest

from flan_jax import configuration
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
    with pytest.raises(FlanError, match=r"macro MODEL_DIR has no value: add --gin.MODEL_DIR="):
        configuration.parse([run_file], [])


def test_missing_file_names_the_shipped_ones():
    with pytest.raises(FlanError, match="runs/flan_without_nli.gin"):
        configuration.parse(["runs/flan_without_nil.gin"], [])


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
    import flan_jax.train  # noqa: F401

    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    configuration.parse(["runs/flan_without_nli.gin"], ["PREPARED_DIR = 'x'", "MODEL_DIR = 'x'"])
    assert configuration.macro("MIXTURE_OR_TASK_NAME") == "flan_without_nli"
    assert configuration.macro("TRAIN_STEPS") == 30_000


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
    import flan_jax.train  # noqa: F401  (registers what the files configure)

    configuration.parse([name], [f"{m} = 'x'" for m in ("PREPARED_DIR",)] + _required(name))
    assert configuration.macro("PREPARED_DIR") == "x"


def _required(name):
    names = ("CHECKPOINT_PATH", "EVAL_OUTPUT_DIR") if "eval" in name else ("MODEL_DIR",)
    return [f"{n} = 'x'" for n in names]
