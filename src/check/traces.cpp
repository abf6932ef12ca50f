// SPDX-License-Identifier: MIT
#include <algorithm>
#include <optional>
#include <vector>

#include <coldchain/base/checked.hpp>
#include <coldchain/check/traces.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/tables.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Finding;
using finding::Findings;

constexpr std::uint64_t sector = 512;
constexpr std::uint64_t searched_bytes = 1 << 20;  // at either end
constexpr std::size_t most_traces = 16;

// Calls `visit` for each sector of the searched parts that is not in a hole, until it says stop.
template <class Visit>
void for_each_sector(const io::File& file, HostOffset begin, bool deep, Visit&& visit) {
  const HostOffset end{file.size()};
  begin = {align_up(begin.value, sector)};
  if (begin >= end)
    return;
  std::vector<HostRange> parts = {{begin, end}};
  if (!deep && end - begin > 2 * searched_bytes)
    parts = {{begin, begin + searched_bytes},
             {{align_down(end.value - searched_bytes, sector)}, end}};
  Bytes piece(searched_bytes);
  for (const HostRange& part : parts) {
    for (HostOffset at = part.begin; at < part.end;) {
      const Result<HostOffset> data = file.next_data(at);
      if (!data || *data >= part.end)
        break;
      at = {std::max(at.value, align_down(data->value, sector))};
      const std::uint64_t size = std::min<std::uint64_t>(piece.size(), part.end - at);
      const Result<std::size_t> read = file.read_at(at, ByteSpan(piece).first(size));
      if (!read || *read == 0)
        break;
      for (std::uint64_t i = 0; i + sector <= *read; i += sector) {
        if (!visit(at + i, ByteView(piece).subspan(i, sector)))
          return;
      }
      at = at + *read;
    }
  }
}

// More than the magic: a version and a cluster size that can be.
bool begins_image(ByteView bytes) {
  const auto header = load<qcow2::wire::Header>(bytes, 0);
  return header && header->magic.get() == qcow2::magic && header->version.get() >= 2 &&
         header->version.get() <= 3 &&
         header->cluster_bits.get() >= qcow2::limits::min_cluster_bits &&
         header->cluster_bits.get() <= qcow2::limits::max_cluster_bits;
}

Findings headers_from(const io::File& file, HostOffset begin, bool deep, Code code) {
  Findings found;
  for_each_sector(file, begin, deep, [&](HostOffset at, ByteView bytes) {
    if (begins_image(bytes))
      found.push_back({.code = code,
                       .detail = fmt::format("at offset {:#x}", at.value),
                       .host = {at, at + sector}});
    return found.size() < most_traces;
  });
  return found;
}

// An L1 or L2 entry with the copied flag that names a cluster of the file.
bool is_copied_entry(std::uint64_t raw, std::uint64_t file_size) {
  const std::uint64_t offset = raw & qcow2::offset_mask;
  return raw == (offset | qcow2::copied_flag) && offset != 0 && is_aligned(offset, sector) &&
         offset < file_size;
}

// The entries of a sector that are not zero, if they all are such entries.
std::vector<std::uint64_t> copied_entries(ByteView bytes, std::uint64_t file_size) {
  std::vector<std::uint64_t> offsets;
  for (std::size_t i = 0; i + sizeof(be64) <= bytes.size(); i += sizeof(be64)) {
    const std::uint64_t raw = load<be64>(bytes, i)->get();
    if (raw == 0)
      continue;
    if (!is_copied_entry(raw, file_size))
      return {};
    offsets.push_back(raw & qcow2::offset_mask);
  }
  return offsets;
}

// Whether the sector reads as the begin of an L1 table: its entries name sectors of L2 entries.
bool is_l1_table(const io::File& file, ByteView bytes) {
  constexpr std::size_t least_entries = 4;
  const std::vector<std::uint64_t> tables = copied_entries(bytes, file.size());
  if (tables.empty())
    return false;
  std::size_t entries = 0;
  Bytes table(sector);
  for (const std::uint64_t offset : tables) {
    const Result<std::size_t> read = file.read_at({offset}, table);
    if (!read || *read != table.size())
      return false;
    entries += copied_entries(table, file.size()).size();
  }
  return entries >= least_entries;
}

std::optional<Finding> find_tables(const io::File& file, bool deep) {
  std::optional<Finding> found;
  for_each_sector(file, {sector}, deep, [&](HostOffset at, ByteView bytes) {
    if (is_l1_table(file, bytes))
      found = Finding{.code = Code::header_not_recognised,
                      .detail = fmt::format("an L1 table at {:#x}", at.value),
                      .host = {at, at + sector}};
    return !found;
  });
  return found;
}

}  // namespace

Findings traces_in_raw(const io::File& file, bool deep) {
  Findings found = headers_from(file, {sector}, deep, Code::image_inside_raw);
  Bytes start(sector);
  const Result<std::size_t> read = file.read_at({0}, start);
  // The tables of an image inside, or of one that is given as raw, have their header.
  if (found.empty() && read && !qcow2::looks_like_qcow2(start)) {
    if (std::optional<Finding> tables = find_tables(file, deep))
      found.push_back(std::move(*tables));
  }
  return found;
}

Findings headers_behind(const io::File& file, HostOffset begin, bool deep) {
  return headers_from(file, begin, deep, Code::image_behind_end);
}

}  // namespace coldchain::check
