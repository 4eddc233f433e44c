// What a test found, and its JSON: the same document as `job predict --json` prints.
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
  Shape shape;  // of the images
  Options options;
  int64_t file_images = 0;
  int64_t batch_size = 0;
  int64_t iterations = 0;
  int64_t images = 0;  // predicted
  Right right;
  std::vector<double> milliseconds;  // of each call that counts for speed
  double load_seconds = 0;
  std::optional<std::vector<PrimitiveRow>> primitives;
};

std::string ToJson(const Result& result);

}  // namespace tester
