import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import seqio
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from flan_jax import catalog, json_lines
from flan_jax.data import local_rows, sources, tasks
from flan_jax.errors import FlanError
from flan_jax.splits import Splits, resolve_splits
from flan_jax.values import OUR_DATA

pytestmark = pytest.mark.slow

RTE = catalog.dataset("rte")
LABELS = ["entailment", "not_entailment"]
ROWS = [
    {"premise": f"Premise {i} \u2028 of ten, naïve.", "hypothesis": f"It is {i}.", "label": LABELS[i % 2], "idx": i}
    for i in range(10)
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write(folder, name, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    encoded = [
        line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode("utf-8") for line in lines
    ]
    (folder / f"{name}.jsonl").write_bytes(b"\n".join(encoded) + b"\n")


@pytest.fixture
def data(tmp_path):
    """A folder of local JSONL with RTE in it."""
    write(tmp_path / "data" / "rte", "train", *ROWS)
    write(tmp_path / "data" / "rte", "validation", *ROWS[:4])
    return tmp_path / "data"


def test_a_folder_called_samples_is_a_folder(data, monkeypatch):
    """Written as a path. The bundled samples were read in its place."""
    write(data / "rte", "train", *ROWS[1:], {})
    data.rename(data.parent / "samples")
    monkeypatch.chdir(data.parent)
    ours = sources.open_source(RTE, "samples").content
    for written in ("./samples", "samples/", Path("samples")):
        found = sources.open_source(RTE, written)
        assert found.content == sources.open_source(RTE, data.parent / "samples").content
        assert found.content != ours and found.left_out  # a bad row is said
        assert tasks.Settings(data=written).checked().data not in OUR_DATA


def plain(row):
    return {
        "premise": row["premise"].decode(),
        "hypothesis": row["hypothesis"].decode(),
        "label": LABELS[int(row["label"])],
        "idx": int(row["idx"]),
    }


def by_idx(rows):
    return sorted(rows, key=lambda row: row["idx"])


# ----------------------------------------------------------------------------------------------------------- import


def test_import_is_read_by_tfds_and_seqio(data, home, capfd):
    source = sources.open_source(RTE, data)
    assert {name: s.tfds for name, s in source.splits.items()} == {
        "train": "train[0:8]",
        "validation": "train[8:10]",
        "test": "validation[0:4]",
    }
    assert (source.origin, source.bad_rows) == ("data", ())
    printed = capfd.readouterr()
    assert "Downloading" not in printed.out + printed.err and "Generating" not in printed.out + printed.err

    (imported,) = (home / "imported").iterdir()
    loaded = tfds.load(RTE.source, data_dir=str(imported), split="train")
    assert by_idx(map(plain, tfds.as_numpy(loaded))) == ROWS
    info = tfds.builder(RTE.source, data_dir=str(imported)).info
    assert info.features["label"].names == LABELS
    assert {name: split.num_examples for name, split in info.splits.items()} == {"train": 10, "validation": 4}

    reader = seqio.TfdsDataSource(tfds_name=RTE.source, tfds_data_dir=str(imported))
    read = reader.get_dataset("validation", shuffle=True, seed=1)
    assert by_idx(map(plain, tfds.as_numpy(read))) == ROWS[:4]


def test_nothing_is_left_in_the_temporary_folder(data, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    sources.open_source(RTE, data)
    with pytest.raises(FlanError, match="sst2"):
        sources.open_source(catalog.dataset("sst2"), data)
    assert not list((tmp_path / "temporary").glob("*tfds"))


def test_reading_a_split(data):
    source = sources.open_source(RTE, data)
    train, dev, test = ([*tfds.as_numpy(source.read(split))] for split in ("train", "validation", "test"))
    assert by_idx([plain(row) for row in [*train, *dev]]) == ROWS
    assert by_idx(map(plain, test)) == ROWS[:4]
    again, shuffled = source.read("train"), source.read("train", shuffle=True, seed=3)
    assert [row["tfds_id"] for row in train] == [row["tfds_id"] for row in tfds.as_numpy(again)]
    # A record's id stays its own, whatever the order.
    assert {row["tfds_id"]: int(row["idx"]) for row in tfds.as_numpy(shuffled)} == {
        row["tfds_id"]: int(row["idx"]) for row in train
    }
    assert len({row["tfds_id"] for row in train}) == 8


def test_a_prepared_tfds_folder_is_opened(data, home):
    sources.open_source(RTE, data)
    (imported,) = (home / "imported").iterdir()
    source = sources.open_source(RTE, imported)
    assert source.origin == "tfds" and source.splits["train"].size == 8


def test_hidden_files_are_no_data(data):
    """macOS puts ._train.jsonl beside what it copies to other disks; editors have their own."""
    (data / "rte" / "._train.jsonl").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    (data / "rte" / ".train.jsonl").write_bytes(b"\x1f\x8b")
    source = sources.open_source(RTE, data)
    assert source.splits["train"].size == 8 and not source.bad_rows and not source.notes


@pytest.mark.parametrize("name", ["dev.jsonl", "train (1).jsonl", "train-00000-of-00001.jsonl", "Train.jsonl"])
def test_a_file_whose_name_is_no_split_is_noted(data, name):
    write(data / "rte", name.removesuffix(".jsonl"), *ROWS[:2])
    (note,) = sources.open_source(RTE, data).notes
    assert note == f"rte/{name}, whose name is no split (test, train, validation)"


def test_a_file_whose_name_is_no_split_is_not_read(data, home):
    """Its rows became a split of the import, and what was wrong with them was said of data that nobody takes."""
    before = sources.open_source(RTE, data)
    (data / "rte" / "train_old.jsonl").write_bytes(b"\x00 no JSON\n" * 5)
    again = sources.open_source(RTE, data)
    assert again.builder.data_dir == before.builder.data_dir
    assert set(again.builder.info.splits) == {"train", "validation"}
    assert again.left_out == ("rte/train_old.jsonl, whose name is no split (test, train, validation)",)
    for file in (data / "rte").glob("[tv]*n.jsonl"):
        file.rename(file.with_stem(f"my_{file.stem}"))
    says = (
        "no folder rte/ of JSONL (it has my_train.jsonl, my_validation.jsonl, train_old.jsonl, whose name is no split"
    )
    with pytest.raises(sources.SourceError, match=re.escape(says)):
        sources.open_source(RTE, data)


@pytest.mark.parametrize("name", ["train.json", "train.jsonl.gz", "validation.csv", "TRAIN.JSONL", "train.ndjson"])
def test_a_file_of_another_kind_is_noted(data, name):
    (data / "rte" / name).write_bytes(b"{}")
    (note,) = sources.open_source(RTE, data).notes
    assert note == f"rte/{name}, which does not end in .jsonl"
    for file in (data / "rte").glob("*.jsonl"):
        file.unlink()
    with pytest.raises(sources.SourceError, match=re.escape(f"no folder rte/ of JSONL (it has {name}, not .jsonl)")):
        sources.open_source(RTE, data)


def test_a_file_in_place_of_a_folder_is_named(data):
    shutil.rmtree(data / "rte")
    (data / "rte").write_text("{}")
    with pytest.raises(sources.SourceError, match="rte is a file, not a folder"):
        sources.open_source(RTE, data)


def test_splits_of_other_names_alone_are_named_once(data):
    for file in (data / "rte").glob("*.jsonl"):
        file.rename(file.with_stem(f"{file.stem}-00000-of-00001"))
    with pytest.raises(sources.SourceError) as caught:
        sources.open_source(RTE, data)
    assert str(caught.value).count("dataset rte") == 1 and ".;" not in str(caught.value)


def test_bad_rows_are_named_and_the_others_imported(data):
    good = ROWS[0]
    without_idx = {k: v for k, v in ROWS[1].items() if k != "idx"}
    lines = [
        good,
        {k: v for k, v in good.items() if k != "hypothesis"},
        b'{"premise": "broken',
        b"",
        [good],
        {**good, "label": "maybe"},
        {**good, "premise": 7},
        without_idx,  # nothing reads it
        b'{"premise": "\xff"}',
        {**good, "idx": "seven"},
        {**ROWS[2], "extra": 1},
    ]
    write(data / "rte", "train", *lines)
    source = sources.open_source(RTE, data)
    problems = {row.line: row.problem for row in source.bad_rows}
    assert {row.path for row in source.bad_rows} == {"rte/train.jsonl"}
    assert problems.keys() == {2, 3, 5, 6, 7, 9, 10}
    assert problems[2] == "field 'hypothesis' is missing"
    assert problems[3].startswith("not JSON") and problems[9] == "not UTF-8"
    assert problems[5] == "not an object"
    assert problems[6].startswith("field 'label' does not fit the schema")
    assert problems[7] == "field 'premise' is int, not text"
    assert problems[10].startswith("field 'idx' does not fit the schema")
    assert str(source.bad_rows[0]) == "rte/train.jsonl line 2: field 'hypothesis' is missing"
    (imported,) = {str(source.builder.data_dir).partition("super_glue")[0]}
    rows = by_idx(map(plain, tfds.as_numpy(tfds.load(RTE.source, data_dir=imported, split="train"))))
    assert rows == [{**ROWS[1], "idx": -1}, ROWS[0], ROWS[2]]


def test_nested_fields(tmp_path):
    """SQuAD's answers: a list of objects or an object of lists fits; text or a missing part does not."""
    squad = catalog.dataset("squad_v1")
    row = {"id": "a", "title": "T", "context": "It was 1869.", "question": "When?"}
    fits = [
        {"text": ["1869"], "answer_start": [7]},
        [{"text": "1869", "answer_start": 7}],
    ]
    misfits = ["1869", {"text": ["1869"]}, {"text": ["1869"], "answer_start": ["seven"]}]
    lines = [{**row, "answers": answers} for answers in fits + misfits]
    write(tmp_path / "data" / squad.folder, "validation", *lines)
    source = sources.open_source(squad, tmp_path / "data")
    assert [row.line for row in source.bad_rows] == [3, 4, 5]
    assert source.bad_rows[0].problem == "field 'answers' is text, not a list"
    read = [*tfds.as_numpy(source.read("test"))]
    assert [[t.decode() for t in row["answers"]["text"]] for row in read] == [["1869"]] * 2


def test_no_usable_row(data):
    write(data / "rte", "train", {"premise": "P"})
    write(data / "rte", "validation", b"{")
    with pytest.raises(
        sources.SourceError, match=r"dataset rte: no usable row in .*rte/train.jsonl line 1: field"
    ) as e:
        sources.open_source(RTE, data)
    assert e.value.skipped.dataset == "rte" and e.value.skipped.remedy == "mend the files"


def test_import_is_made_once(data, home, monkeypatch):
    first = sources.open_source(RTE, data)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "import_jsonl", None)  # a second import would fail
        again = sources.open_source(RTE, data)
    assert again.builder.data_dir == first.builder.data_dir
    write(data / "rte", "train", *ROWS[:5], {"premise": "P"})
    changed = sources.open_source(RTE, data)
    assert changed.builder.data_dir != first.builder.data_dir
    assert changed.builder.info.splits["train"].num_examples == 5
    assert sources.open_source(RTE, data).bad_rows == changed.bad_rows != ()  # kept with the import
    assert len([*(home / "imported").iterdir()]) == 2


@pytest.mark.parametrize("moment", ["store", "rename"])
def test_interrupted_import_leaves_nothing(data, home, monkeypatch, moment):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "store":
            patch.setattr(tfds.dataset_builders, "store_as_tfds_dataset", stop)
        else:
            patch.setattr(sources.Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            sources.open_source(RTE, data)
    assert [*(home / "imported").glob("*")] == []
    assert sources.open_source(RTE, data).splits["train"].size == 8


# ---------------------------------------------------------------------------------------------- other sources, dead


@pytest.mark.parametrize("name", ["rte", "squad_v1", "mnli_mismatched"])
def test_bundled_samples(name):
    record = catalog.dataset(name)
    source = sources.open_source(record, "samples")
    assert (source.origin, source.bad_rows) == ("samples", ())
    folder = sources.samples_folder() / record.folder
    sizes = {p.stem: len(p.read_text("utf-8").splitlines()) for p in folder.glob("*.jsonl")}
    assert source.splits == resolve_splits(record, sizes)
    for split, part in source.splits.items():
        assert len([*source.read(split)]) == part.size


def test_dead_sources_are_named_and_the_others_open(data):
    records = [
        catalog.dataset("sst2"),  # not in the folder
        dataclasses.replace(RTE, source="super_glue/rte:99.0.0"),  # a version that TFDS does not have
        dataclasses.replace(RTE, source="no_such_data_set:1.0.0"),
        dataclasses.replace(RTE, splits=Splits(train=None, dev=None, test="test", exact=True)),  # no such split
        RTE,
    ]
    found = [*sources.open_all(records, data)]
    assert [record for record, _ in found] == records
    *dead, alive = (source for _, source in found)
    assert isinstance(alive, sources.OpenSource)
    assert all(isinstance(s, sources.Skipped) and s.remedy and len(s.reason.splitlines()) == 1 for s in dead)
    assert [s.dataset for s in dead] == ["sst2", "rte", "rte", "rte"]
    assert "no folder sst2/ of JSONL and no prepared glue/sst2" in dead[0].reason and "train.jsonl" in dead[0].remedy
    assert "TFDS has no super_glue/rte:99.0.0" in dead[1].reason
    assert "TFDS has no no_such_data_set:1.0.0" in dead[2].reason
    assert "has the splits ['train', 'validation']" in dead[3].reason


def test_manual_source_says_how_to_get_it():
    story_cloze = dataclasses.replace(RTE, source="story_cloze/2016:1.0.0", manual="ask its authors for it")
    with pytest.raises(sources.SourceError, match="has to be fetched by hand; ask its authors for it"):
        sources.open_source(story_cloze, "tfds")


def test_failed_download(tmp_path, monkeypatch):
    class DeadSource(tfds.core.GeneratorBasedBuilder):
        """A data set whose address nobody serves."""

        name = "dead_source"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"premise": tfds.features.Text()})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            raise ConnectionError("nobody answers\nat all")

        def _generate_examples(self):
            yield from ()

    builder = DeadSource(data_dir=str(tmp_path))
    monkeypatch.setattr(sources.tfds, "builder", lambda *_, **__: builder)
    record = dataclasses.replace(RTE, source="dead_source:1.0.0")
    ((_, skipped),) = sources.open_all([record], "tfds")
    assert skipped.reason == "dead_source:1.0.0 cannot be downloaded (ConnectionError: nobody answers)"
    assert "check the network" in skipped.remedy


def test_no_folder(tmp_path):
    with pytest.raises(FlanError, match="no folder .*nothing: --data is samples, tfds, or a folder of data"):
        sources.open_source(RTE, tmp_path / "nothing")


# -------------------------------------------------------------------------------------------------------- large files


def _imported(data):
    source = sources.open_source(RTE, data)
    rows = {split: [plain(row) for row in tfds.as_numpy(source.read(split))] for split in source.splits}
    return rows, source.bad_rows, source.notes


@pytest.mark.parametrize(("rows", "size"), [(1, 2**30), (2, 2**30), (3, 1), (7, 300), (100, 2**30)])
def test_chunks_change_nothing(rows, size, tmp_path, monkeypatch):
    lines = []
    for i in range(60):
        row = {"premise": f"Premise {i}.", "hypothesis": f"It is {i}.", "label": i % 2, "idx": i}
        lines.append({0: {**row, "label": -1}, 7: b"{", 14: {**row, "premise": " "}}.get(i % 21, row))
    write(tmp_path / "data" / "rte", "train", *lines)
    write(tmp_path / "data" / "rte", "validation", b"", b"{", *ROWS[:3])
    write(tmp_path / "data" / "rte", "test", b"{")  # no usable row at all
    expected = _imported(tmp_path / "data")
    assert [bad.line for bad in expected[1]] == [1, 8, 15, 29, 36, 50, 57, 2]
    assert expected[2] == ("3 rows of rte/train.jsonl without a label (first: line 1)",)
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "other_home"))
    monkeypatch.setattr(local_rows, "_CHUNK_ROWS", rows)
    monkeypatch.setattr(local_rows, "_CHUNK_BYTES", size)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)  # the same order by way of the disk
    assert _imported(tmp_path / "data") == expected


