// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/fresh_data.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

// A run ends where a multiple of this begins in the file, so that what goes past the page cache
// goes on doing so, however odd a place was before it.
constexpr std::uint64_t most_run_bytes = 4ULL << 20;
constexpr std::uint64_t least_load_bytes = 16ULL << 20;
constexpr std::uint64_t most_load_bytes = least_load_bytes + most_run_bytes;
constexpr std::size_t most_runs = 256;  // of a load
// Less is read where it is written: that takes less time than another thread.
constexpr std::uint64_t least_read_ahead = 1ULL << 20;
// So far apart the system is told to write to the storage what there is.
constexpr std::uint64_t writeback_bytes = 8ULL << 20;
// Fewer zeros are written like any other bytes.
constexpr std::uint64_t least_zeroed_bytes = 64ULL << 10;

constexpr std::align_val_t page{io::WritableFile::direct_alignment};

bool contain(const std::vector<HostRange>& ranges, HostRange wanted) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), wanted.begin,
      [](HostOffset offset, const HostRange& range) { return offset < range.begin; });
  return after != ranges.begin() && wanted.end <= std::prev(after)->end;
}

}  // namespace

void FreshWriter::FreePages::operator()(std::byte* bytes) const {
  ::operator delete[](bytes, page);
}

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
              fmt::format("{:#x}-{:#x} may not be written: it may belong to other data",
                          range.begin.value, range.end.value));
}

Result<void> FreshWriter::write(HostOffset at, std::uint64_t size, const Fill& fill) {
  TRY(check_place({at, at + size}));
  for (std::uint64_t done = 0; done < size;) {
    const HostOffset place = at + done;
    Run& run = *TRY(run_for(place));
    const std::uint64_t end = align_down(place.value, most_run_bytes) + most_run_bytes;
    const std::uint64_t count = std::min(size - done, end - place.value);
    run.parts.push_back({done, count, fill});
    run.size += count;
    gathered().size += count;
    done += count;
  }
  return {};
}

Result<FreshWriter::Run*> FreshWriter::run_for(HostOffset at) {
  if (gathered().size >= least_load_bytes)
    TRY(turn());
  std::vector<Run>& runs = gathered().runs;
  const auto run =
      std::find_if(runs.rbegin(), runs.rend(), [&](const Run& some) { return some.end() == at; });
  if (run != runs.rend() && !is_aligned(at.value, most_run_bytes))
    return &*run;
  if (runs.size() == most_runs)
    TRY(turn());
  return &gathered().runs.emplace_back(Run{.begin = at});
}

Result<void> FreshWriter::Load::read() {
  if (!bytes)
    bytes.reset(new (page) std::byte[most_load_bytes + most_runs * static_cast<std::size_t>(page)]);
  std::size_t at = 0;
  for (Run& run : runs) {
    const ByteSpan content{bytes.get() + at, run.size};
    std::uint64_t done = 0;
    for (const Part& part : run.parts) {
      TRY(part.fill(part.from, content.subspan(done, part.size)));
      done += part.size;
    }
    run.content = content;
    at += align_up(run.size, static_cast<std::size_t>(page));
  }
  return {};
}

Result<void> FreshWriter::write_zeros(HostOffset at, std::uint64_t size) {
  const HostRange range{at, at + size};
  TRY(check_place(range));
  if (range.end.value <= image_.size() && TRY(io::data_ranges(image_, range)).empty())
    return {};
  if (is_new() && size >= least_zeroed_bytes)
    return image_.write_zeroes(at, size);
  return write(at, size, [](std::uint64_t, ByteSpan bytes) -> Result<void> {
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    return {};
  });
}

Result<bool> FreshWriter::is_there(const Run& run) const {
  if (is_new())
    return false;
  Bytes there(run.size);
  TRY(io::read_zero_extended(image_, run.begin, there));
  return std::equal(there.begin(), there.end(), run.content.begin());
}

Result<void> FreshWriter::turn() {
  if (reading_.valid())
    TRY(reading_.get());
  Load& unread = gathered();
  gathering_ = 1 - gathering_;
  // Where there are no threads to be had, it is read when it is wanted.
  if (!unread.runs.empty())
    reading_ =
        std::async(unread.size < least_read_ahead ? std::launch::deferred
                                                  : std::launch::async | std::launch::deferred,
                   [&unread] { return unread.read(); });
  Load& read = gathered();
  std::sort(read.runs.begin(), read.runs.end(),
            [](const Run& a, const Run& b) { return a.begin < b.begin; });
  for (const Run& run : read.runs)
    TRY(write_out(run));
  read.runs.clear();
  read.size = 0;
  return {};
}

Result<void> FreshWriter::write_out() {
  TRY(turn());
  return turn();
}

Result<void> FreshWriter::write_out(const Run& run) {
  if (TRY(is_there(run)))
    return {};
  if (mode_ == Mode::check)
    return fail(ErrorCode::refused, "the copied data has been written to since");
  TRY(image_.write_at(run.begin, run.content));
  since_flush_ += run.size;
  since_writeback_ += run.size;
  // Wherever it lies: what is written in place lies anywhere.
  if (since_writeback_ >= writeback_bytes) {
    image_.start_writeback({0}, image_.size());
    since_writeback_ = 0;
  }
  return {};
}

Result<void> FreshWriter::end() {
  return since_flush_ + loads_[0].size + loads_[1].size < batch_bytes ? Result<void>{} : flush();
}

Result<void> FreshWriter::flush() {
  TRY(write_out());
  TRY(image_.flush());
  since_flush_ = 0;
  since_writeback_ = 0;
  return journal_.set_cursor(std::max(begun_, written_to_));
}

}  // namespace coldchain::edit
