"""Sentiment: IMDB, Sentiment140, SST-2 and Yelp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.lazy import lazy_imports
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, has_label, one_line, with_json_escapes, without_html_escapes
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

# ------------------------------------------------------------------------------------------------------------- IMDB

_IMDB_LABELS = (("neg", "negative"), ("pos", "positive"))


def _imdb_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields review, options, answer.

    Paragraphs end with HTML line breaks in the source, with plain ones here. What else there is of HTML goes.
    """
    text = without_html_escapes(record["text"])
    text = tf.strings.regex_replace(tf.strings.regex_replace(text, r"\s+", " "), r"</?(?:[biu]|em|strong)>", "")
    options = tf.constant([word for _, word in _IMDB_LABELS])
    return {
        "review": tf.strings.strip(tf.strings.regex_replace(text, r" ?(?:<(?:[bh]r ?/?|/?p)> ?)+", "\n")),
        "options": options,
        "answer": at(options, record["label"]),
    }


IMDB_REVIEWS = Dataset(
    name="imdb_reviews",
    cluster="sentiment",
    source="imdb_reviews/plain_text:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    labels=_IMDB_LABELS,
    fields=_imdb_fields,
    # Some of the reviews are about series and shows, and most are longer than a paragraph.
    gpt3_prompt=Gpt3Prompt("Review: {review}\nSentiment (negative or positive):"),
    templates=(
        Template("{review}\n\nOn the whole, is this review negative or positive?\n\n{options}"),
        Template("Movie comment:\n{review}\n\nNegative or positive?\n{options}"),
        Template("Say how the viewer felt about the film or show, positive or negative.\n\n{review}\n\n{options}"),
        Template(
            "Most reviews mention good and bad points alike. Weigh them up and give the overall sentiment.\n\nReview:\n{review}\n\nSentiment, negative or positive:\n{options}"
        ),
        Template("is this a positive or a negative review? just the one word please\n\n{review}\n\n{options}"),
        Template(
            "Classify this review.\n\n{review}\n\n{options}",
            open_input="Classify this review as negative or positive.\n\n{review}",
        ),
        Template("{review}\n\nPositive or negative?\n{options}"),
        Template("What's the overall sentiment, negative or positive?\n\n{review}\n\n{options}"),
        Template("Write a {answer} review of a film, as a viewer would post it online.", "{review}", INVERTED),
        Template("Post your thoughts on a movie in a paragraph or more. Sentiment: {answer}", "{review}", INVERTED),
    ),
)

# ----------------------------------------------------------------------------------------------------- Sentiment140

