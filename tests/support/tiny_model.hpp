#pragma once
/// A llama (or what a shape makes of it) with random weights and a byte-level vocabulary, small enough to run in
/// milliseconds.

#include <algorithm>
#include <cmath>
#include <random>

#include "format/gguf.hpp"
#include "support/gguf_writer.hpp"

namespace snug::testing_support {

struct TinyShape {
  std::uint32_t vocab = 272, width = 64, layers = 2, heads = 4, kv_heads = 2, ffn = 96, context = 256;
  std::uint32_t experts = 0, used = 2;  ///< instead of the dense block
  bool ungated = false;                 ///< arcee
  bool hybrid = false;  ///< qwen35: layer 0 a gated delta rule layer, with two key heads and four value heads of 16
  std::uint32_t shared_ffn = 0;  ///< of a hybrid with experts: one more that is always used
  /// 3: norms after blocks. 4: and a dense block beside the experts, or without experts inputs of each layer of 32, and
  /// a last layer that reads the keys and values of the one before it.
  std::uint32_t gemma = 0;
  bool quantised = false;  ///< matrices in Q8_0
};

/// GPT-2's printable stand-ins for bytes.
inline std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  unsigned next = 256;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const unsigned c = printable ? b : next++;
    std::string utf8;
    if (c < 128) {
      utf8 = static_cast<char>(c);
    } else {
      utf8 += static_cast<char>(0xC0 | (c >> 6));
      utf8 += static_cast<char>(0x80 | (c & 63));
    }
    tokens.push_back(utf8);
  }
  return tokens;
}

/// Tokens 0..255: bytes; 256 "he", 257 "ll", 258 "hell", 259 "<end>" (control, EOS); the rest unused.
inline void add_tiny_tokenizer(GgufWriter& w, std::uint32_t vocab) {
  std::vector<std::string> tokens = byte_tokens();
  std::vector<std::int32_t> kinds(256, 1);
  for (const char* extra : {"he", "ll", "hell"}) tokens.push_back(extra), kinds.push_back(1);
  tokens.push_back("<end>"), kinds.push_back(3);
  while (tokens.size() < vocab) tokens.push_back("<unused" + std::to_string(tokens.size()) + ">"), kinds.push_back(5);
  w.add_string("tokenizer.ggml.model", "gpt2");
  w.add_string("tokenizer.ggml.pre", "gpt-2");
  w.add_strings("tokenizer.ggml.tokens", tokens);
  w.add_numbers("tokenizer.ggml.token_type", 5, kinds);
  w.add_strings("tokenizer.ggml.merges", {"h e", "l l", "he ll"});
  w.add_u32("tokenizer.ggml.eos_token_id", 259);
}

/// Blocks of 32 values with the one scale 2^-7.
inline std::string to_q8_0(const std::vector<float>& values) {
  std::string out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % 32 == 0) out += {'\x00', '\x20'};  // f16
    out += static_cast<char>(std::lround(std::clamp(values[i] * 128.0f, -127.0f, 127.0f)));
  }
  return out;
}

