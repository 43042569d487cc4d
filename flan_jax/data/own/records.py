"""A user's own records as text: what is wrong with a record, and which are held back. No TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax import content
from flan_jax.errors import FlanError
from flan_jax.json_lines import as_unicode
from flan_jax.splits import DEV_SIZE
from flan_jax.templates import OPTIONS
from flan_jax.wording import counted

INPUTS, ANSWER = "inputs", "answer"
TRAIN, DEV, TEST = "train", "dev", "test"

SHARE = 10  # of ten records one is held back for dev and one for test, up to 200 each
_NAMED = 3
_QUOTED = 40  # characters of a text that a message shows
_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


@dataclasses.dataclass(frozen=True)
class Tokens:
    """An example that a chat template wrote, in tokens.

    Attributes:
      inputs: the tokens before the separator, without BOS.
      separator: the last token of the text that asks for the answer.
      targets: the answer with the template's own end, without EOS.
    """

    inputs: Sequence[int]
    separator: int
    targets: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Record:
    """A record whose inputs and answer are text.

    Attributes:
      identity: its place: "12" for line 12, "12#3" for the third turn of its conversation.
      fields: "inputs", "answer" and in some datasets "options", one of which is the answer.
      group: what it shares with others: its prompt, or that of the conversation's first turn. Records of a group are
        held back together.
      tokens: its tokens if a chat template wrote it; None if a vocabulary tokenizes the fields.
    """

    identity: str
    fields: Mapping[str, Any]
    group: str
    tokens: Tokens | None = None

    @property
    def hash(self) -> str:
        """Identifies its content, see `content.content_hash`."""
        return content.content_hash(self.fields)


class UnusableRecord(ValueError):
    """A record that cannot be used; the text says why, in a few words."""


@dataclasses.dataclass
class Reading:
    """What was read.

    Attributes:
      records: the usable records, in order.
      form: "text" or "chat".
      bad: (place, reason) of the others.
      notes: lines for the user.
      splits: names of records that their source itself assigns to dev or test.
      unit: what their identities count: "record", or "line" of a file.
    """

    records: list[Record] = dataclasses.field(default_factory=list)
    form: str = "text"
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    splits: dict[str, list[Record]] = dataclasses.field(default_factory=dict)
    unit: str = "record"

    def check(self, where: str, leave_out: bool) -> None:
        """Refuses the data if some of it cannot be used, unless it is to be left out.

        Raises:
          FlanError: the message has the first bad record, and how many there are.
        """
        if self.bad and (not leave_out or not self.records):
            place, why = self.bad[0]
            others = len(self.bad) - 1
            more = f"; {counted(others, 'others')} cannot be used either" if others else ""
            end = "mend it" if not others else "mend them"
            remedy = f"{end}, or give --leave_out to go on without" if self.records else f"{end}: nothing else is there"
            raise FlanError(f"{where} {place}: {why}{more}. {remedy[0].upper()}{remedy[1:]}.")
        if not self.records:
            raise FlanError(f"{where} has no record: there is nothing to prepare.")
        with_options = [OPTIONS in record.fields for record in self.records]
        if any(with_options) and not all(with_options):
            number = self.records[with_options.index(False)].identity.partition("#")[0]
            raise FlanError(
                f'{where} {self.unit} {number} has no "options", and others have: give all of them, or none.'
            )
        doubled = len(self.records) - len({record.hash for record in self.records})
        if doubled:
            self.notes.append(
                f"{counted(doubled, 'records')} of {len(self.records):,} repeat an earlier one; all are kept"
            )

    @property
    def named(self) -> list[str]:
        """The first records that were left out, with reasons."""
        return [f"{place}: {why}" for place, why in self.bad[:_NAMED]]


def text_of(value: Any, name: str, *, blank: bool = False) -> str:
    """A value that must be text.

    Raises:
      UnusableRecord: it is not text, is blank, or cannot be written in UTF-8.
    """
    if not isinstance(value, str):
        raise UnusableRecord(f'"{name}" is {_TYPES.get(type(value), type(value).__name__)}, and has to be text')
    if not blank and not value.strip():
        raise UnusableRecord(f'"{name}" is empty')
    if as_unicode(value) != value:
        raise UnusableRecord(f'"{name}" has a lone surrogate, which UTF-8 cannot hold')
    return value


def record_of(identity: str, inputs: str, answer: str, options: Any = None, group: str = "") -> Record:
    """Makes a record from its parts.

    Raises:
      UnusableRecord: the options are not a list of different texts with the answer among them.
    """
    fields: dict[str, Any] = {INPUTS: inputs, ANSWER: answer}
    if options is not None:
        if not isinstance(options, Sequence) or isinstance(options, str) or len(options) < 2:
            raise UnusableRecord('"options" has to be a list of two texts or more')
        options = [text_of(one, "options") for one in options]
        if len(set(options)) < len(options):
            raise UnusableRecord('"options" has the same text twice')
        if answer not in options:
            shown = ", ".join(map(_quoted, options[:_NAMED])) + (", ..." if len(options) > _NAMED else "")
            raise UnusableRecord(f"its target {_quoted(answer)} is none of its options ({shown})")
        fields[OPTIONS] = options
    return Record(identity, fields, content.content_hash({INPUTS: group or inputs}))


def _quoted(value: str) -> str:
    return repr(value if len(value) <= _QUOTED else value[:_QUOTED] + "...")


def split(records: Iterable[Record], dev: int | None, test: int | None) -> dict[str, list[Record]]:
    """Holds records back: those whose group has the smallest hashes are "test", the next "dev". The order stays.

    Records of a group stay together, so a part may be slightly larger than asked for. A group that would hold back more
    than half of all records stays in training: it is a prompt that nearly all share.

    Args:
      records: all records.
      dev: how many to hold back for dev; None for a tenth, up to 200.
      test: the same for test.

    Raises:
      FlanError: nothing would be left to train on.
    """
    records = list(records)
    groups: dict[str, int] = {}
    for record in records:
        groups[record.group] = groups.get(record.group, 0) + 1
    usual = min(DEV_SIZE, len(records) // SHARE)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"held back {group}".encode()).digest())
    place: dict[str, str] = {}
    for name, wanted in ((TEST, usual if test is None else test), (DEV, usual if dev is None else dev)):
        taken = 0
        for group in list(order):
            if taken >= wanted:
                break
            if taken + groups[group] > max(wanted, len(records) // 2):
                continue
            order.remove(group)
            place[group] = name
            taken += groups[group]
    parts: dict[str, list[Record]] = {TRAIN: [], DEV: [], TEST: []}
    for record in records:
        parts[place.get(record.group, TRAIN)].append(record)
    if not parts[TRAIN]:
        raise FlanError(f"of {counted(len(records), 'records')} none is left to train on: give --dev and --test fewer.")
    for name, asked in ((TEST, test), (DEV, dev)):
        if asked and not parts[name]:
            raise FlanError(
                f"none of {counted(len(records), 'records')} can be held back for {name}: those with the same prompt "
                f"stay together, and most of these have the same; give --{name}=0."
            )
    return parts
