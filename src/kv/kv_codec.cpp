#include "kv/kv_codec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.hpp"
#include "base/file.hpp"
#include "format/hash.hpp"
#include "kv/aqua_codec.hpp"
#include "kv/block_codec.hpp"
#include "kv/coupled_codec.hpp"
#include "kv/gear_codec.hpp"
#include "kv/integer_codec.hpp"
#include "kv/layered_codec.hpp"
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

namespace {

/// Makes codecs of one model, each once.
class CodecMaker {
public:
  explicit CodecMaker(std::shared_ptr<const KvModel> model) : model_(std::move(model)) {}

  KvFormat format(const KvPair& pair) {
    return {pair.name(), codec(KvSide::keys, pair.keys), codec(KvSide::values, pair.values)};
  }

private:
  std::shared_ptr<const KvCodec> codec(KvSide side, const std::string& name) {
    auto& there = codecs_[{side, name}];
    if (there) return there;
    const KvMethod& method = find_kv_method(name);
    if (method.learn && !tables_.contains(name)) tables_.emplace(name, read_kv_tables(*model_, name));
    return there = method.make(side, model_, tables_[name]);
  }

  std::shared_ptr<const KvModel> model_;
  std::map<std::string, KvTables> tables_;
  std::map<std::pair<KvSide, std::string>, std::shared_ptr<const KvCodec>> codecs_;
};

/// `format` but for some layers.
KvFormat with_exceptions(KvFormat format, std::span<const KvChoice::Layers> exceptions, std::size_t layer_count,
                         CodecMaker& maker) {
  std::vector<std::shared_ptr<const KvCodec>> keys(layer_count, format.keys), values(layer_count, format.values);
  for (const KvChoice::Layers& e : exceptions) {
    const KvFormat other = maker.format(e.codecs);
    if (format.couples_layers() || other.couples_layers())
      fail<UsageError>("--kv: {} and {} cannot share the layers: one of them keeps what layers have in common",
                       format.name, other.name);
    if (e.last >= layer_count)
      fail<UsageError>("--kv {}:{}-{}: the last layer of this model is {}", other.name, e.first, e.last,
                       layer_count - 1);
    std::fill(keys.begin() + static_cast<std::ptrdiff_t>(e.first),
              keys.begin() + static_cast<std::ptrdiff_t>(e.last + 1), other.keys);
    std::fill(values.begin() + static_cast<std::ptrdiff_t>(e.first),
              values.begin() + static_cast<std::ptrdiff_t>(e.last + 1), other.values);
  }
  return {format.name, make_layered_codec(std::move(keys)), make_layered_codec(std::move(values))};
}

}  // namespace

KvFormat make_kv_format(const KvChoice& choice, std::shared_ptr<const KvModel> model) {
  if (!choice.coded()) return {};
  CodecMaker maker(model);
  KvFormat format = maker.format(choice.codecs);
  if (format.chained() && format.late())
    fail<UsageError>("--kv {}: each side couples layers in its own way; they cannot go together", format.name);
  if (!choice.layers.empty()) format = with_exceptions(format, choice.layers, model->shapes.size(), maker);
  if (choice.cold) {
    const auto cold = std::make_shared<KvFormat>(maker.format(choice.cold->codecs));
    if (format.couples_layers() || cold->couples_layers() || cold->observes())
      fail<UsageError>("--kv {}: pages cannot go from {} to {} as they age: {}", choice.name(), format.name, cold->name,
                       cold->observes() ? "the second wants queries that are gone then"
                                        : "one of them keeps what layers have in common");
    format.cold = cold;
    format.cold_age = choice.cold->age;
  }
  format.name = choice.name();
  Hash learned;
  for (const std::string& name : choice.methods())
    if (find_kv_method(name).learn) {
      const std::string file = read_text_file(kv_tables_path(*model, name));
      learned.add(std::as_bytes(std::span(file)));
    }
  format.learned = learned.value();
  return format;
}

}  // namespace snug