inline std::string tiny_model(const TinyShape& s = {}, std::uint32_t seed = 1) {
  GgufWriter w;
  const std::string hybrid = s.experts ? "qwen35moe" : "qwen35";
  const std::string arch = s.hybrid    ? hybrid
                           : s.gemma   ? "gemma" + std::to_string(s.gemma)
                           : s.ungated ? "arcee"
                                       : "llama";
  const std::uint32_t per_layer = s.gemma == 4 && !s.experts ? 32 : 0;
  w.add_string("general.architecture", arch);
  w.add_u32(arch + ".block_count", s.layers);
  w.add_u32(arch + ".embedding_length", s.width);
  w.add_u32(arch + ".context_length", s.context);
  w.add_u32(arch + ".feed_forward_length", s.ffn);
  w.add_u32(arch + ".attention.head_count", s.heads);
  w.add_u32(arch + ".attention.head_count_kv", s.kv_heads);
  w.add_f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  if (s.hybrid) {
    w.add_u32(arch + ".ssm.conv_kernel", 4), w.add_u32(arch + ".ssm.group_count", 2);
    w.add_u32(arch + ".ssm.time_step_rank", 4), w.add_u32(arch + ".ssm.state_size", 16);
    w.add_u32(arch + ".ssm.inner_size", 64);
  }
  if (s.shared_ffn) w.add_u32(arch + ".expert_shared_feed_forward_length", s.shared_ffn);
  if (per_layer) {
    w.add_u32(arch + ".embedding_length_per_layer_input", per_layer);
    w.add_u32(arch + ".attention.shared_kv_layers", 1);
  }
  if (s.experts) w.add_u32(arch + ".expert_count", s.experts), w.add_u32(arch + ".expert_used_count", s.used);
  add_tiny_tokenizer(w, s.vocab);
  std::mt19937 random(seed);
  const auto matrices = [&](const std::string& name, const std::vector<std::uint64_t>& shape, bool quantised) {
    std::size_t count = 1;
    for (const std::uint64_t n : shape) count *= n;
    std::normal_distribution<float> normal(0, 1.0f / std::sqrt(static_cast<float>(shape[0])));
    std::vector<float> values(count);
    for (float& v : values) v = normal(random);
    if (quantised)
      w.add_tensor(name, shape, DType::q8_0, to_q8_0(values));
    else
      w.add_tensor(name, shape, values);
  };
  const auto tensor = [&](const std::string& name, std::uint64_t cols, std::uint64_t rows) {
    matrices(name, {cols, rows}, s.quantised && cols % 32 == 0);
  };
  const auto stack = [&](const std::string& name, std::uint64_t cols, std::uint64_t rows) {
    matrices(name, {cols, rows, s.experts}, s.quantised);
  };
  const auto router = [&](const std::string& name) { matrices(name, {s.width, s.experts}, false); };
  const auto norm = [&](const std::string& name) { w.add_tensor(name, {s.width}, std::vector<float>(s.width, 1.0f)); };
  const std::uint64_t dim = s.width / s.heads;
  tensor("token_embd.weight", s.width, s.vocab);
  norm("output_norm.weight");
  if (per_layer) {
    tensor("per_layer_token_embd.weight", per_layer * s.layers, s.vocab);
    tensor("per_layer_model_proj.weight", s.width, per_layer * s.layers);
    w.add_tensor("per_layer_proj_norm.weight", {per_layer}, std::vector<float>(per_layer, 1.0f));
  }
  for (std::uint32_t i = 0; i < s.layers; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    norm(p + "attn_norm.weight");
    norm(p + "ffn_norm.weight");
    if (s.hybrid && i == 0) {
      tensor(p + "attn_qkv.weight", s.width, 128), tensor(p + "attn_gate.weight", s.width, 64);
      tensor(p + "ssm_beta.weight", s.width, 4), tensor(p + "ssm_alpha.weight", s.width, 4);
      tensor(p + "ssm_conv1d.weight", 4, 128), tensor(p + "ssm_out.weight", 64, s.width);
      w.add_tensor(p + "ssm_dt.bias", {4}, {0.1f, -0.2f, 0.3f, 0.0f});
      w.add_tensor(p + "ssm_a", {4}, {-0.1f, -0.5f, -1.0f, -0.02f});
      w.add_tensor(p + "ssm_norm.weight", {16}, std::vector<float>(16, 1.0f));
    } else {
      tensor(p + "attn_q.weight", s.width, (s.hybrid ? 2 : 1) * s.heads * dim);
      if (!per_layer || i + 1 < s.layers) {
        tensor(p + "attn_k.weight", s.width, s.kv_heads * dim);
        tensor(p + "attn_v.weight", s.width, s.kv_heads * dim);
      }
      tensor(p + "attn_output.weight", s.heads * dim, s.width);
    }
    if (s.gemma) norm(p + "post_attention_norm.weight"), norm(p + "post_ffw_norm.weight");
    if (per_layer) {
      tensor(p + "inp_gate.weight", s.width, per_layer), tensor(p + "proj.weight", per_layer, s.width);
      norm(p + "post_norm.weight");
    }
    if (s.experts) {
      router(p + "ffn_gate_inp.weight");
      stack(p + "ffn_gate_exps.weight", s.width, s.ffn);
      stack(p + "ffn_up_exps.weight", s.width, s.ffn);
      stack(p + "ffn_down_exps.weight", s.ffn, s.width);
      if (s.shared_ffn) {
        tensor(p + "ffn_gate_shexp.weight", s.width, s.shared_ffn);
        tensor(p + "ffn_up_shexp.weight", s.width, s.shared_ffn);
        tensor(p + "ffn_down_shexp.weight", s.shared_ffn, s.width);
        norm(p + "ffn_gate_inp_shexp.weight");
      }
      if (s.gemma != 4) continue;
      norm(p + "ffn_gate_inp.scale");
      for (const char* name : {"pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"}) norm(p + name + ".weight");
    }
    if (!s.ungated) tensor(p + "ffn_gate.weight", s.width, s.ffn);
    tensor(p + "ffn_up.weight", s.width, s.ffn);
    tensor(p + "ffn_down.weight", s.ffn, s.width);
  }
  return w.bytes();
}

inline GgufFile parse(const std::string& bytes, Bytes fail_from = ~Bytes{0}) {
  std::vector<std::unique_ptr<RandomAccessFile>> files;
  files.push_back(std::make_unique<MemoryFile>(bytes, fail_from));
  return GgufFile::parse(std::move(files));
}

}  // namespace snug::testing_support
