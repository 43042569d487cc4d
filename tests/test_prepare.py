import contextlib
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

from flan_jax import catalog, content, prepare, styles, templates
from flan_jax.data import examples, preparation, sources, tasks, token_store, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.data.prepare_datasets import num_workers, prepare_datasets
from flan_jax.errors import FlanError

pytestmark = pytest.mark.slow

BYTES = vocabularies.ByteTokenizer()
NAMES = ("rte", "squad_v1")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAN_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def run(*arguments):
    """(the JSON of the last line, all that was printed)."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        prepare.main([*arguments, "--json"])
    return json.loads(printed.getvalue().splitlines()[-1]), printed.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    return folder, *run(f"--datasets={','.join(NAMES)}", f"--to={folder}")


def stored(folder):
    return token_store.TokenStore.open(folder, BYTES.fingerprint)


def decoded(tokens, number):
    return tuple(BYTES.decode(part) for part in tokens.example(number))


def fields(record, split, data="samples"):
    """(record id, fields) of a split's records in the order in which they are prepared."""
    rows = tasks.records(record, sources.open_source(record, data), split)
    return list(tasks.text_records(rows))


# ---------------------------------------------------------------------------------------------- what is written


def test_report(prepared):
    folder, report, printed = prepared
    assert report["skipped"] == [] and report["bad_rows"] == []
    assert [d["dataset"] for d in report["datasets"]] == list(NAMES)
    for figures in report["datasets"]:
        record, tokens = catalog.dataset(figures["dataset"]), stored(folder)[figures["dataset"]]
        source = sources.open_source(record, "samples")
        assert figures["cluster"] == record.cluster and figures["origin"] == "samples" and not figures["kept"]
        assert figures["train"] == tokens.num_records == len(fields(record, "train"))
        assert (figures["renderings"], tokens.renderings) == (10, 10)
        assert figures["num_tokens"] == sum(len(ids) for i in range(len(tokens.index)) for ids in tokens.example(i))
        assert (figures["dev"], figures["test"]) == (source.splits["validation"].size, source.splits["test"].size)
        assert figures["dataset"] in printed
    for noise in ("Downloading and preparing", "Generating", "subsequent calls", "\r"):
        assert noise not in printed


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_the_rendered_records(prepared, name):
    record, tokens = catalog.dataset(name), stored(prepared[0])[name]
    records = fields(record, "train")
    assert len(tokens.index) == 10 * len(records)
    chosen = {}
    for number in range(len(tokens.index)):
        identity, example = records[number % len(records)]
        entry = tokens.index[number]
        assert entry["record"] == number % len(records)
        assert decoded(tokens, number) == templates.render(record.templates[entry["template"]], example)
        epoch = tf.constant(number // len(records))
        assert entry["template"] == tasks.choose_template(record, identity, epoch, 0).numpy()
        chosen.setdefault(identity, set()).add(int(entry["template"]))
    assert min(map(len, chosen.values())) > 1


@pytest.mark.parametrize("name", NAMES)
def test_dev_and_test_examples_keep_their_fields(prepared, name):
    record = catalog.dataset(name)
    for split, of_source in (("dev", "validation"), ("test", "test")):
        found = examples.read(prepared[0], name, split)
        assert [(row["id"], row["fields"]) for row in found] == fields(record, of_source)
    ids = [{row["id"] for row in examples.read(prepared[0], name, split)} for split in ("dev", "test")]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("name", NAMES)
def test_stores_and_examples_say_what_their_records_are(prepared, name):
    record = catalog.dataset(name)
    records = token_store.TokenStore.open(prepared[0], BYTES.fingerprint)[name].records
    expected = fields(record, "train")
    assert [one.decode() for one in records.ids.tolist()] == [identity for identity, _ in expected]
    assert [one.decode() for one in records.hashes.tolist()] == [content.content_hash(f) for _, f in expected]
    rows = examples.read(prepared[0], name, "test")
    assert [row["hash"] for row in rows] == [content.content_hash(row["fields"]) for row in rows]
    assert not {row["hash"] for row in rows} & {one.decode() for one in records.hashes.tolist()}


# ------------------------------------------------------------------------------------------------------ preparing again


def test_what_an_earlier_version_prepared_is_done_again(prepared, tmp_path):
    folder = tmp_path / "prepared"
    shutil.copytree(prepared[0], folder)
    for path in folder.rglob("rte/info.json"):
        info = json.loads(path.read_text())
        info.pop("version")
        info.get("key", {}).pop("version", None)
        path.write_text(json.dumps(info))
    again, _ = run(f"--datasets={','.join(NAMES)}", f"--to={folder}")
    assert kept(again) == {"rte": False, "squad_v1": True}
    for path in (p for p in prepared[0].rglob("*") if p.is_file() and p.suffix != ".lock"):
        assert (folder / path.relative_to(prepared[0])).read_bytes() == path.read_bytes()


def modified(folder):
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def kept(report):
    return {d["dataset"]: d["kept"] for d in report["datasets"]}


def test_what_is_there_is_kept(prepared, tmp_path):
    folder = tmp_path / "prepared"
    shutil.copytree(prepared[0], folder)
    before = modified(folder)
    again, printed = run(f"--datasets={','.join(NAMES)}", f"--to={folder}")
    assert modified(folder) == before
    assert kept(again) == {"rte": True, "squad_v1": True} and "(kept)" in printed
    for old, new in zip(prepared[1]["datasets"], again["datasets"], strict=True):
        assert new == old | {"kept": True}

    (folder / "tokens").joinpath(BYTES.fingerprint[:16], "rte", "info.json").write_text("{")
    mended, _ = run(f"--datasets={','.join(NAMES)}", f"--to={folder}")
    assert kept(mended) == {"rte": False, "squad_v1": True}

    other_seed, _ = run("--datasets=rte", f"--to={folder}", "--seed=1")
    assert kept(other_seed) == {"rte": False}
    before = modified(folder / "examples" / "rte")
    overwritten, _ = run("--datasets=rte", f"--to={folder}", "--seed=1", "--overwrite")
    assert kept(overwritten) == {"rte": False}
    assert before.keys() == modified(folder / "examples" / "rte").keys()
    assert before != modified(folder / "examples" / "rte")


# ----------------------------------------------------------------------------------------------------------- styles


@pytest.mark.parametrize(
    "name",
    [
        "no_template",
        "dataset_name",
        "without_options",
        "shuffled_options",
        "lettered_options",
        "3_templates",
        "2_shots",
    ],
)
def test_a_style_is_stored_beside_the_others(prepared, tmp_path, name):
    style, record = styles.parse(name), catalog.dataset("rte")
    folder = tmp_path / "prepared"
    shutil.copytree(prepared[0], folder)
    report, _ = run("--datasets=rte", f"--style={name}", f"--to={folder}", "--max_input_length=3000")
    again, _ = run(f"--mixture=flan_rte_{name}", f"--to={folder}", "--max_input_length=3000")
    assert (kept(report), kept(again)) == ({"rte": False}, {"rte": True})
    assert stored(folder).names == NAMES  # the paper's style is as it was
    tokens = token_store.TokenStore.open(folder, BYTES.fingerprint, style)["rte"]
    records = fields(record, "train")
    builder = ExampleBuilder(record, style, pool=records, tokenizer=BYTES)
    assert tokens.renderings == style.num_wordings
    assert len(tokens.index) == style.num_wordings * len(records)
    for number, (epoch, (identity, of_record)) in enumerate(itertools.product(range(tokens.renderings), records)):
        chosen = int(tasks.choose_template(record, identity, tf.constant(epoch), 0, style=style))
        example = builder.build(identity, of_record, chosen)
        assert tokens.index[number]["template"] == chosen
        assert decoded(tokens, number) == (example.inputs, example.targets)


def test_exemplars_are_written_for_the_evaluator(prepared):
    for name in NAMES:
        found = examples.read(prepared[0], name, "exemplars")
        assert [(row["id"], row["fields"]) for row in found] == fields(catalog.dataset(name), "train")


# ------------------------------------------------------------------------------------------- several processes, kills


SOME = "rte,squad_v1,cb,copa,sst2,trec,wic"
CODE = "import sys; from flan_jax import prepare; prepare.main(sys.argv[1:])"


def start(*arguments):
    """Prepare in a process group of its own."""
    command = [sys.executable, "-c", CODE, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def assert_complete(folder):
    assert set(stored(folder).names) == set(SOME.split(","))
    for name in SOME.split(","):
        assert stored(folder)[name].num_records == len(fields(catalog.dataset(name), "train"))
        assert len(examples.read(folder, name, "test")) == len(fields(catalog.dataset(name), "test"))
    assert not [p for p in folder.rglob(".*") if p.suffix != ".lock"]


def test_a_killed_prepare_goes_on_and_its_workers_end(prepared, tmp_path):
    """What its workers wrote before is what one process writes."""
    arguments = (f"--datasets={SOME}", f"--to={tmp_path / 'prepared'}", "--workers=2")
    process, finished = start(*arguments), set()
    while not {*NAMES} <= finished:
        line = next(line for line in process.stdout if line.startswith("["))
        finished.add(line.split()[1].rstrip(":"))
    workers = [int(pid) for pid in children(process.pid)]
    process.kill()
    process.wait()
    assert len(finished) < len(SOME.split(",")) and len(workers) >= 2
    deadline = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.1)
    before = {name: modified(tmp_path / "prepared" / "examples" / name) for name in finished}
    again, _ = run(*arguments[:2])
    assert [d["dataset"] for d in again["datasets"]] == [d.name for d in prepare.chosen_datasets(SOME, "")]
    assert finished <= {name for name, was_kept in kept(again).items() if was_kept}
    assert {name: modified(tmp_path / "prepared" / "examples" / name) for name in finished} == before
    assert_complete(tmp_path / "prepared")
    files = sorted(p.relative_to(prepared[0]) for p in prepared[0].rglob("*") if p.is_file() and p.suffix != ".lock")
    of_these = [p for p in (tmp_path / "prepared").rglob("*") if p.parent.name in NAMES and p.is_file()]
    assert files == sorted(p.relative_to(tmp_path / "prepared") for p in of_these if p.suffix != ".lock")
    for path in files:
        assert (tmp_path / "prepared" / path).read_bytes() == (prepared[0] / path).read_bytes()


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_prepares_at_once_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))  # so that both import the samples, too
    arguments = (f"--datasets={SOME}", f"--to={tmp_path / 'prepared'}", "--json")
    processes = [start(*arguments, "--workers=1") for _ in range(2)]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    reports = [json.loads(text.splitlines()[-1]) for text in printed]
    for name in SOME.split(","):
        assert sorted(kept(report)[name] for report in reports) == [False, True]  # prepared once, by either
    assert_complete(tmp_path / "prepared")
    assert not list((tmp_path / "home" / "imported").glob(".*.building"))


