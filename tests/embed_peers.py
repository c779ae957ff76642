#!/usr/bin/env python3
"""Embedding speed against its peers: the same weights, the same texts, the same machine, in turns.

usage: python3 tests/embed_peers.py PROGRAM [--model DIR] [--device cpu|cuda] [--chunks N] [--tokens N] [--rounds N]
                                    [--texts FILE] [--threads N] [--only NAME[,NAME]] [--config FILE]
                                    [--json FILE]

PROGRAM is the alexandria-ingestd to measure, DIR a model in the hub's layout (by default minilm, as
packaging/get_models.py writes it). On a GPU the peers are sentence-transformers in fp16 with batches of 96 and in fp32
(TF32 on) with batches of 32; on a CPU sentence-transformers, ONNX Runtime and OpenVINO, all in fp32. Whatever is
missing is named, left out, and counted.

Every measurement is a process of its own, ours as well: it loads the model, warms up, then takes all texts from text to
vector. Loading and warming up are not counted, tokenising is. Rounds go through all of them in turn, and medians are
compared: on a shared machine trust the ratios. The first texts' vectors are compared, so that it is the same function
whose speed is compared.

Nothing is fetched. Exit status: 0 measured, 1 something failed or computes another function, 3 no peer is installed.
"""

import argparse
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What the first texts' vectors must agree to, by the less precise of the two.
COSINE = {"f16": 0.999, "f32": 0.99999}
COMPARED = 8
# Name -> (modules it needs, precision, texts in a batch).
PEERS = {
    "cuda": {
        "sentence-transformers fp16 batch 96": (["torch", "sentence_transformers"], "f16", 96),
        "sentence-transformers fp32 batch 32": (["torch", "sentence_transformers"], "f32", 32),
    },
    "cpu": {
        "sentence-transformers": (["torch", "sentence_transformers"], "f32", 32),
        "onnxruntime": (["torch", "transformers", "onnx", "onnxruntime"], "f32", 32),
        "openvino": (["torch", "transformers", "onnx", "openvino"], "f32", 32),
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alexandria-ingestd"
    parser.add_argument("--model", type=Path, default=cache / "models/minilm")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--chunks", type=int, help="default: 96 on a CPU, 2,000 on a GPU")
    parser.add_argument("--tokens", type=int, default=450, help="of a chunk; clipped to the model's limit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=Path, help="one JSON string a line, instead of texts of random words")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads of each")
    parser.add_argument("--config", type=Path, help="PROGRAM's configuration, where cuBLAS has to be named")
    parser.add_argument("--only", help="these peers alone, by the beginning of their names")
    parser.add_argument("--json", type=Path, help="keep all figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--onnx", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    options.chunks = options.chunks or {"cpu": 96, "cuda": 2000}[options.device]

    peers, absent = {}, {}
    for name, (modules, precision, batch) in PEERS[options.device].items():
        if options.only and not any(name.startswith(start) for start in options.only.split(",")):
            absent[name] = "not asked for"
        elif (reason := missing(modules, options.device)) is not None:
            absent[name] = reason
        else:
            peers[name] = (precision, batch)
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}")
    if not peers:
        print("no peer can be measured here: " + "; ".join(f"{name}: {reason}" for name, reason in absent.items()))
        return 3
    with tempfile.TemporaryDirectory() as work_folder:
        return compare(options, peers, absent, Path(work_folder))


def missing(modules: list[str], device: str) -> str | None:
    """Why these modules cannot be used; None where they can. Asked in a process of its own: torch keeps the GPU."""
    check = "import importlib, sys\nfor name in sys.argv[2:]: importlib.import_module(name)\n"
    check += "import torch\nif sys.argv[1] == 'cuda' and not torch.cuda.is_available(): sys.exit('torch sees no GPU')\n"
    done = subprocess.run([sys.executable, "-c", check, device, *modules], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]


# --- the comparison -----------------------------------------------------------------------------------------------


def compare(options, peers: dict, absent: dict, folder: Path) -> int:
    texts, lengths, what = make_texts(options)
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    tokens = sum(lengths)
    print(f"{options.model.name} on {options.device}: {what}, {tokens} tokens; {options.threads} threads")

    failed: list[str] = []
    reference = own_vectors(options, texts[:COMPARED])
    onnx = folder / "model.onnx"
    if any(name in peers for name in ("onnxruntime", "openvino")):
        try:
            worker(options, "export", path, onnx)
        except RuntimeError as error:
            for name in ("onnxruntime", "openvino"):
                if peers.pop(name, None):
                    absent[name] = f"the export to ONNX failed: {error}"
                    print(f"left out: {name}: {absent[name]}")

    runs: dict[str, list[dict]] = {"alexandria-ingestd": []} | {name: [] for name in peers}
    for round_number in range(options.rounds):
        for name in list(runs):
            try:
                run = own_run(options, path) if name == "alexandria-ingestd" else worker(options, name, path, onnx)
            except RuntimeError as error:
                if name == "alexandria-ingestd":
                    print(f"FAILED: {name}: {error}")
                    return 1
                absent[name] = f"failed: {error}"
                failed.append(name)
                print(f"FAILED: {name}: {error}")
                del runs[name]
                continue
            runs[name].append(run)
            print(
                f"round {round_number + 1}, {name}: {run['seconds']:.2f} s, {run['cpu_seconds']:.2f} CPU s, "
                f"{run['tokens'] / run['seconds']:.0f} tokens/s",
                flush=True,
            )

    print()
    rows = summary(runs, tokens, reference)
    print_table(rows)
    for row in rows:
        if row["tokens"] != tokens:
            failed.append(row["name"])
            print(f"NOT THE SAME WORK: {row['name']} counted {row['tokens']} tokens, not {tokens}")
        if row["cosine"] is not None and row["cosine"] < row["cosine_goal"]:
            failed.append(row["name"])
            print(f"NOT THE SAME FUNCTION: {row['name']}: cosine {row['cosine']:.6f}, under {row['cosine_goal']}")
    others = [row for row in rows if row["ratio"] is not None]
    if others:
        fastest = min(others, key=lambda row: row["ratio"])
        print(
            f"against the fastest peer, {fastest['name']}: {fastest['ratio']:.2f} times its rate, "
            f"{fastest['cpu_ratio']:.2f} times its work in a CPU second"
        )
    print(f"{len(others)} peers measured, {len(absent)} left out, {len(set(failed))} failed")
    if options.json:
        kept = {
            "model": options.model.name, "device": options.device, "texts": what, "chunks": len(texts),
            "tokens": tokens, "threads": options.threads, "rounds": options.rounds, "versions": versions(),
            "results": rows, "left_out": absent, "failed": sorted(set(failed)), "runs": runs,
        }
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 1 if failed or not others else 0


def summary(runs: dict[str, list[dict]], tokens: int, reference: list[list[float]]) -> list[dict]:
    median = lambda name, field: statistics.median(run[field] for run in runs[name])
    own_seconds = median("alexandria-ingestd", "seconds")
    own_cpu = median("alexandria-ingestd", "cpu_seconds")
    own_precision = runs["alexandria-ingestd"][0]["precision"]
    rows = []
    for name in runs:
        first, seconds, cpu = runs[name][0], median(name, "seconds"), median(name, "cpu_seconds")
        is_own = name == "alexandria-ingestd"
        vectors = [run.pop("vectors", None) for run in runs[name]][0]
        rows.append({
            "name": name, "precision": first["precision"], "tokens": first["tokens"],
            "seconds": seconds, "cpu_seconds": cpu, "tokens_per_second": tokens / seconds,
            "fastest_tokens_per_second": tokens / min(run["seconds"] for run in runs[name]),
            "load_seconds": median(name, "load_seconds"), "gpu_bytes": first.get("gpu_bytes"),
            # Our rate by the peer's, and our work in a CPU second by the peer's.
            "ratio": None if is_own else seconds / own_seconds, "cpu_ratio": None if is_own else cpu / own_cpu,
            "cosine": None if vectors is None else min(cosine(a, b) for a, b in zip(vectors, reference, strict=True)),
            "cosine_goal": COSINE[min(own_precision, first["precision"])],
        })
    return rows


def print_table(rows: list[dict]) -> None:
    print(f"{'':<38} {'tokens/s':>9} {'wall s':>8} {'CPU s':>8} {'load s':>7} {'GPU MiB':>8} {'cosine':>9} {'ours/peer':>9}"
          f" {'by CPU':>7}")
    for row in rows:
        gpu = "-" if row["gpu_bytes"] is None else f"{row['gpu_bytes'] / 2**20:.0f}"
        cosine_text = "-" if row["cosine"] is None else f"{row['cosine']:.6f}"
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        cpu_ratio = "-" if row["cpu_ratio"] is None else f"{row['cpu_ratio']:.2f}"
        print(
            f"{row['name'] + ' ' + row['precision']:<38} {row['tokens_per_second']:>9.0f} {row['seconds']:>8.2f} "
            f"{row['cpu_seconds']:>8.2f} {row['load_seconds']:>7.2f} {gpu:>8} {cosine_text:>9} {ratio:>9} {cpu_ratio:>7}"
        )


def cosine(a: list[float], b: list[float]) -> float:
    dot = lambda x, y: sum(p * q for p, q in zip(x, y, strict=True))
    return dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5


def versions() -> dict[str, str]:
    """Without importing them: torch would take memory of the GPU."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


# --- the texts ----------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def max_tokens(model: Path) -> int:
    """As alexandria-ingestd and sentence-transformers read it."""
    config = read_json(model / "config.json")
    offset = 0 if config["model_type"] == "bert" else config["pad_token_id"] + 1
    limit = config["max_position_embeddings"] - offset
    return min(limit, read_json(model / "sentence_bert_config.json").get("max_seq_length") or limit)


def tokenizer_of(model: Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def make_texts(options) -> tuple[list[str], list[int], str]:
    """The texts, their tokens with special ones, and what they are in words."""
    tokenizer, limit = tokenizer_of(options.model), max_tokens(options.model)
    length = lambda text: len(tokenizer.encode(text).ids)
    if options.texts:
        texts = [json.loads(line).strip() for line in options.texts.read_text().splitlines() if line.strip()]
        # What a peer cuts we embed in windows: another amount of work.
        kept = [text for text in texts if length(text) <= limit][: options.chunks]
        left = len(texts) - len(kept)
        return kept, [length(text) for text in kept], f"{len(kept)} texts of {options.texts.name} ({left} left out)"
    tokens = min(options.tokens, limit)
    special = length("")
    begins_word = lambda piece: piece.startswith("\u2581") or not piece.startswith("##")
    words = sorted({
        word for piece in tokenizer.get_vocab() if begins_word(piece)
        for word in [piece.lstrip("\u2581")] if len(word) > 1 and word.isalpha() and word.isascii()
    })
    rng = random.Random(1)
    texts = []
    while len(texts) < options.chunks:
        text = " ".join(rng.choices(words, k=tokens))
        encoding = tokenizer.encode(text, add_special_tokens=False)
        # sentence-transformers takes blanks at the ends away.
        text = text[: encoding.offsets[tokens - special - 1][1]].strip()
        # A word that was cut in two may have become another number of tokens.
        if length(text) == tokens:
            texts.append(text)
    clipped = "" if tokens == options.tokens else f" ({options.tokens} asked, the model's limit is {limit})"
    return texts, [tokens] * len(texts), f"{len(texts)} texts of {tokens} tokens{clipped}"


# --- ours ---------------------------------------------------------------------------------------------------------


def own_command(options) -> list[str]:
    settings = {
        "embedding.model": options.model.name, "embedding.model_path": str(options.model.resolve()),
        "embedding.device": options.device, "embedding.threads": str(options.threads),
    }
    config = ["--config", str(options.config)] if options.config else []
    return [options.program, *config, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


def call(command: list[str], **arguments) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **arguments)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
    return done.stdout


def own_vectors(options, texts: list[str]) -> list[list[float]]:
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    return [json.loads(line) for line in call([*own_command(options), "embed"], input=lines).splitlines()]


def own_run(options, texts: Path) -> dict:
    run = json.loads(call([*own_command(options), "bench", "--texts", str(texts), "--no-ceiling", "--json"]))
    fields = ("seconds", "cpu_seconds", "tokens", "load_seconds", "precision", "device", "batch_tokens",
              "gpu_utilisation_mean", "host_loaded_bytes")
    return {name: run[name] for name in fields} | {"gpu_bytes": run["gpu_memory_peak_bytes"]}


# --- the peers, each in a process of its own ----------------------------------------------------------------------


def worker(options, name: str, texts: Path, onnx: Path) -> dict:
    command = [
        sys.executable, __file__, options.program, "--worker", name, "--model", str(options.model), "--texts", str(texts),
        "--onnx", str(onnx), "--device", options.device, "--threads", str(options.threads),
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": str(options.threads)}
    return json.loads(call(command, env=os.environ | quiet).splitlines()[-1])


def work(options) -> int:
    if options.worker == "export":
        export(options.model, options.onnx)
        print("{}")
        return 0
    _, precision, batch = PEERS[options.device][options.worker]
    load = {"onnxruntime": onnxruntime, "openvino": openvino}.get(options.worker, sentence_transformers)
    texts = [json.loads(line) for line in options.texts.read_text().splitlines()]
    started = time.perf_counter()
    encode = load(options, precision, batch)
    loaded = time.perf_counter() - started
    # Until a second has passed, but one batch at least: as ours.
    started = time.perf_counter()
    while True:
        encode(texts[:batch])
        if time.perf_counter() - started >= 1.0:
            break
    wall, cpu = time.perf_counter(), time.process_time()
    vectors = encode(texts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokenizer = tokenizer_of(options.model)
    gpu = None
    if options.device == "cuda":
        import torch

        gpu = torch.cuda.max_memory_reserved()
    print(json.dumps({
        "seconds": wall, "cpu_seconds": cpu, "load_seconds": loaded, "precision": precision, "gpu_bytes": gpu,
        "tokens": sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts)),
        "vectors": [[float(x) for x in vector] for vector in vectors[:COMPARED]],
    }))
    return 0


def sentence_transformers(options, precision: str, batch: int):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        # As in the guide: fp32 products on the tensor cores.
        torch.set_float32_matmul_precision("high")
    model = SentenceTransformer(str(options.model), device=options.device, local_files_only=True)
    model = model.half() if precision == "f16" else model.float()
    return lambda texts: model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)


def batches(options, batch: int, run):
    """Texts of like lengths together, padded to the longest of each batch, as sentence-transformers does."""
    import numpy

    tokenizer, pad = tokenizer_of(options.model), read_json(options.model / "config.json")["pad_token_id"]

    def encode(texts: list[str]):
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        vectors = [None] * len(ids)
        for start in range(0, len(order), batch):
            members = order[start : start + batch]
            longest = len(ids[members[0]])
            tokens = numpy.full((len(members), longest), pad, numpy.int64)
            mask = numpy.zeros((len(members), longest), numpy.int64)
            for row, member in enumerate(members):
                tokens[row, : len(ids[member])] = ids[member]
                mask[row, : len(ids[member])] = 1
            for member, vector in zip(members, run(tokens, mask), strict=True):
                vectors[member] = vector
        return vectors

    return encode


def export(model: Path, path: Path) -> None:
    """The model with its pooling and normalisation as one ONNX graph."""
    import warnings

    import torch
    from transformers import AutoModel

    warnings.simplefilter("ignore")
    takes_first = read_json(model / "1_Pooling/config.json").get("pooling_mode_cls_token", False)

    class Sentence(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = AutoModel.from_pretrained(model, attn_implementation="eager").float().eval()

        def forward(self, input_ids, attention_mask):
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if takes_first:
                pooled = hidden[:, 0]
            else:
                weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weight).sum(1) / weight.sum(1)
            return torch.nn.functional.normalize(pooled, dim=1)

    names = ["input_ids", "attention_mask"]
    sample = torch.full((2, 8), 5), torch.ones((2, 8), dtype=torch.long)
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"vectors": {0: "texts"}}
    with torch.no_grad():
        torch.onnx.export(
            Sentence(), sample, str(path), input_names=names, output_names=["vectors"], dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )


def onnxruntime(options, _precision: str, batch: int):
    runtime = importlib.import_module("onnxruntime")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = runtime.InferenceSession(str(options.onnx), settings, providers=["CPUExecutionProvider"])
    return batches(
        options, batch, lambda tokens, mask: session.run(None, {"input_ids": tokens, "attention_mask": mask})[0]
    )


def openvino(options, _precision: str, batch: int):
    runtime = importlib.import_module("openvino")
    # Where the CPU has bf16 units, OpenVINO would use them unasked.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": options.threads, "PERFORMANCE_HINT": "LATENCY"}
    model = runtime.Core().compile_model(str(options.onnx), "CPU", settings)
    return batches(options, batch, lambda tokens, mask: model([tokens, mask])[0].copy())


if __name__ == "__main__":
    sys.exit(main())
