"""Shared fixtures. Tests run on CPU, with 8 fake devices so that sharding is real."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs beside the checkout, or a skip without it."""
    folder = Path(os.environ.get("FLAN_JAX_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the shared folder of real data is not beside the checkout")
    return folder
