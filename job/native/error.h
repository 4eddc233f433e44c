// Expected errors, with the exit codes that `job` documents (job/errors.py).
#pragma once

#include <stdexcept>
#include <string>

namespace tester {

class Error : public std::runtime_error {
 public:
  Error(int exit_code, const std::string& message, const std::string& hint = "")
      : std::runtime_error(hint.empty() ? message : message + "\n" + hint),
        exit_code(exit_code) {}

  const int exit_code;
};

// The command line is wrong.
struct UsageError : Error {
  explicit UsageError(const std::string& message, const std::string& hint = "")
      : Error(2, message, hint) {}
};

// The model or the packed file is missing or corrupt, or they do not match.
struct DataError : Error {
  explicit DataError(const std::string& message, const std::string& hint = "")
      : Error(4, message, hint) {}
};

// This machine cannot run the model with these options.
struct MachineError : Error {
  explicit MachineError(const std::string& message, const std::string& hint = "")
      : Error(5, message, hint) {}
};

}  // namespace tester
