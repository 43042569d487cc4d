"""Every command on a real disk that is full: one line, nothing half-written, and the same command goes on with room.

Sizes are chosen so that the disk fills up at the first file, in the middle, and near the end.
"""

import functools
import json
import os
import resource
import subprocess
import sys

import pytest

from flan_jax import browse, convert, export, report
from flan_jax import contamination as contamination_binary
from flan_jax import eval as eval_binary
from flan_jax import infer as infer_binary
from flan_jax import prepare as prepare_binary
from flan_jax import train as train_binary
from flan_jax.inspection import page as pages

DATASETS = "--datasets=rte,cb"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    convert.convert("tiny", folder, tuning="untuned")
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare_binary.main([DATASETS, f"--to={folder}", "--workers=1"])
    return folder


def _resize(disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def _grow(disk):
    _resize(disk, "100m")


def _fill(disk):
    (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))


def _fails(capfd, main, arguments, disk, says="no space left on device; make room"):
    """The command's one line; nothing that it began stays."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out, err = capfd.readouterr()
    assert stopped.value.code == 2
    lines = [line for line in err.splitlines() if "progress" not in line and "\x1b" not in line]
    ours = [line for line in lines if line.startswith("flan_jax: ")]
    assert len(ours) == 1 and says in ours[0] and str(disk) in ours[0], err
    assert "Traceback" not in out + err and "Error" not in err, err
    left = [p for p in disk.rglob(".*") if not p.name.endswith((".lock", ".config"))] + list(disk.rglob("*tmp*"))
    assert not left, left
    return ours[0]


@pytest.mark.parametrize("kilobytes", [4, 40, 300])
@pytest.mark.parametrize("form", ["flan_jax", "huggingface", "t5x"])
def test_convert(model, make_disk, capfd, form, kilobytes):
    disk = make_disk(kilobytes)
    arguments = [f"--from={model}", f"--to={disk / 'm'}", f"--format={form}"]
    _fails(capfd, convert.main, arguments, disk)
    assert not list(disk.iterdir())
    _grow(disk)
    convert.main(arguments)
    assert (disk / "m" / "manifest.json").is_file()


@pytest.mark.parametrize("kilobytes", [4, 60, 150])
def test_prepare(make_disk, capfd, kilobytes):
    disk = make_disk(kilobytes)
    arguments = [DATASETS, f"--to={disk / 'p'}", "--workers=1", "--json"]
    _fails(capfd, prepare_binary.main, arguments, disk)
    whole = {path: path.stat().st_mtime_ns for path in disk.rglob("info.json")}
    for path in whole:
        json.loads(path.read_text())
    _grow(disk)
    prepare_binary.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole  # what was whole is kept
    assert {p.parent.name for p in disk.rglob("info.json")} == {"rte", "cb"}


@pytest.mark.parametrize("kilobytes", [4, 60])
def test_prepare_s_cache(make_disk, tmp_path, monkeypatch, capfd, kilobytes):
    """A full disk of FLAN_JAX_HOME costs the datasets that are not imported yet; the others are prepared."""
    disk = make_disk(kilobytes)
    monkeypatch.setenv("FLAN_JAX_HOME", str(disk))
    arguments = [DATASETS, f"--to={tmp_path / 'p'}", "--workers=1", "--json"]
    _fails(capfd, prepare_binary.main, arguments, disk)
    assert (tmp_path / "p" / "examples" / "rte").is_dir() == (kilobytes == 60)
    _grow(disk)
    prepare_binary.main(arguments)
    assert {p.parent.name for p in (tmp_path / "p").rglob("info.json")} == {"rte", "cb"}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a user would see a traceback
def test_train(prepared, make_disk, capfd):
    """The same command on a disk that grows: each time it goes on, or says the next thing that stops it."""
    disk = make_disk(4)
    values = {"PREPARED_DIR": str(prepared), "MODEL_DIR": str(disk / "run"), "BATCH_SIZE": 8, "CHECKPOINT_PERIOD": 2}
    values |= {"TRAIN_STEPS": 9, "MIXTURE_OR_TASK_NAME": "flan", "COMPUTATION": {"remat": "none"}}
    values |= {"TASK_FEATURE_LENGTHS": {"inputs": 192, "targets": 64}}
    arguments = ["--gin_file=runs/tune.gin", "--json", *(f"--gin.{name}={value!r}" for name, value in values.items())]
    for kilobytes, says, whole in (
        (4, "no space left on device; make room", []),
        (24, "free, and a checkpoint of this run takes", []),  # found before the first step
        (3000, "no space left on device; make room", [2]),
    ):
        _resize(disk, f"{kilobytes}k")
        line = _fails(capfd, train_binary.main, arguments, disk, says)
        assert sorted(int(path.name) for path in (disk / "run" / "checkpoints").glob("*")) == whole
    assert f"the last whole checkpoint there is of step {whole[-1]}" in line
    steps = [json.loads(text)["step"] for text in (disk / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) < 9
    _grow(disk)
    train_binary.main(arguments)
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["step"] == 9
    assert [json.loads(t)["step"] for t in (disk / "run" / "metrics.jsonl").read_text().splitlines()] == [*range(1, 10)]
    train_binary.main(arguments)  # nothing is left to do, and it says so
    said, figures = capfd.readouterr().out.splitlines()[-2:]
    assert "is at step 9, and TRAIN_STEPS is 9; give TRAIN_STEPS of more than 9" in said
    assert json.loads(figures) == {"step": 9}


@pytest.mark.slow
def test_evaluation(model, prepared, make_disk, capfd):
    disk = make_disk(4)
    values = {"CHECKPOINT_PATH": str(model), "PREPARED_DIR": str(prepared), "EVAL_OUTPUT_DIR": str(disk / "out")}
    values |= {"DATASETS": ("rte",), "MAX_EXAMPLES": 4, "MAX_DEV_EXAMPLES": 2}
    arguments = ["--gin_file=runs/eval.gin", *(f"--gin.{name}={value!r}" for name, value in values.items())]
    for size in ("4k", "60k"):
        _resize(disk, size)
        _fails(capfd, eval_binary.main, arguments, disk)
    _grow(disk)
    eval_binary.main(arguments)
    assert (disk / "out" / "results.json").is_file()
    runs = [f"--runs=a={disk / 'out'}", f"--output={disk / 'report'}"]
    _resize(disk, "1m")
    _fill(disk)
    _fails(capfd, report.main, runs, disk)
    _grow(disk)
    report.main(runs)
    assert (disk / "report" / "report.html").is_file()


@pytest.mark.slow
def test_single_files(model, prepared, make_disk, tmp_path, capfd, monkeypatch):
    """What writes one file keeps the file that was there."""
    monkeypatch.setattr(pages, "page", functools.partial(pages.page, ["rte"]))  # the page of one dataset fills it too
    disk = make_disk(8)
    items, corpus, prompts = tmp_path / "items.jsonl", tmp_path / "corpus.txt", tmp_path / "prompts.jsonl"
    lines = [{"id": "i" * 400 + str(n), "prompt": "a", "options": ["b", "c"]} for n in range(40)]
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts.write_text("".join(json.dumps({"id": "i" * 400 + str(n), "prompt": "a"}) + "\n" for n in range(40)))
    corpus.write_text("nothing\n")
    old = disk / "file"
    old.write_text("old")
    _fill(disk)
    for main, arguments in (
        (export.main, ["--name=rte", f"--to={old}"]),
        (eval_binary.main, [f"--items={items}", f"--checkpoint={model}", f"--output={old}"]),
        (infer_binary.main, [f"--checkpoint={model}", f"--input={prompts}", f"--output={old}", "--max_new_tokens=1"]),
        (contamination_binary.main, [f"--prepared={prepared}", f"--corpus={corpus}", f"--to={old}", "--workers=1"]),
        (browse.main, [f"--html={old}"]),
    ):
        _fails(capfd, main, arguments, disk)
        assert {path.name for path in disk.iterdir()} == {"file", "ballast"} and old.read_text() == "old"


CLOSED = {
    "convert": lambda to, model, prepared: [f"--from={model}", f"--to={to}"],
    "prepare": lambda to, model, prepared: [DATASETS, f"--to={to}", "--workers=1"],
    "export": lambda to, model, prepared: ["--name=rte", f"--to={to}"],
    "browse": lambda to, model, prepared: [f"--html={to}"],
    "eval": lambda to, model, prepared: [
        f"--gin.CHECKPOINT_PATH={str(model)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
        f"--gin.EVAL_OUTPUT_DIR={to!r}",
    ],
    "train": lambda to, model, prepared: [
        f"--gin.INITIAL_CHECKPOINT_PATH={str(model)!r}",
        f"--gin.PREPARED_DIR={str(prepared)!r}",
        f"--gin.MODEL_DIR={to!r}",
        "--gin.MIXTURE_OR_TASK_NAME='flan'",
    ],
    "infer": lambda to, model, prepared: [f"--checkpoint={model}", "--prompt=a", f"--output={to}"],
    "contamination": lambda to, model, prepared: [f"--prepared={prepared}", "--corpus=/dev/null", f"--to={to}"],
}
MAINS = {"convert": convert, "prepare": prepare_binary, "export": export, "browse": browse, "eval": eval_binary}
MAINS |= {"train": train_binary, "infer": infer_binary, "contamination": contamination_binary}


@pytest.mark.parametrize("command", CLOSED)
@pytest.mark.parametrize("kind", ["read-only", "below a file", "too long", "proc"])
def test_places_that_take_nothing(command, kind, model, prepared, request, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    if kind == "read-only":
        to, says = request.getfixturevalue("read_only_disk") / "x", "read-only file system; choose a place"
    else:
        to, says = {
            "below a file": (tmp_path / "file" / "x", "file is no folder; choose another path"),
            "too long": (tmp_path / ("n" * 300), "file name too long; choose a shorter one"),
            "proc": ("/proc/x", "no such file or directory"),
        }[kind]
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        MAINS[command].main(CLOSED[command](str(to), model, prepared))
    err = [line for line in capfd.readouterr().err.splitlines() if line.startswith("flan_jax") or "Error" in line]
    assert stopped.value.code == 2
    assert len(err) == 1 and says in err[0], err
    assert (tmp_path / "file").read_text() == "mine"


def test_limit_of_a_file_s_size(model, tmp_path):
    """Where no small disk can be mounted, the system's own limit stands in for a full one."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        f"from flan_jax import convert; convert.main(['--from={model}', '--to={tmp_path / 'm'}'])"
    )
    assert resource.RLIMIT_FSIZE is not None
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr
    assert "file too large; the system limits the size of a file (ulimit -f)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_browse_into_head():
    command = f"{sys.executable} -m flan_jax.browse --summary | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    noise = [line for line in done.stderr.splitlines() if "Traceback" in line or "Error" in line or "flan_jax" in line]
    assert not noise
    assert len(done.stdout.splitlines()) == 1
