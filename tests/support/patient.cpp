// SPDX-License-Identifier: MIT
#include "patient.hpp"

#include <algorithm>

#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>
#include <coldchain/qcow2/wire.hpp>

namespace coldchain::testing {

Patient::Patient(Bytes image)
    : bytes_(std::move(image)), header_(qcow2::decode_header(bytes_).value()) {}

std::uint64_t Patient::number(std::uint64_t offset, unsigned bytes) const {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i)
    value = value << 8 | std::to_integer<std::uint64_t>(bytes_.at(offset + i));
  return value;
}

void Patient::set_number(std::uint64_t offset, unsigned bytes, std::uint64_t value) {
  for (unsigned i = 0; i < bytes; ++i)
    bytes_.at(offset + i) = static_cast<std::byte>(value >> (8 * (bytes - 1 - i)));
}

std::uint64_t Patient::l1_entry(std::uint64_t index) const {
  return header_.l1_table_offset + 8 * index;
}

std::uint64_t Patient::l2_entry(std::uint64_t guest_cluster) const {
  const qcow2::Geometry geometry(header_);
  const std::uint64_t table =
      at(l1_entry(guest_cluster / geometry.l2_entries())) & qcow2::offset_mask;
  return table + guest_cluster % geometry.l2_entries() * geometry.l2_entry_bytes();
}

std::uint64_t Patient::subclusters(std::uint64_t guest_cluster) const {
  return l2_entry(guest_cluster) + 8;
}

std::uint64_t Patient::refcount_table_entry(std::uint64_t index) const {
  return header_.refcount_table_offset + 8 * index;
}

void Patient::move_to_end(std::uint64_t first_guest_cluster, std::uint64_t count) {
  for (std::uint64_t guest = first_guest_cluster; guest < first_guest_cluster + count; ++guest)
    move_named_to_end(l2_entry(guest));
}

void Patient::move_named_to_end(std::uint64_t pointer) {
  const std::uint64_t from = at(pointer) & qcow2::offset_mask;
  const std::uint64_t to = bytes_.size();
  bytes_.resize(to + cluster_size());
  std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(from), cluster_size(),
              bytes_.begin() + static_cast<std::ptrdiff_t>(to));
  set_refcount(from / cluster_size(), 0);
  set_refcount(to / cluster_size(), 1);
  set(pointer, (at(pointer) & ~qcow2::offset_mask) | to);
}

std::uint64_t Patient::bitmap_directory() const {
  const qcow2::Extension* extension = header_.find_extension(qcow2::extension::bitmaps);
  return load<qcow2::wire::BitmapsExtension>(extension->data, 0)->bitmap_directory_offset.get();
}

std::uint64_t Patient::bitmap_table() const {
  return at(bitmap_directory());
}

std::uint64_t Patient::counts_per_block() const {
  return (8 * cluster_size()) >> header_.refcount_order;
}

// The block that has the count of `cluster`.
std::uint64_t Patient::refcount_block(std::uint64_t cluster) const {
  return at(refcount_table_entry(cluster / counts_per_block()));
}

std::uint64_t Patient::refcount(std::uint64_t cluster) const {
  return qcow2::refcount_at(ByteView(bytes_).subspan(refcount_block(cluster), cluster_size()),
                            header_.refcount_order, cluster % counts_per_block());
}

void Patient::set_refcount(std::uint64_t cluster, std::uint64_t value) {
  qcow2::set_refcount_at(ByteSpan(bytes_).subspan(refcount_block(cluster), cluster_size()),
                         header_.refcount_order, cluster % counts_per_block(), value);
}

std::uint64_t Patient::host_cluster(std::uint64_t guest_cluster) const {
  return (at(l2_entry(guest_cluster)) & qcow2::offset_mask) / cluster_size();
}

void Patient::set_header(const std::function<void(qcow2::Header&)>& change) {
  change(header_);
  const Bytes encoded = qcow2::encode_header(header_);
  std::copy(encoded.begin(), encoded.end(), bytes_.begin());
}

}  // namespace coldchain::testing
