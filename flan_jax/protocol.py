"""The protocol: how a dataset is asked and scored in a style, as one record. No TensorFlow, no JAX.

    protocol.of(catalog.dataset("rte"), styles.parse("5_shots"))

All code that makes text, tokens, scores or figures of a dataset reads from the protocol: which templates it has, what
stands around exemplars, what stands between prompt and answer, where an answer ends, how long a text may be, what is
cut from a longer one, and which metrics count. No other module has a default for any of these.

A *joint* is what stands between a prompt and its answer:

- "eos": the end-of-sequence token, as in tuning; each answer ends with one too. An encoder-decoder always has it.
- "newline": a line break, for a model that was never tuned here. Such a model takes EOS for the end of a document.
  Mixtures can be tuned on with this joint too (JOINTS).
- "space": a space, as in GPT-3's prompts, where the answer continues the text.
- "joined": nothing. Prompt and answer are one text as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import catalog, metrics, styles, values
from flan_jax.catalog import CLASSIFICATION, Dataset
from flan_jax.errors import FlanError
from flan_jax.templates import LETTER, LETTERED, OPTIONS, PLACEHOLDER, Template, placeholders

VERSION = 2  # raised when the same record comes to mean something else; it is part of every digest

AUTO, EOS, NEWLINE, SPACE, JOINED = "auto", "eos", "newline", "space", "joined"
JOINTS = (AUTO, JOINED, EOS, NEWLINE, SPACE)

START, END = "start", "end"  # which end of a prompt's last field is cut if the prompt is too long

EXEMPLAR_POOL = 1_000  # exemplars are drawn from the first so many training records
EXEMPLAR_OVERLAP = 0.5  # share of the words of two passages from which they count as one; see `data.few_shot`
_EXEMPLAR_BUDGET = 960  # tokens of exemplars and input together (paper, appendix)
_EXEMPLAR_END = "\n\n"
MAX_INPUT_TOKENS, MAX_TARGET_TOKENS = 1024, 256  # paper, section 2.4
_STOPS = ("\n\n", "\nQ:")  # a model that was never tuned does not stop after its answer


def joint(trained: str | None, has_encoder: bool, setting: str = AUTO, *, otherwise: str = NEWLINE) -> str:
    """The joint between prompt and answer; the module lists them.

    Args:
      trained: the joint in the checkpoint's manifest, "eos" or "newline"; None for a model that was never tuned here.
      has_encoder: whether an encoder reads the prompt.
      setting: the joint that the user wants, or "auto".
      otherwise: the joint of a decoder that was never tuned here.

    Raises:
      FlanError: an unknown joint, or a joint other than "eos" for an encoder-decoder.

    Example:
      >>> joint(trained=None, has_encoder=False), joint("eos", False), joint("eos", False, "space")
      ('newline', 'eos', 'space')
    """
    if setting not in JOINTS:
        raise FlanError(f"joint is {values.shown(setting)}; it can be {', '.join(map(repr, JOINTS))}.")
    if has_encoder and setting not in (AUTO, EOS):
        raise FlanError(
            f"joint is {setting!r}, and this model has an encoder, which reads the prompt without the answer: "
            "leave the joint out, or write 'eos'."
        )
    if setting != AUTO:
        return setting
    return EOS if has_encoder else trained or otherwise


def joint_line(joint: str, setting: str = AUTO) -> str:
    """One line that tells a user which joint their own texts are scored with, and who chose it.

    Example:
      >>> joint_line("space", "space")
      'joint space: a space stands between prompt and answer (as asked for)'
    """
    meaning = {
        EOS: "prompt and answer each end with EOS, as in tuning",
        NEWLINE: "a line break stands between prompt and answer",
        SPACE: "a space stands between prompt and answer",
        JOINED: "prompt and answer are one text as they are",
    }
    return f"joint {joint}: {meaning[joint]} ({'by the checkpoint' if setting == AUTO else 'as asked for'})"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a dataset is asked and scored in a style. Made by `of`.

    Attributes:
      record: the dataset.
      style: how its records become text.
      templates: the dataset's templates in the style, by their numbers.
      numbers: the numbers of the templates that the style uses, in its order.
      forward: the numbers of the templates that are evaluated, ascending.
      exemplar_joint: what stands between an exemplar's input and its answer.
      exemplar_end: what stands after an exemplar.
      exemplar_budget: most tokens of exemplars and input together.
      max_input_tokens: most tokens of an input with its exemplars, BOS and EOS. Fields of longer inputs are cut.
      max_target_tokens: most tokens of a target with its EOS. Longer targets lose their end.
      trim: which end of a prompt's last field is cut, "start" or "end". Other fields always lose their end.
      untuned_joint: the joint for a decoder that was never tuned here.
      untuned_stops: a generated answer ends before any of these texts, unless EOS marks its end.
      premises: for each template, the text before an option when its likelihood without the prompt is scored (PMI). It
        may hold placeholders.
      evidence: the record's input without instruction and options. Its likelihood given an option is scored by
        "channel".
      new_tokens_limit: most new tokens, if this is less than the metric allows.
      version: the version of the protocol.
    """

    record: Dataset
    style: styles.TextStyle
    templates: tuple[Template, ...]
    numbers: tuple[int, ...]
    forward: tuple[int, ...]
    exemplar_joint: str
    exemplar_end: str
    exemplar_budget: int
    max_input_tokens: int
    max_target_tokens: int
    trim: str
    untuned_joint: str
    untuned_stops: tuple[str, ...]
    premises: tuple[str, ...]
    evidence: str
    new_tokens_limit: int | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        values.checked("max_input_tokens", values.TOKENS, self.max_input_tokens)
        values.checked("max_target_tokens", values.TOKENS, self.max_target_tokens)
        values.checked("max_new_tokens", values.or_none(values.Whole(1, 2**20)), self.new_tokens_limit)
        if not all(self.untuned_stops):
            raise FlanError(f"dataset {self.record.name}: a stop is empty; give it one or more characters.")

    @property
    def ranked(self) -> bool:
        """Whether options are ranked by their likelihoods. Otherwise the answer is generated."""
        return self.record.kind == CLASSIFICATION

    @property
    def variants(self) -> tuple[Protocol, ...]:
        """The protocol of each of the dataset's variants; this protocol alone if there are none."""
        own = catalog.variants(self.record)
        return (self,) if own == (self.record,) else tuple(dataclasses.replace(self, record=one) for one in own)

    @property
    def asks_all(self) -> bool:
        """Whether one record can give several examples that are all asked: the turns of a conversation."""
        return self.record.expand is not None and not self.record.variants

    @property
    def metrics(self) -> tuple[metrics.Metric, ...]:
        """The records of the dataset's metrics (`flan_jax.metrics`), the headline metric first."""
        return tuple(metrics.metric(name) for name in self.record.metrics)

    @property
    def headline(self) -> str:
        """The name of the metric that tables show."""
        return self.record.metrics[0]

    @property
    def max_new_tokens(self) -> int:
        """Most tokens of a generated answer."""
        wanted = self.metrics[0].new_tokens
        return wanted if self.new_tokens_limit is None else min(wanted, self.new_tokens_limit)

    @property
    def exemplar_room(self) -> int:
        """Most tokens of exemplars and input together: the budget, or less if the input limit is smaller."""
        return min(self.exemplar_budget, self.max_input_tokens - 2)

    def input_room(self, has_bos: bool) -> int:
        """Most tokens of an input's text, not counting BOS and EOS (or another joint)."""
        return self.max_input_tokens - 1 - has_bos

    def joint(self, trained: str | None, has_encoder: bool, setting: str = AUTO) -> str:
        """The joint between prompt and answer: "eos", "newline", "space" or "joined".

        A prompt in GPT-3's manner always takes a space by default, whatever joint the decoder was tuned with.

        Args:
          trained: the joint in the checkpoint's manifest, "eos" or "newline"; None for a model that was never tuned
            here.
          has_encoder: whether an encoder reads the prompt.
          setting: the joint that the user wants, or "auto".

        Raises:
          FlanError: an unknown joint, a joint other than "eos" for an encoder-decoder, or an encoder-decoder for a
            dataset that a chat template wrote.
        """
        if self.record.written:
            if has_encoder:
                raise FlanError(
                    f"{self.record.name} was written by a chat template, and this model has an encoder, which reads "
                    "the prompt without the answer: prepare it without --chat."
                )
            return JOINED
        trained = None if self.style.words == styles.GPT3 else trained
        return joint(trained, has_encoder, setting, otherwise=self.untuned_joint)

    def stops(self, joint: str) -> tuple[str, ...]:
        """The texts that end a generated answer; none if EOS ends it."""
        return () if joint == EOS else self.untuned_stops

    def shown_fields(self, number: int) -> tuple[str, ...]:
        """The record's text fields that a template, or its premise for PMI, shows. The options are not among them."""
        patterns = (self.templates[number].input, self.templates[number].target, self.premises[number])
        names = dict.fromkeys(name for pattern in patterns for name in placeholders(pattern))
        return tuple(name for name in names if name not in (OPTIONS, LETTERED, LETTER))

    def premise(self, number: int) -> str:
        """The text before an option of a template when it is scored without the prompt (PMI).

        It may hold placeholders.
        """
        return self.premises[number]

    def scored(self, fields: Mapping[str, str | Sequence[str]]) -> tuple[str, ...]:
        """The options that are scored after a prompt; their letters if the style letters them.

        Args:
          fields: the record's fields in the style.
        """
        options = tuple(fields[OPTIONS])
        return tuple(styles.LETTERS[: len(options)]) if self.style.lettered_options else options

    def limited(
        self,
        max_input_tokens: int | None = None,
        max_target_tokens: int | None = None,
        max_new_tokens: int | None = None,
    ) -> Protocol:
        """The same protocol with other limits. An argument that is None leaves its limit as it is.

        Raises:
          FlanError: a limit is not a number of tokens.
        """
        changed: dict[str, Any] = {
            "max_input_tokens": max_input_tokens,
            "max_target_tokens": max_target_tokens,
            "new_tokens_limit": max_new_tokens,
        }
        return dataclasses.replace(self, **{name: value for name, value in changed.items() if value is not None})

    def of_template(self, number: int) -> Protocol:
        """The same protocol with one forward template alone: what its predictions depend on."""
        return dataclasses.replace(self, numbers=(number,), forward=(number,))

    @property
    def text_digest(self) -> str:
        """A digest of everything that inputs and targets depend on besides the records.

        For token stores and files of text.
        """
        return _digest(self._text())

    @property
    def digest(self) -> str:
        """A digest of the whole protocol with the versions of its metrics. For scores and predictions."""
        return _digest(
            self._text()
            | {
                "forward": self.forward,
                "joint": self.untuned_joint,
                "stops": self.untuned_stops,
                "evidence": self.evidence,
                "premises": [self.premises[number] for number in self.forward],
                "ranked": self.ranked,
                **({"asked": "every turn"} if self.asks_all else {}),
                **({"passage": self.record.passage} if self.record.passage else {}),  # predictions hold it
                "new_tokens": self.new_tokens_limit if self.ranked else self.max_new_tokens,
                "metrics": [[metric.name, sorted(metric.versions.items())] for metric in self.metrics],
            }
        )

    def _text(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "dataset": self.record.name,
            "style": self.style.name,
            "templates": [[number, *dataclasses.astuple(self.templates[number])] for number in self.numbers],
            "words": [self.record.gpt3_prompt.words, self.record.gpt3_prompt.mid_sentence]
            if self.style.words == styles.GPT3
            else [],
            "exemplars": self.style.shots
            and [
                *(self.exemplar_joint, self.exemplar_end, self.exemplar_room, EXEMPLAR_POOL),
                *(
                    [self.record.passage, EXEMPLAR_OVERLAP] if self.record.passage else ()
                ),  # whose records are not drawn
            ],
            **({"left out": found} if (found := styles.unanswerable(self.record, self.style)) else {}),
            "lengths": [self.max_input_tokens, self.max_target_tokens, self.trim],
        }


