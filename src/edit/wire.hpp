// SPDX-License-Identifier: MIT
// The structures of a side file as they lie in it. docs/formats/journal.md.
#pragma once

#include <cstddef>

#include <coldchain/base/endian.hpp>

namespace coldchain::edit::wire {

// Of both formats.
struct SideHeader {
  std::byte magic[8];
  be32 version;
  be32 checksum;  // of the whole header, with this field 0
  be64 image_device;
  be64 image_inode;
  be64 image_size_before;
  be64 image_size_after;
  be64 record_count;
  be64 records_end;  // bytes; the size of the side file
  be64 kept_clusters;
  be64 corruptions_before;
  be64 corruptions_after;
  be32 phase_count;
  be32 verb_size;
  be32 keeps_undo;  // 0 or 1
  be32 operation;
  be64 argument;
  be32 digest;  // in format 1; then 0
  be32 reserved;
  be64 undoes;
  be64 nonce;
  std::byte verb[256];
};
static_assert(sizeof(SideHeader) == 392);
static_assert(offsetof(SideHeader, image_device) == 16 && offsetof(SideHeader, verb) == 136);

// What format 2 has behind that, up to the state.
struct SideHeader2 {
  SideHeader common;
  std::byte digest[32];  // SHA-256
  be32 request_size;     // bytes of what follows; 0 as long as no request is written
  be32 reserved;
  std::byte request[3664];
};
static_assert(sizeof(SideHeader2) == 4096);
static_assert(offsetof(SideHeader2, digest) == 392 && offsetof(SideHeader2, request) == 432);

struct SideState {
  be32 state;
  be32 checksum;  // of the state, with this field 0
  be64 modified_seconds;
  be32 modified_nanoseconds;
  be32 reserved;
  be64 cursor;
};
static_assert(sizeof(SideState) == 32);

struct RecordHeader {
  be64 offset;
  be32 length;
  be32 phase;
  be32 checksum;  // of the header with this field 0, and of the bytes that follow
  be32 reserved;
};
static_assert(sizeof(RecordHeader) == 24);

}  // namespace coldchain::edit::wire
