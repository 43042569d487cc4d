"""Users' paths on object storage, through every room: none is taken for one of this machine, and bad ones say so."""

import ast
import functools
import gzip
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import flan_jax.catalog
import flan_jax.macros
from flan_jax import audit, browse, configuration, contamination, convert, export, files, infer, prepare, report
from flan_jax import eval as evaluation
from flan_jax.checkpoint import arrays, choosing, saving
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import sources, token_store, vocabularies
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.errors import FlanError, StorageError
from flan_jax.evaluation import jobs
from flan_jax.inspection import page as pages
from flan_jax.overlap import corpus, texts
from flan_jax.training.hooks.context import Context
from flan_jax.training.hooks.metrics_log import MetricsLog

PACKAGE = Path(flan_jax.__file__).parent
# What may be made a path of this machine, beside what `files` gives: our own files, and those of a temporary folder.
OURS = {
    "errors.py": {"Path(path)"},  # of an error that the system raised, for its message
    "decoding/prompt_files.py": set(),
    "evaluation/dev_loss.py": {"Path()"},  # of a unit whose predictions are not written
    "evaluation/prompt_store.py": {"Path()"},
    "formats/gguf.py": {"Path(path)"},  # what `files.local` gave
    "formats/huggingface_backend.py": {"Path()"},
    "formats/pretrained.py": {"Path(found.submodule_search_locations[0])"},
    "overlap/contamination.py": {"Path(name)"},  # a temporary folder
    "overlap/corpus.py": {"Path(pattern)"},  # where it is no URL
    "overlap/texts.py": {"Path(place)"},  # of os.walk
    "verification/huggingface.py": {"Path(history[at]['folder'])"},  # its name alone
    "contamination.py": {"Path(name)"},  # its name alone
    "compilation/program.py": {"Path(folder)"},  # a temporary folder
    "data/usable.py": {
        "Path(inspect.getfile(part))",
        "Path(inspect.getfile(importlib.import_module(node.module)))",
        "Path(__file__)",
    },
    "data/samples.py": {"Path(next(iter(flan_jax.tasks.__path__)))"},
    "gin_files.py": {"Path(__file__)"},
    "options.py": {"Path(sys.orig_argv[1])"},  # the name that the program was started by
    "studies/stamps.py": {"Path(inspect.getfile(function))"},
    "revision.py": {"Path(flan_jax.__file__)"},
    "own_tasks.py": {  # Python imports modules from this machine alone
        "Path(getattr(module, 'SAMPLES', None) or Path(module.__file__ or '').parent / 'samples')",
        "Path(module.__file__ or '')",
        "Path(name)",
    },
    "checkpoint/lock.py": {"Path('/proc/sys/kernel/random/boot_id')", "Path(f'/proc/{pid}/stat')"},
}


