import gzip
import json
import math
import re

import pytest

from flan_jax.errors import FlanError
from flan_jax.json_lines import (
    JsonLine,
    NotFiniteNumber,
    as_unicode,
    bound_lines,
    first_not_finite,
    from_json,
    parse_json,
    read_json_lines,
    read_lines,
    to_json,
)

BOM = b"\xef\xbb\xbf"
NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b'{"a": 1}\n{"a": 2}\n', {1: {"a": 1}, 2: {"a": 2}}),
        (b'{"a": 1}\n{"a": 2}', {1: {"a": 1}, 2: {"a": 2}}),  # no break after the last line
        (b'{"a": 1}\r\n\r\n  \n{"a": 2}\r\n', {1: {"a": 1}, 4: {"a": 2}}),
        (BOM + b'{"a": 1}\n', {1: {"a": 1}}),
        (BOM + b'\n{"a": 1}\n', {2: {"a": 1}}),
        (b'{"a": 1}\n' + BOM + b'{"a": 2}\n', {1: {"a": 1}, 2: {"a": 2}}),  # two files with marks, joined
        (BOM, {}),
        (b"", {}),
        (b"\n\n \t\n", {}),
    ],
)
def test_lines_are_read_whatever_stands_around_them(tmp_path, content, values):
    (tmp_path / "a.jsonl").write_bytes(content)
    found = {line.number: line.value for line in read_json_lines(tmp_path / "a.jsonl") if not line.problem}
    assert found == values
    assert list(read_json_lines(content.splitlines(keepends=True), "lines")) == list(
        read_json_lines(tmp_path / "a.jsonl")
    )


def test_lines_end_at_line_breaks_alone(tmp_path):
    text = "a\u2028b\u0085c\u2029d"
    (tmp_path / "a.jsonl").write_text(json.dumps(text, ensure_ascii=False) + "\n", "utf-8")
    assert list(read_json_lines(tmp_path / "a.jsonl")) == [JsonLine(1, text)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": ', "not JSON (Expecting value)"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),  # a surrogate in three bytes
        (b'{"a": NaN}', "not JSON (NaN)"),
        (b'{"a": -Infinity}', "not JSON (-Infinity)"),
        (b'{"a": 1e999}', "the number 1e999 is out of range"),
        (b'{"a": 1' + b"0" * 5_000 + b"}", "a number has too many digits"),
        (b'{"a": 1, "b": {"c": 2, "c": 3}}', "the key 'c' stands twice"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "the key '\ufffd' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 3_000 + b'"\\ud800"' + b"]" * 3_000, "nested too deeply"),
        (b'{"a": 1} {"a": 2}', "not JSON (Extra data)"),
        (b"{'a': 1}", "not JSON (Expecting property name enclosed in double quotes)"),
        (b"\x00\x00\x00\x00", "not JSON (Expecting value)"),
    ],
)
def test_a_broken_line_is_named_and_the_others_go_on(line, problem):
    found = list(read_json_lines([b'{"good": 1}\n', line + b"\n", b'{"good": 2}'], "lines"))
    assert found == [JsonLine(1, {"good": 1}), JsonLine(2, None, problem), JsonLine(3, {"good": 2})]
    with pytest.raises(ValueError) as error:
        parse_json(line)
    assert str(error.value) == problem


