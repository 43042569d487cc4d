"""Errors that a user can cause and fix: one line with what is wrong, where, and what to do."""

from __future__ import annotations

import _thread
import contextlib
import difflib
import errno
import io
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flan_jax import output

_LONGEST_NAME = 100  # letters of an unknown name that a message shows
PREEMPTED = 75
STALLED = 70  # exit status of a run that its watchdog ended; EX_SOFTWARE of sysexits.h


class FlanError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and what to do."""


class NotFiniteError(FlanError):
    """A model gave NaN or infinity where a score or a next token was asked for.

    Attributes:
      number: the first prompt of the call with which it happened, from 0.
      found: the result of each prompt, None for those that are not finite; or None if the call stopped there.
    """

    def __init__(self, message: str, number: int, found: Sequence[Any] | None = None) -> None:
        super().__init__(message)
        self.number, self.found = number, found


class PromptError(FlanError):
    """A prompt that cannot be used, or a limit that makes no sense.

    Attributes:
      number: which prompt of the call it is, from 0.
      problem: what is wrong with it.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"prompt {number} {problem}")
        self.number, self.problem = number, problem


class StorageError(Exception):
    """Object storage cannot be reached, or refuses the request. The message is one line.

    It is not a FlanError. Code that goes on without a missing or broken file catches FlanError. It must not go on here,
    because nobody knows whether the file is there.
    """


def near_names(name: str, known: Iterable[str]) -> str:
    """Advice for a name that does not exist: the names that are like it, or else all names that exist.

    Example:
      >>> near_names("rtee", ["rte", "sst2"])
      "did you mean 'rte'?"
      >>> near_names("x", ["rte", "sst2"])
      'there are: rte, sst2.'
    """
    known = sorted(known)
    lowered: dict[str, list[str]] = {}
    for one in known:
        lowered.setdefault(one.lower(), []).append(one)
    asked = str(name)[:_LONGEST_NAME].lower()
    near = lowered.get(asked) or difflib.get_close_matches(str(name)[:_LONGEST_NAME], known, n=3, cutoff=0.5)
    if not near:  # compare again without upper and lower case
        near = [one for low in difflib.get_close_matches(asked, lowered, n=3, cutoff=0.5) for one in lowered[low]][:3]
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    if len(known) <= 20:
        return "there are: " + ", ".join(known) + "."
    return f"there are {len(known)}, for example " + ", ".join(known[:5]) + "."


def unknown_name(what: str, name: str, known: Iterable[str], hint: str = "") -> FlanError:
    """A FlanError for a name that does not exist, with the names that are like it.

    Args:
      what: what kind of name it is, for example "dataset".
      name: the unknown name.
      known: the names that exist.
      hint: further advice, appended to the message.

    Example:
      >>> str(unknown_name("style", "gtp3", ["gpt3", "no_template"]))
      "unknown style 'gtp3': did you mean 'gpt3'?"
    """
    shown = repr(name if len(str(name)) <= _LONGEST_NAME else f"{str(name)[:_LONGEST_NAME]}...")
    return FlanError(" ".join(part for part in (f"unknown {what} {shown}: {near_names(name, known)}", hint) if part))


# ----------------------------------------------------------------------------------- errors of the operating system

