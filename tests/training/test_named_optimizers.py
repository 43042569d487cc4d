"""Optimizers by name beside optax alone and T5X's formulas in NumPy, and what run files make of them."""

import dataclasses
import importlib
import inspect
import json

import gin
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax import configuration, macros, partitioning, precompile
from flan_jax.errors import FlanError
from flan_jax.training import configurables, optimizers
from flan_jax.training.described import describe
from flan_jax.training.optimizers import named

AXES = {
    "decoder": {
        "token_embedder": {"embedding": ("vocab", "embed")},
        "layers": {"mlp": {"wo": {"kernel": ("layers", "mlp", "embed")}}, "norm": {"scale": ("layers", "embed")}},
        "logits_dense": {"kernel": ("embed", "vocab")},
        "temperature": {"value": ()},  # a scalar, as a user's model may have one
    }
}
SHAPES = {"vocab": 160, "embed": 130, "mlp": 150, "layers": 2}  # wide enough for statistics to be factored


def _tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)

    def of(axes):
        return jnp.asarray(scale * rng.normal(size=[SHAPES[name] for name in axes]), jnp.float32)

    return jax.tree.map(of, AXES, is_leaf=lambda x: isinstance(x, tuple))


def _after(tx, steps=4):
    """Parameters after some steps, gradients differing in size."""
    params = _tree(0, 0.1)
    state = tx.init(params)
    for step in range(steps):  # without jit: what is compiled is single operations, which all optimizers share
        updates, state = tx.update(_tree(step + 1, 10.0 ** (step - 1)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def _same(found, expected, **close):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, err_msg=jax.tree_util.keystr(path), **close)


def _decays(params):
    """The default mask, written out."""
    no = {"embedding": False, "scale": False}
    return jax.tree_util.tree_map_with_path(lambda path, _: no.get(path[-1].key, True), params)


# ------------------------------------------------------------------------------------------------ beside optax alone


RATE = optax.warmup_constant_schedule(1e-2 / 3, 1e-2, 3)
BESIDE_OPTAX = {
    "adamw": (
        optimizers.adamw(1e-2, 3, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.3, nesterov=True),
        optax.adamw(RATE, 0.8, 0.95, 1e-6, weight_decay=0.3, mask=_decays, nesterov=True),
    ),
    "adamw in bfloat16": (
        optimizers.adamw(1e-2, momentum_dtype="bfloat16"),
        optax.adamw(1e-2, weight_decay=0.0, mu_dtype=jnp.bfloat16),
    ),
    "lion": (
        optimizers.lion(1e-3, b1=0.8, b2=0.9, weight_decay=0.5, no_decay=()),
        optax.lion(1e-3, 0.8, 0.9, weight_decay=0.5),
    ),
    "sgd": (optimizers.sgd(1e-2, momentum=0.9, nesterov=True), optax.sgd(1e-2, 0.9, True)),
    "sgd that decays": (
        optimizers.sgd(1e-2, 3, momentum=0.9, weight_decay=0.2),
        optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.2, _decays), optax.scale_by_learning_rate(RATE)),
    ),
    "adabelief": (
        optimizers.factory("optax:adabelief(eps=1e-8)", 1e-2, 3),
        optax.adabelief(RATE, eps=1e-8),
    ),
    "adamw by its module, which decays by itself": (
        optimizers.factory("optax:adamw", 1e-2),
        optax.adamw(1e-2, weight_decay=0.0),
    ),
    "a rate in brackets is the highest": (
        optimizers.factory("optax:adam(learning_rate=0.01)", 1.0, 3),
        optax.adam(RATE),
    ),
    "decay in brackets": (
        optimizers.factory("optax:adamw(weight_decay=0.3)", 1e-2),
        optax.adamw(1e-2, weight_decay=0.3, mask=_decays),
    ),
    "a mask of another name": (
        optimizers.factory("optax:adadelta(rho=0.8)", 1e-2, weight_decay=0.3),
        optax.adadelta(1e-2, 0.8, weight_decay=0.3, weight_decay_mask=_decays),
    ),
    "decay without a mask": (
        optimizers.factory("optax.contrib:madgrad", 1e-2, weight_decay=0.3, no_decay=()),
        optax.contrib.madgrad(1e-2, weight_decay=0.3),
    ),
    "adamw by its module": (
        optimizers.factory("optax:adamw(b2=0.9)", 1e-2, weight_decay=0.3),
        optax.adamw(1e-2, b2=0.9, weight_decay=0.3, mask=_decays),
    ),
}


