// Statistics, as in the Python package job.stats.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tester {

// Returns the number of other classes whose score is at least the label's score. The label is in
// the top k if this number is less than k, so ties count against the label. A row with NaN is never
// correct.
inline size_t Rivals(const float* scores, size_t classes, int64_t label) {
  size_t rivals = 0;
  for (size_t at = 0; at < classes; ++at) {
    if (std::isnan(scores[at])) return std::numeric_limits<size_t>::max();
    rivals += scores[at] >= scores[label];
  }
  return rivals - 1;
}

// Percentile by nearest rank: the smallest sample such that at least `share` of all samples are not
// larger.
inline double Percentile(std::vector<double> samples, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(samples.size())));
  const auto wanted = samples.begin() + static_cast<std::ptrdiff_t>(std::max<size_t>(rank, 1) - 1);
  std::nth_element(samples.begin(), wanted, samples.end());
  return *wanted;
}

}  // namespace tester
