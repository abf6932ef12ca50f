// SPDX-License-Identifier: MIT
// Every structure of a qcow2 file, field for field and named as in the specification
// (qcow2.rst). Only bytes: meaning, limits and native types are in the file of each topic.
#pragma once

#include <cstddef>

#include <coldchain/base/endian.hpp>

namespace coldchain::qcow2::wire {

// qcow2.rst, "Header": all of version 2.
struct Header {
  be32 magic;
  be32 version;
  be64 backing_file_offset;
  be32 backing_file_size;
  be32 cluster_bits;
  be64 size;
  be32 crypt_method;
  be32 l1_size;
  be64 l1_table_offset;
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
  be32 nb_snapshots;
  be64 snapshots_offset;
};
static_assert(sizeof(Header) == 72);
static_assert(offsetof(Header, cluster_bits) == 20 && offsetof(Header, l1_size) == 36);
static_assert(offsetof(Header, snapshots_offset) == 64);

// qcow2.rst, "Header": what version 3 adds, at byte 72.
struct HeaderVersion3 {
  be64 incompatible_features;
  be64 compatible_features;
  be64 autoclear_features;
  be32 refcount_order;
  be32 header_length;
};
static_assert(sizeof(HeaderVersion3) == 32);
static_assert(offsetof(HeaderVersion3, refcount_order) == 24);

// qcow2.rst, "Header extensions".
struct Extension {
  be32 type;
  be32 length;
};
static_assert(sizeof(Extension) == 8);

// qcow2.rst, "Feature name table".
struct FeatureName {
  std::byte type;
  std::byte bit;
  std::byte name[46];
};
static_assert(sizeof(FeatureName) == 48);

// qcow2.rst, "Bitmaps extension".
struct BitmapsExtension {
  be32 nb_bitmaps;
  be32 reserved;
  be64 bitmap_directory_size;
  be64 bitmap_directory_offset;
};
static_assert(sizeof(BitmapsExtension) == 24);

// qcow2.rst, "Full disk encryption header pointer".
struct EncryptionHeaderPointer {
  be64 offset;
  be64 length;
};
static_assert(sizeof(EncryptionHeaderPointer) == 16);

// qcow2.rst, "Snapshots": the fixed part of a table entry.
struct Snapshot {
  be64 l1_table_offset;
  be32 l1_size;
  be16 id_size;
  be16 name_size;
  be32 date_sec;
  be32 date_nsec;
  be64 vm_clock_nsec;
  be32 vm_state_size;
  be32 extra_data_size;
};
static_assert(sizeof(Snapshot) == 40);
static_assert(offsetof(Snapshot, vm_clock_nsec) == 24 && offsetof(Snapshot, extra_data_size) == 36);

// qcow2.rst, "Bitmap directory": the fixed part of an entry.
struct Bitmap {
  be64 bitmap_table_offset;
  be32 bitmap_table_size;
  be32 flags;
  std::byte type;
  std::byte granularity_bits;
  be16 name_size;
  be32 extra_data_size;
};
static_assert(sizeof(Bitmap) == 24);
static_assert(offsetof(Bitmap, granularity_bits) == 17 && offsetof(Bitmap, extra_data_size) == 20);

// LUKS1 On-Disk Format Specification, "partition header".
struct LuksKeySlot {
  be32 active;
  be32 iterations;
  std::byte salt[32];
  be32 key_material_offset;  // in 512-byte sectors
  be32 stripes;
};
static_assert(sizeof(LuksKeySlot) == 48);

struct LuksHeader {
  std::byte magic[6];
  be16 version;
  std::byte cipher_name[32];
  std::byte cipher_mode[32];
  std::byte hash_spec[32];
  be32 payload_offset;  // in 512-byte sectors
  be32 key_bytes;
  std::byte mk_digest[20];
  std::byte mk_digest_salt[32];
  be32 mk_digest_iterations;
  std::byte uuid[40];
  LuksKeySlot key_slots[8];
};
static_assert(sizeof(LuksHeader) == 592);
static_assert(offsetof(LuksHeader, payload_offset) == 104 && offsetof(LuksHeader, uuid) == 168);

}  // namespace coldchain::qcow2::wire
