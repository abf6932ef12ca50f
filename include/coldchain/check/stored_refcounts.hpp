// SPDX-License-Identifier: MIT
// The refcounts that an image stores, read once and kept as two bits per cluster: whether the count
// is one, and whether it is more. qcow2.rst, "Host cluster management". A block that several
// entries name is read once. A count that cannot be read differs from a count of zero. Memory is
// bounded by the nonzero parts of the blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::check {

class StoredRefcounts {
 public:
  // The entries of the refcount table as they lie in the file. What lies past the end of the file
  // reads as zeros, as for QEMU. `file` outlives the object.
  [[nodiscard]] static Result<StoredRefcounts> read(const io::File& file,
                                                    const qcow2::Header& header, unsigned workers);

  [[nodiscard]] const std::vector<std::uint64_t>& table() const { return table_; }
  [[nodiscard]] std::uint64_t clusters_per_block() const { return std::uint64_t{1} << block_bits_; }

  // The bits of 64 clusters, from a multiple of 64 on. No block has fewer.
  struct Word {
    std::uint64_t one = 0;         // the count is 1
    std::uint64_t more = 0;        // the count is 2 or more
    std::uint64_t unreadable = 0;  // unknown: there cannot be a block at that offset
  };
  [[nodiscard]] Word word(std::uint64_t first) const;

  // Whether the count is 1; nothing where it cannot be read.
  [[nodiscard]] std::optional<bool> is_one(std::uint64_t cluster) const;

  // How many clusters from `first` on, at most `count`, agree with a copied flag: their count is 1
  // if `is_copied`, something else if not, or cannot be read.
  [[nodiscard]] std::uint64_t agreeing_from(std::uint64_t first, std::uint64_t count,
                                            bool is_copied) const;

  // The part of a block that was read last, for callers that ask for many counts.
  struct Cursor {
    std::uint64_t offset = 0;  // in the file; 0: none
    Bytes bytes;
  };

  // The count itself; nothing where it cannot be read. Reads the file where it is more than one.
  [[nodiscard]] std::optional<std::uint64_t> at(std::uint64_t cluster, Cursor& cursor) const;

  // The first cluster at or after `from` that may have a count; the largest number if none has.
  [[nodiscard]] std::uint64_t next_used(std::uint64_t from) const;

  // The first group of 64 clusters, at or after a multiple of 64, with a count that is not zero;
  // the largest number if there is none. Skips counts that cannot be read.
  [[nodiscard]] std::uint64_t next_counted(std::uint64_t from) const;

  // How many counts are not zero. The counts of a block that several entries name count once.
  [[nodiscard]] std::uint64_t counted() const { return counted_; }

  // A part of the refcount table, or a refcount block, that the system could not read.
  struct Unread {
    bool is_block = false;
    std::uint64_t index = 0;  // in the refcount table, of the first entry
    HostRange host;           // empty where a second attempt succeeded
    std::string error;
  };
  [[nodiscard]] const std::vector<Unread>& unread() const { return unread_; }
  // Whether the count of 64 clusters, from a multiple of 64 on, is unreadable for that reason.
  [[nodiscard]] bool is_unread(std::uint64_t first) const {
    return block_of(first) == unread_block;
  }

  // Too many table entries name a block that another entry names; they were treated as unreadable.
  [[nodiscard]] bool is_partial() const { return is_partial_; }
  // The most counts that may be repeated.
  static constexpr std::uint64_t most_repeated_counts = 1 << 22;

  // One more than the highest cluster that has a count, or may have one.
  [[nodiscard]] std::uint64_t end() const { return end_; }

 private:
  // A part of a block; `one` is empty where all counts are zero, `more` where none is above one.
  // A large block may be nearly empty.
  struct Piece {
    std::vector<std::uint64_t> one;
    std::vector<std::uint64_t> more;
    std::uint64_t counted = 0;  // counts that are not zero
  };
  using Block = std::vector<Piece>;                // empty where all counts are zero
  static constexpr unsigned most_piece_bits = 15;  // `one` has at most 4096 bytes
  static constexpr std::uint32_t no_block = ~0U;
  static constexpr std::uint32_t unread_block = ~0U - 1;  // the system could not read it
  static constexpr std::uint32_t unreadable_block = ~0U - 2;

  StoredRefcounts(const io::File& file, const qcow2::Header& header);
  void read_table(const qcow2::Header& header);
  Result<void> read_blocks(unsigned workers);
  // The distinct blocks; block_index_ says of each table entry which.
  std::vector<std::uint64_t> list_blocks();
  void keep_blocks(std::vector<Block> blocks);
  void note_unread(std::uint64_t index, const io::Unread& block);
  void find_end();
  struct BlockRead {
    Block block;
    io::Unread unread;
  };
  [[nodiscard]] BlockRead read_block(std::uint64_t offset, Bytes& buffer) const;
  [[nodiscard]] std::uint32_t block_of(std::uint64_t cluster) const;

  const io::File* file_;
  unsigned cluster_bits_;
  unsigned order_;
  unsigned block_bits_;  // 1 << block_bits_ clusters are in a block
  unsigned piece_bits_;  // 1 << piece_bits_ clusters are in a piece
  std::uint64_t end_ = 0;
  std::uint64_t counted_ = 0;
  bool is_partial_ = false;
  std::vector<std::uint64_t> table_;
  std::vector<std::uint32_t> block_index_;  // per table entry: the first of its block in pieces_,
                                            // or one of the three above
  std::vector<Piece> pieces_;
  std::vector<Unread> unread_;
};

}  // namespace coldchain::check
