#include "format/gguf.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <regex>
#include <unordered_set>

#include "base/error.hpp"

namespace snug {

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are read as they lie");

constexpr std::uint32_t kMagic = 0x46554747;   // "GGUF"
constexpr std::uint64_t kMaxCount = 1u << 24;  // keys, tensors
constexpr std::size_t kMaxName = 65535;
constexpr std::size_t kWindow = 1 << 20;

/// The metadata types of the specification.
enum Type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

/// Reads a file from front to back through a window; nothing beyond its end is ever touched.
class Reader {
public:
  explicit Reader(const RandomAccessFile& file) : file_(file) {}

  Bytes position() const { return position_; }
  Bytes left() const { return file_.size() - position_; }
  [[noreturn]] void fail_here(std::string_view what) const { fail<FormatError>("{}: {}", file_.path(), what); }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }

  std::string text(std::size_t limit = std::numeric_limits<std::size_t>::max()) {
    const auto length = number<std::uint64_t>();
    if (length > left()) fail_here("truncated inside a string");
    if (length > limit) fail_here(fmt::format("a name of {} bytes is too long", length));
    std::string value(length, '\0');
    if (length <= kWindow) {
      std::memcpy(value.data(), take(length), length);
    } else {
      file_.read(position_, std::as_writable_bytes(std::span(value)));
      position_ += length;
    }
    return value;
  }

private:
  /// The next n <= kWindow bytes.
  const std::byte* take(std::size_t n) {
    if (n > left()) fail_here(fmt::format("truncated at byte {}", position_));
    if (position_ < start_ || position_ + n > start_ + window_.size()) {
      window_.resize(static_cast<std::size_t>(std::min<Bytes>(kWindow, left())));
      file_.read(position_, window_);
      start_ = position_;
    }
    const std::byte* at = window_.data() + (position_ - start_);
    position_ += n;
    return at;
  }

  const RandomAccessFile& file_;
  Bytes position_ = 0, start_ = 0;
  std::vector<std::byte> window_;
};

template <class Stored, class Wide>
std::vector<Wide> numbers(Reader& reader, std::uint64_t count) {
  if (count > reader.left() / sizeof(Stored))
    reader.fail_here(fmt::format("an array of {} values is longer than the file", count));
  std::vector<Wide> values;
  values.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) values.push_back(static_cast<Wide>(reader.number<Stored>()));
  return values;
}

GgufArray read_array(Reader& reader) {
  const auto type = reader.number<std::uint32_t>();
  const auto count = reader.number<std::uint64_t>();
  switch (type) {
    case u8:
      return numbers<std::uint8_t, std::uint64_t>(reader, count);
    case i8:
      return numbers<std::int8_t, std::int64_t>(reader, count);
    case u16:
      return numbers<std::uint16_t, std::uint64_t>(reader, count);
    case i16:
      return numbers<std::int16_t, std::int64_t>(reader, count);
    case u32:
      return numbers<std::uint32_t, std::uint64_t>(reader, count);
    case i32:
      return numbers<std::int32_t, std::int64_t>(reader, count);
    case u64:
      return numbers<std::uint64_t, std::uint64_t>(reader, count);
    case i64:
      return numbers<std::int64_t, std::int64_t>(reader, count);
    case f32:
      return numbers<float, float>(reader, count);
    case f64:
      return numbers<double, double>(reader, count);
    case boolean: {
      std::vector<bool> values;
      for (const std::uint64_t v : numbers<std::uint8_t, std::uint64_t>(reader, count)) values.push_back(v != 0);
      return values;
    }
    case string: {
      if (count > reader.left() / 8)
        reader.fail_here(fmt::format("an array of {} strings is longer than the file", count));
      std::vector<std::string> values;
      values.reserve(count);
      for (std::uint64_t i = 0; i < count; ++i) values.push_back(reader.text());
      return values;
    }
    case array:
      reader.fail_here("arrays of arrays are not supported");
    default:
      reader.fail_here(fmt::format("unknown metadata type {}", type));
  }
}

