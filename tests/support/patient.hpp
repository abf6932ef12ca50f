// SPDX-License-Identifier: MIT
// An image that is to be damaged, by what its bytes mean.
#pragma once

#include <cstdint>
#include <functional>

#include <coldchain/qcow2/header.hpp>

namespace coldchain::testing {

// The bytes of an image with its tables at hand.
class Patient {
 public:
  explicit Patient(Bytes image);

  [[nodiscard]] const qcow2::Header& header() const { return header_; }
  [[nodiscard]] const Bytes& bytes() const { return bytes_; }
  [[nodiscard]] std::uint64_t cluster_size() const { return header_.cluster_size(); }

  [[nodiscard]] std::uint64_t number(std::uint64_t offset, unsigned bytes) const;
  void set_number(std::uint64_t offset, unsigned bytes, std::uint64_t value);
  [[nodiscard]] std::uint64_t at(std::uint64_t offset) const { return number(offset, 8); }
  void set(std::uint64_t offset, std::uint64_t value) { set_number(offset, 8, value); }

  [[nodiscard]] std::uint64_t l1_entry(std::uint64_t index = 0) const;  // where it lies
  [[nodiscard]] std::uint64_t l2_entry(std::uint64_t guest_cluster) const;
  [[nodiscard]] std::uint64_t subclusters(std::uint64_t guest_cluster) const;
  [[nodiscard]] std::uint64_t refcount_table_entry(std::uint64_t index = 0) const;
  [[nodiscard]] std::uint64_t snapshot_entry() const { return header_.snapshots_offset; }
  [[nodiscard]] std::uint64_t bitmap_directory() const;
  [[nodiscard]] std::uint64_t bitmap_table() const;

  [[nodiscard]] std::uint64_t refcount(std::uint64_t cluster) const;
  void set_refcount(std::uint64_t cluster, std::uint64_t value);
  // The host cluster of a standard guest cluster.
  [[nodiscard]] std::uint64_t host_cluster(std::uint64_t guest_cluster) const;

  void set_header(const std::function<void(qcow2::Header&)>& change);
  void resize(std::uint64_t size) { bytes_.resize(size); }
  // Moves the data of guest clusters to the end of the file, behind all tables.
  void move_to_end(std::uint64_t first_guest_cluster, std::uint64_t count);
  // The same of the cluster that the 8 bytes at `pointer` name: they keep their flags.
  void move_named_to_end(std::uint64_t pointer);

 private:
  [[nodiscard]] std::uint64_t counts_per_block() const;
  [[nodiscard]] std::uint64_t refcount_block(std::uint64_t cluster) const;

  Bytes bytes_;
  qcow2::Header header_;
};

}  // namespace coldchain::testing
