#!/usr/bin/env python3
"""Writes GGUF files with random weights: real shapes for speed and memory, tiny ones for comparing logits.

    python3 tools/make_model.py llama-1b --type q4_k -o llama-1b.gguf
    python3 tools/make_model.py tiny-gpt-oss --type f16 -o tiny.gguf --set gpt-oss.rope.freq_base=500000
    python3 tools/make_model.py --list

Needs the Python packages gguf and numpy.
"""

import argparse
import sys

import gguf
import numpy as np

Q = gguf.GGMLQuantizationType

# Where a block keeps its f16 scales, with the factor that gives values of about unit deviation and no mean (a mean is a
# direction that all rows share: it would drown everything else, and every token would choose the same experts).
RANDOM_BLOCKS = {
    Q.Q2_K: [(80, 1 / 13), (82, 1 / 9)],
    Q.Q3_K: [(108, 1 / 40)],
    Q.Q4_K: [(0, 1 / 200), (2, 7.5 / 200)],
    Q.Q5_K: [(0, 1 / 400), (2, 15.5 / 400)],
    Q.Q6_K: [(208, 1 / 1300)],
    Q.IQ4_NL: [(0, 1 / 70)],
    Q.IQ4_XS: [(0, 1 / 1300)],
}


def shape(arch, layers, width, heads, kv_heads, head_dim, ffn, vocab, context=32768, base=10000.0, tied=True, **extra):
    return dict(arch=arch, layers=layers, width=width, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=ffn,
                vocab=vocab, context=context, base=base, tied=tied, **extra)


