"""Decides whether a start may continue what is in MODEL_DIR, by run.json or by the manifest of an earlier version."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from flan_jax import distributed
from flan_jax.checkpoint import saved_digests
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.errors import FlanError
from flan_jax.files import AnyPath
from flan_jax.models.config import COMPUTATION
from flan_jax.training.comparing import changed, differences, drawn, identity, is_of_another, part_of
from flan_jax.training.run import FILE, Run
from flan_jax.values import shown

_SHOWN = 6  # differences that a message lists


def continued(folder: AnyPath, run: Run, saved: Run | None, step: int | None) -> tuple[Run, list[str]]:
    """Compares a start with the run in MODEL_DIR, and returns the run's new record.

    Args:
      folder: MODEL_DIR.
      run: what is to be trained.
      saved: the run in run.json; None if there is none.
      step: the step of the checkpoint to continue from; None if there is none.

    Returns:
      The run with all changes since its first start, and lines that report them.

    Raises:
      FlanError: it is another run; the message has the names and both values.
    """
    if saved is None and step is None:
        return run, []
    if saved is None:
        manifest = Manifest.load(folder)
        if not _is_tuned(manifest):
            raise FlanError(
                f"{folder} holds a checkpoint that is no training run: give it as INITIAL_CHECKPOINT_PATH, and another "
                "MODEL_DIR."
            )
        _refuse(folder, unlike_manifest(manifest, run, folder), step)
        line = (
            f"{folder} is of an earlier version, without {FILE}: compared with manifest.json; what that does not say "
        )
        return run, [line + "(lengths, microbatches, optimizer) is taken from this start."]
    _refuse(folder, differences(saved, run), step)
    found = changed(saved, run)
    entry = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step or 0,
        "changed": {name: [old, new] for name, old, new in found},
    }
    run = dataclasses.replace(run, start=saved.start, changes=(*saved.changes, *([entry] if found else [])))
    lines = [f"changed since the last start: {listed(found)}."] if found else []
    if step is None and (folder / "metrics.jsonl").exists():
        lines.append(f"{folder} has no checkpoint: the run begins at step 1 again, and so does its log.")
    return run, lines


def _refuse(folder: AnyPath, found: Sequence[tuple[str, Any, Any]], step: int | None) -> None:
    if not found:
        return
    remedy = (
        f"nothing of it is saved yet: give its values, or delete {folder} to begin anew"
        if step is None
        else f"give its values to go on, or another MODEL_DIR, with INITIAL_CHECKPOINT_PATH='{folder}' to start from it"
    )
    raise FlanError(f"{folder} holds another run: {listed(found)}; {remedy}.")


def refuse_step_of_another(folder: AnyPath, run: Run, step: int | None) -> None:
    """Refuses to go on from a step that another training has saved. In a pod all processes must call it.

    Args:
      folder: MODEL_DIR.
      run: the run that goes on, from `continued`.
      step: the step of the checkpoint to continue from; None if there is none.

    Raises:
      FlanError: another training has saved it, or it was put together from steps of two.
    """
    if step is None:
        return
    saved_by = distributed.decided(lambda: saved_digests.saved_by(folder, step))
    if is_of_another(saved_by, run):
        raise FlanError(
            f"step {step} of {folder} was saved by another training ({saved_by}) than the run that goes on there "
            f"({identity(run)}): put its own back, or give another MODEL_DIR, with INITIAL_CHECKPOINT_PATH='{folder}' "
            "to start from it."
        )


def listed(found: Sequence[tuple[str, Any, Any]]) -> str:
    """Differences between two runs on one line: "NAME old -> new, ...".

    Args:
      found: (name, old value, new value), from `comparing.differences`.
    """
    parts = [f"{name} {_value(old)} -> {_value(new)}" for name, old, new in found[:_SHOWN]]
    return ", ".join(parts) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _value(value: Any) -> str:
    return "absent" if value is None else value if isinstance(value, str) and value.isprintable() else shown(value)


def unlike_manifest(manifest: Manifest, run: Run, folder: AnyPath) -> list[tuple[str, Any, Any]]:
    """What differs between a run and the last tuning in a manifest, as far as the manifest records it.

    Args:
      manifest: of the folder.
      run: the run that is compared with it.
      folder: MODEL_DIR, for messages.

    Returns:
      (name, the manifest's value, the run's value), with the names that a user knows.

    Raises:
      FlanError: the manifest is not as it was written.
    """
    try:
        if not _is_tuned(manifest):
            return [("MIXTURE_OR_TASK_NAME", None, run.mixture)]
        return _unlike_last(manifest, run)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FlanError(
            f"{folder / 'manifest.json'} is broken ({type(error).__name__}: {error}); restore it."
        ) from error


def _is_tuned(manifest: Manifest) -> bool:
    """Whether the last thing that was done with a model was a tuning."""
    return bool(manifest.history) and "tuned on" in manifest.history[-1]


def _unlike_last(manifest: Manifest, run: Run) -> list[tuple[str, Any, Any]]:
    last = manifest.history[-1]
    pairs = [
        ("MIXTURE_OR_TASK_NAME", last["tuned on"], run.mixture),
        ("INITIAL_CHECKPOINT_PATH", last.get("from"), str(run.start.get("checkpoint"))),
        ("BATCH_SIZE", last.get("batch_size"), run.program.rows),
        ("RANDOM_SEED", last.get("seed"), run.seed),
        ("vocabulary", manifest.vocabulary.get("fingerprint"), run.vocabulary.get("fingerprint")),
    ]
    shape = {name: value for name, value in manifest.model.items() if name not in COMPUTATION}
    pairs += [(f"MODEL.{name}", value, run.program.model.get(name)) for name, value in shape.items()]
    if composition := last.get("composition"):
        now = {part_of(one): drawn(one) for one in run.datasets}
        then = {part_of(one): drawn(one) for one in composition["members"]}
        pairs += [(f"composition.{name}", then.get(name), now.get(name)) for name in {**then, **now}]
    known = {
        one["dataset"]: {
            other["digest"] for other in manifest.tuning.get("text", []) if other["dataset"] == one["dataset"]
        }
        for one in run.datasets
    }
    pairs += [
        (f"composition.{part_of(one)}", "other data", f"data {one['digest'][:12]}")
        for one in run.datasets
        if known[one["dataset"]] and one["digest"] not in known[one["dataset"]]
    ]
    return [(name, old, new) for name, old, new in pairs if old != new and not (old is None and name.isupper())]
