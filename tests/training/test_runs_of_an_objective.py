"""What a run minimises: in its record, in its figures, and the same where it goes on or is planned."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest
from small_training import LENGTHS, SMALL, train

from flan_jax import configuration, models, partitioning, precompile
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.compilation import program
from flan_jax.errors import FlanError
from flan_jax.training import comparing, run
from flan_jax.training.loss import CROSS_ENTROPY, Objective

KNOBS = {
    "loss_averaging": "per_example",
    "loss_on_inputs": True,
    "z_loss": 1e-3,
    "label_smoothing": 0.1,
    "dropout_rate": 0.2,
}
HOW = {
    "optimizer": optax.sgd(0.1, momentum=0.5),
    "mesh_shape": {"data": 8},
}  # which take less time to compile than others


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A run with every knob that has taken three steps, with a checkpoint after the second."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, prepared, 3, checkpoint_period=2, **KNOBS, **HOW)
    return folder


def _figures(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_goes_on_drops_what_it_would_have(whole, prepared, tmp_path):
    stopped = tmp_path / "run"
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "checkpoints" / "3")
    result = train(stopped, prepared, 3, **KNOBS, **HOW)
    both = [_figures(folder) for folder in (whole, stopped)]
    assert result.metrics["seconds"] == both[1][2]["seconds"] != both[0][2]["seconds"]  # it has taken the step again
    for one, other in zip(*both, strict=True):
        for name in ("loss", "objective", "gradient_norm", "parameter_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6, err_msg=name)
    assert len(both[0]) == 3 and both[0][0]["objective"] != both[0][0]["loss"]
    # Every slot but the first of an example is a target, and is counted as one whatever it weighs.
    assert 8 * 50 < both[0][0]["target_tokens"] < 8 * 64


def test_the_record_names_it(whole, prepared):
    saved = json.loads((whole / "run.json").read_text())
    assert saved["program"]["objective"] == KNOBS
    assert run.Run.load(whole).program.objective == Objective(**KNOBS)
    assert "dropout" not in json.dumps(Manifest.load(whole).model)  # no model has it: scoring could not drop anything


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("loss_averaging", "per_token", "LOSS_AVERAGING per_example -> per_token"),
        ("loss_on_inputs", False, "LOSS_ON_INPUTS True -> False"),
        ("z_loss", 0.0, "Z_LOSS 0.001 -> 0.0"),
        ("label_smoothing", 0.2, "LABEL_SMOOTHING 0.1 -> 0.2"),
        ("dropout_rate", 0.1, "DROPOUT_RATE 0.2 -> 0.1"),
    ],
)
def test_another_objective_is_another_run(whole, prepared, name, value, says):
    with pytest.raises(FlanError) as caught:
        train(whole, prepared, 4, **KNOBS | HOW | {name: value})
    assert says in str(caught.value) and "holds another run" in str(caught.value)


def test_a_record_of_an_earlier_version_was_the_cross_entropy(whole, tmp_path):
    values = json.loads((whole / "run.json").read_text())
    del values["digest"], values["program"]["objective"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    assert run.Run.load(tmp_path).program.objective == CROSS_ENTROPY
    found = comparing.differences(run.Run.load(tmp_path), run.Run.load(whole))
    assert {name for name, *_ in found} == {
        "LOSS_AVERAGING",
        "LOSS_ON_INPUTS",
        "Z_LOSS",
        "LABEL_SMOOTHING",
        "DROPOUT_RATE",
    }
    values["program"]["objective"] = {"z_los": 1}
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(FlanError, match=r"is broken \(TypeError"):
        run.Run.load(tmp_path)


def test_an_encoder_decoder_s_inputs_are_refused_before_anything_is_made(prepared, tmp_path):
    with pytest.raises(FlanError, match="LOSS_ON_INPUTS is True, and an encoder-decoder") as caught:
        train(tmp_path / "run", prepared, 1, model=configuration.model_config("tiny_t5"), loss_on_inputs=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "run.json").exists()


def test_a_run_file_s_own_objective_is_planned():
    bindings = [f"{name.upper()} = {value!r}" for name, value in KNOBS.items()]
    found = precompile.run_file(["runs/tune.gin"], [*bindings, f"TASK_FEATURE_LENGTHS = {LENGTHS}"])
    assert found["objective"] == Objective(**KNOBS)
    shape = program.Shape(8, *LENGTHS.values(), objective=found["objective"])
    assert program.abstract_batch(SMALL, shape)["weights"].shape == (8, 64)
    mesh = partitioning.make_mesh(data=8)
    texts = [
        program.lower_train_step(SMALL, mesh, s)[0].as_text() for s in (shape, program.Shape(8, *LENGTHS.values()))
    ]
    assert ["threefry" in text for text in texts] == [True, False]
    with pytest.raises(FlanError, match="LOSS_ON_INPUTS is True"):
        precompile.run_file(["runs/tune.gin"], ["MODEL = 'tiny_t5'", "LOSS_ON_INPUTS = True"])


def test_a_model_drops_nothing_by_itself():
    """Scoring and evaluation call a model without a row's keys, so there is nothing to switch off."""
    model = models.build(SMALL)
    params = model.abstract_params()
    slots = (jax.ShapeDtypeStruct((2, 8), np.int32),) * 3
    text = jax.jit(model.hidden).lower(params, *slots).as_text()
    assert "threefry" not in text and "rng" not in text
