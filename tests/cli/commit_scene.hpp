// SPDX-License-Identifier: MIT
// A chain of three images, for commits of it and what becomes of them.
#pragma once

#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace coldchain::testing {

inline ImageOptions over(const std::string& backing, std::uint64_t size = 32 << 20) {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = size;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : "qcow2";
  return options;
}

// base <- mid <- top, with more than one piece of data in top; 17 clusters of it are zeros.
class CommitScene {
 public:
  CommitScene() {
    ImageBuilder(over("")).data(1, 'b').data(5000, 'b').build().write_to(folder_ / "base");
    ImageBuilder(over("base")).data(2, 'm').data(3, 'm').build().write_to(folder_ / "mid");
    ImageBuilder top(over("mid"));
    for (std::uint64_t cluster = 3; cluster < 4500; ++cluster)
      top.data(cluster, static_cast<std::uint8_t>(cluster % 251));
    top.zero(5000).build().write_to(folder_ / "top");
    before_ = all();
  }
  Ran run(const std::vector<std::string>& arguments) const {
    return run_coldchain_in(folder_.path(), arguments);
  }
  Ran interrupt(const std::vector<std::string>& arguments) const {
    return interrupt_coldchain_in(folder_.path(), arguments);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] bool is_as_before() const { return all() == before_; }
  [[nodiscard]] bool is_pending() const {
    return std::filesystem::exists(folder_ / "top.coldchain-pending") ||
           std::filesystem::exists(folder_ / "mid.coldchain-pending") ||
           std::filesystem::exists(folder_ / "base.coldchain-pending");
  }
  // Offsets of clusters that an image has itself, by what map says.
  [[nodiscard]] std::string map(const std::string& image) const {
    return run({"map", "--summary", image}).out;
  }

 private:
  [[nodiscard]] std::string all() const {
    return read_file(folder_ / "base") + read_file(folder_ / "mid") + read_file(folder_ / "top");
  }

  TempFolder folder_;
  std::string before_;
};

}  // namespace coldchain::testing
