// Reads the kind, the inputs and the outputs of a saved model from its program.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "packed_file.h"

namespace tester {

struct SavedModel {
  std::string prefix;                   // path without .pdmodel and .pdiparams
  std::string kind;                     // fp32, fake_quantized or int8
  std::string image;                    // image input [N, channels, height, width]
  Shape input_shape;                    // -1 stands for any size
  std::optional<std::string> label;     // label input; nothing without an accuracy layer
  bool label_is_matrix;                 // labels have shape [N, 1], not [N]
  int64_t classes;                      // number of classes
  std::string scores;                   // output [N, classes]; empty with an accuracy layer
  std::vector<std::string> accuracies;  // outputs: top-1 and, if the model has it, top-5 accuracy
};

// Returns the path without suffix of a model, given its folder, or its path with or without suffix.
// Throws DataError.
std::string FindModel(const std::string& given);

// Describes a model. Throws DataError if it is corrupt or not an image classifier.
SavedModel ReadSavedModel(const std::string& prefix);

}  // namespace tester
