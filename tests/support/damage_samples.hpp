// SPDX-License-Identifier: MIT
// The sound images of small clusters that the recipes of damage.hpp begin with.
#pragma once

#include "image_builder.hpp"

namespace coldchain::testing {

[[nodiscard]] ImageOptions small_clusters();

// Data, zeros of both kinds, and a second L2 table where the clusters are small enough.
[[nodiscard]] ImageBuilder filled(const ImageOptions& options);

[[nodiscard]] ImageBuilder plain();
[[nodiscard]] ImageBuilder with_snapshot();
[[nodiscard]] ImageBuilder with_bitmap();
[[nodiscard]] ImageBuilder with_compressed();
[[nodiscard]] ImageBuilder with_subclusters();
[[nodiscard]] ImageBuilder with_data_file();
[[nodiscard]] ImageBuilder version2();
[[nodiscard]] ImageBuilder narrow();  // refcounts of one bit

}  // namespace coldchain::testing
