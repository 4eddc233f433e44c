// What a saved model holds, read from its program: which kind it is, its inputs and outputs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "packed_file.h"

namespace tester {

struct SavedModel {
  std::string prefix;                   // path without .pdmodel and .pdiparams
  std::string kind;                     // fp32, fake_quantized or int8
  std::string image;                    // input of images [N, channels, height, width]
  Shape input_shape;                    // -1 where any size is taken
  std::optional<std::string> label;     // input of labels; nothing without an accuracy layer
  bool label_is_matrix;                 // labels [N, 1], not [N]
  int64_t classes;                      // scores that the model gives an image
  std::string scores;                   // output [N, classes]; empty with an accuracy layer
  std::vector<std::string> accuracies;  // outputs: share right in the top 1 and, if told, top 5
};

// Finds a model by its folder, or by its path with or without suffix. Throws DataError.
std::string FindModel(const std::string& given);

// Describes a model. Throws DataError: corrupt, or no classifier of images.
SavedModel ReadSavedModel(const std::string& prefix);

}  // namespace tester
