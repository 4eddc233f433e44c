// The tutorial's parameters.
#pragma once

#include <optional>
#include <string>

namespace tester {

struct Options {
  std::string infer_model;                  // folder of a saved model, or its path
  std::string infer_data;                   // packed file
  int repeat = 1;                           // calls with each batch
  int warmup_size = 0;                      // batches that are run before, uncounted
  int batch_size = 50;                      // images a batch
  std::optional<int> iterations;            // batches; all of the file if not given
  int num_threads = 1;                      // each on a core of its own
  std::optional<bool> with_accuracy_layer;  // found in the model if not given
  bool profile = false;                     // list oneDNN's primitives of one call
  int skip_batch_num = 0;                   // first batches that do not count for speed
  bool help = false;
};

extern const char kUsage[];

// Reads `--name value` and `--name=value`, with - or _ between the words of a name.
// Throws UsageError.
Options ParseOptions(int count, char** arguments);

}  // namespace tester
