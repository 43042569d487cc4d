"""A training or evaluation run on TPU virtual machines: prints the gcloud commands, and with --execute runs them.

python launch/tpu_vm.py --name=flan --zone=us-east5-b --type=v6e-256 --runtime=v2-alpha-tpuv6e \
  -- -m flan_jax.train --gin_file=runs/flan_without_nli.gin --gin.MODEL_DIR="'gs://BUCKET/first'" ...

Five stages, each by itself with --stage: create the machines (with --slices=N several slices that only the data-centre
network joins), install this checkout as a wheel, start the program on all hosts, follow its log, delete. Every host
must see the folders that the program names: give gs:// paths for checkpoints, or a mounted disk.

NOT RUN BY ITS AUTHORS: they had no TPU and no cloud project. The tests check the command lines against the
documentation of gcloud, not against the cloud.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence

from flan_jax import options
from flan_jax.values import Whole

STAGES = ("create", "install", "run", "follow", "delete")
PYTHON = "flan-venv/bin/python"  # on the hosts, in the home folder; their own python3 is older than 3.11


def commands(
    stage: str,
    *,
    name: str,
    zone: str,
    accelerator: str,
    runtime: str,
    program: Sequence[str],
    project: str | None = None,
    slices: int = 1,
    spot: bool = False,
) -> list[list[str]]:
    """The command lines of one stage.

    Args:
      stage: one of STAGES.
      name: of the machines; with several slices of the queued resource, whose nodes are NAME-0, NAME-1, ...
      zone: where.
      accelerator: gcloud's accelerator type, for example "v3-128" or "v5p-256".
      runtime: gcloud's runtime version, for example "tpu-ubuntu2204-base".
      program: arguments of the hosts' Python.
      project: the cloud project; None takes gcloud's default.
      slices: how many slices.
      spot: take machines that may be preempted; the run goes on from its last checkpoint when started again.
    """
    where = [f"--zone={zone}", *([f"--project={project}"] if project else [])]
    kind = [f"--accelerator-type={accelerator}", f"--runtime-version={runtime}"]
    tpu = ["gcloud", "compute", "tpus"]
    one = [*tpu, "tpu-vm"] if slices == 1 else [*tpu, "queued-resources"]
    on_all = ["--worker=all", *([] if slices == 1 else ["--node=all"])]
    on_first = ["--worker=0", *([] if slices == 1 else ["--node=0"])]

    def ssh(place: Sequence[str], script: str) -> list[str]:
        return [*one, "ssh", name, *where, *place, f"--command={script}"]

    if stage == "create":
        if slices == 1:
            return [[*one, "create", name, *where, *kind, *(["--spot"] if spot else [])]]
        nodes = [f"--node-count={slices}", f"--node-prefix={name}"]
        return [[*one, "create", name, *where, *kind, *nodes, *(["--spot"] if spot else [])]]
    if stage == "install":
        setup = (
            "sudo apt-get -q update && sudo apt-get -qy install python3.11-venv && python3.11 -m venv flan-venv && "
            f"{PYTHON} -m pip install -q flan-wheel/*.whl 'jax[tpu]'"
        )
        return [
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir=flan-wheel", "."],
            [*one, "scp", "--recurse", "flan-wheel", f"{name}:", *where, *on_all],
            ssh(on_all, setup),
        ]
    if stage == "run":
        # nohup and the redirection let the program outlive the connection; its hosts find each other by themselves.
        start = f"nohup {PYTHON} {shlex.join(program)} > flan.log 2>&1 < /dev/null &"
        return [ssh(on_all, start)]
    if stage == "follow":
        return [ssh(on_first, "tail -n +1 -F flan.log")]
    if stage == "delete":
        return [[*one, "delete", name, *where, "--quiet", *(["--force"] if slices > 1 else [])]]
    raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGES)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line; prints the commands, or runs them and stops at the first that fails."""
    parser = options.Parser(prog="tpu_vm.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, type=options.word, help="of the machines")
    parser.add_argument("--zone", required=True, type=options.word, help="for example us-east5-b")
    parser.add_argument("--type", required=True, type=options.word, help="accelerator type, for example v3-128")
    parser.add_argument(
        "--runtime", required=True, type=options.word, help="runtime version, for example tpu-ubuntu2204-base"
    )
    parser.add_argument("--project", type=options.word, help="default: gcloud's")
    parser.add_argument(
        "--slices", type=options.of(Whole(1, 1024)), default=1, help="slices, joined by the data axis; default 1"
    )
    parser.add_argument("--spot", action="store_true", help="machines that may be preempted")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this stage; repeatable")
    parser.add_argument("--execute", action="store_true", help="run the commands instead of printing them")
    parser.add_argument("program", nargs="+", help="arguments of Python on every host, after --")
    arguments = parser.parse_args(argv)
    stages = arguments.stage or [s for s in STAGES if s != "delete" or not arguments.execute]
    for stage in stages:
        lines = commands(
            stage,
            name=arguments.name,
            zone=arguments.zone,
            accelerator=arguments.type,
            runtime=arguments.runtime,
            program=arguments.program,
            project=arguments.project,
            slices=arguments.slices,
            spot=arguments.spot,
        )
        print(f"# {stage}")
        for line in lines:
            print(shlex.join(line), flush=True)
            if arguments.execute and (code := subprocess.run(line, check=False).returncode):
                sys.exit(f"tpu_vm: stage {stage} ended with exit status {code}; go on with --stage={stage}.")


if __name__ == "__main__":
    main()
