"""Converts other people's weights into a checkpoint folder with a manifest, and our checkpoints into other formats.

python -m flan_jax.convert --from=gemma3-270m --to=models/gemma3-270m --tuning=untuned
python -m flan_jax.convert --from=downloads/flan-t5-small --to=models/flan-t5-small --tuning=all
python -m flan_jax.convert --from=runs/first --to=exports/first --format=huggingface
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import configuration, options
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import AnyPath, is_remote, local, user_path
from flan_jax.formats import names
from flan_jax.json_lines import to_json
from flan_jax.lazy import lazy_imports
from flan_jax.values import WEIGHTS, Where

with lazy_imports():  # so that a wrong command line is reported at once
    from flan_jax.checkpoint import adapters
    from flan_jax.checkpoint import manifest as manifests
    from flan_jax.data import vocabularies
    from flan_jax.formats import conversion, native, pretrained, t5x
    from flan_jax.formats import source as opened


def convert(
    source: str,
    to: str | AnyPath,
    tuning: str | None = None,
    overwrite: bool = False,
    form: str = names.NATIVE,
    model: str | None = None,
    vocabulary: str | None = None,
    dtype: str = "float32",
    step: int | None = None,
    which: str = WEIGHTS[0],
) -> Mapping[str, Any]:
    """Converts `source` and writes the result as a new folder.

    Args:
      source: a GGUF file; a folder of transformers, T5X or FLAN-JAX; a name of `names.PACKAGED`; or a model of
        `gin/models/`, which gives random parameters with the byte vocabulary.
      to: the folder to make.
      tuning: what the model was tuned on: "untuned", "unknown", "all", or clusters. Nothing is guessed. A source with a
        manifest needs none.
      overwrite: whether to replace an existing folder.
      form: one of `names.FORMATS`.
      model: the shape of a T5X checkpoint: a model of `gin/models/`, or a gin file.
      vocabulary: the vocabulary of a T5X checkpoint.
      dtype: the dtype of the weights with form "huggingface".
      step: which step of a FLAN-JAX checkpoint folder; None takes the last.
      which: its last parameters or their mean over steps: one of `values.WEIGHTS`.

    Returns:
      A summary of what was written.

    Raises:
      FlanError: bad input; `to` is then unchanged.
    """
    to = user_path(to, "--to")
    if tuning is not None:
        conversion.declared(tuning)  # before anything is read, so that a misspelt cluster is found at once
    read = None if source in configuration.model_names() else user_path(source, "--from")
    conversion.check_destination(to, overwrite, read if read is not None and read.exists() else None)
    if form == names.PEFT:
        return _adapters(user_path(source, "--from"), to, tuning, step, which)
    found, checkpoint = _open(source, model, vocabulary, step, which)
    manifest = conversion.manifest_of(found, tuning, form, user_path(source, "--from"))
    kept: dict[str, Any] = {}
    if form == names.T5X and checkpoint is not None:
        kept = {"optimizer": t5x.read_optimizer(checkpoint), "scanned": t5x.is_scanned(checkpoint)}
    return conversion.write(found, to, manifest, form, dtype, **kept)


def _adapters(folder: AnyPath, to: AnyPath, tuning: str | None, step: int | None, which: str) -> Mapping[str, Any]:
    """Writes only the weights that a run with LORA or PROMPT_LENGTH has trained."""
    base = adapters.load(folder) if folder.is_dir() else None
    if base is None:
        raise FlanError(
            f"{folder} holds no adapters of a run with LORA or PROMPT_LENGTH: leave --format={names.PEFT} out."
        )
    plain = native.read(base.check(), base.step)
    step, found = native.adapters_of(folder, step, which)
    source = dataclasses.replace(plain, name=f"{folder.name} step {step}", manifest=manifests.Manifest.load(folder))
    manifest = conversion.manifest_of(source, tuning, names.PEFT)
    name = user_path(base.checkpoint).name
    return conversion.write(source, to, manifest, names.PEFT, adapters=found, base=name)


def _open(
    source: str, model: str | None, vocabulary: str | None, step: int | None, which: str
) -> tuple[opened.Source, AnyPath | None]:
    if source in configuration.model_names():
        if step is not None:
            raise FlanError(f"{source} is a shape, of which random parameters are made: leave --step={step} out.")
        config = configuration.model_config(source, {"vocab_size": vocabularies.ByteTokenizer().vocab_size})
        return conversion.random(config, source), None
    path = user_path(source, "--from")
    if not path.exists():
        if "/" in source:
            raise FlanError(
                f"no file or folder {source!r}: give a GGUF file, or a folder of transformers, T5X or FLAN-JAX."
            )
        if source not in names.PACKAGED:
            known = ", ".join((*names.PACKAGED, *configuration.model_names()))
            raise FlanError(
                f"no file {source!r}, and no packaged model of that name; give a GGUF file, a folder of transformers, "
                f"T5X or FLAN-JAX, or one of {known}."
            )
        path = pretrained.locate(source)
    config = None if model is None else configuration.model_config(model)
    if is_remote(path) and not (path / "checkpoints").is_dir():
        path = local(path)  # the libraries that read other people's formats only know local disks
    checkpoint = t5x.locate(path) if not is_remote(path) and path.is_dir() else None
    return conversion.open_source(path, config, vocabulary, step, which), checkpoint


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and converts."""
    parser = options.Parser(
        prog="python -m flan_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = (*names.PACKAGED, *configuration.model_names())
    source_help = f"a GGUF file, a folder of transformers, T5X or FLAN-JAX, or one of {', '.join(known)}"
    source = options.of(Where(known, wanted="the path of a file or folder, or a name"))
    parser.add_argument("--from", dest="source", required=True, type=source, help=source_help)
    parser.add_argument("--to", required=True, type=options.path, help="the folder to make")
    parser.add_argument(
        "--format", dest="form", default=names.NATIVE, choices=names.FORMATS, help="format to write; ours by default"
    )
    parser.add_argument(
        "--tuning", help="what the model was tuned on: untuned, unknown (the default), all, or clusters"
    )
    parser.add_argument("--model", help="the shape of a T5X checkpoint: a name of gin/models, or a gin file")
    parser.add_argument(
        "--vocabulary",
        type=options.vocabulary,
        help="the vocabulary of a T5X checkpoint: a SentencePiece .model, or bytes",
    )
    parser.add_argument(
        "--dtype", default="float32", choices=names.DTYPES, help="dtype of the weights with --format=huggingface"
    )
    parser.add_argument("--step", type=options.count_or_none, help="step of a FLAN-JAX folder; by default the last")
    options.add_parameters(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    with one_line_errors():
        arguments = vars(parser.parse_args(argv))
        as_json = arguments.pop("json")
        written = convert(**arguments)
        if as_json:
            print(to_json(written))
            return
        clusters = written["tuning"]["clusters"]
        tuning = written["tuning"]["status"] + (f" {clusters}" if clusters else "")
        print(f"{written['model']}: {written['parameters']:,} parameters in {written['checkpoint']}; tuning: {tuning}")


if __name__ == "__main__":
    main()
