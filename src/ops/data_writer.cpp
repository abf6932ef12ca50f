// SPDX-License-Identifier: MIT
#include "data_writer.hpp"

#include "recompression.hpp"
#include "soundness.hpp"

#include <algorithm>
#include <memory>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/image.hpp>
#include <coldchain/qcow2/snapshots.hpp>

namespace coldchain::ops {

namespace {

using analysis::Extent;
using graph::Layer;

Error no_place() {
  return {ErrorCode::corrupt, "a planned cluster is not allocated", 0};
}

class DataWriter {
 public:
  DataWriter(edit::FreshWriter& writer, const Sources& sources,
             std::optional<qcow2::Mapping> mapping)
      : writer_(writer),
        sources_(sources),
        recompressed_(*sources.chain),
        reader_(std::make_shared<graph::Reader>(*sources.chain)),
        below_(sources.below != nullptr ? std::make_shared<graph::Reader>(*sources.below)
                                        : nullptr),
        mapping_(std::move(mapping)) {}

  Result<void> write(const Piece& piece) {
    if (piece.kind == PieceKind::compressed)
      return for_each_compressed(*sources_.chain, piece, [&](const CompressedCluster& cluster) {
        return write_compressed(cluster);
      });
    if (piece.kind == PieceKind::recompress)
      return for_each_recompressed(
          recompressed_, sources_.chain->layers().front().qcow2(), piece, sources_.workers,
          [&](const RecompressedCluster& cluster) { return write_recompressed(cluster); });
    find_places(piece.guest);
    auto source = piece.sources.begin();
    for (const qcow2::Run& run : runs_) {
      if (run.kind != qcow2::RunKind::data)
        return fail(no_place());
      for (GuestOffset at = run.guest.begin; at < run.guest.end;) {
        while (source->guest.end <= at)
          ++source;
        const GuestOffset end = std::min(run.guest.end, source->guest.end);
        TRY(write_extent(*source, {at, end}, run.host + (at - run.guest.begin)));
        at = end;
      }
    }
    return piece.kind == PieceKind::copy ? write_tail() : Result<void>{};
  }

 private:
  void find_places(GuestRange guest) {
    runs_.clear();
    if (mapping_)
      mapping_->runs(guest, cursor_, runs_);
    else
      runs_.push_back({guest, {guest.begin.value}, qcow2::RunKind::data});
  }

  Result<void> write_compressed(const CompressedCluster& cluster) {
    const qcow2::Location to = TRY(mapping_->locate(cluster.guest, cursor_));
    const HostRange from = cluster.bytes.sectors();
    const auto fill = [layer = cluster.layer, from](std::uint64_t done, ByteSpan bytes) {
      return read(*layer, layer->qcow2().file(), from.begin + done, bytes);
    };
    return writer_.write(TRY(place_of_stream(to, from.size())), from.size(), fill);
  }

  Result<void> write_recompressed(const RecompressedCluster& cluster) {
    const qcow2::Location to = TRY(mapping_->locate(cluster.guest.begin, cursor_));
    const std::uint64_t grain = mapping_->geometry().subcluster_size();
    if (to.kind == qcow2::RunKind::data)
      return write_bytes(to.host, cluster.content.first(align_up(cluster.guest.size(), grain)));
    return write_bytes(TRY(place_of_stream(to, cluster.stream.size())), cluster.stream);
  }

  static Result<HostOffset> place_of_stream(const qcow2::Location& planned, std::uint64_t size) {
    const HostRange sectors = planned.compressed.sectors();
    if (planned.kind != qcow2::RunKind::compressed || sectors.size() != size)
      return fail(no_place());
    return sectors.begin;
  }

  Result<void> write_bytes(HostOffset to, ByteView content) {
    const auto kept = std::make_shared<const Bytes>(content.begin(), content.end());
    const auto fill = [kept](std::uint64_t done, ByteSpan bytes) -> Result<void> {
      const ByteView some = ByteView(*kept).subspan(done, bytes.size());
      std::copy(some.begin(), some.end(), bytes.begin());
      return {};
    };
    return writer_.write(to, content.size(), fill);
  }

