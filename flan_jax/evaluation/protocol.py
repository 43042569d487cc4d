"""The paper's evaluation protocol (section 2.2, 3; appendix): every forward template, mean and spread, best on dev.

One unit of work is (dataset, split, template). A unit's predictions are one JSONL file, written whole or not at all and
bound by a digest to the checkpoint, the template's text, the vocabulary, the examples and the settings, so an
interrupted job goes on where it stopped and a stale file never answers.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax import catalog, distributed, styles, templates
from flan_jax.data import examples as example_files
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, unknown_name
from flan_jax.evaluation import prompts
from flan_jax.evaluation.scoring import OptionScores, Scorer
from flan_jax.evaluation.trees import Tree
from flan_jax.training import checkpoints

HELD_OUT = "zero-shot, held out"
SEEN = "seen"
UNKNOWN = "unknown"

_TREES_AT_ONCE = 256  # prompts scored together, so that batches are full; a job that is killed loses no more

SCORES = ("sum", "per_token", "per_byte")  # how options are ranked; the paper's and the default is the sum


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a result depends on, besides checkpoint, templates, vocabulary and examples.

    Attributes:
      max_examples: test examples a dataset, the first ones; None takes all.
      max_dev_examples: dev examples a dataset, for the best-dev template; 0 leaves it out.
      max_length: longest prompt with its longest option, in tokens.
      separator: what stands between prompt and option: "auto" takes the manifest's (the end-of-sequence token for a
        model tuned here; a line break for one that was not; a space in GPT-3's prompts), "eos", "newline" or "space"
        force one.
      style: how records become prompts, for example "instructions", "gpt3" or "5_shots" (`flan_jax.styles`).
    """

    max_examples: int | None = None
    max_dev_examples: int = 200
    max_length: int = 1280
    separator: str = "auto"
    style: str = "instructions"


def status(record: catalog.Dataset, manifest: checkpoints.Manifest) -> str:
    """Whether a score of this checkpoint on this dataset is zero-shot, by the paper's rule."""
    if manifest.trained_clusters is None:
        return UNKNOWN
    return HELD_OUT if catalog.is_held_out(record, manifest.trained_clusters) else SEEN


def select(names: Sequence[str]) -> list[catalog.Dataset]:
    """The datasets of a list of cluster names and dataset names, in the catalog's order, each once.

    Raises:
      FlanError: a name that is neither; the message has near matches.
    """
    known = {d.name: d for d in catalog.datasets()}
    chosen: dict[str, catalog.Dataset] = {}
    for name in names:
        if name in known:
            chosen[name] = known[name]
        elif name in {c.name for c in catalog.clusters()}:
            chosen.update({d.name: d for d in catalog.datasets(name)})
        else:
            raise unknown_name("dataset or cluster", name, [*known, *(c.name for c in catalog.clusters())])
    return [d for d in known.values() if d.name in chosen]


