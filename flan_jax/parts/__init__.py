"""Mixtures as lists of parts: a part is a dataset in a style, with its weights. No TensorFlow, no JAX.

    parts.of("flan_without_nli")                                  a name: every dataset in one style
    parts.of("flan", styles={"instructions": 1, "5_shots": 1})    the draws of each dataset are divided among styles
    parts.of("flan", weights={"nli": 0, "rte": 2.0})              less of a cluster, more of a dataset
    parts.of("recipes/mine.json")                                 the mixture in a file

A file, or a dictionary in its place, has "mixture" (a name) or "parts" (a list). It can have further keys, each with
the meaning of the macro of that name in capitals: "styles", "weights", "rates", "loss_weights", "joints". An entry of
"parts" has "of" (a dataset, cluster or mixture) and may have "style", "rate", "weight", "loss_weight" and "joint".

Weights name clusters, datasets or parts ("nli", "rte", "rte:5_shots", "nli:5_shots", "all:5_shots"). If several names
fit a part, the most specific one counts: {"nli": 0, "rte": 1} keeps only rte of its cluster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import catalog, styles, values
from flan_jax.errors import FlanError, near_names
from flan_jax.parts import kinds, reading
from flan_jax.parts.kinds import ALL, OF
from flan_jax.protocol import EOS
from flan_jax.styles import TextStyle

_FEW = 3  # parts in the name of a mixture that has no name of its own


@dataclasses.dataclass(frozen=True)
class Part:
    """A dataset in a style, as a part of a mixture.

    Attributes:
      name: "rte", or "rte:5_shots" if the mixture has the dataset in several styles.
      dataset: the name of its dataset.
      style: the name of its style.
      weight: multiplies the rate; above 0.
      rate: replaces the rate that would follow from the number of examples; None does not.
      loss_weight: multiplies the loss of its target tokens.
      joint: what stands between input and target: "eos" or "newline".
    """

    name: str
    dataset: str
    style: str
    weight: float = 1.0
    rate: float | None = None
    loss_weight: float = 1.0
    joint: str = EOS

    @property
    def cluster(self) -> str:
        """The name of its dataset's cluster."""
        return catalog.dataset(self.dataset).cluster

    @property
    def text_style(self) -> TextStyle:
        """The style itself."""
        return styles.parse(self.style)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a model is tuned on: parts in the catalog's order, then by style. Made by `of`.

    Attributes:
      name: a name of `catalog.mixture` with its style, or a file's own name.
      parts: the parts that are drawn from. A part with weight 0 is not among them.
      recipe: what the mixture adds to its name, by the keys of a file; empty for a name alone.
      cap: most examples of a dataset that count for its rate; None counts all.
      temperature: rates are raised to 1 / temperature.
      examples: how many records of each dataset are drawn from; None takes all. They are chosen by content hash, so
        neither the order in a file nor a seed changes them.
    """

    name: str
    parts: tuple[Part, ...]
    recipe: Mapping[str, Any]
    cap: int | None = catalog.RATE_CAP
    temperature: float = 1.0
    examples: int | None = None

    @property
    def value(self) -> dict[str, Any]:
        """The content of a file that makes the same mixture."""
        return recorded({"tuned on": self.name, "recipe": self.recipe})

    @property
    def title(self) -> str:
        """The name, and the macros that change the mixture from what the name says."""
        changed = [key.upper() for key in self.recipe if key != "parts"]
        return self.name + (f" with {', '.join(changed)}" if changed else "")

    @property
    def datasets(self) -> tuple[catalog.Dataset, ...]:
        """The datasets that are drawn from."""
        return tuple(catalog.dataset(name) for name in dict.fromkeys(part.dataset for part in self.parts))

    @property
    def styles(self) -> tuple[TextStyle, ...]:
        """The styles of its parts."""
        return tuple(styles.parse(name) for name in dict.fromkeys(part.style for part in self.parts))

    def styles_of(self, dataset: str) -> tuple[TextStyle, ...]:
        """The styles in which the mixture has a dataset."""
        return tuple(part.text_style for part in self.parts if part.dataset == dataset)

    def rate(self, part: Part, num_examples: int) -> int | float:
        """The rate of a part whose dataset has `num_examples` training examples. Whole numbers stay whole."""
        own = catalog.mixing_rate(num_examples, self.cap, self.temperature) if part.rate is None else part.rate
        found = own * part.weight
        return int(found) if found == int(found) else found


def recorded(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The argument for `of` that makes the mixture of a tuning, from its entry in a manifest."""
    recipe = entry.get("recipe", {})
    return {"name" if "parts" in recipe else "mixture": entry["tuned on"], **recipe}


