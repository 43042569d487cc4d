"""What part of a model is trained, and how: the optimizer, and what is done around it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import optax

from flan_jax import models, partitioning
from flan_jax.errors import FlanError
from flan_jax.models import costs, lora, nested, prompt
from flan_jax.training import by_name
from flan_jax.training.described import describe
from flan_jax.training.optimizers import layout, patterns
from flan_jax.training.optimizers.factored import adafactor
from flan_jax.training.optimizers.kinds import Known, Optimizer, differing, for_parameters


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters that are trained in place of the parameters; see `models.lora`.

    Attributes:
      rank: the rank of each adapter.
      alpha: the adapters are scaled by alpha / rank.
      targets: patterns (`patterns.matches`) of the projections in layers that get an adapter.
    """

    rank: int = lora.RANK
    alpha: float = lora.ALPHA
    targets: tuple[str, ...] = lora.TARGETS


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What part of a model is trained, and how.

    Attributes:
      optimizer: the optimizer; None is Adafactor as in the paper.
      clip_norm: largest global norm of the gradient; a larger gradient is scaled down to it. None sets no limit.
      frozen: patterns (`patterns.matches`) of parameters that stay as they are. They have no gradient, no part in its
        norm, and no state of the optimizer.
      ema_decay: d in the mean of parameters over steps, d x mean + (1 - d) x parameters. The mean begins with the
        parameters of step 0. None for no mean.
      lora: adapters, which are then all that is trained; None for none.
      prompt_length: slots of a soft prompt (`models.prompt`), which is then all that is trained; None for none.
    """

    optimizer: Optimizer | None = None
    clip_norm: float | None = None
    frozen: tuple[str, ...] = ()
    ema_decay: float | None = None
    lora: Lora | None = None
    prompt_length: int | None = None

    def __post_init__(self) -> None:
        if self.lora is not None and self.frozen:
            raise FlanError("LORA trains adapters, and nothing else: leave FROZEN out.")
        if self.prompt_length is not None and (self.frozen or self.lora is not None):
            raise FlanError("PROMPT_LENGTH trains a soft prompt, and nothing else: leave FROZEN and LORA out.")

    @property
    def keeps_base(self) -> bool:
        """Whether checkpoints hold only what is trained, and name the model that it changes."""
        return self.lora is not None or self.prompt_length is not None

    @classmethod
    def of(cls, optimizer: Optimizer | Tuning | None) -> Tuning:
        """Training of all parameters with this optimizer alone. A `Tuning` is returned as it is."""
        return optimizer if isinstance(optimizer, Tuning) else cls(optimizer)

    @property
    def is_partial(self) -> bool:
        """Whether some parameters are not trained."""
        return bool(self.frozen) or self.keeps_base

    @property
    def made(self) -> Optimizer:
        """The optimizer."""
        return adafactor() if self.optimizer is None else self.optimizer

    @property
    def description(self) -> dict[str, Any]:
        """The description for run.json: the optimizer, and all other settings that are not at their defaults."""
        around = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        defaults = {field.name: field.default for field in dataclasses.fields(self)[1:]}
        return describe(self.made) | differing(around, defaults)

    def adapted(self, model: models.Model) -> models.Model:
        """The model that is trained: with adapters, if there are any.

        Raises:
          FlanError: a pattern of the adapters fits no projection.
        """
        if self.prompt_length is not None:
            return prompt.prompted(model, self.prompt_length)
        if self.lora is None:
            return model
        known = lora.kernels(model)
        lenient = self.lora.targets == lora.TARGETS
        found = patterns.chosen("LORA", self.lora.targets, known, lenient)
        if not found:
            raise FlanError(f"LORA: targets {list(self.lora.targets)!r} leave no projection: take a pattern out.")
        return lora.adapted(model, self.lora.rank, self.lora.alpha, tuple(path for path in known if path in found))

    def check(self, train_steps: int | None, params: Any, logical_axes: Any) -> None:
        """Checks that it fits a run and a model.

        Args:
          train_steps: steps of the run; None if unknown.
          params: all parameters, as shapes.
          logical_axes: their logical axes.

        Raises:
          FlanError: a warm-up or schedule that does not fit the steps, patterns that do not fit the model, or an
            optimizer that cannot take a step.
        """
        if isinstance(self.made, Known) and train_steps is not None:
            said = self.made.description
            if (warmup := said.get("warmup_steps") or 0) > train_steps:
                raise FlanError(
                    f"WARMUP_STEPS {warmup} is more than TRAIN_STEPS {train_steps}: the learning rate would never be "
                    f"reached; give WARMUP_STEPS of at most {train_steps}."
                )
            schedule = said.get("schedule") or {}
            if (steps := schedule.get("steps")) is not None and steps < train_steps:
                raise FlanError(
                    f"the learning rate's schedule {schedule['name']!r} ends after {steps} steps, before TRAIN_STEPS "
                    f"{train_steps}: give it steps={train_steps}."
                )
        tx, wanted = for_parameters(self, logical_axes), self.trained(logical_axes)
        if not isinstance(self.made, Known) or self.made.foreign:
            gradients = params if wanted is None else nested.part(params, wanted)
            with _failing():
                updates, _ = jax.eval_shape(tx.update, gradients, jax.eval_shape(tx.init, params), params)
                shapes = [jax.tree.map(lambda x: x.shape, tree) for tree in (updates, gradients)]
            if shapes[0] != shapes[1]:
                raise FlanError("OPTIMIZER: the updates that it gives have other names or shapes than the parameters.")

    def shares(self, model: models.Model) -> costs.Shares | None:
        """The share of a model's weights that is trained; None if all are. `model` comes from `adapted`."""
        trained = self.trained(model.logical_axes())
        return None if trained is None else costs.shares(model.config, trained)

    def trained(self, logical_axes: Any) -> frozenset[nested.Path] | None:
        """The paths of the parameters that are trained; None for all.

        Raises:
          FlanError: a pattern fits no parameter, or no parameter is left.
        """
        if not self.is_partial:
            return None
        known = nested.paths(logical_axes)
        if self.prompt_length is not None:
            return frozenset(path for path in known if prompt.SOFT in path)
        if self.lora is not None:
            return frozenset(path for path in known if path[-1] in lora.TRAINED)
        found = frozenset(known) - patterns.chosen("FROZEN", self.frozen, known)
        if not found:
            raise FlanError(
                f"FROZEN {list(self.frozen)!r} leaves no parameter to train: take a pattern out, or add one that "
                'begins with "!", as "!mlp", for what is to be trained after all.'
            )
        return found

    def __call__(self, logical_axes: Any) -> optax.GradientTransformation:
        """The transformation. Its `init` takes all parameters, its `update` the gradients of those that are trained."""
        wanted = self.trained(logical_axes)
        if wanted is not None and isinstance(self.made, Known):
            tx = self.made(nested.part(logical_axes, wanted), logical_axes)
        else:
            tx = for_parameters(self.made, logical_axes if wanted is None else nested.part(logical_axes, wanted))
        if self.clip_norm is not None:
            tx = optax.chain(optax.clip_by_global_norm(self.clip_norm), tx)
        if wanted is None:
            return tx

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return tx.update(updates, state, None if params is None else nested.part(params, wanted))

        return optax.GradientTransformation(lambda params: tx.init(nested.part(params, wanted)), update)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """A block that calls an optimizer of another library or of the user."""
    try:
        yield
    except FlanError:
        raise
    except Exception as error:
        raise by_name.failed("OPTIMIZER: tracing a step of it", error) from error


def state_shardings(
    mesh: jax.sharding.Mesh, optimizer: Optimizer, params: Mapping[str, Any], logical_axes: Mapping[str, Any]
) -> Any:
    """The NamedSharding of every array of an optimizer's state, as the optimizer declares it; see `layout`.

    Args:
      mesh: the devices.
      optimizer: the optimizer, or a `Tuning`.
      params: all parameters, as shapes.
      logical_axes: their logical axes.
    """
    state = jax.eval_shape(for_parameters(optimizer, logical_axes).init, params)
    return partitioning.along_shardings(mesh, layout.along(state, params, logical_axes), state)


def rate(optimizer: Optimizer | Tuning, step: int) -> float | None:
    """The learning rate after so many steps; None if the optimizer does not report it."""
    made = Tuning.of(optimizer).made
    return float(made.rate(step)) if isinstance(made, Known) and made.rate is not None else None
