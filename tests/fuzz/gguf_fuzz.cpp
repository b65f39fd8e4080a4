// Fuzz target over GGUF metadata and tensors: parse, configuration, tokenizer, chat template, weights, one step.
// Anything but a snug::Error is a finding. Built with clang's libFuzzer by the preset `fuzz`; replay_main.cpp drives
// the same function in the tests.

#include <nlohmann/json.hpp>

#include "model/transformer.hpp"
#include "support/gguf_writer.hpp"
#include "text/chat_template.hpp"

namespace {

using namespace snug;

GgufFile parse_bytes(const std::uint8_t* data, std::size_t size) {
  std::vector<std::unique_ptr<RandomAccessFile>> files;
  files.push_back(
      std::make_unique<testing_support::MemoryFile>(std::string(reinterpret_cast<const char*>(data), size)));
  return GgufFile::parse(std::move(files));
}

void use_tokenizer(const GgufFile& file) {
  const auto tokenizer = Tokenizer::from_gguf(file);
  for (const char* text : {"hello, world 123\n\n  x", "caf\xC3\xA9 \xF0\x9F\x91\x8D \xE4\xBD\xA0\xE5\xA5\xBD",
                           "\xFF\xC0 broken\xE2\x82", "<end><s>"}) {
    const auto ids = tokenizer->encode(text, {.add_special = true, .parse_special = true});
    tokenizer->decode(ids, true);
  }
}

void use_template(const GgufFile& file) {
  const auto source = file.get_string("tokenizer.chat_template");
  if (!source) return;
  const ChatTemplate chat(*source, "<s>", "</s>");
  chat.render(nlohmann::ordered_json::parse(R"([{"role":"user","content":"hi"}])"), nullptr, {}, nullptr);
}

void use_model(GgufFile file) {
  Ledger ledger(Bytes{64} << 20);
  ThreadPool pool(1);
  Transformer model(std::move(file), ledger, pool, {.max_rows = 2});
  std::vector<float> logits(model.config().vocab_size);
  const auto sequence = model.new_sequence(4);
  const Row rows[] = {{0, sequence.get(), false}, {0, sequence.get(), true}};
  model.forward(rows, logits);
}

template <class F>
void allow_errors(F&& f) {
  try {
    f();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  allow_errors([&] {
    GgufFile file = parse_bytes(data, size);
    allow_errors([&] { use_tokenizer(file); });
    allow_errors([&] { use_template(file); });
    use_model(std::move(file));
  });
  return 0;
}
