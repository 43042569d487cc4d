"""Prepares many datasets and shows the progress."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import progress
from rich.console import Console

from flan_jax import catalog, values
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath, ready
from flan_jax.lazy import lazy_imports
from flan_jax.styles import TextStyle
from flan_jax.wording import counted

with lazy_imports():  # if workers prepare, this process needs no TensorFlow
    from flan_jax.data import parallel, preparation

_DATASETS_A_WORKER = 4  # a worker first spends some seconds on importing TensorFlow


def prepare_datasets(
    chosen: Sequence[catalog.Dataset],
    data: str,
    tokenizer: vocabularies.Tokenizer | None,
    to: AnyPath,
    options: preparation.Options,
    overwrite: bool = False,
    workers: int = 1,
    styles: Mapping[str, Sequence[TextStyle]] | None = None,
) -> dict[str, Any]:
    """Prepares datasets. A source that fails is skipped, and the result names it.

    Args:
      chosen: the datasets.
      data: "samples", "tfds" or a folder.
      tokenizer: the vocabulary; None writes only dev and test examples, and no tokens.
      to: PREPARED_DIR.
      options: how examples are rendered and tokenized.
      overwrite: whether to prepare again what exists.
      workers: number of processes; 1 works in this one.
      styles: styles by dataset, in place of that of the options. The tokens of several are made in one pass.

    Returns:
      {"datasets": figures of each, "skipped": [{dataset, reason, remedy}], "bad_rows": [text], "notes": [text]}.

    Raises:
      FlanError: no dataset could be prepared, or a worker died.
    """
    values.checked("workers", values.Whole(1), workers)
    if not chosen:
        raise FlanError("no dataset is chosen: give --datasets or --mixture, or neither for all.")
    ready(to / "any")  # before the work; nothing is made, because --data may be wrong
    outcomes: dict[str, parallel.Outcome] = {}
    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        # This very stream, because TFDS writes while another one is in its place.
        console=Console(file=sys.stdout, markup=False, emoji=False),
    )
    with bar:
        task = bar.add_task("opening sources", total=len(chosen))
        for outcome in parallel.attempt_all(chosen, data, tokenizer, to, options, overwrite, workers, styles):
            outcomes[outcome.dataset] = outcome
            bar.update(task, description=f"prepared {outcome.dataset}", advance=1)
            if not bar.console.is_terminal:
                print(f"[{len(outcomes)}/{len(chosen)}] {_progress_line(outcome)}", flush=True)
    return result_of([outcomes[record.name] for record in chosen], data)


def result_of(outcomes: Sequence[parallel.Outcome], data: str) -> dict[str, Any]:
    """The result of `prepare_datasets`, from the outcomes of the datasets.

    Raises:
      FlanError: no dataset could be prepared.
    """
    done = [outcome.figures for outcome in outcomes if outcome.figures]
    skipped = [dataclasses.asdict(outcome.skipped) for outcome in outcomes if outcome.skipped]
    if not done:
        raise FlanError(
            f"nothing prepared: no source of {len(outcomes)} could be opened with --data={data} "
            f"(first: {skipped[0]['reason']}; {skipped[0]['remedy']})."
        )
    return {
        "datasets": done,
        "skipped": skipped,
        "bad_rows": [row for outcome in outcomes for row in outcome.bad_rows],
        "notes": [note for outcome in outcomes for note in outcome.notes],
    }


def _progress_line(outcome: parallel.Outcome) -> str:
    if outcome.figures is None:
        return f"{outcome.dataset}: skipped"
    if not outcome.figures["num_tokens"]:
        return f"{outcome.dataset}: {outcome.figures.get('test', 0):,} test examples"
    of_styles = outcome.figures.get("styles", {"": outcome.figures})
    tokens = sum(figures["num_tokens"] for figures in of_styles.values())
    kept = ", kept" if all(figures["kept"] for figures in of_styles.values()) else ""
    many = f" in {len(of_styles)} styles" if len(of_styles) > 1 else ""
    return f"{outcome.dataset}: {counted(tokens, 'tokens')}{many}{kept}"


def num_workers(wanted: int, datasets: int) -> int:
    """How many processes prepare. By default (0) one for each core, if there is enough work to start them."""
    values.checked("workers", values.Whole(0), wanted)
    return wanted or max(1, min(os.cpu_count() or 1, datasets // _DATASETS_A_WORKER))
