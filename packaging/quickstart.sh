#!/usr/bin/env bash
# The main job in one command: builds, gets a model, embeds a library into the embedded store, and asks a question.
#
# usage: bash packaging/quickstart.sh [LIBRARY [QUESTION]]
#
# LIBRARY   a Calibre library or a folder of books; it is only read. Without it: a small real sample library.
# MODEL=... minilm (default: small, English) or me5-small-xlmr (100 languages, some four times the work)
#
# Everything it makes lies under ${XDG_STATE_HOME:-~/.local/state}/alexandria-quickstart (library, state, vectors)
# and ${XDG_CACHE_HOME:-~/.cache}/alexandria-ingestd (compiled code, models). Run again, it goes on where it was.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/lib.sh
. "$root/packaging/lib.sh"

case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac
[ $# -le 2 ] || die "usage: quickstart.sh [LIBRARY [QUESTION]]"
model=${MODEL:-minilm}
case "$model" in
  minilm | me5-small-xlmr) ;;
  *) die "MODEL is $model; the quick start knows minilm and me5-small-xlmr" ;;
esac
home="${XDG_STATE_HOME:-$HOME/.local/state}/alexandria-quickstart"
models="$(cache_dir)/models"

# toml TEXT: TEXT as a TOML string.
toml() { printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g')"; }

# A state belongs to one library and one model, so each pair gets its own; the name stays short because the path of
# a Unix socket, which lies in it, may have at most 107 bytes.
state_name() {
  local hash
  [ -n "$1" ] || { printf 'sample-%s' "$2"; return; }
  hash=$(printf '%s' "$1" | sha256sum)
  printf '%.8s-%s' "$hash" "$2"
}

if [ $# -ge 1 ]; then
  [ -d "$1" ] || die "library $1: no such folder"
  library=$(cd "$1" && pwd)
  question=${2:-"What makes a good life?"}
  state="$home/$(state_name "$library" "$model")"
else
  library="$home/sample-library"
  question="How do I find a sponsor who uploads my package?"
  state="$home/$(state_name "" "$model")"
fi

# shellcheck source=packaging/toolchain.sh
. "$root/packaging/toolchain.sh"
need_program python3 python3
say "1/5 building (the first time compiles all dependencies: 10 to 20 minutes on two cores)"
(cd "$root" && cargo build --locked --bins)
ingestd="$CARGO_TARGET_DIR/debug/alexandria-ingestd"

say "2/5 the model $model"
python3 "$root/packaging/get_models.py" "$models" "$model"

say "3/5 the library"
[ $# -ge 1 ] || bash "$root/packaging/sample_library.sh" "$library"
say "$library"

# What a shell is set up with for other tools must not turn this first try to another library or store.
unset CALIBRE_LIBRARY_PATH QDRANT_HOST QDRANT_PORT QDRANT_COLLECTION DEFAULT_EMBEDDING_MODEL EMBEDDING_DEVICE
mkdir -p "$state"
config="$state/config.toml"
cat >"$config" <<TOML
# Written by packaging/quickstart.sh; every key with its default is in packaging/config.toml.
state_dir = $(toml "$state")

[library]
path = $(toml "$library")

[embedding]
model = $(toml "$model")
model_path = $(toml "$models/$model")
TOML
"$ingestd" --config "$config" check-config

say "4/5 embedding (Ctrl-C is safe: the same command goes on where it was)"
# On a terminal the progress bar speaks; a log file gets a line a book.
warnings="error,alexandria_ingestd=warn"
if [ -t 2 ]; then export ALEXANDRIA_LOG__LEVEL=$warnings; fi
"$ingestd" --config "$config" ingest "$library"

say "5/5 searching: $question"
ALEXANDRIA_LOG__LEVEL=$warnings "$ingestd" --config "$config" search "$question"

command="$(printf '%q' "$ingestd") --config $(printf '%q' "$config")"
cat >&2 <<NEXT

Done. What lies where:
  library         $library (only read)
  state, vectors  $state
  configuration   $config
  programs        $CARGO_TARGET_DIR/debug/{alexandria-ingestd,alexandriactl}
Next:
  ask more        $command search "your question"
  your own books  bash packaging/quickstart.sh "/path/to/Calibre Library" "your question"
  keep watching   $command
  as a service    README.md, "Run it as a service"
NEXT
