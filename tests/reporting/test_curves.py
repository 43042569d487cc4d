"""The course of runs: at work, damaged, of an earlier version, and with names that mean something elsewhere."""

import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from flan_jax import browse
from flan_jax.files import RemotePath, write_atomic
from flan_jax.reporting.curves import charts, figures, page, reading, terminal
from flan_jax.training.run import Program, Run

NAN = float("nan")
PROGRAM = Program({}, {}, 8, 48, 16, 1, {"name": "adafactor"})
CHANGE = {"when": "2026-11-29T10:00:00+00:00", "step": 3, "changed": {"TRAIN_STEPS": [5, 9]}}
RUN = {
    "mixture": "flan_without_nli",
    "datasets": (),
    "absent": (),
    "order": 1,
    "vocabulary": {},
    "start": {},
    "seed": 0,
}
RUN |= {"program": PROGRAM, "train_steps": 9, "mesh": {}, "hosts": {}}
NAMES = [
    "[red]rte[/red]",
    "<script>alert(1)</script>",
    "$x_1$",
    "_hidden",
    "a\x1b[31mb\nc",
    "\\[bold]",
    "&amp;",
    "x" * 300,
]


def _line(step, loss, **more):
    return {"step": step, "loss": loss, "tokens_per_second": 1000.0 + step} | more


def _write(folder, lines, changes=None, spikes=()):
    """A MODEL_DIR; lines are values or texts."""
    folder.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metrics.jsonl").write_text("".join(f"{text}\n" for text in texts))
    if changes is not None:
        Run(**RUN, changes=tuple(changes)).save(folder)
    if spikes:
        (folder / "spikes.jsonl").write_text("".join(json.dumps(spike) + "\n" for spike in spikes))
    return folder


@pytest.fixture
def shown(capsys):
    def shown(*arguments):
        """(the JSON of the last line, what was printed before it)."""
        browse.main([*map(str, arguments), "--json"])
        *printed, last = capsys.readouterr().out.splitlines()
        return json.loads(last), "\n".join(printed)

    return shown


@pytest.fixture
def refused(capsys):
    def refused(*arguments):
        """The one line on standard error."""
        with pytest.raises(SystemExit) as ended:
            browse.main([*map(str, arguments)])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        return line

    return refused


def test_two_runs_of_other_mixtures(tmp_path, shown, open_page):
    """What happened to each, in the terminal, as JSON and on a page that a browser opens without an error."""
    lines = [
        _line(s, 3.0 / s, cluster_loss={"nli": 2.0 / s}, learning_rate=1e-3, skipped=int(s == 4)) for s in range(1, 7)
    ]
    lines[3] |= {"loss": None, "cluster_loss": {"nli": None}}
    lines[5] |= {"eval": {"rte": 55.5}, "eval_cluster": {"nli": 50.0}, "dataset_loss": {"rte": 0.25}}
    lines[2] |= {"dev_loss": {"seen/sst2": 0.5, "held out/gpt3/rte": 2.0}, "dev_score_cluster": {"held out/nli": 0.5}}
    lines[2] |= {"dev_loss_cluster": {"seen/sentiment": 0.5, "held out/nli": 2.5}}  # the first is sst2 alone
    spike = {"step": 5, "loss": 9.0, "median": 1.0, "dataset_loss": {"rte": 9.5, "cb": 1.0}}
    first = _write(tmp_path / "first", lines, [CHANGE], [spike, {"step": 6, "loss": None}])
    second = _write(tmp_path / "second", [_line(s, 2.0, cluster_loss={"sentiment": 1.0}) for s in range(1, 4)], [])
    found, printed = shown("--run", first, second, f"--html={tmp_path / 'page.html'}")

    one, two = found["runs"]
    assert (one["name"], one["mixture"], one["last_step"], one["train_steps"]) == ("first", "flan_without_nli", 6, 9)
    assert (one["skipped"], one["spikes"], one["restarts"][0]["step"], two["restarts"]) == ([4], [5, 6], 3, [])
    loss = one["figures"]["loss"]
    assert (loss["first"], loss["last"], loss["lowest"], loss["highest"], loss["steps"]) == (3.0, 0.5, 0.5, 3.0, 5)
    assert one["figures"]["cluster_loss/nli"]["steps"] == 5 and "cluster_loss/nli" not in two["figures"]
    assert "first: started again after step 3 (2026-11-29T10:00:00+00:00): TRAIN_STEPS 5 -> 9" in printed
    assert "first: 1 batch skipped: step 4" in printed and "first: 2 spikes of the loss: step 5, 6" in printed
    assert "note" not in printed

    text = (tmp_path / "page.html").read_text()
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", text)
    assert captions == [
        *("loss", "nli", "sentiment", "gpt3/rte, held out", "sst2, seen", "nli, held out (cluster)"),
        "nli, held out (cluster)",  # the loss, and the score
        *("rte", "nli (cluster)", "learning_rate", "tokens_per_second"),
    ]
    for wanted in (
        "Nats a target token",
        "dev.json",
        "rte 9.5, cb 1",
        "not finite",
        "TRAIN_STEPS 5 -&gt; 9",
        "Loss by dataset",
    ):
        assert wanted in text
    assert 'src="http' not in text and "<script" not in text
    assert "What has happened" in open_page(tmp_path / "page.html", 400)


