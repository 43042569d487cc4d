"""The weights in a folder of transformers: one safetensors file, or shards with an index."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors

from flan_jax.errors import FlanError
from flan_jax.formats.downloads import refuse_pointer
from flan_jax.formats.source import as_float32, refuse_dtype

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
_ADAPTER = "adapter_config.json"
_SHARD = re.compile(r"-\d+-of-\d+")
_ROWS_AT_ONCE = 1 << 24  # numbers of a tensor that are compared at a time
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


class WeightFiles:
    """The tensors in a folder's files, by name. One file is open at a time, so that its memory can be freed.

    If a single file and shards are both there, the single file is read, as in transformers.

    Args:
      folder: a folder of transformers.

    Attributes:
      names: every tensor and its file.

    Raises:
      FlanError: there are no weights, a file is damaged, or the files contradict their index.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file, self._open = None, None
        self.names: dict[str, str] = {}
        if (folder / _ADAPTER).is_file():
            raise FlanError(
                f"{folder} has an adapter ({_ADAPTER}), which transformers adds to the weights: merge it into the "
                "model and save that, or remove it."
            )
        if (folder / WEIGHTS).is_file():
            self._add(WEIGHTS)
        elif (folder / INDEX).is_file():
            self._read_index()
        else:
            raise FlanError(f"{folder} has no {WEIGHTS}: {_instead(folder)}.")

    def _read_index(self) -> None:
        path = self._folder / INDEX
        refuse_pointer(path)
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise FlanError(f"{path} cannot be read ({_reason(error)}); get it again.") from error
        told = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(told, dict) or not told or not all(isinstance(file, str) for file in told.values()):
            raise FlanError(f"{path} has no weight_map of tensors and their files: it is broken; get it again.")
        for file in sorted(set(told.values())):
            inside = PurePosixPath(file.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or ":" in file or not file.isprintable():
                raise FlanError(f"{path} names {file!r}, which is not in this folder: get the index again.")
            if not (self._folder / file).is_file():
                raise FlanError(f"{self._folder} lacks {file}, which {INDEX} names; get it again.")
            self._add(file)
        for name, file in told.items():
            if self.names.get(name) != file:
                raise FlanError(
                    f"{path} says that {name} is in {file}, which lacks it: the files are of several models."
                )

    def _add(self, file: str) -> None:
        for name in list(self._opened(file).keys()):
            if not name.isprintable():
                raise FlanError(f"{self._folder / file} names a tensor {name!r}; get it again.")
            if name in self.names:
                raise FlanError(
                    f"{self._folder}: {name} is in both {self.names[name]} and {file}; get the folder again."
                )
            self.names[name] = file

    def where(self, name: str) -> str:
        """Names a tensor and its file, for messages."""
        return f"{self._folder / self.names[name]}: {name}"

    def load(self, name: str) -> np.ndarray:
        """A tensor in float32.

        Raises:
          FlanError: it is damaged, or not finite.
        """
        return as_float32(self._read(name, ...), self.where(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in the file's header.

        Raises:
          FlanError: the tensor has a dtype that is not supported.
        """
        part = self._opened(self.names[name]).get_slice(name)
        dtype = part.get_dtype()
        refuse_dtype(_DTYPES.get(dtype, dtype), self.where(name))
        return tuple(part.get_shape())

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors hold the same numbers. Only some rows of both are in memory at a time."""
        shape = self.shape(name)
        if shape != self.shape(other):
            return False
        rows = max(1, _ROWS_AT_ONCE // max(1, int(np.prod(shape[1:]))))
        parts = (slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))
        return all(np.array_equal(self._read(name, part), self._read(other, part)) for part in parts)

    def _read(self, name: str, part: Any) -> np.ndarray:
        try:
            file = self._opened(self.names[name])
            return file.get_tensor(name) if part is ... else file.get_slice(name)[part]
        except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
            raise FlanError(f"{self.where(name)} cannot be read ({_reason(error)}); get the file again.") from error

    def _opened(self, file: str) -> Any:
        if self._open is None or file != self._file:
            path = self._folder / file
            refuse_pointer(path)
            try:
                # Not mapped, because mapped pages stay with the process until other programs need the memory.
                self._file, self._open = file, safetensors.safe_open(path, "np", backend="pread")
            except (safetensors.SafetensorError, OSError) as error:
                raise FlanError(f"{path} cannot be read ({_reason(error)}); get it again.") from error
        return self._open


def _instead(folder: Path) -> str:
    """What a folder without weights holds in their place, and what to do."""
    for name in (WEIGHTS, INDEX):  # in a copy of the hub's cache, files are links into another folder
        if (folder / name).is_symlink():
            return (
                f"{name} is a link to {(folder / name).readlink()}, which is not there; copy what it points to (cp -rL)"
            )
        if (folder / name).is_dir():
            return f"{name} is a folder; get the file of that name from where the model came"
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if shards := [name for name in others if _SHARD.search(name)]:
        return f"{shards[0]} needs its {INDEX}"
    if others:
        return f"{others[0]} has another name; rename it if it holds the whole model under transformers' names"
    return (
        "other files (pytorch_model.bin, ...) are not read; load it with transformers and save it with save_pretrained"
    )


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
