# shellcheck shell=bash
# What every script here shares; sourced by bash, never run. It must never install anything without being root,
# and never write into a library.

# A step, on standard error: standard output is for results.
say() { printf '==> %s\n' "$*" >&2; }

# One line that says what is wrong and what to do, then the end.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Debian packages can be installed without a question.
can_install() { [ "$(id -u)" -eq 0 ] && have apt-get; }

# apt_install PACKAGE...: quietly; the package lists are fetched only when the first try fails.
apt_install() {
  local log
  log=$(mktemp)
  if apt_get install -y --no-install-recommends "$@" >"$log" 2>&1 ||
    { apt_get update >>"$log" 2>&1 && apt_get install -y --no-install-recommends "$@" >>"$log" 2>&1; }; then
    rm -f "$log"
    return 0
  fi
  tail -n 5 "$log" >&2
  rm -f "$log"
  return 1
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

# need_program PROGRAM PACKAGE...: PROGRAM is there afterwards, or the script ends with one line that says what to do.
need_program() {
  local program=$1
  shift
  have "$program" && return 0
  can_install || die "$program is missing; install it with: sudo apt-get install --no-install-recommends $*"
  say "installing $* (for $program)"
  apt_install "$@" || die "$program is missing, and apt-get could not install: $*"
  have "$program" || die "$program is still missing after installing: $*"
}

# Where models are kept between runs, and shared by the quick start and the tests.
cache_dir() { printf '%s/alexandria-ingestd\n' "${XDG_CACHE_HOME:-$HOME/.cache}"; }

# calibre_env DIR: Calibre's programs need no display, and leave the user's own Calibre settings alone.
calibre_env() {
  mkdir -p "$1/config" "$1/run"
  chmod 700 "$1/run"
  export QT_QPA_PLATFORM=offscreen QTWEBENGINE_DISABLE_SANDBOX=1
  export CALIBRE_CONFIG_DIRECTORY="$1/config" XDG_RUNTIME_DIR="$1/run"
}
