// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>
#include <coldchain/report/pull_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

std::string line(std::string_view name, const std::string& text) {
  return fmt::format("{:<12}{}\n", name, text);
}

void write_names(JsonWriter& json, std::string_view key, const std::vector<std::string>& names) {
  json.key(key).begin_array();
  for (const std::string& name : names)
    json.value(name);
  json.end_array();
}

}  // namespace

std::string pull_warnings(const PullFacts& facts) {
  std::string out;
  for (const std::string& snapshot : facts.pull->snapshots)
    out += fmt::format("internal snapshot {} reads something else afterwards\n",
                       to_terminal(snapshot));
  for (const std::string& bitmap : facts.pull->bitmaps)
    out += fmt::format("bitmap {} stays there: what it recorded is not part of the image's\n",
                       to_terminal(bitmap));
  return out;
}

std::string pull_text(const PullFacts& facts) {
  const ops::Cost& cost = facts.pull->cost;
  std::string out = line("image", to_terminal(facts.image));
  out += line("backing", facts.backing_file ? to_terminal(*facts.backing_file) : "none");
  for (const ops::SourceCost& source : cost.sources)
    out += line("read", fmt::format("{} bytes in {} extents of {}", source.bytes, source.extents,
                                    to_terminal(source.filename)));
  out += line("written", fmt::format("{} bytes of guest data, {} bytes of metadata",
                                     cost.written_bytes, cost.metadata_bytes));
  out += line("zeroed", fmt::format("{} bytes become explicit zeros", cost.zeroed_bytes));
  out += line("added", fmt::format("{} data clusters, {} L2 tables, {} clusters of refcounts, of "
                                   "{} bytes each",
                                   cost.added.data, cost.added.l2_tables, cost.added.refcounts,
                                   cost.cluster_size));
  out += line("image end", fmt::format("{} -> {}", cost.image_end_before, cost.image_end_after));
  out += line("file size", fmt::format("{} -> {}", cost.file_size_before, cost.file_size_after));
  out += line("side file", fmt::format("{} bytes meanwhile", cost.side_file_bytes));
  for (const std::string& layer : facts.pull->freed_layers)
    out += line("not needed", fmt::format("{}, by this image", to_terminal(layer)));
  if (facts.is_plan)
    return out + "Nothing has been written.\n";
  return out + (cost.metadata_bytes == 0 ? "Nothing had to be done.\n" : "");
}

std::string pull_json(const PullFacts& facts) {
  const ops::Cost& cost = facts.pull->cost;
  JsonWriter json;
  json.begin_object().member("schema", "coldchain.pull").member("version", 1);
  json.member("is-plan", facts.is_plan);
  json.name_member("filename", facts.image);
  if (facts.backing_file)
    json.name_member("backing-filename", *facts.backing_file);
  json.key("sources").begin_array();
  for (const ops::SourceCost& source : cost.sources) {
    json.begin_object().name_member("filename", source.filename);
    json.member("bytes", source.bytes).member("extents", source.extents).end_object();
  }
  json.end_array()
      .member("written-bytes", cost.written_bytes)
      .member("zeroed-bytes", cost.zeroed_bytes)
      .member("metadata-bytes", cost.metadata_bytes)
      .member("cluster-size", cost.cluster_size)
      .key("added-clusters")
      .begin_object()
      .member("data", cost.added.data)
      .member("l2-tables", cost.added.l2_tables)
      .member("refcounts", cost.added.refcounts)
      .end_object()
      .member("image-end-before", cost.image_end_before)
      .member("image-end-after", cost.image_end_after)
      .member("size-before", cost.file_size_before)
      .member("size-after", cost.file_size_after)
      .member("side-file-bytes", cost.side_file_bytes);
  write_names(json, "not-needed", facts.pull->freed_layers);
  write_names(json, "snapshots-changed", facts.pull->snapshots);
  write_names(json, "bitmaps-left", facts.pull->bitmaps);
  json.end_object();
  return json.take() + "\n";
}

}  // namespace coldchain::report
