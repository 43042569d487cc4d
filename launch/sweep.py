"""Work units: the training runs and evaluations that a launcher starts, planned in one place for all launchers.

python -m flan_jax.launch.sweep --checkpoint=runs/first --checkpoint=runs/second --clusters=nli,sentiment \
  --shots=0,5 --seeds=0,1 --output=runs/sweep -- --gin.PREPARED_DIR="'prepared'"

plans an evaluation for every checkpoint, cluster, number of exemplars and seed, and prints the units. --run does them
here, one after another; `tpu_vm`, `gke` and `xm_launch` take the same options. With --model_dir=FOLDER it plans a
training too, whose model is evaluated when it is trained. What has results is left out, so the same command goes on
where a sweep stopped. A seed is only varied for styles that draw exemplars or shuffle options. --units=FILE takes what
`flan_jax.study --units=FILE` wrote in place of all of these.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Sequence

from flan_jax import files, options
from flan_jax.errors import FlanError, cannot, one_line_errors
from flan_jax.launch.work import EVAL, MODULES, TRAIN, Unit, program, run_all, run_here, show, unit_name
from flan_jax.values import SEEDS, Kind, Text, Unfit, Whole

RECORD = "sweep.json"  # in the output folder: which checkpoint each name stands for


def plan(
    *,
    model_dir: str | None = None,
    checkpoints: Sequence[str] = (),
    clusters: Sequence[str] = (),
    styles: Sequence[str] = ("instructions",),
    seeds: Sequence[int] = (0,),
    output: str | None = None,
    train_arguments: Sequence[str] = (),
    eval_arguments: Sequence[str] = (),
) -> list[Unit]:
    """The units of a training, of evaluations, or of a training and the evaluations of its model.

    Args:
      model_dir: MODEL_DIR of a training; None for none.
      checkpoints: folders to evaluate, or NAME=FOLDER. Without a name it is the folder's own.
      clusters: clusters and datasets, each a unit of its own.
      styles: see `flan_jax.styles`; each a unit of its own.
      seeds: of exemplars and shuffled options.
      output: the folder of all evaluations: each has OUTPUT/NAME/CLUSTER/STYLE, and in it seed_N if the style draws.
      train_arguments: further arguments of `flan_jax.train`.
      eval_arguments: further arguments of `flan_jax.eval`.

    Raises:
      FlanError: nothing to do, an unknown name, or one that stands for two checkpoints.
    """
    from flan_jax import catalog
    from flan_jax import styles as text_styles

    units: list[Unit] = []
    after: tuple[str, ...] = ()
    named = _named(checkpoints)
    if model_dir is not None:
        model_dir = _folder(model_dir, "--model_dir")
        argv = ("-m", MODULES[TRAIN], *train_arguments, f"--gin.MODEL_DIR={model_dir!r}")
        units.append(Unit(unit_name([TRAIN, model_dir.rsplit("/", 1)[-1]], argv), TRAIN, argv, model_dir))
        after = (units[0].name,)
        if clusters and model_dir not in named.values():
            named = _named([model_dir, *(f"{name}={folder}" for name, folder in named.items())])
    elif train_arguments:
        raise FlanError("arguments for a training are given, but no --model_dir: say where its model goes.")
    if named and not clusters:
        raise FlanError("--checkpoint without --clusters: name the clusters or datasets to evaluate.")
    if clusters and not named:
        raise FlanError("--clusters without a model: give --checkpoint=FOLDER, or --model_dir=FOLDER for a training.")
    if not units and not named:
        raise FlanError("nothing to launch: give --model_dir, --checkpoint with --clusters, or a program after --.")
    if named and output is None:
        raise FlanError("evaluations need --output=FOLDER for their results.")
    for what, given in (("--clusters", clusters), ("--styles and --shots", styles), ("--seeds", seeds)):
        if len(set(given)) < len(given):
            raise FlanError(f"{what}: one is there twice.")
    for cluster in clusters:
        catalog.named(cluster)
    output = _folder(output, "--output") if named and output is not None else ""
    for name, folder in named.items():
        for cluster in clusters:
            for style in styles:
                draws = text_styles.parse(style).draws
                for seed in seeds if draws else seeds[:1]:
                    # What else is in the plan does not count: a larger sweep finds the results of a smaller one.
                    ends = [name, cluster.replace("/", "_"), style, *([f"seed_{seed}"] if draws else [])]
                    own = "/".join([output, *ends])
                    bound = {
                        "CHECKPOINT_PATH": folder,
                        "EVAL_OUTPUT_DIR": own,
                        "DATASETS": (cluster,),
                        "STYLE": style,
                        "SEEDS": (seed,),
                        "RUN_NAME": " ".join([name, *ends[2:]]),
                    }
                    bindings = [f"--gin.{macro}={value!r}" for macro, value in bound.items()]
                    argv = ("-m", MODULES[EVAL], *eval_arguments, *bindings)
                    needs = after if folder == model_dir else ()
                    units.append(Unit(unit_name([EVAL, *ends], argv), EVAL, argv, own, needs))
    return units


def _folder(given: str, option: str) -> str:
    """A folder as a text that stands for it anywhere: a URL as it is, a path of this machine in full."""
    text = str(given).rstrip("/") or "/"
    if "://" in text:
        return text
    return str(files.user_path(text, option).absolute())


def _named(checkpoints: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for given in checkpoints:
        name, equals, folder = given.partition("=")
        if not equals or "/" in name:  # a folder whose path holds an equals sign
            name, folder = "", given
        if not folder.strip():
            raise FlanError(f"--checkpoint={given}: write a folder, or NAME=FOLDER.")
        folder = _folder(folder, "--checkpoint")
        name = name or folder.rsplit("/", 1)[-1]
        if not re.fullmatch(r"[\w.+-]+", name) or name in (".", ".."):
            raise FlanError(f"--checkpoint={given}: give it a name of letters, digits, . + _ and -, as NAME={folder}.")
        if name in found:
            raise FlanError(f"two checkpoints are called {name!r}: give them names, as --checkpoint=second={folder}.")
        found[name] = folder
    return found


# ------------------------------------------------------------------------------------------------------- command line


class _Listed:
    """Values of a kind with commas between them."""

    def __init__(self, kind: Kind, whole: bool = False) -> None:
        self.kind, self.whole = kind, whole
        self.wanted = f"{kind.wanted}, or several with commas between them"

    def fit(self, value: str) -> tuple[object, ...]:
        """The values; raises Unfit."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(parts):
            raise Unfit("it has to be one or more, with commas between them")
        if self.whole and not all(part.isascii() and part.isdecimal() for part in parts):
            raise Unfit
        return tuple(self.kind.fit(int(part) if self.whole else part) for part in parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `from_arguments` reads."""
    group = parser.add_argument_group("what to run", "or a program after --: the arguments of Python, -m flan_jax...")
    text, whole = options.of(Text()), Whole(0, SEEDS)
    group.add_argument("--model_dir", type=text, help="train a model into this folder (MODEL_DIR)")
    group.add_argument(
        "--checkpoint", action="append", default=[], type=text, help="evaluate FOLDER, or NAME=FOLDER; repeatable"
    )
    group.add_argument(
        "--clusters", default=(), type=options.of(_Listed(Text())), help="clusters and datasets to evaluate: nli,rte"
    )
    group.add_argument(
        "--styles", default=("instructions",), type=options.of(_Listed(Text())), help="styles; default instructions"
    )
    group.add_argument(
        "--shots", type=options.of(_Listed(whole, True)), help="numbers of exemplars for each style: 0,5"
    )
    group.add_argument("--seeds", default=(0,), type=options.of(_Listed(whole, True)), help="seeds: 0,1,2; default 0")
    group.add_argument("--output", type=text, help="folder of all evaluations")
    group.add_argument(
        "--train_arg", action="append", default=[], type=text, help="further argument of the training; repeatable"
    )
    group.add_argument(
        "--eval_arg", action="append", default=[], type=text, help="further argument of the evaluations; repeatable"
    )
    group.add_argument(
        "--units", type=options.path, help="run the units of a file that python -m flan_jax.study --units=FILE wrote"
    )
    group.add_argument("--again", action="store_true", help="also what has results already")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses a command line up to the first --; what stands after it is `program`."""
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:end])
    arguments.program = given[end + 1 :]
    return arguments


