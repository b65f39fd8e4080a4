#!/usr/bin/env python3
"""How much of the disk a streaming run uses: the disk is measured before and after each run, with the reads that
streaming asks for, and the run is in a memory cgroup of the budget and 32 MiB, caches dropped before.

    bench/disk_bound.py MODEL.gguf --memory 256 -c 1024 --gen 48 --runs 5
"""

import argparse
import os
import statistics

from memory_group import MIB, ROOT, Group, disk_speed, last_json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", type=int, default=256, help="budget in MiB")
    parser.add_argument("-c", "--context", type=int, default=1024)
    parser.add_argument("--gen", type=int, default=48)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement of the disk")
    parser.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    parser.add_argument("--prompt", default="Write a C function that reverses a string.")
    o = parser.parse_args()

    def disk():
        return disk_speed(o.build, o.model, o.seconds)

    print("| decode, tokens/s | foreseen | read per token, MB | GB/s | disk before, after, GB/s | share | logits |")
    print("|---|---|---|---|---|---|---|", flush=True)
    shares, speeds, before = [], [], disk()
    for _ in range(o.runs):
        group = Group((o.memory + 32) * MIB)
        code, out, _ = group.run([f"{o.build}/snug", "run", o.model, "--memory", f"{o.memory}MiB", "-c", str(o.context),
                                  "-n", str(o.gen), "--temp", "0", "--ignore-eos", "--raw", "--json", o.prompt])
        group.close()
        if code != 0:
            raise SystemExit(f"exit code {code}")
        r = last_json(out)
        after = disk()
        speed = r["decode_tok_s"]
        each = r["plan"]["streamed_bytes_per_token"]
        if r["experts"]["bytes_read"]:
            # What was really read: hits are not known beforehand.
            each = r["experts"]["bytes_read"] / (r["prompt_tokens"] + r["generated_tokens"])
        share = speed * each / ((before + after) / 2)
        shares.append(share)
        speeds.append(speed)
        print(f"| {speed:.2f} | {r['plan']['predicted_tok_s']:.2f} | {each / 1e6:.0f} | {speed * each / 1e9:.2f} | "
              f"{before / 1e9:.2f}, {after / 1e9:.2f} | {100 * share:.0f}% | {r['logits_hash']} |", flush=True)
        before = after
    print(f"\nmedians: {statistics.median(speeds):.2f} tokens/s, {100 * statistics.median(shares):.0f}% of the disk")


if __name__ == "__main__":
    main()
