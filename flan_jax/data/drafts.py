"""Tells whether a text was made with today's wording of the templates, or with an earlier draft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, own_data, protocol, styles, templates
from flan_jax.errors import FlanError
from flan_jax.wording import counted

KEY = "wording"  # the key in a token store's info and in a manifest's entry for a dataset's text
_NAMED = 3  # datasets that are named; the others are counted


def fingerprint(record: catalog.Dataset, style: styles.TextStyle) -> str:
    """Identifies the wording of a dataset's text in a style."""
    asked = protocol.of(record, style)
    return templates.digest(asked.templates[number] for number in asked.numbers)


def earlier(tuning: Mapping[str, Any]) -> list[str]:
    """The datasets whose text has another wording than today's templates.

    Args:
      tuning: as in a manifest: "text", with {"dataset", "style", "wording"} of each, and "datasets", their names. A
        text with templates but without a fingerprint is from the first draft, and so is a text that is not recorded:
        both are older than fingerprints.

    Returns:
      Names in order, each once. Datasets and styles that are not known here are left out.
    """
    own = {one.name for one in own_data.definitions(own_data.named())}
    text = list(tuning.get("text", ()))
    told = {entry["dataset"] for entry in text}
    text += [{"dataset": name} for name in tuning.get("datasets", ()) if name not in told]
    found: dict[str, Any] = {}
    for entry in text:
        name = entry["dataset"]
        if name not in own and catalog.exists(name) and _is_earlier(entry):
            found[name] = None
    return list(found)


def _is_earlier(entry: Mapping[str, Any]) -> bool:
    try:
        style = styles.parse(entry.get("style") or styles.PAPER.name)
    except FlanError:
        return False
    if KEY in entry:
        return entry[KEY] != fingerprint(catalog.dataset(entry["dataset"]), style)
    return style.words == styles.INSTRUCTIONS


def said(*tunings: Mapping[str, Any]) -> str:
    """Part of a line about texts with an earlier wording; empty if there are none."""
    names = list(dict.fromkeys(name for tuning in tunings for name in earlier(tuning)))
    if not names:
        return ""
    listed = ", ".join(names[:_NAMED])
    more = f" and {counted(len(names) - _NAMED, 'more datasets')}" if len(names) > _NAMED else ""
    return f"an earlier draft of the templates of {listed}{more}, whose wording is not today's"


def said_of(results: Mapping[str, Any]) -> str:
    """The same for the model or the models of an evaluation."""
    return said(*(results.get("tunings") or {}).values(), results.get("tuning") or {})
