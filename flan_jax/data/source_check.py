"""The state of every source, found without downloading a dataset: ready, downloadable, manual, or dead."""

from __future__ import annotations

import dataclasses
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from flan_jax import catalog
from flan_jax.data import network, sources
from flan_jax.files import AnyPath

READY, DOWNLOADABLE, UNCHECKED, MANUAL, DEAD = "ready", "downloadable", "downloadable, not checked", "manual", "dead"
_SECONDS = 10  # seconds that an address has to answer


@dataclasses.dataclass(frozen=True)
class SourceState:
    """The state of a dataset's source.

    Attributes:
      dataset: the dataset's name.
      source: TFDS name and version.
      state: "ready", "downloadable", "downloadable, not checked", "manual" or "dead".
      detail: sizes, the address that answered, what to do, or the reason.
      bad_rows: rows of local JSONL that cannot be used.
      notes: what else of local JSONL is not used.
    """

    dataset: str
    source: str
    state: str
    detail: str
    bad_rows: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_all(records: Sequence[catalog.Dataset], data: str | AnyPath) -> Iterator[SourceState]:
    """The state of each dataset's source; see `check`."""
    asked: dict[str, str] = {}

    def once(url: str) -> str:
        if url not in asked:
            asked[url] = answer(url)
        return asked[url]

    for record in records:
        yield check(record, data, once)


def check(record: catalog.Dataset, data: str | AnyPath, ask: Callable[[str], str]) -> SourceState:
    """The state of a dataset's source.

    Args:
      record: the dataset.
      data: "tfds", "samples" or a folder.
      ask: `answer`, or a stand-in.
    """

    def state(name: str, detail: str) -> SourceState:
        return SourceState(record.name, record.source, name, detail)

    if data != sources.TFDS:
        try:
            source = sources.open_source(record, data)
            found = state(READY, _sizes(source))
            return dataclasses.replace(found, bad_rows=tuple(map(str, source.bad_rows)), notes=source.notes)
        except sources.SourceError as error:
            return state(DEAD, f"{error.skipped.reason}; {error.skipped.remedy}")
    try:
        builder = sources.builder_of(record)
    except sources.SourceError as error:
        return state(DEAD, f"{error.skipped.reason}; {error.skipped.remedy}")
    if builder.is_prepared():
        return state(READY, _sizes(sources.open_source(record, data)))
    if record.manual:
        return state(MANUAL, record.manual)
    url = sources.address(builder)
    if url is None:
        return state(UNCHECKED, "its builder names no address before it runs")
    reply = ask(url)
    if not reply:
        return state(DOWNLOADABLE, f"{url} answers")
    if reply == NO_NETWORK:
        return state(UNCHECKED, f"no network to reach {url}")
    return state(DEAD, f"{url}: {reply}; import your own copy with --data=FOLDER")


def _sizes(source: sources.OpenSource) -> str:
    return ", ".join(f"{split.size:,} {name}" for name, split in source.splits.items())


NO_NETWORK = "no network"


def answer(url: str) -> str:
    """Sends a HEAD request to an address.

    Returns:
      "" if it answers, NO_NETWORK if there is no network, otherwise what is wrong.
    """
    if not network.is_reachable(url):
        return NO_NETWORK
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "flan-jax"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        # Some servers refuse HEAD. It is enough that they are there.
        return "" if error.code in (403, 405, 501) else f"answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException):
        return NO_NETWORK


def table(states: Sequence[SourceState]) -> Table:
    """A table with one line for each dataset."""
    found = Table(box=None, header_style="bold")
    for head in ("dataset", "source", "state", "detail"):
        found.add_column(head, overflow="fold")
    colors = {READY: "green", DOWNLOADABLE: "cyan", UNCHECKED: "cyan", MANUAL: "yellow", DEAD: "red"}
    for s in states:
        found.add_row(Text(s.dataset), Text(s.source), Text(s.state, style=colors[s.state]), Text(s.detail))
    return found
