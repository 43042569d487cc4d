"""The examples in docstrings of public functions are true."""

import doctest
import importlib

import pytest

MODULES = (
    *("catalog.known", "catalog.mixtures", "content", "errors", "json_lines", "metrics", "parts", "protocol", "splits"),
    *("styles", "templates", "values", "ways", "wording"),
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    module = importlib.import_module(f"flan_jax.{name}")
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted and not done.failed, "see above what they gave"
