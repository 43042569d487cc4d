"""What a study's folder keeps of the steps that were taken: when, how long, by which code."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from flan_jax import catalog
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath, is_url, make_folder, ready, refuse_pattern, same_place, user_path, write_atomic
from flan_jax.json_lines import from_json, to_json
from flan_jax.revision import code_revision
from flan_jax.studies import made, stamps
from flan_jax.studies.commands import EVAL, PREPARE, Commands, Step
from flan_jax.studies.settings import DATA_FILE, HAD
from flan_jax.values import Number, Unfit
from flan_jax.wording import counted

_STEPS = "steps"
_READS = "reads"  # in the record of a preparation: see `stamps`
_MADE = "made"  # in the record of a preparation: see `made`
_REPLACED = "replaced_by"  # in the record of a step whose folder another one has written since
_OF_OUTPUT = ("--to=", "--gin.EVAL_OUTPUT_DIR=", "--gin.MODEL_DIR=")
_AMOUNT = Number(least=0, most=1e12)  # of seconds and slots


def check_data(folder: AnyPath, data: str, write: bool = True) -> None:
    """Makes sure that a study's folder is of one kind of data.

    Args:
      folder: of the study.
      data: what it reads.
      write: whether a new folder is made, and says so from then on.

    Raises:
      FlanError: it was made from other data, which are still there, or cannot be made.
    """
    refuse_pattern(folder)
    path = folder / DATA_FILE
    if not path.exists() and (folder / _STEPS).exists():
        raise FlanError(
            f"{folder} has steps of studies, and no {DATA_FILE}, which says what DATA they are of: put it back, or "
            "give another STUDY_DIR."
        )
    if path.exists():
        try:
            about = from_json(path.read_text(encoding="utf-8"))
            kept = about["data"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FlanError(f"{path} is damaged: put its own back, or give another STUDY_DIR.") from error
        if kept != data and not _is_one_folder(kept, data) and not _is_moved(kept, data):
            raise FlanError(f"{folder} was made from DATA {kept}, not {data}: give another STUDY_DIR.")
        told = {"data": kept if _is_one_folder(kept, data) else data} | _folders_of(data, about.get(HAD))
        if write and told != about:  # what is prepared and evaluated is compared with the records that lie there now
            write_atomic(path, to_json(told) + "\n")
    elif write:
        make_folder(folder)
        write_atomic(path, to_json({"data": data} | _folders_of(data)) + "\n")
    else:
        ready(path)


def _folders_of(data: str, before: Any = None) -> dict[str, list[str]]:
    """The folders of datasets that a folder of data has, for plans while it is away.

    Args:
      data: what a study reads. On object storage and elsewhere nobody asks.
      before: those that it had, which may be of other modules of TASKS.
    """
    if not _is_folder(data) or is_url(data):
        return {}
    known = {folder for record in catalog.datasets() for folder in stamps.folders(record)}
    known |= {name for name in before if isinstance(name, str)} if isinstance(before, list) else set()
    return {HAD: sorted(name for name in known if (user_path(data, "DATA") / name).is_dir())}


def _is_one_folder(kept: Any, data: str) -> bool:
    """Whether two values of DATA are one folder on this machine, by other names."""
    folders = _is_folder(kept) and _is_folder(data)
    return folders and same_place(user_path(kept, "data.json"), user_path(data, "DATA"))


def _is_moved(kept: Any, data: str) -> bool:
    """Whether the folder of data is at another place now: the old one is there no more, and the new one is."""
    if not (_is_folder(kept) and _is_folder(data)):
        return False
    try:
        return not user_path(kept, "data.json").exists() and user_path(data, "DATA").is_dir()
    except (OSError, StorageError):  # of a place that cannot be asked nobody knows
        return False


def _is_folder(data: Any) -> bool:
    """Whether a value of DATA is one. They are written with their whole path; "samples" and "tfds" are none."""
    return isinstance(data, str) and (is_url(data) or os.path.isabs(data))


def is_done(folder: AnyPath, step: Step) -> bool:
    """Whether what a step writes is there; and of a preparation, whether it was taken as it would be taken now.

    So what was done elsewhere, by a launcher for example, is done. Whether the content is what is wanted is looked at
    in `outcomes` and `trained`.
    """
    there = (user_path(step.output) / step.done).exists()
    return there and (step.job != PREPARE or changed(folder, step) == [])


def changed(folder: AnyPath, step: Step) -> list[str] | None:
    """The datasets that were read before DATA or TASKS changed; None where no record tells of the preparation.

    What cannot be read now has not changed: DATA may lie on a disk that is not there.
    """
    kept = _kept(folder, step)
    return None if kept is None else stamps.changed(kept.get(_READS), step.reads)


def is_prepared(commands: Commands, model: str) -> bool:
    """Whether the records and tokens of a model's vocabulary are those that a plan asks for."""
    place = str(commands.prepared(model))
    steps = [step for step in commands.steps if step.job == PREPARE and step.output == place]
    return all(is_done(commands.settings.folder, step) and not spoiled(commands, step) for step in steps)


