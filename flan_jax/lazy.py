"""Modules that are imported when something of them is first used, in one thread.

`etils.epy` puts its own import in place of Python's, for all threads, while such a block is read. Another thread that
imports at that moment, as one that draws a progress bar does, would get lazy modules too, or an error.
"""

from __future__ import annotations

import builtins
import contextlib
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from etils import epy

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def lazy_imports() -> Iterator[None]:
    """A block whose imports wait, those of this thread alone."""
    with _of_this_thread(epy.lazy_imports()):
        yield


@contextlib.contextmanager
def lazy_api_imports(names: dict[str, Any]) -> Iterator[None]:
    """A block of `from ... import ...` in a package's __init__, whose imports wait, those of this thread alone.

    Args:
      names: the package's globals().
    """
    with _of_this_thread(epy.lazy_api_imports(names)):
        yield


@contextlib.contextmanager
def _of_this_thread(block: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    with _ONE_AT_A_TIME:
        usual = builtins.__import__
        with block:
            waiting, own = builtins.__import__, threading.get_ident()

            def imported(*arguments: Any, **named: Any) -> ModuleType:
                return (waiting if threading.get_ident() == own else usual)(*arguments, **named)

            builtins.__import__ = imported
            yield
