#include "kv/kv_file.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "format/hash.hpp"

namespace snug {

namespace {

constexpr char kMagic[8] = {'S', 'N', 'U', 'G', 'K', 'V', 0, 0};
constexpr std::uint32_t kMaxLayers = 4096;
constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << 31, kMaxPageBytes = 1 << 28;

struct Header {
  char magic[8];
  std::uint32_t version, layers;
  std::uint64_t model, tables, tokens;
  std::uint64_t recurrent_bytes, size;  ///< size: of the whole file
  std::uint64_t checksum;               ///< of the header with 0 here, the rows, tokens and checksums
  char format[56];                      ///< ended by a zero
  std::uint64_t reserved;
};
static_assert(sizeof(Header) == 128);

struct LayerRow {
  std::uint32_t kv_heads, k_dim, v_dim, window;
  std::uint32_t raw_begin, raw_end, coded_begin, coded_end;  ///< pages that are there
  std::uint32_t first_end, reserved;                         ///< those in bf16 before raw_begin: the first so many
  std::uint32_t cold_begin, cold_end;
  std::uint64_t raw_bytes, coded_bytes, cold_bytes;  ///< of a page
};
static_assert(sizeof(LayerRow) == 72);

}  // namespace

/// What stands before the pages.
struct KvFileHead {
  Header header{};
  std::vector<LayerRow> rows;
  std::vector<std::int32_t> tokens;
  std::vector<std::uint64_t> checksums;

  std::uint64_t checksum() const {
    Header h = header;
    h.checksum = 0;
    Hash hash;
    hash.add_value(h);
    hash.add(std::as_bytes(std::span(rows)));
    hash.add(std::as_bytes(std::span(tokens)));
    hash.add(std::as_bytes(std::span(checksums)));
    return hash.value();
  }
  Bytes bytes() const {
    return sizeof(Header) + rows.size() * sizeof(LayerRow) + tokens.size() * sizeof(std::int32_t) +
           checksums.size() * sizeof(std::uint64_t);
  }
};

namespace {

Bytes data_bytes(std::span<const LayerRow> rows, Bytes recurrent) {
  Bytes total = recurrent;
  for (const LayerRow& r : rows)
    total = checked_add(total, checked_add(checked_mul(Bytes{r.raw_end} - r.raw_begin + r.first_end, r.raw_bytes),
                                           checked_add(checked_mul(r.coded_end - r.coded_begin, r.coded_bytes),
                                                       checked_mul(r.cold_end - r.cold_begin, r.cold_bytes))));
  return total;
}

/// Without checksums.
KvFileHead head_of(std::uint64_t model, std::span<const std::int32_t> tokens, const KvStore& store,
                   Bytes recurrent_bytes) {
  const KvFormat& format = store.format();
  KvFileHead head;
  Header& h = head.header;
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version = kKvFileVersion;
  h.layers = static_cast<std::uint32_t>(store.shapes().size());
  h.model = model;
  h.tables = format.learned;
  h.tokens = tokens.size();
  h.recurrent_bytes = recurrent_bytes;
  if (format.name.size() >= sizeof h.format) fail("the name of the KV format {} is too long to save", format.name);
  std::memcpy(h.format, format.name.data(), format.name.size());
  head.tokens.assign(tokens.begin(), tokens.end());
  for (std::size_t layer = 0; layer < store.shapes().size(); ++layer) {
    const KvShape& s = store.shapes()[layer];
    const KvHeld held = store.held(layer);
    const auto number = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
    head.rows.push_back({s.kv_heads, s.k_dim, s.v_dim, s.window, number(held.raw_begin), number(held.raw_end),
                         number(held.coded_begin), number(held.coded_end), number(held.first_end), 0,
                         number(held.cold_begin), number(held.cold_end), format.raw_page_bytes(s),
                         format.coded() && s.kv_heads ? format.page_bytes(layer) : 0,
                         s.kv_heads ? format.cold_bytes(layer) : 0});
  }
  return head;
}

/// With all checksums; calls append(bytes), up to where the pages begin.
template <class F>
void write_head(KvFileHead& head, F&& append) {
  Header& h = head.header;
  const Bytes data_at = round_up(head.bytes(), kDirectBlock);
  h.size = data_at + data_bytes(head.rows, h.recurrent_bytes);
  h.checksum = head.checksum();
  append(std::as_bytes(std::span(&h, 1)));
  append(std::as_bytes(std::span(head.rows)));
  append(std::as_bytes(std::span(head.tokens)));
  append(std::as_bytes(std::span(head.checksums)));
  append(std::vector<std::byte>(data_at - head.bytes()));
}

}  // namespace

void write_kv_file(const std::string& path, std::uint64_t model, std::span<const std::int32_t> tokens,
                   const KvStore& store, std::span<const std::byte> recurrent) {
  KvFileHead head = head_of(model, tokens, store, recurrent.size());
  for (std::size_t layer = 0; layer < store.shapes().size(); ++layer)
    store.each_page(layer, [&](std::span<std::byte> page) { head.checksums.push_back(hash_of(page)); });
  if (!recurrent.empty()) head.checksums.push_back(hash_of(recurrent));
  remove_abandoned(path);
  write_atomically(path, [&](const auto& append) {
    write_head(head, append);
    for (std::size_t layer = 0; layer < store.shapes().size(); ++layer)
      store.each_page(layer, [&](std::span<std::byte> page) { append(page); });
    append(recurrent);
  });
}

KvImage::KvImage(std::uint64_t model, std::span<const std::int32_t> tokens, const KvStore& store,
                 std::span<const std::byte> recurrent)
    : head_(std::make_unique<KvFileHead>(head_of(model, tokens, store, recurrent.size()))) {
  for (std::size_t layer = 0; layer < store.shapes().size(); ++layer) {
    std::vector<std::span<const std::byte>> pages;
    store.each_page(layer, [&](std::span<std::byte> page) { pages.push_back(page); });
    const KvHeld h = store.held(layer);
    std::span<const std::span<const std::byte>> rest(pages);
    const auto run = [&](std::size_t first_page, std::size_t count) {
      add_run(first_page, rest.first(count));
      rest = rest.subspan(count);
    };
    run(0, h.first_end);
    run(h.raw_begin, h.raw_end - h.raw_begin);
    run(h.coded_begin, h.coded_pages());
    run(h.cold_begin, h.cold_pages());
    pages_.insert(pages_.end(), pages.begin(), pages.end());
  }
  if (!recurrent.empty()) {
    add_run(0, std::span(&recurrent, 1));
    pages_.push_back(recurrent);
  }
}

KvImage::~KvImage() = default;

void KvImage::add_run(std::size_t first_page, std::span<const std::span<const std::byte>> pages) {
  if (pages.empty()) return;
  const std::size_t page_bytes = pages[0].size(), together = std::max<std::size_t>(1, kKvPartBytes / page_bytes);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const bool begins = i == 0 || (first_page + i) % together == 0;
    for (std::size_t at = 0; at < page_bytes; at += kKvPartBytes) {
      if (begins || at > 0) parts_.emplace_back();
      parts_.back().push_back(pages[i].subspan(at, std::min(kKvPartBytes, page_bytes - at)));
    }
  }
}

