import gzip
import json
import subprocess
import sys
import unicodedata

import pytest

from flan_jax import audit, catalog, configuration
from flan_jax.checkpoint.manifest import UNKNOWN, UNTUNED, Manifest
from flan_jax.data import examples as example_files
from flan_jax.data import token_store
from flan_jax.data.identity import Identities
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.errors import FlanError
from flan_jax.overlap import audited, seen, texts

BYTES = ByteTokenizer()
LONG = "the castle on the hill above the river was taken down by monks in the year of the great flood"
OTHER = "nobody in the whole of the town could tell where the baker had left his small red cart that day"


def _lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def run(capsys):
    """Runs the command: its status, its lines and its error line."""

    def run(*arguments):
        try:
            audit.main([str(a) for a in arguments])
            status = 0
        except SystemExit as stop:
            status = stop.code
        out, error = capsys.readouterr()
        return status, out.strip().split("\n"), error.strip().split("\n")[-1]

    return run


def _json(run, *arguments):
    status, lines, error = run(*arguments, "--json")
    assert lines[-1].startswith("{"), error
    return status, json.loads(lines[-1])


@pytest.fixture
def data(tmp_path):
    """A folder of data whose evaluation sets meet its training sets in known ways."""
    folder = tmp_path / "data"
    _lines(
        folder / "rte" / "validation.jsonl",
        *({"premise": t, "hypothesis": "It is so.", "label": 0} for t in (LONG, OTHER)),
    )
    _lines(folder / "rte" / "train.jsonl", {"premise": "Ann sang.", "hypothesis": "She sang.", "label": 1})
    _lines(folder / "sst2" / "train.jsonl", {"sentence": f"They say that {LONG.upper()}!", "label": 1})
    _lines(folder / "sst2" / "validation.jsonl", {"sentence": "A film.", "label": 1})
    return folder


# ------------------------------------------------------------------------------------------------------- the shared


def test_xquad_is_in_squad_and_in_qnli(run, shared):
    files = str(shared / "data" / "xquad_parallel_*" / "*.jsonl")
    status, found = _json(run, "--tuned", files, "--evaluated", "squad_v1", "qnli", "--data", shared / "data")
    assert status == audited.SEEN
    rows = {row["evaluated"]: row for row in found["rows"]}
    assert [rows["squad_v1"][key] for key in ("seen", "records")] == [1000, 1000]
    assert [rows["qnli"][key] for key in ("seen", "records")] == [115, 997]
    assert set(rows["squad_v1"]["kin"]) == set(rows["qnli"]["kin"]) == {"xquad"}


# ------------------------------------------------------------------------------------------------------------ files


def test_one_table_says_how_each_set_was_seen(run, tmp_path, data):
    mine = _lines(tmp_path / "mine.jsonl", {"prompt": f"Read this.\n{OTHER}\nIs it so?", "target": "no"})
    status, lines, _ = run("--tuned", "sst2", mine, "--evaluated", "rte", "--data", data)
    assert status == audited.SEEN
    assert lines[0].split()[:2] == ["evaluated", "tuned"] and "13-gram" in lines[0]
    rows = [line.split() for line in lines if line.startswith(" rte")]
    assert [row[1] for row in rows] == ["sst2", rows[1][1], "all"]
    # The text of sst2 has one premise in a longer sentence; the prompt has the other as a line of its own.
    numbers = [[int(cell) for cell in row[4:9]] for row in rows]
    assert numbers == [[2, 0, 0, 1, 1], [2, 0, 1, 1, 1], [2, 0, 1, 2, 2]]


