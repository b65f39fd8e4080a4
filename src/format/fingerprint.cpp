#include "format/fingerprint.hpp"

#include <vector>

#include "format/hash.hpp"

namespace snug {

std::uint64_t model_fingerprint(const GgufFile& model) {
  constexpr std::size_t kSamples = 64, kSampleBytes = 4096;
  Hash hash;
  for (const GgufTensor& t : model.tensors()) {
    hash.add(std::as_bytes(std::span(t.name)));
    hash.add_value(t.type);
    hash.add_value(t.offset);
    hash.add(std::as_bytes(std::span(t.shape)));
  }
  std::vector<std::byte> sample(kSampleBytes);
  for (unsigned f = 0; f < model.file_count(); ++f) {
    const RandomAccessFile& file = model.file(f);
    hash.add_value(file.size());
    for (std::size_t i = 0; i < kSamples && file.size() >= kSampleBytes; ++i) {
      file.read((file.size() - kSampleBytes) / kSamples * i, sample);
      hash.add(sample);
    }
  }
  return hash.value();
}

}  // namespace snug
