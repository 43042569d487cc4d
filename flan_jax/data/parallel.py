"""Prepares many datasets, in this process or in several. A source that fails is skipped, with the reason."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import tensorflow as tf

from flan_jax import catalog
from flan_jax.data import preparation, sources, vocabularies
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import AnyPath
from flan_jax.quiet import quiet_loggers
from flan_jax.styles import TextStyle


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of preparing a dataset.

    Attributes:
      dataset: its name.
      figures: figures for the summary; None if it was skipped.
      skipped: the reason and the remedy; None if it was prepared.
      bad_rows: rows that were left out, with reasons: all for local JSONL, the first ones for TFDS.
      notes: what else is not used.
    """

    dataset: str
    figures: dict[str, Any] | None = None
    skipped: sources.Skipped | None = None
    bad_rows: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def outcome(source: sources.OpenSource, figures: dict[str, Any]) -> Outcome:
    """The outcome of a dataset that was prepared: its figures, and every row or record that was left out."""
    named = figures.pop("named")
    bad_rows = (*map(str, source.bad_rows), *named)
    more = figures["unusable"] - len(named)
    notes = (*source.notes, f"{more:,} more records of {figures['dataset']}") if more else source.notes
    return Outcome(figures["dataset"], figures, bad_rows=bad_rows, notes=notes)


def attempt(
    record: catalog.Dataset,
    data: str,
    tokenizer: vocabularies.Tokenizer | None,
    to: AnyPath,
    options: preparation.Options,
    overwrite: bool = False,
    styles: Mapping[str, Sequence[TextStyle]] | None = None,
) -> Outcome:
    """Opens and prepares a dataset. If its source fails, it is skipped with the reason."""
    own = (styles or {}).get(record.name, ())
    try:
        source = sources.open_source(record, data)
        figures = preparation.prepare_dataset(record, source, tokenizer, to, options, overwrite, own)
    except sources.SourceError as error:
        return Outcome(record.name, skipped=error.skipped)
    except tf.errors.OpError as error:
        reason = f"its records cannot be read ({type(error).__name__}: {error.message.splitlines()[0][:160]})"
        return Outcome(record.name, skipped=sources.Skipped(record.name, reason, "get its data again"))
    except (FlanError, StorageError, OSError, MemoryError):
        raise
    except Exception as error:  # only this dataset fails; the others go on
        reason = f"it cannot be prepared ({sources.first_line(error)})"
        return Outcome(record.name, skipped=sources.Skipped(record.name, reason, "look at its data, or leave it out"))
    return outcome(source, figures)


def attempt_all(
    chosen: Sequence[catalog.Dataset],
    data: str,
    tokenizer: vocabularies.Tokenizer | None,
    to: AnyPath,
    options: preparation.Options,
    overwrite: bool = False,
    workers: int = 1,
    styles: Mapping[str, Sequence[TextStyle]] | None = None,
) -> Iterator[Outcome]:
    """Prepares datasets in this process or in several, and yields each outcome when it is there.

    Styles are given by dataset; a dataset without an entry has the style of the options.

    Raises:
      FlanError: a worker died. Finished datasets stay.
    """
    if workers == 1:
        for record in chosen:
            yield attempt(record, data, tokenizer, to, options, overwrite, styles)
        return
    with environment(threads_of_a_worker(workers)):
        work = (data, tokenizer, to, options, overwrite, styles)
        pool = futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, work)
        try:
            for done in futures.as_completed([pool.submit(_attempt_in_worker, d.name) for d in chosen]):
                yield done.result()
        except futures.process.BrokenProcessPool as error:
            raise FlanError(
                f"a worker that was preparing for {to} died, out of memory or killed; run the same command again, "
                "with fewer --workers: what is finished is kept."
            ) from error
        finally:
            for process in multiprocessing.active_children():  # of an interrupted run
                process.terminate()
            pool.shutdown(cancel_futures=True)


def threads_of_a_worker(workers: int) -> dict[str, str]:
    """Environment variables that limit the threads of all workers to one for each core."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "RAYON_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """A block with environment variables that new processes inherit.

    Variables that the user has set are not changed.
    """
    added = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


_work: tuple[Any, ...] = ()  # a worker's arguments of `attempt`, without the dataset


def _start_worker(*work: Any) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    quiet_loggers()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """Ends a worker whose parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _attempt_in_worker(name: str) -> Outcome:
    return attempt(catalog.dataset(name), *_work)