@pytest.mark.parametrize("name", BESIDE_OPTAX)
def test_steps_are_those_of_optax_alone(name):
    ours, theirs = BESIDE_OPTAX[name]
    found, _ = _after(optimizers.for_parameters(ours, AXES))
    expected, _ = _after(theirs)
    _same(found, expected, rtol=1e-6, atol=2e-7)


STACKED = {"wo": ("layers", "mlp", "embed"), "query": ("layers", "embed", "heads", "kv"), "norm": ("layers", "embed")}
SIZES = {"layers": 2, "mlp": 9, "embed": 8, "heads": 2, "kv": 4}


@pytest.mark.parametrize("name", ["lars", "muon", "adabelief"])
def test_layers_that_are_stacked_take_the_steps_of_each_alone(name):
    """LARS asks for the norm of a parameter, Muon for a matrix; beside them one that asks for neither."""
    module = "optax.contrib" if name == "muon" else "optax"
    ours = optimizers.factory(f"{module}:{name}", 1e-2)
    theirs = getattr(importlib.import_module(module), name)(1e-2)
    rng, layers = np.random.default_rng(0), range(SIZES["layers"])
    trees = [{k: jnp.asarray(rng.normal(size=[SIZES[a] for a in axes])) for k, axes in STACKED.items()} for _ in "123"]
    apart = [
        {f"{k}{i}": x[i].reshape(SIZES["embed"], -1) if k == "query" else x[i] for k, x in tree.items() for i in layers}
        for tree in trees
    ]
    found, expected = trees[0], apart[0]
    tx = optimizers.for_parameters(ours, STACKED)
    state, of_theirs = tx.init(found), theirs.init(expected)
    for gradient, alone in zip(trees[1:], apart[1:], strict=True):
        updates, state = tx.update(gradient, state, found)
        found = optax.apply_updates(found, updates)
        updates, of_theirs = theirs.update(alone, of_theirs, expected)
        expected = optax.apply_updates(expected, updates)
    for key, x in expected.items():
        np.testing.assert_allclose(found[key[:-1]][int(key[-1])].reshape(x.shape), x, rtol=1e-5, atol=1e-6, err_msg=key)
    assert ("by_matrix" in ours.description) == (name != "adabelief") and not ours.note
    shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in trees[0].items()}
    optimizers.state_shardings(partitioning.make_mesh(data=2, fsdp=4), ours, shapes, STACKED)


def test_one_whose_steps_for_a_stack_are_others_says_so():
    found = optimizers.factory("optax:sm3(learning_rate=0.01)")
    assert found.note == (
        "OPTIMIZER: 'optax:sm3(learning_rate=0.01)': layers are stacked here, and its step for a stack is another than "
        "for each layer alone."
    )


def test_the_default_is_what_it_was():
    """Same steps bit for bit, same structure of the state, same entry of run.json as before there was anything else."""
    parts = [
        optax.scale_by_factored_rms(epsilon=1e-30),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(optax.warmup_constant_schedule(5e-3, 1e-2, 2), flip_sign=False),
        optimizers.scale_by_parameter_rms(),
        optax.scale(-1),
    ]
    before = optimizers.by_matrix(optax.chain(*parts), AXES)
    tuning = optimizers.Tuning(optimizers.adafactor(1e-2, 2))
    (found, state), (expected, old) = _after(optimizers.for_parameters(tuning, AXES)), _after(before)
    assert jax.tree.structure(state) == jax.tree.structure(old)
    _same((found, state), (expected, old), rtol=0, atol=0)
    assert describe(tuning.made) == {
        "name": "adafactor",
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "parameter_scale": True,
    }


# ------------------------------------------------------------------------------------------- beside T5X's formulas


