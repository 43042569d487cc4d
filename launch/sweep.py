"""Work units: the training runs and evaluations that a launcher starts, planned in one place for all launchers.

python -m flan_jax.launch.sweep --checkpoint=runs/first --checkpoint=runs/second --clusters=nli,sentiment \
  --shots=0,5 --seeds=0,1 --output=runs/sweep -- --gin.PREPARED_DIR="'prepared'"

plans an evaluation for every checkpoint, cluster, number of exemplars and seed, and prints the units. --run does them
here, one after another; `tpu_vm`, `gke` and `xm_launch` take the same options. With --model_dir=FOLDER it plans a
training too, whose model is evaluated when it is trained. What has results is left out, so the same command goes on
where a sweep stopped. A seed is only varied for styles that draw exemplars or shuffle options.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from flan_jax import files, options
from flan_jax.errors import PREEMPTED, FlanError, one_line_errors
from flan_jax.values import SEEDS, Kind, Text, Unfit, Whole

TRAIN, EVAL, PROGRAM = "train", "eval", "program"
MODULES = {TRAIN: "flan_jax.train", EVAL: "flan_jax.eval"}
RECORD = "sweep.json"  # in the output folder: which checkpoint each name stands for
_LONGEST = 40  # of a unit's name: Kubernetes makes names of 63 characters of it


@dataclasses.dataclass(frozen=True)
class Unit:
    """One thing to run.

    Attributes:
      name: lower-case letters, digits and hyphens, at most 40; the same plan gives the same names.
      job: "train", "eval", or "program" for something else.
      argv: the arguments of Python.
      output: the folder that it writes to; "" if that is not known.
      after: names of units that have to be done before.
    """

    name: str
    job: str
    argv: tuple[str, ...]
    output: str = ""
    after: tuple[str, ...] = ()

    def is_done(self) -> bool:
        """Whether nothing is left to do: an evaluation that has its results. A training run sees that by itself.

        Raises:
          FlanError: the output folder cannot be looked into.
        """
        if self.job != EVAL:
            return False
        found = files.user_path(self.output, "--output") / "results.json"
        with files.written(found, "read"):
            return found.is_file()

    def progress(self) -> str | None:
        """What changes when the program has come further: the newest names in its output folder; None if unseen."""
        if not self.output:
            return None
        try:
            top = files.user_path(self.output)
            seen = [top / "checkpoints", *([top] if self.job == EVAL else [])]
            names = [path.name for folder in seen if folder.is_dir() for path in folder.iterdir()]
            if self.job == EVAL and (top / "predictions").is_dir():
                names += [str(path) for path in (top / "predictions").rglob("*.jsonl")]
        except (FlanError, OSError):
            return None
        whole = [name for name in names if ".tmp" not in name and "orbax-checkpoint-tmp" not in name]
        return hashlib.sha256("\n".join(sorted(whole)).encode()).hexdigest()


def unit_name(words: Sequence[str], told: Sequence[str]) -> str:
    """A name of these words, as far as there is room, with a digest of all that makes the unit what it is."""
    digest = hashlib.sha256("\n".join([*words, *told]).encode()).hexdigest()[:6]
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    name = name if name[:1].isalpha() else f"u-{name}"
    return f"{name[: _LONGEST - len(digest) - 1].strip('-')}-{digest}"


def program(argv: Sequence[str], name: str = "program") -> Unit:
    """The unit of a command that was written out; its output folder is read off its gin bindings where it can be."""
    job = next((job for job, module in MODULES.items() if list(argv[:2]) == ["-m", module]), PROGRAM)
    macro = {TRAIN: "MODEL_DIR", EVAL: "EVAL_OUTPUT_DIR"}.get(job)
    output = ""
    for argument in argv:
        option, _, value = argument.partition("=")
        if macro and option == f"--gin.{macro}" and value[:1] in "'\"" and value[-1:] == value[:1]:
            output = value[1:-1]
    # Without the whole plan it is not known whether several runs go into one folder: such a unit is never left out.
    return Unit(unit_name([name], argv), PROGRAM if job == EVAL else job, tuple(argv), output)


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
            named = {**_named([model_dir]), **named} if not set(_named([model_dir])) & set(named) else _clash(model_dir)
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
            _clash(folder, name)
        found[name] = folder
    return found


def _clash(folder: str, name: str = "") -> dict[str, str]:
    name = name or folder.rsplit("/", 1)[-1]
    raise FlanError(f"two checkpoints are called {name!r}: give them names, as --checkpoint=second={folder}.")


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
    if not swept:
        for option in ("output", "train_arg", "eval_arg"):
            if getattr(arguments, option):
                raise FlanError(f"--{option} is for --model_dir and --checkpoint, of which neither is given.")
        if not arguments.program:
            raise FlanError("nothing to launch: give --model_dir, --checkpoint with --clusters, or a program after --.")
        return [program(arguments.program)]
    for given in (arguments.model_dir, arguments.output, *arguments.checkpoint) if elsewhere else ():
        path = (given or "/").partition("=")[2] if re.match(r"[^/=]+=", given or "") else (given or "/")
        if not path.startswith("/") and "://" not in path:
            raise FlanError(f"{path}: the machines cannot see a folder that is given from here: give gs://... or /....")
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
    left = units if arguments.again else [unit for unit in units if not _seen_done(unit)]
    if len(left) < len(units):
        print(f"{len(units) - len(left)} of {len(units)} units have results; --again runs them too", file=sys.stderr)
    return left


def _with_shots(styles: Sequence[str], shots: Sequence[int] | None) -> tuple[str, ...]:
    if shots is None:
        return tuple(styles)
    found = []
    for style in styles:
        for number in shots:
            ending = f"{number}_shots"
            found.append(style if number == 0 else ending if style == "instructions" else f"{style}_{ending}")
    return tuple(found)


def _seen_done(unit: Unit) -> bool:
    try:
        return unit.is_done()
    except FlanError as error:
        print(f"{unit.name} counts as not done, since its folder cannot be seen from here: {error}", file=sys.stderr)
        return False


def keep_record(units: Sequence[Unit], output: str | None) -> None:
    """Writes down in the output folder which checkpoint each name stands for, so that no later sweep mixes two.

    Raises:
      FlanError: an earlier sweep into this folder gave a name to another checkpoint.
    """
    checkpoints = {}
    for unit in units:
        if unit.job == EVAL:
            (folder,) = (a.partition("=")[2][1:-1] for a in unit.argv if a.startswith("--gin.CHECKPOINT_PATH="))
            checkpoints[_name_of(unit, output or "")] = folder
    if not checkpoints or output is None:
        return
    try:
        path = files.user_path(_folder(output, "--output")) / RECORD
    except FlanError:
        return  # a place that only the hosts see
    known: dict[str, str] = {}
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FlanError(f"{path} is damaged: delete it, or choose another --output.") from error
    for name, folder in checkpoints.items():
        if known.get(name, folder) != folder:
            raise FlanError(
                f"in {output}, {name!r} stands for {known[name]}, not for {folder}: "
                f"give it another name, as --checkpoint=NAME={folder}, or choose another --output."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, json.dumps({**known, **checkpoints}, indent=1, sort_keys=True) + "\n")


def _name_of(unit: Unit, output: str) -> str:
    return unit.output.removeprefix(_folder(output, "--output") + "/").partition("/")[0]


def show(units: Sequence[Unit], as_json: bool = False) -> None:
    """Prints units, a command a line, or as one JSON object."""
    if as_json:
        print(json.dumps({"units": [dataclasses.asdict(unit) for unit in units]}))
        return
    for unit in units:
        after = f"  # after {', '.join(unit.after)}" if unit.after else ""
        print(f"{unit.name}: python {shlex.join(unit.argv)}{after}", flush=True)
    print(f"{len(units)} unit{'s' * (len(units) != 1)} to run", flush=True)


def run_all(units: Sequence[Unit], run: Callable[[Unit], int]) -> int:
    """Runs units in order. Where one fails, what needs it is left out and the others go on.

    Args:
      units: in an order in which nothing comes before what it needs.
      run: gives the exit status.

    Returns:
      0, or the exit status of the first unit that failed.
    """
    failed: dict[str, int] = {}
    for number, unit in enumerate(units, 1):
        missing = [name for name in unit.after if name in failed]
        if missing:
            failed[unit.name] = failed[missing[0]]
            print(f"[{number}/{len(units)}] {unit.name} is left out: {missing[0]} failed", flush=True)
            continue
        print(f"[{number}/{len(units)}] {unit.name}", flush=True)
        if status := run(unit):
            failed[unit.name] = status
            print(f"[{number}/{len(units)}] {unit.name} ended with exit status {status}", flush=True)
    return next(iter(failed.values()), 0)


def is_restarted(status: int) -> bool:
    """Whether what ended so is started again: it saved and stopped, or was killed from outside."""
    return status in (PREEMPTED, 128 + signal.SIGKILL, 128 + signal.SIGTERM)


class Restarts:
    """Counts starts without progress, for all launchers.

    Args:
      most: how many restarts in a row may bring no progress.
      lasting: a run of so many seconds counts as progress where the output folder cannot be seen.
    """

    def __init__(self, most: int, lasting: float = 600.0) -> None:
        self.most, self.lasting, self.used, self.last = most, lasting, 0, None

    def __str__(self) -> str:
        return f"{self.used} of {self.most} restarts without progress are used"

    def allows(self, progress: str | None, seconds: float) -> bool:
        """Whether it may be started again after a run of so many seconds, with this progress."""
        came_further = seconds >= self.lasting if progress is None else progress != self.last
        self.last = progress
        self.used = 0 if came_further else self.used + 1
        return self.most > 0 and self.used <= self.most


def _run_here(unit: Unit, restarts: int) -> int:
    """Runs a unit in a process of this machine; SIGTERM is passed on, and then nothing is started again."""
    counted, told = Restarts(restarts), []
    counted.last = unit.progress()
    while True:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *unit.argv])

        def tell(number: int, frame: object, process: subprocess.Popen[bytes] = process) -> None:
            told.append(number)
            process.send_signal(number)

        before = signal.signal(signal.SIGTERM, tell)
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
        status = 128 - status if status < 0 else status
        again = is_restarted(status) and not told
        if not again or not counted.allows(unit.progress(), time.monotonic() - began):
            return status
        print(f"{unit.name} ended with status {status}; started again ({counted})", flush=True)


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
        keep_record(units, arguments.output)
        sys.exit(run_all(units, lambda unit: _run_here(unit, arguments.restarts)))


if __name__ == "__main__":
    main()
