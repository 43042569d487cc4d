"""A recipe that was chosen: macros of `flan_jax.train` in recipe.json, with what was seen in choosing them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.errors import FlanError, cannot
from flan_jax.files import user_path
from flan_jax.json_lines import from_json, to_json

FILE = "recipe.json"
_DIGEST, _DIGITS = "digest", 16


def content(macros: Mapping[str, Any], tunings: Iterable[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What recipe.json holds.

    Args:
      macros: the chosen ones.
      tunings: what the manifests say of the models among which it was chosen.
      **more: by what it was chosen, for people.

    Returns:
      All of it, and its digest, by which a reader finds out that it was changed.
    """
    tunings = list(tunings)
    seen = {key: sorted({name for one in tunings for name in one[key]}) for key in ("clusters", "datasets")}
    found = {"macros": dict(macros), "seen": seen, **more}
    return found | {_DIGEST: _digest(found)}


def _digest(content: Mapping[str, Any]) -> str:
    """Of all of a recipe.json but its digest, as it is when it is read again."""
    own = from_json(to_json({key: value for key, value in content.items() if key != _DIGEST}))
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def read(path: str, held_out: Sequence[str]) -> dict[str, Any]:
    """The macros of a recipe.

    Args:
      path: of recipe.json.
      held_out: the clusters that it is to be used without having been chosen on.

    Raises:
      FlanError: there is no such file, it is damaged or was changed, or it was chosen on what is held out or shares
        text with that.
    """
    file = user_path(path, "RECIPE")
    try:
        found = from_json(file.read_text(encoding="utf-8"))
        macros, seen = found["macros"], found["seen"]
        clusters, datasets = seen["clusters"], seen["datasets"]
        listed = isinstance(clusters, list) and isinstance(datasets, list) and clusters and datasets
        if not (isinstance(macros, dict) and listed and all(isinstance(name, str) for name in clusters + datasets)):
            raise TypeError
        for name in clusters:
            catalog.cluster(name)
        for name in datasets:
            catalog.dataset(name)
    except OSError as error:
        raise cannot("read the recipe", path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FlanError(f"RECIPE {path} is not what python -m flan_jax.study writes: choose it again.") from error
    if _DIGEST not in found:  # an earlier version wrote it, or somebody took it out: nobody can say what else
        raise FlanError(
            f"RECIPE {path} has no digest, as an earlier version wrote it, and may have been changed: run its study "
            "again, which writes it anew, or leave RECIPE out and give its macros by TRAIN."
        )
    if found[_DIGEST] != _digest(found):
        raise FlanError(
            f"RECIPE {path} was changed since it was chosen: choose it again, or leave RECIPE out and give its macros "
            "by TRAIN."
        )
    for record in (record for name in held_out for record in catalog.named(name)):
        if not catalog.is_held_out(record, {*clusters, *(catalog.dataset(name).cluster for name in datasets)}):
            raise FlanError(
                f"RECIPE {path} was chosen on clusters that the paper's rule counts with {record.cluster}, which this "
                f"study holds out: choose it with CLUSTERS that have {record.cluster} too, or leave it out here."
            )
        kin = set(catalog.kin_of(record.name))
        if shared := sorted(name for name in datasets if {name, catalog.dataset(name).paper_dataset} & kin):
            raise FlanError(
                f"RECIPE {path} was chosen on {shared[0]}, which shares text with {record.name} of {record.cluster}, "
                f"which this study holds out: choose it with CLUSTERS that have {record.cluster} too."
            )
    return macros
