// SPDX-License-Identifier: MIT
// Entries of L1 and L2 tables. What has one possible value gets it; a reference that cannot be
// right is dropped, and the guest range that is lost with it is told. An L2 entry that is dropped
// reads as zeros where the format can say so: what a backing file has there was overwritten once.
#include "extents.hpp"
#include "mender.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>

namespace coldchain::ops {

namespace {

using edit::Phase;
using finding::Code;
using finding::Finding;
using finding::Structure;

constexpr std::uint64_t all_subclusters = 0xffff'ffff;

class EntryMender {
 public:
  explicit EntryMender(Mender& mender) : m_(mender) {}

  Result<bool> mend() {
    for (const Finding& finding : m_.checked->findings.runs())
      TRY(look_at(finding));
    TRY(drop_streams_that_were_cut());
    return has_changed_;
  }

 private:
  // One entry of a run.
  struct Entry {
    Structure structure{};
    std::uint64_t index = 0;
    HostOffset at;
    GuestRange guest;
    std::uint64_t raw = 0;
  };

  template <class Visit>
  Result<void> for_each_entry(const Finding& finding, Visit&& visit) {
    const std::uint64_t step = finding.host.size() / finding.count;
    const std::uint64_t guest_step = finding.guest.size() / finding.count;
    EntryRun run(m_, finding.host.begin, step, finding.count);
    for (std::uint64_t i = 0; i < finding.count; ++i) {
      Entry entry{finding.structure, finding.index + i, finding.host.begin + i * step, {}, 0};
      entry.guest = {finding.guest.begin + i * guest_step,
                     finding.guest.begin + (i + 1) * guest_step};
      entry.raw = TRY(run.take());
      TRY(visit(entry));
    }
    return {};
  }

  Result<void> look_at(const Finding& finding) {
    const auto for_each = [&](Result<void> (EntryMender::*action)(const Entry&)) {
      return for_each_entry(finding, [&](const Entry& entry) { return (this->*action)(entry); });
    };
    const bool is_l1 = finding.structure == Structure::l1_table ||
                       finding.structure == Structure::snapshot_l1_table;
    if (finding.host.empty())
      return {};
    switch (finding.code) {
      case Code::l1_entry_reserved:
        return for_each(&EntryMender::clear_reserved_of_l1);
      case Code::l2_table_unaligned:
        return for_each(&EntryMender::drop_table);
      case Code::reference_past_end:
        if (is_l1)
          return for_each(&EntryMender::drop_table);
        if (finding.structure == Structure::l2_table ||
            finding.structure == Structure::snapshot_l2_table)
          return for_each(&EntryMender::read_as_zeros);
        return {};
      case Code::l2_entry_reserved:
        return for_each(&EntryMender::clear_reserved_of_l2);
      case Code::zero_flag_not_allowed:
        return for_each(&EntryMender::clear_zero_flag);
      case Code::compressed_copied:
        return for_each(&EntryMender::clear_copied_of_compressed);
      case Code::compressed_with_data_file:
      case Code::data_cluster_unaligned:
      case Code::zero_cluster_unaligned:
        return for_each(&EntryMender::read_as_zeros);
      case Code::compressed_with_subclusters:
        return for_each(&EntryMender::clear_subclusters);
      case Code::subclusters_contradict:
      case Code::subclusters_without_cluster:
        return for_each(&EntryMender::mend_subclusters);
      case Code::shared_cluster_user:
        return m_.is_header_or_l1(finding.found) ? for_each(&EntryMender::read_as_zeros)
                                                 : Result<void>{};
      default:
        return {};
    }
  }

  Result<void> set(const Entry& entry, std::uint64_t raw, Mending mending, GuestRange lost = {},
                   std::string detail = {}) {
    if (raw == entry.raw || !may_write(entry))
      return {};
    has_changed_ = true;
    m_.add({.mending = mending,
            .structure = entry.structure,
            .index = entry.index,
            .host = {entry.at, entry.at + sizeof(be64)},
            .lost = lost,
            .detail = std::move(detail)});
    return m_.set_entry(Phase::secure, entry.at, raw);
  }

