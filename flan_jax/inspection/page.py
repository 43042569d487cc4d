"""One HTML page with search over all templates, each rendered on two sample records. It needs no other file."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

from flan_jax import catalog
from flan_jax.inspection.examples import Shown, Span, all_templates

RECORDS = 2  # each template is shown on so many
LONGEST = 900  # characters of a field; the page shortens longer ones and says so


def page(names: Sequence[str] = ()) -> str:
    """The page for some datasets, by default all. Variants that share their templates are shown together.

    Args:
      names: names of datasets.

    Raises:
      FlanError: an unknown dataset.
    """
    chosen = [catalog.dataset(name) for name in names] or catalog.datasets()
    groups: dict[tuple[Any, ...], list[catalog.Dataset]] = {}
    for record in chosen:
        groups.setdefault((record.paper_dataset, record.templates), []).append(record)
    data = [_dataset(members) for members in groups.values()]
    # Within a script element, "</" would end it.
    text = (
        json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "\\u003c!--")
    )
    template = importlib.resources.files("flan_jax.inspection").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("@DATA@", text)


def _dataset(members: Sequence[catalog.Dataset]) -> dict[str, Any]:
    first = members[0]
    shown = [all_templates(first.name, skip=skip) for skip in range(RECORDS)]
    return {
        "name": first.paper_dataset,
        "cluster": first.cluster,
        "source": first.source,
        "variants": [d.name for d in members],
        "templates": [
            {
                "number": number,
                "direction": template.direction,
                "input": template.input,
                "target": template.target,
                "examples": [_example(each[number]) for each in shown],
            }
            for number, template in enumerate(first.templates)
        ],
    }


def _example(shown: Shown) -> dict[str, Any]:
    return {"inputs": [_short(s) for s in shown.inputs], "targets": [_short(s) for s in shown.targets]}


def _short(span: Span) -> list[str | None]:
    if len(span.text) <= LONGEST:
        return [span.text, span.field]
    return [f"{span.text[:LONGEST].rstrip()} [… {len(span.text) - LONGEST:,} more characters]", span.field]
