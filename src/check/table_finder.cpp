// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/bytes.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/check/table_finder.hpp>
#include <coldchain/qcow2/tables.hpp>

namespace coldchain::check {

namespace {

// Most of what is not a table shows it here.
constexpr std::size_t page_bytes = 4096;

}  // namespace

TableFinder::TableFinder(const io::File& file, const qcow2::Geometry& geometry)
    : file_(file),
      geometry_(geometry),
      page_(std::min<std::size_t>(geometry.cluster_size(), page_bytes) / sizeof(be64)),
      table_(geometry.cluster_size() / sizeof(be64)) {}

bool TableFinder::look_at(std::uint64_t cluster) {
  const HostOffset at{cluster << geometry_.cluster_bits()};
  const Result<HostOffset> data = file_.next_data(at);
  if (!data || *data - at >= geometry_.cluster_size())
    return false;  // a hole
  bytes_ += geometry_.cluster_size();
  if (!io::read_zero_extended(file_, at, writable_bytes_of(page_)))
    return false;
  const bool is_zero =
      std::all_of(page_.begin(), page_.end(), [](const be64& raw) { return raw.get() == 0; });
  return (is_zero || could_be_table(page_)) &&
         io::read_zero_extended(file_, at, writable_bytes_of(table_)) && could_be_table(table_);
}

bool TableFinder::could_be_table(const std::vector<be64>& words) const {
  const std::size_t step = geometry_.l2_entry_bytes() / sizeof(be64);
  // The entries of an L1 table are eight bytes wide whatever those of the L2 tables are.
  return could_be_table(words, step) || (step > 1 && could_be_table(words, 1));
}

bool TableFinder::could_be_table(const std::vector<be64>& words, std::size_t step) const {
  std::size_t naming = 0;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < words.size(); i += step) {
    const std::uint64_t raw = words[i].get();
    if (raw == 0)
      continue;
    if (!could_be_entry(raw))
      ++wrong;
    else if (qcow2::L2Entry(raw).host_offset().value != 0)
      ++naming;
  }
  // A table may be damaged itself.
  return naming > 0 && wrong <= naming / 8;
}

bool TableFinder::could_be_entry(std::uint64_t raw) const {
  const std::uint64_t cluster_size = geometry_.cluster_size();
  const qcow2::L2Entry entry(raw);
  if (entry.is_compressed()) {
    const std::uint64_t begin = entry.compressed_extent(geometry_.cluster_bits()).begin.value;
    return !entry.is_copied() && begin >= cluster_size && begin < file_.size();
  }
  return (raw & qcow2::l2_reserved_mask) == 0 &&
         is_aligned(entry.host_offset().value, cluster_size) &&
         entry.host_offset().value < file_.size();
}

void TableFinder::for_each_named(const std::function<void(std::uint64_t)>& visit) const {
  for (const be64& word : table_) {
    const qcow2::L2Entry entry(word.get());
    HostOffset begin = entry.host_offset();
    HostOffset end = begin + 1;
    if (entry.is_compressed()) {
      const qcow2::CompressedExtent extent = entry.compressed_extent(geometry_.cluster_bits());
      begin = extent.begin;
      end = extent.begin + extent.max_bytes;
    }
    if (begin.value == 0 || begin.value >= file_.size())
      continue;
    const std::uint64_t last = (end.value - 1) >> geometry_.cluster_bits();
    for (std::uint64_t cluster = begin.value >> geometry_.cluster_bits(); cluster <= last;
         ++cluster)
      visit(cluster);
  }
}

}  // namespace coldchain::check
