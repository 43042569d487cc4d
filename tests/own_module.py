"""A user's own module of datasets, as a test writes it outside the package."""

import json

MODULE = '''
from flan_jax.catalog import CLASSIFICATION, GENERATION, Cluster, Dataset
from flan_jax.tasks.fields import one_line, pick
from flan_jax.templates import INVERTED, Template

import tensorflow as tf

SPAM = Cluster("spam", "Spam", held_out_with=("nli",))
WORDS = ("yes", "no")


def spam_fields(record):
    """Fields text, options, answer."""
    return {"text": one_line(record["text"]), "options": tf.constant(WORDS), "answer": pick(WORDS, record["label"])}


def title_fields(record):
    """Fields text, answer."""
    return {"text": one_line(record["text"]), "answer": one_line(record["title"])}


DATASETS = (
    Dataset(
        name="my_spam",
        cluster=SPAM,
        source="my_spam:1.0.0",
        schema={"text": "text", "label": ("spam", "ham")},
        fields=spam_fields,
        kind=CLASSIFICATION,
        metrics=("accuracy",),
        labels=(("spam", "yes"), ("ham", "no")),
        templates=(
            Template("Is this spam?\\n\\n{text}\\n\\n{options}", "{answer}"),
            Template("{text}\\n\\nWould you call that spam?\\n{options}", "{answer}"),
            Template("Write a message. Is it to be spam: {answer}.", "{text}", INVERTED),
        ),
    ),
    Dataset(
        name="my_titles",
        cluster="summarization",
        source="my_titles:1.0.0",
        schema={"text": "text", "title": "text"},
        fields=title_fields,
        kind=GENERATION,
        metrics=("rouge",),
        templates=(Template("Give this a title:\\n\\n{text}", "{answer}"),),
    ),
)
'''


def write(folder):
    """Writes the module and its samples; returns its file."""
    rows = [
        {"text": f"{'Buy watches, number' if n % 2 else 'See you at'} {n}", "label": (n % 2 and "spam") or "ham"}
        for n in range(12)
    ]
    titles = [{"text": f"A long story of the days of number {n}.", "title": f"Number {n}"} for n in range(12)]
    for name, found in (("my_spam", rows), ("my_titles", titles)):
        (folder / "samples" / name).mkdir(parents=True)
        for split, part in (("train", found), ("validation", found[:6]), ("test", found[6:])):
            text = "".join(json.dumps(row | {"text": f"{row['text']} {split}"}) + "\n" for row in part)
            (folder / "samples" / name / f"{split}.jsonl").write_text(text)
    (folder / "my_tasks.py").write_text(MODULE)
    return folder / "my_tasks.py"
