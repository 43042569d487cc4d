import json
from pathlib import Path

import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax.data import usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.reading_comprehension import BOOL_Q, DROP, MULTIRC, OPENBOOKQA, SQUAD_V1, SQUAD_V2


def bool_q_fields(question="is it", answer=True):
    record = {"title": " Tide ", "passage": " A passage.\n", "question": question, "answer": answer}
    return BOOL_Q.fields({name: tf.constant(value) for name, value in record.items()})


def squad_fields(title="Suez_Canal", question="When?", texts=("1869",)):
    answers = {"text": tf.constant(texts), "answer_start": tf.zeros(len(texts), tf.int32)}
    record = {"id": tf.constant("0"), "title": tf.constant(title), "context": tf.constant(" It opened in 1869. ")}
    return SQUAD_V1.fields({**record, "question": tf.constant(question), "answers": answers})


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("is it so", "Is it so?"),
        (" is it so? ", "Is it so?"),
        ("is it so ??", "Is it so?"),
        ("Is it so", "Is it so?"),
        ("élan or not", "Élan or not?"),
        ("9mm or not", "9mm or not?"),
    ],
)
def test_bool_q_question_is_capitalised_and_ends_with_one_question_mark(written, shown):
    assert bool_q_fields(written)["question"].numpy().decode() == shown


@pytest.mark.parametrize(("answer", "word"), [(False, b"no"), (True, b"yes")])
def test_bool_q_answer_is_the_word_of_the_boolean_and_options_are_the_label_words(answer, word):
    fields = bool_q_fields(answer=answer)
    assert fields["answer"].numpy() == word
    assert tuple(o.decode() for o in fields["options"].numpy()) == BOOL_Q.label_words == ("no", "yes")
    assert BOOL_Q.labels[int(answer)] == (str(answer), word.decode())


def test_bool_q_strips_title_and_passage():
    fields = bool_q_fields()
    assert (fields["title"].numpy(), fields["passage"].numpy()) == (b"Tide", b"A passage.")


def bool_q_passage(passage):
    record = {"title": "Tide", "passage": passage, "question": "is it", "answer": True}
    return BOOL_Q.fields({name: tf.constant(value) for name, value in record.items()})["passage"].numpy().decode()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("The ``jaywalking'' law of ``Toys ``R'' Us''.", 'The "jaywalking" law of "Toys "R" Us".'),
        ("from 66--19--1 in 1997--1998", "from 66–19–1 in 1997–1998"),
        ("the Andromeda--Milky Way collision", "the Andromeda–Milky Way collision"),
        ("the blood--brain barrier (1982--present)", "the blood–brain barrier (1982–present)"),
        ("its population--signed it", "its population – signed it"),
        ("Motion Picture -- Drama; nominators-- Canada", "Motion Picture – Drama; nominators – Canada"),
        ("Don't Trust the B---- in Apartment 23", "Don't Trust the B---- in Apartment 23"),
        ("of 3 7 (\\displaystyle (\\tfrac (3)(7))) , for instance", "of 3 7, for instance"),
        ("(3)(7))) stays, N = A − Z (\\displaystyle N=A-Z) .", "(3)(7))) stays, N = A − Z."),
        ("Chicago (/ʃɪˈkɑːɡoʊ/ ( listen), locally) French: \u200b(a)", "Chicago (/ʃɪˈkɑːɡoʊ/, locally) French: (a)"),
    ],
)
def test_bool_q_passages_are_written_as_usual(written, shown):
    assert bool_q_passage(written) == shown


def test_bool_q_titles_stand_without_apostrophes_around_them():
    assert not any("'{title}'" in t.input for t in (*BOOL_Q.templates, *SQUAD_V2.templates))


def test_squad_answer_is_the_first_reference_and_all_are_references():
    fields = squad_fields(texts=(" red", "red light", "red"))
    assert fields["answer"].numpy() == b"red"
    assert list(fields["references"].numpy()) == [b"red", b"red light", b"red"]


