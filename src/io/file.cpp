// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/file.hpp>

#include <fmt/format.h>

namespace coldchain::io {

Result<Location> File::location() const {
  return fail(ErrorCode::not_found, "the file lies in no folder");
}

Result<std::unique_ptr<WritableFile>> File::open_for_writing() const {
  return fail(ErrorCode::permission_denied, "the file is for reading only");
}

Result<void> WritableFile::write_zeroes(HostOffset offset, std::uint64_t size) {
  constexpr std::uint64_t most = 1 << 20;
  const Bytes zeros(std::min(size, most));
  for (std::uint64_t done = 0; done < size; done += zeros.size())
    TRY(write_at(offset + done, ByteView(zeros).first(std::min(size - done, most))));
  return {};
}

Result<std::uint64_t> File::bytes_without_storage(HostRange range) const {
  std::uint64_t bytes = range.size();
  for (const HostRange& there : TRY(data_ranges(*this, range)))
    bytes -= there.size();
  return bytes;
}

Result<std::uint64_t> bytes_without_storage(const File& file,
                                            const std::vector<HostRange>& ranges) {
  std::uint64_t bytes = 0;
  for (const HostRange& range : ranges)
    bytes += TRY(file.bytes_without_storage(range));
  return bytes;
}

Result<void> WritableFile::reserve(HostRange range) {
  return fill_holes(*this, range);
}

Result<void> fill_holes(WritableFile& file, HostRange range) {
  range.end = std::min(range.end, HostOffset{file.size()});
  while (range.begin < range.end) {
    const HostOffset hole = TRY(file.next_hole(range.begin));
    if (hole >= range.end)
      return {};
    const HostOffset data = std::min(TRY(file.next_data(hole)), range.end);
    if (data <= hole)
      return fail(ErrorCode::io_error, "the file is changing while its holes are filled");
    // Written, whatever else the file knows to do.
    TRY(file.WritableFile::write_zeroes(hole, data - hole));
    range.begin = data;
  }
  return {};
}

Result<std::size_t> read_around_holes(const File& file, HostOffset offset, ByteSpan buffer) {
  // To ask for holes costs about as much as to read so little.
  constexpr std::size_t piece = 256 << 10;
  if (buffer.size() <= piece || offset.value >= file.size())
    return file.read_at(offset, buffer);
  const std::size_t size = std::min<std::uint64_t>(buffer.size(), file.size() - offset.value);
  std::size_t at = 0;
  while (at < size) {
    const HostOffset data = std::max(TRY(file.next_data(offset + at)), offset + at);
    const std::size_t begin = std::min<std::uint64_t>(data - offset, size);
    const ByteSpan hole = buffer.subspan(at, begin - at);
    std::fill(hole.begin(), hole.end(), std::byte{0});
    const std::size_t wanted = std::min(piece, size - begin);
    const std::size_t read = TRY(file.read_at(offset + begin, buffer.subspan(begin, wanted)));
    at = begin + read;
    if (read < wanted)
      break;  // the file has become shorter
  }
  return at;
}

bool is_hole(const File& file, HostRange range) {
  const Result<HostOffset> data = file.next_data(range.begin);
  return range.begin < range.end && range.end.value <= file.size() && data && *data >= range.end;
}

Result<void> read_exactly(const File& file, HostOffset offset, ByteSpan buffer,
                          std::string_view what) {
  const std::size_t read = TRY(read_around_holes(file, offset, buffer));
  if (read == buffer.size())
    return {};
  return fail(ErrorCode::corrupt,
              fmt::format("{} at {:#x} ({} bytes) is past the end of the file ({} bytes)", what,
                          offset.value, buffer.size(), file.size()));
}

Result<std::vector<HostRange>> data_ranges(const File& file, HostRange range) {
  range.end = std::min(range.end, HostOffset{file.size()});
  std::vector<HostRange> ranges;
  HostOffset position = range.begin;
  while (position < range.end) {
    const HostOffset begin = TRY(file.next_data(position));
    if (begin >= range.end)
      break;
    const HostOffset end = std::min(TRY(file.next_hole(begin)), range.end);
    if (end <= begin)
      break;  // the file is changing under us; what is left is read as a hole
    ranges.push_back({begin, end});
    position = end;
  }
  return ranges;
}

Result<void> read_table(const File& file, HostOffset offset, ByteSpan buffer) {
  const std::size_t read = TRY(read_around_holes(file, offset, buffer));
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(read), buffer.end(), std::byte{0});
  return {};
}

Unread read_table_parts(const File& file, HostOffset offset, ByteSpan buffer) {
  Unread unread;
  const Result<void> whole = read_table(file, offset, buffer);
  if (whole)
    return unread;
  unread.error = whole.error();
  constexpr std::uint64_t part_bytes = 4096;
  const HostOffset end = offset + buffer.size();
  for (HostRange part{offset, offset}; part.begin < end; part.begin = part.end) {
    part.end = std::min(end, HostOffset{align_down(part.begin.value, part_bytes) + part_bytes});
    const ByteSpan bytes = buffer.subspan(part.begin - offset, part.size());
    if (read_zero_extended(file, part.begin, bytes))
      continue;
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    if (!unread.ranges.empty() && unread.ranges.back().end == part.begin)
      unread.ranges.back().end = part.end;
    else
      unread.ranges.push_back(part);
  }
  return unread;
}

Result<void> read_zero_extended(const File& file, HostOffset offset, ByteSpan buffer) {
  const std::size_t read = TRY(file.read_at(offset, buffer));
  std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(read), buffer.end(), std::byte{0});
  return {};
}

}  // namespace coldchain::io
