#!/usr/bin/env python3
"""Does the order matter? One set of requests with shared beginnings, answered by `snug batch` by prefix and in the order
of the input (prefix cache on), in alternating pairs.

    bench/batch_order.py smollm2-135m --memory 224MiB --pairs 3

The set is made with a seed: groups of requests about a text each (a system prompt that all share, then the text), whose
questions and answers differ in length, mixed at random. Answers are as long as they may be, so both orders do the same work.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORDS = """time year people way day man thing woman life child world school state family student group country problem hand part place case
week company system program question work government number night point home water room mother area money story fact month lot right study book
eye job word business issue side kind head house service friend father power hour game line end member law car city community name president team
minute idea body information back parent face others level office door health person art war history party result change morning reason research
girl guy moment air teacher force education""".split()


def words(choose, count):
    return " ".join(choose.choice(WORDS) for _ in range(count))


def make_set(o):
    choose = random.Random(o.seed)
    system = "Answer the question about the text. " + words(choose, o.system_words)
    requests = []
    for group in range(o.groups):
        text = words(choose, round(o.text_words * choose.uniform(0.6, 1.4)))
        # Some groups ask for long answers, others for short ones.
        longest = choose.choice([o.most_tokens // 4, o.most_tokens])
        for _ in range(o.questions):
            question = "Text: " + text + "\nQuestion: " + words(choose, choose.randint(5, 60)) + "?"
            requests.append({"messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
                             "max_tokens": choose.randint(4, longest), "temperature": 0, "ignore_eos": True})
    choose.shuffle(requests)
    return [{"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body} for i, body in enumerate(requests)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", default="224MiB")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--questions", type=int, default=12, help="of each group")
    parser.add_argument("--system-words", type=int, default=40)
    parser.add_argument("--text-words", type=int, default=600)
    parser.add_argument("--most-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--max-batch", help="the same for both (default: as many as memory has room for)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        given, answers = os.path.join(folder, "in.jsonl"), {}
        with open(given, "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in make_set(o))
        for pair in range(o.pairs):
            seconds = {}
            for order in ("prefix", "input") if pair % 2 == 0 else ("input", "prefix"):
                out = os.path.join(folder, order + ".jsonl")
                command = [o.snug, "batch", o.model, given, out, "--memory", o.memory, "-c", str(o.context), "--order", order, "--no-pressure", "--json"]
                result = subprocess.run(command + (["--max-batch", o.max_batch] if o.max_batch else []), stdout=subprocess.PIPE, text=True, check=True)
                s = json.loads(result.stdout)
                seconds[order] = s["seconds"]
                if s["failed"]:
                    raise SystemExit(f"{s['failed']} requests failed: {o.memory} is too little")
                with open(out) as f:
                    texts = [json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] for line in f]
                same = answers.setdefault("texts", texts) == texts
                plan = f", {s['plan_seconds']:.2f} s of them to plan {s['plan']['groups']} groups, {s['plan']['distinct_tokens']} tokens differ" if order == "prefix" else ""
                print(f"pair {pair + 1}, {order:6}: {s['seconds']:7.1f} s, {s['tok_s']:6.1f} tokens/s, {s['prompt_tokens_read']} tokens of prompts read, "
                      f"{s['prompt_tokens_shared']} shared, at most {s['max_batch']} at a time, answers {'the same' if same else 'DIFFERENT'}{plan}", flush=True)
            ratios.append(seconds["input"] / seconds["prefix"])
    print(f"by prefix {statistics.median(ratios):.2f} times as fast (median of {len(ratios)}: {', '.join(f'{r:.2f}' for r in sorted(ratios))})")


if __name__ == "__main__":
    main()
