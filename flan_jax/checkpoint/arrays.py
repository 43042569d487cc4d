"""Reads the arrays of a checkpoint folder, `checkpoints/<step>/`, by Orbax, and compares them with what was saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from flan_jax import distributed, models, partitioning
from flan_jax.checkpoint import adapters, choosing, saved_digests, saving, stored
from flan_jax.checkpoint.manifest import Manifest
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError, StorageError
from flan_jax.files import (
    AnyPath,
)
from flan_jax.models import lora, nested, prompt


def _with_shardings(abstract: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


def restore_params(
    model_dir: str | AnyPath,
    abstract_params: Any,
    shardings: Any,
    step: int | None = None,
    how: str = choosing.STEP,
    which: str = stored.PARAMS,
) -> Any:
    """Reads the parameters, each leaf onto the devices of its sharding.

    Args:
      model_dir: a checkpoint folder.
      abstract_params: shapes and dtypes.
      shardings: a tree of shardings like it.
      step: the step; None takes the last.
      how: how the user can choose another step, for error messages: `choosing.STEP` or `choosing.START`.
      which: the last parameters or their mean, one of `values.WEIGHTS`.

    Raises:
      FlanError: there is no such checkpoint, it does not fit, or an array has changed since it was saved.
    """
    chosen = choosing.chosen_step(model_dir, step)
    if (base := adapters.load(model_dir)) is not None:
        return _adapted(model_dir, base, abstract_params, shardings, chosen, how, which)
    wanted = {stored.PARAMS: (abstract_params, shardings)}
    if which != stored.PARAMS:
        averaged = distributed.decided(lambda: sorted(stored.averaged(model_dir, chosen)))
        part = {tuple(name.split("/")) for name in averaged}
        mean = tuple(nested.part(tree, part) for tree in (abstract_params, shardings))
        wanted = {stored.EMA: mean} if part == {*nested.paths(abstract_params)} else wanted | {stored.EMA: mean}
    items = {item: abstract for item, (abstract, _) in wanted.items()}
    with (
        choosing.explained(model_dir, chosen, tuple(wanted), how=how, wanted=items),
        contextlib.closing(saving.manager(model_dir)) as manager,
    ):
        with _readable(model_dir, chosen):
            asked = {item: ocp.args.StandardRestore(_with_shardings(*pair)) for item, pair in wanted.items()}
            found = manager.restore(chosen, args=ocp.args.Composite(**asked))
            trees = {item: found[item] for item in wanted}
        saved_digests.verify(model_dir, chosen, trees)
    return next(iter(trees.values())) if len(trees) == 1 else nested.merged(*trees.values())


def _adapted(
    model_dir: str | AnyPath, base: adapters.Base, abstract: Any, shardings: Any, step: int, how: str, which: str
) -> Any:
    """The parameters of a model with its adapters merged in."""
    where = distributed.decided(lambda: str(base.check()))
    with choosing.explained(model_dir, step, (stored.ADAPTERS,), how):
        saved = saved_digests.read(model_dir, step) or {}
    items = (stored.ADAPTERS,)
    if which == stored.EMA:
        stored.averaged(model_dir, step)  # or reports that there is none
        items += (stored.EMA,)
    own = [path for path in nested.paths(abstract) if not lora.is_adapter(path)]
    params = restore_params(where, nested.part(abstract, own), nested.part(shardings, own), base.step, how)
    whole = jax.sharding.NamedSharding(jax.tree.leaves(shardings)[0].mesh, jax.sharding.PartitionSpec())
    wanted = {}
    for item in items:
        shapes: dict[str, Any] = {}
        for name, one in saved.get(item, {}).items():
            shapes = nested.merged(shapes, nested.at(name.split("/"), jax.ShapeDtypeStruct(one.shape, one.dtype)))
        wanted[item] = shapes, jax.tree.map(lambda _: whole, shapes)
    if any(prompt.SOFT in path for path in nested.paths(wanted[stored.ADAPTERS][0])) != (own != nested.paths(abstract)):
        raise FlanError(
            f"{model_dir} holds a soft prompt, which is no part of a model's own parameters: give {where}, to which it "
            "belongs."
        )
    found = restore_items(model_dir, wanted, step)

    def taken_in(params: Any, *beside: Any) -> Any:
        return lora.merged(nested.merged(params, *beside))

    return jax.jit(taken_in, out_shardings=shardings, donate_argnums=0)(params, *found.values())


def restore_training(
    model_dir: str | AnyPath, abstract: tuple[Any, Any], shardings: tuple[Any, Any], step: int | None = None
) -> tuple[int, Any, Any]:
    """Reads (step, params, opt_state).

    Args:
      model_dir: a checkpoint folder.
      abstract: shapes and dtypes of the two.
      shardings: trees of shardings like them.
      step: the result of `choose_step`; None takes the last.

    Raises:
      FlanError: there is no checkpoint, it does not fit, or an array has changed since it was saved.
    """
    both = dict(zip((stored.PARAMS, stored.OPT_STATE), zip(abstract, shardings, strict=True), strict=True))
    chosen = choosing.chosen_step(model_dir, step)
    items = restore_items(model_dir, both, chosen)
    return chosen, items[stored.PARAMS], items[stored.OPT_STATE]


def restore_items(model_dir: str | AnyPath, wanted: Mapping[str, tuple[Any, Any]], step: int | None) -> dict[str, Any]:
    """Reads items of a training run's step.

    Args:
      model_dir: a checkpoint folder.
      wanted: for each item (`stored.ITEMS`), shapes and dtypes, and shardings.
      step: the result of `choose_step`; None takes the last.

    Raises:
      FlanError: there is no checkpoint, it does not fit, or an array has changed since it was saved.
    """
    chosen = choosing.chosen_step(model_dir, step)
    remedy = "give another folder, or start a new run from its parameters with INITIAL_CHECKPOINT_PATH"
    empty = {item: one for item, (one, _) in wanted.items() if not jax.tree.leaves(one)}  # an optimizer without a state
    wanted = {item: pair for item, pair in wanted.items() if item not in empty}
    abstract = {item: one for item, (one, _) in wanted.items()}
    with (
        choosing.explained(model_dir, chosen, tuple(wanted), choosing.TRAIN, abstract),
        contextlib.closing(saving.manager(model_dir)) as manager,
    ):
        with _readable(model_dir, chosen, remedy):
            asked = {item: ocp.args.StandardRestore(_with_shardings(*pair)) for item, pair in wanted.items()}
            found = manager.restore(chosen, args=ocp.args.Composite(**asked))
            items = {item: found[item] for item in wanted}
        saved_digests.verify(model_dir, chosen, items)
    return items | empty


@contextlib.contextmanager
def _readable(model_dir: str | AnyPath, step: int, remedy: str = "give another folder") -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # tensorstore and Orbax can raise anything
        raise FlanError(
            f"step {step} of {model_dir} cannot be read ({stored.reason(error)}): it is damaged, or was made with "
            f"another model or optimizer; {remedy}."
        ) from error


def load_model(
    model_dir: str | AnyPath,
    step: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    computation: Mapping[str, Any] | None = None,
    which: str = stored.PARAMS,
) -> tuple[models.Model, Any, vocabularies.Tokenizer, Manifest]:
    """Reads a checkpoint for use: model, parameters, vocabulary and manifest.

    Args:
      model_dir: a checkpoint folder.
      step: the step; None takes the last.
      mesh: where the parameters are laid out; None takes all devices.
      computation: fields of `models.config.COMPUTATION` that differ from the model's own.
      which: the last parameters or their mean, one of `values.WEIGHTS`.

    Raises:
      FlanError: the folder is no checkpoint, lacks the step or is damaged, or the model cannot be computed like this
        here.
    """
    manifest = Manifest.load(model_dir)
    tokenizer = manifest.load_vocabulary(model_dir)
    model = models.build(models.DecoderConfig.from_dict(manifest.model).computed(**(computation or {})))
    mesh = partitioning.make_mesh() if mesh is None else mesh
    models.refuse_attention(model.config.attention, mesh.devices.flat[0].platform)
    if adapters.load(model_dir) is not None:
        step = choosing.chosen_step(model_dir, step)
        with choosing.explained(model_dir, step, (stored.ADAPTERS,)):
            saved = saved_digests.read(model_dir, step) or {}
        if (soft := saved.get(stored.ADAPTERS, {}).get("/".join(prompt.PATH))) is not None:
            model = prompt.prompted(model, soft.shape[0])
    abstract = model.abstract_params()
    shardings = partitioning.parameter_shardings(mesh, model.logical_axes(), abstract)
    return model, restore_params(model_dir, abstract, shardings, step, which=which), tokenizer, manifest
