import dataclasses
import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from flan_jax import models, partitioning
from flan_jax.checkpoint import arrays, choosing, digests, saved_digests, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.formats import conversion, huggingface, native
from flan_jax.formats.source import tree_of
from flan_jax.training import optimizers
from flan_jax.training.state import abstract_state, state_shardings

SMALL = models.DecoderConfig(
    vocab_size=259, num_layers=2, embed_dim=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=48
)
NETWORK, TX = models.build(SMALL), optimizers.adafactor()
MESH = partitioning.make_mesh(devices=jax.devices()[:1])
DTYPES = (np.float32, jnp.bfloat16, np.float16, np.int32, np.int8, np.uint8, np.bool_)
LAYOUTS = (
    ((), P()),
    ((8,), P(("data", "fsdp"))),
    ((8, 4, 6), P("data", ("fsdp", "tensor"))),
    ((8, 4, 6), P(None, "fsdp", "tensor")),
    ((16, 8), P(("fsdp", "data"), "tensor")),
    ((0, 3), P()),
    ((66_000, 2), P("fsdp")),
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digests") / "converted"
    source = conversion.random(SMALL, "small")
    native.write(source, conversion.manifest_of(source, "untuned", "flan_jax"), folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digests") / "trained"
    mesh = partitioning.make_mesh(2, 2, 2)
    shardings = state_shardings(mesh, NETWORK, TX)
    params = jax.device_put(NETWORK.init(jax.random.key(1)), shardings.params)
    opt_state = jax.jit(optimizers.for_parameters(TX, NETWORK.logical_axes()).init)(params)
    with saving.Saver(folder, keep=2) as saver:
        for step in (1, 2, 5):
            saver.save(
                step, jax.tree.map(lambda x, s=step: x * s, params), jax.device_put(opt_state, shardings.opt_state)
            )
    Manifest.create(SMALL, ByteTokenizer(), UNTUNED).save(folder)
    ByteTokenizer().save(folder / "vocabulary")
    return folder


def _copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def _load(folder):
    return jax.tree.map(np.asarray, arrays.load_model(folder, mesh=MESH)[1])


@functools.cache
def _targets():
    """What a run asks for when it goes on."""
    abstract, shardings = abstract_state(NETWORK, TX), state_shardings(MESH, NETWORK, TX)
    return (abstract.params, abstract.opt_state), (shardings.params, shardings.opt_state)


def _resume(folder):
    return jax.tree.map(np.asarray, arrays.restore_training(folder, *_targets()))


READERS = {"load_model": _load, "restore_training": _resume, "streaming": lambda folder: tree_of(native.read(folder))}


def _flip(path, place, bit=3):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)


def _same(found, wanted):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))


def naive(x):
    """The two sums, element by element in Python's integers."""
    bits, words, two_to_32 = np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}"), [0, 0], 2**32
    bits = bits.reshape(max(len(bits), 1) if x.ndim else 1, -1) if x.size else np.zeros((0, 0), np.uint32)
    for (number, place), word in np.ndenumerate(bits):
        at = (0x27D4EB2F + number * 0x9E3779B1 + place * 0x85EBCA77) % two_to_32
        h = int(word) ^ at
        h = (h ^ h >> 16) * 0x7FEB352D % two_to_32
        h = (h ^ h >> 15) * 0x846CA68B % two_to_32
        h ^= h >> 16
        words = [(words[0] + h) % two_to_32, (words[1] + h * (at | 1)) % two_to_32]
    return f"{words[0]:08x}{words[1]:08x}"


# ------------------------------------------------------------------------------------------------- what a digest is


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_the_same_on_the_host_on_a_device_and_on_any_mesh(dtype):
    rng, mesh = np.random.default_rng(0), partitioning.make_mesh(2, 2, 2)
    tree = {str(i): np.asarray(rng.normal(size=shape) * 50).astype(dtype) for i, (shape, _) in enumerate(LAYOUTS)}
    layouts = {str(i): NamedSharding(mesh, spec) for i, (_, spec) in enumerate(LAYOUTS)}
    wanted = {name: digests.of_array(x) for name, x in tree.items()}
    assert digests.of_tree(tree) == wanted
    assert digests.of_tree(jax.device_put(tree, layouts)) == wanted
    for name in "0124":
        assert wanted[name].checksum == naive(tree[name]), LAYOUTS[int(name)]


