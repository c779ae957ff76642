#!/usr/bin/env python3
"""Extraction against its peers, on the same files in the same run: EbookLib + BeautifulSoup for EPUBs, poppler's
pdftotext for PDFs.

usage: python3 tests/extract_peers.py PROGRAM [BOOK...]

PROGRAM is the alexandria-ingestd to measure. Without books, all EPUBs and PDFs under $ALEXANDRIA_TEST_CACHE/books (by
default ~/.cache/alexandria-ingestd/books, which the tests fill). Needs python3-ebooklib, python3-bs4, python3-lxml and
poppler-utils; what is absent is said, and its part is left out. CPU time is user and system time; trust the ratios.
"""

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROUNDS = 3


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    program = sys.argv[1]
    cache = Path(os.environ.get("ALEXANDRIA_TEST_CACHE", Path.home() / ".cache/alexandria-ingestd"))
    books = [Path(book) for book in sys.argv[2:]]
    if not books:
        books = sorted(path for kind in ("epub", "pdf") for path in (cache / "books").rglob(f"*.{kind}"))
    books = [book for book in books if book.is_file()]
    epubs = [book for book in books if book.suffix.lower() == ".epub"]
    pdfs = [book for book in books if book.suffix.lower() == ".pdf"]
    print(f"{len(epubs)} EPUBs, {len(pdfs)} PDFs")
    if epubs:
        compare_epubs(program, epubs)
    if pdfs:
        compare_pdfs(program, pdfs)
    return 0


def own(program: str, books: list[Path], rounds: int = ROUNDS) -> dict:
    command = [program, "bench", "--extract", "--json", "--rounds", str(rounds), *map(str, books)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare_epubs(program: str, books: list[Path]) -> None:
    try:
        import ebooklib
        from bs4 import BeautifulSoup
        from ebooklib import epub
    except ImportError as error:
        print(f"EPUB: left out, {error} (apt-get install python3-ebooklib python3-bs4 python3-lxml)")
        return
    warnings.simplefilter("ignore")

    def read(book: Path, parser: str) -> int:
        words = 0
        opened = epub.read_epub(str(book))
        for item in opened.get_items_of_type(ebooklib.ITEM_DOCUMENT):
            words += len(BeautifulSoup(item.get_content(), parser).get_text(" ").split())
        return words

    parsers = ["html.parser"]
    try:
        BeautifulSoup("", "lxml")
        parsers.append("lxml")
    except Exception as error:
        print(f"BeautifulSoup without lxml: {error}")
    readable, refused = [], []
    for book in books:
        try:
            read(book, parsers[0])
            readable.append(book)
        except Exception as error:  # whatever the peer raises, it cannot read the book
            refused.append(f"{book.name} ({type(error).__name__})")
    print(f"EPUB: EbookLib reads {len(readable)} of {len(books)}", "; not: " + ", ".join(refused) if refused else "")
    if not readable:
        return
    ours = own(program, readable)
    report("EPUB, alexandria-ingestd", ours)
    for parser in parsers:
        started = time.process_time()
        words = sum(read(book, parser) for book in readable)
        seconds = time.process_time() - started
        rate = words / seconds
        print(
            f"EPUB, EbookLib + BeautifulSoup({parser}): {words} words, {seconds:.2f} CPU s, "
            f"{rate / 1e6:.3f} million words a CPU second; ratio {ours['words_per_cpu_second'] / rate:.1f}"
        )


def compare_pdfs(program: str, books: list[Path]) -> None:
    try:
        subprocess.run(["pdftotext", "-v"], capture_output=True, check=False)
    except FileNotFoundError:
        print("PDF: left out, pdftotext is not installed (apt-get install poppler-utils)")
        return
    ours = own(program, books)
    report("PDF, alexandria-ingestd", ours)
    by_name = {row["book"]: row for row in ours["books"]}
    total_own = total_peer = 0.0
    for book in books:
        row = by_name.get(book.name)
        if row is None:
            continue
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = ""
        for _ in range(ROUNDS):
            text = subprocess.run(["pdftotext", str(book), "-"], capture_output=True, check=False).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        peer = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / ROUNDS
        words = len(text.decode("utf-8", "replace").split())
        total_own += row["cpu_seconds"]
        total_peer += peer
        print(
            f"  {book.name:<44} {row['words']:>8} words (pdftotext {words:>8}), "
            f"{row['cpu_seconds'] * 1e3:>8.1f} CPU ms (pdftotext {peer * 1e3:>8.1f}), "
            f"ratio {row['cpu_seconds'] / max(peer, 1e-9):.2f}"
        )
    if total_peer:
        print(
            f"PDF: {total_own:.2f} CPU s against pdftotext's {total_peer:.2f} (its start included): "
            f"{total_own / total_peer:.2f} times"
        )


def report(what: str, bench: dict) -> None:
    print(
        f"{what}: {bench['words']} words, {bench['words_per_cpu_second'] / 1e6:.3f} million words a CPU second; "
        f"in a child {bench['isolation_cpu_overhead'] * 100:+.1f} % CPU, "
        f"{bench['isolation_wall_overhead'] * 100:+.1f} % wall; a child's peak {bench['child_peak_bytes'] >> 20} MiB"
    )
    for failure in bench["failed"]:
        print(f"  failed: {failure}")


if __name__ == "__main__":
    sys.exit(main())
