"""Styles: how records become text, with instructions or as the paper's studies need it (sections 4.2 to 4.4).

No TensorFlow.

A style chooses templates of a dataset and says what is done to the options. Its name is the last part of the names of
tasks, mixtures and prepared folders: `flan_rte_no_template`, `flan_without_nli_4_templates`.

- `no_template`: bare inputs and outputs.
- `dataset_name`: bare inputs, with the cluster and the dataset in front.
- `without_options`: the instructions, without the block of answer options.
- `<n>_templates`: only n of the templates: the first n of an order in which the inverted ones are spread evenly.
- `shuffled_options`: the options in an order that a hash of the record gives.
- `lettered_options`: the prompt shows the options as "A. ...", and the answer is the letter; for up to 26 options.
- `<k>_shots`: up to k exemplars in front of the input, as many as fit. Each example has its own.
- `<k>_shared_shots`: the same, but all examples of a dataset and template have the same ones.
- `gpt3`: prompts in GPT-3's manner, for a model that was never tuned.

The last seven can be joined, as in `without_options_5_shots` and `gpt3_lettered_options`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.catalog import CLASSIFICATION, Dataset, cluster
from flan_jax.errors import FlanError
from flan_jax.templates import LETTER, LETTERED, TEMPLATES_PER_DATASET, Template

INSTRUCTIONS, NO_TEMPLATE, DATASET_NAME, GPT3 = "instructions", "no_template", "dataset_name", "gpt3"
MAX_SHOTS = 16  # paper, section 4.4
LETTERS = string.ascii_uppercase

_PARTS = (  # each group is named after the attribute that it sets; shared_shots sets two
    r"(?P<words>instructions|no_template|dataset_name|gpt3)",
    r"(?P<with_options>without_options)",
    r"(?P<shuffled_options>shuffled_options)",
    r"(?P<lettered_options>lettered_options)",
    r"(?P<num_templates>[0-9]+)_templates",
    r"(?P<shots>[0-9]+)_shots",
    r"(?P<shared_shots>[0-9]+)_shared_shots",
)
_EXAMPLES: tuple[str, ...] = (
    INSTRUCTIONS,
    NO_TEMPLATE,
    DATASET_NAME,
    GPT3,
    "without_options",
    "shuffled_options",
    "lettered_options",
)
_EXAMPLES += ("4_templates", "5_shots", "5_shared_shots")
_PART = re.compile("|".join(_PARTS))
_SUFFIX = re.compile(f"_(?:{'|'.join(_PARTS)})$")


class NotShownError(FlanError):
    """A record that cannot be shown in a style. It is left out and counted."""


class TooManyOptionsError(NotShownError):
    """A record has more options than there are letters."""


class NeedsOptionsError(NotShownError):
    """A record speaks of its options, and the style does not show them."""


@dataclasses.dataclass(frozen=True)
class TextStyle:
    """How records become text.

    Attributes:
      words: "instructions", "no_template", "dataset_name" or "gpt3".
      with_options: whether instructions show the options.
      shuffled_options: whether each record has its options in an order of its own.
      lettered_options: whether the options are lettered and the answer is a letter.
      num_templates: how many templates are used. About the usual share of them is inverted; see `numbers`.
      shots: most exemplars in front of an input.
      shared: whether all examples of a dataset and template have the same exemplars.
    """

    words: str = INSTRUCTIONS
    with_options: bool = True
    shuffled_options: bool = False
    lettered_options: bool = False
    num_templates: int = TEMPLATES_PER_DATASET
    shots: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        instructed = self.words == INSTRUCTIONS
        if not instructed and not (self.with_options and self.num_templates == TEMPLATES_PER_DATASET):
            raise FlanError(f"style {self.words!r} has one template and shows no options: use it alone.")
        if self.shuffled_options and not (instructed and self.with_options):
            raise FlanError("shuffled_options needs instructions that show the options.")
        if self.lettered_options and not ((instructed or self.words == GPT3) and self.with_options):
            raise FlanError("lettered_options needs gpt3, or instructions that show the options.")
        if not 1 <= self.num_templates <= TEMPLATES_PER_DATASET:
            raise FlanError(f"a style has 1 to {TEMPLATES_PER_DATASET} templates, not {self.num_templates}.")
        if not 0 <= self.shots <= MAX_SHOTS:
            raise FlanError(f"a style has up to {MAX_SHOTS} shots, not {self.shots}.")
        if self.shared and not self.shots:
            raise FlanError("shared exemplars need one shot or more, as in 5_shared_shots.")

    @property
    def name(self) -> str:
        """The style's name; "instructions" for the paper's own style."""
        parts = [
            "" if self.words == INSTRUCTIONS else self.words,
            "" if self.with_options else "without_options",
            "shuffled_options" if self.shuffled_options else "",
            "lettered_options" if self.lettered_options else "",
            f"{self.num_templates}_templates" if self.num_templates < TEMPLATES_PER_DATASET else "",
            f"{self.shots}_{'shared_' if self.shared else ''}shots" if self.shots else "",
        ]
        return "_".join(filter(None, parts)) or INSTRUCTIONS

    @property
    def num_wordings(self) -> int:
        """How many templates a dataset has in this style."""
        return self.num_templates if self.words == INSTRUCTIONS else 1

    @property
    def shows_options(self) -> bool:
        """Whether forward prompts of a classification dataset show its options."""
        return self.lettered_options or (self.words == INSTRUCTIONS and self.with_options)

    @property
    def restyles_options(self) -> bool:
        """Whether the style changes the options: their order, their words, or by letters."""
        return self.shuffled_options or self.lettered_options or self.words == GPT3

    @property
    def draws(self) -> bool:
        """Whether a seed decides part of a prompt: the exemplars or the order of the options."""
        return bool(self.shots) or self.shuffled_options

    @property
    def suffix(self) -> str:
        """What the style appends to a name; nothing for the paper's own style."""
        return "" if self.name == INSTRUCTIONS else f"_{self.name}"