def from_arguments(arguments: argparse.Namespace, elsewhere: bool = False) -> list[Unit]:
    """The units that a command line asks for, without those that are done.

    Args:
      arguments: of a parser with `add_arguments`.
      elsewhere: they run on other machines, for which a path that begins here means nothing.

    Raises:
      FlanError: see `plan`.
    """
    swept = arguments.model_dir or arguments.checkpoint or arguments.clusters
    if arguments.units:
        for option in ("model_dir", "checkpoint", "clusters", "output", "train_arg", "eval_arg", "program"):
            if given := getattr(arguments, option):
                shown = "-- " + shlex.join(given) if option == "program" else f"--{option}"
                raise FlanError(f"--units={arguments.units} says all that is to run: leave {shown[:200]} out.")
        units = read_units(arguments.units)
        _refuse_relative([unit.output for unit in units if unit.output], elsewhere)
        return _left(units, arguments.again)
    if not swept:
        for option in ("output", "train_arg", "eval_arg"):
            if getattr(arguments, option):
                raise FlanError(f"--{option} is for --model_dir and --checkpoint, of which neither is given.")
        if not arguments.program:
            raise FlanError("nothing to launch: give --model_dir, --checkpoint with --clusters, or a program after --.")
        unit = program(_of_python(arguments.program))
        if elsewhere and unit.output and not unit.output.startswith("/") and "://" not in unit.output:
            raise FlanError(
                f"{unit.output}: what the program writes there would lie on the machines alone, and go with them: give "
                "gs://... or /... of a disk that they share."
            )
        return [unit]
    _refuse_relative(
        [given or "/" for given in (arguments.model_dir, arguments.output, *arguments.checkpoint)], elsewhere
    )
    if arguments.program[:1] == ["-m"]:
        raise FlanError(f"a sweep runs {' and '.join(MODULES.values())}: after -- stand further arguments of these.")
    units = plan(
        model_dir=arguments.model_dir,
        checkpoints=arguments.checkpoint,
        clusters=arguments.clusters,
        styles=_with_shots(arguments.styles, arguments.shots),
        seeds=arguments.seeds,
        output=arguments.output,
        train_arguments=[*arguments.program, *arguments.train_arg] if arguments.model_dir else arguments.train_arg,
        eval_arguments=[*arguments.program, *arguments.eval_arg],
    )
    return _left(units, arguments.again)


