"""Dev and test examples and exemplars as they are prepared: all that evaluation asks, bad ones named."""

import json

import pytest
import seqio

from flan_jax import catalog, content, prepare, protocol, styles
from flan_jax.data import examples, preparation, records, sources, tasks, token_store, training_records, vocabularies
from flan_jax.data.builder import ExampleBuilder
from flan_jax.errors import FlanError
from flan_jax.evaluation import units

PAIRS = [
    ("The house is old.", "La maison est vieille."),
    ("Paris 2012", "Paris, 2012"),
    ("The house is old.", "La maison est ancienne."),  # one text, two translations
    ("Open the door, please.", "Ouvrez la porte, s'il vous plaît."),
    ("It was raining.", "Il pleuvait."),
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAN_JAX_HOME", str(tmp_path / "home"))


def conversation(story, questions, answers):
    of = {"input_text": answers, "answer_start": [0] * len(answers), "answer_end": [1] * len(answers)}
    return {"source": "race", "story": story, "questions": questions, "answers": of}


def talk(story, turns):
    return conversation(story, [f"{story} q{n}?" for n in range(turns)], [f"{story} a{n}" for n in range(turns)])


def opened(name, tmp_path, **splits):
    folder = tmp_path / "data" / catalog.dataset(name).folder
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sources.open_source(catalog.dataset(name), tmp_path / "data")


def prepared(name, tmp_path, **splits):
    source = opened(name, tmp_path, **splits)
    return preparation.prepare_examples(catalog.dataset(name), source, tmp_path / "to"), source


def pairs(count):
    return [{"en": f"Number {n}.", "fr": f"Numéro {n}."} for n in range(count)]


def test_every_direction_has_all_records_and_all_exemplars(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "EXEMPLAR_POOL", 7)
    rows = [{"en": en, "fr": fr} for en, fr in PAIRS]
    info, _ = prepared("wmt14_enfr", tmp_path, train=pairs(20), validation=pairs(3), test=rows)
    assert info["sizes"] == {"dev": 6, "test": 10, "exemplars": 14} and info["unusable"] == 0
    found = {}
    for one in catalog.variants(catalog.dataset("wmt14_enfr")):
        test = examples.read(tmp_path / "to", one.name, "test")
        sides = ("en", "fr") if one.variant == "en-fr" else ("fr", "en")
        asked = [(r["fields"]["source"], r["fields"]["answer"]) for r in test]  # in the order in which TFDS stores them
        assert sorted(asked) == sorted(tuple(r[s] for s in sides) for r in rows)
        for split, count in (("dev", 3), ("exemplars", 7)):
            kept = examples.read(tmp_path / "to", one.name, split)
            assert len(kept) == count and {r["fields"]["variant"] for r in kept} == {one.variant}
        assert {r["fields"]["variant"] for r in test} == {one.variant}
        assert examples.read(tmp_path / "to", one.name, "test", 2) == test[:2]  # not one of each direction
        found[one.variant] = test
    every = [row for test in found.values() for row in test]
    assert len({row["hash"] for row in every}) == len({row["id"] for row in every}) == 10
    assert all(row["hash"] == content.content_hash(row["fields"]) for row in every)
    assert [catalog.record_id(row["id"]) for row in found["en-fr"]] == [
        catalog.record_id(row["id"]) for row in found["fr-en"]
    ]
    whole = examples.read(tmp_path / "to", "wmt14_enfr", "test")
    assert sorted(row["id"] for row in whole) == sorted(row["id"] for row in every)


@pytest.mark.parametrize("name", ["wmt14_enfr", "coqa"])
@pytest.mark.parametrize("style", ["2_shots", "2_shared_shots"])
def test_seqio_asks_what_the_evaluator_asks(name, style, tmp_path):
    record, asked = catalog.dataset(name), styles.parse(style)
    source = sources.open_source(record, "samples")
    preparation.prepare_examples(record, source, tmp_path)
    number = record.forward_templates[0]
    tasks.register(names=[f"flan_{name}_{style}_t{number}"])
    task = seqio.get_mixture_or_task(f"flan_{name}_{style}_t{number}")
    rows = task.get_dataset(None, "test", shuffle=False).as_numpy_iterator()
    shown = {row["record_id"].decode(): row["inputs_pretokenized"].decode() for row in rows}
    wanted = {}
    for one in catalog.variants(record):
        pool = [(row["id"], row["fields"]) for row in examples.read(tmp_path, one.name, "exemplars")]
        builder = ExampleBuilder(one, asked, pool=pool, tokenizer=vocabularies.ByteTokenizer())
        for row in examples.read(tmp_path, one.name, "test"):
            wanted[row["id"]] = builder.build(row["id"], row["fields"], number).inputs
    assert shown == wanted and len(wanted) == {"wmt14_enfr": 12, "coqa": 42}[name]


def test_a_long_text_is_cut_alike_in_training_in_seqio_and_in_evaluation(tmp_path):
    """E18: the store cut a field's end, evaluation its start (at another limit), and SeqIO the whole input."""
    long = " ".join(f"word{n}" for n in range(300))
    rows = [{"premise": long, "hypothesis": "It rained.", "label": n % 2, "idx": n} for n in range(6)]
    record, tokenizer = catalog.dataset("rte"), vocabularies.ByteTokenizer()
    source = opened("rte", tmp_path, train=rows, validation=rows)
    preparation.prepare_dataset(record, source, tokenizer, tmp_path / "to", preparation.Options())
    stored = token_store.TokenStore.open(tmp_path / "to", tokenizer.fingerprint)["rte"]
    trained = {(int(stored.index[n]["template"]), tokenizer.decode(stored.example(n)[0])) for n in range(50)}

    tasks.register(data=tmp_path / "data")
    try:
        lengths, found = {"inputs": 1024, "targets": 256}, set()
        for split, epochs in (("train", 10), ("test", 1)):
            task = seqio.get_mixture_or_task("flan_rte")
            read = task.get_dataset(lengths, split, shuffle=False, num_epochs=epochs).as_numpy_iterator()
            found |= {(int(row["template"]), row["inputs_pretokenized"].decode()) for row in read}
    finally:
        tasks.register()

    builder = ExampleBuilder(record)
    asked = set()
    for number in record.forward_templates:
        test = examples.read(tmp_path / "to", "rte", "test")
        unit = units.Unit.create(builder, "test", number, test, tmp_path / "out", ())
        asked |= {(number, unit.prompt(tokenizer, row)[0].inputs) for row in test}
    assert {one for one in trained | found if one[0] in record.forward_templates} <= asked
    assert len(asked) == len(record.forward_templates) and len({number for number, _ in trained & found & asked}) > 3
    for number, text in asked:
        assert 1000 < len(text.encode()) <= 1023 and "word0 " in text and "word299" not in text
        if "{options}" in record.templates[number].input:
            assert "OPTIONS:\n- yes\n- no" in text


def test_training_keeps_one_direction_a_record(tmp_path):
    source = opened("wmt14_enfr", tmp_path, train=pairs(40), test=pairs(2))
    rows = list(training_records.training_records(catalog.dataset("wmt14_enfr"), source, preparation.Options()))
    assert len({row.identity for row in rows}) == len(rows) == source.splits["train"].size
    ways = [row.fields["variant"] for row in rows]
    assert set(ways) == {"en-fr", "fr-en"}
    pool = records.exemplar_pool(catalog.dataset("wmt14_enfr"), source)
    assert [(identity, fields["variant"]) for identity, fields in pool] == [
        (row.identity, way) for row, way in zip(rows, ways, strict=True)
    ]


@pytest.mark.parametrize("name", ["rte", "coqa", "wmt14_enfr"])
def test_exemplars_are_the_same_where_the_tokens_were_read_before(name, tmp_path, monkeypatch):
    record, source = catalog.dataset(name), sources.open_source(catalog.dataset(name), "samples")
    pool = [{"id": identity, "fields": fields} for identity, fields in records.exemplar_pool(record, source, "test")]
    read = sources.OpenSource.read
    asked = []
    monkeypatch.setattr(
        sources.OpenSource, "read", lambda self, split, *rest: asked.append(split) or read(self, split, *rest)
    )
    preparation.prepare_dataset(record, source, vocabularies.ByteTokenizer(), tmp_path, preparation.Options())
    found = examples.read(tmp_path, name, "exemplars")
    assert [{"id": row["id"], "fields": row["fields"]} for row in found] == pool
    assert sorted(asked) == ["test", *["train"] * (1 + bool(record.variants)), "validation"]


def test_a_conversation_gives_all_its_turns_and_bad_ones_cost_themselves(tmp_path):
    test = [
        talk("A", 3),
        talk("B", 1),
        conversation("C", ["C q0?", "C q1?", "C q2?"], ["C a0", "", "C a2"]),  # a gap in the middle
        conversation("D", ["D q0?", "D q1?"], ["D a0"]),  # who answers what?
        talk("E", 25),
    ]
    info, source = prepared("coqa", tmp_path, train=[talk(f"T{n}", 4) for n in range(8)], test=test)
    assert [(row.line, row.problem) for row in source.bad_rows] == [(4, "there is no text for 'history'")]
    found = examples.read(tmp_path / "to", "coqa", "test")
    asked = sorted(row["fields"]["question"] for row in found)
    assert asked == sorted([*(f"A q{n}?" for n in range(3)), "B q0?", "C q0?", *(f"E q{n}?" for n in range(25))])
    assert info["unusable"] == 2  # the turns of C after its first
    assert {name.rpartition("#")[2] for name in info["named"]} == {
        "2: its answer is empty",
        "3: there is no text for 'history'",
    }
    for row in found:
        number = int(row["fields"]["question"].split("q")[1].rstrip("?"))
        assert row["id"].endswith(f"#{number + 1}")
        assert row["fields"]["history"].count("Q: ") == number


def test_the_first_examples_are_of_as_many_conversations_as_can_be(tmp_path):
    sizes = [1, 6, 3, 9, 2]
    prepared("coqa", tmp_path, train=[talk("T", 3)] * 8, test=[talk(f"S{n}", size) for n, size in enumerate(sizes)])
    found = examples.read(tmp_path / "to", "coqa", "test")
    assert len({row["id"] for row in found}) == len(found) == sum(sizes)
    at = 0
    for turn in range(max(sizes)):
        left = [n for n, size in enumerate(sizes) if size > turn]
        assert {row["fields"]["story"] for row in found[at : at + len(left)]} == {f"S{n}" for n in left}
        at += len(left)
    assert any(not row["id"].endswith("#1") for row in found[: len(sizes)])


def test_exemplars_of_a_conversation_are_one_a_record(tmp_path):
    info, _ = prepared("coqa", tmp_path, train=[talk(f"T{n}", 4) for n in range(8)], test=[talk("A", 2)])
    assert info["sizes"] == {"dev": 8, "test": 2, "exemplars": 6}
    pool = examples.read(tmp_path / "to", "coqa", "exemplars")
    assert not any("#" in row["id"] or "before" in row["fields"]["history"] for row in pool)


@pytest.mark.parametrize(("words", "length", "some"), [(10, 1024, True), (200, 1024, False), (10, 40, False)])
def test_it_is_said_how_many_exemplars_the_prompts_of_a_training_have(tmp_path, capsys, words, length, some):
    """Few conversations, or long ones, leave less than was asked for."""
    stories = [" ".join(f"{name}{n}" for n in range(words)) for name in ("one", "two", "six", "ten")]
    opened("coqa", tmp_path, train=[conversation(story, ["Who is it?"], ["Nobody."]) for story in stories])
    where = [f"--data={tmp_path / 'data'}", f"--to={tmp_path / 'to'}", "--workers=1", f"--max_input_length={length}"]
    for kept in (False, True):
        prepare.main([*where, "--datasets=coqa", "--style=5_shots,instructions", "--json"])
        *printed, last = capsys.readouterr().out.splitlines()
        (found,) = json.loads(last)["datasets"]
        of = found["styles"]["5_shots"]
        shots = of["shots"]
        assert of["kept"] == kept and "shots" not in found["styles"]["instructions"]
        assert shots["wanted"] == 5 and shots["without"] == (0 if some else shots["of"])
        assert 0 < shots["mean"] <= len(stories) - 1 if some else shots["mean"] == 0
        said = f"coqa:5_shots: prompts have {shots['mean']:.1f} of 5 exemplars on average, as many as fit; "
        assert f"{said}{shots['without']} of {shots['of']} have none." in printed


DIALOGUE = {
    "wikipedia_page_title": "Ely",
    "background": "Ely is a city.",
    "section_title": "Site",
    "context": "It lies on the river. CANNOTANSWER",
    "questions": ["where?", "why?", "when?"],
    "answers": {"texts": [["on the river"], [""], ["CANNOTANSWER", "1109"]], "answer_starts": [[0], [0], [0, 0]]},
    "orig_answers": {"texts": ["on the river", "", "CANNOTANSWER"], "answer_starts": [0, 0, 0]},
}


def test_whole_dialogues_of_quac_are_read_and_their_bad_turns_named(tmp_path):
    short = DIALOGUE | {"questions": ["where?"]}
    answers = [{"text": f"a{n}", "answer_start": 0} for n in range(2)]
    turns = [{"question": f"q{n}?", "answers": [answers[n]], "orig_answer": answers[n]} for n in range(2)]
    own = {"title": "Ely", "background": "b", "section_title": "s", "paragraphs": [{"context": "c.", "qas": turns}]}
    nothing, broken = own | {"paragraphs": []}, own | {"paragraphs": [{"context": "c."}]}
    rows = [DIALOGUE, short, own, nothing, broken, {**DIALOGUE, "answers": None}]
    _, source = prepared("quac", tmp_path, validation=rows)
    found = [r["fields"] for r in examples.read(tmp_path / "to", "quac", "test")]
    assert sorted((f["question"], tuple(f["references"])) for f in found) == [
        ("q0?", ("a0",)),
        ("q1?", ("a1",)),
        ("when?", ("no answer", "1109")),
        ("where?", ("on the river",)),
    ]
    assert [str(row).partition(": ")[0].rpartition(" ")[2] for row in source.bad_rows] == ["1", "2", "4", "5", "6"]
    said = [row.problem for row in source.bad_rows]
    assert said[0] == "turn 2: its answer is empty"
    assert said[1] == "its turns cannot be read (its questions and answers are not equally many)"
    assert said[2] == "it holds no question" and said[3] == "its turns cannot be read (it lacks 'qas')"
    assert said[4].startswith("its turns cannot be read (")


def test_examples_of_the_form_before_are_done_again(tmp_path):
    source = opened("wmt14_enfr", tmp_path, train=pairs(8), test=pairs(2))
    record, folder = catalog.dataset("wmt14_enfr"), tmp_path / "to" / "examples" / "wmt14_enfr"
    first = preparation.prepare_examples(record, source, tmp_path / "to")
    old = first | {"version": 2, "key": first["key"] | {"version": 2}}
    (folder / "info.json").write_text(json.dumps(old))
    with pytest.raises(FlanError, match=r"earlier version .* --datasets=wmt14_enfr .*--overwrite"):
        examples.read(tmp_path / "to", "wmt14_enfr/fr-en", "test")
    assert preparation.prepare_examples(record, source, tmp_path / "to") == first


@pytest.mark.parametrize(
    "names", ["wmt14_enfr/fr-en", "wmt14_enfr/fr-en,wmt14_enfr", "wmt14_enfr/en-fr,wmt14_enfr/fr-en"]
)
def test_a_direction_is_prepared_with_its_dataset(names):
    assert prepare.chosen_datasets(names, "") == (catalog.dataset("wmt14_enfr"),)
