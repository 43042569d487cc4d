#!/usr/bin/env bash
# What a TPU host does for `flan_jax.launch.tpu_vm`, which copies this file into ~/flan and calls it over ssh:
#
#   host.sh install DIGEST WHEEL EXTRAS        the locked versions, into ~/flan/venv
#   host.sh start UNIT ATTEMPT ARGUMENTS...    Python with these arguments, supervised; once for an attempt
#   host.sh status UNIT                        a line: FLAN-STATUS host attempt running | ended CODE | lost | none
#   host.sh follow UNIT [HOST=LINES ...]       the log's lines as FLAN-LOG host line, from after so many of this host
#   host.sh stop UNIT SECONDS                  SIGTERM to the program, SIGKILL after so many seconds
#
# The program runs in a session of its own, by setsid and nohup, with its process number and exit status in files.
# systemd-run --user would keep it too, but only where lingering is switched on, and not across the end of the ssh
# session otherwise; a system unit needs root. This needs neither, and runs the same wherever bash is.
set -u
flan="$HOME/flan"
me=$(hostname)
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown)

read_file() { cat "$1" 2>/dev/null || true; }
write_file() { printf '%s\n' "$2" > "$1.tmp" && mv "$1.tmp" "$1"; } # whole or not at all

is_running() { # of a job's folder: the supervisor lives, and is of this boot, since numbers are given out again
  local pid
  pid=$(read_file "$1/pid")
  [ -n "$pid" ] && [ "$(read_file "$1/boot")" = "$boot" ] && kill -0 "$pid" 2>/dev/null
}

install() {
  local digest=$1 wheel=$2 extras=$3 python
  [ "$(read_file "$flan/venv/installed")" = "$digest" ] && exit 0
  python=$(command -v python3.11 || command -v python3.12 || true)
  if [ -z "$python" ]; then
    # A machine that has just booted updates itself: wait for it.
    sudo apt-get -q -o DPkg::Lock::Timeout=900 update &&
      sudo apt-get -qy -o DPkg::Lock::Timeout=900 install python3.11-venv || exit 1
    python=$(command -v python3.11) || exit 1
  fi
  rm -f "$flan/venv/installed"
  "$python" -m venv "$flan/venv" &&
    "$flan/venv/bin/python" -m pip install --quiet --constraint "$flan/requirements.lock" "$flan/$wheel[$extras]" &&
    write_file "$flan/venv/installed" "$digest"
}

start() {
  local job="$flan/jobs/$1" attempt=$2
  shift 2
  mkdir -p "$job" || exit 1
  exec 9> "$job/lock"
  flock 9
  [ "$(read_file "$job/attempt")" = "$attempt" ] && exit 0 # the connection was lost after the last start
  if is_running "$job"; then
    echo "host.sh: attempt $(read_file "$job/attempt") still runs on $me" >&2
    exit 4
  fi
  rm -f "$job/status" "$job/pid" "$job/program"
  write_file "$job/attempt" "$attempt" || exit 1
  setsid nohup bash "$0" supervise "$job" "$@" < /dev/null > /dev/null 2>&1 9>&- &
  for _ in $(seq 100); do
    [ -s "$job/pid" ] && exit 0
    sleep 0.1
  done
  echo "host.sh: the supervisor did not start on $me" >&2
  exit 1
}

supervise() {
  local job=$1 code program
  shift
  trap : TERM # the program is told by whoever tells us; its exit status is waited for
  write_file "$job/boot" "$boot"
  cd "$HOME" || exit 1
  PYTHONUNBUFFERED=1 nohup "$flan/venv/bin/python" "$@" < /dev/null >> "$job/log" 2>&1 &
  program=$!
  write_file "$job/program" "$program"
  write_file "$job/pid" "$$"
  while :; do
    wait "$program"
    code=$?
    kill -0 "$program" 2> /dev/null || break # otherwise a signal ended the waiting, not the program
  done
  write_file "$job/status" "$code"
}

status() {
  local job="$flan/jobs/$1" attempt state
  attempt=$(read_file "$job/attempt")
  if is_running "$job"; then
    state=running
  elif [ -s "$job/status" ]; then
    state="ended $(read_file "$job/status")"
  elif [ -n "$attempt" ]; then
    state=lost # killed with its supervisor, or the host was started again
  else
    state=none
  fi
  echo "FLAN-STATUS $me ${attempt:-0} $state"
}

follow() {
  local job="$flan/jobs/$1" from=1 pair
  shift
  for pair in "$@"; do
    [ "${pair%=*}" = "$me" ] && from=$((${pair##*=} + 1))
  done
  mkdir -p "$job" && touch "$job/log"
  tail --pid="$PPID" -n "+$from" -F "$job/log" 2> /dev/null | LC_ALL=C sed -u "s/^/FLAN-LOG $me /"
}

stop() {
  local job="$flan/jobs/$1" program
  is_running "$job" || exit 0
  program=$(read_file "$job/program")
  kill -TERM "$program" 2> /dev/null
  for _ in $(seq $(($2 * 10))); do
    is_running "$job" || exit 0
    sleep 0.1
  done
  kill -KILL "$program" 2> /dev/null
  for _ in $(seq 100); do
    is_running "$job" || exit 0
    sleep 0.1
  done
  echo "host.sh: the program does not end on $me" >&2
  exit 1
}

"$@"
