#!/usr/bin/env python3
"""snug serve under mixed traffic and faults for minutes: nothing that should succeed may fail, memory and descriptors may not
grow, and a greedy answer stays the same to the last.

    tests/soak/serve_soak.py --minutes 30 smollm2-135m

Faults that this machine does not allow (a full disk needs root, a memory limit a writable cgroup) are left out and named.
"""

import argparse
import collections
import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_schemas import random_schemas  # noqa: E402

MIB = 1 << 20
PATIENCE = 300  # seconds: it runs beside other work, and comes last
REFERENCE = {"messages": [{"role": "user", "content": "Count from one to ten."}], "temperature": 0, "max_tokens": 40}


class Server:
    """The server, which comes and goes; requests hold `open` while they are under way."""

    def __init__(self, o, kv_folder, group, redis):
        self.o, self.kv_folder, self.group, self.redis = o, kv_folder, group, redis
        self.restarting = threading.Event()
        self.child, self.lives = None, 0
        self.start()

    def start(self):
        def before():
            os.nice(19)
            if self.group:
                self.group.write("cgroup.procs", os.getpid())

        command = [self.o.snug, "serve", self.o.model, "--port", "0", "-c", "2048", "--memory", f"{self.o.memory}MiB", "--drain", str(PATIENCE)]
        command += ["--kv-dir", self.kv_folder] if self.kv_folder else []
        command += ["--redis", f"127.0.0.1:{self.redis.port}"] if self.redis else []
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=before)
        self.port = int(self.child.stdout.readline().split(":")[2].split("/")[0])
        self.lives += 1

    def restart(self):
        self.restarting.set()
        time.sleep(0.5)  # who is about to ask has asked
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(PATIENCE + 60)
        self.start()
        self.restarting.clear()
        if code != 0:
            raise RuntimeError(f"the server ended with {code}")

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def status(self):
        connection = self.connect()
        try:
            connection.request("GET", "/snug/status")
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def requests(self):
        """What they are at, for who looks why one does not end."""
        try:
            return {k: v for k, v in self.status().items() if k in ("budget", "used", "waiting", "running", "requests")}
        except (OSError, http.client.HTTPException) as e:
            return f"no status: {e!r}"

    def post(self, path, body):
        connection = self.connect()
        try:
            connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body))
            response = connection.getresponse()
            answer = response.read()
            if response.status == 503 and b"the server ends" in answer:
                raise ConnectionError("refused by a server that ends")
            return response.status, answer
        finally:
            connection.close()

    def sample(self):
        """Bytes beside the ledger's, descriptors."""
        used = self.status()["used"]
        with open(f"/proc/{self.child.pid}/statm") as f:
            rss = int(f.read().split()[1]) * resource.getpagesize()
        return rss - used, len(os.listdir(f"/proc/{self.child.pid}/fd"))


