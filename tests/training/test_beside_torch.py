"""Whole runs beside PyTorch: transformers' models, `peft`'s adapters and torch.optim, one example at a time.

The other side knows no rows, no microbatches, no mesh and no second start. What has to agree are the trained weights
after all steps, as both write them.
"""

import dataclasses
import itertools
import json
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from small_training import LENGTHS, train

from flan_jax import configuration, convert, models
from flan_jax.checkpoint import arrays, saving
from flan_jax.checkpoint.manifest import UNTUNED, Manifest
from flan_jax.data.mixture_stream import open_mixture
from flan_jax.data.vocabularies import ByteTokenizer
from flan_jax.formats import native
from flan_jax.formats import peft as folders
from flan_jax.training import optimizers

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"embed_dim": 16, "num_heads": 4, "head_dim": 8, "mlp_dim": 24, "vocab_size": 264, "num_layers": 2}
DECODER = dataclasses.replace(configuration.model_config("tiny"), **SMALL, num_kv_heads=2, remat="none")
T5 = dataclasses.replace(
    configuration.model_config("tiny_t5"), **SMALL, num_kv_heads=4, num_encoder_layers=2, remat="none"
)
STEPS, RATE, WARMUP, END = 4, 1e-2, 1, 0.1
B1, B2, EPSILON, DECAY, CLIP, EMA = 0.8, 0.9, 1e-4, 0.2, 0.05, 0.6
Z_LOSS, SMOOTHING = 1e-2, 0.1
LORA = {"rank": 3, "alpha": 7, "targets": ("self_attention", "encoder_decoder_attention/query", "mlp/wo")}
CASES = {
    "adapters": (DECODER, {"lora": LORA | {"targets": ("self_attention", "mlp/wo")}}),
    "adapters of an encoder-decoder": (T5, {"lora": LORA}),
    "soft prompt": (DECODER, {"prompt_length": 5}),
    "frozen": (DECODER, {"frozen": ("token_embedder", "self_attention/*/kernel", "!query", "!key")}),
    "head of its own": (dataclasses.replace(DECODER, tied_embeddings=False), {"frozen": ("mlp",)}),
}


def _base(folder, config):
    with saving.Saver(folder) as saver:
        saver.save(0, jax.jit(models.build(config).init)(jax.random.key(3)))
    Manifest.create(config, ByteTokenizer(), UNTUNED).save(folder)
    ByteTokenizer().save(folder / "vocabulary")


def _examples(config, prepared):
    """For each step, its examples: (arguments of the model, where it predicts, what)."""
    _, stream = open_mixture(
        "sst2",
        prepared,
        ByteTokenizer(),
        rows_per_batch=8,
        lengths=LENGTHS,
        encoder_decoder=bool(config.num_encoder_layers),
    )
    for step in range(STEPS):
        batch, found = stream.batch(step), []
        for row in range(8):
            x = {name: torch.tensor(value[row], dtype=torch.long) for name, value in batch.items()}
            for segment in range(1, int(x["segments"].max()) + 1):
                own = x["segments"] == segment
                if config.num_encoder_layers:
                    inputs = x["encoder_tokens"][x["encoder_segments"] == segment]
                    asked = {"input_ids": inputs[None], "decoder_input_ids": x["tokens"][own][None]}
                    found.append((asked, torch.arange(int(own.sum())), x["targets"][own]))
                else:
                    at = x["target_positions"]
                    ours = (x["segments"][at] == segment) & (torch.tensor(batch["weights"][row]) > 0)
                    found.append(({"input_ids": x["tokens"][own][None]}, x["positions"][at[ours]], x["targets"][ours]))
        yield found


