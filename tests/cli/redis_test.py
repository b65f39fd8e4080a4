"""Replicas of snug serve that share what they have read through a real Redis, which is stopped, killed and corrupted meanwhile."""

import os
import shutil
import signal
import socket
import subprocess
import time
import unittest

from serve_support import ServeTest
from support import SNUG, main

PATIENCE = 60  # seconds, for what comes some time
TEXT = "The harbour was grey and the ships lay still. " * 16  # a token for each byte


class Redis:
    """A redis-server that keeps nothing on the disk, and a client of it."""

    def __init__(self, port, *options):
        self.port = port
        self.child = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *options],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                if time.time() > end or self.child.poll() is not None:
                    raise
                time.sleep(0.02)

    def __call__(self, *command):
        """The reply to a command: bytes, a number, None or a list."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as s:
            words = [w if isinstance(w, bytes) else str(w).encode() for w in command]
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return self.read(s.makefile("rb"))

    def read(self, file):
        line = file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind in b"+-":
            return rest
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        return file.read(int(rest) + 2)[:-2] if kind == b"$" else [self.read(file) for _ in range(int(rest))]

    def kill(self):
        self.child.kill()
        self.child.wait()


@unittest.skipUnless(shutil.which("redis-server"), "redis-server is not installed (tools/bootstrap.sh --test)")
class RedisTest(ServeTest):
    def redis(self, *options):
        redis = Redis(self.free_port(), *options)
        self.addCleanup(redis.kill)
        return redis

    def setUp(self):
        super().setUp()
        self.model = self.write("model.gguf", self.model_bytes)

    def replica(self, address, *options, **environment):
        """The port of a new server."""
        command = [SNUG, "serve", self.model, "--port", "0", "--template", "chatml"]
        command += ["--redis", address] if address else []
        server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | environment)

        def end():
            server.terminate()
            server.communicate(timeout=PATIENCE)
        self.addCleanup(end)
        line = server.stdout.readline()
        self.assertIn("serving model at http://127.0.0.1:", line)
        return int(line.split(":")[2].split("/")[0])

    def complete(self, port, prompt):
        """The answer, and how many tokens of its prompt were there already."""
        self.port = port
        status, whole = self.ask("/v1/completions", {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True})
        self.assertEqual(status, 200, whole)
        return whole["choices"][0]["text"], whole["usage"]["prompt_tokens_details"]["cached_tokens"]

    def counts(self, port):
        self.port = port
        return self.ask("/snug/status")[1]["redis"]

    def wait_for(self, port, name, least=1):
        end = time.time() + PATIENCE
        while self.counts(port)[name] < least:
            self.assertLess(time.time(), end, f"{name}: {self.counts(port)} {self.ask('/snug/status')[1]['events']}")
            time.sleep(0.02)

    def until_shared(self, first, second):
        """New prompts go to both replicas until one has come from the other."""
        end = time.time() + PATIENCE
        before = self.counts(second)["hits"]
        number = 0
        while self.counts(second)["hits"] == before:
            self.assertLess(time.time(), end, (self.counts(first), self.counts(second)))
            number += 1
            prompt = f"{time.time()} {number} {TEXT}"
            self.complete(first, prompt)
            time.sleep(0.2)
            self.complete(second, prompt)

    def test_what_one_has_read_the_other_has(self):
        redis = self.redis()
        first, second, alone = self.replica(f"127.0.0.1:{redis.port}"), self.replica(f"redis://localhost:{redis.port}/0"), self.replica("")
        answer, cached = self.complete(first, TEXT)
        self.assertEqual(cached, 0)
        self.wait_for(first, "published")
        longer = TEXT + "And then"
        answer, cached = self.complete(second, longer)
        self.assertGreater(cached, 500)
        self.assertEqual((answer, 0), self.complete(alone, longer))
        self.assertEqual(self.counts(second)["hits"], 1)
        self.assertIsNone(self.counts(alone))
        self.port = second
        metrics = self.ask("/metrics")[1]
        self.assertIn("snug_redis_hits_total 1\n", metrics)
        self.assertIn("snug_redis_circuit_open 0\n", metrics)
        for key in redis("KEYS", "*"):
            self.assertTrue(key.startswith(b"snug:{"), key)
            self.assertGreater(redis("TTL", key), 0, key)

    def test_redis_stands_still(self):
        redis = self.redis()
        first, second, alone = self.replica(f"127.0.0.1:{redis.port}"), self.replica(f"127.0.0.1:{redis.port}"), self.replica("")
        self.complete(first, TEXT)
        self.wait_for(first, "published")
        redis.child.send_signal(signal.SIGSTOP)
        self.addCleanup(redis.child.send_signal, signal.SIGCONT)
        for number in range(3):
            prompt = f"{number} {TEXT}"
            self.assertEqual(self.complete(second, prompt), self.complete(alone, prompt))
        self.wait_for(second, "errors")
        redis.child.send_signal(signal.SIGCONT)
        self.until_shared(first, second)

    def test_redis_dies_and_comes_back(self):
        redis = self.redis()
        first, second, alone = self.replica(f"127.0.0.1:{redis.port}"), self.replica(f"127.0.0.1:{redis.port}"), self.replica("")
        self.complete(first, TEXT)
        self.wait_for(first, "published")
        redis.kill()
        self.assertEqual(self.complete(second, TEXT), self.complete(alone, TEXT))
        self.wait_for(second, "errors")
        redis.__init__(redis.port)
        self.until_shared(first, second)

    def test_without_redis_from_the_start(self):
        port = self.free_port()
        first, second = self.replica(f"127.0.0.1:{port}"), self.replica(f"127.0.0.1:{port}")
        self.complete(first, TEXT)
        self.wait_for(first, "errors")
        redis = Redis(port)
        self.addCleanup(redis.kill)
        self.until_shared(first, second)

    def test_what_is_corrupted_is_refused(self):
        redis = self.redis()
        first, second, alone = self.replica(f"127.0.0.1:{redis.port}"), self.replica(f"127.0.0.1:{redis.port}"), self.replica("")
        self.complete(first, TEXT)
        self.wait_for(first, "published")
        for key in redis("KEYS", "*:p:*"):
            value = bytearray(redis("GET", key))
            value[len(value) // 2] ^= 1
            redis("SET", key, bytes(value))
        self.assertEqual(self.complete(second, TEXT), self.complete(alone, TEXT))
        self.assertEqual((self.counts(second)["refused"], self.counts(second)["hits"]), (1, 0))
        # What was no good is gone, and sent anew.
        self.wait_for(second, "published")

    def test_responses_go_on_elsewhere(self):
        redis = self.redis()
        first, second = self.replica(f"127.0.0.1:{redis.port}"), self.replica(f"127.0.0.1:{redis.port}")
        body = {"input": "Hello", "max_output_tokens": 5, "temperature": 0}
        ask = lambda port, **more: setattr(self, "port", port) or self.ask("/v1/responses", body | more, {"Authorization": "Bearer one"})
        status, response = ask(first)
        self.assertEqual(status, 200, response)
        end = time.time() + PATIENCE
        while not redis("KEYS", "snug:r:*"):
            self.assertLess(time.time(), end)
            time.sleep(0.02)
        status, next_response = ask(second, previous_response_id=response["id"])
        self.assertEqual(status, 200, next_response)
        self.assertGreater(next_response["usage"]["input_tokens"], response["usage"]["input_tokens"])
        redis.child.send_signal(signal.SIGSTOP)
        self.addCleanup(redis.child.send_signal, signal.SIGCONT)
        self.assertEqual(ask(second, previous_response_id="resp_0")[0], 400)

    def test_a_limit(self):
        redis = self.redis()
        first = self.replica(f"127.0.0.1:{redis.port}", "--redis-max", "2MiB", "--redis-prefix", "mine", "--redis-ttl", "60")
        for number in range(12):
            self.complete(first, f"{number} {TEXT}")
            self.wait_for(first, "published", number + 1)
        keys = redis("KEYS", "mine:*")
        self.assertEqual(len(keys), redis("DBSIZE"))
        self.assertLessEqual(sum(k.split(b":")[2] in (b"p", b"m") for k in keys), 16)
        self.assertLessEqual(max(redis("TTL", k) for k in keys if not k.endswith(b"used")), 60)

    def test_passwords_and_sockets(self):
        path = self.path("redis.sock")
        redis = self.redis("--requirepass", "secret", "--unixsocket", path)
        first = self.replica(f"127.0.0.1:{redis.port}", SNUG_REDIS_PASSWORD="secret")
        second = self.replica(f"redis://:secret@127.0.0.1:{redis.port}")
        third = self.replica(path, "--redis-password", "secret")
        wrong = self.replica(f"127.0.0.1:{redis.port}")
        answer, _ = self.complete(first, TEXT)
        self.wait_for(first, "published")
        for port in (second, third):
            self.assertEqual(self.complete(port, TEXT)[0], answer)
            self.assertEqual(self.counts(port)["hits"], 1, f"{port} {self.counts(port)} {self.ask('/snug/status')[1]['events']}")
        self.assertEqual(self.complete(wrong, TEXT)[0], answer)
        self.assertGreater(self.counts(wrong)["errors"], 0)

    def test_addresses_that_are_none(self):
        for address, words in (("cache:0", "port"), ("rediss://cache", "TLS"), ("redis://cache/x", "database")):
            self.assert_fails(self.snug("serve", self.model, "--redis", address), words, code=2)


main()
