"""Turns other people's weights into a checkpoint folder with a manifest.

python -m flan_jax.convert --from=gemma3-270m --to=models/gemma3-270m --tuning=untuned
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from flan_jax import catalog, configuration, models
from flan_jax.data import vocabularies
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.formats import gguf, pretrained
from flan_jax.training import checkpoints


def declared(tuning: str) -> tuple[str, tuple[str, ...]]:
    """What the importer says of earlier tuning: (status, clusters).

    Args:
      tuning: "untuned", "unknown", or cluster names with commas.

    Raises:
      FlanError: a cluster that does not exist.
    """
    if tuning in ("untuned", "unknown"):
        return (checkpoints.UNTUNED if tuning == "untuned" else checkpoints.UNKNOWN), ()
    names = tuple(catalog.cluster(name.strip()).name for name in tuning.split(","))
    return checkpoints.DECLARED, names


def convert(source: str, to: str | Path, tuning: str = "unknown", overwrite: bool = False) -> dict[str, Any]:
    """Writes a checkpoint folder from a GGUF file, a packaged model, or a random tiny one.

    Args:
      source: a path, a name of `pretrained.NAMES`, or a model of `gin/models/` for random parameters with the byte
        vocabulary.
      to: the checkpoint folder to make.
      tuning: what is known of its tuning; nothing is guessed.
      overwrite: replace a folder that is there.

    Returns:
      What was written, for the user.

    Raises:
      FlanError: bad input; `to` is then as it was.
    """
    status, clusters = declared(tuning)
    to = Path(to)
    if to.exists() and not to.is_dir():
        raise FlanError(f"{to} is a file: give a folder as --to.")
    if to.exists() and any(to.iterdir()):
        if not overwrite:
            raise FlanError(f"{to} is not empty: give another --to, or --overwrite to replace it.")
        if not (to / "manifest.json").is_file():  # whatever it is, it must not be lost to a slip of the pen
            raise FlanError(f"{to} is no checkpoint folder, which --overwrite would replace: give another --to.")
    if source in configuration.model_names():
        tokenizer = vocabularies.ByteTokenizer()
        config = configuration.model_config(source, {"vocab_size": tokenizer.vocab_size})
        params, name = models.build(config).init(jax.random.key(0)), f"random {source}"
    else:
        path = Path(source) if Path(source).exists() else _packaged(source)
        found = gguf.read(path)
        config, params, tokenizer, name = found.config, found.params, found.tokenizer, f"{found.name} ({path.name})"
    record = {"imported": name, "tuning as declared": tuning}
    manifest = checkpoints.Manifest.create(config, tokenizer, status, clusters, record)
    building = to.absolute().with_name(f".{to.absolute().name}.{os.getpid()}")
    try:
        with checkpoints.Saver(building, keep=1) as saver:
            saver.save(0, params)
        tokenizer.save(building / "vocabulary")
        manifest.save(building)
        if to.exists():
            shutil.rmtree(to)
        to.parent.mkdir(parents=True, exist_ok=True)
        building.rename(to)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    count = sum(x.size for x in jax.tree.leaves(params))
    return {"checkpoint": str(to), "model": name, "parameters": int(count), "tuning": manifest.tuning}


def _packaged(source: str) -> Path:
    if source not in pretrained.NAMES:
        known = ", ".join((*pretrained.NAMES, *configuration.model_names()))
        raise FlanError(f"no file {source!r}, and no packaged model of that name; give a GGUF file, or one of {known}.")
    return pretrained.locate(source)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and converts."""
    parser = argparse.ArgumentParser(
        prog="python -m flan_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join((*pretrained.NAMES, *configuration.model_names()))
    parser.add_argument("--from", dest="source", required=True, help=f"a GGUF file, or one of {names}")
    parser.add_argument("--to", required=True, help="the checkpoint folder to make")
    parser.add_argument("--tuning", default="unknown", help="untuned, unknown, or the clusters it was tuned on")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    arguments = parser.parse_args(argv)
    with one_line_errors():
        written = convert(arguments.source, arguments.to, arguments.tuning, arguments.overwrite)
    if arguments.json:
        print(json.dumps(written))
    else:
        tuning = written["tuning"]["status"] + (
            f" {written['tuning']['clusters']}" if written["tuning"]["clusters"] else ""
        )
        print(f"{written['model']}: {written['parameters']:,} parameters in {written['checkpoint']}; tuning: {tuning}")


if __name__ == "__main__":
    main()
