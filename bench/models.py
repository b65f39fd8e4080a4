#!/usr/bin/env python3
"""Several models in a budget that holds one and a half: how long a change to a warm one takes, beside what the disk takes for the
bytes that it lacks.

    bench/models.py qwen2.5-coder-0.5b gemma3-270m smollm2-135m
    bench/models.py a.gguf b.gguf c.gguf --holds 1.5     (three of one size show most: links to one file will do)

The budget is what the server needs beside weights, and `--holds` times the largest model's weights. Right before and after each
change the disk is measured with reads as they are asked for there (direct, 512 KiB, many in flight) into a few MiB again and
again, which stay in the processor's caches, and after it also into as much memory as was missing.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
import urllib.request

from memory_group import MIB, ROOT, drop_caches

BODY = {"messages": [{"role": "user", "content": "Hello"}], "prompt": "Hello", "max_tokens": 1, "temperature": 0}


class Server:
    def __init__(self, o, *options):
        command = [o.snug, "serve", *o.models, "--port", "0", "--template", "chatml", "-c", str(o.context), "--no-pressure", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.names = line.split(" at http")[0].removeprefix("serving ").split(", ")
        self.url = "http" + line.split(" at http")[1].split("/v1")[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=300) as answer:
            return json.load(answer)

    def status(self):
        status = self.ask("/snug/status")
        return status | {"models": {m["name"]: m for m in status["models"]}}

    def chat(self, name):
        start = time.monotonic()
        self.ask("/v1/completions", BODY | {"model": name})
        return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--holds", type=float, default=1.5, help="of the largest model's weights")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--json", action="store_true")
    o = parser.parse_args()
    o.snug = os.path.join(o.build, "snug")
    drop_caches()
    with Server(o) as server:
        for name in server.names:
            server.chat(name)
        status = server.status()
    weights = {name: m["weights_total"] for name, m in status["models"].items()}
    budget = status["used"] - sum(weights.values()) + int(o.holds * max(weights.values()))
    print(f"budget {budget / MIB:.0f} MiB; weights " + ", ".join(f"{n} {w / MIB:.0f} MiB" for n, w in weights.items()), flush=True)

    store = os.environ.get("SNUG_MODELS", os.path.expanduser("~/.local/share/snug/models"))
    paths = [m if os.path.exists(m) else os.path.join(store, m + ".gguf") for m in o.models]

    def disk(path, memory=0):
        path = path + ".snug" if os.path.exists(path + ".snug") else path  # its pack is what is read
        return float(subprocess.check_output([f"{o.build}/disk_read", path, "0.3", str(512 << 10), str(memory)]))

    changes = []
    with Server(o, "--memory", str(budget)) as server:
        for name in server.names:
            server.chat(name)
        files = dict(zip(server.names, paths))
        # All of them in turn, then the first two alone: what both keep is most of what the budget holds.
        order = (server.names * o.rounds) + server.names[:2] * o.rounds
        for name in order:
            before = disk(files[name])
            there = server.status()["models"][name]["weights"]
            first = server.chat(name)
            again = min(server.chat(name) for _ in range(3))
            speed = (before + disk(files[name])) / 2
            status = server.status()
            change = status["models"][name]
            if change["switch_bytes"] == 0:
                continue
            took, wanted = change["switch_seconds"], change["switch_bytes"] / speed
            arriving = change["switch_bytes"] / disk(files[name], change["switch_bytes"])
            changes.append({"model": name, "had": there, "missing": change["switch_bytes"], "seconds": took, "disk_seconds": wanted,
                            "ratio": took / wanted, "arriving_ratio": took / arriving, "seen_by_client": first - again, "disk_bytes_s": speed})
            if status["peak"] > budget:
                raise SystemExit(f"the ledger was over its limit: {status['peak']} of {budget}")
            if not o.json:
                print(f"to {name:20} had {there / MIB:4.0f} MiB, missing {change['switch_bytes'] / MIB:4.0f} MiB: {took * 1e3:6.1f} ms, "
                      f"the disk {wanted * 1e3:6.1f} ms ({speed / 1e9:.2f} GB/s), ratio {took / wanted:.2f}, "
                      f"into as much memory {arriving * 1e3:6.1f} ms, {took / arriving:.2f}; "
                      f"the client waited {(first - again) * 1e3:6.1f} ms more", flush=True)
    ratios, arriving_ratios = ([c[key] for c in changes] for key in ("ratio", "arriving_ratio"))
    if o.json:
        print(json.dumps({"budget": budget, "changes": changes, "median_ratio": statistics.median(ratios),
                          "median_arriving_ratio": statistics.median(arriving_ratios)}))
    else:
        print(f"{len(changes)} changes: ratio {statistics.median(ratios):.2f} (median), {max(ratios):.2f} at most; "
              f"of reading into as much memory {statistics.median(arriving_ratios):.2f}, {max(arriving_ratios):.2f} at most")


if __name__ == "__main__":
    main()
