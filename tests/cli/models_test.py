"""snug serve with several models in one budget: names, lists, answers as each gives alone, errors."""

import concurrent.futures
import random
import struct
import subprocess

from serve_support import CHAT, ServeTest
from support import SNUG, main

NAMES = ["alpha", "beta", "gamma"]
SHUFFLED = 1 << 20  # bytes at the file's end, all of them weights in f32


class Models(ServeTest):
    def setUp(self):
        super().setUp()
        self.files = []
        for seed, name in enumerate(NAMES):
            words = list(struct.unpack(f"{SHUFFLED // 4}I", self.model_bytes[-SHUFFLED:]))
            random.Random(seed).shuffle(words)
            self.files.append(self.write(name + ".gguf", self.model_bytes[:-SHUFFLED] + struct.pack(f"{len(words)}I", *words)))

    def start(self, files, *options):
        self.server = subprocess.Popen([SNUG, "serve", *files, "--port", "0", "--template", "chatml", *options],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop)
        line = self.server.stdout.readline()
        self.assertIn(" at http://127.0.0.1:", line)
        self.port = int(line.split(":")[2].split("/")[0])

    def chat(self, **fields):
        return self.ask("/v1/chat/completions", CHAT | fields)

    def text(self, **fields):
        status, answer = self.chat(**fields)
        self.assertEqual(status, 200, answer)
        return answer["choices"][0]["message"]["content"]

    def states(self):
        return {m["name"]: m for m in self.ask("/snug/status")[1]["models"]}

    def test_each_answers_as_it_does_alone(self):
        alone = []
        for file in self.files:
            self.start([file])
            alone.append(self.text(model="whatever"))
            self.stop()
        self.assertEqual(len(set(alone)), 3)
        self.start(self.files)
        self.assertEqual([m["state"] for m in self.states().values()].count("cold"), 2)
        for _ in range(2):
            for name, text in zip(NAMES, alone):
                self.assertEqual(self.text(model=name), text)
                self.assertEqual(self.states()[name]["state"], "hot")
        status = self.ask("/snug/status")[1]
        weights = status["models"][0]["weights_total"]
        # Their huge pages are not full: one and a half models are what their weights take, not what is charged for them.
        others = status["used"] - sum(m["weights"] for m in status["models"])
        status, answer = self.ask("/snug/memory", {"bytes": others + weights * 3 // 2})
        self.assertEqual(status, 200, answer)
        asked = [(name, text) for name, text in zip(NAMES, alone)] * 4
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda one: self.text(model=one[0]), asked))
        self.assertEqual(answers, [text for _, text in asked])
        states = self.states()
        self.assertLess(sum(m["weights"] for m in states.values()), weights * 5 // 2)  # with what is streamed through
        self.assertGreater(sum(m["switches"] for m in states.values()), 6)

    def test_names_and_lists(self):
        self.start(self.files)
        self.assertEqual([m["id"] for m in self.ask("/v1/models")[1]["data"]], NAMES)
        self.assertEqual([m["name"] for m in self.ask("/api/tags")[1]["models"]], NAMES)
        status, answer = self.chat(model="gamma")
        self.assertEqual((status, answer["model"]), (200, "gamma"))
        self.assertEqual(self.chat()[1]["model"], "alpha")
        for model in ("delta", "alpha.gguf", "x" * 1000):
            self.assert_refused(404, self.chat(model=model), "model_not_found")
        body = {"model": "beta:latest", "messages": CHAT["messages"], "stream": False, "options": {"num_predict": 2}}
        status, answer = self.ask("/api/chat", body)
        self.assertEqual((status, answer["model"]), (200, "beta"))
        status, answer = self.ask("/api/chat", body | {"model": "delta"})
        self.assertEqual((status, list(answer)), (404, ["error"]))
        self.assertEqual(self.ask("/api/show", {"name": "beta"})[0], 200)
        status, answer = self.ask("/v1/messages", {"model": "delta", "max_tokens": 3, "messages": CHAT["messages"]})
        self.assertEqual((status, answer["type"]), (404, "error"))
        self.assertEqual("".join(p["choices"][0]["delta"].get("content", "") for p in self.stream("/v1/chat/completions", CHAT | {"model": "beta"})),
                         self.text(model="beta"))
        self.assert_refused(400, self.ask("/v1/chat/completions", b'{"model": "beta"'))
        metrics = self.ask("/metrics")[1]
        for name in NAMES:
            self.assertIn(f'snug_model_weight_bytes{{model="{name}"}} ', metrics)

    def test_a_key_is_asked_for_before_a_model_is_loaded(self):
        self.start(self.files, "--api-key", "secret")
        self.assert_refused(401, self.chat(model="gamma"), "invalid_api_key")
        answer = self.ask("/snug/status", headers={"Authorization": "Bearer secret"})[1]
        self.assertEqual(answer["models"][2]["state"], "cold")

    def test_as_many_as_may_be_loaded(self):
        self.start(self.files, "--models-loaded", "1")
        for name in (*NAMES, *NAMES):
            self.text(model=name)
        states = [m["state"] for m in self.states().values()]
        self.assertLessEqual(states.count("cold"), 2)
        self.assertGreaterEqual(states.count("cold"), 1)

    def test_a_file_that_is_gone_when_it_is_asked_for(self):
        self.start(self.files)
        self.write("beta.gguf", b"GGUF")
        self.assert_refused(503, self.chat(model="beta"), "model_not_loaded", "beta.gguf")
        self.text(model="gamma")

    def test_what_cannot_be_served(self):
        broken = self.write("broken.gguf", b"nothing")
        self.assert_fails(self.snug("serve", self.files[0], broken, "--port", "0"), "broken.gguf")
        self.assert_fails(self.snug("serve", self.files[0], self.files[0], "--port", "0"), "two models are called alpha")
        self.assert_fails(self.snug("serve", *self.files, "--port", "0", "--name", "x"), "--name", code=2)
        self.assert_fails(self.snug("serve", *self.files, "--port", "0", "--memory", "3MiB"), "alpha")

    def test_sent_away_while_it_is_loaded(self):
        self.start(self.files)
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda i: self.text(model=NAMES[1 + i % 2]), range(6)))
        self.assertEqual(len(set(answers)), 2)
        self.stop()
        self.assertEqual(self.server.returncode, 0)


main()
