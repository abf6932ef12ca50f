// SPDX-License-Identifier: MIT
// `deps`: the images that depend on an image, and what was searched for them. As JSON:
// docs/json.md, coldchain.deps.
#pragma once

#include <string>
#include <vector>

#include <coldchain/graph/dependents.hpp>
#include <coldchain/report/sink.hpp>

namespace coldchain::report {

struct DepsAnswer {
  std::string image;                  // as the user named it
  std::vector<std::string> searched;  // folders
  bool is_own_folder = false;         // the user named no folder: the image's own was searched
  graph::Dependents dependents{};
};

[[nodiscard]] Result<void> write_deps_text(const DepsAnswer& answer, const Sink& sink);
[[nodiscard]] Result<void> write_deps_json(const DepsAnswer& answer, const Sink& sink);

}  // namespace coldchain::report
