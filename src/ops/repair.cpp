// SPDX-License-Identifier: MIT
// The order of the steps: refcount blocks that cannot be right, the mapping, then the tables that
// need room, then the refcounts by what the mapping names, then the copied flags by the refcounts,
// then the marks in the header.
#include "mender.hpp"

#include <algorithm>
#include <bit>
#include <map>

#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using finding::Code;
using finding::Finding;
using finding::Findings;
using finding::Severity;
using finding::Structure;

// So many actions are kept for people to read.
constexpr std::size_t most_actions = 1 << 18;
// A step may uncover what the next round mends; each mends all that it sees.
constexpr int most_rounds = 32;

Condition condition_of(const check::CheckResult& result) {
  return {result.counts, result.findings, result.failure};
}

bool concerns_mapping(const Finding& finding) {
  // Two references to one cluster: one of them may be wrong, and what it named is unreferenced.
  if (finding.code == Code::cluster_used_twice || finding.code == Code::refcount_overflow ||
      (finding.code == Code::refcount_too_low && finding.expected > 1))
    return true;
  // Without its pointer, nobody knows the clusters that the encryption header lies in.
  if (finding.code == Code::encryption_header_bad)
    return true;
  const auto family = static_cast<unsigned>(finding.code) / 100;
  const bool is_mapping = family == 32 || family == 33 || family == 34;
  const bool is_of_others = finding.structure == Structure::refcount_table ||
                            finding.structure == Structure::bitmap_directory ||
                            finding.structure == Structure::bitmap_table ||
                            finding.structure == Structure::bitmap_data;
  return is_mapping && !is_of_others &&
         finding::row(finding.code).severity >= Severity::corruption &&
         finding.code != Code::l1_entry_copied_wrong && finding.code != Code::l2_entry_copied_wrong;
}

// The same of a finding that was not kept, of which only the code is known.
bool may_concern_mapping(const check::CheckResult& checked) {
  return std::any_of(
      finding::catalogue().begin(), finding::catalogue().end(), [&](const finding::Row& row) {
        return checked.findings.has(row.code) &&
               (row.code == Code::refcount_too_low || concerns_mapping({.code = row.code}));
      });
}

// Whether clusters to which nothing refers may be what a damaged reference named. What was
// appended, from `fresh_from` on, is not counted yet.
bool is_mapping_damaged(const check::CheckResult& checked, const qcow2::Header& header,
                        HostOffset fresh_from) {
  const Findings& findings = checked.findings.runs();
  if (checked.failure || std::any_of(findings.begin(), findings.end(), concerns_mapping) ||
      (checked.findings.omitted() != 0 && may_concern_mapping(checked)))
    return true;
  // A table that names nothing may have been lost, whatever is known of leaks.
  const bool has_hidden_encryption =
      header.crypt_method != static_cast<std::uint32_t>(qcow2::CryptMethod::luks) &&
      header.find_extension(qcow2::extension::encryption_header) != nullptr;
  if (has_hidden_encryption || checked.findings.has(Code::l2_table_empty))
    return true;
  // Together with leaks, a reference that goes where nobody counted may be a wrong one. After lazy
  // refcounts, counts alone are wrong.
  return checked.counts.leaks != 0 && !header.has_incompatible(qcow2::incompatible::dirty) &&
         std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) {
           return finding.code == Code::refcount_too_low && finding.host.begin < fresh_from;
         });
}

std::map<Code, std::uint64_t> corruptions_by_code(const Condition& result) {
  std::map<Code, std::uint64_t> counts;
  for (const Finding& finding : result.findings.runs()) {
    if (finding::row(finding.code).severity >= Severity::corruption)
      counts[finding.code] += finding.count;
  }
  return counts;
}

// What makes the repaired image worse than it was, in words: a kind of damage that was not there,
// or more of what qemu-img counts.
std::optional<std::string> what_is_worse(const Condition& before, const Condition& after) {
  if (after.failure && !before.failure)
    return after.failure;
  const auto then = corruptions_by_code(before);
  for (const auto& [code, count] : corruptions_by_code(after)) {
    // A flag that agreed with a wrong refcount may not be one that can be written.
    const bool is_flag = code == Code::l1_entry_copied_wrong || code == Code::l2_entry_copied_wrong;
    if (!then.contains(code) && before.findings.omitted() == 0 && !is_flag)
      return fmt::format("{} (of {})", finding::row(code).slug, count);
  }
  if (after.counts.corruptions > before.counts.corruptions ||
      after.counts.check_errors > before.counts.check_errors)
    return fmt::format("{} errors instead of {}",
                       after.counts.corruptions + after.counts.check_errors,
                       before.counts.corruptions + before.counts.check_errors);
  return std::nullopt;
}

