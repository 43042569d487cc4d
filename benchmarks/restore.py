"""What each process of a pod reads and holds when it restores a model, on this machine with CPU devices.

python benchmarks/restore.py --model=smollm2_135m --processes=4 --json

A model with random parameters is converted, layer by layer, and restored by pods whose meshes share it (fsdp, tensor,
both). A process's bytes are those that TensorStore has read from files; its memory is the peak of its resident set
(VmHWM) above what it held before. Both are given as shares of the model: 1/processes is the least. Then a step is saved
as training does, by one process and by all, and restored likewise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flan_jax import options
from flan_jax.errors import one_line_errors
from flan_jax.values import Whole

PROGRAM = """
import json, sys
import jax
import tensorstore
from flan_jax import distributed, models, partitioning
from flan_jax.checkpoint import arrays, saving
from flan_jax.checkpoint.manifest import Manifest

distributed.join()
folder, sizes, to = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]


def memory(field):
    text = open("/proc/self/status").read()
    return int(text.split(field + ":")[1].split()[0]) * 1024


def read():
    found = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    return sum(value["value"] for metric in found for value in metric["values"])


model = models.build(models.DecoderConfig.from_dict(Manifest.load(folder).model))
mesh = partitioning.make_mesh(**sizes)
abstract = model.abstract_params()
shardings = partitioning.parameter_shardings(mesh, model.logical_axes(), abstract)
held = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = read()
params = arrays.restore_params(folder, abstract, shardings)
if to:
    with saving.Saver(to) as saver:
        saver.save(1, params)
own = sum(shard.data.nbytes for x in jax.tree.leaves(params) for shard in x.addressable_shards)
total = sum(x.nbytes for x in jax.tree.leaves(params))
line = {"read": read() - before, "peak": memory("VmHWM") - held, "own": own, "model": total}
said = distributed.gathered(json.dumps(line))
if jax.process_index() == 0:
    print("\\n" + json.dumps([json.loads(one) for one in said]), flush=True)
"""


def measured(folder: Path, processes: int, sizes: dict[str, int], to: str = "") -> dict[str, Any]:
    """Restores in a pod, and saves as training does where `to` names a folder.

    Args:
      folder: a checkpoint folder.
      processes: of the pod.
      sizes: of its mesh.
      to: a folder to save to, or "".

    Returns:
      Shares of the model: the most that a process has read, has held at its peak, and has to hold at the end.
    """
    command = [sys.executable, "-m", "flan_jax.launch.local_pod", f"--processes={processes}", "--"]
    command += ["python", "-c", PROGRAM, str(folder), json.dumps({"data": 1} | sizes), to]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the pod failed:\n{done.stderr[-2000:]}")
    found = json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("[{")))
    shares = {name: round(max(one[name] / one["model"] for one in found), 3) for name in ("read", "peak", "own")}
    return {"processes": processes, "mesh": sizes} | shares


def main(argv: Sequence[str] | None = None) -> None:
    """Converts, restores and prints."""
    parser = options.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2_135m", help="a name of gin/models; default smollm2_135m")
    parser.add_argument("--processes", type=options.of(Whole(2, 64)), default=4, help="of the pod; default 4")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last line")
    with one_line_errors():
        arguments = parser.parse_args(argv)
        with tempfile.TemporaryDirectory() as scratch:
            folder, n = Path(scratch) / "model", arguments.processes
            convert = [sys.executable, "-m", "flan_jax.convert", f"--from={arguments.model}", f"--to={folder}"]
            subprocess.run([*convert, "--tuning=untuned"], check=True, capture_output=True)
            stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows = [{"saved by": "convert"} | measured(folder, n, sizes) for sizes in _meshes(n)]
            for by in (1, n):
                saved = Path(scratch) / f"saved_by_{by}"
                measured(folder, by, {"fsdp": by}, str(saved))
                (saved / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
                rows += [{"saved by": f"training, {by}"} | measured(saved, n, sizes) for sizes in _meshes(n)]
        about = {"model": arguments.model, "stored_bytes": stored, "rows": rows}
        for row in rows:
            mesh = " x ".join(f"{axis} {size}" for axis, size in row["mesh"].items())
            print(
                f"{row['saved by']:14} {mesh:18} read {row['read']:.2f}  peak {row['peak']:.2f}  own {row['own']:.2f}"
            )
        if arguments.json:
            print(json.dumps(about))


def _meshes(processes: int) -> list[dict[str, int]]:
    both = [{"fsdp": 2, "tensor": processes // 2}] if processes % 2 == 0 and processes > 2 else []
    return [{"fsdp": processes}, {"tensor": processes}, *both]


if __name__ == "__main__":
    main()
