// SPDX-License-Identifier: MIT
#include "links.hpp"
#include "listing.hpp"
#include "roles.hpp"

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include <coldchain/base/parallel.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/forest.hpp>
#include <coldchain/graph/name.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/graph/probe.hpp>
#include <coldchain/io/lock.hpp>
#include <coldchain/qcow2/header.hpp>

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

using finding::Code;

// What was learned of one file while it was open.
struct Looked {
  std::string path;
  std::optional<io::FileIdentity> identity;  // nothing: there is no medium, or an error
  std::optional<ForestImage> image;          // nothing: not a qcow2 image
  std::optional<Error> error;
  std::string format;  // as probed
  bool begins_as_qcow2 = false;
};

// Where an image says that its backing file or its guest data lies.
struct Link {
  std::string path;
  std::string probed_name;            // of the file, as QEMU's probe sees it
  std::optional<std::string> format;  // as recorded; a data file is raw
  bool is_data_file = false;
  bool has_window = false;  // a part of the file, so that the sizes say nothing of each other
  std::optional<io::FileIdentity> target;
  std::optional<Error> error;  // why there is no target

  [[nodiscard]] bool says_raw() const {
    return is_data_file || (format && *format != "qcow2" && is_read_format(*format));
  }
};

constexpr const char* raw_as_qcow2 =
    "another image says that it is raw; it begins like a qcow2 image that may name other files";

// Cut headers, and those of no version, are raw to the probe.
bool begins_as_qcow2(const io::File& file) {
  be32 magic;
  const Result<void> read =
      io::read_zero_extended(file, {0}, std::as_writable_bytes(std::span(&magic, 1)));
  return read && magic.get() == qcow2::magic;
}

bool names_files(const qcow2::Header& header) {
  return header.backing_file() || header.has_data_file();
}

bool names_files(const ForestImage& image) {
  return image.header && names_files(*image.header);
}

// A header that is not read may name anything.
bool may_name_files(const io::File& file) {
  const Result<qcow2::Header> header = qcow2::read_header(file);
  return !header || names_files(*header);
}

// A drive with nothing in it holds no image.
bool is_without_medium(const Error& error) {
  return error.system_errno == ENOMEDIUM || error.system_errno == ENXIO;
}

class Scanner {
 public:
  Scanner(const io::FileSource& files, const io::OpenPolicy& policy, const Inspect& inspect)
      : files_(files), policy_(policy), inspect_(inspect) {}

  Result<Forest> run(const ScanRequest& request, unsigned workers) {
    Listing listing = TRY(list_folders(files_, policy_, request.folders, request.glob));
    forest_.unreadable = std::move(listing.unreadable);
    for (const std::string& link : listing.folder_links)
      forest_.folder_links.push_back(files_.operand_of(link));
    for (const std::string& link : listing.broken_links)
      forest_.broken_links.push_back(files_.operand_of(link));
    // A file that is there under its own name is shown by that, not by a link to it.
    look_at_all(TRY(names_of(request.files)), workers);
    look_at_all(std::move(listing.files), workers);
    look_at_all(std::move(listing.links), workers);
    // Files outside the folders may say what those inside are, and name further files.
    settle_roles_from(0);
    for (std::size_t first = 0; add_outside(first) != 0;)
      first = settle_roles_from(roles_.size());
    apply_roles();
    connect();
    for (auto& [identity, other] : others_)
      forest_.others.push_back(std::move(other));
    std::sort(forest_.others.begin(), forest_.others.end(),
              [](const OtherFile& a, const OtherFile& b) { return a.path < b.path; });
    keep_in_order();
    find_roots();
    return std::move(forest_);
  }

 private:
  [[nodiscard]] Result<std::vector<std::string>> names_of(
      const std::vector<std::string>& operands) const {
    std::vector<std::string> names;
    names.reserve(operands.size());
    for (const std::string& operand : operands)
      names.push_back(TRY(files_.name_of(operand)));
    return names;
  }

