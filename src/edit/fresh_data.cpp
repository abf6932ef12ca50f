// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/fresh_data.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

constexpr std::uint64_t most_buffer_bytes = 4ULL << 20;
// So far apart the system is told to write to the storage what there is.
constexpr std::uint64_t writeback_bytes = 8ULL << 20;
// Fewer zeros are written like any other bytes.
constexpr std::uint64_t least_zeroed_bytes = 64ULL << 10;

bool contain(const std::vector<HostRange>& ranges, HostRange wanted) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), wanted.begin,
      [](HostOffset offset, const HostRange& range) { return offset < range.begin; });
  return after != ranges.begin() && wanted.end <= std::prev(after)->end;
}

}  // namespace

Result<void> FreshWriter::begin(std::uint64_t cursor) {
  if (begun_ <= written_to_ && cursor > written_to_)
    TRY(write_out());
  begun_ = cursor;
  return {};
}

Result<void> FreshWriter::check_place(HostRange range) const {
  if (contain(ranges_, range))
    return {};
  return fail(ErrorCode::refused,
              fmt::format("{:#x}-{:#x} is not to be written to: somebody may own it",
                          range.begin.value, range.end.value));
}

Result<void> FreshWriter::write(HostOffset at, std::uint64_t size, const Fill& fill) {
  TRY(check_place({at, at + size}));
  for (std::uint64_t done = 0; done < size;) {
    if (begin_ + buffer_.size() != at + done || buffer_.size() == most_buffer_bytes)
      TRY(write_out());
    if (buffer_.empty())
      begin_ = at + done;
    const std::size_t before = buffer_.size();
    const std::uint64_t count = std::min(size - done, most_buffer_bytes - before);
    buffer_.resize(before + count);
    TRY(fill(done, ByteSpan(buffer_).subspan(before)));
    done += count;
  }
  return {};
}

Result<void> FreshWriter::write_zeros(HostOffset at, std::uint64_t size) {
  const HostRange range{at, at + size};
  TRY(check_place(range));
  if (range.end.value <= image_.size() && TRY(io::data_ranges(image_, range)).empty())
    return {};
  if (is_new() && size >= least_zeroed_bytes) {
    TRY(write_out());
    return image_.write_zeroes(at, size);
  }
  return write(at, size, [](std::uint64_t, ByteSpan bytes) -> Result<void> {
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    return {};
  });
}

Result<bool> FreshWriter::is_there() const {
  if (is_new())
    return false;
  Bytes there(buffer_.size());
  TRY(io::read_zero_extended(image_, begin_, there));
  return there == buffer_;
}

Result<void> FreshWriter::write_out() {
  if (buffer_.empty() || TRY(is_there())) {
    buffer_.clear();
    return {};
  }
  if (mode_ == Mode::check)
    return fail(ErrorCode::refused, "what was copied has been written to since");
  TRY(image_.write_at(begin_, buffer_));
  since_flush_ += buffer_.size();
  since_writeback_ += buffer_.size();
  buffer_.clear();
  // Wherever it lies: what is written in place lies anywhere.
  if (since_writeback_ >= writeback_bytes) {
    image_.start_writeback({0}, image_.size());
    since_writeback_ = 0;
  }
  return {};
}

Result<void> FreshWriter::end() {
  return since_flush_ + buffer_.size() < batch_bytes ? Result<void>{} : flush();
}

Result<void> FreshWriter::flush() {
  TRY(write_out());
  TRY(image_.flush());
  since_flush_ = 0;
  since_writeback_ = 0;
  return journal_.set_cursor(std::max(begun_, written_to_));
}

}  // namespace coldchain::edit
