import json

import pytest

from flan_jax import content
from flan_jax.data import examples
from flan_jax.errors import FlanError

ROWS = [("a 1", {"text": "x\u2028y é", "options": ["p", "q"]}), ("a 2", {"text": ""}), ("a 3", {"text": ""})]


@pytest.fixture
def folder(tmp_path):
    examples.write_folder(tmp_path / "examples" / "rte", {"test": iter(ROWS), "dev": ROWS[:1]}, {"key": 3})
    return tmp_path / "examples" / "rte"


def _read(folder, split="test", **more):
    return examples.read(folder.parents[1], "rte", split, **more)


def test_records_carry_their_hash(folder):
    rows = _read(folder)
    assert [(row["id"], row["fields"]) for row in rows] == ROWS
    assert [row["hash"] for row in rows] == [content.content_hash(fields) for _, fields in ROWS]
    assert rows[1]["hash"] == rows[2]["hash"] != rows[0]["hash"]
    assert _read(folder, limit=2) == rows[:2]
    info = json.loads((folder / "info.json").read_text())
    assert info["sizes"] == {"test": 3, "dev": 1} and info["key"] == 3
    assert info["files"]["test"]["content"] == content.digest(row["hash"] for row in rows)


def test_what_is_missing(folder):
    with pytest.raises(FlanError, match=r"no exemplars of 'rte' in .*: run python -m flan_jax.prepare --datasets=rte"):
        _read(folder, "exemplars")
    (folder / "dev.jsonl").unlink()
    with pytest.raises(FlanError, match=r"dev.jsonl is not as it was prepared .*--overwrite"):  # it was there
        _read(folder, "dev")
    examples.write_folder(folder, {"test": ROWS})
    assert _read(folder, "dev") == []


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (("a 4", {"text": "x", "options": ["p", "\udfff"]}), r"'a 4' of .*test.jsonl: its field 'options' has a lone"),
        (("a 5", {"text": "x\ud800y"}), r"'a 5' of .*test.jsonl: its field 'text' has a lone surrogate \('\\ud800'\)"),
        (("\ud800", {"text": "x"}), r"'\ufffd' of .*test.jsonl: its id has a lone surrogate"),
    ],
)
def test_a_lone_surrogate_is_named_and_nothing_is_replaced(folder, row, where):
    before = _read(folder)
    with pytest.raises(FlanError, match=where) as caught:
        examples.write_folder(folder, {"test": [*ROWS, row]})
    assert "\n" not in str(caught.value)
    str(caught.value).encode()
    assert _read(folder) == before and [path.name for path in folder.parent.iterdir()] == ["rte"]


DAMAGE = {
    "a letter": lambda text: text.replace("a 1", "a 9", 1),
    "a line less": lambda text: text.partition("\n")[2],
    "a line twice": lambda text: text + text.split("\n")[0] + "\n",
    "another order": lambda text: "\n".join(text.strip().split("\n")[::-1]) + "\n",
    "empty": lambda text: "",
    "other ends of lines": lambda text: text.replace("\n", "\r\n"),
    "a byte order mark": lambda text: "\ufeff" + text,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("limit", [None, 1])
def test_a_changed_file_is_refused(folder, damage, limit):
    path = folder / "test.jsonl"
    path.write_bytes(DAMAGE[damage](path.read_bytes().decode()).encode())
    with pytest.raises(FlanError, match=r"test.jsonl is not as it was prepared .*--overwrite"):
        _read(folder, limit=limit)


@pytest.mark.parametrize("info", [None, "{", "[]", "{}", '{"version": 1}', '{"key": 3, "sizes": {"test": 3}}'])
def test_a_folder_of_an_earlier_version_is_refused_by_name(folder, info):
    (folder / "info.json").unlink()
    if info is not None:
        (folder / "info.json").write_text(info)
    with pytest.raises(FlanError, match=r"'rte' in .* earlier version .* --datasets=rte --to=.* --overwrite"):
        _read(folder)


def test_files_of_other_data_do_not_fit(folder, tmp_path):
    examples.write_folder(tmp_path / "b" / "examples" / "rte", {"test": ROWS[::-1], "dev": ROWS[:1]})
    (folder / "test.jsonl").write_bytes((tmp_path / "b" / "examples" / "rte" / "test.jsonl").read_bytes())
    with pytest.raises(FlanError, match="not as it was prepared"):
        _read(folder)
    assert _read(folder, "dev")
