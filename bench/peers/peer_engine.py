"""Measures llama.cpp or ik_llama.cpp, whichever this interpreter has, on one model; prints one JSON object.

Runs as a child of compare.py: peer_engine.py MODEL --prompt 512 --gen 64 --depth 0,4096 --threads 2 --batch 1
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import sys
import time


def load_api():
    try:
        import llama_cpp as api

        return "llama.cpp", api
    except ImportError:
        pass
    import importlib.util

    folder = os.path.dirname(importlib.util.find_spec("ik_llama_cpp").origin)
    ctypes.CDLL(os.path.join(folder, "lib", "libggml.so"), mode=ctypes.RTLD_GLOBAL)  # found by name afterwards
    from ik_llama_cpp import _ctypes_api as api

    return "ik_llama.cpp", api


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--depth", default="0")
    parser.add_argument("--prefill-depth", default="0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kv", default="f16", choices=["f16", "q8_0", "q4_0"], help="type of the KV cache")
    parser.add_argument("--no-repack", action="store_true", help="weights as they lie in the file, mapped")
    options = parser.parse_args()
    engine, api = load_api()
    depths = [int(d) for d in options.depth.split(",")]
    prefill_depths = [int(d) for d in options.prefill_depth.split(",")]

    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    try:
        api.llama_log_set(silent, None)
    except AttributeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    api.llama_backend_init()
    start = time.perf_counter()
    mp = api.llama_model_default_params()
    mp.n_gpu_layers = 0
    if engine == "ik_llama.cpp":
        mp.repack_tensors = not options.no_repack  # its fastest: weights interleaved by rows at load
    elif options.no_repack:
        mp.use_extra_bufts = False
    model = api.llama_model_load_from_file(options.model.encode(), mp)
    cp = api.llama_context_default_params()
    cp.n_ctx = max(max(depths) + options.gen, max(prefill_depths) + options.prompt) + 64
    cp.n_batch = 2048
    cp.n_ubatch = 512
    cp.n_threads = cp.n_threads_batch = options.threads
    if engine == "ik_llama.cpp":
        cp.flash_attn = True
    else:
        cp.flash_attn_type = 1
    cp.type_k = cp.type_v = {"f16": 1, "q4_0": 2, "q8_0": 8}[options.kv]
    context = api.llama_init_from_model(model, cp)
    load_seconds = time.perf_counter() - start
    vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    batch = api.llama_batch_init(2048, 0, 1)

    def feed(position, count):
        while count > 0:
            n = min(count, 2048)
            batch.n_tokens = n
            for i in range(n):
                batch.token[i] = ((position + i) * 7919 + 13) % vocab
                batch.pos[i] = position + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = 1 if i == n - 1 else 0
            if api.llama_decode(context, batch) != 0:
                sys.exit("llama_decode failed")
            api.llama_get_logits_ith(context, n - 1)
            position += n
            count -= n

    def clear():
        if engine == "ik_llama.cpp":
            api.llama_kv_cache_clear(context)
        else:
            api.llama_memory_clear(api.llama_get_memory(context), True)

    def forget_from(position):
        if engine == "ik_llama.cpp":
            remove = api._lib.llama_kv_cache_seq_rm
            remove.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
            remove(context, 0, position, -1)
        else:
            api.llama_memory_seq_rm(api.llama_get_memory(context), 0, position, -1)

    result = {"engine": engine, "load_seconds": load_seconds, "prefill": [], "decode": []}
    feed(0, 16)
    for depth in prefill_depths if options.prompt else []:
        clear()
        feed(0, depth)
        speeds = []
        for _ in range(options.repeat):
            forget_from(depth)
            start = time.perf_counter()
            feed(depth, options.prompt)
            speeds.append(options.prompt / (time.perf_counter() - start))
        result["prefill"].append({"depth": depth, "tok_s": statistics.median(speeds)})
    for depth in depths if options.gen else []:
        clear()
        feed(0, depth + 1)
        start = time.perf_counter()
        for i in range(options.gen):
            feed(depth + 1 + i, 1)
        result["decode"].append({"depth": depth, "tok_s": options.gen / (time.perf_counter() - start)})
    result["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


main()
