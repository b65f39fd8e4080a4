#!/usr/bin/env python3
"""A prompt in a budget that weights are streamed in, beside the same prompt with all of them in memory, by turns, each in a
memory cgroup of the budget and 32 MiB, caches dropped before.

    bench/streamed_prefill.py MODEL.gguf --memory 288 --text FILE --runs 5

The prompt is as much of the text as makes at most 512 tokens: one pass, which should read every weight once.
"""

import argparse
import os
import statistics

from memory_group import MIB, ROOT, Group, disk_speed, last_json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--memory", type=int, default=288, help="budget in MiB")
    parser.add_argument("--resident", type=int, default=4096, help="budget of the other run")
    parser.add_argument("-c", "--context", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    o = parser.parse_args()

    def run(memory, prompt):
        group = Group((memory + 32) * MIB)
        code, out, _ = group.run([f"{o.build}/snug", "run", o.model, "--memory", f"{memory}MiB", "-c", str(o.context), "-n", "1",
                                  "--temp", "0", "--ignore-eos", "--raw", "--json", prompt])
        group.close()
        if code != 0:
            raise SystemExit(f"exit code {code}")
        r = last_json(out)
        return r["prompt_tokens"], r["prompt_tokens"] / r["prefill_tok_s"], r

    with open(o.text, encoding="utf-8") as f:
        text = f.read(8192)
    length = 2400
    while (tokens := run(o.resident, text[:length])[0]) > 512:
        length = length * 512 // tokens
    print("| tokens | streamed, s | the disk alone, s | in memory, s | streamed / the longer of the two | late reads | same logits |")
    print("|---|---|---|---|---|---|---|", flush=True)
    ratios = []
    for _ in range(o.runs):
        tokens, streamed, r = run(o.memory, text[:length])
        _, resident, other = run(o.resident, text[:length])
        disk = r["plan"]["streamed_bytes_per_token"] / disk_speed(o.build, o.model, 1)
        ratios.append(streamed / max(resident, disk))
        print(f"| {tokens} | {streamed:.3f} | {disk:.3f} | {resident:.3f} | {ratios[-1]:.2f} | {r['streaming']['late']} | "
              f"{'yes' if r['logits_hash'] == other['logits_hash'] else 'NO'} |", flush=True)
    print(f"\nmedian: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
