"""Links: those within the project lead somewhere; those to the web are well formed, known, and spelled in one way."""

import http.server
import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import ClassVar

import markdown_it
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import links  # noqa: E402 - it lies beside the other programs of developers

PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "llms.txt", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "notebooks").glob("*.ipynb"))
# Who is linked to. Another one is a line here, after a look at whether it will be there in some years.
HOSTS = {
    "arxiv.org",
    "cs.rochester.edu",
    "github.com",
    "openreview.net",
    "semver.org",
    "summari.es",
}


def _markdown(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    return "\n\n".join(cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")


def _tokens(page):
    """All tokens of a page, those within lines too."""
    for token in markdown_it.MarkdownIt().enable("table").parse(_markdown(page)):
        yield token
        yield from token.children or ()


def _targets(page):
    """Where the links and pictures of a page lead, in whatever way they are written."""
    for token in _tokens(page):
        if token.type in ("html_block", "html_inline"):
            yield from re.findall(r"""(?:href|src|srcset)=["']([^"']+)""", token.content)
        elif target := token.attrGet("href") or token.attrGet("src"):
            yield urllib.parse.unquote(target)


def _anchors(page):
    """Of the headings, as GitHub and the site make them; the second of a name ends in -1."""
    seen, found = {}, set()
    before = None
    for token in _tokens(page):
        if before == "heading_open" and token.type == "inline":
            name = re.sub(r"[^\w\- ]", "", "".join(c.content for c in token.children).lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if name in seen else name)
            seen[name] = seen.get(name, 0) + 1
        before = token.type
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in _targets(page):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists() and path.is_relative_to(ROOT), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(path), f"{page.name} links to {target}, which has no such heading"


def test_pages_named_elsewhere_exist():
    """Comments of gin files, messages and docstrings name pages: `docs/mixtures.md`."""
    for path in links.files(ROOT / name for name in links.READ):
        for name in re.findall(r"(?<![\w/.])docs/[\w/]+\.(?:md|py|css)\b", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"


def _one_way(address):
    """An address without what can be spelled in two ways."""
    parts = urllib.parse.urlsplit(address)
    path = re.sub(r"\.git$", "", parts.path.rstrip("/"))
    if parts.netloc.endswith("arxiv.org"):
        path = re.sub(r"^/(abs|pdf|html)/(\d+\.\d+)(v\d+)?(\.pdf)?$", r"/abs/\2", path)
    return parts.netloc.lower().removeprefix("www."), path, parts.query, parts.fragment


def test_web_addresses_are_well_formed_known_and_spelled_in_one_way():
    found = links.named(ROOT / name for name in links.READ)
    assert len(found) >= 5  # so that the test would notice if none were read
    spelled = {}
    for address, where in found.items():
        parts = urllib.parse.urlsplit(address)
        assert parts.scheme == "https" and parts.hostname == parts.netloc, f"{where[0]}: {address}"
        assert parts.hostname in HOSTS, f"{where[0]}: {address}: a host that tests/test_links.py does not know"
        assert address.isascii() and parts.path != "/" and "//" not in parts.path, f"{where[0]}: {address}"
        spelled.setdefault(_one_way(address), []).append(address)
    assert not [several for several in spelled.values() if len(several) > 1]
    unknown = HOSTS - {urllib.parse.urlsplit(address).hostname for address in found}
    assert not unknown, "nothing links there any more"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See https://a.org/x.", ["https://a.org/x"]),
        ("[x](https://a.org/x_(y)), <https://b.org>", ["https://a.org/x_(y", "https://b.org"]),
        ('"url": "https://a.org/x\\n",', ["https://a.org/x"]),
        ("https://a.org/<you>/b https://{host}/c", []),
        ("`https://a.org/x`: **https://b.org/y**", ["https://a.org/x", "https://b.org/y"]),
        ("gs://a/b http://www.w3.org/2000/svg", []),
        ("https://a.org/?id=1&b=2#c", ["https://a.org/?id=1&b=2#c"]),
    ],
)
def test_addresses_of_a_text(text, found):
    assert links.addresses(text) == found


class _Site(http.server.BaseHTTPRequestHandler):
    """Pages that are there, gone, moved, busy at first, busy for good, too slow, or no HTTP."""

    asked: ClassVar[dict[str, int]] = {}

    def do_GET(self):
        count = self.asked[self.path] = self.asked.get(self.path, 0) + 1
        if self.path == "/slow":
            time.sleep(2)
        if self.path == "/noise":
            self.wfile.write(b"no HTTP\r\n\r\n")
            return
        status = {"/gone": 404, "/moved": 301, "/for_now": 302, "/busy": 503, "/loop": 302}.get(self.path, 200)
        self.send_response(503 if self.path == "/busy_at_first" and count < 3 else status)
        if status in (301, 302):
            self.send_header("Location", "/loop" if self.path == "/loop" else "/here")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    _Site.asked = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _ran(*arguments, **variables):
    command = [sys.executable, str(ROOT / "benchmarks" / "links.py"), *map(str, arguments)]
    environment = {"PATH": "/usr/bin:/bin", "no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_what_answers_and_what_does_not(site, tmp_path):
    names = ("here", "gone", "moved", "for_now", "busy", "busy_at_first", "slow", "noise", "loop")
    page = tmp_path / "page.md"
    page.write_text("".join(f"- [{name}]({site}/{name}).\n" for name in names) + "http://127.0.0.1:9/nobody\n")
    (tmp_path / "other.py").write_text(f'"""See {site}/gone, and {site}/here."""\n')
    done = _ran(tmp_path, "--retries=2", "--wait=0.01", "--timeout=0.5", "--json")
    *lines, summary, as_json = done.stdout.splitlines()
    assert (done.returncode, done.stderr, summary) == (1, "", "10 links, 6 broken")
    said = dict(line.partition(": ")[::2] for line in lines)
    assert said[f"{site}/gone"] == f"404 Not Found ({tmp_path / 'other.py'}, {page})"
    assert said[f"{site}/moved"] == f"moved to {site}/here ({page})"
    assert said[f"{site}/busy"].startswith("503 ") and "timed out" in said[f"{site}/slow"]
    assert "refused" in said["http://127.0.0.1:9/nobody"]
    assert set(said) == {f"{site}/{n}" for n in ("gone", "moved", "busy", "slow", "noise", "loop")} | {
        "http://127.0.0.1:9/nobody"
    }
    assert _Site.asked["/busy"] == 3 and _Site.asked["/busy_at_first"] == 3 and _Site.asked["/gone"] == 1
    assert json.loads(as_json)[f"{site}/here"] == {"wrong": "", "moved": ""}


def test_all_answer(site, tmp_path):
    (tmp_path / "page.md").write_text(f"{site}/here\n")
    done = _ran(tmp_path / "page.md")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 link, 0 broken\n", "")


@pytest.mark.parametrize("wrong", ["absent.md", "--retries=-1", "--timeout=0"])
def test_bad_input_is_one_line(wrong):
    done = _ran(wrong)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("flan_jax: ") and wrong.partition("=")[2] in done.stderr
