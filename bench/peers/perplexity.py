#!/usr/bin/env python3
"""Perplexity of snug and llama.cpp on the same text, in the same convention (windows, second halves scored).

    build/peers/llama/bin/python bench/peers/perplexity.py TEXT MODEL.gguf... [--max-tokens 20480]
"""

import argparse
import ctypes
import json
import math
import os
import subprocess

import llama_cpp
import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def llama_perplexity(path, data, context, max_tokens, kv=None):
    """`kv`: a ggml type for the cache; None: llama.cpp's own choice."""
    mp = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(path.encode(), mp)
    vocab = llama_cpp.llama_model_get_vocab(model)
    n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
    ids = (ctypes.c_int32 * (len(data) + 16))()
    n = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), True, False)
    tokens = list(ids[:n])[: max_tokens or None]
    cp = llama_cpp.llama_context_default_params()
    cp.n_ctx = cp.n_batch = cp.n_ubatch = context
    cp.n_threads = cp.n_threads_batch = os.cpu_count()
    if kv is not None:
        cp.flash_attn_type = 1
        cp.type_k = cp.type_v = kv
    ctx = llama_cpp.llama_init_from_model(model, cp)
    batch = llama_cpp.llama_batch_init(context, 0, 1)
    add_bos = llama_cpp.llama_vocab_get_add_bos(vocab)
    total, count = 0.0, 0
    for w in range(len(tokens) // context):
        window = tokens[w * context : (w + 1) * context]
        if add_bos:
            window = [llama_cpp.llama_vocab_bos(vocab)] + window[1:]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(ctx), True)
        batch.n_tokens = context
        for i, t in enumerate(window):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = t, i, 1, i >= context // 2
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(ctx, batch) == 0
        for i in range(context // 2, context - 1):
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, i), shape=(n_vocab,)).astype(np.float64)
            top = logits.max()
            total += top + math.log(np.exp(logits - top).sum()) - logits[tokens[w * context + i + 1]]
            count += 1
    return math.exp(total / count), count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=20480)
    parser.add_argument("--snug", default=os.path.join(ROOT, "build/release/snug"))
    o = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    data = open(o.text, "rb").read()
    print("| model | scored tokens | llama.cpp | snug | difference |\n|---|---|---|---|---|")
    for model in o.models:
        theirs, count = llama_perplexity(model, data, o.context, o.max_tokens)
        command = [o.snug, "eval", "ppl", model, "--text", o.text, "--context", str(o.context), "--max-tokens", str(o.max_tokens), "--json"]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert ours["tokens"] == count
        print(f"| {os.path.basename(model)} | {count} | {theirs:.4f} | {ours['ppl']:.4f} | {100 * (ours['ppl'] / theirs - 1):+.2f}% |", flush=True)


if __name__ == "__main__":
    main()
