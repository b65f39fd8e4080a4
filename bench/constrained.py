#!/usr/bin/env python3
"""Do answers follow their JSON schemas, and what does that cost? Every answer that ends by itself is checked by the
`jsonschema` package; then answers are timed alone, in pairs with and without their schema, of as many tokens.

    python3 -m venv build/constrained && build/constrained/bin/pip install openai 'jsonschema[format]'
    build/constrained/bin/python bench/constrained.py qwen2.5-coder-0.5b
"""

import argparse
import collections
import concurrent.futures
import json
import os
import statistics
import subprocess
import time

import jsonschema
import openai

from random_schemas import random_schemas

VALIDATOR = jsonschema.Draft202012Validator
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def wanted(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def prompt_of(kind, schema):
    return [{"role": "user", "content": f"Make up a short example of this JSON schema ({kind}): {json.dumps(schema)}"}]


class Asker:
    def __init__(self, url, model):
        self.client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=300)
        self.model = model

    def ask(self, kind, schema, most, **more):
        return self.client.chat.completions.create(model=self.model, messages=prompt_of(kind, schema), max_tokens=most, **more)

    def checked(self, kind, schema, temperature, seed, most):
        """"valid", "cut" at the limit of tokens, or what is wrong."""
        try:
            choice = self.ask(kind, schema, most, temperature=temperature, seed=seed, response_format=wanted(schema)).choices[0]
        except openai.APIStatusError as e:
            return f"refused: {e.message}"
        if choice.finish_reason != "stop":
            return "cut"
        try:
            VALIDATOR(schema, format_checker=VALIDATOR.FORMAT_CHECKER).validate(json.loads(choice.message.content))
            return "valid"
        except (ValueError, jsonschema.ValidationError) as e:
            return f"invalid: {str(e).splitlines()[0]} in {choice.message.content!r}"

    def decode(self, kind, schema, most, constrained):
        """Tokens after the first, and the seconds they took."""
        more = {"response_format": wanted(schema)} if constrained else {"extra_body": {"ignore_eos": True}}
        stream = self.ask(kind, schema, most, temperature=0, stream=True, stream_options={"include_usage": True}, **more)
        times, tokens = [], 0
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                times.append(time.perf_counter())
            if chunk.usage:
                tokens = chunk.usage.completion_tokens
        return tokens, times[-1] - times[0] if len(times) > 1 else 0


def check_all(asker, schemas, o):
    jobs = [(kind, schema, temperature, seed) for seed, (kind, schema) in enumerate(schemas) for temperature in (0, 1)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda j: asker.checked(*j, o.max_tokens), jobs))
    counts = collections.Counter(result.split(":")[0] for result in results)
    for (kind, _, temperature, seed), result in zip(jobs, results):
        if result not in ("valid", "cut"):
            print(f"  schema {seed} ({kind}), temperature {temperature}: {result[:300]}")
    print(f"{len(schemas)} schemas, {len(jobs)} answers: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    return counts["valid"] + counts["cut"] == len(jobs)


def measure(asker, schemas, o):
    chosen = []
    for kind, schema in schemas:
        tokens, _ = asker.decode(kind, schema, o.max_tokens, True)  # also reads the prompt, for both
        if tokens >= o.least:
            chosen.append((kind, schema, tokens))
        if len(chosen) == o.pairs:
            break
    ratios, sums = [], {True: [0, 0.0], False: [0, 0.0]}
    for i, (kind, schema, tokens) in enumerate(chosen):
        speed = {}
        for constrained in ((True, False) if i % 2 else (False, True)) * o.repeat:
            n, seconds = asker.decode(kind, schema, tokens, constrained)
            assert n == tokens, (n, tokens)
            speed[constrained] = max(speed.get(constrained, 0), (n - 1) / seconds)
            sums[constrained][0] += n - 1
            sums[constrained][1] += seconds
        ratios.append(speed[False] / speed[True] - 1)
        if o.verbose:
            print(f"  {kind}: {tokens} tokens, {speed[False]:.1f} without, {speed[True]:.1f} with, {ratios[-1]:+.1%}")
    with_, without = sums[True][0] / sums[True][1], sums[False][0] / sums[False][1]
    print(f"{len(chosen)} pairs of at least {o.least} tokens, {o.repeat} times: {without:.1f} tokens/s without, {with_:.1f} with: "
          f"{without / with_ - 1:+.1%} of time; by pair (best of {o.repeat}) median {statistics.median(ratios):+.1%}, "
          f"worst {max(ratios):+.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=250)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--least", type=int, default=24, help="tokens of an answer that is timed")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["check", "measure"])
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    schemas = random_schemas(o.schemas, o.seed)
    server = subprocess.Popen([o.snug, "serve", o.model, "--port", "0", "-c", "4096"], stdout=subprocess.PIPE, text=True)
    try:
        asker = Asker(server.stdout.readline().split()[3].removesuffix("/v1"), o.model)
        good = o.only == "measure" or check_all(asker, schemas, o)
        if o.only != "check":
            measure(asker, schemas, o)
    finally:
        server.terminate()
        server.wait()
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
