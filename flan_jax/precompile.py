"""Compiles a training step for a TPU slice that is not here, and says what memory and time it would take.

python -m flan_jax.precompile --model=lamda_pt_137b --topology=v3:8x8 --mesh=data=1,fsdp=8,tensor=16 --remat=save_dots

A run file of `runs/sizes` names model, slice and mesh: --gin_file=runs/sizes/gemma3_1b.gin.
This needs `pip install -e '.[tpu]'`, but no TPU. Exit status: 0 if it fits, 1 if it does not, 2 for bad input.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from flan_jax.lazy import lazy_imports

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX is imported, so that it does not look for a TPU

from flan_jax import configuration, options, parts
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.json_lines import to_json
from flan_jax.models.config import AUTO, CHOICES, DecoderConfig

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax import models
    from flan_jax.compilation import estimate, program, sweep, topology
    from flan_jax.models import automatic
    from flan_jax.training import resolving, run

# A run of the paper: 8 rows of 1,280 slots.
DEFAULTS = {"config": None, "mesh": "", "rows": 8, "inputs": 1024, "targets": 256, "microbatches": 1}
DEFAULTS |= {"optimizer": None, "objective": None, "computation": {}, "parts": None, "topology": None}


def run_file(files: Sequence[str], bindings: Sequence[str]) -> dict[str, Any]:
    """What a run's gin files say about the training step.

    Returns:
      Values by the names of this command's options, and "config" for the model.

    Raises:
      FlanError: a wrong file or binding, or a missing checkpoint.
    """
    from flan_jax.training import configurables, optimizers  # noqa: F401 - what a run file configures
    from flan_jax.training.loss import Objective

    given = {binding.partition(" = ")[0] for binding in bindings}
    unneeded = [f"{name} = 'unused/{name}'" for name in ("MODEL_DIR", "PREPARED_DIR") if name not in given]
    configuration.parse(files, [*bindings, *unneeded])
    train = configuration.arguments("train")
    manifest, _ = resolving.origin(*(train.get(name) for name in ("initial_checkpoint_path", "model", "vocabulary")))
    computation = automatic.asked(train.get("computation"))
    fixed = {name: value for name, value in computation.items() if value != AUTO}
    shape = DecoderConfig.from_dict(manifest.model) if train.get("initial_map") is None else train["model"]
    config = shape.computed(**fixed)
    around = {name: train[name] for name in ("clip_norm", "frozen", "ema_decay", "prompt_length") if name in train}
    adapters = train.get("lora")
    tuning = optimizers.Tuning(
        train.get("optimizer"), **around, lora=None if adapters is None else optimizers.Lora(**adapters)
    )
    network = tuning.adapted(models.build(config))
    tuning.check(train.get("train_steps"), network.abstract_params(), network.logical_axes())
    program = run.Program.of(
        config,
        train.get("batch_size", DEFAULTS["rows"]),
        train.get("feature_lengths"),
        train.get("microbatches", DEFAULTS["microbatches"]),
        tuning,
        Objective.of(train),
    )
    return {
        "model": train.get("initial_checkpoint_path") or configuration.macro("MODEL"),
        "topology": configuration.macro("TOPOLOGY") if "TOPOLOGY" in configuration.declared_macros() else None,
        "config": program.config,
        "computation": computation,
        "rows": program.rows,
        "microbatches": program.microbatches,
        "mesh": ",".join(f"{axis}={size}" for axis, size in (train.get("mesh_shape") or {}).items()),
        "optimizer": tuning,
        "objective": program.objective,
        "parts": len(parts.of(train["mixture"]).parts) if train.get("mixture") else None,
        **program.lengths,
    }


def plan_of(arguments: argparse.Namespace, where: topology.Topology) -> estimate.Plan:
    """The plan that the options describe. All options must have values.

    Raises:
      FlanError: an unknown model, or a wrong mesh.
    """
    config = arguments.config or configuration.model_config(arguments.model, {"dtype": "bfloat16"})
    mesh = {"data": -1, "fsdp": 1, "tensor": 1} | options.mesh_sizes(arguments.mesh, "fsdp=8,tensor=16")
    if AUTO in arguments.computation.values():
        sizes = mesh | {"data": 1 if mesh["data"] == -1 else mesh["data"]}
        left = max(len(where.devices) // math.prod(sizes.values()), 1) if mesh["data"] == -1 else 1
        lengths = {"inputs": arguments.inputs, "targets": arguments.targets}
        share = resolving.share_of(
            sizes | {"data": sizes["data"] * left}, arguments.rows, lengths, arguments.microbatches
        )
        device = automatic.Device("tpu", where.name, where.chip.hbm_bytes / where.chip.devices)
        computation, chosen = automatic.chosen(
            config, arguments.computation, device, None if arguments.score else share
        )
        config = config.computed(**computation)
        if chosen:
            print(chosen, file=sys.stderr, flush=True)
    how = {name: getattr(arguments, name) for name in ("dtype", "remat", "attention")}
    config = config.computed(**{name: value for name, value in how.items() if value})
    batch = (getattr(arguments, name) for name in ("rows", "inputs", "targets", "microbatches", "optimizer"))
    more = {name: getattr(arguments, name) for name in ("objective", "parts")}
    shape = program.Shape(*batch, **{name: value for name, value in more.items() if value is not None})
    return estimate.Plan(config, mesh, shape, arguments.score)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, compiles and prints the report."""
    parser = options.Parser(
        prog="python -m flan_jax.precompile",
        description=__doc__,
        epilog="--gin_file=FILE and --gin.NAME=VALUE take a run's model, rows, loss and mesh; options count more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="a model: NAME of models/NAME.gin")
    parser.add_argument(
        "--topology", help="v3:8x8, v4:4x4x4, v5p:4x4x8, v5e:16x16, v6e:16x16, ...; by default the run file's TOPOLOGY"
    )
    parser.add_argument(
        "--slices", type=options.count, default=1, help="number of slices, joined by the data-centre network"
    )
    parser.add_argument("--mesh", help="for example data=1,fsdp=8,tensor=16; by default data takes what is left")
    parser.add_argument("--rows", type=options.count, help="packed rows of a step")
    parser.add_argument("--inputs", type=options.count, help="slots of a row besides the target slots")
    parser.add_argument("--targets", type=options.count, help="target slots of a row")
    parser.add_argument(
        "--microbatches", type=options.count, help="number of parts of a step, for gradient accumulation"
    )
    parser.add_argument("--remat", choices=CHOICES["remat"], help="what layers keep for the backward pass")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float32"], help="dtype of the computation; bfloat16 without a run file"
    )
    parser.add_argument("--attention", choices=["xla", "segments", "splash"], help="how attention is computed")
    parser.add_argument(
        "--score", action="store_true", help="compile a scorer's forward pass in place of the training step"
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="compile once in place of three times: only memory, communication, scheduled cycles",
    )
    parser.add_argument(
        "--sweep", action="store_true", help="try meshes and, unless one is given, remat policies, and rank them"
    )
    parser.add_argument("--jobs", type=options.count, default=1, help="compilations at the same time in a sweep")
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    with one_line_errors():
        argv = sys.argv[1:] if argv is None else argv
        files, bindings, rest = configuration.split_arguments(argv)
        given = vars(parser.parse_args(rest))
        defaults = DEFAULTS | (run_file(files, bindings) if files else {})
        arguments = argparse.Namespace(**given | {k: v for k, v in defaults.items() if given.get(k) is None})
        if arguments.model is None:
            raise FlanError(f"give a --model ({', '.join(configuration.model_names())}) or a --gin_file.")
        if arguments.topology is None:
            raise FlanError("give a --topology, such as v5e:2x4, or a run file with TOPOLOGY.")
        where = topology.load(arguments.topology, arguments.slices)
        plan = plan_of(arguments, where)
        if arguments.sweep:
            report = swept(arguments, plan, where)
        else:
            report = {"model": arguments.model} | estimate.estimate(plan, where, arguments.memory)
        print(to_json(report, what="the plan") if arguments.json else "\n".join(lines(report)))
    sys.exit(0 if report["fits"] else 1)