def test_squad_title_has_spaces_and_question_and_context_are_tidy():
    fields = squad_fields("Fresno,_California", " When did the canal  open? ")
    assert fields["title"].numpy() == b"Fresno, California"
    assert fields["question"].numpy() == b"When did the canal open?"
    assert fields["context"].numpy() == b"It opened in 1869."


def squad_texts(record, context, texts, question="When?"):
    answers = {"text": tf.constant(list(texts), tf.string), "answer_start": tf.zeros(len(texts), tf.int32)}
    row = {name: tf.constant(v) for name, v in {"title": "T", "context": context, "question": question}.items()}
    found = record.fields({**row, "answers": answers})
    return found["context"].numpy().decode(), [r.decode() for r in found["references"].numpy()]


@pytest.mark.parametrize("record", [SQUAD_V1, SQUAD_V2])
@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("theories of pain[citation needed]. So", "theories of pain. So"),
        ("to render.[citation needed] The old", "to render. The old"),
        ("As of March 2015[update], it", "As of March 2015, it"),
        ("some writers[who?] used; systems.[dubious – discuss] If", "some writers used; systems. If"),
        ("electromagnetic force.[Note 4]", "electromagnetic force."),
        ("147–188 AD,[d] although dictionaries[g] is", "147–188 AD, although dictionaries is"),
        ("by 1970.[12][13] Then", "by 1970. Then"),
        ("World War II  and \u200d—\u200chis band", "World War II and —his band"),
        ('"Of course [the price of oil] is to [t]hem"', '"Of course [the price of oil] is to [t]hem"'),
        ("passed on [Date] by [korenizatsiia]", "passed on [Date] by [korenizatsiia]"),
        ("Warszawa [varˈʂava], the [21st] century", "Warszawa [varˈʂava], the [21st] century"),
    ],
)
def test_squad_passages_are_free_of_notes(record, written, shown):
    assert squad_texts(record, written, ["x"])[0] == shown


@pytest.mark.parametrize("record", [SQUAD_V1, SQUAD_V2])
def test_squad_answers_stay_spans_of_the_passage(record):
    context = "He did planning,[citation needed] design,  and financing [that] he liked.[d] On 4 May[update] it ended."
    spans = ["planning,[citation needed] design,  and financing", "financing [that] he liked", "4 May[update]", "May"]
    found, references = squad_texts(record, context, spans)
    assert references == ["planning, design, and financing", "financing [that] he liked", "4 May", "May"]
    assert all(reference in found for reference in references)


def test_squad_questions_have_no_space_before_the_question_mark():
    assert (
        squad_fields(question="What did it present to  Saint-Pierre ?")["question"]
        == b"What did it present to Saint-Pierre?"
    )


def test_squad_v1_shares_its_folder_and_paper_dataset_name():
    assert (SQUAD_V1.folder, SQUAD_V1.paper_dataset) == ("squad", "squad")


def test_squad_samples_point_at_their_answers():
    folder = Path(flan_jax.tasks.__file__).parent / "samples" / SQUAD_V1.folder
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    for row in map(json.loads, lines):
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text
    assert lines


def sample_rows(record):
    folder = Path(flan_jax.tasks.__file__).parent / "samples" / record.folder
    return [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()
    ]


# ------------------------------------------------------------------------------------------------------------- DROP


def drop_record(answer, validated=()):
    record = {"passage": " A  passage. ", "question": "When? ", "answer": answer}
    texts = {name: tf.constant(value) for name, value in record.items()}
    return {**texts, "validated_answers": tf.constant(list(validated), tf.string)}


def drop_fields(answer, validated=()):
    return {name: value.numpy() for name, value in DROP.fields(drop_record(answer, validated)).items()}


