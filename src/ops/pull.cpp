// SPDX-License-Identifier: MIT
// Order of writes: 1. all changes of metadata into the side file, flush; 2. phase by phase
// (edit/transaction.hpp): tables that are fresh; counts; references to fresh refcount blocks; 3.
// data, into clusters that count by now and that nobody refers to, flushed batch by batch, how far
// it is in the side file; 4. references to data, from which moment on the image provides what the
// layers below did; the link, by one write of one sector.
#include "image_editor.hpp"
#include "pieces.hpp"

#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/endian.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/codec/checksum.hpp>
#include <coldchain/ops/pull.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using analysis::Extent;
using graph::Chain;
using graph::Layer;

Error in_layer(Error error, const Layer& layer) {
  return with_context(std::move(error), to_terminal(layer.node->filename));
}

Result<check::CheckResult> checked(const io::File& file, unsigned workers) {
  return check::check(TRY(qcow2::Image::open_damaged(file)), {.deep = false, .workers = workers});
}

bool is_sound(const check::CheckResult& checked) {
  return !checked.failure && checked.findings.worst() < finding::Severity::corruption;
}

// What is written to must be sound: who allocates by refcounts that are too low overwrites data.
Result<void> check_sound(const qcow2::Header& header, const check::CheckResult& checked) {
  if (checked.is_partial)
    return fail(ErrorCode::refused,
                "has more tables than its file can hold: not all of them were looked at");
  if (!is_sound(checked) || header.has_incompatible(qcow2::incompatible::dirty))
    return fail(ErrorCode::refused,
                "is damaged, or was not closed: 'coldchain check' tells what there is, and "
                "'coldchain check -r all' mends it");
  return {};
}

// The plan is looked at like an image that somebody else has made.
Result<void> check_plan(const check::CheckResult& checked) {
  if (!checked.is_partial && is_sound(checked))
    return {};
  const finding::Findings& findings = checked.findings.runs();
  const auto worst = std::max_element(
      findings.begin(), findings.end(), [](const finding::Finding& a, const finding::Finding& b) {
        return finding::row(a.code).severity < finding::row(b.code).severity;
      });
  return fail(ErrorCode::refused,
              fmt::format("the result would not be sound ({}): this is an error of coldchain. "
                          "Nothing was changed",
                          worst == findings.end() ? "?" : finding::row(worst->code).slug));
}

Result<void> check_kind(const qcow2::Header& header) {
  if (header.crypt_method != 0)
    return fail(ErrorCode::refused, "is encrypted: what is copied into it would have to be, too");
  if (header.has_data_file())
    return fail(ErrorCode::refused,
                "keeps its data in an external data file, which is not written to by a pull");
  return {};
}

// Internal snapshots that read through the layers that go.
Result<std::vector<std::string>> snapshots_that_read(const Chain& chain, const Below& below,
                                                     unsigned workers) {
  const std::size_t base = below.base;
  const Layer& top = chain.layers().front();
  std::vector<std::string> names;
  const auto snapshots = TRY(qcow2::read_snapshots(top.qcow2().file(), top.qcow2().header()));
  for (const qcow2::Snapshot& snapshot : snapshots) {
    const Chain through = TRY(Chain::make(*top.node, {.snapshot = snapshot.id}));
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
    TRY(analysis::map(through, {{0}, {through.guest_size()}}, workers, look));
    if (reads)
      names.push_back(fmt::format("{} ({})", snapshot.id.c_str(), snapshot.name.c_str()));
  }
  return names;
}

Result<std::vector<std::string>> bitmaps_of(const Chain& chain, std::size_t end) {
  std::vector<std::string> names;
  for (std::size_t i = 1; i < end; ++i) {
    const Layer& layer = chain.layers()[i];
    if (!layer.mapping)
      continue;
    for (const qcow2::Bitmap& bitmap :
         TRY(qcow2::read_bitmaps(layer.qcow2().file(), layer.qcow2().header())))
      names.push_back(fmt::format("{} in {}", bitmap.name, layer.node->filename));
  }
  return names;
}

// Of the changes, and of the files that data is copied from as they are now.
Result<std::uint32_t> digest_of(const edit::Transaction& transaction,
                                const std::vector<const graph::Node*>& nodes) {
  std::uint32_t digest = 0;
  TRY(transaction.for_each_change([&](const edit::Change& change) -> Result<void> {
    digest = codec::crc32(bytes_of(be64(change.offset.value)), digest);
    digest = codec::crc32(change.after, digest);
    return {};
  }));
  for (const graph::Node* node : nodes) {
    for (const io::File* file : {node->file.get(), node->data_file.get()}) {
      if (file == nullptr)
        continue;
      const io::FileStatus& status = file->status();
      for (const std::uint64_t fact : {status.lasting_identity.inode, status.size,
                                       static_cast<std::uint64_t>(status.modified.seconds),
                                       std::uint64_t{status.modified.nanoseconds}})
        digest = codec::crc32(bytes_of(be64(fact)), digest);
    }
  }
  return digest;
}

