import json

from flan_jax.files import write_atomic


def test_atomic_write_leaves_no_temporary(tmp_path):
    write_atomic(tmp_path / "deep" / "file.json", json.dumps({"a": 1}))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.json"]
