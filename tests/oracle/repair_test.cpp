// SPDX-License-Identifier: MIT
// repair against qemu-img check -r: clean wherever that gets there; and an undo puts back every
// byte.
#include "damage.hpp"
#include "flipped_images.hpp"
#include "oracle.hpp"
#include "seeds.hpp"
#include "temp_folder.hpp"

#include <cstdlib>

using namespace coldchain;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

bool can_be_opened(const testing::Process& theirs) {
  return theirs.err.find("Could not open") == std::string::npos &&
         theirs.err.find("Cannot allocate memory") == std::string::npos;
}

// Repairs the image in `folder`/x, which holds `bytes`.
void compare(const TempFolder& folder, const Bytes& bytes) {
  testing::write_file(folder / "x", bytes);
  testing::write_file(folder / "theirs", bytes);
  const auto theirs = testing::run_in(folder.path(), "qemu-img check -f qcow2 -r all theirs");
  const auto they_left = testing::run_in(folder.path(), "qemu-img check -f qcow2 theirs");
  std::vector<std::string> command = {"check", "-f", "qcow2", "-r", "all", "--free-orphans", "x"};
  const auto mine = [&] {
    command.emplace_back("--dry-run");
    const auto planned = run_coldchain_in(folder.path(), command);
    CHECK(read_file(folder / "x") == to_string(bytes));
    command.pop_back();
    auto done = run_coldchain_in(folder.path(), command);
    CHECK(done.status == planned.status);
    return done;
  }();
  CAPTURE(theirs.err.substr(0, 1000));
  CAPTURE(mine.err.substr(0, 2000));
  const auto left = testing::run_in(folder.path(), "qemu-img check -f qcow2 x");
  CAPTURE(left.err.substr(0, 1000));
  if (can_be_opened(theirs) && they_left.status == 0)
    CHECK(left.status == 0);
  // What we call clean is so for them, and where we give up nothing has changed.
  if (mine.status == 0 && can_be_opened(left))
    CHECK(left.status == 0);
  const std::string undo_file = folder / "x.coldchain-undo";
  if (!std::filesystem::exists(undo_file)) {
    CHECK(read_file(folder / "x") == to_string(bytes));
    return;
  }
  CHECK(run_coldchain_in(folder.path(), {"undo", "x.coldchain-undo", "x"}).status == 0);
  CHECK(read_file(folder / "x") == to_string(bytes));
  std::filesystem::remove(undo_file);
}

}  // namespace

TEST_CASE("oracle: repair of every recipe is clean where qemu-img's is, and can be undone") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools are not installed");
    return;
  }
  const TempFolder folder;
  testing::write_file(folder / "data", std::string(4 << 20, 'd'));
  for (const testing::Damage& damage : testing::damages()) {
    CAPTURE(damage.name);
    compare(folder, damage.image());
  }
}

TEST_CASE("oracle: repair of flipped metadata is clean where qemu-img's is, and can be undone") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::for_each_seed(200, [&](std::uint64_t seed) {
    compare(folder, testing::flipped_image(static_cast<int>(seed)));
  });
}
