"""A GGUF model's metadata and tensors, from one file or from the parts of a split one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from flan_jax.errors import FlanError
from flan_jax.formats.downloads import refuse_pointer
from flan_jax.formats.source import as_float32

_PART = re.compile(r"(?P<model>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


class Contents(NamedTuple):
    """The content of one or several files.

    Attributes:
      fields: the metadata.
      tensors: the tensors by name, as they are stored.
      path: the file, or the first part.
    """

    fields: dict[str, Any]
    tensors: dict[str, gguf.ReaderTensor]
    path: Path

    def load(self, name: str) -> np.ndarray:
        """A tensor, dequantized to float32.

        Raises:
          FlanError: it is missing, damaged, or of a kind that is not supported.
        """
        if name not in self.tensors:
            raise FlanError(f"{self.path} lacks the tensor {name}; download it again.")
        tensor = self.tensors[name]
        where = f"{self.path}: {name}"
        try:
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            kind = getattr(tensor.tensor_type, "name", tensor.tensor_type)
            raise FlanError(
                f"{where} is stored as {kind}, which cannot be dequantized here; get another one."
            ) from error
        return as_float32(array, where)


def read(path: Path) -> Contents:
    """Opens a file, and its other parts if it was split.

    Raises:
      FlanError: a file is missing or broken, or the parts belong to different models.
    """
    reader = _reader(path)
    count = _number(reader, _COUNT, 1)
    if count <= 1:
        return Contents(_fields(reader), {tensor.name: tensor for tensor in reader.tensors}, path)
    named = _PART.fullmatch(path.name)
    if named is None or int(named["count"]) != count:
        number = _number(reader, _NUMBER, 0) + 1
        raise FlanError(
            f"{path} is part {number} of {count}, which its name has to say: call it "
            f"NAME-{number:05}-of-{count:05}.gguf, and the others alike."
        )
    parts = [path.with_name(f"{named['model']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    for part in parts:
        if not part.is_file():
            raise FlanError(f"{part} is missing: {path.name} is one of {count} parts, and all are needed.")
    tensors: dict[str, gguf.ReaderTensor] = {}
    fields: dict[str, Any] = {}
    totals = set()
    for number, part in enumerate(parts):
        reader = _reader(part)
        found = _number(reader, _NUMBER, 0), _number(reader, _COUNT, 1)
        if found != (number, count):
            raise FlanError(f"{part} is part {found[0] + 1} of {found[1]} by its content: the parts are mixed up.")
        totals.add(_number(reader, _TENSORS, -1))
        of_part = _fields(reader)
        fields = of_part if number == 0 else fields
        if (kind := of_part.get("general.architecture", fields.get("general.architecture"))) != fields.get(
            "general.architecture"
        ):
            raise FlanError(f"{part} is of architecture {kind!r}, unlike the first part: the parts are mixed up.")
        for tensor in reader.tensors:
            if tensor.name in tensors:
                raise FlanError(f"{part} holds {tensor.name}, as another part does: the parts are mixed up.")
            tensors[tensor.name] = tensor
    if totals != {len(tensors)}:
        raise FlanError(
            f"{parts[0]} and its other parts hold {len(tensors)} tensors, and by their fields {_TENSORS} it should be "
            f"{' or '.join(map(str, sorted(totals)))}: the parts are mixed up; get all of them again."
        )
    return Contents(fields, tensors, parts[0])


def _reader(path: Path) -> gguf.GGUFReader:
    refuse_pointer(path)
    try:
        reader = gguf.GGUFReader(str(path))
        if odd := [name for name in (*reader.fields, *(t.name for t in reader.tensors)) if not name.isprintable()]:
            raise ValueError(f"it has the name {odd[0]!r}")
        return reader
    except (OSError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise FlanError(f"{path} cannot be read as GGUF ({reason}); download it again.") from error


def _fields(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def _number(reader: gguf.GGUFReader, name: str, default: int) -> int:
    field = reader.get_field(name)
    return default if field is None else int(field.contents())


class Fields(dict):
    """Metadata. A missing field, or one of the wrong kind, is an error of the file in one line.

    Args:
      path: the file, for messages.
      fields: the metadata.
    """

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.path = path
        self._asked: set[str] = set()

    def __missing__(self, name: str) -> Any:
        raise FlanError(f"{self.path} lacks the field {name}; download it again.")

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number above zero. A list of equal numbers, one for each layer, counts as one number."""
        value = self._value(name, default)
        if isinstance(value, list) and value and all(one == value[0] for one in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise FlanError(f"{self.path}: {name} is {str(value)[:60]}; one whole number above zero can be converted.")
        return int(value)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above zero, rounded to the file's float32."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise FlanError(f"{self.path}: {name} is {str(value)[:60]}; it has to be a number above zero.")
        return float(np.float32(value))

    def text(self, name: str, default: str) -> str:
        """A field that is text."""
        return str(self._value(name, default))

    def finish(self, prefix: str, no_part: frozenset[str]) -> None:
        """Refuses the fields of an architecture that were never read.

        Args:
          prefix: the start of their names.
          no_part: the rest of the names of fields without any effect.

        Raises:
          FlanError: there is such a field; it may change the computation.
        """
        for name in sorted(set(self) - self._asked):
            if name.startswith(prefix) and name.removeprefix(prefix) not in no_part and self[name]:
                raise FlanError(
                    f"{self.path}: the field {name} ({str(self[name])[:60]}) is unknown here and may change the "
                    "computation; this variant cannot be converted."
                )

    def _value(self, name: str, default: Any) -> Any:
        self._asked.add(name)
        return self[name] if default is None else self.get(name, default)
