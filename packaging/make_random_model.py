#!/usr/bin/env python3
"""Writes an embedding model with random weights in the Hugging Face hub's layout, from a seed: to measure speed and
numerics at the full size of a model whose weights are not at hand. Its vectors mean nothing.

usage: make_random_model.py DIR [--layers 24] [--hidden 1024] [--heads 16] [--ffn 4096] [--vocab 250002]
                                [--positions 8194] [--type xlm-roberta|bert] [--pooling cls|mean] [--seed 1]
                                [--dtype f16|f32] [--tokenizer FILE]

The defaults are the shape of BAAI/bge-m3 (1.1 GB in f16). FILE is a tokenizer.json of that vocabulary, copied into DIR;
by default that of me5-small-xlmr, as get_models.py writes it.

Needs Python 3.9 and nothing else; takes seconds and little memory; the same seed gives the same file everywhere.
"""
import argparse
import array
import json
import os
import random
import shutil
import struct
import sys

# Random numbers are drawn once and used again and again, each tensor from another place on: half a billion calls of
# gauss() would take minutes. The count is prime and larger than any layer's matrix, so no two rows of a matrix are alike.
POOL = 4_194_319

# Standard deviations. The usual 0.02 everywhere would leave attention nearly even, so that the first token's vector would
# hardly depend on the text, and a comparison of vectors would see no error. With these, the cosine between texts of a
# sentence is about 0.74 and between texts of 450 tokens 0.93 (multilingual-e5-small, sentences: 0.88), while the same
# model in bfloat16 stays at 0.9994: in f16, with three bits more, at 0.99999.
SPREAD = {"query": 0.065, "key": 0.065, "value": 0.05, "attention.output": 0.05}
SPREAD_ELSEWHERE = 0.02
BYTES = {"f16": 2, "f32": 4}


class Numbers:
    """Normal numbers as bytes of the model's type."""

    def __init__(self, seed, dtype):
        self.places = random.Random(seed)
        self.size = BYTES[dtype]
        self.dtype = dtype
        gauss = random.Random(seed + 1).gauss
        self.pool = [gauss(0.0, 1.0) for _ in range(POOL)]
        self.scaled = {}

    def packed(self, values):
        if self.dtype == "f16":
            return struct.pack("<%de" % len(values), *values)
        numbers = array.array("f", values)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()

    def write(self, file, count, spread):
        if spread not in self.scaled:
            self.scaled[spread] = self.packed([x * spread for x in self.pool])
        data, at = self.scaled[spread], self.places.randrange(POOL)
        while count > 0:
            taken = min(count, POOL - at)
            file.write(memoryview(data)[at * self.size:(at + taken) * self.size])
            count -= taken
            at = 0

    def write_around_one(self, file, count, spread):
        at = self.places.randrange(POOL - count)
        file.write(self.packed([1.0 + x * spread for x in self.pool[at:at + count]]))


