"""Option scoring: our engine beside lm-evaluation-harness's Hugging Face backend; same weights, items, device and run.

python benchmarks/scoring.py --model=smollm2-135m-instruct --count=24 --json
python benchmarks/scoring.py --items=hellaswag/validation.jsonl --settings=0,5 --harness_settings=0,5

Items have HellaSwag's form. A setting is a number of exemplars in front of each: "5" draws them anew for each item,
"5s" puts the same five before all. Each side runs in processes of its own, one after the other, `--repeats` times in
turn, and its best time counts. The harness runs at its best batch size, tried on the first items of each setting. What
is timed leads from texts to log-likelihoods, tokenization included; loading and our compilation are not timed with it.
Our time is that of the host (texts to trees, trees to rows) and the rest, when it waits for the device. Beside it
stand the host's times of other ways to the same trees: each text tokenized whole, and trees that were kept.

Besides seconds, CPU seconds are compared: on a machine that other processes use too they are the steadier figure.

JAX_PLATFORMS=cuda python benchmarks/scoring.py --dtype=bfloat16 --count=1000 --batch_sizes=16,64,128 --tune_items=64

On a GPU both sides use it, and compute in `--dtype`: the harness's weights are then of that type, ours stay float32.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep instead of burning the other cores
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import same_weights
from rich.console import Console
from rich.table import Table

from flan_jax import convert
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.json_lines import to_json

MAX_LENGTH = 2048
TINY = "tiny"

# ------------------------------------------------------------------------------------------------------------ items


def read_hellaswag(path: str, count: int, seed: int) -> list[dict[str, Any]]:
    """A random choice of records with TFDS's fields, as {"context", "options", "label"}."""
    try:
        rows = [json.loads(line) for line in Path(path).read_bytes().split(b"\n") if line.strip()]
        items = [
            {
                "context": f"{row['activity_label']}: {row['context']}".strip(),
                "options": [" " + ending.strip() for ending in row["endings"]],
                "label": int(row["label"]),
            }
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlanError(
            f"{path} holds no HellaSwag records ({error!r}); give JSON lines with TFDS's fields."
        ) from error
    return random.Random(seed).sample(items, min(count, len(items)))


def synthetic(count: int, seed: int) -> list[dict[str, Any]]:
    """Seeded sentences with four endings, about as long as HellaSwag's."""
    draw = random.Random(seed)
    who = ["A man", "The woman", "A young girl", "Two boys", "The chef", "An old sailor", "The team", "A dog"]
    does = ["walks along", "cleans", "paints", "carefully lifts", "throws", "looks at", "ties", "repairs", "washes"]
    what = ["the wooden fence", "a small boat", "the kitchen floor", "a bicycle", "some vegetables", "the long rope"]
    how = ["near the river", "in the yard", "while others watch", "before the rain starts", "with a brush", "again"]

    def sentence() -> str:
        return " ".join(map(draw.choice, (who, does, what, how)))

    def ending() -> str:
        return " " + ". ".join(" ".join(map(draw.choice, (does, what, how))) for _ in range(draw.randint(1, 3))) + "."

    return [
        {
            "context": ". ".join(sentence() for _ in range(draw.randint(1, 5))) + ". " + draw.choice(who),
            "options": [ending() for _ in range(4)],
            "label": draw.randrange(4),
        }
        for _ in range(count)
    ]


def with_exemplars(
    items: Sequence[dict[str, Any]], pool: Sequence[dict[str, Any]], setting: str, seed: int
) -> list[dict[str, Any]]:
    """The items of a setting: solved ones of the pool in front, blank lines between."""
    shots, shared = int(setting.removesuffix("s")), setting.endswith("s")
    solved = [item["context"] + item["options"][item["label"]] + "\n\n" for item in pool]
    draw = random.Random(seed)
    same = "".join(draw.sample(solved, shots))
    fronts = (same if shared else "".join(draw.sample(solved, shots)) for _ in items)
    return [item | {"context": front + item["context"]} for item, front in zip(items, fronts, strict=True)]


# ------------------------------------------------------------------------------------------------------------- ours


def _timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, seconds, CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def _matmul_peak(dtype: str) -> tuple[float, float]:
    """FLOP/s of square matrix products: a second, and a CPU second."""
    import jax

    size, repeats = (1536, 1) if jax.default_backend() == "cpu" else (8192, 20)
    square = jax.random.normal(jax.random.key(0), (size, size), dtype) * size**-0.5
    products = jax.jit(lambda x: jax.lax.fori_loop(0, repeats, lambda _, y: y @ x, x))
    products(square).block_until_ready()
    times = [_timed(lambda: products(square).block_until_ready())[1:] for _ in range(3)]
    return tuple(2 * size**3 * repeats / min(column) for column in zip(*times, strict=True))


def run_ours(job: dict[str, Any]) -> dict[str, Any]:
    """Scores each setting of a job once, after a pass that compiles."""
    import dataclasses

    from flan_jax import models
    from flan_jax.checkpoint import arrays
    from flan_jax.data.line_tokens import LineTokenizer
    from flan_jax.scoring import tree_files
    from flan_jax.scoring.scorer import Scorer, Work
    from flan_jax.scoring.trees import build_trees, share_prefix

    model, params, tokenizer, _ = arrays.load_model(job["checkpoint"])
    model = models.build(model.config.computed(dtype=job["dtype"], attention=job["attention"]))
    scorer = Scorer(model, params)
    found = {}
    for setting, items in job["settings"].items():
        contexts, options = [item["context"] for item in items], [item["options"] for item in items]

        def texts_to_trees(
            vocabulary: Any, contexts: list = contexts, options: list = options, shared: bool = setting.endswith("s")
        ) -> list[Any]:
            trees = build_trees(vocabulary, contexts, options, joint="joined", max_length=MAX_LENGTH)
            return share_prefix(trees) if shared else trees

        def texts_to_scores(texts_to_trees: Callable = texts_to_trees) -> tuple[Any, float]:
            trees, tokenization, _ = _timed(lambda: texts_to_trees(LineTokenizer(tokenizer)))
            return scorer.score(trees), tokenization

        before = scorer.work.compile_seconds
        texts_to_scores()
        compiled, programs = scorer.work.compile_seconds - before, scorer.compile_count
        peak, peak_cpu = _matmul_peak(job["dtype"])
        scorer.work = Work()
        (scores, tokenization), seconds, cpu_seconds = _timed(texts_to_scores)
        work = scorer.work
        if scorer.compile_count != programs:
            raise RuntimeError(f"{scorer.compile_count - programs} programs were compiled after the first pass")
        body, head = _flops(model.config, work)
        with tempfile.TemporaryDirectory() as folder:
            place, trees = Path(folder) / "trees", texts_to_trees(tokenizer)
            tree_files.write(place, {}, tree_files.Stored(None, trees))
            ways = {
                "whole_texts": lambda texts_to_trees=texts_to_trees: texts_to_trees(tokenizer),
                "by_lines": lambda texts_to_trees=texts_to_trees: texts_to_trees(LineTokenizer(tokenizer)),
                "kept": lambda place=place: tree_files.read(place, {}).trees,
            }
            for way, run in ways.items():
                if run() != trees:
                    raise RuntimeError(f"{way}: other trees")
            host = {way: min(_timed(run)[1] for _ in range(3)) + work.host_seconds for way, run in ways.items()}
        found[setting] = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "host_ms_per_item": 1e3 * (tokenization + work.host_seconds) / len(items),
            "device_ms_per_item": 1e3 * (seconds - tokenization - work.host_seconds) / len(items),
            "host_ms_per_item_by_way": {way: 1e3 * found / len(items) for way, found in host.items()},
            "loglikelihood": [score.loglikelihood for score in scores],
            "breakdown": dataclasses.asdict(work)
            | {
                "fill": work.fill,
                "flops": body + head,
                "head_share": head / (body + head),
                "flops_per_second": (body + head) / seconds,
                "flops_per_cpu_second": (body + head) / cpu_seconds,
                "matmul_peak": peak,
                "matmul_peak_per_cpu_second": peak_cpu,
                "compile_seconds": compiled,
                "compilations": programs,
                "host_seconds": tokenization + work.host_seconds,
            },
        }
    return found


