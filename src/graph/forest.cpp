// SPDX-License-Identifier: MIT
#include "links.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include <coldchain/base/parallel.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/forest.hpp>
#include <coldchain/graph/name.hpp>
#include <coldchain/graph/open.hpp>
#include <coldchain/graph/probe.hpp>
#include <coldchain/io/lock.hpp>

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

using finding::Code;
namespace fs = std::filesystem;

struct Listing {
  std::vector<std::string> files;  // regular files
  std::vector<std::string> links;  // symbolic links to regular files, wherever those are
  std::vector<Error> unreadable;
};

// What lies below `top`. Folder by folder, so that one that cannot be read costs nothing but
// itself. Symbolic links to folders are not followed.
void list_files(const std::string& top, Listing& listing) {
  std::vector<std::string> folders = {top};
  while (!folders.empty()) {
    const std::string folder = std::move(folders.back());
    folders.pop_back();
    std::error_code error;
    fs::directory_iterator entry(folder, error);
    for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
      std::error_code ignored;
      const bool is_link = entry->is_symlink(ignored);
      const std::string path = entry->path().string();
      if (entry->is_regular_file(ignored))
        (is_link ? listing.links : listing.files).push_back(path);
      else if (!is_link && entry->is_directory(ignored))
        folders.push_back(path);
    }
    if (error)
      listing.unreadable.push_back(system_error(error.value(), to_terminal(folder)));
  }
}

// What was learned of one file while it was open.
struct Looked {
  std::optional<io::FileIdentity> identity;
  std::optional<ForestImage> image;  // nothing: not a qcow2 image
  std::optional<Error> error;
};

class Scanner {
 public:
  Scanner(const io::FileSource& files, const io::OpenPolicy& policy, const Inspect& inspect)
      : files_(files), policy_(policy), inspect_(inspect) {}

  Result<Forest> run(const std::vector<std::string>& directories, unsigned workers) {
    Listing listing;
    for (const std::string& directory : directories)
      list_files(directory, listing);
    forest_.unreadable = std::move(listing.unreadable);
    // A file that is there under its own name is shown by that, not by a link to it.
    look_at_all(std::move(listing.files), workers);
    look_at_all(std::move(listing.links), workers);
    link_all();
    forest_.other_files = others_.size();
    sort_by_path();
    find_roots();
    return std::move(forest_);
  }

 private:
  void look_at_all(std::vector<std::string> paths, unsigned workers) {
    std::sort(paths.begin(), paths.end());
    std::vector<Looked> looked(paths.size());
    parallel_for(paths.size(), workers, [&](std::size_t i) { looked[i] = look(paths[i]); });
    for (Looked& one : looked) {
      if (one.error)
        forest_.unreadable.push_back(std::move(*one.error));
      else if (by_identity_.contains(*one.identity))
        continue;  // another name of a file that is known
      else if (one.image)
        add(std::move(*one.image));
      else
        others_.insert(*one.identity);
    }
  }

  [[nodiscard]] Looked look(const std::string& path) const {
    Result<std::unique_ptr<io::File>> file = files_.open(path);
    const Result<std::string_view> format =
        file ? probe_format(**file) : Result<std::string_view>(fail(file.error()));
    if (!format)
      return {std::nullopt, std::nullopt, with_context(format.error(), to_terminal(path))};
    Looked looked{(*file)->status().identity, std::nullopt, std::nullopt};
    if (*format == "qcow2")
      looked.image = describe(path, "qcow2", **file);
    return looked;
  }

  [[nodiscard]] ForestImage describe(const std::string& path, const std::string& format,
                                     const io::File& file) const {
    ForestImage image;
    image.path = path;
    image.format = format;
    image.status = file.status();
    io::OpenPolicy unlocked = policy_;
    unlocked.test_locks = false;  // who backs whom must be known of images in use, too
    OpenRequest request;
    request.name = has_protocol(path) ? "./" + path : path;
    request.format = format;
    request.follow_links = false;
    const Result<std::unique_ptr<Node>> node = open(files_, unlocked, request);
    if (!node) {
      image.findings.push_back({Code::image_unreadable, node.error().message});
      return image;
    }
    image.is_open = true;
    image.findings = (*node)->findings;
    image.capacity = (*node)->qcow2_image() != nullptr ? (*node)->qcow2_image()->header().size
                                                       : (*node)->raw_image()->exact_size();
    if (const qcow2::Image* qcow2 = (*node)->qcow2_image())
      image.header = qcow2->header();
    const Result<void> lock =
        policy_.test_locks ? io::test_locks(file, format == "qcow2" ? io::LockNeed::exclusive_write
                                                                    : io::LockNeed::consistent_read)
                           : Result<void>{};
    if (lock)
      inspect_(path, **node);
    else
      image.findings.push_back({Code::link_locked, lock.error().message});
    return image;
  }

  std::size_t add(ForestImage image) {
    if (image.status)
      by_identity_.try_emplace(image.status->identity, forest_.images.size());
    forest_.images.push_back(std::move(image));
    return forest_.images.size() - 1;
  }

  // What an image says of its backing file, if that is a local path.
  struct Link {
    std::string path;
    std::optional<std::string> format;
  };