_ROOM = "make room or choose another place, then run the same command again"
_RIGHTS = "choose a place that you may write to, or change its permissions"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "the system limits the size of a file (ulimit -f): raise it, then run the same command again",
    errno.EACCES: _RIGHTS,
    errno.EPERM: "choose a place where you may write, remove and rename files, or change its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EISDIR: "give the path of a file",
    errno.EEXIST: "something else is there: choose another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ELOOP: "its links point at each other: choose another path",
    errno.EMFILE: "the system limits open files (ulimit -n): raise it, then run the same command again",
    errno.ENOTEMPTY: "another process writes there: end it, or choose another place",
    errno.EIO: "the disk or the network behind it failed: check it, then run the same command again",
    errno.ESTALE: "the network disk is gone: mount it again, then run the same command again",
    errno.ETXTBSY: "another process holds it: end it, or choose another path",
    errno.ENXIO: "check the path",
    errno.ENODEV: "check the path",
    errno.EINVAL: "choose another path",
}
# Libraries put the number into texts of their own. None of these words is in arithmetic or out-of-memory errors.
_NUMBER = re.compile(r"(?:[Oo][Ss] error|\[Errno|\bcode:)\s*(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WORDS = {os.strerror(number).lower(): number for number in _REMEDIES if number not in (errno.EINVAL, errno.ENOENT)}


def system_error_number(error: BaseException) -> int | None:
    """The operating system's error number behind an exception, or None if no file operation failed.

    It is taken from an OSError, from the cause of an exception, or from its text. TensorStore, TensorFlow, safetensors
    and tokenizers only put the number into their text.
    """
    if (number := _own_number(error)) is not None:
        return number
    if error.__cause__ is not None:
        return system_error_number(error.__cause__)
    # The exception that was being handled may have nothing to do with it, unless the disk was full or read-only.
    number = _own_number(error.__context__) if error.__context__ is not None else None
    return number if number in _FULL else None


def _own_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return error.errno
    text = str(error)
    if (found := _NUMBER.search(text)) and int(found[1]) in _REMEDIES:
        return int(found[1])
    lowered = text.lower()
    if number := next((number for words, number in _WORDS.items() if words in lowered), None):
        return number
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", text):
        return errno.ENOSPC  # numpy's tofile gives no error number
    return None


def cannot(doing: str, path: object, error: BaseException) -> FlanError:
    """A FlanError for a file or folder that could not be read or written.

    Args:
      doing: what failed, for example "write".
      path: the file or folder.
      error: the exception; `system_error_number` explains how its reason is found.
    """
    number = system_error_number(error)
    if number is None:
        if "://" in str(path) and (said := _said_by_storage(str(error).replace(str(path), ""))) is not None:
            return FlanError(f"cannot {doing} {_shown(path)}: {said}.")
        first = str(error).strip().partition("\n")[0][:160].rstrip(".") or type(error).__name__
        return FlanError(f"cannot {doing} {_shown(path)} ({first}).")
    reason = os.strerror(number)
    if number in (errno.EEXIST, errno.ENOTDIR) and isinstance(path, str | os.PathLike):
        above = [part for part in (Path(path), *Path(path).parents) if os.path.lexists(part) and not part.is_dir()]
        if above:
            return FlanError(f"cannot {doing} {_shown(path)}: {_shown(above[-1])} is no folder; choose another path.")
    return FlanError(f"cannot {doing} {_shown(path)}: {reason[0].lower()}{reason[1:]}; {_REMEDIES[number]}.")


# ------------------------------------------------------------------------------------------ errors of object storage

_CLIENTS = ("gcsfs", "google", "aiohttp", "botocore", "s3fs", "azure", "adlfs", "fsspec", "requests", "paramiko")
_BACKENDS = "jax._src.xla_bridge"  # JAX's module that starts devices
# A pattern of the exception's type or text, and what it means.
_STORAGE = (
    (
        r"anonymous caller|credential|unauthenticated|\b401\b|invalid_token|login required",
        "it takes none of the credentials here; for gs:// run gcloud auth application-default login, or set "
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    (
        r"forbidden|access ?denied|permission|not authorized|\b403\b",
        "permission is denied; let this account read, write and remove in the bucket (for gs:// Storage Object Admin)",
    ),
    (
        r"connect|timeout|timed out|resolve|unreachable|name or service|proxy|disconnected|ssl",
        "the storage cannot be reached; check the network, then run the same command again",
    ),
    (r"nosuchbucket|bucket does not exist", "there is no such bucket; make it, or check its name"),
    (r"invalid bucket name", "no bucket can have that name; check it"),
    (
        r"\b(408|429|500|501|502|503|504)\b|overload|too many|slow ?down",
        "the storage is overloaded or failing; run the same command again later",
    ),
)


def storage_reason(error: BaseException) -> str:
    """Why a request to object storage failed and what to do: a phrase without a full stop."""
    if isinstance(error, ImportError):
        return f"{' '.join(str(error).split())[:160].rstrip('.')}; install it, for gs:// by pip install 'flan-jax[gcs]'"
    text = " ".join(f"{type(error).__name__} {error}".split())
    if (said := _said_by_storage(text)) is not None:
        return said
    if (number := system_error_number(error)) is not None:
        return f"{os.strerror(number).lower()}; {_REMEDIES[number]}"
    return f"the storage says: {text[:200].rstrip('.')}"


def _said_by_storage(text: str) -> str | None:
    return next((reason for words, reason in _STORAGE if re.search(words, text, re.IGNORECASE)), None)


def _shown(path: object) -> str:
    text = str(path)
    shown = text if text and text.isprintable() else repr(text)
    return shown if len(shown) <= 200 else f"{shown[:100]}...{shown[-60:]}"


@contextlib.contextmanager
def one_line_errors(only_shows: bool = False) -> Iterator[None]:
    """Prints errors that a user can fix as one line on standard error, and ends the program. For the binaries.

    Exit status: 2 for a FlanError, or a file or folder that cannot be read or written; 130 if the user interrupted the
    program.

    Args:
      only_shows: whether the output is all that the program makes. It then ends, with status 141, when the reader of
        the output has closed it, as `head` does. Any other program goes on with its work.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the start, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the program
    for stream in (sys.stdout, sys.stderr):  # what another encoding than UTF-8 has no sign for ends no command
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    for name in ("stderr",) if only_shows else ("stdout", "stderr"):
        output.outlast(name)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _not_swallowed
    try:
        yield
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()  # at its own exit, Python would print several lines if this failed
    except (FlanError, StorageError) as error:
        # gin appends a line about the call to each exception that passes through it.
        _end(str(error).strip().partition("\n")[0], 2)
    except OSError as error:
        if only_shows and isinstance(error, BrokenPipeError):
            _end("", 141)
        path = error.filename2 or error.filename or _path_in(str(error))
        where = "the output, or a file that the system does not name" if path is None else path
        _end(str(cannot("read or write", where, error)), 2)
    except Exception as error:
        if _raised_in(error) == _BACKENDS:
            wanted = os.environ.get("JAX_PLATFORMS", "")
            reason = str(error).strip().partition("\n")[0][:300] or "it is not installed"
            _end(
                f"JAX cannot start {f'JAX_PLATFORMS={wanted}' if wanted else 'its devices'} ({reason}): install what "
                "drives them, as pip install -e '.[cuda]' does for NVIDIA's GPUs, or set JAX_PLATFORMS=cpu.",
                2,
            )
        if type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        _end(f"cannot read or write object storage: {storage_reason(error)}.", 2)
    except KeyboardInterrupt:
        _end("stopped before it was done; the same command goes on where that is possible.", 130)


def _not_swallowed(lost: sys.UnraisableHookArgs) -> None:
    """Sends Ctrl-C again where Python drops it: in a call by the garbage collector, JAX's among them, or `__del__`."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        again = threading.Timer(0.02, _thread.interrupt_main)  # not within this call, where it would be dropped too
        again.daemon = True
        again.start()
        return
    sys.__unraisablehook__(lost)


def _path_in(text: str) -> str | None:
    """The path that the text of an OSError ends with: one that went through gin has it there alone."""
    found = re.match(r"\[Errno \d+\] [^:]*: (['\"])(?P<path>.+)\1$", text.partition("\n")[0])
    return found["path"] if found else None


def _raised_in(error: BaseException) -> str:
    """The name of the module that raised the exception; empty if that is unknown."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def _end(line: str, status: int) -> None:
    if line:
        print(f"flan_jax: {line}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # Python flushes again at exit: send that to nowhere
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