def spoiled(commands: Commands, step: Step) -> dict[str, str]:
    """What is not as a preparation left it, by folder; of what is not there any more, only what DATA still has.

    Raises:
      FlanError: something that DATA does not have, and that no preparation of this folder made.
    """
    settings, place = commands.settings, user_path(step.output)
    if not place.exists():
        return {}

    def has(one: str) -> bool:
        return settings.has(catalog.dataset(one.rpartition("/")[2]))

    found = _spoiled(settings.folder, step)
    if not is_kept(settings.folder, step):  # before its first time; other studies may have prepared there
        known = _made_at(settings.folder, step)
        own = {} if known is None else made.of(place, step.wordings)
        found |= {
            one: "is of no preparation of a study here"
            for one, digest in own.items()
            if digest not in (known or {}).get(one, ())
        }
    there = {one: why for one, why in found.items() if (place / one).exists()}
    if strange := sorted(one for one in there if not has(one)):  # nothing would replace it
        first, others = strange[0], len(strange) - 1
        remove = "that folder"
        if others:
            remove = f"it and {counted(others, 'others')} like it, or all of {place}, which is then prepared anew"
        raise FlanError(
            f"{place / first} {there[first]}, and DATA {settings.data} has nothing of {first.rpartition('/')[2]}: "
            f"remove {remove}, and run the study again."
        )
    return {one: why for one, why in found.items() if one in there or has(one)}


def _spoiled(folder: AnyPath, step: Step) -> dict[str, str]:
    return made.spoiled(user_path(step.output), step.wordings, (_kept(folder, step) or {}).get(_MADE))


def _made_at(folder: AnyPath, step: Step) -> dict[str, set[str]] | None:
    """All that preparations of a folder made, digests by folder in it; None where one does not say it."""
    place, path = str(step.output).replace(str(folder), ""), folder / _STEPS
    known: dict[str, set[str]] = {}
    for file in sorted(path.glob(f"{PREPARE}-*.json")) if path.exists() else ():
        found = _read(file)
        if found is None or not _writes(found, place):
            continue
        if not isinstance(each := found.get(_MADE), dict):
            return None
        for one, digest in each.items():
            known.setdefault(one, set()).add(digest)
    return known


def is_kept(folder: AnyPath, step: Step) -> bool:
    """Whether the folder has a record of a step, taken with these arguments, by these engines."""
    return _kept(folder, step) is not None


