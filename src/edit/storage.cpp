// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/storage.hpp>

namespace coldchain::edit {

std::uint64_t total_size(const std::vector<HostRange>& places) {
  std::uint64_t bytes = 0;
  for (const HostRange& place : places)
    bytes += place.size();
  return bytes;
}

Result<void> give_storage(io::WritableFile& image, const std::vector<HostRange>& places,
                          bool writes_zeros, const Progress& progress) {
  // What is written takes its time, which the progress may have to keep short.
  const std::uint64_t most = writes_zeros ? 8ULL << 20 : 64ULL << 20;
  if (places.empty())
    return {};
  if (image.size() < places.back().end.value)
    TRY(image.resize(places.back().end.value));
  ProgressPoint point{.total = total_size(places)};
  if (progress)
    (void)progress(point);  // time counts from here
  for (const HostRange& place : places) {
    for (HostRange some = place; some.begin < place.end; some.begin = some.end) {
      some.end = std::min(place.end, some.begin + most);
      const std::uint64_t missing =
          writes_zeros ? TRY(io::bytes_without_storage(image, {some})) : 0;
      TRY(writes_zeros ? io::fill_holes(image, some) : image.reserve(some));
      point.done += some.size();
      point.found += some.size() - missing;
      if (progress && !progress(point)) {
        TRY(image.flush());
        return fail(ErrorCode::interrupted, "interrupted");
      }
    }
  }
  return image.flush();
}

Result<void> give_back(io::WritableFile& image, const std::vector<HostRange>& unused,
                       std::optional<std::uint64_t> size) {
  for (const HostRange& range : unused)
    image.discard(range.begin, range.size());
  const bool is_longer =
      size && image.status().kind == io::FileKind::regular && image.size() > *size;
  return is_longer ? image.resize(*size) : Result<void>{};
}

}  // namespace coldchain::edit
