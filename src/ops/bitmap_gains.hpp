// SPDX-License-Identifier: MIT
// What changed since a bitmap began is what the bitmaps of that name mark in all layers of a chain.
// So if a layer leaves the chain of an image, the image's own bitmaps that record get its bits; and
// those of what is copied, as with `qemu-img rebase`. A layer that cannot say what changed in it
// makes the whole disk dirty: too many bits cost time, one that is missing costs data.
#pragma once

#include "image_editor.hpp"
#include "pieces.hpp"

#include <coldchain/graph/chain.hpp>
#include <coldchain/ops/plan.hpp>
#include <coldchain/qcow2/bitmaps.hpp>

namespace coldchain::ops {

class BitmapGains {
 public:
  // Nothing is gained.
  BitmapGains() = default;

  // For the image at the top of `chain`, if the layers `leaving` are no longer below it. The others
  // may stay below those of `onto`, if that is given: what has no such bitmap hides theirs.
  [[nodiscard]] static Result<BitmapGains> make(const graph::Chain& chain,
                                                const std::vector<std::size_t>& leaving,
                                                const graph::Chain* onto = nullptr);

  // A piece that the guest's disk gets, in ascending order, and whether the image has nothing below
  // it afterwards: then nothing shows where no layer has anything.
  void add_copied(const Piece& piece, bool is_alone);

  // Sets the bits. The editor is not finished yet.
  [[nodiscard]] Result<void> stage(edit::Transaction& transaction, ImageEditor& editor,
                                   const qcow2::Image& image) const;

  // The bitmaps that are not dirty as a whole, but get bits.
  [[nodiscard]] std::vector<std::string> marked() const;
  [[nodiscard]] std::vector<DirtyBitmap> all_dirty() const;
  // All bitmaps of the image that record.
  [[nodiscard]] std::vector<std::string> names() const;

 private:
  struct Gain {
    qcow2::Bitmap bitmap;  // of the image
    std::vector<GuestRange> dirty{};
    std::string all_because{};  // the reason why all is dirty; empty: it is not
  };

  std::vector<Gain> gains_;
  std::vector<GuestRange> copied_;
};

}  // namespace coldchain::ops