# ---------------------------------------------------------------------------------------------- files as they may be

BEGUN = [_line(1, 3.0), _line(2, 2.0), _line(3, 1.0)]


@pytest.mark.parametrize(
    ("lines", "steps", "losses", "note"),
    [
        ([*BEGUN, '{"step": 4, "lo'], [1, 2, 3], [3, 2, 1], ""),
        (
            ['{"step": 9, "lo', *BEGUN],
            [1, 2, 3],
            [3, 2, 1],
            "1 line of metrics.jsonl cannot be read, the first is line 1",
        ),
        (["", "[]", '"x"', "{}", *BEGUN], [1, 2, 3], [3, 2, 1], "3 lines of metrics.jsonl cannot be read"),
        ([BEGUN[2], BEGUN[0], BEGUN[1]], [1, 2, 3], [3, 2, 1], "not in the order of their steps"),
        ([*BEGUN, _line(2, 7.0), _line(3, 6.0)], [1, 2, 3], [3, 7, 6], "2 lines of metrics.jsonl left out"),
        (
            [*BEGUN, _line(4, 0.5, eval={"rte": 50.0}), _line(2, 7.0)],
            [1, 2],
            [3, 7],
            "3 lines of metrics.jsonl left out: the run was begun",
        ),
        ([*BEGUN, '{"step": 4, "loss": NaN}'], [1, 2, 3, 4], [3, 2, 1, NAN], ""),
        ([*BEGUN, '{"step": 4, "loss": 1e308}'], [1, 2, 3, 4], [3, 2, 1, NAN], "1 value of metrics.jsonl beyond 1e+30"),
        ([*BEGUN, '{"step": 4, "loss": Infinity, "x": 1' + "0" * 400 + "}"], [1, 2, 3, 4], [3, 2, 1, NAN], "2 values"),
        ([*BEGUN, '{"step": 4, "loss": "low", "accuracy": true}'], [1, 2, 3, 4], [3, 2, 1, NAN], ""),
        ([*BEGUN, _line(True, 1.0), {"step": 10**400}, _line(-1, 1.0), "x"], [1, 2, 3], [3, 2, 1], "3 lines"),
        ([_line(7, 1.5)], [7], [1.5], ""),
        ([_line(2**53 - 1, 1.5), _line(1, 1.5)], [1, 2**53 - 1], [1.5, 1.5], "not in the order"),
        ([_line(step, 1e29 * (-1) ** step) for step in (1, 2)], [1, 2], [-1e29, 1e29], ""),
    ],
)
def test_a_log_as_it_may_be(tmp_path, lines, steps, losses, note, capsys):
    folder = _write(tmp_path / "run", lines, [])
    (course,) = reading.load([str(folder)])
    assert course.steps.tolist() == steps
    np.testing.assert_array_equal(course.figures["loss"], np.array(losses, np.float64))
    assert note in "; ".join(course.notes) if note else not course.notes
    # And all of it can be shown.
    terminal.show(browse.Console(width=200), [course])
    json.dumps(figures.to_dict(course), allow_nan=False)
    assert "eval" not in "".join(course.figures) and all(charts.chart([course], name)[0] for name in course.figures)


def test_a_file_that_ends_in_the_middle_of_anything(tmp_path):
    """A run is at work on it."""
    folder = _write(tmp_path / "run", [*BEGUN, _line(4, 1.0, dataset_loss={"\N{SNOWMAN}": 1.0})], [])
    whole = (folder / "metrics.jsonl").read_bytes()
    for length in range(len(json.dumps(BEGUN[0])), len(whole), 3):
        (folder / "metrics.jsonl").write_bytes(whole[:length])
        (course,) = reading.load([str(folder)])
        assert not course.notes and course.steps.tolist() == [*range(1, len(course.steps) + 1)]


def test_an_earlier_version_without_run_json(tmp_path, shown):
    folder = _write(tmp_path / "old", BEGUN)
    found, printed = shown("--run", folder)
    assert found["runs"][0]["mixture"] is None and "note: no run.json" in printed
    (folder / "run.json").write_text("{")
    assert "run.json is broken" in shown("--run", folder)[1]