def _flops(config: Any, work: Any) -> tuple[float, float]:
    """By formula, of the layers' matrix products (attention's scores left out) and of the LM head; padding included."""
    from flan_jax.models import costs

    found = costs.products(config, costs.Work(work.slots, work.head_rows))
    return 2.0 * found.layers, 2.0 * found.head


# ------------------------------------------------------------------------------------------------------ the harness


def run_harness(job: dict[str, Any]) -> dict[str, Any]:
    """Scores each setting of a job once, at the best batch size."""
    import logging

    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    llama, tokenizer = same_weights.load_as_transformers(job["checkpoint"], MAX_LENGTH)
    if os.environ["JAX_PLATFORMS"] != "cpu":
        llama.to("cuda", getattr(torch, job["dtype"]))
    backend = HFLM(pretrained=llama, tokenizer=tokenizer, max_length=MAX_LENGTH, batch_size=1)

    def score(items: list[dict[str, Any]], batch_size: int) -> list[float]:
        backend.batch_size_per_gpu = batch_size
        requests = [
            Instance("loglikelihood", {}, (item["context"], option), number)
            for number, item in enumerate(items)
            for option in item["options"]
        ]
        return [answer for answer, _ in backend.loglikelihood(requests, disable_tqdm=True)]

    found = {}
    for setting, items in job["settings"].items():
        part, tried = items[: job["tune_items"]], dict(job["tried"].get(setting, {}))
        score(part[:1], job["batch_sizes"][0])  # warm
        if not tried:
            figure = 2 if os.getloadavg()[0] > (os.cpu_count() or 1) else 1  # CPU seconds where others compute too
            for size in job["batch_sizes"]:
                tried[str(size)] = _timed(lambda size=size, part=part: score(part, size))[figure]
        best = int(min(tried, key=tried.get))
        answers, seconds, cpu_seconds = _timed(lambda items=items, best=best: score(items, best))
        answers = iter(answers)
        tokens = sum(
            len(tokenizer.encode(item["context"] + option)) - 1 for item in items for option in item["options"]
        )
        found[setting] = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "loglikelihood": [[next(answers) for _ in item["options"]] for item in items],
            "batch_size": best,
            "tried": tried,
            "tokens": tokens,
        }
    return found


