// The part of Paddle Inference's C++ API that the tester calls, for the library in Paddle's Python
// wheel, which has no headers for it. The declarations were written from the symbols that the library
// exports (nm -DC libpaddle.so; listed in symbols.txt) and from the tester's calls.
//
// Only functions are declared. The library creates the objects, except AnalysisConfig, for which this
// header reserves a block of bytes. Its size is checked for kPaddleVersion only, so the tester rejects
// a library of another version (CheckPaddleVersion).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace paddle {

class PaddlePassBuilder {
 public:
  PaddlePassBuilder() = delete;
  const std::vector<std::string>& AllPasses() const;

 private:
  // A base class without data would have the same address as the derived class.
  void* lists_[6];
};

// The library exports the virtual table of this class only, so its base class begins behind the
// pointer to the table.
class PassStrategy : public PaddlePassBuilder {
 public:
  virtual ~PassStrategy();
};

class AnalysisConfig {
 public:
  enum class Precision { kFloat32 = 0 };

  AnalysisConfig(const std::string& program, const std::string& parameters);
  AnalysisConfig(const AnalysisConfig& other);
  ~AnalysisConfig();

  void SetCpuMathLibraryNumThreads(int threads);
  void EnableMemoryOptim(bool wanted = true);
  void DisableGlogInfo();
  void EnableONEDNN();
  void DisableONEDNN();
  void SwitchIrOptim(int wanted = true);
  void DeletePass(const std::string& name);
  PassStrategy* pass_builder() const;
  void EnableOpenVINOEngine(Precision precision);
  bool openvino_engine_enabled() const;
  void SetOptimCacheDir(const std::string& folder);

 private:
  // The library writes its object here. In 3.2.2 it has at most 1,640 bytes, measured with
  // malloc_usable_size on the object of a paddle.inference.Config.
  alignas(std::max_align_t) std::byte block_[8192];
};

}  // namespace paddle

namespace paddle_infer {

constexpr char kPaddleVersion[] = "3.2.2";

using Config = paddle::AnalysisConfig;

// The values are equal to those of paddle.inference.DataType in Python.
enum DataType { FLOAT32, INT64, INT32, UINT8, INT8, FLOAT16, BOOL, FLOAT64, BFLOAT16 };

class Tensor {
 public:
  Tensor() = delete;
  void Reshape(const std::vector<int>& shape);
  template <typename T>
  void CopyFromCpu(const T* values);
  template <typename T>
  void CopyToCpu(T* values) const;
  std::vector<int> shape() const;
  DataType type() const;
};

extern template void Tensor::CopyFromCpu<float>(const float*);
extern template void Tensor::CopyFromCpu<int64_t>(const int64_t*);
extern template void Tensor::CopyToCpu<float>(float*) const;

// The destructor of a tensor is not exported. The tester needs its handles until it ends.
struct Keep {
  void operator()(Tensor*) const {}
};

class Predictor {
 public:
  Predictor() = delete;
  std::unique_ptr<Tensor, Keep> GetInputHandle(const std::string& name);
  std::unique_ptr<Tensor, Keep> GetOutputHandle(const std::string& name);
  bool Run();
};

std::shared_ptr<Predictor> CreatePredictor(const Config& config);
std::string GetVersion();

}  // namespace paddle_infer
