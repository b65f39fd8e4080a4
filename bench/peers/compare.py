#!/usr/bin/env python3
"""Speed of snug, llama.cpp and ik_llama.cpp on one model, the engines alternating; medians and ratios as a table.

    bench/peers/setup.sh
    bench/peers/compare.py MODEL.gguf --pairs 5 --depth 0,4096,16384
"""

import argparse
import json
import os
import statistics
import subprocess

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def run(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--depth", default="0")
    parser.add_argument("--prefill-depth", default="0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="prefills within a run; the median counts")
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    parser.add_argument("--llama", default=os.path.join(ROOT, "build/peers/llama/bin/python"))
    parser.add_argument("--ik", default=os.path.join(ROOT, "build/peers/ik/bin/python"))
    o = parser.parse_args()

    common = ["--prompt", str(o.prompt), "--gen", str(o.gen), "--threads", str(o.threads), "--repeat", str(o.repeat)]
    peer = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_engine.py"), o.model, "--depth", o.depth]
    peer += ["--prefill-depth", o.prefill_depth]
    commands = {
        "llama.cpp": [o.llama] + peer + common,
        "ik_llama.cpp": [o.ik] + peer + common,
        "snug": [o.snug, "bench", o.model, "--depth", o.depth, "--prefill-depth", o.prefill_depth, "--json"] + common,
    }
    commands = {name: command for name, command in commands.items() if os.path.exists(command[0])}
    seen = {name: {} for name in commands}
    shares = {}

    def note(name, what, value):
        seen[name].setdefault(what, []).append(value)

    for _ in range(o.pairs):
        for name, command in commands.items():
            r = run(command)
            for p in r["prefill"]:
                note(name, f"prefill {o.prompt} at depth {p['depth']}, tokens/s", p["tok_s"])
            for d in r["decode"]:
                note(name, f"decode at depth {d['depth']}, tokens/s", d["tok_s"])
                if name == "snug":
                    shares.setdefault(f"decode at depth {d['depth']}, tokens/s", []).append(d["gb_s"] / r["membw_gb_s"])
            note(name, "load, s", r["load_seconds"])
            note(name, "peak memory, MiB", r["peak_rss_bytes"] / 2**20)

    names = list(commands)
    print(f"{os.path.basename(o.model)}, {o.threads} threads, medians of {o.pairs} alternating runs\n")
    print("| | " + " | ".join(names) + " | snug / better of the others | share of read bandwidth |")
    print("|---|" + "---|" * (len(names) + 2))
    for what in seen["snug"]:
        medians = {n: statistics.median(seen[n][what]) for n in names}
        others = [medians[n] for n in names if n != "snug"]
        ratio = ""
        if others and "tokens/s" in what:
            pairs = zip(seen["snug"][what], *[seen[n][what] for n in names if n != "snug"])
            ratio = f"{statistics.median(p[0] / max(p[1:]) for p in pairs):.2f}"
        share = f"{100 * statistics.median(shares[what]):.0f}%" if what in shares else ""
        print(f"| {what} | " + " | ".join(f"{medians[n]:.4g}" for n in names) + f" | {ratio} | {share} |")


main()
