// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cassert>

#include <coldchain/finding/catalogue.hpp>
#include <coldchain/finding/finding.hpp>

#include <fmt/format.h>

namespace coldchain::finding {

namespace {

using enum Severity;

constexpr std::array rows = {
    Row{Code::link_missing, "link-missing", fatal, "A backing or data file does not exist.",
        "Put the file back, or name the directory it moved to with --sysroot."},
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
        "The name is of a network protocol, which is never contacted.",
        "Look at that image where it is stored."},
    Row{Code::link_not_allowed, "link-not-allowed", fatal,
        "A name inside an image uses a driver or an option that is not allowed there.",
        "Replace the name by a plain path if you trust the image."},
    Row{Code::link_format_not_recorded, "link-format-not-recorded", note,
        "The overlay does not record its backing file's format; it was probed.",
        "Record it, so that no guest can change it by what it writes into a raw disk."},
    Row{Code::link_format_contradicts, "link-format-contradicts", note,
        "The recorded format is raw, but the content begins like an image of another format.",
        "Right if a guest wrote it; wrong if the format was recorded by mistake."},
    Row{Code::link_probed_has_links, "link-probed-has-links", fatal,
        "A file whose format was only probed names a backing or data file, which is not followed.",
        "Record the format in the overlay, or give --allow-probe if you trust the content."},
    Row{Code::link_locked, "link-locked", fatal, "Another process has the file open for writing.",
        "Stop it, or look at a moving target with -U."},
    Row{Code::link_not_a_file, "link-not-a-file", fatal,
        "The name is of a directory, FIFO, socket or character device.",
        "Only regular files and block devices are opened."},
    Row{Code::link_relative_json, "link-relative-json", note,
        "A relative name in json: or file: form; QEMU resolves it against its current directory, "
        "coldchain against the overlay's.",
        "Record a plain relative or an absolute path."},
    Row{Code::link_roles_contradict, "link-roles-contradict", fatal,
        "Files of the folder each record the next as raw: nobody can tell which is an image.",
        "Look at each alone with 'coldchain tree -f FORMAT', and leave out what a guest wrote."},
    Row{Code::link_overrides, "link-overrides", note,
        "A json: name replaces what the backing file itself records; a folder's tree shows what "
        "that file records.",
        "Look at the overlay alone with 'coldchain tree'."},
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
        "Repair the refcounts before writing."},
    Row{Code::image_corrupt_bit, "image-corrupt-bit", corruption,
        "The corrupt bit is set: a writer found damaged metadata.", "Repair before writing."},
    Row{Code::image_mapping_unreadable, "image-mapping-unreadable", corruption,
        "An L1 or L2 table cannot be read or contradicts itself.",
        "Numbers of this layer are incomplete; restore the image from a copy."},
    Row{Code::image_refcounts_unreadable, "image-refcounts-unreadable", corruption,
        "The refcount table or a refcount block cannot be read.",
        "The image end is only a lower bound."},
    Row{Code::image_bitmaps_unreadable, "image-bitmaps-unreadable", corruption,
        "The bitmap directory cannot be read.",
        "The bitmaps are lost; guest data is not affected."},
    Row{Code::image_snapshots_unreadable, "image-snapshots-unreadable", corruption,
        "The snapshot table cannot be read.", "Internal snapshots cannot be named."},
    Row{Code::image_encrypted, "image-encrypted", note,
        "Guest data is encrypted; only metadata is read.", "Nothing to do."},
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

std::string catalogue_markdown() {
  std::string out =
      "# Findings\n\n"
      "Everything that coldchain can find wrong, generated from the catalogue in "
      "`src/finding/catalogue.cpp`. Codes are never reused. A `note` does not change the exit "
      "status of `tree`; anything worse makes it 1.\n\n"
      "| code | name | severity | meaning | what to do |\n|---|---|---|---|---|\n";
  for (const Row& entry : rows)
    out += fmt::format("| {} | `{}` | {} | {} | {} |\n", static_cast<unsigned>(entry.code),
                       entry.slug, to_string(entry.severity), entry.meaning, entry.advice);
  return out;
}

Severity worst(const Findings& findings) {
  Severity result = note;
  for (const Finding& finding : findings)
    result = std::max(result, row(finding.code).severity);
  return result;
}

}  // namespace coldchain::finding
