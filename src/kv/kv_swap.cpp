#include "kv/kv_swap.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace snug {

namespace {
constexpr std::size_t kLeastRead = kMiB;  // room for neighbours
}

bool KvTransfer::done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

KvSwap::KvSwap(Ledger& ledger, const KvSwapOptions& options, std::size_t most_page)
    : options_(options),
      most_(std::max<std::size_t>({options.group, kLeastRead, most_page})),
      file_(std::make_shared<SpillFile>()),
      staging_(ledger, Tag::kv, FileRange::blocks_bytes(most_)),
      thread_([this] { run(); }) {}

KvSwap::~KvSwap() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void KvSwap::write(std::vector<PageRef> pages) {
  auto transfer = std::make_shared<KvTransfer>();
  Bytes size = 0, group = 0;
  for (PageRef& page : pages) {
    if (const auto copy = page.copy()) {
      ++stats_.kept;
      continue;
    }
    auto copy = std::make_shared<PageCopy>();
    page.set_copy(copy);
    // Groups begin where blocks of the disk do.
    if (size + page.bytes() - group > options_.group) group = size = round_up(size, kDirectBlock);
    transfer->pieces_.push_back({page.data(), page.bytes(), size});
    size += page.bytes();
    stats_.written += page.bytes();
    transfer->copies_.push_back(std::move(copy));
    transfer->pages_.push_back(std::move(page));
  }
  if (size == 0) return;
  transfer->extent_ = std::make_shared<SpillExtent>(file_, round_up(size, kDirectBlock));
  const Bytes begin = transfer->extent_->range().offset;
  for (std::size_t i = 0; i < transfer->pieces_.size(); ++i) {
    transfer->pieces_[i].offset += begin;
    transfer->copies_[i]->offset = transfer->pieces_[i].offset;
    transfer->copies_[i]->place = transfer->extent_;
  }
  start(std::move(transfer));
}

std::shared_ptr<const KvTransfer> KvSwap::read(std::vector<Return> pages) {
  auto transfer = std::make_shared<KvTransfer>();
  transfer->reads_ = true;
  std::sort(pages.begin(), pages.end(),
            [](const Return& a, const Return& b) { return a.copy->offset < b.copy->offset; });
  for (Return& r : pages) {
    transfer->pieces_.push_back({r.page.data(), r.page.bytes(), r.copy->offset});
    stats_.read += r.page.bytes();
    transfer->copies_.push_back(std::move(r.copy));
    transfer->pages_.push_back(std::move(r.page));
  }
  if (!pages.empty())
    start(transfer);
  else
    transfer->done_ = true;
  return transfer;
}

void KvSwap::start(std::shared_ptr<KvTransfer> transfer) {
  under_way_.push_back(transfer);
  {
    const std::lock_guard lock(mutex_);
    // A sequence that waits for its pages waits for nothing else.
    const auto place =
        transfer->reads_ ? std::find_if(queue_.begin(), queue_.end(), [](const auto& other) { return !other->reads_; })
                         : queue_.end();
    queue_.insert(place, transfer);
  }
  wake_.notify_one();
  while (!options_.background && !transfer->done()) wait();
}

void KvSwap::collect() {
  std::erase_if(under_way_, [this](const std::shared_ptr<KvTransfer>& transfer) {
    if (!transfer->done()) return false;
    const bool failed = !transfer->error_.empty();
    if (failed) last_error_ = transfer->error_;
    for (std::size_t i = 0; i < transfer->pages_.size(); ++i) {
      if (transfer->reads_ && !failed && options_.keep_copies && !transfer->copies_[i]->data)
        transfer->pages_[i].set_copy(transfer->copies_[i]);
      if (!transfer->reads_ && failed) keep(std::move(transfer->pages_[i]), *transfer->copies_[i]);
    }
    // Here, whoever holds the transfer still: pages are the owner's thread's.
    transfer->pages_.clear();
    transfer->copies_.clear();
    return true;
  });
}

/// A page that could not be written: who gave it away finds it at its copy, and nobody else does.
void KvSwap::keep(PageRef page, PageCopy& copy) {
  std::byte* const data = copy.data;
  PageSlab* const slab = copy.slab;
  if (!data) return;
  page.forget_copy();
  copy.data = data, copy.slab = slab, copy.place = nullptr;
  copy.stays = std::move(page);
}

Bytes KvSwap::leaving_bytes() const {
  Bytes bytes = 0;
  for (const auto& transfer : under_way_)
    if (!transfer->reads_)
      for (const PageRef& page : transfer->pages_)
        if (!page.shared()) bytes += page.bytes();
  return bytes;
}

bool KvSwap::wait() {
  if (under_way_.empty()) return false;
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] {
    return std::any_of(under_way_.begin(), under_way_.end(), [](const auto& transfer) { return transfer->done(); });
  });
  return true;
}

void KvSwap::run() {
  while (true) {
    std::shared_ptr<KvTransfer> transfer;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      transfer = std::move(queue_.front());
      queue_.pop_front();
    }
    std::string error;
    try {
      move(*transfer);
    } catch (const std::exception& e) {
      error = e.what();
    }
    const std::lock_guard lock(mutex_);
    {
      const std::lock_guard inner(transfer->mutex_);
      transfer->error_ = std::move(error);
      transfer->done_ = true;
    }
    done_.notify_all();
  }
}

void KvSwap::move(KvTransfer& transfer) {
  const std::span<const KvTransfer::Piece> pieces = transfer.pieces_;
  // Without groups, pages are written one by one, and neighbours are read together.
  const std::size_t most = transfer.reads_ ? most_ : options_.group;
  for (std::size_t first = 0, end; first < pieces.size(); first = end) {
    for (end = first + 1; end < pieces.size(); ++end) {
      const KvTransfer::Piece &last = pieces[end - 1], &next = pieces[end];
      if (next.offset != last.offset + last.size || next.offset + next.size - pieces[first].offset > most) break;
    }
    if (transfer.reads_)
      read_group(pieces.subspan(first, end - first));
    else
      write_group(pieces.subspan(first, end - first));
  }
}

void KvSwap::write_group(std::span<const KvTransfer::Piece> pieces) {
  std::byte* to = staging_.data();
  for (const KvTransfer::Piece& piece : pieces) to = std::copy_n(piece.data, piece.size, to);
  const auto size = static_cast<std::size_t>(to - staging_.data());
  file_->write(pieces.front().offset, {staging_.data(), round_up(size, kDirectBlock)});
}

void KvSwap::read_group(std::span<const KvTransfer::Piece> pieces) {
  const Bytes begin = pieces.front().offset, end = pieces.back().offset + pieces.back().size;
  const FileRange blocks = FileRange{file_.get(), begin, static_cast<std::size_t>(end - begin)}.whole_blocks();
  file_->read(blocks.offset, {staging_.data(), blocks.size});
  for (const KvTransfer::Piece& piece : pieces)
    std::copy_n(staging_.data() + (piece.offset - blocks.offset), piece.size, piece.data);
}

}  // namespace snug
