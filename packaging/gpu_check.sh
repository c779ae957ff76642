#!/usr/bin/env bash
# Packs a check of the GPU's part that any machine with an NVIDIA card can run: without Rust, without network, without
# this checkout.
#
# usage: bash packaging/gpu_check.sh pack DIR
#
# DIR gets the program (built with CUDA support, which needs no GPU), a small real model, the tokenizer that bge-m3 uses,
# and DIR/run.sh; DIR.tar.xz is all of that to be carried. There:
#   tar xf DIR.tar.xz && DIR/run.sh
# PROGRAM=FILE takes a program that is built already. What is packed: minilm's weights in 16 bits (45 MB; real weights
# show what random ones do not) and no weights of bge-m3's shape: run.sh makes them from a seed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/lib.sh
. "$root/packaging/lib.sh"
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
[ $# -eq 2 ] && [ "$1" = pack ] || die "usage: gpu_check.sh pack DIR"

# Bytes: what a program and a package may have, so that they are carried without thinking.
program_limit=60000000
package_limit=60000000

need_program python3 python3
need_program xz xz-utils
need_program strip binutils
dir=$(realpath -m "$2")
[ ! -e "$dir" ] || [ -f "$dir/run.sh" ] || die "$dir is there and is no package of this script"
aside=$(mktemp -d "$(dirname "$dir")/.gpu-check.XXXXXX")
trap 'rm -rf "$aside"' EXIT
to="$aside/$(basename "$dir")"
mkdir "$to" "$to/models"

if [ -z "${PROGRAM:-}" ]; then
  # shellcheck source=packaging/toolchain.sh
  . "$root/packaging/toolchain.sh"
  CUDA_HOME=$(bash "$root/packaging/cuda_toolkit.sh")
  export CUDA_HOME
  say "building with CUDA support"
  # Functions with the same code are kept once: 1.4 MB. Bound to one address, it needs no table of what to move: 3 MB.
  (cd "$root" && cargo rustc --locked --features cuda --bin alexandria-ingestd -- \
    -C link-arg=-Wl,--icf=all -C relocation-model=static)
  PROGRAM=$CARGO_TARGET_DIR/debug/alexandria-ingestd
fi
strip -o "$to/alexandria-ingestd" "$PROGRAM"
if "$to/alexandria-ingestd" device 2>&1 | grep -q 'has no CUDA support'; then
  die "$PROGRAM has no CUDA support: build it with --features cuda"
fi

models=$(cache_dir)/models
[ -f "$models/minilm/model.safetensors" ] && [ -f "$models/me5-small-xlmr/tokenizer.json" ] ||
  python3 "$root/packaging/get_models.py" "$models" minilm me5-small-xlmr
say "copying minilm, in 16 bits"
mkdir -p "$to/models/minilm/1_Pooling"
for file in config.json tokenizer.json modules.json sentence_bert_config.json special_tokens_map.json \
  tokenizer_config.json 1_Pooling/config.json; do
  [ ! -f "$models/minilm/$file" ] || cp "$models/minilm/$file" "$to/models/minilm/$file"
done
python3 "$root/packaging/halve_weights.py" "$models/minilm/model.safetensors" "$to/models/minilm/model.safetensors"
cp "$models/me5-small-xlmr/tokenizer.json" "$to/models/xlm-roberta-tokenizer.json"
# The texts alone; 100 languages would say nothing more.
python3 -c 'import json, sys
for line in open(sys.argv[1], encoding="utf-8"): print(json.dumps({"text": json.loads(line)["text"]}))' \
  "$root/tests/data/parity/minilm-256.jsonl" >"$to/texts.jsonl"
cp "$root/packaging/gpu_check_run.sh" "$to/run.sh"
cp "$root/packaging/gpu_check_vectors.py" "$to/vectors.py"
cp "$root/packaging/make_random_model.py" "$root/tests/embed_peers.py" "$to/"
chmod 755 "$to/run.sh" "$to/alexandria-ingestd"
git -C "$root" describe --always --dirty >"$to/commit" 2>/dev/null || echo unknown >"$to/commit"

say "compressing"
# lp=1,pb=1: most of it is 16-bit numbers.
tar --directory "$aside" --owner=0 --group=0 --sort=name -c "$(basename "$dir")" |
  xz --threads=1 --lzma2=preset=6,lc=0,lp=1,pb=1 >"$aside/package.tar.xz"
rm -rf "$dir"
mv "$to" "$dir"
mv "$aside/package.tar.xz" "$dir.tar.xz"

program=$(stat -c %s "$dir/alexandria-ingestd") package=$(stat -c %s "$dir.tar.xz")
printf '%s: %d MB, to be carried as %s.tar.xz: %d bytes (limit %d); the program: %d bytes (limit %d)\n' \
  "$dir" "$(($(du -sb "$dir" | cut -f 1) / 1000000))" "$dir" "$package" "$package_limit" "$program" "$program_limit"
[ "$program" -le "$program_limit" ] || die "the program is over its limit"
[ "$package" -le "$package_limit" ] || die "the package is over its limit"