PAPER = TextStyle()


def parse(name: str) -> TextStyle:
    """The style with a name such as "no_template" or "without_options_5_shots".

    Raises:
      FlanError: there is no such style.

    Example:
      >>> style = parse("without_options_5_shots")
      >>> style.with_options, style.shots
      (False, 5)
      >>> parse("no_tempalte")
      Traceback (most recent call last):
      ...
      flan_jax.errors.FlanError: unknown style 'no_tempalte': did you mean 'no_template' or '4_templates'? it is ...
    """
    if not isinstance(name, str):
        raise FlanError(f"unknown style {name!r}: a style is a name, such as {_EXAMPLES[0]!r} or {_EXAMPLES[-2]!r}.")
    style: dict[str, Any] = {}
    position = 0
    while position <= len(name):  # a name that is empty or ends in _ has a part that is none
        found = _PART.match(name, position)
        if not found or (found.end() < len(name) and name[found.end()] != "_"):
            near = difflib.get_close_matches(name.lower(), _EXAMPLES, n=2, cutoff=0.6)
            meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise FlanError(
                f"unknown style {name!r}: {meant}it is instructions, no_template, dataset_name, gpt3, without_options, "
                "shuffled_options, lettered_options, <n>_templates, <k>_shots, <k>_shared_shots, or several of the "
                "last joined by _."
            )
        position = found.end() + 1
        part = found.lastgroup or ""
        value = found[part]
        if value.startswith("0"):
            written = value.lstrip("0")
            remedy = f"write {found.group().replace(value, written, 1)!r}" if written else "leave it out"
            raise FlanError(f"style {name!r}: {found.group()!r} is no part of a style: {remedy}.")
        if part == "shared_shots":
            part, style["shared"] = "shots", True
        if part in style:
            raise FlanError(f"style {name!r} says twice what {part.replace('_', ' ')} it has: leave one out.")
        switches = {"with_options": False, "shuffled_options": True, "lettered_options": True}
        style[part] = switches.get(part, int(value) if value.isdigit() else value)
    return TextStyle(**style)


