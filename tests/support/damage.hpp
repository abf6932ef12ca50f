// SPDX-License-Identifier: MIT
// Damaged images by named recipes: a sound image, and what is done to its bytes.
#pragma once

#include "image_builder.hpp"
#include "patient.hpp"

#include <functional>
#include <string>
#include <vector>

#include <coldchain/finding/catalogue.hpp>

namespace coldchain::testing {

struct Damage {
  std::string name;  // of the recipe
  ImageBuilder sound;
  std::function<void(Patient&)> harm;
  std::vector<finding::Code> expected;  // all of them are found, perhaps with others

  [[nodiscard]] Bytes image() const;
};

[[nodiscard]] const std::vector<Damage>& damages();

// That recipe; throws if there is none of the name.
[[nodiscard]] const Damage& damage(const std::string& name);

}  // namespace coldchain::testing
