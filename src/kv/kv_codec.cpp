#include "kv/kv_codec.hpp"

#include <fmt/format.h>

#include <cstring>

#include "base/error.hpp"

namespace snug {

namespace {

class Bf16Codec final : public KvCodec {
public:
  std::string_view name() const override { return "bf16"; }
  std::size_t page_bytes(KvSide, std::size_t dim) const override { return kPageTokens * dim * sizeof(bf16_t); }
  void encode(KvSide side, const bf16_t* tiles, std::size_t dim, std::byte* page) const override {
    std::memcpy(page, tiles, page_bytes(side, dim));
  }
  void decode(KvSide side, const std::byte* page, std::size_t dim, bf16_t* tiles) const override {
    std::memcpy(tiles, page, page_bytes(side, dim));
  }
};

/// Asymmetric integers: keys per channel over `key_group` tokens, values per token over `value_group` channels. Keys
/// have a few channels that are much larger than the rest, which per-channel scales keep from ruining the others
/// (KIVI, arXiv 2402.02750).
class IntegerCodec final : public KvCodec {
public:
  IntegerCodec(std::string_view name, std::size_t bits, std::size_t key_group, std::size_t value_group)
      : name_(name), bits_(bits), key_group_(key_group), value_group_(value_group) {}
  std::string_view name() const override { return name_; }
  std::size_t page_bytes(KvSide side, std::size_t dim) const override { return codes(side, dim).bytes(); }
  void encode(KvSide side, const bf16_t* tiles, std::size_t dim, std::byte* page) const override {
    kernels().pack_kv(tiles, codes(side, dim), page);
  }
  void decode(KvSide side, const std::byte* page, std::size_t dim, bf16_t* tiles) const override {
    kernels().unpack_kv(page, codes(side, dim), tiles);
  }

private:
  KvCodes codes(KvSide side, std::size_t dim) const {
    if (side == KvSide::keys)
      return {bits_, key_group_ / kTileTokens, dim / 2, kPageTiles, kv_tile_values(dim), 2 * kTileTokens};
    return {bits_, value_group_ / 16, kPageTokens / 2, dim / 16, 32, 2 * dim};
  }

  std::string_view name_;
  std::size_t bits_, key_group_, value_group_;
};

const KvCodec* find(std::string_view name) {
  for (const KvCodec* codec : kv_codecs())
    if (codec->name() == name) return codec;
  fail<UsageError>("unknown KV codec \"{}\"; there are {} (KEYS/VALUES for two)", name, kv_codec_names());
}

}  // namespace

std::size_t KvFormat::page_bytes(std::size_t k_dim, std::size_t v_dim) const {
  return keys->page_bytes(KvSide::keys, k_dim) + values->page_bytes(KvSide::values, v_dim);
}

std::string KvFormat::name() const {
  if (!coded()) return "bf16";
  return keys == values ? std::string(keys->name()) : fmt::format("{}/{}", keys->name(), values->name());
}

KvFormat parse_kv_format(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string_view keys = text.substr(0, slash), values = slash == text.npos ? keys : text.substr(slash + 1);
  if (text.empty() || (keys == "bf16" && values == "bf16")) return {};
  return {find(keys), find(values)};
}

std::vector<const KvCodec*> kv_codecs() {
  static const Bf16Codec bf16;
  static const IntegerCodec q8("q8", 8, 64, 64), q4("q4", 4, 64, 64), kivi4("kivi-4", 4, 32, 32),
      kivi2("kivi-2", 2, 32, 32), int1("int-1", 1, 64, 64);
  return {&bf16, &q8, &q4, &kivi4, &kivi2, &int1};
}

std::string kv_codec_names() {
  std::string names;
  for (const KvCodec* codec : kv_codecs()) names += fmt::format("{}{}", names.empty() ? "" : ", ", codec->name());
  return names;
}

}  // namespace snug