@pytest.mark.parametrize(
    ("given", "answer", "kind"),
    [
        ("3", "3", "a number"),
        ("75.5", "75.5", "a number"),
        ("12,300", "12,300", "a number"),
        (".5", ".5", "a number"),
        ("40%", "40%", "a number"),
        ("1805-October-21", "21 October 1805", "a date"),
        ("-October-21", "21 October", "a date"),
        ("1805--21", "21 1805", "a date"),
        ("25 to 44", "25 to 44", "a word or a phrase"),
        ("14-13", "14-13", "a word or a phrase"),
        ("a 22-yard-line pass", "a 22-yard-line pass", "a word or a phrase"),
        (" Will  Tanner ", "Will Tanner", "a word or a phrase"),
    ],
)
def test_drop_answers_are_numbers_dates_or_spans(given, answer, kind):
    found = drop_fields(given)
    assert (found["answer"].decode(), found["answer_type"].decode()) == (answer, kind)
    assert [r.decode() for r in found["references"]] == [answer]


def test_drop_references_add_what_the_validators_answered():
    found = drop_fields("1896-August-16", ["-August-16", "", "1896-August-16", "in August"])
    assert list(found["references"]) == [b"16 August 1896", b"16 August", b"in August"]


@pytest.mark.parametrize(("answer", "kept"), [("3", True), ("0", True), ("", False), (" ", False)])
def test_drop_leaves_out_what_has_no_answer(answer, kept):
    assert (int(usable.verdict(DROP, drop_record(answer))) == 0) == kept


def drop_kept(question, answer):
    record = {**drop_record(answer), "question": tf.constant(question)}
    return int(usable.verdict(DROP, record)) == 0


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("In which quarters did Denver make field goals?", "third quarter"),
        ("Which ethnic groups had a higher percentage than 10%?", "Northern Mbundu"),
        ("Which U.S. embassies did al-Qaeda attack in 1998?", "Kenya"),
        ("What are the four types of sea turtles?", "leatherback turtle"),
        ("What are Boller's two longest touchdown passes?", "3-yard"),
        ("Which two players scored?", "Tyrell Moss"),
        ("Who were Anna Maria Webb's children?", "John Radclyffe"),
        ("Who were on board Apollo 8?", "Frank Borman"),
        ("Who caught passing touchdowns?", "Brice Butler"),
        ("Which field goals longer than 40 yards did Houston make?", "43-yard"),
        ("In which years did the Gross domestic product grow more than 100%?", "1993"),
    ],
)
def test_drop_leaves_out_questions_that_ask_for_several_things(question, answer):
    assert not drop_kept(question, answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("In which quarter did both teams score a touchdown?", "second"),
        ("Which of the two teams scored first?", "Jets"),
        ("What was the teams' combined score?", "31"),
        ("How many field goals were made in which quarters?", "3"),
        ("Who caught the last touchdown pass of the game?", "Brian Leonard"),
        ("Who had less touchdowns in the first half, Cowboys or Eagles?", "Cowboys"),
        ("Which groups were larger, Germans or Italians?", "Germans"),
        ("Which groups inhabited the area?", "Poles, Germans, and Kashubians"),
        ("What happened three years prior to the attack on Toulon?", "the Battle of Málaga"),
        ("What language was spoken by the second largest ethnic group?", "Kimbundu"),
        ("Which player scored in the first two quarters?", "Matt Stover"),
        ("Which players' coach won?", "Jones"),
        ("Who were the Bears playing?", "Packers"),
        ("Who were the Bears playing in the second of two games?", "Packers"),
        ("What were the total yards of the two touchdowns?", "45"),
    ],
)
def test_drop_keeps_questions_that_ask_for_one_thing(question, answer):
    assert drop_kept(question, answer)


def test_drop_samples_have_every_type_of_answer_and_an_empty_one():
    answers = [row["answer"] for row in sample_rows(DROP)]
    kinds = {drop_fields(answer)["answer_type"] for answer in answers if answer}
    assert kinds == {b"a number", b"a date", b"a word or a phrase"}
    assert "" in answers


