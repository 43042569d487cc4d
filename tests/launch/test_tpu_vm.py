"""The launcher on machines of a stand-in for gcloud, on whose hosts the real supervisor and real programs run."""

import json
import shlex
import shutil
import signal
import subprocess

import pytest

from flan_jax.launch import gcloud, tpu_hosts, tpu_package

# A program that saves each step in the bucket, and goes on from there.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path

root, me = Path(os.environ["STAND_IN"]), os.environ["STAND_IN_HOST"]
saved = root / "bucket" / "checkpoints"
saved.mkdir(exist_ok=True)
first = max([int(path.name) for path in saved.iterdir()], default=0)
print("from", first, flush=True)
(root / "starts").open("a").write(f"{me} {first} {sys.argv[1:]!r}\\n")
for step in range(first + 1, 7):
    time.sleep(0.05)
    if me.endswith("0"):
        (saved / str(step)).touch()
    print("step", step, flush=True)
    AT_STEP
print("done", flush=True)
"""
PREEMPT = """
    if step >= 3 and not (root / "was").exists():
        if me.endswith("0"):
            (root / "was").touch()
            (root / "preempt").write_text("HOW")
        time.sleep(60)
"""


def program(at_step="", start=""):
    return PROGRAM.replace("    AT_STEP\n", at_step).replace("print(", start + "\nprint(", 1)


@pytest.fixture
def trains(cloud):
    """A program and its faults; gives the options that name its output."""

    def of(at_step="", start="", **faults):
        cloud.program(program(at_step, start))
        cloud.faults(**faults)
        return ("-m", "flan_jax.train", f"--gin.MODEL_DIR={str(cloud.bucket)!r}")

    return of


def steps(cloud):
    return sorted(int(path.name) for path in (cloud.bucket / "checkpoints").iterdir())


def starts(cloud):
    return (cloud.root / "starts").read_text().splitlines()


def is_named(cloud, errors):
    """Machines that are left up are named, with the command that deletes them."""
    command = shlex.join(gcloud.Machines("flan", "z").delete())
    return "MACHINES MAY BE UP" in errors and command in errors


# --------------------------------------------------------------------------------------------------- what goes right


def test_a_run_from_the_machines_to_their_deletion(cloud, launched, trains):
    hard = ['it\'s "a" $HOME `x` {b}', "two\nlines;", "é", "a=b c"]
    argv = trains(hosts=2, coming=[["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    status, out, errors = launched("run", "--spot", "--project=mine", program=[*argv, *hard])
    assert status == 0, errors
    assert cloud.state == {} and "MACHINES" not in errors
    (create,) = cloud.calls("create")
    assert {"--spot", "--project=mine", "--accelerator-type=v5p-8", "--node-id=flan", "--async"} <= set(create)
    for state in ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "is up: 2 hosts"):
        assert state in errors
    for host in ("flan-w-0", "flan-w-1"):
        lines = [line.removeprefix(f"[{host}] ") for line in out.splitlines() if line.startswith(f"[{host}]")]
        assert lines[-1] == "done" and (cloud.root / "logs").glob(f"*{host}.log")
    (log, _) = sorted((cloud.root / "logs").iterdir())
    assert log.read_text().splitlines()[-1] == "done"
    assert all(line.endswith(repr([*argv, *hard])) for line in starts(cloud)) and len(starts(cloud)) == 2


def test_the_locked_versions_are_installed_once(cloud, launched, trains):
    argv = trains(hosts=2)
    status, _, errors = launched("run", "--keep", program=argv)
    assert status == 0 and "the machines stay up" in errors and "MACHINES" not in errors
    assert launched("run", "--attach", "--keep", program=argv)[0] == 0
    for host in ("flan-w-0", "flan-w-1"):
        home = cloud.root / "hosts" / host
        (pip,) = (home / "pip.log").read_text().splitlines()
        assert f"--constraint {home}/flan/requirements.lock {home}/flan/flan_jax-0-py3-none-any.whl[tpu,gcs]" in pip
        assert "jax==" in (home / "flan/requirements.lock").read_text()
    assert len(starts(cloud)) == 2  # what has ended well is not started again


def test_slices_are_nodes(cloud, launched, trains):
    status, out, errors = launched("run", "--slices=2", "--reserved", program=trains(hosts=2))
    assert status == 0, errors
    (create,) = cloud.calls("create")
    assert {"--node-count=2", "--node-prefix=flan", "--reserved"} <= set(create)
    hosts = {line.split()[0] for line in starts(cloud)}
    assert hosts == {"flan-0-w-0", "flan-0-w-1", "flan-1-w-0", "flan-1-w-1"}
    assert {line.partition("]")[0][1:] for line in out.splitlines() if line.endswith("] done")} == hosts


def test_a_sweep_runs_unit_by_unit(cloud, launched):
    cloud.program(
        "import os, sys; from pathlib import Path; own = dict(a[6:].split('=', 1) for a in sys.argv if '--gin.' in a)\n"
        "folder = Path(eval(own['EVAL_OUTPUT_DIR'])); folder.mkdir(parents=True)\n"
        "assert 'sentiment' not in own['DATASETS'], 'not this one'\n"
        "(folder / 'results.json').write_text('{}'); print('written', own['RUN_NAME'])"
    )
    options = [f"--checkpoint={cloud.root}/first", "--clusters=sentiment,nli", f"--output={cloud.bucket}/out"]
    status, out, errors = launched("run", *options, program=None)
    assert status == 1 and cloud.state == {}, errors
    assert "eval-first-sentiment-instructions" in out and "ended with exit status 1" in out and "not this one" in out
    assert (cloud.bucket / "out/first/nli/instructions/results.json").is_file()
    assert "first instructions" in out
    assert len(cloud.calls("create")) == 1
    # What has results is left out; when nothing is left, no machines are made.
    options[1] = "--clusters=nli"
    status, out, errors = launched("run", *options, program=None)
    assert status == 0 and "nothing is left to do" in errors and len(cloud.calls("create")) == 1


def test_parts_of_a_run_are_commands(cloud, launched, trains):
    argv = trains(at_step="    time.sleep(60 if step == 2 else 0)\n")
    assert launched("create")[0] == 0 and cloud.state["nodes"] == {"flan": "READY"}
    assert launched("install", program=None)[0] == 0
    assert launched("start", program=argv)[0] == 0
    status, out, _ = launched("status", program=argv)
    assert status == 0 and out.endswith("flan-w-0: running\n")
    assert launched("stop", program=argv)[0] == 0
    status, out, _ = launched("status", program=argv)
    assert out.endswith("flan-w-0: ended 143\n")
    status, out, _ = launched("follow", program=argv)
    assert status == 143 and "[flan-w-0] step 1" in out
    assert launched("fetch", "--fetch=flan/jobs", "--to=here", program=None)[0] == 0
    assert list((cloud.root / "here/jobs").glob("*/log"))
    assert launched("delete", program=None)[0] == 0 and cloud.state == {}


def test_dry_run_prints_every_command_and_runs_none(launched, monkeypatch):
    monkeypatch.setenv("PATH", "")
    status, out, _ = launched("run", "--dry_run", "--slices=2", "--wheel=/no/such.whl", program=["-m", "x", "a b"])
    assert status == 0
    lines = out.splitlines()
    parts = [line for line in lines if line.startswith("#")]
    assert parts == [f"# {part}" for part in ("create", "install", "start", "follow", "status", "fetch", "delete")]
    assert all(shlex.split(line)[0] == "gcloud" for line in lines if not line.startswith("#"))
    start = shlex.split(lines[lines.index("# start") + 1])
    assert start[4:6] == ["ssh", "flan-0"] and shlex.split(start[-1].partition("=")[2])[-3:] == ["-m", "x", "a b"]
    status, out, _ = launched("run", "--dry_run", "--json")
    assert json.loads(out)["units"][0]["argv"] == ["-m", "flan_jax.train"]


# --------------------------------------------------------------------------------------------------------- preempted


def test_preempted_machines_are_made_again_and_the_run_goes_on(cloud, launched, trains):
    """Killed without a word, and PREEMPTED; below they are told, and SUSPENDED."""
    argv = trains(PREEMPT.replace("HOW", "node"), hosts=2)
    status, out, errors = launched("run", "--spot", "--restarts=1", program=argv)
    assert status == 0, errors
    assert steps(cloud) == [1, 2, 3, 4, 5, 6] and cloud.state == {}
    assert len(cloud.calls("create")) == 2 and "started again" in errors
    assert [line.split()[1] for line in starts(cloud) if "w-0" in line] == ["0", "3"] and len(starts(cloud)) == 4
    assert "[flan-w-0] step 6" in out


def test_a_program_that_saves_on_sigterm_is_started_again(cloud, launched, trains):
    save = "signal.signal(signal.SIGTERM, lambda *_: (print('saves', flush=True), sys.exit(75)))"
    status, _, errors = launched(program=trains(PREEMPT.replace("HOW", "term"), save))
    assert status == 0, errors
    assert steps(cloud) == [1, 2, 3, 4, 5, 6] and len(cloud.calls("create")) == 2


def test_status_75_starts_again_on_the_same_machines_while_it_comes_further(cloud, launched, trains):
    """One restart without progress is allowed, and two are made, each of which brings steps."""
    ends = "    if step in (2, 4): sys.exit(75)\n"
    status, _, errors = launched("run", "--restarts=1", program=trains(ends))
    assert status == 0, errors
    assert [line.split()[1] for line in starts(cloud)] == list("024") and len(cloud.calls("create")) == 1


def test_restarts_without_progress_end(cloud, launched, trains):
    status, _, errors = launched("run", "--restarts=1", program=trains(start="sys.exit(75)", hosts=1))
    assert status == 75 and "1 restarts in a row brought no progress" in errors and cloud.state == {}
    assert len([call for call in cloud.calls("ssh") if " start " in call[-1]]) == 2


def test_preempted_while_installing(cloud, launched, trains):
    argv = trains()
    (cloud.root / "preempted_by_pip").write_text("node")
    status, _, errors = launched(program=argv)
    assert status == 0 and "the machines are PREEMPTED; it is started again" in errors, errors
    assert len(cloud.calls("create")) == 2 and len(starts(cloud)) == 1


# ------------------------------------------------------------------------------------------------------ what fails


def test_an_error_on_one_host_of_four_ends_all(cloud, launched, trains):
    """Though the others save and end with 75 when they are told to end."""
    fails = "    sys.exit('no such thing') if me.endswith('2') else time.sleep(60)\n"
    saves = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))"
    status, out, errors = launched(program=trains(fails, saves, hosts=4))
    assert status == 1 and cloud.state == {}, errors
    assert "[flan-w-2] no such thing" in out and "flan-w-2 ended 1" in errors and "stopping the others" in errors
    assert "started again" not in errors


def test_a_lost_connection_starts_nothing_twice(cloud, launched, trains):
    argv = trains(hosts=2)
    assert launched("run", "--keep", program=[*argv, "first"])[0] == 0
    cloud.faults(ssh_drops=3, answer_lost=3)
    status, out, errors = launched("run", "--attach", program=argv)
    assert status == 0, errors
    assert len(starts(cloud)) == 4 and "Tried again" in errors
    assert out.count("] done") == 2 and cloud.state == {}


def test_hosts_that_are_out_of_reach_for_too_long(cloud, launched, trains):
    status, _, errors = launched("run", "--keep", program=trains(ssh_drops=True), patience=0.5)
    assert status == 2 and is_named(cloud, errors) and "Connection timed out" in errors
    assert cloud.state["name"] == "flan"  # what runs there may be of use: nothing is deleted


def test_a_host_on_which_nothing_can_be_installed(cloud, launched, trains):
    argv = trains(hosts=4)
    (cloud.root / "pip_fails").touch()
    status, _, errors = launched(program=argv)
    assert status == 2 and "no matching distribution" in errors and is_named(cloud, errors)


@pytest.mark.parametrize(
    ("faults", "says", "created"),
    [
        ({"create": ["RESOURCE_EXHAUSTED: Quota limit 'TPUV5s' has been exceeded."]}, "ask for more quota", False),
        ({"every_call": "You do not currently have an active account selected."}, "gcloud auth login", False),
        ({"every_call": "PERMISSION_DENIED: Project 'no' not found or deleted"}, "check --project", False),
        ({"every_call": "Permission denied on 'locations/nowhere' (or it may not exist)"}, "check --zone", False),
        ({"garbage": True}, "which is no JSON object", True),
        ({"coming": [["FAILED"]] * 9}, "requests in a row gave no machines (FAILED: no more capacity", False),
    ],
)
def test_machines_that_cannot_be_had(cloud, launched, trains, monkeypatch, faults, says, created):
    monkeypatch.setattr(tpu_hosts, "IN_VAIN", 1)
    status, out, errors = launched(program=trains(**faults), patience=1)
    assert status == 2 and says in errors and "[flan" not in out, errors
    assert errors.count("flan_jax: ") == 1 and is_named(cloud, errors) == created
    assert bool(cloud.state) == created


def test_passing_trouble_with_gcloud(cloud, launched, trains):
    """Each is asked again: a 503 in the words of today's gcloud, at any call, and a node that is seen late."""
    who = (
        " This command is authenticated as a@b.c which is the active account specified by the [core/account] property."
    )
    away = [f"UNAVAILABLE: The service is unavailable.{who}\n- '@type': x"] * 2
    argv = trains(every_call=away, garbage=1, create=["UNAVAILABLE: try later"], unseen=1, delete_fails=1)
    (cloud.root / "logs").write_text("a file")
    status, out, errors = launched(program=argv)
    assert status == 0 and cloud.state == {} and len(starts(cloud)) == 1, errors
    assert errors.count("Tried again") >= 4 and "auth login" not in errors, errors
    assert len(cloud.calls("create")) == 2 and "made again" not in errors  # the first one was refused
    # Nor is it an end that logs cannot be kept.
    assert "the logs cannot be kept" in errors and "[flan-w-0] done" in out