def test_a_folder_that_is_no_run_is_one_line(tmp_path, refused):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is no run: it has no metrics.jsonl" in refused("--run", empty)
    assert "is no run" in refused("--run", tmp_path / "nowhere")
    begun = _write(tmp_path / "begun", ["", '{"step": 1, "lo'])
    assert "has no step in its metrics.jsonl yet" in refused("--run", begun)
    run = _write(tmp_path / "run", BEGUN)
    assert f"runs in it: {begun}, {run}." in refused("--run", tmp_path)
    assert "stands twice" in refused("--run", run, run)
    assert "leave --mixture out" in refused("--run", run, "--mixture=flan")
    assert "leave --steps out" in refused("--run", run, "--steps=100")
    (empty / "metrics.jsonl").mkdir()
    assert "cannot read" in refused("--run", empty)
    assert "leave --dataset out" in refused("--dataset=rte", f"--html={tmp_path / 'x.html'}")


def test_object_storage(shown):
    write_atomic(RemotePath("memory", "runs/one/metrics.jsonl"), json.dumps(BEGUN[0]) + "\n")
    assert shown("--run", "memory://runs/one")[0]["runs"][0]["last_step"] == 1
    write_atomic(RemotePath("memory", "runs/two/metrics.jsonl"), json.dumps(BEGUN[0]) + "\n")
    runs = shown("--run", "memory://runs/one", "--run", "memory://runs/two")[0]["runs"]
    assert [one["name"] for one in runs] == ["one", "two"]


def test_names_are_nothing_but_names(tmp_path, shown):
    """Of datasets, clusters and figures: markup of the terminal, HTML, formulas, steering characters."""
    losses = {name: 1.0 + i for i, name in enumerate(NAMES)}
    line = _line(1, 1.0, cluster_loss=losses, dataset_loss=losses, eval=losses, **{name: 1.0 for name in NAMES})
    spike = {"step": 1, "loss": 1.0, "dataset_loss": losses}
    folder = _write(tmp_path / "[b]<i>", [line], [CHANGE | {"changed": {"<b>": ["[red]", 1]}}], [spike])
    found, printed = shown("--run", folder, f"--html={tmp_path / 'page.html'}")
    assert found["runs"][0]["figures"]["dataset_loss/[red]rte[/red]"]["last"] == 1.0
    assert printed.count("[red]rte[/red]") == 3 and "\\[bold]" in printed and "\x1b" not in printed
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text and "<b>" not in re.sub(r"<b style[^>]*>", "", text) and "<i>" not in text
    assert {"[red]rte[/red]", "$x_1$", "_hidden", NAMES[1], "&amp;"} <= set(
        map(html.unescape, re.findall(r">([^<]*)<", text))
    )
    assert max(map(len, found["runs"][0]["figures"])) == 80


# --------------------------------------------------------------------------------------------------- how it is shown


def test_many_points_become_few_of_the_same_mean():
    steps = np.arange(1, 100_001)
    values = np.sin(steps / 5e3)
    values[50_000] = 30.0
    at, mean, low, high = figures.thinned(steps, values, 200)
    assert len(at) == 200 and high.max() == 30.0 and low.min() == values.min()
    assert mean.mean() == pytest.approx(values.mean()) and at[0] == 250.5
    few = figures.thinned(steps[:5], values[:5], 200)
    assert all(np.array_equal(x, values[:5]) for x in few[1:])


def test_one_value_does_not_flatten_all_others(tmp_path):
    losses = np.sin(np.arange(500)) + 3
    losses[300] = 1e20
    (course,) = reading.load([str(_write(tmp_path / "run", [_line(s, x) for s, x in enumerate(losses, 1)], []))])
    assert charts.chart([course], "loss")[1] == 1
    few = _write(tmp_path / "few", [_line(step, 1e4 + step) for step in (1, 2)], [])
    assert charts.chart([course, *reading.load([str(few)])], "loss")[1] == 1, "a short run is no few values"
    assert "loss (1 value outside)" in page.page([course])


@pytest.mark.parametrize(
    ("steps", "values", "line"),
    [
        ([1, 2, 3, 4], [0.0, 1.0, 2.0, 7.0], "▁▂▃█"),
        ([1, 4], [5.0, 5.0], "▅  ▅"),
        ([2], [-1e29], " ▅  "),
        ([1, 2, 3, 4], [0.1 + 0.2, 0.3, 0.3, 0.3], "▅▅▅▅"),
    ],
)
def test_a_curve_in_one_line(steps, values, line):
    assert terminal.sparkline(np.array(steps), np.array(values), (1, 4)) == line


def test_a_page_of_a_long_run_is_small(tmp_path):
    rng = np.random.default_rng(0)
    lines = [_line(s, 1 + rng.random(), cluster_loss={"nli": rng.random()}) for s in range(1, 5_001)]
    folder = _write(tmp_path / "run", lines, [])
    assert len(page.page(reading.load([str(folder)]))) < 400_000


def test_training_is_not_started_by_looking(tmp_path):
    """No TensorFlow, and no devices."""
    folder = _write(tmp_path / "run", BEGUN, [])
    code = (
        "import sys; from flan_jax import browse; browse.main(['--run', sys.argv[1]]); "
        "import jax; assert not jax._src.xla_bridge._backends; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, timeout=300)
