#!/usr/bin/env python3
"""16 users with one system prompt at llama.cpp's server and at `snug serve`, in turns: cold, warm, and one user alone.

    bench/peers/serving.py MODEL.gguf [--pairs 3]

Needs what bench/peers/setup.sh builds.
"""

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from memory_group import ROOT  # noqa: E402
from serving import PORT, Server, load, show  # noqa: E402

USERS = 16
PATIENCE = 120


class LlamaServer:
    """A slot for each user, with room for the prompt and the answer; two threads."""

    most = {}

    def __init__(self, model):
        program = os.path.join(ROOT, "build/peers/llama-server/bin/llama-server")
        self.child = subprocess.Popen([program, "-m", model, "-c", str(USERS * 2048), "-np", str(USERS), "-t", "2",
                                       "--host", "127.0.0.1", "--port", str(PORT)],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.child.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5)
                return
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.5)
        self.child.kill()
        raise SystemExit("llama-server does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    # What a user asks is the same every time, so the second load finds everything and the first one nothing.
    requests = ["--max-tokens", 48, "--ignore-eos", "--prompt-words", 740, "--timeout", 900]
    engines = {"snug": lambda: Server(o.snug, ["-c", "4096"], model=o.model), "llama.cpp": lambda: LlamaServer(o.model)}
    results = {}
    for _ in range(o.pairs):
        for name, start in engines.items():
            with start() as server:
                for state, users in (("cold", USERS), ("warm", USERS), ("one user", 1)):
                    result = load(o.snug, "--users", users, *requests)
                    results.setdefault((state, name), []).append((result, server))
    for state in ("cold", "warm", "one user"):
        for name in engines:
            show(f"{state}, {name}", *map(list, zip(*results[state, name])))


main()
