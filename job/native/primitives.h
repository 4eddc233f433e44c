// Reads the executed primitives from oneDNN's log, as job/profile/onednn_log.py does. Log format:
// https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
#pragma once

#include <istream>
#include <string>
#include <vector>

namespace tester {

// Executions with the same kind, implementation and data type in one call.
struct PrimitiveRow {
  std::string kind;
  std::string implementation;
  std::string data_type;
  int count = 0;
  double milliseconds = 0;
};

// Summarizes the last of `runs` equal calls in a log; the slowest rows are first.
std::vector<PrimitiveRow> SummarizeLog(std::istream& log, int runs);

}  // namespace tester
