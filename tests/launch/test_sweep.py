import ast
import json
import shlex
import signal
import subprocess
import sys
import time

import pytest

from flan_jax import configuration
from flan_jax.errors import FlanError
from flan_jax.launch import sweep, work

CLUSTERS = ("nli", "sentiment")


def plan(**given):
    return sweep.plan(**{"checkpoints": ["/m/a", "/m/b"], "clusters": CLUSTERS, "output": "/o", **given})


def bindings(unit):
    _, found, rest = configuration.split_arguments(unit.argv)
    assert rest == ["-m", f"flan_jax.{unit.job}"]
    return {name: ast.literal_eval(value) for name, _, value in (line.partition(" = ") for line in found)}


def test_units_are_checkpoints_by_clusters_by_styles_by_seeds():
    units = plan(styles=("instructions", "5_shots"), seeds=(0, 1, 2))
    assert len(units) == 2 * 2 * (1 + 3)  # without exemplars, a seed changes nothing
    assert len({unit.name for unit in units}) == len({unit.output for unit in units}) == len(units)
    for unit in units:
        bound = bindings(unit)
        name, cluster, style, *seed = unit.output.removeprefix("/o/").split("/")
        assert (bound["CHECKPOINT_PATH"], bound["DATASETS"], bound["STYLE"]) == (f"/m/{name}", (cluster,), style)
        assert seed == ([f"seed_{bound['SEEDS'][0]}"] if style == "5_shots" else [])


def test_the_rest_of_the_plan_changes_no_unit():
    few, many = plan(checkpoints=["/m/a"], seeds=(0,), styles=("5_shots",)), plan(seeds=(0, 1), styles=("5_shots",))
    assert set(few) <= set(many)
    assert plan() == plan()


def test_a_training_and_the_evaluations_of_its_model():
    units = sweep.plan(model_dir="gs://b/m/", clusters=CLUSTERS, output="gs://b/o", train_arguments=["--x"])
    assert [unit.job for unit in units] == ["train", "eval", "eval"]
    assert units[0].argv == ("-m", "flan_jax.train", "--x", "--gin.MODEL_DIR='gs://b/m'") and units[0].after == ()
    assert all(unit.after == (units[0].name,) for unit in units[1:])
    assert bindings(units[1])["CHECKPOINT_PATH"] == "gs://b/m" and units[1].output == "gs://b/o/m/nli/instructions"


@pytest.mark.parametrize("folder", ["/m/it's", '/m/"a" b', "/m/a=b", "/m/é\\n", "/m/x;$HOME`y`"])
def test_any_path_comes_through_shell_and_gin(folder):
    (unit,) = plan(checkpoints=[f"name={folder}"], clusters=["rte"])
    words = shlex.split(shlex.join(unit.argv))
    assert bindings(work.Unit("n", "eval", tuple(words)))["CHECKPOINT_PATH"] == folder


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"checkpoints": ["/m/a", "/n/a"]}, "two checkpoints are called 'a': give them names"),
        ({"checkpoints": ["/m/a", "a=/n/b"]}, "two checkpoints are called 'a'"),
        ({"checkpoints": [], "clusters": []}, "nothing to launch"),
        ({"checkpoints": []}, "--clusters without a model"),
        ({"clusters": []}, "--checkpoint without --clusters"),
        ({"clusters": ["nil"]}, "did you mean"),
        ({"clusters": ["nli", "nli"]}, "--clusters: one is there twice"),
        ({"seeds": (1, 1)}, "--seeds: one is there twice"),
        ({"styles": ("six_shots",)}, "six_shots"),
        ({"output": None}, "need --output"),
        ({"output": " "}, "the path is empty"),
        ({"checkpoints": ["a="]}, "write a folder"),
        ({"checkpoints": ["/"]}, "give it a name"),
        ({"checkpoints": ["a b=/m/a"]}, "give it a name"),
        ({"checkpoints": ["/m/a\0"]}, "zero byte"),
        ({"train_arguments": ["--x"]}, "no --model_dir"),
        ({"model_dir": "/n/a"}, "two checkpoints are called 'a'"),
    ],
)
def test_what_cannot_be_planned_is_one_line(given, says):
    with pytest.raises(FlanError, match=says) as caught:
        plan(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["a"], ["A_b", "ü"], ["x" * 200], ["-"], ["9"], [""]])
