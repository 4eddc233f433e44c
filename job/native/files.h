// Reads whole files.
#pragma once

#include <optional>
#include <string>

namespace tester {

// Returns a file's content; nothing for a missing file. Throws DataError if it cannot be read.
std::optional<std::string> ReadFile(const std::string& path);

// Formats a count with commas: 1234567 -> "1,234,567".
std::string WithCommas(unsigned __int128 number);

// Joins sizes by x: "3x224x224".
template <typename Numbers>
std::string Joined(const Numbers& numbers) {
  std::string text;
  for (const auto number : numbers) text += (text.empty() ? "" : "x") + std::to_string(number);
  return text;
}

}  // namespace tester
