"""What no evaluation can have is refused, and what was not asked alike is not averaged."""

import json
import shutil

import pytest

from flan_jax import reporting
from flan_jax.errors import FlanError
from flan_jax.reporting import asked, groups


def edited(run, name, change):
    """A run without predictions whose results were changed, loaded."""
    folder = run.output_dir.with_name(name)
    shutil.copytree(run.output_dir, folder)
    shutil.rmtree(folder / "predictions")
    results = json.loads((folder / "results.json").read_text())
    change(results["datasets"]["cb"], results)
    (folder / "results.json").write_text(json.dumps(results))
    return reporting.load_run(name, folder)


@pytest.fixture
def run(make_run):
    return make_run("a", {"cb": 0.5}, count=9)


def macro_f1(figures, _):
    for one in (figures, *figures["templates"]):
        one["metrics"]["macro_f1"] = 990.0


def baselines(figures, _):
    figures.update(random=0.4, majority=0.01)


def examples(figures, _):
    figures["examples"] = 400


def overlap(figures, _):
    figures["overlap"] = {"checked": True, "reason": "", "seen": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (macro_f1, "has macro_f1 990.0000, which is from 0 to 100"),
        (baselines, "has 0.0100 for the best of 3 labels"),
        (examples, "and with 400 examples it is at most"),
        (overlap, "has '0' records seen in its overlap, and not of how many"),
    ],
)
def test_what_cannot_be_is_refused(run, change, said):
    with pytest.raises(FlanError) as caught:
        edited(run, "b", change)
    (line,) = str(caught.value).splitlines()
    assert said in line and "b/results.json: dataset cb" in line and line.endswith("flan_jax.eval again.")


def test_runs_of_other_joints_are_in_no_group(make_run):
    """They had 25.0 ± 0.0 with no more than "joined by eos or newline"."""
    runs = [make_run(f"s{n}", {"cb": 0.5}, count=9, seed=n) for n in range(2)]
    runs[1].results["joint"] = "newline"
    group = groups.as_one("g", runs)
    assert not group.datasets
    assert {"dataset": "cb", "reason": "its runs were asked with input and target joined by eos and newline"} in (
        group.results["skipped"]
    )
    (unlike,) = asked.differences(runs, "cb")
    assert unlike.of == "joint"
