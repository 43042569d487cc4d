"""Opens a prepared mixture: what it consists of, and its stream. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flan_jax import own_data, parts, protocol, styles
from flan_jax.data import mixtures, token_store
from flan_jax.data.layouts import capacities
from flan_jax.data.stream import ROWS_PER_BATCH, Stream
from flan_jax.data.token_store import DatasetTokens, TokenStore
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, unknown_name
from flan_jax.files import AnyPath
from flan_jax.values import PER_TOKEN

LENGTHS = {"inputs": protocol.MAX_INPUT_TOKENS, "targets": protocol.MAX_TARGET_TOKENS}
_PROBES = ("yes", "No, it is not.", "1", "(a)", "le chat")  # answers that are tried with a vocabulary


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a prepared mixture consists of, without its tokens.

    Attributes:
      mixture: the mixture.
      composition: its parts that are prepared.
      digests: digests of everything that is stored of each part, by part.
      separators: the tokens that prompts of a chat template end with, by part.
      stores: where their tokens are, by style.
    """

    mixture: parts.Mixture
    composition: mixtures.Composition
    digests: dict[str, str]
    separators: dict[str, int]
    stores: dict[str, TokenStore]

    def tokens(self) -> dict[str, DatasetTokens]:
        """The tokens of each part, verified when first opened.

        Raises:
          FlanError: a part is corrupt.
        """
        return {m.part: self.stores[m.style][m.dataset] for m in self.composition.members}


def composed(
    mixture: str | Mapping[str, Any] | parts.Mixture,
    prepared_dir: str | AnyPath,
    fingerprint: str,
    datasets: Collection[str] = (),
) -> Prepared:
    """What a prepared mixture consists of, from the info of its datasets. Their tokens are not read.

    A dataset that is not prepared at all is absent. A dataset that is prepared in only some of its styles is an error,
    because all its draws would be in these.

    Args:
      mixture: see `parts.of`.
      prepared_dir: PREPARED_DIR.
      fingerprint: the vocabulary's fingerprint.
      datasets: only these of its datasets; by default all.

    Raises:
      FlanError: see `open_mixture`.
    """
    own = {one.name: one.template for one in own_data.use(prepared_dir)}
    mixture = parts.of(mixture)
    as_they_are = {one.name for one in own_data.definitions(own_data.named())}
    for part in mixture.parts:
        if part.dataset in as_they_are and part.style != styles.PAPER.name:
            raise FlanError(
                f"dataset {part.dataset} is text of your own, which has no other style than {styles.PAPER.name}: leave "
                f"{part.style} out, in an entry of its own in 'parts'."
            )
    members = [record.name for record in mixture.datasets]
    for name in datasets:
        if name not in members:
            raise unknown_name(f"dataset of mixture {mixture.name!r}", name, members)
    stores = {style.name: TokenStore.open(prepared_dir, fingerprint, style) for style in mixture.styles}
    there = {style: set(store.names) for style, store in stores.items()}
    wanted = {
        name
        for name in members
        if (name in datasets if datasets else any(name in there[style.name] for style in mixture.styles_of(name)))
    }
    if not wanted:
        raise FlanError(
            f"mixture {mixture.name!r}: {prepared_dir} holds none of its datasets for this vocabulary; "
            f"run python -m flan_jax.prepare {_arguments(mixture, prepared_dir)} "
            f"--vocabulary=CHECKPOINT/vocabulary --to={prepared_dir}."
        )
    chosen = [part for part in mixture.parts if part.dataset in wanted]
    if len(stores) > 1:
        _refuse_half(chosen, there, prepared_dir)
    found = {part.name: _info(stores[part.style], prepared_dir, fingerprint, part) for part in chosen}
    _refuse_other_records(chosen, found, prepared_dir)
    examples = {part.dataset: int(found[part.name]["num_records"]) for part in chosen}
    digests = {part.name: str(found[part.name]["digest"]) for part in chosen}
    for part in chosen:
        if found[part.name].get(token_store.TEMPLATE, "") != own.get(part.dataset, ""):
            raise FlanError(
                f"dataset {part.dataset} in {prepared_dir} was prepared again in another form, for another vocabulary "
                "than this: prepare it for this one too, under another name."
            )
    written = {name: info[token_store.SEPARATOR] for name, info in found.items() if token_store.SEPARATOR in info}
    return Prepared(mixture, mixtures.composition(mixture, examples), digests, written, stores)


