// SPDX-License-Identifier: MIT
#include "plan_digest.hpp"

#include "extents.hpp"

#include <utility>

#include <coldchain/base/try.hpp>
#include <coldchain/codec/checksum.hpp>

namespace coldchain::ops {

namespace {

// Identity, size and time: of whatever else changes, the owner of the file can put these back, but
// not the metadata of the image, which the pieces have.
std::vector<std::uint64_t> facts_of(const std::vector<const graph::Node*>& nodes) {
  std::vector<std::uint64_t> facts;
  for (const graph::Node* node : nodes) {
    for (const io::File* file : {node->file.get(), node->data_file.get()}) {
      if (file == nullptr)
        continue;
      const io::FileStatus& status = file->status();
      facts.insert(facts.end(), {status.lasting_identity.inode, status.size,
                                 static_cast<std::uint64_t>(status.modified.seconds),
                                 std::uint64_t{status.modified.nanoseconds}});
    }
  }
  return facts;
}

}  // namespace

void PlanDigester::add(const Piece& piece) {
  if (piece.sources.empty()) {
    analysis::Extent whole;
    whole.guest = piece.guest;
    add(piece.kind, whole);
  }
  for (const analysis::Extent& source : piece.sources) {
    // Zeros in place become holes, and are no piece any more when the change is continued.
    if (piece.kind != PieceKind::overwrite || !reads_as_zeros(source))
      add(piece.kind, source);
  }
}

void PlanDigester::add(PieceKind kind, analysis::Extent extent) {
  if (extent.layer == written_)
    extent.zero = extent.data = false;
  if (extent_ && kind == kind_ && analysis::continues_in_qemu(*extent_, extent)) {
    extent_->guest.end = extent.guest.end;
    return;
  }
  add_pending();
  kind_ = kind;
  extent_ = extent;
}

void PlanDigester::add_pending() {
  if (!extent_)
    return;
  const analysis::Extent extent = *std::exchange(extent_, std::nullopt);
  Bytes bytes;
  const std::uint64_t flags = (extent.present ? 1U : 0U) | (extent.zero ? 2U : 0U) |
                              (extent.data ? 4U : 0U) | (extent.has_host ? 8U : 0U) |
                              (extent.compressed ? 16U : 0U) | (extent.past_end ? 32U : 0U);
  for (const std::uint64_t number :
       {static_cast<std::uint64_t>(kind_), extent.guest.begin.value, extent.guest.end.value,
        extent.has_host ? extent.host.value : 0, std::uint64_t{extent.layer}, flags})
    append(bytes, be64(number));
  sha256_.update(bytes);
}

Result<edit::PlanDigest> PlanDigester::finish(std::string_view request, std::uint64_t argument,
                                              const edit::Transaction& transaction,
                                              const std::vector<const graph::Node*>& others) {
  add_pending();
  edit::PlanDigest digest;
  sha256_.update_text(request);
  // The journal has the sizes of the image, and compares them.
  sha256_.update(argument);
  sha256_.update(transaction.view().status().lasting_identity.inode);
  TRY(transaction.for_each_change([&](const edit::Change& change) -> Result<void> {
    sha256_.update(static_cast<std::uint64_t>(change.phase));
    sha256_.update(change.offset.value);
    sha256_.update(std::uint64_t{change.after.size()});
    // What a cluster held that nobody refers to decides nothing.
    if (change.phase != edit::Phase::fresh)
      sha256_.update(change.before);
    sha256_.update(change.after);
    digest.crc32 = codec::crc32(bytes_of(be64(change.offset.value)), digest.crc32);
    digest.crc32 = codec::crc32(change.after, digest.crc32);
    return {};
  }));
  for (const std::uint64_t fact : facts_of(others)) {
    sha256_.update(fact);
    digest.crc32 = codec::crc32(bytes_of(be64(fact)), digest.crc32);
  }
  digest.sha256 = sha256_.finish();
  return digest;
}

}  // namespace coldchain::ops
