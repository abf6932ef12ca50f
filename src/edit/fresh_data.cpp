// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/fresh_data.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

constexpr std::uint64_t most_run_bytes = 4ULL << 20;
constexpr std::size_t most_runs = 16;
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
              fmt::format("{:#x}-{:#x} is not to be written to: somebody may own it",
                          range.begin.value, range.end.value));
}

Result<void> FreshWriter::write(HostOffset at, std::uint64_t size, const Fill& fill) {
  TRY(check_place({at, at + size}));
  for (std::uint64_t done = 0; done < size;) {
    Run& run = *TRY(run_for(at + done));
    const std::uint64_t count = std::min(size - done, most_run_bytes - run.size);
    TRY(fill(done, {run.bytes.get() + run.size, count}));
    run.size += count;
    pending_ += count;
    done += count;
  }
  return {};
}

Result<FreshWriter::Run*> FreshWriter::run_for(HostOffset at) {
  auto run = std::find_if(runs_.begin(), runs_.end(),
                          [&](const Run& some) { return some.size != 0 && some.end() == at; });
  if (run != runs_.end() && run->size < most_run_bytes)
    return &*run;
  if (run != runs_.end())
    TRY(write_out(*run));
  else
    run = std::find_if(runs_.begin(), runs_.end(), [](const Run& some) { return some.size == 0; });
  if (run == runs_.end() && runs_.size() == most_runs) {
    TRY(write_out());
    run = runs_.begin();
  } else if (run == runs_.end()) {
    run = runs_.insert(run, Run{});
    run->bytes.reset(new (page) std::byte[most_run_bytes]);
  }
  run->begin = at;
  return &*run;
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
  return std::equal(there.begin(), there.end(), run.content().begin());
}

Result<void> FreshWriter::write_out() {
  std::sort(runs_.begin(), runs_.end(),
            [](const Run& a, const Run& b) { return a.begin < b.begin; });
  for (Run& run : runs_)
    TRY(write_out(run));
  return {};
}

Result<void> FreshWriter::write_out(Run& run) {
  if (run.size != 0 && !TRY(is_there(run))) {
    if (mode_ == Mode::check)
      return fail(ErrorCode::refused, "what was copied has been written to since");
    TRY(image_.write_at(run.begin, run.content()));
    since_flush_ += run.size;
    since_writeback_ += run.size;
  }
  pending_ -= run.size;
  run.size = 0;
  // Wherever it lies: what is written in place lies anywhere.
  if (since_writeback_ >= writeback_bytes) {
    image_.start_writeback({0}, image_.size());
    since_writeback_ = 0;
  }
  return {};
}

Result<void> FreshWriter::end() {
  return since_flush_ + pending_ < batch_bytes ? Result<void>{} : flush();
}

Result<void> FreshWriter::flush() {
  TRY(write_out());
  TRY(image_.flush());
  since_flush_ = 0;
  since_writeback_ = 0;
  return journal_.set_cursor(std::max(begun_, written_to_));
}

}  // namespace coldchain::edit