def evaluate(
    scorer: Scorer,
    tokenizer: Tokenizer,
    manifest: checkpoints.Manifest,
    checkpoint: str,
    datasets: Sequence[catalog.Dataset],
    prepared_dir: str | Path,
    output_dir: str | Path,
    settings: Settings,
    *,
    allow_seen: bool = True,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Scores datasets and writes predictions and results.json under `output_dir`.

    Args:
      scorer: the scoring engine with the checkpoint's parameters.
      tokenizer: the checkpoint's vocabulary.
      manifest: the checkpoint's manifest, from which held out or seen is told.
      checkpoint: its folder and step, for the record.
      datasets: what to evaluate.
      prepared_dir: where `flan_jax.prepare` wrote dev and test examples.
      output_dir: EVAL_OUTPUT_DIR.
      settings: limits.
      allow_seen: False refuses to score a dataset that is not held out.
      progress: called with (unit, done, total).

    Returns:
      The results, as in results.json.

    Raises:
      FlanError: a dataset that was seen, without `allow_seen`; no dataset that can be scored.
    """
    output = Path(output_dir)
    style = styles.parse(settings.style)
    results: dict[str, Any] = {
        "checkpoint": checkpoint,
        "model_digest": manifest.digest(),
        "tuning": manifest.tuning,
        "settings": dataclasses.asdict(settings),
        "separator": prompts.resolve_separator(settings.separator, manifest.separator, style),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "datasets": {},
        "skipped": [],
    }
    units: list[tuple[ExampleBuilder, str, int, list[dict[str, Any]]]] = []
    for record in datasets:
        label = status(record, manifest)
        if label != HELD_OUT and not allow_seen:
            raise FlanError(
                f"dataset {record.name} is {label} for {checkpoint}, not held out; "
                "add --allow_seen to score it all the same (it is labelled so)."
            )
        if record.kind != catalog.CLASSIFICATION:
            results["skipped"].append(
                {"dataset": record.name, "reason": "a generation dataset; this evaluator ranks options"}
            )
            continue
        try:
            test = example_files.read(prepared_dir, record.name, "test", settings.max_examples)
            dev = example_files.read(prepared_dir, record.name, "dev", settings.max_dev_examples)
            pool = example_files.read(prepared_dir, record.name, "exemplars") if style.shots else []
        except FlanError as error:
            results["skipped"].append({"dataset": record.name, "reason": str(error)})
            continue
        builder = ExampleBuilder(record, style, pool=[(row["id"], row["fields"]) for row in pool], tokenizer=tokenizer)
        for split, rows in (("test", test), ("dev", dev)):
            units += [(builder, split, number, rows) for number in styles.forward_templates(record, style) if rows]
    if not units:
        reasons = "; ".join(f"{s['dataset']}: {s['reason']}" for s in results["skipped"]) or "no dataset given"
        raise FlanError(f"nothing to evaluate: {reasons.rstrip('.')}.")

    scored: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    waiting: list[_Unit] = []

    def score_waiting() -> None:
        every = iter(scorer.score([tree for unit in waiting for tree in unit.trees]))
        for unit in waiting:
            scored[unit.name] = unit.write([next(every) for _ in unit.trees])
        waiting.clear()

    for done, (builder, split, number, rows) in enumerate(units):
        name = builder.record.name
        progress(f"{name} {split} template {number}", done, len(units))
        key = _unit_key(results, builder, number, tokenizer, settings, rows)
        path = output / "predictions" / name / f"{split}_t{number}.jsonl"
        kept = _read_unit(path, key, len(rows))
        if distributed.everywhere(kept is not None):  # processes that disagreed would wait for each other for ever
            scored[name, split, number] = kept
            continue
        waiting.append(_Unit.render(tokenizer, builder, split, number, rows, settings, results["separator"], key, path))
        if sum(len(unit.trees) for unit in waiting) >= _TREES_AT_ONCE:
            score_waiting()
    score_waiting()
    progress("done", len(units), len(units))

    for record in dict.fromkeys(unit[0].record for unit in units):
        numbers = styles.forward_templates(record, style)
        by_split = {
            split: {n: scored[key] for n in numbers if (key := (record.name, split, n)) in scored}
            for split in ("test", "dev")
        }
        results["datasets"][record.name] = {
            "cluster": record.cluster,
            "paper_dataset": record.paper_dataset,
            "status": status(record, manifest),
            **summarize(record, by_split["test"], by_split["dev"]),
        }
    results["clusters"] = cluster_means(results["datasets"])
    if distributed.is_primary():
        write_atomic(output / "results.json", json.dumps(results, indent=1))
    return results


def _unit_key(
    results: Mapping[str, Any],
    builder: ExampleBuilder,
    number: int,
    tokenizer: Tokenizer,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Digest of all that a unit's predictions depend on."""
    bound = [
        results["model_digest"],
        results["checkpoint"],
        settings.style,
        templates.digest([builder.templates[number]]),
        builder.digest,
        tokenizer.fingerprint,
        results["separator"],
        settings.max_length,
        rows,
    ]
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Unit:
    """A (dataset, split, template) that waits to be scored."""

    name: tuple[str, str, int]
    lines: list[dict[str, Any]]
    trees: list[Tree]
    key: str
    path: Path

    @classmethod
    def render(
        cls,
        tokenizer: Tokenizer,
        builder: ExampleBuilder,
        split: str,
        number: int,
        rows: Sequence[Mapping[str, Any]],
        settings: Settings,
        separator: str,
        key: str,
        path: Path,
    ) -> _Unit:
        """Renders the prompts and builds their trees."""
        lines, trees = [], []
        for row in rows:
            example = builder.build(row["id"], row["fields"], number)
            options, answer = example.fields["options"], example.fields["answer"]
            prompt = prompts.fit_prompt(
                tokenizer,
                builder.templates[number],
                example.fields,
                settings.max_length,
                prefix=example.prefix,
                separator=separator,
            )
            trees.append(prompts.scoring_tree(tokenizer, prompt.inputs, options, separator))
            lines.append(
                {
                    "id": row["id"],
                    "dataset": builder.record.name,
                    "split": split,
                    "template": number,
                    "prompt": prompt.inputs,
                    "shots": example.shots,
                    "cut_tokens": prompt.cut_tokens,
                    "options": options,
                    "answer": options.index(answer),
                }
            )
        return cls((builder.record.name, split, number), lines, trees, key, path)

    def write(self, scores: Sequence[OptionScores]) -> list[dict[str, Any]]:
        """Writes the predictions, in one process, and returns them."""
        predictions = [
            line
            | {
                "loglikelihood": list(score.loglikelihood),
                "tokens": list(score.tokens),
                "bytes": list(score.num_bytes),
            }
            for line, score in zip(self.lines, scores, strict=True)
        ]
        header = {"key": self.key, "examples": len(predictions)}
        lines = [json.dumps(line, ensure_ascii=False) for line in (header, *predictions)]
        if distributed.is_primary():
            write_atomic(self.path, "\n".join(lines) + "\n")
        return predictions


def _read_unit(path: Path, key: str, count: int) -> list[dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        header, *lines = read_lines(path)
    except ValueError:  # no JSON, no UTF-8, or empty
        return None
    return lines if header.get("key") == key and len(lines) == count else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a predictions file; the first is its header."""
    with path.open(encoding="utf-8") as file:  # str.splitlines would also cut at U+2028 and U+0085 inside a text
        return [json.loads(line) for line in file]


def write_atomic(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------------- figures


def ranked(prediction: Mapping[str, Any], score: str) -> int:
    """The option of the highest score, ties to the first.

    Args:
      prediction: a line of a predictions file.
      score: "sum", "per_token" or "per_byte".
    """
    values = np.asarray(prediction["loglikelihood"], np.float64)
    if score == "per_token":
        values = values / np.maximum(prediction["tokens"], 1)
    elif score == "per_byte":
        values = values / np.maximum(prediction["bytes"], 1)
    return int(np.argmax(values))


def accuracy(predictions: Sequence[Mapping[str, Any]], score: str = "sum") -> float:
    """Share of predictions whose highest option is the answer, 0 to 1."""
    return float(np.mean([ranked(p, score) == p["answer"] for p in predictions]))


def summarize(
    record: catalog.Dataset,
    test: Mapping[int, Sequence[Mapping[str, Any]]],
    dev: Mapping[int, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """The figures of one dataset (paper, section 2.2).

    Args:
      record: the dataset.
      test: predictions on test by template number.
      dev: predictions on dev by template number; empty where there is no dev set.

    Returns:
      accuracies from 0 to 1: `mean` and `std` (sample standard deviation) over templates; `best_dev`, the test accuracy
      of the template that is best on dev (ties to the first); `stderr` of one template's accuracy at the mean;
      `random` and `majority` baselines; `templates`, a list of figures by template.
    """
    rows = next(iter(test.values()))
    by_template = {
        number: {
            "template": number,
            **{score: accuracy(predictions, score) for score in SCORES},
            "dev": accuracy(dev[number]) if number in dev else None,
            "cut_prompts": sum(p["cut_tokens"] > 0 for p in predictions),
        }
        for number, predictions in test.items()
    }
    sums = np.array([t["sum"] for t in by_template.values()])
    best = max(by_template.values(), key=lambda t: t["dev"]) if dev else None
    counts = collections.Counter(p["options"][p["answer"]] if record.labels else p["answer"] for p in rows)
    mean = float(sums.mean())
    return {
        "examples": len(rows),
        "dev_examples": len(next(iter(dev.values()))) if dev else 0,
        "mean": mean,
        "std": float(sums.std(ddof=1)) if len(sums) > 1 else 0.0,
        "mean_per_token": float(np.mean([t["per_token"] for t in by_template.values()])),
        "mean_per_byte": float(np.mean([t["per_byte"] for t in by_template.values()])),
        "best_dev": best["sum"] if best else None,
        "best_dev_template": best["template"] if best else None,
        "stderr": float(np.sqrt(mean * (1 - mean) / len(rows))),
        "random": float(np.mean([1 / len(p["options"]) for p in rows])),
        "majority": counts.most_common(1)[0][1] / len(rows),
        "templates": list(by_template.values()),
    }


def cluster_means(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Means over the datasets of each cluster; variants of one dataset count once, by their mean."""
    grouped: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for figures in datasets.values():
        grouped.setdefault(figures["cluster"], {}).setdefault(figures["paper_dataset"], []).append(figures)

    def mean(variants: Iterable[list[Mapping[str, Any]]], name: str) -> float | None:
        values = [[f[name] for f in group if f[name] is not None] for group in variants]
        return float(np.mean([np.mean(v) for v in values])) if all(values) else None

    return {
        cluster: {name: mean(groups.values(), name) for name in ("mean", "best_dev", "random", "majority")}
        | {"status": _joint_status([f["status"] for group in groups.values() for f in group])}
        for cluster, groups in grouped.items()
    }


def _joint_status(labels: Sequence[str]) -> str:
    return labels[0] if len(set(labels)) == 1 else "mixed"
