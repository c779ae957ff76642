#!/usr/bin/env python3
"""Compares the vectors that one model has on two devices, by their cosines.

usage: vectors.py TEXTS.jsonl PROGRAM CONFIG-A CONFIG-B GOAL

TEXTS has one JSON object a line, with a "text". They are embedded singly, and repeated until they are longer than the
model takes. Exit status 1 where a cosine is under GOAL. Needs Python 3.9 alone.
"""
import json
import math
import subprocess
import sys


def cosine(a, b):
    dot = lambda x, y: math.fsum(p * q for p, q in zip(x, y))
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def main():
    path, program, config_a, config_b, goal = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        short = [json.loads(line)["text"] for line in file]
    texts = short + [" ".join([text] * 40)[:4000] for text in short[:4]]
    lines = "".join(json.dumps(text) + "\n" for text in texts)

    def embed(config):
        done = subprocess.run([program, "--config", config, "embed"], input=lines, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit("embed with %s failed: %s" % (config, done.stderr.strip().splitlines()[-1:]))
        return [json.loads(line) for line in done.stdout.splitlines()]

    a, b = embed(config_a), embed(config_b)
    if not len(a) == len(b) == len(texts):
        sys.exit("%d and %d vectors came back for %d texts" % (len(a), len(b), len(texts)))
    worst = min(cosine(x, y) for x, y in zip(a, b))
    # What a device that ignores its input would get.
    unlike = min(cosine(a[0], vector) for vector in a[1 : len(short)])
    print("worst cosine between the devices %.7f over %d texts (at least %s); between texts down to %.3f" % (
        worst, len(texts), goal, unlike))
    # A NaN fails the comparison, too.
    if not worst >= float(goal):
        sys.exit("a cosine is under " + goal)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__.strip())
    main()
