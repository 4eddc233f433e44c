#include "files.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "error.h"

namespace tester {

std::optional<std::string> ReadFile(const std::string& path) {
  if (!std::filesystem::exists(path)) return {};
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw DataError(path + ": cannot read the file");
  return content;
}

std::string WithCommas(unsigned __int128 number) {
  std::string reversed;
  for (int digit = 0; number > 0 || digit == 0; ++digit, number /= 10) {
    if (digit > 0 && digit % 3 == 0) reversed += ',';
    reversed += static_cast<char>('0' + static_cast<int>(number % 10));
  }
  return {reversed.rbegin(), reversed.rend()};
}

}  // namespace tester