# ------------------------------------------------------------------------------------------------------------- main

SIDES = {"ours": run_ours, "harness": run_harness}


def _child(side: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / f"{side}.json"
    path.write_text(json.dumps(job))
    done = subprocess.run([sys.executable, __file__, f"--side={side}", f"--job={path}"], capture_output=True, text=True)
    if done.returncode:
        raise FlanError(f"the side {side!r} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(path.with_suffix(".out").read_text())


def _accuracy(found: Sequence[Sequence[float]], items: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([int(np.argmax(f)) == item["label"] for f, item in zip(found, items, strict=True)]))


def benchmark(arguments: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures both sides and returns their figures and the ratios."""
    items, pool = (
        read_hellaswag(arguments.items, count, seed) if arguments.items else synthetic(count, seed)
        for count, seed in ((arguments.count, arguments.seed), (64, arguments.seed + 1))
    )
    texts = {item["context"] for item in items}
    pool = [item for item in pool if item["context"] not in texts]
    few = items[: arguments.few_shot_count or len(items)]
    settings = {
        name: with_exemplars(few if int(name.removesuffix("s")) else items, pool, name, arguments.seed)
        for name in arguments.settings
    }
    checkpoint = folder / "checkpoint"
    if arguments.model == TINY:
        same_weights.write_tiny([item["context"] + o for item in items for o in item["options"]], checkpoint)
    else:
        convert.convert(arguments.model, checkpoint)
    job = {
        "checkpoint": str(checkpoint),
        "batch_sizes": arguments.batch_sizes,
        "tune_items": arguments.tune_items,
        "dtype": arguments.dtype,
        "attention": arguments.attention,
        "tried": {},
    }
    best: dict[str, dict[str, Any]] = {"ours": {}, "harness": {}}
    for number in range(arguments.repeats):
        for side in SIDES:
            chosen = arguments.settings if side == "ours" else arguments.harness_settings
            if not chosen:
                continue
            say(f"{side}, {number + 1} of {arguments.repeats}")
            found = _child(side, job | {"settings": {name: settings[name] for name in chosen}}, folder)
            for name, values in found.items():
                if side == "harness":
                    job["tried"][name] = values["tried"]
                kept = best[side].setdefault(name, values)
                for figure in ("seconds", "cpu_seconds"):
                    kept[figure] = min(kept[figure], values[figure])
    return _result(arguments, settings, best)


def _result(arguments: argparse.Namespace, settings: dict[str, Any], best: dict[str, Any]) -> dict[str, Any]:
    rows = {}
    for name, items in settings.items():
        ours, theirs = best["ours"][name], best["harness"].get(name)
        row: dict[str, Any] = {"items": len(items)}
        for side, values in (("ours", ours), ("harness", theirs)):
            if values:
                kept = {k: v for k, v in values.items() if k != "loglikelihood"}
                kept |= {"items_per_second": len(items) / values["seconds"]}
                row[side] = kept | {"accuracy": _accuracy(values["loglikelihood"], items)}
        if theirs:
            differences = np.subtract(*(np.concatenate(side["loglikelihood"]) for side in (ours, theirs)))
            row["max_difference"] = float(np.abs(differences).max())
            row["ratio"] = theirs["seconds"] / ours["seconds"]
            row["cpu_ratio"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
        rows[name] = row
    if "0" in rows:
        for row in rows.values():
            for figure in ("seconds", "cpu_seconds"):
                of_zero = rows["0"]["ours"][figure] / rows["0"]["items"]
                row[f"{figure}_of_0_shot"] = row["ours"][figure] / row["items"] / of_zero
    return {"model": arguments.model, "settings": rows, "load_average": os.getloadavg()[0], "cores": os.cpu_count()}


def _print(result: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold")
    heads = ("setting", "items", "ours/s", "host ms", "device ms", "harness/s", "ratio", "by CPU", "cost of 0-shot")
    heads += ("batch", "difference")
    for head in (*heads, "accuracy"):
        table.add_column(head, justify="right")
    for name, row in result["settings"].items():
        theirs = row.get("harness")
        of_zero = f"{row['cpu_seconds_of_0_shot']:.2f}" if "cpu_seconds_of_0_shot" in row else ""
        figures = [name + "-shot", str(row["items"]), f"{row['ours']['items_per_second']:.2f}"]
        figures += [f"{row['ours'][f'{where}_ms_per_item']:.2f}" for where in ("host", "device")]
        if theirs:
            figures += [f"{theirs['items_per_second']:.2f}", f"{row['ratio']:.1f}", f"{row['cpu_ratio']:.1f}", of_zero]
            figures += [str(theirs["batch_size"]), f"{row['max_difference']:.1e}"]
            figures += [f"{row['ours']['accuracy']:.3f} / {theirs['accuracy']:.3f}"]
        else:
            figures += ["", "", "", of_zero, "", "", f"{row['ours']['accuracy']:.3f}"]
        table.add_row(*figures)
    console = Console(width=140)
    console.print(table)
    for name, row in result["settings"].items():
        b = row["ours"]["breakdown"]
        wall, cpu = (
            f"{b[speed] / 1e9:.0f} GFLOP/s of {b[peak] / 1e9:.0f}"
            for speed, peak in (
                ("flops_per_second", "matmul_peak"),
                ("flops_per_cpu_second", "matmul_peak_per_cpu_second"),
            )
        )
        console.print(
            f"{name}-shot, ours: {b['tokens']:,} tokens in {b['slots']:,} slots ({b['fill']:.3f}), "
            f"{b['predictions']:,} predictions in {b['head_rows']:,} head rows; {b['flops'] / 1e9:,.0f} GFLOP, "
            f"LM head {b['head_share']:.0%}; {wall}, by CPU seconds {cpu}; host {b['host_seconds']:.2f} s; "
            f"before: {b['compilations']} compilations, {b['compile_seconds']:.1f} s"
        )
        ways = ", ".join(f"{way} {ms:.3f}" for way, ms in row["ours"]["host_ms_per_item_by_way"].items())
        console.print(f"{name}-shot, ours: host ms an item, packing included: {ways}")
    console.print(f"load average {result['load_average']:.1f} on {result['cores']} cores")


def _names(text: str) -> list[str]:
    return text.split(",") if text else []


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help=f"as convert takes it (a Llama), or {TINY}")
    parser.add_argument("--items", default="", help="HellaSwag as JSON lines; by default seeded synthetic items")
    parser.add_argument("--count", type=int, default=24, help="items")
    parser.add_argument("--few_shot_count", type=int, default=0, help="items with exemplars; 0 takes --count")
    parser.add_argument("--settings", default="0,5,5s", type=_names, help="ours")
    parser.add_argument("--harness_settings", default="0,5", type=_names, help="the harness's; empty for none")
    parser.add_argument("--batch_sizes", default="1,4,8,16", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--tune_items", type=int, default=4, help="items that batch sizes are tried on")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of both sides")
    parser.add_argument("--attention", default="xla", help="of ours, as in flan_jax/models/config.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.side:
        path = Path(arguments.job)
        path.with_suffix(".out").write_text(to_json(SIDES[arguments.side](json.loads(path.read_text()))))
        return
    with one_line_errors():
        for name in (*arguments.settings, *arguments.harness_settings):
            if not name.removesuffix("s").isdigit():
                raise FlanError(f"no setting {name!r}: give a number of exemplars, with an s where all share them.")
        if missing := set(arguments.harness_settings) - set(arguments.settings):
            raise FlanError(f"--settings lacks {', '.join(sorted(missing))} of --harness_settings.")
        with tempfile.TemporaryDirectory() as folder:
            result = benchmark(arguments, Path(folder), lambda line: print(line, flush=True))
    _print(result)
    if arguments.json:
        print(to_json(result))


if __name__ == "__main__":
    main()
