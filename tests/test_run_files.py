"""The run files of gin/runs/sizes: each resolves to its model, on a mesh that its slice and the model allow."""

import importlib.util
import json
import math
from pathlib import Path

import jax
import pytest

from flan_jax import configuration, models, partitioning, precompile
from flan_jax.chips import chip
from flan_jax.errors import FlanError
from flan_jax.training import configurables  # noqa: F401 - what a run file configures
from flan_jax.training.resolving import refuse_undivided
from flan_jax.values import MESH_AXES

FOLDER = Path(__file__).parents[1] / "gin" / "runs" / "sizes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.gin"))
NEEDS_COMPILER = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the tpu extra")
BYTES_A_PARAMETER = 10  # float32 itself, its gradient, bfloat16 copies of both


def test_every_published_model_has_one():
    assert {name for name in configuration.model_names() if not name.startswith("tiny")} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_it_resolves_to_a_mesh_that_slice_model_and_rows_allow(name):
    configuration.parse([f"runs/sizes/{name}.gin"], ["MODEL_DIR = 'm'", "PREPARED_DIR = 'p'"])
    train, slice_ = configuration.arguments("train"), configuration.macro("TOPOLOGY")
    config, sizes = train["model"], train["mesh_shape"]
    assert config == configuration.model_config(name) and train["computation"] == "auto"
    generation, _, grid = slice_.partition(":")
    one = chip(generation)
    assert math.prod(sizes.values()) == math.prod(map(int, grid.split("x"))) * one.devices
    refuse_undivided(sizes, train["batch_size"], train["microbatches"], ("MESH", "BATCH_SIZE", "MICROBATCHES"))
    assert not [size for size in (config.num_heads, config.mlp_dim, config.vocab_size) if size % sizes["tensor"]]
    assert config.embed_dim % sizes["fsdp"] == 0
    network = models.build(config)
    params = network.abstract_params()
    mesh = jax.sharding.AbstractMesh(tuple(sizes[axis] for axis in MESH_AXES), MESH_AXES)
    assert partitioning.undivided(mesh, network.logical_axes(), params) is None
    held = BYTES_A_PARAMETER * sum(x.size for x in jax.tree.leaves(params)) / (sizes["fsdp"] * sizes["tensor"])
    assert held < 0.8 * one.hbm_bytes / one.devices


@pytest.mark.parametrize("name", NAMES)
def test_it_repeats_nothing_of_the_recipe(name):
    lines = (FOLDER / f"{name}.gin").read_text().splitlines()
    assert lines[1] == 'include "runs/tune.gin"'
    assert {line.partition(" = ")[0] for line in lines[2:] if line} == {"MODEL", "TOPOLOGY", "MESH", "COMPUTATION"}


def test_a_size_goes_with_another_mixture():
    """In either order: what both include is read once."""
    files = ["runs/sizes/lamda_pt_422m.gin", "runs/flan_without_nli.gin"]
    for order in (files, files[::-1]):
        found = precompile.run_file(order, [])
        assert found["config"] == configuration.model_config("lamda_pt_422m") and found["topology"] == "v5e:2x2"
        assert configuration.macro("MIXTURE_OR_TASK_NAME") == "flan_without_nli"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model=tiny"], "give a --topology, such as v5e:2x4, or a run file with TOPOLOGY"),
        (["--gin_file=runs/tune.gin"], "give a --topology"),
        (["--gin_file=runs/sizes/t5_1_1_small.gin", "--gin.TOPOLOGY='v9:2x2'"], "unknown TPU generation 'v9'"),
        (["--gin_file=runs/sizes/t5_1_1_small.gin", "--gin.TOPOLOGY=8"], "TOPOLOGY is 8: it has to be a text"),
        (["--gin_file=runs/sizes/t5_1_1_small.gin", "--topology=v9:2x2"], "unknown TPU generation 'v9'"),
        (["--gin_file=runs/sizes/llama_8b.gin"], "runs/sizes/llama3_8b.gin"),
        (["--gin_file=runs/sizes/lama3_8b.gin"], "runs/sizes/llama3_8b.gin"),
    ],
)
def test_what_a_plan_needs(arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        precompile.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_training_takes_the_files_too(tmp_path):
    """It is no TPU slice here, so the mesh is what ends the start, before anything is written."""
    places = [f"MODEL_DIR = '{tmp_path / 'run'}'", f"PREPARED_DIR = '{tmp_path / 'prepared'}'"]
    configuration.parse(["runs/sizes/qwen3_8b.gin"], places)
    train = configuration.arguments("train")
    assert train["computation"] == "auto" and train["model"] == configuration.model_config("qwen3_8b")
    with pytest.raises(FlanError, match="does not fit 8 devices"):
        partitioning.make_mesh(**train["mesh_shape"])


@NEEDS_COMPILER
@pytest.mark.slow
def test_the_real_compiler_fits_one(capsys):
    with pytest.raises(SystemExit) as ended:
        precompile.main(["--gin_file=runs/sizes/t5_1_1_small.gin", "--memory", "--json"])
    said = capsys.readouterr()
    report = json.loads(said.out.strip().splitlines()[-1])
    assert ended.value.code == 0 and report["fits"] and report["topology"] == "v5e:2x2"
    assert report["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    assert 0 < report["memory"]["peak"] < 0.5 * report["hbm_bytes"]
    assert "COMPUTATION chosen for v5e:2x2: dtype bfloat16" in said.err
