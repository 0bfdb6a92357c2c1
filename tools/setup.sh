#!/usr/bin/env bash
# Makes .venv ready: `tools/setup.sh run` for the demo, `tools/setup.sh dev` for tests, linters, types and docs.
# Finds a Python >= 3.11 (PYTHON= overrides), installs what is missing when started as root (APT=no forbids it), and
# otherwise prints the line that does. Does nothing, quickly, when nothing has changed.
# PACKAGES= names another list of Debian packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

purpose=${1:-dev}
case $purpose in run) extras=all ;; dev) extras=dev ;; *) echo "usage: tools/setup.sh run|dev" >&2; exit 2 ;; esac

say() { printf 'setup: %s\n' "$*" >&2; }

# install PACKAGE...: as root with apt-get; false when that is not possible.
install() {
  [ "$(id -u)" = 0 ] && [ "${APT:-}" != no ] && command -v apt-get >/dev/null 2>&1 || return 1
  say "installing $*"
  local log; log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  if { apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }; } \
       </dev/null >"$log" 2>&1; then
    rm -f "$log"
  else
    tail -n 3 "$log" >&2; rm -f "$log"; return 1
  fi
}

# need PACKAGE... : these are missing; install them, or say how and stop.
need() {
  install "$@" && return
  say "missing here. As root:  apt-get install -y $*"
  exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The system's own interpreter comes first: one in a home directory cannot be reached by other users, and the tests
# are run as another user too.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    if new_enough "$candidate"; then command -v "$candidate"; return; fi
  done
  return 1
}

if [ -n "${PYTHON:-}" ]; then
  new_enough "$PYTHON" || { say "PYTHON=$PYTHON is not a Python 3.11 or newer"; exit 1; }
  python=$(command -v "$PYTHON")
elif ! python=$(find_python); then
  say "no Python 3.11 or newer found"
  need python3 python3-venv
  python=$(find_python) || { say "this system's python3 is older than 3.11; name another with PYTHON="; exit 1; }
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  case $(readlink -f "$python") in
    /usr/bin/*) need python3-venv ;;
    *) say "$python has no ensurepip: install its venv package, or name another interpreter with PYTHON="; exit 1 ;;
  esac
fi

exec 9<.
if command -v flock >/dev/null 2>&1; then flock 9; fi # two commands at once: the second waits

# A .venv that was copied here, or whose interpreter is gone or another one, is made again.
base() { "$1" -c 'import os, sys; print(os.path.realpath(sys.executable), sys.version_info[:3])' 2>/dev/null; }
prefix() { "$1" -c 'import sys; print(sys.prefix)' 2>/dev/null; }
if [ "$(prefix .venv/bin/python)" != "$PWD/.venv" ] || { [ -n "${PYTHON:-}" ] && [ "$(base .venv/bin/python)" != "$(base "$python")" ]; }; then
  say "making .venv with $python"
  rm -rf .venv
  "$python" -m venv .venv
fi

wanted=$(sha256sum <pyproject.toml)
stamp() { cat ".venv/.installed-$1" 2>/dev/null; }
if [ "$(stamp dev)" != "$wanted" ] && [ "$(stamp "$extras")" != "$wanted" ]; then
  say "installing bunri[$extras] into .venv"
  if ! .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input -e ".[$extras]" </dev/null; then
    say "pip could not install: see above (the package index must be reachable the first time)"
    exit 1
  fi
  echo "$wanted" >".venv/.installed-$extras"
fi

if [ "$purpose" = dev ] && command -v dpkg-query >/dev/null 2>&1; then
  missing=()
  while read -r package; do
    case $package in ''|'#'*) continue ;; esac
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done <"${PACKAGES:-tools/debian-packages.txt}"
  if [ ${#missing[@]} -gt 0 ] && ! install "${missing[@]}"; then
    say "not installed: ${missing[*]}; tests that need them will be listed as skipped"
  fi
fi
