// Fuzz target over saved sessions: parse and load into a store, as they are and with the head's checksum left out (a
// mutation hardly ever meets it). Anything but a snug::Error is a finding.

#include "base/error.hpp"
#include "kv/kv_file.hpp"
#include "support/gguf_writer.hpp"
#include "support/kv_seed.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace snug;
  for (const bool check : {true, false}) {
    try {
      Ledger ledger(Bytes{64} << 20);
      ThreadPool pool(1);
      KvPools pools(ledger, testing_support::kSeedShapes, testing_support::seed_format());
      KvStore store(pools, 64);
      std::vector<std::byte> recurrent(testing_support::kSeedRecurrent);
      const KvFile file = KvFile::parse(
          std::make_unique<testing_support::MemoryFile>(std::string(reinterpret_cast<const char*>(data), size)), check);
      file.fill(file.prepare(testing_support::kSeedModel, store, recurrent));
      store.reserve(file.tokens().size() + 100);
    } catch (const Error&) {
    }
  }
  return 0;
}
