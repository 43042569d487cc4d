import ast
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from flan_jax import configuration, quickstart
from flan_jax.studies import plan, settings  # noqa: F401 - gin files bind arguments of a study

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
# What stands in for models of minutes and samples of all datasets: a random model, two steps, a dataset or two.
SMALL = {
    "inspect_tasks.ipynb": {"MIXTURE": "sst2"},
    "tune_and_score.ipynb": {
        "MODEL": "tiny",
        "TUNED_ON": "rte",
        "WEIGHTS": None,
        "STEPS": 2,
        "ROWS": 1,
        "LENGTHS": {"inputs": 512, "targets": 64},  # of bytes
        "EXAMPLES": 2,
    },
}


def read(name):
    return nbformat.read(NOTEBOOKS / name, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def small(name):
    """A notebook with other values for its parameters."""
    notebook = read(name)
    (cell,) = (cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", ()))
    for parameter, value in SMALL[name].items():
        cell.source, found = re.subn(
            rf"^{parameter} = .*$", f"{parameter} = {value!r}", cell.source, flags=re.MULTILINE
        )
        assert found == 1, parameter
    return notebook


@pytest.fixture
def executed(tmp_path, monkeypatch, one_device):
    """(notebook) -> what each cell showed, by its source; and its pictures, counted by kind."""
    # The samples are prepared in a few seconds by one process; the kernel needs no fake devices.
    monkeypatch.setenv("XLA_FLAGS", one_device["XLA_FLAGS"])

    def run(notebook):
        """Nothing that it shows may be a warning."""
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = {cell.source: cell.outputs for cell in code(notebook)}
        assert not [o for of_cell in outputs.values() for o in of_cell if o.output_type == "error"]
        kinds = [kind for of_cell in outputs.values() for o in of_cell for kind in o.get("data", {})]
        shown = {
            source: "".join(
                "".join(
                    [o.get("text", ""), *(str(o.get("data", {}).get(f"text/{k}", "")) for k in ("html", "markdown"))]
                )
                for o in of_cell
            )
            for source, of_cell in outputs.items()
        }
        assert not [text for text in shown.values() if "WARNING" in text or "deprecated" in text]
        return shown, {kind: kinds.count(kind) for kind in ("image/png", "image/svg+xml")}

    return run


@pytest.mark.parametrize("name", NAMES)
def test_no_output_is_kept(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short(name):
    """What is read in a sitting: nobody looks at a cell that is longer than the screen."""
    for cell in read(name).cells:
        assert len(cell.source.splitlines()) <= 22 and len(cell.source) <= 1600, cell.source


def test_the_recipe_is_the_quickstarts():
    """tune_and_score says so; every value that a study's file binds is one that a reader sees in a cell."""
    given = {}
    for cell in code(read("tune_and_score.ipynb")):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
                given[node.targets[0].id] = node.value
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "macros":
                given = {word.arg: word.value for word in node.keywords} | given  # WEIGHTS=WEIGHTS says nothing

    def value(name):
        node = given[name]
        return value(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)

    configuration.parse([quickstart.FILE], ["STUDY_DIR = 'x'", "DATA = 'samples'"])
    recipe = configuration.macro("TRAIN") | configuration.macro("EVAL")
    recipe |= {"MODEL": configuration.macro("MODELS")[0], "SCORED": configuration.macro("DATASETS")[0]}
    assert {name: value(name) for name in recipe} == recipe
    (cluster,) = configuration.macro("CLUSTERS")
    mixture = {"mixture": value("TUNED_ON"), "weights": value("WEIGHTS")}
    assert mixture == plan.held_out_mixture(cluster)
    shown = "\n".join(cell.source for cell in read("tune_and_score.ipynb").cells)
    assert all(f'"{style}"' in shown for style in configuration.macro("BASELINES"))


@pytest.mark.slow
def test_inspect_tasks_runs_from_top_to_bottom(executed):
    shown, pictures = executed(small("inspect_tasks.ipynb"))
    assert pictures["image/png"] == 3  # shares, lengths, fill
    rte = shown['compare_templates("rte")']
    assert all(f"template {number}" in rte for number in range(10))
    assert "Paraphrase" in shown[next(s for s in shown if s.startswith("trained ="))]
    assert "of 1280 slots filled" in shown["row(0, MIXTURE);"]


@pytest.mark.slow
def test_tune_and_score_runs_from_top_to_bottom(executed, tmp_path):
    shown, pictures = executed(small("tune_and_score.ipynb"))
    assert pictures["image/svg+xml"] == 2  # clusters, differences
    (table,) = (text for source, text in shown.items() if "Markdown(" in source)
    assert "95 %: examples and templates" in table and "| common_gen |" in table
    assert (tmp_path / "tune_and_score" / "report" / "report.html").is_file()
