#!/usr/bin/env python3
"""Counts the words of an FB2, DOCX, ODT, HTMLZ or text file, with nothing but Python's standard library.

An independent count for the extraction's tests: no line of it is shared with the project. Prints a JSON object,
word -> count.
"""
import html.entities
import json
import re
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter

from spine_words import Text, bracket, words_of

BREAKS = {
    "fb2": "title p v section subtitle stanza poem epigraph cite table tr td th empty-line text-author annotation",
    "docx": "p tab ptab br cr tc tr tbl",
    "odt": "p h s tab line-break table-cell list-item frame text-box",
}
HIDDEN = {
    "fb2": "binary",
    "docx": "del moveFrom Fallback instrText delText",
    "odt": "tracked-changes annotation desc note-citation",
}
MARKS = {"fb2": "a sup", "docx": "hyperlink", "odt": ""}
WITHIN = {"fb2": "body", "docx": "t", "odt": "p h"}


def tree_text(root, kind):
    """The text of a tree, an element that parts words as a space."""
    breaks, hidden, within = (table[kind].split() for table in (BREAKS, HIDDEN, WITHIN))
    parts, apart = [], []

    def walk(element, inside, out):
        name = element.tag.rsplit("}", 1)[-1]
        if name in hidden:
            return
        if name == "note-body":
            out = apart
        space = " " if name in breaks else ""
        start = len(out)
        inside = inside or name in within
        out.append(space)
        out.append((element.text or "") if inside else "")
        for child in element:
            walk(child, inside, out)
            out.append((child.tail or "") if inside and not (kind == "docx" and name != "t") else "")
        out.append(space)
        raised = kind == "docx" and name == "r" and any(
            value == "superscript" for child in element.iter() for value in child.attrib.values()
        )
        if raised or name in MARKS[kind].split():
            bracket(out, start)

    walk(root, False, parts)
    return "".join(parts) + " " + "".join(apart)


def tree(data):
    """Entities that no document type declares are HTML's, or text."""
    known = {"amp", "lt", "gt", "quot", "apos"}

    def resolve(match):
        name = match[1]
        if name in known:
            return match[0]
        return html.entities.html5.get(name + ";", "&amp;" + name + ";")

    encoding = re.match(rb"<\?xml[^>]*encoding=.([\w-]+)", data)
    text = data.decode(encoding[1].decode() if encoding else "utf-8")
    return ET.fromstring(re.sub(r"&(\w+);", resolve, re.sub(r"<\?xml.*?\?>", "", text)))


def text_of(path):
    kind = path.rsplit(".", 1)[-1]
    if kind == "txt":
        return open(path, encoding="utf-8").read()
    if kind == "fb2":
        return tree_text(tree(open(path, "rb").read()), kind)
    with zipfile.ZipFile(path) as book:
        if kind == "htmlz":
            page = Text()
            page.feed(book.read("index.html").decode("utf-8"))
            page.close()
            return "".join(page.parts)
        return tree_text(tree(book.read({"docx": "word/document.xml", "odt": "content.xml"}[kind])), kind)


sys.setrecursionlimit(10_000)
words = Counter(words_of(text_of(sys.argv[1])))
json.dump(words, sys.stdout)
