import json

import pytest
import yaml

from flan_jax.launch import gke, work

SLICES = ["--type=v5p", "--topology=4x4x4", "--image=region-docker.pkg.dev/p/flan:1"]
TRAIN = ["-m", "flan_jax.train", "--gin.MODEL_DIR='gs://bucket/it''s a \"run\"'", "a $HOME `b`: {c}\n- d"]


@pytest.fixture
def written(capsys):
    def of(*arguments, program=TRAIN):
        gke.main([*SLICES, *arguments, "--", *program])
        return list(yaml.safe_load_all(capsys.readouterr().out))

    return of


def test_it_goes_to_a_file(tmp_path, capsys):
    gke.main([*SLICES, f"--write={tmp_path / 'first.yaml'}", "--", *TRAIN])
    (manifest,) = yaml.safe_load_all((tmp_path / "first.yaml").read_text())
    assert manifest["kind"] == "JobSet" and "kind: JobSet" not in capsys.readouterr().out


def assert_published(manifest):
    """The manifest is of JobSet's published types, and none of its fields is unknown to them."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    assert not list(_unknown(manifest, models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict()))
    rule = manifest["spec"]["failurePolicy"]["rules"][0]
    assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert {r["action"] for r in job["podFailurePolicy"]["rules"]} <= {"FailJob", "FailIndex", "Ignore", "Count"}


def _unknown(ours, published, where=""):
    """Places of a manifest that the published types have dropped or changed; they add defaults, which is fine."""
    if isinstance(ours, dict) and isinstance(published, dict):
        for key, value in ours.items():
            yield from _unknown(value, published.get(key), f"{where}/{key}")
    elif isinstance(ours, list) and isinstance(published, list) and len(ours) == len(published):
        for number, (one, other) in enumerate(zip(ours, published, strict=True)):
            yield from _unknown(one, other, f"{where}/{number}")
    elif ours != published:
        yield where


@pytest.mark.parametrize("options", [[], ["--spot", "--slices=4"], ["--service_account=flan", "--env=A=b=c"]])
def test_manifests_are_of_the_published_types(written, options):
    (manifest,) = written(*options)
    assert_published(manifest)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert [expanded(word, {}) for word in pod["containers"][0]["command"]] == ["python", *TRAIN]


def expanded(text, variables):
    """What Kubernetes makes of a word of a command: $$ is $, $(NAME) a variable if there is one."""
    out, at = "", 0
    while at < len(text):
        name = text[at + 2 : text.find(")", at)] if text.startswith("$(", at) and ")" in text[at:] else None
        if text.startswith("$$", at):
            out, at = out + "$", at + 2
        elif name in variables:
            out, at = out + variables[name], at + len(name) + 3
        else:
            out, at = out + text[at], at + 1
    return out


@pytest.mark.parametrize("word", ["--gin.X='$(A)'", "$$(A)", "$$", "a$", "$(A", "$(B) $A"])
def test_kubernetes_changes_no_word(written, word):
    assert expanded("$(A) $$(A) $(B)", {"A": "1"}) == "1 $(A) $(B)"
    (manifest,) = written("--env=A=1", f"--env=B={word}", program=["-m", "x", word])
    (container,) = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert expanded(container["command"][-1], {"A": "1"}) == word
    assert expanded(container["env"][-1]["value"], {"A": "1"}) == word


@pytest.mark.parametrize(
    "wrong", [{"podFailurPolicy": {"rules": []}}, {"backoffLimit": "none"}, {"template": {"spec": {"containers": {}}}}]
)
def test_a_field_that_is_not_published_is_found(written, wrong):
    pydantic = pytest.importorskip("pydantic")
    pytest.importorskip("kubeflow_trainer_api")
    (manifest,) = written()
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"].update(wrong)
    with pytest.raises((AssertionError, pydantic.ValidationError)):
        assert_published(manifest)


def test_a_slice_is_a_job_of_its_hosts(written):
    (manifest,) = written("--slices=2", "--spot", "--restarts=7", "--grace=30")
    spec = manifest["spec"]
    (slices,) = spec["replicatedJobs"]
    job = slices["template"]["spec"]
    assert slices["replicas"] == 2 and spec["failurePolicy"]["maxRestarts"] == 7
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (16, 16, "Indexed")
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] == 30


def test_a_preemption_costs_no_restart(written):
    (manifest,) = written()
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    status, taken = job["podFailurePolicy"]["rules"]
    assert status["onExitCodes"] == {"containerName": "flan", "operator": "In", "values": [75]}
    assert taken["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    (rule,) = manifest["spec"]["failurePolicy"]["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"] and rule["action"].endswith("IgnoreMaxRestarts")
    assert job["backoffLimit"] == 0


@pytest.mark.parametrize(
    ("generation", "topology", "hosts", "chips"),
    [
        ("v5e", "2x4", 1, 8),
        ("v5e", "4x8", 8, 4),
        ("v6e", "1x1", 1, 1),
        ("v4", "2x2x1", 1, 4),
        ("tpu7x", "4x4x8", 32, 4),
    ],
)
def test_hosts_of_a_topology(generation, topology, hosts, chips):
    slices = gke.Slices(generation, topology).checked()
    assert (slices.hosts, slices.chips_per_host) == (hosts, chips)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--topology=4x4"], "v5p has 3 axes"),
        (["--topology=1x1x1"], "are not whole hosts of 4"),
        (["--topology=2x2x1", "--slices=2"], "slices of several hosts only"),
        (["--topology=4"], "chips along each axis"),
        (["--topology=0x4x4"], "chips along each axis"),
        (["--env=A"], "NAME=VALUE"),
        (["--namespace=Mine"], "lower-case"),
        (["--type=v99"], "invalid choice"),
    ],
)
def test_wrong_slices_are_one_line(capsys, options, says):
    with pytest.raises(SystemExit) as caught:
        gke.main([*SLICES, *options, "--", *TRAIN])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and says in line


def test_a_sweep_is_a_jobset_for_each_unit(capsys, written):
    sweep_options = ["--checkpoint=gs://b/first", "--clusters=nli,sentiment", "--shots=0,5", "--output=memory://b/out"]
    found = written(*sweep_options, program=["--gin.PREPARED_DIR='gs://b/p'"])
    names = [manifest["metadata"]["name"] for manifest in found]
    assert len(set(names)) == 4 and all(len(name) <= 40 for name in names)
    for manifest in found:
        assert_published(manifest)
    capsys.readouterr()
    gke.main([*SLICES, *sweep_options, "--dry_run", "--json"])
    assert [unit["name"] for unit in json.loads(capsys.readouterr().out)["units"]] != names  # other arguments


def test_what_waits_for_a_training_is_refused(capsys):
    with pytest.raises(SystemExit):
        gke.main([*SLICES, "--model_dir=gs://b/m", "--clusters=nli", "--output=memory://b/o"])
    assert "one JobSet does not wait for another" in capsys.readouterr().err


def test_names_of_pods_have_room():
    name = work.unit_name(["eval", "a" * 100, "b_c"], ["x"])
    assert len(f"{name}-{gke.SLICE}-1023-1023-abcde") <= 63
