"""A system that is short of memory: the budget shrinks and the answer is the same. The system is a folder of files."""

import json
import os

from support import CliTest, main


class Pressure(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.write("model.gguf", self.model_bytes)
        self.system("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
        self.system("proc/self/cgroup", "0::/app\n")

    def system(self, name, text):
        path = self.path(os.path.join("system", name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def stall(self, text):
        self.system("sys/fs/cgroup/app/memory.pressure", text)

    def run_model(self, *arguments, **environment):
        result = self.snug("run", self.model, "--raw", "--temp", "0", "--ignore-eos", "-n", "600", "--memory", "1GiB", "--json",
                           *arguments, "hello " * 100, SNUG_SYSTEM_ROOT=self.path("system"), **environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_the_budget_shrinks_and_the_answer_stays(self):
        calm = self.run_model()
        self.assertEqual(calm["pressure"], {"shrunk": 0, "grown": 0, "budget": 1 << 30})
        self.stall("some avg10=40.00 avg60=9.00 avg300=1.00\n")
        pressed = self.run_model()
        self.assertGreaterEqual(pressed["pressure"]["shrunk"], 1)
        self.assertEqual(pressed["pressure"]["budget"], pressed["ledger"]["limit"])
        self.assertLess(pressed["pressure"]["budget"], 1 << 29)
        for key in ("text", "token_ids", "logits_hash"):
            self.assertEqual(pressed[key], calm[key])

    def test_it_can_be_turned_off(self):
        self.stall("some avg10=40.00\n")
        self.assertEqual(self.run_model("--no-pressure")["pressure"]["shrunk"], 0)
        self.assertEqual(self.run_model(SNUG_NO_PRESSURE="1")["pressure"]["shrunk"], 0)

    def test_garbage_is_no_pressure(self):
        for text in ("", "some avg10=\n", "full avg10=99.00\n"):
            self.stall(text)
            self.assertEqual(self.run_model()["pressure"]["shrunk"], 0)


main()
