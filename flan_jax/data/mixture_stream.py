"""A prepared mixture opened for reading: what it consists of, and its stream. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from flan_jax import catalog, own_data, protocol, styles
from flan_jax.data import mixtures, token_store
from flan_jax.data.stream import ROWS_PER_BATCH, Stream
from flan_jax.data.token_store import TokenStore
from flan_jax.data.vocabularies import Tokenizer
from flan_jax.errors import FlanError, unknown_name
from flan_jax.files import AnyPath

LENGTHS = {"inputs": protocol.MAX_INPUT_TOKENS, "targets": protocol.MAX_TARGET_TOKENS}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a mixture consists of here, without its tokens.

    Attributes:
      composition: its datasets.
      digests: of all that is stored of each, by dataset.
      store: where their tokens are.
    """

    composition: mixtures.Composition
    digests: dict[str, str]
    store: TokenStore


def composed(mixture: str, prepared_dir: str | AnyPath, fingerprint: str, datasets: Collection[str] = ()) -> Prepared:
    """What a mixture consists of here, from what its datasets say of themselves; their tokens are not read.

    Args:
      mixture: its name, with or without a style at its end.
      prepared_dir: PREPARED_DIR.
      fingerprint: the vocabulary's.
      datasets: only these of its datasets; all by default.

    Raises:
      FlanError: as `open_mixture`.
    """
    own_data.use(prepared_dir)
    base, style = styles.split_name(mixture)
    members = [record.name for record in catalog.mixture(base)]
    for name in datasets:
        if name not in members:
            raise unknown_name(f"dataset of mixture {mixture!r}", name, members)
    store = TokenStore.open(prepared_dir, fingerprint, style)
    there = datasets or store.names
    wanted = [name for name in members if name in there]
    if not wanted:
        raise FlanError(
            f"mixture {mixture!r}: {prepared_dir} holds none of its datasets for this vocabulary; "
            f"run python -m flan_jax.prepare --mixture={mixture} --to={prepared_dir}."
        )
    folder = token_store.folder_of(prepared_dir, fingerprint, style)
    found = {}
    for name in wanted:
        info = token_store.read_info(folder / name)
        # What says nothing of itself, or not as today, says why when it is opened.
        says = info and isinstance(info.get("num_records"), int) and isinstance(info.get("digest"), str)
        found[name] = info if says else store[name].info
    composition = mixtures.composition(mixture, {name: int(info["num_records"]) for name, info in found.items()})
    return Prepared(composition, {name: str(info["digest"]) for name, info in found.items()}, store)


def open_mixture(
    mixture: str,
    prepared_dir: str | AnyPath,
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    rows_per_batch: int = ROWS_PER_BATCH,
    lengths: Mapping[str, int] = LENGTHS,
    encoder_decoder: bool = False,
    datasets: Collection[str] = (),
) -> tuple[mixtures.Composition, Stream]:
    """Opens those of a mixture's datasets that are prepared.

    Args:
      mixture: its name, with or without a style at its end.
      prepared_dir: PREPARED_DIR.
      tokenizer: the model's vocabulary.
      seed: of the stream.
      rows_per_batch: rows of a step.
      lengths: of "inputs" and "targets", in tokens. A decoder's row has both together; an encoder-decoder's two rows
        have one each.
      encoder_decoder: whether rows have an encoder's and a decoder's side.
      datasets: only these of its datasets; all by default.

    Raises:
      FlanError: an unknown mixture, a dataset that is not in it or not there, or nothing of it is there.
    """
    prepared = composed(mixture, prepared_dir, tokenizer.fingerprint, datasets)
    composition = prepared.composition
    stream = Stream(
        prepared.store,
        composition.rates,
        seed=seed,
        row_length=lengths["inputs"] + (0 if encoder_decoder else lengths["targets"]),
        target_length=lengths["targets"],
        rows_per_batch=rows_per_batch,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        encoder_decoder=encoder_decoder,
    )
    return composition, stream
