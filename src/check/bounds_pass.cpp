// SPDX-License-Identifier: MIT
// Tests what only looks suspicious at the ends of the disk and of the file: guest data that is
// mapped past the end of the disk, data clusters that all lie in one hole at the end of the file,
// and an image header behind the end of the image. Gathers notes. Runs last, when all references
// are counted.
#include "table_walk.hpp"

#include <algorithm>

#include <coldchain/check/traces.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Structure;
using qcow2::L2Entry;

class BoundsPass {
 public:
  explicit BoundsPass(Survey& survey)
      : survey_(survey),
        disk_clusters_(divide_up(survey.image.guest_size(), survey.geometry.cluster_size())) {}

  void look() {
    if (!survey_.image.header().has_data_file() && survey_.image.header().crypt_method == 0)
      find_behind_end();
    if (survey_.result.is_partial || survey_.image.header().has_data_file())
      return;
    find_past_disk();
    find_zero_tail();
  }

 private:
  void find_behind_end() {
    for (const finding::Finding& trace : headers_behind(
             survey_.file, {survey_.result.counts.image_end_offset}, survey_.options.deep))
      survey_.result.findings.add(trace);
  }

  // Calls `visit` for the entries of the active mapping from guest cluster `first` on that name a
  // standard or compressed cluster: the guest cluster, and the entry.
  template <class Visit>
  void for_each_entry(std::uint64_t first, Visit&& visit) {
    constexpr std::uint64_t most_again_bytes = 2 << 20;
    const std::uint64_t per_table = survey_.geometry.l2_entries();
    const std::size_t step = survey_.geometry.l2_entry_bytes() / sizeof(be64);
    walk_tables(survey_,
                {.l1_tables = std::span(survey_.l1_tables).first(1),
                 .first_entry = first / per_table,
                 .most_again_bytes = most_again_bytes},
                [&](const Reference& reference, const std::vector<be64>& table) {
                  for (std::size_t j = 0; j < table.size(); j += step) {
                    const std::uint64_t guest = reference.l1_index * per_table + j / step;
                    const L2Entry entry(table[j].get());
                    if (guest >= first && (entry.is_compressed() || entry.host_offset().value != 0))
                      visit(guest, entry);
                  }
                });
  }

  // QEMU keeps the state of a machine behind the disk, and leaves it mapped after a snapshot was
  // applied. It begins with its magic.
  [[nodiscard]] bool has_vm_state(std::uint64_t guest, L2Entry entry) const {
    constexpr std::uint32_t vm_state_magic = 0x5145564d;
    const std::uint64_t per_table = survey_.geometry.l2_entries();
    if (guest != divide_up(disk_clusters_, per_table) * per_table || entry.is_compressed())
      return false;
    be32 start;
    return io::read_zero_extended(survey_.file, entry.host_offset(),
                                  std::as_writable_bytes(std::span(&start, 1)))
               .has_value() &&
           start.get() == vm_state_magic;
  }

  void find_past_disk() {
    if (survey_.image.header().l1_size * survey_.geometry.l2_entries() <= disk_clusters_)
      return;
    std::uint64_t count = 0;
    std::uint64_t lowest = 0;
    std::uint64_t end = 0;
    bool is_vm_state = false;
    for_each_entry(disk_clusters_, [&](std::uint64_t guest, L2Entry entry) {
      is_vm_state = is_vm_state || has_vm_state(guest, entry);
      if (is_vm_state)
        return;
      lowest = count++ == 0 ? guest : lowest;
      end = guest + 1;
    });
    const std::uint64_t size = survey_.geometry.cluster_size();
    if (count != 0)
      survey_.result.findings.add({.code = Code::mapped_past_disk,
                                   .detail = fmt::format("{} clusters, for a disk of {} bytes",
                                                         count, survey_.image.guest_size()),
                                   .structure = Structure::l1_table,
                                   .index = lowest / survey_.geometry.l2_entries(),
                                   .guest = {{lowest * size}, {end * size}}});
  }

  // Where the last hole of the file begins; its end if it has none.
  [[nodiscard]] HostOffset final_hole() const {
    HostOffset begin{0};
    HostOffset end{survey_.file.size()};
    while (begin < end) {
      const HostOffset middle{begin.value + (end - begin) / 2};
      const Result<HostOffset> data = survey_.file.next_data(middle);
      if (data && *data < HostOffset{survey_.file.size()})
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }

  // Preallocated disks, and those that grew so, have such a tail, too: there, the host clusters in
  // the hole follow the order of the disk. Only a deep check reads very many tables again.
  void find_zero_tail() {
    constexpr std::uint64_t most_table_bytes = 16 << 20;
    const std::uint64_t tables = divide_up(disk_clusters_, survey_.geometry.l2_entries());
    if (!survey_.options.deep && tables > most_table_bytes / survey_.geometry.cluster_size())
      return;
    const HostOffset hole{align_up(final_hole().value, survey_.geometry.cluster_size())};
    if (survey_.result.claims.next_used(survey_.cluster_of(hole.value)) >=
        survey_.result.claims.end())
      return;
    std::uint64_t in_hole = 0;
    std::uint64_t stored = 0;
    HostOffset last{0};
    bool is_in_order = true;
    for_each_entry(0, [&](std::uint64_t guest, L2Entry entry) {
      if (guest >= disk_clusters_ || entry.is_compressed())
        return;
      const bool is_in_hole = entry.host_offset() >= hole;
      is_in_order = is_in_order && (!is_in_hole || entry.host_offset() > last);
      last = is_in_hole ? entry.host_offset() : last;
      if (!entry.reads_as_zero() || survey_.geometry.subclusters_per_cluster() > 1)
        ++(is_in_hole ? in_hole : stored);
    });
    if (in_hole == 0 || stored == 0 || is_in_order)
      return;
    survey_.result.findings.add(
        {.code = Code::zero_tail,
         .detail = fmt::format("{} of {} data clusters", in_hole, in_hole + stored),
         .structure = Structure::data_cluster,
         .index = survey_.cluster_of(hole.value),
         .host = {hole, {survey_.file.size()}}});
  }

  Survey& survey_;
  std::uint64_t disk_clusters_;
};

}  // namespace

void check_bounds(Survey& survey) {
  BoundsPass(survey).look();
}

}  // namespace coldchain::check