def test_64_bits_are_two_words():
    x = np.random.default_rng(0).normal(size=(3, 5))
    pairs = np.ascontiguousarray(x).view(np.uint32)
    assert digests.of_array(x).checksum == digests.of_array(pairs).checksum
    assert digests.of_array(x) != digests.of_array(pairs)


def test_layers_come_in_any_order():
    x = np.random.default_rng(0).normal(size=(5, 70, 1000)).astype(np.float32)
    sums = digests.Sums()
    for layer in (3, 0, 4, 1, 2):
        sums.add_layer(x[layer], layer)
    assert sums.checksum == digests.of_array(x).checksum == digests.of_tree({"x": x})["x"].checksum


def test_no_shard_is_gathered():
    mesh = partitioning.make_mesh(2, 2, 2)
    x = jax.device_put(np.zeros((16, 8), np.float32), NamedSharding(mesh, P("data", ("fsdp", "tensor"))))
    text = digests._program((x.sharding,)).lower([x]).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text and "collective-permute" not in text


@pytest.mark.parametrize("seed", range(3))
def test_every_change_of_one_element_shows(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(7, 9)).astype(np.float32)
    seen = {digests.of_array(x)}
    for place in range(x.size):
        for bit in range(32):
            changed = x.copy()
            changed.view(np.uint32).flat[place] ^= np.uint32(1 << bit)
            seen.add(digests.of_array(changed))
    assert len(seen) == 1 + x.size * 32


def test_places_count_too():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    others = [x[::-1], x[:, ::-1], x[..., ::-1], x.transpose(0, 2, 1), x.reshape(3, 2, 4), x + 0.0, -x, np.roll(x, 1)]
    assert sum(digests.of_array(np.ascontiguousarray(y)) == digests.of_array(x) for y in others) == 1  # x + 0.0
    # Zeros of both signs are equal numbers and other bits; so are the kinds of NaN.
    assert digests.of_array(np.float32([0.0])) != digests.of_array(np.float32([-0.0]))


# ---------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("kind", "readers"), [("converted", ("load_model", "streaming")), ("trained", ("restore_training", "streaming"))]
)
def test_a_flipped_bit_never_loads_other_numbers(kind, readers, request, tmp_path):
    """A bit anywhere in each file of a checkpoint in turn: refused in one line, or what was saved.

    In the middle of each file of a run's step, and for every reader of all of it: `test_damage`.
    """
    folder = request.getfixturevalue(kind)
    last = choosing.steps(folder)[-1]
    copy, wanted = _copy(folder, tmp_path), {reader: READERS[reader](folder) for reader in readers}
    rng, refused = np.random.default_rng(0), 0
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    files = [path for path in files if path.parts[0] != "checkpoints" or path.parts[1] == str(last)]
    for number, path in enumerate(files):
        reader, before = readers[number % 2], (copy / path).read_bytes()
        _flip(copy / path, int(rng.integers(1 << 30)), int(rng.integers(8)))
        try:
            assert _same(READERS[reader](copy), wanted[reader]), path
        except FlanError as error:
            assert "\n" not in str(error) and str(copy) in str(error), (path, error)
            refused += 1
        (copy / path).write_bytes(before)
    # What else was hit is read by nobody, or not by this reader. Orbax names data files anew each time, so it varies.
    assert refused >= 3


def _data_files(folder):
    return sorted(p for p in (folder / "checkpoints").rglob("d/*") if p.is_file() and "params" in p.parts)


