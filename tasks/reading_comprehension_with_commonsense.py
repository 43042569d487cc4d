"""Reading comprehension with commonsense: CosmosQA and ReCoRD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.tasks.fields import at, filled, first, has_label, one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# -------------------------------------------------------------------------------------------------------- CosmosQA

_COSMOS_QA_ANSWERS = ("answer0", "answer1", "answer2", "answer3")


def _cosmos_qa_answers(record: Mapping[str, Any]) -> Any:
    return one_line(tf.stack([record[name] for name in _COSMOS_QA_ANSWERS]))


def _cosmos_qa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context (a few sentences of a story, tokenized as in the source), question, options, answer.

    Half of the records have an option "None of the above choices .", at any place, which is the answer of some. So an
    inverted template cannot show the answer.
    """
    options = _cosmos_qa_answers(record)
    return {
        "context": one_line(record["context"]),
        "question": one_line(record["question"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


def _cosmos_qa_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has a label (the test set has none) and four different answers."""
    distinct, _ = tf.unique(_cosmos_qa_answers(record))
    return has_label(record) & tf.equal(tf.size(distinct), len(_COSMOS_QA_ANSWERS))


COSMOS_QA = Dataset(
    name="cosmos_qa",
    cluster="reading_comprehension_with_commonsense",
    source="cosmos_qa:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    keep=_cosmos_qa_keep,
    passage="context",
    fields=_cosmos_qa_fields,
    gpt3_prompt=Gpt3Prompt("{context}\n\nQ: {question}\nA:"),
    templates=(
        Template(
            "{context}\n\n{question}\n\nThis may not be said in so many words. Choose what is most plausible.\n\n{options}",
            open_input="{context}\n\n{question}\n\nThis may not be said in so many words. Say what is most plausible.",
        ),
        Template("Story: {context}\nAbout the story: {question}\nBest guess:\n{options}"),
        Template(
            "{question}\n\nThe above is asked about an extract from a story, which runs as follows.\n\n{context}\n\nRead between the lines and pick one reply.\n\n{options}",
            open_input="{question}\n\nThe above is asked about an extract from a story, which runs as follows.\n\n{context}\n\nRead between the lines and reply.",
        ),
        Template(
            "This has been cut out of a blog or a story:\n\n{context}\n\nOn the back, someone has written a question about it.\n\n{question}\n\nWhich of these would you write below the question?\n\n{options}",
            open_input="This has been cut out of a blog or a story:\n\n{context}\n\nOn the back, someone has written a question about it.\n\n{question}\n\nWhat would you write below the question?",
        ),
        Template(
            "READING BETWEEN THE LINES\n\nIt will seldom do to copy words from the text. Ask yourself why people act as they do and what tends to come of it, and mark one choice.\n\n{context}\n\n1. {question}\n\n{options}",
            open_input="READING BETWEEN THE LINES\n\nIt will seldom do to copy words from the text. Ask yourself why people act as they do and what tends to come of it, and then answer.\n\n{context}\n\n1. {question}",
        ),
        Template(
            'Answer the question at the end from the text and from what you know of everyday life. If one of the choices says "None of the above choices", it is right only where all the others are wrong.\n\n{context}\n\n{question}\n\n{options}',
            open_input='Answer the question at the end from the text and from what you know of everyday life. If none of the answers that come to mind is right, say "None of the above choices".\n\n{context}\n\n{question}',
        ),
        Template(
            "In my book club we take a short extract and talk about what lies behind it. Here is the one for today:\n\n{context}\n\nThe point given to me is this: {question}\nWhat can I say that the others will agree with?\n{options}"
        ),
        Template("{context}\n\nInfer: {question}\n{options}"),
        Template(
            "{context}\n\nAsk about something in this that readers have to work out for themselves, such as a cause, a motive, a consequence or a feeling.",
            "{question}",
            INVERTED,
        ),
        Template(
            "Make up a passage of a few sentences, out of a diary or a story, that would lead a reader to ask the following.\n\n{question}",
            "{context}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- ReCoRD

_PLACEHOLDER = "@placeholder"


def _record_is_right(record: Mapping[str, Any]) -> Any:
    """Which entities (blank ones apart) are among the answers, which may be several names of one person, place or thing."""
    entities, answers = filled(one_line(record["entities"])), one_line(record["answers"])
    return tf.reduce_any(tf.equal(entities[:, tf.newaxis], answers[tf.newaxis]), axis=1)


def _record_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields passage (without its highlights), lead (the query up to the placeholder), opening (the same and dots), query (with a gap), entity, sentence (the query with the entity), rest (the query after the placeholder), options, answer, references (all that are right).

    An option is an entity with the rest, since a query may begin with it. The metric leaves the rest out.
    """
    passage = tf.strings.regex_replace(record["passage"], r"(?s)\s*@highlight\b.*$", "")
    passage = tf.strings.regex_replace(passage, r"[ \t\pZ]*[\r\n][\s\pZ]*", "\n")
    parts = tf.strings.split(record["query"], _PLACEHOLDER)
    entities = filled(one_line(record["entities"]))
    right = tf.boolean_mask(entities, _record_is_right(record))
    rest = tf.strings.regex_replace(parts[1], r"[\s\pZ]+", " ")
    options, _ = tf.unique(tf.strings.strip(tf.strings.join([entities, rest])))
    references, _ = tf.unique(tf.strings.strip(tf.strings.join([right, rest])))
    return {
        "passage": tf.strings.strip(tf.strings.regex_replace(passage, r"[ \t\pZ]+", " ")),
        "lead": one_line(parts[0]),
        "opening": one_line(tf.strings.join([parts[0], " ..."])),
        "query": one_line(tf.strings.join([parts[0], "____", parts[1]])),
        "entity": first(right),
        "sentence": one_line(tf.strings.join([parts[0], first(right), parts[1]])),
        "rest": tf.strings.strip(rest),
        "options": options,
        "answer": first(references),
        "references": references,
    }


def _record_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has an answer (the test set has none) and one placeholder."""
    return tf.reduce_any(_record_is_right(record)) & tf.equal(
        tf.size(tf.strings.split(record["query"], _PLACEHOLDER)), 2
    )


RECORD = Dataset(
    name="record",
    cluster="reading_comprehension_with_commonsense",
    source="super_glue/record:1.0.2",
    # Zhang et al. 2018 (ReCoRD), section 3: passages are articles of the CNN/Daily Mail corpus.
    kin=(("cnn_dailymail", "ReCoRD's passages are articles of CNN and Daily Mail"),),
    kind=CLASSIFICATION,
    metrics=("accuracy", "record"),
    keep=_record_keep,
    passage="passage",
    fields=_record_fields,
    gpt3_prompt=Gpt3Prompt("{passage}\n- {lead}"),
    templates=(
        Template("{passage}\n\nComplete a statement from the same report.\n\n{opening}\n\n{options}"),
        Template("News: {passage}\nStatement: {opening}\nCompletion:\n{options}"),
        Template(
            "Below stand a news report and the beginning of one more sentence about the story. The endings that have been proposed differ in the name at their start. Choose one that is true to the report.\n\nReport: {passage}\n\nBeginning: {opening}\n\n{options}",
            open_input="Below stand a news report and the beginning of one more sentence about the story. The ending starts with a name. Write one that is true to the report.\n\nReport: {passage}\n\nBeginning: {opening}",
        ),
        Template("{opening}\n\nGo on from the dots in accordance with the following news.\n\n{passage}\n\n{options}"),
        Template(
            "CLOZE TEST\n\nStudy the article, and then finish the sentence from where the dots are. It was written by a journalist who knew the whole story, so you may have to put two and two together.\n\nArticle:\n{passage}\n\nSentence:\n{opening}\n\n{options}"
        ),
        Template(
            "The radio was on, and I heard all of this:\n\n{passage}\n\nThen came the words that follow, and a door slammed where I have put the dots.\n{opening}\n\nWhat did I miss?\n\n{options}"
        ),
        Template(
            "{passage}\n\n{opening}\n\nMost of the continuations listed here would put a wrong name into the story. Which would not?\n\n{options}",
            open_input="{passage}\n\n{opening}\n\nMany a continuation would put a wrong name into the story. Write one that does not.",
        ),
        Template(
            "Which ending agrees with the facts of the case?\n\nThe facts:\n{passage}\n\nTo be ended:\n{opening}\n\n{options}",
            open_input="How can the second text be ended so that it agrees with the facts of the case?\n\nThe facts:\n{passage}\n\nTo be ended:\n{opening}",
        ),
        Template(
            "{passage}\n\nThis report is one sentence short. It has to mention {entity}. Write the sentence.",
            "{sentence}",
            INVERTED,
        ),
        Template(
            "Readers are to show that they have understood the news item below. Set them a sentence with one name left out (a line of underscores marks the gap), and add the missing name as the solution.\n\n{passage}",
            "{query}\nSolution: {entity}",
            INVERTED,
        ),
    ),
)

DATASETS = (COSMOS_QA, RECORD)
