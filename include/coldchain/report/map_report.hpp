// SPDX-License-Identifier: MIT
// `map`: extents as qemu-img 7.2 prints them, in text and JSON, written as they come; with
// provenance, every extent with its layer; and a summary per layer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <coldchain/analysis/map.hpp>
#include <coldchain/analysis/unreadable.hpp>
#include <coldchain/analysis/usage.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

// What the map says of a layer besides its number.
struct MapLayer {
  std::size_t index = 0;      // as `tree` counts
  std::string filename;       // of the image
  std::string host_filename;  // where its data lies: the same, or the external data file
  std::string format;
};

[[nodiscard]] std::vector<MapLayer> map_layers(const graph::Chain& chain);

// What no layer of the map provides: it reads as zeros, or a layer below that is not shown decides.
enum class Absent { reads_as_zeros, is_below };
[[nodiscard]] Absent absent_of(const graph::Chain& chain);

// Prints one extent per line, in JSON or text; qemu-img's form unless `provenance`.
class MapWriter {
 public:
  enum class Form { qemu_text, qemu_json, provenance_text, provenance_json };

  MapWriter(Form form, std::vector<MapLayer> layers, Absent absent, const Sink& sink);

  // `start` is where the map begins; qemu-img names it even if there is nothing to map.
  [[nodiscard]] Result<void> begin(std::uint64_t start);
  // Fails, as qemu-img does, for compressed and encrypted clusters in qemu_text.
  [[nodiscard]] Result<void> write(std::span<const analysis::Extent> extents);
  [[nodiscard]] Result<void> end();

 private:
  [[nodiscard]] Result<void> flush();
  [[nodiscard]] Result<void> append_qemu_text(const analysis::Extent& extent);
  // Joins extents that qemu-img prints as one, and prints the others.
  [[nodiscard]] Result<void> join(std::span<const analysis::Extent> extents);
  [[nodiscard]] Result<void> print_joined();
  [[nodiscard]] Result<void> print(std::span<const analysis::Extent> extents);
  void append_json(std::span<const analysis::Extent> extents);
  void append_provenance_text(const analysis::Extent& extent);

  [[nodiscard]] std::string_view provenance_members(const analysis::Extent& extent) const;

  // JSON members that name a layer, behind the one that tells whether the extent is compressed.
  struct LayerMembers {
    std::string plain;
    std::string compressed;
  };

  Form form_;
  std::vector<MapLayer> layers_;
  Absent absent_;
  std::vector<LayerMembers> layer_members_;
  std::size_t longest_tail_ = 0;  // of the members that provenance adds
  const Sink* sink_;
  std::string out_;
  std::uint64_t start_ = 0;
  bool first_ = true;
  // In qemu-img's forms: the last extent, which the next one may continue.
  std::optional<analysis::Extent> joined_;
  analysis::UnreadableRanges unreadable_;  // of joined_
};

[[nodiscard]] Result<void> write_summary_text(const std::vector<MapLayer>& layers,
                                              const analysis::Provision& provision, Absent absent,
                                              const Style& style, const Sink& sink);
[[nodiscard]] Result<void> write_summary_json(const std::vector<MapLayer>& layers,
                                              const analysis::Provision& provision,
                                              const Sink& sink);

}  // namespace coldchain::report
