"""What COMPUTATION="auto" chooses, by platform and memory."""

import dataclasses

import jax
import pytest

from flan_jax import configuration, partitioning
from flan_jax.errors import FlanError
from flan_jax.models import automatic
from flan_jax.models.automatic import Device, Step
from flan_jax.models.config import COMPUTATION

CPU = Device("cpu", "cpu", 24e9)
V5E = Device("tpu", "TPU v5 lite", 16e9)
H100 = Device("gpu", "NVIDIA H100", 80e9, 9.0)
A100 = Device("gpu", "NVIDIA A100", 40e9, 8.0)
T4 = Device("gpu", "Tesla T4", 16e9, 7.5)
ROWS = Step(rows=8, slots=1280, targets=256)


def model(name):
    return configuration.model_config(name)


@pytest.mark.parametrize(
    ("name", "device", "dtype", "attention"),
    [
        ("smollm2_135m", CPU, "float32", "segments"),
        ("smollm2_135m", V5E, "bfloat16", "splash"),
        ("smollm2_135m", H100, "bfloat16", "cudnn"),
        ("gemma3_270m", H100, "bfloat16", "cudnn"),  # heads of 256, from Hopper on
        ("gemma3_270m", A100, "bfloat16", "xla"),
        ("gemma2_2b", H100, "bfloat16", "xla"),  # soft-caps
        ("smollm2_135m", T4, "float32", "xla"),
        ("t5_1_1_small", V5E, "bfloat16", "xla"),
        ("lamda_pt_422m", CPU, "float32", "segments"),
    ],
)
def test_dtype_and_attention(name, device, dtype, attention):
    found, said = automatic.chosen(model(name), "auto", device, ROWS)
    assert (found["dtype"], found["attention"]) == (dtype, attention)
    model(name).computed(**found)  # which refuses what does not fit together
    assert device.kind in said and dtype in said and attention in said and "\n" not in said


def test_remat_keeps_what_fits():
    config, kept = model("gemma3_1b"), []
    for memory in (8e9, 30e9, 60e9, 200e9):
        found, _ = automatic.chosen(config, {"remat": "auto", "dtype": "bfloat16"}, Device("tpu", "x", memory), ROWS)
        kept.append(["full", "save_attention", "save_dots"].index(found["remat"]))
    assert kept == sorted(kept) and kept[0] == 0 and kept[-1] == 2
    halved = dataclasses.replace(ROWS, rows=1)
    few, _ = automatic.chosen(config, {"remat": "auto", "dtype": "bfloat16"}, Device("tpu", "x", 30e9), halved)
    assert ["full", "save_attention", "save_dots"].index(few["remat"]) > kept[1] - 1
    unknown, said = automatic.chosen(config, {"remat": "auto"}, Device("gpu", "x"), ROWS)
    assert unknown == {"remat": "full"} and "does not say" in said


def test_logits_at_once():
    large = automatic.chosen(model("gemma3_270m"), {"head_chunk": "auto"}, V5E, dataclasses.replace(ROWS, rows=1))
    assert large[0] == {"head_chunk": 256}  # one chunk: no communication for each of four
    small = automatic.chosen(model("gemma3_270m"), {"head_chunk": "auto"}, V5E, dataclasses.replace(ROWS, rows=64))
    assert small[0]["head_chunk"] == 64


def test_what_is_named_stays():
    config = model("smollm2_135m")
    given = {"dtype": "float32", "attention": "auto", "head_chunk": 32}
    assert automatic.chosen(config, given, H100, ROWS)[0] == {**given, "attention": "xla"}  # cuDNN takes bfloat16 only
    for nothing in (None, {}, {"remat": "none"}):
        assert automatic.chosen(config, nothing, CPU, ROWS) == (dict(nothing or {}), "")


def test_scoring_has_no_backward_pass():
    found, _ = automatic.chosen(model("smollm2_135m"), "auto", V5E)
    assert found == {"dtype": "bfloat16", "attention": "xla"}  # trees have branches, which the kernel does not know


def test_the_devices_that_are_here():
    found = Device.of(partitioning.make_mesh().devices.flat[0])
    assert found.platform == "cpu" and 0 < found.memory * jax.local_device_count() < 1e15


def test_a_model_is_not_computed_automatically_by_itself():
    with pytest.raises(FlanError, match="'auto'"):
        model("tiny").computed(remat="auto")
    assert set(automatic.AUTOMATIC) < set(COMPUTATION)
