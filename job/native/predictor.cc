#include "predictor.h"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <numeric>
#include <sstream>

#include "error.h"
#include "statistics.h"

namespace tester {

namespace {

// An empty folder that exists as long as this object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    path_ = (std::filesystem::temp_directory_path() / "job-openvino-XXXXXX").string();
    if (!mkdtemp(path_.data())) throw std::runtime_error("cannot create the folder " + path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Equal to the configuration in job/engine/paddle_openvino/model.py. Only the engine computes this
// model correctly, and a Paddle without the engine only logs an error.
std::shared_ptr<paddle_infer::Predictor> InOpenVINO(const SavedModel& model, int threads) {
  const TemporaryFolder cache;
  paddle_infer::Config config(model.prefix + ".pdmodel", model.prefix + ".pdiparams");
  config.SetCpuMathLibraryNumThreads(threads);
  config.DisableGlogInfo();
  config.EnableOpenVINOEngine(paddle_infer::Config::Precision::kFloat32);
  config.SetOptimCacheDir(cache.path());
  if (!config.openvino_engine_enabled()) {
    throw MachineError(model.prefix + " needs the OpenVINO engine of Paddle Inference, but the "
                                      "installed Paddle does not contain it",
                       "Install the locked version of Paddle.");
  }
  return paddle_infer::CreatePredictor(config);
}

// Equal to the configuration in job/engine/inference/predictor.py, which documents the reasons.
paddle_infer::Config Configuration(const SavedModel& model, int threads) {
  paddle_infer::Config config(model.prefix + ".pdmodel", model.prefix + ".pdiparams");
  config.SetCpuMathLibraryNumThreads(threads);
  config.EnableMemoryOptim();
  config.DisableGlogInfo();
  if (model.kind == "fake_quantized") {
    config.DisableONEDNN();
    config.SwitchIrOptim(false);
    return config;
  }
  config.EnableONEDNN();
  if (model.kind == "fp32") {
    config.DeletePass("repeated_fc_relu_fuse_pass");
    return config;
  }
  const std::vector<std::string> passes = config.pass_builder()->AllPasses();
  for (const auto& pass : passes) {
    if (pass != "constant_folding_pass") config.DeletePass(pass);
  }
  return config;
}

// Runs `work` and translates Paddle's exceptions to DataError.
template <typename Work>
auto Translated(const std::string& prefix, const Work& work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    // Paddle's message contains a stack trace; its summary begins with a parenthesis.
    std::istringstream lines(error.what());
    std::string line, summary;
    while (std::getline(lines, line)) {
      line.erase(0, line.find_first_not_of(' '));
      if (line.rfind('(', 0) == 0) {
        summary = line;
        break;
      }
      if (!line.empty()) summary = line;
    }
    throw DataError(prefix + ": Paddle cannot run this model: " + summary,
                    "Save the model again with the installed Paddle version (see `job doctor`).");
  }
}

}  // namespace

std::string PaddleVersion() {
  std::istringstream words(paddle_infer::GetVersion());
  std::string word;
  while (words >> word && word != "version:") continue;
  words >> word;
  return word;
}

void CheckPaddleVersion() {
#ifdef PADDLE_OF_WHEEL
  const std::string expected = paddle_infer::kPaddleVersion;
  if (PaddleVersion() != expected) {
    throw MachineError("the tester was built for Paddle " + expected + ", found Paddle " +
                           PaddleVersion(),
                       "Install the locked version of Paddle and build the tester again.");
  }
#endif
}

Predictor::Predictor(const SavedModel& model, const Shape& shape, int threads)
    : model_(model), shape_(shape) {
  const auto started = std::chrono::steady_clock::now();
  Translated(model.prefix, [&] {
    predictor_ = model.kind == "paddle_openvino"
                     ? InOpenVINO(model, threads)
                     : paddle_infer::CreatePredictor(Configuration(model, threads));
    image_ = predictor_->GetInputHandle(model.image);
    if (model.label) label_ = predictor_->GetInputHandle(*model.label);
    const auto names = model.label ? model.accuracies : std::vector<std::string>{model.scores};
    for (const auto& name : names) outputs_.push_back(predictor_->GetOutputHandle(name));
  });
  values_.resize(outputs_.size());
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
  load_seconds_ = elapsed.count();
}

void Predictor::Run(const Batch& batch) {
  Translated(model_.prefix, [&] {
    const int count = static_cast<int>(batch.labels.size());
    image_->Reshape({count, shape_[0], shape_[1], shape_[2]});
    image_->CopyFromCpu(batch.images.data());
    if (label_) {
      const std::vector<int> one{count}, two{count, 1};
      label_->Reshape(model_.label_is_matrix ? two : one);
      label_->CopyFromCpu(batch.labels.data());
    }
    if (!predictor_->Run()) throw std::runtime_error("the run returned no result");
    // An accuracy output has one value; the score output has one value per image and class.
    const size_t expected = label_ ? 1 : batch.labels.size() * static_cast<size_t>(model_.classes);
    for (size_t at = 0; at < outputs_.size(); ++at) {
      const std::vector<int> sizes = outputs_[at]->shape();
      const auto total = std::accumulate(sizes.begin(), sizes.end(), size_t{1}, std::multiplies());
      if (outputs_[at]->type() != paddle_infer::DataType::FLOAT32 || total != expected) {
        throw std::runtime_error("expected a float32 output of " + std::to_string(expected) +
                                 " values, found another type or " + std::to_string(total) +
                                 " values");
      }
      values_[at].resize(total);
      outputs_[at]->CopyToCpu(values_[at].data());
    }
  });
}

Right Predictor::CountRight(const Batch& batch) const {
  const size_t count = batch.labels.size();
  if (!model_.label) {
    const auto& scores = values_.front();
    const auto classes = static_cast<size_t>(model_.classes);
    Right right{0, 0};
    for (size_t row = 0; row < count; ++row) {
      const size_t rivals = Rivals(&scores[row * classes], classes, batch.labels[row]);
      right.top1 += rivals < 1;
      right.top5 = *right.top5 + (rivals < 5);
    }
    return right;
  }
  std::vector<int64_t> counts;
  for (const auto& share : values_) counts.push_back(std::llround(share.front() * count));
  return {counts.front(), counts.size() > 1 ? std::optional(counts.back()) : std::nullopt};
}

}  // namespace tester
