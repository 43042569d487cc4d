"""The module that T5X and `seqio_cache_tasks` import to get our tasks and mixtures.

    MIXTURE_OR_TASK_MODULE = "flan_jax.mixtures"
    MIXTURE_OR_TASK_NAME = "flan_without_nli"

Importing it opens no source and reads no vocabulary. That happens when the first task or mixture is asked for. Until
then, gin or the environment can say where data and vocabulary are:

| gin                                    | environment                | default                            |
|----------------------------------------|----------------------------|------------------------------------|
| flan_jax.mixtures.settings.vocabulary  | FLAN_JAX_SEQIO_VOCABULARY  | "bytes", the ids of ByT5           |
| flan_jax.mixtures.settings.data        | FLAN_JAX_SEQIO_DATA        | "samples", the few bundled records |
| flan_jax.mixtures.settings.seed        | FLAN_JAX_SEQIO_SEED        | 0                                  |

A vocabulary is a path; in gin it can also be `@seqio.SentencePieceVocabulary()`. Data are "samples", "tfds" or a
folder. FLAN_JAX_SEQIO_NAMES lists names with a style, separated by commas; `seqio_cache_tasks` cannot find them
otherwise. Settings that a program has passed to `flan_jax.data.tasks.register` stay.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import gin

from flan_jax.data import tasks


@gin.configurable(module="flan_jax.mixtures")
def settings(vocabulary: Any = None, data: str | None = None, seed: int | None = None) -> tasks.Settings:
    """The settings of the tasks. An argument that is None comes from the environment, or else is the default.

    Args:
      vocabulary: see `tasks.Settings`.
      data: see `tasks.Settings`.
      seed: see `tasks.Settings`.
    """
    given = {"vocabulary": vocabulary, "data": data, "seed": seed}
    changed = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(tasks.Settings.of_environment(), **changed)


tasks.offer(settings, tuple(filter(None, os.environ.get("FLAN_JAX_SEQIO_NAMES", "").split(","))))
