// Runs the batches of a packed file through a model.
#pragma once

#include "options.h"
#include "packed_file.h"
#include "predictor.h"
#include "result.h"

namespace tester {

// Batches of a packed file, copied to memory one at a time.
class Batches {
 public:
  Batches(const PackedFile& file, int64_t size);

  int64_t size() const { return size_; }    // images; the last batch may be smaller
  int64_t count() const { return count_; }  // of all batches
  int64_t whole() const { return whole_; }  // of batches that are not smaller
  const Batch& Read(int64_t number);        // valid until the next call

 private:
  const PackedFile& file_;
  int64_t size_, count_, whole_;
  Batch batch_;
};

// Every batch counts for accuracy, whole ones for speed. Fills in what `result` tells of the runs.
// Throws UsageError: no batch is left to time, or more are asked for than there are.
void Test(Predictor* predictor, Batches* batches, const Options& options, Result* result);

}  // namespace tester
