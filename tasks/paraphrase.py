"""Paraphrase: MRPC, QQP, PAWS-Wiki and STS-B."""

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


# MRPC and PAWS come tokenized (`He said , `` I don 't know . ''`), each in its own dialect. Applied in order.
_TOKENIZATION = (
    (r"\s+", " "),
    (r"``\s?", '"'),
    (r"\s?''", '"'),
    (r'(^|[ (])" ([^"]*) "', r'\1"\2"'),  # straight quotation marks stand apart on both sides
    (r'^" ([^"]*)$', r'"\1'),  # a quotation that the next sentence of the source would close
    (r" (n't|['’](?:s|re|ve|ll|d|m|t))\b", r"\1"),
    (r" n 't\b", "n't"),
    (r" ([,;:?!%)\]])", r"\1"),
    (r' \.( |"|$)', r".\1"),
    (r"([(\[$£]) ", r"\1"),
)


def _untokenized(text: Any) -> Any:
    """The text as it is usually written, on one line."""
    for pattern, instead in _TOKENIZATION:
        text = tf.strings.regex_replace(text, pattern, instead)
    return tf.strings.strip(text)


# ------------------------------------------------------------------------------------------------------------- MRPC

_MRPC_LABELS = (("not_equivalent", "no"), ("equivalent", "yes"))
_MRPC_RELATIONS = ("differs in meaning from", "means the same as")  # "a sentence that ... this one"


