"""Mixtures as lists of parts: a part is a dataset in a style, with its weights. No TensorFlow, no JAX.

    parts.of("flan_without_nli")                                        a name: every dataset in one style
    parts.of("flan", styles={"instructions": 1, "5_shots": 1})          each dataset's draws are shared out to styles
    parts.of("flan", weights={"nli": 0, "rte": 2.0})                    less of a cluster, more of a dataset
    parts.of("recipes/mine.json")                                       what a file says

A file, or a dictionary in its place, has "mixture" (a name) or "parts" (a list), and further keys, each as the macro of
the same name in capitals: "styles", "weights", "rates", "loss_weights", "joints". An entry of "parts" has "of" (a
dataset, cluster or mixture) and may have "style", "rate", "weight", "loss_weight" and "joint".

Names in weights are those of clusters, datasets or parts ("nli", "rte", "rte:5_shots", "nli:5_shots",
"all:5_shots"); of several that fit a part the nearest counts: {"nli": 0, "rte": 1} leaves rte alone of its cluster.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import catalog, styles, values
from flan_jax.errors import FlanError, cannot, near_names
from flan_jax.files import user_path
from flan_jax.json_lines import parse_json
from flan_jax.protocol import EOS, NEWLINE
from flan_jax.values import ByName, Either, Keyed, Named, Number, OneOf, Several, Unfit, Whole, or_none

ALL = "all"  # the name of all parts, where one joint is given for them
OF = ":"  # between a dataset's name and its style's, in the name of a part
JOINTS = (EOS, NEWLINE)  # what can stand between input and target in tuning
_LEAST, _MOST = 1e-6, 1e6  # of a weight that is not 0
_SUFFIX = ".json"  # of files
_FEW = 3  # parts in the name of a mixture without one


@dataclasses.dataclass(frozen=True)
class Part:
    """A dataset in a style, in a mixture.

    Attributes:
      name: "rte", or "rte:5_shots" where the dataset is there in several styles.
      dataset: its dataset's.
      style: its style's.
      weight: multiplies the rate; above 0.
      rate: by examples, in place of what the mixture's rates make of the number of its examples.
      loss_weight: multiplies the loss of its target tokens.
      joint: what stands between input and target, "eos" or "newline".
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
    def text_style(self) -> styles.TextStyle:
        """Its style."""
        return styles.parse(self.style)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What is tuned on: parts that are drawn from, in the catalog's order and then by style; made by `of`.

    Attributes:
      name: a name of `catalog.mixture` with its style, or a file's own.
      parts: those that are drawn from; a weight of 0 leaves none.
      recipe: what makes it more than its name, by the keys of a file; nothing for a name alone.
      cap: examples of a dataset that count for its rate; None counts all.
      temperature: rates are raised to 1 / temperature.
    """

    name: str
    parts: tuple[Part, ...]
    recipe: Mapping[str, Any]
    cap: int | None = catalog.RATE_CAP
    temperature: float = 1.0

    @property
    def value(self) -> dict[str, Any]:
        """What a file has that makes the same mixture."""
        return {"name" if "parts" in self.recipe else "mixture": self.name, **self.recipe}

    @property
    def title(self) -> str:
        """The name, and by which macros it is another than its name says."""
        changed = [key.upper() for key in self.recipe if key != "parts"]
        return self.name + (f" with {', '.join(changed)}" if changed else "")

    @property
    def datasets(self) -> tuple[catalog.Dataset, ...]:
        """The datasets that are drawn from."""
        return tuple(catalog.dataset(name) for name in dict.fromkeys(part.dataset for part in self.parts))

    @property
    def styles(self) -> tuple[styles.TextStyle, ...]:
        """The styles of its parts."""
        return tuple(styles.parse(name) for name in dict.fromkeys(part.style for part in self.parts))

    def styles_of(self, dataset: str) -> tuple[styles.TextStyle, ...]:
        """The styles that a dataset has in it."""
        return tuple(part.text_style for part in self.parts if part.dataset == dataset)

    def rate(self, part: Part, num_examples: int) -> int | float:
        """The rate of a part whose dataset has so many training examples; whole numbers stay whole."""
        own = catalog.mixing_rate(num_examples, self.cap, self.temperature) if part.rate is None else part.rate
        found = own * part.weight
        return int(found) if found == int(found) else found


def dataset_of(part: str) -> str:
    """The name of the dataset of a part, by the part's name."""
    return part.partition(OF)[0]


