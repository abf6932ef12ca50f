// SPDX-License-Identifier: MIT
// Order of writes: 1. all changes of metadata into the side file, flush; 2. phase by phase
// (edit/transaction.hpp): tables that are fresh; counts; references to fresh refcount blocks; 3.
// data, into clusters that count by now and that nobody refers to, flushed batch by batch, how far
// it is in the side file; 4. references to data, from which moment on the image provides what the
// layers below did; the link, by one write of one sector.
#include "allocation_pieces.hpp"
#include "bitmap_gains.hpp"
#include "data_writer.hpp"
#include "extents.hpp"
#include "image_editor.hpp"
#include "pieces.hpp"
#include "plan_digest.hpp"
#include "recompression.hpp"
#include "soundness.hpp"
#include "zeroes.hpp"

#include <algorithm>
#include <cassert>
#include <memory>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/pull.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using analysis::Extent;
using graph::Chain;
using graph::Layer;

// What the guest reads, or what it read when an internal snapshot was made, and the data of the
// layers that go that is zeros.
struct View {
  std::shared_ptr<const Chain> chain;
  std::optional<qcow2::Snapshot> snapshot{};
  std::vector<GuestRange> zeroes{};
};

constexpr std::uint64_t most_l1_bytes = 512ULL << 20;

// Whether an internal snapshot reads through the layers that go. `through` is the chain that it
// reads.
Result<bool> reads_what_goes(const Chain& through, const Below& below, unsigned workers,
                             ExtentBudget& budget) {
  const std::size_t base = below.base;
  bool reads = false;
  const auto look = [&](std::span<const Extent> extents) -> Result<void> {
    for (const Extent& extent : extents) {
      const bool goes = base == 0 || extent.layer < base;
      const bool is_own = extent.present && extent.layer == 0;
      const bool ends_early = extent.past_end && base != 0 && extent.layer + 1 < base;
      reads = reads || (extent.present && !is_own && goes) || ends_early ||
              (below.onto != nullptr && !is_own);
    }
    return {};
  };
  TRY(map_layers_within(budget, through, workers, look));
  return reads;
}

// One plan, from the checks to what is to be written.
class Planner {
 public:
  Planner(edit::Transaction& transaction, const Chain& chain, const PullOptions& options)
      : transaction_(transaction), chain_(chain), options_(options) {
    // Whoever calls keeps it.
    views_.push_back({std::shared_ptr<const Chain>(std::shared_ptr<const Chain>(), &chain)});
  }

  // What was found before, for another transaction.
  Planner(edit::Transaction& transaction, const Planner& other)
      : transaction_(transaction),
        chain_(other.chain_),
        options_(other.options_),
        range_(other.range_),
        views_(other.views_),
        gains_(other.gains_),
        pull_(other.pull_) {}

  Result<Pull> plan() {
    const Layer& top = chain_.layers().front();
    range_ = TRY(whole_clusters(options_.allocation.value_or(Allocation{}),
                                top.mapping->geometry().cluster_size(), chain_.guest_size()));
    TRY(check_kind(top.qcow2().header()));
    const check::CheckResult before = TRY(check_metadata(transaction_.view(), options_.workers));
    TRY(check_sound(top.qcow2().header(), before, chain_.unreadable_are_zeros()));
    pull_.cost.cluster_size = top.qcow2().header().cluster_size();
    raise_limit(transaction_, chain_);
    if (options_.onto != nullptr)
      raise_limit(transaction_, *options_.onto);
    if (TRY(is_done())) {
      TRY(fill_cost(pull_.cost, transaction_, before, before.counts.image_end_offset));
      return std::move(pull_);
    }
    pull_.cost.unreadable.add(own_unreadable(before));
    TRY(check_layers());
    if (!keeps_link()) {
      TRY(look_at_snapshots());
      TRY(look_at_bitmaps());
    }
    if (makes_places() && !transaction_.counts_fresh()) {
      Pull counted = TRY(count(before));
      if (counted.limit)
        return options_.is_plan ? Result<Pull>(std::move(counted)) : fail(too_large(counted));
    }
    TRY(look_for_zeroes());
    return stage(before);
  }

