// SPDX-License-Identifier: MIT
#include <coldchain/report/xml_writer.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using report::XmlWriter;

TEST_CASE("XmlWriter: lays out and escapes as libvirt does") {
  XmlWriter xml;
  xml.open("volume", {{"type", "file"}}).text("name", "a'b\"c<d>e&f").empty("features");
  xml.open("encryption", {{"format", "luks"}}).close();
  CHECK(xml.close().take().value() ==
        "<volume type='file'>\n"
        "  <name>a&apos;b&quot;c&lt;d&gt;e&amp;f</name>\n"
        "  <features/>\n"
        "  <encryption format='luks'>\n"
        "  </encryption>\n"
        "</volume>\n");
}

TEST_CASE("XmlWriter: a tab or line break in a name is still there for a reader") {
  XmlWriter xml;
  CHECK(xml.text("name", "a\tb\nc").take().value() == "<name>a&#x9;b&#xA;c</name>\n");
}

TEST_CASE("XmlWriter: what XML cannot hold is an error, and never dropped") {
  for (const char* bad : {"a\x01z", "a\xffz", "\xed\xa0\x80"}) {
    XmlWriter xml;
    const auto text = xml.empty("format", {{"type", bad}}).text("name", "good").take();
    REQUIRE(!text);
    CHECK(text.error().message.find("XML cannot hold the name 'a\\x") ==
          (bad[0] == 'a' ? 0 : std::string::npos));
  }
}
