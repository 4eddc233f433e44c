// A saved program: the part of Paddle's framework.proto that describes a model. The file is parsed
// here, because the inference library has no API to read a program without running it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tester {

struct Op {
  std::string type;
  std::map<std::string, std::vector<std::string>> inputs;   // slot -> variables
  std::map<std::string, std::vector<std::string>> outputs;  // slot -> variables
  std::map<std::string, std::string> texts;                 // attributes
  std::map<std::string, int64_t> integers;                  // attributes
};

struct Variable {
  int data_type = -1;  // VarType.Type
  std::vector<int64_t> shape;
};

struct Program {
  std::vector<Op> ops;
  std::map<std::string, Variable> variables;
};

// Parses the first block of a ProgramDesc. Throws std::invalid_argument if the bytes are invalid.
Program ParseProgram(std::string_view bytes);

}  // namespace tester
