"""The studies as records, a file a study. Every file of this package defines `STUDY`, a `Study`; adding one touches
nothing else, but for its file in gin/studies.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable

from flan_jax.errors import FlanError, unknown_name
from flan_jax.studies.commands import Commands
from flan_jax.studies.document import Shown
from flan_jax.studies.settings import Settings


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
      name: as STUDY has it; its gin file and its module are called so.
      question: what it asks, in one sentence.
      source: where in the paper it is; or that the paper does not have it.
      points: what POINTS are, in one line, with the usual ones; empty where the study takes none.
      plan: makes the commands.
      show: makes tables and figures of finished commands.
      takes_judged_by: whether it takes JUDGED_BY.
    """

    name: str
    question: str
    source: str
    points: str
    plan: Callable[[Settings], Commands]
    show: Callable[[Commands], Shown]
    takes_judged_by: bool = False


@functools.cache
def studies() -> dict[str, Study]:
    """All studies by name.

    Raises:
      FlanError: a file defines none, or one of another name.
    """
    found = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        study = getattr(importlib.import_module(f"{__name__}.{module.name}"), "STUDY", None)
        if not isinstance(study, Study) or study.name != module.name:
            raise FlanError(f"flan_jax/studies/kinds/{module.name}.py must define STUDY, a Study of that name.")
        found[study.name] = study
    return found


def study(name: str) -> Study:
    """The study of a name.

    Raises:
      FlanError: there is none; the message has near names.
    """
    if name not in studies():
        raise unknown_name("study", name, studies())
    return studies()[name]
