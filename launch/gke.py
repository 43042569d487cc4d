"""Manifests for TPU slices of Google Kubernetes Engine: a JobSet for each unit, of one or several slices.

python -m flan_jax.launch.gke --type=v5p --topology=4x4x4 --slices=2 --spot --image=IMAGE \
  --write=first.yaml -- -m flan_jax.train --gin_file=runs/flan_without_nli.gin --gin.MODEL_DIR="'gs://BUCKET/first'" ...
kubectl apply -f first.yaml

A slice is a job with a pod for each host, in a node pool of its own; GKE tells JAX in the pods who they are. A pod that
ends with status 75, or that is taken away, starts the whole set again and costs no restart; any other failure costs one
of --restarts. In place of the program after -- the options of `flan_jax.launch.sweep` plan several units, which
Kubernetes then runs as it has room. The cluster needs the JobSet controller, 0.6 or later.

NOT RUN BY ITS AUTHORS: they had no cluster. The tests check the manifests against the published types of JobSet, Job
and Pod.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import files, options
from flan_jax.errors import PREEMPTED, FlanError, one_line_errors
from flan_jax.launch import sweep, work
from flan_jax.values import Unfit, Whole

CONTAINER, SLICE = "flan", "slice"


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPUs as GKE has them (cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus).

    Attributes:
      accelerator: the node label's value.
      axes: of a topology.
      per_host: chips that a host of a larger slice has.
      single: chips that one host can have alone.
    """

    accelerator: str
    axes: int
    per_host: int = 4
    single: tuple[int, ...] = (4,)


GENERATIONS: Mapping[str, Generation] = {
    "v4": Generation("tpu-v4-podslice", 3),
    "v5e": Generation("tpu-v5-lite-podslice", 2, single=(1, 4, 8)),
    "v5p": Generation("tpu-v5p-slice", 3),
    "v6e": Generation("tpu-v6e-slice", 2, single=(1, 4, 8)),
    "tpu7x": Generation("tpu7x", 3),
}


@dataclasses.dataclass(frozen=True)
class Slices:
    """What a unit runs on.

    Attributes:
      type: one of GENERATIONS.
      topology: chips along each axis, as "4x4x4".
      count: slices, joined by the data-centre network.
      per_host: chips of a host; None takes what GKE has for the topology.
    """

    type: str
    topology: str
    count: int = 1
    per_host: int | None = None

    @property
    def chips(self) -> int:
        """Of one slice."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def chips_per_host(self) -> int:
        """Of one host."""
        generation = GENERATIONS[self.type]
        alone = self.chips in generation.single
        return self.per_host or (self.chips if alone else generation.per_host)

    @property
    def hosts(self) -> int:
        """Of one slice."""
        return self.chips // self.chips_per_host

    def checked(self) -> Slices:
        """Itself.

        Raises:
          FlanError: there are no such slices.
        """
        generation = GENERATIONS[self.type]
        if self.topology.count("x") + 1 != generation.axes:
            example = "x".join(["4"] * generation.axes)
            raise FlanError(f"--topology={self.topology}: {self.type} has {generation.axes} axes, as {example}.")
        if self.chips % self.chips_per_host:
            raise FlanError(
                f"--topology={self.topology}: its {self.chips} chips are not whole hosts of {self.chips_per_host}."
            )
        if self.count > 1 and self.hosts == 1:
            raise FlanError(f"--slices={self.count}: GKE joins slices of several hosts only, {self.topology} has one.")
        return self


def manifest(
    unit: work.Unit,
    slices: Slices,
    image: str,
    *,
    namespace: str = "default",
    spot: bool = False,
    restarts: int = 5,
    grace: int = 60,
    service_account: str | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JobSet of a unit.

    Args:
      unit: what runs.
      slices: on which it runs.
      image: a container image that has FLAN-JAX.
      namespace: of the cluster.
      spot: on machines that may be preempted.
      restarts: failures of the program that are tried again.
      grace: seconds that it has after SIGTERM.
      service_account: of Kubernetes, with rights on the buckets.
      env: further environment of the program.
    """
    selector = {
        "cloud.google.com/gke-tpu-accelerator": GENERATIONS[slices.type].accelerator,
        "cloud.google.com/gke-tpu-topology": slices.topology,
    }
    chips = {"google.com/tpu": slices.chips_per_host}
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["python", *map(_literal, unit.argv)],
        "env": [{"name": k, "value": _literal(v)} for k, v in {"PYTHONUNBUFFERED": "1", **(env or {})}.items()],
        # 8471 is where the chips of a slice find each other, 8080 where slices do.
        "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
        "resources": {"requests": dict(chips), "limits": dict(chips)},
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace,
        "nodeSelector": selector,
        "containers": [container],
    }
    if spot:
        selector["cloud.google.com/gke-spot"] = "true"
        pod["tolerations"] = [
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        ]
    if service_account:
        pod["serviceAccountName"] = service_account
    job = {
        "parallelism": slices.hosts,
        "completions": slices.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # a pod that is made again alone could not join the others
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [PREEMPTED]},
                },
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": unit.name,
            "namespace": namespace,
            # Each slice in a node pool of its own, which is what one slice is to GKE.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": restarts,
                "rules": [
                    {
                        # The reason of a job that one of the rules above ended.
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [{"name": SLICE, "replicas": slices.count, "template": {"spec": job}}],
        },
    }