@dataclasses.dataclass
class T5XAdafactor:
    """One matrix or vector in float64, by the paper's algorithm 4 with T5X's arguments under its names."""

    x: np.ndarray
    factored: bool = True
    decay_rate: float = 0.8
    step_offset: int = 0
    clipping_threshold: float | None = 1.0
    beta1: float | None = None
    weight_decay_rate: float | None = None
    min_dim_size_to_factor: int = 128
    multiply_by_parameter_scale: bool = True
    epsilon2: float = 1e-3

    def __post_init__(self):
        self.x = np.asarray(self.x, np.float64)
        self.step, self.row, self.column, self.v, self.m = 0, 0.0, 0.0, 0.0, 0.0

    def update(self, gradient, rate):
        g = np.asarray(gradient, np.float64)
        decay = 1.0 - (self.step - self.step_offset + 1.0) ** -self.decay_rate
        self.step += 1
        square = g * g + 1e-30
        if self.factored and g.ndim == 2 and min(g.shape) >= self.min_dim_size_to_factor:
            self.row = decay * self.row + (1 - decay) * square.mean(axis=1)
            self.column = decay * self.column + (1 - decay) * square.mean(axis=0)
            u = g / np.sqrt(np.outer(self.row, self.column) / self.row.mean())
        else:
            self.v = decay * self.v + (1 - decay) * square
            u = g / np.sqrt(self.v)
        if self.clipping_threshold is not None:
            u = u / max(1.0, np.sqrt(np.mean(u * u)) / self.clipping_threshold)
        if self.multiply_by_parameter_scale:
            rate = rate * max(np.sqrt(np.mean(self.x**2)), self.epsilon2)
        u = rate * u
        if self.beta1 is not None:
            self.m = self.beta1 * self.m + (1 - self.beta1) * u
            u = self.m
        self.x = (1 - (self.weight_decay_rate or 0.0)) * self.x - u


THEIRS = {
    "momentum": "beta1",
    "parameter_scale": "multiply_by_parameter_scale",
    "least_scale": "epsilon2",
}
ARGUMENTS = [
    {},
    {"momentum": 0.9, "weight_decay_rate": 0.01, "no_decay": ()},
    {"factored": False, "decay_rate": 0.6},
    {"min_dim_size_to_factor": 131, "clipping_threshold": 0.5},
    {"clipping_threshold": None, "parameter_scale": False, "momentum": 0.5},
    {"least_scale": 0.5, "min_dim_size_to_factor": 2},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda given: "-".join(given) or "default")
def test_adafactor_is_t5x_s_with_all_its_arguments(arguments):
    """Matrices are 130 wide and more, so that statistics are factored; layers are matrices of their own."""
    found, state = _after(optimizers.for_parameters(optimizers.adafactor(1e-2, **arguments), AXES), steps=3)
    theirs = {THEIRS.get(name, name): value for name, value in arguments.items() if name != "no_decay"}

    def each(path, x):
        stacked = any(part.key == "layers" for part in path)
        return [T5XAdafactor(one, **theirs) for one in (x if stacked else [x])]

    naive = jax.tree_util.tree_map_with_path(each, _tree(0, 0.1))
    leaves = jax.tree.leaves(naive, is_leaf=lambda x: isinstance(x, list))
    for step in range(3):
        for gradient, ours in zip(jax.tree.leaves(_tree(step + 1, 10.0 ** (step - 1))), leaves, strict=True):
            for layer, one in zip(np.asarray(gradient).reshape(len(ours), *ours[0].x.shape), ours, strict=True):
                one.update(layer, 1e-2)
    for x, ours in zip(jax.tree.leaves(found), leaves, strict=True):
        expected = np.stack([one.x for one in ours]).reshape(x.shape)
        np.testing.assert_allclose(x, expected, rtol=2e-5, atol=2e-6)
    largest = max(x.size for x in jax.tree.leaves(state))
    whole = arguments.get("factored") is False or "momentum" in arguments
    whole |= arguments.get("min_dim_size_to_factor", 0) > 130
    assert (largest >= 130 * 150) == whole


def test_decoupled_decay_of_adafactor_is_times_the_learning_rate_and_spares_tables():
    plain, _ = _after(optimizers.for_parameters(optimizers.adafactor(1e-2), AXES), 1)
    decayed, _ = _after(optimizers.for_parameters(optimizers.adafactor(1e-2, weight_decay=0.5), AXES), 1)
    start = _tree(0, 0.1)
    expected = jax.tree.map(lambda p, x, d: p - 1e-2 * 0.5 * x * d, plain, start, _decays(start))
    _same(decayed, expected, rtol=1e-6, atol=1e-8)


# ----------------------------------------------------------------------------------------------------- by run files


@pytest.fixture(autouse=True)
def fresh_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def _by_gin(*bindings):
    found = precompile.run_file(["runs/tune.gin"], [*bindings])
    return found["optimizer"]


def test_a_run_file_as_it_was_gives_what_it_gave():
    found = describe(_by_gin())
    assert found == {"name": "adafactor", "learning_rate": 3e-5, "warmup_steps": 0, "parameter_scale": True}


