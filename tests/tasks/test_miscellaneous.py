import collections
import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import flan_jax.tasks
from flan_jax import catalog
from flan_jax.data import usable
from flan_jax.splits import resolve_splits
from flan_jax.tasks.miscellaneous import (
    COLA,
    COQA,
    DATASETS,
    FIX_PUNCT,
    MATH_DATASET,
    QUAC,
    TREC,
    TRUE_CASE,
    WIC,
    WORD_SEGMENT,
)

PARA_CRAWL = (FIX_PUNCT, TRUE_CASE, WORD_SEGMENT)


def tensors(value):
    if isinstance(value, dict):
        return {name: tensors(inner) for name, inner in value.items()}
    return tf.constant(value, tf.string) if value == [] else tf.constant(value)


def fields(record, row):
    def text(value):
        return [v.decode() for v in value] if isinstance(value, np.ndarray) else value.decode()

    return {name: text(value.numpy()) for name, value in record.fields(tensors(row)).items()}


def kept(record, row):
    return bool(record.keep(tensors(row)))


def sample_rows(record):
    folder = Path(flan_jax.tasks.__path__[0]) / "samples" / record.folder
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    assert lines
    return [json.loads(line) for line in lines]


def english(text):
    return {"en": text, "da": "noget"}


# ------------------------------------------------------------------------------------------------------------- CoQA


def conversation(story="A story.", turns=4):
    answers = {"input_text": [f"a{i}" for i in range(turns)], "answer_start": [0] * turns, "answer_end": [1] * turns}
    return {"source": "race", "story": story, "questions": [f"q{i} ?" for i in range(turns)], "answers": answers}


def test_coqa_asks_one_turn_and_shows_those_before_it():
    for number in range(12):
        found = fields(COQA, conversation(f"Story {number}.", turns=5))
        turn = int(found["question"][1])
        assert found["answer"] == f"a{turn}"
        assert found["history"] == "\n".join(f"Q: q{i} ?\nA: a{i}" for i in range(turn))


def test_coqa_asks_every_turn_but_the_first_about_equally_often():
    stories = tf.constant([f"Story {number}." for number in range(300)])
    record = tensors(conversation())
    asked = [
        q.decode()
        for q in tf.data.Dataset.from_tensor_slices(stories)
        .map(lambda story: COQA.fields({**record, "story": story})["question"])
        .as_numpy_iterator()
    ]
    counts = collections.Counter(asked)
    assert set(counts) == {"q1 ?", "q2 ?", "q3 ?"}
    assert min(counts.values()) > 70


def turns(row):
    """(history, question, answer) of all turns of a conversation."""
    found = {name: [text.decode() for text in value.numpy()] for name, value in COQA.expand(tensors(row)).items()}
    assert found.pop("story") == [fields(COQA, row)["story"]] * len(found["question"])
    return list(zip(*(found[name] for name in ("history", "question", "answer")), strict=True))


NOTHING_YET = "(Nothing has been asked before.)"


def test_coqa_short_conversations():
    assert [kept(COQA, conversation(turns=n)) for n in (0, 1, 2, 3)] == [False, True, True, True]
    assert fields(COQA, conversation(turns=2))["question"] == "q1 ?"
    only = fields(COQA, conversation(turns=1))
    assert (only["history"], only["question"], only["answer"]) == (NOTHING_YET, "q0 ?", "a0")
    assert turns(conversation(turns=1)) == [(NOTHING_YET, "q0 ?", "a0")]


@pytest.mark.parametrize("count", [1, 2, 5, 25])
def test_coqa_is_evaluated_by_all_turns_each_with_those_before_it(count):
    found = turns(conversation(turns=count))
    assert [question for _, question, _ in found] == [f"q{i} ?" for i in range(count)]
    for number, (history, _, answer) in enumerate(found):
        told = "\n".join(f"Q: q{i} ?\nA: a{i}" for i in range(number))
        assert (history, answer) == (told or NOTHING_YET, f"a{number}")


