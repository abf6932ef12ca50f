// SPDX-License-Identifier: MIT
// The transcript of check -r against qemu-img's: messages, numbers and exit status are the same
// where both leave the same metadata. Every other case belongs to a class that
// docs/differences.md names.
// The metadata is the same if all clusters that are in use are equal, and their refcounts. Left out
// are: the refcount structures, which qemu-img writes anew where we repair them in place; and of
// the header, their place and what lies behind the fixed fields, as qemu-img writes all extensions
// anew.
#include "damage.hpp"
#include "flipped_images.hpp"
#include "oracle.hpp"
#include "seeds.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/tables.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::TempFolder;

namespace {

// How a case ends. Each kind of difference has a row in docs/differences.md, quoted here.
enum class Class {
  same,
  not_opened,  // qemu-img refuses the image: rows of "header extension…", "bitmaps…", others
  stopped,     // "`check` of a broken snapshot table…": qemu-img gives no verdict
  rebuilt,     // "`check -r all` where refcounts are rebuilt"
  grown,       // "`check -r all` of a refcount block past the end of the file"
  rebuild_for_leaks,  // "`check -r leaks` where refcounts would have to be rebuilt"
  flags_for_leaks,    // "`check -r leaks` of wrong copied flags"
  kept,               // "`check -r` where clusters may hold lost data"
  double_use,         // "`check -r` where two guest clusters use one host cluster"
  found_more,         // "exit status of `check`"
  repaired_more,      // "`check -r` of damage that qemu-img leaves", "…an L1 entry names…"
  repaired_less,      // "`check -r` that would leave other damage"
  none,               // a difference without a row
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);)
    lines.push_back(line);
  return lines;
}

// qemu-img's messages: without ours, and without what it says about itself.
std::vector<std::string> messages(std::string text) {
  const std::string hint = "run 'qemu-img check -r' on the image file to fix.";
  if (const std::size_t at = text.find(hint); at != std::string::npos)
    text.insert(at + hint.size(), "\n");  // it has no line break there
  std::vector<std::string> kept;
  for (const std::string& line : lines_of(text)) {
    for (const char* start : {"ERROR", "Leaked cluster", "Repairing", "Rebuilding", "Can't get"}) {
      if (line.starts_with(start))
        kept.push_back(line);
    }
  }
  return kept;
}

// The summary: qemu-img's lines, without what only we say.
std::vector<std::string> summary(const std::string& text) {
  std::vector<std::string> kept;
  for (std::string line : lines_of(text)) {
    if (line.starts_with("They may hold lost data"))
      line = "This means waste of disk space, but no harm to data.";
    if (!line.empty() && !has(line, "qemu-img does not look for") &&
        !has(line, "are still used twice") && line != "No errors were found on the image.")
      kept.push_back(line);
  }
  return kept;
}

// The numbers in qemu-img's JSON.
std::vector<std::string> numbers(const std::string& text) {
  std::vector<std::string> kept;
  if (text.empty())
    return kept;
  const auto document = nlohmann::ordered_json::parse(text);
  for (const auto& [name, value] : document.items()) {
    if (value.is_number())
      kept.push_back(fmt::format("{}: {}", name, value.dump()));
  }
  return kept;
}

struct Metadata {
  Bytes fixed_fields;
  std::map<std::uint64_t, std::uint64_t> refcounts;  // by cluster, without zeros
  std::set<std::uint64_t> own;                       // clusters of the refcount structures
  std::uint64_t cluster_size = 0;
};

constexpr std::size_t most_bytes = 32 << 20;

std::optional<Metadata> metadata_of(const Bytes& bytes) {
  const Result<qcow2::Header> header = qcow2::decode_header(bytes);
  if (!header)
    return std::nullopt;
  Metadata metadata;
  metadata.cluster_size = header->cluster_size();
  metadata.own.insert(0);  // compared by its fields
  metadata.fixed_fields = Bytes(bytes.begin(), bytes.begin() + (header->version < 3 ? 72 : 100));
  std::fill_n(metadata.fixed_fields.begin() + 48, 12, std::byte{0});
  const std::uint64_t table_bytes = header->refcount_table_clusters * header->cluster_size();
  for (std::uint64_t i = 0; i < table_bytes / sizeof(be64); ++i) {
    const std::uint64_t at = header->refcount_table_offset + i * sizeof(be64);
    metadata.own.insert(at >> header->cluster_bits);
    const auto raw = load<be64>(bytes, at);
    const std::uint64_t block = raw ? raw->get() & qcow2::refcount_block_mask : 0;
    if (block == 0 || block + header->cluster_size() > bytes.size())
      continue;
    metadata.own.insert(block >> header->cluster_bits);
    const ByteView content = ByteView(bytes).subspan(block, header->cluster_size());
    const std::uint64_t per_block = (content.size() * 8) >> header->refcount_order;
    for (std::uint64_t entry = 0; entry < per_block; ++entry) {
      const std::uint64_t count = qcow2::refcount_at(content, header->refcount_order, entry);
      if (count != 0)
        metadata.refcounts[i * per_block + entry] = count;
    }
  }
  return metadata;
}