def _arguments(mixture: parts.Mixture, prepared_dir: str | AnyPath) -> str:
    """The arguments of `prepare` that say what, and of which data: a mixture, or a dataset of one's own."""
    own = [record for record in mixture.datasets if own_data.is_origin(record.source)]
    if own and len(own) == len(mixture.datasets):  # no mixture has the name, and each is prepared from its file
        kind, _, file = own[0].source.partition(":")
        return f"--{kind}={file} --name={own[0].name}"
    names = ",".join(record.name for record in mixture.datasets)
    what = f"--datasets={names}" if "parts" in mixture.recipe else f"--mixture={mixture.name}"
    in_styles = len(mixture.styles) > 1 or "parts" in mixture.recipe
    style = f" --style={','.join(style.name for style in mixture.styles)}" if in_styles else ""
    return f"{what}{style}{_data_of(prepared_dir)}"


def _data_of(prepared_dir: str | AnyPath) -> str:
    """--data of all that was prepared there, as an argument."""
    return f" --data={token_store.data_of(prepared_dir)}"


def _info(store: TokenStore, prepared_dir: str | AnyPath, fingerprint: str, part: parts.Part) -> Mapping[str, Any]:
    """The info of a part's tokens."""
    info = token_store.read_info(token_store.folder_of(prepared_dir, fingerprint, part.text_style) / part.dataset)
    # If the info is missing or has an old form, opening the tokens says why.
    says = info and isinstance(info.get("num_records"), int) and isinstance(info.get("digest"), str)
    return info if says else store[part.dataset].info


def _refuse_half(chosen: Sequence[parts.Part], there: Mapping[str, set[str]], prepared_dir: str | AnyPath) -> None:
    missing: dict[str, list[str]] = {}
    for part in chosen:
        if part.dataset not in there[part.style]:
            missing.setdefault(part.style, []).append(part.dataset)
    if not missing:
        return
    style, names = next(iter(missing.items()))
    has = [
        one for one in there if any(p.dataset == names[0] and p.style == one and names[0] in there[one] for p in chosen)
    ]
    every = list(dict.fromkeys(name for of_style in missing.values() for name in of_style))
    raise FlanError(
        f"dataset {names[0]} is prepared in {', '.join(has) or 'no style'}, and not in {style}"
        + (f"; {len(every) - 1} more lack a style too" if len(every) > 1 else "")
        + f". Run python -m flan_jax.prepare --datasets={','.join(every)} --style={','.join(missing)}"
        f"{_data_of(prepared_dir)} --vocabulary=CHECKPOINT/vocabulary --to={prepared_dir}, "
        "or leave the part out by a weight of 0."
    )


def _refuse_other_records(
    chosen: Sequence[parts.Part], found: Mapping[str, Mapping[str, Any]], prepared_dir: str | AnyPath
) -> None:
    """Refuses a dataset whose styles were prepared from different records: its rates would be those of one style."""
    first: dict[str, parts.Part] = {}
    for part in chosen:
        one = first.setdefault(part.dataset, part)
        says = [[info.get("num_records"), info.get("records_digest")] for info in (found[one.name], found[part.name])]
        if says[0] != says[1]:
            raise FlanError(
                f"dataset {part.dataset} in {prepared_dir} has other records in {part.style} than in {one.style}: "
                f"run python -m flan_jax.prepare --datasets={part.dataset} --style={one.style},{part.style}"
                f"{_data_of(prepared_dir)} --overwrite --vocabulary=CHECKPOINT/vocabulary --to={prepared_dir}."
            )


