"""Greedy generation by our engine beside transformers: the same weights, prompts and machine, in one run.

python benchmarks/decoding.py --prompts=200 --json

Prompts are starts of texts from the bundled samples. Both sides generate in batches of prompts of similar length, in
float32, until the end of sequence or `--max_new_tokens`. Tokens are compared one by one. A side's seconds are those of
generation alone; ours has compiled before (`compile_seconds`), theirs has generated once.
"""

from __future__ import annotations

import argparse
import bisect
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import torch
from as_transformers import as_transformers

import flan_jax.tasks
from flan_jax import models
from flan_jax.decoding.generator import PROMPT_LENGTHS, Generator
from flan_jax.errors import one_line_errors
from flan_jax.formats import gguf, names, pretrained
from flan_jax.json_lines import to_json


def prompt_texts(count: int, seed: int) -> list[str]:
    """The first 6 to 32 words of texts from the samples."""
    draw, texts = random.Random(seed), []
    for path in sorted((Path(flan_jax.tasks.__path__[0]) / "samples").glob("*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                strings = [value for value in json.loads(line).values() if isinstance(value, str)]
                texts.append(max(strings, key=len, default=""))
    texts = sorted({text for text in texts if len(text.split()) > 32})
    return [" ".join(text.split()[: draw.randint(6, 32)]) for text in draw.sample(texts, min(count, len(texts)))]


class Measured:
    """Seconds from here on: of the wall, and of all threads of the process, which other processes disturb less."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        """What passed."""
        wall, cpu = self._start
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def run_ours(found: Any, prompts: list[list[int]], new: int, rows: int) -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    """Tokens without the end of sequence, and figures."""
    generator = Generator(models.build(found.config), found.params, found.tokenizer.eos_id, rows=(rows,))
    start = time.perf_counter()
    by_size = {bisect.bisect_left(PROMPT_LENGTHS, len(prompt)): prompt for prompt in prompts}
    for prompt in by_size.values():  # a batch of each size, with the same room for new tokens
        generator.generate([prompt], new)
    compiled, compile_count = time.perf_counter() - start, generator.compile_count
    measured = Measured()
    tokens = [generation.tokens for generation in generator.generate(prompts, new)]
    return tokens, measured.stop() | {
        "compile_seconds": compiled,
        "recompiled": generator.compile_count - compile_count,
    }


def run_theirs(
    found: Any, prompts: list[list[int]], new: int, rows: int
) -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    """The same by transformers, prompts filled up at their left."""
    eos = found.tokenizer.eos_id
    model = as_transformers(found.config, found.params, eos, attention="sdpa")
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    tokens: list[tuple[int, ...]] = [()] * len(prompts)

    def generate(numbers: Sequence[int]) -> None:
        length = max(len(prompts[i]) for i in numbers)
        ids = torch.tensor([[0] * (length - len(prompts[i])) + prompts[i] for i in numbers])
        mask = torch.tensor([[0] * (length - len(prompts[i])) + [1] * len(prompts[i]) for i in numbers])
        output = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False)
        for i, row in zip(numbers, output[:, length:].tolist(), strict=True):
            tokens[i] = tuple(row[: row.index(eos)] if eos in row else row)

    generate(order[:1])
    measured = Measured()
    for at in range(0, len(order), rows):
        generate(order[at : at + rows])
    return tokens, measured.stop()


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs both sides one after the other.

    Raises:
      FlanError: the model is not installed.
    """
    found = gguf.read(pretrained.locate(arguments.model))
    texts = prompt_texts(arguments.prompts, arguments.seed)
    start = [] if found.tokenizer.bos_id is None else [found.tokenizer.bos_id]
    prompts = [start + ids for ids in found.tokenizer.encode(texts)]
    settings = prompts, arguments.max_new_tokens, arguments.rows
    tokens, ours = run_ours(found, *settings)
    their_tokens, theirs = run_theirs(found, *settings)
    for side, made in ((ours, tokens), (theirs, their_tokens)):
        side["tokens"] = sum(map(len, made))
        side["tokens_per_second"] = side["tokens"] / side["seconds"]
        side["tokens_per_cpu_second"] = side["tokens"] / side["cpu_seconds"]
    same = [one == other for one, other in zip(tokens, their_tokens, strict=True)]
    return {
        "model": arguments.model,
        "prompts": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "max_new_tokens": arguments.max_new_tokens,
        "rows": arguments.rows,
        "device": jax.devices()[0].device_kind,
        "torch_threads": torch.get_num_threads(),
        "identical": sum(same),
        "different": [texts[i] for i, equal in enumerate(same) if not equal],
        "ours": ours,
        "transformers": theirs,
        "ratio": ours["tokens_per_second"] / theirs["tokens_per_second"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=names.GEMMA, help=f"one of {', '.join(names.PACKAGED)}")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--max_new_tokens", type=int, default=12)
    parser.add_argument("--rows", type=int, default=16, help="prompts of a batch, on both sides")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        result = benchmark(arguments)
    print(f"{result['identical']} of {result['prompts']} prompts have identical tokens")
    for side in ("ours", "transformers"):
        print(
            f"{side}: {result[side]['tokens_per_second']:.1f} tokens a second ({result[side]['seconds']:.1f} s), "
            f"{result[side]['tokens_per_cpu_second']:.1f} a CPU second"
        )
    print(f"ours / transformers: {result['ratio']:.2f}")
    if arguments.json:
        print(to_json(result))


if __name__ == "__main__":
    main()