// What no repair may do, cluster by cluster, whatever it thinks that it does: lower a refcount
// below what refers to the cluster, or free one with data in it without a word.
Result<std::optional<std::string>> what_is_harmed(const Mender& mender) {
  if (!mender.at_first)
    return std::nullopt;
  const check::CheckResult& before = *mender.at_first;
  const check::CheckResult& after = *mender.checked;
  check::Claims was_too_low(1);
  for (const Finding& finding : before.findings.runs()) {
    if (finding.code == Code::refcount_too_low)
      was_too_low.add(finding.index, finding.count);
  }
  for (const Finding& finding : after.findings.runs()) {
    for (std::uint64_t i = 0; finding.code == Code::refcount_too_low && i < finding.count; ++i) {
      const std::uint64_t cluster = finding.index + i;
      if (before.findings.omitted() == 0 && before.claims.at(cluster) != 0 &&
          was_too_low.at(cluster) == 0)
        return fmt::format("a refcount of cluster {} that is too low", cluster);
    }
  }
  for (std::uint64_t word = align_down(before.stored.next_used(0), 64); word < before.stored.end();
       word = align_down(before.stored.next_used(word + 64), 64)) {
    const check::StoredRefcounts::Word was = before.stored.word(word);
    const check::StoredRefcounts::Word is = after.stored.word(word);
    for (std::uint64_t bits =
             (was.one | was.more) & ~(is.one | is.more) & ~mender.freed.word(word).claimed;
         bits != 0; bits &= bits - 1) {
      const std::uint64_t cluster = word + static_cast<std::uint64_t>(std::countr_zero(bits));
      if (!TRY(io::data_ranges(mender.view(), mender.clusters(cluster))).empty())
        return fmt::format("cluster {} free, which may be lost data", cluster);
    }
  }
  return std::nullopt;
}

// Whether each table lies where it was told to be linked.
Result<void> check_links(const Mender& mender) {
  for (const TableLink& link : mender.options.links) {
    const HostOffset at{mender.header().l1_table_offset + link.l1_index * sizeof(be64)};
    if (link.l1_index >= mender.header().l1_size ||
        (TRY(mender.entry_at(at)) & qcow2::offset_mask) != link.table.value)
      return fail(ErrorCode::refused,
                  fmt::format("--link {:#x}={}: there is no lost table at that offset, or the L1 "
                              "entry has one; '--rebuild-mapping --dry-run' lists what can be "
                              "linked",
                              link.table.value, link.l1_index));
  }
  return {};
}

using Step = Result<bool> (*)(Mender&);

// Takes a step and, where it changed something, looks again.
Result<bool> take(Mender& mender, Step step) {
  const bool has_changed = TRY(step(mender));
  if (has_changed)
    TRY(mender.check_again());
  return has_changed;
}

Result<void> mend(Mender& mender) {
  TRY(mender.check_again());
  mender.is_mapping_damaged =
      mender.options.keep_unreferenced ||
      is_mapping_damaged(*mender.checked, mender.header(), mender.fresh_from());
  if (mender.options.tier == RepairTier::all) {
    // Refcount blocks that cannot be right go first: what they seem to occupy is not theirs. Then
    // entries: what is appended must not come to lie where one of them points.
    std::vector<Step> steps = {mend_entries, mend_header_tables};
    if (!mender.leaves_tables) {
      steps.insert(steps.begin(), drop_bad_blocks);
      steps.push_back(mend_refcount_tables);
    }
    if (mender.options.rebuild_mapping)
      steps.push_back(find_lost_tables);
    bool has_changed = true;
    for (int round = 0; has_changed && round < most_rounds; ++round) {
      has_changed = false;
      mender.obstacle.reset();  // of the last round, it stands
      for (const Step step : steps)
        has_changed = TRY(take(mender, step)) || has_changed;
    }
  }
  // What had no refcounts until now may leak, too.
  mender.is_mapping_damaged =
      mender.is_mapping_damaged ||
      is_mapping_damaged(*mender.checked, mender.header(), mender.fresh_from());
  TRY(take(mender, mend_refcounts));
  for (int round = 0; TRY(take(mender, mend_copied_flags)) && round < most_rounds; ++round) {
  }
  TRY(take(mender, mend_header_bits));
  return {};
}

