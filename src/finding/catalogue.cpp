// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cassert>

#include <coldchain/finding/catalogue.hpp>

#include <fmt/format.h>

namespace coldchain::finding {

namespace {

using enum Severity;

constexpr std::array rows = {
    Row{Code::link_missing, "link-missing", fatal, "A backing or data file does not exist.",
        "Put the file back, or record its new path in the image above it."},
    Row{Code::link_not_permitted, "link-not-permitted", fatal,
        "A backing or data file may not be read.", "Run as a user who may read it."},
    Row{Code::link_unreadable, "link-unreadable", fatal,
        "A backing or data file exists but cannot be opened as the recorded format.",
        "Look at that file alone with 'coldchain info'."},
    Row{Code::link_loop, "link-loop", fatal,
        "The chain comes back to an image that is already in it.",
        "Correct the backing file name of one of the images in the loop."},
    Row{Code::link_outside_root, "link-outside-root", fatal,
        "A name leads outside the directory given with --root.",
        "If that is intended, run without --root."},
    Row{Code::link_too_deep, "link-too-deep", fatal, "The chain has more than 1,024 layers.",
        "Shorten the chain."},
    Row{Code::link_not_followed, "link-not-followed", note,
        "The link was not followed because --no-follow was given.", "Run without --no-follow."},
    Row{Code::link_not_local, "link-not-local", fatal,
        "The name uses a network protocol, which coldchain never contacts.",
        "Look at that image where it is stored."},
    Row{Code::link_not_allowed, "link-not-allowed", fatal,
        "A name inside an image uses a driver or an option that is not allowed there.",
        "Replace the name by a plain path if you trust the image."},
    Row{Code::link_format_not_recorded, "link-format-not-recorded", note,
        "The overlay does not record its backing file's format; it was probed.",
        "Record it, so that no guest can change it by what it writes into a raw disk."},
    Row{Code::link_format_contradicts, "link-format-contradicts", note,
        "The recorded format is raw, but the content begins like an image of another format.",
        "This is correct if a guest wrote the content, and an error if the format was recorded by "
        "mistake."},
    Row{Code::link_probed_has_links, "link-probed-has-links", fatal,
        "A file whose format was only probed names a backing or data file, which is not followed.",
        "Record the format in the overlay, or give --allow-probe if you trust the content."},
    Row{Code::link_locked, "link-locked", fatal, "Another process has the file open for writing.",
        "Stop it, or look at a moving target with -U."},
    Row{Code::link_not_a_file, "link-not-a-file", fatal,
        "The name refers to a directory, FIFO, socket or character device.",
        "Only regular files and block devices are opened."},
    Row{Code::link_relative_json, "link-relative-json", note,
        "A relative name in json: or file: form; QEMU resolves it against its current directory, "
        "coldchain against the overlay's.",
        "Record a plain relative or an absolute path."},
    Row{Code::link_roles_contradict, "link-roles-contradict", fatal,
        "Files of the folder each record the next as raw: it is not clear which one is an image.",
        "Look at each alone with 'coldchain tree -f FORMAT', and leave out what a guest wrote."},
    Row{Code::link_overrides, "link-overrides", note,
        "A json: name replaces what the backing file itself records; a folder's tree shows what "
        "that file records.",
        "Look at the overlay alone with 'coldchain tree'."},
    Row{Code::link_definition_differs, "link-definition-differs", note,
        "The machine's definition names another backing file or format than the image records.",
        "The machine boots with what its definition names. Correct the definition, or record the "
        "backing file with 'coldchain rebase -u'."},
    Row{Code::overlay_longer, "overlay-longer", note,
        "The overlay is longer than its backing file; the rest reads as zeros.", "Nothing to do."},
    Row{Code::overlay_shorter, "overlay-shorter", note,
        "The overlay is shorter than its backing file, whose tail is not visible.",
        "Nothing to do."},
    Row{Code::backing_changed, "backing-changed", note,
        "The backing file was modified after its overlay was last modified.",
        "If the backing file's content changed, the overlay is no longer valid."},
    Row{Code::data_file_missing_name, "data-file-missing-name", fatal,
        "The image keeps its data in an external file whose name is not recorded.",
        "Name it: json:{\"driver\":\"qcow2\",\"file\":…,\"data-file\":…}."},
    Row{Code::data_file_with_backing, "data-file-raw-with-backing", note,
        "A raw external data file and a backing file exclude each other.",
        "The data file alone is not the guest's content."},
    Row{Code::image_unreadable, "image-unreadable", fatal, "The image's header cannot be read.",
        "Give the right format with -f, or restore the header."},
    Row{Code::image_unknown_incompatible, "image-unknown-incompatible", corruption,
        "The image uses incompatible features that this version does not know.",
        "Its guest data needs a newer tool."},
    Row{Code::image_dirty, "image-dirty", note,
        "The dirty bit is set: stored refcounts may be too low or too high.",
        "Repair the refcounts before writing.", Tier::leaks,
        "The bit is cleared once nothing is corrupt."},
    Row{Code::image_corrupt_bit, "image-corrupt-bit", corruption,
        "The corrupt bit is set: a writer found damaged metadata.", "Repair before writing.",
        Tier::leaks, "The bit is cleared once nothing is corrupt."},
    Row{Code::image_mapping_unreadable, "image-mapping-unreadable", corruption,
        "An L1 or L2 table cannot be read or contradicts itself.",
        "Numbers of this layer are incomplete; restore the image from a copy."},
    Row{Code::image_refcounts_unreadable, "image-refcounts-unreadable", corruption,
        "The refcount table or a refcount block cannot be read.",
        "The image end is only a lower bound."},
    Row{Code::image_bitmaps_unreadable, "image-bitmaps-unreadable", corruption,
        "The bitmaps cannot be read, or QEMU refuses the image for them.",
        "Guest data is not affected: 'coldchain check -r all' discards the bitmaps."},
    Row{Code::image_snapshots_unreadable, "image-snapshots-unreadable", corruption,
        "The snapshot table cannot be read.", "Internal snapshots cannot be named."},
    Row{Code::image_encrypted, "image-encrypted", note,
        "Guest data is encrypted; only metadata is read.", "Nothing to do."},
    Row{Code::image_encryption_unreadable, "image-encryption-unreadable", corruption,
        "The encryption header cannot be read; QEMU refuses the image for it.",
        "Without it nobody can decrypt the guest's data: restore it from a copy."},
    Row{Code::image_data_unreadable, "image-data-unreadable", corruption,
        "Guest data of the image cannot be read: the file ends before it, or a table is damaged.",
        "It is lost in this file, and is not zeros: 'coldchain check --list' lists the ranges; "
        "restore the image from a copy."},
    Row{Code::raw_size_unaligned, "raw-size-unaligned", note,
        "The raw file does not end at a sector of 512 bytes; behind its end, the guest reads "
        "zeros.",
        "If the file was copied, compare its size with the original."},
    Row{Code::zero_tail, "zero-tail", note,
        "The last data clusters all lie in one hole at the end of the file, and read as zeros.",
        "The file may be an incomplete copy: compare it with the original."},
    Row{Code::image_behind_end, "image-behind-end", note,
        "An image header lies behind the end of the image.",
        "The file may hold a second image: copy it out from that offset to look at it."},
    Row{Code::image_inside_raw, "image-inside-raw", note, "A qcow2 header lies inside a raw image.",
        "If the file is a shifted or embedded image, copy it out from that offset to look at it."},
    Row{Code::header_not_recognised, "header-not-recognised", note,
        "The file has no image header, but qcow2 tables follow.",
        "The header may have been overwritten: do not use the file as raw, restore the header "
        "from a copy."},
    Row{Code::header_length_unaligned, "header-length-unaligned", note,
        "header_length is not a multiple of 8.", "Harmless; other readers may refuse it."},
    Row{Code::header_unknown_compatible, "header-unknown-compatible", note,
        "Compatible features are set that this version does not know.", "Nothing to do."},
    Row{Code::header_unknown_autoclear, "header-unknown-autoclear", note,
        "Autoclear features are set that this version does not know.",
        "They are cleared by the first write.", Tier::leaks,
        "They are cleared if anything else is changed."},
    Row{Code::header_extension_repeated, "header-extension-repeated", note,
        "A header extension occurs twice; the last one counts.", "Nothing to do."},
    Row{Code::header_no_refcount_table, "header-no-refcount-table", corruption,
        "The header says that there is no refcount table.", "Rebuild the refcounts.", Tier::all,
        "A new refcount table is written."},
    Row{Code::header_backing_name_overlaps, "header-backing-name-overlaps", corruption,
        "The backing file name lies over the header or its extensions.",
        "Record the backing file again with 'qemu-img rebase -u'."},
    Row{Code::header_extension_length, "header-extension-length", note,
        "A header extension does not have the length that the specification gives it.",
        "Its content may not be what it seems."},
    Row{Code::header_extension_without_use, "header-extension-without-use", note,
        "A header extension belongs to a feature that the image does not use.", "Nothing to do."},
    Row{Code::refcount_table_entry_reserved, "refcount-table-entry-reserved", corruption,
        "A refcount table entry has reserved bits set.", "Rebuild the refcounts.", Tier::all,
        "A new refcount block takes its place."},
    Row{Code::refcount_block_unaligned, "refcount-block-unaligned", corruption,
        "A refcount block does not lie on a cluster boundary.", "Rebuild the refcounts.", Tier::all,
        "A new refcount block takes its place."},
    Row{Code::refcount_block_past_end, "refcount-block-past-end", corruption,
        "A refcount block lies past the end of the file.", "Rebuild the refcounts.", Tier::all,
        "A new refcount block takes its place."},
    Row{Code::refcount_block_shared, "refcount-block-shared", corruption,
        "The cluster of a refcount block is also used for something else.",
        "Rebuild the refcounts.", Tier::all, "A new refcount block takes its place."},
    Row{Code::refcount_too_low, "refcount-too-low", corruption,
        "A cluster is referred to more often than its refcount says: a writer may reuse it.",
        "Raise the refcount before anything writes to the image.", Tier::all,
        "The refcount is raised."},
    Row{Code::cluster_leaked, "cluster-leaked", leak,
        "A cluster is referred to less often than its refcount says: space is wasted.",
        "Lower the refcount, unless the cluster may hold lost data.", Tier::leaks,
        "The refcount is lowered, unless the cluster may hold lost data and --free-orphans is not "
        "given."},
    Row{Code::refcount_overflow, "refcount-overflow", corruption,
        "A cluster has more references than a refcount of this width can hold.",
        "Copy the image with wider refcounts."},
    Row{Code::refcount_past_end, "refcount-past-end", note,
        "Clusters past the end of the file have a refcount.", "Nothing to do.", Tier::leaks,
        "Their refcounts become 0."},
    Row{Code::refcount_unreadable, "refcount-unreadable", corruption,
        "The refcounts of these clusters cannot be read.", "Rebuild the refcounts.", Tier::all,
        "A new refcount block takes its place."},
    Row{Code::refcount_table_unreadable, "refcount-table-unreadable", corruption,
        "The system could not read a part of the refcount table, or a refcount block.",
        "Copy the image to sound storage first; then rebuild the refcounts of the copy."},
    Row{Code::l1_entry_reserved, "l1-entry-reserved", corruption,
        "An L1 entry has reserved bits set.", "Clear them if the table it names is sound.",
        Tier::all,
        "The bits are cleared; where the table cannot be right, its guest range is lost."},
    Row{Code::l2_table_unaligned, "l2-table-unaligned", corruption,
        "An L2 table does not lie on a cluster boundary.",
        "The guest range of that table is lost unless the table is found elsewhere.", Tier::all,
        "The reference is dropped: its guest range is lost."},
    Row{Code::reference_past_end, "reference-past-end", corruption,
        "A reference points past the end of the file.",
        "The file was truncated, or the reference is wrong: that range cannot be read.", Tier::all,
        "A reference in an L1 or L2 table is dropped, and its guest range is lost; refcount tables "
        "are rebuilt, bitmaps become dirty or are discarded; anything else must be corrected by "
        "hand."},
    Row{Code::l2_entry_reserved, "l2-entry-reserved", corruption,
        "An L2 entry has reserved bits set.", "Clear them if the cluster it names is sound.",
        Tier::all,
        "The bits are cleared; where the cluster cannot be right, its guest range reads as zeros "
        "and is lost."},
    Row{Code::compressed_copied, "compressed-copied", corruption,
        "A compressed cluster has the copied flag.", "Clear the flag.", Tier::all,
        "The flag is cleared."},
    Row{Code::compressed_with_data_file, "compressed-with-data-file", corruption,
        "A compressed cluster in an image with an external data file.",
        "That guest cluster cannot be read.", Tier::all,
        "The guest cluster reads as zeros and is lost."},
    Row{Code::compressed_with_subclusters, "compressed-with-subclusters", corruption,
        "A compressed cluster has a subcluster bitmap.", "Clear the bitmap.", Tier::all,
        "The bitmap is cleared."},
    Row{Code::subclusters_contradict, "subclusters-contradict", corruption,
        "Subclusters are marked as allocated and as zero at the same time.",
        "That guest cluster cannot be read.", Tier::all, "They are treated as data."},
    Row{Code::subclusters_without_cluster, "subclusters-without-cluster", corruption,
        "Subclusters are marked as allocated, but there is no cluster.",
        "That guest cluster cannot be read.", Tier::all, "Their bits are cleared: they are lost."},
    Row{Code::data_cluster_unaligned, "data-cluster-unaligned", corruption,
        "A data cluster does not lie on a cluster boundary.", "That guest cluster is lost.",
        Tier::all, "The guest cluster reads as zeros and is lost."},
    Row{Code::zero_cluster_unaligned, "zero-cluster-unaligned", corruption,
        "A preallocated cluster that reads as zeros does not lie on a cluster boundary.",
        "Change it to a plain zero cluster; no data is lost.", Tier::all,
        "The guest cluster reads as zeros, as before."},
    Row{Code::l1_entry_copied_wrong, "l1-entry-copied-wrong", corruption,
        "The copied flag of an L1 entry contradicts the refcount of its table.",
        "Set the flag by the refcount.", Tier::all,
        "The flag is set or cleared as the refcount says."},
    Row{Code::l2_entry_copied_wrong, "l2-entry-copied-wrong", corruption,
        "The copied flag of an L2 entry contradicts the refcount of its cluster.",
        "Set the flag by the refcount.", Tier::all,
        "The flag is set or cleared as the refcount says."},
    Row{Code::zero_flag_not_allowed, "zero-flag-not-allowed", corruption,
        "An L2 entry has the zero flag, which its image cannot have.",
        "That guest cluster cannot be read. If the image has version 2, 'qemu-img amend -o "
        "compat=1.1' makes it readable: the cluster reads as zeros.",
        Tier::all,
        "The flag is cleared in extended entries; in version 2 it must be corrected by hand."},
    Row{Code::data_file_offset_differs, "data-file-offset-differs", corruption,
        "With an external data file, a cluster's host offset must be its guest offset.",
        "That guest cluster cannot be read."},
    Row{Code::mapping_not_walked, "mapping-not-walked", corruption,
        "Tables or compressed clusters were left out: they overlap, or need more space than the "
        "file has.",
        "No sound image has such tables; what they describe was not checked. Restore it from a "
        "copy."},
    Row{Code::table_unreadable, "table-unreadable", corruption,
        "The system could not read a part of a table: what it describes cannot be read.",
        "Copy the image to sound storage first."},
    Row{Code::compressed_data_bad, "compressed-data-bad", corruption,
        "A compressed cluster does not decompress.", "That guest cluster is lost."},
    Row{Code::data_past_end, "data-past-end", corruption,
        "The file ends inside guest data: the rest of the cluster is missing.",
        "The file was truncated, or copied in part: that range cannot be read. Restore the image "
        "from a copy."},
    Row{Code::table_past_end, "table-past-end", corruption,
        "The file ends inside a table: what the missing entries describe cannot be read.",
        "The file was truncated, or copied in part. Restore the image from a copy."},
    Row{Code::mapped_past_disk, "mapped-past-disk", note,
        "The active L1 table maps clusters past the end of the disk.",
        "If the recorded size of the disk is too small, the guest misses data: compare it with "
        "what the guest expects."},
    Row{Code::structures_overlap, "structures-overlap", corruption,
        "Two structures of the image lie in the same clusters.",
        "Do not write to the image; restore it from a copy.", Tier::all,
        "An L2 table over the header or the L1 table is dropped, refcount structures are rebuilt; "
        "anything else must be corrected by hand."},
    Row{Code::data_in_metadata, "data-in-metadata", corruption,
        "An entry places guest data in a cluster that holds metadata: a write would destroy the "
        "image.",
        "Do not write to the image; that guest range is lost.", Tier::all,
        "In the header or the L1 table: the guest cluster reads as zeros and is lost; anything "
        "else must be corrected by hand."},
    Row{Code::cluster_used_twice, "cluster-used-twice", note,
        "One mapping uses a host cluster for several guest clusters.",
        "At most one of them has the right content."},
    Row{Code::orphan_table, "orphan-table", note, "An unreferenced cluster looks like an L2 table.",
        "It may describe lost data: look at it before you free it.", Tier::all,
        "With --rebuild-mapping it is linked where its place is certain; without it, the table and "
        "its clusters are kept."},
    Row{Code::shared_cluster_user, "shared-cluster-user", note,
        "This guest cluster uses a host cluster that something else uses, too.",
        "Compare the content with what the guest should see; only one user is right."},
    Row{Code::l2_table_empty, "l2-table-empty", note, "An L2 table refers to no cluster.",
        "Where clusters leak at the same time, it may have been lost: check them before you free "
        "them."},
    Row{Code::lost_snapshot, "lost-snapshot", note,
        "An unreferenced cluster looks like the L1 table of an internal snapshot that is not in "
        "the snapshot table: its clusters belong to that snapshot.",
        "If the snapshot was being deleted, 'coldchain repair --free-orphans' ends the deletion; "
        "otherwise keep them, its data may be recovered.",
        Tier::all, "With --free-orphans its clusters are freed; without it, they are kept."},
    Row{Code::l2_table_part_empty, "l2-table-part-empty", note,
        "Whole sectors of an L2 table are zeros, and unreferenced clusters may be what they named.",
        "The sectors may have been wiped: check the clusters before you free them."},
    Row{Code::orphan_content, "orphan-content", note,
        "This guest cluster shares its host cluster with another one, and an unreferenced host "
        "cluster may be its true content.",
        "Compare both host clusters with what the guest should see; keep the unreferenced one "
        "until then."},
    Row{Code::snapshot_table_too_large, "snapshot-table-too-large", corruption,
        "The snapshot table has more entries or longer ones than are allowed.",
        "Snapshots cannot be read; the active disk can.", Tier::all,
        "Extra data that is too long is truncated; if that is not enough, it must be corrected by "
        "hand."},
    Row{Code::snapshot_table_unaligned, "snapshot-table-unaligned", corruption,
        "The snapshot table does not lie on a cluster boundary.",
        "Snapshots cannot be read; the active disk can.", Tier::all,
        "Without snapshots the field is cleared; otherwise it must be corrected by hand."},
    Row{Code::snapshot_entry_incomplete, "snapshot-entry-incomplete", corruption,
        "A snapshot table entry lacks fields that version 3 requires.",
        "Write the table again with them.", Tier::all,
        "The table is rewritten with the missing fields."},
    Row{Code::snapshot_l1_unaligned, "snapshot-l1-unaligned", corruption,
        "A snapshot's L1 table does not lie on a cluster boundary.", "That snapshot is lost."},
    Row{Code::snapshot_l1_too_large, "snapshot-l1-too-large", corruption,
        "A snapshot's L1 table is larger than allowed.", "That snapshot is lost."},
    Row{Code::snapshot_with_data_file, "snapshot-with-data-file", corruption,
        "Internal snapshots in an image with an external data file.",
        "Their content cannot be right."},
    Row{Code::snapshot_id_repeated, "snapshot-id-repeated", note,
        "Two internal snapshots have the same ID.", "Name the second by its name."},
    Row{Code::snapshot_l1_too_small, "snapshot-l1-too-small", corruption,
        "A snapshot's L1 table is too small for the disk that it recorded.",
        "The end of that snapshot's disk is lost."},
    Row{Code::bitmap_directory_bad, "bitmap-directory-bad", corruption,
        "The bitmap directory cannot be read or contradicts itself.",
        "The bitmaps are lost; guest data is not affected.", Tier::all,
        "All bitmaps are discarded."},
    Row{Code::bitmap_table_bad, "bitmap-table-bad", corruption, "A bitmap's table cannot be read.",
        "Remove that bitmap and make a full backup.", Tier::all, "All bitmaps are discarded."},
    Row{Code::bitmap_table_entry_reserved, "bitmap-table-entry-reserved", corruption,
        "A bitmap table entry has reserved bits set or is not aligned.",
        "Remove that bitmap and make a full backup.", Tier::all,
        "The range of the entry becomes dirty."},
    Row{Code::bitmap_in_use, "bitmap-in-use", note,
        "A bitmap was not closed by its last writer: what it says is incomplete.",
        "Remove it and make a full backup."},
    Row{Code::bitmap_unknown_flags, "bitmap-unknown-flags", corruption,
        "A bitmap has flags that this version does not know.",
        "Writing to the image would invalidate it."},
    Row{Code::bitmap_name_repeated, "bitmap-name-repeated", corruption,
        "Two bitmaps have the same name.", "Remove one of them."},
    Row{Code::bitmap_coverage_wrong, "bitmap-coverage-wrong", corruption,
        "A bitmap's table does not fit the size of the disk.",
        "Remove that bitmap and make a full backup."},
    Row{Code::bitmaps_stale, "bitmaps-stale", note,
        "There are bitmaps, but the autoclear bit says that they are out of date.",
        "Nothing to do; they are ignored.", Tier::all, "The extension is removed."},
    Row{Code::bitmap_unknown_type, "bitmap-unknown-type", corruption,
        "A bitmap is of a type that is not defined.", "Remove that bitmap."},
    Row{Code::data_file_too_short, "data-file-too-short", corruption,
        "The external data file is shorter than the disk.",
        "Put the right data file back: what is missing cannot be read."},
    Row{Code::encryption_header_bad, "encryption-header-bad", corruption,
        "The encryption header is missing or does not lie where it must.",
        "Without it the guest's data cannot be decrypted."},
    Row{Code::upload_has_backing, "upload-has-backing", note, "The image names a backing file.",
        "An upload should stand for itself."},
    Row{Code::upload_has_data_file, "upload-has-data-file", note,
        "The image names an external data file.", "An upload should stand for itself."},
    Row{Code::upload_name_escapes, "upload-name-escapes", note,
        "The image names a file outside its own folder, or is not a plain name.",
        "Refuse it unless you know who made it."},
    Row{Code::upload_size_absurd, "upload-size-absurd", note,
        "The virtual disk is larger than 64 TiB.", "Refuse it unless you know who made it."},
    Row{Code::upload_is_encrypted, "upload-is-encrypted", note, "The image is encrypted.",
        "Its content cannot be checked."},
    Row{Code::upload_is_raw, "upload-is-raw", note,
        "The image is a raw disk: nothing in it says so.",
        "Give its format as raw wherever it is used; a guest can write anything that a probe looks "
        "for."},
    Row{Code::upload_format_not_allowed, "upload-format-not-allowed", note,
        "The image is neither qcow2 nor raw for QEMU's probe; its content was not read.",
        "Refuse it: images of other formats may name any file of the host."},
    Row{Code::upload_ambiguous, "upload-ambiguous", note,
        "Another program could take the image for another format, which may name files or sizes.",
        "Refuse it unless you know who made it; coldchain-check(1) lists what is looked for."},
};

}  // namespace

std::span<const Row> catalogue() {
  return rows;
}

const Row& row(Code code) {
  const auto* found = std::find_if(rows.begin(), rows.end(),
                                   [code](const Row& candidate) { return candidate.code == code; });
  assert(found != rows.end());
  return *found;
}

std::string_view to_string(Severity severity) {
  switch (severity) {
    case note:
      return "note";
    case leak:
      return "leak";
    case corruption:
      return "corruption";
    case fatal:
      return "fatal";
  }
  return "";
}

std::string repair_text(const Row& row) {
  if (row.repaired_by == Tier::none)
    return "none";
  return fmt::format("{}: {}", row.repaired_by == Tier::leaks ? "leaks, all" : "all", row.repair);
}

std::string catalogue_markdown() {
  std::string out =
      "# Findings\n\n"
      "Everything that coldchain can find wrong, generated from the catalogue in "
      "`src/finding/catalogue.cpp`. Codes are never reused. A `note` does not change the exit "
      "status of `tree`; anything worse makes it 1. The last column says which `-r` repairs it, "
      "and how; `none` means that no repair exists: correct the damage by hand, or do nothing if "
      "the advice says so.\n\n"
      "| code | name | severity | meaning | what to do | what a repair does |\n"
      "|---|---|---|---|---|---|\n";
  for (const Row& entry : rows)
    out += fmt::format("| {} | `{}` | {} | {} | {} | {} |\n", static_cast<unsigned>(entry.code),
                       entry.slug, to_string(entry.severity), entry.meaning, entry.advice,
                       repair_text(entry));
  return out;
}

}  // namespace coldchain::finding