  void look_at_all(std::vector<std::string> paths, unsigned workers) {
    std::sort(paths.begin(), paths.end());
    std::vector<Looked> looked(paths.size());
    parallel_for(paths.size(), workers, [&](std::size_t i) { looked[i] = look(paths[i]); });
    for (Looked& one : looked) {
      if (one.error)
        forest_.unreadable.push_back(std::move(*one.error));
      else if (!one.identity)
        continue;
      else if (const auto known = by_identity_.find(*one.identity); known != by_identity_.end())
        add_name(forest_.images[known->second], std::move(one.path));
      else if (const auto other = others_.find(*one.identity); other != others_.end())
        add_name(other->second, std::move(one.path));
      else if (one.image)
        add(std::move(*one.image));
      else
        others_.emplace(*one.identity,
                        OtherFile{std::move(one.path), {}, one.format, one.begins_as_qcow2});
    }
  }

  // A file that was named, and lies in a folder that was named, too, has one name.
  template <typename File>
  static void add_name(File& file, std::string path) {
    const auto& others = file.other_paths;
    if (path != file.path && std::find(others.begin(), others.end(), path) == others.end())
      file.other_paths.push_back(std::move(path));
  }

  [[nodiscard]] Looked look(const std::string& name) const {
    const std::string path = files_.operand_of(name);
    Result<std::unique_ptr<io::File>> file = files_.open(name);
    const Result<std::string_view> format =
        file ? probe_format(**file, name) : Result<std::string_view>(fail(file.error()));
    if (!format && is_without_medium(format.error()))
      return {path, {}, {}, {}, ""};
    if (!format)
      return {path, {}, {}, with_context(format.error(), to_terminal(path)), ""};
    Looked looked{path, (*file)->status().identity, {}, {}, std::string(*format)};
    looked.begins_as_qcow2 = *format == "qcow2" || begins_as_qcow2(**file);
    if (*format == "qcow2")
      looked.image = describe(name, "qcow2", std::move(*file));
    return looked;
  }

  [[nodiscard]] ForestImage describe(const std::string& name, const std::string& format,
                                     std::unique_ptr<io::File> file) const {
    ForestImage image;
    image.path = files_.operand_of(name);
    image.name = name;
    image.format = format;
    image.status = file->status();
    image.follows_links = policy_.follow;
    const Result<std::unique_ptr<Node>> node = open_file(std::move(file), name, format);
    if (!node) {
      image.findings.push_back({Code::image_unreadable, node.error().message});
      return image;
    }
    image.is_open = true;
    image.findings = (*node)->findings;
    image.guest_size = (*node)->guest_size();
    image.capacity = image.guest_size;
    if (const raw::Image* raw = (*node)->raw_image())
      image.capacity = raw->exact_size();
    if (const qcow2::Image* qcow2 = (*node)->qcow2_image()) {
      image.header = qcow2->header();
      image.capacity = image.header->size;
    }
    // Who backs whom must be known of images in use, too; their numbers are not.
    const Result<void> lock =
        policy_.test_locks
            ? io::test_locks(*(*node)->file,
                             format == "qcow2" ? io::LockNeed::read : io::LockNeed::read_raw)
            : Result<void>{};
    if (lock)
      inspect_(image.path, **node);
    else
      image.findings.push_back({Code::link_locked, lock.error().message});
    return image;
  }

  void add(ForestImage image) {
    by_identity_.try_emplace(image.status.identity, forest_.images.size());
    links_.push_back(links_of(image));
    forest_.images.push_back(std::move(image));
    note_claims(links_.size() - 1);
  }

  // Also notes what is wrong with the names themselves.
  std::vector<Link> links_of(ForestImage& image) {
    std::vector<Link> links;
    if (!image.header || !image.follows_links)
      return links;
    if (const std::optional<Link> backing = backing_link(image))
      links.push_back(*backing);
    if (image.header->has_data_file()) {
      const std::string name = image.header->data_file_name().value_or("");
      if (name.empty())
        image.findings.push_back({Code::data_file_missing_name, "no name is recorded"});
      else
        links.push_back(
            {resolve_path(image.name, name), "", "raw", true, false, std::nullopt, std::nullopt});
    }
    for (Link& link : links)
      find_target(link);
    return links;
  }

