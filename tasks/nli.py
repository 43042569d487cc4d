"""Natural language inference: ANLI, CB, MNLI, QNLI, RTE, SNLI and WNLI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import has_label, one_line, pick
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

_THREE_WAY = (
    ("entailment", "yes"),
    ("neutral", "it is not possible to tell"),
    ("contradiction", "no"),
)
_TWO_WAY = (("entailment", "yes"), ("not_entailment", "no"))

# For the inverted templates, in label order: "a statement that ...", and for QNLI "a sentence that ... the question".
_THREE_WAY_RELATIONS = ("has to be true", "may or may not be true", "cannot be true")
_RTE_RELATIONS = ("follows from it", "does not follow from it")
_QNLI_RELATIONS = ("answers", "leaves unanswered")


def _three_way_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, hypothesis, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _THREE_WAY)
    return {
        "premise": one_line(record["premise"]),
        "hypothesis": one_line(record["hypothesis"]),
        "relation": pick(_THREE_WAY_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


# ------------------------------------------------------------------------------------------------------------- ANLI

# "No" stands for what is false. Since what is left open must not count as "no" too, the templates ask what is true and
# not, as one might, what follows.
_ANLI_LABELS = (("e", "Yes"), ("n", "It's impossible to say"), ("c", "No"))
_ANLI_RELATIONS = ("is true", "may be true or false", "is false")


def _anli_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise (TFDS's context), hypothesis, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _ANLI_LABELS)
    return {
        "premise": one_line(record["context"]),
        "hypothesis": one_line(record["hypothesis"]),
        "relation": pick(_ANLI_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


# The contexts of the third round also come from fiction, speeches and instructions, so no template says "article".
_ANLI_TEMPLATES = (
    Template(
        "{premise}\n\nOnly the text above counts, not what you may know from elsewhere. Is the statement below true?\n\n{hypothesis}\n\n{options}"
    ),
    Template("Context: {premise}\nStatement: {hypothesis}\nTrue?\n{options}"),
    Template(
        "{hypothesis}\n\nIs that so? Consult the text before you reply, and be honest if it does not settle the matter.\n\n{premise}\n\n{options}"
    ),
    Template(
        "Beware of traps: a sentence can share many words with a text and still be false, or share hardly any and be true.\n\nText: {premise}\n\nSentence: {hypothesis}\n\nIs the sentence true, if all of the text is?\n\n{options}"
    ),
    Template(
        "I am checking a summary against its source. The source reads as follows.\n\n{premise}\n\nIn the summary I find this:\n\n{hypothesis}\n\nIs the summary right on this point?\n{options}"
    ),
    Template(
        "CRITICAL READING, PART B\n\nTake every word of the extract to be accurate. Is the remark underneath it accurate, too?\n\nExtract: {premise}\n\nRemark: {hypothesis}\n\n{options}"
    ),
    Template(
        "These lines are all that Jun has ever read on the subject:\n\n{premise}\n\nNow someone would like to know from Jun whether the following is true. What is the only reply that can be defended?\n\n{hypothesis}\n\n{options}"
    ),
    Template("True or not? {hypothesis}\nSource: {premise}\n{options}"),
    Template(
        "{premise}\n\nWrite one sentence that is tricky to judge and that, as far as this text goes, {relation}.",
        "{hypothesis}",
        INVERTED,
    ),
    Template(
        'For a reading test I need a statement about the text below. Asked if the statement is true, the candidates should choose the reply "{answer}".\n\n{premise}',
        "{hypothesis}",
        INVERTED,
    ),
)


# Nie et al. 2020, section 2.3: contexts of rounds 1 and 2 are from HotpotQA's training set, those of round 3 from
# StoryCloze and WikiHow among others. SNLI is in none of them: it served to train the models that were to be fooled.
_ANLI_HOTPOT = (("hotpot_qa", "ANLI's contexts are from HotpotQA"),)
_ANLI_KIN = {
    1: _ANLI_HOTPOT,
    2: _ANLI_HOTPOT,
    3: (
        ("story_cloze", "ANLI r3 has contexts from StoryCloze"),
        ("hellaswag", "both have text of WikiHow"),
        ("wiki_lingua_english_en", "both have text of WikiHow"),
    ),
}


def _anli(number: int) -> Dataset:
    return Dataset(
        name=f"anli_r{number}",
        cluster="nli",
        source=f"anli/r{number}:0.1.0",
        paper_dataset="anli",
        kin=_ANLI_KIN[number],
        kind=CLASSIFICATION,
        metrics=("accuracy",),
        splits=Splits(dev="validation", test="test"),
        labels=_ANLI_LABELS,
        passage="premise",
        fields=_anli_fields,
        gpt3_prompt=Gpt3Prompt(
            "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
            ("true", "neither", "false"),
        ),
        templates=_ANLI_TEMPLATES,
    )


ANLI_R1 = _anli(1)
ANLI_R2 = _anli(2)
ANLI_R3 = _anli(3)

# --------------------------------------------------------------------------------------------------------------- CB

# SuperGLUE puts contradiction before neutral here, unlike the three-way datasets above and below.
_CB_LABELS = (("entailment", "Yes"), ("contradiction", "No"), ("neutral", "It's impossible to say"))
_CB_RELATIONS = ("is true", "is not true", "may or may not be true")


def _cb_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, hypothesis, relation (a phrase by label), options, answer.

    A premise is a piece of a conversation, a story or the news, whose last sentence matters. A hypothesis is a clause
    of it, often word for word and mostly without a capital letter or a full stop, so no inverted template asks for one.
    """
    words = tuple(word for _, word in _CB_LABELS)
    return {
        "premise": one_line(record["premise"]),
        "hypothesis": one_line(record["hypothesis"]),
        "relation": pick(_CB_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


CB = Dataset(
    name="cb",
    cluster="nli",
    source="super_glue/cb:1.0.2",
    kind=CLASSIFICATION,
    metrics=("accuracy", "mean_multiclass_f1"),
    splits=Splits(dev_size=50),
    labels=_CB_LABELS,
    keep=has_label,
    fields=_cb_fields,
    gpt3_prompt=Gpt3Prompt(
        "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
        ("true", "false", "neither"),
    ),
    templates=(
        Template(
            "{premise}\n\nDoes the person whose words these are take the following to be true?\n\n{hypothesis}\n\n{options}"
        ),
        Template("Text: {premise}\nClaim: {hypothesis}\nTo judge by the text, is the claim true?\n{options}"),
        Template(
            "Consider this claim.\n{hypothesis}\n\nIs it the case? You will have to infer that from what is said here.\n{premise}\n\n{options}"
        ),
        Template(
            "Read the passage to its end, for the last sentence matters most.\n\n{premise}\n\nWould whoever speaks or writes there call these words true?\n\n{hypothesis}\n\n{options}"
        ),
        Template(
            "What somebody supposes, asks or wishes need not be a fact. Bear that in mind and look at this text:\n\n{premise}\n\nAs far as the text is concerned, is the following a fact?\n\n{hypothesis}\n\n{options}"
        ),
        Template(
            "Hi! I came in late, and this is the only part of it that I caught:\n\n{premise}\n\nSo is this true now?\n{hypothesis}\n\nIt is all right if you cannot tell, either.\n{options}"
        ),
        Template(
            "INFERENCE FROM CONTEXT\n\nMaterial:\n{premise}\n\nProposition:\n{hypothesis}\n\nIs the proposition true, given the material?\n\n{options}"
        ),
        Template("{premise}\n=> {hypothesis}\nCorrect?\n{options}"),
        Template(
            "Let someone tell part of a story, report something or talk to somebody else, and bring up the point below in the end. A reader has to gather from it that the point {relation}.\n\nPoint: {hypothesis}",
            "{premise}",
            INVERTED,
        ),
        Template(
            'Write a few sentences, as they might be spoken in a conversation or printed in a book or a newspaper. Anyone who reads yours and is then asked if the words below are true must say "{answer}".\n\n{hypothesis}',
            "{premise}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- MNLI

# "Is it true", never "does it follow": what is neutral does not follow either, so the latter would make "no" right twice.
_MNLI_TEMPLATES = (
    Template(
        "Premise: {premise}\nHypothesis: {hypothesis}\nTaking the premise as fact, is the hypothesis true?\n{options}"
    ),
    Template(
        "{premise}\n\nKnowing this and nothing more, would you say that the next sentence is true?\n\n{hypothesis}\n\n{options}"
    ),
    Template(
        "Is the following true?\n{hypothesis}\n\nYour only source of information is this:\n{premise}\n\n{options}"
    ),
    Template("Given: {premise}\nClaim: {hypothesis}\nIs the claim true?\n{options}"),
    Template(
        'I came across this line: "{premise}"\nA colleague then told me: "{hypothesis}"\nIf the line I read is accurate, is my colleague right about that? Please do not guess where the line leaves it open.\n\n{options}'
    ),
    Template(
        "LOGICAL REASONING\n\nEach item consists of a statement, which is to be accepted, and a conclusion. Select the entry that says whether the conclusion is true.\n\nStatement: {premise}\nConclusion: {hypothesis}\n\n{options}",
        open_input="LOGICAL REASONING\n\nEach item consists of a statement, which is to be accepted, and a conclusion. Write down whether the conclusion is true.\n\nStatement: {premise}\nConclusion: {hypothesis}",
    ),
    Template(
        "A fact checker has one piece of evidence:\n- {premise}\n\nThe sentence to be checked is this:\n- {hypothesis}\n\nGoing by the evidence, is the sentence true?\n\n{options}"
    ),
    Template(
        "Somebody has just said or written this:\n{premise}\n\nMake up another sentence on the same matter, one that {relation} if they are right.",
        "{hypothesis}",
        INVERTED,
    ),
    Template(
        'Sentence A is the background, and B is about it. Asked whether B is true, a careful reader of A replies "{answer}".\n\nA: {premise}\nB:',
        "{hypothesis}",
        INVERTED,
    ),
    Template(
        "Here is a claim.\n\n{hypothesis}\n\nInvent a sentence or two such that, for anyone who believes them, the claim {relation}.",
        "{premise}",
        INVERTED,
    ),
)


def _mnli(variant: str) -> Dataset:
    return Dataset(
        name=f"mnli_{variant}",
        cluster="nli",
        source="glue/mnli:2.0.0",
        paper_dataset="mnli",
        folder="mnli",
        kind=CLASSIFICATION,
        metrics=("accuracy",),
        splits=Splits(test=f"validation_{variant}", exact=variant == "mismatched"),
        labels=_THREE_WAY,
        keep=has_label,
        passage="premise",
        fields=_three_way_fields,
        gpt3_prompt=Gpt3Prompt(
            "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
            ("true", "neither", "false"),
        ),
        templates=_MNLI_TEMPLATES,
    )


MNLI_MATCHED = _mnli("matched")
MNLI_MISMATCHED = _mnli("mismatched")

# ------------------------------------------------------------------------------------------------------------- QNLI


def _qnli_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question, sentence, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _TWO_WAY)
    return {
        "question": one_line(record["question"]),
        "sentence": one_line(record["sentence"]),
        "relation": pick(_QNLI_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


QNLI = Dataset(
    name="qnli",
    cluster="nli",
    source="glue/qnli:2.0.0",
    # Wang et al. 2018 (GLUE), section 3.3: questions and sentences of SQuAD v1.1, train and dev.
    kin=(("squad", "QNLI has SQuAD's questions and sentences"), ("xquad", "both have questions of SQuAD's dev set")),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_TWO_WAY,
    keep=has_label,
    fields=_qnli_fields,
    passage="sentence",
    gpt3_prompt=Gpt3Prompt(
        "Question: {question}\nText: {sentence}\nDoes the text contain the answer to the question?\nAnswer (yes or no):"
    ),
    templates=(
        Template("Question: {question}\nSentence: {sentence}\nDoes the sentence answer the question?\n{options}"),
        Template(
            "{sentence}\n\nCould a reader of the sentence above work out the answer to the following from it alone?\n\n{question}\n\n{options}"
        ),
        Template(
            'I would like to know this: {question}\nA search engine brought up one result: "{sentence}"\nIs what I wanted to know in there?\n\n{options}'
        ),
        Template("Q: {question}\nText: {sentence}\nIs the answer in the text?\n{options}"),
        Template(
            "Please check whether this sentence holds the information that was asked for, and not just words that look like it.\n\nAsked for: {question}\n\nSentence: {sentence}\n\n{options}"
        ),
        Template(
            'SECTION 2: FINDING INFORMATION\n\nA candidate was asked "{question}" and quoted this sentence from an encyclopedia as evidence:\n\n{sentence}\n\nDoes the quotation contain what the candidate was asked for?\n\n{options}'
        ),
        Template(
            "Suppose all you have been told is this:\n{sentence}\n\nCould you now answer somebody who asks you the following?\n{question}\n\n{options}"
        ),
        Template(
            "Read the sentence and ask one question on its subject, namely one that it {relation}.\n\n{sentence}",
            "{question}",
            INVERTED,
        ),
        Template(
            'A pupil is shown the sentence "{sentence}" and has to say whether a certain question can be answered from it. The correct response is "{answer}". Write that question.',
            "{question}",
            INVERTED,
        ),
        Template(
            "Keep to the subject, and write a sentence for an encyclopedia that {relation} the question below.\n\n{question}",
            "{sentence}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------------- RTE


def _rte_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields premise, hypothesis, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _TWO_WAY)
    return {
        "premise": one_line(record["premise"]),
        "hypothesis": one_line(record["hypothesis"]),
        "relation": pick(_RTE_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


RTE = Dataset(
    name="rte",
    cluster="nli",
    source="super_glue/rte:1.0.2",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_TWO_WAY,
    keep=has_label,
    fields=_rte_fields,
    gpt3_prompt=Gpt3Prompt(
        "{premise}\nStatement: {hypothesis}\nIs the statement true or false?\nAnswer:", ("true", "false")
    ),
    templates=(
        Template(
            "{premise}\n\nDoes it follow from the text above that the sentence below is true?\n\n{hypothesis}\n\n{options}"
        ),
        Template("Text: {premise}\nStatement: {hypothesis}\nDoes the text support the statement?\n{options}"),
        Template(
            "Before a newspaper prints a claim, an editor looks for a source that backs it up.\n\nClaim: {hypothesis}\n\nSource: {premise}\n\nDoes the source back up the claim?\n\n{options}"
        ),
        Template("Premise: {premise}\nConclusion: {hypothesis}\nValid?\n{options}"),
        Template(
            'Hello! I read the following report this morning:\n\n{premise}\n\nMay I now tell people this, on the strength of the report?\n"{hypothesis}"\n\n{options}'
        ),
        Template(
            "Would somebody who has read and believed this passage also have to accept the sentence that comes after it?\n\nPassage: {premise}\n\nSentence: {hypothesis}\n\n{options}"
        ),
        Template(
            "QUESTION 4\n\nConsider the extract:\n\n{premise}\n\nA student infers from it: {hypothesis}\n\nDoes the extract justify the inference?\n\n{options}"
        ),
        Template("{hypothesis}\n\nCan that be concluded from this?\n\n{premise}\n\n{options}"),
        Template(
            "Here is a passage from the news.\n\n{premise}\n\nWrite one short sentence on what it talks about, such that the sentence {relation}.",
            "{hypothesis}",
            INVERTED,
        ),
        Template(
            'A quiz shows a passage and a statement and asks whether the passage proves the statement. The solution for this statement is "{answer}".\n\nStatement: {hypothesis}\n\nWhat could the passage be?',
            "{premise}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- SNLI

SNLI = Dataset(
    name="snli",
    cluster="nli",
    source="snli:1.1.0",
    # Bowman et al. 2015, section 2.1: premises are captions of Flickr30k. Elliott et al. 2016: so are Multi30k's texts.
    kin=(("multi30k", "both have captions of Flickr30k"),),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev="validation", test="test"),
    labels=_THREE_WAY,
    spellings=(("-", -1),),  # SNLI's own files, where nobody agreed
    keep=has_label,
    passage="premise",
    fields=_three_way_fields,
    # The premises are captions of photographs and both sentences are about one scene, which the templates say.
    gpt3_prompt=Gpt3Prompt(
        "{premise}\nStatement: {hypothesis}\nIs the statement true, false, or neither?\nAnswer:",
        ("true", "neither", "false"),
    ),
    templates=(
        Template(
            'A photograph has this caption: "{premise}"\n\nHere is a second sentence about the same photograph:\n"{hypothesis}"\n\nIs the second sentence true?\n\n{options}'
        ),
        Template(
            "Premise: {premise}\nHypothesis: {hypothesis}\nBoth describe one scene. If the premise is true, is the hypothesis true as well?\n{options}"
        ),
        Template("{hypothesis}\n\nIs this true of the scene described next?\n\n{premise}\n\n{options}"),
        Template("Scene: {premise}\nTrue of the scene? {hypothesis}\n{options}"),
        Template(
            "I cannot see the picture myself, but this is what I was told about it:\n{premise}\n\nPlease help me out. Going by that, is the following true of the picture?\n{hypothesis}\n\n{options}"
        ),
        Template(
            "Exercise 7. Accept sentence (a) as a correct account of a situation. Is sentence (b) a correct account of the same situation?\n\n(a) {premise}\n(b) {hypothesis}\n\n{options}"
        ),
        Template(
            'Two people are looking at one snapshot. The first, who is always right, says: "{premise}"\nThe second says: "{hypothesis}"\nIs the second one right too?\n\n{options}'
        ),
        Template(
            "{premise}\n\nImagine that scene and write a sentence about it that, given the description, {relation}.",
            "{hypothesis}",
            INVERTED,
        ),
        Template(
            'Caption: {premise}\nSomeone who knows only the caption is asked if another sentence about the picture is true, and says: "{answer}"\nThe other sentence:',
            "{hypothesis}",
            INVERTED,
        ),
        Template(
            "Write the caption of a photograph about which the sentence below {relation}.\n\n{hypothesis}",
            "{premise}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- WNLI

_WNLI_LABELS = (("not_entailment", "no"), ("entailment", "yes"))
_WNLI_RELATIONS = ("does not follow from what is said", "follows from what is said")


def _wnli_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields text, reading (a part of it with a noun for a pronoun), relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _WNLI_LABELS)
    return {
        "text": one_line(record["sentence1"]),
        "reading": one_line(record["sentence2"]),
        "relation": pick(_WNLI_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


WNLI = Dataset(
    name="wnli",
    cluster="nli",
    source="glue/wnli:2.0.0",
    # Wang et al. 2018 (GLUE), section 3.3, and Wang et al. 2019 (SuperGLUE), section 3.1: made of Winograd schemas.
    kin=(("wsc", "both are made of the Winograd schemas"), ("wsc273", "both are made of the Winograd schemas")),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev_size=30),
    labels=_WNLI_LABELS,
    keep=has_label,
    passage="text",
    fields=_wnli_fields,
    gpt3_prompt=Gpt3Prompt("{text}\nStatement: {reading}\nIs the statement true or false?\nAnswer:", ("false", "true")),
    templates=(
        Template("{text}\n\nDoes that tell us the following?\n\n{reading}\n\n{options}"),
        Template("Original: {text}\nReading: {reading}\nIs the reading right?\n{options}"),
        Template(
            "What comes next has a pronoun in it that could be taken in more than one way.\n\n{text}\n\nSomebody takes it like this:\n\n{reading}\n\nHave they understood it?\n\n{options}"
        ),
        Template(
            "Work out who or what the pronouns stand for, then say whether line 2 follows from line 1.\n\n1. {text}\n2. {reading}\n\n{options}"
        ),
        Template(
            "My computer is learning to make sense of words like he, she, it and they. I typed in this:\n{text}\n\nIt drew the following conclusion:\n{reading}\n\nWas it correct to do so?\n{options}"
        ),
        Template("WHO IS MEANT?\n\nGiven: {text}\nInferred: {reading}\n\nDoes the inference hold?\n\n{options}"),
        Template(
            "Would the author of the first text say that the second is what was meant?\n\nFirst: {text}\nSecond: {reading}\n{options}"
        ),
        Template("{reading}\n\nIs that what you learn from the following?\n\n{text}\n\n{options}"),
        Template(
            "{text}\n\nRepeat a part of this with a noun or a name in place of one of its pronouns. Choose the noun or name so that what you write {relation}.",
            "{reading}",
            INVERTED,
        ),
        Template(
            'Someone who knew exactly what each pronoun of a certain text referred to was asked if the line below could be concluded from it. The reply was "{answer}". What may the text have been?\n\n{reading}',
            "{text}",
            INVERTED,
        ),
    ),
)

DATASETS = (ANLI_R1, ANLI_R2, ANLI_R3, CB, MNLI_MATCHED, MNLI_MISMATCHED, QNLI, RTE, SNLI, WNLI)
