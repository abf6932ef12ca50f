// SPDX-License-Identifier: MIT
// Images with flipped metadata, drawn from a seed: the same on every machine.
#pragma once

#include "image_builder.hpp"

namespace coldchain::testing {

// Small images of every kind that a check looks at.
[[nodiscard]] const std::vector<ImageBuilder>& sound_images();

// One of them with one to three flipped bits, set bytes or plausible entries in its metadata.
[[nodiscard]] Bytes flipped_image(int seed);

}  // namespace coldchain::testing
