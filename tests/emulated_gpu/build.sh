#!/bin/sh
# Builds the emulated GPU into a folder: libcuda.so.1, libcublas.so.13, libcublasLt.so.13
# and libnvidia-ml.so.1 for LD_LIBRARY_PATH, and the
# programs kernels_test and driver_test. Needs g++ 12 or newer (_Float16) and nothing of CUDA.
# Never: leave a half-written library where a program may load it; each is built aside and moved into place.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
CXX=${CXX:-g++}
if ! command -v "$CXX" >/dev/null; then
    echo "the emulated GPU needs $CXX (Debian: apt install g++)" >&2
    exit 1
fi
aside=$(mktemp -d "$out/building.XXXXXX")
trap 'rm -rf "$aside"' EXIT
# The program runs where it is built: the CPU's own half-precision conversions and vectors are worth a factor of ten.
flags="-std=c++17 -O3 -march=native -fPIC -fvisibility=hidden -I. -Wall -Wextra -Werror -Wno-unknown-pragmas"
compile() {
    "$CXX" $flags -c "$1.cpp" -o "$aside/$1.o"
}
library() {
    name=$1
    shift
    "$CXX" -shared -pthread -Wl,--no-undefined -Wl,-soname,"$name" -Wl,-rpath,'$ORIGIN' -o "$aside/$name" "$@"
    # Some loaders ask for the plain name first.
    ln -s "$name" "$aside/${name%.*}"
}
for unit in cuda_on_cpu emulated_kernels device libcuda libcublas libcublaslt libnvidia-ml kernels_test driver_test; do
    compile "$unit"
done
library libcuda.so.1 "$aside/libcuda.o" "$aside/device.o" "$aside/emulated_kernels.o" "$aside/cuda_on_cpu.o"
library libcublas.so.13 "$aside/libcublas.o" "$aside/libcuda.so.1"
library libcublasLt.so.13 "$aside/libcublaslt.o"
library libnvidia-ml.so.1 "$aside/libnvidia-ml.o" "$aside/libcuda.so.1"
"$CXX" -o "$aside/kernels_test" "$aside/kernels_test.o" "$aside/emulated_kernels.o" "$aside/cuda_on_cpu.o"
"$CXX" -o "$aside/driver_test" "$aside/driver_test.o" "$aside/libcuda.so.1" "$aside/libcublas.so.13" \
    "$aside/libnvidia-ml.so.1" -Wl,-rpath,'$ORIGIN'
rm "$aside"/*.o
mv "$aside"/* "$out"