def test_drop_is_tested_on_the_split_that_tfds_calls_dev():
    found = resolve_splits(DROP, {"train": 77_409, "dev": 9_536})
    assert {k: v.tfds for k, v in found.items()} == {
        "train": "train[0:30000]",
        "validation": "train[77209:77409]",
        "test": "dev[0:9536]",
    }


# ---------------------------------------------------------------------------------------------------------- MultiRC


def multirc_fields(paragraph="P", label=1, idx=(3, 7, 12), response=" Because. "):
    record = {"paragraph": paragraph, "question": "Why?", "answer": response}
    record = {k: tf.constant(v) for k, v in record.items()}
    idx = {k: tf.constant(v, tf.int32) for k, v in zip(("paragraph", "question", "answer"), idx, strict=True)}
    found = MULTIRC.fields({**record, "label": tf.constant(label, tf.int64), "idx": idx})
    return {name: value.numpy() for name, value in found.items()}


def test_multirc_groups_the_candidates_of_a_question():
    assert multirc_fields(idx=(3, 7, 12))["question_id"] == multirc_fields(idx=(3, 7, 13))["question_id"] == b"3-7"
    ids = [multirc_fields(idx=idx)["question_id"] for idx in ((1, 12, 0), (11, 2, 0), (1, 2, 12))]
    assert len(set(ids)) == 3


def test_multirc_shows_the_candidate_and_judges_it():
    right, wrong = multirc_fields(label=1), multirc_fields(label=0)
    assert right["response"] == wrong["response"] == b"Because."
    assert (wrong["answer"], right["answer"]) == (b"no", b"yes")
    assert (wrong["relation"], right["relation"]) == (b"is wrong", b"is right")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("One. Two.", "One. Two."),
        ("<b>Sent 1: </b>One.<br><b>Sent 2: </b>Two.<br>", "One. Two."),
        ("One <b>and</b> two; 3 < 4", "One and two; 3 < 4"),
        ("{ { Plot } } Tom plays pool .", "Tom plays pool."),
    ],
)
def test_multirc_paragraphs_are_free_of_html(source, shown):
    assert multirc_fields(source)["paragraph"].decode() == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("They are told that a `` zombie '' is a flower , and", 'They are told that a "zombie" is a flower, and'),
        ("the shady ` fixer ' named Ligurio", "the shady 'fixer' named Ligurio"),
        ("The Mummy 's Shroud , as it 'd require them . It", "The Mummy's Shroud, as it'd require them. It"),
        (
            "Legal Aid ''has been a help,'' she said. ''We agree.''",
            'Legal Aid "has been a help," she said. "We agree."',
        ),
        ('for the word "country. " The campaign', 'for the word "country." The campaign'),
        ("Celts (10,000 b.c. ) and, by 600\u2002b.c. , others", "Celts (10,000 b.c.) and, by 600 b.c., others"),
        ("it was qui\u00adck\u00adly adopted at Lut\ufffd\ufffdce", "it was quickly adopted at Lutce"),
        (
            'He said "Yes." Then "No," and left -- (FT) -- at 9:48.',
            'He said "Yes." Then "No," and left -- (FT) -- at 9:48.',
        ),
        ("Tocqueville (29 July 1805 - 16 April 1859)", "Tocqueville (29 July 1805 - 16 April 1859)"),
    ],
)
def test_multirc_texts_are_untokenized(source, shown):
    assert multirc_fields(source)["paragraph"].decode() == multirc_fields(response=source)["response"].decode() == shown


