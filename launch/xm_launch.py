"""Trainings and evaluation sweeps as work units of an XManager experiment.

python -m flan_jax.launch.xm_launch --executor=local --python=PATH/TO/venv/bin/python \
  --checkpoint=runs/first --clusters=nli,sentiment --shots=0,5 --output=runs/sweep -- --gin.PREPARED_DIR="'prepared'"
python -m flan_jax.launch.xm_launch --executor=vertex --accelerator=tpu_v3=8 \
  -- -m flan_jax.train --gin_file=runs/flan_without_nli.gin --gin.MODEL_DIR="'gs://BUCKET/first'" ...

The units are those of `flan_jax.launch.sweep`. With --executor=local they are processes of this machine, with docker
containers on it, with vertex and kubernetes containers in the cloud, for which XManager packs this checkout. A unit
that was preempted (exit status 75) is started again in its place. XManager is the extra `xmanager`, in an environment
of its own: it wants an older protobuf than SentencePiece does. So --python names the interpreter that has FLAN-JAX.

`tests/launch/run_xmanager.sh` runs a sweep with --executor=local. The three others were not run by their authors, who
had neither Docker nor a cloud project: what they are given was checked, and nothing was launched.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from flan_jax import options
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.launch import sweep, work
from flan_jax.values import Text, Unfit

LOCAL, DOCKER, VERTEX, KUBERNETES = "local", "docker", "vertex", "kubernetes"
EXECUTORS = (LOCAL, DOCKER, VERTEX, KUBERNETES)
CHECKOUT = Path(__file__).resolve().parents[1]


def requirements(accelerator: str) -> dict[str, int]:
    """XManager's resources from "tpu_v3=8" or "a100=8"; none from "".

    Raises:
      ValueError: it is not NAME=COUNT.
    """
    if not accelerator:
        return {}
    name, _, count = accelerator.partition("=")
    if not name.isidentifier() or not (count.isascii() and count.isdecimal()) or not 0 < int(count) < 10**6:
        raise ValueError(f"it has to be {_Accelerator.wanted}")
    return {name: int(count)}


class _Accelerator:
    """What `requirements` takes, as a kind of `flan_jax.values`."""

    wanted = "NAME=COUNT, for example tpu_v3=8 or a100=8"

    def fit(self, value: str) -> str:
        """The value, if it is one; raises Unfit."""
        try:
            requirements(value)
        except ValueError as error:
            raise Unfit(str(error)) from error
        return value


def supervised(restarts: int) -> list[str]:
    """The arguments of Python, before those of a unit, that start it again when it was preempted."""
    return ["-m", "flan_jax.launch.sweep", "--run", f"--restarts={restarts}", "--"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where units run, in XManager's terms.

    Attributes:
      packageable: what it packs, once for all units.
      executor: makes the executor of a unit.
    """

    packageable: Any
    executor: Callable[[], Any]


def place(
    xm: Any,
    xm_local: Any,
    executor: str,
    accelerator: str = "",
    base_image: str = "python:3.11",
    python: str = sys.executable,
    restarts: int = 3,
) -> Place:
    """Describes to XManager what runs and where.

    Args:
      xm: the module `xmanager.xm`.
      xm_local: the module `xmanager.xm_local`.
      executor: one of EXECUTORS.
      accelerator: see `requirements`.
      base_image: a Docker image with Python 3.11 or later.
      python: with "local", the interpreter that has FLAN-JAX.
      restarts: in a row, without progress.

    Raises:
      FlanError: XManager knows no such accelerator.
    """
    kinds = {LOCAL: "Local", DOCKER: "Local", VERTEX: "Vertex", KUBERNETES: "Kubernetes"}
    kind = getattr(xm_local, kinds[executor])
    try:
        needed = xm.JobRequirements(**requirements(accelerator))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise FlanError(f"--accelerator={accelerator}: XManager does not know it ({error}).") from error
    if executor == LOCAL:
        spec, arguments = xm.Binary(path=python), supervised(restarts)
    else:
        extra = "tpu" if accelerator.startswith("tpu") else "cuda12" if accelerator else ""
        jax = f"'jax[{extra}]'" if extra else "jax"
        spec, arguments = _container(xm, base_image, jax, restarts), []
    packageable = xm.Packageable(executable_spec=spec, executor_spec=kind.Spec(), args=arguments)
    return Place(packageable, lambda: kind(requirements=needed))


def _container(xm: Any, base_image: str, jax: str, restarts: int) -> Any:
    copied = f"/flan-jax/{CHECKOUT.name}"
    return xm.PythonContainer(
        path=str(CHECKOUT),
        base_image=base_image,
        docker_instructions=[
            f"COPY {CHECKOUT.name}/ {copied}",
            # The versions that pass the tests: of what is installed, those of the lock.
            f"RUN python -m pip install --no-cache-dir --constraint {copied}/requirements.lock {copied} {jax}",
        ],
        entrypoint=xm.CommandList([f'python {" ".join(supervised(restarts))} "$@"']),  # XManager adds a unit's own
    )


