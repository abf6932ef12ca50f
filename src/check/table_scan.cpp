// SPDX-License-Identifier: MIT
#include "table_scan.hpp"

#include <algorithm>

namespace coldchain::check {

using finding::Code;
using finding::Finding;

namespace {

using qcow2::L2Entry;
using qcow2::SubclusterBitmap;

// Looks through one L2 table.
class TableScanner {
 public:
  TableScanner(const Survey& survey, const Reference& reference, TableScan& scan)
      : survey_(survey),
        reference_(reference),
        scan_(scan),
        has_data_file_(survey.image.header().has_data_file()),
        extended_(survey.geometry.subclusters_per_cluster() > 1),
        cluster_size_(survey.geometry.cluster_size()) {}

  void scan(const std::vector<be64>& table) {
    const std::uint64_t count = survey_.geometry.l2_entries();
    for (std::uint64_t i = 0; i < count;) {
      if (extended_) {
        look_at(i, table[2 * i].get(), table[2 * i + 1].get());
        ++i;
      } else if (const std::uint64_t raw = table[i].get(); raw == 0) {
        ++i;
      } else if (const std::uint64_t sound = sound_run(table, i, raw); sound > 0) {
        i += sound;
      } else {
        look_at(i, raw, 0);
        ++i;
      }
    }
  }

 private:
  [[nodiscard]] std::uint64_t guest_cluster(std::uint64_t i) const {
    return reference_.l1_index * survey_.geometry.l2_entries() + i;
  }

  [[nodiscard]] Finding finding(Code code, std::uint64_t i, std::uint64_t entry) const {
    return entry_finding(survey_, reference_, code, i, entry);
  }

  // What counts for qemu-img as well.
  void corruption(Finding damage) {
    ++scan_.counts.corruptions;
    scan_.findings.add(std::move(damage));
  }

  // How many entries from `i` on are standard clusters that lie one after the other, in the file,
  // with the same copied flag, which the refcounts agree with: most of a sound image.
  std::uint64_t sound_run(const std::vector<be64>& table, std::uint64_t i, std::uint64_t raw) {
    const std::uint64_t offset = raw & qcow2::offset_mask;
    const bool is_copied = (raw & qcow2::copied_flag) != 0;
    if ((raw & ~(qcow2::offset_mask | qcow2::copied_flag)) != 0 || offset == 0 ||
        !is_aligned(offset, cluster_size_) || offset >= survey_.file_size || has_data_file_)
      return 0;
    // Only clusters that the file has whole.
    const std::uint64_t most = std::min<std::uint64_t>(
        table.size() - i,
        (survey_.file.size() - std::min(survey_.file.size(), offset)) / cluster_size_);
    const std::uint64_t first = survey_.cluster_of(offset);
    std::uint64_t count = 0;
    std::uint64_t piece = 64;
    // In pieces that grow: where the refcounts disagree, looking far ahead would be in vain.
    for (bool goes_on = true; goes_on && count < most; piece *= 2) {
      const std::uint64_t begin = count;
      const std::uint64_t end = std::min(most, count + piece);
      while (count < end && table[i + count].get() == raw + count * cluster_size_)
        ++count;
      goes_on = count == end;
      if (reference_.has_copied_flags) {
        const std::uint64_t agreeing =
            survey_.stored.agreeing_from(first + begin, count - begin, is_copied);
        goes_on = goes_on && agreeing == count - begin;
        count = begin + agreeing;
      }
    }
    if (count > 0) {
      note_place(offset, count);
      claim(first, count);
    }
    return count;
  }

  void note_place(std::uint64_t offset, std::uint64_t count) {
    scan_.counts.allocated += count;
    if (next_contiguous_ != 0 && offset != next_contiguous_)
      ++scan_.counts.fragmented;
    next_contiguous_ = offset + count * cluster_size_;
  }

  void claim(std::uint64_t first, std::uint64_t count, bool is_compressed = false) {
    const std::size_t findings = scan_.findings.runs().size();
    ClusterRun* last = scan_.claims.empty() ? nullptr : &scan_.claims.back();
    if (last != nullptr && last->is_compressed == is_compressed &&
        last->first + last->count == first && last->findings_before == findings)
      last->count += count;
    else
      scan_.claims.push_back({first, count, is_compressed, findings});
  }

