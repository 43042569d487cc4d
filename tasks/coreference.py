"""Coreference: DPR, Winogrande and WSC273; and, beyond the paper, WSC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import YES_NO_SPELLINGS, at, capitalized, has_label, one_line, pick
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


_SMALL_WORDS = r"(?s)(?:The|An?|Some|Both|My|Your|His|Her|Its|Our|Their|Th[ei]se|Th(?:is|at|ose)) .*"


def _in_mid_sentence(names: Any) -> Any:
    """Names as they stand within a sentence: an article and the like in lower case. String tensor of any shape."""
    small = tf.strings.join(
        [
            tf.strings.lower(tf.strings.regex_replace(names, r"(?s)^(.?).*$", r"\1")),
            tf.strings.regex_replace(names, r"(?s)^.", ""),
        ]
    )
    return tf.where(tf.strings.regex_full_match(names, _SMALL_WORDS), small, names)


# ------------------------------------------------------------------------------------- Definite Pronoun Resolution


def _dpr_pronoun(record: Mapping[str, Any]) -> Any:
    """A pattern for the pronoun as a word of its own, so that "it" is not found in "with".

    What is no word, or too long for one, matches nothing, rather than be a pattern of its own.
    """
    pronoun = one_line(record["pronoun"])
    is_word = tf.strings.regex_full_match(pronoun, r"[\pL']+") & (tf.strings.length(pronoun) < 100)
    return tf.where(is_word, tf.strings.join([r"\b", pronoun, r"\b"]), r"[^\s\S]")


def _dpr_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence, marked (the pronoun in square brackets), pronoun, first, second, wrong (candidates), options, answer.

    Candidates are given as they stand in the sentence or with a capital letter; an article is always small here.
    """
    sentence = one_line(record["sentence"])
    pronoun = one_line(record["pronoun"])
    options = _in_mid_sentence(one_line(record["candidates"]))
    in_brackets = tf.strings.join(["[", pronoun, "]"])
    return {
        "sentence": sentence,
        "marked": tf.strings.regex_replace(sentence, _dpr_pronoun(record), in_brackets, replace_global=False),
        "pronoun": pronoun,
        "first": at(options, 0),
        "second": at(options, 1),
        "wrong": at(options, 1 - record["label"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


def _dpr_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has its pronoun in its sentence just once, and two candidates to choose from.

    Which one is meant is not said where it stands there twice.
    """
    pronoun = _dpr_pronoun(record)
    has_one = tf.strings.regex_full_match(record["sentence"], tf.strings.join(["(?s).*", pronoun, ".*"]))
    has_two = tf.strings.regex_full_match(record["sentence"], tf.strings.join(["(?s).*", pronoun, ".*", pronoun, ".*"]))
    options = _in_mid_sentence(one_line(record["candidates"]))
    return has_one & ~has_two & tf.not_equal(at(options, 0), at(options, 1))


DEFINITE_PRONOUN_RESOLUTION = Dataset(
    name="definite_pronoun_resolution",
    cluster="coreference",
    source="definite_pronoun_resolution:1.1.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    keep=_dpr_keep,
    fields=_dpr_fields,
    passage="options",  # sentences come in pairs about the same two
    bare="{sentence}\n{pronoun}",
    gpt3_prompt=Gpt3Prompt('{sentence}\nIn this sentence, "{pronoun}" refers to', mid_sentence=True),
    templates=(
        Template("{marked}\n\nWho or what does the word in brackets refer to?\n\n{options}"),
        Template("Sentence: {marked}\n[{pronoun}] refers to:\n{options}"),
        Template("Read the sentence and say what its bracketed pronoun stands for.\n\n{marked}\n\n{options}"),
        Template(
            "Try each candidate in place of the word in brackets.\n\n{marked}\n\nWhich one makes sense?\n{options}",
            open_input="Say who or what in this sentence the pronoun in brackets stands for.\n\n{marked}",
        ),
        Template("sorry, who or what is [{pronoun}] here?\n{marked}\n{options}"),
        Template("Name the antecedent of the pronoun in square brackets.\n\n{marked}\n\n{options}"),
        Template(
            '{marked}\n\nGrammar alone doesn\'t tell us what "{pronoun}" points to. Use common sense.\n\n{options}'
        ),
        Template("Resolve the pronoun: {marked}\n{options}"),
        Template(
            'Put these two into one sentence, and refer back with the pronoun "{pronoun}". Make clear that it doesn\'t stand for "{wrong}".\n\n- {first}\n- {second}',
            "{sentence}",
            INVERTED,
        ),
        Template(
            'Write a sentence in which "{pronoun}" could be taken to mean "{wrong}" at first, but really means "{answer}".',
            "{sentence}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------- Winogrande

_ONE_BLANK = r"(?s)^\s*([^_]*[^_\s])\s*_([^_]*)$"


def _winogrande_text(text: Any) -> Any:
    """Text on one line, without the spaces that some writers put before a full stop, a comma or "'s"."""
    text = tf.strings.regex_replace(one_line(text), r"([.,;]) ?\.( ?)(\pL|$)", r"\1 \3")
    return tf.strings.regex_replace(tf.strings.strip(text), r" ([.,;:!?]|['’]s\b)", r"\1")


def _winogrande_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context (what stands before the blank), first and second (the candidates), sentence, options, answer.

    An option is a candidate with the rest of the sentence after the blank, since that is what tells them apart.
    """
    sentence = _winogrande_text(record["sentence"])
    context = tf.strings.regex_replace(sentence, _ONE_BLANK, r"\1")
    rest = tf.strings.regex_replace(sentence, _ONE_BLANK, r"\2")
    candidates = tf.strings.strip(tf.stack([record["option1"], record["option2"]]))
    options = tf.strings.strip(tf.strings.join([candidates, rest]))
    return {
        "context": context,
        "first": candidates[0],
        "second": candidates[1],
        "sentence": tf.strings.join([context, at(options, record["label"])], separator=" "),
        "options": options,
        "answer": at(options, record["label"]),
    }


def _winogrande_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has a label (the test set has none) and one blank, with text before it."""
    return has_label(record) & tf.strings.regex_full_match(record["sentence"], _ONE_BLANK)


WINOGRANDE = Dataset(
    name="winogrande",
    cluster="coreference",
    source="winogrande:1.2.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(train="train_xl", dev="train_xl"),
    keep=_winogrande_keep,
    fields=_winogrande_fields,
    passage="context",  # as in WSC273
    gpt3_prompt=Gpt3Prompt("{context}"),
    templates=(
        Template("{context}\n\nContinue so that it makes sense.\n\n{options}"),
        Template("Which ending fits?\n{context}\n{options}", open_input="What ending fits?\n{context}"),
        Template(
            "The two endings are alike except for who or what they're about. Which agrees with the text?\n\n{context}\n\n{options}",
            open_input="Write an ending that agrees with the text. Mind who or what it is about.\n\n{context}",
        ),
        Template("Text: {context}\nGoes on with:\n{options}"),
        Template(
            "Mentioned: {first}; {second}\n\n{context}\n\nWho or what comes next? Give the rest of the sentence.\n\n{options}"
        ),
        Template(
            "The sentence breaks off.\n\n{context}\n\nAsk yourself who or what is meant, and give the rest.\n{options}",
            open_input="The sentence breaks off.\n\n{context}\n\nWrite how it goes on, so that it makes sense.",
        ),
        Template("i wrote this and lost the end:\n{context}\nhow did it go?\n{options}"),
        Template("{context} (continued overleaf)\n\nWhat will the next page say?\n\n{options}"),
        Template(
            "Use both in a sentence or two. What you say about one of them at the end should make no sense for the other.\n- {first}\n- {second}",
            "{sentence}",
            INVERTED,
        ),
        Template(
            "Write the beginning of a sentence or two that ends like this:\n\n{answer}",
            "{context}",
            INVERTED,
        ),
    ),
)

# ----------------------------------------------------------------------------------------------------------- WSC273

_POSSESSIVE = "(?i)my|your|his|her|its|our|their"


def _owners(candidates: Any, pronoun: Any) -> Any:
    """The candidates in the possessive: "Emma's", and where the pronoun is plural also "the boys'"."""
    plural = tf.strings.regex_full_match(pronoun, "(?i)our|their") & tf.strings.regex_full_match(candidates, ".*s")
    done = tf.strings.regex_full_match(candidates, ".*(?:'s|s')")
    return tf.strings.join([candidates, tf.where(done, "", tf.where(plural, "'", "'s"))])


def _wsc273_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context (what stands before the pronoun), gapped (the text with a gap instead), first, second (the candidates), options, answer.

    An option is a candidate with the rest of the text after the pronoun. It goes on from the context, so it has a
    capital letter after a full stop and otherwise a small article. The candidate is in the possessive where the
    pronoun is: "her" before a word, which nowhere in WSC273 is an object.
    """
    text, start, end = record["text"], record["pronoun_start"], record["pronoun_end"]
    context = one_line(tf.strings.substr(text, 0, start, unit="UTF8_CHAR"))
    rest = tf.strings.substr(text, end, tf.strings.length(text, unit="UTF8_CHAR"), unit="UTF8_CHAR")
    rest = tf.strings.regex_replace(rest, r"[\s\pZ]+", " ")
    rest = tf.strings.regex_replace(rest, "^ ([.,;:!?])", r"\1")  # TFDS puts a space before all but a lone one
    candidates = _in_mid_sentence(one_line(tf.stack([record["option1_normalized"], record["option2_normalized"]])))
    starts_sentence = tf.strings.regex_full_match(context, r"(?s)(?:.*[.!?][\"'”’]*)?")
    before_noun = tf.strings.regex_full_match(rest, r' "?[\pL\pN].*')
    possessive = tf.strings.regex_full_match(record["pronoun_text"], _POSSESSIVE) & before_noun
    starts = tf.where(possessive, _owners(candidates, record["pronoun_text"]), candidates)
    options = tf.strings.strip(tf.strings.join([starts, rest]))
    options = tf.where(starts_sentence, capitalized(options), options)
    return {
        "context": context,
        "gapped": one_line(tf.strings.join([context, " ____", rest])),
        "first": capitalized(candidates[0]),
        "second": candidates[1],
        "options": options,
        "answer": at(options, record["label"]),
    }


def _wsc273_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has its pronoun inside its text."""
    start, end = record["pronoun_start"], record["pronoun_end"]
    return (start >= 0) & (start < end) & (end <= tf.strings.length(record["text"], unit="UTF8_CHAR"))


WSC273 = Dataset(
    name="wsc273",
    cluster="coreference",
    source="wsc273:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(train=None, dev=None, test="test"),
    keep=_wsc273_keep,
    fields=_wsc273_fields,
    passage="context",  # of a schema, whose sentences differ in their last words
    # All are forward: the data set is for testing only, and what is turned around is never evaluated.
    gpt3_prompt=Gpt3Prompt("{context}"),
    templates=(
        Template("{context}\n\nAnd what comes next?\n\n{options}"),
        Template("First part: {context}\nSecond part:\n{options}"),
        Template("{gapped}\n\nWhat fills the gap? Write it with the rest of the sentence.\n\n{options}"),
        Template(
            "Which ending makes more sense?\n\n{context}\n\n{options}",
            open_input="Find a sensible ending.\n\n{context}",
        ),
        Template(
            "Grammar won't help here, but knowing how the world works will.\n\n{context}\n\nWhat's the second half?\n{options}"
        ),
        Template("{first} or {second}?\n\n{gapped}\n\nReply with everything from the gap on.\n\n{options}"),
        Template("Continue with the words that make the most sense.\n\n{context}\n\n{options}"),
        Template("this is all I could read:\n{context}\nwhat do you think it said after that?\n{options}"),
        Template("{context}\n\nThe writer avoided a pronoun here. Write on, naming the person or thing.\n\n{options}"),
        Template("{context}\n\nGo on:\n{options}"),
    ),
)

# -------------------------------------------------------------------------------------------------------------- WSC

_WSC_LABELS = (("False", "no"), ("True", "yes"))
_WSC_RELATIONS = ("does not stand for", "stands for")  # in label order, for the inverted template
_FIRST_LETTERS = r"(?s)^([^\pL]*)(\pL+)(.*)$"


def _wsc_is_pronoun(record: Mapping[str, Any], words: Any) -> Any:
    """Whether each word is the pronoun, punctuation and endings such as "'d" apart."""
    bare = tf.strings.regex_replace(words, _FIRST_LETTERS, r"\2")
    return tf.equal(tf.strings.lower(bare), tf.strings.lower(one_line(record["span2_text"])))


def _wsc_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields text (the pronoun between asterisks), pronoun, candidate, relation (a phrase by label), options, answer.

    The pronoun is found by its word index, since a text may have it several times; a few indices are off by a word, so
    the nearest one counts.
    """
    words = tf.strings.split(record["text"])
    numbers = tf.range(tf.size(words))
    distance = tf.abs(numbers - record["span2_index"])
    distance = tf.where(_wsc_is_pronoun(record, words), distance, tf.size(words) + distance)
    marked = tf.strings.regex_replace(words, _FIRST_LETTERS, r"\1*\2*\3")
    at_pronoun = tf.equal(numbers, tf.argmin(distance, output_type=tf.int32))
    text = tf.strings.reduce_join(tf.where(at_pronoun, marked, words), separator=" ")
    text = tf.strings.regex_replace(text, r" ([.,;:!?]|'s\b)", r"\1")
    options = tf.constant([word for _, word in _WSC_LABELS])
    return {
        "text": tf.strings.regex_replace(text, r'(^|[ (])" ([^"]*) "', r'\1"\2"'),
        "pronoun": one_line(record["span2_text"]),
        "candidate": tf.strings.regex_replace(one_line(record["span1_text"]), "^The ", "the "),
        "relation": pick(_WSC_RELATIONS, record["label"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


def _wsc_keep(record: Mapping[str, Any]) -> Any:
    """Keeps what has a label (the test set has none) and its pronoun in its text."""
    return has_label(record) & tf.reduce_any(_wsc_is_pronoun(record, tf.strings.split(record["text"])))


WSC = Dataset(
    name="wsc",
    cluster="coreference",
    source="super_glue/wsc:1.0.2",
    # Wang et al. 2019 (SuperGLUE), section 3.1: examples of the Winograd Schema Challenge (Levesque et al. 2012).
    kin=(("wsc273", "both are made of the Winograd schemas"),),
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(dev_size=50),
    labels=_WSC_LABELS,
    spellings=YES_NO_SPELLINGS,
    keep=_wsc_keep,
    fields=_wsc_fields,
    passage="text",  # which is asked about with several candidates
    in_flan=False,
    bare="{text}\n{pronoun}\n{candidate}",
    gpt3_prompt=Gpt3Prompt("{text}\nDoes *{pronoun}* refer to {candidate}?\nAnswer (yes or no):"),
    templates=(
        Template('{text}\n\nDoes the word between asterisks refer to "{candidate}"?\n\n{options}'),
        Template("Text: {text}\nPronoun: *{pronoun}*\nReferent: {candidate}\nCorrect?\n{options}"),
        Template("{text}\n\nSay yes if the marked pronoun means {candidate}, otherwise no.\n\n{options}"),
        Template(
            'Check this reading of the pronoun between asterisks.\n\n{text}\n\n*{pronoun}* is read as "{candidate}". Is that what the text says?\n\n{options}'
        ),
        Template('True here? *{pronoun}* means "{candidate}".\n\n{text}\n\n{options}'),
        Template("Picture who does what.\n\n{text}\n\nDoes *{pronoun}* mean {candidate} here?\n\n{options}"),
        Template('Read the pronoun between asterisks. Does it point to "{candidate}"?\n{text}\n{options}'),
        Template(
            "One of us thinks that *{pronoun}* stands for {candidate}, the other doesn't. Is the first one right?\n\n{text}\n\n{options}"
        ),
        Template("Put {candidate} in place of *{pronoun}*. Does the text keep its meaning?\n\n{text}\n\n{options}"),
        Template(
            "Write a sentence or two about {candidate} and someone or something else. Then use the pronoun *{pronoun}*, asterisks included, so that it {relation} {candidate}.",
            "{text}",
            INVERTED,
        ),
    ),
)

DATASETS = (DEFINITE_PRONOUN_RESOLUTION, WINOGRANDE, WSC273, WSC)