  // Where the active L1 table lies is certain; an L2 table that lies over it is the one in error.
  [[nodiscard]] bool may_write(const Entry& entry) const {
    const std::uint64_t cluster = m_.cluster_of(entry.at.value);
    return m_.has_entry(entry.at) && (entry.structure == Structure::l1_table
                                          ? !m_.is_other_metadata(cluster, Structure::l1_table)
                                          : m_.is_alone(cluster, entry.structure));
  }

  [[nodiscard]] bool lies_in_file(std::uint64_t offset) const {
    return offset != 0 && is_aligned(offset, m_.cluster_size()) && offset < m_.view().size();
  }

  Result<void> clear_reserved_of_l1(const Entry& entry) {
    const std::uint64_t table = entry.raw & qcow2::offset_mask;
    if (!lies_in_file(table) || !m_.is_of_one(m_.cluster_of(table)))
      return drop_table(entry);
    return set(entry, entry.raw & ~qcow2::l1_reserved_mask, Mending::clear_reserved_bits);
  }

  // The cluster must be this entry's alone: of a wrong reference nobody may make a right one.
  Result<void> clear_reserved_of_l2(const Entry& entry) {
    const std::uint64_t offset = entry.raw & qcow2::offset_mask;
    const std::uint64_t allowed = m_.header().nb_snapshots == 0 ? 1 : ~std::uint64_t{0};
    const bool is_sound =
        offset == 0 || m_.header().has_data_file() ||
        (lies_in_file(offset) && m_.references(m_.cluster_of(offset)) <= allowed &&
         !m_.is_other_metadata(m_.cluster_of(offset)));
    if (!is_sound)
      return read_as_zeros(entry);
    return set(entry, entry.raw & ~qcow2::l2_reserved_mask, Mending::clear_reserved_bits);
  }

  // In version 2 nobody knows what was meant.
  Result<void> clear_zero_flag(const Entry& entry) {
    if (m_.header().version < 3)
      return {};
    return set(entry, entry.raw & ~qcow2::zero_flag, Mending::clear_reserved_bits);
  }

  Result<void> clear_copied_of_compressed(const Entry& entry) {
    return set(entry, entry.raw & ~qcow2::copied_flag, Mending::clear_copied_flag);
  }

  Result<void> drop_table(const Entry& entry) {
    return set(entry, 0, Mending::drop_l2_table, entry.guest,
               m_.header().backing_file() ? "the backing file shows there" : "");
  }

  // In version 2 the backing file would show through an entry that is dropped: it stays.
  Result<void> read_as_zeros(const Entry& entry) {
    if (m_.header().has_extended_l2())
      return read_subclusters_as_zeros(entry);
    const bool has_zeros = m_.header().version >= 3;
    if (!has_zeros && m_.header().backing_file())
      return {};
    return set(entry, has_zeros ? qcow2::zero_flag : 0, Mending::read_as_zeros, entry.guest);
  }

  // Subclusters that are not allocated have lost nothing: the backing file answers there.
  Result<void> read_subclusters_as_zeros(const Entry& entry) {
    if (!may_write(entry))
      return {};
    const qcow2::SubclusterBitmap bitmap(TRY(m_.entry_at(entry.at + sizeof(be64))));
    const std::uint64_t lost =
        is_compressed(entry.raw) ? all_subclusters : std::uint64_t{bitmap.allocated()};
    const std::uint64_t size = m_.geometry().subcluster_size();
    std::vector<GuestRange> ranges;
    for (unsigned index = 0; index < 32; ++index) {
      const GuestOffset begin = entry.guest.begin + index * size;
      if ((lost >> index & 1) != 0)
        append_range(ranges, GuestRange{begin, begin + size});
    }
    for (std::size_t i = 1; i < ranges.size(); ++i)
      m_.add({.mending = Mending::read_as_zeros,
              .structure = entry.structure,
              .index = entry.index,
              .host = {entry.at, entry.at + sizeof(be64)},
              .lost = ranges[i]});
    TRY(set(entry, 0, Mending::read_as_zeros, ranges.empty() ? GuestRange{} : ranges.front()));
    return set_bitmap(entry, (bitmap.zero() | lost) << 32, Mending::read_as_zeros,
                      entry.raw == 0 && !ranges.empty() ? ranges.front() : GuestRange{});
  }