def test_multirc_samples_have_questions_with_several_right_answers_and_indices_that_count_up():
    folder = Path(flan_jax.tasks.__file__).parent / "samples" / MULTIRC.folder
    for path in sorted(folder.glob("*.jsonl")):
        split = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert [row["idx"]["answer"] for row in split] == list(range(len(split)))
        questions = {(row["idx"]["paragraph"], row["idx"]["question"], row["question"]) for row in split}
        assert len(questions) == len({q for _, q, _ in questions})
        right = [row["idx"]["question"] for row in split if row["label"] == 1]
        assert path.stem == "test" or len(right) > len(set(right))


# ------------------------------------------------------------------------------------------------------- OpenBookQA


@pytest.mark.parametrize("key", range(4))
def test_openbookqa_answer_is_the_choice_of_the_key(key):
    choices = {f"choice_{letter}": tf.constant(f" {letter}. ") for letter in "ABCD"}
    record = {"question": {"stem": tf.constant("A metal"), **choices}, "fact1": tf.constant("écru is a color")}
    found = OPENBOOKQA.fields({**record, "answerKey": tf.constant(key, tf.int64)})
    assert [o.decode() for o in found["options"].numpy()] == ["A.", "B.", "C.", "D."]
    assert found["answer"].numpy().decode() == "ABCD"[key] + "."
    assert found["fact"].numpy().decode() == "Écru is a color"


def test_openbookqa_opens_the_book_in_every_forward_template():
    assert all("{fact}" in t.input for t in OPENBOOKQA.templates if t.is_forward)


# ---------------------------------------------------------------------------------------------------------- SQuAD v2


def squad_v2_fields(*texts):
    answers = {"text": tf.constant(list(texts), tf.string), "answer_start": tf.zeros(len(texts), tf.int32)}
    record = {"title": "Suez_Canal", "context": " It opened in 1869. ", "question": "When? "}
    found = SQUAD_V2.fields({**{k: tf.constant(v) for k, v in record.items()}, "answers": answers})
    return {name: value.numpy() for name, value in found.items()}


def test_squad_v2_without_an_answer_is_unanswerable():
    with_answer, without = squad_v2_fields("1869 ", "in 1869"), squad_v2_fields()
    assert (with_answer["answer"], list(with_answer["references"])) == (b"1869", [b"1869", b"in 1869"])
    assert (without["answer"], list(without["references"])) == (b"unanswerable", [b"unanswerable"])
    assert (b"not" in without["relation"], b"not" in with_answer["relation"]) == (True, False)
    assert with_answer["wanted"] == b"that these lines answer with: 1869"
    assert without["wanted"] == b"that these lines seem to answer but don't."


def test_squad_v2_never_asks_for_a_question_that_is_answered_with_unanswerable():
    assert not any("{answer}" in t.input for t in SQUAD_V2.templates)


def test_squad_v2_works_in_a_graph_with_both_kinds_of_records():
    rows = [{"text": ["a", "b"]}, {"text": []}]
    spec = {"text": tf.TensorSpec([None], tf.string)}
    data = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec)
    texts = {name: tf.constant("x") for name in ("title", "context", "question")}
    found = [f["answer"].numpy() for f in data.map(lambda answers: SQUAD_V2.fields({**texts, "answers": answers}))]
    assert found == [b"a", b"unanswerable"]


def test_squad_v2_says_what_to_do_without_an_answer_in_every_forward_template():
    assert all("unanswerable" in t.input for t in SQUAD_V2.templates if t.is_forward)
    assert not {t.input for t in SQUAD_V2.templates} & {t.input for t in SQUAD_V1.templates}


def test_squad_v2_samples_point_at_their_answers_or_have_none():
    rows = sample_rows(SQUAD_V2)
    for row in rows:
        assert row["is_impossible"] == (not row["answers"]["text"])
        assert not (row["answers"]["text"] and row["plausible_answers"]["text"])
        for spans in (row["answers"], row["plausible_answers"]):
            for text, start in zip(spans["text"], spans["answer_start"], strict=True):
                assert row["context"][start : start + len(text)] == text
    assert 0.3 < sum(row["is_impossible"] for row in rows) / len(rows) < 0.7