def separators(prepared: Prepared, tokenizer: Tokenizer, encoder_decoder: bool) -> dict[str, int]:
    """The token between input and target, for parts where it is not EOS.

    Raises:
      FlanError: the model has an encoder, which reads inputs separately; or a line break is not one token in all
        contexts, so that an answer after it has other tokens than alone; or a line break is asked for where a chat
        template wrote the text.
    """
    names = [m.part for m in prepared.composition.members if m.joint == protocol.NEWLINE]
    if encoder_decoder and prepared.separators:
        raise FlanError(
            f"{next(iter(prepared.separators))} was written by a chat template, and this model has an encoder, which "
            "reads inputs separately: prepare it without --chat."
        )
    if both := [name for name in names if name in prepared.separators]:
        raise FlanError(
            f"JOINTS: {both[0]} was written by a chat template, which says what stands there: leave it out."
        )
    if not names:
        return dict(prepared.separators)
    if encoder_decoder:
        raise FlanError(
            f"JOINTS: {names[0]} has 'newline', and this model has an encoder, which reads inputs separately."
        )
    alone = tokenizer.encode(["\n"])[0]
    texts = tokenizer.encode([f"Is it so?\n{probe}" for probe in _PROBES])
    apart = [[*tokenizer.encode(["Is it so?"])[0], *alone, *ids] for ids in tokenizer.encode(list(_PROBES))]
    if len(alone) != 1 or list(map(list, texts)) != apart:
        raise FlanError(
            f"JOINTS: {names[0]} has 'newline', and this vocabulary writes an answer after a line break in other "
            "tokens than by itself: leave 'eos' between them."
        )
    return prepared.separators | dict.fromkeys(names, int(alone[0]))


def open_mixture(
    mixture: str | Mapping[str, Any] | parts.Mixture,
    prepared_dir: str | AnyPath,
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    rows_per_batch: int = ROWS_PER_BATCH,
    lengths: Mapping[str, int] = LENGTHS,
    encoder_decoder: bool = False,
    loss_averaging: str = PER_TOKEN,
    loss_on_inputs: bool = False,
    datasets: Collection[str] = (),
) -> tuple[mixtures.Composition, Stream]:
    """Opens the prepared datasets of a mixture.

    Args:
      mixture: see `parts.of`: a name, with or without a style at its end, a file or a dictionary.
      prepared_dir: PREPARED_DIR.
      tokenizer: the model's vocabulary.
      seed: the seed of the stream.
      rows_per_batch: rows of a step.
      lengths: lengths of "inputs" and "targets" in tokens. A decoder's row holds both; an encoder-decoder has a row for
        each.
      encoder_decoder: whether rows have an encoder's and a decoder's side.
      loss_averaging: the weights of targets, one of `values.LOSS_AVERAGES`.
      loss_on_inputs: whether a decoder's inputs have a loss too; every slot of its rows is then a target slot.
      datasets: only these of its datasets; by default all.

    Returns:
      What the mixture consists of, and its stream.

    Raises:
      FlanError: an unknown mixture, a dataset that is not in it or is not prepared in one of its styles, nothing
        prepared, or a loss on an encoder's inputs.
    """
    row_length, target_length = capacities(lengths["inputs"], lengths["targets"], encoder_decoder, loss_on_inputs)
    prepared = composed(mixture, prepared_dir, tokenizer.fingerprint, datasets)
    composition = prepared.composition
    stream = Stream(
        prepared.tokens(),
        composition.rates,
        seed=seed,
        row_length=row_length,
        target_length=target_length,
        rows_per_batch=rows_per_batch,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        encoder_decoder=encoder_decoder,
        loss_averaging=loss_averaging,
        loss_on_inputs=loss_on_inputs,
        loss_weights=composition.loss_weights,
        separators=separators(prepared, tokenizer, encoder_decoder),
        examples=prepared.mixture.examples,
    )
    return composition, stream
