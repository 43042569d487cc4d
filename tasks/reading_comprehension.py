"""Reading comprehension: BoolQ, DROP, MultiRC, OpenBookQA and SQuAD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import YES_NO_SPELLINGS, at, capitalized, filled, first, has_label, one_line, pick, question
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# ------------------------------------------------------------------------------------------------------------ BoolQ

# The answer is a boolean in TFDS, not a ClassLabel, so these names are Python's, in the order of int(answer).
_BOOL_Q_LABELS = (("False", "no"), ("True", "yes"))


def _bool_q_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, passage, question, options, answer. BoolQ's questions are lower case without a question mark."""
    options = tf.constant([word for _, word in _BOOL_Q_LABELS])
    return {
        "title": tf.strings.strip(record["title"]),
        "passage": tf.strings.strip(record["passage"]),
        "question": capitalized(question(tf.strings.strip(record["question"]))),
        "options": options,
        "answer": at(options, record["answer"]),
    }


BOOL_Q = Dataset(
    name="bool_q",
    cluster="reading_comprehension",
    source="bool_q:1.0.0",
    # Clark et al. 2019, section 3.1: 3,000 of its questions are yes/no questions of Natural Questions' training set.
    kin=(("natural_questions", "BoolQ has questions of Natural Questions, though not of its open version"),),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_BOOL_Q_LABELS,
    passage="passage",
    fields=_bool_q_fields,
    bare="{passage}\n{question}",
    gpt3_prompt=Gpt3Prompt("{passage}\nQuestion: {question}\nAnswer (yes or no):"),
    templates=(
        Template(
            'The paragraph below comes from an encyclopedia entry called "{title}".\n\n{passage}\n\nGoing by the paragraph alone, how would you answer this?\n{question}\n\n{options}'
        ),
        Template("{question}\n\nLook through this excerpt before you decide.\n\n{passage}\n\n{options}"),
        Template("Text: {passage}\nYes or no: {question}\n{options}"),
        Template(
            'Could you help me settle a small argument? It is about this: {question} All I have found is this passage, under the heading "{title}":\n\n{passage}\n\nPlease tell me what it comes down to.\n{options}'
        ),
        Template(
            'READING TEST\n\nStudy the extract and mark the correct reply to the item beneath it.\n\nExtract from "{title}":\n{passage}\n\nItem: {question}\n\n{options}'
        ),
        Template(
            'Amira: {question}\nTom: Wait, I will look it up. Here is what it says under "{title}":\n\n{passage}\n\nWhat should Tom tell Amira?\n\n{options}'
        ),
        Template("{passage}\n\nWith nothing to rely on but the facts above, give a verdict: {question}\n{options}"),
        Template(
            '{passage}\n\nAsk something about this text that can be settled by a plain yes or no, and for which the text says "{answer}".',
            "{question}",
            INVERTED,
        ),
        Template(
            'I am writing a quiz in which every reply is either yes or no. The next reply has to be "{answer}", and the players will be given the following lines on {title}. What shall I ask them?\n\n{passage}',
            "{question}",
            INVERTED,
        ),
        Template(
            "Please contribute one yes-or-no question to our reader on {title}, and put the right reply under it. The text it goes with is this:\n\n{passage}",
            "{question}\n{answer}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- DROP

_DROP_DATE = r"(\d*)-([A-Za-z]*)-(\d{1,2})"  # TFDS's way to write a date, of which all but the day may be missing


def _drop_answer(text: Any) -> Any:
    """An answer in plain English: TFDS's 1805-October-21 becomes 21 October 1805, as in DROP's own evaluation."""
    return one_line(tf.strings.regex_replace(text, f"^{_DROP_DATE}$", r"\3 \2 \1"))


def _drop_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields passage, question, answer_type, answer and references (with the answers given by the validators).

    An answer is a number, a date or a span of the passage; of several spans TFDS has the first, of a date without its day
    nothing.
    """
    given = tf.strings.strip(record["answer"])
    answer = _drop_answer(given)
    validated = filled(_drop_answer(record["validated_answers"]))
    is_number = tf.strings.regex_full_match(given, r"-?[\d,.]*\d%?")
    is_date = tf.strings.regex_full_match(given, _DROP_DATE)
    return {
        "passage": one_line(record["passage"]),
        "question": one_line(record["question"]),
        "answer_type": tf.where(is_number, "a number", tf.where(is_date, "a date", "a word or a phrase")),
        "answer": answer,
        "references": tf.unique(tf.concat([[answer], validated], axis=0)).y,
    }


DROP = Dataset(
    name="drop",
    cluster="reading_comprehension",
    source="drop:2.0.0",
    kind=GENERATION,
    metrics=("squad", "drop"),
    splits=Splits(test="dev"),
    passage="passage",
    fields=_drop_fields,
    # The passages are about history, matches of American football and the figures of a census.
    gpt3_prompt=Gpt3Prompt("Passage: {passage}\nQuestion: {question}\nAnswer:", stop=("\n",)),
    templates=(
        Template("{passage}\n\nWork this out: {question}"),
        Template(
            "Passage: {passage}\nQuestion: {question}\nAnswer with a number, a date, or some words of the passage:"
        ),
        Template(
            "To answer the question you may have to count, compare, add or subtract what the text mentions.\n\nQuestion: {question}\n\nText: {passage}"
        ),
        Template("{question}\n\nAll that you need is in here, though perhaps not in one place.\n\n{passage}"),
        Template(
            "I have to report one detail to my boss, and it is hidden in this text:\n\n{passage}\n\nHere is what she wants to know. Could you spare me the trouble of working it out?\n{question}"
        ),
        Template(
            "READING WITH A SHARP PENCIL\n\n{passage}\n\nGive the result only, without your calculations or reasons.\n\n(1) {question}"
        ),
        Template(
            "You keep records of all kinds and get a query about this one.\n\nRecord: {passage}\n\nQuery: {question}\n\nYour reply, in the fewest words:"
        ),
        Template("{passage}\n{question}"),
        Template(
            "Make up a question on the passage below for which one has to think a little, and whose solution is this: {answer}\n\n{passage}",
            "{question}",
            INVERTED,
        ),
        Template(
            "{passage}\n\nWrite a question that a careful reader of this text can answer with {answer_type}.",
            "{question}",
            INVERTED,
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------- MultiRC

_MULTIRC_LABELS = (("False", "no"), ("True", "yes"))
_MULTIRC_RELATIONS = ("is wrong", "is right")


def _multirc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields paragraph, question, response (a candidate answer), relation (by label), question_id, options, answer.

    A question has several candidates, any number of them right; `question_id` groups them for the exact match.
    """
    # An older release of the data has HTML and a number before each sentence.
    paragraph = tf.strings.regex_replace(record["paragraph"], r"<b>\s*Sent \d+:\s*</b>|<br ?/?>", " ")
    options = tf.constant([word for _, word in _MULTIRC_LABELS])
    ids = [tf.strings.as_string(record["idx"][name]) for name in ("paragraph", "question")]
    return {
        "paragraph": one_line(tf.strings.regex_replace(paragraph, r"</?b>", "")),
        "question": one_line(record["question"]),
        "response": one_line(record["answer"]),
        "relation": pick(_MULTIRC_RELATIONS, record["label"]),
        "question_id": tf.strings.join(ids, separator="-"),
        "options": options,
        "answer": at(options, record["label"]),
    }


MULTIRC = Dataset(
    name="multirc",
    cluster="reading_comprehension",
    source="super_glue/multirc:1.0.2",
    # Khashabi et al. 2018, section 4, and Williams et al. 2018 (MNLI), section 2.1: both take text of the Open American
    # National Corpus, such as the 9/11 Commission's report.
    kin=(("mnli", "both have text of the 9/11 Commission's report and others of the Open American National Corpus"),),
    kind=CLASSIFICATION,
    metrics=("multirc",),
    labels=_MULTIRC_LABELS,
    spellings=YES_NO_SPELLINGS,
    keep=has_label,
    passage="paragraph",
    fields=_multirc_fields,
    gpt3_prompt=Gpt3Prompt(
        "{paragraph}\n\nQuestion: {question}\nIs the following a right answer? {response}\nYes or no:"
    ),
    templates=(
        Template(
            "{paragraph}\n\nQuestion: {question}\nProposed answer: {response}\n\nIs the proposed answer correct?\n{options}"
        ),
        Template(
            "My class read the text below, and I put a question to them.\n\nText: {paragraph}\n\nWhat I asked: {question}\nWhat one of the pupils said: {response}\n\nMay I give the pupil a point for that?\n\n{options}"
        ),
        Template(
            "Since a question can have several good answers, each is looked at by itself.\n\n{paragraph}\n\n{question}\n- {response}\n\nIs this one of the good ones?\n\n{options}"
        ),
        Template("Text: {paragraph}\nQ: {question}\nA: {response}\nRight?\n{options}"),
        Template(
            "Somebody who has read a certain passage is asked this:\n{question}\n\nThe reply is:\n{response}\n\nHere is the passage. Does it bear out the reply?\n\n{paragraph}\n\n{options}"
        ),
        Template(
            "PROOFS FOR THE ANSWER KEY\n\nPassage: {paragraph}\n\nItem: {question}\nKey: {response}\n\nMay the key be printed as it stands?\n\n{options}"
        ),
        Template(
            "{question}\n{response}\n\nDoes the second line answer the first correctly? Use the following, and note that the evidence may be spread over several sentences.\n\n{paragraph}\n\n{options}"
        ),
        Template(
            "Would you agree, after reading what is written below, with the answer that I am going to suggest? The question is: {question}\nMy suggestion is: {response}\n\n{paragraph}\n\n{options}"
        ),
        Template(
            "{paragraph}\n\n{question}\n\nGive an answer to this that {relation}.",
            "{response}",
            INVERTED,
        ),
        Template(
            "Put a question about the text to its readers. Somebody will reply with the line given here, and the reply has to be one that {relation}.\n\nText: {paragraph}\n\nReply: {response}",
            "{question}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------- OpenBookQA


def _openbookqa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields fact, question (or a sentence to complete), options, answer.

    In the source, facts have no capital letter, and most of them no full stop: all get the one and lose the other.
    """
    options = tf.stack([one_line(record["question"][f"choice_{letter}"]) for letter in "ABCD"])
    return {
        "fact": capitalized(tf.strings.regex_replace(one_line(record["fact1"]), r"[\s.]+$", "")),
        "question": one_line(record["question"]["stem"]),
        "options": options,
        "answer": at(options, record["answerKey"]),
    }


OPENBOOKQA = Dataset(
    name="openbookqa",
    cluster="reading_comprehension",
    source="openbookqa:0.1.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev="validation", test="test"),
    fields=_openbookqa_fields,
    # The book is open: every forward template shows the fact. More than half of the stems are unfinished sentences.
    gpt3_prompt=Gpt3Prompt("{fact}.\n{question}"),
    templates=(
        Template(
            "{fact}\n\nWith this in mind, choose what answers the question or completes the sentence below.\n\n{question}\n\n{options}",
            open_input="{fact}\n\nWith this in mind, answer the question or complete the sentence below.\n\n{question}",
        ),
        Template("Fact: {fact}\nProblem: {question}\n{options}"),
        Template("{question}\n\n{options}\n\nHint: {fact}"),
        Template(
            "This sentence comes from an introduction to the sciences:\n{fact}\n\nPut it together with what everybody knows, and find the line that is right.\n\n{question}\n\n{options}"
        ),
        Template(
            "In the middle of an exam you come to this item:\n\n{question}\n\nIt is an open-book exam, and in the book you find the following:\n\n{fact}\n\nWhat do you mark?\n{options}",
            open_input="In the middle of an exam you come to this item:\n\n{question}\n\nIt is an open-book exam, and in the book you find the following:\n\n{fact}\n\nWhat do you write?",
        ),
        Template(
            "Our teacher wrote something on the blackboard and said that we were going to need it: {fact}\nNow we are stuck on this: {question}\nWould you show us which one to take?\n{options}"
        ),
        Template("ELEMENTARY SCIENCE\n\nRemember: {fact}\nApply: {question}\n\n{options}"),
        Template(
            "There are four ways to go on from here, but only one of them is correct.\n\n{question}\n\nTo find it you should know this:\n- {fact}\n\n{options}"
        ),
        Template(
            "{fact}\n\nThink up a question, or the beginning of a sentence, that shows if someone can apply this. The correct choice will be the following: {answer}",
            "{question}",
            INVERTED,
        ),
        Template(
            "Test item: {question}\nCorrect choice: {answer}\n\nWhich general fact is behind it?",
            "{fact}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------ SQuAD


def _squad_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, context, question, answer (the first one given) and references (all of them)."""
    references = filled(tf.strings.strip(record["answers"]["text"]))
    return {
        "title": tf.strings.strip(tf.strings.regex_replace(record["title"], "_+", " ")),
        "context": tf.strings.strip(record["context"]),
        "question": one_line(record["question"]),
        "answer": first(references),
        "references": references,
    }


SQUAD_V1 = Dataset(
    name="squad_v1",
    cluster="reading_comprehension",
    source="squad/v1.1:3.0.0",
    # Artetxe et al. 2020 (XQuAD), section 4: 1,190 questions of the dev set of SQuAD v1.1, translated.
    kin=(("xquad", "XQuAD has questions and passages of SQuAD's dev set"),),
    paper_dataset="squad",
    folder="squad",
    kind=GENERATION,
    metrics=("squad",),
    passage="context",
    fields=_squad_fields,
    gpt3_prompt=Gpt3Prompt("{context}\n\nQ: {question}\nA:", stop=("\n",)),
    templates=(
        Template(
            "Copy out the words of the passage that answer the question.\n\nPassage: {context}\n\nQuestion: {question}"
        ),
        Template("{context}\n\n{question}\nReply with the shortest phrase from the text that says enough."),
        Template('{question}\n\nYou will find it somewhere in this extract from the article "{title}".\n\n{context}'),
        Template("{context}\nQ: {question}\nA:"),
        Template(
            "I am reading up on the topic of {title}, and one point escapes me: {question} Would you kindly pick it out of this paragraph for me?\n\n{context}"
        ),
        Template(
            "COMPREHENSION EXERCISE\nTopic: {title}\n\n{context}\n\nBe brief, and keep to the wording of the text.\n1. {question}"
        ),
        Template(
            "A friend would like to know something: {question}\n\nBy luck you have these lines in front of you:\n\n{context}\n\nWhat do you tell your friend, in a few words?"
        ),
        Template(
            "{context}\n\nThink of a question to which these lines give the following reply: {answer}",
            "{question}",
            INVERTED,
        ),
        Template(
            'A teacher is setting a test on {title} and wants the pupils to write "{answer}". What should she ask them about this paragraph?\n\n{context}',
            "{question}",
            INVERTED,
        ),
        Template(
            "Make up one quiz question on the paragraph below and put its solution, taken from the paragraph, on the next line.\n\n{context}",
            "Question: {question}\nSolution: {answer}",
            INVERTED,
        ),
    ),
)

_UNANSWERABLE = "unanswerable"
_SQUAD_V2_RELATIONS = (
    "is not answered in this paragraph, though it may look as if it were",
    "is answered in this paragraph",
)


def _squad_v2_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, context, question, relation (by answerability), answer (the first one given), references (all).

    The answer to a question that has none is "unanswerable"; answers that are all blank are no answer at all.
    """
    texts = tf.strings.strip(record["answers"]["text"])
    has_answer = tf.size(texts) > 0
    references = tf.cond(has_answer, lambda: filled(texts), lambda: tf.constant([_UNANSWERABLE]))
    return {
        "title": tf.strings.strip(tf.strings.regex_replace(record["title"], "_+", " ")),
        "context": tf.strings.strip(record["context"]),
        "question": one_line(record["question"]),
        "relation": pick(_SQUAD_V2_RELATIONS, tf.cast(has_answer, tf.int32)),
        "answer": first(references),
        "references": references,
    }


SQUAD_V2 = Dataset(
    name="squad_v2",
    cluster="reading_comprehension",
    source="squad/v2.0:3.0.0",
    # Rajpurkar et al. 2018, section 2: the questions of SQuAD v1.1 and new ones; see squad_v1.
    kin=(("xquad", "XQuAD has questions and passages of SQuAD's dev set"),),
    paper_dataset="squad",
    kind=GENERATION,
    metrics=("squad",),
    passage="context",
    fields=_squad_v2_fields,
    # Not those of SQuAD v1.1: a forward template has to say what to do where there is no answer.
    gpt3_prompt=Gpt3Prompt(
        "{context}\n\nQ: {question} (Where the text does not tell: unanswerable.)\nA:", stop=("\n",)
    ),
    templates=(
        Template(
            '{context}\n\nQuestion: {question}\n\nQuote the answer from the text above. If there is none, write "unanswerable".'
        ),
        Template(
            "{question}\n\nSearch this paragraph for the answer, and reply with the word unanswerable should it not be there.\n\n{context}"
        ),
        Template("Article: {title}\nParagraph: {context}\nQuestion: {question}\nAnswer (or unanswerable):"),
        Template(
            'Some questions merely sound as if a text answered them. Read an extract from the article "{title}", and then name the words that answer the question, or else give the verdict unanswerable.\n\nExtract: {context}\n\nQuestion: {question}'
        ),
        Template(
            "May I bother you with something?\n{question}\nI hope that these lines from an article called {title} say it in a few words. If they do not, just tell me that it is unanswerable, and I will look elsewhere.\n\n{context}"
        ),
        Template(
            "COMPREHENSION TEST WITH TRICK QUESTIONS\n\n{context}\n\nCopy the shortest phrase that answers the item. A trick question gets the remark unanswerable.\n\nItem: {question}"
        ),
        Template(
            'You work at a library and never guess. A caller asks:\n{question}\n\nYou open the only source you have:\n{context}\n\nAll that you may do is read out a phrase from it or say "unanswerable". What does the caller get to hear?'
        ),
        Template(
            "{context}\n\nAsk something to which this text allows only one reply, which is: {answer}",
            "{question}",
            INVERTED,
        ),
        Template("Topic: {title}\n\n{context}\n\nWrite a question that {relation}.", "{question}", INVERTED),
        Template(
            "Contribute a question on the paragraph below to our test, with its solution on a second line. If the paragraph does not hold the answer, the solution is unanswerable.\n\n{context}",
            "{question}\n{answer}",
            INVERTED,
        ),
    ),
)

DATASETS = (BOOL_Q, DROP, MULTIRC, OPENBOOKQA, SQUAD_V1, SQUAD_V2)
