"""calibrate: what KV codecs learn is made and used; what is missing, damaged or learns nothing is refused."""

import json

from support import CliTest, main


class Calibrate(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.write("model.gguf", self.model_bytes)
        self.text = self.write("text.txt", b"The quick brown fox jumps over the lazy dog. " * 60)

    def calibrate(self, kv):
        return self.snug("calibrate", self.model, "--text", self.text, "--context", "256", "--kv", kv, "--json")

    def run_model(self, kv):
        return self.snug("run", self.model, "--raw", "-n", "4", "--temp", "0", "--ignore-eos", "--kv", kv, "hello")

    def test_made_and_used(self):
        result = self.calibrate("cq-2/kivi-2")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([r["codec"] for r in json.loads(result.stdout)], ["cq-2"])
        for kv in ("cq-2", "cq-2/kivi-2", "q8/cq-2"):
            result = self.run_model(kv)
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_refused(self):
        self.assert_fails(self.run_model("cq-1"), "model.gguf.kv-cq-1 is missing: snug calibrate")
        self.assert_fails(self.calibrate("q8"), "learns nothing", code=2)
        self.assertEqual(self.calibrate("cq-1").returncode, 0)
        with open(self.path("model.gguf.kv-cq-1"), "rb") as f:
            tables = f.read()
        self.write("model.gguf.kv-cq-1", tables[:-1])
        self.assert_fails(self.run_model("cq-1"), "cut short")


main()
