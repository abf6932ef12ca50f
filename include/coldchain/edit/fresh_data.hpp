// SPDX-License-Identifier: MIT
// Guest data that comes with a transaction. It is written when its clusters count, so that nobody
// else takes them, and either before anything refers to them, or where nobody can see it: an image
// above has these guest bytes itself (ops/commit.hpp). So it needs no record, and a kill on the way
// leaves what the guest reads as it was. How far it came is noted in the side file now and then,
// after a flush: who goes on writes at most one batch again. What was written before that is
// compared: others may have freed, used and freed these clusters meanwhile.
#pragma once

#include <array>
#include <functional>
#include <future>
#include <memory>
#include <vector>

#include <coldchain/edit/journal.hpp>

namespace coldchain::edit {

class FreshWriter {
 public:
  // Between two flushes; what may be written again after a kill.
  static constexpr std::uint64_t batch_bytes = 256ULL << 20;

  enum class Mode {
    write,
    check,  // all is there: what is not as it should be is an error
  };

  // Only to `ranges`, which are sorted, may be written. All outlive the writer.
  FreshWriter(io::WritableFile& image, Journal& journal, const std::vector<HostRange>& ranges,
              Mode mode)
      : image_(image),
        journal_(journal),
        ranges_(ranges),
        mode_(mode),
        written_to_(journal.cursor()) {}
  FreshWriter(const FreshWriter&) = delete;
  FreshWriter& operator=(const FreshWriter&) = delete;

  // Provides bytes of a piece that is written, from `from` bytes behind its beginning on. Called
  // later, one after the other, maybe by another thread: what it refers to outlives the writer,
  // also after an error.
  using Fill = std::function<Result<void>(std::uint64_t from, ByteSpan)>;

  // What follows comes before `cursor`, in the order of the operation.
  [[nodiscard]] Result<void> begin(std::uint64_t cursor);

  // A piece; those that lie one behind the other are written together, and so are many others, in
  // the order in which they lie. While they are read, those before them are written.
  [[nodiscard]] Result<void> write(HostOffset at, std::uint64_t size, const Fill& fill);

  [[nodiscard]] Mode mode() const { return mode_; }

  // Nothing is written where the file has a hole.
  [[nodiscard]] Result<void> write_zeros(HostOffset at, std::uint64_t size);

  // All of what was begun was handed over.
  [[nodiscard]] Result<void> end();
  // The same, and it is on the storage when this returns.
  [[nodiscard]] Result<void> flush();

 private:
  struct FreePages {
    void operator()(std::byte* bytes) const;
  };
  // A piece, or a part of it.
  struct Part {
    std::uint64_t from = 0;  // in the piece
    std::uint64_t size = 0;
    Fill fill;
  };
  // Parts one behind the other.
  struct Run {
    HostOffset begin;
    std::uint64_t size = 0;
    std::vector<Part> parts{};
    ByteView content{};  // once it was read

    [[nodiscard]] HostOffset end() const { return begin + size; }
  };
  // What is read, and then written, together.
  struct Load {
    std::vector<Run> runs{};
    std::uint64_t size = 0;
    std::unique_ptr<std::byte[], FreePages> bytes{};

    [[nodiscard]] Result<void> read();
  };

  // One with room for what comes at that place.
  Result<Run*> run_for(HostOffset at);
  // Has what was gathered be read, and writes what was read before.
  Result<void> turn();
  Result<void> write_out();
  Result<void> write_out(const Run& run);
  [[nodiscard]] Result<void> check_place(HostRange range) const;
  [[nodiscard]] bool is_new() const { return mode_ == Mode::write && begun_ > written_to_; }
  [[nodiscard]] Result<bool> is_there(const Run& run) const;
  [[nodiscard]] Load& gathered() { return loads_[gathering_]; }

  io::WritableFile& image_;
  Journal& journal_;
  const std::vector<HostRange>& ranges_;
  Mode mode_;
  std::array<Load, 2> loads_;
  std::size_t gathering_ = 0;          // of them; the other one is being read
  std::future<Result<void>> reading_;  // behind what it reads
  std::uint64_t since_flush_ = 0;
  std::uint64_t since_writeback_ = 0;
  std::uint64_t written_to_;  // the cursor of a former attempt
  std::uint64_t begun_ = 0;
};

struct FreshData {
  std::vector<HostRange> ranges;  // sorted, disjoint
  std::vector<HostRange> zeros;   // parts of them that need no storage; sorted, disjoint
  // All that is to have storage when the change is done, `ranges` among it; empty: these alone.
  std::vector<HostRange> places;
  std::uint64_t whole_size = 0;  // of the file before, up to the end of its last cluster
  // Writes all of it; calls flush() before it returns.
  std::function<Result<void>(FreshWriter&)> write;
};

}  // namespace coldchain::edit
