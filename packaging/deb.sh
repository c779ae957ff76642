#!/usr/bin/env bash
# Makes the Debian package: one for machines with and without a GPU.
#
# usage: bash packaging/deb.sh [--profile release|dev] [--binaries DIR] [--out DIR]
#
# --profile    cargo's profile, release by default; dev is quick to make where the tests have been built
# --binaries   a folder with the two programs, built already
# --out        where the .deb is put; default: packages/ beside the build folder's profiles
#
# The package's path is printed on standard output. With NVIDIA's compiler (packaging/cuda_toolkit.sh) the program can
# use GPUs; nothing of CUDA is a dependency of the package. Needs debhelper (installed where this runs as root).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/lib.sh
. "$root/packaging/lib.sh"
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
profile=release out='' binaries=''
while [ $# -gt 0 ]; do
  case "$1" in
    --profile) profile=${2:-} && shift 2 ;;
    --binaries) binaries=$(realpath "${2:-}") && shift 2 ;;
    --out) out=${2:-} && shift 2 ;;
    *) die "usage: deb.sh [--profile release|dev] [--binaries DIR] [--out DIR]" ;;
  esac
done
case "$profile" in
  release) built=release compression="-Zxz" ;;
  dev) built=debug compression="-Zgzip -z1" ;;
  *) die "--profile is '$profile'; there are release and dev" ;;
esac
# shellcheck source=packaging/toolchain.sh
. "$root/packaging/toolchain.sh"
need_program dh debhelper
need_program python3 python3
out=$(realpath -m "${out:-$CARGO_TARGET_DIR/packages}")

# The changelog's newest entry is the package's version, Cargo.toml's is the program's.
version=$(sed -n '1s/^alexandria-ingestd (\([^)]*\)).*/\1/p' "$root/packaging/debian/changelog")
program=$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
[ "${version%%-*}" = "$program" ] || die "packaging/debian/changelog is at $version, Cargo.toml at $program"

features=()
if CUDA_HOME=$(bash "$root/packaging/cuda_toolkit.sh"); then
  export CUDA_HOME
  features=(--features cuda)
else
  unset CUDA_HOME
  say "there is no CUDA compiler: this package will not use GPUs"
fi
if [ -z "$binaries" ]; then
  say "building the programs ($profile)"
  (cd "$root" && cargo build --profile "$profile" --locked "${features[@]}" --bins >&2)
  binaries=$CARGO_TARGET_DIR/$built
fi

say "packing"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
tree=$work/tree
mkdir "$tree"
cp -r "$root/packaging/debian" "$tree/debian"
cp "$root/systemd/alexandria-ingestd.service" "$root/systemd/alexandria-ingestd.socket" "$tree/debian/"
cp "$root/packaging/sysusers.conf" "$tree/debian/alexandria-ingestd.sysusers"
# put MODE FILE DIRECTORY-IN-THE-PACKAGE
put() { install -D -m "$1" -t "$tree/$3" "$2"; }
put 755 "$binaries/alexandria-ingestd" usr/bin
put 755 "$binaries/alexandriactl" usr/bin
put 644 "$root/packaging/config.toml" etc/alexandria-ingestd
put 644 "$root/README.md" usr/share/doc/alexandria-ingestd
put 644 "$root/packaging/OPERATING.md" usr/share/doc/alexandria-ingestd
# What journalctl -x explains events with; systemd's trigger takes it in.
[ ! -e "$root/packaging/alexandria-ingestd.catalog" ] ||
  put 644 "$root/packaging/alexandria-ingestd.catalog" usr/lib/systemd/catalog
for example in "$root"/packaging/examples/* "$root/packaging/grafana.json"; do
  [ ! -e "$example" ] || put 644 "$example" usr/share/doc/alexandria-ingestd/examples
done
(cd "$root" && python3 packaging/third_party.py "${features[@]}") >"$tree/usr/share/doc/alexandria-ingestd/third-party"
for name in alexandria-ingestd alexandriactl; do
  "$binaries/$name" generate man "$tree/usr/share/man"
  "$binaries/$name" generate completions "$tree/usr/share"
done
export DEB_COMPRESSION=$compression
log=$work/log
(cd "$tree" && debian/rules binary) >"$log" 2>&1 || { cat "$log" >&2; die "debhelper failed; see above"; }
grep -i 'warning' "$log" >&2 || true
mkdir -p "$out"
package=$(basename "$work"/alexandria-ingestd_"$version"_*.deb)
mv "$work/$package" "$out/$package"
say "$out/$package: $(($(stat -c %s "$out/$package") >> 20)) MiB"
printf '%s\n' "$out/$package"
