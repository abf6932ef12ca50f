// SPDX-License-Identifier: MIT
// Order of writes: 1. the top's side file, flush: a commit is under way. 2. The base: all changes
// of its metadata into its side file, flush; tables that are fresh, counts, references to refcount
// blocks, bits of its bitmaps; data, into clusters that count by now, or in place, where the layers
// above hide it, flushed batch by batch; references to data; the size of its disk; its side file
// says that it is done, flush. 3. The top's side file says that the base has all, flush; the top's
// L1 entries; its refcounts; refcount blocks that count nothing. 4. Both side files go.
#include "bitmap_growth.hpp"
#include "bitmap_merge.hpp"
#include "commit_pieces.hpp"
#include "data_writer.hpp"
#include "extents.hpp"
#include "image_editor.hpp"
#include "plan_digest.hpp"
#include "soundness.hpp"
#include "zeroes.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/commit.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using analysis::Extent;
using graph::Chain;
using graph::Layer;

// Of what is written to a raw image, what is zeros together.
constexpr std::uint64_t raw_grain = 4096;

// What must be the same when a commit is continued.
std::string request_of(std::string verb, const CommitOptions& options) {
  verb = with_option(std::move(verb), detect_zeroes_option, options.detects_zeroes);
  return with_option(std::move(verb), merge_bitmaps_option, options.bitmaps == BitmapRule::merge);
}

// What its journal says. Nothing that allows anything: that is for each run to be given anew.
std::string verb_of(std::string verb, const CommitOptions& options) {
  return with_option(request_of(std::move(verb), options), reparent_option, options.reparents);
}

// The clusters below `end` whose bits `word_at` has, which gives those of 64.
template <class WordAt>
std::vector<HostRange> ranges_of(std::uint64_t cluster_size, std::uint64_t end,
                                 const WordAt& word_at) {
  std::vector<HostRange> ranges;
  for (std::uint64_t first = 0; first < end; first += 64) {
    const std::uint64_t word = word_at(first);
    for (std::uint64_t cluster = first; word != 0 && cluster < std::min(end, first + 64);
         ++cluster) {
      if ((word >> (cluster - first) & 1) != 0)
        append_range(ranges, HostRange{{cluster * cluster_size}, {(cluster + 1) * cluster_size}});
    }
  }
  return ranges;
}

class CommitPlanner {
 public:
  CommitPlanner(edit::Transaction& transaction, const Chain& chain, const Chain& base_chain,
                const CommitOptions& options)
      : transaction_(transaction),
        options_(options),
        view_{&chain, options.base, &base_chain, options.workers},
        base_(base_chain.layers().front()),
        extents_(chain, options.workers),
        digester_(options.base) {}

  Result<Commit> plan() {
    commit_.disk_size_before = base_.guest_size;
    commit_.disk_size_after = std::max(base_.guest_size, view_.chain->guest_size());
    for (std::size_t i = 0; i <= options_.base; ++i)
      commit_.cost.sources.push_back({view_.chain->layers()[i].node->filename});
    TRY(check_readable(view_.chain->layers()));
    raise_limit(transaction_, *view_.chain);
    if (options_.detects_zeroes)
      view_.zeroes =
          TRY(find_zeroes(*view_.chain, {.range = {{0}, {view_.chain->guest_size()}},
                                         .end_layer = static_cast<std::uint32_t>(options_.base),
                                         .grain = grain(),
                                         .workers = options_.workers}));
    if (const Result<void> planned = base_.mapping ? plan_qcow2() : plan_raw(); !planned)
      return fail(about(base_, planned.error()));
    TRY(look_at_snapshots());
    TRY(look_at_layers());
    commit_.change = {.verb = verb_of("commit", options_),
                      .keeps_undo = false,
                      .operation = edit::Operation::commit_base,
                      .argument = commit_argument(*view_.chain->layers().front().node)};
    commit_.change.digest = TRY(digester_.finish(
        request_of("commit", options_), commit_.change.argument, transaction_, other_nodes()));
    commit_.data.write = writer();
    return std::move(commit_);
  }

