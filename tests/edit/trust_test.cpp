// SPDX-License-Identifier: MIT
#include <coldchain/edit/trust.hpp>

#include <doctest/doctest.h>

using namespace coldchain::edit;

namespace {

constexpr std::uint32_t root = 0;
constexpr std::uint32_t caller = 1000;
constexpr std::uint32_t image_owner = 64055;
constexpr std::uint32_t stranger = 65534;

Authorship written_by(std::uint32_t owner, std::uint32_t who_asks = caller) {
  return {owner, 0600, 1, image_owner, who_asks};
}

}  // namespace

TEST_CASE("trust: records are believed of root, of the caller and of the image's owner alone") {
  for (const std::uint32_t owner : {root, caller, image_owner})
    CHECK(belief_in(written_by(owner), false) == Belief::believed);
  CHECK(belief_in(written_by(stranger), false) == Belief::foreign);
}

TEST_CASE("trust: a change that is planned again is believed of root and of the caller alone") {
  for (const std::uint32_t owner : {root, caller})
    CHECK(belief_in(written_by(owner), true) == Belief::believed);
  for (const std::uint32_t owner : {image_owner, stranger})
    CHECK(belief_in(written_by(owner), true) == Belief::foreign);
}

TEST_CASE("trust: root believes no other user's plans") {
  CHECK(belief_in(written_by(root, root), true) == Belief::believed);
  for (const std::uint32_t owner : {caller, image_owner, stranger})
    CHECK(belief_in(written_by(owner, root), true) == Belief::foreign);
}

TEST_CASE("trust: a journal that others may write to, or that has a second name, is nobody's") {
  for (const std::uint32_t mode : {0620U, 0602U, 0666U}) {
    Authorship authorship = written_by(root);
    authorship.mode = mode;
    CHECK(belief_in(authorship, false) == Belief::others_may_write);
  }
  for (const std::uint32_t links : {0U, 2U}) {
    Authorship authorship = written_by(root);
    authorship.links = links;
    CHECK(belief_in(authorship, false) == Belief::several_names);
  }
}

TEST_CASE("trust: the reason names the owner, and the command runs as that user") {
  CHECK(reason_for(Belief::foreign, written_by(4242424242), true).find("user 4242424242") !=
        std::string::npos);
  CHECK(as_user(4242424242) == "sudo -u '#4242424242' ");
  CHECK(as_user(root) == "sudo ");
  CHECK(name_of_user(root) == "root");
}
