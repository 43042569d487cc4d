"""Sentiment: IMDB, Sentiment140, SST-2 and Yelp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epy

from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.splits import Splits
from flan_jax.tasks.fields import at, has_label, one_line
from flan_jax.templates import INVERTED, Gpt3Prompt, Template

with epy.lazy_imports():  # the catalog is read by processes that need no TensorFlow
    import tensorflow as tf

# ------------------------------------------------------------------------------------------------------------- IMDB

_IMDB_LABELS = (("neg", "negative"), ("pos", "positive"))


def _imdb_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields review, options, answer. Paragraphs end with HTML line breaks in the source, with plain ones here."""
    text = tf.strings.regex_replace(record["text"], r"\s+", " ")
    options = tf.constant([word for _, word in _IMDB_LABELS])
    return {
        "review": tf.strings.strip(tf.strings.regex_replace(text, r" ?(?:<br ?/?> ?)+", "\n")),
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
        Template("Viewer's review: {review}\nVerdict:\n{options}"),
        Template(
            "Somebody left the comment below on a website about films. Once you have read it all, what would you say is their opinion?\n\n{review}\n\n{options}"
        ),
        Template(
            "You look after the reviews in a film database and tag each with the opinion that prevails in it. Most people mention good and bad points alike, so weigh them up.\n\nReview:\n{review}\n\nTag:\n{options}"
        ),
        Template("Praise or a warning? Tell me what kind of review I have in front of me.\n\n{review}\n\n{options}"),
        Template(
            "MEDIA STUDIES, QUESTION 3\n\nWhich attitude to the work under discussion does the viewer express?\n\n{review}\n\n{options}"
        ),
        Template(
            "A friend of yours has just watched something and sends you these thoughts on it:\n\n{review}\n\nHow would you describe your friend's reaction?\n{options}"
        ),
        Template("Classify the sentiment.\n\n{review}\n\n{options}"),
        Template(
            "Write a {answer} review of a film, the way a member of the audience would for a website.",
            "{review}",
            INVERTED,
        ),
        Template(
            "Last night you watched a movie, and now you feel like telling the internet about it. Your judgement is {answer}. Give your reasons in a paragraph or more.",
            "{review}",
            INVERTED,
        ),
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
        Template("{tweet}\n\nWhat mood does this tweet convey?\n\n{options}"),
        Template("Tweet: {tweet}\nPolarity:\n{options}"),
        Template("How does the person who posted the following seem to feel about things?\n\n{tweet}\n\n{options}"),
        Template(
            "The language of tweets is full of slang, abbreviations and typing errors, but the feeling behind a tweet tends to be plain. Which feeling is it in this case?\n\n{tweet}\n\n{options}"
        ),
        Template("Negative or positive?\n{tweet}\n{options}"),
        Template("hey, quick question. my cousin just tweeted this:\n\n{tweet}\n\nhow would you take that?\n{options}"),
        Template(
            "INSTRUCTIONS FOR ANNOTATORS\n\nYou are shown one post from a social network. Label the attitude of its author, whether or not you share it.\n\nPost: {tweet}\n\n{options}"
        ),
        Template(
            "Researchers who wanted to know if people were in good or bad spirits sorted what they wrote on Twitter. Into which group does this go?\n\n{tweet}\n\n{options}"
        ),
        Template("Compose a tweet whose tone is {answer}.", "{tweet}", INVERTED),
        Template(
            "Someone picks up their phone to post a line or two on their day, their plans, a product or whatever else is on their mind. Their feelings about it are {answer}. What do they write?",
            "{tweet}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------ SST-2

_SST2_LABELS = (("negative", "negative"), ("positive", "positive"))


def _sst2_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields sentence, length (its number of words), options, answer. Sentences are as in the source: lower case, cut from reviews."""
    sentence = one_line(record["sentence"])
    # The source is tokenized: "it 's" and "does n't" count as one word each, punctuation as none.
    bare = tf.strings.regex_replace(sentence, r"\s(?:'(?:s|re|ve|ll|d|m)|n't)\b|[^\w\s]+", "")
    options = tf.constant([word for _, word in _SST2_LABELS])
    return {
        "sentence": sentence,
        "length": tf.strings.as_string(tf.size(tf.strings.split(bare))),
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
        Template(
            "These words come from a film review.\n\n{sentence}\n\nIs the sentiment behind them negative or positive?\n\n{options}"
        ),
        Template("Review: {sentence}\nSentiment?\n{options}"),
        Template("What does the critic think of the film, to judge by this extract?\n\n{sentence}\n\n{options}"),
        Template(
            'I am sorting cuttings from movie reviews into two piles, praise on the positive pile and complaints on the negative one. The one in my hand says:\n"{sentence}"\nWhich pile should it go on?\n{options}'
        ),
        Template(
            "TASK: Name the attitude expressed in the passage, which was taken from a review of a motion picture.\n\nPASSAGE: {sentence}\n\n{options}"
        ),
        Template(
            "{sentence}\n\nSuppose the producers read this about their new movie. What kind of feedback are they getting?\n\n{options}"
        ),
        Template("Would you please label the tone of the following snippet about a film?\n- {sentence}\n\n{options}"),
        Template(
            "Write down a few words, a clause or a sentence that could stand in a {answer} film review. Number of words: {length}.",
            "{sentence}",
            INVERTED,
        ),
        Template(
            "You have just come out of the cinema, and your opinion of the movie is {answer}. Put it into words.",
            "{sentence}",
            INVERTED,
        ),
        Template(
            "Complete this record from a collection of extracts from movie reviews.\nSentiment: {answer}\nWords: {length}\nExtract:",
            "{sentence}",
            INVERTED,
        ),
    ),
)

# ------------------------------------------------------------------------------------------------------------- Yelp

_YELP_LABELS = (("1", "negative"), ("2", "positive"))


def _yelp_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    r"""Fields review, options, answer. TFDS leaves the source's CSV escapes in: \n for line breaks, \"" for quotes."""
    text = tf.strings.regex_replace(record["text"], r'\\?""', '"')
    text = tf.strings.regex_replace(text, r"\s+", " ")
    options = tf.constant([word for _, word in _YELP_LABELS])
    return {
        "review": tf.strings.strip(tf.strings.regex_replace(text, r" ?(?:\\n ?)+", "\n")),
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
        Template("Customer review:\n{review}\n\nOverall impression:\n{options}"),
        Template(
            "Find out whether the author of this text was content with a local business, and label the text accordingly.\n\n{review}\n\n{options}"
        ),
        Template(
            "The owner of a business has no time to read every review on the internet and would like them sorted into two folders. Where do you put this one?\n\n{review}\n\n{options}"
        ),
        Template(
            "On some sites people rate restaurants, shops and services of all kinds: they award one to five stars and add a few words. The stars of the review below have been removed. With few of them it would count as negative, with many as positive. Which is it?\n\n{review}\n\n{options}"
        ),
        Template("What was this person's experience like?\n\n{review}\n\n{options}"),
        Template(
            "CUSTOMER SERVICE TRAINING, UNIT 1\n\nRead what a client has written, and identify the client's view of the business.\n\n{review}\n\n{options}"
        ),
        Template(
            "Before I try a new place I look at what others say. Could you sum this up for me in one word?\n\n{review}\n\n{options}"
        ),
        Template("Write a {answer} review of a restaurant, a shop or any other business.", "{review}", INVERTED),
        Template(
            "Pick a place in town where one eats, buys something, gets something done or spends the night. You have been there and came away with a {answer} opinion of it. Let other customers know.",
            "{review}",
            INVERTED,
        ),
    ),
)

DATASETS = (IMDB_REVIEWS, SENTIMENT140, SST2, YELP_POLARITY_REVIEWS)
