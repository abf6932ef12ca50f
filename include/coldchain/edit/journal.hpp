// SPDX-License-Identifier: MIT
// A side file: everything that a change does to an image, written before the first byte of the
// image changes. While it is pending it leads forward or back; once done it is kept, and undoes the
// change. docs/formats/journal.md. Contents are hostile until their checksums and bounds are
// checked; what can be checked only against the image is checked in recovery.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <coldchain/codec/digest.hpp>
#include <coldchain/edit/transaction.hpp>

namespace coldchain::edit {

enum class JournalState : std::uint32_t {
  // The image may hold any part of the change; of one with data, what comes before that.
  applying = 1,
  done = 2,     // the image holds all of it
  undoing = 3,  // the image may hold any part of it, and goes back
  undone = 4,   // the image is as it was before
  writing = 5,  // data is being written to clusters that count already (fresh_data.hpp)
  linking = 6,  // the data is there; the rest of the change follows
};

// What makes a change, where it is more than its records: who goes on must plan it again.
enum class Operation : std::uint32_t {
  none = 0,
  pull = 1,
  rebase = 2,
  // Of two images that change together: the base first, whose side file stays until the top, whose
  // data is what was done to the base, is done, too.
  commit_base = 3,
  commit_top = 4,       // which is emptied
  commit_top_kept = 5,  // which stays as it is
  allocate = 6,         // its command says the range
  // Whole in its records: an image is pointed at another backing file, which shows the same now.
  reparent = 7,
};
[[nodiscard]] constexpr bool has_data(Operation operation) {
  return operation != Operation::none && operation != Operation::reparent;
}
// Such a change follows names in image headers, and reads or writes other files than its own image.
[[nodiscard]] constexpr bool is_planned_again(Operation operation) {
  return operation != Operation::none;
}
[[nodiscard]] constexpr bool is_commit_top(Operation operation) {
  return operation == Operation::commit_top || operation == Operation::commit_top_kept;
}

// By what a plan is known again: of the request, of the metadata that was read and will be written,
// and of the identity, size and time of each image, not of guest data. What a user could change
// without anybody seeing it would not be that plan.
struct PlanDigest {
  codec::Digest sha256{};
  std::uint32_t crc32 = 0;  // what journals of format 1 have instead
};

// What a change is, in the words of whoever makes it.
struct ChangeFacts {
  static constexpr std::size_t most_verb_bytes = 256;  // what is longer is cut

  std::string verb{};  // what was asked for: told to people, and its options read by who goes on
  // Clusters to which nothing refers, and that the change left counted: they may be lost data.
  std::uint64_t kept_clusters = 0;
  // What a check counts as corruptions: where a roll would leave more, somebody wrote meanwhile.
  std::uint64_t corruptions_before = 0;
  std::uint64_t corruptions_after = 0;
  // Whether the side file is kept for an undo. Where clusters were kept it is, and stays beside the
  // image: later changes know of them by it.
  bool keeps_undo = true;
  // In the marker of an undo under way: the nonce of the undo file; 0 in all others.
  std::uint64_t undoes = 0;
  Operation operation{};
  std::uint64_t argument = 0;  // what the operation needs to know to be planned again
  PlanDigest digest{};         // of the plan: a run that continues it must come to the same
};

struct JournalFacts {
  std::uint32_t version = 0;  // of the format
  io::FileIdentity image;
  std::uint64_t size_before = 0;  // of the image, in bytes
  std::uint64_t size_after = 0;
  std::uint64_t nonce = 0;  // drawn when it was made: it and its copies alone have it; never 0
  ChangeFacts change;
};

// Whether a plan that is made now is the one that was written down.
[[nodiscard]] bool is_same_plan(const JournalFacts& journal, const PlanDigest& planned);

// What the beginning of a side file says.
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
  // For those who only look.
  [[nodiscard]] static Result<JournalHead> read_head(const io::File& file);

  // Whether it was never finished, so that the image cannot have been touched.
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
  // The bytes after a change, or before it, of a part of its range. Their checksum is not looked
  // at: read_change() does that.
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
