#include "kv/kv_codec.hpp"

#include <fmt/format.h>

#include <map>

#include "base/error.hpp"
#include "base/file.hpp"
#include "format/hash.hpp"
#include "kv/aqua_codec.hpp"
#include "kv/block_codec.hpp"
#include "kv/coupled_codec.hpp"
#include "kv/gear_codec.hpp"
#include "kv/integer_codec.hpp"
#include "kv/low_rank_codec.hpp"
#include "kv/mikv_codec.hpp"
#include "kv/minicache_codec.hpp"
#include "kv/plain_codec.hpp"
#include "kv/sparse_codec.hpp"
#include "kv/think_codec.hpp"

namespace snug {

namespace {

/// Of a method that learns nothing.
template <std::unique_ptr<KvCodec> (*kMake)(KvSide side, std::shared_ptr<const KvModel> model)>
std::unique_ptr<KvCodec> plain(KvSide side, std::shared_ptr<const KvModel> model, const KvTables&) {
  return kMake(side, std::move(model));
}

template <std::size_t kBits, std::size_t kGroup>
std::unique_ptr<KvCodec> integers(KvSide side, std::shared_ptr<const KvModel> model, const KvTables&) {
  return make_integer_codec(side, std::move(model), kBits, kGroup);
}

template <std::size_t kBits>
std::unique_ptr<KvCodec> gear(KvSide side, std::shared_ptr<const KvModel> model, const KvTables&) {
  return make_gear_codec(side, std::move(model), kBits);
}

template <bool kRearrange>
std::unique_ptr<KvCodec> blocks(KvSide side, std::shared_ptr<const KvModel> model, const KvTables&) {
  return make_block_codec(side, std::move(model), kRearrange);
}

template <std::size_t kWidth>
std::unique_ptr<KvCodec> coupled(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned) {
  return make_coupled_codec(side, std::move(model), learned, kWidth);
}
template <std::size_t kWidth>
KvTables learn_coupled(const KvLearning& from) {
  return learn_coupled(from, kWidth);
}

constexpr KvMethod kMethods[] = {
    {"bf16", "as it is", plain<make_plain_codec>},
    {"q8", "8 bits, keys per channel, values per token, groups of 64", integers<8, 64>},
    {"q4", "4 bits, the same", integers<4, 64>},
    {"kivi-4", "KIVI: 4 bits, keys per channel, values per token, groups of 32", integers<4, 32>},
    {"kivi-2", "KIVI: 2 bits", integers<2, 32>},
    {"gear-4", "GEAR: 4 bits, groups of 64, outliers apart, and a product of rank 2 for the error", gear<4>},
    {"gear-2", "GEAR: 2 bits", gear<2>},
    {"bfp-4", "block floating point: 4-bit mantissas, channels of a size share blocks of 32", blocks<true>},
    {"bfp-4-plain", "the same with channels as they stand", blocks<false>},
    {"group-1", "1 bit, groups of 32 of two levels: the means of the lower and the upper values",
     plain<make_group_bit_codec>},
    {"int-1", "1 bit, groups of 64: what other methods of 1 bit are held against", integers<1, 64>},
    {"cq-2", "CQ: 4 channels share 8 bits, learned (snug calibrate)", coupled<4>, learn_coupled<4>},
    {"cq-1", "CQ: 8 channels share 8 bits, learned", coupled<8>, learn_coupled<8>},
    {"cskv-50", "CSKV: half as many channels over all heads, learned", make_low_rank_codec, learn_low_rank},
    {"csr-1", "CSR: 16 channels become an atom of a learned dictionary and a coefficient, 16 bits", make_sparse_codec,
     learn_sparse},
    {"minicache", "MiniCache: pairs of layers in the upper half share directions, 16 bits",
     plain<make_minicache_codec>},
    {"aqua-2", "AQUA-KV: predicted from the layer below, what is left in 2 bits, learned", make_aqua_codec, learn_aqua},
    {"think-40", "ThinK: the 40% of a page's key channels that later queries need least become their means",
     plain<make_think_codec>},
    {"mikv-2", "MiKV: the 16 tokens of a page that later queries attend to most stay, the others in 2 bits",
     plain<make_mikv_codec>},
};

}  // namespace

const KvMethod& find_kv_method(std::string_view name) {
  for (const KvMethod& method : kMethods)
    if (method.name == name) return method;
  fail<UsageError>("unknown KV codec \"{}\"; there are {} (KEYS/VALUES for two)", name, kv_method_names());
}

std::span<const KvMethod> kv_methods() {
  return kMethods;
}

std::string kv_method_names() {
  std::string names;
  for (const KvMethod& method : kMethods) names += fmt::format("{}{}", names.empty() ? "" : ", ", method.name);
  return names;
}

std::string KvChoice::name() const {
  if (!coded()) return "bf16";
  return keys == values ? keys : fmt::format("{}/{}", keys, values);
}

KvChoice parse_kv_choice(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string_view keys = text.substr(0, slash), values = slash == text.npos ? keys : text.substr(slash + 1);
  if (text.empty() || (keys == "bf16" && values == "bf16")) return {};
  return {std::string(find_kv_method(keys).name), std::string(find_kv_method(values).name)};
}

KvFormat make_kv_format(const KvChoice& choice, std::shared_ptr<const KvModel> model) {
  if (!choice.coded()) return {};
  std::map<std::string, KvTables> tables;
  const auto make = [&](KvSide side, const std::string& name) {
    const KvMethod& method = find_kv_method(name);
    if (method.learn && !tables.contains(name)) tables.emplace(name, read_kv_tables(*model, name));
    return method.make(side, model, tables[name]);
  };
  KvFormat format{choice.name(), make(KvSide::keys, choice.keys), make(KvSide::values, choice.values), 0};
  Hash learned;
  std::string file, of;
  for (const std::string& name : {choice.keys, choice.values})
    if (find_kv_method(name).learn) {
      if (of != name) file = read_text_file(kv_tables_path(*model, name));
      of = name;
      learned.add(std::as_bytes(std::span(file)));
    }
  format.learned = learned.value();
  return format;
}

}  // namespace snug
