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
export ALEXANDRIA_TEST_MODELS="${ALEXANDRIA_TEST_MODELS:-$(cache_dir)/models}"
export ALEXANDRIA_TEST_CACHE="${ALEXANDRIA_TEST_CACHE:-$(cache_dir)}"
mkdir -p "$ALEXANDRIA_TEST_CACHE"
# The tests fetch e-books out of Debian packages, several at once: package lists are brought up to date before that.
if can_install && [ ! -d "$ALEXANDRIA_TEST_CACHE/books" ]; then
  apt_get update -qq >/dev/null 2>&1 || say "apt-get update failed: the test books may not be found"
fi
python3 packaging/get_models.py "$ALEXANDRIA_TEST_MODELS" minilm me5-small-xlmr

# The runner's closing line counts what passed, failed and was skipped, so it comes last.
if cargo nextest --version >/dev/null 2>&1; then
  # nextest runs no examples from documentation comments.
  [ $# -gt 0 ] || cargo test --locked --doc --quiet
  exec cargo nextest run --locked "$@"
fi
say "cargo-nextest is not installed: using cargo test, without its time limits (cargo install --locked cargo-nextest)"
exec cargo test --locked "$@"