 private:
  // What an allocation comes to, before anything of its size takes memory or time: the same change,
  // of which fresh tables are counted, not filled. The result is checked when they are filled.
  Result<Pull> count(const check::CheckResult& before) const {
    edit::Transaction counted(transaction_.view(), edit::Fresh::counted);
    raise_limit(counted, chain_);
    return Planner(counted, *this).stage(before);
  }

  static Error too_large(const Pull& counted) {
    return {
        ErrorCode::refused,
        fmt::format(
            "nothing was changed: the tables for so many clusters take {} bytes, and one change "
            "may have {}: allocate the disk in parts with 'allocate --range OFFSET:LENGTH'",
            counted.cost.metadata_bytes, *counted.limit),
        0};
  }

  Result<Pull> stage(const check::CheckResult& before) {
    const qcow2::Image image = TRY(qcow2::Image::open(transaction_.view()));
    if (transaction_.view().status().kind == io::FileKind::regular)
      transaction_.grow(align_up(transaction_.size_before(), image.header().cluster_size()));
    pull_.data.whole_size = transaction_.size_after();
    ImageEditor editor(transaction_, image, before);
    TRY(clear_unknown_autoclear(transaction_, image.header()));
    TRY(zero_cut_streams(editor, image.header(), before));
    TRY(take_pieces(editor));
    TRY(gains_.stage(transaction_, editor, image));
    pull_.bitmaps_marked = gains_.marked();
    TRY(editor.finish());
    // Other fields of the header may have changed by now.
    const qcow2::Image changed = TRY(qcow2::Image::open(transaction_.view()));
    if (!keeps_link())
      TRY(stage_backing_link(transaction_, changed.header(), options_.link));
    TRY(check_device(transaction_));
    TRY(look_at_result(before, editor));
    TRY(fill_data(editor));
    // Where nothing changes, the file does not grow.
    if (transaction_.is_empty())
      pull_.cost.unreadable = {};
    return std::move(pull_);
  }

  Result<void> look_at_result(const check::CheckResult& before, const ImageEditor& editor) {
    pull_.cost.added = editor.added();
    if (transaction_.counts_fresh()) {
      const HostOffset end = TRY(editor.end_of_image());
      TRY(fill_cost(pull_.cost, transaction_, before, end.value));
      if (pull_.cost.metadata_bytes > transaction_.limit())
        pull_.limit = transaction_.limit();
      return {};
    }
    const check::CheckResult after = TRY(check_metadata(transaction_.view(), options_.workers));
    TRY(check_plan(after));
    TRY(fill_cost(pull_.cost, transaction_, before, after.counts.image_end_offset));
    return fill_change();
  }
  // Nothing to be copied, and the same link.
  [[nodiscard]] Result<bool> is_done() const {
    if (options_.allocation || options_.onto != nullptr ||
        (chain_.layers().size() > 1 && options_.base != 1))
      return false;
    edit::Transaction link_alone(transaction_.view());
    TRY(stage_backing_link(link_alone, chain_.layers().front().qcow2().header(), options_.link));
    return link_alone.is_empty();
  }

  [[nodiscard]] bool keeps_link() const {
    return options_.allocation && options_.allocation->range;
  }

  [[nodiscard]] bool makes_places() const {
    return options_.allocation && options_.allocation->places != Places::thin;
  }

  [[nodiscard]] Below below(const View& view) const {
    return {.stays = keeps_link(),
            .base = options_.base,
            .onto = options_.onto,
            .zeroes = view.zeroes,
            .is_snapshot = view.snapshot.has_value(),
            .compressed = options_.compressed};
  }

  [[nodiscard]] GuestRange range_of(const View& view) const {
    return view.snapshot ? GuestRange{{0}, {view.chain->guest_size()}} : range_;
  }

