"""The module that T5X and `seqio_cache_tasks` import: it gives SeqIO our tasks and mixtures.

    MIXTURE_OR_TASK_MODULE = "flan_jax.mixtures"
    MIXTURE_OR_TASK_NAME = "flan_without_nli"

Importing it opens no source and reads no vocabulary. That happens when the first task or mixture is asked for; until
then, gin or the environment can say where data and vocabulary are:

| gin                                    | environment                | default                            |
|----------------------------------------|----------------------------|------------------------------------|
| flan_jax.mixtures.settings.vocabulary  | FLAN_JAX_SEQIO_VOCABULARY  | "bytes", the ids of ByT5           |
| flan_jax.mixtures.settings.data        | FLAN_JAX_SEQIO_DATA        | "samples", the few bundled records |
| flan_jax.mixtures.settings.seed        | FLAN_JAX_SEQIO_SEED        | 0                                  |

A vocabulary is a path, or in gin also `@seqio.SentencePieceVocabulary()`. Data are "tfds" or a folder.
FLAN_JAX_SEQIO_NAMES, with commas, lists names in a style, which `seqio_cache_tasks` cannot match otherwise. What a
program gave to `flan_jax.data.tasks.register` stays as it is.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import gin

from flan_jax.data import tasks


@gin.configurable(module="flan_jax.mixtures")
def settings(vocabulary: Any = None, data: str | None = None, seed: int | None = None) -> tasks.Settings:
    """Settings of the tasks; what is None is as in the environment, or else the default.

    Args:
      vocabulary: see `tasks.Settings`; so are the others.
      data: ...
      seed: ...
    """
    given = {"vocabulary": vocabulary, "data": data, "seed": seed}
    changed = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(tasks.Settings.of_environment(), **changed)


tasks.offer(settings, tuple(filter(None, os.environ.get("FLAN_JAX_SEQIO_NAMES", "").split(","))))
