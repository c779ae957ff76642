#!/usr/bin/env bash
# Fuzzes the parsers: all of them, or those named, for so many seconds each. Needs no cargo-fuzz and no nightly Rust:
# the compiler's own coverage and the crate libfuzzer-sys are enough. A finding ends the run and is named with its path.
#
# usage: bash tests/fuzz/run.sh [SECONDS] [TARGET...]
#   bash tests/fuzz/run.sh                   all, 60 seconds each
#   bash tests/fuzz/run.sh 600 mobi rtf      two of them, ten minutes each
#
# What was learnt is kept between runs, in the folder fuzz beside the build folder. A finding that was fixed belongs into
# tests/fuzz/regressions/TARGET, which an ordinary test reads. ALEXANDRIA_FUZZ_SANITIZER=address looks for errors of
# memory as well, with a nightly Rust.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=packaging/toolchain.sh
. "$root/packaging/toolchain.sh"

seconds=60
case "${1:-}" in [0-9]*)
  seconds=$1
  shift
  ;;
esac
folder=$root/tests/fuzz
mapfile -t all < <(sed -n 's/^name = "\([a-z0-9_]*\)"$/\1/p' "$folder/Cargo.toml")
[ $# -gt 0 ] && targets=("$@") || targets=("${all[@]}")

host=$(rustc --version --verbose | sed -n 's/^host: //p')
# A folder of its own, because these flags change what every dependency compiles to.
CARGO_TARGET_DIR=$CARGO_TARGET_DIR/fuzz
work=$CARGO_TARGET_DIR/work
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
for what in inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$what"
done
# Without these a linker may take the tables of the coverage for unused.
flags+=" -Ccodegen-units=1 -Clink-dead-code"
[ -z "${ALEXANDRIA_FUZZ_SANITIZER:-}" ] || flags+=" -Zsanitizer=$ALEXANDRIA_FUZZ_SANITIZER"
if ! have c++ && [ -z "${CXX:-}" ]; then
  say "skipped: the fuzzer is compiled from C++, and there is no compiler for it (apt-get install g++)"
  exit 0
fi
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
say "building the fuzz targets"
# An explicit target keeps the flags from the programs that run while building.
RUSTFLAGS=$flags cargo build --quiet --locked --manifest-path "$folder/Cargo.toml" --target "$host" --features targets \
  "${bins[@]}"

for target in "${targets[@]}"; do
  known=("$work/$target" "$work/$target-examples")
  mkdir -p "${known[@]}" "$work/findings"
  [ ! -d "$folder/regressions/$target" ] || known+=("$folder/regressions/$target")
  dictionary=()
  [ ! -f "$folder/dictionaries/$target.dict" ] || dictionary=(-dict="$folder/dictionaries/$target.dict")
  log=$work/$target.log
  status=0
  ALEXANDRIA_FUZZ_SEEDS=$work/$target-examples \
    nice "$CARGO_TARGET_DIR/$host/debug/$target" "${known[@]}" "${dictionary[@]}" \
    -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=20 -max_len=131072 -print_final_stats=1 \
    -artifact_prefix="$work/findings/$target-" >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    die "$target: the fuzzer found something: ${found:-see $log}"
  fi
  say "$target: ${runs:-?} inputs in $seconds s, nothing found"
done
