"""Asks for every web address that the project names, and says which do not answer.

python benchmarks/links.py
python benchmarks/links.py docs README.md --retries=5 --timeout=60

It reads pages, notebooks, docstrings and messages. A broken address is one line: the address, what is wrong, and the
files that have it. An address that has moved for good is a line too, with the new one. Exit status: 0 where all answer,
1 where one does not, 2 for bad input. It needs the web, so no test runs it on the real addresses.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import __version__, options
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.json_lines import to_json
from flan_jax.values import Number
from flan_jax.wording import counted

ROOT = Path(__file__).resolve().parents[1]
READ = ("README.md", "AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "llms.txt", "docs", "notebooks")
READ += ("flan_jax", "tasks", "launch", "gin", "benchmarks", "setup.py", "pyproject.toml")
_TEXT = {".md", ".py", ".ipynb", ".gin", ".txt", ".toml", ".cff", ".html", ".sh"}
# What looks like an address and is none, by its beginning.
NO_ADDRESSES = {
    "http://www.w3.org/2000/svg": "the name of a language",
    "https://git-lfs": "how a file begins",
}
_ADDRESS = re.compile(r"https?://[^\s<>\"'`\\)\]}{]+")
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_FOR_GOOD = {301, 308}
_ASKED_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class Answer:
    """What asking for an address gave.

    Attributes:
      wrong: why it is broken; empty where it is not.
      moved: where it is now, if it has moved for good.
    """

    wrong: str = ""
    moved: str = ""


def addresses(text: str) -> list[str]:
    """The web addresses of a text, in order.

    A pattern with a gap, as `https://<host>/`, is none. What ends a sentence is not part of an address.
    """
    found = []
    for match in _ADDRESS.finditer(text):
        address = match[0].rstrip(".,;:!?*")
        filled = text[match.end() : match.end() + 1] not in ("<", "{") and "://." not in address
        if filled and not address.startswith(tuple(NO_ADDRESSES)):
            found.append(address)
    return found


def files(paths: Iterable[str | Path]) -> list[Path]:
    """The files with text among files and folders.

    Raises:
      FlanError: there is no such file or folder.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FlanError(f"no file or folder {path}: name files and folders that have addresses.")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [one for one in inside if one.suffix in _TEXT and one.is_file()]
    return found


def named(paths: Iterable[str | Path]) -> dict[str, list[Path]]:
    """The files that have each address."""
    found: dict[str, list[Path]] = {}
    for path in files(paths):
        for address in dict.fromkeys(addresses(path.read_text(encoding="utf-8"))):
            found.setdefault(address, []).append(path)
    return found


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes along, and keeps where the first one led, if it is for good."""

    def __init__(self, asked: str) -> None:
        self.asked, self.moved = asked, ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """See urllib."""
        if code in _FOR_GOOD and req.full_url == self.asked:
            self.moved = newurl
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def ask(address: str, *, retries: int = 3, wait: float = 2.0, timeout: float = 30.0) -> Answer:
    """Asks for an address, more than once where the server may only be busy.

    Args:
      address: to ask for.
      retries: further tries after the first.
      wait: seconds before the first of them, twice as many before the next, and so on.
      timeout: seconds that an answer may take.
    """
    redirects = _Redirects(address)
    opener = urllib.request.build_opener(redirects)
    request = urllib.request.Request(address, headers={"User-Agent": f"flan-jax-links/{__version__}"})
    wrong = ""
    for number in range(retries + 1):
        if number:
            time.sleep(wait * 2 ** (number - 1))
        try:
            with opener.open(request, timeout=timeout):
                return Answer(moved=redirects.moved)
        except urllib.error.HTTPError as error:
            wrong = f"{error.code} {error.reason}"
            if error.code not in _TRY_AGAIN:
                break
        except urllib.error.URLError as error:
            wrong = str(error.reason)
        except (OSError, ValueError, http.client.HTTPException) as error:
            wrong = str(error) or type(error).__name__
    return Answer(" ".join(wrong.split()))


def checked(found: Mapping[str, Sequence[Path]], retries: int, wait: float, timeout: float) -> dict[str, Answer]:
    """The answers of all addresses, by address; a few are asked for at a time."""
    with concurrent.futures.ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        asked = {a: pool.submit(ask, a, retries=retries, wait=wait, timeout=timeout) for a in found}
        return {address: future.result() for address, future in asked.items()}


def _place(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, asks, and prints what is broken or has moved."""
    parser = options.Parser(prog="python benchmarks/links.py", description=__doc__, formatter_class=options.AsWritten)
    parser.add_argument("paths", nargs="*", help="files and folders; by default those of the project")
    parser.add_argument("--retries", type=options.count_or_none, default=3, help="further tries of a busy server")
    parser.add_argument(
        "--wait", type=options.of(Number(least=0)), default=2.0, help="seconds before the first of them"
    )
    parser.add_argument("--timeout", type=options.of(Number(0)), default=30.0, help="seconds for an answer")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        found = named(arguments.paths or [ROOT / name for name in READ])
        answers = checked(found, arguments.retries, arguments.wait, arguments.timeout)
        for address, answer in answers.items():
            where = ", ".join(map(_place, found[address]))
            if answer.wrong:
                print(f"{address}: {answer.wrong} ({where})")
            elif answer.moved:
                print(f"{address}: moved to {answer.moved} ({where})")
        broken = [address for address, answer in answers.items() if answer.wrong]
        print(f"{counted(len(answers), 'links')}, {len(broken)} broken")
        if arguments.json:
            print(to_json({address: dataclasses.asdict(answer) for address, answer in answers.items()}))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
