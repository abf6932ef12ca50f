// SPDX-License-Identifier: MIT
// Builds qcow2 images, healthy or damaged, in a few readable lines, without QEMU. Used by tests, by
// fuzz seeds, by the tour and by the benchmarks. Host clusters are handed out one after the other
// in the order of the calls; metadata comes behind the data.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/snapshots.hpp>

namespace coldchain::testing {

// A file as pieces with holes between them.
struct SparseBytes {
  std::map<std::uint64_t, Bytes> pieces;  // by offset, not overlapping
  std::uint64_t size = 0;

  [[nodiscard]] Bytes flat() const;
  void write_to(const std::string& path) const;  // throws std::runtime_error
};

struct ImageOptions {
  std::uint32_t version = 3;
  std::uint32_t cluster_bits = 16;
  std::uint32_t refcount_order = 4;
  bool extended_l2 = false;
  qcow2::CompressionType compression = qcow2::CompressionType::zlib;
  std::uint64_t size = 1 << 20;  // virtual size, bytes
  std::string backing_file;
  std::string backing_format;
  std::string data_file;
  bool data_file_raw = false;
};

class ImageBuilder {
 public:
  explicit ImageBuilder(ImageOptions options);

  // Clusters of the guest by index. `fill` is what every byte of the cluster is; without it the
  // host cluster is left as a hole.
  ImageBuilder& data(std::uint64_t cluster, std::uint8_t fill);
  ImageBuilder& data_hole(std::uint64_t cluster);
  ImageBuilder& zero(std::uint64_t cluster);
  ImageBuilder& zero_reserved(std::uint64_t cluster);
  ImageBuilder& compressed(std::uint64_t cluster, std::uint8_t fill);
  // Extended L2: which of the 32 subclusters are allocated and which read as zeros. A host cluster
  // is there if `with_host`.
  ImageBuilder& subclusters(std::uint64_t cluster, std::uint32_t allocated, std::uint32_t zero,
                            std::uint8_t fill, bool with_host = true);
  // An L2 entry as it is; nothing is counted or written for it.
  ImageBuilder& raw_entry(std::uint64_t cluster, std::uint64_t entry, std::uint64_t bitmap = 0);
  // An L2 table even if none of its clusters is mapped.
  ImageBuilder& table(std::uint64_t l1_index);

  // Data host clusters are handed out from a shuffled supply of `count`, drawn with `seed`.
  ImageBuilder& shuffle(std::uint64_t count, std::uint64_t seed);

  ImageBuilder& snapshot(const std::string& id, const std::string& name);
  ImageBuilder& bitmap(const std::string& name, std::uint32_t flags);
  ImageBuilder& extension(std::uint32_t type, const Bytes& data);
  // Called with the finished header before it is written.
  ImageBuilder& patch_header(std::function<void(qcow2::Header&)> patch);

  [[nodiscard]] SparseBytes build() const;
  // The content of the external data file.
  [[nodiscard]] const SparseBytes& data_file() const { return data_file_; }

  [[nodiscard]] std::uint64_t cluster_size() const { return 1ULL << options_.cluster_bits; }

 private:
  struct Entry {
    std::uint64_t descriptor = 0;
    std::uint64_t bitmap = 0;
  };
  using Entries = std::map<std::uint64_t, Entry>;  // by guest cluster

  [[nodiscard]] std::uint64_t allocate(std::uint64_t guest_cluster);
  void count(std::uint64_t offset, std::uint64_t bytes);
  void fill_cluster(std::uint64_t offset, std::uint8_t fill);

  [[nodiscard]] SparseBytes finish();
  [[nodiscard]] std::uint64_t take(std::uint64_t bytes);
  void put(std::uint64_t offset, Bytes bytes);
  [[nodiscard]] qcow2::Header fixed_header() const;
  [[nodiscard]] std::uint64_t write_tables(const qcow2::Header& header, const Entries& entries,
                                           const std::vector<std::uint64_t>& empty_tables);
  void write_snapshots(qcow2::Header& header);
  static void add_text_extension(qcow2::Header& header, std::uint32_t type,
                                 const std::string& text);
  void write_bitmaps(qcow2::Header& header);
  void write_refcounts(qcow2::Header& header);

  ImageOptions options_;
  SparseBytes file_;
  SparseBytes data_file_;
  Entries entries_;
  std::vector<std::uint64_t> empty_tables_;
  std::vector<std::uint64_t> supply_;  // shuffled host clusters
  std::uint64_t next_cluster_ = 1;
  std::uint64_t compressed_at_ = 0;  // where the last compressed stream ended
  std::map<std::uint64_t, std::uint64_t> refcounts_;
  std::vector<std::pair<qcow2::Snapshot, Entries>> snapshots_;
  std::vector<qcow2::Bitmap> bitmaps_;
  std::vector<qcow2::Extension> extensions_;
  std::vector<std::function<void(qcow2::Header&)>> patches_;
};

}  // namespace coldchain::testing
