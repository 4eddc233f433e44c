#include "result.h"

#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "statistics.h"

namespace tester {

namespace {

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') quoted += '\\';
    if (static_cast<unsigned char>(letter) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", letter);
      quoted += escape;
    } else {
      quoted += letter;
    }
  }
  return quoted + '"';
}

// Returns the shortest text that parses to the same number.
std::string Value(double number) {
  char text[32];
  for (int digits = 15; digits <= 17; ++digits) {
    std::snprintf(text, sizeof(text), "%.*g", digits, number);
    if (std::strtod(text, nullptr) == number) break;
  }
  return text;
}

std::string Value(int64_t number) { return std::to_string(number); }
std::string Value(bool truth) { return truth ? "true" : "false"; }

// An indented JSON object; values are added as JSON text.
class Object {
 public:
  explicit Object(int depth) : margin_(2 * static_cast<size_t>(depth), ' ') {}

  Object& Add(const std::string& key, const std::string& json) {
    body_ += (body_.empty() ? "\n" : ",\n") + margin_ + "  " + Quoted(key) + ": " + json;
    return *this;
  }

  std::string Text() const { return "{" + body_ + "\n" + margin_ + "}"; }

 private:
  std::string margin_;
  std::string body_;
};

template <typename Items, typename Json>
std::string Array(const Items& items, const Json& json) {
  std::string body;
  for (const auto& item : items) body += (body.empty() ? "" : ", ") + json(item);
  return "[" + body + "]";
}

std::string ModelJson(const Result& result) {
  const auto& model = result.model;
  return Object(1)
      .Add("prefix", Quoted(model.prefix))
      .Add("kind", Quoted(model.kind))
      .Add("input_shape", Array(result.shape, [](int size) { return Value(int64_t{size}); }))
      .Add("classes", Value(model.classes))
      .Add("accuracy_layer", Value(model.label.has_value()))
      .Text();
}

std::string SettingsJson(const Result& result) {
  const auto& options = result.options;
  return Object(1)
      .Add("batch_size", Value(result.batch_size))
      .Add("iterations", Value(result.iterations))
      .Add("repeat", Value(int64_t{options.repeat}))
      .Add("warmup_size", Value(int64_t{options.warmup_size}))
      .Add("skip_batch_num", Value(int64_t{options.skip_batch_num}))
      .Add("num_threads", Value(int64_t{options.num_threads}))
      .Text();
}

std::string AccuracyJson(const Result& result) {
  const auto& [top1, top5] = result.right;
  const auto total = static_cast<double>(result.images);
  const auto percent = [total](int64_t count) {
    return Value(100 * static_cast<double>(count) / total);
  };
  return Object(1)
      .Add("images", Value(result.images))
      .Add("top1_correct", Value(top1))
      .Add("top5_correct", top5 ? Value(*top5) : "null")
      .Add("top1", percent(top1))
      .Add("top5", top5 ? percent(*top5) : "null")
      .Text();
}

std::string SpeedJson(const Result& result) {
  const auto& samples = result.milliseconds;
  const double total = std::accumulate(samples.begin(), samples.end(), 0.0);
  const auto images = static_cast<double>(samples.size()) * static_cast<double>(result.batch_size);
  const auto latency = Object(2)
                           .Add("p50", Value(Percentile(samples, 0.5)))
                           .Add("p90", Value(Percentile(samples, 0.9)))
                           .Add("p99", Value(Percentile(samples, 0.99)))
                           .Text();
  return Object(1)
      .Add("images_per_second", Value(1000 * images / total))
      .Add("latency_ms", latency)
      .Add("calls", Value(static_cast<int64_t>(samples.size())))
      .Add("load_seconds", Value(result.load_seconds))
      .Text();
}

std::string PrimitiveJson(const PrimitiveRow& row) {
  return Object(2)
      .Add("kind", Quoted(row.kind))
      .Add("implementation", Quoted(row.implementation))
      .Add("data_type", Quoted(row.data_type))
      .Add("count", Value(int64_t{row.count}))
      .Add("milliseconds", Value(row.milliseconds))
      .Text();
}

}  // namespace

std::string ToJson(const Result& result) {
  const auto data = Object(1)
                        .Add("file", Quoted(result.options.infer_data))
                        .Add("images", Value(result.file_images))
                        .Text();
  return Object(0)
      .Add("tester", Quoted("native"))
      .Add("paddle", Quoted(result.paddle))
      .Add("model", ModelJson(result))
      .Add("data", data)
      .Add("settings", SettingsJson(result))
      .Add("accuracy", AccuracyJson(result))
      .Add("speed", SpeedJson(result))
      .Add("primitives", result.primitives ? Array(*result.primitives, PrimitiveJson) : "null")
      .Text();
}

}  // namespace tester
