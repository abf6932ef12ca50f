// SPDX-License-Identifier: MIT
#include "mender.hpp"

#include <algorithm>

#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using finding::Code;
using finding::Finding;
using finding::Findings;
using finding::Structure;

// So many actions are kept for people to read.
constexpr std::size_t most_actions = 1 << 18;

// A run of references may go up or down.
std::uint64_t lowest_entry(const Finding& finding) {
  return std::min(finding.entry, finding.entry + (finding.count - 1) * finding.entry_step);
}

}  // namespace

Result<void> Mender::check_again() {
  if (checked && !at_first)
    at_first = std::move(checked);
  checked.reset();
  image = TRY(qcow2::Image::open_damaged(view()));
  if (data_file != nullptr)
    image->attach_data_file(*data_file);
  checked.emplace(TRY(check::check(
      *image,
      {.deep = false, .workers = options.workers, .progress = progress_of_check(checks_++)})));
  find_occupancy();
  table_was_bad_ = table_was_bad_ || table_is_bad_;
  counted_end_ = std::max({counted_end_, checked->claims.end(), checked->stored.end()});
  if (checked->is_partial)
    return fail(ErrorCode::refused, "some tables were not checked: a repair would not be safe");
  for (const finding::Finding& finding : checked->findings.runs()) {
    if (finding.code == finding::Code::table_unreadable ||
        finding.code == finding::Code::refcount_table_unreadable)
      return fail(
          ErrorCode::io_error,
          fmt::format("{}: the repair would lose what is behind it; copy the image to sound "
                      "storage first",
                      finding.detail));
  }
  return {};
}

// How many checks follow is not known: each takes half of what is left, and the first one counts in
// full.
Progress Mender::progress_of_check(unsigned number) const {
  if (!options.progress)
    return {};
  return [&progress = options.progress, number](const ProgressPoint& check) {
    const std::uint64_t total = 2 * check.total;
    return progress({total - ((total - check.done) >> std::min(number, 63U)), total, 0});
  };
}

Result<std::uint64_t> Mender::entry_at(HostOffset offset) const {
  be64 entry;
  TRY(io::read_zero_extended(view(), offset, std::as_writable_bytes(std::span(&entry, 1))));
  return entry.get();
}

Result<std::uint64_t> EntryRun::take() {
  constexpr std::uint64_t most_bytes = 4096;
  if (at_ + sizeof(be64) > batch_.size()) {
    batch_.resize(std::clamp<std::uint64_t>(left_ * step_, sizeof(be64), most_bytes));
    at_ = 0;
    TRY(io::read_zero_extended(mender_.view(), next_, batch_));
  }
  const std::uint64_t entry = load<be64>(batch_, at_)->get();
  at_ += step_;
  next_ = next_ + step_;
  --left_;
  return entry;
}

std::uint64_t Mender::data_end() const {
  if (view().status().kind != io::FileKind::block_device)
    return checked->file_clusters;
  return std::min(checked->file_clusters, counted_end_);
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
  const Findings& all = checked->findings.runs();
  const auto cut = std::find_if(all.begin(), all.end(), [](const Finding& finding) {
    return finding.code == Code::table_past_end;
  });
  if (cut != all.end()) {
    obstacle = fmt::format(
        "the file ends inside a table ({} {}), whose missing entries would become empty ones when "
        "the file grows; restore the image from a copy",
        to_string(cut->structure), cut->index);
    return false;
  }
  const auto stream = std::find_if(all.begin(), all.end(), [](const Finding& finding) {
    return finding.code == Code::data_past_end && qcow2::L2Entry(finding.entry).is_compressed();
  });
  if (stream != all.end() && header().version < 3 && header().backing_file()) {
    obstacle = fmt::format(
        "the file ends inside the compressed cluster of guest offset {:#x}, which would read as "
        "other data when the file grows, and version 2 cannot mark it as zeros; 'qemu-img amend "
        "-o compat=1.1' changes the version",
        stream->guest.begin.value);
    return false;
  }
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
  obstacle = in_the_way == findings.end() ? std::string(
                                                "too many references past the end of the file "
                                                "block the repair; correct them by hand")
                                          : fmt::format(
                                                "the reference of {} {} to {:#x}, past the end of "
                                                "the file, blocks the repair; correct it by hand",
                                                to_string(in_the_way->structure), in_the_way->index,
                                                lowest_entry(*in_the_way));
  return false;
}

Result<void> Mender::check_growth(std::uint64_t count) const {
  // No sound image needs many times the metadata that its storage has room for.
  constexpr std::uint64_t always = 64ULL << 20;
  const io::FileStatus& status = view().status();
  const std::uint64_t bytes = appended_bytes_ + count * cluster_size();
  if (status.kind != io::FileKind::block_device && status.allocated != 0 &&
      bytes > std::max(always, 16 * status.allocated))
    return fail(ErrorCode::refused,
                fmt::format("the repair would add more than {} bytes of metadata to a file that "
                            "uses {}: no sound image has so much; restore it from a copy",
                            bytes, status.allocated));
  return {};
}

Result<HostOffset> Mender::append_clusters(std::uint64_t count) {
  TRY(check_growth(count));
  appended_bytes_ += count * cluster_size();
  const std::uint64_t first = TRY(find_room(next_fresh_cluster(), count));
  const auto end = checked_mul(first + count, cluster_size());
  if (!end || *end >= 1ULL << 56)
    return fail(ErrorCode::refused, "no host offset is left after the end of the file");
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
    room = is_zero(cluster) || options.free_orphans ? room + 1 : 0;
    if (room == count)
      return at + 1 - count;
  }
  return fail(ErrorCode::refused,
              fmt::format("the repair needs {} free bytes of zeros after offset {}: make the "
                          "device larger (it has {} bytes), or give --free-orphans",
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
void Mender::find_occupancy() {
  occupancy_ = Occupancy(checked->owners);
  bogus_ = check::Claims(~std::uint64_t{0});
  table_is_bad_ = find_whether_table_is_bad();
  if (!table_is_bad_ || leaves_tables)
    return;
  std::vector<check::Owner> owners;
  for (const check::Owner& owner : checked->owners) {
    if (owner.structure == Structure::refcount_table ||
        owner.structure == Structure::refcount_block)
      bogus_.add(owner.first, owner.count, owner.times);
    else
      owners.push_back(owner);
  }
  occupancy_ = Occupancy(owners);
}

bool Mender::find_whether_table_is_bad() const {
  const std::uint64_t first = cluster_of(header().refcount_table_offset);
  const std::uint64_t count = header().refcount_table_clusters;
  if (count == 0 || header().refcount_table_offset == 0)
    return true;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t cluster = first + i;
    const Occupants& there = occupancy_.at(cluster);
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

bool Mender::is_header_or_l1(std::uint64_t cluster) const {
  const std::uint64_t l1 = cluster_of(header().l1_table_offset);
  const std::uint64_t l1_clusters = divide_up(header().l1_size * sizeof(be64), cluster_size());
  return cluster == 0 || (cluster >= l1 && cluster - l1 < l1_clusters);
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

}  // namespace coldchain::ops