@pytest.mark.parametrize(
    ("bindings", "expected"),
    [
        (["OPTIMIZER = 'adamw'"], {"name": "adamw", "learning_rate": 3e-5, "b2": 0.999, "weight_decay": 0.0}),
        (["OPTIMIZER = 'adamw(b2=0.95)'", "adamw.b1 = 0.8"], {"name": "adamw", "b2": 0.95, "b1": 0.8}),
        (["OPTIMIZER = @lion()", "WEIGHT_DECAY = 1"], {"name": "lion", "weight_decay": 1.0}),
        (
            ["OPTIMIZER = 'sgd(momentum=0.9)'", "LEARNING_RATE = 2"],
            {"name": "sgd", "momentum": 0.9, "learning_rate": 2},
        ),
        (["OPTIMIZER = 'optax:adabelief'", "WARMUP_STEPS = 5"], {"name": "optax:adabelief", "warmup_steps": 5}),
        (["adafactor.momentum = 0.9", "CLIP_NORM = 1"], {"name": "adafactor", "momentum": 0.9, "clip_norm": 1.0}),
        (["FROZEN = 'mlp'", "EMA_DECAY = 0.99"], {"frozen": ["mlp"], "ema_decay": 0.99}),
        (
            ["SCHEDULE = 'cosine(end=0.1)'", "TRAIN_STEPS = 70"],
            {"schedule": {"name": "cosine", "end": 0.1, "steps": 70}},
        ),
    ],
)
def test_optimizers_by_run_files(bindings, expected):
    found = describe(_by_gin(*bindings))
    assert {name: found.get(name) for name in expected} == expected
    json.dumps(found)


@pytest.mark.parametrize(
    ("bindings", "says"),
    [
        (["OPTIMIZER = 'adamW'"], "unknown optimizer 'adamW': did you mean 'adamw'"),
        (["OPTIMIZER = 'adamw(b3=1)'"], "does not take these arguments"),
        (["OPTIMIZER = 'adamw(b2=2)'"], "adamw.b2 is 2: it has to be a number of at least 0"),
        (["OPTIMIZER = 'adamw(0.1)'"], "is neither a name nor a name with named arguments"),
        (["OPTIMIZER = 3"], "OPTIMIZER is 3: it has to be a text"),
        (["OPTIMIZER = @model_config"], "OPTIMIZER is @model_config"),
        (["OPTIMIZER = ''"], "OPTIMIZER is ''"),
        (["OPTIMIZER = 'optax:adamv'"], "did you mean 'adam'"),
        (["OPTIMIZER = 'optax:global_norm'"], "does not take these arguments"),
        (["OPTIMIZER = 'optax:EmptyState'"], "gives EmptyState(), which is no optimizer"),
        (["OPTIMIZER = 'math:sqrt'"], "does not take these arguments"),
        (["OPTIMIZER = 'optax:constant_schedule(value=0.1)'"], "has to be an optax.GradientTransformation"),
        (["OPTIMIZER = 'optax:GradientTransformation(init=1, update=2)'"], "it has to be two functions"),
        (["OPTIMIZER = 'no_such_module:make'"], "is not on Python's path"),
        (["OPTIMIZER = 'optax:sgd(learning_rate=\"x\")'"], "OPTIMIZER: tracing a step of it failed"),
        (["OPTIMIZER = 'optax:sgd'", "WEIGHT_DECAY = 0.1"], "takes no weight_decay: leave WEIGHT_DECAY at 0"),
        (
            ["OPTIMIZER = 'optax:sm3'"],
            "takes a number for its learning rate, and no schedule: write learning_rate=3e-05",
        ),
        (["OPTIMIZER = 'optax:sm3(learning_rate=0.1)'", "WARMUP_STEPS = 2"], "write learning_rate=0.1 in its brackets"),
        (["OPTIMIZER = 'optax:polyak_sgd'", "SCHEDULE = 'rsqrt'"], "takes no learning rate that SCHEDULE and WARMUP"),
        (["OPTIMIZER = 'sgd(nesterov=True)'"], "nesterov=True changes a momentum, and there is none"),
        (["LORA = {'targets': 'mpl'}"], "LORA: pattern 'mpl' fits no parameter: did you mean 'mlp'"),
        (["OPTIMIZER = 'optax.contrib:madgrad'", "WEIGHT_DECAY = 0.1"], "takes weight_decay and no mask"),
        (["SCHEDULE = 'cosin'"], "SCHEDULE: unknown schedule 'cosin': did you mean 'cosine'"),
        (["OPTIMIZER = 'lion(b1=0.5)'", "SCHEDULE = 'cos'"], "SCHEDULE: unknown schedule 'cos'"),
        (["OPTIMIZER = 'optax:adamw'", "SCHEDULE = 'cos'"], "SCHEDULE: unknown schedule 'cos'"),
        (["OPTIMIZER = 'adamw(schedule=\"cos\")'"], "OPTIMIZER: 'adamw(schedule=\"cos\")': unknown schedule 'cos'"),
        (["SCHEDULE = 'cosine(start=1)'"], "SCHEDULE: schedule 'cosine' has no argument 'start'"),
        (["SCHEDULE = 'cosine(end=2)'"], "end is 2; it has to be a number of at least 0 and of at most 1"),
        (["SCHEDULE = 'constant(end=0)'"], "it takes none"),
        (["SCHEDULE = 'stable_decay(shape=\"cosin\")'"], "did you mean 'cosine'"),
        (["SCHEDULE = 'cosine'", "WARMUP_STEPS = 30000"], "leaves none of 30000 to fall in"),
        (["WARMUP_STEPS = 30001"], "WARMUP_STEPS 30001 is more than TRAIN_STEPS 30000"),
        (["SCHEDULE = 'stable_decay(decay=0.5)'", "WARMUP_STEPS = 20000"], "are more than all 30000 steps"),
        (["SCHEDULE = 'cosine'", "adafactor.steps = 100"], "ends after 100 steps, before TRAIN_STEPS 30000"),
        (["LEARNING_RATE = 0"], "LEARNING_RATE is 0: it has to be a number above 0"),
        (["LEARNING_RATE = 1e999"], "LEARNING_RATE is inf"),
        (["WEIGHT_DECAY = -0.1"], "WEIGHT_DECAY is -0.1"),
        (["CLIP_NORM = 0"], "CLIP_NORM is 0"),
        (["EMA_DECAY = 1"], "EMA_DECAY is 1"),
        (["FROZEN = ('mlp', 'mlp')"], "one is there twice"),
        (["FROZEN = 5"], "FROZEN is 5"),
        (["FROZEN = ('mpl',)"], "FROZEN: pattern 'mpl' fits no parameter: did you mean 'mlp'"),
        (["FROZEN = ('*',)"], "leaves no parameter to train"),
        (["FROZEN = ('!mlp',)"], "FROZEN: '!mlp' takes out what no pattern before it has chosen: write ('*', '!mlp')"),
        (["FROZEN = ('!mlp', '*')"], "takes out what no pattern before it has chosen"),
        (["PROMPT_LENGTH = 3", "DROPOUT_RATE = 0.1"], "DROPOUT_RATE is 0.1, and a soft prompt is computed once"),
        (
            ["NO_DECAY = ('scal',)", "WEIGHT_DECAY = 0.1"],
            "NO_DECAY: pattern 'scal' fits no parameter: did you mean 'scale'",
        ),
    ],
)
def test_what_is_no_optimizer_ends_in_one_line(bindings, says):
    with pytest.raises(FlanError) as caught:
        _by_gin(*bindings)
    line = str(caught.value).strip()
    assert says in line and "\n" not in line and len(line) < 600
    if says.startswith("SCHEDULE: "):  # whichever optimizer takes it
        assert line.startswith(says)