 private:
  Result<void> plan_qcow2() {
    const qcow2::Header& header = base_.qcow2().header();
    TRY(check_kind(header));
    const check::CheckResult before = TRY(check_metadata(transaction_.view(), options_.workers));
    TRY(check_sound(header, before, view_.chain->unreadable_are_zeros()));
    commit_.cost.unreadable.add(own_unreadable(before));
    const qcow2::Image image = TRY(qcow2::Image::open(transaction_.view()));
    TRY(check_may_grow(image));
    if (transaction_.view().status().kind == io::FileKind::regular)
      transaction_.grow(align_up(transaction_.size_before(), header.cluster_size()));
    commit_.data.whole_size = transaction_.size_after();
    commit_.cost.cluster_size = header.cluster_size();
    ImageEditor editor(transaction_, image, before);
    TRY(clear_unknown_autoclear(transaction_, header));
    TRY(zero_cut_streams(editor, header, before));
    TRY(for_each_commit_piece(view_, [&](const Piece& piece) { return take(editor, piece); }));
    std::vector<MergedBitmap> merged;
    if (options_.bitmaps == BitmapRule::merge)
      merged = TRY(bitmaps_to_merge(*view_.chain, options_.base));
    for (const MergedBitmap& bitmap : merged)
      commit_.bitmaps_merged.push_back(bitmap.name);
    const ChangedBitmaps bitmaps = TRY(change_bitmaps(
        transaction_, editor, image, commit_.disk_size_after, merged, commit_.changed));
    commit_.bitmaps_marked = bitmaps.marked;
    if (grows())
      TRY(editor.grow_disk(commit_.disk_size_after));
    TRY(editor.finish());
    if (bitmaps.extension)
      TRY(stage_bitmaps_extension(transaction_, *bitmaps.extension));
    TRY(check_device(transaction_));
    const check::CheckResult after = TRY(check_metadata(transaction_.view(), options_.workers));
    TRY(check_plan(after));
    commit_.cost.added = editor.added();
    commit_.data.ranges = editor.sorted_data();
    commit_.freed = ranges_of(header.cluster_size(), before.claims.end(), [&](std::uint64_t first) {
      return before.claims.word(first).claimed & ~after.claims.word(first).claimed;
    });
    return fill_cost(commit_.cost, transaction_, before, after.counts.image_end_offset);
  }

  Result<void> plan_raw() {
    TRY(check_is_whole(base_.raw()));
    commit_.data.whole_size = transaction_.size_before();
    if (grows())
      transaction_.grow(commit_.disk_size_after);
    const auto take_place = [&](const Piece& piece) -> Result<void> {
      TRY(count(piece));
      transaction_.grow(piece.guest.end.value);
      append_range(commit_.data.ranges, to_host(piece.guest));
      for (const Extent& source : piece.sources) {
        if (reads_as_zeros(source))
          append_range(commit_.data.zeros, to_host(source.guest));
      }
      return {};
    };
    TRY(for_each_commit_piece(view_, take_place));
    TRY(check_device(transaction_));
    Cost& cost = commit_.cost;
    cost.image_end_before = cost.file_size_before = transaction_.size_before();
    cost.image_end_after = cost.file_size_after = transaction_.size_after();
    cost.side_file_bytes = TRY(edit::Journal::size_of(transaction_));
    return {};
  }

  [[nodiscard]] std::uint64_t grain() const {
    return base_.mapping ? base_.mapping->geometry().subcluster_size() : raw_grain;
  }

  [[nodiscard]] bool grows() const { return commit_.disk_size_after > commit_.disk_size_before; }

  // What else tells a size of the disk must be able to tell the new one.
  [[nodiscard]] Result<void> check_may_grow(const qcow2::Image& image) const {
    if (!grows())
      return {};
    for (const qcow2::Snapshot& snapshot :
         TRY(qcow2::read_snapshots(image.file(), image.header()))) {
      // QEMU applies no snapshot of version 2 to a disk of another size.
      if (image.header().version < 3 || !snapshot.disk_size())
        return fail(ErrorCode::refused,
                    fmt::format("its internal snapshot {} ({}) could not be applied to a disk that "
                                "grows to {} bytes",
                                to_terminal(snapshot.id), to_terminal(snapshot.name),
                                commit_.disk_size_after));
    }
    return check_bitmaps_may_grow(image, base_.node->filename, commit_.disk_size_after);
  }

  Result<void> take(ImageEditor& editor, const Piece& piece) {
    TRY(count(piece));
    switch (piece.kind) {
      case PieceKind::zero:
        return editor.set_zero(piece.guest);
      case PieceKind::copy:
        return editor.allocate(piece.guest);
      case PieceKind::overwrite:
        return editor.overwrite(piece.guest);
      case PieceKind::reserve:
      case PieceKind::compressed:
      case PieceKind::recompress:
        break;  // of a pull or an allocation
    }
    return {};
  }

