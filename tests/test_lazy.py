import sys
import threading

import pytest

from flan_jax.lazy import lazy_api_imports, lazy_imports


def test_imports_wait():
    sys.modules.pop("this_is_no_module", None)
    with lazy_imports():
        import this_is_no_module
    with pytest.raises(ImportError):
        this_is_no_module.anything  # noqa: B018 - which imports it


@pytest.mark.parametrize("block", [lazy_imports, lambda: lazy_api_imports({"__name__": "names"})])
def test_another_thread_imports_as_ever(block):
    """A progress bar is drawn in a thread, and `rich` imports by relative names when it draws."""
    found = []

    def other():
        sys.modules.pop("json.tool", None)
        from json import tool

        found.append(type(tool).__name__)
        exec("from . import decoder", {"__package__": "json", "__name__": "json.other"})  # as libraries do
        found.append("relative")

    with block():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == ["module", "relative"]


def test_many_threads_leave_the_usual_import():
    import builtins

    usual = builtins.__import__

    def enter():
        for _ in range(200):
            with lazy_imports():
                import colorsys  # noqa: F401

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builtins.__import__ is usual
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