def test_coqa_training_asks_one_of_the_turns_that_evaluation_asks():
    for number in range(12):
        row = conversation(f"Story {number}.", turns=1 + number % 5)
        found = fields(COQA, row)
        assert (found["history"], found["question"], found["answer"]) in turns(row)


def with_texts(questions, answers):
    row = conversation(turns=len(answers))
    return row | {"questions": questions, "answers": row["answers"] | {"input_text": answers}}


@pytest.mark.parametrize(
    ("questions", "answers", "usable_turns"),
    [
        (["a?", "b?", "c?", "d?"], ["1", "", "3", "4"], [1]),  # what comes after a gap has no history
        (["a?", " ", "c?", "d?"], ["1", "2", "3", "4"], [1]),
        (["a?", "b?", "c?"], ["1", "2", "\u200b"], [1, 2]),
        (["a?", "b?"], ["", "2"], []),
        (["a?", "b?", "c?"], ["1", "2"], []),  # who answers what?
        (["a?"], ["1", "2"], []),
        (["a?", "b?"], [], []),
        (["", ""], ["", ""], []),
        (["a?", "a?", "a?"], ["1", "1", "1"], [1, 2, 3]),
    ],
)
def test_coqa_bad_turns_cost_themselves_and_what_follows_from_them(questions, answers, usable_turns):
    row = tensors(with_texts(questions, answers))
    rows = tf.data.Dataset.from_tensors(row | {"tfds_id": "12"})
    found = [r["record_id"].decode() for r in usable.usable(COQA, rows, every=True).as_numpy_iterator()]
    assert found == [f"12#{turn}" for turn in usable_turns]
    assert (int(usable.verdict(COQA, row)) == 0) == bool(usable_turns)
    if usable_turns:  # training has one of them, and a first one only where there is no other
        asked = int(fields(COQA, with_texts(questions, answers))["history"].count("Q: ")) + 1
        assert asked in (usable_turns[1:] or usable_turns)


def test_coqa_turns_of_its_own_files_are_read():
    row = conversation(turns=3)
    own = row | {
        "questions": [{"input_text": q, "turn_id": i + 1} for i, q in enumerate(row["questions"])],
        "answers": [
            {"input_text": a, "span_start": 0, "span_end": 1, "span_text": "s"} for a in row["answers"]["input_text"]
        ],
    }
    assert COQA.nested(own) == [row] and COQA.nested(row) == [row]


def test_coqa_stories_keep_their_paragraphs():
    assert fields(COQA, conversation(" One  two.\r\n \n Three\u00a0four.\n"))["story"] == "One two.\nThree four."


def test_coqa_templates_say_what_to_reply_where_the_text_is_silent():
    """Of eight one did, so that a model that was told nothing was marked wrong for "it does not say"."""
    assert all("unknown" in t.input for t in COQA.templates if t.is_forward)
    assert "unknown" in COQA.gpt3_prompt.input
    assert any("unknown" in row["answers"]["input_text"] for row in sample_rows(COQA))


def test_coqa_samples_point_at_their_answers():
    for row in sample_rows(COQA):
        answers = row["answers"]
        assert len(row["questions"]) == len(answers["input_text"]) > 3
        for text, start, end in zip(*(answers[k] for k in ("input_text", "answer_start", "answer_end")), strict=True):
            assert 0 <= start < end <= len(row["story"]) or (text, start, end) == ("unknown", -1, -1)


# ------------------------------------------------------------------------------------------------------------- QuAC


def lesson(answer="the river", others=("the river",), background="Ely is a city.", context="It lies on the river."):
    context += " CANNOTANSWER"
    answers = {"text": list(others), "answer_start": [0] * len(others)}
    return {
        "title": "Ely",
        "section_title": "Site",
        "background": background,
        "context": context,
        "question": "where is it?",
        "answers": answers,
        "orig_answer": {"text": answer, "answer_start": 0},
        "yesno": "x",
        "followup": "n",
    }


