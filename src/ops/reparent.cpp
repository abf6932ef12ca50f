// SPDX-License-Identifier: MIT
// Order of writes: 1. all changes into the side file, flush; 2. phase by phase
// (edit/transaction.hpp): tables that are fresh; counts; references to refcount blocks; entries
// that become zeros, which the guest reads there already, and bits of bitmaps; the link, by one
// write of one sector.
#include "bitmap_gains.hpp"
#include "extents.hpp"
#include "image_editor.hpp"
#include "soundness.hpp"

#include <algorithm>
#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/reparent.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using analysis::Extent;
using graph::Chain;

// What reads as zeros only since the committed image, below the overlay, ends before it, up to the
// end of the base.
Result<std::vector<GuestRange>> behind_the_end(const Chain& chain, GuestOffset end_of_base,
                                               unsigned workers, ExtentBudget& budget) {
  std::vector<GuestRange> ranges;
  const auto look = [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents) {
      if (!extent.present && extent.past_end && extent.layer == 0 &&
          extent.guest.begin < end_of_base)
        ranges.push_back({extent.guest.begin, std::min(extent.guest.end, end_of_base)});
    }
    return {};
  };
  TRY(map_layers_within(budget, chain, workers, look));
  return ranges;
}

Result<void> check_snapshots(const Chain& chain, GuestOffset end_of_base, unsigned workers) {
  const graph::Layer& overlay = chain.layers().front();
  ExtentBudget budget(chain);
  for (const qcow2::Snapshot& snapshot : TRY(snapshots_of(overlay.qcow2()))) {
    const Chain through = TRY(chain.through(0, snapshot));
    if (!TRY(behind_the_end(through, end_of_base, workers, budget)).empty())
      return fail(ErrorCode::refused,
                  fmt::format("its internal snapshot {} ({}) would read what the base has behind "
                              "the end of the committed image",
                              to_terminal(snapshot.id), to_terminal(snapshot.name)));
  }
  return {};
}

}  // namespace

Result<Reparenting> plan_reparenting(edit::Transaction& transaction, const Chain& chain,
                                     std::size_t base, const BackingLink& link, unsigned workers) {
  const graph::Layer& overlay = chain.layers().front();
  const qcow2::Header& header = overlay.qcow2().header();
  const GuestOffset end_of_base{chain.layers()[base].guest_size};
  const qcow2::Geometry geometry = overlay.mapping->geometry();
  TRY(check_kind(header));
  const check::CheckResult before = TRY(check_metadata(transaction.view(), workers));
  TRY(check_sound(header, before));
  TRY(check_snapshots(chain, end_of_base, workers));
  const qcow2::Image image = TRY(qcow2::Image::open(transaction.view()));
  ImageEditor editor(transaction, image, before);
  TRY(clear_unknown_autoclear(transaction, header));
  ExtentBudget budget(chain);
  for (const GuestRange& range : TRY(behind_the_end(chain, end_of_base, workers, budget))) {
    if (header.version < 3 || !is_aligned(range.begin.value, geometry.subcluster_size()))
      return fail(ErrorCode::refused,
                  fmt::format("it needs explicit zeros from guest offset {:#x} on, where the "
                              "committed image ends, and cannot mark them: pull it first",
                              range.begin.value));
    // What is behind the end of the base in the same cluster reads as zeros, too.
    const std::uint64_t end = align_up(range.end.value, geometry.subcluster_size());
    TRY(editor.set_zero({range.begin, {std::min(end, chain.guest_size())}}));
  }
  std::vector<std::size_t> leaving;
  for (std::size_t i = 1; i < base; ++i)
    leaving.push_back(i);
  const BitmapGains gains = TRY(BitmapGains::make(chain, leaving));
  TRY(gains.stage(transaction, editor, image));
  TRY(editor.finish());
  const qcow2::Image changed = TRY(qcow2::Image::open(transaction.view()));
  TRY(stage_backing_link(transaction, changed.header(), link));
  TRY(check_device(transaction));
  const check::CheckResult after = TRY(check_metadata(transaction.view(), workers));
  TRY(check_plan(after));
  Reparenting reparenting;
  reparenting.change.verb = "commit --reparent";
  reparenting.change.keeps_undo = false;
  reparenting.change.operation = edit::Operation::reparent;
  reparenting.bitmaps_dirty = gains.all_dirty();
  return reparenting;
}

}  // namespace coldchain::ops