  Result<void> look_for_zeroes() {
    if (!options_.detects_zeroes)
      return {};
    for (View& view : views_)
      view.zeroes = TRY(find_zeroes(
          *view.chain, {.range = range_of(view),
                        .first_layer = 1,
                        .end_layer = static_cast<std::uint32_t>(end_of_sources()),
                        .grain = chain_.layers().front().mapping->geometry().subcluster_size(),
                        .workers = options_.workers}));
    return {};
  }

  // What is read from, and what will be: all but the image itself.
  [[nodiscard]] std::vector<const graph::Node*> nodes_below() const {
    std::vector<const graph::Node*> nodes;
    for (std::size_t i = 1; i < chain_.layers().size(); ++i)
      nodes.push_back(chain_.layers()[i].node);
    if (options_.onto != nullptr) {
      for (const Layer& layer : options_.onto->layers())
        nodes.push_back(layer.node);
    }
    return nodes;
  }

  // The layer that the image will name.
  [[nodiscard]] const graph::Node* base_node() const {
    if (options_.onto != nullptr)
      return options_.onto->layers().front().node;
    return options_.base == 0 ? nullptr : chain_.layers()[options_.base].node;
  }

  [[nodiscard]] bool stays(const Layer& layer) const {
    if (options_.onto == nullptr)
      return false;
    const auto& layers = options_.onto->layers();
    return std::any_of(layers.begin(), layers.end(), [&](const Layer& other) {
      return other.node->file->status().identity == layer.node->file->status().identity;
    });
  }

  [[nodiscard]] std::size_t end_of_sources() const {
    return options_.base == 0 ? chain_.layers().size() : options_.base;
  }

  Result<void> check_layers() {
    const auto& layers = chain_.layers();
    for (std::size_t i = 1; i < end_of_sources(); ++i) {
      if (!keeps_link() && !stays(layers[i]))
        pull_.not_needed.push_back(storage_of(*layers[i].node));
      pull_.cost.sources.push_back({layers[i].node->filename});
    }
    TRY(check_readable(layers));
    return options_.onto == nullptr ? Result<void>{} : check_readable(options_.onto->layers());
  }

  Result<void> look_at_snapshots() {
    const Layer& top = chain_.layers().front();
    ExtentBudget budget(chain_);
    for (const qcow2::Snapshot& snapshot : TRY(snapshots_of(top.qcow2()))) {
      auto through = std::make_shared<const Chain>(TRY(chain_.through(0, snapshot)));
      if (!TRY(reads_what_goes(*through, below(views_.front()), options_.workers, budget)))
        continue;
      const std::string name = fmt::format("{} ({})", snapshot.id.c_str(), snapshot.name.c_str());
      if (options_.fills_snapshots) {
        pull_.filled_snapshots.push_back(name);
        TRY(add_view({std::move(through), snapshot}));
      } else {
        pull_.snapshots.push_back(name);
      }
    }
    if (!pull_.snapshots.empty() && !options_.force)
      return fail(ErrorCode::refused,
                  fmt::format("internal snapshots read through layers that would be removed: {}; "
                              "'pull --snapshots' copies that data for them, too; with --force "
                              "they read different data afterwards",
                              to_terminal(fmt::format("{}", fmt::join(pull_.snapshots, ", ")))));
    return {};
  }

  // Internal snapshots are of no interest to bitmaps.
  Result<void> look_at_bitmaps() {
    std::vector<std::size_t> leaving;
    for (std::size_t i = 1; i < end_of_sources(); ++i) {
      if (!stays(chain_.layers()[i]))
        leaving.push_back(i);
    }
    gains_ = TRY(BitmapGains::make(chain_, leaving, options_.onto));
    pull_.bitmaps_dirty = gains_.all_dirty();
    pull_.bitmaps = bitmaps_of(chain_, 1, end_of_sources(), gains_.names());
    return {};
  }

  // Each has the L1 tables of all layers in memory.
  Result<void> add_view(View view) {
    for (const Layer& layer : view.chain->layers())
      l1_bytes_ += layer.mapping ? layer.mapping->l1().size() * sizeof(be64) : 0;
    if (l1_bytes_ > most_l1_bytes)
      return fail(
          ErrorCode::too_large,
          fmt::format("the L1 tables of its internal snapshots and of the layers below need "
                      "more than {} bytes of memory",
                      most_l1_bytes));
    views_.push_back(std::move(view));
    return {};
  }

