"""Whether a folder can take a run; what hosts of a pod see is tested in test_in_a_pod.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.checkpoint import place
from flan_jax.errors import FlanError


def _tree(megabytes):
    return {"a": jax.ShapeDtypeStruct((int(megabytes * 1e6),), jnp.int8), "b": np.zeros((), np.int32)}


def test_a_disk_without_room_for_a_checkpoint(make_disk):
    disk = make_disk(3000)
    place.check_room(disk, _tree(1))
    with pytest.raises(FlanError, match=r"MODEL_DIR .* has 3\.\d MB free, and a checkpoint of this run takes 9\.0 MB"):
        place.check_room(disk, _tree(9))


def test_what_is_no_local_disk_is_not_asked(tmp_path):
    place.check_room(tmp_path / "missing", _tree(1e9))
    with pytest.raises(FlanError, match="make room, or choose another folder"):
        place.check_room(tmp_path, _tree(1e9))


def test_alone_nothing_is_written(tmp_path):
    place.check_shared(tmp_path)
    place.check_step(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []
