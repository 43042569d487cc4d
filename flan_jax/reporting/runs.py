"""Finished evaluations: their results, and their predictions where they are at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import catalog, content, styles
from flan_jax.errors import FlanError
from flan_jax.json_lines import NotFiniteNumber, from_json, read_lines


@dataclasses.dataclass(frozen=True)
class Run:
    """One evaluation under its name in the report.

    Attributes:
      name: for example "untuned".
      results: what `evaluator.evaluate` returned.
      output_dir: its EVAL_OUTPUT_DIR, with the predictions; None where there are only results.
    """

    name: str
    results: Mapping[str, Any]
    output_dir: Path | None = None

    @property
    def style(self) -> styles.TextStyle:
        """How its records became prompts."""
        return styles.parse(self.results.get("settings", {}).get("style", styles.INSTRUCTIONS))

    @property
    def title(self) -> str:
        """The name with what its prompts are: "tuned (zero-shot)", "tuned (5 shots)", "untuned (zero-shot, gpt3)"."""
        parts = [f"{self.style.shots} shots" if self.style.shots else "zero-shot"]
        rest = dataclasses.replace(self.style, shots=0, shared=False).name
        return f"{self.name} ({', '.join([*parts, *([rest] if rest != styles.INSTRUCTIONS else [])])})"

    def figures(self, dataset: str) -> Mapping[str, Any] | None:
        """The dataset's figures, or None."""
        return self.results["datasets"].get(dataset)


def load_run(name: str, output_dir: str | Path) -> Run:
    """Reads the results.json of an earlier evaluation.

    Raises:
      FlanError: there is none, or it is broken.
    """
    path = Path(output_dir) / "results.json"
    try:
        results = from_json(path.read_text(encoding="utf-8"))
    except NotFiniteNumber as error:
        raise FlanError(f"{path} is no result ({error}): run python -m flan_jax.eval again.") from error
    except (OSError, ValueError) as error:
        raise FlanError(f"no readable results.json in {output_dir}: run python -m flan_jax.eval first.") from error
    if not isinstance(results, dict) or not {"checkpoint", "datasets", "clusters"} <= set(results):
        raise FlanError(f"{path} holds no results of an evaluation: run python -m flan_jax.eval again.")
    return Run(name, results, Path(output_dir))


def dataset_names(runs: Sequence[Run]) -> list[str]:
    """The datasets that any run has, in the catalog's order."""
    order = {d.name: i for i, d in enumerate(catalog.datasets())}
    names = dict.fromkeys(name for run in runs for name in run.results["datasets"])
    return sorted(names, key=lambda name: order.get(name, len(order)))


def by_cluster(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The datasets of each cluster."""
    found: dict[str, list[str]] = {}
    for name in dataset_names(runs):
        found.setdefault(first_figures(runs, name)["cluster"], []).append(name)
    return found


def first_figures(runs: Sequence[Run], dataset: str) -> Mapping[str, Any]:
    """The figures of the first run that has the dataset: for what is the same in all of them."""
    return next(figures for run in runs if (figures := run.figures(dataset)))


def metric(figures: Mapping[str, Any]) -> str:
    """The name of a dataset's headline metric."""
    return figures.get("metric", "accuracy")


def template_value(figures: Mapping[str, Any]) -> float:
    """A template's headline figure, 0 to 1."""
    return figures["value"] if "value" in figures else figures["sum"]


def predictions(run: Run, dataset: str) -> dict[int, list[dict[str, Any]]]:
    """The test predictions behind a dataset's figures, by template.

    Returns:
      Nothing where they are not all at hand, as for a run of which only the results were kept, or where they do not
      say what their records are. Each has a `record` besides: its hash, told apart from equal records before it. Runs
      pair by it, since rows of other data may have the same ids.

    Raises:
      FlanError: they hold a number that is NaN or infinite.
    """
    figures = run.figures(dataset)
    if run.output_dir is None or figures is None:
        return {}
    found = {}
    for template in figures["templates"]:
        path = run.output_dir / "predictions" / dataset / f"test_t{template['template']}.jsonl"
        try:
            rows = read_lines(path)[1:]
        except NotFiniteNumber as error:
            raise FlanError(f"{path} holds no predictions ({error}): run python -m flan_jax.eval again.") from error
        except (OSError, ValueError):
            return {}
        if not rows or len(rows) != figures["examples"]:
            return {}
        if not all("hash" in row for row in rows):  # of an earlier version
            return {}
        keys = content.numbered(row["hash"] for row in rows)
        found[template["template"]] = [row | {"record": key} for row, key in zip(rows, keys, strict=True)]
    return found