GgufValue read_value(Reader& reader) {
  const auto type = reader.number<std::uint32_t>();
  switch (type) {
    case u8:
      return std::uint64_t{reader.number<std::uint8_t>()};
    case i8:
      return std::int64_t{reader.number<std::int8_t>()};
    case u16:
      return std::uint64_t{reader.number<std::uint16_t>()};
    case i16:
      return std::int64_t{reader.number<std::int16_t>()};
    case u32:
      return std::uint64_t{reader.number<std::uint32_t>()};
    case i32:
      return std::int64_t{reader.number<std::int32_t>()};
    case u64:
      return reader.number<std::uint64_t>();
    case i64:
      return reader.number<std::int64_t>();
    case f32:
      return double{reader.number<float>()};
    case f64:
      return reader.number<double>();
    case boolean:
      return reader.number<std::uint8_t>() != 0;
    case string:
      return reader.text();
    case array:
      return read_array(reader);
    default:
      reader.fail_here(fmt::format("unknown metadata type {}", type));
  }
}

GgufTensor read_tensor(Reader& reader, unsigned file) {
  GgufTensor tensor;
  tensor.name = reader.text(kMaxName);
  tensor.file = file;
  const auto dimensions = reader.number<std::uint32_t>();
  if (dimensions == 0 || dimensions > 4)
    reader.fail_here(fmt::format("tensor {} has {} dimensions", tensor.name, dimensions));
  std::uint64_t values = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    tensor.shape.push_back(reader.number<std::uint64_t>());
    if (tensor.shape.back() == 0) reader.fail_here(fmt::format("tensor {} has a dimension of 0", tensor.name));
    values = checked_mul(values, tensor.shape.back());
  }
  const auto type = reader.number<std::uint32_t>();
  const DTypeInfo* info = find_dtype(type);
  if (!info)
    reader.fail_here(fmt::format("tensor {} has data type {}, which this build does not know", tensor.name, type));
  tensor.type = info->type;
  if (tensor.shape[0] % info->block_values != 0)
    reader.fail_here(
        fmt::format("tensor {}: rows of {} are not whole {} blocks", tensor.name, tensor.shape[0], info->name));
  tensor.bytes = checked_mul(values / info->block_values, info->block_bytes);
  tensor.offset = reader.number<std::uint64_t>();
  return tensor;
}

std::string split_name(const std::string& path, const std::smatch& match, unsigned index) {
  const std::string number = match[1].str();
  return fmt::format("{}-{:0{}}-of-{}.gguf", path.substr(0, static_cast<std::size_t>(match.position(0))), index,
                     number.size(), match[2].str());
}

}  // namespace

std::uint64_t GgufTensor::rows() const {
  std::uint64_t rows = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) rows *= shape[i];
  return rows;
}

GgufFile GgufFile::open(const std::string& path) {
  static const std::regex kSplit("-([0-9]{5})-of-([0-9]{5})\\.gguf$");
  std::vector<std::unique_ptr<RandomAccessFile>> files;
  std::smatch match;
  if (std::regex_search(path, match, kSplit)) {
    const auto count = static_cast<unsigned>(std::stoul(match[2].str()));
    for (unsigned i = 1; i <= count; ++i) files.push_back(open_file(split_name(path, match, i)));
  } else {
    files.push_back(open_file(path));
  }
  return parse(std::move(files));
}

