"""Writes a user's own dataset: tokens to tune on, examples that are held back, and its definition for the catalog.

PREPARED_DIR/tokens/<vocabulary>/<name>/   as for any dataset
PREPARED_DIR/examples/<name>/              what was held back
PREPARED_DIR/own/<name>.json               see `flan_jax.own_data`
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flan_jax import catalog, content, metrics, own_data, protocol, styles
from flan_jax.catalog import CLASSIFICATION, GENERATION, UNKNOWN_CLUSTER
from flan_jax.data import examples as example_files
from flan_jax.data import token_store, trimming
from flan_jax.data.identity import Identities
from flan_jax.data.own.records import ANSWER, DEV, INPUTS, SHARE, TEST, TRAIN, Reading, Record, split
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, unknown_name
from flan_jax.files import AnyPath, alone
from flan_jax.templates import OPTIONS, Template
from flan_jax.wording import counted

METRICS = {"exact_match": "trivia_qa", "f1": "squad", "rouge": "rouge"}  # short names for the usual choices
_OPTIONS_METRIC = "accuracy"
_USUAL = {"text": "f1", "chat": "rouge"}

_VERSION = 1  # version of the key below
_BATCH = 512
_LETTERS_A_TOKEN = 50  # letters for each token of room; more of a text that is far too long is not even tokenized
_INVISIBLE = "\u200b"  # a space without width


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most tokens that texts may have.

    Attributes:
      max_input_length: of an input with BOS and EOS.
      max_target_length: of a target with EOS.
    """

    max_input_length: int = protocol.MAX_INPUT_TOKENS
    max_target_length: int = protocol.MAX_TARGET_TOKENS

    def room(self, tokenizer: Tokenizer) -> int:
        """Most tokens of an input's own text."""
        return self.max_input_length - 1 - (tokenizer.bos_id is not None)


def check_name(name: str, cluster: str) -> None:
    """Refuses an impossible name or cluster.

    Raises:
      FlanError: if so.
    """
    catalog.refuse_name(name)
    base, style = styles.split_name(name)
    if style != styles.PAPER:
        raise FlanError(f"{name!r} ends like a style ({style.name}): give your dataset another name, such as {base!r}.")
    if cluster != UNKNOWN_CLUSTER.name:
        catalog.cluster(cluster)


def definition_of(
    name: str, cluster: str, origin: str, reading: Reading, metric: str = "", template: str = "", vocabulary: str = ""
) -> own_data.Definition:
    """The definition of a dataset for the catalog.

    Args:
      name: the dataset's name.
      cluster: a cluster of the catalog, or "unknown".
      origin: where its records came from.
      reading: its records.
      metric: "exact_match", "f1", "rouge" or another metric, if there are no options; empty for the usual one.
      template: a digest of the chat template that wrote the records; empty for none.
      vocabulary: the fingerprint of the vocabulary that the template belongs to.

    Raises:
      FlanError: an unknown metric, one that needs more than two texts, or a metric for records with options.
    """
    check_name(name, cluster)
    if OPTIONS in reading.records[0].fields:
        if metric not in ("", _OPTIONS_METRIC):
            raise FlanError(f"records with options are scored by {_OPTIONS_METRIC}: leave --metric out.")
        return own_data.Definition(name, cluster, CLASSIFICATION, (_OPTIONS_METRIC,), origin, reading.form)
    metric = metric or _USUAL[reading.form]
    metric = METRICS.get(metric, metric)
    able = {m for one in catalog.datasets() if one.kind == GENERATION for m in one.metrics if not metrics.needs([m])}
    if metric not in able:
        raise unknown_name("metric of generated answers", metric, [*METRICS, *sorted(able - {*METRICS})])
    written = {"template": template, "vocabulary": vocabulary if template else ""}
    return own_data.Definition(name, cluster, GENERATION, (metric,), origin, reading.form, **written)


