"""A user's own modules that add datasets to the catalog: `--tasks=MODULE`, or the macro TASKS.

A module is named as Python imports it (`my_tasks`, `lab.tasks`) or by its file (`tasks/mine.py`). It has DATASETS, a
sequence of `catalog.Dataset`. Its samples are in a folder `samples` beside it, or in the folder SAMPLES. The names are
kept in an environment variable, so that every process that this one starts knows them too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from flan_jax.errors import FlanError

VARIABLE = "FLAN_JAX_TASKS"
_FILE = ".py"


def use(names: str | Sequence[str]) -> tuple[str, ...]:
    """Adds the datasets of modules to the catalog, in this process and in those that it starts.

    Args:
      names: names or files, as a sequence or separated by commas.

    Returns:
      All modules in use, as the environment names them: files by their full path.

    Raises:
      FlanError: a module does not exist or cannot be imported.
    """
    given = names.split(",") if isinstance(names, str) else names
    found = [str(Path(name).resolve()) if name.endswith(_FILE) else name for name in (n.strip() for n in given) if name]
    for name in found:
        _imported(name)
    every = tuple(dict.fromkeys([*filter(None, named().split(",")), *found]))
    os.environ[VARIABLE] = ",".join(every)
    return every


def leave(names: Sequence[str]) -> None:
    """Removes the datasets of modules from the catalog.

    Args:
      names: the modules, as `use` returned them.
    """
    left = [name for name in named().split(",") if name and name not in names]
    if left or VARIABLE in os.environ:
        os.environ[VARIABLE] = ",".join(left)


def named() -> str:
    """The modules in use, separated by commas; empty by default."""
    return os.environ.get(VARIABLE, "")


def modules(names: str) -> tuple[ModuleType, ...]:
    """Imports the modules that `named` lists.

    Raises:
      FlanError: a module does not exist or cannot be imported.
    """
    return tuple(_imported(name) for name in filter(None, names.split(",")))


@functools.cache
def _imported(name: str) -> ModuleType:
    try:
        if not name.endswith(_FILE):
            return importlib.import_module(name)
        if not Path(name).is_file():
            raise FlanError(f"tasks {name}: there is no such file.")
        spec = importlib.util.spec_from_file_location(f"own_tasks_{Path(name).stem}", name)
        assert spec is not None and spec.loader is not None  # since the file's name ends in .py
        beside = str(Path(name).parent)
        if beside not in sys.path:  # last, so that a file beside it never replaces an installed module
            sys.path.append(beside)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    except FlanError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise FlanError(
                f"tasks {name}: there is no such module; start in the folder that it lies in, or give its file, as "
                f"{name.replace('.', '/')}{_FILE}."
            ) from error
        raise FlanError(f"tasks {name}: it needs a module {error.name!r}, which is not installed.") from error
    except Exception as error:  # a user's file can raise anything
        said = " ".join(str(error).split()) or "no reason"
        raise FlanError(f"tasks {name}: importing it fails ({type(error).__name__}: {said[:200]}).") from error


def samples_of(module: ModuleType) -> Path:
    """The folder of a module's samples."""
    return Path(getattr(module, "SAMPLES", None) or Path(module.__file__ or "").parent / "samples")
