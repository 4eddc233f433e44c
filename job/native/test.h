// Runs a model on the batches of a packed file.
#pragma once

#include "options.h"
#include "packed_file.h"
#include "predictor.h"
#include "result.h"

namespace tester {

// Batches of a packed file; each batch is copied to memory when it is read.
class Batches {
 public:
  Batches(const PackedFile& file, int64_t size);

  int64_t size() const { return size_; }    // images per batch; the last batch may be smaller
  int64_t count() const { return count_; }  // number of batches
  int64_t whole() const { return whole_; }  // number of batches of full size
  const Batch& Read(int64_t number);        // valid until the next call

 private:
  const PackedFile& file_;
  int64_t size_, count_, whole_;
  Batch batch_;
};

// Runs the batches and writes the results to `result`. Every batch counts for accuracy, batches of
// full size for speed. Throws UsageError if the file has too few batches for the options.
void Test(Predictor* predictor, Batches* batches, const Options& options, Result* result);

}  // namespace tester