def test_bad_rows_without_end_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(local_rows, "_KEPT_BAD_ROWS", 5)
    write(tmp_path / "data" / "rte", "train", *ROWS, *[b"{"] * 40)
    source = sources.open_source(RTE, tmp_path / "data")
    assert [bad.line for bad in source.bad_rows] == [11, 12, 13, 14, 15]
    assert source.notes == ("35 bad rows of rte/train.jsonl besides these",)
    write(tmp_path / "other" / "rte", "train", *[b"{"] * 40)
    with pytest.raises(FlanError, match=r"no usable row in .*line 1: not JSON .*, and 39 more\)"):
        sources.open_source(RTE, tmp_path / "other")


def test_a_line_without_end_is_no_row(tmp_path, monkeypatch):
    """All rows in one array on one line: it is named, and the memory does not fill with it."""
    monkeypatch.setattr(json_lines, "_LONGEST_LINE", 1000)
    write(tmp_path / "data" / "rte", "train", ROWS * 20, *ROWS)
    write(tmp_path / "data" / "rte", "validation", ROWS[0], ROWS * 20)
    source = sources.open_source(RTE, tmp_path / "data")
    assert [(bad.path, bad.line) for bad in source.bad_rows] == [("rte/train.jsonl", 1), ("rte/validation.jsonl", 2)]
    assert all("longer than" in bad.problem and "write one object a line" in bad.problem for bad in source.bad_rows)
    assert source.builder.info.splits["train"].num_examples == 10


