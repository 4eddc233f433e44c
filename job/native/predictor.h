// A saved model, loaded in Paddle Inference.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "paddle_inference_api.h"
#include "saved_model.h"

namespace tester {

struct Batch {
  std::vector<float> images;    // [N, channels, height, width]
  std::vector<int64_t> labels;  // [N]
};

// Right answers in a batch; nothing for a top-5 that the accuracy layer does not tell.
struct Right {
  int64_t top1 = 0;
  std::optional<int64_t> top5;
};

// Version of the inference library, such as 3.2.2.
std::string PaddleVersion();

class Predictor {
 public:
  // Throws DataError if Paddle cannot load the model.
  Predictor(const SavedModel& model, const Shape& shape, int threads);

  // One call: images and labels in, scores or accuracies out.
  // Throws DataError if Paddle cannot run the model.
  void Run(const Batch& batch);

  // How many images are right, of the batch that was run last.
  Right CountRight(const Batch& batch) const;

  double load_seconds() const { return load_seconds_; }

 private:
  SavedModel model_;
  Shape shape_;
  std::shared_ptr<paddle_infer::Predictor> predictor_;
  std::unique_ptr<paddle_infer::Tensor> image_;
  std::unique_ptr<paddle_infer::Tensor> label_;
  std::vector<std::unique_ptr<paddle_infer::Tensor>> outputs_;
  std::vector<std::vector<float>> values_;  // of the outputs
  double load_seconds_ = 0;
};

}  // namespace tester
