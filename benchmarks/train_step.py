"""Tokens a second of a training step: FLAN-JAX beside transformers on PyTorch, on the same packed rows, in one run.

python benchmarks/train_step.py --table --json
python benchmarks/train_step.py --rows=2 --json
python benchmarks/train_step.py --layers=4 --ways=xla:256:full,segments:128:save_dots
python benchmarks/train_step.py --dtype=bfloat16 --rows=16 --head-chunk=256 --ways=cudnn:256:save_dots   (on a GPU)
python benchmarks/train_step.py --model=t5_1_1_small --rows=8 --row-length=512 --target-length=114
python benchmarks/train_step.py --prepared=DIR --vocabulary=smollm2-135m

A step is forward, backward and an update by plain SGD, from the same parameters on both sides. PyTorch's is what a user
of transformers gets: the same rows, positions restarted, a mask that keeps segments apart, the labels' cross entropy;
its LM head runs at every slot. Ours is `flan_jax.training.state.make_train_step`, in one or several ways: attention,
queries a block, and what layers keep for the backward pass (`--ways=ATTENTION:BLOCK:REMAT`); with `:unroll` at the end
of a way, its layers are straight-line code, with `:lora` it trains adapters of rank 8 alone. `--table` measures
SmolLM2-135M and T5 1.1 small, each by our step, by the same with adapters and by PyTorch's, and prints one table.

Each side has a process of its own, which waits while the other works (OpenMP's threads too: OMP_WAIT_POLICY=PASSIVE);
steps take turns, and a matrix product measures the device's peak in each round. `share of peak` counts the floating
point operations that the rows need (no recomputation, no pairs of slots across segments, the LM head at targets only),
for both sides alike; `mfu`, on a GPU whose peak is published, is the same over that peak. In bfloat16 our parameters
stay float32 and are cast in the step, as in training; PyTorch's are bfloat16 themselves. Where other programs use the
same cores, seconds say little; the seconds of processor time that each side took are printed beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two processes may share one GPU
sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout that is not installed

import numpy as np
from rich.console import Console
from rich.table import Table
from train_step_rows import prepared_rows, synthetic_rows, useful_flops

from flan_jax import chips
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.json_lines import to_json

# Size of the square matrices whose product is the peak, and products in a row; on a GPU enough to hide the launch.
PEAK_ON_CPU, PEAK = (2048, 1), (8192, 20)
TABLE = {  # rows, slots, target slots; a way
    "smollm2_135m": ((2, 1280, 256), "segments:128:save_dots"),
    "t5_1_1_small": ((8, 512, 114), "segments:64:save_dots"),
}
AIMS = {"smollm2_135m": 1.5, "t5_1_1_small": 1.0, "lora": 1.3}  # times PyTorch's speed, and times our own full step
LEARNING_RATE = 0.0  # the work of an update and no change, so that every step of every side has the same loss

# ----------------------------------------------------------------------------------------------------------- sides


class JaxSide:
    """Ours; runs in a process of its own. Commands are ways, and "peak"."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        """Draws the parameters, and saves them for the other side."""
        import jax
        import optax

        from flan_jax import models
        from flan_jax.training.state import TrainState

        self._jax = jax
        self._config = models.DecoderConfig.from_dict(plan["config"])
        params = jax.jit(models.build(self._config).init)(jax.random.key(0))
        if plan["torch"]:
            leaves = jax.tree_util.tree_leaves_with_path(params)
            np.savez(folder / "parameters.npz", **{"/".join(k.key for k in path): x for path, x in leaves})
        self._batch = jax.device_put(dict(np.load(folder / "batch.npz")))
        self._states = {"": TrainState(jax.numpy.int32(0), params, optax.sgd(LEARNING_RATE).init(params))}
        self._steps: dict[str, Any] = {}
        self.about = {"device": jax.devices()[0].device_kind, "platform": jax.devices()[0].platform}

    def run(self, command: str) -> dict[str, float]:
        """One step in a way, or one matrix product; the first of each compiles it."""
        jax = self._jax
        if command == "peak":
            size, repeats = PEAK_ON_CPU if self.about["platform"] == "cpu" else PEAK
            if command not in self._steps:
                x = jax.random.normal(jax.random.key(0), (size, size), self._config.dtype) * size**-0.5
                products = jax.jit(lambda x: jax.lax.fori_loop(0, repeats, lambda _, y: y @ x, x))
                self._steps[command] = lambda: jax.block_until_ready(products(x))
            return _timed(self._steps[command]) | {"flops": 2.0 * size**3 * repeats}
        if command not in self._steps:
            self._steps[command] = self._compiled(command)
        sums: dict[str, Any] = {}

        def step() -> None:
            nonlocal sums
            kind = "lora" if "lora" in command.split(":") else ""
            self._states[kind], sums = self._steps[command](self._states[kind], self._batch)
            jax.block_until_ready((self._states[kind], sums))

        return _timed(step) | {"loss": float(sums["loss"]) / float(sums["weight"])}

    def _compiled(self, way: str) -> Any:
        import optax

        from flan_jax import models
        from flan_jax.models import nested
        from flan_jax.training import optimizers
        from flan_jax.training.state import TrainState, make_train_step

        jax = self._jax
        attention, block, remat, *more = way.split(":")
        models.refuse_attention(attention, self.about["platform"])
        how = {"attention": attention, "attention_block": int(block), "remat": remat, "unroll": "unroll" in more}
        optimizer = optimizers.Tuning(optax.sgd(LEARNING_RATE), lora=optimizers.Lora() if "lora" in more else None)
        model = optimizer.adapted(models.build(dataclasses.replace(self._config, **how)))
        if "lora" in more and "lora" not in self._states:
            params = jax.tree.map(jax.numpy.copy, self._states[""].params)
            params = nested.merged(params, model.adapters(jax.random.key(0), params))
            state = optimizers.for_parameters(optimizer, model.logical_axes()).init(params)
            self._states["lora"] = TrainState(jax.numpy.int32(0), params, state)
        return jax.jit(make_train_step(model, optimizer, 1), donate_argnums=0)


class TorchSide:
    """transformers on PyTorch; runs in a process of its own."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        """Builds the model with our parameters."""
        import torch
        import train_step_pytorch
        import transformers

        from flan_jax.models import DecoderConfig

        config = DecoderConfig.from_dict(plan["config"])
        with np.load(folder / "parameters.npz") as ours, np.load(folder / "batch.npz") as batch:
            self._step = train_step_pytorch.TorchStep(config, ours, dict(batch), LEARNING_RATE, plan["compile"])
        self.about = {"torch": torch.__version__, "transformers": transformers.__version__}

    def run(self, command: str) -> dict[str, float]:
        """One step."""
        losses: list[float] = []
        return _timed(lambda: losses.append(self._step())) | {"loss": losses[0]}


def _timed(step: Any) -> dict[str, float]:
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


def serve(side: str, folder: Path) -> None:
    """The process of a side: reads commands, a line each, and answers each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        worker = {"jax": JaxSide, "torch": TorchSide}[side](folder, json.loads((folder / "plan.json").read_text()))
        print(json.dumps(worker.about), file=answers, flush=True)
        for line in sys.stdin:
            print(to_json(worker.run(line.strip())), file=answers, flush=True)
    except FlanError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


