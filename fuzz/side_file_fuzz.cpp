// SPDX-License-Identifier: MIT
// A side file with hostile contents: its checksums are made right first, so that what lies behind
// them is reached. The image changes in no other way than the records say, and going forward and
// back ends where it began.
#include "fuzz_files.hpp"
#include "wire.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>

#include <coldchain/base/try.hpp>
#include <coldchain/codec/checksum.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/io/memory_file.hpp>

namespace {

using namespace coldchain;
using namespace coldchain::edit;

constexpr std::uint64_t most_bytes = 1 << 22;

template <class Wire>
void put(Bytes& bytes, std::size_t at, const Wire& wire) {
  std::copy_n(bytes_of(wire).begin(), sizeof wire, bytes.begin() + static_cast<std::ptrdiff_t>(at));
}

void set_checksums(Bytes& bytes) {
  auto whole = load<wire::SideHeader2>(bytes, 0);
  if (whole) {
    wire::SideHeader& header = whole->common;
    header.records_end = bytes.size();
    header.checksum = 0;
    header.checksum = codec::crc32(header.version.get() == 1 ? bytes_of(header) : bytes_of(*whole));
    put(bytes, 0, *whole);
  }
  if (auto state = load<wire::SideState>(bytes, 4096)) {
    state->checksum = 0;
    state->checksum = codec::crc32(bytes_of(*state));
    put(bytes, 4096, *state);
  }
  for (std::size_t at = 8192; at < bytes.size();) {
    auto record = load<wire::RecordHeader>(bytes, at);
    if (!record || bytes.size() - at - sizeof *record < 2ULL * record->length.get())
      return;
    const std::size_t content = 2ULL * record->length.get();
    record->checksum = 0;
    const ByteView payload = ByteView(bytes).subspan(at + sizeof *record, content);
    record->checksum = codec::crc32(payload, codec::crc32(bytes_of(*record)));
    put(bytes, at, *record);
    at += sizeof *record + content;
  }
}

// The image that the side file was made for, as far as its records tell.
Bytes image_before(const Journal& journal) {
  Bytes image(journal.facts().size_before);
  for (std::size_t i = journal.change_count(); i-- > 0;) {
    const auto change = journal.read_change(i);
    if (!change || change->offset.value >= image.size())
      continue;
    const std::size_t count =
        std::min<std::size_t>(change->before.size(), image.size() - change->offset.value);
    std::copy_n(change->before.begin(), count,
                image.begin() + static_cast<std::ptrdiff_t>(change->offset.value));
  }
  return image;
}

// What a roll is said to leave.
std::optional<Bytes> content_of(const Result<std::unique_ptr<io::File>>& rolled) {
  if (!rolled)
    return std::nullopt;
  Bytes content((*rolled)->size());
  if ((*rolled)->read_at({0}, content) != content.size())
    std::abort();
  return content;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes = fuzz::to_bytes(data, size);
  set_checksums(bytes);
  io::MemoryFile side(std::move(bytes), 1);
  (void)Journal::is_incomplete(side);
  const auto journal = Journal::open(side);
  if (!journal || journal->facts().size_before > most_bytes ||
      journal->facts().size_after > most_bytes)
    return 0;
  const Bytes before = image_before(*journal);
  io::MemoryFile image(before);
  // The journal outlives what is read of it.
  const std::shared_ptr<const Journal> shared(std::shared_ptr<const Journal>(), &*journal);
  const auto planned = content_of(result_of_roll(shared, image, true));
  if (!roll_forward(*journal, image)) {
    if (image.content() != before)
      std::abort();
    return 0;
  }
  const Bytes after = image.content();
  if (planned != after || content_of(result_of_roll(shared, image, false)) != before)
    std::abort();
  if (!roll_forward(*journal, image) || image.content() != after)
    std::abort();
  if (!roll_back(*journal, image) || image.content() != before)
    std::abort();
  return 0;
}
