// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>

#include <doctest/doctest.h>

using namespace coldchain;

TEST_CASE("to_json_string: escapes as QEMU does") {
  CHECK(to_json_string("a\"b\\c\n") == R"("a\"b\\c\n")");
  CHECK(to_json_string("\x01\x7f") == R"("\u0001\u007F")");
  CHECK(to_json_string("\xc3\xa9") == R"("\u00E9")");
  CHECK(to_json_string("\xf0\x9f\x98\x80") == R"("\uD83D\uDE00")");
}

TEST_CASE("to_json_string: bytes that are not UTF-8 become the replacement character") {
  CHECK(to_json_string("a\xff") == R"("a\uFFFD")");
  CHECK(to_json_string("\xc3") == R"("\uFFFD")");
  CHECK(to_json_string("\xed\xa0\x80") == R"("\uFFFD")");
  CHECK(to_json_string("a\xc0\x80"
                       "b\xc1\x81"
                       "c\xf8\x88\x80\x80\x80"
                       "d\xf5\x80\x80\x80"
                       "e\xff") == R"("a\u0000b\uFFFDc\uFFFDd\uFFFDe\uFFFD")");
  CHECK(to_json_string("\xe2\x94") == R"("\uFFFD")");
}

TEST_CASE("to_terminal: no control character and no bad byte reaches the terminal") {
  CHECK(to_terminal("a\x1b[2Jb") == "a\\x1b[2Jb");
  CHECK(to_terminal("\xff") == "\\xff");
  CHECK(to_terminal("\xc3\xa9") == "\xc3\xa9");
  CHECK(to_terminal("\xc2\x9b") == "\\xc2\\x9b");
  CHECK(to_terminal("\xe2\x80\xae") == "\\xe2\\x80\\xae");
}

TEST_CASE("to_shell_word: what is pasted names the same bytes") {
  CHECK(to_shell_word("/a/disk.qcow2") == "/a/disk.qcow2");
  CHECK(to_shell_word("").size() == 2);
  CHECK(to_shell_word("a b") == "'a b'");
  CHECK(to_shell_word("it's") == "'it'\\''s'");
  CHECK(to_shell_word("\xc3\xa9") == "'\xc3\xa9'");
  CHECK(to_shell_word("a\x1b'\\\xff") == "$'a\\x1b\\'\\\\\\xff'");
}

TEST_CASE("is_valid_utf8: refuses overlong forms, surrogates and cut sequences") {
  CHECK(is_valid_utf8("plain \xe2\x94\x94"));
  CHECK_FALSE(is_valid_utf8("\xc0\x80"));
  CHECK_FALSE(is_valid_utf8("\xed\xa0\x80"));
  CHECK_FALSE(is_valid_utf8("\xe2\x94"));
}

TEST_CASE("human_size: keeps three digits and changes the unit at a thousand") {
  CHECK(human_size(0) == "0 B");
  CHECK(human_size(512) == "512 B");
  CHECK(human_size(1000) == "0.977 KiB");
  CHECK(human_size(1024) == "1 KiB");
  CHECK(human_size(200704) == "196 KiB");
  CHECK(human_size(1ULL << 40) == "1 TiB");
  CHECK(human_size(~0ULL) == "16 EiB");
}

TEST_CASE("display_width: counts characters, not bytes") {
  CHECK(display_width("abc") == 3);
  CHECK(display_width("\xe2\x94\x94\xe2\x94\x80 x") == 4);
}

TEST_CASE("display_width: wide characters have two columns, combining ones none") {
  CHECK(display_width("\u4e2d\u6587.qcow2") == 10);  // Chinese
  CHECK(display_width("\uff21\uff22") == 4);         // fullwidth letters
  CHECK(display_width("\uff76\uff9e") == 2);         // halfwidth kana
  CHECK(display_width("\uac00") == 2);               // a Hangul syllable,
  CHECK(display_width("\u1100\u1161\u11a8") == 2);   // and one that is composed
  CHECK(display_width("\U0001f600") == 2);
  CHECK(display_width("\U00020000") == 2);
  CHECK(display_width("e\u0301") == 1);
  CHECK(display_width("\u00ad") == 1);
}
