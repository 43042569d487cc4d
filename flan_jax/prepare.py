"""Renders and tokenizes datasets for training, and writes their dev and test examples for evaluation.

python -m flan_jax.prepare --data=samples --vocabulary=models/gemma3-270m/vocabulary --to=prepared
python -m flan_jax.prepare --data=samples --style=instructions,5_shots --mixture=flan_without_nli --to=prepared
python -m flan_jax.prepare --jsonl=chat.jsonl --name=my_chat --cluster=unknown --to=prepared
python -m flan_jax.prepare --jsonl=chat.jsonl --chat --vocabulary=models/gemma3-270m/vocabulary --to=prepared
python -m flan_jax.prepare --seqio=my_task --module=my_tasks --cluster=sentiment --to=prepared
python -m flan_jax.prepare --evaluate --checkpoint=models/gemma3-270m --style=5_shots --datasets=nli --to=prepared

Several styles of a dataset are made in one pass over its source. --mixture also takes the file of a mixture of parts.

--evaluate writes only what an evaluation needs: dev and test examples, and the rendered and tokenized prompts for a
checkpoint. The accelerator then does not wait for that work.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flan_jax import catalog, options, output, parts, protocol, styles, ways
from flan_jax.data import left_out, vocabularies
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.own import command as own_command
from flan_jax.data.prepare_datasets import num_workers, prepare_datasets, result_of
from flan_jax.data.samples import SAMPLES
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.files import AnyPath, user_path
from flan_jax.json_lines import to_json
from flan_jax.lazy import lazy_imports
from flan_jax.parts import OF
from flan_jax.quiet import quiet_loggers
from flan_jax.values import OUR_DATA, TOKENS
from flan_jax.wording import counted

with lazy_imports():  # if workers prepare, this process needs no TensorFlow
    from flan_jax.checkpoint import manifest
    from flan_jax.data import line_tokens, preparation, source_check
    from flan_jax.evaluation import evaluator, prompt_store
    from flan_jax.scoring import scorer


_OF_EVALUATION = ("checkpoint", "max_examples", "max_dev_examples")


def chosen_datasets(names: str, mixture: str) -> tuple[catalog.Dataset, ...]:
    """The datasets of --datasets (datasets and clusters, separated by commas) and of --mixture; by default all.

    Raises:
      FlanError: an unknown name, with near matches.
    """
    if not names and not mixture:
        return catalog.datasets()
    chosen = list(parts.of(mixture).datasets) if mixture else []
    for name in filter(None, (n.strip() for n in names.split(","))):
        chosen += [catalog.dataset(catalog.whole(record.name)) for record in catalog.named(name)]
    return tuple(dict.fromkeys(chosen))


def chosen_styles(
    names: str, mixture: str, chosen: Sequence[catalog.Dataset]
) -> dict[str, tuple[styles.TextStyle, ...]]:
    """The styles of each dataset: those of --style (separated by commas), or those that the mixture uses.

    Raises:
      FlanError: an unknown style, the same style twice, or styles that differ from the mixture's.
    """
    of_mixture = parts.of(mixture) if mixture else None
    if not names:
        own = {record.name: of_mixture.styles_of(record.name) if of_mixture else () for record in chosen}
        # For datasets that --datasets adds to those of a mixture.
        usual = of_mixture.styles if of_mixture else (styles.PAPER,)
        return {name: found or usual for name, found in own.items()}
    found: list[styles.TextStyle] = []
    for name in names.split(","):
        style = styles.parse(name.strip()) if name.strip() else None
        if style is None or style in found:
            what = f"the style {style.name!r} is there twice" if style else "a style is missing between commas"
            raise FlanError(f"--style={names}: {what}: name each once.")
        found.append(style)
    if of_mixture is not None and of_mixture.styles != (styles.PAPER,) and set(of_mixture.styles) != set(found):
        raise FlanError(f"--style={names} and --mixture={mixture} name different styles; give one of them.")
    return dict.fromkeys((record.name for record in chosen), tuple(found))


def _show(result: Mapping[str, Any], data: str) -> None:
    console = Console(width=output.width(180), markup=False, emoji=False)  # file names are shown as they are
    table = Table(box=None, header_style="bold")
    heads = (
        "dataset",
        "cluster",
        "train",
        "renderings",
        "tokens",
        "input",
        "target",
        "cut inputs",
        "cut targets",
        "too long",
    )
    for head in (*heads, "dev", "test", "from"):
        table.add_column(head, justify="left" if head in ("dataset", "cluster", "from") else "right")
    few: list[str] = []
    for d in (
        one | own | ({"dataset": f"{one['dataset']}{OF}{style}"} if style else {})
        for one in result["datasets"]
        for style, own in one.get("styles", {"": {}}).items()
    ):
        lengths = (f"{d['mean_input_length']:.0f}", f"{d['mean_target_length']:.1f}")
        counts = [f"{d.get(k, 0):,}" for k in ("trimmed", "cut_targets", "overlong", "dev", "test")]
        start = (d["dataset"], d["cluster"], f"{d['train']:,}", str(d["renderings"]), f"{d['num_tokens']:,}")
        table.add_row(*start, *lengths, *counts, d["origin"] + (" (kept)" if d["kept"] else ""))
        if unanswerable := d.get("unanswerable"):
            few.append(
                f"{d['dataset']}: {counted(unanswerable, 'training examples')} left out, as their records speak of "
                "options that this style does not show."
            )
        if (shots := d.get("shots")) and shots["mean"] < shots["wanted"]:
            few.append(
                f"{d['dataset']}: prompts have {shots['mean']:.1f} of {shots['wanted']} exemplars on average, as many "
                f"as fit; {shots['without']:,} of {shots['of']:,} have none."
            )
    console.print(table)
    for line in few:
        print(line)
    if data != SAMPLES:  # our samples have records of every kind on purpose
        for line in left_out.lines(result["bad_rows"], result["notes"]):
            print(f"left out: {line}")
    for s in result["skipped"]:
        print(f"skipped {s['dataset']}: {s['reason']}. To do: {s['remedy']}.")
    if "packing" in result:
        packing = result["packing"]
        print(f"rows of 1,280 slots are filled to {packing['fill']:.4f}; {packing['dropped']} draws had no room.")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and prepares the datasets."""
    parser = options.Parser(
        prog="python -m flan_jax.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="samples", type=options.data, help="samples, tfds, or a folder of JSONL or TFDS data"
    )
    parser.add_argument("--datasets", default="", help="datasets and clusters, separated by commas; by default all")
    parser.add_argument(
        "--mixture", default="", help="a mixture, or a file with one: prepares its datasets and reports its packing"
    )
    parser.add_argument(
        "--vocabulary",
        type=options.vocabulary,
        help="bytes (the default), a vocabulary folder, .model or tokenizer.json",
    )
    parser.add_argument("--to", type=options.path, help="PREPARED_DIR")
    parser.add_argument("--check", action="store_true", help="only show the state of each source")
    parser.add_argument(
        "--style", default="", help="how records become text: no_template, 5_shots, ...; several separated by commas"
    )
    parser.add_argument(
        "--workers", type=options.count_or_none, default=0, help="number of processes; by default one for each core"
    )
    parser.add_argument(
        "--seed", type=options.seed, default=0, help="seed of templates, exemplars and shuffled options"
    )
    parser.add_argument(
        "--max_input_length", type=options.of(TOKENS), default=protocol.MAX_INPUT_TOKENS, help="most tokens of an input"
    )
    parser.add_argument(
        "--max_target_length",
        type=options.of(TOKENS),
        default=protocol.MAX_TARGET_TOKENS,
        help="most tokens of a target with its EOS",
    )
    parser.add_argument("--shards", default="", help="prepare with Apache Beam, with shards in this folder (gs://...)")
    parser.add_argument("--beam_pipeline_options", default="", help="options of Beam, such as runner=DirectRunner,...")
    parser.add_argument("--evaluate", action="store_true", help="write only what an evaluation needs")
    parser.add_argument(
        "--checkpoint", type=options.path, help="with --evaluate: the checkpoint whose vocabulary and joint are used"
    )
    parser.add_argument(
        "--joint",
        default=protocol.AUTO,
        choices=protocol.JOINTS,
        help="with --evaluate: what stands between prompt and answer",
    )
    parser.add_argument(
        "--max_examples",
        type=options.count,
        help="with --evaluate: test examples of each dataset; for your own data: records",
    )
    parser.add_argument(
        "--max_dev_examples", type=options.count_or_none, help="with --evaluate: dev examples of each dataset"
    )
    parser.add_argument(
        "--ways", default="", help="with --evaluate: further ways to score, separated by commas, such as pmi,channel"
    )
    _add_own_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="prepare again what exists")
    parser.add_argument("--tasks", **options.TASKS)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    quiet_loggers()
    with one_line_errors():
        arguments = parser.parse_args(argv)
        if own_command.given(arguments):
            _prepare_own(arguments, parser)
            return
        # Before TensorFlow starts, which takes many seconds.
        if arguments.data not in OUR_DATA and not user_path(arguments.data, "--data").is_dir():
            raise FlanError(f"no folder {arguments.data}: --data is samples, tfds, or a folder of data.")
        chosen = chosen_datasets(arguments.datasets, arguments.mixture)
        if arguments.check:
            _check(chosen, arguments)
            return
        if not arguments.to:
            raise FlanError("prepare needs --to=PREPARED_DIR, where tokens and examples go.")
        if arguments.evaluate:
            _prepare_evaluation(chosen, arguments)
            return
        alone = {"joint": protocol.AUTO, "ways": ""} | dict.fromkeys(_OF_EVALUATION)
        if given := [name for name, value in alone.items() if getattr(arguments, name) != value]:
            raise FlanError(f"--{given[0]} is for prompts of an evaluation: add --evaluate, or leave it out.")
        tokenizer = vocabularies.load(arguments.vocabulary or "bytes")
        of_each = chosen_styles(arguments.style, arguments.mixture, chosen)
        limits = (arguments.seed, arguments.max_input_length, arguments.max_target_length)
        settings = preparation.Options(*limits)
        to = user_path(arguments.to, "--to")
        workers = num_workers(arguments.workers, len(chosen))
        if arguments.shards or arguments.beam_pipeline_options:
            result = _prepare_with_beam(chosen, arguments, dataclasses.replace(settings, style=_one_style(of_each)))
        else:
            where = (arguments.data, tokenizer, to, settings, arguments.overwrite, workers)
            result = prepare_datasets(chosen, *where, of_each)
        if arguments.mixture:
            result["packing"] = packing_report(arguments.mixture, arguments.style, to, tokenizer, settings)
        _show(result, arguments.data)
        if arguments.json:
            print(to_json(result))
        if refused := [s for s in result["skipped"] if s["refused"]]:
            first = f"{refused[0]['reason']}; {refused[0]['remedy']}"
            raise FlanError(
                f"{len(refused)} of {counted(len(chosen), 'datasets')} not prepared ({first}); the others are."
            )


