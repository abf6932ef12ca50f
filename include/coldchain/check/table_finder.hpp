// SPDX-License-Identifier: MIT
// Clusters to which nothing refers, and that look like L1 or L2 tables: they may describe lost
// data. Guest data hardly ever looks like that: at least one entry must name a cluster of the file,
// and of nine that are not zero eight must be such as could be.
#pragma once

#include <functional>
#include <vector>

#include <coldchain/base/endian.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/geometry.hpp>

namespace coldchain::check {

class TableFinder {
 public:
  // `file` outlives the finder.
  TableFinder(const io::File& file, const qcow2::Geometry& geometry);

  // Whether the cluster looks like a table. What cannot be read, does not.
  [[nodiscard]] bool look_at(std::uint64_t cluster);

  // The bytes that were looked into, all clusters together; those in holes cost nothing.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  // Of the cluster that was found last: its entries as 64-bit words.
  // The host clusters that it names, in its order, also as an L1 table would name them.
  void for_each_named(const std::function<void(std::uint64_t cluster)>& visit) const;

 private:
  [[nodiscard]] bool could_be_table(const std::vector<be64>& words, std::size_t step) const;
  [[nodiscard]] bool could_be_table(const std::vector<be64>& words) const;
  [[nodiscard]] bool could_be_entry(std::uint64_t raw) const;

  const io::File& file_;
  qcow2::Geometry geometry_;
  std::vector<be64> page_;
  std::vector<be64> table_;
  std::uint64_t bytes_ = 0;
};

}  // namespace coldchain::check
