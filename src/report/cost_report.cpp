// SPDX-License-Identifier: MIT
#include "cost_report.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>

#include <fmt/format.h>

namespace coldchain::report {

std::string plan_line(std::string_view name, const std::string& text) {
  return fmt::format("{:<12}{}\n", name, text);
}

std::string cost_lines(const ops::Cost& cost) {
  std::string out;
  for (const ops::SourceCost& source : cost.sources)
    out += plan_line("read", fmt::format("{} bytes in {} extents of {}", source.bytes,
                                         source.extents, to_terminal(source.filename)));
  out += plan_line("written", fmt::format("{} bytes of guest data, {} bytes of metadata",
                                          cost.written_bytes, cost.metadata_bytes));
  out += plan_line("zeroed", fmt::format("{} bytes become explicit zeros", cost.zeroed_bytes));
  if (!cost.unreadable.empty())
    out += plan_line("unreadable",
                     fmt::format("{} bytes are taken as zeros", cost.unreadable.bytes()));
  if (cost.cluster_size != 0)
    out += plan_line(
        "added",
        fmt::format(
            "{} data clusters, {} L2 tables, {} clusters of refcounts{}, "
            "of {} bytes each",
            cost.added.data, cost.added.l2_tables, cost.added.refcounts,
            cost.added.others == 0 ? "" : fmt::format(", {} of other tables", cost.added.others),
            cost.cluster_size));
  out +=
      plan_line("image end", fmt::format("{} -> {}", cost.image_end_before, cost.image_end_after));
  out +=
      plan_line("file size", fmt::format("{} -> {}", cost.file_size_before, cost.file_size_after));
  out += plan_line("side file", fmt::format("{} bytes meanwhile", cost.side_file_bytes));
  return out;
}

std::string unreadable_warnings(const ops::Cost& cost) {
  std::string out;
  for (const analysis::UnreadableRange& range : cost.unreadable.ranges())
    out += fmt::format("guest range {:#x}-{:#x} cannot be read ({}) and is taken as zeros\n",
                       range.guest.begin.value, range.guest.end.value,
                       analysis::to_string(range.reason));
  if (cost.unreadable.omitted() != 0)
    out += fmt::format("{} more ranges cannot be read and are taken as zeros\n",
                       cost.unreadable.omitted());
  return out;
}

void write_cost(JsonWriter& json, const ops::Cost& cost) {
  json.key("sources").begin_array();
  for (const ops::SourceCost& source : cost.sources) {
    json.begin_object().name_member("filename", source.filename);
    json.member("bytes", source.bytes).member("extents", source.extents).end_object();
  }
  json.end_array()
      .member("written-bytes", cost.written_bytes)
      .member("zeroed-bytes", cost.zeroed_bytes)
      .member("unreadable-bytes", cost.unreadable.bytes())
      .key("unreadable")
      .begin_array();
  for (const analysis::UnreadableRange& range : cost.unreadable.ranges())
    json.begin_object()
        .member("start", range.guest.begin.value)
        .member("length", range.guest.size())
        .member("depth", std::uint64_t{range.layer})
        .member("reason", analysis::to_string(range.reason))
        .end_object();
  json.end_array()
      .member("metadata-bytes", cost.metadata_bytes)
      .member("cluster-size", cost.cluster_size)
      .key("added-clusters")
      .begin_object()
      .member("data", cost.added.data)
      .member("l2-tables", cost.added.l2_tables)
      .member("refcounts", cost.added.refcounts)
      .member("others", cost.added.others)
      .end_object()
      .member("image-end-before", cost.image_end_before)
      .member("image-end-after", cost.image_end_after)
      .member("size-before", cost.file_size_before)
      .member("size-after", cost.file_size_after)
      .member("side-file-bytes", cost.side_file_bytes);
}

void write_planned(JsonWriter& json, const Planned& planned) {
  const auto is_text = [](const std::string& word) { return is_valid_utf8(word); };
  if (planned.command.empty() ||
      !std::all_of(planned.command.begin(), planned.command.end(), is_text))
    return;
  write_names(json, "command", planned.command);
  json.key("images").begin_array();
  for (const PlannedImage& image : planned.images)
    json.begin_object()
        .name_member("filename", image.filename)
        .member("inode", image.status.lasting_identity.inode)
        .member("size", image.status.size)
        .member("modified", fmt::format("{}.{:09}", image.status.modified.seconds,
                                        image.status.modified.nanoseconds))
        .end_object();
  json.end_array();
}

std::string dirty_bitmap_warnings(const std::vector<ops::DirtyBitmap>& bitmaps,
                                  std::string_view image) {
  std::string out;
  for (const ops::DirtyBitmap& bitmap : bitmaps)
    out += fmt::format("bitmap {} of {} marks the whole disk from now on: {}\n",
                       to_terminal(bitmap.name), image, to_terminal(bitmap.reason));
  return out;
}

void write_not_needed(JsonWriter& json, const std::vector<ops::LayerStorage>& layers) {
  json.key("not-needed").begin_array();
  for (const ops::LayerStorage& layer : layers)
    json.begin_object()
        .name_member("filename", layer.filename)
        .member("allocated", layer.allocated)
        .end_object();
  json.end_array();
}

void write_dirty_bitmaps(JsonWriter& json, const std::vector<ops::DirtyBitmap>& bitmaps) {
  json.key("bitmaps-dirty").begin_array();
  for (const ops::DirtyBitmap& bitmap : bitmaps)
    json.begin_object().member("name", bitmap.name).member("reason", bitmap.reason).end_object();
  json.end_array();
}

void write_names(JsonWriter& json, std::string_view key, const std::vector<std::string>& names) {
  json.key(key).begin_array();
  for (const std::string& name : names)
    json.value(name);
  json.end_array();
}

}  // namespace coldchain::report
