// tokenize: text to token ids.

#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "cli/commands.hpp"
#include "cli/model_store.hpp"
#include "format/gguf.hpp"
#include "text/tokenizer.hpp"

namespace snug {

void add_tokenize(CLI::App& app) {
  struct Options {
    std::string model, file;
    bool json = false, special = false, decode = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "show how a model cuts a text into tokens");
  command->add_option("MODEL", options->model, "a name, a path or an hf: reference")->required();
  command->add_option("-f,--file", options->file, "the text (default: standard input)");
  command->add_flag("--special", options->special, "control tokens written in the text become tokens; BOS is added");
  command->add_flag("--decode", options->decode, "print the text that the tokens stand for instead");
  command->add_flag("--json", options->json, "one array of ids");
  command->footer("Example:\n  echo 'Hello, world' | snug tokenize smollm2-135m");
  command->callback([options] {
    const std::string text = options->file.empty() ? std::string(std::istreambuf_iterator<char>(std::cin), {})
                                                   : read_text_file(options->file);
    const GgufFile file = GgufFile::open(find_or_fetch_model(options->model));
    const auto tokenizer = Tokenizer::from_gguf(file);
    const std::vector<TokenId> ids =
        tokenizer->encode(text, {.add_special = options->special, .parse_special = options->special});
    if (options->decode) {
      const std::string back = tokenizer->decode(ids);
      std::fwrite(back.data(), 1, back.size(), stdout);
    } else if (options->json) {
      fmt::print("{}\n", nlohmann::json(ids).dump());
    } else {
      for (const TokenId id : ids)
        fmt::print(
            "{:>8}  {}\n", id,
            nlohmann::json(tokenizer->piece(id, true)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    }
  });
}

}  // namespace snug