def dialogue(rows):
    """Lessons as Hugging Face's copy has them, a row a dialogue."""
    return {
        "dialogue_id": "C_1",
        "wikipedia_page_title": "Ely",
        **{name: rows[0][name] for name in ("background", "section_title", "context")},
        "turn_ids": [str(i) for i in range(len(rows))],
        "questions": [row["question"] for row in rows],
        "answers": {
            "texts": [row["answers"]["text"] for row in rows],
            "answer_starts": [row["answers"]["answer_start"] for row in rows],
        },
        "orig_answers": {
            "texts": [row["orig_answer"]["text"] for row in rows],
            "answer_starts": [row["orig_answer"]["answer_start"] for row in rows],
        },
    }


def paragraphs(rows):
    """Lessons as QuAC's own files have them."""
    about = {name: rows[0][name] for name in ("title", "section_title", "background")}
    names = ("question", "answers", "orig_answer")
    turns = [{name: row[name] for name in names} for row in rows]
    return about | {"paragraphs": [{"context": rows[0]["context"], "id": "C_1", "qas": turns}]}


@pytest.mark.parametrize("form", [dialogue, paragraphs])
def test_quac_whole_dialogues_are_read(form):
    rows = [lesson(answer=f"answer {i}", others=[f"other {i}"] * i) | {"question": f"q{i}?"} for i in range(4)]
    read = QUAC.nested(form(rows))
    assert [fields(QUAC, row) for row in read] == [fields(QUAC, row) for row in rows]
    assert QUAC.nested(rows[0]) == [rows[0]]


def test_quac_mark_of_silence_is_no_part_of_the_text():
    found = fields(QUAC, lesson())
    assert found["context"] == "It lies on the river."
    assert found["article"] == "Ely is a city.\n\nIt lies on the river."
    assert all("CANNOTANSWER" not in text for text in found.values())


def test_quac_without_an_introduction_the_article_is_the_section():
    found = fields(QUAC, lesson(background=" "))
    assert found["article"] == found["context"] == "It lies on the river."


@pytest.mark.parametrize(
    ("answer", "others", "references"),
    [
        ("the river", ["the river"], ["the river"]),
        ("the river", [], ["the river"]),
        ("the river", ["on the river.", "the river", "CANNOTANSWER"], ["the river", "on the river.", "no answer"]),
        ("CANNOTANSWER", ["CANNOTANSWER", "CANNOTANSWER"], ["no answer"]),
    ],
)
def test_quac_references_are_the_different_answers_the_first_being_the_target(answer, others, references):
    found = fields(QUAC, lesson(answer, others))
    assert found["references"] == references
    assert found["answer"] == references[0]


def test_quac_templates_say_what_to_reply_where_the_text_is_silent():
    assert all('"no answer"' in t.input for t in QUAC.templates if "{answer}" not in t.input)


def test_quac_samples_point_at_their_answers():
    rows = sample_rows(QUAC)
    for row in rows:
        assert row["context"].endswith(" CANNOTANSWER")
        pairs = list(zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True))
        for text, start in [*pairs, (row["orig_answer"]["text"], row["orig_answer"]["answer_start"])]:
            assert row["context"][start : start + len(text)] == text
    silent = sum(row["orig_answer"]["text"] == "CANNOTANSWER" for row in rows)
    assert 0.1 < silent / len(rows) < 0.4


# -------------------------------------------------------------------------------------------------------------- WiC


def test_wic_true_is_the_same_meaning():
    row = {"word": "bank", "sentence1": "A bank.", "sentence2": "Banks ", "label": 1}
    assert fields(WIC, row)["answer"] == "the same meaning"
    assert fields(WIC, row)["relation"] == "with the same meaning"
    assert fields(WIC, {**row, "label": 0})["answer"] == "different meanings"
    assert fields(WIC, {**row, "label": 0})["relation"] == "with another meaning"
    assert [kept(WIC, {**row, "label": label}) for label in (-1, 0, 1)] == [False, True, True]


