// SPDX-License-Identifier: MIT
// A repair that stops anywhere, with any part of what was not flushed on the storage: the side file
// leads forward to the repaired image and back to the one that was.
#include "crash_log.hpp"
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/recovery.hpp>
#include <coldchain/ops/repair.hpp>

using namespace coldchain;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8)
    return 0;
  // The end of the input says where it stops.
  const std::size_t where = data[size - 1] + std::size_t{256} * data[size - 2];
  std::mt19937_64 random(where);
  const Bytes before = fuzz::to_bytes(data, size - 2);
  testing::CrashLog log;
  testing::CrashFile file(before, 0, log);
  testing::CrashFile side(Bytes(), 1, log);
  edit::Transaction transaction(file);
  if (!ops::plan_repair(transaction, nullptr, {}) || transaction.size_after() > (1U << 24))
    return 0;
  const auto written =
      edit::Journal::create(side, transaction, file.status().identity, {.verb = "crash"});
  if (!written || !edit::roll_forward(*written, file))
    std::abort();
  const Bytes after = file.content();
  const auto keeps = [&] { return random() % 2 == 0; };
  const std::size_t steps = where % (log.size() + 1);
  const Bytes image = testing::after_crash(log, steps, 0, before, keeps);
  io::MemoryFile side_left(testing::after_crash(log, steps, 1, Bytes(), keeps), 1);
  if (edit::Journal::is_incomplete(side_left).value_or(false)) {
    if (image != before)
      std::abort();
    return 0;
  }
  const auto journal = edit::Journal::open(side_left);
  if (!journal)
    std::abort();
  io::MemoryFile forward(image);
  io::MemoryFile back(image);
  if (!edit::roll_forward(*journal, forward) || forward.content() != after ||
      !edit::roll_back(*journal, back) || back.content() != before)
    std::abort();
  return 0;
}
