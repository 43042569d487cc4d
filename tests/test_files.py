import json
import math

import pytest

from flan_jax.errors import FlanError
from flan_jax.files import NotFiniteNumber, first_not_finite, from_json, read_lines, to_json, write_atomic

NOT_FINITE = [math.nan, math.inf, -math.inf]


def test_atomic_write_leaves_no_temporary(tmp_path):
    write_atomic(tmp_path / "deep" / "file.json", json.dumps({"a": 1}))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.json"]


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda x: x, "the value"),
        (lambda x: [1.0, x], "1"),
        (lambda x: {"datasets": {"rte": {"templates": [{"sum": 0.5}, {"sum": x}]}}}, "datasets/rte/templates/1/sum"),
        (lambda x: {"a": (0.0, {"b": x})}, "a/1/b"),
        (lambda x: {"a": "nan", "b": None, 3: x}, "3"),
    ],
)
def test_json_names_the_first_number_that_is_not_finite(number, wrap, place):
    with pytest.raises(FlanError, match=rf"results.json is not finite \({place} is {number}\): nothing is written"):
        to_json(wrap(number), what="results.json")


def test_json_of_finite_values_is_that_of_the_library():
    value = {"a": [1, 2.5, None, True, "nan\u2028é"], "b": {}}
    assert to_json(value) == json.dumps(value) and from_json(to_json(value)) == value
    assert to_json(value, indent=1, ascii_only=False) == json.dumps(value, indent=1, ensure_ascii=False)
    assert first_not_finite(value) is None


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400", '{"a": [1, NaN]}', '[{"b": 1e999}]']
)
def test_numbers_that_are_not_finite_are_not_read(text, tmp_path):
    with pytest.raises(NotFiniteNumber):
        from_json(text)
    (tmp_path / "lines").write_text('{"key": 1}\n' + text + "\n")
    with pytest.raises(NotFiniteNumber):
        read_lines(tmp_path / "lines")
    assert from_json('"NaN"') == "NaN" and from_json("1e300") == 1e300
