import importlib.util
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.fixture(scope="session")
def load():
    """Loads a launcher by its path: they need of this package what the standard library needs."""

    def of(name):
        spec = importlib.util.spec_from_file_location(f"launch_{name}", LAUNCH / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return of


@pytest.fixture(scope="session")
def local_pod():
    """The command line of the local pod, without its arguments."""
    return [sys.executable, str(LAUNCH / "local_pod.py")]
