"""Stands in for gcloud on PATH: keeps machines in a folder, whose hosts are folders where scripts really run.

The folder is $STAND_IN. It has state.json (what there is), calls.jsonl (what was called), hosts/NODE-w-K (home folders
of hosts), faults.json (what is to go wrong; counts go down) and preempt (a program makes it: the machines are taken
away then).
Flags and states are those of Google's documentation; a flag that is not in it is refused, as gcloud refuses it.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["STAND_IN"])
EVERYWHERE = {"zone", "project", "quiet", "format"}
FLAGS = {
    ("queued-resources", "create"): {"accelerator-type", "runtime-version", "node-id", "node-count", "node-prefix"}
    | {"spot", "reserved", "guaranteed", "labels", "async", "network", "internal-ips", "valid-until-duration"},
    ("queued-resources", "describe"): set(),
    ("queued-resources", "delete"): {"force", "async"},
    ("tpu-vm", "describe"): set(),
    ("tpu-vm", "ssh"): {"worker", "command", "internal-ip", "ssh-flag"},
    ("tpu-vm", "scp"): {"worker", "recurse", "internal-ip", "scp-flag"},
}


def fail(text, status=1):
    print(text, file=sys.stderr)
    sys.exit(status)


def read(name, default):
    path = ROOT / name
    return json.loads(path.read_text()) if path.exists() else default


def write(name, value):
    (ROOT / f"{name}.tmp").write_text(json.dumps(value))
    (ROOT / f"{name}.tmp").rename(ROOT / name)


def fault(name):
    """Whether this goes wrong now; the next of a list, or true so many times."""
    faults = read("faults.json", {})
    left = faults.get(name)
    if not left:
        return None
    if isinstance(left, list):
        faults[name] = left[1:]
        write("faults.json", faults)
        return left[0]
    if left is True or isinstance(left, str):
        return left
    faults[name] = left - 1
    write("faults.json", faults)
    return True


def take_away(state, how):
    """The machines are preempted: what runs on them gets SIGTERM if told so, and is killed."""
    import shutil  # most calls need neither this nor subprocess, and there are many calls

    for number in (signal.SIGTERM, signal.SIGKILL) if how == "term" else (signal.SIGKILL,):
        for name in ("program", "pid"):
            for file in ROOT.glob(f"hosts/*/flan/jobs/*/{name}"):
                try:
                    os.kill(int(file.read_text()), number)
                except (ValueError, OSError):
                    continue
        if number == signal.SIGTERM:
            time.sleep(0.5)
    shutil.rmtree(ROOT / "hosts", ignore_errors=True)
    if how == "node":
        state["nodes"] = dict.fromkeys(state["nodes"], "PREEMPTED")
    else:
        state["coming"] = ["SUSPENDED"]


def hosts_of(node, worker):
    count = read("state.json", {}).get("hosts", 0)
    chosen = range(count) if worker == "all" else [int(worker)]
    return [(f"{node}-w-{number}", ROOT / "hosts" / f"{node}-w-{number}") for number in chosen]


def ssh(node, options):
    import subprocess

    if fault("ssh_drops"):
        fail("ssh: connect to host 10.0.0.2 port 22: Connection timed out", 255)
    running = []
    for number, (name, home) in enumerate(hosts_of(node, options.get("worker", "0"))):
        command = options["command"]
        if " start " in command and (delay := fault("slow_start")):
            time.sleep(0.3 * bool(delay))
        if fault(f"host_{number}_fails"):
            command = "echo 'bash: cannot make pipe: Too many open files' >&2; exit 1"
        home.mkdir(parents=True, exist_ok=True)
        path = f"{ROOT / 'host_bin'}:{os.environ['PATH']}"
        env = {**os.environ, "HOME": str(home), "STAND_IN_HOST": name, "PATH": path}
        running.append(subprocess.Popen(["bash", "-c", command], env=env, cwd=home))
    statuses = [process.wait() for process in running]
    if fault("answer_lost"):
        fail("ssh: Connection reset by peer", 255)
    sys.exit(next((status for status in statuses if status), 0))


def scp(paths, options):
    import shutil

    if fault("ssh_drops"):
        fail("scp: Connection closed", 255)
    if text := fault("scp_fails"):
        fail(f"ERROR: (gcloud.compute.tpus.tpu-vm.scp) {text}")
    *sources, target = paths
    for source in sources:
        if ":" in source:
            node, _, path = source.partition(":")
            ((_, home),) = hosts_of(node, options.get("worker", "0"))
            whole = home / path
            if not whole.exists():
                fail(f"scp: {path}: No such file or directory")
            copy = shutil.copytree if whole.is_dir() else shutil.copy
            copy(whole, Path(target) / whole.name)
        else:
            node, _, folder = target.partition(":")
            for _, home in hosts_of(node, options["worker"]):
                shutil.copy(source, home / folder)


def queued_resources(verb, name, options):
    state = read("state.json", {})
    if verb == "create":
        if text := fault("create"):
            fail(f"ERROR: (gcloud.compute.tpus.queued-resources.create) {text}")
        if state.get("name") == name:
            fail(f"ERROR: (gcloud...) ALREADY_EXISTS: Resource 'queuedResources/{name}' already exists")
        count = int(options.get("node-count", 1))
        prefix = options.get("node-prefix", "")
        nodes = [options["node-id"]] if "node-id" in options else [f"{prefix}-{n}" for n in range(count)]
        labels = dict([options["labels"].split("=")]) if "labels" in options else {}
        write(
            "state.json",
            {
                "name": name,
                "labels": labels,
                "nodes": dict.fromkeys(nodes, "READY"),
                "coming": fault("coming") or ["ACTIVE"],
                "hosts": read("faults.json", {}).get("hosts", 1),
            },
        )
        if fault("create_answer_lost"):
            fail("ERROR: (gcloud...) UNAVAILABLE: the service is currently unavailable")
        return
    if state.get("name") != name:
        fail(f"ERROR: (gcloud...) NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/{name}' was not found")
    if verb == "delete":
        if fault("delete_fails"):
            fail("ERROR: (gcloud...) INTERNAL: an internal error has occurred")
        take_away(state, "kill")
        write("state.json", {})
        return
    if (ROOT / "preempt").exists():
        how = (ROOT / "preempt").read_text().strip()
        (ROOT / "preempt").unlink()
        take_away(state, how)
    found = state["coming"][0]
    state["coming"] = state["coming"][1:] or [found]
    write("state.json", state)
    if fault("garbage"):
        print("Updates are available for some Google Cloud CLI components.")
        return
    specs = [{"nodeId": node, "node": {"labels": state["labels"]}} for node in state["nodes"]]
    failed = {"failedData": {"error": {"message": "no more capacity in the zone"}}} if found == "FAILED" else {}
    print(json.dumps({"name": f"p/{name}", "state": {"state": found, **failed}, "tpu": {"nodeSpec": specs}}))


def main(words):
    if words[:2] != ["compute", "tpus"]:
        fail(f"ERROR: (gcloud) Invalid choice: {words[:2]}")
    kind, verb = words[2:4]
    options = {w[2:].partition("=")[0]: w.partition("=")[2] for w in words[4:] if w.startswith("--")}
    paths = [word for word in words[4:] if not word.startswith("--")]
    with open(ROOT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(ROOT / "calls.jsonl", "a") as calls:
            calls.write(json.dumps(words) + "\n")
        if unknown := set(options) - FLAGS[kind, verb] - EVERYWHERE:
            fail(f"ERROR: (gcloud.compute.tpus.{kind}.{verb}) unrecognized arguments: --{' --'.join(unknown)}", 2)
        if text := fault("every_call"):
            fail(f"ERROR: (gcloud.compute.tpus.{kind}.{verb}) {text}")
        if kind == "queued-resources":
            queued_resources(verb, paths[0], options)
            return
        node = paths[-1 if verb == "scp" and ":" in paths[-1] else 0].partition(":")[0]
        nodes = read("state.json", {}).get("nodes", {})
        if node not in nodes or (verb == "describe" and fault("unseen")):
            fail(f"ERROR: (gcloud.compute.tpus.tpu-vm.{verb}) NOT_FOUND: Resource 'nodes/{node}' was not found")
        if verb == "describe":
            count = read("state.json", {})["hosts"]
            print(json.dumps({"name": node, "state": nodes[node], "networkEndpoints": [{}] * count}))
            return
        if verb == "scp":
            scp(paths, options)
            return
    ssh(node, options)


main(sys.argv[1:])
