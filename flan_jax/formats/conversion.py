"""Converts from any format to any other: opens a source, carries its manifest over, and writes one tensor at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from flan_jax import catalog, models
from flan_jax.checkpoint import stored
from flan_jax.checkpoint.manifest import DECLARED, UNKNOWN, UNTUNED, Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError, StorageError, unknown_name
from flan_jax.files import AnyPath, is_remote, ready, remove_folder, whole_folder, written
from flan_jax.formats import gguf, huggingface, native, peft, t5x
from flan_jax.formats.names import HUGGINGFACE, MAX_POSITIONS, NATIVE, PEFT, T5X
from flan_jax.formats.source import Source, leaves, of_tree


def declared(tuning: str) -> tuple[str, tuple[str, ...]]:
    """What the importer says about earlier tuning: (status, clusters).

    Args:
      tuning: "untuned", "unknown", "all", or names of clusters separated by commas.

    Raises:
      FlanError: it is none of these.
    """
    if tuning in ("untuned", "unknown"):
        return (UNTUNED if tuning == "untuned" else UNKNOWN), ()
    if tuning == "all":
        return DECLARED, tuple(sorted(cluster.name for cluster in catalog.clusters()))
    names = {name.strip() for name in tuning.split(",")}
    clusters = [cluster.name for cluster in catalog.clusters()]
    if unknown := sorted(names - {*clusters, catalog.UNKNOWN_CLUSTER.name}):
        raise unknown_name("tuning", unknown[0], ("untuned", "unknown", "all", *clusters))
    return DECLARED, tuple(sorted(names))


def random(config: models.DecoderConfig, name: str) -> Source:
    """Random parameters with the byte vocabulary, made one layer's tensor at a time. They are the same each time."""
    # A model with one layer has the same shapes and scales. Of its arrays, XLA only makes the one that is asked for.
    one = models.build(dataclasses.replace(config, num_layers=1, num_encoder_layers=min(1, config.num_encoder_layers)))
    seed = jax.random.key(0)
    traced, shapes = jax.make_jaxpr(one.init, return_shape=True)(seed)
    places = {tuple(k.key for k in path): i for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(shapes))}

    @functools.cache
    def made(path: tuple[str, ...]) -> Callable[[jax.Array], jax.Array]:
        return jax.jit(lambda key: jaxpr_as_fun(traced)(key)[places[path]])

    def tensor(path: tuple[str, ...], layer: int | None) -> np.ndarray:
        number = 0 if layer is None else 1 + layer
        found = np.asarray(made(path)(jax.random.fold_in(seed, number)))
        return found if layer is None else found[0]

    return Source(config, tensor, vocabularies.ByteTokenizer(), f"random {name}")


def open_source(
    path: AnyPath,
    config: models.DecoderConfig | None = None,
    vocabulary: str | None = None,
    step: int | None = None,
    which: str = stored.PARAMS,
) -> Source:
    """Opens a GGUF file, a folder of transformers or T5X, or one of our checkpoint folders.

    Args:
      path: the file or folder.
      config: the shape, if the format does not hold it (T5X).
      vocabulary: the vocabulary, if the format does not hold it; see `vocabularies.load`.
      step: the step of our own checkpoint folder; None takes the last.
      which: its last parameters or their mean, one of `values.WEIGHTS`.

    Raises:
      FlanError: it is none of these, is broken or not supported, or something that its format lacks was not given.
    """
    checkpoint = t5x.locate(path) if not is_remote(path) and path.is_dir() else None
    if step is not None and not _is_ours(path, checkpoint):
        raise FlanError(f"{path} is no checkpoint folder of FLAN-JAX with several steps: leave --step={step} out.")
    if which != stored.PARAMS and not _is_ours(path, checkpoint):
        raise FlanError(f"{path} is no checkpoint folder of FLAN-JAX with a mean of parameters: leave {which} out.")
    if checkpoint is not None:
        return _open_t5x(checkpoint, config, vocabulary)
    if config is not None or vocabulary is not None:
        option = "--model" if config is not None else "--vocabulary"
        raise FlanError(f"{path} is no T5X checkpoint and brings its own shape and vocabulary: leave {option} out.")
    if path.is_file():
        found = gguf.read(path)
        return Source(found.config, of_tree(found.params), found.tokenizer, f"{found.name} ({path.name})")
    if (path / "config.json").is_file():
        return huggingface.read(path)
    if (path / "manifest.json").is_file():
        return native.read(path, step, which)
    if path.parent.name == "checkpoints" and (path.parents[1] / "manifest.json").is_file():
        raise FlanError(f"{path} is a step of {path.parents[1]}: give that folder, and --step={path.name}.")
    raise FlanError(
        f"{path} is no folder that can be converted: there is no config.json (transformers), no checkpoint_<step> "
        "(T5X) and no manifest.json (FLAN-JAX) in it."
    )


