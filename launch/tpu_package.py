"""What is installed on TPU machines: this checkout as a wheel, and the locked versions of what it needs."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from flan_jax.errors import FlanError

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("host.sh")
LOCK = "requirements.lock"
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "flan_jax", "tasks", "gin", "launch")
EXTRAS = "tpu,gcs"


class Package:
    """What is installed on the hosts: the package as a wheel, and the locked versions of what it needs.

    Args:
      wheel: its path; None builds one from the checkout that this file lies in.
      dry: only for commands that are printed: nothing is built or read.
    """

    def __init__(self, wheel: str | None = None, dry: bool = False) -> None:
        self._wheel, self._dry = wheel, dry
        self._made: tempfile.TemporaryDirectory[str] | None = None

    @functools.cached_property
    def lock(self) -> Path:
        """The locked versions."""
        if self._dry:
            return CHECKOUT / LOCK
        places = [CHECKOUT / LOCK, *([Path(self._wheel).parent / LOCK] if self._wheel else [])]
        for place in places:
            if place.is_file():
                return place
        raise FlanError(f"no {LOCK}: run the launcher in a checkout, or put the file beside --wheel.")

    @functools.cached_property
    def wheel(self) -> Path:
        """The wheel, built when it is first asked for."""
        if self._dry:
            return Path(self._wheel or "flan_jax.whl")
        if self._wheel:
            if not self._wheel.endswith(".whl") or not Path(self._wheel).is_file():
                raise FlanError(f"--wheel={self._wheel}: no such wheel.")
            return Path(self._wheel)
        if not (CHECKOUT / "setup.py").is_file():
            raise FlanError("the package is not a checkout here: give its wheel, as --wheel=FILE.")
        self._made = tempfile.TemporaryDirectory()
        copy = (
            Path(self._made.name) / "checkout"
        )  # setuptools leaves files in the folder that it builds, and takes old ones
        copy.mkdir()
        for name in SOURCES:
            take = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
            take(CHECKOUT / name, copy / name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={self._made.name}", "."]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        found = list(Path(self._made.name).glob("*.whl"))
        if done.returncode or len(found) != 1:
            reason = (done.stderr.strip().splitlines() or ["it does not say why"])[-1][:200]
            raise FlanError(f"pip cannot make a wheel of {CHECKOUT} ({reason}); give one, as --wheel=FILE.")
        return found[0]

    @functools.cached_property
    def digest(self) -> str:
        """Of all that is installed."""
        if self._dry:
            return "DIGEST"
        digest = hashlib.sha256()
        for path in (self.wheel, self.lock, SCRIPT):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]
