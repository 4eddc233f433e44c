#include "options.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "error.h"

namespace tester {

const char kUsage[] = R"(Usage: tester --infer_model DIR_OR_PREFIX --infer_data FILE [options]

Runs a saved FP32, fake-quantized or INT8 model on a packed file and prints accuracy and speed as
one JSON object.

  --infer_model PATH      folder of a saved model (fp32, qat_fake or int8 of a run), or its path
  --infer_data FILE       packed file (`job pack` writes one)
  --repeat N              number of timed calls for each batch (1)
  --warmup_size N         number of untimed batches at the start (0)
  --batch_size N          images per batch (50)
  --iterations N          number of batches (all)
  --num_threads N         number of threads, each pinned to its own core (1)
  --with_accuracy_layer, --nowith_accuracy_layer
                          whether the model must have a label input and accuracy outputs (read
                          from the model)
  --profile               also list oneDNN's primitives of one call
  --skip_batch_num N      number of batches at the start that count for accuracy, not for speed (0)

Exit codes: 0 success; 2 wrong command line; 4 data or model missing or corrupt; 5 this machine
cannot run the model with these options; 1 any other error.
)";

namespace {

const char kHelpHint[] = "Run with --help to list the options.";

struct Argument {
  std::string spelling;  // as on the command line
  std::string name;      // with - between words, without leading dashes
  std::optional<std::string> value;
};

Argument Split(const std::string& text) {
  if (text.rfind("--", 0) != 0) {
    throw UsageError("Got unexpected extra argument(s) (" + text + ")", kHelpHint);
  }
  const size_t equals = text.find('=');
  const std::string spelling = text.substr(0, equals);
  Argument argument{spelling, spelling.substr(2), {}};
  if (equals != std::string::npos) argument.value = text.substr(equals + 1);
  std::replace(argument.name.begin(), argument.name.end(), '_', '-');
  return argument;
}

// Returns an option's spellings as `job predict` prints them: '--batch-size' / '--batch_size'.
std::string Spellings(const std::string& name) {
  std::string other = name;
  std::replace(other.begin(), other.end(), '-', '_');
  const std::string first = "'--" + name + "'";
  return other == name ? first : first + " / '--" + other + "'";
}

int ToInteger(const std::string& name, const std::string& text, int minimum) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, fault] = std::from_chars(text.data(), end, value);
  const std::string invalid = "Invalid value for " + Spellings(name) + ": ";
  if (fault != std::errc() || stop != end) {
    throw UsageError(invalid + "'" + text + "' is not a valid int range.");
  }
  if (value < minimum) {
    throw UsageError(invalid + text + " is not in the range x>=" + std::to_string(minimum) + ".");
  }
  return value;
}

bool ToBoolean(const Argument& argument) {
  const std::string value = argument.value.value_or("true");
  if (value != "true" && value != "false") {
    throw UsageError("--" + argument.name + ": expected true or false, found '" + value + "'");
  }
  return value == "true";
}

// Sets a switch; returns false for another name.
bool SetSwitch(const Argument& argument, Options* options) {
  const std::string& name = argument.name;
  if (name == "with-accuracy-layer") {
    options->with_accuracy_layer = ToBoolean(argument);
  } else if (name == "no-with-accuracy-layer" || name == "nowith-accuracy-layer") {
    options->with_accuracy_layer = !ToBoolean(argument);
  } else if (name == "profile") {
    options->profile = ToBoolean(argument);
  } else if (name == "help") {
    options->help = true;
  } else {
    // Accepted without effect for compatibility with `job predict`: the tester always prints JSON.
    return name == "json";
  }
  return true;
}

void SetValue(const Argument& argument, const std::optional<std::string>& given,
              Options* options) {
  const std::string& name = argument.name;
  const auto value = [&]() -> const std::string& {
    if (!given) throw UsageError("Option '" + argument.spelling + "' requires an argument.");
    return *given;
  };
  if (name == "infer-model") {
    options->infer_model = value();
  } else if (name == "infer-data") {
    options->infer_data = value();
  } else if (name == "repeat") {
    options->repeat = ToInteger(name, value(), 1);
  } else if (name == "warmup-size") {
    options->warmup_size = ToInteger(name, value(), 0);
  } else if (name == "batch-size") {
    options->batch_size = ToInteger(name, value(), 1);
  } else if (name == "iterations") {
    options->iterations = ToInteger(name, value(), 1);
  } else if (name == "num-threads") {
    options->num_threads = ToInteger(name, value(), 1);
  } else if (name == "skip-batch-num") {
    options->skip_batch_num = ToInteger(name, value(), 0);
  } else {
    throw UsageError("No such option: --" + name, kHelpHint);
  }
}

}  // namespace

Options ParseOptions(int count, char** arguments) {
  const std::vector<std::string> texts(arguments + 1, arguments + count);
  Options options;
  for (size_t at = 0; at < texts.size(); ++at) {
    const Argument argument = Split(texts[at]);
    if (SetSwitch(argument, &options)) continue;
    const bool follows = !argument.value && at + 1 < texts.size();
    SetValue(argument, follows ? std::optional(texts[++at]) : argument.value, &options);
  }
  if (!options.help && (options.infer_model.empty() || options.infer_data.empty())) {
    throw UsageError("--infer_model and --infer_data are required",
                     "Run with --help to list the options.");
  }
  return options;
}

}  // namespace tester