def _add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options for a user's own data."""
    group = parser.add_argument_group("data of your own (docs/your_data.md)")
    group.add_argument("--jsonl", type=options.path, help="JSON lines of prompts and targets, or of conversations")
    group.add_argument(
        "--chat",
        nargs="?",
        const="",
        metavar="TEMPLATE",
        help="write conversations by the vocabulary's chat template, or the one with this name; without --chat, in the "
        "plain form",
    )
    group.add_argument("--seqio", help="the name of a SeqIO task or mixture with inputs and targets")
    group.add_argument("--module", help="with --seqio: the module that registers it, as Python imports it")
    group.add_argument("--name", help="name of the dataset; by default from the file or the task")
    group.add_argument(
        "--cluster", help='a cluster of the catalog, or "unknown" (the default): nothing is then held out'
    )
    group.add_argument("--input_key", help="key of the prompt, if a line has other keys than the usual ones")
    group.add_argument("--target_key", help="key of the target, likewise")
    group.add_argument("--metric", help="for records without options: exact_match, f1, rouge, or a metric's name")
    group.add_argument(
        "--dev", type=options.count_or_none, help="records held back for dev; by default a tenth, up to 200"
    )
    group.add_argument(
        "--test", type=options.count_or_none, help="records held back for test; by default a tenth, up to 200"
    )
    group.add_argument("--leave_out", action="store_true", help="leave out the records that cannot be used")


