"""A run that is evaluated as it is tuned: the same figures as `flan_jax.eval`, at the same steps after a restart."""

import json
import shutil
import time

import pytest
import small_training
from small_training import SMALL, train

from flan_jax import catalog, models, partitioning
from flan_jax import eval as eval_binary
from flan_jax import train as train_binary
from flan_jax.checkpoint import arrays
from flan_jax.data import examples as example_files
from flan_jax.errors import FlanError
from flan_jax.evaluation import during_training
from flan_jax.evaluation.during_training import evaluating
from flan_jax.training.hooks.context import Context
from flan_jax.training.run import Run

FEW = {"max_examples": 2, "max_dev_examples": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Tokens to tune on, and examples of a dataset that is held out, one that is seen, and one without options."""
    folder = small_training.prepare(tmp_path_factory.mktemp("prepared"))
    words = [word for _, word in catalog.dataset("rte").labels]
    fields = {
        "rte": [
            {"premise": f"grass is {c}", "hypothesis": "it is", "options": words, "answer": words[0]} for c in "abc"
        ],
        "sst2": [{"sentence": f"film {c}", "options": ["negative", "positive"], "answer": "positive"} for c in "abc"],
        "natural_questions": [{"question": "who", "answer": "Ann", "references": ["Ann"]}],
    }
    for name, rows in fields.items():
        found = {s: [(f"{s}-{n}", row) for n, row in enumerate(rows)] for s in ("test", "dev")}
        example_files.write_folder(folder / "examples" / name, found)
    return folder


def hook(prepared, period=2, **more):
    return evaluating(period=period, prepared_dir=str(prepared), **({"datasets": ("rte", "sst2")} | FEW | more))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A run of four steps, evaluated at two of them."""
    folder = tmp_path_factory.mktemp("whole")
    best = {"figure": "eval/rte", "best": "highest", "count": 1}
    keep = {"checkpoint_period": 2, "keep_checkpoints": 2, "keep_best": best}
    train(folder, prepared, 4, evaluation=hook(prepared), **keep)
    return folder


def test_figures_are_those_of_the_evaluation_of_the_checkpoint(whole, prepared, tmp_path):
    assert [sorted(line.get("eval", ())) for line in lines(whole)] == [[], ["rte", "sst2"]] * 2
    given = {"checkpoint_path": str(whole), "prepared_dir": str(prepared), "datasets": ("rte", "sst2"), **FEW}
    given |= {"allow_seen": True, "mesh_shape": {"data": 2, "fsdp": 4}}
    eval_binary.evaluate(step=2, output_dir=str(tmp_path), **given)
    own, other = results(whole / "eval" / "step_2"), results(tmp_path)
    for found in (own, other):
        for name in ("made", "provenance"):
            del found[name]
        for figures in found["datasets"].values():
            del figures["cost"]
    assert own == other
    line = lines(whole)[1]
    assert line["eval"] == {name: figures["mean"] for name, figures in other["datasets"].items()}
    assert line["eval_cluster"] == {name: figures["mean"] for name, figures in other["clusters"].items()}
    labels = {name: one["label"] for name, one in other["datasets"].items()}
    assert labels == {"rte": "zero-shot, held out", "sst2": "zero-shot, seen"}


def test_eval_takes_what_is_there(whole, prepared, tmp_path):
    """With STEP="follow" and the same settings its predictions are used again."""
    shutil.copytree(whole / "eval", tmp_path / "eval")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "eval").rglob("*.jsonl")}
    given = {"prepared_dir": str(prepared), "datasets": ("rte", "sst2"), **FEW, "allow_seen": True, "step": "follow"}
    eval_binary.evaluate(checkpoint_path=str(whole), output_dir=str(tmp_path / "eval"), **given)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "eval").rglob("*.jsonl")}
    assert (tmp_path / "eval" / "report.html").is_file()


def test_a_resumed_run_is_evaluated_at_the_same_steps(whole, prepared, tmp_path):
    for steps in (3, 4):
        train(tmp_path, prepared, steps, evaluation=hook(prepared), checkpoint_period=1)
    assert [line.get("eval") for line in lines(tmp_path)] == [line.get("eval") for line in lines(whole)]
    assert results(tmp_path / "eval" / "step_4")["weights"] == results(whole / "eval" / "step_4")["weights"]


def test_evaluating_changes_nothing_and_takes_no_time_of_steps(whole, prepared, tmp_path):
    class Slow:
        def pauses(self, context, step):
            return step == 2

        def after_step(self, context, step, values):
            if step == 2:
                time.sleep(2)

    train(tmp_path, prepared, 4, hooks=[Slow()])
    same = ("loss", "parameter_norm", "gradient_norm")
    assert [[x[n] for n in same] for x in lines(tmp_path)] == [[x[n] for n in same] for x in lines(whole)]
    assert lines(tmp_path)[2]["seconds"] < 2


