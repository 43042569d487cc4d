import json
import random
import types

import pytest

from flan_jax.training.hooks import earlier


def _context(folder, first_step):
    return types.SimpleNamespace(folder=folder, first_step=first_step)


@pytest.mark.parametrize("end", ["", '{"step": 301, "lo', '{"step": 301, "loss": 1}\n{"st', "\n", "3\n"])
@pytest.mark.parametrize("begin", [1, 200])
def test_lines_are_found_by_their_step(tmp_path, begin, end):
    """Among lines of any length; a log may begin later, and its end may be half-written."""
    draw = random.Random(0)
    lines = [{"step": step, "loss": step / 2, "text": "x" * draw.randrange(90)} for step in range(begin, 301)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    found = earlier.figures_of(_context(tmp_path, 299), range(0, 302))
    assert found == {line["step"]: line for line in lines if line["step"] <= 299}


def test_no_log(tmp_path):
    assert earlier.figures_of(_context(tmp_path, 9), [9]) == {}
    (tmp_path / "metrics.jsonl").touch()
    assert earlier.figures_of(_context(tmp_path, 9), [9]) == {}
    assert earlier.figures_of(_context(tmp_path, 0), [9]) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", 2.0),
        ("count", 3.0),
        ("cluster_loss/nli", 1.5),
        ("cluster_loss/nly", None),
        ("cluster_loss", None),
        ("los", None),
        ("broken", None),
        ("nothing", None),
        ("flag", None),
        ("loss/nli", None),
        ("", None),
    ],
)
def test_a_figure_by_its_name(name, value):
    figures = {"loss": 2.0, "count": 3, "broken": float("nan"), "nothing": None, "flag": True}
    figures |= {"cluster_loss": {"nli": 1.5}}
    assert earlier.figure(figures, name) == value
    assert "cluster_loss/nli" in earlier.names(figures)