def dataset_of(part: str) -> str:
    """The dataset in the name of a part.

    Example:
      >>> dataset_of("rte:5_shots")
      'rte'
    """
    return part.partition(OF)[0]


def cluster_of(part: str) -> str:
    """The cluster of the dataset in the name of a part.

    Example:
      >>> cluster_of("rte:5_shots")
      'nli'
    """
    return catalog.dataset(dataset_of(part)).cluster


# ----------------------------------------------------------------------------------------------------------- making


def of(
    mixture: str | Mapping[str, Any] | Mixture,
    *,
    styles: Mapping[str, float] | Sequence[str] | str | None = None,
    weights: Mapping[str, float] | None = None,
    rates: Mapping[str, Any] | None = None,
    loss_weights: Mapping[str, float] | None = None,
    joints: Mapping[str, str] | str | None = None,
) -> Mixture:
    """Makes a mixture from a name, a dictionary or a file, and further settings.

    Args:
      mixture: a name of `catalog.mixture`, with or without a style at its end; a .json file; the text of such a file;
        or its content as a dictionary (see the module).
      styles: the weight of each style; they divide every dataset's draws. Names without weights weigh the same.
      weights: weights of clusters, datasets and parts; 0 leaves one out.
      rates: {"cap": most examples of a dataset that count, None for all; "temperature": rates are raised to
        1 / temperature; "examples": how many records of each dataset are drawn from, None for all}.
      loss_weights: weights of the target tokens of clusters, datasets and parts.
      joints: what stands between input and target, "eos" or "newline"; for all, or by name.

    Raises:
      FlanError: an unknown name, with near matches; a value of the wrong kind; a name that fits nothing in the mixture;
        the same style or part twice; or nothing is left.

    Example:
      >>> recipe = of("flan_without_nli", styles={"instructions": 3, "5_shots": 1}, weights={"translation": 0})
      >>> recipe.parts[0].name, recipe.parts[0].weight
      ('copa:5_shots', 0.25)
      >>> [part for part in recipe.parts if part.cluster == "translation"]
      []
    """
    more: dict[str, Any] = {
        "styles": styles,
        "weights": weights,
        "rates": rates,
        "loss_weights": loss_weights,
        "joints": joints,
    }
    more = {key: value for key, value in more.items() if value is not None}
    if isinstance(mixture, Mixture):
        if not more:
            return mixture
        mixture = mixture.value
    given = reading.read(mixture) if isinstance(mixture, str) else {**mixture}
    known = ("mixture", "name", "parts", *kinds.BY_KEY)
    if unknown := [key for key in given if key not in known]:
        raise FlanError(f"a mixture has no key {values.shown(unknown[0])}: {near_names(str(unknown[0]), known)}")
    given = {key: value for key, value in given.items() if value is not None}
    for key, kind in kinds.BY_KEY.items():
        for each in (given, more):
            if key in each:
                each[key] = values.checked(key.upper(), kind, each[key])
                if key == "joints" and isinstance(each[key], str):
                    each[key] = {ALL: each[key]}
        if key in more:
            both = isinstance(given.get(key), Mapping) and isinstance(more[key], Mapping) and key != "styles"
            given[key] = {**given[key], **more[key]} if both else more[key]
    return _made(given)


