// SPDX-License-Identifier: MIT
// Unreferenced clusters that look like L1 or L2 tables: they may describe lost data. Guest data
// rarely looks like that: at least one entry must name a cluster of the file, and of nine nonzero
// entries eight must be valid.
#pragma once

#include <functional>
#include <vector>

#include <coldchain/base/endian.hpp>
#include <coldchain/qcow2/image.hpp>

namespace coldchain::check {

class TableFinder {
 public:
  // `image` outlives the finder.
  explicit TableFinder(const qcow2::Image& image);

  // Whether the cluster looks like a table. A cluster that cannot be read does not.
  [[nodiscard]] bool look_at(std::uint64_t cluster);

  // Whether the clusters that the table found last names read as tables: then it is an L1 table.
  [[nodiscard]] bool names_tables();

  // Whether the cluster reads as an L2 table that says something, also of zero clusters alone.
  [[nodiscard]] bool reads_as_table(std::uint64_t cluster) const;

  // The bytes that were looked into, all clusters together; those in holes cost nothing.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  // The clusters of the image's file that the table found last names, in its order, also as an L1
  // table would name them. With an external data file, guest data is not among them.
  void for_each_named(const std::function<void(std::uint64_t cluster)>& visit) const;

 private:
  struct Tally {
    std::size_t naming = 0;
    std::size_t wrong = 0;
    // A table may be damaged itself.
    [[nodiscard]] bool is_credible() const { return wrong <= naming / 8; }
  };
  [[nodiscard]] Tally tally(const std::vector<be64>& words, std::size_t step) const;
  template <class Predicate>
  [[nodiscard]] bool is_any(const std::vector<be64>& words, Predicate&& predicate) const;
  [[nodiscard]] bool could_be_entry(std::uint64_t raw) const;
  struct Entries {
    std::size_t valid = 0;
    std::size_t wrong = 0;
  };
  [[nodiscard]] Entries count_entries(std::uint64_t cluster) const;

  const io::File& file_;
  bool has_data_file_;
  std::uint64_t named_end_;  // behind all that an entry may name
  qcow2::Geometry geometry_;
  std::vector<be64> page_;
  std::vector<be64> table_;
  std::uint64_t bytes_ = 0;
};

}  // namespace coldchain::check
