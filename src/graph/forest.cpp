// SPDX-License-Identifier: MIT
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

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

using finding::Code;
namespace fs = std::filesystem;

// Regular files below `directory`; symbolic links are not followed.
void list_files(const std::string& directory, std::vector<std::string>& paths,
                std::vector<Error>& unreadable) {
  std::error_code error;
  fs::recursive_directory_iterator entry(directory, error);
  const fs::recursive_directory_iterator end;
  while (!error && entry != end) {
    std::error_code ignored;
    if (entry->is_symlink(ignored) && entry->is_directory(ignored))
      entry.disable_recursion_pending();
    else if (!entry->is_symlink(ignored) && entry->is_regular_file(ignored))
      paths.push_back(entry->path().string());
    const std::string here = entry->path().string();
    entry.increment(error);
    if (error && entry != end) {
      unreadable.push_back(system_error(error.value(), to_terminal(here)));
      error.clear();
    }
  }
  if (error)
    unreadable.push_back(system_error(error.value(), to_terminal(directory)));
}

// What was learned of one file while it was open.
struct Looked {
  std::optional<ForestImage> image;  // nothing: not a qcow2 image
  std::optional<Error> error;
};

class Scanner {
 public:
  Scanner(const io::FileSource& files, const io::OpenPolicy& policy, const Inspect& inspect)
      : files_(files), policy_(policy), inspect_(inspect) {}

  Result<Forest> run(const std::vector<std::string>& directories, unsigned workers) {
    std::vector<std::string> paths;
    for (const std::string& directory : directories)
      list_files(directory, paths, forest_.unreadable);
    std::sort(paths.begin(), paths.end());
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());

    std::vector<Looked> looked(paths.size());
    parallel_for(paths.size(), workers, [&](std::size_t i) { looked[i] = look(paths[i]); });
    for (Looked& one : looked) {
      if (one.error)
        forest_.unreadable.push_back(std::move(*one.error));
      else if (!one.image)
        ++forest_.other_files;
      else
        add(std::move(*one.image));
    }
    link_all(std::set<std::string>(paths.begin(), paths.end()));
    sort_by_path();
    find_roots();
    return std::move(forest_);
  }

 private:
  [[nodiscard]] Looked look(const std::string& path) const {
    Result<std::unique_ptr<io::File>> file = files_.open(path);
    const Result<std::string_view> format =
        file ? probe_format(**file) : Result<std::string_view>(fail(file.error()));
    if (!format)
      return {std::nullopt, with_context(format.error(), to_terminal(path))};
    if (*format != "qcow2")
      return {};
    return {describe(path, "qcow2", **file), std::nullopt};
  }

  [[nodiscard]] ForestImage describe(const std::string& path, const std::string& format,
                                     const io::File& file) const {
    ForestImage image;
    image.path = path;
    image.format = format;
    image.status = file.status();
    io::OpenPolicy unlocked = policy_;
    unlocked.test_locks = false;  // who backs whom does not change while a guest writes
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
    if (const qcow2::Image* qcow2 = (*node)->qcow2_image()) {
      image.capacity = qcow2->header().size;
      image.backing_name = qcow2->header().backing_file.value_or("");
      if (qcow2->header().has_data_file())
        image.data_name = qcow2->header().data_file_name().value_or("");
    } else {
      image.capacity = (*node)->raw_image()->exact_size();
    }
    inspect_(path, **node);
    return image;
  }

  std::size_t add(ForestImage image) {
    if (image.status)
      by_identity_.try_emplace(image.status->identity, forest_.images.size());
    forest_.images.push_back(std::move(image));
    return forest_.images.size() - 1;
  }

  // Images are appended while this runs: what is named but was not in the scan, or is raw.
  void link_all(const std::set<std::string>& scanned) {
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      if (!policy_.follow || forest_.images[i].backing_name.empty())
        continue;
      const Result<NameSpec> spec = parse_name(forest_.images[i].backing_name, NameOrigin::image);
      if (!spec) {
        forest_.images[i].findings.push_back({Code::link_not_allowed, spec.error().message});
      } else if (!spec->protocol.empty()) {
        forest_.images[i].findings.push_back(
            {Code::link_not_local, fmt::format("protocol '{}'", to_terminal(spec->protocol))});
      } else {
        const std::optional<std::size_t> backing = target(i, spec->path, scanned);
        forest_.images[i].backing = backing;
        if (backing)
          forest_.images[*backing].overlays.push_back(i);
      }
    }
    for (std::size_t i = 0; policy_.follow && i < forest_.images.size(); ++i) {
      if (forest_.images[i].data_name.empty())
        continue;
      if (const auto data = target(i, forest_.images[i].data_name, scanned))
        forest_.images[*data].data_file_of.push_back(i);
    }
  }

  // The image that `name`, recorded in image `from`, leads to. One that is not known yet is added.
  std::optional<std::size_t> target(std::size_t from, const std::string& name,
                                    const std::set<std::string>& scanned) {
    const std::string path = resolve_path(forest_.images[from].path, name);
    Result<std::unique_ptr<io::File>> file = files_.open(path);
    if (!file) {
      const Code code = file.error().code == ErrorCode::not_found ? Code::link_missing
                        : file.error().code == ErrorCode::refused ? Code::link_outside_root
                        : file.error().code == ErrorCode::permission_denied
                            ? Code::link_not_permitted
                            : Code::link_unreadable;
      forest_.images[from].findings.push_back(
          {code, fmt::format("'{}': {}", to_terminal(path), file.error().message)});
      return std::nullopt;
    }
    const auto known = by_identity_.find((*file)->status().identity);
    if (known != by_identity_.end())
      return known->second;
    const Result<std::string_view> probed = probe_format(**file);
    ForestImage image = describe(path, probed && *probed == "qcow2" ? "qcow2" : "raw", **file);
    image.in_scan = scanned.contains(path);
    if (image.in_scan && forest_.other_files > 0)
      --forest_.other_files;
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
};

}  // namespace

Result<Forest> scan(const io::FileSource& files, const io::OpenPolicy& policy,
                    const std::vector<std::string>& directories, unsigned workers,
                    const Inspect& inspect) {
  return Scanner(files, policy, inspect).run(directories, workers);
}

}  // namespace coldchain::graph
