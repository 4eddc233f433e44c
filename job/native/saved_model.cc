#include "saved_model.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <stdexcept>

#include "error.h"
#include "files.h"
#include "program.h"

namespace tester {

namespace {

namespace fs = std::filesystem;

constexpr int kInt32 = 2, kInt64 = 3;  // VarType.Type
const char kModelHint[] =
    "Set --infer-model to a folder such as runs/digits/int8, or to the path of a model in it.";

bool StartsWith(const std::string& text, const std::string& start) {
  return text.rfind(start, 0) == 0;
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string Listed(const std::vector<std::string>& names, const std::string& none) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? none : text;
}

std::string First(const std::map<std::string, std::vector<std::string>>& slots,
                  const std::string& slot) {
  const auto found = slots.find(slot);
  return found == slots.end() || found->second.empty() ? "" : found->second.front();
}

int64_t Integer(const Op& op, const std::string& name, int64_t otherwise) {
  const auto found = op.integers.find(name);
  return found == op.integers.end() ? otherwise : found->second;
}

// Returns the variables of the feed or fetch ops in the order of the model's inputs or outputs.
std::vector<std::string> Ordered(const Program& program, const std::string& type) {
  std::map<int64_t, std::string> by_column;
  for (const Op& op : program.ops) {
    if (op.type != type) continue;
    const auto name = type == "feed" ? First(op.outputs, "Out") : First(op.inputs, "X");
    by_column[Integer(op, "col", 0)] = name;
  }
  std::vector<std::string> names;
  for (const auto& [column, name] : by_column) names.push_back(name);
  return names;
}

std::string KindOf(const Program& program) {
  const std::string unsigned_zero = "@unsigned_zero_point";
  bool quantizes = false;
  for (const Op& op : program.ops) {
    const auto found = op.texts.find("mkldnn_data_type");
    if (found != op.texts.end() && found->second == "int8") return "int8";
    if (EndsWith(First(op.inputs, "ZeroPoint"), unsigned_zero)) return "paddle_openvino";
    quantizes |= op.type == "quantize_linear" || op.type == "dequantize_linear" ||
                 StartsWith(op.type, "fake_");
  }
  return quantizes ? "fake_quantized" : "fp32";
}

// Returns k -> output with the top-k accuracy. Sets `ranked` to the scores that the layer reads.
std::map<int64_t, std::string> AccuracyOutputs(const Program& program,
                                               const std::vector<std::string>& outputs,
                                               std::string* ranked) {
  std::map<std::string, int64_t> sizes;
  std::map<int64_t, std::string> accuracies;
  for (const Op& op : program.ops) {
    if (op.type == "top_k" || op.type == "top_k_v2") {
      sizes[First(op.outputs, "Indices")] = Integer(op, "k", 1);
      if (ranked->empty()) *ranked = First(op.inputs, "X");
    }
    const auto name = First(op.outputs, "Accuracy");
    const auto size = sizes.find(First(op.inputs, "Indices"));
    const bool is_output = std::find(outputs.begin(), outputs.end(), name) != outputs.end();
    if (op.type == "accuracy" && is_output && size != sizes.end()) accuracies[size->second] = name;
  }
  return accuracies;
}

const Variable& Declared(const Program& program, const std::string& name, const std::string& path) {
  const auto found = program.variables.find(name);
  if (found == program.variables.end()) {
    throw DataError(path + ": " + name + " is used but not declared");
  }
  return found->second;
}

Shape ImageShape(const std::vector<int64_t>& shape, const std::string& path) {
  if (shape.size() != 4) {
    throw DataError(path + ": expected an input [N, C, H, W], found " + Joined(shape));
  }
  return {static_cast<int>(shape[1]), static_cast<int>(shape[2]), static_cast<int>(shape[3])};
}

int64_t ClassCount(const std::vector<int64_t>& shape, const std::string& path) {
  if (shape.size() != 2 || shape[1] < 1) {
    throw DataError(path + ": expected scores [N, classes], found " + Joined(shape));
  }
  return shape[1];
}

Program ReadProgram(const std::string& path) {
  const auto bytes = ReadFile(path);
  try {
    return ParseProgram(bytes.value_or(""));
  } catch (const std::invalid_argument& error) {
    throw DataError(path + ": not a Paddle model: " + error.what());
  }
}

}  // namespace

std::string FindModel(const std::string& given) {
  std::string prefix = given;
  if (fs::is_directory(given)) {
    std::vector<std::string> models;
    for (const auto& entry : fs::directory_iterator(given)) {
      const std::string name = entry.path().filename();
      if (EndsWith(name, ".pdmodel")) models.push_back(name);
    }
    std::sort(models.begin(), models.end());
    if (models.size() != 1) {
      const std::string other =
          models.empty() ? " Save models of other formats (__model__) as .pdmodel and .pdiparams." : "";
      throw DataError(given + ": expected one .pdmodel file; found " + Listed(models, "none"),
                      kModelHint + other);
    }
    prefix = fs::path(given) / models.front();
  }
  for (const std::string suffix : {".pdmodel", ".pdiparams"}) {
    if (EndsWith(prefix, suffix)) prefix.resize(prefix.size() - suffix.size());
  }
  for (const std::string suffix : {".pdmodel", ".pdiparams"}) {
    if (!fs::is_regular_file(prefix + suffix)) {
      throw DataError(prefix + suffix + " is missing", kModelHint);
    }
  }
  return prefix;
}

SavedModel ReadSavedModel(const std::string& prefix) {
  const std::string path = prefix + ".pdmodel";
  const Program program = ReadProgram(path);
  const auto inputs = Ordered(program, "feed");
  const auto outputs = Ordered(program, "fetch");
  std::vector<std::string> images, labels;
  for (const auto& name : inputs) {
    const int type = Declared(program, name, path).data_type;
    (type == kInt32 || type == kInt64 ? labels : images).push_back(name);
  }
  std::string ranked;
  const auto accuracies = AccuracyOutputs(program, outputs, &ranked);
  const bool has_layer = !labels.empty();
  if (images.size() != 1 || labels.size() > 1 || outputs.empty() ||
      has_layer != (accuracies.count(1) > 0)) {
    throw DataError(
        path + ": expected one image input, and labels only with accuracy outputs; found " +
            "inputs " + Listed(inputs, "none") + " and outputs " + Listed(outputs, "none"),
        "Save the classifier with scores as its output, or with top_k and accuracy layers.");
  }
  const std::string scores = has_layer ? ranked : outputs.front();
  SavedModel model;
  model.prefix = prefix;
  model.kind = KindOf(program);
  model.image = images.front();
  model.input_shape = ImageShape(Declared(program, model.image, path).shape, path);
  if (has_layer) model.label = labels.front();
  model.label_is_matrix = has_layer && Declared(program, labels.front(), path).shape.size() == 2;
  model.classes = ClassCount(Declared(program, scores, path).shape, path);
  if (!has_layer) model.scores = scores;
  for (const int64_t k : {int64_t{1}, std::min<int64_t>(5, model.classes)}) {
    const auto found = accuracies.find(k);
    if (found != accuracies.end()) model.accuracies.push_back(found->second);
  }
  return model;
}

}  // namespace tester