def cluster_of(part: str) -> str:
    """The name of the cluster of a part's dataset, by the part's name."""
    return catalog.dataset(dataset_of(part)).cluster


# -------------------------------------------------------------------------------------------------- kinds of values


@dataclasses.dataclass(frozen=True)
class _Weight:
    """0, or a number between the least and the most."""

    wanted: str = f"0, or a number from {_LEAST:g} to {_MOST:g}"

    def fit(self, value: Any) -> float:
        """See `values.Kind`."""
        found = Number(least=0, most=_MOST).fit(value)
        if 0 < found < _LEAST:
            raise Unfit
        return found


def _known(name: str) -> None:
    """Raises a FlanError where a name in weights is of nothing that there is."""
    head, of, style = name.partition(OF)
    if head != ALL:
        catalog.named(head)
    if of:
        styles.parse(style)


def _known_of(name: str) -> None:
    try:
        catalog.named(name)
    except FlanError:
        catalog.mixture(name)


_ABOVE_0 = Number(least=_LEAST, most=_MOST)
_STYLE = Named(styles.parse, "a style, such as 'instructions' or '5_shots'")
_NAMED = Named(_known, "the name of a dataset, a cluster or a part, as 'rte:5_shots'")
_CAP = or_none(Whole(1), "all examples count")
_TEMPERATURE = Number(least=0.1, most=1e6)

STYLES = or_none(Either((ByName(_STYLE, _ABOVE_0), Several(_STYLE))), "the one at the end of the name")
WEIGHTS = or_none(ByName(_NAMED, _Weight()), "1 for all")
RATES = or_none(Keyed({"cap": _CAP, "temperature": _TEMPERATURE}), "by examples, of which 3,000 count")
LOSS_WEIGHTS = or_none(ByName(_NAMED, _ABOVE_0), "1 for all")
JOINT = OneOf(JOINTS)
JOINTS_BY_NAME = or_none(Either((JOINT, ByName(_NAMED, JOINT))), "'eos' for all")
_KINDS = {
    "styles": STYLES,
    "weights": WEIGHTS,
    "rates": RATES,
    "loss_weights": LOSS_WEIGHTS,
    "joints": JOINTS_BY_NAME,
}
_ENTRY = Keyed(
    {
        "of": Named(_known_of, "the name of a dataset, a cluster or a mixture"),
        "style": _STYLE,
        "rate": _ABOVE_0,
        "weight": _ABOVE_0,
        "loss_weight": _ABOVE_0,
        "joint": JOINT,
    }
)


@dataclasses.dataclass(frozen=True)
class MixtureKind:
    """A mixture, by its name, as a dictionary, as a file, or made by Python."""

    wanted: str = "the name of a mixture, a .json file with one, or a dictionary"

    def fit(self, value: Any) -> Any:
        """See `values.Kind`; the value stays as it is."""
        if not isinstance(value, str | Mapping | Mixture) or not value:
            raise Unfit
        try:
            of(value)
        except FlanError as error:
            raise Unfit(str(error)) from error
        return value


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
    """The mixture of a name, a dictionary or a file, with what is given besides.

    Args:
      mixture: a name of `catalog.mixture`, with or without a style at its end; a .json file, or the text of one; or
        what such a file holds (see the module).
      styles: the weight of each style: every dataset's draws are shared out by them. Several names weigh the same.
      weights: of clusters, datasets and parts; 0 leaves one out.
      rates: {"cap": examples of a dataset that count, None for all; "temperature": rates are raised to 1 / so much}.
      loss_weights: of the target tokens of clusters, datasets and parts.
      joints: what stands between input and target, for all, or by name: "eos" or "newline".

    Raises:
      FlanError: an unknown name, with near matches; a value that is of another kind; a name of nothing in the mixture;
        the same style or part twice; or nothing is left.
    """
    more = {"styles": styles, "weights": weights, "rates": rates, "loss_weights": loss_weights, "joints": joints}
    more = {key: value for key, value in more.items() if value is not None}
    if isinstance(mixture, Mixture):
        if not more:
            return mixture
        mixture = mixture.value
    given = _read(mixture) if isinstance(mixture, str) else {**mixture}
    known = ("mixture", "name", "parts", *_KINDS)
    if unknown := [key for key in given if key not in known]:
        raise FlanError(f"a mixture has no key {values.shown(unknown[0])}: {near_names(str(unknown[0]), known)}")
    given = {key: value for key, value in given.items() if value is not None}
    for key, kind in _KINDS.items():
        for each in (given, more):
            if key in each:
                each[key] = values.checked(key.upper(), kind, each[key])
                if key == "joints" and isinstance(each[key], str):
                    each[key] = {ALL: each[key]}
        if key in more:
            both = isinstance(given.get(key), Mapping) and isinstance(more[key], Mapping) and key != "styles"
            given[key] = {**given[key], **more[key]} if both else more[key]
    return _made(given)