  Result<void> count(const Piece& piece) {
    digester_.add(piece);
    Cost& cost = commit_.cost;
    cost.unreadable.add(piece.lost);
    if (piece.kind == PieceKind::zero) {
      cost.zeroed_bytes += piece.guest.size();
      append_range(commit_.changed, piece.guest);
      return {};
    }
    cost.written_bytes += piece.guest.size();
    if (piece.kind == PieceKind::overwrite)
      commit_.overwritten_bytes += piece.guest.size();
    for (const Extent& source : piece.sources) {
      if (view_.is_above(source))
        append_range(commit_.changed, source.guest);
      if (reads_as_zeros(source))
        continue;
      // What fills up clusters of the base comes from it, or from below it.
      SourceCost& from = cost.sources[std::min<std::size_t>(source.layer, options_.base)];
      from.bytes += source.guest.size();
      from.extents += TRY(extents_.is_of_another(source)) ? 1 : 0;
    }
    return {};
  }

  // Of a raw image.
  static HostRange to_host(GuestRange guest) { return {{guest.begin.value}, {guest.end.value}}; }

  [[nodiscard]] bool changes(GuestRange guest) const {
    const auto after = std::upper_bound(
        commit_.changed.begin(), commit_.changed.end(), guest.begin,
        [](GuestOffset offset, const GuestRange& range) { return offset < range.end; });
    return after != commit_.changed.end() && after->begin < guest.end;
  }

  Result<void> look_at_snapshots() {
    ExtentBudget budget(*view_.chain);
    for (std::size_t i = 0; i < options_.base; ++i) {
      const Layer& layer = view_.chain->layers()[i];
      const auto snapshots = snapshots_of(layer.qcow2());
      if (!snapshots)
        return fail(about(layer, snapshots.error()));
      for (const qcow2::Snapshot& snapshot : *snapshots) {
        if (TRY(reads_what_changes(i, snapshot, budget)))
          commit_.snapshots.push_back(
              fmt::format("{} ({}) of {}", snapshot.id, snapshot.name, layer.node->filename));
      }
    }
    if (!commit_.snapshots.empty() && !options_.force)
      return fail(ErrorCode::refused,
                  fmt::format("internal snapshots read through data that would change: {}; with "
                              "--force the commit runs and they read different data afterwards",
                              to_terminal(fmt::format("{}", fmt::join(commit_.snapshots, ", ")))));
    return {};
  }

  Result<bool> reads_what_changes(std::size_t layer, const qcow2::Snapshot& snapshot,
                                  ExtentBudget& budget) {
    const Chain through = TRY(view_.chain->through(layer, snapshot));
    bool reads = false;
    const auto look = [&](std::span<const Extent> extents) -> Result<void> {
      for (const Extent& extent : extents) {
        const bool is_own = extent.present && extent.layer < options_.base - layer;
        reads = reads || (!is_own && changes(extent.guest));
      }
      return {};
    };
    TRY(map_layers_within(budget, through, options_.workers, look));
    return reads;
  }

  Result<void> look_at_layers() {
    for (std::size_t i = 0; i < options_.base; ++i) {
      const graph::Node& node = *view_.chain->layers()[i].node;
      commit_.not_needed.push_back(storage_of(node));
      if (i != 0)
        commit_.stale_layers.push_back(node.filename);
    }
    if (options_.bitmaps != BitmapRule::drop)
      commit_.bitmaps_left = bitmaps_of(*view_.chain, 0, options_.base, commit_.bitmaps_merged);
    return {};
  }

  [[nodiscard]] std::vector<const graph::Node*> other_nodes() const {
    std::vector<const graph::Node*> nodes;
    for (const Layer& layer : view_.chain->layers()) {
      if (layer.node != base_.node)
        nodes.push_back(layer.node);
    }
    return nodes;
  }

  [[nodiscard]] std::function<Result<void>(edit::FreshWriter&)> writer() const {
    return
        [view = view_, &transaction = transaction_, progress = options_.progress,
         is_raw = !base_.mapping, total = commit_.cost.written_bytes](edit::FreshWriter& writer) {
          const auto pieces = [&](const PieceConsumer& consumer) {
            return for_each_commit_piece(view, consumer);
          };
          Course course{progress, {.total = total}};
          return write_pieces(writer, {view.chain, view.base_chain, view.base},
                              {is_raw ? nullptr : &transaction.view()}, pieces, course);
        };
  }

