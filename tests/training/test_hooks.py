"""Hooks: what they are given, what they may ask for, and what becomes of their faults."""

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import configuration
from flan_jax.checkpoint import arrays, choosing
from flan_jax.data import token_store
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.training import loop, optimizers
from flan_jax.training.hooks import loading
from flan_jax.training.hooks.calls import Hooks
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.profiling import Profiling
from flan_jax.training.state import Taken

BYTES = ByteTokenizer()
SMALL = dataclasses.replace(
    configuration.model_config("tiny"), num_layers=2, embed_dim=32, head_dim=8, mlp_dim=64, remat="none"
)
LENGTHS = {"inputs": 48, "targets": 16}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    examples = [
        token_store.TokenizedExample(*BYTES.encode([" ".join(rng.choice(["calm", "grey"], 3)), "yes"]), 0, number)
        for number in range(30)
    ]
    info = {"num_records": len(examples), "renderings": 1, "vocab_size": BYTES.vocab_size}
    token_store.write_dataset(token_store.folder_of(folder, BYTES.fingerprint) / "sst2", info, examples)
    return folder


def _train(folder, prepared, hooks, steps=4, **more):
    arguments = {"mixture": "sst2", "model": SMALL, "vocabulary": "bytes", "batch_size": 4, "feature_lengths": LENGTHS}
    arguments |= {
        "optimizer": optimizers.adafactor(1e-2),
        "checkpoint_period": 100,
        "mesh_shape": {"data": 2, "fsdp": 4},
    }
    arguments |= {"batch_size": 8, "train_steps": steps, "hooks": hooks}
    return loop.train(model_dir=str(folder), prepared_dir=str(prepared), **(arguments | more))


def _metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _params(folder, step=None):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(arrays.load_model(folder, step=step)[1])]


class Recorder:
    """Writes down its calls, pauses at step 2, asks for a save at step 3 and stops at step 5."""

    def __init__(self):
        self.calls, self.states = [], {}

    def start(self, context):
        self.calls.append(("start", context.first_step))
        self.axes = context.network.logical_axes()

    def measure(self, taken):
        largest = jax.tree.reduce(jnp.maximum, jax.tree.map(lambda g: jnp.max(jnp.abs(g)), taken.gradients))
        squares = sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(taken.gradients))
        return {"largest": largest, "norm": jnp.sqrt(squares), "loss": taken.loss, "step": taken.step}

    def pauses(self, context, step):
        return step == 2

    def after_step(self, context, step, values):
        self.calls.append(("after_step", step))
        assert set(context.measured) == {"largest", "norm", "loss", "step"} and context.measured["step"] == step - 1
        np.testing.assert_allclose(context.measured["norm"], values["gradient_norm"], rtol=1e-5)
        np.testing.assert_allclose(context.measured["loss"], values["loss"], rtol=1e-5)
        context.write("largest", {"gradient": context.measured["largest"]})
        with pytest.raises(TypeError):
            values["loss"] = 0.0
        if step == 2:
            self.states[step] = [np.asarray(x) for x in jax.tree.leaves(context.state().params)]
            assert int(context.state().step) == 2
        elif not context.paused:
            with pytest.raises(FlanError, match="is gone"):
                context.state()
        if step == 3:
            context.save()
        if step == 5:
            context.stop("enough is enough", status=7)

    def before_save(self, context, step):
        with pytest.raises(FlanError, match="no step's line is open"):
            context.write("late", 1.0)
        self.calls.append(("before_save", step))

    def after_save(self, context, step):
        self.calls.append(("after_save", step))

    def end(self, context):
        assert context.error is None
        self.calls.append(("end", context.step))


@pytest.fixture(scope="module")
def recorded(prepared, tmp_path_factory):
    folder, hook = tmp_path_factory.mktemp("recorded"), Recorder()
    return folder, hook, _train(folder, prepared, [hook], steps=9, keep_checkpoints=9)