def test_no_gcloud(launched, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert launched() == (
        2,
        "",
        "flan_jax: there is no gcloud on PATH: install the Google Cloud CLI, then gcloud init.\n",
    )


def test_waiting_has_an_end_if_one_wants(cloud, launched, trains):
    argv = trains(coming=[["WAITING_FOR_RESOURCES"]])
    status, _, errors = launched("run", "--wait_hours=0.0001", program=argv)
    assert status == 2 and "the request is deleted" in errors and cloud.state == {} and "MACHINES" not in errors


def test_machines_that_cannot_be_deleted_are_named(cloud, launched, trains):
    status, out, errors = launched(program=trains(delete_fails=True), patience=0.5)
    assert status == 2 and "cannot be deleted" in errors and is_named(cloud, errors) and "] done" in out


def test_machines_of_another_launcher_are_left_alone(cloud, launched, trains):
    argv = trains()
    assert launched("create")[0] == 0
    status, _, errors = launched(program=argv)
    assert status == 2 and "is there already (ACTIVE)" in errors and "--attach" in errors and "MACHINES" not in errors
    assert cloud.state["name"] == "flan" and not cloud.calls("ssh") and not cloud.calls("delete")


def test_an_answer_that_is_lost_and_a_launcher_that_was_first(cloud, launched, trains):
    argv = trains(create_answer_lost=1)
    status, _, errors = launched(program=argv)
    assert status == 0 and len(cloud.calls("create")) == 2, errors
    # Another launcher asks between our look and our request.
    other = "ALREADY_EXISTS: Resource 'queuedResources/flan' already exists"
    cloud.faults(create=[other])
    with pytest.MonkeyPatch.context() as patch:
        asked = gcloud.request
        looks = []

        def request(machines, timeout):
            looks.append(1)
            if len(looks) == 3:
                (cloud.root / "state.json").write_text(
                    json.dumps({"name": "flan", "labels": {"flan-launch": "x"}, "nodes": {}, "coming": ["ACTIVE"]})
                )
            return asked(machines, timeout)

        patch.setattr(gcloud, "request", request)
        status, _, errors = launched(program=argv)
    assert status == 2 and "another launcher has just made flan" in errors and "MACHINES" not in errors
    assert cloud.state["labels"] == {"flan-launch": "x"}


def test_outputs_that_cannot_be_fetched_keep_the_machines(cloud, launched, trains):
    argv = trains(scp_fails="/here: No space left on device")
    argv_of = {"program": argv}
    (cloud.root / "faults.json").write_text("{}")
    assert launched("run", "--keep", **argv_of)[0] == 0
    cloud.faults(scp_fails="/here: No space left on device")
    status, _, errors = launched("fetch", "--fetch=flan/jobs", "--to=here", program=None)
    assert status == 2 and "No space left on device" in errors and not list((cloud.root / "here").iterdir())
    cloud.faults()
    (cloud.root / "here/jobs").mkdir()
    status, _, errors = launched("run", "--attach", "--fetch=flan/jobs", "--to=here", **argv_of)
    # What is here already is said before the program runs, and nothing is touched.
    assert status == 2 and "is there already" in errors and cloud.state["name"] == "flan" and len(starts(cloud)) == 1
    status, _, errors = launched("fetch", "--fetch=no/such", "--to=here", program=None)
    assert status == 2 and "No such file" in errors


def test_logs_of_any_bytes(cloud, launched):
    cloud.program(
        "import sys; out = sys.stdout.buffer\n"
        "out.write(b'\\x1b[2J\\xff\\x00caf\\xc3\\xa9\\tx\\n' + b'y' * 100_000 + b'\\nlast without end'); out.flush()"
    )
    status, out, errors = launched()
    assert status == 0, errors
    shown = [line for line in out.splitlines() if line.startswith("[flan-w-0] ")]
    assert shown[0] == "[flan-w-0] [2J\ufffdcaf\u00e9\tx" and 3_000 < len(shown[1]) < 5_000
    (log,) = (cloud.root / "logs").iterdir()
    assert log.read_bytes().startswith(b"\x1b[2J\xff\x00caf") and b"y" * 100_000 in log.read_bytes()


def test_a_launcher_that_is_ended_names_the_machines_and_another_goes_on(cloud, trains):
    argv = trains("    while step == 2 and not (root / 'go').exists(): time.sleep(0.05)\n")
    launcher = cloud.start("run", program=argv)
    for how in (signal.SIGTERM, signal.SIGHUP):
        while "[flan-w-0] step 2" not in (line := launcher.stdout.readline()):
            assert line, launcher.communicate()
        launcher.send_signal(how)
        _, errors = launcher.communicate(timeout=60)
        assert launcher.returncode == 128 + how and is_named(cloud, errors)
        again = next(line for line in errors.splitlines() if "tpu_vm --attach run" in line)
        if how == signal.SIGHUP:
            (cloud.root / "go").touch()
        launcher = cloud.start_command(shlex.split(again.partition("python ")[2]))
    out, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 0 and "[flan-w-0] step 6" in out, errors
    assert len(starts(cloud)) == 1 and cloud.state == {}


@pytest.mark.parametrize("stage", ["WAITING_FOR_RESOURCES", "installing", "step 2", "deleting"])
def test_ctrl_c_at_each_stage(cloud, trains, stage):
    slow = ["WAITING_FOR_RESOURCES"] if stage == "WAITING_FOR_RESOURCES" else ["ACTIVE"]
    argv = trains("    time.sleep(60 if step == 2 and STOP else 0)\n".replace("STOP", str(stage == "step 2")))
    cloud.faults(coming=[slow], delete_fails=1000 if stage == "deleting" else 0)
    launcher = cloud.start("run", program=argv, patience=60)
    seen = ""
    stream = launcher.stdout if stage == "step 2" else launcher.stderr
    wanted = "Tried again" if stage == "deleting" else stage
    while wanted not in seen:
        line = stream.readline()
        assert line, seen
        seen += line
    launcher.send_signal(signal.SIGINT)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 130 and is_named(cloud, errors), errors
    assert "stopped before it was done" in errors


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--wheel=no.whl"], "--wheel=no.whl: no such wheel"),
        (["--fetch=/"], "--fetch=/: name a file or folder"),
        (["--fetch=~"], "--fetch=~: name a file or folder"),
        (["--fetch=a/jobs", "--fetch=b/jobs/"], "--fetch=b/jobs/: "),
        (["--fetch=flan/logs", "--to=file"], "--to=file: it is no folder"),
        (["--fetch=x", "--to=gs://b/x"], "a folder of this machine"),
        (["--create_flag=network=NAME"], "one flag of gcloud as a word"),
        (["--create_flag=--network NAME"], "one flag of gcloud as a word"),
        (["--create_flag=--zone=other"], "the launcher gives this flag itself"),
        (["--ssh_flag=--worker=0"], "the launcher gives this flag itself"),
    ],
)
def test_what_would_fail_later_makes_no_machines(cloud, launched, trains, options, says):
    argv = trains()
    (cloud.root / "file").touch()
    given = [option for option in options if not option.startswith("--wheel")]
    if given != options:  # the last one counts
        cloud_arguments = cloud.arguments
        cloud.arguments = lambda *a, **k: [w if "--wheel" not in w else options[0] for w in cloud_arguments(*a, **k)]
    status, out, errors = launched("run", *given, program=argv)
    assert (status, out, errors.count("\n")) == (2, "", 1) and says in errors, errors
    assert not cloud.calls("create") and not cloud.calls("ssh")


