// SPDX-License-Identifier: MIT
// commit: its command line, and that of `plan commit`.
#include "commit.hpp"

#include "change.hpp"
#include "option_values.hpp"
#include "verb.hpp"

namespace coldchain::cli {

namespace {

void options(CommandLine app, CommitRequest& commit) {
  add_common_options(app, commit.common);
  app.add_option("-b", commit.base, "The layer to commit into; the image keeps its content")
      .type_name("BASE");
  app.add_flag("-d,--keep", commit.keeps, "Do not empty the image");
  app.add_flag("--force", commit.force,
               "Commit even if another image or an internal snapshot reads through what changes");
  add_unreadable_option(app, commit.unreadable_are_zeros);
  app.add_flag("--detect-zeroes", commit.detects_zeroes,
               "Store data that is all zeros as explicit zeros, without clusters");
  app.add_option(
         "--bitmaps",
         [&commit](const std::string& rule) {
           commit.bitmaps = rule == "merge"  ? ops::BitmapRule::merge
                            : rule == "drop" ? ops::BitmapRule::drop
                                             : ops::BitmapRule::qemu;
         },
         "Leave, merge or drop the bitmaps of the committed layers")
      .check(one_of({"qemu", "merge", "drop"}))
      .type_name("qemu|merge|drop");
  app.add_flag("--reparent", commit.reparents,
               "Also make the base the backing file of the image's overlays, in its folder and "
               "below --scan");
  app.add_flag("--yes", commit.agrees, "Write to the overlays that --reparent finds");
  app.add_option("--scan", commit.scan,
                 "Also look in DIR for images that depend on the base or on the image")
      .check(not_empty())
      .type_name("DIR");
  app.add_option("-t", commit.cache, "Accepted and ignored").type_name("CACHE");
  app.add_flag("-q", commit.quiet, "Print only warnings");
  add_copy_options(app, commit.copy);
  add_state_option(app, commit.folders);
  app.add_option("IMAGE", commit.image, "Path or block device").required().type_name("");
  app.footer("Example: coldchain commit top.qcow2");
}

void plan_options(CommandLine app, CommitRequest& commit) {
  options(app, commit);
  commit.is_plan = true;
  app.footer("Example: coldchain plan commit top.qcow2");
}

}  // namespace

void register_commit(CommandLine app, World& world, int& status) {
  add_verb<CommitRequest>(app, "commit", "Move the data of an image into its backing file", world,
                          status, options, run_commit);
}

void add_commit_plan(CommandLine plan, World& world, int& status) {
  add_looking_verb<CommitRequest>(plan, "commit", "Show what a commit would do", world, status,
                                  plan_options, run_commit);
}

}  // namespace coldchain::cli
