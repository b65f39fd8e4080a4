// show: what is in a model file and what it needs.

#include <nlohmann/json.hpp>

#include "base/error.hpp"

#include "cli/commands.hpp"
#include "cli/model_store.hpp"
#include "model/config.hpp"

namespace snug {

namespace {

constexpr std::size_t kContexts[] = {1024, 4096, 8192, 16384, 32768, 131072};

/// A metadata value on one line; long arrays and texts are cut.
std::string describe(const GgufValue& value) {
  struct Visitor {
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(std::uint64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{}", v); }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(const std::string& v) const {
      constexpr std::size_t kMost = 60;
      std::string line;
      for (const char c : v.substr(0, kMost)) line += static_cast<unsigned char>(c) < 32 ? ' ' : c;
      return '"' + line + '"' + (v.size() > kMost ? fmt::format("... ({} bytes)", v.size()) : "");
    }
    std::string operator()(const GgufArray& v) const {
      return std::visit(
          [this](const auto& items) {
            std::string line = "[";
            for (std::size_t i = 0; i < std::min<std::size_t>(items.size(), 4); ++i) {
              if (i) line += ", ";
              if constexpr (requires { items[i].size(); })
                line += (*this)(items[i]);
              else
                line += fmt::format("{}", static_cast<double>(items[i]));
            }
            return line + (items.size() > 4 ? fmt::format(", ... {} in all]", items.size()) : "]");
          },
          v);
    }
  };
  return std::visit(Visitor{}, value);
}

std::string shape_of(const GgufTensor& tensor) {
  std::string text;
  for (const auto n : tensor.shape) text += fmt::format("{}{}", text.empty() ? "" : " x ", n);
  return text;
}

/// Bytes of all tensors of layer `index`.
Bytes layer_bytes(const GgufFile& file, std::uint32_t index) {
  Bytes total = 0;
  const std::string prefix = fmt::format("blk.{}.", index);
  for (const GgufTensor& t : file.tensors())
    if (t.name.starts_with(prefix)) total += t.bytes;
  return total;
}

void print(const GgufFile& file, const ModelConfig& config, bool tensors) {
  fmt::print("{}\n  GGUF v{}, {} in {} file{}, {} tensors\n", file.path(), file.version(),
             format_bytes(file.total_bytes()), file.file_count(), file.file_count() == 1 ? "" : "s",
             file.tensors().size());
  fmt::print("  {} {}: {} layers, width {}, vocabulary {}, context {}\n\nMetadata\n", config.architecture, config.name,
             config.layer_count, config.width, config.vocab_size, config.trained_context);
  for (const auto& [key, value] : file.metadata()) fmt::print("  {:<44} {}\n", key, describe(value));
  fmt::print("\nBytes by layer\n");
  Bytes in_layers = 0, all = 0;
  for (const GgufTensor& t : file.tensors()) all += t.bytes;
  for (std::uint32_t i = 0; i < config.layer_count;) {
    const Bytes bytes = layer_bytes(file, i);
    std::uint32_t end = i;
    while (end < config.layer_count && layer_bytes(file, end) == bytes) ++end;
    in_layers += bytes * (end - i);
    fmt::print("  {:<16} {:>10}{}\n",
               end == i + 1 ? fmt::format("layer {}", i) : fmt::format("layers {}-{}", i, end - 1), format_bytes(bytes),
               end == i + 1 ? "" : " each");
    i = end;
  }
  fmt::print("  {:<16} {:>10}\n  {:<16} {:>10}\n", "other", format_bytes(all - in_layers), "total", format_bytes(all));
  fmt::print("\nKV cache (bf16) by context length\n");
  for (const std::size_t context : kContexts)
    if (context <= config.trained_context)
      fmt::print("  {:>8} tokens  {:>10}\n", context, format_bytes(config.kv_bytes(context)));
  if (config.state_bytes() > 0)
    fmt::print("  recurrent state, at any length  {}\n", format_bytes(config.state_bytes()));
  if (!tensors) {
    fmt::print("\n--tensors lists the tensors.\n");
    return;
  }
  fmt::print("\nTensors\n");
  for (const GgufTensor& t : file.tensors())
    fmt::print("  {:<36} {:<8} {:<24} {:>10}\n", t.name, dtype_info(t.type).name, shape_of(t), format_bytes(t.bytes));
}

void print_json(const GgufFile& file, const ModelConfig& config) {
  nlohmann::ordered_json json = {{"path", file.path()},
                                 {"version", file.version()},
                                 {"bytes", file.total_bytes()},
                                 {"architecture", config.architecture},
                                 {"name", config.name},
                                 {"layers", config.layer_count},
                                 {"width", config.width},
                                 {"vocabulary", config.vocab_size},
                                 {"context", config.trained_context}};
  for (const auto& [key, value] : file.metadata()) json["metadata"][key] = describe(value);
  for (std::uint32_t i = 0; i < config.layer_count; ++i) json["layer_bytes"].push_back(layer_bytes(file, i));
  for (const std::size_t context : kContexts)
    if (context <= config.trained_context) json["kv_bytes"][std::to_string(context)] = config.kv_bytes(context);
  json["state_bytes"] = config.state_bytes();
  for (const GgufTensor& t : file.tensors())
    json["tensors"].push_back(
        {{"name", t.name}, {"type", dtype_info(t.type).name}, {"shape", t.shape}, {"bytes", t.bytes}});
  fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

void add_show(CLI::App& app) {
  struct Options {
    std::string model;
    bool json = false, tensors = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("show", "describe a model: metadata, tensors, bytes per layer and per context length");
  command->add_option("MODEL", options->model, "a name, a path or an hf: reference")->required();
  command->add_flag("--tensors", options->tensors, "list the tensors as well");
  command->add_flag("--json", options->json, "for programs");
  command->footer("Examples:\n  snug show smollm2-135m\n  snug show model.gguf --tensors");
  command->callback([options] {
    const GgufFile file = GgufFile::open(find_or_fetch_model(options->model));
    const ModelConfig config = read_config(file);
    if (options->json)
      print_json(file, config);
    else
      print(file, config, options->tensors);
  });
}

}  // namespace snug
