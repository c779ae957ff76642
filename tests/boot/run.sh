#!/usr/bin/env bash
# Installs the package in a Debian with a real systemd, and does with it what an operator does: see checks.sh.
#
# usage: bash tests/boot/run.sh [PACKAGE.deb]
#
# Without PACKAGE.deb it is packed from the development build. Every check is a line, ok or FAILED; the last line counts
# them. Needs root, and a kernel that lets systemd-nspawn boot; where that is not so, a line says SKIPPED and why.
# What it fetches (Debian packages, the machine's file system, a model) is kept for the next run.
set -euo pipefail
root_of_project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=packaging/lib.sh
. "$root_of_project/packaging/lib.sh"
# shellcheck source=tests/boot/machine.sh
. "$root_of_project/tests/boot/machine.sh"
# shellcheck source=tests/boot/checks.sh
. "$root_of_project/tests/boot/checks.sh"
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
[ $# -le 1 ] || die "usage: run.sh [PACKAGE.deb]"
PATH=$PATH:/usr/sbin:/sbin

skip() {
  say "SKIPPED: the boot test: $*"
  exit 0
}

# Why it cannot run here; empty where it can.
[ "$(id -u)" -eq 0 ] || skip "it needs root"
[ "$(uname -m)" = x86_64 ] || skip "its machine is made for x86_64"
unshare --mount --pid --fork true 2>/dev/null || skip "this machine (a container?) lets nobody mount"
for pair in systemd-nspawn:systemd-container debootstrap:debootstrap zstd:zstd pgrep:procps python3:python3 \
  calibredb:calibre jq:jq curl:curl; do
  have "${pair%%:*}" || { can_install && say "installing ${pair#*:}" && apt_install "${pair#*:}"; } ||
    skip "${pair%%:*} is missing (Debian package ${pair#*:})"
done
# A share that can be hung. Without it the library is a plain folder, and one check is left out.
for pair in rclone:rclone fusermount3:fuse3; do
  have "${pair%%:*}" || { can_install && say "installing ${pair#*:}" && apt_install "${pair#*:}"; } || true
done

cache="${ALEXANDRIA_TEST_CACHE:-$(cache_dir)}/boot"
models="${ALEXANDRIA_TEST_MODELS:-$(cache_dir)/models}"
image="$cache/bookworm.tar.zst"
rootfs "$image" || skip "the machine's file system could not be made (is there a network?)"
if [ ! -f "$models/minilm/model.safetensors" ]; then
  python3 "$root_of_project/packaging/get_models.py" "$models" minilm || skip "there is no model"
fi

package=${1:-}
if [ -z "$package" ]; then
  package=$(bash "$root_of_project/packaging/deb.sh" --profile dev)
fi

work=$(mktemp -d /tmp/alexandria-boot.XXXXXX)
share_pid=
end() {
  # For whoever looks for the reason of a failure.
  [ -z "$leader" ] || inside journalctl -b -o short-precise --no-pager >"$cache/last-journal.txt" 2>/dev/null || true
  [ -z "$share_pid" ] || kill -CONT "$share_pid" 2>/dev/null || true
  halt
  if [ -n "$share_pid" ]; then
    fusermount3 -u "$work/share" 2>/dev/null || umount -l "$work/share" 2>/dev/null || true
    kill "$share_pid" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap end EXIT
calibre_env "$work/calibre"

# The library, on this machine; Calibre works on it here. The booted one sees it through a file system that has no
# change events and can hang, as a share does.
mkdir -p "$work/library" "$work/share"
add_book "/usr/share/calibre/quick_start/eng.epub" >/dev/null
if have rclone && have fusermount3 && [ -c /dev/fuse ]; then
  rclone --config /dev/null mount ":local:$work/library" "$work/share" --read-only --allow-other --dir-cache-time 1s \
    --attr-timeout 1s --vfs-cache-mode off >"$work/rclone.log" 2>&1 &
  share_pid=$!
  wait_for 20 mountpoint -q "$work/share" || { cat "$work/rclone.log" >&2; die "rclone does not mount"; }
  shared=$work/share
else
  say "SKIPPED: the check of a hung library: there is no rclone with FUSE"
  shared=$work/library
fi

started=$SECONDS
boot "$image" "$work/root" --bind-ro="$models/minilm:/srv/models/minilm" --bind="$shared:/srv/share" ||
  skip "systemd does not boot here"
say "booted in $((SECONDS - started)) s: $(inside systemctl --version | head -n 1)"
all_checks
say "$passed checks of the booted system passed, $failed failed ($((SECONDS - started)) s)"
[ "$failed" -eq 0 ] || die "the booted system's journal is $cache/last-journal.txt"