def _read(text: str) -> dict[str, Any]:
    """What a name, a file or the text of a dictionary stands for."""
    if text.lstrip().startswith("{"):
        found, where = _literal(text), "the mixture"
    elif text.endswith(_SUFFIX):
        path, where = user_path(text), text
        try:
            found = parse_json(path.read_bytes())
        except OSError as error:
            raise cannot("read the mixture", text, error) from error
        except ValueError as error:
            raise FlanError(f"mixture {text} is no JSON ({' '.join(str(error).split())}): mend it.") from error
    else:
        return {"mixture": text}
    if not isinstance(found, dict):
        raise FlanError(f"{where} is {values.shown(found)}: it has to be a dictionary with 'mixture' or 'parts'.")
    return found


def _literal(text: str) -> Any:
    """A dictionary that is written as JSON or as Python."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        pass
    try:
        tree = ast.parse(text.strip(), mode="eval")
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            keys = [ast.literal_eval(key) for key in node.keys if key is not None]
            if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
                raise FlanError(f"mixture {values.shown(text)} has {twice[0]!r} twice: leave one out.")
        return ast.literal_eval(tree)
    except FlanError:
        raise
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise FlanError(f"mixture {values.shown(text)} is no dictionary: write it as JSON.") from error


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
    rates = {"cap": catalog.RATE_CAP, "temperature": 1.0} | dict(given.get("rates") or {})
    usual = {"cap": catalog.RATE_CAP, "temperature": 1.0}
    recipe |= {
        "weights": _canonical(given.get("weights")),
        "rates": {key: value for key, value in rates.items() if value != usual[key]},
        "loss_weights": _canonical(given.get("loss_weights")),
        "joints": _canonical(given.get("joints")),
    }
    recipe = {key: value for key, value in recipe.items() if value}
    return Mixture(name, left, recipe, rates["cap"], rates["temperature"])


def _crossed(given: Mapping[str, Any]) -> tuple[str, list[Part], dict[str, Any]]:
    """A named mixture, each of its datasets in each of the styles."""
    name = values.checked("mixture", values.Text(), given["mixture"])
    if "name" in given:
        raise FlanError(f"a mixture that is {name!r} has no other name: leave 'name' out.")
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
        entry = values.checked(f"part {number}", _ENTRY, one)
        if "of" not in entry:
            raise FlanError(f"part {number} has no 'of': name a dataset, a cluster or a mixture.")
        style = styles.parse(entry.get("style", styles.INSTRUCTIONS)).name
        own = {key: entry[key] for key in ("weight", "rate", "loss_weight", "joint") if key in entry}
        for record in _members(entry["of"]):
            if not record.splits.train:
                raise FlanError(f"part {number}: dataset {record.name} has no training data.")
            if any((part.dataset, part.style) == (record.name, style) for part in found):
                raise FlanError(f"part {number}: dataset {record.name} in style {style} is there already.")
            found.append(Part(record.name, record.name, style, **own))
        entries.append({"of": entry["of"], "style": style, **own})
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
        raise FlanError(f"{name!r} is scored by itself, but tuned on as a part of {catalog.whole(name)!r}: name that.")
    return tuple(record for record in found if record.splits.train) or found


def _canonical(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {_spelled(name): value for name, value in sorted((given or {}).items())}


def _spelled(name: str) -> str:
    """A name of weights with its style as styles spell themselves."""
    head, of, style = name.partition(OF)
    return f"{head}{OF}{styles.parse(style).name}" if of else name


def _by_name(what: str, given: Mapping[str, Any] | None, found: Sequence[Part], mixture: str) -> dict[str, Any]:
    """The value of each part that has one, by the part's name: the nearest of the names that fit it."""
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
    """Why a name in weights is wrong: nothing of the mixture has it."""
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