def test_a_worker_that_dies_ends_in_one_line(tmp_path):
    def kill_one():
        while not multiprocessing.active_children():
            time.sleep(0.05)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    chosen = [catalog.dataset(name) for name in NAMES]
    threading.Thread(target=kill_one).start()
    with pytest.raises(FlanError, match="a worker .* died.*fewer --workers"):
        prepare_datasets(chosen, "samples", BYTES, tmp_path, preparation.Options(), workers=2)


def test_default_number_of_workers(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [num_workers(0, n) for n in (1, 4, 8, 20, 70)] == [1, 1, 2, 5, 8]
    assert num_workers(3, 1) == 3


# ----------------------------------------------------------------------------------------------------- what is too long


def literals_in_order(pattern, text):
    at = 0
    for literal, _ in templates.pieces(pattern):
        at = text.index(literal.strip(), at) + len(literal.strip())
    return True


@pytest.mark.parametrize(("name", "max_input"), [("rte", 300), ("hellaswag", 480)])
def test_too_long_examples_are_counted_and_options_stay_whole(tmp_path, name, max_input):
    report, _ = run(
        f"--datasets={name}", f"--to={tmp_path}", f"--max_input_length={max_input}", "--max_target_length=60"
    )
    (figures,) = report["datasets"]
    record, tokens = catalog.dataset(name), stored(tmp_path)[name]
    records = fields(record, "train")
    number, trimmed, cut_targets, overlong = 0, 0, 0, 0
    for epoch, (i, (identity, example)) in itertools.product(range(10), enumerate(records)):
        chosen = int(tasks.choose_template(record, identity, tf.constant(epoch), 0))
        template = record.templates[chosen]
        inputs, targets = templates.render(template, example)
        bare = {n: value if n == "options" else "" for n, value in example.items()}
        if len(templates.fill(template.input, bare).encode()) > max_input - 1:
            overlong += 1
            continue
        entry, found = tokens.index[number], decoded(tokens, number)
        assert (entry["record"], entry["template"]) == (i, chosen)
        assert found[1] == targets.encode()[:59].decode(errors="replace")  # EOS takes the last slot
        cut_targets += len(targets.encode()) > 59
        if len(inputs.encode()) <= max_input - 1:  # the separator takes a slot
            assert found[0] == inputs
        else:
            trimmed += 1
            assert len(found[0].encode()) <= max_input - 1
            assert literals_in_order(template.input, found[0])
            if "options" in templates.placeholders(template.input):
                assert templates.options_block(example["options"]) in found[0]
        number += 1
    assert number == len(tokens.index) == 10 * len(records) - overlong
    assert trimmed == figures["trimmed"] > 0
    assert cut_targets == figures["cut_targets"] > 0
    assert figures["overlong"] == overlong


def test_long_targets_keep_their_share_of_the_mixture(tmp_path):
    """E4: renderings with targets over 256 tokens were left out, so that mostly inverted ones stayed."""
    report, _ = run("--datasets=multi_news", f"--to={tmp_path}")
    (figures,) = report["datasets"]
    tokens, record = stored(tmp_path)["multi_news"], catalog.dataset("multi_news")
    assert len(tokens.index) == figures["train"] * figures["renderings"] and figures["overlong"] == 0
    forward = [bool(record.templates[entry["template"]].is_forward) for entry in tokens.index]
    cut = [len(tokens.example(number)[1]) == 255 for number in range(len(tokens.index))]
    assert figures["cut_targets"] > 0 and sum(cut) >= figures["cut_targets"]
    assert any(f and c for f, c in zip(forward, cut, strict=True)) and sum(forward) > len(forward) / 2


def test_an_input_that_no_cut_makes_fit_is_left_out(tmp_path):
    """With room for less than the options alone, no forward example is left."""
    report, _ = run("--datasets=rte", f"--to={tmp_path}", "--max_input_length=20", "--max_target_length=5")
    (figures,) = report["datasets"]
    assert figures["overlong"] == 10 * figures["train"] and figures["num_tokens"] == 0


@pytest.mark.parametrize("name", ["arc_easy", "cosmos_qa"])
def test_records_that_speak_of_options_are_left_out_where_none_are_shown(tmp_path, name):
    """A4: "None of the above choices ." was the target where no choice was shown."""
    report, printed = run(f"--datasets={name}", "--style=without_options", f"--to={tmp_path}")
    (figures,) = report["datasets"]
    style, record = styles.parse("without_options"), catalog.dataset(name)
    tokens = token_store.TokenStore.open(tmp_path, BYTES.fingerprint, style)[name]
    speaks = re.compile({"arc_easy": r"(?i)of (these|the following)", "cosmos_qa": "None of the above"}[name])
    asked = {"arc_easy": "question", "cosmos_qa": "answer"}[name]
    left = [i for i, (_, f) in enumerate(fields(record, "train")) if speaks.search(f[asked])]
    assert 0 < len(left) < figures["train"]
    assert figures["unanswerable"] == 10 * len(left) and figures["overlong"] == 0
    assert set(range(figures["train"])) - {int(entry["record"]) for entry in tokens.index} == set(left)
    assert f"{name}: {10 * len(left)} training examples left out, as their records speak of options" in printed
    report, printed = run(f"--datasets={name}", f"--to={tmp_path}")
    assert report["datasets"][0]["unanswerable"] == 0 and "speak of options" not in printed


# ---------------------------------------------------------------------------------------------------- sources, mixtures


@pytest.fixture
def folder(tmp_path):
    """A folder of data in which RTE has a bad row and SST-2 is missing."""
    shutil.copytree(sources.samples_folder() / "rte", tmp_path / "data" / "rte")
    with (tmp_path / "data" / "rte" / "train.jsonl").open("a") as file:
        file.write('{"premise": "No hypothesis.", "label": 0}\n')
    return tmp_path / "data"


def test_dead_sources_are_skipped_and_listed(folder, tmp_path):
    report, printed = run("--datasets=sst2,rte", f"--data={folder}", f"--to={tmp_path / 'prepared'}")
    (skipped,) = report["skipped"]
    assert skipped["dataset"] == "sst2"
    assert "no folder sst2/ of JSONL" in skipped["reason"] and "sst2/train.jsonl" in skipped["remedy"]
    assert f"skipped sst2: {skipped['reason']}. To do: {skipped['remedy']}." in printed
    assert [d["dataset"] for d in report["datasets"]] == ["rte"]
    lines = len((folder / "rte" / "train.jsonl").read_text().splitlines())
    assert report["bad_rows"] == [f"rte/train.jsonl line {lines}: field 'hypothesis' is missing"]
    assert f"left out: {report['bad_rows'][0]}" in printed
    assert stored(tmp_path / "prepared").names == ("rte",)


def test_records_that_cannot_be_read_are_skipped(folder, tmp_path):
    """A data file that breaks after its import is a dead source too."""
    source = sources.open_source(catalog.dataset("rte"), folder)
    (records,) = tf.io.gfile.glob(f"{source.builder.data_dir}/*train.tfrecord*")
    with open(records, "r+b") as file:
        file.seek(60)
        file.write(b"\x00" * 40)
    shutil.copytree(sources.samples_folder() / "squad", folder / "squad")
    report, _ = run("--datasets=rte,squad_v1", f"--data={folder}", f"--to={tmp_path / 'prepared'}")
    (skipped,) = report["skipped"]
    assert skipped["dataset"] == "rte" and "cannot be read (DataLossError" in skipped["reason"]
    assert [d["dataset"] for d in report["datasets"]] == ["squad_v1"]
    assert not [p for p in (tmp_path / "prepared").rglob(".*") if p.suffix != ".lock"]


def test_packing_of_a_mixture_is_reported(prepared):
    report, printed = run("--mixture=flan_squad_v1", "--datasets=rte", f"--to={prepared[0]}")
    assert kept(report) == {"rte": True, "squad_v1": True}
    packing = report["packing"]
    assert packing["share"] == {"squad_v1": 1.0}
    assert 0.5 < packing["fill"] <= 1 and f"{packing['fill']:.4f}" in printed


def test_chosen_datasets():
    nli = catalog.datasets("nli")
    assert prepare.chosen_datasets("", "") == catalog.datasets()
    assert prepare.chosen_datasets("nli", "") == nli
    assert set(prepare.chosen_datasets("squad_v1, nli ,rte", "flan_rte")) == {*nli, catalog.dataset("squad_v1")}
    assert len(prepare.chosen_datasets("nli,rte", "flan_rte")) == len(nli)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--datasets=rtee"], "unknown dataset or cluster 'rtee': did you mean 'rte'"),
        (["--datasets=rte,coreferences"], "unknown dataset or cluster 'coreferences': did you mean 'coreference'"),
        (["--mixture=flan_withuot_nli"], "unknown mixture 'flan_withuot_nli': did you mean 'flan_without_nli'"),
        (["--mixture=flan_without_nil"], "did you mean 'nli'"),
        (["--datasets=rte", "--vocabulary=nowhere"], "no vocabulary at 'nowhere': give 'bytes'"),
        (["--datasets=rte", "--data=nowhere"], "no folder nowhere: --data is samples, tfds, or a folder of data"),
        (["--datasets=,"], "no dataset is chosen"),
        (["--datasets=rte", "--style=bare"], "unknown style 'bare'"),
        (["--mixture=flan_rte_no_template", "--style=dataset_name"], "name different styles; give one of them"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as status:
        prepare.main([*arguments, "--to=prepared"])
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1 and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_no_source_at_all(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit) as status:
        prepare.main(["--datasets=rte,sst2", f"--data={tmp_path / 'data'}", f"--to={tmp_path / 'prepared'}"])
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing prepared: no source of 2" in line and "add rte/train.jsonl" in line
