"""Paraphrase: MRPC, QQP, PAWS-Wiki and STS-B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import has_label, one_line, pick
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


# MRPC and PAWS come tokenized (`He said , `` I don 't know . ''`), each in its own dialect. Applied in order.
_TOKENIZATION = (
    (r" ?& ?apos ?; ?s\b", "'s"),
    (r"& ?apos ?;", "'"),
    (r"& ?(?:nbsp|nspb) ?;", " "),
    (r"& ?amp ?;", "&"),
    (r"' '", ' " '),  # a quotation mark whose halves came apart
    (r"\s+", " "),
    (r"``\s?", '"'),
    (r"\s?''", '"'),
    (r'(^|[ (])" ([^"]*) "', r'\1"\2"'),  # straight quotation marks stand apart on both sides
    (r'(^|[ (])"([^ "][^"]*) "', r'\1"\2"'),  # and the closing one of a pair
    (r'^" ([^"]*)$', r'"\1'),  # a quotation that the next sentence of the source would close
    (r'^([^"]*(?::|\b(?:said|says|added|declared|wrote),)) ?" ', r'\1 "'),  # opened here and closed later
    (r'^([^"]*[,.?!]) "( |$)', r'\1"\2'),  # and one that an earlier sentence opened
    # Opened by a closing mark and closed by an opening one (`the '' Bob `` show`).
    *((r'^([^"]*(?:"[^"]*"[^"]*)*\w)" ([^"]+?) "([\w(])', r'\1 "\2" \3'),) * 3,
    *((r'^([^"]*(?:"[^"]*"[^"]*)*\w)" ([^"]+?) "', r'\1 "\2"'),) * 3,
    (r" ' s\b", "'s"),
    (r"(^|[ (])' ([^']*) '( ?[,.;:?!)]|$)", r"\1'\2'\3"),
    (r"s '([ ,.]|$)", r"s'\1"),  # "workers ' union"; a quotation may end so, too
    (r"([,.?!]) '( [a-z]|$)", r"\1'\2"),
    (r"(^|[ (])' ([^']*) '", r"\1'\2'"),
    (r"(^|[ (])' (\S)", r"\1'\2"),
    (r" (n't|['’](?:s|re|ve|ll|d|m|t))\b", r"\1"),
    (r" n 't\b", "n't"),
    (r" ([,;:?!%)\]])", r"\1"),
    (r""" \.([ "',)]|$)""", r".\1"),
    (r"\bO '(\w)", r"O'\1"),
    (r"\b([DL]) '(\p{Lu})", r"\1'\2"),
    (r"(\d): (\d)", r"\1:\2"),  # "2:30 p.m."
    (r"([(\[$£]) ", r"\1"),
)


