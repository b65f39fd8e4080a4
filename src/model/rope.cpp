#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.hpp"
#include "kernels/tile_matrix.hpp"

namespace snug {

std::vector<float> read_vector(const GgufFile& file, const GgufTensor& tensor, std::size_t count) {
  if (tensor.columns() * tensor.rows() != count)
    fail<FormatError>("{}: tensor {} has {} values where {} are expected", file.path(), tensor.name,
                      tensor.columns() * tensor.rows(), count);
  if (!dtype_info(tensor.type).weight)
    fail<FormatError>("{}: tensor {} has an unexpected type", file.path(), tensor.name);
  std::vector<std::byte> raw(tensor.bytes);
  file.file(tensor.file).read(tensor.offset, raw);
  std::vector<float> values(count);
  dequantize_row(tensor.type, raw.data(), count, values.data());
  return values;
}

RopeTable plain_rope(std::uint32_t dim, double base) {
  RopeTable table;
  for (std::uint32_t i = 0; i < dim / 2; ++i) table.inverse_frequency.push_back(std::pow(base, -2.0 * i / dim));
  return table;
}

namespace {

/// YaRN: low frequencies are interpolated, high ones kept, with a ramp in between.
void apply_yarn(RopeTable& table, double base, double factor, double original_context, double beta_fast,
                double beta_slow) {
  const auto pairs = static_cast<double>(table.inverse_frequency.size());
  const auto pair_of = [&](double rotations) {
    return 2 * pairs * std::log(original_context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(pair_of(beta_fast)));
  const double high = std::min(2 * pairs - 1, std::ceil(pair_of(beta_slow)));
  for (std::size_t i = 0; i < table.inverse_frequency.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
    double& f = table.inverse_frequency[i];
    f = f / factor * ramp + f * (1 - ramp);
  }
  table.magnitude *= static_cast<float>(1.0 + 0.1 * std::log(factor));
}

}  // namespace

RopeTable scaled_rope(const GgufFile& file, std::string_view architecture, std::uint32_t head_dim) {
  const std::string prefix = std::string(architecture) + ".rope.";
  const auto dim = file.get_uint(prefix + "dimension_count").value_or(head_dim);
  if (dim == 0 || dim > head_dim || dim % 2 != 0)
    fail<FormatError>("{}: metadata {}dimension_count is {}", file.path(), prefix, dim);
  const double base = file.get_float(prefix + "freq_base").value_or(10000.0);
  RopeTable table = plain_rope(static_cast<std::uint32_t>(dim), base);
  const auto divide = [&](std::string_view name) {
    const GgufTensor* tensor = file.find_tensor(name);
    if (!tensor) return;
    const std::vector<float> factors = read_vector(file, *tensor, table.inverse_frequency.size());
    for (std::size_t i = 0; i < factors.size(); ++i) table.inverse_frequency[i] /= factors[i];
  };
  divide("rope_freqs.weight");

  const std::string type(file.get_string(prefix + "scaling.type").value_or("none"));
  const double factor =
      file.get_float(prefix + "scaling.factor").value_or(file.get_float(prefix + "scale_linear").value_or(1.0));
  const auto trained = static_cast<double>(file.get_uint(std::string(architecture) + ".context_length").value_or(0));
  const auto original = static_cast<double>(
      file.get_uint(prefix + "scaling.original_context_length").value_or(static_cast<std::uint64_t>(trained)));
  table.magnitude = static_cast<float>(file.get_float(prefix + "scaling.attn_factor").value_or(1.0));
  if (type == "linear" || (type == "none" && factor > 1)) {
    for (double& f : table.inverse_frequency) f /= factor;
  } else if (type == "yarn") {
    apply_yarn(table, base, factor, original, file.get_float(prefix + "scaling.yarn_beta_fast").value_or(32.0),
               file.get_float(prefix + "scaling.yarn_beta_slow").value_or(1.0));
  } else if (type != "none" && type != "longrope") {
    fail<FormatError>("{}: RoPE scaling '{}' is not supported (none, linear, yarn, longrope are)", file.path(), type);
  }
  divide(trained > original ? "rope_factors_long.weight" : "rope_factors_short.weight");
  return table;
}

void rope_angles(const RopeTable& table, std::size_t position, float* cos, float* sin) {
  for (std::size_t i = 0; i < table.inverse_frequency.size(); ++i) {
    const double angle = static_cast<double>(position) * table.inverse_frequency[i];
    cos[i] = static_cast<float>(std::cos(angle)) * table.magnitude;
    sin[i] = static_cast<float>(std::sin(angle)) * table.magnitude;
  }
}

}  // namespace snug
