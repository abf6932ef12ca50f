// SPDX-License-Identifier: MIT
// The overlays of an image that is committed: they are found and planned before the first write,
// locked from then on, and pointed at the base when that has everything.
#pragma once

#include "chain_change.hpp"
#include "change.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/edit/transaction.hpp>
#include <coldchain/ops/reparent.hpp>
#include <coldchain/report/commit_report.hpp>

namespace coldchain::cli {

class Reparenting {
 public:
  // Plans those of the image at the top of `nodes`, whose layer `base` gets what is above it.
  // `refused` where one reads something else of the image, or cannot be pointed there.
  [[nodiscard]] Result<void> find(const io::FileSource& files, const CommonOptions& options,
                                  const std::vector<std::string>& directories,
                                  const NodeChain& nodes, std::size_t base, const World& world);

  // What a scan finds, somebody may have put there for us to find: `refused` where there are any
  // and their owner has not agreed.
  [[nodiscard]] Result<void> check_agreed(bool agrees) const;

  // `refused` where another change is pending in one of them.
  [[nodiscard]] Result<void> lock(const io::FileSource& files, const edit::SideFolders& folders);

  [[nodiscard]] Result<void> carry_out();

  [[nodiscard]] NodeChain images() const;
  [[nodiscard]] std::vector<report::Reparented> told() const;

 private:
  struct Overlay {
    std::string path;
    std::unique_ptr<graph::Node> image;
    std::unique_ptr<edit::Transaction> transaction{};  // of its file
    ops::Reparenting planned{};
    std::optional<ChangeTarget> target{};  // once it is locked

    [[nodiscard]] Error about(Error error) const;
  };
  static Result<void> plan(const io::FileSource& files, const CommonOptions& options,
                           std::size_t base, unsigned workers, Overlay& overlay);

  std::vector<Overlay> overlays_;
};

// Of images that read through `base`, a file, ends what a reparenting left that was stopped: each
// keeps the link that it has.
[[nodiscard]] Result<void> end_reparentings(const io::FileSource& files,
                                            const CommonOptions& options,
                                            const std::vector<std::string>& directories,
                                            const graph::Node& base,
                                            const edit::SideFolders& folders, World& world);

}  // namespace coldchain::cli