def test_the_command_that_takes_over_is_right_wherever_the_action_stands(cloud, launched, trains):
    argv = trains(hosts=1, ssh_drops=True)
    first = cloud.arguments
    cloud.arguments = lambda *a, **k: ["--name", "flan", "run", *first(*a, **k)[2:]]
    status, _, errors = launched("run", program=argv, patience=0.5)
    assert status == 2 and is_named(cloud, errors)
    assert "flan_jax.launch.tpu_vm --attach --name flan run --zone=z" in errors


def test_who_reads_the_launcher_s_lines_may_go(cloud, trains):
    argv = trains(hosts=1)
    launcher = cloud.start("run", program=argv)
    launcher.stderr.readline()
    launcher.stderr.close()
    launcher.stdout.close()
    assert launcher.wait(timeout=60) in (0, 141) and cloud.state == {}
    assert steps(cloud) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("action", ["run", "status", "stop"])
def test_machines_of_other_options_are_not_touched(cloud, launched, trains, action):
    """Of two slices a launcher for one would see none, and make them anew."""
    argv = trains()
    assert launched("create", "--slices=2")[0] == 0
    status, _, errors = launched(action, *(["--attach"] if action == "run" else []), program=argv)
    assert status == 2 and errors == "flan_jax: flan in z has 2 slices, not 1: give --slices=2.\n"
    assert set(cloud.state["nodes"]) == {"flan-0", "flan-1"} and not cloud.calls("delete")


def test_nothing_that_is_not_there_is_said_to_be_deleted(cloud, launched):
    status, _, errors = launched("delete", "--zone=elsewhere", program=None)
    assert status == 2 and "no machines flan in elsewhere, so none is deleted: check --name" in errors
    assert not cloud.calls("delete")


def test_nothing_but_bash_is_needed_on_hosts():
    """The supervisor is one file that bash takes as it is."""
    assert subprocess.run(["bash", "-n", str(tpu_package.SCRIPT)], check=False).returncode == 0
    assert shutil.which("setsid") and shutil.which("flock")