def test_names_fit_everywhere(words):
    name = work.unit_name(words, ["told"])
    assert name == work.unit_name(words, ["told"]) != work.unit_name(words, ["other"])
    assert len(name) <= 40 and name[0].isalpha() and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_what_has_results_is_left_out(tmp_path, capsys):
    given = [f"--checkpoint={tmp_path}/a", "--clusters=nli,sentiment", f"--output={tmp_path}/o"]
    (tmp_path / "o/a/nli/instructions").mkdir(parents=True)
    (tmp_path / "o/a/nli/instructions/results.json").write_text("{}")
    for more, names in (([], ["sentiment"]), (["--again"], ["nli", "sentiment"])):
        sweep.main([*given, *more, "--json"])
        out, err = capsys.readouterr()
        assert [bindings(work.Unit(**unit))["DATASETS"][0] for unit in json.loads(out)["units"]] == names
        assert ("1 of 2 units have results" in err) == (not more)


def test_a_folder_that_cannot_be_seen_from_here_leaves_nothing_out(capsys):
    unit = work.Unit("u", work.EVAL, (), "/\0")
    assert not sweep._seen_done(unit) and unit.progress() is None
    assert "cannot be seen from here" in capsys.readouterr().err


def test_shots_are_styles(capsys):
    sweep.main(["--checkpoint=/m/a", "--clusters=rte", "--output=/o", "--styles=instructions,gpt3", "--shots=0,5"])
    out = capsys.readouterr().out
    for style in ("instructions", "5_shots/seed_0", "gpt3", "gpt3_5_shots/seed_0"):
        assert f"/o/a/rte/{style}'" in out
    assert "4 units to run" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--clusters="], "one or more, with commas"),
        (["--clusters=nli,,rte"], "one or more, with commas"),
        (["--seeds=0,x"], "a whole number"),
        (["--seeds=-1"], "a whole number"),
        (["--shots=²"], "a whole number"),
        (["--shots=17"], "17"),
        (["--output=/o", "--train_arg=x"], "no --model_dir"),
        (["--clutsers=nli"], "did you mean --clusters?"),
        (["--", "-m", "flan_jax.eval"], "a sweep runs"),
    ],
)
def test_wrong_options_are_one_line(capsys, options, says):
    given = ["--checkpoint=/m/a", "--clusters=nli", "--output=/o"]
    with pytest.raises(SystemExit) as caught:
        sweep.main([*given, *options])
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == "" and err.count("\n") == 1 and says in err


@pytest.mark.parametrize("path", ["relative", "runs/a", "name=runs/a"])
def test_other_machines_cannot_see_a_folder_of_here(path):
    parser = sweep.options.Parser()
    sweep.add_arguments(parser)
    arguments = sweep.parse(parser, [f"--checkpoint={path}", "--clusters=nli", "--output=gs://b/o"])
    with pytest.raises(FlanError, match="cannot see a folder that is given from here"):
        sweep.from_arguments(arguments, elsewhere=True)


def test_a_name_stands_for_one_checkpoint_in_an_output_folder(tmp_path):
    output = str(tmp_path / "o")
    sweep.keep_record(plan(checkpoints=["a=/m/it's"], output=output), output)
    sweep.keep_record(plan(checkpoints=["/n/b"], output=output), output)
    assert len(json.loads((tmp_path / "o" / sweep.RECORD).read_text())) == 2
    with pytest.raises(FlanError, match="'b' stands for /n/b, not for /other/b"):
        sweep.keep_record(plan(checkpoints=["/other/b"], output=output), output)
    (tmp_path / "o" / sweep.RECORD).write_text("{")
    with pytest.raises(FlanError, match="is damaged"):
        sweep.keep_record(plan(checkpoints=["/n/b"], output=output), output)
    away = str(tmp_path / "away")
    sweep.keep_record(plan(output=away), away, elsewhere=True)
    assert not (tmp_path / "away").exists()  # it is a folder of the other machines


# ------------------------------------------------------------------------------------------------------------ running


def unit(name, after=()):
    return work.Unit(name, work.PROGRAM, (), "", after)