Result<Repair> result_of(Mender& mender) {
  TRY(check_links(mender));
  Condition before = condition_of(mender.at_first ? *mender.at_first : *mender.checked);
  Condition after = condition_of(*mender.checked);
  std::optional<std::string> worse = what_is_worse(before, after);
  if (!worse)
    worse = TRY(what_is_harmed(mender));
  if (worse)
    return fail(ErrorCode::refused,
                fmt::format("the repair would leave what was not there before: {}{}. Nothing is "
                            "changed; 'coldchain check --list' tells what there is",
                            *worse, mender.obstacle ? "; in its way: " + *mender.obstacle : ""));
  return Repair{std::move(before),         std::move(after),     std::move(mender.actions),
                mender.omitted_actions,    mender.kept_clusters, std::move(mender.proposals),
                std::move(mender.obstacle)};
}

// A run of references may go up or down.
std::uint64_t lowest_entry(const Finding& finding) {
  return std::min(finding.entry, finding.entry + (finding.count - 1) * finding.entry_step);
}

}  // namespace

std::string_view to_string(Mending mending) {
  switch (mending) {
    case Mending::raise_refcount:
      return "raise refcount";
    case Mending::lower_refcount:
      return "lower refcount";
    case Mending::free_cluster:
      return "free cluster";
    case Mending::new_refcount_table:
      return "new refcount table";
    case Mending::new_refcount_block:
      return "new refcount block";
    case Mending::drop_refcount_block:
      return "drop refcount block";
    case Mending::set_copied_flag:
      return "set copied flag";
    case Mending::clear_copied_flag:
      return "clear copied flag";
    case Mending::clear_reserved_bits:
      return "clear reserved bits";
    case Mending::clear_subcluster_bits:
      return "clear subcluster bits";
    case Mending::read_as_zeros:
      return "read as zeros";
    case Mending::drop_l2_table:
      return "drop L2 table";
    case Mending::link_l2_table:
      return "link L2 table";
    case Mending::write_snapshot_table:
      return "write snapshot table";
    case Mending::mark_bitmap_dirty:
      return "mark bitmap dirty";
    case Mending::give_up_bitmaps:
      return "give up bitmaps";
    case Mending::remove_extension:
      return "remove header extension";
    case Mending::clear_header_field:
      return "clear header field";
    case Mending::clear_feature_bit:
      return "clear feature bit";
  }
  return "";
}

Result<void> Mender::check_again() {
  if (checked && !at_first)
    at_first = std::move(checked);
  checked.reset();
  image = TRY(qcow2::Image::open_damaged(view()));
  if (data_file != nullptr)
    image->attach_data_file(*data_file);
  checked.emplace(TRY(check::check(*image, {.deep = false, .workers = options.workers})));
  occupancy_ = Occupancy(believable_owners());
  table_was_bad_ = table_was_bad_ || table_is_bad_;
  counted_end_ = std::max({counted_end_, checked->claims.end(), checked->stored.end()});
  if (checked->is_partial)
    return fail(ErrorCode::refused,
                "some tables could not be looked at: nothing may be repaired by what is left");
  return {};
}

Result<std::uint64_t> Mender::entry_at(HostOffset offset) const {
  be64 entry;
  TRY(io::read_zero_extended(view(), offset, std::as_writable_bytes(std::span(&entry, 1))));
  return entry.get();
}

std::uint64_t Mender::data_end() const {
  if (view().status().kind != io::FileKind::block_device)
    return checked->file_clusters;
  return table_was_bad_ ? checked->file_clusters : std::min(checked->file_clusters, counted_end_);
}

std::uint64_t Mender::next_fresh_cluster() const {
  if (next_fresh_ != 0)
    return next_fresh_;
  // On a device, what may be lost is passed over by its content.
  const bool is_device = view().status().kind == io::FileKind::block_device;
  return is_device ? std::min(checked->file_clusters, counted_end_)
                   : std::max(checked->file_clusters, checked->claims.end());
}

