"""The command that prepares a dataset again, as messages name it: from the same data as before."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from flan_jax import catalog, own_data, styles
from flan_jax.files import AnyPath, user_path
from flan_jax.values import OUR_DATA

DATA = "prepared_from"  # in an info.json: --data, by its whole path; earlier versions do not say it


def to_say(data: str | AnyPath) -> str:
    """A value of --data that means the same in every folder."""
    return str(data) if data in OUR_DATA else str(user_path(data, "--data").absolute())


def command(
    dataset: str,
    prepared_dir: str | AnyPath,
    info: Mapping[str, Any] | None = None,
    *,
    tokens: bool = False,
    overwrite: bool = False,
) -> str:
    """How a dataset is prepared again.

    Args:
      dataset: its name.
      prepared_dir: PREPARED_DIR.
      info: what its info.json says, if that can be read.
      tokens: whether its tokens are wanted, and not its examples alone.
      overwrite: whether what is there is damaged, and would be kept.

    >>> command("cb", "prepared", {"prepared_from": "/my data"}, overwrite=True)
    "python -m flan_jax.prepare --datasets=cb --data='/my data' --to=prepared --overwrite"
    >>> command("cb", "prepared")
    'python -m flan_jax.prepare --datasets=cb --to=prepared, with the same --data as before'
    """
    info = info or {}
    words, known = [f"--datasets={dataset}"], True
    if catalog.exists(dataset) and own_data.is_origin(origin := catalog.dataset(dataset).source):
        kind, _, file = origin.partition(":")
        words = [f"--{kind}={file}"]
    elif known := isinstance(data := info.get(DATA), str) and bool(data):
        words.append(f"--data={shlex.quote(str(data))}")
    if isinstance(style := info.get("style"), str) and style != styles.PAPER.name:
        words.append(f"--style={style}")
    words += ["--vocabulary=CHECKPOINT/vocabulary"] if tokens else []
    words += [f"--to={shlex.quote(str(prepared_dir))}", *(["--overwrite"] if overwrite else [])]
    return f"python -m flan_jax.prepare {' '.join(words)}" + ("" if known else ", with the same --data as before")
