// SPDX-License-Identifier: MIT
// apply: carries out what was planned, as long as it comes to the same. Of the file the command
// alone is obeyed: the verb plans again, with the locks held, and compares.
#include "verb.hpp"
#include "world.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/io/file.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace coldchain::cli {

namespace {

constexpr std::uint64_t most_bytes = 64ULL << 20;

struct ApplyOptions {
  std::string plan;
};

void options(CLI::App& app, ApplyOptions& apply) {
  app.add_option("PLAN", apply.plan, "What 'plan VERB --output=json' wrote")
      ->required()
      ->type_name("");
  app.footer(
      "Example: coldchain plan commit --output=json top.qcow2 > plan.json\n"
      "         coldchain apply plan.json");
}

Result<Agreement> read_plan(const std::string& path, const World& world) {
  const auto files = TRY(world.files({}));
  const std::unique_ptr<io::File> file = TRY(files->open(path));
  if (file->size() > most_bytes)
    return fail(ErrorCode::corrupt, fmt::format("is no plan: it has {} bytes", file->size()));
  Bytes bytes(file->size());
  TRY(io::read_exactly(*file, {0}, bytes, "plan"));
  return read_agreement({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Result<ExitStatus> run_verb(const ApplyOptions& apply, World& world) {
  Result<Agreement> agreement = read_plan(apply.plan, world);
  if (!agreement)
    return fail(with_context(agreement.error(), to_terminal(apply.plan)));
  world.agreement = std::move(*agreement);
  return ExitStatus(run(world.agreement->command, world));
}

}  // namespace

void register_apply(CLI::App& app, World& world, int& status) {
  add_verb<ApplyOptions>(app, "apply", "Carry out what was planned, if it is still the same", world,
                         status, options, run_verb);
}

}  // namespace coldchain::cli
