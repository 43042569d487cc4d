"""Full text or letters: compares two runs that differ only in the form of their options, by which is better on dev.

As in OLMES, a dataset can be asked in the completion form, where the texts of the options are scored, or in the
multiple-choice form, where the prompt letters the options and the letters are scored. Dev decides which form counts,
and the test figure of that form is shown. Test plays no part in the choice.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.evaluation import clusters
from flan_jax.json_lines import to_json
from flan_jax.reporting import asked
from flan_jax.reporting.runs import Run, dataset_names, metric
from flan_jax.reporting.tables import NONE, Table, percent

TEXT, LETTERS = "full text", "letters"


@dataclasses.dataclass(frozen=True)
class Form:
    """A dataset in both forms.

    Attributes:
      dataset: the dataset's name.
      metric: its headline metric.
      dev: (full text, letters), means over the templates on dev, 0 to 1; None if there is no dev set.
      test: (full text, letters) on test.
    """

    dataset: str
    metric: str
    dev: tuple[float, float] | None
    test: tuple[float, float]

    @property
    def better(self) -> str | None:
        """The form that is better on dev, full text if both are equal; None if there is no dev set."""
        return None if self.dev is None else LETTERS if self.dev[1] > self.dev[0] else TEXT

    @property
    def score(self) -> float | None:
        """The test figure of the better form."""
        return None if self.better is None else self.test[self.better == LETTERS]


def pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The pairs of runs that differ only in the form of their options: (full text, letters)."""
    found = []
    for run in runs:
        wanted = dataclasses.replace(run.style, lettered_options=False) if run.style.lettered_options else None
        found += [(other, run) for other in runs if other.style == wanted and _asked(other) == _asked(run)]
    return found


def _asked(run: Run) -> list[str]:
    """What must be the same in both runs: the weights, and all settings except the style. Of a group, of each run."""
    found = []
    for one in run.members or (run,):
        settings = {name: value for name, value in one.results.get("settings", {}).items() if name != "style"}
        weights = one.results.get("weights", one.results["checkpoint"])
        found.append(to_json([one.is_log, weights, dict(sorted(settings.items()))]))
    return sorted(found)


def forms(text: Run, letters: Run) -> list[Form]:
    """The datasets with options that both runs have, measured by the same metric."""
    ranked = {record.name for record in catalog.datasets() if record.kind == catalog.CLASSIFICATION}
    found = []
    for name in dataset_names([text, letters]):
        both = [text.figures(name), letters.figures(name)]
        if not all(both) or name not in ranked or len({clusters.measured(f) for f in both}) > 1:
            continue
        dev = [[t.get("dev") for t in figures["templates"]] for figures in both]
        there = all(values and None not in values for values in dev) and asked.same_dev(both)
        means = tuple(statistics.fmean(values) for values in dev) if there else None
        found.append(Form(name, metric(both[0]), means, tuple(figures["mean"] for figures in both)))
    return found


def forms_table(runs: Sequence[Run]) -> Table:
    """Each dataset in both forms, the form that is better on dev, and its test figure."""
    rows = []
    for text, letters in pairs(runs):
        for form in forms(text, letters):
            dev = map(percent, form.dev or (None, None))
            rows.append((letters.name, form.dataset, form.metric, *dev, form.better or NONE, percent(form.score)))
    head = ("run", "dataset", "metric", f"{TEXT}, dev", f"{LETTERS}, dev", "better on dev", "its test")
    return Table((("", len(head)),), head, rows)


def to_dict(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The pairs of runs as values that JSON can hold; shares are from 0 to 1."""
    return [
        {
            TEXT.replace(" ", "_"): text.name,
            LETTERS: letters.name,
            "datasets": {
                form.dataset: {"metric": form.metric, "dev": form.dev, "better_on_dev": form.better, "test": form.score}
                for form in forms(text, letters)
            },
        }
        for text, letters in pairs(runs)
    ]