SHAPES = {
    "llama-1b": shape("llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, 500000.0),
    "llama-8b": shape("llama", 32, 4096, 32, 8, 128, 14336, 128256, 131072, 500000.0, tied=False),
    "qwen3-4b": shape("qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 40960, 1e6, qk_norm="head"),
    "qwen3-30b-a3b": shape("qwen3moe", 48, 2048, 32, 4, 128, 6144, 151936, 40960, 1e6, tied=False, qk_norm="head",
                           experts=128, used=8, expert_ffn=768),
    "mixtral-8x7b": shape("llama", 32, 4096, 32, 8, 128, 14336, 32000, 32768, 1e6, tied=False, experts=8, used=2),
    "gpt-oss-20b": shape("gpt-oss", 24, 2880, 64, 8, 64, 2880, 201088, 131072, 150000.0, tied=False, experts=32, used=4,
                         expert_ffn=2880, bias="all", sinks=True, window=128, expert_type=Q.MXFP4),
    "qwen3.5-0.8b": shape("qwen35", 24, 1024, 8, 2, 256, 3584, 248320, 262144, 1e7, qk_norm="head", rotary=64,
                          delta=dict(conv=4, key_heads=16, value_heads=16, dim=128)),
    # A neuron is active for about 8 in 100 tokens, and a map of rank 64 says for which.
    "relu-0.7b": shape("arcee", 12, 2048, 16, 8, 128, 12288, 288, tied=False, ungated=True, active=dict(rank=64)),
    "tiny-arcee": shape("arcee", 3, 128, 4, 2, 32, 256, 512, ungated=True),
    "tiny-llama": shape("llama", 3, 128, 4, 2, 32, 256, 512),
    "tiny-llama3": shape("llama", 3, 128, 4, 2, 32, 256, 512, base=500000.0, rope_freqs=True),
    "tiny-mixtral": shape("llama", 2, 128, 4, 2, 32, 256, 512, experts=4, used=2),
    "tiny-smollm3": shape("smollm3", 5, 128, 4, 2, 32, 256, 512),
    "tiny-qwen2": shape("qwen2", 3, 128, 4, 2, 32, 256, 512, bias="qkv"),
    "tiny-qwen3": shape("qwen3", 3, 128, 4, 2, 64, 256, 512, qk_norm="head"),
    "tiny-qwen3moe": shape("qwen3moe", 2, 128, 4, 2, 64, 256, 512, qk_norm="head", experts=8, used=3, expert_ffn=96),
    "tiny-olmoe": shape("olmoe", 2, 128, 4, 4, 32, 96, 512, tied=False, qk_norm="row", experts=8, used=3),
    "tiny-phi3": shape("phi3", 3, 128, 4, 4, 32, 256, 512, fused=True, tied=False, rotary=32),
    "tiny-phi3-longrope": shape("phi3", 3, 128, 4, 4, 32, 256, 512, fused=True, tied=False, rotary=32, longrope=True),
    "tiny-gemma3": shape("gemma3", 7, 128, 4, 2, 32, 256, 512, base=1e6, qk_norm="head", post_norms=True, window=16),
    "tiny-gpt-oss": shape("gpt-oss", 3, 128, 4, 2, 32, 96, 512, base=150000.0, tied=False, experts=8, used=3, expert_ffn=96,
                          bias="all", sinks=True, window=16, ffn_norm="post_attention_norm"),
    "tiny-gemma4": shape("gemma4", 6, 128, 4, 2, 64, 256, 512, base=1e6, qk_norm="head", post_norms=True, window=16,
                         gemma4=dict(per_layer=32, shared=3, window_dim=32, pattern=3)),
    "tiny-gemma4moe": shape("gemma4", 4, 128, 4, 2, 64, 256, 512, base=1e6, qk_norm="head", post_norms=True, window=16,
                            experts=8, used=3, expert_ffn=96,
                            gemma4=dict(per_layer=0, shared=0, window_dim=32, pattern=2, no_value=True)),
    "tiny-qwen35": shape("qwen35", 4, 128, 4, 2, 32, 256, 512, qk_norm="head", rotary=16, ffn_norm="post_attention_norm",
                         delta=dict(conv=4, key_heads=2, value_heads=4, dim=32)),
    "tiny-qwen35moe": shape("qwen35moe", 4, 128, 4, 2, 32, 256, 512, qk_norm="head", rotary=16, experts=8, used=3,
                            expert_ffn=96, shared_ffn=64, ffn_norm="post_attention_norm",
                            delta=dict(conv=4, key_heads=2, value_heads=4, dim=32)),
    "tiny-qwen3next": shape("qwen3next", 4, 128, 4, 2, 32, 256, 512, qk_norm="head", rotary=16, experts=8, used=3,
                            expert_ffn=96, shared_ffn=64, ffn_norm="post_attention_norm",
                            delta=dict(conv=4, key_heads=2, value_heads=4, dim=32)),
}
SHAPES["gpt-oss-20b"]["ffn_norm"] = SHAPES["qwen3.5-0.8b"]["ffn_norm"] = "post_attention_norm"


def tensors(s):
    """Yields (name, shape in numpy order, kind): kind "norm" about 1, "vector" small, "matrix" in the file's type."""
    width, q, kv = s["width"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    bias = s.get("bias", "")
    g4, delta = s.get("gemma4"), s.get("delta")
    yield "token_embd.weight", (s["vocab"], width), "embedding"
    if not s["tied"]:
        yield "output.weight", (s["vocab"], width), "matrix"
    yield "output_norm.weight", (width,), "norm"
    if g4 and g4["per_layer"]:
        n = g4["per_layer"] * s["layers"]
        yield "per_layer_token_embd.weight", (s["vocab"], n), "embedding"
        yield "per_layer_model_proj.weight", (n, width), "matrix"
        yield "per_layer_proj_norm.weight", (g4["per_layer"],), "norm"
    if s.get("longrope"):
        yield "rope_factors_long.weight", (s["head_dim"] // 2,), "rope_factors"
        yield "rope_factors_short.weight", (s["head_dim"] // 2,), "rope_factors"
    if g4 or s.get("rope_freqs"):
        yield "rope_freqs.weight", (s["head_dim"] // 2,), "rope_freqs"
    for i in range(s["layers"]):
        p = f"blk.{i}."
        head = s["head_dim"]
        if g4 and (i + 1) % g4["pattern"]:
            head = g4["window_dim"]
            q, kv = s["heads"] * head, s["kv_heads"] * head
        elif g4:
            q, kv = s["heads"] * head, s["kv_heads"] * head
        yield p + "attn_norm.weight", (width,), "norm"
        if delta and (i + 1) % 4:
            k, v = delta["key_heads"] * delta["dim"], delta["value_heads"] * delta["dim"]
            yield p + "attn_qkv.weight", (2 * k + v, width), "matrix"
            yield p + "attn_gate.weight", (v, width), "matrix"
            yield p + "ssm_conv1d.weight", (2 * k + v, delta["conv"]), "f32"
            yield p + "ssm_dt.bias", (delta["value_heads"],), "vector"
            yield p + "ssm_a", (delta["value_heads"],), "negative"
            if s["arch"] == "qwen3next":
                yield p + "ssm_ba.weight", (2 * delta["value_heads"], width), "matrix"
            else:
                yield p + "ssm_beta.weight", (delta["value_heads"], width), "matrix"
                yield p + "ssm_alpha.weight", (delta["value_heads"], width), "matrix"
            yield p + "ssm_norm.weight", (delta["dim"],), "norm"
            yield p + "ssm_out.weight", (width, v), "matrix"
        else:
            own_kv = not (g4 and i >= s["layers"] - g4["shared"])
            rows_q = 2 * q if delta else q
            if s.get("fused"):
                yield p + "attn_qkv.weight", (q + 2 * kv, width), "matrix"
            else:
                yield p + "attn_q.weight", (rows_q, width), "matrix"
                if own_kv:
                    yield p + "attn_k.weight", (kv, width), "matrix"
                    if not (g4 and g4.get("no_value") and (i + 1) % g4["pattern"] == 0):
                        yield p + "attn_v.weight", (kv, width), "matrix"
            if bias:
                for name, rows in ("attn_q", q), ("attn_k", kv), ("attn_v", kv):
                    yield p + name + ".bias", (rows,), "vector"
            yield p + "attn_output.weight", (width, q), "quiet" if s.get("active") else "matrix"
            if bias == "all":
                yield p + "attn_output.bias", (width,), "vector"
            if s.get("qk_norm"):
                row = s["qk_norm"] == "row"
                yield p + "attn_q_norm.weight", (q if row else head,), "norm"
                if own_kv:
                    yield p + "attn_k_norm.weight", (kv if row else head,), "norm"
            if s.get("sinks"):
                yield p + "attn_sinks.weight", (s["heads"],), "vector"
        yield p + s.get("ffn_norm", "ffn_norm") + ".weight", (width,), "norm"
        if s.get("post_norms"):
            yield p + "post_attention_norm.weight", (width,), "norm"
            yield p + "post_ffw_norm.weight", (width,), "norm"
        if s.get("experts"):
            n, f = s["experts"], s.get("expert_ffn", s["ffn"])
            yield p + "ffn_gate_inp.weight", (n, width), "router"
            yield p + "ffn_gate_exps.weight", (n, f, width), "expert"
            yield p + "ffn_up_exps.weight", (n, f, width), "expert"
            yield p + "ffn_down_exps.weight", (n, width, f), "expert"
            if bias == "all":
                yield p + "ffn_gate_inp.bias", (n,), "vector"
                yield p + "ffn_gate_exps.bias", (n, f), "vector"
                yield p + "ffn_up_exps.bias", (n, f), "vector"
                yield p + "ffn_down_exps.bias", (n, width), "vector"
            if s.get("shared_ffn"):
                yield p + "ffn_gate_inp_shexp.weight", (width,), "vector"
                yield p + "ffn_gate_shexp.weight", (s["shared_ffn"], width), "matrix"
                yield p + "ffn_up_shexp.weight", (s["shared_ffn"], width), "matrix"
                yield p + "ffn_down_shexp.weight", (width, s["shared_ffn"]), "matrix"
            if g4:
                yield p + "ffn_gate_inp.scale", (width,), "norm"
                yield p + "ffn_down_exps.scale", (n,), "norm"
                for name in "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2":
                    yield p + name + ".weight", (width,), "norm"
        if not s.get("experts") or g4:
            if s.get("fused"):
                yield p + "ffn_up.weight", (2 * s["ffn"], width), "matrix"
            else:
                if not s.get("ungated"):
                    yield p + "ffn_gate.weight", (s["ffn"], width), "matrix"
                yield p + "ffn_up.weight", (s["ffn"], width), "sparse" if s.get("active") else "matrix"
            yield p + "ffn_down.weight", (width, s["ffn"]), "quiet" if s.get("active") else "matrix"
        if g4:
            yield p + "layer_output_scale.weight", (1,), "norm"
            if g4["per_layer"]:
                yield p + "inp_gate.weight", (g4["per_layer"], width), "matrix"
                yield p + "proj.weight", (width, g4["per_layer"]), "matrix"
                yield p + "post_norm.weight", (width,), "norm"


def add_metadata(w, s, overrides):
    a = s["arch"]
    numbers = {
        "block_count": s["layers"], "embedding_length": s["width"], "context_length": s["context"],
        "feed_forward_length": s["ffn"], "attention.head_count": s["heads"], "attention.head_count_kv": s["kv_heads"],
        "attention.key_length": s["head_dim"], "attention.value_length": s["head_dim"],
        "rope.dimension_count": s.get("rotary", s["head_dim"]),
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": s["base"],
    }
    if s.get("experts"):
        numbers |= {"expert_count": s["experts"], "expert_used_count": s["used"]}
        if "expert_ffn" in s:
            numbers["expert_feed_forward_length"] = s["expert_ffn"]
        if "shared_ffn" in s:
            numbers["expert_shared_feed_forward_length"] = s["shared_ffn"]
    if s.get("window"):
        numbers["attention.sliding_window"] = s["window"]
    if d := s.get("delta"):
        numbers |= {"ssm.conv_kernel": d["conv"], "ssm.inner_size": d["value_heads"] * d["dim"], "ssm.state_size": d["dim"],
                    "ssm.time_step_rank": d["value_heads"], "ssm.group_count": d["key_heads"], "full_attention_interval": 4}
        if a != "qwen3next":
            r = s["rotary"] // 2
            w.add_array(f"{a}.rope.dimension_sections", [(r + 2) // 3, (r + 1) // 3, r // 3, 0])
    if g := s.get("gemma4"):
        numbers |= {"attention.key_length_swa": g["window_dim"], "attention.value_length_swa": g["window_dim"],
                    "attention.shared_kv_layers": g["shared"], "embedding_length_per_layer_input": g["per_layer"],
                    "rope.freq_base_swa": 10000.0, "rope.dimension_count_swa": g["window_dim"],
                    "final_logit_softcapping": 30.0}
        w.add_array(f"{a}.attention.sliding_window_pattern", [(i + 1) % g["pattern"] != 0 for i in range(s["layers"])])
    for key, value in numbers.items():
        (w.add_float32 if isinstance(value, float) else w.add_uint32)(f"{a}.{key}", value)
    for key, value in overrides:
        try:
            w.add_uint32(key, int(value))
        except ValueError:
            try:
                w.add_float32(key, float(value))
            except ValueError:
                w.add_string(key, value)


def add_tokenizer(w, vocab):
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    spare = iter(range(256, 512))
    tokens = [chr(b if b in printable else next(spare)) for b in range(256)] + ["<end>"]
    tokens += [f"<unused{i}>" for i in range(len(tokens), vocab)]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([1] * 256 + [3] + [5] * (vocab - 257))
    w.add_token_merges(["h e"])
    w.add_eos_token_id(256)
    w.add_add_bos_token(False)


def block_type(name, shape, kind, s, wanted):
    if kind in ("norm", "vector", "negative", "rope_freqs", "rope_factors", "f32", "router") or len(shape) == 1:
        return Q.F32
    if kind == "expert" and wanted not in (Q.F16, Q.F32, Q.BF16):
        wanted = s.get("expert_type", wanted)
    if shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
        wanted = Q.Q8_0 if shape[-1] % 32 == 0 else Q.F16
    if kind == "embedding" and wanted in (Q.Q4_K, Q.Q5_K, Q.IQ4_XS):
        wanted = Q.Q6_K
    return wanted


def random_bytes(random, count, qtype, deviation):
    """`count` values in `qtype`, as bytes; large tensors repeat a stretch of 4 Mi values."""
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    stretch = min(count, 4 << 20)
    if qtype in RANDOM_BLOCKS or qtype == Q.MXFP4:
        blocks = random.integers(0, 256, (stretch // block, size), dtype=np.uint8)
        for at, factor in RANDOM_BLOCKS.get(qtype, []):
            blocks[:, at : at + 2] = np.frombuffer(np.float16(deviation * factor).tobytes(), np.uint8)
        if qtype == Q.MXFP4:
            blocks[:, 0] = round(127 + np.log2(deviation / 4))
        data = blocks.reshape(-1)
    else:
        values = random.normal(0, deviation, stretch).astype(np.float32)
        data = gguf.quantize(values.reshape(-1, block), qtype).reshape(-1).view(np.uint8)
    return np.resize(data, count // block * size)


def sparse_rows(random, shape, rank):
    """Rows whose products with normalised inputs are mostly below 0: channel 0 of the inputs is about 2 (`embedding_rows`),
    and the rows' values there are negative. What else they say is nine tenths a map of low rank."""
    rows, cols = shape
    low = random.normal(0, rank**-0.5, (rows, rank)) @ random.normal(0, cols**-0.5, (rank, cols))
    values = 0.95 * low + random.normal(0, 0.32 * cols**-0.5, shape)
    values[:, 0] = random.normal(-1.15, 0.2, rows)
    return values.astype(np.float32)


def quiet_rows(random, shape, scale):
    """Small beside the embedding, and without a say in channel 0."""
    values = random.normal(0, scale * shape[-1] ** -0.5, shape).astype(np.float32)
    values[0] = 0
    return values


def embedding_rows(random, shape):
    values = random.normal(0, 2 * shape[-1] ** -0.5, shape).astype(np.float32)
    values[:, 0] = 4 * shape[-1] ** -0.5
    return values


def make(name, wanted, path, seed, overrides, skew):
    s = SHAPES[name]
    random = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, s["arch"])
    w.add_name("random weights")
    add_metadata(w, s, overrides)
    add_tokenizer(w, s["vocab"])
    plan = [(n, shape, kind, block_type(n, shape, kind, s, wanted)) for n, shape, kind in tensors(s)]
    for n, shape, kind, qtype in plan:
        block, size = gguf.GGML_QUANT_SIZES[qtype]
        count = int(np.prod(shape))
        raw = {Q.F32: np.float32, Q.F16: np.float16}.get(qtype, np.uint8)
        stored = shape if raw != np.uint8 else (*shape[:-1], shape[-1] // block * size)
        w.add_tensor_info(n, stored, np.dtype(raw), count // block * size, None if raw != np.uint8 else qtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for n, shape, kind, qtype in plan:
        count = int(np.prod(shape))
        if kind == "norm" and s.get("gemma4") and n.endswith(("q_norm.weight", "k_norm.weight")):
            data = random.normal(0.35, 0.03, count).astype(np.float32)  # it does not scale by the head dimension
        elif kind == "norm":
            data = random.normal(1, 0.1, count).astype(np.float32)
        elif kind == "vector":
            data = random.normal(0, 0.5, count).astype(np.float32)
        elif kind == "negative":
            data = -np.exp(random.uniform(-3, 1, count)).astype(np.float32)
        elif kind == "rope_freqs":
            kept = np.arange(count) < count // 4
            data = np.where(kept, 1.0, 1e30 if s.get("gemma4") else 8.0).astype(np.float32)
        elif kind == "rope_factors":
            data = random.uniform(1, 8, count).astype(np.float32)
        elif kind == "sparse":
            data = gguf.quantize(sparse_rows(random, shape, s["active"]["rank"]), qtype)
        elif kind == "quiet":
            data = gguf.quantize(quiet_rows(random, shape, 0.1 if "ffn" in n else 0.02), qtype)
        elif kind == "embedding" and s.get("active"):
            data = gguf.quantize(embedding_rows(random, shape), qtype)
        else:
            data = random_bytes(random, count, qtype, {"embedding": 2, "router": 4}.get(kind, 1) * shape[-1] ** -0.5)
        if kind == "router" and skew:  # experts' chances by rank, in an order of each layer's own
            rows = np.frombuffer(data, np.float32).reshape(shape) * (1 + random.permutation(shape[0]))[:, None] ** -skew
            data = rows.astype(np.float32)
        w.write_tensor_data(data)
        if sys.stderr.isatty():
            print(f"\r{n:40}", end="", file=sys.stderr)
    w.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=SHAPES)
    parser.add_argument("--type", default="f16", help="f32 f16 bf16 q4_0 ... q6_k iq4_nl iq4_xs (default f16)")
    parser.add_argument("-o", "--output")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--router-skew", type=float, default=0, help="norm of a router's row r in a random order: r^-SKEW")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further metadata")
    parser.add_argument("--list", action="store_true")
    o = parser.parse_args()
    if o.list or not o.name:
        print("\n".join(SHAPES))
        return
    make(o.name, Q[o.type.upper()], o.output or o.name + ".gguf", o.seed, [kv.split("=", 1) for kv in o.set], o.router_skew)


if __name__ == "__main__":
    main()
