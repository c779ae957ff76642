#!/usr/bin/env bash
# Looks at the package without installing it: what must be in it, what must not be asked for, and lintian's opinion.
#
# usage: bash tests/boot/package.sh PACKAGE.deb
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=packaging/lib.sh
. "$root/packaging/lib.sh"
[ $# -eq 1 ] || die "usage: package.sh PACKAGE.deb"
package=$1
failed=0
fail() {
  say "FAILED: the package: $*"
  failed=1
}

contents=$(dpkg-deb -c "$package" | awk '{ print $6 }')
expected=(
  usr/bin/alexandria-ingestd usr/bin/alexandriactl
  lib/systemd/system/alexandria-ingestd.service lib/systemd/system/alexandria-ingestd.socket
  usr/lib/sysusers.d/alexandria-ingestd.conf usr/lib/tmpfiles.d/alexandria-ingestd.conf
  etc/alexandria-ingestd/config.toml
  usr/share/man/man1/alexandriactl.1.gz usr/share/man/man5/alexandria-ingestd.toml.5.gz
  usr/share/man/man7/alexandria-ingestd-journal.7.gz usr/share/man/man8/alexandria-ingestd.8.gz
  usr/share/bash-completion/completions/alexandriactl usr/share/zsh/vendor-completions/_alexandriactl
  usr/share/fish/vendor_completions.d/alexandriactl.fish
  usr/share/bash-completion/completions/alexandria-ingestd usr/share/zsh/vendor-completions/_alexandria-ingestd
  usr/share/fish/vendor_completions.d/alexandria-ingestd.fish
  usr/share/doc/alexandria-ingestd/copyright usr/share/doc/alexandria-ingestd/changelog.gz
  usr/share/doc/alexandria-ingestd/third-party.gz
  usr/share/doc/alexandria-ingestd/examples/mnt-calibre.mount
  usr/share/doc/alexandria-ingestd/examples/mnt-calibre.automount
)
[ ! -f "$root/packaging/grafana.json" ] || expected+=(usr/share/doc/alexandria-ingestd/examples/grafana.json)
[ ! -f "$root/packaging/alexandria-ingestd.catalog" ] || expected+=(usr/lib/systemd/catalog/alexandria-ingestd.catalog)
for file in "${expected[@]}"; do
  grep -qxF "./$file" <<<"$contents" || fail "$file is not in it"
done

# The same package goes on machines without a GPU.
depends=$(dpkg-deb -f "$package" Depends Pre-Depends)
! grep -qiE 'cuda|cublas|nvidia' <<<"$depends" || fail "it depends on a GPU's software: $depends"
say "depends: $depends"

if ! have lintian && can_install; then
  say "installing lintian"
  apt_install lintian || true
fi
if have lintian; then
  lintian --allow-root --fail-on error,warning,info --info --tag-display-limit 0 "$package" || fail "lintian"
else
  say "skipped: lintian is not installed"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb -x "$package" "$work"
# The shells themselves read their scripts, where they are installed.
for pair in bash:bash-completion/completions zsh:zsh/vendor-completions fish:fish/vendor_completions.d; do
  have "${pair%%:*}" || continue
  for script in "$work/usr/share/${pair#*:}"/*; do
    "${pair%%:*}" -n "$script" || fail "$script"
  done
done
[ "$failed" -eq 0 ] || die "the package has faults"
say "the package is as it should be: ${#expected[@]} files looked for, $(stat -c %s "$package") bytes"
