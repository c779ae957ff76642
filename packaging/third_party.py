#!/usr/bin/env python3
"""Prints the crates that are compiled into the programs, with their licences and those licences' texts.

usage: python3 packaging/third_party.py [--features cuda]

For the package's documentation: most of these licences ask that their text goes along. Read from cargo's metadata and
the crates' own files; it fetches nothing that a build has not.
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys


def crates(features):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", *features]
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True)).group(1)
    metadata = json.loads(subprocess.check_output([*command, "--filter-platform", host], text=True))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, waiting = {root}, [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            # Neither what tests use nor what runs while building is in the programs.
            linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if linked and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    seen.remove(root)
    return sorted((packages[crate] for crate in seen), key=lambda crate: (crate["name"], crate["version"]))


def licence_files(crate):
    folder = pathlib.Path(crate["manifest_path"]).parent
    named = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)
    return [path for path in sorted(folder.iterdir()) if path.is_file() and named.match(path.name)]


def main():
    print("Crates compiled into alexandria-ingestd and alexandriactl, and the texts of their licences.\n")
    texts = {}
    for crate in crates(sys.argv[1:]):
        numbers = []
        for path in licence_files(crate):
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            key = hashlib.sha256(" ".join(text.split()).encode()).digest()
            number, _ = texts.setdefault(key, (len(texts) + 1, text))
            numbers.append(f"[{number}]")
        home = crate.get("repository") or crate.get("homepage") or "https://crates.io/crates/" + crate["name"]
        licence = crate.get("license") or crate.get("license_file") or "see its text"
        print(f"{crate['name']} {crate['version']}: {licence}; {home}; {' '.join(numbers) or 'no text of its own'}")
    for number, text in texts.values():
        print(f"\n{'=' * 78}\n[{number}]\n\n{text}")


if __name__ == "__main__":
    main()
