#!/usr/bin/env python3
"""Counts the words of an EPUB's linear text, with nothing but Python's standard library.

An independent count for the extraction's test: no line of it is shared with the project. Prints a JSON object,
word -> count. A word is what stands between white space once an element that is not part of a line counts as such.
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

HIDDEN = {"head", "script", "style", "template", "noscript", "title", "iframe", "noembed", "noframes", "annotation"}
INLINE = set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label map mark q rb rp rt rtc ruby s samp"
    " small span strike strong sub sup tt time tspan u var wbr text g image path".split()
)
INVISIBLE = re.compile("[\u00ad\ufeff\u2060\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")


class Text(HTMLParser):
    """The visible text of a page; elements not known as inline part words."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts = []
        self.hidden = []

    def handle_starttag(self, tag, attributes):
        tag = tag.split(":")[-1]
        if self.hidden:
            if tag == self.hidden[-1]:
                self.hidden.append(tag)
        elif tag in HIDDEN:
            self.hidden.append(tag)
        elif tag not in INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag):
        tag = tag.split(":")[-1]
        if self.hidden:
            if tag == self.hidden[-1]:
                self.hidden.pop()
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
            whole = unicodedata.normalize("NFC", INVISIBLE.sub("", "".join(text.parts)))
            words.update(whole.split())
    json.dump(words, sys.stdout)


if __name__ == "__main__":
    main()
