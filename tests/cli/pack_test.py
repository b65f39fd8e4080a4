"""`snug pack`: the same answer from a pack, and none that is damaged, foreign or half-written is ever used."""

import json
import os
import resource
import signal
import subprocess

from support import SNUG, CliTest, main


class Pack(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.write("tiny.gguf", self.model_bytes)
        self.pack = self.model + ".snug"

    def run_model(self, *arguments):
        return self.snug("run", self.model, "-n", "8", "-c", "128", "--temp", "0", "--ignore-eos", "--raw", "hello",
                         *arguments)

    def hash_of(self, *arguments):
        result = self.run_model("--json", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["logits_hash"]

    def smallest(self):
        plan = self.snug("plan", self.model, "--memory", "1GiB", "-c", "128", "--json")
        return str(json.loads(plan.stdout)["smallest_budget"] + (256 << 10))

    def make(self):
        made = self.snug("pack", self.model)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertIn(self.pack, made.stdout)

    def change(self, at, byte):
        with open(self.pack, "r+b") as f:
            f.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
            f.write(bytes([byte]))

    def test_same_answer(self):
        expected = self.hash_of()
        self.make()
        self.assertEqual(self.snug("pack", self.model, "--check").returncode, 0)
        self.assertEqual(self.hash_of(), expected)
        self.assertEqual(self.hash_of("--memory", self.smallest()), expected)

    def test_damaged(self):
        self.make()
        self.change(5000, 0xA5)
        self.assert_fails(self.snug("pack", self.model, "--check"), "damaged")
        self.change(-30, 0xA5)
        self.assert_fails(self.run_model(), "damaged")
        os.truncate(self.pack, os.path.getsize(self.pack) // 2)
        self.assert_fails(self.run_model(), "cut off")
        self.make()  # another one mends it
        self.assertEqual(self.run_model().returncode, 0)

    def test_of_another_model(self):
        self.make()
        other = bytearray(self.model_bytes)
        other[-1] ^= 1  # in the data of the last tensor
        other[len(other) // 2] ^= 1
        for at in range(len(other) // 2, len(other), 64):
            other[at] ^= 1
        self.write("tiny.gguf", bytes(other))
        self.assert_fails(self.run_model(), "another model", "snug pack")

    def test_what_an_interrupted_run_left(self):
        left = self.write("tiny.gguf.snug.Ab12Cd", b"half")
        self.assertEqual(self.run_model().returncode, 0)
        self.make()
        self.assertFalse(os.path.exists(left))

    def test_no_room(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        result = subprocess.run([SNUG, "pack", self.model], preexec_fn=limit, capture_output=True, text=True)
        self.assert_fails(result, "cannot write")
        self.assertEqual(os.listdir(self.folder), ["tiny.gguf"])

    def test_no_such_pack(self):
        self.assert_fails(self.snug("pack", self.model, "--check"), "cannot open")


main()