def test_wic_samples_point_at_forms_of_their_word():
    irregular = {"ran": "run", "drew": "draw", "paid": "pay", "taught": "teach"}
    for row in sample_rows(WIC):
        for n in "12":
            form = row[f"sentence{n}"][row[f"start{n}"] : row[f"end{n}"]].lower()
            assert irregular.get(form, form).startswith(row["word"].removesuffix("e").removesuffix("y")), form


# ------------------------------------------------------------------------------------------------------------- TREC


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("What is a fjord ?", "What is a fjord?"),
        ("Who wrote `` Emma '' ?", 'Who wrote "Emma"?'),
        ("What is Mozart 's first name , in full ?", "What is Mozart's first name, in full?"),
        ("Why ca n't it be .com or 3 . 5 ?", "Why can't it be .com or 3. 5?"),
        ("What is the Hundred Years ' War ?", "What is the Hundred Years' War?"),
        ("Name a river", "Name a river"),
        ('What does the term " spaghetti western " mean ?', 'What does the term "spaghetti western" mean?'),
        ('What film said : " Have you paid , lady ? "', 'What film said: "Have you paid, lady?"'),
        ('Who sang " Silent Night " , " Jaws " or ( " dew " ) ?', 'Who sang "Silent Night", "Jaws" or ("dew")?'),
        ("Why can 't Scarlett O 'Hara and Li 'l Abner ?", "Why can't Scarlett O'Hara and Li'l Abner?"),
        ("Who are rock 'n roll 's stars ?", "Who are rock 'n roll's stars?"),
    ],
)
def test_trec_question_is_shown_without_the_spaces_of_its_tokens(written, shown):
    found = fields(TREC, {"text": written, "label-coarse": 0, "label-fine": 0})
    assert (found["question"], found["opening"]) == (shown, shown.split()[0])


def test_trec_takes_the_coarse_label_in_the_order_of_tfds():
    words = ["description", "entity", "abbreviation", "human", "numeric", "location"]
    for label, word in enumerate(words):
        found = fields(TREC, {"text": "What ?", "label-coarse": label, "label-fine": 46 - label})
        assert (found["answer"], found["options"]) == (word, words)
    kinds = [fields(TREC, {"text": "What ?", "label-coarse": label, "label-fine": 0})["kind"] for label in range(6)]
    for kind, expected in zip(kinds, ("definition", "thing", "short for", "person", "number", "place"), strict=True):
        assert expected in kind


# ------------------------------------------------------------------------------------------------------------- CoLA


@pytest.mark.parametrize(
    ("sentence", "start"),
    [("Go.", "Go."), ("Anna sleeps.", "Anna"), ("Anna  sleeps well.", "Anna"), ("She let him go home.", "She let")],
)
def test_cola_start_leaves_half_of_the_words_to_be_written(sentence, start):
    assert fields(COLA, {"sentence": sentence, "label": 1, "idx": 0})["start"] == start


def test_cola_labels_and_metrics():
    row = {"sentence": "Anna sleeps.", "idx": 0}
    assert [fields(COLA, {**row, "label": n})["answer"] for n in (0, 1)] == ["unacceptable", "acceptable"]
    assert COLA.metrics[0] == "matthews"


# ------------------------------------------------------------------------------------------------------------- Math


@pytest.mark.parametrize(
    ("question", "equation", "unknown"),
    [
        ("Solve -1042*q - 3 = 2*q for q.", "-1042*q - 3 = 2*q", "q"),
        ("Solve 0 = -f for f.", "0 = -f", "f"),
        (" Solve 4 =  2*z for z.\n", "4 = 2*z", "z"),
    ],
)
def test_math_equation_and_unknown_are_read_from_the_question(question, equation, unknown):
    found = fields(MATH_DATASET, {"question": question, "answer": "-7"})
    assert (found["equation"], found["unknown"], found["answer"]) == (equation, unknown, "-7")
    assert kept(MATH_DATASET, {"question": question, "answer": "-7"})


