// Command-line options, named as in the tutorial.
#pragma once

#include <optional>
#include <string>

namespace tester {

struct Options {
  std::string infer_model;                  // folder of a saved model, or its path
  std::string infer_data;                   // packed file
  int repeat = 1;                           // calls per batch
  int warmup_size = 0;                      // batches run first, without timing
  int batch_size = 50;                      // images per batch
  std::optional<int> iterations;            // number of batches; nothing: all
  int num_threads = 1;                      // each thread has its own core
  std::optional<bool> with_accuracy_layer;  // nothing: read from the model
  bool profile = false;                     // list oneDNN's primitives of one call
  int skip_batch_num = 0;                   // number of first batches without timing
  bool help = false;
};

extern const char kUsage[];

// Parses `--name value` and `--name=value`, with - or _ between the words of a name.
// Throws UsageError.
Options ParseOptions(int count, char** arguments);

}  // namespace tester
