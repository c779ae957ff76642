#!/usr/bin/env python3
"""Copies a model's weights with its 32-bit numbers rounded to 16 bits, for carrying; other tensors are left out.

usage: halve_weights.py MODEL.safetensors HALF.safetensors

Needs Python 3.9 alone. What a weight loses is 1/2048 of it at most; a weight that 16 bits cannot hold is an error. The
format: https://github.com/huggingface/safetensors#format
"""
import array
import json
import math
import struct
import sys


def halve(source, target):
    with open(source, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        start, names = 8 + length, [name for name, facts in header.items() if facts.get("dtype") == "F32"]
        halved, at = {"__metadata__": {"format": "pt"}}, 0
        for name in names:
            size = 2 * math.prod(header[name]["shape"])
            halved[name] = {"dtype": "F16", "shape": header[name]["shape"], "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(halved, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(target, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                first, last = header[name]["data_offsets"]
                file.seek(start + first)
                numbers = array.array("f", file.read(last - first))
                if sys.byteorder == "big":
                    numbers.byteswap()
                # Raises OverflowError beyond 65504.
                out.write(struct.pack("<%de" % len(numbers), *numbers))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    halve(sys.argv[1], sys.argv[2])
