"""Paths on this machine or on object storage, and files that are written whole or not at all.

Only this package knows where a path lies. `user_path` returns an object with pathlib's interface. Code that needs a
file on this machine (a memory map, sentencepiece, safetensors, matplotlib) gets one from `local`. Code that writes uses
`whole_file`, `write_atomic`, `whole_folder` and `make_folder`. `alone` keeps other processes out of a folder. If the
operating system or the storage refuses something, the error is one line.
"""

from flan_jax.files.arrays import kvstore, orbax_folder, refuse_pattern
from flan_jax.files.local import local, staged_folder, staging_home
from flan_jax.files.locks import Held, alone, create
from flan_jax.files.mirror import Mirror
from flan_jax.files.paths import AnyPath, home, is_remote, is_url, local_path, same_place, user_path
from flan_jax.files.remote import RemotePath
from flan_jax.files.writing import (
    copy_folder,
    make_folder,
    move_folder,
    ready,
    remove_folder,
    whole_file,
    whole_folder,
    writable,
    write_atomic,
    write_together,
    written,
)

__all__ = [
    "AnyPath",
    "Held",
    "Mirror",
    "RemotePath",
    "alone",
    "copy_folder",
    "create",
    "home",
    "is_remote",
    "is_url",
    "kvstore",
    "local",
    "local_path",
    "make_folder",
    "move_folder",
    "orbax_folder",
    "ready",
    "refuse_pattern",
    "remove_folder",
    "same_place",
    "staged_folder",
    "staging_home",
    "user_path",
    "whole_file",
    "whole_folder",
    "writable",
    "write_atomic",
    "write_together",
    "written",
]
