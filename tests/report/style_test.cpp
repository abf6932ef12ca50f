// SPDX-License-Identifier: MIT
#include <coldchain/report/style.hpp>

#include <doctest/doctest.h>

using namespace coldchain::report;

TEST_CASE("Table: aligns columns by what is seen and leaves no space at the end of a line") {
  Table table({"A", "SIZE", "B"}, {Table::Align::left, Table::Align::right, Table::Align::left});
  table.add({"\xe2\x94\x94 x", "1", ""});
  table.add({"long name", "1000", "end"});
  CHECK(table.text({}) ==
        "A          SIZE  B\n"
        "\xe2\x94\x94 x           1\n"
        "long name  1000  end\n");
}

TEST_CASE("Table: names of East Asian width align") {
  Table table({"NAME", "B"}, {Table::Align::left, Table::Align::left});
  table.add({"\u78c1\u789f", "x"});
  table.add({"disks", "x"});
  CHECK(table.text({}) ==
        "NAME   B\n"
        "\u78c1\u789f   x\n"
        "disks  x\n");
}

TEST_CASE("Style: without colour nothing but the text is printed") {
  CHECK(Style{}.paint(Style::Ink::red, "x") == "x");
  CHECK(Style{.color = true}.paint(Style::Ink::red, "x") == "\x1b[31mx\x1b[0m");
}
