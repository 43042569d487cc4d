"""Damage to the newest step: one line that names it and the step that could be taken, or the right numbers."""

import functools
import gc
import json
import shutil

import jax
import numpy as np
import pytest

from flan_jax import convert, infer, models, partitioning
from flan_jax import eval as eval_binary
from flan_jax.checkpoint import arrays, choosing, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.formats import native
from flan_jax.formats.source import tree_of
from flan_jax.training import optimizers
from flan_jax.training.state import abstract_state, state_shardings

SMALL = models.DecoderConfig(
    vocab_size=259, num_layers=2, embed_dim=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=48
)
NETWORK, TX = models.build(SMALL), optimizers.adafactor()
MESH = partitioning.make_mesh(devices=jax.devices()[:1])


@functools.cache
def _states():
    """By step, parameters and optimizer's state as numpy.

    The state has random numbers: zeros take so few bytes that they lie within the nodes of what Orbax writes first and
    then merges, and a node that is not read any more may be damaged without harm.
    """
    tx, rng = optimizers.for_parameters(TX, NETWORK.logical_axes()), np.random.default_rng(0)
    init, start = jax.jit(NETWORK.init), jax.jit(tx.init)

    def filled(x):
        return rng.normal(size=x.shape).astype(x.dtype) if np.issubdtype(x.dtype, np.floating) else np.asarray(x)

    found = {step: jax.device_get(((params := init(jax.random.key(step))), start(params))) for step in (3, 12, 20)}
    return {step: (params, jax.tree.map(filled, state)) for step, (params, state) in found.items()}


def _state(step):
    return _states()[step]


@functools.cache
def _targets():
    """What a run asks for when it goes on."""
    abstract, shardings = abstract_state(NETWORK, TX), state_shardings(MESH, NETWORK, TX)
    return (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)


pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture
def collected():
    """Collects what Orbax leaves behind when it refuses, within the test that caused it."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 3 and 12; names with what URLs read otherwise."""
    folder = tmp_path_factory.mktemp("damage") / "a model, 50%25 #1"
    with saving.Saver(folder, keep=2) as saver:
        for step in (3, 12):
            saver.save(step, *_state(step))
    Manifest.create(SMALL, ByteTokenizer(), UNTUNED).save(folder)
    ByteTokenizer().save(folder / "vocabulary")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "a copy, 50%25 #1")


def _load(folder, step=None):
    return {"params": jax.tree.map(np.asarray, arrays.load_model(folder, step, mesh=MESH)[1])}


def _stream(folder, step=None):
    return {"params": tree_of(native.read(folder, step))}


def _resume(folder, step=None):
    chosen = choosing.choose_step(folder) if step is None else step
    _, params, opt_state = arrays.restore_training(folder, *_targets(), chosen)
    return {"params": params, "opt_state": opt_state}


READERS = {"load": _load, "stream": _stream, "resume": _resume}


def _same(found, wanted):
    return all(
        np.array_equal(x, y)
        for name in found
        for x, y in zip(jax.tree.leaves(found[name]), jax.tree.leaves(wanted[name]), strict=True)
    )


def _wanted(step):
    return dict(zip(("params", "opt_state"), _state(step), strict=True))


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << 3
    path.write_bytes(content)


HARM = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "flipped": _flipped,
}


def _files(folder):
    return sorted(path for path in (folder / "checkpoints" / "12").rglob("*") if path.is_file())


def _check(folder, path, harm, reader):
    """Whatever is harmed: the right numbers, or one line that names the step and what to do."""
    before = path.read_bytes()
    HARM[harm](path)
    where = f"{path.relative_to(folder)} {harm}, {reader}"
    try:
        found = READERS[reader](folder)
    except FlanError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 900, where + ": " + text
        assert f"step 12 of {folder} is damaged: " in text and "step 3, which is whole" in text, where + ": " + text
        assert ("ON_DAMAGE='previous'" in text) == (reader == "resume"), text
        damaged = True
    else:
        assert _same(found, _wanted(12)), where
        damaged = False
    path.write_bytes(before)
    return damaged


def _readers(number, item):
    """Of those that read parameters alone, each way goes to one in turn."""
    if item == "digests":
        return tuple(READERS)
    return ("resume",) if item == "opt_state" else ("resume", ("load", "stream")[number % 2])


@pytest.mark.slow
def test_each_file_damaged_in_every_way(copy):
    found = {}
    for at, path in enumerate(_files(copy)):
        name = str(path.relative_to(copy / "checkpoints" / "12"))
        for number, harm in enumerate(HARM, at):
            for reader in _readers(number, name.partition("/")[0]):
                found[name, harm, reader] = _check(copy, path, harm, reader)
    assert {reader for _, _, reader in found} == set(READERS) and len({name for name, *_ in found}) > 15
    # Which other files are still read differs from save to save: some hold only what was merged into others.
    largest = str(_data(copy, 12).relative_to(copy / "checkpoints" / "12"))
    assert all(harmed for (name, *_), harmed in found.items() if name == largest)
    assert all(found["digests/metadata", harm, reader] for harm in HARM for reader in READERS)


