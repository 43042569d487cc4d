"""The commands `python -m flan_jax.prepare --jsonl` and `--seqio`."""

from __future__ import annotations

import argparse
import re
from typing import Any

from flan_jax import own_data
from flan_jax.catalog import UNKNOWN_CLUSTER
from flan_jax.data import vocabularies
from flan_jax.data.own import jsonl, store, templated
from flan_jax.errors import FlanError
from flan_jax.files import user_path
from flan_jax.wording import counted

_OWN = ("name", "cluster", "input_key", "target_key", "metric", "dev", "test", "leave_out", "module")
_OWN += ("chat",)
_CATALOG = ("datasets", "mixture", "check", "style", "workers", "seed", "shards", "beam_pipeline_options", "evaluate")
_CATALOG += ("checkpoint", "max_dev_examples", "ways", "data", "joint")


def given(arguments: argparse.Namespace) -> bool:
    """Whether a user's own data are to be prepared.

    Raises:
      FlanError: an option for them is given, but no data.
    """
    if arguments.jsonl or arguments.seqio:
        return True
    if alone := [name for name in _OWN if getattr(arguments, name) not in (None, False)]:
        raise FlanError(f"--{alone[0]} is for data of your own: give --jsonl=FILE or --seqio=NAME with it.")
    return False


def prepare(arguments: argparse.Namespace, defaults: argparse.ArgumentParser) -> dict[str, Any]:
    """Prepares a user's own data, and returns what `prepare_datasets` returns.

    Raises:
      FlanError: bad input.
    """
    if arguments.jsonl and arguments.seqio:
        raise FlanError("--jsonl and --seqio are two datasets: prepare one after the other, into the same --to.")
    if other := [n for n in _CATALOG if getattr(arguments, n) != defaults.get_default(n)]:
        raise FlanError(f"--{other[0]} is for datasets of the catalog: leave it out with --jsonl and --seqio.")
    of_lines = arguments.input_key or arguments.target_key
    if (arguments.module and not arguments.seqio) or (of_lines and not arguments.jsonl):
        wrong, right = ("module", "seqio") if arguments.module and not arguments.seqio else ("input_key", "jsonl")
        raise FlanError(f"--{wrong} is for --{right}: leave it out, or give both.")
    if arguments.chat is not None and not arguments.jsonl:
        raise FlanError("--chat is for conversations of --jsonl: leave it out with --seqio.")
    if not arguments.to:
        raise FlanError("prepare needs --to=PREPARED_DIR, where tokens and examples go.")
    to, cluster = user_path(arguments.to, "--to"), arguments.cluster or UNKNOWN_CLUSTER.name
    file = user_path(arguments.jsonl, "--jsonl") if arguments.jsonl else None
    where = file.name if file else arguments.seqio
    name = arguments.name or re.sub(r"\W+", "_", where.removesuffix(".jsonl").lower()).strip("_")
    store.check_name(name, cluster)
    tokenizer = vocabularies.load(arguments.vocabulary or "bytes")
    limits = store.Limits(arguments.max_input_length, arguments.max_target_length)
    writer = None
    if arguments.chat is not None:
        if of_lines:
            raise FlanError("--chat is for conversations: leave --input_key and --target_key out.")
        writer = templated.Writer(tokenizer, arguments.chat)
    if file:
        plain = store.without_control_tokens(tokenizer)
        reading = jsonl.read(
            file,
            input_key=arguments.input_key or "",
            target_key=arguments.target_key or "",
            max_examples=arguments.max_examples,
            room=limits.room(tokenizer),
            writer=writer,
            count=lambda texts: [len(ids) for ids in tokenizer.encode([plain(text) for text in texts])],
        )
    else:
        from flan_jax.data.own import seqio_tasks  # it imports TensorFlow

        reading = seqio_tasks.read(arguments.seqio, arguments.module, max_examples=arguments.max_examples)
    reading.check(str(file or arguments.seqio), arguments.leave_out)
    for part in ("dev", "test"):
        if reading.splits.get(part) and getattr(arguments, part) is not None:
            raise FlanError(f"{arguments.seqio} has a split for {part} of its own: leave --{part} out.")
    definition = store.definition_of(
        name,
        cluster,
        f"{own_data.JSONL if file else own_data.SEQIO}:{where}",
        reading,
        arguments.metric or "",
        writer.digest if writer else "",
        tokenizer.fingerprint,
    )
    held = {"dev": arguments.dev, "test": arguments.test}
    figures = store.write(definition, reading, tokenizer, to, limits, **held, overwrite=arguments.overwrite)
    left = [f"{counted(len(reading.bad), f'{reading.unit}s')} left out in all"] if reading.bad else []
    return {"datasets": [figures], "skipped": [], "bad_rows": reading.named, "notes": [*left, *figures["notes"]]}


def advice(figures: dict[str, Any], to: str) -> str:
    """What a user can do next with the prepared dataset."""
    scored = "their options" if figures["metrics"] == ["accuracy"] else f"generation ({figures['metrics'][0]})"
    unknown, test = figures["cluster"] == UNKNOWN_CLUSTER.name, figures.get("test", 0)
    held_out = "; its cluster is unknown, so that no score of a model tuned on it will say held out" if unknown else ""
    return (
        f"tune on it with --gin.MIXTURE_OR_TASK_NAME=\"'{figures['dataset']}'\" --gin.PREPARED_DIR=\"'{to}'\"; "
        f"{counted(test, 'test records')} {'is' if test == 1 else 'are'} scored by {scored}{held_out}."
    )