def test_hooks_are_called_in_order(recorded):
    _, hook, result = recorded
    steps = [("after_step", step) for step in range(1, 7)]
    saves = {4: [("before_save", 4), ("after_save", 4)], 6: [("before_save", 6), ("after_save", 6)]}
    expected = [("start", 0), *(call for step in steps for call in (step, *saves.get(step[1], [])))]
    assert hook.calls == [*expected, ("end", 6)]
    assert (result.step, result.reason, result.status) == (6, "enough is enough", 7)


def test_a_save_is_of_the_step_that_was_running(recorded):
    folder, _, _ = recorded
    assert choosing.steps(folder) == [4, 6]


def test_what_a_hook_writes_is_logged(recorded):
    folder, _, result = recorded
    lines = _metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(0 < line["largest"]["gradient"] <= line["gradient_norm"] for line in lines)
    assert result.metrics["largest"] == lines[-1]["largest"]


def test_hooks_change_nothing(recorded, prepared, tmp_path):
    """Neither pauses, saves, measures nor a stop change the run; the state of a pause is that of the step."""
    folder, hook, _ = recorded
    _train(tmp_path, prepared, (), steps=6, checkpoint_period=2, keep_checkpoints=9)
    for one, other in zip(_params(folder, 6), _params(tmp_path, 6), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(hook.states[2], _params(tmp_path, 2), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [line["loss"] for line in _metrics(folder)] == [line["loss"] for line in _metrics(tmp_path)]
    assert "skipped" not in _metrics(folder)[0]


class SkipsThird:
    """Takes no update of the third step."""

    def accept(self, taken):
        return taken.step != 2


def test_a_skipped_batch_leaves_the_state(prepared, tmp_path):
    _train(tmp_path, prepared, [SkipsThird()], steps=4, checkpoint_period=1, keep_checkpoints=9)
    of = {step: _params(tmp_path, step) for step in (1, 2, 3, 4)}
    assert all((one == other).all() for one, other in zip(of[2], of[3], strict=True))
    for before, after in ((1, 2), (3, 4)):
        assert any((one != other).any() for one, other in zip(of[before], of[after], strict=True))
    assert [line["skipped"] for line in _metrics(tmp_path)] == [0, 0, 1, 0]


# ----------------------------------------------------------------------------------------------------- faults of hooks


def _failing(method):
    def fail(self, *arguments):
        raise KeyError("what I wanted")

    if method in ("measure", "accept"):
        return type("Broken", (), {method: lambda self, taken: fail(self)})()
    if method == "start" or method == "end":
        return type("Broken", (), {method: lambda self, context: fail(self)})()
    if method == "after_step":
        return type("Broken", (), {method: lambda self, context, step, values: fail(self)})()
    return type("Broken", (), {method: lambda self, context, step: fail(self)})()


def _called(*hooks):
    """A run of one step without a model: (context, hooks)."""
    context = Context(None, Path("nowhere"), None, None, None, 0)
    return context, Hooks(hooks, context)


def _one_step(*hooks):
    """What the loop does with hooks in a step that is saved."""
    context, called = _called(*hooks)
    tree = {"kernel": jnp.ones(3)}
    taken = Taken(jnp.int32(0), jnp.float32(2), jnp.float32(1), tree, tree, tree)
    with called:
        jax.eval_shape(lambda: (called.measure(taken), called.accept(taken)))
        called.pauses(1)
        called.after_step(1, {"loss": 2.0}, {}, None)
        context.tell("before_save", 1)
        context.tell("after_save", 1)


@pytest.mark.parametrize("method", loading.METHODS)
def test_what_a_hook_raises_is_one_line(method):
    with pytest.raises(FlanError) as caught:
        _one_step(_failing(method))
    message = str(caught.value)
    assert f":Broken failed in {method}: KeyError ('what I wanted'), line " in message and "\n" not in message
    assert "test_hooks.py" in message


@pytest.mark.parametrize("raised", [SystemExit(0), SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("method", ["start", "after_step", "end"])
def test_a_hook_cannot_end_the_program_as_if_it_were_done(method, raised):
    def leave(self, *arguments):
        raise raised

    arguments = ["self", "context", "step", "values"][: 1 + loading.METHODS[method]]
    hook = type("Leaves", (), {method: eval(f"lambda {', '.join(arguments)}: leave(self)", {"leave": leave})})()
    with pytest.raises(FlanError, match=f":Leaves failed in {method}: {type(raised).__name__}") as caught:
        _one_step(hook)
    assert "\n" not in str(caught.value)
    assert isinstance(raised, SystemExit) == ("context.stop(reason, status) ends a run" in str(caught.value))


def test_a_method_that_returns_nothing_is_told():
    for method in ("measure", "accept"):
        with pytest.raises(FlanError, match=f"hook .*:Silent: {method} gave None: it has to return") as caught:
            _one_step(type("Silent", (), {method: lambda self, taken: None})())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["start", "pauses", "before_save", "after_save", "end"])
def test_a_figure_that_would_be_lost_is_refused(method):
    def late(self, context, *step):
        context.write("late", 1.0)

    parameters = {"start": 1, "end": 1}.get(method, 2)
    call = (lambda self, context: late(self, context)) if parameters == 1 else (lambda self, c, step: late(self, c))
    with pytest.raises(FlanError, match="no step's line is open; figures of a step are written in after_step"):
        _one_step(type("Late", (), {method: call})())


def test_a_reason_to_stop_is_one_line():
    context, _ = _called()
    context.stop("first\n second")
    assert context.stopped.reason == "first second"


def test_ctrl_c_in_a_hook_is_ctrl_c():
    class Waits:
        def after_step(self, context, step, values):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _one_step(Waits())


class Bad:
    """Gives or writes what none may."""

    def __init__(self, measured=None, accepted=None, name="mine", value=1.0):
        self.name, self.value, self.measured = name, value, measured
        if accepted is not None:
            self.accept = lambda taken: accepted
        if measured is not None:
            self.measure = lambda taken: measured

    def after_step(self, context, step, values):
        context.write(self.name, self.value)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"name": "loss"}, "give a name that the step's figures do not have"),
        ({"name": ""}, "give a name"),
        ({"name": 5}, "give a name"),
        ({"name": "step"}, "give a name"),
        ({"value": "text"}, "has to be a number"),
        ({"value": None}, "has to be a number"),
        ({"value": True}, "has to be a number"),
        ({"value": np.ones(2)}, "has to be a number"),
        ({"value": {"a": [1]}}, "has to be a number"),
        ({"value": float("nan")}, "has to be finite"),
        ({"value": {"a": np.float32("inf")}}, "mine/a is inf"),
        ({"measured": [1]}, "measure gave [1]: it has to return a dictionary"),
        ({"measured": {"a": "text"}}, "failed in measure: TypeError"),
        ({"accepted": "no"}, "it has to return one True or False"),
        ({"accepted": np.ones(3)}, "it has to return one True or False"),
    ],
)
def test_what_a_hook_gives_is_checked(bad, says):
    with pytest.raises(FlanError, match=re.escape(says)) as caught:
        _one_step(Bad(**bad))
    assert "test_hooks:Bad" in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_is_told_to_end_and_not_hidden_by_it():
    told = []

    class Last:
        def end(self, context):
            told.append(context.error)
            raise RuntimeError("one more")

    with pytest.raises(FlanError, match="failed in after_step"):
        _one_step(Last(), _failing("after_step"))
    assert len(told) == 1 and isinstance(told[0], FlanError)


