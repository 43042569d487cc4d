"""Hides messages of TensorFlow, libtpu and Python loggers that mean nothing to the user, and shows the others.

TensorFlow writes "Could not find cuda drivers" and the like straight to standard error while it is imported, before its
own TF_CPP_MIN_LOG_LEVEL has an effect. So that variable decides here too: with 0, everything is shown.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.abc
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_QUIET = "3"  # 2 would not do: TensorFlow calls the lack of a GPU an error. Real failures raise an exception
_NO_TPU = {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost"}
# Information and warnings in both of its formats; and errors about its own build, not about the machine or the user.
_NOTHING_WRONG = re.compile(
    rb"WARNING: All log messages before absl::|[IW]\d{4} |\d{4}-\d\d-\d\d [\d:.]+: [IW] |"
    rb".* Unable to register cu\w+ factory|To enable the following instructions"
)


def quiet_tensorflow() -> None:
    """Keeps the import of TensorFlow quiet, whoever imports it first. `import flan_jax` calls this."""
    if os.environ.setdefault(_LEVEL, _QUIET) != "0" and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _TensorFlowFinder())


def has_tpu() -> bool:
    """Whether this machine has a TPU that libtpu could use."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def quiet_tpu() -> None:
    """Keeps libtpu quiet on a machine without a TPU, where JAX tries it and goes on without.

    `import flan_jax` calls this. If JAX_PLATFORMS names the platforms, JAX does not try it.
    """
    if not os.environ.get("JAX_PLATFORMS"):
        describe_tpu()


def describe_tpu() -> None:
    """Tells libtpu which kind of TPU it has and on which hosts, on a machine without one. Otherwise it complains."""
    if os.environ.get(_LEVEL) != "0" and not has_tpu():
        for name, value in _NO_TPU.items():
            os.environ.setdefault(name, value)


def quiet_loggers() -> None:
    """Hides warnings of Python loggers that no user can act on.

    Only the binaries call it, since it affects the whole process.
    """
    if os.environ.get(_LEVEL) != "0":
        for library in ("absl", "tensorflow"):
            logging.getLogger(library).setLevel(logging.ERROR)


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow through the other finders, once, and runs its import with filtered standard error."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run: Any = spec.loader.exec_module

            def run_filtered(module: ModuleType) -> None:
                level = logging.getLogger(name).level
                with _filtered_stderr():
                    run(module)
                if level:  # what was asked for before; in a notebook TensorFlow sets another
                    module.get_logger().setLevel(level)

            spec.loader.exec_module = run_filtered  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Holds back standard error, also what C++ writes. Afterwards shows all lines that are not known to be harmless.

    If the import fails, everything is shown.
    """
    try:
        sys.stderr.flush()
        true_stderr = os.dup(2)
    except (AttributeError, OSError, ValueError):  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        failed = True
        try:
            os.dup2(held.fileno(), 2)
            yield
            failed = False
        finally:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.flush()
            os.dup2(true_stderr, 2)
            held.seek(0)
            shown = [line for line in held if failed or not _NOTHING_WRONG.match(line)]
            with contextlib.suppress(OSError):
                os.write(true_stderr, b"".join(shown))
            os.close(true_stderr)
