// SPDX-License-Identifier: MIT
#include "image_builder.hpp"

#include <coldchain/graph/probe.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using namespace coldchain::graph;
using namespace std::string_view_literals;

TEST_CASE("probe: knows formats by their first bytes and takes the rest for raw") {
  CHECK(probe_format(testing::ImageBuilder{testing::ImageOptions{}}.build().pieces.at(0)) ==
        "qcow2");
  CHECK(probe_format(text_bytes("QFI\xfb\0\0\0\1"sv)) == "qcow");
  CHECK(probe_format(text_bytes("KDMV")) == "vmdk");
  CHECK(probe_format(text_bytes("conectix")) == "vpc");
  CHECK(probe_format(text_bytes("LUKS\xba\xbe\0\1"sv)) == "luks");
  CHECK(probe_format(text_bytes("LUKS\xba\xbe\0\2"sv)) == "raw");
  CHECK(probe_format(text_bytes("QFI\xfb")) == "raw");
  CHECK(probe_format(ByteView{}) == "raw");
}

TEST_CASE("is_read_format: qcow2 and raw, the latter also by its protocol's name") {
  CHECK(is_read_format("qcow2"));
  CHECK(is_read_format("host_device"));
  CHECK(is_known_format("vmdk"));
  CHECK_FALSE(is_read_format("vmdk"));
  CHECK_FALSE(is_known_format("nonsense"));
}
