#!/usr/bin/env python3
"""Decode speed of llama.cpp (mmap) in a memory cgroup, caches dropped before: as it comes, and with the weights as they lie in
the file (without the repacked copy that it makes of them). Needs root.

    bench/peers/in_budget.py MODEL.gguf --memory 1536 --gen 4
"""

import argparse
import os
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "bench"))
from memory_group import MIB, Group, last_json  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", type=int, required=True, help="MiB; the cgroup has 32 more")
    parser.add_argument("--gen", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=120, help="then it is stopped")
    parser.add_argument("--python", default=os.path.join(ROOT, "build/peers/llama/bin/python"))
    o = parser.parse_args()
    for repack in (True, False):
        group = Group((o.memory + 32) * MIB)
        command = ["timeout", str(o.seconds), o.python, os.path.join(ROOT, "bench/peers/peer_engine.py"), o.model, "--prompt", "8",
                   "--repeat", "1", "--gen", str(o.gen), "--depth", "8"]
        code, out, _ = group.run(command + ([] if repack else ["--no-repack"]))
        group.close()
        said = {0: lambda: f"{last_json(out)['decode'][0]['tok_s']:.3f} tokens/s", 124: lambda: f"not done after {o.seconds} s"}
        print(f"{'as it comes' if repack else 'weights as in the file'}: {said.get(code, lambda: f'exit code {code}')()}", flush=True)


if __name__ == "__main__":
    main()