@pytest.mark.parametrize("reader", ["load_model", "streaming"])
def test_the_damaged_array_is_named(converted, tmp_path, reader):
    """A bit in the middle of each file of numbers: at commit 789d7e0 all of them loaded other weights."""
    names = saved_digests.read(converted, 0)["params"]
    wanted, named = READERS[reader](converted), set()
    for number, data in enumerate(p for p in _data_files(converted) if p.stat().st_size > 2000):
        copy = _copy(converted, tmp_path)
        _flip(copy / data.relative_to(converted), data.stat().st_size // 2 + 13 * number)
        try:
            assert _same(READERS[reader](copy), wanted), data  # an index that was merged into another one
        except FlanError as error:
            # A bit of an exponent may make a number that is not finite, which the streaming reader sees first.
            found = re.search(
                r"step 0 of .* (?:is damaged: array (\S+) is not what .*copy the checkpoint anew"
                r"|: (\S+): \d+ of \d+ numbers are NaN or infinite; .*)",
                str(error).replace(f"{copy}:", f"{copy} :"),
            )
            named.add(found[1] or found[2] if found else str(error))
        shutil.rmtree(copy)
    assert len(named) >= 6 and named <= set(names)


def test_an_export_of_a_damaged_checkpoint_leaves_nothing(converted, tmp_path):
    copy = _copy(converted, tmp_path)
    path = max(_data_files(copy), key=lambda p: p.stat().st_size)
    _flip(path, path.stat().st_size // 2)
    source = native.read(copy)
    manifest = conversion.manifest_of(source, None, "huggingface")
    with pytest.raises(FlanError, match="is not what was saved"):
        conversion.write(source, tmp_path / "out", manifest, "huggingface")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]


def test_parameters_of_another_step_are_noticed(trained, tmp_path):
    copy = _copy(trained, tmp_path)
    shutil.rmtree(copy / "checkpoints" / "5" / "params")
    shutil.copytree(copy / "checkpoints" / "2" / "params", copy / "checkpoints" / "5" / "params")
    with pytest.raises(FlanError, match=r"step 5 of .*: array .*, and \d+ more of \d+; copy the checkpoint anew"):
        _load(copy)


def _swapped(checkpoints):
    for source, target in (("2", "x"), ("5", "2"), ("x", "5")):
        (checkpoints / source).rename(checkpoints / target)


def _copied_over(checkpoints):
    for item in ("params", "digests"):
        shutil.rmtree(checkpoints / "5" / item)
        shutil.copytree(checkpoints / "2" / item, checkpoints / "5" / item)


def _renamed(checkpoints):
    (checkpoints / "2").rename(checkpoints / "9")


@pytest.mark.parametrize(("change", "step", "saved_as"), [(_swapped, 5, 2), (_copied_over, 5, 2), (_renamed, 9, 2)])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_step_says_of_which_it_is(trained, tmp_path, change, step, saved_as, reader):
    copy = _copy(trained, tmp_path)
    change(copy / "checkpoints")
    with pytest.raises(FlanError, match=rf"checkpoints/{step} holds what was saved as step {saved_as}: it was renamed"):
        reader(copy)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Step 1 of two trainings."""
    folder = tmp_path_factory.mktemp("of_two")
    for number in (1, 2):
        with saving.Saver(folder / str(number), saved_by=f"training {number}") as saver:
            saver.save(1, NETWORK.init(jax.random.key(number)))
        Manifest.create(SMALL, ByteTokenizer(), UNTUNED).save(folder / str(number))
        ByteTokenizer().save(folder / str(number) / "vocabulary")
    return folder


def test_a_step_says_which_training_saved_it(of_two, trained, converted):
    found = [saved_digests.saved_by(of_two / name, 1) for name in ("1", "2")]
    assert found == ["training 1", "training 2"] and set(saved_digests.read(of_two / "1", 1)) == {"params"}
    assert saved_digests.saved_by(trained, 5) is None and saved_digests.saved_by(converted, 0) is None
    assert saved_digests.saved_by(of_two / "1", 7) is None


OF_ONE = r"checkpoints/1/_CHECKPOINT_METADATA {}, and digests/metadata beside it {}; copy the checkpoint anew"


@pytest.mark.parametrize(
    ("items", "metadata", "digests_say"),
    [
        (("params", "digests"), "is of training 'training 1'", "is of training 'training 2'"),
        (("_CHECKPOINT_METADATA",), "is of training 'training 2'", "is of training 'training 1'"),
    ],
)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_step_of_two_trainings_is_refused(of_two, tmp_path, items, metadata, digests_say, reader):
    copy = _copy(of_two / "1", tmp_path)
    for item in items:
        place = copy / "checkpoints" / "1" / item
        if place.is_dir():
            shutil.rmtree(place)
        take = shutil.copytree if (of_two / "2" / "checkpoints" / "1" / item).is_dir() else shutil.copy
        take(of_two / "2" / "checkpoints" / "1" / item, place)
    with pytest.raises(FlanError, match=OF_ONE.format(metadata, digests_say)) as caught:
        reader(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is missing"),
        ("", r"is damaged \(.*\)"),
        ("[]", r"is damaged \(.*\)"),
        ("[" * 100_000, r"is damaged \(.*\)"),
        ('{"custom_metadata": null}', r"is damaged \(custom_metadata is None\)"),
        ('{"custom_metadata": {"digests": true}}', "names no training"),
        ('{"custom_metadata": {"digests": true, "saved_by": 5}}', "is of training 5"),
        ('{"custom_metadata": {"digests": true, "saved_by": "a\\nb"}}', r"is of training 'a\\nb'"),
        ('{"custom_metadata": {"digests": true, "run": "training 1"}}', "names no training"),
    ],
)
def test_a_step_without_its_own_metadata_is_refused(of_two, tmp_path, text, said):
    """It counted as one of an earlier version."""
    copy = _copy(of_two / "1", tmp_path)
    about = copy / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    about.unlink()
    if text is not None:
        about.write_text(text)
    with pytest.raises(FlanError, match=OF_ONE.format(said, "is of training 'training 1'")) as caught:
        saved_digests.saved_by(copy, 1)
    assert "\n" not in str(caught.value)


def test_digests_of_before_beside_metadata_of_now_are_refused(of_two, tmp_path):
    copy = _copy(of_two / "1", tmp_path)
    saved_digests.write(copy, 1, saved_digests.read(copy, 1))
    with pytest.raises(FlanError, match=OF_ONE.format("is of training 'training 1'", "names no training")):
        saved_digests.read(copy, 1)
    about = copy / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    about.write_text('{"custom_metadata": {"digests": true, "run": "5a98d8101aaa392c"}}')  # the step is of before
    assert saved_digests.saved_by(copy, 1) is None
    shutil.rmtree(about.parent / "digests")
    with pytest.raises(FlanError, match="digests/metadata is missing"):
        saved_digests.saved_by(copy, 1)
    about.write_text("{}")
    assert saved_digests.saved_by(copy, 1) is None


@pytest.mark.parametrize("value", [5, [], True])
def test_digests_of_a_training_that_is_none_are_damaged(of_two, tmp_path, value):
    copy = _copy(of_two / "1", tmp_path)
    values = saved_digests.to_dict(1, saved_digests.read(copy, 1), value)
    (copy / "checkpoints" / "1" / "digests" / "metadata").write_text(json.dumps(values))
    with pytest.raises(FlanError, match="digests/metadata is damaged .saved_by is "):
        saved_digests.read(copy, 1)


def test_a_copy_loads_and_old_steps_take_their_digests_along(trained, tmp_path):
    copy = _copy(trained, tmp_path)
    assert _same(_load(copy), _load(trained)) and choosing.steps(trained) == [2, 5]
    assert {p.parts[-2] for p in trained.rglob("digests/metadata")} == {"digests"}
    assert sorted(p.parts[-3] for p in trained.rglob("digests/metadata")) == ["2", "5"]
    for step in (2, 5):
        saved = saved_digests.read(trained, step)
        params = arrays.restore_params(
            trained, NETWORK.abstract_params(), state_shardings(MESH, NETWORK, TX).params, step
        )
        assert saved["params"] == digests.of_tree(params) and set(saved) == {"params", "opt_state"}


def test_converted_and_loaded_digests_agree(converted):
    assert saved_digests.read(converted, 0)["params"] == digests.of_tree(_load(converted))


def test_the_way_through_huggingface_keeps_the_digests(converted, tmp_path):
    huggingface.write(native.read(converted), tmp_path / "theirs")
    source = huggingface.read(tmp_path / "theirs")
    native.write(source, conversion.manifest_of(source, None, "flan_jax"), tmp_path / "ours")
    assert saved_digests.read(tmp_path / "ours", 0) == saved_digests.read(converted, 0)


@pytest.mark.parametrize("reader", ["load_model", "streaming"])
def test_a_checkpoint_of_an_earlier_version_is_loaded_with_a_line(converted, tmp_path, reader, capsys):
    copy = _copy(converted, tmp_path)
    shutil.rmtree(copy / "checkpoints" / "0" / "digests")
    about = copy / "checkpoints" / "0" / "_CHECKPOINT_METADATA"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"custom_metadata": {}}))
    assert _same(READERS[reader](copy), _load(converted))
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "step 0 of" in line and "saved without digests" in line


@pytest.mark.parametrize("reader", ["load_model", "streaming"])
@pytest.mark.parametrize("kind", ["converted", "trained"])
@pytest.mark.parametrize("whole", [True, False], ids=["the folder", "the file"])
def test_missing_digests_are_named(kind, whole, reader, request, tmp_path):
    copy = _copy(request.getfixturevalue(kind), tmp_path)
    folder = copy / "checkpoints" / str(choosing.steps(copy)[-1]) / "digests"
    if whole:
        shutil.rmtree(folder)
    else:
        (folder / "metadata").unlink()
    with pytest.raises(FlanError, match=r"digests/metadata is missing: the arrays cannot be checked"):
        READERS[reader](copy)


def _edited(text, change):
    values = json.loads(text)
    change(values)
    return json.dumps(values)


DAMAGE = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "null": lambda text: "null",
    "list": lambda text: "[]",
    "no sha256": lambda text: _edited(text, lambda v: v.pop("sha256")),
    "a digit": lambda text: text.replace("0", "1", 1),
    "an array": lambda text: _edited(text, lambda v: v["params"].popitem()),
    "all arrays": lambda text: _edited(text, lambda v: v["params"].clear()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_digests_are_named(damage, converted, tmp_path):
    copy = _copy(converted, tmp_path)
    path = copy / "checkpoints" / "0" / "digests" / "metadata"
    path.write_text(DAMAGE[damage](path.read_text()))
    with pytest.raises(FlanError, match=r"digests/metadata is damaged .*copy the checkpoint anew") as caught:
        _load(copy)
    assert "\n" not in str(caught.value)


def test_an_array_without_a_digest_is_named(converted, tmp_path):
    copy = _copy(converted, tmp_path)
    saved = saved_digests.read(copy, 0)
    del saved["params"]["decoder/decoder_norm/scale"]
    (copy / "checkpoints" / "0" / "digests" / "metadata").write_text(json.dumps(saved_digests.to_dict(0, saved)))
    for reader in ("load_model", "streaming"):
        with pytest.raises(FlanError, match=r"_METADATA is damaged \(also has decoder/decoder_norm/scale\)"):
            READERS[reader](copy)


# ----------------------------------------------------------------------------------------- vocabulary and manifest


class _Other(ByteTokenizer):
    def __init__(self):
        super().__init__()
        self.fingerprint = "0" * 64


@pytest.mark.parametrize("reader", ["load_model", "streaming"])
def test_a_vocabulary_of_another_model_is_refused(converted, tmp_path, reader):
    copy = _copy(converted, tmp_path)
    Manifest.create(SMALL, _Other(), UNTUNED).save(copy)
    with pytest.raises(FlanError, match=r"vocabulary is not the vocabulary of .*fingerprint is .*has 0000"):
        READERS[reader](copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["model"].update(rope_theta=10_001.0),
        lambda values: values["tuning"].update(status="tuned"),
        lambda values: values["vocabulary"].update(kind="sentencepiece"),
        lambda values: values.update(separator="eos"),
        lambda values: values["history"].clear(),
    ],
)
def test_a_changed_manifest_is_refused_unless_it_says_so(converted, tmp_path, change):
    copy = _copy(converted, tmp_path)
    path = copy / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(FlanError, match=r"manifest\.json is damaged: .*delete its entry .digest."):
        Manifest.load(copy)
    del values["digest"]
    path.write_text(json.dumps(values))
    assert dataclasses.asdict(Manifest.load(copy))["model"] == values["model"]


# ----------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite_are_not_saved(tmp_path, number):
    params = jax.tree.map(np.array, NETWORK.init(jax.random.key(0)))
    params["decoder"]["decoder_norm"]["scale"][7] = number
    with (
        saving.Saver(tmp_path) as saver,
        pytest.raises(FlanError, match=r"step 3 is not saved: params: 1 of 32 .* decoder/decoder_norm/scale are"),
    ):
        saver.save(3, params)
    assert choosing.steps(tmp_path) == []


@pytest.mark.parametrize(
    ("state", "is_refused"),
    [
        ({"v": np.float32([1, np.nan])}, True),
        ({"v": np.float32([1, np.inf])}, True),
        ({"best": np.float32(np.nan)}, True),
        ({"best": np.float32(np.inf), "count": np.int32(3)}, False),  # where optax's reduce_on_plateau starts
        ({"v": jnp.array([1, jnp.inf], jnp.bfloat16)}, True),
    ],
)
def test_optimizer_states_that_are_not_finite_are_not_saved(tmp_path, state, is_refused):
    with saving.Saver(tmp_path) as saver:
        if is_refused:
            with pytest.raises(FlanError, match="step 1 is not saved: opt_state: 1 of"):
                saver.save(1, {"w": np.ones(3, np.float32)}, state)
        else:
            saver.save(1, {"w": np.ones(3, np.float32)}, state)
    assert choosing.steps(tmp_path) == ([] if is_refused else [1])
