#!/usr/bin/env python3
"""What Redis between replicas of `snug serve` is worth: time to the first token of a prompt that another replica has read, with and without it.

    bench/redis.py [--words 950,3900] [--pairs 5] [--model qwen2.5-coder-0.5b] [--snug build/release/snug]

A redis-server on the loopback (so its network is as fast as memory), three servers: one reads each prompt first, one shares Redis with
it, one is alone. The latter two are asked in turns, with prompts that nobody has seen before.
"""

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORDS = "the sea a ship storm harbour old new light far home wind rope sail night morning".split()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Server:
    def __init__(self, o, *options):
        command = [o.snug, "serve", o.model, "--port", "0", "-c", "8192", "--memory", o.memory, *options]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(self.child.stdout.readline().split(":")[2].split("/")[0])

    def redis(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/snug/status")
        return json.loads(connection.getresponse().read())["redis"]

    def ask(self, prompt):
        """Seconds to the first token, tokens of the prompt, and how many of them were there."""
        body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        begin = time.time()
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        first, events = None, []
        while line := response.readline():
            if line.startswith(b"data: {"):
                events.append(json.loads(line[6:]))
                if first is None and events[-1]["choices"] and events[-1]["choices"][0]["text"]:
                    first = time.time() - begin
        usage = events[-1]["usage"]
        text = "".join(e["choices"][0]["text"] for e in events if e["choices"])
        return first, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", default="950,3900")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    port = free_port()
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
    servers = []
    try:
        time.sleep(1)
        servers += [Server(o, "--redis", f"127.0.0.1:{port}") for _ in range(2)] + [Server(o)]
        first, second, alone = servers
        r = random.Random(1)
        for words in map(int, o.words.split(",")):
            with_redis, without, sent, sending = [], [], [], []
            for pair in range(o.pairs):
                prompt = " ".join([str(r.random()), *r.choices(WORDS, k=words)])
                before = first.redis()
                _, tokens, _, answer = first.ask(prompt)
                begin = time.time()
                while (after := first.redis())["published"] == before["published"]:
                    time.sleep(0.01)
                sending.append(time.time() - begin)
                sent.append(after["sent"] - before["sent"])
                for server in (second, alone) if pair % 2 else (alone, second):
                    seconds, _, cached, text = server.ask(prompt)
                    (with_redis if server is second else without).append(seconds)
                    assert text == answer, (text, answer)
                    assert (cached > words // 2) == (server is second), cached
            ratio = statistics.median(b / a for a, b in zip(with_redis, without))
            print(f"{tokens} tokens: first token after {statistics.median(with_redis):.3f} s (most {max(with_redis):.3f}) with Redis, "
                  f"{statistics.median(without):.3f} s without: {ratio:.1f} times; {statistics.median(sent) / 1e6:.1f} MB sent, "
                  f"done {statistics.median(sending):.3f} s after the answer; the answers are the same", flush=True)
        print("second replica:", second.redis())
    finally:
        for child in [s.child for s in servers] + [redis]:
            child.terminate()
            child.wait()


main()
