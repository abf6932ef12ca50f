// SPDX-License-Identifier: MIT
// What can be said of a link between two images, alike for one chain and for a folder.
#pragma once

#include <cstdint>
#include <string>

#include <coldchain/base/error.hpp>
#include <coldchain/finding/finding.hpp>
#include <coldchain/graph/name.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::graph {

// Why a file that a link names could not be opened.
[[nodiscard]] finding::Code link_code(const Error& error);

// What the header says of the backing file. A recorded format stands above what a json: name says,
// as for QEMU: it is what keeps a raw disk raw. `header` has a backing file.
[[nodiscard]] Result<NameSpec> recorded_backing(const qcow2::Header& header);

// Whether it is a relative name that QEMU resolves against its current directory, and we against
// the overlay's.
[[nodiscard]] bool is_ambiguous(const NameSpec& spec);

// The name of the file at `path` as QEMU's probe sees it: with its protocol, and none where options
// name the file.
[[nodiscard]] std::string probed_name(const NameSpec& spec, const std::string& path);

struct LinkEnd {
  std::uint64_t guest_size = 0;
  io::Timestamp modified;
};

// Sizes that differ, and a backing file that was modified after its overlay.
[[nodiscard]] finding::Findings compare_ends(const LinkEnd& overlay, const LinkEnd& backing);

}  // namespace coldchain::graph