def test_what_needs_a_unit_that_failed_is_left_out(capsys):
    ran = []
    units = [unit("a"), unit("b"), unit("c", ("a",)), unit("d", ("c",)), unit("e", ("b",))]
    status = work.run_all(units, lambda one: ran.append(one.name) or (7 if one.name == "a" else 0))
    assert status == 7 and ran == ["a", "b", "e"]
    assert "c is left out: a failed" in capsys.readouterr().out
    assert work.run_all([], lambda one: 1) == 0


def test_restarts_are_counted_until_there_is_progress():
    counted = work.Restarts(2, lasting=100)
    counted.last = "0"
    assert [counted.allows(seen, 1) for seen in ("0", "0", "1", "1", "1", "1")] == [True, True, True, True, True, False]
    unseen = work.Restarts(1, lasting=100)
    assert [unseen.allows(None, seconds) for seconds in (1, 200, 1, 1)] == [True, True, True, False]
    assert not work.Restarts(0).allows("new", 1e9)


def test_progress_is_what_is_whole(tmp_path):
    one = work.program(["-m", "flan_jax.train", f"--gin.MODEL_DIR={str(tmp_path)!r}"])
    seen = [one.progress()]
    for name in ("5.orbax-checkpoint-tmp", "5", "10"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        seen.append(one.progress())
    assert seen[0] == seen[1] and len(set(seen)) == 3


def test_progress_of_an_evaluation_is_what_it_has_predicted(tmp_path):
    one = work.program(["-m", "flan_jax.eval", f"--gin.EVAL_OUTPUT_DIR={str(tmp_path)!r}"])
    before = one.progress()
    (tmp_path / "predictions" / "rte").mkdir(parents=True)
    (tmp_path / "predictions" / "rte" / "test_t0.jsonl").touch()
    assert one.output == str(tmp_path) and before != one.progress() is not None
    assert work.program(["-m", "flan_jax.train", "--gin.MODEL_DIR='open"]).output == ""


def test_units_run_here_with_restarts(tmp_path):
    count = f"import os, sys; p = {str(tmp_path / 'n')!r}; n = int(open(p).read()) if os.path.exists(p) else 0"
    code = f"{count}; open(p, 'w').write(str(n + 1)); sys.exit(75 if n < 2 else 4)"
    command = [sys.executable, "-m", "flan_jax.launch.sweep", "--run", "--restarts=2", "--", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and (tmp_path / "n").read_text() == "3", done.stderr
    assert "started again (2 of 2 restarts" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("status", [75, 0])
def test_a_signal_reaches_the_program_and_ends_the_sweep(tmp_path, number, status):
    """Not only what runs: what would come next is not started."""
    unit = (
        f"import signal, sys, time\nsignal.signal({number.value}, lambda *_: sys.exit({status}))\n"
        f"open({str(tmp_path / 'ready')!r}, 'a').write('x')\ntime.sleep(60)"
    )
    code = (
        "import sys\nfrom flan_jax.launch import work\n"
        f"units = [work.Unit(name, 'program', ('-c', {unit!r})) for name in 'ab']\n"
        "sys.exit(work.run_all(units, lambda one: work.run_here(one, 3)))"
    )
    sweeping = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    sweeping.send_signal(number)
    assert sweeping.wait(timeout=30) == (status or 128 + number) and (tmp_path / "ready").read_text() == "x"


def test_a_missing_checkpoint_is_named_before_anything_runs(tmp_path, capsys):
    (tmp_path / "here").mkdir()
    given = [
        f"--checkpoint={tmp_path}/here",
        f"--checkpoint={tmp_path}/hre",
        "--clusters=nli",
        f"--output={tmp_path}/o",
    ]
    with pytest.raises(SystemExit) as ended:
        sweep.main([*given, "--run"])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, "") and f"there is no folder {tmp_path}/hre" in errors
    assert not (tmp_path / "o").exists()
    sweep.check_checkpoints(sweep.plan(model_dir=str(tmp_path / "yet"), clusters=["nli"], output=str(tmp_path / "o")))
    sweep.check_checkpoints([work.program(["-m", "flan_jax.eval", "--gin_file=x"])])


@pytest.mark.parametrize(
    ("status", "again"),
    [(0, False), (1, False), (2, False), (130, False), (70, True), (75, True), (137, True), (143, True)],
)
def test_what_is_started_again(status, again):
    """As docs/survival.md has it."""
    assert work.is_restarted(status) == again