def test_what_python_writes_is_read_where_it_is_asked_for():
    line = b'{"score": NaN, "far": 1e999, "text": "one", "text": "two"}'
    assert parse_json(line, strict=False)["text"] == "two"
    assert [line.value["text"] for line in read_json_lines([line], "lines", strict=False)] == ["two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\ud800b", "a\ufffdb"), ("\udfff\udbff", "\ufffd\ufffd"), ("\ud83d\ude00", "\U0001f600"), ("é\x00", "é\x00")],
)
def test_lone_surrogates_become_replacement_characters(text, expected):
    assert as_unicode(text) == expected
    assert as_unicode({text: [text, 1, None]}) == {expected: [expected, 1, None]}
    assert parse_json(json.dumps({"a": [text]}).encode()) == {"a": [expected]}
    assert parse_json(json.dumps({"a": [text]}).upper().replace("\\U", "\\u").encode())["A"][0].encode("utf-8")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-le"), "UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-be"), "UTF-16"),
        ('{"a": 1}\n'.encode("utf-32"), "UTF-32"),
        (gzip.compress(b'{"a": 1}\n', mtime=0), "gzip"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b"PK\x03\x04....", "zip"),
        (b"PAR1....", "Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path, content, problem):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(FlanError, match=rf"a\.jsonl is .*{problem}.*; .*\.$"):
        list(read_json_lines(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("name", ["a.csv", "a.TSV"])
def test_a_table_is_named_and_json_lines_by_that_name_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbfquestion,class\nWhere is it?,delivery\n")
    with pytest.raises(FlanError, match=r"a\.(csv|TSV) is a table of text; write an object a line, as .*to_json"):
        list(read_json_lines(tmp_path / name))
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf {"a": 1}\n')
    assert [line.value for line in read_json_lines(tmp_path / name)] == [{"a": 1}]


@pytest.mark.parametrize("line", [b'[{"a": 0}]', b"{", b"<<<<<<< HEAD", b"null", b'{"a": \x00}'])
def test_a_strange_first_line_costs_no_other(line):
    found = list(read_json_lines([line + b"\n", b'{"a": 1}\n'], "lines"))
    assert [one.number for one in found] == [1, 2] and found[1] == JsonLine(2, {"a": 1})


@pytest.mark.parametrize("end", [b"\r", b" \r \r"])
def test_lines_that_end_with_cr_alone_are_named(end):
    with pytest.raises(ValueError, match="several lines that end with CR alone: save the file with LF"):
        parse_json(end.join([b'{"a": 1}', b'{"a": 2}', b""]))
    assert parse_json(b'{"a":\r1}\r') == {"a": 1}


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(FlanError, match=r"cannot read .*none\.jsonl: No such file"):
        list(read_json_lines(tmp_path / "none.jsonl"))
    with pytest.raises(FlanError, match="cannot read prompts: Is a directory"):
        list(read_json_lines(tmp_path, "prompts"))


def test_a_line_of_ten_megabytes_is_read(tmp_path):
    text = "word " * 2_000_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "b"}))
    assert [line.value["text"] for line in read_json_lines(tmp_path / "a.jsonl")] == [text, "b"]


# ---------------------------------------------------------------------------------------------------- results


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


LINES = [{"id": 0, "prediction": "Zwölf\u2028Uhr"}, {"id": 1, "prediction": "no"}, {"id": 2, "prediction": "no"}]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("no", "ja", 1),
        lambda text: text.replace('"k"', '"l"'),
        lambda text: text.replace('"left_out": ["x"]', '"left_out": []'),
        lambda text: re.sub(r'"digest": "\w*"', '"digest": null', text).replace("no", "ja", 1),
        lambda text: "".join(text.splitlines(True)[:-1]),  # the last line is gone
        lambda text: "".join([*text.splitlines(True), text.splitlines(True)[-1]]),
        lambda text: "".join([text.split("\n")[0] + "\n", *reversed(text.split("\n")[1:-1])]),
        lambda text: text[:-20],
        lambda text: "[]\n" + text,
        lambda text: "",
    ],
)
def test_lines_of_results_that_were_changed_are_not_read(change, tmp_path):
    text = bound_lines({"key": "k", "left_out": ["x"]}, LINES, "lines")
    path = tmp_path / "lines"
    path.write_text(text)
    header, *lines = read_lines(path)
    assert lines == LINES and {"key": "k", "left_out": ["x"]}.items() < header.items()
    path.write_bytes(text.replace("\n", "\r\n").encode())  # as some programs copy it
    assert read_lines(path)[1:] == LINES
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(ValueError):
        read_lines(path)
