"""snug batch: answers in the order of the input, whatever stops it on the way."""

import fcntl
import http.client
import json
import os
import random
import resource
import signal
import subprocess
import time

from support import SNUG, CliTest, main

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 4, "Pack my box with five dozen liquor jugs. " * 5, "Sphinx of black quartz. " * 3]


def chat(i, **fields):
    return {"messages": [{"role": "system", "content": TEXTS[i % 3]}, {"role": "user", "content": f"Question {i}"}],
            "max_tokens": 4 + 7 * i % 23, "temperature": 0, "ignore_eos": True} | fields


def line(id, body, url="/v1/chat/completions", method="POST"):
    return json.dumps({"custom_id": id, "method": method, "url": url, "body": body})


class Batch(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.write("model.gguf", self.model_bytes)
        self.out = self.path("out.jsonl")

    def given(self, lines):
        self.write("in.jsonl", b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines))

    def command(self, *options, out=None):
        return ["batch", self.model, self.path("in.jsonl"), out or self.out, "--template", "chatml", *options]

    def batch(self, *options, out=None):
        result = self.snug(*self.command("--json", *options, out=out))
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def read(self, path):
        with open(path, "rb") as f:
            return f.read()

    def results(self, out=None):
        with open(out or self.out) as f:
            return [json.loads(text) for text in f]

    def bodies(self, out=None):
        """What does not differ from one run to the next, by custom_id."""
        bodies = {}
        for r in self.results(out):
            body = dict(r["response"]["body"])
            for name in ("id", "created"):
                body.pop(name)
            body["usage"].pop("prompt_tokens_details")
            bodies[r["custom_id"]] = body
        return bodies

    def test_answers_are_those_of_serve_in_the_order_of_the_input(self):
        asked = [("/v1/chat/completions", chat(i)) for i in range(24)]
        asked += [("/v1/completions", {"prompt": TEXTS[i] + "So", "max_tokens": 9, "seed": 5, "temperature": 1}) for i in range(3)]
        asked += [("/v1/chat/completions", chat(7, n=2, temperature=1, seed=3, stream=True)),
                  ("/v1/chat/completions", chat(8, max_tokens=30, response_format={"type": "regex", "pattern": "[ab]{3,9}"}))]
        random.Random(1).shuffle(asked)
        self.given([line(f"r{i}", body, url) for i, (url, body) in enumerate(asked)])
        summary = self.batch()
        self.assertEqual((summary["answered"], summary["failed"], summary["plan"]["groups"]), (len(asked), 0, 3))
        # Everything that is shared is read once.
        self.assertLessEqual(summary["prompt_tokens_read"], summary["plan"]["distinct_tokens"] + len(asked))
        self.assertLess(summary["prompt_tokens_read"], summary["plan"]["prompt_tokens"] / 2)
        results = self.results()
        self.assertEqual([r["custom_id"] for r in results], [f"r{i}" for i in range(len(asked))])
        for r in results:
            self.assertEqual(set(r), {"id", "custom_id", "response", "error"})
            self.assertEqual((r["error"], r["response"]["status_code"]), (None, 200))
        self.assertEqual(len({r["id"] for r in results} | {r["response"]["request_id"] for r in results}), 2 * len(asked))
        server = subprocess.Popen([SNUG, "serve", self.model, "--port", "0", "--template", "chatml"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(server.communicate)
        self.addCleanup(server.terminate)
        port = int(server.stdout.readline().split(":")[2].split("/")[0])
        bodies = self.bodies()
        for i, (url, body) in enumerate(asked):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", url, json.dumps(body | {"stream": False}).encode())
            served = json.loads(connection.getresponse().read())
            connection.close()
            self.assertEqual(served["choices"], bodies[f"r{i}"]["choices"])
            self.assertEqual(served["model"], bodies[f"r{i}"]["model"])
        # The other order answers the same.
        other = self.path("other.jsonl")
        self.batch("--order", "input", out=other)
        self.assertEqual(self.bodies(other), bodies)

    def test_what_is_no_request_fails_alone(self):
        good = line("good", chat(1))
        self.given([good, "{broken", line("good", chat(2)), "", line("get", chat(1), method="GET"), line("path", chat(1), url="/v1/../etc"),
                    line("admin", {"bytes": 1}, url="/snug/memory"), line("none", {"messages": []}), line("long", chat(1, messages=[{"role": "user", "content": "x" * 9000}])),
                    line("body", [1]), json.dumps({"custom_id": 5}), '{"custom_id": "deep", "body": ' + "[" * 9000 + "]" * 9000 + "}",
                    line("grammar", chat(1, response_format={"type": "regex", "pattern": "("})), b'{"custom_id": "\xff"}',
                    line("count", {"messages": [{"role": "user", "content": "hello"}]}, url="/v1/messages/count_tokens"), "17", line("é last", chat(3))])
        summary = self.batch()
        self.assertEqual((summary["requests"], summary["answered"], summary["failed"]), (16, 3, 13))
        outcome = []
        for r in self.results():
            if r["error"]:
                self.assertIsNone(r["response"])
                self.assertTrue(r["error"]["message"])
                outcome.append((r["custom_id"], r["error"]["code"]))
            else:
                status, body = r["response"]["status_code"], r["response"]["body"]
                outcome.append((r["custom_id"], status, *([body["error"]["code"]] if "error" in body else [])))
        self.assertEqual(outcome, [
            ("good", 200), (None, "invalid_json_line"), ("good", "duplicate_custom_id"), ("get", "invalid_method"), ("path", 404, "unknown_url"),
            ("admin", "invalid_url"), ("none", 400, "invalid_value"), ("long", 400, "context_length_exceeded"), ("body", "missing_required_parameter"),
            (None, "missing_required_parameter"), (None, "invalid_json_line"), ("grammar", 400, "invalid_value"), (None, "invalid_json_line"),
            ("count", 200), (None, "invalid_json_line"), ("é last", 200)])

    def test_killed_at_any_moment_it_goes_on(self):
        self.given([line(f"r{i}", chat(i, max_tokens=60)) for i in range(60)])
        expected_out = self.path("expected.jsonl")
        self.batch(out=expected_out)
        expected = self.bodies(expected_out)
        choose, killed, resumed, part = random.Random(3), 0, 0, self.out + ".part"
        most = 0.2  # seconds; longer each time, so that it ends on a slow machine too
        while not os.path.exists(self.out):
            kept = self.read(part).count(b"\n") - 1 if os.path.exists(part) else 0
            process = subprocess.Popen([SNUG, *self.command("--max-batch", "2", "--json")], stdout=subprocess.PIPE, text=True)
            time.sleep(choose.uniform(0.02, most))
            most *= 1.1
            process.kill()
            out, _ = process.communicate()
            killed += process.returncode == -signal.SIGKILL
            resumed += kept > 0
            if process.returncode == 0 and kept > 0:
                self.assertEqual(json.loads(out)["had_answers"], kept)
            if choose.random() < 0.5 and os.path.exists(part):
                with open(part, "r+b") as f:  # as if the last write had not come whole
                    f.truncate(max(0, os.path.getsize(part) - choose.randint(1, 40)))
        self.assertGreater(killed, 0)
        self.assertGreater(resumed, 0)
        self.assertEqual(self.bodies(), expected)
        self.assertEqual(list(self.bodies()), list(expected))
        if os.path.exists(part):  # killed between the last two steps
            self.batch()
        self.assertEqual(sorted(os.listdir(self.folder)), ["expected.jsonl", "in.jsonl", "model.gguf", "out.jsonl"])

    def interrupted(self):
        """A run that was ended by Ctrl-C after some answers."""
        self.given([line(f"r{i}", chat(i, max_tokens=200)) for i in range(100)])
        process = subprocess.Popen([SNUG, *self.command("--max-batch", "1")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 30
        while time.monotonic() < end and (not os.path.exists(self.out + ".part") or self.read(self.out + ".part").count(b"\n") < 3):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(error, r"error: interrupted: \d+ of 100 are done; the same command goes on from there\n")
        return int(error.split("interrupted: ")[1].split()[0])

    def test_interrupted(self):
        done = self.interrupted()
        self.assertFalse(os.path.exists(self.out))
        before = self.read(self.out + ".part")
        self.assert_fails(self.snug(*self.command("-c", "100")), "begun with another context")
        other = bytearray(self.model_bytes)
        other[len(other) // 2] ^= 1
        for at in range(len(other) // 2, len(other), 64):
            other[at] ^= 1
        self.write("model.gguf", bytes(other))
        self.assert_fails(self.snug(*self.command()), "begun with another model", "out.jsonl.part")
        self.write("model.gguf", self.model_bytes)
        sound = self.read(self.path("in.jsonl"))
        self.write("in.jsonl", sound + line("more", chat(1)).encode())
        self.assert_fails(self.snug(*self.command()), "begun with another input")
        self.write("in.jsonl", sound)
        self.assertEqual(self.read(self.out + ".part"), before)
        summary = self.batch()
        self.assertEqual((summary["had_answers"], summary["answered"]), (done, 100 - done))

    def test_two_at_once_and_what_is_not_ours(self):
        self.given([line("a", chat(1))])
        self.write("out.jsonl.part", b"my notes\n")
        self.assert_fails(self.snug(*self.command()), "is not of `snug batch`")
        self.assertEqual(self.read(self.out + ".part"), b"my notes\n")
        os.remove(self.out + ".part")
        with open(self.out + ".part", "wb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            self.assert_fails(self.snug(*self.command()), "another process is at work")
        self.assertEqual(self.snug(*self.command(out=self.path("in.jsonl"))).returncode, 2)
        self.assert_fails(self.snug(*self.command(out=self.path("no/such/folder"))), "cannot write")
        os.remove(self.path("in.jsonl"))
        self.assert_fails(self.snug(*self.command()), "cannot open")

    def test_no_room_on_the_disk(self):
        self.given([line(f"r{i}", chat(i, max_tokens=60)) for i in range(60)])

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

        result = subprocess.run([SNUG, *self.command("--order", "input")], preexec_fn=limit, capture_output=True, text=True, timeout=60)
        self.assert_fails(result, "cannot write", "out.jsonl.part", "goes on from there")
        self.assertFalse(os.path.exists(self.out))
        summary = self.batch()
        self.assertGreater(summary["had_answers"], 0)
        self.assertEqual(summary["had_answers"] + summary["answered"], 60)
        self.assertEqual([r["custom_id"] for r in self.results()], [f"r{i}" for i in range(60)])


main()