  void claim_region(std::uint64_t i, std::uint64_t entry, std::uint64_t offset, std::uint64_t size,
                    bool is_compressed = false) {
    if (survey_.reaches_past_end(offset, size)) {
      Finding past_end =
          survey_.past_end(reference_.l2_structure(), guest_cluster(i), {}, offset, size);
      const Finding place = finding(Code::reference_past_end, i, entry);
      past_end.host = place.host;
      past_end.guest = place.guest;
      corruption(std::move(past_end));
      return;
    }
    const std::uint64_t first = survey_.cluster_of(offset);
    claim(first, survey_.cluster_of(offset + size - 1) - first + 1, is_compressed);
  }

  // A reference past the end of the file is a finding of its own.
  void check_data_is_there(std::uint64_t i, std::uint64_t raw, SubclusterBitmap bitmap) {
    const HostOffset host = L2Entry(raw).host_offset();
    if (!has_data_file_ && survey_.reaches_past_end(host.value, cluster_size_))
      return;
    if (!extended_ && !L2Entry(raw).reads_as_zero())
      check_end_of_data(i, raw, host, 0, cluster_size_);
    const std::uint64_t size = survey_.geometry.subcluster_size();
    for (unsigned index = 0; extended_ && index < 32; ++index) {
      if ((bitmap.allocated() >> index & 1) != 0)
        check_end_of_data(i, raw, host, index * size, size);
    }
  }

  // The data of `size` bytes at `in_cluster`, as far as they are on the guest's disk.
  void check_end_of_data(std::uint64_t i, std::uint64_t raw, HostOffset host,
                         std::uint64_t in_cluster, std::uint64_t size) {
    const std::uint64_t begin = guest_cluster(i) * cluster_size_ + in_cluster;
    const std::uint64_t end = std::min(begin + size, reference_.disk_size);
    const std::uint64_t present =
        survey_.data_size() - std::min(survey_.data_size(), host.value + in_cluster);
    if (begin >= end || present >= end - begin)
      return;
    Finding cut = finding(Code::data_past_end, i, raw);
    cut.guest = {{begin + present}, {end}};
    cut.found = host.value + in_cluster + present;
    scan_.findings.add(std::move(cut));
  }

  void look_at(std::uint64_t i, std::uint64_t raw, std::uint64_t bitmap) {
    const L2Entry entry(raw);
    if (entry.is_compressed())
      return look_at_compressed(i, raw, bitmap);
    if ((raw & qcow2::l2_reserved_mask) != 0)
      corruption(finding(Code::l2_entry_reserved, i, raw));
    // qcow2.rst, "Standard Cluster Descriptor": bit 0 is for version 3, not for extended entries.
    if (entry.reads_as_zero() && (extended_ || survey_.image.header().version < 3))
      scan_.findings.add(finding(Code::zero_flag_not_allowed, i, raw));
    const bool is_plain_zero =
        !extended_ && entry.reads_as_zero() && entry.host_offset().value == 0;
    if (is_plain_zero)
      return;
    if (entry.host_offset().value != 0 || (has_data_file_ && entry.is_copied()))
      look_at_allocated(i, raw, SubclusterBitmap(bitmap));
    else if (SubclusterBitmap(bitmap).allocated() != 0)
      corruption(finding(Code::subclusters_without_cluster, i, raw));
  }