// Where the guest bytes of an extent lie.
const io::File& file_of(const Layer& layer) {
  return layer.mapping ? *layer.qcow2().data_file() : layer.raw().file();
}

class DataWriter {
 public:
  DataWriter(const Chain& chain, const edit::Transaction& transaction, const Progress& progress,
             std::uint64_t total)
      : chain_(chain), transaction_(transaction), progress_(progress), total_(total) {}

  Result<void> write(edit::FreshWriter& writer, const Below& below, unsigned workers) {
    // The mapping as it will be says where everything goes.
    const qcow2::Image image = TRY(qcow2::Image::open(transaction_.view()));
    const qcow2::Mapping mapping = TRY(image.active_mapping());
    const auto write_one = [&](const Piece& piece) -> Result<void> {
      if (piece.is_zero)
        return {};
      TRY(writer.begin(piece.guest.end.value));
      TRY(write_piece(writer, mapping, piece));
      TRY(writer.end());
      done_ += piece.guest.size();
      if (progress_ && !progress_(done_, total_)) {
        TRY(writer.flush());
        return fail(ErrorCode::interrupted, "interrupted");
      }
      return {};
    };
    TRY(for_each_piece(chain_, below, workers, write_one));
    return writer.flush();
  }

 private:
  Result<void> write_piece(edit::FreshWriter& writer, const qcow2::Mapping& mapping,
                           const Piece& piece) {
    runs_.clear();
    TRY(mapping.runs(piece.guest, cursor_, runs_));
    auto source = piece.sources.begin();
    for (const qcow2::Run& run : runs_) {
      if (run.kind != qcow2::RunKind::data)
        return fail(ErrorCode::corrupt, "a cluster that was planned has no place");
      for (GuestOffset at = run.guest.begin; at < run.guest.end;) {
        while (source->guest.end <= at)
          ++source;
        const GuestOffset end = std::min(run.guest.end, source->guest.end);
        TRY(write_extent(writer, *source, {at, end}, run.host + (at - run.guest.begin)));
        at = end;
      }
    }
    // What lies behind the end of the disk may come to light when it grows.
    const std::uint64_t grain = mapping.geometry().subcluster_size();
    const std::uint64_t tail = align_up(piece.guest.end.value, grain) - piece.guest.end.value;
    const qcow2::Run& last = runs_.back();
    return tail == 0 ? Result<void>{} : writer.write_zeros(last.host + last.guest.size(), tail);
  }

  Result<void> write_extent(edit::FreshWriter& writer, const Extent& source, GuestRange guest,
                            HostOffset to) {
    if (source.zero || !source.present)
      return writer.write_zeros(to, guest.size());
    const Layer& layer = chain_.layers()[source.layer];
    const HostOffset from = source.host + (guest.begin - source.guest.begin);
    const auto fill = [&](std::uint64_t done, ByteSpan bytes) -> Result<void> {
      if (!source.has_host)
        return chain_.read(guest.begin + done, bytes);
      if (const Result<void> read = io::read_zero_extended(file_of(layer), from + done, bytes);
          !read)
        return fail(in_layer(read.error(), layer));
      return {};
    };
    return writer.write(to, guest.size(), fill);
  }

  const Chain& chain_;
  const edit::Transaction& transaction_;
  const Progress& progress_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  qcow2::Mapping::Cursor cursor_;
  std::vector<qcow2::Run> runs_;
};

// One plan, from the checks to what is to be written.
class Planner {
 public:
  Planner(edit::Transaction& transaction, const Chain& chain, const PullOptions& options)
      : transaction_(transaction), chain_(chain), options_(options) {}

  Result<Pull> plan() {
    const Layer& top = chain_.layers().front();
    TRY(check_kind(top.qcow2().header()));
    const check::CheckResult before = TRY(checked(transaction_.view(), options_.workers));
    TRY(check_sound(top.qcow2().header(), before));
    if (TRY(is_done())) {
      TRY(fill_cost({}, before, before));
      return std::move(pull_);
    }
    TRY(check_layers());
    TRY(look_at_snapshots());
    pull_.bitmaps = TRY(bitmaps_of(chain_, end_of_sources()));
    const qcow2::Image image = TRY(qcow2::Image::open(transaction_.view()));
    const std::uint64_t size_before = transaction_.size_before();
    const bool is_regular = transaction_.view().status().kind == io::FileKind::regular;
    if (is_regular)
      transaction_.grow(align_up(size_before, top.qcow2().header().cluster_size()));
    const std::uint64_t whole_size = transaction_.size_after();
    ImageEditor editor(transaction_, image, before);
    TRY(clear_unknown_autoclear(transaction_, image.header()));
    TRY(take_pieces(editor));
    TRY(editor.finish());
    // Other fields of the header may have changed by now.
    const qcow2::Image changed = TRY(qcow2::Image::open(transaction_.view()));
    TRY(stage_backing_link(transaction_, changed.header(), options_.link));
    TRY(check_device(size_before));
    const check::CheckResult after = TRY(checked(transaction_.view(), options_.workers));
    TRY(check_plan(after));
    TRY(fill_cost(editor.added(), before, after));
    TRY(fill_change());
    fill_data(editor);
    pull_.data.whole_size = whole_size;
    return std::move(pull_);
  }

