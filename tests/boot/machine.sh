# shellcheck shell=bash
# A throw-away Debian with a real systemd as its first process, by systemd-nspawn; sourced by tests/boot/run.sh. It has
# no network. It must never leave a process or a mount behind.

# Variables: root (its file system), leader (its first process, seen from here), nspawn (the program that holds it).
root='' leader='' nspawn=''

# rootfs FILE: makes the packed file system where it is absent; a minute or two, once.
rootfs() {
  local file=$1 aside
  [ ! -f "$file" ] || return 0
  need_program debootstrap debootstrap
  need_program zstd zstd
  mkdir -p "$(dirname "$file")"
  aside=$(mktemp -d)
  say "making the file system of the machine, once"
  if ! debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$aside/root" >"$aside/log" 2>&1; then
    tail -n 3 "$aside/log" >&2
    rm -rf "$aside"
    return 1
  fi
  rm -rf "$aside"/root/var/cache/apt/archives/*.deb "$aside"/root/var/lib/apt/lists/*
  tar -C "$aside/root" -c . | zstd -q -T0 -f -o "$file.part"
  mv "$file.part" "$file"
  rm -rf "$aside"
}

# boot FILE DIRECTORY [ARGUMENT FOR NSPAWN...]: unpacks FILE into DIRECTORY and starts it.
boot() {
  local file=$1 log=$2.log state='' _
  root=$2
  shift 2
  mkdir -p "$root"
  tar -C "$root" --zstd -xf "$file"
  # In memory: what a journal on a disk adds is time.
  mkdir -p "$root/etc/systemd/journald.conf.d"
  printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/test.conf"
  systemd-nspawn -q -D "$root" --boot --private-network --register=no --keep-unit --console=read-only \
    -M "alexandria-boot-$$" "$@" </dev/null >"$log" 2>&1 &
  nspawn=$!
  for _ in $(seq 600); do
    leader=$(pgrep -P "$nspawn" | head -n 1) || leader=
    if [ -n "$leader" ]; then
      state=$(inside systemctl is-system-running 2>/dev/null) || true
      case "$state" in running | degraded) return 0 ;; esac
    fi
    kill -0 "$nspawn" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$log" >&2
  return 1
}

# inside COMMAND...: runs it in the machine, as root.
inside() {
  nsenter -t "$leader" -a env -i --chdir=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}

# halt: ends the machine, however it is.
halt() {
  [ -n "$nspawn" ] || return 0
  [ -z "$leader" ] || timeout 20 nsenter -t "$leader" -a systemctl poweroff >/dev/null 2>&1 </dev/null || true
  for _ in $(seq 200); do
    kill -0 "$nspawn" 2>/dev/null || break
    sleep 0.1
  done
  # nspawn ends the whole machine with it.
  kill -KILL "$nspawn" 2>/dev/null || true
  wait "$nspawn" 2>/dev/null || true
  nspawn=''
}
