// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <span>
#include <unordered_map>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/parallel.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/check/stored_refcounts.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>

namespace coldchain::check {

namespace {

// Small blocks are read in batches: handing one over costs more than reading it.
constexpr std::size_t block_batch_bytes = 256 << 10;

// QEMU's offsets are signed: what does not fit is an error, not a place past the end of the file.
constexpr std::uint64_t past_every_file = (1ULL << 63) - (1ULL << qcow2::limits::max_cluster_bits);

struct WordOf64 {
  std::uint64_t one = 0;
  std::uint64_t more = 0;
};

WordOf64 look_at(ByteView group, unsigned order) {
  WordOf64 word;
  for (std::uint64_t i = 0; i < 64; ++i) {
    const std::uint64_t value = qcow2::refcount_at(group, order, i);
    word.one |= std::uint64_t{value == 1} << i;
    word.more |= std::uint64_t{value > 1} << i;
  }
  return word;
}

// A group of 64 counts that are all `value`, as bytes.
Bytes uniform_group(unsigned order, std::uint64_t value) {
  Bytes group((64ULL << order) / 8);
  for (std::uint64_t i = 0; i < 64; ++i)
    qcow2::set_refcount_at(group, order, i, value);
  return group;
}

}  // namespace

StoredRefcounts::StoredRefcounts(const io::File& file, const qcow2::Header& header)
    : file_(&file),
      cluster_bits_(header.cluster_bits),
      order_(header.refcount_order),
      block_bits_(header.cluster_bits + 3 - header.refcount_order),
      piece_bits_(std::min(block_bits_, most_piece_bits)) {}

Result<StoredRefcounts> StoredRefcounts::read(const io::File& file, const qcow2::Header& header,
                                              unsigned workers) {
  StoredRefcounts stored(file, header);
  stored.read_table(header);
  TRY(stored.read_blocks(workers));
  return stored;
}

void StoredRefcounts::read_table(const qcow2::Header& header) {
  // Image::open has bounded the table's size.
  std::vector<be64> raw(header.refcount_table_clusters * header.cluster_size() / sizeof(be64));
  const HostOffset offset{header.refcount_table_offset};
  const io::Unread unread = io::read_table_parts(*file_, offset, writable_bytes_of(raw));
  if (unread.error && unread.ranges.empty())
    unread_.push_back({false, 0, {}, unread.error->message});
  std::size_t end = 0;
  for (const HostRange& range : unread.ranges) {
    const std::uint64_t first = (range.begin - offset) / sizeof(be64);
    unread_.push_back({false, first, range, unread.error->message});
    end = (range.end - offset) / sizeof(be64);
  }
  const auto last =
      std::find_if(raw.rbegin(), raw.rend(), [](const be64& entry) { return entry.get() != 0; });
  raw.resize(std::max<std::size_t>(end, static_cast<std::size_t>(raw.rend() - last)));
  for (const be64& entry : raw)
    table_.push_back(entry.get());
}

std::vector<std::uint64_t> StoredRefcounts::list_blocks() {
  std::unordered_map<std::uint64_t, std::uint32_t> known;
  std::vector<std::uint64_t> offsets;
  std::uint64_t repeated = 0;
  for (const std::uint64_t raw : table_) {
    const std::uint64_t offset = raw & qcow2::refcount_block_mask;
    const bool cannot_be =
        !is_aligned(offset, std::uint64_t{1} << cluster_bits_) || offset >= past_every_file;
    if (offset != 0 && cannot_be) {
      block_index_.push_back(unreadable_block);
    } else if (offset == 0 || offset >= file_->size()) {
      block_index_.push_back(no_block);  // behind the end all counts read as zero
    } else {
      const auto [place, is_new] =
          known.try_emplace(offset, static_cast<std::uint32_t>(offsets.size()));
      if (is_new)
        offsets.push_back(offset);
      else
        repeated += clusters_per_block();
      const bool is_left_out = !is_new && repeated > most_repeated_counts;
      is_partial_ = is_partial_ || is_left_out;
      block_index_.push_back(is_left_out ? unreadable_block : place->second);
    }
  }
  for (const Unread& part : unread_) {
    const auto first = block_index_.begin() + static_cast<std::ptrdiff_t>(part.index);
    std::fill_n(first, part.host.size() / sizeof(be64), unread_block);
  }
  return offsets;
}

Result<void> StoredRefcounts::read_blocks(unsigned workers) {
  const std::vector<std::uint64_t> offsets = list_blocks();
  std::vector<std::uint32_t> begins;  // of each distinct block in pieces_
  using Batch = std::span<const std::uint64_t>;
  const std::size_t per_batch = std::max<std::size_t>(1, block_batch_bytes >> cluster_bits_);
  Batch rest(offsets);
  OrderedPipeline<Batch, std::vector<BlockRead>> pipeline(
      [&]() -> std::optional<Batch> {
        if (rest.empty())
          return std::nullopt;
        const Batch batch = rest.first(std::min(per_batch, rest.size()));
        rest = rest.subspan(batch.size());
        return batch;
      },
      [&](const Batch& batch, unsigned) -> Result<std::vector<BlockRead>> {
        std::vector<BlockRead> blocks;
        Bytes buffer;
        for (const std::uint64_t offset : batch)
          blocks.push_back(read_block(offset, buffer));
        return blocks;
      },
      workers);
  std::unordered_map<std::uint64_t, io::Unread> unread;  // by the number of the block
  TRY(pipeline.run([&](std::vector<BlockRead> blocks) -> Result<void> {
    for (BlockRead& read : blocks) {
      const bool is_lost = !read.unread.ranges.empty();
      if (read.unread.error)
        unread.emplace(begins.size(), std::move(read.unread));
      begins.push_back(is_lost              ? unread_block
                       : read.block.empty() ? no_block
                                            : static_cast<std::uint32_t>(pieces_.size()));
      if (!is_lost)
        std::move(read.block.begin(), read.block.end(), std::back_inserter(pieces_));
    }
    return {};
  }));
  for (std::size_t i = 0; i < block_index_.size(); ++i) {
    if (block_index_[i] >= unreadable_block)
      continue;
    if (const auto failed = unread.find(block_index_[i]); failed != unread.end())
      note_unread(i, failed->second);
    block_index_[i] = begins[block_index_[i]];
  }
  for (const Piece& piece : pieces_)
    counted_ += piece.counted;
  find_end();
  return {};
}

void StoredRefcounts::note_unread(std::uint64_t index, const io::Unread& block) {
  if (block.ranges.empty())
    unread_.push_back({true, index, {}, block.error->message});
  for (const HostRange& range : block.ranges)
    unread_.push_back({true, index, range, block.error->message});
}

void StoredRefcounts::find_end() {
  for (std::size_t i = block_index_.size(); i-- > 0 && end_ == 0;) {
    if (block_index_[i] == unreadable_block || block_index_[i] == unread_block)
      end_ = (i + 1) * clusters_per_block();
    if (block_index_[i] >= unreadable_block)
      continue;
    const std::uint64_t begin = i * clusters_per_block();
    for (std::uint64_t first = begin + clusters_per_block(); first > begin && end_ == 0;) {
      first -= 64;
      const Word word = this->word(first);
      if ((word.one | word.more) != 0)
        end_ = first + 64 - static_cast<std::uint64_t>(std::countl_zero(word.one | word.more));
    }
  }
}

StoredRefcounts::BlockRead StoredRefcounts::read_block(std::uint64_t offset, Bytes& bytes) const {
  // A file may be long and nearly empty.
  const std::uint64_t size = std::uint64_t{1} << cluster_bits_;
  if (const Result<HostOffset> data = file_->next_data({offset});
      data && *data >= HostOffset{offset + size})
    return {};
  bytes.resize(size);
  io::Unread unread = io::read_table_parts(*file_, {offset}, bytes);
  const Bytes all_one = uniform_group(order_, 1);
  const Bytes all_zero(all_one.size());
  const std::size_t per_piece = (std::size_t{1} << piece_bits_) / 64;
  const std::byte* group = bytes.data();
  Block block(clusters_per_block() >> piece_bits_);
  bool is_empty = true;
  for (Piece& piece : block) {
    for (std::size_t i = 0; i < per_piece; ++i, group += all_one.size()) {
      // Groups that are all zero or all one are the rule.
      if (std::memcmp(group, all_zero.data(), all_zero.size()) == 0)
        continue;
      is_empty = false;
      piece.one.resize(per_piece);
      if (std::memcmp(group, all_one.data(), all_one.size()) == 0) {
        piece.one[i] = ~std::uint64_t{0};
        piece.counted += 64;
        continue;
      }
      const WordOf64 word = look_at({group, all_one.size()}, order_);
      piece.one[i] = word.one;
      piece.counted += static_cast<std::uint64_t>(std::popcount(word.one | word.more));
      if (word.more != 0) {
        piece.more.resize(per_piece);
        piece.more[i] = word.more;
      }
    }
  }
  if (is_empty)
    block.clear();
  return {std::move(block), std::move(unread)};
}

std::uint32_t StoredRefcounts::block_of(std::uint64_t cluster) const {
  const std::uint64_t index = cluster >> block_bits_;
  return index < block_index_.size() ? block_index_[index] : no_block;
}

StoredRefcounts::Word StoredRefcounts::word(std::uint64_t first) const {
  const std::uint32_t index = block_of(first);
  if (index == no_block)
    return {};
  if (index == unreadable_block || index == unread_block)
    return {0, 0, ~std::uint64_t{0}};
  const std::uint64_t in_block = first & (clusters_per_block() - 1);
  const Piece& piece = pieces_[index + (in_block >> piece_bits_)];
  if (piece.one.empty())
    return {};
  const std::uint64_t at = (in_block & ((std::uint64_t{1} << piece_bits_) - 1)) / 64;
  return {piece.one[at], piece.more.empty() ? 0 : piece.more[at], 0};
}

std::optional<bool> StoredRefcounts::is_one(std::uint64_t cluster) const {
  const Word word = this->word(cluster / 64 * 64);
  if (word.unreadable != 0)
    return std::nullopt;
  return (word.one >> (cluster % 64) & 1) != 0;
}

std::uint64_t StoredRefcounts::agreeing_from(std::uint64_t first, std::uint64_t count,
                                             bool is_copied) const {
  std::uint64_t agreeing = 0;
  while (agreeing < count) {
    const std::uint64_t cluster = first + agreeing;
    const Word word = this->word(cluster / 64 * 64);
    const std::uint64_t wrong =
        (is_copied ? ~word.one & ~word.unreadable : word.one) >> (cluster % 64);
    const std::uint64_t room = 64 - cluster % 64;
    if (wrong != 0)
      return std::min(count, agreeing + static_cast<std::uint64_t>(std::countr_zero(wrong)));
    agreeing += room;
  }
  return count;
}

std::optional<std::uint64_t> StoredRefcounts::at(std::uint64_t cluster, Cursor& cursor) const {
  const Word word = this->word(cluster / 64 * 64);
  const std::uint64_t bit = std::uint64_t{1} << (cluster % 64);
  if (word.unreadable != 0)
    return std::nullopt;
  if ((word.more & bit) == 0)
    return (word.one & bit) != 0 ? 1 : 0;
  // A page around the entry: a hostile table may jump from block to block.
  constexpr std::uint64_t page_bytes = 4096;
  const std::uint64_t block = table_[cluster >> block_bits_] & qcow2::refcount_block_mask;
  const std::uint64_t in_block = (cluster % clusters_per_block() << order_) / 8;
  const std::uint64_t size = std::min(page_bytes, std::uint64_t{1} << cluster_bits_);
  const std::uint64_t offset = block + align_down(in_block, size);
  if (cursor.offset != offset) {
    cursor.bytes.resize(size);
    cursor.offset = 0;
    if (!io::read_zero_extended(*file_, {offset}, cursor.bytes))
      return std::nullopt;
    cursor.offset = offset;
  }
  return qcow2::refcount_at(cursor.bytes, order_,
                            cluster % clusters_per_block() % ((8 * size) >> order_));
}

std::uint64_t StoredRefcounts::next_used(std::uint64_t from) const {
  std::uint64_t index = from >> block_bits_;
  while (index < block_index_.size() && block_index_[index] == no_block)
    ++index;
  return index < block_index_.size() ? std::max(from, index * clusters_per_block())
                                     : ~std::uint64_t{0};
}

std::uint64_t StoredRefcounts::next_counted(std::uint64_t from) const {
  const std::uint64_t per_piece = std::uint64_t{1} << piece_bits_;
  const std::uint64_t end = block_index_.size() * clusters_per_block();
  while (from < end) {
    const std::uint32_t index = block_of(from);
    if (index >= unreadable_block) {
      from = align_down(from, clusters_per_block()) + clusters_per_block();
    } else if (pieces_[index + ((from & (clusters_per_block() - 1)) >> piece_bits_)].one.empty()) {
      from = align_down(from, per_piece) + per_piece;
    } else {
      const Word word = this->word(from);
      if ((word.one | word.more) != 0)
        return from;
      from += 64;
    }
  }
  return ~std::uint64_t{0};
}

}  // namespace coldchain::check