# The polarity is an integer in TFDS, not a ClassLabel. The test set also has 2, for neutral.
_SENTIMENT140_LABELS = (("0", "negative"), ("4", "positive"))
_ENTITIES = (("&quot;", '"'), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def _sentiment140_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields tweet, options, answer. Tweets are as posted, with HTML's entities resolved."""
    tweet = one_line(record["text"])
    for entity, character in _ENTITIES:  # "&amp;" comes last, so that "&amp;lt;" becomes "&lt;"
        tweet = tf.strings.regex_replace(tweet, entity, character)
    options = tf.constant([word for _, word in _SENTIMENT140_LABELS])
    return {
        "tweet": tweet,
        "options": options,
        "answer": at(options, tf.where(record["polarity"] % 4 == 0, record["polarity"] // 4, -1)),
    }


def _is_not_neutral(record: Mapping[str, Any]) -> Any:
    """Drops the neutral tweets, which are neither of the two options."""
    return record["polarity"] != 2


SENTIMENT140 = Dataset(
    name="sentiment140",
    cluster="sentiment",
    source="sentiment140:1.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    labels=_SENTIMENT140_LABELS,
    keep=_is_not_neutral,
    fields=_sentiment140_fields,
    gpt3_prompt=Gpt3Prompt("Tweet: {tweet}\nSentiment (negative or positive):"),
    templates=(
        Template("{tweet}\n\nIs the mood of this tweet negative or positive?\n\n{options}"),
        Template("Tweet: {tweet}\nPolarity:\n{options}", open_input="Tweet: {tweet}\nPolarity (negative or positive):"),
        Template("Does this person sound negative or positive?\n\n{tweet}\n\n{options}"),
        Template(
            "Tweets are full of slang and typos, but the feeling is usually clear. Is it negative or positive here?\n\n{tweet}\n\n{options}"
        ),
        Template("Negative or positive?\n{tweet}\n{options}"),
        Template("my cousin tweeted this:\n{tweet}\n\nwould you call that negative or positive?\n{options}"),
        Template(
            "Label the author's attitude as negative or positive, whether or not you agree with it.\n\nPost: {tweet}\n\n{options}"
        ),
        Template("Rate the feeling behind the post.\n\n{tweet}\n\nFeeling, positive or negative:\n{options}"),
        Template("Compose a tweet. Tone: {answer}", "{tweet}", INVERTED),
        Template(
            "Post a line or two about your day, your plans or anything on your mind. The feeling is {answer}.",
            "{tweet}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------ SST-2

_SST2_LABELS = (("negative", "negative"), ("positive", "positive"))


# Tokens of the source (`it 's a ` difficult ' film , is n't it ?`) as they are usually written. Applied in order.
_SST2_TOKENIZATION = (
    (r"`` ?", '"'),
    (r" ?''", '"'),
    (r"(^|[ (])` ", r"\1'"),
    (r" (n't|'(?:s|re|ve|ll|d|m))\b", r"\1"),
    (r" '([ .,;:?!)]|$)", r"'\1"),  # the end of a quotation, or "the actors ' faces"
    (r" ([,;:?!%)\]])", r"\1"),
    (r" (\.+)([ \"')]|$)", r"\1\2"),
    (r"([(\[$]) ", r"\1"),
)


def _sst2_text(text: Any) -> Any:
    text = one_line(text)
    for pattern, instead in _SST2_TOKENIZATION:
        text = tf.strings.regex_replace(text, pattern, instead)
    return text


def _sst2_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence, options, answer. Sentences are cut from reviews and in lower case, as in the source."""
    options = tf.constant([word for _, word in _SST2_LABELS])
    return {
        "sentence": _sst2_text(record["sentence"]),
        "options": options,
        "answer": at(options, record["label"]),
    }


SST2 = Dataset(
    name="sst2",
    cluster="sentiment",
    source="glue/sst2:2.0.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    labels=_SST2_LABELS,
    keep=has_label,
    fields=_sst2_fields,
    gpt3_prompt=Gpt3Prompt("Review: {sentence}\nSentiment (negative or positive):"),
    templates=(
        Template("{sentence}\n\nIs this line from a film review negative or positive?\n\n{options}"),
        Template(
            "Review: {sentence}\nSentiment?\n{options}",
            open_input="Review: {sentence}\nSentiment, negative or positive?",
        ),
        Template("Is the critic's view of the film negative or positive?\n\n{sentence}\n\n{options}"),
        Template(
            "Praise counts as positive, a complaint as negative. Label this snippet about a film.\n\n{sentence}\n\n{options}"
        ),
        Template("Extract: {sentence}\nTone (negative or positive):\n{options}"),
        Template("{sentence}\n\nFeedback:\n{options}", open_input="{sentence}\n\nPositive feedback, or negative?"),
        Template("Please label the tone of this snippet.\n- {sentence}\n\nTone, positive or negative:\n{options}"),
        Template("Write a few words, a clause or a sentence from a {answer} film review.", "{sentence}", INVERTED),
        Template("How was the movie? Put a {answer} opinion into a phrase or a sentence.", "{sentence}", INVERTED),
        Template("Sentiment: {answer}\nExtract from a movie review:", "{sentence}", INVERTED),
    ),
)

# ------------------------------------------------------------------------------------------------------------- Yelp

_YELP_LABELS = (("1", "negative"), ("2", "positive"))


def _yelp_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    r"""Fields review, options, answer.

    TFDS leaves the source's escapes in: \n for line breaks, \"" or \" for quotes, \u00e9 for letters, \\ for a backslash.
    """
    text = tf.strings.regex_replace(with_json_escapes(record["text"]), r'\\?""|\\"', '"')
    text = tf.strings.regex_replace(text, r"[\s\pZ]+", " ")
    text = tf.strings.regex_replace(text, r" ?(?:\\[nr] ?)+", "\n")
    options = tf.constant([word for _, word in _YELP_LABELS])
    return {
        "review": tf.strings.strip(tf.strings.regex_replace(text, r"\\\\", r"\\")),
        "options": options,
        "answer": at(options, record["label"]),
    }


YELP_POLARITY_REVIEWS = Dataset(
    name="yelp_polarity_reviews",
    cluster="sentiment",
    source="yelp_polarity_reviews:0.2.0",
    kind=CLASSIFICATION,
    metrics=("accuracy",),
    splits=Splits(test="test"),
    labels=_YELP_LABELS,
    fields=_yelp_fields,
    # Restaurants are the most frequent, but doctors, garages, hotels and parks are reviewed as well.
    gpt3_prompt=Gpt3Prompt("Review: {review}\nSentiment (negative or positive):"),
    templates=(
        Template("{review}\n\nIs that negative or positive feedback from a customer?\n\n{options}"),
        Template(
            "Customer review:\n{review}\n\nOverall impression:\n{options}",
            open_input="Customer review:\n{review}\n\nOverall impression (negative or positive):",
        ),
        Template(
            "Was the customer happy with the business? Say positive if so and negative if not.\n\n{review}\n\n{options}"
        ),
        Template("Sort this review: negative or positive?\n\n{review}\n\n{options}"),
        Template(
            "The stars of this review got lost. Few meant negative, many meant positive. Was it negative or positive?\n\n{review}\n\n{options}"
        ),
        Template("{review}\n\nVerdict:\n{options}", open_input="{review}\n\nVerdict (negative or positive):"),
        Template("How does this customer feel about the business?\n\n{review}\n\nPositive or negative?\n{options}"),
        Template(
            "thinking of going here. can you sum up the review in one word, negative or positive?\n\n{review}\n\n{options}"
        ),
        Template("Write a {answer} review of a restaurant, a shop or another local business.", "{review}", INVERTED),
        Template(
            "Tell other customers about a place you've been to. Your opinion of it is {answer}.", "{review}", INVERTED
        ),
    ),
)

DATASETS = (IMDB_REVIEWS, SENTIMENT140, SST2, YELP_POLARITY_REVIEWS)