  void look_at_compressed(std::uint64_t i, std::uint64_t raw, std::uint64_t bitmap) {
    const qcow2::CompressedExtent extent =
        L2Entry(raw).compressed_extent(survey_.geometry.cluster_bits());
    const auto add = [&](Code code, std::uint64_t found) {
      Finding bad = finding(code, i, raw);
      bad.found = found;
      corruption(std::move(bad));
    };
    if (L2Entry(raw).is_copied())
      add(Code::compressed_copied, extent.begin.value);
    if (has_data_file_)
      return add(Code::compressed_with_data_file, i);
    if (bitmap != 0)
      return add(Code::compressed_with_subclusters, i);
    claim_region(i, raw, extent.begin.value, extent.max_bytes, true);
    const qcow2::Unreadable state = qcow2::state_of(extent, survey_.file.size());
    const bool is_on_disk = guest_cluster(i) * cluster_size_ < reference_.disk_size;
    if (qcow2::is_lost(state) && is_on_disk &&
        !survey_.reaches_past_end(extent.begin.value, extent.max_bytes))
      scan_.findings.add(cut_stream_finding(survey_, reference_, i, raw));
    // Only decompressing tells whether a stream needs the missing end of its last sector.
    if (survey_.options.deep || (state == qcow2::Unreadable::undecided && is_on_disk))
      scan_.compressed_entries.push_back({i, raw});
    ++scan_.counts.allocated;
    ++scan_.counts.compressed;
    ++scan_.counts.fragmented;
  }

  void look_at_allocated(std::uint64_t i, std::uint64_t raw, SubclusterBitmap bitmap) {
    const std::uint64_t offset = L2Entry(raw).host_offset().value;
    if ((bitmap.allocated() & bitmap.zero()) != 0)
      corruption(finding(Code::subclusters_contradict, i, raw));
    if (!is_aligned(offset, cluster_size_)) {
      const bool has_data = extended_ ? bitmap.allocated() != 0 : !L2Entry(raw).reads_as_zero();
      corruption(
          finding(has_data ? Code::data_cluster_unaligned : Code::zero_cluster_unaligned, i, raw));
    }
    note_place(offset, 1);
    if (!has_data_file_)
      claim_region(i, raw, offset, cluster_size_);
    check_data_is_there(i, raw, bitmap);
    if (has_data_file_ && offset != guest_cluster(i) * cluster_size_)
      scan_.findings.add(finding(Code::data_file_offset_differs, i, raw));
    if (reference_.has_copied_flags)
      check_copied(i, raw, offset);
  }

  // QEMU block/qcow2-refcount.c: clusters of an external data file count as referred to once.
  void check_copied(std::uint64_t i, std::uint64_t raw, std::uint64_t offset) {
    const std::uint64_t cluster = survey_.cluster_of(offset);
    const std::optional<bool> is_one = has_data_file_ ? true : survey_.stored.is_one(cluster);
    if (!is_one || *is_one == L2Entry(raw).is_copied())
      return;
    Finding wrong = finding(Code::l2_entry_copied_wrong, i, raw);
    wrong.found = has_data_file_ ? 1 : survey_.stored.at(cluster, cursor_).value_or(0);
    ++scan_.counts.copied;
    scan_.copied.add(std::move(wrong));
  }

  const Survey& survey_;
  const Reference& reference_;
  TableScan& scan_;
  StoredRefcounts::Cursor cursor_;
  bool has_data_file_;
  bool extended_;
  std::uint64_t cluster_size_;
  std::uint64_t next_contiguous_ = 0;  // where the next cluster would lie, in one piece
};

}  // namespace

Finding entry_finding(const Survey& survey, const Reference& reference, Code code,
                      std::uint64_t index, std::uint64_t raw) {
  const std::uint64_t bytes = survey.geometry.l2_entry_bytes();
  const HostOffset at{reference.l2_table() + index * bytes};
  const std::uint64_t guest = reference.l1_index * survey.geometry.l2_entries() + index;
  const std::uint64_t cluster_size = survey.geometry.cluster_size();
  return {.code = code,
          .structure = reference.l2_structure(),
          .index = guest,
          .host = {at, at + bytes},
          .guest = {{guest * cluster_size}, {(guest + 1) * cluster_size}},
          .entry = raw};
}

Finding cut_stream_finding(const Survey& survey, const Reference& reference, std::uint64_t index,
                           std::uint64_t raw) {
  Finding cut = entry_finding(survey, reference, Code::data_past_end, index, raw);
  cut.guest.end = {std::min(cut.guest.end.value, reference.disk_size)};
  cut.found = L2Entry(raw).compressed_extent(survey.geometry.cluster_bits()).begin.value;
  return cut;
}

void scan_table(const Survey& survey, const Reference& reference, const std::vector<be64>& table,
                TableScan& scan) {
  TableScanner(survey, reference, scan).scan(table);
}

}  // namespace coldchain::check