class Traffic:
    """What clients do. Each returns what is wrong, or nothing."""

    def __init__(self, server):
        self.server = server
        self.schemas = [s for kind, s in random_schemas(200) if kind in ("record", "array", "enum", "any_of", "integer", "tuple")]
        status, body = server.post("/v1/chat/completions", REFERENCE)
        assert status == 200, body
        self.reference = json.loads(body)["choices"][0]["message"]["content"]

    def message(self, r, words=40):
        return {"role": "user", "content": " ".join(r.choice("the sea a ship storm harbour old new light far home".split()) for _ in range(r.randint(3, words)))}

    def chat(self, r, **more):
        status, body = self.server.post("/v1/chat/completions", {"messages": [self.message(r)], "max_tokens": r.randint(1, 60)} | more)
        return None if status == 200 else f"{status} {body[:200]}"

    def same_answer(self, r):
        status, body = self.server.post("/v1/chat/completions", REFERENCE)
        if status != 200:
            return f"{status} {body[:200]}"
        text = json.loads(body)["choices"][0]["message"]["content"]
        return None if text == self.reference else f"another answer: {text!r}"

    def choices(self, r):
        return self.chat(r, n=3, temperature=1.2)

    def constrained(self, r):
        schema = r.choice(self.schemas)
        body = {"messages": [self.message(r)], "max_tokens": 80, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        status, answer = self.server.post("/v1/chat/completions", body)
        if status != 200:
            return f"{status} {answer[:200]}"
        choice = json.loads(answer)["choices"][0]
        try:
            if choice["finish_reason"] == "stop":
                json.loads(choice["message"]["content"])
        except ValueError:
            return f"no JSON: {choice['message']['content']!r}"

    def conversation(self, r):
        messages = []
        for _ in range(r.randint(2, 4)):
            messages.append(self.message(r, 20))
            status, body = self.server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 30})
            if status != 200:
                return f"{status} {body[:200]}"
            messages.append(json.loads(body)["choices"][0]["message"])

    def long_prompt(self, r):
        return self.chat(r, messages=[{"role": "user", "content": "word " * r.randint(300, 1200)}])

    def other_apis(self, r):
        messages = [self.message(r)]
        for path, body in (("/v1/messages", {"messages": messages, "max_tokens": 20}), ("/api/chat", {"messages": messages, "options": {"num_predict": 20}}),
                           ("/v1/completions", {"prompt": "The sea", "max_tokens": 20}), ("/v1/messages/count_tokens", {"messages": messages})):
            status, answer = self.server.post(path, body)
            if status != 200:
                return f"{path}: {status} {answer[:200]}"

    def stream(self, r, leaves=False):
        connection = self.server.connect()
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [self.message(r)], "max_tokens": 60, "stream": True}))
            response = connection.getresponse()
            if response.status != 200:
                return f"{response.status} {response.read()[:200]}"
            if leaves:
                response.read(r.randint(1, 2000))
                return None
            whole = response.read()
            return None if whole.endswith(b"data: [DONE]\n\n") else f"a stream without its end: ...{whole[-300:]}"
        finally:
            connection.close()

    def aborted_stream(self, r):
        return self.stream(r, leaves=True)

    def nonsense(self, r):
        path, body = r.choice([("/v1/chat/completions", b"{"), ("/v1/chat/completions", b"[" * 10000), ("/v1/messages", b'{"messages": 1}'),
                               ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * 5000}]}),
                               ("/v1/chat/completions", REFERENCE | {"response_format": {"type": "regex", "pattern": "["}})])
        status, answer = self.server.post(path, body)
        return None if status == 400 else f"nonsense is answered with {status} {answer[:200]}"

    KINDS = [same_answer, same_answer, chat, choices, constrained, constrained, conversation, long_prompt, other_apis, stream, stream, aborted_stream,
             aborted_stream, nonsense]
    SEVERAL = [conversation, other_apis]


class LittleMemory:
    """The budget goes down to what little is needed, and up again."""

    def __init__(self, server):
        self.server = server

    def begin(self):
        status, body = self.server.post("/snug/memory", {"bytes": self.server.o.least * MIB})
        if status != 200:
            raise RuntimeError(f"{status} {body}")

    def end(self):
        self.server.post("/snug/memory", {"bytes": self.server.o.memory * MIB})


class TightGroup:
    """The memory cgroup's limit goes down: the server must follow."""

    def __init__(self, server):
        self.server, self.group = server, server.group

    def limit(self, mib):
        self.group.write("memory.max" if self.group.v2 else "memory.limit_in_bytes", mib * MIB)

    def begin(self):
        try:
            self.limit(self.server.o.memory + 64)
        except OSError:
            pass  # more is in use than may be: the kernel says no

    def end(self):
        self.limit(2 * self.server.o.memory + 512)


class FullDisk:
    """Nothing more can be written where sequences are kept, and the server is told to end."""

    def __init__(self, server):
        self.server = server

    def begin(self):
        with open(os.path.join(self.server.kv_folder, "filler"), "wb") as f:
            try:
                while True:
                    f.write(b"x" * MIB)
                    f.flush()
            except OSError:
                pass
        self.server.restart()

    def end(self):
        os.remove(os.path.join(self.server.kv_folder, "filler"))


class Restart:
    def __init__(self, server):
        self.server = server

    def begin(self):
        self.server.restart()

    def end(self):
        pass