def _made(given: Mapping[str, Any]) -> Mixture:
    if ("mixture" in given) == ("parts" in given):
        raise FlanError("a mixture needs 'mixture', a name, or 'parts', a list, and not both.")
    name, found, recipe = _listed(given) if "parts" in given else _crossed(given)
    twice = {part.dataset for part in found if sum(other.dataset == part.dataset for other in found) > 1}
    found = [dataclasses.replace(p, name=f"{p.dataset}{OF}{p.style}" if p.dataset in twice else p.name) for p in found]
    order = {record.name: number for number, record in enumerate(catalog.datasets())}
    found.sort(key=lambda part: (order[part.dataset], part.style))
    weights = _by_name("weights", given.get("weights"), found, name)
    losses = _by_name("loss_weights", given.get("loss_weights"), found, name)
    joints = _by_name("joints", given.get("joints"), found, name)
    made = [
        dataclasses.replace(
            part,
            weight=part.weight * weights.get(part.name, 1.0),
            loss_weight=part.loss_weight * losses.get(part.name, 1.0),
            joint=joints.get(part.name, part.joint),
        )
        for part in found
    ]
    left = tuple(part for part in made if part.weight > 0)
    if not left:
        raise FlanError(f"WEIGHTS take out all of mixture {name!r}: nothing is left to tune on.")
    usual: dict[str, Any] = {"cap": catalog.RATE_CAP, "temperature": 1.0, "examples": None}
    rates = usual | dict(given.get("rates") or {})
    recipe |= {
        "weights": _canonical(given.get("weights")),
        "rates": {key: value for key, value in rates.items() if value != usual[key]},
        "loss_weights": _canonical(given.get("loss_weights")),
        "joints": _canonical(given.get("joints")),
    }
    recipe = {key: value for key, value in recipe.items() if value}
    return Mixture(name, left, recipe, rates["cap"], rates["temperature"], rates["examples"])


def _crossed(given: Mapping[str, Any]) -> tuple[str, list[Part], dict[str, Any]]:
    """A named mixture: each of its datasets in each of the styles."""
    name = values.checked("mixture", values.Text(), given["mixture"])
    if "name" in given:
        raise FlanError(f"the mixture {name!r} cannot have another name: leave 'name' out.")
    base, own = styles.split_name(name)
    members = catalog.mixture(base)
    weights = given.get("styles") or {own.name: 1.0}
    weights = weights if isinstance(weights, Mapping) else dict.fromkeys(weights, 1.0)
    spelled: dict[str, str] = {}
    shares: dict[str, float] = {}
    for one, weight in weights.items():
        style = styles.parse(one).name
        if style in spelled:
            raise FlanError(
                f"STYLES has the style {style!r} twice, as {spelled[style]!r} and as {one!r}: leave one out."
            )
        spelled[style], shares[style] = one, float(weight)
    if own != styles.PAPER and list(shares) != [own.name]:
        raise FlanError(f"mixture {name!r} has a style at its end, and STYLES names others: take it off the name.")
    total = sum(shares.values())
    found = [
        Part(record.name, record.name, style, weight / total) for record in members for style, weight in shares.items()
    ]
    if "styles" not in given:
        return name, found, {}
    if len(shares) == 1:
        return base + styles.parse(next(iter(shares))).suffix, found, {}
    return base, found, {"styles": dict(sorted(shares.items()))}


