"""What XManager's executors of the cloud make of our description, in XManager's environment; nothing is launched."""

from absl import flags
from xmanager import xm, xm_local
from xmanager.cloud import build_image, kubernetes, vertex

from flan_jax.errors import FlanError
from flan_jax.launch import xm_launch

flags.FLAGS(["check"])

for executor, accelerator in (("vertex", "tpu_v3=8"), ("vertex", "a100=8"), ("kubernetes", "a100=4"), ("docker", "")):
    where = xm_launch.place(xm, xm_local, executor, accelerator)
    entry = build_image._get_entrypoint_commands(where.packageable.executable_spec)
    assert entry == 'python -m flan_jax.launch.sweep --run --restarts=3 -- "$@"', entry
    job = xm.Job(executable=xm.Executable(name="packed"), executor=where.executor(), args=["-m", "flan_jax.eval"])
    if executor == "vertex":
        spec = vertex.get_machine_spec(job)
        assert spec["accelerator_count"] == 8 and spec["machine_type"], spec
        print(f"{executor}, {accelerator}: {spec['machine_type']}, {spec['accelerator_type'].name}")
    elif executor == "kubernetes":
        limits = kubernetes.requirements_from_executor(job.executor).limits
        assert limits == {"nvidia.com/gpu": "4"}, limits
        print(f"{executor}, {accelerator}: {limits}")

try:
    xm_launch.place(xm, xm_local, "vertex", "tpu_v99=8")
except FlanError as error:
    print(f"an unknown accelerator: {error}")
else:
    raise AssertionError("an accelerator that nobody has was taken")