def _is_ours(path: AnyPath, checkpoint: AnyPath | None) -> bool:
    """Whether `open_source` takes this for our checkpoint folder.

    Folders in other formats may have our manifest beside them.
    """
    others = checkpoint is not None or path.is_file() or (path / "config.json").is_file()
    return not others and (path / "manifest.json").is_file()


def _open_t5x(checkpoint: AnyPath, config: models.DecoderConfig | None, vocabulary: str | None) -> Source:
    beside = next((f for f in (checkpoint, checkpoint.parent) if (f / "manifest.json").is_file()), None)
    if beside is not None:  # we wrote it
        if config is not None or vocabulary is not None:
            raise FlanError(
                f"{beside}/manifest.json has the shape and the vocabulary: leave --model and --vocabulary out."
            )
        manifest = Manifest.load(beside)
        config = models.DecoderConfig.from_dict(manifest.model)
        return t5x.read(checkpoint, config, manifest.load_vocabulary(beside), manifest)
    if config is None or vocabulary is None:
        raise FlanError(
            f"{checkpoint} of T5X says neither its shape nor its vocabulary: add --model=NAME (one of gin/models) and "
            "--vocabulary=FILE (a SentencePiece .model, or bytes)."
        )
    tokenizer = vocabularies.load(vocabulary)
    vocabularies.check_fits(tokenizer, config.vocab_size, f"--vocabulary={vocabulary}")
    return t5x.read(checkpoint, config, tokenizer)


def manifest_of(source: Source, tuning: str | None, to: str, origin: AnyPath | None = None) -> Manifest:
    """The manifest of a conversion's result: the source's own if it has one, otherwise a declared one.

    Args:
      source: the model.
      tuning: see `declared`; None says nothing.
      to: the format.
      origin: what it was read from. The name of a folder of transformers is kept as `folder`, for `flan_jax.verify`.
        Its place is not kept, because manifests are passed on.

    Raises:
      FlanError: `tuning` contradicts the source's manifest.
    """
    of_transformers = origin is not None and (origin / "config.json").is_file()
    folder = {"folder": origin.absolute().name} if of_transformers else {}
    if source.manifest is None:
        status, clusters = declared("unknown" if tuning is None else tuning)
        record = {"imported": source.name, "tuning as declared": tuning or "unknown"} | folder
        record |= {"format": to} if to != NATIVE else {}
        record |= {MAX_POSITIONS: source.max_positions} if source.max_positions else {}
        return Manifest.create(source.config, source.tokenizer, status, clusters, record)
    known = source.manifest.tuning
    if tuning is not None:
        status, clusters = declared(tuning)
        if (status, list(clusters)) != (known["status"], known["clusters"]) or known["datasets"]:
            says = " ".join([known["status"], ", ".join(known["clusters"])]).strip()
            raise FlanError(f"{source.name} has a manifest, which says {says!r}: leave --tuning={tuning} out.")
    return source.manifest.recorded({"converted": source.name, "format": to} | folder, source.tokenizer)