def _made(source):
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = {ast.unparse(node) for node in calls if isinstance(node.func, ast.Name) and node.func.id == "Path"}
    tested = (node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "isinstance")
    return made | {ast.unparse(node) for node in tested if ast.unparse(node.args[1]) == "Path"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_path_of_a_user_is_made_one_of_this_machine(path):
    name = str(path.relative_to(PACKAGE))
    if not name.startswith("files/"):
        extra = _made(path.read_text()) - OURS.get(name, set())
        assert not extra, (
            "give a user's path to files.user_path, or to files.local where a file of this machine is needed"
        )


def test_what_would_be_found():
    assert _made("a = Path(b) / 'c'\nisinstance(x, Path)\nisinstance(x, str | Path)") == {
        "Path(b)",
        "isinstance(x, Path)",
    }


# ---------------------------------------------------------------------------------------------- the command lines


def _run(main, *arguments):
    """(exit status, standard output, standard error) of a command in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            status = ended.code
    return status, out.getvalue(), err.getvalue()


def _one_line(status, err):
    assert status == 2, err
    lines = [line for line in err.splitlines() if line.startswith("flan_jax:")]
    assert len(lines) == 1 and "Traceback" not in err
    return lines[0]


COMMANDS = {
    "convert": (convert.main, ["--from=tiny", "--to={}"]),
    "convert from": (convert.main, ["--from={}", "--to=x"]),
    "prepare": (prepare.main, ["--to={}"]),
    "prepare with a vocabulary": (prepare.main, ["--to=x", "--vocabulary={}"]),
    "infer": (infer.main, ["--checkpoint={}", "--prompt=a"]),
    "infer to": (infer.main, ["--checkpoint=x", "--prompt=a", "--output={}"]),
    "report": (report.main, ["--runs", "a={}", "--output=x"]),
    "report to": (report.main, ["--runs", "a=x", "--output={}"]),
    "contamination": (contamination.main, ["--prepared={}", "--corpus", "x", "--to=y"]),
    "audit": (audit.main, ["--tuned", "{}", "--evaluated", "rte"]),
    "export": (export.main, ["--name=rte", "--to={}"]),
    "browse": (browse.main, ["--html={}"]),
    "eval": (evaluation.main, ["--items={}", "--checkpoint=x", "--output=y"]),
    "eval's macros": (
        evaluation.main,
        ["--gin.CHECKPOINT_PATH='{}'", "--gin.EVAL_OUTPUT_DIR='y'", "--gin.PREPARED_DIR='z'"],
    ),
}
BAD = {
    "gs:/bucket/x": "has one slash: write gs://bucket/x",
    "gs://bucket": "is a whole bucket: give a folder in it",
    "gs://bucket/": "is a whole bucket",
    "gs://": "names no bucket",
    "gs://bucket/*": "has a '*'",
    "gs://bucket/../x": "has a part '..'",
    "https://storage.googleapis.com/bucket/x": "is an address of the web",
    "gss://bucket/x": "unknown scheme 'gss://': did you mean 'gs://'",
    "s3://bucket/x": "s3:// needs s3fs, which is not installed",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_urls_are_refused_in_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main, arguments = COMMANDS[command]
    for url, says in BAD.items():
        status, _, err = _run(main, *(argument.format(url) for argument in arguments))
        assert says in _one_line(status, err), (url, err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["convert", "prepare", "infer to", "export", "browse"])
def test_no_bucket(command, bucket):
    main, arguments = COMMANDS[command]
    status, _, err = _run(main, *(argument.format("gs://no-such-bucket/x") for argument in arguments))
    assert "there is no bucket gs://no-such-bucket; make it, or check its name" in _one_line(status, err)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("convert from", "no file or folder 'gs://flan-jax-tests/none'"),
        ("prepare with a vocabulary", "no vocabulary at 'gs://flan-jax-tests/none'"),
        ("infer", "no checkpoint at gs://flan-jax-tests/none: manifest.json is missing"),
        ("report", "no readable results.json in gs://flan-jax-tests/none"),
        ("contamination", "no test examples in gs://flan-jax-tests/none"),
        ("eval", "no checkpoint at x|no such file|cannot read items from gs://flan-jax-tests/none"),
        ("eval's macros", "no checkpoint at gs://flan-jax-tests/none"),
    ],
)
def test_nothing_is_there(command, says, bucket):
    main, arguments = COMMANDS[command]
    status, _, err = _run(main, *(argument.format("gs://flan-jax-tests/none") for argument in arguments))
    assert any(part in _one_line(status, err) for part in says.split("|"))


# --------------------------------------------------------------------------------------------------- hostile places


@pytest.fixture
def folder(bucket):
    return files.user_path(bucket)


def test_own_folder_stays_here(monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", "gs://bucket/home")
    with pytest.raises(FlanError, match="FLAN_JAX_HOME: gs://bucket/home lies on object storage"):
        files.home()


def test_neighbours_stay(folder):
    for name in ("run/a", "run2/a", "run.json"):
        files.write_atomic(folder / name, name)
    files.remove_folder(folder / "run")
    assert set(folder.all_files()) == {"run2/a", "run.json"}
    with pytest.raises(FlanError, match="is a whole bucket, which is never removed"):
        files.remove_folder(folder.parent)


def test_folders_of_a_console_are_empty(folder, server):
    """Its "new folder" is an object of no bytes whose name ends with a slash."""
    folder.fs.pipe_file(f"{folder.key}/made/", b"")
    assert (folder / "made").is_dir() and not (folder / "made").is_file()
    assert list((folder / "made").iterdir()) == []
    assert _run(convert.main, "--from=tiny", f"--to={folder}/made", "--tuning=untuned")[0] == 0
    assert choosing.steps(folder / "made") == [0]


def test_what_must_not_be_lost(folder):
    files.write_atomic(folder / "mine" / "thesis.tex", "years")
    files.write_atomic(folder / "file", "mine")
    for to, says in (
        ("mine", "is no checkpoint folder, which --overwrite would replace"),
        ("file", "is a file: give a"),
    ):
        status, _, err = _run(convert.main, "--from=tiny", f"--to={folder}/{to}", "--overwrite")
        assert says in _one_line(status, err)
    assert (folder / "mine" / "thesis.tex").read_text() == "years"


def test_odd_names_hold_checkpoints(folder):
    """gcsfs, etils and TensorStore each write names of objects in their own way."""
    place = folder / "ein Lauf" / "ü+&=~@,;!"
    weights = {"a": jnp.arange(6.0).reshape(2, 3)}
    with saving.Saver(place) as saver:
        saver.save(3, weights)
    assert choosing.steps(place) == [3]
    found = arrays.restore_params(place, {"a": weights["a"]}, {"a": weights["a"].sharding})
    np.testing.assert_array_equal(found["a"], weights["a"])
    assert _run(convert.main, "--from=tiny", f"--to={place}/m", "--tuning=untuned")[0] == 0
    status, _, err = _run(convert.main, f"--from={place}/m", f"--to={place}/n", "--format=huggingface")
    assert status == 0, err
    assert Manifest.load(place / "n").model["embed_dim"] == 128
    status, _, err = _run(convert.main, f"--from={place}/n", f"--to={place}/o", "--overwrite")
    assert status == 0 and choosing.steps(place / "o") == [0], err


@pytest.fixture
def copied(folder):
    """A run of two steps whose copy ended before the last objects came, and their names by step."""
    weights = {"a": jnp.arange(6.0).reshape(2, 3)}
    with saving.Saver(folder) as saver:
        saver.save(3, weights)
        saver.save(6, weights)
    for name in folder.all_files():
        if name.endswith("commit_success.txt"):
            (folder / name).unlink()
    return folder


def test_copied_steps_without_a_mark_are_not_lost(copied, capsys):
    """Orbax would remove them when a run starts, and the run would begin anew."""
    with pytest.raises(FlanError, match="step 6 of gs://.* has no commit_success.txt, which comes last: .* copy it"):
        arrays.restore_params(copied, {"a": jnp.zeros((2, 3))}, {"a": jnp.zeros(()).sharding})
    assert choosing.choose_step(copied) == 6
    assert "step 3 of" in capsys.readouterr().out
    with saving.Saver(copied, keep=3) as saver:
        saver.save(9, {"a": jnp.ones((2, 3))})
    assert choosing.steps(copied) == [3, 6, 9]
    found = arrays.restore_params(copied, {"a": jnp.zeros((2, 3))}, {"a": jnp.zeros(()).sharding}, step=6)
    np.testing.assert_array_equal(found["a"], jnp.arange(6.0).reshape(2, 3))


def test_copied_steps_that_are_not_whole_stop_a_run(copied):
    step = copied / "checkpoints" / "6"
    for name in [name for name in step.all_files() if "/d/" in name]:
        (step / name).unlink()
    before = set(copied.all_files())
    with pytest.raises(FlanError, match="step 6 of gs://.* its copy was not finished; copy it anew, or remove gs://"):
        choosing.choose_step(copied)
    assert set(copied.all_files()) == before
    assert choosing.choose_step(copied, choosing.PREVIOUS) == 3
    assert (copied / choosing.DAMAGED / "6").is_dir() and choosing.steps(copied) == [3]


def test_what_a_killed_run_has_half_saved_is_no_copy(folder):
    """It has no time of its end: the run saves that step again."""
    told = {"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": None}
    files.write_atomic(folder / "checkpoints" / "3" / "_CHECKPOINT_METADATA", json.dumps(told))
    files.write_atomic(folder / "checkpoints" / "6" / "_CHECKPOINT_METADATA", "{")
    assert choosing.choose_step(folder) is None


def test_checkpoints_in_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = _run(convert.main, "--from=tiny", "--to=memory://models/tiny")
    assert "memory://models/tiny/checkpoints cannot hold a checkpoint" in _one_line(status, err)
    assert not list(tmp_path.iterdir()) and not files.user_path("memory://models/tiny").exists()


@pytest.fixture
def store(folder):
    """A prepared folder with one dataset of three examples."""
    tokenizer = vocabularies.ByteTokenizer()
    examples = [token_store.TokenizedExample([5, 6, number], [7], 0, number) for number in range(3)]
    info = {"num_records": 3, "renderings": 1, "vocab_size": 300, "version": token_store.VERSION}
    token_store.write_dataset(token_store.folder_of(folder, tokenizer.fingerprint) / "rte", info, examples)
    return folder


def _opened(prepared):
    return token_store.TokenStore.open(prepared, vocabularies.ByteTokenizer().fingerprint)


def _tokens(prepared):
    return next(prepared.glob("tokens/*/rte"))


def test_tokens_are_staged_once(store, server):
    assert _opened(store).names == ("rte",)
    np.testing.assert_array_equal(_opened(store)["rte"].example(2)[0], [5, 6, 2])
    before = len(server.requests())
    assert _opened(store)["rte"].num_records == 3
    assert len(server.requests()) - before < 8
    assert not [line for line in server.requests()[before:] if "tokens.bin" in line]


def test_tokens_prepared_again_are_staged_again(store):
    first = _opened(store)["rte"]
    examples = [token_store.TokenizedExample([9], [8], 0, 0)]
    info = {"num_records": 1, "renderings": 1, "vocab_size": 300}
    token_store.write_dataset(_tokens(store), info, examples)
    second = _opened(store)["rte"]
    assert (first.num_records, second.num_records) == (3, 1) and first.digest != second.digest
    np.testing.assert_array_equal(first.example(2)[0], [5, 6, 2])  # who reads goes on reading what he opened
    assert len(list(files.staging_home().glob("*/content/rte/tokens.bin"))) == 1


def test_half_written_tokens_are_not_there(store):
    (_tokens(store) / "info.json").unlink()
    assert _opened(store).names == ()
    with pytest.raises(FlanError, match="dataset 'rte' is not in gs://"):
        _opened(store)["rte"]


@pytest.mark.parametrize("name", ["tokens.bin", "index.npy"])
def test_tokens_damaged_on_the_storage(store, name):
    place = _tokens(store) / name
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(bytes(content))
    with pytest.raises(FlanError, match="the prepared tokens of 'rte' are damaged on the storage .* --overwrite"):
        _opened(store)["rte"]
    assert not list(files.staging_home().glob("*/content/rte"))


def test_tokens_damaged_on_this_disk(store):
    assert _opened(store)["rte"].num_records == 3
    (staged,) = files.staging_home().glob("*/content/rte/tokens.bin")
    staged.write_bytes(staged.read_bytes()[:-1] + b"\xff")
    with pytest.raises(FlanError, match="tokens.bin has changed; if the copy in .*staged alone is, remove it"):
        _opened(store)["rte"]


def test_mixture_stages_its_own_datasets_alone(store):
    place = _tokens(store)
    for name in ("anli", "sst2"):
        info = {"num_records": 1, "renderings": 1, "vocab_size": 300}
        token_store.write_dataset(place.with_name(name), info, [token_store.TokenizedExample([9], [8], 0, 0)])
    open_mixture("flan_without_nli", store, vocabularies.ByteTokenizer(), lengths={"inputs": 64, "targets": 16})
    assert [path.name for path in files.staging_home().glob("*/content/*") if path.is_dir()] == ["sst2"]


def test_unreachable_storage_is_not_taken_for_nothing(store, monkeypatch):
    def fail(self):
        raise StorageError(f"cannot read {self}: permission is denied; ask.")

    monkeypatch.setattr(files.RemotePath, "read_bytes", fail)
    with pytest.raises(StorageError):
        token_store.read_info(_tokens(store))
    with pytest.raises(StorageError):
        Manifest.load(store)
    with pytest.raises(StorageError):
        vocabularies.load(store / "vocabulary")
    with pytest.raises(StorageError):
        report.reporting.load_run("a", store)


def test_jsonl_of_a_bucket_is_staged(folder):
    there = sources.samples_folder() / "rte"
    for path in there.iterdir():
        (folder / "rte" / path.name).upload(path)
    found = sources.open_source(flan_jax.catalog.dataset("rte"), str(folder))
    own = sources.open_source(flan_jax.catalog.dataset("rte"), "samples")
    assert found.splits == own.splits and found.origin == folder.name
    with pytest.raises(sources.SourceError, match="no folder cb/ of JSONL in gs://"):
        sources.open_source(flan_jax.catalog.dataset("cb"), str(folder))


@pytest.mark.parametrize("name", ["web.jsonl", "web.txt", "web.jsonl.gz"])
def test_contamination_reads_a_corpus_there(folder, name):
    there = folder / "texts" / name
    content = b'{"text": "nothing of note"}\n'
    there.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (found,) = corpus.corpus_files([str(there)])
    assert found.path == there and found.form == corpus.JSON_LINES
    assert list(texts.rows(found)) == [{"text": "nothing of note"}]


def test_what_is_removed_while_it_is_staged(store, monkeypatch):
    read = files.RemotePath.read_bytes

    def vanishing(self):
        if self.name == "tokens.bin":
            self.unlink()
        return read(self)

    monkeypatch.setattr(files.RemotePath, "read_bytes", vanishing)
    with pytest.raises(StorageError, match="tokens.bin was removed while it was read: run the same command again"):
        _opened(store)["rte"]


def _refused(self, content):
    raise StorageError(f"cannot write {self}: permission is denied; ask.")


def test_a_bucket_that_is_only_read_is_named_by_what_was_given(folder, monkeypatch):
    monkeypatch.setattr(files.RemotePath, "write_bytes", _refused)
    for check in (files.writable, files.ready):
        with pytest.raises(StorageError, match=rf"^cannot write {folder}/a.txt: permission"):
            check(folder / "a.txt")


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        ("PERMISSION_DENIED: Error writing 'a/.zarray'", "cannot save step 3 in gs://.*: permission is denied; let"),
        ("Forbidden: b/x/o/checkpoints%2F1", "permission is denied; let this account read, write and remove"),
        ("UNAVAILABLE: failed to connect", "the storage cannot be reached; check the network"),
    ],
)
def test_a_save_that_the_storage_refuses(folder, monkeypatch, raised, says):
    def fail(*_, **__):
        raise ValueError(raised)

    with saving.Saver(folder) as saver:
        monkeypatch.setattr(saver._manager, "save", fail)
        monkeypatch.setattr(files.RemotePath, "glob", lambda *_: _refused(folder, b""))
        with pytest.raises(FlanError, match=f"{says}.*; which checkpoints are there cannot be seen now"):
            saver.save(3, {"a": jnp.ones(4)})


def test_export_and_browse_write_there(folder, monkeypatch):
    monkeypatch.setattr(pages, "page", functools.partial(pages.page, ["rte"]))  # the page of one dataset
    assert _run(export.main, "--name=rte", f"--to={folder}/rte.jsonl", "--count=2")[0] == 0
    assert len((folder / "rte.jsonl").read_text().splitlines()) == 2
    assert _run(browse.main, f"--html={folder}/page.html")[0] == 0
    assert (folder / "page.html").is_file()


def test_jobs_wait_for_each_other(folder, capsys):
    files.write_atomic(folder / ".lock", json.dumps({"host": "other", "pid": 7, "token": "x"}))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flan_jax.files.locks.STALE_SECONDS", 0.1)
        patched.setattr("flan_jax.files.locks._LOOK_SECONDS", 0.05)
        with jobs.alone(folder):
            pass
    assert f"another job is at work in {folder} (process 7 on other): waiting for it" in capsys.readouterr().out
    assert not folder.exists()


# ------------------------------------------------------------------------------------------------------- metrics


class _Log:
    """The hook as the loop calls it; a context manager."""

    def __init__(self, folder, first_step):
        self.hook, self.context = MetricsLog(), Context(None, folder, None, None, None, first_step)

    def __enter__(self):
        self.hook.start(self.context)
        return self

    def __exit__(self, *_):
        self.hook.end(self.context)

    def write(self, step, values):
        self.hook.after_step(self.context, step, values)

    def flush(self):
        self.hook.before_save(self.context, 0)


def test_metrics_are_there_at_a_save_and_at_the_end(folder, server):
    with _Log(folder, 0) as log:
        log.write(1, {"loss": 1.0})
        log.write(2, {"loss": 2.0, "dataset_loss": {"rte": 1.5}})
        assert (folder / "metrics.jsonl").read_text() == ""
        log.flush()
        assert [line["step"] for line in map(json.loads, (folder / "metrics.jsonl").open())] == [1, 2]
        before = len(server.requests())
        log.flush()
        assert len(server.requests()) == before  # nothing is new
        log.write(3, {"loss": 3.0})
    assert (folder / "metrics.jsonl").read_text().count("\n") == 3
    with _Log(folder, 2) as log:  # resumed from step 2
        log.write(3, {"loss": 3.5})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 3.5)]
    assert 1 <= len(list((folder / "tensorboard").iterdir())) <= 2  # their names have the second
    assert not [path for path in files.home().rglob("*") if path.is_file()]


def test_metrics_are_uploaded_now_and_then(folder, monkeypatch):
    monkeypatch.setattr("flan_jax.training.hooks.metrics_log._FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("flan_jax.files.mirror._SHARE", 1e9)
    with _Log(folder, 0) as log:
        log.write(1, {"loss": 1.0})
        log.hook._writer.submit(int).result()  # behind the writing
        log.hook._mirror._pool.submit(int).result()  # behind the upload
        assert (folder / "metrics.jsonl").read_text().count("\n") == 1


def test_metrics_that_cannot_be_written_say_so(folder, monkeypatch):
    with _Log(folder, 0) as log:
        log.write(1, {"loss": 1.0})

        def fail(self, content):
            raise StorageError(f"cannot write {self}: permission is denied; ask.")

        with monkeypatch.context() as patched:
            patched.setattr(files.RemotePath, "write_bytes", fail)
            with pytest.raises(StorageError, match=r"cannot write .*metrics.jsonl: permission is denied"):
                log.flush()
        log.flush()
    assert (folder / "metrics.jsonl").read_text().count("\n") == 1


def test_macros_take_urls():
    for name in ("MODEL_DIR", "PREPARED_DIR", "INITIAL_CHECKPOINT_PATH", "EVAL_OUTPUT_DIR", "CHECKPOINT_PATH"):
        kind = flan_jax.macros.BY_MACRO[name].kind
        assert kind.fit("gs://bucket/x/") in ("gs://bucket/x", ("gs://bucket/x",))
    assert flan_jax.macros.BY_MACRO["CHECKPOINT_PATH"].kind.fit({"nli": "gs://b/x"}) == {"nli": "gs://b/x"}
    assert configuration.model_names()
