// SPDX-License-Identifier: MIT
// Names from images are arbitrary bytes. These functions make them safe for the two places where
// they are shown: a JSON document and a person's terminal. Sizes for people are here too.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coldchain {

// A JSON string literal with its quotes. Escapes as QEMU does: everything outside printable ASCII
// becomes \uXXXX (surrogate pairs above the BMP), a malformed sequence becomes \uFFFD.
[[nodiscard]] std::string to_json_string(std::string_view bytes);

// What a terminal may be given: valid UTF-8 as it is, control characters and bad bytes as \xNN.
[[nodiscard]] std::string to_terminal(std::string_view bytes);

// The same, but lines stay lines.
[[nodiscard]] std::string to_terminal_lines(std::string_view text);

// One word of a command that a person can paste into a shell, and that a terminal may be given.
[[nodiscard]] std::string to_shell_word(std::string_view bytes);

[[nodiscard]] bool is_valid_utf8(std::string_view bytes);

[[nodiscard]] std::string to_hex(std::string_view bytes);

// How many columns a terminal gives to `text`, which is valid UTF-8 without control characters.
[[nodiscard]] std::size_t display_width(std::string_view text);

// "196 KiB", "1.5 GiB": three significant digits and a binary unit, as qemu-img prints sizes.
[[nodiscard]] std::string human_size(std::uint64_t bytes);

}  // namespace coldchain