  Result<void> set_bitmap(const Entry& entry, std::uint64_t bitmap, Mending mending,
                          GuestRange lost) {
    Entry second = entry;
    second.at = entry.at + sizeof(be64);
    second.raw = TRY(m_.entry_at(second.at));
    return set(second, bitmap, mending, lost);
  }

  Result<void> clear_subclusters(const Entry& entry) {
    return set_bitmap(entry, 0, Mending::clear_subcluster_bits, {});
  }

  // With a cluster behind it, data is kept rather than zeros; without one there is no data.
  Result<void> mend_subclusters(const Entry& entry) {
    const qcow2::SubclusterBitmap bitmap(TRY(m_.entry_at(entry.at + sizeof(be64))));
    const bool has_cluster = (entry.raw & qcow2::offset_mask) != 0;
    const std::uint64_t allocated = has_cluster ? bitmap.allocated() : 0;
    const std::uint64_t zero = bitmap.zero() & ~allocated;
    return set_bitmap(entry, zero << 32 | allocated, Mending::clear_subcluster_bits,
                      has_cluster ? GuestRange{} : entry.guest);
  }

  // A compressed cluster that the end of the file cut decompresses to other data once the file has
  // grown over the missing bytes.
  Result<void> drop_streams_that_were_cut() {
    if (!m_.at_first || m_.checked->findings.has(Code::data_past_end))
      return {};
    for (const Finding& finding : m_.at_first->findings.runs()) {
      if (finding.code != Code::data_past_end || !is_compressed(finding.entry))
        continue;
      TRY(for_each_entry(finding, [&](const Entry& entry) {
        return is_compressed(entry.raw) ? read_as_zeros(entry) : Result<void>{};
      }));
    }
    return {};
  }

  static bool is_compressed(std::uint64_t raw) { return qcow2::L2Entry(raw).is_compressed(); }

  Mender& m_;
  bool has_changed_ = false;
};

}  // namespace

Result<bool> mend_entries(Mender& mender) {
  return EntryMender(mender).mend();
}

namespace {

// A refcount of 1 is no proof where it cannot count more, or where it may lie somewhere wrong.
bool may_be_written_to(const Mender& mender, Structure structure, std::uint64_t cluster) {
  const bool is_l1 = structure == Structure::l1_table || structure == Structure::snapshot_l1_table;
  if (!is_l1 && mender.header().has_data_file())
    return true;  // the clusters of a data file are never shared
  return mender.references(cluster) == 1 && !mender.table_is_bad() &&
         !mender.is_other_metadata(cluster);
}

}  // namespace

Result<bool> mend_copied_flags(Mender& mender) {
  bool has_changed = false;
  for (const Finding& finding : mender.checked->findings.runs()) {
    if (finding.code != Code::l1_entry_copied_wrong && finding.code != Code::l2_entry_copied_wrong)
      continue;
    const bool sets = finding.found == 1;  // the refcount
    // Where leaks are freed, only what that brings about is repaired.
    const bool frees_leaks = mender.options.tier == RepairTier::leaks;
    if (frees_leaks && !sets)
      continue;
    const std::uint64_t step = finding.host.size() / finding.count;
    EntryRun run(mender, finding.host.begin, step, finding.count);
    for (std::uint64_t i = 0; i < finding.count; ++i) {
      const HostOffset at = finding.host.begin + i * step;
      const std::uint64_t raw = TRY(run.take());
      const std::uint64_t cluster = mender.cluster_of(raw & qcow2::offset_mask);
      if (!mender.is_of_mappings(mender.cluster_of(at.value)) || !mender.has_entry(at))
        continue;  // whatever else lies there would change, too
      if (sets && !may_be_written_to(mender, finding.structure, cluster))
        continue;
      if (frees_leaks && mender.lowered.at(cluster) == 0)
        continue;
      has_changed = true;
      mender.add({.mending = sets ? Mending::set_copied_flag : Mending::clear_copied_flag,
                  .structure = finding.structure,
                  .index = finding.index + i,
                  .host = {at, at + sizeof(be64)}});
      TRY(mender.set_entry(sets ? Phase::settle : Phase::secure, at,
                           sets ? raw | qcow2::copied_flag : raw & ~qcow2::copied_flag));
    }
  }
  return has_changed;
}

}  // namespace coldchain::ops