 private:
  // Nothing to be copied, and the same link.
  [[nodiscard]] Result<bool> is_done() const {
    if (options_.onto != nullptr || (chain_.layers().size() > 1 && options_.base != 1))
      return false;
    edit::Transaction link_alone(transaction_.view());
    TRY(stage_backing_link(link_alone, chain_.layers().front().qcow2().header(), options_.link));
    return link_alone.is_empty();
  }

  [[nodiscard]] Below below() const { return {options_.base, options_.onto}; }

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
      if (!stays(layers[i]))
        pull_.freed_layers.push_back(layers[i].node->filename);
      pull_.cost.sources.push_back({layers[i].node->filename});
    }
    TRY(check_readable(layers));
    return options_.onto == nullptr ? Result<void>{} : check_readable(options_.onto->layers());
  }

  static Result<void> check_readable(const std::vector<Layer>& layers) {
    for (const Layer& layer : layers) {
      if (!layer.mapping)
        continue;
      if (const Result<void> done = layer.qcow2().check_readable(); !done)
        return fail(in_layer(done.error(), layer));
    }
    return {};
  }

  Result<void> look_at_snapshots() {
    pull_.snapshots = TRY(snapshots_that_read(chain_, below(), options_.workers));
    if (!pull_.snapshots.empty() && !options_.force)
      return fail(ErrorCode::refused,
                  fmt::format("internal snapshots read through layers that would go: {}; --force "
                              "pulls all the same, and they read something else then",
                              to_terminal(fmt::format("{}", fmt::join(pull_.snapshots, ", ")))));
    return {};
  }

  Result<void> take_pieces(ImageEditor& editor) {
    return for_each_piece(chain_, below(), options_.workers,
                          [&](const Piece& piece) -> Result<void> {
                            if (piece.is_zero) {
                              pull_.cost.zeroed_bytes += piece.guest.size();
                              return editor.set_zero(piece.guest);
                            }
                            pull_.cost.written_bytes += piece.guest.size();
                            for (const Extent& source : piece.sources) {
                              if (!source.present || source.zero || source.layer == 0 ||
                                  source.layer > pull_.cost.sources.size())
                                continue;
                              SourceCost& cost = pull_.cost.sources[source.layer - 1];
                              cost.bytes += source.guest.size();
                              ++cost.extents;
                            }
                            return editor.allocate(piece.guest);
                          });
  }

  Result<void> check_device(std::uint64_t size) const {
    const bool is_device = transaction_.view().status().kind == io::FileKind::block_device;
    if (is_device && transaction_.size_after() > size)
      return fail(ErrorCode::refused,
                  fmt::format("the device has {} bytes and needs {}: make it larger first", size,
                              transaction_.size_after()));
    return {};
  }

  Result<void> fill_cost(const AddedClusters& added, const check::CheckResult& before,
                         const check::CheckResult& after) {
    Cost& cost = pull_.cost;
    cost.metadata_bytes = transaction_.changed_bytes();
    cost.added = added;
    cost.cluster_size = chain_.layers().front().qcow2().header().cluster_size();
    cost.image_end_before = before.counts.image_end_offset;
    cost.image_end_after = after.counts.image_end_offset;
    cost.file_size_before = transaction_.size_before();
    cost.file_size_after = transaction_.size_after();
    cost.side_file_bytes = TRY(edit::Journal::size_of(transaction_));
    return {};
  }

  Result<void> fill_change() {
    pull_.change = {.verb = "pull",
                    .keeps_undo = false,
                    .operation = edit::Operation::pull,
                    .argument = pull_argument(base_node()),
                    .digest = TRY(digest_of(transaction_, nodes_below()))};
    return {};
  }

  void fill_data(const ImageEditor& editor) {
    pull_.data.ranges = editor.fresh_data();
    std::sort(pull_.data.ranges.begin(), pull_.data.ranges.end(),
              [](const HostRange& a, const HostRange& b) { return a.begin < b.begin; });
    pull_.data.write = [&transaction = transaction_, &chain = chain_, options = options_,
                        total = pull_.cost.written_bytes](edit::FreshWriter& writer) {
      return DataWriter(chain, transaction, options.progress, total)
          .write(writer, {options.base, options.onto}, options.workers);
    };
  }

  edit::Transaction& transaction_;
  const Chain& chain_;
  const PullOptions& options_;
  Pull pull_;
};

}  // namespace

std::uint64_t pull_argument(const graph::Node* base) {
  return base == nullptr ? 0 : base->file->status().lasting_identity.inode;
}

Result<Pull> plan_pull(edit::Transaction& transaction, const graph::Chain& chain,
                       const PullOptions& options) {
  return Planner(transaction, chain, options).plan();
}

}  // namespace coldchain::ops
