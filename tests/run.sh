#!/usr/bin/env bash
# All tests in one command; whatever they need is installed or fetched first, or named in one line.
#
# usage: bash tests/run.sh [ARGUMENTS FOR THE TEST RUNNER]
#   bash tests/run.sh                     everything
#   bash tests/run.sh --profile quick     without the slow ones
#   bash tests/run.sh extract::           those with `extract::` in their name
#
# Sets for the tests: ALEXANDRIA_TEST_MODELS (a folder with minilm/ and me5-small-xlmr/) and ALEXANDRIA_TEST_CACHE
# (a folder for what is fetched or slow to make, kept between runs). Both can be set from outside.
# CUDA_HOME: a CUDA compiler, so that the programs are built for GPUs, too, and tested on an emulated one.
# ALEXANDRIA_TEST_MOUNTS=required where everything is there that tests of real mounts need; elsewhere they are skipped,
# and a line says so and why.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/toolchain.sh
. "$root/packaging/toolchain.sh"
cd "$root"

need_program python3 python3
need_program calibredb calibre
need_program ebook-convert calibre
need_program pdftotext poppler-utils
need_program dpkg-deb dpkg
need_program npm npm
need_program g++ g++

# The programs are built as they are for a machine with a GPU. The emulated one stands in for the card.
features=()
if CUDA_HOME=$(bash packaging/cuda_toolkit.sh); then
  export CUDA_HOME
  features=(--features cuda)
else
  unset CUDA_HOME
  say "SKIPPED: the tests of the GPU's part (cuda::, and that the kernels assemble): there is no CUDA compiler"
fi

# What tests of real mounts lack here; empty where they can run.
lacking_for_mounts() {
  local pair program package device
  [ "$(id -u)" -eq 0 ] || { echo "mounts need root"; return; }
  unshare --mount true 2>/dev/null || { echo "this machine (a container?) lets nobody mount"; return; }
  for device in /dev/fuse /dev/loop-control; do
    { [ -c "$device" ] && : <"$device"; } 2>/dev/null || { echo "$device cannot be opened"; return; }
  done
  for pair in smbd:samba rclone:rclone fusermount3:fuse3 setpriv:util-linux losetup:mount mkfs.ext4:e2fsprogs \
    e2fsck:e2fsprogs filefrag:e2fsprogs; do
    program=${pair%%:*} package=${pair#*:}
    have "$program" && continue
    # Where systemd runs, installing Samba would start a file server for the network: a person decides that.
    if can_install && { [ "$package" != samba ] || [ ! -d /run/systemd/system ]; }; then
      say "installing $package (for $program)"
      apt_install "$package" || true
    fi
    have "$program" || { echo "$program is missing (Debian package $package)"; return; }
  done
}
PATH=$PATH:/usr/sbin:/sbin
lacking=$(lacking_for_mounts)
unset ALEXANDRIA_TEST_MOUNTS
[ -n "$lacking" ] || export ALEXANDRIA_TEST_MOUNTS=required

# A journald of the tests' own, and a terminal for them.
for pair in journalctl:systemd script:bsdutils; do
  program=${pair%%:*} package=${pair#*:}
  have "$program" || { can_install && apt_install "$package"; } ||
    say "SKIPPED: some of journal:: and watch::: $program is missing (Debian package $package)"
done

export ALEXANDRIA_TEST_MODELS="${ALEXANDRIA_TEST_MODELS:-$(cache_dir)/models}"
export ALEXANDRIA_TEST_CACHE="${ALEXANDRIA_TEST_CACHE:-$(cache_dir)}"
mkdir -p "$ALEXANDRIA_TEST_CACHE"
# The tests fetch e-books out of Debian packages, several at once: package lists are brought up to date before that.
if can_install && [ ! -d "$ALEXANDRIA_TEST_CACHE/books" ]; then
  apt_get update -qq >/dev/null 2>&1 || say "apt-get update failed: the test books may not be found"
fi
python3 packaging/get_models.py "$ALEXANDRIA_TEST_MODELS" minilm me5-small-xlmr

# Other people's programs that the HTTP listener is tried with, kept in the cache; the names of those that are there.
# Prometheus' package is unpacked, not installed: that would start a server.
http_programs() {
  local there=() http=$ALEXANDRIA_TEST_CACHE/http work
  mkdir -p "$http"
  if ! "$http/python/bin/python" -c 'import openai, openapi_spec_validator, schemathesis' 2>/dev/null; then
    say "installing openai, openapi-spec-validator and schemathesis into $http/python"
    if ! python3 -m venv "$http/python" >/dev/null 2>&1 && can_install; then
      apt_install python3-venv && python3 -m venv "$http/python" >&2 || true
    fi
    "$http/python/bin/pip" install --quiet --disable-pip-version-check \
      openai==3.57.0 openapi-spec-validator==0.9.0 schemathesis==4.32.5 >&2 || true
  fi
  if "$http/python/bin/python" -c 'import openai, openapi_spec_validator, schemathesis' 2>/dev/null; then
    there+=(clients)
  fi
  if [ ! -x "$http/promtool" ] && have apt-get && have dpkg-deb; then
    say "fetching promtool (Debian package prometheus)"
    work=$(mktemp -d)
    (cd "$work" && apt_get download prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb . &&
      mv usr/bin/promtool "$http/promtool") || true
    rm -rf "$work"
  fi
  [ ! -x "$http/promtool" ] || there+=(promtool)
  if ! { have chromium && have chromedriver; } && can_install; then
    say "installing chromium and chromium-driver"
    apt_install chromium chromium-driver fonts-dejavu-core || true
  fi
  if have chromium && have chromedriver; then there+=(browser); fi
  printf '%s' "${there[*]}"
}
ALEXANDRIA_TEST_HTTP=$(http_programs)
export ALEXANDRIA_TEST_HTTP
for program in clients promtool browser; do
  case " $ALEXANDRIA_TEST_HTTP " in
    *" $program "*) ;;
    *) say "SKIPPED: some tests of the HTTP listener (http_clients::): $program could not be installed" ;;
  esac
done

[ -z "$lacking" ] || say "SKIPPED: the tests of real mounts (smb::, some of trouble::): $lacking"

# The package, and what an operator does with it on a machine that boots systemd. Its failure is told at the end, too:
# the other tests have their say first.
boot_test=passed
if [ $# -eq 0 ]; then
  package=$(bash packaging/deb.sh --profile dev)
  if ! bash tests/boot/package.sh "$package" || ! bash tests/boot/run.sh "$package"; then boot_test=failed; fi
fi

# run_tests COMMAND...: the last word, in place of this script where nothing else is to be said.
run_tests() {
  [ "$boot_test" = failed ] || exec "$@"
  "$@" || true
  die "the package or the boot test failed, see above"
}

# The runner's closing line counts what passed, failed and was skipped, so it comes last.
if cargo nextest --version >/dev/null 2>&1; then
  if [ $# -eq 0 ]; then
    # nextest runs no examples from documentation comments.
    cargo test --locked "${features[@]}" --doc --quiet
    if [ -n "${QDRANT_TEST_URL:-}" ] || have qdrant; then
      cargo nextest run --locked "${features[@]}" --run-ignored only real_server::
    else
      say "SKIPPED: the tests against a real Qdrant server (set QDRANT_TEST_URL, or have a qdrant on PATH)"
    fi
  fi
  run_tests cargo nextest run --locked "${features[@]}" "$@"
fi
say "cargo-nextest is not installed: using cargo test, without its time limits (cargo install --locked cargo-nextest)"
run_tests cargo test --locked "${features[@]}" "$@"