FORMS = {
    "as it is": LONG,
    "case": LONG.upper(),
    "white space": LONG.replace(" ", " \u00a0\t\n "),
    "punctuation": LONG.replace(" ", ", ") + "!",
    "entities": "&quot;" + LONG.replace(" ", "&#160;") + "&quot;",
    "byte order mark": "\ufeff" + LONG,
    "zero width": LONG.replace("castle", "cas\u200btle"),
    "full width": LONG.replace("year", "ｙｅａｒ"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_forms_of_one_text(run, tmp_path, form, packed):
    tuned = tmp_path / "tuned.jsonl"
    _lines(tuned, {"text": FORMS[form]})
    content = b"\xef\xbb\xbf" + tuned.read_bytes()
    tuned.write_bytes(gzip.compress(content) if packed else content)
    mine = _lines(tmp_path / "mine.jsonl", {"question": LONG}, {"question": OTHER})
    status, found = _json(run, "--tuned", tuned, "--evaluated", mine)
    (row,) = found["rows"]
    assert (status, row["identical"], row["text"], row["ngram"], row["seen"]) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
def test_normal_forms(run, tmp_path, form):
    text = "Où est né le célèbre garçon naïf?"
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": unicodedata.normalize(form, text)})
    mine = _lines(tmp_path / "mine.jsonl", {"question": text})
    assert _json(run, "--tuned", tuned, "--evaluated", mine)[1]["rows"][0]["text"] == 1


def test_records_that_differ_in_the_label_are_seen(run, tmp_path):
    tuned = _lines(
        tmp_path / "tuned.jsonl", {"premise": "Ann sings.", "hypothesis": "She sings.", "label": 1, "idx": 7}
    )
    mine = _lines(tmp_path / "mine.jsonl", {"premise": "Ann sings.", "hypothesis": "She sings.", "label": 0, "idx": 9})
    row = _json(run, "--tuned", tuned, "--evaluated", mine)[1]["rows"][0]
    assert (row["identical"], row["short"], row["seen"]) == (1, 1, 1)


def test_plain_text_and_text_over_blocks(run, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK_BYTES", 64)
    plain = tmp_path / "book.txt"
    plain.write_text("It begins.\n" * 9 + LONG + "\n" + "And it ends.\n" * 9)
    mine = _lines(tmp_path / "mine.jsonl", {"text": LONG}, {"text": OTHER})
    row = _json(run, "--tuned", plain, "--evaluated", mine)[1]["rows"][0]
    assert (row["ngram"], row["seen"]) == (1, 1)


def test_a_short_line_at_the_end_of_a_block(run, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK_BYTES", 64)
    plain = tmp_path / "book.txt"
    mine = _lines(tmp_path / "mine.jsonl", {"text": "Where did the cart go?"})
    for before in range(30, 70):
        plain.write_text("It begins.\n" + "z" * before + "\nWhere did the cart go?\nAnd it ends.\n")
        assert _json(run, "--tuned", plain, "--evaluated", mine)[1]["rows"][0]["text"] == 1, before


@pytest.mark.parametrize("text", ["{}\ryes", "1. {}\n2. no", "(b) {}", "3) Question: {}", "{}<br>yes", "x<BR/>{}"])
def test_a_short_text_on_a_line_of_its_own(run, tmp_path, text):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": text.format("Where did the cart go?")})
    mine = _lines(tmp_path / "mine.jsonl", {"text": "Where did the cart go?"})
    assert _json(run, "--tuned", tuned, "--evaluated", mine)[1]["rows"][0]["text"] == 1


def test_short_texts_of_very_many_records_are_not_clean(run, tmp_path, monkeypatch):
    monkeypatch.setattr(seen, "COMMON", 5)
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": "Where did the cart go?"}, {"text": OTHER})
    mine = _lines(
        tmp_path / "mine.jsonl", *[{"text": "Where did the cart go?", "n": i} for i in range(7)], {"text": LONG}
    )
    status, found = _json(run, "--tuned", tuned, "--evaluated", mine)
    assert status == audited.INCOMPLETE and "7 records show only short texts" in found["rows"][0]["reason"]


@pytest.mark.parametrize("suffix", ["", ".gz", "-00000-of-00002"])
def test_all_shards_of_a_test_set_are_read(run, tmp_path, suffix):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": LONG}, {"text": OTHER})
    folder = tmp_path / "data" / "rte"
    row = {"premise": LONG, "hypothesis": "It is so.", "label": 0}
    path = _lines(folder / f"validation.jsonl{suffix}", row)
    if suffix == ".gz":
        folder.joinpath("validation.jsonl.gz").write_bytes(
            gzip.compress(folder.joinpath("validation.jsonl.gz").read_bytes())
        )
    more = path.replace("-00000", "-00001") if "-" in suffix else f"{folder}/train.jsonl"
    _lines(folder / more, row | {"premise": OTHER})
    rows = _json(run, "--tuned", tuned, "--evaluated", "rte", "--data", tmp_path / "data")[1]["rows"]
    expected = 2 if "-" in suffix else 1
    assert (rows[0]["records"], rows[0]["seen"]) == (expected, expected)


def test_the_same_file_twice_and_equal_records(run, tmp_path):
    tuned = _lines(tmp_path / "tuned.jsonl", *[{"text": LONG}] * 3)
    (tmp_path / "link.jsonl").symlink_to(tuned)
    mine = _lines(tmp_path / "mine.jsonl", *[{"text": LONG}] * 4)
    arguments = ("--tuned", tmp_path / "*.jsonl", tuned, tuned, "--evaluated", mine, mine)
    found = _json(run, *arguments)[1]
    assert [row["tuned"] == "all" for row in found["rows"]] == [False, False, True]
    assert {row["seen"] for row in found["rows"]} == {4}


def test_records_too_short_are_said(run, tmp_path):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": OTHER})
    mine = _lines(tmp_path / "mine.jsonl", {"q": "Who is it?"}, {"q": "  …"}, {"q": LONG}, {})
    status, lines, _ = run("--tuned", tuned, "--evaluated", mine)
    assert status == audited.NOTHING
    assert any("3 of 4 records have no text of 13 words" in line and "matched whole" in line for line in lines)
    assert any("2 records have under 3 words in all" in line for line in lines)


def test_answers_of_plain_rows_are_no_evidence(run, tmp_path):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": "The University of Chicago"})
    rows = {"question": OTHER, "answers": {"text": ["The University of Chicago"]}, "title": "The University of Chicago"}
    status, lines, _ = run("--tuned", tuned, "--evaluated", _lines(tmp_path / "mine.jsonl", rows))
    assert status == audited.NOTHING
    assert any("answers, title not compared, being named like answers" in line for line in lines)


@pytest.mark.parametrize("name", ["reference_passage", "source_document", "answer_context", "title_question", "source"])
def test_a_passage_is_looked_for_whatever_it_is_called(run, tmp_path, name):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": LONG})
    mine = _lines(tmp_path / "mine.jsonl", {name: LONG, "target": "Die Burg wurde abgetragen."})
    row = _json(run, "--tuned", tuned, "--evaluated", mine)[1]["rows"][0]
    assert row["seen"] == 1 and row["passed_over"] == ["target"]


def test_what_is_not_looked_for_is_named(run, tmp_path):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": LONG})
    mine = _lines(
        tmp_path / "mine.jsonl", {"labeled_sentence": LONG, "question": OTHER, "id": "a", "label": "entailment"}
    )
    row = _json(run, "--tuned", tuned, "--evaluated", mine)[1]["rows"][0]
    assert row["seen"] == 0 and row["passed_over"] == ["labeled_sentence"]


# ----------------------------------------------------------------------------------------------- names, checkpoints


def _store(folder, name, *rows):
    examples = [
        token_store.TokenizedExample(*BYTES.encode([" ".join(row.values()), "x"]), 0, n) for n, row in enumerate(rows)
    ]
    info = {"num_records": len(rows), "renderings": 1, "vocab_size": BYTES.vocab_size}
    place = token_store.folder_of(folder, BYTES.fingerprint) / name
    found = token_store.write_dataset(
        place, info, examples, records=Identities.of((str(i), r) for i, r in enumerate(rows))
    )
    return {"dataset": name} | {key: found[key] for key in ("digest", "records_digest")}


@pytest.fixture
def prepared(tmp_path):
    """(PREPARED_DIR, a checkpoint that was tuned on its sst2)."""
    folder, model = tmp_path / "prepared", tmp_path / "model"
    entry = _store(folder, "sst2", {"sentence": f"Someone said: {LONG}."})
    fields = {"options": ["yes", "no"], "answer": "no"}
    rows = [(str(i), {"premise": t, "hypothesis": "It is."} | fields) for i, t in enumerate((LONG, OTHER))]
    example_files.write_folder(folder / "examples" / "rte", {"test": rows})
    rows = [("0", {"sentence": "A film.", "options": ["negative", "positive"], "answer": "positive"})]
    example_files.write_folder(folder / "examples" / "sst2", {"test": rows})
    manifest = Manifest.create(configuration.model_config("tiny"), BYTES, UNTUNED)
    manifest.inherit(["sst2"], ["sentiment"], "eos", {}, [entry]).save(model)
    BYTES.save(model / "vocabulary")
    return folder, model


def test_a_checkpoint(run, prepared):
    folder, model = prepared
    status, found = _json(run, "--tuned", model, "--evaluated", "rte", "sst2", "--prepared", folder)
    rte, sst2 = found["rows"]
    assert status == audited.SEEN and (rte["name"], rte["ngram"], rte["checked"]) == ("", 1, True)
    assert (sst2["name"], sst2["seen"], sst2["short"]) == ("dataset", 0, 1)
    _, found = _json(run, "--tuned", model, "--evaluated", folder, "--prepared", folder)
    assert {row["evaluated"] for row in found["rows"]} == {"rte", "sst2"}
    assert run("--tuned", model, "--evaluated", "rte", "--prepared", folder.parent)[0] == 2


@pytest.mark.parametrize("status", [UNKNOWN, UNTUNED, "old"])
def test_a_checkpoint_that_does_not_say(run, prepared, tmp_path, status):
    folder, model = prepared
    manifest = Manifest.load(model)
    tuning = {"status": status, "datasets": [], "clusters": [], "text": []}
    if status == "old":
        tuning = {key: manifest.tuning[key] for key in ("status", "datasets", "clusters")}
    values = json.loads((model / "manifest.json").read_text()) | {"tuning": tuning}
    del values["digest"]
    (model / "manifest.json").write_text(json.dumps(values))
    code, found = _json(run, "--tuned", model, "--evaluated", "rte", "--prepared", folder)
    (row,) = found["rows"]
    assert code == audited.INCOMPLETE and not row["checked"] and row["reason"] and row["seen"] == 0
    assert "no " in run("--tuned", model, "--evaluated", "rte", "--prepared", folder)[1][1]  # compared: no


def test_a_prepared_folder_a_mixture_and_a_cluster(run, prepared):
    folder, _ = prepared
    for given in (folder, "sentiment", "sst2", "flan_sst2"):
        status, found = _json(run, "--tuned", given, "--evaluated", "rte", "--prepared", folder)
        assert status == audited.SEEN and found["rows"][0]["ngram"] == 1
    status, found = _json(run, "--tuned", "flan_without_nli", "--evaluated", "nli", "--prepared", folder)
    assert "not in" in found["rows"][0]["reason"] and found["rows"][0]["name"] == ""


def test_the_hold_out_rule_counts_as_a_name(run, data):
    _lines(data / "glue_mrpc" / "train.jsonl", {"sentence1": "a", "sentence2": "b", "label": 1})
    found = _json(run, "--tuned", "glue_mrpc", "--evaluated", "rte", "--data", data)[1]
    assert found["rows"][0]["name"] == "cluster" and found["status"] == audited.SEEN


def test_tokens_of_another_vocabulary(run, prepared, tmp_path):
    folder, _ = prepared
    place = next(folder.glob("tokens/*"))
    place.rename(place.with_name("0" * 16))
    status, found = _json(run, "--tuned", "sst2", "--evaluated", "rte", "--prepared", folder)
    assert status == audited.INCOMPLETE and "give --vocabulary" in found["rows"][0]["reason"]


# --------------------------------------------------------------------------------------------- no false "clean"

ROW = json.dumps({"text": LONG})
BESIDE = {  # what lies beside a clean file of JSON lines: (name, content, status)
    "a folder": ("deep/er/more.jsonl", ROW.encode(), audited.SEEN),
    "capitals": ("MORE.JSONL", ROW.encode(), audited.SEEN),
    "another suffix": ("more.ndjson", ROW.encode(), audited.SEEN),
    "one object": ("more.json", json.dumps({"data": [{"text": LONG}]}).encode(), audited.SEEN),
    "a glob in its name": ("more [v2]*.jsonl", ROW.encode(), audited.SEEN),
    "packed": ("more.jsonl.gz", gzip.compress(ROW.encode()), audited.SEEN),
    "text": ("more.txt", LONG.encode(), audited.SEEN),
    "CSV": ("more.csv", f"text,label\n{LONG},1\n".encode(), audited.SEEN),
    "Parquet": ("more.parquet", b"PAR1" + bytes(99), audited.INCOMPLETE),
    "UTF-16": ("more.txt", LONG.encode("utf-16"), audited.INCOMPLETE),
    "of the system": (".DS_Store", bytes(99), audited.NOTHING),
    "about it": ("README.md", b"# Data", audited.NOTHING),
}


@pytest.mark.parametrize("what", BESIDE)
def test_nothing_in_a_folder_is_passed_over(run, tmp_path, what):
    name, content, expected = BESIDE[what]
    _lines(tmp_path / "folder" / "clean.jsonl", {"text": OTHER})
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    evaluated = _lines(tmp_path / "set.jsonl", {"text": LONG})
    status, found = _json(run, "--tuned", tmp_path / "folder", "--evaluated", evaluated)
    assert status == expected
    assert (name in found["rows"][0]["reason"]) == (expected == audited.INCOMPLETE)
    # the other way round, with what is no JSON lines named
    status, found = _json(run, "--tuned", evaluated, "--evaluated", tmp_path / "folder")
    readable = expected == audited.NOTHING or "json" in name.lower()
    assert status == (expected if readable else audited.INCOMPLETE)
    assert [str(path) in reason for reason in found["left_out"]] == ([] if readable else [True])


def test_a_link_to_the_folder_above_ends(run, tmp_path):
    _lines(tmp_path / "folder" / "clean.jsonl", {"text": OTHER})
    (tmp_path / "folder" / "round").symlink_to(tmp_path / "folder")
    _lines(tmp_path / "elsewhere" / "more.jsonl", {"text": LONG})
    (tmp_path / "folder" / "linked").symlink_to(tmp_path / "elsewhere")
    status, found = _json(run, "--tuned", tmp_path / "folder", "--evaluated", tmp_path / "elsewhere" / "more.jsonl")
    assert status == audited.SEEN and found["rows"][0]["identical"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "中国科学院的研究人员昨天宣布他们发现了一种新的恐龙化石,这种恐龙生活在一亿两千万年以前的辽宁省西部地区。",
        "日本の首都である東京は世界で最も人口の多い都市の一つであり、毎年多くの観光客が訪れています。",
        "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทย",
        "서울은 대한민국의 수도이자 최대 도시이며 한강을 끼고 있고 조선 왕조 때부터 수도로 쓰인 아주 오래된 도시이다",
        "नई दिल्ली भारत की राजधानी है और यह देश के उत्तर में स्थित एक बहुत बड़ा और पुराना नगर है",
    ],
)
def test_other_scripts_within_a_text(run, tmp_path, text):
    evaluated = _lines(tmp_path / "set.jsonl", {"text": text})
    for around in (f"前{text}後", f"{text} {OTHER}", text[4:-4]):
        status, _ = _json(run, "--tuned", _lines(tmp_path / "tuned.jsonl", {"text": around}), "--evaluated", evaluated)
        assert status == audited.SEEN
    status, _ = _json(run, "--tuned", _lines(tmp_path / "tuned.jsonl", {"text": text[::-1]}), "--evaluated", evaluated)
    assert status == audited.NOTHING


def test_a_set_of_a_cluster_that_is_missing_is_said(run, tmp_path, data):
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": "The weather was fine on all of the days that we had there."})
    status, found = _json(run, "--tuned", tuned, "--evaluated", "nli", "--data", data)
    assert status == audited.INCOMPLETE and [row["evaluated"] for row in found["rows"]] == ["rte"]
    assert any("of snli in" in reason for reason in found["left_out"])
    _, lines, _ = run("--tuned", tuned, "--evaluated", "nli", "--data", data)
    assert any(line.startswith("Not compared: no validation.jsonl") or "of snli in" in line for line in lines)


@pytest.mark.parametrize("row", [{"a": 1, "b": [2.5]}, {"label": 1}, {"answer": "yes"}, {"text": "x[i]+=y[i]*z[i];"}])
def test_a_set_without_words_is_not_clean(run, tmp_path, row):
    evaluated = _lines(tmp_path / "set.jsonl", row, {})
    tuned = _lines(tmp_path / "tuned.jsonl", {"text": LONG})
    status, found = _json(run, "--tuned", tuned, "--evaluated", evaluated)
    assert status == audited.INCOMPLETE and "under 3 words" in found["rows"][0]["reason"]


def test_what_is_read_is_not_overwritten(run, tmp_path, data):
    path = tmp_path / "tuned [1].jsonl"
    before = _lines(path, {"text": LONG}) and path.read_bytes()
    for to in (path, tmp_path / "data" / ".." / path.name):
        status, _, error = run("--tuned", path, "--evaluated", "rte", "--data", data, "--to", to)
        assert status == 2 and "would be lost" in error and path.read_bytes() == before


# ----------------------------------------------------------------------------------------------------------- errors

HOSTILE = {
    "no file": (("--tuned", "none.jsonl", "--evaluated", "good.jsonl"), "no corpus file matches 'none.jsonl'"),
    "no name": (("--tuned", "good.jsonl", "--evaluated", "rtee"), "did you mean 'rte'"),
    "no place": (("--tuned", "rte", "--evaluated", "good.jsonl"), "say with --prepared or --data where its text is"),
    "no place of a set": (("--tuned", "good.jsonl", "--evaluated", "rte"), "say with --prepared or --data"),
    "no folder": (("--tuned", "good.jsonl", "--evaluated", "rte", "--data", "none"), "--data=none is no folder"),
    "a word of others": (
        ("--tuned", "rte", "--evaluated", "cb", "--data", "tfds"),
        "give samples, or a folder of JSONL",
    ),
    "an empty folder": (("--tuned", "void", "--evaluated", "good.jsonl"), "give a checkpoint, a prepared folder"),
    "cut off": (("--tuned", "cut.jsonl.gz", "--evaluated", "good.jsonl"), "cut.jsonl.gz cannot be read"),
    "cut off set": (("--tuned", "good.jsonl", "--evaluated", "cut.jsonl.gz"), "cut.jsonl.gz cannot be read"),
    "no JSON": (("--tuned", "bad.jsonl", "--evaluated", "good.jsonl"), "bad.jsonl line 2: not JSON"),
    "no object": (("--tuned", "good.jsonl", "--evaluated", "list.jsonl"), "an object a record"),
    "plain set": (("--tuned", "good.jsonl", "--evaluated", "plain.txt"), "plain.txt is no evaluation set"),
    "only numbers": (("--tuned", "numbers.jsonl", "--evaluated", "good.jsonl"), "numbers.jsonl holds no text"),
    "empty": (("--tuned", "empty.jsonl", "--evaluated", "good.jsonl"), "empty.jsonl holds no text"),
    "empty set": (("--tuned", "good.jsonl", "--evaluated", "empty.jsonl"), "has no records"),
    "binary": (("--tuned", "binary.jsonl", "--evaluated", "good.jsonl"), "binary.jsonl is binary"),
    "n": (("--tuned", "good.jsonl", "--evaluated", "good.jsonl", "--ngram", "0"), "--ngram"),
    "mismatched": (("--tuned", "good.jsonl", "--evaluated", "mnli_mismatched", "--data", "."), "validation_mismatched"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_errors_are_one_line(run, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    _lines(tmp_path / "good.jsonl", {"text": LONG})
    (tmp_path / "void").mkdir()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": LONG * 99}).encode())[:-12])
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "list.jsonl").write_text('{"a": "b"}\n["a"]\n')
    (tmp_path / "plain.txt").write_text(LONG)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "numbers.jsonl").write_text('{"a": 1, "b": null}\n')
    (tmp_path / "binary.jsonl").write_bytes(b"\0\1\2" * 99)
    arguments, expected = HOSTILE[what]
    status, lines, error = run(*arguments)
    assert status == 2 and lines == [""] and error.startswith("flan_jax: ") and expected in error


def test_old_examples_are_refused_by_name(run, prepared, tmp_path):
    folder, model = prepared
    info = folder / "examples" / "rte" / "info.json"
    info.write_text(json.dumps({k: v for k, v in json.loads(info.read_text()).items() if k != "version"}))
    status, _, error = run("--tuned", model, "--evaluated", "rte", "--prepared", folder)
    assert status == 2 and "'rte'" in error and "earlier version" in error and "--overwrite" in error


def test_the_text_of_names_may_be_the_samples(run, tmp_path):
    status, found = _json(run, "--tuned", "sst2", "--evaluated", "rte", "cb", "--data", "samples")
    assert status == 0 and [(row["evaluated"], row["checked"]) for row in found["rows"]] == [
        ("rte", True),
        ("cb", True),
    ]


def test_the_results_are_written(run, tmp_path, data):
    to = tmp_path / "out" / "audit.json"
    _, found = _json(run, "--tuned", "sst2", "--evaluated", "rte", "--data", data, "--to", to)
    assert json.loads(to.read_text()) == found


def test_without_jax_and_tensorflow(data):
    code = (
        "import sys; from flan_jax.overlap import audited, given\n"
        f"audited.audit(['sst2'], ['rte'], given.Places(data={str(data)!r}))\n"
        "print(sorted({'tensorflow', 'orbax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_declared_kin_are_real_names():
    for record in catalog.datasets():
        for other, how in catalog.kin_of(record.name).items():
            assert other != record.name and how and not how.endswith(".")
            assert catalog.kin_of(other)[record.name] == how
            assert catalog.exists(other) or other in ("xquad", "multi30k", "hotpot_qa")
    assert set(catalog.kin_of("qnli")) == {"squad_v1", "squad_v2", "xquad"}
    assert "snli" not in catalog.kin_of("anli_r1") and not catalog.kin_of("cola")
    with pytest.raises(FlanError):
        catalog.dataset("xquad")