  // Findings are noted if `note`: links are looked at twice.
  std::optional<Link> backing_link(std::size_t i, bool note) {
    ForestImage& image = forest_.images[i];
    const std::string name = image.backing_name();
    if (name.empty() || !image.follows_links || !policy_.follow)
      return std::nullopt;
    const Result<NameSpec> spec = recorded_backing(*image.header);
    if (!spec || !spec->protocol.empty()) {
      if (note && !spec)
        image.findings.push_back({Code::link_not_allowed, spec.error().message});
      else if (note)
        image.findings.push_back(
            {Code::link_not_local, fmt::format("protocol '{}'", to_terminal(spec->protocol))});
      return std::nullopt;
    }
    return Link{resolve_path(image.path, spec->path), spec->format};
  }

  // A file that begins like qcow2, but is recorded as raw by an overlay, is what a guest wrote.
  void demote_recorded_raw() {
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      const std::optional<Link> link = backing_link(i, false);
      if (!link || !link->format || *link->format == "qcow2" || !is_read_format(*link->format))
        continue;
      const Result<std::unique_ptr<io::File>> file = files_.open(link->path);
      const auto known = file ? by_identity_.find((*file)->status().identity) : by_identity_.end();
      if (known == by_identity_.end() || forest_.images[known->second].format != "qcow2")
        continue;
      ForestImage& image = forest_.images[known->second];
      image = describe(image.path, "raw", **file);
    }
  }

  // Images are appended while this runs: those that are named but were not found, or are raw.
  void link_all() {
    demote_recorded_raw();
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      if (const std::optional<Link> link = backing_link(i, true))
        link_backing(i, *link);
    }
    for (std::size_t i = 0; policy_.follow && i < forest_.images.size(); ++i) {
      const std::string name = forest_.images[i].data_name();
      if (name.empty() || !forest_.images[i].follows_links)
        continue;
      const Link link{resolve_path(forest_.images[i].path, name), "raw"};
      if (const auto data = target(i, link))
        forest_.images[*data].data_file_of.push_back(i);
    }
  }

  void link_backing(std::size_t i, const Link& link) {
    const std::optional<std::size_t> found = target(i, link);
    ForestImage& image = forest_.images[i];
    image.backing = found;
    if (!found)
      return;
    ForestImage& backing = forest_.images[*found];
    backing.overlays.push_back(i);
    if (!link.format)
      image.findings.push_back({Code::link_format_not_recorded,
                                fmt::format("backing file '{}'", to_terminal(link.path))});
    if (!backing.is_open || !backing.status || !image.status)
      return;
    const finding::Findings differences = compare_ends(
        {image.capacity, image.status->modified}, {backing.capacity, backing.status->modified});
    image.findings.insert(image.findings.end(), differences.begin(), differences.end());
  }

  // The image that a link of image `from` leads to. One that is not known yet is added.
  std::optional<std::size_t> target(std::size_t from, const Link& link) {
    const Result<std::unique_ptr<io::File>> file = files_.open(link.path);
    const Result<std::string_view> probed =
        file ? probe_format(**file) : Result<std::string_view>(fail(file.error()));
    if (!probed) {
      forest_.images[from].findings.push_back(
          {link_code(probed.error()),
           fmt::format("'{}': {}", to_terminal(link.path), probed.error().message)});
      return std::nullopt;
    }
    const auto known = by_identity_.find((*file)->status().identity);
    if (known != by_identity_.end())
      return known->second;
    ForestImage image = describe(link.path, link.format.value_or(std::string(*probed)), **file);
    image.in_scan = others_.erase((*file)->status().identity) != 0;
    const bool has_links = !image.backing_name().empty() || !image.data_name().empty();
    if (!link.format && has_links && !policy_.allow_probe) {
      image.follows_links = false;
      image.findings.push_back({Code::link_probed_has_links, "its links are not followed"});
    }
    return add(std::move(image));
  }

  void sort_by_path() {
    std::vector<std::size_t> order(forest_.images.size());
    for (std::size_t i = 0; i < order.size(); ++i)
      order[i] = i;
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return forest_.images[a].path < forest_.images[b].path;
    });
    std::vector<std::size_t> place(order.size());
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
      ForestImage& image = forest_.images[member];
      image.findings.push_back({Code::link_loop, "its chain leads back to itself"});
      std::erase(forest_.images[*image.backing].overlays, member);
      image.backing.reset();
      forest_.roots.push_back(member);
      reach(member, reached);
    }
    std::sort(forest_.roots.begin(), forest_.roots.end());
  }

  const io::FileSource& files_;
  const io::OpenPolicy& policy_;
  const Inspect& inspect_;
  Forest forest_;
  std::map<io::FileIdentity, std::size_t> by_identity_;
  std::set<io::FileIdentity> others_;  // found in the folders, and nobody's image so far
};

}  // namespace

Result<Forest> scan(const io::FileSource& files, const io::OpenPolicy& policy,
                    const std::vector<std::string>& directories, unsigned workers,
                    const Inspect& inspect) {
  return Scanner(files, policy, inspect).run(directories, workers);
}

}  // namespace coldchain::graph