def _minimised(logits_NxV, targets_N):
    """Each target's cross entropy against softened targets, less their entropy, and the square of log Z."""
    others = logits_NxV.shape[-1] - 1
    soft_NxV = torch.full_like(logits_NxV, SMOOTHING / others)
    soft_NxV[torch.arange(len(targets_N)), targets_N] = 1 - SMOOTHING
    entropy = -(1 - SMOOTHING) * math.log(1 - SMOOTHING) - SMOOTHING * math.log(SMOOTHING / others)
    nll_N = -(soft_NxV * torch.log_softmax(logits_NxV, -1)).sum(-1) - entropy
    return nll_N + Z_LOSS * torch.logsumexp(logits_NxV, -1) ** 2


def _rate(step):
    if step < WARMUP:
        return RATE / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return RATE * (END + (1 - END) * (1 + math.cos(math.pi * done)) / 2)


def _trained(model, examples, decays):
    """Trains a model of transformers; gives the mean of what was trained, by its names."""
    named = {name: x for name, x in model.named_parameters() if x.requires_grad}
    mean = {name: x.detach().clone() for name, x in named.items()}
    groups = [
        {"params": [x for name, x in named.items() if decays(name) == yes], "weight_decay": DECAY * yes}
        for yes in (True, False)
    ]
    adam = torch.optim.AdamW(groups, betas=(B1, B2), eps=EPSILON)
    norms = []
    for step, found in enumerate(examples):
        for group in adam.param_groups:
            group["lr"] = _rate(step)
        adam.zero_grad()
        for asked, places, targets in found:
            logits_LxV = model(**asked).logits[0]
            if "decoder_input_ids" not in asked:  # `peft` gives those of a soft prompt too
                logits_LxV = logits_LxV[-asked["input_ids"].shape[1] :]
            (_minimised(logits_LxV[places], targets).mean() / len(found)).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(named.values(), CLIP)))
        adam.step()
        for name, x in named.items():
            mean[name] = EMA * mean[name] + (1 - EMA) * x.detach()
    return mean, norms


def _spared(name):
    return "norm" in name or "bias" in name or "embed" in name  # a soft prompt too


def _assert_same(found, expected, start):
    """As closely as the steps are small, so that no weight could have stayed where it was."""
    assert found.keys() == expected.keys()
    moved = 0.0
    for name, x in expected.items():
        size = np.abs(x - start[name]).max()
        np.testing.assert_allclose(found[name], x, atol=2e-3 * size + 2e-7, rtol=0, err_msg=name)
        moved = max(moved, size)
    assert moved > 5e-3


