#include "program.h"

#include <stdexcept>
#include <utility>

namespace tester {

namespace {

const char kCorrupt[] = "the file is truncated or has another format";

// One message in protocol buffers' wire format, field by field:
// https://protobuf.dev/programming-guides/encoding/
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  // Reads the next field; returns false at the end.
  bool Next() {
    if (rest_.empty()) return false;
    const uint64_t tag = Varint();
    field_ = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case 0:
        integer_ = static_cast<int64_t>(Varint());
        break;
      case 1:
        Take(8);
        break;
      case 2:
        bytes_ = Take(Varint());
        break;
      case 5:
        Take(4);
        break;
      default:
        throw std::invalid_argument(kCorrupt);
    }
    is_bytes_ = (tag & 7) == 2;
    return true;
  }

  int field() const { return field_; }
  int64_t integer() const { return integer_; }
  std::string_view bytes() const { return is_bytes_ ? bytes_ : std::string_view(); }
  std::string text() const { return std::string(bytes()); }

  // Appends a repeated integer, packed or not.
  void AppendTo(std::vector<int64_t>* values) const {
    if (!is_bytes_) {
      values->push_back(integer_);
      return;
    }
    Message packed(bytes_);
    while (!packed.rest_.empty()) values->push_back(static_cast<int64_t>(packed.Varint()));
  }

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(Take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw std::invalid_argument(kCorrupt);
  }

  std::string_view Take(uint64_t count) {
    if (count > rest_.size()) throw std::invalid_argument(kCorrupt);
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_;
  int field_ = 0;
  int64_t integer_ = 0;
  std::string_view bytes_;
  bool is_bytes_ = false;
};

// Numbers of the fields in framework.proto.
namespace field {
enum ProgramDesc { kBlocks = 1 };
enum BlockDesc { kVars = 3, kOps = 4 };
enum OpDesc { kInputs = 1, kOutputs = 2, kType = 3, kAttrs = 4 };
enum OpDescVar { kParameter = 1, kArguments = 2 };
enum OpDescAttr { kAttrName = 1, kInteger = 3, kText = 5 };
enum VarDesc { kVarName = 1, kVarType = 2 };
enum VarType { kDenseTensor = 3 };
enum DenseTensorDesc { kTensor = 1 };
enum TensorDesc { kDataType = 1, kDims = 2 };
}  // namespace field

void ParseSlot(Message slot, std::map<std::string, std::vector<std::string>>* slots) {
  std::string name;
  std::vector<std::string> variables;
  while (slot.Next()) {
    if (slot.field() == field::kParameter) name = slot.text();
    if (slot.field() == field::kArguments) variables.push_back(slot.text());
  }
  (*slots)[name] = std::move(variables);
}

void ParseAttribute(Message attribute, Op* op) {
  std::string name;
  while (attribute.Next()) {
    if (attribute.field() == field::kAttrName) name = attribute.text();
    if (attribute.field() == field::kInteger) op->integers[name] = attribute.integer();
    if (attribute.field() == field::kText) op->texts[name] = attribute.text();
  }
}

Op ParseOp(Message message) {
  Op op;
  while (message.Next()) {
    const Message inner(message.bytes());
    if (message.field() == field::kType) op.type = message.text();
    if (message.field() == field::kInputs) ParseSlot(inner, &op.inputs);
    if (message.field() == field::kOutputs) ParseSlot(inner, &op.outputs);
    if (message.field() == field::kAttrs) ParseAttribute(inner, &op);
  }
  return op;
}

// Returns the message in a field of a message, such as VarType.dense_tensor.
Message Inside(Message message, int wanted) {
  std::string_view found;
  while (message.Next()) {
    if (message.field() == wanted) found = message.bytes();
  }
  return Message(found);
}

void ParseVariable(Message message, Program* program) {
  std::string name;
  Variable variable;
  while (message.Next()) {
    if (message.field() == field::kVarName) name = message.text();
    if (message.field() != field::kVarType) continue;
    const Message dense = Inside(Message(message.bytes()), field::kDenseTensor);
    Message tensor = Inside(dense, field::kTensor);
    while (tensor.Next()) {
      const auto integer = static_cast<int>(tensor.integer());
      if (tensor.field() == field::kDataType) variable.data_type = integer;
      if (tensor.field() == field::kDims) tensor.AppendTo(&variable.shape);
    }
  }
  program->variables[name] = std::move(variable);
}

}  // namespace

Program ParseProgram(std::string_view bytes) {
  Message description(bytes);
  while (description.Next()) {
    if (description.field() != field::kBlocks) continue;
    Program program;
    Message block(description.bytes());
    while (block.Next()) {
      if (block.field() == field::kOps) program.ops.push_back(ParseOp(Message(block.bytes())));
      if (block.field() == field::kVars) ParseVariable(Message(block.bytes()), &program);
    }
    return program;
  }
  throw std::invalid_argument("it contains no program");
}

}  // namespace tester
