"""Miscellaneous: CoQA, QuAC, WiC, TREC, CoLA, Math and Fix Punctuation; and, beyond the paper, true case and word segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import YES_NO_SPELLINGS, at, filled, first, has_label, is_blank, one_line, pick
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


def _paragraphs(text: Any) -> Any:
    """The text with single spaces and one line break between paragraphs."""
    text = tf.strings.regex_replace(text, r"[ \t\pZ]*[\r\n][\s\pZ]*", "\n")
    return tf.strings.strip(tf.strings.regex_replace(text, r"[ \t\pZ]+", " "))


def _words(labels: tuple[tuple[str, str], ...]) -> Any:
    """The label words in TFDS's order."""
    return tf.constant([word for _, word in labels])


# ------------------------------------------------------------------------------------------------------------- CoQA


_FIRST = "(Nothing has been asked before.)"  # the history of a first turn, which every template can show


def _coqa_turns(record: Mapping[str, Any]) -> dict[str, Any]:
    """All turns of a conversation [T]: story, history (the turns so far, "Q: ..." and "A: ..." a line), question, answer.

    The answers of the history are the data's own. After a turn without a question or an answer the history cannot be
    told: it is empty. Where questions and answers are not equally many, nobody knows which belong together: one turn
    stands for the conversation, and its history is empty.
    """
    story = _paragraphs(record["story"])
    questions, answers = one_line(record["questions"]), one_line(record["answers"]["input_text"])
    broken = tf.not_equal(tf.size(questions), tf.size(answers)) | tf.equal(tf.size(questions), 0)
    questions = tf.cond(broken, lambda: tf.expand_dims(at(questions, 0), 0), lambda: questions)
    answers = tf.cond(broken, lambda: tf.expand_dims(at(answers, 0), 0), lambda: answers)
    turns_T = tf.strings.join(["Q: ", questions, "\nA: ", answers])
    count = tf.size(turns_T)
    gaps_T = tf.cumsum(tf.cast(is_blank(questions) | is_blank(answers), tf.int32), exclusive=True)
    before_T = tf.gather(turns_T, tf.ragged.range(tf.range(count)))  # ragged: the turns before each
    history_T = tf.concat([[_FIRST], tf.strings.reduce_join(before_T, axis=1, separator="\n")[1:]], axis=0)
    return {
        "story": tf.fill([count], story),
        "history": tf.where((gaps_T > 0) | broken, "", history_T),
        "question": questions,
        "answer": answers,
    }


def _coqa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields story, history, question and answer of the one turn that training asks; see `_coqa_turns`.

    Which one, the story's hash tells, of those before the first that lacks something. It is never the first turn of the
    conversation, unless no other can be asked.
    """
    turns = _coqa_turns(record)
    blank_T = is_blank(turns["history"]) | is_blank(turns["question"]) | is_blank(turns["answer"])
    later = tf.maximum(tf.math.count_nonzero(~blank_T) - 1, 0)
    turn = 1 + tf.strings.to_hash_bucket_fast(turns["story"][0], 2**31 - 1) % tf.maximum(later, 1)
    return {name: values_T[tf.minimum(turn, later)] for name, values_T in turns.items()}


def _coqa_keep(record: Mapping[str, Any]) -> Any:
    """Keeps the conversations in which something is asked."""
    return tf.size(record["questions"]) > 0


def _coqa_nested(row: Mapping[str, Any]) -> list[Any]:
    """A conversation in the form of CoQA's own files, whose turns are objects, as TFDS has it: texts and numbers."""
    questions = row.get("questions")
    if not isinstance(questions, list) or not questions or not isinstance(questions[0], Mapping):
        return [row]
    names = {"input_text": "input_text", "answer_start": "span_start", "answer_end": "span_end"}
    answers = {ours: [answer[theirs] for answer in row["answers"]] for ours, theirs in names.items()}
    return [{**row, "questions": [question["input_text"] for question in questions], "answers": answers}]


