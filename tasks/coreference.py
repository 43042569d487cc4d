"""Coreference: DPR, Winogrande and WSC273; and, beyond the paper, WSC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import YES_NO_SPELLINGS, at, has_label, one_line, pick
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf


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

    Where the pronoun stands in a sentence twice, the first one is meant.
    """
    sentence = one_line(record["sentence"])
    pronoun = one_line(record["pronoun"])
    options = one_line(record["candidates"])
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
    """Keeps what has its pronoun in its sentence, and two candidates to choose from."""
    somewhere = tf.strings.join(["(?s).*", _dpr_pronoun(record), ".*"])
    options = one_line(record["candidates"])
    return tf.strings.regex_full_match(record["sentence"], somewhere) & tf.not_equal(at(options, 0), at(options, 1))


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
        Template("{marked}\n\nWho or what is meant by the word in brackets?\n\n{options}"),
        Template("Sentence: {marked}\nWhat [{pronoun}] refers to:\n{options}"),
        Template(
            "To follow this sentence, one has to know what its bracketed pronoun stands for.\n\n{marked}\n\nWhich of the two is it?\n\n{options}",
            open_input="To follow this sentence, one has to know what its bracketed pronoun stands for.\n\n{marked}\n\nWhat is it?",
        ),
        Template(
            "Try each of the candidates in place of the brackets.\n\n{marked}\n\nWhich one makes sense there?\n\n{options}",
            open_input="Try each of the people and things in the sentence in place of the brackets.\n\n{marked}\n\nWhich one makes sense there?",
        ),
        Template(
            "I was reading aloud to my little sister, and at the brackets she interrupted me to ask who or what that was:\n{marked}\nWhat should I have told her?\n{options}"
        ),
        Template(
            "GRAMMAR: PRONOUNS AND ANTECEDENTS\n\nName the antecedent of the pronoun in square brackets.\n\n{marked}\n\n{options}"
        ),
        Template(
            '{marked}\n\nGrammar alone would let "{pronoun}" point to either of the following. Use your common sense to decide between them.\n\n{options}',
            open_input='{marked}\n\nGrammar alone would let "{pronoun}" point to more than one person or thing. Use your common sense to decide between them.',
        ),
        Template("Resolve the pronoun: {marked}\n{options}"),
        Template(
            'Put the two phrases below into one sentence, and after them the pronoun "{pronoun}". From what happens in the sentence, it must be clear that the pronoun does not mean "{wrong}".\n\n- {first}\n- {second}',
            "{sentence}",
            INVERTED,
        ),
        Template(
            'Write a sentence in which a hasty reader may take "{pronoun}" to be "{wrong}", while a careful one sees that it is "{answer}".',
            "{sentence}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------- Winogrande

_ONE_BLANK = r"(?s)^\s*([^_]*[^_\s])\s*_([^_]*)$"


def _winogrande_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields context (what stands before the blank), first and second (the candidates), sentence, options, answer.

    An option is a candidate with the rest of the sentence after the blank, since that is what tells them apart.
    """
    sentence = one_line(record["sentence"])
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
        Template("{context}\n\nContinue the text so that it makes sense.\n\n{options}"),
        Template("Which ending fits?\n{context} ...\n{options}", open_input="What ending fits?\n{context} ..."),
        Template(
            "Here is a text without its end:\n\n{context}\n\nThe two possible ends are alike except for who or what they speak of. Only one agrees with what has been said before. Which?\n\n{options}",
            open_input="Here is a text without its end:\n\n{context}\n\nWhat comes next depends on who or what it speaks of. Write an end that agrees with what has been said before.",
        ),
        Template("Text: {context}\nThe text goes on with:\n{options}"),
        Template(
            "Candidates: {first}; {second}\n\n{context}\n\nWhich of the candidates has to come next, and with it the rest of the sentence?\n\n{options}"
        ),
        Template(
            "READING CLOSELY\n\nEach item breaks off in the middle. Read what there is, ask yourself who or what is meant, and choose the rest.\n\n1. {context}\n\n{options}",
            open_input="READING CLOSELY\n\nEach item breaks off in the middle. Read what there is, ask yourself who or what is meant, and write the rest.\n\n1. {context}",
        ),
        Template(
            'My pen ran dry after I had written "{context}" and now I have to decide between these. One of them would be nonsense; help me find the other.\n{options}',
            open_input='My pen ran dry after I had written "{context}" and now I have forgotten how it went on. Help me find a way that is not nonsense.',
        ),
        Template("{context} (continued on the next page)\n\nWhat will the next page say?\n\n{options}"),
        Template(
            "Use both of the following in a sentence or two, so that what is said about one of them at the end would make no sense for the other.\n- {first}\n- {second}",
            "{sentence}",
            INVERTED,
        ),
        Template(
            "The end of a text is given. Supply the beginning, and make it clear from the circumstances why the end is about what it is about.\n\nEnd: {answer}",
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

    An option is a candidate with the rest of the text after the pronoun. The candidate is in the possessive where the
    pronoun is: "her" before a word, which nowhere in WSC273 is an object.
    """
    text, start, end = record["text"], record["pronoun_start"], record["pronoun_end"]
    context = one_line(tf.strings.substr(text, 0, start, unit="UTF8_CHAR"))
    rest = tf.strings.substr(text, end, tf.strings.length(text, unit="UTF8_CHAR"), unit="UTF8_CHAR")
    rest = tf.strings.regex_replace(rest, r"[\s\pZ]+", " ")
    rest = tf.strings.regex_replace(rest, "^ ([.,;:!?])", r"\1")  # TFDS puts a space before all but a lone one
    candidates = one_line(tf.stack([record["option1_normalized"], record["option2_normalized"]]))
    before_noun = tf.strings.regex_full_match(rest, r' "?[\pL\pN].*')
    possessive = tf.strings.regex_full_match(record["pronoun_text"], _POSSESSIVE) & before_noun
    starts = tf.where(possessive, _owners(candidates, record["pronoun_text"]), candidates)
    options = tf.strings.strip(tf.strings.join([starts, rest]))
    return {
        "context": context,
        "gapped": one_line(tf.strings.join([context, " ____", rest])),
        "first": candidates[0],
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
        Template("{context}\n\nHow does this end?\n\n{options}"),
        Template("First part: {context}\nSecond part:\n{options}"),
        Template(
            "{gapped}\n\nPut into the gap what belongs there, and repeat the words that come after it.\n\n{options}"
        ),
        Template(
            "Two endings are on offer for these words. Only one of them is sensible.\n\n{context} ...\n\n{options}",
            open_input="Find an ending for these words. It has to be a sensible one.\n\n{context} ...",
        ),
        Template(
            "Grammar will not help you with this puzzle, but knowing how the world works will. The text was broken off in the middle, and its second half is one of two.\n\n{context}\n\nWhich?\n\n{options}",
            open_input="Grammar will not help you with this puzzle, but knowing how the world works will. The text was broken off in the middle, and its second half is lost.\n\n{context}\n\nWhat was it?",
        ),
        Template(
            "Who or what is missing here, this ({first}) or that ({second})?\n\n{gapped}\n\nReply with everything from the gap on.\n\n{options}"
        ),
        Template(
            "COMMON SENSE AND LANGUAGE\n\nContinue each text with the words that its author must have had in mind.\n\n5. {context}\n\n{options}"
        ),
        Template(
            "Coffee was spilt on my notes, and I can make out no more than this:\n{context}\nI know that what followed was one of the two lines below. Can you tell from the meaning which one it was?\n{options}",
            open_input="Coffee was spilt on my notes, and I can make out no more than this:\n{context}\nCan you tell from the meaning what followed?",
        ),
        Template(
            "{context}\n\nAt this point the writer was about to use a pronoun, and then named the person or thing after all. Choose what the writer put.\n\n{options}",
            open_input="{context}\n\nAt this point the writer was about to use a pronoun, and then named the person or thing after all. Write what the writer put.",
        ),
        Template(
            "A friend says to you: {context} ...\nThen the line goes dead, though you can guess the rest. What is it?\n{options}"
        ),
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
    options = tf.constant([word for _, word in _WSC_LABELS])
    return {
        "text": tf.strings.regex_replace(text, r" ([.,;:!?]|'s\b)", r"\1"),
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
        Template("Text: {text}\nPronoun: *{pronoun}*\nSuggested referent: {candidate}\nCorrect?\n{options}"),
        Template(
            "One pronoun stands between asterisks in what follows. I take it to mean this: {candidate}\n\n{text}\n\nAm I right?\n\n{options}"
        ),
        Template(
            'A translator has to know whom or what every pronoun is about. For the marked one here, she is thinking of "{candidate}".\n\n{text}\n\nIs that what the text says?\n\n{options}'
        ),
        Template(
            'REFERENCE\n\nItem: *{pronoun}* = "{candidate}"\nContext: {text}\n\nDo the two sides of the equation agree?\n\n{options}'
        ),
        Template(
            "Before you decide, picture to yourself who does what.\n\n{text}\n\nDoes *{pronoun}* mean {candidate} here?\n\n{options}"
        ),
        Template("{candidate}: is this who or what the pronoun in asterisks points to?\n{text}\n{options}"),
        Template(
            "Tina and Tom cannot agree on *{pronoun}* in the next lines. She thinks that it stands for {candidate}, and he thinks that it stands for somebody or something else. Is she the one who is right?\n\n{text}\n\n{options}"
        ),
        Template(
            'Suppose "{candidate}" were put where *{pronoun}* stands. Grammar apart, would the text still tell us what it tells us as it is?\n\n{text}\n\n{options}'
        ),
        Template(
            'In a sentence or two, speak of "{candidate}" and of somebody or something else that the same pronoun could be used for. Then use the pronoun, between asterisks: it is *{pronoun}*, and it {relation} "{candidate}".',
            "{text}",
            INVERTED,
        ),
    ),
)

DATASETS = (DEFINITE_PRONOUN_RESOLUTION, WINOGRANDE, WSC273, WSC)
