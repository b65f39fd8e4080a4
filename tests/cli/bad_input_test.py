"""Broken files and impossible requests: a one-line error and exit code 1, from every command that reads a model."""

import struct

from support import FAIL_READS, CliTest, main


def string(text):
    return struct.pack("<Q", len(text)) + text


class BadInput(CliTest):
    def patched(self, find, replace, skip=0):
        """The model with bytes replaced `skip` bytes after the (only) place where `find` stands."""
        self.assertEqual(self.model_bytes.count(find), 1)
        at = self.model_bytes.index(find) + len(find) + skip
        data = bytearray(self.model_bytes)
        data[at : at + len(replace)] = replace
        return self.write("bad.gguf", bytes(data))

    def assert_every_command_fails(self, path, *words):
        self.assert_fails(self.snug("run", path, "-n", "1", "hi"), *words)
        self.assert_fails(self.snug("bench", path, "--prompt", "8", "--gen", "1", "--depth", "0"), *words)

    def test_truncated_anywhere(self):
        for size in (0, 3, 4, 20, 100, 4000, len(self.model_bytes) // 2, len(self.model_bytes) - 1):
            self.assert_fails(self.snug("run", self.write("cut.gguf", self.model_bytes[:size]), "-n", "1", "hi"))

    def test_wrong_magic(self):
        path = self.write("bad.gguf", b"PK\x03\x04" + self.model_bytes[4:])
        self.assert_every_command_fails(path, "GGUF")
        self.assert_fails(self.snug("show", path), "GGUF")

    def test_absurd_counts(self):
        for at in (8, 16):  # of tensors, of metadata entries
            for count in (2**63, 2**64 - 1, 2**40):
                data = self.model_bytes[:at] + struct.pack("<Q", count) + self.model_bytes[at + 8 :]
                self.assert_fails(self.snug("show", self.write("bad.gguf", data)))

    def test_absurd_lengths_and_shapes(self):
        self.assert_fails(self.snug("show", self.patched(string(b"general.architecture"), struct.pack("<Q", 2**62), skip=4)))
        self.assert_every_command_fails(self.patched(string(b"llama.block_count"), struct.pack("<I", 2**31), skip=4), "block_count")
        self.assert_every_command_fails(self.patched(string(b"llama.embedding_length"), struct.pack("<I", 0), skip=4))
        self.assert_every_command_fails(self.patched(string(b"llama.attention.head_count"), struct.pack("<I", 7), skip=4))

    def test_missing_tensor(self):
        name = string(b"blk.1.ffn_up.weight")
        path = self.patched(name, b"blk.1.ffn_ux.weight", skip=-19)
        self.assert_every_command_fails(path, "blk.1.ffn_up.weight")

    def test_wrong_shape(self):
        path = self.patched(string(b"blk.1.ffn_up.weight"), struct.pack("<QQ", 512, 256), skip=4)
        self.assert_every_command_fails(path, "blk.1.ffn_up.weight")

    def test_unknown_type(self):
        path = self.patched(string(b"blk.1.ffn_up.weight"), struct.pack("<I", 99), skip=20)
        self.assert_every_command_fails(path, "blk.1.ffn_up.weight", "99")

    def test_unknown_architecture(self):
        path = self.patched(string(b"general.architecture"), string(b"lamas"), skip=4)
        self.assert_every_command_fails(path, "lamas", "qwen3")

    def test_read_error_half_way(self):
        path = self.write("model.gguf", self.model_bytes)
        for position in (0, 5000, len(self.model_bytes) // 2):
            result = self.snug("run", path, "-n", "1", "hi", LD_PRELOAD=FAIL_READS, SNUG_TEST_FAIL_FROM=str(position),
                               ASAN_OPTIONS="verify_asan_link_order=0")
            self.assert_fails(result, "Input/output error")

    def test_prompt_longer_than_the_context(self):
        path = self.write("model.gguf", self.model_bytes)
        self.assert_fails(self.snug("run", path, "--raw", "-c", "32", "-n", "1", "word " * 100), "context")
        self.assert_fails(self.snug("run", path, "--raw", "-n", "1", "word " * 3000), "context")

    def test_not_a_file(self):
        self.assert_fails(self.snug("run", self.path("nothing.gguf"), "hi"), "no such file")
        self.assert_fails(self.snug("run", self.folder, "hi"))
        self.assert_fails(self.snug("run", "no-such-model", "hi"), "smollm2-135m")

    def test_a_budget_too_small(self):
        path = self.write("model.gguf", self.model_bytes)
        self.assert_fails(self.snug("run", path, "--memory", "1MiB", "hi"))

    def test_wrong_usage(self):
        self.assert_fails(self.snug("run"), code=2)
        self.assert_fails(self.snug("run", "x.gguf", "--temp", "warm"), code=2)
        self.assert_fails(self.snug("frobnicate"), code=2)


class GoodInput(CliTest):
    def test_runs_are_reproducible(self):
        path = self.write("model.gguf", self.model_bytes)
        runs = [self.snug("run", path, "--raw", "-n", "16", "--temp", "1", "--seed", "7", "-t", t, "hello") for t in "12"]
        self.assertEqual([r.returncode for r in runs], [0, 0], runs[0].stderr)
        self.assertEqual(runs[0].stdout, runs[1].stdout)

    def test_a_prompt_from_the_pipe(self):
        path = self.write("model.gguf", self.model_bytes)
        piped = self.snug("run", path, "--raw", "-n", "8", "--temp", "0", stdin="hello")
        given = self.snug("run", path, "--raw", "-n", "8", "--temp", "0", "hello")
        self.assertEqual(piped.returncode, 0, piped.stderr)
        self.assertEqual(piped.stdout, given.stdout)


main()