COQA = Dataset(
    name="coqa",
    cluster="miscellaneous",
    source="coqa:1.0.0",
    # Reddy et al. 2019, section 3.1: its news passages are from the CNN articles of Hermann et al. 2015.
    kin=(
        ("cnn_dailymail", "CoQA's news passages are articles of CNN"),
        ("record", "both have passages of the CNN/Daily Mail corpus"),
    ),
    kind=GENERATION,
    metrics=("squad",),
    splits=Splits(test="test", dev_size=100),
    keep=_coqa_keep,
    passage="story",
    fields=_coqa_fields,
    expand=_coqa_turns,
    nested=_coqa_nested,
    gpt3_prompt=Gpt3Prompt(
        "{story}\n\n{history}\nQ: {question} (Where the text does not tell: unknown.)\nA:", stop=("\n",)
    ),
    templates=(
        Template(
            "{story}\n\nTwo people are talking about the text above. Whatever it leaves out they call unknown.\n\n{history}\nQ: {question}\nA:"
        ),
        Template(
            "Go through the text and the conversation so far, then answer the last question in as few words as possible. Where the text has no answer, one will do: unknown.\n\nText: {story}\n\nConversation:\n{history}\n\nLast question: {question}"
        ),
        Template(
            'Somebody is being asked about a thing they have just read, which is this:\n\n{story}\n\nUp to now the interview ran like this:\n\n{history}\n\nThe next thing they have to answer is: {question}\n\nWhat should they say? If the text leaves it open, they should say "unknown".'
        ),
        Template(
            '{history}\nQ: {question}\n\nThe reply to the last line is missing. Supply it from this passage. Only if it is nowhere in there should you put down "unknown".\n\n{story}'
        ),
        Template(
            "ORAL EXAMINATION\n\nThe candidate has studied these lines:\n{story}\n\nRecord of the examination:\n{history}\n\nThe examiner goes on: {question}\n\nWrite down a good answer, no longer than it has to be. (To a question that goes beyond the lines, a good answer is: unknown.)"
        ),
        Template(
            'My son and I have read the following together, and I am quizzing him on it.\n\n{story}\n\nThis is how far we have got:\n\n{history}\n\nNow I have asked him this, and he looks at me helplessly: {question}\nCould you whisper the answer to him? Or just "unknown", if we were never told.'
        ),
        Template(
            "Passage: {story}\n\nEarlier:\n{history}\n\nFollow-up question: {question}\nShort answer (unknown, if the passage keeps it back):"
        ),
        Template(
            'Please provide the next answer in a dialogue about the passage at the end. Mind that a word such as "she" or "there" may point back to what was said before, and that the passage may not know either. In that case the next answer is "unknown".\n\n{history}\nQ: {question}\n\n{story}'
        ),
        Template(
            "{story}\n\nThis is how a conversation about it starts.\n\n{history}\n\nThen one more question is asked, and it gets this reply: {answer}\n\nWhat is the question?",
            "{question}",
            INVERTED,
        ),
        Template(
            "Two students test each other on a text, taking turns with questions and answers. Add one further question to their dialogue, together with its answer.\n\nText:\n{story}\n\nDialogue:\n{history}",
            "Q: {question}\nA: {answer}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- QuAC

_QUAC_SILENCE = "CANNOTANSWER"  # ends every section in the source, as the span that answers what the text does not tell
_NO_ANSWER = "no answer"


def _quac_answer(text: Any) -> Any:
    """The answer in its own words, or the words that every template of QuAC gives for the lack of one."""
    text = one_line(text)
    return tf.where(tf.equal(text, _QUAC_SILENCE), _NO_ANSWER, text)


def _quac_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, section, context (its text), article (an introduction, where there is one, and the section), question, answer, references.

    TFDS has every question as a record of its own, so that all are evaluated, but without the turns before it: no
    history can be told.
    """
    context = _paragraphs(tf.strings.regex_replace(record["context"], rf"\s*{_QUAC_SILENCE}\s*$", ""))
    original = _quac_answer(record["orig_answer"]["text"])
    answers = tf.concat([original[tf.newaxis], _quac_answer(record["answers"]["text"])], axis=0)
    references, _ = tf.unique(filled(answers))
    return {
        "title": one_line(record["title"]),
        "section": one_line(record["section_title"]),
        "context": context,
        "article": tf.strings.strip(tf.strings.join([_paragraphs(record["background"]), "\n\n", context])),
        "question": one_line(record["question"]),
        "answer": first(references),
        "references": references,
    }


def _quac_nested(row: Mapping[str, Any]) -> list[Any]:
    """The questions of a dialogue, a row each: QuAC's own files have several in a paragraph, Hugging Face's copy lists.

    Raises:
      ValueError: not every question has its answers.
    """
    if isinstance(row.get("paragraphs"), list):
        about = {name: row.get(name) for name in ("title", "background", "section_title")}
        return [{**about, **turn, "context": part["context"]} for part in row["paragraphs"] for turn in part["qas"]]
    if not isinstance(row.get("questions"), list):
        return [row]
    given, original = row["answers"], row["orig_answers"]
    columns = (row["questions"], original["texts"], original["answer_starts"], given["texts"], given["answer_starts"])
    if len({len(column) for column in columns}) > 1:
        raise ValueError("its questions and answers are not equally many")
    about = {"title": row.get("wikipedia_page_title", row.get("title")), "background": row.get("background")}
    about |= {"section_title": row.get("section_title"), "context": row.get("context")}
    return [
        {
            **about,
            "question": question,
            "orig_answer": {"text": text, "answer_start": start},
            "answers": {"text": texts, "answer_start": starts},
        }
        for question, text, start, texts, starts in zip(*columns, strict=True)
    ]


QUAC = Dataset(
    name="quac",
    cluster="miscellaneous",
    source="quac:1.0.0",
    kind=GENERATION,
    metrics=("quac",),
    passage="article",
    fields=_quac_fields,
    nested=_quac_nested,
    gpt3_prompt=Gpt3Prompt(
        "{title}\n\n{article}\n\nQ: {question} (Where the text does not tell: no answer.)\nA:", stop=("\n",)
    ),
    templates=(
        Template(
            'This is about {title}.\n\n{article}\n\nA curious person would like to know: {question}\n\nReply in the words of the text. If it does not tell, say "no answer".'
        ),
        Template(
            'Topic: {title}\nSection: {section}\nText: {context}\nQuestion: {question}\nAnswer from the text, or else "no answer":'
        ),
        Template(
            '{question}\n\nThe person who asks knows only that the talk is of {title}. You have this text to go by:\n\n{context}\n\nQuote the part of it that settles the matter. Where nothing does, write "no answer".'
        ),
        Template(
            'You are a teacher, and the encyclopedia page on {title} lies open before you. A student who cannot see it asks: {question}\n\nPick out what the page says on this. Should it be silent, tell the student "no answer".\n\n{article}'
        ),
        Template('{article}\n\nQ: {question}\nA ("no answer" if the lines above do not say):'),
        Template(
            'LOOKING THINGS UP\n\nFind the words that respond to the query and copy them. Where there are none, enter "no answer".\n\nSubject: {title}\nHeading: {section}\n\n{context}\n\nQuery: {question}'
        ),
        Template(
            'Hello! A friend and I were talking about {title}, and this came up:\n{question}\nIf it can be found at all, it must be in the passage below. Would you copy out the right words for me? Otherwise just tell me "no answer".\n\n{context}'
        ),
        Template(
            'Search the following part of an article for an answer to the question after it. Pronouns in the question may stand for the subject of the article or for somebody who plays a role in it. Return a stretch of the text or, failing that, "no answer".\n\n{title}: {section}\n\n{context}\n\n{question}'
        ),
        Template(
            '{title}: {section}\n\n{context}\n\nA student talked with a teacher about this section, and one of the replies was as follows ("no answer" is what the teacher says when the section is silent).\n\n{answer}\n\nWhat had the student asked?',
            "{question}",
            INVERTED,
        ),
        Template(
            'Suppose that a reader of an article on {title} has come to the heading of its next section and no further. Ask a question that the reader may have, and answer it in words taken from the section. If the section cannot answer it, put "no answer".\n\nHeading: {section}\n\n{context}',
            "Question: {question}\nAnswer: {answer}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------------- WiC

_WIC_LABELS = (("False", "different meanings"), ("True", "the same meaning"))
_WIC_RELATIONS = ("with another meaning", "with the same meaning")  # in label order, for an inverted template


def _wic_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields word (its dictionary form), sentence1, sentence2 (or phrases), relation (a phrase by label), options, answer."""
    options = _words(_WIC_LABELS)
    return {
        "word": one_line(record["word"]),
        "sentence1": one_line(record["sentence1"]),
        "sentence2": one_line(record["sentence2"]),
        "relation": pick(_WIC_RELATIONS, record["label"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


WIC = Dataset(
    name="wic",
    cluster="miscellaneous",
    source="super_glue/wic:1.0.2",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_WIC_LABELS,
    spellings=YES_NO_SPELLINGS,
    keep=has_label,
    fields=_wic_fields,
    # The examples may be phrases, and the word may be inflected in them, which the templates allow for.
    bare="{word}\n{sentence1}\n{sentence2}",
    gpt3_prompt=Gpt3Prompt(
        '{sentence1}\n{sentence2}\nDoes the word "{word}" have the same meaning in both sentences?\nAnswer (yes or no):',
        ("no", "yes"),
    ),
    templates=(
        Template(
            'Example 1: {sentence1}\nExample 2: {sentence2}\nDoes "{word}" have the same meaning in both, or different meanings?\n{options}'
        ),
        Template(
            '{sentence1}\n{sentence2}\n\nThe word "{word}" occurs in each of these lines, perhaps with an ending. What do its two uses have?\n\n{options}'
        ),
        Template(
            'A dictionary gives the senses of a word under separate numbers. Two examples of "{word}" are waiting to be filed.\n\n- {sentence1}\n- {sentence2}\n\nIf they belong under one number, the word has the same meaning in both. If not, it has different meanings. Which is it?\n\n{options}'
        ),
        Template("Word: {word}\nUse A: {sentence1}\nUse B: {sentence2}\nA and B compared:\n{options}"),
        Template(
            'I am learning English and have come across "{word}" twice today. First I saw it here:\n{sentence1}\nLater I saw it here:\n{sentence2}\nPlease tell me what the word has in these two places.\n{options}'
        ),
        Template(
            "VOCABULARY IN CONTEXT\n\nTarget word: {word}\n\n(a) {sentence1}\n(b) {sentence2}\n\nComplete the statement: in (a) and (b), the target word has ...\n\n{options}"
        ),
        Template(
            'Think of what "{word}" stands for in the first line, and then of what it stands for in the second.\n\n1. {sentence1}\n2. {sentence2}\n\nWere those different meanings, or the same meaning?\n\n{options}'
        ),
        Template(
            "{word}\n\nMany words have several meanings. Say what this one has in the two quotations below.\n\nFirst quotation: {sentence1}\n\nSecond quotation: {sentence2}\n\n{options}"
        ),
        Template(
            'Here "{word}" is used in a phrase or sentence:\n{sentence1}\n\nUse it again, in another phrase or sentence, {relation}.',
            "{sentence2}",
            INVERTED,
        ),
        Template(
            'Show a learner two short examples of "{word}", each on its own line. In the two of them, the word is to have {answer}.',
            "{sentence1}\n{sentence2}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- TREC

_TREC_LABELS = (
    ("DESC", "description"),
    ("ENTY", "entity"),
    ("ABBR", "abbreviation"),
    ("HUM", "human"),
    ("NUM", "numeric"),
    ("LOC", "location"),
)
_TREC_KINDS = (  # in label order, for the inverted templates
    "a definition, a description, a reason or a way of doing something",
    "a thing, such as an animal, a product, a sport or a word",
    "an abbreviation or what it is short for",
    "a person, a group or an organization",
    "a number, an amount or a date",
    "a place",
)


def _untokenized(text: Any) -> Any:
    """The text without the spaces and quotation marks of the source's tokens: "`` Jaws '' 's end ?" is '"Jaws"'s end?'."""
    text = tf.strings.regex_replace(one_line(text), r"`` ?", '"')
    text = tf.strings.regex_replace(text, r" ?''", '"')
    text = tf.strings.regex_replace(text, r" ('(?:s|re|ve|ll|d|m)|n't)\b", r"\1")
    text = tf.strings.regex_replace(text, r"s ' ", "s' ")
    return tf.strings.regex_replace(text, r" ([?!.,;:])( |\"|$)", r"\1\2")


def _trec_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, opening (its first word), kind (a phrase by label), options, answer."""
    question = _untokenized(record["text"])
    options = _words(_TREC_LABELS)
    return {
        "question": question,
        "opening": tf.strings.regex_replace(question, r"(?s)\s.*$", ""),
        "kind": pick(_TREC_KINDS, record["label-coarse"]),
        "options": options,
        "answer": at(options, record["label-coarse"]),
    }


TREC = Dataset(
    name="trec",
    cluster="miscellaneous",
    source="trec:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    labels=_TREC_LABELS,
    fields=_trec_fields,
    gpt3_prompt=Gpt3Prompt(
        "Question: {question}\nType of the answer (description, entity, abbreviation, human, numeric or location):"
    ),
    templates=(
        Template("{question}\n\nWhat kind of answer does this call for?\n\n{options}"),
        Template("Query: {question}\nType of answer:\n{options}"),
        Template(
            "A search engine that is asked something must first know what sort of thing to look for. To which of six sorts does the answer to the following belong?\n\n{question}\n\n{options}"
        ),
        Template(
            'There are six drawers. A person or a group goes into "human", a place into "location", a number or a date into "numeric", a short form and its meaning into "abbreviation", any other thing into "entity", and an explanation or a definition into "description". Somebody asks:\n{question}\nWhich drawer holds what they want?\n{options}'
        ),
        Template(
            "Do not answer the question below. Only say to which category its answer would belong.\n\n{question}\n\n{options}"
        ),
        Template(
            "QUESTION ANALYSIS\n\nItem: {question}\n\nExpected answer type (choose one):\n\n{options}",
            open_input="QUESTION ANALYSIS\n\nItem: {question}\n\nExpected answer type:",
        ),
        Template(
            "A quizmaster sorts her cards by what the contestants will have to come up with. The card that she has just drawn reads as follows.\n\n{question}\n\nOn which pile does she lay it?\n\n{options}"
        ),
        Template("Suppose I asked you this:\n{question}\nOf which type would your reply be?\n{options}"),
        Template("Ask a general knowledge question. The answer is to be {kind}.", "{question}", INVERTED),
        Template(
            "What could a question be that is looking for {kind}, if it starts like this?\n{opening}",
            "{question}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- CoLA

_COLA_LABELS = (("unacceptable", "unacceptable"), ("acceptable", "acceptable"))


def _cola_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence, start (the first half of its words, at least one), options, answer."""
    sentence = one_line(record["sentence"])
    words = tf.strings.split(sentence)
    options = _words(_COLA_LABELS)
    return {
        "sentence": sentence,
        "start": tf.strings.reduce_join(words[: tf.maximum(1, tf.size(words) // 2)], separator=" "),
        "options": options,
        "answer": at(options, record["label"]),
    }


COLA = Dataset(
    name="cola",
    cluster="miscellaneous",
    source="glue/cola:2.0.0",
    kind=CLASSIFICATION,
    metrics=("matthews", "accuracy"),
    labels=_COLA_LABELS,
    keep=has_label,
    fields=_cola_fields,
    gpt3_prompt=Gpt3Prompt("Sentence: {sentence}\nIs the sentence grammatical?\nAnswer (yes or no):", ("no", "yes")),
    templates=(
        Template(
            "{sentence}\n\nWould a native speaker of English find the grammar of this acceptable or unacceptable?\n\n{options}"
        ),
        Template("Sentence: {sentence}\nVerdict on its grammar:\n{options}"),
        Template(
            "Linguists put an asterisk before a sentence that breaks the rules of English. The next sentence comes from one of their books, and any asterisk has been rubbed out. How do you judge it?\n\n{sentence}\n\n{options}"
        ),
        Template(
            "Never mind whether it is true, likely or well put. As a piece of English grammar, what is the following?\n\n{sentence}\n\n{options}"
        ),
        Template(
            "English is not my first language, and I have written this line:\n{sentence}\nPlease be honest with me about its grammar.\n{options}"
        ),
        Template(
            "SYNTAX TEST\n\nJudge the sentence by its grammar alone, and tick one of the two boxes.\n\n1. {sentence}\n\n{options}",
            open_input="SYNTAX TEST\n\nJudge the sentence by its grammar alone.\n\n1. {sentence}",
        ),
        Template("Is the grammar all right?\n{sentence}\n{options}"),
        Template(
            "Take the words one at a time, just as they stand here.\n\n{sentence}\n\nCould a careful speaker of English have put them together like that? If so, the sentence is acceptable; if not, it is unacceptable. Which is it?\n\n{options}"
        ),
        Template(
            "Make up a sentence to try out a grammar checker on. The checker ought to call it {answer}.",
            "{sentence}",
            INVERTED,
        ),
        Template(
            "A sentence starts as follows: {start}\nWrite all of it, so that its grammar is {answer}.",
            "{sentence}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- Math

_SOLVE = r"Solve (.+) for ([a-z])\."


def _math_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question ("Solve 2*x = 6 for x."), equation ("2*x = 6"), unknown ("x"), answer (an integer)."""
    question = one_line(record["question"])
    return {
        "question": question,
        "equation": tf.strings.regex_replace(question, _SOLVE, r"\1"),
        "unknown": tf.strings.regex_replace(question, _SOLVE, r"\2"),
        "answer": one_line(record["answer"]),
    }


def _math_keep(record: Mapping[str, Any]) -> Any:
    """Keeps the form from which equation and unknown can be read."""
    return tf.strings.regex_full_match(one_line(record["question"]), _SOLVE)


MATH_DATASET = Dataset(
    name="math_dataset",
    cluster="miscellaneous",
    source="math_dataset/algebra__linear_1d:1.0.0",
    kind=GENERATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    keep=_math_keep,
    fields=_math_fields,
    gpt3_prompt=Gpt3Prompt("Q: {question}\nA:", stop=("\n",)),
    templates=(
        Template("{question} The solution is an integer, so write just that."),
        Template("{equation}\n\nWhat is {unknown}?"),
        Template("Equation: {equation}\nUnknown: {unknown}\nValue:"),
        Template(
            "Which number must take the place of the letter {unknown}, so that both sides of this come to the same?\n\n{equation}"
        ),
        Template("ALGEBRA\nWork it out on scratch paper, and hand in no more than the result.\n\n1. {question}"),
        Template(
            "Every time I try to solve {equation} I end up with something else. Could you tell me what {unknown} really is?"
        ),
        Template("If {equation}, then {unknown} ="),
        Template(
            "Below is a linear equation with one unknown, in which an asterisk is a multiplication sign. It holds for exactly one value of {unknown}. Find that value and give it in digits.\n\n{equation}"
        ),
        Template(
            "Think of a linear equation that is true for {unknown} = {answer} and for no other number.",
            "{equation}",
            INVERTED,
        ),
        Template(
            'A mathematics teacher is short of one exercise, and its solution has to be {answer}. Write it for her as a single sentence that begins with "Solve" and ends with "for {unknown}".',
            "{question}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------- Fix Punctuation, true case, word segmentation

# All three take the English side of ParaCrawl's English and Danish sentence pairs, each from a range of its own.
_PARA_CRAWL = "para_crawl/enda:1.2.0"
_PARA_CRAWL_FOLDER = "fix_punct"

# What is no letter, number or white space. RE2's \w and \s are ASCII only, and would take "é" for punctuation.
_PUNCTUATION = r"[^\pL\pM\pN_\s\pZ]"


def _without_punctuation(text: Any) -> Any:
    return one_line(tf.strings.regex_replace(text, _PUNCTUATION, ""))


def _lower(text: Any) -> Any:
    return tf.strings.lower(text, encoding="utf-8")


def _fix_punct_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields bare (the text without punctuation), plain (that in lower case), marks ("' , ."), answer (the text)."""
    text = one_line(record["en"])
    bare = _without_punctuation(text)
    marks = tf.strings.regex_replace(text, r"[\pL\pM\pN_\s\pZ]", "")
    return {
        "bare": bare,
        "plain": _lower(bare),
        "marks": tf.strings.strip(tf.strings.regex_replace(marks, "(.)", r"\1 ")),
        "answer": text,
    }


def _fix_punct_keep(record: Mapping[str, Any]) -> Any:
    """Drops the texts that have no punctuation, or nothing else."""
    bare = _without_punctuation(record["en"])
    return tf.not_equal(bare, one_line(record["en"])) & tf.not_equal(bare, "")


FIX_PUNCT = Dataset(
    name="fix_punct",
    cluster="miscellaneous",
    source=_PARA_CRAWL,
    # Wei et al. 2022 (FLAN), appendix: these three and the translation set are all of ParaCrawl.
    kin=(
        ("true_case", "both are the same English sentences of ParaCrawl"),
        ("word_segment", "both are the same English sentences of ParaCrawl"),
        ("para_crawl_enes", "both have English sentences of ParaCrawl"),
    ),
    folder=_PARA_CRAWL_FOLDER,
    kind=GENERATION,
    metrics=("edit_distance", "edit_distance_t5"),
    splits=Splits(train_start=30_200, test_size=3_000),
    keep=_fix_punct_keep,
    fields=_fix_punct_fields,
    gpt3_prompt=Gpt3Prompt("Without punctuation: {bare}\nWith punctuation:", stop=("\n",)),
    templates=(
        Template("Put the punctuation back in.\n\n{bare}"),
        Template("{bare}\n\nAll punctuation has been taken out of this text. Write it as it was before."),
        Template("Unpunctuated: {bare}\nPunctuated:"),
        Template(
            "When we moved our website, every comma, full stop, apostrophe, hyphen and so on got lost. Please repair the following line, and leave the letters as they are.\n\n{bare}"
        ),
        Template(
            "COPY EDITING\n\nInsert what is missing (periods, commas, quotation marks, brackets, hyphens or other signs) and change nothing else.\n\nText: {bare}"
        ),
        Template("How should this be punctuated?\n{bare}"),
        Template(
            "I dictated something to my phone, but it does not know about punctuation. Here is what came out:\n{bare}\nCan you turn it into something that I would be ready to publish?"
        ),
        Template(
            "Nobody but you will see this text before it is printed. There is not one mark left in it, be it between the words or inside them:\n\n{bare}\n\nSet the marks again where they are needed."
        ),
        Template(
            "Retype this in the manner of someone in a great hurry, in small letters and without any punctuation.\n\n{answer}",
            "{plain}",
            INVERTED,
        ),
        Template(
            "{bare}\n\nWhich punctuation marks and other signs would have to be added to that? List them in order of appearance, a space between each and the next, and repeat those that are needed more than once.",
            "{marks}",
            INVERTED,
        ),
    ),
)


def _true_case_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields lower (the text in lower case), capitalized (its words with a capital letter), answer (the text)."""
    text = one_line(record["en"])
    words = tf.strings.regex_replace(tf.strings.split(text), r"^[^\pL\pN]+|[^\pL\pN]+$", "")
    return {
        "lower": _lower(text),
        "capitalized": tf.strings.reduce_join(
            tf.boolean_mask(words, tf.not_equal(words, _lower(words))), separator=", "
        ),
        "answer": text,
    }


def _true_case_keep(record: Mapping[str, Any]) -> Any:
    """Drops the texts that are in lower case as they stand."""
    return tf.not_equal(_lower(record["en"]), record["en"])


TRUE_CASE = Dataset(
    name="true_case",
    cluster="miscellaneous",
    source=_PARA_CRAWL,
    kin=(
        ("word_segment", "both are the same English sentences of ParaCrawl"),
        ("para_crawl_enes", "both have English sentences of ParaCrawl"),
    ),
    folder=_PARA_CRAWL_FOLDER,
    kind=GENERATION,
    metrics=("edit_distance", "edit_distance_t5"),
    splits=Splits(test_size=3_000),
    keep=_true_case_keep,
    fields=_true_case_fields,
    in_flan=False,
    gpt3_prompt=Gpt3Prompt("In lower case: {lower}\nIn upper and lower case:", stop=("\n",)),
    templates=(
        Template("Restore the capital letters.\n\n{lower}"),
        Template("{lower}\n\nEverything above is in lower case. Write it with capitals where they belong."),
        Template("lower case: {lower}\nnormal spelling:"),
        Template(
            "My shift key is stuck, so what I typed looks like this:\n{lower}\nWhat did I mean to type, capitals and all?"
        ),
        Template(
            "Names, abbreviations, headings and beginnings of sentences have lost their capitals in the passage below. Give them back, and touch nothing else.\n\nPassage: {lower}"
        ),
        Template(
            "FOR THE TYPESETTER\n\nThe manuscript uses no capitals:\n\n{lower}\n\nShow how the printed version should look."
        ),
        Template(
            "A program that writes down speech knows small letters only. Turn its output into properly capitalized English: {lower}"
        ),
        Template(
            "Which letters here ought to be upper-case ones? Answer by copying out the whole, with those letters put right.\n\n{lower}"
        ),
        Template("{answer}\n\nCopy this in small letters.", "{lower}", INVERTED),
        Template(
            "Find the words in this text that should have a capital letter. List them in order, spelled correctly and with commas between them.\n\n{lower}",
            "{capitalized}",
            INVERTED,
        ),
    ),
)


def _word_segment_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields joined (the text without spaces), count (of its words), answer (the text)."""
    text = one_line(record["en"])
    is_word = tf.strings.regex_full_match(tf.strings.split(text), r".*[\pL\pN].*")  # a dash or a bullet is none
    return {
        "joined": tf.strings.regex_replace(text, " ", ""),
        "count": tf.strings.as_string(tf.math.count_nonzero(is_word)),
        "answer": text,
    }


def _word_segment_keep(record: Mapping[str, Any]) -> Any:
    """Drops the texts without a space."""
    return tf.strings.regex_full_match(one_line(record["en"]), "(?s).* .*")


WORD_SEGMENT = Dataset(
    name="word_segment",
    cluster="miscellaneous",
    source=_PARA_CRAWL,
    kin=(("para_crawl_enes", "both have English sentences of ParaCrawl"),),
    folder=_PARA_CRAWL_FOLDER,
    kind=GENERATION,
    metrics=("edit_distance", "edit_distance_t5"),
    splits=Splits(train_start=60_400, test_size=3_000),
    keep=_word_segment_keep,
    fields=_word_segment_fields,
    in_flan=False,
    gpt3_prompt=Gpt3Prompt("Without spaces: {joined}\nWith spaces:", stop=("\n",)),
    templates=(
        Template("Insert the missing spaces.\n\n{joined}"),
        Template("{joined}\n\nThe words of this text have run together. Separate them again."),
        Template("No spaces: {joined}\nSpaces:"),
        Template(
            "The space bar of my old typewriter is broken. Would you type this anew, with gaps between the words?\n\n{joined}"
        ),
        Template(
            "Where does one word end and the next begin? Divide the string of characters into the words of an English text, without altering a single character.\n\n{joined}"
        ),
        Template(
            "WORD DIVISION\n\nRoman inscriptions often leave no room between words, and neither does this line:\n\n{joined}\n\nWrite it in the modern way."
        ),
        Template(
            "The following was copied from a web page, and all the blanks disappeared on the way.\n{joined}\nWhat did it say on the page?"
        ),
        Template(
            "Please read this carefully and tell me what it says, one word after another, with the punctuation it has: {joined}"
        ),
        Template("{answer}\n\nTake out every space.", "{joined}", INVERTED),
        Template(
            "How many words have been strung together here? Reply with a number.\n\n{joined}",
            "{count}",
            INVERTED,
        ),
    ),
)

DATASETS = (COQA, QUAC, WIC, TREC, COLA, MATH_DATASET, FIX_PUNCT, TRUE_CASE, WORD_SEGMENT)