  edit::Transaction& transaction_;
  const CommitOptions& options_;
  CommitView view_;
  const Layer& base_;
  ExtentCounter extents_;
  PlanDigester digester_;
  Commit commit_;
};

}  // namespace

Result<Commit> plan_commit(edit::Transaction& transaction, const Chain& chain,
                           const Chain& base_chain, const CommitOptions& options) {
  return CommitPlanner(transaction, chain, base_chain, options).plan();
}

Result<Emptying> plan_emptying(edit::Transaction& transaction, const Chain& chain, bool empties,
                               const CommitOptions& options) {
  const qcow2::Header& header = chain.layers().front().qcow2().header();
  Emptying emptying;
  emptying.change = {
      .verb = verb_of(empties ? "commit" : "commit -d", options),
      .keeps_undo = false,
      .operation = empties ? edit::Operation::commit_top : edit::Operation::commit_top_kept,
      .argument = commit_argument(*chain.layers()[options.base].node)};
  const auto digest = [&] {
    return PlanDigester(0).finish(request_of(empties ? "commit" : "commit -d", options),
                                  emptying.change.argument, transaction, {});
  };
  if (!empties) {
    emptying.change.digest = TRY(digest());
    return emptying;
  }
  const check::CheckResult before = TRY(check_metadata(transaction.view(), options.workers));
  TRY(check_sound(header, before, chain.unreadable_are_zeros()));
  const qcow2::Image image = TRY(qcow2::Image::open(transaction.view()));
  TRY(clear_unknown_autoclear(transaction, header));
  TRY(ImageEditor(transaction, image, before).empty());
  const check::CheckResult after = TRY(check_metadata(transaction.view(), options.workers));
  TRY(check_plan(after));
  emptying.metadata_bytes = transaction.changed_bytes();
  emptying.image_end_before = before.counts.image_end_offset;
  emptying.image_end_after = after.counts.image_end_offset;
  emptying.change.digest = TRY(digest());
  return emptying;
}

Result<void> check_committed(const Chain& chain, std::size_t base, const Chain& base_chain,
                             unsigned workers) {
  constexpr std::uint64_t most = 4 << 20;
  Bytes above;
  Bytes below;
  graph::Reader reader(chain);
  graph::Reader base_reader(base_chain);
  const auto compare = [&](GuestRange range) -> Result<void> {
    above.resize(range.size());
    below.resize(range.size());
    TRY(reader.read(range.begin, above));
    TRY(base_reader.read(range.begin, below));
    if (above != below)
      return fail(ErrorCode::refused,
                  fmt::format("the data that was copied into the base at guest offset {:#x} is not "
                              "there: another program has written to the base since",
                              range.begin.value));
    return {};
  };
  return analysis::map(chain, {{0}, {chain.guest_size()}}, workers,
                       [&](std::span<const Extent> extents) -> Result<void> {
                         for (const Extent& extent : extents) {
                           if (extent.layer >= base)
                             continue;
                           for (GuestRange some = extent.guest; some.begin < extent.guest.end;
                                some.begin = some.end) {
                             some.end = std::min(extent.guest.end, some.begin + most);
                             TRY(compare(some));
                           }
                         }
                         return {};
                       });
}

std::uint64_t commit_argument(const graph::Node& image) {
  return image.file->status().lasting_identity.inode;
}

Result<Unused> find_unused(const io::File& image) {
  const check::CheckResult checked = TRY(check_metadata(image, 1));
  const qcow2::Image opened = TRY(qcow2::Image::open(image));
  TRY(check_sound(opened.header(), checked));
  const std::uint64_t cluster_size = opened.header().cluster_size();
  const std::uint64_t end = std::max(checked.claims.end(), checked.stored.end());
  return Unused{ranges_of(cluster_size, end,
                          [&](std::uint64_t first) {
                            const check::StoredRefcounts::Word stored = checked.stored.word(first);
                            return ~(stored.one | stored.more | stored.unreadable |
                                     checked.claims.word(first).claimed);
                          }),
                end * cluster_size};
}

}  // namespace coldchain::ops