// A file that grows makes what lies behind its end a part of it: a reference to there would no
// longer be known for wrong.
bool Mender::can_append(std::uint64_t count) {
  if (leaves_tables)
    return false;
  if (view().status().kind == io::FileKind::block_device)
    return true;
  // QEMU finds nothing wrong with a reference that ends less than a cluster behind the file.
  const std::uint64_t end = (next_fresh_cluster() + count + 1) * cluster_size();
  const Findings& findings = checked->findings.runs();
  const auto in_the_way =
      std::find_if(findings.begin(), findings.end(), [&](const Finding& finding) {
        return finding.code == Code::reference_past_end &&
               finding.structure != Structure::refcount_table && lowest_entry(finding) < end;
      });
  const bool may_be_omitted =
      checked->findings.omitted() != 0 && checked->findings.has(Code::reference_past_end);
  if (in_the_way == findings.end() && !may_be_omitted)
    return true;
  obstacle = in_the_way == findings.end()
                 ? std::string("too many references past the end of the file")
                 : fmt::format("the reference of {} {} to {:#x}, past the end of the file",
                               to_string(in_the_way->structure), in_the_way->index,
                               lowest_entry(*in_the_way));
  return false;
}

Result<HostOffset> Mender::append_clusters(std::uint64_t count) {
  // No sound image needs many times the metadata that its storage has room for.
  constexpr std::uint64_t always = 64ULL << 20;
  const io::FileStatus& status = view().status();
  appended_bytes_ += count * cluster_size();
  if (status.kind == io::FileKind::regular && status.allocated != 0 &&
      appended_bytes_ > std::max(always, 16 * status.allocated))
    return fail(ErrorCode::refused,
                fmt::format("the repair would add more than {} bytes of metadata to a file that "
                            "uses {}: no sound image has so much; restore it from a copy",
                            appended_bytes_, status.allocated));
  const std::uint64_t first = TRY(find_room(next_fresh_cluster(), count));
  const auto end = checked_mul(first + count, cluster_size());
  if (!end || *end >= 1ULL << 56)
    return fail(ErrorCode::refused, "no host offset is left behind the end of the file");
  next_fresh_ = first + count;
  fresh_from_ = std::min(fresh_from_, first * cluster_size());
  transaction.grow(*end);
  return HostOffset{first * cluster_size()};
}

// Of a file, what comes after its end is nobody's. Of a device, clusters that are all zeros cannot
// be lost data, whatever has become of the refcounts.
Result<std::uint64_t> Mender::find_room(std::uint64_t first, std::uint64_t count) const {
  if (view().status().kind != io::FileKind::block_device)
    return first;
  constexpr std::uint64_t most_bytes = 1ULL << 30;
  const std::uint64_t last = std::min(view().size(), first * cluster_size() + most_bytes);
  Bytes cluster(cluster_size());
  std::uint64_t room = 0;
  for (std::uint64_t at = first; (at + 1) * cluster_size() <= last; ++at) {
    TRY(io::read_exactly(view(), clusters(at).begin, cluster, "free cluster"));
    const bool is_zero =
        std::all_of(cluster.begin(), cluster.end(), [](std::byte b) { return b == std::byte{0}; });
    room = is_zero || options.free_orphans ? room + 1 : 0;
    if (room == count)
      return at + 1 - count;
  }
  return fail(ErrorCode::refused,
              fmt::format("the repair needs {} free bytes behind {}, that are zeros: make the "
                          "device larger (it has {}), or give --free-orphans",
                          count * cluster_size(), first * cluster_size(), view().size()));
}

void Mender::add(Action action) {
  Action* last = actions.empty() ? nullptr : &actions.back();
  const bool goes_on =
      last != nullptr && last->mending == action.mending && last->structure == action.structure &&
      last->index + last->count == action.index && last->host.end == action.host.begin &&
      last->lost.empty() == action.lost.empty() &&
      (action.lost.empty() || last->lost.end == action.lost.begin) && last->detail == action.detail;
  if (goes_on) {
    last->count += action.count;
    last->host.end = action.host.end;
    last->lost.end = action.lost.end;
  } else if (actions.size() < most_actions) {
    actions.push_back(std::move(action));
  } else {
    ++omitted_actions;
  }
}