def _prepare_own(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    result = own_command.prepare(arguments, parser)
    _show(result | {"notes": []}, arguments.jsonl or arguments.seqio)
    for note in result["notes"]:
        print(f"note: {note}.")
    print(own_command.advice(result["datasets"][0], arguments.to))
    if arguments.json:
        print(to_json(result))


def _check(chosen: Sequence[catalog.Dataset], arguments: argparse.Namespace) -> None:
    """Prints the state of each source.

    Raises:
      FlanError: no source can be used.
    """
    states = []
    for state in source_check.check_all(chosen, arguments.data):
        states.append(state)
        print(f"[{len(states)}/{len(chosen)}] {state.dataset}: {state.state}", flush=True)
    Console(width=output.width(200), markup=False, emoji=False).print(source_check.table(states))
    counts = collections.Counter(state.state for state in states)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if arguments.data != SAMPLES:
        for line in left_out.lines((row for s in states for row in s.bad_rows), (n for s in states for n in s.notes)):
            print(f"left out: {line}")
    if arguments.json:
        print(to_json({"sources": [dataclasses.asdict(state) for state in states], "counts": counts}))
    if set(counts) <= {source_check.DEAD, source_check.MANUAL}:
        raise FlanError(f"no source can be used with --data={arguments.data}: look at the states above.")


def _prepare_evaluation(chosen: Sequence[catalog.Dataset], arguments: argparse.Namespace) -> None:
    """Writes dev and test examples, and the tokenized prompts of datasets whose options are ranked.

    Raises:
      FlanError: vocabulary or joint is not given, or nothing could be prepared.
    """
    if arguments.shards or arguments.beam_pipeline_options:
        raise FlanError("--evaluate works in this process alone: leave --shards and --beam_pipeline_options out.")
    if bool(arguments.checkpoint) == bool(arguments.vocabulary):
        raise FlanError("--evaluate needs --checkpoint=FOLDER, or --vocabulary and --joint, and not both.")
    trained, has_encoder = None, False
    if arguments.checkpoint:
        of = manifest.Manifest.load(arguments.checkpoint)
        tokenizer = of.load_vocabulary(arguments.checkpoint)
        trained, has_encoder = of.separator, of.model.get("num_encoder_layers", 0) > 0
    else:
        if arguments.joint == protocol.AUTO:
            raise FlanError("without a checkpoint, --evaluate needs --joint, which a checkpoint would decide.")
        tokenizer = vocabularies.load(arguments.vocabulary)
    style, to = _one_style(chosen_styles(arguments.style, arguments.mixture, chosen)), user_path(arguments.to, "--to")
    how = evaluator.Settings(
        max_examples=arguments.max_examples,
        max_input_tokens=arguments.max_input_length,
        style=style.name,
        seed=arguments.seed,
        ways=tuple(ways.way(name.strip()).name for name in arguments.ways.split(",") if name.strip()),
    )
    if arguments.max_dev_examples is not None:
        how = dataclasses.replace(how, max_dev_examples=arguments.max_dev_examples)
    # Before the work, so that an impossible joint is found at once.
    protocol.joint(trained, has_encoder, arguments.joint)
    workers = num_workers(arguments.workers, len(chosen))
    limits = preparation.Options(arguments.seed, style=style)
    result = prepare_datasets(chosen, arguments.data, None, to, limits, arguments.overwrite, workers)
    tokenizer = line_tokens.LineTokenizer(tokenizer)
    result["prompts"] = []
    with_test = [how.protocol_of(catalog.dataset(one["dataset"])) for one in result["datasets"] if "test" in one]
    for asked in (variant for whole in with_test for variant in whole.variants):
        if not asked.ranked:
            continue
        joint = asked.joint(trained, has_encoder, arguments.joint)
        figures = prompt_store.prepare(
            to,
            asked,
            tokenizer,
            joint,
            scorer.ROW_LENGTHS[-1],
            max_examples=how.max_examples,
            max_dev_examples=how.max_dev_examples,
            seed=how.seed,
            names=how.ways,
        )
        result["prompts"].append(figures)
        left = f", {figures['left_out']:,} that cannot be asked" if figures["left_out"] else ""
        kept = f" ({figures['kept']} of {figures['units']} files were there)" if figures["kept"] else ""
        print(f"{figures['dataset']}: {figures['prompts']:,} prompts, joint {joint}{left}{kept}", flush=True)
    if arguments.data != SAMPLES:
        for line in left_out.lines(result["bad_rows"], result["notes"]):
            print(f"left out: {line}")
    for s in result["skipped"]:
        print(f"skipped {s['dataset']}: {s['reason']}. To do: {s['remedy']}.")
    if arguments.json:
        print(to_json(result))


def _prepare_with_beam(
    chosen: Sequence[catalog.Dataset], arguments: argparse.Namespace, settings: preparation.Options
) -> dict[str, Any]:
    if not (arguments.shards and arguments.beam_pipeline_options):
        raise FlanError("Beam needs both --shards=FOLDER and --beam_pipeline_options=runner=DirectRunner, or another.")
    try:
        from flan_jax.data import beam
    except ModuleNotFoundError as error:
        raise FlanError("Apache Beam is not installed: pip install 'flan-jax[beam]'.") from error
    outcomes = beam.prepare(
        chosen,
        arguments.data,
        arguments.vocabulary or "bytes",
        user_path(arguments.to, "--to"),
        settings,
        arguments.shards,
        arguments.beam_pipeline_options,
        arguments.overwrite,
    )
    return result_of(outcomes, arguments.data)


def _one_style(of_each: Mapping[str, Sequence[styles.TextStyle]]) -> styles.TextStyle:
    """The one style of all datasets.

    Raises:
      FlanError: there are several.
    """
    every = list(dict.fromkeys(style for found in of_each.values() for style in found))
    if len(every) > 1:
        names = ", ".join(style.name for style in every)
        raise FlanError(f"--evaluate and --shards take one style at a time, not {names}: give --style, one of them.")
    return every[0]


def packing_report(
    mixture: str, style: str, to: AnyPath, tokenizer: vocabularies.Tokenizer, settings: preparation.Options
) -> dict[str, Any]:
    """How full the packed rows of a mixture are, in the given styles or in its own; see `Stream.report`."""
    lengths = {"inputs": settings.max_input_length, "targets": settings.max_target_length}
    wanted = parts.of(mixture)
    if style and wanted.styles == (styles.PAPER,):
        wanted = parts.of(wanted, styles=tuple(name.strip() for name in style.split(",")))
    return open_mixture(wanted, to, tokenizer, lengths=lengths)[1].report()


if __name__ == "__main__":
    main()
