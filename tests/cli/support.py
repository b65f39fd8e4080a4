"""Running the `snug` binary on a tiny model in a folder of its own. The tests are called as: TEST.py SNUG TINY_MODEL FAIL_READS."""

import os
import subprocess
import sys
import tempfile
import unittest

SNUG, TINY_MODEL, FAIL_READS = (os.path.abspath(p) for p in sys.argv[1:4])


class CliTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        with open(TINY_MODEL, "rb") as f:
            self.model_bytes = f.read()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def snug(self, *arguments, stdin="", **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SNUG_", "HF_"))}
        clean |= {"SNUG_MODELS": self.path("models"), "HF_HOME": self.path("hf-home")} | environment
        return subprocess.run([SNUG, *arguments], input=stdin, env=clean, capture_output=True, text=True,
                              errors="surrogateescape", timeout=120)

    def assert_fails(self, result, *words, code=1):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, r"\Aerror: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, result.stderr)


def main():
    unittest.main(argv=sys.argv[:1])
