#!/usr/bin/env python3
"""What each KV codec costs and keeps: bytes, perplexity on the last 60% of a text, decode speed.

    bench/kv_codecs.py MODEL.gguf --text FILE [--codecs bf16,q8,kivi-2] [--depth 4096,16384] [--windows 32]

Perplexity: windows of 2048 tokens, the second half of each scored in chunks of 64 over coded pages.
"""

import argparse
import os
import re
import subprocess
import tempfile

from memory_group import ROOT, last_json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--codecs", help="default: all that snug knows")
    parser.add_argument("--depth", default="4096,16384", help="of decode; empty: no speeds")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--gen", type=int, default=24)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()

    def run(*arguments):
        return last_json(subprocess.check_output([o.snug, *arguments, "--json"], text=True))

    codecs = o.codecs.split(",") if o.codecs else None
    if codecs is None:
        said = subprocess.run([o.snug, "run", "--help"], capture_output=True, text=True).stdout
        names = re.search(r"kept: (.*?), or\s+KEYS", " ".join(said.split())).group(1)
        codecs = [name.strip() for name in names.split(",")]
    with open(o.text, "rb") as f:
        text = f.read()
    depths = [d for d in o.depth.split(",") if d]
    with tempfile.NamedTemporaryFile(suffix=".txt") as unseen:
        unseen.write(text[len(text) * 2 // 5:])
        unseen.flush()
        print("| codec | bytes a token at 2048 | perplexity | change |" + "".join(f" tokens/s at {d} | of bf16 |" for d in depths))
        print("|---|---|---|---|" + "---|---|" * len(depths), flush=True)
        base = None
        for codec in codecs:
            ppl = run("eval", "ppl", o.model, "--text", unseen.name, "--context", "2048", "--max-tokens",
                      str(2048 * o.windows), "--kv", codec)
            speeds = []
            if depths:
                bench = run("bench", o.model, "--prompt", "0", "--depth", ",".join(depths), "--gen", str(o.gen), "--kv", codec)
                speeds = [d["tok_s"] for d in bench["decode"]]
            base = base or (ppl["ppl"], speeds)
            cells = [codec, ppl["kv_bytes_per_token"], f"{ppl['ppl']:.4f}", f"{100 * (ppl['ppl'] / base[0] - 1):+.2f}%"]
            for speed, other in zip(speeds, base[1]):
                cells += [f"{speed:.1f}", f"{speed / other:.2f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