@pytest.mark.parametrize(
    "question", ["Let x = 3. Solve 2*y = x for y.", "What is 2 + 2?", "Solve 2*x = 4 for x", "Solve 2*x = 4 for xy."]
)
def test_math_questions_of_another_form_are_dropped(question):
    assert not kept(MATH_DATASET, {"question": question, "answer": "2"})


def test_math_keeps_all_of_the_real_questions(shared):
    files = sorted((shared / "data" / "math_dataset").glob("*.jsonl"))
    questions = [json.loads(line)["question"] for path in files for line in path.read_text("utf-8").splitlines()]
    assert len(questions) > 1000
    assert MATH_DATASET.keep({"question": tf.constant(questions)}).numpy().all()


def test_math_samples_are_solved():
    def value(side, unknown, number):
        """The value of a sum of terms such as "-3*x", "x" and "12"."""
        total = 0
        for sign, term in re.findall(r"([+-]?)\s*([\w*]+)", side):
            factor, _, letter = term.rpartition("*") if unknown in term else (term, "", "")
            amount = int(factor or 1) * (number if unknown in term else 1)
            assert letter in ("", unknown)
            total += -amount if sign == "-" else amount
        return total

    for row in sample_rows(MATH_DATASET):
        found = fields(MATH_DATASET, row)
        left, right = found["equation"].split(" = ")
        unknown, answer = found["unknown"], int(found["answer"])
        assert value(left, unknown, answer) == value(right, unknown, answer), row
        assert value(left, unknown, answer + 1) != value(right, unknown, answer + 1), row


# -------------------------------------------------------------------- Fix Punctuation, true case, word segmentation


@pytest.mark.parametrize(
    ("text", "bare", "marks"),
    [
        ("Yes, no.", "Yes no", ", ."),
        ("Café Hélène's: 3.5 %!", "Café Hélènes 35", "' : . % !"),
        (
            "\u201cÆbler\u201d \u2013 well-known\u00a0fruit\u2026",
            "Æbler wellknown fruit",
            "\u201c \u201d \u2013 - \u2026",
        ),
        ("a_b (c)  d", "a_b c d", "( )"),
        ("5\u20ac / \u041c\u043e\u0441\u043a\u0432\u0430", "5 \u041c\u043e\u0441\u043a\u0432\u0430", "\u20ac /"),
    ],
)
def test_fix_punct_takes_out_punctuation_and_no_letters(text, bare, marks):
    found = fields(FIX_PUNCT, english(text))
    assert (found["bare"], found["marks"], found["plain"]) == (bare, marks, bare.lower())
    assert found["answer"] == re.sub(r"\s+", " ", text)


def test_fix_punct_agrees_with_pythons_idea_of_a_word_character():
    rng = np.random.default_rng(3)
    alphabet = list(string.printable.strip() + " éßøÅñЖλ½²€£°«»“”’–—…¿¡\u00a0")
    for _ in range(30):
        text = "".join(rng.choice(alphabet, 40))
        expected = " ".join(re.sub(r"[^\w\s]", "", text).split())
        assert fields(FIX_PUNCT, english(text))["bare"] == expected


