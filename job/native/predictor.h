// A saved model loaded into Paddle Inference.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "paddle_inference_api.h"
#include "saved_model.h"

namespace tester {

struct Batch {
  std::vector<float> images;    // [N, channels, height, width]
  std::vector<int64_t> labels;  // [N]
};

// Number of correct images; `top5` is empty if the model's accuracy layer has no top-5 output.
struct Right {
  int64_t top1 = 0;
  std::optional<int64_t> top5;
};

// Returns the version of the inference library, such as 3.2.2.
std::string PaddleVersion();

// Checks that the library has the version for which the tester's header was written. A library of
// another version can have other layouts and would crash. Throws MachineError.
void CheckPaddleVersion();

class Predictor {
 public:
  // Throws DataError if Paddle cannot load the model.
  Predictor(const SavedModel& model, const Shape& shape, int threads);

  // Runs the model once on a batch. Throws DataError if Paddle cannot run the model.
  void Run(const Batch& batch);

  // Returns the number of correct images of the last batch.
  Right CountRight(const Batch& batch) const;

  double load_seconds() const { return load_seconds_; }

 private:
  // The deleter depends on the header: the wheel's library exports no destructor of a tensor.
  using Handle = decltype(std::declval<paddle_infer::Predictor&>().GetInputHandle(""));

  SavedModel model_;
  Shape shape_;
  std::shared_ptr<paddle_infer::Predictor> predictor_;
  Handle image_;
  Handle label_;
  std::vector<Handle> outputs_;
  std::vector<std::vector<float>> values_;  // of the outputs
  double load_seconds_ = 0;
};

}  // namespace tester
