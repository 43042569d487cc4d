"""What the processes of a pod decide together, in real pods of two."""

import json
import subprocess
import sys

import pytest

PROGRAM = '''
import json, shutil, sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec as P

from flan_jax import distributed, partitioning
from flan_jax.checkpoint import arrays, choosing, digests, lock, place, saving, stored
from flan_jax.errors import FlanError

distributed.join()
root, number, said = Path(sys.argv[1]), jax.process_index(), {}
place._PATIENCE = 0.5
shared, own = root / "shared", root / f"host {number}"


def told(name, ask):
    """What comes of it, in this process; all go on together."""
    try:
        said[name] = ask()
    except FlanError as error:
        said[name] = f"FlanError: {error}"
    multihost_utils.sync_global_devices(name)


def refuse():
    raise FlanError("no room")


told("gathered", lambda: distributed.gathered(["", "\\u00e4" * 3][number]))
told("decided", lambda: distributed.decided(lambda: [number, None, "x"]))
told("refused", lambda: distributed.decided(refuse))
told("shared", lambda: place.check_shared(shared))
told("left", lambda: [path.name for path in shared.iterdir()])
told("host-local", lambda: place.check_shared(own))

with lock.held(shared, "training") as held:
    told("held by one", lambda: len(list(shared.glob("lock-*"))))
    told("check", held.check)
    told("a second", lambda: lock.held(shared, "training").__enter__())
distributed.everywhere(True)  # process 0 is through as well
told("given back", lambda: len(list(shared.glob("lock-*"))))

mesh = partitioning.make_mesh(fsdp=2)
layout = NamedSharding(mesh, P("fsdp"))
whole = np.arange(8_000, dtype=np.float32).reshape(800, 10)


def tree(step):
    return {"w": jax.make_array_from_callback(whole.shape, layout, lambda index: whole[index] * step)}


def is_step(found, step):
    return all(np.array_equal(x.data, whole[x.index] * step) for x in found["w"].addressable_shards)


told("no step", lambda: choosing.choose_step(shared))
with saving.Saver(shared, keep=3) as saver:
    for step in (3, 12):
        saver.save(step, tree(step), tree(step))
told("newest", lambda: choosing.choose_step(shared))
told("whole", lambda: [stored.fault(shared, step, together=True) for step in (3, 12)])


def declined():
    with saving.Saver(shared, keep=3) as saver:
        saver.save(4, tree(4), tree(4))


told("declined", declined)
told("as before", lambda: choosing.steps(shared))

# Process 1's host has an older copy, then one that process 0 has not, then the same one.
shutil.copytree(shared, own, dirs_exist_ok=True)
if number == 1:
    shutil.rmtree(own / "checkpoints" / "12")
told("older", lambda: choosing.choose_step(own))
if number == 0:
    shutil.rmtree(own / "checkpoints")
told("none", lambda: choosing.choose_step(own))
told("equal copies", lambda: arrays.restore_params(shared, tree(1), {"w": layout}, 3) and 3)

if number == 0:
    largest = max((shared / "checkpoints" / "12" / "opt_state").rglob("d/*"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
multihost_utils.sync_global_devices("damaged")
told("damaged", lambda: stored.fault(shared, 12, together=True))
told("previous", lambda: choosing.choose_step(shared, "previous"))
told("moved", lambda: sorted(str(p.relative_to(shared)) for p in shared.glob("*/[0-9]*")))
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(1))
found = arrays.restore_training(shared, (abstract, abstract), ({"w": layout}, {"w": layout}), 3)
told("restored", lambda: found[0] == 3 and is_step(found[1], 3) and is_step(found[2], 3))
with saving.Saver(shared, keep=3) as saver:
    saver.save(12, tree(12), tree(12))
told("again", lambda: [choosing.steps(shared), stored.fault(shared, 12, together=True)])
(root / f"said.{number}").write_text(json.dumps(said))
'''


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    root = tmp_path_factory.mktemp("pod")
    (root / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "flan_jax.launch.local_pod", "--processes=2", "--"]
    command += ["python", str(root / "program.py"), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((root / f"said.{number}").read_text()) for number in range(2)]


def _both(said, name):
    return [one[name] for one in said]


def test_what_process_0_decides_is_told(said):
    assert _both(said, "gathered") == [["", "äää"]] * 2
    assert _both(said, "decided") == [[0, None, "x"]] * 2
    assert _both(said, "refused") == ["FlanError: no room", "FlanError: process 0: no room"]


def test_a_folder_of_one_host_is_noticed(said):
    assert _both(said, "shared") == [None, None] and _both(said, "left") == [[], []]
    for text in _both(said, "host-local"):
        assert "process 1 on host " in text and "does not see what process 0 has written there" in text
        assert "MODEL_DIR " in text and "host 1 has to lie on storage that all hosts of the pod share" in text


def test_process_0_holds_the_folder(said):
    assert _both(said, "held by one") == [1, 1] and _both(said, "check") == [None, None]
    assert _both(said, "given back") == [0, 0]
    assert all("is in use by training (process" in text for text in _both(said, "a second"))


def test_process_0_chooses_the_step(said):
    assert _both(said, "no step") == [None, None] and _both(said, "newest") == [12, 12]
    assert _both(said, "whole") == [[None, None]] * 2
    assert all("process 1 on host " in text and "does not see step 12" in text for text in _both(said, "older"))
    assert all("process 1 on host " in text and "sees checkpoints, and" in text for text in _both(said, "none"))
    assert _both(said, "equal copies") == [3, 3]


def test_a_save_that_is_declined_is_an_error(said):
    for text in _both(said, "declined"):
        assert "step 4 is not saved: " in text and "already holds step 12, from which this run did not start" in text
    assert _both(said, "as before") == [[3, 12]] * 2


def test_a_damaged_step_is_left_out_if_told_to(said):
    first, second = _both(said, "damaged")
    assert first == second and "/checkpoints/12/opt_state/" in first
    assert _both(said, "previous") == [3, 3] and _both(said, "moved") == [["checkpoints/3", "damaged/12"]] * 2
    assert _both(said, "restored") == [True, True] and _both(said, "again") == [[[3, 12], None]] * 2