  static std::optional<Link> backing_link(ForestImage& image) {
    if (image.header->backing_file().value_or("").empty())
      return std::nullopt;
    const Result<NameSpec> spec = recorded_backing(*image.header);
    if (!spec) {
      image.findings.push_back({Code::link_not_allowed, spec.error().message});
      return std::nullopt;
    }
    if (spec->without_backing || spec->backing || spec->data_file)
      image.findings.push_back(
          {Code::link_overrides, "its json: name says what lies below its backing file"});
    if (!spec->protocol.empty()) {
      image.findings.push_back(
          {Code::link_not_local, fmt::format("protocol '{}'", to_terminal(spec->protocol))});
      return std::nullopt;
    }
    if (is_ambiguous(*spec))
      image.findings.push_back({Code::link_relative_json, "read as relative to the overlay"});
    const bool has_window = !spec->window.is_whole() || !spec->file_window.is_whole();
    if (has_window && spec->format != "raw")
      image.unfollowed = "its backing image lies in a part of a file, which is not read";
    const std::string path = resolve_path(image.name, spec->path);
    return Link{
        path,        probed_name(*spec, path), spec->format, false, has_window, std::nullopt,
        std::nullopt};
  }

  // Many images share a base: each name is opened once. Nothing is read, only told apart.
  void find_target(Link& link) {
    const auto [place, is_new] = targets_.try_emplace(link.path);
    if (is_new) {
      const Result<std::unique_ptr<io::File>> file = files_.open(link.path);
      if (file)
        place->second.first = (*file)->status().identity;
      else
        place->second.second = file.error();
    }
    std::tie(link.target, link.error) = place->second;
  }

  // Notes the claims that an image makes, and those that were made on it before it was known.
  void note_claims(std::size_t added) {
    for (const Link& link : links_[added]) {
      if (!link.says_raw() || !link.target)
        continue;
      if (const auto known = by_identity_.find(*link.target); known != by_identity_.end())
        claims_.push_back({added, known->second});
      else
        early_claims_[*link.target].push_back(added);
    }
    const auto early = early_claims_.find(forest_.images[added].status.identity);
    if (early == early_claims_.end())
      return;
    for (const std::size_t from : early->second)
      claims_.push_back({from, added});
    early_claims_.erase(early);
  }

  // Settles the roles of the files from `first` on; those of all files where the new claims may
  // change what was settled before. A chain may have thousands of files, of which one after the
  // other becomes known. Returns the first file whose role may have changed.
  std::size_t settle_roles_from(std::size_t first) {
    const std::size_t settled_claims = std::exchange(settled_claims_, claims_.size());
    roles_.resize(forest_.images.size(), Role::image);
    for (std::size_t i = settled_claims; first != 0 && i < claims_.size(); ++i) {
      const auto [from, target] = claims_[i];
      // A file that is raw stays raw, whoever else says so.
      if (target < first && roles_[target] == Role::raw)
        continue;
      if (target < first || from >= first || roles_[from] != Role::image)
        first = 0;
      else
        roles_[target] = Role::raw;
    }
    if (first == 0)
      roles_ = settle_roles(forest_.images.size(), claims_);
    return first;
  }

  // Adds the files that believed images, from `first` on, name and that are not known yet: raw ones
  // of the folders, and whatever lies outside. Returns how many.
  std::size_t add_outside(std::size_t first) {
    const std::size_t count = links_.size();
    for (std::size_t i = first; i < count; ++i) {
      if (roles_[i] != Role::image)
        continue;
      for (std::size_t j = 0; j < links_[i].size(); ++j) {
        if (links_[i][j].target && !by_identity_.contains(*links_[i][j].target))
          links_[i][j].error = add_target(Link(links_[i][j]));  // a copy: links_ grows
      }
    }
    return links_.size() - count;
  }

