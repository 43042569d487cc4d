"""Reading comprehension with commonsense: CosmosQA and ReCoRD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.tasks.fields import at, filled, first, has_label, one_line, untokenized
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# -------------------------------------------------------------------------------------------------------- CosmosQA

_COSMOS_QA_ANSWERS = ("answer0", "answer1", "answer2", "answer3")


def _cosmos_qa_answers(record: Mapping[str, Any]) -> Any:
    return untokenized(tf.stack([record[name] for name in _COSMOS_QA_ANSWERS]))


def _cosmos_qa_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context (a few sentences of a story), question, options, answer.

    The source is tokenized throughout ("She was n't sick ."), the fields are not. Half of the records have an option
    "None of the above choices.", at any place, which is the answer of some. So an
    inverted template cannot show the answer.
    """
    options = _cosmos_qa_answers(record)
    return {
        "context": untokenized(record["context"]),
        "question": untokenized(record["question"]),
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
    needs_options=(("answer", r"\b(?:none|all) of the above\b"),),
    gpt3_prompt=Gpt3Prompt("{context}\n\nQ: {question}\nA:"),
    templates=(
        Template(
            "{context}\n\n{question}\n\nIt may not be said outright. Choose what's most plausible.\n\n{options}",
            open_input="{context}\n\n{question}\n\nIt may not be said outright. Say what's most plausible.",
        ),
        Template("Story: {context}\nAbout it: {question}\nBest guess:\n{options}"),
        Template(
            "{question}\n\nRead between the lines of this extract, then pick a reply.\n\n{context}\n\n{options}",
            open_input="{question}\n\nRead between the lines of this extract, then reply.\n\n{context}",
        ),
        Template("{context}\n\n{question}\nWhat's likely?\n{options}"),
        Template(
            "Copying words from the text won't do. Think about why people act as they do, then choose.\n\n{context}\n\n{question}\n\n{options}",
            open_input="Copying words from the text won't do. Think about why people act as they do, then answer.\n\n{context}\n\n{question}",
        ),
        Template(
            "Use the text and everyday knowledge. Choose the best of the answers at the end.\n\n{context}\n\n{question}\n\n{options}",
            open_input="Use the text and everyday knowledge.\n\n{context}\n\n{question}",
        ),
        Template("so in this story:\n{context}\n\n{question} any idea?\n{options}"),
        Template("{context}\n\nInfer: {question}\n{options}"),
        Template(
            "{context}\n\nAsk something that readers have to work out for themselves: a cause, motive, consequence or feeling.",
            "{question}",
            INVERTED,
        ),
        Template(
            "Write a few sentences from a diary or story that would make a reader ask this:\n\n{question}",
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
    """Fields passage (without its highlights), lead (a dash and the query up to the placeholder), opening (the query up to there and dots), query (with a gap), entity, sentence (the query with the entity), rest (the query after the placeholder), options, answer, references (all that are right).

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
        "lead": one_line(tf.strings.join(["- ", parts[0]])),
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
    gpt3_prompt=Gpt3Prompt("{passage}\n{lead}"),
    templates=(
        Template("{passage}\n\nComplete this statement from the same report.\n\n{opening}\n\n{options}"),
        Template("News: {passage}\nStatement: {opening}\nCompletion:\n{options}"),
        Template(
            "One more sentence about this story starts as below. Choose the ending that is true to the report.\n\nReport: {passage}\n\nStart: {opening}\n\n{options}",
            open_input="One more sentence about this story starts as below, and a name comes next. Write the rest so that it is true to the report.\n\nReport: {passage}\n\nStart: {opening}",
        ),
        Template("{opening}\n\nContinue from the dots, based on this news story.\n\n{passage}\n\n{options}"),
        Template(
            "Study the article.\n\n{passage}\n\n{opening}\n\nHow should that sentence go on? You may have to put two and two together.\n{options}"
        ),
        Template("read this, then finish the last line for me\n{passage}\n\n{opening}\n{options}"),
        Template(
            "{passage}\n\n{opening}\n\nWhich of these fits the story? Where several names do, take any of them.\n\n{options}",
            open_input="{passage}\n\n{opening}\n\nContinue with the name that comes next and the rest of the sentence.",
        ),
        Template("{passage}\n\nComplete this: {opening}\n{options}"),
        Template("{passage}\n\nAdd one sentence to this report. It has to mention {entity}.", "{sentence}", INVERTED),
        Template(
            "Write a quiz sentence about this news item with a name replaced by four underscores. Put the name on the next line.\n\n{passage}",
            "{query}\n{entity}",
            INVERTED,
        ),
    ),
)

DATASETS = (COSMOS_QA, RECORD)
