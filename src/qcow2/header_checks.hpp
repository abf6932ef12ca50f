// SPDX-License-Identifier: MIT
// The checks of the header by which an image is refused, in QEMU's order and with QEMU's words in
// front: QEMU block/qcow2.c, qcow2_do_open(). What QEMU reports first is reported first. Our detail
// follows: the field, its offset in the file and its value.
// Images with unknown incompatible features are described, so little is asked of them.
#pragma once

#include <coldchain/base/result.hpp>
#include <coldchain/qcow2/header.hpp>

namespace coldchain::qcow2 {

enum class HeaderRules : std::uint8_t {
  decodable,  // only what the rest of the decoding needs
  for_check,  // what QEMU asks before a check
  for_use,    // what QEMU asks before it reads guest data
};

// decode_header() and read_header(), and the checks at their place among the errors of decoding.
[[nodiscard]] Result<Header> decode_header(ByteView first_cluster, HeaderRules rules);
[[nodiscard]] Result<Header> read_header(const io::File& file, HeaderRules rules);

// Fixed fields, which QEMU checks before it reads the extensions.
[[nodiscard]] Result<void> check_fields(const Header& header, HeaderRules rules);
// The width of a refcount, without which no refcount can be read.
[[nodiscard]] Result<void> check_refcount_order(const Header& header);
// What QEMU checks after the extensions.
[[nodiscard]] Result<void> check_data_file_bit(const Header& header);
[[nodiscard]] Result<void> check_disk_size(const Header& header);

// A table of an image, and the field that says where it is.
struct TablePlace {
  const char* table;
  const char* field;
  std::uint64_t offset;
  std::uint64_t bytes;
  std::uint64_t max_bytes;
};

// A table must end below 2^63 and lie on a cluster boundary, even if it is empty.
[[nodiscard]] Result<void> check_table(const Header& header, const TablePlace& place);

}  // namespace coldchain::qcow2
