"""Training and evaluation as XManager experiments: `xmanager launch launch/xm_launch.py -- --job=train ...`.

xmanager launch launch/xm_launch.py -- --job=train --accelerator=tpu_v3=8 \
  --gin_file=runs/flan_without_nli.gin --gin.MODEL_DIR="'gs://BUCKET/first'" --gin.PREPARED_DIR="'gs://BUCKET/prepared'"
xmanager launch launch/xm_launch.py -- --job=eval --accelerator=tpu_v3=8 \
  --gin_file=runs/eval.gin --gin.CHECKPOINT_PATH="'gs://BUCKET/first'" --gin.EVAL_OUTPUT_DIR="'gs://BUCKET/nli'" ...

XManager packs this checkout into a container and runs it on Vertex AI, or with --local in Docker on this machine. It is
the extra `xmanager`, in an environment of its own: it wants an older protobuf than SentencePiece does.

NOT RUN BY ITS AUTHORS: they had neither Docker nor a cloud project. The tests check the command of the container and,
where XManager is installed, that it accepts the description of the job.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flan_jax import options
from flan_jax.values import Text, Unfit

MODULES = {"train": "flan_jax.train", "eval": "flan_jax.eval"}
CHECKOUT = Path(__file__).resolve().parents[1]


def container_command(job: str, arguments: Sequence[str]) -> str:
    """The shell command that the container runs.

    Args:
      job: "train" or "eval".
      arguments: of that program: gin files and bindings.
    """
    return shlex.join(["python", "-m", MODULES[job], *arguments])


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


def describe(xm: Any, job: str, arguments: Sequence[str], accelerator: str, base_image: str) -> tuple[Any, Any]:
    """The container and its resources, in XManager's terms.

    Args:
      xm: the module `xmanager.xm`.
      job: "train" or "eval".
      arguments: of the program.
      accelerator: see `requirements`.
      base_image: a Docker image with Python 3.11 or later.
    """
    extra = "tpu" if accelerator.startswith("tpu") else "cuda12" if accelerator else ""
    jax = f"'jax[{extra}]'" if extra else "jax"
    container = xm.PythonContainer(
        path=str(CHECKOUT),
        base_image=base_image,
        docker_instructions=[
            f"COPY {CHECKOUT.name}/ flan-jax",
            f"RUN python -m pip install --no-cache-dir ./flan-jax {jax}",
        ],
        entrypoint=xm.CommandList([container_command(job, arguments)]),
    )
    return container, xm.JobRequirements(**requirements(accelerator))


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and launches the experiment."""
    parser = options.Parser(
        prog="xm_launch.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other arguments (--gin_file=..., --gin.NAME=...) go to the program.",
    )
    parser.add_argument("--job", choices=sorted(MODULES), required=True, help="what to run")
    parser.add_argument(
        "--accelerator", default="", type=options.of(_Accelerator()), help="for example tpu_v3=8; default none"
    )
    parser.add_argument("--local", action="store_true", help="Docker on this machine instead of Vertex AI")
    parser.add_argument("--title", default="flan", type=options.of(Text()), help="of the experiment")
    parser.add_argument(
        "--base_image", default="python:3.11", type=options.word, help="Docker image with Python 3.11 or later"
    )
    known, program = parser.parse_known_args(argv)
    try:
        from xmanager import xm, xm_local
    except ImportError:
        sys.exit(
            "xm_launch: XManager is not installed here; pip install 'flan-jax[xmanager]' in an environment of its own."
        )
    container, resources = describe(xm, known.job, program, known.accelerator, known.base_image)
    executor = xm_local.Local if known.local else xm_local.Vertex
    with xm_local.create_experiment(experiment_title=f"{known.title} {known.job}") as experiment:
        (executable,) = experiment.package([xm.Packageable(executable_spec=container, executor_spec=executor.Spec())])
        experiment.add(xm.Job(executable=executable, executor=executor(requirements=resources)))


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--"])
