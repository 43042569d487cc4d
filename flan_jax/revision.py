"""The revision of the running code."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import flan_jax


@functools.cache
def code_revision() -> str:
    """The commit of the running code; outside a repository, the package version.

    "+changes" is appended if files differ from the commit.
    """
    package = Path(flan_jax.__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # it is installed into somebody else's repository
            raise ValueError(package)
        changes = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, ValueError, subprocess.SubprocessError):
        return f"flan-jax {flan_jax.__version__}"