bool KvImage::prepare(Bytes bytes) {
  std::vector<std::uint64_t>& checksums = head_->checksums;
  while (checksums.size() < pages_.size()) {
    const std::span<const std::byte> page = pages_[checksums.size()];
    checksums.push_back(hash_of(page));
    if (page.size() >= bytes) return true;
    bytes -= page.size();
  }
  if (!head_bytes_.empty()) return false;
  write_head(*head_, [this](std::span<const std::byte> more) {
    head_bytes_.insert(head_bytes_.end(), more.begin(), more.end());
  });
  std::vector<Part> head_parts;
  for (std::size_t at = 0; at < head_bytes_.size(); at += kKvPartBytes)
    head_parts.push_back({std::span(head_bytes_).subspan(at, std::min(kKvPartBytes, head_bytes_.size() - at))});
  parts_.insert(parts_.begin(), head_parts.begin(), head_parts.end());
  bytes_ = head_->header.size;
  return false;
}

KvFile KvFile::open(const std::string& path) {
  return parse(open_file(path, Caching::direct));
}

KvFile KvFile::parse(std::unique_ptr<RandomAccessFile> file, bool check, Bytes there) {
  const std::string& path = file->path();
  KvFileHead head;
  Header& h = head.header;
  there = std::min(there, file->size());
  if (there < sizeof h) fail<FormatError>("{}: too short for a saved session", path);
  file->read(0, std::as_writable_bytes(std::span(&h, 1)));
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) fail<FormatError>("{}: not a saved session", path);
  if (h.version != kKvFileVersion)
    fail<FormatError>("{}: version {} where {} is known", path, h.version, kKvFileVersion);
  if (check && h.size != file->size())
    fail<FormatError>("{}: {} bytes where {} are expected: cut short?", path, file->size(), h.size);
  // Sizes are limited by the file before memory is taken for them.
  Bytes at = sizeof h;
  const auto read = [&](auto& list, std::uint64_t count) {
    const Bytes bytes = checked_mul(count, sizeof list[0]);
    if (bytes > there - at) fail<FormatError>("{}: cut short, or the header is damaged", path);
    list.resize(count);
    file->read(at, std::as_writable_bytes(std::span(list)));
    at += bytes;
  };
  if (h.layers == 0 || h.layers > kMaxLayers || h.tokens > kMaxTokens || h.format[sizeof h.format - 1] != 0)
    fail<FormatError>("{}: the header is damaged", path);
  read(head.rows, h.layers);
  std::uint64_t pages = h.recurrent_bytes > 0 ? 1 : 0;
  for (const LayerRow& r : head.rows) {
    if (r.raw_begin > r.raw_end || r.first_end > r.raw_begin || r.coded_begin > r.coded_end ||
        r.cold_begin > r.cold_end || std::max({r.raw_bytes, r.coded_bytes, r.cold_bytes}) > kMaxPageBytes)
      fail<FormatError>("{}: the table of pages is damaged", path);
    pages +=
        std::uint64_t{r.first_end} + r.raw_end - r.raw_begin + r.coded_end - r.coded_begin + r.cold_end - r.cold_begin;
  }
  read(head.tokens, h.tokens);
  read(head.checksums, pages);
  if (check && head.checksum() != h.checksum) fail<FormatError>("{}: damaged", path);
  KvFile result;
  result.data_at_ = round_up(at, kDirectBlock);
  result.data_bytes_ = data_bytes(head.rows, h.recurrent_bytes);
  if (file->size() < result.data_at_ || file->size() - result.data_at_ != result.data_bytes_)
    fail<FormatError>("{}: its size is not what its pages need", path);
  for (const LayerRow& r : head.rows) {
    result.shapes_.push_back({r.kv_heads, r.k_dim, r.v_dim, r.window});
    result.held_.push_back({r.first_end, r.raw_begin, r.raw_end, r.coded_begin, r.coded_end, r.cold_begin, r.cold_end});
  }
  result.model_ = h.model;
  result.tables_ = h.tables;
  result.format_ = h.format;
  result.recurrent_bytes_ = h.recurrent_bytes;
  result.tokens_ = std::move(head.tokens);
  result.checksums_ = std::move(head.checksums);
  result.file_ = std::move(file);
  return result;
}

