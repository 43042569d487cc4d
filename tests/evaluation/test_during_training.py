"""A run that is evaluated on dev examples as it is tuned: never on test, and with the figures of other ways to them."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
import small_training
from small_training import SMALL, train

from flan_jax import catalog, models, partitioning, protocol
from flan_jax import eval as eval_binary
from flan_jax import train as train_binary
from flan_jax.checkpoint import arrays, choosing, keeping
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import examples as example_files
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.layouts import DecoderLayout
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.evaluation import during_training, labels, prompt_store, same_examples
from flan_jax.evaluation.during_training import evaluating
from flan_jax.styles import parse
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.keeping_best import KeepingBest
from flan_jax.training.run import Run

LONG = {"inputs": 320, "targets": 64}  # bytes: short prompts of all templates fit
STYLE = "2_templates"
RTE = [word for _, word in catalog.dataset("rte").labels]


def rte(text, answer=0):
    return {"premise": f"grass is {text}", "hypothesis": "it is", "options": RTE, "answer": RTE[answer]}


def sst2(text, answer="positive"):
    return {"sentence": f"film {text}", "options": ["negative", "positive"], "answer": answer}


def write(folder, name, dev, test):
    """Examples as `prepare` writes them, with ids by split where they have none."""
    found = {"dev": dev, "test": test}
    rows = {
        split: [one if isinstance(one, tuple) else (f"{split}-{n}", one) for n, one in enumerate(rows)]
        for split, rows in found.items()
    }
    example_files.write_folder(folder / "examples" / name, {split: of for split, of in rows.items() if of})


# Dev examples of which some are test examples: by content, with another answer, in another spelling, by their id.
TESTED = [rte("x"), rte("y"), rte("The  Cat."), ("dev-5", rte("something else"))]
DEV = [rte("x"), rte("a"), rte("y", 1), rte("the cat"), rte("b", 1), rte("c"), rte("d")]
KEPT = [("dev-1", DEV[1]), ("dev-4", DEV[4])]  # the first two that may stand


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Tokens to tune on, and examples of a dataset that is held out, one that is seen, and one without options."""
    folder = small_training.prepare(tmp_path_factory.mktemp("prepared"))
    write(folder, "rte", DEV, TESTED)
    write(folder, "sst2", [sst2(c) for c in "abc"], [sst2(c) for c in "xyz"])
    answer = {"answer": "Ann", "references": ["Ann"]}
    write(folder, "natural_questions", [{"question": "who", **answer}], [{"question": "when", **answer}])
    return folder