@pytest.mark.parametrize(
    "name", [name if name == "adapters" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_weights_are_those_that_torch_trains(name, prepared, tmp_path):
    config, what = CASES[name]
    base, run = tmp_path / "base", tmp_path / "run"
    _base(base, config)
    arguments = {
        "initial_checkpoint_path": str(base),
        "optimizer": optimizers.adamw(RATE, WARMUP, f"cosine(end={END})", STEPS, B1, B2, EPSILON, weight_decay=DECAY),
        "clip_norm": CLIP,
        "ema_decay": EMA,
        "loss_averaging": "per_example",
        "z_loss": Z_LOSS,
        "label_smoothing": SMOOTHING,
        "microbatches": 2,
        "mesh_shape": {"data": 2, "fsdp": 2, "tensor": 2},
    }
    for steps in (STEPS // 2, STEPS):
        train(run, prepared, steps, **arguments | what)
    convert.convert(str(base), str(tmp_path / "theirs"), form="huggingface")
    kind = transformers.AutoModelForSeq2SeqLM if config.num_encoder_layers else transformers.AutoModelForCausalLM
    theirs = kind.from_pretrained(tmp_path / "theirs", dtype=torch.float32).eval()
    form, weights = "huggingface", "model.safetensors"
    beside = "frozen" not in what
    if beside:
        form, weights = "peft", folders.WEIGHTS
        lora = optimizers.Lora(**what["lora"]) if "lora" in what else None
        network = optimizers.Tuning(lora=lora, prompt_length=what.get("prompt_length")).adapted(models.build(config))
        first = network.adapters(jax.random.key(0), arrays.load_model(base)[1])
        folders.write(native.read(base, 0), jax.device_get(first), "theirs", tmp_path / "start")
        if lora is None:  # `peft` trains no prompt that it has loaded
            slots = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=what["prompt_length"])
            theirs = peft.get_peft_model(theirs, slots).eval()
            with torch.no_grad():
                (soft,) = load_file(tmp_path / "start" / weights).values()
                theirs.prompt_encoder["default"].embedding.weight.copy_(torch.tensor(soft))
        else:
            theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "start", is_trainable=True).eval()
    else:
        for parameter, x in theirs.named_parameters():
            parts = parameter.split(".")
            frozen = "mlp" in parts if "mlp" in what["frozen"] else {"embed_tokens", "v_proj", "o_proj"} & {*parts}
            x.requires_grad_(not frozen)

    def written():
        if beside:
            return {k: x.numpy().copy() for k, x in peft.get_peft_model_state_dict(theirs).items()}
        return {k: x.detach().numpy().copy() for k, x in theirs.named_parameters()}

    start = written()
    mean, norms = _trained(
        theirs, _examples(config, prepared), lambda parameter: "lora" in what or not _spared(parameter)
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([line["gradient_norm"] for line in lines], norms, rtol=1e-3)
    assert min(norms) > CLIP
    for which in ("params", "ema"):
        if which == "ema":
            with torch.no_grad():
                for parameter, x in theirs.named_parameters():
                    x.copy_(mean.get(parameter, x))
        convert.convert(str(run), str(tmp_path / which), form=form, which=which)
        found = load_file(tmp_path / which / weights)
        _assert_same({k: found[k] for k in start}, written(), start)
    assert len(start) == len([*itertools.filterfalse(lambda k: k == "lm_head.weight" and k not in start, found)])


def test_adafactor_with_factored_statistics_is_that_of_torch():
    """Layers one at a time, kernels as matrices of 128 and more on both sides; gradients of several sizes."""
    sizes = {"layers": 2, "embed": 130, "heads": 4, "kv": 40, "mlp": 150, "vocab": 160}
    axes = {
        "query": ("layers", "embed", "heads", "kv"),
        "out": ("layers", "heads", "kv", "embed"),
        "wo": ("layers", "mlp", "embed"),
        "norm": ("layers", "embed"),
        "table": ("vocab", "embed"),
    }
    rng = np.random.default_rng(0)

    def random(scale):
        return {k: (scale * rng.normal(size=[sizes[a] for a in names])).astype(np.float32) for k, names in axes.items()}

    def apart(tree):
        """By layers, as matrices."""
        found = {"table": tree["table"]}
        for key in tree.keys() - found:
            for layer, x in enumerate(tree[key]):
                of = {"query": (sizes["embed"], -1), "out": (-1, sizes["embed"])}.get(key, x.shape)
                found[f"{key} {layer}"] = x.reshape(of)
        return found

    params = random(0.1)
    theirs = {key: torch.tensor(x) for key, x in apart(params).items()}
    adafactor = torch.optim.Adafactor(theirs.values(), lr=1e-2, eps=(1e-30, 1e-3), d=1.0, beta2_decay=-0.8)
    tx = optimizers.for_parameters(optimizers.adafactor(1e-2), axes)
    state = tx.init(params)
    for scale in (1e-3, 10.0, 1.0, 1e-2):
        gradient = random(scale)
        updates, state = tx.update(gradient, state, params)
        params = {key: np.asarray(x + updates[key]) for key, x in params.items()}
        for key, x in apart(gradient).items():
            theirs[key].grad = torch.tensor(x)
        adafactor.step()
    for key, x in apart(params).items():
        np.testing.assert_allclose(x, theirs[key], rtol=2e-5, atol=1e-6, err_msg=key)
    assert max(x.size for x in jax.tree.leaves(state)) < 1000  # rows and columns
