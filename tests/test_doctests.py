"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

import flan_jax

PACKAGE = Path(flan_jax.__file__).parent
MODULES = sorted(
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


def test_what_users_call_first_has_examples():
    assert {
        "catalog.known",
        "catalog.mixtures",
        "parts",
        "protocol",
        "styles",
        "templates",
        "training.optimizers.schedules",
    } <= {*MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    module = importlib.import_module(f"flan_jax.{name}")
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted and not done.failed, "see above what they gave"
