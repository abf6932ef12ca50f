// SPDX-License-Identifier: MIT
#include "header_change.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>

namespace coldchain::ops {

using qcow2::Header;

namespace {}  // namespace

void set_name(Header& header, const std::string& name, std::uint64_t offset) {
  header.backing_file_offset = offset;
  header.backing_file_size = static_cast<std::uint32_t>(name.size());
  header.backing_file_bytes = name;
}

void clear_name(Header& header) {
  header.backing_file_offset = 0;
  header.backing_file_size = 0;
  header.backing_file_bytes.reset();
}

std::uint64_t end_of_extensions(Header header) {
  clear_name(header);
  return qcow2::encode_header(header).size();
}

Result<bool> stage_header(edit::Transaction& transaction, edit::Phase phase, const Header& wanted,
                          std::uint64_t end) {
  Bytes after = qcow2::encode_header(wanted);
  if (after.size() > wanted.cluster_size())
    return false;
  Bytes before(after.size());
  TRY(io::read_zero_extended(transaction.view(), {0}, before));
  // What lies between the extensions and the name means nothing, and need not change.
  const std::uint64_t gap_end =
      wanted.backing_file_bytes ? wanted.backing_file_offset : after.size();
  for (std::uint64_t i = end_of_extensions(wanted); i < gap_end; ++i)
    after[i] = before[i];
  const auto first = std::mismatch(before.begin(), before.end(), after.begin()).first;
  const auto begin = static_cast<std::uint64_t>(first - before.begin());
  std::uint64_t live_end = begin;  // of what changes and means something now
  for (std::uint64_t i = begin; i < std::min<std::uint64_t>(end, after.size()); ++i) {
    if (before[i] != after[i])
      live_end = i + 1;
  }
  if (live_end > begin && (live_end - 1) / edit::sector_size != begin / edit::sector_size)
    return false;
  const ByteView bytes = after;
  if (live_end > begin)
    TRY(transaction.stage(phase, {begin}, bytes.subspan(begin, live_end - begin)));
  if (const std::uint64_t tail = std::max(begin, end); tail < after.size())
    TRY(transaction.stage(edit::Phase::fresh, {tail}, bytes.subspan(tail)));
  return true;
}

}  // namespace coldchain::ops