bool is_same_metadata(const Bytes& a, const Bytes& b) {
  if (a == b)
    return true;
  if (std::max(a.size(), b.size()) > most_bytes)
    return false;
  const std::optional<Metadata> one = metadata_of(a);
  const std::optional<Metadata> other = metadata_of(b);
  if (!one || !other || one->fixed_fields != other->fixed_fields)
    return false;
  std::map<std::uint64_t, std::uint64_t> counts = one->refcounts;
  std::map<std::uint64_t, std::uint64_t> other_counts = other->refcounts;
  for (const auto* own : {&one->own, &other->own}) {
    for (const std::uint64_t cluster : *own) {
      counts.erase(cluster);
      other_counts.erase(cluster);
    }
  }
  if (counts != other_counts)
    return false;
  return std::all_of(counts.begin(), counts.end(), [&](const auto& used) {
    const std::uint64_t begin = used.first * one->cluster_size;
    const auto part = [&](const Bytes& bytes) {
      const std::uint64_t first = std::min<std::uint64_t>(begin, bytes.size());
      Bytes copy(bytes.begin() + static_cast<std::ptrdiff_t>(first),
                 bytes.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(
                                     begin + one->cluster_size, bytes.size())));
      copy.resize(one->cluster_size);
      return copy;
    };
    return part(a) == part(b);
  });
}

// One repair by both, on copies of the same image.
struct Case {
  testing::Process theirs;
  testing::Ran mine;
  std::string tier;
  bool is_json = false;
  bool is_same_metadata = false;

  [[nodiscard]] bool is_same_transcript() const {
    if (theirs.status != mine.status || messages(theirs.err) != messages(mine.err))
      return false;
    return is_json ? numbers(theirs.out) == numbers(mine.out)
                   : summary(theirs.out) == summary(mine.out);
  }
};

// Where the structure is written anew, the former one is freed, and the image may end later.
bool differs_by_rebuilding(const Case& it) {
  std::vector<std::string> theirs = messages(it.theirs.err);
  const auto rebuilding = std::find(theirs.begin(), theirs.end(), "Rebuilding refcount structure");
  theirs.erase(
      std::remove_if(rebuilding, theirs.end(),
                     [](const std::string& line) { return line.starts_with("Repairing cluster"); }),
      theirs.end());
  const auto without_end = [](std::vector<std::string> lines) {
    std::erase_if(lines, [](const std::string& line) {
      return line.starts_with("Image end offset") || line.starts_with("image-end-offset");
    });
    return lines;
  };
  const auto outcome = [&](const std::string& out) {
    return without_end(it.is_json ? numbers(out) : summary(out));
  };
  return it.theirs.status == it.mine.status && messages(it.mine.err) == theirs &&
         outcome(it.theirs.out) == outcome(it.mine.out);
}

Class class_of_same_metadata(const Case& it) {
  if (it.is_same_transcript())
    return Class::same;
  if (has(it.theirs.err, "Check failed"))
    return it.mine.status == 1 && has(it.mine.err, "Check failed") ? Class::stopped
           : it.tier == "leaks" && has(it.theirs.err, "ERROR need to rebuild")
               ? Class::rebuild_for_leaks
               : Class::none;
  const bool are_messages_same = messages(it.theirs.err) == messages(it.mine.err);
  if (has(it.mine.err, "keep their refcount"))
    return Class::kept;
  if (has(it.mine.err, "is used by") && it.mine.status == 2 && are_messages_same)
    return Class::double_use;
  if (differs_by_rebuilding(it))
    return Class::rebuilt;
  if (it.tier == "all" && has(it.theirs.err, "Repairing refcount block") &&
      has(it.mine.err, "Repairing refcount block"))
    return Class::grown;
  return it.mine.status != 0 && it.theirs.status == 0 && are_messages_same ? Class::found_more
                                                                           : Class::none;
}

