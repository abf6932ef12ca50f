// SPDX-License-Identifier: MIT
// --disk: the disks of a machine, from its libvirt XML.
#pragma once

#include "common_options.hpp"

#include <optional>
#include <string>
#include <vector>

#include <coldchain/graph/libvirt_domain.hpp>

namespace coldchain::cli {

struct DiskOptions {
  std::optional<std::string> file;  // the XML
  std::vector<std::string> pools;   // NAME=DIR
};

void add_disk_options(CommandLine app, DiskOptions& options);

// The disks with these targets, or all. Errors name the file.
[[nodiscard]] Result<std::vector<graph::DomainDisk>> read_disks(
    const DiskOptions& options, const std::vector<std::string>& targets, const World& world);

// Opens a disk, with a finding for each layer that its image records differently.
[[nodiscard]] Result<OpenedTree> open_disk(const CommonOptions& common, const DiskOptions& options,
                                           const graph::DomainDisk& disk, const World& world);

}  // namespace coldchain::cli
