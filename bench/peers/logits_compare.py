#!/usr/bin/env python3
"""Logits of snug and llama.cpp on the same files and random tokens.

    build/peers/llama/bin/python bench/peers/logits_compare.py MODEL.gguf... [--tokens 150] [--reference]

snug's cache is bf16; llama.cpp's f32, and bf16 in the last column (median, largest), to show what that rounding alone
does. A row's difference is |snug - llama.cpp| over the standard deviation of its logits. The tolerance is 0.1, or
twice what a bf16 cache does to nine in ten of llama.cpp's own rows. In a mixture of experts, rows at or
after a near tie between the last chosen and the first left-out expert (by llama.cpp's own probabilities) may choose
otherwise: those beyond the tolerance are counted as routing flips.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BASE = None


def library():
    for folder in (os.path.join(os.path.dirname(llama_cpp.__file__), "lib"),):
        for name in sorted(os.listdir(folder)):
            if name.startswith("libggml-base.so"):
                return ctypes.CDLL(os.path.join(folder, name))
    raise SystemExit("libggml-base.so not found")


class Margins:
    """Per token, the smallest gap between the chosen and the left-out experts over all layers."""

    def __init__(self, tokens, experts, used):
        self.lib, self.used, self.experts = library(), used, experts
        self.lib.ggml_get_name.restype = ctypes.c_char_p
        self.lib.ggml_get_name.argtypes = self.lib.ggml_nbytes.argtypes = [ctypes.c_void_p]
        self.lib.ggml_nbytes.restype = ctypes.c_size_t
        self.lib.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self.smallest = np.full(tokens, np.inf)
        self.callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(self.see)

    def see(self, tensor, ask, _):
        wanted = self.lib.ggml_get_name(tensor).startswith(b"ffn_moe_logits")
        if ask or not wanted:
            return wanted
        data = np.empty(self.lib.ggml_nbytes(tensor) // 4, np.float32)
        self.lib.ggml_backend_tensor_get(tensor, data.ctypes.data, 0, data.nbytes)
        rows = np.sort(data.reshape(-1, self.experts), axis=1)[:, ::-1]
        gap = rows[:, self.used - 1] - rows[:, self.used]
        self.smallest[: len(gap)] = np.minimum(self.smallest[: len(gap)], gap)
        return True


def metadata(model, key):
    buffer = ctypes.create_string_buffer(256)
    n = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, 256)
    return buffer.value.decode() if n >= 0 else None


F32, BF16 = 0, 30  # ggml types


def llama_logits(path, tokens, cache):
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    arch = metadata(model, "general.architecture")
    experts = int(metadata(model, arch + ".expert_count") or 0)
    cp = llama_cpp.llama_context_default_params()
    cp.n_ctx = cp.n_batch = cp.n_ubatch = max(256, len(tokens))
    cp.type_k = cp.type_v = cache
    cp.flash_attn_type = int(cache != F32)
    margins = Margins(len(tokens), experts, int(metadata(model, arch + ".expert_used_count"))) if experts else None
    if margins:
        cp.cb_eval = ctypes.cast(margins.callback, type(cp.cb_eval)) if type(cp.cb_eval) is not int else margins.callback
    ctx = llama_cpp.llama_init_from_model(model, cp)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, t in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(t), i, 1, True
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(ctx, batch) == 0
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, i), shape=(n_vocab,)).copy() for i in range(len(tokens))]
    return np.array(rows), margins.smallest if margins else None


def relative(rows, base):
    return np.abs(rows - base).max(axis=1) / base.std(axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--tolerance", type=float, default=0.1)
    parser.add_argument("--near", type=float, default=0.02, help="router logits closer than this are a near tie")
    parser.add_argument("--reference", action="store_true", help="snug in f32")
    parser.add_argument("--logits", default=os.path.join(ROOT, "build/release/logits"))
    o = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda level, text, _: sys.stderr.write(text.decode()) if level >= 3 else None)
    llama_cpp.llama_log_set(silent, None)
    print("| model | median difference | largest | KL mean | same first token | routing flips | llama.cpp with a bf16 cache |\n|---|---|---|---|---|---|---|")
    bad = 0
    for path in o.models:
        tokens = np.random.default_rng(7).integers(0, 256, o.tokens)
        theirs, margins = llama_logits(path, tokens, F32)
        rounded = relative(llama_logits(path, tokens, BF16)[0], theirs)
        with tempfile.NamedTemporaryFile() as out:
            command = [o.logits, path, out.name] + ["--reference"] * o.reference + [str(t) for t in tokens]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"| {os.path.basename(path)} | {done.stderr.strip()} |")
                bad += 1
                continue
            ours = np.fromfile(out.name, np.float32).reshape(theirs.shape)
        difference = relative(ours, theirs)
        tolerance = max(o.tolerance, 2 * np.quantile(rounded, 0.9))
        over = difference > tolerance
        flips = over & (np.minimum.accumulate(margins) < o.near) if margins is not None else np.zeros_like(over)
        p, q = (np.exp(x - x.max(axis=1, keepdims=True)).astype(np.float64) for x in (theirs, ours))
        p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
        kl = (p * np.log(p / q)).sum(axis=1)
        same = (ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()
        verdict = "" if not (over & ~flips).any() else f" **{(over & ~flips).sum()} rows beyond {tolerance:.3f}**"
        bad += bool(verdict)
        print(f"| {os.path.basename(path)} | {np.median(difference):.4f} | {difference[~flips].max(initial=0):.4f} | {kl[~flips].mean():.2e} "
              f"| {same} of {len(tokens)} | {flips.sum()}{verdict} | {np.median(rounded):.4f}, {rounded.max():.4f} |", flush=True)
    sys.exit(bad > 0)


main()