  // All pieces of a view, each time the same ones. What they refer to outlives the plan.
  [[nodiscard]] PieceSource pieces(const View& view,
                                   const std::function<void(HostRange)>& own = nullptr) const {
    if (makes_places()) {
      const AllocationView all{.chain = &chain_,
                               .range = range_,
                               .writes_zeros = options_.allocation->places == Places::zero_fill,
                               .counts = transaction_.counts_fresh(),
                               .workers = options_.workers};
      return [all, own](const PieceConsumer& consumer) {
        return for_each_allocation_piece(all, consumer, own);
      };
    }
    return [chain = view.chain, range = range_of(view), below = below(view),
            workers = options_.workers](const PieceConsumer& consumer) {
      return for_each_piece(*chain, range, below, workers, consumer);
    };
  }

  Result<void> take_pieces(ImageEditor& editor) {
    for (const View& view : views_) {
      if (view.snapshot)
        TRY(editor.turn_to(*view.snapshot));
      const auto all =
          pieces(view, [&](HostRange place) { append_range(pull_.data.places, place); });
      graph::Reader reader(*view.chain);
      ExtentCounter extents(*view.chain, options_.workers);
      const auto take_piece = [&](const Piece& piece) -> Result<void> {
        TRY(count_sources(piece, extents));
        if (!view.snapshot)
          gains_.add_copied(piece, base_node() == nullptr);
        return take(editor, *view.chain, reader, piece);
      };
      TRY(all(take_piece));
    }
    return {};
  }

  Result<void> count_sources(const Piece& piece, ExtentCounter& extents) {
    for (const Extent& source : piece.sources) {
      if (reads_as_zeros(source) || source.layer == 0 || source.layer > pull_.cost.sources.size())
        continue;
      SourceCost& cost = pull_.cost.sources[source.layer - 1];
      cost.bytes += source.guest.size();
      cost.extents += TRY(extents.is_of_another(source)) ? 1 : 0;
    }
    return {};
  }

  Result<void> take(ImageEditor& editor, const Chain& chain, graph::Reader& reader,
                    const Piece& piece) {
    digester_.add(piece);
    pull_.cost.unreadable.add(piece.lost);
    if (piece.sources.empty()) {
      pull_.cost.zeroed_bytes += piece.guest.size();
      return piece.kind == PieceKind::zero ? editor.set_zero(piece.guest)
                                           : editor.reserve(piece.guest);
    }
    pull_.cost.written_bytes += piece.guest.size();
    switch (piece.kind) {
      case PieceKind::compressed:
        return place_compressed(editor, chain, piece);
      case PieceKind::recompress:
        return place_recompressed(editor, reader, piece);
      case PieceKind::copy:
      case PieceKind::zero:
      case PieceKind::reserve:
        break;
      case PieceKind::overwrite:
        assert(false);  // of a commit
        break;
    }
    return editor.allocate(piece.guest);
  }

  Result<void> place_compressed(ImageEditor& editor, const Chain& chain, const Piece& piece) {
    return for_each_compressed(chain, piece, [&](const CompressedCluster& cluster) {
      pull_.compressed_bytes += cluster.bytes.sectors().size();
      return editor.place_compressed(cluster.guest, cluster.bytes);
    });
  }

  Result<void> place_recompressed(ImageEditor& editor, graph::Reader& reader, const Piece& piece) {
    const auto place = [&](const RecompressedCluster& cluster) -> Result<void> {
      if (cluster.stream.empty())
        return editor.allocate(cluster.guest);
      pull_.recompressed_bytes += cluster.stream.size();
      return editor.place_compressed(cluster.guest.begin, {{0}, cluster.stream.size()});
    };
    TRY(data_budget_.spend_data(piece.guest.size()));
    return for_each_recompressed(reader, chain_.layers().front().qcow2(), piece, options_.workers,
                                 place);
  }