async def run(
    experiment: Any, xm: Any, where: Place, units: Sequence[work.Unit], parallel: int, wait: bool
) -> dict[str, str]:
    """Adds units to an experiment as work units, each when what it needs is done.

    Args:
      experiment: XManager's, in its context.
      xm: the module `xmanager.xm`.
      where: see `place`.
      units: in an order in which nothing comes before what it needs.
      parallel: how many at a time; 0 for all.
      wait: until all are done; otherwise only for what others need.

    Returns:
      How each unit ended: "done", "launched" or why it was not.
    """
    (executable,) = experiment.package([where.packageable])
    places = asyncio.Semaphore(parallel or max(len(units), 1))
    tasks: dict[str, Awaitable[str]] = {}
    needed = {name for unit in units for name in unit.after}

    async def one(unit: work.Unit) -> str:
        for name in unit.after:
            if name in tasks and (ended := await tasks[name]) != "done":
                return f"left out: {name} {ended}"
        async with places:
            job = xm.Job(executable=executable, executor=where.executor(), args=list(unit.argv), name=unit.name)
            work_unit = await experiment.add(job)
            if not wait and unit.name not in needed:
                return "launched"
            try:
                await work_unit.wait_until_complete()
            except xm.ExperimentUnitError as error:
                return "failed: " + (str(error).strip().partition("\n")[0] or type(error).__name__)
            return "done"

    for unit in units:
        tasks[unit.name] = asyncio.ensure_future(one(unit))
    return {name: await task for name, task in tasks.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and launches the experiment."""
    parser = options.Parser(
        prog="python -m flan_jax.launch.xm_launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s OPTIONS -- PROGRAM, OR ARGUMENTS OF EVERY UNIT",
    )
    sweep.add_arguments(parser)
    parser.add_argument("--executor", choices=EXECUTORS, default=VERTEX, help="where; default vertex")
    parser.add_argument(
        "--accelerator", default="", type=options.of(_Accelerator()), help="for example tpu_v3=8; default none"
    )
    parser.add_argument("--title", default="flan", type=options.of(Text()), help="of the experiment")
    parser.add_argument(
        "--base_image", default="python:3.11", type=options.word, help="Docker image with Python 3.11 or later"
    )
    parser.add_argument("--python", default=sys.executable, type=options.path, help="interpreter with FLAN-JAX: local")
    parser.add_argument(
        "--parallel", type=options.count_or_none, help="units at a time; default 1 on this machine, else all (0)"
    )
    parser.add_argument(
        "--restarts", type=options.count_or_none, default=3, help="restarts of a unit without progress; default 3"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the units, launch nothing")
    parser.add_argument("--json", action="store_true", help="with --dry_run: print them as one JSON object")
    with one_line_errors():
        known = sweep.parse(parser, argv)
        here = known.executor in (LOCAL, DOCKER)
        units = sweep.from_arguments(known, elsewhere=known.executor != LOCAL)
        if known.dry_run:
            work.show(units, known.json)
            return
        if not units:
            print("nothing is left to do")
            return
        if known.executor == LOCAL and not Path(known.python).is_file():
            raise FlanError(f"--python={known.python}: no such file; name the interpreter that has FLAN-JAX.")
        if known.executor == LOCAL:
            sweep.check_checkpoints(units)
        try:
            from absl import flags
            from xmanager import xm, xm_local
        except ImportError as error:
            raise FlanError(
                "XManager is not installed here: pip install 'flan-jax[xmanager]' in an environment of its own."
            ) from error
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["xm_launch"])  # XManager reads its own flags, of which none is given here
        sweep.keep_record(units, known.output, elsewhere=known.executor != LOCAL)
        where = place(xm, xm_local, known.executor, known.accelerator, known.base_image, known.python, known.restarts)
        parallel = (1 if here else 0) if known.parallel is None else known.parallel

        ended: dict[str, str] = {}

        async def launch() -> None:
            async with xm_local.create_experiment(experiment_title=known.title) as experiment:
                ended.update(await run(experiment, xm, where, units, parallel, here or parallel > 0))

        try:
            asyncio.run(launch())
        except RuntimeError:  # when it closes, XManager raises again what a process ended with
            if len(ended) < len(units):
                raise
        for name, how in ended.items():
            print(f"{name}: {how}", flush=True)
        if failed := [name for name, how in ended.items() if how not in ("done", "launched")]:
            raise FlanError(f"{len(failed)} of {len(ended)} units are not done: {', '.join(failed)}.")


if __name__ == "__main__":
    main(sys.argv[2:] if sys.argv[1:2] == ["--"] else None)  # `xmanager launch FILE -- OPTIONS` leaves its own --
