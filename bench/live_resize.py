#!/usr/bin/env python3
"""One generation whose budget is changed on the way: does the memory follow, and are the logits those of a run left alone?

    bench/live_resize.py MODEL.gguf --sizes 600,160,600

Runs in a memory cgroup of the largest size and 32 MiB. Needs root.
"""

import argparse
import os
import subprocess
import threading
import time

from memory_group import MIB, ROOT, Group, last_json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sizes", default="600,160,600", help="budgets in MiB, the first one at the start")
    parser.add_argument("--every", type=float, default=3, help="seconds between two changes")
    parser.add_argument("--gen", type=int, default=400)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    sizes = [int(s) for s in o.sizes.split(",")]
    command = [o.snug, "run", o.model, "--memory", f"{sizes[0]}MiB", "-c", str(o.context), "-n", str(o.gen),
               "--ignore-eos", "--temp", "0", "--json", "Write about the sea."]
    group = Group((max(sizes) + 32) * MIB)
    code, out, _ = group.run(command)
    alone = last_json(out)

    def resize(child):
        for size in sizes[1:]:
            time.sleep(o.every)
            start = time.monotonic()
            answer = subprocess.run([o.snug, "resize", str(child.pid), f"{size}MiB"], capture_output=True, text=True)
            answered = time.monotonic() - start
            while group.process_bytes() > (size + 8) * MIB and time.monotonic() - start < 10:
                time.sleep(0.01)
            print(f"to {size} MiB: answered after {answered:.2f} s, {group.process_bytes() / MIB:.0f} MiB in the group "
                  f"after {time.monotonic() - start:.2f} s; {(answer.stdout + answer.stderr).strip()}", flush=True)

    code, out, most = group.run(command, started=lambda child: threading.Thread(target=resize, args=(child,)).start())
    group.close()
    changed = last_json(out) if code == 0 else {}
    same = changed.get("logits_hash") == alone["logits_hash"] and changed.get("token_ids") == alone["token_ids"]
    print(f"exit code {code}, {o.gen} tokens, logits and tokens {'the same' if same else 'DIFFERENT'}; most bytes {most / MIB:.0f} MiB; "
          f"{alone['decode_tok_s']:.1f} tokens/s left alone, {changed.get('decode_tok_s', 0):.1f} with the changes")


if __name__ == "__main__":
    main()
