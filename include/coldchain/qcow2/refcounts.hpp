// SPDX-License-Identifier: MIT
// Stored reference counts of host clusters, of any width. qcow2.rst, "Host cluster management".
#pragma once

#include <cstdint>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::qcow2 {

// Entry `index` of a refcount block whose entries are 1 << refcount_order bits wide.
[[nodiscard]] std::uint64_t refcount_at(ByteView block, unsigned refcount_order,
                                        std::uint64_t index);
void set_refcount_at(ByteSpan block, unsigned refcount_order, std::uint64_t index,
                     std::uint64_t value);

// The most that an entry of that width can hold.
[[nodiscard]] constexpr std::uint64_t max_refcount(unsigned refcount_order) {
  return ~std::uint64_t{0} >> (64 - (1U << refcount_order));
}

class Refcounts {
 public:
  // Reads the refcount table; `file` outlives the object.
  [[nodiscard]] static Result<Refcounts> open(const io::File& file, const Header& header);

  // Host clusters below `clusters` whose count is not 0, but no more than `enough` of them: the
  // counting stops there.
  [[nodiscard]] Result<std::uint64_t> count_used(std::uint64_t clusters,
                                                 std::uint64_t enough) const;

  // The end of the last host cluster whose count is not 0; 0 if all are free.
  [[nodiscard]] Result<HostOffset> image_end() const;

 private:
  Refcounts(const io::File& file, const Header& header)
      : file_(&file), cluster_bits_(header.cluster_bits), order_(header.refcount_order) {}

  [[nodiscard]] std::uint64_t entries_per_block() const {
    return (8ULL << cluster_bits_) >> order_;
  }
  // The block of table entry `index`, or nothing in `block` where it has none.
  [[nodiscard]] Result<bool> read_block(std::uint64_t index, Bytes& block) const;

  const io::File* file_;
  unsigned cluster_bits_;
  unsigned order_;
  std::vector<be64> table_;
};

}  // namespace coldchain::qcow2