GgufFile GgufFile::parse(std::vector<std::unique_ptr<RandomAccessFile>> files) {
  GgufFile result;
  result.files_ = std::move(files);
  for (unsigned index = 0; index < result.files_.size(); ++index) {
    Reader reader(*result.files_[index]);
    if (reader.left() < 24) reader.fail_here("too short for a GGUF file");
    if (reader.number<std::uint32_t>() != kMagic) reader.fail_here("not a GGUF file (wrong magic)");
    const auto version = reader.number<std::uint32_t>();
    if (version != 2 && version != 3)
      reader.fail_here(version > 0xFFFF ? std::string("a big-endian GGUF file cannot be read here")
                                        : fmt::format("GGUF version {} is not supported (2 and 3 are)", version));
    const auto tensor_count = reader.number<std::uint64_t>(), key_count = reader.number<std::uint64_t>();
    if (tensor_count > kMaxCount || key_count > kMaxCount)
      reader.fail_here(fmt::format("absurd counts: {} tensors, {} keys", tensor_count, key_count));

    std::uint64_t alignment = 32;
    for (std::uint64_t i = 0; i < key_count; ++i) {
      std::string key = reader.text(kMaxName);
      GgufValue value = read_value(reader);
      if (key == "general.alignment") {
        const auto* number = std::get_if<std::uint64_t>(&value);
        if (!number || *number == 0 || *number % 8 != 0 || *number > (1u << 20))
          reader.fail_here("general.alignment is not a sane number");
        alignment = *number;
      }
      if (index > 0) continue;  // the first split holds the model's metadata
      if (!result.metadata_index_.emplace(key, result.metadata_.size()).second)
        reader.fail_here(fmt::format("key {} occurs twice", key));
      result.metadata_.emplace_back(std::move(key), std::move(value));
    }
    if (index == 0) {
      result.version_ = version;
      const auto splits = result.get_uint("split.count").value_or(1);
      if (splits > 1 && splits != result.files_.size())
        reader.fail_here(fmt::format("one of {} files of a split model: open it by its name NAME-00001-of-{:05}.gguf",
                                     splits, splits));
    }
    const std::size_t first = result.tensors_.size();
    for (std::uint64_t i = 0; i < tensor_count; ++i) {
      GgufTensor tensor = read_tensor(reader, index);
      if (!result.tensor_index_.emplace(tensor.name, result.tensors_.size()).second)
        reader.fail_here(fmt::format("tensor {} occurs twice", tensor.name));
      result.tensors_.push_back(std::move(tensor));
    }
    const Bytes data = round_up(reader.position(), alignment), size = result.files_[index]->size();
    for (std::size_t i = first; i < result.tensors_.size(); ++i) {
      GgufTensor& tensor = result.tensors_[i];
      if (tensor.offset % alignment != 0) reader.fail_here(fmt::format("tensor {} is not aligned", tensor.name));
      const Bytes begin = checked_add(data, tensor.offset), end = checked_add(begin, tensor.bytes);
      if (end > size)
        reader.fail_here(fmt::format("truncated: tensor {} ends at byte {}, the file at {}", tensor.name, end, size));
      tensor.offset = begin;
    }
  }
  return result;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = metadata_index_.find(std::string(key));
  return it == metadata_index_.end() ? nullptr : &metadata_[it->second].second;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = tensor_index_.find(std::string(name));
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

namespace {

[[noreturn]] void wrong_type(const GgufFile& file, std::string_view key, std::string_view wanted) {
  fail<FormatError>("{}: metadata {} is not {}", file.path(), key, wanted);
}

}  // namespace

std::optional<std::uint64_t> GgufFile::get_uint(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* number = std::get_if<std::uint64_t>(value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(value); number && *number >= 0)
    return static_cast<std::uint64_t>(*number);
  wrong_type(*this, key, "a whole number >= 0");
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<std::uint64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<std::int64_t>(value)) return static_cast<double>(*number);
  wrong_type(*this, key, "a number");
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  wrong_type(*this, key, "true or false");
}

std::optional<std::string_view> GgufFile::get_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* text = std::get_if<std::string>(value)) return *text;
  wrong_type(*this, key, "a string");
}

const std::vector<std::string>* GgufFile::get_strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  if (const auto* list = std::get_if<GgufArray>(value))
    if (const auto* strings = std::get_if<std::vector<std::string>>(list)) return strings;
  wrong_type(*this, key, "an array of strings");
}

std::optional<std::vector<double>> GgufFile::get_numbers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* list = std::get_if<GgufArray>(value)) {
    return std::visit(
        [&](const auto& values) -> std::vector<double> {
          if constexpr (std::is_same_v<std::decay_t<decltype(values)>, std::vector<std::string>>)
            wrong_type(*this, key, "an array of numbers");
          else
            return {values.begin(), values.end()};
        },
        *list);
  }
  wrong_type(*this, key, "an array of numbers");
}

Bytes GgufFile::total_bytes() const {
  Bytes total = 0;
  for (const auto& file : files_) total += file->size();
  return total;
}

}  // namespace snug
