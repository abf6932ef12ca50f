// SPDX-License-Identifier: MIT
// Changes of the header that a reader finds either as they were or whole: by one write of one
// sector. qcow2.rst, "Header", "Header extensions".
#pragma once

#include <string>

#include <coldchain/edit/transaction.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::ops {

// Of the name of the backing file.
void set_name(qcow2::Header& header, const std::string& name, std::uint64_t offset);
void clear_name(qcow2::Header& header);

// Where the extensions end.
[[nodiscard]] std::uint64_t end_of_extensions(qcow2::Header header);

// Stages `wanted` in `phase`, if what it changes of the first `end` bytes, which mean something
// now, lies in one sector. What follows is fresh.
[[nodiscard]] Result<bool> stage_header(edit::Transaction& transaction, edit::Phase phase,
                                        const qcow2::Header& wanted, std::uint64_t end);

}  // namespace coldchain::ops
