"""How each template did in an evaluation, compared with the other templates of its dataset."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flan_jax.errors import FlanError
from flan_jax.evaluation.figures import right_options
from flan_jax.reporting.runs import Run, UnusableError, dataset_names, predictions
from flan_jax.reporting.tables import NONE, Table, percent, signed
from flan_jax.reporting.values import Line, Values, matched, said, values_of

OUTLIER = 3  # standard errors below the mean of the other templates
_ROUNDING = 1e-12  # rounding error of shares


@dataclasses.dataclass(frozen=True)
class Judged:
    """A template of a dataset in an evaluation. The other templates are its siblings.

    Attributes:
      dataset: the dataset's name.
      template: the template's number.
      wording: its text as it was evaluated.
      metric: what is measured, such as "accuracy".
      value: the figure, 0 to 1.
      difference: the figure minus the mean of its siblings' figures; None without siblings.
      standard_error: of the difference, by the jackknife over examples with all their templates; examples of one
        passage are left out together. None if there is only one example or no sibling.
      share: how often the most frequent answer was given, 0 to 1.
      most: that answer; "option 2" if each example has its own options.
      agreement: how often its answer is the same as a sibling's, averaged over examples and siblings; None without
        siblings.
      loglikelihood: of the right option, in nats, averaged over examples; None if answers are generated.
      tokens: of the prompt, averaged over examples.
    """

    dataset: str
    template: int
    wording: str
    metric: str
    value: float
    difference: float | None
    standard_error: float | None
    share: float
    most: str
    agreement: float | None
    loglikelihood: float | None
    tokens: float

    @property
    def is_outlier(self) -> bool:
        """Whether the figure is more than three standard errors below its siblings' mean."""
        if self.difference is None or self.standard_error is None:
            return False
        return self.difference < 0 and -self.difference > OUTLIER * self.standard_error + _ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """The template as values that JSON can hold."""
        return dataclasses.asdict(self) | {"outlier": self.is_outlier}

    def said_of_outlier(self) -> str:
        """A line that reports the template as an outlier."""
        errors = f"{-self.difference / self.standard_error:.1f}" if self.standard_error else "all"
        points = f"{100 * -self.difference:.1f} points below its siblings"
        return f"{self.dataset} {self.template}: {100 * self.value:.1f}, {points} ({errors} standard errors)"


def judge(run: Run, count_tokens: Callable[[Sequence[str]], Sequence[int]]) -> tuple[list[Judged], dict[str, str]]:
    """Judges the templates of an evaluation.

    Args:
      run: the evaluation, with its predictions.
      count_tokens: returns the number of tokens of each text.

    Returns:
      The templates, and {dataset: why it cannot be judged}.

    Raises:
      FlanError: the run has no usable predictions.
    """
    found: list[Judged] = []
    unusable: dict[str, str] = {}
    for name in dataset_names([run]):
        try:
            rows = predictions(run, name)
            if not rows:
                raise UnusableError("it has no predictions")
            found += _judged(name, rows, values_of(rows, run.figures(name), run.style.name), count_tokens)
        except UnusableError as error:
            unusable[name] = str(error)
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unusable.items()) or "it has no datasets"
        raise FlanError(f"no template of {run.name} can be judged ({reasons}): run python -m flan_jax.eval again.")
    return found, unusable


def _judged(
    name: str,
    rows: dict[int, list[dict[str, Any]]],
    values: Values,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> list[Judged]:
    keyed, keys = matched(rows)
    lines = {number: [keyed[number][key] for key in keys] for number in rows}
    answers_TxE = np.array([[said(line) for line in of] for of in lines.values()], dtype=object)
    sample = values.sample()
    figures_T = sample.values_T
    without_GxT = sample.without_each() if sample.size > 1 else None
    found = []
    for t, number in enumerate(rows):
        others = [s for s in range(len(figures_T)) if s != t]
        error = None
        if others and without_GxT is not None:
            differences_G = without_GxT[:, t] - without_GxT[:, others].mean(1)
            spread = float(((differences_G - differences_G.mean()) ** 2).sum())
            error = ((sample.size - 1) / sample.size * spread) ** 0.5
            error = error if error > _ROUNDING else 0.0
        found.append(
            Judged(
                dataset=name,
                template=number,
                wording=values.wordings[t],
                metric=values.metric,
                value=float(figures_T[t]),
                difference=float(figures_T[t] - figures_T[others].mean()) if others else None,
                standard_error=error,
                share=values.answers[t].share,
                most=values.answers[t].most,
                agreement=float((answers_TxE[others] == answers_TxE[t]).mean()) if others else None,
                loglikelihood=_of_the_right(lines[number]),
                tokens=statistics.fmean(count_tokens([str(line.get("prompt", "")) for line in lines[number]])),
            )
        )
    return found


def _of_the_right(lines: Sequence[Line]) -> float | None:
    if "loglikelihood" not in lines[0]:
        return None
    return statistics.fmean(max(line["loglikelihood"][i] for i in right_options(line)) for line in lines)


def table(judged: Sequence[Judged], unit: str) -> Table:
    """A table of the templates with their figures. Outliers are marked.

    Args:
      judged: the templates.
      unit: what prompts are counted in, such as "tokens".
    """
    rows: list[tuple[str, ...]] = []
    for one in judged:
        apart = NONE if one.difference is None else signed(one.difference)
        if one.standard_error is not None:
            apart += f" ± {100 * one.standard_error:.1f}"
        rows.append(
            (
                one.dataset,
                str(one.template),
                percent(one.value),
                f"{apart} outlier" if one.is_outlier else apart,
                f"{percent(one.share)} {one.most[:24]}".replace("\n", " "),
                percent(one.agreement),
                NONE if one.loglikelihood is None else f"{one.loglikelihood:.2f}",
                f"{one.tokens:.0f}",
            )
        )
    head = ("dataset", "template", "test", "beside siblings", "most frequent", "agreement", "right answer, nats", unit)
    return Table((("", len(head)),), head, rows)
