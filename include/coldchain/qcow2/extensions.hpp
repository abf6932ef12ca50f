// SPDX-License-Identifier: MIT
// What QEMU asks of the header extensions that it knows before it opens an image. Decoding accepts
// any, so that a check and a repair can look at an image that nothing else opens.
// qcow2.rst, "Bitmaps extension", "Full disk encryption header pointer".
#pragma once

#include <string>

#include <coldchain/base/result.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/wire.hpp>

namespace coldchain::qcow2 {

// Fails where QEMU refuses the image, with QEMU's words and the number. QEMU looks at each
// extension, also at one that a later one of the same type replaces.
[[nodiscard]] Result<void> check_extensions(const Header& header);

// The fields of a bitmaps extension. Fails as above; of one that the autoclear bit calls stale only
// the length counts.
[[nodiscard]] Result<wire::BitmapsExtension> decode_bitmaps_extension(const Extension& extension,
                                                                      const Header& header);

// The unknown incompatible features, in QEMU's words: the names that the image has for them, then
// the bits without a name.
[[nodiscard]] std::string unsupported_features(const Header& header);

}  // namespace coldchain::qcow2
