// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/storage.hpp>

namespace coldchain::edit {

Result<void> give_storage(io::WritableFile& image, const std::vector<HostRange>& places,
                          bool writes_zeros, const Progress& progress) {
  constexpr std::uint64_t most = 64ULL << 20;
  if (places.empty())
    return {};
  if (image.size() < places.back().end.value)
    TRY(image.resize(places.back().end.value));
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  for (const HostRange& place : places)
    total += place.size();
  for (const HostRange& place : places) {
    for (HostRange some = place; some.begin < place.end; some.begin = some.end) {
      some.end = std::min(place.end, some.begin + most);
      TRY(writes_zeros ? io::fill_holes(image, some) : image.reserve(some));
      done += some.size();
      if (progress && !progress(done, total)) {
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