// What we say about the repairs that qemu-img does not make, or makes in another way.
Class class_of_other_metadata(const Case& it) {
  const std::string& said = it.mine.err;
  if (has(said, "keep their refcount"))
    return Class::kept;
  if (it.tier == "leaks") {
    if (has(it.theirs.err, "ERROR need to rebuild"))
      return Class::rebuild_for_leaks;
    if (has(it.theirs.err, "Repairing OFLAG_COPIED"))
      return Class::flags_for_leaks;
  }
  if (has(said, "the repair would") || has(said, "not repaired: ") || has(said, "not rebuilt: "))
    return Class::repaired_less;
  if (has(said, "is used by"))
    return Class::double_use;
  if (has(said, "lost for good: ") || it.theirs.status != 0 || it.mine.status == 0)
    return Class::repaired_more;
  return Class::none;
}

Class classify(const TempFolder& folder, const Bytes& bytes, const std::string& tier,
               bool is_json) {
  Case it;
  it.tier = tier;
  it.is_json = is_json;
  const std::string output = is_json ? "--output=json" : "--output=human";
  testing::write_file(folder / "x", bytes);
  it.theirs =
      testing::run_in(folder.path(), "qemu-img check -f qcow2 " + output + " -r " + tier + " x");
  if (has(it.theirs.err, "Could not open"))
    return Class::not_opened;
  const auto result = [&]() -> Bytes {
    if (std::filesystem::file_size(folder / "x") > most_bytes)
      return {};
    const std::string text = testing::read_file(folder / "x");
    return {text_bytes(text).begin(), text_bytes(text).end()};
  };
  const Bytes theirs = result();
  testing::write_file(folder / "x", bytes);
  it.mine = testing::run_coldchain_in(
      folder.path(), {"check", "-f", "qcow2", output, "-r", tier, "--no-undo", "x"});
  it.is_same_metadata = is_same_metadata(theirs, result());
  std::filesystem::remove(folder / "x.coldchain-undo");
  const Class found =
      it.is_same_metadata ? class_of_same_metadata(it) : class_of_other_metadata(it);
  CAPTURE(tier);
  CAPTURE(is_json);
  CAPTURE(it.is_same_metadata);
  CAPTURE(it.theirs.status);
  CAPTURE(it.mine.status);
  CAPTURE(it.theirs.err.substr(0, 2000));
  CAPTURE(it.mine.err.substr(0, 2000));
  CAPTURE(it.theirs.out);
  CAPTURE(it.mine.out.substr(0, 1000));
  CHECK(found != Class::none);
  return found;
}

std::string text_of(const std::map<Class, int>& tally) {
  std::string text;
  for (const auto& [found, count] : tally)
    text += fmt::format(" {}:{}", static_cast<int>(found), count);
  return text;
}

}  // namespace

TEST_CASE("oracle: a repair of each recipe says what qemu-img says where it does the same") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools are not installed");
    return;
  }
  const TempFolder folder;
  testing::write_file(folder / "data", std::string(4 << 20, 'd'));
  std::map<Class, int> tally;
  bool is_json = false;
  for (const testing::Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    const bool is_variant = has(damage.name, "-with-32-bit-refcounts");
    // Each process takes a while: JSON is compared for every second recipe, and variants of one
    // recipe share the tiers.
    ++tally[classify(folder, damage.image(), is_variant ? "leaks" : "all", is_json)];
    if (!is_variant && is_json)
      ++tally[classify(folder, damage.image(), "leaks", false)];
    is_json = !is_json;
  }
  MESSAGE("classes:" << text_of(tally));
  CHECK(tally[Class::same] > 50);
}

TEST_CASE("oracle: a repair of flipped metadata says what qemu-img says where it does the same") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  std::map<Class, int> tally;
  testing::for_each_seed(60, [&](std::uint64_t seed) {
    ++tally[classify(folder, testing::flipped_image(static_cast<int>(seed)),
                     seed % 3 == 0 ? "leaks" : "all", seed % 2 == 0)];
  });
  MESSAGE("classes:" << text_of(tally));
  CHECK(tally[Class::same] > 5);
}