def check_destination(to: AnyPath, overwrite: bool, source: AnyPath | None = None) -> None:
    """Refuses to replace what must not be lost.

    Args:
      to: the folder to make.
      overwrite: whether an existing checkpoint folder may be replaced.
      source: what is read; None if it has no path.

    Raises:
      FlanError: `to` is a file; or a folder with content that was not made here or must stay; or the source, or a
        folder that holds the source.
    """
    with written(to, "make the folder"):
        if to.exists() and not to.is_dir():
            raise FlanError(f"{to} is a file: give a folder as --to.")
    ready(to / "manifest.json")
    if to.exists() and any(to.iterdir()):
        if not (is_ours := (to / "manifest.json").is_file()) and not overwrite:
            raise FlanError(f"{to} is not empty, and no checkpoint folder: give another --to, a folder that is new.")
        if not overwrite:
            raise FlanError(f"{to} is not empty: give another --to, or --overwrite to replace it.")
        if source is not None and type(source) is type(to):
            read, made = (one if is_remote(one) else one.resolve() for one in (source, to))
            if str(read) == str(made) or str(read).startswith(f"{str(made).rstrip('/')}/"):
                raise FlanError(f"{to} is read here, and what it holds would be lost: give another --to.")
        if not is_ours:  # anything else must not be lost by a typing error
            raise FlanError(f"{to} is no checkpoint folder, which --overwrite would replace: give another --to.")


def write(
    source: Source,
    to: AnyPath,
    manifest: Manifest,
    form: str = NATIVE,
    dtype: str = "float32",
    optimizer: t5x.OptimizerState | None = None,
    scanned: bool = False,
    adapters: Mapping[str, Any] | None = None,
    base: str = "",
) -> Mapping[str, Any]:
    """Writes a folder, whole or not at all.

    Args:
      source: the model.
      to: the folder; an existing one is replaced, see `check_destination`.
      manifest: the manifest of the result.
      form: one of `names.FORMATS`.
      dtype: dtype of the weights in "huggingface"; the other two are float32.
      optimizer: what T5X keeps besides the parameters, for "t5x".
      scanned: whether layers are stacked in "t5x".
      adapters: adapters, which are all that is written as "peft".
      base: the name of the model that they change.

    Returns:
      A summary of what was written.

    Raises:
      FlanError: the source is damaged, or the format has no such model; `to` is then unchanged.
    """
    with _in_place_of(to, form) as building:
        if form == HUGGINGFACE:
            huggingface.write(source, building, dtype)
            manifest.save(building)
        elif form == PEFT:
            peft.write(source, adapters, base, building)
            manifest.save(building)
        elif form == T5X:
            optimizer = t5x.OptimizerState(source.step, {}) if optimizer is None else optimizer
            t5x.write(source, building / f"checkpoint_{optimizer.step}", optimizer, scanned)
            source.tokenizer.save(building / "vocabulary")
            manifest.save(building)
        else:
            native.write(source, manifest, building)
    count = sum(leaf.size for leaf in leaves(source.config))
    if form == PEFT:
        count = sum(x.size for x in jax.tree.leaves(adapters))
    return {
        "checkpoint": str(to),
        "format": form,
        "model": source.name,
        "parameters": count,
        "tuning": manifest.tuning,
    }


@contextlib.contextmanager
def _in_place_of(to: AnyPath, form: str) -> Iterator[AnyPath]:
    """A folder to write, which replaces `to` at the end.

    On object storage our own format is written directly, since it may be larger than a disk. Its manifest comes last;
    without it the folder is no checkpoint. Other formats are made on this machine and uploaded.
    """
    if not is_remote(to):
        building = to.absolute().with_name(f".{to.absolute().name}.{os.getpid()}")
        try:
            with written(to):
                building.mkdir(parents=True)
                yield building
                remove_folder(to)
                building.rename(to)
        finally:
            remove_folder(building)
    elif form != NATIVE:
        with whole_folder(to, last="manifest.json") as building:
            yield building
    else:
        (to / "manifest.json").unlink(missing_ok=True)
        remove_folder(to)
        try:
            with written(to):
                yield to
        except BaseException:
            with contextlib.suppress(StorageError):
                remove_folder(to)
            raise
