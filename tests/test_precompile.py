import argparse
import importlib.util
import json
import sys
import types

import pytest

from flan_jax import precompile
from flan_jax.chips import CHIPS
from flan_jax.compilation import program, sweep, topology
from flan_jax.configuration import model_config
from flan_jax.errors import FlanError
from flan_jax.training.described import describe
from flan_jax.training.resolving import refuse_undivided

NEEDS_COMPILER = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the tpu extra")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model=tiny", "--topology=v9:8x8"], "unknown TPU generation 'v9'"),
        (["--model=tiny", "--topology=v3:88"], "write GENERATION:CHIPSxCHIPS"),
        (["--model=lamda_pt_137", "--topology=v3:8x8"], "lamda_pt_137b"),
        (["--topology=v3:8x8"], "give a --model"),
        (["--model=tiny", "--topology=v3:8x8", "--mesh=model=8"], "write sizes of data, fsdp and tensor"),
        (["--gin_file=runs/no.gin", "--topology=v3:8x8"], "no gin file 'runs/no.gin'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as exit_:
        precompile.main(arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said in error and error.count("\n") == 1 and "precompile: " not in error


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else find(name, *rest)
    )
    with pytest.raises(SystemExit) as exit_:
        precompile.main(["--model=tiny", "--topology=v3:8x8"])
    assert exit_.value.code == 2
    assert "pip install -e '.[tpu]'" in capsys.readouterr().err


def test_a_run_file_gives_model_rows_and_computation():
    bindings = ["MODEL = 'lamda_pt_8b'", "BATCH_SIZE = 16", "COMPUTATION = {'remat': 'save_dots'}"]
    found = precompile.run_file(["runs/flan_without_nli.gin"], bindings)
    assert found["config"] == model_config("lamda_pt_8b", {"remat": "save_dots"})
    assert (found["rows"], found["inputs"], found["targets"]) == (16, 1024, 256)


def test_a_run_file_may_leave_the_computation_to_the_devices(capsys):
    found = precompile.run_file(["runs/tune.gin"], ["COMPUTATION = {'attention': 'auto', 'head_chunk': 32}"])
    assert found["config"].head_chunk == 32
    chip = types.SimpleNamespace(hbm_bytes=16e9, devices=1)
    where = types.SimpleNamespace(name="v5e:2x4", chip=chip, devices=[None] * 8)
    options = {"score": False, "dtype": None, "remat": None, "attention": None, "optimizer": None, **found}
    plan = precompile.plan_of(argparse.Namespace(**options), where)
    assert plan.config.attention in ("splash", "xla") and plan.config.head_chunk == 32
    assert "COMPUTATION chosen for v5e:2x4: attention" in capsys.readouterr().err


def test_a_run_file_gives_the_runs_own_program():
    """Lengths, microbatches, mesh and optimizer are those that `train` would resolve from the same file."""
    bindings = ["MICROBATCHES = 2", "TASK_FEATURE_LENGTHS = {'inputs': 512}", "MESH = None", "LEARNING_RATE = 0.5"]
    found = precompile.run_file(["runs/tune.gin"], [*bindings, "adafactor.parameter_scale = False"])
    assert (found["rows"], found["inputs"], found["targets"], found["microbatches"]) == (8, 512, 256, 2)
    assert found["mesh"] == "" and found["config"] == model_config("tiny")
    assert describe(found["optimizer"]) == {
        "name": "adafactor",
        "learning_rate": 0.5,
        "warmup_steps": 0,
        "parameter_scale": False,
    }


@pytest.mark.parametrize(
    ("rows", "microbatches", "mesh", "fits"),
    [
        (8, 1, (12, 1), 0),
        (8, 2, (8, 1), 0),
        (8, 1, (2, 3), 0),
        (8, 2, (2, 2), 1),
        (24, 2, (4, 3), 1),
        (8, 8, (1, 1), 1),
    ],
)
def test_rows_that_devices_cannot_share(rows, microbatches, mesh, fits):
    sizes = dict(zip(("data", "fsdp"), mesh, strict=True))
    if fits:
        refuse_undivided(sizes, rows, microbatches, ("--mesh", "--rows", "--microbatches"))
        return
    with pytest.raises(FlanError, match=rf"--rows {rows} in {microbatches} parts? .*--microbatches.*or another --mesh"):
        refuse_undivided(sizes, rows, microbatches, ("--mesh", "--rows", "--microbatches"))


def _topology(generation, devices, slices=1):
    return topology.Topology(f"{generation}:x", CHIPS[generation], (devices,), slices, [None] * devices)


def test_candidates_divide_the_devices_the_rows_and_the_model():
    config = model_config("lamda_pt_137b")
    found = list(sweep.meshes(config, 8, _topology("v3", 128)))
    assert {"data": 1, "fsdp": 8, "tensor": 16} in found and {"data": 1, "fsdp": 4, "tensor": 32} in found
    assert all(m["data"] * m["fsdp"] * m["tensor"] == 128 and 8 % (m["data"] * m["fsdp"]) == 0 for m in found)
    assert all(m["data"] % 2 == 0 for m in sweep.meshes(config, 8, _topology("v3", 128, slices=2)))
    # a copy of 137B on every 32 cores cannot be held, however it is computed
    kept = [mesh for mesh, _ in sweep.candidates(config, 8, _topology("v3", 128))]
    assert {"data": 4, "fsdp": 2, "tensor": 16} in found and {"data": 4, "fsdp": 2, "tensor": 16} not in kept


def test_ranking_puts_what_fits_first_and_then_the_fastest(monkeypatch):
    script = """
import json, sys
time = float(sys.argv[-2])
print("not json")
if time == 9: sys.exit("flan_jax: broken")
print(json.dumps({"fits": time < 5, "step_seconds": {"serial": time}}))
"""
    monkeypatch.setattr(sweep, "COMMAND", (sys.executable, "-c", script))
    reports = sweep.run([["3"], ["7"], ["9"], ["2"]], jobs=2)
    assert [r["command"] for r in reports] == ["2", "3", "7", "9"]
    assert reports[-1]["reason"] == "flan_jax: broken"


def test_the_best_by_one_compilation_are_estimated_in_full(monkeypatch):
    script = """
import json, sys
time = float(sys.argv[1])
report = {"fits": time < 8, "scheduled_seconds": time, "communication": {"seconds": 1.0}}
if "--memory" not in sys.argv: report["step_seconds"] = {"serial": 10 - time}
print(json.dumps(report))
"""
    monkeypatch.setattr(sweep, "COMMAND", (sys.executable, "-c", script))
    times = ["5", "9", "1", "4", "2", "3"]
    reports = sweep.ranked([[time] for time in times], 2)
    assert [r["command"] for r in reports] == ["3", "2", "1", "4 --memory", "5 --memory", "9 --memory"]


@NEEDS_COMPILER
@pytest.mark.slow
def test_the_real_compiler(capsys):
    with pytest.raises(SystemExit) as exit_:
        small = ["--rows=2", "--inputs=64", "--targets=16"]
        precompile.main(["--model=tiny", "--topology=v5e:2x2", "--mesh=fsdp=2,tensor=2", *small, "--json"])
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert exit_.value.code == 0 and report["fits"]
    assert report["step_seconds"]["overlapped"] <= report["step_seconds"]["serial"]
    assert report["flops"] * 4 > 0.9 * report["floor_seconds"] * CHIPS["v5e"].peak_flops * 4
    assert any(kind.startswith("all-gather") for kind in report["communication"]["kinds"])


@pytest.mark.parametrize(
    "refusal, expected",
    [
        ("Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm.", 20 * 2**30),
        ("the total memory required for HLO temporaries (18.50G) exceeds available HBM (15.75G).", 18.5 * 2**30 + 7),
        ("something else", 0),
    ],
)
def test_what_a_refused_program_needs(refusal, expected):
    assert program._needed(f"RESOURCE_EXHAUSTED: {refusal}", 7.0) == expected


@NEEDS_COMPILER
@pytest.mark.slow
def test_a_model_that_does_not_fit(capsys):
    with pytest.raises(SystemExit) as exit_:
        precompile.main(["--model=lamda_pt_8b", "--topology=v5e:2x2", "--mesh=fsdp=4", "--rows=4", "--json"])
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert exit_.value.code == 1 and not report["fits"]
    assert report["memory"]["peak"] > report["hbm_bytes"]


def test_a_topology_that_does_not_exist():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs the tpu extra")
    with pytest.raises(FlanError, match="knows no such slice"):
        topology.load("v3:3x5")
