#!/usr/bin/env python3
"""What each KV codec keeps and costs: bits, perplexity and divergence on the last 60% of a text, decode speed.

    bench/kv_codecs.py MODEL.gguf --text FILE [--codecs bf16,q8,kivi-2] [--depth 4096,16384] [--windows 32]
    bench/kv_codecs.py MODEL.gguf --text FILE --depth "" --svg docs/kv_quality.svg

Perplexity: windows of 2048 tokens, the second half of each scored in chunks of 64 over coded pages. Divergence (--kl
TOKENS) is from the model in f32. Bits per element: what the ledger holds at the largest depth, or what is foreseen at
16384 tokens. Results are kept in --results, one JSON object per codec, and not measured again when they are there.
"""

import argparse
import json
import math
import os
import re
import subprocess
import tempfile

from log_chart import LogChart
from memory_group import ROOT, last_json


def draw(path, title, points):
    """points: (name, bits, change of perplexity in %). What no other beats in both is joined."""
    floor = 0.05  # less than that cannot be told from noise
    points = [(name, bits, max(change, floor)) for name, bits, change in points]
    most_bits, most_change = (max(p[i] for p in points) for i in (1, 2))
    chart = LogChart(title, "bits per element", "perplexity above bf16, %", (0, most_bits + 1), (floor, 10.0 ** math.ceil(math.log10(most_change))))
    chart.label_y(floor, f"≤ {floor:g}")
    for bits in range(0, int(most_bits) + 1, 2):
        chart.label_x(bits)
    front = []
    for point in sorted(points, key=lambda p: p[1:]):
        if not front or point[2] < front[-1][2]:
            front.append(point)
    chart.line([p[1:] for p in front], "#0b6e4f", 1)
    for point in points:
        name, bits, change = point
        color = "#0b6e4f" if point in front else "#b5482a"
        chart.dot(bits, change, color)
        chart.add(f'<text x="{chart.x(bits) + 6:.1f}" y="{chart.y(change) - 5:.1f}" fill="{color}" font-size="11">{name}</text>')
    chart.save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--codecs", help="default: all that snug knows")
    parser.add_argument("--depth", default="4096,16384", help="of decode; empty: no speeds")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--kl", type=int, default=0, help="tokens; 0: no divergence")
    parser.add_argument("--gen", type=int, default=24)
    parser.add_argument("--results", help="a file")
    parser.add_argument("--svg", help="draws quality against bytes")
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()

    def run(*arguments):
        return last_json(subprocess.check_output([o.snug, *arguments, "--json"], text=True))

    codecs = o.codecs.split(",") if o.codecs else None
    if codecs is None:
        said = subprocess.run([o.snug, "run", "--help"], capture_output=True, text=True).stdout
        names = re.search(r"kept: (.*?), or\s+KEYS", " ".join(said.split())).group(1)
        codecs = [name.strip() for name in names.split(",")]
    known = {}
    if o.results and os.path.exists(o.results):
        with open(o.results) as f:
            known = {r["codec"]: r for r in map(json.loads, f)}
    with open(o.text, "rb") as f:
        text = f.read()
    depths = [d for d in o.depth.split(",") if d]

    def measure(codec, unseen):
        r = {"codec": codec}
        text_of = ["--text", unseen, "--kv", codec]
        r["ppl"] = run("eval", "ppl", o.model, *text_of, "--context", "2048", "--max-tokens", str(2048 * o.windows))["ppl"]
        if o.kl:
            r["kl"] = run("eval", "kl", o.model, *text_of, "--context", "2048", "--max-tokens", str(o.kl))["mean_kl"]
        # The first row warms up: what it touches is not the cache's.
        bench = run("bench", o.model, "--prompt", "0", "--depth", ",".join(["512", *(depths or ["1024"])]), "--gen", str(o.gen), "--kv", codec)
        r["speeds"] = [d["tok_s"] for d in bench["decode"][1:]] if depths else []
        last = bench["decode"][-1]
        r.update({key: last[key] for key in ("depth", "kv_bytes", "kv_charged_bytes", "resident_growth_bytes")})
        return r

    rows = []
    with tempfile.NamedTemporaryFile(suffix=".txt") as unseen:
        unseen.write(text[len(text) * 2 // 5:])
        unseen.flush()
        print("| codec | bits per element | foreseen, MB | ledger | process grows by | perplexity | change | KL |" + "".join(f" tokens/s at {d} | of bf16 |" for d in depths))
        print("|---|---|---|---|---|---|---|---|" + "---|---|" * len(depths), flush=True)
        for codec in codecs:
            r = known.get(codec) or measure(codec, unseen.name)
            if o.results and codec not in known:
                with open(o.results, "a") as f:
                    f.write(json.dumps(r) + "\n")
            rows.append(r)
            base = rows[0]
            bits, change = 16 * r["kv_bytes"] / base["kv_bytes"], 100 * (r["ppl"] / base["ppl"] - 1)
            cells = [codec, f"{bits:.2f}", *(f"{r[k] / 1e6:.1f}" for k in ("kv_bytes", "kv_charged_bytes", "resident_growth_bytes")),
                     f"{r['ppl']:.4f}", f"{change:+.2f}%", f"{r['kl']:.4f}" if "kl" in r else ""]
            for speed, other in zip(r["speeds"], base["speeds"]):
                cells += [f"{speed:.1f}", f"{speed / other:.2f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if o.svg:
        base = rows[0]
        draw(o.svg, f"{os.path.basename(o.model)}: KV codecs, {o.windows} windows of 2048 tokens",
             [(r["codec"], 16 * r["kv_bytes"] / base["kv_bytes"], 100 * (r["ppl"] / base["ppl"] - 1)) for r in rows])


if __name__ == "__main__":
    main()
