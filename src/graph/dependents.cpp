// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/dependents.hpp>
#include <coldchain/graph/forest.hpp>

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

using finding::Code;

// After these, the chain of an image is not known to its end.
constexpr std::array unfollowed_codes = {
    Code::link_missing,           Code::link_not_permitted, Code::link_unreadable,
    Code::link_outside_root,      Code::link_not_local,     Code::link_not_allowed,
    Code::link_probed_has_links,  Code::link_relative_json, Code::link_not_a_file,
    Code::link_roles_contradict,  Code::link_overrides,     Code::image_unreadable,
    Code::data_file_missing_name, Code::link_loop,
};

// These can record a backing or parent file, and are not read.
constexpr std::array formats_with_links = {"qcow", "qed", "vmdk", "vpc", "vhdx", "vdi"};

bool is_unfollowed(const finding::Finding& finding) {
  return std::find(unfollowed_codes.begin(), unfollowed_codes.end(), finding.code) !=
         unfollowed_codes.end();
}

class Search {
 public:
  Search(const DependentsRequest& request, const Forest& forest)
      : request_(request), forest_(forest) {}

  Dependents run() {
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      if (identity(i) == request_.image)
        open.push_back(i);
      if (forest_.images[i].cut_backing)
        cut_overlays_[*forest_.images[i].cut_backing].push_back(i);
    }
    seen_.insert(open.begin(), open.end());
    while (!open.empty()) {
      const std::size_t at = open.back();
      open.pop_back();
      for (const std::size_t user : forest_.images[at].overlays)
        add(user, at, false, open);
      for (const std::size_t user : cut_overlays_[at])
        add(user, at, false, open);
      for (const std::size_t user : forest_.images[at].data_file_of)
        add(user, at, true, open);
    }
    std::sort(found_.images.begin(), found_.images.end(),
              [](const Dependent& a, const Dependent& b) { return a.path < b.path; });
    note_unfollowed();
    return std::move(found_);
  }

 private:
  [[nodiscard]] io::FileIdentity identity(std::size_t image) const {
    return forest_.images[image].status.identity;
  }

  void add(std::size_t user, std::size_t through, bool is_data_file,
           std::vector<std::size_t>& open) {
    if (identity(user) == request_.top || !seen_.insert(user).second)
      return;
    if (std::find(request_.known.begin(), request_.known.end(), identity(user)) ==
        request_.known.end())
      found_.images.push_back({forest_.images[user].path, forest_.images[through].path,
                               identity(through) == request_.image, is_data_file});
    open.push_back(user);
  }

  // The rest of the chain does not matter for the image itself and for those known to depend on it.
  void note_unfollowed() {
    for (std::size_t i = 0; i < forest_.images.size(); ++i) {
      const ForestImage& image = forest_.images[i];
      if (seen_.contains(i) || identity(i) == request_.top)
        continue;
      for (const finding::Finding& finding : image.findings) {
        if (is_unfollowed(finding))
          add_unfollowed(image.path,
                         fmt::format("{}: {}", finding::row(finding.code).slug, finding.detail));
      }
      if (image.unfollowed)
        add_unfollowed(image.path, *image.unfollowed);
    }
    for (const std::string& link : forest_.folder_links)
      add_unfollowed(link, "a symbolic link to a folder that was not searched");
    for (const std::string& link : forest_.broken_links)
      add_unfollowed(link, "a symbolic link that leads nowhere");
    for (const OtherFile& other : forest_.others) {
      const bool may_have_link = std::find(formats_with_links.begin(), formats_with_links.end(),
                                           other.format) != formats_with_links.end();
      if (may_have_link)
        add_unfollowed(other.path, fmt::format("images of format {} are not read", other.format));
      else if (other.begins_as_qcow2)
        add_unfollowed(other.path, "it begins like qcow2, but its header is not whole");
    }
  }

  void add_unfollowed(const std::string& path, const std::string& why) {
    found_.unfollowed.push_back(
        {ErrorCode::unsupported, fmt::format("{}: {}", to_terminal(path), why), 0});
  }

  const DependentsRequest& request_;
  const Forest& forest_;
  std::map<std::size_t, std::vector<std::size_t>> cut_overlays_;  // by the image below the cut
  std::set<std::size_t> seen_;
  Dependents found_;
};

}  // namespace

bool Dependents::is_complete() const {
  return unreadable.empty() && unfollowed.empty();
}

std::vector<std::string> Dependents::paths() const {
  std::vector<std::string> paths;
  std::transform(images.begin(), images.end(), std::back_inserter(paths),
                 [](const Dependent& image) { return image.path; });
  return paths;
}

Result<Dependents> find_dependents(const io::FileSource& files, const io::OpenPolicy& policy,
                                   const DependentsRequest& request, unsigned workers) {
  io::OpenPolicy looking = policy;
  looking.test_locks = false;  // those in use depend on it, too
  Forest forest = TRY(scan(files, looking, {.folders = request.directories}, workers,
                           [](const std::string&, const Node&) {}));
  Dependents found = Search(request, forest).run();
  found.unreadable = std::move(forest.unreadable);
  return found;
}

}  // namespace coldchain::graph
