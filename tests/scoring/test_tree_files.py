"""Trees on disk: what is written is read, and what is not as it was written is never taken."""

import json
import random

import pytest

from flan_jax.errors import FlanError
from flan_jax.scoring import tree_files
from flan_jax.scoring.tree_files import Stored
from flan_jax.scoring.trees import Tree

KEY = {"vocabulary": "abc", "joint": "eos", "limits": [1, None]}
TREES = [
    Tree((5, 6, 7), ((1,), (2, 3)), (0, 1), (3, 4)),
    Tree((262_143, 0), ((0,),), (0,), (0,), cut_tokens=9, prefix=(1, 2, 3)),
    Tree((4,), ((8, 9), (8, 9)), (0, 1), (5, 5), prefix=(1, 2, 3)),
    Tree((), ((1, 2),), (1,), (2,)),  # nothing in common before the options
]
PLAIN = {"lines": [{"id": "a\u2028\ud800", "options": ["é", ""], "answer": 1}], "left": [{"example": 3, "reason": "…"}]}
STORED = Stored(PLAIN, {"trees": TREES, "further": {"pmi": [[TREES[0]], []], "none": []}})


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "some" / "folder" / "test_t0.trees"
    tree_files.write(place, KEY, STORED)
    return place


def test_what_is_written_is_read(path):
    assert tree_files.read(path, KEY) == STORED
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_many_random_trees(tmp_path):
    draw = random.Random(0)

    def tokens(most, least=0):
        return tuple(draw.randrange(300_000) for _ in range(draw.randint(least, most)))

    prefixes = [(), tokens(9, 1), tokens(900, 800)]
    trees = []
    for _ in range(300):
        branches = tuple(tokens(9, 1) for _ in range(draw.randint(1, 6)))
        more = (tuple(draw.randrange(len(b)) for b in branches), tuple(draw.randrange(99) for _ in branches))
        trees.append(Tree(tokens(50, 1), branches, *more, draw.randrange(3), draw.choice(prefixes)))
    stored = Stored(None, trees)
    tree_files.write(tmp_path / "a", {}, stored)
    assert tree_files.read(tmp_path / "a", {}) == stored
    integers = sum(len(t.trunk) + sum(map(len, t.branches)) + 4 + 3 * len(t.branches) for t in trees)
    most = 4 * (integers + sum(map(len, prefixes)) + 10) + 2_000
    assert (tmp_path / "a").stat().st_size < most  # the long prefix stands there once


def test_nothing_is_stored_too(tmp_path):
    tree_files.write(tmp_path / "a", {}, Stored({}, {"trees": []}))
    assert tree_files.read(tmp_path / "a", {}) == Stored({}, {"trees": []})


@pytest.mark.parametrize(
    "other", [{}, KEY | {"joint": "newline"}, KEY | {"more": None}, KEY | {"limits": [1]}, KEY | {"limits": (1, 2)}]
)
def test_another_key_is_refused(path, other):
    assert tree_files.read(path, other) is None


def test_every_flipped_bit_and_every_cut_is_noticed(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            assert tree_files.read(path, KEY) is None, (position, bit)
        path.write_bytes(whole[:position])
        assert tree_files.read(path, KEY) is None, position
    for more in (b"\0", b"\n", whole):
        path.write_bytes(whole + more)
        assert tree_files.read(path, KEY) is None


def test_another_version_is_refused(path, monkeypatch):
    monkeypatch.setattr(tree_files, "VERSION", tree_files.VERSION + 1)
    assert tree_files.read(path, KEY) is None
    tree_files.write(path, KEY, STORED)
    assert tree_files.read(path, KEY) == STORED
    assert json.loads(path.read_bytes().split(b"\n")[1])["version"] == tree_files.VERSION


def test_a_missing_file_is_no_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        tree_files.read(tmp_path / "none.trees", KEY)


def test_a_full_disk_leaves_what_was_there(small_disk):
    path = small_disk / "a.trees"
    tree_files.write(path, KEY, STORED)
    draw = random.Random(0)
    large = Stored(None, [Tree(tuple(draw.randrange(10**6) for _ in range(100_000)), ((1,),), (0,), (0,))])
    with pytest.raises(FlanError, match="no space left"):
        tree_files.write(path, KEY, large)
    assert tree_files.read(path, KEY) == STORED and [p.name for p in small_disk.iterdir()] == ["a.trees"]
