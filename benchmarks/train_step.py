"""Tokens a second of a training step: FLAN-JAX beside transformers on PyTorch, on the same packed rows, in one run.

python benchmarks/train_step.py --rows=2 --json
python benchmarks/train_step.py --layers=4 --ways=xla:256:full,segments:128:save_dots
python benchmarks/train_step.py --dtype=bfloat16 --rows=32 --ways=xla:256:save_dots,cudnn:256:save_dots   (GPU)
python benchmarks/train_step.py --prepared=DIR --vocabulary=smollm2-135m

A step is forward, backward and an update by plain SGD, from the same parameters on both sides. PyTorch's is what a user
of transformers gets: the same rows, positions restarted, a mask that keeps segments apart, the labels' cross entropy;
its LM head runs at every slot. Ours is `flan_jax.training.state.make_train_step`, in one or several ways: attention,
queries a block, and what layers keep for the backward pass (`--ways=ATTENTION:BLOCK:REMAT`).

Each side has a process of its own, which waits while the other works (OpenMP's threads too: OMP_WAIT_POLICY=PASSIVE);
steps take turns, and a matrix product measures the device's peak in each round. `share of peak` counts the floating
point operations that the rows need (no recomputation, no pairs of slots across segments, the LM head at targets only),
for both sides alike. Where other programs use the same cores, seconds say little; the seconds of processor time that
each side took are printed beside them.
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

from flan_jax.errors import FlanError, one_line_errors

PEAK_SIZE = 2048  # of the square matrices whose product is the peak
LEARNING_RATE = 0.0  # the work of an update and no change, so that every step of every side has the same loss

# ------------------------------------------------------------------------------------------------------------ rows


def synthetic_rows(num_rows: int, length: int, target_length: int, vocab_size: int, seed: int) -> dict[str, np.ndarray]:
    """Packed rows as `flan_jax.data.stream` makes them, of examples like FLAN's: 110 tokens, 11 of them targets."""
    from flan_jax.data import packing
    from flan_jax.data.stream import FILL

    rng = np.random.default_rng(seed)
    block_rows = max(num_rows, 64)  # packed together, as a stream packs a block
    targets = np.clip(rng.lognormal(np.log(6), 1.1, block_rows * length), 2, min(target_length, length // 2))
    lengths = np.clip(rng.lognormal(np.log(80), 0.8, block_rows * length), targets + 2, length)
    targets, lengths = targets.astype(np.int64), lengths.astype(np.int64)
    fitting = int((np.cumsum(lengths) <= FILL * block_rows * length).sum())
    packed = packing.pack(lengths[:fitting], targets[:fitting], block_rows, length, target_length, rng)
    out = {name: np.zeros((num_rows, length), np.int32) for name in ("tokens", "positions", "segments")}
    out |= {name: np.zeros((num_rows, target_length), np.int32) for name in ("target_positions", "targets")}
    out |= {"dataset_ids": np.zeros_like(out["targets"]), "weights": np.zeros(out["targets"].shape, np.float32)}
    for b, row in enumerate(rng.permutation(np.array(row)) for row in packed[:num_rows]):
        start = used = 0
        for number, example in enumerate(row, 1):
            size, count = int(lengths[example]), int(targets[example])
            place, place_t = slice(start, start + size), slice(used, used + count)
            tokens = rng.integers(vocab_size, size=size, dtype=np.int32)
            out["tokens"][b, place], out["positions"][b, place], out["segments"][b, place] = tokens, range(size), number
            out["target_positions"][b, place_t] = np.arange(start + size - count, start + size) - 1
            out["targets"][b, place_t], out["weights"][b, place_t] = tokens[-count:], 1.0
            start, used = start + size, used + count
    return out


def prepared_rows(folder: str, vocabulary: str, num_rows: int, length: int, target_length: int) -> dict[str, Any]:
    """The first batch of a stream over what `flan_jax.prepare` wrote, by numbers of records."""
    from flan_jax.data import vocabularies
    from flan_jax.data.stream import Stream
    from flan_jax.data.token_store import TokenStore

    tokenizer = vocabularies.load(vocabulary)
    store = TokenStore.open(folder, tokenizer.fingerprint)
    rates = {name: float(store[name].num_records) for name in store.names}
    shape = {"row_length": length, "target_length": target_length, "rows_per_batch": num_rows}
    return Stream(store, rates, seed=0, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, **shape).batch(0)


def useful_flops(config: Any, batch: Mapping[str, np.ndarray]) -> float:
    """Floating point operations that a step on these rows needs: six a weight and token, and attention's.

    Three matrix products (one forward, two backward) of two operations; a slot looks at its segment up to itself, in
    every layer (windows are not counted).
    """
    c = config
    heads = 2 * c.num_heads + 2 * c.num_kv_heads
    a_layer = c.embed_dim * (heads * c.head_dim + 3 * c.mlp_dim)
    real = batch["segments"] > 0
    pairs = float((batch["positions"] + 1)[real].sum())
    projections = 6.0 * c.num_layers * a_layer * real.sum()
    attention = 12.0 * c.num_layers * c.num_heads * c.head_dim * pairs
    return projections + attention + 6.0 * c.vocab_size * c.embed_dim * float((batch["weights"] > 0).sum())


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
        self._state = TrainState(jax.numpy.int32(0), params, optax.sgd(LEARNING_RATE).init(params))
        self._steps: dict[str, Any] = {}
        self.about = {"device": jax.devices()[0].device_kind, "platform": jax.devices()[0].platform}

    def run(self, command: str) -> dict[str, float]:
        """One step in a way, or one matrix product; the first of each compiles it."""
        jax = self._jax
        if command == "peak":
            shape = (PEAK_SIZE, PEAK_SIZE)
            step = self._steps.setdefault(command, jax.jit(lambda x: x @ x))
            argument = jax.numpy.ones(shape, self._config.dtype)
            return _timed(lambda: jax.block_until_ready(step(argument)))
        if command not in self._steps:
            self._steps[command] = self._compiled(command)
        sums: dict[str, Any] = {}

        def step() -> None:
            nonlocal sums
            self._state, sums = self._steps[command](self._state, self._batch)
            jax.block_until_ready((self._state, sums))

        return _timed(step) | {"loss": float(sums["loss"]) / float(sums["weight"])}

    def _compiled(self, way: str) -> Any:
        import optax

        from flan_jax import models
        from flan_jax.training.state import make_train_step

        attention, block, remat = way.split(":")
        models.refuse_attention(attention, self.about["platform"])
        how = {"attention": attention, "attention_block": int(block), "remat": remat}
        model = models.build(dataclasses.replace(self._config, **how))
        return self._jax.jit(make_train_step(model, optax.sgd(LEARNING_RATE), 1), donate_argnums=0)


class TorchSide:
    """A Llama of transformers; runs in a process of its own."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        """Builds the model with our parameters."""
        import torch
        import transformers

        c = argparse.Namespace(**plan["config"])
        self._torch = torch
        config = transformers.LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.embed_dim,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            intermediate_size=c.mlp_dim,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
            rms_norm_eps=c.norm_epsilon,
            tie_word_embeddings=c.tied_embeddings,
            attn_implementation="sdpa",
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.device(device):
            self._model = transformers.LlamaForCausalLM(config).to(getattr(torch, c.dtype))
        with np.load(folder / "parameters.npz") as ours, torch.no_grad():
            named = dict(self._model.named_parameters())
            for name, value in _llama_parameters(ours, c.num_layers):
                named.pop(name).copy_(torch.from_numpy(value))
            if named:
                raise FlanError(f"the model of transformers has parameters that ours lacks: {', '.join(named)}.")
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=LEARNING_RATE)
        batch = np.load(folder / "batch.npz")
        segments = batch["segments"]
        seen = (segments[:, :, None] == segments[:, None, :]) & np.tril(np.ones((segments.shape[1],) * 2, bool))
        labels = np.full(segments.shape, -100)
        for b, t in zip(*np.nonzero(batch["weights"]), strict=True):
            labels[b, batch["target_positions"][b, t] + 1] = batch["targets"][b, t]
        self._inputs = {
            "input_ids": torch.from_numpy(batch["tokens"]).long().to(device),
            "position_ids": torch.from_numpy(batch["positions"]).long().to(device),
            "attention_mask": torch.from_numpy(seen[:, None]).to(device),
            "labels": torch.from_numpy(labels).to(device),
        }
        self.about = {"torch": torch.__version__, "transformers": transformers.__version__}

    def run(self, command: str) -> dict[str, float]:
        """One step."""
        result = 0.0

        def step() -> None:
            nonlocal result
            self._optimizer.zero_grad()
            loss = self._model(**self._inputs, use_cache=False).loss
            loss.backward()
            self._optimizer.step()
            result = loss.item()

        return _timed(step) | {"loss": result}


def _llama_parameters(ours: Mapping[str, np.ndarray], num_layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters under the names and in the layout of transformers."""
    yield "model.embed_tokens.weight", ours["decoder/token_embedder/embedding"]
    yield "model.norm.weight", ours["decoder/decoder_norm/scale"]
    if "decoder/logits_dense/kernel" in ours:
        yield "lm_head.weight", ours["decoder/logits_dense/kernel"].T
    projections = {f"self_attn.{n[0]}_proj": f"self_attention/{n}/kernel" for n in ("query", "key", "value")}
    projections |= {"mlp.gate_proj": "mlp/wi_0/kernel", "mlp.up_proj": "mlp/wi_1/kernel"}
    into = {"self_attn.o_proj": "self_attention/out/kernel", "mlp.down_proj": "mlp/wo/kernel"}
    norms = {"input_layernorm": "pre_self_attention_layer_norm", "post_attention_layernorm": "pre_mlp_layer_norm"}
    read = {name: ours[name] for name in ours if name.startswith("decoder/layers/")}  # each once, not once a layer
    for i in range(num_layers):
        for theirs, name in projections.items():
            kernel = read[f"decoder/layers/{name}"][i]
            yield f"model.layers.{i}.{theirs}.weight", kernel.reshape(kernel.shape[0], -1).T
        for theirs, name in into.items():
            kernel = read[f"decoder/layers/{name}"][i]
            yield f"model.layers.{i}.{theirs}.weight", kernel.reshape(-1, kernel.shape[-1]).T
        for theirs, name in norms.items():
            yield f"model.layers.{i}.{theirs}.weight", read[f"decoder/layers/{name}/scale"][i]


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
            print(json.dumps(worker.run(line.strip())), file=answers, flush=True)
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
    config: Any, batch: Mapping[str, np.ndarray], ways: Sequence[str], steps: int, with_torch: bool
) -> dict[str, Any]:
    """Measures each way and the other side in turn; returns their figures and ratios."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        np.savez(folder / "batch.npz", **batch)
        (folder / "plan.json").write_text(json.dumps({"config": config.to_dict(), "torch": with_torch}))
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
    real, slots = int((batch["segments"] > 0).sum()), int(batch["segments"].size)
    flops, product = useful_flops(config, batch), 2.0 * PEAK_SIZE**3
    peak = product / min(p["seconds"] for p in peaks)
    peak_by_processor = product / min(p["processor_seconds"] for p in peaks)

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
        }

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
        theirs = result["pytorch"] = sides["pytorch"]
        for side in result["ways"].values():
            side["ratio"] = theirs["seconds"] / side["seconds"]
            side["ratio_by_processor_time"] = theirs["processor_seconds"] / side["processor_seconds"]
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2_135m", help="a Llama of gin/models")
    parser.add_argument("--layers", type=int, default=0, help="fewer layers than the model has")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--row-length", type=int, default=1280)
    parser.add_argument("--target-length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3, help="steps of each side that count")
    parser.add_argument("--ways", default="segments:128:save_dots", help="ATTENTION:BLOCK:REMAT, with commas")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--prepared", default="", help="rows of this folder instead of synthetic ones")
    parser.add_argument("--vocabulary", default="", help="of --prepared")
    parser.add_argument("--seed", type=int, default=0, help="of synthetic rows")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out, though it is installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
        return
    with one_line_errors():
        result = _measured(arguments)
    print(
        f"{arguments.model}, {result['layers']} layers, {result['dtype']}: {arguments.rows} rows of "
        f"{arguments.row_length}, {result['segments']} segments, {result['real_tokens']:,} tokens, "
        f"{result['target_tokens']} of them targets; {result['device']}, "
        f"peak {result['peak_flops_per_second'] / 1e9:,.0f} GFLOP/s, load average {result['load_average'][1]:.1f}"
    )
    table = Table(box=None, header_style="bold")
    for head in (
        "",
        "tokens a second",
        "slots",
        "GFLOP/s",
        "of peak",
        "seconds",
        "processor",
        "loss",
        "ratio",
        "(processor)",
    ):
        table.add_column(head, justify="right" if head else "left")
    sides = result["ways"] | ({"pytorch": result["pytorch"]} if "pytorch" in result else {})
    for name, side in sides.items():
        speed = (f"{side['tokens_per_second']:,.0f}", f"{side['slots_per_second']:,.0f}")
        work = (f"{side['flops_per_second'] / 1e9:,.0f}", f"{side['share_of_peak']:.2f}")
        cost = (f"{side['seconds']:.2f}", f"{side['processor_seconds']:.2f}", f"{side['loss']:.4f}")
        ratios = [f"{side[key]:.2f}" if key in side else "" for key in ("ratio", "ratio_by_processor_time")]
        table.add_row(name, *speed, *work, *cost, *ratios)
    Console(width=120).print(table)
    if arguments.json:
        print(json.dumps(result))


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for.

    Raises:
      FlanError: a model that PyTorch's side does not cover, or a bad way.
    """
    from flan_jax.configuration import model_config

    overrides = {"dtype": arguments.dtype} | ({"num_layers": arguments.layers} if arguments.layers else {})
    config = model_config(arguments.model, overrides)
    ways = arguments.ways.split(",")
    for way in ways:
        parts = way.split(":")
        if len(parts) != 3 or not parts[1].isdigit():
            raise FlanError(f"--ways: {way!r} is no ATTENTION:BLOCK:REMAT, for example xla:256:full.")
        config.computed(attention=parts[0], attention_block=int(parts[1]), remat=parts[2])
    if config.num_encoder_layers:
        raise FlanError(f"{arguments.model} is an encoder-decoder, which this benchmark does not measure yet.")
    with_torch = not arguments.no_torch and all(importlib.util.find_spec(m) for m in ("torch", "transformers"))
    if with_torch and (config.positions != "rope" or config.activation != "silu" or config.qk_norm or config.window):
        raise FlanError(f"{arguments.model} is no Llama, and PyTorch's side has nothing else: add --no-torch.")
    if arguments.prepared:
        size = arguments.rows, arguments.row_length, arguments.target_length
        batch = prepared_rows(arguments.prepared, arguments.vocabulary, *size)
        batch["dataset_ids"][:] = 0  # one loss for all
        if (top := int(batch["tokens"].max())) >= config.vocab_size:
            raise FlanError(f"--vocabulary has token {top}, and {arguments.model} only {config.vocab_size}.")
    else:
        size = arguments.rows, arguments.row_length, arguments.target_length
        batch = synthetic_rows(*size, config.vocab_size, arguments.seed)
    return benchmark(config, batch, ways, arguments.steps, with_torch)


if __name__ == "__main__":
    main()