def test_the_table_of_macros_has_all_arguments():
    for name, function in {**named.OWN, "factory": named.factory, "optimizer": configurables.optimizer}.items():
        arguments = {f"{name}.{argument}" for argument in inspect.signature(function).parameters}
        assert arguments == {known for known in macros.BY_ARGUMENT if known.startswith(f"{name}.")}
    configuration.parse(["runs/tune.gin"], ["MODEL_DIR = 'm'", "PREPARED_DIR = 'p'"])
    assert {"OPTIMIZER", "SCHEDULE", "CLIP_NORM", "FROZEN", "EMA_DECAY"} <= configuration.declared_macros()


def test_a_function_of_the_user_s_own_may_take_the_axes(tmp_path, monkeypatch):
    (tmp_path / "optimizers_of_mine.py").write_text(
        "import optax\ndef make(learning_rate, factor=1.0):\n"
        "    return lambda axes: optax.sgd(lambda count: factor * len(axes) * learning_rate(count))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ours = optimizers.factory("optimizers_of_mine:make(factor=2)", 1e-2)
    found, _ = _after(optimizers.for_parameters(ours, AXES))
    expected, _ = _after(optax.sgd(2e-2))
    _same(found, expected, rtol=1e-6, atol=2e-7)
    other = optimizers.factory("optimizers_of_mine:make(factor=3)", 1e-2)
    assert describe(ours) != describe(other) and describe(ours)["learning_rate"] == 1e-2