@functools.cache
def of(record: Dataset, style: styles.TextStyle = styles.PAPER) -> Protocol:
    """The protocol of a dataset in a style.

    Example:
      >>> from flan_jax import catalog, styles
      >>> asked = of(catalog.dataset("rte"), styles.parse("gpt3_5_shots"))
      >>> print(asked.templates[0].input)
      {premise}
      Statement: {hypothesis}
      Is the statement true or false?
      Answer:
      >>> asked.forward, asked.max_input_tokens
      ((0,), 1024)
    """
    in_gpt3 = style.words == styles.GPT3
    every = styles.templates(record, style)
    premises = tuple(_tail(template.input) for template in every)
    continues = not style.lettered_options  # the options continue the prompt's last sentence
    return Protocol(
        record=record,
        style=style,
        templates=every,
        numbers=styles.numbers(record, style),
        forward=styles.forward_templates(record, style),
        exemplar_joint=" " if in_gpt3 else "\n",
        exemplar_end=_EXEMPLAR_END,
        exemplar_budget=_EXEMPLAR_BUDGET,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_target_tokens=MAX_TARGET_TOKENS,
        trim=START if in_gpt3 else END,  # the answer continues that field, so its end must stay
        untuned_joint=SPACE if in_gpt3 else NEWLINE,
        untuned_stops=record.gpt3_prompt.stop if in_gpt3 else _STOPS,
        premises=(record.gpt3_prompt.premise,) if in_gpt3 and continues and record.gpt3_prompt.premise else premises,
        evidence=record.bare,
    )


def _tail(pattern: str) -> str:
    """The end of a prompt after its last field, without the rest of that field's own line."""
    tail = PLACEHOLDER.split(pattern)[-1]
    if not tail.startswith("\n") and "\n" in tail:
        tail = tail[tail.index("\n") :]
    return re.sub(r"^[^\w(]+", "", tail).rstrip()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
