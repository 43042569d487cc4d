"""Kinds of values for the weights, styles and rates of a mixture."""

from __future__ import annotations

import dataclasses
from typing import Any

from flan_jax import catalog, styles
from flan_jax.catalog import ALL
from flan_jax.errors import FlanError
from flan_jax.protocol import EOS, NEWLINE
from flan_jax.values import ByName, Either, Keyed, Named, Number, OneOf, Several, Unfit, Whole, or_none

OF = ":"  # between dataset and style in the name of a part
TRAINED_JOINTS = (EOS, NEWLINE)  # what can stand between input and target in tuning
_LEAST, _MOST = 1e-6, 1e6  # limits of a weight that is not 0


@dataclasses.dataclass(frozen=True)
class _Weight:
    """A weight: 0, or a number between the least and the most."""

    wanted: str = f"0, or a number from {_LEAST:g} to {_MOST:g}"

    def fit(self, value: Any) -> float:
        """See `values.Kind`."""
        found = Number(least=0, most=_MOST).fit(value)
        if 0 < found < _LEAST:
            raise Unfit
        return found


def _known(name: str) -> None:
    """Raises a FlanError if a name in weights fits nothing that exists."""
    head, of, style = name.partition(OF)
    if head not in (ALL, catalog.UNKNOWN_CLUSTER.name):  # a user's own data may be of an unknown cluster
        catalog.named(head)
    if of:
        styles.parse(style)


def split_of(name: str) -> tuple[str, str | None]:
    """Splits a name in "of" into a dataset, cluster or mixture, and the style in it, if any, as in "rte:5_shots".

    Raises:
      FlanError: there is no such dataset, cluster or mixture.
    """
    base, of, style = name.partition(OF)
    if of:
        _known_of(base)
        return base, styles.parse(style).name
    try:
        _known_of(name)
        return name, None
    except FlanError:
        base, named = styles.split_name(name)
        if base == name:
            raise
    _known_of(base)
    return base, named.name


def _known_of(name: str) -> None:
    try:
        catalog.named(name)
    except FlanError:
        catalog.mixture(name)


_ABOVE_0 = Number(least=_LEAST, most=_MOST)
_STYLE = Named(styles.parse, "a style, such as 'instructions' or '5_shots'")
_NAMED = Named(_known, "the name of a dataset, a cluster or a part, as 'rte:5_shots'")
_CAP = or_none(Whole(1), "all examples count")
_EXAMPLES = or_none(Whole(1), "all of them are drawn from")
_TEMPERATURE = Number(least=0.1, most=1e6)

STYLES = or_none(Either((ByName(_STYLE, _ABOVE_0), Several(_STYLE))), "the one at the end of the name")
WEIGHTS = or_none(ByName(_NAMED, _Weight()), "1 for all")
RATES = or_none(
    Keyed({"cap": _CAP, "temperature": _TEMPERATURE, "examples": _EXAMPLES}), "by examples, of which 3,000 count"
)
LOSS_WEIGHTS = or_none(ByName(_NAMED, _ABOVE_0), "1 for all")
JOINT = OneOf(TRAINED_JOINTS)
JOINTS = or_none(Either((JOINT, ByName(_NAMED, JOINT))), "'eos' for all")
BY_KEY = {
    "styles": STYLES,
    "weights": WEIGHTS,
    "rates": RATES,
    "loss_weights": LOSS_WEIGHTS,
    "joints": JOINTS,
}
ENTRY = Keyed(
    {
        "of": Named(split_of, "the name of a dataset, a cluster or a mixture"),
        "style": _STYLE,
        "rate": _ABOVE_0,
        "weight": _ABOVE_0,
        "loss_weight": _ABOVE_0,
        "joint": JOINT,
    }
)
