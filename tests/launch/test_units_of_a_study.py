"""Units that `study --units` wrote, as launchers take them."""

import json

import pytest

from flan_jax.launch import gke, sweep, tpu_vm, work

UNITS = [
    {"name": "prepare-1", "job": "program", "argv": ["-m", "flan_jax.prepare"], "output": "/s/prepared", "after": []},
    {"name": "train-1", "job": "train", "argv": ["-m", "flan_jax.train"], "output": "/s/m", "after": ["prepare-1"]},
    {"name": "eval-1", "job": "eval", "argv": ["-m", "flan_jax.eval"], "output": "/s/e", "after": ["train-1"]},
]


@pytest.fixture
def written(tmp_path):
    """units -> the option with a file of them."""

    def write(units=UNITS, text=None):
        (tmp_path / "units.json").write_text(json.dumps({"units": units}) if text is None else text)
        return f"--units={tmp_path}/units.json"

    return write


def test_all_launchers_take_them(written, capsys):
    for launcher, more in ((sweep, []), (tpu_vm, ["run", "--name=n", "--zone=z", "--type=v5e-8", "--runtime=r"])):
        launcher.main([*more, written(), "--dry_run", "--json"])
        found = json.loads(capsys.readouterr().out)["units"]
        assert [(one["name"], one["after"]) for one in found] == [(one["name"], one["after"]) for one in UNITS]
    with pytest.raises(SystemExit) as caught:  # one JobSet does not wait for another
        gke.main([written(), "--type=v5e", "--topology=2x4", "--image=i", "--dry_run"])
    assert caught.value.code == 2 and "does not wait for another" in capsys.readouterr().err


def test_what_has_results_is_left_out_and_waited_for_no_more(written, tmp_path, capsys):
    (tmp_path / "e").mkdir()
    (tmp_path / "e/results.json").write_text("{}")
    last = {**UNITS[0], "name": "report-1", "after": ["eval-1"]}
    units = [*UNITS[:2], {**UNITS[2], "output": f"{tmp_path}/e"}, last]
    sweep.main([written(units), "--json"])
    found = json.loads(capsys.readouterr().out)["units"]
    assert [one["name"] for one in found] == ["prepare-1", "train-1", "report-1"] and found[-1]["after"] == []
    sweep.main([written(units), "--json", "--again"])
    assert len(json.loads(capsys.readouterr().out)["units"]) == 4


def test_they_run_here(written, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(sweep, "run_here", lambda unit, restarts: ran.append(unit.name) or 0)
    with pytest.raises(SystemExit) as caught:
        sweep.main([written(), "--run"])
    assert caught.value.code == 0 and ran == [one["name"] for one in UNITS]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model_dir=/m"], "leave --model_dir out"),
        (["--checkpoint=/m"], "leave --checkpoint out"),
        (["--output=/o"], "leave --output out"),
        (["--", "-m", "flan_jax.train"], "leave -- -m flan_jax.train out"),
    ],
)
def test_they_are_all_that_runs(written, capsys, more, said):
    with pytest.raises(SystemExit) as caught:
        sweep.main([written(), *more])
    assert caught.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("units", "text", "said"),
    [
        (None, "", "holds no units"),
        (None, "[]", "holds no units"),
        (None, '{"units": 1}', "holds no units"),
        ([{"name": "a"}], None, "holds no units"),
        ([{**UNITS[0], "name": 1}], None, "unit 0 is none of a study"),
        ([{**UNITS[0], "argv": ["-c", "print(1)"]}], None, "unit 0 is none of a study"),
        ([{**UNITS[0], "argv": ["-m", "http.server"]}], None, "unit 0 is none of a study"),
        ([UNITS[0], UNITS[0]], None, "unit 1 is none of a study"),
        ([UNITS[1]], None, "train-1 comes before prepare-1"),
    ],
)
def test_what_holds_no_units(written, capsys, units, text, said):
    with pytest.raises(SystemExit) as caught:
        sweep.main([written(units, text)])
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_paths_that_begin_here_are_refused_elsewhere(written, capsys):
    with pytest.raises(SystemExit):
        tpu_vm.main(
            ["run", "--name=n", "--zone=z", "--type=v5e-8", "--runtime=r", written([{**UNITS[0], "output": "s"}])]
        )
    assert "the machines cannot see a folder" in capsys.readouterr().err
    assert sweep.read_units(written().partition("=")[2])[0] == work.Unit(
        "prepare-1", "program", ("-m", "flan_jax.prepare"), "/s/prepared"
    )
