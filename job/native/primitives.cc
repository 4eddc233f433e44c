#include "primitives.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <sstream>
#include <tuple>

namespace tester {

namespace {

struct Primitive {
  std::string kind, implementation, data_type;
  double milliseconds;
};

std::vector<std::string> SplitBy(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

// Returns the data type of the source in descriptors such as
// "src:u8:a:blocked:acdb::f0 wei:s8:..."; may be empty. The oneDNN in Paddle's OpenVINO engine writes
// "src_u8:a:blocked:acdb::f0".
std::string SourceType(const std::string& descriptors) {
  std::string first;
  for (const auto& part : SplitBy(descriptors, ' ')) {
    const auto fields = SplitBy(part, ':');
    if (fields.size() < 2) continue;
    if (fields[0].rfind("src_", 0) == 0) return fields[0].substr(4);
    if (fields[0] == "src") return fields[1];
    if (fields[0] == "src0") first = fields[1];
  }
  return first;
}

bool IsCompute(const Primitive& primitive) {
  static const std::array<std::string, 4> kinds = {"convolution", "inner_product", "matmul",
                                                   "deconvolution"};
  return std::find(kinds.begin(), kinds.end(), primitive.kind) != kinds.end();
}

std::vector<Primitive> Parse(std::istream& log) {
  std::vector<Primitive> found;
  for (std::string line; std::getline(log, line);) {
    const auto fields = SplitBy(line, ',');
    if (fields.size() < 11) continue;
    const auto exec = std::find(fields.begin(), fields.begin() + 4, "exec");
    const std::string& mark = fields.front();
    const bool is_log = mark.size() >= 7 && mark.compare(mark.size() - 7, 7, "verbose") == 0;
    if (!is_log || exec == fields.begin() + 4) continue;
    // The fields after "exec" are engine, kind, implementation, propagation, descriptors, ...,
    // milliseconds.
    found.push_back({exec[2], exec[3], SourceType(exec[5]), std::atof(fields.back().c_str())});
  }
  return found;
}

// Returns the start of the last of at least two equal runs. The first run also reorders weights.
std::vector<Primitive>::const_iterator LastRun(const std::vector<Primitive>& all, int runs) {
  std::vector<std::ptrdiff_t> computing;
  for (std::size_t at = 0; at < all.size(); ++at) {
    if (IsCompute(all[at])) computing.push_back(static_cast<std::ptrdiff_t>(at));
  }
  const auto per_run = computing.size() / runs;
  if (per_run == 0) return all.end();
  // A run begins before its first computation, with the reorders of its input.
  return all.end() - (computing.end()[-per_run] - computing.end()[-2 * per_run]);
}

}  // namespace

std::vector<PrimitiveRow> SummarizeLog(std::istream& log, int runs) {
  const auto all = Parse(log);
  std::map<std::tuple<std::string, std::string, std::string>, PrimitiveRow> rows;
  for (auto at = LastRun(all, runs); at != all.end(); ++at) {
    PrimitiveRow& row = rows[{at->kind, at->implementation, at->data_type}];
    row = {at->kind, at->implementation, at->data_type, row.count + 1,
           row.milliseconds + at->milliseconds};
  }
  std::vector<PrimitiveRow> sorted;
  for (const auto& [key, row] : rows) sorted.push_back(row);
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& one, const auto& other) {
    return one.milliseconds > other.milliseconds;
  });
  return sorted;
}

}  // namespace tester
