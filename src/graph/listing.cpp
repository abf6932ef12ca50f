// SPDX-License-Identifier: MIT
#include "listing.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/folder.hpp>

#include <fmt/format.h>
#include <fnmatch.h>

namespace coldchain::graph {

namespace {

namespace fs = std::filesystem;

struct FolderToList {
  std::string operand;  // by which the system lists it
  std::string name;     // by which its files are opened
};

enum class Target {
  file,  // also one that cannot be opened
  nothing,
  other,
};

// What a symbolic link in a folder leads to, if not to a folder.
Target target_of(const io::FileSource& files, const std::string& name) {
  const Result<std::unique_ptr<io::File>> file = files.open(name);
  if (file) {
    const io::FileKind kind = (*file)->status().kind;
    return kind == io::FileKind::regular || kind == io::FileKind::block_device ? Target::file
                                                                               : Target::other;
  }
  const Error& error = file.error();
  if (error.code == ErrorCode::not_found || error.system_errno == ELOOP)
    return Target::nothing;
  return error.code == ErrorCode::invalid_argument ? Target::other : Target::file;
}

bool leads_to_folder(const io::FileSource& files, const std::string& name) {
  const Result<std::string> target = files.real_folder(name);
  std::error_code error;
  return target && fs::is_directory(*target, error);
}

void add_link(Target target, const std::string& name, Listing& listing) {
  if (target == Target::file)
    listing.links.push_back(name);
  else if (target == Target::nothing)
    listing.broken_links.push_back(name);
}

// What lies below `top`. Folder by folder, so that one that cannot be read costs nothing but
// itself. Symbolic links to folders are not followed; those to files lead where `files` says, which
// need not be where they lead for the system.
void list_files(const io::FileSource& files, const io::OpenPolicy& policy, FolderToList top,
                const std::string& glob, Listing& listing) {
  using Kind = io::FolderEntry::Kind;
  std::vector<FolderToList> folders = {std::move(top)};
  while (!folders.empty()) {
    const FolderToList folder = std::move(folders.back());
    folders.pop_back();
    const auto add = [&](const io::FolderEntry& entry) {
      const std::string name = (fs::path(folder.name) / entry.name).string();
      const bool is_chosen = glob.empty() || fnmatch(glob.c_str(), entry.name.c_str(), 0) == 0;
      if (entry.kind == Kind::symbolic_link && leads_to_folder(files, name))
        listing.folder_links.push_back(name);
      else if (entry.kind != Kind::folder && !is_chosen)
        return;
      else if (entry.kind == Kind::symbolic_link)
        add_link(target_of(files, name), name, listing);
      else if (entry.kind == Kind::regular || entry.kind == Kind::block_device)
        listing.files.push_back(name);
      else if (entry.kind == Kind::folder)
        folders.push_back({(fs::path(folder.operand) / entry.name).string(), name});
    };
    const Result<io::Folder> opened = io::Folder::open(folder.operand, policy.access_time_guard);
    const Result<void> listed = opened ? opened->for_each_entry(add) : fail(opened.error());
    if (!listed)
      listing.unreadable.push_back(listed.error());
  }
}

// The system lists the folder, and `files` opens what lies there: both must mean the same one.
Result<std::string> name_of_folder(const io::FileSource& files, const io::OpenPolicy& policy,
                                   const std::string& folder) {
  const std::string& root = policy.root.empty() ? policy.sysroot : policy.root;
  Result<std::string> name = files.name_of(folder);
  if (root.empty())
    return name;
  const Result<std::string> opened = name ? files.real_folder(*name) : fail(name.error());
  if (!opened && opened.error().code != ErrorCode::refused &&
      opened.error().code != ErrorCode::not_found)
    return fail(with_context(opened.error(), to_terminal(folder)));
  std::error_code error;
  if (opened && fs::canonical(folder, error) == fs::path(*opened) && !error)
    return name;
  return fail(
      ErrorCode::refused,
      fmt::format("the folder '{}' does not lie in '{}'; name it by its path on this machine",
                  to_terminal(folder), to_terminal(root)));
}

// Links to folders that were listed under another name lead to nothing new.
void forget_listed(const io::FileSource& files, const std::vector<std::string>& folders,
                   std::vector<std::string>& links) {
  std::vector<std::string> listed;  // with the last slash
  for (const std::string& folder : folders) {
    if (const Result<std::string> real = files.real_folder(folder))
      listed.push_back((fs::path(*real) / "").string());
  }
  listed.emplace_back("/proc/");  // as /dev/fd: no folder of images
  std::erase_if(links, [&](const std::string& link) {
    const Result<std::string> real = files.real_folder(link);
    const std::string target = real ? (fs::path(*real) / "").string() : "";
    return std::any_of(listed.begin(), listed.end(),
                       [&](const std::string& folder) { return target.starts_with(folder); });
  });
}

}  // namespace

Result<Listing> list_folders(const io::FileSource& files, const io::OpenPolicy& policy,
                             const std::vector<std::string>& folders, const std::string& glob) {
  Listing listing;
  std::vector<std::string> names;
  for (const std::string& folder : folders) {
    names.push_back(TRY(name_of_folder(files, policy, folder)));
    list_files(files, policy, {folder, names.back()}, glob, listing);
  }
  forget_listed(files, names, listing.folder_links);
  for (std::vector<std::string>* links : {&listing.folder_links, &listing.broken_links}) {
    std::sort(links->begin(), links->end());
    links->erase(std::unique(links->begin(), links->end()), links->end());
  }
  return listing;
}

}  // namespace coldchain::graph