def read_units(path: str | files.AnyPath) -> list[Unit]:
    """The units of a file, as `flan_jax.study --units` writes them.

    Raises:
      FlanError: there is none, or it holds no units of programs of ours, each after what it needs.
    """
    file = files.user_path(path, "--units")
    try:
        found = [
            Unit(one["name"], one["job"], tuple(one["argv"]), one["output"], tuple(one["after"]), one.get("done", ""))
            for one in json.loads(file.read_text(encoding="utf-8"))["units"]
        ]
    except OSError as error:
        raise cannot("read the units", path, error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise FlanError(f"{path} holds no units: write it with python -m flan_jax.study --units={path}.") from error
    names: list[str] = []
    for unit in found:
        words = [unit.name, unit.job, unit.output, unit.done, *unit.argv, *unit.after]
        ours = unit.argv[:1] == ("-m",) and unit.argv[1:2] and str(unit.argv[1]).startswith("flan_jax.")
        if not all(isinstance(word, str) for word in words) or not ours or unit.name in names:
            raise FlanError(f"{path}: unit {len(names)} is none of a study: write it with python -m flan_jax.study.")
        if missing := [name for name in unit.after if name not in names]:
            raise FlanError(f"{path}: {unit.name} comes before {missing[0]}, which it needs: write it again.")
        names.append(unit.name)
    return found


def _left(units: Sequence[Unit], again: bool) -> list[Unit]:
    """The units that are not done yet, which wait for no other ones."""
    left = list(units) if again else [unit for unit in units if not _seen_done(unit)]
    if len(left) < len(units):
        print(f"{len(units) - len(left)} of {len(units)} units have results; --again runs them too", file=sys.stderr)
    there = {unit.name for unit in left}
    return [dataclasses.replace(unit, after=tuple(name for name in unit.after if name in there)) for unit in left]


def _refuse_relative(given: Sequence[str], elsewhere: bool) -> None:
    """Refuses paths that begin here, where programs run on other machines."""
    for one in given if elsewhere else ():
        path = one.partition("=")[2] if re.match(r"[^/=]+=", one) else one
        if not path.startswith("/") and "://" not in path:
            raise FlanError(f"{path}: the machines cannot see a folder that is given from here: give gs://... or /....")


def _of_python(words: Sequence[str]) -> Sequence[str]:
    """A program as the arguments of Python: with or without a first word python."""
    rest = words[1:] if re.fullmatch(r"(\S*/)?python[\d.]*", words[0]) else words
    if not rest or not rest[0].strip() or rest[0].startswith("--"):
        raise FlanError(f"after -- stands {shlex.join(words)[:200]}, which is no program: write -m flan_jax.train ...")
    return rest


def _with_shots(styles: Sequence[str], shots: Sequence[int] | None) -> tuple[str, ...]:
    if shots is None:
        return tuple(styles)
    found = []
    for style in styles:
        for number in shots:
            ending = f"{number}_shots"
            found.append(style if number == 0 else ending if style == "instructions" else f"{style}_{ending}")
    return tuple(found)


def _checkpoint(unit: Unit) -> str:
    """The folder that an evaluation reads; "" where a program that was written out does not bind it to a text."""
    bound = [a.partition("=")[2] for a in unit.argv if a.startswith("--gin.CHECKPOINT_PATH=")]
    with contextlib.suppress(ValueError, SyntaxError):  # which the program will say
        return str(ast.literal_eval(bound[-1])) if bound else ""
    return ""


def _seen_done(unit: Unit) -> bool:
    try:
        return unit.is_done()
    except FlanError as error:
        print(f"{unit.name} counts as not done, since its folder cannot be seen from here: {error}", file=sys.stderr)
        return False


def check_checkpoints(units: Sequence[Unit]) -> None:
    """Makes sure that what is to be evaluated here is there, before the first unit runs for hours.

    Raises:
      FlanError: a checkpoint's folder is missing, and no unit trains it.
    """
    trained = {unit.output for unit in units if unit.job != EVAL}
    for folder in dict.fromkeys(_checkpoint(unit) for unit in units if unit.job == EVAL):
        if folder.startswith("/") and folder not in trained and not files.user_path(folder, "--checkpoint").is_dir():
            raise FlanError(f"--checkpoint: there is no folder {folder}: correct its name, or train it by --model_dir.")


def keep_record(units: Sequence[Unit], output: str | None, elsewhere: bool = False) -> None:
    """Writes down in the output folder which checkpoint each name stands for, so that no later sweep mixes two.

    Args:
      units: what is to run.
      output: the folder of all evaluations.
      elsewhere: they run on other machines; a folder of that name here is theirs only if it is there already.

    Raises:
      FlanError: an earlier sweep into this folder gave a name to another checkpoint.
    """
    checkpoints = {}
    for unit in units:
        if unit.job == EVAL and output is not None:
            name = unit.output.removeprefix(_folder(output, "--output") + "/").partition("/")[0]
            checkpoints[name] = _checkpoint(unit)
    if not checkpoints or output is None:
        return
    try:
        path = files.user_path(_folder(output, "--output")) / RECORD
        if elsewhere and "://" not in output and not path.parent.is_dir():
            return
        with files.written(path, "read"):
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        if isinstance(error, FlanError) and elsewhere:
            return  # a place that only the hosts can see
        if isinstance(error, FlanError):
            raise
        raise FlanError(f"{output}/{RECORD} is damaged: delete it, or choose another --output.") from error
    for name, folder in checkpoints.items():
        if known.get(name, folder) != folder:
            raise FlanError(
                f"in {output}, {name!r} stands for {known[name]}, not for {folder}: "
                f"give it another name, as --checkpoint=NAME={folder}, or choose another --output."
            )
    files.make_folder(path.parent)
    files.write_atomic(path, json.dumps({**known, **checkpoints}, indent=1, sort_keys=True) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line; prints the units, or runs them here."""
    parser = options.Parser(
        prog="python -m flan_jax.launch.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s OPTIONS [-- ARGUMENTS OF EVERY UNIT]",
    )
    add_arguments(parser)
    parser.add_argument("--run", action="store_true", help="run the units here, one after another")
    parser.add_argument("--dry_run", action="store_true", help="print the units; as without --run")
    parser.add_argument(
        "--restarts", type=options.count_or_none, default=3, help="restarts in a row without progress; default 3"
    )
    parser.add_argument("--json", action="store_true", help="print the units as one JSON object")
    with one_line_errors():
        arguments = parse(parser, argv)
        units = from_arguments(arguments)
        if not arguments.run or arguments.dry_run:
            show(units, arguments.json)
            return
        check_checkpoints(units)
        keep_record(units, arguments.output)
        sys.exit(run_all(units, lambda unit: run_here(unit, arguments.restarts)))


if __name__ == "__main__":
    main()