@contextlib.contextmanager
def _started(side: str, folder: Path) -> Iterator[Any]:
    """Starts a side's process; yields what it says about itself and a function that sends a command."""
    command = [sys.executable, __file__, f"--serve={side}", f"--folder={folder}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def answer() -> dict[str, Any]:
            line = process.stdout.readline()
            if not line:
                raise FlanError(f"the process of {side} ended (status {process.wait()}); what it said is above.")
            if "error" in (found := json.loads(line)):
                raise FlanError(found["error"])
            return found

        def ask(text: str) -> dict[str, Any]:
            print(text, file=process.stdin, flush=True)
            return answer()

        try:
            yield answer(), ask
        finally:
            process.stdin.close()


# ------------------------------------------------------------------------------------------------------------ main


def benchmark(
    config: Any, batch: Mapping[str, np.ndarray], ways: Sequence[str], steps: int, with_torch: bool, compiled: bool
) -> dict[str, Any]:
    """Measures each way and the other side, compiled by torch.compile or not, in turn; returns figures and ratios."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        np.savez(folder / "batch.npz", **batch)
        (folder / "plan.json").write_text(
            json.dumps({"config": config.to_dict(), "torch": with_torch, "compile": compiled})
        )
        about, ask_jax = stack.enter_context(_started("jax", folder))
        asked = {way: ask_jax for way in ways}
        if with_torch:
            versions, asked["pytorch"] = stack.enter_context(_started("torch", folder))
            about |= versions
        first = {name: ask(name) for name, ask in asked.items()}
        ask_jax("peak")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
        peaks = []
        for _ in range(steps):
            for name, ask in asked.items():
                found[name].append(ask(name))
            peaks.append(min((ask_jax("peak") for _ in range(3)), key=lambda p: p["seconds"]))
    both = [x for name, x in batch.items() if name.endswith("segments")]
    real, slots = sum(int((x > 0).sum()) for x in both), sum(x.size for x in both)
    flops = useful_flops(config, batch)
    peak, peak_by_processor = (max(p["flops"] / p[key] for p in peaks) for key in ("seconds", "processor_seconds"))
    published = chips.peak_flops(about["device"]) if config.dtype == "bfloat16" else None

    def figures(name: str) -> dict[str, Any]:
        seconds, processor = ([step[key] for step in found[name]] for key in ("seconds", "processor_seconds"))
        middle, busy = statistics.median(seconds), statistics.median(processor)
        return {
            "seconds": middle,
            "seconds_of_steps": seconds,
            "processor_seconds": busy,
            "first_step_seconds": first[name]["seconds"],
            "tokens_per_second": real / middle,
            "slots_per_second": slots / middle,
            "flops_per_second": flops / middle,
            "share_of_peak": flops / middle / peak,
            "share_of_peak_by_processor_time": flops / busy / peak_by_processor,
            "loss": found[name][-1]["loss"],
        } | ({"mfu": flops / middle / published} if published else {})

    sides = {name: figures(name) for name in asked}
    result = about | {
        "ways": {way: sides[way] for way in ways},
        "peak_flops_per_second": peak,
        "real_tokens": real,
        "slots": slots,
        "target_tokens": int((batch["weights"] > 0).sum()),
        "segments": int(batch["segments"].max(axis=1).sum()),
        "useful_flops": flops,
        "steps": steps,
        "dtype": config.dtype,
        "layers": config.num_layers,
        "load_average": [load, os.getloadavg()[0]],
    }
    if with_torch:
        theirs = result["pytorch"] = sides["pytorch"] | {"compiled": compiled}
        for side in result["ways"].values():
            side["ratio"] = theirs["seconds"] / side["seconds"]
            side["ratio_by_processor_time"] = theirs["processor_seconds"] / side["processor_seconds"]
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2_135m", help="one of gin/models; PyTorch has Llama and T5 1.1")
    parser.add_argument(
        "--layers", type=int, default=0, help="fewer layers than the model has, on both sides of an encoder-decoder"
    )
    parser.add_argument("--table", action="store_true", help="both models, with LoRA and with PyTorch, in one table")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--row-length", type=int, default=1280, help="of the encoder, where there is one")
    parser.add_argument("--target-length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3, help="steps of each side that count")
    parser.add_argument("--ways", default="segments:128:save_dots", help="ATTENTION:BLOCK:REMAT, with commas")
    parser.add_argument(
        "--head-chunk", type=int, default=64, help="target slots of a row whose logits are alive at once"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--prepared", default="", help="rows of this folder instead of synthetic ones")
    parser.add_argument("--vocabulary", default="", help="of --prepared")
    parser.add_argument("--seed", type=int, default=0, help="of synthetic rows")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out, though it is installed")
    parser.add_argument("--torch-compile", action="store_true", help="PyTorch's side through torch.compile")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
        return
    with one_line_errors():
        results = _table(arguments) if arguments.table else {arguments.model: _measured(arguments)}
    for model, result in results.items():
        _show(arguments.dtype, model, result)
    if arguments.table:
        _show_aims(results)
    if arguments.json:
        print(to_json({"models": results} if arguments.table else results[arguments.model]))


def _show(dtype: str, model: str, result: Mapping[str, Any]) -> None:
    """Prints what was measured of a model."""
    print(
        f"{model}, {result['layers']} layers, {dtype}: {result['rows']} rows of "
        f"{result['row_length']}, {result['segments']} segments, {result['real_tokens']:,} tokens, "
        f"{result['target_tokens']} of them targets; {result['device']}, "
        f"peak {result['peak_flops_per_second'] / 1e9:,.0f} GFLOP/s, load average {result['load_average'][1]:.1f}"
    )
    heads = ("", "tokens a second", "slots", "GFLOP/s", "of peak", "mfu", "seconds", "processor", "loss", "ratio")
    table = Table(box=None, header_style="bold")
    for head in (*heads, "(processor)"):
        table.add_column(head, justify="right" if head else "left")
    sides = result["ways"] | ({"pytorch": result["pytorch"]} if "pytorch" in result else {})
    for name, side in sides.items():
        speed = (f"{side['tokens_per_second']:,.0f}", f"{side['slots_per_second']:,.0f}")
        work = (f"{side['flops_per_second'] / 1e9:,.0f}", f"{side['share_of_peak']:.2f}")
        mfu = f"{side['mfu']:.3f}" if "mfu" in side else ""
        cost = (mfu, f"{side['seconds']:.3f}", f"{side['processor_seconds']:.2f}", f"{side['loss']:.4f}")
        ratios = [f"{side[key]:.2f}" if key in side else "" for key in ("ratio", "ratio_by_processor_time")]
        table.add_row(name, *speed, *work, *cost, *ratios)
    Console(width=120).print(table)


def _show_aims(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints how often faster we are than what each side is compared with, beside the aims."""
    table = Table(box=None, header_style="bold")
    for head in ("", "times", "by the clock", "by processor time", "aim"):
        table.add_column(head, justify="left" if head in ("", "times") else "right")
    for model, result in results.items():
        full, adapted = result["ways"].values()
        pairs = [("our step", "PyTorch's", full, result.get("pytorch"), AIMS[model])]
        pairs.append(("our step with LoRA", "our step", adapted, full, AIMS["lora"]))
        for ours, theirs, one, other, aim in pairs:
            if other is not None:
                ratios = [f"{other[key] / one[key]:.2f}" for key in ("seconds", "processor_seconds")]
                table.add_row(f"{model}, {ours}", theirs, *ratios, f"{aim:.1f}")
    Console(width=120).print(table)


def _table(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--table` measures, by model."""
    found = {}
    for model, (size, way) in TABLE.items():
        sizes = dict(zip(("rows", "row_length", "target_length"), size, strict=True))
        given = vars(arguments) | sizes | {"model": model, "ways": f"{way},{way}:lora"}
        found[model] = _measured(argparse.Namespace(**given))
    return found


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for.

    Raises:
      FlanError: a model that PyTorch's side does not cover, or a bad way.
    """
    from flan_jax.configuration import model_config

    config = model_config(arguments.model, {"dtype": arguments.dtype, "head_chunk": arguments.head_chunk})
    if arguments.layers:
        encoder = {"num_encoder_layers": arguments.layers} if config.num_encoder_layers else {}
        config = dataclasses.replace(config, num_layers=arguments.layers, **encoder)
    ways = arguments.ways.split(",")
    for way in ways:
        parts = way.split(":")
        if len(parts) < 3 or not parts[1].isdigit() or parts[3:] not in ([], ["unroll"], ["lora"], ["unroll", "lora"]):
            raise FlanError(f"--ways: {way!r} is no ATTENTION:BLOCK:REMAT, with :unroll or :lora behind it.")
        config.computed(attention=parts[0], attention_block=int(parts[1]), remat=parts[2])
    with_torch = not arguments.no_torch and all(importlib.util.find_spec(m) for m in ("torch", "transformers"))
    if with_torch and not (config.num_encoder_layers or _is_llama(config)):
        raise FlanError(f"{arguments.model} is neither Llama nor T5 1.1, which PyTorch's side has: add --no-torch.")
    size = arguments.rows, arguments.row_length, arguments.target_length
    if arguments.prepared:
        batch = prepared_rows(config, arguments.prepared, arguments.vocabulary, *size)
    else:
        batch = synthetic_rows(config, *size, arguments.seed)
    found = benchmark(config, batch, ways, arguments.steps, with_torch, arguments.torch_compile)
    return found | {"rows": arguments.rows, "row_length": arguments.row_length}


def _is_llama(config: Any) -> bool:
    plain = config.positions == "rope" and config.rope_scaling == "none" and config.activation == "silu"
    return plain and not (config.qk_norm or config.window)


if __name__ == "__main__":
    main()
