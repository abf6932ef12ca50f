// SPDX-License-Identifier: MIT
// By what a plan is known again (edit::PlanDigest), for a run that continues the change, and for
// `apply`.
#pragma once

#include "pieces.hpp"

#include <string_view>
#include <vector>

#include <coldchain/edit/journal.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::ops {

class PlanDigester {
 public:
  // `written` is the layer that changes: how much storage its file has decides nothing, and is
  // another when the change is continued.
  explicit PlanDigester(std::size_t written) : written_(written) {}

  // What the metadata of the layers says of a piece. Where pieces are cut does not matter.
  void add(const Piece& piece);

  // `request` is what was asked for, without what may differ when the change is continued. `others`
  // are all images that are read but not written to.
  [[nodiscard]] Result<edit::PlanDigest> finish(std::string_view request, std::uint64_t argument,
                                                const edit::Transaction& transaction,
                                                const std::vector<const graph::Node*>& others);

 private:
  void add(PieceKind kind, analysis::Extent extent);
  void add_pending();

  std::size_t written_;
  codec::Sha256 sha256_;
  PieceKind kind_{};
  std::optional<analysis::Extent> extent_;  // that the next one may continue
};

}  // namespace coldchain::ops
