// SPDX-License-Identifier: MIT
// What every change of a sound image looks at before it is planned, and when it is.
#pragma once

#include <string>
#include <vector>

#include <coldchain/check/check.hpp>
#include <coldchain/edit/transaction.hpp>
#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/plan.hpp>
#include <coldchain/qcow2/snapshots.hpp>

namespace coldchain::ops {

class ImageEditor;

// What is wrong with a layer, under its name.
[[nodiscard]] Error about(const graph::Layer& layer, Error error);

[[nodiscard]] Result<check::CheckResult> check_metadata(const io::File& file, unsigned workers);

// `refused` for an image that is damaged, or was not closed: who allocates by refcounts that are
// too low overwrites data.
// Data of its own that the file has no bytes of reads as zeros once the file grows: only with
// `unreadable_are_zeros` may it.
[[nodiscard]] Result<void> check_sound(const qcow2::Header& header,
                                       const check::CheckResult& checked,
                                       bool unreadable_are_zeros = false);

// Makes zeros of the compressed clusters of the image itself that the end of its file cuts. Where
// the file grows over the missing bytes, they would decompress to other data. Before all else that
// `editor` does. `refused` for an image that cannot mark zeros, or has internal snapshots.
[[nodiscard]] Result<void> zero_cut_streams(ImageEditor& editor, const qcow2::Header& header,
                                            const check::CheckResult& checked);

// The guest ranges of such data.
[[nodiscard]] analysis::UnreadableRanges own_unreadable(const check::CheckResult& checked);

// `refused` where the outcome of a plan, looked at like an image that somebody else has made, is
// not sound.
[[nodiscard]] Result<void> check_plan(const check::CheckResult& checked);

// `refused` for what data cannot be written into by us.
[[nodiscard]] Result<void> check_kind(const qcow2::Header& header);

// `refused` for a raw image that is a window of its file.
[[nodiscard]] Result<void> check_is_whole(const raw::Image& image);

// `refused`, with the size needed, where a block device is too small.
[[nodiscard]] Result<void> check_device(const edit::Transaction& transaction);

// Whether the data of all qcow2 layers can be read; errors name the layer.
[[nodiscard]] Result<void> check_readable(const std::vector<graph::Layer>& layers);

// Internal snapshots, which are found by their IDs from here on: `refused` where two have the same.
[[nodiscard]] Result<std::vector<qcow2::Snapshot>> snapshots_of(const qcow2::Image& image);

// Lets the changes need as many tables as the files of the layers have storage for.
void raise_limit(edit::Transaction& transaction, const graph::Chain& chain);

// "NAME in FILE" for each bitmap of the layers from `begin` up to `end` but for some names. Those
// that cannot be read have one entry.
[[nodiscard]] std::vector<std::string> bitmaps_of(const graph::Chain& chain, std::size_t begin,
                                                  std::size_t end,
                                                  const std::vector<std::string>& without = {});

[[nodiscard]] LayerStorage storage_of(const graph::Node& layer);

// What `transaction` does to the metadata of an image, where clusters in use end at `end_after`
// then.
[[nodiscard]] Result<void> fill_cost(Cost& cost, const edit::Transaction& transaction,
                                     const check::CheckResult& before, std::uint64_t end_after);

}  // namespace coldchain::ops