def swept(arguments: argparse.Namespace, plan: estimate.Plan, where: topology.Topology) -> dict[str, Any]:
    """Tries all candidates, and returns a report with their ranking.

    Raises:
      FlanError: a run file is given, or no candidate fits the options.
    """
    if arguments.config:
        raise FlanError("--sweep: name the model by --model, without a --gin_file.")
    keep = ("model", "topology", "slices", "rows", "inputs", "targets", "microbatches", "dtype", "attention")
    common = [f"--{name}={value}" for name in keep if (value := getattr(arguments, name)) is not None]
    common += ["--score"] * arguments.score
    commands = []
    policies = [arguments.remat] if arguments.remat else sweep.POLICIES
    for mesh, policy in sweep.candidates(plan.config, plan.shape.rows, where, policies):
        sizes = ",".join(f"{axis}={size}" for axis, size in mesh.items())
        commands.append([*common, f"--mesh={sizes}", f"--remat={policy}"])
    if not commands:
        raise FlanError(
            f"no mesh of {len(where.devices)} devices divides {arguments.rows} rows and the model's heads, and holds "
            "its parameters: give other --rows, or a larger --topology."
        )
    print(f"{len(commands)} candidates", file=sys.stderr, flush=True)
    reports = sweep.ranked(commands, arguments.jobs, lambda r: print(*lines(r)[:1], file=sys.stderr, flush=True))
    return {"model": arguments.model, "fits": reports[0]["fits"], "ranked": reports}


