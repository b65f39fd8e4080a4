#!/usr/bin/env python3
"""What `snug serve` does under load, scenario by scenario: servers that differ in one thing get the same requests, in turns.

    bench/serving.py SCENARIO... [--pairs 3] [--snug build/release/snug]

shared      16 users with one system prompt, twice in a row (cold, warm), and one user
kv          bf16 and kivi-2 at one small budget
lengths     room kept for usual answers (S3) and for the longest ones
turns       conversations over tiers (Pensieve) and read again, both with the prefix cache on
preemption  sequences swapped in groups in the background (FastSwitch), and page by page
memory      64 users where ten fit, in a memory cgroup (needs root)
same        greedy answers alone, again, together, after swaps and after a restart with --kv-dir
"""

import argparse
import concurrent.futures
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from memory_group import MIB, ROOT, Group

MODEL = "qwen2.5-coder-0.5b"
PORT = 8123


class Server:
    """snug serve with some options; watches what its metrics say."""

    def __init__(self, snug, options, group=None, model=MODEL):
        command = [snug, "serve", model, "--port", str(PORT), "--no-pressure", *options]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                      preexec_fn=(lambda: group.write("cgroup.procs", os.getpid())) if group else None)
        self.child.stdout.readline()
        self.most, self.running = {}, True
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def metrics(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=20).read().decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^(snug_\w+) ([-+.e0-9]+)$", text, re.M)}

    def watch(self):
        while self.running:
            try:
                for name, value in self.metrics().items():
                    self.most[name] = max(self.most.get(name, 0), value)
            except OSError:
                pass
            time.sleep(0.25)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.running = False
        self.watcher.join()
        self.child.terminate()
        self.child.wait()


def load(snug, *options):
    out = subprocess.run([snug, "bench-serve", f"http://127.0.0.1:{PORT}/v1", "--json", *map(str, options)],
                         capture_output=True, text=True)
    if not out.stdout:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout)


def show(name, results, servers):
    def middle(f):
        return statistics.median(f(r) for r in results)

    first, between, whole = "first_token_seconds", "between_tokens_seconds", "answer_seconds"
    print(f"{name:34} {middle(lambda r: r['tok_s']):7.1f} tokens/s  "
          f"first {middle(lambda r: r[first]['p50']):6.2f} p95 {middle(lambda r: r[first]['p95']):6.2f} s  "
          f"between p50 {1000 * middle(lambda r: r[between]['p50']):6.1f} p99 {1000 * middle(lambda r: r[between]['p99']):7.1f} ms  "
          f"answer p90 {middle(lambda r: r[whole]['p90']):6.2f} s  failed {max(r['failed'] for r in results)}  "
          f"at work {max(s.most.get('snug_requests_running', 0) for s in servers):.0f}  "
          f"preempted {max(s.most.get('snug_requests_preempted_total', 0) for s in servers):.0f}", flush=True)


def compare(o, variants, requests, before=None):
    """Each variant in turn, `pairs` times, after a load that is not measured; ratios of the first to the second."""
    results, servers = {name: [] for name in variants}, {name: [] for name in variants}
    for _ in range(o.pairs):
        for name, options in variants.items():
            with Server(o.snug, options) as server:
                if before:
                    load(o.snug, *before)
                results[name].append(load(o.snug, *requests))
                time.sleep(0.5)
            servers[name].append(server)
    for name in variants:
        show(name, results[name], servers[name])
    a, b = list(variants)

    def ratio(f):
        return statistics.median(f(x) / f(y) for x, y in zip(results[a], results[b]))

    print(f"{a} / {b}: tokens/s {ratio(lambda r: r['tok_s']):.2f}, "
          f"answer p90 {ratio(lambda r: r['answer_seconds']['p90']):.2f}, "
          f"between tokens p99 {ratio(lambda r: r['between_tokens_seconds']['p99']):.2f}", flush=True)


def shared(o):
    users = ["--max-tokens", 48, "--ignore-eos", "--prompt-words", 740]
    cold, warm, one, servers = [], [], [], []
    for _ in range(o.pairs):
        with Server(o.snug, ["-c", "4096"]) as server:
            cold.append(load(o.snug, "--users", 16, *users))
            warm.append(load(o.snug, "--users", 16, *users))
            one.append(load(o.snug, "--users", 1, *users))
        servers.append(server)
    for name, results in (("cold", cold), ("warm", warm), ("one user", one)):
        show(name, results, servers)


