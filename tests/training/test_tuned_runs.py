"""Runs with an optimizer by name, frozen parameters and a mean of parameters: resumed, refused, read."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from small_training import train

from flan_jax import convert
from flan_jax.checkpoint import adapters, arrays
from flan_jax.errors import FlanError
from flan_jax.formats import native
from flan_jax.models import nested
from flan_jax.training import optimizers
from flan_jax.training.comparing import differences
from flan_jax.training.run import Run

TUNED = {
    "optimizer": optimizers.adamw(1e-2, 1, "cosine", 3, weight_decay=0.1),
    "clip_norm": 1.0,
    "frozen": ("token_embedder",),
    "ema_decay": 0.5,
}
EMBEDDING = ("decoder", "token_embedder", "embedding")


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """A run of three steps, each saved."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    train(folder, prepared, 3, checkpoint_period=1, keep_checkpoints=9, **TUNED)
    return folder


@pytest.fixture
def cut(finished, tmp_path):
    """The same run as it was after its second step."""
    shutil.copytree(finished, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "3")
    return tmp_path / "cut"


def _digests(folder, step):
    return json.loads((folder / "checkpoints" / str(step) / "digests" / "metadata").read_text())


def test_a_run_that_goes_on_is_bit_identical(finished, cut, prepared):
    train(cut, prepared, 3, **TUNED)
    found, expected = _digests(cut, 3), _digests(finished, 3)
    assert found == expected and set(found) == {"params", "opt_state", "ema", "step", "saved_by", "sha256"}
    assert "decoder/token_embedder/embedding" in found["params"]
    assert not any("token_embedder" in name for item in ("opt_state", "ema") for name in found[item])


def test_run_json_has_it_all(finished):
    program = json.loads((finished / "run.json").read_text())["program"]
    assert {name: program[name] for name in TUNED if name != "optimizer"} == {
        "clip_norm": 1.0,
        "frozen": ["token_embedder"],
        "ema_decay": 0.5,
    }
    optimizer = program["optimizer"]
    assert optimizer["name"] == "adamw" and optimizer["weight_decay"] == 0.1
    assert optimizer["schedule"] == {"name": "cosine", "end": 0.0, "steps": 3}
    assert optimizer["no_decay"] == ["scale", "bias", "*embedding"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"optimizer": optimizers.lion(1e-2, 1, "cosine", 3, weight_decay=0.1)}, "optimizer.name adamw -> lion"),
        ({"optimizer": optimizers.adamw(1e-2, 1, "cosine", 9, weight_decay=0.1)}, "optimizer.schedule.steps 3 -> 9"),
        ({"optimizer": optimizers.adamw(1e-2, 1, "linear", 3, weight_decay=0.1)}, "schedule.name cosine -> linear"),
        ({"optimizer": optimizers.adafactor(1e-2)}, "optimizer.name adamw -> adafactor"),
        ({"clip_norm": None}, "CLIP_NORM 1.0 -> absent"),
        ({"frozen": ()}, "FROZEN ['token_embedder'] -> []"),
        ({"frozen": ("token_embedder", "mlp")}, "FROZEN ['token_embedder'] -> ['token_embedder', 'mlp']"),
        ({"ema_decay": 0.9}, "EMA_DECAY 0.5 -> 0.9"),
        ({"ema_decay": None}, "EMA_DECAY 0.5 -> absent"),
    ],
)
def test_another_tuning_is_another_run(cut, prepared, changed, says):
    with pytest.raises(FlanError, match="holds another run") as caught:
        train(cut, prepared, 3, **(TUNED | changed))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"optimizer": optimizers.adafactor(1e-2, warmup_steps=4)}, "WARMUP_STEPS 4 is more than TRAIN_STEPS 3"),
        ({"optimizer": optimizers.adafactor(1e-2, 0, schedule="linear", steps=2)}, "ends after 2 steps, before"),
        ({"optimizer": lambda axes: None}, "OPTIMIZER"),
        ({"frozen": ("*",)}, "leaves no parameter to train"),
        ({"frozen": "mpl"}, "did you mean 'mlp'"),
        ({"clip_norm": float("nan")}, "train.clip_norm is nan"),
        ({"ema_decay": 1.0}, "train.ema_decay is 1.0: it has to be a number above 0 and of at most 0.999999"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(prepared, tmp_path, changed, says):
    with pytest.raises(FlanError) as caught:
        train(tmp_path / "run", prepared, 3, **changed)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_there_was_any_of_this_is_the_same_as_one_at_its_defaults(finished, tmp_path):
    values = json.loads((finished / "run.json").read_text())
    for name in ("clip_norm", "frozen", "ema_decay", "lora", *(name for name in values if name == "digest")):
        values["program"].pop(name, values.pop(name, None))
    (tmp_path / "run.json").write_text(json.dumps(values))
    old, now = Run.load(tmp_path), Run.load(finished)
    nothing = dataclasses.replace(now.program, clip_norm=None, frozen=(), ema_decay=None, lora=None)
    assert differences(old, dataclasses.replace(now, program=nothing)) == []
    assert {name for name, _, _ in differences(old, now)} == {"CLIP_NORM", "FROZEN", "EMA_DECAY"}


def test_the_mean_of_parameters_is_read_by_its_name(finished, tmp_path):
    """By whatever evaluates, and by whatever exports; what was frozen comes from the last parameters."""
    steps = [arrays.load_model(finished, step)[1] for step in (1, 2, 3)]
    found = arrays.load_model(finished, 3, which="ema")[1]
    before = arrays.load_model(finished, 2, which="ema")[1]
    expected = jax.tree.map(lambda m, p: 0.5 * np.asarray(m) + 0.5 * np.asarray(p), before, steps[2])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), found, expected)
    assert any((np.asarray(x) != y).any() for x, y in zip(*map(jax.tree.leaves, (found, steps[2])), strict=True))
    assert len({adapters.weights(finished, 3, which) for which in ("params", "ema")}) == 2
    convert.convert(str(finished), str(tmp_path / "mean"), which="ema")
    jax.tree.map(np.testing.assert_array_equal, arrays.load_model(tmp_path / "mean")[1], found)
    source = native.read(finished, 3, "ema")
    np.testing.assert_array_equal(source.tensor(EMBEDDING, None), steps[2]["decoder"]["token_embedder"]["embedding"])
    assert nested.paths(found) == nested.paths(steps[0])


def test_a_mean_that_is_not_there_is_said(finished, tmp_path, capsys):
    convert.convert(str(finished), str(tmp_path / "last"))
    for read in (
        lambda: arrays.load_model(tmp_path / "last", which="ema"),
        lambda: native.read(tmp_path / "last", 0, "ema"),
    ):
        with pytest.raises(FlanError, match=r"has no mean of parameters \(ema\): it was trained without EMA_DECAY"):
            read()
    with pytest.raises(SystemExit):
        convert.main([f"--from={finished}", f"--to={tmp_path / 'x'}", "--parameters=mean"])
    assert "invalid choice: 'mean'" in capsys.readouterr().err
