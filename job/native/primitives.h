// Which oneDNN primitives ran, read from oneDNN's own log, as in job/profile/onednn_log.py. Format:
// https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
#pragma once

#include <istream>
#include <string>
#include <vector>

namespace tester {

// Executions of one kind, implementation and data type in one call.
struct PrimitiveRow {
  std::string kind;
  std::string implementation;
  std::string data_type;
  int count = 0;
  double milliseconds = 0;
};

// Sums up the last of `runs` equal calls in a log, the slowest rows first.
std::vector<PrimitiveRow> SummarizeLog(std::istream& log, int runs);

}  // namespace tester
