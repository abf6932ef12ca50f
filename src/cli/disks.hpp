// SPDX-License-Identifier: MIT
// --disk: the disks of a machine, from its libvirt XML. An IMAGE is then the name of a disk or of
// one of its layers.
#pragma once

#include "common_options.hpp"

#include <optional>
#include <string>
#include <vector>

#include <coldchain/graph/layer_names.hpp>

namespace coldchain::cli {

struct DiskOptions {
  std::optional<std::string> file;  // the XML
  std::vector<std::string> pools;   // NAME=DIR
  bool renumber = false;
};

void add_disk_options(CommandLine app, DiskOptions& options);

// An error for options that go with --disk only, or that do not go with it.
[[nodiscard]] Result<void> check_disk_options(const CommonOptions& common,
                                              const DiskOptions& options);

// A word of the command line, and the disk that it belongs to.
struct NamedDisk {
  std::string word;  // "vda", "vda[1]", "virtio-disk0[0]"
  graph::DomainDisk disk;
};

// The disks that the words name, or all. Errors name the file.
[[nodiscard]] Result<std::vector<NamedDisk>> read_disks(const DiskOptions& options,
                                                        const std::vector<std::string>& words,
                                                        const World& world);

struct OpenedDisk {
  OpenedTree tree;  // from the layer that the word names
  std::vector<graph::LayerName>
      names;  // the names of the layers, the top first; empty without --disk
};

// Opens a disk from the layer that its word names, with a finding for each layer that its image
// records differently. Warns where the word is a position, and the XML has another index.
[[nodiscard]] Result<OpenedDisk> open_disk(const CommonOptions& common, const DiskOptions& options,
                                           const NamedDisk& named, World& world);

// Opens IMAGE: with --disk by its name there, otherwise as open_tree() with all links.
[[nodiscard]] Result<OpenedDisk> open_operand(const CommonOptions& common,
                                              const DiskOptions& options, const std::string& image,
                                              World& world);

}  // namespace coldchain::cli
