// SPDX-License-Identifier: MIT
// A side file describes all that a change does to an image. It is written before the first byte of
// the image changes. While the change is pending, it allows to finish the change or to roll it
// back. After the change it can be kept, and undoes the change. docs/formats/journal.md. The
// content is hostile until its checksums and bounds are checked. recovery.hpp checks what can be
// checked only against the image.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <coldchain/codec/digest.hpp>
#include <coldchain/edit/transaction.hpp>

namespace coldchain::edit {

enum class JournalState : std::uint32_t {
  // The image may hold any part of the change; for a change with data, any part that comes before
  // the data.
  applying = 1,
  done = 2,     // the image holds all of it
  undoing = 3,  // the image may hold any part of it, and is rolled back
  undone = 4,   // the image is as it was before
  writing = 5,  // data is being written to allocated clusters (fresh_data.hpp)
  linking = 6,  // the data is there; the rest of the change follows
};

// The operation of a change that is more than its records. To continue it, it must be planned
// again.
enum class Operation : std::uint32_t {
  none = 0,
  pull = 1,
  rebase = 2,
  // Two images that change together. The base comes first; its side file stays until the top is
  // done, too. The data of the top is the change of the base.
  commit_base = 3,
  commit_top = 4,       // which is emptied
  commit_top_kept = 5,  // which stays as it is
  allocate = 6,         // its command says the range
  // Complete in its records: the image gets another backing file that shows the same data.
  reparent = 7,
  // A marker: the journal of the change lies in another folder. The argument is the inode of that
  // folder, and the command is its path, which is printed and never opened.
  elsewhere = 8,
};
[[nodiscard]] constexpr bool has_data(Operation operation) {
  return operation != Operation::none && operation != Operation::reparent &&
         operation != Operation::elsewhere;
}
// Such a change follows names in image headers, and reads or writes other files than its own image.
[[nodiscard]] constexpr bool is_planned_again(Operation operation) {
  return operation != Operation::none && operation != Operation::elsewhere;
}
[[nodiscard]] constexpr bool is_commit_top(Operation operation) {
  return operation == Operation::commit_top || operation == Operation::commit_top_kept;
}

// Identifies a plan. It covers the request, the metadata that was read and will be written, and the
// identity, size and time of each image, but no guest data. If a user can change something
// unnoticed, the digest must cover it.
struct PlanDigest {
  codec::Digest sha256{};
  std::uint32_t crc32 = 0;  // what journals of format 1 have instead
};

// What the caller of commit() says about a change.
struct ChangeFacts {
  static constexpr std::size_t most_verb_bytes = 256;  // what is longer is cut

  std::string verb{};  // the request: printed for people; its options are needed to continue
  // Unreferenced clusters whose refcount the change keeps: they may hold lost data.
  std::uint64_t kept_clusters = 0;
  // The corruptions that a check counts. If a roll would leave more, another program has written to
  // the image.
  std::uint64_t corruptions_before = 0;
  std::uint64_t corruptions_after = 0;
  // Whether the side file is kept for an undo. If clusters were kept, it is always kept and stays
  // beside the image, because later changes find these clusters by it.
  bool keeps_undo = true;
  // In the marker of a running undo: the nonce of the undo file; 0 in all others.
  std::uint64_t undoes = 0;
  Operation operation{};
  std::uint64_t argument = 0;  // the argument for planning the operation again
  PlanDigest digest{};         // of the plan: a run that continues it must have the same
};

struct JournalFacts {
  std::uint32_t version = 0;  // of the format
  io::FileIdentity image;
  std::uint64_t size_before = 0;  // of the image, in bytes
  std::uint64_t size_after = 0;
  std::uint64_t nonce = 0;  // drawn when it was made: it and its copies alone have it; never 0
  ChangeFacts change;
};

// Whether the new plan is the recorded one.
[[nodiscard]] bool is_same_plan(const JournalFacts& journal, const PlanDigest& planned);

// The content of the first sectors of a side file.
struct JournalHead {
  JournalFacts facts;
  JournalState state{};
  io::Timestamp image_modified;  // as of when the state was set
  std::uint64_t cursor = 0;      // how far data is written, in the operation's words
};

class Journal {
 public:
  // Writes all changes of `transaction` to the empty `file`, which outlives the journal; its state
  // is `applying` once all of it is on the storage.
  [[nodiscard]] static Result<Journal> create(io::WritableFile& file,
                                              const Transaction& transaction,
                                              const io::FileIdentity& image,
                                              const ChangeFacts& change);

  // Bytes of the side file for a transaction.
  [[nodiscard]] static Result<std::uint64_t> size_of(const Transaction& transaction);

  // Errors: not_this_format, unsupported, corrupt.
  [[nodiscard]] static Result<Journal> open(io::WritableFile& file);
  // For verbs that only read.
  [[nodiscard]] static Result<JournalHead> read_head(const io::File& file);

  // Whether the side file is incomplete. In this case the image was not written.
  [[nodiscard]] static Result<bool> is_incomplete(const io::File& file);

  [[nodiscard]] const JournalHead& head() const { return head_; }
  [[nodiscard]] const JournalFacts& facts() const { return head_.facts; }
  [[nodiscard]] JournalState state() const { return head_.state; }
  [[nodiscard]] io::Timestamp image_modified() const { return head_.image_modified; }
  [[nodiscard]] std::uint64_t cursor() const { return head_.cursor; }

  // Durable when it returns.
  [[nodiscard]] Result<void> set_state(JournalState state, io::Timestamp image_modified);
  [[nodiscard]] Result<void> set_cursor(std::uint64_t cursor);

  [[nodiscard]] std::size_t change_count() const { return records_.size(); }
  [[nodiscard]] Phase phase_of(std::size_t index) const { return records_[index].phase; }
  // In the image.
  [[nodiscard]] HostRange range_of(std::size_t index) const {
    const Record& record = records_[index];
    return {record.offset, record.offset + record.length};
  }
  [[nodiscard]] Result<Change> read_change(std::size_t index) const;
  // The bytes after or before a change, for a part of its range. The checksum is not tested:
  // read_change() tests it.
  [[nodiscard]] Result<void> read_part(std::size_t index, bool is_after, HostRange part,
                                       ByteSpan buffer) const;

 private:
  struct Record {
    std::uint64_t at = 0;  // in the side file
    HostOffset offset;
    std::uint32_t length = 0;
    Phase phase{};
  };

  explicit Journal(io::WritableFile& file) : file_(&file) {}
  Result<void> write_records(const Transaction& transaction);
  Result<void> write_state();
  Result<void> index_records(std::uint64_t count);

  io::WritableFile* file_;
  JournalHead head_;
  std::vector<Record> records_;
};

}  // namespace coldchain::edit