def kv(o):
    # Room for two users in bf16. Everybody's answer is as long as is allowed, so nobody comes in who would have to leave.
    common = ["-c", "2048", "--memory", f"{o.base + 40}MiB", "--swap", "0", "--reserve-longest"]
    compare(o, {"kivi-2": [*common, "--kv", "kivi-2"], "bf16": common},
            ["--kind", "own-prefix", "--users", 12, "--prompt-words", 160, "--max-tokens", 1200, "--ignore-eos"])


def lengths(o):
    # Answers end where the model ends them. Enough users that the last answer, alone at its end, weighs little.
    common = ["-c", "2048", "--memory", f"{o.base + 60}MiB", "--swap", "0"]
    compare(o, {"usual lengths": common, "longest lengths": [*common, "--reserve-longest"]},
            ["--kind", "own-prefix", "--users", o.users, "--prompt-words", 10, "--ask", "Write a few sentences with these words:",
             "--max-tokens", 1800, "--temperature", 1, "--timeout", 900])


def turns(o):
    common = ["-c", "4096", "--memory", f"{o.base + 80}MiB"]
    compare(o, {"tiers": common, "read again": [*common, "--swap", "0"]},
            ["--kind", "multi-turn", "--users", 16, "--turns", 5, "--prompt-words", 1500, "--max-tokens", 24,
             "--ignore-eos", "--rate", 4, "--think", 1, "--timeout", 900])


def preemption(o):
    # Prompts are there already, so that reading them does not hide what swapping costs; turns are long enough that less
    # than one token in a hundred waits for the next one. Users come one after the other: whose turns end together are away
    # together, and nobody is left at work whom the swapping could hold up.
    common = ["-c", "8192", "--memory", f"{o.base + 220}MiB", "--turn", "160"]
    users = ["--kind", "own-prefix", "--users", 6, "--prompt-words", 4000, "--ignore-eos", "--timeout", 900, "--rate", 0.4]
    compare(o, {"groups": common, "pages": [*common, "--swap-pages"]},
            [*users, "--max-tokens", 640], before=[*users, "--max-tokens", 1])


def memory(o):
    budget = o.base + 10 * 24  # ten of 2048 tokens, 24 MiB each
    group = Group((budget + 8) * MIB)
    try:
        with Server(o.snug, ["-c", "2048", "--memory", f"{budget}MiB"], group) as server:
            result = load(o.snug, "--kind", "own-prefix", "--users", 64, "--prompt-words", 1100, "--max-tokens", 200,
                          "--ignore-eos", "--timeout", 900)
            show("64 users", [result], [server])
            most = server.most["snug_memory_used_bytes"] / MIB
            print(f"ledger {most:.1f} of {budget} MiB at most, kernel {group.process_bytes() / MIB:.1f} MiB")
    finally:
        group.close()


def answer(prompt):
    body = {"prompt": prompt, "max_tokens": 64, "temperature": 0, "logprobs": 1}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=600) as response:
        out = json.load(response)
    return out["choices"][0]["logprobs"]["tokens"], out["usage"]["prompt_tokens_details"]["cached_tokens"]


def same(o):
    subjects = ["the sea", "bread", "prime numbers", "a lost key", "sorting arrays", "the moon", "old trains", "rain"]
    prompts = [f"Chapter {i}. " + f"Everything there is to know about {subjects[i % 8]}, in {i + 2} parts. " * (8 + 3 * i) for i in range(16)]

    def together():
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as threads:
            return list(threads.map(answer, prompts))

    def check(what, answers, detail=""):
        equal = sum(tokens == expected[0] for (tokens, _), expected in zip(answers, alone))
        print(f"{what:40} {equal} of {len(alone)} the same, {sum(cached for _, cached in answers)} tokens were there {detail}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        kept = ["-c", "2048", "--kv-dir", folder]
        with Server(o.snug, kept):
            alone = [answer(prompt) for prompt in prompts]
            check("again, one after the other", [answer(prompt) for prompt in prompts])
            check("again, 16 at a time", together())
        with Server(o.snug, kept):
            check("after a restart with --kv-dir", together())
    with Server(o.snug, ["-c", "2048"]):
        check("16 at a time, nothing there", together())
    with Server(o.snug, ["-c", "2048", "--memory", f"{o.base + 40}MiB", "--turn", "16"]) as server:
        answers = together()
        check("in little memory", answers, f"(preempted {server.metrics()['snug_requests_preempted_total']:.0f} times)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", choices=["shared", "kv", "lengths", "turns", "preemption", "memory", "same"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--base", type=int, default=520, help="MiB that the model takes without any sequence")
    parser.add_argument("--users", type=int, default=144, help="of lengths")
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    for scenario in o.scenarios:
        print(f"== {scenario}", flush=True)
        globals()[scenario](o)


if __name__ == "__main__":
    main()
