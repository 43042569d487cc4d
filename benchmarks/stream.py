"""How a stream of hundreds of millions of examples starts, and goes on at a far step: seconds and memory.

python benchmarks/stream.py --examples=200000000 --datasets=62 --step=10000000

A token store is simulated: index files of so many examples with random lengths, as they lie on a disk, and a small
file of tokens that all of them share. Every line is a process of its own. Rows a second are counted by the clock and by
the processor time of the process, which other work on the machine hardly changes: one thread makes them. `anonymous` is
what the process holds itself at the end; `peak` is the most that it ever held, with the pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flan_jax import options
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.stream import Stream
from flan_jax.errors import one_line_errors
from flan_jax.json_lines import to_json

TOKENS = 1 << 20  # of the file that all examples share
_PART = 1 << 20  # examples that are written at once


def simulate(folder: Path, examples: int, seed: int, inputs: int = 200, targets: int = 30) -> None:
    """Writes a dataset of so many examples of about so many input and target tokens each, a few of them too long."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tokens = rng.integers(0, 30_000, TOKENS).astype(np.uint16)
    tokens.tofile(folder / "tokens.bin")
    index = np.lib.format.open_memmap(folder / "index.npy", "w+", token_store.INDEX, (examples,))
    header = index.offset
    del index
    checksum = 0
    with (folder / "index.npy").open("r+b") as file:
        file.seek(header)
        for first in range(0, examples, _PART):
            part = np.zeros(min(_PART, examples - first), token_store.INDEX)
            part["input_length"] = np.minimum(rng.exponential(0.9 * inputs, len(part)) + 0.1 * inputs, 1400)
            part["target_length"] = np.minimum(rng.exponential(targets - 2, len(part)) + 2, 300)
            part["offset"] = rng.integers(0, TOKENS - 1700, len(part))
            part["record"] = np.arange(first, first + len(part))
            checksum = zlib.crc32(part.tobytes(), checksum)
            file.write(part.tobytes())
    records = Identities.of(())
    arrays = {"hashes": records.hashes, "ids": records.ids, "texts": records.texts}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    info = {
        "version": token_store.VERSION,
        "num_records": examples,
        "renderings": 1,
        "num_examples": examples,
        "num_tokens": TOKENS,
        "tokens_dtype": "uint16",
        "tokens_crc32": zlib.crc32(tokens.tobytes()),
        "index_crc32": checksum,
        **{f"{name}_crc32": zlib.crc32(array.tobytes()) for name, array in arrays.items()},
        "records_digest": None,
        "digest": f"simulated {examples} {seed}",
    }
    (folder / "info.json").write_text(json.dumps(info))


def measure(folder: Path, step: int) -> dict[str, Any]:
    """Opens what lies in a folder and makes batches, in this process."""
    began = time.perf_counter()
    store = token_store.TokenStore(folder)
    found = {name: store[name] for name in store.names}
    opened = time.perf_counter()
    rates = {name: float(1 + number % 7) for number, name in enumerate(found)}
    stream = Stream(store, rates, seed=0, bos_id=None, eos_id=1)
    ready = time.perf_counter()
    stream.batch(step)
    first = time.perf_counter()
    number, processor = 0, time.process_time()
    while number < 3 * 512 // stream.rows_per_batch:  # three blocks of rows, as training would go on
        number += 1
        stream.batch(step + number)
    ended, processor = time.perf_counter(), time.process_time() - processor
    rows = number * stream.rows_per_batch
    return {
        "examples": sum(len(tokens.index) for tokens in found.values()),
        "step": step,
        "seconds_to_check": opened - began,
        "seconds_to_scan": ready - opened,
        "seconds_to_first_batch": first - ready,
        "rows_per_second": rows / (ended - first),
        "rows_per_processor_second": rows / processor,
        **memory(),
    }


def memory() -> dict[str, float]:
    """MiB of this process: {"anonymous", "file", "peak"}."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.strip()}
    named = {"anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    return {name: int(values[key]) / 1024 for name, key in named.items()}


def main() -> None:
    """Simulates, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", default="2000000,20000000,200000000", help="of all datasets; a line each")
    parser.add_argument("--datasets", type=options.count, default=62, help="that they are in")
    parser.add_argument("--step", type=options.count_or_none, default=10_000_000, help="to go on from, beside step 0")
    parser.add_argument("--inputs", type=options.count, default=200, help="mean input tokens of an example")
    parser.add_argument("--targets", type=options.count, default=30, help="mean target tokens of an example, 2 or more")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # the folder, in a process of its own
    arguments = parser.parse_args()
    if arguments.measure:
        print(to_json(measure(Path(arguments.measure), arguments.step)))
        return
    results = []
    with one_line_errors():
        for size in arguments.examples.split(","):
            each = options.count(size) // arguments.datasets
            with tempfile.TemporaryDirectory() as folder:
                for number in range(arguments.datasets):
                    simulate(Path(folder) / f"d{number:02d}", each, number, arguments.inputs, arguments.targets)
                for step in (0, arguments.step):
                    command = [sys.executable, __file__, f"--measure={folder}", f"--step={step}"]
                    results.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    table = Table(
        "examples", "step", "check s", "scan s", "first batch s", "rows/s", "rows/cpu s", "anonymous", "peak MiB"
    )
    for r in results:
        seconds = (f"{r[f'seconds_to_{name}']:.2f}" for name in ("check", "scan", "first_batch"))
        rates = [f"{r[key]:,.0f}" for key in ("rows_per_second", "rows_per_processor_second", "anonymous", "peak")]
        table.add_row(f"{r['examples']:,}", f"{r['step']:,}", *seconds, *rates)
    Console(width=110).print(table)
    if arguments.json:
        print(to_json({"streams": results}))


if __name__ == "__main__":
    main()
