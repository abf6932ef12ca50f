// SPDX-License-Identifier: MIT
// Guest data that comes with a transaction. It is written when its clusters have a refcount, so
// that no other writer takes them. At that time nothing refers to the clusters, or a layer above
// hides them (ops/commit.hpp). Therefore the data needs no record, and a kill does not change what
// the guest reads. After a flush, the side file records the progress, so that a run that continues
// writes at most one batch again. It compares the data that was written before, because other
// programs may have freed, used and freed these clusters again.
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
  // The bytes between two flushes. At most these are written again after a kill.
  static constexpr std::uint64_t batch_bytes = 256ULL << 20;

  enum class Mode {
    write,
    check,  // does not write; missing or different data is an error
  };

  // Writes only to `ranges`, which are sorted. All arguments outlive the writer.
  FreshWriter(io::WritableFile& image, Journal& journal, const std::vector<HostRange>& ranges,
              Mode mode)
      : image_(image),
        journal_(journal),
        ranges_(ranges),
        mode_(mode),
        written_to_(journal.cursor()) {}
  FreshWriter(const FreshWriter&) = delete;
  FreshWriter& operator=(const FreshWriter&) = delete;

  // Provides bytes of a piece, starting at its offset `from`. It is called later, possibly by
  // another thread, but never twice at the same time. Objects that it refers to outlive the writer,
  // also after an error.
  using Fill = std::function<Result<void>(std::uint64_t from, ByteSpan)>;

  // The next pieces come before `cursor`, in the order of the operation.
  [[nodiscard]] Result<void> begin(std::uint64_t cursor);

  // Adds a piece. Adjacent pieces are written together, and so are many other pieces, in the order
  // of their offsets. Reading the next pieces overlaps with writing the previous ones.
  [[nodiscard]] Result<void> write(HostOffset at, std::uint64_t size, const Fill& fill);

  [[nodiscard]] Mode mode() const { return mode_; }

  // Whether the pieces since begin() are written, and not only compared with what a former attempt
  // wrote.
  [[nodiscard]] bool is_new() const { return mode_ == Mode::write && begun_ > written_to_; }

  // Writes zeros, but nothing into holes of the file.
  [[nodiscard]] Result<void> write_zeros(HostOffset at, std::uint64_t size);

  // All pieces since begin() were added.
  [[nodiscard]] Result<void> end();
  // The same, and all data is on the storage when this returns.
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
  // Starts to read the gathered pieces, and writes the pieces that were read before.
  Result<void> turn();
  Result<void> write_out();
  Result<void> write_out(const Run& run);
  [[nodiscard]] Result<void> check_place(HostRange range) const;
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
  // All ranges that have storage when the change is done, including `ranges`; if empty, `ranges`
  // alone.
  std::vector<HostRange> places;
  std::uint64_t whole_size = 0;  // of the file before, up to the end of its last cluster
  // Writes all of it; calls flush() before it returns.
  std::function<Result<void>(FreshWriter&)> write;
};

}  // namespace coldchain::edit
