"""With which wording of the templates a text was made: today's, or an earlier draft's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, own_data, protocol, styles, templates
from flan_jax.errors import FlanError
from flan_jax.wording import counted

KEY = "wording"  # of a token store's info and of a manifest's entry for a dataset's text
_NAMED = 3  # datasets; the others are counted


def fingerprint(record: catalog.Dataset, style: styles.TextStyle) -> str:
    """Of the wordings that a dataset's text has in a style."""
    asked = protocol.of(record, style)
    return templates.digest(asked.templates[number] for number in asked.numbers)


def earlier(tuning: Mapping[str, Any]) -> list[str]:
    """The datasets whose text has another wording than today's templates.

    Args:
      tuning: "text", {"dataset", "style", "wording"} of each, and "datasets", names, as in a manifest. A text that
        shows templates and has no fingerprint of them is the first draft's, as is one that is not recorded: both are
        from before there were fingerprints.

    Returns:
      Names in their order, each once; of datasets and styles that are not known here nothing is said.
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
    """One line about texts of an earlier wording, without its beginning and its end; nothing where all is today's."""
    names = list(dict.fromkeys(name for tuning in tunings for name in earlier(tuning)))
    if not names:
        return ""
    listed = ", ".join(names[:_NAMED])
    more = f" and {counted(len(names) - _NAMED, 'more datasets')}" if len(names) > _NAMED else ""
    return f"an earlier draft of the templates of {listed}{more}, whose wording is not today's"


def said_of(results: Mapping[str, Any]) -> str:
    """The same of the model or the models of an evaluation."""
    return said(*(results.get("tunings") or {}).values(), results.get("tuning") or {})