def hook(prepared, period=2, **more):
    given = {"datasets": ("rte", "sst2"), "max_dev_examples": 2, "style": (STYLE,)}
    return evaluating(period=period, prepared_dir=str(prepared), **(given | more))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def results(folder, name="dev.json"):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A run of four steps, evaluated at two of them, with targets weighted per example."""
    folder = tmp_path_factory.mktemp("whole")
    keep = {"checkpoint_period": 2, "keep_checkpoints": 2}
    more = {"feature_lengths": LONG, "loss_averaging": "per_example"}
    train(folder, prepared, 4, evaluation=hook(prepared), **keep, **more)
    return folder


# ---------------------------------------------------------------------------------------------- never test examples


def test_no_test_example_gets_in(whole, prepared):
    """Neither by its id, nor by its content, nor by its words with another answer, spelling or spacing."""
    asked = protocol.of(catalog.dataset("rte"), parse(STYLE))
    found = prompt_store.read_dev(prepared, asked, ByteTokenizer(), None, 0)
    assert [split for split, _ in found.splits] == ["dev"] and found.of_test == 4
    assert [row["id"] for row in found.splits[0][1]] == ["dev-1", "dev-4", "dev-6"]
    limited = prompt_store.read_dev(prepared, asked, ByteTokenizer(), 2, 0).splits[0][1]
    assert [(row["id"], row["fields"]) for row in limited] == KEPT

    files = [path for path in (whole / "eval").rglob("*.jsonl") if path.parent.name == "rte"]
    said = [json.loads(line) for path in files for line in path.read_text().splitlines()[1:]]
    assert len(said) == 8 and {(line["id"], line["split"]) for line in said} == {("dev-1", "dev"), ("dev-4", "dev")}
    assert not {row["hash"] for row in example_files.read(prepared, "rte", "test")} & {line["hash"] for line in said}
    found = results(whole / "eval" / "step_2")
    assert found["split"] == "dev" and set(found["datasets"]["rte"]["data"]) == {"dev"}
    counts = {"records": 2, "prompts": 4, "too_long": 0, "unusable": 0, "of_test": 4}
    assert counts.items() <= found["dev_loss"]["datasets"]["rte"].items()
    assert not list((whole / "eval").rglob("results.json"))  # which a report would take for those of test


def pair(one, other):
    return {"sentence1": one, "sentence2": other, "options": ["no", "yes"], "answer": "yes"}


@pytest.mark.parametrize(
    ("name", "dev", "test", "stays"),
    [
        ("glue_mrpc", [pair("it is late", "it grew late"), pair("a b", "c")], [pair("It grew late.", "it is late")], 1),
        ("glue_mrpc", [pair("it is", "late")], [pair("it", "is late")], 0),  # other texts of the same words
        (
            "sst2",
            [sst2("a") | {"sentence": text} for text in ("...", ";-)", "क्या")],
            [sst2("a") | {"sentence": "!"}],
            0,
        ),
        ("sst2", [sst2("a") | {"sentence": text} for text in (" ... ", "b")], [sst2("a") | {"sentence": "..."}], 1),
    ],
    ids=["the other way round", "cut otherwise", "no words", "the same marks"],
)
def test_what_asks_the_same(tmp_path, name, dev, test, stays):
    """The dev examples from `stays` on are no test examples."""
    write(tmp_path, name, dev, test)
    found = prompt_store.read_dev(tmp_path, protocol.of(catalog.dataset(name), parse(STYLE)), ByteTokenizer(), None, 0)
    assert [row["id"] for row in found.splits[0][1]] == [f"dev-{n}" for n in range(stays, len(dev))]
    assert found.of_test == stays


@pytest.mark.parametrize(
    ("dev", "test", "says"),
    [
        ([], [rte("x")], "rte has no dev examples in .*test data alone.*Leave it out of DATASETS"),
        (
            [rte("x")],
            [rte("X", 1)],
            "all dev examples of rte in .* are test examples too, or ask the same: .*leave it out of DATASETS",
        ),
    ],
)
def test_a_dataset_without_dev_examples_is_refused(whole, prepared, tmp_path, dev, test, says):
    folder = tmp_path / "prepared"
    write(folder, "rte", dev, test)
    write(folder, "sst2", [sst2("a")], [])
    with pytest.raises(FlanError, match=f"EVAL_PERIOD: rte cannot be evaluated: {says}") as caught:
        started(whole, hook(folder))
    assert "\n" not in str(caught.value)
    started(whole, hook(folder, datasets=("sst2",)))  # a source without test data has nothing to leave out


def test_a_test_file_that_is_gone_is_not_taken_for_none(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "examples" / "rte" / "test.jsonl").unlink()
    asked = protocol.of(catalog.dataset("rte"), parse(STYLE))
    with pytest.raises(FlanError, match=r"test\.jsonl is not as it was prepared"):
        prompt_store.read_dev(tmp_path, asked, ByteTokenizer(), None, 0)


# ------------------------------------------------------------------------------------------------------- the figures


def test_scores_are_those_of_eval_on_the_same_dev_examples(whole, prepared, tmp_path):
    """`flan_jax.eval` on data whose test examples are the dev examples here."""
    write(tmp_path / "p", "rte", [], KEPT)
    write(tmp_path / "p", "sst2", [], [sst2(c) for c in "abc"])
    given = {"checkpoint_path": str(whole), "prepared_dir": str(tmp_path / "p"), "datasets": ("rte", "sst2")}
    given |= {"allow_seen": True, "mesh_shape": {"data": 2, "fsdp": 4}, "style": (STYLE,), "max_examples": 2}
    eval_binary.evaluate(step=2, output_dir=str(tmp_path / "out"), **given, max_dev_examples=0)
    other = results(tmp_path / "out", "results.json")
    own = results(whole / "eval" / "step_2")
    assert own["weights"] == other["weights"]
    for name, figures in other["datasets"].items():
        for key in ("mean", "std", "random", "majority", "label", "mean_per_token"):
            assert own["datasets"][name].get(key) == figures.get(key), (name, key)
    line = lines(whole)[1]
    means = {name: figures["mean"] for name, figures in other["datasets"].items()}
    assert line["dev_score"] == {"held out/rte": means["rte"], "seen/sst2": means["sst2"]}
    clusters = {name: figures["mean"] for name, figures in other["clusters"].items()}
    assert line["dev_score_cluster"] == {"held out/nli": clusters["nli"], "seen/sentiment": clusters["sentiment"]}


def test_the_loss_is_a_naive_sum_with_the_models_logits(whole, prepared):
    """Each prompt counts as much as any other, where the run weighs its targets per example."""
    found = naive(whole, prepared, "rte")
    wanted = np.mean([np.mean(one) for one in found])
    line = lines(whole)[1]
    assert line["dev_loss"]["held out/rte"] == pytest.approx(wanted, rel=1e-5)
    assert line["dev_loss_cluster"]["held out/nli"] == line["dev_loss"]["held out/rte"]
    written = results(whole / "eval" / "step_2")["dev_loss"]
    assert (written["loss_averaging"], written["unit"]) == ("per_example", "nats a target token")
    assert written["datasets"]["rte"]["target_tokens"] == sum(map(len, found))
    assert written["datasets"]["rte"]["status"] == written["clusters"]["nli"]["status"] == "held out"


def test_the_loss_per_token_in_other_batches_and_without_options(prepared, tmp_path):
    """And of a dataset that has no options, where nothing is generated; two clusters have a loss each."""
    given = {"feature_lengths": LONG, "mesh_shape": {"data": 8}, "batch_size": 16, "microbatches": 2}
    own = {"datasets": ("rte", "natural_questions"), "generate": False}
    train(tmp_path, prepared, 2, evaluation=hook(prepared, **own), checkpoint_period=2, **given)
    line = lines(tmp_path)[1]
    for name in ("rte", "natural_questions"):
        wanted = np.mean(np.concatenate(naive(tmp_path, prepared, name)))
        assert line["dev_loss"][f"held out/{name}"] == pytest.approx(wanted, rel=1e-5)
    assert line["dev_score"].keys() == {"held out/rte"}
    assert line["dev_loss_cluster"].keys() == {"held out/nli", "held out/closed_book_qa"}


def test_answers_are_no_longer_than_asked(prepared, tmp_path):
    own = {"datasets": ("natural_questions",), "max_new_tokens": 3}
    train(tmp_path, prepared, 2, evaluation=hook(prepared, **own), feature_lengths=LONG)
    folder = tmp_path / "eval" / "step_2"
    assert results(folder)["settings"]["max_new_tokens"] == 3
    found = [json.loads(x) for path in folder.rglob("dev_t*.jsonl") for x in path.read_text().splitlines()]
    answers = [line["prediction"] for line in found if "prediction" in line]
    assert answers and all(len(answer.encode()) <= 3 for answer in answers)  # of this vocabulary a token is a byte


def naive(folder, prepared, name):
    """Nats of each target, prompt by prompt, without rows, masks or segments: prompt EOS answer EOS."""
    model, params, tokenizer, _ = arrays.load_model(str(folder), step=2)
    assert (tokenizer.bos_id, tokenizer.kind) == (None, "bytes")
    builder = ExampleBuilder(catalog.dataset(name), parse(STYLE))
    rows = KEPT if name == "rte" else [(r["id"], r["fields"]) for r in example_files.read(prepared, name, "dev")]
    losses = []
    for identity, fields in rows:
        for number in builder.protocol.forward:
            example = builder.build(identity, fields, number)
            inputs, targets = (list(ids) for ids in tokenizer.encode([example.inputs, example.targets]))
            first = len(inputs) + 1
            tokens = np.array([[*inputs, tokenizer.eos_id, *targets, tokenizer.eos_id]])
            tokens = np.pad(tokens, ((0, 0), (0, 400 - tokens.size)))  # one program; what comes after is not seen
            hidden = model.hidden(params, tokens, np.arange(400)[None], np.ones_like(tokens))
            logits = np.asarray(model.logits(params, hidden), np.float64)[0]
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            losses.append([-log_p[at - 1, tokens[0, at]] for at in range(first, first + len(targets) + 1)])
    return losses


def test_what_does_not_fit_a_row_is_left_out_and_said(whole, prepared, capfd):
    context = started(whole, hook(prepared), slots=64)
    assert "dev loss of rte: 4 of 4 prompts are left out" in capfd.readouterr().out
    assert "held out/rte" not in context.later["dev_loss"] and "held out/rte" in context.later["dev_score"]


def test_eval_takes_what_is_there(whole, prepared, tmp_path):
    """With STEP="follow" its predictions on dev are used again, but where dev examples here are test examples too."""
    shutil.copytree(whole / "eval", tmp_path / "eval")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "eval").rglob("dev_*.jsonl")}
    given = {"prepared_dir": str(prepared), "datasets": ("rte", "sst2"), "max_examples": 2, "max_dev_examples": 2}
    given |= {"allow_seen": True, "step": "follow", "style": (STYLE,)}
    eval_binary.evaluate(checkpoint_path=str(whole), output_dir=str(tmp_path / "eval"), **given)
    anew = [path for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert len(before) == 6 and {path.parent.name for path in anew} == {"rte"}
    assert (tmp_path / "eval" / "report.html").is_file()


# ----------------------------------------------------------------------------------------------------- within a run


def test_a_resumed_run_is_evaluated_at_the_same_steps(whole, prepared, tmp_path):
    more = {"feature_lengths": LONG, "loss_averaging": "per_example"}
    for steps in (3, 4):
        train(tmp_path, prepared, steps, evaluation=hook(prepared), checkpoint_period=1, **more)
    for name in during_training.FIGURES:
        assert [line.get(name) for line in lines(tmp_path)] == [line.get(name) for line in lines(whole)]
    assert results(tmp_path / "eval" / "step_4")["weights"] == results(whole / "eval" / "step_4")["weights"]


def test_evaluating_changes_nothing_and_takes_no_time_of_steps(whole, prepared, tmp_path):
    class Slow:
        def pauses(self, context, step):
            return step == 2

        def after_step(self, context, step, values):
            if step == 2:
                time.sleep(4)

    train(tmp_path, prepared, 4, hooks=[Slow()], feature_lengths=LONG, loss_averaging="per_example")
    same = ("loss", "parameter_norm", "gradient_norm")
    assert [[x[n] for n in same] for x in lines(tmp_path)] == [[x[n] for n in same] for x in lines(whole)]
    assert lines(tmp_path)[2]["seconds"] < 4


def test_a_run_that_is_told_to_end_breaks_off_and_saves(prepared, tmp_path, capfd):
    """As at SIGTERM: `context.ending` is what the preemption hook puts there."""

    class Told:
        def after_step(self, context, step, values):
            if step == 2:
                context.ending = lambda: True
                context.stop("told", 75)

    found = train(tmp_path, prepared, 4, hooks=[Told()], evaluation=hook(prepared), feature_lengths=LONG)
    assert (found.step, found.status) == (2, 75)
    assert choosing.steps(tmp_path) == [2] and not set(during_training.FIGURES) & set(lines(tmp_path)[1])
    assert "was broken off in its loss, as the run is told to end" in capfd.readouterr().out


def started(folder, made, slots=384, first_step=0):
    """The context of a run that is there, after the `start` of a hook."""
    run = Run.load(folder)
    mesh = partitioning.make_mesh(**run.mesh)
    network = models.build(run.program.config)
    stream = dataclasses.make_dataclass("Stream", ["parts", "layout"])(
        ("sst2",), DecoderLayout(slots, 64, None, ByteTokenizer().eos_id)
    )
    context = Context(run, folder, network, mesh, stream, first_step)
    made.start(context)
    return context


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"period": 5}, "EVAL_PERIOD 5 is more than TRAIN_STEPS 4"),
        ({"prepared": "nothing", "datasets": None}, "EVAL_PERIOD: .* cannot be evaluated: .*; [0-9]+ more of"),
        ({"datasets": ("rte", "cb")}, "EVAL_PERIOD: cb cannot be evaluated: .*cb"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(whole, prepared, given, says):
    with pytest.raises(FlanError, match=says) as caught:
        started(whole, hook(**({"prepared": prepared} | given)))
    assert "\n" not in str(caught.value)


def test_no_dev_examples_at_all_are_refused(prepared):
    with pytest.raises(FlanError, match="MAX_DEV_EXAMPLES 0: during training dev examples alone are evaluated"):
        hook(prepared, max_dev_examples=0)
    assert hook(prepared, period=None, max_dev_examples=0) is None


def test_the_place_and_the_names_have_to_be_free(whole, prepared, tmp_path):
    run = Run.load(whole)
    context = Context(run, tmp_path, models.build(run.program.config), partitioning.make_mesh(**run.mesh), None, 0)
    (tmp_path / "eval").write_text("")
    with pytest.raises(FlanError, match="eval is no folder"):
        hook(prepared).start(context)
    with pytest.raises(FlanError, match="HOOKS writes the figure 'dev_loss'.*take another name"):
        hook(prepared).after_step(context, 1, {"loss": 1.0, "dev_loss": 3.0})


def test_by_macros_all_that_is_held_out(prepared, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.gin").write_text(
        "".join(f"DecoderConfig.{name} = {value!r}\n" for name, value in SMALL.to_dict().items())
    )
    values = {"MODEL_DIR": "run", "PREPARED_DIR": str(prepared), "MIXTURE_OR_TASK_NAME": "sst2", "TRAIN_STEPS": 2}
    values |= {"BATCH_SIZE": 8, "TASK_FEATURE_LENGTHS": LONG, "MODEL": "small.gin", "EVAL_PERIOD": 2}
    values |= {"MAX_DEV_EXAMPLES": 1, "STYLE": ("1_templates", "gpt3"), "GENERATE": False}
    given = ["--gin_file=runs/tune.gin", *(f"--gin.{name}={value!r}" for name, value in values.items())]
    train_binary.main(given)
    styles = ("1_templates", "gpt3")
    assert lines(tmp_path / "run")[1]["dev_score"].keys() == {f"held out/{style}/rte" for style in styles}
    for style in styles:
        assert results(tmp_path / "run" / "eval" / style / "step_2")["settings"]["style"] == style
    printed = capfd.readouterr().out
    assert "held out, and not evaluated, as no dev examples are prepared: " in printed
    assert "step 2 evaluated: dev loss: held out/1_templates/rte" in printed
    with pytest.raises(SystemExit):  # a macro of `flan_jax.eval` that says nothing here is not passed over
        train_binary.main([*given, "--gin.MAX_EXAMPLES=5"])
    assert "MAX_EXAMPLES" in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------- keeping the best

KEEP = {"checkpoint_period": 100, "keep_checkpoints": 1, "feature_lengths": LONG}


@pytest.fixture
def measured(monkeypatch):
    """dev_loss of sst2 and rte at each evaluation, in place of what is computed."""

    def gives(*values):
        found = iter(values)

        def evaluated(self, context, step, asked):
            value = next(found)
            return {"dev_loss": {} if value is None else {"seen/sst2": value}, "dev_score": {"seen/sst2": 0.5}}

        monkeypatch.setattr(during_training.Evaluating, "_evaluated", evaluated)

    return gives


def test_the_best_step_is_saved_when_it_is_found_and_survives_a_resume(prepared, tmp_path, measured, capfd):
    best = {"keep_best": {"figure": "dev_loss/seen/sst2"}, "evaluation": hook(prepared, 1)}
    measured(3.0, 2.0, 2.0, None, 2.5)  # a tie goes to the earlier; a step without a finite figure is none
    train(tmp_path, prepared, 5, **best, **KEEP)
    assert choosing.steps(tmp_path) == [2, 5]
    assert "best by dev_loss/seen/sst2, lowest: step 2 (2)" in capfd.readouterr().out
    measured(2.0, 9.0, 1.5, 3.0, 4.0)
    best |= {"keep_best": {"figure": "dev_loss/seen/sst2", "count": 2}}
    train(tmp_path, prepared, 10, **best, **(KEEP | {"checkpoint_period": 3, "keep_every": 9}))
    assert choosing.steps(tmp_path) == [2, 8, 9, 10]


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        ("dev_score/held out/rte", "is of what this run holds out: .*Choose by .*'dev_loss/seen/sst2'"),
        ("dev_loss_cluster/held out/nli", "is of what this run holds out"),
        ("dev_loss/rte", "the evaluation writes no figure 'dev_loss/rte'"),
        ("dev_loss/sst2", "did you mean 'dev_loss/seen/sst2'"),
        ("dev_loss", "the evaluation writes no figure 'dev_loss'"),
        (("dev_score/seen/sst2", "lowest"), "'dev_score/seen/sst2' is better the other way round: write .*'highest'"),
        (("dev_loss/seen/sst2", "highest"), "is better the other way round: write 'best': 'lowest'"),
    ],
)
def test_what_no_step_may_be_chosen_by_ends_before_the_first_step(whole, prepared, figure, says):
    context = started(whole, hook(prepared))
    best = keeping.Best(*([figure] if isinstance(figure, str) else figure))
    with pytest.raises(FlanError, match=f"KEEP_BEST: .*{says}") as caught:
        KeepingBest(best).start(context)
    assert "\n" not in str(caught.value)
    KeepingBest(keeping.Best("dev_score_cluster/seen/sentiment", "highest")).start(context)


def test_steps_of_other_dev_examples_are_not_compared(whole, prepared, capfd):
    """A later start may name more datasets; a figure of other examples or another style has no best step any more."""
    name = "dev_loss/seen/sst2"
    for same in ({}, {"datasets": ("sst2",)}, {"datasets": ("rte", "sst2", "natural_questions")}):
        assert name not in started(whole, hook(prepared, **same), first_step=4).no_choice
    assert not capfd.readouterr().out.count("of other dev examples")
    for other in ({"max_dev_examples": 1}, {"style": ("1_templates",)}):
        context = started(whole, hook(prepared, **other), first_step=4)
        assert "was of other dev examples, or in another style, up to step 4" in context.no_choice[name]
        assert "of other dev examples than up to step 4: " in capfd.readouterr().out
        assert name not in started(whole, hook(prepared, **other)).no_choice  # from step 0 on all is new


def test_a_change_is_remembered(tmp_path):
    for digests, step, wanted in (
        ({"a": "1", "b": "1"}, 0, {}),
        ({"a": "2", "b": "1"}, 4, {"a": 4}),
        ({"a": "2", "c": "1"}, 6, {"a": 4}),
        ({"a": "2", "b": "1", "c": "1"}, 8, {"a": 4}),
        ({"a": "2"}, 0, {}),
    ):
        changes = same_examples.changed(tmp_path, digests, step)
        assert changes == wanted
        same_examples.keep(tmp_path, digests, changes, step)
    (tmp_path / same_examples.FILE).write_text("[1")
    assert same_examples.changed(tmp_path, {"a": "2"}, 4) == {}


def test_a_figure_of_an_evaluation_needs_one(whole):
    context = Context(Run.load(whole), whole, None, None, None, 0)
    with pytest.raises(FlanError, match="KEEP_BEST: 'dev_loss/seen/sst2' .* and there is none: give EVAL_PERIOD"):
        KeepingBest(keeping.Best("dev_loss/seen/sst2")).start(context)


@pytest.mark.parametrize("log", [None, "", "{'step': 2, ", '{"step": 4, "loss": 1.0}\n'])
def test_no_best_step_is_lost_with_the_log(whole, tmp_path, log):
    """Without the figures of saved steps the best of them would be removed, and nobody would know."""
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    context = Context(Run.load(whole), tmp_path, None, None, None, 4)
    if log is not None:
        (tmp_path / "metrics.jsonl").write_text(log)
    with pytest.raises(
        FlanError, match=r"^KEEP_BEST: .*metrics\.jsonl has no line of step 2.*put the log back"
    ) as caught:
        KeepingBest(keeping.Best("loss")).start(context)
    assert "\n" not in str(caught.value)
    shutil.copy(whole / "metrics.jsonl", tmp_path)
    KeepingBest(keeping.Best("loss")).start(context)


def test_a_model_of_unknown_history_chooses_by_what_the_run_is_tuned_on(whole):
    manifest = Manifest.load(whole)
    unknown = dataclasses.replace(manifest, tuning=manifest.tuning | {"status": "unknown"})
    found = [labels.status(catalog.dataset(name), unknown.tuning) for name in ("sst2", "imdb_reviews", "rte")]
    assert found == [labels.SEEN, labels.SEEN, labels.UNKNOWN]
