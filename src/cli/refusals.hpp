// SPDX-License-Identifier: MIT
// Images that QEMU refuses to open and that are looked at all the same.
#pragma once

#include "world.hpp"

#include <string>

#include <coldchain/finding/finding.hpp>
#include <coldchain/graph/node.hpp>

namespace coldchain::cli {

// If one of the findings says that QEMU refuses the image, tells so in one line, with the command
// that says more. `path` is where the image lies on this machine. Says whether it does.
bool tell_refusal(const finding::Findings& findings, const std::string& path, World& world);

// The same of all images of a chain that are open. QEMU opens the chain if it does so for each.
bool tell_refusals(const graph::Node& top, World& world);

// The same of one image that was opened for a check, which extensions of its header do not stop.
bool tell_refusal_of_damaged(const graph::Node& image, World& world);

}  // namespace coldchain::cli
