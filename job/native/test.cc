#include "test.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "error.h"

namespace tester {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kProgressPeriod{5};

double TimedRun(Predictor* predictor, const Batch& batch) {
  const auto started = Clock::now();
  predictor->Run(batch);
  return std::chrono::duration<double, std::milli>(Clock::now() - started).count();
}

void CheckIterations(const Batches& batches, const Options& options, int64_t iterations) {
  if (iterations > batches.count()) {
    throw UsageError("--iterations " + std::to_string(iterations) + ": the file has only " +
                         std::to_string(batches.count()) + " batches of " +
                         std::to_string(batches.size()) + " images",
                     "Lower --iterations to at most " + std::to_string(batches.count()) +
                         ", or lower --batch-size.");
  }
  const int64_t whole = std::min(iterations, batches.whole());
  if (options.skip_batch_num >= whole) {
    throw UsageError("--skip-batch-num " + std::to_string(options.skip_batch_num) +
                         ": no batch remains to be timed, because only " + std::to_string(whole) +
                         " batches of full size are run",
                     "Lower --skip-batch-num or --batch-size.");
  }
}

void Add(const Right& more, Right* sum) {
  sum->top1 += more.top1;
  sum->top5 = more.top5 ? std::optional(sum->top5.value_or(0) + *more.top5) : std::nullopt;
}

}  // namespace

Batches::Batches(const PackedFile& file, int64_t size)
    : file_(file),
      size_(std::min(size, file.count())),
      count_((file.count() + size_ - 1) / size_),
      whole_(file.count() / size_) {}

const Batch& Batches::Read(int64_t number) {
  const int64_t start = number * size_;
  const int64_t end = std::min(start + size_, file_.count());
  batch_.images.assign(file_.image(start), file_.image(end));
  batch_.labels.assign(file_.labels() + start, file_.labels() + end);
  return batch_;
}

void Test(Predictor* predictor, Batches* batches, const Options& options, Result* result) {
  result->batch_size = batches->size();
  result->iterations = options.iterations.value_or(batches->count());
  CheckIterations(*batches, options, result->iterations);
  for (int number = 0; number < options.warmup_size; ++number) {
    predictor->Run(batches->Read(number % batches->whole()));
  }
  auto reported_at = Clock::now();
  for (int64_t number = 0; number < result->iterations; ++number) {
    const Batch& batch = batches->Read(number);
    for (int call = 0; call < options.repeat; ++call) {
      const double milliseconds = TimedRun(predictor, batch);
      const bool counts = number >= options.skip_batch_num && number < batches->whole();
      if (counts) result->milliseconds.push_back(milliseconds);
    }
    result->images += static_cast<int64_t>(batch.labels.size());
    Add(predictor->CountRight(batch), &result->right);
    if (Clock::now() - reported_at > kProgressPeriod) {
      reported_at = Clock::now();
      std::fprintf(stderr, "%ld/%ld batches\n", number + 1, result->iterations);
    }
  }
}

}  // namespace tester
