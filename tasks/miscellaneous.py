"""Miscellaneous: CoQA, QuAC, WiC, TREC, CoLA, Math and Fix Punctuation; and, beyond the paper, true case and word segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import YES_NO_SPELLINGS, at, filled, first, has_label, is_blank, one_line, pick
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
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
        Template("{story}\n\n{history}\nQ: {question}\nA (or unknown):"),
        Template(
            "Answer the last question briefly. If the text doesn't say, answer unknown.\n\nText:\n{story}\n\nConversation:\n{history}\n\nLast question: {question}"
        ),
        Template(
            'Interview about this text:\n\n{story}\n\n{history}\nQ: {question}\n\nWhat comes next? If the text leaves it open, "unknown".'
        ),
        Template(
            '{history}\nQ: {question}\n\nFind the answer in this passage. If it isn\'t there, write "unknown".\n\n{story}'
        ),
        Template('Passage:\n{story}\n\nEarlier:\n{history}\n\nQuestion: {question}\nShort answer or "unknown":'),
        Template("{story}\n\n{history}\n\n{question}\n(Not in the text? Say unknown.)"),
        Template(
            "quizzing my son on this:\n{story}\n\nso far:\n{history}\n\nnow he's stuck, what's the answer? {question}\njust say unknown if we weren't told"
        ),
        Template(
            'Continue this dialogue about the passage. Words like "she" or "there" may refer to earlier turns. Reply unknown where the passage is silent.\n\n{history}\nQ: {question}\n\n{story}'
        ),
        Template(
            "{story}\n\n{history}\n\nThe next question got this answer: {answer}\nWhat was the question?",
            "{question}",
            INVERTED,
        ),
        Template(
            "Add one more question to this dialogue about the text, and its answer on the next line.\n\nText:\n{story}\n\nDialogue:\n{history}",
            "{question}\n{answer}",
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
        Template('{title}: {section}\n\n{context}\n\n{question}\nIn the words of the text, else "no answer":'),
        Template(
            'Topic: {title}\nSection: {section}\nText: {context}\nQuestion: {question}\nWords of the text that answer it, or "no answer":'
        ),
        Template('{question}\n\nQuote this text on {title}, or write "no answer" if it doesn\'t say.\n\n{context}'),
        Template(
            'Asked: {question}\n\nQuote what the page on {title} says, or reply "no answer" if it says nothing.\n\n{article}'
        ),
        Template('{article}\n\nQ: {question}\nAnswer, else "no answer":'),
        Template(
            'Find the words that answer the query. None? Enter "no answer".\n\n{title}: {section}\n\n{context}\n\nQuery: {question}'
        ),
        Template(
            'talking about {title} and this came up: {question}\ncan you copy the answer from here? otherwise just "no answer"\n\n{context}'
        ),
        Template(
            'Words like "he" or "it" in the question may refer to people or things in the text.\n\n{title}: {section}\n\n{context}\n\n{question}\n\nReturn a stretch of the text or "no answer".'
        ),
        Template(
            "{title}: {section}\n\n{context}\n\nSomeone asked about this section and was told: {answer}\nWhat was the question?",
            "{question}",
            INVERTED,
        ),
        Template(
            'Ask what a reader of the article on {title} might ask on seeing this heading. On the next line, answer in words from the section, or with "no answer".\n\nHeading: {section}\n\n{context}',
            "{question}\n{answer}",
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
            '1. {sentence1}\n2. {sentence2}\n\nDoes "{word}" have the same meaning or different meanings?\n{options}'
        ),
        Template('{sentence1}\n{sentence2}\n\n"{word}": different meanings or the same meaning?\n{options}'),
        Template(
            'Two dictionary examples of "{word}". Do they show the same meaning or different meanings?\n\n- {sentence1}\n- {sentence2}\n\n{options}'
        ),
        Template(
            "Word: {word}\nUse A: {sentence1}\nUse B: {sentence2}\nCompared:\n{options}",
            open_input="Word: {word}\nUse A: {sentence1}\nUse B: {sentence2}\nThe same meaning or different meanings:",
        ),
        Template(
            'came across "{word}" twice today:\n{sentence1}\n{sentence2}\nis that the same meaning or different meanings?\n{options}'
        ),
        Template(
            "Target word: {word}\n\n(a) {sentence1}\n(b) {sentence2}\n\nIn both, the word has ...\n\n{options}",
            open_input="Target word: {word}\n\n(a) {sentence1}\n(b) {sentence2}\n\nDoes the word have the same meaning or different meanings here?",
        ),
        Template(
            'Think about what "{word}" stands for in each line.\n\n{sentence1}\n{sentence2}\n\nDifferent meanings, or the same meaning?\n{options}'
        ),
        Template(
            "{word}\n{sentence1}\n{sentence2}\nMeanings?\n{options}",
            open_input="{word}\n{sentence1}\n{sentence2}\nThe same meaning, or different meanings?",
        ),
        Template(
            '"{word}" in use:\n{sentence1}\n\nUse it in another phrase or sentence, {relation}.',
            "{sentence2}",
            INVERTED,
        ),
        Template(
            'Use "{word}" in two phrases or sentences, one a line. The word should have {answer} in them.',
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
    text = tf.strings.regex_replace(text, r'(^|[ (])" ([^"]*?) ?"', r'\1"\2"')
    text = tf.strings.regex_replace(text, r" ('(?:s|re|ve|ll|d|m|t)|n't)\b", r"\1")
    text = tf.strings.regex_replace(text, r"\b(O|Li) '(\pL)", r"\1'\2")
    text = tf.strings.regex_replace(text, r"(^|[ (])' ([^']*) '( ?[?!.,;:]|$)", r"\1'\2'\3")
    text = tf.strings.regex_replace(text, r"s ' ", "s' ")
    text = tf.strings.regex_replace(text, r"(^|[ (])' ([^']*) '", r"\1'\2'")
    text = tf.strings.regex_replace(text, r"\( ([^()]*?) ?\)", r"(\1)")
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
        Template(
            "{question}\n\nWhat kind of answer does this call for?\n\n{options}",
            open_input="{question}\n\nWhat kind of answer does this call for: description, entity, abbreviation, human, numeric or location?",
        ),
        Template(
            "Query: {question}\nType of answer:\n{options}",
            open_input="Query: {question}\nType of answer (description, entity, abbreviation, human, numeric or location):",
        ),
        Template(
            "A search engine has to know what to look for. What type is the answer to this?\n\n{question}\n\n{options}",
            open_input="A search engine has to know what to look for. What type is the answer to this: description, entity, abbreviation, human, numeric or location?\n\n{question}",
        ),
        Template(
            "Classify the question: human for a person or group, location for a place, numeric for a number or date, abbreviation for a short form or its meaning, entity for any other thing, description for an explanation or definition.\n\n{question}\n\n{options}"
        ),
        Template(
            "Don't answer this.\n\n{question}\n\nWhat is it asking for?\n{options}",
            open_input="Don't answer this.\n\n{question}\n\nWhat is it asking for (description, entity, abbreviation, human, numeric or location)?",
        ),
        Template(
            "Question: {question}\nExpected answer type:\n{options}",
            open_input="Question: {question}\nExpected answer type (description, entity, abbreviation, human, numeric or location):",
        ),
        Template(
            "{question}\n\nAsks for:\n{options}",
            open_input="{question}\n\nAsks for (description, entity, abbreviation, human, numeric or location):",
        ),
        Template(
            "if i asked you this, what type of reply would you give?\n{question}\n{options}",
            open_input="if i asked you this, what type of reply would you give, description, entity, abbreviation, human, numeric or location?\n{question}",
        ),
        Template("Ask a general knowledge question. The answer should be {kind}.", "{question}", INVERTED),
        Template("Write a question that asks for {kind}. It starts like this:\n{opening}", "{question}", INVERTED),
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
        Template("{sentence}\n\nIs this acceptable or unacceptable English grammar?\n\n{options}"),
        Template(
            "Sentence: {sentence}\nGrammar:\n{options}",
            open_input="Sentence: {sentence}\nGrammar (acceptable or unacceptable):",
        ),
        Template(
            "Linguists mark a sentence with an asterisk if it breaks the rules of English. Is this one unacceptable or acceptable?\n\n{sentence}\n\n{options}"
        ),
        Template(
            "Never mind whether it's true or well put. Is the grammar acceptable or unacceptable?\n\n{sentence}\n\n{options}"
        ),
        Template("english isn't my first language, is this acceptable or unacceptable?\n{sentence}\n{options}"),
        Template("Judge by grammar alone: acceptable or unacceptable.\n\n{sentence}\n\n{options}"),
        Template("Grammatically acceptable or unacceptable?\n{sentence}\n{options}"),
        Template(
            "Take the words as they stand.\n\n{sentence}\n\nCould a careful speaker have put them together? Acceptable if so, unacceptable if not.\n{options}"
        ),
        Template(
            "Write a sentence to test a grammar checker. The checker should call it {answer}.", "{sentence}", INVERTED
        ),
        Template(
            "A sentence starts like this: {start}\nWrite the whole sentence with {answer} grammar.",
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
        Template("{question} Write just the integer."),
        Template("{equation}\n\nWhat is {unknown}?"),
        Template("Equation: {equation}\nUnknown: {unknown}\nValue:"),
        Template("Which number makes this true if you put it in for {unknown}?\n\n{equation}"),
        Template("No working needed.\n\n{question}\n\nJust the number, please."),
        Template("keep getting {equation} wrong, what's {unknown}?"),
        Template("If {equation}, then {unknown} ="),
        Template("Find the one value of {unknown} for which this linear equation holds, in digits.\n\n{equation}"),
        Template("Write a linear equation that is true only for {unknown} = {answer}.", "{equation}", INVERTED),
        Template(
            'Write an exercise whose solution is {answer}, as one sentence that starts with "Solve" and ends with "for {unknown}".',
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


# What Wikipedia's readers and editors left in its sentences: "[citation needed]", "[note 1]", "[1]", "[update]".
_REFERENCE_MARK = (
    r"\[(?:(?:citation|clarification|verification) needed|vague|update|who\?|when\?|(?:note )?\d{1,3}|[a-z])\]"
)


def _english(record: Mapping[str, Any]) -> Any:
    """The English text on one line, without marks of references and signs that show nothing."""
    return one_line(
        tf.strings.regex_replace(tf.strings.regex_replace(record["en"], r"\p{Cf}", ""), _REFERENCE_MARK, "")
    )


def _without_punctuation(text: Any) -> Any:
    return one_line(tf.strings.regex_replace(text, _PUNCTUATION, ""))


def _lower(text: Any) -> Any:
    return tf.strings.lower(text, encoding="utf-8")


def _fix_punct_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields bare (the text without punctuation), plain (that in lower case), marks ("' , ."), answer (the text)."""
    text = _english(record)
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
    text = _english(record)
    bare = _without_punctuation(text)
    return tf.not_equal(bare, text) & tf.not_equal(bare, "")


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
        Template("{bare}\n\nThe line above has lost its punctuation. Restore it."),
        Template("Unpunctuated: {bare}\nPunctuated:"),
        Template(
            "Our website lost every comma, full stop, apostrophe and other sign. Repair this line, but keep the letters.\n\n{bare}"
        ),
        Template(
            "Insert the missing signs (periods, commas, quotation marks, brackets, hyphens, currency signs and so on) and change nothing else.\n\nText: {bare}"
        ),
        Template("How should this be punctuated?\n{bare}"),
        Template("my phone took this down without punctuation:\n{bare}\ncan you add just the punctuation?"),
        Template("{bare}\n\nAdd punctuation only."),
        Template(
            "Retype this like someone in a hurry, in small letters without punctuation.\n\n{answer}",
            "{plain}",
            INVERTED,
        ),
        Template(
            "{bare}\n\nWhich punctuation marks and symbols are missing? List them in order with spaces between them, repeats included.",
            "{marks}",
            INVERTED,
        ),
    ),
)