  [[nodiscard]] std::string verb() const {
    std::string verb = with_option("pull", snapshots_option, options_.fills_snapshots);
    verb = with_option(std::move(verb), detect_zeroes_option, options_.detects_zeroes);
    verb =
        with_option(std::move(verb), decompress_option, options_.compressed == Compressed::unpack);
    return with_option(std::move(verb), recompress_option,
                       options_.compressed == Compressed::recompress);
  }

  Result<void> fill_change() {
    const std::optional<Allocation>& allocation = options_.allocation;
    pull_.change = {.verb = allocation ? to_command(*allocation) : verb(),
                    .keeps_undo = false,
                    .operation = allocation ? edit::Operation::allocate : edit::Operation::pull,
                    .argument = pull_argument(base_node())};
    pull_.change.digest = TRY(
        digester_.finish(pull_.change.verb, pull_.change.argument, transaction_, nodes_below()));
    return {};
  }

  Result<void> fill_data(const ImageEditor& editor) {
    pull_.data.ranges = editor.sorted_data();
    if (makes_places()) {
      std::vector<HostRange>& places = pull_.data.places;
      places.insert(places.end(), pull_.data.ranges.begin(), pull_.data.ranges.end());
      places = sorted_and_merged(std::move(places));
      pull_.storage_bytes =
          TRY(io::bytes_without_storage(*chain_.layers().front().node->file, places));
    }
    // Then no change makes the file whole.
    if (transaction_.is_empty())
      pull_.cost.file_size_after =
          std::max(transaction_.size_before(),
                   pull_.data.places.empty() ? 0 : pull_.data.places.back().end.value);
    if (transaction_.counts_fresh())
      return {};
    std::vector<PieceSource> all;
    for (const View& view : views_)
      all.push_back(pieces(view));
    pull_.data.write = [&transaction = transaction_, views = views_, all,
                        progress = options_.progress, workers = options_.workers,
                        total =
                            pull_.cost.written_bytes](edit::FreshWriter& writer) -> Result<void> {
      Course course{progress, {.total = total}};
      Target target{&transaction.view()};
      for (std::size_t i = 0; i < views.size(); ++i) {
        const View& view = views[i];
        if (view.snapshot)
          target.snapshot = view.snapshot->id;
        TRY(write_pieces(writer, {.chain = view.chain.get(), .workers = workers}, target, all[i],
                         course));
        target.cursor += view.chain->guest_size();
      }
      return {};
    };
    return {};
  }

  edit::Transaction& transaction_;
  const Chain& chain_;
  const PullOptions& options_;
  GuestRange range_;         // that is looked at
  std::vector<View> views_;  // that get what the layers below provide
  BitmapGains gains_;        // of the image
  std::uint64_t l1_bytes_ = 0;
  PlanDigester digester_{0};
  ExtentBudget data_budget_{chain_};
  Pull pull_;
};

}  // namespace

std::uint64_t pull_argument(const graph::Node* base) {
  return base == nullptr ? 0 : base->file->status().lasting_identity.inode;
}

Result<Pull> plan_allocation(const raw::Image& image, const Allocation& allocation) {
  TRY(check_is_whole(image));
  const io::File& file = image.file();
  if (file.status().kind == io::FileKind::block_device)
    return fail(ErrorCode::refused,
                "the storage behind a block device cannot be seen, so it cannot be allocated");
  const GuestRange range = TRY(whole_clusters(allocation, 1, file.size()));
  Pull pull;
  if (allocation.places != Places::thin)
    pull.data.places = {{{range.begin.value}, {range.end.value}}};
  pull.storage_bytes = TRY(io::bytes_without_storage(file, pull.data.places));
  pull.cost.image_end_before = pull.cost.file_size_before = file.size();
  pull.cost.image_end_after = pull.cost.file_size_after = file.size();
  return pull;
}

Result<Pull> plan_pull(edit::Transaction& transaction, const graph::Chain& chain,
                       const PullOptions& options) {
  return Planner(transaction, chain, options).plan();
}

}  // namespace coldchain::ops
