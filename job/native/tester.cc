// The native tester (tutorial, section 4.3): `job predict` without Python.

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "error.h"
#include "files.h"
#include "options.h"
#include "packed_file.h"
#include "predictor.h"
#include "primitives.h"
#include "result.h"
#include "saved_model.h"
#include "test.h"

namespace tester {

namespace {

constexpr int kProfileRuns = 4;

// Pins this process, and the threads that it will start, to the first `threads` usable cores.
void Pin(int threads) {
  cpu_set_t usable, wanted;
  CPU_ZERO(&usable);
  CPU_ZERO(&wanted);
  sched_getaffinity(0, sizeof(usable), &usable);
  if (threads > CPU_COUNT(&usable)) {
    throw MachineError("--num-threads: found " + std::to_string(threads) + " threads, but only " +
                           std::to_string(CPU_COUNT(&usable)) + " cores can be used",
                       "Lower --num-threads, or give the container more cores.");
  }
  for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&wanted) < threads; ++core) {
    if (CPU_ISSET(core, &usable)) CPU_SET(core, &wanted);
  }
  sched_setaffinity(0, sizeof(wanted), &wanted);
}

void CheckLayer(const SavedModel& model, const std::optional<bool>& wanted) {
  if (wanted == true && !model.label) {
    throw UsageError(
        "--with-accuracy-layer: the model has no label input, so it has no accuracy layer",
        "Omit the option. Then correct answers are counted from the scores.");
  }
  if (wanted == false && model.label) {
    throw UsageError(
        "--no-with-accuracy-layer: the model has an accuracy layer with label input '" +
            *model.label + "'",
        "Omit the option.");
  }
}

// Returns the shape of the packed images: the model's shape, or the sidecar's shape if the model
// accepts any size.
Shape ShapeOfImages(const SavedModel& model, const std::string& path) {
  const Shape& shape = model.input_shape;
  if (shape[0] > 0 && shape[1] > 0 && shape[2] > 0) return shape;
  const auto described = DescribedShape(path);
  if (!described) {
    throw DataError(path + ": the sidecar " + SidecarName(path) +
                        " is missing; it must contain the image size, because the model accepts "
                        "any size " + Joined(shape),
                    "Pack the images with `job pack`. It also writes the sidecar.");
  }
  return *described;
}

// Runs the first batch in a child process, because oneDNN's log would slow down the timed calls.
std::vector<PrimitiveRow> Profile(const SavedModel& model, const PackedFile& file,
                                  const Options& options) {
  std::FILE* log = std::tmpfile();
  if (!log) throw std::runtime_error("cannot create a temporary file for oneDNN's log");
  const pid_t child = fork();
  if (child == 0) {
    setenv("ONEDNN_VERBOSE", "1", 1);
    dup2(fileno(log), STDOUT_FILENO);
    try {
      Predictor predictor(model, file.shape(), options.num_threads);
      Batches batches(file, options.batch_size);
      for (int run = 0; run < kProfileRuns; ++run) predictor.Run(batches.Read(0));
    } catch (const std::exception& error) {
      _exit(EXIT_FAILURE);
    }
    std::fflush(nullptr);
    _exit(EXIT_SUCCESS);
  }
  int status = EXIT_FAILURE;
  if (child < 0 || waitpid(child, &status, 0) != child || status != EXIT_SUCCESS) {
    throw std::runtime_error(
        "--profile: the process that runs the model with oneDNN's log failed; omit --profile");
  }
  std::ifstream lines("/proc/self/fd/" + std::to_string(fileno(log)));
  auto rows = SummarizeLog(lines, kProfileRuns);
  std::fclose(log);
  return rows;
}

Result Run(const Options& options) {
  Result result;
  result.options = options;
  CheckPaddleVersion();
  result.paddle = PaddleVersion();
  const std::string prefix = FindModel(options.infer_model);
  CheckExists(options.infer_data);
  result.model = ReadSavedModel(prefix);
  CheckLayer(result.model, options.with_accuracy_layer);
  result.shape = ShapeOfImages(result.model, options.infer_data);
  const PackedFile file(options.infer_data, result.shape);
  file.CheckLabels(result.model.classes);
  result.file_images = file.count();
  Pin(options.num_threads);
  if (options.profile) result.primitives = Profile(result.model, file, options);
  Predictor predictor(result.model, file.shape(), options.num_threads);
  result.load_seconds = predictor.load_seconds();
  Batches batches(file, options.batch_size);
  Test(&predictor, &batches, options, &result);
  return result;
}

}  // namespace

int Main(int count, char** arguments) {
  // Paddle and oneDNN print to standard output, so the result gets its own descriptor.
  const int answers = dup(STDOUT_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  try {
    const Options options = ParseOptions(count, arguments);
    const std::string text = options.help ? kUsage : ToJson(Run(options)) + "\n";
    const auto written = write(answers, text.data(), text.size());
    return written == static_cast<ssize_t>(text.size()) ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const Error& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return error.exit_code;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return EXIT_FAILURE;
  }
}

}  // namespace tester

int main(int count, char** arguments) { return tester::Main(count, arguments); }
