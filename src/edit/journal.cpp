// SPDX-License-Identifier: MIT
// Order of writes: 1. header and records; flush. 2. the state; flush. Nobody may write to the image
// before 2 has succeeded: a side file without a valid state says that the image was not touched.
#include "wire.hpp"

#include <algorithm>
#include <cstring>
#include <random>

#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/codec/checksum.hpp>
#include <coldchain/edit/journal.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

constexpr std::string_view magic = "CLDCHAIN";
constexpr std::uint32_t former_version = 1;
constexpr std::uint32_t version = 2;
// The state lies in a sector of its own, whatever the sectors' size, so that it is written at once.
constexpr HostOffset header_at{0};
constexpr HostOffset state_at{4096};
constexpr std::uint64_t records_at = 8192;
std::uint64_t draw_nonce() {
  std::random_device device;
  return (std::uint64_t{device()} << 32 | device()) | 1;
}

template <class Wire>
std::uint32_t checksum_of(Wire wire) {
  wire.checksum = 0;
  return codec::crc32(bytes_of(wire));
}

std::uint32_t checksum_of(wire::SideHeader2 header) {
  header.common.checksum = 0;
  return codec::crc32(bytes_of(header));
}

std::uint32_t checksum_of(const wire::RecordHeader& header, ByteView before, ByteView after) {
  return codec::crc32(after, codec::crc32(before, checksum_of(header)));
}

wire::SideHeader2 encode(const JournalFacts& facts, std::uint64_t count, std::uint64_t end) {
  wire::SideHeader2 whole{};
  wire::SideHeader& header = whole.common;
  std::memcpy(header.magic, magic.data(), magic.size());
  header.version = facts.version;
  header.image_device = facts.image.device;
  header.image_inode = facts.image.inode;
  header.image_size_before = facts.size_before;
  header.image_size_after = facts.size_after;
  header.record_count = count;
  header.records_end = end;
  header.kept_clusters = facts.change.kept_clusters;
  header.corruptions_before = facts.change.corruptions_before;
  header.corruptions_after = facts.change.corruptions_after;
  header.keeps_undo = facts.change.keeps_undo ? 1U : 0U;
  header.undoes = facts.change.undoes;
  header.nonce = facts.nonce;
  header.operation = static_cast<std::uint32_t>(facts.change.operation);
  header.argument = facts.change.argument;
  header.phase_count = static_cast<std::uint32_t>(phase_count);
  static_assert(sizeof header.verb == ChangeFacts::most_verb_bytes);
  const std::size_t size = std::min(facts.change.verb.size(), sizeof header.verb);
  header.verb_size = static_cast<std::uint32_t>(size);
  std::memcpy(header.verb, facts.change.verb.data(), size);
  std::copy_n(facts.change.digest.sha256.begin(), sizeof whole.digest, whole.digest);
  header.checksum = checksum_of(whole);
  return whole;
}

// The checksum of the header, as its format has it.
std::uint32_t header_checksum(const wire::SideHeader2& whole) {
  return whole.common.version.get() == former_version ? checksum_of(whole.common)
                                                      : checksum_of(whole);
}

Result<wire::SideHeader2> read_header(const io::File& file) {
  Bytes bytes(sizeof(wire::SideHeader2));
  TRY(io::read_zero_extended(file, header_at, bytes));
  const auto whole = *load<wire::SideHeader2>(bytes, 0);
  const wire::SideHeader& header = whole.common;
  if (std::memcmp(header.magic, magic.data(), magic.size()) != 0)
    return fail(ErrorCode::not_this_format, "is no side file of coldchain");
  if (header.version.get() < former_version || header.version.get() > version)
    return fail(ErrorCode::unsupported,
                fmt::format("is a side file of version {}", header.version.get()));
  const bool is_whole = header.checksum.get() == header_checksum(whole);
  const bool is_newer = header.operation.get() > static_cast<std::uint32_t>(Operation::elsewhere) ||
                        (header.version.get() == version && whole.request_size.get() != 0);
  if (is_whole && is_newer)
    return fail(ErrorCode::unsupported, "is a side file of a newer coldchain");
  if (!is_whole || header.verb_size.get() > sizeof header.verb ||
      header.phase_count.get() != phase_count || header.records_end.get() < records_at ||
      header.image_size_after.get() < header.image_size_before.get())
    return fail(ErrorCode::corrupt, "is a damaged side file: its header contradicts itself");
  return whole;
}

