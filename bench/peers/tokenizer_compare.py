#!/usr/bin/env python3
"""Token ids of snug and llama.cpp on mixed text: many scripts, code, emoji, whitespace runs, and any files given.

    bench/peers/setup.sh
    build/peers/llama/bin/python bench/peers/tokenizer_compare.py MODEL.gguf... [--text FILE]...

`--pre NAME` compares with the models' vocabulary cut by another pre-tokenizer; `--pre gemma4` turns a SentencePiece
vocabulary into gemma 4's kind, with merges made from the scores.
"""

import argparse
import ctypes
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

import llama_cpp

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def mixed_text(size, seed):
    """Random words of every script, numbers, punctuation, emoji sequences, control and whitespace characters."""
    rng = random.Random(seed)
    assigned = [c for c in range(0x20, 0x2FA20) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    blocks = [assigned[i : i + 64] for i in range(0, len(assigned), 64)]
    emoji = ["👍", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪", "❤️", "🏳️‍🌈", "e\u0301", "n\u0303", "\u200d", "\ufe0f", "ﬁ", "Å", "Å"]
    spaces = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2028", "    " * 4, "\t\t", "\x0b", "\x0c", "\x85"]
    ascii_words = "the of and I'm you're they'll we've he'd it's DON'T WE'LL def return int main() { } if (x<=10) for(i=0;i<n;++i) https://example.org/a?b=c&d=%20 3.14159 1234567 1,000,000.00 x86_64 __init__ a_b-c.d #include <stdio.h> // comment /* */ \"quoted\" 'single' `tick` $VAR @user #tag 50% C++ e.g. U.S.A. …".split()
    out, length = [], 0
    while length < size:
        kind = rng.random()
        if kind < 0.35:
            piece = rng.choice(ascii_words)
        elif kind < 0.7:
            block = rng.choice(blocks)
            piece = "".join(chr(rng.choice(block)) for _ in range(rng.randint(1, 8)))
        elif kind < 0.8:
            piece = str(rng.randrange(10 ** rng.randint(1, 9)))
        elif kind < 0.85:
            piece = rng.choice(emoji) * rng.randint(1, 3)
        elif kind < 0.9:
            piece = "".join(chr(rng.choice(assigned)) for _ in range(rng.randint(1, 5)))
        else:
            piece = "".join(rng.choice(spaces) for _ in range(rng.randint(1, 4)))
        piece += rng.choice(["", " ", " ", " ", "\n"])
        out.append(piece)
        length += len(piece.encode())
    return "".join(out)


def vocabulary_with(model, pre, path):
    """A file with the vocabulary of `model` only, and another pre-tokenizer."""
    import gguf

    reader = gguf.GGUFReader(model)
    fields = {key: field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.ggml.")}
    tokens = fields["tokenizer.ggml.tokens"]
    w = gguf.GGUFWriter(path, "llama")
    if pre == "gemma4":
        w.add_tokenizer_model("gemma4")
        known, merges = set(tokens), []
        for token in sorted(tokens, key=dict(zip(tokens, fields["tokenizer.ggml.scores"])).get, reverse=True):
            merges += [f"{token[:i]} {token[i:]}" for i in range(1, len(token)) if token[:i] in known and token[i:] in known]
        w.add_token_merges(merges)
    else:
        w.add_tokenizer_model("gpt2")
        w.add_token_merges(fields["tokenizer.ggml.merges"])
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(fields["tokenizer.ggml.token_type"])
    for name in "bos", "eos", "unknown":
        if (key := f"tokenizer.ggml.{name}_token_id") in fields:
            w.add_uint32(key, int(fields[key]))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


class LlamaTokenizer:
    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, data):
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, room, False, False)
        if n < 0:
            sys.exit("llama_tokenize failed")
        return list(ids[:n])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--pre", action="append", default=[])
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--size", type=int, default=2 << 20, help="bytes of generated text")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    sources = [mixed_text(o.size, o.seed)]
    sources += [open(p, encoding="utf-8").read() for p in o.text]
    sources.append("\n".join(open(p, encoding="utf-8").read() for p in sorted(glob.glob(os.path.join(ROOT, "src/**/*.?pp"), recursive=True))))
    failed = False
    folder = tempfile.TemporaryDirectory()
    models = list(o.models)
    if o.pre:
        models = [os.path.join(folder.name, f"{os.path.basename(m)}-{pre}.gguf") for m in o.models for pre in o.pre]
        for path, (m, pre) in zip(models, ((m, pre) for m in o.models for pre in o.pre)):
            vocabulary_with(m, pre, path)
    for model in models:
        peer = LlamaTokenizer(model)
        differences = total = size = 0
        for text in sources:
            # In pieces, so that a difference can be shown.
            lines = text.split("\n")
            step = max(1, len(lines) // 200)
            for at in range(0, len(lines), step):
                data = "\n".join(lines[at : at + step]).encode()
                with tempfile.NamedTemporaryFile() as f:
                    f.write(data)
                    f.flush()
                    ours = json.loads(subprocess.run([o.snug, "tokenize", model, "-f", f.name, "--json"], check=True, capture_output=True).stdout)
                theirs = peer.encode(data)
                total += len(theirs)
                size += len(data)
                if ours != theirs:
                    differences += 1
                    if differences <= 3:
                        i = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
                        print(f"  at token {i}: snug {ours[i:i+6]}, llama.cpp {theirs[i:i+6]}")
        print(f"{os.path.basename(model)}: {size} bytes, {total} tokens, {differences} pieces with differences")
        failed |= differences > 0
    sys.exit(failed)


main()