def write(
    definition: own_data.Definition,
    reading: Reading,
    tokenizer: Tokenizer,
    to: AnyPath,
    limits: Limits,
    *,
    dev: int | None = None,
    test: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a dataset. What exists and is current stays.

    Args:
      definition: its definition.
      reading: its records.
      tokenizer: the vocabulary.
      to: PREPARED_DIR.
      limits: the most tokens of texts.
      dev: how many records to hold back for dev; None for a tenth, up to 200.
      test: the same for test.
      overwrite: whether to replace a dataset that came from elsewhere, and to write again what is current.

    Returns:
      Figures for the summary, in the form of `preparation.summary_line`.

    Raises:
      FlanError: there is another dataset with that name, or nothing is left to train on.
    """
    nothing_held = False
    parts = {TRAIN: reading.records, **reading.splits}
    if TEST not in parts or DEV not in parts:
        held = split(parts[TRAIN], 0 if DEV in parts else dev, 0 if TEST in parts else test)
        nothing_held = test is None and TEST not in parts and not held[TEST] and len(reading.records) >= SHARE
        parts = {**held, **reading.splits}
    parts, changed = _as_text({name: parts.get(name, []) for name in (TRAIN, DEV, TEST)}, tokenizer)
    notes = [*reading.notes]
    if nothing_held:
        notes.append(
            "no record is held back for test: those with the same prompt stay together, and most have the same"
        )
    if changed:
        notes.append(spelled(changed, "records"))
    kept_back = {record.group for name in (DEV, TEST) for record in parts[name]}
    if both := sum(record.group in kept_back for record in parts[TRAIN]):
        notes.append(
            f"{counted(both, 'training records')} have a prompt that is held back too, by the source's own splits"
        )
    folder = token_store.folder_of(to, tokenizer.fingerprint) / definition.name
    examples = to / "examples" / definition.name
    key = {
        "version": token_store.VERSION,
        "dataset": definition.name,
        "source": definition.origin,
        "own": _VERSION,
        "data": content.digest(f"{name} {one.identity} {one.hash}" for name, some in parts.items() for one in some),
        "vocabulary": tokenizer.fingerprint,
        **dataclasses.asdict(limits),
        "style": styles.PAPER.name,
    }
    if (tokens := parts[TRAIN][0].tokens) is not None:
        key |= {token_store.TEMPLATE: definition.template, token_store.SEPARATOR: tokens.separator}
    _there(definition, to, overwrite)  # before anything is written
    with contextlib.ExitStack() as stack:
        # Another process that prepares a dataset with that name waits.
        for one in (to / "own" / definition.name, folder, examples):
            stack.enter_context(alone(one.with_name(f".{one.name}.lock")))
        there = _there(definition, to, overwrite)
        if there is not None and there.cluster != definition.cluster:
            was = f"its cluster was {there.cluster}, and is {definition.cluster} now"
            notes.append(f"{was}; what was tuned on it keeps the former")
        info = token_store.read_info(folder)
        kept = not overwrite and info is not None and all(info.get(name) == value for name, value in key.items())
        if not kept and there is not None and info is not None and info.get("data") != key["data"]:
            was = counted(info.get("num_records", 0), "training records")
            notes.append(f"{was} that were prepared as {definition.name!r} before are replaced by these")
        if not kept:
            info = _write_tokens(folder, key, parts[TRAIN], tokenizer, limits)
        rows = {name: [(one.identity, one.fields) for one in parts[name]] for name in (DEV, TEST) if parts[name]}
        pool = [(one.identity, one.fields) for one in parts[TRAIN][: protocol.EXEMPLAR_POOL]]
        found = example_files.write_folder(examples, rows | {example_files.EXEMPLARS: pool}, {"key": key})
        own_data.write(to, definition)
    names = (
        "renderings",
        "num_tokens",
        "mean_input_length",
        "mean_target_length",
        "trimmed",
        "cut_targets",
        "overlong",
    )
    return {
        "dataset": definition.name,
        "cluster": definition.cluster,
        "origin": definition.origin,
        "kept": kept,
        "train": info["num_records"],
        **{name: info.get(name, 0) for name in names},
        **{name: found["sizes"][name] for name in (DEV, TEST) if name in found["sizes"]},
        "metrics": list(definition.metrics),
        "form": definition.form,
        "bad_rows": len(reading.bad),
        "notes": notes,
    }


def _there(definition: own_data.Definition, to: AnyPath, overwrite: bool) -> own_data.Definition | None:
    """The definition that is prepared under that name; refused if it came from elsewhere and must stay."""
    there = {one.name: one for one in own_data.use(to)}.get(definition.name)
    if there is not None and there.template != definition.template and not overwrite:
        raise FlanError(
            f"there is a {definition.name!r} in {to} in another form ({form_of(there)}; this one is "
            f"{form_of(definition)}): give --name, or --overwrite it."
        )
    if there is not None and there.origin != definition.origin and not overwrite:
        raise FlanError(
            f"there is a {definition.name!r} in {to} that came from {there.origin}: give --name, or --overwrite it."
        )
    return there


def _write_tokens(
    folder: AnyPath, key: Mapping[str, Any], records: Sequence[Record], tokenizer: Tokenizer, limits: Limits
) -> dict[str, Any]:
    counts = dict.fromkeys(("trimmed", "cut_targets", "overlong"), 0)
    identities = Identities.of((record.identity, record.fields) for record in records)
    about = {**key, "num_records": len(records), "renderings": 1, "vocab_size": tokenizer.vocab_size}
    examples = _tokenized(records, tokenizer, limits, counts)
    return token_store.write_dataset(folder, about, examples, lambda: counts, identities)


def _tokenized(
    records: Sequence[Record], tokenizer: Tokenizer, limits: Limits, counts: dict[str, int]
) -> Iterator[token_store.TokenizedExample]:
    room, target_room = limits.room(tokenizer), limits.max_target_length - 1  # EOS comes after it
    template = Template("{inputs}")
    for start in range(0, len(records), _BATCH):
        part = records[start : start + _BATCH]
        if part[0].tokens is not None:
            for number, record in enumerate(part):
                targets = record.tokens.targets
                counts["cut_targets"] += len(targets) > target_room
                yield token_store.TokenizedExample(record.tokens.inputs, targets[:target_room], 0, start + number)
            continue
        whole = [record.fields[INPUTS] for record in part]
        shown = [text[: room * _LETTERS_A_TOKEN] for text in whole]
        inputs = tokenizer.encode(shown)
        targets = tokenizer.encode([record.fields[ANSWER][: target_room * _LETTERS_A_TOKEN] for record in part])
        for number, (ids, target) in enumerate(zip(inputs, targets, strict=True)):
            if len(ids) > room:
                ids = trimming.fit(template, {INPUTS: shown[number]}, "", tokenizer, room, protocol.END).tokens
            counts["trimmed"] += len(ids) < len(inputs[number]) or shown[number] != whole[number]
            cut = len(target) > target_room or len(part[number].fields[ANSWER]) > target_room * _LETTERS_A_TOKEN
            counts["cut_targets"] += cut
            yield token_store.TokenizedExample(list(ids), target[:target_room], 0, start + number)


def form_of(definition: own_data.Definition) -> str:
    """The form of a dataset's inputs, in words."""
    if definition.template:
        return f"chat template {definition.template[:8]} of vocabulary {definition.vocabulary[:8]}"
    return "conversations in the plain form" if definition.form == "chat" else "text"


def spelled(number: int, what: str) -> str:
    """A line about texts that spell a control token."""
    return (
        f"in {counted(number, what)} a control token of the vocabulary is spelled: a space of no width stands in it, "
        "so that it stays text"
    )


def without_control_tokens(tokenizer: Tokenizer, *, written: bool = False) -> Callable[[str], str]:
    """Returns a function that puts a space without width into spellings of control tokens, so that they stay text.

    Args:
      tokenizer: the vocabulary.
      written: whether a chat template writes the text, in which more control tokens are read.
    """
    encode = tokenizer.encode_written if written else tokenizer.encode
    special = [text for text, number in tokenizer.control_ids.items() if number in encode([text])[0]]

    def plain(value: str) -> str:
        for text in special:
            if text in value:
                value = value.replace(text, f"{text[:1]}{_INVISIBLE}{text[1:]}")
        return value

    return plain


def _as_text(parts: Mapping[str, Sequence[Record]], tokenizer: Tokenizer) -> tuple[dict[str, list[Record]], int]:
    """Records whose text cannot become a control token, and the number of records that were changed for that."""
    plain, changed = without_control_tokens(tokenizer), 0
    found: dict[str, list[Record]] = {}
    for name, records in parts.items():
        found[name] = []
        for record in records:
            # The template's own control tokens are meant, and its messages are plain already.
            if record.tokens is not None:
                found[name].append(record)
                continue
            fields = {k: plain(v) if isinstance(v, str) else list(map(plain, v)) for k, v in record.fields.items()}
            changed += fields != record.fields
            found[name].append(dataclasses.replace(record, fields=fields))
    return found, changed