Result<wire::SideState> read_state(const io::File& file) {
  Bytes bytes(sizeof(wire::SideState));
  TRY(io::read_zero_extended(file, state_at, bytes));
  return *load<wire::SideState>(bytes, 0);
}

bool is_valid(const wire::SideState& state) {
  return state.checksum.get() == checksum_of(state) &&
         state.state.get() >= static_cast<std::uint32_t>(JournalState::applying) &&
         state.state.get() <= static_cast<std::uint32_t>(JournalState::linking);
}

// Hostile ones are not much larger than what they take on the storage.
Result<void> check_is_written(const io::File& file) {
  constexpr std::uint64_t always = 256ULL << 20;
  constexpr std::uint64_t most_compression = 256;
  const io::FileStatus& status = file.status();
  // Some file systems do not say yet what they have taken.
  if (status.kind == io::FileKind::regular && status.allocated != 0 && status.size > always &&
      status.size / most_compression > status.allocated)
    return fail(ErrorCode::corrupt, "is a damaged side file: nearly all of it is a hole");
  return {};
}

}  // namespace

bool is_same_plan(const JournalFacts& journal, const PlanDigest& planned) {
  return journal.version == former_version ? journal.change.digest.crc32 == planned.crc32
                                           : journal.change.digest.sha256 == planned.sha256;
}

Result<Journal> Journal::create(io::WritableFile& file, const Transaction& transaction,
                                const io::FileIdentity& image, const ChangeFacts& change) {
  Journal journal(file);
  journal.head_.facts = {version,      image, transaction.size_before(), transaction.size_after(),
                         draw_nonce(), change};
  TRY(journal.write_records(transaction));
  TRY(journal.set_state(JournalState::applying, {}));
  return journal;
}

Result<std::uint64_t> Journal::size_of(const Transaction& transaction) {
  const ChangeCount count = TRY(transaction.count_changes());
  return records_at + count.changes * sizeof(wire::RecordHeader) + 2 * count.bytes;
}

Result<void> Journal::write_records(const Transaction& transaction) {
  std::uint64_t at = records_at;
  const auto write = [&](const Change& change) -> Result<void> {
    wire::RecordHeader header{};
    header.offset = change.offset.value;
    header.length = static_cast<std::uint32_t>(change.after.size());
    header.phase = static_cast<std::uint32_t>(change.phase);
    header.checksum = checksum_of(header, change.before, change.after);
    Bytes record;
    record.reserve(sizeof header + 2 * change.after.size());
    append(record, header);
    record.insert(record.end(), change.before.begin(), change.before.end());
    record.insert(record.end(), change.after.begin(), change.after.end());
    TRY(file_->write_at({at}, record));
    records_.push_back({at, change.offset, header.length.get(), change.phase});
    at += record.size();
    return {};
  };
  TRY(transaction.for_each_change(write));
  TRY(file_->resize(at));
  TRY(file_->write_at(header_at, bytes_of(encode(head_.facts, records_.size(), at))));
  return file_->flush();
}

Result<void> Journal::set_state(JournalState state, io::Timestamp image_modified) {
  head_.state = state;
  head_.image_modified = image_modified;
  return write_state();
}

Result<void> Journal::set_cursor(std::uint64_t cursor) {
  head_.cursor = cursor;
  return write_state();
}

Result<void> Journal::write_state() {
  wire::SideState wire{};
  wire.state = static_cast<std::uint32_t>(head_.state);
  wire.modified_seconds = static_cast<std::uint64_t>(head_.image_modified.seconds);
  wire.modified_nanoseconds = head_.image_modified.nanoseconds;
  wire.cursor = head_.cursor;
  wire.checksum = checksum_of(wire);
  TRY(file_->write_at(state_at, bytes_of(wire)));
  return file_->flush();
}

Result<bool> Journal::is_incomplete(const io::File& file) {
  Bytes bytes(records_at);
  TRY(io::read_zero_extended(file, header_at, bytes));
  const ByteView begin = ByteView(bytes).first(magic.size());
  const ByteView state = ByteView(bytes).subspan(state_at.value, sizeof(wire::SideState));
  return (to_string(begin) == magic || is_zero(begin)) && is_zero(state);
}

