"""Standard output and error whose reader may go: `head`, a pager that is closed, a terminal that hangs up."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

_GONE = "flan_jax: the reader of the output is gone; the work goes on, and its further output is lost.\n"


class _Outlasting(io.FileIO):
    """A file descriptor to which writing does not fail for want of a reader: what follows goes nowhere."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._lost = {errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET}
        if self.isatty():  # one that has hung up; of a file, the same number is a broken disk
            self._lost |= {errno.EIO, errno.ENXIO}

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Writes as a file does, and takes all that nobody reads."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._lost:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # also for native code, and for the programs that this one starts
        os.close(nowhere)
        if self.fileno() == 1:
            with contextlib.suppress(OSError):
                os.write(2, _GONE.encode())
        return memoryview(data).nbytes


def width(usual: int) -> int | None:
    """How wide tables are: None, for as wide as the terminal, or as COLUMNS says; `usual` where there is neither."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else usual


def outlast(name: str) -> None:
    """From now on no lack of a reader ends the program. Standard error says so once, when that of the output is gone.

    What is no pipe, file or terminal of the system's, as in a notebook, stays as it is.

    Args:
      name: the stream in `sys`, "stdout" or "stderr".
    """
    stream = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper):
        return
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO or raw.fileno() != {"stdout": 1, "stderr": 2}[name]:
        return
    with contextlib.suppress(OSError):
        stream.flush()
    lasting: Any = _Outlasting(raw.fileno())
    lasting.name = stream.name
    lasting.before = stream  # which would close the descriptor at its end, if it had opened it
    under = lasting if raw is stream.buffer else io.BufferedWriter(lasting)  # without a buffer under `python -u`
    made = io.TextIOWrapper(under, stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through)
    setattr(sys, name, made)
