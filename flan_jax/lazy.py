"""Imports modules only when they are first used, in one thread.

`etils.epy` replaces Python's import while such a block runs, in all threads. Another thread that imports something at
that moment (one that draws a progress bar, for example) would get lazy modules too, or an error. So we let the
replacement act in the thread of the block alone.
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
    """A block whose imports are delayed until first use. Other threads import as usual."""
    with _of_this_thread(epy.lazy_imports()):
        yield


@contextlib.contextmanager
def lazy_api_imports(names: dict[str, Any]) -> Iterator[None]:
    """A block of `from ... import ...` in a package's __init__, delayed until first use. Other threads import as usual.

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