def test_the_best_by_a_dataset_stays(prepared, tmp_path, monkeypatch):
    means = iter([{"rte": 10.0}, {}, {"rte": 90.0}, {}, {"rte": 50.0}, {}])
    monkeypatch.setattr(during_training, "_means", lambda figures: next(means))
    best = {"figure": "eval/rte", "best": "highest", "count": 1}
    keep = {"checkpoint_period": 1, "keep_checkpoints": 1, "keep_best": best}
    train(tmp_path, prepared, 3, evaluation=hook(prepared, 1, datasets=("rte",)), **keep)
    assert arrays.steps(tmp_path) == [2, 3]


def test_what_is_wrong_ends_before_the_first_step(whole, prepared, tmp_path):
    with pytest.raises(FlanError, match="EVAL_PERIOD: cb cannot be evaluated: .*cb"):
        train(tmp_path, prepared, 3, evaluation=hook(prepared, datasets=("rte", "cb")))
    assert not (tmp_path / "metrics.jsonl").exists()
    with pytest.raises(FlanError, match="no figure 'eval/cb': did you mean 'eval/"):
        train(tmp_path, prepared, 3, evaluation=hook(prepared), keep_best={"figure": "eval/cb"})
    with pytest.raises(FlanError, match="none of a hook's methods"):
        train(tmp_path, prepared, 3, evaluation=5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"period": 5}, "EVAL_PERIOD 5 is more than TRAIN_STEPS 4"),
        ({"prepared": "nothing", "datasets": None}, "EVAL_PERIOD: .* cannot be evaluated: .*; [0-9]+ more of"),
        ({"datasets": ("natural_questions",), "generate": False}, "it has no options, and GENERATE is False"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(whole, prepared, given, says):
    run = Run.load(whole)
    mesh = partitioning.make_mesh(**run.mesh)
    context = Context(run, whole, models.build(run.program.config), mesh, None, 0)
    with pytest.raises(FlanError, match=says) as caught:
        hook(**({"prepared": prepared} | given)).start(context)
    assert "\n" not in str(caught.value)


def test_the_place_and_the_names_have_to_be_free(whole, prepared, tmp_path):
    run = Run.load(whole)
    context = Context(run, tmp_path, models.build(run.program.config), partitioning.make_mesh(**run.mesh), None, 0)
    (tmp_path / "eval").write_text("")
    with pytest.raises(FlanError, match="eval is no folder"):
        hook(prepared).start(context)
    with pytest.raises(FlanError, match="HOOKS writes the figure 'eval'.*take another name"):
        hook(prepared).after_step(context, 1, {"loss": 1.0, "eval": 3.0})


def test_a_run_that_is_told_to_end_breaks_off_and_saves(prepared, tmp_path, capfd):
    """As at SIGTERM: `context.ending` is what the preemption hook puts there."""

    class Told:
        def after_step(self, context, step, values):
            if step == 2:
                context.ending = lambda: True
                context.stop("told", 75)

    found = train(tmp_path, prepared, 4, hooks=[Told()], evaluation=hook(prepared))
    assert (found.step, found.status) == (2, 75)
    assert arrays.steps(tmp_path) == [2] and "eval" not in lines(tmp_path)[1]
    assert "was broken off after 0 of" in capfd.readouterr().out


def test_by_macros_all_that_is_held_out(prepared, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.gin").write_text(
        "".join(f"DecoderConfig.{name} = {value!r}\n" for name, value in SMALL.to_dict().items())
    )
    values = {"MODEL_DIR": "run", "PREPARED_DIR": str(prepared), "MIXTURE_OR_TASK_NAME": "sst2", "TRAIN_STEPS": 2}
    values |= {"BATCH_SIZE": 8, "TASK_FEATURE_LENGTHS": small_training.LENGTHS, "MODEL": "small.gin"}
    values |= {
        "EVAL_PERIOD": 2,
        "MAX_EXAMPLES": 1,
        "MAX_DEV_EXAMPLES": 0,
        "STYLE": ("instructions", "gpt3"),
        "GENERATE": False,
    }
    train_binary.main(["--gin_file=runs/tune.gin", *(f"--gin.{name}={value!r}" for name, value in values.items())])
    assert lines(tmp_path / "run")[1]["eval"].keys() == {"instructions/rte", "gpt3/rte"}
    for style in ("instructions", "gpt3"):
        assert results(tmp_path / "run" / "eval" / style / "step_2")["settings"]["style"] == style
    printed = capfd.readouterr().out
    assert "held out, and not evaluated, as they are not prepared: " in printed and "step 2 evaluated: " in printed
