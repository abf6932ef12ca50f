// SPDX-License-Identifier: MIT
#include <map>
#include <utility>

#include <coldchain/base/text.hpp>
#include <coldchain/report/unreadable_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

// Why the bytes at `first` cannot be read.
std::string reason_text(qcow2::Unreadable reason, const graph::Layer& layer, GuestOffset first) {
  const graph::Node& node = *layer.node;
  qcow2::Mapping::Cursor cursor;
  switch (reason) {
    case qcow2::Unreadable::past_end:
      return node.data_filename.empty() ? "they lie past the end of the file"
                                        : fmt::format("they lie past the end of the data file {}",
                                                      to_terminal(node.data_filename));
    case qcow2::Unreadable::table:
    case qcow2::Unreadable::entry:
      if (const auto location = layer.mapping->locate(first, cursor); !location)
        return location.error().message;
      return "the table that describes them could not be read the first time";
    case qcow2::Unreadable::no:
    case qcow2::Unreadable::undecided:
      break;
  }
  return "";
}

}  // namespace

std::string unreadable_member(const analysis::UnreadableRanges& unreadable) {
  std::string ranges;
  for (const analysis::UnreadableRange& range : unreadable.ranges())
    ranges += fmt::format("{}{{\"start\": {}, \"length\": {}, \"depth\": {}, \"reason\": \"{}\"}}",
                          ranges.empty() ? "" : ", ", range.guest.begin.value, range.guest.size(),
                          range.layer, analysis::to_string(range.reason));
  const std::string omitted =
      unreadable.omitted() == 0 ? "" : fmt::format(", \"omitted\": {}", unreadable.omitted());
  return fmt::format("\"coldchain\": {{\"unreadable\": [{}]{}}}", ranges, omitted);
}

std::vector<std::string> unreadable_lines(const graph::Chain& chain,
                                          const analysis::UnreadableRanges& unreadable) {
  struct Sum {
    std::uint64_t bytes = 0;
    std::uint64_t ranges = 0;
    GuestOffset first;
  };
  std::map<std::pair<std::uint32_t, qcow2::Unreadable>, Sum> sums;
  for (const analysis::UnreadableRange& range : unreadable.ranges()) {
    Sum& sum = sums[{range.layer, range.reason}];
    if (sum.ranges++ == 0)
      sum.first = range.guest.begin;
    sum.bytes += range.guest.size();
  }
  std::vector<std::string> lines;
  for (const auto& [key, sum] : sums) {
    const graph::Layer& layer = chain.layers()[key.first];
    const graph::Node& node = *layer.node;
    lines.push_back(fmt::format(
        "{}: {}{} bytes of guest data in {} {} cannot be read, the first at guest offset {:#x}: "
        "{}. 'coldchain check --list {}' lists the damage",
        to_terminal(node.filename), unreadable.omitted() != 0 ? "at least " : "", sum.bytes,
        sum.ranges, sum.ranges == 1 ? "range" : "ranges", sum.first.value,
        reason_text(key.second, layer, sum.first),
        to_shell_word(node.window ? node.name : node.filename)));
  }
  return lines;
}

}  // namespace coldchain::report