MEASURE = """
import resource, sys
import tensorflow as tf
from flan_jax import catalog, json_lines
from flan_jax.data import local_rows, sources
small, large = sys.argv[1:]
sources.open_source(catalog.dataset("rte"), small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = sources.open_source(catalog.dataset("rte"), large)
print(source.builder.info.splits["train"].num_examples)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_of_a_large_file(data, tmp_path):
    """140 MB of rows: a file of 240 MB took 466 MB when it was held whole, and takes 100 MB."""
    rows = [json.dumps({**row, "premise": "long " * 4000}) for row in ROWS]
    (tmp_path / "large" / "rte").mkdir(parents=True)
    with (tmp_path / "large" / "rte" / "train.jsonl").open("w") as file:
        for _ in range(700):
            file.write("\n".join(rows) + "\n")
    command = [sys.executable, "-c", MEASURE, str(data), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, megabytes = map(float, done.stdout.split())
    assert count == 7_000
    assert megabytes < 200


@pytest.mark.parametrize("name", ["home [x]", "home*", "home?"])
def test_a_home_with_a_pattern_is_named(data, tmp_path, monkeypatch, name):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / name))
    with pytest.raises(sources.SourceError, match="is a pattern to TFDS; set FLAN_JAX_HOME to a folder without"):
        sources.open_source(RTE, data)
