"""Trainings, evaluations and sweeps on TPU virtual machines, which are made, supervised, replaced and deleted.

python -m flan_jax.launch.tpu_vm run --name=flan --zone=us-east5-b --type=v6e-256 --runtime=v2-alpha-tpuv6e --spot \
  -- -m flan_jax.train --gin_file=runs/flan_without_nli.gin --gin.MODEL_DIR="'gs://BUCKET/first'" ...

`run` asks for the machines and waits for them, installs the locked versions on every host, starts the program under a
supervisor, shows the logs of all hosts, and deletes the machines when all is done. When the machines are preempted, or
the program ends with status 75, everything is started again, and the program goes on from its last checkpoint. The
parts of `run` are commands too: create, install, start, follow, status, stop, fetch, delete. In place of the program
after -- the options of `flan_jax.launch.sweep` plan several units, which run one after another on the same machines.

Every host must see the folders that the program names: give gs://... or a mounted disk. Where this command ends while
machines are up, it says so, with the command that deletes them. --dry_run prints every command and runs none.

NOT RUN BY ITS AUTHORS on real machines: they had no TPU and no cloud project. The tests run it with a stand-in for
gcloud, in which hosts are folders where the real supervisor really runs.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from flan_jax import options
from flan_jax.errors import FlanError, one_line_errors
from flan_jax.launch import gcloud, sweep, work
from flan_jax.launch.tpu_hosts import Hosts, Preempted, Timing, fetched, say
from flan_jax.launch.tpu_job import Job
from flan_jax.launch.tpu_package import Package
from flan_jax.values import Number, Text, Whole

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
ACTIONS = ("run", "create", "install", "start", "follow", "status", "stop", "fetch", "delete")


def commands(hosts: Hosts, units: Sequence[work.Unit], action: str, fetched: Sequence[str], to: str) -> list[str]:
    """What an action would run where nothing goes wrong, a shell command each.

    Args:
      hosts: what is asked for.
      units: what runs.
      action: one of ACTIONS.
      fetched: paths on the hosts that are fetched.
      to: the folder here that they are fetched to.
    """
    machines, first = hosts.machines, hosts.machines.nodes[0]
    on_all = [
        lines
        for unit in units
        for lines in (
            *((node, hosts.start_script(unit, 1)) for node in machines.nodes),
            *((node, hosts.script("follow", unit.name)) for node in machines.nodes),
            *((node, hosts.script("status", unit.name)) for node in machines.nodes),
        )
    ]
    parts = {
        "create": [machines.create("LAUNCHER"), machines.describe()],
        "install": hosts.install_commands(),
        "start": [machines.ssh(node, script) for node, script in on_all if " start " in script],
        "follow": [machines.ssh(node, script) for node, script in on_all if " follow " in script],
        "status": [
            machines.describe(),
            *(machines.describe_node(node) for node in machines.nodes),
            *(machines.ssh(node, script) for node, script in on_all if " status " in script),
        ],
        "stop": [machines.ssh(node, hosts.script("stop", u.name, "60")) for u in units for node in machines.nodes],
        "fetch": [machines.copy_from(first, path, to) for path in fetched],
        "delete": [machines.delete()],
    }
    order = ("create", "install", "start", "follow", "status", "fetch", "delete") if action == "run" else (action,)
    return [line for part in order for line in (f"# {part}", *map(shlex.join, parts[part]))]


def run(hosts: Hosts, units: Sequence[work.Unit], arguments: argparse.Namespace) -> int:
    """Makes machines, runs units on them one after another, fetches what is asked for, and deletes the machines.

    Returns:
      0, or the exit status of the first unit that failed.

    Raises:
      FlanError: it cannot go on; whether machines are up is said by the caller.
    """
    _ = hosts.package.digest  # made or missed before there are machines
    hosts.claim(attach=arguments.attach)
    job = Job(hosts, arguments.restarts, arguments.lasting, arguments.logs)
    status = work.run_all(units, job.run)
    if arguments.fetch:
        hosts.fetch(arguments.fetch, arguments.to)
    if arguments.keep:
        say(f"--keep: the machines stay up. To delete them: {shlex.join(hosts.machines.delete())}")
        hosts.may_be_up = False  # as was wished
    else:
        hosts.delete()
    return status


def _act(hosts: Hosts, units: Sequence[work.Unit], arguments: argparse.Namespace) -> int:
    if arguments.action == "run":
        return run(hosts, units, arguments)
    if arguments.action == "create":
        hosts.claim(attach=False)
        hosts.up()
        hosts.may_be_up = False  # as was wished
        return 0
    if arguments.action == "delete":
        hosts.delete_there()
        return 0
    if arguments.action == "install":
        _ = hosts.package.digest
    hosts.attach()
    if arguments.action == "install":
        hosts.install()
        return 0
    if arguments.action == "fetch":
        hosts.fetch(arguments.fetch, arguments.to)
        return 0
    job, status = Job(hosts, 0, arguments.lasting, arguments.logs), 0
    for unit in units:
        if arguments.action == "start":
            job.start(unit)
        elif arguments.action == "follow":
            status = status or job.follow(unit)
        elif arguments.action == "stop":
            job.stop(unit)
        else:
            for host, state in sorted(job.states(unit).items()):
                print(f"{unit.name} {host}: {state.words}", flush=True)
    return status


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m flan_jax.launch.tpu_vm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s ACTION --name=NAME --zone=ZONE --type=TYPE --runtime=VERSION OPTIONS -- PROGRAM",
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do; run does all")
    machines = parser.add_argument_group("machines")
    machines.add_argument("--name", required=True, type=options.of(gcloud.NameOfMachines()), help="of the machines")
    machines.add_argument("--zone", required=True, type=options.word, help="for example us-east5-b")
    machines.add_argument("--type", type=options.word, help="accelerator type, for example v3-128; to create them")
    machines.add_argument("--runtime", type=options.word, help="runtime version, as tpu-ubuntu2204-base")
    machines.add_argument("--project", type=options.word, help="default: gcloud's")
    machines.add_argument(
        "--slices", type=options.of(Whole(1, 1024)), default=1, help="slices, joined by the data axis; default 1"
    )
    how = machines.add_mutually_exclusive_group()
    how.add_argument("--spot", action="store_true", help="machines that may be preempted, and cost less")
    how.add_argument("--reserved", action="store_true", help="machines of a reservation; default: on demand")
    flag = options.of(gcloud.FlagOfGcloud())
    machines.add_argument(
        "--create_flag", action="append", default=[], type=flag, help="further flag of gcloud's create; repeatable"
    )
    machines.add_argument(
        "--ssh_flag", action="append", default=[], type=flag, help="of gcloud's ssh and scp, as --internal-ip"
    )
    machines.add_argument("--attach", action="store_true", help="run: take over machines that are there")
    machines.add_argument("--keep", action="store_true", help="run: leave the machines up at the end")
    machines.add_argument(
        "--wheel", type=options.path, help="the package as a wheel; default: built from this checkout"
    )
    sweep.add_arguments(parser)
    course = parser.add_argument_group("course")
    course.add_argument(
        "--restarts", type=options.count_or_none, default=5, help="restarts in a row without progress; default 5"
    )
    course.add_argument("--logs", type=options.path, help="folder for the logs of all hosts; default NAME_logs")
    course.add_argument(
        "--fetch", action="append", default=[], type=options.of(Text()), help="path on the first host; repeatable"
    )
    course.add_argument("--to", default=".", type=options.path, help="folder here for what is fetched; default .")
    course.add_argument("--dry_run", action="store_true", help="print every command, run none")
    course.add_argument("--json", action="store_true", help="with --dry_run: print the units as one JSON object")
    positive, hours = options.of(Number(above=0, most=1e6)), options.of(Number(above=0, most=1e4))
    course.add_argument("--wait_hours", type=hours, help="for machines; then the request is deleted. Default: no end")
    course.add_argument("--poll", type=positive, default=20.0, help="seconds between two looks; default 20")
    course.add_argument(
        "--patience", type=positive, default=900.0, help="seconds without an answer of hosts that are up; default 900"
    )
    course.add_argument(
        "--settle", type=positive, default=60.0, help="seconds in which a preemption may show after an end; default 60"
    )
    course.add_argument(
        "--lasting", type=positive, default=1800.0, help="seconds of a run that count as progress; default 1800"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and does what it says."""
    parser = _parser()
    with one_line_errors():
        arguments = sweep.parse(parser, argv)
        if arguments.action in ("run", "create") and not (arguments.type and arguments.runtime):
            parser.error("--type and --runtime say which machines to create")
        if arguments.action == "fetch" and not arguments.fetch:
            parser.error("--fetch=PATH says what to fetch")
        wants_units = arguments.action in ("run", "start", "follow", "status", "stop")
        units = sweep.from_arguments(arguments, elsewhere=True) if wants_units else []
        machines = gcloud.Machines(
            arguments.name,
            arguments.zone,
            arguments.type or "",
            arguments.runtime or "",
            arguments.project,
            arguments.slices,
            gcloud.SPOT if arguments.spot else gcloud.RESERVED if arguments.reserved else gcloud.ON_DEMAND,
            tuple(arguments.create_flag),
            tuple(arguments.ssh_flag),
        )
        wait = arguments.wait_hours * 3600 if arguments.wait_hours else None
        timing = Timing(arguments.poll, arguments.patience, arguments.settle, wait)
        arguments.logs = Path(arguments.logs or f"{arguments.name}_logs")
        hosts = Hosts(machines, Package(arguments.wheel, arguments.dry_run), timing)
        if arguments.dry_run:
            if arguments.json:
                work.show(units, as_json=True)
            else:
                print("\n".join(commands(hosts, units, arguments.action, arguments.fetch, arguments.to)), flush=True)
            return
        if arguments.action == "run" and not units:
            say("nothing is left to do; no machines are made.")
            return
        if arguments.action in ("run", "fetch"):
            fetched(arguments.fetch, arguments.to)  # to be told now, rather than when the machines are up
        if arguments.action == "run":
            sweep.keep_record(units, arguments.output, elsewhere=True)
        for ending in ENDING:
            if signal.getsignal(ending) != signal.SIG_IGN:  # which nohup has set
                signal.signal(ending, _terminated)
        try:
            status = _act(hosts, units, arguments)
        except Preempted as error:  # not in `run`, which makes them again
            raise FlanError(f"the machines are {error}; run --attach makes them again.") from error
        finally:
            if hosts.may_be_up:
                _warn(machines, arguments, argv)
    sys.exit(status)


def _terminated(number: int, frame: object) -> None:
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)  # once is enough
    raise SystemExit(128 + number)


def _warn(machines: gcloud.Machines, arguments: argparse.Namespace, argv: Sequence[str] | None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    if not arguments.attach:
        given.insert(0, "--attach")
    say(f"!!! MACHINES MAY BE UP, AND THEY COST MONEY: {machines.name} in {machines.zone} ({machines.accelerator}).")
    if arguments.action == "run":
        say("!!! A program on them goes on. To follow it again:")
        say(f"!!!   python -m flan_jax.launch.tpu_vm {shlex.join(given)}")
    say("!!! To delete them:")
    say(f"!!!   {shlex.join(machines.delete())}")


if __name__ == "__main__":
    main()