def _data(folder, step, item="params"):
    return max((folder / "checkpoints" / str(step) / item).rglob("d/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    ("item", "harm"), [("opt_state", "truncated"), ("opt_state", "missing"), ("params", "empty"), ("params", "flipped")]
)
def test_going_on_from_the_step_before(copy, capsys, item, harm):
    HARM[harm](_data(copy, 12, item))
    assert choosing.choose_step(copy, "previous") == 3
    line = capsys.readouterr().out.strip()
    assert f"step 12 of {copy} is damaged: " in line and "going on from step 3" in line and "\n" not in line
    assert choosing.steps(copy) == [3] and (copy / "damaged" / "12").is_dir()
    assert _same(_resume(copy, 3), _wanted(3))
    with saving.Saver(copy) as saver:
        saver.save(12, *_state(12))
    assert choosing.choose_step(copy, "previous") == 12 and _same(_resume(copy), _wanted(12))
    _data(copy, 12).unlink()
    assert choosing.choose_step(copy, "previous") == 3 and (copy / "damaged" / "12_again").is_dir()


def test_none_is_whole(copy):
    for step in (3, 12):
        _data(copy, step).write_bytes(b"")
    with pytest.raises(FlanError, match="none of the steps there is whole: copy them anew, or start a new run"):
        choosing.choose_step(copy, "previous")
    assert choosing.steps(copy) == [3, 12]
    for reader in READERS.values():
        with pytest.raises(FlanError, match="copy the checkpoint anew; there is no step before it that is whole"):
            reader(copy)


def test_the_step_that_could_be_taken_is_whole_itself(saved, copy, tmp_path):
    with saving.Saver(copy, keep=3) as saver:
        saver.save(20, *_state(20))
    for step in (20, 12):
        _data(copy, step).unlink()
    for reader in READERS.values():
        with pytest.raises(FlanError, match="step 20 of .*, or take step 3, which is whole"):
            reader(copy)
    assert _same(_load(copy, 3), _wanted(3)) and _same(_stream(copy, 3), _wanted(3))


def test_parameters_are_read_though_the_optimizer_s_state_is_damaged(copy):
    shutil.rmtree(copy / "checkpoints" / "12" / "opt_state")
    assert _same(_load(copy), _wanted(12)) and _same(_stream(copy), _wanted(12))
    with pytest.raises(FlanError, match=r"step 12 of .* is damaged: .*, or take step 3, which is whole: ON_DAMAGE="):
        _resume(copy)


@pytest.mark.parametrize("value", ["before", None, 1])
def test_other_ways_are_refused(copy, value):
    with pytest.raises(FlanError, match="ON_DAMAGE is .*: it has to be 'stop' or 'previous'"):
        choosing.choose_step(copy, value)


def test_what_is_no_step(tmp_path):
    folder = tmp_path / "checkpoints"
    assert choosing.choose_step(tmp_path) is None
    folder.mkdir()
    assert choosing.choose_step(tmp_path, "previous") is None
    (folder / "7").write_text("a file")
    for name in ("08", "-3", "9 ", "11.5", "\u0661\u0662", "x", "20.orbax-checkpoint-tmp-1", "+4", "1e3"):
        (folder / name).mkdir()
    assert choosing.steps(tmp_path) == [] and choosing.choose_step(tmp_path) is None
    (tmp_path / "file").write_text("")
    assert choosing.steps(tmp_path / "file") == []


def test_a_newest_step_that_is_empty(copy):
    (copy / "checkpoints" / "20").mkdir()
    with pytest.raises(FlanError, match=r"step 20 of .* is damaged: .*, or take step 12, which is whole"):
        choosing.choose_step(copy)
    with pytest.raises(FlanError, match=r"step 20 of .* is damaged: .*, or take step 12, which is whole"):
        _load(copy)
    assert choosing.choose_step(copy, "previous") == 12


def test_more_than_was_saved_does_no_harm(copy):
    (copy / "checkpoints" / "12" / "params" / "d" / "more").write_bytes(b"x")
    (copy / "checkpoints" / "12" / "notes.txt").write_text("x")
    (copy / "checkpoints" / "12" / "more").mkdir()
    for name, reader in READERS.items():
        assert _same(reader(copy), _wanted(12)), name
    assert choosing.choose_step(copy, "previous") == 12


def _commands(folder, to):
    (to / "items.jsonl").write_text(json.dumps({"id": 1, "prompt": "a", "options": ["b", "c"]}) + "\n")
    items = [f"--items={to / 'items.jsonl'}", f"--output={to / 'out.jsonl'}"]
    return {
        "convert": (convert.main, [f"--from={folder}", f"--to={to / 'converted'}", "--format=huggingface"]),
        "eval": (eval_binary.main, [*items, f"--checkpoint={folder}"]),
        "infer": (infer.main, [f"--checkpoint={folder}", "--prompt=a", "--max_new_tokens=1"]),
    }


@pytest.mark.parametrize("name", ["convert", "eval", "infer"])
def test_commands_say_it_in_one_line_and_take_the_other_step(copy, tmp_path, capsys, name):
    _data(copy, 12).unlink()
    main, arguments = _commands(copy, tmp_path)[name]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert caught.value.code == 2 and len(lines) == 1 and lines[0].startswith("flan_jax: ")
    assert f"step 12 of {copy} is damaged: " in lines[0] and "take step 3, which is whole: give --step=3" in lines[0]
    assert not (tmp_path / "converted").exists() and not (tmp_path / "out.jsonl").exists()
    main([*arguments, "--step=3"])
