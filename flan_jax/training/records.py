"""What a run writes before its first step: vocabulary, configuration, manifest and run.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import drafts
from flan_jax.data.mixtures import Composition
from flan_jax.data.stream import Stream
from flan_jax.files import writable, write_atomic, written
from flan_jax.training.resolving import Materials
from flan_jax.training.run import Run

_WIDTH = 120  # columns of the printed composition, if the output has fewer or none


def show(composition: Composition, draws: float, lines: Sequence[str]) -> None:
    """Prints what is trained on, what of the mixture is absent, and further lines."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, _WIDTH)
    table = composition.over(draws).table()
    table.caption = None
    console.print(table)
    if absent := composition.absent:
        of = len(composition.members) + len(absent)
        lines = [
            f"absent: {len(absent)} of {of} datasets of {composition.mixture} are not prepared: {', '.join(absent)}",
            *lines,
        ]
    for line in lines:
        print(line, flush=True)


def write(
    folder: Path,
    run: Run,
    given: Materials,
    composition: Composition,
    stream: Stream,
    step: int | None,
    config_text: str,
) -> None:
    """Writes the files; one process does.

    The configuration of the first start stays; those of later starts lie beside it.

    Args:
      folder: MODEL_DIR.
      run: the run with its changes.
      given: what resolving the run has opened.
      composition: what is trained on.
      stream: the rows.
      step: the step of the checkpoint to continue from; None if there is none.
      config_text: the gin configuration of this start.

    Raises:
      FlanError: they cannot be written.
    """
    writable(folder)
    with written(folder / "vocabulary"):
        given.tokenizer.save(folder / "vocabulary")
    first = folder / "config.gin"
    if step is None or not first.is_file():
        write_atomic(first, config_text)
    elif first.read_bytes() != config_text.encode():
        write_atomic(folder / f"config.from_step_{step}.gin", config_text)
    _manifest(folder, run, given, composition.over(run.train_steps * stream.draws_per_step), stream, step).save(folder)
    if given.base is not None:
        given.base.save(folder)
    if run != given.saved:
        run.save(folder)


def earlier_drafts(given: Materials, stream: Stream, composition: Composition) -> list[str]:
    """Lines about text that was worded by an earlier draft of our templates, here or in the checkpoint before."""
    found = []
    if draft := drafts.said({"text": _text(given, stream, composition)}):
        found.append(f"this run tunes on {draft}: run python -m flan_jax.prepare again, and give another MODEL_DIR.")
    draft = drafts.said(given.manifest.tuning)
    if draft and given.saved is None:
        found.append(f"the run starts from a model that was tuned on {draft}.")
    return found


def _text(given: Materials, stream: Stream, composition: Composition) -> list[dict[str, Any]]:
    """What a manifest records about the text of each part."""
    vocabulary = {"vocabulary": given.tokenizer.fingerprint}
    both = zip(stream.text, composition.members, strict=True)
    return [one | {"style": member.style} | vocabulary for one, member in both]


def _manifest(
    folder: Path, run: Run, given: Materials, composition: Composition, stream: Stream, step: int | None
) -> Manifest:
    """The manifest of the model that this run makes."""
    record = {
        "tuned on": run.mixture,
        **({"recipe": run.recipe} if run.recipe else {}),
        "absent": list(composition.absent),
        "composition": composition.to_dict(),
        "from": str(run.start.get("checkpoint")),
        "steps": run.train_steps,
        "batch_size": run.program.rows,
        "seed": run.seed,
    }
    manifest = given.manifest
    if given.saved is not None or step is not None:  # every run has one entry, however often it was stopped
        manifest = _before_this_run(Manifest.load(folder), record) if (folder / "manifest.json").is_file() else manifest
    return manifest.inherit(
        datasets=composition.datasets,
        clusters=sorted(composition.cluster_shares),
        separator=composition.joint,
        record=record,
        text=_text(given, stream, composition),
    )


def _before_this_run(manifest: Manifest, record: Mapping[str, Any]) -> Manifest:
    """The manifest without the entry of this run, which an earlier start has made."""
    last = manifest.history[-1] if manifest.history else {}
    kept = [name for name in record if name not in ("steps", "composition")]  # these grow with the length of the run
    same = all(last.get(name) == record[name] for name in kept)
    return dataclasses.replace(manifest, history=manifest.history[:-1]) if same else manifest
