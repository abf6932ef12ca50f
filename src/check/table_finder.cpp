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

TableFinder::TableFinder(const qcow2::Image& image)
    : file_(image.file()),
      has_data_file_(image.header().has_data_file()),
      named_end_(image.data_file() != nullptr ? image.data_file()->size() : qcow2::offset_mask),
      geometry_(image.header()),
      page_(std::min<std::size_t>(geometry_.cluster_size(), page_bytes) / sizeof(be64)),
      table_(geometry_.cluster_size() / sizeof(be64)) {
  named_end_ = std::max(named_end_, file_.size());  // an L1 table names L2 tables
}

bool TableFinder::look_at(std::uint64_t cluster) {
  const HostOffset at{cluster << geometry_.cluster_bits()};
  const Result<HostOffset> data = file_.next_data(at);
  if (!data || *data - at >= geometry_.cluster_size())
    return false;  // a hole
  bytes_ += geometry_.cluster_size();
  if (!io::read_zero_extended(file_, at, writable_bytes_of(page_)))
    return false;
  // A page may have nothing but zeros of either kind; not all of a table that is of use.
  return is_any(page_, [](const Tally& page) { return page.is_credible(); }) &&
         io::read_zero_extended(file_, at, writable_bytes_of(table_)) &&
         is_any(table_, [](const Tally& all) { return all.naming > 0 && all.is_credible(); });
}

// The entries of an L1 table are eight bytes wide whatever those of the L2 tables are.
template <class Predicate>
bool TableFinder::is_any(const std::vector<be64>& words, Predicate&& predicate) const {
  const std::size_t step = geometry_.l2_entry_bytes() / sizeof(be64);
  return predicate(tally(words, step)) || (step > 1 && predicate(tally(words, 1)));
}

TableFinder::Tally TableFinder::tally(const std::vector<be64>& words, std::size_t step) const {
  Tally tally;
  for (std::size_t i = 0; i < words.size(); i += step) {
    const std::uint64_t raw = words[i].get();
    if (raw == 0)
      continue;
    if (!could_be_entry(raw))
      ++tally.wrong;
    else if (qcow2::L2Entry(raw).host_offset().value != 0 ||
             (has_data_file_ && qcow2::L2Entry(raw).is_copied()))
      ++tally.naming;  // the first cluster of a data file lies at 0
  }
  return tally;
}

bool TableFinder::could_be_entry(std::uint64_t raw) const {
  const std::uint64_t cluster_size = geometry_.cluster_size();
  const qcow2::L2Entry entry(raw);
  if (entry.is_compressed()) {
    const std::uint64_t begin = entry.compressed_extent(geometry_.cluster_bits()).begin.value;
    return !has_data_file_ && !entry.is_copied() && begin >= cluster_size && begin < named_end_;
  }
  return (raw & qcow2::l2_reserved_mask) == 0 &&
         is_aligned(entry.host_offset().value, cluster_size) &&
         entry.host_offset().value < named_end_;
}

bool TableFinder::names_tables() {
  // The first ones show it.
  constexpr std::size_t most_named = 64;
  std::size_t named = 0;
  std::size_t tables = 0;
  for_each_named([&](std::uint64_t cluster) {
    if (named++ >= most_named)
      return;
    bytes_ += geometry_.cluster_size();
    const Entries entries = count_entries(cluster);
    tables += entries.valid != 0 && entries.wrong == 0 ? 1 : 0;
  });
  return tables != 0 && tables >= std::min(named, most_named) / 2;
}

bool TableFinder::reads_as_table(std::uint64_t cluster) const {
  const Entries entries = count_entries(cluster);
  return entries.valid != 0 && entries.wrong <= entries.valid / 8;
}

// Of those that are not zero; also such as name nothing, as those of zero clusters.
TableFinder::Entries TableFinder::count_entries(std::uint64_t cluster) const {
  std::vector<be64> words(geometry_.cluster_size() / sizeof(be64));
  if (!io::read_zero_extended(file_, {cluster << geometry_.cluster_bits()},
                              writable_bytes_of(words)))
    return {};
  const std::size_t step = geometry_.l2_entry_bytes() / sizeof(be64);
  Entries entries;
  for (std::size_t i = 0; i < words.size(); i += step) {
    if (words[i].get() != 0)
      ++(could_be_entry(words[i].get()) ? entries.valid : entries.wrong);
  }
  return entries;
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
    if (has_data_file_ || begin.value == 0 || begin.value >= file_.size())
      continue;
    const std::uint64_t last = (end.value - 1) >> geometry_.cluster_bits();
    for (std::uint64_t cluster = begin.value >> geometry_.cluster_bits(); cluster <= last;
         ++cluster)
      visit(cluster);
  }
}

}  // namespace coldchain::check
