// SPDX-License-Identifier: MIT
#include "rolled_file.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>

namespace coldchain::edit {

RolledFile::RolledFile(std::shared_ptr<const Journal> journal, const io::File& image,
                       bool is_forward)
    : journal_(std::move(journal)),
      image_(image),
      is_forward_(is_forward),
      status_(image.status()) {
  status_.size = is_forward ? journal_->facts().size_after : journal_->facts().size_before;
  std::size_t record = 0;
  for (std::size_t phase = 0; phase < phase_count; ++phase) {
    phases_[phase].begin = record;
    while (record < journal_->change_count() && journal_->phase_of(record) == Phase(phase))
      ++record;
    phases_[phase].end = record;
  }
}

HostRange RolledFile::range_of(std::size_t record) const {
  return journal_->range_of(record);
}

std::size_t RolledFile::first_behind(const Records& records, HostOffset offset) const {
  std::size_t begin = records.begin;
  std::size_t end = records.end;
  while (begin < end) {
    const std::size_t middle = begin + (end - begin) / 2;
    if (range_of(middle).end <= offset)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

Result<void> RolledFile::read_records(const Records& records, HostRange range,
                                      ByteSpan buffer) const {
  for (std::size_t i = first_behind(records, range.begin);
       i < records.end && range_of(i).begin < range.end; ++i) {
    const HostRange part{std::max(range.begin, range_of(i).begin),
                         std::min(range.end, range_of(i).end)};
    TRY(journal_->read_part(i, is_forward_, part,
                            buffer.subspan(part.begin - range.begin, part.size())));
  }
  return {};
}

Result<std::size_t> RolledFile::read_at(HostOffset offset, ByteSpan buffer) const {
  if (offset.value >= status_.size || buffer.empty())
    return 0;
  buffer = buffer.first(std::min<std::uint64_t>(buffer.size(), status_.size - offset.value));
  TRY(io::read_zero_extended(image_, offset, buffer));
  // The last phase that has a sector says what it holds afterwards, the first one what it held.
  for (std::size_t i = 0; i < phase_count; ++i)
    TRY(read_records(phases_[is_forward_ ? i : phase_count - 1 - i],
                     {offset, offset + buffer.size()}, buffer));
  return buffer.size();
}

Result<HostOffset> RolledFile::next_data(HostOffset from) const {
  const HostOffset end{status_.size};
  if (from >= end)
    return end;
  HostOffset found = end;
  if (from.value < image_.size()) {
    found = TRY(image_.next_data(from));
    if (found.value >= image_.size())
      found = end;
  }
  for (const Records& records : phases_) {
    const std::size_t record = first_behind(records, from);
    if (record != records.end)
      found = std::min(found, std::max(from, range_of(record).begin));
  }
  return std::min(found, end);
}

Result<HostOffset> RolledFile::next_hole(HostOffset from) const {
  const HostOffset end{status_.size};
  HostOffset at = from;
  while (at < end) {
    if (at.value < image_.size())
      at = std::max(at, TRY(image_.next_hole(at)));
    // A hole of the image, unless a record covers it.
    HostOffset covered = at;
    for (const Records& records : phases_) {
      const std::size_t record = first_behind(records, at);
      if (record != records.end && range_of(record).begin <= at)
        covered = std::max(covered, range_of(record).end);
    }
    if (covered == at)
      return std::min(at, end);
    at = covered;
  }
  return end;
}

}  // namespace coldchain::edit