  static Result<void> read(const Layer& layer, const io::File& file, HostOffset from,
                           ByteSpan bytes) {
    const Result<void> done = io::read_zero_extended(file, from, bytes);
    return done ? Result<void>{} : fail(about(layer, done.error()));
  }

  // What lies behind the end of the disk may come to light when it grows.
  Result<void> write_tail() {
    const qcow2::Run& last = runs_.back();
    const std::uint64_t grain = mapping_->geometry().subcluster_size();
    const std::uint64_t tail = align_up(last.guest.end.value, grain) - last.guest.end.value;
    return tail == 0 ? Result<void>{} : writer_.write_zeros(last.host + last.guest.size(), tail);
  }

  Result<void> write_extent(const Extent& source, GuestRange guest, HostOffset to) {
    if (reads_as_zeros(source))
      return writer_.write_zeros(to, guest.size());
    const Layer& layer = sources_.chain->layers()[source.layer];
    const bool is_below = sources_.below != nullptr && source.layer >= sources_.base;
    if (source.has_host) {
      const HostOffset from = source.host + (guest.begin - source.guest.begin);
      return writer_.write(to, guest.size(), [&layer, from](std::uint64_t done, ByteSpan bytes) {
        return read(layer, layer.data_file(), from + done, bytes);
      });
    }
    const auto fill = [reader = is_below ? below_ : reader_, at = guest.begin](std::uint64_t done,
                                                                               ByteSpan bytes) {
      return reader->read(at + done, bytes);
    };
    return writer_.write(to, guest.size(), fill);
  }

  edit::FreshWriter& writer_;
  const Sources& sources_;
  graph::Reader recompressed_;
  // For what is read later, maybe by another thread, which keeps them.
  std::shared_ptr<graph::Reader> reader_;
  std::shared_ptr<graph::Reader> below_;
  std::optional<qcow2::Mapping> mapping_;
  qcow2::Mapping::Cursor cursor_;
  std::vector<qcow2::Run> runs_;
};

Result<qcow2::Mapping> mapping_of(const qcow2::Image& image, const std::optional<std::string>& id) {
  if (!id)
    return image.active_mapping();
  const auto snapshots = TRY(qcow2::read_snapshots(image.file(), image.header()));
  const qcow2::Snapshot* snapshot = qcow2::find_snapshot(snapshots, *id);
  if (snapshot == nullptr)
    return fail(ErrorCode::corrupt, "an internal snapshot that was planned is not there");
  return image.snapshot_mapping(*snapshot);
}

}  // namespace

Result<void> write_pieces(edit::FreshWriter& writer, const Sources& sources, const Target& target,
                          const PieceSource& pieces, Course& course) {
  std::optional<qcow2::Image> image;
  std::optional<qcow2::Mapping> mapping;
  if (target.result != nullptr) {
    image = TRY(qcow2::Image::open(*target.result));
    mapping = TRY(mapping_of(*image, target.snapshot));
  }
  DataWriter data(writer, sources, std::move(mapping));
  // Time counts from here. To stop is asked for where there is something to keep.
  if (course.progress)
    (void)course.progress(course.point);
  const auto write = [&](const Piece& piece) -> Result<void> {
    if (piece.sources.empty())
      return {};
    TRY(writer.begin(target.cursor + piece.guest.end.value));
    TRY(data.write(piece));
    TRY(writer.end());
    course.point.done += piece.guest.size();
    course.point.found += writer.is_new() ? 0 : piece.guest.size();
    if (course.progress && !course.progress(course.point)) {
      TRY(writer.flush());
      return fail(ErrorCode::interrupted, "interrupted");
    }
    return {};
  };
  TRY(pieces(write));
  return writer.flush();
}

}  // namespace coldchain::ops