def _mrpc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence1, sentence2, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _MRPC_LABELS)
    return {
        "sentence1": _untokenized(record["sentence1"]),
        "sentence2": _untokenized(record["sentence2"]),
        "relation": pick(_MRPC_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


MRPC = Dataset(
    name="glue_mrpc",
    cluster="paraphrase",
    source="glue/mrpc:2.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy", "binary_f1"),
    labels=_MRPC_LABELS,
    keep=has_label,
    fields=_mrpc_fields,
    # The raters let small differences of detail pass, so no template asks for exact equivalence.
    gpt3_prompt=Gpt3Prompt(
        "First sentence: {sentence1}\nSecond sentence: {sentence2}\nDo both sentences say the same?\nAnswer (yes or no):"
    ),
    templates=(
        Template("Sentence 1: {sentence1}\nSentence 2: {sentence2}\nDo the two mean the same thing?\n{options}"),
        Template("{sentence1}\n\n{sentence2}\n\nIs one of these a restatement of the other?\n\n{options}"),
        Template(
            "Two sentences have been taken from news reports. Leaving aside details of little weight, do they report the same thing?\n\nReport A: {sentence1}\nReport B: {sentence2}\n\n{options}"
        ),
        Template("A: {sentence1}\nB: {sentence2}\nParaphrase?\n{options}"),
        Template(
            "An editor does not want to run the same piece of news twice. This line has already been printed:\n\n{sentence1}\n\nNow the next one lands on the desk:\n\n{sentence2}\n\nDoes it say the same?\n\n{options}"
        ),
        Template(
            "I gave my students a sentence from the news and told them to put it differently.\n\nThe sentence: {sentence1}\nOne attempt: {sentence2}\n\nWould you accept the attempt as a paraphrase?\n{options}"
        ),
        Template(
            "COMPARING TEXTS\n\nAre (a) and (b) semantically equivalent?\n\n(a) {sentence1}\n(b) {sentence2}\n\n{options}"
        ),
        Template(
            "Could the second of these lines take the place of the first, and would readers still come away with the same message?\n1. {sentence1}\n2. {sentence2}\n\n{options}"
        ),
        Template(
            "{sentence1}\n\nKeep many of these words, and write a sentence that {relation} the one above.",
            "{sentence2}",
            INVERTED,
        ),
        Template(
            'When asked if two sentences from the news were paraphrases of each other, a reader said "{answer}". One of the two was this:\n\n{sentence2}\n\nWhat was the other?',
            "{sentence1}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------------- QQP

_QQP_LABELS = (("not_duplicate", "no"), ("duplicate", "yes"))
_QQP_RELATIONS = ("does not ask for the same thing as", "asks for the same thing as")  # "a question that ... this one"


def _question(text: Any) -> Any:
    """The question on one line.

    QQP was written as CSV and is read as plain TSV, so a quotation mark within a question is doubled or worse; it becomes an apostrophe.
    The marks that enclose a whole question go.
    """
    text = tf.strings.regex_replace(one_line(text), '"{2,}', "'")
    return one_line(tf.strings.regex_replace(text, '^"([^"]*)"$', r"\1"))


def _qqp_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields question1, question2, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _QQP_LABELS)
    return {
        "question1": _question(record["question1"]),
        "question2": _question(record["question2"]),
        "relation": pick(_QQP_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


QQP = Dataset(
    name="glue_qqp",
    cluster="paraphrase",
    source="glue/qqp:2.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy", "binary_f1"),
    labels=_QQP_LABELS,
    keep=has_label,
    fields=_qqp_fields,
    gpt3_prompt=Gpt3Prompt(
        "First question: {question1}\nSecond question: {question2}\nDo both questions ask for the same thing?\nAnswer (yes or no):"
    ),
    templates=(
        Template("{question1}\n{question2}\n\nAre these two asking the same thing?\n\n{options}"),
        Template("Question A: {question1}\nQuestion B: {question2}\nDuplicates?\n{options}"),
        Template(
            "A website where anybody can ask anything merges the questions that amount to the same. Should it merge these?\n\n- {question1}\n- {question2}\n\n{options}"
        ),
        Template(
            "Someone has already asked this:\n{question1}\n\nAnd I was about to ask this:\n{question2}\n\nWill the answers to the former serve me just as well?\n{options}"
        ),
        Template(
            "Think of a perfect reply to the question on top. Would it also be a perfect reply to the one at the bottom?\n\nTop: {question1}\n\nBottom: {question2}\n\n{options}"
        ),
        Template(
            "You moderate a forum, and a member has reported a new question as a repetition of an old one.\n\nOld: {question1}\nNew: {question2}\n\nIs the member right?\n\n{options}"
        ),
        Template("DUPLICATE DETECTION\nInput 1: {question1}\nInput 2: {question2}\nSame intent?\n{options}"),
        Template(
            "Ann wrote: {question1}\nBen wrote: {question2}\n\nPlease tell me if Ann and Ben are after the same information.\n\n{options}"
        ),
        Template(
            "{question1}\n\nStay close to this subject, and think up a question that {relation} the one above.",
            "{question2}",
            INVERTED,
        ),
        Template(
            "Two questions from a website, with a note on whether they are duplicates. Fill in the first one.\n\nDuplicates: {answer}\nSecond question: {question2}\nFirst question:",
            "{question1}",
            INVERTED,
        ),
    ),
)

# -------------------------------------------------------------------------------------------------------- PAWS-Wiki

_PAWS_LABELS = (("different_meaning", "no"), ("paraphrase", "yes"))
_PAWS_RELATIONS = ("no longer has the same meaning", "still has the same meaning")  # "so that it ..."


def _paws_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence1, sentence2, relation (a phrase by label), options, answer."""
    words = tuple(word for _, word in _PAWS_LABELS)
    return {
        "sentence1": _untokenized(record["sentence1"]),
        "sentence2": _untokenized(record["sentence2"]),
        "relation": pick(_PAWS_RELATIONS, record["label"]),
        "options": tf.constant(words),
        "answer": pick(words, record["label"]),
    }


PAWS_WIKI = Dataset(
    name="paws_wiki",
    cluster="paraphrase",
    source="paws_wiki:1.1.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev="validation", test="test"),
    labels=_PAWS_LABELS,
    fields=_paws_fields,
    passage="sentence1",
    # Both sentences are made of nearly the same words whatever the label, and some templates warn of that.
    gpt3_prompt=Gpt3Prompt(
        "First sentence: {sentence1}\nSecond sentence: {sentence2}\nDo both sentences say the same?\nAnswer (yes or no):"
    ),
    templates=(
        Template("{sentence1}\n\n{sentence2}\n\nDo the two statements above convey the same facts?\n\n{options}"),
        Template(
            "The sentences below share most of their words. Are they paraphrases of each other as well?\n\n1. {sentence1}\n2. {sentence2}\n\n{options}"
        ),
        Template("Text 1: {sentence1}\nText 2: {sentence2}\nSame meaning?\n{options}"),
        Template(
            "A swap of two words can be harmless, or it can turn upside down who did what, and where, and when. Read slowly and decide whether the rewording is faithful.\n\nOriginal: {sentence1}\nRewording: {sentence2}\n\n{options}"
        ),
        Template(
            "Somebody has edited an encyclopedia. Until yesterday it said:\n{sentence1}\n\nSince then it has said:\n{sentence2}\n\nDo readers still get the same information?\n\n{options}"
        ),
        Template("{sentence1}\n\nIs this just another way to put that?\n\n{sentence2}\n\n{options}"),
        Template("ITEM 12\n\nP: {sentence1}\nQ: {sentence2}\n\nAre P and Q equivalent?\n\n{options}"),
        Template(
            "Our software hunts for paraphrases and claims that it has caught one here:\n- {sentence1}\n- {sentence2}\n\nCould you check its catch for us? If the meaning differs in any point that matters, it is not a paraphrase.\n\n{options}"
        ),
        Template(
            "Move the words of this sentence around, or exchange a few, so that it {relation}.\n\n{sentence1}",
            "{sentence2}",
            INVERTED,
        ),
        Template(
            'Make up a sentence from very nearly the words of the one below. To the question whether the two agree in meaning, the reply has to be "{answer}".\n\n{sentence2}',
            "{sentence1}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------ STS-B

_STSB_LABELS = tuple((str(score), str(score)) for score in range(6))  # TFDS has a float; its rounded values, in order


def _stsb_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence1, sentence2, rating (like "3.8"), options ("0" to "5"), answer (the rating rounded).

    A rating halfway between two numbers goes to the even one, as in printf and in the paper.
    """
    rating = tf.strings.as_string(record["label"], precision=3)
    words = tuple(word for _, word in _STSB_LABELS)
    in_range = (record["label"] >= 0) & (record["label"] <= len(words) - 1)  # false for what is not a number, too
    return {
        "sentence1": one_line(record["sentence1"]),
        "sentence2": one_line(record["sentence2"]),
        "rating": tf.strings.regex_replace(rating, r"\.?0+$", ""),
        "options": tf.constant(words),
        "answer": tf.where(in_range, pick(words, tf.round(record["label"])), ""),
    }


STSB = Dataset(
    name="stsb",
    cluster="paraphrase",
    source="glue/stsb:2.0.0",
    # Cer et al. 2017 (STS-B), tables 1 and 2: MSRpar is the paraphrase corpus of glue_mrpc, images are Flickr30k captions.
    kin=(
        ("glue_mrpc", "STS-B has pairs of MRPC"),
        ("snli", "both have captions of Flickr30k"),
        ("multi30k", "both have captions of Flickr30k"),
    ),
    kind=CLASSIFICATION,
    metrics=("pearson_spearman", "rating_correlation"),
    splits=Splits(dev_size=100),
    labels=_STSB_LABELS,
    keep=has_label,
    fields=_stsb_fields,
    # The texts are captions, headlines and posts in forums.
    gpt3_prompt=Gpt3Prompt(
        "First sentence: {sentence1}\nSecond sentence: {sentence2}\nHow alike in meaning, from 0 (not at all) to 5 (the same):"
    ),
    templates=(
        Template(
            "On a scale from 0 (nothing in common) to 5 (the same meaning), how alike are these two in what they say?\n\n{sentence1}\n{sentence2}\n\n{options}"
        ),
        Template("A: {sentence1}\nB: {sentence2}\nSimilarity (0 = unrelated, 5 = equivalent)?\n{options}"),
        Template(
            "Compare the texts and grade how close they are, by this key.\n\n5: the same meaning\n4: the same, but for details of no importance\n3: much the same, though something important differs or is missing\n2: different, but with some details in common\n1: different, on the same topic\n0: different altogether\n\nText 1: {sentence1}\nText 2: {sentence2}\n\n{options}"
        ),
        Template(
            "{sentence1}\n{sentence2}\n\nSay how near the two lines above come to each other in meaning. The lowest mark, 0, is for lines that have nothing to do with each other, and the highest, 5, for lines that amount to the same.\n\n{options}"
        ),
        Template(
            "Five points if both say the same, none if they speak of entirely different things, and something in between for everything else: how many points does this pair get?\n\n- {sentence1}\n- {sentence2}\n\n{options}"
        ),
        Template(
            "We are looking for volunteers who judge pairs of short texts. What counts is the content and not the wording. Please enter one whole number, with 0 for no relation at all and 5 for full agreement in meaning.\n\nFirst text: {sentence1}\n\nSecond text: {sentence2}\n\n{options}"
        ),
        Template(
            "I started from this:\n{sentence1}\n\nAnd I ended up with this:\n{sentence2}\n\nHow much of the meaning has come through? Give me a 5 if it is all there and unchanged, a 0 if it is another subject, or else a figure in the middle.\n{options}"
        ),
        Template(
            "SEMANTIC SIMILARITY, from 0 (none) up to 5 (complete), rounded to a whole number\n(1) {sentence1}\n(2) {sentence2}\n{options}"
        ),
        Template(
            "Several people compared the text below with a second one and rated the similarity in meaning, where 0 stands for unrelated and 5 for equivalent. Their average was {rating}. Write a text that might have been the second.\n\n{sentence1}",
            "{sentence2}",
            INVERTED,
        ),
        Template(
            "{sentence2}\n\nAnother line is to be set beside this one. Asked how similar the two are in meaning, from 0 for not at all to 5 for completely, a judge should say {answer}. What could the other line be?",
            "{sentence1}",
            INVERTED,
        ),
    ),
)

DATASETS = (MRPC, QQP, PAWS_WIKI, STSB)
