#!/usr/bin/env bash
# How well passages are found, cut in different ways: books out of Debian packages, both small real models, Markdown on
# standard output. Some minutes on two cores; the same figures (but for the seconds) in every run.
#
# usage: bash tests/retrieval.sh [ARGUMENTS FOR bench --retrieval]
#   bash tests/retrieval.sh                                   the methods that the default was chosen by
#   bash tests/retrieval.sh --cache DIR                       keeps the vectors: the next run takes seconds
#   bash tests/retrieval.sh --methods windows,paragraphs      only these
#   MODELS=minilm bash tests/retrieval.sh                     only this model
#
# Books and models are fetched once into the cache that the tests use (ALEXANDRIA_TEST_CACHE, ALEXANDRIA_TEST_MODELS).
# PROGRAM names a built alexandria-ingestd; without it the development profile is built.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/lib.sh
. "$root/packaging/lib.sh"

cache=${ALEXANDRIA_TEST_CACHE:-$(cache_dir)}
models=${ALEXANDRIA_TEST_MODELS:-$cache/models}
books=$cache/books

# fetch PACKAGE: its files are in $books/PACKAGE afterwards, as tests/it/books.rs leaves them, too.
fetch() {
  local package=$1 work
  [ ! -d "$books/$package" ] || return 0
  have apt-get && have dpkg-deb || die "the books are Debian packages; this system has no apt-get or dpkg-deb"
  say "fetching Debian's package $package"
  mkdir -p "$books"
  work=$(mktemp -d "$books/.fetch-XXXXXX")
  (cd "$work" && { apt_get download "$package" || { apt_get update && apt_get download "$package"; }; }) >"$work.log" 2>&1 ||
    die "Debian's package $package cannot be fetched: $(tail -n 1 "$work.log")"
  dpkg-deb -x "$work"/*.deb "$work/tree"
  mv "$work/tree" "$books/$package"
  rm -rf "$work" "$work.log"
}
for package in debian-policy developers-reference debian-history live-manual-epub debmake-doc; do
  fetch "$package"
done

policy=$books/debian-policy/usr/share/doc/debian-policy/policy.epub
reference=$books/developers-reference/usr/share/developers-reference/developers-reference.epub
history=$books/debian-history/usr/share/doc/debian-history/docs/project-history
live=$books/live-manual-epub/usr/share/doc/live-manual/epub/live-manual
debmake=$books/debmake-doc/usr/share/doc/debmake-doc/debmake-doc

if [ -z "${PROGRAM:-}" ]; then
  # shellcheck source=packaging/toolchain.sh
  . "$root/packaging/toolchain.sh"
  (cd "$root" && cargo build --locked --quiet >&2)
  PROGRAM=$CARGO_TARGET_DIR/debug/alexandria-ingestd
fi
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT

# bench MODEL ARGUMENTS...
bench() {
  local model=$1
  shift
  python3 "$root/packaging/get_models.py" "$models" "$model"
  say "$model"
  "$PROGRAM" --config /dev/null --set "state_dir=$state" --set "embedding.model=$model" \
    --set "embedding.model_path=$models/$model" --set embedding.device=cpu bench --retrieval "$@"
}

# methods NAMES ARGUMENTS...: the arguments, with these methods where they name none.
methods() {
  local names=$1
  shift
  case " $* " in
    *" --methods"*) arguments=("$@") ;;
    *) arguments=(--methods "$names" "$@") ;;
  esac
}

# What both models together can do in some twenty minutes.
for model in ${MODELS:-minilm me5-small-xlmr}; do
  case $model in
    # An English model on the English books.
    minilm)
      methods structure,lexical,semantic,universal-semantic-larger,paragraphs,windows,windows-overlap,universal-semantic,structure-smaller,windows-smaller,chapters-mean,chapters-own-pass,with-title,with-title-and-path "$@"
      bench minilm "${arguments[@]}" -- "$policy" "$reference" "$history.en.epub" "$live.en.epub" "$debmake.en.epub"
      ;;
    # Twice the work a token. Of the other languages some are searched, all ask.
    *)
      methods structure,windows,universal-semantic,structure-smaller "$@"
      searched=("$history".{en,de,fr,ja}.epub "$live".{en,ja}.epub)
      asking=("$history".{es,it,ko,lt,pt,ru}.epub "$live".{ca,de,es,fr,it,pl,pt_BR,ro}.epub)
      bench "$model" "${arguments[@]}" --asking "${asking[@]}" -- "${searched[@]}"
      ;;
  esac
done
