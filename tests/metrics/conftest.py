"""Pairs that metrics are compared on: texts that make normalisers and tokenizers disagree."""

import numpy as np
import pytest

PIECES = (
    *("the", "The", "a", "an", "A.", "fox", "Fox", "foxes", "running", "runs", "red", "yes", "no", "unanswerable"),
    *("1,000", "1000", "1000.0", "1e3", "-5", "5", "5%", "3.14", "$3", "1_000", "٣", "½", "²", "nan", "inf", "1/2"),
    *("J.K.", "Rowling", "AC/DC", "Rosemary’s", "‘quoted’", "´", "`", "_", "snake_case", "well-known", "well", "known"),
    *("...", "!?", "—", "«", "“x”", "-", "'", '"', "(", "&amp;", "<s>", "\\", "\x00", "\u200b", "\ufeff"),
    *(
        "İstanbul",
        "Straße",
        "STRASSE",
        "ﬁn",
        "naïve",
        "nai\u0308ve",
        "a\u0301",
        "東京",
        "東京タワー",
        "the東京",
        "Ελλάς",
    ),
    *("🎉", "👩‍🚀", "ا", "ב", "x" * 40, "cat .", "dog .", "Mr.", "U.S."),
)
JOINTS = (" ", " ", " ", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "", "-", ", ", " . ")


def _text(rng, longest):
    count = int(rng.integers(0, longest + 1))
    return "".join(str(rng.choice(PIECES)) + str(rng.choice(JOINTS)) for _ in range(count))


def _near(rng, text):
    """The text with one thing changed that a normaliser may, or may not, take for the same."""
    change = int(rng.integers(7))
    words = text.split(" ")
    if change == 0:
        return text.upper()
    if change == 1:
        return "".join(c for c in text if c.isalnum() or c.isspace())
    if change == 2:
        return f" The {text}.\n"
    if change == 3:
        return " ".join(words[::-1])
    if change == 4:
        return " ".join(words[1:])
    if change == 5:
        return " ".join([*words, str(rng.choice(PIECES))])
    return text


def make_pairs(seed, count=300, longest=8, most_references=4):
    """(references, prediction) of `count` examples: half of the predictions are near a reference."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        references = [_text(rng, longest) for _ in range(int(rng.integers(1, most_references + 1)))]
        prediction = _near(rng, str(rng.choice(references))) if rng.random() < 0.5 else _text(rng, longest)
        found.append((references, prediction))
    return found


@pytest.fixture(params=range(3), ids=lambda seed: f"seed{seed}")
def hostile_pairs(request):
    """Three hundred (references, prediction)."""
    return make_pairs(request.param)


@pytest.fixture(params=range(2), ids=lambda seed: f"seed{seed}")
def hostile_texts(request):
    """Two hundred (references, prediction) of some length."""
    return make_pairs(request.param + 100, count=200, longest=30, most_references=3)


@pytest.fixture
def few_pairs():
    """A function of a seed that makes sixty (references, prediction) of some length."""
    return lambda seed: make_pairs(seed, count=60, longest=12)
