// SPDX-License-Identifier: MIT
// Names for commands that somebody is advised to run: they are pasted, and must lead to the same
// file without the root, sysroot or options of this run.
#pragma once

#include <string>

#include <coldchain/edit/side_files.hpp>
#include <coldchain/graph/node.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::cli {

// Where the file of a node that was opened lies on this machine; its name where nobody knows.
[[nodiscard]] std::string host_path(const graph::Node& node);

// Notes in the folders which --root or --sysroot a command needs that is to find the same files.
// Side files are read by the same rule for access times.
void note_confines(edit::SideFolders& folders, const io::OpenPolicy& policy);

// The file of a node as the operand of a command, with these options.
[[nodiscard]] std::string operand_of(const graph::Node& node, const edit::SideFolders& folders);

// A path as one word of a shell command, which is not taken for a protocol or an option.
[[nodiscard]] std::string word_for_path(const std::string& path);

}  // namespace coldchain::cli