class Redis:
    """Where replicas would share what they have read; what was read before a restart comes back from there."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.start()

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxmemory", "64mb",
                   "--maxmemory-policy", "allkeys-lru"]
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self):
        self.child.kill()
        self.child.wait()


class RedisKilled:
    def __init__(self, server):
        self.redis = server.redis

    def begin(self):
        self.redis.kill()

    def end(self):
        self.redis.start()


class RedisStandsStill(RedisKilled):
    def begin(self):
        self.redis.child.send_signal(signal.SIGSTOP)

    def end(self):
        self.redis.child.send_signal(signal.SIGCONT)


def faults_of(server):
    """In turn. Another one is a class with begin() and end()."""
    faults = [LittleMemory(server), Restart(server)]
    if server.group:
        faults.append(TightGroup(server))
    if server.kv_folder:
        faults.append(FullDisk(server))
    if server.redis:
        faults += [RedisKilled(server), RedisStandsStill(server)]
    return faults


def growth(samples, column):
    """What a line through the samples says of their whole time."""
    times, values = [s[0] for s in samples], [s[1][column] for s in samples]
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    slope = sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values)) / max(1e-9, sum((t - mean_t) ** 2 for t in times))
    return slope * (times[-1] - times[0])


def soak(server, o):
    traffic = Traffic(server)
    counts, wrong, samples = collections.Counter(), [], []
    begin = time.time()
    end = begin + 60 * o.minutes

    def client(number):
        r = random.Random(o.seed * 1000 + number)
        while time.time() < end:
            if server.restarting.is_set():
                time.sleep(0.1)
                continue
            kind = r.choice(Traffic.KINDS)
            life = server.lives
            try:
                problem = kind(traffic, r)
            except (OSError, http.client.HTTPException) as e:
                # Of several requests only the first counts when the server has meanwhile been told to end.
                ended = server.lives != life or server.restarting.is_set()
                problem = repr(e) + (f"; {server.requests()}" if isinstance(e, TimeoutError) else "")
                if ended and kind in Traffic.SEVERAL:
                    problem = None
                    counts["cut by a restart"] += 1
            counts[kind.__name__] += 1
            if problem:
                wrong.append(f"after {time.time() - begin:.0f} s, {kind.__name__}: {problem}")

    def injure():
        faults = faults_of(server)
        for number in range(1_000_000):
            # The last third is one life, by which growth is judged.
            fault = faults[number % len(faults)]
            last = time.time() > begin + 0.66 * (end - begin)
            if last:
                fault = faults[0]
            try:
                time.sleep(o.every)
                if time.time() > end - o.every:
                    return
                fault.begin()
                time.sleep(o.every)
                fault.end()
                counts[type(fault).__name__] += 1
            except Exception as e:  # noqa: BLE001
                wrong.append(f"after {time.time() - begin:.0f} s, {type(fault).__name__}: {e!r}")

    threads = [threading.Thread(target=client, args=(i,)) for i in range(o.users)] + [threading.Thread(target=injure)]
    for t in threads:
        t.start()
    while time.time() < end:
        time.sleep(1)
        if not server.restarting.is_set() and time.time() > begin + 0.72 * (end - begin):
            samples.append((time.time(), server.sample()))
    for t in threads:
        t.join()
    problem = traffic.same_answer(None)
    wrong += [f"at the end: {problem}"] if problem else []
    return counts, wrong, samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--every", type=float, default=10, help="seconds of a fault, and between two")
    parser.add_argument("--memory", type=int, default=400, help="budget in MiB")
    parser.add_argument("--least", type=int, default=260, help="budget in MiB while there is little")
    parser.add_argument("--disk", type=int, default=32, help="MiB of the disk for kept sequences")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()

    group = None
    try:
        from memory_group import Group
        group = Group((2 * o.memory + 512) * MIB)
    except OSError as e:
        print(f"no limits of memory: {e}")
    folder = tempfile.mkdtemp()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={o.disk}m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        print(f"no full disk: {mounted.stderr.strip()}")
    redis = Redis() if shutil.which("redis-server") else None
    if not redis:
        print("no Redis: it is not installed")
    server = Server(o, folder if mounted.returncode == 0 else None, group, redis)
    try:
        counts, wrong, samples = soak(server, o)
        code = None if server.child.poll() is None else server.child.returncode
    finally:
        server.child.terminate()
        server.child.wait(60)
        if redis:
            redis.kill()
        if mounted.returncode == 0:
            subprocess.run(["umount", folder])
        shutil.rmtree(folder, ignore_errors=True)
        if group:
            os.rmdir(group.path)
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    more_bytes, more_fds = growth(samples, 0), growth(samples, 1)
    print(f"{server.lives} lives; in {samples[-1][0] - samples[0][0]:.0f} s of the last one, by a line through {len(samples)} samples: "
          f"{more_bytes / MIB:+.1f} MiB beside the ledger's, {more_fds:+.1f} descriptors")
    if more_bytes > 24 * MIB or more_fds > 8:
        wrong.append("it grows")
    if code is not None:
        wrong.append(f"the server has ended with {code}")
    for problem in wrong[:20]:
        print(f"WRONG: {problem}")
    print("good" if not wrong else f"{len(wrong)} things went wrong")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