def split_name(name: str) -> tuple[str, TextStyle]:
    """Splits a task's or mixture's name into the name without its style, and the style.

    Raises:
      FlanError: the style has parts that exclude each other.

    Example:
      >>> base, style = split_name("flan_without_nli_5_shots")
      >>> base, style.name
      ('flan_without_nli', '5_shots')
    """
    base = name
    parts: list[str] = []
    while found := _SUFFIX.search(base):
        parts.insert(0, found.group()[1:])
        base = base[: found.start()]
    return base, parse("_".join(parts)) if parts else PAPER


def templates(record: Dataset, style: TextStyle) -> tuple[Template, ...]:
    r"""A dataset's templates in a style, by their numbers. Styles without instructions have one.

    All templates of the dataset are there, so that a number means the same template in every style. `numbers` says
    which of them the style uses.

    Example:
      >>> from flan_jax import catalog
      >>> templates(catalog.dataset("rte"), parse("dataset_name"))[0].input
      '[Natural language inference: rte] {premise}\n{hypothesis}'
    """
    if style.words == NO_TEMPLATE:
        return (Template(record.bare),)
    if style.words == DATASET_NAME:
        return (Template(f"[{cluster(record.cluster).title}: {record.name.replace('_', ' ')}] {record.bare}"),)
    if style.words == GPT3:
        lettered = style.lettered_options and record.kind == CLASSIFICATION
        return (record.gpt3_prompt.lettered if lettered else Template(record.gpt3_prompt.input),)
    if style.lettered_options:
        return tuple(t.lettered for t in record.templates)
    return record.templates if style.with_options else tuple(t.without_options for t in record.templates)