  // Why it could not be added, or nothing.
  std::optional<Error> add_target(const Link& link) {
    Result<std::unique_ptr<io::File>> file = files_.open(link.path);
    const Result<std::string_view> probed = file ? probe_format(**file, link.probed_name)
                                                 : Result<std::string_view>(fail(file.error()));
    if (!probed)
      return probed.error();
    const io::FileIdentity identity = (*file)->status().identity;
    if (identity != *link.target)
      return Error{ErrorCode::refused, "it was replaced by another file meanwhile", 0};
    // A window with an image in it says nothing of the whole file.
    const bool is_recorded = link.format && (link.says_raw() || !link.has_window);
    const bool hides_names = *probed == "qcow2" && link.says_raw() && may_name_files(**file);
    ForestImage image =
        describe(link.path, is_recorded ? *link.format : std::string(*probed), std::move(*file));
    if (const auto other = others_.find(identity); other != others_.end()) {
      image.other_paths = std::move(other->second.other_paths);
      if (other->second.begins_as_qcow2)
        image.unfollowed = raw_as_qcow2;
      others_.erase(other);
    } else {
      image.in_scan = false;
    }
    if (hides_names)
      image.unfollowed = raw_as_qcow2;
    if (!link.format && names_files(image) && !policy_.allow_probe) {
      image.follows_links = false;
      image.findings.push_back({Code::link_probed_has_links, "its links are not followed"});
    }
    add(std::move(image));
    return std::nullopt;
  }