def _listed(given: Mapping[str, Any]) -> tuple[str, list[Part], dict[str, Any]]:
    """A mixture that lists its parts."""
    if "styles" in given:
        raise FlanError("STYLES are for a mixture by name; in 'parts' each entry has its own 'style'.")
    if not isinstance(given["parts"], Sequence) or isinstance(given["parts"], str) or not given["parts"]:
        raise FlanError(f"parts is {values.shown(given['parts'])}: it has to be a list of dictionaries with 'of'.")
    found: list[Part] = []
    entries: list[dict[str, Any]] = []
    for number, one in enumerate(given["parts"]):
        entry = values.checked(f"part {number}", kinds.ENTRY, one)
        if "of" not in entry:
            raise FlanError(f"part {number} has no 'of': name a dataset, a cluster or a mixture.")
        what, style = kinds.split_of(entry["of"])
        if style and "style" in entry:
            raise FlanError(f"part {number}: {entry['of']!r} names a style already: leave its 'style' out.")
        style = style or styles.parse(entry.get("style", styles.INSTRUCTIONS)).name
        own = {key: entry[key] for key in ("weight", "rate", "loss_weight", "joint") if key in entry}
        for record in _members(what):
            if not record.splits.train:
                raise FlanError(f"part {number}: dataset {record.name} has no training data.")
            if any((part.dataset, part.style) == (record.name, style) for part in found):
                raise FlanError(f"part {number}: dataset {record.name} in style {style} is there already.")
            found.append(Part(record.name, record.name, style, **own))
        entries.append({"of": what, "style": style, **own})
    names = list(dict.fromkeys(entry["of"] for entry in entries))
    usual = "+".join(names[:_FEW]) + (f"+{len(names) - _FEW}_more" if len(names) > _FEW else "") + "_by_parts"
    name = values.checked("name", values.Word(), given.get("name", usual))
    try:
        catalog.mixture(styles.split_name(name)[0])
    except FlanError:
        return name, found, {"parts": entries}
    raise FlanError(f"name {name!r} is that of another mixture: give your parts a name of their own.")


def _members(name: str) -> tuple[catalog.Dataset, ...]:
    try:
        found = catalog.named(name)
    except FlanError:
        return catalog.mixture(name)
    if any(record.variant for record in found):
        raise FlanError(f"{name!r} is only scored separately; to tune on it, name {catalog.whole(name)!r}.")
    return tuple(record for record in found if record.splits.train) or found


def _canonical(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {_spelled(name): value for name, value in sorted((given or {}).items())}


def _spelled(name: str) -> str:
    """A name in weights, with its style in the normal spelling."""
    head, of, style = name.partition(OF)
    return f"{head}{OF}{styles.parse(style).name}" if of else name


def _by_name(what: str, given: Mapping[str, Any] | None, found: Sequence[Part], mixture: str) -> dict[str, Any]:
    """The values by part. Each part gets the value of the most specific name that fits it."""
    macro, asked = what.upper(), {}
    for name, value in (given or {}).items():
        spelled = _spelled(name)
        if spelled in asked:
            raise FlanError(f"{macro} has {spelled!r} twice, once as {name!r}: leave one out.")
        asked[spelled] = value
    names = [
        [f"{head}{end}" for head in (part.dataset, part.cluster, ALL) for end in (f"{OF}{part.style}", "")]
        for part in found
    ]
    for name in asked:
        if not any(name in fitting for fitting in names):
            raise FlanError(_nothing_of(macro, name, mixture, found))
    return {
        part.name: asked[nearest]
        for part, fitting in zip(found, names, strict=True)
        if (nearest := next((name for name in fitting if name in asked), None)) is not None
    }


def _nothing_of(macro: str, name: str, mixture: str, found: Sequence[Part]) -> str:
    """The message about a name in weights that fits nothing in the mixture."""
    head, of, _ = name.partition(OF)
    said = f"{macro} names {name!r}, and mixture {mixture!r} has nothing of it"
    if of and any(head in (part.dataset, part.cluster) for part in found):
        there = dict.fromkeys(part.style for part in found if head in (part.dataset, part.cluster))
        return f"{said}: {head} is there in {', '.join(there)}."
    if "_without_" in mixture:
        return (
            f"{said}: what a mixture holds out cannot be weighted back into it; to tune on {head}, give another "
            "MIXTURE_OR_TASK_NAME, such as 'flan', and it will count as seen."
        )
    return f"{said}; leave it out, or list it among the parts of a mixture of your own."
