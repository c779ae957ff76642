# shellcheck shell=bash
# Picks the Rust toolchain and the build folder for every other script; sourced by bash, never run.
#
# Rust: the one `cargo` starts anyway where it is new enough for Cargo.toml's rust-version, else the newest installed
# one that is (exported as RUSTUP_TOOLCHAIN). It never downloads a toolchain: where none fits it says so in one line.
# Build folder: outside the checkout, so that a fresh clone finds what an older one compiled (CARGO_TARGET_DIR
# overrides).

# shellcheck source=packaging/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The `1.97` of Cargo.toml's `rust-version = "1.97"`.
required_rust() {
  sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml"
}

# `rustc 1.97.0-nightly (e50aa6fba 2026-05-19)` -> `1.97.0`. A nightly counts as the version it will become.
rust_version() { sed -n '1s/^rustc \([0-9][0-9.]*\).*/\1/p'; }

# at_least A B: version A is B or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# `VERSION TOOLCHAIN` a line, oldest first; of two with one version, the one that is not a nightly comes last.
installed_rusts() {
  local toolchain version channel
  rustup toolchain list 2>/dev/null | while read -r toolchain _; do
    version=$(rustup run "$toolchain" rustc --version 2>/dev/null </dev/null | rust_version) || continue
    [ -n "$version" ] || continue
    case "$toolchain" in nightly*) channel=0 ;; *) channel=1 ;; esac
    printf '%s %s %s\n' "$version" "$channel" "$toolchain"
  done | sort -k1,1V -k2,2n | awk '{ print $1, $3 }'
}

choose_rust() {
  local need default version toolchain
  # rustup fetches a toolchain that is asked for and absent, even for `rustc --version`.
  export RUSTUP_AUTO_INSTALL=0
  need=$(required_rust)
  # rustup's folder may be missing from PATH (a service, sudo), or a distribution's older cargo be found alone.
  have rustup || [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/rustup" ] || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  have cargo || die "Rust is missing; install rustup (https://rustup.rs), then: rustup toolchain install stable"
  default=$(rustc --version 2>/dev/null | rust_version) || default=
  if [ -n "$default" ] && at_least "$default" "$need"; then
    return 0
  fi
  if have rustup; then
    read -r version toolchain < <(installed_rusts | tail -n 1) || true
    if [ -n "${version:-}" ] && at_least "$version" "$need"; then
      export RUSTUP_TOOLCHAIN=$toolchain
      say "Rust $version ($toolchain): the default is ${default:-unusable}, this project needs $need or newer"
      return 0
    fi
  fi
  die "Rust $need or newer is needed, the newest here is ${version:-${default:-none}}; run: rustup toolchain install stable"
}

choose_rust
# SQLite and the TLS library are compiled from C.
have cc || have gcc || have clang || need_program cc gcc libc6-dev
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$(cache_dir)/target}")
export CARGO_TARGET_DIR