void KvFile::expect_matching(std::uint64_t model, const KvStore& store, std::size_t recurrent_bytes) const {
  const std::string& path = file_->path();
  if (model_ != model) fail<FormatError>("{}: saved with another model", path);
  if (format_ != store.format().name)
    fail<FormatError>("{}: saved with --kv {}, not {}", path, format_, store.format().name);
  if (tables_ != store.format().learned)
    fail<FormatError>("{}: its KV codec has been calibrated anew since it was saved", path);
  bool same = shapes_.size() == store.shapes().size() && recurrent_bytes_ == recurrent_bytes;
  Bytes bytes = recurrent_bytes;
  for (std::size_t layer = 0; same && layer < shapes_.size(); ++layer) {
    const KvShape &a = shapes_[layer], &b = store.shapes()[layer];
    const KvHeld& held = held_[layer];
    same = a.kv_heads == b.kv_heads && a.k_dim == b.k_dim && a.v_dim == b.v_dim && a.window == b.window &&
           store.can_hold(layer, tokens_.size(), held);
    bytes += held.raw_pages() * store.format().raw_page_bytes(b);
    if (held.coded_pages() > 0) bytes += held.coded_pages() * store.format().page_bytes(layer);
    bytes += held.cold_pages() * store.format().cold_bytes(layer);
  }
  if (!same || bytes != data_bytes_) fail<FormatError>("{}: its layers are not those of the model", path);
}

std::vector<std::span<std::byte>> KvFile::prepare(std::uint64_t model, KvStore& store,
                                                  std::span<std::byte> recurrent) const {
  expect_matching(model, store, recurrent.size());
  store.hold(tokens_.size(), held_);
  std::vector<std::span<std::byte>> pages;
  for (std::size_t layer = 0; layer < shapes_.size(); ++layer)
    store.each_page(layer, [&](std::span<std::byte> page) { pages.push_back(page); });
  if (!recurrent.empty()) pages.push_back(recurrent);
  return pages;
}

void KvFile::fill(std::span<const std::span<std::byte>> pages) const {
  Bytes at = data_at_;
  auto checksum = checksums_.begin();
  for (const std::span<std::byte> page : pages) {
    file_->read(at, page);
    if (hash_of(page) != *checksum++) fail<FormatError>("{}: damaged at byte {}", file_->path(), at);
    at += page.size();
  }
}

}  // namespace snug
