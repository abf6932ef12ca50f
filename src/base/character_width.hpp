// SPDX-License-Identifier: MIT
// How many columns of a terminal a character takes, whatever the locale of the user is.
#pragma once

namespace coldchain {

// 0 for a mark that is combined with the character before it, 2 for a wide character of East Asia.
// Control characters are not asked for.
[[nodiscard]] unsigned character_width(char32_t character);

}  // namespace coldchain