Result<JournalHead> Journal::read_head(const io::File& file) {
  const wire::SideHeader2 whole = TRY(read_header(file));
  const wire::SideHeader& header = whole.common;
  const wire::SideState state = TRY(read_state(file));
  if (!is_valid(state))
    return fail(ErrorCode::corrupt, "is a damaged side file: its state cannot be read");
  if (header.records_end.get() != file.size())
    return fail(ErrorCode::corrupt, "is a damaged side file: it does not end with its records");
  JournalHead head;
  head.facts.version = header.version.get();
  head.facts.image = {header.image_device.get(), header.image_inode.get()};
  head.facts.size_before = header.image_size_before.get();
  head.facts.size_after = header.image_size_after.get();
  ChangeFacts& change = head.facts.change;
  change.verb = to_string(ByteView(header.verb).first(header.verb_size.get()));
  change.kept_clusters = header.kept_clusters.get();
  change.corruptions_before = header.corruptions_before.get();
  change.corruptions_after = header.corruptions_after.get();
  change.keeps_undo = header.keeps_undo.get() != 0;
  change.undoes = header.undoes.get();
  head.facts.nonce = header.nonce.get();
  change.operation = static_cast<Operation>(header.operation.get());
  change.argument = header.argument.get();
  change.digest.crc32 = header.digest.get();
  std::copy_n(whole.digest, sizeof whole.digest, change.digest.sha256.begin());
  head.cursor = state.cursor.get();
  head.state = static_cast<JournalState>(state.state.get());
  head.image_modified = {static_cast<std::int64_t>(state.modified_seconds.get()),
                         state.modified_nanoseconds.get()};
  return head;
}

Result<Journal> Journal::open(io::WritableFile& file) {
  TRY(check_is_written(file));
  Journal journal(file);
  journal.head_ = TRY(read_head(file));
  const wire::SideHeader2 header = TRY(read_header(file));
  TRY(journal.index_records(header.common.record_count.get()));
  return journal;
}

Result<void> Journal::index_records(std::uint64_t count) {
  const std::uint64_t end = file_->size();
  std::uint64_t at = records_at;
  if (end < at)
    return fail(ErrorCode::corrupt, "is a damaged side file: it ends before its records");
  Phase last{};
  std::uint64_t last_end = 0;  // of the last record of the same phase: they come in order
  for (std::uint64_t i = 0; i < count; ++i) {
    Bytes bytes(sizeof(wire::RecordHeader));
    TRY(io::read_exactly(*file_, {at}, bytes, "record of the side file"));
    const auto header = *load<wire::RecordHeader>(bytes, 0);
    const std::uint64_t offset = header.offset.get();
    const std::uint64_t length = header.length.get();
    const auto image_end = checked_add(offset, length);
    // The last sector of a file may be cut.
    const bool is_bad = length == 0 || length > Transaction::most_change_bytes ||
                        !is_aligned(offset | length, sector_size) || !image_end ||
                        *image_end >= facts().size_after + sector_size ||
                        header.phase.get() >= phase_count ||
                        static_cast<Phase>(header.phase.get()) < last ||
                        (static_cast<Phase>(header.phase.get()) == last && offset < last_end);
    const std::uint64_t record_size = sizeof(wire::RecordHeader) + 2 * length;
    if (is_bad || end - at < record_size)
      return fail(ErrorCode::corrupt,
                  fmt::format("is a damaged side file: record {} contradicts itself", i));
    last = static_cast<Phase>(header.phase.get());
    last_end = offset + length;
    records_.push_back({at, {offset}, header.length.get(), last});
    at += record_size;
  }
  if (at != end)
    return fail(ErrorCode::corrupt, "is a damaged side file: it does not end with its last record");
  return {};
}

Result<Change> Journal::read_change(std::size_t index) const {
  const Record& record = records_[index];
  Bytes bytes(sizeof(wire::RecordHeader) + 2ULL * record.length);
  TRY(io::read_exactly(*file_, {record.at}, bytes, "record of the side file"));
  const auto header = *load<wire::RecordHeader>(bytes, 0);
  const auto begin = bytes.begin() + sizeof(wire::RecordHeader);
  const auto middle = begin + record.length;
  Change change{record.phase, record.offset, Bytes(begin, middle), Bytes(middle, bytes.end())};
  if (header.length.get() != record.length || header.offset.get() != record.offset.value ||
      header.checksum.get() != checksum_of(header, change.before, change.after))
    return fail(ErrorCode::corrupt,
                fmt::format("is a damaged side file: the checksum of record {} is wrong", index));
  return change;
}

Result<void> Journal::read_part(std::size_t index, bool is_after, HostRange part,
                                ByteSpan buffer) const {
  const Record& record = records_[index];
  const std::uint64_t from = part.begin - record.offset + (is_after ? record.length : 0);
  return io::read_exactly(*file_, {record.at + sizeof(wire::RecordHeader) + from}, buffer,
                          "record of the side file");
}

}  // namespace coldchain::edit
