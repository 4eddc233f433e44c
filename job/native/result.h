// The result of a test, and its JSON object, which `job predict --json` prints as well.
#pragma once

#include <string>
#include <vector>

#include "options.h"
#include "predictor.h"
#include "primitives.h"
#include "saved_model.h"

namespace tester {

struct Result {
  std::string paddle;  // version
  SavedModel model;
  Shape shape;  // shape of an image
  Options options;
  int64_t file_images = 0;
  int64_t batch_size = 0;
  int64_t iterations = 0;
  int64_t images = 0;  // number of scored images
  Right right;
  std::vector<double> milliseconds;  // latency of each timed call
  double load_seconds = 0;
  std::optional<std::vector<PrimitiveRow>> primitives;
};

std::string ToJson(const Result& result);

}  // namespace tester
