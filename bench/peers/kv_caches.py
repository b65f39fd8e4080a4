#!/usr/bin/env python3
"""KV caches of snug beside those of llama.cpp: decode speed and memory at some depths, perplexity at 2048.

    build/peers/llama/bin/python bench/peers/kv_caches.py MODEL.gguf TEXT [--depth 4096,16384] [--pairs 3]

Perplexity: windows of 2048 tokens, second halves scored (snug in chunks of 64 over coded pages, llama.cpp in one batch
over its quantised cache). Speeds: medians of runs that alternate. Memory: the process' peak.
"""

import argparse
import os
import statistics
import subprocess
import sys

import llama_cpp
from perplexity import ROOT, llama_perplexity

sys.path.insert(0, os.path.join(ROOT, "bench"))
from memory_group import last_json  # noqa: E402

THEIRS = {"f16": 1, "q8_0": 8, "q4_0": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--depth", default="4096,16384")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--ours", default="bf16,q8,q4,kivi-4,kivi-2")
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)

    def run(*command):
        return last_json(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def snug(*arguments):
        return run(o.snug, *arguments, "--json")

    peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_engine.py")
    bench = ["--prompt", "0", "--gen", str(o.gen), "--threads", "2", "--repeat", "1"]
    data = open(o.text, "rb").read()
    rows = [("llama.cpp", kv) for kv in THEIRS] + [("snug", kv) for kv in o.ours.split(",")]
    depths = o.depth.split(",")
    print("| | perplexity |" + "".join(f" tokens/s at {d} | peak MiB at {d} |" for d in depths))
    print("|---|---|" + "---|---|" * len(depths), flush=True)
    speeds, peaks = {}, {}
    for _ in range(o.pairs):
        for engine, kv in rows:
            for depth in depths:
                if engine == "snug":
                    r = snug("bench", o.model, *bench, "--depth", depth, "--kv", kv)
                else:
                    r = run(sys.executable, peer, o.model, *bench, "--depth", depth, "--kv", kv)
                speeds.setdefault((engine, kv, depth), []).append(r["decode"][0]["tok_s"])
                peaks.setdefault((engine, kv, depth), []).append(r["peak_rss_bytes"] / 2**20)
    for engine, kv in rows:
        if engine == "snug":
            ppl = snug("eval", "ppl", o.model, "--text", o.text, "--context", "2048", "--max-tokens", str(2048 * o.windows), "--kv", kv)["ppl"]
        else:
            ppl, _ = llama_perplexity(o.model, data, 2048, 2048 * o.windows, THEIRS[kv])
        cells = [f"{engine} {kv}", f"{ppl:.3f}"]
        for depth in depths:
            cells += [f"{statistics.median(speeds[engine, kv, depth]):.1f}", f"{statistics.median(peaks[engine, kv, depth]):.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


main()
