"""A user's own datasets, prepared from JSON lines or a SeqIO task: what is known of them besides their tokens.

    PREPARED_DIR/own/<name>.json

The catalog shows the own datasets of the PREPARED_DIR that is in use. They are kept in an environment variable, so that
every process that this one starts knows them too.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath, RemotePath, make_folder, user_path, write_atomic

VARIABLE = "FLAN_JAX_OWN_DATA"
JSONL, SEQIO = "jsonl", "seqio"  # the first part of an origin
_FOLDER = "own"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Definition:
    """What the catalog needs to know about an own dataset.

    Attributes:
      name: its name.
      cluster: a cluster of the catalog, or "unknown".
      kind: "classification" if every example has options, otherwise "generation".
      metrics: names of `flan_jax.metrics`.
      origin: where its records came from, as "jsonl:chat.jsonl" or "seqio:my_task".
      form: the form of its inputs: "text", or "chat" for conversations.
      template: a digest of the chat template that wrote them; empty for the plain form.
      vocabulary: the fingerprint of the vocabulary that the chat template belongs to.
    """

    name: str
    cluster: str
    kind: str
    metrics: tuple[str, ...]
    origin: str
    form: str = "text"
    template: str = ""
    vocabulary: str = ""

    @classmethod
    def of(cls, values: Any) -> Definition:
        """Reads what `to_dict` gave.

        Raises:
          ValueError: these are not the values of a definition.
        """
        if not isinstance(values, dict) or values.get("version") != _VERSION:
            raise ValueError("no definition of this version")
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            found = cls(**{name: value for name, value in values.items() if name in known})
            found = dataclasses.replace(found, metrics=tuple(found.metrics))
        except TypeError as error:
            raise ValueError(str(error)) from error
        texts = [*found.metrics, *(one for name, one in vars(found).items() if name != "metrics")]
        if not all(isinstance(one, str) for one in texts):
            raise ValueError("a value is no text")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The definition as values that JSON can hold."""
        return {"version": _VERSION, **dataclasses.asdict(self), "metrics": list(self.metrics)}


def use(prepared_dir: str | os.PathLike[str] | AnyPath) -> tuple[Definition, ...]:
    """Shows the own datasets of a PREPARED_DIR in the catalog, in place of those of another PREPARED_DIR.

    Raises:
      FlanError: a definition is broken.
    """
    folder = user_path(prepared_dir) / _FOLDER
    found = []
    paths: list[Any] = sorted(folder.glob("*.json")) if folder.is_dir() else []
    for path in paths:
        try:
            found.append(Definition.of(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise FlanError(f"{path} is broken ({error}); prepare {path.stem} again with --overwrite.") from error
    if found:
        os.environ[VARIABLE] = json.dumps([one.to_dict() for one in found], sort_keys=True)
    else:
        leave()
    return tuple(found)


def leave() -> None:
    """Removes the own datasets from the catalog."""
    os.environ.pop(VARIABLE, None)


def used_of(prepared_dir: Any) -> bool:
    """Calls `use` if the value is a PREPARED_DIR, and says whether it holds own datasets."""
    if not prepared_dir or not isinstance(prepared_dir, str | os.PathLike | RemotePath):
        return False
    try:
        return bool(use(prepared_dir))
    except StorageError:  # whoever opens the folder reports it
        return False


def is_origin(source: str) -> bool:
    """Whether a dataset's source is the origin of a user's own data. Such data are in a PREPARED_DIR only."""
    return source.partition(":")[0] in (JSONL, SEQIO)


def named() -> str:
    """The definitions in use, as text; empty by default."""
    return os.environ.get(VARIABLE, "")


def definitions(text: str) -> tuple[Definition, ...]:
    """The definitions in a text that `named` gave."""
    return tuple(Definition.of(values) for values in json.loads(text)) if text else ()


def write(prepared_dir: str | AnyPath, definition: Definition) -> None:
    """Writes a dataset's definition, whole or not at all, and calls `use` for that PREPARED_DIR."""
    folder = user_path(prepared_dir) / _FOLDER
    make_folder(folder)
    write_atomic(folder / f"{definition.name}.json", json.dumps(definition.to_dict(), indent=1) + "\n")
    use(prepared_dir)