def untokenized(text: Any) -> Any:
    """Tokenized text as it is usually written, on one line; string tensor of any shape."""
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
        "sentence1": untokenized(record["sentence1"]),
        "sentence2": untokenized(record["sentence2"]),
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
        Template("Sentence 1: {sentence1}\nSentence 2: {sentence2}\nDo they mean the same thing?\n{options}"),
        Template("{sentence1}\n\n{sentence2}\n\nIs one a restatement of the other?\n\n{options}"),
        Template(
            "Small details aside, do both reports say the same thing?\n\n- {sentence1}\n- {sentence2}\n\n{options}"
        ),
        Template("A: {sentence1}\nB: {sentence2}\nParaphrase?\n{options}"),
        Template(
            "We've already run this line:\n{sentence1}\n\nWould this one just repeat it?\n{sentence2}\n\n{options}"
        ),
        Template("Original: {sentence1}\nReworded: {sentence2}\n\nWould you accept that as a paraphrase?\n{options}"),
        Template("(a) {sentence1}\n(b) {sentence2}\n\nRoughly the same meaning?\n{options}"),
        Template(
            "could I swap line 1 for line 2 and still get the message across?\n1. {sentence1}\n2. {sentence2}\n\n{options}"
        ),
        Template(
            "{sentence1}\n\nReusing many of these words, write a sentence that {relation} the one above.",
            "{sentence2}",
            INVERTED,
        ),
        Template(
            'Write a news sentence to go with this one. "Are the two paraphrases?" should get the answer "{answer}".\n\n{sentence2}',
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
        Template("Q1: {question1}\nQ2: {question2}\n\nAre these asking the same thing?\n\n{options}"),
        Template("{question1}\n{question2}\nDuplicates?\n{options}"),
        Template("Should a Q&A site merge these questions?\n\n- {question1}\n- {question2}\n\n{options}"),
        Template(
            "Someone already asked this:\n{question1}\n\nI was going to ask:\n{question2}\n\nWill their answers do for me too?\n{options}"
        ),
        Template(
            "Think of a perfect answer to the first question. Would it be just as good for the second?\n\nFirst: {question1}\nSecond: {question2}\n\n{options}"
        ),
        Template(
            "Forum report: the new question repeats the old one.\n\nOld: {question1}\nNew: {question2}\n\nIs the report right?\n{options}"
        ),
        Template("Input 1: {question1}\nInput 2: {question2}\nSame intent?\n{options}"),
        Template("Compare what they want to know.\n\nAnn: {question1}\nBen: {question2}\n\nThe same thing?\n{options}"),
        Template(
            "{question1}\n\nStay close to this subject and ask a question that {relation} the one above.",
            "{question2}",
            INVERTED,
        ),
        Template(
            "Forum question: {question2}\nIs the other question a duplicate? {answer}\nThe other question:",
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
        "sentence1": untokenized(record["sentence1"]),
        "sentence2": untokenized(record["sentence2"]),
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
        Template("{sentence1}\n\n{sentence2}\n\nDo both statements give the same facts?\n\n{options}"),
        Template("Nearly the same words. The same meaning, too?\n\n- {sentence1}\n- {sentence2}\n\n{options}"),
        Template("Text 1: {sentence1}\nText 2: {sentence2}\nSame meaning?\n{options}"),
        Template(
            "Read slowly, since swapping two words can change who did what, where or when. Is the rewording faithful?\n\nOriginal: {sentence1}\nRewording: {sentence2}\n\n{options}"
        ),
        Template(
            "An encyclopedia article was edited.\n\nBefore: {sentence1}\nAfter: {sentence2}\n\nDoes it still say the same thing?\n{options}"
        ),
        Template("{sentence1}\n\nIs the next sentence just another way to say that?\n\n{sentence2}\n\n{options}"),
        Template("P: {sentence1}\nQ: {sentence2}\nEquivalent?\n{options}"),
        Template(
            "Our software calls these two paraphrases, is it right? if any fact differs, it isn't\n- {sentence1}\n- {sentence2}\n\n{options}"
        ),
        Template(
            "Move the words of this sentence around or swap a few, so that it {relation}.\n\n{sentence1}",
            "{sentence2}",
            INVERTED,
        ),
        Template(
            'Use almost the same words in a sentence of your own. "Does it mean the same?" should get the answer "{answer}".\n\n{sentence2}',
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
            "From 0 (nothing in common) to 5 (same meaning), how similar are these?\n\n{sentence1}\n{sentence2}\n\n{options}"
        ),
        Template("A: {sentence1}\nB: {sentence2}\nSimilarity (0 = unrelated, 5 = equivalent)?\n{options}"),
        Template(
            "Grade how close the texts are.\n5: same meaning\n4: same, apart from minor details\n3: roughly the same, but something important differs\n2: different, with some details in common\n1: different, on the same topic\n0: unrelated\n\nText 1: {sentence1}\nText 2: {sentence2}\n\n{options}"
        ),
        Template(
            "{sentence1}\n{sentence2}\n\nHow much of their meaning do they share, from 0 (none) to 5 (all)?\n\n{options}"
        ),
        Template("0 = unrelated, 5 = same:\n- {sentence1}\n- {sentence2}\n{options}"),
        Template(
            "Ignore the wording and compare the content.\n\nFirst: {sentence1}\nSecond: {sentence2}\n\nEnter 0 for no relation, 5 for the same meaning or a number between them.\n{options}"
        ),
        Template(
            "I turned this:\n{sentence1}\n\ninto this:\n{sentence2}\n\nHow much of the meaning is left, from 0 (none) to 5 (all)?\n{options}"
        ),
        Template("{sentence1}\n{sentence2}\n\nAlike in meaning, from 0 (no) to 5 (yes)?\n{options}"),
        Template(
            "Write a text whose similarity in meaning to this one would be rated {rating}, on a scale from 0 (unrelated) to 5 (equivalent).\n\n{sentence1}",
            "{sentence2}",
            INVERTED,
        ),
        Template(
            "{sentence2}\n\nGive me another line. Its similarity to this one should be {answer}, where 0 is nothing in common and 5 is the same meaning.",
            "{sentence1}",
            INVERTED,
        ),
    ),
)

DATASETS = (MRPC, QQP, PAWS_WIKI, STSB)
