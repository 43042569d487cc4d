#!/usr/bin/env bash
# A sweep of two evaluation units, really run under XManager's local executor, in an environment of its own.
# Usage: run_xmanager.sh [PYTHON]: the interpreter that has FLAN-JAX; default python. Needs the package index.
set -euo pipefail
python=$(command -v "${1:-python}")
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "$0: line $LINENO failed" >&2' ERR
export HOME="$work/home" PYTHONDONTWRITEBYTECODE=1 JAX_PLATFORMS=cpu  # XManager keeps a database in the home folder
mkdir "$HOME"
cd "$work"

python3.11 -m venv xmanager
xmanager/bin/python -m pip install --quiet --requirement "$checkout/requirements-xmanager.lock"
# The wheel is the one that hosts of TPUs get.
"$python" -c 'from flan_jax.launch.tpu_package import Package; import shutil; p = Package(); shutil.copy(p.wheel, ".")'
xmanager/bin/python -m pip install --quiet --no-deps ./*.whl
[ -f "$(xmanager/bin/python -c 'import flan_jax.launch.tpu_package as package; print(package.SCRIPT)')" ]

"$python" "$checkout/tests/launch/small_model.py" "$work"
sweep=(xmanager/bin/python -m flan_jax.launch.xm_launch --executor=local --python="$python" --title="small sweep"
  --checkpoint=small --clusters=rte,qnli --output=sweep -- --gin.PREPARED_DIR="'$work/prepared'" --gin.GENERATE=False)
"${sweep[@]}" 2>&1 | tee first.log
"${sweep[@]}" 2>&1 | tee second.log

# Both have results, and the second time there was nothing left to do.
for dataset in rte qnli; do
  "$python" -c "import json, sys; assert '$dataset' in json.load(open(sys.argv[1]))['datasets']" \
    "sweep/small/$dataset/instructions/results.json"
done
[ "$(grep -c '^eval-.*: done$' first.log)" = 2 ]
grep -q '2 of 2 units have results' second.log
grep -q 'nothing is left to do' second.log
if grep -q '^eval-' second.log; then exit 1; fi

# A unit that fails is named, and the exit status says so.
if xmanager/bin/python -m flan_jax.launch.xm_launch --executor=local --python="$python" -- -c 'raise SystemExit(3)' \
  > failed.log 2>&1; then exit 1; fi
grep 'flan_jax: 1 of 1 units are not done' failed.log

# The executors of the cloud take what they are given; nothing is launched.
xmanager/bin/python "$checkout/tests/launch/check_xmanager.py"
echo "XManager: all as expected"
