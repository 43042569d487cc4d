from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "inspect_tasks.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_no_output_is_kept(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch, one_device):
    # The samples are prepared in a few seconds by one process; the kernel needs no fake devices.
    monkeypatch.setenv("XLA_FLAGS", one_device["XLA_FLAGS"])
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not [o for o in cell.outputs if o.output_type == "error"]
            shown[cell.source] = "".join(
                o.get("text", "") + o.get("data", {}).get("text/html", "") for o in cell.outputs
            )
    plots = sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))
    assert plots == 3  # shares, lengths, fill
    rte = shown['compare_templates("rte")']
    assert all(f"template {number}" in rte for number in range(10))
    assert "Paraphrase" in shown[next(s for s in shown if s.startswith("trained ="))]
    assert "of 1280 slots filled" in shown["row(0);"]
