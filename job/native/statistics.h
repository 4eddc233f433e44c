// Pure statistics, as in job/stats.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tester {

// How many other classes score at least as much as the label's: it is in the top k if they are
// fewer than k, in whatever order equals are listed. A row with NaN is never right.
inline size_t Rivals(const float* scores, size_t classes, int64_t label) {
  size_t rivals = 0;
  for (size_t at = 0; at < classes; ++at) {
    if (std::isnan(scores[at])) return std::numeric_limits<size_t>::max();
    rivals += scores[at] >= scores[label];
  }
  return rivals - 1;
}

// Percentile by nearest rank: the smallest sample that at least `share` of all do not exceed.
inline double Percentile(std::vector<double> samples, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(samples.size())));
  const auto wanted = samples.begin() + static_cast<std::ptrdiff_t>(std::max<size_t>(rank, 1) - 1);
  std::nth_element(samples.begin(), wanted, samples.end());
  return *wanted;
}

}  // namespace tester
