"""How POST /embed fares beside a running ingestion: 32 clients with requests of mixed sizes, on loopback, bounded.

usage: http_load.py PROGRAM MODEL_FOLDER [SECONDS]
  PROGRAM        the built alexandria-ingestd (alexandriactl beside it)
  MODEL_FOLDER   a real model, such as minilm
  SECONDS        of each part, 30 unless given

Starts a service with a library of made-up books that takes far longer than the measure, and prints: the rate of the
ingestion alone; the durations and tokens of requests with ingestion running and what the ingestion does meanwhile; how
long `alexandriactl status` takes. Only Python's standard library is needed. Nothing is asserted but that no request
fails; other load on the machine is in the figures.
"""

import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

program, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
CLIENTS = 32
WORDS = [word for word in open(__file__, encoding="utf-8").read().split() if word.isalpha()]


def text(words, seed):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def metrics(address):
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/metrics")
    found = {}
    for line in connection.getresponse().read().decode().splitlines():
        if match := re.fullmatch(r"(alexandria_\w+) (\S+)", line):
            found[match[1]] = float(match[2])
    return found


class Client(threading.Thread):
    """Asks, waits a little, asks again; three of four requests are one short text, as searches are."""

    def __init__(self, number, address, until, pause):
        super().__init__()
        self.random, self.address, self.until, self.pause = random.Random(number), address, until, pause
        self.took, self.failed, self.texts, self.words = [], [], 0, 0

    def run(self):
        time.sleep(self.random.random() * self.pause)
        connection = http.client.HTTPConnection(self.address, timeout=120)
        while time.monotonic() < self.until:
            sizes = [8] if self.random.random() < 0.75 else self.random.choice([[60] * 2, [120], [20] * 8])
            body = json.dumps({"texts": [text(size, self.random.random()) for size in sizes]})
            began = time.monotonic()
            connection.request("POST", "/embed", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            vectors = answer.read()
            took = time.monotonic() - began
            if answer.status == 200 and len(json.loads(vectors)["embeddings"]) == len(sizes):
                self.took.append(took)
                self.texts += len(sizes)
                self.words += sum(sizes)
            else:
                self.failed.append((answer.status, vectors[:200]))
            time.sleep(self.pause * self.random.random() * 2)


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def control(socket):
    """What `alexandriactl status` takes, process and all, and what the answer takes."""
    took = []
    for _ in range(20):
        began = time.monotonic()
        subprocess.run([os.path.join(os.path.dirname(program), "alexandriactl"), "--socket", socket, "status", "--json"],
                       check=True, stdout=subprocess.DEVNULL)
        took.append((time.monotonic() - began) * 1e3)
        time.sleep(0.2)
    return f"alexandriactl status: median {statistics.median(took):.0f} ms, most {max(took):.0f} ms, process and all"


def tokens_a_word(address):
    """As the model counts them, in texts like those that are asked for."""
    body = json.dumps({"input": [text(100, number) for number in range(8)]})
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
    return (json.load(connection.getresponse())["usage"]["total_tokens"] - 2 * 8) / 800


def load(address, socket, pause, alone):
    per_word = tokens_a_word(address)
    before, began = metrics(address), time.monotonic()
    clients = [Client(number, address, began + seconds, pause) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(min(5, seconds / 4))
    status = control(socket)
    for client in clients:
        client.join()
    wall, after = time.monotonic() - began, metrics(address)
    grown = {name: after[name] - before[name] for name in after if name in before}
    took = [one for client in clients for one in client.took]
    failed = [one for client in clients for one in client.failed]
    all_tokens = grown["alexandria_embedded_tokens_total"]
    batch = grown["alexandria_embedder_busy_seconds_total"] / grown["alexandria_embedder_batches_total"]
    mean = all_tokens / grown["alexandria_embedder_batches_total"]
    full = grown["alexandria_embedder_busy_seconds_total"] / all_tokens * after["alexandria_embedder_batch_limit_tokens"]
    print(f"  {len(took)} requests in {wall:.0f} s ({len(took) / wall:.0f}/s, {sum(c.texts for c in clients)} texts), "
          f"{len(failed)} failed")
    print(f"  duration: median {statistics.median(took) * 1e3:.0f} ms, p90 {percentile(took, 0.9) * 1e3:.0f} ms, "
          f"p99 {percentile(took, 0.99) * 1e3:.0f} ms, most {max(took) * 1e3:.0f} ms")
    print(f"  a batch: {mean:.0f} tokens in {batch * 1e3:.0f} ms; a full one would take {full * 1e3:.0f} ms: "
          f"p99 is {percentile(took, 0.99) / full:.1f} full batches")
    asked = sum(client.words * per_word + client.texts * 2 for client in clients) / wall
    books = all_tokens / wall - asked
    print(f"  tokens/s: {asked:.0f} of requests ({asked / alone * 100:.0f} % of the ingestion alone), {books:.0f} of books "
          f"({books / alone * 100:.0f} %), together {(asked + books) / alone * 100:.0f} %")
    print(f"  {status}")
    assert not failed, failed[:3]


with tempfile.TemporaryDirectory() as place:
    library = os.path.join(place, "library")
    os.mkdir(library)
    for book in range(40):
        with open(os.path.join(library, f"Book {book}.txt"), "w", encoding="utf-8") as file:
            for paragraph in range(1200):
                sentences = [text(random.Random(book * 7919 + paragraph).randint(6, 18), f"{book} {paragraph} {n}")
                             for n in range(5)]
                file.write(". ".join(sentences).capitalize() + ".\n\n")
    log = open(os.path.join(place, "log"), "w+", encoding="utf-8")
    service = subprocess.Popen(
        [program, "--set", f"state_dir={place}/state", "--set", f"library.path={library}",
         "--set", "embedding.model=minilm", "--set", f"embedding.model_path={model}",
         "--set", "http.listen=127.0.0.1:0"],
        stderr=log, env={"HOME": place, "PATH": os.environ["PATH"]})
    try:
        address = None
        while address is None:
            assert service.poll() is None, open(log.name, encoding="utf-8").read()
            time.sleep(0.2)
            found = re.search(r"listening on http://(\S+)", open(log.name, encoding="utf-8").read())
            address = found and found[1]
        socket = f"{place}/state/control.sock"
        # Until the first books are in work.
        while metrics(address)["alexandria_embedded_tokens_total"] < 5000:
            time.sleep(0.5)

        print(f"{os.cpu_count()} cores, load before: {os.getloadavg()[0]:.1f}")
        before, began = metrics(address), time.monotonic()
        time.sleep(seconds)
        after, wall = metrics(address), time.monotonic() - began
        alone = (after["alexandria_embedded_tokens_total"] - before["alexandria_embedded_tokens_total"]) / wall
        print(f"ingestion alone: {alone:.0f} tokens/s")
        print(f"  {control(socket)}")
        for pause in (2.0, 0.5):
            print(f"with {CLIENTS} clients that pause for {pause} s on average:")
            load(address, socket, pause, alone)
    finally:
        service.terminate()
        service.wait(60)
