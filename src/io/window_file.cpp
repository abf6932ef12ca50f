// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/io/window_file.hpp>

#include <fmt/format.h>

namespace coldchain::io {

Result<HostRange> range_of(const Window& window, const File& file) {
  // QEMU block/raw-format.c, raw_apply_options(): these checks in this order.
  if (window.offset > file.size())
    return fail(ErrorCode::invalid_argument,
                fmt::format("Offset ({}) cannot be greater than size of the containing file ({})",
                            window.offset, file.size()));
  const std::uint64_t most = file.size() - window.offset;
  if (window.size && *window.size > most)
    return fail(ErrorCode::invalid_argument,
                fmt::format("The sum of offset ({}) and size ({}) has to be smaller or equal to "
                            "the  actual size of the containing file ({})",
                            window.offset, *window.size, file.size()));
  if (window.size && *window.size % 512 != 0)
    return fail(ErrorCode::invalid_argument, "Specified size is not multiple of 512");
  const HostOffset begin{window.offset};
  return HostRange{begin, begin + window.size.value_or(most)};
}

WindowFile::WindowFile(std::unique_ptr<File> file, HostRange range)
    : file_(std::move(file)), begin_(range.begin), status_(file_->status()) {
  status_.size = range.size();
}

Result<std::size_t> WindowFile::read_at(HostOffset offset, ByteSpan buffer) const {
  if (offset.value >= size())
    return 0;
  const auto inside = std::min<std::uint64_t>(buffer.size(), size() - offset.value);
  return file_->read_at(begin_ + offset.value, buffer.first(inside));
}

Result<HostOffset> WindowFile::next_data(HostOffset from) const {
  const HostOffset end{size()};
  if (from >= end)
    return end;
  return std::min(end, HostOffset{TRY(file_->next_data(begin_ + from.value)) - begin_});
}

Result<HostOffset> WindowFile::next_hole(HostOffset from) const {
  const HostOffset end{size()};
  if (from >= end)
    return end;
  return std::min(end, HostOffset{TRY(file_->next_hole(begin_ + from.value)) - begin_});
}

Result<Location> WindowFile::location() const {
  return fail(window_is_read_only());
}

Result<std::unique_ptr<WritableFile>> WindowFile::open_for_writing() const {
  return fail(window_is_read_only());
}

Error window_is_read_only() {
  return {ErrorCode::refused,
          "it is a window of a file ('offset' or 'size' of the raw driver), which is only read: "
          "copy it into a file of its own",
          0};
}

}  // namespace coldchain::io
