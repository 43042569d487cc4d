"""Reading comprehension: BoolQ, DROP, MultiRC, OpenBookQA and SQuAD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, GENERATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import (
    EXAM_NEEDS_OPTIONS,
    YES_NO_SPELLINGS,
    at,
    capitalized,
    filled,
    first,
    has_label,
    one_line,
    pick,
    question,
    untokenized,
    without_hidden_characters,
)
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# ------------------------------------------------------------------------------------------------------------ BoolQ

# The answer is a boolean in TFDS, not a ClassLabel, so these names are Python's, in the order of int(answer).
_BOOL_Q_LABELS = (("False", "no"), ("True", "yes"))

_PARENTHESES = r"\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*\)"  # four deep
_PAIRED_WORDS = (
    "north|south|east|west|blood|carbon|hydrogen|oxygen|doctor|physician|attorney|priest|bank|parent|teacher|predator"
    "|host|cost|space|mind|obsessive|rural|adjective|subject|grizzly|ID|non"
)
# BoolQ's passages are Wikipedia's, put through a tokenizer for TeX: ``quoted'', 1997--1998, the blood--brain barrier,
# the series--created by his son--ran long.
_BOOL_Q_PASSAGE = (
    ("``|''", '"'),
    (r" ?\(\\displaystyle" + _PARENTHESES.removeprefix(r"\("), ""),  # after the same formula in plain text
    (r" \( listen\)", ""),
    (r"(\w) ([.,](?: |$))", r"\1\2"),
    (rf"(?i)\b({_PAIRED_WORDS}|\d+)--([a-z])", r"\1–\2"),
    (r"([^\s-])--([a-z])", r"\1 – \2"),
    (r"([^\s-]) ?-- ([^-])", r"\1 – \2"),
    (r" --([^\s-])", r" – \1"),
    *((r"([^\s-])--([^\s-])", r"\1–\2"),) * 2,
)


def _rewritten(text: Any, rules: tuple[tuple[str, str], ...]) -> Any:
    for pattern, instead in rules:
        text = tf.strings.regex_replace(text, pattern, instead)
    return tf.strings.strip(text)


def _bool_q_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, passage, question, options, answer. BoolQ's questions are lower case without a question mark."""
    options = tf.constant([word for _, word in _BOOL_Q_LABELS])
    return {
        "title": tf.strings.strip(record["title"]),
        "passage": _rewritten(without_hidden_characters(record["passage"]), _BOOL_Q_PASSAGE),
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
        Template('"{title}"\n\n{passage}\n\nOnly the paragraph counts: {question}\n{options}'),
        Template("{question}\n\nCheck this excerpt before you decide.\n\n{passage}\n\n{options}"),
        Template("Text: {passage}\nYes or no: {question}\n{options}"),
        Template(
            "settle this for us please: {question}\nall we found is the entry on {title}\n\n{passage}\n\n{options}"
        ),
        Template(
            "Read the passage about {title}, then answer the question with yes or no.\n\n{passage}\n\n{question}\n\n{options}"
        ),
        Template("{passage}\n\n{question}\nAnswer yes or no.\n{options}"),
        Template("Rely on these facts only.\n\n{passage}\n\n{question}\nYes or no?\n{options}"),
        Template(
            '{passage}\n\nAsk a yes-or-no question about this text. The answer should be "{answer}".',
            "{question}",
            INVERTED,
        ),
        Template(
            'Quiz topic: {title}\n\n{passage}\n\nWrite a question that this text answers with "{answer}".',
            "{question}",
            INVERTED,
        ),
        Template(
            "Write a yes-or-no question about the text on {title}, then its answer on the next line.\n\n{passage}",
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


_DROP_COUNTS = "two|three|four|five|six|seven|eight|nine|ten"
_DROP_SEVERAL = (
    "quarters|halves|players|receivers|quarterbacks|kickers|teams|groups|races|ethnicities|ancestries|nationalities"
    "|religions|denominations|languages|cities|towns|villages|countries|nations|states|regions|areas|places|provinces"
    "|territories|islands|forts|castles|years|months|days|dates|events|battles|wars|treaties|persons|men|women|kings"
    "|rulers|leaders|generals|commanders|nobles|families|dynasties|tribes|armies|ships|weapons|factors|reasons|types"
    "|kinds|names|titles|positions|games|weeks|seasons|categories|populations|embassies|parties|companies|industries"
    "|crops|sectors|species|animals|plants|buildings|churches|schools|universities|awards|parts|goals|touchdowns|passes"
)
# What a question says that asks for several things ("In which quarters", "which two players"). Between the two words
# stand only numbers and adjectives: "What was the teams' score?" asks for one.
_DROP_ASKS_FOR_SEVERAL = (
    rf"(?i).*\b(?:(?:which|what) (?:(?:the|all|other|different|main|age|field|touchdown|{_DROP_COUNTS}|\w+(?:ic|al|an|ous|ese|ish|ern)"
    rf"|U\.S\.|NFL|or) ?)*(?:{_DROP_SEVERAL})(?: [^'’]|\?|,|$)"
    rf"|(?:which|what) (?:(?:first|last|other|top) )?(?:{_DROP_COUNTS}) \w"
    rf"|(?:who|what|which) (?:are|were) (?:(?:all|some|the|both|\w+['’]s?|(?-i:[A-Z]\w+)) )*"
    rf"(?:(?:first|last|top|other|only|main) )?(?:(?:{_DROP_COUNTS}) \w|(?:{_DROP_SEVERAL}|children|members|people)\b)"
    r"|who (?:were|was) on board"
    r"|who (?:caught|threw|scored|kicked|made|ran) (?:(?:rushing|passing|receiving|touchdown|field|goal|short|long) )*"
    r"(?:touchdowns|goals|passes|runs|receptions|TDs)\b).*"
)
# "Which groups were larger: Germans or Italians?" asks for one of two.
_DROP_COMPARES = (
    r"(?i).*\b(?:more|fewer|less|larger|smaller|bigger|greater|higher|lower|longer|shorter|first|last|later|earlier"
    r"|second|older|younger)\b.* or .*"
)


def _drop_keep(record: Mapping[str, Any]) -> Any:
    """Leaves out a question that asks for several things, of which TFDS has only the first.

    An answer that names several, as "Poles, Germans, and Kashubians" does, is a whole one. So is the answer to "How
    many".
    """
    asked = one_line(record["question"])
    several = tf.strings.regex_full_match(asked, _DROP_ASKS_FOR_SEVERAL)
    one = (
        tf.strings.regex_full_match(asked, _DROP_COMPARES)
        | tf.strings.regex_full_match(asked, r"(?i).*\bhow (?:many|much|long|old|far)\b.*")
        | tf.strings.regex_full_match(record["answer"], r"(?s).*(?:, |\band\b|&).*")
    )
    return tf.logical_not(several) | one


DROP = Dataset(
    name="drop",
    cluster="reading_comprehension",
    source="drop:2.0.0",
    kind=GENERATION,
    metrics=("squad", "drop"),
    splits=Splits(test="dev"),
    keep=_drop_keep,
    passage="passage",
    fields=_drop_fields,
    # The passages are about history, matches of American football and the figures of a census.
    gpt3_prompt=Gpt3Prompt("Passage: {passage}\nQuestion: {question}\nAnswer:", stop=("\n",)),
    templates=(
        Template("{passage}\n\nWork this out: {question}"),
        Template("Passage: {passage}\nQuestion: {question}\nAnswer (a number, a date or words of the passage):"),
        Template("You may have to count, compare, add or subtract.\n\nQuestion: {question}\n\nText: {passage}"),
        Template("{question}\n\nIt's all in here, though perhaps not in one place.\n\n{passage}"),
        Template("need one detail from this text:\n{question}\n\n{passage}"),
        Template("Read closely.\n\n{passage}\n\n{question}\nGive the result only."),
        Template("Record: {passage}\nQuery: {question}\nReply in the fewest words:"),
        Template("{passage}\n{question}"),
        Template(
            "Write a question about this passage that takes some thinking. Its answer is: {answer}\n\n{passage}",
            "{question}",
            INVERTED,
        ),
        Template("{passage}\n\nAsk something about this that is answered with {answer_type}.", "{question}", INVERTED),
    ),
)

# ---------------------------------------------------------------------------------------------------------- MultiRC

_MULTIRC_LABELS = (("False", "no"), ("True", "yes"))
_MULTIRC_RELATIONS = ("is wrong", "is right")


def _multirc_text(text: Any) -> Any:
    """A text on one line. An eighth of the paragraphs are tokenized, and some have marks that show nothing."""
    return untokenized(without_hidden_characters(text))


def _multirc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields paragraph, question, response (a candidate answer), relation (by label), question_id, options, answer.

    A question has several candidates, any number of them right; `question_id` groups them for the exact match.
    """
    # An older release of the data has HTML and a number before each sentence. Plots of films have Wikipedia's braces.
    paragraph = tf.strings.regex_replace(
        record["paragraph"], r"<b>\s*Sent \d+:\s*</b>|<br ?/?>|\{ ?\{[^{}]*\} ?\}", " "
    )
    options = tf.constant([word for _, word in _MULTIRC_LABELS])
    ids = [tf.strings.as_string(record["idx"][name]) for name in ("paragraph", "question")]
    return {
        "paragraph": _multirc_text(tf.strings.regex_replace(paragraph, r"</?b>", "")),
        "question": _multirc_text(record["question"]),
        "response": _multirc_text(record["answer"]),
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
        Template("{paragraph}\n\nQuestion: {question}\nProposed answer: {response}\n\nIs it correct?\n{options}"),
        Template(
            "Text: {paragraph}\n\nI asked: {question}\nA student said: {response}\n\nIs the student right?\n{options}"
        ),
        Template(
            "A question can have several right answers.\n\n{paragraph}\n\n{question}\n- {response}\n\nIs this a right answer?\n{options}"
        ),
        Template("Text: {paragraph}\nQ: {question}\nA: {response}\nRight?\n{options}"),
        Template("{question}\n{response}\n\nDoes the passage bear that out?\n\n{paragraph}\n\n{options}"),
        Template("{paragraph}\n\n{question} {response}\n\nCorrect?\n{options}"),
        Template(
            "Is the answer right? The evidence may be spread over several sentences.\n\nQuestion: {question}\nAnswer: {response}\n\n{paragraph}\n\n{options}"
        ),
        Template("i'd answer this as below, agree?\n{question}\n-> {response}\n\n{paragraph}\n\n{options}"),
        Template("{paragraph}\n\n{question}\n\nGive an answer that {relation}.", "{response}", INVERTED),
        Template(
            "Text: {paragraph}\n\nReply: {response}\n\nWrite a question about the text to which this reply {relation}.",
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
    needs_options=EXAM_NEEDS_OPTIONS,
    # The book is open: every forward template shows the fact. More than half of the stems are unfinished sentences.
    gpt3_prompt=Gpt3Prompt("{fact}.\n{question}"),
    templates=(
        Template(
            "{fact}\n\nWith this in mind, choose the answer or completion.\n\n{question}\n\n{options}",
            open_input="{fact}\n\nWith this in mind, answer the question or complete the sentence.\n\n{question}",
        ),
        Template("Fact: {fact}\nAnswer or complete: {question}\n{options}"),
        Template("{question}\n\n{options}\n\nHint: {fact}"),
        Template(
            "Science book: {fact}\n\n{question}\n\nAnswer or complete that, using the book and common knowledge.\n{options}"
        ),
        Template("Open-book exam: {question}\n\nThe book says: {fact}\n\nWhat do you answer?\n{options}"),
        Template("the hint on the board says: {fact}\nhow do we answer or complete this?\n{question}\n{options}"),
        Template("Remember: {fact}\nApply: {question}\n\n{options}"),
        Template("Continue or answer this correctly:\n{question}\n\nIt helps to know:\n- {fact}\n\n{options}"),
        Template(
            "{fact}\n\nWrite a question, or the start of a sentence, that tests this. The right answer should be: {answer}",
            "{question}",
            INVERTED,
        ),
        Template("Test item: {question}\nCorrect: {answer}\n\nWhat general fact is behind it?", "{fact}", INVERTED),
    ),
)

# ------------------------------------------------------------------------------------------------------------ SQuAD


# Wikipedia's notes: [citation needed], [update], [who?], [note 3], [4] and, after a word, [d]. Words that an editor put
# into a quotation ("when [the king] died") stay.
_NOTES = (
    (
        r"\[(?:[a-z][a-z ]* needed|update|vague|dubious(?: ?[–-] ?discuss)?|(?:by )?wh(?:o|om|en|ere|ich|y|at|ose)\?|how\?"
        r"|original research\??|not in citation given|dead link|(?i:note|nb|n) ?\d+)\]",
        "",
    ),
    (r"([\pL\pN.,;:!?\"'”’)])(?:\[(?:\d{1,3}|[a-z])\])+([\s.,;:!?)]|$)", r"\1\2"),
    (r"[ \t]{2,}", " "),
)


def _squad_text(text: Any) -> Any:
    """Text without Wikipedia's notes. A span of a passage is still a span of it, since both are cleaned alike."""
    return _rewritten(without_hidden_characters(text), _NOTES)


def _squad_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields title, context, question, answer (the first one given) and references (all of them)."""
    references = filled(_squad_text(record["answers"]["text"]))
    return {
        "title": tf.strings.strip(tf.strings.regex_replace(record["title"], "_+", " ")),
        "context": _squad_text(record["context"]),
        "question": _squad_text(tf.strings.regex_replace(one_line(record["question"]), r" +\?", "?")),
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
            "Copy the words of the passage that answer the question.\n\nPassage: {context}\n\nQuestion: {question}"
        ),
        Template("{context}\n\n{question}\nReply with the shortest phrase that says enough."),
        Template('looking for this: {question}\n\nit\'s somewhere in the article "{title}":\n\n{context}'),
        Template("{context}\n\nQuestion on the text: {question}"),
        Template('From the article "{title}".\n\n{context}\n\n{question}\nA few words will do.'),
        Template("{context}\n\nKeep to the wording of the text: {question}"),
        Template("Topic: {title}\n\n{context}\n\n{question}"),
        Template("{context}\n\nWrite a question that these lines answer with: {answer}", "{question}", INVERTED),
        Template(
            "Test on {title}\n\n{context}\n\nWhat is the question if the answer key says this?\n{answer}",
            "{question}",
            INVERTED,
        ),
        Template(
            "Write one quiz question about the paragraph. Put its answer, copied from the paragraph, on the next line.\n\n{context}",
            "{question}\n{answer}",
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
    """Fields title, context, question, relation (by answerability), wanted (the same with the answer, if there is one), answer (the first one given), references (all).

    The answer to a question that has none is "unanswerable"; answers that are all blank are no answer at all.
    """
    texts = _squad_text(record["answers"]["text"])
    has_answer = tf.size(texts) > 0
    references = tf.cond(has_answer, lambda: filled(texts), lambda: tf.constant([_UNANSWERABLE]))
    wanted = tf.where(
        has_answer,
        tf.strings.join(["that these lines answer with: ", first(references)]),
        "that these lines seem to answer but don't.",
    )
    return {
        "title": tf.strings.strip(tf.strings.regex_replace(record["title"], "_+", " ")),
        "context": _squad_text(record["context"]),
        "question": _squad_text(tf.strings.regex_replace(one_line(record["question"]), r" +\?", "?")),
        "wanted": wanted,
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
            '{context}\n\nQuestion: {question}\n\nQuote the answer from the text, or write "unanswerable" if it isn\'t there.'
        ),
        Template('{context}\n\n{question}\nAnswer or "unanswerable":'),
        Template("Article: {title}\nParagraph: {context}\nQuestion: {question}\nAnswer (or unanswerable):"),
        Template(
            "The text answers some questions and not others. Copy the words that answer this one, or say unanswerable.\n\nExtract: {context}\n\nQuestion: {question}"
        ),
        Template(
            "can you find this in the article on {title}? {question}\njust say unanswerable if it isn't in there\n\n{context}"
        ),
        Template("{question}\n\nSearch the paragraph. If it doesn't say, reply unanswerable.\n\n{context}"),
        Template("Never guess.\n\n{context}\n\n{question}\nA phrase from the text, or unanswerable:"),
        Template("{context}\n\nAsk something {wanted}", "{question}", INVERTED),
        Template("Topic: {title}\n\n{context}\n\nWrite a question that {relation}.", "{question}", INVERTED),
        Template(
            "Add a question about this paragraph to our test. On a second line, answer it with a phrase from the paragraph, or with unanswerable if the paragraph doesn't say.\n\n{context}",
            "{question}\n{answer}",
            INVERTED,
        ),
    ),
)

DATASETS = (BOOL_Q, DROP, MULTIRC, OPENBOOKQA, SQUAD_V1, SQUAD_V2)
