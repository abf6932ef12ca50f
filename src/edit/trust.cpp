// SPDX-License-Identifier: MIT
#include <array>
#include <optional>

#include <coldchain/base/text.hpp>
#include <coldchain/edit/trust.hpp>

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace coldchain::edit {

namespace {

constexpr std::uint32_t root = 0;

std::optional<std::string> known_name_of(std::uint32_t user) {
  std::array<char, 16384> buffer{};
  struct passwd entry = {};
  struct passwd* found = nullptr;
  if (::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return std::nullopt;
  return std::string(found->pw_name);
}

}  // namespace

Authorship authorship_of(const io::FileStatus& journal, std::uint32_t image_owner) {
  return {journal.owner, journal.mode, journal.links, image_owner, ::geteuid()};
}

Belief belief_in(const Authorship& authorship, bool is_planned_again) {
  if (authorship.links != 1)
    return Belief::several_names;
  if ((authorship.mode & (S_IWGRP | S_IWOTH)) != 0)
    return Belief::others_may_write;
  const bool is_ours = authorship.owner == root || authorship.owner == authorship.caller;
  const bool is_of_image = authorship.owner == authorship.image_owner;
  return is_ours || (is_of_image && !is_planned_again) ? Belief::believed : Belief::foreign;
}

std::string reason_for(Belief belief, const Authorship& authorship, bool is_planned_again) {
  switch (belief) {
    case Belief::several_names:
      return fmt::format("it has {} names, and only a file with one name is believed",
                         authorship.links);
    case Belief::others_may_write:
      return fmt::format("its mode is {:04o}, so that other users can write to it",
                         authorship.mode);
    case Belief::foreign:
      return fmt::format("it belongs to {}, and {}", name_of_user(authorship.owner),
                         is_planned_again
                             ? "such a change reads and writes other files, so that only a journal "
                               "of root or of the user who resumes it is believed"
                             : "only a journal of root, of the user who resumes it or of the "
                               "image's owner is believed");
    case Belief::believed:
      break;
  }
  return "";
}

std::string name_of_user(std::uint32_t user) {
  const std::optional<std::string> name = known_name_of(user);
  return name ? to_terminal(*name) : fmt::format("user {}", user);
}

std::string as_user(std::uint32_t user) {
  if (user == root)
    return "sudo ";
  const std::optional<std::string> name = known_name_of(user);
  return fmt::format("sudo -u {} ", name ? to_shell_word(*name) : fmt::format("'#{}'", user));
}

}  // namespace coldchain::edit