def begin(folder: AnyPath, step: Step) -> None:
    """Writes down, before a step is taken, that what others of its kind wrote to the same folder is replaced.

    Such a step has the same place and another name, since templates have been reworded. If their wording comes back, it
    is to be taken again: the folder holds the wording of the last one alone, or of both after an interruption. Prepared
    data of several studies lie side by side, and are replaced where one of their wordings differs.
    """
    if step.job == PREPARE:
        for name in _spoiled(folder, step):  # what has no info.json is made anew, and the rest stays
            (user_path(step.output) / name / "info.json").unlink(missing_ok=True)
    place = str(step.output).replace(str(folder), "")
    path = folder / _STEPS
    for file in sorted(path.glob("*.json")) if path.exists() else ():
        found = _read(file)
        if found is None or found.get("step") == step.name or found.get("job") != step.job or _REPLACED in found:
            continue
        of_the_same = _agree(found.get("wordings"), step.wordings) and stamps.agree(found.get(_READS), step.reads)
        if step.job == PREPARE and of_the_same:
            continue
        if _writes(found, place):
            write_atomic(file, json.dumps(found | {_REPLACED: step.name}, indent=1) + "\n")


def _writes(record: Mapping[str, Any], place: str) -> bool:
    """Whether a step wrote a folder, by its name in the folder of all studies."""
    return any(str(one).partition("=")[2].strip("'\"").endswith(place) for one in _outputs(record.get("argv")))


def put_aside(step: Step) -> None:
    """Renames the results of an evaluation that is to be made again, which a launcher would take for what is wanted."""
    results = user_path(step.output) / step.done
    if step.job != EVAL or not results.exists():
        return
    others = (results.with_name(f"replaced_{number}_{results.name}") for number in itertools.count(1))
    aside = next(path for path in others if not path.exists())
    write_atomic(aside, results.read_text(encoding="utf-8"))
    results.unlink()


def _agree(before: Any, now: Mapping[str, str]) -> bool:
    """Whether two preparations make the same text of what both have. Records of earlier versions do not say it."""
    return isinstance(before, dict) and bool(before) and all(before.get(key, told) == told for key, told in now.items())


def _outputs(argv: Any) -> list[str]:
    """The arguments that name what a step writes."""
    listed = argv if isinstance(argv, list | tuple) else ()
    return [one for one in listed if isinstance(one, str) and one.startswith(_OF_OUTPUT)]


def keep(folder: AnyPath, step: Step, seconds: float | None) -> None:
    """Writes down that a step is done, and how long it took; None where it was done elsewhere."""
    make_folder(folder / _STEPS)
    about = {
        "step": step.name,
        "argv": list(step.argv),
        "seconds": None if seconds is None else round(seconds, 1),
        "slots": step.slots,
        "model": step.model,
        "job": step.job,
        "wordings": dict(step.wordings),
        _READS: {kind: dict(each) for kind, each in step.reads.items()},
        **({_MADE: made.of(user_path(step.output), step.wordings)} if step.job == PREPARE else {}),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "code": code_revision(),
    }
    write_atomic(folder / _STEPS / f"{step.name}.json", json.dumps(about, indent=1, default=str) + "\n")


def timed(folder: AnyPath) -> list[dict[str, Any]]:
    """The records of this folder's steps that say how long they took."""
    path = folder / _STEPS
    found = map(_read, sorted(path.glob("*.json")) if path.exists() else ())
    return [record for record in found if record is not None and _is_timed(record)]


def _kept(folder: AnyPath, step: Step) -> dict[str, Any] | None:
    found = _read(folder / _STEPS / f"{step.name}.json")
    return found if found is not None and found.get("step") == step.name and _REPLACED not in found else None


def _read(path: AnyPath) -> dict[str, Any] | None:
    try:
        found = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_timed(record: dict[str, Any]) -> bool:
    """Whether a record says how long a step took, in amounts that can be: it may have been edited."""
    try:
        for name in ("seconds", "slots"):
            _AMOUNT.fit(record.get(name))
    except Unfit:
        return False
    argv = record.get("argv")
    return isinstance(argv, list) and all(isinstance(one, str) for one in argv)


def code_of(folder: AnyPath, step: Step) -> str | None:
    """The revision of the code that took a step; None where no record says it, as of steps that a launcher took."""
    code = (_kept(folder, step) or {}).get("code")
    return code if isinstance(code, str) and code else None
