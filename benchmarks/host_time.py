"""What the host does for each item of an evaluation: prompts rendered and tokenized, as the evaluator does it.

python -m flan_jax.prepare --evaluate --data=DATA --checkpoint=CHECKPOINT --datasets=hellaswag --to=prepared
python benchmarks/host_time.py --prepared=prepared --vocabulary=VOCABULARY --styles=instructions,5_shared_shots

Three ways lead to the same trees: each text tokenized whole, each line once, and trees that were kept. The second way
forgets all between repeats. CPU milliseconds of all threads and wall milliseconds are the best of `--repeats`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from rich.console import Console
from rich.table import Table

from flan_jax import catalog, protocol
from flan_jax.data import vocabularies
from flan_jax.data.line_tokens import LineTokenizer
from flan_jax.errors import one_line_errors
from flan_jax.evaluation import evaluator, prompt_store, ranking
from flan_jax.evaluation.units import Unit
from flan_jax.json_lines import to_json
from flan_jax.scoring.scorer import ROW_LENGTHS

WAYS = ("whole", "lines", "kept")


def _best(run: Callable[[], Any], repeats: int, prompts: int) -> tuple[Any, dict[str, float]]:
    """What it returns, and milliseconds a prompt."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = map(min, zip(*times, strict=True))
    return result, {"wall_ms_per_item": 1e3 * wall / prompts, "cpu_ms_per_item": 1e3 * cpu / prompts}


def measure(arguments: argparse.Namespace, style: str, folder: Path) -> dict[str, Any]:
    """Milliseconds a prompt of each way, over the forward templates that were asked for."""
    tokenizer = vocabularies.load(arguments.vocabulary)
    settings = evaluator.Settings(max_examples=arguments.count, style=style)
    asked = settings.protocol_of(catalog.dataset(arguments.dataset))
    joint = asked.joint(None, False, arguments.joint)
    numbers = asked.forward[: arguments.templates]

    def units(tokenizer: vocabularies.Tokenizer) -> list[Unit]:
        records = prompt_store.read_records(arguments.prepared, asked, tokenizer, settings.max_examples, 0, 0)
        ((split, rows), _) = records.splits
        return [Unit.create(records.builder, split, number, rows, folder, ()) for number in numbers]

    def rendered(tokenizer: vocabularies.Tokenizer) -> list[ranking.Rendered]:
        return [ranking.render(tokenizer, unit, joint, ROW_LENGTHS[-1]) for unit in units(tokenizer)]

    by_lines = LineTokenizer(tokenizer)

    def kept() -> list[ranking.Rendered]:
        store = prompt_store.PromptStore(folder, by_lines)
        return [store.rendered(unit, joint, ROW_LENGTHS[-1]) for unit in units(by_lines)]

    prompts = len(kept()[0].lines) * len(numbers)
    runs = (lambda: rendered(tokenizer), lambda: rendered(LineTokenizer(tokenizer)), kept)
    found = [_best(run, arguments.repeats, prompts) for run in runs]
    trees = [[one.trees for one in result] for result, _ in found]
    if not trees[0] == trees[1] == trees[2]:
        raise RuntimeError(f"{style}: the ways give different trees")
    size = sum(path.stat().st_size for path in folder.rglob("*.trees"))
    tokens = sum(len(t.trunk) + sum(map(len, t.branches)) for of_unit in trees[0] for t in of_unit)
    return {
        "style": style,
        "joint": joint,
        "prompts": prompts,
        "tokens_per_item": tokens / prompts,
        "bytes_per_item": size / prompts,
        **{way: times for way, (_, times) in zip(WAYS, found, strict=True)},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", required=True, help="PREPARED_DIR with examples of the dataset")
    parser.add_argument("--vocabulary", required=True, help="as prepare takes it")
    parser.add_argument("--dataset", default="hellaswag", help="with options")
    parser.add_argument("--styles", default="instructions,5_shared_shots", type=lambda text: text.split(","))
    parser.add_argument("--joint", default=protocol.AUTO, choices=protocol.JOINTS)
    parser.add_argument("--count", type=int, default=500, help="test examples")
    parser.add_argument("--templates", type=int, default=1, help="the first forward ones")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    arguments = parser.parse_args(argv)
    with one_line_errors():
        rows = []
        for style in arguments.styles:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(arguments, style, Path(folder)))
    table = Table(box=None, header_style="bold")
    for head in ("style", "joint", "prompts", *(f"{way} {of}" for way in WAYS for of in ("wall", "CPU")), "bytes"):
        table.add_column(head, justify="left" if head in ("style", "joint") else "right")
    for row in rows:
        times = [f"{value:.3f}" for way in WAYS for value in row[way].values()]
        table.add_row(row["style"], row["joint"], f"{row['prompts']:,}", *times, f"{row['bytes_per_item']:,.0f}")
    console = Console(width=160)
    console.print(table)
    result = {"rows": rows, "load_average": os.getloadavg()[0], "cores": os.cpu_count()}
    console.print(f"milliseconds a prompt; load average {result['load_average']:.1f} on {result['cores']} cores")
    if arguments.json:
        print(to_json(result))


if __name__ == "__main__":
    main()