def tensors(o):
    """(name, shape) of every tensor, under the names of transformers' XLMRobertaModel and BertModel."""
    yield "embeddings.word_embeddings.weight", (o.vocab, o.hidden)
    yield "embeddings.position_embeddings.weight", (o.positions, o.hidden)
    yield "embeddings.token_type_embeddings.weight", (1 if o.type == "xlm-roberta" else 2, o.hidden)
    yield "embeddings.LayerNorm.weight", (o.hidden,)
    yield "embeddings.LayerNorm.bias", (o.hidden,)
    for layer in range(o.layers):
        for name, rows, columns in [
            ("attention.self.query", o.hidden, o.hidden), ("attention.self.key", o.hidden, o.hidden),
            ("attention.self.value", o.hidden, o.hidden), ("attention.output.dense", o.hidden, o.hidden),
            ("intermediate.dense", o.ffn, o.hidden), ("output.dense", o.hidden, o.ffn),
        ]:
            yield "encoder.layer.%d.%s.weight" % (layer, name), (rows, columns)
            yield "encoder.layer.%d.%s.bias" % (layer, name), (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            yield "encoder.layer.%d.%s.weight" % (layer, name), (o.hidden,)
            yield "encoder.layer.%d.%s.bias" % (layer, name), (o.hidden,)


def write_safetensors(path, o):
    """https://github.com/huggingface/safetensors#format: u64 little-endian length of the header, the header as JSON,
    padded with spaces to a multiple of eight, then the data."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(o):
        size = BYTES[o.dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": o.dtype.upper(), "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    numbers = Numbers(o.seed, o.dtype)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors(o):
            count = 1
            for extent in shape:
                count *= extent
            if name.endswith("LayerNorm.weight"):
                numbers.write_around_one(file, count, SPREAD_ELSEWHERE)
            else:
                is_matrix = len(shape) == 2
                wider = [spread for part, spread in SPREAD.items() if part in name and is_matrix]
                numbers.write(file, count, wider[0] if wider else SPREAD_ELSEWHERE)
        if file.tell() != 8 + len(text) + at:
            sys.exit("error: %s has %d bytes, its header says %d" % (path, file.tell(), 8 + len(text) + at))
    os.rename(path + ".part", path)
    return 8 + len(text) + at


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)


def write_other_files(o):
    """What our loader, transformers and sentence-transformers read beside the weights."""
    is_xlmr = o.type == "xlm-roberta"
    limit = o.positions - 2 if is_xlmr else o.positions
    write_json(os.path.join(o.dir, "config.json"), {
        "model_type": o.type, "architectures": ["XLMRobertaModel" if is_xlmr else "BertModel"], "hidden_size": o.hidden,
        "num_hidden_layers": o.layers, "num_attention_heads": o.heads, "intermediate_size": o.ffn,
        "vocab_size": o.vocab, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02, "layer_norm_eps": 1e-5 if is_xlmr else 1e-12,
        "position_embedding_type": "absolute", "torch_dtype": {"f16": "float16", "f32": "float32"}[o.dtype],
        "max_position_embeddings": o.positions, "type_vocab_size": 1 if is_xlmr else 2,
        "pad_token_id": 1 if is_xlmr else 0, "bos_token_id": 0, "eos_token_id": 2,
    })
    modules = ["Transformer", "Pooling", "Normalize"]
    write_json(os.path.join(o.dir, "modules.json"), [
        {"idx": index, "name": str(index), "path": "" if index == 0 else "%d_%s" % (index, module),
         "type": "sentence_transformers.models." + module}
        for index, module in enumerate(modules)
    ])
    write_json(os.path.join(o.dir, "1_Pooling", "config.json"), {
        "word_embedding_dimension": o.hidden, "pooling_mode_cls_token": o.pooling == "cls",
        "pooling_mode_mean_tokens": o.pooling == "mean",
    })
    write_json(os.path.join(o.dir, "sentence_bert_config.json"), {"max_seq_length": limit, "do_lower_case": False})
    if is_xlmr:
        special = {
            "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
            "pad_token": "<pad>", "mask_token": "<mask>",
        }
        tokenizer_class = "XLMRobertaTokenizerFast"
    else:
        special = {"sep_token": "[SEP]", "cls_token": "[CLS]", "unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
        tokenizer_class = "BertTokenizerFast"
    write_json(os.path.join(o.dir, "special_tokens_map.json"), special)
    write_json(os.path.join(o.dir, "tokenizer_config.json"), dict(
        special, tokenizer_class=tokenizer_class, model_max_length=limit))
    shutil.copyfile(o.tokenizer, os.path.join(o.dir, "tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", metavar="DIR")
    for name, default in [("layers", 24), ("hidden", 1024), ("heads", 16), ("ffn", 4096), ("vocab", 250002),
                          ("positions", 8194), ("seed", 1)]:
        parser.add_argument("--" + name, type=int, default=default, metavar="N")
    parser.add_argument("--type", choices=["xlm-roberta", "bert"], default="xlm-roberta")
    parser.add_argument("--pooling", choices=["cls", "mean"], default="cls")
    parser.add_argument("--dtype", choices=sorted(BYTES), default="f16")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    known = os.path.join(cache, "alexandria-ingestd", "models", "me5-small-xlmr", "tokenizer.json")
    parser.add_argument("--tokenizer", default=known, metavar="FILE")
    o = parser.parse_args()
    if not os.path.isfile(o.tokenizer):
        sys.exit("error: %s is missing; name a tokenizer.json with --tokenizer" % o.tokenizer)
    if o.heads < 1 or o.hidden % o.heads:
        sys.exit("error: %d hidden units do not divide among %d heads" % (o.hidden, o.heads))
    if max(o.ffn * o.hidden, o.hidden * o.hidden) > POOL:
        sys.exit("error: a matrix of more than %d numbers would repeat itself" % POOL)
    os.makedirs(o.dir, exist_ok=True)
    write_other_files(o)
    size = write_safetensors(os.path.join(o.dir, "model.safetensors"), o)
    print("%s: %s, %d layers x %d, %d heads, random weights from seed %d, %d MiB in %s" % (
        o.dir, o.type, o.layers, o.hidden, o.heads, o.seed, size >> 20, o.dtype))


if __name__ == "__main__":
    main()