_ABBREVIATION = r"(?:\p{Lu}\p{Ll}?\.){2,}"  # "U.S.", "Ph.D."


def _true_case_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields lower (the text in lower case), capitalized (its words with a capital letter), answer (the text).

    Of the marks around a word, it keeps the last dot of an abbreviation such as "U.S."
    """
    text = _english(record)
    words = tf.strings.split(text)
    words = tf.where(
        tf.strings.regex_full_match(words, rf"[^\pL\pN]*{_ABBREVIATION}[^\pL\pN]*"),
        tf.strings.regex_replace(words, rf"^[^\pL\pN]*({_ABBREVIATION})[^\pL\pN]*$", r"\1"),
        tf.strings.regex_replace(words, r"^[^\pL\pN]+|[^\pL\pN]+$", ""),
    )
    return {
        "lower": _lower(text),
        "capitalized": tf.strings.reduce_join(
            tf.boolean_mask(words, tf.not_equal(words, _lower(words))), separator=", "
        ),
        "answer": text,
    }


def _true_case_keep(record: Mapping[str, Any]) -> Any:
    """Drops the texts that are in lower case as they stand."""
    text = _english(record)
    return tf.not_equal(_lower(text), text)


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
        Template("{lower}\n\nWrite that with capitals where they belong."),
        Template("lower case: {lower}\nnormal spelling:"),
        Template("shift key is broken, this came out:\n{lower}\nwhat did i mean, capitals and all?"),
        Template(
            "All capitals are gone. Give them back to names, headings, sentence beginnings and so on, and change nothing else.\n\nPassage: {lower}"
        ),
        Template("Uncapitalized manuscript:\n{lower}\n\nPrinted version:"),
        Template("A speech program wrote this in small letters. Capitalize it properly: {lower}"),
        Template("Fix upper and lower case: {lower}"),
        Template("{answer}\n\nCopy this in small letters.", "{lower}", INVERTED),
        Template(
            "Which words here need a capital letter? List them in order, spelled correctly, with commas between them.\n\n{lower}",
            "{capitalized}",
            INVERTED,
        ),
    ),
)


def _word_segment_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields joined (the text without spaces), count (of its words), answer (the text)."""
    text = _english(record)
    is_word = tf.strings.regex_full_match(tf.strings.split(text), r".*[\pL\pN].*")  # a dash or a bullet is none
    return {
        "joined": tf.strings.regex_replace(text, " ", ""),
        "count": tf.strings.as_string(tf.math.count_nonzero(is_word)),
        "answer": text,
    }


def _word_segment_keep(record: Mapping[str, Any]) -> Any:
    """Drops the texts without a space."""
    return tf.strings.regex_full_match(_english(record), "(?s).* .*")


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
        Template("Add the missing spaces.\n\n{joined}"),
        Template("{joined}\n\nThese words have run together. Separate them."),
        Template("No spaces: {joined}\nWith spaces:"),
        Template("space bar's broken, can you type this with gaps between the words?\n\n{joined}"),
        Template(
            "Where does each word end? Put spaces between the English words without changing a character.\n\n{joined}"
        ),
        Template("Here's a line without spaces.\n\n{joined}\n\nNow write it in the usual way."),
        Template("What did this say before the blanks disappeared?\n{joined}"),
        Template("Read carefully and write out the words, punctuation included: {joined}"),
        Template("{answer}\n\nRemove every space.", "{joined}", INVERTED),
        Template("How many words are strung together here? Reply with a number.\n\n{joined}", "{count}", INVERTED),
    ),
)

DATASETS = (COQA, QUAC, WIC, TREC, COLA, MATH_DATASET, FIX_PUNCT, TRUE_CASE, WORD_SEGMENT)