def lines(report: dict[str, Any]) -> list[str]:
    """The report as lines of text."""
    if "ranked" in report:
        return [f"{i:3d}. {lines(r)[0]}" for i, r in enumerate(report["ranked"], 1)]
    gb = 1e9
    if "memory" not in report:
        return [f"failed: {report['command']}: {report['reason']}"]
    mesh = ", ".join(f"{axis} {size}" for axis, size in report["mesh"].items())
    memory = report["memory"]
    head = f"{report['model']} {report['program']} on {report['slices']} x {report['topology']}, {mesh}, "
    head += f"{report['rows']} rows, remat {report['remat']}: "
    if not report["fits"]:
        need = f"{memory['peak'] / gb:.1f} GB" if memory["peak"] else "more"
        return [f"{head}does not fit: needs {need} of {report['hbm_bytes'] / gb:.1f} GB a device"]
    head += f"fits, {memory['peak'] / gb:.2f} of {report['hbm_bytes'] / gb:.1f} GB a device"
    if "step_seconds" in report:
        head += "; step {overlapped:.3f} to {serial:.3f} s".format(**report["step_seconds"])
    else:
        head += (
            f"; {report['scheduled_seconds']:.3f} s as scheduled, {report['communication']['seconds']:.3f} s on links"
        )
    out = [head, "memory a device: " + ", ".join(f"{name} {size / gb:.2f} GB" for name, size in memory.items())]
    network = report["communication"]
    out.append(f"communication a step: {network['seconds']:.3f} s")
    for kind, entry in sorted(network["kinds"].items(), key=lambda item: -item[1]["seconds"]):
        out.append(f"  {kind}: {entry['count']} times, {entry['bytes'] / gb:.3f} GB, {entry['seconds']:.4f} s")
    out.append(f"computation as scheduled, every loop with its trips: {report['scheduled_seconds']:.3f} s")
    if "step_seconds" in report:
        out += [
            f"computation a step: {report['compute_seconds']:.3f} s, {report['flops'] / 1e12:.1f} TFLOP a device; "
            f"by {report['compute_source']}; {report['floor_seconds']:.3f} s at the chip's peak",
            "step {overlapped:.3f} s (overlapped) to {serial:.3f} s (serial)".format(**report["step_seconds"]),
            "slots a second {serial:,.0f} to {overlapped:,.0f}".format(**report["tokens_per_second"]),
            "MFU {serial:.3f} to {overlapped:.3f}".format(**report["mfu"]),
            "the paper's 30,000 steps: {overlapped:.1f} to {serial:.1f} hours".format(**report["hours_of_the_paper"]),
        ]
    return out


if __name__ == "__main__":
    main()
