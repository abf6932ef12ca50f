// SPDX-License-Identifier: MIT
// An error of an image or of a link of its backing tree, as data. Readers add findings and
// continue. `report` has the wording for people; the repairs are elsewhere.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <coldchain/base/offsets.hpp>
#include <coldchain/finding/catalogue.hpp>

namespace coldchain::finding {

// The structure of an image that a finding is in.
enum class Structure : std::uint8_t {
  none,  // of the image as a whole, or of a link
  header,
  header_extension,
  l1_table,
  l2_table,
  refcount_table,
  refcount_block,
  host_cluster,
  snapshot_table,
  snapshot_l1_table,
  snapshot_l2_table,
  bitmap_directory,
  bitmap_table,
  bitmap_data,
  encryption_header,
  data_cluster,
  compressed_cluster,
  data_file,
};

[[nodiscard]] std::string_view to_string(Structure structure);

// One finding, or a run of `count` alike: of neighbours in the same structure, whose ranges follow
// each other.
struct Finding {
  Code code{};
  std::string detail{};  // what exactly was found: names and numbers, no full stop; may be empty
  Structure structure = Structure::none;
  std::uint64_t index = 0;  // of the first entry in its structure, or of the first host cluster
  std::uint64_t count = 1;
  HostRange host{};              // of all of them; empty where there is none
  GuestRange guest{};            // the same
  std::uint64_t entry = 0;       // the first table entry as it lies in the file
  std::uint64_t entry_step = 0;  // how much the entry of the next is larger
  std::uint64_t expected = 0;    // for refcounts: the references that were counted
  std::uint64_t found = 0;  // for refcounts: what is stored; for compressed clusters: the place
                            // of the stream, or the index in the table
};

using Findings = std::vector<Finding>;

// The worst severity among them; nothing is worse than `note` in an empty list.
[[nodiscard]] Severity worst(const Findings& findings);

// Findings of one image in the order in which they were made: neighbours that are alike become one
// run, so that millions of them need little memory; what exceeds the bound is counted.
class FindingList {
 public:
  static constexpr std::size_t most_code = 4096;

  FindingList() = default;
  explicit FindingList(std::size_t most_runs) : most_runs_(most_runs) {}

  void add(Finding finding);
  void add_all(const FindingList& other);
  // More of what has been found already.
  void omit(std::uint64_t count) { omitted_ += count; }
  // What the other list did not keep.
  void omit_all(const FindingList& other);

  [[nodiscard]] const Findings& runs() const { return runs_; }
  // The same, of a list that is not needed any more: there may be many.
  [[nodiscard]] Findings take_runs() && { return std::move(runs_); }
  // Findings that were not kept, and the worst of all, kept or not.
  [[nodiscard]] std::uint64_t omitted() const { return omitted_; }
  [[nodiscard]] Severity worst() const { return worst_; }
  // Whether there is one of that code, kept or not.
  [[nodiscard]] bool has(Code code) const { return codes_[static_cast<std::size_t>(code)]; }

 private:
  std::size_t most_runs_ = std::size_t{1} << 18;
  Findings runs_;
  std::uint64_t omitted_ = 0;
  Severity worst_ = Severity::note;
  std::bitset<most_code> codes_;
};

}  // namespace coldchain::finding
