"""The documentation site: it builds without a warning, and every command has its options there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytest.importorskip("sphinx", reason="the site is built where the extra docs is installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site. Warnings are errors, so links, headings, docstrings and pictures are checked."""
    to = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", to / "doctrees", DOCS, to / "html"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return to / "html"


def test_every_page_is_there(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file(), page


def test_every_command_is_on_its_page():
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    for path in [*(ROOT / "flan_jax").glob("*.py"), *(ROOT / "launch").glob("*.py")]:
        if "\ndef main(" in path.read_text(encoding="utf-8") and path.stem != "__main__":
            name = f"flan_jax.{'launch.' * (path.parent.name == 'launch')}{path.stem}"
            assert f"```{{command}} {name}\n" in page, f"docs/reference/commands.md has no {name}"


def test_every_command_has_its_options(site):
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for module, option in {
        "train": "json",
        "prepare": "leave_out",
        "launch.gke": "topology",
        "verify": "checks",
    }.items():
        assert f'id="cmdoption-flan_jax.{module}-{option}"' in page, (module, option)
