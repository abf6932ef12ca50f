// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <coldchain/io/memory_file.hpp>
#include <coldchain/qcow2/geometry.hpp>
#include <coldchain/qcow2/snapshots.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::qcow2;

namespace {

Snapshot some_snapshot(std::size_t extra) {
  Snapshot snapshot;
  snapshot.l1_table_offset = 0x30000;
  snapshot.l1_size = 4;
  snapshot.date_sec = 1;
  snapshot.date_nsec = 2;
  snapshot.vm_clock_nsec = 3;
  snapshot.vm_state_size_32 = 4;
  snapshot.extra_data = Bytes(extra, std::byte{0});
  snapshot.id = "12";
  snapshot.name = "before the update";
  return snapshot;
}

}  // namespace

TEST_CASE("snapshots: decoding what was encoded gives the same table, whatever the extra data") {
  const std::vector<Snapshot> snapshots = {some_snapshot(0), some_snapshot(16), some_snapshot(24),
                                           some_snapshot(37)};
  const Bytes bytes = encode_snapshots(snapshots);
  CHECK(decode_snapshots(bytes, 4).value() == snapshots);
}

TEST_CASE("snapshots: a table that ends inside an entry is an error at every length") {
  const Bytes bytes = encode_snapshots({some_snapshot(16)});
  const std::size_t needed = 40 + 16 + 2 + 17;
  for (std::size_t size = 0; size < needed; ++size)
    CHECK_FALSE(decode_snapshots(ByteView(bytes).first(size), 1));
  CHECK(decode_snapshots(ByteView(bytes).first(needed), 1));
}

TEST_CASE("snapshots: extra data is refused above 1024 bytes") {
  CHECK(decode_snapshots(encode_snapshots({some_snapshot(1024)}), 1));
  CHECK_FALSE(decode_snapshots(encode_snapshots({some_snapshot(1025)}), 1));
}

TEST_CASE("snapshots: extra data overrides the 32-bit state size and adds disk size and icount") {
  Snapshot snapshot = some_snapshot(0);
  CHECK(snapshot.vm_state_size() == 4);
  CHECK_FALSE(snapshot.disk_size().has_value());
  append(snapshot.extra_data, be64(1ULL << 33));
  append(snapshot.extra_data, be64(77));
  CHECK(snapshot.vm_state_size() == 1ULL << 33);
  CHECK(snapshot.disk_size() == 77);
  CHECK_FALSE(snapshot.icount().has_value());
  append(snapshot.extra_data, be64(~0ULL));
  CHECK_FALSE(snapshot.icount().has_value());
}

TEST_CASE("find_snapshot: an ID wins over a name") {
  std::vector<Snapshot> snapshots = {some_snapshot(0), some_snapshot(0)};
  snapshots[0].name = "2";
  snapshots[0].id = "1";
  snapshots[1].id = "2";
  CHECK(find_snapshot(snapshots, "2") == &snapshots[1]);
  CHECK(find_snapshot(snapshots, "before the update") == &snapshots[1]);
  CHECK(find_snapshot(snapshots, "none") == nullptr);
}

TEST_CASE("read_snapshots: a table longer than one read is read whole; too many are refused") {
  testing::ImageBuilder builder{testing::ImageOptions{}};
  for (int i = 0; i < 300; ++i)
    builder.snapshot(std::to_string(i), std::string(400, 'n'));
  const io::MemoryFile file(builder.build().flat());
  Header header = read_header(file).value();
  CHECK(read_snapshots(file, header).value().size() == 300);
  header.nb_snapshots = limits::max_snapshots + 1;
  CHECK_FALSE(read_snapshots(file, header));
  header.nb_snapshots = 300;
  header.snapshots_offset += 8;
  CHECK_FALSE(read_snapshots(file, header));
}
