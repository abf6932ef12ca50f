// SPDX-License-Identifier: MIT
#include "cut_streams.hpp"

#include <algorithm>

#include <coldchain/analysis/map.hpp>
#include <coldchain/analysis/refusal.hpp>
#include <coldchain/analysis/usage.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::analysis {

namespace {

using finding::Code;
using qcow2::RunKind;

struct MappingUsage {
  OwnUsage own;
  HostOffset end;                     // of the highest table or standard cluster in the image file
  std::optional<std::string> damage;  // of the first table or entry that cannot be read
};

void add_run(const qcow2::Run& run, std::uint64_t data_end, bool data_in_image_file,
             MappingUsage& usage) {
  const std::uint64_t bytes = run.guest.size();
  if (run.kind == RunKind::data) {
    const std::uint64_t readable = std::min(bytes, data_end - std::min(data_end, run.host.value));
    usage.own.data += readable;
    usage.own.unreadable += bytes - readable;
  } else if (qcow2::is_lost(run.unreadable)) {
    usage.own.unreadable += bytes;
  } else if (run.kind == RunKind::compressed) {
    usage.own.compressed += bytes;
  } else if (qcow2::is_allocated(run.kind)) {
    usage.own.zero += bytes;
  }
  if (qcow2::has_host(run.kind) && data_in_image_file)
    usage.end = std::max(usage.end, run.host + bytes);
}

Result<MappingUsage> read_mapping(const qcow2::Image& image) {
  const qcow2::Mapping mapping = TRY(image.active_mapping());
  const qcow2::Geometry& geometry = mapping.geometry();
  MappingUsage usage;
  for (const be64& raw : mapping.l1()) {
    const qcow2::L1Entry entry(raw.get());
    if (entry.has_l2_table() && raw.get() != qcow2::unread_l1_entry)
      usage.end = std::max(usage.end, entry.l2_table() + geometry.cluster_size());
  }
  const bool data_in_image_file = !image.header().has_data_file();
  CutStreams cut_streams;
  qcow2::Mapping::Cursor cursor;
  std::vector<qcow2::Run> runs;
  const GuestOffset end{mapping.guest_size()};
  for (GuestOffset at = mapping.next_described({0}, end); at < end;) {
    const GuestOffset until =
        std::min(end, GuestOffset{(geometry.l1_index(at) + 1) * geometry.l2_coverage()});
    runs.clear();
    mapping.runs({at, until}, cursor, runs);
    for (const qcow2::Run& run : runs) {
      if (run.unreadable == qcow2::Unreadable::undecided)
        TRY(cut_streams.for_each_cluster(
            image, mapping, run.guest,
            [&, part = run](GuestRange guest, qcow2::Unreadable state) mutable -> Result<void> {
              part.guest = guest;
              part.unreadable = state;
              add_run(part, mapping.data_end(), data_in_image_file, usage);
              return {};
            }));
      else
        add_run(run, mapping.data_end(), data_in_image_file, usage);
      if (run.kind == RunKind::unknown && !usage.damage) {
        const Result<qcow2::Location> location = mapping.locate(run.guest.begin, cursor);
        usage.damage = location ? std::string() : location.error().message;
      }
    }
    at = mapping.next_described(until, end);
  }
  // Runs are subclusters; the file is made of clusters.
  usage.end = {(usage.end.value + geometry.cluster_size() - 1) / geometry.cluster_size() *
               geometry.cluster_size()};
  return usage;
}

Result<OwnUsage> read_raw(const raw::Image& image) {
  OwnUsage usage;
  const HostRange all{image.host_offset({0}), image.host_offset({image.exact_size()})};
  for (const HostRange& range : TRY(io::data_ranges(image.file(), all)))
    usage.data += range.size();
  usage.zero = image.exact_size() - usage.data;
  return usage;
}

}  // namespace

Sizes sizes_of(const graph::Node& node) {
  Sizes sizes;
  if (!node.file)
    return sizes;
  const io::FileStatus& status = node.file->status();
  sizes.physical = status.size;
  sizes.allocation = status.kind == io::FileKind::block_device ? status.size : status.allocated;
  if (const auto* qcow2 = node.qcow2_image())
    sizes.capacity = qcow2->header().size;
  else if (const auto* raw = node.raw_image())
    sizes.capacity = raw->exact_size();
  return sizes;
}

NodeUsage usage_of(const graph::Node& node) {
  NodeUsage usage;
  if (const auto* raw = node.raw_image()) {
    if (const Result<OwnUsage> own = read_raw(*raw))
      usage.own = *own;
    else
      usage.findings.push_back({Code::image_mapping_unreadable, own.error().message});
    return usage;
  }
  const auto* image = node.qcow2_image();
  if (image == nullptr || image->header().unknown_incompatible() != 0)
    return usage;
  const Result<MappingUsage> mapping = read_mapping(*image);
  if (mapping)
    usage.own = mapping->own;
  if (!mapping || mapping->damage)
    usage.findings.push_back(
        {Code::image_mapping_unreadable, mapping ? *mapping->damage : mapping.error().message});
  if (mapping && mapping->own.unreadable != 0)
    usage.findings.push_back(
        {Code::image_data_unreadable,
         fmt::format("{} bytes of guest data cannot be read", mapping->own.unreadable)});

  const qcow2::Header& header = image->header();
  if (const auto snapshots = qcow2::read_snapshots(image->file(), header); !snapshots)
    usage.findings.push_back({Code::image_snapshots_unreadable, snapshots.error().message});
  const finding::Findings refusals = refusals_of(*image);
  usage.findings.insert(usage.findings.end(), refusals.begin(), refusals.end());
  ImageEnd end;
  end.is_lower_bound =
      !mapping || mapping->damage ||
      header.has_incompatible(qcow2::incompatible::dirty | qcow2::incompatible::corrupt);
  const Result<qcow2::Refcounts> refcounts = qcow2::Refcounts::open(image->file(), header);
  const Result<HostOffset> stored = refcounts ? refcounts->image_end() : fail(refcounts.error());
  if (stored) {
    end.offset = *stored;
  } else {
    end.is_lower_bound = true;
    usage.findings.push_back({Code::image_refcounts_unreadable, stored.error().message});
  }
  if (mapping)
    end.offset = std::max(end.offset, mapping->end);
  usage.image_end = end;
  return usage;
}

Result<Provision> provision_of(const graph::Chain& chain, GuestRange range, unsigned workers) {
  Provision provision;
  provision.layers.resize(chain.layers().size());
  TRY(map(chain, range, workers, [&](std::span<const Extent> extents) -> Result<void> {
    provision.unreadable.add(extents);
    for (const Extent& extent : extents) {
      Provided& layer = provision.layers[extent.layer];
      const std::uint64_t bytes = extent.guest.size();
      if (!extent.present)
        provision.absent += bytes;
      else if (extent.is_lost())
        layer.unreadable += bytes;
      else if (extent.compressed)
        layer.compressed += bytes;
      else
        (extent.data ? layer.data : layer.zero) += bytes;
    }
    return {};
  }));
  return provision;
}

}  // namespace coldchain::analysis
