"""Which URLs can be paths, and which path each means."""

from __future__ import annotations

import importlib.util
import re

from flan_jax.errors import FlanError, unknown_name
from flan_jax.files.remote import MEMORY, RemotePath, configure

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")  # Path has already turned two slashes into one
_LOCAL = ("file", "local")
_PLAIN = {"gcs": "gs", "s3a": "s3"}  # other names for the same scheme
_WEB = ("http", "https", "ftp", "data", "github", "git")
_EXTRAS = {"gcsfs": "pip install 'flan-jax[gcs]'"}
# Fsspec takes some of these for patterns, TensorStore takes others for parts of a URL.
_WILD = re.compile(r"[*?\[\]#%]")


def parsed(text: str, start: str) -> RemotePath | str:
    """A URL as a remote path; a URL of this machine, file:///x, as its path in text.

    Args:
      text: a text that `URL` matches.
      start: the start of an error message.

    Raises:
      FlanError: a scheme that cannot be used, or a place that cannot be a path.
    """
    scheme, _, rest = text.partition(":")
    given, scheme = scheme, _PLAIN.get(scheme.lower(), scheme.lower())
    if scheme in _WEB:
        raise FlanError(
            f"{start}{text} is an address of the web, which is no storage: download what is there, and give its path."
        )
    if not rest.startswith("//"):
        raise FlanError(f"{start}{text} has one slash: write {given}:/{rest}.")
    if scheme in _LOCAL:
        if not rest.startswith("///"):
            raise FlanError(f"{start}{text} has no full path: write {scheme}:///, then the path from the root on.")
        return rest[2:]
    _check_scheme(scheme, given, start)
    key = re.sub("/+", "/", rest).strip("/")
    bucket, _, inside = key.partition("/")
    what = "no name" if scheme == MEMORY else "no bucket"
    if not bucket or bucket in (".", ".."):
        raise FlanError(f"{start}{text} names {what}: write {scheme}://BUCKET/FOLDER.")
    names = inside.split("/") if inside else []
    if ".." in names:
        raise FlanError(f"{start}{text} has a part '..', which object storage does not know: give the folder itself.")
    names = [name for name in names if name != "."]
    if wild := _WILD.search(text):
        raise FlanError(
            f"{start}{text} has a {wild[0]!r}, which has a meaning of its own in a URL: give a name without."
        )
    if "::" in text or not text.isprintable():
        raise FlanError(f"{start}{text!r} is no plain URL: write {scheme}://BUCKET/FOLDER.")
    if not names and scheme != MEMORY:
        raise FlanError(f"{start}{text} is a whole bucket: give a folder in it, for example {scheme}://{bucket}/runs.")
    if len("/".join(names).encode()) > 1000:
        raise FlanError(f"{start}{text[:60]}... is too long for object storage: give a shorter path.")
    return RemotePath(scheme, "/".join([bucket, *names]))


def _check_scheme(scheme: str, given: str, start: str) -> None:
    """Refuses a scheme that fsspec does not know, or whose client is not installed."""
    from fsspec.registry import known_implementations, registry

    configure()
    known = {*known_implementations, *registry} - {*_WEB}
    if scheme not in known:
        # Other libraries, such as datasets, add schemes for compressed files.
        near = (f"{name}://" for name in known_implementations if name not in _WEB)
        error = unknown_name("scheme", f"{given}://", near)
        raise FlanError(f"{start}{error}")
    if scheme in registry:
        return
    module = known_implementations[scheme]["class"].partition(".")[0]
    if importlib.util.find_spec(module) is None:
        how = _EXTRAS.get(module, f"pip install {module}")
        raise FlanError(f"{start}{scheme}:// needs {module}, which is not installed: {how}.")
