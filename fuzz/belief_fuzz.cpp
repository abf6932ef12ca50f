// SPDX-License-Identifier: MIT
// Whether a journal is believed, for any content and any users: what another user can have written
// decides nothing beyond the image that this user owns, and nothing of a change that is planned
// again.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/base/endian.hpp>
#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/trust.hpp>
#include <coldchain/io/memory_file.hpp>

namespace {

using namespace coldchain;
using namespace coldchain::edit;

struct Users {
  be32 owner;
  be32 mode;
  be32 links;
  be32 image_owner;
  be32 caller;
};

void check(bool holds) {
  if (!holds)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input = fuzz::to_bytes(data, size);
  const auto users = load<Users>(input, 0);
  if (!users)
    return 0;
  const Authorship authorship{users->owner.get(), users->mode.get(), users->links.get(),
                              users->image_owner.get(), users->caller.get()};
  const io::MemoryFile file(Bytes(input.begin() + sizeof(Users), input.end()));
  const auto head = Journal::read_head(file);
  const bool is_planned = head && is_planned_again(head->facts.change.operation);
  if (head && has_data(head->facts.change.operation))
    check(is_planned);
  const Belief belief = belief_in(authorship, is_planned);
  check(belief == Belief::believed || !reason_for(belief, authorship, is_planned).empty());
  check(as_user(authorship.owner).starts_with("sudo "));
  if (belief != Belief::believed)
    return 0;
  check(authorship.links == 1 && (authorship.mode & 0022U) == 0);
  const bool is_ours = authorship.owner == 0 || authorship.owner == authorship.caller;
  check(is_ours || (!is_planned && authorship.owner == authorship.image_owner));
  check(belief_in(authorship, false) == Belief::believed);
  return 0;
}
