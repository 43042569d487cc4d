import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flan_jax.launch import tpu_vm

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.fixture(scope="session")
def load():
    """Loads a launcher by its path: they need of this package what the standard library needs."""

    def of(name):
        spec = importlib.util.spec_from_file_location(f"launch_{name}", LAUNCH / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return of


@pytest.fixture(scope="session")
def local_pod():
    """The command line of the local pod, without its arguments."""
    return [sys.executable, str(LAUNCH / "local_pod.py")]


HOST_PYTHON = """#!/bin/sh
# Python of a host: environments are made without the network, pip is noted, programs of ours are the test's own.
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip")
    mv "$STAND_IN/preempted_by_pip" "$STAND_IN/preempt" 2> /dev/null && exit 1
    [ -e "$STAND_IN/pip_fails" ] && echo "ERROR: no matching distribution" >&2 && exit 1
    echo "$@" >> "$HOME/pip.log" ;;
  "-m flan_jax."*) exec {python} -S "$STAND_IN/program.py" "$@" ;;
  *) exec {python} -S "$@" ;;
esac
"""


class StandIn:
    """A stand-in for gcloud, and the launcher beside it.

    Attributes:
      root: its folder.
      env: the environment in which it is gcloud.
    """

    def __init__(self, root):
        self.root, self._launchers = root, []
        for name in ("bin", "host_bin", "bucket"):
            (root / name).mkdir()
        script = Path(__file__).with_name("gcloud_stand_in.py").read_text()
        self._executable("bin/gcloud", f"#!{sys.executable} -SE\n{script}")
        self._executable("host_bin/python3.11", HOST_PYTHON.format(python=sys.executable))
        self._executable("host_bin/hostname", '#!/bin/sh\necho "$STAND_IN_HOST"\n')
        (root / "flan_jax-0-py3-none-any.whl").write_bytes(b"a wheel")
        self.bucket = root / "bucket"
        self.env = {**os.environ, "STAND_IN": str(root), "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}

    def _executable(self, name, text):
        (self.root / name).write_text(text)
        (self.root / name).chmod(0o755)

    def faults(self, **faults):
        (self.root / "faults.json").write_text(json.dumps(faults))

    def program(self, text):
        """What `python -m flan_jax...` is on the hosts."""
        (self.root / "program.py").write_text(text)

    def arguments(self, action, *options, program=("-m", "flan_jax.train"), patience=60):
        """Of the launcher: machines, times that suit a test, and what a test adds."""
        given = ["--name=flan", "--zone=z", "--type=v5p-8", "--runtime=v2", f"--logs={self.root / 'logs'}"]
        given += [f"--wheel={self.root / 'flan_jax-0-py3-none-any.whl'}", "--poll=0.2", "--settle=0.2"]
        return [action, *given, f"--patience={patience}", *options, *(["--", *program] if program else [])]

    def start(self, *arguments, **more):
        """The launcher as a process."""
        return self.start_command(["-m", "flan_jax.launch.tpu_vm", *self.arguments(*arguments, **more)])

    def start_command(self, command):
        """A launcher as a process, by the arguments of Python."""
        launcher = subprocess.Popen(
            [sys.executable, *command],
            env=self.env,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._launchers.append(launcher)
        return launcher

    @property
    def state(self):
        return json.loads((self.root / "state.json").read_text() if (self.root / "state.json").exists() else "{}")

    def calls(self, *words):
        path = self.root / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if all(word in call for word in words)]

    def end(self):
        """Ends what still runs, here and on the hosts."""
        for launcher in self._launchers:
            launcher.kill()
        for file in [*self.root.glob("hosts/*/flan/jobs/*/pid"), *self.root.glob("hosts/*/flan/jobs/*/program")]:
            with contextlib.suppress(ValueError, OSError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    stand_in = StandIn(tmp_path)
    for name in ("PATH", "STAND_IN"):
        monkeypatch.setenv(name, stand_in.env[name])
    monkeypatch.chdir(tmp_path)
    yield stand_in
    stand_in.end()


@pytest.fixture
def launched(cloud, capfd):
    """Runs the launcher here: exit status, output and errors."""

    def of(action="run", *options, **more):
        before = {number: signal.getsignal(number) for number in tpu_vm.ENDING}
        try:
            with pytest.raises(SystemExit) as ended:
                tpu_vm.main(cloud.arguments(action, *options, **more))
                sys.exit(0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return ended.value.code or 0, *capfd.readouterr()

    return of