def numbers(record: Dataset, style: TextStyle) -> tuple[int, ...]:
    """The numbers of the templates that a style uses, in its order.

    The first template is forward. Among the first n, inverted templates have about the same share as among all. They
    stand last in the catalog, so the catalog's order would make a study of the number of templates one of inverted
    templates.

    Example:
      >>> from flan_jax import catalog
      >>> numbers(catalog.dataset("rte"), parse("4_templates"))
      (0, 1, 8, 2)
    """
    every = range(min(style.num_wordings, len(record.templates)))  # a user's own datasets may have fewer
    if len(every) == len(record.templates) or style.words != INSTRUCTIONS:
        return tuple(every)
    forward = list(record.forward_templates)
    inverted = [i for i, t in enumerate(record.templates) if not t.is_forward]
    whole = len(record.templates)
    # Number of inverted templates among the first n.
    counts = [(2 * n * len(inverted) + whole) // (2 * whole) for n in range(len(every) + 1)]
    return tuple(inverted[counts[n]] if counts[n + 1] > counts[n] else forward[n - counts[n]] for n in every)


def forward_templates(record: Dataset, style: TextStyle) -> tuple[int, ...]:
    """The numbers of the templates that are evaluated, ascending.

    Example:
      >>> from flan_jax import catalog
      >>> forward_templates(catalog.dataset("rte"), parse("4_templates"))
      (0, 1, 2)
    """
    every = templates(record, style)
    return tuple(sorted(number for number in numbers(record, style) if every[number].is_forward))


def restyled_options(
    record: Dataset, style: TextStyle, record_id: str, options: Sequence[str], answer: str, seed: int = 0
) -> tuple[list[str], str]:
    """A record's options and answer as a style shows them.

    Args:
      record: the dataset; it must be classification.
      style: the style.
      record_id: the record's id.
      options: the options that `fields` gives.
      answer: one of them.
      seed: the seed of the shuffling.

    Returns:
      (options, answer): in another order, or in GPT-3's words.
    """
    if style.words == GPT3 and record.gpt3_prompt.words:
        words = list(record.gpt3_prompt.words)
        return words, words[list(options).index(answer)]
    if style.words == GPT3 and record.gpt3_prompt.mid_sentence:
        return [in_mid_sentence(option) for option in options], in_mid_sentence(answer)
    if style.shuffled_options:
        return sorted(options, key=lambda option: _hash(seed, record.name, record_id, option)), answer
    return list(options), answer


def unanswerable(record: Dataset, style: TextStyle) -> tuple[tuple[str, str], ...]:
    r"""Which texts make a record unanswerable in a style, as they speak of options that its prompts do not show.

    In GPT-3's manner only the answers count: the options are scored after the prompt, and GPT-3 was asked questions
    such as "Which of these ...?" in that way.

    Returns:
      (field, regular expression) of `Dataset.needs_options`, each for a whole text, in Python and in RE2; none if the
        style shows the options.

    Example:
      >>> from flan_jax import catalog
      >>> unanswerable(catalog.dataset("cosmos_qa"), parse("gpt3"))
      (('answer', '(?is).*(?:\\b(?:none|all) of the above\\b).*'),)
      >>> unanswerable(catalog.dataset("cosmos_qa"), PAPER)
      ()
    """
    if record.kind != CLASSIFICATION or style.shows_options:
        return ()
    counted = [(name, text) for name, text in record.needs_options if name == "answer" or style.words != GPT3]
    return tuple((name, f"(?is).*(?:{text}).*") for name, text in counted)


def check_answerable(record: Dataset, style: TextStyle, fields: Mapping[str, Any]) -> None:
    """Checks that a record does not speak of options that a style does not show.

    Args:
      record: the dataset.
      style: the style.
      fields: the record's fields as text, before the style changes them.

    Raises:
      NeedsOptionsError: it does.
    """
    for name, whole in unanswerable(record, style):
        if re.fullmatch(whole, fields.get(name, "")):
            raise NeedsOptionsError(f"its {name} speaks of options, which style {style.name} does not show.")


def lettered(style: TextStyle, options: Sequence[str], answer: str) -> dict[str, str]:
    """The fields for lettered options: the block that a prompt shows, and the letter of the answer.

    In GPT-3's manner a space stands before every letter in the block, as it does before the letter that is scored. So
    tokenizers see the same token in both places.

    Args:
      style: a style with lettered options.
      options: the options in the style.
      answer: one of them.

    Raises:
      TooManyOptionsError: there are more options than letters.
    """
    if len(options) > len(LETTERS):
        raise TooManyOptionsError(f"{len(options)} options are more than the {len(LETTERS)} letters.")
    space = " " if style.words == GPT3 else ""
    lines = [f"{space}{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return {LETTERED: "\n".join(lines), LETTER: LETTERS[list(options).index(answer)]}


# Words that lose their capital letter in the middle of a sentence: closed classes, which hold no names, and the nouns
# without an article that choices of COPA begin with.
_NO_NAMES = frozenset(
    """
    a an the this that these those he she it we you they there here his her hers its my mine our your their one no some
    any each every all both many most few several another other such what whatever who whoever someone somebody anyone
    anybody everyone everybody nobody nothing something everything anything none neither either if when while although
    because since after before once until as at by for from in into of on onto over under to with without during and or
    but so yet only even not now then soon later two three four five six seven eight nine ten
    people users boats oil snowflakes specialists schools teachers consumers children
    """.split()  # noqa: SIM905
)


def in_mid_sentence(text: str) -> str:
    """A sentence as it continues another one: it starts in lower case, unless with "I" or with what may be a name.

    Example:
      >>> in_mid_sentence("The man left."), in_mid_sentence("Berlin was far.")
      ('the man left.', 'Berlin was far.')
    """
    first = re.match(r"[A-Za-z]+", text)
    word = first.group() if first else ""
    return text[0].lower() + text[1:] if word.lower() in _NO_NAMES and word[1:] == word[1:].lower() else text


def _hash(*parts: object) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
