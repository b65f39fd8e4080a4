#!/usr/bin/env python3
"""Speed and memory of snug in every budget, each run in a memory cgroup of the budget and 32 MiB, caches dropped before.

    docs/budgets.py MODEL.gguf --svg docs/budgets.svg --llama build/peers/llama/bin/python

Checks that the logits are those of a run with all the memory there is, and that nothing is killed. With --llama the same
for llama.cpp (mmap) beside it. Needs root: it makes cgroups (v1 or v2) and drops the page cache.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
from log_chart import LogChart  # noqa: E402
from memory_group import MIB, ROOT, Group, last_json  # noqa: E402

SUBJECTS = ["a quicksort in Python", "the moons of Jupiter", "bread", "TCP", "a haiku about rain", "binary search in C",
            "why the sky is blue", "a letter to a landlord", "the French revolution", "regular expressions", "chess",
            "a recipe for soup", "prime numbers", "how a bicycle stays up", "SQL joins", "the sea", "a for loop in Rust",
            "photosynthesis", "a joke", "the number pi"]


def snug_command(o, budget, i):
    return [o.snug, "run", o.model, "--memory", str(budget), "-c", str(o.context), "-n", str(o.gen), "--ignore-eos",
            "--temp", "0", "--json", f"Write about {SUBJECTS[i]}."]


def measure_snug(o, budget, expected):
    speeds, off = [], 0.0
    for i in range(o.prompts):
        group = Group(budget + 32 * MIB)
        code, out, kernel = group.run(snug_command(o, budget, i))
        group.close()
        if code != 0:
            return {"killed": code}
        r = last_json(out)
        if r["logits_hash"] != expected[i]:
            sys.exit(f"different logits in {budget // MIB} MiB, prompt {i}")
        speeds.append(r["decode_tok_s"])
        off = max(off, abs(kernel - r["ledger"]["peak"]), key=abs)
        ledger = r["ledger"]["peak"]
    return {"tok_s": statistics.median(speeds), "ledger": ledger, "kernel": kernel, "off": off,
            "plan": r.get("plan", {}).get("predicted_tok_s", 0)}


def measure_llama(o, budget):
    group = Group(budget + 32 * MIB)
    code, out, _ = group.run([o.llama, os.path.join(ROOT, "bench/peers/peer_engine.py"), o.model, "--prompt", "8",
                              "--repeat", "1", "--gen", str(o.gen), "--depth", "32", "--threads", "2"])
    group.close()
    return {"killed": code} if code != 0 else {"tok_s": last_json(out)["decode"][0]["tok_s"]}


def draw(path, title, series):
    """A line per engine over the budget, logarithmic tokens/s; killed where it was."""
    xs = [b for points in series.values() for b, _ in points]
    ys = [p["tok_s"] for points in series.values() for _, p in points if "tok_s" in p]
    decades = 10.0 ** math.floor(math.log10(min(ys))), 10.0 ** math.ceil(math.log10(max(ys)))
    chart = LogChart(title, "memory budget, MiB", "tokens/s", (min(xs), max(xs)), decades)
    for budget in sorted(set(xs)):
        chart.label_x(budget, size=9)
    for i, (name, points) in enumerate(series.items()):
        color = ["#0b6e4f", "#b5482a", "#555"][i % 3]
        good = [(b, p["tok_s"]) for b, p in points if "tok_s" in p]
        chart.line(good, color, 2)
        for budget, speed in good:
            chart.dot(budget, speed, color)
        chart.add(*(f'<text x="{chart.x(b):.1f}" y="{chart.HEIGHT - chart.BOTTOM - 4}" text-anchor="middle" fill="{color}">killed</text>'
                    for b, p in points if "tok_s" not in p))
        chart.add(f'<text x="{chart.LEFT + 12}" y="{48 + 16 * i}" fill="{color}">{name}</text>')
    chart.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--from", dest="first", type=int, default=96, help="smallest budget in MiB")
    parser.add_argument("--to", dest="last", type=int, default=600)
    parser.add_argument("--step", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--gen", type=int, default=16)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    parser.add_argument("--llama", help="an interpreter with llama-cpp-python")
    parser.add_argument("--svg")
    o = parser.parse_args()

    expected = []
    for i in range(o.prompts):
        out = subprocess.run(snug_command(o, 8 << 30, i), check=True, capture_output=True, text=True).stdout
        expected.append(last_json(out)["logits_hash"])
    print(f"{os.path.basename(o.model)}, context {o.context}, {o.prompts} prompts of {o.gen} tokens each; medians; bytes in MiB\n")
    print("| budget | tokens/s | predicted | ledger's peak | kernel's peak | largest difference | llama.cpp, tokens/s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    series = {"snug": [], "llama.cpp (mmap)": []}
    for budget in range(o.first, o.last + 1, o.step):
        r = measure_snug(o, budget * MIB, expected)
        series["snug"].append((budget, r))
        cells = [budget, "killed", "", "", "", "", ""]
        if "tok_s" in r:
            cells = [budget, f"{r['tok_s']:.1f}", f"{r['plan']:.1f}", f"{r['ledger'] / MIB:.0f}",
                     f"{r['kernel'] / MIB:.0f}", f"{r['off'] / MIB:.1f}", ""]
        if o.llama:
            peer = measure_llama(o, budget * MIB)
            series["llama.cpp (mmap)"].append((budget, peer))
            cells[-1] = f"{peer['tok_s']:.2f}" if "tok_s" in peer else f"exit code {peer['killed']}"
        print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)
    if not o.llama:
        del series["llama.cpp (mmap)"]
    if o.svg:
        draw(o.svg, f"{os.path.basename(o.model)} in a memory cgroup", series)


if __name__ == "__main__":
    main()
