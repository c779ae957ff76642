#!/usr/bin/env bash
# Prints the folder of a CUDA compiler, for CUDA_HOME; fetches one from PyPI (270 MB) where none is installed.
#
# usage: CUDA_HOME=$(bash packaging/cuda_toolkit.sh) cargo build --release --features cuda
#
# Taken in this order: CUDA_HOME, the nvcc on PATH, /usr/local/cuda, NVIDIA's wheels. The wheels are the compiler of
# CUDA 13.0, whose PTX every driver from 580 on reads; no GPU and no driver is needed to build. They lie in
# ${XDG_CACHE_HOME:-~/.cache}/alexandria-ingestd/cuda-13.0, and nothing else is installed.
# The libraries for running (cuBLAS) are not among them: see README.md.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
[ $# -eq 0 ] || die "usage: cuda_toolkit.sh"

# The compiler, the code it makes PTX with, its own headers, CUDA's headers, and those of CCCL that they include.
wheels=(
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85
)

for home in "${CUDA_HOME:-}" "$(dirname "$(dirname "$(command -v nvcc || true)")")" /usr/local/cuda; do
  if [ -n "$home" ] && [ -x "$home/bin/nvcc" ]; then
    printf '%s\n' "$home"
    exit 0
  fi
done

home="$(cache_dir)/cuda-13.0"
if [ ! -x "$home/bin/nvcc" ]; then
  need_program python3 python3
  python3 -m pip --version >/dev/null 2>&1 || need_program pip3 python3-pip
  have c++ || need_program g++ g++
  mkdir -p "$(cache_dir)"
  aside=$(mktemp -d "$(cache_dir)/cuda.XXXXXX")
  trap 'rm -rf "$aside"' EXIT
  say "fetching NVIDIA's CUDA compiler from PyPI (270 MB)"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: --target "$aside/wheels" \
    "${wheels[@]}" >&2 || die "the CUDA compiler could not be fetched from PyPI; or install NVIDIA's CUDA toolkit 13.0"
  for folder in bin nvvm include; do
    ln -s "wheels/nvidia/cu13/$folder" "$aside/$folder"
  done
  chmod +x "$aside"/bin/* "$aside"/nvvm/bin/*
  rm -rf "$home"
  mv -T "$aside" "$home"
fi
"$home/bin/nvcc" --version >/dev/null || die "$home/bin/nvcc does not run; delete $home and try again"
printf '%s\n' "$home"