  void apply_roles() {
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      ForestImage& image = forest_.images[i];
      if (roles_[i] == Role::image)
        continue;
      links_[i].clear();
      if (roles_[i] == Role::undecided) {
        image.follows_links = false;
        image.findings.push_back(
            {Code::link_roles_contradict, "it says of another that it is raw, and is called raw"});
      } else if (image.format == "qcow2") {
        const bool in_scan = image.in_scan;
        std::vector<std::string> other_paths = std::move(image.other_paths);
        const bool hides_names = !image.is_open || names_files(image);
        if (Result<std::unique_ptr<io::File>> file = files_.open(image.name); file)
          image = describe(image.name, "raw", std::move(*file));
        image.in_scan = in_scan;
        image.other_paths = std::move(other_paths);
        if (hides_names)
          image.unfollowed = raw_as_qcow2;
      }
    }
  }

  void connect() {
    for (std::size_t i = 0; i < links_.size(); ++i) {
      for (const Link& link : links_[i]) {
        if (link.error) {
          forest_.images[i].findings.push_back(
              {link_code(*link.error),
               fmt::format("'{}': {}", to_terminal(link.path), link.error->message)});
          continue;
        }
        const auto known = by_identity_.find(*link.target);
        if (known == by_identity_.end())
          continue;  // it was replaced while the folder was looked at
        if (link.is_data_file)
          forest_.images[known->second].data_file_of.push_back(i);
        else
          connect_backing(i, link, known->second);
      }
    }
  }

  void connect_backing(std::size_t i, const Link& link, std::size_t target) {
    ForestImage& image = forest_.images[i];
    ForestImage& backing = forest_.images[target];
    image.backing = target;
    backing.overlays.push_back(i);
    const std::string name = fmt::format("backing file '{}'", to_terminal(link.path));
    if (!link.format)
      image.findings.push_back({Code::link_format_not_recorded, name});
    else if (*link.format == "qcow2" && roles_[target] == Role::raw)
      image.findings.push_back({Code::link_format_contradicts,
                                name + ": recorded qcow2, but another image records raw"});
    if (!image.unfollowed && link.format == "qcow2" && roles_[target] == Role::raw)
      image.unfollowed = "it records its backing file as qcow2, and another image as raw";
    if (!backing.is_open || link.has_window)
      return;
    const finding::Findings differences = compare_ends(
        {image.guest_size, image.status.modified}, {backing.guest_size, backing.status.modified});
    image.findings.insert(image.findings.end(), differences.begin(), differences.end());
  }

  // By path, without those outside that only a file which turned out to be raw named.
  void keep_in_order() {
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      const ForestImage& image = forest_.images[i];
      if (image.in_scan || !image.overlays.empty() || !image.data_file_of.empty())
        order.push_back(i);
    }
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return forest_.images[a].path < forest_.images[b].path;
    });
    std::vector<std::size_t> place(forest_.images.size());
    for (std::size_t i = 0; i < order.size(); ++i)
      place[order[i]] = i;
    std::vector<ForestImage> sorted;
    sorted.reserve(order.size());
    for (const std::size_t old : order)
      sorted.push_back(std::move(forest_.images[old]));
    for (ForestImage& image : sorted) {
      if (image.backing)
        image.backing = place[*image.backing];
      for (std::vector<std::size_t>* indices : {&image.overlays, &image.data_file_of}) {
        for (std::size_t& index : *indices)
          index = place[index];
        std::sort(indices->begin(), indices->end());
      }
    }
    forest_.images = std::move(sorted);
  }

  void reach(std::size_t root, std::vector<bool>& reached) const {
    std::vector<std::size_t> open_ends = {root};
    while (!open_ends.empty()) {
      const std::size_t at = open_ends.back();
      open_ends.pop_back();
      if (reached[at])
        continue;
      reached[at] = true;
      const auto& overlays = forest_.images[at].overlays;
      open_ends.insert(open_ends.end(), overlays.begin(), overlays.end());
    }
  }

  // Whatever no root reaches hangs on a loop: cut the loop at its first member and say so.
  void find_roots() {
    std::vector<bool> reached(forest_.images.size());
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      if (!forest_.images[i].backing) {
        forest_.roots.push_back(i);
        reach(i, reached);
      }
    }
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      if (reached[i])
        continue;
      std::set<std::size_t> seen;
      std::size_t member = i;
      while (seen.insert(member).second)
        member = *forest_.images[member].backing;
      for (std::size_t at = member; !std::exchange(forest_.images[at].is_in_loop, true);)
        at = *forest_.images[at].backing;
      ForestImage& image = forest_.images[member];
      image.findings.push_back({Code::link_loop, "its chain leads back to itself"});
      std::erase(forest_.images[*image.backing].overlays, member);
      image.cut_backing = std::exchange(image.backing, std::nullopt);
      forest_.roots.push_back(member);
      reach(member, reached);
    }
    std::sort(forest_.roots.begin(), forest_.roots.end());
  }

  const io::FileSource& files_;
  const io::OpenPolicy& policy_;
  const Inspect& inspect_;
  Forest forest_;
  std::vector<std::vector<Link>> links_;  // of each image
  std::vector<Role> roles_;               // of each image
  std::vector<RawClaim> claims_;          // of all links to images that are known
  std::size_t settled_claims_ = 0;        // as many of them were looked at when roles were settled
  std::map<io::FileIdentity, std::vector<std::size_t>> early_claims_;  // on files not known yet
  std::map<io::FileIdentity, std::size_t> by_identity_;
  std::map<std::string, std::pair<std::optional<io::FileIdentity>, std::optional<Error>>> targets_;
  std::map<io::FileIdentity, OtherFile> others_;  // nobody's image so far
};

}  // namespace

bool is_leaf(const ForestImage& image) {
  return image.backing && image.overlays.empty() && image.data_file_of.empty() && !image.is_in_loop;
}

bool is_shared(const ForestImage& image) {
  return image.overlays.size() > 1;
}

bool is_orphan(const ForestImage& image) {
  return std::any_of(
      image.findings.begin(), image.findings.end(),
      [](const finding::Finding& finding) { return finding.code == Code::link_missing; });
}

bool is_unused(const ForestImage& image) {
  return image.is_open && image.in_scan && image.follows_links && !names_files(image) &&
         image.overlays.empty() && image.data_file_of.empty();
}

Result<Forest> scan(const io::FileSource& files, const io::OpenPolicy& policy,
                    const ScanRequest& request, unsigned workers, const Inspect& inspect) {
  return Scanner(files, policy, inspect).run(request, workers);
}

}  // namespace coldchain::graph
