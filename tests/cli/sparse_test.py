"""sparsify and --sparse-ffn: made, used, and refused where it does not fit."""

import json
import os

from support import CliTest, main


class Sparse(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.write("model.gguf", self.model_bytes)
        self.text = self.write("text.txt", b"The quick brown fox jumps over the lazy dog. " * 40)

    def sparsify(self):
        result = self.snug("sparsify", self.model, "--text", self.text, "--rank", "64")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("2 layers", result.stdout)

    def run_model(self, *options):
        result = self.snug("run", self.model, "--raw", "-n", "16", "--temp", "0", "--ignore-eos", "--json", *options, "hello")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_made_and_used(self):
        self.sparsify()
        dense, half = self.run_model(), self.run_model("--sparse-ffn=0.5")
        self.assertEqual(dense["sparse_ffn"]["tokens"], 0)
        self.assertGreaterEqual(half["sparse_ffn"]["tokens"], 15)
        self.assertEqual(half["sparse_ffn"]["chosen"], half["sparse_ffn"]["tokens"] * 2 * 256)
        enough = str(half["ledger"]["peak"] + (8 << 20))  # sanitizers take memory of their own
        self.assertEqual(half["logits_hash"], self.run_model("--sparse-ffn=0.5", "--memory", enough, "-t", "1")["logits_hash"])
        result = self.snug("eval", "kl", self.model, "--text", self.text, "--max-tokens", "64", "--context", "64", "--json",
                           "--sparse-ffn=1")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(json.loads(result.stdout)["mean_kl"], 0.01)

    def test_without_the_file(self):
        self.assert_fails(self.snug("run", self.model, "--sparse-ffn", "-n", "1", "hi"), "sparsify")

    def test_damaged_or_foreign_file(self):
        self.sparsify()
        with open(self.model + ".ffn", "rb") as f:
            data = f.read()
        for bad in (data[:-1], data[:50], data[:40] + b"x" + data[41:], b""):
            self.write("model.gguf.ffn", bad)
            self.assert_fails(self.snug("run", self.model, "--sparse-ffn=0.5", "-n", "1", "hi"), "model.gguf.ffn")
        self.write("model.gguf.ffn", data)
        name = b"blk.1.attn_q.weight"  # two tensors of a kind change places
        swapped = self.model_bytes.replace(name, b"?" * len(name)).replace(b"blk.0.attn_q.weight", name)
        self.write("model.gguf", swapped.replace(b"?" * len(name), b"blk.0.attn_q.weight"))
        self.assert_fails(self.snug("run", self.model, "--sparse-ffn=0.5", "-n", "1", "hi"), "another model")

    def test_bad_options(self):
        self.assert_fails(self.snug("run", self.model, "--sparse-ffn=2", "hi"), code=2)
        self.assert_fails(self.snug("run", self.model, "--sparse-ffn=0.5", "--speculate", "4", "hi"), "--speculate", code=2)
        self.assert_fails(self.snug("sparsify", self.model, "--text", self.text, "--rank", "33"), "32", code=2)
        self.assert_fails(self.snug("sparsify", self.model, "--text", self.write("short.txt", b"short")), "longer text")
        self.assertFalse(os.path.exists(self.model + ".ffn"))


main()