# -------------------------------------------------------------------------------------------------------- by their name

MODULE = """
raised = {raised}
class Hook:
    def __init__(self, every=1):
        self.every = every
    def after_step(self, context, step, values):
        pass
class Nothing:
    def other(self): pass
class Misspelt:
    def start(self, context): pass
    def after_steps(self, context, step, values): pass
class Takes:
    def after_step(self, step): pass
class Breaks:
    def __init__(self): raise OSError("no luck")
class Leaves:
    def __init__(self): raise SystemExit
class Later:
    async def after_step(self, context, step, values): pass
class Yields:
    def start(self, context): yield
class Property:
    @property
    def after_step(self): raise OSError("no luck")
class Other:
    def start(self, context): pass
    @property
    def folder(self): return self._folder
    @property
    def size(self): raise ValueError("not started")
text = "text"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hooks_of_mine.py").write_text(MODULE.format(raised=1))
    (tmp_path / "breaks_of_mine.py").write_text(MODULE.format(raised="1 / 0"))
    (tmp_path / "needs_of_mine.py").write_text("import no_such_module_here\n")
    (tmp_path / "typo_of_mine.py").write_text("def broken(:\n")
    (tmp_path / "script_of_mine.py").write_text("import sys\nsys.exit(0)\n")


def test_hooks_by_name(module):
    first, second = loading.load(["hooks_of_mine:Hook", " hooks_of_mine:Hook( every = 3 ) "])
    assert (first.every, second.every) == (1, 3)
    loading.load(["hooks_of_mine:Other"])  # a property of its own that is not there yet


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hooks_of_min:Hook", "is not on Python's path"),
        ("hooks_of_mine:Hok", "did you mean 'Hook'"),
        ("hooks_of_mine", "write 'module:Name'"),
        ("hooks_of_mine:Hook(3)", "named arguments"),
        ("hooks_of_mine:Hook(every=open('x'))", "cannot be read"),
        ("hooks_of_mine:Hook(every=3", "cannot be read"),
        ("hooks_of_mine:Hook(often=3)", "does not take these arguments"),
        ("hooks_of_mine:Hook.x", "is neither a name"),
        ("hooks_of_mine:text", "no class or function"),
        ("hooks_of_mine:Nothing", "none of a hook's methods"),
        ("hooks_of_mine:Misspelt", "did you mean 'after_step'"),
        ("hooks_of_mine:Takes", r"after_step has to take \(context, step, values\)"),
        ("hooks_of_mine:Breaks", r"making it failed \(OSError: no luck\)"),
        ("breaks_of_mine:Hook", "importing it failed .ZeroDivisionError"),
        ("needs_of_mine:Hook", "a module 'no_such_module_here', which it imports,"),
        ("typo_of_mine:Hook", "importing it failed .SyntaxError"),
        ("script_of_mine:Hook", r"importing it failed \(SystemExit: 0\)"),
        ("hooks_of_mine:Leaves", r"making it failed \(SystemExit\)"),
        ("hooks_of_mine:Later", "after_step is called and not awaited: make it a plain one"),
        ("hooks_of_mine:Yields", "start is called and not awaited: make it a plain one"),
        ("hooks_of_mine:Property", r"reading after_step failed \(OSError: no luck\)"),
        ("../hooks:Hook", "write 'module:Name'"),
        ("os:getcwd", "none of a hook's methods"),
        ("my_hooks.py:Hook", "named without its ending: 'my_hooks'"),
    ],
)
def test_hooks_that_are_none(module, text, says):
    with pytest.raises(FlanError, match=says) as caught:
        loading.load([text])
    assert "\n" not in str(caught.value)


class Rough:
    """Does something to what it is given."""

    def __init__(self, method, does):
        self._does = does
        setattr(self, method, self._called)

    def _called(self, context, step=None, values=None):
        self._does(context, step, values)

    def pauses(self, context, step):
        return step == 2


def _zeroed(context, step, values):
    """Changes everything that is a dictionary."""
    if step == 2:
        state = context.state()
        state.params["decoder"] = jax.tree.map(jnp.zeros_like, state.params["decoder"])
        state.params.popitem()
    values["cluster_loss"].clear()


def test_a_hook_cannot_change_the_run_by_what_it_is_given(recorded, prepared, tmp_path):
    class Measures(Rough):
        def measure(self, taken):
            taken.params.clear()
            taken.gradients.clear()
            return {"loss": taken.loss}

        def accept(self, taken):
            assert taken.params and taken.gradients
            taken.params.clear()
            return True

    _train(tmp_path / "run", prepared, [Measures("after_step", _zeroed)], steps=4)
    for mine, plain in zip(_params(tmp_path / "run"), _params(recorded[0], 4), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-6, atol=1e-7)
    assert all(line["cluster_loss"] for line in _metrics(tmp_path / "run"))


def _delete(tree):
    for leaf in jax.tree.leaves(tree):
        leaf.delete()


@pytest.mark.parametrize(
    ("method", "does", "says"),
    [
        ("after_step", lambda c, s, v: c.paused and _delete(c.state().params), "after_step has deleted or donated"),
        ("after_step", lambda c, s, v: s == 2 and _delete(c.held()), "after_step has deleted or donated"),
        ("before_save", lambda c, s, v: _delete(c.state().opt_state), "before_save has deleted or donated"),
        ("after_step", lambda c, s, v: os.chdir("/"), "after_step changed the working folder to /, to which"),
        ("after_step", lambda c, s, v: c.write("loss_of", 10**400), "the value has to be a number"),
        ("after_step", lambda c, s, v: c.write("dataset_loss/sst2", 1), "a figure of several names already"),
        ("start", lambda c, s, v: setattr(c, "folder", None), "context.folder can be read, and not set"),
        ("start", lambda c, s, v: setattr(c, "primary", False), "context.primary can be read, and not set"),
    ],
)
def test_a_hook_that_breaks_the_run_ends_it_in_one_line(prepared, tmp_path, monkeypatch, method, does, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FlanError, match=says) as caught:
        _train("run", prepared, [Rough(method, does)], steps=2)
    assert str(caught.value).startswith("hook test_hooks:Rough: ") and "\n" not in str(caught.value)
    assert Path.cwd() == tmp_path


def test_a_module_that_changes_the_working_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "moves_away.py").write_text("import os\nos.chdir('/')\nclass Hook: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FlanError, match="importing it changed the working folder to /, .*leave os.chdir out"):
        loading.load(["moves_away:Hook"])
    assert Path.cwd() == tmp_path


def test_a_profile_beside_tensorflow_or_another_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", sys)  # whether it is imported is all that is asked

    def taken(folder):
        raise RuntimeError("Only one profile may be run at a time.")

    monkeypatch.setattr(jax.profiler, "start_trace", taken)
    context = types.SimpleNamespace(primary=True, folder=tmp_path, first_step=0)
    with pytest.raises(FlanError, match="PROFILE: Only one profile may be run at a time; does a hook profile too"):
        Profiling((1, 2)).start(context)
    assert "step 1: PROFILE: TensorFlow is in this process too" in capsys.readouterr().out


def test_the_hook_of_the_documentation(prepared, tmp_path):
    """One new file and one line, as docs/hooks.md has them."""
    text = (DOCS / "hooks.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "gradient_norms.py").write_text(code)
    fields = "\n".join(f"DecoderConfig.{name} = {value!r}" for name, value in SMALL.to_dict().items())
    (tmp_path / "small.gin").write_text(fields)
    assert "HOOKS=\"'gradient_norms:GradientNorms(every=100)'\"" in text
    values = {"MODEL_DIR": "run", "PREPARED_DIR": str(prepared), "MIXTURE_OR_TASK_NAME": "sst2", "TRAIN_STEPS": 4}
    values |= {"BATCH_SIZE": 8, "TASK_FEATURE_LENGTHS": LENGTHS, "HOOKS": "gradient_norms:GradientNorms(every=2)"}
    values |= {"PROFILE": (2, 3), "MODEL": "small.gin"}
    # In a process of its own: JAX's profiler may end one that has TensorFlow too, as this one may.
    command = [sys.executable, "-m", "flan_jax.train", "--gin_file=runs/tune.gin"]
    command += [f"--gin.{name}={value!r}" for name, value in values.items()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = _metrics(tmp_path / "run")
    assert ["gradient_norm_by_layer" in line for line in lines] == [False, True, False, True]
    norms = lines[-1]["gradient_norm_by_layer"]
    assert [f"decoder/layers/{i}" for i in range(SMALL.num_layers)] == [name for name in norms if "/layers/" in name]
    np.testing.assert_allclose(sum(x**2 for x in norms.values()) ** 0.5, lines[-1]["gradient_norm"], rtol=1e-5)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