def _literal(text: str) -> str:
    """A text as Kubernetes leaves it: it puts variables in place of $(NAME), and $ in place of $$."""
    return text.replace("$", "$$")


class _Topology:
    """Chips along each axis, as a kind of `flan_jax.values`."""

    wanted = "chips along each axis, as 4x4 or 2x2x4"

    def fit(self, value: str) -> str:
        """The value; raises Unfit."""
        if not re.fullmatch(r"[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){1,2}", str(value)):
            raise Unfit
        return value


class _Variable:
    """NAME=VALUE of an environment, as a kind of `flan_jax.values`."""

    wanted = "NAME=VALUE, for example LIBTPU_INIT_ARGS=--xla_flag=1"

    def fit(self, value: str) -> str:
        """The value; raises Unfit."""
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*", str(value), re.DOTALL):
            raise Unfit
        return value


class _Label:
    """A name in Kubernetes, as a kind of `flan_jax.values`."""

    wanted = "a name of Kubernetes: lower-case letters, digits and hyphens"

    def fit(self, value: str) -> str:
        """The value; raises Unfit."""
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", str(value)):
            raise Unfit
        return value


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and writes the manifests."""
    parser = options.Parser(
        prog="python -m flan_jax.launch.gke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --type=TYPE --topology=AxB[xC] --image=IMAGE OPTIONS -- PROGRAM",
    )
    parser.add_argument("--type", required=True, choices=sorted(GENERATIONS), help="generation of TPUs")
    parser.add_argument(
        "--topology", required=True, type=options.of(_Topology()), help="chips along each axis of a slice, as 4x4x4"
    )
    parser.add_argument("--slices", default=1, type=options.of(Whole(1, 1024)), help="default 1")
    parser.add_argument("--chips_per_host", type=options.of(Whole(1, 8)), help="default: GKE's for the topology")
    parser.add_argument("--image", required=True, type=options.word, help="container image that has FLAN-JAX")
    parser.add_argument("--namespace", default="default", type=options.of(_Label()), help="default default")
    parser.add_argument("--spot", action="store_true", help="machines that may be preempted, and cost less")
    parser.add_argument("--service_account", type=options.of(_Label()), help="of Kubernetes, with rights on buckets")
    parser.add_argument(
        "--env", action="append", default=[], type=options.of(_Variable()), help="NAME=VALUE; repeatable"
    )
    parser.add_argument(
        "--restarts", default=5, type=options.count_or_none, help="restarts after failures of the program; default 5"
    )
    parser.add_argument(
        "--grace", default=60, type=options.of(Whole(1, 3600)), help="seconds between SIGTERM and SIGKILL; default 60"
    )
    parser.add_argument("--write", type=options.path, help="file for the manifests; default: standard output")
    parser.add_argument("--dry_run", action="store_true", help="print the units in place of manifests")
    parser.add_argument("--json", action="store_true", help="with --dry_run: as one JSON object")
    sweep.add_arguments(parser)
    with one_line_errors():
        arguments = sweep.parse(parser, argv)
        slices = Slices(arguments.type, arguments.topology, arguments.slices, arguments.chips_per_host).checked()
        units = sweep.from_arguments(arguments, elsewhere=True)
        if waiting := [unit.name for unit in units if unit.after]:
            raise FlanError(
                f"{waiting[0]} needs a model that is yet to be trained, and one JobSet does not wait for another: "
                "launch the training, and when it is done the evaluations, with --checkpoint."
            )
        if arguments.dry_run:
            work.show(units, arguments.json)
            return
        if not units:
            print("nothing is left to do", file=sys.stderr)
            return
        sweep.keep_record(units, arguments.output, elsewhere=True)
        import yaml

        text = yaml.safe_dump_all(
            [
                manifest(
                    unit,
                    slices,
                    arguments.image,
                    namespace=arguments.namespace,
                    spot=arguments.spot,
                    restarts=arguments.restarts,
                    grace=arguments.grace,
                    service_account=arguments.service_account,
                    env=dict(variable.split("=", 1) for variable in arguments.env),
                )
                for unit in units
            ],
            sort_keys=False,
        )
        if arguments.write:
            files.write_atomic(Path(arguments.write), text)
        else:
            sys.stdout.write(text)


if __name__ == "__main__":
    main()