// Where the refcount table cannot be right, neither it nor the blocks that it names own anything.
std::vector<check::Owner> Mender::believable_owners() {
  bogus_ = check::Claims(~std::uint64_t{0});
  table_is_bad_ = find_whether_table_is_bad();
  if (!table_is_bad_ || leaves_tables)
    return checked->owners;
  std::vector<check::Owner> owners;
  for (const check::Owner& owner : checked->owners) {
    if (owner.structure == Structure::refcount_table ||
        owner.structure == Structure::refcount_block)
      bogus_.add(owner.first, owner.count, owner.times);
    else
      owners.push_back(owner);
  }
  return owners;
}

bool Mender::find_whether_table_is_bad() const {
  const std::uint64_t first = cluster_of(header().refcount_table_offset);
  const std::uint64_t count = header().refcount_table_clusters;
  if (count == 0 || header().refcount_table_offset == 0)
    return true;
  const Occupancy occupancy(checked->owners);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t cluster = first + i;
    const Occupants& there = occupancy.at(cluster);
    if ((cluster + 1) * cluster_size() > view().size() || there.owners != 1 ||
        checked->claims.at(cluster) + checked->overflows.at(cluster) != there.times)
      return true;
  }
  return false;
}

bool Mender::is_other_metadata(std::uint64_t cluster, Structure beside) const {
  Occupants others = occupancy_.at(cluster);
  for (const Structure structure : {beside, Structure::l2_table, Structure::snapshot_l2_table})
    others.structures.reset(static_cast<std::size_t>(structure));
  return others.structures.any();
}

bool Mender::is_sound_block(std::uint64_t raw) const {
  const std::uint64_t offset = raw & qcow2::refcount_block_mask;
  return raw != 0 && raw == offset && is_aligned(offset, cluster_size()) &&
         offset < view().size() && view().size() - offset >= cluster_size() &&
         is_alone(cluster_of(offset), Structure::refcount_block);
}

bool Mender::is_alone(std::uint64_t cluster, Structure structure) const {
  const bool is_l2 = structure == Structure::l2_table || structure == Structure::snapshot_l2_table;
  return is_of_one(cluster) &&
         (is_l2 ? is_l2_table(cluster) : occupancy_.at(cluster).has(structure));
}

bool Mender::is_l2_table(std::uint64_t cluster) const {
  const Occupants& there = occupancy_.at(cluster);
  return there.has(Structure::l2_table) || there.has(Structure::snapshot_l2_table);
}

bool Mender::holds_metadata_alone(std::uint64_t cluster) const {
  return references(cluster) == occupancy_.at(cluster).times;
}

bool Mender::is_of_one(std::uint64_t cluster) const {
  return occupancy_.at(cluster).owners == 1 && holds_metadata_alone(cluster);
}

bool Mender::is_of_mappings(std::uint64_t cluster) const {
  Occupants others = occupancy_.at(cluster);
  if (others.owners == 0)
    return false;
  for (const Structure structure : {Structure::l1_table, Structure::l2_table,
                                    Structure::snapshot_l1_table, Structure::snapshot_l2_table})
    others.structures.reset(static_cast<std::size_t>(structure));
  return others.structures.none() && holds_metadata_alone(cluster);
}

Result<Condition> condition_of(const io::File& file) {
  const qcow2::Image image = TRY(qcow2::Image::open_damaged(file));
  return condition_of(TRY(check::check(image, {})));
}

std::uint64_t corruption_count(const Condition& condition) {
  return condition.counts.corruptions + condition.counts.check_errors + (condition.failure ? 1 : 0);
}

Result<Repair> plan_repair(edit::Transaction& transaction, const io::File* data_file,
                           const RepairOptions& options) {
  Mender mender(transaction, data_file, options);
  TRY(mend(mender));
  const bool must_leave =
      mender.has_left_tables && (mender.table_is_bad() || !mender.dropped_blocks.empty());
  if (!must_leave)
    return result_of(mender);
  // What nothing can take the place of stays in effect, and counts for what it says.
  transaction.discard();
  Mender cautious(transaction, data_file, options);
  cautious.leaves_tables = true;
  TRY(mend(cautious));
  cautious.obstacle = std::move(mender.obstacle);
  return result_of(cautious);
}

}  // namespace coldchain::ops