def test_fix_punct_gives_back_its_text_when_the_marks_are_put_in():
    for row in sample_rows(FIX_PUNCT):
        found = fields(FIX_PUNCT, row)
        left = collections.Counter(found["answer"].replace(" ", ""))
        assert left == collections.Counter((found["bare"] + found["marks"]).replace(" ", ""))


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("Terms and conditions", (False, True, True)),
        ("Newsletter", (False, True, False)),
        ("read more, please", (True, False, True)),
        ("a\u00a0b", (False, False, True)),
        (" newsletter ", (False, False, False)),
        ("* * *", (False, False, True)),
        ("øl og ål", (False, False, True)),
        ("Øl!", (True, True, False)),
    ],
)
def test_para_crawl_texts_that_the_task_leaves_unchanged_are_dropped(text, keeps):
    assert tuple(kept(record, english(text)) for record in PARA_CRAWL) == keeps


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in six countries.[citation needed] Worldwide", "in six countries. Worldwide"),
        ("cursively written form of neo-clerical script[c] and", "cursively written form of neo-clerical script and"),
        ("Act of 1854,[citation needed] although", "Act of 1854, although"),
        ("As of 2014[update], it[1] was[note 2] so", "As of 2014, it was so"),
        ("showrunner\u200d\u2014\u200cthe executive", "showrunner\u2014the executive"),
        ("He said: [The Sun] called me [sic]", "He said: [The Sun] called me [sic]"),
    ],
)
def test_para_crawl_texts_are_without_marks_of_references_and_unseen_signs(text, shown):
    assert [fields(record, english(text))["answer"] for record in PARA_CRAWL] == [shown] * 3


def test_true_case_keeps_the_dots_of_abbreviations():
    found = fields(TRUE_CASE, english("The U.S. (not D.C.) and J.M. Barrie, Ph.D., said OK. Plan B."))
    assert found["capitalized"] == "The, U.S., D.C., J.M., Barrie, Ph.D., OK, Plan, B"


def test_true_case_lowers_all_letters_and_lists_the_words_with_capitals():
    found = fields(TRUE_CASE, english('In\u00a0"ÅRHUS", eBay (and I) pay €5.'))
    assert found["lower"] == 'in "århus", ebay (and i) pay €5.'
    assert found["capitalized"] == "In, ÅRHUS, eBay, I"
    assert found["answer"] == 'In "ÅRHUS", eBay (and I) pay €5.'


def test_word_segment_takes_out_every_kind_of_space():
    found = fields(WORD_SEGMENT, english(" One\u00a0two \u2013\u2003three\t4. "))
    assert (found["joined"], found["count"]) == ("Onetwo\u2013three4.", "4")
    assert found["answer"] == "One two \u2013 three 4."


# ----------------------------------------------------------------------------------------------------------- splits


def resolved(record, **sizes):
    return {name: s.tfds for name, s in resolve_splits(record, sizes).items()}


def test_para_crawl_tasks_train_on_ranges_of_their_own():
    found = {record.name: resolved(record, train=2_414_895) for record in PARA_CRAWL}
    assert {name: splits["train"] for name, splits in found.items()} == {
        "true_case": "train[0:30000]",
        "fix_punct": "train[30200:60200]",
        "word_segment": "train[60400:90400]",
    }
    for splits in found.values():
        assert splits["test"] == "train[2411895:2414895]"
        assert splits["validation"] == "train[2411695:2411895]"


def test_coqa_quac_and_math_splits():
    coqa = {"train": "train[0:7099]", "validation": "train[7099:7199]", "test": "test[0:500]"}
    assert resolved(COQA, train=7_199, test=500) == coqa
    quac = {"train": "train[0:30000]", "validation": "train[83368:83568]", "test": "validation[0:7354]"}
    assert resolved(QUAC, train=83_568, validation=7_354) == quac
    assert resolved(MATH_DATASET, train=1_999_998, test=10_000)["test"] == "test[0:10000]"


def test_only_the_extras_are_beyond_the_paper():
    assert [d.name for d in DATASETS if not d.in_flan] == ["true_case", "word_segment"]
    assert not {"true_case", "word_segment"} & {d.name for d in catalog.mixture("flan")}
    assert [d.name for d in DATASETS if d.in_flan] == [
        "coqa",
        "quac",
        "wic",
        "trec",
        "cola",
        "math_dataset",
        "fix_punct",
    ]
