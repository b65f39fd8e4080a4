"""Saved sessions: --kv-dir, /save and /load; killed while saving, of another model, damaged."""

import json
import os
import signal
import subprocess
import time

from support import SNUG, CliTest, main

TEXT = "The quick brown fox jumps over the lazy dog. " * 4


class KvSession(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.write("model.gguf", self.model_bytes)
        self.kv = self.path("kv")

    def run_model(self, prompt, *options, model=None):
        result = self.snug("run", model or self.model, "--raw", "-n", "8", "--temp", "0", "--ignore-eos", "--json", *options, prompt)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout) | {"stderr": result.stderr}

    def files(self):
        return sorted(f for f in os.listdir(self.kv) if f.endswith(".kv"))

    def test_a_prompt_goes_on_from_what_was_saved(self):
        for kv in ("bf16", "q8"):
            first = self.run_model(TEXT, "--kv", kv, "--kv-dir", self.kv)
            self.assertEqual(first["loaded_tokens"], 0)
            longer = TEXT + first["text"] + " And then?"
            plain, loaded = self.run_model(longer, "--kv", kv), self.run_model(longer, "--kv", kv, "--kv-dir", self.kv)
            self.assertEqual(loaded["logits_hash"], plain["logits_hash"])
            self.assertEqual(loaded["loaded_tokens"], first["prompt_tokens"] + 8)
            self.assertLess(loaded["prompt_tokens"], plain["prompt_tokens"] / 2)
            self.assertEqual(loaded["stderr"], "")

    def test_damaged_files_are_named_and_not_used(self):
        first = self.run_model(TEXT, "--kv-dir", self.kv)
        (name,) = self.files()
        path = os.path.join(self.kv, name)
        with open(path, "rb") as f:
            sound = f.read()
        for bad in (b"", sound[:100], sound[:-1], sound[:50] + b"?" + sound[51:], sound[:-5] + b"?" + sound[-4:]):
            with open(path, "wb") as f:
                f.write(bad)
            again = self.run_model(TEXT + "x", "--kv-dir", self.kv)
            self.assertEqual(again["loaded_tokens"], 0)
            self.assertIn(name, again["stderr"])
            for other in self.files():
                if other != name:
                    os.remove(os.path.join(self.kv, other))
        self.assertGreater(first["prompt_tokens"], 50)

    def test_files_of_other_models_are_passed_over(self):
        self.run_model(TEXT, "--kv-dir", self.kv)
        name = b"blk.1.attn_q.weight"  # two tensors of a kind change places
        swapped = self.model_bytes.replace(name, b"?" * len(name)).replace(b"blk.0.attn_q.weight", name)
        other = self.write("other.gguf", swapped.replace(b"?" * len(name), b"blk.0.attn_q.weight"))
        result = self.run_model(TEXT, "--kv-dir", self.kv, model=other)
        self.assertEqual((result["loaded_tokens"], result["stderr"]), (0, ""))
        self.assertEqual(self.run_model(TEXT + "x", "--kv", "q8", "--kv-dir", self.kv)["loaded_tokens"], 0)

    def test_killed_at_any_moment_no_saved_session_is_lost(self):
        first = self.run_model(TEXT, "--kv-dir", self.kv)
        (saved,) = self.files()
        with open(os.path.join(self.kv, saved), "rb") as f:
            before = f.read()
        for i in range(12):
            child = subprocess.Popen([SNUG, "run", self.model, "--raw", "-n", "8", "--temp", "0", "--ignore-eos", "--kv-dir", self.kv,
                                      f"{TEXT} {i}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            child.stdout.readline()  # the answer is there: it is saved now
            time.sleep(0.0004 * i)
            child.send_signal(signal.SIGKILL)
            child.communicate()
        with open(os.path.join(self.kv, saved), "rb") as f:
            self.assertEqual(f.read(), before)
        again = self.run_model(TEXT + first["text"] + "x", "--kv-dir", self.kv)
        self.assertEqual(again["stderr"], "")  # every file that has its name is whole
        self.assertGreaterEqual(again["loaded_tokens"], first["prompt_tokens"] + 8)

    def test_a_folder_that_cannot_be_written(self):
        self.write("file", b"")
        result = self.snug("run", self.model, "--raw", "-n", "2", "--kv-dir", self.path("file"), "hi there")
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot write", result.stderr)


main()
