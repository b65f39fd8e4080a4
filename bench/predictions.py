#!/usr/bin/env python3
"""What `snug plan` foresees beside what happens: speed and peak bytes over models, budgets and contexts, each run in a
memory cgroup of the budget and 32 MiB, caches dropped before.

    bench/predictions.py MODEL.gguf:96,160,256,600:512,4096 OTHER.gguf:48,96:1024 ...
"""

import argparse
import os
import statistics
import sys

from memory_group import MIB, ROOT, Group, last_json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", metavar="MODEL:BUDGETS:CONTEXTS", help="budgets in MiB")
    parser.add_argument("--runs", type=int, default=3, help="of each case; the median counts")
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    print("| model | budget, MiB | context | foreseen, tokens/s | decode, tokens/s | difference | foreseen, MiB | peak, MiB | difference |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    wrong = count = 0
    for case in o.cases:
        model, budgets, contexts = case.rsplit(":", 2)
        for budget in map(int, budgets.split(",")):
            for context in map(int, contexts.split(",")):
                # The context is full at the end: that is what the plan's bytes are for.
                prompt = "one two three four five six seven eight nine ten " * max(1, (context - o.gen - 10) // 10)
                speeds, foreseen = [], []
                for _ in range(o.runs):
                    group = Group(budget * MIB + 32 * MIB)
                    code, out, kernel = group.run(
                        [o.snug, "run", model, "--memory", str(budget * MIB), "-c", str(context), "-n", str(o.gen),
                         "--ignore-eos", "--temp", "0", "--raw", "--json", prompt])
                    group.close()
                    if code != 0:
                        sys.exit(f"{model} in {budget} MiB: exit code {code}")
                    r = last_json(out)
                    speeds.append(r["decode_tok_s"])
                    foreseen.append(r["plan"]["predicted_tok_s"])
                plan, peak = r["plan"], r["ledger"]["peak"]
                # Each run beside what it foresaw itself: the machine changes between runs.
                off = statistics.median(f / s for f, s in zip(foreseen, speeds)) - 1
                off_bytes = plan["used"] / peak - 1
                count += 1
                wrong += abs(off) > 0.15 or abs(off_bytes) > 0.05
                print(f"| {os.path.basename(model)} | {budget} | {context} | {statistics.median(foreseen):.1f} | "
                      f"{statistics.median(speeds):.1f} | "
                      f"{100 * off:+.0f}% | {plan['used'] / MIB:.0f} | {peak / MIB:.0f} | {100 * off_bytes:+.1f}% |", flush=True)
    print(f"\n{count - wrong} of {count} cases within 15% in speed and 5% in bytes")


if __name__ == "__main__":
    main()
