#!/usr/bin/env python3
"""Counts the words of an EPUB's linear text, with nothing but Python's standard library.

An independent count for the extraction's test: no line of it is shared with the project. Prints a JSON object,
word -> count. A word is what stands between white space once an element that is not part of a line counts as such.
What may be a footnote's mark stands between U+FDD0 and U+FDD1, and a space that may go with it is U+FDD2.
"""
import json
import posixpath
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

HIDDEN = {"desc", "metadata", "head", "script", "style", "template", "noscript", "title", "iframe", "noembed", "noframes", "annotation"}
INLINE = set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label map mark q rb rp rt rtc ruby s samp"
    " small span strike strong sub sup tt time tspan u var wbr g image path".split()
)
INVISIBLE = re.compile(
    "[\u00ad\u061c\ufeff\u200b-\u200f\u202a-\u202e\u2060-\u206f\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
)


def bracket(parts, start):
    """Brackets the parts from `start` on where they look like a footnote's mark."""
    text = "".join(parts[start:])
    mark = text.strip()
    letters = sum(c.isalpha() for c in mark)
    if re.search(r"[\w*†‡§¶]", mark) and len(mark) <= 16 and letters <= (len(mark) == 1) and "\ufdd0" not in mark:
        before, behind = text.split(mark, 1)
        parts[start:] = [before, "\ufdd0" + mark + "\ufdd1" + behind]


def words_of(text):
    """The words of a text with bracketed marks. A space before a mark may go where punctuation follows the mark."""
    text = re.sub(r"\s+(\ufdd0[^\ufdd1]*\ufdd1)(?=[^\s\w])", "\ufdd2\\1", INVISIBLE.sub("", text))
    return unicodedata.normalize("NFKC", text).split()


class Text(HTMLParser):
    """The visible text of a page; elements not known as inline part words."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts = []
        self.hidden = []
        self.marks = []

    def handle_starttag(self, tag, attributes):
        tag = tag.split(":")[-1]
        if self.hidden:
            if tag == self.hidden[-1]:
                self.hidden.append(tag)
        elif tag in HIDDEN:
            self.hidden.append(tag)
        elif tag in ("a", "sup"):
            self.marks.append(len(self.parts))
        elif tag not in INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag):
        tag = tag.split(":")[-1]
        if self.hidden:
            if tag == self.hidden[-1]:
                self.hidden.pop()
        elif tag in ("a", "sup"):
            if self.marks:
                bracket(self.parts, self.marks.pop())
        elif tag not in INLINE:
            self.parts.append(" ")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def local(element):
    return element.tag.rsplit("}", 1)[-1]


def pages(book):
    """The names of the linear pages, in spine order, each once, without the navigation page."""
    container = ET.fromstring(book.read("META-INF/container.xml"))
    opf = next(e.get("full-path") for e in container.iter() if local(e) == "rootfile")
    package = ET.fromstring(book.read(opf))
    items = {e.get("id"): e for e in package.iter() if local(e) == "item"}
    names = set(book.namelist())
    seen = set()
    for itemref in (e for e in package.iter() if local(e) == "itemref"):
        item = items.get(itemref.get("idref"))
        if item is None or itemref.get("linear") == "no" or "nav" in (item.get("properties") or "").split():
            continue
        href = item.get("href").split("#")[0]
        for candidate in (href, unquote(href)):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(opf), candidate))
            if name in names and name not in seen and "html" in item.get("media-type", ""):
                seen.add(name)
                yield name


def main():
    words = Counter()
    with zipfile.ZipFile(sys.argv[1]) as book:
        for name in pages(book):
            text = Text()
            text.feed(book.read(name).decode("utf-8"))
            text.close()
            words.update(words_of("".join(text.parts)))
    json.dump(words, sys.stdout)


if __name__ == "__main__":
    main()
